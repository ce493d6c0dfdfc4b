//! One connection: read into the buffer, execute every complete request, write the answers at once, and again.
//!
//! One read and one write a batch. A connection that waits for its peer holds no buffers and no timer, unless it
//! is in the middle of a request or an idle timeout is configured. What it queues for a peer that does not read
//! is bounded by [`OUTPUT_BYTES_MAX`] and one item, and large values are not copied; what all connections hold together
//! of requests and answers is bounded by [`super::memory`].

#[cfg(test)]
mod tests;

mod binary;

use std::future::poll_fn;
use std::io::{self, IoSlice};
use std::ops::Range;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::Ordering::{Acquire, Relaxed};
use std::task::{self, Poll};
use std::time::Duration;

use bytes::BufMut;
use memchr::memchr;
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt};
use tokio::time::{Instant, timeout, timeout_at};
use tokio_util::io::poll_read_buf;

use super::buffers::{self, BUFFER_BYTES};
use super::memory::{MemoryShare, MemoryUse};
use super::options::Protocol;
use super::worker::{BusyConnections, ConnectionOrigin, Peer};
use super::{Limits, ListenerPolicy, ServerState};
use crate::access::Rights;
use crate::clock::{self, Now};
use crate::credential::table::NamesReader;
use crate::protocol::login::{self, LoginStep, login_step};
use crate::protocol::parse::{step, step_from};
use crate::protocol::{CloseReason, Request, RequestStep, response};
use crate::service::{CommandOutcome, Context, KEYS_PER_TURN, OUTPUT_BYTES_MAX, Output};
use crate::stats::{ConnectionInfo, ConnectionState, WorkerStats};

/// What a client without a login can cause is logged at most this often, milliseconds.
const LOG_SPACING_MS: u64 = 60_000;
/// A client that fails this often to log in is closed.
const LOGIN_FAILURES_MAX: u32 = 3;
/// What somebody may be typing is not longer than this, bytes: a command line, or one and its data block.
const TYPED_BYTES_MAX: usize = 2048;
/// While somebody seems to be typing, how often to see whether there is still time for that.
const TYPING_RECHECK: Duration = Duration::from_secs(2);
/// Most bytes read at once, and before others have a turn; a large data block is read in steps of this, so memory grows
/// with what really arrives.
const READ_BYTES_MAX: usize = 256 * 1024;
/// Most bytes written at once of answers with large values: the kernel copies them, and others wait for that.
const WRITE_BYTES_MAX: usize = 256 * 1024;
/// Pieces written at once: text, a large value and so on.
const PIECES_MAX: usize = 16;
/// Memory is asked for in steps of this; a peer that sends less has not moved.
const STEP_BYTES: usize = BUFFER_BYTES / 4;
/// What TLS keeps of answers that its peer has not taken.
const TLS_BUFFER_BYTES: usize = 64 * 1024;

/// What the connections of a worker have in common.
#[derive(Clone)]
pub(super) struct WorkerContext {
    pub shared: Arc<ServerState>,
    pub stats: Arc<WorkerStats>,
    pub busy: Arc<BusyConnections>,
}

/// A client that has yet to log in.
struct PendingAuth {
    /// The connection is closed if it has not by then.
    until: Instant,
    failures: u32,
    /// It has begun a SASL login and not yet sent its name.
    sasl_started: bool,
    /// Its password has waited for its turn and is checked next.
    has_waited: bool,
}

pub(super) struct Connection<S> {
    stream: S,
    peer: Peer,
    shared: Arc<ServerState>,
    stats: Arc<WorkerStats>,
    busy: Arc<BusyConnections>,
    /// What the client may do once it has logged in.
    rights: Arc<Rights>,
    names: NamesReader,
    pending_auth: Option<PendingAuth>,
    /// The stream collects what it sends, and says when it is over.
    tls: bool,
    /// Which protocols the listener allows.
    protocol: Protocol,
    /// Whether the client uses the binary protocol; none before its first byte.
    binary: Option<bool>,
    /// Bytes read and not yet executed; `[start..]` of it. What is executed stays in front until more is to be read: to
    /// move what is left after each turn would take longer than the turn.
    input: Vec<u8>,
    start: usize,
    /// The `get` at the front, if it was answered in part.
    partial_get: Option<PartialGet>,
    /// What this connection may still do before others get a turn: requests, keys looked up, bytes read.
    requests_left: usize,
    keys_left: usize,
    read_bytes_left: usize,
    /// What is to be written.
    output: Output,
    /// Bytes of a refused data block still to be thrown away, and the answer that goes out after them.
    discard: u64,
    after_discard: Vec<u8>,
    /// How many bytes make the front request complete; it is not parsed again before. 0 if nothing is pending.
    wanted: usize,
    pending: MissingPart,
    /// When the pending request must be complete.
    due: Option<Instant>,
    /// If a person may be typing it: the time for that while nothing is scarce.
    typing: Option<Typing>,
    /// This connection's share in [`ServerState::in_flight`], and what of it is for the half-received request.
    share: MemoryShare,
    requested: MemoryUse,
    /// The data block of the request being executed was dropped because memory is short.
    memory_short: bool,
    /// The system had no memory for what was to be read next.
    no_room: bool,
    descriptor: i32,
    info: Arc<ConnectionInfo>,
}

