//! Counts the calls of a credential against its quotas. A call is counted before it is sent, so a crash or a missing
//! answer cannot hide one, and a quota is never exceeded.
//!
//! Pure: the wall time comes in as a value. Never sends, sleeps or writes. Days start at midnight in UTC+8. That is an
//! assumption: WeChat publishes quotas, but not when its counters start again.
//!
//! How a day's quota is divided: scheduled renewals may use all but the reserve; verifications because of clients may
//! use a tenth beside that, so neither takes from the other; renewals of a value that has expired or is about to may
//! use everything. Forced refreshes have a quota of their own.
//!
//! The wall clock may jump. Periods only move forward: if the clock is set back by up to a day, counting goes on for
//! both days. If it stays back by more than a day for [`RECHECK_MS`], it is taken as right, and the count is carried
//! over, never cleared. If the clock jumps forward, a new day begins.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::platform::Quota;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CallReason {
    Renewal,
    /// A renewal of a value that has expired or is about to.
    Expiring,
    Verification,
    Forced,
}

/// Which limit forbids a call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum QuotaLimit {
    Minute,
    Hour,
    Day,
    /// The part of the day for renewals: all but the reserve.
    Renewals,
    Verifications,
    Forced,
    /// Forced refreshes too close together have no effect.
    ForcedGap,
}

/// A limit forbids a call now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct QuotaExceeded {
    pub limit: QuotaLimit,
    pub used: u64,
    /// The limit, calls.
    pub of: u64,
    /// Wall time from which the call may be allowed again.
    pub until_unix_ms: i64,
}

impl fmt::Display for QuotaExceeded {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let QuotaExceeded { used, of, .. } = self;
        match self.limit {
            QuotaLimit::Minute => write!(f, "{used} of {of} calls of this minute's quota are used"),
            QuotaLimit::Hour => write!(f, "{used} of {of} calls of this hour's quota are used"),
            QuotaLimit::Day => write!(f, "{used} of {of} calls of today's quota are used"),
            QuotaLimit::Renewals => {
                write!(f, "{used} of today's {of} calls for renewals are used; the rest is the reserve")
            }
            QuotaLimit::Verifications => write!(f, "{used} of today's {of} calls for checks are used"),
            QuotaLimit::Forced => write!(f, "{used} of today's {of} forced refreshes are used"),
            QuotaLimit::ForcedGap => write!(f, "forced refreshes are {of} ms apart at least; {used} ms have passed"),
        }
    }
}

/// A counted call. It is given back if it was not sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ChargedCall {
    why: CallReason,
    /// The periods it was counted in, and whether the clock was set back then.
    periods: [(i64, bool); 3],
}

/// The counted calls of one credential. Kept in the state file.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct QuotaUsage {
    day: PeriodCounter,
    hour: PeriodCounter,
    minute: PeriodCounter,
    /// Of the day's calls, those for checks.
    checks: u64,
    /// Of the day's calls, the forced ones.
    forced: u64,
    /// Probes in the same day. They are calls of another interface, with a quota of its own.
    probes: u64,
    /// When the last forced one was counted, wall time.
    forced_unix_ms: Option<i64>,
    /// Since when the wall clock has been more than a day behind, by that clock itself.
    #[serde(skip)]
    behind_unix_ms: Option<i64>,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
struct PeriodCounter {
    /// Numbers the period: days, hours or minutes since 1970 in UTC+8.
    index: i64,
    used: u64,
    /// Calls in the period before this, for a clock that is set back.
    before: u64,
}

const UTC8_MS: i64 = 8 * 3_600_000;
const DAY_MS: i64 = 86_400_000;
const HOUR_MS: i64 = 3_600_000;
const MINUTE_MS: i64 = 60_000;
/// A clock more than a day behind is taken as right after ten minutes.
pub const RECHECK_MS: i64 = 600_000;
/// Page "获取稳定版接口调用凭据": two forced calls closer than this refresh nothing.
pub const FORCED_GAP_MS: i64 = 30_000;

