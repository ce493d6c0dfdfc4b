//! Aliases with an encoding, and presets: what well-known clients find under their own keys.

use std::path::PathBuf;
use std::process::Command;

use tokencached::sandbox::{AppOptions, Endpoint, Options, SandboxPlatform};

use crate::support::{APPID, Client, Node, SECRET, Wechat, program, run_checked, tokencached, wait_for, write};

const ALL_PRESETS: &str = "tickets = [\"jsapi\", \"wx_card\"]\npresets = [\"tutorial\", \"dodgepudding\", \"zoujingli\", \"fastwego\", \"easywechat3\", \
     \"easywechat6-laravel\", \"wechatpy\", \"silenceper\", \"workerman\"]";

fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}

/// Where a script finds the server and the simulated WeChat.
fn at<'c>(command: &'c mut Command, node: &Node, wechat: &Wechat) -> &'c mut Command {
    command.env("MC_HOST", "127.0.0.1").env("MC_PORT", node.address.port().to_string());
    command.env("WECHAT", wechat.base_url()).env("APPID", APPID).env("SECRET", SECRET)
}

#[track_caller]
fn php_ok(script: &str, arguments: &[&str], app: &str) {
    let wechat = Wechat::start();
    let node = Node::start(&wechat.config("", app), &["-vvv"]);
    if app.contains("tickets") {
        for ticket in ["jsapi_ticket", "wx_card_ticket"] {
            wait_for(ticket, || node.connect().get(&format!("{ticket}:{APPID}")));
        }
    }
    let mut command = program("php");
    command.arg(root().join("tests/php").join(script)).args(arguments);
    assert_eq!(run_checked(at(&mut command, &node, &wechat)), "ok\n", "{}", node.log());
    assert_eq!(wechat.calls(APPID).of(Endpoint::Token), 0);
    assert_eq!(wechat.calls(APPID).of(Endpoint::StableToken), 1, "nothing made the server fetch");
    assert!(!node.log().contains(SECRET), "{}", node.log());
}

#[test]
#[ignore = "needs php"]
fn the_presets_with_memcache() {
    php_ok("alias_presets.php", &["memcache", ""], ALL_PRESETS);
}

#[test]
#[ignore = "needs php"]
fn the_presets_with_memcached() {
    php_ok("alias_presets.php", &["memcached", ""], ALL_PRESETS);
}

#[test]
#[ignore = "needs php"]
fn the_presets_under_a_prefix() {
    let app = format!("{ALL_PRESETS}\nprefix = \"laravel_cache:\"");
    php_ok("alias_presets.php", &["memcached", "laravel_cache:"], &app);
}

/// The keys that `alias_encodings.php` reads; the two extensions mark types by other flags.
fn encodings(serialized: u32, long: u32) -> String {
    format!(
        r#"aliases = [
            {{ key = "php_string", encoding = "php_string", flags = {serialized} }},
            {{ key = "php_array", encoding = "php_array", flags = {serialized} }},
            {{ key = "wechatat_{{appid}}", encoding = "php_array", flags = {serialized},
               fields = {{ token = "value", expiration = "expires_at" }} }},
            {{ key = "ci", encoding = "php_array", flags = {serialized},
               fields = ["value", "fetched_at", "expires_in"] }},
            {{ key = "json_object", encoding = "json_object" }},
            {{ key = "long", shows = "expires_at", flags = {long} }},
            {{ key = "digits", shows = "expires_at", encoding = "json_number" }},
        ]"#
    )
}

#[test]
#[ignore = "needs php"]
fn the_encodings_with_memcache() {
    php_ok("alias_encodings.php", &["memcache"], &encodings(1, 768));
}

#[test]
#[ignore = "needs php"]
fn the_encodings_with_memcached() {
    php_ok("alias_encodings.php", &["memcached"], &encodings(4, 1));
}

