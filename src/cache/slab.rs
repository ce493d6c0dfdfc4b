//! Where entries live: fixed-size records in chunks, addressed by a 32-bit index.
//!
//! Growth adds a chunk and copies nothing. Freed slots are reused first; when more than a chunk's worth of them
//! is free, the shard moves the last entry down (see `Shard::compact_step`) until the last chunk can go, so a
//! shard that once held many small items does not keep their records for ever.

use super::{Seconds, arena::DataPlace, large::SHARED_BYTES_MIN};

/// Entries in a chunk: 6 KiB, small enough for a shard of a few hundred KiB.
pub(super) const CHUNK_ENTRIES: usize = 128;
pub(super) const CHUNK_BYTES: u64 = (CHUNK_ENTRIES * size_of::<ItemEntry>()) as u64;
/// No entry.
pub(super) const NIL: u32 = u32::MAX;

pub(super) type Chunk = Box<[ItemEntry; CHUNK_ENTRIES]>;

/// Neighbours in a doubly linked list of entries.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct QueueLinks {
    pub(super) prev: u32,
    pub(super) next: u32,
}

impl QueueLinks {
    pub(super) const NONE: QueueLinks = QueueLinks { prev: NIL, next: NIL };
}

/// One item's record: 48 bytes, beside its data's place in the arena.
#[derive(Clone, Copy, Debug)]
pub(super) struct ItemEntry {
    /// Key, value, then four bytes of flags if `HAS_FLAGS`.
    pub(super) place: DataPlace,
    pub(super) cas: u64,
    pub(super) exptime: Seconds,
    pub(super) last_access: Seconds,
    /// Neighbours in the eviction queue; of a free slot, in the free list.
    pub(super) queue: QueueLinks,
    /// Neighbours in the timing wheel's slot.
    pub(super) timer: QueueLinks,
    /// Low half of the key's hash; growing the table never reads a key.
    pub(super) hash: u32,
    /// Zero marks a free slot: no key is empty.
    pub(super) key_len: u8,
    pub(super) class: u8,
    /// Slot of the timing wheel, or `wheel::NO_SLOT`.
    pub(super) timer_slot: u8,
    bits: u8,
}

const FREQUENCY_MASK: u8 = 0b11;
/// In the main queue, not in the small one.
pub(super) const IN_MAIN: u8 = 1 << 2;
pub(super) const FETCHED: u8 = 1 << 3;
pub(super) const HAS_FLAGS: u8 = 1 << 4;
/// Meta commands: invalidated, yet still served.
pub(super) const STALE: u8 = 1 << 5;
/// Meta commands: somebody was told to recache it.
pub(super) const TOKEN_SENT: u8 = 1 << 6;
/// Meta commands: the key came in base64.
pub(super) const ENCODED_KEY: u8 = 1 << 7;
/// What an entry keeps when it moves, and loses when its item is replaced.
pub(super) const MARKS: u8 = FETCHED | STALE | TOKEN_SENT | ENCODED_KEY;

impl ItemEntry {
    fn vacant() -> ItemEntry {
        ItemEntry {
            place: DataPlace::NOWHERE,
            cas: 0,
            exptime: 0,
            last_access: 0,
            queue: QueueLinks::NONE,
            timer: QueueLinks::NONE,
            hash: 0,
            key_len: 0,
            class: 0,
            timer_slot: super::wheel::NO_SLOT,
            bits: 0,
        }
    }

    /// Of the data: the value.
    #[inline]
    pub(super) fn value_in<'a>(&self, data: &'a [u8]) -> &'a [u8] {
        &data[usize::from(self.key_len)..self.value_end()]
    }

    #[inline]
    pub(super) fn value_end(&self) -> usize {
        self.place.data_len() - if self.has(HAS_FLAGS) { 4 } else { 0 }
    }

    #[inline]
    pub(super) fn value_len(&self) -> usize {
        self.value_end() - usize::from(self.key_len)
    }

    /// Of the data: the flags.
    #[inline]
    pub(super) fn flags_in(&self, data: &[u8]) -> u32 {
        match data.last_chunk::<4>() {
            Some(bytes) if self.has(HAS_FLAGS) => u32::from_ne_bytes(*bytes),
            _ => 0,
        }
    }

    #[inline]
    pub(super) fn is_live(&self) -> bool {
        self.key_len != 0
    }

    #[inline]
    pub(super) fn is_expired(&self, now: Seconds) -> bool {
        self.exptime != 0 && self.exptime <= now
    }

    #[inline]
    pub(super) fn has(&self, bit: u8) -> bool {
        self.bits & bit != 0
    }

    #[inline]
    pub(super) fn put(&mut self, bit: u8, on: bool) {
        if on {
            self.bits |= bit;
        } else {
            self.bits &= !bit;
        }
    }

    #[inline]
    pub(super) fn frequency(&self) -> u8 {
        self.bits & FREQUENCY_MASK
    }

    pub(super) fn set_frequency(&mut self, frequency: u8) {
        self.bits = (self.bits & !FREQUENCY_MASK) | frequency.min(FREQUENCY_MASK);
    }

    /// A use: the only thing a hit changes in the order of eviction.
    #[inline]
    pub(super) fn bump(&mut self) {
        if self.bits & FREQUENCY_MASK != FREQUENCY_MASK {
            self.bits += 1;
        }
    }

    /// Size as memcached counts it.
    pub(super) fn item_size(&self) -> usize {
        let flags = u32::from(self.has(HAS_FLAGS));
        super::class::item_size(usize::from(self.key_len), flags, self.value_len())
    }
}

