//! Parse, execute, respond, without sockets: what `benches/cycles/check` counts the instructions of.
//!
//! `cycles CASE ROUNDS` runs one case so often and prints nothing. Takes no time and judges nothing.

#![allow(clippy::unwrap_used)]

use std::hint::black_box;
use std::sync::Arc;

use tokencached::access::Rights;
use tokencached::cache::{Cache, Options};
use tokencached::clock::Now;
use tokencached::credential::table::{KeyConfig, NamesReader, Published, Table, TableConfig};
use tokencached::encoding::{ANY, View};
use tokencached::protocol::RequestStep;
use tokencached::protocol::binary;
use tokencached::protocol::parse::step;
use tokencached::service::{CommandOutcome, Context, KEYS_PER_TURN, Output, Service, Settings};
use tokencached::stats::{Stats, WorkerStats};

const ITEM_BYTES_MAX: usize = 1 << 20;
const SMALL_KEYS: usize = 1000;
const LARGE_KEYS: usize = 50;
const APPS: usize = 16;
const COUNT: &str = "count:000001";

fn main() {
    // cargo adds `--bench` behind.
    let mut arguments = std::env::args().skip(1).filter(|argument| argument != "--bench");
    let (Some(case), Some(rounds)) = (arguments.next(), arguments.next()) else {
        return println!("cycles CASE ROUNDS; benches/cycles/check has the cases");
    };
    let requests = requests(&case);
    let mut bench = Bench::new(case.starts_with("wildcard"));
    counted(&mut bench, &requests, rounds.parse().unwrap());
}

/// What is done in here is counted, and only that; `check` knows it by its name.
#[inline(never)]
fn counted(bench: &mut Bench, requests: &[Vec<u8>], rounds: usize) {
    requests.iter().cycle().take(rounds).for_each(|request| bench.execute(request));
}

/// The requests of a case, to be sent in turn.
fn requests(case: &str) -> Vec<Vec<u8>> {
    let each = |count: usize, request: &dyn Fn(usize) -> String| (0..count).map(|n| request(n).into_bytes()).collect();
    match case {
        "get" => each(SMALL_KEYS, &|n| format!("get {}\r\n", small_key(n))),
        // Ordinary keys where some keys are known by their end.
        "wildcard-get" => each(SMALL_KEYS, &|n| format!("get {}\r\n", small_key(n))),
        "wildcard-managed" => each(APPS, &|n| format!("get 1:{}\r\n", token_key(n))),
        "miss" => each(SMALL_KEYS, &|n| format!("get absent:{n:06}\r\n")),
        "managed" => each(APPS, &|n| format!("get {}\r\n", token_key(n))),
        "meta" => each(SMALL_KEYS, &|n| format!("mg {} v\r\n", small_key(n))),
        "set" => each(SMALL_KEYS, &set),
        "multiget" => each(20, &|n| {
            let keys: String = (n * 50..n * 50 + 50).map(|n| format!(" {}", small_key(n))).collect();
            format!("get{keys}\r\n")
        }),
        "large" => each(LARGE_KEYS, &|n| format!("set {} 0 0 10240\r\n{n:010240}\r\n", large_key(n))),
        "tokens" => each(1, &|_| {
            let keys: String = (0..APPS).map(|n| format!(" {}", token_key(n))).collect();
            format!("get{keys}\r\n")
        }),
        // In turn, so that there is something to delete each time.
        "delete" => (0..SMALL_KEYS)
            .flat_map(|n| [set(n), format!("delete {}\r\n", small_key(n))])
            .map(String::into_bytes)
            .collect(),
        "incr" => each(1, &|_| format!("incr {COUNT} 1\r\n")),
        "binary" => (0..SMALL_KEYS).map(|n| binary_get(&small_key(n))).collect(),
        _ => panic!("no case {case}"),
    }
}

fn small_key(n: usize) -> String {
    format!("small:{n:06}")
}

fn large_key(n: usize) -> String {
    format!("large:{n:06}")
}

fn token_key(n: usize) -> String {
    format!("access_token:wx{n:016}")
}

fn set(n: usize) -> String {
    format!("set {} 0 0 100\r\n{n:0100}\r\n", small_key(n))
}

/// A header of 24 bytes, then the key.
fn binary_get(key: &str) -> Vec<u8> {
    let mut packet = vec![0; 24];
    packet[0] = binary::MAGIC;
    packet[2..4].copy_from_slice(&(key.len() as u16).to_be_bytes());
    packet[8..12].copy_from_slice(&(key.len() as u32).to_be_bytes());
    packet.extend_from_slice(key.as_bytes());
    packet
}

/// A service that holds what the cases ask for.
struct Bench {
    service: Service,
    names: NamesReader,
    stats: Arc<WorkerStats>,
    now: Now,
    out: Output,
}

impl Bench {
    fn new(wildcards: bool) -> Bench {
        let cache = Cache::new(&Options {
            budget_bytes: 64 << 20,
            item_size_max_bytes: ITEM_BYTES_MAX,
            evict: true,
            shards: 64,
        });
        let stats = Arc::new(Stats::default());
        let table = Arc::new(table(wildcards));
        let names = table.names_reader();
        let service = Service::new(cache, table, stats.clone(), Settings::default());
        let mut bench =
            Bench { service, names, stats: stats.register_worker(), now: Now::read(), out: Output::default() };
        (0..SMALL_KEYS).for_each(|n| bench.execute(set(n).as_bytes()));
        bench.execute(format!("set {COUNT} 0 0 10\r\n1000000000\r\n").as_bytes());
        bench
    }

    fn execute(&mut self, bytes: &[u8]) {
        self.out.clear();
        let mut context = Context {
            now: self.now,
            stats: &self.stats,
            peer: &"",
            rights: &Rights::ALL,
            names: self.names.now(),
            may_wait: true,
            memory_short: false,
            keys_left: KEYS_PER_TURN,
            out: &mut self.out,
        };
        let found = if bytes[0] == binary::MAGIC {
            binary::step(black_box(bytes), ITEM_BYTES_MAX, false)
        } else {
            step(black_box(bytes), ITEM_BYTES_MAX)
        };
        let RequestStep::Request { request, .. } = found else { panic!("not a request: {}", bytes.escape_ascii()) };
        let outcome = self.service.execute(&request, 0, &mut context);
        assert!(matches!(outcome, CommandOutcome::Done));
        black_box(&self.out);
    }
}

fn table(wildcards: bool) -> Table {
    let key = |name| KeyConfig { name, redacted_name: None, view: View::RAW };
    let names = (0..APPS).map(|n| {
        let by_its_end = wildcards.then(|| key(format!("{ANY}:{}", token_key(n))));
        (token_key(n), std::iter::once(key(token_key(n))).chain(by_its_end).collect())
    });
    let (table, writers, _requests) = Table::new(TableConfig::of(names));
    for writer in &writers {
        let value = vec![b't'; 512].into();
        writer.publish(Published::to_the_end(value, 1, u64::MAX));
    }
    table
}
