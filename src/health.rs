//! `tokencached health`: asks the server that runs with this configuration whether it is well. For the health checks of
//! containers and load balancers, which have no curl.
//!
//! Never logs in, never asks for a value, never shows a secret. One deadline holds for all of it.

mod connection;

use std::net::SocketAddr;
use std::time::Duration;

use tokio::time::Instant;

use self::connection::Connection;
use crate::app::Options;
use crate::http_api;
use crate::network::reached_locally;
use crate::server::{self, ListenAt, Listener};

/// Between two questions of [`wait`].
const ASK_AGAIN: Duration = Duration::from_millis(100);
/// No answer is longer.
const ANSWER_BYTES_MAX: usize = 16 << 10;
/// A request of the binary protocol for the version.
const BINARY_VERSION: [u8; 24] = [0x80, 0x0b, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];
/// How each answer of the binary protocol begins.
const BINARY_ANSWER: u8 = 0x81;

/// Asked of the HTTP API, if there is one: whether it answers and goes on renewing.
pub const IS_ALIVE: &str = "/livez";
/// The same: whether clients may be sent to it.
pub const IS_READY: &str = "/readyz";

/// Asks until the answer is good or the time is over. Either answer is a sentence.
pub async fn wait(config: &Options, path: &str, timeout: Duration, at_most: Duration) -> Result<String, String> {
    let end = Instant::now() + at_most;
    loop {
        let left = end.saturating_duration_since(Instant::now());
        let timeout = if at_most.is_zero() { timeout } else { timeout.min(left) };
        let answer = examine(config, path, timeout).await;
        if answer.is_ok() || Instant::now() + ASK_AGAIN > end {
            return answer;
        }
        tokio::time::sleep(ASK_AGAIN).await;
    }
}

/// Asks once: the memcached port, then the HTTP API if there is one. Either answer is a sentence.
pub async fn examine(config: &Options, path: &str, timeout: Duration) -> Result<String, String> {
    let asked = tokio::time::timeout(timeout, ask(config, path)).await;
    let said = asked.unwrap_or_else(|_| Err(format!("no answer within {} s", seconds(timeout))));
    said.map(|what| format!("healthy: {what}")).map_err(|what| format!("not healthy: {what}"))
}

/// What is left of a time that is waited for has more digits than anybody reads.
fn seconds(time: Duration) -> f64 {
    Duration::from_millis(u64::try_from(time.as_millis()).unwrap_or(u64::MAX)).as_secs_f64()
}

async fn ask(config: &Options, path: &str) -> Result<String, String> {
    let listeners = config.listeners();
    let mut said = Vec::new();
    // One without TLS costs both sides less.
    if let Some(listener) = listeners.iter().min_by_key(|listener| listener.tls) {
        let at = shown(&listener.at);
        ask_memcached_port(listener, config.server.protocol).await.map_err(|what| format!("{at}: {what}"))?;
        said.push(format!("{at} answers"));
    }
    if let Some((http, at)) = config.http.as_ref().and_then(|http| Some((http, *http.listen.first()?))) {
        let url = format!("{}://{at}{path}", if http.tls.is_some() { "https" } else { "http" });
        let answer = ask_http_api(http, at, path).await.map_err(|what| format!("{url}: {what}"))?;
        said.push(format!("{url} says {answer:?}"));
    }
    if said.is_empty() { Err("the server listens nowhere".to_owned()) } else { Ok(said.join(", ")) }
}

fn shown(at: &ListenAt) -> String {
    match at {
        ListenAt::Tcp(address) => address.to_string(),
        ListenAt::Unix { path, .. } => path.display().to_string(),
    }
}

