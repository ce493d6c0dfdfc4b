//! Where keys, values and flags lie: dense slots of set sizes in pages; what is too large for a slot has an
//! allocation of its own.
//!
//! Slots of one size form a bin. A bin has no holes: a slot that is freed is filled with the bin's last slot, whose
//! owner gets the new place. So a bin wastes less than one page whatever its history, its pages go back as soon as they are empty, and
//! pages, being of few sizes, leave the allocator little to fragment. A step from one slot size to the next is about
//! a thirty-second for small ones and up to a sixth for the largest; memcached's is a quarter, a general allocator's an eighth to a quarter.
//!
//! Never decides what is evicted; never looks into what it keeps, but for the owner's number in front of each slot.

use std::{collections::BTreeMap, sync::Arc};

use super::large::{DetachedBytes, HEADER_BYTES, LargeData, SHARED_BYTES_MIN};
use super::shard::DeferredDrop;

/// In front of the data of each slot: the index of its entry.
const OWNER_BYTES: usize = size_of::<u32>();
/// Data of up to so many bytes is kept in slots.
pub(super) const SLOT_DATA_BYTES_MAX: usize = SLOT_BYTES_MAX - OWNER_BYTES;
/// Slot sizes are told apart this finely when one is looked up.
const GRAIN_BYTES: usize = 4;
/// When memory is short, data may lie in a slot so many sizes too large; at most a fifth of it is then
/// wasted.
const NEAR_BINS: usize = 2;
/// Bits of a small place that count slots in their page.
const SLOT_BITS: u32 = 10;
/// Marks the form of data with an allocation of its own.
const LARGE: u32 = 1 << 31;
/// Of the form of a small place: the length below, the bin above.
const LEN_BITS: u32 = 16;

/// Sizes of pages. The allocator has each of them as it is, and packs them without a gap, which it does with nothing
/// larger; they are several so that a whole number of slots of nearly any size fills one of them.
const PAGE_BYTES: [usize; 4] = [8 << 10, 10 << 10, 12 << 10, 14 << 10];
/// The largest slot; it has a page to itself.
const SLOT_BYTES_MAX: usize = PAGE_BYTES[0];
/// Slots of a page at most.
const SLOTS_MAX: usize = 1 << SLOT_BITS;
/// From one slot size to the next it is a thirty-second, or the next size that fills a page.
const STEP: usize = 32;

/// Where an item's data is, and how long it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct DataPlace {
    /// Small: page and slot. Large: index in the list.
    at: u32,
    /// Small: bin and length. Large: the mark and length.
    form: u32,
}

impl DataPlace {
    pub(super) const NOWHERE: DataPlace = DataPlace { at: u32::MAX, form: 0 };

    #[inline]
    pub(super) fn data_len(self) -> usize {
        (if self.is_large() { self.form & !LARGE } else { self.form & ((1 << LEN_BITS) - 1) }) as usize
    }

    #[inline]
    pub(super) fn is_large(self) -> bool {
        self.form & LARGE != 0
    }

    #[inline]
    fn bin(self) -> usize {
        (self.form >> LEN_BITS) as usize
    }

    #[inline]
    fn page(self) -> usize {
        (self.at >> SLOT_BITS) as usize
    }

    #[inline]
    fn slot(self) -> usize {
        self.at as usize & ((1 << SLOT_BITS) - 1)
    }
}

/// The slot sizes there are; the same for all shards.
pub(super) struct SlotSizes {
    /// Slot size and kind of page of each bin, ascending.
    bins: Vec<(u32, u8)>,
    /// The bin of a slot size, by `GRAIN_BYTES`.
    by_size: Vec<u8>,
}

