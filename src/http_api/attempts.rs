//! Wrong secrets and wrong keys: counted by address and by what they were for, so that guessing is slow and the log can
//! say who still uses an old one.
//!
//! Never asked about a right one: that passes, whatever else has come from the same address.

use std::net::IpAddr;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use parking_lot::Mutex;

use super::limits::{Allowance, Rate, Recent};
use crate::address_group::address_group;
use crate::clock::BootMs;

/// Wrong ones that are answered with what is wrong; past that with nothing but "too many".
const RATE: Rate = Rate { burst: 10, every_ms: 3_000.0 };
/// Pairs of an address and what it has tried that are remembered at once.
const PAIRS_MAX: usize = 10_000;
/// One pair is logged at most so often.
const LOG_SPACING_MS: u64 = 60_000;
/// All of them together: ten thousand addresses must not fill the log.
const LOG_RATE: Rate = Rate { burst: 20, every_ms: 3_000.0 };

/// What a secret or key was given for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Target {
    /// WeChat's own calls, for this app of the configuration.
    App(usize),
    /// WeChat's own calls, for an app that is not configured.
    UnknownApp,
    /// A bearer key.
    Key,
    /// The status page's login.
    Login,
}

impl Target {
    /// One word for the metric.
    pub fn word(self) -> &'static str {
        match self {
            Target::App(_) => "secret",
            Target::UnknownApp => "unknown_app",
            Target::Key => "key",
            Target::Login => "login",
        }
    }
}

/// What to do about a wrong one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Verdict {
    /// Whether to say what is wrong; if not, after how many seconds again.
    pub answer: Result<(), u64>,
    /// If it is to be logged: how often it has come since the last line about it, this time included.
    pub log_times: Option<u64>,
}

/// One address and one target.
struct Pair {
    allowance: Allowance,
    unlogged: u64,
    logged_ms: Option<BootMs>,
}

/// All wrong ones there were.
pub struct Attempts {
    pairs: Mutex<Recent<(IpAddr, Target), Pair>>,
    log: Mutex<Allowance>,
    totals: [(Target, AtomicU64); 4],
}

impl Attempts {
    pub fn new() -> Attempts {
        let totals = [Target::App(0), Target::UnknownApp, Target::Key, Target::Login];
        Attempts {
            pairs: Mutex::new(Recent::with_at_most(PAIRS_MAX)),
            log: Mutex::new(Allowance::full(LOG_RATE, 0)),
            totals: totals.map(|target| (target, AtomicU64::new(0))),
        }
    }

    /// Counts a wrong one.
    pub fn count(&self, peer: IpAddr, target: Target, now_ms: BootMs) -> Verdict {
        if let Some((_, total)) = self.totals.iter().find(|(of, _)| of.word() == target.word()) {
            total.fetch_add(1, Relaxed);
        }
        let mut pairs = self.pairs.lock();
        let pair = pairs.entry((address_group(peer), target), || Pair {
            allowance: Allowance::full(RATE, now_ms),
            unlogged: 0,
            logged_ms: None,
        });
        pair.unlogged += 1;
        let is_due = pair.logged_ms.is_none_or(|at_ms| now_ms.saturating_sub(at_ms) >= LOG_SPACING_MS);
        let log_times = (is_due && self.log.lock().take(LOG_RATE, now_ms).is_ok()).then(|| {
            pair.logged_ms = Some(now_ms);
            std::mem::take(&mut pair.unlogged)
        });
        Verdict { answer: pair.allowance.take(RATE, now_ms), log_times }
    }

    /// How many there were, by what they were for.
    pub fn totals(&self) -> impl Iterator<Item = (&'static str, u64)> {
        self.totals.iter().map(|(target, total)| (target.word(), total.load(Relaxed)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ip(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    #[test]
    fn wrong_ones_are_counted_for_each_address_and_each_app() {
        let attempts = Attempts::new();
        let wrong = |peer, target| attempts.count(ip(peer), target, 0).answer;
        for _ in 0..10 {
            assert_eq!(wrong("10.0.0.1", Target::App(0)), Ok(()));
        }
        assert_eq!(wrong("10.0.0.1", Target::App(0)), Err(3));
        assert_eq!(wrong("10.0.0.1", Target::App(1)), Ok(()), "another app from the same address");
        assert_eq!(wrong("10.0.0.1", Target::Key), Ok(()), "a key is something else");
        assert_eq!(wrong("10.0.0.2", Target::App(0)), Ok(()), "another address");
        assert_eq!(attempts.count(ip("10.0.0.1"), Target::App(0), 3_000).answer, Ok(()), "and one more after 3 s");
        let totals: Vec<_> = attempts.totals().collect();
        assert_eq!(totals, [("secret", 14), ("unknown_app", 0), ("key", 1), ("login", 0)]);
    }

    #[test]
    fn a_line_says_how_often_and_there_are_never_many_lines() {
        let attempts = Attempts::new();
        let log = |peer: u32, now_ms| attempts.count(IpAddr::from(peer.to_be_bytes()), Target::Key, now_ms).log_times;
        assert_eq!(log(0, 0), Some(1));
        assert!((1..120).all(|half_s| log(0, half_s * 500).is_none()));
        assert_eq!(log(0, 60_000), Some(120));
        let lines = (1..=100_000).filter(|peer| log(*peer, 60_000).is_some()).count();
        assert!(lines <= 20, "{lines}");
    }
}
