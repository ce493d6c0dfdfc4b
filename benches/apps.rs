//! Ten thousand apps with a ticket each against the simulated WeChat: how long until all are fresh, what an app costs
//! in memory, what the refresher costs when nothing is due, and how fast reads are while many renew.
//!
//! `cargo bench --bench apps`; `APPS=1000` for fewer. Whole-process figures, the simulated WeChat included where it
//! cannot be told apart; it says so.

#![allow(clippy::unwrap_used)]

use std::time::{Duration, Instant};

use tokencached::clock::Now;
use tokencached::config::{App, SecretSource, Upstream};
use tokencached::credential::state::FileStore;
use tokencached::credential::table::{Reading, Table};
use tokencached::kind::mp;
use tokencached::sandbox::{AppOptions, Options, Sandbox};
use tokencached::secret::Secret;
use tokio_util::sync::CancellationToken;

fn main() {
    let apps: usize = std::env::var("APPS").ok().and_then(|text| text.parse().ok()).unwrap_or(10_000);
    let sandbox_runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
    let appid = |n: usize| format!("wx{n:016x}");
    let known =
        (0..apps).map(|n| AppOptions { appid: appid(n), secret: "s".into(), ..AppOptions::default() }).collect();
    let options = Options { apps: known, ..Options::default() };
    let sandbox = sandbox_runtime.block_on(Sandbox::start(options)).unwrap();
    let upstream = Upstream::at(sandbox.base_url());
    let configured: Vec<App> = (0..apps)
        .map(|n| App {
            tickets: vec![&mp::JSAPI],
            ..App::mp(&appid(n), SecretSource::Fixed(Secret::new("s".into())), &mp::STABLE)
        })
        .collect();
    let before_bytes = rss_bytes();
    let folder = tempfile::tempdir().unwrap();
    let store = std::sync::Arc::new(FileStore::new(folder.path().join("state.json")));
    let (table, refresher) = tokencached::credential::build_with(&upstream, &configured, Some(store)).unwrap();
    println!("| {apps} apps with a ticket each | |\n|---|---|");
    println!("| memory before any value, per app | {} bytes |", (rss_bytes() - before_bytes) / apps as u64);

    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
    let stop = CancellationToken::new();
    let begun = Instant::now();
    let running = runtime.spawn(refresher.run(stop.clone()));
    let keys: Vec<String> = (0..apps).map(|n| format!("access_token:{}", appid(n))).collect();
    let slowest = read_until_fresh(&table, &keys);
    println!(
        "| from start to all fresh (16 calls at once, no connection reused) | {:.1} s |",
        begun.elapsed().as_secs_f64()
    );
    println!("| slowest of the reads meanwhile, one at a time | {slowest:?} |");
    println!(
        "| memory with all values, state and the simulated WeChat's share, per app | {} bytes |",
        (rss_bytes() - before_bytes) / apps as u64
    );
    println!(
        "| state file | {} bytes |",
        std::fs::metadata(folder.path().join("state.json")).map_or(0, |facts| facts.len())
    );

    let (cpu, wall) = (cpu_ms(), Instant::now());
    std::thread::sleep(Duration::from_secs(20));
    let idle = (cpu_ms() - cpu) as f64 / wall.elapsed().as_millis() as f64;
    println!("| CPU when nothing is due, of one core | {:.2} % |", idle * 100.0);
    stop.cancel();
    let begun = Instant::now();
    runtime.block_on(running).unwrap();
    println!("| shutdown with the state written | {:.2} s |", begun.elapsed().as_secs_f64());
}

/// Reads all over the table until every value is there; returns the slowest read.
fn read_until_fresh(table: &Table, keys: &[String]) -> Duration {
    let mut slowest = Duration::ZERO;
    loop {
        for key in keys.iter().step_by(17) {
            let begun = Instant::now();
            std::hint::black_box(table.with(key.as_bytes(), |name| name.credential.published().is_some()));
            slowest = slowest.max(begun.elapsed());
        }
        let now = Now::read().boot_ms;
        if table.credentials().iter().all(|credential| matches!(credential.read(now), Reading::Live(_))) {
            return slowest;
        }
        std::thread::sleep(Duration::from_millis(5));
    }
}

fn rss_bytes() -> u64 {
    let statm = std::fs::read_to_string("/proc/self/statm").unwrap();
    statm.split(' ').nth(1).unwrap().parse::<u64>().unwrap() * 4096
}

/// User and system time of this process, milliseconds.
fn cpu_ms() -> u64 {
    let stat = std::fs::read_to_string("/proc/self/stat").unwrap();
    let fields: Vec<&str> = stat.rsplit(')').next().unwrap().split_whitespace().collect();
    (fields[11].parse::<u64>().unwrap() + fields[12].parse::<u64>().unwrap()) * 10
}
