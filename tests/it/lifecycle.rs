//! Start, end and what lies between: signals, the state file, a lost upstream, a taken port.

use std::fs;
use std::net::{SocketAddr, TcpListener};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use tempfile::TempDir;
use tokencached::sandbox::{Endpoint, FaultKind, InjectedFault, Options};

use crate::support::{APPID, Client, Node, Wechat, config, free_port, run, tokencached, wait_for};

const ALIAS: &str = "aliases = [\"access_token\"]";

fn start(wechat: &Wechat) -> Node {
    start_in(tempfile::tempdir().unwrap(), wechat)
}

fn start_in(folder: TempDir, wechat: &Wechat) -> Node {
    Node::start_in(folder, &wechat.config("", ALIAS), &[])
}

fn token(client: &mut Client) -> String {
    String::from_utf8(client.get("access_token").expect("a token")).unwrap()
}

fn any_token(node: &Node) -> String {
    let mut client = node.connect();
    let value = wait_for("a token", || client.get("access_token"));
    String::from_utf8(value).unwrap()
}

/// Waits until the state holds this token.
fn persisted(folder: &Path, token: &str) {
    wait_for("the state to be written", || {
        fs::read_to_string(folder.join("state.json")).ok()?.contains(token).then_some(())
    });
}

/// What was set aside because it could not be used.
fn set_aside(folder: &Path) -> Vec<PathBuf> {
    let files = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
    files.filter(|path| path.to_string_lossy().contains("state.json.corrupt-")).collect()
}

#[track_caller]
#[expect(clippy::disallowed_methods, reason = "a client that takes its time; nothing is waited for")]
fn ends_well_with_an_answer_in_flight(signal: &str) {
    let wechat = Wechat::start();
    let mut node = start(&wechat);
    let token = any_token(&node);
    let mut client = node.connect();
    let value = vec![b'v'; 1_000_000];
    client.expect([b"set large 0 0 1000000\r\n", value.as_slice(), b"\r\n"].concat(), "STORED\r\n");

    // More than any socket buffer takes: the server is still writing when the signal comes.
    client.send("get large\r\n".repeat(16));
    let one = [b"VALUE large 0 1000000\r\n", value.as_slice(), b"\r\nEND\r\n"].concat();
    let begun = client.read(1000);
    node.signal(signal);
    wait_for("the server to see the signal", || node.log().contains("finishing requests in flight").then_some(()));
    // A client that takes its time; the pauses are its nature, nothing is waited for.
    let mut rest = Vec::new();
    for _ in 0..16 {
        std::thread::sleep(Duration::from_millis(20));
        rest.extend(client.read(one.len()));
    }
    rest.extend(client.rest());
    assert_eq!(begun.len() + rest.len(), 16 * one.len());
    assert!([begun, rest].concat() == one.repeat(16));

    let status = node.wait();
    assert_eq!(status.code(), Some(0), "{}", node.log());
    let state = node.path("state.json");
    assert!(fs::read_to_string(&state).unwrap().contains(&token));
    assert_eq!(fs::metadata(&state).unwrap().permissions().mode() & 0o777, 0o600);
    node.await_log("stopped");
}

#[test]
fn sigterm_finishes_what_is_in_flight() {
    ends_well_with_an_answer_in_flight("TERM");
}

#[test]
fn sigint_finishes_what_is_in_flight() {
    ends_well_with_an_answer_in_flight("INT");
}

#[test]
fn a_restart_serves_the_live_token_and_fetches_nothing() {
    let wechat = Wechat::start();
    let node = start(&wechat);
    let before = any_token(&node);
    // The first get is answered although WeChat is of no help any more.
    wechat.set_fault(APPID, InjectedFault::new(FaultKind::Hang));
    let node = start_in(node.stop(), &wechat);
    assert_eq!(token(&mut node.connect()), before);
    assert!(node.stop().path().join("state.json").exists());
    assert_eq!(wechat.calls(APPID).total(), 1, "one fetch in two lives");
}

#[test]
fn a_killed_server_serves_the_live_token_again() {
    let wechat = Wechat::start();
    let node = start(&wechat);
    let before = any_token(&node);
    persisted(node.folder.path(), &before);
    let node = start_in(node.kill(), &wechat);
    assert_eq!(token(&mut node.connect()), before);
    drop(node);
    assert_eq!(wechat.calls(APPID).total(), 1, "one fetch in two lives");
}

