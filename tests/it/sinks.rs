//! Redis sinks with a real redis-server: its readers find the current token, whatever happens to the Redis, and nothing
//! else is disturbed.

use std::path::Path;

use tokencached::sandbox::{FaultKind, InjectedFault};

use crate::support::redis::{Authority, Redis, free_port};
use crate::support::{APPID, Client, Node, SECRET, Wechat, program, run, run_checked, tokencached, wait_for, write};

/// Another program's token, as long as one of WeChat's.
const FOREIGN: &str = "70_a-token-that-another-program-has-fetched-by-itself-0123456789";

/// A sink of that Redis with these further lines; it checks its keys every second.
fn sink(redis: &Redis, lines: &str) -> String {
    format!("[[sink]]\nurl = \"{}\"\ncheck_every_s = 1\n{lines}\n", redis.url())
}

fn start(wechat: &Wechat, app: &str, sink: &str) -> Node {
    Node::start(&wechat.config("", &format!("{app}\n{sink}")), &[])
}

fn token_key() -> String {
    format!("access_token:{APPID}")
}

fn token(client: &mut Client) -> Option<String> {
    client.get(&token_key()).map(|token| String::from_utf8(token).unwrap())
}

/// Waits until the Redis has under that key what a memcached client reads.
#[track_caller]
fn wait_until_written(redis: &Redis, key: &str, node: &Node) -> String {
    let mut client = node.connect();
    wait_for("the token in Redis", || {
        let token = token(&mut client)?;
        (redis.get(key).as_ref() == Some(&token)).then_some(token)
    })
}

fn figure(node: &Node, name: &str) -> String {
    node.connect().stat("", &format!("sink_0_{name}")).unwrap()
}

#[track_caller]
fn wait_for_error(node: &Node, class: &str) {
    wait_for(class, || (figure(node, "last_error") == class).then_some(()));
    let mut client = node.connect();
    assert!(token(&mut client).is_some(), "a sink's trouble never touches serving");
}

/// No token and no secret is in the log.
#[track_caller]
fn says_nothing_secret(node: &Node, words: &[&str]) {
    let log = node.log();
    let token = token(&mut node.connect()).unwrap_or_else(|| FOREIGN.to_owned());
    for secret in words.iter().copied().chain([token.as_str(), FOREIGN, SECRET]) {
        assert!(!log.contains(secret), "{log}");
    }
}

#[test]
#[ignore = "waits for real time"]
fn a_token_is_written_at_the_start_and_at_each_renewal_with_what_is_left_of_its_life() {
    let (wechat, redis) = (Wechat::short_lived(4), Redis::start(&[]));
    let node = start(&wechat, "", &sink(&redis, ""));
    let first = wait_until_written(&redis, &token_key(), &node);
    // The client reads before and after; what Redis says is left lies in between.
    let mut client = node.connect();
    let left = |client: &mut Client| -> (String, i64) {
        let answer = String::from_utf8(client.ask(format!("mg {} t c\r\n", token_key()))).unwrap();
        let mut words = answer.split_whitespace().skip(1);
        let seconds = words.next().and_then(|word| word.strip_prefix('t')?.parse().ok());
        (words.next().unwrap_or_default().to_owned(), seconds.unwrap_or(-1))
    };
    wait_for("a comparison of one token", || {
        let (generation, before_s) = left(&mut client);
        let here = token(&mut client)?;
        let there = redis.get(&token_key());
        let ms: i64 = redis.ask(&["PTTL", &token_key()]);
        let (same, after_s) = left(&mut client);
        if generation != same || there.as_ref() != Some(&here) || ms < 0 {
            return None;
        }
        assert!(ms < (before_s + 1) * 1000 && ms + 1000 >= after_s * 1000, "{before_s} {ms} {after_s}");
        Some(())
    });
    wait_for("the next token in Redis", || redis.get(&token_key()).filter(|token| *token != first));
    wait_until_written(&redis, &token_key(), &node);
    assert_eq!(figure(&node, "last_error"), "none");
    assert_eq!((figure(&node, "connected").as_str(), figure(&node, "rival_writes").as_str()), ("1", "0"));
    says_nothing_secret(&node, &[]);
}

