//! The meta commands `mg ms md ma me`: a line to a [`Request`], as `proto_text.c` of memcached 1.6.18 reads it.
//!
//! Never allocates. Every flag is checked and read here, whichever command it comes with; a line with a fault becomes
//! memcached's own error and changes nothing.

use super::base64::{self, DECODED_BYTES_MAX};
use super::number::{unsigned, unsigned_32};
use super::parse::{block_length, exptime, with_block};
use super::{
    Arithmetic, BAD_FORMAT, Command, Delete, ERROR, KEY_LENGTH_MAX, Reply, Request, RequestStep, StoreCommand,
    StoreMode, Wire, keys, response,
};

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
/// The flags there are. `E` is of later versions than 1.6.18.
const KNOWN: u64 = bits(b"bcfhklqstuvCDEFIJLMNOPRT");
/// Flags of `mg` that may change the item, or whose turn it is.
const CHANGES: u64 = bits(b"TNRE");

/// The flags of a meta command, which its answer brings back. Every one is known and comes once.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Meta<'a> {
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

    /// The cas id that the item is to get.
    pub fn new_cas(&self) -> Option<u64> {
        let found = |(flag, word): (u8, &'a [u8])| if flag == b'E' { word.get(1..) } else { None };
        if self.has(b'E') { unsigned(self.flags().find_map(found)?) } else { None }
    }

    /// True if the key came in base64, and goes back so.
    #[inline]
    pub fn has_encoded_key(&self) -> bool {
        self.has(b'b')
    }

    /// Appends an answer without an item: its code, then what `O`, `k` and, if there is one to show, `c` ask for.
    pub(super) fn write(&self, out: &mut Vec<u8>, key: &[u8], reply: Reply) {
        let (code, cas) = match reply {
            Reply::Status { status, cas, .. } if !status.meta.is_empty() => (status.meta, cas),
            line => return line.write_line(out),
        };
        out.extend_from_slice(code.as_bytes());
        for (flag, word) in self.flags() {
            match (flag, cas) {
                (b'O', _) => response::word(out, word),
                (b'k', _) => response::flag_key(out, key, self.has_encoded_key()),
                (b'c', Some(cas)) => response::flag(out, flag, cas),
                _ => {}
            }
        }
        out.extend_from_slice(b"\r\n");
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

/// The request of a line whose command is `m` and this letter; `rest` is the line after it.
pub(super) fn step<'a>(
    verb: u8,
    rest: &'a [u8],
    buffer: &'a [u8],
    used: usize,
    value_bytes_max: usize,
) -> Option<RequestStep<'a>> {
    let request = match verb {
        // Put together here, where it is to be.
        b'g' => get(rest).map(|(key, meta)| Request {
            key,
            command: Command::MetaGet { may_change: meta.present & CHANGES != 0 },
            wire: Wire::Meta(meta),
        }),
        b's' => return Some(store(rest, buffer, used, value_bytes_max)),
        b'd' => delete(rest),
        b'a' => arithmetic(rest),
        b'e' => debug(rest),
        _ => return None,
    };
    let request = request.unwrap_or_else(|error| Request::answered(error, false));
    Some(RequestStep::Request { request, used, discard: 0 })
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

fn get(rest: &[u8]) -> Result<(&[u8], Meta<'_>), &'static str> {
    let (key, flags) = word(rest);
    check(key, flags, 2, TOO_MANY_GET)?;
    let meta = FlagValues::default().read(key, flags)?;
    if has_long_opaque(&meta) { Err(OPAQUE_TOO_LONG) } else { Ok((key, meta)) }
}

/// `md` and `ma` have one text for any fault of a flag.
fn delete(rest: &[u8]) -> Result<Request<'_>, &'static str> {
    let (key, flags) = word(rest);
    check(key, flags, 2, TOO_MANY)?;
    let mut read = FlagValues::default();
    let meta = read.read(key, flags).map_err(|_| UNKNOWN_OR_DUPLICATE)?;
    request(key, meta, Command::Delete(Delete { cas: read.cas, invalidate: meta.has(b'I'), touch: read.touch }))
}

fn arithmetic(rest: &[u8]) -> Result<Request<'_>, &'static str> {
    let (key, flags) = word(rest);
    check(key, flags, 2, TOO_MANY)?;
    let mut read = FlagValues::default();
    let meta = read.read(key, flags).map_err(|_| UNKNOWN_OR_DUPLICATE)?;
    let increase = match read.mode {
        None | Some(b'I' | b'+') => true,
        Some(b'D' | b'-') => false,
        Some(_) => return Err(BAD_ARITHMETIC_MODE),
    };
    let sum = Arithmetic {
        increase,
        delta: read.delta.unwrap_or(1),
        // `N` sets the exptime when its turn comes.
        create: meta.has(b'N').then_some((read.initial.unwrap_or(0), 0)),
        cas: read.cas.filter(|&cas| cas != 0),
    };
    request(key, meta, Command::Arithmetic(sum))
}

/// `me <key> [b]`: whatever else stands there is passed over.
fn debug(rest: &[u8]) -> Result<Request<'_>, &'static str> {
    let (key, flags) = word(rest);
    if key.is_empty() || key.len() > KEY_LENGTH_MAX {
        return Err(BAD_FORMAT);
    }
    let present = if word(flags).0 == b"b" { bit(b'b') } else { 0 };
    if present != 0 && !is_base64(key) {
        return Err(BAD_FORMAT);
    }
    request(key, Meta { text: b"", present }, Command::Debug)
}

fn is_base64(key: &[u8]) -> bool {
    base64::decode(key, &mut [0; DECODED_BYTES_MAX]).is_some()
}

fn has_long_opaque(meta: &Meta<'_>) -> bool {
    meta.has(b'O') && meta.flags().any(|(flag, word)| flag == b'O' && word.len() > OPAQUE_LENGTH_MAX)
}

/// What every line comes to when all else about it is right.
#[inline]
fn request<'a>(key: &'a [u8], meta: Meta<'a>, command: Command<'a>) -> Result<Request<'a>, &'static str> {
    if has_long_opaque(&meta) {
        return Err(OPAQUE_TOO_LONG);
    }
    Ok(Request { key, command, wire: Wire::Meta(meta) })
}

/// Finds what is wrong with a line before its flags are looked at.
fn check<'a>(key: &'a [u8], flags: &'a [u8], words_before: usize, too_many: &'static str) -> Result<(), &'static str> {
    if key.is_empty() {
        Err(ERROR)
    } else if key.len() > KEY_LENGTH_MAX {
        Err(BAD_FORMAT)
    } else if has_too_many(flags, words_before) {
        Err(too_many)
    } else {
        Ok(())
    }
}

