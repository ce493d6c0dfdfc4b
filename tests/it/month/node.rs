//! Our node in virtual time: the real policy, state arithmetic and answer reader, around a model of the driver.
//!
//! Names follow `src/credential/refresher.rs`, so that the two can be compared line by line.

use std::cmp::Reverse;
use std::collections::{BinaryHeap, VecDeque};

use tokencached::clock::Now;
use tokencached::credential::policy::{Answer, BACKOFF_FLOOR_MS, POLL_MS, Standing};
use tokencached::credential::state::{Entry, Name, Snapshot, Worth};
use tokencached::kind::{self, Kind, Renewal};
use tokencached::sandbox::rules::{Ask, World};
use tokencached::sandbox::{AppKind, AppOptions, Options, Verdict};
use tokencached::upstream::{Class, Failure, Probe, Sent, Told, answer};

use super::timeline::{
    DAY, Fate, HOUR, MINUTE, PEER, Reply, SECOND, START, Span, Timeline, exponential, log_uniform, longest_clear,
    true_now,
};

/// What the configuration has unless told otherwise.
const CALL_MS: u64 = 8_000;
const CONCURRENCY: usize = 16;
/// Until the state is on disk.
const DISK_MS: u64 = 20;
const SPREAD_MS: u64 = 10;
/// A stretch of good weather so long within a renewal window must be enough for a renewal.
pub const REACHABLE_MS: u64 = 75 * SECOND;
/// Readers wait so long for a value that is sure to be under way.
const READERS_WAIT_MS: u64 = 700;

struct App {
    appid: String,
    secret: String,
    kind: AppKind,
    token: &'static Kind,
    tickets: Vec<&'static Kind>,
    rogue: bool,
}

/// Why a token that was served was refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Death {
    /// Revoked at WeChat, or killed by the rogue: nobody told the node.
    Revoked,
    /// Revoked, and WeChat itself still hands it out.
    RevokedUnnoticed,
    Rogue,
    /// Our own classic calls whose answers were lost.
    LostAnswers,
    /// Believed too long by a start whose wall clock was behind.
    WrongClock,
}

#[derive(Clone)]
struct Published {
    value: String,
    generation: u64,
    /// On the node's boot clock.
    expires_ms: u64,
}

struct Slot {
    app: usize,
    kind: &'static Kind,
    parent: Option<usize>,
    children: Vec<usize>,
    name: Name,
    standing: Standing,
    published: Option<Published>,
    fetched: Option<Now>,
    urgent_check: Option<bool>,
    timer: u64,
    next_ms: u64,
    flying: bool,
    checked_ms: Option<u64>,
    entry: Option<Entry>,
    disk: Option<Entry>,
    book: Book,
    /// True time since which readers find nothing, while the node runs.
    missing_since: Option<u64>,
    /// True time at which the last value ended.
    ended: u64,
    death: Option<Death>,
    death_at: u64,
    /// True time since which the value can have been served.
    served_from: u64,
    /// True time at which its renewal window begins.
    window_from: u64,
    /// When the last call for a value was sent.
    sent_t: u64,
    /// The chain of looks at a dead value that is under way.
    watch: Option<u64>,
    /// WeChat has told us that the value is dead.
    known_dead: bool,
    /// The last start found a value and did not believe it, or it was over.
    disbelieved: bool,
    in_flight: u32,
}

/// What one credential's readers and WeChat saw.
#[derive(Clone, Debug, Default)]
pub struct Book {
    pub calls: u64,
    pub probes: u64,
    pub limited: u64,
    /// Refused reads at one a second, by cause: indexed by `Death`.
    pub refused: [u64; 5],
    pub known_dead: u64,
    /// The same, while upstream had been within reach for long enough to repair it.
    pub refused_late: u64,
    /// Milliseconds without a value: renewal window covered by trouble; readers waiting for what is under way.
    pub missed_excused_ms: u64,
    pub missed_fault_ms: u64,
    /// After a start that did not believe the value it found.
    pub restart_ms: u64,
    pub longest_restart_ms: u64,
    /// The longest time from the end of the trouble to the next value.
    pub longest_tail_ms: u64,
    /// Calls sent while nothing was wrong.
    pub fine_calls: u64,
    /// Of the samples taken while nothing was wrong.
    pub fine_samples: u64,
    pub fine_accepted: u64,
    day: u64,
    day_calls: u64,
    pub most_a_day: u64,
    pub waited_ms: u64,
    pub start_ms: u64,
    /// And those nothing excuses.
    pub faults: Vec<String>,
    pub most_in_flight: u32,
    pub barred: Vec<Span>,
    pub longest_death_ms: [u64; 5],
    died_at: u64,
}

struct Call {
    slot: usize,
    check: bool,
    probing: bool,
    ask: Ask,
    sent_ms: u64,
    life: u32,
    held: Option<String>,
    fate: Fate,
    reply: Reply,
    /// Of a check: the answer that is being probed.
    token: Option<(answer_token::Token, u64, u64)>,
    parent_generation: u64,
}

use tokencached::upstream as answer_token;

enum Event {
    Due { slot: usize, timer: u64 },
    Arrive(Box<Call>),
    Back(Box<Call>),
    Look { slot: usize, chain: Option<u64> },
    Ended { slot: usize, generation: u64 },
    Persisted { slot: usize, life: u32, pending: Option<Published> },
    Kill { app: usize, noticed: bool },
    Rogue { app: usize },
    Bar { app: usize, long: u64 },
    Unbar { app: usize },
    Down { kill: bool, long: u64, reboot: bool },
    Up { reboot: bool },
    Suspend { long: u64 },
    Rearm { life: u32 },
    Jump { by: i64 },
    Sample,
}

struct Timed(u64, u64, Event);
impl PartialEq for Timed {
    fn eq(&self, other: &Timed) -> bool {
        self.1 == other.1
    }
}
impl Eq for Timed {}
impl PartialOrd for Timed {
    fn partial_cmp(&self, other: &Timed) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}
