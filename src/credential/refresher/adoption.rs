//! The driver's part in taking over a value that the site has fetched itself: from where, and what is said about it.

use std::sync::Arc;

use super::{Driver, Refresher};
use crate::credential::adopt::TokenSource;
use crate::credential::fetch_task::{Adoption, FetchOutcome};
use crate::credential::schedule::Adopted;
use crate::credential::table::{CredentialId, log_credential};

impl Refresher {
    /// Those whose first value is to be read from the app's own sink.
    pub fn adopts_from_sinks(&self) -> Vec<CredentialId> {
        let slots = self.slots.iter().enumerate().filter(|(_, slot)| slot.adopts_from_sink);
        slots.map(|(id, _)| id).collect()
    }

    /// Says where that is.
    pub fn adopt_from(&mut self, id: CredentialId, source: Arc<dyn TokenSource>) {
        if let Some(slot) = self.slots.get_mut(id) {
            slot.adopts_from = Some(source);
        }
    }
}

impl Driver {
    /// Says what has become of it. Once a value of our own has come, the place is not looked at any more.
    pub(super) fn record_adoption(
        &mut self,
        id: CredentialId,
        adoption: Option<Adoption>,
        outcome: &FetchOutcome,
    ) -> Option<Adopted> {
        let slot = &mut self.refresher.slots[id];
        let adopted = match adoption {
            Some(Adoption::Done { place, adopted }) => {
                log_credential!(
                    info,
                    slot.credential,
                    from = place,
                    end_known = adopted == Adopted::WithEnd,
                    "the site's own token is taken over and served to its end; nothing is fetched until then"
                );
                Some(adopted)
            }
            Some(Adoption::Refused { place, reason }) => {
                let advice = "if other programs still hold a token of this app, point them here now: a token is fetched, \
                              which ends theirs within five minutes; if not, remove adopt";
                let fault = "the site's own token cannot be taken over";
                log_credential!(warn, slot.credential, from = place, error = reason, advice, "{fault}");
                None
            }
            None => None,
        };
        if adopted.is_none() && matches!(outcome, FetchOutcome::Answered { .. }) {
            slot.adopts_from = None;
        }
        adopted
    }
}
