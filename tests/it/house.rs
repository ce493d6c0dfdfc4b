//! House rules as tests: which module may import which.

use std::fs;
use std::path::Path;

/// Each module and what it may use. `sync`, `secret`, `clock`, `stats` and `protocol` are at the bottom.
const ARROWS: &[(&str, &[&str])] = &[
    ("sync", &[]),
    ("secret", &[]),
    ("clock", &["sync"]),
    ("supervision", &[]),
    ("files", &[]),
    ("unit", &[]),
    ("address_group", &[]),
    ("network", &[]),
    ("tls", &["access", "clock", "files"]),
    ("stats", &["sync"]),
    ("protocol", &[]),
    ("descriptors", &[]),
    ("access", &[]),
    ("encoding", &["clock"]),
    ("secret_source", &["descriptors", "files", "secret"]),
    ("preset", &["encoding", "platform"]),
    ("cache", &["clock", "stats", "protocol"]),
    ("https", &["descriptors", "files"]),
    ("platform/client", &["clock", "descriptors", "https", "secret", "secret_source", "stats"]),
    ("platform", &["clock", "descriptors", "https", "secret"]),
    ("credential/table", &["clock", "encoding", "secret", "platform/errcodes"]),
    ("credential/adopt", &["files"]),
    ("credential/app", &["encoding", "platform", "secret_source"]),
    ("credential/value_cell", &["sync"]),
    ("credential/quota_usage", &["platform"]),
    ("credential/schedule", &["clock", "platform", "cluster/turn", "platform/answer", "platform/failure"]),
    ("cluster/record", &[]),
    ("cluster/turn", &["clock"]),
    ("cluster", &["clock", "descriptors", "redis_client", "files", "https", "secret", "secret_source"]),
    (
        "credential",
        &[
            "clock",
            "descriptors",
            "encoding",
            "files",
            "https",
            "platform",
            "cluster",
            "secret",
            "secret_source",
            "stats",
            "supervision",
            "platform",
        ],
    ),
    ("service", &["access", "cache", "clock", "credential/table", "protocol", "secret", "stats"]),
    (
        "server",
        &[
            "access",
            "address_group",
            "cache",
            "clock",
            "descriptors",
            "files",
            "protocol",
            "service",
            "stats",
            "supervision",
            "sync",
            "tls",
            "unit",
        ],
    ),
    (
        "http_api",
        &[
            "access",
            "address_group",
            "clock",
            "credential",
            "descriptors",
            "files",
            "network",
            "secret",
            "secret_source",
            "service",
            "stats",
            "supervision",
            "tls",
        ],
    ),
    ("redis_client", &["descriptors", "files", "network", "secret", "secret_source"]),
    (
        "sink",
        &[
            "clock",
            "credential/adopt",
            "credential/table",
            "descriptors",
            "encoding",
            "redis_client",
            "files",
            "platform",
            "secret",
            "secret_source",
            "stats",
            "supervision",
            "unit",
        ],
    ),
    ("sandbox", &["clock", "secret"]),
    ("telemetry", &[]),
    ("process", &[]),
    ("cli", &["config", "secret"]),
];

/// Modules without async code and without sockets.
const PURE: &[&str] = &[
    "protocol",
    "access",
    "platform/mod.rs",
    "platform/component.rs",
    "platform/feishu.rs",
    "platform/mp.rs",
    "platform/qq.rs",
    "platform/wecom.rs",
    "cache",
    "platform/errcodes.rs",
    "platform/hosts.rs",
    "encoding",
    "preset.rs",
    "credential/table.rs",
    "credential/facts.rs",
    "credential/journal.rs",
    "credential/value_cell.rs",
    "credential/schedule.rs",
    "credential/quota_usage.rs",
    "cluster/record.rs",
    "cluster/redis/backlog.rs",
    "cluster/redis/script.rs",
    "cluster/seal.rs",
    "cluster/turn.rs",
    "service",
    "redis_client/fault.rs",
    "sink/command/output.rs",
    "sink/item.rs",
    "sink/queue.rs",
    "clock.rs",
    "secret.rs",
    "stats.rs",
    "stats",
    "sync.rs",
];