impl Ord for Timed {
    fn cmp(&self, other: &Timed) -> std::cmp::Ordering {
        (self.0, self.1).cmp(&(other.0, other.1))
    }
}

/// What the samplers saw: accepted, refused, nothing there.
#[derive(Clone, Copy, Debug, Default)]
pub struct Samples {
    pub accepted: u64,
    pub refused: u64,
    pub missing: u64,
}

pub struct Sim<'a> {
    line: &'a Timeline,
    world: World,
    rng: fastrand::Rng,
    apps: Vec<App>,
    slots: Vec<Slot>,
    queue: BinaryHeap<Reverse<Timed>>,
    seq: u64,
    t: u64,
    /// Counts the processes.
    life: u32,
    running: bool,
    landing: bool,
    asleep_until: u64,
    boot_origin: u64,
    boot: u32,
    wall_off: i64,
    written: Now,
    written_boot: u32,
    permits: usize,
    waiting: VecDeque<(usize, bool)>,
    node_bad: Vec<Span>,
    down_ms: u64,
    sample_ms: u64,
    pub samples: Samples,
}

/// One line of the result.
#[derive(Clone, Debug)]
pub struct Row {
    pub name: &'static str,
    pub credentials: u64,
    pub book: Book,
    pub up_s: u64,
    pub least_calls: f64,
}

fn plan(n: usize, rng: &mut fastrand::Rng) -> App {
    let (kind, token, tickets): (AppKind, &'static Kind, Vec<&'static Kind>) = match n % 20 {
        0..8 => (AppKind::Mp, &kind::mp::STABLE, vec![]),
        8..11 => (AppKind::Mp, &kind::mp::STABLE, vec![&kind::mp::JSAPI, &kind::mp::WX_CARD]),
        11..15 => (AppKind::Mp, &kind::mp::CLASSIC, vec![]),
        15 => (AppKind::Mp, &kind::qq::TOKEN, vec![]),
        16..19 => (AppKind::Wecom, &kind::wecom::TOKEN, vec![]),
        _ => (AppKind::Wecom, &kind::wecom::TOKEN, vec![&kind::wecom::JSAPI, &kind::wecom::AGENT]),
    };
    let prefix = if kind == AppKind::Mp { "wx" } else { "ww" };
    App {
        appid: format!("{prefix}{n:016x}"),
        secret: format!("secret-{n}-{:08x}", rng.u32(..)),
        kind,
        token,
        tickets,
        rogue: n % 4 == 3,
    }
}

