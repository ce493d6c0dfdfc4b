//! What the API says and does, across real renewals.

use serde_json::{Value, json};
use sha1::{Digest, Sha1};
use tokencached::sandbox::{AppOptions, Endpoint, FaultKind, InjectedFault, Options, SandboxPlatform};

use super::{API_HEADER, Events, HttpNode, bearer, credential};
use crate::support::{APPID, Wechat, wait_for};

fn ask_sandbox(wechat: &Wechat, endpoint: Endpoint) -> u64 {
    wechat.calls(APPID).counts.get(&endpoint).map_or(0, |outcomes| outcomes.values().sum())
}

#[test]
fn a_token_is_read_with_its_true_end_and_its_generation() {
    let wechat = Wechat::start();
    let http = HttpNode::start(&wechat, "", "", "aliases = [\"access_token\"]");
    let (token, generation) = http.token(&[API_HEADER]);
    assert_eq!(http.node.connect().get("access_token").unwrap(), token.as_bytes());
    let value = http.get(&credential("access_token", ""), &[API_HEADER]).json();
    let (left, at) = (value["expires_in"].as_u64().unwrap(), value["expires_at"].as_i64().unwrap());
    assert!(generation > 0 && (7_100..=7_200).contains(&left), "{left}");
    assert!((at - tokencached::clock::unix_ms() / 1000 - left as i64).abs() <= 30);
    assert_eq!(http.get(&credential("nothing", ""), &[API_HEADER]).problem(), "not-found");
    assert_eq!(http.get("/v1/apps/wxnobody/credentials/access_token", &[API_HEADER]).problem(), "not-found");
    for wrong in ["?wait_s=61", "?after=x", "?after=-1", "?token=1", "?after=1&after=2"] {
        assert_eq!(http.get(&credential("access_token", wrong), &[API_HEADER]).problem(), "bad-request", "{wrong}");
    }
}

#[test]
#[ignore = "waits for real time"]
fn a_long_poll_ends_with_the_next_token() {
    let wechat = Wechat::short_lived(8);
    let http = HttpNode::start(&wechat, "", "", "");
    let (first, generation) = http.token(&[API_HEADER]);
    let answer = http.get(&credential("access_token", &format!("?after={generation}&wait_s=30")), &[API_HEADER]);
    let value = answer.json();
    assert_eq!(answer.status, 200, "{value}");
    assert!(value["generation"].as_u64().unwrap() > generation && value["token"] != first.as_str());
    let none = wait_for("no renewal between two questions", || {
        let (_, generation) = http.token(&[API_HEADER]);
        let none = http.get(&credential("access_token", &format!("?after={generation}&wait_s=0")), &[API_HEADER]);
        (none.status != 200).then_some(none)
    });
    assert_eq!(none.problem(), "no-later-generation");
    assert_eq!(none.headers["retry-after"], "1");
}

#[test]
fn whoever_waits_for_more_than_a_generation_that_was_lost_is_answered_at_once() {
    let wechat = Wechat::start();
    let http = HttpNode::start(&wechat, "", "", "");
    let (token, generation) = http.token(&[API_HEADER]);
    for lost in [generation + 1, 9_007_199_254_740_992] {
        // Waited for, it would be 404 after a minute; nothing is renewed in that time.
        let answer = http.get(&credential("access_token", &format!("?after={lost}&wait_s=60")), &[API_HEADER]);
        assert_eq!(answer.status, 200, "{answer:?}");
        let value = answer.json();
        assert_eq!((&value["token"], &value["generation"]), (&json!(token), &json!(generation)));
    }
}

#[test]
fn a_server_that_has_lost_its_state_counts_on_above_what_it_has_said() {
    let wechat = Wechat::start();
    let http = HttpNode::start(&wechat, "", "", "");
    http.token(&[API_HEADER]);
    wechat.kill_tokens(APPID);
    http.post(&credential("access_token", "/refresh"), &[API_HEADER], "");
    let (_, before) = http.token(&[API_HEADER]);
    let folder = http.node.kill();
    for name in ["state.json", "log"] {
        let _ = std::fs::remove_file(folder.path().join(name));
    }
    let http = HttpNode::start_in(folder, &wechat, "", "", "");
    let (_, after) = http.token(&[API_HEADER]);
    assert!(after > before, "{after} after {before}");
}

