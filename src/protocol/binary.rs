//! memcached's binary protocol: bytes to packets, answers to bytes.
//!
//! Pure and restartable like [`super::parse`], total over any bytes. Never allocates; every length is judged before
//! anybody waits for what it announces. What memcached 1.6.18 does (proto_bin.c) is the contract.

use super::{KEY_LENGTH_MAX, StoreMode};

/// The first byte of every request.
pub const MAGIC: u8 = 0x80;
/// The only mechanism by which a client can log in.
pub const PLAIN: &[u8] = b"PLAIN";

const ANSWER_MAGIC: u8 = 0x81;
/// Length of the fixed part of a packet, bytes.
pub const HEADER_BYTES: usize = 24;
/// Longest name of a mechanism (`MAX_SASL_MECH_LEN`), and the most that may come with it.
const MECHANISM_LENGTH_MAX: usize = 32;
const LOGIN_BYTES_MAX: usize = 16 * 1024;
/// An `exptime` of a counter that must exist already.
const NEVER_CREATE: u32 = u32::MAX;

/// What an answer says of its request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ResponseStatus {
    Success,
    NotFound,
    Exists,
    TooLarge,
    Invalid,
    NotStored,
    NonNumeric,
    AuthError,
    AuthContinue,
    Unknown,
    OutOfMemory,
}

impl ResponseStatus {
    fn code(self) -> u16 {
        match self {
            ResponseStatus::Success => 0x00,
            ResponseStatus::NotFound => 0x01,
            ResponseStatus::Exists => 0x02,
            ResponseStatus::TooLarge => 0x03,
            ResponseStatus::Invalid => 0x04,
            ResponseStatus::NotStored => 0x05,
            ResponseStatus::NonNumeric => 0x06,
            ResponseStatus::AuthError => 0x20,
            ResponseStatus::AuthContinue => 0x21,
            ResponseStatus::Unknown => 0x81,
            ResponseStatus::OutOfMemory => 0x82,
        }
    }

    /// memcached's words for it.
    fn text(self) -> &'static str {
        match self {
            ResponseStatus::Success | ResponseStatus::AuthContinue => "",
            ResponseStatus::NotFound => "Not found",
            ResponseStatus::Exists => "Data exists for key.",
            ResponseStatus::TooLarge => "Too large.",
            ResponseStatus::Invalid => "Invalid arguments",
            ResponseStatus::NotStored => "Not stored.",
            ResponseStatus::NonNumeric => "Non-numeric server-side value for incr or decr",
            ResponseStatus::AuthError => "Auth failure.",
            ResponseStatus::Unknown => "Unknown command",
            ResponseStatus::OutOfMemory => "Out of memory",
        }
    }
}

/// One request, borrowing from the buffer it was read into. Keys are of a legal length.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Packet<'a> {
    pub opcode: u8,
    /// Success, and a get's miss, are not answered.
    pub quiet: bool,
    pub opaque: [u8; 4],
    /// 0 for any.
    pub cas: u64,
    pub command: PacketCommand<'a>,
}

/// What a packet asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PacketCommand<'a> {
    /// `exptime` is for the forms that touch.
    Get {
        key: &'a [u8],
        with_key: bool,
        exptime: Option<u32>,
    },
    Touch {
        key: &'a [u8],
        exptime: u32,
    },
    /// `value` is none if it is larger than any item may be; it is being discarded. Never [`StoreMode::Cas`].
    Store {
        mode: StoreMode,
        key: &'a [u8],
        flags: u32,
        exptime: u32,
        value: Option<&'a [u8]>,
    },
    /// `create` is the number and the exptime of a counter that is not there yet, if it is to be made.
    Arithmetic {
        key: &'a [u8],
        increase: bool,
        delta: u64,
        create: Option<(u64, u32)>,
    },
    Delete {
        key: &'a [u8],
    },
    Flush {
        delay: u32,
    },
    /// Empty for the general ones.
    Stats {
        argument: &'a [u8],
    },
    NoOperation,
    Version,
    Quit,
    /// SASL: which mechanisms there are.
    Mechanisms,
    /// SASL: `first` begins, otherwise it goes on.
    Login {
        first: bool,
        mechanism: &'a [u8],
        message: &'a [u8],
    },
    Unknown,
    /// Answered so, and nothing after it can be trusted: the connection is closed.
    Broken(ResponseStatus),
}

