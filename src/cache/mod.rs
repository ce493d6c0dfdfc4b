//! Ordinary keys: memcached's semantics over a sharded store with an exact memory budget.
//!
//! [`Cache`] is a thin shell: hash the key once, lock its shard, call. All policy is in `shard`, which is
//! single-threaded. The parts: `slab` (entries), `arena` (keys and values), `budget` (what all shards share), `queue`
//! (eviction), `wheel` (expiry), `class` (memcached's slab classes, as statistics), `number` (what `incr` accepts).
//! `docs/design/cache.md` has the figures, and what was tried and lost.
//!
//! What holds:
//! - after every operation all shards together use at most the budget, counting pages whether full or not, large
//!   values as the allocator rounds them, entries, hash tables, ghost tables and flushed items not yet freed;
//! - while something can be evicted (or has expired) a store never fails for memory;
//! - an expired or flushed item is never seen again, whether or not its memory has been taken back;
//! - a read-modify-write is one step under one lock; memory is freed after the lock.
//!
//! During an operation of a shard that holds less than its share, the budget may be exceeded by that one item, until
//! another shard has made room.
//!
//! Never reads a clock (time comes in as a value and must not run backwards), never does I/O, never logs, has
//! no async code, knows nothing of the wire. Of entries once there at most two chunks (12 KiB) a shard stay behind
//! after they left, of data less than a page for each size in use.

mod arena;
mod budget;
mod class;
mod large;
mod queue;
mod shard;
mod slab;
mod slot;
mod wheel;

use std::{
    hash::{BuildHasher, Hasher},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};

use foldhash::quality::RandomState;
use parking_lot::Mutex;

use self::{
    arena::{Arena, DataPlace, SlotSizes},
    budget::{Budget, PaddedCount},
    class::Classes,
    shard::Shard,
};
pub use self::{
    class::ClassTotals,
    large::{DetachedBytes, SHARED_BYTES_MIN, SharedValue},
    slot::LockedKey,
};

/// Seconds on the server's own clock, from 1. As an expiry: absolute on the same clock, 0 for never.
pub type Seconds = u32;

/// The longest key.
pub use crate::protocol::KEY_LENGTH_MAX as KEY_BYTES_MAX;

/// No shard is made smaller than this: its fixed parts and its half-full pages should not weigh.
const SHARE_BYTES_MIN: u64 = 16 << 20;

/// How a cache is made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Options {
    pub budget_bytes: u64,
    /// Largest item, counted as memcached counts it.
    pub item_size_max_bytes: usize,
    /// False: a store that finds no memory is refused (memcached's `-M`).
    pub evict: bool,
    /// Upper wish; the actual number is a power of two and leaves each shard room for two of the largest items.
    pub shards: usize,
}

/// What a visitor sees of an item; `last_access` and `fetched` as they were before this look.
#[derive(Clone, Copy)]
pub struct ItemView<'a> {
    pub key: &'a [u8],
    pub value: &'a [u8],
    pub flags: u32,
    pub cas: u64,
    pub exptime: Seconds,
    pub last_access: Seconds,
    pub fetched: bool,
    /// memcached's slab class.
    pub class: u8,
    /// Size as memcached counts it.
    pub size_bytes: usize,
    /// Meta commands: invalidated, yet still served.
    pub stale: bool,
    /// Meta commands: a client was already told to recache it.
    pub token_sent: bool,
    /// Meta commands: the key came in base64, and is shown so.
    pub encoded_key: bool,
    /// Where it lies.
    source: ItemSource<'a>,
}

/// A place in the arena: looked at only for what is large, so that no other read pays for it.
#[derive(Clone, Copy)]
struct ItemSource<'a> {
    arena: &'a Arena,
    place: DataPlace,
}

impl ItemView<'_> {
    /// Whether the value is long enough to be sent without a copy.
    #[inline(always)]
    pub fn is_shareable(&self) -> bool {
        self.value.len() >= SHARED_BYTES_MIN
    }

    /// Where the value can be held on to after the look. A small value of its own, so that a reader that takes its
    /// address does not make all of the view be made.
    #[inline(always)]
    pub fn shareable(&self) -> ShareableValue<'_> {
        ShareableValue { source: self.source, begin: self.key.len(), end: self.key.len() + self.value.len() }
    }
}

