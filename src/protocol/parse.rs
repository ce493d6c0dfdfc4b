//! Bytes to requests. Pure and restartable: the same bytes give the same requests, however they were split.
//!
//! Never allocates; a length is checked before anybody reserves memory for it.

use memchr::memrchr;

use super::number::{signed, unsigned, unsigned_32};
use super::scan::find;
use super::{
    Arithmetic, BAD_FORMAT, CloseReason, Command, Delete, ERROR, KEY_LENGTH_MAX, Request, RequestStep, Status,
    StoreCommand, StoreMode, keys, maintenance, meta,
};

/// A command line without an end is given up at this length, unless it is a `get` (memcached.c, `try_read_command`).
const LINE_BYTES_MAX: usize = 2048;
/// A `get` of many keys may be this long. memcached sets no limit; a peer that sends more is not one.
const GET_LINE_BYTES_MAX: usize = 1024 * 1024;
/// Blanks in front of a `get` that long at most.
const BLANKS_MAX: usize = 100;
/// Longer data blocks are refused outright (`process_update_command`: `INT_MAX - 2`).
const VALUE_LENGTH_MAX: i64 = i32::MAX as i64 - 2;

const BAD_EXPTIME: &str = "CLIENT_ERROR invalid exptime argument";
const BAD_DELTA: &str = "CLIENT_ERROR invalid numeric delta argument";
const BAD_DELETE: &str = "CLIENT_ERROR bad command line format.  Usage: delete <key> [noreply]";
const BAD_CHUNK: &str = "CLIENT_ERROR bad data chunk";

/// Words of a command line that matter; a line with more is never a valid command, except `get`.
const WORDS_MAX: usize = 10;

/// The words of a line, counted beyond what is kept.
struct CommandWords<'a> {
    kept: [&'a [u8]; WORDS_MAX],
    count: usize,
}

impl<'a> CommandWords<'a> {
    fn of(line: &'a [u8]) -> CommandWords<'a> {
        let mut words = CommandWords { kept: [&[]; WORDS_MAX], count: 0 };
        for word in keys(line) {
            if let Some(place) = words.kept.get_mut(words.count) {
                *place = word;
            }
            words.count += 1;
        }
        words
    }

    /// Word n; empty if the line is shorter.
    fn word(&self, n: usize) -> &'a [u8] {
        self.kept.get(n).copied().unwrap_or_default()
    }

    /// `noreply` counts wherever it is the last word (`set_noreply_maybe` in proto_text.c).
    fn noreply(&self) -> bool {
        self.count > 1 && self.count <= WORDS_MAX && self.word(self.count - 1) == b"noreply"
    }

    /// Word 1, if it may be a key.
    fn key(&self) -> Result<&'a [u8], &'static str> {
        Some(self.word(1)).filter(|key| key.len() <= KEY_LENGTH_MAX).ok_or(BAD_FORMAT)
    }
}

/// The request at the front of `buffer`. `value_bytes_max` is the largest data block worth buffering.
pub fn step(buffer: &[u8], value_bytes_max: usize) -> RequestStep<'_> {
    step_from(buffer, 0, value_bytes_max)
}

/// The same when the first `searched` bytes are known to hold no line end: a long line that arrives in pieces is not
/// searched from its beginning for each of them.
#[inline]
pub fn step_from(buffer: &[u8], searched: usize, value_bytes_max: usize) -> RequestStep<'_> {
    let Some(newline) = buffer.get(searched..).and_then(|unsearched| find(b'\n', unsearched)) else {
        return unfinished(buffer);
    };
    let newline = searched + newline;
    let line = trim_line(&buffer[..newline]);
    let used = newline + 1;
    let command_end = find(b' ', line).unwrap_or(line.len());
    match &line[..command_end] {
        b"get" | b"bget" => get(&line[command_end..], false, used),
        b"gets" => get(&line[command_end..], true, used),
        b"gat" => get_and_touch(&line[command_end..], false, used),
        b"gats" => get_and_touch(&line[command_end..], true, used),
        b"set" | b"add" | b"replace" | b"append" | b"prepend" | b"cas" => store(line, buffer, used, value_bytes_max),
        &[b'm', verb] => meta::step(verb, &line[command_end..], buffer, used, value_bytes_max)
            .unwrap_or_else(|| other(line, buffer, used, value_bytes_max)),
        _ => other(line, buffer, used, value_bytes_max),
    }
}

