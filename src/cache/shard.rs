//! One shard: all policy, single-threaded. The caller holds the lock.
//!
//! Invariants, recounted by [`Shard::validate`]:
//! - what the shard has reported to the [`Budget`] between two operations is what it holds;
//! - every live entry is in the table once, in exactly one queue, and in the wheel if and only if it expires;
//! - memory leaves through [`DeferredDrop`], which the caller takes out and drops after it has let go of the lock.
//!
//! When the budget is exceeded, a shard evicts itself if it holds about its share or more. If it holds less, the budget
//! stays exceeded until the end of the operation, when the caller has the largest shard evict.

use std::sync::Arc;

use hashbrown::HashTable;

use super::{
    Seconds,
    arena::{self, Allocation, Arena, DataInput, DataPlace, SlotSizes},
    budget::Budget,
    class::{ClassTotals, Classes, item_size},
    large::DetachedBytes,
    queue::{EvictionQueue, Ghost, SmallQueueShare},
    slab::{CHUNK_BYTES, CHUNK_ENTRIES, Chunk, FETCHED, HAS_FLAGS, IN_MAIN, ItemEntry, MARKS, NIL, Slab},
    wheel::{NO_SLOT, Wheel, WheelStep},
};

/// Entries the wheel looks at, and the slab moves, in the course of one operation: bounds its length.
const WHEEL_STEPS: usize = 8;
const COMPACT_STEPS: usize = 2;
/// Pages and chunks of flushed items given back in the course of one operation.
const RECLAIM_STEPS: usize = 8;

/// Memory that is dropped after the lock is released. The first two pieces need no allocation.
#[derive(Default)]
pub(super) struct DeferredDrop {
    first: Option<Allocation>,
    second: Option<Allocation>,
    rest: Vec<Allocation>,
    chunks: Vec<Chunk>,
}

impl DeferredDrop {
    /// All of it, if there is any.
    #[inline]
    pub(super) fn take(&mut self) -> Option<DeferredDrop> {
        (self.first.is_some() || !self.chunks.is_empty()).then(|| std::mem::take(self))
    }

    pub(super) fn push(&mut self, data: Allocation) {
        if let Allocation::Shared(data) = &data {
            data.give_up();
        }
        if self.first.is_none() {
            self.first = Some(data);
        } else if self.second.is_none() {
            self.second = Some(data);
        } else {
            self.rest.push(data);
        }
    }
}

/// Why an entry leaves; decides which counters move.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum RemovalReason {
    Deleted,
    Evicted,
    /// Found expired: by a reader, by the wheel in passing, or by an item that needed the memory.
    ExpiredRead,
    ExpiredWheel,
    ExpiredReclaimed,
}

/// What a shard counts besides its classes.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct ShardCounters {
    pub(super) total_items: u64,
    pub(super) get_expired: u64,
}

pub(super) struct Shard {
    table: HashTable<u32>,
    pub(super) slab: Slab,
    pub(super) arena: Arena,
    wheel: Wheel,
    small: EvictionQueue,
    main: EvictionQueue,
    ghost: Ghost,
    /// Of the small queue.
    share: SmallQueueShare,
    /// What flushed items leave behind, given back a little with each operation: a flush takes no time and no reader
    /// waits.
    flushed: FlushedMemory,
    budget: Arc<Budget>,
    /// This shard's number, and what it has last told the budget.
    number: usize,
    reported: u64,
    /// Something was done in this operation that may have changed what the shard holds.
    changed: bool,
    evict: bool,
    pending_flush: Option<Seconds>,
    /// The time of the operation, or of the latest one.
    pub(super) now: Seconds,
    /// The entry that is being stored, or `NIL`: it stays, though perhaps in another place.
    kept: u32,
    /// What this operation gives up.
    pub(super) deferred: DeferredDrop,
    classes: Arc<Classes>,
    pub(super) stats: Box<[ClassTotals]>,
    pub(super) counters: ShardCounters,
}

