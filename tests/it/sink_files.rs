//! File sinks: real PHP scripts read the files while the server writes them, whatever happens to the file, the folder and
//! the token.

use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::path::Path;
use std::time::{Duration, SystemTime};

use rustix::io::Errno;
use tempfile::TempDir;
use tokencached::sandbox::{FaultKind, InjectedFault, Options};

use crate::support::disk::Disk;
use crate::support::{
    APPID, Client, Node, SECRET, Wechat, as_root, free_port, memory_folder, program, run, run_checked, tokencached,
    wait_for, write,
};

/// Another program's token, as long as one of WeChat's.
const FOREIGN: &str = "70_a-token-that-another-program-has-fetched-by-itself-0123456789";

/// Each way of keeping a token that a page view of `tests/php/sink_files.php` knows, and its sink.
pub const WAYS: [(&str, &str, &str); 7] = [
    ("jssdk", "access_token.php", "presets = [\"jssdk\"]"),
    ("jssdk-json", "jssdk.json", "presets = [\"jssdk-json\"]"),
    ("access_token.php", "included.php", "presets = [\"access_token.php\"]"),
    ("access_token.json", "access_token.json", "presets = [\"access_token.json\"]"),
    ("access_token.txt", "access_token.txt", "presets = [\"access_token.txt\"]"),
    ("mtime", "token.txt", "template = \"{value}\\n\"\nmtime = \"{expires_at-7200}\""),
    ("zoujingli", "wx0123456789abcdef_access_token", "presets = [\"zoujingli\"]"),
];

/// A sink of that file; it checks the file every second.
fn sink(path: &Path, lines: &str) -> String {
    format!("[[sink]]\nfile = \"{}\"\ncheck_every_s = 1\nrewrite_every_s = 1\n{lines}\n", path.display())
}

fn start(wechat: &Wechat, app: &str, sinks: &str) -> Node {
    Node::start(&wechat.config("", &format!("{app}\n{sinks}")), &[])
}

fn folder() -> TempDir {
    tempfile::tempdir().unwrap()
}

fn read(path: &Path) -> Option<String> {
    std::fs::read_to_string(path).ok()
}

fn token(client: &mut Client) -> Option<String> {
    client.get(&format!("access_token:{APPID}")).map(|token| String::from_utf8(token).unwrap())
}

/// Waits until the file has what a memcached client reads.
#[track_caller]
fn wait_until_written(path: &Path, node: &Node) -> String {
    let mut client = node.connect();
    wait_for("the token in the file", || {
        let token = token(&mut client)?;
        read(path)?.contains(&token).then_some(token)
    })
}

fn figure(node: &Node, name: &str) -> String {
    node.connect().stat("", &format!("sink_0_{name}")).unwrap()
}

#[track_caller]
fn wait_for_error(node: &Node, class: &str) {
    wait_for(class, || (figure(node, "last_error") == class).then_some(()));
}

