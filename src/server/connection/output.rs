//! What a connection writes: how much at once, until when, and the memory of answers that wait for their peer.
//!
//! There are two deadlines. One is for each step, so that a slow reader of a large value is not cut off. The other is
//! for all answers together, so that nobody holds memory for ever by taking a few bytes now and then.

use std::io::{self, IoSlice};
use std::task::Waker;
use std::time::Duration;

use super::input::STEP_BYTES;
use super::{Connection, after};
use crate::clock::BootMs;
use crate::server::Limits;
use crate::server::buffers::{self, BUFFER_BYTES};
use crate::server::memory::MemoryUse;
use crate::service::Output;
use crate::stats::ConnectionState;

/// Most bytes written in one call if there are large values, and most before others get a turn: others wait while the
/// kernel copies them.
const WRITE_BYTES_MAX: usize = 256 * 1024;
/// What TLS keeps of answers that the peer has not taken, bytes.
pub(super) const TLS_BUFFER_BYTES: usize = 64 * 1024;

impl Connection {
    /// No answer is queued, or all are written and [`Connection::finish_writing`] was called.
    pub fn has_no_answer(&self) -> bool {
        self.output.is_empty()
    }

    /// All that is queued has been handed to the stream, which may have kept some of it.
    pub fn is_written(&self) -> bool {
        self.written == self.output.queued_bytes()
    }

    /// What to write next; `None` if it contains large values.
    pub fn unwritten_bytes(&self) -> Option<&[u8]> {
        (!self.output.has_large()).then(|| self.output.get(self.written..).unwrap_or_default())
    }

    /// What to write next in one call, in pieces. Returns how many of `slices` are filled.
    pub fn unwritten_slices<'a>(&'a self, slices: &mut [IoSlice<'a>]) -> usize {
        self.output.slices(self.written, WRITE_BYTES_MAX, slices)
    }

    /// The answers could not be written at once. [`Connection::write_deadline`] says from now on how long to try.
    pub fn begin_writing(&mut self, now_ms: BootMs) {
        self.info.set_state(ConnectionState::Mwrite);
        self.write_begun_ms = now_ms;
        self.write_turn_ends = self.written + WRITE_BYTES_MAX;
    }

    /// True if so much was written that others get a turn first; the next turn then begins.
    pub fn take_write_turn(&mut self) -> bool {
        let is_over = !self.is_written() && self.written >= self.write_turn_ends;
        if is_over {
            self.write_turn_ends = self.written + WRITE_BYTES_MAX;
            self.stats.conn_yields.add(1);
        }
        is_over
    }

    /// Until when the peer must take the next part.
    pub fn write_deadline(&mut self, now_ms: BootMs) -> BootMs {
        self.now_ms = now_ms;
        let step = self.shared.limits.write_timeout;
        if self.is_written() {
            return after(now_ms, step);
        }
        let whole_s = self.written as u64 / Limits::ANSWER_BYTES_PER_S_MIN;
        after(now_ms, step).min(after(self.write_begun_ms, 2 * step + Duration::from_secs(whole_s)))
    }

    /// Counts bytes that were handed to the stream.
    pub fn record_written(&mut self, bytes: usize) {
        self.written += bytes;
        self.output.release_written(self.written);
    }

    /// All is written and sent: the stream keeps none of it.
    pub fn finish_writing(&mut self, now_ms: BootMs) {
        self.now_ms = now_ms;
        self.stats.bytes_written.add(std::mem::take(&mut self.written) as u64);
        self.output.clear();
        if !self.share.is_held() {
            return;
        }
        if self.requested.bytes == 0 {
            self.release_share();
        } else {
            // If the memory was taken back meanwhile, the half-received request is refused later.
            self.shared.in_flight.record(&mut self.share, self.requested, self.now_ms);
        }
    }

    /// The peer takes nothing for now: counts the memory of its answers. An error if that memory was taken back,
    /// because others need it and this peer is the slowest; the waker is woken when that happens.
    pub fn record_write_blocked(&mut self, now_ms: BootMs, waker: &Waker) -> io::Result<()> {
        shrink(&mut self.input);
        shrink(&mut self.output);
        let memory = &self.shared.in_flight;
        let holding = waiting(self.input.capacity(), &self.output, self.tls, self.written);
        if memory.record(&mut self.share, holding, now_ms) && !memory.poll_revoked(&self.share, waker) {
            return Ok(());
        }
        self.stats.answer_refusals.add(1);
        let what = "the peer takes its answers more slowly than others, who need the memory";
        Err(io::Error::new(io::ErrorKind::TimedOut, what))
    }

    /// The error for a peer that took nothing in time; counts it.
    pub fn write_timeout_error(&self) -> io::Error {
        self.stats.write_timeouts.add(1);
        io::Error::new(io::ErrorKind::TimedOut, "the peer does not take its answers")
    }
}

/// Called before waiting for a peer: gives an empty buffer back, and makes one smaller that is larger than needed.
fn shrink(buffer: &mut Vec<u8>) {
    if buffer.is_empty() {
        buffers::give_back(buffer);
        return;
    }
    let needed = buffer.len().max(BUFFER_BYTES);
    if buffer.capacity() > needed + STEP_BYTES {
        buffer.shrink_to(needed);
    }
}

/// The memory that a connection holds while its peer has taken only the first `written` bytes.
pub(super) fn waiting(input_bytes: usize, output: &Output, tls: bool, written: usize) -> MemoryUse {
    let beyond = |bytes: usize| bytes.saturating_sub(BUFFER_BYTES);
    let tls_bytes = if tls { TLS_BUFFER_BYTES } else { 0 };
    MemoryUse {
        bytes: (beyond(input_bytes) + beyond(output.capacity()) + tls_bytes) as u64,
        shared_bytes: output.shared_bytes() as u64,
        moved_bytes: written as u64,
    }
}
