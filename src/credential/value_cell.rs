//! A value that one writer replaces and any number of readers read without waiting. Readers can wait for the first
//! value.
//!
//! Readers take no lock and write nothing that other readers read. Knows nothing about tokens and has no clock: the
//! caller says whether a value still counts.

use crate::sync::{Arc, ArcSwapOption, AtomicBool, Guard, Ordering, watch};

/// The value, and whether the next one will come soon. Aligned, so that writes to data beside it do not slow down
/// readers.
#[repr(align(128))]
pub(super) struct ValueCell<T> {
    value: ArcSwapOption<T>,
    /// False while a reader may wait for the next value.
    wait_ended: AtomicBool,
    /// Changes after every change of the two; waiting readers listen to it.
    changes: watch::Sender<u64>,
}

pub(super) enum CellReading<T> {
    Live(Guard<Option<Arc<T>>>),
    /// No value that counts, but one will come soon.
    Coming,
    Absent,
}

/// No value yet; the first one will come.
impl<T> Default for ValueCell<T> {
    fn default() -> ValueCell<T> {
        ValueCell { value: ArcSwapOption::empty(), wait_ended: AtomicBool::new(false), changes: watch::Sender::new(0) }
    }
}

impl<T> ValueCell<T> {
    /// The value, if it `counts`. Takes no lock and allocates nothing.
    #[inline]
    pub fn load(&self, counts: impl Fn(&T) -> bool) -> CellReading<T> {
        let guard = self.value.load();
        if guard.as_ref().is_some_and(|value| counts(value)) {
            return CellReading::Live(guard);
        }
        self.load_after_wait(counts)
    }

    #[cold]
    fn load_after_wait(&self, counts: impl Fn(&T) -> bool) -> CellReading<T> {
        if !self.wait_ended.load(Ordering::Acquire) {
            return CellReading::Coming;
        }
        // A value may have been published after the first load.
        let guard = self.value.load();
        if guard.as_ref().is_some_and(|value| counts(value)) { CellReading::Live(guard) } else { CellReading::Absent }
    }

    /// The value, whether or not it counts.
    pub fn latest(&self) -> Guard<Option<Arc<T>>> {
        self.value.load()
    }

    /// Wakes at the next change; at once if `still_coming` says that there is nothing to wait for any more.
    pub fn wait_while(&self, still_coming: impl FnOnce() -> bool) -> watch::Receiver<u64> {
        // Subscribed first, so that a value published in between is not missed.
        let mut changes = self.changes.subscribe();
        if !still_coming() {
            changes.mark_changed();
        }
        changes
    }

    pub fn subscribe(&self) -> watch::Receiver<u64> {
        self.changes.subscribe()
    }

    /// For the writer only: replaces the value and wakes nobody.
    pub fn show(&self, value: T) {
        self.value.store(Some(Arc::new(value)));
    }

    /// For the writer only: replaces the value; readers that wait get it.
    pub fn publish(&self, value: T) {
        self.show(value);
        self.end_wait();
    }

    /// For the writer only: replaces the value; another one will follow soon.
    pub fn publish_until_next(&self, value: T) {
        // First, so that a reader for whom the new value does not count any more waits for the next.
        self.wait_ended.store(false, Ordering::Release);
        self.show(value);
        self.tick();
    }

    /// For the writer only: no value will come soon, so nobody should wait.
    pub fn end_wait(&self) {
        self.wait_ended.store(true, Ordering::Release);
        self.tick();
    }

    fn tick(&self) {
        self.changes.send_modify(|ticks| *ticks += 1);
    }
}
