//! A real server adopts the token that a site has fetched itself: from a file, from a real memcached, from where its
//! sinks write.

use std::fmt::Write as _;

use tokencached::clock::unix_ms;
use tokencached::sandbox::Endpoint;

use crate::differential::Memcached;
use crate::support::{
    APPID, Client, Node, SECRET, Wechat, free_port, program, run, run_checked, tokencached, wait_for, write,
};

/// A script that was not moved to the server yet.
fn fetch(wechat: &Wechat) -> String {
    let url = format!("{}/cgi-bin/token?grant_type=client_credential&appid={APPID}&secret={SECRET}", wechat.base_url());
    let answer = run_checked(program("curl").args(["-sS", &url]));
    answer.split('"').nth(3).unwrap().to_owned()
}

fn start(wechat: &Wechat, adopt: &str) -> Node {
    Node::start(
        &wechat.config("", &format!("endpoint = \"token\"\nadopt = {adopt}\naliases = [\"access_token\"]\n")),
        &[],
    )
}

fn token(node: &Node) -> String {
    let mut client = node.connect();
    String::from_utf8(wait_for("a token", || client.get("access_token"))).unwrap()
}

fn now_s() -> u64 {
    unix_ms() as u64 / 1000
}

#[test]
#[ignore = "needs memcached"]
fn the_token_in_the_old_memcached_is_served_and_none_is_fetched() {
    let (wechat, memcached) = (Wechat::start(), Memcached::start());
    let held = fetch(&wechat);
    let mut old = Client::connect(memcached.address);
    old.expect(format!("set access_token 0 7000 {}\r\n{held}\r\n", held.len()), "STORED\r\n");
    let node = start(&wechat, &format!("{{ memcached = \"{}\", key = \"access_token\" }}", memcached.address));
    assert_eq!(token(&node), held);
    assert_eq!(wechat.calls(APPID).of(Endpoint::Token), 1, "the script's own");
    node.await_log("adopted the site's own token");
    assert!(node.log().contains("end_known=true"), "{}", node.log());
    assert!(!node.log().contains(&held));
    // What is left of memcached's 7000 s; no renewal of ours ends it earlier.
    let left_s: u64 = node.connect().stat("tokens", &format!("{APPID}:seconds_left")).unwrap().parse().unwrap();
    assert!((6_900..=7_000).contains(&left_s), "{left_s}");
}

#[test]
#[ignore = "needs curl"]
fn the_token_in_the_sites_file_is_served_and_none_is_fetched() {
    let (wechat, folder) = (Wechat::start(), tempfile::tempdir().unwrap());
    let held = fetch(&wechat);
    let text = format!("<?php exit();?>{{\"access_token\":\"{held}\",\"expire_time\":{}}}", now_s() + 3_000);
    let file = write(folder.path(), "access_token.php", &text);
    let node = start(&wechat, &format!("{{ file = \"{}\" }}", file.display()));
    assert_eq!(token(&node), held);
    assert_eq!(wechat.calls(APPID).of(Endpoint::Token), 1, "the script's own");
    assert_eq!(std::fs::read_to_string(&file).unwrap(), text, "as it was");
}

#[test]
fn a_place_without_a_token_is_named_and_the_first_token_is_fetched() {
    let wechat = Wechat::start();
    let nobody = free_port();
    let node = start(&wechat, &format!("{{ memcached = \"127.0.0.1:{nobody}\", key = \"access_token\" }}"));
    assert!(!token(&node).is_empty());
    node.await_log("cannot adopt the site's own token");
    let log = node.log();
    assert!(log.contains(&format!("127.0.0.1:{nobody}")) && log.contains("it cannot be reached"), "{log}");
    assert!(log.contains("point them here now"), "what to do: {log}");
    assert_eq!(wechat.calls(APPID).of(Endpoint::Token), 1);
}

