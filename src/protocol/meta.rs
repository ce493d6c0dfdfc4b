//! The meta commands `mg ms md ma me`: a line to a [`Request`], as `proto_text.c` of memcached 1.6.18 reads it.
//!
//! Never allocates. A flag is checked here once, whichever command it comes with, and read again by whoever
//! carries the command out; a line with a fault becomes memcached's own error and changes nothing.

use super::base64::{self, DECODED_BYTES_MAX};
use super::number::{signed, unsigned, unsigned_32};
use super::{KEY_LENGTH_MAX, Request, RequestStep, StoreMode, keys};

const ERROR: &str = "ERROR";
const BAD_FORMAT: &str = "CLIENT_ERROR bad command line format";
const BAD_CHUNK: &str = "CLIENT_ERROR bad data chunk";
const BAD_TOKEN: &str = "CLIENT_ERROR bad token in command line format";
const BAD_KEY: &str = "CLIENT_ERROR error decoding key";
const BAD_MODE_LENGTH: &str = "CLIENT_ERROR incorrect length for M token";
const BAD_INITIAL: &str = "CLIENT_ERROR invalid numeric initial value";
const BAD_DELTA: &str = "CLIENT_ERROR invalid numeric delta value";
const BAD_STORE_MODE: &str = "CLIENT_ERROR invalid mode for ms M token";
const BAD_ARITHMETIC_MODE: &str = "CLIENT_ERROR invalid mode for ma M token";
const DUPLICATE: &str = "CLIENT_ERROR duplicate flag";
const UNKNOWN: &str = "CLIENT_ERROR invalid flag";
const UNKNOWN_OR_DUPLICATE: &str = "CLIENT_ERROR invalid or duplicate flag";
const OPAQUE_TOO_LONG: &str = "CLIENT_ERROR opaque token too long";
const TOO_MANY: &str = "CLIENT_ERROR options flags too long";
/// `mg` has its own words for it.
const TOO_MANY_GET: &str = "CLIENT_ERROR options flags are too long";

/// Longest `O` flag, its letter included.
const OPAQUE_LENGTH_MAX: usize = 32;
/// Most words of a line, the command's name included.
const WORDS_MAX: usize = 19;
/// Larger data blocks are refused outright, as by `set`.
const VALUE_LENGTH_MAX: i64 = i32::MAX as i64 - 2;
/// The flags there are. `E` is of later versions than 1.6.18.
const KNOWN: u64 = bits(b"bcfhklqstuvCDEFIJLMNOPRT");

/// Room for a key that comes in base64.
pub type KeyRoom = [u8; DECODED_BYTES_MAX];

/// The key of a meta command.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MetaKey<'a> {
    /// As it stands on the line.
    text: &'a [u8],
    /// It is base64, and reads well.
    encoded: bool,
}

impl<'a> MetaKey<'a> {
    /// The key that is meant: the only one anybody may look at, store under, or compare.
    #[inline]
    pub fn bytes<'k>(&self, room: &'k mut KeyRoom) -> &'k [u8]
    where
        'a: 'k,
    {
        if !self.encoded {
            return self.text;
        }
        base64::decode(self.text, room).unwrap_or_default()
    }

    /// True if it came in base64, and goes back so.
    #[inline]
    pub fn is_encoded(&self) -> bool {
        self.encoded
    }
}

/// A meta command's key and flags. Every flag is known, comes once, and its number can be read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Meta<'a> {
    pub key: MetaKey<'a>,
    text: &'a [u8],
    present: u64,
}

impl<'a> Meta<'a> {
    /// The flags in their order: the letter, and the whole word.
    #[inline]
    pub fn flags(&self) -> impl Iterator<Item = (u8, &'a [u8])> {
        let mut words = keys(self.text);
        // No word is empty.
        std::iter::from_fn(move || {
            let word = words.next()?;
            Some((*word.first()?, word))
        })
    }

    #[inline]
    pub fn has(&self, flag: u8) -> bool {
        self.present & bit(flag) != 0
    }

    /// True of a `mg` that changes no more, and no less, than any read does.
    #[inline]
    pub fn is_plain_read(&self) -> bool {
        const OTHERS: u64 = bits(b"NTRu");
        self.present & OTHERS == 0
    }

    /// What follows the letter, if the flag is there.
    pub fn value(&self, flag: u8) -> Option<&'a [u8]> {
        let found = |(letter, word): (u8, &'a [u8])| if letter == flag { word.get(1..) } else { None };
        if self.has(flag) { self.flags().find_map(found) } else { None }
    }

