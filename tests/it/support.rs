//! What the scenarios share: a real server process, a client that sends bytes, a sandbox on a thread of its own.
//!
//! Nothing here sleeps to wait for something: readiness is a file that appears, an answer, or the end of a process.

use std::io::{ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::{SocketAddr as UnixAddress, UnixListener};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::LazyLock;
use std::sync::atomic::{AtomicU16, Ordering::Relaxed};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};
use tempfile::TempDir;
use tokencached::sandbox::{AppOptions, Options, Sandbox};
use tokio::runtime::Runtime;

pub mod chinese;
pub mod disk;
pub mod markdown;
pub mod memory_store;
pub mod netns;
pub mod proxy;
#[cfg(feature = "redis")]
pub mod redis;
#[cfg(all(feature = "redis", feature = "sql"))]
pub mod sql;
mod tier;

pub use tier::{as_root, needs, program, real_time, version_before};

/// How long anything may take before the test gives up; far beyond what a slow machine needs, and beyond the longest backoff
/// of a renewal that keeps failing without a live token, which is a minute.
pub const TIMEOUT: Duration = Duration::from_secs(90);

/// How many ports one run of the tests may give.
const PORTS: u16 = 2_000;
/// The first of them; none is of those that the kernel gives to whoever asks for any port. A run beside this one finds the
/// name taken that goes with it, and has others.
static FIRST_PORT: LazyLock<(u16, UnixListener)> = LazyLock::new(|| {
    let name = |first| UnixAddress::from_abstract_name(format!("tests of tokencached, ports from {first}")).unwrap();
    let mut firsts = (12_000..32_000).step_by(PORTS.into());
    firsts.find_map(|first| Some((first, UnixListener::bind_addr(&name(first)).ok()?))).expect("fewer runs at once")
});

/// A port of this machine that nobody listens on. Each is given once: another test cannot have it a moment later.
pub fn free_port() -> u16 {
    static GIVEN: AtomicU16 = AtomicU16::new(0);
    std::iter::repeat_with(|| GIVEN.fetch_add(1, Relaxed))
        .take_while(|given| *given < PORTS)
        .map(|given| FIRST_PORT.0 + given)
        .find(|port| TcpListener::bind(("127.0.0.1", *port)).is_ok())
        .expect("a port that nobody listens on")
}

/// The same with its address.
pub fn free_address() -> SocketAddr {
    SocketAddr::from(([127, 0, 0, 1], free_port()))
}

/// An empty folder in memory, where there is a file system of that kind with room: a disk that pauses for some seconds for
/// whoever writes to it decides nothing there.
pub fn memory_folder() -> TempDir {
    const TMPFS: u64 = 0x0102_1994;
    // A MariaDB takes some hundred megabytes.
    const BYTES_MIN: u64 = 2 << 30;
    let memory = Path::new("/dev/shm");
    let is_fit = rustix::fs::statfs(memory).is_ok_and(|facts| {
        let free_bytes = facts.f_bavail.saturating_mul(u64::try_from(facts.f_bsize).unwrap_or(0));
        u64::try_from(facts.f_type) == Ok(TMPFS) && free_bytes >= BYTES_MIN
    });
    let in_memory = is_fit.then(|| tempfile::tempdir_in(memory).ok()).flatten();
    in_memory.unwrap_or_else(|| tempfile::tempdir().unwrap())
}

/// The Rust files below a folder of the repository: their paths in it, and their texts.
pub fn rust_sources(folder: &str) -> Vec<(String, String)> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let (mut folders, mut found) = (vec![root.join(folder)], Vec::new());
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                let name = path.strip_prefix(root).unwrap().display().to_string();
                found.push((name, std::fs::read_to_string(path).unwrap()));
            }
        }
    }
    found
}

