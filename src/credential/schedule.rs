//! When to fetch next. Pure: times and a random number go in, a time comes out. Never calls, never sleeps.
//!
//! It depends on what the platform does when it is asked early:
//!
//! - *Stable* answers the same value until the last 5 minutes of its life. Asking earlier has no effect, so
//!   asking starts inside that window and goes on, more and more often, until the value changes.
//! - *At end* (WeCom) answers the same value until it expires: asked at that time.
//! - *Poll* (tickets) answers the same value and the same lifetime whatever its age: asked every ten minutes, and
//!   trusted for the lifetime told from the last answer on.
//! - *Classic* makes a new value each time, and the old one ends 5 minutes later. So it is asked once, well ahead.
//!
//! Both windows are in proportion to the lifetime (300 of 7200 s), so any lifetime from seconds to weeks works.
//! A failure never removes a live value; it only moves the next fetch.

use super::reliable_until::ReliableUntil;
use serde::{Deserialize, Serialize};

use crate::clock::{BootMs, Now};
use crate::cluster::node_rules;
use crate::platform::Renewal;
use crate::platform::answer::LifetimeSource;
use crate::platform::failure::{Class, Delivery, Pace, Wait};

/// What the schedule knows of one credential. `longest_ms` and `learned_ms` are kept over a restart.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RenewalState {
    pub renewal: Renewal,
    /// The earliest time at which the present value may have ended; none without a value.
    pub expires_ms: Option<BootMs>,
    /// The lifetime that the present value had left when it was first seen.
    pub life_ms: u64,
    /// The longest lifetime seen lately, taken as a whole lifetime.
    pub longest_ms: u64,
    /// The remaining time at which the stable endpoint begins to answer a new value, as far as learned.
    pub learned_ms: Option<u64>,
    pub failures: u32,
    /// How often the call was blocked since the last answer.
    blocks: u32,
    /// How often the platform has answered the present value again.
    asks: u32,
    /// The least remaining time at which the present value was answered again. Becomes `learned_ms` with the next
    /// value, not earlier: otherwise each answer would move the start of asking.
    same_at_ms: Option<u64>,
    /// When the present value must have ended, if its `expires_in` of 0 was true.
    ends_by_ms: Option<BootMs>,
    /// How often a value of [`Renewal::Poll`] is polled.
    pub poll_ms: u64,
    /// Classic calls whose answers never came, oldest first.
    lost_calls: Vec<LostCalls>,
    /// The expiry of the value if none of these calls has made another.
    expires_if_none_lost_ms: Option<BootMs>,
    /// Set if WeChat refuses the value: its expiry, in case the refusal is a false alarm.
    withdrawn_ms: Option<BootMs>,
    /// From the followed leader: this long before its expiry clients should not rely on the value any more.
    pub reliable_lead_ms: Option<u64>,
    /// Set if the site itself has fetched the present value.
    pub adopted: Option<Adopted>,
}

/// Calls close together without an answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct LostCalls {
    first_ms: BootMs,
    last_ms: BootMs,
}

#[derive(Clone, Copy, Debug)]
pub struct RenewalAnswer {
    pub sent_ms: BootMs,
    pub received_ms: BootMs,
    pub expires_in_s: u64,
    pub lifetime_source: LifetimeSource,
    /// The value is the one we have.
    pub same: bool,
}

/// What is known of the expiry of a value that the site has fetched itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Adopted {
    /// Its expiry.
    WithEnd,
    /// Only the latest possible expiry: it may end at any time before.
    WithoutEnd,
}

/// How long a client may rely on a value of unknown age. It is probed twice as often.
const ADOPTED_RELIABLE_MS: u64 = 60_000;
/// How often an adopted value is probed: other programs still fetch, and each fetch ends it.
pub const ADOPTED_PROBE_MS: u64 = 30_000;
/// Published as the lifetime of an adopted value, so that no other node renews it long before its expiry.
pub const ADOPTED_TOLD_LIFE_MS: u64 = 580_000;

