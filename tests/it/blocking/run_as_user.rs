//! `-u`: what is given to the user, and what is not; and core dumps. These run as root.

use std::os::unix::fs::{MetadataExt, PermissionsExt, chown};

use super::*;
use crate::support::{as_root, run};

/// A user that every system has.
const USER: &str = "nobody";

fn user_id() -> u32 {
    nix_user().0
}

fn nix_user() -> (u32, u32) {
    let line = fs::read_to_string("/etc/passwd").unwrap();
    let line = line.lines().find(|line| line.starts_with(&format!("{USER}:"))).unwrap().to_owned();
    let mut fields = line.split(':').skip(2).map(|field| field.parse().unwrap());
    (fields.next().unwrap(), fields.next().unwrap())
}

/// A folder that others may pass through, as `/var/lib` is.
fn open_folder() -> TempDir {
    as_root();
    let folder = tempfile::tempdir().unwrap();
    fs::set_permissions(folder.path(), fs::Permissions::from_mode(0o755)).unwrap();
    folder
}

/// A folder that others may write in as well, as `/tmp` is.
fn shared_folder() -> TempDir {
    let folder = tempfile::tempdir().unwrap();
    fs::set_permissions(folder.path(), fs::Permissions::from_mode(0o1777)).unwrap();
    folder
}

fn config(wechat: &Wechat, state: &str) -> String {
    wechat.config("", ALIAS).replace("{folder}/state.json", state)
}

/// What a start says that fails.
#[track_caller]
fn refused(folder: &Path, config: &str) -> String {
    let file = write(folder, "tokencached.toml", &config.replace("{folder}", &folder.display().to_string()));
    let (status, said) = run(tokencached().arg("--config").arg(file).args(["-p", "-1", "-u", USER]));
    assert_eq!(status.code(), Some(78), "{said}");
    said
}

#[test]
#[ignore = "needs root"]
fn folders_that_the_start_makes_are_given_to_the_user() {
    let (wechat, folder) = (Wechat::start(), shared_folder());
    let node = Node::start_in(folder, &config(&wechat, "{folder}/a/b/state.json"), &["-u", USER]);
    let mut client = node.connect();
    wait_for("a token", || client.get("access_token"));
    let folder = node.stop();
    for path in ["a", "a/b", "a/b/state.json"] {
        assert_eq!(fs::metadata(folder.path().join(path)).unwrap().uid(), user_id(), "{path}");
    }
    assert_ne!(fs::metadata(folder.path()).unwrap().uid(), user_id(), "that one was there before");
    // The next start finds them as they are to be.
    let node = Node::start_in(folder, &config(&wechat, "{folder}/a/b/state.json"), &["-u", USER]);
    assert!(node.connect().get("access_token").is_some());
    node.stop();
}

#[test]
#[ignore = "needs root"]
fn a_folder_that_was_there_before_is_not_given_away_and_the_start_says_what_to_do() {
    let (wechat, folder) = (Wechat::start(), open_folder());
    let said = refused(folder.path(), &config(&wechat, "{folder}/state.json"));
    let path = folder.path().display().to_string();
    assert!(said.contains(&format!("user {USER} (-u) may not write in {path}")), "{said}");
    assert!(said.contains(&format!("install -d -m 700 -o {USER}")) && said.contains(&format!("chown {USER}: {path}")));
    // Nor by a link from a folder that may be written in.
    let shared = shared_folder();
    std::os::unix::fs::symlink(folder.path(), shared.path().join("link")).unwrap();
    refused(shared.path(), &config(&wechat, "{folder}/link/state.json"));
    for touched in [&folder, &shared] {
        assert_eq!(fs::metadata(touched.path()).unwrap().uid(), 0);
    }
    // What it says helps.
    let (user, group) = nix_user();
    chown(folder.path(), Some(user), Some(group)).unwrap();
    let node = Node::start_in(folder, &config(&wechat, "{folder}/state.json"), &["-u", USER]);
    let mut client = node.connect();
    wait_for("a token", || client.get("access_token"));
    assert!(node.stop().path().join("state.json").exists());
}

#[test]
#[ignore = "needs root"]
fn a_state_file_of_another_user_is_not_given_away_and_the_start_says_what_to_do() {
    let (wechat, folder) = (Wechat::start(), open_folder());
    let (user, group) = nix_user();
    let state = write(folder.path(), "state.json", "{}");
    fs::set_permissions(&state, fs::Permissions::from_mode(0o600)).unwrap();
    chown(folder.path(), Some(user), Some(group)).unwrap();
    let said = refused(folder.path(), &config(&wechat, "{folder}/state.json"));
    assert!(said.contains(&format!("chown {USER}: {}", state.display())), "{said}");
    assert_eq!(fs::metadata(&state).unwrap().uid(), 0);
}

#[test]
#[ignore = "needs root"]
fn a_lock_file_of_another_user_is_named_before_the_state_cannot_be_written() {
    let (wechat, folder) = (Wechat::start(), open_folder());
    let (user, group) = nix_user();
    let config = config(&wechat, "{folder}/state.json");
    // Root has run it, and then only the state was given away.
    let node = Node::start_in(folder, &config, &[]);
    wait_for("a token", || node.connect().get("access_token"));
    let folder = node.stop();
    for name in ["", "state.json"] {
        chown(folder.path().join(name), Some(user), Some(group)).unwrap();
    }
    let said = refused(folder.path(), &config);
    let lock = folder.path().join("state.json.lock");
    assert!(said.contains(&format!("chown {USER}: {}", lock.display())), "{said}");
    // What it says helps.
    chown(lock, Some(user), Some(group)).unwrap();
    let node = Node::start_in(folder, &config, &["-u", USER]);
    let mut client = node.connect();
    wait_for("a token", || client.get("access_token"));
    let log = node.log();
    assert!(!log.contains("cannot be written"), "{log}");
    node.stop();
}

#[test]
#[ignore = "needs root"]
fn core_dumps_are_off_unless_they_are_asked_for() {
    let limit = |node: &Node| {
        let limits = fs::read_to_string(format!("/proc/{}/limits", node.pid())).unwrap();
        let line = limits.lines().find(|line| line.starts_with("Max core file size")).unwrap();
        line.split_whitespace().nth(4).unwrap().to_owned()
    };
    let owner = |node: &Node| fs::metadata(format!("/proc/{}/mem", node.pid())).unwrap().uid();
    let folder = open_folder();
    let node = Node::start_in(folder, &crate::support::config("http://127.0.0.1:1", "", ""), &[]);
    assert_eq!(limit(&node), "0");
    drop(node);
    let config = "[state]\npath = \"none\"\n";
    // The files of a process that may not be dumped are root's.
    let hidden = Node::start_in(shared_folder(), config, &["-u", USER]);
    assert_eq!((limit(&hidden).as_str(), owner(&hidden)), ("0", 0));
    let asked = Node::start_in(shared_folder(), config, &["-u", USER, "-r"]);
    assert_eq!(owner(&asked), user_id());
    asked.await_log("a core dump of this process holds every token");
}