/// What was found at the front of a buffer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PacketStep<'a> {
    /// Not whole yet; with fewer than `total` bytes in the buffer it cannot be.
    More { total: usize },
    /// A packet of `used` bytes, after which `discard` bytes are to be thrown away before the answer goes out.
    Packet { packet: Packet<'a>, used: usize, discard: u64 },
    /// No packet begins like this.
    Foreign,
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
    fn fault(&self, unauthenticated: bool, form: Option<&PacketFormat>) -> Option<ResponseStatus> {
        if self.key + self.extras > self.body {
            return Some(ResponseStatus::Unknown);
        }
        if unauthenticated && !matches!(self.opcode, 0x0b | 0x20..=0x22) {
            return Some(ResponseStatus::AuthError);
        }
        let form = match form {
            _ if self.key > KEY_LENGTH_MAX => return Some(ResponseStatus::Invalid),
            None => return None,
            Some(form) => form,
        };
        let key = match form.key {
            KeyRule::None => self.key == 0,
            KeyRule::Needed => self.key > 0,
            KeyRule::Either => true,
        };
        let extras = self.extras == form.extras || form.verb == Verb::Flush && self.extras == 0;
        let value = form.value || self.value() == 0;
        let login = form.verb == Verb::Login;
        let short = !login || self.key <= MECHANISM_LENGTH_MAX && self.value() <= LOGIN_BYTES_MAX;
        (!(key && extras && value && short)).then_some(ResponseStatus::Invalid)
    }

    fn packet<'a>(&self, quiet: bool, command: PacketCommand<'a>) -> Packet<'a> {
        Packet { opcode: self.opcode, quiet, opaque: self.opaque, cas: self.cas, command }
    }
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Verb {
    Get { with_key: bool },
    GetAndTouch { with_key: bool },
    Touch,
    Store(StoreMode),
    Arithmetic { increase: bool },
    Delete,
    Flush,
    Stats,
    NoOperation,
    Version,
    Quit,
    Mechanisms,
    Login,
}

enum KeyRule {
    None,
    Needed,
    Either,
}

/// How a packet of an opcode must look.
struct PacketFormat {
    verb: Verb,
    quiet: bool,
    extras: usize,
    key: KeyRule,
    value: bool,
}

/// `None` for an opcode that memcached does not know either.
fn packet_format(opcode: u8) -> Option<PacketFormat> {
    let (verb, quiet) = match opcode {
        0x00 | 0x09 => (Verb::Get { with_key: false }, opcode == 0x09),
        0x0c | 0x0d => (Verb::Get { with_key: true }, opcode == 0x0d),
        0x1d | 0x1e => (Verb::GetAndTouch { with_key: false }, opcode == 0x1e),
        0x23 | 0x24 => (Verb::GetAndTouch { with_key: true }, opcode == 0x24),
        0x01 | 0x11 => (Verb::Store(StoreMode::Set), opcode == 0x11),
        0x02 | 0x12 => (Verb::Store(StoreMode::Add), opcode == 0x12),
        0x03 | 0x13 => (Verb::Store(StoreMode::Replace), opcode == 0x13),
        0x0e | 0x19 => (Verb::Store(StoreMode::Append), opcode == 0x19),
        0x0f | 0x1a => (Verb::Store(StoreMode::Prepend), opcode == 0x1a),
        0x04 | 0x14 => (Verb::Delete, opcode == 0x14),
        0x05 | 0x15 => (Verb::Arithmetic { increase: true }, opcode == 0x15),
        0x06 | 0x16 => (Verb::Arithmetic { increase: false }, opcode == 0x16),
        0x07 | 0x17 => (Verb::Quit, opcode == 0x17),
        0x08 | 0x18 => (Verb::Flush, opcode == 0x18),
        0x0a => (Verb::NoOperation, false),
        0x0b => (Verb::Version, false),
        0x10 => (Verb::Stats, false),
        0x1c => (Verb::Touch, false),
        0x20 => (Verb::Mechanisms, false),
        0x21 | 0x22 => (Verb::Login, false),
        _ => return None,
    };
    let (extras, key, value) = match verb {
        Verb::Get { .. } | Verb::Delete => (0, KeyRule::Needed, false),
        Verb::GetAndTouch { .. } | Verb::Touch => (4, KeyRule::Needed, false),
        Verb::Store(StoreMode::Append | StoreMode::Prepend) => (0, KeyRule::Needed, true),
        Verb::Store(_) => (8, KeyRule::Needed, true),
        Verb::Arithmetic { .. } => (20, KeyRule::Needed, false),
        Verb::Flush => (4, KeyRule::None, false),
        Verb::Stats => (0, KeyRule::Either, false),
        Verb::NoOperation | Verb::Version | Verb::Quit | Verb::Mechanisms => (0, KeyRule::None, false),
        Verb::Login => (0, KeyRule::Needed, true),
    };
    Some(PacketFormat { verb, quiet, extras, key, value })
}