impl<'a> Sim<'a> {
    pub fn new(line: &'a Timeline, count: usize, sample_ms: u64, seed: u64) -> Sim<'a> {
        let mut rng = fastrand::Rng::with_seed(seed);
        let apps: Vec<App> = (0..count).map(|n| plan(n, &mut rng)).collect();
        let options = Options {
            apps: apps
                .iter()
                .map(|app| AppOptions {
                    appid: app.appid.clone(),
                    secret: app.secret.clone(),
                    kind: app.kind,
                    ..AppOptions::default()
                })
                .collect(),
            token_len: 32,
            ..Options::default()
        };
        let mut slots: Vec<Slot> = Vec::new();
        for (n, app) in apps.iter().enumerate() {
            let parent = slots.len();
            slots.push(Slot::new(n, app, app.token, None));
            for ticket in &app.tickets {
                let child = slots.len();
                slots[parent].children.push(child);
                slots.push(Slot::new(n, app, ticket, Some(parent)));
            }
        }
        let mut sim = Sim {
            line,
            world: World::new(&options, seed),
            rng,
            apps,
            slots,
            queue: BinaryHeap::new(),
            seq: 0,
            t: START,
            life: 0,
            running: false,
            landing: false,
            asleep_until: 0,
            boot_origin: START - 50 * SECOND,
            boot: 1,
            wall_off: 0,
            written: Now { boot_ms: 0, unix_ms: 0 },
            written_boot: 0,
            permits: CONCURRENCY,
            waiting: VecDeque::new(),
            node_bad: Vec::new(),
            down_ms: 0,
            sample_ms,
            samples: Samples::default(),
        };
        sim.plan_mishaps();
        sim.at(START, Event::Up { reboot: false });
        sim.at(START + SECOND, Event::Sample);
        sim
    }

    fn plan_mishaps(&mut self) {
        let days = (self.line.end - START) / DAY;
        for app in 0..self.apps.len() {
            // Three revocations a month, one of eight not noticed by WeChat's own token service.
            let mut t = START + HOUR;
            loop {
                t += exponential(&mut self.rng, 10 * DAY);
                if t >= self.line.end {
                    break;
                }
                let noticed = self.rng.u8(0..8) > 0;
                self.at(t, Event::Kill { app, noticed });
            }
            if self.apps[app].rogue && self.apps[app].kind == AppKind::Mp {
                let t = START + self.rng.u64(DAY..2 * DAY);
                self.at(t, Event::Rogue { app });
            }
            if self.rng.u8(0..4) == 0 {
                let (t, long) =
                    (START + self.rng.u64(DAY..days * DAY), log_uniform(&mut self.rng, 10 * MINUTE, 6 * HOUR));
                self.at(t, Event::Bar { app, long });
            }
        }
        for n in 0..days {
            let t = START + n * DAY + self.rng.u64(HOUR..20 * HOUR);
            let event = match n % 6 {
                0 => Event::Down { kill: false, long: self.rng.u64(SECOND..5 * SECOND), reboot: false },
                1 => Event::Down { kill: true, long: self.rng.u64(SECOND..3 * SECOND), reboot: false },
                2 => Event::Jump { by: if self.rng.bool() { 3_600_000 } else { -3_600_000 } },
                3 => Event::Suspend { long: log_uniform(&mut self.rng, 5 * MINUTE, 4 * HOUR) },
                4 => Event::Down { kill: self.rng.bool(), long: self.rng.u64(30 * SECOND..3 * MINUTE), reboot: true },
                _ => Event::Jump { by: 0 },
            };
            self.at(t, event);
            // Hard ends where they hurt most: at any time of the day, some while calls are under way.
            let again = START + n * DAY + self.rng.u64(21 * HOUR..23 * HOUR);
            self.at(again, Event::Down { kill: true, long: 800, reboot: false });
        }
    }

    fn at(&mut self, t: u64, event: Event) {
        self.seq += 1;
        self.queue.push(Reverse(Timed(t, self.seq, event)));
    }

    pub fn run(&mut self) {
        while let Some(Reverse(Timed(t, _, event))) = self.queue.pop() {
            if t >= self.line.end {
                break;
            }
            self.t = t;
            self.happen(event);
        }
        self.t = self.line.end;
        for slot in 0..self.slots.len() {
            self.close_value(slot);
            self.close_miss(slot);
        }
    }

    fn now(&self) -> Now {
        Now { boot_ms: self.boot_ms(), unix_ms: true_now(self.t).unix_ms + self.wall_off }
    }

    fn boot_ms(&self) -> u64 {
        self.t - self.boot_origin
    }

    fn happen(&mut self, event: Event) {
        let asleep = self.t < self.asleep_until;
        match event {
            Event::Due { slot, timer } => {
                if timer == self.slots[slot].timer && self.running && !self.landing {
                    self.due(slot);
                }
            }
            Event::Arrive(mut call) => {
                call.reply = call.fate.arrived(&mut self.world, &call.ask, self.t);
                let slot = call.slot;
                if matches!(call.ask, Ask::Classic { .. }) {
                    self.minted_classic(slot);
                }
                let back = call.fate.back;
                self.at(back, Event::Back(call));
            }
            Event::Back(call) if asleep => self.at(self.asleep_until, Event::Back(call)),
            Event::Back(call) => self.back(*call),
            Event::Look { slot, chain } if asleep => self.at(self.asleep_until + SECOND, Event::Look { slot, chain }),
            Event::Look { slot, chain } => self.look(slot, chain),
            Event::Ended { slot, generation } => self.ended(slot, generation),
            Event::Persisted { slot, life, pending } => {
                if life == self.life {
                    self.slots[slot].save();
                    (self.written, self.written_boot) = (self.now(), self.boot);
                    if let Some(published) = pending {
                        self.put(slot, published);
                        self.serve_children(slot);
                        self.finish(slot);
                    }
                }
            }
            Event::Kill { app, noticed } => self.kill(app, noticed),
            Event::Rogue { app } => self.rogue(app),
            Event::Bar { app, long } => {
                self.world.set_allowlist(&self.apps[app].appid, Some(vec![]));
                let span = (self.t, self.t + long);
                self.slots.iter_mut().filter(|slot| slot.app == app).for_each(|slot| slot.book.barred.push(span));
                self.at(self.t + long, Event::Unbar { app });
            }
            Event::Unbar { app } => {
                self.world.set_allowlist(&self.apps[app].appid, None);
            }
            Event::Down { kill, long, reboot } => self.down(kill, long, reboot),
            Event::Up { reboot } => self.up(reboot),
            Event::Suspend { long } => self.suspend(long),
            Event::Rearm { life } => {
                if life == self.life && self.running {
                    for slot in 0..self.slots.len() {
                        if !self.slots[slot].flying {
                            self.arm(slot, self.slots[slot].next_ms);
                        }
                    }
                }
            }
            Event::Jump { by } => self.wall_off = by,
            Event::Sample => self.sample(),
        }
    }
}

/// The readers.
impl Sim<'_> {
    fn reading(&self, slot: usize) -> Option<&Published> {
        self.slots[slot].published.as_ref().filter(|published| self.boot_ms() < published.expires_ms)
    }

    fn can_read(&self) -> bool {
        self.running && !self.landing && self.t >= self.asleep_until
    }

    fn sample(&mut self) {
        self.at(self.t + self.sample_ms, Event::Sample);
        let slot = self.rng.usize(0..self.slots.len());
        if !self.can_read() {
            return;
        }
        let fine = !self.bad(slot).any(|(from, to)| from <= self.t && self.t < to);
        let judged = self.reading(slot).map(|held| self.judge(slot, &held.value, self.t));
        self.slots[slot].book.fine_samples += u64::from(fine);
        match judged {
            Some(Verdict::Accepted) => {
                self.samples.accepted += 1;
                self.slots[slot].book.fine_accepted += u64::from(fine);
            }
            Some(_) => {
                self.samples.refused += 1;
                assert!(self.slots[slot].death.is_some(), "the books do not know of a refusal");
            }
            None => {
                self.samples.missing += 1;
                assert!(self.slots[slot].missing_since.is_some(), "the books do not know of a miss");
            }
        }
    }

    fn judge(&self, slot: usize, value: &str, t: u64) -> Verdict {
        // No business call takes a ticket; its value is trusted as the policy trusts it.
        if self.slots[slot].parent.is_some() { Verdict::Accepted } else { self.world.judge(value, true_now(t)) }
    }

    /// A refused reader where none was expected is a fault of the policy.
    fn note_fault(&mut self, slot: usize, what: &str, t: u64) {
        let (t, standing) = (t - START, self.slots[slot].standing.clone());
        let name = &self.slots[slot].name;
        let text = format!("{} {}: {what}, {t} ms: {standing:?}", name.appid, name.endpoint);
        self.slots[slot].book.faults.push(text);
    }

