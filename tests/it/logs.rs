//! What an operator finds in the log: one event is one line, one thing has one name, nothing is said twice, and nothing is
//! shown that is not there. And the `name` of an app, wherever it is shown.

use std::collections::BTreeMap;
use std::os::unix::fs::MetadataExt;

use serde_json::Value;
use tokencached::sandbox::{AppOptions, FaultKind, InjectedFault, Options};

use crate::support::{APPID, Client, Node, SECRET, Wechat, rust_sources, tokencached, wait_for, write};

const NAME: &str = "商城小程序";
const OTHER: &str = "wxfedcba9876543210";
const BLOCKED: &str = "wx2222222222222222";
const RID: &str = "64d2e8b1-4d4aab5f-5bd0e1a5";
const APPS: [&str; 3] = [APPID, OTHER, BLOCKED];
/// Everything that means something in a line of a log, of statistics or of metrics, and may be in a name.
const HOSTILE: &str = r#""} 1 \n {x} app="wx1" appid=wx1 STAT END 名"#;

/// Three apps; the first has a ticket.
fn wechat() -> Wechat {
    let app = |appid: &str| AppOptions { appid: appid.into(), secret: SECRET.into(), ..AppOptions::default() };
    Wechat::with(Options { apps: vec![app(APPID), app(OTHER), app(BLOCKED)], ..Options::default() })
}

fn config(wechat: &Wechat, json: bool, name: &str) -> String {
    let name = toml::Value::String(name.to_owned());
    let app = format!(
        "name = {name}\ntickets = [\"jsapi\"]\n[[app]]\nappid = \"{OTHER}\"\nsecret = \"{SECRET}\"\n\
         [[app]]\nappid = \"{BLOCKED}\"\nsecret = \"{SECRET}\"\n\
         [http]\nlisten = [\"127.0.0.1:0\"]\n[log]\njson = {json}\n"
    );
    wechat.config("", &app)
}

/// The HTTP API's answer to a request, and where it is.
fn ask_http(node: &Node, path: &str, header: &str) -> String {
    let address = wait_for("the HTTP API", || {
        let log = node.log();
        let rest = log.split_once("http=\"").or_else(|| log.split_once("\"http\":\""))?.1;
        rest.split('"').next()?.parse().ok()
    });
    let mut client = Client::connect(address);
    client.send(format!("GET {path} HTTP/1.1\r\nHost: {address}\r\n{header}Connection: close\r\n\r\n"));
    String::from_utf8(client.rest()).unwrap()
}

/// Whatever an operator is likely to meet: refusals of the platform, other programs' writes, wrong secrets, tokens that
/// die, a restart. The log of all of it.
fn log_of_a_bad_day(json: bool) -> String {
    let wechat = wechat();
    let errmsg = format!("invalid ip 1.2.3.4,\r\nnot in\u{2028}white\u{7}list rid: {RID}");
    wechat.set_fault(BLOCKED, InjectedFault::new(FaultKind::Errcode { errcode: 40164, errmsg }));
    wechat.set_fault(OTHER, InjectedFault::new(FaultKind::Empty).times(2));
    let node = Node::start(&config(&wechat, json, NAME), &[]);
    let mut client = node.connect();
    for kind in ["access_token", "jsapi_ticket"] {
        let key = format!("{kind}:{APPID}");
        wait_for(&key, || client.get(&key));
        client.expect(format!("set {key} 0 0 5\r\nother\r\n"), "NOT_STORED\r\n");
    }
    node.await_log("40164");
    ask_http(&node, "/v1/status", "Authorization: Bearer wrong\r\n");
    for appid in [APPID, "wx1111111111111111"] {
        ask_http(&node, &format!("/cgi-bin/token?grant_type=client_credential&appid={appid}&secret=wrong"), "");
    }
    node.await_log("wrong secret");
    node.await_log("recovered");
    wechat.kill_tokens(APPID);
    client.ask(format!("delete access_token:{APPID}\r\n"));
    node.await_log("invalid before its expiry");
    wait_for("another token", || client.get(&format!("access_token:{APPID}")));
    node.signal("HUP");
    node.await_log("SIGHUP");
    let log = node.log();
    let folder = node.stop();
    let node = Node::start_in(folder, &config(&wechat, json, NAME), &[]);
    node.await_log("restored from state.json");
    log + &node.log()
}

/// What is wrong with a value by itself.
fn empty(value: &str) -> bool {
    matches!(value, "" | "0" | "\"\"" | "null" | "none")
}

