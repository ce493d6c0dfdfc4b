//! The words of memcached's `-o` (memcached.c, `subopts_tokens`): which there are, and what each does here.
//!
//! A word that asks for what this server cannot give, and whose lack would be noticed late, stops the start; one that only
//! tunes machinery that does not exist here is taken and ignored.

use crate::invalid_value::InvalidValue;

/// What a word does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Word {
    Works,
    /// Nothing, for this reason.
    Ignored(&'static str),
    /// Stops the start: what is lacking, and the way out.
    Refused(&'static str, &'static str),
}

const SLABS: Word = Word::Ignored("this cache has no slabs");
const LRU: Word = Word::Ignored("this cache needs no crawler and no LRU maintainer");
const HASH: Word = Word::Ignored("the table grows by itself");
const WATCH: Word = Word::Ignored("there is nothing to watch");
const BUFFERS: Word = Word::Ignored("buffers are only held by busy connections");
const EXTSTORE: Word = Word::Ignored("it means nothing without ext_path, which this version does not have");
const WITHOUT_TLS: Word = Word::Ignored("it means nothing without -Z");

/// Words of one effect, separated by blanks.
const WORDS: &[(&str, Word)] = &[
    ("idle_timeout maxconns_fast", Word::Works),
    ("no_maxconns_fast", Word::Ignored("a connection above -c is always told so at once")),
    ("modern", Word::Ignored("it changes nothing in memcached 1.6 either")),
    ("no_modern", Word::Ignored("there is one way to evict")),
    ("hashpower", HASH),
    ("hash_algorithm", Word::Ignored("keys are spread by a hash that nobody outside can foresee")),
    ("no_hashexpand", HASH),
    ("tail_repair_time lru_crawler no_lru_crawler lru_crawler_sleep lru_crawler_tocrawl", LRU),
    ("lru_maintainer no_lru_maintainer hot_lru_pct warm_lru_pct hot_max_factor warm_max_factor temporary_ttl", LRU),
    ("slab_reassign no_slab_reassign slab_automove no_slab_automove slab_automove_ratio slab_automove_window", SLABS),
    ("slab_automove_freeratio slab_chunk_max slab_sizes no_chunked_items", SLABS),
    ("track_sizes", Word::Ignored("\"stats sizes\" is not kept")),
    ("watcher_logbuf_size worker_logbuf_size", WATCH),
    ("read_buf_mem_limit resp_obj_mem_limit", BUFFERS),
    ("inline_ascii_response inline_ascii_resp no_inline_ascii_resp", Word::Ignored("memcached ignores it too")),
    ("drop_privileges", Word::Refused("this version does not confine itself", "Use systemd's sandboxing instead.")),
    ("no_drop_privileges", Word::Ignored("there is nothing to switch off")),
    ("sock_cookie_id", Word::Refused("sockets are not marked for the firewall", "Filter by port or by user instead.")),
    ("ext_path", Word::Refused("items are kept in memory only", "Remove it, and give -m what is needed.")),
    ("ext_page_size ext_wbuf_size ext_threads ext_io_depth ext_item_size ext_item_age ext_low_ttl", EXTSTORE),
    ("ext_drop_unread ext_recache_rate ext_compact_under ext_drop_under ext_max_frag ext_max_sleep", EXTSTORE),
    ("ssl_chain_cert ssl_key ssl_keyformat ssl_verify_mode ssl_ca_cert ssl_min_version", WITHOUT_TLS),
    ("ssl_ciphers", Word::Ignored("there are only good ones")),
    ("ssl_wbuf_size", BUFFERS),
    ("ssl_session_cache", Word::Ignored("sessions are resumed by tickets")),
    ("ssl_kernel_tls", Word::Ignored("TLS is spoken by the process itself")),
];

/// What becomes of a word; none if memcached has no such word.
pub fn word(name: &str) -> Option<Word> {
    WORDS.iter().find(|(names, _)| names.split(' ').any(|known| known == name)).map(|(_, word)| *word)
}

pub fn names() -> impl Iterator<Item = &'static str> {
    WORDS.iter().flat_map(|(names, _)| names.split(' '))
}

/// memcached's numbers, in this server's words.
pub fn translated<'v>(word: &str, value: &'v str) -> &'v str {
    match (word, value) {
        ("ssl_verify_mode", "0") => "none",
        ("ssl_verify_mode", "1") => "optional",
        ("ssl_verify_mode", "2" | "3") => "required",
        // Nothing older than 1.2 is supported.
        ("ssl_min_version", "0" | "1" | "2") => "1.2",
        ("ssl_min_version", "3") => "1.3",
        _ => value,
    }
}

/// That a word came without its value.
pub fn missing_value(word: &str) -> InvalidValue {
    match word {
        "idle_timeout" => InvalidValue::new(
            "the number of seconds is missing",
            "Write -o idle_timeout=SECONDS; 0 never closes a quiet connection.",
        ),
        _ => InvalidValue::new("the value is missing", format!("Write -o {word}=VALUE.")),
    }
}