    /// The flag's number, if the flag is there.
    pub fn unsigned(&self, flag: u8) -> Option<u64> {
        unsigned(self.value(flag)?)
    }

    /// The flag's time, if the flag is there.
    pub fn signed(&self, flag: u8) -> Option<i64> {
        signed(self.value(flag)?)
    }

    fn mode(&self) -> Option<u8> {
        self.value(b'M')?.first().copied()
    }

    fn opaque_fits(&self) -> bool {
        self.value(b'O').is_none_or(|opaque| opaque.len() < OPAQUE_LENGTH_MAX)
    }
}

/// A letter's place among 64 bits; none for what is no letter.
#[inline]
const fn bit(flag: u8) -> u64 {
    if flag.is_ascii_alphabetic() { 1 << (flag - b'A') } else { 0 }
}

const fn bits(flags: &[u8]) -> u64 {
    let (mut all, mut index) = (0, 0);
    while index < flags.len() {
        all |= bit(flags[index]);
        index += 1;
    }
    all
}

fn invalid<'a>(error: &'static str) -> Request<'a> {
    Request::Invalid { error, noreply: false }
}

/// The request of a line whose command is `m` and this letter; `rest` is the line after it.
pub(super) fn step<'a>(
    verb: u8,
    rest: &'a [u8],
    buffer: &'a [u8],
    used: usize,
    value_bytes_max: usize,
) -> Option<RequestStep<'a>> {
    let request = match verb {
        b'g' => get(rest),
        b's' => return Some(store(rest, buffer, used, value_bytes_max)),
        b'd' => delete(rest),
        b'a' => arithmetic(rest),
        b'e' => debug(rest),
        _ => return None,
    };
    Some(RequestStep::Request { request: request.unwrap_or_else(invalid), used, discard: 0 })
}

/// The first word, and what follows it.
fn word(text: &[u8]) -> (&[u8], &[u8]) {
    let blanks = text.iter().take_while(|&&byte| byte == b' ').count();
    let text = &text[blanks..];
    text.split_at(super::scan::find(b' ', text).unwrap_or(text.len()))
}

fn has_too_many(flags: &[u8], words_before: usize) -> bool {
    // A word takes two bytes, with its blank.
    let possible = flags.len().div_ceil(2);
    possible + words_before > WORDS_MAX && keys(flags).count() + words_before > WORDS_MAX
}

fn get(rest: &[u8]) -> Result<Request<'_>, &'static str> {
    let (key, flags) = key_and_flags(rest, TOO_MANY_GET)?;
    let meta = checked(key, flags)?;
    if meta.opaque_fits() { Ok(Request::MetaGet(meta)) } else { Err(OPAQUE_TOO_LONG) }
}

/// `md` and `ma` have one text for any fault of a flag.
fn delete(rest: &[u8]) -> Result<Request<'_>, &'static str> {
    let (key, flags) = key_and_flags(rest, TOO_MANY)?;
    let meta = checked(key, flags).map_err(|_| UNKNOWN_OR_DUPLICATE)?;
    if meta.opaque_fits() { Ok(Request::MetaDelete(meta)) } else { Err(OPAQUE_TOO_LONG) }
}

fn arithmetic(rest: &[u8]) -> Result<Request<'_>, &'static str> {
    let (key, flags) = key_and_flags(rest, TOO_MANY)?;
    let meta = checked(key, flags).map_err(|_| UNKNOWN_OR_DUPLICATE)?;
    let increase = match meta.mode() {
        None | Some(b'I' | b'+') => true,
        Some(b'D' | b'-') => false,
        Some(_) => return Err(BAD_ARITHMETIC_MODE),
    };
    if meta.opaque_fits() { Ok(Request::MetaArithmetic { meta, increase }) } else { Err(OPAQUE_TOO_LONG) }
}

/// `me <key> [b]`: whatever else stands there is passed over.
fn debug(rest: &[u8]) -> Result<Request<'_>, &'static str> {
    let (text, flags) = word(rest);
    if text.is_empty() || text.len() > KEY_LENGTH_MAX {
        return Err(BAD_FORMAT);
    }
    let encoded = word(flags).0 == b"b";
    if encoded && base64::decode(text, &mut [0; DECODED_BYTES_MAX]).is_none() {
        return Err(BAD_FORMAT);
    }
    Ok(Request::MetaDebug(MetaKey { text, encoded }))
}

