//! A settings file of version 7ffe52d still works: every name that a setting had then is read, and each renamed one brings
//! a notice with its new name.
#![allow(clippy::unwrap_used, reason = "a test says by panicking what went wrong")]

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use tokencached::config::{Loaded, load};

use crate::config::{APPID, environment, given};
use crate::support::{self, Client, Node, Wechat, wait_for};

/// Every setting of 7ffe52d; those of a list of tables with the list's name before them.
const SETTINGS_THEN: &str = "
    server: listen unix_socket unix_mode unix_group rights auth_file tls.cert tls.key tls.client_ca
    tls.client_certificates tls.min_version allow_unauthenticated memory item_size_max evict max_connections threads
    backlog requests_per_turn idle_timeout_s first_get_wait_ms refuse_with protocol shutdown_command user pid_file
    daemonize lock_memory
    server.listener: address rights auth tls mode group
    state: path url db user password password_file password_env password_credential ca_file cert_file key_file timeout_ms
    secret secret_file secret_env secret_credential prefix poll_every_ms node upstream upstream_key upstream_key_file
    upstream_key_env upstream_key_credential upstream_ca_file
    upstream: base_url hosts ca_file connect_timeout_ms total_timeout_ms concurrency proxy
    side: listen keys_file allowed_hosts trusted_proxies tls.cert tls.key tls.min_version max_connections
    max_connections_per_peer requests_per_s wechat_expires_in_min_s
    log: json verbosity
    app: appid secret secret_file secret_env secret_credential kind endpoint agent base_url aliases daily_quota fallback
    forced_per_day probe_every_s presets prefix tickets verify_ticket_file
    app.authorizer: appid refresh_token refresh_token_file refresh_token_env refresh_token_credential aliases daily_quota
    presets prefix tickets
    user: name rights
    certificate: name rights
    sink: url db user password password_file password_env password_credential ca_file cert_file key_file apps kinds keys
    presets prefix ttl ttl_margin_s check_every_s rewrite_every_s timeout_ms
";

/// The files of then, each with the settings that have another name now: old, new.
const FILES: &[(&str, &[(&str, &str)])] = &[
    ("fine-before-7ffe52d.toml", &[("[side]", "[http]"), ("kind", "platform")]),
    ("fine-before-7ffe52d-sinks.toml", &[("kind", "platform"), ("kinds", "types")]),
    (
        "fine-before-7ffe52d-follower.toml",
        &[
            ("upstream", "leader_urls"),
            ("upstream_key_file", "leader_key_file"),
            ("upstream_ca_file", "leader_ca_file"),
        ],
    ),
];

/// Settings that shut each other out, so that no file above has them: lines of `[state]`, and what has another name now.
const VARIANTS: &[(&str, &[(&str, &str)])] = &[
    ("url = \"redis://127.0.0.1\"\nsecret_env = \"WX_SECRET\"\npassword = \"p\"", &[]),
    ("url = \"redis://127.0.0.1\"\nsecret_credential = \"good.secret\"\npassword_env = \"WX_SECRET\"", &[]),
    ("url = \"redis://127.0.0.1\"\nsecret = \"a-secret-of-nodes\"\npassword_credential = \"good.secret\"", &[]),
    (
        "url = \"rediss://localhost\"\nsecret_env = \"WX_SECRET\"\nca_file = \"{pem}\"\ncert_file = \"{pem}\"\n\
         key_file = \"{pem}\"",
        &[],
    ),
    (
        "upstream = \"http://127.0.0.1:2130\"\nupstream_key = \"0123456789-key\"",
        &[("upstream", "leader_urls"), ("upstream_key", "leader_key")],
    ),
    (
        "upstream = \"http://127.0.0.1:2130\"\nupstream_key_env = \"WX_SECRET\"",
        &[("upstream", "leader_urls"), ("upstream_key_env", "leader_key_env")],
    ),
    (
        "upstream = \"http://127.0.0.1:2130\"\nupstream_key_credential = \"good.secret\"",
        &[("upstream", "leader_urls"), ("upstream_key_credential", "leader_key_credential")],
    ),
];

fn configs() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/configs")
}