    /// One of the readers that come each second. `chain`: one after another, as long as the token is refused.
    fn look(&mut self, slot: usize, chain: Option<u64>) {
        if self.slots[slot].watch != chain {
            return;
        }
        let held = self.reading(slot).cloned();
        let dead = held.as_ref().is_some_and(|held| self.judge(slot, &held.value, self.t) != Verdict::Accepted);
        if !dead || !self.can_read() {
            self.slots[slot].watch = None;
            return;
        }
        if self.slots[slot].death.is_none() {
            self.note_fault(slot, "a reader was refused out of the blue", self.t);
        }
        self.seq += 1;
        let watch = *self.slots[slot].watch.get_or_insert(self.seq);
        let it = &mut self.slots[slot];
        if chain.is_none() {
            it.book.died_at = self.t;
        }
        let death = it.death.unwrap_or(Death::LostAnswers);
        it.book.refused[death as usize] += 1;
        it.book.known_dead += u64::from(it.known_dead);
        let since = it.book.died_at;
        it.book.longest_death_ms[death as usize] = it.book.longest_death_ms[death as usize].max(self.t - since);
        if death != Death::RevokedUnnoticed && self.clear(slot, since, self.t) > REACHABLE_MS {
            self.slots[slot].book.refused_late += 1;
        }
        self.reported(slot, held.map_or(0, |held| held.generation));
        self.at(self.t + SECOND, Event::Look { slot, chain: Some(watch) });
    }

    /// What stood between the credential and a renewal.
    fn bad(&self, slot: usize) -> impl Iterator<Item = Span> {
        // A repaired allow-list is noticed within 5 minutes.
        let barred = self.slots[slot].book.barred.iter().map(|(from, to)| (*from, to + 6 * MINUTE));
        self.line.bad_spans().chain(self.node_bad.iter().copied()).chain(barred)
    }

    /// The longest stretch in which nothing did.
    fn clear(&self, slot: usize, from: u64, to: u64) -> u64 {
        longest_clear(from, to, self.bad(slot))
    }

    /// The value is replaced or over: was it accepted to its last instant? Then it was all the time before.
    fn close_value(&mut self, slot: usize) {
        let Some(held) = &self.slots[slot].published else { return };
        let last = (held.expires_ms + self.boot_origin).min(self.t).saturating_sub(1);
        let it = &self.slots[slot];
        if it.death == Some(Death::WrongClock) && it.watch.is_none() {
            let dead = (it.served_from..=last).rev().step_by(1_000);
            let reads = dead.take_while(|t| self.judge(slot, &held.value, *t) != Verdict::Accepted).count() as u64;
            let book = &mut self.slots[slot].book;
            book.refused[4] += reads;
            book.longest_death_ms[4] = book.longest_death_ms[4].max(reads * SECOND);
            return;
        }
        let explained = self.slots[slot].death.is_some();
        if self.running
            && !explained
            && last >= self.slots[slot].served_from
            && self.judge(slot, &held.value, last) != Verdict::Accepted
        {
            self.note_fault(slot, "served though dead", last);
        }
    }

    fn ended(&mut self, slot: usize, generation: u64) {
        let Some(held) = &self.slots[slot].published else { return };
        if !self.running || held.generation != generation || self.boot_ms() < held.expires_ms {
            return;
        }
        let ends = held.expires_ms + self.boot_origin;
        self.close_value(slot);
        self.slots[slot].ended = ends;
        if self.slots[slot].missing_since.is_none() && self.can_read() {
            self.slots[slot].missing_since = Some(self.t);
        }
    }

    /// Readers find something again, or nobody can read: judges the time in which there was nothing.
    fn close_miss(&mut self, slot: usize) {
        let Some(from) = self.slots[slot].missing_since.take() else { return };
        let missed = self.t - from;
        let it = &self.slots[slot];
        if it.ended == 0 {
            self.slots[slot].book.start_ms += missed;
            return;
        }
        if missed <= READERS_WAIT_MS {
            self.slots[slot].book.waited_ms += missed;
            return;
        }
        let before = self.clear(slot, it.window_from.min(it.ended), from);
        let bad = self.bad(slot).filter(|(from, _)| *from < self.t);
        let last_bad = bad.map(|(_, to)| to.min(self.t)).max().unwrap_or(from);
        let tail = self.t - last_bad.max(from);
        // A start that could not trust the clock, or found its value over, has what comes after it for a window.
        let disbelieved = self.slots[slot].disbelieved;
        let barred = self.slots[slot].book.barred.iter().copied();
        let troubled = self.line.bad_spans().chain(barred).any(|(a, b)| a < self.t && b > from);
        if disbelieved && !troubled {
            let book = &mut self.slots[slot].book;
            book.restart_ms += missed;
            book.longest_restart_ms = book.longest_restart_ms.max(missed);
            return;
        }
        if before >= REACHABLE_MS && !disbelieved {
            self.slots[slot].book.missed_fault_ms += missed;
            self.note_fault(slot, &format!("nothing for {missed} ms, clear for {before} ms ahead"), from);
            return;
        }
        let book = &mut self.slots[slot].book;
        book.missed_excused_ms += missed;
        book.longest_tail_ms = book.longest_tail_ms.max(tail);
    }
}

