//! libmemcached's own conformance test, the ASCII half: all of it passes.

use std::process::Command;

use crate::support::{Node, run_well};

#[test]
fn every_ascii_test_passes() {
    let node = Node::plain(&[]);
    let port = node.address.port().to_string();
    let said = run_well(Command::new("memccapable").args(["-h", "127.0.0.1", "-p", &port, "-a"]));
    let tests: Vec<&str> = said.lines().filter(|line| line.starts_with("ascii ")).collect();
    assert!(tests.len() >= 20, "{said}");
    let failed: Vec<&&str> = tests.iter().filter(|line| !line.ends_with("[pass]")).collect();
    assert!(failed.is_empty(), "{failed:#?}");
    assert!(said.contains("All tests passed"), "{said}");
}