#[inline(always)]
fn whole(request: Request<'_>, used: usize) -> RequestStep<'_> {
    RequestStep::Request { request, used, discard: 0 }
}

/// A line ends in \r\n or \n; a NUL ends it for memcached, whose lines are C strings.
#[inline]
fn trim_line(line: &[u8]) -> &[u8] {
    let line = line.strip_suffix(b"\r").unwrap_or(line);
    match find(0, line) {
        Some(nul) => &line[..nul],
        None => line,
    }
}

/// Another protocol, told by its first bytes (protocol.txt, "binary"; TLS's record type and major version). One byte of
/// TLS's does not decide, but a newline among the others does not either: however they were split, the same comes of them.
pub(super) fn foreign(buffer: &[u8]) -> Option<CloseReason> {
    match buffer {
        [0x80, ..] => Some(CloseReason::Binary),
        [0x16, 3, ..] => Some(CloseReason::Tls),
        _ => None,
    }
}

/// No newline yet: wait for more, or give up.
fn unfinished(buffer: &[u8]) -> RequestStep<'_> {
    if let Some(why) = foreign(buffer) {
        return RequestStep::Close(why);
    }
    if buffer.len() <= LINE_BYTES_MAX {
        return RequestStep::More { total: buffer.len() + 1 };
    }
    let blanks = buffer.iter().take(BLANKS_MAX + 1).take_while(|&&byte| byte == b' ').count();
    let text = &buffer[blanks..];
    let is_get = blanks <= BLANKS_MAX && (text.starts_with(b"get ") || text.starts_with(b"gets "));
    if is_get && buffer.len() <= GET_LINE_BYTES_MAX {
        RequestStep::More { total: buffer.len() + 1 }
    } else {
        RequestStep::Close(CloseReason::LineTooLong)
    }
}

/// Every line that is not a plain `get` or storage command, and those with blanks in front.
fn other<'a>(line: &'a [u8], buffer: &'a [u8], used: usize, value_bytes_max: usize) -> RequestStep<'a> {
    if let Some(why) = foreign(buffer) {
        return RequestStep::Close(why);
    }
    let blanks = line.iter().take_while(|&&byte| byte == b' ').count();
    if 0 < blanks && blanks < line.len() {
        return match step(&buffer[blanks..], value_bytes_max) {
            RequestStep::Request { request, used, discard } => {
                RequestStep::Request { request, used: used + blanks, discard }
            }
            RequestStep::More { total } => RequestStep::More { total: total + blanks },
            hang_up => hang_up,
        };
    }
    if is_http(line) {
        return RequestStep::Close(CloseReason::Http);
    }
    whole(request(&CommandWords::of(line)), used)
}

/// Whether a line is the first of an HTTP request, or one of its headers that a browser cannot be made to leave out.
pub(super) fn is_http(line: &[u8]) -> bool {
    let blanks = line.iter().take_while(|&&byte| byte == b' ').count();
    let line = &line[blanks..];
    let command = &line[..find(b' ', line).unwrap_or(line.len())];
    let last = last_word(line);
    command == b"Host:" || (last.starts_with(b"HTTP/") && last.as_ptr() != command.as_ptr() && !is_known(command))
}

fn last_word(line: &[u8]) -> &[u8] {
    let blanks = line.iter().rev().take_while(|&&byte| byte == b' ').count();
    let line = &line[..line.len() - blanks];
    &line[memrchr(b' ', line).map_or(0, |blank| blank + 1)..]
}

/// Commands whose last word may happen to look like HTTP's version. Two letters with an m in front are a meta command
/// to memcached, known or not.
fn is_known(command: &[u8]) -> bool {
    matches!(
        command,
        [b'm', _]
            | b"incr"
            | b"decr"
            | b"delete"
            | b"touch"
            | b"flush_all"
            | b"version"
            | b"verbosity"
            | b"stats"
            | b"quit"
            | b"cache_memlimit"
            | b"shutdown"
    )
}