/// What the front request lacks.
#[derive(Clone, Copy, PartialEq, Eq)]
enum MissingPart {
    Nothing,
    /// The end of its line.
    Line,
    /// The rest of its data block.
    Block,
}

/// How long there is for something that is typed by hand.
#[derive(Clone, Copy)]
struct Typing {
    /// Nothing may come for this long.
    pause_ends: Instant,
    /// It must be complete by then.
    ends: Instant,
}

/// A `get` that was answered in part, as it was parsed: its line may be a megabyte long, and is neither parsed nor walked
/// again. All places are counted from the front of what is buffered.
struct PartialGet {
    keys: Range<usize>,
    with_cas: bool,
    touch_exptime: Option<i64>,
    /// Length of the whole line.
    used: usize,
    /// The byte of its keys to go on from.
    next: usize,
}

impl PartialGet {
    /// `None` for a request that does not take long to parse again.
    fn new(request: &Request<'_>, front: &[u8], used: usize, next: usize) -> Option<PartialGet> {
        let Request::Get { keys, with_cas, touch_exptime } = *request else { return None };
        let begin = keys.as_ptr().addr().checked_sub(front.as_ptr().addr())?;
        Some(PartialGet { keys: begin..begin + keys.len(), with_cas, touch_exptime, used, next })
    }

    fn request<'a>(&self, front: &'a [u8]) -> Option<Request<'a>> {
        let keys = front.get(self.keys.clone())?;
        Some(Request::Get { keys, with_cas: self.with_cas, touch_exptime: self.touch_exptime })
    }
}

/// What executing the buffered requests came to.
enum Batch {
    /// Everything whole is executed; read on.
    Drained,
    /// Enough was executed or queued: write, let others have a turn, then go on.
    Turn,
    /// The front request must be held, and is then tried again.
    Hold(crate::service::FirstFetchWait),
    /// The reply is due once the check is over.
    HoldUntilVerified(tokio::sync::oneshot::Receiver<()>, Vec<u8>),
    /// Passwords are being guessed from the client's address: check this one after this long.
    LoginWaits(Duration),
    /// A wrong password: say so after a while, and close if it was the last try.
    LoginFailed {
        last: bool,
        reply: Vec<u8>,
    },
    /// Certificates are to be read again.
    RefreshCertificates,
    /// Write what is queued and close.
    Close,
    Shutdown,
}

impl<S: AsyncRead + AsyncWrite + Unpin> Connection<S> {
    pub fn new(
        stream: S,
        origin: ConnectionOrigin,
        policy: &ListenerPolicy,
        rights: Arc<Rights>,
        worker: WorkerContext,
    ) -> Self {
        let WorkerContext { shared, stats, busy } = worker;
        let ConnectionOrigin { peer, descriptor, listen_addr } = origin;
        let names = shared.service.table.names_reader();
        let info = ConnectionInfo::new(&peer.address(), Some(listen_addr), clock::boot_ms());
        let info = shared.service.stats.connections.add(descriptor, info);
        let pending_auth = || PendingAuth {
            until: Instant::now() + shared.limits.login_timeout,
            failures: 0,
            sasl_started: false,
            has_waited: false,
        };
        let requests_left = shared.limits.requests_per_turn;
        Connection {
            pending_auth: policy.login.then(pending_auth),
            tls: policy.tls,
            protocol: policy.protocol,
            binary: None,
            stream,
            peer,
            rights,
            names,
            shared,
            stats,
            busy,
            input: Vec::new(),
            start: 0,
            partial_get: None,
            requests_left,
            keys_left: KEYS_PER_TURN,
            read_bytes_left: READ_BYTES_MAX,
            output: Output::default(),
            discard: 0,
            after_discard: Vec::new(),
            wanted: 0,
            pending: MissingPart::Nothing,
            due: None,
            typing: None,
            share: MemoryShare::default(),
            requested: MemoryUse::default(),
            memory_short: false,
            no_room: false,
            descriptor,
            info,
        }
    }

