//! `GET /v1/credentials`: all values at once and then what changes, as nodes that follow ask for them.

use serde_json::{Value, json};
use tokencached::sandbox::{AppOptions, FaultKind, InjectedFault, Options};

use super::{API_HEADER, HttpNode, KEYS, bearer, credential};
use crate::support::{APPID, Wechat, wait_for, write};

const ALL: &str = "/v1/credentials";

fn next(http: &HttpNode, from: &Value, wait_s: u64, headers: &[&str]) -> Value {
    let answer = http.get(&format!("{ALL}?after={}&wait_s={wait_s}", from["cursor"].as_str().unwrap()), headers);
    assert_eq!(answer.status, 200, "{answer:?}");
    answer.json()
}

/// Everything, once each value has been told as a change: it can be read an instant before it counts as one.
fn settled(http: &HttpNode, headers: &[&str]) -> Value {
    wait_for("the first values", || {
        let all = http.get(ALL, headers).json();
        let changes: usize = all["cursor"].as_str()?.split('-').nth(1)?.parse().unwrap();
        // Each credential counts once for being there, and once for its value.
        (changes >= 2 * all["credentials"].as_array()?.len()).then_some(all)
    })
}

fn told(page: &Value) -> Vec<(String, String)> {
    let text = |of: &Value, name: &str| of[name].as_str().unwrap().to_owned();
    page["credentials"].as_array().unwrap().iter().map(|of| (text(of, "app"), text(of, "type"))).collect()
}

#[test]
fn everything_comes_once_and_then_only_what_changes() {
    let wechat = Wechat::start();
    let http = HttpNode::start(&wechat, "", "", "tickets = [\"jsapi\"]");
    let (token, generation) = http.token(&[API_HEADER]);
    wait_for("the ticket", || http.node.connect().get(&format!("jsapi_ticket:{APPID}")));
    let all = settled(&http, &[API_HEADER]);
    let mut types = told(&all);
    types.sort();
    assert_eq!(types, [(APPID.into(), "access_token".into()), (APPID.into(), "jsapi_ticket".into())]);
    assert_eq!((&all["from_start"], &all["more"]), (&json!(true), &json!(false)));
    let of = all["credentials"].as_array().unwrap().iter().find(|of| of["type"] == "access_token").unwrap();
    assert_eq!(
        (&of["token"], &of["generation"], &of["lifetime_ms"]),
        (&json!(token), &json!(generation), &json!(7_200_000))
    );
    assert!((7_100_000..=7_200_000).contains(&of["expires_in_ms"].as_u64().unwrap()), "{of}");
    let nothing = next(&http, &all, 0, &[API_HEADER]);
    assert_eq!((told(&nothing), &nothing["from_start"]), (vec![], &json!(false)));
    // A refused write is no change of a value.
    http.node.connect().expect(format!("set access_token:{APPID} 0 0 1\r\nx\r\n"), "NOT_STORED\r\n");
    assert_eq!(told(&next(&http, &nothing, 0, &[API_HEADER])), []);
    wechat.kill_tokens(APPID);
    let changed = std::thread::scope(|scope| {
        let waits = scope.spawn(|| next(&http, &nothing, 30, &[API_HEADER]));
        http.post(&credential("access_token", "/refresh"), &[API_HEADER], "");
        waits.join().unwrap()
    });
    let of = &changed["credentials"][0];
    let last = wait_for("the successor", || {
        let later = next(&http, &nothing, 0, &[API_HEADER]);
        let of = later["credentials"].as_array()?.iter().find(|of| of["type"] == "access_token")?.clone();
        (of["generation"].as_u64() > Some(generation)).then_some(of)
    });
    assert_eq!(of["type"], "access_token", "{changed}");
    assert_eq!(http.token(&[API_HEADER]).0, last["token"].as_str().unwrap());
}

#[test]
fn a_withdrawn_value_is_told_as_such_and_not_shown() {
    let wechat = Wechat::start();
    let http = HttpNode::start(&wechat, "", "", "");
    let (token, generation) = http.token(&[API_HEADER]);
    let all = settled(&http, &[API_HEADER]);
    assert_eq!(all["credentials"][0]["withdrawn"], false);
    wechat.kill_tokens(APPID);
    wechat.set_fault(APPID, InjectedFault::new(FaultKind::Errcode { errcode: -1, errmsg: String::new() }));
    http.post(&credential("access_token", "/probe"), &[API_HEADER], "");
    let page = wait_for("the withdrawal", || {
        http.post(&credential("access_token", "/probe"), &[API_HEADER], "");
        Some(next(&http, &all, 0, &[API_HEADER])).filter(|page| page["credentials"][0]["withdrawn"] == true)
    });
    let of = &page["credentials"][0];
    assert_eq!((&of["token"], &of["generation"], &of["expires_in_ms"]), (&json!(null), &json!(generation), &json!(0)));
    assert!(!page.to_string().contains(&token));
}

