//! Commands about memcached's own machinery: slabs, LRU, crawler, watchers, extstore. None of it exists here, so what
//! would change nothing anyway is answered as memcached answers it, and what would list keys or stream logs is
//! refused as memcached refuses it under `-X` and `-W`.
//!
//! Never has an effect, and every command is answered by one line, so that a client stays in step.

use super::number::{signed, unsigned_32};
use super::{BAD_FORMAT, ERROR};

const OK: &str = "OK";
/// Slab classes are numbered up to this (slabs.h, `MAX_NUMBER_OF_SLAB_CLASSES`).
const CLASS_MAX: u32 = 63;

/// The answer to a command line of these words, `count` of them; none if it is another command.
pub(super) fn answer(words: &[&[u8]], count: usize) -> Option<&'static str> {
    let word = |n: usize| words.get(n).copied().unwrap_or_default();
    let argument = word(2);
    Some(match (word(0), word(1), count) {
        (b"watch", ..) => "CLIENT_ERROR watch commands not allowed",
        (b"lru_crawler", b"enable" | b"disable", 2) => OK,
        (b"lru_crawler", b"metadump", 3..) => "ERROR metadump not allowed",
        (b"lru_crawler", b"mgdump", 3..) => "ERROR mgdump not allowed",
        (b"lru_crawler", b"crawl", 3..) if argument == b"all" || are_classes(argument) => OK,
        (b"lru_crawler", b"crawl", 3..) => "BADCLASS invalid class id",
        (b"lru_crawler", b"sleep", 3..) => match unsigned_32(argument) {
            Some(0..=1_000_000) => OK,
            Some(_) => "CLIENT_ERROR sleep must be one second or less",
            None => BAD_FORMAT,
        },
        (b"lru_crawler", b"tocrawl", 3..) | (b"slabs", b"automove", 3..) => {
            unsigned_32(argument).map_or(BAD_FORMAT, |_| OK)
        }
        (b"lru", b"mode", 3..) if matches!(argument, b"flat" | b"segmented") => OK,
        (b"lru", b"tune", 6..) if (2..6).all(|n| is_decimal(word(n))) => OK,
        (b"lru", b"temp_ttl", 3..) if signed(argument).is_some() => OK,
        (b"slabs", b"reassign", 4..) => match (signed(argument), signed(word(3))) {
            (Some(_), Some(_)) => "CLIENT_ERROR slab reassignment disabled",
            _ => BAD_FORMAT,
        },
        (
            b"extstore",
            b"free_memchunks" | b"item_size" | b"item_age" | b"low_ttl" | b"recache_rate" | b"compact_under"
            | b"drop_under" | b"max_sleep" | b"max_frag" | b"drop_unread",
            3..,
        ) => OK,
        (b"lru_crawler" | b"lru" | b"slabs", ..) | (b"extstore", _, 3..) => ERROR,
        _ => return None,
    })
}

fn are_classes(list: &[u8]) -> bool {
    list.split(|&byte| byte == b',')
        .all(|class| unsigned_32(class).is_some_and(|class| (1..=CLASS_MAX).contains(&class)))
}

fn is_decimal(word: &[u8]) -> bool {
    std::str::from_utf8(word).is_ok_and(|text| text.parse::<f64>().is_ok())
}
