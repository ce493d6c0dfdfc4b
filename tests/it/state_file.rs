//! The state file of real servers: only one process writes it, a disk that fails loses nothing that could be saved, and
//! no file with tokens in it is left.

use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::thread;
use std::time::SystemTime;

use rustix::io::Errno;
use tempfile::TempDir;
use tokencached::cli::Flags;
use tokencached::config::{self, ProcessEnvironment};
use tokencached::credential;

use crate::support::disk::Disk;
use crate::support::{self, APPID, Node, Wechat, as_root, memory_folder, run, signal, tokencached, wait_for, write};

const ALIAS: &str = "aliases = [\"access_token\"]";
const CLASSIC: &str = "aliases = [\"access_token\"]\nendpoint = \"token\"";

fn any_token(node: &Node) -> String {
    let mut client = node.connect();
    String::from_utf8(wait_for("a token", || client.get("access_token"))).unwrap()
}

fn stat(node: &Node, name: &str) -> u64 {
    node.connect().stat("", name).unwrap().parse().unwrap()
}

fn is_saved(node: &Node) -> bool {
    stat(node, "state_file_saved") == 1
}

/// Each write makes a new file; its inode number may be that of the one before the last.
fn last_write(node: &Node) -> Option<(u64, SystemTime)> {
    let facts = fs::metadata(node.path("state.json")).ok()?;
    Some((facts.ino(), facts.modified().ok()?))
}

/// A configuration whose state is that of another folder.
fn config_on(wechat: &Wechat, app: &str, state: &Path) -> String {
    wechat.config("", app).replace("{folder}/state.json", state.to_str().unwrap())
}

/// Waits until the state holds this token.
fn persisted(state: &Path, token: &str) {
    wait_for("the state to be written", || fs::read_to_string(state).ok()?.contains(token).then_some(()));
}

/// Files whose names have this in them.
fn files(folder: &Path, part: &str) -> Vec<PathBuf> {
    let files = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
    files.filter(|path| path.file_name().unwrap().to_string_lossy().contains(part)).collect()
}

#[test]
fn of_two_servers_on_one_state_file_the_second_runs_from_memory_and_takes_it_up_when_the_first_has_ended() {
    let wechat = Wechat::start();
    let first = Node::start(&wechat.config("", ALIAS), &[]);
    let token = any_token(&first);
    let state = first.path("state.json");
    persisted(&state, &token);
    let written = fs::metadata(&state).unwrap().ino();
    // However it is spelled.
    let links = tempfile::tempdir().unwrap();
    symlink(first.folder.path(), links.path().join("link")).unwrap();
    let spelled = links.path().join("link/./state.json");
    let second = Node::start(&config_on(&wechat, ALIAS, &spelled), &[]);
    assert_eq!(any_token(&second), token, "a stable token of the other's is as good as one's own");
    assert_eq!((is_saved(&second), is_saved(&first)), (false, true));
    second.await_log("the state file is in use by another process");
    let said = second.log();
    let by = format!("process {}", first.pid());
    assert!(said.contains("the state file is in use by another process") && said.contains(&by), "{said}");
    assert_eq!(fs::metadata(&state).unwrap().ino(), written, "nobody else has written it");

    let _folder = first.stop();
    wait_for("the second to write", || is_saved(&second).then_some(()));
    second.await_log("the state file can be written again");
    assert!(fs::read_to_string(&state).unwrap().contains(&token));
    assert_eq!(stat(&second, "state_file_failures"), 0);
    let calls = wechat.calls(APPID).total();
    assert_eq!(calls, 1, "two servers, one call");
}

/// Starts servers that cannot run because another process has their state file; returns their last output.
fn refused(config: &str, flags: &[&str]) -> String {
    let folder = tempfile::tempdir().unwrap();
    let file = write(folder.path(), "c.toml", config);
    let (status, said) = run(tokencached().arg("-c").arg("64").args(flags).args(["-p", "-1", "--config"]).arg(file));
    assert_eq!(status.code(), Some(69), "{said}");
    said
}

#[test]
#[ignore = "waits for real time"]
fn a_second_server_with_a_classic_token_does_not_start_and_says_who_has_the_state() {
    let wechat = Wechat::start();
    let first = Node::start(&wechat.config("", CLASSIC), &[]);
    let token = any_token(&first);
    let config = config_on(&wechat, CLASSIC, &first.path("state.json"));
    // In the background too, before the server leaves the terminal.
    let said = thread::scope(|scope| {
        let ways: [&[&str]; 2] = [&[], &["-d"]];
        ways.map(|flags| scope.spawn(|| refused(&config, flags))).map(|way| way.join().unwrap())
    });
    for said in said {
        for part in ["waiting 10 s", &format!("process {} on host", first.pid()), "TOKENCACHED_STATE_PATH"] {
            assert!(said.contains(part), "{part} in {said}");
        }
    }
    assert_eq!(any_token(&first), token);
    assert_eq!(wechat.calls(APPID).total(), 1);
}

