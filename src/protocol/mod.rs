//! memcached's text protocol as plain values: bytes in, a [`Request`] out; an answer in, bytes out. The binary protocol
//! has values of its own, in [`binary`].
//!
//! No I/O, no clock, no cache. The contract is memcached's `doc/protocol.txt`; where that is silent, what
//! memcached 1.6 does. `docs/en/differences.md` lists what differs on purpose.

pub mod base64;
pub mod binary;
pub mod login;
mod maintenance;
pub mod meta;
pub mod number;
pub mod parse;
pub mod response;
pub mod scan;

pub use meta::{Meta, MetaKey};

/// Longest key, bytes (protocol.txt, "Keys").
pub const KEY_LENGTH_MAX: usize = 250;

/// How a storage command stores.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StoreMode {
    Set,
    Add,
    Replace,
    Append,
    Prepend,
    /// Only if the item still has this cas id.
    Cas(u64),
}

/// One request, borrowing from the buffer it was read into.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Request<'a> {
    /// `get gets gat gats`: `keys` iterates with [`keys`]; every key in it is of a legal length.
    Get {
        keys: &'a [u8],
        with_cas: bool,
        touch_exptime: Option<i64>,
    },
    /// A storage command with its data block.
    Store {
        mode: StoreMode,
        key: &'a [u8],
        flags: u32,
        exptime: i64,
        value: &'a [u8],
        noreply: bool,
    },
    /// A storage command whose data block is larger than any item may be; the block is being discarded.
    TooLarge {
        mode: StoreMode,
        key: &'a [u8],
        noreply: bool,
    },
    Arithmetic {
        key: &'a [u8],
        delta: u64,
        increase: bool,
        noreply: bool,
    },
    Delete {
        key: &'a [u8],
        noreply: bool,
    },
    Touch {
        key: &'a [u8],
        exptime: i64,
        noreply: bool,
    },
    FlushAll {
        delay: i64,
        noreply: bool,
    },
    /// `stats` and its argument, empty for the general ones.
    Stats {
        argument: &'a [u8],
        rest: &'a [u8],
    },
    Verbosity {
        level: u32,
        noreply: bool,
    },
    /// `cache_memlimit`, megabytes.
    CacheMemlimit {
        megabytes: u32,
        noreply: bool,
    },
    Shutdown {
        argument: &'a [u8],
    },
    /// `refresh_certs`: read TLS certificates again.
    RefreshCertificates,
    Version,
    /// A command about machinery that does not exist here; the answer is memcached's.
    Maintenance {
        answer: &'static str,
        noreply: bool,
    },
    /// `mn`: no operation.
    NoOperation,
    /// `mg`.
    MetaGet(Meta<'a>),
    /// `ms` with its data block; `None` if that is larger than any item may be and is being discarded.
    /// A cas sent along makes the mode [`StoreMode::Cas`] where memcached does so.
    MetaStore {
        meta: Meta<'a>,
        mode: StoreMode,
        value: Option<&'a [u8]>,
    },
    /// `md`.
    MetaDelete(Meta<'a>),
    /// `ma`.
    MetaArithmetic {
        meta: Meta<'a>,
        increase: bool,
    },
    /// `me`.
    MetaDebug(MetaKey<'a>),
    Quit,
    /// A request that cannot be carried out; the answer is memcached's own error line.
    Invalid {
        error: &'static str,
        noreply: bool,
    },
}

/// What was found at the front of a buffer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RequestStep<'a> {
    /// The request is not whole yet; with fewer than `total` bytes in the buffer it cannot be.
    More { total: usize },
    /// A request of `used` bytes, after which `discard` bytes of a data block are to be thrown away
    /// before the answer goes out.
    Request { request: Request<'a>, used: usize, discard: u64 },
    /// Not this protocol: close without a word.
    Close(CloseReason),
}

/// Why a connection is closed without an answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CloseReason {
    /// A line without end (memcached closes at 2048 bytes too).
    LineTooLong,
    /// An HTTP request; answering it would let a web page talk to the cache.
    Http,
    /// The binary protocol's first byte where only text is allowed: closed at once, so that a client does not hang.
    Binary,
    /// Something else where only the binary protocol is allowed.
    NotBinary,
    /// A TLS hello on a plain port.
    Tls,
}

/// The words of a command line: separated by blanks only, as memcached's tokenizer has it.
#[inline]
pub fn keys(line: &[u8]) -> LineWords<'_> {
    LineWords { rest: line }
}

/// See [`keys`].
#[derive(Clone, Debug)]
pub struct LineWords<'a> {
    rest: &'a [u8],
}

impl<'a> LineWords<'a> {
    /// What has not been walked yet.
    #[inline]
    pub fn rest(&self) -> &'a [u8] {
        self.rest
    }
}

impl<'a> Iterator for LineWords<'a> {
    type Item = &'a [u8];

    #[inline]
    fn next(&mut self) -> Option<&'a [u8]> {
        while let Some((b' ', rest)) = self.rest.split_first() {
            self.rest = rest;
        }
        if self.rest.is_empty() {
            return None;
        }
        #[cfg(test)]
        walked::WORDS.set(walked::WORDS.get() + 1);
        let end = scan::find(b' ', self.rest).unwrap_or(self.rest.len());
        let (word, rest) = self.rest.split_at(end);
        self.rest = rest;
        Some(word)
    }
}

/// How many words the thread has walked over, for tests that bound the work.
#[cfg(test)]
pub(crate) mod walked {
    use std::cell::Cell;

    thread_local! {
        pub(super) static WORDS: Cell<usize> = const { Cell::new(0) };
    }

    pub(crate) fn words() -> usize {
        WORDS.get()
    }
}
