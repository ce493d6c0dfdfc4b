//! What `src/sync.rs` offers, built of loom's parts: every order in which threads may come, and every value that a load
//! may find under the memory model.
//!
//! loom's own: atomics, `Mutex`. The standard library's: `Arc`. Modelled: [`ArcSwapOption`] is the place of a value in a list that only grows,
//! read and written with the orderings that arc-swap promises (a load acquires what a store has released); how arc-swap
//! knows when to free a value is not tried here. [`watch`] is a version, and a condition variable for the sleeping.

use std::ops::Deref;
pub use std::sync::Arc;

use loom::sync::atomic::AtomicUsize;

pub use loom::sync::atomic::{AtomicBool, AtomicU64, Ordering};

#[derive(Debug, Default)]
pub struct Mutex<T>(loom::sync::Mutex<T>);

impl<T> Mutex<T> {
    pub fn lock(&self) -> loom::sync::MutexGuard<'_, T> {
        self.0.lock().unwrap()
    }
}

pub struct ArcSwapOption<T> {
    values: std::sync::Mutex<Vec<Arc<T>>>,
    /// Of the present value, counted from 1.
    place: AtomicUsize,
}

/// What a load has found. arc-swap's keeps it from being freed, and so does this.
pub struct Guard<T>(T);

impl<T> Deref for Guard<T> {
    type Target = T;
    fn deref(&self) -> &T {
        &self.0
    }
}

impl<T> ArcSwapOption<T> {
    pub fn empty() -> Self {
        ArcSwapOption { values: std::sync::Mutex::default(), place: AtomicUsize::new(0) }
    }

    pub fn load(&self) -> Guard<Option<Arc<T>>> {
        let place = self.place.load(Ordering::Acquire);
        let values = self.values.lock().unwrap();
        Guard(place.checked_sub(1).map(|place| values[place].clone()))
    }

    pub fn store(&self, value: Option<Arc<T>>) {
        let mut values = self.values.lock().unwrap();
        values.extend(value);
        let place = values.len();
        drop(values);
        self.place.store(place, Ordering::Release);
    }
}

pub mod watch {
    use loom::sync::atomic::{AtomicUsize, Ordering};
    use loom::sync::{Arc, Condvar, Mutex};

    struct Shared<T> {
        value: Mutex<T>,
        version: AtomicUsize,
        sleepers: Mutex<()>,
        wake: Condvar,
    }

    pub struct Sender<T>(Arc<Shared<T>>);

    pub struct Receiver<T> {
        shared: Arc<Shared<T>>,
        seen: Option<usize>,
    }

    impl<T> Sender<T> {
        pub fn new(value: T) -> Sender<T> {
            let (value, version) = (Mutex::new(value), AtomicUsize::new(0));
            Sender(Arc::new(Shared { value, version, sleepers: Mutex::new(()), wake: Condvar::new() }))
        }

        pub fn subscribe(&self) -> Receiver<T> {
            let seen = self.0.version.load(Ordering::Acquire);
            Receiver { shared: self.0.clone(), seen: Some(seen) }
        }

        pub fn send_modify(&self, change: impl FnOnce(&mut T)) {
            let mut value = self.0.value.lock().unwrap();
            change(&mut value);
            self.0.version.fetch_add(1, Ordering::Release);
            drop(value);
            drop(self.0.sleepers.lock().unwrap());
            self.0.wake.notify_all();
        }
    }

    impl<T> Receiver<T> {
        pub fn mark_changed(&mut self) {
            self.seen = None;
        }

        /// tokio's `changed().await`, on a thread. One that nobody wakes is a deadlock, which loom reports.
        pub fn wait(&mut self) {
            let mut asleep = self.shared.sleepers.lock().unwrap();
            loop {
                let version = self.shared.version.load(Ordering::Acquire);
                if self.seen != Some(version) {
                    self.seen = Some(version);
                    return;
                }
                asleep = self.shared.wake.wait(asleep).unwrap();
            }
        }
    }
}