#[test]
fn a_token_seen_dead_is_renewed_and_one_that_lives_is_left_alone() {
    let wechat = Wechat::start();
    let http = HttpNode::start(&wechat, "", "", "");
    let (first, generation) = http.token(&[API_HEADER]);
    let refresh = |body: &str| {
        let answer = http.post(&credential("access_token", "/refresh"), &[API_HEADER], body);
        assert_eq!(answer.status, 200, "{answer:?}");
        assert!(!answer.body.contains(&first));
        answer.json()
    };
    wechat.kill_tokens(APPID);
    let renewed = refresh(&json!({ "token": first }).to_string());
    assert_eq!(renewed["verdict"], "renewed", "{renewed}");
    assert!(renewed["credential"]["generation"].as_u64().unwrap() > generation);
    let (second, _) = http.token(&[API_HEADER]);
    assert_ne!(first, second);
    // Others come late with the same news.
    let calls = ask_sandbox(&wechat, Endpoint::StableToken);
    for late in [json!({ "token": first }), json!({ "generation": generation })] {
        assert_eq!(refresh(&late.to_string())["verdict"], "overtaken");
    }
    assert_eq!(refresh("")["verdict"], "accepted", "the successor is looked into once, and lives");
    assert_eq!(refresh("")["verdict"], "not_checked", "a moment ago it did");
    assert_eq!(ask_sandbox(&wechat, Endpoint::StableToken), calls + 1);
    for wrong in
        ["[]", "{\"force\":true}", "{\"generation\":1,\"token\":\"x\"}", "{", "{\"generation\":-1}", "{\"token\":null}"]
    {
        let answer = http.post(&credential("access_token", "/refresh"), &[API_HEADER], wrong);
        assert_eq!(answer.problem(), "bad-request", "{wrong}");
    }
    let counts = wechat.calls(APPID);
    assert!(counts.recent.iter().all(|call| call.errcode.is_none() || call.errcode == Some(40001)), "{counts:?}");
}

#[test]
fn a_probe_tells_whether_wechat_accepts_the_token_and_spends_no_quota() {
    let wechat = Wechat::start();
    let http = HttpNode::start(&wechat, "", "", "tickets = [\"jsapi\"]");
    http.token(&[API_HEADER]);
    let calls = ask_sandbox(&wechat, Endpoint::StableToken);
    let probe = http.post(&credential("access_token", "/probe"), &[API_HEADER], "").json();
    assert_eq!(probe["verdict"], "accepted", "{probe}");
    assert_eq!(ask_sandbox(&wechat, Endpoint::StableToken), calls);
    assert_eq!(http.post(&credential("access_token", "/probe"), &[API_HEADER], "").json()["verdict"], "not_checked");
    assert_eq!(http.post(&credential("jsapi_ticket", "/probe"), &[API_HEADER], "").problem(), "no-probe");
}

#[test]
fn somebody_who_has_set_things_right_need_not_wait() {
    let wechat = Wechat::start();
    wechat.set_fault(APPID, InjectedFault::new(FaultKind::Errcode { errcode: 40164, errmsg: String::new() }));
    let http = HttpNode::start(&wechat, "", "", "");
    let shown = wait_for("the failure", || Some(http.shown("access_token", &[])).filter(|of| of["state"] == "blocked"));
    let error = &shown["last_error"];
    assert_eq!((&error["errcode"], &error["class"]), (&json!(40164), &json!("operator")), "{error}");
    assert!(error["advice"].as_str().unwrap().contains("allow-list") && error["meaning"].is_string());
    assert!(shown["next_try_in_ms"].as_u64().unwrap() > 20_000, "{shown}");
    let none = http.get(&credential("access_token", ""), &[API_HEADER]);
    assert_eq!(none.problem(), "no-live-value");
    wechat.clear_fault(APPID);
    let verdict = http.post(&credential("access_token", "/refresh"), &[API_HEADER], "").json();
    assert_eq!(verdict["verdict"], "renewed", "{verdict}");
    http.token(&[API_HEADER]);
}

#[test]
fn nobody_is_asked_again_before_the_time_that_wechat_named() {
    let wechat = Wechat::start();
    // Each such call messages the account's administrator.
    wechat.set_fault(APPID, InjectedFault::new(FaultKind::Errcode { errcode: 89503, errmsg: String::new() }));
    let http = HttpNode::start(&wechat, "", "", "");
    wait_for("the answer", || (http.shown("access_token", &[])["state"] == "waiting").then_some(()));
    let calls = wechat.calls(APPID).recent.len();
    let verdict = http.post(&credential("access_token", "/refresh"), &[API_HEADER], "").json();
    assert_eq!(verdict["verdict"], "waiting", "{verdict}");
    assert!(verdict["advice"].as_str().unwrap().contains("administrator"), "{verdict}");
    assert_eq!(wechat.calls(APPID).recent.len(), calls);
}

