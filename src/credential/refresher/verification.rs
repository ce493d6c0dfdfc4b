//! Driver: verifies values that may be invalid. Takes reports, plans probes, and withdraws a value that WeChat refuses.
//!
//! A value is never withdrawn because a client says so; it is verified first. A value that WeChat refuses in a probe is
//! withdrawn at once: readers wait for the next value as for a first fetch, and get a miss if that fails. If WeChat
//! refuses the value but still answers with it, a new one is requested with a forced refresh, within a small budget. A
//! withdrawn value is probed again, because some refusals were false alarms (`get_api_domain_ip` and others: refused,
//! and accepted 30 s later).

use std::sync::atomic::Ordering;

use tokio::sync::oneshot;
use tracing::warn;

use super::{Driver, FetchProgress, Timer, delay};
use crate::clock::{BootMs, nonzero};
use crate::credential::fetch_task::{FetchOutcome, FetchPurpose};
use crate::credential::schedule::ADOPTED_PROBE_MS;
use crate::credential::slot::CredentialSlot;
use crate::credential::table::{
    CredentialId, CredentialState, Event, LastError, VerificationReason, VerificationRequest, log_credential,
};
use crate::platform::Renewal;
use crate::platform::errcodes::BilingualText;
use crate::platform::{Delivery, Probe, Token};

/// At most one log line in this time about what clients cause, milliseconds.
const LOG_SPACING_MS: u64 = 60_000;

const HANDED_OUT: &str = "WeChat refuses the token and yet hands it out as current";
const RESET_IT: BilingualText = BilingualText {
    en: "reset the app's secret at WeChat, or wait: the token is tried again and again, and served when it is accepted",
    zh: "请在微信重置该应用的 AppSecret，或等待：会反复验证这个 token，一旦被接受就继续提供",
};

impl Driver {
    /// Takes a request to verify a value: a client's report, a foreign writer, a refused ticket call, or an operator.
    pub(super) fn on_verification_request(&mut self, report: VerificationRequest) {
        let Some(slot) = self.refresher.slots.get_mut(report.id) else { return };
        let now_ms = self.refresher.clock.boot_ms();
        let current = slot.generation();
        let late = report.generation.is_some_and(|seen| seen != current);
        let nothing_live = !slot.is_live(now_ms);
        if report.why == VerificationReason::ForeignWriter
            && slot.credential_type.renewal == Renewal::Mint
            && slot.probes.wanted_ms.is_none()
            && self.try_charge_client_verification(report.why, now_ms)
        {
            let slot = &mut self.refresher.slots[report.id];
            // A foreign fetch ends our token only after the overlap.
            let then_ms = now_ms + slot.renewal_state.overlap_ms();
            slot.probes.wanted_ms = Some(then_ms);
            self.plan_probe(report.id);
        }
        let slot = &mut self.refresher.slots[report.id];
        let spacing_ms = slot.renewal_state.check_spacing_ms();
        let waiting = slot.credential.status(now_ms).state == CredentialState::Waiting;
        let anew = report.why == VerificationReason::Requested && nothing_live && !waiting;
        if !late && slot.fetching {
            slot.add_waiter(report.done);
        } else if anew && slot.try_record_verification(report.why, current, now_ms, spacing_ms) {
            // An operator who has corrected something does not wait for the schedule.
            slot.waiters.push(report.done);
            self.start_fetch(report.id, FetchPurpose::Renew);
        } else if late || nothing_live || !slot.try_record_verification(report.why, current, now_ms, spacing_ms) {
            // Nothing to verify, or it was just verified. The client may have closed its connection.
            let _ = report.done.send(());
        } else if !self.try_charge_client_verification(report.why, now_ms) {
            let _ = report.done.send(());
        } else {
            let slot = &mut self.refresher.slots[report.id];
            slot.waiters.push(report.done);
            slot.by_client = matches!(report.why, VerificationReason::Reported | VerificationReason::ForeignWriter);
            let purpose = match report.why {
                VerificationReason::Reported if !slot.is_barred(now_ms) => FetchPurpose::Verify,
                VerificationReason::Requested if !waiting => FetchPurpose::Verify,
                VerificationReason::Reported
                | VerificationReason::Requested
                | VerificationReason::ForeignWriter
                | VerificationReason::ProbeRequested => FetchPurpose::Probe,
            };
            self.start_fetch(report.id, purpose);
        }
    }

