//! The systemd units as they are shipped: their first lines install them, systemd takes them, and a process with the rights
//! that they give works, or says which directive is missing.
//!
//! systemd itself does not run here: `systemd-analyze` judges the units, `setpriv` and `unshare` give a process their rights.

use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt, chown};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use tempfile::TempDir;
use tokencached::sandbox::{AppOptions, Endpoint, FaultKind, InjectedFault, Options};

use crate::support::{Node, SECRET, Wechat, as_root, run, run_checked, tokencached, wait_for, write};

const PROGRAM: &str = env!("CARGO_BIN_EXE_tokencached");
/// The one in the shipped files, and one to put in its place.
const SHIPPED_APPID: &str = "wx0123456789abcdef";
const OWN_APPID: &str = "wx9876543210fedcba";
/// The user of a service without rights.
const NOBODY: u32 = 65534;

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn unit(name: &str) -> String {
    fs::read_to_string(root().join("deploy").join(name)).unwrap()
}

/// What the first lines say to type.
fn commands(unit: &str) -> String {
    let head = unit.split("\n[Unit]").next().unwrap();
    head.lines().filter_map(|line| line.strip_prefix("#   ")).map(|line| format!("{line}\n")).collect()
}

/// Follows the first lines of a unit literally, in a folder in place of `/`. What of systemd and apt was called is in
/// `called` there.
fn install(name: &str) -> TempDir {
    let folder = tempfile::tempdir().unwrap();
    let system = folder.path().join("lib/systemd/system");
    for made in ["usr/local/bin", "etc/systemd/system", "lib/systemd/system", "bin"] {
        fs::create_dir_all(folder.path().join(made)).unwrap();
    }
    for of_systemd in
        ["sysinit.target", "basic.target", "shutdown.target", "network-online.target", "multi-user.target"]
    {
        fs::write(system.join(of_systemd), "[Unit]\nDescription=there\n").unwrap();
    }
    fs::write(system.join("redis-server.service"), "[Service]\nExecStart=/bin/kill\n").unwrap();
    fs::copy("/bin/kill", folder.path().join("bin/kill")).unwrap();
    let below = folder.path().display();
    let typed = commands(&unit(name))
        .replace("target/release/tokencached", PROGRAM)
        .replace(&format!("APPID={SHIPPED_APPID}"), &format!("APPID={OWN_APPID}"))
        .replace("/usr/local/bin/", &format!("{below}/usr/local/bin/"))
        .replace(" /etc/", &format!(" {below}/etc/"))
        .replace("\"/etc/", &format!("\"{below}/etc/"));
    let recorded = |program: &str| format!("{program}() {{ echo {program} \"$@\" >> {below}/called; }}\n");
    // A host may be strict about new files.
    let script = format!("set -eu\numask 077\n{}{}{typed}", recorded("systemctl"), recorded("apt-get"));
    let script = write(folder.path(), "script", &script);
    let secret = write(folder.path(), "typed", &format!("{SECRET}\n"));
    let output = crate::support::program("bash")
        .arg(&script)
        .current_dir(root())
        .stdin(Stdio::from(fs::File::open(secret).unwrap()))
        .output()
        .unwrap();
    assert!(output.status.success(), "{typed}\n{}", String::from_utf8_lossy(&output.stderr));
    folder
}