#[test]
fn serialized_values_have_pecl_memcacheds_mark_unless_told_otherwise() {
    let wechat = Wechat::start();
    let app = r#"aliases = [{ key = "a", encoding = "php_string" }, { key = "b", encoding = "json_string" },
        { key = "c", encoding = "json_string", flags = 6 }]"#;
    let node = Node::start(&wechat.config("", app), &[]);
    let mut client = node.connect();
    let token = String::from_utf8(client.get(&format!("access_token:{APPID}")).unwrap()).unwrap();
    let cas = client.stat("tokens", &format!("{APPID}:generation")).unwrap();
    client.expect(
        "gets a b c\r\n",
        format!(
            "VALUE a 4 145 {cas}\r\ns:136:\"{token}\";\r\nVALUE b 0 138 {cas}\r\n\"{token}\"\r\n\
             VALUE c 6 138 {cas}\r\n\"{token}\"\r\nEND\r\n"
        ),
    );
}

/// The real wechatpy over several renewals.
#[track_caller]
fn wechatpy(version: &str, library: &str) {
    let wechat = Wechat::short_lived(4);
    let app = "presets = [\"wechatpy\"]\ntickets = [\"jsapi\", \"wx_card\"]";
    let node = Node::start(&wechat.config("", app), &[]);
    for ticket in ["jsapi_ticket", "wx_card_ticket"] {
        wait_for(ticket, || node.connect().get(&format!("{ticket}:{APPID}")));
    }
    let packages = root().join("target/python").join(format!("wechatpy-{version}"));
    assert!(packages.exists(), "{} is missing; tests/run installs it", packages.display());
    let mut command = program("python3");
    command.arg(root().join("tests/python/wechatpy_reads.py")).args([library, "4"]);
    command.env("PYTHONPATH", packages).env("PYTHONDONTWRITEBYTECODE", "1");
    let said = run_checked(at(&mut command, &node, &wechat));
    let seen: serde_json::Value = serde_json::from_str(said.lines().last().unwrap_or_default()).expect(&said);
    assert_eq!(seen["fetched"], 0, "{said}\n{}", node.log());
    let calls = wechat.calls(APPID);
    assert_eq!(calls.of(Endpoint::Token), 0, "{calls:?}");
    assert_eq!(Some(calls.ended(Endpoint::GetApiDomainIp, "ok")), seen["used"].as_u64(), "{calls:?}");
}

#[test]
#[ignore = "waits for real time"]
fn wechatpy_1_over_pymemcache_only_reads() {
    wechatpy("1", "pymemcache");
}

#[test]
#[ignore = "waits for real time"]
fn wechatpy_1_over_python_memcached_only_reads() {
    wechatpy("1", "memcache");
}

#[test]
#[ignore = "waits for real time"]
fn wechatpy_2_over_pymemcache_only_reads() {
    wechatpy("2", "pymemcache");
}

#[test]
#[ignore = "waits for real time"]
fn wechatpy_2_over_python_memcached_only_reads() {
    wechatpy("2", "memcache");
}

/// The node's only app, known to be fetched.
fn fetched(node: &Node) -> Client {
    let mut client = node.connect();
    client.get(&format!("access_token:{APPID}")).expect("a token");
    client
}

#[test]
fn keys_without_the_value_are_managed_but_their_delete_reports_nothing() {
    let wechat = Wechat::start();
    let app = r#"aliases = [{ key = "at", shows = "expires_at" }, { key = "one", constant = 1 },
        { key = "empty", shows = "nothing" }, { key = "json", encoding = "json_string" }]"#;
    let node = Node::start(&wechat.config("", app), &[]);
    let mut client = fetched(&node);
    for key in ["at", "one", "empty"] {
        client.expect(format!("set {key} 0 0 1\r\nx\r\n"), "NOT_STORED\r\n");
        client.expect(format!("cas {key} 0 0 1 1\r\nx\r\n"), "EXISTS\r\n");
        client.expect(format!("incr {key} 1\r\n"), "CLIENT_ERROR cannot increment or decrement non-numeric value\r\n");
        client.expect(format!("touch {key} 1\r\ndelete {key}\r\n"), "TOUCHED\r\nDELETED\r\n");
        client.expect(format!("delete {key} noreply\r\nmn\r\n"), "MN\r\n");
    }
    assert_eq!(client.stat("tokens", &format!("{APPID}:reports")).unwrap(), "0");
    client.expect("get one empty\r\nget empty\r\n", "VALUE one 0 1\r\n1\r\nEND\r\nEND\r\n");
    assert_eq!(client.stat("", "managed_misses").unwrap(), "0", "a key kept empty lacks no token");
    client.expect("delete json\r\n", "DELETED\r\n");
    assert_eq!(client.stat("tokens", &format!("{APPID}:reports")).unwrap(), "1");
}

