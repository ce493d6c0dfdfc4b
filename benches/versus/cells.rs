//! The cells of the table: which requests, how many at once, over how many connections, to servers set up how.

use crate::generator::{Batch, Load};

/// How both servers are set up.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Setting {
    pub threads: usize,
    pub tls: bool,
}

impl Setting {
    pub const PLAIN: Setting = Setting { threads: 1, tls: false };
    const TLS: Setting = Setting { threads: 1, tls: true };
    const TWO_THREADS: Setting = Setting { threads: 2, tls: false };
    pub const ALL: [Setting; 3] = [Setting::PLAIN, Setting::TLS, Setting::TWO_THREADS];
}

#[derive(Clone, Copy)]
enum Kind {
    /// `get` of a token, of sixteen apps.
    Managed,
    /// One `set` to so many `get`s of small values; none if 0.
    Small { gets_per_set: usize },
    /// The same of large values.
    Large { gets_per_set: usize },
    /// `get` of fifty small values.
    Multiget,
    /// `get` of what is not there.
    Miss,
    /// `mg` of a small value.
    Meta,
}

#[derive(Clone, Copy)]
pub struct Cell {
    pub load_name: &'static str,
    pub words: &'static str,
    kind: Kind,
    pub depth: usize,
    pub connections: usize,
    pub setting: Setting,
    /// A loop that answers a constant can stand in for the server.
    pub floor: bool,
}

impl Cell {
    pub fn name(&self) -> String {
        format!("{}@{}", self.load_name, self.depth)
    }
}

