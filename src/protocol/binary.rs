//! memcached's binary protocol: bytes to requests, answers to bytes.
//!
//! Pure and restartable like [`super::parse`], total over any bytes. Never allocates; every length is judged before
//! anybody waits for what it announces. What memcached 1.6.18 does (proto_bin.c) is the contract.

use std::ops::RangeInclusive;

use super::{
    Arithmetic, CloseReason, Command, Delete, KEY_LENGTH_MAX, Reply, Request, RequestStep, Status, StoreCommand,
    StoreMode, Wire,
};

/// The first byte of every request.
pub const MAGIC: u8 = 0x80;
/// The only mechanism by which a client can log in.
pub const PLAIN: &str = "PLAIN";

const ANSWER_MAGIC: u8 = 0x81;
/// Length of the fixed part of a packet, bytes.
pub const HEADER_BYTES: usize = 24;
/// Longest name of a mechanism (`MAX_SASL_MECH_LEN`), and the most that may come with it.
const MECHANISM_LENGTH_MAX: usize = 32;
const LOGIN_BYTES_MAX: usize = 16 * 1024;
/// An `exptime` of a counter that must exist already.
const NEVER_CREATE: u32 = u32::MAX;

/// What an answer needs of its request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Packet {
    pub opcode: u8,
    /// Success, and a get's miss, are not answered.
    pub quiet: bool,
    pub opaque: [u8; 4],
}

/// The numbers of a header.
struct Header {
    opcode: u8,
    key: usize,
    extras: usize,
    body: usize,
    opaque: [u8; 4],
    cas: u64,
}

impl Header {
    fn of(bytes: &[u8; HEADER_BYTES]) -> Header {
        let [_, opcode, k0, k1, extras, _, _, _, b0, b1, b2, b3, o0, o1, o2, o3, cas @ ..] = *bytes;
        Header {
            opcode,
            key: usize::from(u16::from_be_bytes([k0, k1])),
            extras: usize::from(extras),
            body: u32::from_be_bytes([b0, b1, b2, b3]) as usize,
            opaque: [o0, o1, o2, o3],
            cas: u64::from_be_bytes(cas),
        }
    }

    /// Bytes of the body that are neither extras nor key.
    fn value(&self) -> usize {
        self.body.saturating_sub(self.extras + self.key)
    }

    /// What is wrong with it, whatever follows; in memcached's order. A client without a login may only log in.
    fn fault(&self, unauthenticated: bool, form: Option<&PacketFormat>) -> Option<&'static Status> {
        if self.key + self.extras > self.body {
            return Some(&Status::UNKNOWN);
        }
        if unauthenticated && !matches!(self.opcode, 0x0b | 0x20..=0x22) {
            return Some(&Status::AUTH_ERROR);
        }
        if self.key > KEY_LENGTH_MAX {
            return Some(&Status::INVALID);
        }
        let PacketFormat { verb, extras, key, value_max, .. } = form?;
        let extras = self.extras == *extras || matches!(verb, Verb::Flush) && self.extras == 0;
        (!(extras && key.contains(&self.key) && self.value() <= *value_max)).then_some(&Status::INVALID)
    }

    fn request<'a>(&self, key: &'a [u8], quiet: bool, command: Command<'a>) -> Request<'a> {
        let packet = Packet { opcode: self.opcode, quiet, opaque: self.opaque };
        Request { key, command, wire: Wire::Binary(packet) }
    }
}

