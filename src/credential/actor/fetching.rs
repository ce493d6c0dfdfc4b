//! The way of a renewal: the timer, the call, its outcome, the value for the readers or the next try.

use super::{Actor, Effect};
use crate::clock::{BootMs, Now};
use crate::cluster::Unreachable;
use crate::credential::cluster_fetch::{CallPrevented, SharingResult};
use crate::credential::fetch_task::{Adoption, FetchOrder, FetchOutcome, FetchPurpose, FetchReport, Intent};
use crate::credential::generation;
use crate::credential::quota_usage::{CallReason, ChargedCall};
use crate::credential::schedule::{Adopted, RenewalAnswer};
use crate::credential::table::{CredentialState, Event as JournalEvent, Published, log_credential};
use crate::platform::{Class, Delivery, Failure, Probe, Renewal, Token, Wait};
use crate::secret::Secret;

/// The longest time a classic value waits for the disk; see [`Actor::publish_after_saving`].
const SAVE_WAIT_MS: u64 = 1_000;
/// The same if there is no value to serve meanwhile and readers wait.
const SAVE_WAIT_OF_NOTHING_MS: u64 = 200;

/// What goes on. One thing at a time.
pub(super) enum Activity {
    Idle,
    /// It was added while a call for an app of the same name still runs. It starts when that has ended.
    AwaitingEarlierCall,
    Fetching(Fetching),
    /// A new classic value is being written, before readers get it.
    Saving(Published),
    /// Another node was asked to renew or to verify.
    AskingOthers,
}

/// A fetch that runs.
pub(super) struct Fetching {
    pub purpose: FetchPurpose,
    pub cause: Cause,
    /// The call as it was counted.
    pub charge: Option<ChargedCall>,
    /// Another node's value was taken over meanwhile: the fetch has nothing left to do.
    pub is_superseded: bool,
}

/// What has caused a fetch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Cause {
    /// The schedule, an operator, or what came of another fetch.
    Own,
    /// A client's report or write. Its verification was charged.
    Client,
    ProbeQueue,
}

/// A fetched value, and what is known about it.
struct ReceivedToken {
    purpose: FetchPurpose,
    token: Token,
    sent_ms: BootMs,
    received_ms: BootMs,
    probe: Option<Probe>,
    /// The site itself has fetched it.
    adopted: Option<Adopted>,
    /// Its generation in the cluster, and why the other nodes do not have it yet; none outside a cluster.
    generation: Option<(u64, Option<Unreachable>)>,
}

impl Actor {
    pub(super) fn is_busy(&self) -> bool {
        !matches!(self.activity, Activity::Idle)
    }

    pub(super) fn on_renewal_timer(&mut self) {
        if self.is_busy() {
            // The end of a running fetch sets the next timer, and that of anything else does what is overdue.
            self.is_renewal_overdue = true;
            return;
        }
        if self.follows {
            return self.check_followed_value();
        }
        self.end_fallback();
        let purpose = match self.urgent.take() {
            Some(FetchPurpose::Verify) if self.is_live(self.now_ms()) => FetchPurpose::Verify,
            _ => FetchPurpose::Renew,
        };
        if !purpose.only_probes(self.credential_type) && self.lacks_parent_token() {
            return self.wait_for_parent_token();
        }
        self.start_fetch(purpose, Cause::Own);
    }

    /// At most one fetch runs: callers check [`Actor::is_busy`] first.
    pub(super) fn start_fetch(&mut self, purpose: FetchPurpose, cause: Cause) {
        if self.follows {
            return self.request_refresh(purpose);
        }
        let charge = match self.try_charge_quota(purpose) {
            Ok(charge) => charge,
            Err(denied) => {
                if cause == Cause::Client {
                    self.push(Effect::RefundClient);
                }
                return self.on_quota_exceeded(purpose, &denied);
            }
        };
        self.send_fetch(purpose, cause, charge, self.charged_as(purpose));
    }