impl QuotaUsage {
    /// Counts a call, or returns the limit that forbids it.
    pub fn try_charge(&mut self, quota: &Quota, unix_ms: i64, why: CallReason) -> Result<ChargedCall, QuotaExceeded> {
        self.begin_periods(unix_ms);
        self.check_periods(quota, unix_ms)?;
        self.check_shares(quota, why)?;
        if why == CallReason::Forced {
            self.check_forced_budget(quota.forced_per_day, unix_ms)?;
            self.forced += 1;
            self.forced_unix_ms = Some(unix_ms);
        }
        self.checks += u64::from(why == CallReason::Verification);
        Ok(ChargedCall {
            why,
            periods: self.periods().map(|(period, period_ms)| period.count(index(unix_ms, period_ms))),
        })
    }

    fn periods(&mut self) -> [(&mut PeriodCounter, i64); 3] {
        [(&mut self.day, DAY_MS), (&mut self.hour, HOUR_MS), (&mut self.minute, MINUTE_MS)]
    }

    pub fn count_probes(&mut self, unix_ms: i64, probes: u64) {
        self.begin_periods(unix_ms);
        self.probes = self.probes.saturating_add(probes);
    }

    /// Takes back a call that was not sent.
    pub fn refund(&mut self, charge: ChargedCall) {
        if self.day.index == charge.periods[0].0 {
            self.checks = self.checks.saturating_sub(u64::from(charge.why == CallReason::Verification));
            self.forced = self.forced.saturating_sub(u64::from(charge.why == CallReason::Forced));
        }
        self.periods().into_iter().zip(charge.periods).for_each(|((period, _), counted)| period.refund(counted));
    }

    /// Whether nodes can have counted this by that time, if all nodes together count at most `most` a day. The next day
    /// is possible, because clocks differ.
    pub fn is_possible(&self, unix_ms: i64, most: u64) -> bool {
        let tomorrow = index(unix_ms, DAY_MS).saturating_add(1);
        let most_used = self.day.used.max(self.day.before).max(self.checks).max(self.forced);
        self.day.index <= tomorrow && most_used <= most
    }

    /// Takes over what another node has counted, where that is more: of two periods the later one, of the same period
    /// the larger number.
    pub fn merge(&mut self, other: &QuotaUsage) {
        if other.day.index > self.day.index {
            (self.checks, self.forced, self.probes) = (other.checks, other.forced, other.probes);
        } else if other.day.index == self.day.index {
            self.checks = self.checks.max(other.checks);
            self.forced = self.forced.max(other.forced);
            self.probes = self.probes.max(other.probes);
        }
        self.forced_unix_ms = self.forced_unix_ms.max(other.forced_unix_ms);
        self.day.merge(&other.day);
        self.hour.merge(&other.hour);
        self.minute.merge(&other.minute);
    }

    pub fn calls_today(&self) -> u64 {
        self.day.used
    }

    /// Probes counted in the present day; see [`QuotaUsage::day_ends_unix_ms`].
    pub fn probes_today(&self) -> u64 {
        self.probes
    }

    pub fn day_ends_unix_ms(&self) -> i64 {
        self.day.ends_unix_ms(DAY_MS)
    }

    fn begin_periods(&mut self, unix_ms: i64) {
        let today = index(unix_ms, DAY_MS);
        if today > self.day.index {
            (self.checks, self.forced, self.probes) = (0, 0, 0);
        }
        if today < self.day.index.saturating_sub(1) {
            let since = self.behind_unix_ms.unwrap_or(unix_ms).min(unix_ms);
            self.behind_unix_ms = Some(since);
            if unix_ms.saturating_sub(since) >= RECHECK_MS {
                self.day.index = today;
                self.behind_unix_ms = None;
            }
        } else {
            self.behind_unix_ms = None;
        }
        self.day.begin_period(today);
        // If the clock was set back, the gap begins now: a little longer once, but not by the whole jump.
        self.forced_unix_ms = self.forced_unix_ms.map(|last| last.min(unix_ms));
        for (meter, period_ms) in [(&mut self.hour, HOUR_MS), (&mut self.minute, MINUTE_MS)] {
            let now = index(unix_ms, period_ms);
            // These periods are so short that a clock set back is taken as right at once; the count stays.
            meter.index = meter.index.min(now.saturating_add(1));
            meter.begin_period(now);
        }
    }

