//! The binary protocol on a connection: packets, and SASL for those who must log in.
//!
//! As in memcached, the first byte of a client decides which of the two protocols it uses.

use super::{Connection, MissingPart, Next, WholeRequest};
use crate::clock::Now;
use crate::protocol::CloseReason;
use crate::protocol::binary::{self, MAGIC, PLAIN, Packet, PacketCommand, PacketStep, ResponseStatus};
use crate::server::Protocol;

impl Connection {
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
    pub(super) fn execute_packet(&mut self, rest: &[u8], now: Now) -> Option<Next> {
        let (packet, used, discard) = match self.bounded_packet(rest) {
            PacketStep::Packet { packet, used, discard } => (packet, used, discard),
            PacketStep::More { total } => {
                let part = if rest.len() < binary::HEADER_BYTES { MissingPart::Line } else { MissingPart::Block };
                return Some(self.record_missing(part, total as u64, total));
            }
            PacketStep::Foreign => return Some(self.close_for(CloseReason::NotBinary)),
        };
        self.missing.clear();
        if self.pending_auth.is_some() {
            match packet.command {
                PacketCommand::Mechanisms => {
                    self.start += used;
                    binary::value(&mut self.output, &packet, PLAIN, 0);
                    return None;
                }
                PacketCommand::Login { first, mechanism, message } => {
                    return self.log_in_by_sasl(&packet, used, first, mechanism, message);
                }
                _ => {}
            }
        }
        let outcome = self.execute_one(WholeRequest::Binary(&packet), now, discard);
        self.apply_outcome(outcome, used)
    }

    /// The next packet. One whose value would be too much memory for all connections together loses it, like one that
    /// is too large for the cache.
    fn bounded_packet<'a>(&mut self, rest: &'a [u8]) -> PacketStep<'a> {
        let pending_auth = self.pending_auth.is_some();
        let found = binary::step(rest, self.shared.limits.value_bytes_max, pending_auth);
        let PacketStep::More { total } = found else { return found };
        if self.try_reserve_request(rest.len(), total) {
            return found;
        }
        match binary::step(rest, 0, pending_auth) {
            // Keys and extras are short; if there is no room for these either, there is none for anybody.
            PacketStep::More { .. } => PacketStep::Foreign,
            refused => refused,
        }
    }

    /// One step of a login. Whatever is wrong with it counts as a wrong password.
    fn log_in_by_sasl(
        &mut self,
        packet: &Packet<'_>,
        used: usize,
        first: bool,
        mechanism: &[u8],
        message: &[u8],
    ) -> Option<Next> {
        let pending_auth = self.pending_auth.as_mut()?;
        let plain = (first || pending_auth.sasl_started) && mechanism == PLAIN;
        if plain && first && message.is_empty() {
            pending_auth.sasl_started = true;
            self.start += used;
            binary::status(&mut self.output, packet, ResponseStatus::AuthContinue);
            return None;
        }
        let token = binary::plain(message).filter(|_| plain);
        let (user, password) = token.unwrap_or_default();
        self.log_in(user, password, used, |out, is_in| match is_in {
            true => binary::value(out, packet, b"Authenticated", 0),
            false => binary::status(out, packet, ResponseStatus::AuthError),
        })
    }
}