/// A page view; the token it uses, and whether it has fetched it.
#[track_caller]
pub fn view_page(wechat: &Wechat, way: &str, path: &Path) -> (String, bool) {
    let mut command = program("php");
    command.arg(Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/php/sink_files.php"));
    command.env("FILE", path).env("WAY", way).env("WECHAT", wechat.base_url());
    let said = run_checked(command.env("APPID", APPID).env("SECRET", SECRET));
    let mut words = said.split_whitespace().map(str::to_owned);
    (words.next().unwrap(), words.next().is_some())
}

/// All of them at once, in a folder.
fn all_ways(folder: &Path) -> String {
    WAYS.map(|(_, name, lines)| sink(&folder.join(name), lines)).concat()
}

#[test]
#[ignore = "waits for real time"]
fn scripts_of_every_way_use_our_token_over_renewals_and_fetch_none() {
    for endpoint in ["stable_token", "token"] {
        let (wechat, folder) = (Wechat::short_lived(6), memory_folder());
        let node = start(&wechat, &format!("endpoint = \"{endpoint}\""), &all_ways(folder.path()));
        let mut client = node.connect();
        for (_, name, _) in WAYS {
            wait_until_written(&folder.path().join(name), &node);
        }
        let mut seen = std::collections::BTreeSet::new();
        wait_for("the fourth token", || {
            for (way, name, _) in WAYS {
                let (used, fetched) = view_page(&wechat, way, &folder.path().join(name));
                assert!(!fetched, "{way} has fetched for itself; {}", node.log());
                assert!(wechat.judge(&used) == tokencached::sandbox::Verdict::Accepted, "{way} with {endpoint}");
                seen.insert(used);
            }
            (seen.len() >= 4).then_some(())
        });
        assert!(token(&mut client).is_some());
        assert_eq!(figure(&node, "rival_writes"), "0");
        assert_eq!(figure(&node, "last_error"), "none");
    }
}

#[test]
#[ignore = "waits for real time"]
fn when_the_server_has_gone_each_script_fetches_for_itself_once_and_keeps_it() {
    let (wechat, folder) = (Wechat::short_lived(4), folder());
    let node = start(&wechat, "", &all_ways(folder.path()));
    for (_, name, _) in WAYS {
        wait_until_written(&folder.path().join(name), &node);
    }
    let _state = node.stop();
    for (way, name, _) in WAYS {
        let path = folder.path().join(name);
        wait_for(way, || view_page(&wechat, way, &path).1.then_some(()));
        assert!(!view_page(&wechat, way, &path).1, "{way} has kept what it has fetched");
    }
}

#[test]
fn a_token_that_is_refused_stays_in_the_file_with_a_time_in_the_past() {
    let (wechat, folder) = (Wechat::start(), folder());
    let sinks = all_ways(folder.path());
    let node = start(&wechat, "endpoint = \"token\"", &sinks);
    let tokens = WAYS.map(|(_, name, _)| wait_until_written(&folder.path().join(name), &node));
    wechat.set_fault(APPID, InjectedFault::new(FaultKind::Reset));
    wechat.kill_tokens(APPID);
    node.connect().expect(format!("delete access_token:{APPID}\r\n"), "DELETED\r\n");
    wait_for("every file to be marked", || {
        let mut client = node.connect();
        (0..WAYS.len()).all(|at| client.stat("", &format!("sink_{at}_deletes")).as_deref() == Some("1")).then_some(())
    });
    let now_s = tokencached::clock::Now::read().unix_s();
    for ((way, name, _), old) in WAYS.iter().zip(tokens) {
        let path = folder.path().join(name);
        let text = read(&path).unwrap();
        assert!(text.contains(&old), "{way}: {text}");
        let times = text.split(|c: char| !c.is_ascii_digit()).filter_map(|word| word.parse::<i64>().ok());
        let told: Vec<i64> = times.filter(|time| *time > 1_600_000_000).collect();
        let age_s = now_s - std::fs::metadata(&path).unwrap().mtime();
        match *way {
            "mtime" => assert!(age_s >= 7200, "{way}: {age_s}"),
            "access_token.json" => assert!(told.iter().all(|time| time + 3600 <= now_s) && !told.is_empty(), "{text}"),
            _ => assert!(told.iter().all(|time| *time <= now_s) && !told.is_empty(), "{way}: {text}"),
        }
    }
    wechat.clear_fault(APPID);
    WAYS.iter().for_each(|(_, name, _)| drop(wait_until_written(&folder.path().join(name), &node)));
}

#[test]
#[ignore = "waits for real time"]
fn a_file_has_the_rights_that_are_configured_and_nothing_is_left_beside_it() {
    let (wechat, folder) = (Wechat::short_lived(4), memory_folder());
    let path = folder.path().join("token");
    for (lines, mode) in [("", 0o660), ("mode = \"0640\"", 0o640)] {
        let node = start(&wechat, "", &sink(&path, lines));
        let first = wait_until_written(&path, &node);
        assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o7777, mode);
        wait_for("the next token", || read(&path).filter(|token| *token != first));
        node.stop();
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 1);
        std::fs::remove_file(&path).unwrap();
    }
}

