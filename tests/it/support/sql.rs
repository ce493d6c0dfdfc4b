//! Real database servers of the tests' own: MariaDB and PostgreSQL, each in a folder below /tmp, on a Unix socket and a
//! port of this machine, as a user without rights; and SQLite files. Asked with the databases' own clients.

use std::io::Write as _;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use tempfile::TempDir;

use super::redis::{Authority, free_port};
use super::{memory_folder, needs, run, run_checked, wait_for, write};

/// What the tests' user of a server has for a password.
pub const PASSWORD: &str = "hunter22-of-sql";

/// Starts a server and ends it when its own standard input does, so that none outlives the tests, however they end. With
/// a word behind the folder it removes the folder too.
const WATCHDOG_SCRIPT: &str = r#"
folder=$1 remove=$2 signal=$3; shift 3
"$@" </dev/null >>"$folder/log" 2>&1 &
pid=$!
read -r _
kill "-$signal" "$pid" 2>/dev/null
wait "$pid"
[ -z "$remove" ] || rm -rf -- "$folder"
"#;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DatabaseType {
    MariaDb,
    Postgres,
}

/// A server process. Killed when dropped.
pub struct Server {
    pub kind: DatabaseType,
    watchdog: Option<Child>,
    folder: PathBuf,
    pub port: u16,
    arguments: Vec<String>,
    /// Its folder goes with it, if it is not one that all tests share.
    _own: Option<TempDir>,
}

fn folder_for(user: &str) -> TempDir {
    let folder = tempfile::Builder::new().prefix("tokencached-sql-").tempdir_in("/tmp").unwrap();
    std::fs::set_permissions(folder.path(), PermissionsExt::from_mode(0o755)).unwrap();
    own(folder.path(), user);
    folder
}

fn own(path: &Path, user: &str) {
    if rustix::process::geteuid().is_root() {
        run_checked(crate::support::program("chown").args(["-R", user]).arg(path));
    }
}

/// The server's programs refuse root.
fn as_user(user: &str) -> Vec<String> {
    let words = ["setpriv", "--reuid", user, "--regid", user, "--clear-groups", "--"];
    if rustix::process::geteuid().is_root() { words.map(str::to_owned).into() } else { Vec::new() }
}

/// Where Debian has PostgreSQL's programs.
fn postgres_program(program: &str) -> String {
    let folders = std::fs::read_dir("/usr/lib/postgresql").map(|folders| folders.flatten().collect::<Vec<_>>());
    let newest = folders.unwrap_or_default().into_iter().map(|folder| folder.path().join("bin").join(program)).max();
    newest.map_or_else(|| program.to_owned(), |path| path.display().to_string())
}

impl DatabaseType {
    fn user(self) -> &'static str {
        match self {
            DatabaseType::MariaDb => "mysql",
            DatabaseType::Postgres => "postgres",
        }
    }
}

