//! Commands about memcached's own machinery: slabs, LRU, crawler, watchers, extstore. None of it exists here, so what
//! would change nothing anyway is answered as memcached answers it, and what would list keys or stream logs is
//! refused as memcached refuses it under `-X` and `-W`.
//!
//! Never has an effect, and every command is answered by one line, so that a client stays in step.

use super::number::{signed, unsigned_32};
use super::{BAD_FORMAT, ERROR};

const OK: &str = "OK";
const BAD_CLASS: &str = "BADCLASS invalid class id";
/// Slab classes are numbered up to this (slabs.h, `MAX_NUMBER_OF_SLAB_CLASSES`).
const CLASS_MAX: u32 = 63;

/// The answer to a command line of these words, `count` of them; none if it is another command.
pub(super) fn answer(words: &[&[u8]], count: usize) -> Option<&'static str> {
    let word = |n: usize| words.get(n).copied().unwrap_or_default();
    Some(match word(0) {
        b"watch" => "CLIENT_ERROR watch commands not allowed",
        b"lru_crawler" => crawler(word(1), word(2), count),
        b"lru" => lru(word(1), &[word(2), word(3), word(4), word(5)], count),
        b"slabs" => slabs(word(1), word(2), word(3), count),
        b"extstore" if count > 2 => extstore(word(1)),
        _ => return None,
    })
}

fn crawler(verb: &[u8], argument: &[u8], count: usize) -> &'static str {
    match (verb, count) {
        (b"enable" | b"disable", 2) => OK,
        (b"metadump", 3..) => "ERROR metadump not allowed",
        (b"mgdump", 3..) => "ERROR mgdump not allowed",
        (b"crawl", 3..) if argument == b"all" || are_classes(argument) => OK,
        (b"crawl", 3..) => BAD_CLASS,
        (b"sleep", 3..) => match unsigned_32(argument) {
            Some(0..=1_000_000) => OK,
            Some(_) => "CLIENT_ERROR sleep must be one second or less",
            None => BAD_FORMAT,
        },
        (b"tocrawl", 3..) => unsigned_32(argument).map_or(BAD_FORMAT, |_| OK),
        _ => ERROR,
    }
}

fn are_classes(list: &[u8]) -> bool {
    list.split(|&byte| byte == b',')
        .all(|class| unsigned_32(class).is_some_and(|class| (1..=CLASS_MAX).contains(&class)))
}

fn lru(verb: &[u8], arguments: &[&[u8]; 4], count: usize) -> &'static str {
    let is_number = |word: &&[u8]| std::str::from_utf8(word).is_ok_and(|text| text.parse::<f64>().is_ok());
    match verb {
        b"mode" if count > 2 && matches!(arguments[0], b"flat" | b"segmented") => OK,
        b"tune" if count > 5 && arguments.iter().all(is_number) => OK,
        b"temp_ttl" if count > 2 && signed(arguments[0]).is_some() => OK,
        _ => ERROR,
    }
}

fn slabs(verb: &[u8], first: &[u8], second: &[u8], count: usize) -> &'static str {
    match (verb, count) {
        (b"automove", 3..) => unsigned_32(first).map_or(BAD_FORMAT, |_| OK),
        (b"reassign", 4..) => match (signed(first), signed(second)) {
            (Some(_), Some(_)) => "CLIENT_ERROR slab reassignment disabled",
            _ => BAD_FORMAT,
        },
        _ => ERROR,
    }
}

fn extstore(verb: &[u8]) -> &'static str {
    match verb {
        b"free_memchunks" | b"item_size" | b"item_age" | b"low_ttl" | b"recache_rate" | b"compact_under"
        | b"drop_under" | b"max_sleep" | b"max_frag" | b"drop_unread" => OK,
        _ => ERROR,
    }
}