#[test]
fn a_page_is_signed_with_the_ticket_that_is_kept() {
    let wechat = Wechat::start();
    let http = HttpNode::start(&wechat, "", "", "tickets = [\"jsapi\"]");
    let path = format!("/v1/apps/{APPID}/jssdk?url=https%3A%2F%2Fshop.example%2Fa%3Fb%3D1%26c%3D2%23top");
    let signed =
        wait_for("the ticket", || Some(http.get(&path, &[API_HEADER])).filter(|answer| answer.status == 200)).json();
    let ticket = String::from_utf8(http.node.connect().get(&format!("jsapi_ticket:{APPID}")).unwrap()).unwrap();
    let (nonce, at) = (signed["nonceStr"].as_str().unwrap(), &signed["timestamp"]);
    let text = format!("jsapi_ticket={ticket}&noncestr={nonce}&timestamp={at}&url=https://shop.example/a?b=1&c=2");
    let hex: String = Sha1::digest(text).iter().map(|byte| format!("{byte:02x}")).collect();
    assert_eq!((&signed["signature"], &signed["appId"]), (&json!(hex), &json!(APPID)));
    assert!(!signed.to_string().contains(&ticket));
    assert_eq!(http.get(&path, &[]).problem(), "header-needed");
    for wrong in ["", "?url=", "?url=javascript:x", "?url=https://a%0Ab", "?url=https://a&ticket=wx_card_ticket"] {
        let path = format!("/v1/apps/{APPID}/jssdk{wrong}");
        assert_eq!(http.get(&path, &[API_HEADER]).problem(), "bad-request", "{wrong}");
    }
}

/// The page's own address is what WeChat's client signs, whatever the site's code makes of it.
#[test]
fn what_no_browser_has_in_its_address_is_signed_as_the_browser_has_it_or_refused() {
    let wechat = Wechat::start();
    let http = HttpNode::start(&wechat, "", "", "tickets = [\"jsapi\"]");
    let signed = |url: &str| {
        let query: String = url::form_urlencoded::Serializer::new(String::new()).append_pair("url", url).finish();
        http.get(&format!("/v1/apps/{APPID}/jssdk?{query}"), &[API_HEADER])
    };
    wait_for("the ticket", || (signed("https://shop.example/").status == 200).then_some(()));
    let ticket = String::from_utf8(http.node.connect().get(&format!("jsapi_ticket:{APPID}")).unwrap()).unwrap();
    for (given, shown) in [
        ("https://shop.example", "https://shop.example/"),
        ("https://Shop.Example:443/A?b=C", "https://shop.example/A?b=C"),
        ("https://shop.example/商品?名=值#评论", "https://shop.example/%E5%95%86%E5%93%81?%E5%90%8D=%E5%80%BC"),
        ("https://商城.example/", "https://xn--czru2d.example/"),
        ("https://shop.example/a%2fb?c=%e5&d=+%20", "https://shop.example/a%2fb?c=%e5&d=+%20"),
    ] {
        let answer = signed(given).json();
        assert_eq!(answer["url"], shown, "{given}: {answer}");
        let (nonce, at) = (answer["nonceStr"].as_str().unwrap(), &answer["timestamp"]);
        let text = format!("jsapi_ticket={ticket}&noncestr={nonce}&timestamp={at}&url={shown}");
        let hex: String = Sha1::digest(text).iter().map(|byte| format!("{byte:02x}")).collect();
        assert_eq!(answer["signature"], hex, "{given}");
    }
    for escaped in ["https://shop.example/?a=1&amp;b=2", "https://shop.example/?a=1&#38;b=2"] {
        let answer = signed(escaped).json();
        // A page reached by such a link has that address.
        assert_eq!(answer["url"], escaped.split('#').next().unwrap(), "{answer}");
        assert!(answer["notice"].to_string().contains("html_entity_decode"), "{answer}");
    }
    for (wrong, part) in
        [("https%3A%2F%2Fshop.example%2F", "percent-encoded twice"), ("https://me:word@shop.example/", "password")]
    {
        let answer = signed(wrong);
        assert_eq!(answer.status, 400, "{wrong}");
        let detail = answer.json()["detail"].to_string();
        assert!(detail.contains(part), "{wrong}: {detail}");
    }
}

