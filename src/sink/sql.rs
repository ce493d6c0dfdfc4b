//! The sink that writes rows of a database, by statements from the configuration.
//!
//! Values are bound as parameters and never become part of a statement. There is one connection, on which values wait for
//! each other: a locked row delays the others by `timeout_ms` at most.

mod database;
mod fault;

use self::database::{Database, RowChange, SqlFacts};
use self::fault::SqlFault;
use super::backend::{Contents, CredentialWrite, CurrentValue, Retraction, SinkAnswer, SinkBackend};
use super::options::{SinkEntry, SqlPlan, SqlSink};
use super::sql_statement::SqlStatement;
use crate::credential::adopt::StoredBytes;
use crate::store_fault::StoreFault;

pub(super) struct SqlBackend {
    config: SqlSink,
    database: Database,
}

impl SqlBackend {
    pub fn new(config: &SqlSink) -> SqlBackend {
        SqlBackend { config: config.clone(), database: Database::new(config.server.clone()) }
    }

    fn plan(&self, entry: &SinkEntry) -> Result<&SqlPlan, StoreFault> {
        self.config.plan(entry.of).ok_or(SqlFault::Syntax.into())
    }

    async fn write_one(
        &self,
        entry: &SinkEntry,
        value: &[u8],
        current: &CurrentValue,
    ) -> Result<Option<Vec<u8>>, StoreFault> {
        let plan = self.plan(entry)?;
        let facts = SqlFacts { entry, value: Some(text(value)?), current: Some(current) };
        let before = match &plan.read {
            Some(read) => self.database.read(read, &facts).await?,
            None => None,
        };
        let change = RowChange { statements: &plan.write, instead: plan.insert.as_ref(), must_change: true };
        self.database.change(&change, &facts).await?;
        Ok(before)
    }

    /// The columns of each row; none without a statement that reads.
    async fn read_rows(&self, entries: &[SinkEntry]) -> Result<Option<Vec<Vec<Option<Vec<u8>>>>>, StoreFault> {
        let mut rows = Vec::with_capacity(entries.len());
        for entry in entries {
            let Some(read) = &self.plan(entry)?.read else { return Ok(None) };
            let facts = SqlFacts { entry, value: None, current: None };
            rows.push(self.database.read_row(read, &facts).await?);
        }
        Ok(Some(rows))
    }

    /// Marks a row as expired, if it still has our value.
    async fn retract_one(&self, entry: &SinkEntry, value: &[u8], last: &CurrentValue) -> Result<u64, StoreFault> {
        let plan = self.plan(entry)?;
        let facts = SqlFacts { entry, value: Some(text(value)?), current: Some(last) };
        let statements = match (&plan.retract, &plan.read) {
            (Some(retract), _) => std::slice::from_ref(retract),
            // The same row with times in the past.
            (None, Some(read)) if plan.write.iter().any(SqlStatement::has_time) => {
                if self.database.read(read, &facts).await?.as_deref() != Some(value) {
                    return Ok(0);
                }
                &plan.write
            }
            // It cannot be known whose value is there.
            _ => return Ok(0),
        };
        self.database.change(&RowChange { statements, instead: None, must_change: false }, &facts).await
    }

    /// Connects, and has the database prepare each statement without running it.
    pub async fn prepare_all(&self, entries: &[SinkEntry]) -> Result<(), StoreFault> {
        self.database.open().await?;
        for plan in &self.config.plans {
            let Some(entry) = entries.iter().find(|entry| plan.of.is_none_or(|of| of == entry.of)) else { continue };
            let facts = SqlFacts { entry, value: None, current: None };
            let statements = plan.write.iter().chain(&plan.insert).chain(&plan.read).chain(&plan.retract);
            for statement in statements {
                self.database.prepare(statement, &facts).await?;
            }
        }
        Ok(())
    }
}

impl SinkBackend for SqlBackend {
    fn open(&self) -> SinkAnswer<'_, ()> {
        Box::pin(self.database.open())
    }

    fn write<'a>(&'a self, write: &'a CredentialWrite) -> SinkAnswer<'a, Contents> {
        Box::pin(async {
            let mut before = Vec::with_capacity(write.entries.len());
            for (entry, value) in write.entries.iter().zip(&write.contents) {
                before.push(self.write_one(entry, value, &write.current).await?);
            }
            Ok(before)
        })
    }

    fn read<'a>(&'a self, entries: &'a [SinkEntry]) -> SinkAnswer<'a, Option<Contents>> {
        Box::pin(async {
            let rows = self.read_rows(entries).await?;
            Ok(rows.map(|rows| rows.into_iter().map(|row| row.into_iter().next().flatten()).collect()))
        })
    }

    /// Further columns of the same row may have a time.
    fn read_with_times<'a>(&'a self, entries: &'a [SinkEntry]) -> SinkAnswer<'a, Option<Vec<StoredBytes>>> {
        Box::pin(async {
            let rows = self.read_rows(entries).await?;
            Ok(rows.map(|rows| rows.into_iter().flatten().flatten().map(StoredBytes::from).collect()))
        })
    }

    fn retract<'a>(&'a self, retract: &'a Retraction) -> SinkAnswer<'a, u64> {
        Box::pin(async {
            let Some(last) = &retract.last else { return Ok(0) };
            let mut retracted = 0;
            for (entry, value) in retract.entries.iter().zip(&retract.expected) {
                if let Some(value) = value {
                    retracted += self.retract_one(entry, value, last).await?;
                }
            }
            Ok(retracted)
        })
    }
}

/// A value as text. Refuses control characters, which a database would store.
fn text(value: &[u8]) -> Result<&str, SqlFault> {
    let text = std::str::from_utf8(value).map_err(|_| SqlFault::Value)?;
    if text.is_empty() || text.contains(char::is_control) { Err(SqlFault::Value) } else { Ok(text) }
}