#[test]
#[ignore = "needs bash"]
fn the_first_lines_of_each_unit_install_it() {
    for (name, config, called) in [
        ("tokencached.service", "tokencached.toml", "enable --now tokencached"),
        ("tokencached@.service", "several.toml", "enable --now tokencached@1 tokencached@2 tokencached@3"),
    ] {
        let folder = install(name);
        let read =
            |path: &str| fs::read_to_string(folder.path().join(path)).unwrap_or_else(|_| panic!("{name}: {path}"));
        let mode = |path: &str| fs::metadata(folder.path().join(path)).unwrap().permissions().mode() & 0o777;
        assert!(read("called").contains("systemctl daemon-reload"), "{name}");
        assert!(read("called").contains(&format!("systemctl {called}\n")), "{name}");
        assert_eq!(mode("usr/local/bin/tokencached"), 0o755);
        assert_eq!((mode("etc/tokencached"), mode(&format!("etc/tokencached/{config}"))), (0o755, 0o644));
        // The appid is everywhere the same, and its secret is where the unit looks for it.
        for installed in [format!("etc/systemd/system/{name}"), format!("etc/tokencached/{config}")] {
            assert!(read(&installed).contains(OWN_APPID) && !read(&installed).contains(SHIPPED_APPID), "{installed}");
        }
        for line in read(&format!("etc/systemd/system/{name}")).lines() {
            if let Some((_, path)) = line.strip_prefix("LoadCredential=").and_then(|line| line.split_once(':')) {
                assert_eq!(mode(path.trim_start_matches('/')), 0o600, "{path}");
                assert!(!read(path.trim_start_matches('/')).trim().is_empty(), "{path}");
            }
        }
        let started = name.replace('@', "@1");
        let verify = ["verify", "--root"].map(str::to_owned);
        let (status, said) =
            run(crate::support::program("systemd-analyze").args(verify).arg(folder.path()).arg(started));
        assert!(status.success() && said.is_empty(), "{name}: {said}");
    }
}

#[test]
#[ignore = "needs systemd-analyze"]
fn the_units_leave_little_to_whoever_takes_the_server_over() {
    for name in ["tokencached.service", "tokencached@.service"] {
        let mut command = crate::support::program("systemd-analyze");
        // In tenths: 10.0 is a service without any restriction.
        command.args(["security", "--offline=true", "--threshold=15", "--no-pager"]);
        let (status, said) = run(command.arg(root().join("deploy").join(name)));
        assert!(status.success(), "{name}: {said}");
    }
}

/// Restarts are decided by the server's own exit code, so nothing before it may fail the start.
#[test]
fn a_configuration_that_is_refused_is_not_started_again() {
    for name in ["tokencached.service", "tokencached@.service"] {
        let unit = unit(name);
        let lines =
            |key: &str| unit.lines().filter(|line| line.starts_with(key)).map(str::to_owned).collect::<Vec<_>>();
        assert_eq!(lines("RestartPreventExitStatus="), ["RestartPreventExitStatus=78"]);
        let before = lines("ExecStartPre=");
        assert!(
            before.iter().all(|line| line.starts_with("ExecStartPre=-") && line.contains(" --quiet ")),
            "{before:?}"
        );
    }
    let folder = tempfile::tempdir().unwrap();
    let config = write(folder.path(), "c.toml", "nonsense = 1\n");
    let (status, said) = run(tokencached().arg("serve").arg("--config").arg(config));
    assert_eq!(status.code(), Some(78), "{said}");
}

/// A drop-in of an operator has the name that was there before; as the same variable it replaces the unit's.
#[test]
fn the_unit_of_several_nodes_sets_a_variable_that_the_version_before_reads_too() {
    let unit = unit("tokencached@.service");
    let set = unit.lines().filter_map(|line| line.strip_prefix("Environment=")).collect::<Vec<_>>().join(" ");
    assert!(set.contains("TOKENCACHED_SIDE_LISTEN=127.0.0.1:213%i") && !set.contains("TOKENCACHED_HTTP_"), "{set}");
}

/// A process with no right beyond those of its user and groups.
fn without_rights(groups: &str) -> Command {
    let mut command = crate::support::program("setpriv");
    command.env_clear().env("PATH", std::env::var_os("PATH").unwrap_or_default());
    command.args([&format!("--reuid={NOBODY}"), "--bounding-set=-all", "--inh-caps=-all", "--ambient-caps=-all"]);
    command.args(groups.split(' ')).args(["--no-new-privs", "--"]);
    command
}

