//! Answers to bytes, appended to the batch's output.
//!
//! Never allocates beyond the buffer it is given.

use super::{Packet, base64};

/// Appends a line.
#[inline]
pub fn line(out: &mut Vec<u8>, text: &str) {
    out.extend_from_slice(text.as_bytes());
    out.extend_from_slice(b"\r\n");
}

/// How a value that is read is appended: its head, then the bytes, then its end.
pub trait ValueForm: Copy {
    /// Makes room for all of the value's `length` bytes, and appends what comes before them.
    fn head(self, out: &mut Vec<u8>, key: &[u8], flags: u32, length: usize, cas: u64);
    fn end(self, out: &mut Vec<u8>);
}

/// `VALUE <key> <flags> <bytes> [<cas>]` and the data block.
#[derive(Clone, Copy)]
pub struct TextValue {
    pub with_cas: bool,
}

impl ValueForm for TextValue {
    #[inline(always)]
    fn head(self, out: &mut Vec<u8>, key: &[u8], flags: u32, length: usize, cas: u64) {
        value_head(out, key, flags, length, self.with_cas.then_some(cas));
    }

    #[inline(always)]
    fn end(self, out: &mut Vec<u8>) {
        out.extend_from_slice(b"\r\n");
    }
}

impl ValueForm for &Packet {
    #[inline(always)]
    fn head(self, out: &mut Vec<u8>, key: &[u8], flags: u32, length: usize, cas: u64) {
        self.item(out, key, flags, length, cas);
    }

    #[inline(always)]
    fn end(self, _out: &mut Vec<u8>) {}
}

/// Appends the line before a data block of that length; the block and a line end must follow.
#[inline]
fn value_head(out: &mut Vec<u8>, key: &[u8], flags: u32, length: usize, cas: Option<u64>) {
    out.reserve(b"VALUE ".len() + key.len() + TAIL_BYTES + length + b"\r\n".len());
    out.extend_from_slice(b"VALUE ");
    out.extend_from_slice(key);
    let mut tail = Tail::default();
    tail.push(b'\n');
    tail.push(b'\r');
    if let Some(cas) = cas {
        tail.push_number(cas);
    }
    tail.push_number(length as u64);
    tail.push_number(u64::from(flags));
    out.extend_from_slice(tail.text());
}

/// Three numbers of at most twenty digits, each with a blank, and a line end.
const TAIL_BYTES: usize = 3 * 21 + 2;

/// The end of a line, written from the back: digits come in that order, and it is appended in one piece.
struct Tail {
    bytes: [u8; TAIL_BYTES],
    begin: usize,
}

impl Default for Tail {
    #[inline]
    fn default() -> Tail {
        Tail { bytes: [0; TAIL_BYTES], begin: TAIL_BYTES }
    }
}

impl Tail {
    #[inline]
    fn push(&mut self, byte: u8) {
        self.begin -= 1;
        self.bytes[self.begin] = byte;
    }

    /// A blank, then the number.
    #[inline]
    fn push_number(&mut self, mut value: u64) {
        loop {
            self.push(b'0' + (value % 10) as u8);
            value /= 10;
            if value == 0 {
                break;
            }
        }
        self.push(b' ');
    }

    #[inline]
    fn text(&self) -> &[u8] {
        &self.bytes[self.begin..]
    }
}

/// Appends a decimal number.
#[inline]
pub fn number(out: &mut Vec<u8>, value: u64) {
    out.extend_from_slice(itoa::Buffer::new().format(value).as_bytes());
}

/// Appends a blank and a word.
pub fn word(out: &mut Vec<u8>, word: &[u8]) {
    out.push(b' ');
    out.extend_from_slice(word);
}

/// Appends a meta command's flag with a number.
pub fn flag(out: &mut Vec<u8>, letter: u8, value: u64) {
    out.extend_from_slice(&[b' ', letter]);
    number(out, value);
}

/// True if a key could not have come as a word of a line: shown as it is, it would break the answer in two, and what
/// follows would pass for another answer.
fn breaks_lines(key: &[u8]) -> bool {
    key.iter().any(|byte| matches!(byte, b'\0' | b'\n' | b'\r' | b' '))
}

/// Appends a key, in base64 if it is to be or if it must. Says whether it was.
pub fn key(out: &mut Vec<u8>, key: &[u8], encoded: bool) -> bool {
    let encoded = encoded || breaks_lines(key);
    if encoded {
        base64::encode(out, key);
    } else {
        out.extend_from_slice(key);
    }
    encoded
}

/// Appends a meta command's key; in base64, and saying so, if it is not text.
pub fn flag_key(out: &mut Vec<u8>, text: &[u8], encoded: bool) {
    out.extend_from_slice(b" k");
    if key(out, text, encoded) {
        out.extend_from_slice(b" b");
    }
}

/// Appends `STAT <name> <value>`.
pub fn stat(out: &mut Vec<u8>, name: &str, value: impl std::fmt::Display) {
    use std::io::Write;
    // Writing to a Vec cannot fail.
    let _ = write!(out, "STAT {name} {value}\r\n");
}