#[derive(Default)]
struct FlushedMemory {
    chunks: Vec<Chunk>,
    data: Vec<Allocation>,
    bytes: u64,
}

/// What a store is going to need.
#[derive(Clone, Copy)]
struct SpaceNeeded {
    data_len: usize,
    /// A place in the table and an entry, too.
    entry: bool,
    /// Bytes that are given up first.
    credit: u64,
}

impl Shard {
    pub(super) fn new(
        number: usize,
        budget: Arc<Budget>,
        evict: bool,
        classes: Arc<Classes>,
        layout: Arc<SlotSizes>,
        detached: Arc<DetachedBytes>,
    ) -> Shard {
        let stats = (1..=classes.count())
            .map(|class| ClassTotals { chunk_size: classes.chunk_size(class as u8) as u64, ..ClassTotals::default() })
            .collect();
        let mut shard = Shard {
            table: HashTable::new(),
            slab: Slab::new(),
            arena: Arena::new(layout, evict, detached),
            wheel: Wheel::new(),
            small: EvictionQueue::new(),
            main: EvictionQueue::new(),
            ghost: Ghost::new(),
            share: SmallQueueShare::new(),
            flushed: FlushedMemory::default(),
            budget,
            number,
            reported: 0,
            changed: false,
            evict,
            pending_flush: None,
            now: 0,
            kept: NIL,
            deferred: DeferredDrop::default(),
            classes,
            stats,
            counters: ShardCounters::default(),
        };
        shard.report();
        shard
    }

    /// Bytes this shard holds, everything included.
    pub(super) fn used(&self) -> u64 {
        self.fixed_bytes()
            + self.arena.bytes()
            + self.slab.bytes()
            + self.table.allocation_size() as u64
            + self.ghost.bytes()
            + self.flushed.bytes
    }

    pub(super) fn fixed_bytes(&self) -> u64 {
        (size_of::<Shard>() + size_of_val(&*self.stats)) as u64 + self.arena.fixed_bytes()
    }

    /// Tells the budget what this shard holds.
    fn report(&mut self) {
        let used = self.used();
        if used != self.reported {
            self.budget.report(self.number, self.reported, used);
            self.reported = used;
        }
    }

    /// An entry's key, value and flags.
    #[inline]
    pub(super) fn data(&self, entry: &ItemEntry) -> &[u8] {
        self.arena.get(entry.place)
    }

    /// An entry's value, to be changed in place; the length stays.
    pub(super) fn value_mut(&mut self, index: u32) -> &mut [u8] {
        let entry = self.slab.get(index);
        let (begin, end) = (usize::from(entry.key_len), entry.value_end());
        &mut self.arena.get_mut(entry.place)[begin..end]
    }

    pub(super) fn hash_bytes(&self) -> u64 {
        self.table.allocation_size() as u64
    }

    /// Makes room until the budget holds, or until this shard holds no more than `floor`. False if it can do no more.
    pub(super) fn evict_for_others(&mut self, floor: u64, now: Seconds) -> bool {
        self.now = self.now.max(now);
        self.report();
        while self.budget.is_exceeded_by(0) && self.reported > floor {
            if !(self.release_unneeded(None) || self.evict && self.evict_one()) {
                let had = self.ghost.bytes();
                self.ghost.clear();
                self.report();
                return had > 0;
            }
            self.report();
        }
        true
    }

    /// To be called first in every operation: a delayed flush takes effect at its second, before anything else.
    #[inline]
    pub(super) fn begin(&mut self, now: Seconds) {
        self.now = now;
        if self.pending_flush.is_some_and(|at| at <= now) {
            self.flush_now();
        }
    }

    /// To be called last in every operation: a bounded share of the upkeep. True if the shard may hold more now or less;
    /// a read, if nothing was due, changes nothing and spends nothing on the budget.
    #[inline]
    pub(super) fn finish(&mut self) -> bool {
        if self.wheel.is_due(self.now) {
            for _ in 0..WHEEL_STEPS {
                if matches!(self.wheel_step(RemovalReason::ExpiredWheel), WheelStep::Idle) {
                    break;
                }
            }
        }
        if self.slab.free_count() as usize > CHUNK_ENTRIES {
            for _ in 0..COMPACT_STEPS {
                self.compact_step();
            }
        }
        if self.flushed.bytes > 0 {
            (0..RECLAIM_STEPS).for_each(|_| self.reclaim());
        }
        let changed = std::mem::take(&mut self.changed);
        if changed {
            self.report();
        }
        changed
    }