#[test]
fn no_line_of_text_says_a_thing_twice_or_shows_what_is_not_there() {
    let log = log_of_a_bad_day(false);
    for line in log.lines() {
        assert!(!line.contains("u{") && !line.contains(char::is_control), "{line}");
        assert!(line.matches(RID).count() <= 1, "twice: {line}");
        for (field, value) in line.split(' ').filter_map(|word| word.split_once('=')) {
            assert!(!empty(value), "{field} of nothing: {line}");
            assert!(field != "appid" || APPS.contains(&value), "no appid: {line}");
        }
        let of_named = line.contains(&format!(" appid={APPID} ")) && line.contains(" type=");
        assert!(!of_named || line.contains(&format!(" name=\"{NAME}\" ")), "without its name: {line}");
    }
    let found = |texts: &[&str]| log.lines().any(|line| texts.iter().all(|text| line.contains(text)));
    assert!(found(&[" appid=", " type=jsapi_ticket ", "refused a client's write"]), "{log}");
    assert!(found(&["renewal failed", "invalid ip 1.2.3.4, not in white?list", "errcode=40164", "rid="]), "{log}");
    assert!(found(&["token became invalid before its expiry", &format!("appid={APPID}")]), "{log}");
    assert!(found(&["3 of 4 tokens and tickets restored from state.json", "not_in_file=1"]), "{log}");
}

#[test]
fn no_line_of_json_says_a_thing_twice_or_shows_what_is_not_there() {
    let log = log_of_a_bad_day(true);
    let mut fields_seen = BTreeMap::new();
    for line in log.lines() {
        let fields: BTreeMap<String, Value> =
            serde_json::from_str(line).unwrap_or_else(|error| panic!("{error}: {line}"));
        assert!(!line.contains("u{") && line.matches(RID).count() <= 1, "{line}");
        for (field, value) in &fields {
            let text = value.as_str().map_or_else(|| value.to_string(), str::to_owned);
            assert!(!empty(&text) && !text.contains(char::is_control), "{field}: {line}");
            assert!(field != "appid" || APPS.contains(&&*text), "no appid: {line}");
            fields_seen.insert(field.clone(), text);
        }
        if fields.get("appid").is_some_and(|appid| appid == APPID) && fields.contains_key("type") {
            assert_eq!(fields.get("name").and_then(Value::as_str), Some(NAME), "{line}");
        }
    }
    for field in ["appid", "name", "type", "errcode", "rid", "peer", "path", "advice"] {
        assert!(fields_seen.contains_key(field), "no line has {field}: {log}");
    }
}

/// What a service starts, an init script of a panel, inherits the variable, also if its log is a file.
#[test]
fn lines_have_their_time_unless_they_go_to_the_journal() {
    for is_journal in [true, false] {
        let folder = tempfile::tempdir().unwrap();
        let log = write(folder.path(), "log", "").metadata().unwrap();
        let stream = format!("{}:{}", log.dev(), log.ino() + u64::from(!is_journal));
        let node = Node::start_with(folder, "[state]\npath = \"none\"\n", &[], &[("JOURNAL_STREAM", &stream)]);
        let log = wait_for("the start", || Some(node.log()).filter(|log| log.contains("ready")));
        assert_eq!(log.trim_start().starts_with("20"), !is_journal, "{log}");
    }
}

#[test]
fn the_start_says_what_the_state_file_gave() {
    let wechat = wechat();
    let first = wechat.config("", "tickets = [\"jsapi\"]");
    let node = Node::start(&first, &[]);
    node.await_log("0 of 2 tokens and tickets restored: there is no state file yet");
    let mut client = node.connect();
    for kind in ["access_token", "jsapi_ticket"] {
        wait_for(kind, || client.get(&format!("{kind}:{APPID}")));
    }
    let node = Node::start_in(node.stop(), &first, &[]);
    node.await_log("2 of 2 tokens and tickets restored from state.json");
    let line = node.log().lines().find(|line| line.contains("restored")).unwrap().to_owned();
    assert!(line.ends_with(&format!(" path={}", node.path("state.json").display())), "nothing else: {line}");
    let other = first.replace(APPID, OTHER).replace("tickets = [\"jsapi\"]", "");
    let node = Node::start_in(node.stop(), &other, &[]);
    node.await_log("0 of 1 tokens restored from state.json");
    let log = node.log();
    assert!(log.contains(" not_in_file=1 not_configured=2") && !log.contains("expired="), "{log}");
    let folder = node.stop();
    write(folder.path(), "state.json", "not a state file");
    let node = Node::start_in(folder, &other, &[]);
    node.await_log("0 of 1 tokens restored: the state file cannot be used and is set aside");
    let none = other.replace("{folder}/state.json", "none");
    let node = Node::start_in(node.stop(), &none, &[]);
    node.await_log("no token restored: tokens are kept in memory only");
}

