//! What people see: the status, the journal, log lines, how calls ended and how long they took. Decides nothing.

use super::{Actor, Effect};
use crate::clock::{BootMs, nonzero};
use crate::credential::facts::{CallOutcome, CredentialInfo, Verification, VerificationResult};
use crate::credential::fetch_task::{FetchOutcome, FetchPurpose};
use crate::credential::grants::Grant;
use crate::credential::table::{
    CredentialState, CredentialStatus, Event as JournalEvent, LastError, TableChange, log_credential,
};
use crate::https::NetworkFault;
use crate::platform::{Class, Delivery, Failure, LifetimeSource, Probe, Renewal, Token};
use crate::secret::fingerprint;

const LOG_AGAIN_MS: u64 = 60_000;

impl Actor {
    pub(super) fn about(&self) -> &CredentialInfo {
        &self.about
    }

    /// What its secret is called.
    pub(in crate::credential) fn secret_noun(&self) -> &'static str {
        if self.grant.as_ref().is_some_and(Grant::is_refresh_token) { "refresh token" } else { "secret" }
    }

    /// Changes the status. Readers see it with the next value, or when the event has been handled.
    pub(super) fn update_status(&mut self, change: impl FnOnce(&mut CredentialStatus)) {
        change(&mut self.status);
        self.turn.is_status_changed = true;
    }

    pub(super) fn show_status(&mut self) {
        if std::mem::take(&mut self.turn.is_status_changed) {
            self.push(Effect::Show(TableChange::Status(Box::new(self.status.clone()))));
        }
    }

    /// Shows readers a change of the value, the status first.
    pub(super) fn show(&mut self, change: TableChange) {
        self.show_status();
        self.push(Effect::Show(change));
    }

    pub(super) fn record_event(&mut self, event: JournalEvent) {
        if let (JournalEvent::Renewed { from, .. }, Some(share)) = (&event, &self.share) {
            self.set_renewed_by(from.clone().unwrap_or_else(|| share.handle.name.to_string()));
        }
        self.push(Effect::Journal(event));
    }

    pub(super) fn set_renewed_by(&mut self, node: String) {
        if self.status.renewed_by.as_ref() != Some(&node) {
            self.update_status(|status| status.renewed_by = Some(node));
        }
    }

    /// The credential is current and has no fault.
    pub(super) fn set_healthy(&mut self) {
        if let Some((_, unsaid)) = self.log.end() {
            log_credential!(info, self, suppressed = nonzero(unsaid), "recovered");
            self.record_event(JournalEvent::Recovered);
        }
        self.update_status(|status| {
            status.state = CredentialState::Fresh;
            status.waits_for_parent = false;
            status.last_error = None;
        });
    }

    /// Shows that it waits for its access token and has no fault itself.
    pub(super) fn set_waiting(&mut self) {
        self.update_status(|status| {
            (status.state, status.waits_for_parent) = (CredentialState::Waiting, true);
            status.last_error = None;
        });
    }

    /// Sets the status back to what it is when no fetch runs.
    pub(super) fn restore_shown_state(&mut self) {
        let live = self.is_live(self.now_ms());
        self.update_status(|status| {
            if status.state == CredentialState::Renewing {
                status.state = if live { CredentialState::Fresh } else { CredentialState::Dead };
            }
        });
    }

    pub(super) fn show_failure(&mut self, failure: &Failure, next_ms: BootMs) {
        let now_ms = self.now_ms();
        let live = self.is_live(now_ms);
        let state = match failure.class {
            Class::Operator(_) | Class::Internal => CredentialState::Blocked,
            Class::Wait(_) => CredentialState::Waiting,
            Class::Retry if live => CredentialState::Stale,
            Class::Retry => CredentialState::Dead,
        };
        let mut error = LastError {
            errcode: failure.errcode,
            class: failure.class.into(),
            rid: failure.rid.as_deref().map(str::to_owned),
            text: failure.to_string(),
            meaning: failure.meaning(),
            advice: failure.advice(),
            network: failure.network.map(NetworkFault::name),
            seen_ip: failure.seen_ip,
            at_boot_ms: now_ms,
        };
        let event = error.event();
        if let (true, Some(sentence)) = (failure.asks_for_secret(), self.plan.secret.takes_effect()) {
            error.advice = format!("{}; {}", error.advice, sentence.en).into();
        }
        self.log_failure(failure, &error.advice, next_ms, live);
        self.update_status(|status| {
            (status.state, status.waits_for_parent) = (state, false);
            status.failures += 1;
            status.last_error = Some(error);
        });
        self.record_event(event);
    }

    pub(super) fn log_failure(&mut self, failure: &Failure, advice: &str, next_ms: BootMs, live: bool) {
        let now_ms = self.now_ms();
        // The rid differs each time. Without an errcode the text tells failures apart.
        let text = if failure.errcode.is_some() { String::new() } else { failure.message.clone() };
        let this = (failure.errcode, failure.class.name(), text);
        let Some(unsaid) = self.log.allow(this, now_ms, LOG_AGAIN_MS) else { return };
        let suppressed = nonzero(unsaid);
        let next_try_s = nonzero(next_ms.saturating_sub(now_ms).div_ceil(1000));
        let (class, rid, errcode) = (failure.class.name(), failure.rid.as_deref(), failure.errcode);
        macro_rules! log {
            ($level:ident) => {
                log_credential!(
                    $level,
                    self,
                    class,
                    errcode,
                    rid,
                    next_try_s,
                    live,
                    suppressed,
                    advice,
                    "renewal failed: {failure}"
                )
            };
        }
        if matches!(failure.class, Class::Operator(_) | Class::Internal) || !live { log!(error) } else { log!(warn) }
    }

    pub(super) fn log_answer(&self, token: &Token, same: bool, generation: u64) {
        let print = fingerprint(&token.value);
        // In the last second of a value an `expires_in` of 0 is correct.
        if let Some(warning) =
            token.lifetime_source.warning().filter(|_| !(same && token.lifetime_source == LifetimeSource::Zero))
        {
            log_credential!(warn, self, token = print, "{warning}");
        }
        if same {
            log_credential!(debug, self, token = print, generation, "the platform returned the same token");
        } else {
            let expires_in_s = token.expires_in_s;
            log_credential!(info, self, token = print, generation, expires_in_s, "renewed");
        }
    }

    /// Counts and logs a value that became invalid before its expiry, with the likely cause.
    pub(super) fn record_early_death(&mut self, errcode: Option<i64>, lost: bool) {
        let advice = match self.credential_type.renewal {
            Renewal::Mint if lost => "nothing: a call of this server whose answer was lost has made another token",
            Renewal::Mint if self.grant.is_some() => {
                "another program fetches this token, or the merchant has withdrawn: only one may fetch it, find the \
                 other (refused writes in the log name hosts)"
            }
            Renewal::Mint => {
                "another program fetches tokens for this app by the classic call, or the secret was reset: find it \
                 (refused writes in the log name hosts), or move this app to endpoint = \"stable_token\""
            }
            _ => "somebody has forced a refresh of this app's token, or reset its secret: find that program",
        };
        let left_s = nonzero(self.renewal_state.left_ms(self.now_ms()) / 1000);
        log_credential!(error, self, errcode, left_s, advice, "token became invalid before its expiry");
        self.update_status(|status| status.early_deaths += 1);
    }

    /// Records how a fetch ended. Called first, while the present value is still the one that the fetch was about.
    pub(super) fn record_fetch(&mut self, purpose: FetchPurpose, outcome: &FetchOutcome) {
        let now_ms = self.now_ms();
        let (ended, took_ms) = match outcome {
            FetchOutcome::Answered { token, sent_ms, received_ms, .. } => {
                let ended = if self.holds(&token.value) { CallOutcome::Same } else { CallOutcome::New };
                (Some(ended), Some(received_ms.saturating_sub(*sent_ms)))
            }
            FetchOutcome::Failed { failure, sent_ms } => {
                let took_ms = (failure.delivery != Delivery::NotSent).then(|| now_ms.saturating_sub(*sent_ms));
                (Some(CallOutcome::Failed(failure.class.into())), took_ms)
            }
            _ => (None, None),
        };
        if let (Some(ended), Some(took_ms)) = (ended, took_ms) {
            self.push(Effect::Measured { endpoint: self.credential_type.id, ended, took_ms });
        }
        let generation = self.generation();
        let looked = verdict(purpose, outcome, ended == Some(CallOutcome::Same));
        let check = looked.map(|verdict| Verification { at_boot_ms: now_ms, generation, verdict });
        self.update_status(|status| {
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