/// A folder as the unit has it made for its user.
fn folder_for_service(folder: &Path, name: &str, mode: u32) -> PathBuf {
    let path = folder.join(name);
    fs::create_dir_all(&path).unwrap();
    chown(&path, Some(NOBODY), Some(NOBODY)).unwrap();
    fs::set_permissions(&path, PermissionsExt::from_mode(mode)).unwrap();
    path
}

fn open_to_all(folder: &Path) {
    fs::set_permissions(folder, PermissionsExt::from_mode(0o777)).unwrap();
}

fn wechat_of(appid: &str) -> Wechat {
    let options = AppOptions { appid: appid.into(), secret: SECRET.into(), ..AppOptions::default() };
    Wechat::with(Options { apps: vec![options], ..Options::default() })
}

/// The installed files, with what systemd makes of `LoadCredential=`, `StateDirectory=` and `RuntimeDirectory=`.
#[test]
#[ignore = "needs root"]
fn a_service_as_the_unit_starts_it_has_all_it_needs() {
    as_root();
    let (wechat, installed, own) = (wechat_of(OWN_APPID), install("tokencached.service"), tempfile::tempdir().unwrap());
    open_to_all(own.path());
    let config = fs::read_to_string(installed.path().join("etc/tokencached/tokencached.toml")).unwrap();
    let credentials = folder_for_service(own.path(), "credentials", 0o500);
    let handed_out = credentials.join(OWN_APPID);
    fs::copy(installed.path().join(format!("etc/tokencached/{OWN_APPID}.secret")), &handed_out).unwrap();
    chown(&handed_out, Some(NOBODY), Some(NOBODY)).unwrap();
    fs::set_permissions(&handed_out, PermissionsExt::from_mode(0o400)).unwrap();
    let state = folder_for_service(own.path(), "state", 0o700);
    let runtime = folder_for_service(own.path(), "run", 0o755);
    let (credentials, state_shown, runtime) =
        (credentials.display().to_string(), state.display().to_string(), runtime.display().to_string());
    let base_url = wechat.base_url();
    let variables = [
        ("CREDENTIALS_DIRECTORY", credentials.as_str()),
        ("STATE_DIRECTORY", state_shown.as_str()),
        ("RUNTIME_DIRECTORY", runtime.as_str()),
        ("TOKENCACHED_UPSTREAM_BASE_URL", base_url.as_str()),
    ];
    let file = write(own.path(), "c.toml", &config);
    open_to_all(&file);
    let groups = format!("--regid={NOBODY} --clear-groups");
    let mut check = without_rights(&groups);
    check.arg(PROGRAM).args(["check", "--quiet", "--live", "--config"]).arg(&file).envs(variables);
    assert_eq!(run_checked(&mut check), "1 of 1 app good; no warnings\n");
    let mut command = without_rights(&groups);
    command.arg(PROGRAM);
    let node = Node::start_binary(command, own, &config, &[], &variables);
    let mut client = node.connect();
    wait_for("the token", || client.get(&format!("access_token:{OWN_APPID}")));
    wait_for("the state", || state.join("state.json").exists().then_some(()));
    assert!(!node.log().contains("WARN"), "{}", node.log());
}

/// A server with a socket for the group `www-data`, in a folder of its own; what it says if it does not start.
fn with_a_group(mut command: Command) -> Result<Node, String> {
    let folder = tempfile::tempdir().unwrap();
    open_to_all(folder.path());
    folder_for_service(folder.path(), "run", 0o755);
    let config =
        "[server]\nunix_socket = \"{folder}/run/x.sock\"\nunix_group = \"www-data\"\n[state]\npath = \"none\"\n";
    let text = config.replace("{folder}", &folder.path().display().to_string());
    let file = write(folder.path(), "c.toml", &text);
    open_to_all(&file);
    let arguments: Vec<_> = command.get_args().map(ToOwned::to_owned).collect();
    let (status, said) = run(command.arg(PROGRAM).args(["check", "--config"]).arg(&file));
    assert_eq!(status.code(), Some(0), "{said}");
    let warned = said.contains("cannot give the socket");
    let mut again = Command::new(command.get_program());
    again.env_clear().env("PATH", std::env::var_os("PATH").unwrap_or_default()).args(arguments).arg(PROGRAM);
    if !warned {
        return Ok(Node::start_binary(again, folder, config, &[], &[]));
    }
    let (status, log) = run(again.arg("--config").arg(&file));
    assert_eq!(status.code(), Some(69), "{log}");
    Err(format!("{said}{log}"))
}

