//! House rules as tests: which module may import which, which are pure, which names there may not be.

mod imports;
mod names;

use std::collections::BTreeSet;
use std::sync::LazyLock;

use self::imports::{Import, Modules};
use crate::support::rust_sources;

/// The house from the roof down, a row a line: modules, and what they may use of the others. A module's row is the one
/// that names it or the nearest folder it is in. What a row uses stands further down, so that nothing goes round in a
/// circle and parts of one storey do not know each other.
const HOUSE: &str = "
main -> app app/options check cli clock config demo descriptors health process server/options sink telemetry
check -> app/options cluster/options config credential credential/app platform platform/client platform/client/options
    process redis_client secret secret_source server server/options sink sink/options texts unit
demo -> app app/options cli credential/app credential/options http_api http_api/options platform
    platform/client/options network sandbox secret secret_source server/options telemetry
app -> app/options cache cluster/options credential credential/refresher credential/state_lock descriptors files
    http_api http_api/options process server server/options service service/options sink sink/options stats
    supervision telemetry
config -> access app/options byte_size cli cluster/options credential/alias_templates credential/app credential/app_name
    credential/collisions credential/options descriptors encoding environment files http_api/options invalid_value network platform
    platform/client/address platform/client/options platform/client/surroundings preset redis_client/address
    redis_client/options secret secret_source server/listen_address server/options service/options sink/file_presets
    sink/files sink/keys sink/options sink/sql_address sink/sql_presets sink/sql_statement sink/template
    sink/validate telemetry texts tls
health -> app/options http_api/options network server/options tls
cli -> invalid_value secret texts
app/options -> credential/options http_api/options invalid_value server/options sink/options telemetry

# What clients and the site's stores talk to, and what renews: none of these four knows another.
http_api -> access address_group clock credential/app credential/facts credential/journal credential/table descriptors
    files http_api/options http_server network rate_limit secret secret_source service stats supervision texts tls
server -> access address_group cache clock credential/table descriptors files protocol rate_limit server/options service
    stats supervision tls unit
sink -> clock credential/adopt credential/facts credential/id credential/table descriptors encoding files redis_client
    redis_client/options secret secret_source sink/options sink/sql_statement sink/template stats store_fault
    supervision unit
credential -> clock cluster cluster/http cluster/options cluster/record cluster/record_handle cluster/redis
    cluster/seal credential/actor credential/facts credential/grants credential/id credential/plan credential/refresher
    credential/state credential/state_lock credential/state_writer credential/table credential/ticket_files
    credential/verify_ticket platform platform/client platform/client/options secret
credential/refresher -> clock cluster cluster/record cluster/record_handle cluster/seal credential/actor
    credential/adopt credential/app credential/facts credential/fetch_task credential/grants credential/id
    credential/plan credential/probe_queue credential/schedule credential/shared_counts credential/state_writer
    credential/table credential/verification_budget credential/verify_ticket files platform
    platform/client platform/client/options secret secret_source supervision
credential/actor -> clock cluster cluster/node_rules cluster/record cluster/record_handle cluster/seal credential/adopt
    credential/app credential/cluster_fetch credential/facts credential/fetch_task credential/generation
    credential/grants credential/journal credential/plan credential/probe_queue credential/quota_usage
    credential/schedule credential/shared_counts credential/state credential/table credential/verification_budget
    https platform secret secret_source
credential/fetch_task -> clock credential/adopt credential/cluster_fetch credential/grants credential/plan
    credential/quota_usage credential/schedule credential/state_writer credential/table platform platform/client
    secret secret_source
credential/cluster_fetch -> clock cluster cluster/node_rules cluster/record cluster/record_handle cluster/seal
    credential/generation credential/quota_usage credential/schedule credential/shared_counts platform
credential/plan -> credential/app credential/facts credential/grants credential/id credential/state credential/table
    encoding platform platform/client/options secret_source
credential/ticket_files -> credential/table credential/verify_ticket files
credential/shared_counts -> cluster/record cluster/seal credential/quota_usage platform
credential/generation credential/probe_queue credential/verification_budget -> clock credential/id
credential/grants credential/state credential/state_writer -> clock credential/quota_usage credential/schedule
    credential/state_lock credential/table descriptors platform secret
credential/state_lock ->
credential/schedule -> clock cluster/node_rules credential/reliable_until platform
credential/quota_usage -> platform

# What those stand on: answers to requests, what several nodes share, the client of the platforms' API.
service -> access cache clock credential/facts credential/table protocol service/options stats
cluster/http cluster/redis -> clock cluster cluster/node_rules cluster/options cluster/record
    cluster/seal descriptors https redis_client secret secret_source tls
