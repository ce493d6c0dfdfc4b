//! What the program is built of: licences that go with its own, no second crate for a job, nothing but crates.io.
//!
//! Judged by what cargo says and by the lock file, without a network. Known weaknesses are no matter of a test: `.ci/run`
//! looks them up where it is given a database of them.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::process::Command;

use serde_json::Value;

use crate::support::{program, run_checked};

/// Licences that ask for no more than being named.
const LICENCES: &[&str] = &[
    "Apache-2.0",
    "BSD-2-Clause",
    "BSD-3-Clause",
    "BSL-1.0",
    "CDLA-Permissive-2.0",
    "ISC",
    "MIT",
    "Unicode-3.0",
    "Unlicense",
    "Zlib",
];

/// Not to be had at all, by anything, on any platform.
const BANNED: &[(&str, &str)] = &[
    ("async-std", "tokio is the runtime"),
    ("aws-lc-rs", "ring does rustls's cryptography"),
    ("aws-lc-sys", "ring does rustls's cryptography"),
    ("hyper-tls", "rustls is the TLS"),
    ("native-tls", "rustls is the TLS"),
    ("openssl", "rustls is the TLS"),
    ("openssl-sys", "rustls is the TLS"),
    ("smol", "tokio is the runtime"),
];

/// Not to be named by us: another crate, or the standard library, has the job.
const ELSEWHERE: &[(&str, &str)] = &[
    ("anyhow", "thiserror"),
    ("chrono", "clock.rs and the platform's whole seconds"),
    ("crossbeam-channel", "tokio"),
    ("env_logger", "tracing"),
    ("isahc", "reqwest"),
    ("lazy_static", "std::sync::LazyLock"),
    ("libc", "rustix"),
    ("log", "tracing"),
    ("once_cell", "std::sync::OnceLock"),
    ("rand", "fastrand, and ring where it must not be guessed"),
    ("signal-hook", "tokio"),
    ("time", "clock.rs and the platform's whole seconds"),
    ("ureq", "reqwest"),
];

/// Crates that are linked in more than one version, each because of a crate that we want.
const TWICE: &[(&str, &str)] = &[
    ("base64", "sqlx has the older one"),
    ("block-buffer", "sqlx has the older one"),
    ("cpufeatures", "sqlx has the older one"),
    ("crypto-common", "sqlx has the older one"),
    ("digest", "sqlx has the older one"),
    ("getrandom", "ring has the older one"),
    ("hashbrown", "dashmap and sqlx have older ones"),
    ("lock_api", "dashmap has the older one"),
    ("parking_lot", "sqlx has the older one"),
    ("parking_lot_core", "dashmap has the older one"),
    ("sha2", "sqlx has the older one"),
    ("syn", "of macros, which are not in the program"),
    ("synstructure", "of macros, which are not in the program"),
];

const CRATES_IO: &str = "registry+https://github.com/rust-lang/crates.io-index";

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn text<'v>(value: &'v Value, name: &str) -> &'v str {
    value[name].as_str().unwrap_or_default()
}

/// What is built here, tests and benches included.
fn metadata() -> Value {
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let platforms = run_checked(program("rustc").arg("-vV").current_dir(root()));
    let platform = platforms.lines().find_map(|line| line.strip_prefix("host: ")).unwrap();
    let said = Command::new(cargo)
        .args(["metadata", "--locked", "--offline", "--format-version", "1", "--filter-platform", platform])
        .current_dir(root())
        .output()
        .unwrap();
    assert!(said.status.success(), "{}", String::from_utf8_lossy(&said.stderr));
    serde_json::from_slice(&said.stdout).unwrap()
}

/// The packages that the program is linked from or built with, by id; with tests and benches if `dev`.
fn built_of(metadata: &Value, dev: bool) -> BTreeSet<String> {
    let nodes = metadata["resolve"]["nodes"].as_array().unwrap();
    let nodes: BTreeMap<&str, &Value> = nodes.iter().map(|node| (text(node, "id"), node)).collect();
    let own = text(&metadata["resolve"], "root");
    let (mut found, mut next) = (BTreeSet::new(), vec![own]);
    while let Some(id) = next.pop() {
        if !found.insert(id.to_owned()) {
            continue;
        }
        for dependency in nodes[id]["deps"].as_array().unwrap() {
            let kinds = dependency["dep_kinds"].as_array().unwrap();
            let counts = |kind: &Value| kind["kind"] != "dev" || (dev && id == own);
            if kinds.iter().any(counts) {
                next.push(text(dependency, "pkg"));
            }
        }
    }
    found
}

/// Whether an SPDX expression leaves a way of allowed licences. Old ones have a slash for OR.
fn is_allowed(licence: &str) -> bool {
    let spaced = licence.replace('/', " OR ").replace('(', " ( ").replace(')', " ) ");
    let words: Vec<&str> = spaced.split_whitespace().collect();
    let mut at = 0;
    any_of(&words, &mut at) && at == words.len()
}

