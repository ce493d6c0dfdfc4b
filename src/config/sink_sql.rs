//! `[[sink]]` tables with the `url` of a database: where it is, how to get in, and the statements that write a value.
//!
//! A password never leaves its [`SecretSource`], and a URL never has one: people put passwords there, so no fault quotes
//! it.

use std::collections::HashSet;
use std::path::{Path, PathBuf};

use super::fault::SettingProblem;
use super::reader::{RawTable, Reader, toml_path, toml_text, toml_texts};
use super::secrets::Wanted;
use super::sinks::Made;
use super::value::{Given, RawValue, ReadResult, kind, quoted, text, word};
use super::{CredentialName, SinkEntry, SinkTo, SqlSink, judge};
use crate::network::is_this_machine;
use crate::sink::keys::Scope;
use crate::sink::options::{SqlAt, SqlPlan, SqlServer, SqlTls};
use crate::sink::sql_address::{self, SqlAddress};
use crate::sink::sql_presets::{SQL_PRESETS, SqlPreset};
use crate::sink::sql_statement::{SqlDialect, SqlParameter, SqlStatement};

const PASSWORD: Wanted = Wanted {
    key: "password",
    noun: "password",
    one: "a database",
    the: "the database",
    whose: "the password of that database",
    of_app: false,
};

