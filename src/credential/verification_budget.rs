//! How many verifications clients may cause, over all credentials: a client in a loop over ten thousand apps must not
//! use up the calls of the site. Each credential has its own limit besides.
//!
//! A verification that shows that the client was right costs nothing: only false alarms are limited. Pure: the time
//! comes in as a value.

use crate::clock::BootMs;

/// How many at once, and after how long there is one more.
const LOOKS_MAX: f64 = 300.0;
const LOOK_EVERY_MS: f64 = 100.0;

pub(super) struct VerificationBudget {
    left: f64,
    at_ms: BootMs,
}

impl VerificationBudget {
    pub fn new(now_ms: BootMs) -> VerificationBudget {
        VerificationBudget { left: LOOKS_MAX, at_ms: now_ms }
    }

    pub fn try_take(&mut self, now_ms: BootMs) -> bool {
        let since_ms = now_ms.saturating_sub(self.at_ms) as f64;
        self.left = (self.left + since_ms / LOOK_EVERY_MS).min(LOOKS_MAX);
        self.at_ms = now_ms;
        let taken = self.left >= 1.0;
        self.left -= f64::from(u8::from(taken));
        taken
    }

    /// Gives one back: the client was right, or no call was needed.
    pub fn refund(&mut self) {
        self.left = (self.left + 1.0).min(LOOKS_MAX);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn false_alarms_are_bounded_and_true_ones_are_not() {
        let mut budget = VerificationBudget::new(0);
        assert_eq!((0..1_000).filter(|_| budget.try_take(0)).count(), 300);
        assert_eq!((0..1_000).filter(|_| budget.try_take(1_000)).count(), 10);
        budget.refund();
        for _ in 0..1_000 {
            assert!(budget.try_take(1_000));
            budget.refund();
        }
        assert!(budget.try_take(1_000) && !budget.try_take(1_000));
    }
}
