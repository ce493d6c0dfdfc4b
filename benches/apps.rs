//! Ten thousand apps with a ticket each: how long until all are fresh, what an app costs in memory, what the server
//! costs when nothing is due, and how fast reads are while a thousand tokens are renewed in the same minute.
//!
//! `cargo bench --bench apps`; `APPS=1000` for fewer. The server is a process of its own, so that its figures are its own;
//! the simulated WeChat runs in this one.

#![allow(clippy::unwrap_used)]
#![allow(clippy::disallowed_methods, clippy::disallowed_types, reason = "a bench measures real time")]

use std::fmt::Write as _;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use tokencached::sandbox::{AppOptions, Options, Sandbox};

/// Keys in one `get` while waiting for all values.
const KEYS_AT_ONCE: usize = 100;
/// How long reads are measured, each time.
const MEASURED: Duration = Duration::from_secs(60);
/// A look at the idle server takes so long.
const IDLE: Duration = Duration::from_secs(30);
/// Reads a second, one at a time: fewer than the server could do, so that what is seen is the server.
const READS_PER_S: u32 = 2_000;

fn main() {
    let apps: usize = std::env::var("APPS").ok().and_then(|text| text.parse().ok()).unwrap_or(10_000);
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
    let known =
        (0..apps).map(|n| AppOptions { appid: appid(n), secret: "s".into(), ..AppOptions::default() }).collect();
    let sandbox = runtime.block_on(Sandbox::start(Options { apps: known, ..Options::default() })).unwrap();

    let bare = Server::start(&sandbox.base_url(), 0);
    let bare_bytes = bare.rss_bytes();
    drop(bare);
    println!("| {apps} apps with a token and a ticket each | |\n|---|---:|");
    let begun = Instant::now();
    let server = Server::start(&sandbox.base_url(), apps);
    row("from start to listening", &format!("{:.2} s", begun.elapsed().as_secs_f64()));
    server.wait_until_fresh(apps);
    row("from start to all fresh", &format!("{:.1} s", begun.elapsed().as_secs_f64()));
    row("memory per app", &format!("{} bytes", server.rss_bytes().saturating_sub(bare_bytes) / apps as u64));
    row("state file per app", &format!("{} bytes", server.state_bytes() / apps as u64));

    let (cpu, wall) = (server.cpu_ms(), Instant::now());
    std::thread::sleep(IDLE);
    let idle = (server.cpu_ms() - cpu) as f64 / wall.elapsed().as_millis() as f64;
    row("CPU while nothing is due, of one core", &format!("{:.2} %", idle * 100.0));

    let quiet = reads(&server, apps, || {});
    row("reads, nothing else going on", &quiet);
    let (mut renewed, begun) = (0, Instant::now());
    let thousand = apps.min(1_000);
    let mut reporter = server.connect();
    let cpu = server.cpu_ms();
    let busy = reads(&server, apps, || {
        // Somebody has revoked the token, and a client that was refused says so.
        if renewed < thousand && begun.elapsed() >= MEASURED * renewed as u32 / thousand as u32 {
            sandbox.kill_tokens(&appid(renewed));
            write!(reporter, "delete access_token:{} noreply\r\n", appid(renewed)).unwrap();
            renewed += 1;
        }
    });
    row(&format!("reads while {thousand} tokens are found dead and renewed"), &busy);
    let both = (server.cpu_ms() - cpu) as f64 / begun.elapsed().as_millis() as f64;
    row("CPU meanwhile, of one core, with the reads", &format!("{:.1} %", both * 100.0));
    let minted: u64 = (0..thousand).map(|n| sandbox.calls(&appid(n)).minted).sum();
    row("tokens minted for them", &minted.to_string());

    let begun = Instant::now();
    server.stop();
    row("end, with the state written", &format!("{:.2} s", begun.elapsed().as_secs_f64()));
}

fn appid(n: usize) -> String {
    format!("wx{n:016x}")
}

fn row(what: &str, figure: &str) {
    println!("| {what} | {figure} |");
}

struct Server {
    child: Child,
    folder: tempfile::TempDir,
    port: u16,
}