#[test]
fn without_a_token_only_constants_answer() {
    let wechat = Wechat::start();
    wechat.set_secret(APPID, "another");
    let app = r#"presets = ["easywechat3", "workerman"]"#;
    let node = Node::start(&wechat.config("", app), &[]);
    let mut client = node.connect();
    wait_for("the refusal", || node.log().contains("40125").then_some(()));
    client.expect(
        "get DoctrineNamespaceCacheKey[] WCH_expires_in WCH_access_token\r\n",
        "VALUE DoctrineNamespaceCacheKey[] 0 1\r\n1\r\nEND\r\n",
    );
}

#[test]
fn a_first_get_of_a_json_alias_is_held_too() {
    let wechat = Wechat::start();
    wechat
        .set_fault(APPID, tokencached::sandbox::InjectedFault::new(tokencached::sandbox::FaultKind::Delay { ms: 250 }));
    let app = r#"aliases = [{ key = "json", encoding = "json_string" }, { key = "at", shows = "expires_at" }]"#;
    let node = Node::start(&wechat.config("first_get_wait_ms = 900", app), &[]);
    assert!(node.connect().get("at").is_some(), "the first get of a key with a time was not held");
    assert!(node.connect().get("json").is_some());
}

#[test]
#[ignore = "waits for real time"]
fn all_names_of_a_token_change_together() {
    let wechat = Wechat::short_lived(2);
    let app = r#"aliases = [{ key = "json", encoding = "json_string" }, { key = "php", encoding = "php_string" }]"#;
    let node = Node::start(&wechat.config("", app), &[]);
    let mut client = fetched(&node);
    let mut generations = std::collections::BTreeSet::new();
    while generations.len() < 3 {
        let answer = String::from_utf8(client.ask("gets json php\r\n")).unwrap();
        let lines: Vec<&str> = answer.lines().collect();
        let [head, json, php_head, php, "END"] = lines[..] else { continue };
        let cas = |head: &str| head.rsplit(' ').next().unwrap().to_owned();
        // Two keys of one request may straddle a renewal; one key may not.
        if cas(head) == cas(php_head) {
            assert_eq!(php, format!("s:136:{json};"));
        }
        generations.insert(cas(head));
    }
}

#[test]
fn a_secret_in_a_key_is_never_shown() {
    let wechat = Wechat::start();
    let app = format!("presets = [\"easywechat6-laravel\"]\naliases = [\"mine.{SECRET}\", \"also.{{secret}}\"]");
    let config = wechat.config("", &app);
    let node = Node::start(&config, &["-vvv"]);
    let mut client = fetched(&node);
    for key in [
        format!("official_account.access_token.{APPID}.{SECRET}.1"),
        format!("mine.{SECRET}"),
        format!("also.{SECRET}"),
    ] {
        assert!(client.get(&key).is_some(), "{key}");
        client.expect(format!("set {key} 0 0 1\r\nx\r\ndelete {key}\r\n"), "NOT_STORED\r\nDELETED\r\n");
    }
    let mut shown = node.log();
    assert!(shown.contains(&format!("key=official_account.access_token.{APPID}.{{secret}}.1")), "{shown}");
    for argument in ["", "settings", "items", "tokens", "cachedump 1 0", "detail dump"] {
        shown += &String::from_utf8(client.ask(format!("stats {argument}\r\n"))).unwrap();
    }
    let folder = tempfile::tempdir().unwrap();
    let file = write(folder.path(), "tokencached.toml", &config.replace("{folder}", "/nonexistent"));
    let check = tokencached().args(["check", "--print", "--config"]).arg(&file).output().unwrap();
    let printed = String::from_utf8(check.stdout).unwrap();
    assert!(printed.contains("\"mine.{secret}\"") && printed.contains(".{secret}.0\""), "{printed}");
    shown += &printed;
    shown += &String::from_utf8(check.stderr).unwrap();
    assert!(!shown.contains(SECRET), "{shown}");
}

