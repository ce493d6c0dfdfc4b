//! What clients of the HTTP API cannot do: take it over, or hold up memcached's clients.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};

use super::{API_HEADER, HttpNode, credential};
use crate::support::{APPID, SECRET, TIMEOUT, Wechat, wait_for};

fn connect(http: &HttpNode) -> TcpStream {
    let stream = TcpStream::connect(http.address).unwrap();
    stream.set_read_timeout(Some(TIMEOUT)).unwrap();
    stream
}

#[test]
fn five_hundred_slow_clients_do_not_disturb_the_memcached_port() {
    let wechat = Wechat::start();
    let lines = "max_connections = 600\nmax_connections_per_peer = 600\nrequests_per_s = 10000";
    // Theirs are not counted among memcached clients: fewer of those are allowed than there are of them.
    let http = HttpNode::start(&wechat, lines, "max_connections = 100", "aliases = [\"access_token\"]");
    http.token(&[API_HEADER]);
    let mut slow: Vec<TcpStream> = (0..500)
        .map(|n| {
            let mut stream = connect(&http);
            // Some stop in a head, some in a body, some listen and never read.
            let part = match n % 3 {
                0 => format!("GET /v1/status HTTP/1.1\r\nHost: {}\r\nX-Slow", http.address),
                1 => {
                    format!(
                        "POST /login HTTP/1.1\r\nHost: {}\r\n{API_HEADER}\r\nContent-Length: 99\r\n\r\n{{",
                        http.address
                    )
                }
                _ => format!("GET /v1/apps HTTP/1.1\r\nHost: {}\r\n\r\n", http.address),
            };
            stream.write_all(part.as_bytes()).unwrap();
            stream
        })
        .collect();
    let current = || http.get("/v1/status", &[]).json()["figures"]["http_connections"].as_u64().unwrap();
    wait_for("all of them to be there", || (current() >= 500).then_some(()));
    let mut client = http.node.connect();
    for (n, slow) in slow.iter_mut().enumerate() {
        client.expect(
            format!("set k{n} 0 0 1\r\nx\r\nget k{n}\r\n"),
            format!("STORED\r\nVALUE k{n} 0 1\r\nx\r\nEND\r\n"),
        );
        assert!(client.get("access_token").is_some());
        // They go on, a byte at a time.
        let _ = slow.write_all(b"x");
    }
    assert_eq!(client.stat("", "managed_hits").unwrap(), "500");
    assert_eq!(client.stat("", "get_hits").unwrap(), "1000");
    assert!(current() > 1, "and they were there all the time");
}

/// From an address of this machine of one's choice.
fn connect_from(http: &HttpNode, ip: [u8; 4]) -> TcpStream {
    use rustix::net::{AddressFamily, SocketType, bind, connect, socket};
    let socket = socket(AddressFamily::INET, SocketType::STREAM, None).unwrap();
    bind(&socket, &SocketAddr::from((ip, 0))).unwrap();
    connect(&socket, &http.address).unwrap();
    TcpStream::from(socket)
}

#[test]
fn when_all_connections_are_being_answered_health_and_short_calls_still_are() {
    let wechat = Wechat::start();
    let http = HttpNode::start(&wechat, "max_connections_per_peer = 3", "", "");
    let (_, generation) = http.token(&[API_HEADER]);
    let path = credential("access_token", &format!("?after={generation}&wait_s=60"));
    let held: Vec<TcpStream> = (0..3)
        .map(|_| {
            let mut poll = connect(&http);
            let request = format!("GET {path} HTTP/1.1\r\nHost: {}\r\n{API_HEADER}\r\n\r\n", http.address);
            poll.write_all(request.as_bytes()).unwrap();
            poll
        })
        .collect();
    let refused = wait_for("no more room", || Some(http.get("/v1/apps", &[])).filter(|answer| answer.status == 503));
    assert_eq!((refused.problem().as_str(), refused.headers["retry-after"].as_str()), ("busy", "1"));
    for path in ["/livez", "/readyz", "/metrics"] {
        assert_eq!(http.get(path, &[]).status, 200, "{path}");
    }
    let path = format!("/cgi-bin/token?grant_type=client_credential&appid={APPID}&secret={SECRET}");
    assert!(http.get(&path, &[]).json()["access_token"].is_string());
    drop(held);
    wait_for("room", || (http.get("/v1/apps", &[]).status == 200).then_some(()));
}

