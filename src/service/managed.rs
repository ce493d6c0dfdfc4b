//! Managed keys: what each command means on them (the table of `docs/en/managed-keys.md`). A write is refused here:
//! [`Service::reject_managed_write`].
//!
//! A read waits only for a credential's very first fetch, a delete only while the value is verified. Never changes a
//! value: only the refresher does.

use std::sync::atomic::Ordering::Relaxed;

use tokio::sync::oneshot;

use super::meta::{ItemInfo, answer};
use super::{CommandOutcome, Context, FirstFetchWait, Service};
use crate::clock::Now;
use crate::credential::table::{
    Credential, KeyReading, ManagedKey, ManagedValue, Names, OrdinaryItems, log_credential,
};
use crate::protocol::{Meta, MetaKey, StoreMode, response};
use crate::service::RefuseWith;

/// A refused write is logged at most so often per credential, milliseconds.
const REFUSAL_LOG_SPACING_MS: u64 = 60_000;
/// For those who want the text.
const REFUSAL: &str = "CLIENT_ERROR managed key";

/// What comes of reading a key, as far as managed keys go.
pub(super) enum ManagedRead {
    /// The key is not managed.
    Ordinary,
    /// The value was appended.
    Hit,
    Miss,
    /// Nothing was counted or appended: the very first fetch is under way.
    Wait(FirstFetchWait),
}

/// What comes of a client's report that a value is refused.
pub(super) enum ReportOutcome {
    /// It is about another value than the present one.
    Superseded,
    /// The value is being verified, if there is one; the channel fires when that is over.
    Verifying(Option<oneshot::Receiver<()>>),
}

impl Service {
    /// Answers a `get` of a managed key. Never an error line: pecl memcache would take the whole server for broken.
    pub(super) fn get_managed(&self, key: &[u8], with_cas: bool, context: &mut Context<'_>) -> ManagedRead {
        self.read_managed(key, context, |out, value| {
            let length = value.rendered.len(&value.times);
            response::value_head(out, key, value.flags, length, with_cas.then_some(value.cas));
            value.rendered.write(out, &value.times);
            out.extend_from_slice(b"\r\n");
        })
    }

    /// The same, written by `show`, which appends what is there.
    pub(super) fn read_managed(
        &self,
        key: &[u8],
        context: &mut Context<'_>,
        show: impl FnOnce(&mut Vec<u8>, &ManagedValue<'_>),
    ) -> ManagedRead {
        let Some(name) = context.names.find(key) else { return ManagedRead::Ordinary };
        let Context { out, stats, now, may_wait, .. } = context;
        name.read(*now, |found| match found {
            KeyReading::Bytes(value) => {
                show(out, &value);
                stats.managed_hits.add(1);
                ManagedRead::Hit
            }
            // A key that is kept empty is not one that lacks a token.
            KeyReading::Nothing => ManagedRead::Miss,
            KeyReading::FirstFetch if *may_wait => ManagedRead::Wait(first_fetch(name, *now)),
            KeyReading::FirstFetch | KeyReading::Absent => {
                stats.managed_misses.add(1);
                ManagedRead::Miss
            }
        })
    }

    /// Rejects a write to a managed key, with the answer for it; `None` if the key is not managed.
    /// `value` is the data block; empty if it was too large to be kept.
    pub(super) fn text_reject_write(
        &self,
        mode: StoreMode,
        key: &[u8],
        value: &[u8],
        context: &Context<'_>,
    ) -> Option<&'static str> {
        self.reject_managed_write(key, value, context).then_some(self.refusal(mode, REFUSAL))
    }

