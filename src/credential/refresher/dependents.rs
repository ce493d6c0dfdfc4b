//! Driver: credentials that are fetched with another credential's value: tickets with their app's access token, an
//! authorizer's token with its component's.
//!
//! Without that value they cannot be fetched. They have no fault; they wait and are fetched as soon as it is there. If
//! WeChat refuses the access token in their call, the access token is verified. Only if it is good, the fault is
//! theirs.

use super::Driver;
use crate::credential::facts::VerificationResult;
use crate::credential::schedule::{BACKOFF_FLOOR_MS, POLL_MS};
use crate::credential::slot::CredentialSlot;
use crate::credential::table::{CredentialId, CredentialState, Reading, log_credential};
use crate::platform::Failure;

/// How often a waiting credential is tried again, although a new access token starts it at once.
const LOOK_AGAIN_MS: u64 = 60_000;

impl Driver {
    /// True if the access token for the call is missing. In a cluster another node may have it, so there the fetch
    /// finds out.
    pub(super) fn lacks_parent_token(&self, id: CredentialId) -> bool {
        let (slots, now_ms) = (&self.refresher.slots, self.refresher.clock.boot_ms());
        let slot = &slots[id];
        let is_live = |parent: CredentialId| matches!(slots[parent].credential.read(now_ms), Reading::Live(_));
        !slot.follows && slot.share.is_none() && slot.parent.is_some_and(|parent| !is_live(parent))
    }

    /// Waits until the access token is there.
    pub(super) fn wait_for_parent_token(&mut self, id: CredentialId) {
        let now_ms = self.refresher.clock.boot_ms();
        let slot = &mut self.refresher.slots[id];
        log_credential!(debug, slot.credential, "waiting for the access token it is fetched with");
        slot.blocked_with = None;
        slot.set_waiting();
        slot.credential.end_wait();
        self.set_renewal_timer(id, now_ms + LOOK_AGAIN_MS);
    }

    /// Starts the credentials that wait for this value. Tickets are polled in proportion to its lifetime.
    pub(super) fn start_dependents(&mut self, id: CredentialId) {
        let poll_ms = (self.refresher.slots[id].renewal_state.longest_ms / 12).clamp(BACKOFF_FLOOR_MS, POLL_MS);
        let now_ms = self.refresher.clock.boot_ms();
        let generation = self.refresher.slots[id].generation();
        let dependents: Vec<CredentialId> = self.refresher.dependents.get(&id).cloned().unwrap_or_default();
        for child in dependents {
            let slot = &mut self.refresher.slots[child];
            slot.renewal_state.poll_ms = poll_ms;
            let was_refused = slot.refused_with.is_some_and(|(refused, _)| refused != generation);
            let waits = !slot.is_live(now_ms) || slot.credential.status(now_ms).waits_for_parent;
            if !slot.fetching && (waits || was_refused) {
                self.set_renewal_timer(child, now_ms);
            }
        }
    }

    /// WeChat refused the access token of that generation in this call, so that is being verified. If it was found good
    /// since its first refusal, the failure is this credential's own and gets the class of its error code.
    pub(super) fn classify_refused_token(&mut self, id: CredentialId, generation: u64, failure: &mut Failure) {
        let now_ms = self.refresher.clock.boot_ms();
        let slots = &self.refresher.slots;
        let check = slots[id].parent.and_then(|parent| slots[parent].credential.status(now_ms).last_check);
        let slot = &mut self.refresher.slots[id];
        let since_ms = match slot.refused_with {
            Some((refused, since_ms)) if refused == generation => since_ms,
            _ => {
                slot.refused_with = Some((generation, now_ms));
                return;
            }
        };
        let is_good = check.is_some_and(|check| {
            let accepted = matches!(check.verdict, VerificationResult::Accepted | VerificationResult::HandedOut);
            accepted && check.generation == generation && check.at_boot_ms >= since_ms
        });
        if is_good {
            failure.class = failure.class_of_errcode();
        }
    }
}

impl CredentialSlot {
    /// Shows that it waits for its access token and has no fault itself.
    pub(super) fn set_waiting(&self) {
        self.credential.update_status(|status| {
            (status.state, status.waits_for_parent) = (CredentialState::Waiting, true);
            status.last_error = None;
        });
    }
}