#[test]
fn what_check_prints_says_the_same_again() {
    let wechat = Wechat::start();
    let text = wechat.config("", &format!("{ALL_PRESETS}\n{}", encodings(4, 1)));
    let folder = tempfile::tempdir().unwrap();
    let aliases = |name: &str, text: &str| {
        let file = write(folder.path(), name, &text.replace("{folder}", &folder.path().display().to_string()));
        let output = tokencached().args(["check", "--print", "--config"]).arg(&file).output().unwrap();
        let printed = String::from_utf8(output.stdout).unwrap();
        let line = printed.lines().find(|line| line.starts_with("aliases = ")).expect(&printed).to_owned();
        (printed, line)
    };
    let same_again = |text: &str| {
        let (printed, first) = aliases("first.toml", text);
        let second = aliases("second.toml", &printed.replace("<hidden>", SECRET));
        assert_eq!(second.1, first);
        first
    };
    let line = same_again(&text);
    assert!(line.contains("at_least = 7200") && line.contains("constant = 1"), "{line}");
    for name in preset_names() {
        let app = format!("tickets = [\"jsapi\", \"wx_card\"]\npresets = [\"{name}\"]\nprefix = \"p_\"");
        let line = same_again(&wechat.config("", &app));
        assert!(line.contains("\"p_"), "{line}");
    }
    let constants = r#"aliases = [{ key = "a", constant = "s:1:\"a\";" }, { key = "b", constant = 0.5, encoding = "php" },
        { key = "c", encoding = "json_object", fields = { a = [true, "null", 1.0, { constant = "x" }, "expires_at_ms"] } },
        { key = "d", shows = "expires_in_ms", encoding = "php" }]"#;
    same_again(&wechat.config("", constants));
}

#[test]
fn wecom_has_keys_of_its_own() {
    let corp = |secret: &str| AppOptions {
        appid: "ww2222222222222222".into(),
        secret: secret.into(),
        platform: SandboxPlatform::Wecom,
        ..AppOptions::default()
    };
    let wechat = Wechat::with(Options { apps: vec![corp(SECRET)], ..Options::default() });
    let app = format!(
        "[[app]]\nappid = \"ww2222222222222222\"\nplatform = \"wecom\"\nsecret = \"{SECRET}\"\ntickets = [\"jsapi\", \"agent\"]\n\
         presets = [\"wechatpy\", \"dodgepudding\", \"silenceper\", \"easywechat6-laravel\", \"workerman\"]"
    );
    let node = Node::start(&wechat.config("", &app), &[]);
    let mut client = fetched(&node);
    let mut value = |key: &str| String::from_utf8(wait_for(key, || client.get(key))).unwrap();
    let token = value("access_token:ww2222222222222222");
    let ticket = value("agent_ticket:ww2222222222222222");
    assert_eq!(value("qywechat_access_tokenww2222222222222222"), token);
    assert_eq!(value(&format!("work.access_token.ww2222222222222222.{SECRET}")), token);
    assert_eq!(value("gowechat_work__access_token_ww2222222222222222"), format!("\"{token}\""));
    let key = format!("wechatpy:ww2222222222222222_{}_access_token", &SECRET[..10]);
    assert_eq!(value(&key), format!("\"{token}\""));
    assert_eq!(value("wechatpy:ww2222222222222222_agent_jsapi_ticket"), format!("\"{ticket}\""));
    assert!(value("wechatpy:ww2222222222222222_jsapi_ticket_expires_at").parse::<u64>().is_ok());
    client.expect(format!("set {key} 0 0 1\r\nx\r\nget WCH_access_token\r\n"), "NOT_STORED\r\nEND\r\n");
    node.await_log("_{secret10}_access_token");
    assert!(!node.log().contains(&SECRET[..10]), "{}", node.log());
}

#[test]
fn two_apps_share_doctrines_key_and_nothing_else() {
    let other = AppOptions { appid: "wx2222222222222222".into(), secret: "s2".into(), ..AppOptions::default() };
    let wechat = Wechat::with(Options { apps: vec![other], ..Options::default() });
    let second = "presets = [\"easywechat3\"]\n[[app]]\nappid = \"wx2222222222222222\"\nsecret = \"s2\"\n\
                  presets = [\"easywechat3\"]";
    let node = Node::start(&wechat.config("", second), &[]);
    let mut client = fetched(&node);
    client.expect("get DoctrineNamespaceCacheKey[]\r\n", "VALUE DoctrineNamespaceCacheKey[] 0 1\r\n1\r\nEND\r\n");
    let key = |appid: &str| format!("[easywechat.common.access_token.{appid}][1]");
    let (one, two) = (client.get(&key(APPID)).unwrap(), client.get(&key("wx2222222222222222")).unwrap());
    assert_ne!(one, two);
    assert_eq!(client.get("access_token:wx2222222222222222").unwrap(), two);
}