fn request<'a>(words: &CommandWords<'a>) -> Request<'a> {
    match words.word(0) {
        b"incr" => arithmetic(words, true),
        b"decr" => arithmetic(words, false),
        b"delete" => delete(words),
        b"touch" => touch(words),
        _ => keyless(words),
    }
}

fn keyless<'a>(words: &CommandWords<'a>) -> Request<'a> {
    let noreply = words.noreply();
    let always = |command| Request::text(b"", command, false);
    let command = match (words.word(0), words.count) {
        (b"stats", _) => return always(Command::Stats { argument: words.word(1), rest: words.word(2) }),
        (b"shutdown", ..=2) => return always(Command::Shutdown { argument: words.word(1) }),
        (b"refresh_certs", _) => return always(Command::RefreshCertificates),
        (b"version", _) => return always(Command::Reply((&Status::VERSION).into())),
        (b"mn", _) => return always(Command::Reply((&Status::NO_OPERATION).into())),
        (b"quit", _) => return always(Command::Close(None)),
        (b"flush_all", 1) => Ok(Command::Flush { delay: None }),
        (b"flush_all", 2) if noreply => Ok(Command::Flush { delay: None }),
        (b"flush_all", 2 | 3) => match signed(words.word(1)) {
            Some(delay) => Ok(Command::Flush { delay: (delay > 0).then_some(i64::from(delay as i32)) }),
            None => Err(BAD_EXPTIME),
        },
        (b"verbosity", 2) if noreply => Ok(Command::Verbosity { level: 0 }),
        (b"verbosity", 2 | 3) => match unsigned(words.word(1)) {
            Some(level) => Ok(Command::Verbosity { level: u32::try_from(level).unwrap_or(u32::MAX) }),
            None => Err(BAD_FORMAT),
        },
        (b"cache_memlimit", 2 | 3) => {
            unsigned_32(words.word(1)).map(|megabytes| Command::CacheMemlimit { megabytes }).ok_or(ERROR)
        }
        _ => match maintenance::answer(&words.kept, words.count) {
            Some(answer) => Err(answer),
            None => return Request::answered(ERROR, false),
        },
    };
    match command {
        Ok(command) => Request::text(b"", command, noreply),
        Err(error) => Request::answered(error, noreply),
    }
}

/// `get <key>*`: an over-long key spoils the whole command before anything is answered.
fn get(list: &[u8], with_cas: bool, used: usize) -> RequestStep<'_> {
    get_many(list, with_cas, None, ERROR, used)
}

#[inline(always)]
fn get_many<'a>(
    keys: &'a [u8],
    with_cas: bool,
    touch: Option<i64>,
    if_none: &'static str,
    used: usize,
) -> RequestStep<'a> {
    if keys.iter().all(|&byte| byte == b' ') {
        whole(Request::answered(if_none, false), used)
    } else if keys.len() > KEY_LENGTH_MAX && has_too_long_key(keys) {
        whole(Request::answered(BAD_FORMAT, false), used)
    } else {
        whole(Request::text(b"", Command::GetMany { keys, with_cas, touch }, false), used)
    }
}

/// Whether more than [`KEY_LENGTH_MAX`] bytes stand together. Looks for a blank from the end of each stretch of that
/// length, so a line of half a million keys takes some thousand steps and not one for each key.
/// Not inlined: most lists are shorter than one key may be.
#[inline(never)]
fn has_too_long_key(list: &[u8]) -> bool {
    let mut rest = list;
    while let Some(stretch) = rest.get(..=KEY_LENGTH_MAX) {
        match memrchr(b' ', stretch) {
            Some(blank) => rest = &rest[blank + 1..],
            None => return true,
        }
    }
    false
}

/// `gat <exptime> <key>*`; without a key memcached answers `END`.
fn get_and_touch(rest: &[u8], with_cas: bool, used: usize) -> RequestStep<'_> {
    let mut words = keys(rest);
    match words.next().map(exptime) {
        None => whole(Request::answered(ERROR, false), used),
        Some(None) => whole(Request::answered(BAD_EXPTIME, false), used),
        Some(touch) => get_many(words.rest(), with_cas, touch, "END", used),
    }
}