/// What flags say, each `None` if it is not there. Others are read again when their turn comes.
#[derive(Default)]
struct FlagValues {
    touch: Option<i64>,
    cas: Option<u64>,
    initial: Option<u64>,
    delta: Option<u64>,
    flags: Option<u32>,
    mode: Option<u8>,
}

impl FlagValues {
    /// Reads every flag. An unknown or repeated one ends the search; of other faults the last one is told.
    fn read<'a>(&mut self, key: &[u8], text: &'a [u8]) -> Result<Meta<'a>, &'static str> {
        let (mut present, mut error, mut is_sound) = (0, BAD_FORMAT, true);
        for word in keys(text) {
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
            if let Err(told) = self.read_one(flag, value, key) {
                is_sound = false;
                error = told.unwrap_or(error);
            }
        }
        if is_sound { Ok(Meta { text, present }) } else { Err(error) }
    }

    /// Reads one flag. The error is what is wrong with it, if memcached has words of its own for it.
    fn read_one(&mut self, flag: u8, value: &[u8], key: &[u8]) -> Result<(), Option<&'static str>> {
        fn set<T>(place: &mut Option<T>, value: Option<T>) -> bool {
            *place = value;
            place.is_some()
        }
        let (is_sound, error) = match flag {
            b'b' => (is_base64(key), Some(BAD_KEY)),
            b'N' | b'R' => (exptime(value).is_some(), Some(BAD_TOKEN)),
            b'T' => (set(&mut self.touch, exptime(value)), Some(BAD_TOKEN)),
            b'C' => (set(&mut self.cas, unsigned(value)), Some(BAD_TOKEN)),
            b'E' => (unsigned(value).is_some(), Some(BAD_TOKEN)),
            b'M' => (set(&mut self.mode, value.first().copied().filter(|_| value.len() == 1)), Some(BAD_MODE_LENGTH)),
            b'J' => (set(&mut self.initial, unsigned(value)), Some(BAD_INITIAL)),
            b'D' => (set(&mut self.delta, unsigned(value)), Some(BAD_DELTA)),
            b'F' => (set(&mut self.flags, unsigned_32(value)), None),
            _ => return Ok(()),
        };
        if is_sound { Ok(()) } else { Err(error) }
    }
}

/// `ms <key> <bytes> <flags>*` and its data block. Once the length is known a faulty line takes its block with it.
fn store<'a>(rest: &'a [u8], buffer: &'a [u8], used: usize, value_bytes_max: usize) -> RequestStep<'a> {
    let (key, rest) = word(rest);
    let (length, flags) = word(rest);
    let length = block_length(length);
    match (store_header(key, flags, length.is_some()), length) {
        (Ok((store, meta)), Some(length)) => with_block(length, buffer, used, value_bytes_max, false, |value| {
            Request { key, command: Command::Store(StoreCommand { value, ..store }), wire: Wire::Meta(meta) }
        }),
        (header, length) => {
            let request = Request::answered(header.err().unwrap_or(BAD_FORMAT), false);
            RequestStep::Request { request, used, discard: length.map_or(0, |length| length as u64 + 2) }
        }
    }
}