    /// Counts a verification that a client causes. False if clients have caused too many lately.
    fn try_charge_client_verification(&mut self, why: VerificationReason, now_ms: BootMs) -> bool {
        if !matches!(why, VerificationReason::Reported | VerificationReason::ForeignWriter) {
            return true;
        }
        let table = &self.refresher.table;
        let taken = self.client_checks.try_take(now_ms);
        let counter = if taken { &table.client_checks } else { &table.client_checks_refused };
        counter.fetch_add(1, Ordering::Relaxed);
        if !taken && self.refusal_log.allow(now_ms, LOG_SPACING_MS) {
            warn!(
                refused = table.client_checks_refused.load(Ordering::Relaxed),
                "too many reports of good tokens or too many foreign writes: not every report is verified; find out who \
                 sends them (reports and writers in stats tokens, writers on the status page)"
            );
        }
        taken
    }

    /// Gives back the budget of a client's verification if the client was right.
    pub(super) fn refund_justified_verification(&mut self, id: CredentialId, outcome: &FetchOutcome) {
        let slot = &mut self.refresher.slots[id];
        if !std::mem::take(&mut slot.by_client) {
            return;
        }
        let was_right = match outcome {
            FetchOutcome::Probed { probe, .. } => matches!(probe, Probe::Dead(_)),
            FetchOutcome::Answered { token, probe, .. } => {
                let held = slot.credential.published();
                matches!(probe, Some(Probe::Dead(_))) || held.is_none_or(|held| held.value != token.value)
            }
            FetchOutcome::NoParentToken
            | FetchOutcome::Cancelled
            | FetchOutcome::QuotaExceeded(_)
            | FetchOutcome::LeaseExpired
            | FetchOutcome::StoreUnreachable(_) => true,
            FetchOutcome::Failed { failure, .. } => failure.delivery == Delivery::NotSent,
            FetchOutcome::LeaseDenied { .. } => false,
        };
        if was_right {
            self.client_checks.refund();
        }
    }

    /// WeChat refused the access token in a ticket's call: it is verified, as after a client's report.
    pub(super) fn verify_parent(&mut self, id: CredentialId, refused: Option<u64>) {
        if let (Some(parent), Some(generation)) = (self.refresher.slots[id].parent, refused) {
            let (done, _) = oneshot::channel();
            self.on_verification_request(VerificationRequest {
                id: parent,
                generation: Some(generation),
                why: VerificationReason::Reported,
                done,
            });
        }
    }

    /// Sets the probe timer to the earliest reason for a probe.
    pub(super) fn plan_probe(&mut self, id: CredentialId) {
        let now_ms = self.refresher.clock.boot_ms();
        let slot = &mut self.refresher.slots[id];
        if let Some(timer) = slot.probes.timer.take() {
            self.queue.try_remove(&timer);
        }
        if slot.credential_type.probe.is_none() || slot.follows {
            return;
        }
        // Probes because of lost calls are at least this far apart.
        let spaced = slot.probes.last_ms.map_or(0, |last| last + slot.renewal_state.overlap_ms() / 30);
        let doubt = slot.renewal_state.lost_call_probe_ms(now_ms).map(|at_ms| at_ms.max(spaced));
        let reasons = [slot.probes.wanted_ms, slot.probes.next_ms, doubt];
        let at_ms = reasons.into_iter().flatten().min();
        let next_ms = reasons.into_iter().chain([slot.probes.queued_probe_ms]).flatten().min();
        slot.credential.update_status(|status| status.next_probe_boot_ms = next_ms);
        slot.probes.timer = at_ms.map(|at_ms| self.queue.insert(Timer::Probe(id), delay(at_ms, now_ms)));
    }

    /// Starts the interval of regular probes: the value is new or was just accepted.
    pub(super) fn set_next_probe(&mut self, id: CredentialId) {
        let now_ms = self.refresher.clock.boot_ms();
        let slot = &mut self.refresher.slots[id];
        // In a cluster the node that has renewed the value probes it.
        let is_prober = slot.is_renewed_here();
        let probes = &mut slot.probes;
        if !is_prober {
            probes.next_ms = None;
            return;
        }
        let every_ms = slot.renewal_state.adopted.map(|_| ADOPTED_PROBE_MS).or(probes.every_ms);
        probes.next_ms = every_ms.map(|every| now_ms + every - (every as f64 * 0.1 * fastrand::f64()) as u64);
    }

