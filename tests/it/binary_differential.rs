//! Random sessions of the binary protocol against a real memcached and against us: the same answers, byte for byte.
//!
//! The seed is fixed; `DIFFERENTIAL_SESSIONS` and `DIFFERENTIAL_SEED` widen the search as in `differential.rs`. Each session
//! is a connection: valid packets and broken ones, quiet and loud, cut into writes at random places, perhaps without an
//! end. What differs on purpose is left out and listed in `docs/en/differences.md`.

use std::net::{Shutdown, SocketAddr};
use std::time::Instant;

use fastrand::Rng;

use crate::binary::Packet;
use crate::differential::Memcached;
use crate::support::{Client, Node};

/// Without wishes of the environment's the test ends after this long, however far it has come.
const SECONDS_MAX: u64 = 40;

const KEYS: &[&[u8]] = &[b"a", b"b", b"key:3", b"odd \r\n\0\xff key"];
/// Read at the end of a session only: see `differential.rs`.
const COUNTERS: &[&[u8]] = &[b"n", b"n2"];
/// Only times whose effect does not depend on the second in which they arrive.
const EXPTIMES: &[u32] = &[0, 0, 0, 1000, 2_592_000, 2_592_001, 0x7fff_ffff, 0x8000_0000, u32::MAX];
const NUMBERS: &[u64] = &[0, 1, 7, 99_999_999_999, u64::MAX, u64::MAX - 1, 1 << 62];

struct RandomInput {
    rng: Rng,
    last_cas: u64,
}

impl RandomInput {
    /// Mostly none, otherwise one that some item may well have.
    fn cas(&mut self) -> u64 {
        match self.rng.u8(..4) {
            0 => (self.last_cas + self.rng.u64(..40)).saturating_sub(25),
            _ => 0,
        }
    }

    fn key(&mut self) -> Vec<u8> {
        match self.rng.u8(..30) {
            0 => vec![b'k'; 250],
            _ => self.pick(KEYS).to_vec(),
        }
    }

    fn written_key(&mut self) -> Vec<u8> {
        if self.rng.u8(..3) == 0 { self.pick(COUNTERS).to_vec() } else { self.key() }
    }

    fn pick<T: Copy>(&mut self, from: &[T]) -> T {
        from[self.rng.usize(..from.len())]
    }

    /// Never with a minus: see `differential.rs`.
    fn value(&mut self) -> Vec<u8> {
        let rng = &mut self.rng;
        let mut value: Vec<u8> = match rng.u16(..600) {
            0 => vec![b'v'; 1_048_000 + rng.usize(..800)],
            1 => vec![b'v'; 3 << 20],
            2..=80 => Vec::new(),
            81..=160 => rng.u64(..1_000_000).to_string().into_bytes(),
            161..=200 => b"18446744073709551615".to_vec(),
            201..=240 => b"18446744073709551616".to_vec(),
            241..=280 => b" 12 ".to_vec(),
            281..=360 => (0..rng.usize(..5000)).map(|_| rng.u8(..)).collect(),
            _ => (0..rng.usize(1..40)).map(|_| rng.alphanumeric() as u8).collect(),
        };
        value.iter_mut().filter(|byte| **byte == b'-').for_each(|byte| *byte = b'+');
        value
    }
}

