//! One shard: all policy, single-threaded. The caller holds the lock.
//!
//! Invariants, recounted by [`Shard::validate`]:
//! - between two operations `used() <= budget`; the one exception is a budget below the shard's fixed cost;
//! - every live entry is in the table once, in exactly one queue, and in the wheel if and only if it expires;
//! - memory leaves through [`Trash`], which the caller drops after it has let go of the lock.

use std::sync::Arc;

use hashbrown::HashTable;

use super::{
    Seconds,
    class::{ClassTotals, Classes, item_size},
    queue::{Ghost, Queue},
    slab::{self, CHUNK_BYTES, CHUNK_ENTRIES, Chunk, Entry, FETCHED, HAS_FLAGS, IN_MAIN, MARKS, Slab},
    wheel::{NO_SLOT, Step, Wheel},
};

/// Entries the wheel looks at, and the slab moves, in the course of one operation: bounds its length.
const WHEEL_STEPS: usize = 8;
const COMPACT_STEPS: usize = 2;

/// Memory on its way out, dropped by the caller without the lock. Two places need no allocation.
#[derive(Default)]
pub(super) struct Trash {
    first: Option<Box<[u8]>>,
    second: Option<Box<[u8]>>,
    rest: Vec<Box<[u8]>>,
    chunks: Vec<Chunk>,
}

