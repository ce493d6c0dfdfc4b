//! Who has asked too often of late. Pure: the time comes in as a value; bounded, whoever comes.

use std::collections::HashMap;
use std::hash::Hash;
use std::net::IpAddr;

use parking_lot::Mutex;

use crate::clock::BootMs;

/// Askers remembered at once. Past that those with a full allowance are forgotten, which changes nothing for them.
const ASKERS_MAX: usize = 10_000;

/// Allowances that fill again at a steady pace, one for each asker.
pub struct Limit<K> {
    /// Milliseconds for one.
    every_ms: f64,
    burst: f64,
    askers: Mutex<HashMap<K, Allowance>>,
}

struct Allowance {
    left: f64,
    at_ms: BootMs,
}

impl<K: Eq + Hash> Limit<K> {
    /// So many at once, and one more in so many milliseconds.
    pub fn new(burst: u32, every_ms: f64) -> Limit<K> {
        Limit { every_ms, burst: f64::from(burst), askers: Mutex::new(HashMap::new()) }
    }

    /// Takes one, or says after how many seconds there will be one.
    pub fn take(&self, asker: K, now_ms: BootMs) -> Result<(), u64> {
        self.with(asker, now_ms, |allowance| {
            if allowance.left < 1.0 {
                return false;
            }
            allowance.left -= 1.0;
            true
        })
    }

    /// Takes nothing: whether there would be one.
    pub fn would(&self, asker: K, now_ms: BootMs) -> Result<(), u64> {
        self.with(asker, now_ms, |allowance| allowance.left >= 1.0)
    }

    fn with(&self, asker: K, now_ms: BootMs, take: impl FnOnce(&mut Allowance) -> bool) -> Result<(), u64> {
        let (every_ms, burst) = (self.every_ms, self.burst);
        let filled = |allowance: &Allowance| {
            let since = now_ms.saturating_sub(allowance.at_ms) as f64;
            (allowance.left + since / every_ms).min(burst)
        };
        let mut askers = self.askers.lock();
        if askers.len() >= ASKERS_MAX && !askers.contains_key(&asker) {
            askers.retain(|_, allowance| filled(allowance) < burst);
            if askers.len() >= ASKERS_MAX {
                return Err(1);
            }
        }
        let allowance = askers.entry(asker).or_insert(Allowance { left: burst, at_ms: now_ms });
        allowance.left = filled(allowance);
        allowance.at_ms = now_ms;
        if take(allowance) {
            Ok(())
        } else {
            Err((((1.0 - allowance.left) * every_ms) / 1000.0).ceil().max(1.0) as u64)
        }
    }
}

/// Who counts as one: an IPv4 address, or the network that one subscriber has of IPv6.
pub fn neighbourhood(ip: IpAddr) -> IpAddr {
    match ip.to_canonical() {
        IpAddr::V6(ip) => {
            let [a, b, c, d, ..] = ip.segments();
            IpAddr::from([a, b, c, d, 0, 0, 0, 0])
        }
        v4 => v4,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_allowance_runs_out_and_fills_again() {
        let limit = Limit::new(2, 1_000.0);
        assert_eq!([limit.take("a", 0), limit.take("a", 0), limit.take("a", 0)], [Ok(()), Ok(()), Err(1)]);
        assert_eq!(limit.take("b", 0), Ok(()), "another asker");
        assert_eq!((limit.take("a", 999), limit.take("a", 1_000), limit.take("a", 1_000)), (Err(1), Ok(()), Err(1)));
        assert_eq!(limit.would("a", 1_000), Err(1));
        assert_eq!((limit.would("a", 9_000), limit.would("a", 9_000)), (Ok(()), Ok(())));
    }

    #[test]
    fn a_crowd_takes_bounded_memory() {
        let limit = Limit::new(2, 1_000.0);
        for asker in 0..100_000_u64 {
            let _ = limit.take(asker, asker);
        }
        assert!(limit.askers.lock().len() <= ASKERS_MAX);
    }

    #[test]
    fn a_subscriber_of_ipv6_is_one_asker() {
        let of = |text: &str| neighbourhood(text.parse().unwrap());
        assert_eq!(of("2001:db8:1:2:3::4"), of("2001:db8:1:2::9"));
        assert_ne!(of("2001:db8:1:2::1"), of("2001:db8:1:3::1"));
        assert_eq!(of("::ffff:10.0.0.1"), of("10.0.0.1"));
        assert_ne!(of("10.0.0.1"), of("10.0.0.2"));
    }
}
