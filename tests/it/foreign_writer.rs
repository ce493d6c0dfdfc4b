//! Somebody else fetches for our app: noticed by the tokens it tries to write, and by ours dying early.

use tokencached::sandbox::{Endpoint, Options, Verdict};

use crate::support::{APPID, Client, Node, SECRET, Wechat, program, run_checked, wait_for};

fn start(wechat: &Wechat, endpoint: &str) -> Node {
    Node::start(&wechat.config("", &format!("endpoint = \"{endpoint}\"\naliases = [\"access_token\"]\n")), &[])
}

fn token(client: &mut Client) -> String {
    String::from_utf8(wait_for("a token", || client.get("access_token"))).unwrap()
}

/// What a script of old does: fetches by the classic call, whoever else does.
fn foreign_fetch(wechat: &Wechat) -> String {
    let url = format!("{}/cgi-bin/token?grant_type=client_credential&appid={APPID}&secret={SECRET}", wechat.base_url());
    let answer = run_checked(program("curl").args(["-sS", &url]));
    answer.split('"').nth(3).unwrap().to_owned()
}

fn set(client: &mut Client, value: &str) {
    client.expect(format!("set access_token 0 7000 {}\r\n{value}\r\n", value.len()), "NOT_STORED\r\n");
}

fn stat(client: &mut Client, name: &str) -> String {
    client.stat("tokens", &format!("{APPID}:{name}")).unwrap()
}

#[test]
#[ignore = "needs curl"]
fn a_foreign_writer_of_a_stable_app_is_counted_named_and_harmless() {
    let wechat = Wechat::start();
    let node = start(&wechat, "stable_token");
    let mut client = node.connect();
    let ours = token(&mut client);
    let theirs = foreign_fetch(&wechat);
    for _ in 0..50 {
        set(&mut client, &theirs);
    }
    assert_eq!((stat(&mut client, "rival_writes"), stat(&mut client, "refused_writes")), ("50".into(), "50".into()));
    wait_for("one check", || (stat(&mut client, "checks") == "1").then_some(()));
    wait_for("its probe", || (wechat.calls(APPID).of(Endpoint::GetApiDomainIp) == 1).then_some(()));
    assert_eq!(token(&mut client), ours);
    let calls = wechat.calls(APPID);
    assert_eq!((calls.of(Endpoint::StableToken), calls.of(Endpoint::GetApiDomainIp)), (1, 1), "{calls:?}");
    assert_eq!(stat(&mut client, "early_deaths"), "0");
    node.await_log("rival=true");
    let log = node.log();
    assert!(log.contains("rival=true") && log.contains("peer=127.0.0.1"), "{log}");
    assert!(!log.contains(&theirs) && !log.contains(&ours));
}

#[test]
fn a_client_that_writes_our_own_token_back_is_no_foreign_writer() {
    let wechat = Wechat::start();
    let node = start(&wechat, "stable_token");
    let mut client = node.connect();
    let ours = token(&mut client);
    set(&mut client, &ours);
    set(&mut client, &format!("{{\"token\":\"{ours}\"}}"));
    set(&mut client, "short");
    assert_eq!((stat(&mut client, "rival_writes"), stat(&mut client, "checks")), ("0".into(), "0".into()));
}

#[test]
#[ignore = "needs curl"]
fn a_classic_token_that_a_foreign_fetch_has_ended_is_found_dead_and_renewed() {
    // The old token lives two seconds on; the next renewal by the clock would come after 24.
    let wechat = Wechat::with(Options { lifetime_s: 48, ..Options::default() });
    let node = start(&wechat, "token");
    let mut client = node.connect();
    let ours = token(&mut client);
    let theirs = foreign_fetch(&wechat);
    set(&mut client, &theirs);
    let next = wait_for("another token", || client.get("access_token").filter(|now| now != ours.as_bytes()));
    assert_eq!(wechat.judge(std::str::from_utf8(&next).unwrap()), Verdict::Accepted);
    assert_eq!(stat(&mut client, "early_deaths"), "1");
    // Ours, the rival's, and one renewal: suspicion alone spends nothing.
    assert_eq!(wechat.calls(APPID).of(Endpoint::Token), 3);
    node.await_log("token became invalid before its expiry");
    let log = node.log();
    assert!(log.contains("token became invalid before its expiry") && log.contains("stable_token"), "{log}");
}