#[derive(Clone, Copy)]
enum Verb {
    Get,
    GetAndTouch,
    Touch,
    Store(StoreMode),
    Arithmetic {
        increase: bool,
    },
    Delete,
    Flush,
    Stats,
    /// Answered with no more than this.
    Reply(&'static Status),
    Quit,
    Mechanisms,
    Login {
        first: bool,
    },
}

/// How a packet of an opcode must look: the lengths of its parts.
struct PacketFormat {
    verb: Verb,
    quiet: bool,
    extras: usize,
    key: RangeInclusive<usize>,
    value_max: usize,
}

/// By opcode; `None` for one that memcached does not know either.
static FORMATS: [Option<PacketFormat>; 0x25] = {
    let mut formats = [const { None }; 0x25];
    let mut opcode = 0;
    while opcode < formats.len() {
        formats[opcode] = packet_format(opcode);
        opcode += 1;
    }
    formats
};

const fn packet_format(opcode: usize) -> Option<PacketFormat> {
    let verb = match opcode {
        0x00 | 0x09 | 0x0c | 0x0d => Verb::Get,
        0x1d | 0x1e | 0x23 | 0x24 => Verb::GetAndTouch,
        0x01 | 0x11 => Verb::Store(StoreMode::Set),
        0x02 | 0x12 => Verb::Store(StoreMode::Add),
        0x03 | 0x13 => Verb::Store(StoreMode::Replace),
        0x0e | 0x19 => Verb::Store(StoreMode::Append),
        0x0f | 0x1a => Verb::Store(StoreMode::Prepend),
        0x04 | 0x14 => Verb::Delete,
        0x05 | 0x15 => Verb::Arithmetic { increase: true },
        0x06 | 0x16 => Verb::Arithmetic { increase: false },
        0x07 | 0x17 => Verb::Quit,
        0x08 | 0x18 => Verb::Flush,
        0x0a => Verb::Reply(&Status::NO_OPERATION),
        0x0b => Verb::Reply(&Status::VERSION),
        0x10 => Verb::Stats,
        0x1c => Verb::Touch,
        0x20 => Verb::Mechanisms,
        0x21 | 0x22 => Verb::Login { first: opcode == 0x21 },
        _ => return None,
    };
    let (no_key, any_key) = (0..=0, 1..=KEY_LENGTH_MAX);
    let (extras, key, value_max) = match verb {
        Verb::Get | Verb::Delete => (0, any_key, 0),
        Verb::GetAndTouch | Verb::Touch => (4, any_key, 0),
        Verb::Store(StoreMode::Append | StoreMode::Prepend) => (0, any_key, usize::MAX),
        Verb::Store(_) => (8, any_key, usize::MAX),
        Verb::Arithmetic { .. } => (20, any_key, 0),
        Verb::Flush => (4, no_key, 0),
        Verb::Stats => (0, 0..=KEY_LENGTH_MAX, 0),
        Verb::Reply(_) | Verb::Quit | Verb::Mechanisms => (0, no_key, 0),
        Verb::Login { .. } => (0, 1..=MECHANISM_LENGTH_MAX, LOGIN_BYTES_MAX),
    };
    let quiet = matches!(opcode, 0x09 | 0x0d | 0x11..=0x1a | 0x1e | 0x24);
    Some(PacketFormat { verb, quiet, extras, key, value_max })
}

/// The packet at the front of `buffer`. `value_bytes_max` is the largest value worth buffering; an `unauthenticated` client
/// may send no more than a login needs.
pub fn step(buffer: &[u8], value_bytes_max: usize, unauthenticated: bool) -> RequestStep<'_> {
    if buffer.first().is_some_and(|&magic| magic != MAGIC) {
        return RequestStep::Close(CloseReason::NotBinary);
    }
    let Some(bytes) = buffer.first_chunk::<HEADER_BYTES>() else {
        return RequestStep::More { total: HEADER_BYTES };
    };
    let header = Header::of(bytes);
    let form = FORMATS.get(usize::from(header.opcode)).and_then(Option::as_ref);
    if let Some(fault) = header.fault(unauthenticated, form) {
        // Nothing after it can be trusted.
        let request = header.request(b"", false, Command::Close(Some(fault)));
        return RequestStep::Request { request, used: HEADER_BYTES, discard: 0 };
    }
    let Some(form) = form else {
        let request = header.request(b"", false, Command::Reply((&Status::UNKNOWN).into()));
        return RequestStep::Request { request, used: HEADER_BYTES, discard: header.body as u64 };
    };
    let kept = header.value() <= value_bytes_max;
    let wanted = if kept { header.body } else { header.body - header.value() };
    let total = HEADER_BYTES + wanted;
    let Some(body) = buffer.get(HEADER_BYTES..total) else {
        return RequestStep::More { total };
    };
    let (extras, rest) = body.split_at(header.extras.min(body.len()));
    let (key, value) = rest.split_at(header.key.min(rest.len()));
    let command = command(&header, form, extras, key, kept.then_some(value));
    let discard = if kept { 0 } else { header.value() as u64 };
    RequestStep::Request { request: header.request(key, form.quiet, command), used: total, discard }
}