/// WeChat's figures. Shorter lifetimes are in proportion.
const WHOLE_LIFE_MS: u64 = 7_200_000;
/// Our choice: a ticket changes about every two hours, and WeChat publishes no limit for the call.
pub const POLL_MS: u64 = 600_000;
/// A client can rely on a ticket for this many polls, half an hour. Tickets that WeChat had replaced were seen to work
/// for an hour more.
const POLLS_RELIABLE: u64 = 3;
/// The pause between calls for a value that exists only after the one before it has ended.
const AT_END_GAP_MS: u64 = 150;
const OVERLAP_MS: u64 = 300_000;
const CLASSIC_LEAD_MS: u64 = 600_000;
const ASK_GAP_MS_MIN: u64 = 20;
const ASK_GAP_MS_MAX: u64 = 20_000;
/// From half a day of remaining time down to the smallest gap there are fewer calls than this.
const ASKS_BEFORE_CAUTION: u32 = 48;
const BACKOFF_BASE_MS: u64 = 1_000;
const BACKOFF_CAP_MS: u64 = 60_000;
pub const BACKOFF_FLOOR_MS: u64 = 100;
/// The classic endpoint counts every call that reached it against 2000 a day.
const CLASSIC_BACKOFF_CAP_MS: u64 = 300_000;
const CHECK_SPACING_MS: u64 = 30_000;
const MINUTE_MS: u64 = 60_000;
const DAY_MS: i64 = 86_400_000;

impl RenewalState {
    pub fn new(renewal: Renewal) -> RenewalState {
        RenewalState {
            renewal,
            expires_ms: None,
            life_ms: 0,
            longest_ms: 0,
            learned_ms: None,
            failures: 0,
            blocks: 0,
            asks: 0,
            same_at_ms: None,
            ends_by_ms: None,
            poll_ms: POLL_MS,
            lost_calls: Vec::new(),
            expires_if_none_lost_ms: None,
            withdrawn_ms: None,
            reliable_lead_ms: None,
            adopted: None,
        }
    }

    /// `learned_ms` including what the present value has shown: for the next value and for the state file.
    pub fn learned_so_far_ms(&self) -> Option<u64> {
        self.learned_ms.into_iter().chain(self.same_at_ms).min()
    }

    pub fn left_ms(&self, now_ms: BootMs) -> u64 {
        self.expires_ms.map_or(0, |expires| expires.saturating_sub(now_ms))
    }

    /// True if a call normally returns a new value now.
    pub fn is_due_soon(&self, now_ms: BootMs) -> bool {
        match self.renewal {
            Renewal::Window { window_ms } => self.left_ms(now_ms) <= window_ms.min(self.longest_ms / 2),
            Renewal::AtEnd => self.left_ms(now_ms) <= 1_000,
            Renewal::Mint | Renewal::Poll => true,
        }
    }

    /// When to fetch first after the start: at once without a live value, otherwise when a renewal is due.
    pub fn first_try_ms(&self, now_ms: BootMs, random: f64) -> BootMs {
        if self.left_ms(now_ms) == 0 || self.renewal == Renewal::Poll {
            return now_ms;
        }
        self.due_ms(random).max(now_ms).max(self.repeat_from_ms(now_ms))
    }

    /// Records an answer. Returns when to fetch next.
    pub fn record_answer(&mut self, answer: &RenewalAnswer, random: f64) -> BootMs {
        (self.failures, self.blocks) = (0, 0);
        if answer.same {
            self.record_same_value(answer)
        } else {
            self.record_new_value(answer)
        }
        let now = answer.received_ms;
        if self.renewal == Renewal::Poll {
            return now + self.poll_ms - fraction_of(self.poll_ms, 0.2 * random);
        }
        let due = self.due_ms(random);
        // Once asking has begun, the next call is one gap later; a new random time could be a moment later.
        let begun = answer.same && self.due_ms(0.0) <= now;
        let next = if self.left_ms(now) > 0 && due > now && !begun { due } else { now + self.ask_gap_ms(now) };
        next.max(now + self.caution_ms())
    }

    /// Records that the site has fetched the present value, so its age is not known. Returns when to fetch the first
    /// value of our own.
    pub fn record_adopted(&mut self, adopted: Adopted, now_ms: BootMs) -> BootMs {
        // Its whole lifetime is not known. It is taken as short if little of it is left, so that our own fetch comes
        // near its end and not at once.
        let life_ms = WHOLE_LIFE_MS.min(6 * self.left_ms(now_ms));
        (self.adopted, self.life_ms, self.longest_ms) = (Some(adopted), life_ms, WHOLE_LIFE_MS);
        self.first_try_ms(now_ms, 0.0)
    }

    pub fn adopt(&mut self, expires_ms: BootMs, life_ms: u64, longest_ms: u64, learned_ms: Option<u64>) {
        *self = RenewalState {
            expires_ms: Some(expires_ms),
            life_ms,
            longest_ms: longest_ms.max(life_ms),
            learned_ms,
            poll_ms: self.poll_ms,
            ..RenewalState::new(self.renewal)
        };
    }

