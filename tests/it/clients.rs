//! Real client libraries of other languages against the real server: Python, Node.js, Rust.
//!
//! Each does everything it can with ordinary keys, then finds its writes to a managed key refused in its own way, goes
//! on on the same connection, and gets the new token after a dead one. What each sees is a row of `docs/en/clients.md`.
//! PHP has its own module. `tests/run` installs the libraries; nothing is fetched here.

use std::path::{Path, PathBuf};
use std::process::Command;

use memcache::MemcacheError;
use serde_json::{Map, Value};
use tokencached::sandbox::Verdict;

use crate::support::{APPID, Node, SECRET, Wechat, run_checked, wait_for};

/// What is tried on a managed key, in the order of the table in `docs/en/clients.md`.
const TRIED: [&str; 9] = ["set", "add", "replace", "append", "prepend", "cas", "incr", "touch", "delete"];

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).to_owned()
}

/// A script in Python or Node.js with its libraries, told where everything is.
fn script(language: &str, library: &str, what: &str, node: &Node) -> Command {
    let (program, file, path, packages) = match language {
        "python" => ("python3", "tests/python/clients.py", "PYTHONPATH", "target/python/clients"),
        _ => ("node", "tests/node/clients.js", "NODE_PATH", "target/node/node_modules"),
    };
    let packages = root().join(packages);
    assert!(packages.exists(), "{} is missing; tests/run installs it", packages.display());
    let mut command = crate::support::program(program);
    command.arg(root().join(file)).args([library, what]).env(path, packages).env("PYTHONDONTWRITEBYTECODE", "1");
    command.env("MC_HOST", "127.0.0.1").env("MC_PORT", node.address.port().to_string());
    command
}

#[track_caller]
fn ordinary(language: &str, library: &str) {
    let node = Node::plain(&[]);
    assert_eq!(run_checked(&mut script(language, library, "ordinary", &node)), "ok\n", "{}", node.log());
}

/// A server with a live token, and that token.
fn with_token() -> (Wechat, Node, String) {
    let wechat = Wechat::start();
    let node = Node::start(&wechat.config("", ""), &[]);
    let mut client = node.connect();
    let token = wait_for("a token", || client.get(&format!("access_token:{APPID}")));
    let token = String::from_utf8(token).unwrap();
    assert_eq!(wechat.judge(&token), Verdict::Accepted);
    (wechat, node, token)
}

#[track_caller]
fn managed(language: &str, library: &str) {
    let (wechat, node, token) = with_token();
    let mut command = script(language, library, "managed", &node);
    command.env("WECHAT", wechat.base_url()).env("APPID", APPID).env("TOKEN", &token);
    let said = run_checked(&mut command);
    let seen: Map<String, Value> = serde_json::from_str(said.lines().last().unwrap_or_default()).expect(&said);
    let library = if language == "node" { format!("{library} (Node.js)") } else { library.to_owned() };
    documented(&library, &seen, &wechat, &node, &token);
}

/// The token is new and good, and the documentation has what was seen on the way.
#[track_caller]
fn documented(library: &str, seen: &Map<String, Value>, wechat: &Wechat, node: &Node, token: &str) {
    let fresh = seen["fresh"].as_str().unwrap();
    assert_ne!(fresh, token);
    assert_eq!(wechat.judge(fresh), Verdict::Accepted);
    assert_eq!(wechat.judge(token), Verdict::NotLatest);
    let cell = |what: &&str| match seen.get(*what).and_then(Value::as_str) {
        Some(answer) => format!("`{answer}`"),
        None => "-".to_owned(),
    };
    let row = format!("| {library} | {} |", TRIED.iter().map(cell).collect::<Vec<_>>().join(" | "));
    let documentation = std::fs::read_to_string(root().join("docs/en/clients.md")).unwrap();
    assert!(documentation.lines().any(|line| line == row), "not in docs/en/clients.md:\n{row}");
    node.await_log("refused a client's write");
    let log = node.log();
    assert!(log.contains("refused a client's write") && !log.contains(SECRET) && !log.contains(fresh), "{log}");
}

/// A test for ordinary keys and one for managed keys.
macro_rules! client {
    ($name:ident, $language:literal, $library:literal) => {
        mod $name {
            #[test]
            #[ignore = "needs python3, node"]
            fn does_everything_with_ordinary_keys() {
                super::ordinary($language, $library);
            }

            #[test]
            #[ignore = "needs python3, node"]
            fn is_refused_in_its_own_way_and_goes_on() {
                super::managed($language, $library);
            }
        }
    };
}

client!(pymemcache, "python", "pymemcache");
client!(pymemcache_hash, "python", "pymemcache-hash");
client!(pymemcache_pooled, "python", "pymemcache-pooled");
client!(python_memcached, "python", "python-memcached");
client!(pylibmc, "python", "pylibmc");
client!(pylibmc_no_block, "python", "pylibmc-no-block");
client!(node_memcached, "node", "memcached");
// These speak the binary protocol.
client!(pylibmc_binary, "python", "pylibmc-binary");
client!(python_binary_memcached, "python", "python-binary-memcached");
client!(node_memjs, "node", "memjs");

fn rust_memcache(node: &Node, protocol: &str) -> memcache::Client {
    let url = format!("memcache://{}?protocol={protocol}&timeout=30&tcp_nodelay=true", node.address);
    memcache::Client::with_pool_size(url, 1).unwrap()
}

