//! Slows down whoever guesses passwords, by address: a new connection, or a hundred at once, gain nothing.
//!
//! Only a new wrong password counts, so a program that keeps sending an old one slows nobody down. Past the allowance
//! every password from that address waits for its turn before it is checked, right or wrong alike, so that the wait tells
//! nothing; one that was right from there before does not wait. None is refused without a check.
//!
//! A turn stays taken when its client has gone: otherwise whoever gets no answer at once could hang up and try the next.
//! Pure: the time comes in as a value. Keeps keyed hashes, never a password, and bounded memory, whoever comes.

use std::hash::{BuildHasher, RandomState};
use std::net::IpAddr;

use parking_lot::Mutex;

use crate::address_group::address_group;
use crate::clock::BootMs;
use crate::rate_limit::{Rate, RateBucket, RecentMap};

/// New wrong passwords from one address that cost nothing, and after how long there is one more.
const GUESSES: Rate = Rate { burst: 10, every_ms: 10_000.0 };
/// Past them, one password from that address is checked in this time.
const TURN_MS: u64 = 50;
/// Nobody waits longer for a turn, however many are waiting; less than the time a client has to log in.
const WAIT_MS_MAX: u64 = 30_000;
/// Passwords remembered for each address, right ones and wrong ones.
const REMEMBERED_MAX: usize = 8;
/// Addresses remembered at once.
const ADDRESSES_MAX: usize = 10_000;

/// What is known of each address. Clients of Unix sockets have none, and count as one.
pub(crate) struct LoginLimiter {
    addresses: Mutex<RecentMap<Option<IpAddr>, AddressState>>,
    hashing: RandomState,
}

struct AddressState {
    guesses: RateBucket,
    next_turn_ms: BootMs,
    right: RecentHashes,
    wrong: RecentHashes,
}

/// The latest few hashes.
#[derive(Default)]
struct RecentHashes {
    hashes: [u64; REMEMBERED_MAX],
    next: usize,
}

impl RecentHashes {
    fn has(&self, hash: u64) -> bool {
        self.hashes.contains(&hash)
    }

    fn add(&mut self, hash: u64) {
        if !self.has(hash) {
            self.hashes[self.next % REMEMBERED_MAX] = hash;
            self.next = self.next.wrapping_add(1);
        }
    }
}

impl Default for LoginLimiter {
    fn default() -> LoginLimiter {
        LoginLimiter { addresses: Mutex::new(RecentMap::with_at_most(ADDRESSES_MAX)), hashing: RandomState::new() }
    }
}

impl LoginLimiter {
    /// How long this password must wait before it is checked, milliseconds. If that is not 0 it has a turn then: check it,
    /// without asking again.
    pub fn reserve_turn(&self, from: Option<IpAddr>, user: &[u8], password: &[u8], now_ms: BootMs) -> u64 {
        self.with_address(from, user, password, now_ms, |address, hash| {
            if address.guesses.refill(GUESSES, now_ms) || address.right.has(hash) || address.wrong.has(hash) {
                return 0;
            }
            let turn_ms = (address.next_turn_ms.max(now_ms) + TURN_MS).min(now_ms + WAIT_MS_MAX);
            address.next_turn_ms = turn_ms;
            turn_ms - now_ms
        })
    }

    /// The password was right.
    pub fn record_success(&self, from: Option<IpAddr>, user: &[u8], password: &[u8], now_ms: BootMs) {
        self.with_address(from, user, password, now_ms, |address, hash| address.right.add(hash));
    }

    /// The password was wrong. True if that was one too many new ones: from now on this address is slowed down.
    pub fn record_failure(&self, from: Option<IpAddr>, user: &[u8], password: &[u8], now_ms: BootMs) -> bool {
        self.with_address(from, user, password, now_ms, |address, hash| {
            if address.wrong.has(hash) {
                return false;
            }
            address.wrong.add(hash);
            let had_guess = address.guesses.refill(GUESSES, now_ms);
            address.guesses.take();
            had_guess && !address.guesses.refill(GUESSES, now_ms)
        })
    }

