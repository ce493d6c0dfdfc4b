//! The limits a millisecond before and after their times; the parts of a day; then any sequence of times.

use std::collections::HashMap;

use proptest::prelude::*;

use super::*;

/// 2024-03-01 00:00 in UTC+8.
const MIDNIGHT_MS: i64 = 1_709_222_400_000;

fn quota(per_day: u64) -> Quota {
    Quota { forced_per_day: 10, ..Quota::daily(per_day) }
}

/// How many of these calls are allowed at that time.
fn granted(usage: &mut QuotaUsage, quota: &Quota, unix_ms: i64, why: CallReason, tries: u64) -> u64 {
    (0..tries).filter(|_| usage.try_charge(quota, unix_ms, why).is_ok()).count() as u64
}

#[track_caller]
fn turns_at(quota: &Quota, limit: QuotaLimit, period_end_ms: i64) {
    let mut usage = QuotaUsage::default();
    assert_eq!(granted(&mut usage, quota, period_end_ms - 1, CallReason::Expiring, 10), 3);
    let denied = usage.try_charge(quota, period_end_ms - 1, CallReason::Expiring).unwrap_err();
    assert_eq!(denied, QuotaExceeded { limit, used: 3, of: 3, until_unix_ms: period_end_ms });
    assert_eq!(granted(&mut usage, quota, period_end_ms, CallReason::Expiring, 10), 3, "a millisecond later");
}

#[test]
fn each_period_turns_at_its_own_millisecond() {
    turns_at(&quota(3), QuotaLimit::Day, MIDNIGHT_MS);
    turns_at(&Quota { per_hour: Some(3), ..Quota::NONE }, QuotaLimit::Hour, MIDNIGHT_MS + HOUR_MS);
    turns_at(&Quota { per_minute: Some(3), ..Quota::NONE }, QuotaLimit::Minute, MIDNIGHT_MS + MINUTE_MS);
}

#[test]
fn midnight_in_utc_is_no_turn() {
    let mut usage = QuotaUsage::default();
    let utc_midnight = MIDNIGHT_MS + UTC8_MS;
    assert_eq!(granted(&mut usage, &quota(3), utc_midnight - 1, CallReason::Expiring, 9), 3);
    assert_eq!(granted(&mut usage, &quota(3), utc_midnight, CallReason::Expiring, 9), 0);
}

#[test]
fn renewals_leave_the_reserve_and_a_dying_value_may_have_it() {
    for (per_day, renewals) in [(2_000, 1_800), (200, 180), (12, 7), (4, 2), (1, 1)] {
        let (mut usage, quota) = (QuotaUsage::default(), quota(per_day));
        assert_eq!(granted(&mut usage, &quota, MIDNIGHT_MS, CallReason::Renewal, per_day + 9), renewals);
        assert_eq!(granted(&mut usage, &quota, MIDNIGHT_MS, CallReason::Expiring, per_day + 9), per_day - renewals);
        assert_eq!(usage.calls_today(), per_day);
    }
}

#[test]
fn checks_have_a_tenth_which_is_not_the_renewals() {
    let (mut usage, quota) = (QuotaUsage::default(), quota(200));
    assert_eq!(granted(&mut usage, &quota, MIDNIGHT_MS, CallReason::Verification, 1_000), 20);
    assert_eq!(
        usage.try_charge(&quota, MIDNIGHT_MS, CallReason::Verification).unwrap_err().limit,
        QuotaLimit::Verifications
    );
    assert_eq!(granted(&mut usage, &quota, MIDNIGHT_MS, CallReason::Renewal, 1_000), 180);
    let mut usage = QuotaUsage::default();
    assert_eq!(granted(&mut usage, &quota, MIDNIGHT_MS, CallReason::Renewal, 1_000), 180);
    assert_eq!(
        granted(&mut usage, &quota, MIDNIGHT_MS, CallReason::Verification, 1_000),
        20,
        "nor do they starve the checks"
    );
}

