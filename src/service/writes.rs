//! Stores, counts, touches and deletes, in the same way for all protocols. Stores and counts of managed keys do not
//! come here: [`Service::reject_managed_write`] refuses them.
//!
//! Each is one step under its shard's lock.

use tokio::sync::oneshot;

use super::meta::{exptime_of, show_count};
use super::reads::count_read;
use super::{Context, Service};
use crate::cache::{ArithmeticOutcome, LockedKey, Stored};
use crate::credential::table::KeyReading;
use crate::protocol::{Arithmetic, Command, Delete, Reply, Status, StoreCommand, StoreMode, Wire};

impl Service {
    /// Executes a command that changes the value of an ordinary key.
    #[inline]
    pub(super) fn write(&self, command: &Command<'_>, wire: &Wire<'_>, key: &[u8], context: &mut Context<'_>) -> Reply {
        match command {
            Command::Store(store) => self.store(store, wire, key, context),
            Command::Arithmetic(sum) => self.arithmetic(sum, wire, key, context),
            _ => Reply::Written,
        }
    }

    fn store(&self, store: &StoreCommand<'_>, wire: &Wire<'_>, key: &[u8], context: &mut Context<'_>) -> Reply {
        let is_packet = wire.is_binary();
        let value = store.value.filter(|value| !is_packet || self.cache.fits(key.len(), store.flags, value.len()));
        let (stored, cas) = match value {
            Some(value) => self.put(store, value, wire, key, context),
            // The data block was dropped.
            None if context.memory_short && !is_packet => (Stored::OutOfMemory, 0),
            None => (Stored::TooLarge, 0),
        };
        let is_lost = matches!(stored, Stored::TooLarge | Stored::OutOfMemory);
        if is_lost && store.drops_old && (value.is_none() || !is_packet) {
            self.cache.delete(key, self.seconds(context.now));
        }
        if value.is_some() || !is_packet {
            record_store(store.mode, stored, context);
        }
        let status = match (stored, store.mode) {
            (Stored::Stored, _) => &Status::STORED,
            (Stored::NotStored, StoreMode::Add) => &Status::NOT_ADDED,
            (Stored::NotStored, StoreMode::Replace) => &Status::NOT_REPLACED,
            (Stored::NotStored, _) => &Status::NOT_STORED,
            (Stored::Exists, _) => &Status::EXISTS,
            (Stored::NotFound, _) => &Status::NOT_FOUND,
            (Stored::TooLarge, _) => &Status::TOO_LARGE,
            (Stored::OutOfMemory, _) => &Status::NO_MEMORY_TO_STORE,
        };
        Reply::Status { status, cas: Some(cas), is_refusal: false }
    }

    /// Stores, and gives the new cas id, 0 if nothing was stored.
    fn put(
        &self,
        store: &StoreCommand<'_>,
        value: &[u8],
        wire: &Wire<'_>,
        key: &[u8],
        context: &Context<'_>,
    ) -> (Stored, u64) {
        let StoreCommand { mode, flags, .. } = *store;
        let expiry = self.expiry(store.exptime, context.now);
        let ready = self.cache.prepare(mode, key, flags, value);
        self.cache.with_key(key, self.seconds(context.now), |slot| {
            let extends = matches!(mode, StoreMode::Append | StoreMode::Prepend);
            if extends
                && store.cas.is_some_and(|cas| cas != 0)
                && cas_of(slot).is_some_and(|old| Some(old) != store.cas)
            {
                return (Stored::Exists, 0);
            }
            let stale = if store.takes_stale { stale_item(slot, mode) } else { None };
            let (mode, expiry) = match stale {
                Some((expiry, _)) => (StoreMode::Set, expiry),
                None => (mode, expiry),
            };
            let stored = slot.store_prepared(mode, flags, expiry, value, ready, wire.new_cas());
            if stored != Stored::Stored {
                return (stored, 0);
            }
            if let Some((_, sent)) = stale {
                slot.set_stale(true);
                slot.set_token_sent(sent);
            }
            if let Wire::Meta(meta) = wire {
                slot.set_encoded_key(meta.has_encoded_key() && !extends);
            }
            (stored, shown_cas(slot, wire))
        })
    }