/// What befalls tokens and the node.
impl Sim<'_> {
    fn token_slot(&self, app: usize) -> usize {
        self.slots.iter().position(|slot| slot.app == app && slot.parent.is_none()).unwrap_or(0)
    }

    fn kill(&mut self, app: usize, noticed: bool) {
        let slot = self.token_slot(app);
        let appid = &self.apps[app].appid;
        let known = if noticed { self.world.kill_tokens(appid) } else { self.world.kill_tokens_unnoticed(appid) };
        assert!(known);
        // Each classic call makes a new one: WeChat's not noticing changes nothing there.
        let lasting = !noticed && self.slots[slot].kind.renewal != Renewal::Mint;
        if lasting {
            // Tickets can't be had with a token that WeChat refuses and yet does not replace.
            let span = (self.t, self.slots[slot].ended + MINUTE);
            for child in self.slots[slot].children.clone() {
                self.slots[child].book.barred.push(span);
            }
        }
        self.die(slot, if lasting { Death::RevokedUnnoticed } else { Death::Revoked });
        let soon = self.t + self.rng.u64(0..SECOND);
        self.at(soon, Event::Look { slot, chain: None });
    }

    fn die(&mut self, slot: usize, death: Death) {
        (self.slots[slot].death, self.slots[slot].death_at) = (Some(death), self.t);
    }

    /// A forgotten script that fetches its own token every so often.
    fn rogue(&mut self, app: usize) {
        let next = self.t + self.rng.u64(HOUR..10 * HOUR);
        self.at(next, Event::Rogue { app });
        let (appid, secret) = (Some(self.apps[app].appid.clone()), Some(self.apps[app].secret.clone()));
        self.world.ask(&Ask::Classic { grant_type: grant(), appid, secret }, PEER, true_now(self.t));
        let slot = self.token_slot(app);
        if self.slots[slot].kind.renewal == Renewal::Mint {
            self.die(slot, Death::Rogue);
            self.minted_classic(slot);
        }
    }

    /// Whoever minted: the readers of the value before find out now (two calls in a row) or in five minutes.
    fn minted_classic(&mut self, slot: usize) {
        for after in [0, 5 * MINUTE] {
            let t = self.t + after + self.rng.u64(1..SECOND);
            self.at(t, Event::Look { slot, chain: None });
        }
    }

    fn down(&mut self, kill: bool, long: u64, reboot: bool) {
        if !self.can_read() {
            return;
        }
        for slot in 0..self.slots.len() {
            self.close_value(slot);
            self.close_miss(slot);
        }
        if !kill {
            // A graceful end waits for calls under way, and writes.
            let landed = self.slots.iter().any(|slot| slot.flying);
            self.landing = true;
            self.node_bad.push((self.t, self.t + long + 18 * SECOND));
            self.down_ms += long + if landed { CALL_MS } else { 0 };
            let t = self.t + long + if landed { CALL_MS } else { 0 };
            self.waiting.clear();
            self.at(t, Event::Up { reboot });
            return;
        }
        self.node_bad.push((self.t, self.t + long + 10 * SECOND));
        self.down_ms += long;
        self.running = false;
        self.life += 1;
        self.at(self.t + long, Event::Up { reboot });
    }

    fn up(&mut self, reboot: bool) {
        if self.landing {
            for slot in &mut self.slots {
                slot.save();
            }
            (self.written, self.written_boot) = (self.now(), self.boot);
        }
        self.life += 1;
        (self.running, self.landing, self.permits) = (true, false, CONCURRENCY);
        self.waiting.clear();
        if reboot {
            self.boot += 1;
            self.boot_origin = self.t - 20 * SECOND;
            // The hardware clock may be an hour off until somebody corrects it.
            self.wall_off = [0, 3_600_000, -3_600_000][self.rng.usize(0..3)];
        }
        let (now, boot_id) = (self.now(), self.boot.to_string());
        let snapshot = Snapshot {
            written_unix_ms: self.written.unix_ms,
            written_boot_ms: self.written.boot_ms,
            boot_id: self.written_boot.to_string(),
            entries: Vec::new(),
            ledgers: Vec::new(),
            grants: Vec::new(),
        };
        for slot in 0..self.slots.len() {
            self.slots[slot].reset();
            if let Some(entry) = self.slots[slot].disk.clone() {
                let worth = snapshot.worth(&entry, now, &boot_id);
                let entry = entry.rebased(worth, now);
                self.restore(slot, entry, worth, now);
            }
            if self.reading(slot).is_none() {
                self.slots[slot].missing_since = Some(self.t);
            }
        }
        self.schedule_all();
    }

    fn suspend(&mut self, long: u64) {
        if !self.can_read() {
            return;
        }
        self.asleep_until = self.t + long;
        for slot in 0..self.slots.len() {
            self.close_miss(slot);
            if !self.slots[slot].flying {
                // Tokio's clock stands still.
                let next = self.slots[slot].next_ms;
                self.arm(slot, (next + long).max(self.boot_ms() + long));
                self.slots[slot].next_ms = next;
            }
        }
        self.node_bad.push((self.t, self.asleep_until + 15 * SECOND));
        self.down_ms += long;
        let (tick, life) = (self.asleep_until + self.rng.u64(0..5 * SECOND), self.life);
        self.at(tick, Event::Rearm { life });
        for slot in 0..self.slots.len() {
            // Whoever reads right after waking finds what there is.
            let generation = self.slots[slot].published.as_ref().map_or(0, |held| held.generation);
            self.at(self.asleep_until, Event::Ended { slot, generation });
        }
    }
}

