//! When to ask WeChat next. Pure: instants and a random number come in, an instant goes out.
//!
//! By what the platform does when asked early:
//!
//! - *Stable* answers the same value until the last 5 minutes of its life. Asking earlier brings nothing, so
//!   asking starts inside that window and goes on, ever closer together, until the value changes.
//! - *At end* (WeCom) answers the same value until it is dead: asked at that instant.
//! - *Poll* (tickets) answers the same value and the same lifetime whatever its age: asked every ten minutes, and
//!   trusted for the lifetime told from the last answer on.
//! - *Classic* mints a new value each time and dooms the old one, which lives 5 more minutes. So: once, well ahead.
//!
//! Both windows are taken in proportion to the lifetime (300 of 7200 s), so any lifetime from seconds to weeks works.
//! A failure never takes a live value away; it only moves the next try.

use super::reliable_until::ReliableUntil;
use serde::{Deserialize, Serialize};

use crate::clock::{BootMs, Now};
use crate::cluster::node_rules;
use crate::platform::Renewal;
use crate::platform::answer::LifetimeSource;
use crate::platform::failure::{Class, Delivery, Pace, Wait};

/// What is known of one credential. The refresher keeps it; `longest_ms` and `learned_ms` survive a restart.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RenewalState {
    pub renewal: Renewal,
    /// The earliest instant at which the present value may be dead; `None` without a value.
    pub expires_ms: Option<BootMs>,
    /// What the present value had left when it was first seen.
    pub life_ms: u64,
    /// The longest life seen lately: how long a whole lifetime is.
    pub longest_ms: u64,
    /// The time left at which asking the stable endpoint has begun to bring a new value, as far as learned.
    pub learned_ms: Option<u64>,
    /// Failures in a row.
    pub failures: u32,
    /// How often the interface was met blocked since the last answer.
    blocks: u32,
    /// How often the present value has been answered again.
    asks: u32,
    /// The least time left at which the present value has been answered again. Becomes `learned_ms` with the next
    /// value; at once, it would move the start of asking along with every ask.
    same_at_ms: Option<u64>,
    /// By when the present value must be dead, if its `expires_in` of 0 meant anything.
    ends_by_ms: Option<BootMs>,
    /// How often a [`Renewal::Poll`] kind is asked.
    pub poll_ms: u64,
    /// Classic calls whose answers never came, oldest first.
    lost_calls: Vec<LostCalls>,
    /// The end the value has if none of them made another.
    expires_if_none_lost_ms: Option<BootMs>,
    /// WeChat refuses the value; its end if that should turn out to be a false alarm.
    withdrawn_ms: Option<BootMs>,
    /// By the word of the node that is followed and renews: so long before its end the value is not to be relied on any
    /// more.
    pub reliable_lead_ms: Option<u64>,
    /// The site has fetched the present value, before this server did.
    pub adopted: Option<Adopted>,
}

/// Calls close together whose answers never came.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct LostCalls {
    first_ms: BootMs,
    last_ms: BootMs,
}

/// A call that brought a token.
#[derive(Clone, Copy, Debug)]
pub struct RenewalAnswer {
    pub sent_ms: BootMs,
    pub received_ms: BootMs,
    pub expires_in_s: u64,
    pub told: LifetimeSource,
    /// The value is the one we have.
    pub same: bool,
}

/// What is known of a value that the site has fetched itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Adopted {
    /// Its end.
    WithEnd,
    /// It may end at any time, and by then at the latest.
    WithoutEnd,
}

/// Of a value whose age is not known, a client may rely on so much: it is tried twice as often.
const ADOPTED_RELIABLE_MS: u64 = 60_000;
/// How often an adopted value is tried: others still fetch, and each fetch ends it.
pub const ADOPTED_PROBE_MS: u64 = 30_000;
/// Told to other nodes as the life of an adopted value, so that none of them renews it long before its end.
pub const ADOPTED_TOLD_LIFE_MS: u64 = 580_000;

