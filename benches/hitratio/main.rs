//! Hit ratios at equal memory: this cache, the real memcached, and the models LRU, SIEVE and S3-FIFO.
//!
//! `cargo bench --bench hitratio`; `-- --help` says what can be chosen. Each trace is played to all of them: a look-up,
//! and on a miss a store, as an application does. memcached is played to over its socket, this cache in the process,
//! with the options the server gives it; where lifetimes matter, the real server too, both in real time. All but
//! memcached and the real server is deterministic up to the seed of the hash. Prints Markdown. Judges nothing but
//! who is below memcached.

#![allow(clippy::unwrap_used, clippy::expect_used)]
#![allow(clippy::disallowed_methods, clippy::disallowed_types, reason = "a bench measures real time")]

mod models;
#[path = "../memory/server.rs"]
mod server;
mod trace;

use std::collections::HashSet;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use models::{Lru, Policy, S3Fifo, Sieve};
use server::{Server, Wire};
use tokencached::cache::{Cache, Mode, Options, Stored};
use trace::{Access, Trace, key_text};

const HELP: &str = "cargo bench --bench hitratio -- [OPTIONS]
  --memcached PATH   another memcached than the one on PATH; `none` leaves it out
  --traces A,B       only traces whose name contains one of these
  --accesses N       length of a trace (4000000)
  --quick            400000";

const MEGABYTES: u64 = 64;
/// Look-ups sent at once.
const BATCH: usize = 64;

struct Choice {
    memcached: Option<PathBuf>,
    traces: Vec<String>,
    accesses: usize,
}

fn choice() -> Option<Choice> {
    let mut choice = Choice { memcached: Some("memcached".into()), traces: vec![String::new()], accesses: 4_000_000 };
    let mut arguments = std::env::args().skip(1);
    while let Some(argument) = arguments.next() {
        let mut value = || arguments.next().unwrap_or_else(|| panic!("{argument} needs a value\n{HELP}"));
        match argument.as_str() {
            "--memcached" => {
                choice.memcached = Some(value().into()).filter(|path: &PathBuf| path.as_os_str() != "none")
            }
            "--traces" => choice.traces = value().split(',').map(str::to_owned).collect(),
            "--accesses" => choice.accesses = value().parse().expect("--accesses takes a number"),
            "--quick" => choice.accesses = 400_000,
            // What cargo itself adds.
            "--bench" => {}
            _ => {
                println!("{HELP}");
                return None;
            }
        }
    }
    Some(choice)
}

fn main() {
    let Some(choice) = choice() else { return };
    let mut below = Vec::new();
    println!("| trace | of the keys fit | here | memcached | LRU | SIEVE | S3-FIFO | µs an access, here |");
    println!("|---|---:|---:|---:|---:|---:|---:|---:|");
    for name in trace::NAMES.into_iter().filter(|name| choice.traces.iter().any(|part| name.contains(part.as_str()))) {
        let trace = trace::build(name, choice.accesses);
        let budget = MEGABYTES << 20;
        let mut ours = Ours::new();
        let begun = Instant::now();
        let here = play(&trace, &mut ours);
        let each_us = begun.elapsed().as_secs_f64() * 1e6 / trace.accesses.len() as f64;
        let totals = ours.cache.totals();
        let lru = play(&trace, &mut Lru::new(trace.keys, budget));
        let sieve = play(&trace, &mut Sieve::new(trace.keys, budget));
        let s3fifo = play(&trace, &mut S3Fifo::new(trace.keys, budget));
        let flags = ["-m".to_owned(), MEGABYTES.to_string()];
        let memcached = choice.memcached.as_ref().map(|path| over_socket(&trace, &Server::memcached(path, &flags)));
        let distinct = trace.accesses.iter().map(|access| access.key).collect::<HashSet<_>>().len();
        println!(
            "| {name} | {:.0} % | **{:.2}** | {} | {lru:.2} | {sieve:.2} | {s3fifo:.2} | {each_us:.2} |",
            totals.curr_items as f64 * 100.0 / distinct as f64,
            here,
            memcached.map_or("–".to_owned(), |ratio| format!("{ratio:.2}")),
        );
        if memcached.is_some_and(|theirs| here <= theirs) {
            below.push(name);
        }
        if trace.timed {
            let served = over_socket(&trace, &Server::ours(None, &flags));
            println!("| {name}, the real server | | **{served:.2}** | | | | | |");
        }
    }
    if choice.memcached.is_some() {
        println!("\nNot above memcached: {}", if below.is_empty() { "none".to_owned() } else { below.join(", ") });
    }
}