/// Waits until `ready` gives a value. Looks again every few milliseconds; fails after [`TIMEOUT`].
#[expect(clippy::disallowed_methods, reason = "gives up after a time that no sound run takes")]
pub fn wait_for<T>(what: &str, mut ready: impl FnMut() -> Option<T>) -> T {
    let begun = Instant::now();
    loop {
        if let Some(value) = ready() {
            return value;
        }
        assert!(begun.elapsed() < TIMEOUT, "waited in vain for {what}");
        std::thread::park_timeout(Duration::from_millis(5));
    }
}

/// The binary under test.
pub fn tokencached() -> Command {
    command(Path::new(env!("CARGO_BIN_EXE_tokencached")))
}

fn command(binary: &Path) -> Command {
    let mut command = Command::new(binary);
    command.env_clear().env("PATH", std::env::var_os("PATH").unwrap_or_default());
    command
}

/// The binary of the version before this one, which `tests/run` builds.
pub fn tokencached_before() -> Command {
    version_before();
    let binary = std::env::var_os("TOKENCACHED_BEFORE").map(PathBuf::from).filter(|binary| binary.is_file());
    command(&binary.expect("TOKENCACHED_BEFORE names no binary of the version before this one; tests/run builds it"))
}

/// Sends a process the signal of that name.
#[track_caller]
pub fn signal(pid: u32, name: &str) {
    let signal = match name {
        "CONT" => Signal::CONT,
        "HUP" => Signal::HUP,
        "INT" => Signal::INT,
        "STOP" => Signal::STOP,
        "TERM" => Signal::TERM,
        _ => panic!("no signal {name}"),
    };
    kill_process(Pid::from_raw(pid as i32).unwrap(), signal).unwrap();
}

/// Whether the thread that writes a process's log has nothing to write: it sleeps then, and runs from when a line is
/// given to it. True without such a thread, and of one that is stopped.
fn is_log_written(pid: u32) -> bool {
    let threads = std::fs::read_dir(format!("/proc/{pid}/task")).into_iter().flatten().flatten();
    let states = threads.filter_map(|thread| std::fs::read_to_string(thread.path().join("stat")).ok());
    states.filter_map(|state| state.split_once(" (log) ")?.1.chars().next()).all(|state| !"RD".contains(state))
}

/// A server process with a folder of its own. Killed when dropped.
pub struct Node {
    child: Child,
    pub folder: TempDir,
    pub address: SocketAddr,
}

fn log_in(folder: &TempDir) -> std::fs::File {
    std::fs::File::options().create(true).append(true).open(folder.path().join("log")).unwrap()
}

impl Node {
    /// Starts a server from a configuration file; `{folder}` in it stands for the node's own folder.
    pub fn start(config: &str, flags: &[&str]) -> Node {
        Node::start_in(tempfile::tempdir().unwrap(), config, flags)
    }

    /// A plain cache.
    pub fn plain(flags: &[&str]) -> Node {
        Node::start("[state]\npath = \"none\"\n", flags)
    }

    /// Starts in a folder that may hold an earlier server's state.
    pub fn start_in(folder: TempDir, config: &str, flags: &[&str]) -> Node {
        Node::start_with(folder, config, flags, &[])
    }

    /// With a limit on open files that it cannot raise.
    pub fn start_below(files: u64, config: &str, flags: &[&str]) -> Node {
        // Root could raise it.
        let root = rustix::process::geteuid().is_root();
        let unable = if root { "setpriv --bounding-set=-sys_resource --inh-caps=-sys_resource --" } else { "" };
        let mut command = program("sh");
        let binary = env!("CARGO_BIN_EXE_tokencached");
        command.env_clear().env("PATH", std::env::var_os("PATH").unwrap_or_default());
        command.arg("-c").arg(format!("ulimit -n {files} && exec {unable} \"$0\" \"$@\"")).arg(binary);
        let folder = tempfile::tempdir().unwrap();
        let log = log_in(&folder);
        Node::start_as(command, folder, config, flags, &[], log)
    }

    /// With these further variables in its environment.
    pub fn start_with(folder: TempDir, config: &str, flags: &[&str], variables: &[(&str, &str)]) -> Node {
        let log = log_in(&folder);
        Node::start_as(tokencached(), folder, config, flags, variables, log)
    }

