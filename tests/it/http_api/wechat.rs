//! WeChat's own calls, as code that calls WeChat makes them.

use std::io::{Read, Write};

use serde_json::{Value, json};
use tokencached::sandbox::{AppOptions, Endpoint, FaultKind, InjectedFault, Options, SandboxPlatform};

use super::{API_HEADER, HttpNode, KEYS, bearer, credential, key, raw};
use crate::support::{APPID, Node, SECRET, Wechat, wait_for, write};

fn token_path(appid: &str, secret: &str) -> String {
    format!("/cgi-bin/token?grant_type=client_credential&appid={appid}&secret={secret}")
}

fn stable(secret: &str, force: bool) -> String {
    json!({ "grant_type": "client_credential", "appid": APPID, "secret": secret, "force_refresh": force }).to_string()
}

fn errcode(answer: &Value) -> i64 {
    assert!(answer["errmsg"].is_string() && answer.get("access_token").is_none(), "{answer}");
    answer["errcode"].as_i64().unwrap()
}

#[test]
fn both_token_calls_answer_as_wechat_does() {
    let wechat = Wechat::start();
    let http = HttpNode::start(&wechat, "", "", "");
    let (token, _) = http.token(&[API_HEADER]);
    let classic = http.get(&token_path(APPID, SECRET), &[]);
    assert_eq!(classic.status, 200);
    let classic = classic.json();
    assert_eq!(classic["access_token"], token.as_str());
    assert!((7_000..=7_200).contains(&classic["expires_in"].as_u64().unwrap()), "{classic}");
    assert_eq!(classic.as_object().unwrap().len(), 2, "no errcode on success");
    let answer = http.post("/cgi-bin/stable_token", &["Content-Type: application/json"], &stable(SECRET, false)).json();
    assert_eq!(answer["access_token"], token.as_str());
    assert_eq!(wechat.calls(APPID).minted, 1, "nothing was fetched for it");
}

#[test]
fn errors_are_wechats() {
    let wechat = Wechat::start();
    let http = HttpNode::start(&wechat, "", "", "");
    http.token(&[API_HEADER]);
    let get = |path: &str| errcode(&http.get(path, &[]).json());
    assert_eq!(get(&token_path("wxnobody", SECRET)), 40013);
    assert_eq!(get(&token_path(APPID, "wrong")), 40125);
    assert_eq!(get(&format!("/cgi-bin/token?grant_type=client_credential&appid={APPID}")), 41004);
    assert_eq!(get(&format!("/cgi-bin/token?grant_type=client_credential&appid={APPID}&secret=")), 41004);
    assert_eq!(get("/cgi-bin/token?grant_type=client_credential&secret=x"), 41002);
    assert_eq!(get(&format!("/cgi-bin/token?grant_type=other&appid={APPID}&secret={SECRET}")), 40002);
    assert_eq!(get("/cgi-bin/stable_token"), 43002);
    assert_eq!(errcode(&http.post("/cgi-bin/gettoken?corpid=a&corpsecret=b", &[], "").json()), 43001);
    assert_eq!(errcode(&http.post("/cgi-bin/stable_token", &[], "nonsense").json()), 47001);
    assert_eq!(get("/cgi-bin/ticket/getticket?type=jsapi"), 41001);
    assert_eq!(get("/cgi-bin/ticket/getticket?access_token=wrong&type=jsapi"), 40001);
    assert_eq!(get("/cgi-bin/ticket/getticket?access_token=wrong&type=other"), 40097);
}

#[test]
fn a_token_call_may_be_posted_with_its_parameters_in_the_query() {
    let wechat = Wechat::start();
    let http = HttpNode::start(&wechat, "", "", "");
    let (token, _) = http.token(&[API_HEADER]);
    for body in ["", "appid=another", "{\"appid\":\"another\"}"] {
        assert_eq!(http.post(&token_path(APPID, SECRET), &[], body).json()["access_token"], token.as_str(), "{body}");
    }
    assert_eq!(errcode(&http.post(&token_path("wxnobody", SECRET), &[], "").json()), 40013);
}

