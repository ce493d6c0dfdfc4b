//! The server that is attacked: either of the two, alone or with a simulated WeChat that it keeps a token of.
//!
//! Every server has a free port of the loopback interface and a folder of its own, and ends when it is dropped.

use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use tempfile::TempDir;
use tokencached::sandbox::{AppOptions, Options, Sandbox, Verdict};
use tokio::runtime::Runtime;

use crate::client::{Client, TIMEOUT, Waits};
use crate::server::Server;

pub const APPID: &str = "wx0123456789abcdef";
pub const SECRET: &str = "5ec4e75ec4e75ec4e75ec4e75ec4e700";
pub const TOKEN_KEY: &str = "access_token:wx0123456789abcdef";

pub enum Subject {
    Ours(PathBuf),
    Memcached(PathBuf),
}

/// What a node of ours is started with. `{folder}` in the texts is its folder.
#[derive(Default)]
pub struct Plan {
    pub server: String,
    pub state: String,
    pub app: String,
    /// Further tables.
    pub tables: String,
    pub flags: Vec<String>,
    /// Files of these names and texts in its folder.
    pub files: Vec<(&'static str, String)>,
    /// Where its log goes; to the file `log` of its folder without it.
    pub stderr: Option<Stdio>,
    /// As many descriptors as it may have.
    pub open_files: Option<u64>,
    /// It follows another node, which has the secrets.
    pub follows: bool,
}

impl Subject {
    pub fn new(kind: &str, binary: PathBuf) -> Subject {
        if kind == "memcached" { Subject::Memcached(binary) } else { Subject::Ours(binary) }
    }

    /// A plain cache, with the neighbour's key.
    pub fn cache(&self, flags: &[&str]) -> Server {
        let flags: Vec<String> = flags.iter().map(|&flag| flag.to_owned()).collect();
        let server = match self {
            Subject::Ours(binary) => Server::ours(Some(binary), &flags),
            Subject::Memcached(binary) => Server::memcached(binary, &flags),
        };
        put(&server, Waits::KEY, &[b'n'; 100]);
        server
    }

    /// One that answers for the token's key: ours keeps it current, memcached has been given it once.
    pub fn node(&self, wechat: &Wechat, plan: Plan) -> Server {
        let server = self.start(wechat, plan);
        match self {
            Subject::Ours(_) => wait_for_token(&server),
            Subject::Memcached(_) => put(&server, TOKEN_KEY, &[b't'; 136]),
        }
        server
    }

    /// The same without waiting for anything but its port.
    pub fn start(&self, wechat: &Wechat, plan: Plan) -> Server {
        self.start_in(tempfile::tempdir().unwrap(), wechat, plan)
    }

    pub fn start_in(&self, folder: TempDir, wechat: &Wechat, plan: Plan) -> Server {
        let path = folder.path().display().to_string();
        for (name, text) in &plan.files {
            std::fs::write(folder.path().join(name), text).unwrap();
        }
        let mut command = match self {
            Subject::Ours(binary) => {
                let config = folder.path().join("tokencached.toml");
                std::fs::write(&config, plan.config(wechat).replace("{folder}", &path)).unwrap();
                let mut command = limited(binary, plan.open_files);
                command.arg("--config").arg(config);
                command
            }
            Subject::Memcached(binary) => {
                let mut command = limited(binary, plan.open_files);
                command.args(["-l", "127.0.0.1", "-U", "0"]);
                if rustix::process::geteuid().is_root() {
                    command.args(["-u", "root"]);
                }
                command
            }
        };
        command.args(plan.flags.iter().map(|flag| flag.replace("{folder}", &path)));
        let log = std::fs::File::options().create(true).append(true).open(folder.path().join("log")).unwrap();
        command.stdout(Stdio::null()).stderr(plan.stderr.unwrap_or_else(|| log.into()));
        Server::start(command, folder)
    }

