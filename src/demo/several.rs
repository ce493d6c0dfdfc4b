//! `tokencached demo --nodes 3`: nodes that are a process each, to be killed and watched.
//!
//! With a redis-server on PATH they share one; without, the first renews and the others follow it. What was killed is
//! started again. Everything is in one temporary folder and ends with the demo.

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
use tokio::time::{Instant, sleep_until, timeout_at};
use tokio_util::sync::CancellationToken;

use super::part::{self, Part, Said};
use super::renewals::Renewals;
use super::{DEMO_SECRET, FIRST_APPID, SECOND_APPID, daily_quotas, print, words};
use crate::cli::DemoArgs;

/// Until a killed node is started again.
pub const NODE_AGAIN: Duration = Duration::from_secs(5);
/// The same of Redis: long enough to see what nodes do without.
pub const REDIS_AGAIN: Duration = Duration::from_secs(30);
/// What serves as a Redis.
const SERVERS: &[&str] = &["redis-server", "valkey-server"];
const START_MAX: Duration = Duration::from_secs(30);
/// Lines of a node's log that say what is said here in other words.
const SAID_OTHERWISE: &[&str] = &[
    "ready",
    "renewed",
    "renewed by another node",
    "no state yet; starting cold",
    "follows another node",
    "finishing what is in flight, then stopping",
    "stopped",
];

/// Where a node is to be found; port 0 until it has taken one.
pub struct Place {
    pub listen: SocketAddr,
    pub side: SocketAddr,
    ready: bool,
}

/// All of it. The processes end before their folder goes.
pub struct Several {
    /// The nodes, and after them the Redis if there is one.
    pub parts: Vec<Part>,
    pub places: Vec<Place>,
    /// Why there is no Redis, if there is none.
    pub without: Option<String>,
    sandbox: String,
    lifetime: Duration,
    renewals: Renewals,
    said: UnboundedSender<Said>,
    heard: UnboundedReceiver<Said>,
    folder: TempDir,
}

/// Runs them until told to stop.
pub async fn run(args: &DemoArgs, sandbox: &str, shutdown: &CancellationToken) -> Result<(), String> {
    let mut several = Several::new(args, sandbox)?;
    let done = match shutdown.run_until_cancelled(several.start()).await {
        Some(Ok(())) => {
            print(&words::welcome(&several, sandbox, args.lifetime));
            shutdown.run_until_cancelled(several.watch()).await;
            Ok(())
        }
        Some(Err(fault)) => Err(fault),
        None => Ok(()),
    };
    part::end(&mut several.parts).await;
    done
}

impl Several {
    fn new(args: &DemoArgs, sandbox: &str) -> Result<Several, String> {
        let fault = |error| format!("there is no temporary folder to be had: {error}");
        let folder = tempfile::Builder::new()
            .prefix("tokencached-demo-")
            .permissions(std::fs::Permissions::from_mode(0o700))
            .tempdir()
            .map_err(fault)?;
        let last = args.nodes - 1;
        let fits = |port: u16| port == 0 || port.checked_add(last).is_some();
        if !fits(args.port) || !fits(args.side_port.unwrap_or(0)) {
            return Err(format!("there are not so many ports from {} on for {} nodes", args.port, args.nodes));
        }
        let places = (0..args.nodes).map(|at| {
            let port = |first: u16| if first == 0 { 0 } else { first + at };
            let side = args.side_port.map_or_else(|| free_or_any(crate::http_api::options::SIDE_PORT + at), port);
            Place {
                listen: SocketAddr::new(args.listen, port(args.port)),
                side: SocketAddr::new(Ipv4Addr::LOCALHOST.into(), side),
                ready: false,
            }
        });
        let without = match cfg!(feature = "redis") {
            true => format!("There is no {} on PATH", SERVERS.join(" or ")),
            false => "This build cannot share a Redis".to_owned(),
        };
        let (said, heard) = mpsc::unbounded_channel();
        Ok(Several {
            parts: Vec::new(),
            places: places.collect(),
            without: Some(without),
            sandbox: sandbox.to_owned(),
            lifetime: args.lifetime,
            renewals: Renewals::default(),
            said,
            heard,
            folder,
        })
    }