/// No exptime of a packet is negative, so `0xffffffff` is far away.
fn command<'a>(
    header: &Header,
    form: &PacketFormat,
    extras: &[u8],
    key: &'a [u8],
    value: Option<&'a [u8]>,
) -> Command<'a> {
    let cas = (header.cas != 0).then_some(header.cas);
    match form.verb {
        Verb::Get => Command::Get { touch: None },
        Verb::GetAndTouch => Command::Get { touch: Some(word(extras, 0).into()) },
        Verb::Touch => Command::Touch { exptime: word(extras, 0).into() },
        Verb::Store(verb) => Command::Store(StoreCommand {
            mode: match (verb, cas) {
                (StoreMode::Append | StoreMode::Prepend, _) | (_, None) => verb,
                (_, Some(cas)) => StoreMode::Cas(cas),
            },
            flags: word(extras, 0),
            exptime: word(extras, 4).into(),
            value,
            cas,
            takes_stale: false,
            drops_old: verb == StoreMode::Set,
        }),
        Verb::Arithmetic { increase } => {
            let (delta, initial, exptime) = (long(extras, 0), long(extras, 8), word(extras, 16));
            let create = (exptime != NEVER_CREATE).then_some((initial, exptime.into()));
            Command::Arithmetic(Arithmetic { increase, delta, create, cas })
        }
        Verb::Delete => Command::Delete(Delete { cas, ..Delete::default() }),
        Verb::Flush => Command::Flush { delay: Some(word(extras, 0).into()).filter(|&delay| delay > 0) },
        Verb::Stats => stats(key),
        Verb::Reply(status) => Command::Reply(status.into()),
        Verb::Quit => Command::Close(Some(&Status::OK)),
        Verb::Mechanisms => Command::Mechanisms,
        Verb::Login { first } => Command::Login { first, mechanism: key, message: value.unwrap_or_default() },
    }
}

fn stats(argument: &[u8]) -> Command<'_> {
    let (word, rest) = match memchr::memchr(b' ', argument) {
        Some(blank) if blank > 0 => (&argument[..blank], &argument[blank + 1..]),
        _ => (argument, &b""[..]),
    };
    // memcached looks at the beginning of these words only.
    let argument = [&b"reset"[..], b"settings"].into_iter().find(|known| word.starts_with(known)).unwrap_or(word);
    Command::Stats { argument, rest }
}

/// A number of the extras; 0 where there are none.
fn word(extras: &[u8], at: usize) -> u32 {
    extras.get(at..).and_then(|rest| rest.first_chunk()).map_or(0, |bytes| u32::from_be_bytes(*bytes))
}

fn long(extras: &[u8], at: usize) -> u64 {
    extras.get(at..).and_then(|rest| rest.first_chunk()).map_or(0, |bytes| u64::from_be_bytes(*bytes))
}

/// Name and password of a `PLAIN` message: `[authorize] NUL name NUL password`. To act for another user is not possible.
pub fn plain(message: &[u8]) -> Option<(&[u8], &[u8])> {
    let mut parts = message.split(|&byte| byte == 0);
    let (authorize, user, password) = (parts.next()?, parts.next()?, parts.next()?);
    let valid = parts.next().is_none() && !user.is_empty() && (authorize.is_empty() || authorize == user);
    valid.then_some((user, password))
}

/// What an answer consists of.
#[derive(Default)]
struct Body<'a> {
    flags: Option<u32>,
    key: &'a [u8],
    /// Bytes; they must follow.
    value: usize,
    cas: u64,
}

impl Packet {
    /// The key is to be shown with what is under it.
    fn shows_key(&self) -> bool {
        matches!(self.opcode, 0x0c | 0x0d | 0x23 | 0x24)
    }

    pub(super) fn write(&self, out: &mut Vec<u8>, key: &[u8], reply: Reply) {
        match reply {
            Reply::Status { status: &Status::MISS, .. } if self.shows_key() => {
                self.head(out, Status::MISS.code, Body { key, ..Body::default() });
            }
            Reply::Status { status, cas, .. } => {
                let cas = cas.unwrap_or(0);
                self.head(out, status.code, Body { value: status.body.len(), cas, ..Body::default() });
                out.extend_from_slice(status.body.as_bytes());
            }
            Reply::Number { value, cas } => {
                self.head(out, 0, Body { value: size_of_val(&value), cas, ..Body::default() });
                out.extend_from_slice(&value.to_be_bytes());
            }
            Reply::Touched { flags, cas } => self.head(out, 0, Body { flags: Some(flags), cas, ..Body::default() }),
            // What packets ask for has no answer of the text protocol's own.
            Reply::Line(_) | Reply::Written => {}
        }
    }