    /// Another binary than the one under test.
    pub fn start_binary(
        binary: Command,
        folder: TempDir,
        config: &str,
        flags: &[&str],
        variables: &[(&str, &str)],
    ) -> Node {
        let log = log_in(&folder);
        Node::start_as(binary, folder, config, flags, variables, log)
    }

    /// With its log going there; [`Node::log`] has none of it then.
    pub fn start_logging_to(
        folder: TempDir,
        config: &str,
        flags: &[&str],
        variables: &[(&str, &str)],
        log: std::fs::File,
    ) -> Node {
        Node::start_as(tokencached(), folder, config, flags, variables, log)
    }

    fn start_as(
        mut command: Command,
        folder: TempDir,
        config: &str,
        flags: &[&str],
        variables: &[(&str, &str)],
        log: std::fs::File,
    ) -> Node {
        if flags.contains(&"-u") {
            as_root();
        }
        let file = folder.path().join("tokencached.toml");
        std::fs::write(&file, config.replace("{folder}", &folder.path().display().to_string())).unwrap();
        let port_file = folder.path().join("port");
        let _ = std::fs::remove_file(&port_file);
        let mut child = command
            .arg("--config")
            .arg(&file)
            .args(["-p", "-1"])
            .args(flags)
            .env("MEMCACHED_PORT_FILENAME", &port_file)
            .env("HOME", folder.path())
            .envs(variables.iter().copied())
            .stdin(Stdio::null())
            .stdout(log.try_clone().unwrap())
            .stderr(log)
            .spawn()
            .unwrap();
        let port = wait_for("the server to listen", || {
            if let Ok(Some(status)) = child.try_wait() {
                let log = std::fs::read_to_string(folder.path().join("log")).unwrap_or_default();
                panic!("the server ended with {status}:\n{log}");
            }
            let text = std::fs::read_to_string(&port_file).ok()?;
            text.lines().find_map(|line| line.strip_prefix("TCP INET: ")?.trim().parse::<u16>().ok())
        });
        Node { child, folder, address: SocketAddr::from(([127, 0, 0, 1], port)) }
    }

    pub fn connect(&self) -> Client {
        Client::connect(self.address)
    }