/// An exptime; memcached cuts it to 32 bits.
pub fn exptime(word: &[u8]) -> Option<i64> {
    signed(word).map(|seconds| i64::from(seconds as i32))
}

fn arithmetic<'a>(words: &CommandWords<'a>, increase: bool) -> Request<'a> {
    let sum = |delta| Command::Arithmetic(Arithmetic { increase, delta, create: None, cas: None });
    keyed(words, unsigned, sum, BAD_DELTA)
}

fn touch<'a>(words: &CommandWords<'a>) -> Request<'a> {
    keyed(words, exptime, |exptime| Command::Touch { exptime }, BAD_EXPTIME)
}

/// `<command> <key> <number> [noreply]`.
#[inline(always)]
fn keyed<'a, N>(
    words: &CommandWords<'a>,
    number: fn(&[u8]) -> Option<N>,
    command: impl FnOnce(N) -> Command<'a>,
    bad_number: &'static str,
) -> Request<'a> {
    if !(3..=4).contains(&words.count) {
        return Request::answered(ERROR, false);
    }
    match (words.key(), number(words.word(2))) {
        (Ok(key), Some(number)) => Request::text(key, command(number), words.noreply()),
        (Err(error), _) => Request::answered(error, words.noreply()),
        (_, None) => Request::answered(bad_number, words.noreply()),
    }
}

/// `delete <key> [0] [noreply]`: the zero is what old clients send. The one word after `delete` is the key, whatever it says.
fn delete<'a>(words: &CommandWords<'a>) -> Request<'a> {
    let noreply = words.count > 2 && words.noreply();
    let zero = words.word(2) == b"0";
    let valid = match words.count {
        2 => true,
        3 => zero || noreply,
        4 => zero && noreply,
        _ => return Request::answered(ERROR, false),
    };
    match words.key() {
        _ if !valid => Request::answered(BAD_DELETE, noreply),
        Ok(key) => Request::text(key, Command::Delete(Delete::default()), noreply),
        Err(error) => Request::answered(error, noreply),
    }
}

/// `<command> <key> <flags> <exptime> <bytes> [<cas>] [noreply]` and its data block (`process_update_command`).
fn store<'a>(line: &'a [u8], buffer: &'a [u8], used: usize, value_bytes_max: usize) -> RequestStep<'a> {
    let words = CommandWords::of(line);
    let is_cas = words.word(0) == b"cas";
    let words_min = if is_cas { 6 } else { 5 };
    if words.count < words_min || words.count > words_min + 1 {
        return whole(Request::answered(ERROR, false), used);
    }
    let noreply = words.noreply();
    let Some(length) = block_length(words.word(4)) else {
        return whole(Request::answered(BAD_FORMAT, noreply), used);
    };
    let header = (unsigned_32(words.word(2)), exptime(words.word(3)), store_mode(&words), words.key());
    let (Some(flags), Some(exptime), Some(mode), Ok(key)) = header else {
        let request = Request::answered(BAD_FORMAT, noreply);
        return RequestStep::Request { request, used, discard: length as u64 + 2 };
    };
    let cas = if let StoreMode::Cas(cas) = mode { Some(cas) } else { None };
    with_block(length, buffer, used, value_bytes_max, noreply, |value| {
        let drops_old = mode == StoreMode::Set;
        let store = StoreCommand { mode, flags, exptime, value, cas, takes_stale: false, drops_old };
        Request::text(key, Command::Store(store), noreply)
    })
}

/// The length of a data block, without its end.
pub(super) fn block_length(word: &[u8]) -> Option<usize> {
    let length = signed(word).filter(|length| (0..=VALUE_LENGTH_MAX).contains(length))?;
    usize::try_from(length).ok()
}

/// A store whose header is good: `request` with the data block of this length that comes after it.
#[inline(always)]
pub(super) fn with_block<'a>(
    length: usize,
    buffer: &'a [u8],
    used: usize,
    value_bytes_max: usize,
    noreply: bool,
    request: impl FnOnce(Option<&'a [u8]>) -> Request<'a>,
) -> RequestStep<'a> {
    if length > value_bytes_max {
        return RequestStep::Request { request: request(None), used, discard: length as u64 + 2 };
    }
    let total = used + length + 2;
    let Some(data) = buffer.get(used..total) else {
        return RequestStep::More { total };
    };
    match data.strip_suffix(b"\r\n") {
        None => whole(Request::answered(BAD_CHUNK, noreply), total),
        value => whole(request(value), total),
    }
}

