//! The servers as processes: where they run, how they are told what to serve, and what CPU time they have used.
//!
//! Every process listens on a free port of the loopback interface and ends when its [`Server`] is dropped.

use std::io::{BufRead, BufReader, Write};
use std::net::TcpStream;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use rustls::pki_types::ServerName;
use rustls::{ClientConfig, ClientConnection, RootCertStore, StreamOwned};
use tempfile::TempDir;
use tokencached::sandbox::{self, AppOptions, Sandbox};
use tokio::runtime::Runtime;

use crate::cells::{APPS, Setting, appid, filling, token_key};
use crate::cores::spawn;
use crate::generator::Wire;
use crate::options::Options;
use crate::{floor, generator::Batch};

const TOKEN_BYTES: usize = 512;
/// Both servers take more connections than any cell has.
const FLAGS: [&str; 6] = ["-p", "-1", "-m", "1024", "-c", "2048"];

/// A running server.
pub struct Server {
    child: Child,
    port: u16,
    tls: Option<Arc<ClientConfig>>,
    /// It answers one constant.
    pub is_floor: bool,
}

impl Server {
    /// A server that answers one constant.
    pub fn start_floor(answer: &[u8]) -> Server {
        let mut command = Command::new(std::env::current_exe().unwrap());
        command.arg(floor::FLAG).stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut child = spawn(&mut command, 1);
        child.stdin.take().unwrap().write_all(answer).unwrap();
        let mut line = String::new();
        BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
        Server { child, port: line.trim().parse().unwrap(), tls: None, is_floor: true }
    }