cluster/record_handle -> clock cluster cluster/node_rules cluster/record cluster/seal secret
cluster -> clock
cluster/seal -> cluster/record secret
cluster/node_rules -> clock cluster/record
cluster/record ->
platform/client -> clock https platform tls
credential/adopt -> credential/app files
redis_client -> descriptors files redis_client/options secret_source store_fault

# The settings of the parts.
http_api/options -> access files invalid_value network tls
server/options -> access byte_size files invalid_value network service/options tls
server/listen_address -> environment invalid_value
service/options ->
sink/validate -> encoding files invalid_value network sink/keys sink/options sink/sql_statement sink/template
sink/files -> credential/app encoding invalid_value platform sink/file_presets sink/keys sink/options sink/template
sink/keys -> credential/app encoding invalid_value platform preset secret sink/options
sink/sql_address -> invalid_value sink/options sink/sql_statement
sink/file_presets sink/sql_presets -> invalid_value platform sink/options sink/sql_statement sink/template
sink/options -> encoding network platform redis_client/options secret_source sink/sql_statement sink/template
sink/sql_statement -> encoding invalid_value sink/template
sink/template -> encoding invalid_value
credential/options -> cluster/options credential/app environment platform platform/client/address platform/client/options
credential/alias_templates credential/app_name -> credential/app encoding invalid_value platform preset secret_source
credential/collisions -> credential/app invalid_value platform
credential/app -> encoding invalid_value platform platform/client/options secret_source
cluster/options -> invalid_value network redis_client/options secret_source
platform/client/surroundings -> platform/client/address platform/client/options
platform/client/address -> invalid_value platform secret_source
platform/client/options -> invalid_value platform secret_source
redis_client/address -> invalid_value network redis_client/options
redis_client/options -> invalid_value network secret_source
preset -> encoding platform

# What readers look at.
cache -> protocol
credential/table -> clock credential/facts credential/id credential/journal credential/reliable_until
    credential/value_cell credential/verify_ticket credential/wildcards encoding platform
credential/journal -> clock credential/id platform
credential/verify_ticket -> credential/id secret
credential/facts -> clock platform
credential/reliable_until -> clock
credential/wildcards -> encoding
credential/id credential/value_cell -> sync

# The log and what people read in Chinese.
telemetry -> texts
texts ->

# The platforms' rules, and what anything may use.
platform -> clock descriptors https invalid_value secret secret_source
https -> descriptors
sandbox -> clock http_server network tls
http_server -> clock descriptors tls
tls -> access clock files invalid_value
secret_source -> descriptors files secret
encoding -> clock invalid_value
access -> invalid_value
files ->
rate_limit -> clock
stats -> sync
clock -> sync
protocol ->
address_group allocator byte_size environment invalid_value descriptors network process raw_value secret supervision sync unit ->
store_fault ->
";

/// Modules without async code and without sockets.
const PURE: &[&str] = &[
    "access",
    "cache",
    "clock.rs",
    "cluster/node_rules.rs",
    "cluster/redis/change_queue.rs",
    "cluster/record.rs",
    "cluster/redis/script.rs",
    "cluster/seal.rs",
    "credential/actor",
    "credential/actor.rs",
    "credential/facts.rs",
    "credential/id.rs",
    "credential/journal.rs",
    "credential/quota_usage.rs",
    "credential/schedule",
    "credential/schedule.rs",
    "credential/table",
    "credential/table.rs",
    "credential/value_cell.rs",
    "encoding",
    "platform/component.rs",
    "platform/errcodes.rs",
    "platform/feishu.rs",
    "platform/hosts.rs",
    "platform/mod.rs",
    "platform/mp.rs",
    "platform/qq.rs",
    "platform/wecom.rs",
    "preset.rs",
    "protocol",
    "redis_client/fault.rs",
    "secret.rs",
    "server/buffers.rs",
    "server/connection",
    "server/connection.rs",
    "server/memory.rs",
    "service",
    "sink/command/output.rs",
    "sink/file_presets.rs",
    "sink/item.rs",
    "sink/queue.rs",
    "sink/sql_presets.rs",
    "sink/sql_statement.rs",
    "sink/template.rs",
    "stats",
    "stats.rs",
    "store_fault.rs",
    "sync.rs",
];

/// Every file of `src` but those of tests, with its text.
static SOURCES: LazyLock<Vec<(String, String)>> = LazyLock::new(|| {
    let all = rust_sources("src").into_iter();
    let mut found: Vec<_> = all.map(|(file, text)| (file["src/".len()..].to_owned(), text)).collect();
    assert!(found.len() > 20);
    found.retain(|(file, _)| !file.ends_with("tests.rs") && !file.contains("/tests/"));
    found
});