#[test]
fn listeners_hear_of_a_renewal_at_once_and_of_figures_each_second() {
    let wechat = Wechat::start();
    let http = HttpNode::start(&wechat, "", "", "aliases = [\"access_token\"]");
    let (first, generation) = http.token(&[API_HEADER]);
    let mut events = Events::listen(&http, &[]);
    let hello = events.wait("hello", |_| true);
    assert_eq!(hello["credentials"]["total"], 1);
    http.node.connect().get("access_token").unwrap();
    events.wait("server", |told| told["figures"]["managed_hits"] == 1);
    wechat.kill_tokens(APPID);
    http.post(&credential("access_token", "/refresh"), &[API_HEADER], "");
    let shown = events.wait("credential", |shown| shown["generation"].as_u64() > Some(generation));
    assert_eq!((&shown["app"], &shown["state"]), (&json!(APPID), &json!("fresh")));
    let renewed = events.wait("journal", |entry| entry["event"] == "renewed");
    assert_eq!((&renewed["app"], &renewed["type"]), (&json!(APPID), &json!("access_token")));
    let (second, _) = http.token(&[API_HEADER]);
    http.node.signal("TERM");
    let rest = events.rest();
    assert!(!rest.contains(&first) && !rest.contains(&second));
}

/// The objects anywhere in a value.
fn objects(value: &Value) -> Vec<&serde_json::Map<String, Value>> {
    match value {
        Value::Object(fields) => [vec![fields], fields.values().flat_map(objects).collect()].concat(),
        Value::Array(values) => values.iter().flat_map(objects).collect(),
        _ => Vec::new(),
    }
}

/// The table in the manual has a row for each pair, or several pairs in a row.
#[test]
fn fields_are_also_given_by_their_old_names_and_the_manual_lists_those() {
    let wechat = Wechat::start();
    let sink = "[[sink]]\ncommand = [\"/bin/true\"]";
    let app = format!("aliases = [\"access_token\"]\n{sink}");
    let node = HttpNode::start(&wechat, "", "", &app);
    node.token(&[API_HEADER]);
    node.node.connect().expect("set access_token 0 0 20\r\na-token-of-their-own\r\n", "NOT_STORED\r\n");
    let answer = |path: &str| node.get(path, &[API_HEADER]).json();
    let journal = wait_for("the entry", || {
        let journal = answer("/v1/journal");
        journal["entries"].as_array()?.iter().any(|entry| entry["event"] == "refused_write").then_some(journal)
    });
    let status = wait_for("a write", || {
        let status = answer("/v1/status");
        (!status["sinks"][0]["last_write"].is_null()).then_some(status)
    });
    let answers =
        [journal, status, answer("/v1/apps"), answer("/v1/credentials"), answer(&credential("access_token", ""))];
    let root = std::path::Path::new(env!("CARGO_MANIFEST_DIR"));
    let source = std::fs::read_to_string(root.join("src/http_api/old_fields.rs")).unwrap();
    let manual = std::fs::read_to_string(root.join("docs/en/http-api.md")).unwrap();
    let table = source.split("RENAMED").nth(1).unwrap().split("];").next().unwrap();
    let names: Vec<&str> = table.split('"').skip(1).step_by(2).collect();
    for pair in names.chunks_exact(2) {
        let (old, new) = (pair[0], pair[1]);
        let given = answers.iter().flat_map(objects).filter(|fields| fields.contains_key(old));
        let both: Vec<bool> = given.map(|fields| fields.get(new) == fields.get(old)).collect();
        assert!(!both.is_empty() && both.iter().all(|same| *same), "{old} beside {new}: {both:?}");
        let has_both = |line: &&str| line.contains(&format!("`{old}`")) && line.contains(&format!("`{new}`"));
        assert!(manual.lines().any(|line| has_both(&line)), "docs/en/http-api.md has no row for {old} and {new}");
    }
    assert_eq!(names.len(), 20);
}