    /// When to renew a value that another node has fetched: after the time at which that node should have done it.
    pub fn due_after_others_ms(&self, now_ms: BootMs, random: f64) -> BootMs {
        let Some(expires) = self.expires_ms else { return now_ms };
        let (due, lead) = match self.renewal {
            Renewal::Poll => (now_ms + self.poll_ms, self.poll_ms),
            Renewal::AtEnd => (expires, AT_END_GAP_MS),
            Renewal::Window { .. } | Renewal::Mint => {
                let due = self.due_ms(random);
                (due, expires.saturating_sub(due))
            }
        };
        due.max(now_ms) + node_rules::standby_wait_ms(lead, random)
    }

    /// Takes over a later expiry from another node: for a polled type each answer prolongs the value.
    pub fn prolong(&mut self, expires_ms: BootMs) {
        if self.renewal == Renewal::Poll && self.withdrawn_ms.is_none() {
            self.expires_ms = self.expires_ms.max(Some(expires_ms));
        }
    }

    /// Records a failure. Returns when to fetch next. `expires_ms` may become earlier; it is never removed.
    pub fn record_failure(&mut self, class: Class, sent: Delivery, sent_ms: BootMs, now: Now, random: f64) -> BootMs {
        self.failures = self.failures.saturating_add(1);
        let doubtful = self.renewal == Renewal::Mint && sent == Delivery::Ambiguous;
        if doubtful {
            self.record_lost_call(sent_ms);
        }
        let left = self.left_ms(now.boot_ms);
        let delay = match class {
            Class::Retry => self.backoff_ms(left, random),
            Class::Wait(Wait::AtLeastMs(ms)) => ms + fraction_of(ms, 0.2 * random),
            Class::Wait(Wait::Doubling { first_ms, most_ms }) => {
                let ms = doubled_ms(first_ms, most_ms, u64::from(self.blocks));
                self.blocks = self.blocks.saturating_add(1);
                ms + fraction_of(ms, 0.2 * random)
            }
            Class::Wait(Wait::NextDay) => {
                let midnight = ms_to_next_day(now.unix_ms) + fraction_of(10 * MINUTE_MS, random);
                midnight.min(60 * MINUTE_MS + fraction_of(12 * MINUTE_MS, random))
            }
            Class::Operator(Pace::Soon) => self.paced_ms(MINUTE_MS, 5, left, random),
            Class::Operator(Pace::Slow) | Class::Internal => self.paced_ms(10 * MINUTE_MS, 3, left, random),
        };
        let delay = if doubtful && left > 0 { delay.min(MINUTE_MS).min(self.overlap_ms() / 5) } else { delay };
        (now.boot_ms + delay.max(BACKOFF_FLOOR_MS)).max(self.repeat_from_ms(now.boot_ms))
    }

    /// When a lost call may be repeated. It may have made a token; then the present value lives for the overlap, and
    /// one more token would end it at once. So it is repeated when most of the overlap is over and no client relies on
    /// the value any more.
    pub fn repeat_from_ms(&self, now_ms: BootMs) -> BootMs {
        match self.lost_calls.first() {
            Some(lost) if self.left_ms(now_ms) > 0 => lost.first_ms + self.promised_ms(),
            _ => now_ms,
        }
    }

    /// How much of the overlap clients may rely on. Not all of it, so that a lost call can be repeated before it is
    /// over.
    fn promised_ms(&self) -> u64 {
        self.overlap_ms() / 4 * 3
    }

    /// How long a call may take: it must end before the value that it is to replace.
    pub fn call_deadline_ms(&self, now_ms: BootMs, total_ms: u64) -> u64 {
        match self.left_ms(now_ms) {
            0 => total_ms,
            left => (left / 2).max(1_000).min(total_ms),
        }
    }

    /// The least time between two verifications because of reports.
    pub fn check_spacing_ms(&self) -> u64 {
        match self.longest_ms {
            0 => CHECK_SPACING_MS,
            longest => CHECK_SPACING_MS.min(longest / 24).max(BACKOFF_FLOOR_MS),
        }
    }

    /// How long a classic value lives after a new one was made.
    pub fn overlap_ms(&self) -> u64 {
        OVERLAP_MS.min(self.life_ms / 24)
    }

