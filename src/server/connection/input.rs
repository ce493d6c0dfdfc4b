//! What a connection reads: into which buffer, until when, and how much memory a half-received request may take.

use std::task::Waker;
use std::time::Duration;

use bytes::BufMut;
use bytes::buf::Limit;
use memchr::memchr;

use super::{Connection, Next, TurnLeft, after};
use crate::clock::BootMs;
use crate::protocol::binary::{self, HEADER_BYTES};
use crate::protocol::parse::step_from;
use crate::protocol::{CloseReason, RequestStep};
use crate::server::Limits;
use crate::server::buffers::{self, BUFFER_BYTES};
use crate::server::memory::MemoryUse;
use crate::stats::ConnectionState;

/// Most bytes read at once, and most before others have a turn. A large data block is read in steps of this size, so
/// that memory grows only with what has really arrived.
pub const READ_BYTES_MAX: usize = 256 * 1024;
/// Memory is reserved in steps of this; a peer that has sent less has made no progress.
pub(super) const STEP_BYTES: usize = BUFFER_BYTES / 4;
/// A longer request was not typed by a person, bytes: a command line with or without its data block.
const TYPED_BYTES_MAX: usize = 2048;
/// How often to check whether a person may go on typing, milliseconds.
const TYPING_RECHECK_MS: u64 = 2_000;

/// What is missing of the request at the front.
#[derive(Default)]
pub(super) struct MissingBytes {
    part: MissingPart,
    /// The bytes it needs in all; it is not parsed again until they are there. 0 if nothing is missing.
    wanted: usize,
    /// When it must be complete.
    due_ms: Option<BootMs>,
    /// If a person may be typing it: a longer deadline, which holds while memory and connections are not short.
    typing: Option<Typing>,
}

/// Which part of the front request is incomplete.
#[derive(Clone, Copy, Default, PartialEq, Eq)]
pub(super) enum MissingPart {
    #[default]
    Nothing,
    /// The end of its line, or of a packet's header.
    Line,
    /// The rest of its data block.
    Block,
}

/// The deadlines of a request that is typed by hand.
#[derive(Clone, Copy)]
struct Typing {
    /// Something must come by then.
    pause_ends_ms: BootMs,
    /// It must be complete by then.
    ends_ms: BootMs,
}

impl MissingBytes {
    /// The front request is complete; the next one gets a new deadline.
    pub fn clear(&mut self) {
        self.part = MissingPart::Nothing;
        self.due_ms = None;
        self.wanted = 0;
    }

    /// How many bytes of the front request were already searched for a line end.
    fn searched(&self) -> usize {
        if self.part == MissingPart::Line { self.wanted.saturating_sub(1) } else { 0 }
    }
}

impl Connection {
    /// Called before each read. Returns until when something must come.
    pub fn begin_reading(&self) -> Option<BootMs> {
        self.info.set_state(match self.missing.part {
            _ if self.discard > 0 => ConnectionState::Swallow,
            MissingPart::Block => ConnectionState::Nread,
            MissingPart::Nothing | MissingPart::Line => ConnectionState::Read,
        });
        let idle = || self.shared.limits.idle_timeout.map(|idle| after(self.now_ms, idle));
        let login = self.pending_auth.as_ref().map(|pending_auth| pending_auth.until_ms);
        self.missing.due_ms.or_else(idle).into_iter().chain(login).min()
    }

    /// True if so much was read that others get a turn first. Counting requests is not enough: a few large values take
    /// as long as many requests.
    pub fn is_read_turn_over(&self) -> bool {
        self.turn.read_bytes == 0
    }

    /// The buffer for the next read, asked for just before it. `None` if there is no memory for more of the front
    /// request, or its memory was taken back: it is then executed, which refuses it, and nothing is read. The waker is
    /// woken when memory is taken back.
    pub fn read_room(&mut self, waker: &Waker) -> Option<Limit<&mut Vec<u8>>> {
        if self.input.capacity() == 0 {
            self.input = buffers::take();
        }
        let next = next_read_bytes(self.input.len(), self.missing.wanted);
        if !make_room(&mut self.input, next) {
            self.no_room = true;
            return None;
        }
        if self.share.is_held() && self.shared.in_flight.poll_revoked(&self.share, waker) {
            return None;
        }
        Some((&mut self.input).limit(READ_BYTES_MAX))
    }

