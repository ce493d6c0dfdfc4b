//! A real redis-server of a test's own, on a Unix socket in a folder of its own; TCP and TLS only where a test asks.

use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use redis::{Connection, FromRedisValue};
use tempfile::TempDir;

use super::{run, wait_for};

/// A redis-server process. Killed when dropped.
pub struct Redis {
    child: Option<Child>,
    folder: TempDir,
    arguments: Vec<String>,
    password: Option<String>,
}

impl Redis {
    /// Starts one with these further settings, as `--name value`; `{folder}` in them is its folder.
    pub fn start(arguments: &[&str]) -> Redis {
        Redis::start_in(tempfile::tempdir().unwrap(), arguments)
    }

    /// In a folder that has what the settings name.
    pub fn start_in(folder: TempDir, arguments: &[&str]) -> Redis {
        let mut redis = Redis::stopped(folder, arguments);
        redis.start_again();
        redis
    }

    /// Not started yet, but its address is known.
    pub fn stopped(folder: TempDir, arguments: &[&str]) -> Redis {
        let path = folder.path().display().to_string();
        let arguments = arguments.iter().map(|argument| argument.replace("{folder}", &path)).collect();
        Redis { child: None, folder, arguments, password: None }
    }

    /// The password that the test's own connections use.
    pub fn with_password(mut self, password: &str) -> Redis {
        self.password = Some(password.to_owned());
        self
    }

    pub fn start_again(&mut self) {
        let _ = std::fs::remove_file(self.socket());
        let log = std::fs::File::options().create(true).append(true).open(self.folder.path().join("log")).unwrap();
        let child = Command::new("redis-server")
            .args(["--port", "0", "--save", "", "--appendonly", "no", "--daemonize", "no"])
            .arg("--dir")
            .arg(self.folder.path())
            .arg("--unixsocket")
            .arg(self.socket())
            .args(&self.arguments)
            .env_clear()
            .env("PATH", std::env::var_os("PATH").unwrap_or_default())
            .stdin(Stdio::null())
            .stdout(log.try_clone().unwrap())
            .stderr(log)
            .spawn()
            .unwrap_or_else(|error| panic!("redis-server: {error}; tests/run installs what is needed"));
        self.child = Some(child);
        wait_for("redis-server to answer", || {
            let child = self.child.as_mut().unwrap();
            if let Ok(Some(status)) = child.try_wait() {
                let log = std::fs::read_to_string(self.folder.path().join("log")).unwrap_or_default();
                panic!("redis-server ended with {status}:\n{log}");
            }
            // Any answer will do, a refusal too.
            self.client().is_ok().then_some(())
        });
    }

    /// SIGKILL.
    pub fn kill(&mut self) {
        let mut child = self.child.take().unwrap();
        child.kill().unwrap();
        child.wait().unwrap();
    }

    pub fn signal(&self, name: &str) {
        let pid = self.child.as_ref().unwrap().id().to_string();
        assert!(run(Command::new("kill").args([&format!("-{name}"), &pid])).0.success());
    }

    pub fn socket(&self) -> PathBuf {
        self.folder.path().join("redis.sock")
    }

    pub fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// As a configuration wants it.
    pub fn url(&self) -> String {
        format!("unix:{}", self.socket().display())
    }

    fn client(&self) -> redis::RedisResult<Connection> {
        let password = self.password.as_ref().map(|word| format!("?pass={word}")).unwrap_or_default();
        let client = redis::Client::open(format!("unix://{}{password}", self.socket().display()))?;
        client.get_connection_with_timeout(super::PATIENCE)
    }

    /// A connection to it.
    #[track_caller]
    pub fn connect(&self) -> Connection {
        self.client().unwrap()
    }

    /// One command on a connection of its own.
    #[track_caller]
    pub fn ask<T: FromRedisValue>(&self, words: &[&str]) -> T {
        let mut command = redis::Cmd::new();
        words.iter().for_each(|word| {
            command.arg(*word);
        });
        command.query(&mut self.client().unwrap()).unwrap()
    }

    pub fn get(&self, key: &str) -> Option<String> {
        self.ask(&["GET", key])
    }
}

impl Drop for Redis {
    fn drop(&mut self) {
        if let Some(child) = &mut self.child {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

/// A port of this machine that nobody listened on a moment ago.
pub fn free_port() -> u16 {
    TcpListener::bind(("127.0.0.1", 0)).unwrap().local_addr().unwrap().port()
}