/// Both have found the file free.
#[test]
fn of_two_servers_that_start_at_once_with_a_classic_token_one_does_not() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("state.json");
    let text =
        support::config("http://127.0.0.1:9", "", CLASSIC).replace("{folder}/state.json", path.to_str().unwrap());
    let file = write(folder.path(), "c.toml", &text);
    let loaded = config::load(Some(&file), &ProcessEnvironment, &Flags::default()).unwrap();
    let first = credential::build(&loaded.config.credentials).unwrap();
    let reason = credential::build(&loaded.config.credentials).err().unwrap();
    assert!(reason.contains(&format!("in use by process {}", std::process::id())), "{reason}");
    drop(first);
    assert!(credential::build(&loaded.config.credentials).is_ok());
}

#[test]
#[ignore = "needs root"]
fn with_another_user_the_state_and_its_lock_are_that_users() {
    as_root();
    let wechat = Wechat::start();
    let folder = tempfile::tempdir().unwrap();
    fs::set_permissions(folder.path(), fs::Permissions::from_mode(0o777)).unwrap();
    let config = wechat.config("", CLASSIC).replace("{folder}/state.json", "{folder}/kept/state.json");
    let start = |folder| Node::start_in(folder, &config, &["-u", "nobody"]);
    let node = start(folder);
    let token = any_token(&node);
    persisted(&node.path("kept/state.json"), &token);
    let owner = |name: &str| fs::metadata(node.path("kept").join(name)).unwrap().uid();
    assert!(owner("state.json") != 0 && owner("state.json.lock") == owner("state.json"));
    let node = start(node.stop());
    assert_eq!(any_token(&node), token);
    assert!(is_saved(&node));
}

#[test]
fn a_start_that_waits_for_the_state_outlives_a_hangup_and_ends_when_it_is_told_to() {
    let wechat = Wechat::start();
    let first = Node::start(&wechat.config("", CLASSIC), &[]);
    any_token(&first);
    let folder = tempfile::tempdir().unwrap();
    let config = write(folder.path(), "tokencached.toml", &config_on(&wechat, CLASSIC, &first.path("state.json")));
    let log = folder.path().join("log");
    let mut second = tokencached();
    second.arg("--config").arg(config).args(["-p", "-1"]).stderr(fs::File::create(&log).unwrap());
    let mut second = second.spawn().unwrap();
    wait_for("the second to wait", || fs::read_to_string(&log).ok()?.contains("waiting 10 s").then_some(()));
    for name in ["HUP", "TERM"] {
        signal(second.id(), name);
    }
    let status = second.wait().unwrap();
    assert_eq!(status.code(), Some(0), "{}", fs::read_to_string(&log).unwrap());
    assert!(first.connect().get("access_token").is_some());
}

#[test]
fn a_server_waits_for_one_that_is_ending_and_starts_with_its_state() {
    let wechat = Wechat::start();
    let first = Node::start(&wechat.config("", CLASSIC), &[]);
    let token = any_token(&first);
    let config = config_on(&wechat, CLASSIC, &first.path("state.json"));
    let folder = tempfile::tempdir().unwrap();
    let log = folder.path().join("log");
    let starting = thread::spawn(move || Node::start_in(folder, &config, &[]));
    wait_for("the second to wait", || fs::read_to_string(&log).ok()?.contains("waiting 10 s").then_some(()));
    let _folder = first.stop();
    let second = starting.join().unwrap();
    assert_eq!(any_token(&second), token);
    assert!(is_saved(&second));
    assert_eq!(wechat.calls(APPID).total(), 1, "the first one's token lives on");
}

#[test]
fn a_killed_server_keeps_nobody_out() {
    let wechat = Wechat::start();
    let config = wechat.config("", CLASSIC);
    let node = Node::start(&config, &[]);
    let token = any_token(&node);
    persisted(&node.path("state.json"), &token);
    let lock = node.path("state.json.lock");
    assert_eq!(fs::metadata(&lock).unwrap().permissions().mode() & 0o777, 0o600);
    let node = Node::start_in(node.kill(), &config, &[]);
    assert_eq!(any_token(&node), token);
    assert!(!node.log().contains("in use"), "{}", node.log());
}