    pub fn reliable(&self) -> ReliableUntil {
        let Some(expires) = self.expires_ms else { return ReliableUntil::TO_THE_END };
        // The promised time ends before a lost call is repeated, because the second token ends the value at once. A
        // running call may be making one: the quarter between the two is longer than a call and the time until all
        // readers have its value.
        let (promised_ms, at_least_ms) = (self.promised_ms(), self.overlap_ms() / 2);
        if let Some(lost) = self.lost_calls.first() {
            return ReliableUntil { until_boot_ms: lost.first_ms.saturating_add(promised_ms), at_least_ms: 0 };
        }
        if self.adopted == Some(Adopted::WithoutEnd) {
            return ReliableUntil { until_boot_ms: 0, at_least_ms: ADOPTED_RELIABLE_MS };
        }
        match (self.renewal, self.reliable_lead_ms) {
            // The platform replaces it at its own time, which the next poll shows. How long the old one works after
            // that is not published.
            (Renewal::Poll, _) => ReliableUntil { until_boot_ms: 0, at_least_ms: POLLS_RELIABLE * self.poll_ms },
            (_, Some(0)) | (Renewal::Window { .. } | Renewal::AtEnd, None) => ReliableUntil::TO_THE_END,
            (_, Some(lead_ms)) => ReliableUntil { until_boot_ms: expires.saturating_sub(lead_ms), at_least_ms },
            (Renewal::Mint, None) => {
                ReliableUntil { until_boot_ms: self.due_ms(1.0).saturating_add(promised_ms), at_least_ms }
            }
        }
    }

    /// Records a classic call without an answer. WeChat may have made a token that we do not know; then ours ends after
    /// the overlap.
    pub fn record_lost_call(&mut self, sent_ms: BootMs) {
        let Some(expires) = self.expires_ms else { return };
        let overlap = self.overlap_ms();
        self.expires_if_none_lost_ms.get_or_insert(expires);
        self.expires_ms = Some(expires.min(sent_ms + overlap));
        match self.lost_calls.last_mut().filter(|lost| sent_ms < lost.first_ms + overlap / 8) {
            Some(lost) => lost.last_ms = sent_ms.max(lost.last_ms),
            None => self.lost_calls.push(LostCalls { first_ms: sent_ms, last_ms: sent_ms }),
        }
    }

    /// When to probe the value because of lost calls: at once if two of them may have ended it already (the second
    /// token ends the one before the first), otherwise shortly before the earliest end.
    pub fn lost_call_probe_ms(&self, now_ms: BootMs) -> Option<BootMs> {
        let (first, last) = (self.lost_calls.first()?, self.lost_calls.last()?);
        if self.left_ms(now_ms) == 0 {
            return None;
        }
        let margin = self.overlap_ms() / 30;
        let before_end = self.expires_ms?.saturating_sub(margin).max(now_ms);
        Some(if last.last_ms > first.first_ms && last.last_ms + margin > now_ms { now_ms } else { before_end })
    }

    pub fn has_lost_calls(&self) -> bool {
        !self.lost_calls.is_empty()
    }

    /// Records that WeChat accepted the value in a probe. So no call that was lost before the overlap has made a token,
    /// and the value is good for a moment in any case. True if its expiry has changed.
    pub fn record_accepted(&mut self, probed_ms: BootMs) -> bool {
        let before = self.expires_ms;
        if let Some(expires) = self.withdrawn_ms.take() {
            self.expires_ms = Some(expires);
        }
        let overlap = self.overlap_ms();
        // WeChat's five minutes may differ from ours by some seconds.
        let certain = overlap + overlap / 10;
        self.lost_calls.retain(|lost| lost.last_ms + certain > probed_ms);
        if let Some(undoubted) = self.expires_if_none_lost_ms {
            let end = self.lost_calls.first().map_or(undoubted, |lost| lost.first_ms + overlap);
            self.expires_ms = Some(end.max(probed_ms + overlap / 10).min(undoubted));
        }
        if self.lost_calls.is_empty() {
            self.expires_if_none_lost_ms = None;
        }
        self.expires_ms != before
    }

    /// Withdraws a value that WeChat has refused, until a later probe is accepted.
    pub fn withdraw(&mut self, now_ms: BootMs) {
        let expires = self.expires_ms.unwrap_or(now_ms);
        self.withdrawn_ms.get_or_insert(expires);
        self.expires_ms = Some(expires.min(now_ms));
    }

    /// True for a refused value, until there is a new one or a probe is accepted.
    pub fn is_withdrawn(&self) -> bool {
        self.withdrawn_ms.is_some()
    }

