//! Answers on their way to a peer: bytes, and between them large values that are not copied.
//!
//! Reads as the bytes it is made of, to which answers are appended. Never writes to a socket: [`Output::slices`] says what
//! comes next.

use std::io::IoSlice;
use std::ops::{Deref, DerefMut};

use super::OUTPUT_BYTES_MAX;
use crate::cache::{ItemView, ShareableValue, SharedValue};

/// What is queued for one connection.
#[derive(Debug)]
pub struct Output {
    bytes: Vec<u8>,
    large: Vec<LargeValue>,
    /// Of all of `large`.
    large_bytes: usize,
    /// When so many bytes are queued, they are to be written before more is executed.
    bytes_max: usize,
}

#[derive(Debug)]
struct LargeValue {
    /// How many of the plain bytes come before it.
    at: usize,
    length: usize,
    /// None once it is written.
    value: Option<SharedValue>,
}

impl Default for Output {
    fn default() -> Output {
        Output { bytes: Vec::new(), large: Vec::new(), large_bytes: 0, bytes_max: OUTPUT_BYTES_MAX }
    }
}

impl Deref for Output {
    type Target = Vec<u8>;

    #[inline]
    fn deref(&self) -> &Vec<u8> {
        &self.bytes
    }
}

impl DerefMut for Output {
    #[inline]
    fn deref_mut(&mut self) -> &mut Vec<u8> {
        &mut self.bytes
    }
}

impl Output {
    /// All that is queued, large values included.
    #[inline]
    pub fn queued_bytes(&self) -> usize {
        self.bytes.len() + self.large_bytes
    }

    /// Of large values, those that are not wholly written.
    pub fn shared_bytes(&self) -> usize {
        self.large.iter().filter(|large| large.value.is_some()).map(|large| large.length).sum()
    }

    #[inline]
    pub fn has_large(&self) -> bool {
        self.large_bytes > 0
    }

    /// Whether it must be written before more is executed.
    #[inline]
    pub fn is_full(&self) -> bool {
        self.queued_bytes() > self.bytes_max
    }

    pub fn set_bytes_max(&mut self, bytes_max: usize) {
        self.bytes_max = bytes_max;
    }

    #[inline]
    pub fn clear(&mut self) {
        self.bytes.clear();
        if self.large_bytes > 0 {
            self.large.clear();
            self.large_bytes = 0;
        }
    }

    /// Appends an item's value: one that is long enough as it is, without a copy.
    #[inline(always)]
    pub fn push_value(&mut self, item: &ItemView<'_>) {
        match item.is_shareable() {
            true => self.push_large(item.value, item.shareable()),
            false => self.bytes.extend_from_slice(item.value),
        }
    }

    /// The same of a value that is long enough. Takes no view: one whose address is taken has to be made whole.
    #[cold]
    pub fn push_large(&mut self, value: &[u8], shareable: ShareableValue<'_>) {
        let Some(shared) = shareable.share() else { return self.bytes.extend_from_slice(value) };
        let (at, length) = (self.bytes.len(), value.len());
        self.large.push(LargeValue { at, length, value: Some(shared) });
        self.large_bytes += length;
    }

    /// What comes after the first `written` bytes, in order, at most `bytes_max` of it and as many pieces as there are
    /// `slices`. Says how many pieces that is.
    pub fn slices<'a>(&'a self, written: usize, bytes_max: usize, slices: &mut [IoSlice<'a>]) -> usize {
        let (mut skip, mut room, mut count) = (written, bytes_max, 0);
        for (bytes, length) in self.pieces() {
            let from = skip.min(length);
            skip -= from;
            let rest = bytes.get(from..).unwrap_or_default();
            let rest = &rest[..rest.len().min(room)];
            if rest.is_empty() {
                continue;
            }
            let Some(slice) = slices.get_mut(count) else { break };
            *slice = IoSlice::new(rest);
            count += 1;
            room -= rest.len();
        }
        count
    }

    /// Lets go of the large values among the first `written` bytes.
    pub fn release_written(&mut self, written: usize) {
        let mut before = 0;
        for large in &mut self.large {
            before += large.length;
            if large.at + before <= written {
                large.value = None;
            }
        }
    }