/// A value that a reader may want to hold on to.
#[derive(Clone, Copy)]
pub struct ShareableValue<'a> {
    source: ItemSource<'a>,
    begin: usize,
    end: usize,
}

impl ShareableValue<'_> {
    /// Holds on to it; none if it is too short for that.
    pub fn share(self) -> Option<SharedValue> {
        let data = self.source.arena.large(self.source.place)?;
        Some(SharedValue::new(data, self.begin, self.end))
    }
}

/// A new item's allocation, made and filled before its shard is locked. None for a small one, which is filled under the
/// lock; empty if there was no memory for it.
pub struct PreparedItem(Option<Box<[u8]>>);

impl PreparedItem {
    const FILL_UNDER_LOCK: PreparedItem = PreparedItem(None);

    fn filled(packed: Option<Box<[u8]>>) -> PreparedItem {
        PreparedItem(Some(packed.unwrap_or_default()))
    }
}

/// How to store: the protocol's own words for it.
pub use crate::protocol::StoreMode as Mode;

/// What became of a store.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stored {
    Stored,
    NotStored,
    /// `Cas`: somebody stored since.
    Exists,
    /// `Cas`: nothing there.
    NotFound,
    /// Larger than the largest item; a `Set` has dropped the old value, as memcached does.
    TooLarge,
    /// Without eviction, or when the system has no memory; a `Set` has dropped the old value, as memcached does.
    OutOfMemory,
}

/// What became of an increment or decrement.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ArithmeticOutcome {
    Value(u64),
    NotFound,
    NonNumeric,
    OutOfMemory,
    /// The longer text would make the item larger than the largest.
    TooLarge,
}

/// Sums over the whole cache.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct CacheTotals {
    pub curr_items: u64,
    pub total_items: u64,
    /// The items as memcached counts them.
    pub bytes: u64,
    /// Memory really held; never above `budget_bytes`.
    pub used_bytes: u64,
    pub budget_bytes: u64,
    pub hash_bytes: u64,
    /// Base-two logarithm of the number of hash table slots, as memcached reports it.
    pub hash_power_level: u32,
    /// Reads that found an expired item.
    pub get_expired: u64,
    pub shards: u64,
    /// Of all classes together.
    pub classes: ClassTotals,
}

/// The store of ordinary keys.
pub struct Cache {
    shards: Box<[PaddedShard]>,
    hasher: RandomState,
    cas_ids: PaddedCount,
    budget: Arc<Budget>,
    detached: Arc<DetachedBytes>,
    item_size_max: usize,
}

/// Keeps two shards' locks off one cache line.
#[repr(align(128))]
struct PaddedShard(Mutex<Shard>);

impl Cache {
    pub fn new(options: &Options) -> Cache {
        let least = SHARE_BYTES_MIN.max(options.item_size_max_bytes as u64 * 2);
        let possible = (options.budget_bytes / least).clamp(1, options.shards.max(1) as u64);
        let count: usize = 1 << possible.ilog2();
        let classes = Arc::new(Classes::new(options.item_size_max_bytes));
        let (layout, budget) = (Arc::new(SlotSizes::new()), Arc::new(Budget::new(options.budget_bytes, count)));
        let detached = Arc::<DetachedBytes>::default();
        let shard = |number| {
            let (layout, detached) = (layout.clone(), detached.clone());
            let shard = Shard::new(number, budget.clone(), options.evict, classes.clone(), layout, detached);
            PaddedShard(Mutex::new(shard))
        };
        Cache {
            shards: (0..count).map(shard).collect(),
            hasher: RandomState::default(),
            cas_ids: PaddedCount(AtomicU64::new(1)),
            budget,
            detached,
            item_size_max: options.item_size_max_bytes,
        }
    }

    /// What readers hold of items that are gone. Not part of the budget: who gives it to readers must bound it.
    pub fn detached(&self) -> &Arc<DetachedBytes> {
        &self.detached
    }