    /// The expiry of a withdrawn value if the refusal was a false alarm; none if it is not withdrawn.
    pub fn withdrawn_end_ms(&self) -> Option<BootMs> {
        self.withdrawn_ms
    }

    /// WeChat answers with a value that it refuses, and no new one can be requested now. Returns when to try again:
    /// less and less often, up to five minutes apart for a lifetime of two hours, but also at the expiry of the value,
    /// when WeChat has a new one.
    pub fn record_refused_again(&mut self, now_ms: BootMs, random: f64) -> BootMs {
        self.failures = self.failures.saturating_add(1);
        let spacing_ms = self.check_spacing_ms() * u64::from(self.failures.clamp(1, 10));
        let next_ms = now_ms + spacing_ms - fraction_of(spacing_ms, 0.2 * random);
        match self.withdrawn_ms {
            Some(end) if now_ms < end => next_ms.min(end),
            // The expiry is known to about a second, and a call takes time.
            Some(end) if now_ms < end + 5 * BACKOFF_BASE_MS => next_ms.min(now_ms + BACKOFF_BASE_MS),
            _ => next_ms,
        }
    }

    fn record_new_value(&mut self, answer: &RenewalAnswer) {
        (self.withdrawn_ms, self.expires_if_none_lost_ms, self.reliable_lead_ms) = (None, None, None);
        self.adopted = None;
        self.lost_calls.clear();
        let lifetime_ms = answer.expires_in_s.saturating_mul(1000);
        if self.expires_ms.is_some() && self.asks == 0 {
            // It changed at the first call, so the window may be wider than learned: start a little earlier.
            self.learned_ms = self.learned_ms.map(|ms| (ms + ms / 100).min(self.longest_ms));
        }
        self.learned_ms = self.learned_so_far_ms();
        self.same_at_ms = None;
        // Halving it adapts to a shorter lifetime after a few renewals.
        self.longest_ms = lifetime_ms.max(self.longest_ms / 2);
        self.life_ms = lifetime_ms;
        self.asks = 0;
        // A stable value in its last second cannot be used. A classic one was made just now.
        let is_remaining_time = matches!(self.renewal, Renewal::Window { .. } | Renewal::AtEnd);
        let dying = answer.lifetime_source == LifetimeSource::Zero && is_remaining_time;
        self.ends_by_ms = dying.then_some(answer.received_ms + 1_000);
        self.expires_ms = Some(if dying { answer.sent_ms } else { answer.sent_ms + lifetime_ms });
    }

    /// `expires_in` is rounded down, so the value ends in [sent + e, received + e + 1 s). The more exact one is kept.
    fn record_same_value(&mut self, answer: &RenewalAnswer) {
        let lifetime_ms = answer.expires_in_s.saturating_mul(1000);
        let earliest = answer.sent_ms + lifetime_ms;
        let current = self.expires_ms.unwrap_or(earliest);
        let expires = match answer.lifetime_source {
            LifetimeSource::AsGiven if current > answer.received_ms + lifetime_ms + 1_000 => earliest,
            LifetimeSource::AsGiven => current.max(earliest),
            LifetimeSource::Zero => self.expiry_after_zero(answer, current, earliest),
            LifetimeSource::Missing | LifetimeSource::Unusable | LifetimeSource::TooLong => {
                if current > answer.received_ms { current } else { earliest }
            }
        };
        self.expires_ms = Some(expires);
        self.longest_ms = self.longest_ms.max(lifetime_ms.min(expires.saturating_sub(answer.sent_ms)));
        self.asks = self.asks.saturating_add(1);
        let left = self.left_ms(answer.received_ms);
        if matches!(self.renewal, Renewal::Window { .. }) && left > 0 {
            let just_later = left - left / 33;
            self.same_at_ms = Some(self.same_at_ms.map_or(just_later, |ms| ms.min(just_later)));
        }
    }

    /// `expires_in` 0 is true for a value in its last second. If the platform still answers with it after that second,
    /// the 0 was wrong, and the value is taken to live on.
    fn expiry_after_zero(&mut self, answer: &RenewalAnswer, current: BootMs, earliest: BootMs) -> BootMs {
        let ends_by = *self.ends_by_ms.get_or_insert(answer.received_ms + 1_000);
        let meaningless = answer.sent_ms >= ends_by || current > answer.received_ms + 1_000;
        match meaningless {
            true if current > answer.received_ms => current.min(earliest),
            true => earliest,
            false => current,
        }
    }

