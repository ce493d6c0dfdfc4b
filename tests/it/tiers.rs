//! The three tiers of the tests (`tests/README.md`): each test says what it needs, the slow ones are those that `tests/run`
//! leaves out, and those that SECURITY.md and `faults.md` name exist. That a test says it at all is held by
//! `support/tier.rs`, when it runs.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

use crate::support::rust_sources;

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn text(path: &str) -> String {
    fs::read_to_string(root().join(path)).unwrap_or_else(|error| panic!("{path}: {error}"))
}

/// All sources below these folders.
fn sources(folders: &[&str]) -> Vec<(String, String)> {
    folders.iter().flat_map(|folder| rust_sources(folder)).collect()
}

/// But for those that speak of the attribute itself.
fn test_sources() -> Vec<(String, String)> {
    let mut sources = sources(&["src", "tests/it"]);
    sources.retain(|(file, _)| !file.ends_with("tiers.rs") && !file.ends_with("support/tier.rs"));
    sources
}

/// The reason and the function's name of each ignored test.
fn ignored(source: &str) -> Vec<(String, String)> {
    let parts = source.split("#[ignore").skip(1);
    parts
        .map(|part| {
            let reason = part.strip_prefix(" = \"").and_then(|rest| rest.split_once("\"]"));
            let (reason, rest) = reason.unwrap_or_else(|| panic!("an #[ignore] without a reason: {part:.80}"));
            let name = rest.split("fn ").nth(1).and_then(|rest| rest.split('(').next()).unwrap_or_default();
            (reason.to_owned(), name.trim().to_owned())
        })
        .collect()
}

const REASONS: &[&str] = &["needs ", "waits for real time", "computes for a minute", "slow: "];

/// The patterns that `tests/run` leaves out, one a line between `slow=(` and `)`, each with its reason behind `#`.
fn left_out() -> Vec<String> {
    let script = text("tests/run");
    let list = script.split("\nslow=(\n").nth(1).and_then(|rest| rest.split("\n)").next()).expect("a list `slow`");
    list.lines().map(|line| line.split('#').next().unwrap().trim().to_owned()).collect()
}

#[test]
fn every_ignored_test_says_what_it_needs() {
    let mut reasons = BTreeSet::new();
    for (file, source) in test_sources() {
        for (reason, name) in ignored(&source) {
            assert!(REASONS.iter().any(|known| reason.starts_with(known)), "{file}: {name}: {reason}");
            reasons.insert(reason);
        }
    }
    assert!(reasons.len() > 10, "{reasons:?}");
}

#[test]
fn the_slow_tests_are_those_that_tests_run_leaves_out() {
    let left_out = left_out();
    let mut slow = Vec::new();
    for (file, source) in test_sources() {
        let module = file.trim_start_matches("tests/it/").trim_end_matches(".rs").trim_end_matches("/mod");
        let module = module.replace('/', "::");
        for (reason, name) in ignored(&source).into_iter().filter(|(reason, _)| reason.starts_with("slow: ")) {
            assert!(!reason["slow: ".len()..].is_empty());
            slow.push(format!("{module}::{name}"));
        }
    }
    for name in &slow {
        assert!(left_out.iter().any(|left| name.contains(left.as_str())), "{name} is slow and not left out");
    }
    for left in &left_out {
        assert!(slow.iter().any(|name| name.contains(left.as_str())), "{left} is left out and no slow test");
    }
}

/// Whatever a test starts comes from `support`, which knows what is there in which tier.
#[test]
fn no_test_starts_a_program_by_itself() {
    const OWN: &[&str] =
        &["env!(\"CARGO_BIN_EXE_tokencached\")", "cargo", "command.get_program()", "client.get_program()"];
    for (file, source) in sources(&["tests/it", "tests/moving"]) {
        if file.starts_with("tests/it/support") || file.ends_with("tiers.rs") {
            continue;
        }
        for started in source.split("Command::new(").skip(1) {
            let own = OWN.iter().any(|own| started.starts_with(own))
                || started.starts_with("&self.plan.binary")
                || started.starts_with("binary)");
            assert!(own, "{file} starts a program itself, not by support::program: {started:.60}");
        }
    }
}

/// Who pauses at all: between two looks at something that is waited for, or because a client is slow by nature.
const PAUSES: &[&str] = &[
    "cluster/faults.rs",
    "lifecycle.rs",
    "open_platform.rs",
    "redis_client.rs",
    "refresher.rs",
    "sandbox.rs",
    "soak.rs",
    "support.rs",
    "support/proxy.rs",
];
/// Time is virtual there: nothing passes while a test sleeps.
const VIRTUAL: &[&str] = &["apps_at_run_time.rs", "month/", "probing.rs"];

#[test]
fn no_test_sleeps_to_wait_for_something() {
    for (file, source) in test_sources() {
        let Some(file) = file.strip_prefix("tests/it/") else { continue };
        let sleeps = ["time::sleep(", "time::sleep_until(", "thread::sleep(", "park_timeout("];
        let sleeps = sleeps.iter().any(|call| source.contains(call));
        let is_virtual = VIRTUAL.iter().any(|module| file.starts_with(module));
        assert!(
            is_virtual || sleeps == PAUSES.contains(&file),
            "{file}: wait for a condition with wait_for, not for a time"
        );
    }
}

/// The tests that each row of a page names in its last column (the first may quote what is sent). All of them exist.
fn tests_named_in(page: &str) -> Vec<Vec<String>> {
    let code: Vec<String> = sources(&["src", "tests"]).into_iter().map(|(_, source)| source).collect();
    let text = text(page);
    let rows = text.lines().filter(|line| line.starts_with("| ") && line.contains('`'));
    rows.map(|row| {
        let tests = row.trim_end_matches(" |").rsplit(" | ").next().unwrap();
        let names: Vec<String> = tests.split('`').skip(1).step_by(2).map(str::to_owned).collect();
        for name in &names {
            let head = format!("fn {name}(");
            assert!(code.iter().any(|text| text.contains(&head)), "{page} names no test {name}");
        }
        names
    })
    .collect()
}

#[test]
fn every_test_in_the_list_of_faults_exists() {
    assert!(tests_named_in("tests/faults.md").concat().len() > 40);
}

#[test]
fn every_test_in_the_threat_model_exists() {
    let rows = tests_named_in("SECURITY.md");
    assert!(rows.iter().all(|names| !names.is_empty()), "a row without a test: {rows:?}");
    assert!(rows.concat().len() > 60);
}
