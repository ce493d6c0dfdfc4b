//! The load of memtier_benchmark's text mode, sent and checked by ourselves: Debian has no package of it.
//!
//! In text it begins without any command of its own, sends `set <key> 0 <expiry> <length>` and `get <key>` in the ratio
//! asked for, pipelines as deep as asked for, and what `--command` says word for word. It takes any answer but
//! `STORED`, `VALUE` and `END` for a failure. Never measures anything.

use std::collections::HashMap;
use std::io::Write;
use std::thread;

use fastrand::Rng;

use crate::support::{APPID, Client, Node, Wechat, wait_for};

/// How one connection behaves, in memtier's words.
#[derive(Clone, Copy)]
struct Load {
    /// Sets and gets in turn.
    ratio: (usize, usize),
    pipeline: usize,
    pattern: Pattern,
    data_size: (usize, usize),
    requests: usize,
}

#[derive(Clone, Copy)]
enum Pattern {
    Random,
    Sequential,
    Gaussian,
}

const KEYS: u64 = 2000;
const SET_THEN_GET: Load =
    Load { ratio: (1, 10), pipeline: 1, pattern: Pattern::Random, data_size: (32, 32), requests: 2000 };

impl Pattern {
    fn key(self, rng: &mut Rng, turn: usize) -> u64 {
        match self {
            Pattern::Random => rng.u64(..KEYS),
            Pattern::Sequential => turn as u64 % KEYS,
            Pattern::Gaussian => (0..12).map(|_| rng.u64(..KEYS)).sum::<u64>() / 12,
        }
    }
}

/// One connection: pipelines are written whole, then every answer is read and compared with what this connection has
/// stored itself. Its keys are its own.
fn run(node: &Node, load: Load, number: u64) {
    let mut client = node.connect();
    let mut rng = Rng::with_seed(number);
    let mut stored: HashMap<String, Vec<u8>> = HashMap::new();
    let (sets, gets) = load.ratio;
    for first in (0..load.requests).step_by(load.pipeline) {
        let (mut send, mut expected) = (Vec::new(), Vec::new());
        for turn in first..first + load.pipeline {
            let key = format!("memtier-{number}-{}", load.pattern.key(&mut rng, turn));
            if turn % (sets + gets) < sets {
                // --random-data: any byte may be in it.
                let value: Vec<u8> = (0..rng.usize(load.data_size.0..=load.data_size.1)).map(|_| rng.u8(..)).collect();
                let expiry = if rng.bool() { 0 } else { 3600 };
                write!(send, "set {key} 0 {expiry} {}\r\n", value.len()).unwrap();
                send.extend([&value[..], b"\r\n"].concat());
                expected.extend(b"STORED\r\n");
                stored.insert(key, value);
            } else {
                write!(send, "get {key}\r\n").unwrap();
                expected.extend(hit_or_miss(&key, stored.get(&key)));
            }
        }
        exchange(&mut client, &send, &expected);
    }
}

fn hit_or_miss(key: &str, value: Option<&Vec<u8>>) -> Vec<u8> {
    match value {
        None => b"END\r\n".to_vec(),
        Some(value) => [format!("VALUE {key} 0 {}\r\n", value.len()).as_bytes(), value, b"\r\nEND\r\n"].concat(),
    }
}

/// Writes from a thread of its own: a pipeline may be more than the sockets hold.
#[track_caller]
fn exchange(client: &mut Client, send: &[u8], expected: &[u8]) {
    let mut writer = client.stream.try_clone().unwrap();
    let answer = thread::scope(|scope| {
        scope.spawn(move || writer.write_all(send).unwrap());
        client.read(expected.len())
    });
    let differs = answer.iter().zip(expected).position(|(one, other)| one != other);
    if answer.len() != expected.len() || differs.is_some() {
        let at = differs.unwrap_or(answer.len().min(expected.len()));
        let part = |bytes: &[u8]| bytes[at.saturating_sub(40)..bytes.len().min(at + 80)].escape_ascii().to_string();
        panic!("at byte {at}: {} instead of {}", part(&answer), part(expected));
    }
}