    /// Appends the head of an item, up to its value of `length` bytes, which must follow.
    #[inline(always)]
    pub fn item(&self, out: &mut Vec<u8>, key: &[u8], flags: u32, length: usize, cas: u64) {
        let key = if self.shows_key() { key } else { b"" };
        self.head(out, 0, Body { flags: Some(flags), key, value: length, cas });
    }

    /// Appends one figure of `stat`; an empty one ends them.
    pub fn stat(&self, out: &mut Vec<u8>, name: &[u8], value: &[u8]) {
        self.head(out, 0, Body { key: name, value: value.len(), ..Body::default() });
        out.extend_from_slice(value);
    }

    /// Appends an answer up to its value.
    #[inline(always)]
    fn head(&self, out: &mut Vec<u8>, code: u16, body: Body<'_>) {
        let extras: u8 = if body.flags.is_some() { 4 } else { 0 };
        let length = usize::from(extras) + body.key.len() + body.value;
        out.reserve(HEADER_BYTES + length);
        let mut head = [0; HEADER_BYTES];
        head[..2].copy_from_slice(&[ANSWER_MAGIC, self.opcode]);
        // Keys are at most 250 bytes, values at most a gibibyte.
        head[2..4].copy_from_slice(&(body.key.len() as u16).to_be_bytes());
        head[4] = extras;
        head[6..8].copy_from_slice(&code.to_be_bytes());
        head[8..12].copy_from_slice(&(length as u32).to_be_bytes());
        head[12..16].copy_from_slice(&self.opaque);
        head[16..].copy_from_slice(&body.cas.to_be_bytes());
        out.extend_from_slice(&head);
        if let Some(flags) = body.flags {
            out.extend_from_slice(&flags.to_be_bytes());
        }
        out.extend_from_slice(body.key);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn packet(opcode: u8, extras: &[u8], key: &[u8], value: &[u8]) -> Vec<u8> {
        let mut bytes = vec![MAGIC, opcode];
        bytes.extend((key.len() as u16).to_be_bytes());
        bytes.extend([extras.len() as u8, 0, 0, 0]);
        bytes.extend(((extras.len() + key.len() + value.len()) as u32).to_be_bytes());
        bytes.extend([1, 2, 3, 4]);
        bytes.extend(7_u64.to_be_bytes());
        [&bytes, extras, key, value].concat()
    }

    fn command_of(bytes: &[u8]) -> Command<'_> {
        match step(bytes, 1024, false) {
            RequestStep::Request { request, .. } => request.command,
            step => panic!("{step:?}"),
        }
    }

    #[test]
    fn a_packet_waits_for_its_whole_body_and_no_longer() {
        let whole = packet(0x11, &[0, 0, 0, 5, 0, 0, 0, 9], b"key", b"value");
        for end in 0..whole.len() {
            let total = if end < HEADER_BYTES { HEADER_BYTES } else { whole.len() };
            assert_eq!(step(&whole[..end], 1024, false), RequestStep::More { total });
        }
        let store = StoreCommand {
            mode: StoreMode::Cas(7),
            flags: 5,
            exptime: 9,
            value: Some(b"value"),
            cas: Some(7),
            takes_stale: false,
            drops_old: true,
        };
        let wire = Wire::Binary(Packet { opcode: 0x11, quiet: true, opaque: [1, 2, 3, 4] });
        let request = Request { key: b"key", command: Command::Store(store), wire };
        let more = [&whole[..], b"\x80"].concat();
        assert_eq!(step(&more, 1024, false), RequestStep::Request { request, used: whole.len(), discard: 0 });
    }

    #[test]
    fn a_value_over_the_limit_is_never_buffered() {
        let mut whole = packet(0x01, &[0; 8], b"key", b"");
        whole[8..12].copy_from_slice(&u32::MAX.to_be_bytes());
        let RequestStep::Request { request, used, discard } = step(&whole, 1024, false) else { panic!() };
        assert_eq!(request.key, b"key");
        assert!(matches!(request.command, Command::Store(StoreCommand { value: None, .. })));
        assert_eq!((used, discard), (35, u64::from(u32::MAX) - 11));
        assert!(matches!(step(&whole[..30], 1024, false), RequestStep::More { total: 35 }));
    }

