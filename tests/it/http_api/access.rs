//! Who may what on the HTTP API.

use std::net::TcpStream;
use std::sync::Arc;

use rustls::pki_types::ServerName;
use rustls::{ClientConnection, StreamOwned};
use tokencached::cli::Flags;
use tokencached::config::load;

use super::{API_HEADER, HttpNode, KEYS, bearer, credential, exchange, key, raw};
use crate::support::{APPID, TIMEOUT, Wechat, wait_for, write};
use crate::tls::Authority;

/// Everything there is to ask for, and what it takes.
fn endpoints() -> Vec<(&'static str, String, &'static str)> {
    let app = |rest: &str| format!("/v1/apps/{APPID}{rest}");
    vec![
        ("GET", "/".into(), "nothing"),
        ("GET", "/livez".into(), "nothing"),
        ("GET", "/readyz".into(), "nothing"),
        ("GET", "/v1/openapi.json".into(), "nothing"),
        ("GET", "/v1/session".into(), "nothing"),
        ("GET", "/metrics".into(), "status"),
        ("GET", "/v1/status".into(), "status"),
        ("GET", "/v1/journal".into(), "status"),
        ("GET", "/v1/apps".into(), "any"),
        ("GET", app(""), "see"),
        ("GET", credential("access_token", ""), "read"),
        ("GET", app("/jssdk?url=https://a.example/"), "read"),
        ("POST", credential("access_token", "/refresh"), "refresh"),
        ("POST", credential("access_token", "/probe"), "refresh"),
    ]
}

#[test]
fn every_endpoint_gives_what_the_key_is_good_for_and_no_more() {
    let wechat = Wechat::start();
    let http = HttpNode::keyed(&wechat, "", "tickets = [\"jsapi\"]");
    let ops = bearer("ops");
    http.token(&[&ops]);
    wait_for("the ticket", || (http.get(&credential("jsapi_ticket", ""), &[&ops]).status == 200).then_some(()));
    // Kind of right needed -> what each key gets.
    let expected = |needs: &str, who: &str| match (needs, who) {
        ("nothing", _) | (_, "ops") => 200,
        (_, "nobody") => 401,
        ("status", "monitor") | ("any", _) => 200,
        ("status", _) => 403,
        ("see", "monitor" | "web" | "fixer") | ("read", "web") | ("refresh", "fixer") => 200,
        ("read" | "refresh", "monitor" | "web" | "fixer") => 403,
        (_, "other") => 404,
        other => panic!("{other:?}"),
    };
    for (method, path, needs) in endpoints() {
        for who in ["nobody", "ops", "monitor", "web", "fixer", "other"] {
            let mut headers = vec![API_HEADER.to_owned()];
            headers.extend((who != "nobody").then(|| bearer(who)));
            let headers: Vec<&str> = headers.iter().map(String::as_str).collect();
            let answer = http.ask(method, &path, &headers, "");
            assert_eq!(answer.status, expected(needs, who), "{method} {path} as {who}: {answer:?}");
            if answer.status >= 400 {
                answer.problem();
            }
        }
    }
    let seen = |who: &str| http.get("/v1/apps", &[&bearer(who)]).json()["apps"].as_array().unwrap().len();
    assert_eq!([seen("monitor"), seen("web"), seen("fixer"), seen("other")], [1, 1, 1, 0]);
}

#[test]
fn an_event_stream_needs_the_right_to_status() {
    let wechat = Wechat::start();
    let http = HttpNode::keyed(&wechat, "", "");
    assert_eq!(http.get("/v1/events", &[]).problem(), "key-needed");
    assert_eq!(http.get("/v1/events", &[&bearer("web")]).problem(), "forbidden");
    let mut events = super::Events::listen(&http, &[&bearer("monitor")]);
    events.wait("hello", |hello| hello["apps"] == 1);
}

#[test]
fn what_acts_or_gives_a_token_away_is_meant() {
    let wechat = Wechat::start();
    let http = HttpNode::start(&wechat, "", "", "");
    http.token(&[API_HEADER]);
    assert_eq!(http.get(&credential("access_token", ""), &[]).problem(), "header-needed");
    assert_eq!(http.get(&credential("access_token", ""), &["X-Tokencached: yes"]).problem(), "header-needed");
    for action in ["/refresh", "/probe"] {
        assert_eq!(http.post(&credential("access_token", action), &[], "").problem(), "header-needed");
        // What acts is posted.
        assert_eq!(http.get(&credential("access_token", action), &[API_HEADER]).status, 405);
    }
    // Whoever is refused is not told what there is, either.
    let refused = http.ask("PUT", "/v1/status", &["Host: elsewhere.example"], "");
    assert_eq!((refused.status, refused.headers.contains_key("allow")), (421, false));
    assert_eq!(http.post("/logout", &[], "").problem(), "header-needed");
    assert_eq!(http.get("/v1/status", &[]).status, 200, "figures are for everybody on this machine");
}

