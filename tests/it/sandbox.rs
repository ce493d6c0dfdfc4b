//! The simulated WeChat API over real HTTP: every endpoint, every fault, the control routes, HTTPS.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "helpers of tests fail the test")]

use std::future::Future;
use std::io::ErrorKind;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::time::Duration;

use reqwest::{Client, Response};
use serde_json::{Value, json};
use tokencached::sandbox::{
    ALL_APPS, AppOptions, Endpoint, FaultKind, FaultScope, InjectedFault, Options, Sandbox, SandboxPlatform,
    SandboxTlsFiles, Verdict,
};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::Instant;

use crate::support::TIMEOUT;

const TOKEN_PATH: &str = "/cgi-bin/token?grant_type=client_credential&appid=wx&secret=s";
const LOCALHOST: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);

fn options() -> Options {
    let mp = AppOptions { appid: "wx".into(), secret: "s".into(), ..AppOptions::default() };
    let wecom = AppOptions {
        appid: "corp".into(),
        secret: "c".into(),
        platform: SandboxPlatform::Wecom,
        ..AppOptions::default()
    };
    Options { apps: vec![mp, wecom], ..Options::default() }
}

async fn start() -> Sandbox {
    Sandbox::start(options()).await.unwrap()
}

fn client() -> Client {
    // reqwest wants a TLS provider even for plain HTTP; a second installation is refused and harmless.
    let _ = rustls::crypto::ring::default_provider().install_default();
    Client::builder().timeout(TIMEOUT).no_proxy().build().unwrap()
}

async fn get(sandbox: &Sandbox, path: &str) -> Response {
    client().get(sandbox.base_url() + path).send().await.unwrap()
}

async fn get_json(sandbox: &Sandbox, path: &str) -> Value {
    let answer = get(sandbox, path).await;
    assert_eq!(answer.status(), 200);
    answer.json().await.unwrap()
}

async fn post_json(sandbox: &Sandbox, path: &str, body: Value) -> Value {
    let answer = client().post(sandbox.base_url() + path).body(body.to_string()).send().await.unwrap();
    serde_json::from_str(&answer.text().await.unwrap()).unwrap()
}

async fn stable(sandbox: &Sandbox, force: bool) -> Value {
    let body = json!({"grant_type": "client_credential", "appid": "wx", "secret": "s", "force_refresh": force});
    post_json(sandbox, "/cgi-bin/stable_token", body).await
}

async fn mint(sandbox: &Sandbox) -> String {
    token_in(&get_json(sandbox, TOKEN_PATH).await)
}

#[track_caller]
fn token_in(answer: &Value) -> String {
    answer["access_token"].as_str().unwrap_or_else(|| panic!("no token in {answer}")).to_owned()
}