#[test]
#[ignore = "needs root"]
fn a_socket_for_a_group_works_with_the_directive_that_the_refusal_names() {
    as_root();
    let gid = tokencached::process::group_id("www-data").unwrap();
    // As shipped: the process is in no group but its own. With PrivateUsers=yes the kernel knows no others either.
    let private = |groups: &str| {
        let mut command = without_rights(groups);
        command.args(["unshare", "--user", "--"]);
        command
    };
    let mut refused = vec![with_a_group(without_rights(&format!("--regid={NOBODY} --clear-groups")))];
    if run(private(&format!("--regid={NOBODY} --clear-groups")).arg("true")).0.success() {
        refused.push(with_a_group(private(&format!("--regid={NOBODY} --groups={gid}"))));
    }
    for refused in refused {
        let said = refused.err().expect("a process outside of the group cannot give it a socket");
        let lines: Vec<&str> = said.lines().filter(|line| line.contains("cannot give the socket ")).collect();
        assert_eq!(lines.len(), 2, "by check, and by the server: {said}");
        for line in lines {
            for part in ["the group www-data", "systemctl edit tokencached", "Group=www-data", "PrivateUsers=no"] {
                assert!(line.contains(part), "{part}: {line}");
            }
        }
    }
    // Group=www-data; and SupplementaryGroups=www-data with PrivateUsers=no.
    for groups in [format!("--regid={gid} --clear-groups"), format!("--regid={NOBODY} --groups={gid}")] {
        let node = with_a_group(without_rights(&groups)).unwrap_or_else(|said| panic!("{groups}: {said}"));
        let found = fs::metadata(node.path("run/x.sock")).unwrap();
        assert_eq!((found.uid(), found.gid(), found.mode() & 0o777), (NOBODY, gid, 0o770));
    }
}

/// `systemd-run` with the few things of it that the line needs; which properties it was given is in `called`.
const SYSTEMD_RUN: &str = r#"#!/bin/bash
set -eu
credentials=$(mktemp -d)
while [ $# -gt 0 ]; do
    case $1 in
    --*) shift ;;
    -p)
        echo "$2" >> "$(dirname "$0")/called"
        umask 077
        case $2 in LoadCredential=*) pair=${2#LoadCredential=}; cp "${pair#*:}" "$credentials/${pair%%:*}" ;; esac
        shift 2
        ;;
    *) break ;;
    esac
done
CREDENTIALS_DIRECTORY=$credentials STATE_DIRECTORY=$credentials exec "$@"
"#;