    pub(super) fn flush_at(&mut self, at: Seconds) {
        if at <= self.now {
            self.flush_now();
        } else {
            self.pending_flush = Some(at);
        }
    }

    /// The entry of a key, expired or not.
    #[inline]
    pub(super) fn find(&self, hash: u32, key: &[u8]) -> Option<u32> {
        self.table
            .find(spread(hash), |&index| {
                let entry = self.slab.get(index);
                entry.hash == hash && usize::from(entry.key_len) == key.len() && self.data(entry).starts_with(key)
            })
            .copied()
    }

    /// A use: marks the entry for the order of eviction and remembers when.
    #[inline]
    pub(super) fn mark_used(&mut self, index: u32, fetched: bool) {
        let entry = self.slab.get_mut(index);
        entry.bump();
        entry.last_access = self.now;
        if fetched {
            entry.put(FETCHED, true);
        }
    }

    #[inline]
    pub(super) fn stats_of(&mut self, index: u32) -> &mut ClassTotals {
        let class = self.slab.get(index).class;
        &mut self.stats[usize::from(class) - 1]
    }

    pub(super) fn stats_for(&mut self, item_size: usize) -> &mut ClassTotals {
        &mut self.stats[usize::from(self.classes.for_item_size(item_size)) - 1]
    }

    pub(super) fn set_expiry(&mut self, index: u32, expiry: Seconds) {
        self.wheel.unlink(&mut self.slab, index);
        self.slab.get_mut(index).exptime = expiry;
        self.wheel.link(&mut self.slab, index);
    }

    /// Adds an entry for a key that has none. `None`: no memory, and nothing changed.
    pub(super) fn insert(&mut self, hash: u32, data: DataInput<'_>, meta: EntryMeta) -> Option<u32> {
        let want = SpaceNeeded { data_len: data.len(), entry: true, credit: 0 };
        if !self.make_room(Some(want)) {
            return None;
        }
        let index = self.slab.take_slot();
        let remembered = self.ghost.take(hash, self.slab.live_count());
        let to_main = remembered.is_some();
        let entry = self.slab.get_mut(index);
        entry.hash = hash;
        entry.put(IN_MAIN, to_main);
        self.put(index, data);
        let cost = self.cost(index);
        if let Some(remembered) = remembered
            && remembered.recent
        {
            self.share.learn(remembered.from_main, cost, self.small.bytes + self.main.bytes);
        }
        let queue = if to_main { &mut self.main } else { &mut self.small };
        queue.push(&mut self.slab, index, cost);
        self.describe(index, meta);
        self.rebuild_table();
        let slab = &self.slab;
        self.table.insert_unique(spread(hash), index, |&other| spread(slab.get(other).hash));
        self.counters.total_items += 1;
        Some(self.finish_store(index))
    }

    /// Gives an entry new contents in its place in the queue. `None`: no memory, and the old contents stay.
    pub(super) fn replace(&mut self, index: u32, data: DataInput<'_>, meta: EntryMeta) -> Option<u32> {
        let place = self.slab.get(index).place;
        self.counters.total_items += 1;
        let data = match self.arena.overwrite(place, data) {
            Ok(place) => {
                self.forget_contents(index);
                let entry = self.slab.get_mut(index);
                entry.place = place;
                entry.bump();
                self.describe(index, meta);
                return Some(index);
            }
            Err(data) => data,
        };
        let credit = if place.is_large() { self.arena.cost(place) } else { 0 };
        let want = SpaceNeeded { data_len: data.len(), entry: false, credit };
        self.kept = index;
        let has_room = self.make_room(Some(want));
        let index = std::mem::replace(&mut self.kept, NIL);
        if !has_room {
            self.counters.total_items -= 1;
            return None;
        }
        self.forget_contents(index);
        let old_cost = self.cost(index);
        self.release(self.slab.get(index).place);
        self.put(index, data);
        let entry = self.slab.get_mut(index);
        entry.bump();
        let (in_main, cost) = (entry.has(IN_MAIN), self.cost(index));
        let queue = if in_main { &mut self.main } else { &mut self.small };
        queue.bytes = queue.bytes - old_cost + cost;
        self.describe(index, meta);
        Some(self.finish_store(index))
    }

