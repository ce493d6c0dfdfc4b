//! Sinks that run a command, with real programs: what the program is given and what it is not, how many run at once,
//! what becomes of those that hang or fail, and that nobody else is disturbed by it.

use std::collections::BTreeSet;
use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Stdio;

use tempfile::TempDir;
use tokencached::sandbox::{AppOptions, FaultKind, InjectedFault, Options};

use crate::support::{APPID, Node, SECRET, Wechat, as_root, needs, run, tokencached, wait_for, write};

/// A folder that only we can write in, with a configuration file that only we can write.
fn folder() -> TempDir {
    let folder = tempfile::tempdir().unwrap();
    write(folder.path(), "tokencached.toml", "");
    set_mode(&folder.path().join("tokencached.toml"), 0o600);
    folder
}

fn set_mode(path: &Path, mode: u32) {
    fs::set_permissions(path, Permissions::from_mode(mode)).unwrap();
}

/// A program of that text in the folder.
fn program(folder: &Path, name: &str, text: &str) -> PathBuf {
    let path = write(folder, name, text);
    set_mode(&path, 0o755);
    path
}

/// A sink that runs `put` in the node's folder, and gives it the folder and whose value it is.
const SINK: &str = "[[sink]]\ncommand = [\"{folder}/put\", \"{folder}\", \"{appid}\", \"{type}\", \"{expires_in}\"]\n";

fn start(wechat: &Wechat, script: &str, more: &str) -> Node {
    let folder = folder();
    program(folder.path(), "put", script);
    Node::start_in(folder, &wechat.config("", &format!("{SINK}{more}")), &[])
}

fn token_of(node: &Node, appid: &str) -> Option<String> {
    node.connect().get(&format!("access_token:{appid}")).map(|token| String::from_utf8(token).unwrap())
}

fn token(node: &Node) -> Option<String> {
    token_of(node, APPID)
}

fn figure(node: &Node, name: &str) -> Option<String> {
    node.connect().stat("", &format!("sink_0_{name}"))
}

#[track_caller]
fn wait_for_error(node: &Node, class: &str) {
    wait_for(class, || (figure(node, "last_error").as_deref() == Some(class)).then_some(()));
    assert!(token(node).is_some(), "a sink's trouble never touches serving");
}

fn read(path: PathBuf) -> Option<String> {
    fs::read_to_string(path).ok()
}

/// Neither the token nor a piece of it is in there.
#[track_caller]
fn assert_hidden(text: &str, token: &str) {
    assert!(token.len() > 60);
    for at in 0..token.len() - 15 {
        assert!(!text.contains(&token[at..at + 16]), "{text}");
    }
}

/// The state letter of a process; none if it is gone.
fn state(pid: &str) -> Option<char> {
    let text = read(format!("/proc/{pid}/stat").into())?;
    text.rsplit(") ").next()?.chars().next()
}

#[track_caller]
fn wait_for_end(pid: &str) {
    wait_for("the end of a process", || matches!(state(pid.trim()), None | Some('Z' | 'X')).then_some(()));
}

/// The processes that this one has started and not yet waited for.
fn children(parent: u32) -> usize {
    let entries = fs::read_dir("/proc").unwrap().filter_map(Result::ok);
    let stats = entries.filter_map(|entry| read(entry.path().join("stat")));
    stats
        .filter(|stat| stat.rsplit(") ").next().and_then(|rest| rest.split(' ').nth(1)) == Some(&parent.to_string()))
        .count()
}