    #[test]
    fn what_cannot_be_is_broken_before_its_body_has_come() {
        let broken = |bytes: &[u8], status: &'static Status| {
            assert_eq!(command_of(&bytes[..HEADER_BYTES]), Command::Close(Some(status)), "{}", bytes.escape_ascii());
        };
        broken(&packet(0x00, b"", b"", b""), &Status::INVALID);
        broken(&packet(0x00, b"", &[b'k'; 251], b""), &Status::INVALID);
        broken(&packet(0x00, b"e", b"k", b""), &Status::INVALID);
        broken(&packet(0x00, b"", b"k", b"v"), &Status::INVALID);
        broken(&packet(0x01, b"short", b"k", b"v"), &Status::INVALID);
        broken(&packet(0x05, &[0; 16], b"k", b""), &Status::INVALID);
        broken(&packet(0x08, b"", b"k", b""), &Status::INVALID);
        broken(&packet(0x0a, b"", b"", b"v"), &Status::INVALID);
        broken(&packet(0x1c, &[0; 4], b"k", b"v"), &Status::INVALID);
        broken(&packet(0x21, b"", &[b'P'; 33], b""), &Status::INVALID);
        broken(&packet(0x21, b"", b"PLAIN", &[0; LOGIN_BYTES_MAX + 1]), &Status::INVALID);
        let mut short = packet(0x00, b"", b"key", b"");
        short[11] = 2;
        broken(&short, &Status::UNKNOWN);
    }

    #[test]
    fn an_unknown_packet_loses_its_whole_body() {
        let bytes = packet(0x1b, &[0; 4], b"key", b"value");
        let RequestStep::Request { request, used, discard } = step(&bytes, 1, false) else { panic!() };
        assert_eq!((request.command, used, discard), (Command::Reply((&Status::UNKNOWN).into()), 24, 12));
    }

    #[test]
    fn before_the_login_a_client_may_log_in_and_nothing_else() {
        for opcode in 0..=255 {
            let mut bytes = packet(opcode, b"", b"", b"");
            bytes[11] = 0;
            let refused = matches!(
                step(&bytes, 1024, true),
                RequestStep::Request {
                    request: Request { command: Command::Close(Some(&Status::AUTH_ERROR)), .. },
                    ..
                }
            );
            assert_eq!(refused, !matches!(opcode, 0x0b | 0x20 | 0x21 | 0x22), "{opcode:#x}");
        }
    }

    #[test]
    fn other_bytes_are_foreign() {
        assert_eq!(step(b"get a\r\n", 0, false), RequestStep::Close(CloseReason::NotBinary));
        assert_eq!(step(b"\x81", 0, false), RequestStep::Close(CloseReason::NotBinary));
        assert_eq!(step(b"", 0, false), RequestStep::More { total: HEADER_BYTES });
    }

    #[test]
    fn any_bytes_give_a_step() {
        let mut rng = fastrand::Rng::with_seed(7);
        for _ in 0..200_000 {
            let mut bytes: Vec<u8> = (0..rng.usize(..64)).map(|_| rng.u8(..) & rng.u8(..) & rng.u8(..)).collect();
            if let Some(magic) = bytes.first_mut() {
                *magic = MAGIC;
            }
            match step(&bytes, rng.usize(..40), rng.bool()) {
                RequestStep::More { total } => assert!(total > bytes.len()),
                RequestStep::Request { used, .. } => assert!((HEADER_BYTES..=bytes.len()).contains(&used)),
                RequestStep::Close(_) => panic!(),
            }
        }
    }

    #[test]
    fn plain_is_a_name_and_a_password() {
        assert_eq!(plain(b"\0alice\0secret"), Some((&b"alice"[..], &b"secret"[..])));
        assert_eq!(plain(b"alice\0alice\0se cret"), Some((&b"alice"[..], &b"se cret"[..])));
        for wrong in [&b""[..], b"alice", b"\0alice", b"\0\0secret", b"root\0alice\0secret", b"\0alice\0sec\0ret"] {
            assert_eq!(plain(wrong), None, "{}", wrong.escape_ascii());
        }
    }
}