#[test]
#[expect(clippy::disallowed_methods, reason = "the times of files are those of the wall clock")]
fn what_a_killed_process_left_beside_a_file_is_removed() {
    let (wechat, folder) = (Wechat::start(), folder());
    let path = folder.path().join("token.php");
    let hour_ago = SystemTime::now() - Duration::from_secs(3600);
    let left = |name: &str, changed_at: SystemTime| {
        let path = write(folder.path(), name, FOREIGN);
        std::fs::File::options().write(true).open(&path).unwrap().set_modified(changed_at).unwrap();
        path
    };
    let dead = left(".tokencached.00000000000000aa.token.php", hour_ago);
    let anothers = left(".tokencached.00000000000000bb.token.php", SystemTime::now());
    let the_sites = left(".other.token.php", hour_ago);
    let node = start(&wechat, "", &sink(&path, ""));
    wait_until_written(&path, &node);
    assert_eq!([dead, anothers, the_sites].map(|path| path.exists()), [false, true, true]);
}

#[test]
#[ignore = "waits for real time"]
fn what_is_put_into_a_files_place_later_is_a_failure_until_it_is_gone() {
    let (wechat, folder) = (Wechat::start(), folder());
    let path = folder.path().join("token");
    let rare = sink(&path, "").replace("rewrite_every_s = 1", "");
    let node = start(&wechat, "", &rare);
    wait_until_written(&path, &node);
    std::fs::remove_file(&path).unwrap();
    symlink("/etc/passwd", &path).unwrap();
    wait_for_error(&node, "link");
    wait_for("another try", || (figure(&node, "failures").parse::<u64>().ok()? > 3).then_some(()));
    assert_eq!(figure(&node, "last_error"), "link");
    assert!(!node.log().contains("sink recovered"), "{}", node.log());
    std::fs::remove_file(&path).unwrap();
    wait_until_written(&path, &node);
    node.await_log("sink recovered");
}

#[test]
fn links_in_the_folders_path_are_followed_and_one_in_the_files_place_is_refused() {
    let (wechat, folder) = (Wechat::start(), folder());
    let (release, other) = (folder.path().join("releases-7"), folder.path().join("other"));
    std::fs::create_dir(&release).unwrap();
    std::fs::write(&other, "somebody's own").unwrap();
    symlink(&release, folder.path().join("current")).unwrap();
    let path = folder.path().join("current/token");
    let node = start(&wechat, "", &sink(&path, ""));
    wait_until_written(&release.join("token"), &node);
    drop(node);
    std::fs::remove_file(&path).unwrap();
    symlink(&other, &path).unwrap();
    let node = start(&wechat, "", &sink(&path, ""));
    wait_for_error(&node, "link");
    node.await_log("is a symbolic link");
    assert_eq!(read(&other).unwrap(), "somebody's own");
    assert!(token(&mut node.connect()).is_some(), "a sink's trouble never touches serving");
    std::fs::remove_file(&path).unwrap();
    wait_until_written(&release.join("token"), &node);
    wait_for("good news", || (figure(&node, "last_error") == "none").then_some(()));
}

#[test]
fn a_folder_or_a_pipe_in_the_files_place_is_refused_and_never_waited_for() {
    let (wechat, folder) = (Wechat::start(), folder());
    let path = folder.path().join("token");
    assert!(program("mkfifo").arg(&path).status().unwrap().success());
    let node = start(&wechat, "", &sink(&path, ""));
    wait_for_error(&node, "file");
    std::fs::remove_file(&path).unwrap();
    std::fs::create_dir(&path).unwrap();
    std::fs::remove_dir(&path).unwrap();
    wait_until_written(&path, &node);
}

#[test]
#[ignore = "waits for real time"]
fn a_foreign_overwrite_is_noticed_repaired_and_reported() {
    let (wechat, folder) = (Wechat::start(), folder());
    let path = folder.path().join("access_token.json");
    std::fs::write(&path, FOREIGN).unwrap();
    let rare = sink(&path, "presets = [\"access_token.json\"]").replace("rewrite_every_s = 1", "");
    let node = start(&wechat, "", &rare);
    wait_until_written(&path, &node);
    assert_eq!(figure(&node, "rival_writes"), "0", "what was there before may be long abandoned");
    for rivals in ["1", "2"] {
        // In one write: half a token would be nobody's.
        std::fs::rename(write(folder.path(), "new", FOREIGN), &path).unwrap();
        wait_until_written(&path, &node);
        wait_for("a rival", || (figure(&node, "rival_writes") == rivals).then_some(()));
    }
    node.await_log("a foreign writer has replaced our token");
    assert!(!node.log().contains(FOREIGN));
    std::fs::remove_file(&path).unwrap();
    wait_until_written(&path, &node);
    assert_eq!(figure(&node, "rival_writes"), "2", "a file that is gone is nobody's token");
}

