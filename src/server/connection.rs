//! One connection as a state machine: bytes and the time go in; answers, large values that are not copied, and
//! deadlines come out. A driver ([`super::driver`]) reads, writes and sleeps. No I/O, no async code, no look at a
//! clock.
//!
//! The driver reads into [`Connection::read_room`], calls [`Connection::execute`], writes what
//! [`Connection::unwritten_bytes`] or [`Connection::unwritten_slices`] gives, and then does what the [`Next`] says. A
//! connection that waits for its peer holds no buffers and has no deadline, unless it is in the middle of a request or
//! an idle timeout is configured. What it queues for a peer that does not read is bounded by [`OUTPUT_BYTES_MAX`] and
//! one item; what all connections hold together of requests and answers is bounded by [`super::memory`].

pub(super) mod input;
mod login;
mod output;
#[cfg(test)]
pub(super) mod tests;

use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use self::input::{MissingBytes, MissingPart};
use self::login::PendingAuth;
use super::buffers::{self, BUFFER_BYTES};
use super::memory::{MemoryShare, MemoryUse};
use super::options::Protocol;
use super::worker::{ConnectionOrigin, Peer};
use super::{ListenerPolicy, ServerState};
use crate::access::Rights;
use crate::clock::{BootMs, Now};
use crate::credential::table::NamesReader;
use crate::protocol::binary::MAGIC;
use crate::protocol::{CloseReason, Command, Request, RequestStep, response};
use crate::service::{
    CommandOutcome, Context, FirstFetchWait, KEYS_PER_TURN, OUTPUT_BYTES_MAX, Output, VerificationWait,
};
use crate::stats::{ConnectionInfo, ConnectionState, WorkerStats};

/// What a client without a login can cause is logged at most this often, milliseconds.
const LOG_SPACING_MS: u64 = 60_000;
/// The `target` of all log lines about a connection, so that one filter finds them.
pub(super) const LOG_TARGET: &str = "tokencached::server::connection";

pub(super) struct Connection {
    peer: Peer,
    shared: Arc<ServerState>,
    stats: Arc<WorkerStats>,
    descriptor: i32,
    info: Arc<ConnectionInfo>,
    /// The time that the driver last gave.
    now_ms: BootMs,
    /// What the client may do once it has logged in.
    rights: Arc<Rights>,
    names: NamesReader,
    pending_auth: Option<PendingAuth>,
    /// The stream is TLS: it may keep a part of what it was given to send.
    tls: bool,
    /// Which protocols the listener allows.
    protocol: Protocol,
    /// Whether the client uses the binary protocol; none before its first byte.
    is_binary: Option<bool>,
    /// What was read. `[start..]` is not executed yet. The executed bytes before it are removed only when everything
    /// whole is executed: to move the rest after each turn would take longer than the turn.
    input: Vec<u8>,
    start: usize,
    /// The `get` at the front, if it was answered in part.
    partial_get: Option<PartialGet>,
    turn: TurnLeft,
    /// Bytes of a refused data block still to be thrown away, and the answer that goes out after them.
    discard: u64,
    after_discard: Vec<u8>,
    missing: MissingBytes,
    /// The answers; the first `written` bytes of them are written.
    output: Output,
    written: usize,
    write_begun_ms: BootMs,
    /// When `written` reaches this, others get a turn.
    write_turn_ends: usize,
    /// Until when the request at the front may wait for a first fetch. It is set once for a request, even if others
    /// have turns in between.
    hold_until_ms: Option<BootMs>,
    /// What is answered when the driver's [`ConnectionWait`] is over, and whether the connection ends then.
    after_wait: Vec<u8>,
    closes_after_wait: bool,
    /// This connection's share in [`ServerState::in_flight`], and the part of it for the half-received request.
    share: MemoryShare,
    requested: MemoryUse,
    /// The data block of the request being executed was dropped because memory is short.
    memory_short: bool,
    /// The system had no memory for the next read.
    no_room: bool,
}

/// What the driver does once the answers are written.
pub(super) enum Next {
    /// All complete requests are executed: read.
    Read,
    /// Enough was executed or queued: [`Connection::give_turn`], let others have theirs, then [`Connection::resume`].
    Turn,
    /// Wait for this until [`Connection::wait_deadline`], then [`Connection::resume`].
    Wait(ConnectionWait),
    /// Read the certificates again, [`Connection::answer_refresh`], then [`Connection::resume`].
    RefreshCertificates,
    Close,
    /// Close, and end the server.
    Shutdown,
}