/// `--threads` times `--clients` connections at once.
fn all(load: Load) {
    let node = Node::plain(&["-m", "1024"]);
    thread::scope(|scope| {
        for number in 0..8 {
            let node = &node;
            scope.spawn(move || run(node, load, number));
        }
    });
    assert_eq!(node.connect().stat("", "evictions").as_deref(), Some("0"));
}

#[test]
fn one_set_for_ten_gets() {
    all(SET_THEN_GET);
}

#[test]
fn pipelines_of_a_hundred_and_more() {
    all(Load { pipeline: 100, pattern: Pattern::Gaussian, requests: 10_000, ..SET_THEN_GET });
    all(Load { pipeline: 2000, pattern: Pattern::Sequential, requests: 10_000, ..SET_THEN_GET });
}

#[test]
fn large_random_data_in_deep_pipelines() {
    all(Load { ratio: (1, 1), pipeline: 100, data_size: (1, 100_000), requests: 400, ..SET_THEN_GET });
}

#[test]
fn many_keys_at_once() {
    let node = Node::plain(&[]);
    let mut client = node.connect();
    let keys: Vec<String> = (0..500).map(|n| format!("memtier-{n}")).collect();
    // Together more than is queued for a connection at once.
    let value = "v".repeat(1000);
    let mut expected = Vec::new();
    for key in &keys {
        client.expect(format!("set {key} 0 0 1000\r\n{value}\r\n"), "STORED\r\n");
        expected.extend(format!("VALUE {key} 0 1000\r\n{value}\r\n").bytes());
    }
    expected.extend(b"END\r\n");
    // --multi-key-get, as mc-crusher's mget too, many times in one pipeline.
    let line = format!("get {}\r\n", keys.join(" "));
    exchange(&mut client, line.repeat(20).as_bytes(), &expected.repeat(20));
}

/// `--command` sends any line, its key and data put in; several are sent in turn, by their ratio.
#[test]
fn arbitrary_commands_in_turn() {
    let node = Node::plain(&[]);
    let mut client = node.connect();
    let (mut send, mut expected) = (String::new(), String::new());
    for n in 0..300 {
        let key = format!("memtier-{n}");
        send += &format!("add {key} 0 0 2\r\n10\r\nincr {key} {n}\r\ngets {key}\r\ntouch {key} 100\r\n");
        send += &format!(
            "mg {key} s v\r\nms {key} 1\r\n7\r\nappend {key} 0 0 1\r\n1\r\nget {key}\r\ndelete {key}\r\nget {key}\r\n"
        );
        let count = (n + 10).to_string();
        // Each turn has four changes: add, incr, ms, append.
        let (length, cas) = (count.len(), 4 * n + 2);
        expected += &format!("STORED\r\n{count}\r\nVALUE {key} 0 {length} {cas}\r\n{count}\r\nEND\r\nTOUCHED\r\n");
        expected += &format!(
            "VA {length} s{length}\r\n{count}\r\nHD\r\nSTORED\r\nVALUE {key} 0 2\r\n71\r\nEND\r\nDELETED\r\nEND\r\n"
        );
    }
    exchange(&mut client, send.as_bytes(), expected.as_bytes());
}

/// `--ratio 0:1 --key-prefix access_token:`, all of it on the managed key, while others write ordinary keys.
#[test]
fn reads_of_a_managed_key_under_load() {
    let wechat = Wechat::start();
    let node = Node::start(&wechat.config("", ""), &[]);
    let key = format!("access_token:{APPID}");
    let token = wait_for("a token", || node.connect().get(&key));
    let answer = hit_or_miss(&key, Some(&token));
    thread::scope(|scope| {
        for number in 0..4 {
            let (node, key, answer) = (&node, &key, &answer);
            scope.spawn(move || run(node, Load { pipeline: 50, ..SET_THEN_GET }, number));
            scope.spawn(move || {
                let mut client = node.connect();
                for _ in 0..20 {
                    exchange(&mut client, format!("get {key}\r\n").repeat(100).as_bytes(), &answer.repeat(100));
                }
            });
        }
    });
}
