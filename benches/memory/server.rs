//! A server as a process of its own on a free port of the loopback interface: started, asked, looked at, ended.
//!
//! Knows how to start both servers; measures nothing but memory. Ends its process when dropped.

#![allow(dead_code, reason = "several benches use it, each a part")]

use std::io::{BufRead, BufReader, Write};
use std::net::TcpStream;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use tempfile::TempDir;

/// How long anything may take before the bench gives up.
const TIMEOUT: Duration = Duration::from_secs(60);

pub struct Server {
    child: Child,
    port: u16,
    folder: TempDir,
}

impl Server {
    /// This server, `binary` if it is to be another build of it.
    pub fn ours(binary: Option<&Path>, flags: &[String]) -> Server {
        let folder = tempfile::tempdir().unwrap();
        let config = folder.path().join("tokencached.toml");
        std::fs::write(&config, "[state]\npath = \"none\"\n").unwrap();
        let mut command = Command::new(binary.unwrap_or(Path::new(env!("CARGO_BIN_EXE_tokencached"))));
        command.arg("--config").arg(config).args(flags).stdout(Stdio::null()).stderr(Stdio::null());
        Server::start(command, folder)
    }

    pub fn memcached(binary: &Path, flags: &[String]) -> Server {
        let folder = tempfile::tempdir().unwrap();
        let mut command = Command::new(binary);
        command.args(["-l", "127.0.0.1", "-U", "0"]).args(flags);
        if rustix::process::geteuid().is_root() {
            command.args(["-u", "root"]);
        }
        command.stdout(Stdio::null()).stderr(Stdio::null());
        Server::start(command, folder)
    }

    /// Either of them, and waits until it listens. Where its outputs go is the caller's choice.
    pub fn start(mut command: Command, folder: TempDir) -> Server {
        let file = folder.path().join("port");
        let _ = std::fs::remove_file(&file);
        command.args(["-p", "-1"]).env("MEMCACHED_PORT_FILENAME", &file).stdin(Stdio::null());
        let mut server = Server { child: command.spawn().unwrap(), port: 0, folder };
        let begun = Instant::now();
        loop {
            let text = std::fs::read_to_string(&file).unwrap_or_default();
            if let Some(port) = text.lines().find_map(|line| line.strip_prefix("TCP INET: ")?.trim().parse().ok()) {
                server.port = port;
                return server;
            }
            let ended = server.child.try_wait().unwrap();
            let comes_up = ended.is_none() && begun.elapsed() < TIMEOUT;
            let log = || std::fs::read_to_string(server.folder.path().join("log")).unwrap_or_default();
            assert!(comes_up, "{command:?} does not come up:\n{}", log());
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    pub fn port(&self) -> u16 {
        self.port
    }

    pub fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// True if the process ends within this time.
    pub fn ends_within(&mut self, limit: Duration) -> bool {
        let begun = Instant::now();
        loop {
            if self.child.try_wait().unwrap().is_some() {
                return true;
            }
            if begun.elapsed() > limit {
                return false;
            }
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    /// Kills it and hands its folder on.
    pub fn into_folder(mut self) -> TempDir {
        let _ = self.child.kill();
        let _ = self.child.wait();
        std::mem::replace(&mut self.folder, tempfile::tempdir().unwrap())
    }

    pub fn connect(&self) -> Wire {
        let stream = TcpStream::connect(("127.0.0.1", self.port)).unwrap();
        stream.set_nodelay(true).unwrap();
        stream.set_read_timeout(Some(TIMEOUT)).unwrap();
        stream.set_write_timeout(Some(TIMEOUT)).unwrap();
        Wire { answers: BufReader::with_capacity(64 * 1024, stream) }
    }

    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Resident memory, bytes.
    pub fn rss(&self) -> u64 {
        rss(self.pid())
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Resident memory of a process, bytes; 0 once it has ended.
pub fn rss(pid: u32) -> u64 {
    let text = std::fs::read_to_string(format!("/proc/{pid}/statm")).unwrap_or_default();
    let pages: u64 = text.split(' ').nth(1).and_then(|pages| pages.parse().ok()).unwrap_or(0);
    pages * rustix::param::page_size() as u64
}

/// One connection.
pub struct Wire {
    answers: BufReader<TcpStream>,
}

impl Wire {
    pub fn send(&mut self, bytes: &[u8]) {
        self.answers.get_mut().write_all(bytes).unwrap();
    }

    /// The next line, without its end.
    pub fn line(&mut self, into: &mut Vec<u8>) {
        into.clear();
        self.answers.read_until(b'\n', into).unwrap();
        assert!(into.ends_with(b"\r\n"), "the server hung up");
        into.truncate(into.len() - 2);
    }

    /// Waits until everything sent so far has been executed.
    pub fn settle(&mut self) {
        self.send(b"mn\r\n");
        let mut line = Vec::new();
        self.line(&mut line);
        assert_eq!(line, b"MN", "{}", line.escape_ascii());
    }

    /// A figure of `stats`; 0 if there is none of that name.
    pub fn stat(&mut self, name: &str) -> u64 {
        self.send(b"stats\r\n");
        let (mut line, mut found) = (Vec::new(), 0);
        loop {
            self.line(&mut line);
            let text = String::from_utf8_lossy(&line);
            if text == "END" {
                return found;
            }
            if let Some(value) = text.strip_prefix("STAT ").and_then(|text| text.strip_prefix(name)) {
                found = value.trim().parse().unwrap_or(found);
            }
        }
    }
}