/// The plans, and the preset that they come from.
type Plans = (Vec<SqlPlan>, Option<(&'static str, String)>);

impl Reader<'_> {
    pub(super) fn sql_sink(&mut self, table: &RawTable, scope: Option<&Scope<'_>>) -> Option<Made> {
        if !cfg!(feature = "sql") {
            let remedy = "Use a build with the feature \"sql\", or remove the table.";
            self.fault_of(table, SettingProblem::new("this build cannot write to a database", remedy));
            return None;
        }
        let address = self.read(table, "url", |value| Ok(sql_address::parse(text(value)?)?));
        let dialect = address.as_ref().map(|address| address.dialect);
        let server = self.sql_server(table, address);
        let plans = self.plans(table, dialect?);
        let (server, (plans, preset), scope) = (server?, plans?, scope?);
        let entries = self.sql_entries(table, &plans, scope)?;
        let places = vec![table.place.clone(); entries.len()];
        Some(Made { to: SinkTo::Sql(SqlSink { server, plans, preset }), entries, places })
    }

    fn sql_server(&mut self, table: &RawTable, address: Option<SqlAddress>) -> Option<SqlServer> {
        let user = self.any_text(table, "user");
        let socket = self.path(table, "socket");
        let ca_file = self.path_that(table, "ca_file", judge::certificates);
        let words = [("verify", "verify"), ("encrypt", "encrypt"), ("off", "off")];
        let tls = self.word(table, "tls", &words);
        let timeout_ms = self.number(table, "timeout_ms");
        let SqlAddress { dialect, at, database, user: in_url } = address?;
        if dialect == SqlDialect::Sqlite {
            self.only_of_a_server(table);
        }
        if user.is_some() && in_url.is_some() {
            self.fault(table, "user", SettingProblem::new("the url names a user too", "Keep one of the two."));
        }
        let user = user.or(in_url);
        user.iter().for_each(|user| table.print("user", toml_text(user)));
        if user.is_none() && dialect != SqlDialect::Sqlite {
            let remedy = "Write user = \"...\", or url = \"mysql://user@...\".";
            self.fault_of(table, SettingProblem::new("nobody is named to log in as", remedy));
        }
        let at = self.socket(table, dialect, at, socket);
        let tls = self.sql_tls(table, &at, tls, ca_file);
        let (password, password_origin) = self.secret_if_any(table, &PASSWORD).unzip();
        let server = SqlServer { dialect, at, database, user, password, password_origin, tls, timeout_ms };
        table.print("url", toml_text(&server.url()));
        Some(server)
    }

    /// A file has none of these.
    fn only_of_a_server(&mut self, table: &RawTable) {
        let password = ["password", "password_file", "password_env", "password_credential"];
        for key in ["user", "socket", "tls", "ca_file"].into_iter().chain(password).filter(|key| table.has(key)) {
            let problem = SettingProblem::new("SQLite is a file, and nobody logs in to it", "Remove the key.");
            self.fault(table, key, problem);
        }
    }

    fn socket(&mut self, table: &RawTable, dialect: SqlDialect, at: SqlAt, socket: Option<PathBuf>) -> SqlAt {
        let (SqlAt::Tcp { host, port }, Some(socket)) = (&at, socket) else { return at };
        if !is_this_machine(host) {
            let problem = SettingProblem::new(
                "a socket is on this machine, and the host in url is not",
                "Write localhost there.",
            );
            self.fault(table, "socket", problem);
        }
        // Who copies the name of PostgreSQL's socket means its folder.
        let of_postgres = dialect == SqlDialect::Postgres && !socket.is_dir();
        let path = if of_postgres { socket.parent().map(Path::to_owned).unwrap_or(socket) } else { socket };
        table.print("socket", toml_path(&path));
        SqlAt::Unix { path, port: *port }
    }

    /// Without a word: verified to another machine, and on this one TLS if there is any.
    fn sql_tls(&mut self, table: &RawTable, at: &SqlAt, tls: Option<&str>, ca_file: Option<PathBuf>) -> SqlTls {
        let far = match at {
            SqlAt::Tcp { host, .. } if !is_this_machine(host) => Some(host),
            _ => None,
        };
        if matches!(tls, Some("encrypt" | "off")) && table.has("ca_file") {
            let problem = SettingProblem::new(
                "no certificate is verified, so there is no use for an authority",
                "Remove it, or tls.",
            );
            self.fault(table, "ca_file", problem);
        }
        let place = table.place_of("tls");
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
            (_, _, ca_file) => {
                table.print("tls", toml_text("verify"));
                SqlTls::Verified { ca_file }
            }
        }
    }

    /// The statements: those of the table, or those of a preset.
    fn plans(&mut self, table: &RawTable, dialect: SqlDialect) -> Option<Plans> {
        let prefix = self.text(table, "prefix", prefix);
        match (table.has("statement"), table.has("presets")) {
            (true, true) => {
                let remedy = "Keep one of the two, and give the other a [[sink]] of its own.";
                self.fault(table, "presets", SettingProblem::new("there are statements already", remedy));
                None
            }
            (false, false) => {
                let what = "nothing says what is to be written to the database";
                let remedy = "Write statement = \"UPDATE ...\", or presets = [\"wx_token\"].";
                self.fault_of(table, SettingProblem::new(what, remedy));
                None
            }
            (false, true) => {
                for key in ["insert", "read", "retract"].into_iter().filter(|key| table.has(key)) {
                    let remedy = "Remove it, or write the statement yourself.";
                    self.fault(table, key, SettingProblem::new("the preset brings its own", remedy));
                }
                let (preset, prefix) = (self.sql_preset(table)?, prefix.unwrap_or_default());
                let plans = preset.plans(&prefix, dialect);
                let plans = plans.map_err(|fault| self.fault(table, "presets", fault.into())).ok()?;
                table.print("presets", toml_texts([preset.name]));
                Some((plans, Some((preset.name, prefix))))
            }
            (true, false) => {
                if table.has("prefix") {
                    let remedy = "Write the table's whole name into the statement.";
                    self.fault(table, "prefix", SettingProblem::new("there is no preset for it to stand in", remedy));
                }
                self.own_plan(table, dialect).map(|plan| (vec![plan], None))
            }
        }
    }

    fn sql_preset(&mut self, table: &RawTable) -> Option<&'static SqlPreset> {
        let given = self.list(table, "presets", "presets = [\"wx_token\"]");
        let words: Vec<_> = SQL_PRESETS.iter().map(|preset| (preset.name, preset)).collect();
        let mut found = Vec::new();
        for item in given {
            match word(&item.value, &words) {
                Ok(preset) => found.push(preset),
                Err(problem) => self.fault_at(table, "presets", problem, &item.place),
            }
        }
        if let (Some(second), 2..) = (given.get(1), found.len()) {
            let problem =
                SettingProblem::new("a database's sink has one preset", "Give the other a [[sink]] of its own.");
            self.fault_at(table, "presets", problem, &second.place);
        }
        found.first().copied()
    }

    fn own_plan(&mut self, table: &RawTable, dialect: SqlDialect) -> Option<SqlPlan> {
        let before = self.faults.len();
        let write = self.read(table, "statement", |value| statements(value, dialect)).unwrap_or_default();
        let [insert, read, retract] = ["insert", "read", "retract"].map(|key| {
            let judged = |statement| if key == "read" { readable(statement) } else { Ok(statement) };
            let statement = self.read(table, key, |value| statement(value, dialect).and_then(judged));
            statement.iter().for_each(|statement| table.print(key, toml_text(&statement.written)));
            statement
        });
        table.print("statement", toml_texts(write.iter().map(|statement| &statement.written)));
        if !write.is_empty() && !write.iter().any(|statement| statement.has(SqlParameter::Value)) {
            let problem = SettingProblem::new("no statement has {value}", "Write it where the token belongs.");
            self.fault(table, "statement", problem);
        }
        let place = table.place_of("statement");
        if write.iter().chain(&retract).any(SqlStatement::changes_every_row) {
            self.warnings.push(format!(
                "{place}: an UPDATE without WHERE writes this token into every row of its table, other apps' too; add \
                 WHERE unless the table has one row"
            ));
        }
        (self.faults.len() == before).then_some(SqlPlan { of: None, write, insert, read, retract })
    }

    /// What is written with these statements: whatever `{type}` stands for, or each app's token.
    fn sql_entries(&mut self, table: &RawTable, plans: &[SqlPlan], scope: &Scope<'_>) -> Option<Vec<SinkEntry>> {
        let of_types: Vec<CredentialName> = plans.iter().filter_map(|plan| plan.of).collect();
        let has = |parameter| plans.iter().all(|plan| plan.write.iter().any(|statement| statement.has(parameter)));
        let mut entries = scope.credentials();
        if !of_types.is_empty() {
            entries.retain(|entry| of_types.contains(&entry.of));
        } else if !has(SqlParameter::CredentialType) {
            // The app's token stands first.
            let mut seen = HashSet::new();
            entries.retain(|entry| seen.insert(entry.app.clone()));
        }
        let apps: HashSet<&str> = entries.iter().map(|entry| entry.app.as_str()).collect();
        let names_app = plans.iter().all(|plan| plan.write.iter().any(SqlStatement::names_app));
        let key = if of_types.is_empty() { "statement" } else { "presets" };
        if apps.len() > 1 && !names_app {
            let what = format!("no statement says which app it is about, and there are {}", apps.len());
            let remedy = "Name one app in apps = [\"wx...\"], or write {appid} where the statement chooses the row.";
            self.fault(table, key, SettingProblem::new(what, remedy));
            return None;
        }
        let uses_agent = plans.iter().flat_map(|plan| &plan.write).any(|statement| statement.has(SqlParameter::Agent));
        if let (true, Some(app)) = (uses_agent, scope.apps.iter().find(|app| app.agent.is_none())) {
            let what = format!("a statement with {{agent}}, and the app {} has none", quoted(&app.id()));
            self.fault(
                table,
                key,
                SettingProblem::new(what, "Write {id} in its place, or name the apps of this sink."),
            );
            return None;
        }
        Some(entries)
    }
}

