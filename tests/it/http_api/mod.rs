//! The HTTP API, over real HTTP against the real binary.

mod access;
mod api;
mod credentials;
mod deploy;
mod health;
mod jssdk;
mod limits;
mod openapi;
mod page;
mod wechat;

use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};

use serde_json::Value;

use crate::support::{APPID, Node, TIMEOUT, Wechat, wait_for};

/// Keys with all rights and with some; each name is its key's beginning.
pub const KEYS: &str = "\
ops ops-0123456789abcdef0123 status read refresh\n\
monitor monitor-0123456789abcdef status\n\
web web-0123456789abcdef0123 read:wx0123456789abcdef\n\
fixer fixer-0123456789abcdef0123 refresh:wx0123456789abcdef\n\
other other-0123456789abcdef0123 read:wxother refresh:wxother\n";

pub fn key(name: &str) -> &'static str {
    let line = KEYS.lines().find(|line| line.split(' ').next() == Some(name)).unwrap();
    line.split(' ').nth(1).unwrap()
}

pub fn bearer(name: &str) -> String {
    format!("Authorization: Bearer {}", key(name))
}

/// The header that no foreign page can send.
pub const API_HEADER: &str = "X-Tokencached: 1";

/// A server with an HTTP API.
pub struct HttpNode {
    pub node: Node,
    pub address: SocketAddr,
}

impl HttpNode {
    /// With these lines in `[http]`, `[server]` and the app's table.
    pub fn start(wechat: &Wechat, http: &str, server: &str, app: &str) -> HttpNode {
        let folder = tempfile::tempdir().unwrap();
        HttpNode::start_in(folder, wechat, http, server, app)
    }

    /// The same with the keys of [`KEYS`].
    pub fn keyed(wechat: &Wechat, http: &str, app: &str) -> HttpNode {
        let folder = tempfile::tempdir().unwrap();
        crate::support::write(folder.path(), "keys", KEYS);
        HttpNode::start_in(folder, wechat, &format!("keys_file = \"{{folder}}/keys\"\n{http}"), "", app)
    }

    pub fn start_in(folder: tempfile::TempDir, wechat: &Wechat, http: &str, server: &str, app: &str) -> HttpNode {
        // Whoever waits for something asks often.
        let rate = if http.contains("requests_per_s") { "" } else { "requests_per_s = 100000\n" };
        let http = format!("[http]\nlisten = [\"127.0.0.1:0\"]\n{rate}{http}\n");
        let node = Node::start_in(folder, &format!("{http}{}", wechat.config(server, app)), &[]);
        let address = node.http_address();
        HttpNode { node, address }
    }

    /// A request with these further header lines.
    pub fn ask(&self, method: &str, path: &str, headers: &[&str], body: &str) -> Answer {
        let host = format!("Host: {}", self.address);
        let named = headers.iter().any(|line| line.to_lowercase().starts_with("host:"));
        let host = if named { Vec::new() } else { vec![host.as_str()] };
        raw(self.address, method, path, &[&host, headers].concat(), body)
    }

    pub fn get(&self, path: &str, headers: &[&str]) -> Answer {
        self.ask("GET", path, headers, "")
    }

    pub fn post(&self, path: &str, headers: &[&str], body: &str) -> Answer {
        self.ask("POST", path, headers, body)
    }

    /// Waits until the app's access token is there, and gives it with its generation.
    pub fn token(&self, headers: &[&str]) -> (String, u64) {
        wait_for("a token", || {
            let answer = self.get(&credential("access_token", ""), headers);
            (answer.status == 200).then(|| {
                let value = answer.json();
                (value["token"].as_str().unwrap().to_owned(), value["generation"].as_u64().unwrap())
            })
        })
    }

    /// The credential as it is shown.
    pub fn shown(&self, credential_type: &str, headers: &[&str]) -> Value {
        let app = self.get(&format!("/v1/apps/{APPID}"), headers).json();
        let credentials = app["credentials"].as_array().unwrap_or_else(|| panic!("{app}"));
        credentials.iter().find(|shown| shown["type"] == credential_type).unwrap().clone()
    }
}

/// The path of one of the app's credentials, and what is asked of it.
pub fn credential(credential_type: &str, rest: &str) -> String {
    format!("/v1/apps/{APPID}/credentials/{credential_type}{rest}")
}

/// An answer.
#[derive(Debug)]
pub struct Answer {
    pub status: u16,
    pub headers: BTreeMap<String, String>,
    pub body: String,
}

impl Answer {
    #[track_caller]
    pub fn json(&self) -> Value {
        serde_json::from_str(&self.body).unwrap_or_else(|error| panic!("{error}: {self:?}"))
    }

