//! Driver: verify tickets. Keeps a ticket that was received, and fetches with it at once if its component waits for
//! one. Also how long first fetches wait at the start for what they need.

use super::super::grants::Grant;
use super::super::table::{CredentialId, log_credential};
use super::super::verify_ticket::ReceivedTicket;
use super::{CredentialSlot, Driver};
use crate::clock::BootMs;
use crate::secret::fingerprint;

impl Driver {
    /// Takes a received ticket. A ticket that is known already changes nothing and causes no call.
    pub(super) fn on_ticket(&mut self, received: &ReceivedTicket) {
        if self.take_ticket(received) {
            self.share_ticket(received.id, received.ticket.expose().to_owned());
        }
    }

    /// The same for a ticket from another node. True if it is new.
    pub(super) fn take_ticket(&mut self, received: &ReceivedTicket) -> bool {
        let now_ms = self.refresher.clock.boot_ms();
        let Some(slot) = self.refresher.slots.get_mut(received.id) else { return false };
        let is_new = slot.grant.as_ref().is_some_and(|grant| grant.take_ticket(&received.ticket, received.from_file));
        if !is_new {
            return false;
        }
        let ticket = fingerprint(received.ticket.expose().as_bytes());
        // A running fetch checks by itself whether a newer ticket has come.
        if slot.fetching || !slot.waits_for_a_ticket(now_ms) {
            log_credential!(debug, slot.credential, ticket, "new verify ticket");
            return true;
        }
        log_credential!(info, slot.credential, ticket, "new verify ticket, fetching with it");
        slot.renewal_state.failures = 0;
        self.set_renewal_timer(received.id, now_ms);
        true
    }
}

/// How long a first fetch waits for what it needs. That usually comes sooner, and then the fetch starts at once.
const TICKET_FIRST_MS: u64 = 2_000;
const PARENT_FIRST_MS: u64 = 4_000;

impl Driver {
    /// How long the first fetch waits for the ticket or token it needs. Without them it would only fail, end the wait
    /// of the first readers and raise an alarm.
    pub(super) fn first_wait_ms(&self, id: CredentialId) -> u64 {
        let (slots, now_ms) = (&self.refresher.slots, self.refresher.clock.boot_ms());
        let slot = &slots[id];
        let dead = |id: CredentialId| !slots[id].is_live(now_ms);
        // A live value keeps to its schedule: a new access token does not start its fetch.
        let orphaned = dead(id) && slot.parent.is_some_and(dead);
        // Values of other nodes arrive within a moment.
        match slot.follows || slot.grant.as_ref().is_some_and(Grant::is_missing) {
            true => TICKET_FIRST_MS,
            false if orphaned => PARENT_FIRST_MS,
            false => 0,
        }
    }
}

impl CredentialSlot {
    fn waits_for_a_ticket(&self, now_ms: BootMs) -> bool {
        match self.credential.status(now_ms).last_error {
            // Without an errcode nothing was sent: there was no ticket, or no secret.
            Some(error) => matches!(error.errcode, Some(61005 | 61006)) || error.is_operators_own(),
            None => !self.is_live(now_ms),
        }
    }
}