    /// Where its HTTP API is, once it says so.
    pub fn http_address(&self) -> SocketAddr {
        wait_for("the HTTP API", || self.log().split("http=\"").nth(1)?.split('"').next()?.parse().ok())
    }

    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// The memory it holds for itself, bytes. Pages of its program do not count: how many of them the system keeps is not
    /// its doing, and a program for tests has tens of megabytes of them.
    pub fn memory_bytes(&self) -> u64 {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.pid())).unwrap();
        let line = status.lines().find(|line| line.starts_with("RssAnon:")).unwrap();
        line.split_whitespace().nth(1).unwrap().parse::<u64>().unwrap() * 1024
    }

    /// What the server has logged so far, to the last line: lines are written on a thread of their own, which is waited for.
    /// What it does after an answer it may log later, see [`Node::await_log`].
    pub fn log(&self) -> String {
        wait_for("the log to be written", || is_log_written(self.pid()).then_some(()));
        std::fs::read_to_string(self.folder.path().join("log")).unwrap_or_default()
    }

    /// Waits until the server has logged that.
    pub fn await_log(&self, text: &str) {
        wait_for(text, || self.log().contains(text).then_some(()));
    }

    pub fn signal(&self, name: &str) {
        signal(self.pid(), name);
    }

    /// Waits for the end of the process.
    pub fn wait(&mut self) -> ExitStatus {
        let child = &mut self.child;
        wait_for("the server to end", || child.try_wait().unwrap())
    }

    /// Kills without warning and hands the folder on.
    pub fn kill(mut self) -> TempDir {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
        std::mem::replace(&mut self.folder, tempfile::tempdir().unwrap())
    }

    /// Ends as an operator would and hands the folder on.
    pub fn stop(mut self) -> TempDir {
        self.signal("TERM");
        assert!(self.wait().success(), "{}", self.log());
        std::mem::replace(&mut self.folder, tempfile::tempdir().unwrap())
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A client that sends bytes and reads bytes.
pub struct Client {
    pub stream: TcpStream,
}

impl Client {
    pub fn connect(address: SocketAddr) -> Client {
        let stream = TcpStream::connect(address).unwrap();
        stream.set_read_timeout(Some(TIMEOUT)).unwrap();
        stream.set_nodelay(true).unwrap();
        Client { stream }
    }

    pub fn send(&mut self, bytes: impl AsRef<[u8]>) {
        self.stream.write_all(bytes.as_ref()).unwrap();
    }

    /// Sends, reads as many bytes as are expected, and compares.
    #[track_caller]
    pub fn expect(&mut self, send: impl AsRef<[u8]>, expected: impl AsRef<[u8]>) {
        let (send, expected) = (send.as_ref(), expected.as_ref());
        self.send(send);
        let answer = self.read(expected.len());
        assert_eq!(
            answer.escape_ascii().to_string(),
            expected.escape_ascii().to_string(),
            "to {}",
            send.escape_ascii()
        );
    }

    /// Reads exactly so many bytes, or what there is before the end.
    pub fn read(&mut self, count: usize) -> Vec<u8> {
        let mut answer = vec![0; count];
        let mut length = 0;
        while length < count {
            match self.stream.read(&mut answer[length..]) {
                Ok(0) => break,
                Ok(read) => length += read,
                Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => {
                    panic!("no answer; so far {}", answer[..length].escape_ascii())
                }
                Err(error) if error.kind() == ErrorKind::ConnectionReset => break,
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => panic!("{error}"),
            }
        }
        answer.truncate(length);
        answer
    }

    /// Sends and reads until the answer to a trailing `mn` has come: everything before it is the answer.
    pub fn ask(&mut self, send: impl AsRef<[u8]>) -> Vec<u8> {
        self.send(send);
        self.send(b"mn\r\n");
        let mut answer = self.read_until(b"MN\r\n");
        answer.truncate(answer.len() - 4);
        answer
    }

    /// Reads until the answer ends so.
    pub fn read_until(&mut self, end: &[u8]) -> Vec<u8> {
        let mut answer = Vec::new();
        let mut part = vec![0; 65536];
        while !answer.ends_with(end) {
            let read = self.stream.read(&mut part).unwrap();
            assert!(read > 0, "the server hung up after {}", answer.escape_ascii());
            answer.extend_from_slice(&part[..read]);
        }
        answer
    }

    /// The value of a key, or `None` on a miss.
    pub fn get(&mut self, key: &str) -> Option<Vec<u8>> {
        let answer = self.ask(format!("get {key}\r\n"));
        if answer == b"END\r\n" {
            return None;
        }
        let head = answer.iter().position(|&byte| byte == b'\n').unwrap() + 1;
        let body = answer.strip_suffix(b"\r\nEND\r\n").unwrap();
        Some(body[head..].to_vec())
    }

    /// One figure of `stats [argument]`.
    pub fn stat(&mut self, argument: &str, name: &str) -> Option<String> {
        let answer = String::from_utf8(self.ask(format!("stats {argument}\r\n"))).unwrap();
        answer.lines().find_map(|line| line.strip_prefix(&format!("STAT {name} ")).map(str::to_owned))
    }

    /// Reads until the server hangs up.
    pub fn rest(&mut self) -> Vec<u8> {
        let mut answer = Vec::new();
        match self.stream.read_to_end(&mut answer) {
            Ok(_) => answer,
            Err(error) if error.kind() == ErrorKind::ConnectionReset => answer,
            Err(error) => panic!("the server did not hang up: {error}"),
        }
    }
}

/// The app of most tests.
pub const APPID: &str = "wx0123456789abcdef";
pub const SECRET: &str = "5ec4e75ec4e75ec4e75ec4e75ec4e700";

/// A simulated WeChat on a thread of its own. Ends when dropped.
pub struct Wechat {
    sandbox: Option<Sandbox>,
    runtime: Runtime,
}

impl Wechat {
    /// Knows [`APPID`] with [`SECRET`]; its tokens live as long as WeChat's.
    pub fn start() -> Wechat {
        Wechat::with(Options::default())
    }

    /// The same, with tokens of so many seconds. Overlap and window are a quarter of that, not WeChat's 24th: a test
    /// that uses a token just after it has read it must not depend on a machine that never pauses.
    pub fn short_lived(lifetime_s: u64) -> Wechat {
        real_time();
        let quarter_ms = Some(lifetime_s * 250);
        Wechat::with(Options { lifetime_s, overlap_ms: quarter_ms, stable_window_ms: quarter_ms, ..Options::default() })
    }

    /// With [`APPID`] among the apps, whatever else the options say.
    pub fn with(mut options: Options) -> Wechat {
        let app = AppOptions { appid: APPID.into(), secret: SECRET.into(), ..AppOptions::default() };
        options.apps.insert(0, app);
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
        let sandbox = runtime.block_on(Sandbox::start(options)).unwrap();
        Wechat { sandbox: Some(sandbox), runtime }
    }

    /// A configuration whose one app is [`APPID`], with these lines in its `[[app]]` table and in `[server]`.
    pub fn config(&self, server: &str, app: &str) -> String {
        config(&self.base_url(), server, app)
    }
}

/// As [`Wechat::config`], for an upstream that need not be there.
pub fn config(base_url: &str, server: &str, app: &str) -> String {
    format!(
        "[server]\n{server}\n[state]\npath = \"{{folder}}/state.json\"\n[upstream]\nbase_url = \"{base_url}\"\n\
         [[app]]\nappid = \"{APPID}\"\nsecret = \"{SECRET}\"\n{app}\n"
    )
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
            self.runtime.block_on(sandbox.stop());
        }
    }
}