impl Trash {
    fn push(&mut self, data: Box<[u8]>) {
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
pub(super) enum Leaves {
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
    pub(super) store_too_large: u64,
    pub(super) store_no_memory: u64,
}

pub(super) struct Shard {
    table: HashTable<u32>,
    pub(super) slab: Slab,
    wheel: Wheel,
    small: Queue,
    main: Queue,
    ghost: Ghost,
    /// Chunks of flushed items, given back a chunk an operation: a flush takes no time and no reader waits.
    graveyard: Vec<Chunk>,
    graveyard_bytes: u64,
    /// Allocations of the live entries, as the allocator rounds them.
    data_bytes: u64,
    /// The live entries as memcached counts them.
    pub(super) requested_bytes: u64,
    budget: u64,
    evict: bool,
    pending_flush: Option<Seconds>,
    /// The time of the latest operation, for those that are given none.
    now: Seconds,
    classes: Arc<Classes>,
    pub(super) stats: Box<[ClassTotals]>,
    pub(super) counters: ShardCounters,
}

impl Shard {
    pub(super) fn new(budget: u64, evict: bool, classes: Arc<Classes>) -> Shard {
        let stats = (1..=classes.count())
            .map(|class| ClassTotals { chunk_size: classes.chunk_size(class as u8) as u64, ..ClassTotals::default() })
            .collect();
        Shard {
            table: HashTable::new(),
            slab: Slab::new(),
            wheel: Wheel::new(),
            small: Queue::new(),
            main: Queue::new(),
            ghost: Ghost::new(),
            graveyard: Vec::new(),
            graveyard_bytes: 0,
            data_bytes: 0,
            requested_bytes: 0,
            budget,
            evict,
            pending_flush: None,
            now: 0,
            classes,
            stats,
            counters: ShardCounters::default(),
        }
    }

    /// Bytes this shard holds, everything included.
    pub(super) fn used(&self) -> u64 {
        self.fixed_bytes()
            + self.data_bytes
            + self.slab.bytes()
            + self.table.allocation_size() as u64
            + self.ghost.bytes()
            + self.graveyard_bytes
    }

    fn fixed_bytes(&self) -> u64 {
        (size_of::<Shard>() + size_of_val(&*self.stats)) as u64
    }

    pub(super) fn hash_bytes(&self) -> u64 {
        self.table.allocation_size() as u64
    }

    pub(super) fn items(&self) -> u64 {
        u64::from(self.slab.live_count())
    }

    pub(super) fn set_budget(&mut self, budget: u64, trash: &mut Trash) {
        self.budget = budget;
        self.make_room(None, self.now, trash);
    }

    /// To be called first in every operation: a delayed flush takes effect at its second, before anything else.
    #[inline]
    pub(super) fn begin(&mut self, now: Seconds) {
        self.now = now;
        if self.pending_flush.is_some_and(|at| at <= now) {
            self.flush_now();
        }
    }

    /// To be called last in every operation: a bounded share of the upkeep.
    #[inline]
    pub(super) fn finish(&mut self, now: Seconds, trash: &mut Trash) {
        if self.wheel.is_due(now) {
            for _ in 0..WHEEL_STEPS {
                if matches!(self.wheel_step(now, Leaves::ExpiredWheel, None, trash), Step::Idle) {
                    break;
                }
            }
        }
        if self.slab.free_count() as usize > CHUNK_ENTRIES {
            for _ in 0..COMPACT_STEPS {
                self.compact_step();
            }
        }
        if !self.graveyard.is_empty() {
            self.bury_chunk(trash);
        }
    }

    pub(super) fn flush_at(&mut self, at: Seconds, now: Seconds) {
        if at <= now {
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
                entry.hash == hash && entry.key() == key
            })
            .copied()
    }

    /// A use: marks the entry for the order of eviction and remembers when.
    #[inline]
    pub(super) fn mark_used(&mut self, index: u32, now: Seconds, fetched: bool) {
        let entry = self.slab.get_mut(index);
        entry.bump();
        entry.last_access = now;
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
        &mut self.stats[usize::from(self.classes.of(item_size)) - 1]
    }

    pub(super) fn set_expiry(&mut self, index: u32, expiry: Seconds) {
        self.wheel.unlink(&mut self.slab, index);
        self.slab.get_mut(index).exptime = expiry;
        self.wheel.link(&mut self.slab, index);
    }

    /// Adds an entry for a key that has none. `None`: no memory, and nothing changed.
    pub(super) fn insert(&mut self, hash: u32, new: NewData, now: Seconds, trash: &mut Trash) -> Option<u32> {
        let index = self.slab.take_slot();
        let cost = entry_cost(&new.data);
        self.write(index, hash, new, now);
        let to_main = self.ghost.take(hash);
        self.slab.get_mut(index).put(IN_MAIN, to_main);
        if to_main {
            self.main.push(&mut self.slab, index, cost);
        } else {
            self.small.push(&mut self.slab, index, cost);
        }
        let slab = &self.slab;
        self.table.insert_unique(spread(hash), index, |&other| spread(slab.get(other).hash));
        self.counters.total_items += 1;
        let mut index = Some(index);
        if self.make_room(index.as_mut(), now, trash) {
            self.relink(index);
            return index;
        }
        self.counters.total_items -= 1;
        if let Some(index) = index {
            self.remove(index, Leaves::Deleted, now, trash);
        }
        self.make_room(None, now, trash);
        None
    }

    /// Gives an entry new contents in its place in the queue. `None`: no memory, and the old contents stay.
    pub(super) fn replace(&mut self, index: u32, new: NewData, now: Seconds, trash: &mut Trash) -> Option<u32> {
        let hash = self.slab.get(index).hash;
        let old = self.exchange(index, hash, new, now);
        let mut index = Some(index);
        if self.make_room(index.as_mut(), now, trash) {
            self.counters.total_items += 1;
            trash.push(old.data);
            self.relink(index);
            return index;
        }
        if let Some(index) = index {
            let refused = self.exchange(index, hash, old, now);
            trash.push(refused.data);
        }
        None
    }

    pub(super) fn remove(&mut self, index: u32, why: Leaves, now: Seconds, trash: &mut Trash) {
        self.count_leaving(index, why, now);
        let entry = self.slab.get(index);
        let (hash, cost, in_main) = (entry.hash, entry_cost(&entry.data), entry.has(IN_MAIN));
        if let Ok(found) = self.table.find_entry(spread(hash), |&other| other == index) {
            found.remove();
        }
        let queue = if in_main { &mut self.main } else { &mut self.small };
        queue.remove(&mut self.slab, index, cost);
        self.forget_contents(index);
        trash.push(self.slab.free_slot(index));
    }

    /// Evicts, reclaims and shrinks until `used() <= budget`; never touches `keep`, whose index may change.
    /// False if that cannot be done.
    fn make_room(&mut self, mut keep: Option<&mut u32>, now: Seconds, trash: &mut Trash) -> bool {
        let mut first = true;
        while self.used() > self.budget {
            let held = keep.as_deref().copied();
            if !self.graveyard.is_empty() {
                self.bury_chunk(trash);
            } else if self.slab.free_count() as usize > CHUNK_ENTRIES {
                if let (Some((from, to)), Some(keep)) = (self.compact_step(), keep.as_deref_mut())
                    && *keep == from
                {
                    *keep = to;
                }
            } else if self.shrink_table() {
            } else if self.wheel.is_due(now) {
                self.wheel_step(now, Leaves::ExpiredReclaimed, held, trash);
            } else if !self.evict || !self.evict_one(held, now, trash) {
                if self.ghost.bytes() > 0 {
                    self.ghost.clear();
                    continue;
                }
                return false;
            } else if first && let Some(index) = held {
                self.stats_of(index).direct_reclaims += 1;
                first = false;
            }
        }
        true
    }

    /// One victim by S3-FIFO. False if nothing but `keep` is left.
    fn evict_one(&mut self, keep: Option<u32>, now: Seconds, trash: &mut Trash) -> bool {
        loop {
            let from_small = self.main.len == 0 || self.small.bytes * 10 > self.small.bytes + self.main.bytes;
            if from_small && self.small.len > 0 {
                let index = self.small.tail();
                let entry = self.slab.get(index);
                let cost = entry_cost(&entry.data);
                if keep == Some(index) || entry.frequency() > 1 {
                    self.small.remove(&mut self.slab, index, cost);
                    self.main.push(&mut self.slab, index, cost);
                    self.slab.get_mut(index).put(IN_MAIN, true);
                    self.slab.get_mut(index).set_frequency(0);
                    self.stats_of(index).moves_to_warm += 1;
                    continue;
                }
                let hash = entry.hash;
                self.remove(index, Leaves::Evicted, now, trash);
                self.ghost.insert(hash, self.slab.live_count());
                return true;
            }
            let index = self.main.tail();
            if self.main.len == 0 || (self.main.len == 1 && keep == Some(index)) {
                if self.small.len == 0 {
                    return false;
                }
                // Only the kept entry is in the main queue: take from the small one, whatever its share.
                let index = self.small.tail();
                self.remove(index, Leaves::Evicted, now, trash);
                return true;
            }
            let entry = self.slab.get_mut(index);
            let frequency = entry.frequency();
            if keep == Some(index) || frequency > 0 {
                entry.set_frequency(frequency.saturating_sub(1));
                let cost = entry_cost(&entry.data);
                self.main.remove(&mut self.slab, index, cost);
                self.main.push(&mut self.slab, index, cost);
                self.stats_of(index).moves_within_lru += 1;
                continue;
            }
            self.remove(index, Leaves::Evicted, now, trash);
            return true;
        }
    }

    /// One step of the wheel; an expired entry is removed, unless it is the one just being stored.
    fn wheel_step(&mut self, now: Seconds, why: Leaves, keep: Option<u32>, trash: &mut Trash) -> Step {
        let step = self.wheel.step(&mut self.slab, now);
        if let Step::Expired(index) = step {
            if keep == Some(index) {
                // Stored already expired: out of the wheel for now, and back in when its store is done.
                self.wheel.unlink(&mut self.slab, index);
            } else {
                self.remove(index, why, now, trash);
            }
        }
        step
    }

    /// Puts an entry stored already expired back into the wheel, if `wheel_step` met it meanwhile.
    fn relink(&mut self, index: Option<u32>) {
        if let Some(index) = index
            && self.slab.get(index).timer_slot == NO_SLOT
        {
            self.wheel.link(&mut self.slab, index);
        }
    }

    /// Moves the last entry of the slab into a free slot, or gives the last slot back.
    fn compact_step(&mut self) -> Option<(u32, u32)> {
        let (from, to) = self.slab.drop_last()?;
        let entry = self.slab.get(to);
        let (hash, in_main) = (entry.hash, entry.has(IN_MAIN));
        if let Some(index) = self.table.find_mut(spread(hash), |&other| other == from) {
            *index = to;
        }
        let queue = if in_main { &mut self.main } else { &mut self.small };
        queue.relocated(&mut self.slab, to);
        self.wheel.relocated(&mut self.slab, to);
        Some((from, to))
    }

    /// Halves a table that is far too large for what it holds.
    fn shrink_table(&mut self) -> bool {
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
        self.graveyard_bytes += self.data_bytes + self.slab.bytes();
        self.graveyard.append(&mut self.slab.take_chunks());
        if self.graveyard.is_empty() {
            self.graveyard_bytes = 0;
        }
        self.table = HashTable::new();
        self.wheel = Wheel::new();
        self.small = Queue::new();
        self.main = Queue::new();
        self.ghost.clear();
        self.data_bytes = 0;
        self.requested_bytes = 0;
        for class in &mut self.stats {
            class.number = 0;
            class.mem_requested = 0;
        }
    }

    fn bury_chunk(&mut self, trash: &mut Trash) {
        let Some(chunk) = self.graveyard.pop() else { return };
        let freed = CHUNK_BYTES + chunk.iter().map(|entry| slab::allocated(entry.data.len())).sum::<u64>();
        self.graveyard_bytes = if self.graveyard.is_empty() { 0 } else { self.graveyard_bytes - freed };
        if self.graveyard.is_empty() {
            self.graveyard = Vec::new();
        }
        trash.chunks.push(chunk);
    }

    fn count_leaving(&mut self, index: u32, why: Leaves, now: Seconds) {
        let entry = self.slab.get(index);
        let (fetched, expires, used_lately) = (entry.has(FETCHED), entry.exptime != 0, entry.frequency() > 1);
        let idle = u64::from(now.saturating_sub(entry.last_access));
        let stats = self.stats_of(index);
        match why {
            Leaves::Deleted => return,
            Leaves::Evicted => {
                stats.evicted += 1;
                stats.evicted_nonzero += u64::from(expires);
                stats.evicted_unfetched += u64::from(!fetched);
                stats.evicted_active += u64::from(used_lately);
                stats.evicted_time = idle;
                return;
            }
            Leaves::ExpiredRead => {}
            Leaves::ExpiredWheel => stats.crawler_reclaimed += 1,
            Leaves::ExpiredReclaimed => stats.reclaimed += 1,
        }
        stats.expired_unfetched += u64::from(!fetched);
    }

    /// Fills a vacant slot and counts its contents.
    fn write(&mut self, index: u32, hash: u32, new: NewData, now: Seconds) {
        let class = self.classes.of(item_size(new.key_len.into(), new.flags, new.value_len()));
        let entry = self.slab.get_mut(index);
        entry.hash = hash;
        entry.key_len = new.key_len;
        entry.class = class;
        entry.last_access = now;
        entry.timer_slot = NO_SLOT;
        fill(entry, new);
        self.count_contents(index);
    }

    /// Swaps an entry's contents, keeps its place, and returns the old ones.
    fn exchange(&mut self, index: u32, hash: u32, new: NewData, now: Seconds) -> NewData {
        self.forget_contents(index);
        let entry = self.slab.get_mut(index);
        let old_cost = entry_cost(&entry.data);
        let old = NewData {
            flags: entry.flags(),
            data: std::mem::take(&mut entry.data),
            key_len: entry.key_len,
            expiry: entry.exptime,
            cas: entry.cas,
            marks: entry.marks(),
        };
        entry.bump();
        let in_main = entry.has(IN_MAIN);
        let new_cost = entry_cost(&new.data);
        self.write(index, hash, new, now);
        let queue = if in_main { &mut self.main } else { &mut self.small };
        queue.bytes = queue.bytes - old_cost + new_cost;
        old
    }

    fn count_contents(&mut self, index: u32) {
        let entry = self.slab.get(index);
        let (allocated, size) = (slab::allocated(entry.data.len()), entry.item_size() as u64);
        self.data_bytes += allocated;
        self.requested_bytes += size;
        let stats = self.stats_of(index);
        stats.number += 1;
        stats.mem_requested += size;
        self.wheel.link(&mut self.slab, index);
    }

    fn forget_contents(&mut self, index: u32) {
        self.wheel.unlink(&mut self.slab, index);
        let entry = self.slab.get(index);
        let (allocated, size) = (slab::allocated(entry.data.len()), entry.item_size() as u64);
        self.data_bytes -= allocated;
        self.requested_bytes -= size;
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
        let (mut data, mut requested) = (0, 0);
        let mut stats: Vec<(u64, u64)> = vec![(0, 0); self.stats.len()];
        for &index in &live {
            let entry = self.slab.get(index);
            check(self.find(entry.hash, entry.key()) == Some(index), "an entry the table does not find")?;
            check((entry.exptime == 0) == (entry.timer_slot == NO_SLOT), "wheel membership")?;
            check(entry.class == self.classes.of(entry.item_size()), "class")?;
            data += slab::allocated(entry.data.len());
            requested += entry.item_size() as u64;
            let class = &mut stats[usize::from(entry.class) - 1];
            class.0 += 1;
            class.1 += entry.item_size() as u64;
        }
        check(data == self.data_bytes, "data bytes")?;
        check(requested == self.requested_bytes, "requested bytes")?;
        check(stats.iter().zip(&self.stats).all(|(a, b)| *a == (b.number, b.mem_requested)), "class totals")?;
        for (queue, in_main) in [(&self.small, false), (&self.main, true)] {
            let indices = queue.indices(&self.slab);
            let bytes: u64 = indices.iter().map(|&index| entry_cost(&self.slab.get(index).data)).sum();
            check(indices.len() == queue.len as usize && bytes == queue.bytes, "queue totals")?;
            check(indices.iter().all(|&index| self.slab.get(index).has(IN_MAIN) == in_main), "queue mark")?;
            check(indices.iter().all(|&index| self.slab.get(index).is_live()), "a free slot in a queue")?;
        }
        check(self.small.len + self.main.len == self.slab.live_count(), "queue lengths")?;
        let buried: u64 = self
            .graveyard
            .iter()
            .map(|chunk| CHUNK_BYTES + chunk.iter().map(|e| slab::allocated(e.data.len())).sum::<u64>())
            .sum();
        check(buried <= self.graveyard_bytes, "graveyard bytes")?;
        if self.used() > self.budget.max(self.fixed_bytes()) {
            return Err(format!("used {} of {}", self.used(), self.budget));
        }
        Ok(())
    }
}

/// Contents for an entry, packed before the lock is taken.
pub(super) struct NewData {
    pub(super) data: Box<[u8]>,
    pub(super) key_len: u8,
    pub(super) flags: u32,
    pub(super) expiry: Seconds,
    pub(super) cas: u64,
    /// Of `MARKS`.
    pub(super) marks: u8,
}

impl NewData {
    fn value_len(&self) -> usize {
        self.data.len() - usize::from(self.key_len) - if self.flags == 0 { 0 } else { 4 }
    }
}

fn fill(entry: &mut Entry, new: NewData) {
    entry.data = new.data;
    entry.cas = new.cas;
    entry.exptime = new.expiry;
    entry.put(HAS_FLAGS, new.flags != 0);
    entry.put(MARKS, false);
    entry.put(new.marks, true);
}

/// An entry's weight in its queue.
fn entry_cost(data: &[u8]) -> u64 {
    slab::allocated(data.len()) + size_of::<Entry>() as u64
}

/// The table wants 64 bits and reads its tag from the top; the record keeps 32.
#[inline]
fn spread(hash: u32) -> u64 {
    u64::from(hash) << 32 | u64::from(hash)
}
