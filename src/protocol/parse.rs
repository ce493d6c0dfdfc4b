//! Bytes to requests. Pure and restartable: the same bytes give the same requests, however they were split.
//!
//! Never allocates; a length is checked before anybody reserves memory for it.

use memchr::memrchr;

use super::number::{signed, unsigned, unsigned_32};
use super::scan::find;
use super::{CloseReason, KEY_LENGTH_MAX, Request, RequestStep, StoreMode, keys, maintenance, meta};

/// A command line without an end is given up at this length, unless it is a `get` (memcached.c, `try_read_command`).
const LINE_BYTES_MAX: usize = 2048;
/// A `get` of many keys may be this long. memcached sets no limit; a peer that sends more is not one.
const GET_LINE_BYTES_MAX: usize = 1024 * 1024;
/// Blanks in front of a `get` that long at most.
const BLANKS_MAX: usize = 100;
/// Longer data blocks are refused outright (`process_update_command`: `INT_MAX - 2`).
const VALUE_LENGTH_MAX: i64 = i32::MAX as i64 - 2;

const ERROR: &str = "ERROR";
const BAD_FORMAT: &str = "CLIENT_ERROR bad command line format";
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

    fn invalid(&self, error: &'static str) -> Request<'a> {
        Request::Invalid { error, noreply: self.noreply() }
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
        b"get" | b"bget" => whole(get(line, command_end, false), used),
        b"gets" => whole(get(line, command_end, true), used),
        b"gat" => whole(get_and_touch(line, command_end, false), used),
        b"gats" => whole(get_and_touch(line, command_end, true), used),
        b"set" | b"add" | b"replace" | b"append" | b"prepend" | b"cas" => store(line, buffer, used, value_bytes_max),
        &[b'm', verb] => meta::step(verb, &line[command_end..], buffer, used, value_bytes_max)
            .unwrap_or_else(|| other(line, buffer, used, value_bytes_max)),
        _ => other(line, buffer, used, value_bytes_max),
    }
}

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
fn foreign(buffer: &[u8]) -> Option<CloseReason> {
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
        b"flush_all" => flush_all(words),
        b"stats" => Request::Stats { argument: words.word(1), rest: words.word(2) },
        b"verbosity" => verbosity(words),
        b"cache_memlimit" => cache_memlimit(words),
        b"shutdown" if words.count <= 2 => Request::Shutdown { argument: words.word(1) },
        b"refresh_certs" => Request::RefreshCertificates,
        b"version" => Request::Version,
        b"mn" => Request::NoOperation,
        b"quit" => Request::Quit,
        _ => match maintenance::answer(&words.kept, words.count) {
            Some(answer) => Request::Maintenance { answer, noreply: words.noreply() },
            None => Request::Invalid { error: ERROR, noreply: false },
        },
    }
}

/// `get <key>*`: an over-long key spoils the whole command before anything is answered.
fn get(line: &[u8], command_end: usize, with_cas: bool) -> Request<'_> {
    let list = &line[command_end..];
    checked_keys(list, Request::Get { keys: list, with_cas, touch_exptime: None }, ERROR)
}

fn checked_keys<'a>(list: &'a [u8], request: Request<'a>, if_none: &'static str) -> Request<'a> {
    if list.iter().all(|&byte| byte == b' ') {
        Request::Invalid { error: if_none, noreply: false }
    } else if has_too_long_key(list) {
        Request::Invalid { error: BAD_FORMAT, noreply: false }
    } else {
        request
    }
}

/// Whether more than [`KEY_LENGTH_MAX`] bytes stand together. Looks for a blank from the end of each stretch of that
/// length, so a line of half a million keys takes some thousand steps and not one for each key.
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
fn get_and_touch(line: &[u8], command_end: usize, with_cas: bool) -> Request<'_> {
    let mut words = keys(&line[command_end..]);
    let Some(word) = words.next() else {
        return Request::Invalid { error: ERROR, noreply: false };
    };
    let Some(exptime) = signed(word) else {
        return Request::Invalid { error: BAD_EXPTIME, noreply: false };
    };
    let list = words.rest();
    checked_keys(list, Request::Get { keys: list, with_cas, touch_exptime: Some(exptime) }, "END")
}