#[test]
#[ignore = "needs redis-server"]
fn each_key_has_the_form_that_its_reader_wants() {
    let (wechat, redis) = (Wechat::start(), Redis::start(&[]));
    let keys = r#"keys = [
        "{type}:{appid}",
        { key = "json:{type}", encoding = "json_string" },
        { key = "ticket", of = "jsapi_ticket" },
        { key = "php", encoding = "php_array", fields = { token = "value" } },
        { key = "one", constant = 1 },
        { key = "EW.{secret}" },
    ]"#;
    let node = start(&wechat, "tickets = [\"jsapi\"]", &sink(&redis, &format!("db = 3\n{keys}")));
    let token = wait_for("a token", || token(&mut node.connect()));
    let ticket = wait_for("a ticket", || node.connect().get(&format!("jsapi_ticket:{APPID}")));
    let ticket = String::from_utf8(ticket).unwrap();
    let in_3 = |key: &str| {
        let script = "redis.call('SELECT', 3) return redis.call('GET', KEYS[1])";
        redis.ask::<Option<String>>(&["EVAL", script, "1", key])
    };
    for (key, value) in [
        (token_key(), token.clone()),
        (format!("jsapi_ticket:{APPID}"), ticket.clone()),
        ("json:access_token".to_owned(), format!("\"{token}\"")),
        ("json:jsapi_ticket".to_owned(), format!("\"{ticket}\"")),
        ("ticket".to_owned(), ticket),
        ("php".to_owned(), format!("a:1:{{s:5:\"token\";s:{}:\"{token}\";}}", token.len())),
        ("one".to_owned(), "1".to_owned()),
        (format!("EW.{SECRET}"), token.clone()),
    ] {
        wait_for(&key, || (in_3(&key).as_ref() == Some(&value)).then_some(()));
    }
    assert_eq!(redis.get(&token_key()), None, "another database is left alone");
    says_nothing_secret(&node, &[]);
}

#[test]
#[ignore = "waits for real time"]
fn without_a_time_to_live_a_key_goes_when_its_token_does() {
    let (wechat, redis) = (Wechat::short_lived(4), Redis::start(&[]));
    let node = start(&wechat, "", &sink(&redis, "ttl = \"none\""));
    wait_until_written(&redis, &token_key(), &node);
    assert_eq!(redis.ask::<i64>(&["PTTL", &token_key()]), -1);
    wechat.set_fault(APPID, InjectedFault::new(FaultKind::Reset));
    wait_for("the key to go", || redis.get(&token_key()).is_none().then_some(()));
    assert_eq!(token(&mut node.connect()), None);
    wechat.clear_fault(APPID);
    wait_until_written(&redis, &token_key(), &node);
}

/// WeChat refuses a classic token, and gives no other.
fn kill_the_token(wechat: &Wechat, node: &Node) {
    wechat.set_fault(APPID, InjectedFault::new(FaultKind::Reset));
    wechat.kill_tokens(APPID);
    node.connect().expect(format!("delete {}\r\n", token_key()), "DELETED\r\n");
}

#[test]
#[ignore = "needs redis-server"]
fn a_withdrawn_token_goes_and_another_programs_value_stays() {
    let (wechat, redis) = (Wechat::start(), Redis::start(&[]));
    let rare = "check_every_s = 3600\nkeys = [\"mine\", \"taken\", { key = \"at\", shows = \"expires_at\" }]";
    let sink = sink(&redis, "").replace("check_every_s = 1", rare);
    let node = start(&wechat, "endpoint = \"token\"", &sink);
    wait_until_written(&redis, "taken", &node);
    redis.ask::<()>(&["SET", "taken", FOREIGN]);
    kill_the_token(&wechat, &node);
    wait_for("our keys to go", || (redis.ask::<u64>(&["EXISTS", "mine", "at"]) == 0).then_some(()));
    wait_for("the count of it", || (figure(&node, "deletes") == "2").then_some(()));
    assert_eq!(redis.get("taken").as_deref(), Some(FOREIGN));
    says_nothing_secret(&node, &[]);
}

#[test]
#[ignore = "needs redis-server"]
fn a_redis_that_is_down_at_the_start_and_later_is_written_when_it_comes() {
    let wechat = Wechat::start();
    let mut redis = Redis::stopped(tempfile::tempdir().unwrap(), &[]);
    let node = start(&wechat, "", &sink(&redis, ""));
    wait_for_error(&node, "unreachable");
    assert_eq!(figure(&node, "connected"), "0");
    redis.start_again();
    wait_until_written(&redis, &token_key(), &node);
    wait_for("good news", || (figure(&node, "last_error") == "none").then_some(()));
    redis.kill();
    wait_for("the end to be noticed", || (figure(&node, "connected") == "0").then_some(()));
    assert!(token(&mut node.connect()).is_some());
    redis.start_again();
    wait_until_written(&redis, &token_key(), &node);
    node.await_log("sink recovered");
    says_nothing_secret(&node, &[]);
}