    /// Puts an entry's data in a place. The caller has made room.
    fn put(&mut self, index: u32, data: DataInput<'_>) {
        self.changed = true;
        let growth = self.arena.growth(data.len());
        let short = growth > 0 && self.budget.is_exceeded_by(growth);
        let place = self.arena.put(index, data, short);
        self.slab.get_mut(index).place = place;
    }

    /// After a store: what it took may be a little more than was foreseen.
    fn finish_store(&mut self, mut index: u32) -> u32 {
        self.report();
        if self.budget.is_exceeded_by(0) {
            self.kept = index;
            self.make_room(None);
            index = std::mem::replace(&mut self.kept, NIL);
            self.relink(index);
        }
        index
    }

    pub(super) fn remove(&mut self, index: u32, why: RemovalReason) {
        self.changed = true;
        self.count_removal(index, why);
        let entry = self.slab.get(index);
        let (hash, cost, in_main, place) = (entry.hash, self.cost(index), entry.has(IN_MAIN), entry.place);
        if let Ok(found) = self.table.find_entry(spread(hash), |&other| other == index) {
            found.remove();
        }
        let queue = if in_main { &mut self.main } else { &mut self.small };
        queue.remove(&mut self.slab, index, cost);
        self.forget_contents(index);
        self.release(place);
        self.slab.free_slot(index);
    }

    /// Gives up a place in the arena and puts right the entry whose data has moved there.
    fn release(&mut self, place: DataPlace) {
        if let Some(moved) = self.arena.free(place, &mut self.deferred) {
            moved.correct(&mut self.slab.get_mut(moved.owner).place);
        }
    }

    /// An entry's weight in its queue.
    #[inline]
    fn cost(&self, index: u32) -> u64 {
        self.arena.cost(self.slab.get(index).place) + size_of::<ItemEntry>() as u64
    }

    /// Bytes by which this store would make the shard larger.
    fn growth(&self, want: Option<SpaceNeeded>) -> u64 {
        let Some(want) = want else { return 0 };
        let mut bytes = self.arena.growth(want.data_len);
        if want.entry {
            let (len, buckets) = (self.table.len(), self.table.num_buckets());
            let doubles = len == self.table.capacity() && (buckets < 64 || len >= buckets / 16 * 13);
            bytes += self.slab.growth() + if doubles { self.table.allocation_size().max(64) as u64 } else { 0 };
        }
        bytes.saturating_sub(want.credit)
    }

    /// Whether the whole budget has room for it, with everything else gone.
    fn is_possible(&self, want: Option<SpaceNeeded>) -> bool {
        let Some(want) = want else { return true };
        let administration = self.fixed_bytes() * self.budget.shards() as u64 + CHUNK_BYTES + 1024;
        administration + arena::large_bytes(want.data_len) <= self.budget.bytes()
    }