fn sources(path: &Path, found: &mut Vec<(String, String)>) {
    if path.is_dir() {
        for entry in fs::read_dir(path).unwrap() {
            sources(&entry.unwrap().path(), found);
        }
    } else if path.extension().is_some_and(|extension| extension == "rs") {
        let name = path.strip_prefix(Path::new(env!("CARGO_MANIFEST_DIR")).join("src")).unwrap();
        found.push((name.display().to_string(), fs::read_to_string(path).unwrap()));
    }
}

fn all_sources() -> Vec<(String, String)> {
    let mut found = Vec::new();
    sources(&Path::new(env!("CARGO_MANIFEST_DIR")).join("src"), &mut found);
    assert!(found.len() > 20);
    found.retain(|(file, _)| !file.ends_with("tests.rs"));
    found
}

/// The code of a file without its tests and comments.
fn code(text: &str) -> String {
    let text = text.split("#[cfg(test)]\nmod tests").next().unwrap_or(text);
    text.lines().filter(|line| !line.trim_start().starts_with("//")).collect::<Vec<_>>().join("\n")
}

#[test]
fn imports_point_one_way() {
    let mut wrong = Vec::new();
    for (file, text) in all_sources() {
        let Some((module, allowed)) =
            ARROWS.iter().find(|(module, _)| file == format!("{module}.rs") || file.starts_with(&format!("{module}/")))
        else {
            continue;
        };
        for used in code(&text).split("crate::").skip(1) {
            let path: Vec<&str> = used
                .split(|c: char| !(c.is_alphanumeric() || c == '_' || c == ':'))
                .next()
                .unwrap()
                .split("::")
                .collect();
            let (first, second) = (path[0], format!("{}/{}", path[0], path.get(1).unwrap_or(&"")));
            let own = module.split('/').next() == Some(first);
            if !own && !allowed.contains(&first) && !allowed.contains(&second.as_str()) {
                wrong.push(format!("{file} uses crate::{}", path.join("::")));
            }
        }
    }
    assert!(wrong.is_empty(), "imports against the arrows:\n{}", wrong.join("\n"));
}

#[test]
fn the_core_is_pure() {
    for (file, text) in all_sources() {
        if PURE.iter().any(|pure| file == *pure || file.starts_with(&format!("{pure}/"))) {
            let code = code(&text);
            for word in ["async ", ".await", "std::net", "tokio::net", "std::fs", "SystemTime::now", "Instant::now"] {
                let clock = file == "clock.rs" && word == "SystemTime::now";
                assert!(clock || !code.contains(word), "{file} has `{word}`");
            }
        }
    }
}

#[test]
fn every_module_says_what_it_is_for() {
    for (file, text) in all_sources() {
        assert!(
            text.starts_with("//! ") || file == "main.rs" && text.starts_with("//!"),
            "{file} does not open with its purpose"
        );
    }
}

#[test]
fn every_test_in_the_list_of_faults_exists() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut code = Vec::new();
    for folder in ["src", "tests"] {
        sources_below(&root.join(folder), &mut code);
    }
    let list = fs::read_to_string(root.join("tests/faults.md")).unwrap();
    let rows = list.lines().filter(|line| line.starts_with("| ") && line.contains('`'));
    let mut named = 0;
    for row in rows {
        // The last column: the first may quote what is sent.
        let tests = row.trim_end_matches(" |").rsplit(" | ").next().unwrap();
        for name in tests.split('`').skip(1).step_by(2) {
            named += 1;
            let head = format!("fn {name}(");
            assert!(code.iter().any(|text| text.contains(&head)), "no test {name}");
        }
    }
    assert!(named > 40);
}

fn sources_below(path: &Path, found: &mut Vec<String>) {
    for entry in fs::read_dir(path).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            sources_below(&path, found);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            found.push(fs::read_to_string(path).unwrap());
        }
    }
}
