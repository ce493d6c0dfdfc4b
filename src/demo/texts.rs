//! What the demo with several nodes prints. Texts only.

use std::fmt::Write;
use std::net::IpAddr;
use std::time::Duration;

use serde_json::{Map, Value};

use super::child_process::ChildProcess;
use super::multi_node::{MultiNodeDemo, NODE_RESTART_AFTER, REDIS_RESTART_AFTER};
use super::{FIRST_APPID, SECOND_APPID};
use crate::network::reached_locally;

const HIDDEN_FIELDS: &[&str] = &["timestamp", "level", "message", "target"];

/// What runs where, and what to type.
pub fn welcome(demo: &MultiNodeDemo, sandbox: &str, lifetime: Duration) -> String {
    let (nodes, life) = (demo.addresses.len(), lifetime.as_secs());
    let mut text = format!(
        "tokencached demo: {nodes} nodes, each a process of its own, and a simulated WeChat: {sandbox}\n\
         Two apps, whose tokens live {life} s, so you can watch them being renewed. {SECOND_APPID} is on the classic call, where each\n\
         fetch makes the token before it invalid: only one node may fetch at a time. Nothing leaves this machine. Ctrl-C ends\n\
         everything.\n\n"
    );
    // Writing to a String cannot fail.
    for (process, addresses) in demo.nodes().iter().zip(&demo.addresses) {
        let (name, pid, listen, http) = (&process.name, process.pid, addresses.listen, addresses.http);
        let _ = writeln!(text, "{name}: memcached clients on {listen}, status page http://{http}/, pid {pid}");
    }
    text.push_str(&describe_store(demo));
    text.push_str(&how_to_read(demo));
    text.push_str(&how_to_kill(demo));
    text.push_str(&how_to_report(demo, sandbox));
    text
}

fn describe_store(demo: &MultiNodeDemo) -> String {
    match demo.redis() {
        Some(redis) => {
            let (name, pid) = (&redis.name, redis.pid);
            format!(
                "{name}: the store that the nodes share, on a Unix socket, pid {pid}. Any node renews; the others take the token over.\n"
            )
        }
        None => format!(
            "{}, so node-1 renews and the others follow it by its HTTP API. With one\n\
             (apt-get install redis-server) any node renews.\n",
            demo.no_redis.as_deref().unwrap_or_default()
        ),
    }
}

/// What a client on this machine would call this address, by IPv4 if it can.
pub fn host(ip: IpAddr) -> IpAddr {
    reached_locally(ip).pop().unwrap_or(ip)
}

fn how_to_read(demo: &MultiNodeDemo) -> String {
    let ports: Vec<String> = demo.addresses.iter().map(|addresses| addresses.listen.port().to_string()).collect();
    let (ports, host) = (ports.join(" "), host(demo.addresses[0].listen.ip()));
    format!(
        r#"
Read from each node: the same token everywhere, from memory:
  for port in {ports}; do printf 'get {SECOND_APPID}\r\nquit\r\n' | nc {host} $port | sed -n 2p; done
"#
    )
}

fn how_to_kill(demo: &MultiNodeDemo) -> String {
    let wait = NODE_RESTART_AFTER.as_secs();
    let mut text = format!(
        "\nEach renewal is shown below: which node has renewed, and which nodes have the new token. Kill that node, and read from\n\
         the others; it is started again after {wait} s with what it has on disk:\n"
    );
    for process in demo.nodes() {
        let _ = writeln!(text, "  kill -9 {}   # {}", process.pid, process.name);
    }
    let Some(redis) = demo.redis() else {
        text.push_str("While node-1 is gone the others answer from memory.\n");
        return text;
    };
    let (name, pid, wait) = (&redis.name, redis.pid, REDIS_RESTART_AFTER.as_secs());
    let _ = write!(
        text,
        "Freeze {name}, let it go on, or kill it (it is started again after {wait} s, empty): every node answers from memory.\n\
         \x20 kill -STOP {pid}\n  kill -CONT {pid}\n  kill -9 {pid}\n"
    );
    text
}

fn how_to_report(demo: &MultiNodeDemo, sandbox: &str) -> String {
    let last = demo.addresses[demo.addresses.len() - 1].listen;
    let (host, port) = (host(last.ip()), last.port());
    format!(
        r#"
End a token at WeChat and report that to any node: one node verifies it, and all get the next token:
  curl -d '{{"appid":"{FIRST_APPID}"}}' {sandbox}/sandbox/kill
  printf 'delete {FIRST_APPID}\r\nquit\r\n' | nc {host} {port}

The calls of all nodes together:
  curl {sandbox}/sandbox/calls

"#
    )
}

pub fn ended(process: &ChildProcess, how: &str, wait: Duration) -> String {
    format!("{} (pid {}) {how}; it is started again in {} s\n", process.name, process.pid, wait.as_secs())
}

pub fn started_again(process: &ChildProcess) -> String {
    format!("{} is started again: kill -9 {}\n", process.name, process.pid)
}

/// A line of a node's log, as people read it.
pub fn log_line(entry: &Map<String, Value>) -> String {
    let word = |name: &str| entry.get(name).and_then(Value::as_str).unwrap_or_default();
    let mut text = format!("{} {}", word("level"), word("message"));
    for (name, value) in entry.iter().filter(|(name, _)| !HIDDEN_FIELDS.contains(&name.as_str())) {
        let _ = match value {
            Value::String(value) => write!(text, " {name}={value}"),
            value => write!(text, " {name}={value}"),
        };
    }
    text
}