    fn arithmetic(&self, sum: &Arithmetic, wire: &Wire<'_>, key: &[u8], context: &mut Context<'_>) -> Reply {
        let (now, stats) = (self.seconds(context.now), context.stats);
        let (hits, misses) =
            if sum.increase { (&stats.incr_hits, &stats.incr_misses) } else { (&stats.decr_hits, &stats.decr_misses) };
        let expiry = |exptime| self.expiry(exptime, context.now);
        let create = sum.create.map(|(initial, exptime)| (initial, expiry(exptime)));
        let out = &mut *context.out;
        self.cache.with_key(key, now, |slot| {
            // memcached looks at the length first, then at the cas, then at the number.
            if sum.cas.is_some() && slot.view().is_some_and(|item| !item.value.is_empty() && Some(item.cas) != sum.cas)
            {
                return (&Status::EXISTS).into();
            }
            let (value, created) = match (slot.arithmetic(sum.delta, sum.increase, wire.new_cas()), create) {
                (ArithmeticOutcome::Value(value), _) => {
                    hits.add(1);
                    (value, false)
                }
                (ArithmeticOutcome::NotFound, None) => {
                    misses.add(1);
                    return (&Status::NOT_FOUND).into();
                }
                (ArithmeticOutcome::NotFound, Some((initial, expiry))) => {
                    if !slot.create(expiry, itoa::Buffer::new().format(initial).as_bytes(), wire.new_cas()) {
                        return (&Status::NO_MEMORY_TO_CREATE).into();
                    }
                    (initial, true)
                }
                (ArithmeticOutcome::NonNumeric, _) => return (&Status::NON_NUMERIC).into(),
                // Only under -M, or when a longer number no longer fits the largest item.
                (ArithmeticOutcome::OutOfMemory | ArithmeticOutcome::TooLarge, _) => {
                    return match wire {
                        Wire::Meta(_) => Reply::Line("SERVER_ERROR out of memory"),
                        _ => (&Status::NO_MEMORY_TO_COUNT).into(),
                    };
                }
            };
            let Wire::Meta(meta) = wire else { return Reply::Number { value, cas: shown_cas(slot, wire) } };
            let start = out.len();
            show_count(out, meta, key, value, slot, now, |flag, word| match flag {
                b'N' if !created => None,
                _ => exptime_of(word).map(expiry),
            });
            // memcached skips the answer to a count only.
            if wire.is_quiet() && !created {
                out.truncate(start);
            }
            Reply::Written
        })
    }

    /// Deletes, or makes stale. The answer about a managed key is due when the channel says so.
    pub(super) fn delete(
        &self,
        delete: &Delete,
        wire: &Wire<'_>,
        key: &[u8],
        context: &mut Context<'_>,
    ) -> (Reply, Option<oneshot::Receiver<()>>) {
        if let Some((reply, verification)) = self.report_managed_value(key, delete.cas, wire, context) {
            return (reply, verification.filter(|_| !wire.is_quiet()));
        }
        let stats = context.stats;
        let touch = delete.touch.map(|exptime| self.expiry(exptime, context.now));
        let status = self.cache.with_key(key, self.seconds(context.now), |slot| {
            if delete.cas.is_some() && cas_of(slot).is_some_and(|cas| delete.cas != Some(cas)) {
                if !wire.is_binary() {
                    stats.delete_misses.add(1);
                }
                return &Status::EXISTS;
            }
            if delete.invalidate && slot.view().is_some() {
                if let Some(expiry) = touch {
                    slot.set_expiry(expiry);
                }
                slot.set_stale(true);
                // So that the next reader is told to recache it.
                slot.set_token_sent(false);
                slot.set_cas(wire.new_cas());
                return &Status::DELETED;
            }
            if slot.delete() {
                stats.delete_hits.add(1);
                &Status::DELETED
            } else {
                stats.delete_misses.add(1);
                &Status::NOT_FOUND
            }
        });
        (status.into(), None)
    }

    /// Packets are shown the flags and the cas id, as memcached does. Nothing changes on a managed key.
    pub(super) fn touch(&self, exptime: i64, wire: &Wire<'_>, key: &[u8], context: &mut Context<'_>) -> Reply {
        let now = context.now;
        let managed = context.names.find(key).map(|name| match wire {
            Wire::Binary(_) => name.read(now, |found| match found {
                KeyReading::Bytes(value) => (value.flags, value.cas),
                KeyReading::Nothing | KeyReading::FirstFetch | KeyReading::Absent => (0, 0),
            }),
            _ => (0, 0),
        });
        let touched = managed.or_else(|| {
            self.cache.with_key(key, self.seconds(now), |slot| {
                slot.touch(self.expiry(exptime, now)).then(|| slot.view().map_or((0, 0), |item| (item.flags, item.cas)))
            })
        });
        count_read(true, touched.is_some(), context.stats);
        match touched {
            Some((flags, cas)) => Reply::Touched { flags, cas },
            None => (&Status::NOT_FOUND).into(),
        }
    }
}

fn cas_of(slot: &LockedKey<'_>) -> Option<u64> {
    slot.view().map(|item| item.cas)
}

/// The cas id for an answer; text has none.
#[inline]
fn shown_cas(slot: &LockedKey<'_>, wire: &Wire<'_>) -> u64 {
    if let Wire::Text { .. } = wire { 0 } else { cas_of(slot).unwrap_or(0) }
}

/// A value with an older cas id becomes as stale as the item that it replaces: it takes this expiry and token mark from
/// it.
fn stale_item(slot: &LockedKey<'_>, mode: StoreMode) -> Option<(u32, bool)> {
    let StoreMode::Cas(seen) = mode else { return None };
    slot.view().filter(|item| seen != 0 && seen < item.cas).map(|item| (item.exptime, item.token_sent))
}

/// Counts the outcome of a store.
fn record_store(mode: StoreMode, stored: Stored, context: &Context<'_>) {
    let (stats, cas) = (context.stats, matches!(mode, StoreMode::Cas(_)));
    if !matches!(stored, Stored::TooLarge | Stored::OutOfMemory) {
        stats.cmd_set.add(1);
    }
    match stored {
        Stored::Stored if cas => stats.cas_hits.add(1),
        // `ms` may find another cas when it appends; memcached does not count that.
        Stored::Exists if cas => stats.cas_badval.add(1),
        Stored::NotFound => stats.cas_misses.add(1),
        Stored::TooLarge => stats.store_too_large.add(1),
        Stored::OutOfMemory => stats.store_no_memory.add(1),
        Stored::Stored | Stored::NotStored | Stored::Exists => {}
    }
}
