//! The configuration of several nodes: `[state] url` and `leader_urls`, and apps that are only followed.

use std::collections::BTreeMap;

#[cfg(feature = "redis")]
use crate::config::names_of;
use crate::support::{APPID, Node, SECRET, Wechat, wait_for};
use tokencached::cli::Flags;
use tokencached::cluster;
use tokencached::config::{Loaded, load};
use tokencached::redis_client::options::RedisAt;
use tokencached::sandbox::Endpoint;

const SEALING: &str = "sixteen-chars-at-least";
const KEY: &str = "0123456789-key-of-a-side-port";

fn given(file: &str, variables: &[(&str, &str)]) -> Result<Loaded, String> {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("tokencached.toml");
    std::fs::write(&path, file).unwrap();
    std::fs::write(folder.path().join("cert.pem"), "-----BEGIN CERTIFICATE-----\n").unwrap();
    std::fs::write(folder.path().join("sealing"), format!("{SEALING}\n")).unwrap();
    std::fs::write(folder.path().join("short"), "fifteen-charact\n").unwrap();
    let common = [("HOME", "/home/someone"), ("WX_SECRET", SECRET), ("SEALING", SEALING), ("NODE_KEY", KEY)];
    let all = common.iter().chain(variables);
    let environment: BTreeMap<String, String> =
        all.map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
    load(Some(&path), &environment, &Flags::default()).map_err(|faults| {
        let shown = faults.to_string().replace(&format!("{}/", folder.path().display()), "");
        for secret in [SEALING, KEY, SECRET, "hunter22"] {
            assert!(!shown.contains(secret), "{shown}");
        }
        shown
    })
}

#[track_caller]
fn good(file: &str, variables: &[(&str, &str)]) -> Loaded {
    given(file, variables).unwrap_or_else(|faults| panic!("{file}\n{faults}"))
}

/// What `check` prints of it is the same again, and has nothing secret.
#[track_caller]
fn prints_itself(loaded: &Loaded) -> String {
    let printed = loaded.effective();
    let shown = format!("{printed}{:?}{:?}", loaded.config, loaded.warnings);
    for secret in [SEALING, KEY, SECRET, "hunter22"] {
        assert!(!shown.contains(secret), "{shown}");
    }
    assert_eq!(good(&printed, &[]).effective(), printed);
    printed
}

#[cfg(feature = "redis")]
#[test]
fn each_fault_of_a_shared_redis_has_its_place_and_a_way_out() {
    let with = |lines: &str| format!("[state]\nsecret_env = \"SEALING\"\n{lines}\n");
    let url = "url = \"redis://127.0.0.1\"";
    for (lines, what, remedy) in [
        (with("url = \"http://a\""), "3: url: the URL is none of redis", "redis+sentinel://"),
        (with("url = \"redis://:hunter22@a\""), "3: url: the URL has a user or a password", "password_file"),
        (with("url = \"redis+sentinel://a:26379,b\""), "3: url: the URL does not name the master", "/mymaster"),
        (with("url = \"redis+sentinel://a:x/m\""), "3: url: a sentinel's address is not", "host1:26379"),
        (with("url = \"redis://127.0.0.1/1\"\ndb = 2"), "3: url: the url says 1, and db 2", "Keep one"),
        (with(&format!("{url}\nca_file = \"cert.pem\"")), "4: ca_file: the url does not speak TLS", "rediss://"),
        (with("url = \"rediss://a\"\ncert_file = \"cert.pem\""), "4: cert_file: cert_file and key_file", "both"),
        (with(&format!("{url}\nuser = \"me\"")), "4: user: a user without a password", "password_file"),
        (with(&format!("{url}\npassword_file = \"none\"")), "4: password_file: ", "who may read it"),
        (with(&format!("{url}\ntimeout_ms = 99")), "4: timeout_ms: 99 is out of range", "from 100 to 60000"),
        (with(&format!("{url}\npoll_every_ms = 60001")), "4: poll_every_ms: 60001 is out of range", "from 100"),
        (with(&format!("{url}\nprefix = \"a{{b\"")), "4: prefix: \"a{b\" has braces", "tokencached"),
        (with(&format!("{url}\nprefix = \"a b\"")), "4: prefix: ", "tokencached"),
        (with(&format!("{url}\nprefix = \"{}\"", "p".repeat(65))), "4: prefix: ", "tokencached"),
        (with(&format!("{url}\nnode = \"web 1\"")), "4: node: \"web 1\" is no name", "at most 64"),
        (with(&format!("{url}\nnode = \"{}\"", "n".repeat(65))), "4: node: ", "at most 64"),
        (with(&format!("{url}\nleader_key_env = \"NODE_KEY\"")), "4: leader_key_env: it belongs", "Remove"),
        (
            with(&format!("{url}\nleader_urls = \"http://127.0.0.1:1\"")),
            "4: leader_urls: it stands beside url",
            "one of",
        ),
        (with(""), "2: secret_env: there is neither url nor leader_urls", "Add url"),
        (format!("[state]\n{url}"), "2: [state] has a url and no secret", "head -c 32 /dev/urandom | base64 >"),
        (format!("[state]\n{url}\nsecret_file = \"short\""), "3: secret_file: it has fewer than 16", "head -c 32"),
        (format!("[state]\n{url}\nsecret_file = \"none\""), "3: secret_file: none cannot be read", "who may read"),
        (with(&format!("{url}\nsecret_file = \"sealing\"")), "[state] has secret_file and secret_env", "Keep one"),
    ] {
        let shown = given(&lines, &[]).err().unwrap_or_else(|| panic!("no fault in {lines}"));
        assert!(shown.starts_with("the configuration has 1 fault:"), "{lines}\n{shown}");
        assert!(shown.contains(what) && shown.contains(remedy), "{what} {remedy}\n{shown}");
    }
}

