//! Base64 as memcached reads and writes it in the keys of meta commands.
//!
//! Never allocates. Reading is as lenient as memcached's: bytes outside the alphabet are passed over.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;

/// Room for the longest key once decoded.
pub const DECODED_BYTES_MAX: usize = super::KEY_LENGTH_MAX / 4 * 3;

/// The six bits a byte stands for; `=` stands for zeros, other bytes for nothing.
fn bits(byte: u8) -> Option<u8> {
    match byte {
        b'A'..=b'Z' => Some(byte - b'A'),
        b'a'..=b'z' => Some(byte - b'a' + 26),
        b'0'..=b'9' => Some(byte - b'0' + 52),
        b'+' => Some(62),
        b'/' => Some(63),
        b'=' => Some(0),
        _ => None,
    }
}

/// Decodes into `room`. The first padded block ends the text; the characters must come in fours all the same.
pub fn decode<'r>(text: &[u8], room: &'r mut [u8; DECODED_BYTES_MAX]) -> Option<&'r [u8]> {
    let count = text.iter().filter(|&&byte| bits(byte).is_some()).count();
    if count == 0 || !count.is_multiple_of(4) {
        return None;
    }
    let (mut block, mut filled, mut padding, mut length) = (0_u32, 0, 0, 0);
    for &byte in text {
        let Some(six) = bits(byte) else { continue };
        padding += usize::from(byte == b'=');
        block = block << 6 | u32::from(six);
        filled += 1;
        if filled < 4 {
            continue;
        }
        let [_, bytes @ ..] = block.to_be_bytes();
        room.get_mut(length..length + 3)?.copy_from_slice(&bytes);
        length += 3;
        (block, filled) = (0, 0);
        match padding {
            0 => {}
            1 | 2 => {
                length -= padding;
                break;
            }
            _ => return None,
        }
    }
    room.get(..length)
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
