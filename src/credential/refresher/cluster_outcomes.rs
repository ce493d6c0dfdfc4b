//! Driver: what follows a fetch that ended without a usable value because of the cluster: the lease was denied or has
//! expired, the store cannot be reached, or another node has published at the same time.

use super::{Driver, FetchProgress};
use crate::clock::BootMs;
use crate::cluster::node_rules::NextStep;
use crate::cluster::{StoreAnswer, Unreachable};
use crate::credential::cluster_fetch::SharingResult;
use crate::credential::fetch_task::FetchPurpose;
use crate::credential::schedule::BACKOFF_FLOOR_MS;
use crate::credential::schedule::cluster::retry_denied_ms;
use crate::credential::slot::ValueOrigin;
use crate::credential::table::{CredentialId, CredentialState, log_credential};
use crate::platform::Failure;
use crate::platform::Renewal;

/// What to do with a fetched value.
pub(super) enum FetchedValueUse {
    /// Serve it under this generation; in a cluster with the reason why the other nodes do not have it yet.
    Serve(Option<(u64, Option<Unreachable>)>),
    /// Drop it: another node's value of the same or a later generation was taken over while it was fetched.
    DropSuperseded { generation: u64 },
    /// Drop it: another node has published at the same time, and the store has refused this one.
    DropRefused(Box<StoreAnswer>),
}

impl Driver {
    /// The store has denied the lease: another node has it, or has fetched just now.
    pub(super) fn on_lease_denied(&mut self, id: CredentialId, answer: &StoreAnswer, next: NextStep) {
        let now_ms = self.refresher.clock.boot_ms();
        self.refresher.slots[id].fetching = false;
        let before = self.refresher.slots[id].next_try_ms;
        self.on_record(id, &answer.record, answer.clock_reading);
        let slot = &mut self.refresher.slots[id];
        let expired_generation = slot.share.as_ref().map_or(0, |share| share.expired_generation);
        let is_replaced = slot.share.as_mut().is_some_and(|share| std::mem::take(&mut share.replaced_during_fetch));
        let at_ms = match next {
            // The new record arrived before the answer to our request, so there is nothing to wait for.
            _ if is_replaced => slot.renewal_state.due_after_others_ms(now_ms, fastrand::f64()),
            NextStep::Wait { ms } => {
                let held = answer.record.lease_left_ms(answer.clock_reading.store_ms) > 0;
                if !held && !slot.is_live(now_ms) {
                    slot.credential.end_wait();
                }
                let live = slot.is_live(now_ms);
                let times = slot.share.as_ref().map_or(0, |share| share.lease_denials);
                if let Some(share) = &mut slot.share {
                    share.lease_denials = times.saturating_add(1);
                }
                now_ms + retry_denied_ms(ms, times, live, fastrand::f64())
            }
            // The value in the store cannot be used. This answer, or an event before it, has shown that.
            NextStep::TakeOver if expired_generation >= answer.record.generation => now_ms + BACKOFF_FLOOR_MS,
            NextStep::TakeOver | NextStep::Call { .. } if slot.next_try_ms == before => {
                now_ms + slot.renewal_state.check_spacing_ms()
            }
            NextStep::TakeOver | NextStep::Call { .. } => return self.end_fetch(id),
        };
        let slot = &self.refresher.slots[id];
        if slot.next_try_ms == before || at_ms < slot.next_try_ms {
            self.set_renewal_timer(id, at_ms);
        }
        self.restore_state(id);
        self.end_fetch(id);
    }

    /// Sets the status back to what it is when no fetch runs.
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

    /// The lease expired before the call was sent: this machine or the store is slow.
    pub(super) fn on_lease_expired(&mut self, id: CredentialId) {
        let now_ms = self.refresher.clock.boot_ms();
        log_credential!(debug, self.refresher.slots[id].credential, "lease expired before the call was sent");
        self.restore_state(id);
        self.set_renewal_timer(id, now_ms + BACKOFF_FLOOR_MS + fastrand::u64(0..=1_000));
    }