static IMPORTS: LazyLock<(Modules, BTreeSet<Import>)> = LazyLock::new(|| {
    let modules = Modules::of(SOURCES.iter().map(|(file, text)| (file.as_str(), text.as_str())));
    let imports = modules.imports();
    (modules, imports)
});

/// The modules of a row, and what they may use.
type Row = (Vec<&'static str>, Vec<&'static str>);

static ROWS: LazyLock<Vec<Row>> = LazyLock::new(|| {
    let mut rows: Vec<Row> = Vec::new();
    for line in HOUSE.lines().filter(|line| !line.is_empty() && !line.starts_with('#')) {
        match (line.split_once("->"), rows.last_mut()) {
            (Some((modules, used)), _) => {
                rows.push((modules.split_whitespace().collect(), used.split_whitespace().collect()));
            }
            (None, Some((_, used))) => used.extend(line.split_whitespace()),
            (None, None) => panic!("a row without modules: {line}"),
        }
    }
    rows
});

/// The row of a module.
fn row(module: &str) -> Option<usize> {
    let holds = |name: &str| module == name || module.strip_prefix(name).is_some_and(|rest| rest.starts_with('/'));
    let rows = ROWS.iter().enumerate().flat_map(|(at, (names, _))| names.iter().map(move |name| (at, *name)));
    rows.filter(|(_, name)| holds(name)).max_by_key(|(_, name)| name.len()).map(|(at, _)| at)
}

/// What is imported against the arrows, and what has no place in the house.
fn against_the_arrows(modules: &Modules, imports: &BTreeSet<Import>) -> Vec<String> {
    let homeless = modules.paths().filter(|path| !path.is_empty() && row(path).is_none());
    let mut wrong: Vec<String> = homeless.map(|path| format!("{path} stands in no row")).collect();
    for import in imports.iter().filter(|import| !import.from.is_empty()) {
        let (Some(from), Some(to)) = (row(&import.from), row(&import.to)) else {
            wrong.push(format!("{} uses {} of lib.rs", import.from, import.written));
            continue;
        };
        let is_allowed = ROWS[to].0.iter().any(|name| ROWS[from].1.contains(name));
        if from != to && !is_allowed {
            wrong.push(format!("{} uses {} ({})", import.from, import.to, import.written));
        }
    }
    wrong
}

#[test]
fn imports_point_one_way() {
    let exists = |name: &str| IMPORTS.0.paths().any(|path| path == name || path.starts_with(&format!("{name}/")));
    for (at, (names, used)) in ROWS.iter().enumerate() {
        assert!(names.iter().all(|name| exists(name)), "a module of {names:?} is gone");
        for name in used {
            let further_down = ROWS[at + 1..].iter().any(|(names, _)| names.contains(name));
            assert!(further_down, "{names:?} may use {name}, which does not stand further down");
        }
    }
    let wrong = against_the_arrows(&IMPORTS.0, &IMPORTS.1);
    assert!(wrong.is_empty(), "imports against the arrows:\n{}", wrong.join("\n"));
}

#[test]
fn config_is_imported_by_main_check_and_demo_alone() {
    let imports = &IMPORTS.1;
    let is_of_config = |module: &str| module == "config" || module.starts_with("config/");
    let from: Vec<&str> =
        imports.iter().filter(|import| is_of_config(&import.to)).map(|import| &*import.from).collect();
    assert!(from.contains(&"main") && from.contains(&"check"));
    let may =
        |module: &str| is_of_config(module) || ["main", "check", "demo"].contains(&module.split('/').next().unwrap());
    let others: Vec<&&str> = from.iter().filter(|module| !may(module)).collect();
    assert!(others.is_empty(), "{others:?}");
}

