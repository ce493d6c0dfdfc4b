//! The configuration: one small file a fault (`tests/configs`), the layers, every flag of memcached.
#![allow(clippy::unwrap_used, reason = "a test says by panicking what went wrong")]

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use tokencached::cli::{self, CliCommand, Flags};
use tokencached::config::schema::{SECTIONS, Section, Setting};
use tokencached::config::{Environment, Faults, Loaded, Place, load};
use tokencached::credential::App;
use tokencached::secret_source::SecretSource;
use tokencached::server::Protocol;
use tokencached::service::RefuseWith;

use crate::support::chinese::assert_all_known;

pub const APPID: &str = "wx0123456789abcdef";
pub const SECRET: &str = "0123456789abcdef0123456789abcdef";

fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}

fn configs() -> PathBuf {
    root().join("tests/configs")
}

/// An environment with the given variables, and what every case may use.
pub fn environment(variables: &[(&str, &str)]) -> BTreeMap<String, String> {
    let credentials = configs().join("secrets").to_string_lossy().into_owned();
    let common = [("HOME", "/home/someone"), ("WX_SECRET", SECRET), ("CREDENTIALS_DIRECTORY", &credentials)];
    common.iter().chain(variables).map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect()
}

/// The flags of a command line for the server.
fn flags(line: &str) -> Flags {
    match cli::parse_from(std::iter::once("tokencached").chain(line.split_whitespace())) {
        Ok(CliCommand::Serve(args)) => args.flags,
        other => panic!("{line}: {other:?}"),
    }
}

pub fn given(file: Option<&str>, variables: &[(&str, &str)], line: &str) -> Result<Loaded, Faults> {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("tokencached.toml");
    std::fs::write(&path, file.unwrap_or_default()).unwrap();
    let outcome = load(file.map(|_| path.as_path()), &environment(variables), &flags(line));
    assert_all_known(&outcome);
    outcome
}

pub fn by_flags(line: &str) -> Loaded {
    given(None, &[], line).unwrap_or_else(|faults| panic!("{line}: {faults}"))
}

pub fn by_environment(variables: &[(&str, &str)]) -> Loaded {
    given(None, variables, "").unwrap_or_else(|faults| panic!("{faults}"))
}

fn addresses(line: &str) -> Vec<String> {
    by_flags(line).config.server.listen.iter().map(SocketAddr::to_string).collect()
}

/// The one fault of these layers, as shown.
pub fn fault(file: Option<&str>, variables: &[(&str, &str)], line: &str) -> String {
    let faults = given(file, variables, line).err().unwrap_or_else(|| panic!("no fault in {variables:?} {line}"));
    assert_eq!(faults.iter().count(), 1, "{faults}");
    faults.to_string()
}

/// What a file in `tests/configs` says about itself: `# fault LINE: TEXT`, then perhaps `# remedy: TEXT`.
fn expectations(text: &str) -> Vec<(usize, String, Option<String>)> {
    let mut expected: Vec<(usize, String, Option<String>)> = Vec::new();
    for line in text.lines() {
        if let Some(rest) = line.strip_prefix("# fault ") {
            let (line, what) = rest.split_once(": ").unwrap();
            expected.push((line.parse().unwrap(), what.to_owned(), None));
        } else if let Some(remedy) = line.strip_prefix("# remedy: ") {
            expected.last_mut().unwrap().2 = Some(remedy.to_owned());
        }
    }
    expected
}

#[test]
fn each_file_has_the_faults_it_names() {
    let mut seen = 0;
    for entry in std::fs::read_dir(configs()).unwrap() {
        let path = entry.unwrap().path();
        if path.extension().is_none_or(|extension| extension != "toml") {
            continue;
        }
        let name = path.file_name().unwrap().to_string_lossy().into_owned();
        if name.contains("sink") && !name.contains("file") && !cfg!(all(feature = "redis", feature = "sql")) {
            continue;
        }
        seen += 1;
        let text = String::from_utf8_lossy(&std::fs::read(&path).unwrap()).into_owned();
        let expected = expectations(&text);
        let outcome = load(Some(&path), &environment(&[]), &Flags::default());
        assert_all_known(&outcome);
        match outcome {
            Ok(_) => assert!(expected.is_empty() && name.starts_with("fine-"), "{name} has no fault"),
            Err(faults) => {
                let shown = faults.to_string();
                assert!(!shown.contains(SECRET) && !shown.contains("0123456789abcdef0"), "{name}: {shown}");
                assert_eq!(faults.iter().count(), expected.len(), "{name}: {shown}");
                for (fault, (line, what, remedy)) in faults.iter().zip(&expected) {
                    assert_eq!(fault.place.to_string(), format!("{}:{line}", path.display()), "{name}: {shown}");
                    assert!(fault.what.contains(what), "{name}: {what:?} is not in\n{shown}");
                    let remedy = remedy.as_deref().unwrap_or_default();
                    assert!(fault.remedy.contains(remedy), "{name}: {remedy:?} is not in\n{shown}");
                    assert!(fault.remedy.ends_with(['.', '?']), "{name}: a remedy is a sentence\n{shown}");
                }
            }
        }
    }
    assert!(seen > 60, "{seen}");
}

#[test]
fn faults_of_all_layers_come_together_as_a_numbered_list() {
    let file = "[server]\nmemory = \"lots\"\n";
    let variables = [("TOKENCACHED_SERVER_THREADS", "many"), ("WECHAT_APPID", APPID)];
    let shown = given(Some(file), &variables, "-c 0 -Z").unwrap_err().to_string();
    assert!(shown.starts_with("the configuration has 5 faults:\n  1. "), "{shown}");
    for part in [
        "tokencached.toml:2: server.memory: \"lots\" is not a size\n     Give a size from",
        "environment TOKENCACHED_SERVER_THREADS: server.threads: \"many\" is not a number",
        "environment WECHAT_APPID: WECHAT_SECRET is missing beside it",
        "flag -c: server.max_connections: 0 is out of range",
        "flag -Z: TLS has no certificate of the server",
    ] {
        assert!(shown.contains(part), "{part:?} is not in\n{shown}");
    }
}

#[test]
fn a_missing_file_is_a_fault() {
    let faults = load(Some(Path::new("/no/such/file.toml")), &environment(&[]), &Flags::default()).unwrap_err();
    assert!(faults.to_string().contains("/no/such/file.toml: the file cannot be read"), "{faults}");
}

#[test]
fn a_fault_in_a_lower_layer_shows_although_a_flag_overrides_it() {
    assert!(fault(Some("[server]\nthreads = 0\n"), &[], "-t 2").contains("server.threads: 0 is out of range"));
}

