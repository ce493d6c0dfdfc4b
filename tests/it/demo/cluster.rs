//! `tokencached demo --nodes 3`: what it says is so, what is killed comes back, and nothing outlives it.

use std::fs::File;
use std::net::SocketAddr;
use std::path::Path;
use std::process::{Child, Command, Stdio};

use super::commands;
use crate::support::{Client, needs, program, run, run_checked, signal, tokencached, wait_for};

const CLASSIC: &str = "wx2222222222222222";

/// A running demo of three nodes; its temporary folder is in this one.
struct Demo {
    child: Child,
    folder: tempfile::TempDir,
}

/// As it was printed.
struct Node {
    address: SocketAddr,
    pid: String,
}

impl Demo {
    fn start() -> Demo {
        Demo::with(|_| {})
    }

    fn with(change: impl FnOnce(&mut Command)) -> Demo {
        let folder = tempfile::tempdir().unwrap();
        let file = |name: &str| File::create(folder.path().join(name)).unwrap();
        std::fs::create_dir(folder.path().join("tmp")).unwrap();
        let mut command = tokencached();
        command.args(["demo", "--nodes", "3", "-p", "0", "--http-port", "0", "--lifetime", "12s"]);
        // An address of its own: nobody takes the port of a node that is down.
        let address = std::net::Ipv4Addr::new(127, fastrand::u8(1..=254), fastrand::u8(..), fastrand::u8(1..=254));
        command.args(["-l", &address.to_string()]);
        command.env("TMPDIR", folder.path().join("tmp")).stdin(Stdio::null());
        command.stdout(file("printed")).stderr(file("log"));
        change(&mut command);
        let mut demo = Demo { child: command.spawn().unwrap(), folder };
        wait_for("the demo to say everything", || {
            let ended = demo.child.try_wait().unwrap();
            assert!(ended.is_none(), "{ended:?}: {}", demo.log());
            demo.printed().contains("/sandbox/calls\n").then_some(())
        });
        demo
    }

    fn printed(&self) -> String {
        std::fs::read_to_string(self.folder.path().join("printed")).unwrap()
    }

    fn log(&self) -> String {
        std::fs::read_to_string(self.folder.path().join("log")).unwrap()
    }

    fn nodes(&self) -> Vec<Node> {
        let printed = self.printed();
        let lines = printed.lines().filter(|line| line.starts_with("node-") && line.contains("memcached clients"));
        let part =
            |line: &str, mark: &str| line.split(mark).nth(1).unwrap().split([',', ' ']).next().unwrap().to_owned();
        lines.map(|line| Node { address: part(line, " on ").parse().unwrap(), pid: part(line, "pid ") }).collect()
    }

    /// The one command that contains this.
    #[track_caller]
    fn command(&self, part: &str) -> String {
        let commands = commands(&self.printed());
        let mut found = commands.iter().filter(|command| command.contains(part));
        found.next().unwrap_or_else(|| panic!("no {part} in {commands:#?}")).clone()
    }

    #[track_caller]
    fn type_in(&self, part: &str) -> String {
        needs("nc, curl");
        run_checked(program("sh").arg("-c").arg(self.command(part)).env("no_proxy", "*"))
    }

    /// Waits until all nodes answer with one token.
    fn agree(&self, key: &str) -> Vec<u8> {
        let addresses: Vec<SocketAddr> = self.nodes().iter().map(|node| node.address).collect();
        assert_eq!(addresses.len(), 3);
        wait_for("all nodes to have the same token", || {
            let tokens: Vec<_> = addresses.iter().map(|&address| Client::connect(address).get(key)).collect();
            let first = tokens[0].clone()?;
            tokens.iter().all(|token| token.as_ref() == Some(&first)).then_some(first)
        })
    }

    fn signal(&self, name: &str) {
        signal(self.child.id(), name);
    }

    /// Processes that have to do with its folder, but for itself.
    fn processes(&self) -> Vec<String> {
        let tmp = self.folder.path().join("tmp").display().to_string();
        let entries = std::fs::read_dir("/proc").unwrap().flatten();
        // That of a zombie is empty.
        let commands = entries.filter_map(|entry| std::fs::read(entry.path().join("cmdline")).ok());
        let commands = commands.map(|command| String::from_utf8_lossy(&command).replace('\0', " "));
        commands.filter(|command| command.contains(&tmp)).collect()
    }
}