    /// Serves until either side has had enough.
    pub async fn run(mut self) {
        tracing::debug!(peer = %self.peer, "connected");
        let ended = self.serve().await;
        let clean = ended.is_ok();
        if let Err(error) = ended
            && !matches!(error.kind(), io::ErrorKind::ConnectionReset | io::ErrorKind::BrokenPipe)
        {
            tracing::debug!(peer = %self.peer, %error, "connection lost");
        }
        // First: a peer that reads nothing must not hold it for as long as closing may take.
        self.release_memory();
        if self.tls && clean {
            // Without it a TLS client cannot tell an end from an attack.
            let _ = timeout(self.shared.limits.write_timeout, self.stream.shutdown()).await;
        }
        tracing::debug!(peer = %self.peer, "disconnected");
    }

    async fn serve(&mut self) -> io::Result<()> {
        let shared = self.shared.clone();
        loop {
            self.info.set_state(self.state_while_reading());
            if !self.fill().await? {
                return Ok(());
            }
            let now = Now::read_for_batch();
            let batch = self.execute_batch(&shared, now, true);
            shared.in_flight.enforce_limit();
            // Most often that is all: the socket takes the answers at once.
            let written = self.write_at_once().await?;
            let done = self.output.is_empty() && matches!(batch, Batch::Drained);
            if !done && !self.finish_batch(&shared, batch, written).await? {
                return Ok(());
            }
            if shared.closing.load(Acquire) {
                return Ok(());
            }
        }
    }

    /// Writes the answers, of which so many bytes are `written`, and does what is left of what is buffered; false to
    /// close. The worker waits for this before it ends.
    async fn finish_batch(&mut self, shared: &ServerState, mut batch: Batch, mut written: usize) -> io::Result<bool> {
        let busy = self.busy.clone();
        let _batch = busy.token();
        let mut hold_until = None;
        loop {
            self.flush(std::mem::take(&mut written)).await?;
            // One request is held for so long in all, however often it gives others a turn.
            if !matches!(batch, Batch::Hold(_)) && self.partial_get.is_none() {
                hold_until = None;
            }
            match batch {
                Batch::Drained => return Ok(true),
                Batch::Turn => {
                    self.stats.conn_yields.add(1);
                    self.begin_turn();
                    tokio::task::yield_now().await;
                }
                Batch::Hold(mut wait) => {
                    let until = *hold_until.get_or_insert_with(|| Instant::now() + shared.limits.hold);
                    let _ = timeout_at(until, wait.0.changed()).await;
                }
                Batch::HoldUntilVerified(check, reply) => {
                    let _ = timeout(shared.limits.hold, check).await;
                    self.output.extend_from_slice(&reply);
                }
                Batch::LoginWaits(wait) => tokio::select! {
                    () = tokio::time::sleep(wait) => {}
                    () = shared.shutdown.cancelled() => return Ok(false),
                },
                Batch::LoginFailed { last, reply } => {
                    tokio::time::sleep(shared.limits.login_failure_delay).await;
                    self.output.extend_from_slice(&reply);
                    if last {
                        self.flush(0).await?;
                        return Ok(false);
                    }
                }
                Batch::RefreshCertificates => self.refresh_certificates().await,
                Batch::Close => return Ok(false),
                Batch::Shutdown => {
                    shared.shutdown.cancel();
                    return Ok(false);
                }
            }
            let may_wait = hold_until.is_none_or(|until| Instant::now() < until);
            batch = self.execute_batch(shared, Now::read_for_batch(), may_wait);
            shared.in_flight.enforce_limit();
        }
    }

    /// Others have had their turn.
    fn begin_turn(&mut self) {
        self.requests_left = self.shared.limits.requests_per_turn;
        self.keys_left = KEYS_PER_TURN;
        self.read_bytes_left = READ_BYTES_MAX;
    }

    /// Executes whole requests from the buffer. Synchronous: nothing here waits.
    fn execute_batch(&mut self, shared: &ServerState, now: Now, may_wait: bool) -> Batch {
        self.info.record_command(now.boot_ms);
        self.info.set_state(ConnectionState::ParseCmd);
        if self.output.capacity() == 0 {
            *self.output = buffers::take();
        }
        let is_tight = shared.in_flight.is_under_pressure();
        self.output.set_bytes_max(if is_tight { BUFFER_BYTES } else { OUTPUT_BYTES_MAX });
        let input = std::mem::take(&mut self.input);
        let batch = self.execute_from(&input, shared, now, may_wait);
        self.input = input;
        if self.start >= self.input.len() {
            self.input.clear();
            self.start = 0;
        } else if matches!(batch, Batch::Drained) {
            self.input.drain(..std::mem::take(&mut self.start));
        }
        batch
    }