#[test]
fn nothing_at_all_is_a_plain_cache_on_this_machine() {
    let Loaded { config, warnings, .. } = by_flags("");
    assert_eq!(config.server.listen, ["127.0.0.1:11211".parse().unwrap()]);
    assert_eq!(config.server.memory_bytes, 64 << 20);
    assert_eq!(config.server.item_size_max_bytes, 1 << 20);
    assert_eq!(config.server.max_connections, 1024);
    assert!(config.server.threads >= 1);
    assert_eq!(config.server.backlog, 1024);
    assert_eq!(config.server.requests_per_turn, 256);
    assert_eq!(config.server.idle_timeout_s, 0);
    assert_eq!(config.server.first_get_wait_ms, 700);
    assert_eq!(config.server.refuse_with, RefuseWith::NotStored);
    assert_eq!(config.server.protocol, Protocol::Auto);
    assert_eq!(config.server.unix_mode, 0o700);
    assert!(config.server.evict && !config.server.shutdown_command);
    assert_eq!(config.credentials.upstream.base_url, "https://api.weixin.qq.com");
    assert_eq!(config.credentials.state_path, None);
    assert!(config.credentials.apps.is_empty());
    assert_eq!(warnings.len(), 1);
    assert!(warnings[0].contains("plain cache"), "{warnings:?}");
}

#[test]
fn wechats_own_hosts_are_used_unless_another_address_or_a_list_is_given() {
    let hosts = |upstream: &str| {
        given(Some(&format!("[upstream]\n{upstream}\n")), &[], "").unwrap().config.credentials.upstream.hosts
    };
    let five = ["api", "api2", "sh.api", "sz.api", "hk.api"].map(|name| format!("https://{name}.weixin.qq.com"));
    assert_eq!(hosts(""), five);
    assert_eq!(hosts("base_url = \"https://api.weixin.qq.com/\""), five);
    assert!(hosts("base_url = \"https://gateway.internal\"").is_empty());
    assert!(hosts("hosts = []").is_empty());
    assert_eq!(hosts("hosts = [\"https://b/\", \"https://a\", \"https://b\"]"), ["https://b", "https://a"]);
}

#[test]
fn flags_override_the_environment_which_overrides_the_file() {
    let file = "[server]\nthreads = 1\nbacklog = 1\nmax_connections = 1\n[log]\nverbosity = 1\n";
    let variables = [
        ("TOKENCACHED_SERVER_BACKLOG", "2"),
        ("TOKENCACHED_SERVER_MAX_CONNECTIONS", "2"),
        ("TOKENCACHED_SERVER_THREADS", ""),
    ];
    let config = given(Some(file), &variables, "-c 3").unwrap().config;
    assert_eq!((config.server.threads, config.server.backlog, config.server.max_connections), (1, 2, 3));
    assert_eq!(config.log.verbosity, 1);
}

/// Those of tables of which there is one.
fn settings() -> impl Iterator<Item = (&'static Section, &'static Setting)> {
    let sections = SECTIONS.iter().filter(|section| !section.is_list);
    sections.flat_map(|section| section.settings().map(move |setting| (section, setting)))
}

/// Without the feature a state cannot be shared, which is a fault.
#[cfg(feature = "redis")]
#[test]
fn every_setting_has_a_variable() {
    let ca = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(ca.path(), "-----BEGIN CERTIFICATE-----\n").unwrap();
    let users = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(users.path(), "a:b\n").unwrap();
    let keyed = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(keyed.path(), "-----BEGIN PRIVATE KEY-----\n").unwrap();
    let keys = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(keys.path(), "ops 0123456789abcdef0123456789abcdef status\n").unwrap();
    let values = BTreeMap::from([
        ("server.listen", "127.0.0.1:1, 127.0.0.1:2"),
        ("server.unix_socket", "/run/x/socket"),
        ("server.unix_mode", "0770"),
        ("server.unix_group", "www-data"),
        ("server.rights", "ordinary, app:wx1"),
        ("server.auth_file", users.path().to_str().unwrap()),
        ("server.tls.cert", ca.path().to_str().unwrap()),
        ("server.tls.key", ca.path().to_str().unwrap()),
        ("server.tls.client_ca", ca.path().to_str().unwrap()),
        ("server.tls.client_certificates", "optional"),
        ("server.tls.min_version", "1.3"),
        ("server.allow_unauthenticated", "yes"),
        ("server.memory", "128MiB"),
        ("server.item_size_max", "2m"),
        ("server.evict", "false"),
        ("server.max_connections", "7"),
        ("server.threads", "3"),
        ("server.backlog", "5"),
        ("server.requests_per_turn", "6"),
        ("server.idle_timeout_s", "8"),
        ("server.first_get_wait_ms", "9"),
        ("server.refuse_with", "client_error"),
        ("server.protocol", "ascii"),
        ("server.shutdown_command", "1"),
        ("server.user", "memcache"),
        ("server.pid_file", "/run/x/pid"),
        ("server.daemonize", "on"),
        ("server.lock_memory", "true"),
        ("state.path", "/var/x/state.json"),
        ("state.url", "rediss://redis.internal:6380"),
        ("state.db", "15"),
        ("state.user", "cache"),
        ("state.password_env", "WX_SECRET"),
        ("state.ca_file", ca.path().to_str().unwrap()),
        ("state.cert_file", ca.path().to_str().unwrap()),
        ("state.key_file", keyed.path().to_str().unwrap()),
        ("state.trusted_hosts", "10.0.0.0/24, *.db.internal, redis-2"),
        ("state.timeout_ms", "1616"),
        ("state.secret_env", "WX_SECRET"),
        ("state.prefix", "shop"),
        ("state.poll_every_ms", "1717"),
        ("state.node", "cache-1"),
        ("upstream.base_url", "https://gateway.internal"),
        ("upstream.hosts", "https://a.internal, https://b.internal"),
        ("upstream.ca_file", ca.path().to_str().unwrap()),
        ("upstream.connect_timeout_ms", "1001"),
        ("upstream.total_timeout_ms", "1002"),
        ("upstream.concurrency", "4"),
        ("upstream.proxy", "http://proxy.internal:3128"),
        ("http.listen", "127.0.0.1:3, [::1]:3"),
        ("http.keys_file", keys.path().to_str().unwrap()),
        ("http.allowed_hosts", "cache.internal, Other.internal"),
        ("http.trusted_proxies", "10.0.0.0/8, 127.0.0.1"),
        ("http.tls.cert", ca.path().to_str().unwrap()),
        ("http.tls.key", ca.path().to_str().unwrap()),
        ("http.tls.min_version", "1.3"),
        ("http.max_connections", "11"),
        ("http.max_connections_per_peer", "12"),
        ("http.requests_per_s", "13"),
        ("http.metrics_per_credential", "troubled"),
        ("http.wechat_expires_in_min_s", "14"),
        ("http.old_metric_names", "true"),
        ("log.json", "true"),
        ("log.advice_language", "zh"),
        ("log.verbosity", "3"),
    ]);
    // One way to give a secret, and one to have company, excludes the others: they have tests of their own.
    let name = |(section, setting): &(&Section, &Setting)| format!("{}.{}", section.name, setting.key);
    let others = |of: &(&'static Section, &'static Setting)| {
        let of_state = of.0.name == "state";
        (of_state || of.1.key.ends_with("_credential")) && !values.contains_key(name(of).as_str())
    };
    assert_eq!(settings().filter(others).count(), 6 + 6 + 7);
    let names: Vec<(String, &str)> = settings()
        .filter(|of| !others(of))
        .map(|of| (of.0.variable(of.1).unwrap(), values[name(&of).as_str()]))
        .collect();
    let variables: Vec<(&str, &str)> = names.iter().map(|(name, value)| (name.as_str(), *value)).collect();
    let loaded = by_environment(&variables);
    let printed = loaded.effective();
    for text in [
        "listen = [\"127.0.0.1:1\", \"127.0.0.1:2\"]",
        "unix_socket = \"/run/x/socket\"",
        "unix_mode = \"0770\"",
        "unix_group = \"www-data\"",
        "rights = [\"ordinary\", \"app:wx1\"]",
        "auth_file = ",
        "tls.cert = ",
        "tls.key = ",
        "tls.client_ca = ",
        "tls.client_certificates = \"optional\"",
        "tls.min_version = \"1.3\"",
        "allow_unauthenticated = true",
        "memory = \"128MiB\"",
        "item_size_max = \"2MiB\"",
        "evict = false",
        "max_connections = 7",
        "threads = 3",
        "backlog = 5",
        "requests_per_turn = 6",
        "idle_timeout_s = 8",
        "first_get_wait_ms = 9",
        "refuse_with = \"client_error\"",
        "protocol = \"ascii\"",
        "shutdown_command = true",
        "user = \"memcache\"",
        "pid_file = \"/run/x/pid\"",
        "daemonize = true",
        "lock_memory = true",
        "path = \"/var/x/state.json\"",
        "url = \"rediss://redis.internal:6380\"",
        "db = 15",
        "user = \"cache\"",
        "password_env = \"WX_SECRET\"",
        "cert_file = ",
        "key_file = ",
        "timeout_ms = 1616",
        "secret_env = \"WX_SECRET\"",
        "prefix = \"shop\"",
        "poll_every_ms = 1717",
        "node = \"cache-1\"",
        "base_url = \"https://gateway.internal\"",
        "hosts = [\"https://a.internal\", \"https://b.internal\"]",
        "ca_file = ",
        "connect_timeout_ms = 1001",
        "total_timeout_ms = 1002",
        "concurrency = 4",
        "proxy = \"http://proxy.internal:3128\"",
        "listen = [\"127.0.0.1:3\", \"[::1]:3\"]",
        "keys_file = ",
        "allowed_hosts = [\"cache.internal\", \"other.internal\"]",
        "trusted_proxies = [\"10.0.0.0/8\", \"127.0.0.1/32\"]",
        "max_connections = 11",
        "max_connections_per_peer = 12",
        "requests_per_s = 13",
        "metrics_per_credential = \"troubled\"",
        "wechat_expires_in_min_s = 14",
        "old_metric_names = true",
        "json = true",
        "verbosity = 3",
    ] {
        assert!(printed.contains(text), "{text:?} is not in\n{printed}");
    }
}

