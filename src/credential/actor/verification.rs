//! Verifies a value that may be invalid. Takes reports, plans probes, and withdraws a value that WeChat refuses.
//!
//! A value is never withdrawn because a client says so; it is verified first. A value that WeChat refuses in a probe is
//! withdrawn at once: readers wait for the next value as for a first fetch, and get a miss if that fails. If WeChat
//! refuses the value but still answers with it, a new one is requested with a forced refresh, within a small budget. A
//! withdrawn value is probed again, because some refusals were false alarms (`get_api_domain_ip` and others: refused,
//! and accepted 30 s later).
//!
//! A probe of the [`probe_queue`](super::super::probe_queue) can only show that a value is refused. Any other result
//! changes neither a schedule nor a value.

use tokio::sync::oneshot;

use super::fetching::{Activity, Cause};
use super::{Actor, Effect, Timer};
use crate::clock::{BootMs, Now, RepeatThrottle};
use crate::credential::cluster_fetch::CallPrevented;
use crate::credential::fetch_task::{FetchOutcome, FetchPurpose};
use crate::credential::probe_queue::{PER_DAY_MAX, ProbeReadiness};
use crate::credential::schedule::ADOPTED_PROBE_MS;
use crate::credential::table::{
    CredentialState, Event as JournalEvent, LastError, REPORTS_MAX, VerificationReason, VerificationRequest,
    log_credential,
};
use crate::credential::verification_budget::VerificationBudget;
use crate::platform::errcodes;
use crate::platform::{Delivery, FailureClass, Probe, Renewal, Token};

/// A value is probed by the queue only if its renewal is at least this far away: one call at a time, and the renewal
/// comes first.
const RENEWAL_AWAY_MS: u64 = 2_000;
/// A value that ends within this time is not probed by the queue any more.
const END_AWAY_MS: u64 = 10_000;
/// At most one log line in this time about a probe call that is not answered.
const WITHHELD_LOG_AGAIN_MS: u64 = 86_400_000;

const HANDED_OUT: &str = "WeChat refuses the token and yet hands it out as current";
const RESET_IT: &str =
    "reset the app's secret at WeChat, or wait: the token is tried again and again, and served when it is accepted";

/// When the value was last verified because of reports. Many reports cause one verification in a while.
#[derive(Default)]
pub(super) struct VerificationTimes {
    /// When a client's report was last verified.
    checked_ms: Option<BootMs>,
    /// The generation of that value.
    generation: u64,
    /// When a report was last verified right after another one, because the value was new.
    again_ms: Option<BootMs>,
    /// When a foreign writer last caused a probe. Kept apart, so that a report right after it is verified too.
    foreign_ms: Option<BootMs>,
}

impl VerificationTimes {
    /// See [`Actor::try_record_verification`].
    fn try_record_verification(
        &mut self,
        why: VerificationReason,
        generation: u64,
        now_ms: BootMs,
        spacing_ms: u64,
    ) -> bool {
        let within = |checked: Option<BootMs>| checked.is_some_and(|checked| now_ms < checked + spacing_ms);
        if why == VerificationReason::ForeignWriter {
            let may = !within(self.foreign_ms.max(self.checked_ms));
            self.foreign_ms = if may { Some(now_ms) } else { self.foreign_ms };
            return may;
        }
        if within(self.checked_ms) {
            // The value that a verification has fetched may be refused too: that allows one more, not one for each
            // value.
            if generation == self.generation || within(self.again_ms) {
                return false;
            }
            self.again_ms = Some(now_ms);
        }
        (self.checked_ms, self.generation) = (Some(now_ms), generation);
        true
    }
}

/// When the value is probed.
#[derive(Default)]
pub(super) struct Probes {
    /// The interval, if one is configured for this app.
    every_ms: Option<u64>,
    /// Otherwise the probe queue decides.
    is_queued: bool,
    /// When the queue is expected to probe it.
    queued_probe_ms: Option<BootMs>,
    /// The errcode with which the platform refuses to answer the probe call.
    withheld: RepeatThrottle<i64>,
    /// The next regular probe.
    pub next_ms: Option<BootMs>,
    /// A probe because of a foreign writer, or to see whether a refusal was a false alarm.
    pub wanted_ms: Option<BootMs>,
    pub last_ms: Option<BootMs>,
}

