//! The driver's part in verify tickets: keeps one that arrives, and tries it at once if its component waits for one.

use tracing::{debug, info};

use super::super::verify_ticket::Arrival;
use super::{Driver, Slot};
use crate::clock;
use crate::secret::fingerprint;

impl Driver {
    /// A ticket that is no news changes nothing, so whoever hands the same in over and over causes no call.
    pub(super) fn ticket_arrived(&mut self, arrival: &Arrival) {
        let Some(slot) = self.refresher.slots.get_mut(arrival.id) else { return };
        let news = slot.grant.as_ref().is_some_and(|grant| grant.take_ticket(&arrival.ticket, arrival.from_file));
        if !news {
            return;
        }
        let (appid, ticket) = (&slot.credential.appid, fingerprint(arrival.ticket.expose().as_bytes()));
        // A flight under way looks by itself whether a newer ticket has come.
        if slot.flying || !slot.waits_for_a_ticket() {
            debug!(appid, ticket, "new verify ticket");
            return;
        }
        info!(appid, ticket, "new verify ticket; trying it");
        slot.standing.failures = 0;
        self.arm(arrival.id, clock::boot_ms());
    }
}

impl Slot {
    fn waits_for_a_ticket(&self) -> bool {
        let last = self.credential.status(clock::boot_ms()).last_error;
        // Without an errcode nothing was sent: there was no ticket, or no secret.
        last.is_some_and(|error| matches!(error.errcode, Some(61005 | 61006)) || error.is_operators_own())
    }
}