#[test]
fn a_restart_neither_fetches_nor_takes_its_own_token_for_anothers() {
    let (wechat, folder) = (Wechat::start(), folder());
    let path = folder.path().join("access_token.php");
    let sinks = sink(&path, "presets = [\"jssdk\"]");
    let node = start(&wechat, "", &sinks);
    let first = wait_until_written(&path, &node);
    let state = node.stop();
    let node = Node::start_in(state, &wechat.config("", &sinks), &[]);
    wait_for("it to be written", || (figure(&node, "writes") != "0").then_some(()));
    assert_eq!(wait_until_written(&path, &node), first);
    assert!(!node.log().contains("replaced"), "{}", node.log());
}

#[test]
#[ignore = "waits for real time"]
fn a_disk_that_hangs_or_is_full_holds_up_nothing_else() {
    let (wechat, sites) = (Wechat::short_lived(4), folder());
    let paths = ["one", "two"].map(|name| sites.path().join(name).join("token"));
    std::fs::create_dir(sites.path().join("one")).unwrap();
    std::fs::create_dir(sites.path().join("two")).unwrap();
    let own = folder();
    let disk = Disk::of(own.path());
    let config = wechat.config("", &paths.each_ref().map(|path| sink(path, "")).concat());
    let node = Node::start_with(own, &config, &[], &disk.variables());
    wait_until_written(&paths[0], &node);
    disk.fail(&["sink"], Errno::NOSPC);
    wait_for_error(&node, "disk");
    disk.hang("sink");
    wait_for_error(&node, "timeout");
    let mut client = node.connect();
    let first = wait_for("a token", || token(&mut client));
    wait_for("a renewal meanwhile", || token(&mut client).filter(|token| *token != first));
    disk.repair();
    paths.iter().for_each(|path| drop(wait_until_written(path, &node)));
    disk.hang("sink");
    wait_for("another renewal", || token(&mut client).filter(|token| read(&paths[0]).as_ref() != Some(token)));
    node.stop();
}

/// As the shipped unit has it: a user of its own without any right, the site's group beside it, new privileges ruled out.
#[test]
#[ignore = "needs root"]
fn a_process_without_rights_writes_into_a_folder_with_the_sites_group() {
    as_root();
    const GROUP: u32 = 4242;
    let (wechat, sites, own) = (Wechat::start(), folder(), folder());
    let site = sites.path().join("wechat");
    for path in [sites.path(), own.path()] {
        std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o777)).unwrap();
    }
    run_checked(program("install").args(["-d", "-m", "2770", "-g", &GROUP.to_string()]).arg(&site));
    let path = site.join("access_token.php");
    let closed = sites.path().join("closed");
    run_checked(program("install").args(["-d", "-m", "0755"]).arg(&closed));
    let mut command = program("setpriv");
    command.env_clear().env("PATH", std::env::var_os("PATH").unwrap_or_default());
    command.args(["--reuid=65534", "--regid=65534", &format!("--groups={GROUP}"), "--bounding-set=-all"]);
    command
        .args(["--inh-caps=-all", "--ambient-caps=-all", "--no-new-privs", "--"])
        .arg(env!("CARGO_BIN_EXE_tokencached"));
    let sinks = sink(&path, "presets = [\"jssdk\"]") + &sink(&closed.join("token"), "");
    let config = wechat.config("", &sinks).replace("{folder}/state.json", "none");
    let node = Node::start_binary(command, own, &config, &[], &[]);
    wait_until_written(&path, &node);
    let status = std::fs::read_to_string(format!("/proc/{}/status", node.pid())).unwrap();
    assert!(status.contains("CapEff:\t0000000000000000") && status.contains("NoNewPrivs:\t1"), "{status}");
    let found = std::fs::metadata(&path).unwrap();
    assert_eq!((found.uid(), found.gid(), found.mode() & 0o7777), (65534, GROUP, 0o660));
    // The other folder is closed to it: the log says what to paste, once.
    node.await_log("this process may not write in");
    node.await_log(&format!("ReadWritePaths={}", closed.display()));
    node.await_log(&format!("install -d -m 2770 -g www-data {}", closed.display()));
    assert_eq!(node.connect().stat("", "sink_1_last_error").as_deref(), Some("permission"));
}

