//! Quotas. Counts a call before it is sent, gives back a call that was not sent, and plans what follows when a quota
//! forbids a call.

use super::Actor;
use super::fetching::Cause;
use crate::credential::fetch_task::{FetchOutcome, FetchPurpose};
use crate::credential::quota_usage::{CallReason, ChargedCall, QuotaExceeded, QuotaLimit, QuotaUsage};
use crate::credential::schedule::{BACKOFF_FLOOR_MS, ms_to_next_day};
use crate::credential::table::{Event as JournalEvent, log_credential};
use crate::platform::{CredentialType, Delivery, Failure};

/// The longest wait for a quota that is used up.
const DENIED_WAIT_MS: u64 = 3_600_000;

impl Actor {
    /// What a call is counted as; none if it is not counted. A probe is no call of the endpoint. Only calls of the
    /// configured endpoint are counted; the quota of a fallback endpoint is large.
    pub(super) fn charged_as(&self, purpose: FetchPurpose) -> Option<CallReason> {
        if self.credential_type != self.plan.credential_type {
            return None;
        }
        Some(match purpose {
            FetchPurpose::Probe => return None,
            FetchPurpose::Force => CallReason::Forced,
            FetchPurpose::Verify | FetchPurpose::Replace => CallReason::Verification,
            FetchPurpose::Renew if self.renewal_state.left_ms(self.now_ms()) <= self.expiring_ms() => {
                CallReason::Expiring
            }
            FetchPurpose::Renew => CallReason::Renewal,
        })
    }

    /// A value with so little left may be renewed from the quota's reserve.
    pub(super) fn expiring_ms(&self) -> u64 {
        self.renewal_state.overlap_ms() / 2
    }

    /// Counts the call that is about to be made, or says which limit forbids it.
    pub(super) fn try_charge_quota(&mut self, purpose: FetchPurpose) -> Result<Option<ChargedCall>, QuotaExceeded> {
        // In a cluster the call is counted when the counts of the other nodes are known.
        let Some(why) = self.charged_as(purpose).filter(|_| self.share.is_none()) else { return Ok(None) };
        let charge = self.usage.try_charge(&self.plan.quota, self.turn.now.unix_ms, why);
        self.show_usage(u64::from(charge.is_err()));
        self.save_usage();
        charge.map(Some)
    }

    /// Gives back a call that was not sent: a probe, or a failure before the call.
    pub(super) fn refund_unsent_call(&mut self, charge: Option<ChargedCall>, outcome: &FetchOutcome, is_adopted: bool) {
        let Some(charge) = charge else { return };
        let unsent = match outcome {
            FetchOutcome::Probed { .. }
            | FetchOutcome::NoParentToken
            | FetchOutcome::Cancelled
            | FetchOutcome::Prevented(_) => true,
            FetchOutcome::Failed { failure, .. } => failure.delivery == Delivery::NotSent,
            FetchOutcome::Answered { .. } => is_adopted,
        };
        if unsent {
            self.usage.refund(charge);
            self.show_usage(0);
            self.save_usage();
        }
    }

    /// False while a fetch runs that will bring the counts of all nodes: they replace these, and what another process
    /// has counted would be lost.
    pub(in crate::credential) fn takes_counts(&self) -> bool {
        self.share.is_none() || !self.is_busy()
    }

    /// Takes over the counts of all nodes from a fetch.
    pub(super) fn adopt_usage(&mut self, usage: Option<QuotaUsage>) {
        if let Some(usage) = usage {
            self.usage = usage;
            self.show_usage(0);
            self.save_usage();
        }
    }

    pub(super) fn show_usage(&mut self, denied: u64) {
        let (calls_today, day_ends_unix_ms) = (self.usage.calls_today(), self.usage.day_ends_unix_ms());
        let (probes_today, calls_quota) = (self.usage.probes_today(), self.plan.quota.per_day);
        self.update_status(|status| {
            (status.calls_today, status.day_ends_unix_ms) = (calls_today, day_ends_unix_ms);
            status.calls_quota = calls_quota;
            status.calls_denied += denied;
            status.probes_today = probes_today;
        });
    }