impl Probes {
    /// `every_ms`: the interval; 0 for never, none if the probe queue decides.
    pub fn new(every_ms: Option<u64>) -> Probes {
        let mut probes = Probes::default();
        probes.set_interval(every_ms);
        probes
    }

    /// True if it is another interval than before.
    pub fn set_interval(&mut self, every_ms: Option<u64>) -> bool {
        let (is_queued, every_ms) = (every_ms.is_none(), every_ms.filter(|every_ms| *every_ms > 0));
        let is_changed = (self.is_queued, self.every_ms) != (is_queued, every_ms);
        (self.is_queued, self.every_ms) = (is_queued, every_ms);
        is_changed
    }
}

impl Actor {
    /// Takes a request to verify the value: a client's report, a foreign writer, a refused ticket call, or an operator.
    pub(super) fn on_doubt(&mut self, request: VerificationRequest, budget: &mut VerificationBudget) {
        let VerificationRequest { generation, why, done, .. } = request;
        let now_ms = self.now_ms();
        let current = self.generation();
        let late = generation.is_some_and(|seen| seen != current);
        let nothing_live = !self.is_live(now_ms);
        if why == VerificationReason::ForeignWriter
            && self.credential_type.renewal == Renewal::Mint
            && self.probes.wanted_ms.is_none()
            && self.try_charge_client(why, budget)
        {
            // A foreign fetch ends our token only after the overlap.
            self.probes.wanted_ms = Some(now_ms + self.renewal_state.overlap_ms());
            self.plan_probe();
        }
        let waiting = self.status.state == CredentialState::Waiting;
        let anew = why == VerificationReason::Requested && nothing_live && !waiting;
        if self.is_busy() && (!late || anew) {
            // One call at a time. What runs is about the present value, or brings the next one.
            self.add_waiter(done);
        } else if anew && self.try_record_verification(why, current) {
            // An operator who has corrected something does not wait for the schedule.
            self.waiters.extend(done);
            self.start_fetch(FetchPurpose::Renew, Cause::Own);
        } else if late
            || nothing_live
            || !self.try_record_verification(why, current)
            || !self.try_charge_client(why, budget)
        {
            // Nothing to verify, or it was just verified, or clients have caused too many.
            done.into_iter().for_each(|done| self.answer(done));
        } else {
            self.waiters.extend(done);
            let by_client = matches!(why, VerificationReason::Reported | VerificationReason::ForeignWriter);
            let purpose = match why {
                VerificationReason::Reported if !self.is_barred() => FetchPurpose::Verify,
                VerificationReason::Requested if !waiting => FetchPurpose::Verify,
                VerificationReason::Reported
                | VerificationReason::Requested
                | VerificationReason::ForeignWriter
                | VerificationReason::ProbeRequested => FetchPurpose::Probe,
            };
            self.start_fetch(purpose, if by_client { Cause::Client } else { Cause::Own });
        }
    }

    /// Decides whether this request is verified now. If so, records the verification as made.
    fn try_record_verification(&mut self, why: VerificationReason, generation: u64) -> bool {
        let (now_ms, spacing_ms) = (self.now_ms(), self.renewal_state.check_spacing_ms());
        if why == VerificationReason::ProbeRequested {
            return self.probes.last_ms.is_none_or(|tried_ms| now_ms >= tried_ms + spacing_ms);
        }
        self.checks.try_record_verification(why, generation, now_ms, spacing_ms)
    }

    /// Charges a verification that a client causes. False if clients have caused too many lately.
    fn try_charge_client(&mut self, why: VerificationReason, budget: &mut VerificationBudget) -> bool {
        if !matches!(why, VerificationReason::Reported | VerificationReason::ForeignWriter) {
            return true;
        }
        let is_taken = budget.try_take(self.now_ms());
        self.push(Effect::ClientCharged { is_taken });
        is_taken
    }