/// Code that has moved over by its host sends whatever it would have sent to WeChat, and shows its users what it gets.
#[test]
fn whatever_is_wrong_the_answer_is_an_errcode_and_a_sentence() {
    let wechat = Wechat::start();
    let http = HttpNode::keyed(&wechat, "", "");
    let path = token_path(APPID, SECRET);
    let (named, large) = (format!("Host: {}", http.address), "x".repeat(17 * 1024));
    let many: Vec<String> = (0..80).map(|n| format!("X-Line-{n}: x")).collect();
    let many: Vec<&str> = std::iter::once(named.as_str()).chain(many.iter().map(String::as_str)).collect();
    let long = format!("X-Long: {large}");
    let ask = |method: &str, path: &str, headers: &[&str], body: &str| {
        let answer = raw(http.address, method, path, headers, body);
        assert!(answer.headers["content-type"].contains("json"), "{method} {path}: {answer:?}");
        let said = answer.json();
        assert!(said["errmsg"].as_str().is_some_and(|text| text.contains(' ')), "{method} {path}: {answer:?}");
        (answer.status, said["errcode"].as_i64().unwrap())
    };
    for unknown in
        ["/cgi-bin/user/info?openid=o", "/cgi-bin", "/cgi-bin/", "/cgi-bin/token/", "//cgi-bin/token", "/cgi-bin/x.php"]
    {
        for method in ["GET", "POST", "PUT", "OPTIONS"] {
            assert_eq!(ask(method, unknown, &[&named], ""), (200, 40066), "{method} {unknown}");
        }
    }
    assert_eq!(ask("GET", &path, &["Host: evil.example"], ""), (200, 40066), "a name that is not this server's");
    assert_eq!(ask("GET", &path, &[], ""), (200, 40066), "no name");
    assert_eq!(ask("GET", &path, &[&named, "X-Forwarded-For: 192.0.2.1"], ""), (200, 48001), "an unknown proxy");
    assert_eq!(ask("GET", &path, &[&named, "Origin: http://evil.example"], ""), (200, 48001), "another site's page");
    assert_eq!(ask("GET", &path, &[&named, "Authorization: Bearer wrong"], ""), (200, 40001), "a wrong key");
    assert_eq!(ask("GET", "/cgi-bin/ticket/getticket?type=jsapi", &[&named], ""), (200, 41001), "no token");
    assert_eq!(ask("GET", &token_path("wxnobody", SECRET), &[&named], ""), (200, 40013), "an unknown app");
    assert_eq!(ask("GET", &token_path(APPID, ""), &[&named], ""), (200, 41004), "no secret and no key");
    assert_eq!(ask("DELETE", &path, &[&named], ""), (200, 43001));
    assert_eq!(ask("GET", "/cgi-bin/stable_token", &[&named], ""), (200, 43002));
    assert_eq!(ask("POST", "/cgi-bin/stable_token", &[&named], &large), (200, 45002), "a large body");
    assert_eq!(ask("GET", &path, &many, ""), (431, 45002), "too many header lines");
    assert_eq!(ask("GET", &path, &[&named, &long], ""), (431, 45002), "a header line that is too long");
    assert_eq!(ask("GET", &path, &[&named, "no header line"], ""), (400, 47001), "what is not HTTP");
}

#[test]
fn too_many_calls_with_a_key_are_told_so_as_wechat_does() {
    let wechat = Wechat::start();
    let http = HttpNode::keyed(&wechat, "requests_per_s = 1", "");
    let told = || http.get(&token_path(APPID, SECRET), &[&bearer("web")]).json()["errcode"].as_i64();
    wait_for("no more than too many", || (told() == Some(45011)).then_some(()));
}