impl Server {
    /// The one that all tests of this process share.
    pub fn shared(kind: DatabaseType) -> &'static Server {
        static SERVERS: [OnceLock<Server>; 2] = [const { OnceLock::new() }; 2];
        SERVERS[kind as usize].get_or_init(|| {
            let folder = folder_for(kind.user());
            let mut server = Server::stopped_in(kind, folder.keep(), None, &[]);
            server.start_again();
            server
        })
    }

    /// One of a test's own, with further arguments; `{folder}` in them is its folder.
    pub fn start(kind: DatabaseType, arguments: &[&str]) -> Server {
        let mut server = Server::stopped(kind, arguments);
        server.start_again();
        server
    }

    /// Not started yet, but its address is known.
    pub fn stopped(kind: DatabaseType, arguments: &[&str]) -> Server {
        let folder = folder_for(kind.user());
        let path = folder.path().to_owned();
        Server::stopped_in(kind, path, Some(folder), arguments)
    }

    /// With TLS, by certificates of that authority's: `server.pem` in its folder.
    pub fn with_tls(kind: DatabaseType) -> Server {
        let files = match kind {
            DatabaseType::MariaDb => ["--ssl-cert={folder}/server.pem", "--ssl-key={folder}/server.key"].to_vec(),
            DatabaseType::Postgres => {
                ["-cssl=on", "-cssl_cert_file={folder}/server.pem", "-cssl_key_file={folder}/server.key"].to_vec()
            }
        };
        let mut server = Server::stopped(kind, &files);
        let folder = server.folder.clone();
        Authority::new(&folder).sign(&folder, "server");
        std::fs::set_permissions(folder.join("server.key"), PermissionsExt::from_mode(0o600)).unwrap();
        own(&folder, kind.user());
        server.start_again();
        server
    }

    fn stopped_in(kind: DatabaseType, folder: PathBuf, own: Option<TempDir>, arguments: &[&str]) -> Server {
        needs(match kind {
            DatabaseType::MariaDb => "mariadbd",
            DatabaseType::Postgres => "postgres",
        });
        let path = folder.display().to_string();
        let data = format!("{path}/data");
        // At its start a MariaDB removes the temporary tables that it finds there, another server's too.
        let temporary = format!("--tmpdir={path}");
        let words = |words: &[&str]| words.iter().map(|word| (*word).to_owned()).collect::<Vec<_>>();
        let (make, mut serve) = match kind {
            DatabaseType::MariaDb => (
                words(&[
                    "mariadb-install-db",
                    "--no-defaults",
                    &format!("--datadir={data}"),
                    "--auth-root-authentication-method=normal",
                    "--skip-test-db",
                    "--skip-name-resolve",
                    &temporary,
                ]),
                words(&[
                    "mariadbd",
                    "--no-defaults",
                    &format!("--datadir={data}"),
                    &temporary,
                    "--bind-address=127.0.0.1",
                ]),
            ),
            DatabaseType::Postgres => (
                words(&[
                    &postgres_program("initdb"),
                    &format!("--pgdata={data}"),
                    "--username=root",
                    "--auth-local=trust",
                    "--auth-host=scram-sha-256",
                    "--no-sync",
                    "--encoding=UTF8",
                    "--locale=C",
                ]),
                words(&[&postgres_program("postgres"), "-D", &data, "-k", &path, "-cfsync=off"]),
            ),
        };
        let port = free_port();
        if kind == DatabaseType::MariaDb {
            // What is written survives the process but not the machine; and small: it is for a moment.
            serve.extend(words(&["--innodb-flush-log-at-trx-commit=2", "--innodb-buffer-pool-size=16M"]));
            serve.extend(words(&["--skip-name-resolve", "--lower-case-table-names=0"]));
            serve.push(format!("--socket={path}/mysqld.sock"));
            serve.push(format!("--port={port}"));
        } else {
            serve.extend(words(&["-p", &port.to_string()]));
        }
        serve.extend(arguments.iter().map(|argument| argument.replace("{folder}", &path)));
        let make: Vec<String> = as_user(kind.user()).into_iter().chain(make).collect();
        run_checked(crate::support::program(&make[0]).args(&make[1..]).current_dir(&folder));
        Server { kind, watchdog: None, folder, port, arguments: serve, _own: own }
    }

    pub fn start_again(&mut self) {
        let (remove, signal) = match (&self._own, self.kind) {
            (None, DatabaseType::MariaDb) => ("remove", "KILL"),
            (None, DatabaseType::Postgres) => ("remove", "QUIT"),
            (Some(_), DatabaseType::MariaDb) => ("", "KILL"),
            (Some(_), DatabaseType::Postgres) => ("", "QUIT"),
        };
        let watchdog = crate::support::program("sh")
            .arg("-c")
            .arg(WATCHDOG_SCRIPT)
            .arg("watchdog")
            .arg(&self.folder)
            .args([remove, signal])
            .args(as_user(self.kind.user()))
            .args(&self.arguments)
            .current_dir(&self.folder)
            .env_clear()
            .env("PATH", std::env::var_os("PATH").unwrap_or_default())
            .stdin(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        self.watchdog = Some(watchdog);
        wait_for("the database to answer", || {
            let (status, said) = run(&mut self.client(""));
            let log = || std::fs::read_to_string(self.folder.join("log")).unwrap_or_default();
            let ended = self.watchdog.as_mut().unwrap().try_wait().unwrap().is_some();
            assert!(!ended, "the database has ended: {said}\n{}", log());
            status.success().then_some(())
        });
    }

    /// As it is when the power fails.
    pub fn kill(&mut self) {
        let mut watchdog = self.watchdog.take().unwrap();
        drop(watchdog.stdin.take());
        watchdog.wait().unwrap();
    }

    /// Ends all sessions but the one that does it.
    pub fn end_sessions(&self) {
        match self.kind {
            DatabaseType::MariaDb => drop(self.ask("", "KILL USER tokencached")),
            DatabaseType::Postgres => {
                let who = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename = 'tokencached'";
                self.ask("", who);
            }
        }
    }

    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// The client's program with what connects it.
    pub fn client(&self, database: &str) -> Command {
        match self.kind {
            DatabaseType::MariaDb => {
                let mut command = crate::support::program("mariadb");
                command.args(["--no-defaults", "--user=root", "-N", "-B", "--raw"]);
                command.arg(format!("--socket={}/mysqld.sock", self.folder.display()));
                command.args((!database.is_empty()).then(|| format!("--database={database}")));
                command.arg("-e").arg("SELECT 1");
                command
            }
            DatabaseType::Postgres => {
                let mut command = crate::support::program(postgres_program("psql"));
                // In a test's own database as the user whose tables they are to be.
                let (user, database) =
                    if database.is_empty() { ("root", "postgres") } else { ("tokencached", database) };
                command.args(["-X", "-A", "-t", "-q", "-v", "ON_ERROR_STOP=1", "-U", user, "-d", database, "-h"]);
                command.arg(&self.folder).args(["-p", &self.port.to_string(), "-c", "SELECT 1"]);
                command
            }
        }
    }

    /// What it answers to a statement, without the last line break.
    #[track_caller]
    pub fn ask(&self, database: &str, statement: &str) -> String {
        let mut command = self.client(database);
        let arguments: Vec<_> = command.get_args().map(ToOwned::to_owned).collect();
        let mut again = Command::new(command.get_program());
        again.args(&arguments[..arguments.len() - 1]).arg(statement);
        command = again;
        run_checked(&mut command).trim_end_matches('\n').to_owned()
    }

    /// A database of one test's own, and the user `tokencached` who may do all in it.
    pub fn database(&self) -> String {
        static NUMBER: AtomicU64 = AtomicU64::new(0);
        let name = format!("site_{}", NUMBER.fetch_add(1, Relaxed));
        match self.kind {
            DatabaseType::MariaDb => {
                self.ask("", &format!("CREATE DATABASE {name} CHARACTER SET utf8mb4"));
                for host in ["localhost", "127.0.0.1"] {
                    let user = format!("tokencached@'{host}'");
                    self.ask("", &format!("CREATE USER IF NOT EXISTS {user} IDENTIFIED BY '{PASSWORD}'"));
                    self.ask("", &format!("GRANT ALL ON {name}.* TO {user}"));
                }
            }
            DatabaseType::Postgres => {
                let user = "DO $$ BEGIN CREATE ROLE tokencached LOGIN PASSWORD '{}'; \
                            EXCEPTION WHEN duplicate_object OR unique_violation THEN NULL; END $$";
                self.ask("", &user.replace("{}", PASSWORD));
                self.ask("", &format!("CREATE DATABASE {name} OWNER tokencached"));
            }
        }
        name
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        if self.watchdog.is_some() {
            self.kill();
        }
    }
}

