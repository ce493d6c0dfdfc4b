//! The driver's dealings with quotas: counts a call before it is sent, takes back what was never sent, and plans what
//! becomes of a call that a quota forbids.

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
    /// What a call is counted as; none if it is not. A probe is no call of the endpoint. The usage is that of the
    /// configured one; a stand-in's quota is far away.
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

    /// What other nodes have counted, if that can be believed.
    pub(super) fn count_others(&mut self, text: &str, store_ms: StoreMs) -> Result<(), CountsRejected> {
        let Some(share) = &self.share else { return Ok(()) };
        let counts = SharedCounts::from_text(text, &share.handle.seal, &self.quota, store_ms)?;
        self.usage.merge(&counts.calls);
        self.show_usage(0);
        Ok(())
    }

    /// The platform decides whether the quota is used up, not what nodes have counted. Where the token is about to end,
    /// or is gone, the platform is asked in spite of the count, once in a while. True if now.
    fn try_overrule_quota(&mut self, now_ms: BootMs) -> bool {
        let dying = self.renewal_state.left_ms(now_ms) <= self.expiring_ms();
        let Some(share) = self.share.as_mut().filter(|_| dying) else { return false };
        let may = share.quota_overruled_ms.is_none_or(|asked_ms| now_ms >= asked_ms + OVERRULE_QUOTA_EVERY_MS);
        if may {
            (share.quota_overruled_ms, share.overrules_quota) = (Some(now_ms), true);
        }
        may
    }
}

const OVERRULE_QUOTA_EVERY_MS: u64 = 600_000;

/// Longest wait for a quota that is used up.
const DENIED_WAIT_MS: u64 = 3_600_000;

impl Driver {
    /// Counts the call about to be made, ahead of everything that writes the state.
    pub(super) fn try_charge_quota(&mut self, id: CredentialId, purpose: FetchPurpose) -> Result<(), QuotaExceeded> {
        let slot = &mut self.refresher.slots[id];
        // With other nodes the call is counted when it is known what these have spent.
        let Some(why) = slot.charged_as(purpose, self.refresher.clock.boot_ms()).filter(|_| slot.share.is_none())
        else {
            return Ok(());
        };
        // Another process has written the state until now.
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

    /// A call that was never sent is not counted: probes, which are no calls of this endpoint, and failures before.
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

    /// The calls of all nodes, as the fetch left them.
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

    /// A quota forbids the call. The value is served on; asking again comes when the period has turned, or when the
    /// value is so near its end that it may have the reserve, and at least hourly: the wall clock may be set.
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
                self.arm(id, next_ms);
                return self.finish(id);
            }
            // It is asked and tried as before: WeChat may replace the value by itself.
            FetchPurpose::Force => return self.wait_for_new_value(id, None),
            // Values die faster than the quota allows: what is left of the day's calls lasts for what is left of the day.
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
                        "by the nodes' own count {denied}; the token is about to end or is gone, so the platform is asked all the same"
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
        self.arm(id, next_ms);
        self.finish(id);
    }
}
