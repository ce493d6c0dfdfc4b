//! What happens to all credentials: outages between us and WeChat, revoked tokens, a foreign writer, faults of the
//! node.

use std::net::{IpAddr, Ipv4Addr};

use tokencached::platform::Delivery;
use tokencached::sandbox::answer::body;
use tokencached::sandbox::rules::{ApiRequest, World};

use tokencached::clock::Now;

pub const SECOND: u64 = 1_000;
pub const MINUTE: u64 = 60 * SECOND;
pub const HOUR: u64 = 60 * MINUTE;
pub const DAY: u64 = 24 * HOUR;
/// The month begins here, on WeChat's clock.
pub const START: u64 = 10 * DAY;
/// 2026-03-01 00:00 in UTC+8, when WeChat's clock stands at 0.
const UNIX_BASE: i64 = 1_772_294_400_000;
pub const PEER: IpAddr = IpAddr::V4(Ipv4Addr::new(203, 0, 113, 7));

/// True time, as WeChat sees it.
pub fn true_now(t: u64) -> Now {
    Now { boot_ms: t, unix_ms: UNIX_BASE + t as i64 }
}

/// What becomes of a call.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum NetworkState {
    Fine,
    /// Nothing gets through: DNS, routes, refused connections.
    Down,
    /// Calls may arrive, answers never do.
    Stalled,
    /// Answers take from 1 to 20 s.
    Slow,
    /// So many percent of the calls go wrong.
    Errors(u64),
}

pub type Span = (u64, u64);

#[derive(Debug)]
pub struct Timeline {
    pub end: u64,
    /// In order, never overlapping.
    spells: Vec<(Span, NetworkState)>,
}

/// From `least` to `most`, short ones as likely per octave as long ones.
pub fn log_uniform(rng: &mut fastrand::Rng, least: u64, most: u64) -> u64 {
    let ratio = most as f64 / least as f64;
    (least as f64 * ratio.powf(rng.f64())) as u64
}

/// Waiting time of a thing that happens every `mean` on average.
pub fn exponential(rng: &mut fastrand::Rng, mean: u64) -> u64 {
    (-(1.0 - rng.f64()).ln() * mean as f64) as u64 + 1
}

impl Timeline {
    pub fn new(days: u64, seed: u64) -> Timeline {
        let mut rng = fastrand::Rng::with_seed(seed);
        let end = START + days * DAY;
        let (mut spells, mut t) = (Vec::new(), START + HOUR);
        loop {
            t += exponential(&mut rng, 14 * HOUR);
            let (long, weather) = match rng.u8(0..10) {
                0..3 => (log_uniform(&mut rng, MINUTE, 5 * HOUR), NetworkState::Down),
                3..5 => (log_uniform(&mut rng, MINUTE, 2 * HOUR), NetworkState::Stalled),
                5..7 => (log_uniform(&mut rng, 5 * MINUTE, HOUR), NetworkState::Slow),
                _ => (log_uniform(&mut rng, MINUTE, 40 * MINUTE), NetworkState::Errors(rng.u64(20..95))),
            };
            if t + long >= end {
                return Timeline { end, spells };
            }
            spells.push(((t, t + long), weather));
            t += long;
        }
    }

    pub fn weather(&self, t: u64) -> NetworkState {
        let after = self.spells.partition_point(|((from, _), _)| *from <= t);
        match after.checked_sub(1).map(|i| self.spells[i]) {
            Some(((_, to), weather)) if t < to => weather,
            _ => NetworkState::Fine,
        }
    }

    /// True if WeChat could be reached for `long` on end in the `window` before `t`.
    pub fn was_reachable(&self, t: u64, window: u64, long: u64) -> bool {
        let from = t.saturating_sub(window);
        let first = self.spells.partition_point(|((_, to), _)| *to <= from);
        let near = self.spells[first..].iter().map(|(span, _)| *span).take_while(|(begin, _)| *begin < t);
        longest_clear(from, t, near) >= long
    }

    /// When upstream was not fine, in order.
    pub fn bad_spans(&self) -> impl Iterator<Item = Span> {
        self.spells.iter().map(|(span, _)| *span)
    }

    /// Total length of the spells that `which` picks, in ms.
    pub fn total(&self, which: impl Fn(NetworkState) -> bool) -> u64 {
        self.spells.iter().filter(|(_, weather)| which(*weather)).map(|((from, to), _)| to - from).sum()
    }
}