#[test]
#[ignore = "waits for real time"]
fn a_body_that_does_not_come_is_told_so_as_wechat_does() {
    let wechat = Wechat::start();
    let http = HttpNode::start(&wechat, "", "", "");
    let mut stream = std::net::TcpStream::connect(http.address).unwrap();
    let head = format!("POST /cgi-bin/stable_token HTTP/1.1\r\nHost: {}\r\nContent-Length: 5\r\n", http.address);
    stream.write_all(format!("{head}Connection: close\r\n\r\n").as_bytes()).unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    assert!(answer.contains(r#""errcode":44002"#), "{answer}");
}

/// Our own renewal ends a classic token long before WeChat does: after a third of its life less, and the overlap.
#[test]
fn every_told_time_of_a_classic_token_is_one_to_rely_on() {
    let wechat = Wechat::start();
    let aliases = r#"aliases = [{ key = "in", shows = "expires_in" }, { key = "at", shows = "expires_at" }]"#;
    let http = HttpNode::start(&wechat, "", "", &format!("endpoint = \"token\"\n{aliases}"));
    http.token(&[API_HEADER]);
    // 7200 s less 2472 s at the earliest, and 225 of the 300 s that WeChat leaves the token before.
    // And a second more where a clock's second has turned meanwhile.
    let reliable = |told_s: u64| (4_800..=4_954).contains(&told_s);
    let value = http.get(&credential("access_token", ""), &[API_HEADER]).json();
    assert!(reliable(value["expires_in"].as_u64().unwrap()), "{value}");
    let now_s = tokencached::clock::unix_ms() as u64 / 1000;
    assert!(reliable(value["expires_at"].as_u64().unwrap() - now_s), "{value}");
    let mut client = http.node.connect();
    let text = |answer: Vec<u8>| String::from_utf8(answer).unwrap();
    let told = |answer| text(answer).lines().nth(1).unwrap().parse::<u64>().unwrap();
    assert!(reliable(told(client.ask("get in\r\n"))));
    assert!(reliable(told(client.ask("get at\r\n")) - now_s));
    let meta = text(client.ask(format!("mg access_token:{APPID} t\r\n")));
    assert!(reliable(meta.trim().strip_prefix("HD t").unwrap().parse().unwrap()), "{meta}");
    let agent = |agent: &str| {
        let answer = http.get(&token_path(APPID, SECRET), &[&format!("User-Agent: {agent}")]).json();
        answer["expires_in"].as_u64().unwrap()
    };
    assert!(reliable(agent("curl/7.88.1")) && reliable(agent("Go-http-client/1.1")));
    let listed = http.get("/v1/credentials", &[API_HEADER]).json();
    assert_eq!(listed["credentials"][0]["reliable_lead_ms"], 2_247_000, "{listed}");
}

/// A node that follows need not know how the token is renewed.
#[test]
fn a_follower_tells_what_its_leader_tells() {
    let wechat = Wechat::start();
    let leader = HttpNode::start(&wechat, "", "", "endpoint = \"token\"");
    leader.token(&[API_HEADER]);
    let state = format!("[state]\npath = \"none\"\nupstream = [\"http://{}\"]\n", leader.address);
    let app = format!("[[app]]\nappid = \"{APPID}\"\n");
    let follower = Node::start(&format!("{state}{app}"), &[]);
    let mut client = follower.connect();
    let left_s = wait_for("the leader's token", || {
        let meta = String::from_utf8(client.ask(format!("mg access_token:{APPID} t\r\n"))).unwrap();
        meta.trim().strip_prefix("HD t")?.parse::<u64>().ok()
    });
    assert!((4_800..=4_953).contains(&left_s), "{left_s}");
}

#[test]
fn wrong_secrets_shut_out_no_right_ones() {
    let wechat = Wechat::start();
    // Whatever else is limited, a right secret passes: some programs ask for each page they show.
    let http = HttpNode::keyed(&wechat, "requests_per_s = 1", "");
    let ask = |appid: &str, secret: &str| http.get(&token_path(appid, secret), &[]).json();
    wait_for("a token", || ask(APPID, SECRET)["access_token"].is_string().then_some(()));
    let wrong = || errcode(&ask(APPID, "5ec4e75ec4e75ec4e75ec4e75ec4e7ff"));
    assert_eq!([(); 10].map(|()| wrong()), [40125; 10]);
    wait_for("no more than too many", || (wrong() == 45011).then_some(()));
    for _ in 0..100 {
        wrong();
        assert!(ask(APPID, SECRET)["access_token"].is_string());
        assert!(ask(APPID, key("web"))["access_token"].is_string(), "a key in its place");
        let stable = http.post("/cgi-bin/stable_token", &[], &stable(SECRET, false)).json();
        assert!(stable["access_token"].is_string());
    }
    // Nor do they shut out keys, or the login.
    assert_eq!(http.get("/v1/apps", &[&super::bearer("web")]).status, 200);
    assert_eq!(http.post("/login", &[API_HEADER], &format!("{{\"key\":\"{}\"}}", key("ops"))).status, 204);
    assert_eq!(errcode(&ask("wx00000000000000ff", SECRET)), 40013, "another appid is counted by itself");
}

#[test]
fn the_log_says_which_program_has_an_old_secret() {
    let wechat = Wechat::start();
    let http = HttpNode::start(&wechat, "", "", "");
    http.token(&[API_HEADER]);
    for _ in 0..30 {
        http.get(&token_path(APPID, "a-secret-of-last-year"), &[]);
        http.post("/cgi-bin/stable_token", &[], &stable("a-secret-of-last-year", false));
        http.get(&token_path("wxfedcba9876543210", SECRET), &[]);
        http.get(&token_path(SECRET, APPID), &[]);
    }
    http.node.await_log("GET /cgi-bin/token for wxfedcba9876543210: no such app here");
    let log = http.node.log();
    let line = log.lines().find(|line| line.contains("GET /cgi-bin/token: wrong secret")).expect(&log);
    assert!(line.ends_with(&format!(" appid={APPID} peer=127.0.0.1 times=1")), "{line}");
    assert_eq!(log.matches("wrong secret").count(), 1, "once a minute: {log}");
    let line = log.lines().find(|line| line.contains("no such app here")).expect(&log);
    assert!(line.ends_with(" peer=127.0.0.1 times=1"), "{line}");
    assert!(!log.contains("a-secret-of-last-year") && !log.contains(SECRET), "{log}");
}

/// The manual names it, and people filter by it.
#[test]
fn wrong_secrets_are_logged_under_the_name_of_access_control() {
    let wechat = Wechat::start();
    let http = HttpNode::start(&wechat, "", "", "");
    http.token(&[API_HEADER]);
    http.get(&token_path(APPID, "a-secret-of-last-year"), &[]);
    http.get(&token_path("wxfedcba9876543210", SECRET), &[]);
    for what in ["wrong secret", "no such app here"] {
        http.node.await_log(what);
        let log = http.node.log();
        let line = log.lines().find(|line| line.contains(what)).expect(&log);
        assert!(line.contains(" tokencached::http_api::access_control: authentication failed: "), "{line}");
    }
}

#[test]
fn a_wrong_token_is_always_told_so() {
    let wechat = Wechat::start();
    let http = HttpNode::start(&wechat, "requests_per_s = 1", "", "tickets = [\"jsapi\"]");
    let ticket =
        |token: &str| http.get(&format!("/cgi-bin/ticket/getticket?access_token={token}&type=jsapi"), &[]).json();
    // Any other answer would keep a program from asking for the right one.
    assert!((0..50).all(|_| errcode(&ticket("an-old-token")) == 40001));
    let mut client = http.node.connect();
    let token = wait_for("a token", || client.get(&format!("access_token:{APPID}")));
    wait_for("its ticket", || ticket(std::str::from_utf8(&token).unwrap())["ticket"].is_string().then_some(()));
}

#[test]
fn force_does_not_kill_the_token() {
    let wechat = Wechat::start();
    let http = HttpNode::start(&wechat, "", "", "");
    let (token, _) = http.token(&[API_HEADER]);
    let by_force = || http.post("/cgi-bin/stable_token", &[], &stable(SECRET, true)).json();
    for _ in 0..3 {
        assert_eq!(by_force()["access_token"], token.as_str(), "it lives, so it stays");
    }
    assert_eq!(wechat.calls(APPID).minted, 1);
    wechat.kill_tokens(APPID);
    let shown = http.shown("access_token", &[]);
    assert_eq!(shown["reports"], 3);
    // Within half a minute of the check before nothing is looked into; a probe finds it as well.
    wait_for("another token", || {
        let _ = http.post(&super::credential("access_token", "/probe"), &[API_HEADER], "");
        Some(by_force()).filter(|answer| answer["access_token"].is_string() && answer["access_token"] != token.as_str())
    });
}

#[test]
#[ignore = "waits for real time"]
fn what_can_be_relied_on_is_told_but_more_to_the_sdks_that_break_on_less() {
    let wechat = Wechat::short_lived(20);
    let http = HttpNode::start(&wechat, "", "", "tickets = [\"jsapi\"]");
    let (token, _) = http.token(&[API_HEADER]);
    let of = |answer: Value| answer["expires_in"].as_i64().unwrap_or_else(|| panic!("{answer}"));
    let classic = |agent: &[&str]| of(http.get(&token_path(APPID, SECRET), agent).json());
    let stable_call = |agent: &[&str]| of(http.post("/cgi-bin/stable_token", agent, &stable(SECRET, false)).json());
    // silenceper and EasyWeChat 3 subtract 1500 from the classic call's, silenceper 300 from the stable one's, WxJava 200.
    let go = ["User-Agent: Go-http-client/1.1"];
    assert_eq!((classic(&go), stable_call(&go)), (1_560, 360));
    let easywechat = format!("/cgi-bin/token?appid={APPID}&secret={SECRET}&grant_type=client_credential");
    assert_eq!(of(http.get(&easywechat, &["User-Agent: GuzzleHttp/6.5.5 curl/7.88.1 PHP/7.4"]).json()), 1_560);
    assert_eq!((classic(&[]), stable_call(&[])), (210, 210));
    let path = format!("/cgi-bin/ticket/getticket?access_token={token}&type=jsapi");
    wait_for("the ticket", || {
        let answer = http.get(&path, &[]).json();
        answer["ticket"].is_string().then(|| assert!(of(answer) - 1_500 > 0))
    });
    let http = HttpNode::start(&wechat, "wechat_expires_in_min_s = 0", "", "");
    http.token(&[API_HEADER]);
    assert!(of(http.get(&token_path(APPID, SECRET), &[]).json()) <= 20, "as it is, if that is wanted");
}

#[test]
fn the_bearer_of_a_token_gets_its_tickets_also_with_the_one_before() {
    let wechat = Wechat::start();
    let http = HttpNode::start(&wechat, "", "", "tickets = [\"jsapi\"]");
    let (first, _) = http.token(&[API_HEADER]);
    assert!(http.get(&token_path(APPID, SECRET), &[]).json()["access_token"].is_string());
    let ticket = |token: &str, kind: &str| {
        http.get(&format!("/cgi-bin/ticket/getticket?access_token={token}&type={kind}"), &[]).json()
    };
    wait_for("the ticket", || ticket(&first, "jsapi")["ticket"].is_string().then_some(()));
    let answer = ticket(&first, "jsapi");
    assert_eq!((&answer["errcode"], &answer["errmsg"]), (&json!(0), &json!("ok")));
    let kept = http.node.connect().get(&format!("jsapi_ticket:{APPID}")).unwrap();
    assert_eq!(answer["ticket"].as_str().unwrap().as_bytes(), kept);
    assert_eq!(errcode(&ticket(&first, "wx_card")), 48001, "it is not kept");
    wechat.kill_tokens(APPID);
    let renewed = http.post(&super::credential("access_token", "/refresh"), &[API_HEADER], "").json();
    assert_eq!(renewed["verdict"], "renewed", "{renewed}");
    let (second, _) = http.token(&[API_HEADER]);
    assert!(second != first && ticket(&second, "jsapi")["ticket"].is_string());
    assert!(ticket(&first, "jsapi")["ticket"].is_string(), "a client that holds the one before is not turned away");
    assert_eq!(errcode(&ticket(&second[1..], "jsapi")), 40001);
}

#[test]
fn a_key_stands_in_for_the_secret_where_it_may_read() {
    let wechat = Wechat::start();
    let http = HttpNode::keyed(&wechat, "", "");
    http.token(&[&super::bearer("ops")]);
    let get = |secret: &str| http.get(&token_path(APPID, secret), &[]).json();
    for name in ["ops", "web"] {
        assert!(get(key(name))["access_token"].is_string(), "{name}");
    }
    assert!(get(SECRET)["access_token"].is_string(), "the app's own still counts");
    for name in ["monitor", "fixer", "other"] {
        assert_eq!(errcode(&get(key(name))), 40125, "{name}");
    }
}

#[test]
fn wecom_answers_in_its_own_way() {
    let corp = "ww0123456789abcdef";
    let of = |secret: &str| AppOptions {
        appid: corp.into(),
        secret: secret.into(),
        platform: SandboxPlatform::Wecom,
        ..AppOptions::default()
    };
    let wechat = Wechat::with(Options { apps: vec![of("corp-secret-one")], ..Options::default() });
    let table = format!(
        "[[app]]\nappid = \"{corp}\"\nkind = \"wecom\"\nagent = \"7\"\nsecret = \"corp-secret-one\"\ntickets = [\"jsapi\", \"agent\"]\n\
         base_url = \"{}\"\n",
        wechat.base_url()
    );
    let folder = tempfile::tempdir().unwrap();
    write(folder.path(), "keys", &format!("{KEYS}corp corp-0123456789abcdef0123 read:{corp}:7\n"));
    let http = HttpNode::start_in(folder, &wechat, "keys_file = \"{folder}/keys\"", "", &table);
    let get = |secret: &str| http.get(&format!("/cgi-bin/gettoken?corpid={corp}&corpsecret={secret}"), &[]).json();
    let answer = wait_for("its token", || Some(get("corp-secret-one")).filter(|answer| answer["errcode"] == 0));
    assert_eq!(answer["errmsg"], "ok");
    let token = answer["access_token"].as_str().unwrap();
    assert_eq!(get("corp-0123456789abcdef0123")["access_token"], token);
    assert_eq!(errcode(&get("wrong")), 40125);
    for path in ["/cgi-bin/get_jsapi_ticket?", "/cgi-bin/ticket/get?type=agent_config&"] {
        wait_for(path, || {
            let answer = http.get(&format!("{path}access_token={token}"), &[]).json();
            answer["ticket"].is_string().then_some(())
        });
    }
    let crossed = http.get(&format!("/cgi-bin/ticket/getticket?type=jsapi&access_token={token}"), &[]).json();
    assert_eq!(errcode(&crossed), 40001);
}

#[test]
fn without_a_live_token_wechats_own_error_is_passed_on() {
    let wechat = Wechat::start();
    wechat.set_fault(APPID, InjectedFault::new(FaultKind::Errcode { errcode: 40164, errmsg: String::new() }));
    let http = HttpNode::start(&wechat, "", "", "");
    wait_for("the failure", || (http.shown("access_token", &[])["state"] == "blocked").then_some(()));
    let answer = http.get(&token_path(APPID, SECRET), &[]).json();
    assert_eq!(errcode(&answer), 40164);
    assert!(!answer.to_string().contains(SECRET));
    assert!(wechat.calls(APPID).counts.contains_key(&Endpoint::StableToken));
}