#[test]
fn the_examples_of_the_documentation_are_accepted() {
    let folder = tempfile::tempdir().unwrap();
    let mut seen = 0;
    for name in ["docs/en/sdk.md", "docs/en/configuration.md"] {
        let text = std::fs::read_to_string(root().join(name)).unwrap();
        let blocks = text.split("```toml\n").skip(1).filter_map(|rest| rest.split("```").next());
        // That of the open platform has two apps, that of several nodes is about none: `open_platform.rs` and `nodes`
        // try them.
        for block in blocks.filter(|block| !block.contains("[[app.authorizer]]") && !block.starts_with("[state]")) {
            let app = block.lines().filter(|line| !line.starts_with("secret_file") && *line != "[[app]]");
            let app = app.filter(|line| !line.starts_with("appid")).collect::<Vec<_>>().join("\n");
            let config = format!("[[app]]\nappid = \"{APPID}\"\nsecret = \"{SECRET}\"\n{app}\n");
            let file = write(folder.path(), "tokencached.toml", &config);
            run_checked(tokencached().args(["check", "--print", "--config"]).arg(&file).env("HOME", folder.path()));
            seen += 1;
        }
    }
    assert!(seen > 5, "{seen}");
}

/// The names of all presets, as the fault about an unknown one lists them.
fn preset_names() -> Vec<String> {
    let folder = tempfile::tempdir().unwrap();
    let config = format!("[[app]]\nappid = \"{APPID}\"\nsecret = \"{SECRET}\"\npresets = [\"nobody's client\"]\n");
    let file = write(folder.path(), "tokencached.toml", &config);
    let output = tokencached().args(["check", "--print", "--config"]).arg(&file).output().unwrap();
    let said = String::from_utf8(output.stderr).unwrap() + &String::from_utf8(output.stdout).unwrap();
    let known = said.split("Known are ").nth(1).and_then(|rest| rest.split('.').next()).expect(&said);
    known.split(", ").map(|name| name.trim().to_owned()).collect()
}

#[test]
fn the_documentation_knows_every_preset() {
    let documentation = std::fs::read_to_string(root().join("docs/en/sdk.md")).unwrap();
    let names = preset_names();
    assert!(names.len() > 20 && names.contains(&"node-wechat-api".to_owned()), "{names:?}");
    for name in names {
        assert!(documentation.contains(&format!("`{name}`")), "{name}");
    }
}

/// A node whose app has these lines, with its first token, and that token.
fn with_token(wechat: &Wechat, app: &str) -> (Node, Client, String) {
    let node = Node::start(&wechat.config("", app), &["-vvv"]);
    let mut client = node.connect();
    let token = String::from_utf8(client.get(&format!("access_token:{APPID}")).expect("a token")).unwrap();
    (node, client, token)
}

#[test]
fn constants_have_an_encoding_and_stand_among_fields() {
    let wechat = Wechat::start();
    let app = r#"aliases = [{ key = "text", constant = "a \"text\"" }, { key = "json", constant = "a/b", encoding = "json_string" },
        { key = "php", constant = "abc", encoding = "php_string" }, { key = "on", constant = true, encoding = "php" },
        { key = "half", constant = 0.5, encoding = "php" }, { key = "off", constant = false, encoding = "json" },
        { key = "end", shows = "expires_at", encoding = "php", flags = 0 },
        { key = "list", encoding = "php_array", flags = 0, fields = ["value", "null", 7200, true, 0.5, { constant = "ok" }] },
        { key = "deep", encoding = "json_object", fields = { a = { b = "value" }, c = [1] } }]"#;
    let (node, mut client, token) = with_token(&wechat, app);
    client.expect(
        "get text json php on half off\r\n",
        "VALUE text 0 8\r\na \"text\"\r\nVALUE json 0 5\r\n\"a/b\"\r\nVALUE php 4 10\r\ns:3:\"abc\";\r\n\
         VALUE on 4 4\r\nb:1;\r\nVALUE half 4 6\r\nd:0.5;\r\nVALUE off 0 5\r\nfalse\r\nEND\r\n",
    );
    let mut get = |key: &str| String::from_utf8(client.get(key).unwrap()).unwrap();
    let list = format!("a:6:{{i:0;s:136:\"{token}\";i:1;N;i:2;i:7200;i:3;b:1;i:4;d:0.5;i:5;s:2:\"ok\";}}");
    assert_eq!(get("list"), list);
    assert_eq!(get("deep"), format!("{{\"a\":{{\"b\":\"{token}\"}},\"c\":[1]}}"));
    let end = get("end");
    assert!(end.starts_with("i:1") && end.ends_with(';'), "{end}");
    drop(node);
}