/// The packet at the front of `buffer`. `value_bytes_max` is the largest value worth buffering; an `unauthenticated` client
/// may send no more than a login needs.
pub fn step(buffer: &[u8], value_bytes_max: usize, unauthenticated: bool) -> PacketStep<'_> {
    if buffer.first().is_some_and(|&magic| magic != MAGIC) {
        return PacketStep::Foreign;
    }
    let Some(bytes) = buffer.first_chunk::<HEADER_BYTES>() else {
        return PacketStep::More { total: HEADER_BYTES };
    };
    let header = Header::of(bytes);
    let form = packet_format(header.opcode);
    if let Some(fault) = header.fault(unauthenticated, form.as_ref()) {
        let packet = header.packet(false, PacketCommand::Broken(fault));
        return PacketStep::Packet { packet, used: HEADER_BYTES, discard: 0 };
    }
    let Some(form) = form else {
        let packet = header.packet(false, PacketCommand::Unknown);
        return PacketStep::Packet { packet, used: HEADER_BYTES, discard: header.body as u64 };
    };
    let kept = header.value() <= value_bytes_max;
    let wanted = if kept { header.body } else { header.body - header.value() };
    let total = HEADER_BYTES + wanted;
    let Some(body) = buffer.get(HEADER_BYTES..total) else {
        return PacketStep::More { total };
    };
    let (extras, rest) = body.split_at(header.extras.min(body.len()));
    let (key, value) = rest.split_at(header.key.min(rest.len()));
    let command = command(&header, &form, extras, key, kept.then_some(value));
    let discard = if kept { 0 } else { header.value() as u64 };
    PacketStep::Packet { packet: header.packet(form.quiet, command), used: total, discard }
}

fn command<'a>(
    header: &Header,
    form: &PacketFormat,
    extras: &[u8],
    key: &'a [u8],
    value: Option<&'a [u8]>,
) -> PacketCommand<'a> {
    match form.verb {
        Verb::Get { with_key } => PacketCommand::Get { key, with_key, exptime: None },
        Verb::GetAndTouch { with_key } => PacketCommand::Get { key, with_key, exptime: Some(word(extras, 0)) },
        Verb::Touch => PacketCommand::Touch { key, exptime: word(extras, 0) },
        Verb::Store(mode) => {
            PacketCommand::Store { mode, key, flags: word(extras, 0), exptime: word(extras, 4), value }
        }
        Verb::Arithmetic { increase } => {
            let (delta, initial, exptime) = (long(extras, 0), long(extras, 8), word(extras, 16));
            let create = (exptime != NEVER_CREATE).then_some((initial, exptime));
            PacketCommand::Arithmetic { key, increase, delta, create }
        }
        Verb::Delete => PacketCommand::Delete { key },
        Verb::Flush => PacketCommand::Flush { delay: word(extras, 0) },
        Verb::Stats => PacketCommand::Stats { argument: key },
        Verb::NoOperation => PacketCommand::NoOperation,
        Verb::Version => PacketCommand::Version,
        Verb::Quit => PacketCommand::Quit,
        Verb::Mechanisms => PacketCommand::Mechanisms,
        Verb::Login => {
            PacketCommand::Login { first: header.opcode == 0x21, mechanism: key, message: value.unwrap_or_default() }
        }
    }
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