#[test]
fn check_prints_the_drop_in_and_warns_of_files_that_web_servers_hand_out() {
    let own = folder();
    let check = |sinks: &str| {
        let config = crate::support::config("http://127.0.0.1:9", "", sinks).replace("{folder}/state.json", "none");
        let config = write(own.path(), "tokencached.toml", &config);
        run_checked(tokencached().args(["check", "--config"]).arg(config))
    };
    let said = check("[[sink]]\nfile = \"/srv/none/wechat/{appid}.php\"\npresets = [\"jssdk\"]");
    for line in
        ["install -d -m 2770 -g www-data /srv/none/wechat", "ReadWritePaths=/srv/none/wechat", "SupplementaryGroups="]
    {
        assert!(said.contains(line), "{said}");
    }
    assert!(!said.contains("web servers hand out"), "{said}");
    for (path, lines, warns) in [
        ("/srv/site/public_html/access_token.json", "presets = [\"jssdk-json\"]", true),
        ("/srv/site/public_html/access_token.php", "presets = [\"jssdk\"]", false),
        ("/srv/site/public_html/access_token.php", "presets = [\"access_token.php\"]", false),
        ("/srv/site/public_html/ac.php", "", true),
        ("/var/www/html/a/token.txt", "", true),
        ("/srv/html/a/token.txt", "", false),
        ("/var/www/site/runtime/token.txt", "", false),
        ("/srv/site/public/token.txt", "", true),
        ("/srv/public_html.bak/token.txt", "", false),
    ] {
        let said = check(&format!("[[sink]]\nfile = \"{path}\"\n{lines}"));
        assert_eq!(said.contains("web servers hand out"), warns, "{path}: {said}");
    }
}

/// With the timestamps looked at, as is the default, an included file is at most `opcache.revalidate_freq` seconds old.
#[test]
#[ignore = "needs php"]
fn an_included_file_is_seen_through_the_opcache() {
    let options =
        Options { lifetime_s: 9, overlap_ms: Some(4_000), stable_window_ms: Some(6_000), ..Options::default() };
    let (wechat, folder) = (Wechat::with(options), folder());
    let path = folder.path().join("access_token.php");
    let node = start(&wechat, "", &sink(&path, "presets = [\"access_token.php\"]"));
    wait_until_written(&path, &node);
    let page = "<?php $data = include __DIR__ . '/access_token.php';
        $cached = opcache_is_script_cached(__DIR__ . '/access_token.php');
        echo $data['access_token'], ' ', $cached ? 'cached' : 'read';";
    write(folder.path(), "page.php", page);
    let port = free_port();
    let mut server = program("php");
    server.args(["-d", "opcache.enable=1", "-d", "opcache.enable_cli=1", "-d", "opcache.file_update_protection=0"]);
    server.args(["-S", &format!("127.0.0.1:{port}"), "-t"]).arg(folder.path());
    let mut server = server.stdout(std::process::Stdio::null()).stderr(std::process::Stdio::null()).spawn().unwrap();
    let url = format!("http://127.0.0.1:{port}/page.php");
    let ask = || Some(run(program("curl").args(["-s", "--max-time", "5", &url])).1).filter(|said| said.contains(' '));
    wait_for("PHP's server", ask);
    let (mut seen, mut was_cached) = (std::collections::BTreeSet::new(), false);
    wait_for("the third token", || {
        let said = ask()?;
        let (token, state) = said.split_once(' ')?;
        assert!(
            wechat.judge(token) == tokencached::sandbox::Verdict::Accepted,
            "a token that is over, out of the cache"
        );
        was_cached |= state == "cached";
        seen.insert(token.to_owned());
        (seen.len() >= 3).then_some(())
    });
    let _ = server.kill();
    let _ = server.wait();
    assert!(was_cached, "the file was compiled once and taken from the cache");
}
