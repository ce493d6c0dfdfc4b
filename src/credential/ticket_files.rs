//! Watches the files into which the receivers of WeChat's pushes write verify tickets.
//!
//! Hands in what is whole and new; what is missing, empty, half-written or no ticket changes nothing. Never writes.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use super::table::Table;
use super::verify_ticket::{TEXT_BYTES_MAX, TicketFault, parse};
use crate::files::{self, Unread};
use crate::secret::Secret;

/// A ticket is used within seconds of its arrival.
const LOOK_EVERY: Duration = Duration::from_secs(1);
/// A file that reads the same so much later is not being written.
const SETTLE: Duration = Duration::from_millis(100);

/// One component's file.
pub struct TicketFile {
    component: String,
    path: PathBuf,
    /// What was handed in last.
    seen: Option<Secret>,
    /// What was last said about it, to say it once.
    said: Option<String>,
}

impl TicketFile {
    /// A file nothing has been read from yet.
    pub fn new(component: &str, path: &Path) -> TicketFile {
        TicketFile { component: component.to_owned(), path: path.to_owned(), seen: None, said: None }
    }
}

/// Looks until `end`.
pub async fn watch(mut files: Vec<TicketFile>, table: Arc<Table>, end: CancellationToken) {
    while !files.is_empty() {
        for file in &mut files {
            file.look(&table).await;
        }
        tokio::select! {
            () = end.cancelled() => return,
            () = tokio::time::sleep(LOOK_EVERY) => {}
        }
    }
}

impl TicketFile {
    async fn look(&mut self, table: &Table) {
        let ticket = match read(&self.component, &self.path).await {
            Ok(ticket) if self.seen.as_ref() == Some(&ticket) => return self.well(),
            Ok(ticket) => ticket,
            Err(reason) => return self.say(reason),
        };
        tokio::time::sleep(SETTLE).await;
        // Another one now: it is being written, and looked at again in a second.
        if read(&self.component, &self.path).await.as_ref() != Ok(&ticket) {
            return;
        }
        if table.hand_in_file(&self.component, ticket.expose()).is_ok() {
            self.seen = Some(ticket);
            self.well();
        }
    }

    /// A file that is not there yet is the driver's to speak of, if there is no ticket otherwise.
    fn say(&mut self, reason: Option<String>) {
        if let Some(reason) = reason.filter(|reason| self.said.as_ref() != Some(reason)) {
            let path = self.path.display();
            warn!(appid = self.component, %path, "no ticket is taken from the file: it {reason}; the last one is kept");
            self.said = Some(reason);
        }
    }

    fn well(&mut self) {
        if self.said.take().is_some() {
            info!(appid = self.component, path = %self.path.display(), "the file holds a ticket again");
        }
    }
}

/// The ticket in the file; `Err(None)` if there is no file.
async fn read(component: &str, path: &Path) -> Result<Secret, Option<String>> {
    let (component, here) = (component.to_owned(), path.to_owned());
    files::read_aside(path, move || read_now(&component, &here))
        .await
        .unwrap_or_else(|hung| Err(Some(hung.to_string())))
}

fn read_now(component: &str, path: &Path) -> Result<Secret, Option<String>> {
    let bytes = files::read(path, TEXT_BYTES_MAX).map_err(|fault| match fault {
        Unread::NotAFile => Some("is not a regular file".to_owned()),
        Unread::TooLarge => Some(TicketFault::Size.to_string()),
        Unread::Io(error) if error.kind() == std::io::ErrorKind::NotFound => None,
        Unread::Io(error) => Some(format!("cannot be read: {error}")),
    })?;
    let text = std::str::from_utf8(&bytes).map_err(|_| Some("is not text".to_owned()))?;
    parse(component, text).map_err(|fault| Some(fault.to_string()))
}