/// A packet as it should be.
fn valid(random: &mut RandomInput) -> Packet {
    let expiry = random.pick(EXPTIMES).to_be_bytes();
    let packet = match random.rng.u8(..40) {
        0..=9 => {
            let opcode = random.pick(&[0x01, 0x01, 0x01, 0x02, 0x03, 0x11, 0x12, 0x13]);
            let flags = random.pick(&[0_u32, 1, 5, u32::MAX]).to_be_bytes();
            Packet::new(opcode).key(random.written_key()).extras([flags, expiry].concat()).value(random.value())
        }
        10..=13 => {
            let opcode = random.pick(&[0x0e, 0x0f, 0x19, 0x1a]);
            Packet::new(opcode).key(random.written_key()).value(random.value())
        }
        14..=20 => Packet::new(random.pick(&[0x00, 0x09, 0x0c, 0x0d])).key(random.key()),
        21..=23 => Packet::new(random.pick(&[0x1d, 0x1e, 0x23, 0x24])).key(random.key()).extras(expiry),
        24 | 25 => Packet::new(0x1c).key(random.key()).extras(expiry),
        26..=30 => {
            let numbers = [random.pick(NUMBERS).to_be_bytes(), random.pick(NUMBERS).to_be_bytes()].concat();
            let opcode = random.pick(&[0x05, 0x06, 0x15, 0x16]);
            Packet::new(opcode).key(random.pick(COUNTERS)).extras([numbers, expiry.to_vec()].concat())
        }
        31..=33 => Packet::new(random.pick(&[0x04, 0x14])).key(random.written_key()),
        34 => {
            let delay = random.pick(&[&b""[..], &[0; 4]]);
            Packet::new(random.pick(&[0x08, 0x18])).extras(delay)
        }
        35 => {
            let argument =
                random.pick(&["sizes", "bogus", "reset", "resetting", "detail", "detail on", "detail off", " x"]);
            Packet::new(0x10).key(argument)
        }
        36 => {
            let opcode = random.pick(&[0x1b, 0x1f, 0x25, 0x30, 0x3f, 0x80, 0xff]);
            let length = random.rng.usize(..2000);
            Packet::new(opcode).value(vec![0x80; length])
        }
        37 => random
            .pick(&[0_usize, 1, 2])
            .checked_sub(1)
            .map_or(Packet::new(0x20), |length| Packet::new(0x21).key("PLAIN").value(vec![0; length])),
        _ => Packet::new(0x0a),
    };
    let (opaque, cas) = (random.rng.u32(..), random.cas());
    packet.opaque(opaque).cas(cas)
}

/// Any shape at all; `None` where memcached reads on in the midst of the packet.
fn shapeless(random: &mut RandomInput) -> Option<Packet> {
    let opcode = if random.rng.bool() { random.rng.u8(..0x26) } else { random.rng.u8(..) };
    let (extras, key) = (random.pick(&[0, 0, 2, 4, 8, 20, 21, 255]), random.pick(&[0, 1, 1, 33, 250, 251, 300, 2000]));
    let value = random.pick(&[0, 0, 1, 24, 500]);
    let fitting = match opcode {
        0x10 => value == 0 || extras > 0 || key > 250,
        0x1c..=0x1e | 0x23 | 0x24 => value == 0 || extras != 4 || key == 0 || key > 250,
        0x21 | 0x22 => key == 0 || key > 250 || key <= 32,
        // The version is its own.
        0x0b => extras + key + value > 0,
        // What it was said goes on to the log of a managed key only.
        0x00..=0x1a | 0x20 => true,
        _ => extras == 0 && (key == 0 || key > 250),
    };
    // The figures are another server's.
    let figures = opcode == 0x10 && key == 0 && extras == 0;
    let quits = matches!(opcode, 0x07 | 0x17);
    (fitting && !figures && !quits).then(|| {
        let (extras, key) = (vec![0; extras], vec![b's'; key]);
        Packet::new(opcode).extras(extras).key(key).value(vec![b'v'; value])
    })
}

/// The end of a conversation: something broken, a goodbye, or nothing special. No more than is read before the server
/// closes: what it leaves unread may cost the client the last answers.
fn ending(random: &mut RandomInput) -> Vec<u8> {
    let packet = match random.rng.u8(..10) {
        0 => Packet::new(random.pick(&[0x07, 0x17])).bytes(),
        1 => {
            let mut foreign = valid(random).bytes();
            foreign.truncate(24);
            foreign[0] = random.pick(&[0x00, 0x81, b'g', 0x7f]);
            foreign
        }
        2 => {
            // A body shorter than what is in it.
            let mut short =
                Packet::new(random.rng.u8(..0x26)).key("key").extras(vec![0; random.rng.usize(..9)]).bytes();
            short[11] = random.rng.u8(..3);
            short
        }
        3 => {
            let whole = valid(random).bytes();
            whole[..random.rng.usize(..whole.len())].to_vec()
        }
        4 | 5 => shapeless(random).map_or(Vec::new(), |packet| packet.bytes()),
        _ => return Vec::new(),
    };
    // Answers before it are out by then; memcached loses them otherwise.
    [Packet::new(0x0a).bytes(), packet].concat()
}