#[test]
#[ignore = "waits for real time"]
fn a_command_reads_each_value_and_learns_whose_it_is() {
    let wechat = Wechat::short_lived(4);
    let script =
        "#!/bin/sh\ncat > \"$1/value.new\"\necho \"$2 $3 $4\" > \"$1/whose\"\nmv \"$1/value.new\" \"$1/value\"\n";
    let node = start(&wechat, script, "");
    let written = || {
        let token = token(&node)?;
        (read(node.path("value")).as_ref() == Some(&token)).then_some(token)
    };
    let first = wait_for("the first token", written);
    wait_for("the next token", || written().filter(|token| *token != first));
    let whose = read(node.path("whose")).unwrap();
    let words: Vec<&str> = whose.split_whitespace().collect();
    assert_eq!(words[..2], [APPID, "access_token"]);
    assert!((0..=4).contains(&words[2].parse::<i64>().unwrap()), "{whose}");
    for (name, value) in [("type", "command"), ("last_error", "none"), ("last_write_app", APPID), ("failures", "0")] {
        assert_eq!(figure(&node, name).as_deref(), Some(value), "{name}");
    }
    assert_eq!(figure(&node, "target"), Some(node.path("put").display().to_string()));
}

/// What the program finds, in Python: a shell opens files of its own.
const LOOKS: &str = "#!/usr/bin/python3 -I
import json, os, sys
seen = {}
for name in os.listdir('/proc/self/fd'):
    try:
        seen[name] = os.readlink('/proc/self/fd/' + name)
    except OSError:
        pass  # That of the listing.
everything = {
    'descriptors': seen,
    'environment': open('/proc/self/environ').read().split(chr(0)),
    'arguments': open('/proc/self/cmdline').read(),
    'folder': os.getcwd(),
    'group': os.getpgid(0) == os.getpid(),
    'user': os.getuid(),
    'value': sys.stdin.read(),
}
with open(sys.argv[1] + '/seen.new', 'w') as file:
    json.dump(everything, file)
os.rename(sys.argv[1] + '/seen.new', sys.argv[1] + '/seen')
";

#[test]
#[ignore = "needs python3"]
fn a_command_finds_three_descriptors_two_variables_and_no_value_where_others_look() {
    let wechat = Wechat::start();
    let folder = folder();
    needs("python3");
    program(folder.path(), "put", LOOKS);
    // As a start script leaves a file open for what it starts.
    let mut server = crate::support::program("sh");
    server.env_clear().env("PATH", std::env::var_os("PATH").unwrap());
    server.args(["-c", "exec 9</etc/hostname; exec \"$0\" \"$@\"", env!("CARGO_BIN_EXE_tokencached")]);
    let variables = [("TZ", "Asia/Shanghai"), ("WX_SECRET", SECRET), ("LD_LIBRARY_PATH", "/nowhere")];
    let node = Node::start_binary(server, folder, &wechat.config("", SINK), &[], &variables);
    let seen = wait_for("the command", || read(node.path("seen")));
    let seen: serde_json::Value = serde_json::from_str(&seen).unwrap();
    let descriptors = seen["descriptors"].as_object().unwrap();
    assert_eq!(descriptors.keys().collect::<Vec<_>>(), ["0", "1", "2"], "{seen}");
    assert!(descriptors.values().all(|to| to.as_str().unwrap().starts_with("pipe:")), "{seen}");
    let variables = seen["environment"].as_array().unwrap().iter().map(|one| one.as_str().unwrap());
    let names: BTreeSet<&str> = variables.filter_map(|one| Some(one.split_once('=')?.0)).collect();
    assert_eq!(names, BTreeSet::from(["PATH", "TZ"]));
    let token = token(&node).unwrap();
    assert_eq!(seen["value"], token.as_str());
    assert_hidden(&seen["arguments"].to_string(), &token);
    assert_eq!((&seen["folder"], &seen["group"]), (&"/".into(), &true.into()));
}

