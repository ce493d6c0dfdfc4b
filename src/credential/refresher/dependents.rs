//! Credentials that are fetched with another's live value: tickets with their app's access token, an authorizer's token
//! with its component's.
//!
//! Without that value there is nothing to ask with, which is no fault of theirs: they wait, and are asked for as soon as
//! it is there. One that WeChat refuses for their call is looked into; only when it is found good is it their own trouble.

use super::Driver;
use crate::credential::facts::VerificationResult;
use crate::credential::schedule::{BACKOFF_FLOOR_MS, POLL_MS};
use crate::credential::slot::CredentialSlot;
use crate::credential::table::{CredentialId, CredentialState, Reading, log_credential};
use crate::platform::Failure;

/// How often it is looked whether the awaited token is there, although its coming is told.
const LOOK_AGAIN_MS: u64 = 60_000;

impl Driver {
    /// True if there is nothing to ask with. With other nodes one of them may have the value all the same, so there the
    /// fetch finds out.
    pub(super) fn lacks_parent_token(&self, id: CredentialId) -> bool {
        let (slots, now_ms) = (&self.refresher.slots, self.refresher.clock.boot_ms());
        let slot = &slots[id];
        let is_live = |parent: CredentialId| matches!(slots[parent].credential.read(now_ms), Reading::Live(_));
        !slot.follows && slot.share.is_none() && slot.parent.is_some_and(|parent| !is_live(parent))
    }

    /// Nothing is asked before the token is there.
    pub(super) fn wait_for_parent_token(&mut self, id: CredentialId) {
        let now_ms = self.refresher.clock.boot_ms();
        let slot = &mut self.refresher.slots[id];
        log_credential!(debug, slot.credential, "waits for the token it is fetched with");
        slot.blocked_with = None;
        slot.set_waiting();
        slot.credential.end_wait();
        self.arm(id, now_ms + LOOK_AGAIN_MS);
    }

    /// Those that have been waiting for a value of this one are asked for now that there is one; and tickets are polled
    /// in proportion to its life.
    pub(super) fn start_dependents(&mut self, id: CredentialId) {
        let poll_ms = (self.refresher.slots[id].renewal_state.longest_ms / 12).clamp(BACKOFF_FLOOR_MS, POLL_MS);
        let now_ms = self.refresher.clock.boot_ms();
        let generation = self.refresher.slots[id].credential.published().map_or(0, |published| published.generation);
        let dependents: Vec<CredentialId> = self.refresher.dependents.get(&id).cloned().unwrap_or_default();
        for child in dependents {
            let slot = &mut self.refresher.slots[child];
            slot.renewal_state.poll_ms = poll_ms;
            let was_refused = slot.refused_with.is_some_and(|(refused, _)| refused != generation);
            let waits = slot.renewal_state.left_ms(now_ms) == 0 || slot.credential.status(now_ms).waits_for_parent;
            if !slot.fetching && (waits || was_refused) {
                self.arm(child, now_ms);
            }
        }
    }

    /// The token of that generation was refused for this call, and is looked into because of it. If that has found it
    /// good since it was first refused, asking again soon changes nothing.
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
    /// Shows that it waits for the token it is fetched with, and that nothing is wrong with itself.
    pub(super) fn set_waiting(&self) {
        self.credential.update_status(|status| {
            (status.state, status.waits_for_parent) = (CredentialState::Waiting, true);
            status.last_error = None;
        });
    }
}
