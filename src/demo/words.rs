//! What the demo of several nodes says to people. Texts only.

use std::fmt::Write;
use std::time::Duration;

use serde_json::{Map, Value};

use super::part::Part;
use super::several::{NODE_AGAIN, REDIS_AGAIN, Several};
use super::{FIRST_APPID, SECOND_APPID};

/// Fields of a log line that are said otherwise, or of no use here.
const LEFT_OUT: &[&str] = &["timestamp", "level", "message", "target"];

/// What runs where, and what to type.
pub fn welcome(several: &Several, sandbox: &str, lifetime: Duration) -> String {
    let (nodes, life) = (several.places.len(), lifetime.as_secs());
    let mut text = format!(
        "tokencached demo: {nodes} nodes, each a process of its own, and a simulated WeChat: {sandbox}\n\
         Two apps, whose tokens live {life} s, so you can watch them being renewed. {SECOND_APPID} is on the classic call, where each\n\
         fetch makes the token before it invalid: no two nodes may fetch beside each other. Nothing leaves this machine. Ctrl-C\n\
         ends everything.\n\n"
    );
    // Writing to a String cannot fail.
    for (part, place) in several.nodes().iter().zip(&several.places) {
        let (name, pid, listen, side) = (&part.name, part.pid, place.listen, place.side);
        let _ = writeln!(text, "{name}: memcached clients on {listen}, status page http://{side}/, pid {pid}");
    }
    text.push_str(&sharing(several));
    text.push_str(&reading(several));
    text.push_str(&killing(several));
    text.push_str(&asking(several, sandbox));
    text
}

fn sharing(several: &Several) -> String {
    match several.redis() {
        Some(redis) => {
            let (name, pid) = (&redis.name, redis.pid);
            format!("{name}: what they share, on a Unix socket, pid {pid}. Any node renews; the others take it over.\n")
        }
        None => format!(
            "{}, so node-1 renews and the others follow it by its side port. With one\n\
             (apt-get install redis-server) any node renews.\n",
            several.without.as_deref().unwrap_or_default()
        ),
    }
}

/// What a client would call the first node's address.
fn host(several: &Several) -> String {
    let ip = several.places[0].listen.ip();
    if ip.is_unspecified() { "127.0.0.1".to_owned() } else { ip.to_string() }
}

fn reading(several: &Several) -> String {
    let ports: Vec<String> = several.places.iter().map(|place| place.listen.port().to_string()).collect();
    let (ports, host) = (ports.join(" "), host(several));
    format!(
        r#"
Read from each: the same token everywhere, from memory:
  for port in {ports}; do printf 'get {SECOND_APPID}\r\nquit\r\n' | nc {host} $port | sed -n 2p; done
"#
    )
}

fn killing(several: &Several) -> String {
    let wait = NODE_AGAIN.as_secs();
    let mut text = format!(
        "\nEach renewal is told below: which node it was, and who has the new token. Kill that one, and read from the others; it\n\
         is started again after {wait} s with what it has on disk:\n"
    );
    for part in several.nodes() {
        let _ = writeln!(text, "  kill -9 {}   # {}", part.pid, part.name);
    }
    let Some(redis) = several.redis() else {
        text.push_str("While node-1 is gone the others answer from memory.\n");
        return text;
    };
    let (name, pid, wait) = (&redis.name, redis.pid, REDIS_AGAIN.as_secs());
    let _ = write!(
        text,
        "Freeze {name}, let it go on, or kill it (it is started again after {wait} s, empty): every node answers from memory.\n\
         \x20 kill -STOP {pid}\n  kill -CONT {pid}\n  kill -9 {pid}\n"
    );
    text
}

fn asking(several: &Several, sandbox: &str) -> String {
    let (host, port) = (host(several), several.places[several.places.len() - 1].listen.port());
    format!(
        r#"
Say that a token is dead, to whichever node: one looks into it, and all have the next one:
  curl -d '{{"appid":"{FIRST_APPID}"}}' {sandbox}/sandbox/kill
  printf 'delete {FIRST_APPID}\r\nquit\r\n' | nc {host} {port}

What was called, by all of them together:
  curl {sandbox}/sandbox/calls

"#
    )
}

/// A process is gone.
pub fn gone(part: &Part, how: &str, wait: Duration) -> String {
    format!("{} (pid {}) {how}; it is started again in {} s\n", part.name, part.pid, wait.as_secs())
}

/// It is there again.
pub fn back(part: &Part) -> String {
    format!("{} is started again: kill -9 {}\n", part.name, part.pid)
}

/// A line of a node's log, as people read it.
pub fn logged(entry: &Map<String, Value>) -> String {
    let word = |name: &str| entry.get(name).and_then(Value::as_str).unwrap_or_default();
    let mut text = format!("{} {}", word("level"), word("message"));
    for (name, value) in entry.iter().filter(|(name, _)| !LEFT_OUT.contains(&name.as_str())) {
        let _ = match value {
            Value::String(value) => write!(text, " {name}={value}"),
            value => write!(text, " {name}={value}"),
        };
    }
    text
}