/// A session: bytes, and where to cut them into writes. The end comes in one piece.
fn session(random: &mut RandomInput) -> (Vec<u8>, Vec<usize>) {
    let mut bytes: Vec<u8> = (0..random.rng.usize(1..25)).flat_map(|_| valid(random).bytes()).collect();
    COUNTERS.iter().for_each(|key| bytes.extend(Packet::new(0x0c).key(*key).bytes()));
    let cuts = (0..random.rng.usize(..4)).map(|_| random.rng.usize(..=bytes.len())).collect();
    bytes.extend(ending(random));
    (bytes, cuts)
}

/// Everything that is answered on a connection of its own. A server that has had enough may not take all of it.
fn play(address: SocketAddr, bytes: &[u8], cuts: &[usize]) -> Vec<u8> {
    use std::io::Write;
    let mut client = Client::connect(address);
    let mut cuts = cuts.to_vec();
    cuts.sort_unstable();
    cuts.push(bytes.len());
    let mut from = 0;
    let mut reader = Client { stream: client.stream.try_clone().unwrap() };
    // Large answers must be taken while more is sent.
    let reading = std::thread::spawn(move || reader.rest());
    for cut in cuts {
        if client.stream.write_all(&bytes[from..cut]).is_err() {
            break;
        }
        from = cut;
    }
    let _ = client.stream.shutdown(Shutdown::Write);
    reading.join().unwrap()
}

/// The cas id given out last: both give them out in the same order.
fn last_cas(client: &mut Client) -> u64 {
    let answer = String::from_utf8(client.ask("ms probe 0 c\r\n\r\n")).unwrap();
    answer.trim_end().strip_prefix("HD c").unwrap().parse().unwrap()
}

#[test]
#[ignore = "needs memcached"]
#[expect(clippy::disallowed_methods, reason = "prints how long it took")]
fn random_packets_are_answered_as_memcached_answers() {
    let number = |name: &str| std::env::var(name).ok().map(|text| text.parse::<u64>().unwrap());
    let (wish, seed) = (number("DIFFERENTIAL_SESSIONS"), number("DIFFERENTIAL_SEED").unwrap_or(20_261_121));
    let begun = Instant::now();
    let memcached = Memcached::start();
    let node = Node::plain(&["-m", "64"]);
    let (mut theirs, mut ours) = (Client::connect(memcached.address), node.connect());
    for index in 0..wish.unwrap_or(2500) {
        if wish.is_none() && begun.elapsed().as_secs() > SECONDS_MAX {
            break;
        }
        let last_cas = last_cas(&mut theirs);
        assert_eq!(self::last_cas(&mut ours), last_cas, "after session {} of seed {seed}", index.wrapping_sub(1));
        let mut random = RandomInput { rng: Rng::with_seed(seed.wrapping_add(index)), last_cas };
        let (bytes, cuts) = session(&mut random);
        let expected = play(memcached.address, &bytes, &cuts);
        let answer = play(node.address, &bytes, &cuts);
        if answer != expected {
            panic!(
                "session {index} of seed {seed}, cut at {cuts:?}\n{}\nsession:\n{}",
                first_difference(&answer, &expected),
                packets(&bytes, 0x80).join("\n")
            );
        }
        // What text clients see of it is the same, too.
        let look = "gets a b key:3\r\nget n n2\r\n";
        assert_eq!(ours.ask(look), theirs.ask(look), "session {index} of seed {seed}");
    }
}

fn first_difference(ours: &[u8], theirs: &[u8]) -> String {
    let (ours, theirs) = (packets(ours, 0x81), packets(theirs, 0x81));
    let same = ours.iter().zip(&theirs).take_while(|(our, their)| our == their).count();
    let show = |packets: &[String]| packets.get(same).cloned().unwrap_or("nothing".into());
    format!("answer {same} of {} and {}\n ours {}\ntheir {}", ours.len(), theirs.len(), show(&ours), show(&theirs))
}

/// Bytes as packets, for people.
fn packets(mut bytes: &[u8], magic: u8) -> Vec<String> {
    let mut shown = Vec::new();
    while let Some(head) = bytes.first_chunk::<24>().filter(|head| head[0] == magic) {
        let body = u32::from_be_bytes([head[8], head[9], head[10], head[11]]) as usize;
        let end = (24 + body).min(bytes.len());
        shown.push(format!("{:02x?} {}", head, bytes[24..end.min(200)].escape_ascii()));
        bytes = &bytes[end..];
    }
    if !bytes.is_empty() {
        shown.push(format!("and {}", bytes[..bytes.len().min(100)].escape_ascii()));
    }
    shown
}

