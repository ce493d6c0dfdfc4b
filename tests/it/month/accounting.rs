//! The records: what each credential's readers got, one read a second, exact and without sampling.
//!
//! A credential shows a value, or makes readers wait, or has no value, or the process is down. Each such period ends
//! with the next one, and its reads are counted by arithmetic. Only reads of a value that WeChat refuses are made one
//! by one (`node.rs`), because each of them is followed by a report and a second read.
//!
//! Pure: times come in as values.

use super::timeline::{MINUTE, SECOND, Span, is_clear, longest_clear};

/// A period this long without a fault must be enough for a renewal: the longest pause between two tries while a value
/// lives, and two calls that hang.
pub const REACHABLE_MS: u64 = 75 * SECOND;
/// How long a reader waits for a value and for a verification.
pub const HOLD_MS: u64 = 700;

/// The second to which WeChat tells an end, the pause between asks there, and two calls.
const TO_THE_SECOND_MS: u64 = 1_000 + 150 + 2 * 300;

/// What a credential shows to a reader.
#[derive(Clone, Debug, PartialEq)]
pub enum Shown {
    /// The process is down, or the machine is suspended: there are no reads.
    Down,
    /// No value yet; a reader waits a moment.
    Waiting,
    Nothing,
    /// `ends` in true time; then readers wait, or not.
    Value {
        value: String,
        ends: u64,
        then_waits: bool,
    },
}

/// Why a token that was served was refused.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub enum Cause {
    /// None that the simulation knows.
    #[default]
    Unknown,
    /// Revoked at WeChat; the node was not told.
    Revoked,
    /// Revoked, and WeChat itself still answers with it.
    Unnoticed,
    ForeignWriter,
    /// Our own classic calls whose answers were lost.
    OwnCalls,
    /// Served too long after a start with a wrong wall clock.
    WrongClock,
}

pub const CAUSES: [(Cause, &str); 6] = [
    (Cause::Revoked, "revoked"),
    (Cause::Unnoticed, "revoked, still handed out"),
    (Cause::ForeignWriter, "foreign writer"),
    (Cause::OwnCalls, "own lost answers"),
    (Cause::WrongClock, "wrong clock"),
    (Cause::Unknown, "unexplained"),
];

/// Reads and calls of one credential, or of all of a kind.
#[derive(Clone, Debug, Default)]
pub struct Counts {
    /// Reads while the node was running.
    pub reads: u64,
    /// Got an accepted value at once, or after being held for it.
    pub at_once: u64,
    /// Were refused, reported it, and got an accepted value at the second read.
    pub at_second: u64,
    /// First reads refused, by cause.
    pub refused: [u64; 6],
    /// Ended without an accepted value: although WeChat was within reach in the renewal window,
    pub lost: u64,
    /// because it was not,
    pub excused: u64,
    /// because WeChat itself had none to give,
    pub none_to_give: u64,
    /// just after a start or a suspend, the value found being over or not believed,
    pub after_start: u64,
    /// or waited without result at the expiry of a value whose next one exists only then: WeChat tells that to the
    /// second.
    pub at_its_end: u64,
    pub known_dead: u64,
    /// The longest time, WeChat being within reach, that a value was served which WeChat refused.
    pub longest_dead_ms: u64,
    /// Milliseconds that readers waited.
    pub held_ms: u64,
    /// The longest time from the end of a fault to the next good value.
    pub longest_tail_ms: u64,
    pub longest_start_ms: u64,
    /// Calls for a value, and probes.
    pub calls: u64,
    pub probes: u64,
    /// Calls for a value, sent while nothing was wrong.
    pub fine_calls: u64,
    pub most_a_day: u64,
    pub over_quota_days: u64,
    pub most_in_flight: u32,
    pub faults: Vec<String>,
}

