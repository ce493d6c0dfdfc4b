//! Attacks on other clients' waiting: one client's request that keeps a worker busy.

use std::io::{self, ErrorKind, Read, Write};
use std::net::TcpStream;
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::attack::{Attack, Figure, Goal, Measured};
use crate::client::{Neighbour, TIMEOUT, local};
use crate::subject::{APPID, Plan, Subject, Wechat, put};

pub const ATTACKS: &[Attack] = &[
    Attack {
        name: "long-get-line",
        what: "`-t 1`: a `get` line of 500,000 keys in 1 MB, all hits",
        on_memcached: true,
        figures: &[
            Figure { what: "a neighbour's `get` as long as the answer lasts, median, ms", goal: Goal::AtMost(10.0) },
            Figure { what: "p99, ms", goal: Goal::AtMost(10.0) },
            Figure { what: "longest, ms", goal: Goal::Shown },
        ],
        run: long_get_line,
    },
    Attack {
        name: "long-get-lines",
        what: "`-t 1`: such lines one after the other for 8 s",
        on_memcached: true,
        figures: &[
            Figure { what: "all hits: a neighbour's `get`, p99, ms", goal: Goal::AtMost(10.0) },
            Figure { what: "all hits: longest, ms", goal: Goal::Shown },
            Figure { what: "all misses: a neighbour's `get`, p99, ms", goal: Goal::AtMost(10.0) },
            Figure { what: "all misses: longest, ms", goal: Goal::Shown },
        ],
        run: long_get_lines,
    },
    Attack {
        name: "long-get-lines-php",
        what: "`-t 2`: four clients with such lines; beside them PHP reads the token with pecl memcache for 15 s",
        on_memcached: true,
        figures: &[
            Figure { what: "of PHP's reads, missed", goal: Goal::AtMost(0.0) },
            Figure { what: "of how many reads", goal: Goal::Shown },
        ],
        run: long_get_lines_php,
    },
];

const KEYS: usize = 500_000;
/// How long a neighbour of one line is looked at.
const AT_LEAST: Duration = Duration::from_secs(3);
const AT_MOST: Duration = Duration::from_secs(20);

/// `get` and as many times one key of one letter.
fn line(key: char) -> Vec<u8> {
    let mut line = b"get".to_vec();
    (0..KEYS).for_each(|_| line.extend([b' ', key as u8]));
    line.extend(b"\r\n");
    line
}

/// Sends the line, and reads and throws away its answer; stops where it is when it is told to. True if all came.
fn send_and_skip(port: u16, line: &[u8], stop: &AtomicBool) -> io::Result<bool> {
    let mut stream = TcpStream::connect_timeout(&local(port), TIMEOUT)?;
    stream.set_write_timeout(Some(TIMEOUT))?;
    stream.write_all(line)?;
    stream.set_read_timeout(Some(Duration::from_millis(200)))?;
    let (mut part, mut end) = (vec![0; 1 << 20], Vec::new());
    while !stop.load(Relaxed) {
        match stream.read(&mut part) {
            Ok(0) => return Err(ErrorKind::UnexpectedEof.into()),
            Ok(read) => {
                end.extend_from_slice(&part[read.saturating_sub(5)..read]);
                end.drain(..end.len().saturating_sub(5));
                if end == b"END\r\n" {
                    return Ok(true);
                }
            }
            Err(error) if error.kind() == ErrorKind::WouldBlock => {}
            Err(error) => return Err(error),
        }
    }
    Ok(false)
}

fn send_on_and_on(port: u16, line: &[u8], stop: &AtomicBool) {
    while !stop.load(Relaxed) {
        let _ = send_and_skip(port, line, stop);
    }
}

/// Beside one line, until its answer is there, and never shorter than it takes to see a stall.
fn long_get_line(subject: &Subject) -> Measured {
    let server = subject.cache(&["-t", "1"]);
    put(&server, "a", &[b'v'; 100]);
    let (stop, begun) = (AtomicBool::new(false), Instant::now());
    let neighbour = Neighbour::start(server.port(), Duration::from_millis(2));
    std::thread::scope(|scope| {
        let attacker = scope.spawn(|| send_and_skip(server.port(), &line('a'), &stop));
        while begun.elapsed() < AT_MOST && (!attacker.is_finished() || begun.elapsed() < AT_LEAST) {
            std::thread::sleep(Duration::from_millis(10));
        }
        stop.store(true, Relaxed);
    });
    let waits = neighbour.stop();
    vec![waits.at(0.5), waits.at(0.99), waits.longest()]
}

fn long_get_lines(subject: &Subject) -> Measured {
    let server = subject.cache(&["-t", "1"]);
    put(&server, "a", &[b'v'; 100]);
    let [hits, misses] = ['a', 'z'].map(|key| {
        let (line, stop) = (line(key), AtomicBool::new(false));
        std::thread::scope(|scope| {
            scope.spawn(|| send_on_and_on(server.port(), &line, &stop));
            // The first line is on its way before anybody looks.
            std::thread::sleep(Duration::from_millis(200));
            let neighbour = Neighbour::start(server.port(), Duration::from_millis(2));
            std::thread::sleep(Duration::from_secs(8));
            stop.store(true, Relaxed);
            neighbour.stop()
        })
    });
    vec![hits.at(0.99), hits.longest(), misses.at(0.99), misses.longest()]
}

fn long_get_lines_php(subject: &Subject) -> Measured {
    let wechat = Wechat::start();
    let flags = vec!["-t".to_owned(), "2".to_owned()];
    let server = subject.node(&wechat, Plan { flags, ..Plan::default() });
    put(&server, "a", &[b'v'; 100]);
    let (line, stop) = (line('a'), AtomicBool::new(false));
    let said = std::thread::scope(|scope| {
        (0..4).for_each(|_| drop(scope.spawn(|| send_on_and_on(server.port(), &line, &stop))));
        std::thread::sleep(Duration::from_millis(200));
        let said = php_reads(server.port(), Duration::from_secs(15));
        stop.store(true, Relaxed);
        said
    });
    said.unwrap_or_else(|| vec![Value::Null, Value::Null])
}

/// What a script sees that reads the token again and again. Nothing without PHP and the extension.
fn php_reads(port: u16, time: Duration) -> Option<Measured> {
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/benches/attacks/read_token.php");
    let mut child = Command::new("php")
        .arg(script)
        .args([&port.to_string(), APPID, &time.as_secs().to_string()])
        .stdout(Stdio::piped())
        .spawn()
        .ok()?;
    let begun = Instant::now();
    while child.try_wait().ok()?.is_none() {
        if begun.elapsed() > time + TIMEOUT {
            let _ = child.kill();
        }
        std::thread::sleep(Duration::from_millis(20));
    }
    let said = child.wait_with_output().ok()?.stdout;
    let figures: (u64, u64) = serde_json::from_slice(&said).ok()?;
    Some(vec![json!(figures.0), json!(figures.1)])
}