/// Lengths in an answer's header.
#[derive(Clone, Copy, Default)]
pub struct Lengths {
    pub extras: u8,
    pub key: usize,
    pub value: usize,
}

/// Appends an answer's header; a body of these lengths must follow.
pub fn head(out: &mut Vec<u8>, packet: &Packet<'_>, status: ResponseStatus, lengths: Lengths, cas: u64) {
    let body = usize::from(lengths.extras) + lengths.key + lengths.value;
    let mut header = [0; HEADER_BYTES];
    (header[0], header[1], header[4]) = (ANSWER_MAGIC, packet.opcode, lengths.extras);
    // Keys are at most 250 bytes, values at most a gibibyte.
    header[2..4].copy_from_slice(&(lengths.key as u16).to_be_bytes());
    header[6..8].copy_from_slice(&status.code().to_be_bytes());
    header[8..12].copy_from_slice(&(body as u32).to_be_bytes());
    header[12..16].copy_from_slice(&packet.opaque);
    header[16..].copy_from_slice(&cas.to_be_bytes());
    out.reserve(HEADER_BYTES + body);
    out.extend_from_slice(&header);
}

/// Appends an answer that is nothing but its status, in memcached's words if it is an error.
pub fn status(out: &mut Vec<u8>, packet: &Packet<'_>, status: ResponseStatus) {
    error(out, packet, status, status.text());
}

/// The same in other words.
pub fn error(out: &mut Vec<u8>, packet: &Packet<'_>, status: ResponseStatus, text: &str) {
    head(out, packet, status, Lengths { value: text.len(), ..Lengths::default() }, 0);
    out.extend_from_slice(text.as_bytes());
}

/// Appends a success with a value and no more.
pub fn value(out: &mut Vec<u8>, packet: &Packet<'_>, value: &[u8], cas: u64) {
    head(out, packet, ResponseStatus::Success, Lengths { value: value.len(), ..Lengths::default() }, cas);
    out.extend_from_slice(value);
}

/// Appends the head of an item, up to its value of `length` bytes, which must follow.
pub fn item(out: &mut Vec<u8>, packet: &Packet<'_>, key: &[u8], flags: u32, length: usize, cas: u64) {
    head(out, packet, ResponseStatus::Success, Lengths { extras: 4, key: key.len(), value: length }, cas);
    out.extend_from_slice(&flags.to_be_bytes());
    out.extend_from_slice(key);
}