    fn execute_from(&mut self, input: &[u8], shared: &ServerState, now: Now, may_wait: bool) -> Batch {
        loop {
            if self.discard > 0 && !self.discard_from(input) {
                return self.record_missing(MissingPart::Block, self.discard, 0);
            }
            let rest = &input[self.start..];
            if rest.is_empty() {
                return self.record_missing(MissingPart::Nothing, 0, 0);
            }
            if self.requests_left == 0 || self.keys_left == 0 || self.output.is_full() {
                return Batch::Turn;
            }
            match self.detect_protocol(rest[0]) {
                Err(why) => return self.close_for(why, now),
                Ok(true) => {
                    self.requests_left -= 1;
                    match self.execute_packet(rest, shared, now, may_wait) {
                        Some(batch) => return batch,
                        None => continue,
                    }
                }
                Ok(false) => {}
            }
            if self.pending_auth.is_some() {
                self.requests_left -= 1;
                match self.execute_login(rest, now) {
                    Some(batch) => return batch,
                    None => continue,
                }
            }
            if let Some(partial_get) = self.partial_get.take()
                && let Some(request) = partial_get.request(rest)
            {
                let PartialGet { used, next, .. } = partial_get;
                match self.execute_text(&request, (used, 0), next, rest, shared, now, may_wait) {
                    Some(batch) => return batch,
                    None => continue,
                }
            }
            let (request, used, discard) = match self.bounded_step(rest, shared) {
                RequestStep::Request { request, used, discard } => (request, used, discard),
                RequestStep::More { total } => return self.request_more(rest, total),
                RequestStep::Close(why) => return self.close_for(why, now),
            };
            self.clear_missing();
            if let Some(batch) = self.execute_text(&request, (used, discard), 0, rest, shared, now, may_wait) {
                return batch;
            }
        }
    }

    /// Executes a request of the text protocol, which is at the front of `rest`; a `get` from byte `begin` of its keys on.
    #[expect(clippy::too_many_arguments)]
    fn execute_text(
        &mut self,
        request: &Request<'_>,
        (used, discard): (usize, u64),
        begin: usize,
        rest: &[u8],
        shared: &ServerState,
        now: Now,
        may_wait: bool,
    ) -> Option<Batch> {
        self.requests_left = self.requests_left.saturating_sub(1);
        let execute = |context: &mut Context<'_>| shared.service.execute(request, begin, context);
        let outcome = self.execute_one(execute, now, discard, may_wait);
        if let CommandOutcome::MoreKeys(next) | CommandOutcome::Wait(_, next) = outcome {
            self.partial_get = PartialGet::new(request, rest, used, next);
        }
        self.apply_outcome(outcome, used)
    }

    /// What comes of an executed request of `used` bytes; `None` to go on with the next.
    fn apply_outcome(&mut self, outcome: CommandOutcome, used: usize) -> Option<Batch> {
        let batch = match outcome {
            CommandOutcome::Done => None,
            CommandOutcome::MoreKeys(_) => return Some(Batch::Turn),
            CommandOutcome::Wait(wait, _) => return Some(Batch::Hold(wait)),
            CommandOutcome::ReplyAfterVerification(check, reply) => Some(Batch::HoldUntilVerified(check, reply)),
            CommandOutcome::RefreshCertificates => Some(Batch::RefreshCertificates),
            CommandOutcome::Close => return Some(Batch::Close),
            CommandOutcome::Shutdown => return Some(Batch::Shutdown),
        };
        self.start += used;
        batch
    }