    /// Evicts, reclaims and shrinks until what is wanted fits the budget; never touches what is `kept`. False if that
    /// cannot be done.
    fn make_room(&mut self, want: Option<SpaceNeeded>) -> bool {
        let mut first = true;
        loop {
            self.report();
            let growth = self.growth(want);
            if !self.budget.is_exceeded_by(growth) {
                return true;
            }
            if !self.is_possible(want) {
                return false;
            }
            if self.release_unneeded(want.map(|want| want.data_len)) {
                continue;
            }
            if let Some(want) = want
                && growth == self.arena.growth(want.data_len)
                && self.arena.has_room_near(want.data_len)
            {
                return true;
            }
            let others = self.budget.shards() > 1;
            let share = self.budget.share();
            if self.evict && others && self.reported + growth < share - share / 16 {
                // The largest shard will make room, at the end of the operation.
                return true;
            }
            if !self.evict || !self.evict_one() {
                if self.ghost.bytes() == 0 {
                    return self.evict && others;
                }
                self.ghost.clear();
            } else if first {
                first = false;
                if let Some(want) = want {
                    self.stats_for(item_size(0, 0, want.data_len)).direct_reclaims += 1;
                }
            }
        }
    }

    /// One step of giving back what no item needs. False if there is nothing more.
    fn release_unneeded(&mut self, data_len: Option<usize>) -> bool {
        if self.flushed.bytes > 0 {
            self.reclaim();
        } else if self.arena.drop_spare(data_len, &mut self.deferred) {
        } else if self.slab.free_count() as usize > CHUNK_ENTRIES {
            self.compact_step();
        } else if self.shrink_table() {
        } else if self.wheel.is_due(self.now) {
            self.wheel_step(RemovalReason::ExpiredReclaimed);
        } else {
            return false;
        }
        true
    }

    /// One victim by S3-FIFO. False if nothing but what is `kept` is left.
    fn evict_one(&mut self) -> bool {
        loop {
            let from_small = self.main.len == 0 || self.share.is_exceeded(self.small.bytes, self.main.bytes);
            if from_small && self.small.len > 0 {
                let index = self.small.tail();
                let cost = self.cost(index);
                let entry = self.slab.get(index);
                if self.kept == index || entry.frequency() > 0 {
                    self.small.remove(&mut self.slab, index, cost);
                    self.main.push(&mut self.slab, index, cost);
                    self.slab.get_mut(index).put(IN_MAIN, true);
                    self.slab.get_mut(index).set_frequency(0);
                    self.stats_of(index).moves_to_warm += 1;
                    continue;
                }
                let hash = entry.hash;
                self.remove(index, RemovalReason::Evicted);
                self.ghost.insert(hash, false, self.slab.live_count());
                return true;
            }
            let index = self.main.tail();
            if self.main.len == 0 || (self.main.len == 1 && self.kept == index) {
                if self.small.len == 0 {
                    return false;
                }
                // Only the kept entry is in the main queue: take from the small one, whatever its share.
                let index = self.small.tail();
                self.remove(index, RemovalReason::Evicted);
                return true;
            }
            let entry = self.slab.get_mut(index);
            let frequency = entry.frequency();
            if self.kept == index || frequency > 0 {
                entry.set_frequency(frequency.saturating_sub(1));
                let cost = self.cost(index);
                self.main.remove(&mut self.slab, index, cost);
                self.main.push(&mut self.slab, index, cost);
                self.stats_of(index).moves_within_lru += 1;
                continue;
            }
            let hash = entry.hash;
            self.remove(index, RemovalReason::Evicted);
            self.ghost.insert(hash, true, self.slab.live_count());
            return true;
        }
    }

    /// One step of the wheel; an expired entry is removed, unless it is the one just being stored.
    fn wheel_step(&mut self, why: RemovalReason) -> WheelStep {
        let step = self.wheel.step(&mut self.slab, self.now);
        if let WheelStep::Expired(index) = step {
            if self.kept == index {
                // Stored already expired: out of the wheel for now, and back in when its store is done.
                self.wheel.unlink(&mut self.slab, index);
            } else {
                self.remove(index, why);
            }
        }
        step
    }

    /// Puts an entry stored already expired back into the wheel, if `wheel_step` met it meanwhile.
    fn relink(&mut self, index: u32) {
        if self.slab.get(index).timer_slot == NO_SLOT {
            self.wheel.link(&mut self.slab, index);
        }
    }

