//! Driver: adopts a value that the site has fetched itself. Here is where it is read and what is logged about it.

use std::sync::Arc;

use super::{Driver, Refresher};
use crate::credential::adopt::TokenSource;
use crate::credential::fetch_task::{Adoption, FetchOutcome};
use crate::credential::schedule::Adopted;
use crate::credential::table::{CredentialId, log_credential};

impl Refresher {
    /// The credentials whose first value is read from the app's own sink.
    pub fn adopts_from_sinks(&self) -> Vec<CredentialId> {
        let slots = self.slots.iter().enumerate().filter(|(_, slot)| slot.adopts_from_sink);
        slots.map(|(id, _)| id).collect()
    }

    /// Sets the place the first value is read from.
    pub fn adopt_from(&mut self, id: CredentialId, source: Arc<dyn TokenSource>) {
        if let Some(slot) = self.slots.get_mut(id) {
            slot.adopts_from = Some(source);
        }
    }
}

impl Driver {
    /// Logs whether the value was adopted. After the first value of our own, the place is not read any more.
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
                    "adopted the site's own token; it is served until it expires, and nothing is fetched before"
                );
                Some(adopted)
            }
            Some(Adoption::Refused { place, reason }) => {
                let advice = "if other programs still hold a token of this app, point them here now: a token is fetched, \
                              which ends theirs within five minutes; if not, remove adopt";
                let fault = "cannot adopt the site's own token";
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
