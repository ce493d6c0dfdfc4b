//! What becomes of a fetch that took its turn among other nodes: it was not its turn, the store was out of reach, or
//! somebody has published beside it.
//!
//! The counterpart of a landing with a value, which is the driver's own part.

use super::Driver;
use crate::clock::BootMs;
use crate::cluster::node_rules::NextStep;
use crate::cluster::{StoreAnswer, Unreachable};
use crate::credential::fetch_task::FetchPurpose;
use crate::credential::schedule::BACKOFF_FLOOR_MS;
use crate::credential::schedule::cluster::retry_denied_ms;
use crate::credential::table::{CredentialId, CredentialState, log_credential};
use crate::platform::Failure;
use crate::platform::Renewal;

impl Driver {
    /// A fetch came home because it was not its turn.
    pub(super) fn on_lease_denied(&mut self, id: CredentialId, answer: &StoreAnswer, next: NextStep) {
        let now_ms = self.refresher.clock.boot_ms();
        self.refresher.slots[id].fetching = false;
        let before = self.refresher.slots[id].next_try_ms;
        self.on_record(id, &answer.record, answer.moment);
        let slot = &mut self.refresher.slots[id];
        let useless = slot.share.as_ref().map_or(0, |share| share.useless);
        let overtaken = slot.share.as_mut().is_some_and(|share| std::mem::take(&mut share.overtaken));
        let at_ms = match next {
            // A message was faster than the answer to our question. Asking again would find nothing to wait for.
            _ if overtaken => slot.renewal_state.due_after_others_ms(now_ms, fastrand::f64()),
            NextStep::Wait { ms } => {
                let held = answer.record.lease_left_ms(answer.moment.store_ms) > 0;
                if !held && !slot.is_live(now_ms) {
                    slot.credential.end_wait();
                }
                let live = slot.is_live(now_ms);
                let times = slot.share.as_ref().map_or(0, |share| share.told);
                if let Some(share) = &mut slot.share {
                    share.told = times.saturating_add(1);
                }
                now_ms + retry_denied_ms(ms, times, live, fastrand::f64())
            }
            // What is there is of no use, and now that is known: by this answer, or by news while it was on its way.
            NextStep::Adopt if useless >= answer.record.generation => now_ms + BACKOFF_FLOOR_MS,
            NextStep::Adopt | NextStep::Call { .. } if slot.next_try_ms == before => {
                now_ms + slot.renewal_state.check_spacing_ms()
            }
            NextStep::Adopt | NextStep::Call { .. } => return self.finish(id),
        };
        let slot = &self.refresher.slots[id];
        if slot.next_try_ms == before || at_ms < slot.next_try_ms {
            self.arm(id, at_ms);
        }
        self.restore_state(id);
        self.finish(id);
    }

    /// The state as it is when no fetch is under way.
    pub(super) fn restore_state(&mut self, id: CredentialId) {
        let now_ms = self.refresher.clock.boot_ms();
        let slot = &self.refresher.slots[id];
        let live = slot.is_live(now_ms);
        slot.credential.update_status(|status| {
            if status.state == CredentialState::Renewing {
                status.state = if live { CredentialState::Fresh } else { CredentialState::Dead };
            }
        });
    }

    /// The lease ran out on the way to the call: this machine or the store is slow.
    pub(super) fn on_lease_expired(&mut self, id: CredentialId) {
        let now_ms = self.refresher.clock.boot_ms();
        log_credential!(debug, self.refresher.slots[id].credential, "the lease ran out before the call was sent");
        self.restore_state(id);
        self.arm(id, now_ms + BACKOFF_FLOOR_MS + fastrand::u64(0..=1_000));
    }

    /// Nothing could be asked, because the store is out of reach.
    pub(super) fn on_store_unreachable(
        &mut self,
        id: CredentialId,
        purpose: FetchPurpose,
        unreachable: &Unreachable,
    ) -> bool {
        let now_ms = self.refresher.clock.boot_ms();
        let slot = &self.refresher.slots[id];
        let left_ms = slot.renewal_state.left_ms(now_ms);
        if slot.credential_type.renewal == Renewal::Poll && left_ms > 0 && slot.renewal_state.failures == 0 {
            // Nothing is amiss yet: a polled value is trusted for many polls.
            let pause_ms = slot.renewal_state.poll_ms.min(left_ms / 2).max(BACKOFF_FLOOR_MS);
            self.restore_state(id);
            self.arm(id, now_ms + pause_ms);
            return false;
        }
        let appid = &slot.appid;
        let failure = Failure::no_cluster_store(appid, format!("{unreachable}: {}", unreachable.advice));
        let goes_on = self.on_failure(id, purpose, None, &failure, now_ms);
        let slot = &self.refresher.slots[id];
        if let Some(from_ms) = slot
            .renewal_state
            .alone_from_ms(slot.is_ours())
            .filter(|from_ms| (now_ms..slot.next_try_ms).contains(from_ms))
        {
            self.arm(id, from_ms);
        }
        goes_on
    }

    /// The call's value was refused by the store, because somebody has published beside us: theirs is served, ours is
    /// dropped, and since nobody knows which is the later one, one more fetch follows.
    pub(super) fn on_publish_refused(&mut self, id: CredentialId, answer: &StoreAnswer, sent_ms: BootMs) {
        let credential = &self.refresher.slots[id].credential;
        let what = "another node has renewed beside us; its token is served, and one more fetch settles it";
        log_credential!(warn, credential, "{what}");
        self.refresher.slots[id].fetching = false;
        self.on_record(id, &answer.record, answer.moment);
        let slot = &mut self.refresher.slots[id];
        slot.renewal_state.record_lost_call(sent_ms);
        if let Some(published) = slot.adjust_end() {
            self.persist(id, &published);
        }
        self.restore_state(id);
        let (now_ms, slot) = (self.refresher.clock.boot_ms(), &self.refresher.slots[id]);
        let at_ms = now_ms + fastrand::u64(0..=slot.renewal_state.overlap_ms() / 8);
        self.arm(id, at_ms);
        self.finish(id);
    }

    /// Notes how a new value of ours was shared.
    pub(super) fn record_sharing(&mut self, id: CredentialId, unreachable: Option<&Unreachable>) {
        let slot = &mut self.refresher.slots[id];
        let Some(share) = &mut slot.share else { return };
        (share.ours, share.unpublished) = (true, unreachable.is_some());
        if let Some(unreachable) = unreachable {
            log_credential!(
                warn,
                slot.credential,
                "a new token could not be given to the other nodes yet: {unreachable}"
            );
        }
    }
}