    /// The Redis, if there is one.
    pub fn redis(&self) -> Option<&Part> {
        self.parts.get(self.places.len())
    }

    pub fn nodes(&self) -> &[Part] {
        &self.parts[..self.places.len()]
    }

    fn socket(&self) -> PathBuf {
        self.folder.path().join("redis.sock")
    }

    async fn start(&mut self) -> Result<(), String> {
        self.write("app.secret", DEMO_SECRET)?;
        self.write("state.secret", DEMO_SECRET)?;
        let program = std::env::current_exe().map_err(|error| format!("this program is not to be found: {error}"))?;
        for at in 0..self.places.len() {
            let name = format!("node-{}", at + 1);
            let config = self.folder.path().join(format!("{name}.toml"));
            let command = [program.as_os_str(), "serve".as_ref(), "--config".as_ref(), config.as_os_str()];
            self.parts.push(Part::new(at, name, command.map(OsString::from).into()));
        }
        self.start_redis().await;
        for at in 0..self.places.len() {
            self.start_node(at)?;
            // The others want to know where the first one's side port is.
            if at == 0 && self.without.is_some() {
                self.until_ready(1).await?;
            }
        }
        self.until_ready(self.places.len()).await
    }

    /// One that does not start is as good as none.
    async fn start_redis(&mut self) {
        let Some((name, program)) = part::on_path(SERVERS).filter(|_| cfg!(feature = "redis")) else { return };
        let (folder, socket) = (self.folder.path().as_os_str(), self.socket());
        let words = ["--port", "0", "--save", "", "--appendonly", "no", "--daemonize", "no", "--dir"];
        let mut command: Vec<OsString> = vec![program.into()];
        command.extend(words.map(OsString::from));
        command.extend([folder, "--unixsocket".as_ref(), socket.as_os_str()].map(OsString::from));
        let mut redis = Part::new(self.places.len(), name, command);
        let started = redis.start(&self.said);
        self.parts.push(redis);
        let until = Instant::now() + START_MAX;
        while started.is_ok() && self.parts.last_mut().is_some_and(Part::runs) && Instant::now() < until {
            if tokio::net::UnixStream::connect(&socket).await.is_ok() {
                self.without = None;
                return;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        self.parts.pop();
        self.without = Some(format!("The {name} on PATH does not start"));
        while let Ok(Said::Line(_, line)) = self.heard.try_recv() {
            complain(name, &line);
        }
    }

    fn start_node(&mut self, at: usize) -> Result<(), String> {
        self.write(&format!("{}.toml", self.parts[at].name), &self.configuration(at))?;
        self.parts[at].start(&self.said)
    }

    fn configuration(&self, at: usize) -> String {
        let (place, name) = (&self.places[at], &self.parts[at].name);
        let file = |name: &str| toml::Value::from(self.folder.path().join(name).display().to_string());
        let alone = self.without.is_some();
        let follows = alone && at > 0;
        let state = match (alone, follows) {
            (false, _) => {
                let url = toml::Value::from(format!("unix:{}", self.socket().display()));
                format!("url = {url}\nsecret_file = {}\nnode = \"{name}\"\n", file("state.secret"))
            }
            (true, true) => format!("upstream = \"http://{}\"\nnode = \"{name}\"\n", self.places[0].side),
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
             [upstream]\nbase_url = \"{}\"\n[side]\nlisten = [\"{}\"]\n[log]\njson = true\n{}{}",
            place.listen,
            !place.listen.ip().is_loopback(),
            file(&format!("{name}.json")),
            self.sandbox,
            place.side,
            app(FIRST_APPID, "stable_token", format!("[\"access_token\", \"{FIRST_APPID}\"]")),
            app(SECOND_APPID, "token", format!("[\"{SECOND_APPID}\"]")),
        )
    }

    fn write(&self, name: &str, text: &str) -> Result<(), String> {
        write_private(&self.folder.path().join(name), text)
            .map_err(|error| format!("{name} cannot be written: {error}"))
    }

    /// Until the first so many nodes take connections.
    async fn until_ready(&mut self, nodes: usize) -> Result<(), String> {
        let until = Instant::now() + START_MAX;
        while !self.places[..nodes].iter().all(|place| place.ready) {
            match timeout_at(until, self.heard.recv()).await {
                Ok(Some(Said::Ended(at))) if at < self.places.len() => {
                    let ended = self.parts[at].ended().map_or_else(String::new, |status| status.to_string());
                    return Err(format!(
                        "{} has ended with {ended}; --port N has all of them elsewhere",
                        self.parts[at].name
                    ));
                }
                Ok(Some(said)) => self.take(said),
                Ok(None) | Err(_) => return Err("not all nodes are ready in time".to_owned()),
            }
        }
        Ok(())
    }

    /// Tells what happens, and starts again what was killed.
    async fn watch(&mut self) {
        loop {
            self.tell();
            let again = self.parts.iter().filter_map(|part| part.again).chain(self.renewals.next()).min();
            let wait = async {
                match again {
                    Some(at) => sleep_until(at).await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                Some(said) = self.heard.recv() => self.take(said),
                () = wait => self.start_due(),
            }
        }
    }

    fn start_due(&mut self) {
        let now = Instant::now();
        for at in 0..self.parts.len() {
            if self.parts[at].again.is_none_or(|again| again > now) {
                continue;
            }
            let started = match at < self.places.len() {
                true => self.start_node(at),
                false => std::fs::remove_file(self.socket()).or(Ok(())).and_then(|()| self.parts[at].start(&self.said)),
            };
            match started {
                Ok(()) => print(&words::back(&self.parts[at])),
                Err(fault) => {
                    complain(&self.parts[at].name, &fault);
                    self.parts[at].again = Some(now + NODE_AGAIN);
                }
            }
        }
    }

    fn take(&mut self, said: Said) {
        match said {
            Said::Line(at, line) if at < self.places.len() => self.take_line(at, &line),
            // Redis says much, and nothing that matters here.
            Said::Line(..) => {}
            Said::Ended(at) => self.ended(at),
        }
    }

    fn ended(&mut self, at: usize) {
        let wait = if at < self.places.len() { NODE_AGAIN } else { REDIS_AGAIN };
        let Some(part) = self.parts.get_mut(at) else { return };
        let Some(status) = part.ended() else { return };
        part.again = Some(Instant::now() + wait);
        let how = match status.signal() {
            Some(signal) => format!("was ended by signal {signal}"),
            None => format!("has ended with {status}"),
        };
        print(&words::gone(part, &how, wait));
    }

    fn take_line(&mut self, at: usize, line: &str) {
        let Ok(Value::Object(entry)) = serde_json::from_str::<Value>(line) else {
            return complain(&self.parts[at].name, line);
        };
        let word = |name: &str| entry.get(name).and_then(Value::as_str).unwrap_or_default();
        let message = word("message");
        match message {
            "ready" => {
                let place = &mut self.places[at];
                place.listen = word("listening").parse().unwrap_or(place.listen);
                place.side = word("side").parse().unwrap_or(place.side);
                place.ready = true;
            }
            "renewed" | "renewed by another node" => {
                let generation = entry.get("generation").and_then(Value::as_u64);
                let fetched = generation.filter(|_| message == "renewed");
                self.renewals.has(word("appid"), word("token"), at, fetched, Instant::now());
            }
            _ => {}
        }
        if !(word("level") == "INFO" && SAID_OTHERWISE.contains(&message)) {
            complain(&self.parts[at].name, &words::logged(&entry));
        }
    }

    fn tell(&mut self) {
        let names: Vec<String> = self.nodes().iter().map(|part| part.name.clone()).collect();
        let runs: Vec<bool> = self.parts.iter_mut().take(names.len()).map(Part::runs).collect();
        for sentence in self.renewals.told(&names, &runs, Instant::now()) {
            print(&format!("{sentence}\n"));
        }
    }
}

/// The port, unless something listens there.
fn free_or_any(port: u16) -> u16 {
    TcpListener::bind((Ipv4Addr::LOCALHOST, port)).map_or(0, |_| port)
}

fn write_private(path: &Path, text: &str) -> std::io::Result<()> {
    let mut options = std::fs::File::options();
    options.write(true).create(true).truncate(true).mode(0o600).open(path)?.write_all(text.as_bytes())
}

/// A closed standard error is no reason to stop.
fn complain(name: &str, text: &str) {
    let _ = writeln!(std::io::stderr(), "{name}: {text}");
}