    /// Executes one request. If a block of it is yet to be thrown away, its answer is kept back until then.
    fn execute_one(
        &mut self,
        execute: impl FnOnce(&mut Context<'_>) -> CommandOutcome,
        now: Now,
        discard: u64,
        may_wait: bool,
    ) -> CommandOutcome {
        let answer_at = self.output.len();
        let mut context = Context {
            now,
            stats: &self.stats,
            peer: &self.peer,
            rights: &self.rights,
            names: self.names.now(),
            may_wait,
            memory_short: std::mem::take(&mut self.memory_short),
            keys_left: self.keys_left,
            out: &mut self.output,
        };
        let outcome = execute(&mut context);
        self.keys_left = context.keys_left;
        if discard > 0 {
            self.discard = discard;
            self.after_discard = self.output.split_off(answer_at);
        }
        outcome
    }

    /// Executes what a client sends that must log in first; `None` once it is answered.
    fn execute_login(&mut self, rest: &[u8], now: Now) -> Option<Batch> {
        let (error, used) = match login_step(rest) {
            LoginStep::More { total } => return Some(self.request_more(rest, total)),
            LoginStep::Close(why) => return Some(self.close_for(why, now)),
            LoginStep::Token { user, password, used } => {
                self.clear_missing();
                if let Some(wait) = self.take_login_turn(user, password, now) {
                    return Some(Batch::LoginWaits(wait));
                }
                self.start += used;
                return match self.log_in(user, password, now) {
                    Ok(()) => {
                        response::line(&mut self.output, "STORED");
                        None
                    }
                    Err(last) => {
                        let mut reply = Vec::new();
                        response::line(&mut reply, login::FAILURE);
                        Some(Batch::LoginFailed { last, reply })
                    }
                };
            }
            LoginStep::Refuse { error, used } => {
                self.clear_missing();
                (error, used)
            }
            LoginStep::RefuseAndClose { error } => {
                response::line(&mut self.output, error);
                return Some(Batch::Close);
            }
        };
        self.start += used;
        response::line(&mut self.output, error);
        None
    }

    /// Takes a turn for a password that must wait before it is checked, and says for how long; none if it need not wait, or
    /// has waited.
    fn take_login_turn(&mut self, user: &[u8], password: &[u8], now: Now) -> Option<Duration> {
        let pending_auth = self.pending_auth.as_mut()?;
        if std::mem::take(&mut pending_auth.has_waited) {
            return None;
        }
        let wait_ms = self.shared.logins.reserve_turn(self.peer.ip(), user, password, now.boot_ms);
        if wait_ms == 0 {
            return None;
        }
        pending_auth.has_waited = true;
        self.stats.auth_delays.add(1);
        Some(Duration::from_millis(wait_ms))
    }

    /// Lets a user in who knows the password, whatever protocol brings it. The error says whether it was the last try.
    fn log_in(&mut self, user: &[u8], password: &[u8], now: Now) -> Result<(), bool> {
        self.stats.auth_cmds.add(1);
        if let Some(rights) = self.shared.authenticator.authenticate(user, password) {
            self.rights = if self.rights.is_all() { rights } else { Arc::new(self.rights.and(&rights)) };
            self.pending_auth = None;
            self.shared.logins.record_success(self.peer.ip(), user, password, now.boot_ms);
            return Ok(());
        }
        self.stats.auth_errors.add(1);
        if self.shared.logins.record_failure(self.peer.ip(), user, password, now.boot_ms)
            && self.shared.guessing_log.allow(now.boot_ms, LOG_SPACING_MS)
        {
            tracing::warn!(
                peer = %self.peer,
                "authentication failed with ten different passwords from this address: its further logins are delayed"
            );
        }
        if self.shared.authenticator.failure_log.allow(now.boot_ms, LOG_SPACING_MS) {
            // Not the name either: people type passwords there.
            tracing::warn!(peer = %self.peer, "authentication failed: wrong user name or password");
        }
        let failures = self.pending_auth.as_mut().map_or(0, |pending_auth| {
            pending_auth.failures += 1;
            pending_auth.failures
        });
        Err(failures >= LOGIN_FAILURES_MAX)
    }

    /// `refresh_certs`: files are read, so not on this thread.
    async fn refresh_certificates(&mut self) {
        let authenticator = self.shared.authenticator.clone();
        let answer = match tokio::task::spawn_blocking(move || authenticator.refresh_certificates()).await {
            Ok(Some(Ok(()))) => "OK",
            Ok(None) => "ERROR",
            Ok(Some(Err(()))) | Err(_) => {
                "SERVER_ERROR the certificates cannot be used and stay as they were; see the log"
            }
        };
        response::line(&mut self.output, answer);
    }

    /// Throws a refused data block away; true once it is gone and its answer queued.
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

    /// The next request. One whose data block would be too much memory for all connections together loses the block,
    /// like one that is too large for the cache.
    fn bounded_step<'a>(&mut self, rest: &'a [u8], shared: &ServerState) -> RequestStep<'a> {
        let found = if rest.len() < self.wanted {
            RequestStep::More { total: self.wanted }
        } else {
            step_from(rest, self.searched(), shared.limits.value_bytes_max)
        };
        let RequestStep::More { total } = found else { return found };
        if self.try_reserve_request(rest.len(), total, shared) {
            return found;
        }
        match step(rest, 0) {
            // A line of many keys: there is nothing of it that could be thrown away.
            RequestStep::More { .. } => RequestStep::Close(CloseReason::LineTooLong),
            refused => refused,
        }
    }

    /// Reserves memory for the next part of a request of `total` bytes of which `have` are here. False if there is none;
    /// then that is counted, and the answer will say so.
    fn try_reserve_request(&mut self, have: usize, total: usize, shared: &ServerState) -> bool {
        if std::mem::take(&mut self.no_room) {
            self.release_share();
            return self.record_memory_short();
        }
        let next = next_read_bytes(have, total);
        let moved = have - have % STEP_BYTES;
        // What fits every connection's first buffer is not counted.
        let bytes = (moved + next).saturating_sub(BUFFER_BYTES) as u64;
        let requested = MemoryUse { bytes, shared_bytes: 0, moved_bytes: moved as u64 };
        if bytes == 0 && !self.share.is_held()
            || requested == self.requested && !shared.in_flight.is_revoked(&self.share)
        {
            return true;
        }
        if shared.in_flight.try_reserve(&mut self.share, requested, Instant::now()) {
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

    /// The front request needs `total` bytes to be whole.
    fn request_more(&mut self, rest: &[u8], total: usize) -> Batch {
        let has_line = self.pending == MissingPart::Block || {
            let unsearched = rest.get(self.searched()..).unwrap_or_default();
            memchr(b'\n', unsearched).is_some()
        };
        self.record_missing(if has_line { MissingPart::Block } else { MissingPart::Line }, total as u64, total)
    }

    /// How many bytes of the front request are known to hold no line end.
    fn searched(&self) -> usize {
        if self.pending == MissingPart::Line { self.wanted.saturating_sub(1) } else { 0 }
    }

    /// Records what the next read is for, and when `bytes` must have come. The time counts from the first part of a
    /// line or block, not from the last; a peer that keeps sending whole requests never runs out of it.
    fn record_missing(&mut self, pending: MissingPart, bytes: u64, wanted: usize) -> Batch {
        self.wanted = wanted;
        self.no_room = false;
        self.record_typing(pending);
        if pending != self.pending {
            let limits = &self.shared.limits;
            let allowed = match pending {
                MissingPart::Nothing => None,
                MissingPart::Line => Some(limits.line_timeout),
                MissingPart::Block => {
                    Some(limits.block_timeout + Duration::from_secs(bytes / Limits::REQUEST_BYTES_PER_S_MIN))
                }
            };
            self.due = allowed.map(|allowed| Instant::now() + allowed);
            self.pending = pending;
        }
        if wanted == 0 {
            self.release_share();
        }
        Batch::Drained
    }

    /// Records how long a person may go on typing. Nobody types the binary protocol.
    fn record_typing(&mut self, pending: MissingPart) {
        let by_hand = pending != MissingPart::Nothing
            && self.binary != Some(true)
            && (1..=TYPED_BYTES_MAX).contains(&self.wanted);
        self.typing = by_hand.then(|| {
            let (now, limits) = (Instant::now(), &self.shared.limits);
            let begun = self.typing.filter(|_| self.pending == pending);
            let ends = begun.map_or_else(|| now + limits.typing_max, |typing| typing.ends);
            Typing { pause_ends: now + limits.typing_pause, ends }
        });
    }

    /// Called when the pending request is late: until when a person may go on typing it; none if the time is over.
    fn typing_deadline(&self) -> Option<Instant> {
        let Typing { pause_ends, ends } = self.typing?;
        let last = self.pending_auth.as_ref().map(|pending_auth| pending_auth.until);
        let last = last.into_iter().chain([pause_ends, ends]).min()?;
        let now = Instant::now();
        (now < last && !self.shared.record_pressure()).then(|| last.min(now + TYPING_RECHECK))
    }

    fn release_share(&mut self) {
        self.shared.in_flight.release(&mut self.share);
        self.requested = MemoryUse::default();
    }

    /// The front request is complete; the next one has a time of its own.
    fn clear_missing(&mut self) {
        self.pending = MissingPart::Nothing;
        self.due = None;
        self.wanted = 0;
    }

    fn state_while_reading(&self) -> ConnectionState {
        match self.pending {
            _ if self.discard > 0 => ConnectionState::Swallow,
            MissingPart::Block => ConnectionState::Nread,
            MissingPart::Nothing | MissingPart::Line => ConnectionState::Read,
        }
    }

    fn close_for(&self, why: CloseReason, now: Now) -> Batch {
        self.stats.foreign_protocols.add(1);
        if self.shared.foreign_log.allow(now.boot_ms, LOG_SPACING_MS) {
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
            tracing::warn!(peer = %self.peer, "connection closed: {remedy}");
        }
        Batch::Close
    }

    /// Reads once. False if the peer is done, or has been silent for too long.
    async fn fill(&mut self) -> io::Result<bool> {
        if self.read_bytes_left == 0 {
            // Large values are few requests, and others wait all the same.
            self.stats.conn_yields.add(1);
            self.begin_turn();
            tokio::task::yield_now().await;
        }
        let deadline = match self.due {
            Some(due) => Some(due),
            None => self.shared.limits.idle_timeout.map(|idle| Instant::now() + idle),
        };
        let pending_auth = self.pending_auth.as_ref().map(|pending_auth| pending_auth.until);
        let mut deadline = deadline.into_iter().chain(pending_auth).min();
        let read = loop {
            let Some(until) = deadline else { break self.read().await? };
            if let Ok(read) = timeout_at(until, self.read()).await {
                break read?;
            }
            deadline = self.typing_deadline();
            if deadline.is_none() {
                let counter = if self.due.is_some() { &self.stats.request_timeouts } else { &self.stats.idle_kicks };
                counter.add(1);
                return Ok(false);
            }
        };
        let Some(read) = read else { return Ok(true) };
        self.stats.bytes_read.add(read as u64);
        self.read_bytes_left = self.read_bytes_left.saturating_sub(read);
        Ok(read > 0 || self.no_room)
    }

    /// Reads into the input buffer; `None` if the memory of the half-received request was taken back. While there is nothing
    /// to read a connection holds no empty buffer. Nothing is read either if the buffer cannot grow; the answer to the front
    /// request then says so.
    async fn read(&mut self) -> io::Result<Option<usize>> {
        poll_fn(|cx| {
            if self.input.capacity() == 0 {
                self.input = buffers::take();
            }
            let next = next_read_bytes(self.input.len(), self.wanted);
            if !make_room(&mut self.input, next) {
                self.no_room = true;
                return Poll::Ready(Ok(Some(0)));
            }
            if self.share.is_held() && self.shared.in_flight.poll_revoked(&self.share, cx) {
                return Poll::Ready(Ok(None));
            }
            let mut room = (&mut self.input).limit(READ_BYTES_MAX);
            let polled = poll_read_buf(Pin::new(&mut self.stream), cx, &mut room);
            if polled.is_pending() {
                self.begin_turn();
                self.release_buffers();
                self.fit_input();
            }
            polled.map_ok(Some)
        })
        .await
    }

    /// Writes as much as the socket takes without waiting, and says how much that is. The output is empty if it was all.
    async fn write_at_once(&mut self) -> io::Result<usize> {
        if self.output.is_empty() {
            return Ok(0);
        }
        // TLS may keep the last of it back.
        let (tls, mut stream, output) = (self.tls, Pin::new(&mut self.stream), &self.output);
        let tried = poll_fn(|cx| {
            let written = match poll_write(stream.as_mut(), cx, output, 0) {
                Poll::Ready(written) => written?,
                Poll::Pending => 0,
            };
            let sent = !tls || matches!(stream.as_mut().poll_flush(cx)?, Poll::Ready(()));
            Poll::Ready(io::Result::Ok((written, sent)))
        });
        let (written, sent) = tried.await?;
        if written == self.output.queued_bytes() && sent {
            self.stats.bytes_written.add(written as u64);
            self.output.clear();
        }
        Ok(written)
    }

    /// Writes what is queued after the first `written` bytes. A timeout is for each step, so a slow reader of something
    /// large is not cut off; another is for the whole, so that nobody holds memory for ever by a few bytes now and then.
    async fn flush(&mut self, mut written: usize) -> io::Result<()> {
        if self.output.is_empty() {
            return Ok(());
        }
        self.info.set_state(ConnectionState::Mwrite);
        let (begun, step_timeout) = (Instant::now(), self.shared.limits.write_timeout);
        let mut turn_ends = written + WRITE_BYTES_MAX;
        while written < self.output.queued_bytes() {
            if written >= turn_ends {
                turn_ends = written + WRITE_BYTES_MAX;
                self.stats.conn_yields.add(1);
                tokio::task::yield_now().await;
            }
            let allowed = 2 * step_timeout + Duration::from_secs(written as u64 / Limits::ANSWER_BYTES_PER_S_MIN);
            let until = (Instant::now() + step_timeout).min(begun + allowed);
            match timeout_at(until, self.write_step(written)).await {
                Ok(step) => match step? {
                    0 => return Err(io::ErrorKind::WriteZero.into()),
                    step => written += step,
                },
                Err(_) => return Err(self.write_timeout_error()),
            }
            self.output.release_written(written);
        }
        if self.tls {
            self.send_all().await?;
        }
        self.stats.bytes_written.add(written as u64);
        self.output.clear();
        if self.requested.bytes == 0 {
            self.release_share();
        } else {
            // If the memory was taken back meanwhile, the answer to the request that has begun will say so.
            self.shared.in_flight.record(&mut self.share, self.requested, Instant::now());
        }
        Ok(())
    }

    /// Writes some of what is queued after the first `written` bytes. What waits for the peer is counted meanwhile.
    async fn write_step(&mut self, written: usize) -> io::Result<usize> {
        poll_fn(|cx| {
            let polled = poll_write(Pin::new(&mut self.stream), cx, &self.output, written);
            if polled.is_pending() && !self.try_hold_output(written, cx) {
                return Poll::Ready(Err(self.revoked_error()));
            }
            polled
        })
        .await
    }

    /// Counts the memory that waits until the peer reads what comes after the first `written` bytes. False if it was taken
    /// back.
    fn try_hold_output(&mut self, written: usize, cx: &mut task::Context<'_>) -> bool {
        shrink(&mut self.input);
        shrink(&mut self.output);
        let memory = &self.shared.in_flight;
        let holding = waiting(self.input.capacity(), &self.output, self.tls, written);
        memory.record(&mut self.share, holding, Instant::now()) && !memory.poll_revoked(&self.share, cx)
    }

    /// TLS may have kept the last of it back.
    async fn send_all(&mut self) -> io::Result<()> {
        let (written, write_timeout) = (self.output.queued_bytes(), self.shared.limits.write_timeout);
        let send = poll_fn(|cx| {
            let polled = Pin::new(&mut self.stream).poll_flush(cx);
            if polled.is_pending() && !self.try_hold_output(written, cx) {
                return Poll::Ready(Err(self.revoked_error()));
            }
            polled
        });
        match timeout(write_timeout, send).await {
            Ok(sent) => sent,
            Err(_) => Err(self.write_timeout_error()),
        }
    }

    /// Counts an answer that is given up because others need the memory and this peer is the slowest.
    fn revoked_error(&self) -> io::Error {
        self.stats.answer_refusals.add(1);
        io::Error::new(
            io::ErrorKind::TimedOut,
            "the peer takes its answers more slowly than others, who need the memory",
        )
    }

    fn write_timeout_error(&self) -> io::Error {
        self.stats.write_timeouts.add(1);
        io::Error::new(io::ErrorKind::TimedOut, "the peer does not take its answers")
    }

    /// The input last, so that it is taken first: one that has grown for answers serves for answers again.
    fn release_buffers(&mut self) {
        if self.output.is_empty() {
            buffers::give_back(&mut self.output);
        }
        if self.input.is_empty() {
            buffers::give_back(&mut self.input);
        }
    }

    /// The half-received request keeps no buffer that has grown for an earlier one: only what it needs itself is counted.
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

/// Makes room for so many more bytes; false if the system has no memory for them. How large a buffer gets is a client's
/// choice, so this must not end the process.
fn make_room(buffer: &mut Vec<u8>, bytes: usize) -> bool {
    // Doubles what is there; if that is too much, grows by what is needed.
    buffer.try_reserve(bytes).or_else(|_| buffer.try_reserve_exact(bytes)).is_ok()
}

impl<S> Connection<S> {
    /// First what is held, then its place: the next to give way is chosen when that is gone.
    fn release_memory(&mut self) {
        self.output.clear();
        buffers::give_back(&mut self.output);
        buffers::give_back(&mut self.input);
        self.shared.in_flight.release(&mut self.share);
    }
}

impl<S> Drop for Connection<S> {
    fn drop(&mut self) {
        let stats = &self.shared.service.stats;
        stats.curr_connections.fetch_sub(1, Relaxed);
        stats.connections.remove(self.descriptor);
        self.release_memory();
    }
}

/// Writes what comes after the first `written` bytes, in one call.
fn poll_write<S: AsyncWrite>(
    stream: Pin<&mut S>,
    context: &mut task::Context<'_>,
    output: &Output,
    written: usize,
) -> Poll<io::Result<usize>> {
    if !output.has_large() {
        return stream.poll_write(context, output.get(written..).unwrap_or_default());
    }
    let mut slices = [IoSlice::new(&[]); PIECES_MAX];
    let count = output.slices(written, WRITE_BYTES_MAX, &mut slices);
    stream.poll_write_vectored(context, &slices[..count])
}

/// How much is read next of a request of `total` bytes of which `have` are here: as much as is missing, and not much more
/// than has come already, so that what a client announces costs nothing.
fn next_read_bytes(have: usize, total: usize) -> usize {
    total.saturating_sub(have).clamp(STEP_BYTES, (2 * have).clamp(BUFFER_BYTES, READ_BYTES_MAX))
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
fn waiting(input_bytes: usize, output: &Output, tls: bool, written: usize) -> MemoryUse {
    let beyond = |bytes: usize| bytes.saturating_sub(BUFFER_BYTES);
    let tls_bytes = if tls { TLS_BUFFER_BYTES } else { 0 };
    MemoryUse {
        bytes: (beyond(input_bytes) + beyond(output.capacity()) + tls_bytes) as u64,
        shared_bytes: output.shared_bytes() as u64,
        moved_bytes: written as u64,
    }
}
