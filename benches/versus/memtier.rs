//! The same tokens under memtier_benchmark's load, if it is on PATH: another's generator, to check ours by.

use std::process::{Command, Stdio};
use std::time::Instant;

use crate::cells::{APPID_HEAD, APPS, FIRST_APP};
use crate::options::Options;
use crate::report::median;
use crate::servers::{Pair, Server};

const CONNECTIONS: u64 = 32;
const REQUESTS_PER_CONNECTION: u64 = 5_000;

pub fn run(pair: &Pair, options: &Options) {
    let there = Command::new("memtier_benchmark").arg("--version").stdout(Stdio::null()).status();
    if !there.is_ok_and(|status| status.success()) {
        println!("memtier_benchmark is not on PATH: its cells are left out.\n");
        return;
    }
    println!("| memtier_benchmark, tokens, depth | CPU, ratio | requests/s, ratio |\n|---|---:|---:|");
    for depth in [1, 32] {
        let rounds: Vec<_> =
            (0..options.rounds).map(|_| (load(&pair.ours, depth), load(&pair.theirs, depth))).collect();
        let cpu = median(rounds.iter().map(|(ours, theirs)| ours.0 / theirs.0));
        let rate = median(rounds.iter().map(|(ours, theirs)| ours.1 / theirs.1));
        println!("| {depth} | {cpu:.2} | {rate:.2} |");
    }
    println!();
}

/// CPU nanoseconds a request, and requests a second.
fn load(server: &Server, depth: u64) -> (f64, f64) {
    let (cpu, begun) = (server.cpu_ns(), Instant::now());
    let ended = Command::new("memtier_benchmark")
        .args(["--server", "127.0.0.1", "--port", &server.port().to_string(), "--protocol", "memcache_text"])
        .args(["--ratio", "0:1", "--threads", "1", "--hide-histogram"])
        .args(["--clients", &CONNECTIONS.to_string(), "--requests", &REQUESTS_PER_CONNECTION.to_string()])
        .args(["--pipeline", &depth.to_string(), "--key-prefix", &format!("access_token:{APPID_HEAD}")])
        .args(["--key-minimum", &FIRST_APP.to_string(), "--key-maximum", &(FIRST_APP + APPS - 1).to_string()])
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .status();
    assert!(ended.is_ok_and(|status| status.success()), "memtier_benchmark has failed");
    let requests = (CONNECTIONS * REQUESTS_PER_CONNECTION) as f64;
    ((server.cpu_ns() - cpu) as f64 / requests, requests / begun.elapsed().as_secs_f64())
}