/// Everything of a `ms` line but its length.
fn store_header<'a>(
    key: &'a [u8],
    flags: &'a [u8],
    has_length: bool,
) -> Result<(StoreCommand<'a>, Meta<'a>), &'static str> {
    check(key, flags, 3, TOO_MANY)?;
    if !has_length {
        return Err(BAD_FORMAT);
    }
    let mut read = FlagValues::default();
    let meta = read.read(key, flags)?;
    // As in memcached a cas turns a set or a replace into a cas.
    let cas = read.cas.map(StoreMode::Cas);
    let mode = match read.mode {
        None | Some(b'S') => cas.unwrap_or(StoreMode::Set),
        Some(b'R') => cas.unwrap_or(StoreMode::Replace),
        Some(b'E') => StoreMode::Add,
        Some(b'A') => StoreMode::Append,
        Some(b'P') => StoreMode::Prepend,
        Some(_) => return Err(BAD_STORE_MODE),
    };
    let store = StoreCommand {
        mode,
        flags: read.flags.unwrap_or(0),
        exptime: read.touch.unwrap_or(0),
        value: None,
        cas: read.cas,
        takes_stale: meta.has(b'I'),
        // As memcached, whatever the mode.
        drops_old: true,
    };
    if has_long_opaque(&meta) { Err(OPAQUE_TOO_LONG) } else { Ok((store, meta)) }
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
        assert_eq!(request(line), Request::answered(Box::leak(expected.into()), false), "{}", line.escape_ascii());
    }

    #[test]
    fn flags_are_read_by_letter_and_in_their_order() {
        let Request { key, command, wire: Wire::Meta(meta) } = request(b"  mg  key  v  T30 Oab  q \r\n") else {
            panic!()
        };
        assert_eq!(key, b"key");
        let flags: Vec<_> = meta.flags().collect();
        assert_eq!(flags, [(b'v', &b"v"[..]), (b'T', b"T30"), (b'O', b"Oab"), (b'q', b"q")]);
        assert!(meta.has(b'v') && !meta.has(b'k') && !meta.has(b'!'));
        assert_eq!(command, Command::MetaGet { may_change: true });
        let Command::Delete(delete) = request(b"md key T30 q I C5\r\n").command else { panic!() };
        assert_eq!(delete, Delete { cas: Some(5), invalidate: true, touch: Some(30) });
    }

    #[test]
    fn a_key_in_base64_is_decoded() {
        assert_eq!(request(b"md YWJj b\r\n").key(&mut None), b"abc");
        assert_eq!(request(b"me YWJj b\r\n").key(&mut None), b"abc");
        assert_eq!(request(b"md YWJj\r\n").key(&mut None), b"YWJj");
        let longest = [b"mg ".as_slice(), &[b'A'; 248], b" b\r\n"].concat();
        assert_eq!(request(&longest).key(&mut None), [0; 186]);
    }

    #[test]
    fn a_store_waits_for_its_block_and_gives_it_whole() {
        let whole = b"ms k 3 F5\r\nabc\r\n";
        for end in 11..whole.len() {
            assert_eq!(step(&whole[..end]), RequestStep::More { total: whole.len() });
        }
        let Command::Store(store) = request(whole).command else { panic!() };
        assert_eq!((store.mode, store.value, store.flags), (StoreMode::Set, Some(&b"abc"[..]), 5));
    }

    #[test]
    fn modes_and_cas_make_the_mode() {
        let mode = |line: &'static str| match request(line.as_bytes()).command {
            Command::Store(StoreCommand { mode, .. }) => mode,
            request => panic!("{request:?}"),
        };
        assert_eq!(mode("ms k 0\r\n\r\n"), StoreMode::Set);
        assert_eq!(mode("ms k 0 MS C7\r\n\r\n"), StoreMode::Cas(7));
        assert_eq!(mode("ms k 0 MR C7\r\n\r\n"), StoreMode::Cas(7));
        assert_eq!(mode("ms k 0 MR\r\n\r\n"), StoreMode::Replace);
        assert_eq!(mode("ms k 0 ME C7\r\n\r\n"), StoreMode::Add);
        assert_eq!(mode("ms k 0 MA C7\r\n\r\n"), StoreMode::Append);
        assert_eq!(mode("ms k 0 MP\r\n\r\n"), StoreMode::Prepend);
        let increases = |line: &'static str| match request(line.as_bytes()).command {
            Command::Arithmetic(Arithmetic { increase, .. }) => increase,
            command => panic!("{command:?}"),
        };
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
            RequestStep::Request { request: Request { command: Command::Reply(_), .. }, discard, .. } => discard,
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
        let RequestStep::Request { request, discard: 2_147_483_647, .. } = large else { panic!("{large:?}") };
        assert!(matches!(request.command, Command::Store(StoreCommand { value: None, .. })));
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
