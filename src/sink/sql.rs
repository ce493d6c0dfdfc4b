//! The sink of a database: each value is a row, or a part of one, that statements of the configuration write.
//!
//! What changes is bound as a parameter, never written into a statement. One connection; several values wait for each
//! other there, and a row that somebody has locked costs the others `timeout_ms` at most.

mod database;
mod fault;

use std::sync::Arc;

use futures_util::future::{BoxFuture, FutureExt};

use self::database::{Bound, Change, Database, Query};
use self::fault::SqlFault;
use super::item::Entry;
use super::options::{SinkEntry, SqlPlan, SqlSink};
use super::sql_statement::{SqlParameter, SqlStatement};
use super::target::{Current, Fault, Retract, Target, Write};
use crate::credential::adopt::Stored;

/// A database of the site's own.
pub(super) struct Sql {
    config: SqlSink,
    database: Database,
}

impl Sql {
    pub fn new(config: &SqlSink) -> Sql {
        Sql { config: config.clone(), database: Database::new(config.server.clone()) }
    }

    fn plan(&self, entry: &Entry) -> Result<&SqlPlan, SqlFault> {
        self.config.plan(entry.config().of).ok_or(SqlFault::Syntax)
    }

    async fn write_one(&self, entry: &Entry, value: &[u8], current: &Current) -> Result<Option<Vec<u8>>, SqlFault> {
        let plan = self.plan(entry)?;
        let facts = Facts { entry: entry.config(), value: Some(text(value)?), current: Some(current) };
        let before = match &plan.read {
            Some(read) => self.database.read(&facts.query(read)).await?,
            None => None,
        };
        let queries = plan.write.iter().map(|statement| facts.query(statement)).collect();
        let instead = plan.insert.as_ref().map(|statement| facts.query(statement));
        self.database.change(&Change { queries, instead, must_change: true }).await?;
        Ok(before)
    }

    async fn read_one(&self, entry: &Entry) -> Result<Option<Option<Vec<u8>>>, SqlFault> {
        let Some(read) = &self.plan(entry)?.read else { return Ok(None) };
        let facts = Facts { entry: entry.config(), value: None, current: None };
        Ok(Some(self.database.read(&facts.query(read)).await?))
    }

    /// Marks a row as over, if our value is still the one that stands there.
    async fn retract_one(&self, entry: &Entry, value: &[u8], last: &Current) -> Result<u64, SqlFault> {
        let plan = self.plan(entry)?;
        let facts = Facts { entry: entry.config(), value: Some(text(value)?), current: Some(last) };
        let queries = match (&plan.retract, &plan.read) {
            (Some(retract), _) => vec![facts.query(retract)],
            // The same row with times that are past.
            (None, Some(read)) if plan.write.iter().any(SqlStatement::has_time) => {
                if self.database.read(&facts.query(read)).await?.as_deref() != Some(value) {
                    return Ok(0);
                }
                plan.write.iter().map(|statement| facts.query(statement)).collect()
            }
            // Whose it is that stands there cannot be known.
            _ => return Ok(0),
        };
        self.database.change(&Change { queries, instead: None, must_change: false }).await
    }

    /// Connects, and has the database judge each statement without running it.
    pub async fn try_out(&self, entries: &[SinkEntry]) -> Result<(), Fault> {
        self.database.open().await?;
        for plan in &self.config.plans {
            let Some(entry) = entries.iter().find(|entry| plan.of.is_none_or(|of| of == entry.of)) else { continue };
            let facts = Facts { entry, value: None, current: None };
            let statements = plan.write.iter().chain(&plan.insert).chain(&plan.read).chain(&plan.retract);
            for statement in statements {
                self.database.prepare(&facts.query(statement)).await?;
            }
        }
        Ok(())
    }
}

impl Target for Sql {
    fn open(&self) -> BoxFuture<'_, Result<(), Fault>> {
        async { Ok(self.database.open().await?) }.boxed()
    }

    fn write<'a>(&'a self, write: &'a Write) -> BoxFuture<'a, Result<Vec<Option<Vec<u8>>>, Fault>> {
        async move {
            let mut before = Vec::with_capacity(write.entries.len());
            for (entry, value) in write.entries.iter().zip(&write.contents) {
                before.push(self.write_one(entry, value, &write.current).await?);
            }
            Ok(before)
        }
        .boxed()
    }

    fn read<'a>(&'a self, entries: &'a [Entry]) -> BoxFuture<'a, Result<Option<Vec<Option<Vec<u8>>>>, Fault>> {
        async move {
            let mut found = Vec::with_capacity(entries.len());
            for entry in entries {
                match self.read_one(entry).await? {
                    Some(value) => found.push(value),
                    None => return Ok(None),
                }
            }
            Ok(Some(found))
        }
        .boxed()
    }

    /// Further columns of the same row may tell a time.
    fn read_with_times<'a>(&'a self, entries: &'a [Entry]) -> BoxFuture<'a, Result<Option<Vec<Stored>>, Fault>> {
        async move {
            let mut stored = Vec::new();
            for entry in entries {
                let Some(read) = &self.plan(entry)?.read else { return Ok(None) };
                let facts = Facts { entry: entry.config(), value: None, current: None };
                let columns = self.database.read_row(&facts.query(read)).await?;
                stored.extend(columns.into_iter().flatten().map(Stored::from));
            }
            Ok(Some(stored))
        }
        .boxed()
    }

    fn retract<'a>(&'a self, retract: &'a Retract) -> BoxFuture<'a, Result<u64, Fault>> {
        async move {
            let Some(last) = &retract.last else { return Ok(0) };
            let mut retracted = 0;
            for (entry, value) in retract.entries.iter().zip(&retract.expected) {
                if let Some(value) = value {
                    retracted += self.retract_one(entry, value, last).await?;
                }
            }
            Ok(retracted)
        }
        .boxed()
    }
}

/// A value as a text. A control character has no place in one; a database would store it all the same.
fn text(value: &[u8]) -> Result<&str, SqlFault> {
    let text = std::str::from_utf8(value).map_err(|_| SqlFault::Value)?;
    if text.is_empty() || text.contains(char::is_control) { Err(SqlFault::Value) } else { Ok(text) }
}

/// What is known of one entry at one instant.
struct Facts<'a> {
    entry: &'a SinkEntry,
    value: Option<&'a str>,
    current: Option<&'a Current>,
}

impl Facts<'_> {
    fn query(&self, statement: &SqlStatement) -> Query {
        let bound = statement.parameters.iter().map(|parameter| self.bound(*parameter)).collect();
        Query { text: Arc::from(statement.text.as_str()), bound }
    }

    fn bound(&self, parameter: SqlParameter) -> Bound {
        let id = self.entry.app.as_str();
        let (appid, agent) = id.split_once(':').unwrap_or((id, ""));
        match parameter {
            SqlParameter::Value => Bound::Text(self.value.unwrap_or_default().to_owned()),
            SqlParameter::AppId => Bound::Text(appid.to_owned()),
            SqlParameter::Id => Bound::Text(id.to_owned()),
            SqlParameter::Agent => Bound::Text(agent.to_owned()),
            SqlParameter::Kind => Bound::Text(self.entry.of.word().to_owned()),
            SqlParameter::Time { fact, plus } => {
                let time = self.current.and_then(|current| current.times(0).get(fact)).unwrap_or_default();
                Bound::Integer(time.saturating_add(plus))
            }
        }
    }
}
