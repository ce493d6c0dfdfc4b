//! Memory that connections hold beyond their first buffers, over all of them: half-received requests, answers that wait
//! for their peers, and values that the cache has given up while they were still being written. One budget for all.
//!
//! When it is used up, whoever asks is served, and the connection whose peer is furthest behind loses its memory
//! ([`MemoryHolder::behind_ms`]).
//! Counts what is there and the step being read, never what a client merely announces. Most connections never hold
//! anything here, and then they only look at two counts that are seldom written.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BinaryHeap};
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::task::Waker;

use parking_lot::Mutex;

use crate::clock::BootMs;
use crate::service::DetachedBytes;
use crate::stats::Stats;

/// Whose peer keeps this pace is behind only by the time it has been silent, bytes per second.
const PACE_BYTES_PER_S: u64 = 64 * 1024;

/// The budget and who holds something of it.
#[derive(Debug)]
pub(crate) struct ConnectionMemory {
    /// Shows what all holders have.
    stats: Arc<Stats>,
    bytes_max: u64,
    detached: Arc<DetachedBytes>,
    holders: Mutex<MemoryHolders>,
}

#[derive(Debug, Default)]
struct MemoryHolders {
    all: BTreeMap<u64, MemoryHolder>,
    last: u64,
    bytes: u64,
    /// Connections whose memory was taken back and that have not released it yet, with the bytes of the cache's values that
    /// they are still writing. Both count as free.
    revoked: BTreeMap<u64, u64>,
    revoked_shared_bytes: u64,
}

/// What one connection holds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct MemoryUse {
    /// Its own memory, bytes.
    pub bytes: u64,
    /// Values of the cache that it is writing, bytes. They count once they are nowhere else.
    pub shared_bytes: u64,
    /// What its peer has sent, or taken, since it holds something.
    pub moved_bytes: u64,
}

#[derive(Debug)]
struct MemoryHolder {
    holding: MemoryUse,
    since_ms: BootMs,
    moved_ms: BootMs,
    waker: Option<Waker>,
}

impl MemoryHolder {
    /// How long the peer has been silent, or how much longer it took than at a fair pace: whichever is more.
    fn behind_ms(&self, now_ms: BootMs) -> u64 {
        #[cfg(test)]
        looks::COUNT.set(looks::COUNT.get() + 1);
        let fair_ms = self.holding.moved_bytes.saturating_mul(1000) / PACE_BYTES_PER_S;
        let since = |ms: BootMs| now_ms.saturating_sub(ms);
        since(self.moved_ms).max(since(self.since_ms).saturating_sub(fair_ms))
    }
}

/// How often the thread has looked at a holder, for tests that bound the work.
#[cfg(test)]
mod looks {
    use std::cell::Cell;

    thread_local! {
        pub(super) static COUNT: Cell<usize> = const { Cell::new(0) };
    }
}

/// A connection's place among the holders; none until it holds something.
#[derive(Debug, Default)]
pub(crate) struct MemoryShare(Option<u64>);

impl MemoryShare {
    pub fn is_held(&self) -> bool {
        self.0.is_some()
    }
}

impl ConnectionMemory {
    pub fn new(bytes_max: u64, detached: Arc<DetachedBytes>, stats: Arc<Stats>) -> ConnectionMemory {
        stats.connection_memory.bytes_max.store(bytes_max, Relaxed);
        ConnectionMemory { stats, bytes_max, detached, holders: Mutex::default() }
    }

    /// What is in use.
    pub fn bytes(&self) -> u64 {
        self.stats.connection_memory.bytes.load(Relaxed) + self.detached.bytes()
    }

    /// Whether more than half of the memory is in use: time to hold connections to their deadlines, and to let none queue
    /// more than its first buffer takes.
    pub fn is_under_pressure(&self) -> bool {
        self.bytes() > self.bytes_max / 2
    }

    /// Takes memory back from the slowest until the budget holds again: values that are still being written may have left
    /// the cache.
    #[inline]
    pub fn enforce_limit(&self, now_ms: BootMs) {
        if self.bytes() > self.bytes_max {
            let holders = &mut *self.holders.lock();
            self.make_room(holders, None, 0, now_ms);
            self.show(holders);
        }
    }