    /// A quota forbids the call. The value is still served. The next fetch is when the period has ended, or when the
    /// value is so near its end that it may use the reserve; at least once an hour, because the wall clock may be set.
    pub(super) fn on_quota_exceeded(&mut self, purpose: FetchPurpose, denied: &QuotaExceeded) {
        let now = self.turn.now;
        let left_ms = self.renewal_state.left_ms(now.boot_ms);
        let failure = Failure::quota_used_up(self.credential_type.api, &self.plan.appid, denied.to_string());
        let period_end_ms = u64::try_from(denied.until_unix_ms.saturating_sub(now.unix_ms)).unwrap_or(0);
        let wait_ms = match purpose {
            FetchPurpose::Verify | FetchPurpose::Probe => {
                let next_ms = self.scheduled_ms();
                self.log_failure(&failure, &failure.advice(), next_ms, left_ms > 0);
                self.set_renewal_timer(next_ms);
                return self.end_fetch();
            }
            // Polls and probes go on: WeChat may replace the value by itself.
            FetchPurpose::Force => return self.wait_for_new_value(None),
            // Values end faster than the quota allows: the calls that are left are spread over the rest of the day.
            FetchPurpose::Replace if denied.limit == QuotaLimit::Verifications => {
                period_end_ms / self.calls_left().max(1)
            }
            FetchPurpose::Renew | FetchPurpose::Replace => {
                if matches!(denied.limit, QuotaLimit::Day | QuotaLimit::Renewals) && self.begin_fallback() {
                    return self.start_fetch(purpose, Cause::Own);
                }
                if self.try_overrule_quota() {
                    log_credential!(
                        warn,
                        self,
                        "quota used up by the nodes' own count ({denied}), but the token has expired or is about to: \
                         fetching anyway"
                    );
                    return self.send_fetch(purpose, Cause::Own, None, None);
                }
                let reserve_ms = left_ms.checked_sub(self.expiring_ms()).filter(|ms| *ms > 0).unwrap_or(DENIED_WAIT_MS);
                let spread_ms = fastrand::u64(0..=period_end_ms.min(DENIED_WAIT_MS) / 60);
                (period_end_ms + spread_ms).min(reserve_ms)
            }
        };
        let next_ms = now.boot_ms + wait_ms.clamp(BACKOFF_FLOOR_MS, DENIED_WAIT_MS);
        self.show_failure(&failure, next_ms);
        self.end_wait();
        self.quota_wait_until_ms = Some(next_ms);
        self.set_renewal_timer(next_ms);
        self.end_fetch();
    }

    /// Goes by the quota and the fallback that are configured now. A wait for the old quota ends, and so does a fallback that is not
    /// configured any more; if a fetch runs with that, before the next one.
    pub(super) fn change_quota(&mut self, is_changed: bool) {
        self.show_usage(0);
        if self.fallback_until_unix_ms.is_some() && self.plan.fallback != Some(self.credential_type) {
            self.fallback_until_unix_ms = Some(self.turn.now.unix_ms);
        }
        if self.is_busy() {
            return;
        }
        self.end_fallback();
        if is_changed && self.quota_wait_until_ms == Some(self.next_try_ms) {
            self.set_renewal_timer(self.now_ms());
        }
    }

    /// Calls that are left of today's quota.
    fn calls_left(&self) -> u64 {
        self.plan.quota.per_day.map_or(u64::MAX, |per_day| per_day.saturating_sub(self.usage.calls_today()))
    }

    /// Starts the fallback endpoint because today's quota is used up. True if there is one; it is used until midnight.
    pub(super) fn begin_fallback(&mut self) -> bool {
        let Some(fallback) = self.plan.fallback.filter(|fallback| self.credential_type != *fallback) else {
            return false;
        };
        let unix_ms = self.turn.now.unix_ms;
        self.fallback_until_unix_ms = Some(unix_ms.saturating_add_unsigned(ms_to_next_day(unix_ms)));
        self.set_type(fallback);
        log_credential!(warn, self, endpoint = fallback.id, "today's quota is used up: using the fallback endpoint");
        self.record_event(JournalEvent::Fallback { endpoint: fallback.id });
        true
    }

    pub(super) fn end_fallback(&mut self) {
        if self.fallback_until_unix_ms.is_some_and(|until| self.turn.now.unix_ms >= until) {
            self.fallback_until_unix_ms = None;
            self.set_type(self.plan.credential_type);
        }
    }

    fn set_type(&mut self, credential_type: &'static CredentialType) {
        self.credential_type = credential_type;
        self.renewal_state.renewal = credential_type.renewal;
        self.update_status(|status| status.endpoint = credential_type.id);
    }
}
