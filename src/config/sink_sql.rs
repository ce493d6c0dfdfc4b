//! `[[sink]]` tables with the `url` of a database: where it is, how to get in, and the statements that write a value.
//!
//! A password never leaves its [`SecretSource`], and a URL never has one: people put passwords there, so no fault quotes
//! it.

use std::collections::HashSet;
use std::path::{Path, PathBuf};

use url::Url;

use super::apps::Reader;
use super::authorizers::Wanted;
use super::fault::Problem;
use super::file::{Document, RawTable};
use super::redis_server::is_this_machine;
use super::sinks::{Made, Scope};
use super::value::{Given, Reading, Value, integer, kind, path, quoted, text, word};
use super::{CredentialName, SinkEntry, SinkTo, SqlSink, upstream};
use crate::sink::options::{SqlAt, SqlPlan, SqlServer, SqlTls};
use crate::sink::sql_presets::{SQL_PRESETS, SqlPreset};
use crate::sink::sql_statement::{self, SqlDialect, SqlParameter, SqlStatement, StatementFault};

/// The keys of a table beside those that all sinks have.
pub(super) const KEYS: &[&str] = &[
    "url",
    "user",
    "password",
    "password_file",
    "password_env",
    "password_credential",
    "socket",
    "tls",
    "ca_file",
    "timeout_ms",
    "statement",
    "insert",
    "read",
    "retract",
    "prefix",
];

const TIMEOUT_MS: u64 = 2_000;

const PASSWORD: Wanted = Wanted {
    key: "password",
    keys: ["password", "password_file", "password_env", "password_credential"],
    noun: "password",
    one: "a database",
    the: "the database",
    whose: "the password of that database",
    of_app: false,
};

const REMEDY: &str = "Write \"mysql://user@127.0.0.1:3306/database\", \"postgres://user@127.0.0.1:5432/database\" or \
                      \"sqlite:/path/to/file.db\".";

impl From<StatementFault> for Problem {
    fn from(fault: StatementFault) -> Problem {
        let known = || format!("Write one of {}.", sql_statement::WORDS);
        match fault {
            StatementFault::OpenBrace => Problem::new("the statement has a { without a }", known()),
            StatementFault::UnknownPlaceholder(word) => {
                Problem::new(format!("the statement has an unknown placeholder {}", quoted(&word)), known())
            }
            StatementFault::QuotedPlaceholder(word) => {
                let what = format!("the placeholder {{{word}}} stands between quotes or in a comment");
                Problem::new(what, "Remove the quotes: it is bound as a parameter and needs none.")
            }
            StatementFault::SeveralStatements => {
                let remedy = "Write statement = [\"...\", \"...\"], a text for each.";
                Problem::new("there is more than one statement in one text", remedy)
            }
            StatementFault::OwnParameter(form) => {
                Problem::new(format!("the statement has a parameter of the form {form}"), known())
            }
            StatementFault::Nul => Problem::new("the statement holds a NUL byte", "Remove it."),
        }
    }
}

/// Whether a URL names a database and not a Redis.
pub(super) fn is_sql(url: &str) -> bool {
    dialect(url).is_some()
}

fn dialect(url: &str) -> Option<SqlDialect> {
    match url.split(':').next().unwrap_or_default() {
        "mysql" | "mariadb" => Some(SqlDialect::MySql),
        "postgres" | "postgresql" => Some(SqlDialect::Postgres),
        "sqlite" => Some(SqlDialect::Sqlite),
        _ => None,
    }
}