    pub(super) fn on_probe_timer(&mut self, id: CredentialId) {
        let slot = &mut self.refresher.slots[id];
        slot.probes.timer = None;
        // The end of the fetch plans the next probe.
        if slot.fetching {
            return;
        }
        let now_ms = self.refresher.clock.boot_ms();
        slot.probes.wanted_ms = slot.probes.wanted_ms.filter(|at_ms| *at_ms > now_ms);
        self.set_next_probe(id);
        let slot = &mut self.refresher.slots[id];
        if !slot.is_live(now_ms) && !slot.renewal_state.is_withdrawn() {
            return self.plan_probe(id);
        }
        // Not counted among `checks`, so that a client's report right after it is verified.
        self.start_fetch(id, FetchPurpose::Probe);
    }

    /// Takes the result of a probe of the present value. If the value is refused, a fetch of a new one follows.
    pub(super) fn on_probed(&mut self, id: CredentialId, probe: Probe, sent_ms: BootMs) -> FetchProgress {
        let now_ms = self.refresher.clock.boot_ms();
        let slot = &mut self.refresher.slots[id];
        slot.probes.last_ms = Some(now_ms);
        self.probe_queue.record_answer(id, matches!(probe, Probe::Withheld(_)));
        let slot = &mut self.refresher.slots[id];
        log_credential!(debug, slot.credential, ?probe, "token probed");
        match probe {
            Probe::Alive => self.on_accepted(id, sent_ms),
            Probe::Dead(errcode) if !slot.renewal_state.is_withdrawn() => {
                self.withdraw(id, errcode);
                let slot = &mut self.refresher.slots[id];
                if !slot.is_barred(now_ms) {
                    self.start_fetch(id, FetchPurpose::Replace);
                    return FetchProgress::Continues;
                }
                slot.credential.end_wait();
            }
            Probe::Withheld(errcode) => self.log_probe_withheld(id, errcode),
            Probe::Dead(_) | Probe::Unknown => {}
        }
        self.plan_next_probe(id);
        self.resume_schedule(id);
        FetchProgress::Over
    }

    /// A withdrawn value is probed now and then: the refusal may have been a false alarm.
    fn plan_next_probe(&mut self, id: CredentialId) {
        let now_ms = self.refresher.clock.boot_ms();
        let slot = &mut self.refresher.slots[id];
        if slot.renewal_state.is_withdrawn() {
            slot.probes.wanted_ms = Some(slot.renewal_state.record_refused_again(now_ms, fastrand::f64()));
        }
    }

    fn on_accepted(&mut self, id: CredentialId, sent_ms: BootMs) {
        let slot = &mut self.refresher.slots[id];
        let withdrawn = slot.renewal_state.is_withdrawn();
        if slot.renewal_state.record_accepted(sent_ms)
            && let Some(published) = slot.adjust_expiry()
        {
            self.persist(id, &published);
        }
        if withdrawn {
            log_credential!(info, self.refresher.slots[id].credential, "WeChat accepts the token again, serving it");
            self.record_event(id, Event::AcceptedAgain);
            self.set_healthy(id);
            self.start_dependents(id);
        }
    }

    /// WeChat refuses the value: it is not served any more. Readers wait for the next one.
    fn withdraw(&mut self, id: CredentialId, errcode: i64) {
        let now_ms = self.refresher.clock.boot_ms();
        let slot = &mut self.refresher.slots[id];
        slot.record_early_death(Some(errcode), now_ms, slot.renewal_state.has_lost_calls());
        self.record_event(id, Event::DiedEarly { errcode: Some(errcode) });
        let slot = &mut self.refresher.slots[id];
        slot.renewal_state.withdraw(now_ms);
        if let Some(published) = slot.credential.withdraw(now_ms) {
            self.persist(id, &published);
        }
        self.plan_next_probe(id);
    }