/// The driver.
impl Sim<'_> {
    fn schedule_all(&mut self) {
        let (now_ms, spread_ms) = (self.boot_ms(), self.slots.len() as u64 * SPREAD_MS);
        let mut urgent = 0;
        for slot in 0..self.slots.len() {
            let mut at_ms = self.slots[slot].standing.first_try_ms(now_ms, self.rng.f64());
            if at_ms <= now_ms || self.slots[slot].urgent_check.is_some() {
                urgent += 1;
                at_ms = if urgent <= CONCURRENCY { now_ms } else { now_ms + self.rng.u64(0..=spread_ms) };
            }
            self.arm(slot, at_ms);
        }
    }

    fn arm(&mut self, slot: usize, at_ms: u64) {
        self.seq += 1;
        let timer = self.seq;
        self.slots[slot].timer = timer;
        self.slots[slot].next_ms = at_ms;
        let t = (at_ms + self.boot_origin).max(self.t);
        self.at(t, Event::Due { slot, timer });
    }

    fn due(&mut self, slot: usize) {
        if self.slots[slot].flying {
            return;
        }
        let live = self.slots[slot].standing.left_ms(self.boot_ms()) > 0;
        let check = self.slots[slot].urgent_check.take() == Some(true) && live;
        self.start(slot, check);
    }

    fn start(&mut self, slot: usize, check: bool) {
        self.slots[slot].flying = true;
        if self.slots[slot].kind.renewal == Renewal::Mint {
            let unix_ms = self.now().unix_ms;
            if let Some(entry) = &mut self.slots[slot].entry {
                entry.intent_unix_ms.get_or_insert(unix_ms);
                // The call waits for it to reach the disk.
                self.slots[slot].save();
                (self.written, self.written_boot) = (self.now(), self.boot);
            }
        }
        if self.permits == 0 {
            self.waiting.push_back((slot, check));
        } else {
            self.permits -= 1;
            self.take_off(slot, check);
        }
    }

    fn take_off(&mut self, slot: usize, check: bool) {
        let it = &self.slots[slot];
        let held = it.published.as_ref().map(|held| held.value.clone());
        let probing = check && it.kind.renewal == Renewal::Mint && it.kind.probe.is_some() && held.is_some();
        self.send(slot, check, probing, held, None);
    }

    fn send(
        &mut self,
        slot: usize,
        check: bool,
        probing: bool,
        held: Option<String>,
        token: Option<(answer_token::Token, u64, u64)>,
    ) {
        let (sent_ms, it) = (self.boot_ms(), &self.slots[slot]);
        let parent = it.parent.map(|parent| self.reading(parent).map(|held| (held.value.clone(), held.generation)));
        let Some((parent, parent_generation)) = parent.unwrap_or_else(|| Some((String::new(), 0))) else {
            let failure = Failure::transport("", Sent::NotSent, "the app has no live access token to ask with");
            return self.failed_and_finish(slot, check, &failure, sent_ms);
        };
        let probed = token.as_ref().map(|(token, ..)| String::from_utf8_lossy(&token.value).into_owned());
        let ask =
            if probing { Ask::DomainIp { token: probed.or_else(|| held.clone()) } } else { self.ask(slot, parent) };
        let deadline = it.standing.call_deadline_ms(sent_ms, CALL_MS);
        let fate = Fate::of(self.line.weather(self.t), self.t, deadline, &mut self.rng);
        let fine = !self.bad(slot).any(|(from, to)| from <= self.t && self.t < to);
        let book = &mut self.slots[slot].book;
        let day = true_now(self.t).unix_ms as u64 / DAY;
        if day != book.day {
            (book.day, book.day_calls) = (day, 0);
        }
        book.day_calls += 1;
        book.most_a_day = book.most_a_day.max(book.day_calls);
        book.fine_calls += u64::from(fine && !probing);
        *if probing { &mut book.probes } else { &mut book.calls } += 1;
        self.slots[slot].in_flight += 1;
        if !probing {
            self.slots[slot].sent_t = self.t;
        }
        self.slots[slot].book.most_in_flight = self.slots[slot].book.most_in_flight.max(self.slots[slot].in_flight);
        let reply = fate.never_arrived();
        let call =
            Call { slot, check, probing, ask, sent_ms, life: self.life, held, fate, reply, token, parent_generation };
        match fate.arrives {
            Some(t) => self.at(t, Event::Arrive(Box::new(call))),
            None => self.at(fate.back, Event::Back(Box::new(call))),
        }
    }

    fn ask(&self, slot: usize, token: String) -> Ask {
        let (it, app) = (&self.slots[slot], &self.apps[self.slots[slot].app]);
        let (appid, secret) = (Some(app.appid.clone()), Some(app.secret.clone()));
        match it.kind.id {
            "stable_token" => Ask::Stable { grant_type: grant(), appid, secret, force: false },
            "token" | "qq_token" => Ask::Classic { grant_type: grant(), appid, secret },
            "wecom_token" => Ask::Wecom { corpid: appid, secret },
            "jsapi_ticket" => Ask::Ticket { token: Some(token), kind: Some("jsapi".into()) },
            "wx_card_ticket" => Ask::Ticket { token: Some(token), kind: Some("wx_card".into()) },
            "wecom_jsapi_ticket" => Ask::CorpTicket { token: Some(token) },
            "wecom_agent_ticket" => Ask::AgentTicket { token: Some(token), kind: Some("agent_config".into()) },
            other => panic!("no call for {other}"),
        }
    }

    /// What `Flight::fly` does with what comes back, and `Driver::landed`.
    fn back(&mut self, call: Call) {
        if call.life != self.life {
            return;
        }
        let slot = call.slot;
        self.slots[slot].in_flight -= 1;
        if call.probing {
            return self.probed(call);
        }
        let kind = self.slots[slot].kind;
        let read = match &call.reply {
            Reply::Http(status, text) => answer::token(&kind.shape, "", &[], *status, text.as_bytes()),
            Reply::Lost(sent) => Err(Failure::transport("", *sent, "lost")),
        };
        match read {
            Ok(token) => {
                let same = call.held.as_deref().map(str::as_bytes) == Some(&token.value);
                let received_ms = self.boot_ms();
                if call.check && same && kind.probe.is_some() {
                    let (held, sent_ms) = (call.held, call.sent_ms);
                    return self.send(slot, true, true, held, Some((token, sent_ms, received_ms)));
                }
                self.answered(slot, token, call.sent_ms, received_ms, None);
            }
            Err(mut failure) => {
                self.slots[slot].book.limited += u64::from(matches!(failure.errcode, Some(45009 | 45011)));
                let parent = self.slots[slot].parent;
                let refused = parent.filter(|_| matches!(failure.errcode, Some(40001 | 40014 | 41001 | 42001)));
                if refused.is_some() {
                    failure.class = Class::Retry;
                }
                self.failed_and_finish(slot, call.check, &failure, call.sent_ms);
                if let Some(parent) = refused {
                    self.reported(parent, call.parent_generation);
                }
            }
        }
    }

    fn probed(&mut self, call: Call) {
        let slot = call.slot;
        let probe = match &call.reply {
            Reply::Http(status, text) => answer::probe(*status, text.as_bytes()),
            Reply::Lost(_) => Probe::Unknown,
        };
        let dead = matches!(probe, Probe::Dead(_));
        self.slots[slot].known_dead |= dead && call.held.is_some();
        match call.token {
            Some((token, sent_ms, received_ms)) => self.answered(slot, token, sent_ms, received_ms, Some(probe)),
            None if dead => self.send(slot, true, false, call.held, None),
            None => {
                self.intent_over(slot);
                self.arm(slot, self.slots[slot].next_ms);
                self.finish(slot);
            }
        }
    }

    fn answered(&mut self, slot: usize, token: answer_token::Token, sent_ms: u64, received_ms: u64, _: Option<Probe>) {
        let (random, now) = (self.rng.f64(), self.now());
        let it = &mut self.slots[slot];
        let value = String::from_utf8_lossy(&token.value).into_owned();
        let same = it.published.as_ref().is_some_and(|held| held.value == value);
        let answer = Answer { sent_ms, received_ms, expires_in_s: token.expires_in_s, told: token.told, same };
        let next_ms = it.standing.answered(&answer, random);
        let generation = it.published.as_ref().map_or(0, |held| held.generation) + u64::from(!same);
        if !same {
            it.fetched = Some(Now { boot_ms: received_ms, ..now });
        }
        let published = Published { value, generation, expires_ms: it.standing.expires_ms.unwrap_or(sent_ms) };
        it.entry = Some(it.make_entry(&published, now));
        let waits = !same && it.kind.renewal == Renewal::Mint;
        self.arm(slot, next_ms);
        let life = self.life;
        if waits {
            self.at(self.t + DISK_MS, Event::Persisted { slot, life, pending: Some(published) });
            return;
        }
        self.at(self.t + DISK_MS, Event::Persisted { slot, life, pending: None });
        self.put(slot, published);
        self.serve_children(slot);
        self.finish(slot);
        debug_assert!(token.told != Told::TooLong);
    }

    fn put(&mut self, slot: usize, published: Published) {
        let generation = published.generation;
        let nearer = self.slots[slot]
            .published
            .as_ref()
            .is_some_and(|held| held.value == published.value && published.expires_ms < held.expires_ms);
        let lead = self.slots[slot].lead_ms();
        let ends = published.expires_ms + self.boot_origin;
        let is_new = self.slots[slot].published.as_ref().is_none_or(|held| held.value != published.value);
        if is_new {
            self.close_value(slot);
            let it = &mut self.slots[slot];
            if it.death_at < it.sent_t {
                it.death = None;
            }
            (it.known_dead, it.watch, it.served_from) = (false, None, self.t);
        }
        self.slots[slot].published = Some(published);
        if self.reading(slot).is_some() {
            self.close_miss(slot);
            self.slots[slot].ended = ends;
            self.slots[slot].disbelieved = false;
        }
        if !nearer {
            self.slots[slot].window_from = ends.saturating_sub(lead);
        }
        self.at(ends.max(self.t), Event::Ended { slot, generation });
        if self.slots[slot].death.is_some() {
            let soon = self.t + self.rng.u64(0..SECOND);
            self.at(soon, Event::Look { slot, chain: None });
        }
    }

    fn failed_and_finish(&mut self, slot: usize, check: bool, failure: &Failure, sent_ms: u64) {
        let (now, random) = (self.now(), self.rng.f64());
        let it = &mut self.slots[slot];
        let live = it.standing.left_ms(now.boot_ms) > 0;
        let harmless = check && it.kind.renewal != Renewal::Mint && live;
        let next_ms =
            if harmless { it.next_ms } else { it.standing.failed(failure.class, failure.sent, sent_ms, now, random) };
        if it.kind.renewal == Renewal::Mint && failure.sent == Sent::Ambiguous && it.death.is_none() {
            it.death = Some(Death::LostAnswers);
        }
        let nearer = it.standing.expires_ms.zip(it.published.clone()).filter(|(ms, held)| *ms < held.expires_ms);
        match nearer {
            Some((expires_ms, held)) => {
                let published = Published { expires_ms, ..held };
                it.entry = Some(it.make_entry(&published, now));
                let life = self.life;
                self.at(self.t + DISK_MS, Event::Persisted { slot, life, pending: None });
                self.put(slot, published);
            }
            None if failure.sent != Sent::Ambiguous => self.intent_over(slot),
            None => {}
        }
        self.arm(slot, next_ms);
        self.finish(slot);
    }

    fn intent_over(&mut self, slot: usize) {
        if let Some(entry) = &mut self.slots[slot].entry {
            entry.intent_unix_ms = None;
        }
        let life = self.life;
        self.at(self.t + DISK_MS, Event::Persisted { slot, life, pending: None });
    }

    /// The flight is over; the next in line for a permit takes off.
    fn finish(&mut self, slot: usize) {
        self.slots[slot].flying = false;
        match self.waiting.pop_front() {
            Some((next, check)) => self.take_off(next, check),
            None => self.permits += 1,
        }
    }

    fn serve_children(&mut self, slot: usize) {
        let poll_ms = (self.slots[slot].standing.longest_ms / 12).clamp(BACKOFF_FLOOR_MS, POLL_MS);
        let now_ms = self.boot_ms();
        for child in self.slots[slot].children.clone() {
            self.slots[child].standing.poll_ms = poll_ms;
            if !self.slots[child].flying && self.slots[child].standing.left_ms(now_ms) == 0 {
                self.arm(child, now_ms);
            }
        }
    }

    fn reported(&mut self, slot: usize, generation: u64) {
        let now_ms = self.boot_ms();
        let it = &mut self.slots[slot];
        let late = it.published.as_ref().map_or(0, |held| held.generation) != generation;
        let nothing_live = it.standing.left_ms(now_ms) == 0;
        let spacing = it.standing.check_spacing_ms();
        let lately = it.checked_ms.is_some_and(|checked| now_ms < checked + spacing);
        if it.flying || late || nothing_live || lately {
            return;
        }
        it.checked_ms = Some(now_ms);
        self.start(slot, true);
    }

    fn restore(&mut self, slot: usize, entry: Entry, worth: Worth, now: Now) {
        let it = &mut self.slots[slot];
        it.standing.longest_ms = entry.longest_ms;
        it.standing.learned_ms = entry.learned_ms;
        it.standing.life_ms = entry.life_ms;
        let mut left_ms = worth.left_ms;
        if let Some(intent) = entry.intent_unix_ms {
            let since = u64::try_from(now.unix_ms.saturating_sub(intent)).unwrap_or(0);
            left_ms = left_ms.min(it.standing.overlap_ms().saturating_sub(since));
            it.urgent_check = Some(false);
            if it.death.is_none() {
                it.death = Some(Death::LostAnswers);
            }
        } else if worth.suspicious {
            it.urgent_check = Some(true);
            it.death = it.death.or(Some(Death::WrongClock));
        }
        it.fetched = Some(Now { boot_ms: entry.fetched_boot_ms, unix_ms: entry.fetched_unix_ms });
        let expires_ms = now.boot_ms + left_ms;
        it.standing.expires_ms = Some(expires_ms);
        let (value, generation) = (entry.value.clone(), entry.generation.max(1));
        it.entry = Some(entry);
        it.published = Some(Published { value, generation, expires_ms });
        it.disbelieved = left_ms == 0;
        it.ended = expires_ms + self.boot_origin;
        it.served_from = self.t;
        it.window_from = it.ended.saturating_sub(it.lead_ms());
        let ends = self.slots[slot].ended;
        self.at(ends.max(self.t), Event::Ended { slot, generation });
        let soon = self.t + self.rng.u64(0..SECOND);
        self.at(soon, Event::Look { slot, chain: None });
    }
}