/// The plans, and the preset that they come from.
type Plans = (Vec<SqlPlan>, Option<(&'static str, String)>);

/// What a URL says.
#[derive(Debug, PartialEq, Eq)]
struct Address {
    dialect: SqlDialect,
    at: SqlAt,
    database: String,
    user: Option<String>,
}

impl Reader<'_> {
    pub(super) fn sql_sink(
        &mut self,
        raw: &mut RawTable,
        document: &Document,
        scope: Option<&Scope<'_>>,
    ) -> Option<Made> {
        if !cfg!(feature = "sql") {
            let remedy = "Use a build with the feature \"sql\", or remove the table.";
            self.faults.push(Problem::new("this build cannot write to a database", remedy).at(&raw.place));
            return None;
        }
        let address = self.field(raw, "url", address);
        let dialect = address.as_ref().map(|address| address.dialect);
        let server = self.sql_server(raw, document, address);
        let plans = self.plans(raw, dialect?);
        let (server, (plans, preset), scope) = (server?, plans?, scope?);
        let entries = self.sql_entries(raw, &plans, scope)?;
        let places = vec![raw.place.clone(); entries.len()];
        Some(Made { to: SinkTo::Sql(SqlSink { server, plans, preset }), entries, places })
    }

    fn sql_server(&mut self, raw: &mut RawTable, document: &Document, address: Option<Address>) -> Option<SqlServer> {
        let folder = &document.folder;
        let user = self.field(raw, "user", |value| text(value).map(str::to_owned));
        let socket = self.field(raw, "socket", |value| path(value, folder));
        let ca_file = self.field(raw, "ca_file", |value| upstream::ca_file(value, folder));
        let words = [("verify", "verify"), ("encrypt", "encrypt"), ("off", "off")];
        let tls = self.field(raw, "tls", |value| word(value, &words));
        let timeout_ms = self.field(raw, "timeout_ms", |value| integer(value, 100..=60_000));
        let has_password = PASSWORD.keys.iter().any(|key| raw.fields.contains_key(key));
        let Address { dialect, at, database, user: in_url } = address?;
        if dialect == SqlDialect::Sqlite {
            self.only_of_a_server(raw);
        }
        if let (Some(_), Some(_), Some(given)) = (&user, &in_url, raw.fields.get("user")) {
            let problem = Problem::new("the url names a user too", "Keep one of the two.");
            self.fault("user", problem, &given.place);
        }
        let user = user.or(in_url);
        if user.is_none() && dialect != SqlDialect::Sqlite {
            let problem =
                Problem::new("nobody is named to log in as", "Write user = \"...\", or url = \"mysql://user@...\".");
            self.faults.push(problem.at(&raw.place));
        }
        let at = self.socket(raw, dialect, at, socket);
        let tls = self.sql_tls(raw, &at, tls, ca_file);
        let password = if has_password { self.secret(raw, document, None, &PASSWORD) } else { None };
        let (password, password_origin) = password.unzip();
        let timeout_ms = timeout_ms.unwrap_or(TIMEOUT_MS);
        Some(SqlServer { dialect, at, database, user, password, password_origin, tls, timeout_ms })
    }

    /// A file has none of these.
    fn only_of_a_server(&mut self, raw: &RawTable) {
        for key in ["user", "socket", "tls", "ca_file"].iter().chain(&PASSWORD.keys) {
            if let Some(given) = raw.fields.get(*key) {
                let problem = Problem::new("SQLite is a file, and nobody logs in to it", "Remove the key.");
                self.fault(key, problem, &given.place);
            }
        }
    }

    fn socket(&mut self, raw: &RawTable, dialect: SqlDialect, at: SqlAt, socket: Option<PathBuf>) -> SqlAt {
        let (SqlAt::Tcp { host, port }, Some(socket), Some(given)) = (&at, socket, raw.fields.get("socket")) else {
            return at;
        };
        if !is_this_machine(host) {
            let problem =
                Problem::new("a socket is on this machine, and the host in url is not", "Write localhost there.");
            self.fault("socket", problem, &given.place);
        }
        // Who copies the name of PostgreSQL's socket means its folder.
        let of_postgres = dialect == SqlDialect::Postgres && !socket.is_dir();
        let path = if of_postgres { socket.parent().map(Path::to_owned).unwrap_or(socket) } else { socket };
        SqlAt::Unix { path, port: *port }
    }

    /// Without a word: verified to another machine, and on this one TLS if there is any.
    fn sql_tls(&mut self, raw: &RawTable, at: &SqlAt, tls: Option<&str>, ca_file: Option<PathBuf>) -> SqlTls {
        let far = match at {
            SqlAt::Tcp { host, .. } if !is_this_machine(host) => Some(host),
            _ => None,
        };
        if let (Some("encrypt" | "off"), Some(given)) = (tls, raw.fields.get("ca_file")) {
            let problem =
                Problem::new("no certificate is verified, so there is no use for an authority", "Remove it, or tls.");
            self.fault("ca_file", problem, &given.place);
        }
        let place = raw.fields.get("tls").map_or(&raw.place, |given| &given.place);
        match (tls, far) {
            (Some("off"), Some(host)) => self.warnings.push(format!(
                "{place}: tokens pass the network in the clear on their way to {host}; tls = \"verify\" hides them"
            )),
            (Some("encrypt"), Some(host)) => self.warnings.push(format!(
                "{place}: nobody looks whether it is {host} that is given the password; tls = \"verify\" does"
            )),
            _ => {}
        }
        match (tls, far, ca_file) {
            (Some("off"), ..) => SqlTls::Off,
            (Some("encrypt"), ..) => SqlTls::Unverified,
            (None, None, None) => SqlTls::IfOffered,
            (_, _, ca_file) => SqlTls::Verified { ca_file },
        }
    }

    /// The statements: those of the table, or those of a preset.
    fn plans(&mut self, raw: &RawTable, dialect: SqlDialect) -> Option<Plans> {
        let prefix = self.field(raw, "prefix", prefix);
        let presets = raw.fields.get("presets");
        match (raw.fields.get("statement"), presets) {
            (Some(_), Some(given)) => {
                let problem = Problem::new(
                    "there are statements already",
                    "Keep one of the two, and give the other a [[sink]] of its own.",
                );
                self.fault("presets", problem, &given.place);
                None
            }
            (None, None) => {
                let what = "nothing says what is to be written to the database";
                let problem = Problem::new(what, "Write statement = \"UPDATE ...\", or presets = [\"wx_token\"].");
                self.faults.push(problem.at(&raw.place));
                None
            }
            (None, Some(given)) => {
                self.not_with_a_preset(raw);
                let (preset, prefix) = (self.sql_preset(raw)?, prefix.unwrap_or_default());
                let plans = preset.plans(&prefix, dialect);
                let plans = plans.map_err(|fault| self.fault("presets", fault.into(), &given.place)).ok()?;
                Some((plans, Some((preset.name, prefix))))
            }
            (Some(_), None) => {
                if let Some(given) = raw.fields.get("prefix") {
                    let what = "there is no preset for it to stand in";
                    self.fault(
                        "prefix",
                        Problem::new(what, "Write the table's whole name into the statement."),
                        &given.place,
                    );
                }
                self.own_plan(raw, dialect).map(|plan| (vec![plan], None))
            }
        }
    }

    fn not_with_a_preset(&mut self, raw: &RawTable) {
        for key in ["insert", "read", "retract"] {
            if let Some(given) = raw.fields.get(key) {
                let problem = Problem::new("the preset brings its own", "Remove it, or write the statement yourself.");
                self.fault(key, problem, &given.place);
            }
        }
    }

    fn sql_preset(&mut self, raw: &RawTable) -> Option<&'static SqlPreset> {
        let given = self.list(raw, "presets", "presets = [\"wx_token\"]");
        let words: Vec<_> = SQL_PRESETS.iter().map(|preset| (preset.name, preset)).collect();
        let mut found = Vec::new();
        for item in given {
            match word(&item.value, &words) {
                Ok(preset) => found.push(preset),
                Err(problem) => self.fault("presets", problem, &item.place),
            }
        }
        if let (Some(second), 2..) = (given.get(1), found.len()) {
            let problem = Problem::new("a database's sink has one preset", "Give the other a [[sink]] of its own.");
            self.fault("presets", problem, &second.place);
        }
        found.first().copied()
    }

    fn own_plan(&mut self, raw: &RawTable, dialect: SqlDialect) -> Option<SqlPlan> {
        let before = self.faults.len();
        let one = |value: &Value| statement(value, dialect);
        let write = self.field(raw, "statement", |value| statements(value, dialect)).unwrap_or_default();
        let insert = self.field(raw, "insert", one);
        let read = self.field(raw, "read", |value| one(value).and_then(readable));
        let retract = self.field(raw, "retract", one);
        let holds_value = write.iter().any(|statement| statement.has(SqlParameter::Value));
        if let (false, false, Some(given)) = (holds_value, write.is_empty(), raw.fields.get("statement")) {
            let problem = Problem::new("no statement has {value}", "Write it where the token belongs.");
            self.fault("statement", problem, &given.place);
        }
        let place = raw.fields.get("statement").map_or(&raw.place, |given| &given.place);
        if write.iter().chain(&retract).any(SqlStatement::changes_every_row) {
            self.warnings.push(format!(
                "{place}: an UPDATE without WHERE writes this token into every row of its table, other apps' too; add \
                 WHERE unless the table has one row"
            ));
        }
        (self.faults.len() == before).then_some(SqlPlan { of: None, write, insert, read, retract })
    }

    /// What is written with these statements: whatever `{kind}` stands for, or each app's token.
    fn sql_entries(&mut self, raw: &RawTable, plans: &[SqlPlan], scope: &Scope<'_>) -> Option<Vec<SinkEntry>> {
        let of_kinds: Vec<CredentialName> = plans.iter().filter_map(|plan| plan.of).collect();
        let has = |parameter| plans.iter().all(|plan| plan.write.iter().any(|statement| statement.has(parameter)));
        let mut entries = scope.credentials();
        if !of_kinds.is_empty() {
            entries.retain(|entry| of_kinds.contains(&entry.of));
        } else if !has(SqlParameter::CredentialType) {
            // The app's token stands first.
            let mut seen = HashSet::new();
            entries.retain(|entry| seen.insert(entry.app.clone()));
        }
        let apps: HashSet<&str> = entries.iter().map(|entry| entry.app.as_str()).collect();
        let names_app = plans.iter().all(|plan| plan.write.iter().any(SqlStatement::names_app));
        let key = if of_kinds.is_empty() { "statement" } else { "presets" };
        let place = raw.fields.get(key).map_or(&raw.place, |given| &given.place).clone();
        if apps.len() > 1 && !names_app {
            let what = format!("no statement says which app it is about, and there are {}", apps.len());
            let remedy = "Name one app in apps = [\"wx...\"], or write {appid} where the statement chooses the row.";
            self.fault(key, Problem::new(what, remedy), &place);
            return None;
        }
        let uses_agent = plans.iter().flat_map(|plan| &plan.write).any(|statement| statement.has(SqlParameter::Agent));
        if let (true, Some(app)) = (uses_agent, scope.apps.iter().find(|app| app.agent.is_none())) {
            let what = format!("a statement with {{agent}}, and the app {} has none", quoted(&app.id()));
            self.fault(key, Problem::new(what, "Write {id} in its place, or name the apps of this sink."), &place);
            return None;
        }
        Some(entries)
    }
}

