//! The answers to requests, as the text protocol, the meta commands and the binary protocol write them.
//!
//! Values that were read are not part of a reply: they are appended to the output when they are found.

use super::response;

/// An answer; [`super::Wire::write`] makes bytes of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reply {
    /// `cas` is shown if the request asks for it. A refusal is left out wherever success would be.
    Status { status: &'static Status, cas: Option<u64>, is_refusal: bool },
    /// A line that only the text protocol has.
    Line(&'static str),
    /// The new value of a counter.
    Number { value: u64, cas: u64 },
    /// An item was touched.
    Touched { flags: u32, cas: u64 },
    /// The answer was appended already.
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

    /// Quiet requests get an answer only if it is an error.
    pub(super) fn is_left_out_when_quiet(&self) -> bool {
        match self {
            Reply::Status { status, is_refusal, .. } => *is_refusal || status.code == 0 || status.meta == "EN",
            Reply::Number { .. } | Reply::Touched { .. } => true,
            Reply::Line(_) | Reply::Written => false,
        }
    }

    /// Appends the line of the text protocol.
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

/// The outcome of a request, as each protocol writes it: a row of the table below.
#[derive(Debug, PartialEq, Eq)]
pub struct Status {
    pub line: &'static str,
    /// The code of a meta command, which flags follow. If it is empty, the line is sent.
    pub meta: &'static str,
    /// The status of a packet.
    pub code: u16,
    /// The body of a packet.
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
    /// Only packets say why nothing was stored.
    pub const NOT_ADDED: Status = row("NOT_STORED", "NS", 0x02, "Data exists for key.");
    pub const NOT_REPLACED: Status = row("NOT_STORED", "NS", 0x01, "Not found");
    pub const NON_NUMERIC: Status = row(NON_NUMERIC, "", 0x06, "Non-numeric server-side value for incr or decr");
    /// In a packet not "non-numeric": at that answer libmemcached does not use the whole server for a while.
    pub const NOT_COUNTED: Status = row(NON_NUMERIC, "", 0x05, "Not stored.");
    pub const NO_MEMORY_TO_STORE: Status =
        row("SERVER_ERROR out of memory storing object", "", 0x82, "Out of memory allocating item");
    pub const NO_MEMORY_TO_CREATE: Status =
        row("SERVER_ERROR Out of memory allocating new item", "", 0x82, "Out of memory allocating new item");
    pub const NO_MEMORY_TO_COUNT: Status =
        row("SERVER_ERROR out of memory in incr", "", 0x82, "Out of memory incrementing value");
    /// With `refuse_with = "client_error"`.
    pub const MANAGED_KEY: Status = row("CLIENT_ERROR managed key", "", 0x04, "Invalid arguments");
    pub const STORE_DENIED: Status = row(DENIED, "", 0x04, "Invalid arguments");
    pub const DENIED: Status = row(DENIED, "", 0x20, "Auth failure.");
    pub const INVALID: Status = row("", "", 0x04, "Invalid arguments");
    pub const UNKNOWN: Status = row("", "", 0x81, "Unknown command");
    pub const AUTH_ERROR: Status = row("", "", 0x20, "Auth failure.");
    pub const AUTH_CONTINUE: Status = row("", "", 0x21, "");
    pub const AUTHENTICATED: Status = row("", "", 0x00, "Authenticated");
    /// The only mechanism with which a client can log in.
    pub const MECHANISMS: Status = row("", "", 0x00, super::binary::PLAIN);
}