fn arithmetic<'a>(words: &CommandWords<'a>, increase: bool) -> Request<'a> {
    if !(3..=4).contains(&words.count) {
        return Request::Invalid { error: ERROR, noreply: false };
    }
    let key = words.word(1);
    if key.len() > KEY_LENGTH_MAX {
        return words.invalid(BAD_FORMAT);
    }
    match unsigned(words.word(2)) {
        Some(delta) => Request::Arithmetic { key, delta, increase, noreply: words.noreply() },
        None => words.invalid(BAD_DELTA),
    }
}

/// `delete <key> [0] [noreply]`: the zero is what old clients send.
fn delete<'a>(words: &CommandWords<'a>) -> Request<'a> {
    if !(2..=4).contains(&words.count) {
        return Request::Invalid { error: ERROR, noreply: false };
    }
    let (key, noreply) = (words.word(1), words.count > 2 && words.noreply());
    let zero = words.word(2) == b"0";
    let valid = match words.count {
        2 => true,
        3 => zero || noreply,
        _ => zero && noreply,
    };
    if !valid {
        Request::Invalid { error: BAD_DELETE, noreply }
    } else if key.len() > KEY_LENGTH_MAX {
        Request::Invalid { error: BAD_FORMAT, noreply }
    } else {
        Request::Delete { key, noreply }
    }
}

fn touch<'a>(words: &CommandWords<'a>) -> Request<'a> {
    if !(3..=4).contains(&words.count) {
        return Request::Invalid { error: ERROR, noreply: false };
    }
    let key = words.word(1);
    if key.len() > KEY_LENGTH_MAX {
        return words.invalid(BAD_FORMAT);
    }
    match signed(words.word(2)) {
        Some(exptime) => Request::Touch { key, exptime, noreply: words.noreply() },
        None => words.invalid(BAD_EXPTIME),
    }
}

/// `flush_all [delay] [noreply]`.
fn flush_all<'a>(words: &CommandWords<'a>) -> Request<'a> {
    let noreply = words.noreply();
    match words.count {
        1 => Request::FlushAll { delay: 0, noreply },
        2 if noreply => Request::FlushAll { delay: 0, noreply },
        2 | 3 => match signed(words.word(1)) {
            Some(delay) => Request::FlushAll { delay, noreply },
            None => words.invalid(BAD_EXPTIME),
        },
        _ => Request::Invalid { error: ERROR, noreply: false },
    }
}

fn verbosity<'a>(words: &CommandWords<'a>) -> Request<'a> {
    let noreply = words.noreply();
    match words.count {
        2 if noreply => Request::Verbosity { level: 0, noreply },
        2 | 3 => match unsigned(words.word(1)) {
            Some(level) => Request::Verbosity { level: u32::try_from(level).unwrap_or(u32::MAX), noreply },
            None => words.invalid(BAD_FORMAT),
        },
        _ => Request::Invalid { error: ERROR, noreply: false },
    }
}

fn cache_memlimit<'a>(words: &CommandWords<'a>) -> Request<'a> {
    match (words.count, unsigned_32(words.word(1))) {
        (2 | 3, Some(megabytes)) => Request::CacheMemlimit { megabytes, noreply: words.noreply() },
        (2 | 3, None) => words.invalid(ERROR),
        _ => Request::Invalid { error: ERROR, noreply: false },
    }
}

