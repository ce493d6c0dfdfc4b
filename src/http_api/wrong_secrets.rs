//! Counts wrong secrets and wrong keys by address and by what they were given for, so that guessing is slow and the log
//! says which program still uses an old one.
//!
//! It is never asked about a right one: that passes, whatever else has come from the same address.

use std::net::IpAddr;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use parking_lot::Mutex;

use crate::address_group::address_group;
use crate::clock::BootMs;
use crate::rate_limit::{Rate, RateBucket, RecentMap};

/// So many wrong ones are told what is wrong; further ones only that there were too many.
const RATE: Rate = Rate { burst: 10, every_ms: 3_000.0 };
/// The most pairs of address and target that are remembered.
const SOURCES_MAX: usize = 10_000;
/// The shortest time between two log lines about one pair.
const LOG_SPACING_MS: u64 = 60_000;
/// The limit on log lines about all pairs together: ten thousand addresses must not fill the log.
const LOG_RATE: Rate = Rate { burst: 20, every_ms: 3_000.0 };

/// What a secret or key was given for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum SecretTarget {
    /// WeChat's own calls, for this app of the configuration.
    App(usize),
    /// WeChat's own calls, for an app that is not configured.
    UnknownApp,
    Key,
    Login,
}

impl SecretTarget {
    /// The value of the metric's label `given`.
    pub fn word(self) -> &'static str {
        match self {
            SecretTarget::App(_) => "secret",
            SecretTarget::UnknownApp => "unknown_app",
            SecretTarget::Key => "key",
            SecretTarget::Login => "login",
        }
    }
}

/// What is remembered of an address and a target.
struct SourceHistory {
    bucket: RateBucket,
    unlogged: u64,
    logged_ms: Option<BootMs>,
}

/// The wrong secrets and keys of late, and how many there were since the start.
pub struct WrongSecrets {
    sources: Mutex<RecentMap<(IpAddr, SecretTarget), SourceHistory>>,
    log: Mutex<RateBucket>,
    totals: [(SecretTarget, AtomicU64); 4],
}

impl WrongSecrets {
    pub fn new() -> WrongSecrets {
        let totals = [SecretTarget::App(0), SecretTarget::UnknownApp, SecretTarget::Key, SecretTarget::Login];
        WrongSecrets {
            sources: Mutex::new(RecentMap::with_at_most(SOURCES_MAX)),
            log: Mutex::new(RateBucket::full(LOG_RATE, 0)),
            totals: totals.map(|target| (target, AtomicU64::new(0))),
        }
    }

    /// Counts a wrong secret or key. `Ok` if the answer may say what is wrong; otherwise the seconds until it may again.
    /// `log` is called if it is to be logged, with how often it has come since the last log line about it, this time
    /// included.
    pub fn record(&self, peer: IpAddr, target: SecretTarget, now_ms: BootMs, log: impl FnOnce(u64)) -> Result<(), u64> {
        if let Some((_, total)) = self.totals.iter().find(|(of, _)| of.word() == target.word()) {
            total.fetch_add(1, Relaxed);
        }
        let mut sources = self.sources.lock();
        let source = sources.entry((address_group(peer), target), || SourceHistory {
            bucket: RateBucket::full(RATE, now_ms),
            unlogged: 0,
            logged_ms: None,
        });
        source.unlogged += 1;
        let is_due = source.logged_ms.is_none_or(|at_ms| now_ms.saturating_sub(at_ms) >= LOG_SPACING_MS);
        let log_times = (is_due && self.log.lock().try_take(LOG_RATE, now_ms).is_ok()).then(|| {
            source.logged_ms = Some(now_ms);
            std::mem::take(&mut source.unlogged)
        });
        let told = source.bucket.try_take(RATE, now_ms);
        drop(sources);
        if let Some(times) = log_times {
            log(times);
        }
        told
    }

    /// How many there were, by target.
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
        let wrong_secrets = WrongSecrets::new();
        let wrong = |peer, target| wrong_secrets.record(ip(peer), target, 0, drop);
        for _ in 0..10 {
            assert_eq!(wrong("10.0.0.1", SecretTarget::App(0)), Ok(()));
        }
        assert_eq!(wrong("10.0.0.1", SecretTarget::App(0)), Err(3));
        assert_eq!(wrong("10.0.0.1", SecretTarget::App(1)), Ok(()), "another app from the same address");
        assert_eq!(wrong("10.0.0.1", SecretTarget::Key), Ok(()), "a key is something else");
        assert_eq!(wrong("10.0.0.2", SecretTarget::App(0)), Ok(()), "another address");
        assert_eq!(
            wrong_secrets.record(ip("10.0.0.1"), SecretTarget::App(0), 3_000, drop),
            Ok(()),
            "and one more after 3 s"
        );
        let totals: Vec<_> = wrong_secrets.totals().collect();
        assert_eq!(totals, [("secret", 14), ("unknown_app", 0), ("key", 1), ("login", 0)]);
    }

    #[test]
    fn a_line_says_how_often_and_there_are_never_many_lines() {
        let wrong_secrets = WrongSecrets::new();
        let log = |peer: u32, now_ms| {
            let (peer, mut logged) = (IpAddr::from(peer.to_be_bytes()), None);
            let _ = wrong_secrets.record(peer, SecretTarget::Key, now_ms, |times| logged = Some(times));
            logged
        };
        assert_eq!(log(0, 0), Some(1));
        assert!((1..120).all(|half_s| log(0, half_s * 500).is_none()));
        assert_eq!(log(0, 60_000), Some(120));
        let lines = (1..=100_000).filter(|peer| log(*peer, 60_000).is_some()).count();
        assert!(lines <= 20, "{lines}");
    }
}
