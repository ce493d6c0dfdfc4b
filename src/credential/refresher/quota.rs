//! Driver: quotas. Counts a call before it is sent, gives back a call that was not sent, and plans what follows when a
//! quota forbids a call.

use super::Driver;
use crate::clock::BootMs;
use crate::cluster::record::StoreMs;
use crate::credential::fetch_task::{FetchOutcome, FetchPurpose};
use crate::credential::quota_usage::{CallReason, QuotaExceeded, QuotaLimit, QuotaUsage};
use crate::credential::schedule::BACKOFF_FLOOR_MS;
use crate::credential::shared_counts::{CountsRejected, SharedCounts};
use crate::credential::slot::CredentialSlot;
use crate::credential::table::{CredentialId, log_credential};
use crate::platform::{Delivery, Failure};

impl CredentialSlot {
    /// What a call is counted as; none if it is not counted. A probe is no call of the endpoint. Only calls of the
    /// configured endpoint are counted; the quota of a fallback endpoint is large.
    pub(super) fn charged_as(&self, purpose: FetchPurpose, now_ms: BootMs) -> Option<CallReason> {
        if self.credential_type != self.configured_type {
            return None;
        }
        Some(match purpose {
            FetchPurpose::Probe => return None,
            FetchPurpose::Force => CallReason::Forced,
            FetchPurpose::Verify | FetchPurpose::Replace => CallReason::Verification,
            FetchPurpose::Renew if self.renewal_state.left_ms(now_ms) <= self.expiring_ms() => CallReason::Expiring,
            FetchPurpose::Renew => CallReason::Renewal,
        })
    }

    /// Adds what other nodes have counted, if it has a valid seal.
    pub(super) fn count_others(&mut self, text: &str, store_ms: StoreMs) -> Result<(), CountsRejected> {
        let Some(share) = &self.share else { return Ok(()) };
        let counts = SharedCounts::from_text(text, &share.handle.seal, &self.quota, store_ms)?;
        self.usage.merge(&counts.calls);
        self.show_usage(0);
        Ok(())
    }

    /// The platform decides whether the quota is used up, not the count of the nodes. If the token has ended or is
    /// about to, the platform is called in spite of the count, now and then. Records that and returns true if it is
    /// time.
    fn try_overrule_quota(&mut self, now_ms: BootMs) -> bool {
        let dying = self.renewal_state.left_ms(now_ms) <= self.expiring_ms();
        let Some(share) = self.share.as_mut().filter(|_| dying) else { return false };
        let may = share.quota_overruled_ms.is_none_or(|answered_ms| now_ms >= answered_ms + OVERRULE_QUOTA_EVERY_MS);
        if may {
            (share.quota_overruled_ms, share.may_exceed_quota) = (Some(now_ms), true);
        }
        may
    }
}

const OVERRULE_QUOTA_EVERY_MS: u64 = 600_000;

/// The longest wait for a quota that is used up.
const DENIED_WAIT_MS: u64 = 3_600_000;

impl Driver {
    /// Counts the call that is about to be made, or says which limit forbids it.
    pub(super) fn try_charge_quota(&mut self, id: CredentialId, purpose: FetchPurpose) -> Result<(), QuotaExceeded> {
        let slot = &mut self.refresher.slots[id];
        // In a cluster the call is counted when the counts of the other nodes are known.
        let Some(why) = slot.charged_as(purpose, self.refresher.clock.boot_ms()).filter(|_| slot.share.is_none())
        else {
            return Ok(());
        };
        // Another process has written the state file until now.
        if let Some(calls) =
            self.refresher.state_writer.as_ref().and_then(|state_writer| state_writer.take_usage_elsewhere(id))
        {
            slot.usage.merge(&calls);
        }
        let charge = slot.usage.try_charge(&slot.quota, self.refresher.clock.unix_ms(), why);
        slot.charge = charge.as_ref().ok().copied();
        slot.show_usage(u64::from(charge.is_err()));
        self.persist_usage(id);
        charge.map(drop)
    }