/// Killed at the moment a new token appears, when the state is being written, again and again.
#[track_caller]
fn survives_kills(endpoint: &str) {
    let wechat = Wechat::short_lived(1);
    let config = wechat.config("", &format!("{ALIAS}\nendpoint = \"{endpoint}\""));
    let mut folder = tempfile::tempdir().unwrap();
    for _ in 0..8 {
        let node = Node::start_in(folder, &config, &[]);
        let first = any_token(&node);
        let mut client = node.connect();
        wait_for("a renewal", || client.get("access_token").filter(|token| token != first.as_bytes()));
        assert!(!node.log().contains("the state file cannot be used"), "{}", node.log());
        folder = node.kill();
        assert_eq!(set_aside(folder.path()), [] as [PathBuf; 0]);
    }
    let leftovers = fs::read_dir(folder.path()).unwrap().count();
    assert!(leftovers < 20, "temporary files pile up");
}

#[test]
#[ignore = "waits for real time"]
fn kills_while_renewing_never_spoil_the_state() {
    survives_kills("stable_token");
}

#[test]
#[ignore = "waits for real time"]
fn kills_while_renewing_never_spoil_the_state_of_the_classic_endpoint() {
    survives_kills("token");
}

#[test]
fn a_spoiled_state_is_set_aside_and_reported_and_the_server_runs() {
    let wechat = Wechat::start();
    let node = start(&wechat);
    any_token(&node);
    let good = fs::read_to_string(node.stop().path().join("state.json")).unwrap();
    let spoiled: &[(&str, Vec<u8>)] = &[
        ("empty", Vec::new()),
        ("garbage", b"\0\xff\x01garbage".to_vec()),
        ("other JSON", b"{\"a\":1}".to_vec()),
        ("truncated", good.as_bytes()[..good.len() / 2].to_vec()),
        ("one byte short", good.as_bytes()[..good.len() - 1].to_vec()),
        ("another version", good.replace("\"version\":1", "\"version\":9").into_bytes()),
        ("a changed byte", good.replace("\"generation\":", "\"generation\":7").into_bytes()),
    ];
    for (what, bytes) in spoiled {
        assert_ne!(bytes, good.as_bytes(), "{what}");
        let folder = tempfile::tempdir().unwrap();
        let state = folder.path().join("state.json");
        fs::write(&state, bytes).unwrap();
        fs::set_permissions(&state, fs::Permissions::from_mode(0o600)).unwrap();
        let node = start_in(folder, &wechat);
        let token = any_token(&node);
        assert!(node.log().contains("the state file cannot be used"), "{what}: {}", node.log());
        let aside = set_aside(node.folder.path());
        assert_eq!(aside.len(), 1, "{what}");
        assert_eq!(&fs::read(&aside[0]).unwrap(), bytes, "{what}");
        persisted(node.folder.path(), &token);
    }
}

#[test]
fn a_state_that_others_can_read_is_not_trusted() {
    let wechat = Wechat::start();
    let node = start(&wechat);
    any_token(&node);
    let folder = node.stop();
    fs::set_permissions(folder.path().join("state.json"), fs::Permissions::from_mode(0o644)).unwrap();
    let node = start_in(folder, &wechat);
    any_token(&node);
    node.await_log("is open to others");
    assert_eq!(set_aside(node.folder.path()).len(), 1);
}

#[test]
#[ignore = "waits for real time"]
fn a_state_that_cannot_be_written_is_reported_and_the_server_runs() {
    let wechat = Wechat::start();
    // A folder that is a file: not even root can write there.
    let config = wechat.config("", ALIAS).replace("{folder}/state.json", "{folder}/file/state.json");
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("file"), "").unwrap();
    let node = Node::start_in(folder, &config, &[]);
    let before = any_token(&node);
    let mut client = node.connect();
    wait_for("the failure to be logged", || node.log().contains("cannot be written").then_some(()));
    assert_eq!(token(&mut client), before);
    client.expect("set k 0 0 1\r\nx\r\nget k\r\n", "STORED\r\nVALUE k 0 1\r\nx\r\nEND\r\n");
    node.stop();
}