/// A database of one test's own on any of the three.
pub enum Store {
    Shared(&'static Server, String),
    Own(Server, String),
    Sqlite(TempDir),
}

impl Store {
    pub fn shared(kind: DatabaseType) -> Store {
        let server = Server::shared(kind);
        Store::Shared(server, server.database())
    }

    pub fn own(kind: DatabaseType) -> Store {
        let server = Server::start(kind, &[]);
        let name = server.database();
        Store::Own(server, name)
    }

    pub fn sqlite() -> Store {
        let store = Store::Sqlite(memory_folder());
        store.ask("PRAGMA user_version = 1");
        store
    }

    pub fn server(&self) -> Option<(&Server, &str)> {
        match self {
            Store::Shared(server, name) => Some((server, name)),
            Store::Own(server, name) => Some((server, name)),
            Store::Sqlite(_) => None,
        }
    }

    pub fn own_server(&mut self) -> &mut Server {
        match self {
            Store::Own(server, _) => server,
            _ => panic!("the server is shared"),
        }
    }

    /// The lines of a `[[sink]]` that say where it is and how to get in.
    pub fn lines(&self) -> String {
        let (server, name) = match self {
            Store::Sqlite(folder) => return format!("url = \"sqlite:{}/site.db\"\n", folder.path().display()),
            other => other.server().unwrap(),
        };
        let port = server.port;
        let scheme = if server.kind == DatabaseType::MariaDb { "mysql" } else { "postgres" };
        format!("url = \"{scheme}://tokencached@127.0.0.1:{port}/{name}\"\npassword = \"{PASSWORD}\"\n")
    }