#[test]
#[ignore = "needs redis-server"]
fn a_redis_that_hangs_holds_up_no_reader() {
    let (wechat, redis) = (Wechat::start(), Redis::start(&[]));
    let node = start(&wechat, "", &sink(&redis, "timeout_ms = 200"));
    wait_until_written(&redis, &token_key(), &node);
    redis.signal("STOP");
    wait_for_error(&node, "timeout");
    redis.signal("CONT");
    wait_for("it to be written again", || (figure(&node, "last_error") == "none").then_some(()));
}

#[test]
#[ignore = "waits for real time"]
fn a_write_that_hangs_does_not_hold_up_the_end_of_the_server() {
    let (wechat, redis) = (Wechat::short_lived(4), Redis::start(&[]));
    let node = start(&wechat, "", &sink(&redis, "timeout_ms = 60000"));
    let first = wait_until_written(&redis, &token_key(), &node);
    redis.signal("STOP");
    let mut client = node.connect();
    wait_for("the next token", || token(&mut client).filter(|token| *token != first));
    node.stop();
}

/// After a broken connection everything may have changed.
#[test]
#[ignore = "needs redis-server"]
fn after_a_lost_connection_everything_is_written_again() {
    let (wechat, redis) = (Wechat::start(), Redis::start(&[]));
    let node = start(&wechat, "", &sink(&redis, "keys = [\"token\", { key = \"one\", constant = 1 }]"));
    wait_until_written(&redis, "token", &node);
    redis.ask::<()>(&["SET", "one", "2"]);
    redis.ask::<()>(&["CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes"]);
    wait_for("the other key", || (redis.get("one").as_deref() == Some("1")).then_some(()));
}

#[test]
#[ignore = "needs redis-server"]
fn a_flush_is_repaired() {
    let (wechat, redis) = (Wechat::start(), Redis::start(&[]));
    let node = start(&wechat, "tickets = [\"jsapi\"]", &sink(&redis, ""));
    let ticket = format!("jsapi_ticket:{APPID}");
    let both = || (redis.ask::<u64>(&["EXISTS", &token_key(), &ticket]) == 2).then_some(());
    wait_for("both to be written", both);
    redis.ask::<()>(&["FLUSHALL"]);
    wait_for("both to be written again", both);
    wait_until_written(&redis, &token_key(), &node);
}

/// A process that finds its own token in Redis takes it for its own.
#[test]
#[ignore = "needs redis-server"]
fn a_restart_neither_fetches_nor_takes_its_own_token_for_anothers() {
    let (wechat, redis) = (Wechat::start(), Redis::start(&[]));
    let node = start(&wechat, "", &sink(&redis, ""));
    let token = wait_until_written(&redis, &token_key(), &node);
    let config = wechat.config("", &sink(&redis, ""));
    let folder = node.stop();
    assert_eq!(redis.get(&token_key()), Some(token.clone()), "it stays");
    let node = Node::start_in(folder, &config, &[]);
    wait_for("it to be written", || (figure(&node, "writes") == "1").then_some(()));
    assert_eq!(redis.get(&token_key()), Some(token));
    assert!(!node.log().contains("replaced"), "{}", node.log());
}

#[test]
#[ignore = "needs redis-server"]
fn a_password_is_read_at_each_connection_and_never_said() {
    const PASSWORD: &str = "hunter22-of-redis";
    let redis = Redis::start(&["--requirepass", PASSWORD]).with_password(PASSWORD);
    let wechat = Wechat::start();
    let file = write(redis.folder(), "password", "another-word\n");
    let node = start(&wechat, "", &sink(&redis, &format!("password_file = \"{}\"", file.display())));
    wait_for_error(&node, "password");
    node.await_log("it refuses our user or password");
    write(redis.folder(), "password", &format!("{PASSWORD}\n"));
    wait_until_written(&redis, &token_key(), &node);
    says_nothing_secret(&node, &[PASSWORD, "another-word"]);
    let bare = start(&wechat, "", &sink(&redis, ""));
    wait_for_error(&bare, "password");
    bare.await_log("it wants a password");
}

