//! The binary protocol on a connection: packets to batches, and SASL for those who must log in.
//!
//! As in memcached, the first byte of a client decides which of the two protocols it uses.

use tokio::io::{AsyncRead, AsyncWrite};

use super::{Batch, Connection, MissingPart};
use crate::clock::Now;
use crate::protocol::binary::{self, MAGIC, PLAIN};
use crate::protocol::{CloseReason, Command, Request, RequestStep, Status};
use crate::server::Protocol;
use crate::server::ServerState;
use crate::service::Context;

impl<S: AsyncRead + AsyncWrite + Unpin> Connection<S> {
    /// Decides by the client's first byte which protocol it uses; true for binary. An error if the listener does not allow it.
    pub(super) fn detect_protocol(&mut self, first_byte: u8) -> Result<bool, CloseReason> {
        if let Some(binary) = self.binary {
            return Ok(binary);
        }
        let binary = first_byte == MAGIC;
        match self.protocol {
            Protocol::Ascii if binary => return Err(CloseReason::Binary),
            Protocol::Binary if !binary => return Err(CloseReason::NotBinary),
            _ => {}
        }
        self.binary = Some(binary);
        Ok(binary)
    }

    /// Executes the packet at the front; `None` to go on with the next.
    pub(super) fn execute_packet(
        &mut self,
        rest: &[u8],
        shared: &ServerState,
        now: Now,
        may_wait: bool,
    ) -> Option<Batch> {
        let (request, used, discard) = match self.bounded_packet(rest, shared) {
            RequestStep::Request { request, used, discard } => (request, used, discard),
            RequestStep::More { total } => {
                let pending = if rest.len() < binary::HEADER_BYTES { MissingPart::Line } else { MissingPart::Block };
                return Some(self.record_missing(pending, total as u64, total));
            }
            RequestStep::Close(why) => return Some(self.close_for(why, now)),
        };
        self.clear_missing();
        if self.pending_auth.is_some() {
            match request.command {
                Command::Mechanisms => {
                    self.start += used;
                    request.wire.write(&mut self.output, b"", (&Status::MECHANISMS).into());
                    return None;
                }
                Command::Login { first, mechanism, message } => {
                    let begun = self.start;
                    self.start += used;
                    let batch = self.log_in_by_sasl(&request, first, mechanism, message, now);
                    if matches!(batch, Some(Batch::LoginWaits(_))) {
                        // It is looked at again after the wait.
                        self.start = begun;
                    }
                    return batch;
                }
                _ => {}
            }
        }
        let execute = |context: &mut Context<'_>| shared.service.execute(&request, 0, context);
        let outcome = self.execute_one(execute, now, discard, may_wait);
        self.apply_outcome(outcome, used)
    }

    /// The next packet. One whose value would be too much memory for all connections together loses it, like one that
    /// is too large for the cache.
    fn bounded_packet<'a>(&mut self, rest: &'a [u8], shared: &ServerState) -> RequestStep<'a> {
        let pending_auth = self.pending_auth.is_some();
        let found = binary::step(rest, shared.limits.value_bytes_max, pending_auth);
        let RequestStep::More { total } = found else { return found };
        if self.try_reserve_request(rest.len(), total, shared) {
            return found;
        }
        match binary::step(rest, 0, pending_auth) {
            // Keys and extras are short; if there is no room for these either, there is none for anybody.
            RequestStep::More { .. } => RequestStep::Close(CloseReason::NotBinary),
            refused => refused,
        }
    }

    /// One step of a login. Whatever is wrong with it counts as a wrong password.
    fn log_in_by_sasl(
        &mut self,
        request: &Request<'_>,
        first: bool,
        mechanism: &[u8],
        message: &[u8],
        now: Now,
    ) -> Option<Batch> {
        let begun = first || self.pending_auth.as_ref().is_some_and(|pending_auth| pending_auth.sasl_started);
        let plain = begun && mechanism == PLAIN.as_bytes();
        if plain && first && message.is_empty() {
            if let Some(pending_auth) = &mut self.pending_auth {
                pending_auth.sasl_started = true;
            }
            request.wire.write(&mut self.output, b"", (&Status::AUTH_CONTINUE).into());
            return None;
        }
        let token = binary::plain(message).filter(|_| plain);
        let (user, password) = token.unwrap_or_default();
        if let Some(wait) = self.take_login_turn(user, password, now) {
            return Some(Batch::LoginWaits(wait));
        }
        match self.log_in(user, password, now) {
            Ok(()) => {
                request.wire.write(&mut self.output, b"", (&Status::AUTHENTICATED).into());
                None
            }
            Err(last) => {
                let mut reply = Vec::new();
                request.wire.write(&mut reply, b"", (&Status::AUTH_ERROR).into());
                Some(Batch::LoginFailed { last, reply })
            }
        }
    }
}
