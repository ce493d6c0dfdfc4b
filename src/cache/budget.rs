//! The one memory budget of all shards: each reports how many bytes it holds, and asks whether all together hold too many.
//!
//! Counts only; `Cache::enforce_budget` and `Shard::make_room` evict.
//!
//! One budget and not an equal share for each shard: a share would be full as soon as the fullest shard is, and with
//! large items that is long before the memory is.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

/// A count on a cache line of its own (two, since the processor fetches them in pairs): a thread that changes it does not
/// slow down threads that read its neighbours.
#[derive(Default)]
#[repr(align(128))]
pub(super) struct PaddedCount(pub(super) AtomicU64);

pub(super) struct Budget {
    bytes: AtomicU64,
    used: PaddedCount,
    /// What each shard has reported.
    shards: Box<[PaddedCount]>,
}

impl Budget {
    pub(super) fn new(bytes: u64, shards: usize) -> Budget {
        Budget {
            bytes: bytes.into(),
            used: PaddedCount::default(),
            shards: (0..shards).map(|_| PaddedCount::default()).collect(),
        }
    }

    #[inline]
    pub(super) fn bytes(&self) -> u64 {
        self.bytes.load(Relaxed)
    }

    pub(super) fn set_bytes(&self, bytes: u64) {
        self.bytes.store(bytes, Relaxed);
    }

    #[inline]
    pub(super) fn used(&self) -> u64 {
        self.used.0.load(Relaxed)
    }

    /// Whether the shards together hold more than they may, once `more` comes on top.
    #[inline]
    pub(super) fn is_exceeded_by(&self, more: u64) -> bool {
        self.used() + more > self.bytes()
    }

    pub(super) fn shards(&self) -> usize {
        self.shards.len()
    }

    /// An equal share.
    pub(super) fn share(&self) -> u64 {
        self.bytes() / self.shards.len() as u64
    }

    /// A shard, under its lock, tells what it holds. `before` is what it told last.
    pub(super) fn report(&self, shard: usize, before: u64, now: u64) {
        // Wraps around when it has become less, as it should.
        self.used.0.fetch_add(now.wrapping_sub(before), Relaxed);
        self.shards[shard].0.store(now, Relaxed);
    }

    /// The shard that holds the most, of those not yet `tried`.
    pub(super) fn largest(&self, tried: &[bool]) -> Option<usize> {
        let untried = (0..self.shards.len()).filter(|&shard| !tried[shard]);
        untried.max_by_key(|&shard| self.shards[shard].0.load(Relaxed))
    }
}
