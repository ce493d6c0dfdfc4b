//! The settings of a sink: where it writes, and what it writes there. Opens nothing.

use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;

use super::sql_statement::{SqlDialect, SqlStatement};
use super::template::{Placeholder, Template, TimeShown};
use crate::encoding::View;
use crate::encoding::request::form_as_toml;
use crate::encoding::toml_text::toml_text;
use crate::network::authority;
use crate::platform::CredentialName;
use crate::redis_client::options::RedisOptions;
use crate::secret_source::SecretSource;

/// One sink: a store of the site that is kept current.
#[derive(Clone, Debug)]
pub struct Options {
    pub to: SinkTo,
    pub entries: Vec<SinkEntry>,
    /// How often it is checked that the entries are still there, ms.
    pub check_every_ms: u64,
    /// How often everything is written again, ms; 0: only when something has changed.
    pub rewrite_every_ms: u64,
}

#[derive(Clone, Debug)]
pub enum SinkTo {
    Redis {
        server: RedisOptions,
        /// How long before the end of its value a key expires; none: it stays until it is deleted.
        ttl_margin_s: Option<u64>,
    },
    Sql(SqlSink),
    File(SinkFile),
    Command(SinkCommand),
}

impl Options {
    /// How long before a value expires its entries have to be gone.
    pub fn margin_ms(&self) -> u64 {
        if let SinkTo::Redis { ttl_margin_s: Some(margin_s), .. } = self.to { margin_s * 1000 } else { 0 }
    }

    /// Times are written as if at least so many seconds were left.
    pub fn at_least_s(&self) -> u32 {
        match &self.to {
            SinkTo::Redis { .. } | SinkTo::Command(_) => 0,
            SinkTo::Sql(_) => u32::try_from(3 * self.rewrite_every_ms / 1000).unwrap_or(u32::MAX),
            SinkTo::File(file) => file.at_least_s,
        }
    }

    /// Whether the stored value can be read back: a program cannot be asked, and a database needs a `read` statement.
    pub fn is_readable(&self) -> bool {
        match &self.to {
            SinkTo::Redis { .. } | SinkTo::File(_) => true,
            SinkTo::Sql(sql) => sql.plan(CredentialName::AccessToken).is_some_and(|plan| plan.read.is_some()),
            SinkTo::Command(_) => false,
        }
    }

    /// Whether this sink writes the app's token and can read it back.
    pub fn keeps_token_of(&self, app: &str) -> bool {
        let is_token = |entry: &SinkEntry| {
            entry.app == app && entry.of == CredentialName::AccessToken && entry.content.holds_value()
        };
        self.is_readable() && self.entries.iter().any(is_token)
    }

    pub fn password(&self) -> Option<&SecretSource> {
        match &self.to {
            SinkTo::Redis { server, .. } => server.password.as_ref(),
            SinkTo::Sql(sql) => sql.server.password.as_ref(),
            SinkTo::File(_) | SinkTo::Command(_) => None,
        }
    }

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
    pub app: String,
    pub of: CredentialName,
    /// The key in a Redis or the path of a file; for other types a name that is unique in the sink.
    pub name: String,
    /// Shown to people in place of the name, if the name holds the secret.
    pub redacted_name: Option<String>,
    pub content: SinkContent,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SinkContent {
    /// As an alias shows it; the value itself for sinks that decide how it is written.
    View(View),
    /// As the site's own template shows it.
    Template(Arc<Template>),
}

impl SinkContent {
    /// Whether the value is in it.
    pub fn holds_value(&self) -> bool {
        match self {
            SinkContent::View(view) => view.holds_value(),
            SinkContent::Template(_) => true,
        }
    }

    pub fn is_constant(&self) -> bool {
        matches!(self, SinkContent::View(view) if view.is_constant())
    }
}

impl SinkEntry {
    pub fn redacted_name(&self) -> &str {
        self.redacted_name.as_deref().unwrap_or(&self.name)
    }

    /// The name as a key of the configuration could have it: a hash tag of a cluster would be taken for a word in braces.
    pub fn written_name(&self) -> String {
        let (appid, agent) = self.app.split_once(':').unwrap_or((&self.app, ""));
        let words = [("appid", appid), ("agent", agent), ("type", self.of.word())];
        let tagged = words.iter().filter(|(_, value)| !value.is_empty());
        tagged.fold(self.redacted_name().to_owned(), |name, (word, value)| {
            name.replace(&format!("{{{value}}}"), &format!("{{{{{word}}}}}"))
        })
    }

