//! What a client with limited rights may do. What it may not see is not there for it: a get misses, a delete finds
//! nothing, and a store is refused in the words of every other refusal, so that no client takes the server for broken.
//!
//! Never asked about a client that may do everything: that is one comparison in [`Service::execute`].

use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;

use super::{Context, Service};
use crate::access::Rights;
use crate::credential::table::Credential;
use crate::protocol::{Command, Reply, Status};

/// A request without the rights for it is logged at most this often, milliseconds.
const LOG_SPACING_MS: u64 = 60_000;

impl Service {
    /// Whether this key is there for a client with these rights.
    pub(super) fn is_visible(&self, key: &[u8], context: &Context<'_>) -> bool {
        let rights = context.rights;
        rights.is_all()
            || context.names.find(key).map_or_else(|| rights.ordinary(), |name| rights.app(name.credential.app()))
    }

    /// The credentials that a client with these rights may see.
    pub(super) fn visible_credentials(&self, rights: &Rights) -> Vec<Arc<Credential>> {
        self.table.credentials_that(|credential| rights.app(credential.app()))
    }

    /// The answer to a command that this client may not have carried out. The keys of a list, and the one of
    /// a packet that reads, are judged when they are looked up.
    pub(super) fn authorize(&self, command: &Command<'_>, key: &[u8], context: &Context<'_>) -> Result<(), Reply> {
        let rights = context.rights;
        let may = match *command {
            // A touch in passing is a change; without the right to it there is nothing to see.
            Command::GetMany { touch, .. } | Command::Get { touch } => touch.is_none() || !rights.read_only(),
            Command::MetaGet { may_change } => self.is_visible(key, context) && !(may_change && rights.read_only()),
            Command::Debug => self.is_visible(key, context),
            Command::Store(_) | Command::Arithmetic(_) | Command::Delete(_) | Command::Touch { .. } => {
                !rights.read_only() && self.is_visible(key, context)
            }
            Command::Flush { .. } => rights.ordinary() && !rights.read_only(),
            // To reset them changes them for all, and who else is connected is private.
            Command::Stats { argument, .. } => !matches!(argument, b"reset" | b"conns"),
            // What concerns everybody is for those who may do everything.
            Command::CacheMemlimit { .. }
            | Command::Verbosity { .. }
            | Command::RefreshCertificates
            | Command::Shutdown { .. } => false,
            Command::Mechanisms | Command::Login { .. } | Command::Reply(_) | Command::Close(_) => true,
        };
        if may {
            return Ok(());
        }
        Err(match command {
            Command::GetMany { .. } | Command::Get { .. } | Command::MetaGet { .. } | Command::Debug => {
                (&Status::MISS).into()
            }
            Command::Store(store) => self.store_refusal(store, &Status::STORE_DENIED, None),
            Command::Arithmetic(_) | Command::Delete(_) | Command::Touch { .. } => (&Status::NOT_FOUND).into(),
            _ => (&Status::DENIED).into(),
        })
    }

    /// The key is not logged: a client without rights to it may have sent anything.
    pub(super) fn record_denial(&self, context: &Context<'_>) {
        let denied = self.stats.access_denied.fetch_add(1, Relaxed) + 1;
        if self.denial_log.allow(context.now.boot_ms, LOG_SPACING_MS) {
            tracing::warn!(
                peer = %context.peer,
                denied,
                "permission denied: the client has no right to this; see rights in the configuration"
            );
        }
    }
}