    /// The answer to a refused store, whatever the reason; `error_text` is sent with `refuse_with = "client_error"`.
    pub(super) fn refusal(&self, mode: StoreMode, error_text: &'static str) -> &'static str {
        match (self.settings.refuse_with, mode) {
            (RefuseWith::ClientError, _) => error_text,
            (RefuseWith::NotStored, StoreMode::Cas(_)) => "EXISTS",
            (RefuseWith::NotStored, _) => "NOT_STORED",
        }
    }

    /// Rejects and counts a write if the key is managed; false if it is an ordinary key.
    pub(super) fn reject_managed_write(&self, key: &[u8], value: &[u8], context: &Context<'_>) -> bool {
        let Some(name) = context.names.find(key) else { return false };
        let foreign = name.holds_value() && is_foreign_value(&name.credential, value);
        if foreign {
            self.table.report_foreign_writer(&name.credential);
        }
        self.record_refusal(&name.credential, name.redacted_name(key), foreign, context);
        true
    }

    /// `key` is as it may be shown.
    fn record_refusal(&self, credential: &Credential, key: &[u8], foreign: bool, context: &Context<'_>) {
        let refused = credential.refused_writes.fetch_add(1, Relaxed) + 1;
        self.stats.refused_writes.fetch_add(1, Relaxed);
        credential.record_refused_write(&self.table.journal, context.peer, foreign, context.now);
        if credential.refusal_log.allow(context.now.boot_ms, REFUSAL_LOG_SPACING_MS) {
            log_credential!(
                warn,
                credential,
                key = %key.escape_ascii(),
                peer = %context.peer,
                refused,
                rival = foreign,
                "refused a client's write to a managed key: that host still fetches tokens by itself; \
                 make it only read, or its fetches may kill this server's token"
            );
        }
    }

    /// `delete` on a managed key is a client's report that the value is refused. The value is still served while the
    /// refresher verifies it; the answer waits for that. On a key without the value, such as one with its expiry, it means nothing.
    pub(super) fn delete_managed(
        &self,
        key: &[u8],
        noreply: bool,
        context: &mut Context<'_>,
    ) -> Option<CommandOutcome> {
        // Without a cas id no other value can be meant.
        let ReportOutcome::Verifying(verification) = self.report_managed_value(key, None, context.names)? else {
            return Some(CommandOutcome::Done);
        };
        context.stats.delete_hits.add(1);
        Some(match verification {
            Some(verification) if !noreply => {
                CommandOutcome::ReplyAfterVerification(verification, b"DELETED\r\n".to_vec())
            }
            _ => {
                response::reply(context.out, "DELETED", noreply);
                CommandOutcome::Done
            }
        })
    }

    /// Reports this key's value as refused; `None` if the key is not managed. With a cas id the report is about that value
    /// only.
    pub(super) fn report_managed_value(
        &self,
        key: &[u8],
        expected: Option<u64>,
        names: &Names,
    ) -> Option<ReportOutcome> {
        let name = names.find(key)?;
        let current = name.generation();
        if expected.is_some() && expected != current {
            return Some(ReportOutcome::Superseded);
        }
        let verification = if name.holds_value() { self.table.report_refused(&name.credential, current) } else { None };
        Some(ReportOutcome::Verifying(verification))
    }

    /// Answers a `mg` of a managed key, as [`Service::get_managed`] does a `get`. Whatever asks for a change, or
    /// tells about recaching, means nothing here: the refresher recaches.
    pub(super) fn meta_get_managed(&self, meta: &Meta<'_>, key: &[u8], context: &mut Context<'_>) -> ManagedRead {
        self.read_managed(key, context, |out, value| {
            let facts = facts(value, meta.key.is_encoded());
            ItemInfo::head(out, meta.has(b'v'), facts.length);
            for (flag, word) in meta.flags() {
                facts.show(out, flag, word, key);
            }
            out.extend_from_slice(b"\r\n");
            if meta.has(b'v') {
                value.rendered.write(out, &value.times);
                out.extend_from_slice(b"\r\n");
            }
        })
    }

    /// Answers a `me` of a managed key: what is known about the value, and never the value.
    pub(super) fn meta_debug_managed(&self, key: MetaKey<'_>, text: &[u8], context: &mut Context<'_>) -> Option<bool> {
        let (name, out) = (context.names.find(text)?, &mut *context.out);
        let shown = name.read(context.now, |found| match found {
            KeyReading::Bytes(value) => {
                let facts = facts(&value, key.is_encoded());
                // It is in none of memcached's slab classes.
                facts.debug(out, text, 0, facts.length);
                true
            }
            KeyReading::Nothing | KeyReading::FirstFetch | KeyReading::Absent => false,
        });
        Some(shown)
    }

    /// Refuses a `ms` of a managed key, and answers it unless it is a quiet one. False if the key is not managed.
    pub(super) fn meta_reject_write(
        &self,
        meta: &Meta<'_>,
        key: &[u8],
        value: &[u8],
        context: &mut Context<'_>,
    ) -> bool {
        if !self.reject_managed_write(key, value, context) {
            return false;
        }
        match self.settings.refuse_with {
            _ if meta.has(b'q') => {}
            RefuseWith::ClientError => response::line(context.out, REFUSAL),
            RefuseWith::NotStored => {
                let code = if meta.has(b'C') { b"EX" } else { b"NS" };
                answer(context.out, code, meta, key, Some(0));
            }
        }
        true
    }

    /// `md` on a managed key: as [`Service::delete_managed`]. With a cas it is about that value only: if the
    /// refresher has another one by now there is nothing to verify.
    pub(super) fn meta_delete_managed(
        &self,
        meta: &Meta<'_>,
        key: &[u8],
        context: &mut Context<'_>,
    ) -> Option<CommandOutcome> {
        let ReportOutcome::Verifying(verification) =
            self.report_managed_value(key, meta.unsigned(b'C'), context.names)?
        else {
            context.stats.delete_misses.add(1);
            answer(context.out, b"EX", meta, key, None);
            return Some(CommandOutcome::Done);
        };
        context.stats.delete_hits.add(1);
        if meta.has(b'q') {
            return Some(CommandOutcome::Done);
        }
        let Some(verification) = verification else {
            answer(context.out, b"HD", meta, key, None);
            return Some(CommandOutcome::Done);
        };
        let mut reply = Vec::new();
        answer(&mut reply, b"HD", meta, key, None);
        Some(CommandOutcome::ReplyAfterVerification(verification, reply))
    }
}

/// How many items one piece of a walk through the cache looks at.
const PIECE_ITEMS: u32 = 1000;

impl OrdinaryItems for Service {
    fn forget(&self, key: &[u8]) {
        self.cache.delete(key, self.seconds(Now::read()));
    }