    /// Adds a client that waits. At the limit, closed ones are removed, and the new one is dropped (its receiver
    /// fails).
    fn add_waiter(&mut self, waiter: Option<oneshot::Sender<()>>) {
        if self.waiters.len() >= REPORTS_MAX {
            self.waiters.retain(|waiter| !waiter.is_closed());
        }
        if self.waiters.len() < REPORTS_MAX {
            self.waiters.extend(waiter);
        }
    }

    /// Tells all who wait that the verification is over.
    pub(super) fn answer_waiters(&mut self) {
        std::mem::take(&mut self.waiters).into_iter().for_each(|waiter| self.answer(waiter));
    }

    /// Shows the status first: whoever has the answer reads the result there.
    fn answer(&mut self, waiter: oneshot::Sender<()>) {
        self.show_status();
        self.push(Effect::Reply(waiter));
    }

    /// WeChat wants no call before the next planned one (with 89503 it messages a person at each call), or an operator
    /// has to act: a client's report causes no earlier call.
    pub(super) fn is_barred(&self) -> bool {
        let waits = matches!(self.status.state, CredentialState::Waiting | CredentialState::Blocked);
        waits && self.now_ms() < self.next_try_ms
    }

    /// Gives back the budget of a client's verification if the client was right.
    pub(super) fn refund_justified_verification(&mut self, cause: Cause, outcome: &FetchOutcome) {
        if cause != Cause::Client {
            return;
        }
        let was_right = match outcome {
            FetchOutcome::Probed { probe, .. } => matches!(probe, Probe::Dead(_)),
            FetchOutcome::Answered { token, probe, .. } => {
                matches!(probe, Some(Probe::Dead(_))) || !self.holds(&token.value)
            }
            FetchOutcome::Prevented(CallPrevented::LeaseDenied(..)) => false,
            FetchOutcome::NoParentToken | FetchOutcome::Cancelled | FetchOutcome::Prevented(_) => true,
            FetchOutcome::Failed { failure, .. } => failure.delivery == Delivery::NotSent,
        };
        if was_right {
            self.push(Effect::RefundClient);
        }
    }

    /// Sets the probe timer to the earliest reason for a probe.
    pub(super) fn plan_probe(&mut self) {
        let now_ms = self.now_ms();
        if self.credential_type.probe.is_none() || self.follows {
            return self.push(Effect::SetTimer(Timer::Probe, None));
        }
        // Probes because of lost calls are at least this far apart.
        let spaced = self.probes.last_ms.map_or(0, |last| last + self.renewal_state.overlap_ms() / 30);
        let doubt = self.renewal_state.lost_call_probe_ms(now_ms).map(|at_ms| at_ms.max(spaced));
        let reasons = [self.probes.wanted_ms, self.probes.next_ms, doubt];
        let at_ms = reasons.into_iter().flatten().min();
        let next_ms = reasons.into_iter().chain([self.probes.queued_probe_ms]).flatten().min();
        self.update_status(|status| status.next_probe_boot_ms = next_ms);
        self.push(Effect::SetTimer(Timer::Probe, at_ms));
    }

    /// Starts the interval of regular probes: the value is new or was just accepted.
    pub(super) fn set_next_probe(&mut self) {
        // In a cluster the node that has renewed the value probes it.
        if !self.is_renewed_here() {
            self.probes.next_ms = None;
            return;
        }
        let now_ms = self.now_ms();
        let every_ms = self.renewal_state.adopted.map(|_| ADOPTED_PROBE_MS).or(self.probes.every_ms);
        self.probes.next_ms = every_ms.map(|every| now_ms + every - (every as f64 * 0.1 * fastrand::f64()) as u64);
    }

    pub(super) fn on_probe_timer(&mut self) {
        // The end of the fetch plans the next probe.
        if self.is_busy() {
            return;
        }
        let now_ms = self.now_ms();
        self.probes.wanted_ms = self.probes.wanted_ms.filter(|at_ms| *at_ms > now_ms);
        self.set_next_probe();
        if !self.is_live(now_ms) && !self.renewal_state.is_withdrawn() {
            return self.plan_probe();
        }
        // Not counted among `checks`, so that a client's report right after it is verified.
        self.start_fetch(FetchPurpose::Probe, Cause::Own);
    }