impl SlotSizes {
    pub(super) fn new() -> SlotSizes {
        // Every size of which some number fills a page, with the smallest such page.
        let mut fitting: BTreeMap<usize, u8> = BTreeMap::new();
        for (kind, page) in PAGE_BYTES.into_iter().enumerate() {
            for count in page.div_ceil(SLOT_BYTES_MAX)..=SLOTS_MAX {
                fitting.entry(page / count / GRAIN_BYTES * GRAIN_BYTES).or_insert(kind as u8);
            }
        }
        let mut bins = Vec::new();
        let mut last = PAGE_BYTES[0] / SLOTS_MAX;
        while last < SLOT_BYTES_MAX {
            let far = last + (last / STEP).max(GRAIN_BYTES);
            let next = fitting.range(last + 1..=far).next_back().or(fitting.range(far..).next());
            let Some((&size, &kind)) = next else { break };
            bins.push((size as u32, kind));
            last = size;
        }
        let largest = SLOT_BYTES_MAX;
        let by_size = (0..=largest / GRAIN_BYTES)
            .map(|grains| bins.partition_point(|&(size, _)| (size as usize) < grains * GRAIN_BYTES) as u8)
            .collect();
        SlotSizes { bins, by_size }
    }

    /// The bin for data of a length; `None` if it is kept by itself.
    #[inline]
    fn bin_of(&self, len: usize) -> Option<usize> {
        self.by_size.get((len + OWNER_BYTES).div_ceil(GRAIN_BYTES)).map(|&bin| usize::from(bin))
    }
}

/// What is to be kept: the pieces, one after the other, or one allocation that already holds them.
pub(super) enum DataInput<'a> {
    Pieces([&'a [u8]; 3]),
    Whole(Box<[u8]>),
}

impl DataInput<'_> {
    pub(super) fn len(&self) -> usize {
        match self {
            DataInput::Pieces(pieces) => pieces.iter().map(|piece| piece.len()).sum(),
            DataInput::Whole(data) => data.len(),
        }
    }

    fn write_to(&self, mut out: &mut [u8]) {
        let pieces = match self {
            DataInput::Pieces(pieces) => *pieces,
            DataInput::Whole(data) => [&**data, b"", b""],
        };
        for piece in pieces {
            let (here, rest) = out.split_at_mut(piece.len());
            here.copy_from_slice(piece);
            out = rest;
        }
    }

    fn into_whole(self) -> Box<[u8]> {
        match self {
            DataInput::Pieces(pieces) => pieces.concat().into_boxed_slice(),
            DataInput::Whole(data) => data,
        }
    }
}

struct Bin {
    slot_bytes: u32,
    /// Slots of a page.
    per_page: u32,
    /// Slots taken of the last page; the others are full.
    in_last: u32,
    kind: u8,
    pages: Vec<Box<[u8]>>,
}

impl Bin {
    #[inline]
    fn has_room(&self) -> bool {
        self.in_last < self.per_page && !self.pages.is_empty()
    }

    fn last_slot(&self) -> u32 {
        ((self.pages.len() - 1) << SLOT_BITS) as u32 | (self.in_last - 1)
    }
}

struct LargeEntry {
    owner: u32,
    data: Allocation,
}

/// An allocation of its own: a page, or an item's data.
pub(super) enum Allocation {
    Own(Box<[u8]>),
    /// Readers may hold on to it.
    Shared(LargeData),
}

impl Allocation {
    #[inline]
    fn of_item(data: Box<[u8]>, detached: &Arc<DetachedBytes>) -> Allocation {
        if data.len() < SHARED_BYTES_MIN {
            Allocation::Own(data)
        } else {
            Allocation::Shared(LargeData::new(data, detached.clone()))
        }
    }

    /// What it takes.
    #[inline]
    pub(super) fn cost(&self) -> u64 {
        large_bytes(self.bytes().len())
    }

    #[inline]
    fn bytes(&self) -> &[u8] {
        match self {
            Allocation::Own(bytes) => bytes,
            Allocation::Shared(data) => data.bytes(),
        }
    }

    #[inline]
    fn bytes_mut(&mut self) -> &mut [u8] {
        match self {
            Allocation::Own(bytes) => bytes,
            Allocation::Shared(data) => data.bytes_mut(),
        }
    }
}

/// What was moved to fill a gap: the owner, and what [`Arena::free`] was given is now its place, but for the length.
pub(super) struct Moved {
    pub(super) owner: u32,
    at: u32,
}