#[test]
#[ignore = "needs root"]
fn a_command_runs_as_the_user_that_the_server_becomes() {
    as_root();
    let (wechat, folder) = (Wechat::start(), folder());
    set_mode(folder.path(), 0o755);
    program(folder.path(), "put", LOOKS);
    let place = folder.path().join("for-nobody");
    fs::create_dir(&place).unwrap();
    std::os::unix::fs::chown(&place, Some(65534), Some(65534)).unwrap();
    let config = wechat.config("", &SINK.replace("\", \"{folder}\"", "\", \"{folder}/for-nobody\""));
    let config = config.replace("path = \"{folder}/state.json\"", "path = \"none\"");
    let config = config.replace("{folder}", &folder.path().display().to_string());
    let config = write(folder.path(), "tokencached.toml", &config);
    set_mode(&config, 0o644);
    let mut server = tokencached();
    server
        .arg("--config")
        .arg(config)
        .args(["-p", "0", "-U", "0", "-u", "nobody"])
        .args(["-s"])
        .arg(place.join("socket"));
    let mut server = server.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
    let seen = wait_for("the command", || read(place.join("seen")));
    server.kill().unwrap();
    server.wait().unwrap();
    let seen: serde_json::Value = serde_json::from_str(&seen).unwrap();
    assert_eq!(seen["user"], 65534);
}

/// Starts another process that ignores what it can, notes both, and waits.
const STUBBORN: &str = "#!/bin/sh
trap '' TERM INT HUP
sh -c 'trap \"\" TERM INT HUP; echo $$ > \"$0/inner\"; sleep 1000; sleep 1000' \"$1\" &
echo $$ > \"$1/outer\"
wait
wait
";

fn pids(node: &Node) -> [String; 2] {
    let pid = |name| wait_for(name, || read(node.path(name)).filter(|pid| pid.ends_with('\n')));
    [pid("outer"), pid("inner")]
}

#[test]
fn a_command_that_hangs_is_killed_with_all_that_it_has_started() {
    let wechat = Wechat::start();
    let node = start(&wechat, STUBBORN, "timeout_s = 1\n");
    let pids = pids(&node);
    wait_for_error(&node, "timeout");
    pids.iter().for_each(|pid| wait_for_end(pid));
    node.await_log("the command had not ended after 1 s and was killed");
    node.await_log("raise timeout_s");
}

#[test]
fn commands_end_with_the_server() {
    let wechat = Wechat::start();
    let node = start(&wechat, STUBBORN, "timeout_s = 300\n");
    let pids = pids(&node);
    node.stop();
    pids.iter().for_each(|pid| wait_for_end(pid));
}

#[test]
fn commands_end_with_a_server_that_is_told_twice() {
    let wechat = Wechat::start();
    let mut node = start(&wechat, STUBBORN, "timeout_s = 300\n");
    let pids = pids(&node);
    node.signal("TERM");
    node.await_log("finishing requests in flight");
    node.signal("TERM");
    let status = node.wait();
    // It may have been done before the second.
    assert!(matches!(status.code(), Some(0 | 130)), "{status}");
    pids.iter().for_each(|pid| wait_for_end(pid));
}

fn others(count: usize) -> Vec<String> {
    (0..count).map(|n| format!("wxbeef{n:012}")).collect()
}

fn wechat_of(others: &[String], lifetime_s: u64) -> Wechat {
    let app = |appid: &String| AppOptions { appid: appid.clone(), secret: SECRET.into(), ..AppOptions::default() };
    let quarter_ms = Some(lifetime_s * 250);
    let times = Options { lifetime_s, overlap_ms: quarter_ms, stable_window_ms: quarter_ms, ..Options::default() };
    Wechat::with(Options { apps: others.iter().map(app).collect(), ..times })
}

fn tables(others: &[String]) -> String {
    others.iter().map(|appid| format!("[[app]]\nappid = \"{appid}\"\nsecret = \"{SECRET}\"\n")).collect()
}

