//! What a node does next, given what the store has said: the other half of the protocol, as values.
//!
//! Pure: no clock, no store, no socket. The flight, the model check and the simulation all decide by these.

use super::record::{OpOutcome, Record, StoreMs};
use crate::clock::BootMs;

/// A lease outlasts its call by a quarter and this, milliseconds.
const LEASE_SLACK_MS: u64 = 1_000;
/// However short a life is, a lease lasts this long.
const LEASE_MS_MIN: u64 = 500;

/// What asking twice does at WeChat.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FetchEffect {
    /// Each call makes another token and dooms the one before: one node at a time, and never without the store.
    Mints,
    /// The answer is the same for everybody: the lease saves calls, and that is all.
    Repeats,
}

/// What the answer to [`super::Op::Take`] leads to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NextStep {
    /// The lease is ours: WeChat is asked. `has_unsettled`: a call before ours is not accounted for.
    Call { has_unsettled: bool },
    /// The record's value is later than ours.
    Adopt,
    /// Somebody else is at it, or it has just been done. To be looked at again after so long.
    Wait { ms: u64 },
}

/// After [`super::Op::Take`].
pub fn after_take<V: Clone + PartialEq>(outcome: OpOutcome, record: &Record<V>) -> NextStep {
    match outcome {
        OpOutcome::Done => NextStep::Call { has_unsettled: record.unsettled.is_some() },
        OpOutcome::NewerValue => NextStep::Adopt,
        OpOutcome::LeaseHeld { left_ms } | OpOutcome::PutOff { left_ms } => NextStep::Wait { ms: left_ms },
        OpOutcome::Rejected => NextStep::Wait { ms: LEASE_MS_MIN },
    }
}

/// What the answer to [`super::Op::Publish`] leads to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PublishResult {
    /// The value is everybody's.
    Yes,
    /// Another has published meanwhile: its value is taken, ours dropped, and one more fetch settles which is later.
    No,
}

/// After [`super::Op::Publish`].
pub fn after_publish(outcome: OpOutcome) -> PublishResult {
    if outcome == OpOutcome::Done { PublishResult::Yes } else { PublishResult::No }
}

/// The generation of a value that is to follow both the store's and one's own; `first` if there is neither. `proven`: the
/// generation of the store's value as that itself says under its seal, 0 without one. The number beside it may be
/// anybody's.
pub fn next_generation(proven: u64, held: u64, first: u64) -> u64 {
    match proven.max(held) {
        0 => first,
        known => known.saturating_add(1),
    }
}

/// How long a lease is asked for. Its end is what others wait for when its holder has died in mid-call, and then the
/// former value has the overlap left: so it lasts no longer than a third of that.
pub fn lease_ms(call_ms: u64, overlap_ms: u64) -> u64 {
    let wanted = call_ms.saturating_add(call_ms / 4).saturating_add(LEASE_SLACK_MS);
    let most = if overlap_ms == 0 { wanted } else { (overlap_ms / 3).max(LEASE_MS_MIN) };
    wanted.min(most)
}

/// How much of a lease must be left for a call to be sent at all.
pub fn need_ms(lease_ms: u64) -> u64 {
    lease_ms / 2
}

/// How long a call may take under what is left of its lease: it must have ended before that has.
pub fn call_ms(left_ms: u64) -> u64 {
    left_ms - left_ms / 4
}

/// How long nodes that have not renewed the last time leave the one that has to do it: nobody has to be elected.
/// `random` is in 0..1.
pub fn patience_ms(lead_ms: u64, random: f64) -> u64 {
    let most = lead_ms / 10;
    most / 10 + (most as f64 * 0.9 * random) as u64
}

/// Between two tokens made one after the other there is at least this, unless the first is dead.
pub fn spacing_ms(overlap_ms: u64) -> u64 {
    (overlap_ms / 5).max(1)
}

/// An instant on two clocks: the store's, read while a question was under way.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Moment {
    pub store_ms: StoreMs,
    /// When the question was sent and when the answer was there: the store's clock was read in between.
    pub sent_ms: BootMs,
    pub received_ms: BootMs,
}

/// Either clock has moved on by up to this since the millisecond it was read as, and the two have not moved on alike.
const PHASE_MS: u64 = 1;

impl Moment {
    /// An instant of the store's on our clock, rather too early than too late.
    pub fn to_boot_ms(&self, store_ms: StoreMs) -> BootMs {
        let at_ms = match store_ms.checked_sub(self.store_ms) {
            Some(ahead) => self.sent_ms.saturating_add(ahead),
            None => self.sent_ms.saturating_sub(self.store_ms - store_ms),
        };
        at_ms.saturating_sub(PHASE_MS)
    }

    /// An instant of ours on the store's clock, rather too early than too late.
    pub fn to_store_ms(&self, boot_ms: BootMs) -> StoreMs {
        let at_ms = match boot_ms.checked_sub(self.received_ms) {
            Some(ahead) => self.store_ms.saturating_add(ahead),
            None => self.store_ms.saturating_sub(self.received_ms - boot_ms),
        };
        at_ms.saturating_sub(PHASE_MS)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_instant_that_went_through_the_store_never_comes_back_later() {
        let moment = Moment { store_ms: 1_000_000, sent_ms: 500, received_ms: 540 };
        for boot_ms in [0, 499, 500, 520, 540, 541, 9_000] {
            let back = moment.to_boot_ms(moment.to_store_ms(boot_ms));
            assert!(back <= boot_ms && boot_ms - back <= 40 + 2 * PHASE_MS, "{boot_ms} -> {back}");
        }
    }

    /// Clocks are read as whole milliseconds, and theirs begin at different times.
    #[test]
    fn an_instant_on_the_other_clock_is_never_later_than_it_is_wherever_in_a_millisecond_the_clocks_are() {
        const STORE_AHEAD_US: u64 = 1_000_000_000;
        let instants_us = [0, 250, 500, 999, 1_000, 7_200_000_500];
        for phase_us in (0..1_000).step_by(50) {
            for (sent_us, read_us, received_us) in [(500, 500, 500), (5_900, 5_950, 6_050), (5_001, 7_420, 9_999)] {
                let store_us = |boot_us: u64| boot_us + STORE_AHEAD_US + phase_us;
                let (sent_ms, received_ms) = (sent_us / 1_000, received_us / 1_000);
                let moment = Moment { store_ms: store_us(read_us) / 1_000, sent_ms, received_ms };
                let error_ms = (received_us - sent_us).div_ceil(1_000) + 2;
                for boot_us in instants_us.map(|us| us + read_us) {
                    let (here, there) = (boot_us / 1_000, store_us(boot_us) / 1_000);
                    let to_here = moment.to_boot_ms(there);
                    assert!(to_here <= here && here - to_here <= error_ms, "{phase_us}: {to_here} for {here}");
                    let to_there = moment.to_store_ms(here);
                    assert!(to_there <= there && there - to_there <= error_ms, "{phase_us}: {to_there} for {there}");
                }
            }
        }
    }

    #[test]
    fn a_lease_outlasts_its_call_and_ends_well_within_the_overlap() {
        assert_eq!(lease_ms(8_000, 300_000), 11_000);
        assert_eq!(lease_ms(8_000, 0), 11_000);
        assert_eq!(lease_ms(8_000, 2_500), 833);
        assert_eq!(lease_ms(8_000, 100), LEASE_MS_MIN);
        assert!(call_ms(need_ms(11_000)) < need_ms(11_000));
    }
}
