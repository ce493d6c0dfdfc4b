//! Several nodes on one Redis, read all the time, while whichever renewed last is killed again and again; beside them,
//! on an app of its own, one node alone that nobody kills. Classic tokens: each call makes another and dooms the last.
//!
//! Starts the nodes and the simulated WeChat; the Redis is whoever calls. Prints nothing.

#![allow(clippy::disallowed_methods, reason = "so many reads a second, in real time")]

mod node;
mod reader;

use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::time::{Duration, Instant};

use node::Node;
use reader::Reader;
pub use reader::Tally;
use tokencached::sandbox::{AppOptions, Endpoint, Options, Sandbox};

/// The app of the several nodes, and that of the one.
const SHARED: &str = "wx1111111111111111";
const ALONE: &str = "wx2222222222222222";
const SECRET: &str = "0123456789abcdef0123456789abcdef";
/// Connections to each node.
const READERS: u32 = 4;
const TIMEOUT: Duration = Duration::from_secs(60);

pub struct Plan {
    pub binary: PathBuf,
    /// The nodes have their folders here. Where tokens live for seconds, no disk that may pause for as long.
    pub folder: PathBuf,
    /// As `[state] url` takes it.
    pub redis_url: String,
    pub nodes: usize,
    pub length: Duration,
    pub kill_every: Duration,
    /// A killed node is started again after this.
    pub down_for: Duration,
    pub reads_per_s: u32,
    pub lifetime_s: u64,
    /// How long a token lives on after the next one; WeChat's part of the lifetime unless given.
    pub overlap_ms: Option<u64>,
}

pub struct Outcome {
    pub tally: Tally,
    pub kills: u64,
    /// Calls for a token: of the several nodes, and of the one.
    pub calls: u64,
    pub calls_alone: u64,
    /// How many tokens each node has fetched, and what the nodes have logged as worth a look.
    pub fetched: Vec<usize>,
    pub logged: Vec<String>,
}

impl Outcome {
    pub fn ratio(&self) -> f64 {
        self.calls as f64 / self.calls_alone.max(1) as f64
    }

    /// In what the promise was broken: with no more calls than this many times those of one node.
    pub fn broken(&self, ratio_max: f64) -> Vec<String> {
        let tally = &self.tally;
        let mut broken = tally.told.clone();
        for (count, what) in [
            (tally.misses, "misses"),
            (tally.unanswered, "reads that no node answered in time"),
            (tally.refused, "tokens that WeChat refuses"),
        ] {
            if count > 0 {
                broken.push(format!("{count} {what}"));
            }
        }
        if self.ratio() > ratio_max {
            broken.push(format!("{} calls where one node needs {}", self.calls, self.calls_alone));
        }
        broken
    }
}

/// Runs it.
pub fn run(plan: &Plan) -> Outcome {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
    let app = |appid: &str| AppOptions { appid: appid.into(), secret: SECRET.into(), ..AppOptions::default() };
    let options = Options {
        apps: vec![app(SHARED), app(ALONE)],
        lifetime_s: plan.lifetime_s,
        overlap_ms: plan.overlap_ms,
        ..Options::default()
    };
    let sandbox = runtime.block_on(Sandbox::start(options)).unwrap();
    let node =
        |name: &str, state: &str, appid: &str| Node::start(plan, name, state, &sandbox.base_url(), appid, SECRET);
    let state = |name: &str| {
        format!("url = \"{}\"\nsecret = \"what-these-nodes-seal-with\"\nnode = \"{name}\"", plan.redis_url)
    };
    let names = (1..=plan.nodes).map(|at| format!("node-{at}"));
    let mut nodes: Vec<Node> = names.map(|name| node(&name, &state(&name), SHARED)).collect();
    let mut alone = node("alone", "", ALONE);
    nodes.iter_mut().chain([&mut alone]).for_each(Node::wait);
    let begun = Instant::now();
    while sandbox.calls(SHARED).minted == 0 || sandbox.calls(ALONE).minted == 0 {
        assert!(begun.elapsed() < TIMEOUT, "no token: {}", nodes[0].log());
        std::thread::sleep(Duration::from_millis(5));
    }
    let (tally, kills) = read_and_kill(plan, &sandbox, &mut nodes);
    let calls = |appid| sandbox.calls(appid).of(Endpoint::Token);
    let (calls, calls_alone) = (calls(SHARED), calls(ALONE));
    let fetched = nodes.iter().map(|node| node.fetched().len()).collect();
    let logged = nodes.iter().flat_map(worth_a_look).collect();
    drop((nodes, alone));
    runtime.block_on(sandbox.stop());
    Outcome { tally, kills, calls, calls_alone, fetched, logged }
}

fn read_and_kill(plan: &Plan, sandbox: &Sandbox, nodes: &mut [Node]) -> (Tally, u64) {
    let (begun, stop) = (Instant::now(), AtomicBool::new(false));
    let addresses: Vec<_> = nodes.iter().map(|node| node.address).collect();
    let key = format!("access_token:{SHARED}");
    let every = Duration::from_secs(1) * READERS / plan.reads_per_s;
    std::thread::scope(|scope| {
        let readers: Vec<_> = (0..READERS as usize)
            .map(|at| {
                let reader = Reader::new(sandbox, &key, &addresses, at % addresses.len(), begun);
                let stop = &stop;
                scope.spawn(move || reader.run(every, stop))
            })
            .collect();
        let kills = kill(plan, nodes, begun);
        stop.store(true, Relaxed);
        let mut tally = Tally::default();
        readers.into_iter().for_each(|reader| tally.add(reader.join().unwrap()));
        (tally, kills)
    })
}

/// Kills and starts again until the time is over; how many it has killed.
fn kill(plan: &Plan, nodes: &mut [Node], begun: Instant) -> u64 {
    let (mut kills, mut kill_at, mut down) = (0, plan.kill_every, Vec::new());
    while begun.elapsed() < plan.length {
        if begun.elapsed() >= kill_at {
            let victim = last_to_renew(nodes);
            nodes[victim].kill();
            down.push((begun.elapsed() + plan.down_for, victim));
            (kills, kill_at) = (kills + 1, kill_at + plan.kill_every);
        }
        down.retain(|&(until, victim)| {
            let over = begun.elapsed() >= until;
            if over {
                nodes[victim].start_again();
            }
            !over
        });
        std::thread::sleep(Duration::from_millis(5));
    }
    kills
}

/// Of those that run, the one that has fetched the latest token.
fn last_to_renew(nodes: &[Node]) -> usize {
    let latest = |node: &Node| node.fetched().last().copied().filter(|_| node.runs());
    (0..nodes.len()).max_by_key(|&at| latest(&nodes[at])).unwrap()
}

/// Warnings and errors, but for the one about how this configuration is written.
fn worth_a_look(node: &Node) -> Vec<String> {
    let log = node.log();
    let lines = log.lines().filter(|line| !line.contains("\"level\":\"INFO\"") && !line.contains("secret_file"));
    lines.map(|line| format!("{}: {line}", node.name)).collect()
}