    /// The platform's own limits.
    fn check_periods(&self, quota: &Quota, unix_ms: i64) -> Result<(), QuotaExceeded> {
        let bounds = [
            (QuotaLimit::Day, quota.per_day, &self.day, DAY_MS),
            (QuotaLimit::Hour, quota.per_hour, &self.hour, HOUR_MS),
            (QuotaLimit::Minute, quota.per_minute, &self.minute, MINUTE_MS),
        ];
        for (limit, of, meter, period_ms) in bounds {
            let used = meter.level(index(unix_ms, period_ms));
            if let Some(of) = of.filter(|of| used >= *of) {
                return Err(QuotaExceeded { limit, used, of, until_unix_ms: meter.ends_unix_ms(period_ms) });
            }
        }
        Ok(())
    }

    /// Our own division of the day.
    fn check_shares(&self, quota: &Quota, why: CallReason) -> Result<(), QuotaExceeded> {
        let Some(per_day) = quota.per_day else { return Ok(()) };
        let (limit, used, of) = match why {
            CallReason::Renewal => {
                (QuotaLimit::Renewals, self.day.used.saturating_sub(self.checks), quota.renewals(per_day))
            }
            CallReason::Verification => (QuotaLimit::Verifications, self.checks, (per_day / 10).max(1)),
            CallReason::Expiring | CallReason::Forced => return Ok(()),
        };
        let until_unix_ms = self.day_ends_unix_ms();
        if used >= of { Err(QuotaExceeded { limit, used, of, until_unix_ms }) } else { Ok(()) }
    }

    fn check_forced_budget(&self, per_day: u64, unix_ms: i64) -> Result<(), QuotaExceeded> {
        if self.forced >= per_day {
            let until_unix_ms = self.day_ends_unix_ms();
            return Err(QuotaExceeded { limit: QuotaLimit::Forced, used: self.forced, of: per_day, until_unix_ms });
        }
        let since_ms = self.forced_unix_ms.map_or(FORCED_GAP_MS, |last| unix_ms.saturating_sub(last));
        if since_ms >= FORCED_GAP_MS {
            return Ok(());
        }
        Err(QuotaExceeded {
            limit: QuotaLimit::ForcedGap,
            used: u64::try_from(since_ms).unwrap_or(0),
            of: FORCED_GAP_MS.unsigned_abs(),
            until_unix_ms: unix_ms.saturating_add(FORCED_GAP_MS - since_ms),
        })
    }
}

impl PeriodCounter {
    /// Forward only.
    fn begin_period(&mut self, now: i64) {
        if now > self.index {
            let before = if now == self.index.saturating_add(1) { self.used } else { 0 };
            *self = PeriodCounter { index: now, used: 0, before };
        }
    }

    fn merge(&mut self, other: &PeriodCounter) {
        match other.index.cmp(&self.index) {
            std::cmp::Ordering::Greater => self.clone_from(other),
            std::cmp::Ordering::Equal => {
                (self.used, self.before) = (self.used.max(other.used), self.before.max(other.before));
            }
            std::cmp::Ordering::Less => {}
        }
    }

    /// What counts against a limit. If the clock was set back, the larger of the two periods.
    fn level(&self, now: i64) -> u64 {
        if now < self.index { self.used.max(self.before) } else { self.used }
    }

    /// Adds a call; to both periods if the clock was set back. Returns what [`PeriodCounter::refund`] needs.
    fn count(&mut self, now: i64) -> (i64, bool) {
        let behind = now < self.index;
        self.used = self.used.saturating_add(1);
        self.before = self.before.saturating_add(u64::from(behind));
        (self.index, behind)
    }

    fn refund(&mut self, (index, behind): (i64, bool)) {
        if self.index == index {
            self.used = self.used.saturating_sub(1);
            self.before = self.before.saturating_sub(u64::from(behind));
        } else if self.index == index.saturating_add(1) {
            self.before = self.before.saturating_sub(1);
        }
    }

    fn ends_unix_ms(&self, period_ms: i64) -> i64 {
        self.index.saturating_add(1).saturating_mul(period_ms).saturating_sub(UTC8_MS)
    }
}

/// The number of the period an instant is in.
fn index(unix_ms: i64, period_ms: i64) -> i64 {
    unix_ms.saturating_add(UTC8_MS).div_euclid(period_ms)
}

#[cfg(test)]
mod tests;
