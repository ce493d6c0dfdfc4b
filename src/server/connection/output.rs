//! What a connection writes: how much at once, until when, and the memory of answers that wait for their peer.
//!
//! A deadline is for each step, so a slow reader of something large is not cut off; another is for the whole, so that
//! nobody holds memory for ever by a few bytes now and then.

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

/// Most bytes written at once of answers with large values, and of any before others get a turn: the kernel copies them,
/// and others wait for that.
const WRITE_BYTES_MAX: usize = 256 * 1024;
/// What TLS keeps of answers that its peer has not taken.
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

    /// What is to be written next, unless there are large values among it.
    pub fn unwritten_bytes(&self) -> Option<&[u8]> {
        (!self.output.has_large()).then(|| self.output.get(self.written..).unwrap_or_default())
    }

    /// What is to be written next, in pieces, to be written in one call; how many that are.
    pub fn unwritten_slices<'a>(&'a self, slices: &mut [IoSlice<'a>]) -> usize {
        self.output.slices(self.written, WRITE_BYTES_MAX, slices)
    }

    /// The answers could not be written at once; until they are, [`Connection::write_deadline`] says how long to try.
    pub fn begin_writing(&mut self, now_ms: BootMs) {
        self.info.set_state(ConnectionState::Mwrite);
        self.write_begun_ms = now_ms;
        self.write_turn_ends = self.written + WRITE_BYTES_MAX;
    }

    /// So much was written that others get a turn first; the next begins.
    pub fn take_write_turn(&mut self) -> bool {
        let is_over = !self.is_written() && self.written >= self.write_turn_ends;
        if is_over {
            self.write_turn_ends = self.written + WRITE_BYTES_MAX;
            self.stats.conn_yields.add(1);
        }
        is_over
    }

    /// Until when the peer must take some more.
    pub fn write_deadline(&mut self, now_ms: BootMs) -> BootMs {
        self.now_ms = now_ms;
        let step = self.shared.limits.write_timeout;
        if self.is_written() {
            return after(now_ms, step);
        }
        let whole_s = self.written as u64 / Limits::ANSWER_BYTES_PER_S_MIN;
        after(now_ms, step).min(after(self.write_begun_ms, 2 * step + Duration::from_secs(whole_s)))
    }

    /// So many bytes were handed to the stream.
    pub fn record_written(&mut self, bytes: usize) {
        self.written += bytes;
        self.output.release_written(self.written);
    }

    /// All is written, and the stream has kept none of it.
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
            // If the memory was taken back meanwhile, the answer to the request that has begun will say so.
            self.shared.in_flight.record(&mut self.share, self.requested, self.now_ms);
        }
    }

    /// The peer takes nothing for now: counts the memory that waits for it. An error if it was taken back, because others
    /// need it and this peer is the slowest; the waker is for that.
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

    /// Counts that the peer took nothing in time.
    pub fn write_timeout_error(&self) -> io::Error {
        self.stats.write_timeouts.add(1);
        io::Error::new(io::ErrorKind::TimedOut, "the peer does not take its answers")
    }
}

/// Lets a buffer go, or what of it is not needed, before it waits for a peer.
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

/// What a connection holds while its peer takes what comes after the first `written` bytes.
pub(super) fn waiting(input_bytes: usize, output: &Output, tls: bool, written: usize) -> MemoryUse {
    let beyond = |bytes: usize| bytes.saturating_sub(BUFFER_BYTES);
    let tls_bytes = if tls { TLS_BUFFER_BYTES } else { 0 };
    MemoryUse {
        bytes: (beyond(input_bytes) + beyond(output.capacity()) + tls_bytes) as u64,
        shared_bytes: output.shared_bytes() as u64,
        moved_bytes: written as u64,
    }
}