/// Waits until a command ends; fails with all it has said if it is not well or takes too long.
#[track_caller]
pub fn run_checked(command: &mut Command) -> String {
    let (status, said) = run(command);
    assert!(status.success(), "{command:?} ended with {status}:\n{said}");
    said
}

/// Waits until a command ends; its status and all it has said on both outputs.
#[track_caller]
#[expect(clippy::disallowed_methods, reason = "gives up after a time that no sound run takes")]
pub fn run(command: &mut Command) -> (ExitStatus, String) {
    let name = format!("{command:?}");
    let mut said = tempfile::tempfile().unwrap();
    command.stdin(Stdio::null()).stdout(said.try_clone().unwrap()).stderr(said.try_clone().unwrap());
    let mut child =
        command.spawn().unwrap_or_else(|error| panic!("{name}: {error}; tests/run installs what is needed"));
    let begun = Instant::now();
    let status = loop {
        match child.try_wait().unwrap() {
            Some(status) => break Some(status),
            None if begun.elapsed() > 2 * TIMEOUT => break None,
            None => std::thread::park_timeout(Duration::from_millis(5)),
        }
    };
    if status.is_none() {
        let _ = child.kill();
        let _ = child.wait();
    }
    let mut text = Vec::new();
    std::io::Seek::rewind(&mut said).unwrap();
    said.read_to_end(&mut text).unwrap();
    let text = String::from_utf8_lossy(&text).into_owned();
    let has = |words: &[&str]| command.get_args().any(|word| words.iter().any(|known| word == *known));
    if name.contains(env!("CARGO_BIN_EXE_tokencached")) && has(&["check"]) && !has(&["--print", "--help", "help"]) {
        chinese::assert_printed(&text);
    }
    (status.unwrap_or_else(|| panic!("{name} did not end; it said:\n{text}")), text)
}

/// Writes a file and gives its path.
pub fn write(folder: &Path, name: &str, text: &str) -> PathBuf {
    let path = folder.join(name);
    std::fs::write(&path, text).unwrap();
    path
}