/// One statement or a list of them.
fn statement(value: &RawValue, dialect: SqlDialect) -> ReadResult<SqlStatement> {
    Ok(SqlStatement::parse(text(value)?, dialect)?)
}

fn statements(value: &RawValue, dialect: SqlDialect) -> ReadResult<Vec<SqlStatement>> {
    let one = |value: &RawValue| statement(value, dialect);
    match value {
        RawValue::List(items) if items.is_empty() => {
            Err(SettingProblem::new("the list is empty", "Write statement = \"UPDATE ...\"."))
        }
        RawValue::List(items) => items.iter().map(|item: &Given| one(&item.value)).collect(),
        RawValue::Text(_) => Ok(vec![one(value)?]),
        other => {
            let remedy = "Write statement = \"UPDATE ...\", or a list of such texts.";
            Err(SettingProblem::new(format!("{} is no statement", kind(other)), remedy))
        }
    }
}

/// What brings a value knows neither the value nor its times yet.
fn readable(statement: SqlStatement) -> ReadResult<SqlStatement> {
    if statement.has(SqlParameter::Value) || statement.has_time() {
        let what = "what is read has {value} or a time in it";
        return Err(SettingProblem::new(
            what,
            "Write read = \"SELECT column FROM table WHERE ...\", with {appid} and {type}.",
        ));
    }
    Ok(statement)
}

/// It becomes a part of a table's name.
fn prefix(given: &str) -> ReadResult<String> {
    let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '.');
    if given.len() > 64 || !given.chars().all(plain) || given.starts_with(|c: char| c.is_ascii_digit()) {
        let remedy = "Write what stands before the table's name, such as \"pre_\", in letters, digits, _ and dots.";
        return Err(SettingProblem::new(format!("{} is no part of a table's name", quoted(given)), remedy));
    }
    Ok(given.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_prefix_is_no_way_into_a_statement() {
        let read = |text: &str| prefix(text).ok();
        assert_eq!(read("site.pre_").as_deref(), Some("site.pre_"));
        for wrong in ["a b", "a;", "a`", "a'", "a\"", "a-", "1a", "é"] {
            assert_eq!(read(wrong), None, "{wrong}");
        }
    }
}
