//! Real PHP with both extensions against the real server: `tests/php/*.php`, one test a script.
//!
//! The scripts turn every notice into an exception, so an answer that an extension complains about fails here.

use std::path::Path;

use tokencached::sandbox::{Endpoint, FaultKind, InjectedFault};

use crate::support::{APPID, Node, SECRET, Wechat, program, run_checked, wait_for};

/// The tutorials' two keys.
const ALIASES: &str = "aliases = [\"access_token\", \"wx0123456789abcdef\"]";

/// A server that has its token: how a first get is held is a matter of `managed.rs`.
fn start(wechat: &Wechat, app: &str) -> Node {
    let node = Node::start(&wechat.config("", app), &[]);
    let mut client = node.connect();
    wait_for("a token", || client.get(&format!("access_token:{APPID}")));
    node
}

/// Runs a script to its end. `settings` are lines of php.ini; `{port}` in them is the server's.
#[track_caller]
fn php(script: &str, arguments: &[&str], settings: &[&str], node: &Node, wechat: &Wechat) -> String {
    let port = node.address.port().to_string();
    php_at(("127.0.0.1", &port), script, arguments, settings, node, wechat)
}

/// The same, over an address of one's own: a host and a port in the extension's words.
#[track_caller]
fn php_at(
    (host, port): (&str, &str),
    script: &str,
    arguments: &[&str],
    settings: &[&str],
    node: &Node,
    wechat: &Wechat,
) -> String {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/php");
    let mut command = program("php");
    for setting in settings {
        command.arg("-d").arg(setting.replace("{port}", port));
    }
    command.arg(folder.join(script)).args(arguments);
    command.env("MC_HOST", host).env("MC_PORT", port);
    command.env("WECHAT", wechat.base_url()).env("APPID", APPID).env("SECRET", SECRET);
    let said = run_checked(&mut command);
    assert!(!said.contains("Notice") && !said.contains("Warning"), "{said}\n{}", node.log());
    said
}

/// Runs a script that says `ok` when all is well.
#[track_caller]
fn php_ok(script: &str, settings: &[&str]) {
    let wechat = Wechat::start();
    let node = start(&wechat, ALIASES);
    assert_eq!(php(script, &[], settings, &node, &wechat), "ok\n");
    assert_eq!(wechat.calls(APPID).of(Endpoint::Token), 0, "PHP never asked for a token itself");
}

/// The tutorials' script over several renewals: it never needs WeChat's token endpoint, and no token is refused.
#[track_caller]
fn tutorial(extension: &str, endpoint: &str, own: Endpoint) {
    let wechat = Wechat::short_lived(4);
    let node = start(&wechat, &format!("{ALIASES}\nendpoint = \"{endpoint}\""));
    let said = php("tutorial.php", &[extension, "4"], &[], &node, &wechat);
    let seen: serde_json::Value = serde_json::from_str(&said).unwrap();
    assert_eq!(seen["fetched"], 0, "{said}\n{}", node.log());
    assert_eq!(seen["refused"], serde_json::json!([]), "{said}\n{}", node.log());
    let calls = wechat.calls(APPID);
    for tokens in [Endpoint::Token, Endpoint::StableToken, Endpoint::StableTokenForced] {
        assert_eq!(calls.of(tokens) > 0, tokens == own, "{calls:?}");
    }
    let used = seen["used"].as_u64().unwrap();
    assert!(used >= 4);
    assert_eq!(calls.ended(Endpoint::GetApiDomainIp, "ok"), used, "{calls:?}");
}

#[test]
#[ignore = "waits for real time"]
fn the_tutorial_with_memcache() {
    tutorial("memcache", "stable_token", Endpoint::StableToken);
}

#[test]
#[ignore = "waits for real time"]
fn the_tutorial_with_memcached() {
    tutorial("memcached", "stable_token", Endpoint::StableToken);
}

#[test]
#[ignore = "waits for real time"]
fn the_tutorial_beside_the_classic_endpoint() {
    tutorial("memcached", "token", Endpoint::Token);
}

/// The measure: the same script against a cache without an app fetches by itself, and the record shows it.
#[test]
#[ignore = "needs php"]
fn the_tutorial_against_a_plain_cache_fetches_by_itself() {
    for extension in ["memcache", "memcached"] {
        let (wechat, node) = (Wechat::start(), Node::plain(&[]));
        let said = php("tutorial.php", &[extension, "1"], &[], &node, &wechat);
        assert!(said.contains("\"fetched\":1"), "{said}");
        assert_eq!(wechat.calls(APPID).of(Endpoint::Token), 1);
    }
}

#[test]
#[ignore = "needs php"]
fn managed_keys_with_memcache() {
    php_ok("managed_memcache.php", &[]);
}

#[test]
#[ignore = "needs php"]
fn managed_keys_with_memcached() {
    php_ok("managed_memcached.php", &[]);
}

#[test]
#[ignore = "needs php"]
fn ordinary_keys_with_memcache() {
    php_ok("ordinary_memcache.php", &[]);
}

#[test]
#[ignore = "needs php"]
fn ordinary_keys_with_memcached() {
    php_ok("ordinary_memcached.php", &[]);
}