    /// Moves the last entry of the slab into a free slot, or gives the last slot back.
    fn compact_step(&mut self) {
        self.changed = true;
        let Some((from, to)) = self.slab.drop_last() else { return };
        let entry = self.slab.get(to);
        let (hash, in_main) = (entry.hash, entry.has(IN_MAIN));
        self.arena.set_owner(entry.place, to);
        if let Some(index) = self.table.find_mut(spread(hash), |&other| other == from) {
            *index = to;
        }
        let queue = if in_main { &mut self.main } else { &mut self.small };
        queue.relocated(&mut self.slab, to);
        self.wheel.relocated(&mut self.slab, to);
        if self.kept == from {
            self.kept = to;
        }
    }

    /// A table full of marks of what has left, not of what is there, is written anew: left to itself it would double.
    fn rebuild_table(&mut self) {
        self.changed = true;
        let (len, buckets) = (self.table.len(), self.table.num_buckets());
        if len == self.table.capacity() && buckets >= 64 && len < buckets / 16 * 13 {
            let mut table = HashTable::with_capacity(buckets / 8 * 7);
            let slab = &self.slab;
            let hash_of = |&index: &u32| spread(slab.get(index).hash);
            self.table.drain().for_each(|index| {
                table.insert_unique(hash_of(&index), index, hash_of);
            });
            self.table = table;
        }
    }

    /// Halves a table that is far too large for what it holds.
    fn shrink_table(&mut self) -> bool {
        self.changed = true;
        let before = self.table.allocation_size();
        if self.table.len() * 4 < self.table.capacity() || (!self.evict && before > 0) {
            let wanted = if self.evict { self.table.len() * 2 } else { self.table.len() };
            let slab = &self.slab;
            self.table.shrink_to(wanted, |&index| spread(slab.get(index).hash));
        }
        self.table.allocation_size() < before
    }

    fn flush_now(&mut self) {
        self.pending_flush = None;
        self.flushed.bytes += self.arena.bytes() + self.slab.bytes();
        self.flushed.chunks.append(&mut std::mem::replace(&mut self.slab, Slab::new()).chunks);
        self.flushed.data.append(&mut self.arena.take_all());
        self.table = HashTable::new();
        self.wheel = Wheel::new();
        self.small = EvictionQueue::new();
        self.main = EvictionQueue::new();
        self.ghost.clear();
        for class in &mut self.stats {
            class.number = 0;
            class.mem_requested = 0;
        }
        self.report();
    }

    /// Gives back one piece of what was flushed.
    fn reclaim(&mut self) {
        self.changed = true;
        if let Some(data) = self.flushed.data.pop() {
            self.flushed.bytes -= data.cost();
            self.deferred.push(data);
        } else if let Some(chunk) = self.flushed.chunks.pop() {
            self.flushed.bytes -= CHUNK_BYTES;
            self.deferred.chunks.push(chunk);
        } else {
            self.flushed = FlushedMemory::default();
        }
    }

    fn count_removal(&mut self, index: u32, why: RemovalReason) {
        let entry = self.slab.get(index);
        let (fetched, expires, used_lately) = (entry.has(FETCHED), entry.exptime != 0, entry.frequency() > 0);
        let idle = u64::from(self.now.saturating_sub(entry.last_access));
        let stats = self.stats_of(index);
        match why {
            RemovalReason::Deleted => return,
            RemovalReason::Evicted => {
                stats.evicted += 1;
                stats.evicted_nonzero += u64::from(expires);
                stats.evicted_unfetched += u64::from(!fetched);
                stats.evicted_active += u64::from(used_lately);
                stats.evicted_time = idle;
                return;
            }
            RemovalReason::ExpiredRead => {}
            RemovalReason::ExpiredWheel => stats.crawler_reclaimed += 1,
            RemovalReason::ExpiredReclaimed => stats.reclaimed += 1,
        }
        stats.expired_unfetched += u64::from(!fetched);
    }

