//! Attacks on what there is only so much of: descriptors, guesses of passwords, patience, calls to WeChat.

use std::net::{Ipv4Addr, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use tokencached::sandbox::{FaultKind, InjectedFault};

use crate::attack::{Attack, Figure, Goal, Measured};
use crate::client::{Client, TIMEOUT, local};
use crate::server::Server;
use crate::subject::{APPID, Plan, Subject, TOKEN_KEY, Wechat, put};

pub const ATTACKS: &[Attack] = &[
    Attack {
        name: "descriptors",
        what: "128 open files at most, `-c 1024`: 200 clients connect and stay, tokens live 4 s",
        on_memcached: false,
        figures: &[
            Figure { what: "reads on a connection of before, for 16 s", goal: Goal::Shown },
            Figure { what: "of them missed or unanswered", goal: Goal::AtMost(0.0) },
            Figure { what: "of them tokens that WeChat refuses", goal: Goal::AtMost(0.0) },
            Figure { what: "token renewed in the last 5 s", goal: Goal::Yes },
        ],
        run: descriptors,
    },
    Attack {
        name: "http-before-login",
        what: "`-Y`: an HTTP request before the login",
        on_memcached: true,
        figures: &[
            Figure { what: "hung up on", goal: Goal::Yes },
            Figure { what: "a `set` in its body is answered", goal: Goal::No },
        ],
        run: http_before_login,
    },
    Attack {
        name: "binary-stat-conns",
        what: "`rights = \"ordinary\"`: binary `stat conns`, which text clients are refused",
        on_memcached: false,
        figures: &[Figure { what: "shows who is connected", goal: Goal::No }],
        run: binary_stat_conns,
    },
    Attack {
        name: "password-guesses",
        what: "`-Y`: 64 connections from one address guess passwords for 5 s",
        on_memcached: true,
        figures: &[
            Figure { what: "guesses answered a second", goal: Goal::AtMost(20.0) },
            Figure { what: "a right login from another address meanwhile, ms", goal: Goal::AtMost(1000.0) },
        ],
        run: password_guesses,
    },
    Attack {
        name: "typed-by-hand",
        what: "telnet: a letter each second, 15 letters",
        on_memcached: true,
        figures: &[Figure { what: "answered", goal: Goal::Yes }],
        run: typed_by_hand,
    },
    Attack {
        name: "calls-by-clients",
        what: "10 s of `delete` and of `set` with ever other values on the token's key, as fast as they are answered",
        on_memcached: false,
        figures: &[
            Figure { what: "such commands", goal: Goal::Shown },
            Figure { what: "calls to WeChat for them", goal: Goal::AtMost(5.0) },
        ],
        run: calls_by_clients,
    },
];

const USER: &str = "alice";
const PASSWORD: &str = "right-0123456789";

fn descriptors(subject: &Subject) -> Measured {
    let wechat = Wechat::short_lived(4);
    let flags = vec!["-c".to_owned(), "1024".to_owned()];
    let server = subject.node(&wechat, Plan { open_files: Some(128), flags, ..Plan::default() });
    let mut client = Client::connect(server.port(), Duration::from_secs(2)).unwrap();
    let _ = client.get(TOKEN_KEY);
    // One that is refused is tried again: that is what clients do.
    let crowd: Vec<_> = (0..200).map(|_| TcpStream::connect(local(server.port()))).collect();
    // The connection that was kept is no more, as after an hour of silence: the next call needs another.
    wechat.set_fault(APPID, InjectedFault::new(FaultKind::Reset).times(1));
    let (begun, mut reads, mut missed, mut refused) = (Instant::now(), 0, 0, 0);
    let (mut last, mut renewed) = (Vec::new(), begun);
    while begun.elapsed() < Duration::from_secs(16) {
        reads += 1;
        match client.get(TOKEN_KEY) {
            Ok(Some(token)) => {
                refused += u32::from(!wechat.accepts(&token));
                if token != last {
                    (last, renewed) = (token, Instant::now());
                }
            }
            _ => missed += 1,
        }
        std::thread::sleep(Duration::from_millis(100));
    }
    drop(crowd);
    let renews = renewed > begun && renewed.elapsed() < Duration::from_secs(5);
    vec![json!(reads), json!(missed), json!(refused), json!(renews)]
}

/// One that asks for a login.
fn guarded(subject: &Subject) -> Server {
    let wechat = Wechat::start();
    let users = ("users", format!("{USER}:{PASSWORD}\n"));
    let flags = vec!["-Y".to_owned(), "{folder}/users".to_owned()];
    subject.start(&wechat, Plan { files: vec![users], flags, state: "path = \"none\"".into(), ..Plan::default() })
}

fn http_before_login(subject: &Subject) -> Measured {
    let server = guarded(subject);
    let set = format!("set x 0 0 {}\r\n{USER} {PASSWORD}\r\n", USER.len() + 1 + PASSWORD.len());
    let request = format!("POST / HTTP/1.1\r\nHost: x\r\nContent-Length: {}\r\n\r\n{set}", set.len());
    let mut client = Client::connect(server.port(), Duration::from_secs(3)).unwrap();
    let _ = client.send(request);
    let mut answered = false;
    let hung_up = loop {
        match client.line() {
            Ok(line) => answered |= line == "STORED\r\n",
            Err(error) => break !matches!(error.kind(), std::io::ErrorKind::WouldBlock),
        }
    };
    vec![json!(hung_up), json!(answered)]
}

fn binary_stat_conns(subject: &Subject) -> Measured {
    let wechat = Wechat::start();
    let plan = Plan { server: "rights = \"ordinary\"".into(), state: "path = \"none\"".into(), ..Plan::default() };
    let server = subject.start(&wechat, plan);
    let mut client = Client::connect(server.port(), TIMEOUT).unwrap();
    // Magic, opcode `stat`, the key's length; the body's length in the fourth word.
    let mut request = vec![0x80, 0x10, 0, 5, 0, 0, 0, 0, 0, 0, 0, 5];
    request.resize(24, 0);
    request.extend(b"conns");
    client.send(request).unwrap();
    let head = client.read(24).unwrap();
    let (key_bytes, status) = (u16::from_be_bytes([head[2], head[3]]), u16::from_be_bytes([head[6], head[7]]));
    vec![json!(status == 0 && key_bytes > 0)]
}

/// The time until the login is through, ms.
fn login_ms(from: Ipv4Addr, port: u16, password: &str) -> Option<f64> {
    let begun = Instant::now();
    let mut client = Client::connect_from(from, port, TIMEOUT).ok()?;
    let answer = client.ask(login(password)).ok()?;
    (answer == "STORED\r\n").then(|| begun.elapsed().as_secs_f64() * 1e3)
}

fn login(password: &str) -> String {
    format!("set login 0 0 {}\r\n{USER} {password}\r\n", USER.len() + 1 + password.len())
}

fn password_guesses(subject: &Subject) -> Measured {
    const SECONDS: u64 = 5;
    let server = guarded(subject);
    let (stop, answered) = (AtomicBool::new(false), AtomicU64::new(0));
    let right = std::thread::scope(|scope| {
        for guesser in 0..64 {
            let (port, stop, answered) = (server.port(), &stop, &answered);
            scope.spawn(move || guess_on_and_on(port, guesser, stop, answered));
        }
        std::thread::sleep(Duration::from_secs(SECONDS / 2));
        let right = login_ms(Ipv4Addr::new(127, 0, 0, 77), server.port(), PASSWORD);
        std::thread::sleep(Duration::from_secs(SECONDS - SECONDS / 2));
        stop.store(true, Relaxed);
        right
    });
    vec![json!(answered.into_inner() / SECONDS), right.map_or(Value::Null, |ms| json!(ms))]
}

fn guess_on_and_on(port: u16, guesser: u32, stop: &AtomicBool, answered: &AtomicU64) {
    let mut client = None;
    for guess in 0.. {
        if stop.load(Relaxed) {
            return;
        }
        let Some(open) = client.take().or_else(|| Client::connect(port, Duration::from_secs(2)).ok()) else { continue };
        let mut open: Client = open;
        match open.ask(login(&format!("wrong-{guesser}-{guess}"))) {
            Ok(answer) => {
                answered.fetch_add(u64::from(answer.starts_with("CLIENT_ERROR authentication")), Relaxed);
                client = Some(open);
            }
            // Hung up on: the next on another connection, but not so fast that the machine runs out of ports.
            Err(_) => std::thread::sleep(Duration::from_millis(1)),
        }
    }
}

fn typed_by_hand(subject: &Subject) -> Measured {
    let server = subject.cache(&[]);
    put(&server, "typed_key", b"v");
    let mut client = Client::connect(server.port(), Duration::from_secs(5)).unwrap();
    for letter in b"get typed_key\r\n" {
        std::thread::sleep(Duration::from_secs(1));
        if client.send([*letter]).is_err() {
            return vec![json!(false)];
        }
    }
    vec![json!(client.line().is_ok_and(|line| line == "VALUE typed_key 0 1\r\n"))]
}

fn calls_by_clients(subject: &Subject) -> Measured {
    let wechat = Wechat::start();
    let server = subject.node(&wechat, Plan::default());
    let mut client = Client::connect(server.port(), TIMEOUT).unwrap();
    let before = wechat.calls(APPID).total();
    let (begun, mut commands) = (Instant::now(), 0);
    while begun.elapsed() < Duration::from_secs(10) {
        let value = format!("70_{:0133}", commands);
        if client.set(TOKEN_KEY, value.as_bytes()).is_err() || client.ask(format!("delete {TOKEN_KEY}\r\n")).is_err() {
            break;
        }
        commands += 2;
    }
    vec![json!(commands), json!(wechat.calls(APPID).total() - before)]
}
