//! Attacks on memory: answers that nobody reads, and values that come half.

use std::net::TcpStream;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::attack::{Attack, Figure, Goal, Measured};
use crate::client::{Client, Neighbour, TIMEOUT, Waits, asker_that_does_not_read};
use crate::server::Server;
use crate::subject::{Subject, put};

pub const ATTACKS: &[Attack] = &[
    Attack {
        name: "unread-64mb",
        what: "`-m 256 -I 64m`: 60 readers of a 64 MB value that read nothing",
        on_memcached: true,
        figures: &[
            Figure { what: "resident memory at most, MB", goal: Goal::AsMemcached { plus: 0.0 } },
            Figure { what: "a neighbour's `get`, median, ms", goal: Goal::AsMemcached { plus: 1.0 } },
            Figure { what: "a neighbour's `get`, p99, ms", goal: Goal::AsMemcached { plus: 5.0 } },
            Figure { what: "a neighbour's `get`, longest, ms", goal: Goal::Shown },
            Figure { what: "a neighbour's reads given up after 5 s", goal: Goal::AtMost(0.0) },
        ],
        run: unread_64mb,
    },
    Attack {
        name: "unread-1mb",
        what: "defaults: 1,000 readers of a 1 MB value that read nothing",
        on_memcached: true,
        figures: &[
            Figure { what: "resident memory at most, MB", goal: Goal::AsMemcached { plus: 0.0 } },
            Figure { what: "a neighbour's `get`, p99, ms", goal: Goal::AsMemcached { plus: 5.0 } },
            Figure { what: "a neighbour's `get`, longest, ms", goal: Goal::Shown },
        ],
        run: unread_1mb,
    },
    Attack {
        name: "slow-readers",
        what: "defaults: 300 readers of a 1 MB value that take 2 KB a second, for 20 s",
        on_memcached: true,
        figures: &[
            Figure { what: "resident memory at the end, MB", goal: Goal::AsMemcached { plus: 0.0 } },
            Figure { what: "of them still connected", goal: Goal::Shown },
        ],
        run: slow_readers,
    },
    Attack {
        name: "replaced-while-unread",
        what: "defaults: 300 readers, each of another version of a 1 MB value, that read nothing",
        on_memcached: true,
        figures: &[
            // The limit is 64 MB, and what a server needs besides for so many connections.
            Figure { what: "resident memory at most, MB", goal: Goal::AtMost(110.0) },
            Figure { what: "of 300 versions stored", goal: Goal::Shown },
            Figure { what: "of 50 sets of 100 KB from a newcomer, stored", goal: Goal::AtLeast(50.0) },
        ],
        run: replaced_while_unread,
    },
    Attack {
        name: "half-sent-sets",
        what: "defaults: 80 half-sent sets of 1 MB, 40 of 100 KB, 200 of 20 KB, then 50 sets of 100 KB from a newcomer",
        on_memcached: true,
        figures: &[
            Figure { what: "of 50 stored", goal: Goal::AtLeast(50.0) },
            Figure { what: "resident memory at most, MB", goal: Goal::AtMost(180.0) },
        ],
        run: half_sent_sets,
    },
];

const KEY: &str = "attacked";

pub fn mb(bytes: u64) -> Value {
    json!(bytes as f64 / 1e6)
}

/// The greatest resident memory seen in this time.
fn peak_rss(server: &Server, time: Duration) -> u64 {
    let (begun, mut peak) = (Instant::now(), 0);
    while begun.elapsed() < time {
        peak = peak.max(server.rss());
        std::thread::sleep(Duration::from_millis(10));
    }
    peak
}

/// Readers that ask for the value and take nothing; resident memory at most, and what a neighbour sees of it.
fn unread(server: &Server, readers: usize, time: Duration) -> (u64, Waits) {
    let neighbour = Neighbour::start(server.port(), Duration::from_millis(5));
    let (mut connections, mut peak) = (Vec::new(), 0);
    for _ in 0..readers {
        connections.push(asker_that_does_not_read(server.port(), &format!("get {KEY}\r\n")));
        peak = peak.max(server.rss());
    }
    peak = peak.max(peak_rss(server, time));
    (peak, neighbour.stop())
}

