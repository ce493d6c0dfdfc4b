//! Buffers that only busy connections hold: an idle connection owns none.
//!
//! Each worker thread keeps a few for reuse. Never grows beyond [`KEPT_MAX`] buffers of [`KEPT_BYTES_MAX`].

use std::cell::RefCell;

/// First capacity of a buffer, bytes: a batch of thirty-two sets of 512 bytes.
pub const BUFFER_BYTES: usize = 16 * 1024;
/// A buffer that has grown larger than this is not kept.
const KEPT_BYTES_MAX: usize = 512 * 1024;
const KEPT_MAX: usize = 32;

thread_local! {
    static KEPT: RefCell<Vec<Vec<u8>>> = const { RefCell::new(Vec::new()) };
}

/// An empty buffer with room.
pub fn take() -> Vec<u8> {
    KEPT.with_borrow_mut(Vec::pop).unwrap_or_else(|| Vec::with_capacity(BUFFER_BYTES))
}

/// Gives a buffer back, leaving an empty one without memory in its place.
pub fn give_back(buffer: &mut Vec<u8>) {
    let mut buffer = std::mem::take(buffer);
    if buffer.capacity() == 0 || buffer.capacity() > KEPT_BYTES_MAX {
        return;
    }
    buffer.clear();
    KEPT.with_borrow_mut(|kept| {
        if kept.len() < KEPT_MAX {
            kept.push(buffer);
        }
    });
}