    /// Starts a server that says in a file which port it has.
    fn start(mut command: Command, folder: &Path, setting: Setting, tls: Option<Arc<ClientConfig>>) -> Server {
        let file = folder.join("port");
        let _ = std::fs::remove_file(&file);
        command.args(FLAGS).args(["-t", &setting.threads.to_string()]);
        command.env("MEMCACHED_PORT_FILENAME", &file).stdout(Stdio::null()).stderr(Stdio::null());
        let mut child = spawn(&mut command, setting.threads);
        let begun = Instant::now();
        loop {
            let text = std::fs::read_to_string(&file).unwrap_or_default();
            if let Some(port) = text.lines().find_map(|line| line.strip_prefix("TCP INET: ")?.trim().parse().ok()) {
                return Server { child, port, tls, is_floor: false };
            }
            let ended = child.try_wait().unwrap();
            assert!(ended.is_none() && begun.elapsed() < Duration::from_secs(30), "{command:?} does not come up");
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    pub fn port(&self) -> u16 {
        self.port
    }

    pub fn connect(&self) -> Wire {
        let stream = TcpStream::connect(("127.0.0.1", self.port)).unwrap();
        stream.set_nodelay(true).unwrap();
        let Some(tls) = &self.tls else { return Wire::Plain(stream) };
        let connection = ClientConnection::new(tls.clone(), ServerName::try_from("localhost").unwrap()).unwrap();
        let mut stream = StreamOwned::new(connection, stream);
        while stream.conn.is_handshaking() {
            stream.conn.complete_io(&mut stream.sock).unwrap();
        }
        Wire::Tls(Box::new(stream))
    }

    /// User and system time of all threads so far. From the scheduler, which counts nanoseconds and not ticks.
    pub fn cpu_ns(&self) -> u64 {
        let tasks = std::fs::read_dir(format!("/proc/{}/task", self.child.id())).unwrap();
        let used = |task: std::io::Result<std::fs::DirEntry>| -> Option<u64> {
            let text = std::fs::read_to_string(task.ok()?.path().join("schedstat")).ok()?;
            text.split(' ').next()?.parse().ok()
        };
        tasks.filter_map(used).sum()
    }

    fn fill(&self, batches: &[Batch]) {
        let mut wire = self.connect();
        for batch in batches {
            let answer = wire.exchange(&batch.send, batch.expected.len());
            assert!(answer == batch.expected, "{}", answer.escape_ascii());
        }
    }

    /// The token of each app, as soon as all are there.
    fn tokens(&self) -> Vec<String> {
        let mut wire = self.connect();
        let begun = Instant::now();
        loop {
            let values: Vec<String> = (0..APPS).filter_map(|n| token(&mut wire, n)).collect();
            if values.len() == APPS {
                return values;
            }
            assert!(begun.elapsed() < Duration::from_secs(30), "the tokens do not come");
            std::thread::sleep(Duration::from_millis(20));
        }
    }
}

/// One app's token, if it is there yet.
fn token(wire: &mut Wire, n: usize) -> Option<String> {
    let head = format!("VA {TOKEN_BYTES}\r\n");
    let ask = format!("mg {} v\r\n", token_key(n));
    let first = wire.exchange(ask.as_bytes(), 4);
    if first == b"EN\r\n" {
        return None;
    }
    let rest = wire.exchange(b"", head.len() - first.len() + TOKEN_BYTES + 2);
    let token = &rest[head.len() - first.len()..][..TOKEN_BYTES];
    Some(String::from_utf8(token.to_vec()).unwrap())
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Both servers, set up alike.
pub struct Pair {
    pub ours: Server,
    pub theirs: Server,
    setting: Setting,
    _wechat: Sandbox,
    _runtime: Runtime,
    _folder: TempDir,
}

impl Pair {
    pub fn start(setting: Setting, options: &Options) -> Pair {
        let folder = tempfile::tempdir().unwrap();
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
        let apps = (0..APPS).map(|n| AppOptions { appid: appid(n), secret: "s".into(), ..AppOptions::default() });
        let simulated =
            sandbox::Options { apps: apps.collect(), token_len: TOKEN_BYTES, ..sandbox::Options::default() };
        let wechat = runtime.block_on(Sandbox::start(simulated)).unwrap();
        let tls = setting.tls.then(|| certificate(folder.path()));
        let ours = Server::start(ours(folder.path(), setting, &wechat.base_url()), folder.path(), setting, tls.clone());
        let theirs = Server::start(memcached(folder.path(), setting, options), folder.path(), setting, tls);
        Pair { ours, theirs, setting, _wechat: wechat, _runtime: runtime, _folder: folder }
    }

    /// Puts the same values into both. Gives the tokens.
    pub fn fill(&self) -> Vec<String> {
        let tokens = self.ours.tokens();
        let ordinary = self.setting == Setting::PLAIN;
        self.ours.fill(&filling(None, ordinary));
        self.theirs.fill(&filling(Some(&tokens), ordinary));
        tokens
    }
}

fn ours(folder: &Path, setting: Setting, base_url: &str) -> Command {
    let mut config = format!("[state]\npath = \"none\"\n[upstream]\nbase_url = \"{base_url}\"\n");
    if setting.tls {
        config += "[server.tls]\ncert = \"server.pem\"\nkey = \"server.key\"\n";
    }
    for n in 0..APPS {
        config += &format!("[[app]]\nappid = \"{}\"\nsecret = \"s\"\n", appid(n));
    }
    let file = folder.join("tokencached.toml");
    std::fs::write(&file, config).unwrap();
    let mut command = Command::new(env!("CARGO_BIN_EXE_tokencached"));
    command.arg("--config").arg(file);
    command
}

fn memcached(folder: &Path, setting: Setting, options: &Options) -> Command {
    let mut command = Command::new(&options.memcached);
    command.args(["-l", "127.0.0.1", "-U", "0"]);
    if rustix::process::geteuid().is_root() {
        command.args(["-u", "root"]);
    }
    if setting.tls {
        let path = |name: &str| folder.join(name).display().to_string();
        command.args(["-Z", "-o", &format!("ssl_chain_cert={},ssl_key={}", path("server.pem"), path("server.key"))]);
    }
    command
}

/// Writes a certificate for both servers; gives what a client needs to trust it.
fn certificate(folder: &Path) -> Arc<ClientConfig> {
    let made = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
    std::fs::write(folder.join("server.pem"), made.cert.pem()).unwrap();
    std::fs::write(folder.join("server.key"), made.signing_key.serialize_pem()).unwrap();
    let mut roots = RootCertStore::empty();
    roots.add(made.cert.der().clone()).unwrap();
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let builder = ClientConfig::builder_with_provider(provider).with_protocol_versions(&[&rustls::version::TLS13]);
    Arc::new(builder.unwrap().with_root_certificates(roots).with_no_client_auth())
}