#[test]
fn check_says_who_has_the_state_file_and_keeps_nobody_from_it() {
    let wechat = Wechat::start();
    for (app, then) in [(ALIAS, "runs from memory"), (CLASSIC, "does not start")] {
        let node = Node::start(&wechat.config("", app), &[]);
        any_token(&node);
        let check = || {
            let (status, said) = run(tokencached().arg("check").arg("--config").arg(node.path("tokencached.toml")));
            assert!(status.success(), "{said}");
            said
        };
        let said = check();
        assert!(said.contains(&format!("is in use by process {}", node.pid())) && said.contains(then), "{said}");
        assert!(is_saved(&node));
        let folder = node.stop();
        let (_, said) = run(tokencached().arg("check").arg("--config").arg(folder.path().join("tokencached.toml")));
        assert!(!said.contains("in use"), "{said}");
    }
}

#[test]
#[ignore = "waits for real time"]
fn a_lock_file_that_was_removed_is_made_again_and_another_process_that_came_first_is_left_alone() {
    let wechat = Wechat::short_lived(2);
    // A second server takes what is half written here for a killed one's: no write may go on for long.
    let first = Node::start_in(memory_folder(), &wechat.config("", ALIAS), &[]);
    let lock = first.path("state.json.lock");
    any_token(&first);
    fs::remove_file(&lock).unwrap();
    wait_for("the lock file with the next write", || lock.exists().then_some(()));
    let before = last_write(&first);
    wait_for("a write's end", || (last_write(&first) != before).then_some(()));
    // Somebody "clears a stale lock" and starts a second server.
    fs::remove_file(&lock).unwrap();
    let second = Node::start(&config_on(&wechat, ALIAS, &first.path("state.json")), &[]);
    let (with, without) =
        wait_for("one of them to write and the other not", || match [&first, &second].map(is_saved) {
            [true, false] => Some((&first, &second)),
            [false, true] => Some((&second, &first)),
            _ => None,
        });
    let by = format!("in use by process {}", with.pid());
    // The line may be written a moment after the write has failed.
    wait_for(&by, || without.log().replace("holder=", "in use by ").contains(&by).then_some(()));
    assert_eq!(wechat.judge(&any_token(without)), tokencached::sandbox::Verdict::Accepted);
}

#[test]
#[ignore = "waits for real time"]
fn where_there_are_no_locks_it_is_said_once_and_the_state_is_kept() {
    let wechat = Wechat::short_lived(2);
    for errno in [Errno::NOLCK, Errno::OPNOTSUPP] {
        let folder = tempfile::tempdir().unwrap();
        let disk = Disk::of(folder.path());
        disk.fail(&["flock"], errno);
        let node = Node::start_with(folder, &wechat.config("", CLASSIC), &[], &disk.variables());
        any_token(&node);
        let first = wait_for("the state", || last_write(&node));
        wait_for("another write", || last_write(&node).filter(|now| *now != first));
        node.await_log("cannot be locked on this file system");
        assert_eq!(node.log().matches("cannot be locked on this file system").count(), 1, "{}", node.log());
        assert!(is_saved(&node));
    }
}

#[test]
fn on_a_disk_that_is_read_only_the_state_is_used_and_the_server_runs() {
    let wechat = Wechat::start();
    let config = wechat.config("", CLASSIC);
    let node = Node::start(&config, &[]);
    let token = any_token(&node);
    let folder = node.stop();
    fs::remove_file(folder.path().join("state.json.lock")).unwrap();
    let disk = Disk::of(folder.path());
    disk.fail(&["open"], Errno::ROFS);
    let node = Node::start_with(folder, &config, &[], &disk.variables());
    assert_eq!(any_token(&node), token);
    // The counts have to be written, and the folder is there again before the end.
    node.connect().expect("delete access_token\r\n", "DELETED\r\n");
    disk.repair();
    let folder = node.stop();
    assert!(folder.path().join("state.json.lock").exists());
    assert_eq!(wechat.calls(APPID).minted, 1);
}

/// The disk fails for so long that tries are rare, and works again just before the end.
#[track_caller]
fn is_written_at_the_end(call: &str, errno: Errno) {
    let wechat = Wechat::start();
    let folder = tempfile::tempdir().unwrap();
    let disk = Disk::of(folder.path());
    disk.fail(&[call], errno);
    let node = Node::start_with(folder, &wechat.config("", ALIAS), &[], &disk.variables());
    let token = any_token(&node);
    wait_for("three failed writes", || (stat(&node, "state_file_failures") >= 3).then_some(()));
    assert!(!node.path("state.json").exists() && !is_saved(&node));
    disk.repair();
    let folder = node.stop();
    let state = fs::read_to_string(folder.path().join("state.json")).unwrap();
    assert!(state.contains(&token), "{call} {errno}");
    assert_eq!(files(folder.path(), ".unfinished-"), [] as [PathBuf; 0], "{call} {errno}");
}