    /// Gives back a call that was not sent: a probe, or a failure before the call.
    pub(super) fn refund_unsent_call(&mut self, id: CredentialId, outcome: &FetchOutcome, is_adopted: bool) {
        let slot = &mut self.refresher.slots[id];
        let Some(charge) = slot.charge.take() else { return };
        let unsent = match outcome {
            FetchOutcome::Probed { .. } | FetchOutcome::NoParentToken | FetchOutcome::Cancelled => true,
            FetchOutcome::Failed { failure, .. } => failure.delivery == Delivery::NotSent,
            FetchOutcome::Answered { .. } => is_adopted,
            FetchOutcome::LeaseDenied { .. }
            | FetchOutcome::LeaseExpired
            | FetchOutcome::QuotaExceeded(_)
            | FetchOutcome::StoreUnreachable(_) => true,
        };
        if unsent {
            slot.usage.refund(charge);
            slot.show_usage(0);
            self.persist_usage(id);
        }
    }

    /// Takes over the counts of all nodes from a fetch.
    pub(super) fn adopt_usage(&mut self, id: CredentialId, usage: Option<QuotaUsage>) {
        if let Some(usage) = usage {
            let slot = &mut self.refresher.slots[id];
            slot.usage = usage;
            slot.show_usage(0);
            self.persist_usage(id);
        }
    }

    fn persist_usage(&self, id: CredentialId) {
        if let Some(state_writer) = &self.refresher.state_writer {
            state_writer.record_usage(id, &self.refresher.slots[id].usage);
        }
    }

    /// A quota forbids the call. The value is still served. The next fetch is when the period has ended, or when the
    /// value is so near its end that it may use the reserve; at least once an hour, because the wall clock may be set.
    pub(super) fn on_quota_exceeded(&mut self, id: CredentialId, purpose: FetchPurpose, denied: &QuotaExceeded) {
        let now = self.refresher.clock.now();
        let slot = &mut self.refresher.slots[id];
        let left_ms = slot.renewal_state.left_ms(now.boot_ms);
        let failure = Failure::quota_used_up(slot.credential_type.api, &slot.appid, denied.to_string());
        let period_end_ms = u64::try_from(denied.until_unix_ms.saturating_sub(now.unix_ms)).unwrap_or(0);
        let wait_ms = match purpose {
            FetchPurpose::Verify | FetchPurpose::Probe => {
                let next_ms = match slot.next_try_ms {
                    next_ms if next_ms > now.boot_ms => next_ms,
                    _ => slot.renewal_state.first_try_ms(now.boot_ms, fastrand::f64()),
                };
                slot.log_failure(&failure, &failure.advice(), now.boot_ms, next_ms, left_ms > 0);
                self.set_renewal_timer(id, next_ms);
                return self.end_fetch(id);
            }
            // Polls and probes go on: WeChat may replace the value by itself.
            FetchPurpose::Force => return self.wait_for_new_value(id, None),
            // Values end faster than the quota allows: the calls that are left are spread over the rest of the day.
            FetchPurpose::Replace if denied.limit == QuotaLimit::Verifications => {
                period_end_ms / slot.calls_left().max(1)
            }
            FetchPurpose::Renew | FetchPurpose::Replace => {
                if matches!(denied.limit, QuotaLimit::Day | QuotaLimit::Renewals) && slot.begin_fallback(now.unix_ms) {
                    self.record_fallback(id);
                    return self.start_fetch(id, purpose);
                }
                if slot.try_overrule_quota(now.boot_ms) {
                    log_credential!(
                        warn,
                        slot.credential,
                        "quota used up by the nodes' own count ({denied}), but the token has expired or is about to: \
                         fetching anyway"
                    );
                    return self.start_fetch(id, purpose);
                }
                let reserve_ms = left_ms.checked_sub(slot.expiring_ms()).filter(|ms| *ms > 0).unwrap_or(DENIED_WAIT_MS);
                let spread_ms = fastrand::u64(0..=period_end_ms.min(DENIED_WAIT_MS) / 60);
                (period_end_ms + spread_ms).min(reserve_ms)
            }
        };
        let next_ms = now.boot_ms + wait_ms.clamp(BACKOFF_FLOOR_MS, DENIED_WAIT_MS);
        slot.show_failure(&failure, now.boot_ms, next_ms);
        slot.credential.end_wait();
        self.record_failed_event(id, &failure);
        self.set_renewal_timer(id, next_ms);
        self.end_fetch(id);
    }
}
