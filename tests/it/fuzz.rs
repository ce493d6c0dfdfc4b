//! The fuzz targets' corpus, replayed through the same functions that the fuzzer calls (`tests/fuzz`).
//!
//! Never fuzzes: what it does is the same every time, and the compiler is the ordinary one.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

#[path = "../fuzz/src/lib.rs"]
pub mod targets;

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fuzz")
}

fn names(folder: &Path) -> BTreeSet<String> {
    let names = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap());
    names.collect()
}

#[track_caller]
fn replay(name: &str) {
    let (_, target) = targets::TARGETS.iter().find(|(target, _)| *target == name).unwrap();
    let folder = folder().join("corpus").join(name);
    let seeds = names(&folder);
    assert!(seeds.len() >= 10, "{seeds:?}");
    for seed in seeds {
        // Shown only if it fails.
        println!("{name}/{seed}");
        target(&std::fs::read(folder.join(seed)).unwrap());
    }
}

#[test]
fn parse() {
    replay("parse");
}

#[test]
fn stream() {
    replay("stream");
}

#[test]
fn session() {
    replay("session");
}

#[test]
fn answer() {
    replay("answer");
}

#[test]
fn config() {
    replay("config");
}

#[test]
fn state() {
    replay("state");
}

#[test]
fn every_target_has_a_program_and_a_corpus() {
    let targets: BTreeSet<String> = targets::TARGETS.iter().map(|(name, _)| (*name).to_owned()).collect();
    assert_eq!(names(&folder().join("corpus")), targets);
    let programs = names(&folder().join("fuzz_targets"));
    assert_eq!(programs, targets.iter().map(|name| format!("{name}.rs")).collect());
    let manifest = std::fs::read_to_string(folder().join("Cargo.toml")).unwrap();
    let run = std::fs::read_to_string(folder().join("run")).unwrap();
    for name in targets {
        assert!(manifest.contains(&format!("\nname = \"{name}\"\n")), "{name} is not in Cargo.toml");
        assert!(
            run.contains(&format!(" {name}")) || run.contains(&format!("({name}")),
            "{name} is not in tests/fuzz/run"
        );
    }
}