/// Appends one figure of `stat`; an empty one ends them.
pub fn stat(out: &mut Vec<u8>, packet: &Packet<'_>, name: &[u8], value: &[u8]) {
    head(out, packet, ResponseStatus::Success, Lengths { extras: 0, key: name.len(), value: value.len() }, 0);
    out.extend_from_slice(name);
    out.extend_from_slice(value);
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

    fn command_of(bytes: &[u8]) -> PacketCommand<'_> {
        match step(bytes, 1024, false) {
            PacketStep::Packet { packet, .. } => packet.command,
            step => panic!("{step:?}"),
        }
    }

    #[test]
    fn a_packet_waits_for_its_whole_body_and_no_longer() {
        let whole = packet(0x11, &[0, 0, 0, 5, 0, 0, 0, 9], b"key", b"value");
        for end in 0..whole.len() {
            let total = if end < HEADER_BYTES { HEADER_BYTES } else { whole.len() };
            assert_eq!(step(&whole[..end], 1024, false), PacketStep::More { total });
        }
        let command =
            PacketCommand::Store { mode: StoreMode::Set, key: b"key", flags: 5, exptime: 9, value: Some(b"value") };
        let packet = Packet { opcode: 0x11, quiet: true, opaque: [1, 2, 3, 4], cas: 7, command };
        let more = [&whole[..], b"\x80"].concat();
        assert_eq!(step(&more, 1024, false), PacketStep::Packet { packet, used: whole.len(), discard: 0 });
    }

    #[test]
    fn a_value_over_the_limit_is_never_buffered() {
        let mut whole = packet(0x01, &[0; 8], b"key", b"");
        whole[8..12].copy_from_slice(&u32::MAX.to_be_bytes());
        let PacketStep::Packet { packet, used, discard } = step(&whole, 1024, false) else { panic!() };
        assert!(matches!(packet.command, PacketCommand::Store { value: None, key: b"key", .. }));
        assert_eq!((used, discard), (35, u64::from(u32::MAX) - 11));
        assert!(matches!(step(&whole[..30], 1024, false), PacketStep::More { total: 35 }));
    }

    #[test]
    fn what_cannot_be_is_broken_before_its_body_has_come() {
        let broken = |bytes: &[u8], status: ResponseStatus| {
            assert_eq!(command_of(&bytes[..HEADER_BYTES]), PacketCommand::Broken(status), "{}", bytes.escape_ascii());
        };
        broken(&packet(0x00, b"", b"", b""), ResponseStatus::Invalid);
        broken(&packet(0x00, b"", &[b'k'; 251], b""), ResponseStatus::Invalid);
        broken(&packet(0x00, b"e", b"k", b""), ResponseStatus::Invalid);
        broken(&packet(0x00, b"", b"k", b"v"), ResponseStatus::Invalid);
        broken(&packet(0x01, b"short", b"k", b"v"), ResponseStatus::Invalid);
        broken(&packet(0x05, &[0; 16], b"k", b""), ResponseStatus::Invalid);
        broken(&packet(0x08, b"", b"k", b""), ResponseStatus::Invalid);
        broken(&packet(0x0a, b"", b"", b"v"), ResponseStatus::Invalid);
        broken(&packet(0x1c, &[0; 4], b"k", b"v"), ResponseStatus::Invalid);
        broken(&packet(0x21, b"", &[b'P'; 33], b""), ResponseStatus::Invalid);
        broken(&packet(0x21, b"", b"PLAIN", &[0; LOGIN_BYTES_MAX + 1]), ResponseStatus::Invalid);
        let mut short = packet(0x00, b"", b"key", b"");
        short[11] = 2;
        broken(&short, ResponseStatus::Unknown);
    }

    #[test]
    fn an_unknown_packet_loses_its_whole_body() {
        let bytes = packet(0x1b, &[0; 4], b"key", b"value");
        let PacketStep::Packet { packet, used, discard } = step(&bytes, 1, false) else { panic!() };
        assert_eq!((packet.command, used, discard), (PacketCommand::Unknown, 24, 12));
    }

    #[test]
    fn before_the_login_a_client_may_log_in_and_nothing_else() {
        for opcode in 0..=255 {
            let mut bytes = packet(opcode, b"", b"", b"");
            bytes[11] = 0;
            let refused = matches!(
                step(&bytes, 1024, true),
                PacketStep::Packet {
                    packet: Packet { command: PacketCommand::Broken(ResponseStatus::AuthError), .. },
                    ..
                }
            );
            assert_eq!(refused, !matches!(opcode, 0x0b | 0x20 | 0x21 | 0x22), "{opcode:#x}");
        }
    }

    #[test]
    fn other_bytes_are_foreign() {
        assert_eq!(step(b"get a\r\n", 0, false), PacketStep::Foreign);
        assert_eq!(step(b"\x81", 0, false), PacketStep::Foreign);
        assert_eq!(step(b"", 0, false), PacketStep::More { total: HEADER_BYTES });
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
                PacketStep::More { total } => assert!(total > bytes.len()),
                PacketStep::Packet { used, .. } => assert!((HEADER_BYTES..=bytes.len()).contains(&used)),
                PacketStep::Foreign => panic!(),
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