impl Moved {
    /// Puts the owner's place right.
    pub(super) fn correct(&self, place: &mut DataPlace) {
        place.at = self.at;
    }
}

pub(super) struct Arena {
    layout: Arc<SlotSizes>,
    /// Data may lie in a slot so many sizes too large, when memory is short.
    reach: usize,
    bins: Box<[Bin]>,
    large: Vec<LargeEntry>,
    detached: Arc<DetachedBytes>,
    /// An empty page of each kind: a bin at the brink of a page does not go to the allocator each time.
    spare: [Option<Box<[u8]>>; PAGE_BYTES.len()],
    /// Of pages, spare ones included, and of large data as the allocator rounds it.
    bytes: u64,
}

impl Arena {
    /// With `evict`, there is another way to get memory than to use a slot that is far too large.
    pub(super) fn new(layout: Arc<SlotSizes>, evict: bool, detached: Arc<DetachedBytes>) -> Arena {
        let reach = if evict { NEAR_BINS } else { layout.bins.len() };
        let bin = |&(slot_bytes, kind): &(u32, u8)| Bin {
            slot_bytes,
            per_page: (PAGE_BYTES[usize::from(kind)] as u32 / slot_bytes).min(SLOTS_MAX as u32),
            in_last: 0,
            kind,
            pages: Vec::new(),
        };
        let bins = layout.bins.iter().map(bin).collect();
        Arena { bins, layout, reach, large: Vec::new(), detached, spare: Default::default(), bytes: 0 }
    }

    /// What it takes beside pages and data, whatever is kept.
    pub(super) fn fixed_bytes(&self) -> u64 {
        size_of_val(&*self.bins) as u64
    }

    pub(super) fn bytes(&self) -> u64 {
        self.bytes + (self.large.capacity() * size_of::<LargeEntry>()) as u64
    }

    #[inline(always)]
    pub(super) fn get(&self, place: DataPlace) -> &[u8] {
        if place.is_large() {
            return self.get_large(place);
        }
        let bin = &self.bins[place.bin()];
        let begin = place.slot() * bin.slot_bytes as usize + OWNER_BYTES;
        &bin.pages[place.page()][begin..begin + place.data_len()]
    }

    /// Apart, so that reads of small values stay as cheap as they can be.
    #[inline(never)]
    fn get_large(&self, place: DataPlace) -> &[u8] {
        self.large[place.at as usize].data.bytes()
    }

    /// What a reader may hold on to; none for data in a slot.
    #[cold]
    pub(super) fn large(&self, place: DataPlace) -> Option<&LargeData> {
        match self.large.get(place.at as usize).map(|large| &large.data) {
            Some(Allocation::Shared(data)) if place.is_large() => Some(data),
            _ => None,
        }
    }

    pub(super) fn get_mut(&mut self, place: DataPlace) -> &mut [u8] {
        if place.is_large() {
            return self.large[place.at as usize].data.bytes_mut();
        }
        let bin = &mut self.bins[place.bin()];
        let begin = place.slot() * bin.slot_bytes as usize + OWNER_BYTES;
        &mut bin.pages[place.page()][begin..begin + place.data_len()]
    }

    /// Bytes a place takes.
    #[inline]
    pub(super) fn cost(&self, place: DataPlace) -> u64 {
        if place.is_large() { large_bytes(place.data_len()) } else { u64::from(self.bins[place.bin()].slot_bytes) }
    }

    /// Bytes that data of a length would need beyond what is held.
    pub(super) fn growth(&self, len: usize) -> u64 {
        match self.layout.bin_of(len) {
            None => {
                let list = if self.large.len() == self.large.capacity() { self.large.len().max(4) } else { 0 };
                large_bytes(len) + (list * size_of::<LargeEntry>()) as u64
            }
            Some(bin) if self.bins[bin].has_room() || self.spare[usize::from(self.bins[bin].kind)].is_some() => 0,
            Some(bin) => PAGE_BYTES[usize::from(self.bins[bin].kind)] as u64,
        }
    }