#[test]
fn an_upstream_that_comes_later_is_noticed() {
    let gone = Wechat::start();
    let (address, base_url) = (gone.addr(), gone.base_url());
    drop(gone);
    let node = Node::start(&config(&base_url, "", ALIAS), &[]);
    let mut client = node.connect();
    client.expect("get access_token\r\n", "END\r\n");
    client.expect("set k 0 0 1\r\nx\r\n", "STORED\r\n");
    wait_for("the failure to be logged", || node.log().contains("Connection refused").then_some(()));
    let wechat = Wechat::with(Options { listen: address, ..Options::default() });
    let token = any_token(&node);
    assert_eq!(wechat.judge(&token), tokencached::sandbox::Verdict::Accepted);
}

#[test]
fn a_live_token_outlasts_an_upstream_that_is_gone() {
    let wechat = Wechat::start();
    let config = wechat.config("", ALIAS);
    let node = Node::start(&config, &[]);
    let before = any_token(&node);
    drop(wechat);
    let mut client = node.connect();
    // The client's word makes the server ask; an upstream that does not answer takes nothing away.
    client.expect("delete access_token\r\n", "DELETED\r\n");
    assert_eq!(token(&mut client), before);
    // Nor does a restart.
    let node = Node::start_in(node.stop(), &config, &[]);
    assert_eq!(token(&mut node.connect()), before);
}

#[test]
#[ignore = "waits for real time"]
fn failing_renewals_keep_the_live_token_until_its_end() {
    let wechat = Wechat::short_lived(4);
    let node = start(&wechat);
    let first = any_token(&node);
    let fault = InjectedFault::new(FaultKind::Errcode { errcode: -1, errmsg: "system error".into() });
    wechat.set_fault(APPID, fault);
    let mut client = node.connect();
    let failed = |wechat: &Wechat| wechat.calls(APPID).ended(Endpoint::StableToken, "fault errcode");
    // Several failures do not take it away.
    wait_for("failed renewals", || {
        let failures = failed(&wechat);
        assert_eq!(client.get("access_token").as_deref(), Some(first.as_bytes()), "after {failures} failures");
        (failures >= 3).then_some(())
    });
    // At its end it is a miss, and never an error.
    let answers = wait_for("the end of the token", || {
        let answer = client.ask("get access_token\r\n");
        let miss = answer == b"END\r\n";
        assert!(miss || answer.windows(first.len()).any(|part| part == first.as_bytes()), "{}", answer.escape_ascii());
        miss.then_some(answer)
    });
    assert_eq!(answers, b"END\r\n");
    // The server counts from before it asked, so it may be a moment ahead.
    let dead = || wechat.judge(&first) != tokencached::sandbox::Verdict::Accepted;
    wait_for("WeChat to think so, too", || dead().then_some(()));
    wechat.clear_fault(APPID);
    let next = any_token(&node);
    assert_ne!(next, first);
}

#[test]
fn a_taken_port_is_said_with_a_remedy() {
    let taken = TcpListener::bind(SocketAddr::from(([127, 0, 0, 1], 0))).unwrap();
    let port = taken.local_addr().unwrap().port().to_string();
    let (status, said) = run(tokencached().args(["-p", &port]));
    assert_eq!(status.code(), Some(69), "{said}");
    assert!(said.contains(&format!("127.0.0.1:{port}")), "{said}");
    assert!(said.contains("stop it, or choose another port with -p or in listen"), "{said}");
}

#[test]
fn localhost_is_served_where_something_else_has_its_other_address() {
    // Without IPv6 there is nothing to be taken.
    let port = free_port();
    let Ok(_taken) = TcpListener::bind(("::1", port)) else { return };
    let node = Node::plain(&["-p", &port.to_string(), "-l", "localhost"]);
    node.connect().expect("mn\r\n", "MN\r\n");
    node.await_log("127.0.0.1 is served without it");
}

#[test]
fn without_an_app_it_is_a_plain_cache_and_says_so() {
    let folder = tempfile::tempdir().unwrap();
    let node = Node::start_in(folder, "", &[]);
    let mut client = node.connect();
    client.expect("set access_token 0 0 2\r\nmy\r\n", "STORED\r\n");
    client.expect("get access_token\r\n", "VALUE access_token 0 2\r\nmy\r\nEND\r\n");
    node.await_log("no app is configured");
    let folder = node.stop();
    assert!(!folder.path().join("state.json").exists());
}
