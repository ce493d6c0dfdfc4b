//! Tickets, fetched with their app's token and polled; and the other platforms, such as WeCom, renewed at the expiry.

use std::io::{Read, Write};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use tokencached::sandbox::{AppOptions, Endpoint, FaultKind, FaultScope, InjectedFault, Options, SandboxPlatform};

use crate::support::{Client, Node, Wechat, free_address, wait_for};

const APPID: &str = "wx0000000000000001";
const CORPID: &str = "ww0000000000000001";
const SECRET: &str = "0123456789abcdef0123456789abcdef";

fn wechat(lifetime_s: u64, kind: SandboxPlatform, appid: &str) -> Wechat {
    let app = AppOptions { appid: appid.into(), secret: SECRET.into(), platform: kind, ..AppOptions::default() };
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
    let wechat = wechat(7200, SandboxPlatform::Mp, APPID);
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
    // Polls are in proportion: every twelfth of the token's lifetime.
    let wechat = wechat(12, SandboxPlatform::Mp, APPID);
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
    let wechat = wechat(12, SandboxPlatform::Mp, APPID);
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
    let wechat = wechat(7200, SandboxPlatform::Mp, APPID);
    // The token becomes invalid between its fetch and the first call for the tickets.
    wechat.add_fault(APPID, InjectedFault::new(FaultKind::Html).on(FaultScope::Tickets).times(2));
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
    let wechat = wechat(7200, SandboxPlatform::Mp, APPID);
    let first_node = mp(&wechat);
    let key = format!("jsapi_ticket:{APPID}");
    let first = value(&mut first_node.connect(), &key);
    let config = std::fs::read_to_string(first_node.path("tokencached.toml")).unwrap();
    let folder = first_node.stop();
    wechat.set_fault(APPID, InjectedFault::new(FaultKind::Hang).on(FaultScope::All));
    let config = config.replace(&folder.path().display().to_string(), "{folder}");
    let node = Node::start_in(folder, &config, &[]);
    assert_eq!(node.connect().get(&key).unwrap(), first.as_bytes());
}

#[test]
#[ignore = "waits for real time"]
fn wecom_is_renewed_at_its_end_without_a_miss() {
    let wechat = wechat(3, SandboxPlatform::Wecom, CORPID);
    let app =
        format!("appid = \"{CORPID}\"\nplatform = \"wecom\"\nagent = \"1000002\"\ntickets = [\"jsapi\", \"agent\"]\n");
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
    // Fetched at its expiry, and not again and again before.
    let calls = wechat.calls(CORPID);
    assert!(calls.of(Endpoint::Gettoken) <= 4 * tokens.len() as u64, "{calls:?}");
}

#[test]
fn qq_and_feishu_are_asked_in_their_own_shape() {
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
             [[app]]\nappid = \"1112263905\"\nsecret = \"{SECRET}\"\nplatform = \"qq\"\n\
             [[app]]\nappid = \"cli_9f5343c580712544\"\nsecret = \"{SECRET}\"\nplatform = \"feishu\"\n"
        ),
        &[],
    );
    let mut client = node.connect();
    assert_eq!(value(&mut client, "access_token:1112263905"), "QQ-TOKEN");
    assert_eq!(value(&mut client, "access_token:cli_9f5343c580712544"), "t-FEISHU");
}

/// A server that answers every call with this body until it is told to close all connections.
fn answering(body: String) -> (String, Arc<AtomicBool>) {
    let gone = Arc::new(AtomicBool::new(false));
    let is_gone = gone.clone();
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let base_url = format!("http://{}", listener.local_addr().unwrap());
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let mut stream = stream.unwrap();
            if is_gone.load(Ordering::SeqCst) {
                continue;
            }
            let mut request = Vec::new();
            let mut part = [0; 4096];
            while !request.ends_with(b"}") {
                match stream.read(&mut part) {
                    Ok(read) if read > 0 => request.extend_from_slice(&part[..read]),
                    _ => break,
                }
            }
            let length = body.len();
            // The client may have gone.
            let _ = write!(stream, "HTTP/1.1 200 OK\r\ncontent-length: {length}\r\nconnection: close\r\n\r\n{body}");
        }
    });
    (base_url, gone)
}

const FEISHU: &str = "cli_9f5343c580712544";

