//! What becomes of clients when whichever node renews is killed again and again: misses, refused tokens, calls.
//!
//! `cargo bench --bench killing`; `-- --help` says what can be chosen. Real nodes, a real redis-server, the simulated
//! WeChat in this process. Prints Markdown; ends with 1 if a promise was broken.

#![allow(clippy::unwrap_used, clippy::expect_used)]
#![allow(clippy::disallowed_methods, clippy::disallowed_types, reason = "a bench measures real time")]

// So that its own modules are beside it, as for the test that uses it.
#[path = "scenario.rs"]
mod scenario;

use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::process::{Child, Command, ExitCode, Stdio};
use std::time::{Duration, Instant};

use scenario::{Outcome, Plan};
use tempfile::TempDir;

const HELP: &str = "cargo bench --bench killing -- [OPTIONS]
  --seconds N        how long (600)
  --nodes N          how many nodes (3)
  --kill-every N     seconds between two kills (20)
  --down N           seconds until a killed node is started again (5)
  --reads N          reads a second over all nodes (1000)
  --lifetime N       seconds that a token lives (60)
  --overlap N        milliseconds that it lives on after the next one (in proportion, as at WeChat)
  --server PATH      another build of the server";

/// More calls than one node alone makes, at the most.
const RATIO_MAX: f64 = 1.1;

fn plan(redis_url: String) -> Option<Plan> {
    let mut plan = Plan {
        binary: env!("CARGO_BIN_EXE_tokencached").into(),
        folder: std::env::temp_dir(),
        redis_url,
        nodes: 3,
        length: Duration::from_secs(600),
        kill_every: Duration::from_secs(20),
        down_for: Duration::from_secs(5),
        reads_per_s: 1_000,
        lifetime_s: 60,
        overlap_ms: None,
    };
    let mut arguments = std::env::args().skip(1);
    while let Some(argument) = arguments.next() {
        let mut value = || arguments.next().unwrap_or_else(|| panic!("{argument} needs a value\n{HELP}"));
        let number = |text: String| text.parse::<u64>().unwrap_or_else(|_| panic!("{text} is not a number\n{HELP}"));
        let seconds = |text: String| Duration::from_secs(number(text));
        match argument.as_str() {
            "--seconds" => plan.length = seconds(value()),
            "--nodes" => plan.nodes = number(value()).max(1) as usize,
            "--kill-every" => plan.kill_every = seconds(value()),
            "--down" => plan.down_for = seconds(value()),
            "--reads" => plan.reads_per_s = number(value()).clamp(1, 100_000) as u32,
            "--lifetime" => plan.lifetime_s = number(value()),
            "--overlap" => plan.overlap_ms = Some(number(value())),
            "--server" => plan.binary = PathBuf::from(value()),
            // What cargo itself adds.
            "--bench" => {}
            _ => {
                println!("{HELP}");
                return None;
            }
        }
    }
    Some(plan)
}

fn main() -> ExitCode {
    let folder = tempfile::tempdir().unwrap();
    let Some(plan) = plan(format!("unix:{}", folder.path().join("redis.sock").display())) else {
        return ExitCode::SUCCESS;
    };
    let _redis = Redis::start(&folder);
    let outcome = scenario::run(&plan);
    print(&plan, &outcome);
    let broken = outcome.broken(RATIO_MAX);
    if broken.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

fn print(plan: &Plan, outcome: &Outcome) {
    let tally = &outcome.tally;
    println!(
        "| {} nodes, {} s, a kill each {} s, back after {} s, tokens of {} s | |\n|---|---:|",
        plan.nodes,
        plan.length.as_secs(),
        plan.kill_every.as_secs(),
        plan.down_for.as_secs(),
        plan.lifetime_s
    );
    let row = |what: &str, figure: String| println!("| {what} | {figure} |");
    row("reads", tally.reads.to_string());
    row("misses", tally.misses.to_string());
    row("reads that no node answered in time", tally.unanswered.to_string());
    row("tokens read that WeChat refuses", tally.refused.to_string());
    row("reads that found their node gone and were repeated on another one", tally.switches.to_string());
    row("reads that passed over a node known to be gone", tally.passed_over.to_string());
    row("longest read", format!("{} ms", tally.longest.as_millis()));
    row("kills of the node that renewed last", outcome.kills.to_string());
    let fetched: Vec<String> = outcome.fetched.iter().map(ToString::to_string).collect();
    row("tokens fetched by each node", fetched.join(", "));
    row("calls to WeChat", outcome.calls.to_string());
    row("calls of one node alone, without kills", outcome.calls_alone.to_string());
    row("ratio", format!("**{:.2}**", outcome.ratio()));
    let broken = outcome.broken(RATIO_MAX);
    println!("\nBroken promises: {}", if broken.is_empty() { "none".to_owned() } else { broken.join("; ") });
    for line in &outcome.logged {
        eprintln!("{line}");
    }
}

/// Killed when dropped.
struct Redis(Child);

impl Redis {
    fn start(folder: &TempDir) -> Redis {
        let socket = folder.path().join("redis.sock");
        let child = Command::new("redis-server")
            .args(["--port", "0", "--save", "", "--appendonly", "no", "--daemonize", "no"])
            .arg("--dir")
            .arg(folder.path())
            .arg("--unixsocket")
            .arg(&socket)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .spawn()
            .expect("redis-server is needed on PATH");
        let (redis, begun) = (Redis(child), Instant::now());
        while UnixStream::connect(&socket).is_err() {
            assert!(begun.elapsed() < Duration::from_secs(30), "redis-server does not come up");
            std::thread::sleep(Duration::from_millis(5));
        }
        redis
    }
}

impl Drop for Redis {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}
