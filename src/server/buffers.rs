//! Buffers that only busy connections hold: an idle connection owns none.
//!
//! Each worker thread keeps a few for reuse, [`KEPT_BYTES_MAX`] in all. The one given back last is taken first: it is
//! the one the processor has at hand.

use std::cell::RefCell;

/// First capacity of a buffer, bytes: a batch of thirty-two sets of 512 bytes.
pub const BUFFER_BYTES: usize = 16 * 1024;
/// What a worker keeps: two that have seen the largest item there is by default, and many small ones.
const KEPT_BYTES_MAX: usize = 4 * 1024 * 1024;

struct Kept {
    buffers: Vec<Vec<u8>>,
    bytes: usize,
}

thread_local! {
    static KEPT: RefCell<Kept> = const { RefCell::new(Kept { buffers: Vec::new(), bytes: 0 }) };
}

/// An empty buffer with room.
pub fn take() -> Vec<u8> {
    KEPT.with_borrow_mut(|kept| {
        let buffer = kept.buffers.pop()?;
        kept.bytes -= buffer.capacity();
        Some(buffer)
    })
    .unwrap_or_else(|| Vec::with_capacity(BUFFER_BYTES))
}

/// Gives a buffer back, leaving an empty one without memory in its place.
pub fn give_back(buffer: &mut Vec<u8>) {
    let mut buffer = std::mem::take(buffer);
    let capacity = buffer.capacity();
    if capacity < BUFFER_BYTES {
        return;
    }
    buffer.clear();
    KEPT.with_borrow_mut(|kept| {
        if kept.bytes + capacity <= KEPT_BYTES_MAX {
            kept.bytes += capacity;
            kept.buffers.push(buffer);
        }
    });
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_kept_is_bounded_and_what_was_kept_is_used_again() {
        let mut large = Vec::with_capacity(KEPT_BYTES_MAX - BUFFER_BYTES);
        large.push(1);
        give_back(&mut large);
        assert_eq!(large.capacity(), 0);
        let mut others = [take(), Vec::with_capacity(BUFFER_BYTES), Vec::with_capacity(BUFFER_BYTES)];
        assert!(others[0].capacity() > BUFFER_BYTES && others[0].is_empty());
        others.iter_mut().for_each(give_back);
        let kept = KEPT.with_borrow(|kept| (kept.buffers.len(), kept.bytes));
        assert_eq!(kept, (2, KEPT_BYTES_MAX), "the third would be too much");
    }

    #[test]
    fn a_buffer_that_never_held_anything_is_not_kept() {
        give_back(&mut Vec::new());
        assert_eq!(KEPT.with_borrow(|kept| kept.buffers.len()), 0);
    }
}