    fn due_ms(&self, random: f64) -> BootMs {
        let Some(expires) = self.expires_ms else { return 0 };
        let lead = match self.renewal {
            Renewal::Window { window_ms } => {
                let start = self.window_start_ms(window_ms);
                start - fraction_of(start, 0.02 * random)
            }
            Renewal::AtEnd | Renewal::Poll => 0,
            // A new value ends the one that other programs still have, so that is left its time.
            Renewal::Mint if self.adopted.is_some() => self.overlap_ms() - self.overlap_ms() / 30,
            Renewal::Mint => {
                let lead = (self.life_ms / 3).max(CLASSIC_LEAD_MS).min(self.life_ms / 2);
                lead + fraction_of(lead, 0.03 * random)
            }
        };
        expires.saturating_sub(lead)
    }

    /// How long before the expiry asking begins: as learned, between just inside the window and half the lifetime.
    fn window_start_ms(&self, window_ms: u64) -> u64 {
        // 290 of 300 s.
        let start = window_ms - window_ms / 30;
        let in_proportion = fraction_of(self.longest_ms, 0.96 * window_ms as f64 / WHOLE_LIFE_MS as f64);
        let latest = start.min(in_proportion);
        let earliest = start.min(self.longest_ms / 2).max(latest);
        self.learned_ms.unwrap_or(earliest).clamp(latest, earliest)
    }

    /// The pause between calls near the expiry: a quarter of the remaining time, so that a window of any width is met.
    /// After the expiry, if upstream still answers with the expired value, at least a second.
    pub fn ask_gap_ms(&self, now_ms: BootMs) -> u64 {
        match self.left_ms(now_ms) {
            0 if self.renewal == Renewal::AtEnd => AT_END_GAP_MS,
            0 => BACKOFF_BASE_MS,
            left => (left / 4).clamp(ASK_GAP_MS_MIN, ASK_GAP_MS_MAX),
        }
    }

    /// The least pause after a value was answered very often: an upstream that prolongs it a little each time must not
    /// cause calls without end.
    fn caution_ms(&self) -> u64 {
        match self.asks / ASKS_BEFORE_CAUTION {
            0 => 0,
            times => BACKOFF_BASE_MS << times.min(4),
        }
    }

    /// Exponential backoff with full jitter, shorter when a live value is about to end.
    fn backoff_ms(&self, left_ms: u64, random: f64) -> u64 {
        let cap = match left_ms {
            0 if self.renewal == Renewal::Mint && self.failures > 10 => CLASSIC_BACKOFF_CAP_MS,
            0 => BACKOFF_CAP_MS,
            left => (left / 4).clamp(BACKOFF_BASE_MS, BACKOFF_CAP_MS),
        };
        // Without a value clients wait: the first few tries are within a second.
        let doublings = self.failures.saturating_sub(if left_ms == 0 { 3 } else { 1 }).min(16);
        let delay = fraction_of((BACKOFF_BASE_MS << doublings).min(cap), random);
        // Not after the end of a live value.
        if left_ms > 0 { delay.min(left_ms / 2) } else { delay }
    }

    /// `first`, twice `first`, … up to `most` times, a little less by jitter. While a value is live there is also a try
    /// at half the remaining time: so a repair in time is noticed in time, for a few calls.
    fn paced_ms(&self, first: u64, most: u32, left_ms: u64, random: f64) -> u64 {
        let spacing_ms = first * u64::from(self.failures.clamp(1, most));
        let delay = (spacing_ms - fraction_of(spacing_ms, 0.2 * random)).max(first);
        if left_ms > 0 { delay.min((left_ms / 2).max(30_000)) } else { delay }
    }
}

/// Milliseconds to the next midnight in UTC+8.
pub fn ms_to_next_day(unix_ms: i64) -> u64 {
    let into_day = unix_ms.saturating_add(8 * 3_600_000).rem_euclid(DAY_MS);
    u64::try_from(DAY_MS - into_day).unwrap_or(0)
}

fn doubled_ms(first_ms: u32, most_ms: u32, times: u64) -> u64 {
    (u64::from(first_ms) << times.min(16)).min(u64::from(most_ms))
}

fn fraction_of(ms: u64, fraction: f64) -> u64 {
    (ms as f64 * fraction.clamp(0.0, 1.0)) as u64
}

pub mod cluster;

#[cfg(test)]
mod tests;
