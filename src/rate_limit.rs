//! Rate limits by client. Pure: the time comes in as a value.
//!
//! Memory is bounded however many clients come: those that were seen longest ago are forgotten. No client is refused
//! because there are many others.

use std::collections::HashMap;
use std::hash::Hash;

use parking_lot::Mutex;

use crate::clock::BootMs;

const CLIENTS_MAX: usize = 10_000;

/// A map of limited size. When it is full, it forgets the half of its entries that was used longest ago.
pub struct RecentMap<K, V> {
    recent: HashMap<K, V>,
    older: HashMap<K, V>,
    half: usize,
}

impl<K: Eq + Hash, V> RecentMap<K, V> {
    pub fn with_at_most(entries: usize) -> RecentMap<K, V> {
        RecentMap { recent: HashMap::new(), older: HashMap::new(), half: (entries / 2).max(1) }
    }

    /// The entry of this key; a new one if there is none, or if it was forgotten.
    pub fn entry(&mut self, key: K, new: impl FnOnce() -> V) -> &mut V {
        let mut known = None;
        if !self.recent.contains_key(&key) {
            known = self.older.remove(&key);
            if self.recent.len() >= self.half {
                self.older = std::mem::take(&mut self.recent);
            }
        }
        self.recent.entry(key).or_insert_with(|| known.unwrap_or_else(new))
    }

    #[cfg(test)]
    pub(crate) fn len(&self) -> usize {
        self.recent.len() + self.older.len()
    }
}

/// How many requests are allowed at once, and after what time one more.
#[derive(Clone, Copy, Debug)]
pub struct Rate {
    pub burst: u32,
    pub every_ms: f64,
}

/// How many requests a client may still make. Grows by one every `every_ms`, up to `burst`.
#[derive(Clone, Copy, Debug)]
pub struct RateBucket {
    left: f64,
    at_ms: BootMs,
}

impl RateBucket {
    pub fn full(rate: Rate, now_ms: BootMs) -> RateBucket {
        RateBucket { left: f64::from(rate.burst), at_ms: now_ms }
    }

    /// Adds what has grown since the last look. True if a request may be made.
    pub fn refill(&mut self, rate: Rate, now_ms: BootMs) -> bool {
        let since_ms = now_ms.saturating_sub(self.at_ms) as f64;
        self.left = (self.left + since_ms / rate.every_ms).min(f64::from(rate.burst));
        self.at_ms = now_ms;
        self.left >= 1.0
    }

    /// Takes one request, or the rest if less than one is left.
    pub fn take(&mut self) {
        self.left = (self.left - 1.0).max(0.0);
    }

    /// Takes one request, or gives the seconds until one is allowed.
    pub fn try_take(&mut self, rate: Rate, now_ms: BootMs) -> Result<(), u64> {
        if self.refill(rate, now_ms) {
            self.take();
            return Ok(());
        }
        Err((((1.0 - self.left) * rate.every_ms) / 1000.0).ceil().max(1.0) as u64)
    }
}

pub struct RateLimit<K> {
    rate: Rate,
    clients: Mutex<RecentMap<K, RateBucket>>,
}

impl<K: Eq + Hash> RateLimit<K> {
    pub fn new(rate: Rate) -> RateLimit<K> {
        RateLimit { rate, clients: Mutex::new(RecentMap::with_at_most(CLIENTS_MAX)) }
    }

    /// Takes one request, or gives the seconds until one is allowed.
    pub fn try_take(&self, client: K, now_ms: BootMs) -> Result<(), u64> {
        let rate = self.rate;
        self.clients.lock().entry(client, || RateBucket::full(rate, now_ms)).try_take(rate, now_ms)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const RATE: Rate = Rate { burst: 2, every_ms: 1_000.0 };

    #[test]
    fn an_allowance_runs_out_and_fills_again() {
        let limit = RateLimit::new(RATE);
        assert_eq!([limit.try_take("a", 0), limit.try_take("a", 0), limit.try_take("a", 0)], [Ok(()), Ok(()), Err(1)]);
        assert_eq!(limit.try_take("b", 0), Ok(()), "another client");
        assert_eq!(
            (limit.try_take("a", 999), limit.try_take("a", 1_000), limit.try_take("a", 1_000)),
            (Err(1), Ok(()), Err(1))
        );
        assert_eq!(
            [limit.try_take("a", 9_000), limit.try_take("a", 9_000), limit.try_take("a", 9_000)],
            [Ok(()), Ok(()), Err(1)]
        );
    }

    #[test]
    fn a_crowd_takes_bounded_memory_and_shuts_nobody_out() {
        let limit = RateLimit::new(RATE);
        for client in 0..100_000_u64 {
            assert_eq!(limit.try_take(client, 0), Ok(()), "{client}");
            // A client that goes on asking is remembered, however many others come.
            assert_eq!(limit.try_take(u64::MAX, 0).is_ok(), client < 2, "{client}");
        }
        assert!(limit.clients.lock().len() <= CLIENTS_MAX);
    }
}