/// `<command> <key> <flags> <exptime> <bytes> [<cas>] [noreply]` and its data block (`process_update_command`).
fn store<'a>(line: &'a [u8], buffer: &'a [u8], used: usize, value_bytes_max: usize) -> RequestStep<'a> {
    let words = CommandWords::of(line);
    let is_cas = words.word(0) == b"cas";
    let words_min = if is_cas { 6 } else { 5 };
    if words.count < words_min || words.count > words_min + 1 {
        return whole(Request::Invalid { error: ERROR, noreply: false }, used);
    }
    let (key, noreply) = (words.word(1), words.noreply());
    let length = signed(words.word(4)).filter(|length| (0..=VALUE_LENGTH_MAX).contains(length));
    let Some(length) = length.and_then(|length| usize::try_from(length).ok()) else {
        return whole(words.invalid(BAD_FORMAT), used);
    };
    let block = length as u64 + 2;
    let header = (unsigned_32(words.word(2)), signed(words.word(3)), store_mode(&words));
    let (Some(flags), Some(exptime), Some(mode)) = header else {
        return RequestStep::Request { request: words.invalid(BAD_FORMAT), used, discard: block };
    };
    if key.len() > KEY_LENGTH_MAX {
        return RequestStep::Request { request: words.invalid(BAD_FORMAT), used, discard: block };
    }
    if length > value_bytes_max {
        return RequestStep::Request { request: Request::TooLarge { mode, key, noreply }, used, discard: block };
    }
    let total = used + length + 2;
    let Some(data) = buffer.get(used..total) else {
        return RequestStep::More { total };
    };
    match data.strip_suffix(b"\r\n") {
        Some(value) => whole(Request::Store { mode, key, flags, exptime, value, noreply }, total),
        None => whole(words.invalid(BAD_CHUNK), total),
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

    fn request(line: &[u8]) -> Request<'_> {
        match step(line, 1024) {
            RequestStep::Request { request, .. } => request,
            step => panic!("{step:?}"),
        }
    }

    fn error(line: &[u8]) -> &'static str {
        match request(line) {
            Request::Invalid { error, .. } => error,
            request => panic!("{request:?}"),
        }
    }

    #[test]
    fn a_line_may_end_in_a_bare_newline_and_begin_with_blanks() {
        let expected = Request::Get { keys: b" a", with_cas: false, touch_exptime: None };
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
        let store =
            Request::Store { mode: StoreMode::Set, key: b"k", flags: 1, exptime: 2, value: b"abc", noreply: false };
        assert_eq!(request(whole), store);
    }

    #[test]
    fn a_bad_header_with_a_good_length_swallows_its_block() {
        for line in [&b"set k x 0 3\r\n"[..], b"set k 4294967296 0 3\r\n", b"set k 0 x 3\r\n", b"cas k 0 0 3 x\r\n"] {
            assert!(
                matches!(step(line, 1024), RequestStep::Request { discard: 5, request: Request::Invalid { .. }, .. }),
                "{}",
                line.escape_ascii()
            );
        }
        for line in [&b"set k 0 0 -1\r\n"[..], b"set k 0 0 x\r\n", b"set k 0 0 2147483646\r\n"] {
            assert!(matches!(step(line, 1024), RequestStep::Request { discard: 0, .. }), "{}", line.escape_ascii());
        }
    }

    #[test]
    fn a_block_over_the_limit_is_never_buffered() {
        let step = step(b"set k 0 0 2147483645 noreply\r\n", 1024);
        assert!(matches!(
            step,
            RequestStep::Request { discard: 2147483647, request: Request::TooLarge { noreply: true, .. }, .. }
        ));
    }

    #[test]
    fn a_block_without_its_end_is_a_bad_chunk_and_the_rest_are_commands() {
        let step = step(b"set a 0 0 3\r\nabcdef\r\n", 1024);
        let request = Request::Invalid { error: BAD_CHUNK, noreply: false };
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
        let b = Request::Get { keys: b" a\nget b", with_cas: false, touch_exptime: None };
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
            let Request::Get { keys: list, .. } = request(line.as_bytes()) else { panic!("{command}") };
            assert_eq!(list.len(), 1_000_000);
            assert!(crate::protocol::walked::words() - before <= 2, "{command}");
        }
    }

    #[test]
    fn old_clients_delete_with_a_zero() {
        assert_eq!(request(b"delete k 0\r\n"), Request::Delete { key: b"k", noreply: false });
        assert_eq!(request(b"delete k 0 noreply\r\n"), Request::Delete { key: b"k", noreply: true });
        assert_eq!(error(b"delete k 1\r\n"), BAD_DELETE);
    }
}
