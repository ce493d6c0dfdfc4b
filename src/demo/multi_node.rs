//! `tokencached demo --nodes 3`: several nodes, a process each, for people who want to kill one and watch.
//!
//! With a redis-server on PATH the nodes share a Redis; otherwise the first node renews and the others follow it. A process
//! that was killed is started again. Everything is in one temporary folder and ends with the demo. Never calls a real
//! platform.

use std::ffi::OsString;
use std::io::Write;
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde_json::Value;
use tempfile::TempDir;
use tokio::sync::mpsc::{self, UnboundedReceiver, UnboundedSender};
use tokio::time::{Instant, timeout_at};
use tokio_util::sync::CancellationToken;

use super::child_process::{self, ChildProcess, ProcessEvent};
use super::renewals::Renewals;
use super::{DEMO_SECRET, FIRST_APPID, SECOND_APPID, daily_quotas, print, texts};
use crate::cli::DemoArgs;

/// How long after its end a node is started again.
pub const NODE_RESTART_AFTER: Duration = Duration::from_secs(5);
/// The same for the Redis: long enough to see what the nodes do without it.
pub const REDIS_RESTART_AFTER: Duration = Duration::from_secs(30);
const REDIS_PROGRAMS: &[&str] = &["redis-server", "valkey-server"];
const START_TIMEOUT: Duration = Duration::from_secs(30);
/// Lines of a node's log that are not shown, because the demo says the same in other words.
const LOG_LINES_NOT_SHOWN: &[&str] = &[
    "ready",
    "renewed",
    "renewed by another node",
    "no state yet; starting cold",
    "follows another node",
    "shutting down: finishing requests in flight",
    "stopped",
];

/// A node's addresses; with port 0 until the node has said which one it has.
pub struct NodeAddresses {
    pub listen: SocketAddr,
    pub http: SocketAddr,
    ready: bool,
}

/// The processes and their folder. The processes end before the folder is removed.
pub struct MultiNodeDemo {
    /// The nodes, and after them the Redis if there is one.
    pub processes: Vec<ChildProcess>,
    pub addresses: Vec<NodeAddresses>,
    /// Why there is no Redis, if there is none.
    pub no_redis: Option<String>,
    sandbox: String,
    lifetime: Duration,
    renewals: Renewals,
    event_sender: UnboundedSender<ProcessEvent>,
    events: UnboundedReceiver<ProcessEvent>,
    folder: TempDir,
}

pub async fn run(args: &DemoArgs, sandbox: &str, shutdown: &CancellationToken) -> Result<(), String> {
    let mut demo = MultiNodeDemo::new(args, sandbox)?;
    let done = match shutdown.run_until_cancelled(demo.start()).await {
        Some(Ok(())) => {
            print(&texts::welcome(&demo, sandbox, args.lifetime));
            shutdown.run_until_cancelled(demo.watch()).await;
            Ok(())
        }
        Some(Err(fault)) => Err(fault),
        None => Ok(()),
    };
    child_process::end(&mut demo.processes).await;
    done
}

impl MultiNodeDemo {
    fn new(args: &DemoArgs, sandbox: &str) -> Result<MultiNodeDemo, String> {
        let fault = |error| format!("no temporary folder can be made: {error}");
        let folder = tempfile::Builder::new()
            .prefix("tokencached-demo-")
            .permissions(std::fs::Permissions::from_mode(0o700))
            .tempdir()
            .map_err(fault)?;
        let last = args.nodes - 1;
        let fits = |port: u16| port == 0 || port.checked_add(last).is_some();
        if !fits(args.port) || !fits(args.http_port.unwrap_or(0)) {
            return Err(format!("there are not enough ports from {} on for {} nodes", args.port, args.nodes));
        }
        let addresses = (0..args.nodes).map(|at| {
            let port = |first: u16| if first == 0 { 0 } else { first + at };
            let http = args.http_port.map_or_else(|| free_or_any(crate::http_api::options::HTTP_PORT + at), port);
            NodeAddresses {
                listen: SocketAddr::new(args.listen, port(args.port)),
                http: SocketAddr::new(Ipv4Addr::LOCALHOST.into(), http),
                ready: false,
            }
        });
        let no_redis = match cfg!(feature = "redis") {
            true => format!("There is no {} on PATH", REDIS_PROGRAMS.join(" or ")),
            false => "This build cannot share a Redis".to_owned(),
        };
        let (event_sender, events) = mpsc::unbounded_channel();
        Ok(MultiNodeDemo {
            processes: Vec::new(),
            addresses: addresses.collect(),
            no_redis: Some(no_redis),
            sandbox: sandbox.to_owned(),
            lifetime: args.lifetime,
            renewals: Renewals::default(),
            event_sender,
            events,
            folder,
        })
    }

    pub fn redis(&self) -> Option<&ChildProcess> {
        self.processes.get(self.addresses.len())
    }