/// Why readers have no value.
#[derive(Clone, Debug)]
struct Trouble {
    since: u64,
    why: Why,
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum Why {
    /// The value ended before it was renewed.
    Ended { in_reach: bool },
    /// WeChat refuses the value.
    Dead { in_reach: bool },
    /// A start, or the end of a suspend.
    Start,
}

pub struct ReadRecord {
    pub counts: Counts,
    pub name: String,
    /// Reads come at this millisecond of each second.
    phase: u64,
    /// How long before its end a value can be renewed.
    lead_ms: u64,
    /// It can be renewed only when it has expired.
    at_end: bool,
    /// WeChat takes it in calls, so it can be judged.
    pub judged: bool,
    from: u64,
    /// Since when the value shown can have been renewed.
    window_from: u64,
    pub shown: Shown,
    /// When WeChat begins to refuse the value shown, as things stand.
    pub dies: u64,
    trouble: Option<Trouble>,
    pub cause: Cause,
    pub cause_at: u64,
    /// When the last call whose answer comes back was at WeChat.
    pub answered_at: u64,
    /// The running chain of refused readers.
    pub chain: u64,
    last_look: u64,
    looks: u64,
    /// WeChat itself answers only with a refused token until then.
    pub doomed_until: u64,
    pub barred: Vec<Span>,
    pub known_dead: Option<(String, u64)>,
    pub last_value: Option<String>,
}

/// Outages between all credentials and WeChat, besides the credential's own.
pub struct Outages<'a> {
    pub weather: &'a [Span],
    pub node: &'a [Span],
}

/// A chain of refused readers to be started: its number, and when the first of them comes.
pub type Chain = (u64, u64);

impl ReadRecord {
    pub fn new(name: String, phase: u64, lead_ms: u64, at_end: bool, judged: bool, from: u64) -> ReadRecord {
        ReadRecord {
            counts: Counts::default(),
            name,
            phase,
            lead_ms,
            at_end,
            judged,
            from,
            window_from: from,
            shown: Shown::Down,
            dies: u64::MAX,
            trouble: Some(Trouble { since: from, why: Why::Start }),
            cause: Cause::Unknown,
            cause_at: 0,
            answered_at: 0,
            chain: 0,
            last_look: 0,
            looks: 0,
            doomed_until: 0,
            barred: Vec::new(),
            known_dead: None,
            last_value: None,
        }
    }

    /// The reads in [from, to).
    fn reads(&self, from: u64, to: u64) -> u64 {
        let until = |t: u64| (t + 999 - self.phase) / 1_000;
        until(to.max(from)) - until(from)
    }

    /// The first read at or after `t`.
    fn next_read(&self, t: u64) -> u64 {
        t + (self.phase + 1_000 - t % 1_000) % 1_000
    }