/// What a connection waits for. Only the first two can end before their deadline.
pub(super) enum ConnectionWait {
    FirstFetch(FirstFetchWait),
    Verification(VerificationWait),
    /// Somebody guesses passwords from the client's address: this one is checked after so many milliseconds.
    LoginTurn(u64),
    /// The answer to a wrong password is delayed.
    LoginFailed,
}

/// What a connection may still do before others get a turn.
struct TurnLeft {
    requests: usize,
    keys: usize,
    read_bytes: usize,
}

impl TurnLeft {
    fn new(shared: &ServerState) -> TurnLeft {
        TurnLeft { requests: shared.limits.requests_per_turn, keys: KEYS_PER_TURN, read_bytes: input::READ_BYTES_MAX }
    }
}

/// A `get` that was answered in part. Its line may be a megabyte long, so it is kept in parsed form, and answered keys
/// are not looked at again. Positions count from the front of `Connection::input[start..]`.
struct PartialGet {
    keys: Range<usize>,
    with_cas: bool,
    touch: Option<i64>,
    /// Length of the whole line.
    used: usize,
    /// The byte of its keys to go on from.
    next: usize,
}

impl PartialGet {
    /// `None` for any other request: those do not take long to parse again.
    fn new(request: &Request<'_>, front: &[u8], used: usize, next: usize) -> Option<PartialGet> {
        let Command::GetMany { keys, with_cas, touch } = request.command else { return None };
        let begin = keys.as_ptr().addr().checked_sub(front.as_ptr().addr())?;
        Some(PartialGet { keys: begin..begin + keys.len(), with_cas, touch, used, next })
    }

    fn request<'a>(&self, front: &'a [u8]) -> Option<Request<'a>> {
        let keys = front.get(self.keys.clone())?;
        Some(Request::text(b"", Command::GetMany { keys, with_cas: self.with_cas, touch: self.touch }, false))
    }
}

/// The time this long after `now_ms`.
fn after(now_ms: BootMs, duration: Duration) -> BootMs {
    now_ms.saturating_add(u64::try_from(duration.as_millis()).unwrap_or(u64::MAX))
}

impl Connection {
    pub fn new(
        origin: ConnectionOrigin,
        policy: &ListenerPolicy,
        rights: Arc<Rights>,
        shared: Arc<ServerState>,
        stats: Arc<WorkerStats>,
        now_ms: BootMs,
    ) -> Connection {
        let ConnectionOrigin { peer, descriptor, listen_addr } = origin;
        let info = ConnectionInfo::new(&peer.address(), Some(listen_addr), now_ms);
        let info = shared.service.stats.connections.add(descriptor, info);
        let turn = TurnLeft::new(&shared);
        let names = shared.service.table.names_reader();
        Connection {
            pending_auth: policy.login.then(|| PendingAuth::new(after(now_ms, shared.limits.login_timeout))),
            peer,
            shared,
            stats,
            descriptor,
            info,
            now_ms,
            rights,
            names,
            tls: policy.tls,
            protocol: policy.protocol,
            is_binary: None,
            input: Vec::new(),
            start: 0,
            partial_get: None,
            turn,
            discard: 0,
            after_discard: Vec::new(),
            missing: MissingBytes::default(),
            output: Output::default(),
            written: 0,
            write_begun_ms: 0,
            write_turn_ends: 0,
            hold_until_ms: None,
            after_wait: Vec::new(),
            closes_after_wait: false,
            share: MemoryShare::default(),
            requested: MemoryUse::default(),
            memory_short: false,
            no_room: false,
        }
    }

    /// The time that the driver last gave; a deadline that is not later is over.
    pub fn now_ms(&self) -> BootMs {
        self.now_ms
    }

    /// Executes the complete requests in what was read.
    pub fn execute(&mut self, now: Now) -> Next {
        self.now_ms = now.boot_ms;
        self.info.last_command_boot_ms.store(now.boot_ms, Relaxed);
        self.info.set_state(ConnectionState::ParseCmd);
        if self.output.capacity() == 0 {
            *self.output = buffers::take();
        }
        let memory = &self.shared.in_flight;
        self.output.set_bytes_max(if memory.is_under_pressure() { BUFFER_BYTES } else { OUTPUT_BYTES_MAX });
        let input = std::mem::take(&mut self.input);
        let next = self.execute_from(&input, now);
        self.input = input;
        if self.start >= self.input.len() {
            self.input.clear();
            self.start = 0;
        } else if matches!(next, Next::Read) {
            self.input.drain(..std::mem::take(&mut self.start));
        }
        if !matches!(next, Next::Wait(ConnectionWait::FirstFetch(_))) && self.partial_get.is_none() {
            self.hold_until_ms = None;
        }
        self.shared.in_flight.enforce_limit(now.boot_ms);
        next
    }

