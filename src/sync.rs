//! What the lock-free parts are built of, under one name each, so that a test can put in its place what tries every
//! interleaving (`tests/it/interleavings`).
//!
//! Only re-exports. A module that uses it has no unit tests of its own: it is compiled into those of the interleavings.

pub use std::sync::Arc;
pub use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

pub use arc_swap::{ArcSwapOption, Guard};
pub use parking_lot::Mutex;
pub use tokio::sync::watch;
