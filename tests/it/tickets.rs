//! Tickets and the other platforms: fetched with their app's token, polled and swapped; WeCom renewed at its end.

use tokencached::sandbox::{AppKind, AppOptions, Endpoint, Fault, FaultKind, Options, Scope};

use crate::support::{Client, Node, Wechat, wait_for};

const APPID: &str = "wx0000000000000001";
const CORPID: &str = "ww0000000000000001";
const SECRET: &str = "0123456789abcdef0123456789abcdef";

fn wechat(lifetime_s: u64, kind: AppKind, appid: &str) -> Wechat {
    let app = AppOptions { appid: appid.into(), secret: SECRET.into(), kind, ..AppOptions::default() };
    Wechat::with(Options { apps: vec![app], lifetime_s, ..Options::default() })
}

fn node(wechat: &Wechat, app: &str) -> Node {
    let config = format!(
        "[upstream]\nbase_url = \"{}\"\n[state]\npath = \"{{folder}}/state.json\"\n[[app]]\nsecret = \"{SECRET}\"\n{app}",
        wechat.base_url()
    );
    Node::start(&config, &[])
}

fn mp(wechat: &Wechat) -> Node {
    node(wechat, &format!("appid = \"{APPID}\"\ntickets = [\"jsapi\", \"wx_card\"]\n"))
}

fn value(client: &mut Client, key: &str) -> String {
    String::from_utf8(wait_for(key, || client.get(key))).unwrap()
}

#[test]
fn tickets_are_there_beside_the_token_and_clients_cannot_write_them() {
    let wechat = wechat(7200, AppKind::Mp, APPID);
    let node = mp(&wechat);
    let mut client = node.connect();
    let jsapi = value(&mut client, &format!("jsapi_ticket:{APPID}"));
    let card = value(&mut client, &format!("wx_card_ticket:{APPID}"));
    let token = value(&mut client, &format!("access_token:{APPID}"));
    assert!(jsapi != card && jsapi != token);
    client.expect(format!("set jsapi_ticket:{APPID} 0 0 1\r\nx\r\n"), "NOT_STORED\r\n");
    assert_eq!(value(&mut client, &format!("jsapi_ticket:{APPID}")), jsapi);
    assert_eq!(client.stat("tokens", &format!("jsapi_ticket:{APPID}:state")).unwrap(), "fresh");
    assert!(!node.log().contains(&jsapi) && !node.log().contains(&token));
    // One call each.
    assert_eq!(wechat.calls(APPID).of(Endpoint::Ticket), 2);
}

#[test]
fn a_ticket_that_wechat_changes_is_swapped_at_the_next_poll() {
    // Polls come in proportion: every twelfth of the token's life.
    let wechat = wechat(12, AppKind::Mp, APPID);
    let node = mp(&wechat);
    let mut client = node.connect();
    let key = format!("jsapi_ticket:{APPID}");
    let first = value(&mut client, &key);
    wechat.roll_tickets(APPID);
    let second = wait_for("another ticket", || {
        let now = client.get(&key).expect("a ticket is swapped, never cleared");
        (now != first.as_bytes()).then_some(now)
    });
    assert_ne!(second, first.as_bytes());
}

/// easywechat #1580: `expires_in` is always 7200, so a ticket cached for that long is wrong for an hour.
#[test]
fn the_same_ticket_again_is_no_new_generation() {
    let wechat = wechat(12, AppKind::Mp, APPID);
    let node = mp(&wechat);
    let mut client = node.connect();
    let key = format!("jsapi_ticket:{APPID}");
    value(&mut client, &key);
    let stat = |client: &mut Client, name: &str| client.stat("tokens", &format!("{key}:{name}")).unwrap();
    let count = |client: &mut Client| stat(client, "generation").parse::<u64>().unwrap();
    let first = count(&mut client);
    wait_for("a poll that brings the same", || (stat(&mut client, "same_answers") != "0").then_some(()));
    let generation = count(&mut client) - first + 1;
    let rolls = wechat.calls(APPID).of(Endpoint::Ticket);
    assert!(generation <= 2, "generation {generation} after {rolls} polls");
}

