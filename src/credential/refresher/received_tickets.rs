//! The driver's part in verify tickets: keeps one that arrives, and tries it at once if its component waits for one;
//! and its patience at the start with what is yet to come.

use super::super::grants::Grant;
use super::super::table::{CredentialId, log_credential};
use super::super::verify_ticket::ReceivedTicket;
use super::{CredentialSlot, Driver};
use crate::clock::BootMs;
use crate::secret::fingerprint;

impl Driver {
    /// A ticket that is no news changes nothing, so whoever hands the same in over and over causes no call.
    pub(super) fn on_ticket(&mut self, received: &ReceivedTicket) {
        if self.take_ticket(received) {
            self.share_ticket(received.id, received.ticket.expose().to_owned());
        }
    }

    /// The same for one that comes from another node. True if it is news.
    pub(super) fn take_ticket(&mut self, received: &ReceivedTicket) -> bool {
        let now_ms = self.refresher.clock.boot_ms();
        let Some(slot) = self.refresher.slots.get_mut(received.id) else { return false };
        let news = slot.grant.as_ref().is_some_and(|grant| grant.take_ticket(&received.ticket, received.from_file));
        if !news {
            return false;
        }
        let ticket = fingerprint(received.ticket.expose().as_bytes());
        // A fetch under way looks by itself whether a newer ticket has come.
        if slot.fetching || !slot.waits_for_a_ticket(now_ms) {
            log_credential!(debug, slot.credential, ticket, "new verify ticket");
            return true;
        }
        log_credential!(info, slot.credential, ticket, "new verify ticket; trying it");
        slot.renewal_state.failures = 0;
        self.arm(received.id, now_ms);
        true
    }
}

/// How long a first try is put off for what it needs; that comes sooner as a rule, and then it is made at once.
const TICKET_FIRST_MS: u64 = 2_000;
const PARENT_FIRST_MS: u64 = 4_000;

impl Driver {
    /// At the start a call that lacks the ticket or the token it is made with would only fail, end the wait of the
    /// first readers and alarm somebody.
    pub(super) fn first_patience_ms(&self, id: CredentialId) -> u64 {
        let (slots, now_ms) = (&self.refresher.slots, self.refresher.clock.boot_ms());
        let slot = &slots[id];
        let dead = |id: CredentialId| slots[id].renewal_state.left_ms(now_ms) == 0;
        // One that lives is not armed when its parent comes, so it keeps to its schedule.
        let orphaned = dead(id) && slot.parent.is_some_and(dead);
        // What others have comes within a moment.
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
            None => self.renewal_state.left_ms(now_ms) == 0,
        }
    }
}