    /// What the database answers to a statement, by its own client.
    #[track_caller]
    pub fn ask(&self, statement: &str) -> String {
        match self {
            Store::Sqlite(folder) => {
                let mut command = crate::support::program("sqlite3");
                command.args(["-batch", "-cmd", ".timeout 20000"]).arg(folder.path().join("site.db")).arg(statement);
                run_checked(&mut command).trim_end_matches('\n').to_owned()
            }
            other => {
                let (server, name) = other.server().unwrap();
                server.ask(name, statement)
            }
        }
    }

    /// Begins a transaction, runs the statement in it, and holds it until the lock is dropped.
    pub fn hold(&self, statement: &str) -> Lock {
        let (mut command, begin) = match self {
            Store::Sqlite(folder) => {
                let mut command = crate::support::program("sqlite3");
                command.args(["-batch", "-cmd", ".timeout 20000"]).arg(folder.path().join("site.db"));
                (command, "BEGIN IMMEDIATE;")
            }
            other => {
                let (server, name) = other.server().unwrap();
                let client = server.client(name);
                let mut command = Command::new(client.get_program());
                let arguments: Vec<_> = client.get_args().map(ToOwned::to_owned).collect();
                // Without the two words of one statement: it reads them.
                command.args(&arguments[..arguments.len() - 2]);
                command.args((server.kind == DatabaseType::MariaDb).then_some("--unbuffered"));
                (command, "BEGIN;")
            }
        };
        let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::null()).spawn().unwrap();
        let mut lock = Lock { child: None };
        writeln!(child.stdin.as_mut().unwrap(), "{begin} {statement}; SELECT 'held';").unwrap();
        let mut said = std::io::BufReader::new(child.stdout.take().unwrap());
        let mut line = String::new();
        while !line.contains("held") {
            line.clear();
            assert!(std::io::BufRead::read_line(&mut said, &mut line).unwrap() > 0, "it ended before it held the lock");
        }
        lock.child = Some(child);
        lock
    }
}

/// A lock on what a statement has changed.
pub struct Lock {
    child: Option<Child>,
}

impl Drop for Lock {
    /// The session ends, and with it the transaction.
    fn drop(&mut self) {
        if let Some(mut child) = self.child.take() {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

/// A file that holds the password of a server.
pub fn password_file(folder: &Path, password: &str) -> PathBuf {
    write(folder, "password", &format!("{password}\n"))
}
