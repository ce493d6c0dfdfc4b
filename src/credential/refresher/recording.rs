//! Driver: writes the journal, counts how calls ended and measures how long they took. Never decides anything.

use super::Driver;
use crate::credential::facts::{Verification, VerificationResult};
use crate::credential::fetch_task::{FetchOutcome, FetchPurpose};
use crate::credential::table::{CredentialId, Event};
use crate::https::NetworkFault;
use crate::platform::{Delivery, Failure, Probe};

impl Driver {
    pub(super) fn record_event(&self, id: CredentialId, event: Event) {
        let (slot, now) = (&self.refresher.slots[id], self.refresher.clock.now());
        if let (Event::Renewed { from, .. }, Some(own)) = (&event, self.refresher.table.cluster.node()) {
            slot.credential.set_renewed_by(from.as_deref().unwrap_or(own));
        }
        slot.credential.record_event(&self.refresher.table.journal, now, event);
    }

    pub(super) fn record_failed_event(&self, id: CredentialId, failure: &Failure) {
        let event = Event::Failed {
            class: failure.class.name(),
            errcode: failure.errcode,
            rid: failure.rid.as_deref().map(str::to_owned),
            network: failure.network.map(NetworkFault::name),
            text: failure.to_string(),
            meaning: failure.meaning(),
            advice: failure.advice(),
            advice_zh: failure.advice_zh(),
        };
        self.record_event(id, event);
    }

    pub(super) fn record_fallback(&self, id: CredentialId) {
        self.record_event(id, Event::Fallback { endpoint: self.refresher.slots[id].credential_type.id });
    }

    /// Records how a fetch ended. Called first, while the present value is still the one that the fetch was about.
    pub(super) fn record_fetch(&mut self, id: CredentialId, purpose: FetchPurpose, outcome: &FetchOutcome) {
        let now_ms = self.refresher.clock.boot_ms();
        let slot = &self.refresher.slots[id];
        let held = slot.credential.published();
        let (ended, took_ms) = match outcome {
            FetchOutcome::Answered { token, sent_ms, received_ms, .. } => {
                let same = held.as_ref().is_some_and(|held| held.value == token.value);
                (Some(if same { "same" } else { "new" }), Some(received_ms.saturating_sub(*sent_ms)))
            }
            FetchOutcome::Failed { failure, sent_ms } => {
                let took_ms = (failure.delivery != Delivery::NotSent).then(|| now_ms.saturating_sub(*sent_ms));
                (Some(failure.class.name()), took_ms)
            }
            _ => (None, None),
        };
        if let (Some(ended), Some(took_ms)) = (ended, took_ms) {
            self.refresher.table.durations.record(slot.credential_type.id, ended, took_ms);
        }
        let generation = held.map_or(0, |held| held.generation);
        let looked = verdict(purpose, outcome, ended == Some("same"));
        let check = looked.map(|verdict| Verification { at_boot_ms: now_ms, generation, verdict });
        slot.credential.update_status(|status| {
            ended.into_iter().for_each(|ended| status.outcomes.record(ended));
            status.looks += u64::from(check.is_some());
            status.last_check = check.or(status.last_check);
        });
    }
}

/// What a fetch has found out about the value; none if it was not made to verify it.
fn verdict(purpose: FetchPurpose, outcome: &FetchOutcome, same: bool) -> Option<VerificationResult> {
    let of_probe = |probe: &Probe| match probe {
        Probe::Alive => VerificationResult::Accepted,
        Probe::Dead(_) => VerificationResult::Refused,
        Probe::Unknown | Probe::Withheld(_) => VerificationResult::Unknown,
    };
    match outcome {
        FetchOutcome::Cancelled => None,
        FetchOutcome::Probed { probe, .. } => Some(of_probe(probe)),
        FetchOutcome::Answered { probe: Some(probe), .. } => Some(of_probe(probe)),
        _ if purpose != FetchPurpose::Verify => None,
        FetchOutcome::Answered { .. } if same => Some(VerificationResult::HandedOut),
        FetchOutcome::Answered { .. } => Some(VerificationResult::Replaced),
        FetchOutcome::Failed { .. } => Some(VerificationResult::Unknown),
        _ => None,
    }
}