/// Key, value and flags in the one allocation an item has; none if there is no memory for a large one.
pub(super) fn pack(key: &[u8], parts: [&[u8]; 2], flags: u32) -> Option<Box<[u8]>> {
    let flag_bytes = if flags == 0 { 0 } else { 4 };
    let length = key.len() + parts[0].len() + parts[1].len() + flag_bytes;
    let mut data = Vec::new();
    if length < SHARED_BYTES_MIN {
        // As likely to fail as all the small ones that nobody asks for.
        data = Vec::with_capacity(length);
    } else {
        data.try_reserve_exact(length).ok()?;
    }
    data.extend_from_slice(key);
    data.extend_from_slice(parts[0]);
    data.extend_from_slice(parts[1]);
    if flags != 0 {
        data.extend_from_slice(&flags.to_ne_bytes());
    }
    Some(data.into_boxed_slice())
}

/// The chunks, and the list of free slots among the first `len`.
pub(super) struct Slab {
    pub(super) chunks: Vec<Chunk>,
    len: u32,
    free_head: u32,
    free_count: u32,
}

impl Slab {
    pub(super) fn new() -> Slab {
        Slab { chunks: Vec::new(), len: 0, free_head: NIL, free_count: 0 }
    }

    #[inline]
    pub(super) fn get(&self, index: u32) -> &ItemEntry {
        &self.chunks[index as usize / CHUNK_ENTRIES][index as usize % CHUNK_ENTRIES]
    }

    #[inline]
    pub(super) fn get_mut(&mut self, index: u32) -> &mut ItemEntry {
        &mut self.chunks[index as usize / CHUNK_ENTRIES][index as usize % CHUNK_ENTRIES]
    }

    pub(super) fn bytes(&self) -> u64 {
        self.chunks.len() as u64 * CHUNK_BYTES + (self.chunks.capacity() * size_of::<Chunk>()) as u64
    }

    /// Bytes that one more entry would need beyond what is held.
    pub(super) fn growth(&self) -> u64 {
        let full = self.free_head == NIL && self.len as usize == self.chunks.len() * CHUNK_ENTRIES;
        let list = if self.chunks.len() == self.chunks.capacity() { self.chunks.len().max(4) } else { 0 };
        if full { CHUNK_BYTES + (list * size_of::<Chunk>()) as u64 } else { 0 }
    }

    /// One past the highest slot ever used and not yet given back.
    pub(super) fn len(&self) -> u32 {
        self.len
    }

    pub(super) fn free_count(&self) -> u32 {
        self.free_count
    }

    pub(super) fn live_count(&self) -> u32 {
        self.len - self.free_count
    }

    /// A vacant slot, and a new chunk if there is none.
    pub(super) fn take_slot(&mut self) -> u32 {
        if self.free_head != NIL {
            let index = self.free_head;
            self.unlink_free(index);
            return index;
        }
        let index = self.len;
        if index as usize == self.chunks.len() * CHUNK_ENTRIES {
            self.chunks.push(Box::new(std::array::from_fn(|_| ItemEntry::vacant())));
        }
        self.len += 1;
        index
    }

    pub(super) fn free_slot(&mut self, index: u32) {
        let next = self.free_head;
        *self.get_mut(index) = ItemEntry { queue: QueueLinks { prev: NIL, next }, ..ItemEntry::vacant() };
        if next != NIL {
            self.get_mut(next).queue.prev = index;
        }
        self.free_head = index;
        self.free_count += 1;
    }

    /// If the last slot is vacant, gives it back; otherwise moves its entry to a free slot and returns where
    /// from and where to. The caller puts right every link to it. Needs a free slot.
    pub(super) fn drop_last(&mut self) -> Option<(u32, u32)> {
        let last = self.len - 1;
        let moved = if self.get(last).is_live() {
            let target = self.free_head;
            self.unlink_free(target);
            let entry = std::mem::replace(self.get_mut(last), ItemEntry::vacant());
            *self.get_mut(target) = entry;
            Some((last, target))
        } else {
            self.unlink_free(last);
            None
        };
        self.len = last;
        if (last as usize).is_multiple_of(CHUNK_ENTRIES) {
            self.chunks.pop();
            if self.chunks.capacity() > 64 && self.chunks.len() * 4 < self.chunks.capacity() {
                self.chunks.shrink_to(self.chunks.len() * 2);
            }
        }
        moved
    }

    fn unlink_free(&mut self, index: u32) {
        let QueueLinks { prev, next } = std::mem::replace(&mut self.get_mut(index).queue, QueueLinks::NONE);
        match prev {
            NIL => self.free_head = next,
            prev => self.get_mut(prev).queue.next = next,
        }
        if next != NIL {
            self.get_mut(next).queue.prev = prev;
        }
        self.free_count -= 1;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_entry_is_48_bytes() {
        assert_eq!(size_of::<ItemEntry>(), 48);
    }

    #[test]
    fn dropping_the_last_slots_releases_chunks() {
        let mut slab = Slab::new();
        for n in 0..300 {
            let index = slab.take_slot();
            assert_eq!(index, n);
            slab.get_mut(index).key_len = 1;
        }
        let full = slab.bytes();
        for n in 0..200 {
            slab.free_slot(n);
        }
        while slab.free_count() > 0 {
            if let Some((from, to)) = slab.drop_last() {
                assert!(from > to);
            }
        }
        assert_eq!((slab.len(), slab.live_count()), (100, 100));
        assert!(slab.bytes() < full);
    }
}