#[test]
#[ignore = "needs php"]
fn a_prefix_in_php_ini_serves_the_bare_appid() {
    // No alias: the script's own key is not known to the server.
    let wechat = Wechat::start();
    let node = start(&wechat, "");
    let prefix = "memcache.prefix_static_key=access_token:";
    assert_eq!(php("prefix.php", &[], &[prefix], &node, &wechat), "ok\n");
}

#[test]
#[ignore = "needs php"]
fn statistics_and_versions() {
    php_ok("statistics.php", &[]);
}

#[test]
#[ignore = "needs php"]
fn managed_keys_with_memcached_in_binary_mode() {
    php_ok("binary_managed.php", &[]);
}

#[test]
#[ignore = "needs php"]
fn ordinary_keys_with_memcached_in_binary_mode() {
    php_ok("binary_ordinary.php", &[]);
}

/// Frameworks' own scripts change nothing but the setting.
#[test]
#[ignore = "waits for real time"]
fn the_tutorial_with_memcached_in_binary_mode() {
    let wechat = Wechat::short_lived(4);
    let node = start(&wechat, ALIASES);
    let binary = "memcached.default_binary_protocol=On";
    let said = php("tutorial.php", &["memcached", "3"], &[binary], &node, &wechat);
    let seen: serde_json::Value = serde_json::from_str(&said).unwrap();
    assert_eq!((&seen["fetched"], &seen["refused"]), (&0.into(), &serde_json::json!([])), "{said}\n{}", node.log());
}

#[test]
#[ignore = "needs php"]
fn a_hanging_upstream_is_a_plain_miss() {
    let wechat = Wechat::start();
    wechat.set_fault(APPID, InjectedFault::new(FaultKind::Hang));
    let node = Node::start(&wechat.config("", ALIASES), &[]);
    assert_eq!(php("hanging.php", &[], &[], &node, &wechat), "ok\n");
}

/// One process writes the session, another reads it.
#[track_caller]
fn sessions(settings: &[&str]) {
    let (wechat, node) = (Wechat::start(), Node::plain(&[]));
    let settings = [settings, &["session.use_cookies=0", "session.cache_limiter="]].concat();
    for step in ["write", "read"] {
        assert_eq!(php("sessions.php", &[step], &settings, &node, &wechat), "ok\n");
    }
}

#[test]
#[ignore = "needs php"]
fn sessions_with_memcache() {
    sessions(&["session.save_handler=memcache", "session.save_path=tcp://127.0.0.1:{port}"]);
}

#[test]
#[ignore = "needs php"]
fn sessions_with_memcached_in_text_mode() {
    sessions(&[
        "session.save_handler=memcached",
        "session.save_path=127.0.0.1:{port}",
        "memcached.sess_binary_protocol=0",
    ]);
}

/// The extension's default.
#[test]
#[ignore = "needs php"]
fn sessions_with_memcached_in_binary_mode() {
    sessions(&["session.save_handler=memcached", "session.save_path=127.0.0.1:{port}"]);
}

/// Every script that shows how an extension gets on with the server, over a Unix socket.
#[track_caller]
fn over_a_socket(scripts: &[&str], host: impl Fn(&str) -> String) {
    for script in scripts {
        let wechat = Wechat::start();
        let node = Node::start(&wechat.config("unix_socket = \"{folder}/x.sock\"", ALIASES), &[]);
        let mut client = node.connect();
        wait_for("a token", || client.get(&format!("access_token:{APPID}")));
        let host = host(&node.path("x.sock").display().to_string());
        assert_eq!(php_at((&host, "0"), script, &[], &[], &node, &wechat), "ok\n", "{script}");
        assert_eq!(wechat.calls(APPID).of(Endpoint::Token), 0, "PHP never asked for a token itself");
    }
}

#[test]
#[ignore = "needs php"]
fn memcache_over_a_unix_socket() {
    over_a_socket(&["ordinary_memcache.php", "managed_memcache.php"], |path| format!("unix://{path}"));
}

#[test]
#[ignore = "needs php"]
fn memcached_over_a_unix_socket() {
    let scripts = ["ordinary_memcached.php", "managed_memcached.php", "binary_managed.php"];
    over_a_socket(&scripts, str::to_owned);
}

/// pecl memcached can log in, in text by a plain set. Users see what they may, and refusals are silent.
#[test]
#[ignore = "needs php"]
fn memcached_logs_in_and_has_its_rights() {
    logs_in("login.php");
}

#[test]
#[ignore = "needs php"]
fn memcached_logs_in_by_sasl_and_has_its_rights() {
    logs_in("binary_login.php");
}

#[track_caller]
fn logs_in(script: &str) {
    let wechat = Wechat::start();
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("users"), "web:word1\ntokens:word2\n").unwrap();
    let rights = "[[user]]\nname = \"web\"\nrights = \"ordinary\"\n[[user]]\nname = \"tokens\"\nrights = \"managed\"\n";
    let config = wechat.config("auth_file = \"users\"", &format!("{ALIASES}\n{rights}"));
    let node = Node::start_in(folder, &config, &[]);
    let mut client = node.connect();
    client.expect("set x 0 0 12\r\ntokens word2\r\n", "STORED\r\n");
    wait_for("a token", || client.get(&format!("access_token:{APPID}")));
    assert_eq!(php(script, &[], &[], &node, &wechat), "ok\n");
}