#[test]
fn a_ticket_call_that_finds_the_token_dead_has_it_renewed() {
    let wechat = wechat(7200, AppKind::Mp, APPID);
    // The token dies between its fetch and the tickets' first call.
    wechat.add_fault(APPID, Fault::new(FaultKind::Html).on(Scope::Tickets).times(2));
    let node = mp(&wechat);
    let mut client = node.connect();
    let first = value(&mut client, &format!("access_token:{APPID}"));
    wechat.kill_tokens(APPID);
    value(&mut client, &format!("jsapi_ticket:{APPID}"));
    value(&mut client, &format!("wx_card_ticket:{APPID}"));
    assert_ne!(value(&mut client, &format!("access_token:{APPID}")), first);
}

#[test]
fn a_restart_serves_the_tickets_at_once() {
    let wechat = wechat(7200, AppKind::Mp, APPID);
    let first_node = mp(&wechat);
    let key = format!("jsapi_ticket:{APPID}");
    let first = value(&mut first_node.connect(), &key);
    let config = std::fs::read_to_string(first_node.path("tokencached.toml")).unwrap();
    let folder = first_node.stop();
    wechat.set_fault(APPID, Fault::new(FaultKind::Hang).on(Scope::All));
    let config = config.replace(&folder.path().display().to_string(), "{folder}");
    let node = Node::start_in(folder, &config, &[]);
    assert_eq!(node.connect().get(&key).unwrap(), first.as_bytes());
}

#[test]
fn wecom_is_renewed_at_its_end_without_a_miss() {
    let wechat = wechat(3, AppKind::Wecom, CORPID);
    let app =
        format!("appid = \"{CORPID}\"\nkind = \"wecom\"\nagent = \"1000002\"\ntickets = [\"jsapi\", \"agent\"]\n");
    let node = node(&wechat, &app);
    let mut client = node.connect();
    let id = format!("{CORPID}:1000002");
    let first = value(&mut client, &format!("access_token:{id}"));
    value(&mut client, &format!("jsapi_ticket:{id}"));
    value(&mut client, &format!("agent_ticket:{id}"));
    let mut tokens = vec![first];
    wait_for("three renewals", || {
        let token = client.get(&format!("access_token:{id}")).expect("a reader at the end waits for the next token");
        let token = String::from_utf8(token).unwrap();
        if tokens.last() != Some(&token) {
            tokens.push(token);
        }
        (tokens.len() > 3).then_some(())
    });
    // Asked at its end, and not over and over before.
    let calls = wechat.calls(CORPID);
    assert!(calls.of(Endpoint::Gettoken) <= 4 * tokens.len() as u64, "{calls:?}");
}

#[test]
fn qq_and_feishu_are_asked_in_their_own_shape() {
    use std::io::{Read, Write};
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let base_url = format!("http://{}", listener.local_addr().unwrap());
    std::thread::spawn(move || {
        for stream in listener.incoming().take(2) {
            let mut stream = stream.unwrap();
            let mut request = Vec::new();
            let mut part = [0; 4096];
            // A GET ends with its head; the POST's body ends with a brace.
            while !request.ends_with(b"\r\n\r\n") && !request.ends_with(b"}") {
                let read = stream.read(&mut part).unwrap();
                request.extend_from_slice(&part[..read]);
            }
            let request = String::from_utf8(request).unwrap();
            let body = if request.starts_with("GET /api/getToken?grant_type=client_credential&appid=1112263905&secret=")
            {
                r#"{"errcode":0,"errmsg":"","access_token":"QQ-TOKEN","expires_in":7200}"#
            } else if request.starts_with("POST /open-apis/auth/v3/tenant_access_token/internal ") {
                assert!(request.contains(r#""app_id":"cli_9f5343c580712544""#), "{request}");
                r#"{"code":0,"msg":"ok","tenant_access_token":"t-FEISHU","expire":7200}"#
            } else {
                panic!("{request}");
            };
            let length = body.len();
            write!(stream, "HTTP/1.1 200 OK\r\ncontent-length: {length}\r\nconnection: close\r\n\r\n{body}").unwrap();
        }
    });
    let node = Node::start(
        &format!(
            "[upstream]\nbase_url = \"{base_url}\"\n[state]\npath = \"none\"\n\
             [[app]]\nappid = \"1112263905\"\nsecret = \"{SECRET}\"\nkind = \"qq\"\n\
             [[app]]\nappid = \"cli_9f5343c580712544\"\nsecret = \"{SECRET}\"\nkind = \"feishu\"\n"
        ),
        &[],
    );
    let mut client = node.connect();
    assert_eq!(value(&mut client, "access_token:1112263905"), "QQ-TOKEN");
    assert_eq!(value(&mut client, "access_token:cli_9f5343c580712544"), "t-FEISHU");
}