    /// Says what an entry's new data is, and counts it.
    fn describe(&mut self, index: u32, meta: EntryMeta) {
        let entry = self.slab.get_mut(index);
        entry.key_len = meta.key_len;
        entry.cas = meta.cas;
        entry.exptime = meta.expiry;
        entry.last_access = self.now;
        entry.timer_slot = NO_SLOT;
        entry.put(HAS_FLAGS, meta.has_flags);
        entry.put(MARKS, false);
        entry.class = self.classes.for_item_size(entry.item_size());
        self.count_contents(index);
    }

    fn count_contents(&mut self, index: u32) {
        let size = self.slab.get(index).item_size() as u64;
        let stats = self.stats_of(index);
        stats.number += 1;
        stats.mem_requested += size;
        self.wheel.link(&mut self.slab, index);
    }

    fn forget_contents(&mut self, index: u32) {
        self.wheel.unlink(&mut self.slab, index);
        let size = self.slab.get(index).item_size() as u64;
        let stats = self.stats_of(index);
        stats.number -= 1;
        stats.mem_requested -= size;
    }

    /// Seconds since the last use of the next victim, with its class; for `age`.
    pub(super) fn oldest(&self) -> Option<(u8, Seconds)> {
        let queue = if self.main.len > 0 { &self.main } else { &self.small };
        if queue.len == 0 {
            return None;
        }
        let entry = self.slab.get(queue.tail());
        Some((entry.class, self.now.saturating_sub(entry.last_access)))
    }

    /// Recounts everything and compares with the running totals.
    pub(super) fn validate(&self) -> Result<(), String> {
        let live: Vec<u32> = (0..self.slab.len()).filter(|&index| self.slab.get(index).is_live()).collect();
        let check = |ok: bool, what: &str| if ok { Ok(()) } else { Err(what.to_owned()) };
        check(live.len() == self.slab.live_count() as usize, "live entries")?;
        check(live.len() == self.table.len(), "table length")?;
        let mut stats: Vec<(u64, u64)> = vec![(0, 0); self.stats.len()];
        for &index in &live {
            let entry = self.slab.get(index);
            check(
                self.find(entry.hash, &self.data(entry)[..entry.key_len.into()]) == Some(index),
                "an entry the table does not find",
            )?;
            check((entry.exptime == 0) == (entry.timer_slot == NO_SLOT), "wheel membership")?;
            check(entry.class == self.classes.for_item_size(entry.item_size()), "class")?;
            let class = &mut stats[usize::from(entry.class) - 1];
            class.0 += 1;
            class.1 += entry.item_size() as u64;
        }
        self.arena.validate(live.iter().map(|&index| (index, self.slab.get(index).place)))?;
        check(stats.iter().zip(&self.stats).all(|(a, b)| *a == (b.number, b.mem_requested)), "class totals")?;
        for (queue, in_main) in [(&self.small, false), (&self.main, true)] {
            let indices = queue.indices(&self.slab);
            let bytes: u64 = indices.iter().map(|&index| self.cost(index)).sum();
            check(indices.len() == queue.len as usize && bytes == queue.bytes, "queue totals")?;
            check(indices.iter().all(|&index| self.slab.get(index).has(IN_MAIN) == in_main), "queue mark")?;
            check(indices.iter().all(|&index| self.slab.get(index).is_live()), "a free slot in a queue")?;
        }
        check(self.small.len + self.main.len == self.slab.live_count(), "queue lengths")?;
        let data: u64 = self.flushed.data.iter().map(Allocation::cost).sum();
        let chunks = self.flushed.chunks.len() as u64 * CHUNK_BYTES;
        check(data + chunks <= self.flushed.bytes, "flushed bytes")?;
        check(self.reported == self.used(), "reported bytes")?;
        Ok(())
    }
}

/// What an entry says of its data.
#[derive(Clone, Copy)]
pub(super) struct EntryMeta {
    pub(super) key_len: u8,
    pub(super) has_flags: bool,
    pub(super) expiry: Seconds,
    pub(super) cas: u64,
}

/// The table wants 64 bits and reads its tag from the top; the record keeps 32.
#[inline]
fn spread(hash: u32) -> u64 {
    u64::from(hash) << 32 | u64::from(hash)
}