    /// Reserves what a connection asks for. Slower ones lose theirs if all together hold too much. False if it is too much
    /// even then, or if this one's own share was taken back: then it has no share any more.
    pub fn try_reserve(&self, share: &mut MemoryShare, holding: MemoryUse, now_ms: BootMs) -> bool {
        let holders = &mut *self.holders.lock();
        let granted = holders.has(share)
            && holding.bytes <= self.bytes_max
            && self.make_room(holders, share.0, holding.bytes, now_ms);
        if granted {
            holders.put(share, holding, now_ms);
        } else {
            holders.remove(share);
        }
        self.show(holders);
        granted
    }

    /// Records what a connection holds already. Slower ones lose theirs if all together hold too much. False if this one's
    /// own share was taken back.
    pub fn record(&self, share: &mut MemoryShare, holding: MemoryUse, now_ms: BootMs) -> bool {
        let holders = &mut *self.holders.lock();
        let counted = holders.has(share);
        if counted {
            holders.put(share, holding, now_ms);
            self.make_room(holders, share.0, holding.bytes, now_ms);
        }
        self.show(holders);
        counted
    }

    /// Whether this connection's share was taken back; otherwise the connection is woken when that happens.
    pub fn poll_revoked(&self, share: &MemoryShare, waker: &Waker) -> bool {
        let holders = &mut *self.holders.lock();
        match share.0.map(|id| holders.all.get_mut(&id)) {
            None => false,
            Some(None) => true,
            Some(Some(holder)) => {
                holder.waker = Some(waker.clone());
                false
            }
        }
    }

    /// Whether this connection's share was taken back.
    pub fn is_revoked(&self, share: &MemoryShare) -> bool {
        share.is_held() && !self.holders.lock().has(share)
    }

    /// The connection holds nothing any more.
    pub fn release(&self, share: &mut MemoryShare, now_ms: BootMs) {
        if !share.is_held() {
            return;
        }
        {
            let holders = &mut *self.holders.lock();
            holders.remove(share);
            self.show(holders);
        }
        self.enforce_limit(now_ms);
    }

    /// Takes memory back from those furthest behind until this one can hold `bytes` in all. Theirs counts as free at once:
    /// they release it as soon as their workers run them.
    fn make_room(&self, holders: &mut MemoryHolders, asks: Option<u64>, bytes: u64, now_ms: BootMs) -> bool {
        let has = asks.and_then(|id| holders.all.get(&id)).map_or(0, |holder| holder.holding.bytes);
        let detached = self.detached.bytes();
        let is_enough = |holders: &MemoryHolders| {
            holders.bytes - has + bytes + detached.saturating_sub(holders.revoked_shared_bytes) <= self.bytes_max
        };
        if is_enough(holders) {
            return true;
        }
        // Each is looked at once, however many lose their memory.
        let mut others = holders.by_how_far_behind(asks, now_ms);
        while let Some((_, Reverse(id))) = others.pop() {
            if holders.would_free(id, detached) {
                holders.revoke(id);
            }
            if is_enough(holders) {
                return true;
            }
        }
        false
    }

    fn show(&self, holders: &MemoryHolders) {
        self.stats.connection_memory.bytes.store(holders.bytes, Relaxed);
    }
}

impl MemoryHolders {
    /// False if the share has been taken away.
    fn has(&self, share: &MemoryShare) -> bool {
        share.0.is_none_or(|id| self.all.contains_key(&id))
    }

    fn put(&mut self, share: &mut MemoryShare, holding: MemoryUse, now_ms: BootMs) {
        let id = *share.0.get_or_insert_with(|| {
            self.last += 1;
            self.last
        });
        let holder = self.all.entry(id).or_insert(MemoryHolder {
            holding: MemoryUse::default(),
            since_ms: now_ms,
            moved_ms: now_ms,
            waker: None,
        });
        if holding.moved_bytes < holder.holding.moved_bytes {
            // The other direction now, or the next request.
            (holder.since_ms, holder.moved_ms) = (now_ms, now_ms);
        } else if holding.moved_bytes > holder.holding.moved_bytes {
            holder.moved_ms = now_ms;
        }
        self.bytes = self.bytes - holder.holding.bytes + holding.bytes;
        holder.holding = holding;
    }

