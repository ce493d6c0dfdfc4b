//! libmemcached's tools against the real server, in text: what they do, and with which exit code.
//!
//! `memccapable` has its own module. Names and values are checked, never figures.

use std::process::Command;

use crate::support::{APPID, Client, Node, Wechat, program, run, run_checked, wait_for, write};

struct Tools(Node);

impl Tools {
    fn command(&self, tool: &str, arguments: &[&str]) -> Command {
        let mut command = program(tool);
        command.arg(format!("--servers=127.0.0.1:{}", self.0.address.port())).args(arguments);
        command.current_dir(self.0.folder.path());
        command
    }

    /// Runs a tool to a good end; what it says.
    #[track_caller]
    fn succeed(&self, tool: &str, arguments: &[&str]) -> String {
        run_checked(&mut self.command(tool, arguments))
    }

    /// Runs a tool that is to end with an error; what it says.
    #[track_caller]
    fn refused(&self, tool: &str, arguments: &[&str]) -> String {
        let (status, said) = run(&mut self.command(tool, arguments));
        assert_eq!(status.code(), Some(1), "{tool}: {said}");
        said
    }
}

fn plain() -> Tools {
    Tools(Node::plain(&[]))
}

#[test]
#[ignore = "needs libmemcached's tools"]
fn the_tools_for_single_keys() {
    let tools = plain();
    tools.succeed("memcping", &[]);
    write(tools.0.folder.path(), "letter", "hello");
    tools.succeed("memccp", &["--set", "letter"]);
    assert_eq!(tools.succeed("memccat", &["letter"]).trim_end(), "hello");
    tools.refused("memccp", &["--add", "letter"]);
    write(tools.0.folder.path(), "letter", "hello again");
    tools.succeed("memccp", &["--replace", "--flag=5", "--expire=3600", "letter"]);
    let mut client = tools.0.connect();
    client.expect("get letter\r\n", "VALUE letter 5 11\r\nhello again\r\nEND\r\n");
    tools.succeed("memcexist", &["letter"]);
    tools.succeed("memctouch", &["--expire=100", "letter"]);
    tools.succeed("memcrm", &["letter"]);
    for tool in ["memccat", "memcexist", "memcrm", "memctouch"] {
        tools.refused(tool, &["letter"]);
    }
    client.expect("set k 0 0 1\r\nx\r\n", "STORED\r\n");
    tools.succeed("memcflush", &[]);
    assert_eq!(client.get("k"), None);
}

#[test]
#[ignore = "needs libmemcached's tools"]
fn statistics_and_errors() {
    let tools = plain();
    let said = tools.succeed("memcstat", &[]);
    for name in ["pid", "uptime", "version", "curr_connections", "cmd_get", "limit_maxbytes", "evictions"] {
        assert!(said.contains(&format!("{name}: ")), "no {name}:\n{said}");
    }
    assert!(tools.succeed("memcstat", &["--args=settings"]).contains("item_size_max: "));
    let said = tools.succeed("memcstat", &["--server-version"]);
    assert!(said.trim_end().ends_with(" 1.6.18") && said.contains("127.0.0.1"), "{said}");
    let said = tools.succeed("memcstat", &[]);
    let own = format!("tokencached_version: {}\n", env!("CARGO_PKG_VERSION"));
    assert!(said.contains("version: 1.6.18\n") && said.contains(&own), "{said}");
    // Keys are not told (docs/en/differences.md); the tool ends well with none.
    tools.0.connect().expect("set k 0 0 1\r\nx\r\n", "STORED\r\n");
    assert_eq!(tools.succeed("memcdump", &[]), "");
    let (status, said) = run(program("memcerror").arg("14"));
    assert!(status.success() && said.contains("NOT STORED"), "{said}");
}

#[test]
#[ignore = "needs libmemcached's tools"]
fn memcslap_sets_gets_and_gets_many() {
    let tools = plain();
    for (test, counter) in [("set", "cmd_set"), ("get", "get_hits"), ("mget", "get_hits")] {
        tools.succeed("memcflush", &[]);
        let mut client = tools.0.connect();
        client.ask("stats reset\r\n");
        let test = format!("--test={test}");
        let arguments = [&test, "--concurrency=4", "--execute-number=500", "--initial-load=500"];
        let said = tools.succeed("memcslap", &arguments);
        assert!(!said.to_lowercase().contains("error"), "{said}");
        let done: u64 = client.stat("", counter).unwrap().parse().unwrap();
        assert!(done >= 2000, "{done} by {test}: {said}");
    }
}

#[test]
#[ignore = "needs libmemcached's tools"]
fn memcaslap_finds_what_it_has_stored() {
    let tools = plain();
    let said = tools.succeed(
        "memcaslap",
        &["--threads=1", "--concurrency=8", "--execute_number=20000", "--verify=1.0", "--division=10"],
    );
    for nothing in ["get_misses: 0", "verify_misses: 0", "verify_failed: 0"] {
        assert!(said.contains(nothing), "{said}");
    }
    assert!(said.contains("Ops: 20000"), "{said}");
}

/// A token that can't be written, touched away or flushed by any tool.
#[test]
#[ignore = "needs libmemcached's tools"]
fn a_managed_key_outlasts_every_tool() {
    let wechat = Wechat::start();
    let tools = Tools(Node::start(&wechat.config("", ""), &[]));
    let key = format!("access_token:{APPID}");
    let token = wait_for("a token", || tools.0.connect().get(&key));
    write(tools.0.folder.path(), &key, "another");
    let same = |client: &mut Client, after: &str| assert_eq!(client.get(&key).as_ref(), Some(&token), "after {after}");
    let mut client = tools.0.connect();
    for how in ["--set", "--add", "--replace"] {
        tools.refused("memccp", &[how, &key]);
        same(&mut client, how);
    }
    tools.succeed("memctouch", &["--expire=1", &key]);
    tools.succeed("memcexist", &[&key]);
    tools.succeed("memcflush", &[]);
    tools.succeed("memcslap", &["--test=set", "--flush", "--concurrency=1", "--execute-number=100"]);
    same(&mut client, "flush");
    assert_eq!(tools.succeed("memccat", &[&key]).trim_end().as_bytes(), token);
    tools.succeed("memcrm", &[&key]);
    same(&mut client, "memcrm of a token that is good");
}