fn variant(state: &str) -> String {
    let pem = configs().join("secrets/server.pem");
    let state = state.replace("{pem}", &pem.display().to_string());
    // A node that only follows has no secret.
    let secret = if state.contains("upstream") { "" } else { "secret_env = \"WX_SECRET\"\n" };
    format!("[state]\n{state}\nnode = \"cache-1\"\n[[app]]\nappid = \"{APPID}\"\n{secret}")
}

/// Whether the text has that name, and not only a longer one with it inside.
fn has_name(text: &str, name: &str) -> bool {
    if name.starts_with('[') {
        return text.contains(name);
    }
    text.split(|c: char| !(c.is_ascii_alphanumeric() || c == '_')).any(|word| word == name)
}

/// One notice for each old name, however often it is used, and none without one.
#[track_caller]
fn assert_notices(loaded: &Loaded, renamed: &[(&str, &str)], about: &str) {
    let all = &loaded.notices;
    for (old, new) in renamed {
        let notices = all.iter().filter(|notice| has_name(notice, old) && has_name(notice, new));
        assert_eq!(notices.count(), 1, "{about}: {old} is {new} now: {all:?}");
    }
    // With the old section the metrics have other names too.
    let of_metrics = all.iter().filter(|notice| notice.contains("old_metric_names = true")).count();
    assert_eq!(of_metrics, usize::from(renamed.contains(&("[side]", "[http]"))), "{about}: {all:?}");
    assert_eq!(all.len(), renamed.len() + of_metrics, "{about}: {all:?}");
}

/// `section.key` of every setting in a table, as [`SETTINGS_THEN`] has them.
fn settings_of(section: &str, table: &toml::Table, seen: &mut BTreeSet<String>) {
    for (key, value) in table {
        match value {
            toml::Value::Table(inner) if key == "tls" => {
                seen.extend(inner.keys().map(|inner| format!("{section}.tls.{inner}")));
            }
            toml::Value::Table(inner) => settings_of(key, inner, seen),
            toml::Value::Array(items) if items.iter().any(toml::Value::is_table) && key != "keys" => {
                let name = if section.is_empty() { key.clone() } else { format!("{section}.{key}") };
                items.iter().filter_map(toml::Value::as_table).for_each(|item| settings_of(&name, item, seen));
            }
            _ => {
                seen.insert(format!("{section}.{key}"));
            }
        }
    }
}

#[test]
fn the_files_of_then_use_every_setting_of_then() {
    let mut then = BTreeSet::new();
    let mut section = "";
    for word in SETTINGS_THEN.split_whitespace() {
        match word.strip_suffix(':') {
            Some(name) => section = name,
            None => drop(then.insert(format!("{section}.{word}"))),
        }
    }
    let files = FILES.iter().map(|(name, _)| std::fs::read_to_string(configs().join(name)).unwrap());
    let texts = files.chain(VARIANTS.iter().map(|(state, _)| variant(state)));
    let mut used = BTreeSet::new();
    texts.for_each(|text| settings_of("", &text.parse().unwrap(), &mut used));
    assert_eq!(used, then);
}

#[cfg(all(feature = "redis", feature = "sql"))]
#[test]
fn every_setting_of_then_is_read_and_a_notice_gives_each_new_name() {
    for (name, renamed) in FILES {
        let loaded = load(Some(&configs().join(name)), &environment(&[]), &Default::default());
        assert_notices(&loaded.unwrap_or_else(|faults| panic!("{name}: {faults}")), renamed, name);
    }
    for (state, renamed) in VARIANTS {
        let loaded = given(Some(&variant(state)), &[], "");
        assert_notices(&loaded.unwrap_or_else(|faults| panic!("{state}: {faults}")), renamed, state);
    }
}