#[test]
fn a_name_that_points_here_is_not_enough() {
    let wechat = Wechat::start();
    let http = HttpNode::start(&wechat, "allowed_hosts = [\"cache.internal\"]", "", "");
    for path in ["/", "/v1/status", "/livez?x", "/readyz?strict", "/metrics"] {
        assert_eq!(http.get(path, &["Host: evil.example"]).problem(), "host-unknown", "{path}");
        assert_eq!(raw(http.address, "GET", path, &[], "").problem(), "host-unknown", "{path}");
    }
    let port = http.address.port();
    for host in [format!("localhost:{port}"), "cache.internal".into(), "127.0.0.1".into()] {
        assert_eq!(http.get("/v1/status", &[&format!("Host: {host}")]).status, 200, "{host}");
    }
}

#[test]
fn other_sites_pages_get_nothing_and_no_leave_to_ask() {
    let wechat = Wechat::start();
    let http = HttpNode::start(&wechat, "", "", "");
    let foreign = "Origin: http://evil.example";
    assert_eq!(http.get("/v1/status", &[foreign]).problem(), "foreign-origin");
    let preflight = http.ask("OPTIONS", "/v1/status", &["Access-Control-Request-Method: GET"], "");
    assert_eq!(preflight.status, 405);
    for answer in [preflight, http.get("/v1/status", &[foreign]), http.get("/v1/status", &[])] {
        assert!(answer.headers.keys().all(|name| !name.starts_with("access-control")), "{answer:?}");
    }
}

#[test]
fn who_passes_requests_on_must_be_trusted() {
    let wechat = Wechat::start();
    let http = HttpNode::start(&wechat, "", "", "");
    assert_eq!(http.get("/v1/status", &["X-Forwarded-For: 10.0.0.1"]).problem(), "proxy-unknown");
    let http = HttpNode::start(&wechat, "trusted_proxies = [\"127.0.0.0/8\"]", "", "");
    let passed = http.get("/v1/status", &["X-Forwarded-For: 10.0.0.1"]);
    assert_eq!(passed.problem(), "key-needed", "nobody behind a proxy is on this machine");
    assert_eq!(http.get("/livez", &["X-Forwarded-For: 10.0.0.1"]).status, 200);
}

#[test]
fn every_answer_has_the_headers_that_keep_browsers_in_check() {
    let wechat = Wechat::start();
    let http = HttpNode::start(&wechat, "", "", "");
    let asked = [
        http.get("/", &[]),
        http.get("/v1/status", &[]),
        http.get("/none", &[]),
        http.get("/v1/status", &["Host: evil.example"]),
        http.get("/metrics", &[]),
        http.post("/v1/status", &[], ""),
        http.get("/cgi-bin/token", &[]),
    ];
    assert_eq!(asked.iter().map(|answer| answer.status).collect::<Vec<_>>(), [200, 200, 404, 421, 200, 405, 200]);
    for answer in asked {
        let policy = &answer.headers["content-security-policy"];
        assert!(policy.contains("default-src 'none'") && policy.contains("frame-ancestors 'none'"), "{policy}");
        assert!(!policy.contains("unsafe") && !policy.contains("http"), "{policy}");
        assert_eq!(answer.headers["x-content-type-options"], "nosniff");
        assert_eq!(answer.headers["x-frame-options"], "DENY");
        assert_eq!(answer.headers["referrer-policy"], "no-referrer");
        assert_eq!(answer.headers["cross-origin-resource-policy"], "same-origin");
        assert!(["no-store", "no-cache"].contains(&answer.headers["cache-control"].as_str()));
    }
}