fn store_mode(words: &CommandWords<'_>) -> Option<StoreMode> {
    match words.word(0) {
        b"set" => Some(StoreMode::Set),
        b"add" => Some(StoreMode::Add),
        b"replace" => Some(StoreMode::Replace),
        b"append" => Some(StoreMode::Append),
        b"prepend" => Some(StoreMode::Prepend),
        b"cas" => unsigned(words.word(5)).map(StoreMode::Cas),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::protocol::{Reply, Wire};

    fn expected_get(keys: &[u8]) -> Request<'_> {
        Request::text(b"", Command::GetMany { keys, with_cas: false, touch: None }, false)
    }

    fn request(line: &[u8]) -> Request<'_> {
        match step(line, 1024) {
            RequestStep::Request { request, .. } => request,
            step => panic!("{step:?}"),
        }
    }

    fn error(line: &[u8]) -> &'static str {
        match request(line).command {
            Command::Reply(Reply::Line(error)) => error,
            request => panic!("{request:?}"),
        }
    }

    #[test]
    fn a_line_may_end_in_a_bare_newline_and_begin_with_blanks() {
        let expected = expected_get(b" a");
        assert_eq!(request(b"get a\r\n"), expected);
        assert_eq!(request(b"get a\n"), expected);
        assert_eq!(step(b"  get a\r\n", 0), RequestStep::Request { request: expected, used: 9, discard: 0 });
    }

    #[test]
    fn too_few_words_are_an_error() {
        for line in
            [&b"get\r\n"[..], b"\r\n", b"set a 0 0\r\n", b"incr a\r\n", b"touch a\r\n", b"delete\r\n", b"gat\r\n"]
        {
            assert_eq!(error(line), ERROR, "{}", line.escape_ascii());
        }
        assert_eq!(error(b"gat 0\r\n"), "END");
    }

    #[test]
    fn a_store_waits_for_its_whole_data_block() {
        let whole = b"set k 1 2 3\r\nabc\r\n";
        for end in 13..whole.len() {
            assert_eq!(step(&whole[..end], 1024), RequestStep::More { total: whole.len() });
        }
        let store = StoreCommand {
            mode: StoreMode::Set,
            flags: 1,
            exptime: 2,
            value: Some(b"abc"),
            cas: None,
            takes_stale: false,
            drops_old: true,
        };
        assert_eq!(request(whole), Request::text(b"k", Command::Store(store), false));
    }

    #[test]
    fn a_bad_header_with_a_good_length_swallows_its_block() {
        for line in [&b"set k x 0 3\r\n"[..], b"set k 4294967296 0 3\r\n", b"set k 0 x 3\r\n", b"cas k 0 0 3 x\r\n"] {
            let RequestStep::Request { discard, .. } = step(line, 1024) else { panic!("{}", line.escape_ascii()) };
            assert_eq!((error(line), discard), (BAD_FORMAT, 5), "{}", line.escape_ascii());
        }
        for line in [&b"set k 0 0 -1\r\n"[..], b"set k 0 0 x\r\n", b"set k 0 0 2147483646\r\n"] {
            assert!(matches!(step(line, 1024), RequestStep::Request { discard: 0, .. }), "{}", line.escape_ascii());
        }
    }

    #[test]
    fn a_block_over_the_limit_is_never_buffered() {
        let step = step(b"set k 0 0 2147483645 noreply\r\n", 1024);
        let RequestStep::Request { request, discard: 2147483647, .. } = step else { panic!("{step:?}") };
        assert!(matches!(request.command, Command::Store(StoreCommand { value: None, .. })));
        assert_eq!(request.wire, Wire::Text { noreply: true });
    }

    #[test]
    fn a_block_without_its_end_is_a_bad_chunk_and_the_rest_are_commands() {
        let step = step(b"set a 0 0 3\r\nabcdef\r\n", 1024);
        let request = Request::answered(BAD_CHUNK, false);
        assert_eq!(step, RequestStep::Request { request, used: 18, discard: 0 });
    }

    #[test]
    fn foreign_protocols_are_hung_up_on() {
        assert_eq!(step(b"\x80", 0), RequestStep::Close(CloseReason::Binary));
        assert_eq!(step(b"\x80\x00\n", 0), RequestStep::Close(CloseReason::Binary));
        assert_eq!(step(b"\x16\x03\x01", 0), RequestStep::Close(CloseReason::Tls));
        assert_eq!(step(b"\x16\x03\x01\x02\x00\x01\n", 0), RequestStep::Close(CloseReason::Tls));
        assert_eq!(step(b"\x16", 0), RequestStep::More { total: 2 });
        assert_eq!(step(b"POST / HTTP/1.1\r\n", 0), RequestStep::Close(CloseReason::Http));
        assert_eq!(step(b"Host: x\r\n", 0), RequestStep::Close(CloseReason::Http));
    }

    #[test]
    fn a_tls_hello_is_one_whatever_bytes_it_has_and_however_it_is_split() {
        let hello = b"\x16\x03\x01\x00\x80\x01\n\nabc";
        assert_eq!(step(hello, 0), RequestStep::Close(CloseReason::Tls));
        assert_eq!(step(&hello[..2], 0), RequestStep::Close(CloseReason::Tls));
        assert_eq!(step(&hello[..1], 0), RequestStep::More { total: 2 });
        assert_eq!(error(b"\x16\x05\n"), ERROR);
    }

    #[test]
    fn a_line_without_end_is_given_up_unless_it_is_a_get() {
        assert_eq!(step(&[b'a'; 2048], 0), RequestStep::More { total: 2049 });
        assert_eq!(step(&[b'a'; 2049], 0), RequestStep::Close(CloseReason::LineTooLong));
        let long_get = [b"get ".as_slice(), &[b'a'; 4000]].concat();
        assert_eq!(step(&long_get, 0), RequestStep::More { total: 4005 });
        let endless_get = [b"get ".as_slice(), &vec![b'a'; GET_LINE_BYTES_MAX]].concat();
        assert_eq!(step(&endless_get, 0), RequestStep::Close(CloseReason::LineTooLong));
    }

    #[test]
    fn a_line_that_grows_is_searched_only_where_it_has_grown() {
        let line = b"get a\nget b\n";
        let b = expected_get(b" a\nget b");
        assert_eq!(step_from(line, 6, 0), RequestStep::Request { request: b, used: line.len(), discard: 0 });
        assert_eq!(step_from(&line[..11], 11, 0), RequestStep::More { total: 12 });
        assert_eq!(step_from(&line[..11], 99, 0), RequestStep::More { total: 12 });
    }

    #[test]
    fn a_key_that_is_too_long_is_found_wherever_it_stands() {
        for (before, length, after) in
            [(0, 250, 0), (0, 251, 0), (0, 251, 900), (249, 251, 1), (251, 250, 3), (7000, 251, 0), (7000, 250, 7000)]
        {
            let fill = |bytes: usize| b"k ".repeat(bytes.div_ceil(2));
            let list = [fill(before).as_slice(), &vec![b'x'; length], b" ", &fill(after)].concat();
            assert_eq!(has_too_long_key(&list), length > 250, "{before} {length} {after}");
        }
    }

    #[test]
    fn a_line_of_many_keys_is_parsed_without_walking_them() {
        for command in ["get", "gets", "gat 100", "gats 100", "   get"] {
            let line = format!("{command}{}\r\n", " k".repeat(500_000));
            let before = crate::protocol::walked::words();
            let Command::GetMany { keys: list, .. } = request(line.as_bytes()).command else { panic!("{command}") };
            assert_eq!(list.len(), 1_000_000);
            assert!(crate::protocol::walked::words() - before <= 2, "{command}");
        }
    }

    #[test]
    fn old_clients_delete_with_a_zero() {
        let delete = |noreply| Request::text(b"k", Command::Delete(Delete::default()), noreply);
        assert_eq!(request(b"delete k 0\r\n"), delete(false));
        assert_eq!(request(b"delete k 0 noreply\r\n"), delete(true));
        assert_eq!(error(b"delete k 1\r\n"), BAD_DELETE);
    }
}
