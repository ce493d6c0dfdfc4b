//! Memory that half-received requests hold, over all connections: counted and bounded.
//!
//! Counts what has arrived and the step being read, never what a client merely announces: an announcement must
//! not keep others from storing.

use super::buffers::BUFFER_BYTES;
use crate::sync::{AtomicU64, Ordering::Relaxed};

/// The count. Each connection has a share in it, which it must give back at its end.
///
/// Most connections never have one, and then they leave the count alone: it is shared by all workers, and so is what
/// stands beside it unless it is kept apart.
#[derive(Debug)]
#[repr(align(128))]
pub(crate) struct InFlight {
    bytes: AtomicU64,
    bytes_max: u64,
}

impl InFlight {
    pub fn new(bytes_max: u64) -> InFlight {
        InFlight { bytes: AtomicU64::new(0), bytes_max }
    }

    /// Whether more than half of the memory is in use: time for connections to be held to their deadlines.
    pub fn is_under_pressure(&self) -> bool {
        self.bytes.load(Relaxed) > self.bytes_max / 2
    }

    /// Makes a share as large as `bytes` of a buffer need; false, and nothing has changed, if that is too much for all
    /// together. What fits every connection's first buffer is not counted.
    pub fn resize(&self, share: &mut u64, bytes: usize) -> bool {
        let wanted = bytes.saturating_sub(BUFFER_BYTES) as u64;
        if wanted == *share {
            return true;
        }
        if wanted < *share {
            self.bytes.fetch_sub(*share - wanted, Relaxed);
        } else {
            // One step: a wish that is not granted must not stand in the way of another that could be.
            let more = wanted - *share;
            let granted = |bytes: u64| bytes.checked_add(more).filter(|bytes| *bytes <= self.bytes_max);
            if self.bytes.fetch_update(Relaxed, Relaxed, granted).is_err() {
                return false;
            }
        }
        *share = wanted;
        true
    }
}
