//! A real server that takes over the token a site has fetched itself: from a file, from a real memcached.

use std::fmt::Write as _;
use std::process::Command;
use std::time::{SystemTime, UNIX_EPOCH};

use tokencached::sandbox::Endpoint;

use crate::differential::Memcached;
use crate::support::{APPID, Client, Node, SECRET, Wechat, run, run_well, tokencached, wait_for, write};

/// What a script does that has not been moved.
fn fetch(wechat: &Wechat) -> String {
    let url = format!("{}/cgi-bin/token?grant_type=client_credential&appid={APPID}&secret={SECRET}", wechat.base_url());
    let answer = run_well(Command::new("curl").args(["-sS", &url]));
    answer.split('"').nth(3).unwrap().to_owned()
}

fn start(wechat: &Wechat, adopt: &str) -> Node {
    Node::start(
        &wechat.config("", &format!("endpoint = \"token\"\nadopt = {adopt}\naliases = [\"access_token\"]\n")),
        &[],
    )
}

fn token(node: &Node) -> String {
    let mut client = node.connect();
    String::from_utf8(wait_for("a token", || client.get("access_token"))).unwrap()
}

fn now_s() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs()
}

#[test]
fn the_token_in_the_old_memcached_is_served_and_none_is_fetched() {
    let (wechat, memcached) = (Wechat::start(), Memcached::start());
    let held = fetch(&wechat);
    let mut old = Client::connect(memcached.address);
    old.expect(format!("set access_token 0 7000 {}\r\n{held}\r\n", held.len()), "STORED\r\n");
    let node = start(&wechat, &format!("{{ memcached = \"{}\", key = \"access_token\" }}", memcached.address));
    assert_eq!(token(&node), held);
    assert_eq!(wechat.calls(APPID).of(Endpoint::Token), 1, "the script's own");
    node.await_log("the site's own token is taken over");
    assert!(node.log().contains("end_known=true"), "{}", node.log());
    assert!(!node.log().contains(&held));
    // What memcached keeps of its 7000 s; no renewal of ours ends it sooner.
    let left_s: u64 = node.connect().stat("tokens", &format!("{APPID}:seconds_left")).unwrap().parse().unwrap();
    assert!((6_900..=7_000).contains(&left_s), "{left_s}");
}

#[test]
fn the_token_in_the_sites_file_is_served_and_none_is_fetched() {
    let (wechat, folder) = (Wechat::start(), tempfile::tempdir().unwrap());
    let held = fetch(&wechat);
    let text = format!("<?php exit();?>{{\"access_token\":\"{held}\",\"expire_time\":{}}}", now_s() + 3_000);
    let file = write(folder.path(), "access_token.php", &text);
    let node = start(&wechat, &format!("{{ file = \"{}\" }}", file.display()));
    assert_eq!(token(&node), held);
    assert_eq!(wechat.calls(APPID).of(Endpoint::Token), 1, "the script's own");
    assert_eq!(std::fs::read_to_string(&file).unwrap(), text, "as it was");
}

#[test]
fn a_place_without_a_token_is_named_and_the_first_token_is_fetched() {
    let wechat = Wechat::start();
    let nobody = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let node = start(&wechat, &format!("{{ memcached = \"127.0.0.1:{nobody}\", key = \"access_token\" }}"));
    assert!(!token(&node).is_empty());
    node.await_log("the site's own token cannot be taken over");
    let log = node.log();
    assert!(log.contains(&format!("127.0.0.1:{nobody}")) && log.contains("it cannot be reached"), "{log}");
    assert!(log.contains("point them here now"), "what to do: {log}");
    assert_eq!(wechat.calls(APPID).of(Endpoint::Token), 1);
}

#[test]
fn adopt_is_a_setting_of_the_classic_call_and_check_says_when_it_is_lacking() {
    let folder = tempfile::tempdir().unwrap();
    let check = |rest: &str| {
        let mut text = format!("[[app]]\nappid = \"{APPID}\"\nsecret = \"{SECRET}\"\n");
        let _ = writeln!(text, "{rest}");
        let config = write(folder.path(), "adopt.toml", &text);
        run(tokencached().args(["check", "--config"]).arg(config))
    };
    for adopt in
        ["\"sink\"", "{ memcached = \"127.0.0.1:11212\", key = \"access_token\" }", "{ file = \"/srv/token.php\" }"]
    {
        let (status, said) = check(&format!("endpoint = \"token\"\nadopt = {adopt}"));
        assert!(status.success() && said.contains(&format!("\nadopt = {adopt}\n")), "{said}");
        assert!(!said.contains("until all have moved"), "{said}");
    }
    for wrong in [
        "endpoint = \"token\"\nadopt = \"memcached\"",
        "endpoint = \"token\"\nadopt = true",
        "endpoint = \"token\"\nadopt = { memcached = \"127.0.0.1:11212\" }",
        "endpoint = \"token\"\nadopt = { memcached = \"localhost\", key = \"k\" }",
        "endpoint = \"token\"\nadopt = { memcached = \"127.0.0.1:1\", key = \"a b\" }",
        "endpoint = \"token\"\nadopt = { file = \"/a\", key = \"k\" }",
        "adopt = \"sink\"",
        "kind = \"wecom\"\nadopt = \"sink\"",
    ] {
        let (status, said) = check(wrong);
        assert!(!status.success() && said.contains("adopt: "), "{wrong}: {said}");
    }
    let (_, said) = check("endpoint = \"token\"");
    assert!(said.contains("until all have moved"), "{said}");
    let (_, said) = check("");
    assert!(!said.contains("until all have moved"), "{said}");
}