#[test]
fn a_misspelt_variable_is_warned_about_and_kubernetes_own_are_not() {
    let loaded = by_environment(&[
        ("TOKENCACHED_SERVER_LISTN", "x"),
        ("TOKENCACHED_SERVER_PORT", "tcp://10.0.0.1:11211"),
        ("TOKENCACHED_SERVER_SERVICE_HOST", "10.0.0.1"),
        ("TOKENCACHED_PORT_11211_TCP", "tcp://10.0.0.1:11211"),
    ]);
    let about: Vec<&String> = loaded.warnings.iter().filter(|text| text.contains("environment")).collect();
    assert_eq!(about.len(), 1, "{about:?}");
    assert!(about[0].contains("did you mean TOKENCACHED_SERVER_LISTEN?"), "{about:?}");
}

/// Every key of the app's access token or by configuration, each once. One may hold the secret.
pub fn names_of(app: &App) -> Vec<String> {
    let mut names = app.built_in_names(app.token);
    for alias in &app.aliases {
        if !names.contains(&alias.name) {
            names.push(alias.name.clone());
        }
    }
    names
}

#[test]
fn the_quick_start_claims_the_short_names() {
    let loaded = by_environment(&[("WECHAT_APPID", APPID), ("WECHAT_SECRET", SECRET)]);
    let app = &loaded.config.credentials.apps[0];
    assert_eq!(names_of(app), ["access_token:wx0123456789abcdef", "access_token", APPID]);
    assert_eq!(app.secret.read().unwrap().expose(), SECRET);
    assert_eq!(loaded.config.credentials.state_path, Some("/home/someone/.local/state/tokencached/state.json".into()));
    assert_eq!(loaded.warnings, Vec::<String>::new());
}

#[test]
fn the_quick_start_brings_the_secret_of_an_app_in_the_file() {
    let file = format!("[[app]]\nappid = \"{APPID}\"\nendpoint = \"token\"\n");
    let loaded = given(Some(&file), &[("WECHAT_APPID", APPID), ("WECHAT_SECRET", SECRET)], "").unwrap();
    assert_eq!(loaded.config.credentials.apps.len(), 1);
    let app = &loaded.config.credentials.apps[0];
    assert_eq!((app.token.id, names_of(app)), ("token", vec![format!("access_token:{APPID}")]));
    assert!(loaded.effective().contains("\nsecret_env = \"WECHAT_SECRET\"\n"), "{}", loaded.effective());
}

#[test]
fn the_quick_start_does_not_take_a_name_from_the_file() {
    let file = "[[app]]\nappid = \"wxfedcba9876543210\"\nsecret_env = \"WX_SECRET\"\naliases = [\"access_token\"]\n";
    let shown = fault(Some(file), &[("WECHAT_APPID", APPID), ("WECHAT_SECRET", SECRET)], "");
    assert!(shown.contains("environment WECHAT_APPID: the alias \"access_token\" is claimed by"), "{shown}");
}

#[test]
fn half_a_quick_start_is_a_fault() {
    assert!(fault(None, &[("WECHAT_SECRET", SECRET)], "").contains("WECHAT_APPID is missing"));
    assert!(fault(None, &[("WECHAT_APPID", APPID), ("WECHAT_SECRET", "a b")], "").contains("has a blank"));
}

