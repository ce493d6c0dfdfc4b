//! How long a client can rely on a value.
//!
//! The platform says how long a value lives, but a renewal of ours may end it sooner: an endpoint that makes a new
//! token at every call keeps the one before for a few minutes only. So what is told is the earlier of both. It does not
//! decide whether a value is served: that is its true end. Pure.

use crate::clock::BootMs;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ReliableUntil {
    /// Until then no planned renewal ends it. 0: not known.
    pub until_boot_ms: BootMs,
    /// A renewal at any time leaves at least this much of it.
    pub at_least_ms: u64,
}

impl ReliableUntil {
    /// No renewal ends it before its expiry.
    pub const TO_THE_END: ReliableUntil = ReliableUntil { until_boot_ms: BootMs::MAX, at_least_ms: 0 };

    /// Until when a client that asks now can rely on a value with that expiry. If the renewal is late, the value is
    /// still good for the time that the renewal will leave.
    #[inline]
    pub fn end(self, expires_boot_ms: BootMs, now_ms: BootMs) -> BootMs {
        self.until_boot_ms.max(now_ms.saturating_add(self.at_least_ms)).min(expires_boot_ms)
    }

    /// How long before its expiry a value cannot be relied on any more; 0 if it always can, none if that is not known.
    pub fn lead_ms(self, expires_boot_ms: BootMs) -> Option<u64> {
        (self.until_boot_ms > 0).then(|| expires_boot_ms.saturating_sub(self.until_boot_ms))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_told_is_the_earlier_of_the_plan_and_the_true_end() {
        let planned = ReliableUntil { until_boot_ms: 5_000, at_least_ms: 150 };
        assert_eq!(planned.end(7_200, 0), 5_000);
        assert_eq!(planned.end(3_000, 0), 3_000, "never past the true end");
        assert_eq!(ReliableUntil::TO_THE_END.end(7_200, 0), 7_200);
        assert_eq!((planned.lead_ms(7_200), ReliableUntil::TO_THE_END.lead_ms(7_200)), (Some(2_200), Some(0)));
    }

    #[test]
    fn while_a_renewal_is_late_the_time_told_goes_on_with_the_clock() {
        let planned = ReliableUntil { until_boot_ms: 5_000, at_least_ms: 150 };
        assert_eq!(planned.end(7_200, 4_900), 5_050);
        assert_eq!(planned.end(7_200, 6_000), 6_150);
        assert_eq!(planned.end(7_200, 7_150), 7_200);
    }
}