/// The longest stretch in [from, to) that no bad span touches.
pub fn longest_clear(from: u64, to: u64, bad: impl Iterator<Item = Span>) -> u64 {
    let mut bad: Vec<Span> = bad.filter(|(a, b)| *a < to && *b > from).collect();
    bad.sort_unstable();
    let (mut clear_from, mut longest) = (from, 0);
    for (a, b) in bad {
        longest = longest.max(a.saturating_sub(clear_from));
        clear_from = clear_from.max(b);
    }
    longest.max(to.saturating_sub(clear_from))
}

/// True if nothing touches [from, to).
pub fn is_clear(from: u64, to: u64, mut bad: impl Iterator<Item = Span>) -> bool {
    bad.all(|(a, b)| b <= from || a >= to)
}

/// What the caller of a call gets.
#[derive(Clone, Debug)]
pub enum Reply {
    Http(u16, String),
    Lost(Delivery),
}

/// How a call will go, settled when it is sent.
#[derive(Clone, Copy, Debug)]
pub struct CallOutcome {
    /// When WeChat works on it, if it ever does.
    pub arrives: Option<u64>,
    /// When its sender knows how it went.
    pub back: u64,
    damage: Damage,
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum Damage {
    None,
    NotSent,
    NoAnswer,
    Busy,
    Gateway,
    Torn,
    Empty,
}

/// There and back in fine weather. A reader is held for 700 ms, time for two trips.
const TRIP_MS: std::ops::Range<u64> = 40..300;

impl CallOutcome {
    pub fn of(weather: NetworkState, t: u64, deadline: u64, rng: &mut fastrand::Rng) -> CallOutcome {
        let trip = rng.u64(TRIP_MS);
        let fate = |arrives: Option<u64>, after: u64, damage| CallOutcome { arrives, back: t + after, damage };
        let soon = Some(t + trip / 2);
        match weather {
            NetworkState::Down if rng.bool() => fate(None, 5, Damage::NotSent),
            NetworkState::Down => fate(None, deadline.min(3 * SECOND), Damage::NotSent),
            NetworkState::Stalled => fate(soon.filter(|_| rng.bool()), deadline, Damage::NoAnswer),
            NetworkState::Slow => {
                let trip = rng.u64(SECOND..20 * SECOND);
                let arrives = Some(t + trip / 2);
                if trip > deadline {
                    fate(arrives, deadline, Damage::NoAnswer)
                } else {
                    fate(arrives, trip, Damage::None)
                }
            }
            NetworkState::Errors(percent) if rng.u64(0..100) < percent => match rng.u8(0..5) {
                0 => fate(None, trip, Damage::Busy),
                1 => fate(soon.filter(|_| rng.u8(0..10) < 3), trip, Damage::Gateway),
                2 => fate(soon, trip, Damage::Torn),
                3 => fate(soon, trip, Damage::Empty),
                _ => fate(soon.filter(|_| rng.bool()), trip, Damage::NoAnswer),
            },
            NetworkState::Fine | NetworkState::Errors(_) => fate(soon, trip, Damage::None),
        }
    }

    /// WeChat's part, at the instant of arrival; gives what will come back.
    pub fn arrived(&self, world: &mut World, ask: &ApiRequest, t: u64) -> Reply {
        let text = body(&world.ask(ask, PEER, true_now(t)));
        match self.damage {
            Damage::None => Reply::Http(200, text),
            Damage::Torn => Reply::Http(200, text[..text.len() * 2 / 3].to_owned()),
            _ => self.never_arrived(),
        }
    }

    /// What comes back of a call that WeChat's token service never worked on, or whose answer was lost.
    pub fn never_arrived(&self) -> Reply {
        match self.damage {
            Damage::NotSent => Reply::Lost(Delivery::NotSent),
            Damage::Busy => Reply::Http(200, r#"{"errcode":-1,"errmsg":"system error"}"#.to_owned()),
            Damage::Gateway => Reply::Http(502, "<html>Bad Gateway</html>".to_owned()),
            Damage::Empty => Reply::Http(200, String::new()),
            Damage::None | Damage::NoAnswer | Damage::Torn => Reply::Lost(Delivery::Ambiguous),
        }
    }
}