/// What memcache and memcached mark as serialized; strings that a framework has serialized have no mark.
#[test]
fn flags_are_those_of_the_app_s_client_library() {
    let wechat = Wechat::start();
    for (client, flags) in [("memcached", 4), ("memcache", 1)] {
        let app = format!(
            "client = \"{client}\"\npresets = [\"discuz\", \"thinkphp6\"]\n\
             aliases = [{{ key = \"array\", encoding = \"php_array\" }}, {{ key = \"own\", encoding = \"php\", flags = 7 }}]"
        );
        let (_node, mut client, _) = with_token(&wechat, &app);
        let mut flags_of = |key: &str| {
            let answer = String::from_utf8(client.ask(format!("get {key}\r\n"))).unwrap();
            answer.split(' ').nth(2).unwrap().to_owned()
        };
        let serialized = flags.to_string();
        let discuz = format!("wechatat_{APPID}");
        for (key, expected) in [
            ("array", serialized.as_str()),
            ("own", "7"),
            ("access_token", "0"),
            (discuz.as_str(), serialized.as_str()),
        ] {
            assert_eq!(flags_of(key), expected, "{key}");
        }
    }
}

#[test]
#[ignore = "needs php"]
fn a_digest_of_the_secret_is_a_key_and_never_shown() {
    let wechat = Wechat::start();
    let app = "presets = [\"easywechat5-laravel\"]\nprefix = \"laravel_cache\"\naliases = [\"a.{md5:{appid}}\", \"b.{md5:{secret}}\"]";
    let (node, mut client, token) = with_token(&wechat, app);
    let php = |code: &str| {
        let mut command = program("php");
        run_checked(command.args(["-r", code]).env("APPID", APPID).env("SECRET", SECRET)).trim().to_owned()
    };
    let credentials = php(
        "echo md5(json_encode(['grant_type' => 'client_credential', 'appid' => getenv('APPID'), 'secret' => getenv('SECRET')]));",
    );
    for colon in ["", ":"] {
        let key = format!("laravel_cache{colon}easywechat.kernel.access_token.{credentials}");
        let value = String::from_utf8(client.get(&key).expect(&key)).unwrap();
        assert!(value.contains(&format!("s:12:\"access_token\";s:136:\"{token}\";")), "{value}");
        client.expect(format!("set {key} 0 0 1\r\nx\r\n"), "NOT_STORED\r\n");
    }
    for of in ["APPID", "SECRET"] {
        let key = format!("{}.{}", if of == "APPID" { "a" } else { "b" }, php(&format!("echo md5(getenv('{of}'));")));
        assert_eq!(String::from_utf8(client.get(&key).expect(&key)).unwrap(), token);
    }
    node.await_log("refused a client's write");
    let mut shown = node.log();
    let folder = tempfile::tempdir().unwrap();
    let config = wechat.config("", app).replace("{folder}", "/nonexistent");
    let file = write(folder.path(), "tokencached.toml", &config);
    let check = tokencached().args(["check", "--print", "--config"]).arg(&file).output().unwrap();
    shown += &String::from_utf8(check.stdout).unwrap();
    let digest_of_secret = php("echo md5(getenv('SECRET'));");
    for hidden in [SECRET, &credentials, &digest_of_secret] {
        assert!(!shown.contains(hidden), "{hidden} in {shown}");
    }
    assert!(shown.contains("b.{md5:{secret}}"), "{shown}");
    assert!(shown.contains(&format!("a.{}", php("echo md5(getenv('APPID'));"))), "{shown}");
}