/// The two parts of a line without a data block.
fn key_and_flags<'a>(rest: &'a [u8], too_many: &'static str) -> Result<(&'a [u8], &'a [u8]), &'static str> {
    let (key, flags) = word(rest);
    if key.is_empty() {
        Err(ERROR)
    } else if key.len() > KEY_LENGTH_MAX {
        Err(BAD_FORMAT)
    } else if has_too_many(flags, 2) {
        Err(too_many)
    } else {
        Ok((key, flags))
    }
}

/// Checks every flag. An unknown or repeated one ends the search; of other faults the last one is told.
fn checked<'a>(key: &'a [u8], flags: &'a [u8]) -> Result<Meta<'a>, &'static str> {
    let (mut present, mut error, mut sound) = (0, BAD_FORMAT, true);
    for word in keys(flags) {
        let Some((&flag, value)) = word.split_first() else { continue };
        if flag >= 127 {
            return Err(DUPLICATE);
        }
        let bit = bit(flag) & KNOWN;
        if bit == 0 {
            return Err(UNKNOWN);
        }
        if present & bit != 0 {
            return Err(DUPLICATE);
        }
        present |= bit;
        if let Err(told) = check(flag, value, key) {
            sound = false;
            error = told.unwrap_or(error);
        }
    }
    let encoded = present & bit(b'b') != 0;
    let meta = Meta { key: MetaKey { text: key, encoded }, text: flags, present };
    if sound { Ok(meta) } else { Err(error) }
}

/// What is wrong with one flag, if memcached has words of its own for it.
fn check(flag: u8, value: &[u8], key: &[u8]) -> Result<(), Option<&'static str>> {
    let (sound, error) = match flag {
        b'b' => (base64::decode(key, &mut [0; DECODED_BYTES_MAX]).is_some(), BAD_KEY),
        b'N' | b'T' | b'R' => (signed(value).is_some(), BAD_TOKEN),
        b'C' | b'E' => (unsigned(value).is_some(), BAD_TOKEN),
        b'M' => (value.len() == 1, BAD_MODE_LENGTH),
        b'J' => (unsigned(value).is_some(), BAD_INITIAL),
        b'D' => (unsigned(value).is_some(), BAD_DELTA),
        b'F' => return if unsigned_32(value).is_some() { Ok(()) } else { Err(None) },
        _ => return Ok(()),
    };
    if sound { Ok(()) } else { Err(Some(error)) }
}

/// `ms <key> <bytes> <flags>*` and its data block. Once the length is known a faulty line takes its block with it.
fn store<'a>(rest: &'a [u8], buffer: &'a [u8], used: usize, value_bytes_max: usize) -> RequestStep<'a> {
    let (key, rest) = word(rest);
    let (length, flags) = word(rest);
    let length = signed(length).filter(|length| (0..=VALUE_LENGTH_MAX).contains(length));
    let length = length.and_then(|length| usize::try_from(length).ok());
    let header = store_header(key, flags, length.is_some());
    let block = length.map_or(0, |length| length as u64 + 2);
    let (meta, mode, length) = match (header, length) {
        (Ok((meta, mode)), Some(length)) => (meta, mode, length),
        (Ok(_), None) => return RequestStep::Request { request: invalid(BAD_FORMAT), used, discard: 0 },
        (Err(error), _) => return RequestStep::Request { request: invalid(error), used, discard: block },
    };
    if length > value_bytes_max {
        let request = Request::MetaStore { meta, mode, value: None };
        return RequestStep::Request { request, used, discard: block };
    }
    let total = used + length + 2;
    let Some(data) = buffer.get(used..total) else {
        return RequestStep::More { total };
    };
    let request = match data.strip_suffix(b"\r\n") {
        Some(value) => Request::MetaStore { meta, mode, value: Some(value) },
        None => invalid(BAD_CHUNK),
    };
    RequestStep::Request { request, used: total, discard: 0 }
}