#[test]
fn a_name_is_shown_everywhere_and_can_write_nothing_of_its_own() {
    let wechat = wechat();
    let node = Node::start(&config(&wechat, false, HOSTILE), &[]);
    let mut client = node.connect();
    wait_for("a token", || client.get(&format!("access_token:{APPID}")));
    let stats = String::from_utf8(client.ask("stats tokens\r\n")).unwrap();
    let named: Vec<&str> = stats.split("\r\n").filter(|line| line.contains(HOSTILE)).collect();
    assert_eq!(named[0], format!("STAT {APPID}:name {HOSTILE}"));
    assert_eq!(named[1], format!("STAT jsapi_ticket:{APPID}:name {HOSTILE}"));
    assert_eq!(named.len(), 2, "{stats}");

    let metrics = ask_http(&node, "/metrics", "");
    let escaped = HOSTILE.replace('\\', "\\\\").replace('"', "\\\"");
    let info = format!("tokencached_app_info{{app=\"{APPID}\",name=\"{escaped}\"}} 1");
    assert!(metrics.lines().any(|line| line == info), "{info}\n{metrics}");
    assert_eq!(metrics.matches("END 名").count(), 1, "one series, no label of others: {metrics}");

    let apps = ask_http(&node, "/v1/apps", "");
    let apps: Value = serde_json::from_str(apps.split_once("\r\n\r\n").unwrap().1).unwrap();
    let app = |id: &str| apps["apps"].as_array().unwrap().iter().find(|app| app["id"] == id).unwrap();
    assert_eq!(app(APPID)["name"], HOSTILE);
    assert_eq!(app(APPID)["credentials"][1]["name"], HOSTILE);
    assert!(app(OTHER)["name"].is_null() && app(OTHER)["credentials"][0]["name"].is_null());
    let journal = ask_http(&node, "/v1/journal", "");
    let journal: Value = serde_json::from_str(journal.split_once("\r\n\r\n").unwrap().1).unwrap();
    let entries = journal["entries"].as_array().unwrap();
    assert!(entries.iter().any(|entry| entry["app"] == APPID && entry["name"] == HOSTILE), "{journal}");

    node.await_log("renewed");
    let log = node.log();
    let named = format!(" name={HOSTILE:?} type=");
    assert!(log.lines().any(|line| line.contains("renewed") && line.contains(&named)), "{named}\n{log}");
}

#[test]
fn two_apps_of_one_name_are_warned_about() {
    let folder = tempfile::tempdir().unwrap();
    let name = toml::Value::String(HOSTILE.to_owned());
    let app = |appid: &str| format!("[[app]]\nappid = \"{appid}\"\nname = {name}\nsecret = \"{SECRET}\"\n");
    let file = write(folder.path(), "conf.toml", &format!("[state]\npath = \"none\"\n{}{}", app(APPID), app(OTHER)));
    let out = tokencached().arg("check").arg("--config").arg(&file).output().unwrap();
    let said = String::from_utf8(out.stdout).unwrap() + &String::from_utf8(out.stderr).unwrap();
    assert!(said.contains(&format!("the apps \"{APPID}\" and \"{OTHER}\" have the same name")), "{said}");
}

/// Every call of `tracing`'s macros in the source, without its white space.
fn log_calls() -> Vec<String> {
    let all: String = rust_sources("src").into_iter().map(|(_, text)| text).collect();
    let mut calls = Vec::new();
    for macro_name in ["warn!(", "info!(", "error!(", "debug!(", "log_credential!("] {
        for (at, _) in all.match_indices(macro_name) {
            let rest = &all[at + macro_name.len()..];
            let end = rest.find(");").unwrap_or(rest.len());
            calls.push(rest[..end].split_whitespace().collect::<Vec<_>>().join(" "));
        }
    }
    calls
}

/// Who looks for an error, a file or a piece of advice looks in one field.
#[test]
fn log_lines_have_one_name_for_one_thing() {
    let calls = log_calls();
    assert!(calls.len() > 80, "{}", calls.len());
    for call in calls {
        // Without texts: they say what they like.
        let fields: String = call.replace("\\\"", "").split('"').step_by(2).collect();
        for field in fields.split(',') {
            let field = field.split('=').next().unwrap_or_default().trim().trim_start_matches(['%', '?']);
            let known_as = match field {
                "reason" => "error",
                "remedy" => "advice",
                "folder" | "file" => "path",
                "unsaid" => "suppressed, if there is something",
                _ => continue,
            };
            panic!("{field} is called {known_as}: {call}");
        }
        assert!(!fields.contains("credential.appid"), "that is a label: use log_credential: {call}");
    }
}
