//! Watches the files into which the receivers of WeChat's pushes write verify tickets.
//!
//! Takes each new and complete ticket. Anything else changes nothing. Never writes.

use std::path::Path;
use std::sync::Arc;

use tokio_util::sync::CancellationToken;

use super::table::Table;
use super::verify_ticket::{TEXT_BYTES_MAX, TicketFault};
use crate::files::watch::{FollowedFile, NotApplied, WatchedFiles};

/// The file of this component's tickets.
pub fn ticket_file(component: &str, path: &Path, table: &Arc<Table>) -> Box<dyn WatchedFiles> {
    let (component, table) = (component.to_owned(), table.clone());
    Box::new(FollowedFile {
        name: format!("the verify ticket of {component} in"),
        path: path.to_owned(),
        bytes_max: TEXT_BYTES_MAX,
        // WeChat pushes every ten minutes. If there is no ticket at all, the app's status says so.
        may_be_missing: true,
        end: CancellationToken::new(),
        apply: move |bytes: &[u8], _at_start| {
            let text = std::str::from_utf8(bytes).map_err(|_| NotApplied::Bad("it is not text".to_owned()))?;
            table.hand_in_verify_ticket(&component, text).map_err(|fault| match fault {
                TicketFault::Busy => NotApplied::Busy,
                fault => NotApplied::Bad(format!("it {fault}")),
            })
        },
    })
}