/// Everything of a `ms` line but its length.
fn store_header<'a>(key: &'a [u8], flags: &'a [u8], has_length: bool) -> Result<(Meta<'a>, StoreMode), &'static str> {
    if key.is_empty() {
        return Err(ERROR);
    }
    if key.len() > KEY_LENGTH_MAX {
        return Err(BAD_FORMAT);
    }
    if has_too_many(flags, 3) {
        return Err(TOO_MANY);
    }
    if !has_length {
        return Err(BAD_FORMAT);
    }
    let meta = checked(key, flags)?;
    // As in memcached a cas turns a set or a replace into a cas.
    let cas = meta.unsigned(b'C').map(StoreMode::Cas);
    let mode = match meta.mode() {
        None | Some(b'S') => cas.unwrap_or(StoreMode::Set),
        Some(b'R') => cas.unwrap_or(StoreMode::Replace),
        Some(b'E') => StoreMode::Add,
        Some(b'A') => StoreMode::Append,
        Some(b'P') => StoreMode::Prepend,
        Some(_) => return Err(BAD_STORE_MODE),
    };
    if meta.opaque_fits() { Ok((meta, mode)) } else { Err(OPAQUE_TOO_LONG) }
}

#[cfg(test)]
mod tests {
    use super::super::parse;
    use super::*;