#[test]
fn each_fault_of_a_follower_has_its_place_and_a_way_out() {
    let here = "leader_urls = \"http://127.0.0.1:2130\"";
    let app = format!("[[app]]\nappid = \"{APPID}\"\n");
    for (lines, what, remedy) in [
        ("leader_urls = 1".to_owned(), "2: leader_urls: a number is not an address", "http://other-node:2130"),
        ("leader_urls = []".to_owned(), "2: leader_urls: no address is given", "http://other-node:2130"),
        ("leader_urls = \"ftp://127.0.0.1\"".to_owned(), "2: leader_urls: the URL is neither", "http://other-node"),
        ("leader_urls = \"http://:hunter22@127.0.0.1\"".to_owned(), "2: leader_urls: the URL has a user", "other-node"),
        ("leader_urls = [\"http://127.0.0.1\", \"10.0.0.5:2130\"]".to_owned(), "2: leader_urls: ", "other-node"),
        (
            "leader_urls = \"https://10.0.0.5:2130\"".to_owned(),
            "the HTTP API of 10.0.0.5 gives no token",
            "leader_key_file",
        ),
        (format!("{here}\nleader_ca_file = \"cert.pem\""), "3: leader_ca_file: no address of leader_urls", "https"),
        (format!("{here}\nsecret_env = \"SEALING\""), "3: secret_env: it belongs to url", "Remove it"),
        (format!("{here}\ndb = 1"), "3: db: it belongs to url", "Remove it"),
        (
            format!("{here}\n{app}secret_env = \"WX_SECRET\""),
            "5: secret_env: a node with leader_urls in [state]",
            "Remove it",
        ),
    ] {
        let shown = given(&format!("[state]\n{lines}\n"), &[]).err().unwrap_or_else(|| panic!("no fault in {lines}"));
        assert!(shown.starts_with("the configuration has 1 fault:"), "{lines}\n{shown}");
        assert!(shown.contains(what) && shown.contains(remedy), "{what} {remedy}\n{shown}");
    }
    let quick = given(&format!("[state]\n{here}\n"), &[("WECHAT_APPID", APPID), ("WECHAT_SECRET", SECRET)]);
    let shown = quick.err().unwrap();
    assert!(
        shown.contains("environment WECHAT_SECRET: a node with leader_urls in [state] never calls WeChat"),
        "{shown}"
    );
}

#[cfg(not(feature = "redis"))]
#[test]
fn a_build_without_redis_says_so() {
    let shown = given("[state]\nurl = \"redis://127.0.0.1\"\nsecret_env = \"SEALING\"\n", &[]).err().unwrap();
    assert!(shown.contains("2: url: this build cannot share its state"), "{shown}");
}