/// Notes that it runs and how many do, waits for a file, and notes the value.
const GATED: &str = "#!/bin/sh
mkdir -p \"$1/running\" \"$1/done\"
mkdir \"$1/running/$$\"
ls \"$1/running\" | wc -l >> \"$1/counts\"
while ! [ -e \"$1/go\" ]; do sleep 0.02; done
rmdir \"$1/running/$$\"
cat > \"$1/done/new.$$\"
mv \"$1/done/new.$$\" \"$1/done/$2.$$\"
";

fn count(path: PathBuf) -> usize {
    fs::read_dir(path).map_or(0, Iterator::count)
}

/// The values that the command was given for this app.
fn done(node: &Node, appid: &str) -> Vec<String> {
    let entries = fs::read_dir(node.path("done")).into_iter().flatten().filter_map(Result::ok);
    let of_app = entries.filter(|entry| entry.file_name().to_str().is_some_and(|name| name.starts_with(appid)));
    of_app.filter_map(|entry| read(entry.path())).collect()
}

#[test]
fn four_commands_run_at_once_over_all_sinks() {
    let others = others(11);
    let wechat = wechat_of(&others, 7200);
    let node = start(&wechat, GATED, &format!("{SINK}{}", tables(&others)));
    wait_for("four commands", || (count(node.path("running")) == 4).then_some(()));
    wait_for("all tokens", || others.iter().all(|appid| token_of(&node, appid).is_some()).then_some(()));
    assert!(figure(&node, "waiting").unwrap().parse::<u64>().unwrap() > 0);
    write(node.folder.path(), "go", "");
    let written = |sink: usize| node.connect().stat("", &format!("sink_{sink}_writes"));
    for sink in [0, 1] {
        wait_for("all to be written", || (written(sink).as_deref() == Some("12")).then_some(()));
    }
    let counts = read(node.path("counts")).unwrap();
    assert!(counts.lines().all(|count| count.trim().parse::<u32>().unwrap() <= 4), "{counts}");
}

#[test]
#[ignore = "waits for real time"]
fn of_several_changes_that_wait_for_their_turn_the_last_is_run_once() {
    let mut others = others(4);
    let late = "wxcafe0000000000ff".to_owned();
    others.push(late.clone());
    let wechat = wechat_of(&others, 4);
    wechat.set_fault(&late, InjectedFault::new(FaultKind::Reset));
    let node = start(&wechat, GATED, &tables(&others));
    wait_for("four commands", || (count(node.path("running")) == 4).then_some(()));
    wechat.clear_fault(&late);
    let mut tokens: Vec<String> = Vec::new();
    wait_for("three tokens", || {
        let token = token_of(&node, &late)?;
        if tokens.last() != Some(&token) {
            tokens.push(token);
        }
        (tokens.len() == 3).then_some(())
    });
    assert!(done(&node, &late).is_empty());
    write(node.folder.path(), "go", "");
    wait_for("the last", || (!done(&node, &late).is_empty()).then_some(()));
    let done = done(&node, &late);
    assert!(tokens[..2].iter().all(|old| !done.contains(old)), "an older one was run");
    assert_eq!(done.iter().collect::<BTreeSet<_>>().len(), done.len(), "one was run twice");
}

#[test]
fn what_a_failing_command_says_is_logged_without_the_value() {
    let wechat = Wechat::start();
    let script = "#!/bin/sh
v=$(cat)
echo \"cannot put $v\"
printf '%s' \"$v\" | cut -c1-40
printf '%s' \"user:$v\" | base64 -w0
printf '\\033[31mred\\n' >&2
exit 3
";
    let node = start(&wechat, script, "");
    wait_for_error(&node, "exit");
    node.await_log("the command ended with code 3");
    node.await_log("cannot put [value]");
    node.await_log("?[31mred");
    let token = token(&node).unwrap();
    let stats = String::from_utf8(node.connect().ask("stats\r\n")).unwrap();
    assert!(stats.contains("STAT sink_0_last_error_text the command ended with code 3\r\n"), "{stats}");
    assert!(stats.contains("STAT sink_0_last_error_whose target\r\n"), "{stats}");
    assert!(stats.contains("STAT sink_0_what_to_do see what it has said in the log"), "{stats}");
    assert_hidden(&stats, &token);
    assert_hidden(&node.log(), &token);
    assert!(!node.log().contains('\u{1b}'), "{}", node.log());
}

#[test]
fn a_command_that_fails_is_run_again_and_the_sink_recovers() {
    let wechat = Wechat::start();
    let node = start(&wechat, "#!/bin/sh\n[ -e \"$1/go\" ] || kill -9 $$\n", "");
    wait_for_error(&node, "signal");
    node.await_log("the command was ended by signal 9");
    write(node.folder.path(), "go", "");
    node.await_log("sink recovered");
    wait_for("good news", || (figure(&node, "last_error").as_deref() == Some("none")).then_some(()));
    assert_eq!(figure(&node, "writes").as_deref(), Some("1"));
}

#[test]
fn a_command_that_runs_is_not_killed_because_another_cannot_be_started() {
    let late = others(1);
    let wechat = wechat_of(&late, 7200);
    wechat.set_fault(&late[0], InjectedFault::new(FaultKind::Reset));
    let node = start(&wechat, GATED, &tables(&late));
    wait_for("the first", || (count(node.path("running")) == 1).then_some(()));
    fs::rename(node.path("put"), node.path("elsewhere")).unwrap();
    wechat.clear_fault(&late[0]);
    wait_for_error(&node, "not_found");
    write(node.folder.path(), "go", "");
    wait_for("the first to be done", || (done(&node, APPID) == [token(&node)?]).then_some(()));
    fs::rename(node.path("elsewhere"), node.path("put")).unwrap();
    wait_for("the other", || (done(&node, &late[0]) == [token_of(&node, &late[0])?]).then_some(()));
    assert_eq!(done(&node, APPID).len(), 1);
}

/// Where everything fails, few are tried again; once one succeeds, all are.
#[test]
fn of_many_that_fail_few_are_tried_again_until_one_succeeds() {
    let others = others(79);
    let wechat = wechat_of(&others, 7200);
    let script = "#!/bin/sh\necho >> \"$1/runs\"\n[ -e \"$1/go\" ]\n";
    let node = start(&wechat, script, &tables(&others));
    let failures = || figure(&node, "failures")?.parse::<u64>().ok();
    wait_for("all to fail, and some again", || failures().filter(|count| *count > 80 + 2 * 32));
    assert_eq!(figure(&node, "waiting").as_deref().map(|count| count != "0"), Some(true));
    write(node.folder.path(), "go", "");
    wait_for("all to be written", || (figure(&node, "writes").as_deref() == Some("80")).then_some(()));
    wait_for("good news", || (figure(&node, "last_error").as_deref() == Some("none")).then_some(()));
}

#[test]
#[ignore = "waits for real time"]
fn a_command_that_others_could_change_meanwhile_is_not_run() {
    let wechat = Wechat::short_lived(4);
    let script = "#!/bin/sh\ncat > \"$1/value.new\"\nmv \"$1/value.new\" \"$1/value\"\n";
    let node = start(&wechat, script, "");
    wait_for("the first token", || read(node.path("value")));
    set_mode(&node.path("put"), 0o777);
    wait_for_error(&node, "untrusted");
    node.await_log("others could change the command");
    node.await_log("chmod go-w");
    let last = read(node.path("value"));
    let next = wait_for("the next token", || token(&node).filter(|token| last.as_ref() != Some(token)));
    assert_ne!(read(node.path("value")), Some(next));
    fs::rename(node.path("put"), node.path("elsewhere")).unwrap();
    wait_for_error(&node, "not_found");
    set_mode(&node.path("elsewhere"), 0o755);
    fs::rename(node.path("elsewhere"), node.path("put")).unwrap();
    wait_for("the token of then", || (read(node.path("value")) == token(&node)).then_some(()));
}

/// Apps that all get their first token: so many programs, four at most at a time.
#[test]
fn hundreds_of_apps_start_four_programs_at_a_time_and_disturb_nobody() {
    let others = others(299);
    let wechat = wechat_of(&others, 7200);
    let sink = "[[sink]]\ncommand = [\"/bin/true\"]\n";
    let node = Node::start_in(folder(), &wechat.config("", &format!("{sink}{}", tables(&others))), &[]);
    let mut client = node.connect();
    wait_for("all to be written", || {
        let at_once = children(node.pid());
        assert!(at_once <= 4, "{at_once} at once");
        client.expect("set k 0 0 1\r\nx\r\nget k\r\n", "STORED\r\nVALUE k 0 1\r\nx\r\nEND\r\n");
        (client.stat("", "sink_0_writes")? == "300").then_some(())
    });
    assert_eq!(figure(&node, "failures").as_deref(), Some("0"));
    wait_for("nothing to wait", || (figure(&node, "waiting").as_deref() == Some("0")).then_some(()));
}

/// What `check` says of a configuration in this folder.
fn check(folder: &Path, sink: &str) -> String {
    let config = format!("[[app]]\nappid = \"{APPID}\"\nsecret = \"{SECRET}\"\n{sink}");
    let file = write(folder, "tokencached.toml", &config.replace("{folder}", &folder.display().to_string()));
    run(tokencached().args(["check", "--print", "--config"]).arg(file)).1
}

#[test]
fn faults_of_a_command_are_named_with_what_to_do() {
    let folder = folder();
    program(folder.path(), "put", "#!/bin/sh\n");
    set_mode(&program(folder.path(), "plain", "#!/bin/sh\n"), 0o644);
    set_mode(&program(folder.path(), "open", "#!/bin/sh\n"), 0o775);
    let command = |command: &str| format!("[[sink]]\ncommand = {command}\n");
    for (sink, what, remedy) in [
        (command("\"put {value}\""), "a text is not a list; there is no shell", "Write command = ["),
        (command("[]"), "the list is empty", "Write command = ["),
        (command("[\"put\"]"), "\"put\" is not the path of a program", "beginning with a /"),
        (command("[\"{folder}/none\"]"), "the program cannot be run", "Check the path"),
        (command("[\"{folder}/plain\"]"), "is not executable", "chmod a+x"),
        (command("[\"{folder}/open\"]"), "others could change the program", "chmod go-w"),
        (command("[\"{folder}/put\", \"{value}\"]"), "show the value to every user", "standard input"),
        (command("[\"{folder}/put\", \"{secret}\"]"), "{secret} is not known", "Known are {appid}, {id}, {type}"),
        (format!("{}presets = [\"workerman\"]\n", command("[\"{folder}/put\"]")), "has no keys", "Remove it"),
        (
            format!("{}url = \"redis://localhost\"\n", command("[\"{folder}/put\"]")),
            "name two places",
            "a [[sink]] for each",
        ),
        (format!("{}timeout_s = 0\n", command("[\"{folder}/put\"]")), "0 is out of range", "from 1 to 300"),
    ] {
        let said = check(folder.path(), &sink);
        assert!(said.contains("the configuration has 1 fault:"), "{sink}: {said}");
        assert!(said.contains(what) && said.contains(remedy), "{sink}: {said}");
    }
    let good = command("[\"{folder}/put\", \"{appid}\", \"{id}\", \"{type}\", \"{expires_at}\", \"--json={}\"]");
    let said = check(folder.path(), &good);
    assert!(said.contains("types = [\"access_token\"]\nrewrite_every_s = 0\ntimeout_s = 10\n"), "{said}");
    // What others can write may name any program.
    let file = folder.path().join("tokencached.toml");
    for (path, mode, back) in [(file.as_path(), 0o666, 0o600), (folder.path(), 0o770, 0o700)] {
        set_mode(path, mode);
        let said = check(folder.path(), &good);
        assert!(said.contains("others could change which command is run") && said.contains("chmod go-w"), "{said}");
        set_mode(path, back);
    }
    assert!(check(folder.path(), &good).contains("the settings in effect"));
}