/// Any answer of the protocol will do: a client that has to log in first, or that comes when there are too many, has been
/// answered by a server that lives.
async fn ask_memcached_port(listener: &Listener, protocol: server::Protocol) -> Result<(), String> {
    let mut connection = match &listener.at {
        ListenAt::Unix { path, .. } => Connection::unix(path).await,
        ListenAt::Tcp(address) => Connection::tcp(&reached_by(*address)?).await,
    }
    .map_err(|error| format!("cannot connect: {error}"))?;
    if listener.tls && !connection.start_tls().await? {
        return Ok(());
    }
    let question = match protocol {
        server::Protocol::Binary => &BINARY_VERSION[..],
        server::Protocol::Ascii | server::Protocol::Auto => b"version\r\n",
    };
    let Some(answer) = connection.ask(question, is_complete, ANSWER_BYTES_MAX).await? else { return Ok(()) };
    let text = [&b"VERSION "[..], b"CLIENT_ERROR ", b"SERVER_ERROR ", b"ERROR"];
    if answer.first() == Some(&BINARY_ANSWER) || text.iter().any(|word| answer.starts_with(word)) {
        Ok(())
    } else if answer.is_empty() {
        Err("the server closed the connection without an answer".to_owned())
    } else {
        Err("what answers there is no memcached server".to_owned())
    }
}

fn is_complete(answer: &[u8]) -> bool {
    if answer.first() == Some(&BINARY_ANSWER) { answer.len() >= BINARY_VERSION.len() } else { answer.ends_with(b"\n") }
}

/// Gives the word of the server about itself.
async fn ask_http_api(options: &http_api::Options, address: SocketAddr, path: &str) -> Result<String, String> {
    let reached = reached_by(address)?;
    let connected = Connection::tcp(&reached).await;
    let mut connection = connected.map_err(|error| format!("cannot connect: {error}"))?;
    if options.tls.is_some() && !connection.start_tls().await? {
        return Err("the TLS handshake is refused".to_owned());
    }
    let host = reached.first().unwrap_or(&address);
    let request = format!("GET {path} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n");
    let answer = connection.ask(request.as_bytes(), |_| false, ANSWER_BYTES_MAX).await?.unwrap_or_default();
    let answer = String::from_utf8_lossy(&answer);
    let code = answer.strip_prefix("HTTP/1.1 ").and_then(|rest| rest.get(..3));
    let code = code.filter(|code| code.bytes().all(|byte| byte.is_ascii_digit()));
    let word = answer.split_once("\r\n\r\n").and_then(|(_, body)| word_of(body));
    match (code, word) {
        (Some("200"), Some(word)) => Ok(word),
        (Some(code), Some(word)) => Err(format!("HTTP status {code}, {word:?}")),
        (Some(code), None) => Err(format!("HTTP status {code}")),
        (None, _) => Err("the answer is no HTTP".to_owned()),
    }
}

fn word_of(body: &str) -> Option<String> {
    let body: serde_json::Value = serde_json::from_str(body).ok()?;
    Some(body.get("status")?.as_str()?.chars().take(60).collect())
}

fn reached_by(address: SocketAddr) -> Result<Vec<SocketAddr>, String> {
    let port = address.port();
    if port == 0 {
        return Err("the configuration says \"any free port\", so nobody knows which one to ask".to_owned());
    }
    Ok(reached_locally(address.ip()).into_iter().map(|ip| SocketAddr::new(ip, port)).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_address_of_the_machine_is_asked_on_its_own() {
        let reached = |text: &str| reached_by(text.parse().unwrap()).unwrap();
        let all = |texts: &[&str]| texts.iter().map(|text| text.parse().unwrap()).collect::<Vec<SocketAddr>>();
        assert_eq!(reached("0.0.0.0:11211"), all(&["127.0.0.1:11211"]));
        assert_eq!(reached("[::]:11211"), all(&["[::1]:11211", "127.0.0.1:11211"]));
        assert_eq!(reached("10.0.0.5:11211"), all(&["10.0.0.5:11211"]));
        assert!(reached_by("127.0.0.1:0".parse().unwrap()).is_err());
    }

    #[test]
    fn an_answer_ends_where_the_protocol_says_so() {
        assert!(is_complete(b"VERSION 1.6.45\r\n") && !is_complete(b"VERSION 1.6"));
        assert!(is_complete(&[&[0x81u8][..], &[0; 23]].concat()) && !is_complete(&[0x81, 0x0b]));
    }

    #[test]
    fn the_word_of_an_answer_is_its_status() {
        assert_eq!(word_of("{\"status\":\"ok\"}"), Some("ok".to_owned()));
        assert_eq!(word_of("{\"status\":7}"), None);
        assert_eq!(word_of("<html>"), None);
    }
}
