//! Where a byte stands in a text of a few words: a key or a command line is too short for `memchr` to get going.
//!
//! Never looks further than it must; what is long goes to `memchr`.

use memchr::memchr;

const WORD_BYTES: usize = 8;
/// Past so many words of eight bytes `memchr` is quicker.
const WORDS_MAX: usize = 6;
const LOW: u64 = u64::from_ne_bytes([0x01; WORD_BYTES]);
const HIGH: u64 = u64::from_ne_bytes([0x80; WORD_BYTES]);

/// The first place of `byte`.
#[inline]
pub fn find(byte: u8, text: &[u8]) -> Option<usize> {
    let (words, rest) = text.as_chunks::<WORD_BYTES>();
    for (index, word) in words.iter().take(WORDS_MAX).enumerate() {
        if let Some(place) = in_word(byte, word) {
            return Some(index * WORD_BYTES + place);
        }
    }
    if words.len() > WORDS_MAX {
        let seen = WORDS_MAX * WORD_BYTES;
        return memchr(byte, &text[seen..]).map(|place| seen + place);
    }
    match text.last_chunk::<WORD_BYTES>() {
        // What of it was seen before does not hold the byte.
        Some(word) if !rest.is_empty() => in_word(byte, word).map(|place| text.len() - WORD_BYTES + place),
        Some(_) => None,
        None => rest.iter().position(|&other| other == byte),
    }
}

/// Eight bytes at once: subtracting one from each borrows from the top bit of those that are zero. A borrow may run on
/// into later bytes, but the first one found is right.
#[inline]
fn in_word(byte: u8, word: &[u8; WORD_BYTES]) -> Option<usize> {
    let different = u64::from_le_bytes(*word) ^ (LOW * u64::from(byte));
    let equal = different.wrapping_sub(LOW) & !different & HIGH;
    (equal != 0).then(|| equal.trailing_zeros() as usize / 8)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn finds_what_a_plain_search_finds() {
        let mut random = fastrand::Rng::with_seed(5);
        for _ in 0..20_000 {
            let length = random.usize(0..100);
            // Few different bytes, among them those whose differences borrow.
            let text: Vec<u8> = (0..length).map(|_| *random.choice(b"\0\x01\x80\x81\n\x0b !\xff").unwrap()).collect();
            let byte = *random.choice(b"\0\n \x80").unwrap();
            assert_eq!(find(byte, &text), text.iter().position(|&other| other == byte), "{byte} in {text:?}");
        }
    }
}