#[test]
fn adopt_is_a_setting_of_the_classic_call_and_check_says_when_it_is_lacking() {
    let folder = tempfile::tempdir().unwrap();
    let check = |rest: &str| {
        let mut text = format!("[[app]]\nappid = \"{APPID}\"\nsecret = \"{SECRET}\"\n");
        let _ = writeln!(text, "{rest}");
        let config = write(folder.path(), "adopt.toml", &text);
        run(tokencached().args(["check", "--print", "--config"]).arg(config))
    };
    for adopt in
        ["\"sink\"", "{ memcached = \"127.0.0.1:11212\", key = \"access_token\" }", "{ file = \"/srv/token.php\" }"]
    {
        let sink = "[[sink]]\nfile = \"/srv/token.php\"\npresets = [\"jssdk\"]";
        let (status, said) = check(&format!("endpoint = \"token\"\nadopt = {adopt}\n{sink}"));
        assert!(status.success() && said.contains(&format!("\nadopt = {adopt}\n")), "{said}");
        assert!(!said.contains("until all have moved"), "{said}");
    }
    for wrong in [
        "endpoint = \"token\"\nadopt = \"memcached\"",
        "endpoint = \"token\"\nadopt = true",
        "endpoint = \"token\"\nadopt = { memcached = \"127.0.0.1:11212\" }",
        "endpoint = \"token\"\nadopt = { memcached = \"localhost\", key = \"k\" }",
        "endpoint = \"token\"\nadopt = { memcached = \"127.0.0.1:1\", key = \"a b\" }",
        "endpoint = \"token\"\nadopt = { file = \"/a\", key = \"k\" }",
        "adopt = \"sink\"",
        "platform = \"wecom\"\nadopt = \"sink\"",
    ] {
        let (status, said) = check(wrong);
        assert!(!status.success() && said.contains("adopt: "), "{wrong}: {said}");
    }
    let (_, said) = check("endpoint = \"token\"");
    assert!(said.contains("until all have moved"), "{said}");
    let (_, said) = check("");
    assert!(!said.contains("until all have moved"), "{said}");
}

/// The site's store, and what our node does with it through that sink.
mod sink {
    use super::*;
    use crate::sink_files::{WAYS, view_page};
    use tokencached::sandbox::Verdict;

    fn start(wechat: &Wechat, sinks: &str) -> Node {
        let app = format!("endpoint = \"token\"\nadopt = \"sink\"\naliases = [\"access_token\"]\n{sinks}");
        Node::start(&wechat.config("", &app), &[])
    }

    fn of_file(path: &std::path::Path, lines: &str) -> String {
        format!("[[sink]]\nfile = \"{}\"\n{lines}\n", path.display())
    }

    fn figure(node: &Node, name: &str) -> String {
        node.connect().stat("", &format!("sink_0_{name}")).unwrap()
    }

    /// It serves the token that the site has, has fetched none, and has written it where it was.
    #[track_caller]
    fn takes_over(node: &Node, wechat: &Wechat, held: &str) {
        assert_eq!(token(node), held, "{}", node.log());
        node.await_log("adopted the site's own token");
        wait_for("it to be written", || (figure(node, "writes") != "0").then_some(()));
        assert_eq!(wechat.calls(APPID).of(Endpoint::Token), 1, "the script's own");
        assert_eq!(wechat.judge(held), Verdict::Accepted);
        assert_eq!((figure(node, "rival_writes"), figure(node, "last_error")), ("0".into(), "none".into()));
        assert!(!node.log().contains(held));
    }

    #[test]
    #[ignore = "needs php"]
    fn the_token_in_a_file_of_every_layout_is_taken_over_and_the_script_goes_on_with_it() {
        for (way, name, lines) in WAYS {
            let (wechat, folder) = (Wechat::start(), tempfile::tempdir().unwrap());
            let path = folder.path().join(name);
            let (held, fetched) = view_page(&wechat, way, &path);
            assert!(fetched, "{way}");
            let node = start(&wechat, &of_file(&path, lines));
            takes_over(&node, &wechat, &held);
            assert_eq!(view_page(&wechat, way, &path), (held, false), "{way}");
        }
    }