    fn bad<'a>(&'a self, sky: &'a Outages<'_>) -> impl Iterator<Item = Span> + 'a {
        // A repaired allow-list is noticed within 5 minutes.
        let barred = self.barred.iter().map(|(from, to)| (*from, to + 6 * MINUTE));
        sky.weather.iter().chain(sky.node).copied().chain(barred)
    }

    /// There was no fault for a while, and there is none for the time of two calls.
    fn calm_around(&self, t: u64, sky: &Outages<'_>) -> bool {
        is_clear(t.saturating_sub(REACHABLE_MS), t + 2 * HOLD_MS, self.bad(sky))
    }

    pub fn is_fine(&self, t: u64, sky: &Outages<'_>) -> bool {
        is_clear(t, t + 1, self.bad(sky))
    }

    /// Something else is shown from `t` on, which WeChat refuses from `dies` on.
    pub fn turn(&mut self, t: u64, next: Shown, dies: u64, sky: &Outages<'_>) -> Option<Chain> {
        self.end_value(t, sky);
        if self.shown == Shown::Waiting && next == Shown::Waiting {
            return None;
        }
        let good_next = matches!(next, Shown::Value { .. }) && dies > t;
        match self.shown.clone() {
            Shown::Down => {}
            Shown::Waiting => self.gap((self.from, t), true, good_next, sky),
            Shown::Nothing => self.gap((self.from, t), false, good_next, sky),
            Shown::Value { .. } => {
                self.close_value(t, sky);
                if matches!(next, Shown::Waiting | Shown::Nothing) && self.trouble.is_none() {
                    // Withdrawn before its expiry: a probe has found it refused before any reader did.
                    let why = Why::Dead { in_reach: self.calm_around(t, sky) };
                    self.trouble = Some(Trouble { since: t, why });
                }
            }
        }
        if good_next {
            self.recovered(t, sky);
        }
        self.open_value(&next);
        (self.from, self.shown, self.dies) = (t, next, dies);
        self.start_chain(t)
    }

    fn open_value(&mut self, next: &Shown) {
        let Shown::Value { value, ends, .. } = next else { return };
        let window_from = ends.saturating_sub(self.lead_ms);
        // A nearer end, because of lost calls, does not open the window any earlier.
        let same = self.last_value.as_ref() == Some(value);
        self.window_from = if same { window_from.max(self.window_from) } else { window_from };
        self.last_value = Some(value.clone());
    }

    /// A value that was over before `t` has been followed by what comes without anybody's doing.
    fn end_value(&mut self, t: u64, sky: &Outages<'_>) {
        if let Shown::Value { ends, then_waits, .. } = self.shown
            && ends < t
        {
            self.close_value(ends, sky);
            (self.from, self.shown) = (ends.max(self.from), if then_waits { Shown::Waiting } else { Shown::Nothing });
        }
    }

    /// The process ends or begins, or the machine falls asleep or wakes.
    pub fn note_start(&mut self, t: u64) {
        self.trouble.get_or_insert(Trouble { since: t, why: Why::Start });
    }

    fn close_value(&mut self, to: u64, sky: &Outages<'_>) {
        let to = to.max(self.from);
        let dead_from = self.dies.max(self.from);
        if self.judged && dead_from < to {
            let dead_ms = longest_clear(dead_from, to, self.bad(sky));
            self.counts.longest_dead_ms = self.counts.longest_dead_ms.max(dead_ms);
        }
        let all = self.reads(self.from, to);
        let dead = if self.judged { self.reads(self.dies.clamp(self.from, to), to) } else { 0 };
        self.counts.reads += all;
        self.counts.at_once += all - dead;
        if self.looks.abs_diff(dead) > 1 {
            let text = format!("{} refused reads by arithmetic, {} made", dead, self.looks);
            self.fault(&text, to);
        }
        self.looks = 0;
    }

    /// Readers found nothing in [a, b); the last of them were held until there was something.
    fn gap(&mut self, (a, b): Span, waits: bool, then_good: bool, sky: &Outages<'_>) {
        if self.trouble.is_none() {
            let window = longest_clear(self.window_from.min(a), a, self.bad(sky)) >= REACHABLE_MS;
            let in_reach = if self.at_end { self.calm_around(a, sky) } else { window };
            self.trouble = Some(Trouble { since: a, why: Why::Ended { in_reach } });
        }
        self.end_of_doom(b, sky);
        let held_from = if waits && then_good { b.saturating_sub(HOLD_MS).max(a) } else { b };
        let doomed_to = self.doomed_until.clamp(a, held_from.max(a));
        let (held, missed) = (self.reads(held_from, b), self.reads(doomed_to, held_from));
        let doomed = self.reads(a, doomed_to);
        self.counts.none_to_give += doomed;
        self.counts.reads += held + missed + doomed;
        self.counts.at_once += held;
        self.counts.held_ms += held * (b - held_from) / 2;
        if missed > 0 {
            let why = self.trouble.as_ref().map(|trouble| trouble.why);
            if self.at_end && then_good && b - a < TO_THE_SECOND_MS && why == Some(Why::Ended { in_reach: true }) {
                self.counts.at_its_end += missed;
                return;
            }
            self.without(missed, doomed_to, &format!("nothing for {} ms, waiting: {waits}", b - a));
        }
    }

    /// From the instant on at which WeChat has another token to give, it counts whether it could be reached then.
    fn end_of_doom(&mut self, t: u64, sky: &Outages<'_>) {
        let (ends, in_reach) = (self.doomed_until, self.calm_around(self.doomed_until, sky));
        if let Some(trouble) = &mut self.trouble
            && (trouble.since..t).contains(&ends)
            && trouble.why != Why::Start
        {
            *trouble = Trouble { since: ends + 1, why: Why::Ended { in_reach } };
        }
    }

    /// Reads that ended without an accepted value.
    fn without(&mut self, reads: u64, t: u64, what: &str) {
        let why = self.trouble.as_ref().map(|trouble| trouble.why);
        let counts = &mut self.counts;
        match why {
            Some(Why::Start) => counts.after_start += reads,
            _ if t < self.doomed_until => counts.none_to_give += reads,
            Some(Why::Ended { in_reach: false } | Why::Dead { in_reach: false }) => counts.excused += reads,
            _ => {
                counts.lost += reads;
                let text = format!("{what}, {reads} reads, {why:?}, {:?} at {}", self.cause, self.cause_at);
                self.fault(&text, t);
            }
        }
    }

    pub fn fault(&mut self, what: &str, t: u64) {
        let text = format!("{}: {what}, at {t} ms", self.name);
        self.counts.faults.push(text);
    }

    /// A good value is there again.
    fn recovered(&mut self, t: u64, sky: &Outages<'_>) {
        let Some(trouble) = self.trouble.take() else { return };
        let doomed = (0, self.doomed_until);
        let spans = self.bad(sky).chain([doomed]).filter(|(from, _)| *from < t);
        let last_bad = spans.map(|(_, to)| to.min(t)).max().unwrap_or(0);
        let tail = t - last_bad.max(trouble.since);
        let weather_was_fine =
            is_clear(trouble.since, t, sky.weather.iter().copied().chain(self.barred.iter().copied()));
        match trouble.why {
            Why::Start if weather_was_fine => {
                self.counts.longest_start_ms = self.counts.longest_start_ms.max(t - trouble.since);
            }
            Why::Start => {}
            _ => self.counts.longest_tail_ms = self.counts.longest_tail_ms.max(tail),
        }
    }

    /// WeChat refuses the value shown from `dies` on: who reads then?
    pub fn start_chain(&mut self, t: u64) -> Option<Chain> {
        self.chain += 1;
        let Shown::Value { ends, .. } = self.shown else { return None };
        let first = self.next_read(self.dies.max(t).max(self.last_look + 1).min(u64::MAX / 2));
        (self.judged && self.dies < ends && first < ends).then_some((self.chain, first))
    }

    /// A reader of the chain comes at `t`: gives when the next one does, or `None` if the chain is over.
    pub fn look(&mut self, chain: u64, t: u64, sky: &Outages<'_>) -> Option<u64> {
        let Shown::Value { ends, .. } = self.shown else { return None };
        if self.chain != chain || t >= ends {
            return None;
        }
        (self.looks, self.last_look) = (self.looks + 1, t);
        self.counts.refused[self.cause as usize] += 1;
        let calm = self.calm_around(t, sky);
        let reachable = longest_clear(self.dies, t, self.bad(sky)) >= REACHABLE_MS;
        if self.cause == Cause::Unknown && (calm || reachable) {
            self.fault("a reader was refused out of the blue", t);
        }
        match &mut self.trouble {
            Some(Trouble { why: Why::Dead { in_reach }, .. }) => *in_reach |= reachable,
            Some(_) => {}
            None => self.trouble = Some(Trouble { since: t, why: Why::Dead { in_reach: calm || reachable } }),
        }
        Some(t + SECOND)
    }

    /// True if a probe had told us before `t` that this is dead.
    pub fn was_known_dead(&mut self, value: &str, t: u64) -> bool {
        let known = self.known_dead.as_ref().is_some_and(|(dead, since)| dead == value && *since < t);
        self.counts.known_dead += u64::from(known);
        known
    }

    /// How the second read of a refused reader went. `None`: the node went away.
    pub fn second(&mut self, t: u64, good: Option<bool>) {
        match good {
            Some(true) => self.counts.at_second += 1,
            Some(false) => self.without(1, t, "refused twice"),
            None => self.counts.after_start += 1,
        }
    }

    /// Something happened that may end the value shown.
    pub fn blame(&mut self, cause: Cause, t: u64) {
        (self.cause, self.cause_at) = (cause, t);
    }

    /// Another value is shown: what happened before WeChat gave it is no excuse any more.
    pub fn new_value(&mut self) {
        if self.cause_at <= self.answered_at {
            self.cause = Cause::Unknown;
        }
    }
}