    /// Whether there is a place for data of a length, though perhaps in a larger slot than it should have.
    pub(super) fn has_room_near(&self, len: usize) -> bool {
        self.layout.bin_of(len).is_some_and(|bin| self.room_near(bin).is_some())
    }

    fn room_near(&self, bin: usize) -> Option<usize> {
        (bin..self.bins.len().min(bin + 1 + self.reach)).find(|&bin| self.bins[bin].has_room())
    }

    /// Puts data in a place. Never fails: the caller has looked at [`Arena::growth`], or, if memory is `short`, at
    /// [`Arena::has_room_near`].
    pub(super) fn put(&mut self, owner: u32, data: DataInput<'_>, short: bool) -> DataPlace {
        let len = data.len();
        let Some(mut bin_number) = self.layout.bin_of(len) else {
            self.bytes += large_bytes(len);
            let data = Allocation::of_item(data.into_whole(), &self.detached);
            self.large.push(LargeEntry { owner, data });
            return DataPlace { at: self.large.len() as u32 - 1, form: LARGE | len as u32 };
        };
        if short {
            bin_number = self.room_near(bin_number).unwrap_or(bin_number);
        }
        let bin = &mut self.bins[bin_number];
        if !bin.has_room() {
            let kind = usize::from(bin.kind);
            let page = self.spare[kind].take().unwrap_or_else(|| {
                self.bytes += PAGE_BYTES[kind] as u64;
                vec![0; PAGE_BYTES[kind]].into_boxed_slice()
            });
            bin.pages.push(page);
            bin.in_last = 0;
        }
        bin.in_last += 1;
        let place = DataPlace { at: bin.last_slot(), form: (bin_number << LEN_BITS | len) as u32 };
        self.set_owner(place, owner);
        data.write_to(self.get_mut(place));
        place
    }

