//! A client that must log in first: over the text protocol, or by SASL over the binary one.
//!
//! While somebody guesses passwords from the client's address, every password from there waits for its turn. The answer
//! to a wrong one is delayed. Shows neither a name nor a password.

use std::sync::Arc;

use super::{Connection, ConnectionWait, LOG_SPACING_MS, LOG_TARGET, Next};
use crate::clock::BootMs;
use crate::protocol::binary::{self, PLAIN};
use crate::protocol::login::{self, LoginStep, login_step};
use crate::protocol::{Command, Reply, Request, Status, response};

/// A client that fails this often to log in is closed.
const LOGIN_FAILURES_MAX: u32 = 3;

/// A client that has yet to log in.
pub(super) struct PendingAuth {
    /// The connection is closed if it has not logged in by then.
    pub until_ms: BootMs,
    failures: u32,
    /// It has begun a SASL login, but not yet sent its name.
    sasl_started: bool,
    /// Its password has waited for its turn and is checked next.
    has_waited: bool,
}

impl PendingAuth {
    pub fn new(until_ms: BootMs) -> PendingAuth {
        PendingAuth { until_ms, failures: 0, sasl_started: false, has_waited: false }
    }
}

impl Connection {
    /// Executes a request of a client that must log in first; `None` when it is answered.
    pub(super) fn execute_login(&mut self, rest: &[u8]) -> Option<Next> {
        self.turn.requests -= 1;
        let (error, used) = match login_step(rest) {
            LoginStep::More { total } => return Some(self.request_more(rest, false, total)),
            LoginStep::Close(why) => return Some(self.close_for(why)),
            LoginStep::Token { user, password, used } => {
                self.missing.clear();
                return self.log_in(user, password, used, |out, is_in| {
                    response::line(out, if is_in { "STORED" } else { login::FAILURE });
                });
            }
            LoginStep::Refuse { error, used } => (error, used),
            LoginStep::RefuseAndClose { error } => {
                response::line(&mut self.output, error);
                return Some(Next::Close);
            }
        };
        self.missing.clear();
        self.start += used;
        response::line(&mut self.output, error);
        None
    }

    /// Executes a step of a login. `None` if the request is not one.
    pub(super) fn execute_sasl(&mut self, request: &Request<'_>, used: usize) -> Option<Option<Next>> {
        let answer = |out: &mut Vec<u8>, status| request.wire.write(out, b"", Reply::from(status));
        let (first, mechanism, message) = match request.command {
            Command::Login { first, mechanism, message } => (first, mechanism, message),
            Command::Mechanisms => {
                self.turn.requests -= 1;
                self.start += used;
                answer(&mut self.output, &Status::MECHANISMS);
                return Some(None);
            }
            _ => return None,
        };
        self.turn.requests -= 1;
        let pending_auth = self.pending_auth.as_mut()?;
        let plain = (first || pending_auth.sasl_started) && mechanism == PLAIN.as_bytes();
        if plain && first && message.is_empty() {
            pending_auth.sasl_started = true;
            self.start += used;
            answer(&mut self.output, &Status::AUTH_CONTINUE);
            return Some(None);
        }
        // Any fault of it counts as a wrong password.
        let (user, password) = binary::plain(message).filter(|_| plain).unwrap_or_default();
        Some(self.log_in(user, password, used, |out, is_in| {
            answer(out, if is_in { &Status::AUTHENTICATED } else { &Status::AUTH_ERROR });
        }))
    }

    /// Checks a password that came in a request of `used` bytes, in either protocol; `None` when it is answered. A
    /// password that must wait stays in the input and is read again later.
    fn log_in(
        &mut self,
        user: &[u8],
        password: &[u8],
        used: usize,
        answer: impl Fn(&mut Vec<u8>, bool),
    ) -> Option<Next> {
        if let Some(wait_ms) = self.take_login_turn(user, password) {
            return Some(Next::Wait(ConnectionWait::LoginTurn(wait_ms)));
        }
        self.start += used;
        self.stats.auth_cmds.add(1);
        let Some(rights) = self.shared.authenticator.authenticate(user, password) else {
            self.record_failure(user, password);
            answer(&mut self.after_wait, false);
            return Some(Next::Wait(ConnectionWait::LoginFailed));
        };
        self.rights = if self.rights.is_all() { rights } else { Arc::new(self.rights.and(&rights)) };
        self.pending_auth = None;
        self.shared.logins.record_success(self.peer.ip(), user, password, self.now_ms);
        answer(&mut self.output, true);
        None
    }

    /// Takes a turn for a password, and says how long it must wait before it is checked. `None` if it need not wait, or
    /// has waited.
    fn take_login_turn(&mut self, user: &[u8], password: &[u8]) -> Option<u64> {
        let pending_auth = self.pending_auth.as_mut()?;
        if std::mem::take(&mut pending_auth.has_waited) {
            return None;
        }
        let wait_ms = self.shared.logins.reserve_turn(self.peer.ip(), user, password, self.now_ms);
        if wait_ms == 0 {
            return None;
        }
        pending_auth.has_waited = true;
        self.stats.auth_delays.add(1);
        Some(wait_ms)
    }

    /// Counts a wrong password. After the last one that is allowed, the connection ends with the answer.
    fn record_failure(&mut self, user: &[u8], password: &[u8]) {
        self.stats.auth_errors.add(1);
        if self.shared.logins.record_failure(self.peer.ip(), user, password, self.now_ms)
            && self.shared.guessing_log.allow(self.now_ms, LOG_SPACING_MS)
        {
            tracing::warn!(
                target: LOG_TARGET,
                peer = %self.peer,
                "authentication failed with ten different passwords from this address: its further logins are delayed"
            );
        }
        if self.shared.authenticator.failure_log.allow(self.now_ms, LOG_SPACING_MS) {
            // Not the name either: people type passwords there.
            tracing::warn!(target: LOG_TARGET, peer = %self.peer, "authentication failed: wrong user name or password");
        }
        if let Some(pending_auth) = &mut self.pending_auth {
            pending_auth.failures += 1;
            self.closes_after_wait = pending_auth.failures >= LOGIN_FAILURES_MAX;
        }
    }
}