fn any_of(words: &[&str], at: &mut usize) -> bool {
    let mut allowed = all_of(words, at);
    while words.get(*at) == Some(&"OR") {
        *at += 1;
        allowed |= all_of(words, at);
    }
    allowed
}

fn all_of(words: &[&str], at: &mut usize) -> bool {
    let mut allowed = one(words, at);
    while words.get(*at) == Some(&"AND") {
        *at += 1;
        allowed &= one(words, at);
    }
    allowed
}

fn one(words: &[&str], at: &mut usize) -> bool {
    let Some(word) = words.get(*at) else { return false };
    *at += 1;
    if *word == "(" {
        let allowed = any_of(words, at);
        *at += 1;
        return allowed;
    }
    // An exception permits more, not less.
    if words.get(*at) == Some(&"WITH") {
        *at += 2;
    }
    LICENCES.contains(word)
}

#[test]
fn an_expression_is_allowed_if_one_of_its_ways_is() {
    for good in ["MIT", "MIT/Apache-2.0", "GPL-3.0 OR MIT", "(MIT OR GPL-2.0) AND Unicode-3.0"] {
        assert!(is_allowed(good), "{good}");
    }
    for good in ["Apache-2.0 WITH LLVM-exception", "Apache-2.0 WITH LLVM-exception OR GPL-2.0", "(MIT)"] {
        assert!(is_allowed(good), "{good}");
    }
    for bad in ["", "GPL-3.0", "MIT AND GPL-3.0", "(GPL-2.0 OR MIT) AND AGPL-3.0", "MIT GPL-3.0", "(MIT"] {
        assert!(!is_allowed(bad), "{bad}");
    }
}

#[test]
fn every_licence_goes_with_ours() {
    let metadata = metadata();
    let built = built_of(&metadata, true);
    assert!(built.len() > 100);
    let packages = metadata["packages"].as_array().unwrap().iter().filter(|of| built.contains(text(of, "id")));
    let wrong: Vec<String> = packages
        .filter(|package| !is_allowed(text(package, "license")))
        .map(|package| format!("{} has {:?}", text(package, "name"), text(package, "license")))
        .collect();
    assert!(wrong.is_empty(), "licences to be looked at before they are allowed:\n{}", wrong.join("\n"));
}

/// (name, source) of each package in the lock file, for all platforms.
fn locked() -> Vec<(String, Option<String>)> {
    let lock = std::fs::read_to_string(root().join("Cargo.lock")).unwrap();
    let lock: toml::Table = lock.parse().unwrap();
    let string = |package: &toml::Value, name: &str| package.get(name)?.as_str().map(str::to_owned);
    let packages = lock["package"].as_array().unwrap().iter();
    packages.map(|package| (string(package, "name").unwrap(), string(package, "source"))).collect()
}

#[test]
fn everything_comes_from_crates_io() {
    let (own, others): (Vec<_>, Vec<_>) = locked().into_iter().partition(|(_, source)| source.is_none());
    assert_eq!(own.iter().map(|(name, _)| name.as_str()).collect::<Vec<_>>(), ["tokencached"]);
    let elsewhere: Vec<_> = others.iter().filter(|(_, source)| source.as_deref() != Some(CRATES_IO)).collect();
    assert!(elsewhere.is_empty(), "{elsewhere:?}");
}

#[test]
fn what_is_banned_is_not_even_locked() {
    let locked = locked();
    let found: Vec<_> = BANNED.iter().filter(|(name, _)| locked.iter().any(|(locked, _)| locked == name)).collect();
    assert!(found.is_empty(), "{found:?}; cargo tree -i NAME says who wants it");
}

#[test]
fn no_job_has_two_crates() {
    let manifest = std::fs::read_to_string(root().join("Cargo.toml")).unwrap();
    let manifest: toml::Table = manifest.parse().unwrap();
    let named = manifest["dependencies"].as_table().unwrap();
    let found: Vec<_> = ELSEWHERE.iter().filter(|(name, _)| named.contains_key(*name)).collect();
    assert!(found.is_empty(), "these have the job already: {found:?}");
}

#[test]
fn no_crate_is_linked_in_two_versions_without_a_reason() {
    let metadata = metadata();
    let built = built_of(&metadata, false);
    let mut versions: BTreeMap<&str, BTreeSet<&str>> = BTreeMap::new();
    for package in metadata["packages"].as_array().unwrap().iter().filter(|of| built.contains(text(of, "id"))) {
        versions.entry(text(package, "name")).or_default().insert(text(package, "version"));
    }
    versions.retain(|_, versions| versions.len() > 1);
    let unknown: Vec<_> = versions.iter().filter(|(name, _)| TWICE.iter().all(|(known, _)| known != *name)).collect();
    assert!(unknown.is_empty(), "{unknown:?}; cargo tree -d says who wants which");
    let gone: Vec<_> = TWICE.iter().filter(|(name, _)| !versions.contains_key(name)).collect();
    assert!(gone.is_empty(), "there is only one of these now: {gone:?}");
}
