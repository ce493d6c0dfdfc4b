//! The settings of a sink: where it writes, and what.

use std::fmt;
use std::path::PathBuf;

use super::sql_statement::{SqlDialect, SqlStatement};
use super::template::{Template, TimeShown};
use crate::encoding::View;
use crate::platform::CredentialName;
use crate::redis_client::options::RedisOptions;
use crate::secret_source::{SecretOrigin, SecretSource};

/// Access rights of a file. The site's own programs write it too, where they have to fetch for themselves again.
pub const FILE_MODE: u32 = 0o660;

/// How long a key lives in Redis.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ttl {
    /// As long as the value is good, less a margin, seconds.
    Left { margin_s: u64 },
    /// Until it is deleted.
    None,
}

/// A place that managed keys are written to.
#[derive(Clone, Debug)]
pub struct Options {
    pub to: SinkTo,
    pub entries: Vec<SinkEntry>,
    /// How often is looked whether the entries are still there, ms.
    pub check_every_ms: u64,
    /// How often everything is written again, ms; 0: on change only.
    pub rewrite_every_ms: u64,
}

/// Where a sink writes.
#[derive(Clone, Debug)]
pub enum SinkTo {
    /// Keys of a Redis.
    Redis { server: RedisOptions, ttl: Ttl },
    /// Rows of a database.
    Sql(SqlSink),
    /// Files.
    File(SinkFile),
    /// A program that is run.
    Command(SinkCommand),
}

impl Options {
    /// How long before the end of a value its entries are to be gone.
    pub fn margin_ms(&self) -> u64 {
        match &self.to {
            SinkTo::Redis { ttl: Ttl::Left { margin_s }, .. } => margin_s * 1000,
            SinkTo::Redis { .. } | SinkTo::Sql(_) | SinkTo::File(_) | SinkTo::Command(_) => 0,
        }
    }

    /// Times are told as if at least so many seconds were left.
    pub fn at_least_s(&self) -> u32 {
        match &self.to {
            SinkTo::Redis { .. } | SinkTo::Command(_) => 0,
            SinkTo::Sql(_) => u32::try_from(3 * self.rewrite_every_ms / 1000).unwrap_or(u32::MAX),
            SinkTo::File(file) => file.at_least_s,
        }
    }

    /// Whether what stands there can be read: a program cannot be asked, and a statement may have none beside it that reads.
    pub fn is_readable(&self) -> bool {
        match &self.to {
            SinkTo::Redis { .. } | SinkTo::File(_) => true,
            SinkTo::Sql(sql) => sql.plan(CredentialName::AccessToken).is_some_and(|plan| plan.read.is_some()),
            SinkTo::Command(_) => false,
        }
    }

    /// Whether an app's token can be read where it writes it.
    pub fn keeps_token_of(&self, app: &str) -> bool {
        let is_token = |entry: &SinkEntry| {
            entry.app == app && entry.of == CredentialName::AccessToken && entry.content.holds_value()
        };
        self.is_readable() && self.entries.iter().any(is_token)
    }

    /// The password it needs, if it needs one.
    pub fn password(&self) -> Option<&SecretSource> {
        match &self.to {
            SinkTo::Redis { server, .. } => server.password.as_ref(),
            SinkTo::Sql(sql) => sql.server.password.as_ref(),
            SinkTo::File(_) | SinkTo::Command(_) => None,
        }
    }

    /// One word for statistics.
    pub fn type_name(&self) -> &'static str {
        match &self.to {
            SinkTo::Redis { .. } => "redis",
            SinkTo::Sql(_) => "sql",
            SinkTo::File(_) => "file",
            SinkTo::Command(_) => "command",
        }
    }
}

impl fmt::Display for Options {
    /// Where it writes, without user and password.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.to {
            SinkTo::Redis { server, .. } => server.fmt(f),
            SinkTo::Sql(sql) => sql.server.fmt(f),
            SinkTo::File(file) => f.write_str(&file.path),
            SinkTo::Command(command) => command.program.display().fmt(f),
        }
    }
}

/// One thing that a sink writes: a key in a Redis, a file, a row. `Debug` never shows a secret in it.
#[derive(Clone, PartialEq, Eq)]
pub struct SinkEntry {
    /// The app's id.
    pub app: String,
    pub of: CredentialName,
    /// The key in a Redis, the path of a file; otherwise what tells it from the sink's other entries.
    pub name: String,
    /// What stands for the name wherever people read it, if the name holds the secret.
    pub redacted_name: Option<String>,
    pub content: SinkContent,
}

/// What is written of a value.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SinkContent {
    /// As an alias shows it.
    View(View),
    /// In a text of the site's own.
    Template(Template),
    /// The value; what becomes of it is the sink's matter.
    Value,
}

