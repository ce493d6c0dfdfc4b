//! The order of eviction: S3-FIFO. New items enter the small queue; those used again before they reach its end
//! move to the main queue, where a used item gets another round; the rest leave. A hit only raises a two-bit
//! counter in the item's record. A key that comes back soon after it was evicted is remembered by the ghost
//! table and goes straight to the main queue. One pass over many keys therefore costs the main queue nothing.

use super::slab::{Link, NIL, Slab};

/// A first-in first-out list through the entries, with its weight in bytes.
pub(super) struct Queue {
    head: u32,
    tail: u32,
    pub(super) len: u32,
    pub(super) bytes: u64,
}

impl Queue {
    pub(super) fn new() -> Queue {
        Queue { head: NIL, tail: NIL, len: 0, bytes: 0 }
    }

    /// The oldest entry, or `NIL`.
    pub(super) fn tail(&self) -> u32 {
        self.tail
    }

    pub(super) fn push(&mut self, slab: &mut Slab, index: u32, bytes: u64) {
        slab.get_mut(index).queue = Link { prev: NIL, next: self.head };
        match self.head {
            NIL => self.tail = index,
            head => slab.get_mut(head).queue.prev = index,
        }
        self.head = index;
        self.len += 1;
        self.bytes += bytes;
    }

    pub(super) fn remove(&mut self, slab: &mut Slab, index: u32, bytes: u64) {
        let Link { prev, next } = std::mem::replace(&mut slab.get_mut(index).queue, Link::NONE);
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
        let Link { prev, next } = slab.get(index).queue;
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

/// Hashes of keys evicted from the small queue, each in the one place its hash allows; a newer one overwrites.
/// About as many places as the shard has items; its memory counts in the budget.
pub(super) struct Ghost {
    places: Box<[u32]>,
}

impl Ghost {
    pub(super) fn new() -> Ghost {
        Ghost { places: Box::default() }
    }

    pub(super) fn bytes(&self) -> u64 {
        super::arena::allocated(size_of_val(&*self.places))
    }

    pub(super) fn insert(&mut self, hash: u32, items: u32) {
        self.fit(items);
        if let Some(place) = self.place(hash) {
            self.places[place] = hash;
        }
    }

    /// Whether the key was evicted lately; forgets it.
    pub(super) fn take(&mut self, hash: u32) -> bool {
        match self.place(hash) {
            Some(place) if self.places[place] == hash && hash != 0 => {
                self.places[place] = 0;
                true
            }
            _ => false,
        }
    }

    pub(super) fn clear(&mut self) {
        self.places = Box::default();
    }

    /// Follows the number of items, up or down, with room between so that it rarely moves.
    fn fit(&mut self, items: u32) {
        let wanted = (items as usize).next_power_of_two();
        if wanted > self.places.len() * 2 || wanted * 8 < self.places.len() {
            let old = std::mem::replace(&mut self.places, vec![0; wanted].into_boxed_slice());
            for hash in old {
                if let Some(place) = self.place(hash) {
                    self.places[place] = hash;
                }
            }
        }
    }

    fn place(&self, hash: u32) -> Option<usize> {
        let spread = hash.wrapping_mul(0x9E37_79B1) >> 8;
        if self.places.is_empty() { None } else { Some(spread as usize & (self.places.len() - 1)) }
    }
}
