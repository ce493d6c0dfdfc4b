//! What a request is answered with, in the words of all three wires.
//!
//! Values that are read are not in here: they are appended as they are found.

use super::response;

/// An answer; [`super::Wire::write`] makes bytes of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reply {
    /// `cas` is for those who ask. A refusal is left out where success is.
    Status { status: &'static Status, cas: Option<u64>, is_refusal: bool },
    /// A line that no other wire has.
    Line(&'static str),
    /// What a counter has come to.
    Number { value: u64, cas: u64 },
    /// An item was touched.
    Touched { flags: u32, cas: u64 },
    /// It is appended already.
    Written,
}

impl From<&'static Status> for Reply {
    #[inline]
    fn from(status: &'static Status) -> Reply {
        Reply::Status { status, cas: None, is_refusal: false }
    }
}

impl Reply {
    #[inline]
    pub fn refusal(status: &'static Status, cas: Option<u64>) -> Reply {
        Reply::Status { status, cas, is_refusal: true }
    }

    /// Quiet forms are told of errors only.
    pub(super) fn is_left_out_when_quiet(&self) -> bool {
        match self {
            Reply::Status { status, is_refusal, .. } => *is_refusal || status.code == 0 || status.meta == "EN",
            Reply::Number { .. } | Reply::Touched { .. } => true,
            Reply::Line(_) | Reply::Written => false,
        }
    }

    /// As the text protocol has it.
    #[inline]
    pub(super) fn write_line(&self, out: &mut Vec<u8>) {
        match *self {
            Reply::Status { status, .. } => response::line(out, status.line),
            Reply::Line(line) => response::line(out, line),
            Reply::Number { value, .. } => {
                response::number(out, value);
                out.extend_from_slice(b"\r\n");
            }
            Reply::Touched { .. } => response::line(out, "TOUCHED"),
            Reply::Written => {}
        }
    }
}

/// What became of a request, as each wire says it: a row of the table below.
#[derive(Debug, PartialEq, Eq)]
pub struct Status {
    pub line: &'static str,
    /// Of a meta command, to be followed by flags; without one the line is sent.
    pub meta: &'static str,
    /// In a packet.
    pub code: u16,
    /// A packet's body.
    pub body: &'static str,
}

const fn row(line: &'static str, meta: &'static str, code: u16, body: &'static str) -> Status {
    Status { line, meta, code, body }
}

/// In every protocol: that of the memcached whose commands are all here. A plain number, because libraries compare it:
/// npm's memcached takes the last three digits of any longer text, and PHP's `version_compare` takes a text behind the
/// number for a release before it. Our own is `tokencached_version` in `stats`.
pub const MEMCACHED_VERSION: &str = VERSION_LINE.split_at("VERSION ".len()).1;
const VERSION_LINE: &str = "VERSION 1.6.18";
const NON_NUMERIC: &str = "CLIENT_ERROR cannot increment or decrement non-numeric value";
const DENIED: &str = "CLIENT_ERROR permission denied";

impl Status {
    pub const OK: Status = row("OK", "", 0x00, "");
    pub const NO_OPERATION: Status = row("MN", "", 0x00, "");
    pub const VERSION: Status = row(VERSION_LINE, "", 0x00, MEMCACHED_VERSION);
    pub const STORED: Status = row("STORED", "HD", 0x00, "");
    pub const DELETED: Status = row("DELETED", "HD", 0x00, "");
    /// Nothing was read.
    pub const MISS: Status = row("END", "EN", 0x01, "Not found");
    pub const NOT_FOUND: Status = row("NOT_FOUND", "NF", 0x01, "Not found");
    pub const EXISTS: Status = row("EXISTS", "EX", 0x02, "Data exists for key.");
    pub const TOO_LARGE: Status = row("SERVER_ERROR object too large for cache", "", 0x03, "Too large.");
    pub const NOT_STORED: Status = row("NOT_STORED", "NS", 0x05, "Not stored.");
    /// Packets say why.
    pub const NOT_ADDED: Status = row("NOT_STORED", "NS", 0x02, "Data exists for key.");
    pub const NOT_REPLACED: Status = row("NOT_STORED", "NS", 0x01, "Not found");
    pub const NON_NUMERIC: Status = row(NON_NUMERIC, "", 0x06, "Non-numeric server-side value for incr or decr");
    /// Not "non-numeric" in a packet: libmemcached gives the whole server up for a while when it hears that.
    pub const NOT_COUNTED: Status = row(NON_NUMERIC, "", 0x05, "Not stored.");
    pub const NO_MEMORY_TO_STORE: Status =
        row("SERVER_ERROR out of memory storing object", "", 0x82, "Out of memory allocating item");
    pub const NO_MEMORY_TO_CREATE: Status =
        row("SERVER_ERROR Out of memory allocating new item", "", 0x82, "Out of memory allocating new item");
    pub const NO_MEMORY_TO_COUNT: Status =
        row("SERVER_ERROR out of memory in incr", "", 0x82, "Out of memory incrementing value");
    /// For those who want the text.
    pub const MANAGED_KEY: Status = row("CLIENT_ERROR managed key", "", 0x04, "Invalid arguments");
    pub const STORE_DENIED: Status = row(DENIED, "", 0x04, "Invalid arguments");
    pub const DENIED: Status = row(DENIED, "", 0x20, "Auth failure.");
    pub const INVALID: Status = row("", "", 0x04, "Invalid arguments");
    pub const UNKNOWN: Status = row("", "", 0x81, "Unknown command");
    pub const AUTH_ERROR: Status = row("", "", 0x20, "Auth failure.");
    pub const AUTH_CONTINUE: Status = row("", "", 0x21, "");
    pub const AUTHENTICATED: Status = row("", "", 0x00, "Authenticated");
    /// The only one by which a client can log in.
    pub const MECHANISMS: Status = row("", "", 0x00, super::binary::PLAIN);
}
