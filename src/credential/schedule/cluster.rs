//! The schedule in a cluster: how long a lease lasts, when other nodes step in, what a value in the store means, and
//! what a node does without the store.
//!
//! Pure, like the rest of the schedule: the actor and the simulation of many nodes use the same rules. Who may call is
//! not decided here; the lease decides that.

use super::{BACKOFF_BASE_MS, BACKOFF_FLOOR_MS, MINUTE_MS, RenewalState};
use crate::clock::BootMs;
use crate::cluster::node_rules::{self, FetchEffect};
use crate::platform::Renewal;
use crate::platform::failure::{Class, Wait};

/// The lease for a value that exists only after the one before it has ended: short, because readers wait.
const LEASE_AT_END_MS: u64 = 2_000;
/// Offers after a flush are spread over this time; those of nodes that have not fetched the value over ten times as
/// much.
pub const OFFER_SPREAD_MS: u64 = 1_000;
/// In the last 1/12 of a lifetime the last node to renew calls without the store, if that cannot be reached.
const ALONE_PART: u64 = 12;
/// A node whose lease was denied for the first time comes back within this time after the wait.
const DENIED_SPREAD_MS: u64 = 5_000;

/// In the last 1/4 of a polled value's time each node polls by itself, if the store cannot be reached.
const ALONE_POLL_PART: u64 = 4;

/// What a node does if the store cannot be reached.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WithoutStore {
    /// The value is served until it expires, and nothing is fetched.
    Never,
    /// A new value is fetched if the present one is accepted: then no other node has renewed it.
    IfAlive,
    /// A value is fetched: the answer is the same for all nodes.
    Always,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RecordMeaning {
    Over,
    /// The store lacks what we have.
    Offer,
    /// WeChat refuses the value that we serve.
    Withdraw,
    /// We cannot use it.
    Nothing,
    Agree,
    /// Two values of one generation.
    Conflict,
    /// It is the later one.
    TakeOver,
}

/// A node's own value compared with the store's.
#[derive(Clone, Copy, Debug)]
pub struct RecordComparison {
    /// The generation of the node's own value, 0 without one, and of the store's.
    pub held: u64,
    pub theirs: u64,
    pub same: bool,
    pub theirs_ms: BootMs,
    /// The store's value was not fetched later than the node's own.
    pub older: bool,
    /// WeChat refused the store's value in a probe.
    pub withdrawn: bool,
}

impl RenewalState {
    pub fn compare(&self, record: &RecordComparison, now_ms: BootMs) -> RecordMeaning {
        let RecordComparison { held, theirs, same, theirs_ms, .. } = *record;
        let (live, withdrawn) = (self.left_ms(now_ms) > 0, self.is_withdrawn());
        if theirs_ms <= now_ms {
            RecordMeaning::Over
        } else if theirs < held && live && !same {
            RecordMeaning::Offer
        } else if theirs < held && record.older && !same {
            // An old value was put back or restored, and ours, which was later, has ended.
            RecordMeaning::Over
        } else if record.withdrawn {
            if same && live { RecordMeaning::Withdraw } else { RecordMeaning::Nothing }
        } else if same && (live || withdrawn) {
            RecordMeaning::Agree
        } else if withdrawn && theirs <= held {
            // A value that WeChat has refused already, or one before it.
            RecordMeaning::Nothing
        } else if theirs == held && live {
            RecordMeaning::Conflict
        } else {
            RecordMeaning::TakeOver
        }
    }

    /// The least time since any node has called, for a scheduled renewal. 0: a wait after failures does not count
    /// either. It does count if there is no live value; otherwise thousands of nodes would each go on calling.
    pub fn others_spacing_ms(&self, scheduled: bool, now_ms: BootMs) -> u64 {
        match self.renewal {
            _ if !scheduled => 0,
            _ if self.left_ms(now_ms) == 0 => 1,
            Renewal::Mint => node_rules::spacing_ms(self.overlap_ms()),
            Renewal::Poll => self.poll_ms / 4 * 3,
            Renewal::Window { .. } | Renewal::AtEnd => 1,
        }
    }

    pub fn lease_ms(&self, total_timeout_ms: u64, now_ms: BootMs) -> u64 {
        match self.renewal {
            Renewal::AtEnd => LEASE_AT_END_MS,
            _ => node_rules::lease_ms(total_timeout_ms, if self.left_ms(now_ms) > 0 { self.overlap_ms() } else { 0 }),
        }
    }

    /// How long the lease is kept for the next call after an answer with the same value.
    pub fn keep_ms(&self, now_ms: BootMs) -> u64 {
        match self.renewal {
            Renewal::Window { .. } if self.left_ms(now_ms) > 0 => self.ask_gap_ms(now_ms) * 5 / 4 + BACKOFF_FLOOR_MS,
            _ => 0,
        }
    }