#[test]
fn people_log_in_with_a_key_that_stays_out_of_urls() {
    let wechat = Wechat::start();
    let http = HttpNode::keyed(&wechat, "", "");
    http.token(&[&bearer("ops")]);
    let before = http.get("/v1/session", &[]).json();
    assert_eq!((&before["login"], &before["known"]), (&true.into(), &false.into()));
    let body = format!("{{\"key\":\"{}\"}}", key("ops"));
    assert_eq!(http.post("/login", &[], &body).problem(), "header-needed");
    assert_eq!(http.post("/login", &[API_HEADER], "{\"key\":\"wrong\"}").problem(), "key-unknown");
    assert_eq!(http.post("/login", &[API_HEADER], "key=x").problem(), "bad-request");
    let answer = http.post("/login", &[API_HEADER], &body);
    assert_eq!(answer.status, 204, "{answer:?}");
    let cookie = &answer.headers["set-cookie"];
    assert!(cookie.contains("HttpOnly") && cookie.contains("SameSite=Strict") && !cookie.contains(key("ops")));
    let cookie = format!("Cookie: {}", cookie.split(';').next().unwrap());
    let session = http.get("/v1/session", &[&cookie]).json();
    assert_eq!((&session["name"], &session["known"]), (&"ops".into(), &true.into()));
    assert_eq!(http.get("/v1/status", &[&cookie]).status, 200);
    assert_eq!(http.get(&credential("access_token", ""), &[&cookie]).problem(), "header-needed");
    assert_eq!(http.get(&credential("access_token", ""), &[&cookie, API_HEADER]).status, 200);
    assert_eq!(http.post("/logout", &[&cookie, API_HEADER], "").status, 204);
    assert_eq!(http.get("/v1/status", &[&cookie]).problem(), "key-needed", "the session has ended on the server");
    assert!(!http.node.log().contains(key("ops")));
}

#[test]
#[ignore = "waits for real time"]
fn keys_are_read_again_and_those_that_are_gone_end_sessions_and_streams() {
    let wechat = Wechat::start();
    let http = HttpNode::keyed(&wechat, "", "");
    let body = format!("{{\"key\":\"{}\"}}", key("monitor"));
    let answer = http.post("/login", &[API_HEADER], &body);
    let cookie = format!("Cookie: {}", answer.headers["set-cookie"].split(';').next().unwrap());
    let mut events = super::Events::listen(&http, &[&cookie]);
    events.wait("hello", |_| true);
    let without: String =
        KEYS.lines().filter(|line| !line.starts_with("monitor")).map(|line| format!("{line}\n")).collect();
    write(http.node.folder.path(), "keys", &format!("{without}new new-0123456789abcdef0123 status\n"));
    http.node.signal("HUP");
    wait_for("the new key", || {
        (http.get("/v1/status", &["Authorization: Bearer new-0123456789abcdef0123"]).status == 200).then_some(())
    });
    assert_eq!(http.get("/v1/status", &[&cookie]).problem(), "key-needed");
    assert_eq!(http.get("/v1/status", &[&bearer("ops")]).status, 200);
    events.rest();
    // A broken file changes nothing.
    write(http.node.folder.path(), "keys", "nonsense\n");
    http.node.signal("HUP");
    wait_for("the complaint", || {
        http.node.log().contains("users, keys and certificates stay as they were").then_some(())
    });
    assert_eq!(http.get("/v1/status", &[&bearer("ops")]).status, 200);
}

#[test]
fn wrong_keys_are_answered_only_so_often_and_a_right_one_always() {
    let wechat = Wechat::start();
    let http = HttpNode::keyed(&wechat, "", "");
    let wrong = "Authorization: Bearer wrong-wrong-wrong-wrong";
    let answers: Vec<u16> = (0..10).map(|_| http.get("/v1/status", &[wrong]).status).collect();
    assert_eq!(answers, [401; 10]);
    // One more is told so every three seconds.
    wait_for("a refusal", || (http.get("/v1/status", &[wrong]).status == 429).then_some(()));
    let log_in = |key: &str| http.post("/login", &[API_HEADER], &format!("{{\"key\":\"{key}\"}}"));
    let put_off = wait_for("the same there", || Some(log_in("wrong")).filter(|answer| answer.status == 429));
    assert_eq!(put_off.problem(), "too-many-requests");
    assert!(put_off.headers["retry-after"].parse::<u64>().unwrap() >= 1);
    assert_eq!(http.get("/v1/status", &[&bearer("ops")]).status, 200);
    assert_eq!(http.get("/v1/credentials", &[&bearer("ops")]).status, 200);
    assert_eq!(log_in(key("ops")).status, 204);
    http.node.await_log("POST /login: wrong key");
    let log = http.node.log();
    for call in ["GET /v1/status", "POST /login"] {
        let line = log.lines().find(|line| line.contains(&format!("{call}: wrong key"))).expect(&log);
        assert!(line.ends_with(" peer=127.0.0.1 times=1"), "{line}");
    }
    assert!(!log.contains("wrong-wrong"), "{log}");
}