    /// `charge`: the call as it was counted here. `charged_as`: as what it is counted in a cluster.
    pub(super) fn send_fetch(
        &mut self,
        purpose: FetchPurpose,
        cause: Cause,
        charge: Option<ChargedCall>,
        charged_as: Option<CallReason>,
    ) {
        let only_probes = purpose.only_probes(self.credential_type);
        let intent = if only_probes { None } else { self.intent() };
        let cluster_context = if only_probes { None } else { self.cluster_fetch_context(purpose, charged_as) };
        self.activity = Activity::Fetching(Fetching { purpose, cause, charge, is_superseded: false });
        let is_queued = cause == Cause::ProbeQueue;
        let time_limit_ms = match cause {
            Cause::ProbeQueue => self.next_try_ms.saturating_sub(self.now_ms()),
            Cause::Own | Cause::Client => self.limits.total_timeout_ms,
        };
        self.update_status(|status| {
            status.checks += u64::from(matches!(purpose, FetchPurpose::Verify | FetchPurpose::Probe) && !is_queued);
            status.forced += u64::from(purpose == FetchPurpose::Force);
            if !only_probes && !matches!(status.state, CredentialState::Blocked | CredentialState::Waiting) {
                status.state = CredentialState::Renewing;
            }
        });
        let may_adopt = matches!(purpose, FetchPurpose::Renew | FetchPurpose::Replace);
        let order = FetchOrder {
            purpose,
            plan: self.plan.clone(),
            credential_type: self.credential_type,
            parent: self.parent.clone(),
            grant: self.grant.clone(),
            held: self.held.as_ref().map(|held| held.value.clone()),
            renewal_state: self.renewal_state.clone(),
            total_timeout_ms: self.limits.total_timeout_ms,
            adopts_from: self.adopts_from.clone().filter(|_| may_adopt),
            time_limit_ms,
            is_queued_probe: is_queued,
            intent,
            cluster_context,
        };
        self.push(Effect::Fetch(Box::new(order)));
    }

    /// For classic tokens only: a note in the state file that a call is about to be sent. If the process is killed
    /// before the answer is written, the next start knows that the old value may end early.
    fn intent(&self) -> Option<Intent> {
        // In a cluster the note is in the cluster store, where all nodes see it.
        let here = self.credential_type.renewal == Renewal::Mint && self.share.is_none();
        // A value that was just withdrawn is being written. The note must not wait for the pause after that write.
        let is_urgent = self.renewal_state.is_withdrawn();
        (here && self.limits.keeps_state).then_some(Intent { unix_ms: self.turn.now.unix_ms, is_urgent })
    }

    /// The task of what goes on has panicked. A call ends as one without an answer, and so does a probe, which says
    /// nothing about the value then.
    pub(super) fn on_crash(&mut self) {
        let sent_ms = self.now_ms();
        match &self.activity {
            Activity::Fetching(Fetching { purpose, .. }) => {
                let outcome = match purpose.only_probes(self.credential_type) {
                    true => FetchOutcome::Probed { probe: Probe::Unknown, sent_ms },
                    false => FetchOutcome::Failed {
                        failure: Failure::transport(&self.plan.appid, Delivery::Ambiguous, "the fetch task panicked"),
                        sent_ms,
                    },
                };
                self.on_fetch_done(FetchReport::new(*purpose, outcome));
            }
            Activity::Saving(_) => self.publish_saved(),
            Activity::AskingOthers => self.end_fetch(),
            Activity::Idle | Activity::AwaitingEarlierCall => {}
        }
    }