impl SinkContent {
    /// Whether the value can be found in it.
    pub fn holds_value(&self) -> bool {
        match self {
            SinkContent::View(view) => view.holds_value(),
            SinkContent::Template(template) => template.holds_value(),
            SinkContent::Value => true,
        }
    }

    /// The same for everybody at any time.
    pub fn is_constant(&self) -> bool {
        matches!(self, SinkContent::View(view) if view.is_constant())
    }
}

impl SinkEntry {
    /// The name as people may read it.
    pub fn redacted_name(&self) -> &str {
        self.redacted_name.as_deref().unwrap_or(&self.name)
    }

    /// The key that memcached's clients read the same credential under.
    pub fn managed_key(&self) -> String {
        format!("{}:{}", self.of.word(), self.app)
    }
}

impl fmt::Debug for SinkEntry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SinkEntry")
            .field("app", &self.app)
            .field("of", &self.of)
            .field("name", &self.redacted_name())
            .field("content", &self.content)
            .finish()
    }
}

/// Files that are written.
#[derive(Clone, Debug)]
pub struct SinkFile {
    /// The path as configured, with `{appid}` and the like.
    pub path: String,
    /// Access rights of the file.
    pub mode: u32,
    /// Times are told as if at least so many seconds were left.
    pub at_least_s: u32,
    /// When the file was changed last, as it is told; none: when it was.
    pub mtime: Option<TimeShown>,
}

#[cfg(test)]
impl SinkFile {
    /// A path with the defaults.
    pub(crate) fn plain(path: &str) -> SinkFile {
        SinkFile { path: path.to_owned(), mode: FILE_MODE, at_least_s: 0, mtime: None }
    }
}

/// A program that is run for each value.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SinkCommand {
    /// Absolute.
    pub program: PathBuf,
    /// With `{appid}` and the like in them.
    pub arguments: Vec<String>,
    /// It is killed after this long, ms.
    pub timeout_ms: u64,
}

/// Where a database is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SqlAt {
    Tcp {
        host: String,
        port: u16,
    },
    /// MySQL's socket, or the folder of PostgreSQL's.
    Unix {
        path: PathBuf,
        port: u16,
    },
    /// SQLite's.
    File(PathBuf),
}

/// What hides a value on its way.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SqlTls {
    /// TLS, with a certificate of that host's name, by these authorities too (PEM); none: the public ones alone.
    Verified {
        ca_file: Option<PathBuf>,
    },
    /// TLS with whatever certificate: keeps out whoever only listens.
    Unverified,
    /// The same if the server speaks TLS.
    IfOffered,
    Off,
}

/// A database, and how to get in.
#[derive(Clone, Debug)]
pub struct SqlServer {
    pub dialect: SqlDialect,
    pub at: SqlAt,
    /// Empty for SQLite.
    pub database: String,
    pub user: Option<String>,
    /// Read again at each connection.
    pub password: Option<SecretSource>,
    /// Where the password came from, for `check`.
    pub password_origin: Option<SecretOrigin>,
    pub tls: SqlTls,
    /// Longest wait for a connection and for each answer, ms.
    pub timeout_ms: u64,
}

/// What is run for one credential.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SqlPlan {
    /// For this type of credential alone.
    pub of: Option<CredentialName>,
    /// One after the other, all or none. Each has to change a row.
    pub write: Vec<SqlStatement>,
    /// What is run where the first of them has changed no row.
    pub insert: Option<SqlStatement>,
    /// Brings the value that stands there.
    pub read: Option<SqlStatement>,
    /// What is run when there is no good value any more.
    pub retract: Option<SqlStatement>,
}

/// A database that values are written to, and how.
#[derive(Clone, Debug)]
pub struct SqlSink {
    pub server: SqlServer,
    pub plans: Vec<SqlPlan>,
    /// Where the plans come from, and what its tables begin with.
    pub preset: Option<(&'static str, String)>,
}

impl SqlSink {
    /// What is run for credentials of that type.
    pub fn plan(&self, of: CredentialName) -> Option<&SqlPlan> {
        self.plans.iter().find(|plan| plan.of.is_none_or(|only| only == of))
    }
}

impl SqlServer {
    /// As the file has it, without the user.
    pub fn url(&self) -> String {
        let scheme = match self.dialect {
            SqlDialect::MySql => "mysql",
            SqlDialect::Postgres => "postgres",
            SqlDialect::Sqlite => "sqlite",
        };
        let database = &self.database;
        match &self.at {
            SqlAt::Tcp { host, port } if host.contains(':') => format!("{scheme}://[{host}]:{port}/{database}"),
            SqlAt::Tcp { host, port } => format!("{scheme}://{host}:{port}/{database}"),
            SqlAt::Unix { port, .. } => format!("{scheme}://localhost:{port}/{database}"),
            SqlAt::File(path) => format!("{scheme}:{}", path.display()),
        }
    }
}

impl fmt::Display for SqlServer {
    /// The address, without user and password.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.url())
    }
}
