//! What several nodes that keep the same credential do differently from one: how long a lease is asked for, what is left
//! to the others, what a value in the store means, and what is done without the store.
//!
//! Pure, like the rest of the policy: the driver and the simulation of many nodes decide by these. Who may call is not
//! decided here: that is the lease's part.

use super::{BACKOFF_BASE_MS, BACKOFF_FLOOR_MS, MINUTE_MS, RenewalState};
use crate::clock::BootMs;
use crate::cluster::node_rules::{self, FetchEffect};
use crate::platform::Renewal;
use crate::platform::failure::{Class, Wait};

/// The lease of a value that can be had only when its predecessor is dead: readers wait.
const LEASE_AT_END_MS: u64 = 2_000;
/// Offers after a flush are spread over this, and those of nodes that have not fetched the value over ten times as much.
pub const OFFER_SPREAD_MS: u64 = 1_000;
/// The part of a life before its end in which the last one to renew goes alone, if the store is out of reach.
const ALONE_PART: u64 = 12;
/// Those who have been told to wait for the first time come back within this after it.
const DENIED_SPREAD_MS: u64 = 5_000;

/// The part of a polled value's trusted time in which each node asks for itself, if the store is out of reach.
const ALONE_POLL_PART: u64 = 4;

/// What is done when the store is out of reach.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WithoutStore {
    /// The value is served to its end, and nothing is asked.
    Never,
    /// WeChat is asked if the present value is accepted: then nobody else has renewed it.
    IfAlive,
    /// WeChat is asked: its answer is the same for all.
    Always,
}

/// What a value that the store has means to a node.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RecordMeaning {
    /// Its time is over.
    Over,
    /// The store lacks what we have.
    Offer,
    /// WeChat refuses the one that we serve.
    Withdraw,
    /// Nothing that we could use.
    Nothing,
    /// It is ours.
    Agree,
    /// Two values of one generation.
    Conflict,
    /// It is the later one.
    Adopt,
}

/// A node's own value beside the store's.
#[derive(Clone, Copy, Debug)]
pub struct RecordComparison {
    /// The generation of the node's own value, 0 without one, and of the store's.
    pub held: u64,
    pub theirs: u64,
    /// The very same value.
    pub same: bool,
    /// When the store's value ends.
    pub theirs_ms: BootMs,
    /// The store's value was fetched no later than the node's own.
    pub older: bool,
    /// WeChat refused the store's value in a probe.
    pub withdrawn: bool,
}

impl RenewalState {
    /// What a value that the store has means.
    pub fn compare(&self, beside: &RecordComparison, now_ms: BootMs) -> RecordMeaning {
        let RecordComparison { held, theirs, same, theirs_ms, .. } = *beside;
        let (live, withdrawn) = (self.left_ms(now_ms) > 0, self.is_withdrawn());
        if theirs_ms <= now_ms {
            RecordMeaning::Over
        } else if theirs < held && live && !same {
            RecordMeaning::Offer
        } else if theirs < held && beside.older && !same {
            // Somebody has put it back, or an old copy was restored; ours that followed it is over.
            RecordMeaning::Over
        } else if beside.withdrawn {
            if same && live { RecordMeaning::Withdraw } else { RecordMeaning::Nothing }
        } else if same && (live || withdrawn) {
            RecordMeaning::Agree
        } else if withdrawn && theirs <= held {
            // What WeChat has refused already, or its predecessor.
            RecordMeaning::Nothing
        } else if theirs == held && live {
            RecordMeaning::Conflict
        } else {
            RecordMeaning::Adopt
        }
    }

    /// The least time since anybody has asked, for a renewal that comes by the schedule; 0: not even what failures have
    /// put off matters. It does where the value is dead, or each of thousands of nodes would go on asking.
    pub fn others_spacing_ms(&self, scheduled: bool, now_ms: BootMs) -> u64 {
        match self.renewal {
            _ if !scheduled => 0,
            _ if self.left_ms(now_ms) == 0 => 1,
            Renewal::Mint => node_rules::spacing_ms(self.overlap_ms()),
            Renewal::Poll => self.poll_ms / 4 * 3,
            Renewal::Window { .. } | Renewal::AtEnd => 1,
        }
    }

    /// How long a lease is asked for.
    pub fn lease_ms(&self, total_timeout_ms: u64, now_ms: BootMs) -> u64 {
        match self.renewal {
            Renewal::AtEnd => LEASE_AT_END_MS,
            _ => node_rules::lease_ms(total_timeout_ms, if self.left_ms(now_ms) > 0 { self.overlap_ms() } else { 0 }),
        }
    }