/// However it is written.
#[test]
fn an_import_against_the_arrows_is_found() {
    let house = [
        ("lib.rs", "pub mod credential;"),
        (
            "credential/mod.rs",
            "pub mod table;\npub mod refresher;\npub use refresher::{Refresher, RefreshRequest as Request};",
        ),
        ("credential/table.rs", ""),
        ("credential/refresher.rs", "use super::table::Table;\npub struct Refresher;"),
        ("server/mod.rs", "pub mod options;\npub use self::options::Options;"),
        ("server/options.rs", ""),
    ];
    let found = |file: &str, text: &str| {
        let files = house.into_iter().filter(|(other, _)| *other != file).chain([(file, text)]);
        let modules = Modules::of(files);
        against_the_arrows(&modules, &modules.imports())
    };
    let none: Vec<String> = Vec::new();
    assert_eq!(found("credential/table.rs", ""), none);
    for text in [
        "use crate::credential::refresher::Refresher;",
        "use super::refresher::Refresher;",
        "use super::{refresher::Refresher, table};",
        "use crate::{credential::{\n    table,\n    refresher::{self, Refresher},\n}};",
        "pub use super::refresher::Refresher;",
        "pub(crate) use super::super::credential::refresher::*;",
        "use crate::credential::Refresher;",
        "use super::Request;",
        "use crate::credential;\nfn f() -> credential::Refresher {}",
        "use super::refresher as r;\nfn f(x: &'static str) { r::go('\\'', x) }",
        "fn f() { let _ = crate::credential::refresher::go(); }",
    ] {
        let expected = "credential/table uses credential/refresher (";
        let found = found("credential/table.rs", text);
        assert!(!found.is_empty() && found.iter().all(|line| line.starts_with(expected)), "{text}: {found:?}");
    }
    for text in [
        "// use super::refresher::Refresher;",
        "const A: &str = \"super::refresher::Refresher\";",
        "const A: &str = r#\"\" super::refresher::Refresher\"#;",
        "#[cfg(test)]\nmod tests {\n    use super::super::refresher::Refresher;\n}\n",
        "pub(in crate::credential) fn f() {}",
    ] {
        assert_eq!(found("credential/table.rs", text), none, "{text}");
    }
    assert_eq!(
        found("service/mod.rs", "use crate::server::Options;"),
        ["service uses server/options (crate::server::Options)"]
    );
    assert_eq!(found("attic.rs", ""), ["attic stands in no row"]);
    // Whoever hands on what is another's is used too.
    let handed_on = ("config.rs", "pub use crate::server::options::Options as Config;");
    let modules = Modules::of([
        ("server/mod.rs", ""),
        ("server/options.rs", ""),
        handed_on,
        ("app.rs", "use crate::config::Config;"),
    ]);
    let used: Vec<String> =
        modules.imports().into_iter().map(|import| format!("{} {}", import.from, import.to)).collect();
    assert_eq!(used, ["app config", "app server/options", "config server/options"]);
}

#[test]
fn the_core_is_pure() {
    let is_below = |file: &str, pure: &str| file == pure || file.starts_with(&format!("{pure}/"));
    for pure in PURE {
        assert!(SOURCES.iter().any(|(file, _)| is_below(file, pure)), "{pure} is gone");
    }
    for (file, text) in SOURCES.iter() {
        if PURE.iter().any(|pure| is_below(file, pure)) {
            let code = imports::without_comments_and_texts(&imports::without_tests(text));
            for word in ["async ", ".await", "std::net", "tokio::net", "std::fs", "SystemTime::now", "Instant::now"] {
                let clock = file == "clock.rs" && word == "SystemTime::now";
                assert!(clock || !code.contains(word), "{file} has `{word}`");
            }
        }
    }
}

/// A connection is driven from outside: whoever has another runtime, or virtual time, can do it.
#[test]
fn a_connection_knows_no_runtime_and_no_clock() {
    let of_connection = |file: &str| file == "server/connection.rs" || file.starts_with("server/connection/");
    let files: Vec<_> = SOURCES.iter().filter(|(file, _)| of_connection(file)).collect();
    assert!(files.len() > 3);
    for (file, text) in files {
        let code = imports::without_comments_and_texts(&imports::without_tests(text));
        for word in ["tokio", "std::net", "Instant", "Now::read", "boot_ms()", "unix_ms()", "monotonic_ms"] {
            assert!(!code.contains(word), "{file} has `{word}`");
        }
    }
}

#[test]
fn every_module_says_what_it_is_for() {
    for (file, text) in SOURCES.iter() {
        assert!(
            text.starts_with("//! ") || file == "main.rs" && text.starts_with("//!"),
            "{file} does not open with its purpose"
        );
    }
}

/// `src/lib.rs` is where a newcomer begins: its map has every module, and the files that it names are there.
#[test]
fn the_map_in_lib_rs_is_complete_and_true() {
    let (_, text) = SOURCES.iter().find(|(file, _)| file == "lib.rs").unwrap();
    let map: String = text.lines().filter(|line| line.starts_with("//!")).collect();
    for line in text.lines() {
        let Some(name) = line.strip_prefix("pub mod ").and_then(|rest| rest.split([';', ' ']).next()) else { continue };
        assert!(map.contains(&format!("[`{name}`]")), "{name} is not in the map");
    }
    let quoted: Vec<&str> = map.split('`').filter(|word| word.ends_with(".rs") && word.contains('/')).collect();
    assert!(quoted.len() > 10, "{quoted:?}");
    for name in quoted {
        let is_there = name.starts_with("tests/") || SOURCES.iter().any(|(file, _)| file == name);
        assert!(is_there, "{name} is named in lib.rs and not there");
    }
}
