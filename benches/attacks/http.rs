//! Attacks on the HTTP port: wrong secrets beside right ones, requests that come half, and what monitoring asks for.

use std::io::{self, Read, Write};
use std::net::{Ipv4Addr, TcpStream};
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use tokencached::sandbox::Options;

use crate::attack::{Attack, Figure, Goal, Measured};
use crate::client::{local, stream_from};
use crate::server::Server;
use crate::subject::{APPID, Plan, SECRET, Subject, Wechat, becomes_true, free_port};

pub const ATTACKS: &[Attack] = &[
    Attack {
        name: "wrong-secret",
        what: "a wrong AppSecret twice a second on `/cgi-bin/token`, and from the same address in 20 s",
        on_memcached: false,
        figures: &[
            Figure { what: "of 117 calls with the right AppSecret, refused", goal: Goal::AtMost(0.0) },
            Figure { what: "of 117 with a bearer key, refused", goal: Goal::AtMost(0.0) },
        ],
        run: wrong_secret,
    },
    Attack {
        name: "wrong-key-addresses",
        what: "10,000 addresses, each with eight wrong keys",
        on_memcached: false,
        figures: &[
            Figure { what: "of 20 new addresses with a right key, refused", goal: Goal::AtMost(0.0) },
            Figure { what: "resident memory grown by, MB", goal: Goal::AtMost(10.0) },
        ],
        run: wrong_key_addresses,
    },
    Attack {
        name: "half-sent-requests",
        what: "256 half-sent HTTP requests from eight addresses",
        on_memcached: false,
        figures: &[
            Figure { what: "of 20 calls of `/livez` in 5 s, answered 200", goal: Goal::AtLeast(20.0) },
            Figure { what: "of 20 calls of `/readyz`, answered 200", goal: Goal::AtLeast(20.0) },
        ],
        run: half_sent_requests,
    },
    Attack {
        name: "health-without-host",
        what: "HTTP/1.0 without Host, as HAProxy sends it, and an unlisted name",
        on_memcached: false,
        figures: &[
            Figure { what: "`/livez` without Host, status", goal: Goal::Is(200.0) },
            Figure { what: "`/readyz` without Host, status", goal: Goal::Is(200.0) },
            Figure { what: "`/livez` with an unlisted name, status", goal: Goal::Is(200.0) },
            Figure { what: "`/v1/apps` with an unlisted name, status", goal: Goal::Is(421.0) },
        ],
        run: health_without_host,
    },
    Attack {
        name: "one-blocked-of-200",
        what: "200 apps, of one the AppSecret is frozen",
        on_memcached: false,
        figures: &[Figure { what: "`/readyz`, status", goal: Goal::Is(200.0) }],
        run: one_blocked,
    },
    Attack {
        name: "metrics-10000-apps",
        what: "`/metrics` with 10,000 apps that are all well",
        on_memcached: false,
        figures: &[
            Figure { what: "size, MB", goal: Goal::AtMost(1.0) },
            Figure { what: "apps that are well by then", goal: Goal::Shown },
        ],
        run: metrics_of_many,
    },
    Attack {
        name: "after-above-generation",
        what: "`?after=` a generation that is yet to come, `wait_s=20`",
        on_memcached: false,
        figures: &[Figure { what: "answered after, ms", goal: Goal::AtMost(1000.0) }],
        run: after_above_generation,
    },
];

const TIMEOUT: Duration = Duration::from_secs(5);
const KEY: &str = "right-0123456789abcdef0123456789abcdef";

pub struct Answer {
    pub status: u16,
    pub body: String,
}

/// A request from the machine's own address, with the Host of the port.
pub fn get(port: u16, path: &str) -> io::Result<Answer> {
    let head = format!("GET {path} HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\nConnection: close\r\n\r\n");
    exchange(TcpStream::connect_timeout(&local(port), TIMEOUT)?, &head)
}

fn get_from(from: Ipv4Addr, port: u16, path: &str, headers: &str) -> io::Result<Answer> {
    let head = format!("GET {path} HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\nConnection: close\r\n{headers}\r\n");
    exchange(stream_from(from, local(port), TIMEOUT)?, &head)
}