fn feishu_answer(token: &str) -> String {
    format!(r#"{{"code":0,"msg":"ok","tenant_access_token":"{token}","expire":7200}}"#)
}

/// Feishu says to reserve 4 KB.
#[cfg(feature = "redis")]
#[test]
#[ignore = "needs redis-server"]
fn a_token_of_4096_bytes_is_served_everywhere_and_kept() {
    let token = format!("t-{}", "aB3.".repeat(1024).split_at(4094).0);
    let redis = crate::support::redis::Redis::start(&[]);
    let (base_url, gone) = answering(feishu_answer(&token));
    let http = free_address();
    let key = format!("access_token:{FEISHU}");
    let shared = format!("url = \"{}\"\nsecret_file = \"{{folder}}/state.secret\"", redis.url());
    let config = |rest: &str| {
        format!(
            "[http]\nlisten = [\"{http}\"]\n[upstream]\nbase_url = \"{base_url}\"\n\
             [state]\npath = \"{{folder}}/state.json\"\n{rest}\n[[app]]\nappid = \"{FEISHU}\"\nsecret = \"{SECRET}\"\n\
             platform = \"feishu\"\naliases = [\"plain\", {{ key = \"quoted\", encoding = \"json_string\" }}]\n"
        )
    };
    let folder = || {
        let folder = tempfile::tempdir().unwrap();
        crate::support::write(folder.path(), "state.secret", "0123456789abcdef0123456789abcdef");
        folder
    };
    let first = Node::start_in(folder(), &config(&shared), &[]);
    let mut client = first.connect();
    assert_eq!(value(&mut client, &key), token);
    assert_eq!(value(&mut client, "plain"), token);
    assert_eq!(value(&mut client, "quoted"), format!("\"{token}\""));
    client.expect(format!("mg {key} v s\r\n"), format!("VA 4096 s4096\r\n{token}\r\n"));
    let mut binary = first.connect();
    let mut request = vec![0x80, 0, 0, key.len() as u8, 0, 0, 0, 0, 0, 0, 0, key.len() as u8];
    request.extend([0; 12]);
    request.extend(key.as_bytes());
    binary.send(request);
    let answer = binary.read(24 + 4 + 4096);
    assert_eq!(&answer[28..], token.as_bytes());
    let path = format!("/v1/apps/{FEISHU}/credentials/access_token");
    let headers = [&*format!("Host: {http}"), crate::http_api::API_HEADER];
    let told = crate::http_api::raw(http, "GET", &path, &headers, "");
    assert_eq!(told.json()["token"].as_str(), Some(token.as_str()), "{told:?}");
    // A report may name it by its value.
    let body = format!("{{\"token\":\"{token}\"}}");
    let report = crate::http_api::raw(http, "POST", &format!("{path}/refresh"), &headers, &body);
    assert_eq!(report.status, 200, "{report:?}");

    // A node without a secret, by HTTP.
    let follower = Node::start(
        &format!(
            "[state]\npath = \"none\"\nleader_urls = \"http://{http}\"\npoll_every_ms = 1000\n[[app]]\nappid = \"{FEISHU}\"\n\
             platform = \"feishu\"\nbase_url = \"http://127.0.0.1:1\"\n"
        ),
        &[],
    );
    assert_eq!(value(&mut follower.connect(), &key), token);

    // From the state file alone, and from the shared Redis alone.
    gone.store(true, Ordering::SeqCst);
    let second = Node::start_in(folder(), &config(&shared).replace(&format!("listen = [\"{http}\"]"), ""), &[]);
    assert_eq!(value(&mut second.connect(), &key), token);
    let alone = Node::start_in(first.stop(), &config(""), &[]);
    assert_eq!(alone.connect().get(&key).unwrap(), token.as_bytes());
}

#[test]
fn a_token_that_is_too_long_for_us_is_our_fault_and_not_the_networks() {
    let (base_url, _) = answering(feishu_answer(&"x".repeat(8193)));
    let node = Node::start(
        &format!(
            "[upstream]\nbase_url = \"{base_url}\"\n[state]\npath = \"none\"\n[[app]]\nappid = \"{FEISHU}\"\n\
             secret = \"{SECRET}\"\nplatform = \"feishu\"\n"
        ),
        &[],
    );
    let mut client = node.connect();
    let mut stat = |name: &str| client.stat("tokens", &format!("{FEISHU}:{name}"));
    assert_eq!(wait_for("a failure", || stat("last_error_class")), "internal");
    assert_eq!(stat("state").unwrap(), "blocked");
    assert!(stat("last_error").unwrap().contains("has 8193 bytes, and this server holds 8192 at most"));
    assert!(stat("what_to_do").unwrap().contains("report this as a bug"));
}

/// The credentials of one app with a jsapi ticket, and what is known of both.
mod family {
    use std::sync::Arc;

    use tokencached::clock::{Now, boot_ms};
    use tokencached::credential::App;
    use tokencached::credential::facts::{FailureClass, VerificationResult};
    use tokencached::credential::journal::Event;
    use tokencached::credential::table::{Credential, CredentialState, Reading};
    use tokencached::platform::mp;
    use tokencached::sandbox::{Endpoint, FaultKind, FaultScope, InjectedFault, Options, Sandbox};
    use tokencached::texts;

    use crate::refresher::{Node, sandbox, stable, token, until};

    fn with_ticket(sandbox: &Sandbox) -> Node {
        Node::of(sandbox, App { tickets: vec![&mp::JSAPI], ..stable() })
    }

    fn ticket(node: &Node) -> Arc<Credential> {
        node.table.credentials()[1].clone()
    }

    fn events(node: &Node, credential: &Credential) -> Vec<Event> {
        node.table.journal.entries_of(credential.id, Now::read()).iter().map(|entry| entry.event.clone()).collect()
    }

    async fn ask(node: &Node, credential: &Credential) {
        let done = node.table.ask_refresh(credential, None).expect("room for a report");
        done.await.unwrap();
    }

    fn refused(errcode: i64, errmsg: &str) -> InjectedFault {
        InjectedFault::new(FaultKind::Errcode { errcode, errmsg: errmsg.into() })
    }

    #[tokio::test]
    #[ignore = "waits for real time"]
    async fn a_ticket_without_a_token_waits_for_it_and_has_no_error_of_its_own() {
        let sandbox = sandbox(Options::default()).await;
        sandbox.set_fault("wx1", refused(40164, "invalid ip 9.8.7.6, not in whitelist"));
        let node = with_ticket(&sandbox);
        let ticket = &ticket(&node);
        until("the token's failure", || node.status().failures > 0).await;
        // Its readers do not wait any more: the call would have been now.
        until("the ticket's turn", || matches!(ticket.read(boot_ms()), Reading::Absent)).await;
        let status = ticket.status(boot_ms());
        assert_eq!((status.state, status.waits_for_parent, status.failures), (CredentialState::Waiting, true, 0));
        assert_eq!((status.last_error.clone(), status.next_action()), (None, "await token"));
        assert_eq!(ticket.missing_token(&status).unwrap().status(boot_ms()).last_error.unwrap().errcode, Some(40164));
        assert_eq!(events(&node, ticket), []);
        assert_eq!(sandbox.calls("wx1").of(Endpoint::Ticket), 0);

        sandbox.clear_fault("wx1");
        ask(&node, &node.credential()).await;
        until("the ticket", || token(ticket).is_some()).await;
        let status = ticket.status(boot_ms());
        assert_eq!((status.state, status.waits_for_parent, status.failures), (CredentialState::Fresh, false, 0));
        assert!(matches!(events(&node, ticket)[..], [Event::Renewed { .. }]), "{:?}", events(&node, ticket));
    }

    /// Each refusal causes a verification of the token. If it is good, calls every second change nothing.
    #[tokio::test]
    async fn a_ticket_refused_with_40001_has_the_token_verified_and_says_nothing_of_the_secret() {
        let sandbox = sandbox(Options::default()).await;
        let text = "invalid credential, access_token is invalid or not latest";
        sandbox.add_fault("wx1", refused(40001, text).on(FaultScope::Tickets));
        let node = with_ticket(&sandbox);
        let ticket = &ticket(&node);
        until("the ticket's verdict", || ticket.status(boot_ms()).state == CredentialState::Blocked).await;
        let error = ticket.status(boot_ms()).last_error.unwrap();
        assert_eq!((error.errcode, error.class), (Some(40001), FailureClass::Operator));
        assert!(error.text.contains("the access token was refused for this call"), "{}", error.text);
        assert!(
            error.advice.contains("The AppSecret is right") && texts::in_chinese(&error.advice).contains("不要重置"),
            "{error:?}"
        );
        let status = node.status();
        assert_eq!((status.last_error, status.forced, status.early_deaths), (None, 0, 0));
        assert_eq!(status.last_check.unwrap().verdict, VerificationResult::Accepted);
        let calls = sandbox.calls("wx1");
        // The first fetch and one for each verification.
        assert!(calls.of(Endpoint::StableToken) <= 1 + status.checks, "{calls:?}");
        assert!(calls.of(Endpoint::Ticket) < 10, "{calls:?}");
        sandbox.clear_fault("wx1");
        ask(&node, ticket).await;
        until("the ticket", || token(ticket).is_some()).await;
    }

    /// A new token may be accepted, so the ticket is fetched at once, not at the next slow try.
    #[tokio::test]
    #[ignore = "waits for real time"]
    async fn a_ticket_that_was_refused_is_asked_for_with_the_next_token_at_once() {
        let sandbox = sandbox(Options { lifetime_s: 12, ..Options::default() }).await;
        sandbox.add_fault("wx1", refused(40001, "invalid credential").on(FaultScope::Tickets));
        let node = with_ticket(&sandbox);
        let ticket = &ticket(&node);
        until("the ticket's verdict", || ticket.status(boot_ms()).state == CredentialState::Blocked).await;
        sandbox.clear_fault("wx1");
        until("the ticket", || token(ticket).is_some()).await;
    }
}