#[test]
fn half_sent_requests_do_not_take_the_place_of_whole_ones() {
    let wechat = Wechat::start();
    let http = HttpNode::start(&wechat, "", "", "");
    let (_, generation) = http.token(&[API_HEADER]);
    let mut poll = connect(&http);
    let path = credential("access_token", &format!("?after={generation}&wait_s=1"));
    let head = format!("GET {path} HTTP/1.1\r\nHost: {}\r\nConnection: close\r\n{API_HEADER}\r\n\r\n", http.address);
    poll.write_all(head.as_bytes()).unwrap();
    let mut half = Vec::new();
    for n in 0..600_u16 {
        // Half of them from one address, half from as many as they are.
        let [high, low] = n.to_be_bytes();
        let mut stream = connect_from(&http, if n % 2 == 0 { [127, 0, 0, 1] } else { [127, 1, high, low] });
        let part = match n % 3 {
            0 => "GET /livez HTTP/1.1\r\nHost: ".to_owned(),
            1 => format!("POST /login HTTP/1.1\r\nHost: {}\r\nContent-Length: 99\r\n\r\n{{", http.address),
            _ => String::new(),
        };
        let _ = stream.write_all(part.as_bytes());
        half.push(stream);
        if n % 100 == 99 {
            for path in ["/livez", "/readyz", "/v1/status", "/metrics"] {
                assert_eq!(http.get(path, &[]).status, 200, "{path} beside {n}");
            }
        }
    }
    let mut answer = String::new();
    poll.read_to_string(&mut answer).unwrap();
    assert!(answer.starts_with("HTTP/1.1 404 "), "whoever was being answered still is: {answer:?}");
    http.node.await_log("connections that have sent no whole request are closed to make room");
}

#[test]
fn large_heads_and_bodies_are_not_taken() {
    let wechat = Wechat::start();
    let http = HttpNode::start(&wechat, "", "", "");
    let large = http.post(&credential("access_token", "/refresh"), &[API_HEADER], &"x".repeat(100_000));
    assert_eq!(large.problem(), "too-large");
    let line = format!("X-Large: {}", "x".repeat(100_000));
    assert_eq!(http.get("/livez", &[&line]).status, 431);
    let many: Vec<String> = (0..200).map(|n| format!("X-{n}: y")).collect();
    let many: Vec<&str> = many.iter().map(String::as_str).collect();
    assert_eq!(http.get("/livez", &many).status, 431);
    assert_eq!(http.get("/livez", &[]).status, 200);
}

#[test]
#[ignore = "waits for real time"]
fn a_head_that_does_not_end_ends_the_connection() {
    let wechat = Wechat::start();
    let http = HttpNode::start(&wechat, "", "", "");
    let mut stream = connect(&http);
    stream.write_all(b"GET /livez HTTP/1.1\r\nHost: ").unwrap();
    let mut rest = Vec::new();
    stream.read_to_end(&mut rest).unwrap();
    assert!(!String::from_utf8_lossy(&rest).contains("200"), "{}", rest.escape_ascii());
}

#[test]
fn whoever_asks_too_often_is_put_off() {
    let wechat = Wechat::start();
    let http = HttpNode::start(&wechat, "requests_per_s = 1", "", "");
    let answers: Vec<u16> = (0..10).map(|_| http.get("/v1/session", &[]).status).collect();
    assert!(answers.starts_with(&[200; 4]), "{answers:?}");
    let put_off = wait_for("a refusal", || Some(http.get("/v1/session", &[])).filter(|answer| answer.status == 429));
    assert_eq!((put_off.problem().as_str(), put_off.headers["retry-after"].as_str()), ("too-many-requests", "1"));
    // Health and the page's files are not counted: they cost nothing, and the first is asked for by machines. It need not be
    // ready yet.
    assert!(["/livez", "/readyz", "/"].iter().all(|path| (0..20).all(|_| http.get(path, &[]).status != 429)));
}

#[test]
fn the_end_of_the_server_ends_long_polls_and_streams() {
    let wechat = Wechat::start();
    let mut http = HttpNode::start(&wechat, "", "", "");
    let (_, generation) = http.token(&[API_HEADER]);
    let mut events = super::Events::listen(&http, &[]);
    events.wait("hello", |_| true);
    let mut poll = connect(&http);
    let path = credential("access_token", &format!("?after={generation}&wait_s=60"));
    poll.write_all(format!("GET {path} HTTP/1.1\r\nHost: {}\r\n{API_HEADER}\r\n\r\n", http.address).as_bytes())
        .unwrap();
    let connections = || http.get("/v1/status", &[]).json()["figures"]["http_connections"].as_u64().unwrap();
    wait_for("both to be there", || (connections() >= 3).then_some(()));
    http.node.signal("TERM");
    assert!(http.node.wait().success());
    events.rest();
    let mut answer = String::new();
    poll.read_to_string(&mut answer).unwrap();
    assert!(answer.is_empty() || answer.starts_with("HTTP/1.1 404 "), "{answer}");
    assert!(!http.node.log().contains("panic: this is a bug"), "{APPID}: {}", http.node.log());
}