impl Slot {
    fn new(number: usize, app: &App, kind: &'static Kind, parent: Option<usize>) -> Slot {
        Slot {
            app: number,
            kind,
            parent,
            children: Vec::new(),
            name: Name::of(kind, &app.appid, "https://wechat.example"),
            standing: Standing::new(kind.renewal),
            published: None,
            fetched: None,
            urgent_check: None,
            timer: 0,
            next_ms: 0,
            flying: false,
            checked_ms: None,
            entry: None,
            disk: None,
            book: Book::default(),
            missing_since: None,
            ended: 0,
            death: None,
            death_at: 0,
            served_from: 0,
            window_from: 0,
            sent_t: 0,
            watch: None,
            known_dead: false,
            disbelieved: false,
            in_flight: 0,
        }
    }

    /// A new process knows nothing but the state; and what the books say.
    fn reset(&mut self) {
        self.standing = Standing::new(self.kind.renewal);
        (self.published, self.fetched, self.urgent_check, self.checked_ms) = (None, None, None, None);
        (self.flying, self.in_flight, self.entry, self.ended, self.watch) = (false, 0, None, 0, None);
        (self.known_dead, self.disbelieved) = (false, false);
    }

    /// How long before its end a value can be renewed.
    fn lead_ms(&self) -> u64 {
        match self.kind.renewal {
            Renewal::Window { window_ms } => window_ms - window_ms / 30,
            Renewal::Mint => 2_400 * SECOND,
            Renewal::AtEnd => 0,
            Renewal::Poll => 7_200 * SECOND - 2 * POLL_MS,
        }
    }