#[test]
#[ignore = "needs php"]
fn wecoms_tickets_have_the_agent_in_easywechats_keys() {
    let corp = |secret: &str| AppOptions {
        appid: "ww2222222222222222".into(),
        secret: secret.into(),
        platform: SandboxPlatform::Wecom,
        ..AppOptions::default()
    };
    let wechat = Wechat::with(Options { apps: vec![corp(SECRET)], ..Options::default() });
    let app = |agent: &str| {
        format!(
            "[[app]]\nappid = \"ww2222222222222222\"\nplatform = \"wecom\"\nsecret = \"{SECRET}\"\n{agent}\n\
             tickets = [\"jsapi\", \"agent\"]\n\
             presets = [\"easywechat4-laravel\", \"easywechat5-laravel\", \"easywechat6-laravel\"]"
        )
    };
    let node = Node::start(&wechat.config("", &app("agent = \"1000002\"")), &[]);
    let mut client = fetched(&node);
    let corpid = "ww2222222222222222";
    let mut value = |key: &str| String::from_utf8(wait_for(key, || client.get(key))).unwrap();
    let token = value(&format!("access_token:{corpid}:1000002"));
    let jsapi = value(&format!("jsapi_ticket:{corpid}:1000002"));
    let agent = value(&format!("agent_ticket:{corpid}:1000002"));
    assert_eq!(value(&format!("work.access_token.{corpid}.{SECRET}")), token);
    assert_eq!(value(&format!("work.jsapi_ticket.{corpid}")), jsapi);
    assert_eq!(value(&format!("work.jsapi_ticket.{corpid}.1000002")), agent);
    let field = |ticket: &str| format!("s:6:\"ticket\";s:{}:\"{ticket}\";", ticket.len());
    assert!(value(&format!("easywechat.work.jssdk.ticket.config.{corpid}")).contains(&field(&jsapi)));
    for key in ["agent_config.ww2222222222222222.1000002", "1000002.agent_config.ww2222222222222222"] {
        assert!(value(&format!("easywechat.work.jssdk.ticket.{key}")).contains(&field(&agent)), "{key}");
    }
    let mut command = program("php");
    command
        .args(["-r", "echo md5(json_encode(['corpid' => 'ww2222222222222222', 'corpsecret' => getenv('SECRET')]));"]);
    let key = format!("easywechat.kernel.access_token.{}", run_checked(command.env("SECRET", SECRET)).trim());
    assert!(value(&key).contains(&token), "{key}");
    // Without an agent there are no such keys, and that is no fault.
    let node = Node::start(&wechat.config("", &app("")), &[]);
    assert!(fetched(&node).get(&format!("work.access_token.{corpid}.{SECRET}")).is_some());
}