    /// Overwrites what is at a place, if the new data has the right size for it.
    pub(super) fn overwrite<'a>(&mut self, place: DataPlace, data: DataInput<'a>) -> Result<DataPlace, DataInput<'a>> {
        let len = data.len();
        let fits = |bin| bin <= place.bin() && place.bin() <= bin + NEAR_BINS;
        if place.is_large() || !self.layout.bin_of(len).is_some_and(fits) {
            return Err(data);
        }
        let place = DataPlace { at: place.at, form: (place.bin() << LEN_BITS | len) as u32 };
        data.write_to(self.get_mut(place));
        Ok(place)
    }

    /// Tells a place that its entry has another index now.
    pub(super) fn set_owner(&mut self, place: DataPlace, owner: u32) {
        if place.is_large() {
            self.large[place.at as usize].owner = owner;
            return;
        }
        let bin = &mut self.bins[place.bin()];
        let begin = place.slot() * bin.slot_bytes as usize;
        bin.pages[place.page()][begin..begin + OWNER_BYTES].copy_from_slice(&owner.to_ne_bytes());
    }

    fn owner(&self, place: DataPlace) -> u32 {
        if place.is_large() {
            return self.large[place.at as usize].owner;
        }
        let bin = &self.bins[place.bin()];
        let begin = place.slot() * bin.slot_bytes as usize;
        bin.pages[place.page()][begin..].first_chunk().map_or(u32::MAX, |bytes| u32::from_ne_bytes(*bytes))
    }

    /// Gives a place up. If something was moved there, its owner must be told.
    pub(super) fn free(&mut self, place: DataPlace, deferred: &mut DeferredDrop) -> Option<Moved> {
        if place.is_large() {
            let data = self.large.swap_remove(place.at as usize).data;
            self.bytes -= data.cost();
            deferred.push(data);
            if self.large.len() * 4 < self.large.capacity() && self.large.capacity() > 64 {
                self.large.shrink_to(self.large.len() * 2);
            }
            return self.large.get(place.at as usize).map(|moved| Moved { owner: moved.owner, at: place.at });
        }
        let bin = &mut self.bins[place.bin()];
        let last = DataPlace { at: bin.last_slot(), form: place.form };
        let moved = (last.at != place.at).then(|| {
            let size = bin.slot_bytes as usize;
            let (from, to) = (last.slot() * size, place.slot() * size);
            if last.page() == place.page() {
                bin.pages[place.page()].copy_within(from..from + size, to);
            } else {
                let (full, final_page) = bin.pages.split_at_mut(last.page());
                full[place.page()][to..to + size].copy_from_slice(&final_page[0][from..from + size]);
            }
        });
        bin.in_last -= 1;
        if bin.in_last == 0 {
            self.drop_last_page(place.bin(), deferred);
        }
        moved.map(|()| Moved { owner: self.owner(place), at: place.at })
    }

    fn drop_last_page(&mut self, bin: usize, deferred: &mut DeferredDrop) {
        let bin = &mut self.bins[bin];
        bin.in_last = bin.per_page;
        let kind = usize::from(bin.kind);
        let Some(page) = bin.pages.pop() else { return };
        if bin.pages.is_empty() {
            bin.pages = Vec::new();
        }
        if self.spare[kind].is_none() {
            self.spare[kind] = Some(page);
        } else {
            self.bytes -= page.len() as u64;
            deferred.push(Allocation::Own(page));
        }
    }

    /// Gives up an empty page that data of this length has no use for. False if there is none.
    pub(super) fn drop_spare(&mut self, len: Option<usize>, deferred: &mut DeferredDrop) -> bool {
        let needed = len.and_then(|len| self.layout.bin_of(len)).map(|bin| usize::from(self.bins[bin].kind));
        for (kind, spare) in self.spare.iter_mut().enumerate() {
            if needed != Some(kind)
                && let Some(page) = spare.take()
            {
                self.bytes -= page.len() as u64;
                deferred.push(Allocation::Own(page));
                return true;
            }
        }
        false
    }

    /// Gives everything up at once; what comes back is to be dropped in small doses.
    pub(super) fn take_all(&mut self) -> Vec<Allocation> {
        let empty = Arena::new(self.layout.clone(), self.reach == NEAR_BINS, self.detached.clone());
        let emptied = std::mem::replace(self, empty);
        let pages = emptied.bins.into_iter().flat_map(|bin| bin.pages).chain(emptied.spare.into_iter().flatten());
        pages.map(Allocation::Own).chain(emptied.large.into_iter().map(|large| large.data)).collect()
    }

    /// Recounts everything; for tests. `live` are the places entries have, with their indices.
    pub(super) fn validate(&self, live: impl Iterator<Item = (u32, DataPlace)>) -> Result<(), String> {
        let mut count = 0;
        for (index, place) in live {
            count += 1;
            if self.owner(place) != index {
                return Err(format!("{place:?} is thought to be of {}, not of {index}", self.owner(place)));
            }
        }
        let mut slots = self.large.len();
        let mut bytes: u64 = self.large.iter().map(|large| large.data.cost()).sum();
        bytes += self.spare.iter().flatten().map(|page| page.len() as u64).sum::<u64>();
        for bin in &self.bins {
            let full = bin.pages.len().saturating_sub(1) * bin.per_page as usize;
            slots += full + if bin.pages.is_empty() { 0 } else { bin.in_last as usize };
            bytes += bin.pages.iter().map(|page| page.len() as u64).sum::<u64>();
        }
        if slots != count || bytes != self.bytes {
            return Err(format!("{count} places, {slots} slots; {} bytes, counted {bytes}", self.bytes));
        }
        Ok(())
    }
}

/// What data of `len` bytes takes with a place of its own.
#[inline]
pub(super) fn large_bytes(len: usize) -> u64 {
    allocated(len) + if len < SHARED_BYTES_MIN { 0 } else { HEADER_BYTES }
}