/// `{kind}` is `{type}` wherever a sink fills it in, without a notice.
#[cfg(all(feature = "redis", feature = "sql"))]
#[test]
fn the_placeholder_of_then_is_filled_in() {
    let sinks_of_then = "[[sink]]\nurl = \"redis://127.0.0.1\"\nkeys = [\"site:{kind}\", \"{{kind}}:{md5:{kind}}\"]\n\
                 [[sink]]\nfile = \"/srv/site/{kind}.php\"\ntemplate = \"<?php '{kind}' => '{value}'\"\n\
                 [[sink]]\nurl = \"sqlite:/srv/site.db\"\nstatement = \"UPDATE t SET v = {value} WHERE k = {kind} AND a = {appid}\"\n\
                 [[sink]]\ncommand = [\"/bin/true\", \"{kind}\"]\n";
    let app = format!("[[app]]\nappid = \"{APPID}\"\nsecret_env = \"WX_SECRET\"\ntickets = [\"jsapi\"]\n");
    let sinks = |sinks: &str| {
        let loaded = given(Some(&format!("{app}{sinks}")), &[], "").unwrap_or_else(|faults| panic!("{faults}"));
        assert!(loaded.notices.is_empty(), "{:?}", loaded.notices);
        loaded.config.sinks
    };
    let (then, now) = (sinks(sinks_of_then), sinks(&sinks_of_then.replace("{kind}", "{type}")));
    for (then, now) in then.iter().zip(&now) {
        assert!(then.entries.len() >= 2, "{then}");
        assert_eq!(then.entries, now.entries);
    }
}

/// What they say is what is in effect, under the new names.
#[test]
fn what_check_prints_of_old_names_has_the_new_ones() {
    let load = |name: &str| load(Some(&configs().join(name)), &environment(&[]), &Default::default()).unwrap();
    let printed = load("fine-before-7ffe52d.toml").effective();
    for new in ["[http]\nlisten = [\"127.0.0.1:2130\", \"10.0.0.1:2130\"]", "platform = \"wecom\""] {
        assert!(printed.contains(new), "{new} is not in\n{printed}");
    }
    assert!(!printed.contains("[side]") && !printed.contains("\nkind = "), "{printed}");
    let printed = load("fine-before-7ffe52d-follower.toml").effective();
    let urls = "leader_urls = [\"https://10.0.0.1:2130\", \"https://10.0.0.2:2130\"]";
    assert!(
        printed.contains(urls) && printed.contains("\nleader_key_file = ") && !printed.contains("\nupstream"),
        "{printed}"
    );
}

#[test]
fn variables_of_then_are_read_and_a_notice_gives_each_new_name() {
    let file = format!("[[app]]\nappid = \"{APPID}\"\nsecret_env = \"WX_SECRET\"\n");
    let variables = [("TOKENCACHED_SIDE_LISTEN", "127.0.0.1:2140"), ("TOKENCACHED_SIDE_REQUESTS_PER_S", "7")];
    let loaded = given(Some(&file), &variables, "").unwrap();
    let printed = loaded.effective();
    assert!(printed.contains("127.0.0.1:2140") && printed.contains("requests_per_s = 7"), "{printed}");
    for new in ["TOKENCACHED_HTTP_LISTEN", "TOKENCACHED_HTTP_REQUESTS_PER_S"] {
        let notices = loaded.notices.iter().filter(|notice| has_name(notice, new));
        assert_eq!(notices.count(), 1, "{new}: {:?}", loaded.notices);
    }
    let variables =
        [("TOKENCACHED_STATE_UPSTREAM", "http://127.0.0.1:2130"), ("TOKENCACHED_STATE_UPSTREAM_KEY_ENV", "WX_SECRET")];
    let file = format!("[[app]]\nappid = \"{APPID}\"\n");
    let loaded = given(Some(&file), &variables, "").unwrap();
    for new in ["TOKENCACHED_STATE_LEADER_URLS", "TOKENCACHED_STATE_LEADER_KEY_ENV"] {
        let notices = loaded.notices.iter().filter(|notice| has_name(notice, new));
        assert_eq!(notices.count(), 1, "{new}: {:?}", loaded.notices);
    }
}

#[test]
fn a_server_starts_with_a_file_of_then_and_its_log_has_the_notices() {
    let wechat = Wechat::start();
    let config = format!(
        "[state]\npath = \"none\"\n[upstream]\nbase_url = \"{}\"\n[side]\nlisten = [\"127.0.0.1:0\"]\n[[app]]\n\
         appid = \"{}\"\nsecret = \"{}\"\nkind = \"mp\"\n",
        wechat.base_url(),
        support::APPID,
        support::SECRET
    );
    let node = Node::start(&config, &[]);
    let mut client = Client::connect(node.address);
    wait_for("the token", || client.get(&format!("access_token:{}", support::APPID)));
    wait_for("a notice for each old name", || {
        let log = node.log();
        let notice = |old, new| log.lines().any(|line| has_name(line, old) && has_name(line, new));
        (notice("[side]", "[http]") && notice("kind", "platform")).then_some(())
    });
}