fn exchange(mut stream: TcpStream, head: &str) -> io::Result<Answer> {
    stream.set_read_timeout(Some(Duration::from_secs(30)))?;
    stream.write_all(head.as_bytes())?;
    let mut text = Vec::new();
    stream.read_to_end(&mut text)?;
    let text = String::from_utf8_lossy(&text);
    let status = text.split(' ').nth(1).and_then(|status| status.parse().ok()).ok_or(io::ErrorKind::InvalidData)?;
    let body = text.split_once("\r\n\r\n").map(|(_, body)| body.to_owned()).unwrap_or_default();
    Ok(Answer { status, body })
}

/// A node with an HTTP port that wants keys, and that port.
fn keyed(subject: &Subject, wechat: &Wechat) -> (Server, u16) {
    let http_port = free_port();
    let tables = format!("[side]\nlisten = [\"127.0.0.1:{http_port}\"]\nkeys_file = \"{{folder}}/keys\"");
    let keys = ("keys", format!("ops {KEY} status read refresh\n"));
    let server = subject.node(wechat, Plan { tables, files: vec![keys], ..Plan::default() });
    (server, http_port)
}

/// A node with an HTTP port for this machine.
fn open(subject: &Subject, wechat: &Wechat) -> (Server, u16) {
    let http_port = free_port();
    let tables = format!("[side]\nlisten = [\"127.0.0.1:{http_port}\"]");
    let server = subject.node(wechat, Plan { tables, ..Plan::default() });
    (server, http_port)
}

fn token_path(secret: &str) -> String {
    format!("/cgi-bin/token?grant_type=client_credential&appid={APPID}&secret={secret}")
}

fn bearer(key: &str) -> String {
    format!("Authorization: Bearer {key}\r\n")
}

fn wrong_secret(subject: &Subject) -> Measured {
    const CALLS: u32 = 117;
    let wechat = Wechat::start();
    let (_server, port) = keyed(subject, &wechat);
    let every = Duration::from_secs(20) / CALLS;
    let (begun, mut wrong_at) = (Instant::now(), Duration::ZERO);
    let (mut secrets, mut keys) = (0, 0);
    for call in 0..CALLS {
        if begun.elapsed() >= wrong_at {
            let _ = get(port, &token_path("0000000000000000000000000000dead"));
            wrong_at += Duration::from_millis(500);
        }
        let right = get(port, &token_path(SECRET));
        secrets += u32::from(!right.is_ok_and(|answer| answer.body.contains("\"access_token\"")));
        let credential = format!("/v1/apps/{APPID}/credentials/access_token");
        let right = get_from(Ipv4Addr::LOCALHOST, port, &credential, &bearer(KEY));
        keys += u32::from(!right.is_ok_and(|answer| answer.status == 200));
        std::thread::sleep((every * (call + 1)).saturating_sub(begun.elapsed()));
    }
    vec![json!(secrets), json!(keys)]
}

fn wrong_key_addresses(subject: &Subject) -> Measured {
    let wechat = Wechat::start();
    let (server, port) = keyed(subject, &wechat);
    let before = server.rss();
    std::thread::scope(|scope| {
        for thread in 0..4 {
            scope.spawn(move || (thread..10_000).step_by(4).for_each(|n| send_wrong_keys(address(n), port)));
        }
    });
    let grown = server.rss().saturating_sub(before);
    let right = |n| get_from(Ipv4Addr::new(127, 200, 0, n), port, "/v1/apps", &bearer(KEY));
    let refused = (1..=20).filter(|&n| !right(n).is_ok_and(|answer| answer.status == 200)).count();
    vec![json!(refused), json!(grown as f64 / 1e6)]
}

fn address(n: u16) -> Ipv4Addr {
    let [high, low] = n.to_be_bytes();
    Ipv4Addr::new(127, 1 + high, low, 9)
}

