//! The driver's dealings with quotas: counts a call before it is sent, takes back what was never sent, and plans what
//! becomes of a call that a quota forbids.

use super::Driver;
use crate::clock::BootMs;
use crate::cluster::record::StoreMs;
use crate::credential::flight::{Outcome, Purpose};
use crate::credential::ledger::{Denied, Ledger, Limit, Use};
use crate::credential::policy::BACKOFF_FLOOR_MS;
use crate::credential::shared_counts::{Counts, CountsRejected};
use crate::credential::slot::Slot;
use crate::credential::table::{CredentialId, log_credential};
use crate::platform::{Failure, Sent};

impl Slot {
    /// What a call is counted as; none if it is not. A probe is no call of the endpoint. The ledger is that of the
    /// configured one; a stand-in's quota is far away.
    pub(super) fn charged_as(&self, purpose: Purpose, now_ms: BootMs) -> Option<Use> {
        if self.kind != self.own_kind {
            return None;
        }
        Some(match purpose {
            Purpose::Probe => return None,
            Purpose::Force => Use::Forced,
            Purpose::Check | Purpose::Replace => Use::Check,
            Purpose::Renew if self.standing.left_ms(now_ms) <= self.dying_ms() => Use::Dying,
            Purpose::Renew => Use::Renewal,
        })
    }

    /// What other nodes have counted, if that can be believed.
    pub(super) fn count_others(&mut self, text: &str, store_ms: StoreMs) -> Result<(), CountsRejected> {
        let Some(share) = &self.share else { return Ok(()) };
        let counts = Counts::from_text(text, &share.lane.seal, &self.quota, store_ms)?;
        self.ledger.merge(&counts.calls);
        self.show_ledger(0);
        Ok(())
    }

    /// The platform decides whether the quota is used up, not what nodes have counted. Where the token is about to end,
    /// or is gone, the platform is asked in spite of the count, once in a while. True if now.
    fn try_overrule_quota(&mut self, now_ms: BootMs) -> bool {
        let dying = self.standing.left_ms(now_ms) <= self.dying_ms();
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
    pub(super) fn charge(&mut self, id: CredentialId, purpose: Purpose) -> Result<(), Denied> {
        let slot = &mut self.refresher.slots[id];
        // With other nodes the call is counted when it is known what these have spent.
        let Some(why) = slot.charged_as(purpose, self.refresher.clock.boot_ms()).filter(|_| slot.share.is_none())
        else {
            return Ok(());
        };
        // Another process has written the state until now.
        if let Some(calls) = self.refresher.saver.as_ref().and_then(|saver| saver.take_counted_elsewhere(id)) {
            slot.ledger.merge(&calls);
        }
        let charge = slot.ledger.may_call(&slot.quota, self.refresher.clock.unix_ms(), why);
        slot.charge = charge.as_ref().ok().copied();
        slot.show_ledger(u64::from(charge.is_err()));
        self.keep_ledger(id);
        charge.map(drop)
    }

    /// A call that was never sent is not counted: probes, which are no calls of this endpoint, and failures before.
    pub(super) fn settle_charge(&mut self, id: CredentialId, outcome: &Outcome, is_adopted: bool) {
        let slot = &mut self.refresher.slots[id];
        let Some(charge) = slot.charge.take() else { return };
        let unsent = match outcome {
            Outcome::Probed { .. } | Outcome::NoToken | Outcome::Cancelled => true,
            Outcome::Failed { failure, .. } => failure.sent == Sent::NotSent,
            Outcome::Answered { .. } => is_adopted,
            Outcome::Told { .. } | Outcome::Late | Outcome::Denied(_) | Outcome::OutOfReach(_) => true,
        };
        if unsent {
            slot.ledger.give_back(charge);
            slot.show_ledger(0);
            self.keep_ledger(id);
        }
    }

    /// The calls of all nodes, as the flight left them.
    pub(super) fn take_ledger(&mut self, id: CredentialId, ledger: Option<Ledger>) {
        if let Some(ledger) = ledger {
            let slot = &mut self.refresher.slots[id];
            slot.ledger = ledger;
            slot.show_ledger(0);
            self.keep_ledger(id);
        }
    }

    fn keep_ledger(&self, id: CredentialId) {
        if let Some(saver) = &self.refresher.saver {
            saver.count(id, &self.refresher.slots[id].ledger);
        }
    }

    /// A quota forbids the call. The value is served on; asking again comes when the period has turned, or when the
    /// value is so near its end that it may have the reserve, and at least hourly: the wall clock may be set.
    pub(super) fn denied(&mut self, id: CredentialId, purpose: Purpose, denied: &Denied) {
        let now = self.refresher.clock.now();
        let slot = &mut self.refresher.slots[id];
        let left_ms = slot.standing.left_ms(now.boot_ms);
        let failure = Failure::held_back(slot.kind.api, &slot.appid, denied.to_string());
        let turn_ms = u64::try_from(denied.until_unix_ms.saturating_sub(now.unix_ms)).unwrap_or(0);
        let wait_ms = match purpose {
            Purpose::Check | Purpose::Probe => {
                let next_ms = match slot.next_try_ms {
                    next_ms if next_ms > now.boot_ms => next_ms,
                    _ => slot.standing.first_try_ms(now.boot_ms, fastrand::f64()),
                };
                slot.say_failed(&failure, &failure.advice(), now.boot_ms, next_ms, left_ms > 0);
                self.arm(id, next_ms);
                return self.finish(id);
            }
            // It is asked and tried as before: WeChat may replace the value by itself.
            Purpose::Force => return self.wait_for_another(id, None),
            // Values die faster than the quota allows: what is left of the day's calls lasts for what is left of the day.
            Purpose::Replace if denied.limit == Limit::Checks => turn_ms / slot.calls_left().max(1),
            Purpose::Renew | Purpose::Replace => {
                if matches!(denied.limit, Limit::Day | Limit::Renewals) && slot.begin_stand_in(now.unix_ms) {
                    self.note_stand_in(id);
                    return self.start(id, purpose);
                }
                if slot.try_overrule_quota(now.boot_ms) {
                    log_credential!(
                        warn,
                        slot.credential,
                        "by the nodes' own count {denied}; the token is about to end or is gone, so the platform is asked all the same"
                    );
                    return self.start(id, purpose);
                }
                let reserve_ms = left_ms.checked_sub(slot.dying_ms()).filter(|ms| *ms > 0).unwrap_or(DENIED_WAIT_MS);
                let spread_ms = fastrand::u64(0..=turn_ms.min(DENIED_WAIT_MS) / 60);
                (turn_ms + spread_ms).min(reserve_ms)
            }
        };
        let next_ms = now.boot_ms + wait_ms.clamp(BACKOFF_FLOOR_MS, DENIED_WAIT_MS);
        slot.note_failure(&failure, now.boot_ms, next_ms);
        slot.credential.settle();
        self.note_failed(id, &failure);
        self.arm(id, next_ms);
        self.finish(id);
    }
}