#[test]
fn the_journal_tells_who_tried_to_write_and_what_failed() {
    let wechat = Wechat::start();
    let http = HttpNode::start(&wechat, "", "", "aliases = [\"access_token\"]");
    http.token(&[API_HEADER]);
    http.node.connect().expect("set access_token 0 0 20\r\na-token-of-their-own\r\n", "NOT_STORED\r\n");
    let entries = wait_for("the entries", || {
        let journal = http.get("/v1/journal", &[]).json();
        let entries = journal["entries"].as_array().unwrap().clone();
        entries.iter().any(|entry| entry["event"] == "refused_write").then_some(entries)
    });
    assert_eq!(entries[0]["event"], "renewed");
    let refused = entries.iter().find(|entry| entry["event"] == "refused_write").unwrap();
    assert_eq!((&refused["peer"], &refused["foreign"]), (&json!("127.0.0.1"), &json!(true)));
    let shown = http.shown("access_token", &[]);
    assert_eq!((&shown["refused_writes"], &shown["foreign_writes"]), (&json!(1), &json!(1)));
    assert_eq!(shown["writers"][0]["peer"], "127.0.0.1");
    assert_eq!(http.get("/v1/journal?limit=1", &[]).json()["entries"].as_array().unwrap().len(), 1);
}

#[test]
fn strictly_ready_means_every_token_is_there_and_alive_means_the_server_answers() {
    let wechat = Wechat::start();
    wechat.set_fault(APPID, InjectedFault::new(FaultKind::Errcode { errcode: -1, errmsg: String::new() }));
    let folder = tempfile::tempdir().unwrap();
    crate::support::write(folder.path(), "keys", super::KEYS);
    let http = HttpNode::start_in(folder, &wechat, "keys_file = \"{folder}/keys\"", "", "");
    assert_eq!(http.get("/livez", &[]).json(), json!({ "status": "ok" }));
    let named = http.get("/readyz?strict", &[&bearer("monitor")]);
    assert_eq!(named.status, 503);
    let missing = &named.json()["not_live"][0];
    assert_eq!((&missing["app"], &missing["type"]), (&json!(APPID), &json!("access_token")));
    let unnamed = http.get("/readyz?strict", &[]);
    assert_eq!((unnamed.status, unnamed.json()), (503, json!({ "status": "not ready" })));
    wechat.clear_fault(APPID);
    wait_for("the token", || (http.get("/readyz?strict", &[]).status == 200).then_some(()));
}

#[test]
fn a_token_is_seen_only_where_it_is_asked_for() {
    let wechat = Wechat::start();
    let http = HttpNode::start(&wechat, "", "", "tickets = [\"jsapi\"]");
    let (token, _) = http.token(&[API_HEADER]);
    let ticket = wait_for("the ticket", || http.node.connect().get(&format!("jsapi_ticket:{APPID}")));
    let ticket = String::from_utf8(ticket).unwrap();
    let mut events = Events::listen(&http, &[]);
    events.wait("hello", |_| true);
    let paths = ["/", "/livez", "/readyz", "/metrics", "/v1/status", "/v1/apps", "/v1/journal", "/v1/session"];
    let mut shown: Vec<String> = paths.iter().map(|path| http.get(path, &[API_HEADER]).body).collect();
    shown.push(http.get(&format!("/v1/apps/{APPID}"), &[API_HEADER]).body);
    shown.push(http.post(&credential("access_token", "/probe"), &[API_HEADER], "").body);
    shown.push(http.node.log());
    http.node.signal("TERM");
    shown.push(events.rest());
    for text in shown {
        for secret in [&token, &ticket] {
            // Four characters are told, and no more.
            assert!(!text.contains(&secret[secret.len() - 5..]) && !text.contains(&secret[..8]), "{text}");
        }
        assert!(!text.contains(crate::support::SECRET));
    }
}

/// Nothing forbids it, though the platforms have no such appids.
#[test]
fn an_app_is_found_whose_appid_has_a_colon() {
    let wechat = Wechat::start();
    let apps = "[[app]]\nappid = \"wx:1\"\nsecret = \"s\"\n\n[[app]]\nappid = \"a:b\"\nplatform = \"wecom\"\nagent = \"c:d\"\nsecret = \"s\"\n";
    let http = HttpNode::start(&wechat, "", "", apps);
    for id in ["wx:1", "a:b:c:d"] {
        assert_eq!(http.get(&format!("/v1/apps/{id}"), &[]).json()["id"], id);
    }
    assert_eq!(http.get("/v1/apps/a:b", &[]).problem(), "not-found");
}