#[test]
#[ignore = "needs bash"]
fn check_by_hand_prints_the_line_that_checks_as_the_service() {
    let (wechat, folder) = (wechat_of(OWN_APPID), tempfile::tempdir().unwrap());
    let config = unit("tokencached.toml").replace(SHIPPED_APPID, OWN_APPID);
    let config = config + &format!("[[app]]\nappid = \"{SHIPPED_APPID}\"\nsecret_credential = \"second\"\n");
    write(folder.path(), "c.toml", &config);
    write(folder.path(), &format!("{OWN_APPID}.secret"), SECRET);
    write(folder.path(), "second.secret", SECRET);
    let script = write(folder.path(), "systemd-run", SYSTEMD_RUN);
    fs::set_permissions(&script, PermissionsExt::from_mode(0o755)).unwrap();
    let check = || {
        let mut command = tokencached();
        command.args(["check", "--live", "--config", "c.toml"]).current_dir(folder.path());
        command
    };
    let (status, said) = run(&mut check());
    assert_eq!(status.code(), Some(78), "{said}");
    assert!(said.ends_with("configuration refused: 2 faults\n"), "{said}");
    let line = said.lines().find(|line| line.starts_with("  systemd-run ")).unwrap_or_else(|| panic!("{said}"));
    // Pasted, from anywhere.
    let path = format!("{}:{}", folder.path().display(), std::env::var("PATH").unwrap());
    let mut pasted = crate::support::program("bash");
    pasted.args(["-c", line]).env_clear().env("PATH", path).current_dir("/");
    let said = run_checked(pasted.env("TOKENCACHED_UPSTREAM_BASE_URL", wechat.base_url()));
    assert!(said.ends_with("2 of 2 apps good; no warnings\n"), "{said}");
    // A user of its own would be given the running server's state folder.
    let called = fs::read_to_string(folder.path().join("called")).unwrap();
    for property in ["DynamicUser=yes", "User=tokencached", "StateDirectory=tokencached", "StateDirectoryMode=0700"] {
        assert!(called.lines().any(|line| line == property), "{called}");
    }
    // Where it is a service, or nothing of systemd's is wanted, nobody is told of it.
    let plain = write(folder.path(), "plain.toml", "nonsense = 1\n");
    let (_, said) = run(tokencached().args(["check", "--config"]).arg(plain));
    assert!(!said.contains("systemd"), "{said}");
}

/// Every exit code of the manual, and no other, is what the program ends with.
#[test]
fn the_exit_codes_are_those_of_the_manual() {
    let manual = fs::read_to_string(root().join("docs/en/configuration.md")).unwrap();
    let section = manual.split("\n## Exit codes\n").nth(1).and_then(|rest| rest.split("\n## ").next()).unwrap();
    let row = |line: &str| line.strip_prefix("| ")?.split(' ').next()?.parse::<i32>().ok();
    let documented: Vec<i32> = section.lines().filter_map(row).collect();
    let help = run_checked(tokencached().arg("--help"));
    let in_help = help.split("Exit codes:\n").nth(1).unwrap().lines();
    let in_help: Vec<i32> = in_help.filter_map(|line| line.split_whitespace().next()?.parse().ok()).collect();
    assert_eq!(documented, [0, 1, 2, 69, 70, 78, 130]);
    assert_eq!(in_help, documented);

    let folder = tempfile::tempdir().unwrap();
    let code = |arguments: &[&str], config: &str| {
        let file = write(folder.path(), "c.toml", config);
        let (status, _) = run(tokencached().args(arguments).arg("--config").arg(file).env("HOME", folder.path()));
        status.code()
    };
    let gone = crate::support::config("http://127.0.0.1:9", "", "").replace("{folder}/state.json", "none");
    assert_eq!(code(&["check"], &gone), Some(0), "a warning is no fault");
    assert_eq!(code(&["check", "--live"], &gone), Some(1));
    assert_eq!(code(&["check", "--no-such-flag"], ""), Some(2));
    assert_eq!(run(tokencached().arg("no-such-command")).0.code(), Some(2));
    assert_eq!(code(&["serve", "-s", "/nonexistent/x.sock"], ""), Some(69));
    for command in ["serve", "check"] {
        assert_eq!(code(&[command], "nonsense = 1\n"), Some(78), "{command}");
    }
    let mut node = Node::plain(&[]);
    node.signal("TERM");
    assert_eq!(node.wait().code(), Some(0));
    // A call that hangs keeps the end from coming at once.
    let wechat = wechat_of(OWN_APPID);
    wechat.set_fault(OWN_APPID, InjectedFault::new(FaultKind::Hang));
    let mut node = Node::start(&wechat.config("", "").replace(crate::support::APPID, OWN_APPID), &[]);
    wait_for("the call", || (wechat.calls(OWN_APPID).of(Endpoint::StableToken) > 0).then_some(()));
    node.signal("TERM");
    node.await_log("finishing requests in flight");
    node.signal("TERM");
    assert_eq!(node.wait().code(), Some(130));
    // 70 is in `blocking/dead_tasks.rs`, where parts end and ends hang.
}