    /// WeChat has answered with the value that we have. False if the value is refused, by this probe or an earlier one;
    /// then the next step has been started.
    pub(super) fn on_same_value(
        &mut self,
        id: CredentialId,
        purpose: FetchPurpose,
        probe: Option<Probe>,
        received_ms: BootMs,
    ) -> bool {
        let slot = &mut self.refresher.slots[id];
        match probe {
            Some(Probe::Alive) if slot.renewal_state.is_withdrawn() => {
                self.on_accepted(id, received_ms);
                true
            }
            Some(Probe::Dead(errcode)) => {
                self.on_refused_value_answered(id, purpose, errcode);
                false
            }
            None | Some(Probe::Unknown | Probe::Withheld(_)) if slot.renewal_state.is_withdrawn() => {
                self.wait_for_new_value(id, None);
                false
            }
            _ => true,
        }
    }

    fn on_refused_value_answered(&mut self, id: CredentialId, purpose: FetchPurpose, errcode: i64) {
        let slot = &mut self.refresher.slots[id];
        slot.credential.update_status(|status| status.dead_but_same += 1);
        if !slot.renewal_state.is_withdrawn() {
            self.withdraw(id, errcode);
        }
        let slot = &mut self.refresher.slots[id];
        // Forced refreshes close together have no effect, so one that returned the same value is not repeated.
        if slot.credential_type.can_force && purpose != FetchPurpose::Force {
            log_credential!(error, slot.credential, errcode, "{HANDED_OUT}; requesting a forced refresh");
            self.start_fetch(id, FetchPurpose::Force);
        } else {
            self.wait_for_new_value(id, Some(errcode));
        }
    }

    /// There is no value to serve; plans the next fetch.
    pub(super) fn wait_for_new_value(&mut self, id: CredentialId, errcode: Option<i64>) {
        let now_ms = self.refresher.clock.boot_ms();
        let slot = &mut self.refresher.slots[id];
        let next_ms = slot.renewal_state.record_refused_again(now_ms, fastrand::f64());
        if errcode.is_some() {
            log_credential!(error, slot.credential, errcode, advice = RESET_IT.en, "{HANDED_OUT}");
            let event = Event::Failed {
                class: "operator",
                errcode,
                rid: None,
                network: None,
                text: HANDED_OUT.to_owned(),
                meaning: None,
                advice: RESET_IT.en.into(),
                advice_zh: RESET_IT.zh.into(),
            };
            self.record_event(id, event);
        }
        let slot = &mut self.refresher.slots[id];
        slot.credential.update_status(|status| {
            status.state = CredentialState::Dead;
            status.last_error = Some(LastError {
                errcode,
                class: "operator",
                rid: None,
                text: HANDED_OUT.to_owned(),
                meaning: None,
                advice: RESET_IT.en.into(),
                advice_zh: RESET_IT.zh.into(),
                network: None,
                seen_ip: None,
                at_boot_ms: now_ms,
            });
        });
        slot.credential.end_wait();
        self.set_renewal_timer(id, next_ms);
        self.end_fetch(id);
    }

    /// If a verification returns a new value before the old one was due, another program has renewed it.
    pub(super) fn detect_foreign_fetch(&mut self, id: CredentialId, purpose: FetchPurpose, token: &Token) {
        let now_ms = self.refresher.clock.boot_ms();
        let slot = &mut self.refresher.slots[id];
        let left_ms = slot.renewal_state.left_ms(now_ms);
        let replaced = slot.credential.published().is_some_and(|held| held.value != token.value);
        if purpose == FetchPurpose::Verify && replaced && left_ms > 0 && !slot.renewal_state.is_due_soon(now_ms) {
            slot.record_early_death(None, now_ms, false);
            self.record_event(id, Event::DiedEarly { errcode: None });
        }
    }
}

impl CredentialSlot {
    /// Counts and logs a value that became invalid before its expiry, with the likely cause.
    fn record_early_death(&self, errcode: Option<i64>, now_ms: BootMs, lost: bool) {
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
        let left_s = nonzero(self.renewal_state.left_ms(now_ms) / 1000);
        log_credential!(error, self.credential, errcode, left_s, advice, "token became invalid before its expiry");
        self.credential.update_status(|status| status.early_deaths += 1);
    }
}