#[cfg(feature = "redis")]
#[test]
fn a_shared_redis_has_defaults_and_prints_itself() {
    let loaded = good("[state]\nurl = \"redis://127.0.0.1\"\nsecret_file = \"sealing\"\n", &[]);
    let Some(cluster::Options::Redis(state)) = &loaded.config.credentials.cluster else {
        panic!("{:?}", loaded.config.credentials.cluster)
    };
    assert_eq!((state.server.timeout_ms, state.poll_every_ms, state.server.db), (1_000, 2_000, 0));
    assert_eq!((state.prefix.as_str(), state.node.as_str()), ("tokencached", "node"), "a machine without a name");
    assert_eq!(loaded.warnings.iter().filter(|warning| !warning.contains("others may read")).count(), 1, "no app");
    let all = "[state]\nurl = \"redis+sentinel://10.0.0.1,[::2]:5000/mymaster/3\"\nuser = \"me\"\npassword = \"hunter22\"\n\
               secret_env = \"SEALING\"\nprefix = \"shop:\"\npoll_every_ms = 100\ntimeout_ms = 60000\nnode = \"web-1.a_B\"\n";
    let loaded = good(all, &[]);
    let Some(cluster::Options::Redis(state)) = &loaded.config.credentials.cluster else {
        panic!("{:?}", loaded.config.credentials.cluster)
    };
    let sentinels = vec![("10.0.0.1".to_owned(), 26379), ("::2".to_owned(), 5000)];
    assert_eq!(state.server.at, RedisAt::Sentinel { sentinels, master: "mymaster".into() });
    assert_eq!((state.sealing.read().unwrap().expose(), state.node.as_str()), (SEALING, "web-1.a_B"));
    let warned = loaded.warnings.join("\n");
    assert!(warned.contains("in the clear on their way to 10.0.0.1"), "{warned}");
    assert!(warned.contains("password_file keeps it apart"), "{warned}");
    let printed = loaded.effective();
    assert!(printed.contains("url = \"redis+sentinel://10.0.0.1:26379,[::2]:5000/mymaster\"\n"), "{printed}");
    let again = given(&printed, &[]).err().unwrap();
    assert!(again.contains("password: ") && again.contains("has 1 fault"), "{again}");
    prints_itself(&good(&all.replace("password = \"hunter22\"", "password_env = \"SEALING\""), &[]));
}

#[cfg(feature = "redis")]
#[test]
fn the_environment_replaces_the_files_secret_in_whichever_way_it_was_given() {
    let file = "[state]\nurl = \"redis://127.0.0.1\"\nsecret_file = \"sealing\"\nprefix = \"a\"\n";
    let variables = [("TOKENCACHED_STATE_SECRET", "another-secret-of-ours"), ("TOKENCACHED_STATE_PREFIX", "b")];
    let loaded = good(file, &variables);
    let Some(cluster::Options::Redis(state)) = &loaded.config.credentials.cluster else {
        panic!("{:?}", loaded.config.credentials.cluster)
    };
    assert_eq!((state.sealing.read().unwrap().expose(), state.prefix.as_str()), ("another-secret-of-ours", "b"));
    let printed = loaded.effective();
    assert!(printed.contains("\nsecret_env = \"TOKENCACHED_STATE_SECRET\"\n"), "{printed}");
    assert!(!loaded.warnings.join("\n").contains("written in the configuration"), "{:?}", loaded.warnings);
    // What is wrong in the file stays wrong when the variable that hides it goes.
    let shown = given(&file.replace("\"a\"", "\"a b\""), &variables).err().unwrap();
    assert!(shown.contains("4: prefix: "), "{shown}");
}

#[test]
fn a_follower_by_http_prints_itself() {
    let file = format!(
        "[state]\nleader_urls = [\"http://127.0.0.1:2130/\", \"https://10.0.0.5:2130\", \"http://10.0.0.6:2130\"]\n\
         leader_key_env = \"NODE_KEY\"\nnode = \"edge\"\n[[app]]\nappid = \"{APPID}\"\naliases = [\"access_token\"]\n"
    );
    let loaded = good(&file, &[]);
    let Some(cluster::Options::Leader(leader)) = &loaded.config.credentials.cluster else {
        panic!("{:?}", loaded.config.credentials.cluster)
    };
    assert_eq!(leader.urls, ["http://127.0.0.1:2130", "https://10.0.0.5:2130", "http://10.0.0.6:2130"]);
    assert_eq!(leader.key.as_ref().unwrap().read().unwrap().expose(), KEY);
    assert!(loaded.config.credentials.apps[0].secret.is_absent());
    let warned = loaded.warnings.join("\n");
    assert!(warned.contains("in the clear on their way to 10.0.0.6") && !warned.contains("10.0.0.5"), "{warned}");
    let printed = prints_itself(&loaded);
    assert!(printed.contains("\nappid = ") && !printed.contains("secret"), "{printed}");
    let alone = good("[state]\nleader_urls = \"http://localhost:2130\"\n", &[("WECHAT_APPID", APPID)]);
    assert_eq!(names_of(&alone.config.credentials.apps[0]), [&format!("access_token:{APPID}"), "access_token", APPID]);
    assert!(alone.config.credentials.apps[0].secret.is_absent());
}

#[test]
fn without_other_nodes_a_secret_is_needed_and_the_remedy_names_them() {
    let shown = given(&format!("[[app]]\nappid = \"{APPID}\"\n"), &[]).err().unwrap();
    assert!(shown.contains("has no secret") && shown.contains("url or leader_urls in [state]"), "{shown}");
}