impl Server {
    fn start(base_url: &str, apps: usize) -> Server {
        let folder = tempfile::tempdir().unwrap();
        let path = |name: &str| folder.path().join(name);
        let mut config =
            format!("[state]\npath = \"{}\"\n[upstream]\nbase_url = \"{base_url}\"\n", path("state.json").display());
        for n in 0..apps {
            write!(config, "[[app]]\nappid = \"{}\"\nsecret = \"s\"\ntickets = [\"jsapi\"]\n", appid(n)).unwrap();
        }
        std::fs::write(path("tokencached.toml"), config).unwrap();
        let child = Command::new(env!("CARGO_BIN_EXE_tokencached"))
            .arg("--config")
            .arg(path("tokencached.toml"))
            .args(["-p", "-1", "-t", "1"])
            .env("MEMCACHED_PORT_FILENAME", path("port"))
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let begun = Instant::now();
        let port = loop {
            let text = std::fs::read_to_string(path("port")).unwrap_or_default();
            let port = text.lines().find_map(|line| line.strip_prefix("TCP INET: ")?.trim().parse().ok());
            if let Some(port) = port {
                break port;
            }
            assert!(begun.elapsed() < Duration::from_secs(60), "the server does not come up");
            std::thread::sleep(Duration::from_millis(2));
        };
        Server { child, folder, port }
    }

    fn connect(&self) -> TcpStream {
        let stream = TcpStream::connect(("127.0.0.1", self.port)).unwrap();
        stream.set_nodelay(true).unwrap();
        stream
    }

    fn wait_until_fresh(&self, apps: usize) {
        let mut stream = self.connect();
        for (kind, first) in ["access_token", "jsapi_ticket"]
            .into_iter()
            .flat_map(|kind| (0..apps).step_by(KEYS_AT_ONCE).map(move |first| (kind, first)))
        {
            let last = (first + KEYS_AT_ONCE).min(apps);
            let keys: Vec<String> = (first..last).map(|n| format!("{kind}:{}", appid(n))).collect();
            let ask = format!("get {}\r\n", keys.join(" "));
            while values(&mut stream, &ask) < last - first {
                std::thread::sleep(Duration::from_millis(50));
            }
        }
    }

    fn proc(&self, file: &str) -> String {
        std::fs::read_to_string(Path::new("/proc").join(self.child.id().to_string()).join(file)).unwrap()
    }

    fn rss_bytes(&self) -> u64 {
        self.proc("statm").split(' ').nth(1).unwrap().parse::<u64>().unwrap() * 4096
    }

    /// User and system time, milliseconds.
    fn cpu_ms(&self) -> u64 {
        let stat = self.proc("stat");
        let fields: Vec<&str> = stat.rsplit(')').next().unwrap().split_whitespace().collect();
        (fields[11].parse::<u64>().unwrap() + fields[12].parse::<u64>().unwrap()) * 10
    }

    fn state_bytes(&self) -> u64 {
        std::fs::metadata(self.folder.path().join("state.json")).map_or(0, |facts| facts.len())
    }

    fn stop(mut self) {
        let ended = Command::new("kill").args(["-TERM", &self.child.id().to_string()]).status().unwrap();
        assert!(ended.success() && self.child.wait().unwrap().success());
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Sends one request and counts the values in its answer.
fn values(stream: &mut TcpStream, ask: &str) -> usize {
    stream.write_all(ask.as_bytes()).unwrap();
    let (mut answer, mut buffer) = (Vec::new(), [0; 65_536]);
    while !answer.ends_with(b"END\r\n") {
        let read = stream.read(&mut buffer).unwrap();
        assert!(read > 0, "the server has closed the connection");
        answer.extend_from_slice(&buffer[..read]);
    }
    answer.windows(6).filter(|window| window == b"VALUE ").count()
}

/// One `get` after the other at an even pace, over all apps; `meanwhile` runs between two. Latencies and misses.
fn reads(server: &Server, apps: usize, mut meanwhile: impl FnMut()) -> String {
    let mut stream = server.connect();
    let mut took = Vec::new();
    let mut misses = 0;
    let begun = Instant::now();
    while begun.elapsed() < MEASURED {
        let n = took.len();
        let due = begun + Duration::from_secs(1) / READS_PER_S * n as u32;
        std::thread::sleep(due.saturating_duration_since(Instant::now()));
        meanwhile();
        let ask = format!("get access_token:{}\r\n", appid(n * 7919 % apps));
        let sent = Instant::now();
        misses += 1 - values(&mut stream, &ask);
        took.push(sent.elapsed());
    }
    took.sort_unstable();
    let at = |share: f64| took[((took.len() - 1) as f64 * share) as usize].as_secs_f64() * 1e6;
    format!(
        "p50 {:.0} µs, p99 {:.0} µs, p99.9 {:.0} µs, slowest {:.0} µs; {misses} misses of {}",
        at(0.5),
        at(0.99),
        at(0.999),
        at(1.0),
        took.len()
    )
}