    /// Counts what was read.
    pub fn record_read(&mut self, bytes: usize) {
        self.stats.bytes_read.add(bytes as u64);
        self.turn.read_bytes = self.turn.read_bytes.saturating_sub(bytes);
    }

    /// There is nothing to read now: others have a turn, and empty buffers are given back.
    pub fn record_nothing_to_read(&mut self) {
        self.turn = TurnLeft::new(&self.shared);
        // The buffer given back last is taken first. So the input goes last, and a buffer that has grown for answers is
        // used for answers again.
        if self.output.is_empty() {
            buffers::give_back(&mut self.output);
        }
        if self.input.is_empty() {
            buffers::give_back(&mut self.input);
        }
        self.fit_input();
    }

    /// Nothing came in time. Returns a later deadline if a person may be typing; `None` if the connection ends.
    pub fn record_late(&mut self, now_ms: BootMs) -> Option<BootMs> {
        self.now_ms = now_ms;
        let deadline = self.typing_deadline();
        if deadline.is_none() {
            let late = self.missing.due_ms.is_some();
            let counter = if late { &self.stats.request_timeouts } else { &self.stats.idle_kicks };
            counter.add(1);
        }
        deadline
    }

    /// Until when a person may go on typing; `None` if that time is over.
    fn typing_deadline(&self) -> Option<BootMs> {
        let Typing { pause_ends_ms, ends_ms } = self.missing.typing?;
        let login = self.pending_auth.as_ref().map(|pending_auth| pending_auth.until_ms);
        let last_ms = login.into_iter().chain([pause_ends_ms, ends_ms]).min()?;
        let is_time = self.now_ms < last_ms && !self.shared.record_pressure(self.now_ms);
        is_time.then(|| last_ms.min(self.now_ms + TYPING_RECHECK_MS))
    }