    pub(super) fn on_fetch_done(&mut self, report: FetchReport) {
        let FetchReport { purpose, calls, probes, adoption, secret, refused_parent, usage, shared, outcome } = report;
        let adopted = self.record_adoption(adoption, &outcome);
        self.update_status(|status| status.calls += calls);
        let ended = std::mem::replace(&mut self.activity, Activity::Idle);
        self.end_queued_probe(&ended);
        let mut was_superseded = false;
        if let Activity::Fetching(Fetching { cause, charge, is_superseded, .. }) = ended {
            self.refund_unsent_call(charge, &outcome, adopted.is_some());
            self.refund_justified_verification(cause, &outcome);
            was_superseded = is_superseded;
        }
        self.adopt_usage(usage);
        self.count_probes(probes);
        if adopted.is_none() {
            self.record_fetch(purpose, &outcome);
        }
        self.record_lease(&outcome);
        match outcome {
            FetchOutcome::Answered { token, sent_ms, received_ms, probe } => {
                self.detect_foreign_fetch(purpose, &token);
                let generation = match shared {
                    SharingResult::NotShared => None,
                    SharingResult::Shared(generation, _) if self.is_superseded(generation, &token.value) => {
                        self.on_value_superseded(generation);
                        return self.end_fetch();
                    }
                    SharingResult::Shared(generation, unreachable) => Some((generation, unreachable)),
                    SharingResult::Refused(answer) => return self.on_publish_refused(&answer, sent_ms),
                };
                self.on_answer(ReceivedToken { purpose, token, sent_ms, received_ms, probe, generation, adopted });
            }
            FetchOutcome::Failed { mut failure, sent_ms } => {
                if let Some(generation) = refused_parent {
                    self.classify_refused_token(generation, &mut failure);
                }
                self.on_failure(purpose, secret, &failure, sent_ms);
                if let Some(generation) = refused_parent {
                    self.push(Effect::DoubtParent { generation });
                }
            }
            FetchOutcome::Probed { probe, sent_ms } => self.on_probed(probe, sent_ms),
            FetchOutcome::NoParentToken => {
                self.clear_intent();
                // It may have come since.
                match self.is_parent_live() {
                    true => self.set_renewal_timer(self.now_ms()),
                    false => self.wait_for_parent_token(),
                }
            }
            FetchOutcome::Prevented(why) => match why {
                CallPrevented::LeaseDenied(answer, next) => return self.on_lease_denied(&answer, next, was_superseded),
                CallPrevented::QuotaExceeded(denied) => return self.on_quota_exceeded(purpose, &denied),
                CallPrevented::StoreUnreachable(unreachable) => self.on_store_unreachable(purpose, &unreachable),
                CallPrevented::LeaseExpired => self.on_lease_expired(),
            },
            FetchOutcome::Cancelled => {
                self.clear_intent();
                self.resume_schedule();
            }
        }
        if !self.is_busy() {
            self.end_fetch();
        }
    }

    /// Sets the timer that a verification has interrupted.
    pub(super) fn resume_schedule(&mut self) {
        self.set_renewal_timer(self.scheduled_ms());
    }

    /// When the next renewal is planned; if that is not in the future, as computed anew.
    pub(super) fn scheduled_ms(&self) -> BootMs {
        let now_ms = self.now_ms();
        match self.next_try_ms {
            planned_ms if planned_ms > now_ms => planned_ms,
            _ => self.renewal_state.first_try_ms(now_ms, fastrand::f64()),
        }
    }

    /// Ends a fetch: whoever waits for a verification gets the answer.
    pub(super) fn end_fetch(&mut self) {
        self.activity = Activity::Idle;
        self.answer_waiters();
        if self.is_renewal_overdue {
            self.set_renewal_timer(self.now_ms());
        }
        self.offer_if_unpublished();
        self.try_replaced_secret();
        self.plan_probe();
    }

    /// Publishes a fetched value, or only takes in what its answer says if it is the present one.
    fn on_answer(&mut self, received: ReceivedToken) {
        let ReceivedToken { purpose, token, sent_ms, received_ms, probe, generation, adopted } = received;
        let same = self.holds(&token.value);
        if same && !self.on_same_value(purpose, probe, received_ms) {
            return;
        }
        let answer = RenewalAnswer {
            sent_ms,
            received_ms,
            expires_in_s: token.expires_in_s,
            lifetime_source: token.lifetime_source,
            same,
        };
        let mut next_ms = self.renewal_state.record_answer(&answer, fastrand::f64());
        if let Some(adopted) = adopted {
            next_ms = self.renewal_state.record_adopted(adopted, received_ms);
        }
        (self.blocked_with, self.refused_with) = (None, None);
        let known = self.generation();
        let own = if same { known } else { generation::next(known, generation::first(self.turn.now.unix_ms)) };
        let (generation, unreachable) = generation.unwrap_or((own, None));
        let expires_boot_ms = self.renewal_state.expires_ms.unwrap_or(sent_ms);
        self.update_status(|status| status.same_answers += u64::from(same));
        self.log_answer(&token, same, generation);
        if !same {
            // The planned probe was about the old value.
            self.probes.wanted_ms = None;
            self.record_replacement(received_ms);
            let received_ago = self.now_ms().saturating_sub(received_ms);
            self.fetched = Some(Now { boot_ms: received_ms, unix_ms: self.turn.now.unix_ms - received_ago as i64 });
            self.record_event(JournalEvent::Renewed { generation, expires_in_s: token.expires_in_s, from: None });
            self.record_publication(unreachable.as_ref());
        }
        let published = self.published(token.value, generation, expires_boot_ms);
        self.save(&published);
        self.set_healthy();
        self.set_renewal_timer(next_ms);
        self.set_next_probe();
        if !same && self.credential_type.renewal == Renewal::Mint && self.limits.keeps_state {
            return self.publish_after_saving(published);
        }
        self.publish_with_status(published);
        self.tell_dependents();
    }