#[test]
fn a_key_in_its_hashed_form_works_and_is_no_key_itself() {
    use sha2::Digest;
    use std::fmt::Write;
    let wechat = Wechat::start();
    let folder = tempfile::tempdir().unwrap();
    let digest = sha2::Sha256::digest(b"a-key-of-some-length-0123");
    let hex = digest.iter().fold(String::new(), |mut hex, byte| {
        write!(hex, "{byte:02x}").unwrap();
        hex
    });
    write_keys(folder.path(), &format!("# by hash\nm sha256:{hex} status\n"));
    let http = HttpNode::start_in(folder, &wechat, "keys_file = \"{folder}/keys\"", "", "");
    assert_eq!(http.get("/v1/status", &["Authorization: Bearer a-key-of-some-length-0123"]).status, 200);
    assert_eq!(http.get("/v1/status", &[&format!("Authorization: Bearer {hex}")]).status, 401);
}

fn write_keys(folder: &std::path::Path, text: &str) {
    write(folder, "keys", text);
}

#[test]
fn behind_tls_all_is_the_same_and_the_cookie_stays_there() {
    let wechat = Wechat::start();
    let authority = Authority::new();
    let folder = tempfile::tempdir().unwrap();
    authority.sign_server(folder.path(), "first");
    write_keys(folder.path(), KEYS);
    let lines = "keys_file = \"{folder}/keys\"\n[http.tls]\ncert = \"server.pem\"\nkey = \"server.key\"";
    let http = HttpNode::start_in(folder, &wechat, lines, "", "");
    let shown = || {
        let stream = TcpStream::connect(http.address).unwrap();
        stream.set_read_timeout(Some(TIMEOUT)).unwrap();
        let name = ServerName::try_from("localhost").unwrap();
        let connection = ClientConnection::new(Arc::new(authority.client(None)), name).unwrap();
        StreamOwned::new(connection, stream)
    };
    let host = format!("Host: {}", http.address);
    let answer = exchange(&mut shown(), "GET", "/v1/status", &[&host, &bearer("ops")], "");
    assert_eq!(answer.status, 200, "{answer:?}");
    let body = format!("{{\"key\":\"{}\"}}", key("ops"));
    let answer = exchange(&mut shown(), "POST", "/login", &[&host, API_HEADER], &body);
    let cookie = &answer.headers["set-cookie"];
    assert!(cookie.starts_with("__Host-tokencached=") && cookie.contains("; Secure"), "{cookie}");
    let cookie = format!("Cookie: {}", cookie.split(';').next().unwrap());
    assert_eq!(exchange(&mut shown(), "GET", "/v1/status", &[&host, &cookie], "").status, 200);
    // A new certificate without a restart.
    let names = |name: &str| {
        let mut tls = shown();
        exchange(&mut tls, "GET", "/livez", &[&host], "");
        let der = tls.conn.peer_certificates().unwrap()[0].to_vec();
        memchr::memmem::find(&der, name.as_bytes()).is_some()
    };
    assert!(names("first"));
    authority.sign_server(http.node.folder.path(), "second");
    http.node.signal("HUP");
    wait_for("the new certificate", || names("second").then_some(()));
}

#[test]
fn other_machines_need_a_key_or_the_start_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    write_keys(folder.path(), KEYS);
    let environment: std::collections::BTreeMap<String, String> =
        [("HOME".to_owned(), "/nonexistent".to_owned())].into();
    let loaded = |http: &str| {
        let file = write(folder.path(), "http.toml", &format!("[http]\n{http}"));
        load(Some(&file), &environment, &Flags::default())
    };
    let fault = loaded("listen = [\"0.0.0.0:2130\"]").unwrap_err().to_string();
    assert!(fault.contains("http.toml:2") && fault.contains("there are no keys"), "{fault}");
    let with_keys = loaded("listen = [\"0.0.0.0:2130\"]\nkeys_file = \"keys\"").unwrap();
    assert!(with_keys.warnings.iter().any(|text| text.contains("plain text")), "{:?}", with_keys.warnings);
    assert!(loaded("listen = [\"127.0.0.1:2130\", \"[::1]:2130\"]").is_ok());
    assert!(loaded("").unwrap().config.http.is_none(), "off until configured");
}
