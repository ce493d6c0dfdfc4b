//! Base64 as memcached reads and writes it in the keys of meta commands.
//!
//! Never allocates. Reading is as lenient as memcached's: bytes outside the alphabet are passed over.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;

/// Room for the longest key once decoded.
pub const DECODED_BYTES_MAX: usize = super::KEY_LENGTH_MAX / 4 * 3;

/// Decodes into `room`. The first padded block ends the text; the characters must come in fours all the same. Padding
/// stands for zeros that are left out.
pub fn decode<'r>(text: &[u8], room: &'r mut [u8; DECODED_BYTES_MAX]) -> Option<&'r [u8]> {
    let (mut digits, mut count) = ([b'A'; super::KEY_LENGTH_MAX], 0);
    for &byte in text.iter().filter(|byte| byte.is_ascii_alphanumeric() || b"+/=".contains(byte)) {
        *digits.get_mut(count)? = byte;
        count += 1;
    }
    if count == 0 || !count.is_multiple_of(4) {
        return None;
    }
    let is_padded = |block: &[u8; 4]| block.contains(&b'=');
    let blocks = digits[..count].as_chunks_mut().0;
    let used = blocks.iter().position(is_padded).map_or(blocks.len(), |last| last + 1);
    let last = blocks.get_mut(used - 1)?;
    let padding = last.iter().filter(|&&byte| byte == b'=').count();
    if padding > 2 {
        return None;
    }
    last.iter_mut().filter(|byte| **byte == b'=').for_each(|byte| *byte = b'A');
    let length = STANDARD.decode_slice(&digits[..used * 4], room).ok()?;
    room.get(..length - padding)
}

/// Appends the text for these bytes, padded.
pub fn encode(out: &mut Vec<u8>, bytes: &[u8]) {
    let start = out.len();
    out.resize(start + bytes.len().div_ceil(3) * 4, b'=');
    // There is just the room it takes.
    let _ = STANDARD.encode_slice(bytes, &mut out[start..]);
}

#[cfg(test)]
mod tests {
    use super::*;

    fn decoded(text: &[u8]) -> Option<Vec<u8>> {
        decode(text, &mut [0; DECODED_BYTES_MAX]).map(<[u8]>::to_vec)
    }

    #[test]
    fn what_is_written_is_read() {
        for length in 1..=DECODED_BYTES_MAX {
            let bytes: Vec<u8> = (0..length).map(|n| (n * 37 % 256) as u8).collect();
            let mut text = Vec::new();
            encode(&mut text, &bytes);
            assert!(text.len() <= super::super::KEY_LENGTH_MAX);
            assert_eq!(decoded(&text), Some(bytes));
        }
        let mut text = Vec::new();
        encode(&mut text, b"abcd");
        assert_eq!(text, b"YWJjZA==");
    }

    #[test]
    fn reads_as_leniently_as_memcached() {
        assert_eq!(decoded(b"YWJj"), Some(b"abc".to_vec()));
        assert_eq!(decoded(b"Y%W-J_j"), Some(b"abc".to_vec()), "foreign bytes are passed over");
        assert_eq!(decoded(b"YQ==YWJj"), Some(b"a".to_vec()), "padding ends it");
        assert_eq!(decoded(b"=AAA"), Some(vec![0, 0]));
        for text in [&b""[..], b"YWJ", b"YWJjZ", b"A===", b"====", b"%%%%"] {
            assert_eq!(decoded(text), None, "{}", text.escape_ascii());
        }
    }
}
