//! Watches the files into which the receivers of WeChat's pushes write verify tickets.
//!
//! Takes each new and complete ticket. Anything else changes nothing. Never writes.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::table::Table;
use super::verify_ticket::{TEXT_BYTES_MAX, TicketFault};
use crate::files::watch::{FileContent, NotApplied, WatchedFiles};

pub struct TicketFile {
    component: String,
    path: PathBuf,
    table: Arc<Table>,
}

impl TicketFile {
    pub fn new(component: &str, path: &Path, table: &Arc<Table>) -> TicketFile {
        TicketFile { component: component.to_owned(), path: path.to_owned(), table: table.clone() }
    }
}

impl WatchedFiles for TicketFile {
    fn name(&self) -> String {
        format!("the verify ticket of {} in", self.component)
    }

    fn paths(&self) -> Vec<PathBuf> {
        vec![self.path.clone()]
    }

    fn bytes_max(&self) -> usize {
        TEXT_BYTES_MAX
    }

    fn apply(&mut self, contents: &[FileContent], _at_start: bool) -> Result<(), NotApplied> {
        let bytes = contents.first().map(|content| content.as_slice()).unwrap_or_default();
        let text = std::str::from_utf8(bytes).map_err(|_| NotApplied::Bad("it is not text".to_owned()))?;
        self.table.hand_in_file(&self.component, text).map_err(|fault| match fault {
            TicketFault::Busy => NotApplied::Busy,
            fault => NotApplied::Bad(format!("it {fault}")),
        })
    }

    /// WeChat pushes every ten minutes. If there is no ticket at all, the app's status says so.
    fn may_be_missing(&self) -> bool {
        true
    }
}