#[test]
fn after_a_restart_and_with_other_rights_everything_comes_again() {
    let wechat = Wechat::start();
    let folder = tempfile::tempdir().unwrap();
    write(folder.path(), "keys", KEYS);
    let http = HttpNode::start_in(folder, &wechat, "keys_file = \"{folder}/keys\"", "", "");
    http.token(&[&bearer("web")]);
    let all = settled(&http, &[&bearer("web")]);
    assert_eq!(told(&next(&http, &all, 0, &[&bearer("web")])), []);
    // Another key with rights of its own, and a cursor that is not its own.
    let others = next(&http, &all, 0, &[&bearer("ops")]);
    assert_eq!((&others["from_start"], told(&others).len()), (&json!(true), 1));
    let more = KEYS.replace("read:wx0123456789abcdef", "read:wx0123456789abcdef read:wxother");
    write(http.node.folder.path(), "keys", &more);
    http.node.signal("HUP");
    let again = wait_for("the new rights", || {
        Some(next(&http, &all, 0, &[&bearer("web")])).filter(|page| page["from_start"] == true)
    });
    assert_eq!(told(&again).len(), 1);
    let folder = http.node.kill();
    // It names the former address.
    std::fs::remove_file(folder.path().join("log")).unwrap();
    let http = HttpNode::start_in(folder, &wechat, "keys_file = \"{folder}/keys\"", "", "");
    let anew = next(&http, &again, 0, &[&bearer("web")]);
    assert_eq!((&anew["from_start"], told(&anew).len()), (&json!(true), 1));
    assert_ne!(anew["run"], again["run"]);
}

#[test]
fn only_who_may_read_is_told_and_only_of_those_apps() {
    let wechat = Wechat::start();
    let http = HttpNode::keyed(&wechat, "", "");
    http.token(&[&bearer("web")]);
    assert_eq!(told(&http.get(ALL, &[&bearer("web")]).json()).len(), 1);
    assert_eq!(told(&http.get(ALL, &[&bearer("other")]).json()), []);
    for (headers, problem) in [
        (vec![], "key-needed"),
        (vec![API_HEADER.to_owned()], "key-needed"),
        (vec![bearer("monitor")], "forbidden"),
        (vec![bearer("fixer")], "forbidden"),
        (vec!["Authorization: Bearer wrong-0123456789abcdef".to_owned()], "key-unknown"),
    ] {
        let headers: Vec<&str> = headers.iter().map(String::as_str).collect();
        assert_eq!(http.get(ALL, &headers).problem(), problem, "{headers:?}");
    }
    let one = format!("{ALL}?app={APPID}");
    assert_eq!(told(&http.get(&one, &[&bearer("web")]).json()).len(), 1);
    assert_eq!(http.get(&one, &[&bearer("other")]).problem(), "not-found");
    assert_eq!(http.get(&one, &[&bearer("fixer")]).problem(), "forbidden");
    assert_eq!(http.get(&format!("{ALL}?app=wxother"), &[&bearer("other")]).problem(), "not-found");
    for wrong in ["?after=1", "?after=0123456789abcdef-", "?wait_s=61", "?app=a&app=b", "?limit=1"] {
        assert_eq!(http.get(&format!("{ALL}{wrong}"), &[&bearer("web")]).problem(), "bad-request", "{wrong}");
    }
    // Without keys this machine may read, but no page that a browser shows here.
    let open = HttpNode::start(&wechat, "", "", "");
    assert_eq!(open.get(ALL, &[]).problem(), "header-needed");
}

#[test]
fn a_wait_ends_with_the_key_it_began_with() {
    let wechat = Wechat::start();
    let http = HttpNode::keyed(&wechat, "", "");
    http.token(&[&bearer("web")]);
    let all = settled(&http, &[&bearer("web")]);
    let path = format!("{ALL}?after={}&wait_s=60", all["cursor"].as_str().unwrap());
    let headers = [bearer("web")];
    let ended = std::thread::scope(|scope| {
        let waits = scope.spawn(|| http.get(&path, &[&headers[0]]));
        write(http.node.folder.path(), "keys", &KEYS.replace("web-", "new-"));
        http.node.signal("HUP");
        wait_for("the key's end", || (http.get(ALL, &[&bearer("web")]).status == 401).then_some(()));
        wechat.kill_tokens(APPID);
        http.post(&credential("access_token", "/refresh"), &[API_HEADER, &bearer("ops")], "");
        waits.join().unwrap()
    });
    assert_eq!(ended.problem(), "key-unknown");
}

#[test]
fn a_thousand_apps_come_in_pages_none_twice_and_none_missing() {
    let id = |n: usize| format!("wx{n:016x}");
    let known = (0..1_200).map(|n| AppOptions { appid: id(n), secret: "s".into(), ..AppOptions::default() });
    let wechat = Wechat::with(Options { apps: known.collect(), ..Options::default() });
    let tables: String = (0..1_200).map(|n| format!("[[app]]\nappid = \"{}\"\nsecret = \"s\"\n", id(n))).collect();
    let http = HttpNode::start(&wechat, "", "", &tables);
    wait_for("all tokens", || (http.get("/readyz?strict", &[]).status == 200).then_some(()));
    let (mut page, mut apps, mut pages) = (http.get(ALL, &[API_HEADER]).json(), Vec::new(), 1);
    loop {
        apps.extend(told(&page).into_iter().map(|(app, _)| app));
        assert!(page["credentials"].as_array().unwrap().iter().all(|of| of["token"].is_string()));
        if page["more"] == false {
            break;
        }
        (page, pages) = (next(&http, &page, 30, &[API_HEADER]), pages + 1);
    }
    apps.sort();
    apps.dedup();
    assert_eq!((apps.len(), pages), (1_201, 3));
}