    #[test]
    #[ignore = "needs curl"]
    fn the_time_told_in_the_file_is_no_later_than_the_scripts_own() {
        let (wechat, folder) = (Wechat::start(), tempfile::tempdir().unwrap());
        let (held, end_s) = (fetch(&wechat), now_s() + 3_000);
        let path = write(
            folder.path(),
            "access_token.php",
            &format!("<?php exit();?>{{\"access_token\":\"{held}\",\"expire_time\":{end_s}}}"),
        );
        let node = start(&wechat, &of_file(&path, "presets = [\"jssdk\"]"));
        takes_over(&node, &wechat, &held);
        let text = std::fs::read_to_string(&path).unwrap();
        assert!(text.contains(&held), "{text}");
        let told_s: u64 = text
            .split(|c: char| !c.is_ascii_digit())
            .find_map(|word| word.parse().ok().filter(|told| *told > 1_600_000_000))
            .unwrap();
        assert!(told_s > now_s() && told_s <= end_s, "{told_s} of {end_s}");
    }

    #[test]
    #[ignore = "needs php"]
    fn sinks_that_are_down_hang_or_cannot_be_read_leave_what_another_one_has() {
        let (wechat, folder) = (Wechat::start(), tempfile::tempdir().unwrap());
        let path = folder.path().join("access_token.php");
        let (held, _) = view_page(&wechat, "jssdk", &path);
        // It accepts connections and never answers.
        let silent = std::os::unix::net::UnixListener::bind(folder.path().join("silent")).unwrap();
        let others = format!(
            "[[sink]]\nurl = \"unix:{folder}/nobody\"\n[[sink]]\nurl = \"unix:{folder}/silent\"\ntimeout_ms = 60000\n\
             [[sink]]\ncommand = [\"/bin/true\"]\n",
            folder = folder.path().display()
        );
        let node = start(&wechat, &format!("{}{others}", of_file(&path, "presets = [\"jssdk\"]")));
        takes_over(&node, &wechat, &held);
        drop(silent);
    }

    #[test]
    #[ignore = "waits for real time"]
    fn a_sink_that_hangs_is_given_up_and_the_first_token_is_fetched() {
        let (wechat, folder) = (Wechat::start(), tempfile::tempdir().unwrap());
        let _silent = std::os::unix::net::UnixListener::bind(folder.path().join("silent")).unwrap();
        let sink = format!("[[sink]]\nurl = \"unix:{}/silent\"\ntimeout_ms = 60000\n", folder.path().display());
        let node = start(&wechat, &sink);
        node.await_log("cannot adopt the site's own token");
        assert!(node.log().contains("it does not answer"), "{}", node.log());
        assert!(!token(&node).is_empty());
        assert_eq!(wechat.calls(APPID).of(Endpoint::Token), 1);
    }

    #[cfg(feature = "redis")]
    #[test]
    #[ignore = "needs redis-server"]
    fn the_token_under_workermans_keys_in_redis_is_taken_over_and_the_workers_go_on_with_it() {
        let (wechat, redis) = (Wechat::start(), crate::support::redis::Redis::start(&[]));
        let (held, end_s) = (fetch(&wechat), now_s() + 7_000);
        redis.ask::<()>(&["SET", "WCH_access_token", &held, "EX", "7000"]);
        redis.ask::<()>(&["SET", "WCH_expires_in", &end_s.to_string(), "EX", "7000"]);
        let node = start(&wechat, &format!("[[sink]]\nurl = \"{}\"\npresets = [\"workerman\"]\n", redis.url()));
        takes_over(&node, &wechat, &held);
        // What a worker asks before it fetches by itself.
        assert_eq!(redis.get("WCH_access_token"), Some(held));
        let told_s: u64 = redis.get("WCH_expires_in").unwrap().parse().unwrap();
        assert!(told_s > now_s(), "{told_s}");
        assert!(node.log().contains("end_known=true"), "{}", node.log());
        let kept_ms = redis.ask::<u64>(&["PTTL", "WCH_access_token"]);
        assert!((6_000_000..=7_000_000).contains(&kept_ms), "as long as it truly lives: {kept_ms}");
    }

