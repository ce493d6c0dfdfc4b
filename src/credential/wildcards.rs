//! Managed keys that are known by their end. `{any}` in them stands for anything that a framework puts there, such as a
//! version that only the framework knows.
//!
//! Looked up only for keys that are not managed under their full name. Most look-ups end at one bit of a filter.

use std::collections::HashMap;

use crate::encoding::{ANY, END_BYTES_MIN};

/// Bits of the filter for each key: one ordinary key in this many passes it.
const FILTER_BITS_PER_KEY: usize = 16;

/// What such keys stand for.
pub(super) struct Wildcards<T> {
    by_end: HashMap<Box<[u8]>, Vec<Wildcard<T>>, foldhash::fast::RandomState>,
    /// The lengths of all ends, the longest first.
    end_lengths: Vec<usize>,
    /// A bit for the last bytes of every end; their number is a power of two.
    filter: Box<[u64]>,
}

struct Wildcard<T> {
    beginning: Box<[u8]>,
    behind: T,
}

impl<T> Wildcards<T> {
    /// From pairs of a key and what it stands for; none if there are no such keys. Of two equal keys the first counts.
    pub fn new(keys: Vec<(Box<[u8]>, T)>) -> Option<Wildcards<T>> {
        if keys.is_empty() {
            return None;
        }
        let words = (keys.len() * FILTER_BITS_PER_KEY).next_power_of_two().max(64) / 64;
        let mut wildcards =
            Wildcards { by_end: HashMap::default(), end_lengths: Vec::new(), filter: vec![0; words].into() };
        for (key, behind) in keys {
            let Some((beginning, end)) = split(&key) else { continue };
            let Some(bit) = wildcards.bit(end) else { continue };
            wildcards.filter[bit / 64] |= 1 << (bit % 64);
            wildcards.end_lengths.push(end.len());
            let same_end = wildcards.by_end.entry(end.into()).or_default();
            same_end.push(Wildcard { beginning: beginning.into(), behind });
            // The most exact key wins.
            same_end.sort_by_key(|wildcard| std::cmp::Reverse(wildcard.beginning.len()));
        }
        wildcards.end_lengths.sort_unstable_by_key(|length| std::cmp::Reverse(*length));
        wildcards.end_lengths.dedup();
        Some(wildcards)
    }

    /// What a key stands for. Takes no lock and allocates nothing.
    #[inline]
    pub fn find(&self, key: &[u8]) -> Option<&T> {
        let bit = self.bit(key)?;
        if self.filter.get(bit / 64)? & (1 << (bit % 64)) == 0 { None } else { self.find_by_end(key) }
    }

    /// Not inlined: the filter keeps most keys from it.
    #[inline(never)]
    fn find_by_end(&self, key: &[u8]) -> Option<&T> {
        self.end_lengths.iter().find_map(|length| {
            let (beginning, end) = key.split_at_checked(key.len().checked_sub(*length)?)?;
            let fits = |wildcard: &&Wildcard<T>| {
                beginning.len() > wildcard.beginning.len() && beginning.starts_with(&wildcard.beginning)
            };
            self.by_end.get(end)?.iter().find(fits).map(|wildcard| &wildcard.behind)
        })
    }

    /// Which bit of the filter stands for the last bytes of a key.
    #[inline]
    fn bit(&self, key: &[u8]) -> Option<usize> {
        const MIX: u64 = 0x9e37_79b9_7f4a_7c15;
        let last = u64::from_le_bytes(*key.last_chunk::<END_BYTES_MIN>()?);
        let mixed = last.wrapping_mul(MIX) >> 32;
        Some(mixed as usize & (self.filter.len() * 64 - 1))
    }
}

fn split(key: &[u8]) -> Option<(&[u8], &[u8])> {
    let at = memchr::memmem::find(key, ANY.as_bytes())?;
    Some((&key[..at], &key[at + ANY.len()..]))
}

pub(super) fn has_wildcard(key: &str) -> bool {
    split(key.as_bytes()).is_some()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn wildcards(keys: &[&str]) -> Wildcards<String> {
        let keys = keys.iter().map(|key| (key.as_bytes().into(), (*key).to_owned())).collect();
        Wildcards::new(keys).unwrap()
    }

    #[test]
    fn a_key_is_known_by_its_end() {
        let wildcards = wildcards(&["{any}:access_token_wx1", "ns:{any}:access_token_wx2"]);
        let find = |key: &str| wildcards.find(key.as_bytes()).map(String::as_str);
        assert_eq!(find("AbCdE:access_token_wx1"), Some("{any}:access_token_wx1"));
        assert_eq!(find("pool:AbCdE:access_token_wx1"), Some("{any}:access_token_wx1"));
        assert_eq!(find("ns:AbCdE:access_token_wx2"), Some("ns:{any}:access_token_wx2"));
        for key in [
            ":access_token_wx1",
            "access_token_wx1",
            "AbCdE:access_token_wx3",
            "AbCdE:access_token_wx1 ",
            "xs:AbCdE:access_token_wx2",
            "ns::access_token_wx2",
            "wx1",
            "",
        ] {
            assert_eq!(find(key), None, "{key}");
        }
    }

    #[test]
    fn the_most_exact_key_wins() {
        let wildcards = wildcards(&["{any}:token_wx1", "shop:{any}:token_wx1", "{any}:access:token_wx1"]);
        let find = |key: &str| wildcards.find(key.as_bytes()).map(String::as_str);
        assert_eq!(find("a:token_wx1"), Some("{any}:token_wx1"));
        assert_eq!(find("shop:a:token_wx1"), Some("shop:{any}:token_wx1"));
        assert_eq!(find("shop:a:access:token_wx1"), Some("{any}:access:token_wx1"));
    }

    #[test]
    fn ten_thousand_apps_are_found_each() {
        let key = |app: usize| format!("{{any}}:access_token_wx{app:016x}");
        let keys: Vec<String> = (0..10_000).map(key).collect();
        let wildcards = wildcards(&keys.iter().map(String::as_str).collect::<Vec<_>>());
        for app in 0..10_000 {
            let asked = format!("v1:access_token_wx{app:016x}");
            assert_eq!(wildcards.find(asked.as_bytes()), Some(&key(app)));
        }
        let passes = |n: &usize| {
            let ordinary = format!("session:{n:032x}");
            let bit = wildcards.bit(ordinary.as_bytes()).unwrap();
            wildcards.filter[bit / 64] & (1 << (bit % 64)) != 0
        };
        let passed = (0..10_000_usize).map(|n| n.wrapping_mul(0x9e37_79b9_7f4a_7c15)).filter(passes).count();
        assert!(passed < 1_500, "{passed} of 10000 ordinary keys are looked up");
    }
}
