//! What a client with limited rights may do. What it may not see is not there for it: a get misses, a delete finds
//! nothing, and a store is refused in the words of every other refusal, so that no client takes the server for broken.
//!
//! Never asked about a client that may do everything: that is one comparison in [`Service::execute`].

use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;

use super::meta::answer;
use super::{CommandOutcome, Context, Service};
use crate::access::Rights;
use crate::credential::table::Credential;
use crate::protocol::base64::DECODED_BYTES_MAX;
use crate::protocol::{Request, response};
use crate::service::RefuseWith;

/// A request without the rights for it is logged at most this often, milliseconds.
const LOG_SPACING_MS: u64 = 60_000;
const DENIED: &str = "CLIENT_ERROR permission denied";
const NOT_FOUND: &str = "NOT_FOUND";

/// Whether a client with these rights may read these statistics, in either protocol. To reset them changes them for all,
/// and who else is connected is private.
pub(super) fn may_read_statistics(argument: &[u8], rights: &Rights) -> bool {
    rights.is_all() || !matches!(argument, b"reset" | b"conns")
}

impl Service {
    /// Whether this key is there for a client with these rights.
    pub(super) fn is_visible(&self, key: &[u8], context: &Context<'_>) -> bool {
        let rights = context.rights;
        rights.is_all()
            || context.names.find(key).map_or_else(|| rights.ordinary(), |name| rights.app(name.credential.app()))
    }

    /// The credentials that a client with these rights may see.
    pub(super) fn visible_credentials<'a>(
        &'a self,
        rights: &'a Rights,
    ) -> impl Iterator<Item = Arc<Credential>> + use<'a> {
        self.table.credentials().into_iter().filter(|credential| rights.app(credential.app()))
    }

    /// Rejects a request that the client has no right to, with the answer for it; `None` to execute it. A `get` is
    /// judged key by key.
    pub(super) fn reject_without_rights(
        &self,
        request: &Request<'_>,
        context: &mut Context<'_>,
    ) -> Option<CommandOutcome> {
        let rights = context.rights;
        let (answer, noreply) = match *request {
            Request::Get { touch_exptime, .. } => {
                // A touch in passing is a change; without the right to it there is nothing to see.
                if touch_exptime.is_none() || !rights.read_only() {
                    return None;
                }
                ("END", false)
            }
            Request::Store { mode, key, noreply, .. } | Request::TooLarge { mode, key, noreply } => {
                if self.may_change(key, context) {
                    return None;
                }
                (self.refusal(mode, DENIED), noreply)
            }
            Request::Arithmetic { key, noreply, .. }
            | Request::Delete { key, noreply }
            | Request::Touch { key, noreply, .. } => {
                if self.may_change(key, context) {
                    return None;
                }
                (NOT_FOUND, noreply)
            }
            Request::FlushAll { noreply, .. } => {
                if rights.ordinary() && !rights.read_only() {
                    return None;
                }
                (DENIED, noreply)
            }
            Request::MetaGet(_)
            | Request::MetaStore { .. }
            | Request::MetaDelete(_)
            | Request::MetaArithmetic { .. }
            | Request::MetaDebug(_) => return self.meta_reject_without_rights(request, context),
            // What concerns everybody is for those who may do everything.
            Request::CacheMemlimit { noreply, .. } | Request::Verbosity { noreply, .. } => (DENIED, noreply),
            Request::RefreshCertificates | Request::Shutdown { .. } => (DENIED, false),
            Request::Stats { argument, .. } => {
                if may_read_statistics(argument, rights) {
                    return None;
                }
                (DENIED, false)
            }
            Request::Maintenance { .. }
            | Request::Version
            | Request::NoOperation
            | Request::Quit
            | Request::Invalid { .. } => return None,
        };
        self.record_denial(context);
        response::reply(context.out, answer, noreply);
        Some(CommandOutcome::Done)
    }

    /// The same for meta commands, whose answers carry flags. A key in base64 is judged by what it means.
    fn meta_reject_without_rights(&self, request: &Request<'_>, context: &mut Context<'_>) -> Option<CommandOutcome> {
        let mut room = [0; DECODED_BYTES_MAX];
        let (meta, code): (_, &[u8]) = match request {
            Request::MetaGet(meta) => (meta, b"EN"),
            Request::MetaStore { meta, .. } => (meta, if meta.has(b'C') { b"EX" } else { b"NS" }),
            Request::MetaDelete(meta) | Request::MetaArithmetic { meta, .. } => (meta, b"NF"),
            Request::MetaDebug(key) => {
                if self.is_visible(key.bytes(&mut room), context) {
                    return None;
                }
                self.record_denial(context);
                response::line(context.out, "EN");
                return Some(CommandOutcome::Done);
            }
            _ => return None,
        };
        let key = meta.key.bytes(&mut room);
        // Flags of `mg` that change the item, or whose turn it is.
        let reads = matches!(request, Request::MetaGet(_)) && !b"TNRE".iter().any(|&flag| meta.has(flag));
        let may = if reads { self.is_visible(key, context) } else { self.may_change(key, context) };
        if may {
            return None;
        }
        self.record_denial(context);
        let stores = matches!(request, Request::MetaStore { .. });
        if meta.has(b'q') && code != b"NF" {
            // As quiet as the refusal of a managed key.
        } else if stores && self.settings.refuse_with == RefuseWith::ClientError {
            response::line(context.out, DENIED);
        } else {
            answer(context.out, code, meta, key, None);
        }
        Some(CommandOutcome::Done)
    }

    pub(super) fn may_change(&self, key: &[u8], context: &Context<'_>) -> bool {
        !context.rights.read_only() && self.is_visible(key, context)
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