    /// Looks at an address, with the hash of this password.
    fn with_address<R>(
        &self,
        from: Option<IpAddr>,
        user: &[u8],
        password: &[u8],
        now_ms: BootMs,
        look: impl FnOnce(&mut AddressState, u64) -> R,
    ) -> R {
        // 0 stands for no password.
        let hash = self.hashing.hash_one((user, password)).max(1);
        let mut addresses = self.addresses.lock();
        let address = addresses.entry(from.map(address_group), || AddressState {
            guesses: RateBucket::full(GUESSES, now_ms),
            next_turn_ms: 0,
            right: RecentHashes::default(),
            wrong: RecentHashes::default(),
        });
        look(address, hash)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HERE: Option<IpAddr> = Some(IpAddr::V4(std::net::Ipv4Addr::LOCALHOST));

    /// A limit that this address has used up at the instant 0.
    fn used_up() -> LoginLimiter {
        let limit = LoginLimiter::default();
        for guess in 0..10 {
            let word = format!("guess{guess}");
            assert_eq!(limit.reserve_turn(HERE, b"alice", word.as_bytes(), 0), 0);
            assert_eq!(limit.record_failure(HERE, b"alice", word.as_bytes(), 0), guess == 9);
        }
        limit
    }

    #[test]
    fn past_the_allowance_twenty_passwords_a_second_are_looked_at_however_many_come() {
        let limit = used_up();
        let waits: Vec<u64> =
            (0..20).map(|n: u64| limit.reserve_turn(HERE, b"alice", &n.to_be_bytes(), 1_000)).collect();
        assert_eq!(waits, (1..=20).map(|n| n * 50).collect::<Vec<_>>());
        let elsewhere = Some("192.0.2.1".parse().unwrap());
        assert_eq!(limit.reserve_turn(elsewhere, b"alice", b"x", 1_000), 0, "another address is not slowed down");
        // After a while of peace all is as it was.
        assert_eq!(limit.reserve_turn(HERE, b"alice", b"y", 11_000), 0);
    }

    #[test]
    fn nobody_waits_for_ever() {
        let limit = used_up();
        let longest = (0..100_000_u64).map(|n| limit.reserve_turn(HERE, b"alice", &n.to_be_bytes(), 0)).max();
        assert_eq!(longest, Some(WAIT_MS_MAX));
    }

    #[test]
    fn a_password_that_was_right_from_there_before_does_not_wait() {
        let limit = LoginLimiter::default();
        limit.record_success(HERE, b"alice", b"secret", 0);
        for guess in 0..100_u64 {
            limit.record_failure(HERE, b"alice", &guess.to_be_bytes(), 0);
        }
        assert_eq!(limit.reserve_turn(HERE, b"alice", b"secret", 0), 0);
        assert!(limit.reserve_turn(HERE, b"bob", b"secret", 0) > 0, "it is alice's");
    }

    #[test]
    fn the_same_wrong_password_again_and_again_is_no_guess() {
        let limit = LoginLimiter::default();
        for now_ms in 0..1_000 {
            assert!(!limit.record_failure(HERE, b"alice", b"last year's", now_ms));
        }
        assert_eq!(limit.reserve_turn(HERE, b"alice", b"new", 1_000), 0);
    }

    #[test]
    fn the_clients_of_a_subscriber_of_ipv6_count_as_one() {
        let limit = LoginLimiter::default();
        let address = |last: u64| Some(format!("2001:db8:1:2::{last:x}").parse().unwrap());
        for guess in 0..10_u64 {
            limit.record_failure(address(guess), b"alice", &guess.to_be_bytes(), 0);
        }
        assert!(limit.reserve_turn(address(77), b"alice", b"x", 0) > 0);
        assert_eq!(limit.reserve_turn(Some("2001:db8:1:3::1".parse().unwrap()), b"alice", b"x", 0), 0);
    }

    #[test]
    fn a_crowd_of_addresses_takes_bounded_memory_and_the_latest_are_known() {
        let limit = LoginLimiter::default();
        for n in 0..50_000_u32 {
            limit.record_failure(Some(IpAddr::from(n.to_be_bytes())), b"alice", b"x", u64::from(n / 100_000));
        }
        assert!(limit.addresses.lock().len() <= ADDRESSES_MAX);
        for guess in 0..10_u64 {
            limit.record_failure(HERE, b"alice", &guess.to_be_bytes(), 1);
        }
        for n in 0..ADDRESSES_MAX as u32 / 3 {
            limit.record_failure(Some(IpAddr::from((n + 1_000_000).to_be_bytes())), b"alice", b"x", 2);
        }
        assert!(limit.reserve_turn(HERE, b"alice", b"x", 2) > 0);
    }
}