#[test]
#[ignore = "needs redis-server"]
fn a_user_with_a_narrow_acl_writes_what_it_may_and_is_told_the_rest() {
    let redis = Redis::start(&[]);
    redis.ask::<()>(&["ACL", "SETUSER", "tc", "on", ">word", "~ours*", "+@all"]);
    let wechat = Wechat::start();
    let lines = |keys: &str| {
        let file = write(redis.folder(), "password", "word");
        sink(&redis, &format!("user = \"tc\"\npassword_file = \"{}\"\nkeys = [{keys}]", file.display()))
    };
    let node = start(&wechat, "", &lines("\"ours\""));
    wait_until_written(&redis, "ours", &node);
    let node = start(&wechat, "tickets = [\"jsapi\"]", &lines("\"ours\", { key = \"theirs\", of = \"jsapi_ticket\" }"));
    wait_for_error(&node, "permission");
    wait_until_written(&redis, "ours", &node);
    wait_for("the connection to be kept", || (figure(&node, "connected") == "1").then_some(()));
    node.await_log("+eval");
}

#[test]
#[ignore = "needs redis-server"]
fn tls_with_a_private_authority_and_certificates_of_both_sides() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().to_owned();
    let authority = Authority::new(&path);
    ["server", "client"].iter().for_each(|name| authority.sign(&path, name));
    let port = free_port();
    let files = ["--tls-cert-file", "{folder}/server.pem", "--tls-key-file", "{folder}/server.key"];
    let tls = ["--tls-port", &port.to_string(), "--tls-ca-cert-file", "{folder}/ca.pem"].map(str::to_owned);
    let arguments: Vec<&str> = files.iter().copied().chain(tls.iter().map(String::as_str)).collect();
    let redis = Redis::start_in(folder, &arguments);
    let wechat = Wechat::start();
    let sink = |lines: &str| {
        let lines = lines.replace("{folder}", &path.display().to_string());
        format!("[[sink]]\nurl = \"rediss://localhost:{port}/\"\n{lines}\n")
    };
    let identity = "cert_file = \"{folder}/client.pem\"\nkey_file = \"{folder}/client.key\"";
    let node = start(&wechat, "", &sink(&format!("ca_file = \"{{folder}}/ca.pem\"\n{identity}")));
    wait_until_written(&redis, &token_key(), &node);
    // No public authority vouches for this server, and it wants a client certificate.
    for lines in [identity, "ca_file = \"{folder}/ca.pem\""] {
        let node = start(&wechat, "", &sink(lines));
        wait_for_error(&node, "tls");
    }
}

#[test]
#[ignore = "needs redis-server"]
fn a_foreign_overwrite_is_noticed_repaired_and_reported() {
    let (wechat, redis) = (Wechat::start(), Redis::start(&[]));
    redis.ask::<()>(&["SET", "WCH_access_token", FOREIGN]);
    let node = start(&wechat, "", &sink(&redis, "presets = [\"workerman\"]"));
    wait_until_written(&redis, "WCH_access_token", &node);
    assert_eq!(figure(&node, "rival_writes"), "0", "what was there before may be long abandoned");
    for rivals in ["1", "2"] {
        redis.ask::<()>(&["SET", "WCH_access_token", FOREIGN]);
        wait_until_written(&redis, "WCH_access_token", &node);
        wait_for("a rival", || (figure(&node, "rival_writes") == rivals).then_some(()));
    }
    assert_eq!(node.connect().stat("tokens", &format!("{APPID}:rival_writes")).as_deref(), Some("2"));
    node.await_log("a foreign writer has replaced our token");
    let log = node.log();
    assert_eq!(log.matches("a foreign writer has replaced our token").count(), 1, "{log}");
    assert!(log.contains("key=\"WCH_access_token\"") && log.contains(&redis.url()), "{log}");
    says_nothing_secret(&node, &[]);
}

#[test]
#[ignore = "waits for real time"]
fn a_key_of_another_type_is_replaced() {
    let (wechat, redis) = (Wechat::short_lived(4), Redis::start(&[]));
    redis.ask::<()>(&["RPUSH", &token_key(), "a", "b"]);
    let node = start(&wechat, "", &sink(&redis, ""));
    wait_for("a string", || (redis.ask::<String>(&["TYPE", &token_key()]) == "string").then_some(()));
    wait_until_written(&redis, &token_key(), &node);
}

