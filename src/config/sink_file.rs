//! `[[sink]]` tables with `file`: which files, and what stands in them.

use super::apps::Reader;
use super::fault::Problem;
use super::file::{Document, RawTable};
use super::sinks::{Made, Scope};

/// The keys of a table beside those that all sinks have.
pub(super) const KEYS: &[&str] = &["file"];

impl Reader<'_> {
    pub(super) fn file_sink(&mut self, raw: &mut RawTable, _: &Document, _: Option<&Scope<'_>>) -> Option<Made> {
        let problem = Problem::new("this build cannot write to a file", "Remove the table.");
        self.faults.push(problem.at(&raw.place));
        None
    }
}
