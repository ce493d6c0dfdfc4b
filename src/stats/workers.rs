//! What the workers count: a set each, with one writing thread, and the sums over all of them.
//!
//! Counting never locks and is no read-modify-write. A sum is never less than one taken before it.

use crate::sync::{Arc, AtomicU64, Mutex, Ordering::Relaxed};

/// A counter with one writing thread.
#[derive(Default, Debug)]
pub struct Counter(AtomicU64);

impl Counter {
    /// Adds; only the owning thread may.
    pub fn add(&self, n: u64) {
        self.0.store(self.0.load(Relaxed).wrapping_add(n), Relaxed);
    }

    pub fn get(&self) -> u64 {
        self.0.load(Relaxed)
    }
}

/// A set of counters, and how sums of it are made.
pub(super) trait CounterSet: Default {
    type Totals: Default;

    fn add_to(&self, totals: &mut Self::Totals);

    fn subtract(totals: &mut Self::Totals, base: &Self::Totals);
}

/// The sets of all workers.
#[derive(Default, Debug)]
pub(super) struct Workers<C: CounterSet> {
    sets: Mutex<Vec<Arc<C>>>,
    /// What a reset subtracts.
    base: Mutex<C::Totals>,
}

impl<C: CounterSet> Workers<C> {
    /// A new worker's own set.
    pub fn register(&self) -> Arc<C> {
        let worker = Arc::new(C::default());
        self.sets.lock().push(worker.clone());
        worker
    }

    /// The sums since the last reset.
    pub fn totals(&self) -> C::Totals {
        // Held for both: a sum from before a reset is less than what the reset subtracts.
        let base = self.base.lock();
        let mut totals = self.sum();
        C::subtract(&mut totals, &base);
        totals
    }

    /// All sums are zero.
    pub fn reset(&self) {
        let mut base = self.base.lock();
        *base = self.sum();
    }

    fn sum(&self) -> C::Totals {
        let mut totals = C::Totals::default();
        for worker in self.sets.lock().iter() {
            worker.add_to(&mut totals);
        }
        totals
    }
}