/// Asks again and again until the answer is as wanted.
async fn until<F: Future<Output = bool>>(what: &str, mut holds: impl FnMut() -> F) {
    let start = Instant::now();
    while !holds().await {
        assert!(start.elapsed() < TIMEOUT, "not in time: {what}");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

/// Sends one request over a bare socket.
async fn raw_request(addr: SocketAddr, path: &str) -> TcpStream {
    let mut tcp = TcpStream::connect(addr).await.unwrap();
    tcp.write_all(format!("GET {path} HTTP/1.1\r\nHost: sandbox\r\n\r\n").as_bytes()).await.unwrap();
    tcp
}

/// All bytes until the peer ends the connection, and how it ended.
async fn read_to_end(mut tcp: TcpStream) -> (String, Result<usize, ErrorKind>) {
    let mut bytes = Vec::new();
    let read = tokio::time::timeout(TIMEOUT, tcp.read_to_end(&mut bytes)).await.expect("the connection stays open");
    (String::from_utf8(bytes).unwrap(), read.map_err(|error| error.kind()))
}

/// The sandbox with one fault on `wx`, and the answer to one token call.
async fn struck_by(kind: FaultKind) -> (Sandbox, Response) {
    let sandbox = start().await;
    sandbox.set_fault("wx", InjectedFault::new(kind));
    let answer = get(&sandbox, TOKEN_PATH).await;
    (sandbox, answer)
}

#[tokio::test]
async fn classic_mints_and_the_token_works() {
    let sandbox = start().await;
    let answer = get(&sandbox, TOKEN_PATH).await;
    assert_eq!(answer.headers()["content-type"], "application/json; encoding=utf-8");
    let first: Value = answer.json().await.unwrap();
    assert_eq!(first["expires_in"], 7200);
    assert_eq!(first.as_object().unwrap().len(), 2, "no errcode on success: {first}");
    let first = token_in(&first);
    assert_eq!(first.len(), 136);
    assert_ne!(mint(&sandbox).await, first);
    let ips = get_json(&sandbox, &format!("/cgi-bin/get_api_domain_ip?access_token={first}")).await;
    assert!(ips["ip_list"].is_array(), "{ips}");
    let menu = get_json(&sandbox, &format!("/cgi-bin/menu/get?access_token={first}")).await;
    assert!(menu["menu"].is_object(), "{menu}");
}

#[tokio::test]
async fn stable_repeats_itself_and_wants_post() {
    let sandbox = start().await;
    let first = stable(&sandbox, false).await;
    assert_eq!(token_in(&stable(&sandbox, false).await), token_in(&first));
    assert_ne!(token_in(&stable(&sandbox, true).await), token_in(&first));
    assert_eq!(get_json(&sandbox, "/cgi-bin/stable_token").await["errcode"], 43002);
    let answer = client().post(sandbox.base_url() + "/cgi-bin/stable_token").body("{").send().await.unwrap();
    assert!(answer.text().await.unwrap().starts_with(r#"{"errcode":47001,"#));
    assert_eq!(post_json(&sandbox, "/cgi-bin/stable_token", json!([1])).await["errcode"], 40002);
}

#[tokio::test]
async fn errors_come_with_http_200() {
    let sandbox = start().await;
    let cases = [
        ("/cgi-bin/token?grant_type=client_credential&secret=s", 41002),
        ("/cgi-bin/token?grant_type=client_credential&appid=&secret=s", 41002),
        ("/cgi-bin/token?grant_type=client_credential&appid=wx", 41004),
        ("/cgi-bin/token?grant_type=client_credential&appid=wx&secret=no", 40125),
        ("/cgi-bin/token?appid=wx&secret=s", 40002),
        ("/cgi-bin/token?%%%&&&=&appid=%ff", 40002),
        ("/cgi-bin/menu/get", 41001),
        ("/cgi-bin/menu/get?access_token=x%20y", 40014),
    ];
    for (path, errcode) in cases {
        assert_eq!(get_json(&sandbox, path).await["errcode"], errcode, "{path}");
    }
    let refused = post_json(&sandbox, "/cgi-bin/menu/get?access_token=x", json!({})).await;
    assert_eq!(refused["errcode"], 43001);
    assert_eq!(get(&sandbox, "/no/such/path").await.status(), 404);
}

#[tokio::test]
async fn a_classic_token_may_be_asked_for_by_post_too() {
    let sandbox = start().await;
    let posted = post_json(&sandbox, TOKEN_PATH, json!({ "appid": "another" })).await;
    assert!(posted["access_token"].is_string(), "the parameters are in the query: {posted}");
}

#[tokio::test]
async fn tickets_of_both_apis() {
    let sandbox = start().await;
    let mp = mint(&sandbox).await;
    let wecom = get_json(&sandbox, "/cgi-bin/gettoken?corpid=corp&corpsecret=c").await;
    assert_eq!((&wecom["errcode"], &wecom["errmsg"]), (&json!(0), &json!("ok")));
    let wecom = token_in(&wecom);
    let paths = [
        format!("/cgi-bin/ticket/getticket?access_token={mp}&type=jsapi"),
        format!("/cgi-bin/ticket/getticket?access_token={mp}&type=wx_card"),
        format!("/cgi-bin/ticket/getticket?access_token={mp}&type=2"),
        format!("/cgi-bin/get_jsapi_ticket?access_token={wecom}"),
        format!("/cgi-bin/ticket/get?access_token={wecom}&type=agent_config"),
    ];
    let mut seen = Vec::new();
    for path in &paths {
        let first = get_json(&sandbox, path).await;
        assert_eq!((&first["errcode"], &first["expires_in"]), (&json!(0), &json!(7200)), "{path}");
        assert_eq!(get_json(&sandbox, path).await, first, "{path}");
        assert!(!seen.contains(&first["ticket"]), "{path}");
        seen.push(first["ticket"].clone());
    }
    sandbox.roll_tickets("wx");
    assert_ne!(get_json(&sandbox, &paths[0]).await["ticket"], seen[0]);
}

#[tokio::test]
async fn the_allowlist_names_the_address_it_saw() {
    let sandbox = start().await;
    sandbox.set_allowlist("wx", Some(vec![]));
    let refused = get_json(&sandbox, TOKEN_PATH).await;
    assert_eq!(refused["errcode"], 40164);
    let text = refused["errmsg"].as_str().unwrap();
    assert!(text.starts_with("invalid ip 127.0.0.1 ipv6 ::ffff:127.0.0.1, not in whitelist rid: "), "{text}");
    sandbox.set_allowlist("wx", Some(vec![LOCALHOST]));
    mint(&sandbox).await;
}

#[tokio::test]
async fn an_ipv4_peer_of_an_ipv6_socket_is_named_as_ipv4() {
    let listen = "[::]:0".parse().unwrap();
    let Ok(sandbox) = Sandbox::start(Options { listen, ..options() }).await else {
        return; // a machine without IPv6
    };
    sandbox.set_allowlist("wx", Some(vec![LOCALHOST]));
    let addr = SocketAddr::from((Ipv4Addr::LOCALHOST, sandbox.addr().port()));
    let answer = client().get(format!("http://{addr}{TOKEN_PATH}")).send().await.unwrap();
    token_in(&answer.json().await.unwrap());
}

#[tokio::test]
async fn secrets_freeze_and_change() {
    let sandbox = start().await;
    sandbox.freeze_secret("wx", true);
    assert_eq!(get_json(&sandbox, TOKEN_PATH).await["errcode"], 40243);
    sandbox.freeze_secret("wx", false);
    sandbox.set_secret("wx", "new");
    assert_eq!(get_json(&sandbox, TOKEN_PATH).await["errcode"], 40125);
}

#[tokio::test]
async fn killed_tokens_are_refused_at_once() {
    let sandbox = start().await;
    let token = mint(&sandbox).await;
    assert_eq!(sandbox.judge(&token), Verdict::Accepted);
    sandbox.kill_tokens("wx");
    assert_eq!(sandbox.judge(&token), Verdict::NotLatest);
    assert_eq!(get_json(&sandbox, &format!("/cgi-bin/menu/get?access_token={token}")).await["errcode"], 40001);
}

#[tokio::test]
async fn a_token_expires_on_the_real_clock() {
    let sandbox = Sandbox::start(Options { lifetime_s: 1, ..options() }).await.unwrap();
    let token = mint(&sandbox).await;
    until("42001", || async { sandbox.judge(&token) == Verdict::Expired }).await;
    assert_eq!(get_json(&sandbox, &format!("/cgi-bin/menu/get?access_token={token}")).await["errcode"], 42001);
}

#[tokio::test]
async fn quotas_run_out_and_can_be_cleared() {
    let mut options = options();
    options.quotas.classic_per_day = 1;
    let sandbox = Sandbox::start(options).await.unwrap();
    mint(&sandbox).await;
    assert_eq!(get_json(&sandbox, TOKEN_PATH).await["errcode"], 45009);
    let orders = [
        ("/cgi-bin/clear_quota/v2", r#"{"appid":"wx","appsecret":"s"}"#),
        ("/cgi-bin/clear_quota/v2", "appid=wx&appsecret=s"),
        ("/cgi-bin/clear_quota/v2?appid=wx&appsecret=s", ""),
    ];
    for (path, body) in orders {
        let answer = client().post(sandbox.base_url() + path).body(body).send().await.unwrap();
        assert_eq!(answer.text().await.unwrap(), r#"{"errcode":0,"errmsg":"ok"}"#, "{path} {body}");
        mint(&sandbox).await;
    }
}

#[tokio::test]
async fn fault_errcode() {
    let kind = FaultKind::Errcode { errcode: -1, errmsg: "system error".into() };
    let (_sandbox, answer) = struck_by(kind).await;
    assert_eq!(answer.status(), 200);
    assert_eq!(answer.headers()["content-type"], "text/plain");
    assert_eq!(answer.text().await.unwrap(), r#"{"errcode":-1,"errmsg":"system error"}"#);
}

#[tokio::test]
async fn fault_status() {
    let (_sandbox, answer) = struck_by(FaultKind::Status { status: 502, body: "bad gateway".into() }).await;
    assert_eq!((answer.status().as_u16(), answer.text().await.unwrap().as_str()), (502, "bad gateway"));
}

#[tokio::test]
async fn an_impossible_status_is_no_panic() {
    let (sandbox, answer) = struck_by(FaultKind::Status { status: 7, body: String::new() }).await;
    assert_eq!(answer.status(), 500);
    sandbox.clear_fault("wx");
    mint(&sandbox).await;
}

#[tokio::test]
async fn fault_html() {
    let (_sandbox, answer) = struck_by(FaultKind::Html).await;
    assert_eq!((answer.status().as_u16(), answer.headers()["content-type"].to_str().unwrap()), (200, "text/html"));
    assert!(answer.text().await.unwrap().starts_with("<!DOCTYPE html>"));
}

#[tokio::test]
async fn fault_cut() {
    let sandbox = start().await;
    sandbox.set_fault("wx", InjectedFault::new(FaultKind::Cut));
    let (text, end) = read_to_end(raw_request(sandbox.addr(), TOKEN_PATH).await).await;
    let (head, body) = text.split_once("\r\n\r\n").unwrap();
    let promised = head.lines().find_map(|line| line.strip_prefix("Content-Length: ")).unwrap();
    assert_eq!(body.len(), promised.parse::<usize>().unwrap() / 2);
    assert!(body.starts_with(r#"{"access_token":""#), "{body}");
    assert!(end.is_ok(), "an orderly end of the stream, not {end:?}");
    let answer = get(&sandbox, TOKEN_PATH).await;
    assert!(answer.bytes().await.is_err(), "an HTTP client notices");
}

#[tokio::test]
async fn fault_truncated_json() {
    let (_sandbox, answer) = struck_by(FaultKind::TruncatedJson).await;
    let body = answer.text().await.unwrap();
    assert!(body.starts_with(r#"{"access_token":""#) && serde_json::from_str::<Value>(&body).is_err(), "{body}");
}

#[tokio::test]
async fn fault_hang() {
    let sandbox = start().await;
    sandbox.set_fault("wx", InjectedFault::new(FaultKind::Hang));
    let url = sandbox.base_url() + TOKEN_PATH;
    let waiting = tokio::spawn(async move { client().get(url).send().await.is_err() });
    until("the call hangs", || async { sandbox.calls("wx").in_flight == 1 }).await;
    assert_eq!(sandbox.calls("wx").ended(Endpoint::Token, "fault hang"), 1);
    sandbox.stop().await; // ends hanging calls too
    assert!(waiting.await.unwrap());
}

#[tokio::test]
async fn a_caller_that_leaves_a_hanging_call_is_noticed() {
    let sandbox = start().await;
    sandbox.set_fault("wx", InjectedFault::new(FaultKind::Hang));
    let tcp = raw_request(sandbox.addr(), TOKEN_PATH).await;
    until("the call hangs", || async { sandbox.calls("wx").in_flight == 1 }).await;
    drop(tcp);
    until("the call ends", || async { sandbox.calls("wx").in_flight == 0 }).await;
    assert_eq!(sandbox.calls("wx").in_flight_max, 1);
}

#[tokio::test]
async fn fault_drip() {
    let sandbox = start().await;
    sandbox.set_fault("wx", InjectedFault::new(FaultKind::Drip { every_ms: 1 }));
    let start = Instant::now();
    let answer = get_json(&sandbox, TOKEN_PATH).await;
    assert!(start.elapsed() >= Duration::from_millis(136), "at least one millisecond for each byte");
    assert_eq!(sandbox.judge(&token_in(&answer)), Verdict::Accepted);
}

#[tokio::test]
async fn fault_reset() {
    let sandbox = start().await;
    sandbox.set_fault("wx", InjectedFault::new(FaultKind::Reset));
    let (text, end) = read_to_end(raw_request(sandbox.addr(), TOKEN_PATH).await).await;
    assert_eq!((text.as_str(), end), ("", Err(ErrorKind::ConnectionReset)));
    assert_eq!(sandbox.calls("wx").minted, 0);
}

#[tokio::test]
async fn fault_huge() {
    let (sandbox, answer) = struck_by(FaultKind::Huge { bytes: 20_000_000 }).await;
    let body = answer.bytes().await.unwrap();
    assert!(body.len() > 20_000_000);
    let token = token_in(&serde_json::from_slice(&body).unwrap());
    assert_eq!(sandbox.judge(&token), Verdict::NotLatest, "without after_minting its token was never issued");
}

#[tokio::test]
async fn fault_empty() {
    let (_sandbox, answer) = struck_by(FaultKind::Empty).await;
    assert_eq!((answer.status().as_u16(), answer.bytes().await.unwrap().len()), (200, 0));
}

#[tokio::test]
async fn fault_raw() {
    let sandbox = start().await;
    let body = "\u{feff}{\"access_token\":\"a\\r\\nb\",\"access_token\":\"{access_token}\"}".to_owned();
    let kind = FaultKind::Raw { body, content_type: Some("text/x-odd".into()) };
    sandbox.set_fault("wx", InjectedFault::new(kind).after_minting());
    let answer = get(&sandbox, TOKEN_PATH).await;
    assert_eq!(answer.headers()["content-type"], "text/x-odd");
    let bytes = answer.bytes().await.unwrap();
    let text = std::str::from_utf8(&bytes).unwrap();
    let start = "\u{feff}{\"access_token\":\"a\\r\\nb\",\"access_token\":\"";
    let token = text.strip_prefix(start).and_then(|rest| rest.strip_suffix("\"}")).unwrap();
    assert_eq!(sandbox.judge(token), Verdict::Accepted);
}

#[tokio::test]
async fn fault_expires_in() {
    let sandbox = start().await;
    let odd = [json!(0), json!(-1), json!("7200"), json!(7200.5), json!(1e12), json!(null), json!([7200])];
    for value in odd {
        sandbox.set_fault("wx", InjectedFault::new(FaultKind::ExpiresIn { value: Some(value.clone()) }));
        let answer = get_json(&sandbox, TOKEN_PATH).await;
        assert_eq!(answer.get("expires_in"), Some(&value));
        assert_eq!(sandbox.judge(&token_in(&answer)), Verdict::Accepted);
    }
    sandbox.set_fault("wx", InjectedFault::new(FaultKind::ExpiresIn { value: None }));
    assert_eq!(get_json(&sandbox, TOKEN_PATH).await.get("expires_in"), None);
}

#[tokio::test]
async fn fault_delay_mints_after_the_wait_or_before_it() {
    let sandbox = start().await;
    let delay = |ms| InjectedFault::new(FaultKind::Delay { ms });
    let start = Instant::now();
    sandbox.set_fault("wx", delay(50));
    let token = mint(&sandbox).await;
    assert!(start.elapsed() >= Duration::from_millis(50));
    assert_eq!(sandbox.judge(&token), Verdict::Accepted);

    for (fault, minted) in [(delay(60_000), 1), (delay(60_000).after_minting(), 2)] {
        sandbox.set_fault("wx", fault);
        let tcp = raw_request(sandbox.addr(), TOKEN_PATH).await;
        until("the call waits", || async { sandbox.calls("wx").in_flight == 1 }).await;
        until("the mint", || async { sandbox.calls("wx").minted == minted }).await;
        drop(tcp);
        until("the call ends", || async { sandbox.calls("wx").in_flight == 0 }).await;
        assert_eq!(sandbox.calls("wx").minted, minted);
    }
}

#[tokio::test]
async fn a_fault_lasts_as_often_as_told_and_leaves_other_calls_alone() {
    let sandbox = start().await;
    let token = mint(&sandbox).await;
    let busy = FaultKind::Errcode { errcode: -1, errmsg: String::new() };
    sandbox.set_fault("wx", InjectedFault::new(busy.clone()).times(2));
    get_json(&sandbox, &format!("/cgi-bin/menu/get?access_token={token}")).await["menu"].as_object().unwrap();
    token_in(&get_json(&sandbox, "/cgi-bin/gettoken?corpid=corp&corpsecret=c").await);
    assert_eq!(get_json(&sandbox, TOKEN_PATH).await["errcode"], -1);
    assert_eq!(get_json(&sandbox, TOKEN_PATH).await["errcode"], -1);
    mint(&sandbox).await;

    sandbox.set_fault("wx", InjectedFault::new(busy.clone()).on(FaultScope::Business));
    assert_eq!(get_json(&sandbox, &format!("/cgi-bin/menu/get?access_token={token}")).await["errcode"], -1);
    mint(&sandbox).await;

    sandbox.set_fault(ALL_APPS, InjectedFault::new(busy).on(FaultScope::All));
    assert_eq!(get_json(&sandbox, "/cgi-bin/gettoken?corpid=corp&corpsecret=c").await["errcode"], -1);
}

#[tokio::test]
async fn an_answer_lost_after_minting_has_minted() {
    let sandbox = start().await;
    let old = token_in(&stable(&sandbox, false).await);
    sandbox.set_fault("wx", InjectedFault::new(FaultKind::Empty).times(1).after_minting());
    let body = json!({"grant_type": "client_credential", "appid": "wx", "secret": "s", "force_refresh": true});
    let url = sandbox.base_url() + "/cgi-bin/stable_token";
    let lost = client().post(url).body(body.to_string()).send().await.unwrap();
    assert_eq!(lost.bytes().await.unwrap().len(), 0);
    assert_eq!(sandbox.calls("wx").minted, 2);
    assert_ne!(token_in(&stable(&sandbox, false).await), old);
}

#[tokio::test]
async fn calls_are_counted_and_remembered() {
    let sandbox = start().await;
    let secret_token = mint(&sandbox).await;
    stable(&sandbox, true).await;
    get_json(&sandbox, "/cgi-bin/token?grant_type=client_credential&appid=wx&secret=no").await;
    get_json(&sandbox, "/cgi-bin/token?grant_type=client_credential&appid=nobody&secret=no").await;
    let calls = sandbox.calls("wx");
    assert_eq!((calls.total(), calls.of(Endpoint::Token), calls.minted), (3, 2, 2));
    assert_eq!(calls.ended(Endpoint::Token, "errcode 40125"), 1);
    assert_eq!(calls.ended(Endpoint::StableTokenForced, "ok"), 1);
    assert_eq!(sandbox.calls("").ended(Endpoint::Token, "errcode 40013"), 1);

    let seen = get_json(&sandbox, "/sandbox/calls?appid=wx").await;
    assert_eq!(seen["counts"]["token"], json!({"ok": 1, "errcode 40125": 1}));
    let last = &seen["recent"][2];
    assert_eq!((&last["endpoint"], &last["errcode"]), (&json!("token"), &json!(40125)));
    assert!(last["peer"].as_str().unwrap().starts_with("127.0.0.1:"), "{last}");
    let all = get(&sandbox, "/sandbox/calls").await.text().await.unwrap();
    assert!(all.contains("\"corp\"") && !all.contains(&secret_token), "{all}");
}

#[tokio::test]
async fn everything_can_be_ordered_over_http() {
    let sandbox = start().await;
    let token = mint(&sandbox).await;
    let order = |path: &'static str, body: Value| post_json(&sandbox, path, body);
    let done = json!({"ok": true});

    let busy = json!({"kind": "errcode", "errcode": 50002});
    assert_eq!(order("/sandbox/fault", json!({"appid": "wx", "fault": busy})).await, done);
    assert_eq!(get_json(&sandbox, TOKEN_PATH).await["errcode"], 50002);
    assert_eq!(get_json(&sandbox, "/sandbox/fault?appid=wx").await[0]["errcode"], 50002);
    client().delete(sandbox.base_url() + "/sandbox/fault?appid=wx").send().await.unwrap();

    assert_eq!(order("/sandbox/kill", json!({"appid": "wx"})).await, done);
    let verdict = get_json(&sandbox, &format!("/sandbox/judge?token={token}")).await;
    assert_eq!(verdict, json!({"verdict": "not_latest"}));

    assert_eq!(order("/sandbox/allowlist", json!({"appid": "wx", "ips": ["192.0.2.1"]})).await, done);
    assert_eq!(get_json(&sandbox, TOKEN_PATH).await["errcode"], 40164);
    assert_eq!(order("/sandbox/allowlist", json!({"appid": "wx", "ips": null})).await, done);

    assert_eq!(order("/sandbox/freeze", json!({"appid": "wx", "frozen": true})).await, done);
    assert_eq!(get_json(&sandbox, TOKEN_PATH).await["errcode"], 40243);
    assert_eq!(order("/sandbox/freeze", json!({"appid": "wx", "frozen": false})).await, done);

    assert_eq!(order("/sandbox/roll", json!({"appid": "wx"})).await, done);
    let fresh = mint(&sandbox).await;
    let apps = get_json(&sandbox, "/sandbox/apps").await;
    assert_eq!((&apps[1]["appid"], &apps[1]["live_tokens"]), (&json!("wx"), &json!([fresh])));

    assert_eq!(order("/sandbox/secret", json!({"appid": "wx", "secret": "new"})).await, done);
    assert_eq!(get_json(&sandbox, TOKEN_PATH).await["errcode"], 40125);
}

#[tokio::test]
async fn the_open_platform_speaks_http_too() {
    let component = AppOptions {
        appid: "wxc".into(),
        secret: "s".into(),
        platform: SandboxPlatform::Component,
        ..AppOptions::default()
    };
    let account = AppOptions { appid: "wxa".into(), authorizer_of: Some("wxc".into()), ..AppOptions::default() };
    let apps = vec![component, account];
    let sandbox = Sandbox::start(Options { apps, rotate_refresh_tokens: true, ..Options::default() }).await.unwrap();
    let order = |path: &'static str, body: Value| post_json(&sandbox, path, body);
    let pushed = order("/sandbox/verify_ticket", json!({"appid": "wxc"})).await;
    let ask = json!({
        "component_appid": "wxc", "component_appsecret": "s", "component_verify_ticket": pushed["component_verify_ticket"],
    });
    let answer = order("/cgi-bin/component/api_component_token", ask.clone()).await;
    assert_eq!(answer["expires_in"], 7200);
    let token = answer["component_access_token"].as_str().unwrap();
    let authorised = order("/sandbox/authorise", json!({"appid": "wxa"})).await;
    let refresh = &authorised["authorizer_refresh_token"];
    let path = format!("/cgi-bin/component/api_authorizer_token?component_access_token={token}");
    let body = json!({"component_appid": "wxc", "authorizer_appid": "wxa", "authorizer_refresh_token": refresh});
    let answer = post_json(&sandbox, &path, body.clone()).await;
    assert_eq!(sandbox.judge(answer["authorizer_access_token"].as_str().unwrap()), Verdict::Accepted);
    assert_eq!(answer["authorizer_refresh_token"], sandbox.refresh_token("wxa"));
    assert_eq!(post_json(&sandbox, &path, body).await["errcode"], 61023, "each works once");

    let done = json!({"ok": true});
    assert_eq!(order("/sandbox/withdraw", json!({"appid": "wxa"})).await, done);
    assert_eq!(sandbox.refresh_token("wxa"), "");
    assert_eq!(order("/sandbox/expire_verify_tickets", json!({"appid": "wxc"})).await, done);
    assert_eq!(order("/cgi-bin/component/api_component_token", ask).await["errcode"], 61005);
    let nobody = client().post(sandbox.base_url() + "/sandbox/verify_ticket").body(r#"{"appid":"wxa"}"#).send().await;
    assert_eq!(nobody.unwrap().status(), 404, "an account gets no tickets");
    let get = get_json(&sandbox, "/cgi-bin/component/api_component_token").await;
    assert_eq!(get["errcode"], 43002);
}

#[tokio::test]
async fn a_bad_order_is_explained() {
    let sandbox = start().await;
    let cases = [
        ("/sandbox/fault", "", 400, "the body is not as expected"),
        ("/sandbox/fault", r#"{"appid":"wx","fault":{"kind":"nonsense"}}"#, 400, "unknown variant `nonsense`"),
        ("/sandbox/fault", r#"{"appid":"wx","fault":{"kind":"hang","time":1}}"#, 400, "unknown member \"time\""),
        ("/sandbox/fault", r#"{"appid":"nobody","fault":{"kind":"hang"}}"#, 404, "no such app"),
        ("/sandbox/kill", r#"{"appid":"nobody"}"#, 404, "no such app"),
        ("/sandbox/allowlist", r#"{"appid":"wx","ips":["here"]}"#, 400, "IP address"),
    ];
    for (path, body, status, why) in cases {
        let answer = client().post(sandbox.base_url() + path).body(body).send().await.unwrap();
        assert_eq!(answer.status(), status, "{path} {body}");
        let text = answer.text().await.unwrap();
        assert!(text.contains(why), "{path} {body}: {text}");
    }
}

#[tokio::test]
async fn the_page_shows_lines_that_work() {
    let sandbox = start().await;
    let page = get(&sandbox, "/").await.text().await.unwrap();
    assert!(page.contains(&format!("curl -s '{}/sandbox/apps'", sandbox.base_url())), "{page}");
}

#[tokio::test]
async fn a_dropped_sandbox_no_longer_listens() {
    let sandbox = start().await;
    let addr = sandbox.addr();
    mint(&sandbox).await;
    drop(sandbox);
    until("the port is free", || async { TcpStream::connect(addr).await.is_err() }).await;
}

#[tokio::test]
async fn garbage_on_the_socket_does_no_harm() {
    let sandbox = start().await;
    for garbage in [b"\x16\x03\x01\x00\x00".as_slice(), b"get key\r\n\r\n", b"GET / HTTP/9.9\r\n\r\n"] {
        let mut tcp = TcpStream::connect(sandbox.addr()).await.unwrap();
        tcp.write_all(garbage).await.unwrap();
        tcp.shutdown().await.unwrap();
        let mut answer = Vec::new();
        let _ = tokio::time::timeout(TIMEOUT, tcp.read_to_end(&mut answer)).await.expect("the connection stays open");
    }
    mint(&sandbox).await;
}

/// A certificate for 127.0.0.1 in files, and a client that trusts it.
fn tls_pair(folder: &std::path::Path) -> (SandboxTlsFiles, Client) {
    let made = rcgen::generate_simple_self_signed(vec!["127.0.0.1".into()]).unwrap();
    let files = SandboxTlsFiles { cert: folder.join("cert.pem"), key: folder.join("key.pem") };
    std::fs::write(&files.cert, made.cert.pem()).unwrap();
    std::fs::write(&files.key, made.signing_key.serialize_pem()).unwrap();
    let _ = rustls::crypto::ring::default_provider().install_default();
    let trusted = reqwest::Certificate::from_pem(made.cert.pem().as_bytes()).unwrap();
    let client = Client::builder().timeout(TIMEOUT).no_proxy().tls_certs_only([trusted]).build().unwrap();
    (files, client)
}

#[tokio::test]
async fn https_with_faults() {
    let folder = tempfile::tempdir().unwrap();
    let (files, client) = tls_pair(folder.path());
    let sandbox = Sandbox::start(Options { tls: Some(files), ..options() }).await.unwrap();
    let url = sandbox.base_url() + TOKEN_PATH;
    assert!(url.starts_with("https://127.0.0.1:"), "{url}");
    let answer = client.get(&url).send().await.unwrap().json::<Value>().await.unwrap();
    assert_eq!(sandbox.judge(&token_in(&answer)), Verdict::Accepted);
    sandbox.set_fault("wx", InjectedFault::new(FaultKind::Reset));
    assert!(client.get(&url).send().await.is_err());
    sandbox.set_fault("wx", InjectedFault::new(FaultKind::Cut));
    assert!(client.get(&url).send().await.unwrap().bytes().await.is_err());
    let plain = raw_request(sandbox.addr(), TOKEN_PATH).await;
    assert!(!read_to_end_bytes(plain).await.starts_with(b"HTTP/"), "no plain HTTP on an HTTPS port");
}

async fn read_to_end_bytes(mut tcp: TcpStream) -> Vec<u8> {
    let mut bytes = Vec::new();
    let _ = tokio::time::timeout(TIMEOUT, tcp.read_to_end(&mut bytes)).await.expect("the connection stays open");
    bytes
}

#[tokio::test]
async fn an_unusable_tls_file_is_named() {
    let folder = tempfile::tempdir().unwrap();
    let (mut files, _client) = tls_pair(folder.path());
    files.key = folder.path().join("missing.pem");
    let error = Sandbox::start(Options { tls: Some(files), ..options() }).await.unwrap_err();
    assert!(error.to_string().contains("missing.pem"), "{error}");
}