    /// Until when to wait. Called when the earlier answers are written.
    pub fn wait_deadline(&mut self, wait: &ConnectionWait, now_ms: BootMs) -> BootMs {
        self.now_ms = now_ms;
        let limits = &self.shared.limits;
        match wait {
            ConnectionWait::FirstFetch(_) => *self.hold_until_ms.get_or_insert(after(now_ms, limits.hold)),
            ConnectionWait::Verification(_) => after(now_ms, limits.hold),
            ConnectionWait::LoginTurn(wait_ms) => now_ms.saturating_add(*wait_ms),
            ConnectionWait::LoginFailed => after(now_ms, limits.login_failure_delay),
        }
    }

    /// Goes on after others had a turn, or after a wait.
    pub fn resume(&mut self, now: Now) -> Next {
        self.output.append(&mut self.after_wait);
        if self.closes_after_wait { Next::Close } else { self.execute(now) }
    }

    /// Called before others get a turn: a new turn of this connection begins after theirs.
    pub fn give_turn(&mut self) {
        self.stats.conn_yields.add(1);
        self.turn = TurnLeft::new(&self.shared);
    }

    /// Answers `refresh_certs` with the outcome; `None` without TLS.
    pub fn answer_refresh(&mut self, outcome: Option<Result<(), ()>>) {
        let answer = match outcome {
            Some(Ok(())) => "OK",
            None => "ERROR",
            Some(Err(())) => "SERVER_ERROR the certificates cannot be used and stay as they were; see the log",
        };
        response::line(&mut self.after_wait, answer);
    }

    fn execute_from(&mut self, input: &[u8], now: Now) -> Next {
        loop {
            if self.discard > 0 && !self.discard_from(input) {
                return self.record_missing(MissingPart::Block, self.discard, 0);
            }
            let rest = &input[self.start..];
            if rest.is_empty() {
                return self.record_missing(MissingPart::Nothing, 0, 0);
            }
            if self.turn.requests == 0 || self.turn.keys == 0 || self.output.is_full() {
                return Next::Turn;
            }
            let next = match self.detect_protocol(rest[0]) {
                Err(why) => Some(self.close_for(why)),
                Ok(false) if self.pending_auth.is_some() => self.execute_login(rest),
                Ok(is_binary) => self.execute_front(rest, is_binary, now),
            };
            if let Some(next) = next {
                return next;
            }
        }
    }

    /// Decides by the client's first byte which protocol it uses, as memcached does; true for binary. An error if the
    /// listener does not allow it.
    fn detect_protocol(&mut self, first_byte: u8) -> Result<bool, CloseReason> {
        if let Some(is_binary) = self.is_binary {
            return Ok(is_binary);
        }
        let is_binary = first_byte == MAGIC;
        match self.protocol {
            Protocol::Ascii if is_binary => return Err(CloseReason::Binary),
            Protocol::Binary if !is_binary => return Err(CloseReason::NotBinary),
            _ => {}
        }
        self.is_binary = Some(is_binary);
        Ok(is_binary)
    }

    /// Executes the request at the front; `None` to go on with the next.
    fn execute_front(&mut self, rest: &[u8], is_binary: bool, now: Now) -> Option<Next> {
        if let Some(partial_get) = self.partial_get.take()
            && let Some(request) = partial_get.request(rest)
        {
            return self.execute_request(&request, (partial_get.used, 0), partial_get.next, rest, now);
        }
        let (request, used, discard) = match self.bounded_step(rest, is_binary) {
            RequestStep::Request { request, used, discard } => (request, used, discard),
            RequestStep::More { total } => return Some(self.request_more(rest, is_binary, total)),
            RequestStep::Close(why) => return Some(self.close_for(why)),
        };
        self.missing.clear();
        if self.pending_auth.is_some()
            && let Some(outcome) = self.execute_sasl(&request, used)
        {
            return outcome;
        }
        self.execute_request(&request, (used, discard), 0, rest, now)
    }

