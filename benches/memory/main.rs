//! What memory really goes away: bytes of an item and of an idle connection, and the peak under a churn of sizes.
//!
//! `cargo bench --bench memory`; `-- --help` says what can be chosen. The real server, a process of its own, is filled
//! over a socket, and memcached beside it in the same run. Prints Markdown. Judges nothing but the limit of the soak.

#![allow(clippy::unwrap_used, clippy::expect_used)]
#![allow(clippy::disallowed_methods, clippy::disallowed_types, reason = "a bench measures real time")]

mod server;

use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::time::{Duration, Instant};

use fastrand::Rng;
use server::{Server, rss};

const HELP: &str = "cargo bench --bench memory -- [OPTIONS]
  --memcached PATH   another memcached than the one on PATH
  --server PATH      another build of this server
  --parts A,B        of items, soak, connections
  --megabytes A,B    budgets of the soak (48,256,1024)
  --quick            a tenth of the items, and the smallest soak";

const ITEMS: usize = 1_000_000;
const CONNECTIONS: usize = 2000;
/// The soak's smallest and largest value.
const SOAK_BYTES: (usize, usize) = (100, 900_000);
/// Connections that store at once in the soak.
const WRITERS: usize = 4;

struct Choice {
    memcached: PathBuf,
    server: Option<PathBuf>,
    parts: Vec<String>,
    megabytes: Vec<u64>,
    items: usize,
}

