//! What a test may use. `cargo test` alone runs the tests that need nothing but this package and wait for no clock; all
//! others are ignored there, with the reason in their attribute: `#[ignore = "needs php"]`. `tests/run` runs them too.
//!
//! Whatever a test needs comes through a function of this module, which fails where only the fast tests are run. So a test
//! that lacks its attribute fails, also on a machine that has everything.

use std::ffi::OsStr;
use std::path::Path;
use std::process::Command;

/// Programs of a bare system with a C compiler and Rust.
const ALWAYS_THERE: &[&str] = &["cc", "chown", "id", "install", "mkfifo", "rustc", "sh"];
/// They do what only root may.
const OF_ROOT: &[&str] = &["ip", "mount", "setpriv"];

/// True where tests that are ignored by default are run, and in benches.
fn everything_runs() -> bool {
    !cfg!(test) || std::env::args().any(|argument| argument == "--include-ignored" || argument == "--ignored")
}

#[track_caller]
fn require(need: &str) {
    assert!(everything_runs(), "not a fast test: mark it #[ignore = \"{need}\"] (tests/README.md, \"Three tiers\")");
}

/// A program of that name.
#[track_caller]
pub fn needs(program: &str) {
    require(&format!("needs {program}"));
}

/// Another program than the one under test.
#[track_caller]
pub fn program(program: impl AsRef<OsStr>) -> Command {
    let name = Path::new(&program).file_name().unwrap_or_default().to_string_lossy();
    if OF_ROOT.contains(&&*name) {
        as_root();
    } else if !ALWAYS_THERE.contains(&&*name) {
        needs(&name);
    }
    Command::new(program)
}

/// What follows is for root alone.
#[track_caller]
pub fn as_root() {
    require("needs root");
    assert!(rustix::process::geteuid().is_root(), "this test has to run as root");
}

/// The binary of the version before this one.
#[track_caller]
pub fn version_before() {
    require("needs the version before");
}

/// What follows takes seconds of the real clock, in the server or here.
#[track_caller]
pub fn real_time() {
    require("waits for real time");
}
