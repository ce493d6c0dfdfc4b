//! Time. Expiry is decided on the boot clock, which neither a wall-clock jump nor a suspend can fool;
//! wall time is for people and for what is persisted.
//!
//! Never sleeps and never hands out timers.

use std::time::{SystemTime, UNIX_EPOCH};

use crate::sync::{AtomicU64, Ordering::Relaxed};

/// Milliseconds on `CLOCK_BOOTTIME`: monotonic, and it keeps counting while the machine is suspended.
pub type BootMs = u64;

/// One reading of both clocks, taken once for a batch of requests.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Now {
    /// Milliseconds on the boot clock; the only time that decides an expiry.
    pub boot_ms: BootMs,
    /// Milliseconds since 1970 by the wall clock; may jump.
    pub unix_ms: i64,
}

impl Now {
    /// Reads both clocks.
    pub fn read() -> Now {
        Now { boot_ms: boot_ms(), unix_ms: unix_ms() }
    }

    /// The same for a batch of requests: the wall clock as of the kernel's last tick, some milliseconds ago at most, for
    /// a fraction of the cost. Expiry is decided on the boot clock, which is read as exactly as ever.
    #[inline]
    pub fn read_for_batch() -> Now {
        Now { boot_ms: boot_ms(), unix_ms: ms(rustix::time::clock_gettime(rustix::time::ClockId::RealtimeCoarse)) }
    }

    /// Whole seconds since 1970.
    pub fn unix_s(&self) -> i64 {
        self.unix_ms.div_euclid(1000)
    }
}

/// Allows a log line that clients can cause only once in a while.
#[derive(Debug, Default)]
pub struct LogThrottle {
    /// When a line was last allowed, boot ms plus one, so that 0 means never.
    last: AtomicU64,
}

impl LogThrottle {
    /// True if none was allowed for that long; of several callers at once, for one of them.
    pub fn allow(&self, now: BootMs, spacing_ms: u64) -> bool {
        let (now, last) = (now.saturating_add(1), self.last.load(Relaxed));
        let allow = last == 0 || now.saturating_sub(last) >= spacing_ms;
        allow && self.last.compare_exchange(last, now, Relaxed, Relaxed).is_ok()
    }
}

/// A count as a log line shows it: not at all if there is nothing to count.
pub fn nonzero(count: u64) -> Option<u64> {
    (count > 0).then_some(count)
}

/// Allows a log line at once if it is a new one, and only once in a while if it is the same as before; counts the others.
#[derive(Debug)]
pub struct RepeatThrottle<T> {
    last: Option<T>,
    allowed_ms: BootMs,
    suppressed: u64,
}

impl<T> Default for RepeatThrottle<T> {
    fn default() -> RepeatThrottle<T> {
        RepeatThrottle { last: None, allowed_ms: 0, suppressed: 0 }
    }
}

impl<T: PartialEq> RepeatThrottle<T> {
    /// Some if this line may be logged: how many were suppressed since the last one.
    pub fn allow(&mut self, this: T, now: BootMs, spacing_ms: u64) -> Option<u64> {
        if self.last.as_ref() == Some(&this) && now < self.allowed_ms.saturating_add(spacing_ms) {
            self.suppressed += 1;
            return None;
        }
        (self.last, self.allowed_ms) = (Some(this), now);
        Some(std::mem::take(&mut self.suppressed))
    }

    /// The trouble is over: the last line that was logged, if any, and how many were suppressed since.
    pub fn end(&mut self) -> Option<(T, u64)> {
        self.last.take().map(|last| (last, std::mem::take(&mut self.suppressed)))
    }
}

/// Where the time comes from, for what must also run in a simulated month.
pub trait Clock: Send + Sync {
    /// Reads both clocks.
    fn now(&self) -> Now;

    /// Milliseconds on the boot clock.
    fn boot_ms(&self) -> BootMs {
        self.now().boot_ms
    }

    /// Milliseconds since 1970.
    fn unix_ms(&self) -> i64 {
        self.now().unix_ms
    }
}

/// The machine's clocks.
#[derive(Clone, Copy, Debug)]
pub struct SystemClock;

impl Clock for SystemClock {
    fn now(&self) -> Now {
        Now::read()
    }

    fn boot_ms(&self) -> BootMs {
        boot_ms()
    }

    fn unix_ms(&self) -> i64 {
        unix_ms()
    }
}

/// Milliseconds on the boot clock.
pub fn boot_ms() -> BootMs {
    u64::try_from(ms(rustix::time::clock_gettime(rustix::time::ClockId::Boottime))).unwrap_or(0)
}

/// Milliseconds on `CLOCK_MONOTONIC`, which stands still while the machine is suspended, as timers do.
pub fn monotonic_ms() -> u64 {
    u64::try_from(ms(rustix::time::clock_gettime(rustix::time::ClockId::Monotonic))).unwrap_or(0)
}

fn ms(time: rustix::time::Timespec) -> i64 {
    time.tv_sec.saturating_mul(1000).saturating_add(time.tv_nsec / 1_000_000)
}

/// Milliseconds since 1970; negative if the wall clock stands before it.
#[expect(clippy::disallowed_methods, reason = "the one place where the wall clock is read")]
pub fn unix_ms() -> i64 {
    match SystemTime::now().duration_since(UNIX_EPOCH) {
        Ok(after) => i64::try_from(after.as_millis()).unwrap_or(i64::MAX),
        Err(before) => i64::try_from(before.duration().as_millis()).map_or(i64::MIN, |ms| -ms),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_same_is_said_once_in_a_while_and_what_was_not_said_is_counted() {
        let mut log = RepeatThrottle::default();
        assert_eq!(log.allow("down", 10, 60), Some(0));
        assert_eq!((log.allow("down", 20, 60), log.allow("down", 69, 60)), (None, None));
        assert_eq!(log.allow("down", 70, 60), Some(2));
        assert_eq!(log.allow("down", 71, 60), None);
        assert_eq!(log.allow("full", 72, 60), Some(1), "another thing is said at once");
        assert_eq!(log.allow("full", 73, 60), None);
        assert_eq!((log.end(), log.end()), (Some(("full", 1)), None));
        assert_eq!(log.allow("full", 74, 60), Some(0));
    }
}