    /// What a node does if the store cannot be reached. `ours`: this node has fetched the present value.
    pub fn without_store(&self, fetch_effect: FetchEffect, ours: bool, now_ms: BootMs) -> WithoutStore {
        let left_ms = self.left_ms(now_ms);
        let may = left_ms > 0 && self.alone_from_ms(ours).is_some_and(|from_ms| now_ms >= from_ms);
        match (fetch_effect, self.renewal) {
            (FetchEffect::NewToken, _) if may => WithoutStore::IfAlive,
            (FetchEffect::NewToken, _) => WithoutStore::Never,
            // If each node polled by itself, the day's quota would soon be used up.
            (FetchEffect::SameToken, Renewal::Poll) if left_ms > self.life_ms / ALONE_POLL_PART => WithoutStore::Never,
            (FetchEffect::SameToken, _) => WithoutStore::Always,
        }
    }

    /// From when this node may fetch without the store; none if other nodes may have renewed.
    pub fn alone_from_ms(&self, ours: bool) -> Option<BootMs> {
        let expires_ms = self.expires_ms.filter(|_| ours && self.renewal == Renewal::Mint)?;
        Some(expires_ms.saturating_sub(self.life_ms / ALONE_PART))
    }

    /// How long a node that has announced a call may take before another node settles it.
    pub fn settle_ms(&self, lease_left_ms: u64, random: f64) -> u64 {
        lease_left_ms + super::fraction_of(self.overlap_ms() / 8, random)
    }

    /// The least time between two values that are fetched because of an unsettled call, if this many values in a row
    /// were replaced early: somebody who writes such marks by hand must neither use up the quota nor end one token
    /// after the other.
    pub fn settle_spacing_ms(&self, early: u32) -> u64 {
        match early.checked_sub(1) {
            None => 0,
            Some(doublings) => {
                (node_rules::spacing_ms(self.overlap_ms()) << doublings.min(10)).min(self.longest_ms / 4)
            }
        }
    }

    /// How long to wait before a value is offered to a store that lacks it. `ours`: this node has fetched it. That node
    /// offers first, so the others usually see that it is done, however many they are.
    pub fn offer_ms(&self, ours: bool, random: f64) -> u64 {
        let first_ms = OFFER_SPREAD_MS.min(self.overlap_ms() / 4);
        match ours {
            true => super::fraction_of(first_ms, random),
            false => first_ms + super::fraction_of((10 * first_ms).min(self.overlap_ms() / 8), random),
        }
    }
}

/// How long a node waits after its lease was denied for `ms`, and `times` times in a row before. Nodes that wait for
/// the same time do not come back together, and they come less and less often: the node that called last comes back by
/// its own schedule; the others are there in case it has died.
pub fn retry_denied_ms(ms: u64, times: u32, live: bool, random: f64) -> u64 {
    let doublings = times.min(if live { 6 } else { 2 });
    ms + super::fraction_of((ms / 2).clamp(BACKOFF_FLOOR_MS, DENIED_SPREAD_MS) << doublings, random)
}

/// How long no node has to call after this failure. If an operator has to act, the fault may concern this node alone
/// (an address that is not on the allow-list), so the other nodes try too, one a second.
pub fn others_wait_ms(class: Class, fetch_effect: FetchEffect, failures: u64, live: bool) -> u64 {
    match class {
        Class::Retry => {
            let often = live || failures < 10 || fetch_effect == FetchEffect::SameToken;
            let most = if often { MINUTE_MS } else { 5 * MINUTE_MS };
            (BACKOFF_BASE_MS << failures.min(10)).min(most)
        }
        Class::Wait(Wait::AtLeastMs(ms)) => ms,
        Class::Wait(Wait::NextDay) => 10 * MINUTE_MS,
        Class::Wait(Wait::Doubling { first_ms, most_ms }) => super::doubled_ms(first_ms, most_ms, failures),
        Class::Operator(_) | Class::Internal => BACKOFF_BASE_MS,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn renewal_state(renewal: Renewal) -> RenewalState {
        let mut renewal_state = RenewalState::new(renewal);
        renewal_state.adopt(7_200_000, 7_200_000, 7_200_000, None);
        renewal_state
    }

    #[test]
    fn without_the_store_only_the_last_one_to_renew_goes_alone_and_only_near_the_end() {
        let renewal_state = renewal_state(Renewal::Mint);
        let alone = |ours, now_ms| renewal_state.without_store(FetchEffect::NewToken, ours, now_ms);
        assert_eq!([alone(true, 0), alone(true, 6_599_999)], [WithoutStore::Never; 2]);
        assert_eq!([alone(true, 6_600_000), alone(true, 7_199_999)], [WithoutStore::IfAlive; 2]);
        assert_eq!([alone(false, 6_600_000), alone(true, 7_200_000)], [WithoutStore::Never; 2]);
    }

    #[test]
    fn without_the_store_a_polled_value_is_asked_for_near_the_end_of_its_trusted_time() {
        let (polled, stable) = (renewal_state(Renewal::Poll), renewal_state(Renewal::Window { window_ms: 300_000 }));
        assert_eq!(polled.without_store(FetchEffect::SameToken, false, 5_399_999), WithoutStore::Never);
        assert_eq!(polled.without_store(FetchEffect::SameToken, false, 5_400_000), WithoutStore::Always);
        assert_eq!(
            stable.without_store(FetchEffect::SameToken, false, 1),
            WithoutStore::Always,
            "its answer is the same for all"
        );
    }
}