    /// True if the probe queue decides when the value is probed.
    pub(in crate::credential) fn is_probed_by_queue(&self) -> bool {
        self.probes.is_queued && self.plan.credential_type.probe.is_some() && !self.follows
    }

    /// Whether the queue may probe the value now.
    pub(in crate::credential) fn probe_readiness(&self, now: Now) -> ProbeReadiness {
        let left_ms = self.renewal_state.left_ms(now.boot_ms);
        let tries = if now.unix_ms < self.usage.day_ends_unix_ms() { self.usage.probes_today() } else { 0 };
        // In a cluster the node that has renewed the value probes it.
        if !self.is_renewed_here()
            || left_ms < END_AWAY_MS
            || self.credential_type.probe.is_none()
            || tries >= PER_DAY_MAX
        {
            return ProbeReadiness::Later;
        }
        let free = !self.is_busy() && self.next_try_ms >= now.boot_ms + RENEWAL_AWAY_MS;
        if free { ProbeReadiness::Now } else { ProbeReadiness::Soon }
    }

    /// Readers on other nodes cannot be seen here.
    pub(in crate::credential) fn is_read_elsewhere(&self) -> bool {
        self.share.is_some()
    }

    pub(super) fn on_probe_picked(&mut self, again_ms: BootMs) {
        self.probes.queued_probe_ms = Some(again_ms);
        self.start_fetch(FetchPurpose::Probe, Cause::ProbeQueue);
    }

    /// A fetch has ended or has panicked. If it was a probe of the queue, the next one may start.
    pub(super) fn end_queued_probe(&mut self, ended: &Activity) {
        if matches!(ended, Activity::Fetching(fetching) if fetching.cause == Cause::ProbeQueue) {
            self.push(Effect::QueuedProbeEnded);
        }
    }

    /// Counts probes. The count is written with the next change of the state.
    pub(super) fn count_probes(&mut self, probes: u64) {
        if probes > 0 {
            self.usage.count_probes(self.turn.now.unix_ms, probes);
            self.update_status(|status| status.probes += probes);
            self.show_usage(0);
        }
    }

    /// Takes the result of a probe of the present value. If the value is refused, a fetch of a new one follows.
    pub(super) fn on_probed(&mut self, probe: Probe, sent_ms: BootMs) {
        self.probes.last_ms = Some(self.now_ms());
        self.push(Effect::ProbeAnswered { is_withheld: matches!(probe, Probe::Withheld(_)) });
        log_credential!(debug, self, ?probe, "token probed");
        match probe {
            Probe::Alive => self.on_accepted(sent_ms),
            Probe::Dead(errcode) if !self.renewal_state.is_withdrawn() => {
                self.withdraw(errcode);
                if !self.is_barred() {
                    return self.start_fetch(FetchPurpose::Replace, Cause::Own);
                }
                self.end_wait();
            }
            Probe::Withheld(errcode) => self.log_probe_withheld(errcode),
            Probe::Dead(_) | Probe::Unknown => {}
        }
        self.plan_next_probe();
        self.resume_schedule();
    }

    /// Logs that the platform does not answer the probe call.
    fn log_probe_withheld(&mut self, errcode: i64) {
        if self.probes.withheld.allow(errcode, self.turn.now.boot_ms, WITHHELD_LOG_AGAIN_MS).is_none() {
            return;
        }
        let row = self.credential_type.probe.and_then(|call| errcodes::find(call.api(), errcode));
        let advice = row.map_or(errcodes::PROBE_RIGHT, |row| &row.advice);
        log_credential!(
            info,
            self,
            errcode,
            advice,
            "the probe call was not answered, which says nothing about the token; probing less often"
        );
    }

    /// A withdrawn value is probed now and then: the refusal may have been a false alarm.
    fn plan_next_probe(&mut self) {
        if self.renewal_state.is_withdrawn() {
            let at_ms = self.renewal_state.record_refused_again(self.turn.now.boot_ms, fastrand::f64());
            self.probes.wanted_ms = Some(at_ms);
        }
    }