    /// The next request. One whose data block would be too much memory for all connections together loses the block,
    /// like one that is too large for the cache.
    pub(super) fn bounded_step<'a>(&mut self, rest: &'a [u8], is_binary: bool) -> RequestStep<'a> {
        let (wanted, pending_auth) = (self.missing.wanted, self.pending_auth.is_some());
        let step = |searched, value_bytes_max| match is_binary {
            true => binary::step(rest, value_bytes_max, pending_auth),
            false => step_from(rest, searched, value_bytes_max),
        };
        let found = match rest.len() < wanted {
            true => RequestStep::More { total: wanted },
            false => step(self.missing.searched(), self.shared.limits.value_bytes_max),
        };
        let RequestStep::More { total } = found else { return found };
        if self.try_reserve_request(rest.len(), total) {
            return found;
        }
        match step(0, 0) {
            // Only a data block can be dropped, not keys.
            RequestStep::More { .. } if is_binary => RequestStep::Close(CloseReason::NotBinary),
            RequestStep::More { .. } => RequestStep::Close(CloseReason::LineTooLong),
            refused => refused,
        }
    }

    /// Reserves memory for the next part of a request of `total` bytes of which `have` are here. False if there is
    /// none; then that is counted, and the answer will say so.
    fn try_reserve_request(&mut self, have: usize, total: usize) -> bool {
        let memory = &self.shared.in_flight;
        if std::mem::take(&mut self.no_room) {
            self.release_share();
            return self.record_memory_short();
        }
        let next = next_read_bytes(have, total);
        let moved = have - have % STEP_BYTES;
        // What fits into a connection's first buffer is not counted.
        let bytes = (moved + next).saturating_sub(BUFFER_BYTES) as u64;
        let requested = MemoryUse { bytes, shared_bytes: 0, moved_bytes: moved as u64 };
        if bytes == 0 && !self.share.is_held() || requested == self.requested && !memory.is_revoked(&self.share) {
            return true;
        }
        if memory.try_reserve(&mut self.share, requested, self.now_ms) {
            self.requested = requested;
            return true;
        }
        self.requested = MemoryUse::default();
        self.record_memory_short()
    }

    /// Counts that the front request loses its data block because memory is short; always false.
    fn record_memory_short(&mut self) -> bool {
        self.stats.in_flight_refusals.add(1);
        self.memory_short = true;
        false
    }

    pub(super) fn release_share(&mut self) {
        self.shared.in_flight.release(&mut self.share, self.now_ms);
        self.requested = MemoryUse::default();
    }

    /// The front request needs `total` bytes to be whole.
    pub(super) fn request_more(&mut self, rest: &[u8], is_binary: bool, total: usize) -> Next {
        let has_line = match is_binary {
            true => rest.len() >= HEADER_BYTES,
            false => {
                let unsearched = rest.get(self.missing.searched()..).unwrap_or_default();
                self.missing.part == MissingPart::Block || memchr(b'\n', unsearched).is_some()
            }
        };
        self.record_missing(if has_line { MissingPart::Block } else { MissingPart::Line }, total as u64, total)
    }

    /// Records what the next read is for, and when `bytes` must have come. The time counts from the first part of a
    /// line or block, not from the last. It begins anew with each request.
    pub(super) fn record_missing(&mut self, part: MissingPart, bytes: u64, wanted: usize) -> Next {
        self.missing.wanted = wanted;
        self.no_room = false;
        self.record_typing(part);
        if part != self.missing.part {
            let limits = &self.shared.limits;
            let block_s = bytes / Limits::REQUEST_BYTES_PER_S_MIN;
            let allowed = match part {
                MissingPart::Nothing => None,
                MissingPart::Line => Some(limits.line_timeout),
                MissingPart::Block => Some(limits.block_timeout + Duration::from_secs(block_s)),
            };
            self.missing.due_ms = allowed.map(|allowed| after(self.now_ms, allowed));
            self.missing.part = part;
        }
        if wanted == 0 {
            self.release_share();
        }
        Next::Read
    }

    /// Records how long a person may go on typing. Nobody types the binary protocol.
    fn record_typing(&mut self, part: MissingPart) {
        let by_hand = part != MissingPart::Nothing
            && self.is_binary != Some(true)
            && (1..=TYPED_BYTES_MAX).contains(&self.missing.wanted);
        let (now_ms, limits) = (self.now_ms, &self.shared.limits);
        let begun = self.missing.typing.filter(|_| self.missing.part == part);
        self.missing.typing = by_hand.then(|| Typing {
            pause_ends_ms: after(now_ms, limits.typing_pause),
            ends_ms: begun.map_or_else(|| after(now_ms, limits.typing_max), |typing| typing.ends_ms),
        });
    }

    /// Replaces a buffer that has grown for an earlier request: only what the present one needs is counted as memory.
    fn fit_input(&mut self) {
        let counted = BUFFER_BYTES + usize::try_from(self.requested.bytes).unwrap_or(usize::MAX / 4);
        // Growing may have doubled it.
        if self.input.is_empty() || self.input.capacity() <= 2 * counted.max(self.input.len()) {
            return;
        }
        let mut fitting = Vec::new();
        if fitting.try_reserve_exact(counted.max(self.input.len())).is_ok() {
            fitting.extend_from_slice(&self.input);
            buffers::give_back(&mut std::mem::replace(&mut self.input, fitting));
        }
    }
}

/// Makes room for this many more bytes; false if the system has no memory for them. Clients decide how large a buffer
/// gets, so a lack of memory must not end the process.
fn make_room(buffer: &mut Vec<u8>, bytes: usize) -> bool {
    // Doubles what is there; if that is too much, grows by what is needed.
    buffer.try_reserve(bytes).or_else(|_| buffer.try_reserve_exact(bytes)).is_ok()
}

/// How many bytes to read next of a request of `total` bytes, `have` of which are here: what is missing, but not much
/// more than has come already, so that a client cannot take memory by announcing a large block.
fn next_read_bytes(have: usize, total: usize) -> usize {
    total.saturating_sub(have).clamp(STEP_BYTES, (2 * have).clamp(BUFFER_BYTES, READ_BYTES_MAX))
}
