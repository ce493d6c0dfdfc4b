//! The order of eviction: S3-FIFO with a small queue that adapts. New items enter the small queue; those used before
//! they reach its end move to the main queue, where a used item gets another round; the rest leave. A hit only raises
//! a two-bit counter in the item's record. A key that comes back soon after it was evicted is remembered by the ghost
//! table and goes straight to the main queue. One pass over many keys therefore costs the main queue nothing.
//!
//! How much the small queue gets is learnt: a key that comes back right after it has left the small queue would have
//! been kept by a larger small queue, one right after it has left the main queue by a larger main queue, and either
//! moves the share. So the order is close to that of last use while popularity moves, and close to that of frequency
//! while it stands still. What was tried beside it is in `docs/design/cache.md`.

use super::slab::{NIL, QueueLinks, Slab};

/// A first-in first-out list through the entries, with its weight in bytes.
pub(super) struct EvictionQueue {
    head: u32,
    tail: u32,
    pub(super) len: u32,
    pub(super) bytes: u64,
}

impl EvictionQueue {
    pub(super) fn new() -> EvictionQueue {
        EvictionQueue { head: NIL, tail: NIL, len: 0, bytes: 0 }
    }

    /// The oldest entry, or `NIL`.
    pub(super) fn tail(&self) -> u32 {
        self.tail
    }

    pub(super) fn push(&mut self, slab: &mut Slab, index: u32, bytes: u64) {
        slab.get_mut(index).queue = QueueLinks { prev: NIL, next: self.head };
        match self.head {
            NIL => self.tail = index,
            head => slab.get_mut(head).queue.prev = index,
        }
        self.head = index;
        self.len += 1;
        self.bytes += bytes;
    }

    pub(super) fn remove(&mut self, slab: &mut Slab, index: u32, bytes: u64) {
        let QueueLinks { prev, next } = std::mem::replace(&mut slab.get_mut(index).queue, QueueLinks::NONE);
        match prev {
            NIL => self.head = next,
            prev => slab.get_mut(prev).queue.next = next,
        }
        match next {
            NIL => self.tail = prev,
            next => slab.get_mut(next).queue.prev = prev,
        }
        self.len -= 1;
        self.bytes -= bytes;
    }

    /// Puts right the links to an entry that was moved to `index`.
    pub(super) fn relocated(&mut self, slab: &mut Slab, index: u32) {
        let QueueLinks { prev, next } = slab.get(index).queue;
        match prev {
            NIL => self.head = index,
            prev => slab.get_mut(prev).queue.next = index,
        }
        match next {
            NIL => self.tail = index,
            next => slab.get_mut(next).queue.prev = index,
        }
    }

    /// Every entry from the newest to the oldest; for the recount in tests.
    pub(super) fn indices(&self, slab: &Slab) -> Vec<u32> {
        let mut found = Vec::new();
        let mut index = self.head;
        while index != NIL {
            found.push(index);
            index = slab.get(index).queue.next;
        }
        found
    }
}

/// The small queue's part of the weight of both, in parts of [`SmallQueueShare::WHOLE`].
pub(super) struct SmallQueueShare(u32);

impl SmallQueueShare {
    const WHOLE: u32 = 1 << 16;
    const FIRST: u32 = SmallQueueShare::WHOLE / 10;
    const LEAST: u32 = SmallQueueShare::WHOLE / 50;
    const MOST: u32 = SmallQueueShare::WHOLE / 10 * 9;
    /// A key that comes back moves the share by so many times its own part of the weight.
    const STEP: u64 = 16;

    pub(super) fn new() -> SmallQueueShare {
        SmallQueueShare(SmallQueueShare::FIRST)
    }

    /// Whether the small queue has more than its share.
    #[inline]
    pub(super) fn is_exceeded(&self, small_bytes: u64, main_bytes: u64) -> bool {
        small_bytes * u64::from(SmallQueueShare::WHOLE) > (small_bytes + main_bytes) * u64::from(self.0)
    }

    /// A key of this cost has come back right after it was evicted.
    pub(super) fn learn(&mut self, from_main: bool, cost: u64, whole: u64) {
        let step = (cost * SmallQueueShare::STEP * u64::from(SmallQueueShare::WHOLE) / whole.max(1))
            .clamp(1, u64::from(SmallQueueShare::FIRST)) as u32;
        let moved = if from_main { self.0.saturating_sub(step) } else { self.0 + step };
        self.0 = moved.clamp(SmallQueueShare::LEAST, SmallQueueShare::MOST);
    }
}

/// What the ghost table remembers of a key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct GhostHit {
    pub(super) from_main: bool,
    /// Since then no more than a twentieth of as many items as there are have left the same queue.
    pub(super) recent: bool,
}

/// Keys evicted lately, each in the one place its hash allows; a newer one overwrites. About as many places as the
/// shard has items; its memory counts in the budget.
///
/// A place holds 20 bits of the hash, the queue, and when: evictions from that queue, counted roughly.
pub(super) struct Ghost {
    places: Box<[u32]>,
    /// Evictions from the small queue and from the main queue.
    evictions: [u32; 2],
}

const WHEN_BITS: u32 = 11;
const FROM_MAIN: u32 = 1 << WHEN_BITS;
const TAG_SHIFT: u32 = WHEN_BITS + 1;

impl Ghost {
    pub(super) fn new() -> Ghost {
        Ghost { places: Box::default(), evictions: [0; 2] }
    }

    pub(super) fn bytes(&self) -> u64 {
        super::arena::allocated(size_of_val(&*self.places))
    }

    pub(super) fn insert(&mut self, hash: u32, from_main: bool, items: u32) {
        self.resize(items);
        let evictions = &mut self.evictions[usize::from(from_main)];
        *evictions = evictions.wrapping_add(1);
        let mark = if from_main { FROM_MAIN } else { 0 };
        let when = self.when(from_main);
        if let Some(place) = self.place(hash) {
            self.places[place] = hash >> TAG_SHIFT << TAG_SHIFT | mark | when;
        }
    }

    /// What is remembered of a key; forgets it.
    pub(super) fn take(&mut self, hash: u32, items: u32) -> Option<GhostHit> {
        let place = self.place(hash)?;
        let found = self.places[place];
        if found == 0 || found >> TAG_SHIFT != hash >> TAG_SHIFT {
            return None;
        }
        self.places[place] = 0;
        let from_main = found & FROM_MAIN != 0;
        let age = self.when(from_main).wrapping_sub(found) & (FROM_MAIN - 1);
        Some(GhostHit { from_main, recent: age * self.quantum() <= items / 20 })
    }

    pub(super) fn clear(&mut self) {
        self.places = Box::default();
    }

    /// Evictions that count as one: the whole range is twice the number of places.
    fn quantum(&self) -> u32 {
        (self.places.len() as u32 >> (WHEN_BITS - 1)).max(1)
    }

    fn when(&self, from_main: bool) -> u32 {
        (self.evictions[usize::from(from_main)] / self.quantum()) & (FROM_MAIN - 1)
    }

    /// Follows the number of items, up or down, with room between so that it rarely moves; then it begins anew.
    fn resize(&mut self, items: u32) {
        let wanted = (items as usize).next_power_of_two();
        if wanted > self.places.len() * 2 || wanted * 8 < self.places.len() {
            self.places = vec![0; wanted].into_boxed_slice();
        }
    }

    fn place(&self, hash: u32) -> Option<usize> {
        let spread = hash.wrapping_mul(0x9E37_79B1) >> 8;
        if self.places.is_empty() { None } else { Some(spread as usize & (self.places.len() - 1)) }
    }
}
