//! What a node does after each answer of the store, how long leases last, and how instants are converted between the
//! store's clock and this node's. The other half of the protocol: `record` has the store's rules.
//!
//! Pure: no clock, no store, no socket. The refresher, the model check and the simulation use these same rules.

use super::record::{OpOutcome, StoreMs};
use crate::clock::BootMs;

/// A lease lasts a quarter longer than its call may take, and this, ms.
const LEASE_SLACK_MS: u64 = 1_000;
/// No lease is shorter, however short a value lives.
const LEASE_MS_MIN: u64 = 500;

/// What a second fetch of the same credential does at the platform.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FetchEffect {
    /// Each call mints another token and ends the one before after an overlap. Only one node may call at a time, and none
    /// without the store.
    NewToken,
    /// All nodes get the same token. The lease only saves calls.
    SameToken,
}

/// What a node does after [`super::Op::Take`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NextStep {
    /// It has the lease and calls the platform.
    Call,
    /// The record has a later value, which it takes over.
    TakeOver,
    /// Another node is renewing, or has just done so. It asks again after so long.
    Wait { ms: u64 },
}

pub fn after_take(outcome: OpOutcome) -> NextStep {
    match outcome {
        OpOutcome::Done => NextStep::Call,
        OpOutcome::NewerValue => NextStep::TakeOver,
        OpOutcome::LeaseHeld { left_ms } | OpOutcome::PutOff { left_ms } => NextStep::Wait { ms: left_ms },
        OpOutcome::Rejected => NextStep::Wait { ms: LEASE_MS_MIN },
    }
}

/// The generation after both the store's and this node's; `first` if neither has a value. `sealed` is the generation
/// inside the seal of the store's value, 0 without one: the number beside the seal may be forged.
pub fn next_generation(sealed: u64, held: u64, first: u64) -> u64 {
    match sealed.max(held) {
        0 => first,
        known => known.saturating_add(1),
    }
}

/// How long a lease to ask for. When the holder dies during its call, the others wait for the end of the lease, and the
/// former value has only the overlap left: so a lease lasts no longer than a third of the overlap.
pub fn lease_ms(call_ms: u64, overlap_ms: u64) -> u64 {
    let wanted = call_ms.saturating_add(call_ms / 4).saturating_add(LEASE_SLACK_MS);
    let most = if overlap_ms == 0 { wanted } else { (overlap_ms / 3).max(LEASE_MS_MIN) };
    wanted.min(most)
}

/// How much of a lease must be left for a call to be sent.
pub fn need_ms(lease_ms: u64) -> u64 {
    lease_ms / 2
}

/// How long a call may take: it must end before the lease does.
pub fn call_ms(left_ms: u64) -> u64 {
    left_ms - left_ms / 4
}

/// How long nodes wait that did not make the last renewal, so that the node which did renews first: no election is
/// needed. `random` is in 0..1.
pub fn standby_wait_ms(lead_ms: u64, random: f64) -> u64 {
    let most = lead_ms / 10;
    most / 10 + (most as f64 * 0.9 * random) as u64
}

/// The least time between two minted tokens, unless the first is dead.
pub fn spacing_ms(overlap_ms: u64) -> u64 {
    (overlap_ms / 5).max(1)
}

/// A reading of the store's clock, and between which two instants of this node's clock it was taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct StoreClockReading {
    pub store_ms: StoreMs,
    /// When the question was sent and when the answer had come. The store's clock was read in between.
    pub sent_ms: BootMs,
    pub received_ms: BootMs,
}

/// Each clock counts whole milliseconds, and the two do not begin them at the same time.
const PHASE_MS: u64 = 1;

impl StoreClockReading {
    /// Converts an instant of the store's clock to ours; too early rather than too late.
    pub fn to_boot_ms(&self, store_ms: StoreMs) -> BootMs {
        let at_ms = match store_ms.checked_sub(self.store_ms) {
            Some(ahead) => self.sent_ms.saturating_add(ahead),
            None => self.sent_ms.saturating_sub(self.store_ms - store_ms),
        };
        at_ms.saturating_sub(PHASE_MS)
    }

    /// Converts an instant of our clock to the store's; too early rather than too late.
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
        let clock_reading = StoreClockReading { store_ms: 1_000_000, sent_ms: 500, received_ms: 540 };
        for boot_ms in [0, 499, 500, 520, 540, 541, 9_000] {
            let back = clock_reading.to_boot_ms(clock_reading.to_store_ms(boot_ms));
            assert!(back <= boot_ms && boot_ms - back <= 40 + 2 * PHASE_MS, "{boot_ms} -> {back}");
        }
    }

    /// Both clocks are read in whole milliseconds, which begin at different times.
    #[test]
    fn an_instant_on_the_other_clock_is_never_later_than_it_is_wherever_in_a_millisecond_the_clocks_are() {
        const STORE_AHEAD_US: u64 = 1_000_000_000;
        let instants_us = [0, 250, 500, 999, 1_000, 7_200_000_500];
        for phase_us in (0..1_000).step_by(50) {
            for (sent_us, read_us, received_us) in [(500, 500, 500), (5_900, 5_950, 6_050), (5_001, 7_420, 9_999)] {
                let store_us = |boot_us: u64| boot_us + STORE_AHEAD_US + phase_us;
                let (sent_ms, received_ms) = (sent_us / 1_000, received_us / 1_000);
                let clock_reading = StoreClockReading { store_ms: store_us(read_us) / 1_000, sent_ms, received_ms };
                let error_ms = (received_us - sent_us).div_ceil(1_000) + 2;
                for boot_us in instants_us.map(|us| us + read_us) {
                    let (here, there) = (boot_us / 1_000, store_us(boot_us) / 1_000);
                    let to_here = clock_reading.to_boot_ms(there);
                    assert!(to_here <= here && here - to_here <= error_ms, "{phase_us}: {to_here} for {here}");
                    let to_there = clock_reading.to_store_ms(here);
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