/// One statement or a list of them.
fn statement(value: &Value, dialect: SqlDialect) -> Reading<SqlStatement> {
    Ok(SqlStatement::parse(text(value)?, dialect)?)
}

fn statements(value: &Value, dialect: SqlDialect) -> Reading<Vec<SqlStatement>> {
    let one = |value: &Value| statement(value, dialect);
    match value {
        Value::List(items) if items.is_empty() => {
            Err(Problem::new("the list is empty", "Write statement = \"UPDATE ...\"."))
        }
        Value::List(items) => items.iter().map(|item: &Given| one(&item.value)).collect(),
        Value::Text(_) => Ok(vec![one(value)?]),
        other => {
            let remedy = "Write statement = \"UPDATE ...\", or a list of such texts.";
            Err(Problem::new(format!("{} is no statement", kind(other)), remedy))
        }
    }
}

/// What brings a value knows neither the value nor its times yet.
fn readable(statement: SqlStatement) -> Reading<SqlStatement> {
    if statement.has(SqlParameter::Value) || statement.has_time() {
        let what = "what is read has {value} or a time in it";
        return Err(Problem::new(
            what,
            "Write read = \"SELECT column FROM table WHERE ...\", with {appid} and {kind}.",
        ));
    }
    Ok(statement)
}