    /// What is queued, in order, each with its length; a large value has no bytes any more once it is let go of.
    fn pieces(&self) -> impl Iterator<Item = (&[u8], usize)> {
        let mut begin = 0;
        let plain = |from: usize, to: usize| {
            let bytes = self.bytes.get(from..to).unwrap_or_default();
            (bytes, bytes.len())
        };
        let between = self.large.iter().flat_map(move |large| {
            let before = plain(std::mem::replace(&mut begin, large.at), large.at);
            [before, (large.value.as_ref().map_or(&[], SharedValue::bytes), large.length)]
        });
        let last = self.large.last().map_or(0, |large| large.at);
        between.chain([plain(last, self.bytes.len())])
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cache::{Cache, Mode, Options};

    /// Two large values between text, and the same in one piece.
    fn output() -> (Cache, Output, Vec<u8>) {
        let options = Options { budget_bytes: 16 << 20, item_size_max_bytes: 1 << 20, evict: true, shards: 1 };
        let cache = Cache::new(&options);
        let (mut output, mut plain) = (Output::default(), Vec::new());
        for (key, length) in [("a", 20_000), ("b", 3000), ("c", 17_000)] {
            let value = key.repeat(length);
            cache.store(Mode::Set, key.as_bytes(), 7, 0, value.as_bytes(), 1);
            output.extend_from_slice(b"head ");
            cache.get(key.as_bytes(), 1, |item| output.push_value(&item));
            output.extend_from_slice(b"\r\n");
            plain.extend_from_slice(format!("head {value}\r\n").as_bytes());
        }
        (cache, output, plain)
    }

    #[test]
    fn what_is_written_piece_by_piece_is_the_whole_answer() {
        for (bytes_max, pieces) in [(usize::MAX, 16), (1, 1), (7, 2), (8192, 3), (18_000, 16)] {
            let (_cache, mut output, plain) = output();
            assert_eq!((output.queued_bytes(), output.shared_bytes()), (plain.len(), 37_000));
            assert!(output.len() < 3100, "what is large is not copied");
            let mut written = Vec::new();
            while written.len() < plain.len() {
                let mut slices = [IoSlice::new(&[]); 16];
                let count = output.slices(written.len(), bytes_max, &mut slices[..pieces]);
                let step: Vec<u8> = slices[..count].iter().flat_map(|slice| slice.to_vec()).collect();
                assert!(!step.is_empty() && step.len() <= bytes_max);
                written.extend(step);
                output.release_written(written.len());
            }
            assert!(written == plain, "{bytes_max} bytes in {pieces} pieces");
            assert_eq!(output.shared_bytes(), 0, "nothing is held any longer");
        }
    }

    #[test]
    fn a_value_that_is_replaced_while_it_is_written_stays_whole_and_is_counted_until_then() {
        let (cache, mut output, plain) = output();
        assert_eq!(cache.detached().bytes(), 0);
        cache.store(Mode::Set, b"a", 0, 0, b"other", 1);
        cache.flush(1, 1);
        // Flushed memory goes with the next operations.
        (0..10).for_each(|_| assert!(cache.get(b"x", 1, |_| ()).is_none()));
        cache.validate().unwrap();
        // Each with its key and its flags.
        assert_eq!(cache.detached().bytes(), 37_000 + 2 + 8);
        let mut slices = [IoSlice::new(&[]); 16];
        let count = output.slices(0, usize::MAX, &mut slices);
        assert!(slices[..count].iter().flat_map(|slice| slice.to_vec()).collect::<Vec<u8>>() == plain);
        output.release_written(20_007);
        assert_eq!(cache.detached().bytes(), 17_000 + 1 + 4);
        output.clear();
        assert_eq!(cache.detached().bytes(), 0);
    }

    #[test]
    fn a_number_that_is_counted_up_while_it_is_written_stays_what_it_was() {
        let (cache, mut output, _) = output();
        let padded = [vec![b' '; 20_000].as_slice(), b"41"].concat();
        cache.store(Mode::Set, b"n", 0, 0, &padded, 1);
        output.clear();
        cache.get(b"n", 1, |item| output.push_value(&item));
        let counted = cache.with_key(b"n", 1, |slot| slot.arithmetic(1, true, None));
        assert_eq!(counted, crate::cache::ArithmeticOutcome::Value(42));
        let mut slices = [IoSlice::new(&[]); 2];
        assert_eq!(output.slices(0, usize::MAX, &mut slices), 1);
        assert!(*slices[0] == *padded);
        assert!(cache.get(b"n", 1, |item| item.value.starts_with(b"42 ")).unwrap());
        assert_eq!(cache.detached().bytes(), 20_003);
        drop(output);
        assert_eq!(cache.detached().bytes(), 0);
        cache.validate().unwrap();
    }
}
