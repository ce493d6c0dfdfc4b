//! What each sink counts, for `stats`.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};

use parking_lot::Mutex;

/// One sink's figures, since the start.
#[derive(Default, Debug)]
pub struct SinkStats {
    /// Whether its server answers at present.
    pub connected: AtomicBool,
    /// Keys written.
    pub writes: AtomicU64,
    /// Keys deleted because their value was withdrawn or had ended.
    pub deletes: AtomicU64,
    /// Times that connecting, writing or deleting failed.
    pub failures: AtomicU64,
    /// Tokens found there that somebody else had written over ours.
    pub rival_writes: AtomicU64,
    /// The class of the last failure, until everything is written again.
    last_error: Mutex<Option<&'static str>>,
}

impl SinkStats {
    /// Counts a failure of that class.
    pub fn failed(&self, class: &'static str) {
        self.failures.fetch_add(1, Relaxed);
        *self.last_error.lock() = Some(class);
    }

    /// Everything is written.
    pub fn good(&self) {
        *self.last_error.lock() = None;
    }

    /// The class of the last failure, if not everything is written since.
    pub fn last_error(&self) -> Option<&'static str> {
        *self.last_error.lock()
    }
}