#[test]
fn forced_refreshes_are_ten_a_day_and_thirty_seconds_apart() {
    let (mut usage, quota) = (QuotaUsage::default(), crate::platform::mp::STABLE.quota);
    let mut force = |unix_ms| usage.try_charge(&quota, unix_ms, CallReason::Forced).map_err(|denied| denied.limit);
    assert!(force(MIDNIGHT_MS).is_ok());
    assert_eq!(force(MIDNIGHT_MS + 29_999).unwrap_err(), QuotaLimit::ForcedGap);
    for n in 1..10 {
        assert!(force(MIDNIGHT_MS + n * 30_000).is_ok(), "{n}");
    }
    assert_eq!(force(MIDNIGHT_MS + DAY_MS - 1).unwrap_err(), QuotaLimit::Forced);
    assert!(force(MIDNIGHT_MS + DAY_MS).is_ok());
    assert_eq!(
        usage.try_charge(&quota, MIDNIGHT_MS + DAY_MS, CallReason::Renewal).map(drop),
        Ok(()),
        "a budget of its own"
    );
}

#[test]
fn a_clock_set_back_delays_a_forced_refresh_by_the_pause_and_no_longer() {
    let (mut usage, quota) = (QuotaUsage::default(), crate::platform::mp::STABLE.quota);
    let noon = MIDNIGHT_MS + 12 * HOUR_MS;
    usage.try_charge(&quota, noon, CallReason::Forced).unwrap();
    let back = noon - HOUR_MS;
    let denied = usage.try_charge(&quota, back, CallReason::Forced).unwrap_err();
    assert_eq!((denied.limit, denied.until_unix_ms), (QuotaLimit::ForcedGap, back + 30_000));
    assert!(usage.try_charge(&quota, back + 30_000, CallReason::Forced).is_ok());
}

#[test]
fn a_clock_set_back_over_midnight_goes_on_counting() {
    let (mut usage, quota) = (QuotaUsage::default(), quota(10));
    assert_eq!(granted(&mut usage, &quota, MIDNIGHT_MS - 1, CallReason::Expiring, 4), 4);
    assert_eq!(granted(&mut usage, &quota, MIDNIGHT_MS, CallReason::Expiring, 2), 2);
    assert_eq!(
        granted(&mut usage, &quota, MIDNIGHT_MS - 1, CallReason::Expiring, 99),
        6,
        "four of that day were made before"
    );
    assert_eq!(granted(&mut usage, &quota, MIDNIGHT_MS, CallReason::Expiring, 99), 2, "and they count for both");
}

#[test]
fn a_clock_that_was_far_ahead_is_believed_again_and_the_count_is_kept() {
    let (mut usage, quota) = (QuotaUsage::default(), quota(10));
    let ahead = MIDNIGHT_MS + 1_000 * DAY_MS;
    assert_eq!(granted(&mut usage, &quota, ahead, CallReason::Expiring, 99), 10);
    assert!(usage.try_charge(&quota, MIDNIGHT_MS, CallReason::Expiring).is_err());
    assert!(usage.try_charge(&quota, MIDNIGHT_MS + RECHECK_MS - 1, CallReason::Expiring).is_err());
    assert!(usage.day_ends_unix_ms() > ahead, "not yet");
    assert!(usage.try_charge(&quota, MIDNIGHT_MS + RECHECK_MS, CallReason::Expiring).is_err(), "not cleared");
    assert_eq!(usage.day_ends_unix_ms(), MIDNIGHT_MS + DAY_MS, "but it ends today");
    assert_eq!(granted(&mut usage, &quota, MIDNIGHT_MS + DAY_MS, CallReason::Expiring, 99), 10);
}

#[test]
fn an_hour_counted_by_a_clock_that_was_ahead_holds_nobody_for_longer_than_two() {
    let (mut usage, quota) = (QuotaUsage::default(), Quota { per_hour: Some(5), ..Quota::NONE });
    assert_eq!(granted(&mut usage, &quota, MIDNIGHT_MS + 20 * HOUR_MS, CallReason::Renewal, 9), 5);
    assert_eq!(granted(&mut usage, &quota, MIDNIGHT_MS, CallReason::Renewal, 9), 0);
    assert_eq!(granted(&mut usage, &quota, MIDNIGHT_MS + 2 * HOUR_MS, CallReason::Renewal, 9), 5);
}

