//! memcached's protocols as plain values: text, meta and binary bytes in, one [`Request`] out; one [`Reply`] in, bytes
//! of the same kind out.
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
pub mod reply;
pub mod response;
pub mod scan;

use base64::DECODED_BYTES_MAX;
pub use binary::Packet;
pub use meta::Meta;
pub use reply::{Reply, Status};

/// Longest key, bytes (protocol.txt, "Keys").
pub const KEY_LENGTH_MAX: usize = 250;

const ERROR: &str = "ERROR";
const BAD_FORMAT: &str = "CLIENT_ERROR bad command line format";

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

/// One request, borrowing from the buffer it was read into, whichever way it came.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Request<'a> {
    /// The key as it was sent, of a legal length; empty for a command without a key of its own.
    key: &'a [u8],
    pub command: Command<'a>,
    pub wire: Wire<'a>,
}

impl<'a> Request<'a> {
    #[inline(always)]
    pub fn text(key: &'a [u8], command: Command<'a>, noreply: bool) -> Request<'a> {
        Request { key, command, wire: Wire::Text { noreply } }
    }

    /// The key, decoded into `room` if it was sent encoded. Use this one only to look up, store or compare.
    #[inline]
    pub fn key<'k>(&self, room: &'k mut Option<[u8; DECODED_BYTES_MAX]>) -> &'k [u8]
    where
        'a: 'k,
    {
        match &self.wire {
            Wire::Meta(meta) if meta.has_encoded_key() => {
                base64::decode(self.key, room.insert([0; DECODED_BYTES_MAX])).unwrap_or_default()
            }
            _ => self.key,
        }
    }

    /// A request that cannot be executed, or means nothing here: it is answered with this line.
    fn answered(line: &'static str, noreply: bool) -> Request<'a> {
        Request::text(b"", Command::Reply(Reply::Line(line)), noreply)
    }
}

/// The format in which a request came, and in which its answer is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wire<'a> {
    Text { noreply: bool },
    Meta(Meta<'a>),
    Binary(Packet),
}

impl Wire<'_> {
    /// The client wants to hear of errors only, or with `noreply` of nothing.
    pub fn is_quiet(&self) -> bool {
        match self {
            Wire::Text { noreply } => *noreply,
            Wire::Meta(meta) => meta.has(b'q'),
            Wire::Binary(packet) => packet.quiet,
        }
    }

    /// The cas id that an item is to get, if the client says which.
    pub fn new_cas(&self) -> Option<u64> {
        if let Wire::Meta(meta) = self { meta.new_cas() } else { None }
    }

    pub fn is_binary(&self) -> bool {
        matches!(self, Wire::Binary(_))
    }

    /// Appends an answer. `key` is the one that was meant.
    #[inline(always)]
    pub fn write(&self, out: &mut Vec<u8>, key: &[u8], reply: Reply) {
        match (self, reply) {
            // Most reads end so, and most stores and deletes.
            (_, Reply::Written) => {}
            (Wire::Text { noreply: false }, _) => reply.write_line(out),
            _ => self.write_reply(out, key, reply),
        }
    }

    fn write_reply(&self, out: &mut Vec<u8>, key: &[u8], reply: Reply) {
        match self {
            // With `noreply`.
            Wire::Text { .. } => {}
            _ if self.is_quiet() && reply.is_left_out_when_quiet() => {}
            Wire::Meta(meta) => meta.write(out, key, reply),
            Wire::Binary(packet) => packet.write(out, key, reply),
        }
    }
}

/// What a request asks for. Every `exptime` is in seconds, as [`crate::service`] reads it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Command<'a> {
    /// `get gets gat gats`: `keys` iterates with [`keys`]; every key in it is of a legal length. `touch` is an exptime.
    GetMany {
        keys: &'a [u8],
        with_cas: bool,
        touch: Option<i64>,
    },
    /// The same for the one key of a packet.
    Get {
        touch: Option<i64>,
    },
    /// `mg`; some of its flags may change the item, or whose turn it is.
    MetaGet {
        may_change: bool,
    },
    Store(StoreCommand<'a>),
    Arithmetic(Arithmetic),
    Delete(Delete),
    Touch {
        exptime: i64,
    },
    /// `me`.
    Debug,
    /// `flush_all`; at once without a delay.
    Flush {
        delay: Option<i64>,
    },
    /// `stats` and its argument, empty for the general ones.
    Stats {
        argument: &'a [u8],
        rest: &'a [u8],
    },
    Verbosity {
        level: u32,
    },
    CacheMemlimit {
        megabytes: u32,
    },
    Shutdown {
        argument: &'a [u8],
    },
    /// `refresh_certs`: read TLS certificates again.
    RefreshCertificates,
    /// SASL: which mechanisms there are.
    Mechanisms,
    /// SASL: `first` begins, otherwise it goes on.
    Login {
        first: bool,
        mechanism: &'a [u8],
        message: &'a [u8],
    },
    /// Answered so, whoever asks.
    Reply(Reply),
    /// The connection is closed, after this if there is something to say.
    Close(Option<&'static Status>),
}

/// A storage command with its data block.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct StoreCommand<'a> {
    pub mode: StoreMode,
    pub flags: u32,
    pub exptime: i64,
    /// None if it is larger than any item may be; it is being discarded.
    pub value: Option<&'a [u8]>,
    /// The cas id that came along, whatever the mode.
    pub cas: Option<u64>,
    /// A value with an older cas id is taken, but as stale as what it replaces.
    pub takes_stale: bool,
    /// If it is too large the old value goes, so that nobody reads what was meant to be replaced.
    pub drops_old: bool,
}

/// `incr`, `decr`, `ma`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Arithmetic {
    pub increase: bool,
    pub delta: u64,
    /// The number and the exptime of a counter that is not there yet, if it is to be made.
    pub create: Option<(u64, i64)>,
    /// The cas id it must have.
    pub cas: Option<u64>,
}

/// `delete`, `md`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Delete {
    /// The cas id the item must have.
    pub cas: Option<u64>,
    /// The item stays, as a stale one.
    pub invalidate: bool,
    /// The exptime of a stale item, if it is to change.
    pub touch: Option<i64>,
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
