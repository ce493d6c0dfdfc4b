//! The promise, watched: under the demo, 200 reads a second never see a miss or a token that WeChat refuses.
//!
//! A few seconds with very short lives by default. The whole of it, with the demo's own lifetime:
//! `SOAK_S=300 SOAK_LIFETIME=60s cargo test --release --test it soak -- --include-ignored --nocapture`

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::process::{Child, Stdio};
use std::time::{Duration, Instant};

use crate::support::{Client, TIMEOUT, free_address, tokencached, wait_for};

const READS_PER_S: u32 = 200;
const KEYS: [&str; 4] =
    ["access_token", "wx2222222222222222", "access_token:wx1111111111111111", "access_token:wx2222222222222222"];

struct Demo {
    child: Child,
    memcached: SocketAddr,
    sandbox: SocketAddr,
}

impl Demo {
    fn start(lifetime: &str) -> Demo {
        let memcached = free_address();
        let mut child = tokencached()
            .args(["demo", "-p", &memcached.port().to_string(), "--lifetime", lifetime])
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let mut said = BufReader::new(child.stdout.take().unwrap());
        let mut line = String::new();
        said.read_line(&mut line).unwrap();
        // What it goes on to say must have somewhere to go.
        std::thread::spawn(move || said.read_to_end(&mut Vec::new()));
        let address = line.split("http://").nth(1).unwrap_or_else(|| panic!("the demo said {line:?}"));
        let sandbox = address.trim().trim_end_matches('.').parse().unwrap();
        Demo { child, memcached, sandbox }
    }
}

impl Drop for Demo {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A cheap business call with the token; the answer's body.
fn business_call(api: &mut TcpStream, token: &str) -> String {
    let request = format!("GET /cgi-bin/get_api_domain_ip?access_token={token} HTTP/1.1\r\nHost: sandbox\r\n\r\n");
    api.write_all(request.as_bytes()).unwrap();
    let mut answer = Vec::new();
    let mut part = [0; 4096];
    loop {
        let read = api.read(&mut part).unwrap();
        assert!(read > 0, "the sandbox hung up");
        answer.extend_from_slice(&part[..read]);
        let text = String::from_utf8_lossy(&answer).into_owned();
        let Some((head, body)) = text.split_once("\r\n\r\n") else { continue };
        let length = head
            .to_lowercase()
            .split("content-length: ")
            .nth(1)
            .and_then(|rest| rest.lines().next().and_then(|number| number.trim().parse::<usize>().ok()));
        if length.is_some_and(|length| body.len() >= length) {
            return body.to_owned();
        }
    }
}

#[test]
#[ignore = "waits for real time"]
#[expect(clippy::disallowed_methods, reason = "so many reads a second")]
fn two_hundred_reads_a_second_never_see_a_miss_or_a_refused_token() {
    let seconds = std::env::var("SOAK_S").map_or(8, |text| text.parse().unwrap());
    let lifetime = std::env::var("SOAK_LIFETIME").unwrap_or("4s".to_owned());
    let demo = Demo::start(&lifetime);
    let mut client = wait_for("the demo to listen", || {
        TcpStream::connect(demo.memcached).ok().map(|_| Client::connect(demo.memcached))
    });
    let mut api = TcpStream::connect(demo.sandbox).unwrap();
    api.set_read_timeout(Some(TIMEOUT)).unwrap();
    let begun = Instant::now();
    let mut seen = std::collections::HashSet::new();
    let reads = seconds * READS_PER_S;
    for read in 0..reads {
        // The pace is the load, not a way to wait for something.
        let due = begun + Duration::from_secs(1) / READS_PER_S * read;
        std::thread::sleep(due.saturating_duration_since(Instant::now()));
        let key = KEYS[read as usize % KEYS.len()];
        let token = client.get(key).unwrap_or_else(|| panic!("a miss on {key} after {:?}", begun.elapsed()));
        let token = String::from_utf8(token).unwrap();
        let answer = business_call(&mut api, &token);
        assert!(answer.contains("ip_list"), "{key} after {:?}: {answer}", begun.elapsed());
        seen.insert(token);
    }
    println!("{reads} reads in {:?}, {} tokens seen, no miss, none refused", begun.elapsed(), seen.len());
    assert!(seen.len() > 2, "no renewal was seen");
}