#[test]
fn the_state_file_goes_where_the_system_says() {
    let check = |variables: &[(&str, &str)], expected: &str| {
        let app = [("WECHAT_APPID", APPID), ("WECHAT_SECRET", SECRET)];
        let loaded = by_environment(&[&app, variables].concat());
        assert_eq!(loaded.config.credentials.state_path.as_deref(), Some(Path::new(expected)));
    };
    check(&[("STATE_DIRECTORY", "/var/lib/private/tokencached:/other")], "/var/lib/private/tokencached/state.json");
    check(&[("XDG_STATE_HOME", "/x")], "/x/tokencached/state.json");
    check(&[("XDG_STATE_HOME", "relative")], "/home/someone/.local/state/tokencached/state.json");
    check(&[("TOKENCACHED_STATE_PATH", "/y/state.json")], "/y/state.json");
    let off = by_environment(&[("WECHAT_APPID", APPID), ("WECHAT_SECRET", SECRET), ("TOKENCACHED_STATE_PATH", "none")]);
    assert_eq!(off.config.credentials.state_path, None);
}

#[test]
fn addresses_and_ports_are_memcacheds() {
    assert_eq!(addresses("-p 11300"), ["127.0.0.1:11300"]);
    assert_eq!(addresses("-p -1"), ["127.0.0.1:0"]);
    assert_eq!(addresses("--port=11300"), ["127.0.0.1:11300"]);
    assert_eq!(addresses("-l 127.0.0.1,::1 -p 11300"), ["127.0.0.1:11300", "[::1]:11300"]);
    assert_eq!(addresses("-l 127.0.0.1:1 -l localhost:2,[::1]:3"), ["127.0.0.1:1", "127.0.0.1:2", "[::1]:3"]);
    assert_eq!(addresses("-l localhost"), ["127.0.0.1:11211"]);
    assert_eq!(addresses("-p 1 -p 2"), ["127.0.0.1:2"], "the last one counts");
    assert_eq!(addresses("-s /tmp/x.sock"), Vec::<String>::new());
    assert_eq!(addresses("-p 0 -s /tmp/x.sock"), Vec::<String>::new());
    let moved = given(Some("[server]\nlisten = [\"127.0.0.2:5\", \"127.0.0.2:6\"]\n"), &[], "-p 7").unwrap();
    assert_eq!(moved.config.server.listen, ["127.0.0.2:7".parse().unwrap()]);
}

#[test]
fn a_unix_socket_is_in_place_of_tcp_unless_both_are_asked_for() {
    let check = |file: &str, line: &str, tcp: usize| {
        let server = given(Some(file), &[], line).unwrap().config.server;
        assert!(server.unix_socket.is_some());
        assert_eq!(server.listen.len(), tcp, "{file} {line}");
    };
    check("[server]\nunix_socket = \"/x/s\"\n", "", 0);
    check("[server]\nunix_socket = \"/x/s\"\nlisten = [\"127.0.0.1\"]\n", "", 1);
    check("[server]\nunix_socket = \"/x/s\"\n", "-p 11300", 1);
    check("[server]\nunix_socket = \"/x/s\"\nlisten = []\n", "", 0);
    check("[server]\nlisten = [\"127.0.0.1\"]\n", "-s /x/s", 0);
    let both = by_flags("-s /x/s -p 11211");
    assert!(both.config.server.listen.is_empty());
    assert!(both.warnings.iter().any(|text| text.contains("-s switches TCP off")), "{:?}", both.warnings);
}

#[test]
fn other_machines_are_let_in_only_on_purpose() {
    let shown = fault(None, &[], "-l 0.0.0.0");
    assert!(shown.contains("flag -l: 0.0.0.0:11211 can be reached from other machines"), "{shown}");
    assert!(shown.contains("allow_unauthenticated = true"), "{shown}");
    for line in ["-l ::", "-l 10.0.0.1", "-l 127.0.0.1,192.168.0.1:1"] {
        fault(None, &[], line);
    }
    let by_flag = by_flags("-l 0.0.0.0 --allow-unauthenticated");
    assert!(by_flag.warnings.iter().any(|text| text.contains("allow_unauthenticated is in effect")));
    by_environment(&[("TOKENCACHED_SERVER_LISTEN", "::"), ("TOKENCACHED_SERVER_ALLOW_UNAUTHENTICATED", "true")]);
    given(Some("[server]\nlisten = [\"0.0.0.0\"]\nallow_unauthenticated = true\n"), &[], "").unwrap();
    by_flags("-l 127.8.9.1,[::1],[::ffff:127.0.0.1]:1");
}

#[test]
fn debians_memcached_conf_is_understood() {
    let server = by_flags("-m 64 -p 11211 -u memcache -l 127.0.0.1 -P /run/x.pid -d").config.server;
    assert_eq!(server.memory_bytes, 64 << 20);
    assert_eq!(server.listen, ["127.0.0.1:11211".parse().unwrap()]);
    assert_eq!(server.user.as_deref(), Some("memcache"));
    assert_eq!(server.pid_file, Some("/run/x.pid".into()));
    assert!(server.daemonize);
}

#[test]
fn every_flag_with_an_effect_has_it() {
    let server = |line: &str| by_flags(line).config.server;
    assert_eq!(server("-s /x/s -a 0770").unix_mode, 0o770);
    assert_eq!(server("--unix-socket=/x/s --unix-mask=777").unix_mode, 0o777);
    assert_eq!(server("-m64").memory_bytes, 64 << 20);
    assert_eq!(server("--memory-limit=2g").memory_bytes, 2 << 30);
    assert_eq!(server("-c 9").max_connections, 9);
    assert_eq!(server("--conn-limit=9").max_connections, 9);
    assert_eq!(server("-t 2").threads, 2);
    assert_eq!(server("--threads=2").threads, 2);
    assert_eq!(server("-I 2m").item_size_max_bytes, 2 << 20);
    assert_eq!(server("-I 4096").item_size_max_bytes, 4096);
    assert_eq!(server("--max-item-size=5k").item_size_max_bytes, 5120);
    assert_eq!(server("-m 1").item_size_max_bytes, 512 << 10, "the default gives way");
    assert_eq!(server("-b 99").backlog, 99);
    assert_eq!(server("--listen-backlog=99").backlog, 99);
    assert_eq!(server("-R 40").requests_per_turn, 40);
    assert_eq!(server("--max-reqs-per-event=40").requests_per_turn, 40);
    assert!(!server("-M").evict && !server("--disable-evictions").evict);
    assert!(server("-A").shutdown_command && server("--enable-shutdown").shutdown_command);
    assert_eq!(server("--user=someone").user.as_deref(), Some("someone"));
    assert!(server("-d").daemonize && server("--daemon").daemonize);
    assert_eq!(server("--pidfile=/x/pid").pid_file, Some("/x/pid".into()));
    assert!(server("-P pid").pid_file.is_some_and(|path| path.is_absolute()), "a daemon leaves its folder");
    assert!(server("-k").lock_memory && server("--lock-memory").lock_memory);
    assert_eq!(server("-o idle_timeout=30,maxconns_fast").idle_timeout_s, 30);
    assert_eq!(server("--extended=modern -o idle_timeout=30").idle_timeout_s, 30);
    let verbosity = |line: &str| by_flags(line).config.log.verbosity;
    assert_eq!(["", "-v", "-vv", "-vvv", "-vvvv", "-v -v", "--verbose"].map(verbosity), [0, 1, 2, 3, 3, 2, 1]);
    by_flags("-U0");
    by_flags("-U 0 --udp-port=0");
    assert_eq!(server("-vvm128 -Mp 11300").memory_bytes, 128 << 20, "short flags combine");
}

