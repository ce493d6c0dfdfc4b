//! What the program's allocator made of its settings: a fault in them would be passed over without a word.

use std::process::Command;

#[test]
fn the_allocator_takes_its_settings() {
    let mut program = Command::new(env!("CARGO_BIN_EXE_tokencached"));
    let said = program.arg("--version").env("_RJEM_MALLOC_CONF", "stats_print:true").output().unwrap();
    let said = String::from_utf8(said.stderr).unwrap();
    for setting in ["dirty_decay_ms: 0", "muzzy_decay_ms: 0", "narenas: 4", "thp: \"never\""] {
        assert!(said.contains(&format!("opt.{setting}")), "{setting} is missing in {said}");
    }
    assert!(!said.contains("<jemalloc>"), "jemalloc complains: {said}");
}