/// Name, words, requests, setting, connections, and the depths it is measured at.
type Row = (&'static str, &'static str, Kind, Setting, usize, &'static [usize]);

const LOADS: &[Row] = &[
    ("managed", "tokens of 512 bytes, 16 hot keys", Kind::Managed, Setting::PLAIN, 32, &[1, 8, 32, 128]),
    ("mixed", "set:get 1:10, 100 bytes, 100k keys", Kind::Small { gets_per_set: 10 }, Setting::PLAIN, 32, &[1, 8, 32]),
    ("half", "set:get 1:1, 100 bytes, 100k keys", Kind::Small { gets_per_set: 1 }, Setting::PLAIN, 32, &[1, 8, 32]),
    ("multiget", "get of 50 keys, 100 bytes each", Kind::Multiget, Setting::PLAIN, 32, &[1, 8]),
    ("large", "set:get 1:10, 10 KB, 1000 keys", Kind::Large { gets_per_set: 10 }, Setting::PLAIN, 32, &[1, 8]),
    ("miss", "misses", Kind::Miss, Setting::PLAIN, 32, &[1, 32]),
    ("meta", "mg of 100 bytes, 100k keys", Kind::Meta, Setting::PLAIN, 32, &[1, 32]),
    ("thousand", "tokens, 1000 connections", Kind::Managed, Setting::PLAIN, 1000, &[1]),
    ("tls", "tokens over TLS 1.3", Kind::Managed, Setting::TLS, 32, &[1, 32]),
    ("threads", "tokens, two threads on two cores", Kind::Managed, Setting::TWO_THREADS, 32, &[1, 32]),
];

pub fn all() -> impl Iterator<Item = Cell> {
    LOADS.iter().flat_map(|&(load_name, words, kind, setting, connections, depths)| {
        let floor = setting == Setting::PLAIN && matches!(kind, Kind::Managed | Kind::Miss);
        depths.iter().map(move |&depth| Cell { load_name, words, kind, depth, connections, setting, floor })
    })
}

pub const APPS: usize = 16;
const SMALL_KEYS: usize = 100_000;
const LARGE_KEYS: usize = 1_000;
const MULTIGET_KEYS: usize = 50;
/// The batches of a load take about so much memory, or there are so many of them.
const LOAD_BYTES: usize = 16 << 20;
const BATCHES_MAX: usize = 20_000;

/// An app's id, and in its place in the key, so that memtier can make the same keys from a number.
pub const APPID_HEAD: &str = "wx00000000000000";
pub const FIRST_APP: usize = 10;

pub fn appid(n: usize) -> String {
    format!("{APPID_HEAD}{:02}", FIRST_APP + n)
}

pub fn token_key(n: usize) -> String {
    format!("access_token:{}", appid(n))
}

/// An ordinary key and its value.
fn item(kind: Kind, n: usize) -> (String, String) {
    match kind {
        Kind::Large { .. } => (format!("large:{n:06}"), format!("{n:010240}")),
        _ => (format!("small:{n:06}"), format!("{n:0100}")),
    }
}

fn set(key: &str, value: &str) -> String {
    format!("set {key} 0 0 {}\r\n{value}\r\n", value.len())
}

fn shown(key: &str, value: &str) -> String {
    format!("VALUE {key} 0 {}\r\n{value}\r\n", value.len())
}

/// What a server must be told before the load: `set`s in batches of a hundred.
pub fn filling(tokens: Option<&[String]>, ordinary: bool) -> Vec<Batch> {
    let small = (0..SMALL_KEYS).map(|n| item(Kind::Meta, n));
    let large = (0..LARGE_KEYS).map(|n| item(Kind::Large { gets_per_set: 0 }, n));
    let items = small.chain(large).take(if ordinary { usize::MAX } else { 0 });
    let tokens = tokens.unwrap_or_default().iter().enumerate().map(|(n, token)| (token_key(n), token.clone()));
    let mut batches: Vec<Batch> = Vec::new();
    for (key, value) in tokens.chain(items) {
        if batches.last().is_none_or(|batch| batch.requests == 100) {
            batches.push(Batch::default());
        }
        if let Some(batch) = batches.last_mut() {
            batch.push(set(&key, &value).as_bytes(), b"STORED\r\n");
        }
    }
    batches
}

/// Writes the requests of a cell down, with their answers. The same each time.
pub fn load(cell: &Cell, tokens: &[String]) -> Load {
    let mut random = fastrand::Rng::with_seed(7);
    let mut count = 0;
    let mut batches = Vec::new();
    let mut bytes = 0;
    let at_least = cell.connections.min(64);
    while batches.len() < at_least || bytes < LOAD_BYTES && batches.len() < BATCHES_MAX {
        let mut batch = Batch::default();
        for _ in 0..cell.depth {
            let (send, expected) = request(cell.kind, count, &mut random, tokens);
            batch.push(send.as_bytes(), expected.as_bytes());
            count += 1;
        }
        bytes += batch.send.len() + batch.expected.len();
        batches.push(batch);
        if matches!(cell.kind, Kind::Managed) && batches.len() >= at_least {
            break;
        }
    }
    Load { batches }
}

/// The `count`th request, and its answer.
fn request(kind: Kind, count: usize, random: &mut fastrand::Rng, tokens: &[String]) -> (String, String) {
    match kind {
        Kind::Managed => {
            let n = count % tokens.len();
            let key = token_key(n);
            (format!("get {key}\r\n"), shown(&key, &tokens[n]) + "END\r\n")
        }
        Kind::Small { gets_per_set } | Kind::Large { gets_per_set } => {
            let large = matches!(kind, Kind::Large { .. });
            let (key, value) = item(kind, random.usize(..if large { LARGE_KEYS } else { SMALL_KEYS }));
            if count % (gets_per_set + 1) == gets_per_set {
                return (set(&key, &value), "STORED\r\n".to_owned());
            }
            (format!("get {key}\r\n"), shown(&key, &value) + "END\r\n")
        }
        Kind::Multiget => {
            let items = || (0..MULTIGET_KEYS).map(|i| item(kind, (count * MULTIGET_KEYS + i) * 7919 % SMALL_KEYS));
            let keys: String = items().map(|(key, _)| format!(" {key}")).collect();
            let values: String = items().map(|(key, value)| shown(&key, &value)).collect();
            (format!("get{keys}\r\n"), values + "END\r\n")
        }
        Kind::Miss => (format!("get absent:{:06}\r\n", random.usize(..SMALL_KEYS)), "END\r\n".to_owned()),
        Kind::Meta => {
            let (key, value) = item(kind, random.usize(..SMALL_KEYS));
            (format!("mg {key} v\r\n"), format!("VA {}\r\n{value}\r\n", value.len()))
        }
    }
}
