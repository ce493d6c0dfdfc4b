//! Call counters that start again with each period of the wall clock in UTC+8. Pure.
//!
//! WeChat does not publish when its daily counters start again; assumption: midnight in China (facts 1.8).

const UTC8_MS: i64 = 8 * 3_600_000;
const DAY_MS: i64 = 86_400_000;

/// How long a counter runs before it starts again.
#[derive(Clone, Copy, Debug)]
pub(super) enum Period {
    Minute,
    Hour,
    Day,
    Month,
}

impl Period {
    /// A number that changes whenever a new period begins.
    fn index(self, unix_ms: i64) -> i64 {
        let local_ms = unix_ms.saturating_add(UTC8_MS);
        match self {
            Period::Minute => local_ms.div_euclid(60_000),
            Period::Hour => local_ms.div_euclid(3_600_000),
            Period::Day => local_ms.div_euclid(DAY_MS),
            Period::Month => month_index(local_ms.div_euclid(DAY_MS)),
        }
    }
}

/// Calls used in the current period.
#[derive(Clone, Debug, Default)]
pub(super) struct QuotaMeter {
    period: i64,
    used: u64,
}

impl QuotaMeter {
    /// Counts one call. False, and nothing is counted, if the period's calls are used up.
    pub(super) fn try_take(&mut self, period: Period, limit: u64, unix_ms: i64) -> bool {
        let index = period.index(unix_ms);
        if self.period != index {
            *self = QuotaMeter { period: index, used: 0 };
        }
        let granted = self.used < limit;
        self.used += u64::from(granted);
        granted
    }
}

/// Months since year 0 of a day counted from 1970 (Howard Hinnant's `civil_from_days`).
fn month_index(day: i64) -> i64 {
    let shifted = day.saturating_add(719_468); // days since 0000-03-01
    let era = shifted.div_euclid(146_097);
    let day_of_era = shifted.rem_euclid(146_097);
    let year_of_era = (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let month_from_march = (5 * day_of_year + 2) / 153;
    (era * 400 + year_of_era) * 12 + month_from_march
}

#[cfg(test)]
mod tests {
    use super::*;

    /// 2024-03-01 00:00 in UTC+8.
    const MARCH_MS: i64 = 1_709_222_400_000;

    #[track_caller]
    fn check_turn(period: Period, turn_ms: i64) {
        let mut meter = QuotaMeter::default();
        assert!(meter.try_take(period, 1, turn_ms - 1), "first call of the old period");
        assert!(!meter.try_take(period, 1, turn_ms - 1), "quota of the old period is used up");
        assert!(meter.try_take(period, 1, turn_ms), "a millisecond later a new period begins");
    }

    #[test]
    fn each_period_turns_at_its_own_millisecond() {
        check_turn(Period::Minute, MARCH_MS + 60_000);
        check_turn(Period::Hour, MARCH_MS + 3_600_000);
        check_turn(Period::Day, MARCH_MS + DAY_MS);
        check_turn(Period::Month, MARCH_MS);
    }

    #[test]
    fn utc_midnight_is_no_turn() {
        let mut meter = QuotaMeter::default();
        let utc_midnight = MARCH_MS + UTC8_MS;
        assert!(meter.try_take(Period::Day, 1, utc_midnight - 1));
        assert!(!meter.try_take(Period::Day, 1, utc_midnight));
    }

    #[test]
    fn a_month_is_a_calendar_month() {
        let month = |ms: i64| Period::Month.index(ms);
        assert_eq!(month(MARCH_MS + 31 * DAY_MS - 1), month(MARCH_MS), "31 March");
        assert_eq!(month(MARCH_MS + 31 * DAY_MS), month(MARCH_MS) + 1, "1 April");
        assert_eq!(month(MARCH_MS - 1), month(MARCH_MS - 29 * DAY_MS), "29 February, a leap year");
    }
}