    /// What a placeholder stands for that is always the same; none for the value and times.
    pub fn named(&self, placeholder: Placeholder) -> Option<&str> {
        let (appid, agent) = self.app.split_once(':').unwrap_or((&self.app, ""));
        match placeholder {
            Placeholder::AppId => Some(appid),
            Placeholder::Id => Some(&self.app),
            Placeholder::Agent => Some(agent),
            Placeholder::CredentialType => Some(self.of.word()),
            Placeholder::Value | Placeholder::Time(_) => None,
        }
    }

    /// A key of a Redis as the file could have it.
    pub fn as_toml(&self) -> String {
        let view = if let SinkContent::View(view) = &self.content { view } else { &View::RAW };
        let (key, app, form) = (toml_text(&self.written_name()), toml_text(&self.app), form_as_toml(&view.form));
        let at_least = match view.at_least_s {
            0 => String::new(),
            seconds => format!(", at_least = {seconds}"),
        };
        format!("{{ key = {key}, app = {app}, of = \"{}\", {form}{at_least} }}", self.of.word())
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

#[derive(Clone, Debug)]
pub struct SinkFile {
    /// The path as configured, with `{appid}` and the like.
    pub path: String,
    /// By default the group may write it too: the site's own programs do, where they have to fetch for themselves again.
    pub mode: u32,
    /// Times are written as if at least so many seconds were left.
    pub at_least_s: u32,
    /// The modification time to set; none: the true one.
    pub mtime: Option<TimeShown>,
}

impl SinkFile {
    /// What readers are told, unless it is set: three rounds of writing, a day at most.
    pub fn default_at_least_s(rewrite_every_ms: u64) -> u64 {
        (rewrite_every_ms / 1000 * 3).min(86_400)
    }
}

#[cfg(test)]
impl SinkFile {
    /// A path with the defaults.
    pub(crate) fn plain(path: &str) -> SinkFile {
        SinkFile { path: path.to_owned(), mode: 0o660, at_least_s: 0, mtime: None }
    }
}

/// Settings of a sink that runs a program for each value.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SinkCommand {
    /// An absolute path.
    pub program: PathBuf,
    /// May hold words such as `{appid}`.
    pub arguments: Vec<String>,
    /// It is killed after this long, ms.
    pub timeout_ms: u64,
}

impl SinkCommand {
    /// What stands for something in an argument.
    pub const WORDS: [&str; 5] = ["appid", "id", "type", "expires_at", "expires_in"];
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SqlAt {
    Tcp {
        host: String,
        port: u16,
    },
    /// MySQL's socket, or the folder of PostgreSQL's socket.
    Unix {
        path: PathBuf,
        port: u16,
    },
    /// SQLite's file.
    File(PathBuf),
}

/// How the connection to a database is encrypted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SqlTls {
    /// TLS with a certificate for the host's name, signed by a public authority or one of these (PEM).
    Verified {
        ca_file: Option<PathBuf>,
    },
    /// TLS with any certificate: protects against listeners only.
    Unverified,
    /// Like `Unverified` if the server offers TLS, else plain.
    IfOffered,
    Off,
}

/// A database, and how to log in.
#[derive(Clone, Debug)]
pub struct SqlServer {
    pub dialect: SqlDialect,
    pub at: SqlAt,
    /// Empty for SQLite.
    pub database: String,
    pub user: Option<String>,
    /// Read again at each connection.
    pub password: Option<SecretSource>,
    pub tls: SqlTls,
    /// Longest wait for a connection and for each answer, ms.
    pub timeout_ms: u64,
}

/// The statements for one credential.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SqlPlan {
    /// For this type of credential alone.
    pub of: Option<CredentialName>,
    /// Run in one transaction. Each has to change a row.
    pub write: Vec<SqlStatement>,
    /// Run if the first of `write` has changed no row.
    pub insert: Option<SqlStatement>,
    /// Reads the stored value.
    pub read: Option<SqlStatement>,
    /// Run when there is no valid value any more.
    pub retract: Option<SqlStatement>,
}

/// A database that values are written to, and how.
#[derive(Clone, Debug)]
pub struct SqlSink {
    pub server: SqlServer,
    pub plans: Vec<SqlPlan>,
}

impl SqlSink {
    /// The statements for credentials of that type.
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
            SqlAt::Tcp { host, port } => format!("{scheme}://{}/{database}", authority(host, *port)),
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