#[test]
fn other_machines_are_let_in_by_passwords_or_certificates_only() {
    let secrets = configs().join("secrets").display().to_string();
    let tls = format!("[server.tls]\ncert = \"{secrets}/server.pem\"\n");
    let users = format!("auth_file = \"{secrets}/users\"\n");
    let open = "[server]\nlisten = [\"0.0.0.0\"]\n";
    let refused = |file: &str| fault(Some(file), &[], "");
    assert!(refused(&format!("{open}{tls}")).contains("TLS alone hides what is said"));
    let ca = format!("client_ca = \"{secrets}/server.pem\"\n");
    assert!(refused(&format!("{open}{tls}{ca}client_certificates = \"optional\"\n")).contains("keeps strangers out"));
    let warned = |file: &str| given(Some(file), &[], "").unwrap().warnings.join("\n");
    assert!(warned(&format!("{open}{users}")).contains("in plain text"));
    for file in [format!("{open}{tls}{ca}"), format!("{open}{users}{tls}")] {
        let warnings = warned(&file);
        assert!(!warnings.contains("0.0.0.0"), "{warnings}");
    }
    let listener = "[[server.listener]]\naddress = \"0.0.0.0\"\n";
    assert!(warned(&format!("[server]\n{users}{listener}")).contains("in plain text"));
    assert!(refused(&format!("[server]\n{users}{listener}auth = false\n")).contains("keeps strangers out"));
    assert!(refused(&format!("[server]\n{listener}")).contains("keeps strangers out"));
    given(Some(&format!("[server]\n{tls}{ca}{listener}")), &[], "").unwrap();
    assert!(refused(&format!("[server]\n{tls}{ca}{listener}tls = false\n")).contains("keeps strangers out"));
}

#[test]
fn rights_of_an_app_that_is_not_there_are_warned_about() {
    let file = "[[user]]\nname = \"web\"\nrights = [\"app:wxfedcba9876543210\"]\n";
    let warnings = given(Some(file), &[("WECHAT_APPID", APPID), ("WECHAT_SECRET", SECRET)], "").unwrap().warnings;
    assert!(warnings.iter().any(|text| text.contains("wxfedcba9876543210")), "{warnings:?}");
}

#[test]
fn flags_without_effect_are_warned_about() {
    for (line, part) in [
        ("-L", "-L"),
        ("-f 1.25", "-f"),
        ("--slab-growth-factor=2", "-f"),
        ("-n 48", "-n"),
        ("-e /x", "-e"),
        ("-D :", "-D"),
        ("-C", "-C"),
        ("-F", "-F"),
        ("-X", "-X"),
        ("-W", "-W"),
        ("-o modern", "\"modern\""),
        ("-o no_lru_crawler,maxconns_fast", "\"no_lru_crawler\""),
        ("-o hashpower=20", "\"hashpower\""),
    ] {
        let warnings = by_flags(line).warnings;
        let about = warnings.iter().filter(|text| text.contains("ignored")).collect::<Vec<_>>();
        assert!(about.len() == 1 && about[0].contains(part), "{line}: {about:?}");
    }
}

#[test]
fn flags_that_cannot_be_honoured_stop_the_start() {
    for (line, part) in [
        ("-Y /no/such/users", "flag -Y: the users' file /no/such/users: No such file"),
        ("--auth-file=/no/such/users", "flag -Y"),
        ("-Y /dev/null", "it is not a regular file"),
        ("-Z", "flag -Z: TLS has no certificate of the server"),
        ("--enable-ssl", "flag -Z"),
        ("-Z -o ssl_chain_cert=/no/such.pem", "flag -o ssl_chain_cert: server.tls.cert: /no/such.pem cannot be read"),
        ("-Z -o ssl_chain_cert", "flag -o ssl_chain_cert: the value is missing"),
        ("-l 0.0.0.0", "0.0.0.0:11211 can be reached from other machines, and nothing keeps strangers out"),
        ("-S", "flag -S: SASL is asked for and nobody can log in"),
        ("--enable-sasl", "flag -S"),
        ("-S -B ascii", "flag -S: SASL is part of the binary protocol"),
        ("-U 11211", "flag -U: UDP port \"11211\": this version has no UDP"),
        ("-B text", "flag -B: server.protocol"),
        ("-p 0", "flag -p: there is nothing to listen on"),
        ("-p 65536", "flag -p: \"65536\" is not a port"),
        ("-p x", "flag -p: \"x\" is not a port"),
        ("-l 1.2.3.4.5.6", "flag -l: the name \"1.2.3.4.5.6\" has no address"),
        ("-l a:b", "flag -l: \"a:b\" is not an address"),
        ("-l ,", "nothing to listen on"),
        ("-m 0", "flag -m: server.memory: 0B is out of range"),
        ("-m x", "flag -m: server.memory: \"x\" is not a size"),
        ("-I 1", "flag -I: server.item_size_max: 1B is out of range"),
        ("-I 2g -m 8192", "flag -I: server.item_size_max: 2GiB is out of range"),
        ("-I 33m", "flag -I: server.item_size_max: an item of 33MiB is more than half of the memory, 64MiB"),
        ("-c 0", "flag -c"),
        ("-t 0", "flag -t"),
        ("-b 0", "flag -b"),
        ("-R 0", "flag -R"),
        ("-a 999", "flag -a: server.unix_mode: the access mask is not octal"),
        ("-o idle_timeout", "flag -o idle_timeout: the number of seconds is missing"),
        ("-o idle_timeout=x", "flag -o idle_timeout: server.idle_timeout_s"),
    ] {
        let shown = fault(None, &[], line);
        assert!(shown.contains(part), "{line}: {part:?} is not in\n{shown}");
    }
}

#[test]
fn the_protocols_are_memcacheds_choice() {
    let folder = tempfile::tempdir().unwrap();
    let users = folder.path().join("users");
    std::fs::write(&users, "alice:secret\n").unwrap();
    let users = users.display();
    for (line, protocol) in [
        ("-B auto".to_owned(), Protocol::Auto),
        ("-B auto-negotiate".to_owned(), Protocol::Auto),
        ("--protocol=ascii".to_owned(), Protocol::Ascii),
        ("-B binary".to_owned(), Protocol::Binary),
        (format!("-Y {users}"), Protocol::Auto),
        (format!("-S -Y {users}"), Protocol::Binary),
        (format!("--enable-sasl -B auto -Y {users}"), Protocol::Binary),
    ] {
        assert_eq!(by_flags(&line).config.server.protocol, protocol, "{line}");
    }
}