#[test]
#[ignore = "waits for real time"]
fn a_disk_that_is_good_again_just_before_the_end_has_the_last_state() {
    let faults = [
        ("open", Errno::NOSPC),
        ("write", Errno::NOSPC),
        ("write", Errno::DQUOT),
        ("fsync", Errno::IO),
        ("open", Errno::ROFS),
    ];
    thread::scope(|scope| {
        for (call, errno) in faults {
            scope.spawn(move || is_written_at_the_end(call, errno));
        }
    });
}

#[test]
#[ignore = "waits for real time"]
fn a_disk_that_hangs_does_not_hold_up_the_end() {
    let wechat = Wechat::start();
    let folder = tempfile::tempdir().unwrap();
    let disk = Disk::of(folder.path());
    disk.hang("fsync");
    let mut node = Node::start_with(folder, &wechat.config("", ALIAS), &[], &disk.variables());
    any_token(&node);
    node.signal("TERM");
    assert!(node.wait().success(), "{}", node.log());
    node.await_log("the state file could not be written before shutdown");
}

#[test]
fn what_a_killed_write_has_left_is_removed_at_the_next_start() {
    let wechat = Wechat::start();
    let folder = tempfile::tempdir().unwrap();
    let disk = Disk::of(folder.path());
    disk.hang("fsync");
    let config = wechat.config("", ALIAS);
    let node = Node::start_with(folder, &config, &[], &disk.variables());
    let token = any_token(&node);
    let left = wait_for("a write that hangs", || files(node.folder.path(), ".unfinished-").pop());
    wait_for("a token on the disk", || fs::read_to_string(&left).ok()?.contains(&token).then_some(()));
    let folder = node.kill();
    assert!(left.exists());
    let node = Node::start_in(folder, &config, &[]);
    assert!(!left.exists() && node.log().contains("removed unfinished state files"), "{}", node.log());
    any_token(&node);
}

#[test]
fn a_second_server_leaves_the_writes_of_the_first_alone() {
    let wechat = Wechat::start();
    let folder = tempfile::tempdir().unwrap();
    let disk = Disk::of(folder.path());
    disk.hang("fsync");
    let first = Node::start_with(folder, &wechat.config("", ALIAS), &[], &disk.variables());
    let token = any_token(&first);
    let under_way = wait_for("a write that hangs", || files(first.folder.path(), ".unfinished-").pop());
    let second = Node::start(&config_on(&wechat, ALIAS, &first.path("state.json")), &[]);
    any_token(&second);
    assert!(under_way.exists());
    disk.repair();
    persisted(&first.path("state.json"), &token);
    assert!(is_saved(&first));
}

#[test]
#[ignore = "waits for real time"]
fn a_folder_that_vanishes_and_comes_back_is_written_and_locked_again() {
    let wechat = Wechat::short_lived(2);
    let folder = tempfile::tempdir().unwrap();
    let config = wechat.config("", ALIAS).replace("{folder}/state.json", "{folder}/kept/state.json");
    let node = Node::start_in(folder, &config, &[]);
    any_token(&node);
    let (kept, away) = (node.path("kept"), node.path("away"));
    wait_for("the state", || kept.join("state.json").exists().then_some(()));
    fs::rename(&kept, &away).unwrap();
    wait_for("the failure to be noticed", || (!is_saved(&node)).then_some(()));
    node.await_log("the state file cannot be written");
    // Not the same one.
    fs::create_dir(&kept).unwrap();
    wait_for("the state in the new folder", || kept.join("state.json").exists().then_some(()));
    wait_for("the end of it to be said", || is_saved(&node).then_some(()));
    let said = run(tokencached().arg("check").arg("--config").arg(node.path("tokencached.toml"))).1;
    assert!(said.contains(&format!("in use by process {}", node.pid())), "{said}");
    node.stop();
}

#[test]
fn what_is_set_aside_because_others_could_read_it_is_closed_to_them() {
    let wechat = Wechat::start();
    let config = wechat.config("", ALIAS);
    let node = Node::start(&config, &[]);
    any_token(&node);
    let folder = node.stop();
    fs::set_permissions(folder.path().join("state.json"), fs::Permissions::from_mode(0o644)).unwrap();
    let node = Node::start_in(folder, &config, &[]);
    any_token(&node);
    let aside = files(node.folder.path(), ".corrupt-").remove(0);
    assert_eq!(fs::metadata(aside).unwrap().permissions().mode() & 0o777, 0o600);
}

#[test]
fn servers_without_an_app_share_any_state_path_and_lock_nothing() {
    let folder: TempDir = tempfile::tempdir().unwrap();
    let config = format!("[state]\npath = \"{}\"\n", folder.path().join("state.json").display());
    let (one, other) = (Node::start(&config, &[]), Node::start(&config, &[]));
    one.connect().expect("set k 0 0 1\r\nx\r\n", "STORED\r\n");
    other.connect().expect("get k\r\n", "END\r\n");
    assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 0);
}