    /// How long the lease is kept after an answer that brought nothing new, for the next ask.
    pub fn keep_ms(&self, now_ms: BootMs) -> u64 {
        match self.renewal {
            Renewal::Window { .. } if self.left_ms(now_ms) > 0 => self.ask_gap_ms(now_ms) * 5 / 4 + BACKOFF_FLOOR_MS,
            _ => 0,
        }
    }

    /// What is done when the store is out of reach. `ours`: this node has fetched the present value.
    pub fn without_store(&self, asking: FetchEffect, ours: bool, now_ms: BootMs) -> WithoutStore {
        let left_ms = self.left_ms(now_ms);
        let may = left_ms > 0 && self.alone_from_ms(ours).is_some_and(|from_ms| now_ms >= from_ms);
        match (asking, self.renewal) {
            (FetchEffect::Mints, _) if may => WithoutStore::IfAlive,
            (FetchEffect::Mints, _) => WithoutStore::Never,
            // Each node for itself would soon have used up what all may ask in a day.
            (FetchEffect::Repeats, Renewal::Poll) if left_ms > self.life_ms / ALONE_POLL_PART => WithoutStore::Never,
            (FetchEffect::Repeats, _) => WithoutStore::Always,
        }
    }

    /// When this node may go alone; none if others may have renewed.
    pub fn alone_from_ms(&self, ours: bool) -> Option<BootMs> {
        let expires_ms = self.expires_ms.filter(|_| ours && self.renewal == Renewal::Mint)?;
        Some(expires_ms.saturating_sub(self.life_ms / ALONE_PART))
    }

    /// How long whoever has announced a call is left to it before another settles what became of it.
    pub fn settle_ms(&self, lease_left_ms: u64, random: f64) -> u64 {
        lease_left_ms + super::part(self.overlap_ms() / 8, random)
    }

    /// The least time from one value to the next that is made because of a mark in the record, if so many in a row were
    /// replaced early: whoever writes marks there by hand must neither use up the quota nor end tokens one after the
    /// other.
    pub fn settle_spacing_ms(&self, early: u32) -> u64 {
        match early.checked_sub(1) {
            None => 0,
            Some(doublings) => {
                (node_rules::spacing_ms(self.overlap_ms()) << doublings.min(10)).min(self.longest_ms / 4)
            }
        }
    }

    /// How long until a value is offered to a store that lacks it. `ours`: this node has fetched it. Whoever has goes
    /// first, so that as a rule the others see it done before it is their turn, however many they are.
    pub fn offer_ms(&self, ours: bool, random: f64) -> u64 {
        let first_ms = OFFER_SPREAD_MS.min(self.overlap_ms() / 4);
        match ours {
            true => super::part(first_ms, random),
            false => first_ms + super::part((10 * first_ms).min(self.overlap_ms() / 8), random),
        }
    }
}

/// How long a node waits that was told to wait for so long, and has been `times` times in a row before: those who wait for
/// the same instant do not come at once, and ever less often. Whoever has called last comes back by its own schedule; the
/// others are there in case that it has died.
pub fn retry_denied_ms(ms: u64, times: u32, live: bool, random: f64) -> u64 {
    let doublings = times.min(if live { 6 } else { 2 });
    ms + super::part((ms / 2).clamp(BACKOFF_FLOOR_MS, DENIED_SPREAD_MS) << doublings, random)
}

/// How long no node needs to ask after such a failure. What an operator has to change may concern this node alone (an
/// address that is not on the allow-list), so the others have their try, one a second.
pub fn others_wait_ms(class: Class, asking: FetchEffect, failures: u64, live: bool) -> u64 {
    match class {
        Class::Retry => {
            let often = live || failures < 10 || asking == FetchEffect::Repeats;
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
        let alone = |ours, now_ms| renewal_state.without_store(FetchEffect::Mints, ours, now_ms);
        assert_eq!([alone(true, 0), alone(true, 6_599_999)], [WithoutStore::Never; 2]);
        assert_eq!([alone(true, 6_600_000), alone(true, 7_199_999)], [WithoutStore::IfAlive; 2]);
        assert_eq!([alone(false, 6_600_000), alone(true, 7_200_000)], [WithoutStore::Never; 2]);
    }

    #[test]
    fn without_the_store_a_polled_value_is_asked_for_near_the_end_of_its_trusted_time() {
        let (polled, stable) = (renewal_state(Renewal::Poll), renewal_state(Renewal::Window { window_ms: 300_000 }));
        assert_eq!(polled.without_store(FetchEffect::Repeats, false, 5_399_999), WithoutStore::Never);
        assert_eq!(polled.without_store(FetchEffect::Repeats, false, 5_400_000), WithoutStore::Always);
        assert_eq!(
            stable.without_store(FetchEffect::Repeats, false, 1),
            WithoutStore::Always,
            "its answer is the same for all"
        );
    }
}
