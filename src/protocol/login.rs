//! Logging in over the text protocol, as `memcached -Y` has it: a `set` of any key whose data is `user password`.
//!
//! Pure and restartable like [`super::parse`]. Never waits for more than [`TOKEN_BYTES_MAX`] before a login.

use memchr::memchr;

use super::number::unsigned_32;
use super::parse::{foreign, is_http};
use super::{CloseReason, keys};

/// A line without an end is given up at this length (proto_text.c, `try_read_command_asciiauth`).
const LINE_BYTES_MAX: usize = 2048;
/// Longest `user password` (proto_text.c; 1.6.18 leaves it to its read buffer of this size).
const TOKEN_BYTES_MAX: u32 = 16 * 1024;

pub const UNAUTHENTICATED: &str = "CLIENT_ERROR unauthenticated";
pub const FAILURE: &str = "CLIENT_ERROR authentication failure";
const BAD_TERMINATION: &str = "CLIENT_ERROR bad command line termination";
const BAD_TOKEN: &str = "CLIENT_ERROR bad authentication token format";
const TOKEN_TOO_LONG: &str = "CLIENT_ERROR auth token too long";

/// What a client that has not logged in has sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LoginStep<'a> {
    /// Not whole yet; with fewer than `total` bytes it cannot be.
    More { total: usize },
    /// Name and password to be judged.
    Token { user: &'a [u8], password: &'a [u8], used: usize },
    /// Anything else: this line is the answer.
    Refuse { error: &'static str, used: usize },
    /// The same, and the connection cannot go on.
    RefuseAndClose { error: &'static str },
    /// Not this protocol.
    Close(CloseReason),
}

/// What is at the front of the buffer of a client that has not logged in.
pub fn login_step(buffer: &[u8]) -> LoginStep<'_> {
    if let Some(why) = foreign(buffer) {
        return LoginStep::Close(why);
    }
    let Some(newline) = memchr(b'\n', buffer) else {
        return match buffer.len() {
            ..=LINE_BYTES_MAX => LoginStep::More { total: buffer.len() + 1 },
            _ => LoginStep::Close(CloseReason::LineTooLong),
        };
    };
    let used = newline + 1;
    let line = until_nul(&buffer[..newline]);
    let Some(length) = token_length(line) else {
        // Whatever a browser was made to send behind this must not reach the reader of commands.
        let line = line.strip_suffix(b"\r").unwrap_or(line);
        if is_http(line) {
            return LoginStep::Close(CloseReason::Http);
        }
        return LoginStep::Refuse { error: UNAUTHENTICATED, used };
    };
    if length > TOKEN_BYTES_MAX {
        return LoginStep::RefuseAndClose { error: TOKEN_TOO_LONG };
    }
    let end = used + length as usize;
    match buffer.get(used..end + 2) {
        None => LoginStep::More { total: end + 2 },
        Some(block) => token(block, end + 2),
    }
}

/// The length a `set` line announces. The key, the flags and the time may be anything.
fn token_length(line: &[u8]) -> Option<u32> {
    let mut words = keys(line);
    if words.next()? != b"set" {
        return None;
    }
    // A \r at the end is white space to memcached's reader of numbers, and to ours.
    unsigned_32(words.nth(3)?)
}

fn token(block: &[u8], used: usize) -> LoginStep<'_> {
    let Some(text) = block.strip_suffix(b"\r\n") else {
        return LoginStep::Refuse { error: BAD_TERMINATION, used };
    };
    let mut words = keys(until_nul(text));
    match (words.next(), words.next()) {
        (Some(user), Some(password)) => LoginStep::Token { user, password, used },
        _ => LoginStep::Refuse { error: BAD_TOKEN, used },
    }
}

/// Lines are C strings to memcached: a NUL ends them.
fn until_nul(text: &[u8]) -> &[u8] {
    memchr(0, text).map_or(text, |nul| &text[..nul])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_login_is_a_set_of_anything() {
        let token = |used| LoginStep::Token { user: b"alice", password: b"secret", used };
        for head in ["set x 0 0 12\r\n", "set x 0 0 12\n", " set x y z 12 \r\n", "set x 0 0 +12 noreply more\r\n"] {
            let whole = format!("{head}alice secret\r\n");
            assert_eq!(login_step(whole.as_bytes()), token(whole.len()), "{head:?}");
            for cut in 0..whole.len() {
                let step = login_step(&whole.as_bytes()[..cut]);
                assert!(
                    matches!(step, LoginStep::More { total } if total > cut && total <= whole.len()),
                    "{cut}: {step:?}"
                );
            }
        }
        assert_eq!(login_step(b"set x 0 0 16\r\n alice  secret x\r\n"), token(32));
    }

    #[test]
    fn everything_else_is_refused_and_little_is_read() {
        let refused = |text: &[u8], error: &str| match login_step(text) {
            LoginStep::Refuse { error: said, .. } => assert_eq!(said, error, "{}", text.escape_ascii()),
            other => panic!("{}: {other:?}", text.escape_ascii()),
        };
        for line in [
            "get a\r\n",
            "quit\r\n",
            "\r\n",
            "SET x 0 0 12\r\n",
            "set x 0 0\r\n",
            "set x 0 0 -1\r\n",
            "set x 0 0 0x9\r\n",
        ] {
            refused(line.as_bytes(), UNAUTHENTICATED);
        }
        refused(b"set x 0 0 5\r\nalice\r\n", BAD_TOKEN);
        refused(b"set x 0 0 12\r\nalice secretXX", BAD_TERMINATION);
        assert_eq!(login_step(b"set x 0 0 100000\r\n"), LoginStep::RefuseAndClose { error: TOKEN_TOO_LONG });
        assert_eq!(login_step(&[b'x'; 2049]), LoginStep::Close(CloseReason::LineTooLong));
        for http in ["GET / HTTP/1.1\r\n", "POST /set HTTP/1.0\nset x", " GET / HTTP/1.1\r\n", "Host: cache\r\n"] {
            assert_eq!(login_step(http.as_bytes()), LoginStep::Close(CloseReason::Http), "{http:?}");
        }
        // As after the login: memcached's own words are no HTTP, whatever their last word is.
        refused(b"delete HTTP/1\r\n", UNAUTHENTICATED);
        assert_eq!(login_step(b"\x80"), LoginStep::Close(CloseReason::Binary));
        assert_eq!(login_step(b"\x16\x03\x01"), LoginStep::Close(CloseReason::Tls));
    }
}