    fn step(bytes: &[u8]) -> RequestStep<'_> {
        parse::step(bytes, 1024)
    }

    fn request(line: &[u8]) -> Request<'_> {
        match step(line) {
            RequestStep::Request { request, .. } => request,
            step => panic!("{step:?}"),
        }
    }

    #[track_caller]
    fn expect_error(line: &[u8], expected: &str) {
        assert_eq!(request(line), invalid(Box::leak(expected.into())), "{}", line.escape_ascii());
    }

    #[test]
    fn flags_are_read_by_letter_and_in_their_order() {
        let Request::MetaGet(meta) = request(b"  mg  key  v  T30 Oab  q \r\n") else { panic!() };
        assert_eq!(meta.key.bytes(&mut [0; DECODED_BYTES_MAX]), b"key");
        let flags: Vec<_> = meta.flags().collect();
        assert_eq!(flags, [(b'v', &b"v"[..]), (b'T', b"T30"), (b'O', b"Oab"), (b'q', b"q")]);
        assert!(meta.has(b'v') && !meta.has(b'k') && !meta.has(b'!'));
        assert_eq!(
            (meta.signed(b'T'), meta.value(b'O'), meta.value(b'v')),
            (Some(30), Some(&b"ab"[..]), Some(&b""[..]))
        );
        assert_eq!((meta.signed(b'N'), meta.value(b'k')), (None, None));
    }

    #[test]
    fn a_key_in_base64_is_decoded() {
        let Request::MetaDelete(meta) = request(b"md YWJj b\r\n") else { panic!() };
        assert!(meta.key.is_encoded());
        assert_eq!(meta.key.bytes(&mut [0; DECODED_BYTES_MAX]), b"abc");
        let Request::MetaDebug(key) = request(b"me YWJj b\r\n") else { panic!() };
        assert_eq!(key.bytes(&mut [0; DECODED_BYTES_MAX]), b"abc");
        let longest = [b"mg ".as_slice(), &[b'A'; 248], b" b\r\n"].concat();
        let Request::MetaGet(meta) = request(&longest) else { panic!() };
        assert_eq!(meta.key.bytes(&mut [0; DECODED_BYTES_MAX]), [0; 186]);
    }

    #[test]
    fn a_store_waits_for_its_block_and_gives_it_whole() {
        let whole = b"ms k 3 F5\r\nabc\r\n";
        for end in 11..whole.len() {
            assert_eq!(step(&whole[..end]), RequestStep::More { total: whole.len() });
        }
        let Request::MetaStore { mode: StoreMode::Set, value: Some(b"abc"), .. } = request(whole) else { panic!() };
    }

    #[test]
    fn modes_and_cas_make_the_mode() {
        let mode = |line: &'static str| match request(line.as_bytes()) {
            Request::MetaStore { mode, .. } => mode,
            request => panic!("{request:?}"),
        };
        assert_eq!(mode("ms k 0\r\n\r\n"), StoreMode::Set);
        assert_eq!(mode("ms k 0 MS C7\r\n\r\n"), StoreMode::Cas(7));
        assert_eq!(mode("ms k 0 MR C7\r\n\r\n"), StoreMode::Cas(7));
        assert_eq!(mode("ms k 0 MR\r\n\r\n"), StoreMode::Replace);
        assert_eq!(mode("ms k 0 ME C7\r\n\r\n"), StoreMode::Add);
        assert_eq!(mode("ms k 0 MA C7\r\n\r\n"), StoreMode::Append);
        assert_eq!(mode("ms k 0 MP\r\n\r\n"), StoreMode::Prepend);
        let increases =
            |line: &'static str| matches!(request(line.as_bytes()), Request::MetaArithmetic { increase: true, .. });
        assert!(increases("ma k\r\n") && increases("ma k MI\r\n") && increases("ma k M+\r\n"));
        assert!(!increases("ma k MD\r\n") && !increases("ma k M-\r\n"));
    }

    #[test]
    fn of_several_faults_the_one_memcached_tells() {
        expect_error(b"mg k v v\r\n", DUPLICATE);
        expect_error(b"mg k \x7f\r\n", DUPLICATE);
        expect_error(b"mg k \xff\r\n", DUPLICATE);
        expect_error(b"mg k Tx !\r\n", UNKNOWN);
        expect_error(b"mg k Tx Dx\r\n", BAD_DELTA);
        expect_error(b"mg k Tx Fx\r\n", BAD_TOKEN);
        expect_error(b"mg k Fx\r\n", BAD_FORMAT);
        expect_error(b"md k Fx\r\n", UNKNOWN_OR_DUPLICATE);
        expect_error(b"ma k Mxx\r\n", UNKNOWN_OR_DUPLICATE);
        expect_error(b"ma k Mx\r\n", BAD_ARITHMETIC_MODE);
        expect_error(b"ms k 0 Mx\r\n\r\n", BAD_STORE_MODE);
        let opaque = [b"O".as_slice(), &[b'o'; 32]].concat();
        expect_error(&[b"ms k 0 Mx ".as_slice(), &opaque, b"\r\n\r\n"].concat(), BAD_STORE_MODE);
        expect_error(&[b"ms k 0 ".as_slice(), &opaque, b"\r\n\r\n"].concat(), OPAQUE_TOO_LONG);
        expect_error(&[b"mg k".as_slice(), &b" x".repeat(18), b"\r\n"].concat(), TOO_MANY_GET);
        expect_error(&[b"md k".as_slice(), &b" x".repeat(18), b"\r\n"].concat(), TOO_MANY);
        expect_error(&[b"md k".as_slice(), &b" x".repeat(17), b"\r\n"].concat(), UNKNOWN_OR_DUPLICATE);
    }

    #[test]
    fn a_faulty_store_takes_its_block_with_it_once_the_length_is_known() {
        let discarded = |line: &[u8]| match step(line) {
            RequestStep::Request { request: Request::Invalid { .. }, discard, .. } => discard,
            step => panic!("{step:?}"),
        };
        for line in [&b"ms k 3 Fx\r\n"[..], b"ms k 3 v v\r\n", b"ms %% 3 b\r\n", b"ms k 3 Mset\r\n"] {
            assert_eq!(discarded(line), 5, "{}", line.escape_ascii());
        }
        assert_eq!(discarded(&[b"ms ".as_slice(), &[b'k'; 251], b" 3\r\n"].concat()), 5);
        for line in [&b"ms k\r\n"[..], b"ms\r\n", b"ms k x\r\n", b"ms k -1\r\n", b"ms k 2147483646\r\n"] {
            assert_eq!(discarded(line), 0, "{}", line.escape_ascii());
        }
        let large = step(b"ms k 2147483645 q\r\n");
        let RequestStep::Request { request: Request::MetaStore { value: None, .. }, discard: 2_147_483_647, .. } =
            large
        else {
            panic!("{large:?}")
        };
    }

    #[test]
    fn no_bytes_make_it_panic() {
        let mut rng = fastrand::Rng::with_seed(7);
        let pieces: &[&[u8]] = &[
            b"mg ", b"ms ", b"md ", b"ma ", b"me ", b"mn", b"k ", b"b ", b"0 ", b"3 ", b"\r\n", b"\n", b"\0", b"\xff",
            b"=", b"M", b"C", b"O",
        ];
        for _ in 0..20_000 {
            let mut bytes = Vec::new();
            for _ in 0..rng.usize(..12) {
                bytes.extend_from_slice(pieces[rng.usize(..pieces.len())]);
                if rng.u8(..4) == 0 {
                    bytes.push(rng.u8(..));
                }
            }
            match step(&bytes) {
                RequestStep::More { total } => assert!(total > bytes.len()),
                RequestStep::Request { used, .. } => assert!(0 < used && used <= bytes.len()),
                RequestStep::Close(_) => {}
            }
        }
    }
}