    pub fn is_memcached(&self) -> bool {
        matches!(self, Subject::Memcached(_))
    }
}

impl Plan {
    fn config(&self, wechat: &Wechat) -> String {
        let Plan { server, state, app, tables, .. } = self;
        let state = if state.is_empty() { "path = \"{folder}/state.json\"" } else { state };
        let base_url = wechat.base_url();
        let mut text =
            format!("[server]\n{server}\n[state]\n{state}\n[upstream]\nbase_url = \"{base_url}\"\n{tables}\n");
        for appid in &wechat.appids {
            let secret = if self.follows { String::new() } else { format!("secret = \"{SECRET}\"") };
            text += &format!("[[app]]\nappid = \"{appid}\"\n{secret}\n{app}\n");
        }
        text
    }
}

/// The command of a server that may have no more open files than this, and may not raise that: root could.
fn limited(binary: &Path, open_files: Option<u64>) -> Command {
    let Some(open_files) = open_files else { return Command::new(binary) };
    let mut command = Command::new("sh");
    let drop = if rustix::process::geteuid().is_root() { "setpriv --bounding-set=-sys_resource" } else { "" };
    command.arg("-c").arg(format!("ulimit -n {open_files}; exec {drop} \"$0\" \"$@\"")).arg(binary);
    command
}

pub fn put(server: &Server, key: &str, value: &[u8]) {
    let answer = Client::connect(server.port(), TIMEOUT).and_then(|mut client| client.set(key, value));
    assert_eq!(answer.unwrap(), "STORED\r\n", "{key}");
}

pub fn wait_for_token(server: &Server) {
    let mut client = Client::connect(server.port(), TIMEOUT).unwrap();
    wait_for("the token", TIMEOUT, || client.get(TOKEN_KEY).unwrap().is_some());
}

/// Looks again every few milliseconds; fails if it is in vain.
pub fn wait_for(what: &str, limit: Duration, ready: impl FnMut() -> bool) {
    assert!(becomes_true(limit, ready), "waited in vain for {what}");
}

/// The same as a question.
pub fn becomes_true(limit: Duration, mut ready: impl FnMut() -> bool) -> bool {
    let begun = Instant::now();
    while !ready() {
        if begun.elapsed() > limit {
            return false;
        }
        std::thread::sleep(Duration::from_millis(10));
    }
    true
}

/// A port that nobody listened on a moment ago.
pub fn free_port() -> u16 {
    TcpListener::bind(("127.0.0.1", 0)).unwrap().local_addr().unwrap().port()
}

/// The simulated WeChat, on a thread of its own.
pub struct Wechat {
    sandbox: Option<Sandbox>,
    runtime: Runtime,
    appids: Vec<String>,
}

impl Wechat {
    pub fn start() -> Wechat {
        Wechat::with(1, Options::default())
    }

    /// Tokens of so many seconds; a quarter of that for overlap and window, so that a machine that pauses makes none
    /// of them a refused one.
    pub fn short_lived(lifetime_s: u64) -> Wechat {
        let quarter_ms = Some(lifetime_s * 250);
        let options =
            Options { lifetime_s, overlap_ms: quarter_ms, stable_window_ms: quarter_ms, ..Options::default() };
        Wechat::with(1, options)
    }

    /// With so many apps, [`APPID`] the first.
    pub fn with(apps: usize, mut options: Options) -> Wechat {
        let appids: Vec<String> =
            (0..apps).map(|n| if n == 0 { APPID.to_owned() } else { format!("wx{n:016x}") }).collect();
        let app = |appid: &String| AppOptions { appid: appid.clone(), secret: SECRET.into(), ..AppOptions::default() };
        options.apps = appids.iter().map(app).collect();
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
        let sandbox = runtime.block_on(Sandbox::start(options)).unwrap();
        Wechat { sandbox: Some(sandbox), runtime, appids }
    }

    pub fn accepts(&self, token: &[u8]) -> bool {
        self.judge(&String::from_utf8_lossy(token)) == Verdict::Accepted
    }
}

impl std::ops::Deref for Wechat {
    type Target = Sandbox;
    fn deref(&self) -> &Sandbox {
        self.sandbox.as_ref().unwrap()
    }
}

impl Drop for Wechat {
    fn drop(&mut self) {
        if let Some(sandbox) = self.sandbox.take() {
            self.runtime.block_on(async { tokio::time::timeout(Duration::from_secs(5), sandbox.stop()).await }).ok();
        }
    }
}
