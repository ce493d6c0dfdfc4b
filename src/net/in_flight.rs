//! Memory that half-received requests hold, over all connections: counted and bounded.
//!
//! Counts what has arrived and the step being read, never what a client merely announces: an announcement must
//! not keep others from storing.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use super::buffers::BUFFER_BYTES;

/// The count. Each connection has a share in it, which it must give back at its end.
#[derive(Debug)]
pub(crate) struct InFlight {
    bytes: AtomicU64,
    bytes_max: u64,
}

impl InFlight {
    pub fn new(bytes_max: u64) -> InFlight {
        InFlight { bytes: AtomicU64::new(0), bytes_max }
    }

    /// Makes a share as large as `bytes` of a buffer need; false, and nothing has changed, if that is too much for all
    /// together. What fits every connection's first buffer is not counted.
    pub fn resize(&self, share: &mut u64, bytes: usize) -> bool {
        let wanted = bytes.saturating_sub(BUFFER_BYTES) as u64;
        if wanted <= *share {
            self.bytes.fetch_sub(*share - wanted, Relaxed);
        } else {
            let more = wanted - *share;
            if self.bytes.fetch_add(more, Relaxed) + more > self.bytes_max {
                self.bytes.fetch_sub(more, Relaxed);
                return false;
            }
        }
        *share = wanted;
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shares_add_up_and_come_back() {
        let all = InFlight::new(100);
        let (mut one, mut two) = (0, 0);
        assert!(all.resize(&mut one, BUFFER_BYTES) && one == 0);
        assert!(all.resize(&mut one, BUFFER_BYTES + 60));
        assert!(!all.resize(&mut two, BUFFER_BYTES + 41) && two == 0);
        assert!(all.resize(&mut two, BUFFER_BYTES + 40));
        assert!(!all.resize(&mut one, BUFFER_BYTES + 61) && one == 60);
        assert!(all.resize(&mut one, 0) && all.resize(&mut two, 0));
        assert_eq!(all.bytes.load(Relaxed), 0);
    }
}