#[test]
fn an_inline_secret_and_an_open_file_are_warned_about() {
    use std::os::unix::fs::PermissionsExt;
    let file = format!("[[app]]\nappid = \"{APPID}\"\nsecret = \"{SECRET}\"\n");
    let loaded = given(Some(&file), &[], "").unwrap();
    assert!(loaded.warnings.iter().any(|text| text.contains(":3: the secret is written")), "{:?}", loaded.warnings);

    let folder = tempfile::tempdir().unwrap();
    let secret = folder.path().join("secret");
    std::fs::write(&secret, SECRET).unwrap();
    let file = format!("[[app]]\nappid = \"{APPID}\"\nsecret_file = \"{}\"\n", secret.display());
    for (mode, warned) in [(0o640, true), (0o604, true), (0o600, false), (0o400, false)] {
        std::fs::set_permissions(&secret, std::fs::Permissions::from_mode(mode)).unwrap();
        let warnings = given(Some(&file), &[], "").unwrap().warnings;
        assert_eq!(warnings.iter().any(|text| text.contains("others may read")), warned, "{mode:o} {warnings:?}");
    }
}

#[test]
fn an_unusual_appid_is_warned_about_and_taken() {
    let loaded = by_environment(&[("WECHAT_APPID", "wxABC"), ("WECHAT_SECRET", SECRET)]);
    assert!(loaded.warnings[0].contains("does not look like"), "{:?}", loaded.warnings);
    assert_eq!(loaded.config.credentials.apps[0].appid, "wxABC");
}

#[test]
fn a_replaced_secret_file_is_seen() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("secret");
    std::fs::write(&path, "first\n").unwrap();
    let source = SecretSource::file(&path);
    assert_eq!(source.read().unwrap().expose(), "first");
    std::fs::write(&path, "second\n").unwrap();
    assert_eq!(source.read().unwrap().expose(), "second");
}

#[test]
fn no_debug_output_shows_a_secret() {
    let file = format!(
        "[[app]]\nappid = \"{APPID}\"\nsecret = \"{SECRET}\"\n[upstream]\nproxy = \"http://me:passw0rd@proxy:3128\"\n"
    );
    let loaded = given(Some(&file), &[], "").unwrap();
    let everything = format!("{loaded:?} {loaded:#?} {} {:?}", loaded.effective(), loaded.warnings);
    assert!(!everything.contains(SECRET) && !everything.contains("passw0rd"), "{everything}");
    assert_eq!(loaded.config.credentials.apps[0].secret.read().unwrap().expose(), SECRET);
}

#[test]
fn what_check_prints_loads_again() {
    for name in ["fine-everything.toml", "fine-access.toml"] {
        let first = load(Some(&configs().join(name)), &environment(&[]), &Flags::default()).unwrap();
        let printed = first.effective();
        let second = given(Some(&printed), &[], "").unwrap_or_else(|faults| panic!("{faults}\n{printed}"));
        assert_eq!(second.effective(), printed);
        assert_eq!(format!("{:?}", second.config), format!("{:?}", first.config));
    }

    let plain = by_flags("-s /x/s -M").effective();
    assert_eq!(given(Some(&plain), &[], "").unwrap().effective(), plain);
}

#[test]
fn authorizers_stand_below_their_component_and_what_check_prints_of_them_loads_again() {
    let first = load(Some(&configs().join("fine-component.toml")), &environment(&[]), &Flags::default()).unwrap();
    let about_files = |warning: &String| warning.contains("others may read");
    assert!(first.warnings.iter().all(about_files), "{:?}", first.warnings);
    let components: Vec<Option<&str>> =
        first.config.credentials.apps.iter().map(|app| app.component.as_deref()).collect();
    assert_eq!(components, [None, Some(APPID), Some(APPID), Some(APPID), None]);
    let token = "access_token:wx1123456789abcdef";
    assert!(names_of(&first.config.credentials.apps[1]).contains(&token.to_owned()));
    assert!(names_of(&first.config.credentials.apps[1]).contains(&format!("authorizer_{token}")));
    let printed = first.effective();
    let second = given(Some(&printed), &[], "").unwrap_or_else(|faults| panic!("{printed}\n{faults}"));
    assert_eq!(second.effective(), printed);
    assert_eq!(format!("{:?}", second.config), format!("{:?}", first.config));
}

#[test]
fn an_authorizer_needs_a_state_file() {
    let file = format!(
        "[state]\npath = \"none\"\n[[app]]\nplatform = \"component\"\nappid = \"{APPID}\"\nsecret_env = \"WX_SECRET\"\n\
         verify_ticket_file = \"ticket\"\n"
    );
    assert!(given(Some(&file), &[], "").is_ok(), "a component alone can have its token anew");
    let with = format!("{file}[[app.authorizer]]\nappid = \"wx1123456789abcdef\"\nrefresh_token_env = \"WX_SECRET\"\n");
    let fault = fault(Some(&with), &[], "");
    assert!(fault.contains("refresh token") && fault.contains("state.path"), "{fault}");
}

#[test]
fn a_component_without_a_ticket_file_and_a_refresh_token_in_the_file_are_warned_about() {
    let file = format!(
        "[[app]]\nplatform = \"component\"\nappid = \"{APPID}\"\nsecret_env = \"WX_SECRET\"\n[[app.authorizer]]\n\
         appid = \"wx1123456789abcdef\"\nrefresh_token = \"refreshtoken@@@R\"\n"
    );
    let loaded = given(Some(&file), &[], "").unwrap();
    let warned = loaded.warnings.join("\n");
    assert!(warned.contains("hands in its verify ticket") && warned.contains("refresh_token_file"), "{warned}");
    let shown = format!("{warned}{}{:?}", loaded.effective(), loaded.config);
    assert!(!shown.contains("refreshtoken@@@R"), "{shown}");
}

/// The file of all sinks' keys, and the sinks of what `check` prints of it.
#[cfg(feature = "redis")]
#[test]
fn what_check_prints_of_sinks_is_the_same_sinks_and_no_password() {
    let path = configs().join("fine-sinks.toml");
    let first = load(Some(&path), &environment(&[]), &Flags::default()).unwrap_or_else(|faults| panic!("{faults}"));
    let printed = first.effective();
    assert!(!printed.contains(SECRET) && !format!("{:?}", first.config).contains(SECRET), "{printed}");
    let second = given(Some(&printed), &[], "").unwrap_or_else(|faults| panic!("{faults}\n{printed}"));
    let shown = |loaded: &Loaded| format!("{:?}", loaded.config.sinks);
    assert_eq!(shown(&first), shown(&second));
    let keys = |at: usize| -> Vec<(&str, &str)> {
        first.config.sinks[at].entries.iter().map(|key| (key.app.as_str(), key.redacted_name())).collect()
    };
    let (one, agent) = (APPID, "ww0123456789abcdef:1000002");
    let everything = [
        (one, "access_token:wx0123456789abcdef"),
        (one, "jsapi_ticket:wx0123456789abcdef"),
        ("wxfedcba9876543210", "access_token:wxfedcba9876543210"),
        (agent, "access_token:ww0123456789abcdef:1000002"),
    ];
    assert_eq!(keys(0), everything);
    let of_presets = keys(1);
    for key in [
        "access_token",
        "{wx0123456789abcdef}:jsapi_ticket",
        "json:access_token",
        "shop:WCH_access_token",
        "shop:official_account.access_token.wx0123456789abcdef.{secret}.0",
        "shop:jsapi_last_time",
    ] {
        assert!(of_presets.contains(&(one, key)), "{key} is not in {of_presets:?}");
    }
    assert!(of_presets.iter().all(|(app, key)| *app == one && !key.ends_with("access_token_expires_at")));
    assert_eq!(keys(2), [(agent, "1000002")]);
}

