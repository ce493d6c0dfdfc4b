//! The driver's corners that no outside test can reach; the rest is in `tests/it/refresher.rs`.

use super::*;

/// Apps of this name crash their first flight.
pub(super) fn panic_if_asked(appid: &str) {
    static CRASHED: std::sync::atomic::AtomicBool = std::sync::atomic::AtomicBool::new(false);
    assert!(appid != "wxcrash" || CRASHED.swap(true, Ordering::SeqCst), "crash asked for by a test");
}