    fn save(&mut self) {
        self.disk.clone_from(&self.entry);
    }

    fn make_entry(&self, published: &Published, now: Now) -> Entry {
        let fetched = self.fetched.unwrap_or(now);
        Entry {
            name: self.name.clone(),
            value: published.value.clone(),
            generation: published.generation,
            expires_unix_ms: now.unix_ms + published.expires_ms as i64 - now.boot_ms as i64,
            expires_boot_ms: published.expires_ms,
            fetched_unix_ms: fetched.unix_ms,
            fetched_boot_ms: fetched.boot_ms,
            life_ms: self.standing.life_ms,
            longest_ms: self.standing.longest_ms,
            learned_ms: self.standing.learned_so_far_ms(),
            intent_unix_ms: None,
            withdrawn: false,
        }
    }
}

/// The result.
impl Sim<'_> {
    pub fn rows(&self) -> Vec<Row> {
        let up_ms = self.line.end - START - self.down_ms;
        let mut rows: Vec<Row> = Vec::new();
        for slot in &self.slots {
            let (name, life_s) = match slot.kind.renewal {
                Renewal::Window { .. } => ("stable_token", 6_900),
                Renewal::Mint => ("classic token (and QQ)", 7_200),
                Renewal::AtEnd => ("WeCom token", 7_200),
                Renewal::Poll => ("tickets", 7_200),
            };
            let at = rows.iter().position(|row| row.name == name).unwrap_or_else(|| {
                rows.push(Row { name, credentials: 0, book: Book::default(), up_s: 0, least_calls: 0.0 });
                rows.len() - 1
            });
            let row = &mut rows[at];
            row.credentials += 1;
            row.up_s += up_ms / SECOND;
            row.least_calls += (self.line.end - START) as f64 / SECOND as f64 / f64::from(life_s);
            row.book.add(&slot.book);
        }
        rows
    }
}

impl Book {
    pub fn add(&mut self, other: &Book) {
        self.calls += other.calls;
        self.probes += other.probes;
        self.limited += other.limited;
        for n in 0..5 {
            self.refused[n] += other.refused[n];
            self.longest_death_ms[n] = self.longest_death_ms[n].max(other.longest_death_ms[n]);
        }
        self.known_dead += other.known_dead;
        self.refused_late += other.refused_late;
        self.missed_excused_ms += other.missed_excused_ms;
        self.missed_fault_ms += other.missed_fault_ms;
        self.restart_ms += other.restart_ms;
        self.longest_restart_ms = self.longest_restart_ms.max(other.longest_restart_ms);
        self.longest_tail_ms = self.longest_tail_ms.max(other.longest_tail_ms);
        self.fine_calls += other.fine_calls;
        self.fine_samples += other.fine_samples;
        self.fine_accepted += other.fine_accepted;
        self.most_a_day = self.most_a_day.max(other.most_a_day);
        self.waited_ms += other.waited_ms;
        self.start_ms += other.start_ms;
        self.most_in_flight = self.most_in_flight.max(other.most_in_flight);
        self.faults.extend(other.faults.iter().cloned());
    }
}

fn grant() -> Option<String> {
    Some("client_credential".into())
}