    fn on_accepted(&mut self, sent_ms: BootMs) {
        let withdrawn = self.renewal_state.is_withdrawn();
        if self.renewal_state.record_accepted(sent_ms)
            && let Some(published) = self.adjust_expiry()
        {
            self.save(&published);
        }
        if withdrawn {
            log_credential!(info, self, "WeChat accepts the token again, serving it");
            self.record_event(JournalEvent::AcceptedAgain);
            self.set_healthy();
            self.tell_dependents();
        }
    }

    /// WeChat refuses the value: it is not served any more. Readers wait for the next one.
    fn withdraw(&mut self, errcode: i64) {
        self.record_early_death(Some(errcode), self.renewal_state.has_lost_calls());
        self.record_event(JournalEvent::DiedEarly { errcode: Some(errcode) });
        self.renewal_state.withdraw(self.turn.now.boot_ms);
        if let Some(published) = self.withdraw_held() {
            self.save(&published);
        }
        self.plan_next_probe();
    }

    /// WeChat has answered with the value that we have. False if the value is refused, by this probe or an earlier one;
    /// then the next step has been started.
    pub(super) fn on_same_value(&mut self, purpose: FetchPurpose, probe: Option<Probe>, received_ms: BootMs) -> bool {
        match probe {
            Some(Probe::Alive) if self.renewal_state.is_withdrawn() => {
                self.on_accepted(received_ms);
                true
            }
            Some(Probe::Dead(errcode)) => {
                self.on_refused_value_answered(purpose, errcode);
                false
            }
            None | Some(Probe::Unknown | Probe::Withheld(_)) if self.renewal_state.is_withdrawn() => {
                self.wait_for_new_value(None);
                false
            }
            _ => true,
        }
    }

    fn on_refused_value_answered(&mut self, purpose: FetchPurpose, errcode: i64) {
        self.update_status(|status| status.dead_but_same += 1);
        if !self.renewal_state.is_withdrawn() {
            self.withdraw(errcode);
        }
        // Forced refreshes close together have no effect, so one that returned the same value is not repeated.
        if self.credential_type.can_force && purpose != FetchPurpose::Force {
            log_credential!(error, self, errcode, "{HANDED_OUT}; requesting a forced refresh");
            self.start_fetch(FetchPurpose::Force, Cause::Own);
        } else {
            self.wait_for_new_value(Some(errcode));
        }
    }

    /// There is no value to serve; plans the next fetch.
    pub(super) fn wait_for_new_value(&mut self, errcode: Option<i64>) {
        let now_ms = self.now_ms();
        let next_ms = self.renewal_state.record_refused_again(now_ms, fastrand::f64());
        let error = LastError {
            errcode,
            class: FailureClass::Operator,
            rid: None,
            text: HANDED_OUT.to_owned(),
            meaning: None,
            advice: RESET_IT.into(),
            network: None,
            seen_ip: None,
            at_boot_ms: now_ms,
        };
        if errcode.is_some() {
            log_credential!(error, self, errcode, advice = RESET_IT, "{HANDED_OUT}");
            self.record_event(error.event());
        }
        self.update_status(|status| (status.state, status.last_error) = (CredentialState::Dead, Some(error)));
        self.end_wait();
        self.set_renewal_timer(next_ms);
        self.end_fetch();
    }

    /// If a verification returns a new value before the old one was due, another program has renewed it.
    pub(super) fn detect_foreign_fetch(&mut self, purpose: FetchPurpose, token: &Token) {
        let now_ms = self.now_ms();
        let left_ms = self.renewal_state.left_ms(now_ms);
        let replaced = self.held.as_ref().is_some_and(|held| held.value != token.value);
        if purpose == FetchPurpose::Verify && replaced && left_ms > 0 && !self.renewal_state.is_due_soon(now_ms) {
            self.record_early_death(None, false);
            self.record_event(JournalEvent::DiedEarly { errcode: None });
        }
    }
}