fn choice() -> Option<Choice> {
    let words = |text: String| text.split(',').map(str::to_owned).collect::<Vec<_>>();
    let mut choice = Choice {
        memcached: "memcached".into(),
        server: None,
        parts: words("items,soak,connections".into()),
        megabytes: vec![48, 256, 1024],
        items: ITEMS,
    };
    let mut arguments = std::env::args().skip(1);
    while let Some(argument) = arguments.next() {
        let mut value = || arguments.next().unwrap_or_else(|| panic!("{argument} needs a value\n{HELP}"));
        match argument.as_str() {
            "--memcached" => choice.memcached = value().into(),
            "--server" => choice.server = Some(value().into()),
            "--parts" => choice.parts = words(value()),
            "--megabytes" => choice.megabytes = words(value()).iter().map(|n| n.parse().expect("a number")).collect(),
            "--quick" => (choice.items, choice.megabytes) = (ITEMS / 10, vec![48]),
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
    let wants = |part: &str| choice.parts.iter().any(|wanted| wanted == part);
    if wants("items") {
        items(&choice);
    }
    if wants("connections") {
        connections(&choice);
    }
    if wants("soak") {
        soak(&choice);
    }
}

fn flags(megabytes: u64, more: &[&str]) -> Vec<String> {
    ["-m", &megabytes.to_string()].iter().chain(more).map(|&flag| flag.to_owned()).collect()
}

fn both(choice: &Choice, megabytes: u64, more: &[&str]) -> [Server; 2] {
    let flags = flags(megabytes, more);
    [Server::ours(choice.server.as_deref(), &flags), Server::memcached(&choice.memcached, &flags)]
}

fn items(choice: &Choice) {
    println!("\n| {} items, keys of 20 bytes, values of | RSS an item, here | memcached | ratio |", choice.items);
    println!("|---|---:|---:|---:|");
    for value_bytes in [50, 100, 500] {
        let [ours, theirs] = both(choice, 1024, &[]).map(|server| bytes_an_item(&server, value_bytes, choice.items));
        println!("| {value_bytes} bytes | {ours:.1} | {theirs:.1} | **{:.2}** |", ours / theirs);
    }
}

/// All resident memory of the process, whatever it is for, by the number of items.
fn bytes_an_item(server: &Server, value_bytes: usize, items: usize) -> f64 {
    let mut wire = server.connect();
    let value = vec![b'v'; value_bytes];
    let mut batch = Vec::new();
    for n in 0..items {
        set(&mut batch, format_args!("item:{n:015}"), &value);
        if batch.len() > 100_000 {
            wire.send(&batch);
            batch.clear();
        }
    }
    wire.send(&batch);
    wire.settle();
    assert_eq!((wire.stat("curr_items "), wire.stat("evictions ")), (items as u64, 0));
    server.rss() as f64 / items as f64
}

fn set(batch: &mut Vec<u8>, key: std::fmt::Arguments<'_>, value: &[u8]) {
    use std::io::Write;
    write!(batch, "set {key} 0 0 {} noreply\r\n", value.len()).unwrap();
    batch.extend_from_slice(value);
    batch.extend_from_slice(b"\r\n");
}

fn connections(choice: &Choice) {
    println!("\n| | here | memcached |\n|---|---:|---:|");
    let [ours, theirs] = both(choice, 64, &["-c", "4096"]).map(|server| {
        let before = server.rss();
        let idle: Vec<_> = (0..CONNECTIONS)
            .map(|_| {
                let mut wire = server.connect();
                // Each has been of use once.
                wire.settle();
                wire
            })
            .collect();
        (server.rss() - before) / idle.len() as u64
    });
    println!("| RSS an idle connection, of {CONNECTIONS} | {ours} | {theirs} |");
}

fn soak(choice: &Choice) {
    println!("\n| soak | limit, MB | peak RSS here | peak / `-m` | held at the end | memcached's peak | evictions |");
    println!("|---|---:|---:|---:|---:|---:|---:|");
    let mut over = Vec::new();
    for &megabytes in &choice.megabytes {
        for churn in [Churn::LogUniform, Churn::Bimodal, Churn::Phases] {
            let limit = (megabytes << 20) * 11 / 10 + (30 << 20);
            let [ours, theirs] = both(choice, megabytes, &[]).map(|server| {
                let peak = peak_under(churn, &server, megabytes << 20);
                let mut wire = server.connect();
                [peak, wire.stat("bytes "), wire.stat("evictions "), wire.stat("store_no_memory ")]
            });
            // memcached refuses some.
            assert_eq!(ours[3], 0, "stores that found no memory");
            let mb = |bytes: u64| bytes as f64 / f64::from(1 << 20);
            println!(
                "| {churn:?}, -m {megabytes} | {:.0} | {:.1} | {:.2} | {:.0} % | {:.1} | {} |",
                mb(limit),
                mb(ours[0]),
                ours[0] as f64 / (megabytes << 20) as f64,
                ours[1] as f64 * 100.0 / (megabytes << 20) as f64,
                mb(theirs[0]),
                ours[2],
            );
            if ours[0] > limit {
                over.push(format!("{churn:?} at -m {megabytes}: {:.1} MB", mb(ours[0])));
            }
        }
    }
    println!("\nAbove the limit: {}", if over.is_empty() { "none".to_owned() } else { over.join(", ") });
}

#[derive(Clone, Copy, Debug)]
enum Churn {
    /// As many items of each order of magnitude.
    LogUniform,
    /// The smallest and the largest size.
    Bimodal,
    /// One size at a time for as long as it takes to fill the cache, then another.
    Phases,
}

impl Churn {
    fn size(self, rng: &mut Rng, done: f64) -> usize {
        let (least, most) = SOAK_BYTES;
        let at = |part: f64| (least as f64 * (most as f64 / least as f64).powf(part)) as usize;
        match self {
            Churn::LogUniform => at(rng.f64()),
            Churn::Bimodal if rng.u32(..200) == 0 => most,
            Churn::Bimodal => least,
            Churn::Phases => at([0.0, 0.9, 0.35, 0.7, 1.0][(done * 5.0) as usize % 5]),
        }
    }
}

/// Stores five times the budget over several connections; gives the greatest resident memory seen meanwhile.
fn peak_under(churn: Churn, server: &Server, budget: u64) -> u64 {
    let (peak, over, pid) = (AtomicU64::new(0), AtomicBool::new(false), server.pid());
    let watch = |peak: &AtomicU64| peak.fetch_max(rss(pid), Relaxed);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            while !over.load(Relaxed) {
                watch(&peak);
                std::thread::sleep(Duration::from_millis(2));
            }
        });
        let writers: Vec<_> = (0..WRITERS)
            .map(|writer| scope.spawn(move || write(churn, server, writer as u64, budget * 5 / WRITERS as u64)))
            .collect();
        writers.into_iter().for_each(|writer| writer.join().unwrap());
        let quiet = Instant::now();
        while quiet.elapsed() < Duration::from_millis(100) {
            watch(&peak);
        }
        over.store(true, Relaxed);
    });
    peak.into_inner()
}

/// Sets and deletes of random keys, until so many bytes have been sent.
fn write(churn: Churn, server: &Server, seed: u64, bytes: u64) {
    use std::io::Write;
    let mut wire = server.connect();
    let mut rng = Rng::with_seed(seed);
    let value = vec![b'v'; SOAK_BYTES.1];
    let (mut batch, mut sent) = (Vec::new(), 0);
    while sent < bytes {
        let size = churn.size(&mut rng, sent as f64 / bytes as f64);
        set(&mut batch, format_args!("{size}:{}", rng.u32(..1_000_000)), &value[..size]);
        if rng.u8(..8) == 0 {
            write!(batch, "delete {size}:{} noreply\r\n", rng.u32(..1_000_000)).unwrap();
        }
        if batch.len() > 200_000 {
            sent += batch.len() as u64;
            wire.send(&batch);
            wire.settle();
            batch.clear();
        }
    }
}