fn unread_64mb(subject: &Subject) -> Measured {
    let server = subject.cache(&["-m", "256", "-I", "64m"]);
    put(&server, KEY, &vec![b'v'; 64_000_000]);
    let (peak, waits) = unread(&server, 60, Duration::from_secs(12));
    vec![mb(peak), waits.at(0.5), waits.at(0.99), waits.longest(), json!(waits.given_up)]
}

fn unread_1mb(subject: &Subject) -> Measured {
    let server = subject.cache(&[]);
    put(&server, KEY, &vec![b'v'; 1_000_000]);
    let (peak, waits) = unread(&server, 1000, Duration::from_secs(8));
    vec![mb(peak), waits.at(0.99), waits.longest()]
}

fn slow_readers(subject: &Subject) -> Measured {
    use std::io::Read;
    let server = subject.cache(&[]);
    put(&server, KEY, &vec![b'v'; 1_000_000]);
    let connect = |_| asker_that_does_not_read(server.port(), &format!("get {KEY}\r\n")).unwrap();
    let mut readers: Vec<TcpStream> = (0..300).map(connect).collect();
    readers.iter().for_each(|reader| reader.set_read_timeout(Some(Duration::from_millis(1))).unwrap());
    let mut taken = vec![0; 2048];
    for _ in 0..20 {
        let round = Instant::now();
        readers.retain_mut(|reader| match reader.read(&mut taken) {
            Ok(read) => read > 0,
            Err(error) => error.kind() == std::io::ErrorKind::WouldBlock,
        });
        std::thread::sleep(Duration::from_secs(1).saturating_sub(round.elapsed()));
    }
    vec![mb(server.rss()), json!(readers.len())]
}

fn replaced_while_unread(subject: &Subject) -> Measured {
    let server = subject.cache(&[]);
    let mut writer = Client::connect(server.port(), TIMEOUT).unwrap();
    let (mut readers, mut stored, mut peak) = (Vec::new(), 0, 0);
    for version in 0..300_u32 {
        let answer = writer.set(KEY, &vec![b'a' + (version % 26) as u8; 1_000_000]);
        stored += u32::from(answer.is_ok_and(|answer| answer == "STORED\r\n"));
        readers.push(asker_that_does_not_read(server.port(), &format!("get {KEY}\r\n")));
        // So that it has been asked for before it is replaced.
        let _ = writer.ask("mn\r\n");
        std::thread::sleep(Duration::from_millis(5));
        peak = peak.max(server.rss());
    }
    let newcomer = stored_of_a_newcomer(&server);
    peak = peak.max(peak_rss(&server, Duration::from_secs(2)));
    vec![mb(peak), json!(stored), json!(newcomer)]
}

fn half_sent_sets(subject: &Subject) -> Measured {
    let server = subject.cache(&[]);
    // The small ones leave less of whatever bound there is than a newcomer needs.
    let sets = [(1_040_000, 1_000_000); 80].into_iter().chain([(100_000, 99_000); 40]).chain([(20_000, 19_000); 200]);
    let half = |(n, (announced, sent)): (usize, (usize, usize))| {
        let mut client = Client::connect(server.port(), TIMEOUT).ok()?;
        client.send(format!("set half:{n} 0 0 {announced}\r\n")).ok()?;
        client.send(vec![b'v'; sent]).ok()?;
        // All at once they would get in each other's way.
        std::thread::sleep(Duration::from_millis(10));
        Some(client)
    };
    let clients: Vec<_> = sets.enumerate().map(half).collect();
    let peak = peak_rss(&server, Duration::from_millis(500));
    let stored = stored_of_a_newcomer(&server);
    drop(clients);
    vec![json!(stored), mb(peak.max(server.rss()))]
}

/// How many of 50 sets of 100 KB one more client can store. Each on a connection of its own: one may be hung up on.
fn stored_of_a_newcomer(server: &Server) -> usize {
    let store = |n: usize| {
        let mut client = Client::connect(server.port(), Duration::from_secs(2)).ok()?;
        let answer = client.set(&format!("newcomer:{n}"), &vec![b'v'; 100_000]).ok()?;
        (answer == "STORED\r\n").then_some(())
    };
    let begun = Instant::now();
    (0..50).filter_map(|n| if begun.elapsed() > TIMEOUT { None } else { store(n) }).count()
}