/// What the allocator takes for an allocation of `len` bytes. jemalloc's classes: 8 and 16 bytes, multiples of 16 up to
/// 128, four steps for each doubling up to 14 KiB. What is larger lies in pages of its own, one of them for an
/// offset that spreads such data over the processor's cache; of the rest it touches no more than is used.
pub(super) fn allocated(len: usize) -> u64 {
    const SYSTEM_PAGE_BYTES: usize = 4096;
    let rounded = match len {
        0 => 0,
        1..=8 => 8,
        9..=128 => len.next_multiple_of(16),
        129..=0x3800 => len.next_multiple_of(1 << ((len - 1).ilog2() - 2)),
        _ => len.next_multiple_of(SYSTEM_PAGE_BYTES) + SYSTEM_PAGE_BYTES,
    };
    rounded as u64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slot_sizes_fill_their_pages_and_rise_by_little() {
        let layout = SlotSizes::new();
        let mut last = 8;
        for &(size, kind) in &layout.bins {
            let (size, page) = (size as usize, PAGE_BYTES[usize::from(kind)]);
            let count = (page / size).min(SLOTS_MAX);
            assert!(size > last && size <= last + (last / 5).max(GRAIN_BYTES), "{last}, then {size}");
            assert!((page - count * size) * 50 <= page, "{count} slots of {size} in {page}");
            last = size;
        }
        assert_eq!(last, SLOT_BYTES_MAX);
        assert!(layout.bins.len() <= 1 << (31 - LEN_BITS), "{}", layout.bins.len());
        for len in 0..=SLOT_DATA_BYTES_MAX {
            let bin = layout.bin_of(len).unwrap();
            assert!(layout.bins[bin].0 as usize >= len + OWNER_BYTES);
            assert!(bin == 0 || (layout.bins[bin - 1].0 as usize) < len + OWNER_BYTES, "{len}");
        }
        assert_eq!(layout.bin_of(SLOT_DATA_BYTES_MAX + 1), None);
    }

    #[test]
    fn allocations_round_as_the_allocator_does() {
        let table = [
            (0, 0),
            (1, 8),
            (9, 16),
            (17, 32),
            (128, 128),
            (129, 160),
            (160, 160),
            (161, 192),
            (256, 256),
            (257, 320),
            (1025, 1280),
            (14_336, 14_336),
            (14_337, 16_384 + 4096),
            (900_000, 901_120 + 4096),
        ];
        for (len, expected) in table {
            assert_eq!(allocated(len), expected, "{len}");
        }
        PAGE_BYTES.into_iter().for_each(|page| assert_eq!(allocated(page), page as u64));
    }

    #[test]
    fn a_bin_has_no_holes_and_its_pages_go_back() {
        let mut arena = Arena::new(Arc::new(SlotSizes::new()), true, Arc::default());
        let mut rng = fastrand::Rng::with_seed(1);
        let mut places: Vec<Option<DataPlace>> = Vec::new();
        let key = |owner: u32| [owner as u8; 16];
        for _ in 0..20_000 {
            if rng.u8(..5) < 3 {
                let (owner, rest) = (places.len() as u32, vec![7; 40 + rng.usize(..4) * 300]);
                places.push(Some(arena.put(owner, DataInput::Pieces([&key(owner), &rest, b""]), false)));
            } else if !places.is_empty() {
                let owner = rng.usize(..places.len());
                if let Some(place) = places[owner].take()
                    && let Some(moved) = arena.free(place, &mut DeferredDrop::default())
                {
                    moved.correct(places[moved.owner as usize].as_mut().unwrap());
                }
            }
        }
        let live = || (0..).zip(&places).filter_map(|(owner, place)| place.map(|place| (owner, place)));
        arena.validate(live()).unwrap();
        for (owner, place) in live() {
            assert!(arena.get(place).starts_with(&key(owner)));
        }
        let content: usize = live().map(|(_, place)| place.data_len()).sum();
        assert!(arena.bytes() < content as u64 * 11 / 10, "{} for {content}", arena.bytes());
        for place in 0..places.len() {
            if let Some(taken) = places[place].take()
                && let Some(moved) = arena.free(taken, &mut DeferredDrop::default())
            {
                moved.correct(places[moved.owner as usize].as_mut().unwrap());
            }
        }
        while arena.drop_spare(None, &mut DeferredDrop::default()) {}
        assert_eq!(arena.bytes(), 0);
    }
}