impl Counts {
    pub fn add(&mut self, other: &Counts) {
        self.reads += other.reads;
        self.at_once += other.at_once;
        self.at_second += other.at_second;
        self.refused.iter_mut().zip(other.refused).for_each(|(sum, more)| *sum += more);
        self.lost += other.lost;
        self.excused += other.excused;
        self.none_to_give += other.none_to_give;
        self.after_start += other.after_start;
        self.at_its_end += other.at_its_end;
        self.known_dead += other.known_dead;
        self.longest_dead_ms = self.longest_dead_ms.max(other.longest_dead_ms);
        self.held_ms += other.held_ms;
        self.longest_tail_ms = self.longest_tail_ms.max(other.longest_tail_ms);
        self.longest_start_ms = self.longest_start_ms.max(other.longest_start_ms);
        self.calls += other.calls;
        self.probes += other.probes;
        self.fine_calls += other.fine_calls;
        self.most_a_day = self.most_a_day.max(other.most_a_day);
        self.over_quota_days += other.over_quota_days;
        self.most_in_flight = self.most_in_flight.max(other.most_in_flight);
        self.faults.extend(other.faults.iter().cloned());
    }

    pub fn good(&self) -> u64 {
        self.at_once + self.at_second
    }

    pub fn accounted(&self) -> u64 {
        self.in_reach() + self.excused + self.none_to_give + self.after_start + self.at_its_end
    }

    /// Reads that WeChat's being within reach should have served.
    pub fn in_reach(&self) -> u64 {
        self.good() + self.lost
    }
}