/// Eight on one connection, faster than an answer comes.
fn send_wrong_keys(from: Ipv4Addr, port: u16) {
    let wrong = bearer("wrong-0123456789abcdef0123456789abcdef");
    let one = format!("GET /v1/apps HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\n{wrong}\r\n");
    let last = one.replace("\r\n\r\n", "\r\nConnection: close\r\n\r\n");
    let _ = stream_from(from, local(port), TIMEOUT).and_then(|stream| exchange(stream, &(one.repeat(7) + &last)));
}

fn half_sent_requests(subject: &Subject) -> Measured {
    let wechat = Wechat::start();
    let (_server, port) = open(subject, &wechat);
    let half = |n: u16| {
        let mut stream = stream_from(Ipv4Addr::new(127, 0, 1, (n / 32) as u8 + 1), local(port), TIMEOUT).ok()?;
        stream.write_all(b"GET / HTTP/1.1\r\nHos").ok()?;
        Some(stream)
    };
    let _half: Vec<_> = (0..256).map(half).collect();
    std::thread::sleep(Duration::from_millis(300));
    let mut answered = [0; 2];
    for _ in 0..20 {
        for (path, answered) in ["/livez", "/readyz"].iter().zip(&mut answered) {
            *answered += u32::from(get(port, path).is_ok_and(|answer| answer.status == 200));
        }
        std::thread::sleep(Duration::from_millis(250));
    }
    answered.map(Value::from).to_vec()
}

fn health_without_host(subject: &Subject) -> Measured {
    let wechat = Wechat::start();
    let (_server, port) = open(subject, &wechat);
    let ask = |head: &str| {
        let stream = TcpStream::connect_timeout(&local(port), TIMEOUT).ok();
        json!(stream.and_then(|stream| exchange(stream, head).ok()).map(|answer| answer.status))
    };
    let named = "HTTP/1.1\r\nHost: cache.example.com\r\nConnection: close\r\n\r\n";
    vec![
        ask("GET /livez HTTP/1.0\r\n\r\n"),
        ask("GET /readyz HTTP/1.0\r\n\r\n"),
        ask(&format!("GET /livez {named}")),
        ask(&format!("GET /v1/apps {named}")),
    ]
}

fn one_blocked(subject: &Subject) -> Measured {
    let wechat = Wechat::with(200, Options::default());
    wechat.freeze_secret(&format!("wx{:016x}", 7), true);
    let (server, port) = open(subject, &wechat);
    let status = || get(port, "/readyz").ok().map(|answer| answer.status);
    // All have had an answer by then, whatever it was.
    becomes_true(Duration::from_secs(15), || live_tokens(&server) >= 199 && status() == Some(200));
    vec![json!(status())]
}

/// How many apps have a live token, from `stats tokens`.
fn live_tokens(server: &Server) -> usize {
    let read = || {
        let mut client = crate::client::Client::connect(server.port(), TIMEOUT).ok()?;
        client.send("stats tokens\r\n").ok()?;
        let mut live = 0;
        loop {
            let line = client.line().ok()?;
            if line == "END\r\n" {
                return Some(live);
            }
            live += usize::from(line.ends_with(":state fresh\r\n") || line.ends_with(" fresh\r\n"));
        }
    };
    read().unwrap_or(0)
}

fn metrics_of_many(subject: &Subject) -> Measured {
    const APPS: usize = 10_000;
    let wechat = Wechat::with(APPS, Options::default());
    let (server, port) = open(subject, &wechat);
    // The first calls are 5 ms apart.
    becomes_true(Duration::from_secs(75), || live_tokens(&server) == APPS);
    let live = live_tokens(&server);
    let answer = get(port, "/metrics").ok();
    vec![json!(answer.map(|answer| answer.body.len() as f64 / 1e6)), json!(live)]
}

fn after_above_generation(subject: &Subject) -> Measured {
    let wechat = Wechat::start();
    let (_server, port) = keyed(subject, &wechat);
    let begun = Instant::now();
    let path = format!("/v1/apps/{APPID}/credentials/access_token?after=1000000&wait_s=20");
    let answer = get_from(Ipv4Addr::LOCALHOST, port, &path, &bearer(KEY));
    vec![json!(answer.ok().map(|_| begun.elapsed().as_secs_f64() * 1e3))]
}