/// It becomes a part of a table's name.
fn prefix(value: &Value) -> Reading<String> {
    let given = text(value)?;
    let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '.');
    if given.len() > 64 || !given.chars().all(plain) || given.starts_with(|c: char| c.is_ascii_digit()) {
        let remedy = "Write what stands before the table's name, such as \"pre_\", in letters, digits, _ and dots.";
        return Err(Problem::new(format!("{} is no part of a table's name", quoted(given)), remedy));
    }
    Ok(given.to_owned())
}

/// Never quotes it: people put passwords there.
fn address(value: &Value) -> Reading<Address> {
    let given = text(value)?;
    let dialect = dialect(given).ok_or_else(|| Problem::new("the URL is none of a database", REMEDY))?;
    if dialect == SqlDialect::Sqlite {
        return sqlite(given);
    }
    let url = Url::parse(given).map_err(|error| Problem::new(format!("this is not a URL: {error}"), REMEDY))?;
    if url.password().is_some() {
        let remedy = "Write password_file = \"/path\" in a line of its own.";
        return Err(Problem::new("the URL has a password, and URLs get into logs", remedy));
    }
    if url.query().is_some() || url.fragment().is_some() {
        let remedy = "Remove it: tls, ca_file, socket and timeout_ms are keys of their own.";
        return Err(Problem::new("the URL has a query or a fragment", remedy));
    }
    let user = Some(url.username()).filter(|user| !user.is_empty()).map(str::to_owned);
    let database = url.path().trim_start_matches('/');
    if user.as_deref().unwrap_or_default().contains('%') || database.contains('%') {
        let remedy = "Write the user as user = \"...\", and a database whose name is of letters, digits, _ and -.";
        return Err(Problem::new("the URL has a percent sign", remedy));
    }
    if database.is_empty() || database.contains('/') {
        return Err(Problem::new("the URL does not name one database", REMEDY));
    }
    let host = url.host_str().filter(|host| !host.is_empty() && !host.contains('%'));
    let host = host.ok_or_else(|| Problem::new("the URL has no host", REMEDY))?;
    let host = host.trim_start_matches('[').trim_end_matches(']').to_owned();
    let port = url.port().unwrap_or(if dialect == SqlDialect::MySql { 3306 } else { 5432 });
    Ok(Address { dialect, at: SqlAt::Tcp { host, port }, database: database.to_owned(), user })
}