/// Real figures, of which shorter lifetimes take their share.
const WHOLE_LIFE_MS: u64 = 7_200_000;
/// WeChat advises none; a ticket changes every two hours or so, and how often it may be asked is not published.
pub const POLL_MS: u64 = 600_000;
/// A ticket can be relied on for so many polls from any moment on: half an hour. Those replaced by WeChat were seen to
/// work for an hour more.
const POLLS_RELIABLE: u64 = 3;
/// Pause between asks for a value that can be had only when its predecessor is dead.
const AT_END_GAP_MS: u64 = 150;
const OVERLAP_MS: u64 = 300_000;
const CLASSIC_LEAD_MS: u64 = 600_000;
const ASK_GAP_MS_MIN: u64 = 20;
const ASK_GAP_MS_MAX: u64 = 20_000;
/// From half a day's remaining life down to the smallest gap it takes fewer asks than this.
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
    /// Nothing known yet.
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

    /// `learned_ms` with what the present value has taught: what the next value, or the next process, goes by.
    pub fn learned_so_far_ms(&self) -> Option<u64> {
        match (self.learned_ms, self.same_at_ms) {
            (Some(learned), Some(same_at)) => Some(learned.min(same_at)),
            (learned, same_at) => learned.or(same_at),
        }
    }

    /// Milliseconds the value can still be served; 0 without one.
    pub fn left_ms(&self, now_ms: BootMs) -> u64 {
        self.expires_ms.map_or(0, |expires| expires.saturating_sub(now_ms))
    }

    /// True where an ask brings a new value in the ordinary course of things.
    pub fn is_due_soon(&self, now_ms: BootMs) -> bool {
        match self.renewal {
            Renewal::Window { window_ms } => self.left_ms(now_ms) <= window_ms.min(self.longest_ms / 2),
            Renewal::AtEnd => self.left_ms(now_ms) <= 1_000,
            Renewal::Mint | Renewal::Poll => true,
        }
    }

    /// When to ask if nothing has happened yet: at once without a live value, else when a renewal is due.
    pub fn first_try_ms(&self, now_ms: BootMs, random: f64) -> BootMs {
        if self.left_ms(now_ms) == 0 || self.renewal == Renewal::Poll {
            return now_ms;
        }
        self.due_ms(random).max(now_ms).max(self.repeat_from_ms(now_ms))
    }

    /// Takes in an answer; returns when to ask next.
    pub fn record_answer(&mut self, answer: &RenewalAnswer, random: f64) -> BootMs {
        (self.failures, self.blocks) = (0, 0);
        if answer.same {
            self.same_value(answer);
        } else {
            self.new_value(answer);
        }
        let now = answer.received_ms;
        if self.renewal == Renewal::Poll {
            return now + self.poll_ms - part(self.poll_ms, 0.2 * random);
        }
        let due = self.due_ms(random);
        // Once asking has begun it goes on by its gaps: another throw of the dice would ask again a moment later.
        let begun = answer.same && self.due_ms(0.0) <= now;
        let next = if self.left_ms(now) > 0 && due > now && !begun { due } else { now + self.ask_gap_ms(now) };
        next.max(now + self.caution_ms())
    }

    /// The value that was just answered is one that the site has fetched: how old it is, is not known. When the first one
    /// of our own is fetched.
    pub fn record_adopted(&mut self, adopted: Adopted, now_ms: BootMs) -> BootMs {
        // How long it was to live is not known. Taken for less where little of it is left, so that our own fetch comes near
        // its end all the same, and not at once.
        let life_ms = WHOLE_LIFE_MS.min(6 * self.left_ms(now_ms));
        (self.adopted, self.life_ms, self.longest_ms) = (Some(adopted), life_ms, WHOLE_LIFE_MS);
        self.first_try_ms(now_ms, 0.0)
    }

    /// Takes over what another node knows of a value that it has fetched.
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

    /// When a value is renewed that another node has fetched: when that one should have done it.
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
        due.max(now_ms) + node_rules::patience_ms(lead, random)
    }

    /// Another node says that the value lives longer than we know: of a polled kind each answer prolongs it.
    pub fn prolong(&mut self, expires_ms: BootMs) {
        if self.renewal == Renewal::Poll && self.withdrawn_ms.is_none() {
            self.expires_ms = self.expires_ms.max(Some(expires_ms));
        }
    }

    /// Takes in a failure; returns when to ask next. `expires_ms` may come closer, never go away.
    pub fn record_failure(&mut self, class: Class, sent: Delivery, sent_ms: BootMs, now: Now, random: f64) -> BootMs {
        self.failures = self.failures.saturating_add(1);
        let doubtful = self.renewal == Renewal::Mint && sent == Delivery::Ambiguous;
        if doubtful {
            self.record_lost_call(sent_ms);
        }
        let left = self.left_ms(now.boot_ms);
        let delay = match class {
            Class::Retry => self.backoff_ms(left, random),
            Class::Wait(Wait::AtLeastMs(ms)) => ms + part(ms, 0.2 * random),
            Class::Wait(Wait::Doubling { first_ms, most_ms }) => {
                let ms = doubled_ms(first_ms, most_ms, u64::from(self.blocks));
                self.blocks = self.blocks.saturating_add(1);
                ms + part(ms, 0.2 * random)
            }
            Class::Wait(Wait::NextDay) => {
                let midnight = ms_to_next_day(now.unix_ms) + part(10 * MINUTE_MS, random);
                midnight.min(60 * MINUTE_MS + part(12 * MINUTE_MS, random))
            }
            Class::Operator(Pace::Soon) => self.paced_ms(MINUTE_MS, 5, left, random),
            Class::Operator(Pace::Slow) | Class::Internal => self.paced_ms(10 * MINUTE_MS, 3, left, random),
        };
        let delay = if doubtful && left > 0 { delay.min(MINUTE_MS).min(self.overlap_ms() / 5) } else { delay };
        (now.boot_ms + delay.max(BACKOFF_FLOOR_MS)).max(self.repeat_from_ms(now.boot_ms))
    }

    /// After a lost call that may have made a token the value has the overlap left, and another token would end it at
    /// once: so it is not made before most of that is over, when those who were told to rely on the value are done.
    pub fn repeat_from_ms(&self, now_ms: BootMs) -> BootMs {
        match self.lost_calls.first() {
            Some(lost) if self.left_ms(now_ms) > 0 => lost.first_ms + self.promised_ms(),
            _ => now_ms,
        }
    }

    /// What clients are told to rely on of a value that a renewal ends: not all of the overlap, so that a call that was
    /// lost can be repeated before that is over.
    fn promised_ms(&self) -> u64 {
        self.overlap_ms() / 4 * 3
    }

    /// How long a call may take: a stalled one must not outlast the value it is to replace.
    pub fn call_deadline_ms(&self, now_ms: BootMs, total_ms: u64) -> u64 {
        match self.left_ms(now_ms) {
            0 => total_ms,
            left => (left / 2).max(1_000).min(total_ms),
        }
    }

    /// The least time between two checks that clients have asked for.
    pub fn check_spacing_ms(&self) -> u64 {
        match self.longest_ms {
            0 => CHECK_SPACING_MS,
            longest => CHECK_SPACING_MS.min(longest / 24).max(BACKOFF_FLOOR_MS),
        }
    }

    /// How long a classic value lives on once another has been minted.
    pub fn overlap_ms(&self) -> u64 {
        OVERLAP_MS.min(self.life_ms / 24)
    }

    /// What our plan leaves of the present value.
    pub fn reliable(&self) -> ReliableUntil {
        let Some(expires) = self.expires_ms else { return ReliableUntil::TO_THE_END };
        // What has been told ends before a lost call is repeated, because the second token ends the value at once. A call
        // that is under way may be making one: the quarter between the two is longer than any call and the way of its answer
        // to all readers.
        let (promised_ms, at_least_ms) = (self.promised_ms(), self.overlap_ms() / 2);
        if let Some(lost) = self.lost_calls.first() {
            return ReliableUntil { until_boot_ms: lost.first_ms.saturating_add(promised_ms), at_least_ms: 0 };
        }
        if self.adopted == Some(Adopted::WithoutEnd) {
            return ReliableUntil { until_boot_ms: 0, at_least_ms: ADOPTED_RELIABLE_MS };
        }
        match (self.renewal, self.reliable_lead_ms) {
            // The platform replaces it at a time of its own, which is seen at the next poll; how long the old one still
            // works is not published.
            (Renewal::Poll, _) => ReliableUntil { until_boot_ms: 0, at_least_ms: POLLS_RELIABLE * self.poll_ms },
            (_, Some(0)) | (Renewal::Window { .. } | Renewal::AtEnd, None) => ReliableUntil::TO_THE_END,
            (_, Some(lead_ms)) => ReliableUntil { until_boot_ms: expires.saturating_sub(lead_ms), at_least_ms },
            (Renewal::Mint, None) => {
                ReliableUntil { until_boot_ms: self.due_ms(1.0).saturating_add(promised_ms), at_least_ms }
            }
        }
    }

    /// A classic call was sent whose answer never came. WeChat may have minted a token we never saw; then ours has only
    /// the overlap left.
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

    /// When the value is worth a try because of lost calls: at once if two of them may have ended it already (the second
    /// token ends the first's predecessor), else shortly before the end they may have given it.
    pub fn lost_call_probe_ms(&self, now_ms: BootMs) -> Option<BootMs> {
        let (first, last) = (self.lost_calls.first()?, self.lost_calls.last()?);
        if self.left_ms(now_ms) == 0 {
            return None;
        }
        let margin = self.overlap_ms() / 30;
        let before_end = self.expires_ms?.saturating_sub(margin).max(now_ms);
        Some(if last.last_ms > first.first_ms && last.last_ms + margin > now_ms { now_ms } else { before_end })
    }

    /// Calls of ours may have ended the value.
    pub fn has_lost_calls(&self) -> bool {
        !self.lost_calls.is_empty()
    }

    /// WeChat has accepted the value in a probe sent at that instant. What it proves: of the calls lost longer ago than
    /// the overlap none has made a token. The value is good for a moment in any case. True if its end has changed.
    pub fn record_accepted(&mut self, probed_ms: BootMs) -> bool {
        let before = self.expires_ms;
        if let Some(expires) = self.withdrawn_ms.take() {
            self.expires_ms = Some(expires);
        }
        let overlap = self.overlap_ms();
        // WeChat's five minutes need not be ours to the second.
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

    /// WeChat has refused the value: it is over, unless a later probe finds it alive.
    pub fn withdraw(&mut self, now_ms: BootMs) {
        let expires = self.expires_ms.unwrap_or(now_ms);
        self.withdrawn_ms.get_or_insert(expires);
        self.expires_ms = Some(expires.min(now_ms));
    }

    /// True for a value that WeChat has refused, until there is another or a probe finds it alive.
    pub fn is_withdrawn(&self) -> bool {
        self.withdrawn_ms.is_some()
    }

    /// The end that a withdrawn value has if the refusal was a false alarm; `None` of one that is not withdrawn.
    pub fn withdrawn_end_ms(&self) -> Option<BootMs> {
        self.withdrawn_ms
    }

    /// WeChat hands out what it refuses, and cannot be told to make another now: when to look again. Ever less often, up
    /// to five minutes apart for a life of two hours; but where the value would have ended, WeChat has another.
    pub fn record_refused_again(&mut self, now_ms: BootMs, random: f64) -> BootMs {
        self.failures = self.failures.saturating_add(1);
        let pace = self.check_spacing_ms() * u64::from(self.failures.clamp(1, 10));
        let next_ms = now_ms + pace - part(pace, 0.2 * random);
        match self.withdrawn_ms {
            Some(end) if now_ms < end => next_ms.min(end),
            // The end is known to a second or so, and to a call's length.
            Some(end) if now_ms < end + 5 * BACKOFF_BASE_MS => next_ms.min(now_ms + BACKOFF_BASE_MS),
            _ => next_ms,
        }
    }

    fn new_value(&mut self, answer: &RenewalAnswer) {
        (self.withdrawn_ms, self.expires_if_none_lost_ms, self.reliable_lead_ms) = (None, None, None);
        self.adopted = None;
        self.lost_calls.clear();
        let told_ms = answer.expires_in_s.saturating_mul(1000);
        if self.expires_ms.is_some() && self.asks == 0 {
            // It changed at the first ask, so the window may be wider than thought: feel for its edge, slowly.
            self.learned_ms = self.learned_ms.map(|ms| (ms + ms / 100).min(self.longest_ms));
        }
        self.learned_ms = self.learned_so_far_ms();
        self.same_at_ms = None;
        // Halving lets a lifetime that WeChat has shortened for good be believed after a few renewals.
        self.longest_ms = told_ms.max(self.longest_ms / 2);
        self.life_ms = told_ms;
        self.asks = 0;
        // A stable value in its last second is as good as dead. A classic one was minted just now.
        let remaining_is_told = matches!(self.renewal, Renewal::Window { .. } | Renewal::AtEnd);
        let dying = answer.told == LifetimeSource::Zero && remaining_is_told;
        self.ends_by_ms = dying.then_some(answer.received_ms + 1_000);
        self.expires_ms = Some(if dying { answer.sent_ms } else { answer.sent_ms + told_ms });
    }

    /// `expires_in` is rounded down, so the value dies in [sent + e, received + e + 1 s): keep what is known better.
    fn same_value(&mut self, answer: &RenewalAnswer) {
        let told_ms = answer.expires_in_s.saturating_mul(1000);
        let earliest = answer.sent_ms + told_ms;
        let current = self.expires_ms.unwrap_or(earliest);
        let expires = match answer.told {
            LifetimeSource::AsGiven if current > answer.received_ms + told_ms + 1_000 => earliest,
            LifetimeSource::AsGiven => current.max(earliest),
            LifetimeSource::Zero => self.said_to_end(answer, current, earliest),
            LifetimeSource::Missing | LifetimeSource::Unusable | LifetimeSource::TooLong
                if current > answer.received_ms =>
            {
                current
            }
            LifetimeSource::Missing | LifetimeSource::Unusable | LifetimeSource::TooLong => earliest,
        };
        self.expires_ms = Some(expires);
        self.longest_ms = self.longest_ms.max(told_ms.min(expires.saturating_sub(answer.sent_ms)));
        self.asks = self.asks.saturating_add(1);
        let left = self.left_ms(answer.received_ms);
        if matches!(self.renewal, Renewal::Window { .. }) && left > 0 {
            let just_later = left - left / 33;
            self.same_at_ms = Some(self.same_at_ms.map_or(just_later, |ms| ms.min(just_later)));
        }
    }

    /// `expires_in` 0: true of a value in its last second. A value still handed out when that second is over shows
    /// that the 0 meant nothing; then it is taken to live a while, as WeChat evidently thinks it does.
    fn said_to_end(&mut self, answer: &RenewalAnswer, current: BootMs, earliest: BootMs) -> BootMs {
        let ends_by = *self.ends_by_ms.get_or_insert(answer.received_ms + 1_000);
        let meaningless = answer.sent_ms >= ends_by || current > answer.received_ms + 1_000;
        match meaningless {
            true if current > answer.received_ms => current.min(earliest),
            true => earliest,
            false => current,
        }
    }

    /// When the renewal of the present value begins.
    fn due_ms(&self, random: f64) -> BootMs {
        let Some(expires) = self.expires_ms else { return 0 };
        let lead = match self.renewal {
            Renewal::Window { window_ms } => {
                let start = self.window_start_ms(window_ms);
                start - part(start, 0.02 * random)
            }
            Renewal::AtEnd | Renewal::Poll => 0,
            // The value after it dooms the one that others still hold: that is left its time.
            Renewal::Mint if self.adopted.is_some() => self.overlap_ms() - self.overlap_ms() / 30,
            Renewal::Mint => {
                let lead = (self.life_ms / 3).max(CLASSIC_LEAD_MS).min(self.life_ms / 2);
                lead + part(lead, 0.03 * random)
            }
        };
        expires.saturating_sub(lead)
    }

    /// How long before the end asking begins: as learned, between just inside the window and half the life.
    fn window_start_ms(&self, window_ms: u64) -> u64 {
        // 290 of 300 s.
        let start = window_ms - window_ms / 30;
        let in_proportion = part(self.longest_ms, 0.96 * window_ms as f64 / WHOLE_LIFE_MS as f64);
        let latest = start.min(in_proportion);
        let earliest = start.min(self.longest_ms / 2).max(latest);
        self.learned_ms.unwrap_or(earliest).clamp(latest, earliest)
    }

    /// The pause between asks near the end: a quarter of what is left, so that a window of any width is met.
    /// Past the end, where upstream hands out what it calls dead, a second at least.
    pub fn ask_gap_ms(&self, now_ms: BootMs) -> u64 {
        match self.left_ms(now_ms) {
            0 if self.renewal == Renewal::AtEnd => AT_END_GAP_MS,
            0 => BACKOFF_BASE_MS,
            left => (left / 4).clamp(ASK_GAP_MS_MIN, ASK_GAP_MS_MAX),
        }
    }

    /// The least pause, once a value has been answered suspiciously often: an upstream that prolongs it a little
    /// each time must not make us spin.
    fn caution_ms(&self) -> u64 {
        match self.asks / ASKS_BEFORE_CAUTION {
            0 => 0,
            times => BACKOFF_BASE_MS << times.min(4),
        }
    }

    /// Exponential with full jitter; closer together when a live value is running out.
    fn backoff_ms(&self, left_ms: u64, random: f64) -> u64 {
        let cap = match left_ms {
            0 if self.renewal == Renewal::Mint && self.failures > 10 => CLASSIC_BACKOFF_CAP_MS,
            0 => BACKOFF_CAP_MS,
            left => (left / 4).clamp(BACKOFF_BASE_MS, BACKOFF_CAP_MS),
        };
        // Without a value somebody is waiting: the first few tries come within a second.
        let doublings = self.failures.saturating_sub(if left_ms == 0 { 3 } else { 1 }).min(16);
        let delay = part((BACKOFF_BASE_MS << doublings).min(cap), random);
        // Never sleep over the end of a live value.
        if left_ms > 0 { delay.min(left_ms / 2) } else { delay }
    }

    /// `first`, twice `first`, … up to `most` times, a little less by jitter. While a value is live it is also tried
    /// at half the time left: what is repaired in time is then noticed in time, for a handful of calls.
    fn paced_ms(&self, first: u64, most: u32, left_ms: u64, random: f64) -> u64 {
        let pace = first * u64::from(self.failures.clamp(1, most));
        let delay = (pace - part(pace, 0.2 * random)).max(first);
        if left_ms > 0 { delay.min((left_ms / 2).max(30_000)) } else { delay }
    }
}

/// Milliseconds to the next midnight in UTC+8.
pub fn ms_to_next_day(unix_ms: i64) -> u64 {
    let into_day = unix_ms.saturating_add(8 * 3_600_000).rem_euclid(DAY_MS);
    u64::try_from(DAY_MS - into_day).unwrap_or(0)
}

/// The wait after so many like it.
fn doubled_ms(first_ms: u32, most_ms: u32, times: u64) -> u64 {
    (u64::from(first_ms) << times.min(16)).min(u64::from(most_ms))
}

fn part(ms: u64, fraction: f64) -> u64 {
    (ms as f64 * fraction.clamp(0.0, 1.0)) as u64
}

pub mod cluster;

#[cfg(test)]
mod tests;