#[test]
fn a_wildcard_is_managed_in_the_text_and_the_meta_protocol() {
    let wechat = Wechat::start();
    let app = "presets = [\"symfony\"]\naliases = [\"shop:{any}:access_token\"]";
    let (node, mut client, token) = with_token(&wechat, app);
    let serialized = format!("s:136:\"{token}\";");
    let key = format!("Kx9-aB2c_d:AbCdE:official_account.access_token.{APPID}.{SECRET}.0");
    let cas = client.stat("tokens", &format!("{APPID}:generation")).unwrap();
    client.expect(
        format!("get ordinary {key} shop:7:access_token access_token:{APPID}\r\n"),
        format!(
            "VALUE {key} 0 {}\r\n{serialized}\r\nVALUE shop:7:access_token 0 136\r\n{token}\r\n\
             VALUE access_token:{APPID} 0 136\r\n{token}\r\nEND\r\n",
            serialized.len()
        ),
    );
    client.expect(
        format!("gets {key}\r\n"),
        format!("VALUE {key} 0 {} {cas}\r\n{serialized}\r\nEND\r\n", serialized.len()),
    );
    client.expect(format!("mg {key} f c v\r\n"), format!("VA {} f0 c{cas}\r\n{serialized}\r\n", serialized.len()));
    client.expect(format!("set {key} 0 0 1\r\nx\r\nadd {key} 0 0 1\r\nx\r\n"), "NOT_STORED\r\nNOT_STORED\r\n");
    client.expect(format!("ms {key} 1\r\nx\r\n"), "NS\r\n");
    client.expect(format!("incr {key} 1\r\n"), "CLIENT_ERROR cannot increment or decrement non-numeric value\r\n");
    client.expect(format!("touch {key} 1\r\ndelete {key}\r\n"), "TOUCHED\r\nDELETED\r\n");
    assert_eq!(client.stat("tokens", &format!("{APPID}:reports")).unwrap(), "1");
    assert_eq!(client.get("shop:8:access_token").as_deref(), Some(token.as_bytes()));
    // Nearly the same keys are ordinary ones, version keys among them.
    for ordinary in [":Kx9-aB2c_d:", "shop::access_token", "xshop:7:access_token", "shop:7:access_tokens"] {
        client.expect(
            format!("set {ordinary} 0 0 1\r\nx\r\nget {ordinary}\r\n"),
            format!("STORED\r\nVALUE {ordinary} 0 1\r\nx\r\nEND\r\n"),
        );
    }
    let keys = client.stat("tokens", &format!("{APPID}:wildcard_keys")).unwrap();
    assert!(keys.contains("shop:{any}:access_token"), "{keys}");
    assert!(keys.contains(&format!("{{any}}:official_account.access_token.{APPID}.{{secret}}.0")), "{keys}");
    assert!(!keys.contains(SECRET), "{keys}");
    node.await_log("refused a client's write");
    assert!(!node.log().contains(SECRET), "{}", node.log());
    let folder = tempfile::tempdir().unwrap();
    let config = wechat.config("", app).replace("{folder}", "/nonexistent");
    let file = write(folder.path(), "tokencached.toml", &config);
    let printed = run_checked(tokencached().args(["check", "--print", "--config"]).arg(&file));
    assert!(printed.contains("\"shop:{any}:access_token\""), "{printed}");
    assert!(!printed.contains(SECRET), "{printed}");
}

#[test]
fn version_keys_stay_ordinary_with_the_presets_that_have_wildcards() {
    let wechat = Wechat::start();
    let (_node, mut client, _) = with_token(&wechat, "presets = [\"symfony\", \"wordpress\"]");
    for key in [
        ":",
        ":Kx9-aB2c_d:",
        "salt_:wp_:WP_Object_Cache:flush_number_v4",
        "salt_::WP_Object_Cache_global:flush_number_v4",
    ] {
        client.expect(
            format!("set {key} 0 0 1\r\n1\r\nincr {key} 1\r\nget {key}\r\ndelete {key}\r\n"),
            format!("STORED\r\n2\r\nVALUE {key} 0 1\r\n2\r\nEND\r\nDELETED\r\n"),
        );
    }
}

/// A platform on one framework: its keys name the apps, and `access_token` is nobody's.
#[test]
fn several_apps_with_a_frameworks_preset_share_no_key() {
    let other = "wx2222222222222222";
    let options = AppOptions { appid: other.into(), secret: "s2".into(), ..AppOptions::default() };
    let wechat = Wechat::with(Options { apps: vec![options], ..Options::default() });
    let preset = "presets = [\"thinkphp6\"]";
    let second = format!("{preset}\n[[app]]\nappid = \"{other}\"\nsecret = \"s2\"\n{preset}");
    let config = wechat.config("", &second);
    let node = Node::start(&config, &[]);
    let mut client = fetched(&node);
    for appid in [APPID, other] {
        let token = String::from_utf8(client.get(&format!("access_token:{appid}")).unwrap()).unwrap();
        let found = String::from_utf8(client.get(&format!("access_token_{appid}")).unwrap()).unwrap();
        assert_eq!(found, format!("s:136:\"{token}\";"));
    }
    client.expect(
        "set access_token 0 0 1\r\nx\r\nget access_token\r\n",
        "STORED\r\nVALUE access_token 0 1\r\nx\r\nEND\r\n",
    );
    let folder = tempfile::tempdir().unwrap();
    let file = write(folder.path(), "tokencached.toml", &config.replace("{folder}", "/nonexistent"));
    let check = tokencached().args(["check", "--print", "--config"]).arg(&file).output().unwrap();
    let said = String::from_utf8(check.stdout).unwrap() + &String::from_utf8(check.stderr).unwrap();
    assert!(said.contains("several apps have this preset") && said.contains("first \"access_token\""), "{said}");
}
