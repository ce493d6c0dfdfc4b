//! What comes from outside at one node reaches the others: reports, verify tickets, refresh tokens.

use std::time::{Duration, Instant};

use tokencached::sandbox::{Endpoint, Verdict};

use super::{CLASSIC, Group, Plan, calls, key, wait_until_settled};
use crate::open_platform::{AUTH, COMPONENT, FIRST, SECRET, options};
use crate::support::redis::Redis;
use crate::support::{APPID, Client, Node, Wechat, wait_for, write};

/// The longest that a client is let wait, and how soon somebody has to have taken its word.
const LONGEST_WAIT_MS: u64 = 900;
const TAKEN_WITHIN_MS: u64 = 500;

/// The answer is there when the node that may call WeChat has looked: unless the machine is so busy that nobody takes it
/// in time, the very next read there has the new token.
#[test]
#[ignore = "needs redis-server"]
#[expect(clippy::disallowed_methods, reason = "the bound on the time is what is shown")]
fn a_report_at_a_node_without_a_secret_is_answered_when_another_has_renewed() {
    let (wechat, redis) = (Wechat::start(), Redis::start(&[]));
    let plan = Plan::new(&wechat, &redis.url(), CLASSIC);
    let follows = Plan {
        app: "endpoint = \"token\"\n".to_owned(),
        server: format!("first_get_wait_ms = {LONGEST_WAIT_MS}\n"),
        ..plan.clone()
    };
    let mut group = Group::of(&wechat, [plan.start(), follows.start()]);
    let first = group.agreed(&[]);
    wait_for("both nodes to listen", || {
        let channels: Vec<String> = redis.ask(&["PUBSUB", "CHANNELS", "{tokencached}:*"]);
        let ends = channels.iter().filter(|channel| channel.contains(":ends:")).count();
        (ends == 2 && channels.iter().any(|channel| channel.ends_with(":wishes"))).then_some(())
    });
    wechat.kill_tokens(APPID);
    let mut client = group.members[1].node.connect();
    let begun = Instant::now();
    client.expect(format!("delete {}\r\n", key()), "DELETED\r\n");
    let waited = begun.elapsed();
    let next = client.get(&key()).map(|token| String::from_utf8(token).unwrap());
    if waited < Duration::from_millis(TAKEN_WITHIN_MS) {
        assert_eq!(next.map(|token| wechat.judge(&token)), Some(Verdict::Accepted));
    }
    group.agreed(&[&first]);
    wait_until_settled(&redis);
    assert_eq!((calls(&wechat), group.members[1].figure("calls")), (2, 0));
}

/// A component with one account that has authorised it.
fn platform(wechat: &Wechat, redis: &Redis, ticket: &str) -> String {
    format!(
        "[upstream]\nbase_url = \"{}\"\n[state]\npath = \"{{folder}}/state.json\"\nurl = \"{}\"\ntimeout_ms = 20000\n\
         secret = \"what-all-these-nodes-seal-with\"\n[[app]]\nplatform = \"component\"\nappid = \"{COMPONENT}\"\n\
         secret = \"{SECRET}\"\n{ticket}\n[[app.authorizer]]\nappid = \"{AUTH}\"\nrefresh_token_file = \"refresh\"\n",
        wechat.base_url(),
        redis.url()
    )
}

fn platform_node(wechat: &Wechat, redis: &Redis, pushed: Option<&str>) -> Node {
    let folder = tempfile::tempdir().unwrap();
    write(folder.path(), "refresh", FIRST);
    if let Some(ticket) = pushed {
        write(folder.path(), "ticket", ticket);
    }
    let file = pushed.map_or("", |_| "verify_ticket_file = \"ticket\"");
    Node::start_in(folder, &platform(wechat, redis, file), &[])
}

fn one_token(clients: &mut [Client], key: &str, but: &str) -> String {
    wait_for("one token everywhere", || {
        let tokens: Vec<Vec<u8>> = clients.iter_mut().map(|client| client.get(key)).collect::<Option<_>>()?;
        let same = tokens.iter().all(|token| *token == tokens[0] && token != but.as_bytes());
        same.then(|| String::from_utf8(tokens[0].clone()).unwrap())
    })
}

/// The verify ticket is handed in at one node. The other renews when that one is gone, with the refresh token that its
/// last renewal has brought: the one in its own file has long been used.
#[test]
#[ignore = "needs redis-server"]
fn a_verify_ticket_and_the_latest_refresh_token_reach_the_other_node() {
    let (wechat, redis) = (Wechat::with(options(7_200)), Redis::start(&[]));
    let ticket = wechat.push_verify_ticket(COMPONENT);
    let first = platform_node(&wechat, &redis, Some(&ticket));
    let (own, account) = (format!("component_access_token:{COMPONENT}"), format!("access_token:{AUTH}"));
    let mut clients = vec![first.connect()];
    let before = one_token(&mut clients, &account, "");
    wechat.kill_tokens(AUTH);
    clients[0].expect(format!("delete {account}\r\n"), "DELETED\r\n");
    let renewed = one_token(&mut clients, &account, &before);
    assert_ne!(wechat.refresh_token(AUTH), FIRST, "or this shows nothing");

    let second = platform_node(&wechat, &redis, None);
    clients.push(second.connect());
    assert_eq!(one_token(&mut clients, &account, ""), renewed);
    let component = one_token(&mut clients, &own, "");
    assert_eq!((minted(&wechat, COMPONENT), minted(&wechat, AUTH)), (1, 2), "one has called for both");

    drop((first, clients.remove(0)));
    for (appid, key, last) in [(COMPONENT, &own, &component), (AUTH, &account, &renewed)] {
        wechat.kill_tokens(appid);
        clients[0].expect(format!("delete {key}\r\n"), "DELETED\r\n");
        let token = one_token(&mut clients, key, last);
        assert_eq!(wechat.judge(&token), Verdict::Accepted, "{key}");
    }
    assert_eq!((minted(&wechat, COMPONENT), minted(&wechat, AUTH)), (2, 3));
    // A refresh token in a file that this node has never used might be newer, so it is tried once.
    assert!(wechat.calls(AUTH).ended(Endpoint::AuthorizerToken, "errcode 61023") <= 1);
}

fn minted(wechat: &Wechat, appid: &str) -> u64 {
    wechat.calls(appid).minted
}
