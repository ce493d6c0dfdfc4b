//! `[[sink]]` tables with the `url` of a database: where it is, how to get in, and the statements that write a value.
//!
//! A password never leaves its [`SecretSource`], and a URL never has one: people put passwords there, so no fault quotes
//! it.

use super::reader::{RawTable, Reader};
use super::secrets::SecretSpec;
use super::sinks::Made;
use crate::invalid_value::wrong;
use crate::raw_value::{RawValue, ReadResult, text, word, wrong_kind};
use crate::sink::keys::Scope;
use crate::sink::options::{SinkTo, SqlAt, SqlPlan, SqlServer, SqlSink, SqlTls};
use crate::sink::sql_address::{self, SqlAddress};
use crate::sink::sql_presets::{SQL_PRESETS, SqlPreset};
use crate::sink::sql_statement::{SqlDialect, SqlStatement};
use crate::sink::validate::{judge_login, judge_prefix, judge_read, judge_statement_keys, sql_entries};

const PASSWORD: SecretSpec =
    SecretSpec { key: "password", noun: "password", owner: "a database", content: "the password of that database" };

impl Reader<'_> {
    pub(super) fn sql_sink(&mut self, table: &RawTable, scope: Option<&Scope<'_>>) -> Option<Made> {
        if !cfg!(feature = "sql") {
            let remedy = "Use a build with the feature \"sql\", or remove the table.";
            self.refuse(table, "this build cannot write to a database", remedy);
            return None;
        }
        let address = self.read(table, "url", |value| sql_address::parse(text(value)?));
        let dialect = address.as_ref().map(|address| address.dialect);
        let server = self.sql_server(table, address);
        let plans = self.plans(table, dialect?);
        let (server, plans, scope) = (server?, plans?, scope?);
        let list = if table.has("presets") { "presets" } else { "statement" };
        let entries = self.accept((table, list), sql_entries(&plans, scope))?;
        let places = vec![table.place.clone(); entries.len()];
        Some(Made { to: SinkTo::Sql(SqlSink { server, plans }), entries, places })
    }

    fn sql_server(&mut self, table: &RawTable, address: Option<SqlAddress>) -> Option<SqlServer> {
        let user: Option<String> = self.get(table, "user");
        let socket = self.get(table, "socket");
        let ca_file = self.get(table, "ca_file");
        let tls = self.word(table, "tls", &["verify", "encrypt", "off"].map(|word| (word, word)));
        let timeout_ms = self.value(table, "timeout_ms");
        let SqlAddress { dialect, at, database, user: in_url } = address?;
        self.judged(table, judge_login(dialect, &table.given_keys(), user.is_some(), in_url.is_some()));
        let user = user.or(in_url);
        user.iter().for_each(|user| table.print("user", user.as_str()));
        let (at, judgement) = at.by_socket(socket, dialect);
        self.judged(table, judgement);
        if let SqlAt::Unix { path, .. } = &at {
            table.print("socket", path.clone());
        }
        let (tls, judgement) = SqlTls::of_word(tls, ca_file, table.has("ca_file"), &at);
        self.judged(table, judgement);
        if matches!(tls, SqlTls::Verified { .. }) {
            table.print("tls", "verify");
        }
        let password = self.secret(table, &PASSWORD);
        let server = SqlServer { dialect, at, database, user, password, tls, timeout_ms };
        table.print("url", server.url());
        Some(server)
    }

    /// The statements: those of the table, or those of a preset.
    fn plans(&mut self, table: &RawTable, dialect: SqlDialect) -> Option<Vec<SqlPlan>> {
        let prefix = self.text_that(table, "prefix", judge_prefix);
        self.judged(table, judge_statement_keys(&table.given_keys()));
        match (table.has("statement"), table.has("presets")) {
            (false, true) => {
                let preset = self.sql_preset(table)?;
                let plans = self.accept((table, "presets"), preset.plans(&prefix.unwrap_or_default(), dialect))?;
                table.print("presets", vec![preset.name]);
                Some(plans)
            }
            (true, false) => self.own_plan(table, dialect).map(|plan| vec![plan]),
            _ => None,
        }
    }

    fn sql_preset(&mut self, table: &RawTable) -> Option<&'static SqlPreset> {
        let words: Vec<_> = SQL_PRESETS.iter().map(|preset| (preset.name, preset)).collect();
        let found = self.items(table, "presets", "presets = [\"wx_token\"]", |item| word(&item.value, &words));
        if let [_, (_, second), ..] = found[..] {
            let remedy = "Give the other a [[sink]] of its own.";
            self.refuse((table, "presets", second), "a database's sink has one preset", remedy);
        }
        found.first().map(|(preset, _)| *preset)
    }

    fn own_plan(&mut self, table: &RawTable, dialect: SqlDialect) -> Option<SqlPlan> {
        let before = self.faults.len();
        let write = self.read(table, "statement", |value| statements(value, dialect)).unwrap_or_default();
        let [insert, read, retract] = ["insert", "read", "retract"].map(|key| {
            let statement = self.read(table, key, |value| {
                let statement = statement(value, dialect)?;
                if key == "read" {
                    judge_read(&statement)?;
                }
                Ok(statement)
            });
            statement.iter().for_each(|statement| table.print(key, statement.written.as_str()));
            statement
        });
        table.print("statement", write.iter().map(|statement| statement.written.as_str()).collect::<Vec<_>>());
        let plan = SqlPlan { of: None, write, insert, read, retract };
        self.judged(table, plan.judge());
        (self.faults.len() == before).then_some(plan)
    }
}

fn statement(value: &RawValue, dialect: SqlDialect) -> ReadResult<SqlStatement> {
    SqlStatement::parse(text(value)?, dialect)
}

/// One statement or a list of them.
fn statements(value: &RawValue, dialect: SqlDialect) -> ReadResult<Vec<SqlStatement>> {
    match value {
        RawValue::List(items) if items.is_empty() => wrong("the list is empty", "Write statement = \"UPDATE ...\"."),
        RawValue::List(items) => items.iter().map(|item| statement(&item.value, dialect)).collect(),
        RawValue::Text(_) => Ok(vec![statement(value, dialect)?]),
        other => Err(wrong_kind(other, "no statement", "Write statement = \"UPDATE ...\", or a list of such texts.")),
    }
}