    fn remove(&mut self, share: &mut MemoryShare) {
        let Some(id) = share.0.take() else { return };
        self.bytes -= self.all.remove(&id).map_or(0, |holder| holder.holding.bytes);
        self.revoked_shared_bytes -= self.revoked.remove(&id).unwrap_or(0);
    }

    /// The connection keeps its number, and finds nothing under it.
    fn revoke(&mut self, id: u64) {
        let Some(holder) = self.all.remove(&id) else { return };
        self.bytes -= holder.holding.bytes;
        self.revoked_shared_bytes += holder.holding.shared_bytes;
        self.revoked.insert(id, holder.holding.shared_bytes);
        if let Some(waker) = holder.waker {
            waker.wake();
        }
    }

    /// Whether taking it back from this one would free memory. A value that the cache still has stays where it is.
    fn would_free(&self, id: u64, detached: u64) -> bool {
        let Some(MemoryHolder { holding, .. }) = self.all.get(&id) else { return false };
        holding.bytes > 0 || (holding.shared_bytes > 0 && detached > self.revoked_shared_bytes)
    }

    /// The furthest behind first, of several the oldest.
    fn by_how_far_behind(&self, but: Option<u64>, now_ms: BootMs) -> BinaryHeap<(u64, Reverse<u64>)> {
        let others = self.all.iter().filter(|(id, _)| Some(**id) != but);
        others.map(|(id, holder)| (holder.behind_ms(now_ms), Reverse(*id))).collect()
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::AtomicU64;
    use std::task::{Wake, Waker};

    use super::*;

    /// Counts how often it is woken.
    #[derive(Default)]
    struct Woken(AtomicU64);

    impl Wake for Woken {
        fn wake(self: Arc<Self>) {
            self.0.fetch_add(1, Relaxed);
        }
    }

    fn memory(bytes_max: u64) -> ConnectionMemory {
        ConnectionMemory::new(bytes_max, Arc::default(), Arc::default())
    }

    fn holding(bytes: u64) -> MemoryUse {
        MemoryUse { bytes, shared_bytes: 0, moved_bytes: bytes }
    }

    #[test]
    fn shares_add_up_and_come_back() {
        let memory = memory(100);
        let (mut one, mut two, now) = (MemoryShare::default(), MemoryShare::default(), 0);
        assert!(memory.try_reserve(&mut one, holding(30), now) && memory.try_reserve(&mut two, holding(20), now));
        assert!(memory.bytes() == 50 && !memory.is_under_pressure());
        assert!(memory.try_reserve(&mut one, holding(80), now) && memory.is_under_pressure());
        assert!(memory.try_reserve(&mut one, holding(10), now) && memory.record(&mut two, holding(5), now));
        assert_eq!(memory.bytes(), 15);
        memory.release(&mut one, 0);
        memory.release(&mut two, 0);
        memory.release(&mut two, 0);
        assert_eq!(memory.bytes(), 0);
        assert!(!memory.try_reserve(&mut one, holding(101), now), "more than there is");
        assert_eq!(memory.bytes(), 0);
    }

    #[test]
    fn who_is_furthest_behind_gives_way_and_is_woken_and_never_who_asks() {
        let memory = memory(3 << 20);
        let at = |seconds: u64| 77 + seconds * 1000;
        let [mut steady, mut silent, mut slow, mut newcomer] = [(); 4].map(|()| MemoryShare::default());
        let part = |bytes, moved_bytes| MemoryUse { bytes, shared_bytes: 0, moved_bytes };
        assert!(memory.try_reserve(&mut steady, part(1 << 20, 100_000), at(0)));
        assert!(memory.try_reserve(&mut silent, part(1 << 20, 1_000_000), at(1)));
        assert!(memory.try_reserve(&mut slow, part(1 << 20, 10), at(0)));
        assert!(memory.try_reserve(&mut steady, part(1 << 20, 2_000_000), at(20)));
        assert!(memory.try_reserve(&mut slow, part(1 << 20, 100), at(20)));
        let woken = Arc::new(Woken::default());
        let waker = Waker::from(woken.clone());
        assert!(!memory.poll_revoked(&slow, &waker));
        assert!(memory.try_reserve(&mut newcomer, part(100_000, 100_000), at(20)));
        assert_eq!(woken.0.load(Relaxed), 1);
        assert!(memory.is_revoked(&slow) && !memory.is_revoked(&silent));
        assert!(memory.try_reserve(&mut newcomer, part(2 << 20, 150_000), at(20)));
        assert!(memory.is_revoked(&silent) && !memory.is_revoked(&steady));
        assert_eq!(memory.bytes(), 3 << 20);
        assert!(!memory.try_reserve(&mut slow, part(10, 200), at(20)), "what was taken away does not come back");
        assert!(memory.try_reserve(&mut slow, part(10, 10), at(20)), "but the next request is a new one");
    }

    #[test]
    fn what_is_held_already_is_counted_and_others_give_way() {
        let memory = memory(100);
        let (mut waits, mut writes, now) = (MemoryShare::default(), MemoryShare::default(), 0);
        assert!(memory.try_reserve(&mut waits, holding(90), now));
        assert!(memory.record(&mut writes, holding(40), now));
        assert!(memory.is_revoked(&waits) && memory.bytes() == 40);
        assert!(memory.record(&mut writes, holding(400), now), "it is alone, and there already");
        assert_eq!(memory.bytes(), 400);
        assert!(!memory.record(&mut waits, holding(1), now));
        memory.release(&mut writes, 0);
        memory.release(&mut waits, 0);
        assert_eq!(memory.bytes(), 0);
        assert!(memory.record(&mut waits, holding(1), now), "the next answer is a new one");
    }

    #[test]
    fn whoever_would_free_nothing_does_not_give_way() {
        let memory = memory(100);
        let begun = 77;
        let [mut idle, mut reader, mut half_sent, mut newcomer] = [(); 4].map(|()| MemoryShare::default());
        // A short answer, and a value that the cache has itself: nothing of either is this connection's.
        assert!(memory.record(&mut idle, MemoryUse::default(), begun));
        assert!(memory.record(&mut reader, MemoryUse { shared_bytes: 1 << 20, ..MemoryUse::default() }, begun));
        let later = begun + 10_000;
        assert!(memory.try_reserve(&mut half_sent, holding(90), later));
        assert!(memory.try_reserve(&mut newcomer, holding(90), later));
        assert!(memory.is_revoked(&half_sent));
        assert!(!memory.is_revoked(&idle) && !memory.is_revoked(&reader));
    }

    #[test]
    fn ten_thousand_who_give_way_at_once_are_looked_at_once() {
        let memory = memory(20_000);
        let now = 0;
        let mut shares: Vec<MemoryShare> = std::iter::repeat_with(MemoryShare::default).take(20_000).collect();
        shares.iter_mut().for_each(|share| assert!(memory.record(share, holding(1), now)));
        looks::COUNT.set(0);
        let mut newcomer = MemoryShare::default();
        assert!(memory.try_reserve(&mut newcomer, holding(10_000), now));
        assert_eq!(shares.iter().filter(|share| memory.is_revoked(share)).count(), 10_000);
        assert_eq!(looks::COUNT.get(), 20_000);
    }

    #[test]
    fn shares_of_several_threads_never_exceed_the_bound_and_come_back() {
        let memory = memory(100);
        std::thread::scope(|scope| {
            for bytes in [40, 50, 60, 70] {
                let memory = &memory;
                scope.spawn(move || {
                    for _ in 0..1000 {
                        let mut share = MemoryShare::default();
                        assert!(memory.try_reserve(&mut share, holding(bytes), 0), "others give way");
                        assert!(memory.bytes() <= 100);
                        memory.release(&mut share, 0);
                    }
                });
            }
        });
        assert_eq!(memory.bytes(), 0);
    }
}