impl Drop for Demo {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn is_empty(folder: &Path) -> bool {
    std::fs::read_dir(folder).unwrap().next().is_none()
}

#[cfg(feature = "redis")]
#[test]
#[ignore = "waits for real time"]
fn every_node_has_the_same_token_and_a_killed_one_comes_back() {
    let demo = Demo::start();
    assert!(demo.printed().contains("-server: the store that the nodes share"), "{}", demo.printed());
    demo.agree("access_token");
    demo.agree(CLASSIC);
    wait_for("a renewal to be told", || {
        let printed = demo.printed();
        let told = |line: &str| line.starts_with(CLASSIC) && line.contains(" has renewed, generation ");
        printed.lines().any(|line| told(line) && line.ends_with("all 3 nodes have it")).then_some(())
    });
    let nodes = demo.nodes();
    demo.type_in(&format!("kill -9 {} ", nodes[1].pid));
    wait_for("that to be noticed", || demo.printed().contains("was ended by signal 9").then_some(()));
    for at in [0, 2] {
        assert!(Client::connect(nodes[at].address).get(CLASSIC).is_some(), "the others go on");
    }
    wait_for("it to come back", || demo.printed().contains("node-2 is started again: kill -9 ").then_some(()));
    wait_for("it to listen", || std::net::TcpStream::connect(nodes[1].address).ok());
    demo.agree(CLASSIC);
}

#[test]
#[ignore = "needs nc, curl"]
fn what_it_shows_can_be_typed() {
    let demo = Demo::start();
    let first = demo.agree(CLASSIC);
    let said = wait_for("the loop to read one token three times", || {
        let said = demo.type_in("for port in");
        let tokens: Vec<&str> = said.lines().collect();
        (tokens.len() == 3 && tokens.iter().all(|token| *token == tokens[0])).then_some(said)
    });
    assert!(said.len() > 3 * first.len(), "{said}");
    let first = demo.agree("access_token");
    demo.type_in("/sandbox/kill");
    assert_eq!(demo.type_in("printf 'delete"), "DELETED\r\n");
    assert_ne!(demo.agree("access_token"), first);
    let calls = demo.type_in("/sandbox/calls");
    assert!(calls.contains(CLASSIC), "{calls}");
    let shown = String::from_utf8(first).unwrap();
    assert!(!demo.log().contains(&shown) && !demo.printed().contains(&shown));
}

#[test]
fn it_ends_with_all_its_processes_and_leaves_no_file() {
    let mut demo = Demo::start();
    assert!(demo.processes().len() >= 3, "{:?}", demo.processes());
    demo.signal("TERM");
    let child = &mut demo.child;
    let status = wait_for("the demo to end", || child.try_wait().unwrap());
    assert_eq!(status.code(), Some(0), "{}", demo.log());
    assert_eq!(demo.processes(), Vec::<String>::new());
    assert!(is_empty(&demo.folder.path().join("tmp")));
    assert!(!demo.printed().contains("started again in"), "{}", demo.printed());
}

#[test]
fn nothing_outlives_a_demo_that_was_killed() {
    let mut demo = Demo::start();
    assert!(demo.processes().len() >= 3, "{:?}", demo.processes());
    demo.child.kill().unwrap();
    demo.child.wait().unwrap();
    wait_for("all its processes to end", || demo.processes().is_empty().then_some(()));
}

#[test]
#[ignore = "waits for real time"]
fn without_a_redis_the_others_follow_the_first() {
    let empty = tempfile::tempdir().unwrap();
    let demo = Demo::with(|command| {
        command.env("PATH", empty.path());
    });
    assert!(demo.printed().contains("There is no redis-server or valkey-server on PATH"), "{}", demo.printed());
    let before = demo.agree(CLASSIC);
    wait_for("a renewal", || Some(demo.agree(CLASSIC)).filter(|token| *token != before));
    let nodes = demo.nodes();
    demo.type_in(&format!("kill -9 {} ", nodes[0].pid));
    for node in &nodes[1..] {
        assert!(Client::connect(node.address).get("access_token").is_some(), "they answer from memory");
    }
    wait_for("the first one to come back", || demo.printed().contains("node-1 is started again").then_some(()));
    wait_for("it to listen", || std::net::TcpStream::connect(nodes[0].address).ok());
    demo.agree(CLASSIC);
}

#[cfg(feature = "redis")]
#[test]
fn a_redis_that_does_not_start_is_as_good_as_none() {
    use std::os::unix::fs::PermissionsExt;
    let path = tempfile::tempdir().unwrap();
    let server = crate::support::write(path.path(), "redis-server", "#!/bin/sh\necho 'out of order'\nexit 1\n");
    std::fs::set_permissions(server, std::fs::Permissions::from_mode(0o755)).unwrap();
    let demo = Demo::with(|command| {
        command.env("PATH", path.path());
    });
    assert!(demo.printed().contains("The redis-server on PATH does not start, so node-1 renews"), "{}", demo.printed());
    demo.agree(CLASSIC);
}

#[test]
fn what_cannot_be_is_refused_with_a_reason() {
    let refused = |arguments: &[&str]| {
        let (status, said) = run(tokencached().arg("demo").args(arguments));
        assert!(!status.success(), "{said}");
        said
    };
    assert!(refused(&["--nodes", "0"]).contains("1..=9"));
    assert!(refused(&["--nodes", "10"]).contains("1..=9"));
    assert!(refused(&["--nodes", "3", "-p", "65534"]).contains("not enough ports"));
    let taken = std::net::TcpListener::bind(("127.0.0.1", 0)).unwrap();
    let port = taken.local_addr().unwrap().port().to_string();
    let said = refused(&["--nodes", "2", "-p", &port, "--http-port", "0"]);
    // The port after it may be somebody's, too.
    assert!(said.contains("something listens there already") && said.contains(" has ended with "), "{said}");
}