    /// The store cannot be reached, so nothing was fetched.
    pub(super) fn on_store_unreachable(
        &mut self,
        id: CredentialId,
        purpose: FetchPurpose,
        unreachable: &Unreachable,
    ) -> FetchProgress {
        let now_ms = self.refresher.clock.boot_ms();
        let slot = &self.refresher.slots[id];
        let left_ms = slot.renewal_state.left_ms(now_ms);
        if slot.credential_type.renewal == Renewal::Poll && left_ms > 0 && slot.renewal_state.failures == 0 {
            // No fault yet: a polled value is trusted for the time of many polls.
            let pause_ms = slot.renewal_state.poll_ms.min(left_ms / 2).max(BACKOFF_FLOOR_MS);
            self.restore_state(id);
            self.set_renewal_timer(id, now_ms + pause_ms);
            return FetchProgress::Over;
        }
        let appid = &slot.appid;
        let failure = Failure::no_cluster_store(appid, format!("{unreachable}: {}", unreachable.advice));
        let progress = self.on_failure(id, purpose, None, &failure, now_ms);
        let slot = &self.refresher.slots[id];
        if let Some(from_ms) = slot
            .renewal_state
            .alone_from_ms(slot.is_ours())
            .filter(|from_ms| (now_ms..slot.next_try_ms).contains(from_ms))
        {
            self.set_renewal_timer(id, from_ms);
        }
        progress
    }

    /// Decides what to do with a fetched value. Changes nothing.
    pub(super) fn judge_fetched_value(&self, id: CredentialId, shared: SharingResult, value: &[u8]) -> FetchedValueUse {
        let (generation, unreachable) = match shared {
            SharingResult::NotShared => return FetchedValueUse::Serve(None),
            SharingResult::Refused(answer) => return FetchedValueUse::DropRefused(answer),
            SharingResult::Published(generation) => (generation, None),
            SharingResult::Unpublished(generation, unreachable) => (generation, Some(unreachable)),
        };
        let slot = &self.refresher.slots[id];
        let current = slot.credential.published().filter(|_| slot.share.is_some());
        let is_superseded = current.is_some_and(|current| current.generation >= generation && *current.value != *value);
        match is_superseded {
            true => FetchedValueUse::DropSuperseded { generation },
            false => FetchedValueUse::Serve(Some((generation, unreachable))),
        }
    }

    /// Drops a fetched value of that generation: a value of the same or a later one was taken over meanwhile.
    pub(super) fn on_value_superseded(&mut self, id: CredentialId, generation: u64) {
        if self.refresher.slots[id].generation() == generation {
            self.mark_generation_doubtful(id, generation);
        }
        self.restore_state(id);
        self.resume_schedule(id);
    }

    /// The store has refused our value because another node has published at the same time. Its value is served and
    /// ours is dropped. Nobody knows which of the two is later, so one more fetch follows.
    pub(super) fn on_publish_refused(&mut self, id: CredentialId, answer: &StoreAnswer, sent_ms: BootMs) {
        let credential = &self.refresher.slots[id].credential;
        let what = "another node renewed at the same time; its token is served, and one more fetch follows";
        log_credential!(warn, credential, "{what}");
        self.refresher.slots[id].fetching = false;
        self.on_record(id, &answer.record, answer.clock_reading);
        let slot = &mut self.refresher.slots[id];
        slot.renewal_state.record_lost_call(sent_ms);
        if let Some(published) = slot.adjust_expiry() {
            self.persist(id, &published);
        }
        self.restore_state(id);
        let (now_ms, slot) = (self.refresher.clock.boot_ms(), &self.refresher.slots[id]);
        let at_ms = now_ms + fastrand::u64(0..=slot.renewal_state.overlap_ms() / 8);
        self.set_renewal_timer(id, at_ms);
        self.end_fetch(id);
    }

    /// Records whether the other nodes have our new value.
    pub(super) fn record_publication(&mut self, id: CredentialId, unreachable: Option<&Unreachable>) {
        let slot = &mut self.refresher.slots[id];
        let Some(share) = &mut slot.share else { return };
        share.origin = ValueOrigin::ThisNode;
        if let Some(unreachable) = unreachable {
            share.origin = ValueOrigin::ThisNodeUnpublished;
            log_credential!(
                warn,
                slot.credential,
                "the new token could not be published to the cluster store yet: {unreachable}"
            );
        }
    }
}
