//! Where a site keeps its token before it moves: a memcached, a Redis, a database or files.

use std::net::TcpStream;
use std::process::{Child, Stdio};

use tempfile::TempDir;

use super::ways::{Endpoint, Store, Way};
use crate::support::redis::{Redis, free_port};
use crate::support::{memory_folder, program, wait_for};

/// The stores of one site.
pub(super) enum Stores {
    Memcached(Memcached),
    Redis {
        port: u16,
        _server: Redis,
    },
    Table(String),
    /// A folder for each web server.
    Files([TempDir; 2]),
}

impl Stores {
    pub fn start(store: Store, row: usize, database: Option<&Database>) -> Stores {
        match store {
            Store::Memcached => Stores::Memcached(Memcached::start()),
            Store::Redis => {
                let (redis, port) = Redis::on_tcp(&[]);
                Stores::Redis { port, _server: redis }
            }
            Store::Table(sql) => Stores::Table(database.unwrap().create(row, sql)),
            Store::Files => Stores::Files([(); 2].map(|()| memory_folder())),
        }
    }

    /// What the script of that web server is told, and what stands for `{store}` in a sink.
    pub fn address(&self, server: usize) -> String {
        match self {
            Stores::Memcached(memcached) => format!("127.0.0.1:{}", memcached.port),
            Stores::Redis { port, .. } => format!("127.0.0.1:{port}"),
            Stores::Table(address) => address.clone(),
            Stores::Files(folders) => folders[server].path().display().to_string(),
        }
    }
}

/// A real memcached. Killed when dropped.
pub(super) struct Memcached {
    child: Child,
    port: u16,
}

impl Memcached {
    fn start() -> Memcached {
        let port = free_port();
        let mut command = program("memcached");
        if rustix::process::geteuid().is_root() {
            command.args(["-u", "root"]);
        }
        command.args(["-l", "127.0.0.1", "-m", "8", "-t", "1", "-p", &port.to_string()]);
        let child = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).spawn();
        let child = child.unwrap_or_else(|error| panic!("memcached: {error}; tests/run installs what is needed"));
        let memcached = Memcached { child, port };
        wait_for("memcached to listen", || TcpStream::connect(("127.0.0.1", port)).ok());
        memcached
    }
}

impl Drop for Memcached {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A MariaDB for all rows that have a table. Killed when dropped.
pub(super) struct Database {
    child: Child,
    port: u16,
    folder: TempDir,
}

impl Database {
    /// One, if any of the rows has a table.
    pub fn for_rows(rows: &[(&'static Way, Endpoint)]) -> Option<Database> {
        rows.iter().any(|(way, _)| matches!(way.store, Store::Table(_))).then(Database::start)
    }

    fn start() -> Database {
        let folder = memory_folder();
        let data = folder.path().join("data");
        // At its start a MariaDB removes the temporary tables that it finds there, another server's too.
        let temporary = format!("--tmpdir={}", folder.path().display());
        let user = if rustix::process::geteuid().is_root() { "--user=root" } else { "--skip-grant-tables" };
        let install = program("mariadb-install-db")
            .arg("--no-defaults")
            .arg(format!("--datadir={}", data.display()))
            .args([user, "--auth-root-authentication-method=normal", "--skip-test-db", &temporary])
            .output()
            .unwrap_or_else(|error| panic!("mariadb-install-db: {error}; tests/run installs what is needed"));
        assert!(install.status.success(), "{}", String::from_utf8_lossy(&install.stderr));
        let port = free_port();
        let child = program("mariadbd")
            .arg("--no-defaults")
            .arg(format!("--datadir={}", data.display()))
            .arg(format!("--socket={}", folder.path().join("sock").display()))
            .arg(format!("--pid-file={}", folder.path().join("pid").display()))
            .args([user, &temporary, "--bind-address=127.0.0.1", "--innodb-buffer-pool-size=16M"])
            .args(["--innodb-flush-log-at-trx-commit=0", &format!("--port={port}")])
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(std::fs::File::create(folder.path().join("log")).unwrap())
            .spawn()
            .unwrap();
        let database = Database { child, port, folder };
        wait_for("mariadbd to answer", || database.execute("SELECT 1").ok());
        database
            .execute("CREATE USER 'site'@'127.0.0.1' IDENTIFIED BY 'site'; GRANT ALL ON *.* TO 'site'@'127.0.0.1'")
            .unwrap();
        database
    }

    /// A database for one row with these tables; how to reach it, with the password `site`.
    fn create(&self, row: usize, sql: &str) -> String {
        let sql = sql.replace("{appid}", &super::appid(row)).replace("{secret}", super::SECRET);
        self.execute(&format!("CREATE DATABASE row{row}; USE row{row}; {sql}")).unwrap();
        format!("mysql://site@127.0.0.1:{}/row{row}", self.port)
    }

    fn execute(&self, sql: &str) -> Result<(), String> {
        let socket = format!("--socket={}", self.folder.path().join("sock").display());
        let output = program("mariadb").args(["--no-defaults", "-uroot", &socket, "-e", sql]).output().unwrap();
        if output.status.success() { Ok(()) } else { Err(String::from_utf8_lossy(&output.stderr).into_owned()) }
    }
}

impl Drop for Database {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
