//! `/livez` and `/readyz`, as load balancers and people ask for them.

use std::io::{Read, Write};
use std::net::TcpStream;

use tokencached::sandbox::{AppOptions, FaultKind, InjectedFault, Options};

use super::{API_HEADER, Answer, HttpNode, KEYS, bearer};
use crate::support::{APPID, SECRET, TIMEOUT, Wechat, wait_for, write};

const BARRED: &str = "wx90ab34cd56ef7812";

/// Sends exactly these lines.
fn send(http: &HttpNode, lines: &str) -> Answer {
    let mut stream = TcpStream::connect(http.address).unwrap();
    stream.set_read_timeout(Some(TIMEOUT)).unwrap();
    stream.write_all(format!("{lines}\r\n\r\n").as_bytes()).unwrap();
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).unwrap();
    Answer::of(&answer)
}

/// One app that works and one whose calls come from an address that is not on its list.
fn one_of_two_is_barred(http: &str) -> (Wechat, HttpNode) {
    let barred = AppOptions {
        appid: BARRED.into(),
        secret: SECRET.into(),
        ip_allowlist: Some(vec!["192.0.2.1".parse().unwrap()]),
        ..AppOptions::default()
    };
    let wechat = Wechat::with(Options { apps: vec![barred], ..Options::default() });
    let folder = tempfile::tempdir().unwrap();
    write(folder.path(), "keys", KEYS);
    let table = format!("[[app]]\nappid = \"{BARRED}\"\nsecret = \"{SECRET}\"\n");
    let http = HttpNode::start_in(folder, &wechat, http, "", &table);
    wait_for("the refusal", || http.node.log().contains("40164").then_some(()));
    let key = format!("access_token:{APPID}");
    wait_for("the other token", || http.node.connect().get(&key));
    (wechat, http)
}

#[test]
fn load_balancers_ask_by_http_1_0_without_a_name_or_by_one_of_their_own() {
    let wechat = Wechat::start();
    let http = HttpNode::start(&wechat, "", "", "");
    http.token(&[API_HEADER]);
    for path in ["/livez", "/readyz"] {
        for method in ["GET", "HEAD", "OPTIONS"] {
            assert_eq!(send(&http, &format!("{method} {path} HTTP/1.0")).status, 200, "{method} {path}");
            let named = send(&http, &format!("{method} {path} HTTP/1.0\r\nHost: haproxy.example:80"));
            assert_eq!(named.status, 200, "{method} {path}");
        }
        let passed_on = send(&http, &format!("GET {path} HTTP/1.0\r\nHost: x\r\nX-Forwarded-For: 1.2.3.4"));
        assert_eq!(passed_on.status, 200, "{path}");
        assert_eq!(http.get(path, &["Authorization: Bearer an-old-key"]).status, 200, "{path}");
        assert_eq!(http.post(path, &[], "").status, 405);
    }
    assert_eq!(send(&http, &format!("GET /readyz?app={APPID} HTTP/1.0")).problem(), "host-unknown");
    assert_eq!(send(&http, "GET /v1/session HTTP/1.0").problem(), "host-unknown");
}

#[test]
fn one_blocked_credential_of_several_does_not_take_the_server_out_of_service() {
    let (_wechat, http) = one_of_two_is_barred("");
    let ready = http.get("/readyz", &[]);
    assert_eq!((ready.status, ready.body.as_str()), (200, "{\"status\":\"ready\"}"));
    let strict = http.get("/readyz?strict", &[]);
    let lacking = &strict.json()["not_live"];
    assert_eq!((strict.status, lacking.as_array().unwrap().len()), (503, 1));
    assert_eq!((&lacking[0]["app"], &lacking[0]["state"]), (&BARRED.into(), &"blocked".into()));
    let of = |app: &str| http.get(&format!("/readyz?app={app}"), &[]).status;
    assert_eq!([of(APPID), of(BARRED), of("wxnobody")], [200, 503, 404]);
    assert_eq!(http.get("/readyz?strict=perhaps", &[]).problem(), "bad-request");
}

#[test]
fn names_and_single_apps_are_for_the_right_to_status() {
    let (_wechat, http) = one_of_two_is_barred("keys_file = \"{folder}/keys\"");
    let app = format!("/readyz?app={BARRED}");
    assert_eq!(http.get(&app, &[]).problem(), "key-needed");
    assert_eq!(http.get(&app, &[&bearer("web")]).problem(), "forbidden");
    assert_eq!(http.get(&app, &[&bearer("monitor")]).status, 503);
    let strict = |headers: &[&str]| http.get("/readyz?strict", headers);
    assert_eq!((strict(&[]).status, strict(&[]).body.contains(BARRED)), (503, false));
    assert!(strict(&[&bearer("monitor")]).body.contains(BARRED));
}

#[test]
#[ignore = "waits for real time"]
fn the_server_is_ready_once_each_first_fetch_has_ended_and_stays_so() {
    let wechat = Wechat::start();
    wechat.set_fault(APPID, InjectedFault::new(FaultKind::Hang));
    let http = HttpNode::start(&wechat, "", "", "");
    let waiting = http.get("/readyz", &[]);
    let first = &waiting.json()["first_fetch"];
    assert_eq!((waiting.status, &first[0]["app"]), (503, &APPID.into()), "{waiting:?}");
    let nameless = send(&http, "GET /readyz HTTP/1.0");
    assert_eq!((nameless.status, nameless.body.as_str()), (503, "{\"status\":\"not ready\"}"));
    // The call is given up after a while: that is an answer, too.
    wait_for("the first verdict", || (http.get("/readyz", &[]).status == 200).then_some(()));
    assert_eq!(http.get("/readyz?strict", &[]).status, 503);
}