/// Everything that has a secret in one place has none in another.
#[cfg(feature = "redis")]
#[test]
fn apps_without_secrets_stand_beside_apps_that_have_them() {
    let state = "[state]\npath = \"none\"\nurl = \"unix:/run/redis.sock\"\nsecret_env = \"SEALING\"\n";
    let component = "[[app]]\nplatform = \"component\"\nappid = \"wx1123456789abcdef\"\n[[app.authorizer]]\nappid = \"wx2123456789abcdef\"\n";
    let file = format!("{state}[[app]]\nappid = \"{APPID}\"\nsecret_env = \"WX_SECRET\"\n{component}");
    let loaded = good(&file, &[]);
    let absent: Vec<bool> = loaded.config.credentials.apps.iter().map(|app| app.secret.is_absent()).collect();
    assert_eq!(absent, [false, true, true]);
    let printed = loaded.effective();
    let of_apps = printed.split_once("[[app]]").unwrap().1;
    assert_eq!((of_apps.matches("secret").count(), of_apps.matches("refresh_token").count()), (1, 0), "{printed}");
    let warned = loaded.warnings.join("\n");
    assert!(warned.contains("of 3 apps 2 have no secret here and are only followed, first \"wx11"), "{warned}");
    assert!(!warned.contains("verify_ticket"), "{warned}");
    prints_itself(&loaded);
    // A key with the secret cannot be made; of a preset it is left out.
    let app = format!("{state}[[app]]\nappid = \"{APPID}\"\n");
    let shown = given(&format!("{app}aliases = [\"EW.{{secret}}\"]\n"), &[]).err().unwrap();
    assert!(shown.contains("aliases: \"EW.{secret}\" wants the secret, and the app has none here"), "{shown}");
    let sink = |lines: &str| format!("{app}[[sink]]\nurl = \"unix:/run/redis.sock\"\n{lines}\n");
    let shown = given(&sink("keys = [\"EW.{secret}\"]"), &[]).err().unwrap();
    assert!(shown.contains("keys: a key with a secret, and the app"), "{shown}");
    let loaded = good(
        &sink("presets = [\"easywechat6-laravel\", \"workerman\"]")
            .replace("\n[[sink]]", "\npresets = [\"easywechat6-laravel\"]\n[[sink]]"),
        &[],
    );
    let names = |name: &&String| name.contains("official_account") || name.contains("{secret");
    assert_eq!(names_of(&loaded.config.credentials.apps[0]).iter().filter(names).count(), 0);
    assert!(loaded.config.sinks[0].entries.iter().all(|key| key.name.starts_with("WCH_")), "{:?}", loaded.config.sinks);
}

#[test]
#[ignore = "waits for real time"]
fn an_app_without_a_secret_is_never_asked_for() {
    let wechat = Wechat::start();
    let config = format!(
        "[state]\npath = \"{{folder}}/state.json\"\nleader_urls = \"http://127.0.0.1:1\"\n[upstream]\nbase_url = \"{}\"\n\
         [[app]]\nappid = \"{APPID}\"\ntickets = [\"jsapi\"]\n",
        wechat.base_url()
    );
    let node = Node::start(&config, &[]);
    let mut client = node.connect();
    for key in ["access_token", "jsapi_ticket"] {
        assert_eq!(client.get(&format!("{key}:{APPID}")), None);
    }
    client.expect(format!("delete access_token:{APPID}\r\n"), "DELETED\r\n");
    wait_for("the reason to be logged", || node.log().contains("a node with the app's secret runs").then_some(()));
    let calls = wechat.calls(APPID);
    let all = [Endpoint::StableToken, Endpoint::StableTokenForced, Endpoint::Token];
    assert_eq!(all.map(|endpoint| calls.of(endpoint)), [0; 3]);
}

#[cfg(feature = "redis")]
#[test]
fn the_manuals_example_is_accepted() {
    let manual = concat!(env!("CARGO_MANIFEST_DIR"), "/docs/en/configuration.md");
    let manual = std::fs::read_to_string(manual).unwrap();
    let blocks = manual.split("```toml\n").skip(1).filter_map(|rest| rest.split("```").next());
    let of_state: Vec<&str> = blocks.filter(|block| block.starts_with("[state]")).collect();
    assert!(!of_state.is_empty());
    for block in of_state {
        let names = ["redis.password", "state"];
        let here = names
            .iter()
            .fold(block.to_owned(), |here, name| here.replace(&format!("/etc/tokencached/secrets/{name}"), "sealing"));
        assert!(good(&here, &[]).config.credentials.cluster.is_some(), "{block}");
    }
}