#[test]
fn what_check_prints_of_sinks_of_files_is_the_same_sinks() {
    let path = configs().join("fine-sinks-files.toml");
    let first = load(Some(&path), &environment(&[]), &Flags::default()).unwrap_or_else(|faults| panic!("{faults}"));
    let printed = first.effective();
    let second = given(Some(&printed), &[], "").unwrap_or_else(|faults| panic!("{faults}\n{printed}"));
    let shown = |loaded: &Loaded| format!("{:?}", loaded.config.sinks);
    assert_eq!(shown(&first), shown(&second));
    let files = |at: usize| -> Vec<&str> { first.config.sinks[at].entries.iter().map(|of| of.name.as_str()).collect() };
    let of_kinds = ["/srv/sites/wx0123456789abcdef/access_token.php", "/srv/sites/wx0123456789abcdef/jsapi_ticket.php"];
    assert_eq!(files(0), [of_kinds[0], of_kinds[1], "/srv/sites/wxfedcba9876543210/access_token.php"]);
    assert_eq!(files(1), ["/srv/cache/wx0123456789abcdef_access_token", "/srv/cache/wx0123456789abcdef_ticket_jsapi"]);
    assert_eq!(files(2)[2], "/srv/ww0123456789abcdef:1000002.txt");
    assert_eq!(files(3), [configs().join("relative/own.php").to_str().unwrap()]);
}

/// An appid that could lead out of the folder.
#[test]
fn an_appid_that_is_no_plain_name_gets_into_no_path() {
    for appid in ["../../etc/cron.d/x", "wx/1", "..", "wx.php", "wx'1"] {
        let app = format!("[[app]]\nappid = \"{appid}\"\nsecret_env = \"WX_SECRET\"\n");
        let shown = fault(Some(&format!("{app}[[sink]]\nfile = \"/srv/{{appid}}\"\n")), &[], "");
        assert!(shown.contains("cannot stand in a path"), "{shown}");
    }
}

/// The same of databases.
#[cfg(feature = "sql")]
#[test]
fn what_check_prints_of_sinks_of_databases_is_the_same_sinks_and_no_password() {
    let path = configs().join("fine-sinks-sql.toml");
    let first = load(Some(&path), &environment(&[]), &Flags::default()).unwrap_or_else(|faults| panic!("{faults}"));
    let printed = first.effective();
    assert!(!printed.contains(SECRET) && !format!("{:?}", first.config).contains(SECRET), "{printed}");
    let second = given(Some(&printed), &[], "").unwrap_or_else(|faults| panic!("{faults}\n{printed}"));
    let shown = |loaded: &Loaded| format!("{:?}", loaded.config.sinks);
    assert_eq!(shown(&first), shown(&second));
    let credentials =
        |at: usize| -> Vec<String> { first.config.sinks[at].entries.iter().map(|entry| entry.managed_key()).collect() };
    let (one, other) = (APPID, "wxfedcba9876543210");
    let both = vec![format!("access_token:{one}"), format!("jsapi_ticket:{one}")];
    let tokens = vec![format!("access_token:{one}"), format!("access_token:{other}")];
    assert_eq!(credentials(0), both, "rows of both types");
    assert_eq!(credentials(1), [both, vec![format!("access_token:{other}")]].concat(), "every type, by {{type}}");
    assert_eq!((credentials(2), credentials(4)), (tokens.clone(), tokens), "the apps' tokens");
    assert_eq!(credentials(3), [format!("access_token:{other}")]);
    let warnings = first.warnings.join("\n");
    assert!(warnings.contains("nobody looks whether it is 10.0.0.1"), "{warnings}");
    assert!(!warnings.contains("db.internal"), "TLS is verified there without a word: {warnings}");
}

#[cfg(feature = "redis")]
#[test]
fn a_key_that_all_apps_would_share_is_one_fault() {
    let apps: String =
        (0..9).map(|n| format!("[[app]]\nappid = \"wx{n:016x}\"\nsecret_env = \"WX_SECRET\"\n")).collect();
    let shown = fault(Some(&format!("{apps}[[sink]]\nurl = \"redis://localhost\"\nkeys = [\"token\"]\n")), &[], "");
    assert!(shown.contains("put {appid} into the key"), "{shown}");
}

#[cfg(feature = "redis")]
#[test]
fn a_sink_beyond_this_machine_without_tls_is_warned_about() {
    let warned = |url: &str| {
        let loaded = given(Some(&format!("[[sink]]\nurl = \"{url}\"\n")), &[], "").unwrap();
        loaded.warnings.iter().any(|warning| warning.contains("in the clear"))
    };
    assert!(warned("redis://10.0.0.5"));
    for quiet in ["redis://localhost", "redis://127.0.0.1:7000/1", "redis://[::1]", "rediss://10.0.0.5", "unix:/r.sock"]
    {
        assert!(!warned(quiet), "{quiet}");
    }
}

#[test]
fn the_example_file_loads_and_names_every_key() {
    let path = root().join("deploy/tokencached.toml");
    let text = std::fs::read_to_string(&path).unwrap();
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join(APPID), SECRET).unwrap();
    let environment = environment(&[("CREDENTIALS_DIRECTORY", folder.path().to_str().unwrap())]);
    let loaded = load(Some(&path), &environment, &Flags::default()).unwrap_or_else(|faults| panic!("{faults}"));
    assert_eq!(names_of(&loaded.config.credentials.apps[0]), [&format!("access_token:{APPID}"), "access_token"]);
    let process = ["user", "pid_file", "daemonize", "lock_memory"]; // systemd's work
    for (_, setting) in settings() {
        assert!(process.contains(&setting.key) || text.contains(&format!("{} = ", setting.key)), "{}", setting.key);
    }
    let without = load(Some(&path), &BTreeMap::new(), &Flags::default()).unwrap_err();
    assert_eq!(without.iter().count(), 1, "apart from the secret it is complete: {without}");
    assert!(matches!(without.iter().next().unwrap().place, Place::Line { .. }));
}