/// `sqlite:/path` and `sqlite:///path` are one.
fn sqlite(url: &str) -> Reading<Address> {
    let path = url.trim_start_matches("sqlite:");
    let path = path.strip_prefix("//").unwrap_or(path);
    if !path.starts_with('/') || path.len() < 2 || path.contains(['?', '#']) {
        return Err(Problem::new("the path of the database is not an absolute one", REMEDY));
    }
    let (dialect, at) = (SqlDialect::Sqlite, SqlAt::File(path.into()));
    Ok(Address { dialect, at, database: String::new(), user: None })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(url: &str) -> Option<Address> {
        address(&Value::Text(url.into())).ok()
    }

    #[test]
    fn addresses_read_as_people_write_them() {
        let of = |dialect, host: &str, port, database: &str, user: Option<&str>| {
            let at = SqlAt::Tcp { host: host.into(), port };
            Some(Address { dialect, at, database: database.into(), user: user.map(str::to_owned) })
        };
        assert_eq!(read("mysql://me@127.0.0.1/db"), of(SqlDialect::MySql, "127.0.0.1", 3306, "db", Some("me")));
        assert_eq!(read("mariadb://db.internal:3307/db"), of(SqlDialect::MySql, "db.internal", 3307, "db", None));
        assert_eq!(read("postgres://[::1]/a-b_c"), of(SqlDialect::Postgres, "::1", 5432, "a-b_c", None));
        assert_eq!(read("postgresql://me@h:1/d"), of(SqlDialect::Postgres, "h", 1, "d", Some("me")));
        for file in ["sqlite:/var/db.sqlite", "sqlite:///var/db.sqlite"] {
            let at = SqlAt::File("/var/db.sqlite".into());
            let expected = Address { dialect: SqlDialect::Sqlite, at, database: String::new(), user: None };
            assert_eq!(read(file), Some(expected), "{file}");
        }
        for wrong in [
            "mysql://h",
            "mysql://h/",
            "mysql://h/a/b",
            "mysql:///db",
            "mysql://h/db?ssl=1",
            "sqlite:db",
            "sqlite::memory:",
            "sqlite://host/db",
            "mysql://m%65@h/db",
        ] {
            assert_eq!(read(wrong), None, "{wrong}");
        }
    }

    #[test]
    fn a_password_in_the_url_is_refused_and_not_quoted() {
        let problem = address(&Value::Text("mysql://me:hunter22@h/db".into())).unwrap_err();
        assert!(!problem.what.contains("hunter22") && !problem.remedy.contains("hunter22"), "{problem:?}");
    }

    #[test]
    fn a_prefix_is_no_way_into_a_statement() {
        let read = |text: &str| prefix(&Value::Text(text.into())).ok();
        assert_eq!(read("site.pre_").as_deref(), Some("site.pre_"));
        for wrong in ["a b", "a;", "a`", "a'", "a\"", "a-", "1a", "é"] {
            assert_eq!(read(wrong), None, "{wrong}");
        }
    }
}