    /// Stable values are published first and written afterwards: after a crash WeChat gives the same value again. A
    /// classic value cannot be fetched again. If it were published before it is on disk, a restart could serve the
    /// value before it, which ends in 5 minutes, to clients that have seen the new one. So it is written first, for a
    /// second at most (a quarter of the overlap for short lifetimes). During that time the old value is as good as the
    /// new one.
    fn publish_after_saving(&mut self, published: Published) {
        let now_ms = self.now_ms();
        let live = self.held.as_ref().is_some_and(|old| now_ms < old.expires_boot_ms);
        let wait_ms = match live {
            true => SAVE_WAIT_MS.min(self.renewal_state.overlap_ms() / 4),
            false => SAVE_WAIT_OF_NOTHING_MS,
        };
        self.activity = Activity::Saving(published);
        // If there is no value to serve, the pause between two writes is left out.
        self.push(Effect::AwaitSave { wait_ms, is_urgent: !live });
    }

    pub(super) fn publish_saved(&mut self) {
        if let Activity::Saving(published) = std::mem::replace(&mut self.activity, Activity::Idle)
            // A later value of another node may have arrived meanwhile.
            && published.generation >= self.generation()
        {
            self.publish_with_status(published);
            self.tell_dependents();
        }
        self.end_fetch();
    }

    /// The call has ended and its result is known: removes the note that it was about to be sent.
    fn clear_intent(&mut self) {
        if self.credential_type.renewal == Renewal::Mint && self.limits.keeps_state {
            self.push(Effect::ClearIntent);
        }
    }

    /// Records and logs a failure, and plans the next fetch. With a used-up quota the fetch continues at the fallback.
    pub(super) fn on_failure(
        &mut self,
        purpose: FetchPurpose,
        secret: Option<Secret>,
        failure: &Failure,
        sent_ms: BootMs,
    ) {
        let now = self.turn.now;
        let live = self.is_live(now.boot_ms);
        let harmless = purpose == FetchPurpose::Verify && self.credential_type.renewal != Renewal::Mint && live;
        let next_ms = if harmless {
            // The failed verification says nothing about the value, so its schedule stays.
            self.next_try_ms
        } else {
            self.renewal_state.record_failure(failure.class, failure.delivery, sent_ms, now, fastrand::f64())
        };
        self.blocked_with = matches!(failure.class, Class::Operator(_) | Class::Internal).then_some(secret);
        let shortened = self.adjust_expiry();
        self.show_failure(failure, next_ms);
        match shortened {
            // The earlier expiry is written now. It says as much as the note did.
            Some(published) => self.save(&published),
            None if failure.delivery != Delivery::Ambiguous => self.clear_intent(),
            None => {}
        }
        if failure.class == Class::Wait(Wait::NextDay) && self.begin_fallback() {
            return self.start_fetch(purpose, Cause::Own);
        }
        self.end_wait();
        self.set_renewal_timer(next_ms);
    }

    /// Logs whether the value was adopted. After the first value of our own, the place is not read any more.
    fn record_adoption(&mut self, adoption: Option<Adoption>, outcome: &FetchOutcome) -> Option<Adopted> {
        let adopted = match adoption {
            Some(Adoption::Done { place, adopted }) => {
                log_credential!(
                    info,
                    self,
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
                log_credential!(warn, self, from = place, error = reason, advice, "{fault}");
                None
            }
            None => None,
        };
        if adopted.is_none() && matches!(outcome, FetchOutcome::Answered { .. }) {
            self.adopts_from = None;
        }
        adopted
    }
}