/// `%i` is the number of the instance.
#[cfg(feature = "redis")]
#[test]
fn the_example_of_several_nodes_loads_as_its_unit_starts_it() {
    let unit = std::fs::read_to_string(root().join("deploy/tokencached@.service")).unwrap().replace("%i", "2");
    let line = |name: &str| unit.lines().find_map(|line| line.strip_prefix(name)).unwrap();
    let folder = tempfile::tempdir().unwrap();
    for credential in unit.lines().filter_map(|line| line.strip_prefix("LoadCredential=")) {
        let file = folder.path().join(credential.split(':').next().unwrap());
        std::fs::write(&file, SECRET).unwrap();
        std::fs::set_permissions(file, std::os::unix::fs::PermissionsExt::from_mode(0o600)).unwrap();
    }
    let mut given = vec![("CREDENTIALS_DIRECTORY", folder.path().to_str().unwrap())];
    given.extend(line("Environment=").split(' ').filter_map(|variable| variable.split_once('=')));
    let start = line("ExecStart=").split_once("several.toml ").unwrap().1;
    let path = root().join("deploy/several.toml");
    let loaded = load(Some(&path), &environment(&given), &flags(start)).unwrap_or_else(|faults| panic!("{faults}"));
    assert!(loaded.warnings.is_empty(), "{:?}", loaded.warnings);
    assert_eq!(loaded.config.server.listen, ["127.0.0.1:11212".parse().unwrap()]);
    let shown = loaded.effective();
    assert!(shown.contains("node = \"node-2\"") && shown.contains("127.0.0.1:2132"), "{shown}");
}

/// Its name server knows that one name, if any.
struct FakeResolver {
    ipv6: bool,
    known: Option<(&'static str, [&'static str; 2])>,
}

impl Environment for FakeResolver {
    fn get(&self, _: &str) -> Option<std::ffi::OsString> {
        None
    }
    fn names(&self) -> Vec<String> {
        Vec::new()
    }
    fn is_root(&self) -> bool {
        true
    }
    fn host_name(&self) -> String {
        String::new()
    }
    fn resolve(&self, host: &str) -> std::io::Result<Vec<std::net::IpAddr>> {
        let (name, addresses) = self.known.unwrap_or_else(|| panic!("{host} is not to be looked up"));
        assert_eq!(host, name);
        Ok(addresses.map(|address| address.parse().unwrap()).to_vec())
    }
    fn has_ipv6_loopback(&self) -> bool {
        self.ipv6
    }
}

#[test]
fn a_host_name_is_looked_up() {
    let machine = FakeResolver { ipv6: false, known: Some(("cache.internal", ["127.0.0.5", "127.0.0.6"])) };
    let listen = load(None, &machine, &flags("-l cache.internal:9")).unwrap().config.server.listen;
    assert_eq!(listen, ["127.0.0.5:9".parse().unwrap(), "127.0.0.6:9".parse().unwrap()]);
}

/// As memcached does. A machine without IPv6 has the one address, and starts.
#[test]
fn localhost_is_both_loopback_addresses_where_there_are_both() {
    let listen = |ipv6| {
        let machine = FakeResolver { ipv6, known: None };
        load(None, &machine, &flags("-l localhost:9")).unwrap().config.server.listen
    };
    assert_eq!(listen(true), ["127.0.0.1:9".parse().unwrap(), "[::1]:9".parse().unwrap()]);
    assert_eq!(listen(false), ["127.0.0.1:9".parse().unwrap()]);
}

#[test]
fn ten_thousand_apps_load_in_a_moment() {
    use std::fmt::Write;
    let mut file = String::new();
    for app in 0..10_000 {
        write!(file, "[[app]]\nappid = \"wx{app:016x}\"\nsecret_env = \"WX_SECRET\"\naliases = [\"a{app}\"]\n")
            .unwrap();
    }
    assert_eq!(given(Some(&file), &[], "").unwrap().config.credentials.apps.len(), 10_000);
    #[cfg(feature = "redis")]
    {
        let first = given(Some(&format!("{file}[[sink]]\nurl = \"redis://localhost\"\n")), &[], "").unwrap();
        let second = given(Some(&first.effective()), &[], "").unwrap();
        assert_eq!((first.config.sinks[0].entries.len(), second.config.sinks[0].entries.len()), (10_000, 10_000));
    }
}

#[test]
fn commands_and_their_defaults() {
    let parse = |line: &str| cli::parse_from(std::iter::once("tokencached").chain(line.split_whitespace()));
    let Ok(CliCommand::Serve(serve)) = parse("serve --config /x.toml -p 1") else { panic!() };
    assert_eq!((serve.config, serve.flags.port.as_deref()), (Some("/x.toml".into()), Some("1")));
    let Ok(CliCommand::Demo(demo)) = parse("demo -p 11300 --lifetime 2m") else { panic!() };
    assert_eq!((demo.port, demo.listen.to_string(), demo.lifetime.as_secs()), (11300, "127.0.0.1".into(), 120));
    let Ok(CliCommand::Sandbox(sandbox)) = parse("sandbox") else { panic!() };
    assert_eq!((sandbox.listen.port(), sandbox.lifetime.as_secs(), sandbox.apps.len()), (8765, 7200, 0));
    let line = "sandbox --qq 11:s --feishu cli_1:s --component wxc:s --authorizer wxc:wxa:r --authorizer wxc:wxb:r";
    let Ok(CliCommand::Sandbox(sandbox)) = parse(line) else { panic!() };
    assert_eq!((sandbox.qq.len(), sandbox.feishu.len(), sandbox.components.len()), (1, 1, 1));
    assert_eq!(sandbox.authorizers[1].id, "wxb");
    let line = "sandbox --app wx1:s1 --app wx2:s2 --wecom ww1:s3 --allow-ip 10.0.0.1 --overlap 1s --stable-window 2s";
    let Ok(CliCommand::Sandbox(sandbox)) = parse(line) else { panic!() };
    assert_eq!((sandbox.apps.len(), sandbox.wecom[0].id.as_str(), sandbox.allow_ips.len()), (2, "ww1", 1));
    let Ok(CliCommand::Check(check)) = parse("check --live --config /x.toml -m 128") else { panic!() };
    assert!(check.live && check.serve.flags.memory_limit.as_deref() == Some("128"));
    assert!(matches!(parse("version"), Ok(CliCommand::Version)));
    for line in [
        "check --quiet --print",
        "version extra",
        "serve extra",
        "demo --lifetime 0s",
        "sandbox --tls-cert x",
        "--no-such-flag",
        "nonsense",
    ] {
        assert!(parse(line).is_err(), "{line}");
    }
    for (line, kind) in [
        ("-h", clap::error::ErrorKind::DisplayHelp),
        ("--help", clap::error::ErrorKind::DisplayHelp),
        ("-V", clap::error::ErrorKind::DisplayVersion),
        ("--version", clap::error::ErrorKind::DisplayVersion),
        ("help", clap::error::ErrorKind::DisplayHelp),
        ("help check", clap::error::ErrorKind::DisplayHelp),
    ] {
        assert_eq!(parse(line).unwrap_err().kind(), kind, "{line}");
    }
}