    /// Without a stored time: the time that Redis keeps the key is the expiry.
    #[cfg(feature = "redis")]
    #[test]
    #[ignore = "needs redis-server"]
    fn how_long_redis_keeps_a_key_is_when_its_token_ends() {
        let (wechat, redis) = (Wechat::start(), crate::support::redis::Redis::start(&[]));
        let held = fetch(&wechat);
        redis.ask::<()>(&["SET", "token", &held, "EX", "3000"]);
        let node = start(&wechat, &format!("[[sink]]\nurl = \"{}\"\nkeys = [\"token\"]\n", redis.url()));
        takes_over(&node, &wechat, &held);
        assert!(node.log().contains("end_known=true"), "{}", node.log());
        let left_s: u64 = node.connect().stat("tokens", &format!("{APPID}:seconds_left")).unwrap().parse().unwrap();
        assert!((2_900..=3_000).contains(&left_s), "{left_s}");
    }

    #[cfg(all(feature = "redis", feature = "sql"))]
    mod table {
        use super::*;
        use crate::sinks_sql::{php_class, wx_token};
        use crate::support::sql::{DatabaseType, Store};

        fn the_php_class_goes_on(store: &Store) {
            let wechat = Wechat::start();
            wx_token(store, "wx_token");
            assert_eq!(php_class(&wechat, store, "1"), "fetched 2 refused 0\n");
            let held = store.ask("SELECT value FROM wx_token WHERE type = 'access_token'");
            // Fetched twenty minutes ago.
            let fetched_s = now_s() - 1_200;
            store.ask(&format!("UPDATE wx_token SET expire = '{fetched_s}'"));
            let sink = format!("[[sink]]\n{}presets = [\"wx_token\"]\n", store.lines());
            let node = start(&wechat, &sink);
            takes_over(&node, &wechat, &held);
            assert_eq!(php_class(&wechat, store, "1"), "fetched 0 refused 0\n", "{}", node.log());
            assert_eq!(store.ask("SELECT value FROM wx_token WHERE type = 'access_token'"), held);
            // The time that the class has stored says how old the token is.
            let left_s: u64 = node.connect().stat("tokens", &format!("{APPID}:seconds_left")).unwrap().parse().unwrap();
            assert!((5_900..=6_000).contains(&left_s), "{left_s}");
            assert_eq!(wechat.calls(APPID).of(Endpoint::Token), 1);
        }

        #[test]
        #[ignore = "needs mariadbd"]
        fn the_token_in_the_php_classes_table_of_mariadb_is_taken_over() {
            the_php_class_goes_on(&Store::shared(DatabaseType::MariaDb));
        }

        #[test]
        #[ignore = "needs sqlite3"]
        fn the_token_in_the_php_classes_table_of_sqlite_is_taken_over() {
            the_php_class_goes_on(&Store::sqlite());
        }
    }

    #[test]
    fn check_refuses_to_adopt_from_a_sink_where_none_has_the_token() {
        let folder = tempfile::tempdir().unwrap();
        let check = |sinks: &str| {
            let text = format!(
                "[[app]]\nappid = \"{APPID}\"\nsecret = \"{SECRET}\"\nendpoint = \"token\"\nadopt = \"sink\"\n\
                 tickets = [\"jsapi\"]\n{sinks}\n"
            );
            run(tokencached().args(["check", "--config"]).arg(write(folder.path(), "adopt.toml", &text)))
        };
        for none in [
            "",
            "[[sink]]\ncommand = [\"/bin/true\"]",
            "[[sink]]\nfile = \"/srv/ticket.php\"\ntypes = [\"jsapi_ticket\"]",
        ] {
            let (status, said) = check(none);
            assert!(!status.success(), "{said}");
            assert!(said.contains("no sink has a token of this app that can be read"), "{none}: {said}");
        }
        let (status, said) = check("[[sink]]\nfile = \"/srv/{appid}.txt\"\ntypes = [\"access_token\"]");
        assert!(status.success(), "{said}");
    }
}