#[test]
#[ignore = "needs memcached"]
fn the_same_is_counted() {
    let memcached = Memcached::start();
    let node = Node::plain(&["-m", "64"]);
    let (mut theirs, mut ours) = (Client::connect(memcached.address), node.connect());
    let names = "cmd_get cmd_set cmd_flush cmd_touch get_hits get_misses delete_hits delete_misses incr_hits incr_misses \
                 decr_hits decr_misses cas_hits cas_misses cas_badval touch_hits touch_misses store_too_large auth_cmds \
                 auth_errors";
    let item = |opcode, key: &str, cas| Packet::new(opcode).key(key).extras([0; 8]).value("1").cas(cas);
    let plain = |opcode, key: &str, cas| Packet::new(opcode).key(key).cas(cas);
    let touch = |opcode, key: &str| Packet::new(opcode).key(key).extras([0; 4]);
    let count = |opcode, key: &str, last: u8, cas| {
        Packet::new(opcode).key(key).extras([vec![0; 7], vec![1], vec![0; 8], vec![last; 4]].concat()).cas(cas)
    };
    let large = |opcode| Packet::new(opcode).key("l").extras([0; 8]).value(vec![b'v'; 2 << 20]);
    let mut wrong = Vec::new();
    for (name, packets) in [
        ("set", vec![item(0x01, "a", 0), item(0x11, "n", 0), item(0x02, "a", 0), item(0x03, "z", 0)]),
        ("get", vec![plain(0x00, "a", 0), plain(0x0c, "z", 0), plain(0x09, "a", 0), plain(0x0d, "z", 0)]),
        ("touch", vec![touch(0x1c, "a"), touch(0x1c, "z"), touch(0x1d, "a"), touch(0x24, "z"), touch(0x23, "z")]),
        ("cas", vec![item(0x01, "a", 999), item(0x01, "z", 999), item(0x03, "a", 2), item(0x02, "b", 3)]),
        (
            "append",
            vec![plain(0x0e, "a", 0).value("1"), plain(0x0e, "z", 0).value("1"), plain(0x0f, "a", 9).value("1")],
        ),
        (
            "count",
            vec![count(0x05, "n", 0, 0), count(0x15, "z", 255, 0), count(0x06, "n", 0, 9), count(0x05, "y", 0, 0)],
        ),
        ("delete", vec![plain(0x04, "y", 99), plain(0x14, "y", 0), plain(0x04, "z", 0)]),
        ("flush", vec![Packet::new(0x08), Packet::new(0x18)]),
        ("large", vec![large(0x01), large(0x12)]),
        ("sasl", vec![Packet::new(0x20), Packet::new(0x21).key("PLAIN").value("\0a\0b")]),
    ] {
        let bytes: Vec<u8> = packets.iter().flat_map(Packet::bytes).collect();
        assert_eq!(
            packets_shown(&play(node.address, &bytes, &[])),
            packets_shown(&play(memcached.address, &bytes, &[])),
            "{name}"
        );
        for stat in names.split_whitespace() {
            let (our, their) = (ours.stat("", stat), theirs.stat("", stat));
            if our != their {
                wrong.push(format!("after {name}: {stat} is {our:?}, memcached's {their:?}"));
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

fn packets_shown(bytes: &[u8]) -> Vec<String> {
    packets(bytes, 0x81)
}

#[test]
#[ignore = "needs memcached"]
fn the_largest_item_is_the_same_to_the_byte() {
    let memcached = Memcached::start();
    let node = Node::plain(&["-m", "64"]);
    for (key, flags) in [("k", [0; 8]), ("a_longer_key", [0, 0, 0, 7, 0, 0, 0, 0])] {
        for length in 1_048_500..1_048_528 {
            let value = vec![b'v'; length];
            let set = Packet::new(0x01).key(key).extras(flags).value(value).bytes();
            let append = Packet::new(0x0e).key("x").value(vec![b'v'; length]).bytes();
            let bytes = [set, append].concat();
            let shown = |address| packets_shown(&play(address, &bytes, &[]));
            // Cas ids are the same as long as the same is stored.
            assert_eq!(shown(node.address), shown(memcached.address), "{key} {length}");
        }
    }
}