    pub fn nodes(&self) -> &[ChildProcess] {
        &self.processes[..self.addresses.len()]
    }

    fn socket(&self) -> PathBuf {
        self.folder.path().join("redis.sock")
    }

    async fn start(&mut self) -> Result<(), String> {
        self.write("app.secret", DEMO_SECRET)?;
        self.write("state.secret", DEMO_SECRET)?;
        let program =
            std::env::current_exe().map_err(|error| format!("this program's file cannot be found: {error}"))?;
        for at in 0..self.addresses.len() {
            let name = format!("node-{}", at + 1);
            let config = self.folder.path().join(format!("{name}.toml"));
            let command = [program.as_os_str(), "serve".as_ref(), "--config".as_ref(), config.as_os_str()];
            self.processes.push(ChildProcess::new(at, name, command.map(OsString::from).into()));
        }
        self.start_redis().await;
        for at in 0..self.addresses.len() {
            self.start_node(at)?;
            // The others need the address of the first one's HTTP API.
            if at == 0 && self.no_redis.is_some() {
                self.wait_until_ready(1).await?;
            }
        }
        self.wait_until_ready(self.addresses.len()).await
    }

    /// A Redis that does not start is as good as none.
    async fn start_redis(&mut self) {
        let Some((name, program)) = child_process::on_path(REDIS_PROGRAMS).filter(|_| cfg!(feature = "redis")) else {
            return;
        };
        let (folder, socket) = (self.folder.path().as_os_str(), self.socket());
        let words = ["--port", "0", "--save", "", "--appendonly", "no", "--daemonize", "no", "--dir"];
        let mut command: Vec<OsString> = vec![program.into()];
        command.extend(words.map(OsString::from));
        command.extend([folder, "--unixsocket".as_ref(), socket.as_os_str()].map(OsString::from));
        let mut redis = ChildProcess::new(self.addresses.len(), name, command);
        let started = redis.start(&self.event_sender);
        self.processes.push(redis);
        let until = Instant::now() + START_TIMEOUT;
        while started.is_ok()
            && self.processes.last_mut().is_some_and(ChildProcess::is_running)
            && Instant::now() < until
        {
            if tokio::net::UnixStream::connect(&socket).await.is_ok() {
                self.no_redis = None;
                return;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        self.processes.pop();
        self.no_redis = Some(format!("The {name} on PATH does not start"));
        while let Ok(ProcessEvent::Line(_, line)) = self.events.try_recv() {
            print_error(name, &line);
        }
    }

    fn start_node(&mut self, at: usize) -> Result<(), String> {
        self.write(&format!("{}.toml", self.processes[at].name), &self.configuration(at))?;
        self.processes[at].start(&self.event_sender)
    }

    fn configuration(&self, at: usize) -> String {
        let (addresses, name) = (&self.addresses[at], &self.processes[at].name);
        let file = |name: &str| toml::Value::from(self.folder.path().join(name).display().to_string());
        let alone = self.no_redis.is_some();
        let follows = alone && at > 0;
        let state = match (alone, follows) {
            (false, _) => {
                let url = toml::Value::from(format!("unix:{}", self.socket().display()));
                format!("url = {url}\nsecret_file = {}\nnode = \"{name}\"\n", file("state.secret"))
            }
            (true, true) => format!("leader_urls = \"http://{}\"\nnode = \"{name}\"\n", self.addresses[0].http),
            (true, false) => String::new(),
        };
        let secret = if follows { String::new() } else { format!("secret_file = {}\n", file("app.secret")) };
        let [calls, _] = daily_quotas(self.lifetime);
        let app = |appid, endpoint, aliases| {
            let quotas = if endpoint == "token" { format!("daily_quota = {calls}\n") } else { String::new() };
            let own = if follows { String::new() } else { format!("endpoint = \"{endpoint}\"\n{quotas}") };
            format!("[[app]]\nappid = \"{appid}\"\naliases = {aliases}\n{own}{secret}")
        };
        format!(
            "[server]\nlisten = [\"{}\"]\nallow_unauthenticated = {}\n[state]\npath = {}\n{state}\
             [upstream]\nbase_url = \"{}\"\n[http]\nlisten = [\"{}\"]\n[log]\njson = true\n{}{}",
            addresses.listen,
            !addresses.listen.ip().is_loopback(),
            file(&format!("{name}.json")),
            self.sandbox,
            addresses.http,
            app(FIRST_APPID, "stable_token", format!("[\"access_token\", \"{FIRST_APPID}\"]")),
            app(SECOND_APPID, "token", format!("[\"{SECOND_APPID}\"]")),
        )
    }

    fn write(&self, name: &str, text: &str) -> Result<(), String> {
        write_private(&self.folder.path().join(name), text)
            .map_err(|error| format!("{name} cannot be written: {error}"))
    }

    /// Waits until the first so many nodes are ready.
    async fn wait_until_ready(&mut self, nodes: usize) -> Result<(), String> {
        let until = Instant::now() + START_TIMEOUT;
        while !self.addresses[..nodes].iter().all(|addresses| addresses.ready) {
            match timeout_at(until, self.events.recv()).await {
                Ok(Some(ProcessEvent::Ended(at))) if at < self.addresses.len() => {
                    let ended = self.processes[at].reap().map_or_else(String::new, |status| status.to_string());
                    return Err(format!(
                        "{} has ended with {ended}; --port N has all of them elsewhere",
                        self.processes[at].name
                    ));
                }
                Ok(Some(event)) => self.handle_event(event),
                Ok(None) | Err(_) => return Err("not all nodes are ready in time".to_owned()),
            }
        }
        Ok(())
    }

    /// Announces what happens, and starts again what was killed.
    async fn watch(&mut self) {
        loop {
            self.announce();
            let next = self.renewals.next_deadline().unwrap_or_else(|| Instant::now() + REDIS_RESTART_AFTER);
            if let Ok(Some(event)) = timeout_at(next, self.events.recv()).await {
                self.handle_event(event);
            }
        }
    }

    fn restart_after(&self, wait: Duration, at: usize) {
        let events = self.event_sender.clone();
        tokio::spawn(async move {
            tokio::time::sleep(wait).await;
            let _ = events.send(ProcessEvent::RestartDue(at));
        });
    }

    fn restart(&mut self, at: usize) {
        let started = match at < self.addresses.len() {
            true => self.start_node(at),
            false => std::fs::remove_file(self.socket())
                .or(Ok(()))
                .and_then(|()| self.processes[at].start(&self.event_sender)),
        };
        match started {
            Ok(()) => print(&texts::started_again(&self.processes[at])),
            Err(fault) => {
                print_error(&self.processes[at].name, &fault);
                self.restart_after(NODE_RESTART_AFTER, at);
            }
        }
    }

    fn handle_event(&mut self, event: ProcessEvent) {
        match event {
            ProcessEvent::Line(at, line) if at < self.addresses.len() => self.handle_line(at, &line),
            // What a Redis writes does not matter here.
            ProcessEvent::Line(..) => {}
            ProcessEvent::Ended(at) => self.handle_end(at),
            ProcessEvent::RestartDue(at) => self.restart(at),
        }
    }

    fn handle_end(&mut self, at: usize) {
        let wait = if at < self.addresses.len() { NODE_RESTART_AFTER } else { REDIS_RESTART_AFTER };
        let Some(process) = self.processes.get_mut(at) else { return };
        let Some(status) = process.reap() else { return };
        let how = match status.signal() {
            Some(signal) => format!("was ended by signal {signal}"),
            None => format!("has ended with {status}"),
        };
        print(&texts::ended(process, &how, wait));
        self.restart_after(wait, at);
    }

    fn handle_line(&mut self, at: usize, line: &str) {
        let Ok(Value::Object(entry)) = serde_json::from_str::<Value>(line) else {
            return print_error(&self.processes[at].name, line);
        };
        let word = |name: &str| entry.get(name).and_then(Value::as_str).unwrap_or_default();
        let message = word("message");
        match message {
            "ready" => {
                let addresses = &mut self.addresses[at];
                addresses.listen = word("listening").parse().unwrap_or(addresses.listen);
                addresses.http = word("http").parse().unwrap_or(addresses.http);
                addresses.ready = true;
            }
            "renewed" | "renewed by another node" => {
                let generation = entry.get("generation").and_then(Value::as_u64);
                let fetched = generation.filter(|_| message == "renewed");
                self.renewals.record_token(word("appid"), word("token"), at, fetched, Instant::now());
            }
            _ => {}
        }
        if !(word("level") == "INFO" && LOG_LINES_NOT_SHOWN.contains(&message)) {
            print_error(&self.processes[at].name, &texts::log_line(&entry));
        }
    }

    fn announce(&mut self) {
        let names: Vec<String> = self.nodes().iter().map(|process| process.name.clone()).collect();
        let running: Vec<bool> = self.processes.iter_mut().take(names.len()).map(ChildProcess::is_running).collect();
        for sentence in self.renewals.take_announcements(&names, &running, Instant::now()) {
            print(&format!("{sentence}\n"));
        }
    }
}

/// The port, or 0 (any free one) if something listens there.
fn free_or_any(port: u16) -> u16 {
    TcpListener::bind((Ipv4Addr::LOCALHOST, port)).map_or(0, |_| port)
}

fn write_private(path: &Path, text: &str) -> std::io::Result<()> {
    let mut options = std::fs::File::options();
    options.write(true).create(true).truncate(true).mode(0o600).open(path)?.write_all(text.as_bytes())
}

/// A closed standard error is not a reason to stop.
fn print_error(name: &str, text: &str) {
    let _ = writeln!(std::io::stderr(), "{name}: {text}");
}