#[test]
#[ignore = "needs redis-server"]
fn check_live_logs_in_and_writes_nothing() {
    const PASSWORD: &str = "hunter22-of-redis";
    let redis = Redis::start(&["--requirepass", PASSWORD]).with_password(PASSWORD);
    let wechat = Wechat::start();
    let check = |password: &str| {
        let file = write(redis.folder(), "password", password);
        let sink = sink(&redis, &format!("password_file = \"{}\"", file.display()));
        let config = wechat.config("", &sink).replace("{folder}", &redis.folder().display().to_string());
        let config = write(redis.folder(), "tokencached.toml", &config);
        run(tokencached().args(["check", "--live", "--config"]).arg(config))
    };
    let (status, said) = check(PASSWORD);
    assert!(status.success() && said.contains("db 0: login works"), "{said}");
    let (status, said) = check("another-word");
    assert!(!status.success() && said.contains("it refuses our user or password"), "{said}");
    assert!(!said.contains(PASSWORD) && !said.contains("another-word"), "{said}");
    assert_eq!(redis.ask::<u64>(&["DBSIZE"]), 0);
}

/// What a Redis refuses, in plain words; when that is fixed, the sink goes on.
#[track_caller]
fn refusal(arguments: &[&str], lines: &str, class: &str, mend: &[&str]) {
    let (wechat, redis) = (Wechat::start(), Redis::start(arguments));
    let node = start(&wechat, "", &sink(&redis, lines));
    wait_for_error(&node, class);
    node.await_log("advice=");
    if !mend.is_empty() {
        redis.ask::<()>(mend);
        wait_until_written(&redis, &token_key(), &node);
    }
    says_nothing_secret(&node, &[]);
}

#[test]
#[ignore = "needs redis-server"]
fn a_replica_refuses_writes_until_it_is_the_master() {
    refusal(&["--replicaof", "127.0.0.1", "1"], "", "readonly", &["REPLICAOF", "NO", "ONE"]);
}

#[test]
#[ignore = "needs redis-server"]
fn a_full_redis_is_written_once_it_has_room() {
    refusal(&["--maxmemory", "1"], "", "memory", &["CONFIG", "SET", "maxmemory", "0"]);
}

#[test]
#[ignore = "needs redis-server"]
fn a_database_that_is_not_there_is_named() {
    refusal(&[], "db = 99", "database", &[]);
}

#[test]
#[ignore = "needs redis-server"]
fn a_cluster_is_not_what_a_sink_is_for() {
    let (wechat, redis) = (Wechat::start(), Redis::start(&["--cluster-enabled", "yes"]));
    let node = start(&wechat, "", &sink(&redis, "keys = [\"a\", \"b\"]"));
    wait_for_error(&node, "busy");
    redis.ask::<()>(&["CLUSTER", "ADDSLOTSRANGE", "0", "16383"]);
    wait_for_error(&node, "cluster");
    // Keys with one hash tag are on one node.
    let node = start(&wechat, "", &sink(&redis, "keys = [\"{{appid}}:a\", \"{{appid}}:b\"]"));
    wait_until_written(&redis, &format!("{{{APPID}}}:b"), &node);
}

/// A site of Workerman processes reads as before while the token is renewed.
#[test]
#[ignore = "waits for real time"]
fn old_php_code_reads_its_token_in_redis() {
    let (wechat, redis) = (Wechat::short_lived(4), Redis::start(&[]));
    let node = start(&wechat, "", &sink(&redis, "presets = [\"workerman\"]"));
    wait_until_written(&redis, "WCH_access_token", &node);
    let mut command = program("php");
    command.arg(Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/php/workerman_redis.php"));
    command.env("REDIS", redis.socket()).env("WECHAT", wechat.base_url()).env("APPID", APPID);
    assert_eq!(run_checked(&mut command), "ok\n", "{}", node.log());
    assert_eq!(figure(&node, "rival_writes"), "0");
}

/// Every node of a cluster writes the shared token: none takes another node for a foreign writer.
#[test]
#[ignore = "waits for real time"]
fn nodes_that_share_a_state_write_one_sink_and_report_no_foreign_writer() {
    let (wechat, redis, shared) = (Wechat::short_lived(4), Redis::start(&[]), Redis::start(&[]));
    let config = format!(
        "[state]\npath = \"none\"\nurl = \"{}\"\nsecret = \"what-these-nodes-seal-with\"\n[upstream]\nbase_url = \"{}\"\n\
         [[app]]\nappid = \"{APPID}\"\nsecret = \"{SECRET}\"\nendpoint = \"token\"\n{}",
        shared.url(),
        wechat.base_url(),
        sink(&redis, "")
    );
    let nodes = [Node::start(&config, &[]), Node::start(&config, &[])];
    let mut seen = std::collections::BTreeSet::new();
    wait_for("four tokens in Redis", || {
        seen.extend(redis.get(&token_key()));
        (seen.len() >= 4).then_some(())
    });
    for node in &nodes {
        assert_eq!(figure(node, "rival_writes"), "0", "{}", node.log());
    }
}