    /// The name of a problem; the answer must have the form of one.
    #[track_caller]
    pub fn problem(&self) -> String {
        assert_eq!(self.headers["content-type"], "application/problem+json", "{self:?}");
        let problem = self.json();
        assert_eq!(problem["status"], self.status, "{problem}");
        assert!(!problem["detail"].as_str().unwrap().is_empty() && !problem["title"].as_str().unwrap().is_empty());
        problem["type"].as_str().unwrap().strip_prefix("urn:tokencached:problem:").unwrap().to_owned()
    }

    fn of(bytes: &[u8]) -> Answer {
        let text = String::from_utf8_lossy(bytes);
        let (head, body) = text.split_once("\r\n\r\n").unwrap_or_else(|| panic!("no answer: {text:?}"));
        let mut lines = head.lines();
        let status = lines.next().unwrap().split(' ').nth(1).unwrap().parse().unwrap();
        let headers = lines.filter_map(|line| line.split_once(": "));
        let headers = headers.map(|(name, value)| (name.to_lowercase(), value.to_owned())).collect();
        Answer { status, headers, body: body.to_owned() }
    }
}

/// One request on a connection of its own, with exactly these header lines.
pub fn raw(address: SocketAddr, method: &str, path: &str, headers: &[&str], body: &str) -> Answer {
    let mut stream = TcpStream::connect(address).unwrap();
    stream.set_read_timeout(Some(2 * TIMEOUT)).unwrap();
    exchange(&mut stream, method, path, headers, body)
}

#[expect(clippy::disallowed_methods, reason = "gives up after a time that no sound run takes")]
pub fn exchange<S: Read + Write>(stream: &mut S, method: &str, path: &str, headers: &[&str], body: &str) -> Answer {
    let mut request = format!("{method} {path} HTTP/1.1\r\nConnection: close\r\n");
    for line in headers {
        request += line;
        request += "\r\n";
    }
    if !body.is_empty() || method == "POST" {
        request += &format!("Content-Length: {}\r\n", body.len());
    }
    // The server may have answered and hung up before it has all.
    let _ = stream.write_all(format!("{request}\r\n{body}").as_bytes());
    let mut answer = Vec::new();
    let mut part = [0; 65536];
    let begun = std::time::Instant::now();
    loop {
        assert!(begun.elapsed() < 2 * TIMEOUT, "{method} {path} does not end");
        match stream.read(&mut part) {
            Ok(0) => break,
            Ok(read) => answer.extend_from_slice(&part[..read]),
            Err(error) if answer.is_empty() => panic!("{method} {path}: {error}"),
            Err(_) => break,
        }
    }
    Answer::of(&answer)
}

/// A stream of server-sent events.
pub struct Events {
    stream: TcpStream,
    text: String,
}

impl Events {
    pub fn listen(http: &HttpNode, headers: &[&str]) -> Events {
        let mut stream = TcpStream::connect(http.address).unwrap();
        stream.set_read_timeout(Some(TIMEOUT)).unwrap();
        let headers: String = headers.iter().map(|line| format!("{line}\r\n")).collect();
        let request = format!("GET /v1/events HTTP/1.1\r\nHost: {}\r\n{headers}\r\n", http.address);
        stream.write_all(request.as_bytes()).unwrap();
        Events { stream, text: String::new() }
    }

    /// Reads until an event of that name comes that fits.
    #[track_caller]
    #[expect(clippy::disallowed_methods, reason = "gives up after a time that no sound run takes")]
    pub fn wait(&mut self, name: &str, fits: impl Fn(&Value) -> bool) -> Value {
        let mut part = [0; 65536];
        let begun = std::time::Instant::now();
        loop {
            // Chunk sizes stand on lines of their own between events.
            while let Some(at) = self.text.find("\n\n") {
                let event: String = self.text.drain(..at + 2).collect();
                let named = event.split("event: ").nth(1).and_then(|rest| rest.split_once("\ndata: "));
                let Some((of, data)) = named else { continue };
                let data: Value = serde_json::from_str(data.trim()).unwrap_or_else(|error| panic!("{error}: {data}"));
                if of == name && fits(&data) {
                    return data;
                }
            }
            assert!(begun.elapsed() < TIMEOUT, "no such {name}");
            let read = self.stream.read(&mut part).unwrap();
            assert!(read > 0, "the stream ended: {}", self.text);
            self.text += &String::from_utf8_lossy(&part[..read]);
        }
    }

    /// Everything until the server ends the stream.
    pub fn rest(mut self) -> String {
        let mut bytes = Vec::new();
        let _ = self.stream.read_to_end(&mut bytes);
        self.text + &String::from_utf8_lossy(&bytes)
    }
}
