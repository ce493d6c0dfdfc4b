//! `[[sink]]` tables with the `url` of a database: the statements that write a value.

use super::apps::Reader;
use super::fault::Problem;
use super::file::{Document, RawTable};
use super::sinks::{Made, Scope};

/// The keys of a table beside those that all sinks have.
pub(super) const KEYS: &[&str] = &["url"];

/// Whether a URL names a database and not a Redis.
pub(super) fn is_sql(url: &str) -> bool {
    let scheme = url.split(':').next().unwrap_or_default();
    ["mysql", "mariadb", "postgres", "postgresql", "sqlite"].contains(&scheme)
}

impl Reader<'_> {
    pub(super) fn sql_sink(&mut self, raw: &mut RawTable, _: &Document, _: Option<&Scope<'_>>) -> Option<Made> {
        let problem = Problem::new("this build cannot write to a database", "Remove the table.");
        self.faults.push(problem.at(&raw.place));
        None
    }
}