    fn forget_some(&self, cursor: u64, is_meant: &dyn Fn(&[u8]) -> bool) -> Option<u64> {
        let mut meant: Vec<Vec<u8>> = Vec::new();
        let now = self.seconds(Now::read());
        let next = self.cache.scan(cursor, PIECE_ITEMS, now, |item| {
            if is_meant(item.key) {
                meant.push(item.key.to_vec());
            }
        });
        meant.iter().for_each(|key| self.forget(key));
        next
    }
}

/// What to wait for while the very first fetch is under way.
fn first_fetch(name: &ManagedKey, now: Now) -> FirstFetchWait {
    FirstFetchWait(name.credential.wait_while(|| name.read(now, |found| matches!(found, KeyReading::FirstFetch))))
}

/// A managed value counts as just read: the refresher keeps it current.
fn facts(value: &ManagedValue<'_>, encoded_key: bool) -> ItemInfo {
    let ManagedValue { rendered, times, flags, cas } = value;
    let length = rendered.len(times);
    ItemInfo { length, flags: *flags, cas: *cas, left: times.left_s(), idle: 0, fetched: true, encoded_key }
}

/// True if a client brings another value than ours, in whatever encoding: it has fetched one by itself.
fn is_foreign_value(credential: &Credential, value: &[u8]) -> bool {
    // What is shorter is no token.
    const TOKEN_BYTES_MIN: usize = 16;
    let ours = credential.published();
    value.len() >= TOKEN_BYTES_MIN && ours.is_some_and(|ours| memchr::memmem::find(value, &ours.value).is_none())
}