    /// Looks a key up as a client's read and marks it as used. `visit` runs under the shard's lock: it copies bytes
    /// out, or shares them, and must not call the cache.
    pub fn get<R>(&self, key: &[u8], now: Seconds, visit: impl FnOnce(ItemView<'_>) -> R) -> Option<R> {
        self.with_key(key, now, |slot| slot.fetch().map(visit))
    }

    /// [`Cache::get`] that also sets the expiry; the view shows the new one.
    pub fn get_and_touch<R>(
        &self,
        key: &[u8],
        expiry: Seconds,
        now: Seconds,
        visit: impl FnOnce(ItemView<'_>) -> R,
    ) -> Option<R> {
        self.with_key(key, now, |slot| {
            slot.touch(expiry);
            slot.fetch().map(visit)
        })
    }

    pub fn store(&self, mode: Mode, key: &[u8], flags: u32, expiry: Seconds, value: &[u8], now: Seconds) -> Stored {
        let ready = self.prepare(mode, key, flags, value);
        self.with_key(key, now, |slot| slot.store_prepared(mode, flags, expiry, value, ready, None))
    }

    /// Allocates and fills what [`LockedKey::store_prepared`] will put in place, so that this does not happen under the
    /// lock.
    pub fn prepare(&self, mode: Mode, key: &[u8], flags: u32, value: &[u8]) -> PreparedItem {
        match mode {
            Mode::Append | Mode::Prepend => PreparedItem::FILL_UNDER_LOCK,
            _ if !self.fits(key.len(), flags, value.len()) => PreparedItem::FILL_UNDER_LOCK,
            // What is small is copied under the lock: that is quicker than to allocate.
            _ if key.len() + value.len() < arena::SLOT_DATA_BYTES_MAX => PreparedItem::FILL_UNDER_LOCK,
            _ => PreparedItem::filled(slab::pack(key, [value, b""], flags)),
        }
    }

    /// True if there was something to delete.
    pub fn delete(&self, key: &[u8], now: Seconds) -> bool {
        self.with_key(key, now, |slot| slot.delete())
    }

    /// Any other read-modify-write as one step: `action` runs under the shard's lock with the key's place in
    /// hand, whether or not something is there. It must not call the cache.
    // Always: each caller is one of the commands that everything depends on.
    #[inline(always)]
    pub fn with_key<R>(&self, key: &[u8], now: Seconds, action: impl FnOnce(&mut LockedKey<'_>) -> R) -> R {
        debug_assert!(!key.is_empty() && key.len() <= KEY_BYTES_MAX, "the caller checks the key");
        let mut hasher = self.hasher.build_hasher();
        hasher.write(key);
        let hash = hasher.finish();
        // The upper half chooses the shard, the lower half the place in it.
        let number = (hash >> 32) as usize & (self.shards.len() - 1);
        let shard = &self.shards[number];
        let mut guard = shard.0.lock();
        let mut slot = LockedKey::new(&mut guard, &self.cas_ids.0, self.item_size_max, key, hash as u32, now);
        let result = action(&mut slot);
        let changed = guard.finish();
        let deferred = guard.deferred.take();
        drop(guard);
        drop(deferred);
        if changed && self.budget.is_exceeded_by(0) {
            self.enforce_budget(Some(number), now);
        }
        result
    }

    /// Evicts from the largest shards until the budget holds again. `storing_shard` has just stored an item while it held
    /// less than its share; it comes last.
    #[cold]
    fn enforce_budget(&self, storing_shard: Option<usize>, now: Seconds) {
        let mut tried = vec![false; self.shards.len()];
        if let Some(storing_shard) = storing_shard {
            tried[storing_shard] = true;
        }
        while self.budget.is_exceeded_by(0)
            && let Some(shard) = self.budget.largest(&tried).or(storing_shard)
        {
            let gave = self.evict_from(shard, 0, now);
            if !gave && tried[shard] {
                break;
            }
            tried[shard] |= !gave;
        }
    }

    /// As [`Shard::evict_for_others`].
    fn evict_from(&self, shard: usize, floor: u64, now: Seconds) -> bool {
        let mut guard = self.shards[shard].0.lock();
        let gave = guard.evict_for_others(floor, now);
        let deferred = guard.deferred.take();
        drop(guard);
        drop(deferred);
        gave
    }

    /// Whether an item of these lengths is within the largest item size.
    pub fn fits(&self, key_len: usize, flags: u32, value_len: usize) -> bool {
        class::item_size(key_len, flags, value_len) <= self.item_size_max
    }

    /// `at <= now`: everything stored so far is gone. Later: everything stored before `at` is gone from that
    /// second on. The latest call replaces a pending one.
    pub fn flush(&self, at: Seconds, now: Seconds) {
        // All locks first: no reader sees one key flushed and another, stored earlier, alive.
        let mut guards: Vec<_> = self.shards.iter().map(|shard| shard.0.lock()).collect();
        for shard in &mut guards {
            shard.begin(now);
            shard.flush_at(at);
        }
        if at <= now {
            // memcached spends a cas id on a flush; so do we, and the ids stay the same on both.
            self.cas_ids.0.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// A new budget, in force when this returns. An item larger than that is then refused with `OutOfMemory`.
    pub fn set_budget(&self, bytes: u64) {
        self.budget.set_bytes(bytes);
        for shard in 0..self.shards.len() {
            self.evict_from(shard, self.budget.share(), 0);
        }
        self.enforce_budget(None, 0);
    }

    pub fn totals(&self) -> CacheTotals {
        let mut totals = CacheTotals {
            budget_bytes: self.budget.bytes(),
            shards: self.shards.len() as u64,
            ..CacheTotals::default()
        };
        for shard in &self.shards {
            let shard = shard.0.lock();
            totals.used_bytes += shard.used();
            totals.hash_bytes += shard.hash_bytes();
            totals.total_items += shard.counters.total_items;
            totals.get_expired += shard.counters.get_expired;
            shard.stats.iter().for_each(|class| totals.classes.add(class));
        }
        (totals.curr_items, totals.bytes) = (totals.classes.number, totals.classes.mem_requested);
        totals.hash_power_level = (totals.hash_bytes / 5).checked_ilog2().unwrap_or(0);
        totals
    }

    /// The classes that hold or held something, in order.
    pub fn classes(&self) -> Vec<(u8, ClassTotals)> {
        let mut sums: Vec<ClassTotals> = Vec::new();
        for shard in &self.shards {
            let shard = shard.0.lock();
            sums.resize(shard.stats.len(), ClassTotals::default());
            sums.iter_mut().zip(&shard.stats).for_each(|(sum, class)| sum.add(class));
            if let Some((class, idle)) = shard.oldest() {
                let age = &mut sums[usize::from(class) - 1].age;
                *age = (*age).max(u64::from(idle));
            }
        }
        let used = |(_, class): &(u8, ClassTotals)| {
            *class != ClassTotals { chunk_size: class.chunk_size, ..ClassTotals::default() }
        };
        (1..).zip(sums).filter(used).collect()
    }

    /// Clears the counters; what describes the present stays.
    pub fn reset_stats(&self) {
        for shard in &self.shards {
            let mut shard = shard.0.lock();
            shard.counters = shard::ShardCounters::default();
            shard.stats.iter_mut().for_each(ClassTotals::reset);
        }
    }

    /// Walks the items in pieces of at most `limit` entries: pass the cursor returned, from 0, until
    /// `None`. Every item that stays throughout is seen, now and then one twice; the lock is held for a piece.
    pub fn scan(&self, cursor: u64, limit: u32, now: Seconds, mut visit: impl FnMut(ItemView<'_>)) -> Option<u64> {
        // High half: shard. Low half: entries left to look at, plus one; 0 is a shard not begun. Downwards,
        // because entries only ever move to lower places.
        let number = (cursor >> 32) as usize;
        let mut shard = self.shards.get(number)?.0.lock();
        shard.begin(now);
        let end = match cursor as u32 {
            0 => shard.slab.len(),
            left => (left - 1).min(shard.slab.len()),
        };
        let begin = end.saturating_sub(limit.max(1));
        for index in (begin..end).rev() {
            let entry = shard.slab.get(index);
            if entry.is_live() && !entry.is_expired(now) {
                visit(slot::view_of(&shard, entry));
            }
        }
        match begin {
            0 if number + 1 == self.shards.len() => None,
            0 => Some((number as u64 + 1) << 32),
            _ => Some((number as u64) << 32 | u64::from(begin + 1)),
        }
    }

    /// Recounts everything and compares it with the running totals; for tests.
    #[doc(hidden)]
    pub fn validate(&self) -> Result<(), String> {
        self.shards.iter().try_for_each(|shard| shard.0.lock().validate())?;
        let (used, fixed) = (self.budget.used(), self.shards[0].0.lock().fixed_bytes() * self.shards.len() as u64);
        if used > self.budget.bytes().max(fixed) {
            return Err(format!("used {used} of {}", self.budget.bytes()));
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests;
