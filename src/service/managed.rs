//! Managed keys: what each command means on them (the table of `docs/en/managed-keys.md`). A write is refused here:
//! [`Service::reject_managed_write`].
//!
//! A read waits only for a credential's very first fetch, a delete only while the value is verified. Never changes a
//! value: only the refresher does.

use std::sync::atomic::Ordering::Relaxed;

use tokio::sync::oneshot;

use super::meta::ItemInfo;
use super::{Context, FirstFetchWait, Service};
use crate::clock::Now;
use crate::credential::table::{Credential, KeyReading, ManagedKey, ManagedValue, OrdinaryItems, log_credential};
use crate::protocol::{Command, Meta, Reply, Status, StoreCommand, Wire};
use crate::service::RefuseWith;

/// A refused write is logged at most so often per credential, milliseconds.
const REFUSAL_LOG_SPACING_MS: u64 = 60_000;

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

impl Service {
    /// Reads a managed key; `show` appends what is there. Never an error line: pecl memcache would take the whole server
    /// for broken.
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

    /// Refuses a command that would change a managed key's value, and counts it. A touch changes nothing, and a delete is a
    /// report. The data block is empty if it was too large to be kept.
    #[inline]
    pub(super) fn reject_managed_write(
        &self,
        command: &Command<'_>,
        key: &[u8],
        context: &Context<'_>,
    ) -> Option<Reply> {
        match command {
            Command::Store(store) => {
                let name = context.names.find(key)?;
                let value = store.value.unwrap_or_default();
                let foreign = name.holds_value() && is_foreign_value(&name.credential, value);
                if foreign {
                    self.table.report_foreign_writer(&name.credential);
                }
                self.record_refusal(&name.credential, name.redacted_name(key), foreign, context);
                Some(self.store_refusal(store, &Status::MANAGED_KEY, Some(0)))
            }
            Command::Arithmetic(_) => context.names.is_managed(key).then(|| Reply::refusal(&Status::NOT_COUNTED, None)),
            _ => None,
        }
    }

    /// The answer to a refused store, whatever the reason; `error` is for `refuse_with = "client_error"`.
    pub(super) fn store_refusal(&self, store: &StoreCommand<'_>, error: &'static Status, cas: Option<u64>) -> Reply {
        let status = match self.settings.refuse_with {
            RefuseWith::ClientError => error,
            RefuseWith::NotStored if store.cas.is_some() => &Status::EXISTS,
            RefuseWith::NotStored => &Status::NOT_STORED,
        };
        Reply::refusal(status, cas)
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

    /// A `delete` of a managed key is a client's report that the value is refused; `None` if the key is not managed. The
    /// value is still served while the refresher verifies it; whoever waits for that is told by the channel. With a cas id
    /// the report is about that value only: if there is another one by now there is nothing to verify. On a key without
    /// the value, such as one with its expiry, it means nothing.
    pub(super) fn report_managed_value(
        &self,
        key: &[u8],
        cas: Option<u64>,
        wire: &Wire<'_>,
        context: &Context<'_>,
    ) -> Option<(Reply, Option<oneshot::Receiver<()>>)> {
        let name = context.names.find(key)?;
        let current = name.generation();
        if cas.is_some() && cas != current {
            context.stats.delete_misses.add(1);
            return Some((Reply::Status { status: &Status::EXISTS, cas: None, is_refusal: wire.is_binary() }, None));
        }
        context.stats.delete_hits.add(1);
        let verification = if name.holds_value() { self.table.report_refused(&name.credential, current) } else { None };
        Some(((&Status::DELETED).into(), verification))
    }

    /// Answers a `mg` of a managed key. Whatever asks for a change, or
    /// tells about recaching, means nothing here: the refresher recaches.
    pub(super) fn meta_get_managed(&self, meta: &Meta<'_>, key: &[u8], context: &mut Context<'_>) -> ManagedRead {
        self.read_managed(key, context, |out, value| {
            facts(value, meta.has_encoded_key()).write(out, meta, key, |_, _, _| true);
            out.extend_from_slice(b"\r\n");
            if meta.has(b'v') {
                value.rendered.write(out, &value.times);
                out.extend_from_slice(b"\r\n");
            }
        })
    }

    /// Answers a `me` of a managed key: what is known about the value, and never the value. False if there is none.
    pub(super) fn meta_debug_managed(
        &self,
        name: &ManagedKey,
        meta: &Meta<'_>,
        key: &[u8],
        context: &mut Context<'_>,
    ) -> bool {
        name.read(context.now, |found| match found {
            KeyReading::Bytes(value) => {
                let facts = facts(&value, meta.has_encoded_key());
                // It is in none of memcached's slab classes.
                facts.debug(context.out, key, 0, facts.length);
                true
            }
            KeyReading::Nothing | KeyReading::FirstFetch | KeyReading::Absent => false,
        })
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