    /// Executes the request at the front of `rest`; of a `get` the keys from byte `begin` on.
    fn execute_request(
        &mut self,
        request: &Request<'_>,
        (used, discard): (usize, u64),
        begin: usize,
        rest: &[u8],
        now: Now,
    ) -> Option<Next> {
        self.turn.requests -= 1;
        let outcome = self.execute_one(request, begin, now, discard);
        if let CommandOutcome::MoreKeys(next) | CommandOutcome::Wait(_, next) = outcome {
            self.partial_get = PartialGet::new(request, rest, used, next);
        }
        self.apply_outcome(outcome, used)
    }

    /// What to do after an executed request of `used` bytes; `None` to go on with the next.
    fn apply_outcome(&mut self, outcome: CommandOutcome, used: usize) -> Option<Next> {
        let next = match outcome {
            CommandOutcome::Done => None,
            CommandOutcome::MoreKeys(_) => return Some(Next::Turn),
            CommandOutcome::Wait(wait, _) => return Some(Next::Wait(ConnectionWait::FirstFetch(wait))),
            CommandOutcome::ReplyAfterVerification(verification, reply) => {
                self.after_wait = reply;
                Some(Next::Wait(ConnectionWait::Verification(verification)))
            }
            CommandOutcome::RefreshCertificates => Some(Next::RefreshCertificates),
            CommandOutcome::Close => return Some(Next::Close),
            CommandOutcome::Shutdown => return Some(Next::Shutdown),
        };
        self.start += used;
        next
    }

    /// Executes one request. If its data block must be dropped first, the answer is sent after that.
    fn execute_one(&mut self, request: &Request<'_>, begin: usize, now: Now, discard: u64) -> CommandOutcome {
        let answer_at = self.output.len();
        let mut context = Context {
            now,
            stats: &self.stats,
            peer: &self.peer,
            rights: &self.rights,
            names: self.names.now(),
            may_wait: self.hold_until_ms.is_none_or(|until_ms| now.boot_ms < until_ms),
            memory_short: std::mem::take(&mut self.memory_short),
            keys_left: self.turn.keys,
            out: &mut self.output,
        };
        let outcome = self.shared.service.execute(request, begin, &mut context);
        self.turn.keys = context.keys_left;
        if discard > 0 {
            self.discard = discard;
            self.after_discard = self.output.split_off(answer_at);
        }
        outcome
    }

    /// Drops what has come of a refused data block. True when all of it is dropped and its answer is queued.
    fn discard_from(&mut self, input: &[u8]) -> bool {
        let there = (input.len() - self.start) as u64;
        let gone = there.min(self.discard);
        self.start += usize::try_from(gone).unwrap_or(usize::MAX);
        self.discard -= gone;
        if self.discard == 0 {
            self.output.append(&mut self.after_discard);
        }
        self.discard == 0
    }

    fn close_for(&self, why: CloseReason) -> Next {
        self.stats.foreign_protocols.add(1);
        if self.shared.foreign_log.allow(self.now_ms, LOG_SPACING_MS) {
            let remedy = match why {
                CloseReason::Binary => {
                    "the client speaks memcached's binary protocol where only text is allowed: allow both with -B auto, \
                     or in PHP set memcached.sess_binary_protocol=Off and leave OPT_BINARY_PROTOCOL off"
                }
                CloseReason::NotBinary => {
                    "the client does not speak the binary protocol where only that is allowed: see -B and -S, or it has \
                     lost its place in the midst of its packets"
                }
                CloseReason::Tls => "the client speaks TLS to a port without TLS",
                CloseReason::Http => "the client speaks HTTP to a memcached port",
                CloseReason::LineTooLong => "the client sent a command line without an end",
            };
            tracing::warn!(target: LOG_TARGET, peer = %self.peer, "connection closed: {remedy}");
        }
        Next::Close
    }

    /// The connection has ended. Buffers are freed before the share: when the share is gone, the next connection to
    /// give way is chosen.
    pub fn release_memory(&mut self, now_ms: BootMs) {
        self.output.clear();
        buffers::give_back(&mut self.output);
        buffers::give_back(&mut self.input);
        self.shared.in_flight.release(&mut self.share, now_ms);
    }
}

impl Drop for Connection {
    fn drop(&mut self) {
        let stats = &self.shared.service.stats;
        stats.curr_connections.fetch_sub(1, Relaxed);
        stats.connections.remove(self.descriptor);
        self.release_memory(self.now_ms);
    }
}