#[test]
fn rust_memcache_does_everything_with_ordinary_keys() {
    rust_memcache_with_ordinary_keys("ascii");
}

#[test]
fn rust_memcache_does_everything_with_ordinary_keys_in_binary() {
    rust_memcache_with_ordinary_keys("binary");
}

fn rust_memcache_with_ordinary_keys(protocol: &str) {
    let node = Node::plain(&[]);
    let client = rust_memcache(&node, protocol);
    client.set("k", "one", 0).unwrap();
    assert_eq!(client.get::<String>("k").unwrap().as_deref(), Some("one"));
    assert_eq!(client.get::<String>("absent").unwrap(), None);
    // In text it does not tell whether something was stored.
    assert_eq!(client.add("k", "two", 0).is_ok(), protocol == "ascii");
    assert_eq!(client.replace("absent", "two", 0).is_ok(), protocol == "ascii");
    assert_eq!(client.gets::<String>(&["k", "absent"]).unwrap(), [("k".to_owned(), "one".to_owned())].into());
    client.append("k", "!").unwrap();
    client.prepend("k", "?").unwrap();
    let found = client.gets::<(Vec<u8>, u32, Option<u64>)>(&["k", "absent"]).unwrap();
    let (value, flags, cas) = &found["k"];
    assert_eq!((value.as_slice(), *flags), (&b"?one!"[..], 0));
    assert!(client.cas("k", "three", 0, cas.unwrap()).unwrap());
    assert!(!client.cas("k", "four", 0, cas.unwrap()).unwrap());
    client.set("n", 9_u64, 0).unwrap();
    assert_eq!((client.increment("n", 3).unwrap(), client.decrement("n", 100).unwrap()), (12, 0));
    assert!(client.touch("k", 100).unwrap() && !client.touch("absent", 100).unwrap());
    assert!(client.delete("n").unwrap() && !client.delete("n").unwrap());
    for value in [&b""[..], b"\r\n", b"END\r\n", b"a\0b\xff", &vec![0x80; 900 * 1024]] {
        client.set("odd", value, 0).unwrap();
        assert_eq!(client.get::<Vec<u8>>("odd").unwrap().as_deref(), Some(value));
    }
    let keys: Vec<String> = (0..500).map(|n| format!("many{n}")).collect();
    keys.iter().for_each(|key| client.set(key, key.as_str(), 60).unwrap());
    let found = client.gets::<String>(&keys.iter().map(String::as_str).collect::<Vec<_>>()).unwrap();
    assert!(found.len() == 500 && found.iter().all(|(key, value)| key == value), "{}", found.len());
    client.set("brief", "x", 1).unwrap();
    wait_for("an item to end", || client.get::<String>("brief").unwrap().is_none().then_some(()));
    client.flush().unwrap();
    assert_eq!(client.get::<String>("k").unwrap(), None);
    assert!(client.version().unwrap()[0].1.starts_with("1."));
}

#[test]
fn rust_memcache_is_refused_in_its_own_way_and_goes_on() {
    rust_memcache_on_a_managed_key("ascii", "memcache (Rust)");
}

#[test]
fn rust_memcache_is_refused_in_its_own_way_and_goes_on_in_binary() {
    rust_memcache_on_a_managed_key("binary", "memcache (Rust), binary");
}

fn rust_memcache_on_a_managed_key(protocol: &str, library: &str) {
    let (wechat, node, token) = with_token();
    let client = rust_memcache(&node, protocol);
    let key = format!("access_token:{APPID}");
    let mut seen = Map::new();
    let mut refused = |what: &str, answer: Result<String, MemcacheError>| {
        let shown = answer.unwrap_or_else(|error| format!("Err({error:?})"));
        seen.insert(what.to_owned(), shown.into());
        assert_eq!(client.get::<String>(&key).unwrap().as_ref(), Some(&token), "after {what}");
        client.set("bystander", "well", 0).unwrap();
        assert_eq!(client.get::<String>("bystander").unwrap().as_deref(), Some("well"), "after {what}");
    };
    let shown = |()| "Ok(())".to_owned();
    let told = |answer: bool| format!("Ok({answer})");
    refused("set", client.set(&key, "other", 7200).map(shown));
    refused("add", client.add(&key, "other", 7200).map(shown));
    refused("replace", client.replace(&key, "other", 7200).map(shown));
    refused("append", client.append(&key, "other").map(shown));
    refused("prepend", client.prepend(&key, "other").map(shown));
    let cas = client.gets::<(Vec<u8>, u32, Option<u64>)>(&[&key]).unwrap()[&key].2;
    refused("cas", client.cas(&key, "other", 0, cas.unwrap()).map(told));
    refused("incr", client.increment(&key, 1).map(|number| format!("Ok({number})")));
    refused("touch", client.touch(&key, 1).map(told));
    wechat.kill_tokens(APPID);
    seen.insert("delete".to_owned(), told(client.delete(&key).unwrap()).into());
    let fresh = wait_for("a new token", || client.get::<String>(&key).unwrap().filter(|found| *found != token));
    seen.insert("fresh".to_owned(), fresh.into());
    documented(library, &seen, &wechat, &node, &token);
}
