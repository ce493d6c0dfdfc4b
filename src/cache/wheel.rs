//! A hierarchical timing wheel: finds the items whose time has come without looking at the others.
//!
//! Seven levels of 32 slots; a slot of level n covers 32^n seconds. An entry sits at the level of the highest
//! five-bit digit in which its expiry differs from the wheel's time and moves down at most six times before
//! it expires. Chosen over a sweep because it is exact: when it has caught up, no expired item is left, so
//! a live item is never evicted in place of an expired one. Costs 9 bytes an item.
//!
//! Never decides what an expired item is for a reader: reads compare the expiry themselves.

use super::{
    Seconds,
    slab::{NIL, QueueLinks, Slab},
};

const LEVELS: usize = 7;
const SLOTS: usize = 32;
/// The entry is not in the wheel: it never expires.
pub(super) const NO_SLOT: u8 = u8::MAX;

/// What one step of the wheel did.
pub(super) enum WheelStep {
    /// Nothing is due up to the time asked for.
    Idle,
    /// An entry was moved to a finer slot.
    Moved,
    /// This entry has expired; the caller removes it.
    Expired(u32),
}

pub(super) struct Wheel {
    heads: [[u32; SLOTS]; LEVELS],
    occupied: [u32; LEVELS],
    time: Seconds,
    /// No slot begins before this second.
    next_slot_start: Seconds,
}

impl Wheel {
    pub(super) fn new() -> Wheel {
        Wheel { heads: [[NIL; SLOTS]; LEVELS], occupied: [0; LEVELS], time: 0, next_slot_start: Seconds::MAX }
    }

    /// Whether a step could do anything at `now`.
    #[inline]
    pub(super) fn is_due(&self, now: Seconds) -> bool {
        self.next_slot_start <= now
    }

    /// Puts an entry with an expiry in its slot; does nothing for one that never expires.
    pub(super) fn link(&mut self, slab: &mut Slab, index: u32) {
        let when = slab.get(index).exptime;
        if when == 0 {
            return;
        }
        let when = when.max(self.time);
        let level = (when ^ self.time).checked_ilog2().unwrap_or(0) as usize / 5;
        let slot = digit(when, level);
        let next = self.heads[level][slot];
        let entry = slab.get_mut(index);
        entry.timer = QueueLinks { prev: NIL, next };
        entry.timer_slot = (level * SLOTS + slot) as u8;
        if next != NIL {
            slab.get_mut(next).timer.prev = index;
        }
        self.heads[level][slot] = index;
        self.occupied[level] |= 1 << slot;
        self.next_slot_start = self.next_slot_start.min(slot_start_of_time(when, level));
    }

    pub(super) fn unlink(&mut self, slab: &mut Slab, index: u32) {
        let entry = slab.get_mut(index);
        if entry.timer_slot == NO_SLOT {
            return;
        }
        let (level, slot) = (usize::from(entry.timer_slot) / SLOTS, usize::from(entry.timer_slot) % SLOTS);
        let QueueLinks { prev, next } = std::mem::replace(&mut entry.timer, QueueLinks::NONE);
        entry.timer_slot = NO_SLOT;
        match prev {
            NIL => self.heads[level][slot] = next,
            prev => slab.get_mut(prev).timer.next = next,
        }
        match next {
            NIL if prev == NIL => self.occupied[level] &= !(1 << slot),
            NIL => {}
            next => slab.get_mut(next).timer.prev = prev,
        }
    }

    /// Puts right the links to an entry that was moved to `index`.
    pub(super) fn relocated(&mut self, slab: &mut Slab, index: u32) {
        let (QueueLinks { prev, next }, slot) = (slab.get(index).timer, slab.get(index).timer_slot);
        if slot == NO_SLOT {
            return;
        }
        match prev {
            NIL => self.heads[usize::from(slot) / SLOTS][usize::from(slot) % SLOTS] = index,
            prev => slab.get_mut(prev).timer.next = index,
        }
        if next != NIL {
            slab.get_mut(next).timer.prev = index;
        }
    }

    /// Looks at one entry of a slot that has begun by `now`.
    pub(super) fn step(&mut self, slab: &mut Slab, now: Seconds) -> WheelStep {
        let Some((index, begin)) = self.first_begun(now) else {
            self.time = self.time.max(now);
            return WheelStep::Idle;
        };
        if slab.get(index).is_expired(now) {
            return WheelStep::Expired(index);
        }
        self.time = self.time.max(begin);
        self.unlink(slab, index);
        self.link(slab, index);
        WheelStep::Moved
    }

    /// An entry of any slot that begins at or before `now`, with that beginning; otherwise notes when the next
    /// one begins. Every level is looked at: a slot that was left half done lies behind the wheel's time.
    fn first_begun(&mut self, now: Seconds) -> Option<(u32, Seconds)> {
        let mut next_begin = Seconds::MAX;
        for level in 0..LEVELS {
            let occupied = self.occupied[level];
            if occupied == 0 {
                continue;
            }
            // Slots lie at or after the wheel's own digit; nothing wraps, since a higher digit would differ.
            let slot = occupied.trailing_zeros() as usize;
            let begin = slot_start(self.time, level, slot);
            if begin <= now {
                return Some((self.heads[level][slot], begin));
            }
            next_begin = next_begin.min(begin);
        }
        self.next_slot_start = next_begin;
        None
    }
}

/// The five-bit digit of `when` at a level.
fn digit(when: Seconds, level: usize) -> usize {
    (when >> (5 * level)) as usize % SLOTS
}

/// The first second of the slot `when` lies in.
fn slot_start_of_time(when: Seconds, level: usize) -> Seconds {
    (when >> (5 * level)) << (5 * level)
}

/// The first second of a slot, in the rotation `time` is in.
fn slot_start(time: Seconds, level: usize, slot: usize) -> Seconds {
    let above = (u64::from(time) >> (5 * (level + 1))) << (5 * (level + 1));
    (above | ((slot as u64) << (5 * level))) as Seconds
}