/// The share of hits after the warm-up, percent.
fn play(trace: &Trace, policy: &mut dyn Policy) -> f64 {
    let mut hits = 0_u32;
    for (n, access) in trace.accesses.iter().enumerate() {
        hits += u32::from(policy.access(access) && n >= trace.warm_up);
    }
    f64::from(hits) * 100.0 / (trace.accesses.len() - trace.warm_up) as f64
}

/// This cache as the server makes it, in virtual time.
struct Ours {
    cache: Cache,
    key: Vec<u8>,
    value: Vec<u8>,
}

impl Ours {
    fn new() -> Ours {
        let options = Options { budget_bytes: MEGABYTES << 20, item_size_max_bytes: 1 << 20, evict: true, shards: 64 };
        Ours { cache: Cache::new(&options), key: Vec::new(), value: vec![b'v'; 16 * 1024] }
    }
}

impl Policy for Ours {
    fn access(&mut self, access: &Access) -> bool {
        key_text(access.key, &mut self.key);
        let now = 1 + access.at_ms / 1000;
        if self.cache.get(&self.key, now, |item| assert_eq!(item.value.len() as u32, access.value_bytes)).is_some() {
            return true;
        }
        let expiry = if access.ttl_s == 0 { 0 } else { now + access.ttl_s };
        let value = &self.value[..access.value_bytes as usize];
        assert_eq!(self.cache.store(Mode::Set, &self.key, 0, expiry, value, now), Stored::Stored);
        false
    }
}

/// The same against a server: a batch of look-ups, then the stores of those that missed. A key asked for twice in a
/// batch is a hit the second time. In real time if the trace is timed.
fn over_socket(trace: &Trace, server: &Server) -> f64 {
    let mut wire = server.connect();
    let (mut hits, mut n) = (0_u32, 0);
    let begun = Instant::now();
    for batch in trace.accesses.chunks(BATCH) {
        if trace.timed {
            let due = Duration::from_millis(batch[0].at_ms.into());
            std::thread::sleep(due.saturating_sub(begun.elapsed()));
        }
        for hit in look_up_and_store(&mut wire, batch) {
            hits += u32::from(hit && n >= trace.warm_up);
            n += 1;
        }
    }
    f64::from(hits) * 100.0 / (trace.accesses.len() - trace.warm_up) as f64
}

fn look_up_and_store(wire: &mut Wire, batch: &[Access]) -> Vec<bool> {
    use std::io::Write;
    let (mut send, mut key, mut line) = (Vec::new(), Vec::new(), Vec::new());
    for access in batch {
        key_text(access.key, &mut key);
        send.extend_from_slice(b"mg ");
        send.extend_from_slice(&key);
        send.extend_from_slice(b"\r\n");
    }
    wire.send(&send);
    send.clear();
    let value = [b'v'; 8192];
    let mut seen = HashSet::new();
    let mut hits = Vec::with_capacity(batch.len());
    for access in batch {
        wire.line(&mut line);
        let hit = line == b"HD";
        assert!(hit || line == b"EN", "{}", line.escape_ascii());
        let first = seen.insert(access.key);
        hits.push(hit || !first);
        if !hit && first {
            key_text(access.key, &mut key);
            send.extend_from_slice(b"set ");
            send.extend_from_slice(&key);
            write!(send, " 0 {} {} noreply\r\n", access.ttl_s, access.value_bytes).unwrap();
            send.extend_from_slice(&value[..access.value_bytes as usize]);
            send.extend_from_slice(b"\r\n");
        }
    }
    wire.send(&send);
    hits
}