#[test]
fn a_thousand_apps_are_listed_and_only_changes_are_told() {
    let apps = |n: usize| format!("wx{n:016x}");
    let known = (0..1_000).map(|n| AppOptions {
        appid: apps(n),
        secret: "s".into(),
        platform: SandboxPlatform::Mp,
        ..AppOptions::default()
    });
    let wechat = Wechat::with(Options { apps: known.collect(), ..Options::default() });
    // A scheduled probe would be another change.
    let quiet = "probe_every_s = 0\n";
    let app = |n| format!("[[app]]\nappid = \"{}\"\nsecret = \"s\"\n{quiet}", apps(n));
    let tables: String = std::iter::once(quiet.to_owned()).chain((0..1_000).map(app)).collect();
    let http = HttpNode::start(&wechat, "requests_per_s = 1000", "", &tables);
    wait_for("all tokens", || (http.get("/readyz?strict", &[]).status == 200).then_some(()));
    assert_eq!(http.get("/v1/apps", &[]).json()["apps"].as_array().unwrap().len(), 1_001);
    let mut events = Events::listen(&http, &[]);
    events.wait("hello", |hello| hello["credentials"]["fresh"] == 1_001);
    events.wait("server", |_| true);
    let path = format!("/v1/apps/{}/credentials/access_token/probe", apps(500));
    assert_eq!(http.post(&path, &[API_HEADER], "").json()["verdict"], "accepted");
    // Nothing else has changed, so the first credential told of is that one.
    let told = events.wait("credential", |_| true);
    assert_eq!(told["app"], Value::String(apps(500)));
}

/// A burst is written down a few times only, and `stats reset` sets other counters back: the counts are the same all
/// the same, wherever somebody looks.
#[test]
fn every_count_of_refused_writes_is_the_same() {
    let wechat = Wechat::start();
    let http = HttpNode::start(&wechat, "", "", "aliases = [\"access_token\"]");
    http.token(&[API_HEADER]);
    let mut client = http.node.connect();
    let set = "set access_token 0 0 4\r\nmine\r\n";
    client.expect(set.repeat(40), "NOT_STORED\r\n".repeat(40));
    client.expect("stats reset\r\n", "RESET\r\n");
    client.expect(set.repeat(17), "NOT_STORED\r\n".repeat(17));
    let metrics = http.get("/metrics", &[]).body;
    let metric = |name: &str| -> u64 {
        let line = metrics.lines().find(|line| line.starts_with(&format!("{name}{{"))).unwrap();
        line.split(' ').next_back().unwrap().parse::<f64>().unwrap() as u64
    };
    let shown = http.shown("access_token", &[]);
    let sum = |values: &[Value], field: &str| -> u64 { values.iter().map(|of| of[field].as_u64().unwrap()).sum() };
    let journal = http.get("/v1/journal", &[]).json()["entries"].clone();
    let journal: Vec<Value> = journal.as_array().unwrap().clone();
    let journal: Vec<Value> = journal.into_iter().filter(|entry| entry["event"] == "refused_write").collect();
    let stat = |client: &mut crate::support::Client, argument: &str, name: &str| -> u64 {
        client.stat(argument, name).unwrap().parse().unwrap()
    };
    let counts = [
        ("stats", stat(&mut client, "", "managed_refused_writes")),
        ("stats tokens", stat(&mut client, "tokens", &format!("{APPID}:refused_writes"))),
        ("metrics, by credential", metric("tokencached_refused_writes_total")),
        ("metrics, by platform", metric("tokencached_platform_refused_writes_total")),
        ("status", http.get("/v1/status", &[]).json()["figures"]["refused_writes"].as_u64().unwrap()),
        ("credential", shown["refused_writes"].as_u64().unwrap()),
        ("credential, by writer", sum(shown["writers"].as_array().unwrap(), "noted")),
        ("journal", sum(&journal, "times")),
    ];
    assert_eq!(
        counts.map(|(whose, count)| format!("{whose}: {count}")),
        counts.map(|(whose, _)| format!("{whose}: 57"))
    );
}

/// Nobody asks for the end of a burst: whoever listens is told of it.
#[test]
fn a_listener_is_told_of_every_refused_write() {
    let wechat = Wechat::start();
    let http = HttpNode::start(&wechat, "", "", "aliases = [\"access_token\"]");
    http.token(&[API_HEADER]);
    let mut events = Events::listen(&http, &[]);
    events.wait("hello", |_| true);
    let set = "set access_token 0 0 4\r\nmine\r\n";
    http.node.connect().expect(set.repeat(57), "NOT_STORED\r\n".repeat(57));
    // The count by writer is what the last word is about: the credential's own count runs ahead of it.
    let told = events.wait("credential", |credential| credential["writers"][0]["noted"] == 57);
    assert_eq!(told["refused_writes"], 57);
    let entry = events.wait("journal", |entry| entry["event"] == "refused_write" && entry["times"] == 57);
    assert_eq!((&entry["app"], &entry["peer"]), (&json!(APPID), &json!("127.0.0.1")));
}
