//! A real redis-server of a test's own, on a Unix socket in a folder of its own; TCP and TLS only where a test asks.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::process::{Child, Stdio};

use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair, SanType};
use redis::{Connection, FromRedisValue};
use tempfile::TempDir;
use tokencached::redis_client::options::{RedisAt, RedisOptions};

pub use super::free_port;
use super::{program, wait_for, write};

/// How to reach a Redis without a password, for a client of ours.
pub fn server(at: RedisAt) -> RedisOptions {
    RedisOptions { at, tls: None, db: 0, user: None, password: None, trusted_hosts: Vec::new(), timeout_ms: 2_000 }
}

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

    /// On a TCP port of this machine too, which is given back. Replicas are up to date at once.
    pub fn on_tcp(arguments: &[&str]) -> (Redis, u16) {
        let port = free_port();
        let text = port.to_string();
        let tcp = ["--port", &text, "--repl-diskless-sync-delay", "0"];
        (Redis::start(&[&tcp, arguments].concat()), port)
    }

    /// A replica of the one on that port, up to date.
    pub fn replica_of(port: u16, arguments: &[&str]) -> (Redis, u16) {
        let of = ["--replicaof".to_owned(), "127.0.0.1".to_owned(), port.to_string()];
        let of: Vec<&str> = of.iter().map(String::as_str).collect();
        let (replica, port) = Redis::on_tcp(&[&of, arguments].concat());
        wait_for("the replica to be up to date", || {
            replica.ask::<String>(&["INFO", "replication"]).contains("master_link_status:up").then_some(())
        });
        (replica, port)
    }

    /// The password that the test's own connections use.
    pub fn with_password(mut self, password: &str) -> Redis {
        self.password = Some(password.to_owned());
        self
    }

    pub fn start_again(&mut self) {
        let _ = std::fs::remove_file(self.socket());
        let log = std::fs::File::options().create(true).append(true).open(self.folder.path().join("log")).unwrap();
        let child = program("redis-server")
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
        super::signal(self.child.as_ref().unwrap().id(), name);
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
        client.get_connection_with_timeout(super::TIMEOUT)
    }

    /// A connection to it.
    #[track_caller]
    pub fn connect(&self) -> Connection {
        self.client().unwrap()
    }

    /// One command on a connection of its own.
    #[track_caller]
    pub fn ask<T: FromRedisValue>(&self, words: &[&str]) -> T {
        self.try_ask(words).unwrap()
    }

    /// The same of a server that may close its connections: sentinels have it do so when they promote it.
    pub fn try_ask<T: FromRedisValue>(&self, words: &[&str]) -> redis::RedisResult<T> {
        let mut command = redis::Cmd::new();
        words.iter().for_each(|word| {
            command.arg(*word);
        });
        command.query(&mut self.client()?)
    }

    /// True once it takes writes of its own.
    pub fn is_master(&self) -> bool {
        self.try_ask::<String>(&["INFO", "replication"]).is_ok_and(|facts| facts.contains("role:master"))
    }

    /// It has not read its file yet. Any answer but that will do.
    pub fn is_loading(&self) -> bool {
        let answer: redis::RedisResult<String> = redis::cmd("GET").arg("x").query(&mut self.client().unwrap());
        answer.is_err_and(|error| error.code() == Some("LOADING"))
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

/// A sentinel that watches the master on a port, by the name `mymaster`, and alone may call a failover.
pub struct Sentinel {
    child: Child,
    pub port: u16,
    _folder: TempDir,
}

impl Sentinel {
    pub fn start(master: u16, lines: &str) -> Sentinel {
        let (folder, port) = (tempfile::tempdir().unwrap(), free_port());
        let settings = format!(
            "port {port}\nbind 127.0.0.1\ndir {}\nsentinel monitor mymaster 127.0.0.1 {master} 1\n\
             sentinel down-after-milliseconds mymaster 500\nsentinel failover-timeout mymaster 2000\n{lines}\n",
            folder.path().display()
        );
        let file = write(folder.path(), "sentinel.conf", &settings);
        let log = std::fs::File::create(folder.path().join("log")).unwrap();
        let child = program("redis-server")
            .arg(file)
            .arg("--sentinel")
            .stdin(Stdio::null())
            .stdout(log.try_clone().unwrap())
            .stderr(log)
            .spawn()
            .unwrap();
        let sentinel = Sentinel { child, port, _folder: folder };
        wait_for("the sentinel to listen", || std::net::TcpStream::connect(("127.0.0.1", port)).ok());
        sentinel
    }

    pub fn signal(&self, name: &str) {
        super::signal(self.child.id(), name);
    }

    pub fn ask<T: FromRedisValue>(&self, words: &[&str]) -> redis::RedisResult<T> {
        let client = redis::Client::open(format!("redis://127.0.0.1:{}", self.port))?;
        let mut command = redis::Cmd::new();
        words.iter().for_each(|word| {
            command.arg(*word);
        });
        command.query(&mut client.get_connection_with_timeout(super::TIMEOUT)?)
    }

    /// Waits until it knows a replica that could take over.
    pub fn knows_a_replica(&self) {
        wait_for("the sentinel to know the replica", || {
            let replicas: Vec<HashMap<String, String>> = self.ask(&["SENTINEL", "REPLICAS", "mymaster"]).ok()?;
            replicas.iter().any(|replica| replica.get("flags").is_some_and(|flags| flags == "slave")).then_some(())
        });
    }
}

impl Drop for Sentinel {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A certificate authority in a folder: `ca.pem`, and what it signs.
pub struct Authority {
    issuer: Issuer<'static, KeyPair>,
}

impl Authority {
    pub fn new(folder: &Path) -> Authority {
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.distinguished_name.push(DnType::CommonName, "an authority of the tests");
        let key = KeyPair::generate().unwrap();
        write(folder, "ca.pem", &params.self_signed(&key).unwrap().pem());
        Authority { issuer: Issuer::new(params, key) }
    }

    pub fn sign(&self, folder: &Path, name: &str) {
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params.distinguished_name.push(DnType::CommonName, name);
        params.subject_alt_names = vec![SanType::DnsName("localhost".try_into().unwrap())];
        let key = KeyPair::generate().unwrap();
        let certificate = params.signed_by(&key, &self.issuer).unwrap();
        write(folder, &format!("{name}.pem"), &certificate.pem());
        write(folder, &format!("{name}.key"), &key.serialize_pem());
    }
}
