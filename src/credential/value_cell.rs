//! A value that one writer swaps and any number of readers look at without waiting, and the waiting of those who come
//! before there is one.
//!
//! Readers take no lock and write nothing that another one reads. Knows nothing of tokens, and no clock: whether a
//! value still counts is the caller's question to it.

use crate::sync::{Arc, ArcSwapOption, AtomicBool, Guard, Ordering, watch};

/// The value, and whether the next one is sure to come. Apart from what others write: counters beside it would take it
/// out of the readers' caches.
#[repr(align(128))]
pub(super) struct ValueCell<T> {
    shown: ArcSwapOption<T>,
    /// False while a value is on its way for which a reader may wait.
    wait_ended: AtomicBool,
    /// Ticks after every change of the two; waiters listen here.
    changes: watch::Sender<u64>,
}

/// What a reader finds.
pub(super) enum CellReading<T> {
    Live(Guard<Option<Arc<T>>>),
    /// Nothing that counts, but there soon will be.
    Coming,
    Absent,
}

impl<T> ValueCell<T> {
    /// Nothing yet, and the first value on its way.
    pub fn new() -> ValueCell<T> {
        ValueCell { shown: ArcSwapOption::empty(), wait_ended: AtomicBool::new(false), changes: watch::Sender::new(0) }
    }

    /// The value, if it `counts`. Takes no lock and allocates nothing.
    #[inline]
    pub fn look(&self, counts: impl Fn(&T) -> bool) -> CellReading<T> {
        let guard = self.shown.load();
        if guard.as_ref().is_some_and(|value| counts(value)) {
            return CellReading::Live(guard);
        }
        self.plan_next_probe(counts)
    }

    #[cold]
    fn plan_next_probe(&self, counts: impl Fn(&T) -> bool) -> CellReading<T> {
        if !self.wait_ended.load(Ordering::Acquire) {
            return CellReading::Coming;
        }
        // What wait_ended it may have been a value that came after the first look.
        let guard = self.shown.load();
        if guard.as_ref().is_some_and(|value| counts(value)) { CellReading::Live(guard) } else { CellReading::Absent }
    }

    /// What is shown, whether or not it counts.
    pub fn shown(&self) -> Guard<Option<Arc<T>>> {
        self.shown.load()
    }

    /// Wakes at the next change, or at once if there is nothing to wait for any more. `still_coming` looks again.
    pub fn wait_while(&self, still_coming: impl FnOnce() -> bool) -> watch::Receiver<u64> {
        // Subscribed first: a value published in between must not be slept through.
        let mut changes = self.changes.subscribe();
        if !still_coming() {
            changes.mark_changed();
        }
        changes
    }

    /// Wakes at every change from now on.
    pub fn subscribe(&self) -> watch::Receiver<u64> {
        self.changes.subscribe()
    }

    /// The writer only: swaps a value in without telling anybody.
    pub fn show(&self, value: T) {
        self.shown.store(Some(Arc::new(value)));
    }

    /// The writer only: swaps a value in after which none is on its way.
    pub fn publish(&self, value: T) {
        self.show(value);
        self.end_wait();
    }

    /// The writer only: swaps a value in after which another is on its way.
    pub fn publish_until_next(&self, value: T) {
        // First: whoever finds that the new value does not count any more must not take it for the last word.
        self.wait_ended.store(false, Ordering::Release);
        self.show(value);
        self.tick();
    }

    /// The writer only: nothing is on its way.
    pub fn end_wait(&self) {
        self.wait_ended.store(true, Ordering::Release);
        self.tick();
    }

    fn tick(&self) {
        self.changes.send_modify(|ticks| *ticks += 1);
    }
}
