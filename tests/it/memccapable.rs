//! libmemcached's own conformance test, for both protocols: all of it passes.

use crate::support::{Node, program, run_checked};

#[track_caller]
fn every_test_passes(flag: &str, protocol: &str, least: usize) {
    let node = Node::plain(&[]);
    let port = node.address.port().to_string();
    let said = run_checked(program("memccapable").args(["-h", "127.0.0.1", "-p", &port, flag]));
    let tests: Vec<&str> = said.lines().filter(|line| line.starts_with(protocol)).collect();
    assert!(tests.len() >= least, "{said}");
    let failed: Vec<&&str> = tests.iter().filter(|line| !line.ends_with("[pass]")).collect();
    assert!(failed.is_empty(), "{failed:#?}");
    assert!(said.contains("All tests passed"), "{said}");
}

#[test]
#[ignore = "needs libmemcached's tools"]
fn every_ascii_test_passes() {
    every_test_passes("-a", "ascii ", 20);
}

#[test]
#[ignore = "needs libmemcached's tools"]
fn every_binary_test_passes() {
    every_test_passes("-b", "binary ", 27);
}
