//! A key's place in its shard, under the lock: the verbs of memcached over what is or is not there.

use std::sync::atomic::{AtomicU64, Ordering};

use crate::protocol::number;

use super::{
    ArithmeticOutcome, ItemSource, ItemView, Mode, PreparedItem, Seconds, Stored,
    arena::DataInput,
    class::item_size,
    shard::{EntryMeta, RemovalReason, Shard},
    slab::{self, ENCODED_KEY, FETCHED, HAS_FLAGS, ItemEntry, STALE, TOKEN_SENT},
};

/// A key's place, locked. Made by [`super::Cache::with_key`].
pub struct LockedKey<'a> {
    shard: &'a mut Shard,
    cas_ids: &'a AtomicU64,
    item_size_max: usize,
    key: &'a [u8],
    hash: u32,
    /// The entry, live and not expired.
    index: Option<u32>,
    /// The key was there and has expired.
    found_expired: bool,
}

impl<'a> LockedKey<'a> {
    #[inline]
    pub(super) fn new(
        shard: &'a mut Shard,
        cas_ids: &'a AtomicU64,
        item_size_max: usize,
        key: &'a [u8],
        hash: u32,
        now: Seconds,
    ) -> LockedKey<'a> {
        shard.begin(now);
        let mut index = shard.find(hash, key);
        let mut found_expired = false;
        if let Some(found) = index
            && shard.slab.get(found).is_expired(now)
        {
            shard.remove(found, RemovalReason::ExpiredRead);
            index = None;
            found_expired = true;
        }
        LockedKey { shard, cas_ids, item_size_max, key, hash, index, found_expired }
    }

    /// What is there; leaves no trace.
    #[inline(always)]
    pub fn view(&self) -> Option<ItemView<'_>> {
        let index = self.index?;
        Some(view_of(self.shard, self.shard.slab.get(index)))
    }

    /// A client's read: marks the item as used and counts the hit. The view shows `fetched` and `last_access`
    /// as they were before.
    #[inline(always)]
    pub fn fetch(&mut self) -> Option<ItemView<'_>> {
        let Some(index) = self.index else {
            self.shard.counters.get_expired += u64::from(self.found_expired);
            return None;
        };
        self.shard.stats_of(index).get_hits += 1;
        let entry = self.shard.slab.get(index);
        let (last_access, fetched) = (entry.last_access, entry.has(FETCHED));
        self.shard.mark_used(index, true);
        Some(ItemView { last_access, fetched, ..view_of(self.shard, self.shard.slab.get(index)) })
    }

    /// Sets the expiry and counts a touch; the cas id stays.
    pub fn touch(&mut self, expiry: Seconds) -> bool {
        let Some(index) = self.index else { return false };
        self.shard.set_expiry(index, expiry);
        self.shard.stats_of(index).touch_hits += 1;
        // To memcached a touch is a read.
        self.shard.mark_used(index, true);
        true
    }

    /// Sets the expiry and nothing else; for the meta commands.
    pub fn set_expiry(&mut self, expiry: Seconds) {
        if let Some(index) = self.index {
            self.shard.set_expiry(index, expiry);
        }
    }

    pub fn set_stale(&mut self, stale: bool) {
        self.put(STALE, stale);
    }

    pub fn set_token_sent(&mut self, sent: bool) {
        self.put(TOKEN_SENT, sent);
    }

    /// Marks the key as one that came in base64.
    pub fn set_encoded_key(&mut self, encoded: bool) {
        self.put(ENCODED_KEY, encoded);
    }

    /// Puts an item where there is none, as a by-product of another command: no store is counted. False: no memory.
    pub fn create(&mut self, expiry: Seconds, value: &[u8], cas: Option<u64>) -> bool {
        self.put_item(value, 0, expiry, PreparedItem::FILL_UNDER_LOCK, cas) == Stored::Stored
    }

    /// Gives the item this cas id, or a new one.
    pub fn set_cas(&mut self, cas: Option<u64>) {
        if let Some(index) = self.index {
            let cas = cas.unwrap_or_else(|| self.next_cas());
            self.shard.slab.get_mut(index).cas = cas;
        }
    }

    /// Stores as [`super::Cache::store`] does, with what [`super::Cache::prepare`] made of the same key, flags and value;
    /// `cas` is the new item's id, or the next one.
    pub fn store_prepared(
        &mut self,
        mode: Mode,
        flags: u32,
        expiry: Seconds,
        value: &[u8],
        ready: PreparedItem,
        cas: Option<u64>,
    ) -> Stored {
        let size = item_size(self.key.len(), flags, value.len());
        if size > self.item_size_max {
            self.drop_old_of(mode);
            return Stored::TooLarge;
        }
        self.shard.stats_for(size).cmd_set += 1;
        let outcome = match (mode, self.index) {
            (Mode::Add, Some(index)) => {
                self.shard.mark_used(index, false);
                return Stored::NotStored;
            }
            (Mode::Replace | Mode::Append | Mode::Prepend, None) => return Stored::NotStored,
            (Mode::Cas(_), None) => return Stored::NotFound,
            (Mode::Cas(expected), Some(index)) => {
                let same = self.shard.slab.get(index).cas == expected;
                let stats = self.shard.stats_of(index);
                if !same {
                    stats.cas_badval += 1;
                    return Stored::Exists;
                }
                stats.cas_hits += 1;
                self.put_item(value, flags, expiry, ready, cas)
            }
            (Mode::Append | Mode::Prepend, Some(index)) => return self.extend(mode, index, value, cas),
            (Mode::Set | Mode::Add, None) | (Mode::Set | Mode::Replace, Some(_)) => {
                self.put_item(value, flags, expiry, ready, cas)
            }
        };
        if outcome == Stored::OutOfMemory {
            self.count_no_memory(size);
            self.drop_old_of(mode);
        }
        outcome
    }

    /// Adds to or takes from the number; `cas` is the item's new id, or the next one.
    pub fn arithmetic(&mut self, delta: u64, increase: bool, cas: Option<u64>) -> ArithmeticOutcome {
        let Some(index) = self.index else { return ArithmeticOutcome::NotFound };
        let entry = self.shard.slab.get(index);
        let data = self.shard.data(entry);
        let (flags, expiry, len) = (entry.flags_in(data), entry.exptime, entry.value_len());
        let Some(old) = number::unsigned(entry.value_in(data)) else { return ArithmeticOutcome::NonNumeric };
        let new = if increase { old.wrapping_add(delta) } else { old.saturating_sub(delta) };
        let mut buffer = itoa::Buffer::new();
        let text = buffer.format(new).as_bytes();
        let stats = self.shard.stats_of(index);
        if increase {
            stats.incr_hits += 1;
        } else {
            stats.decr_hits += 1;
        }
        if text.len() <= len {
            let cas = cas.unwrap_or_else(|| self.next_cas());
            self.shard.slab.get_mut(index).cas = cas;
            let (digits, padding) = self.shard.value_mut(index).split_at_mut(text.len());
            digits.copy_from_slice(text);
            padding.fill(b' ');
            self.shard.mark_used(index, false);
            return ArithmeticOutcome::Value(new);
        }
        let size = item_size(self.key.len(), flags, text.len());
        if size > self.item_size_max {
            return ArithmeticOutcome::TooLarge;
        }
        match self.put_item(text, flags, expiry, PreparedItem::FILL_UNDER_LOCK, cas) {
            Stored::Stored => ArithmeticOutcome::Value(new),
            _ => {
                self.count_no_memory(size);
                ArithmeticOutcome::OutOfMemory
            }
        }
    }

    /// Deletes and counts it; true if there was something.
    pub fn delete(&mut self) -> bool {
        let Some(index) = self.index.take() else { return false };
        self.shard.stats_of(index).delete_hits += 1;
        self.shard.remove(index, RemovalReason::Deleted);
        true
    }

    fn extend(&mut self, mode: Mode, index: u32, value: &[u8], cas: Option<u64>) -> Stored {
        let entry = self.shard.slab.get(index);
        let data = self.shard.data(entry);
        let (flags, expiry, old) = (entry.flags_in(data), entry.exptime, entry.value_in(data));
        let size = item_size(self.key.len(), flags, old.len() + value.len());
        if size > self.item_size_max {
            return Stored::NotStored;
        }
        let parts = if mode == Mode::Append { [old, value] } else { [value, old] };
        let ready = PreparedItem::filled(slab::pack(self.key, parts, flags));
        let outcome = self.put_item(b"", flags, expiry, ready, cas);
        if outcome == Stored::OutOfMemory {
            self.count_no_memory(size);
        }
        outcome
    }

    fn put_item(&mut self, value: &[u8], flags: u32, expiry: Seconds, ready: PreparedItem, cas: Option<u64>) -> Stored {
        let flag_bytes = flags.to_ne_bytes();
        let data = match ready.0 {
            Some(data) if data.is_empty() => return Stored::OutOfMemory,
            Some(data) => DataInput::Whole(data),
            None => DataInput::Pieces([self.key, value, if flags == 0 { b"" } else { &flag_bytes }]),
        };
        let cas = cas.unwrap_or_else(|| self.next_cas());
        let meta = EntryMeta { key_len: self.key.len() as u8, has_flags: flags != 0, expiry, cas };
        let placed = match self.index {
            Some(index) => self.shard.replace(index, data, meta),
            None => self.shard.insert(self.hash, data, meta),
        };
        if placed.is_none() {
            // What was there is still there, perhaps in another place.
            self.index = self.shard.find(self.hash, self.key);
            return Stored::OutOfMemory;
        }
        self.index = placed;
        Stored::Stored
    }

    /// A failed `set` leaves no old value behind: the client meant it to be gone.
    fn drop_old_of(&mut self, mode: Mode) {
        if mode == Mode::Set
            && let Some(index) = self.index.take()
        {
            self.shard.remove(index, RemovalReason::Deleted);
        }
    }

    fn count_no_memory(&mut self, size: usize) {
        self.shard.stats_for(size).outofmemory += 1;
    }

    fn put(&mut self, mark: u8, on: bool) {
        if let Some(index) = self.index {
            self.shard.slab.get_mut(index).put(mark, on);
        }
    }

    /// Drawn under the lock, so that a later store to a key has the greater id.
    fn next_cas(&self) -> u64 {
        self.cas_ids.fetch_add(1, Ordering::Relaxed)
    }
}

// Always: most of a view is never looked at, and then need not be made.
#[inline(always)]
pub(super) fn view_of<'a>(shard: &'a Shard, entry: &ItemEntry) -> ItemView<'a> {
    let data = shard.data(entry);
    ItemView {
        key: &data[..usize::from(entry.key_len)],
        value: entry.value_in(data),
        flags: if entry.has(HAS_FLAGS) { entry.flags_in(data) } else { 0 },
        cas: entry.cas,
        exptime: entry.exptime,
        last_access: entry.last_access,
        fetched: entry.has(FETCHED),
        class: entry.class,
        size_bytes: entry.item_size(),
        stale: entry.has(STALE),
        token_sent: entry.has(TOKEN_SENT),
        encoded_key: entry.has(ENCODED_KEY),
        source: ItemSource { arena: &shard.arena, place: entry.place },
    }
}