#[test]
fn a_call_never_sent_is_given_back_to_its_own_day_only() {
    let (mut usage, quota) = (QuotaUsage::default(), quota(30));
    let charge = usage.try_charge(&quota, MIDNIGHT_MS - 1, CallReason::Verification).unwrap();
    usage.refund(charge);
    assert_eq!((usage.calls_today(), usage.checks), (0, 0));
    let charge = usage.try_charge(&quota, MIDNIGHT_MS - 1, CallReason::Verification).unwrap();
    usage.try_charge(&quota, MIDNIGHT_MS, CallReason::Verification).unwrap();
    usage.refund(charge);
    assert_eq!((usage.calls_today(), usage.checks), (1, 1));
}

#[test]
fn a_denial_says_which_quota_and_how_much_of_it() {
    let mut usage = QuotaUsage::default();
    granted(&mut usage, &quota(12), MIDNIGHT_MS, CallReason::Expiring, 12);
    let denied = usage.try_charge(&quota(12), MIDNIGHT_MS, CallReason::Expiring).unwrap_err();
    assert_eq!(denied.to_string(), "12 of 12 calls of today's quota are used");
}

#[test]
fn the_edges_of_time_harm_nobody() {
    for unix_ms in [i64::MIN, -1, 0, i64::MAX] {
        for then_ms in [i64::MAX, 0, i64::MIN] {
            let mut usage = QuotaUsage::default();
            granted(&mut usage, &quota(5), unix_ms, CallReason::Expiring, 9);
            granted(&mut usage, &quota(5), then_ms, CallReason::Forced, 9);
        }
    }
}

fn any_use() -> impl Strategy<Value = CallReason> {
    prop_oneof![
        Just(CallReason::Renewal),
        Just(CallReason::Expiring),
        Just(CallReason::Verification),
        Just(CallReason::Forced)
    ]
}

proptest! {
    /// Days as the clock showed them; it may be set back, but stays within a day of the latest time shown.
    #[test]
    fn no_day_sees_more_calls_than_its_quota(
        per_day in 1_u64..40,
        steps in prop::collection::vec((-DAY_MS..DAY_MS, any_use(), 0_u64..30, any::<bool>()), 1..80),
    ) {
        let (mut usage, quota) = (QuotaUsage::default(), quota(per_day));
        let mut sent: HashMap<i64, u64> = HashMap::new();
        let (mut now, mut latest) = (MIDNIGHT_MS, MIDNIGHT_MS);
        for (step, why, tries, restart) in steps {
            now = (now + step).max(latest - DAY_MS);
            latest = latest.max(now);
            if restart {
                usage = serde_json::from_str(&serde_json::to_string(&usage).unwrap()).unwrap();
            }
            for n in 0..tries {
                if let Ok(charge) = usage.try_charge(&quota, now, why) {
                    match n % 5 {
                        0 => usage.refund(charge),
                        _ => *sent.entry((now + UTC8_MS).div_euclid(DAY_MS)).or_default() += 1,
                    }
                }
            }
            prop_assert!(sent.values().all(|calls| *calls <= per_day), "{sent:?}");
        }
    }

    #[test]
    fn nobody_is_held_back_for_ever(times in prop::collection::vec(any::<i64>(), 0..20), then in 0..i64::MAX / 2) {
        let (mut usage, quota) = (QuotaUsage::default(), quota(3));
        for unix_ms in times {
            granted(&mut usage, &quota, unix_ms, CallReason::Expiring, 5);
        }
        let hours = (0..72).map(|hour| then + hour * HOUR_MS);
        let calls: u64 = hours.map(|unix_ms| granted(&mut usage, &quota, unix_ms, CallReason::Expiring, 1)).sum();
        prop_assert!(calls >= 3, "{calls} in three days");
    }
}
