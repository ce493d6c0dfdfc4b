//! The generation: the number of a credential's value.
//!
//! A later value has a higher generation. Clients see it as the cas of a managed key and wait for a higher one. So it
//! must rise even if the last one is not known any more: the state file was lost, the app was moved to another
//! endpoint, or there is no state file. Therefore the first generation is the wall clock in milliseconds: values are
//! not that frequent, so all generations before are lower. From then on each value adds one.
//!
//! Pure. In a cluster the generation goes on from that of the store; followers have their leader's generations.

/// Generations stay below this: nodes share them as doubles and accept only lower ones.
pub const GENERATION_END: u64 = 1_000_000_000_000_000;
/// A wall clock outside of these years (2020 to 2100) is not set.
const CLOCK_IS_SET_MS: std::ops::Range<u64> = 1_577_836_800_000..4_102_444_800_000;
/// The first generation if the clock is not set. Clients that know a higher one are answered at once.
const FIRST_WITHOUT_CLOCK: u64 = 1;

/// The generation of a credential's first value, by the wall clock.
pub fn first(unix_ms: i64) -> u64 {
    u64::try_from(unix_ms).ok().filter(|ms| CLOCK_IS_SET_MS.contains(ms)).unwrap_or(FIRST_WITHOUT_CLOCK)
}

/// The generation after this one; `first` if it is 0, because none is known.
pub fn next(known: u64, first: u64) -> u64 {
    match known {
        0 => first,
        known => known.saturating_add(1),
    }
}

/// A generation from the state file. One that no server has used (a damaged or hand-made state) starts anew; otherwise
/// every later one would be out of range too.
pub fn restored(generation: u64, unix_ms: i64) -> u64 {
    if (1..GENERATION_END - 1).contains(&generation) { generation } else { first(unix_ms) }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW_MS: i64 = 1_795_839_604_000;

    #[test]
    fn a_first_generation_is_above_all_that_were_given_out_before() {
        let now = first(NOW_MS);
        // A server that began a year ago and has had a value a minute since.
        let year_ago = next(0, first(NOW_MS - 365 * 86_400_000));
        let last = (0..365 * 1_440).fold(year_ago, |known, _| next(known, now));
        assert!(now > last);
        assert!(now > next(first(NOW_MS - 2), now), "a restart within the second");
    }

    #[test]
    fn what_is_known_counts_on_by_one_whatever_the_clock_says() {
        for unix_ms in [NOW_MS, 0, -1, i64::MAX] {
            assert_eq!([next(1, first(unix_ms)), next(57, first(unix_ms))], [2, 58]);
        }
    }

    #[test]
    fn a_clock_that_was_not_set_begins_at_one() {
        for unix_ms in [i64::MIN, -1, 0, 1_000_000_000, 1_577_836_799_999, 4_102_444_800_000, i64::MAX] {
            assert_eq!(next(0, first(unix_ms)), 1, "{unix_ms}");
        }
        const { assert!(CLOCK_IS_SET_MS.end < GENERATION_END) };
    }

    #[test]
    fn a_kept_generation_out_of_range_begins_anew() {
        assert_eq!(restored(7, NOW_MS), 7);
        for wrong in [0, GENERATION_END - 1, GENERATION_END, 1 << 53, u64::MAX] {
            assert_eq!(restored(wrong, NOW_MS), first(NOW_MS), "{wrong}");
        }
    }
}
