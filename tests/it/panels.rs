//! What `deploy/` has for panels: the init script that 宝塔's memcached page reads and rewrites, and 1Panel's store entry.

use std::collections::BTreeMap;
use std::fs;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::{ExitStatus, Stdio};

use tokencached::sandbox::Endpoint;

use crate::support::{APPID, Client, Node, Wechat, as_root, free_port, program, run, run_checked, write};

/// What the page takes out of `stats`.
const FIELDS: [&str; 10] = [
    "cmd_get",
    "get_hits",
    "get_misses",
    "limit_maxbytes",
    "curr_items",
    "bytes",
    "evictions",
    "bytes_written",
    "bytes_read",
    "curr_connections",
];

fn deploy(path: &str) -> String {
    fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("deploy").join(path)).unwrap()
}

/// What the page does to the script: everything behind the name and its equals sign, or the digits there, wherever it is.
fn rewrite(script: &str, name: &str, value: &str, digits_alone: bool) -> String {
    let written = format!("{name}=");
    let mut parts = script.split(&written);
    let mut out = parts.next().unwrap().to_owned();
    for part in parts {
        let end = part.find(|c: char| if digits_alone { !c.is_ascii_digit() } else { c == '\n' }).unwrap_or(part.len());
        out += &match end {
            0 => format!("{name}={part}"),
            end => format!("{name}={value}{}", &part[end..]),
        };
    }
    out
}

/// An installed script, in a folder of its own.
struct Script {
    folder: tempfile::TempDir,
    port: u16,
}

impl Script {
    fn install(wechat: &Wechat) -> Script {
        as_root();
        let folder = tempfile::tempdir().unwrap();
        // Another user is to write its state below it.
        run_checked(program("install").args(["-d", "-m", "755"]).arg(folder.path()));
        run_checked(program("install").args(["-d", "-m", "700", "-o", "nobody"]).arg(folder.path().join("state")));
        let config = wechat.config("", "aliases = [\"access_token\"]");
        let config = config.replace("{folder}", &folder.path().join("state").display().to_string());
        write(folder.path(), "tokencached.toml", &config);
        let script = Script { folder, port: free_port() };
        let at = |name: &str| script.path(name).display().to_string();
        let text = deploy("baota/memcached")
            .replace("/usr/bin/tokencached", env!("CARGO_BIN_EXE_tokencached"))
            .replace("/etc/tokencached/tokencached.toml", &at("tokencached.toml"))
            .replace("/var/log/tokencached.log", &at("log"))
            .replace("/var/run/memcached.pid", &at("pid"))
            .replace("ACCOUNT=tokencached", "ACCOUNT=nobody");
        write(script.folder.path(), "memcached", &text);
        script.set(&[("PORT", &script.port.to_string())]);
        script
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// As the page does when somebody presses its button, before it calls `reload`.
    fn set(&self, values: &[(&str, &str)]) {
        let mut text = fs::read_to_string(self.path("memcached")).unwrap();
        for (name, value) in values {
            text = rewrite(&text, name, value, *name != "IP");
        }
        fs::write(self.path("memcached"), text).unwrap();
    }

    fn call(&self, word: &str) -> (ExitStatus, String) {
        run(program("sh").arg(self.path("memcached")).arg(word))
    }

    #[track_caller]
    fn does(&self, word: &str, says: &str) {
        let (status, said) = self.call(word);
        assert!(status.success() && said.contains(says), "{word}: {status}: {said}");
    }

    fn pid(&self) -> String {
        fs::read_to_string(self.path("pid")).unwrap().trim().to_owned()
    }

    fn connect(&self, port: u16) -> Client {
        Client::connect(([127, 0, 0, 1], port).into())
    }
}

impl Drop for Script {
    fn drop(&mut self) {
        let _ = self.call("stop");
    }
}

/// As the page asks: lines without a carriage return, and `quit` behind them.
fn stats_of_the_page(port: u16) -> BTreeMap<String, i64> {
    let mut stream = TcpStream::connect(("127.0.0.1", port)).unwrap();
    stream.write_all(b"stats\nquit\n").unwrap();
    let mut text = String::new();
    stream.read_to_string(&mut text).unwrap();
    let text = text.replace("STAT", "").replace("END", "");
    let pairs = text.lines().filter_map(|line| {
        let mut words = line.split_whitespace();
        Some((words.next()?.to_owned(), words.next()?.parse().ok()?))
    });
    pairs.filter(|(name, _)| FIELDS.contains(&name.as_str())).collect()
}

#[test]
fn the_page_of_baota_finds_its_four_lines_and_changes_nothing_else() {
    let before = deploy("baota/memcached");
    let values = [("IP", "10.0.0.5"), ("PORT", "11299"), ("MAXCONN", "2048"), ("CACHESIZE", "128")];
    let after = values.iter().fold(before.clone(), |text, (name, value)| rewrite(&text, name, value, *name != "IP"));
    let changed: Vec<&str> =
        before.lines().zip(after.lines()).filter(|(old, new)| old != new).map(|(_, new)| new).collect();
    assert_eq!(changed, ["IP=10.0.0.5", "PORT=11299", "MAXCONN=2048", "CACHESIZE=128"]);
    assert_eq!(before.lines().count(), after.lines().count());
}

#[test]
#[ignore = "needs root"]
fn what_is_typed_into_the_page_of_baota_takes_effect() {
    let wechat = Wechat::start();
    let script = Script::install(&wechat);
    assert_eq!(script.call("status").0.code(), Some(3));
    script.does("start", "started");
    script.does("start", "runs already");
    script.does("status", "runs");
    let token = script.connect(script.port).get("access_token").unwrap();
    let stats = stats_of_the_page(script.port);
    assert_eq!(stats.len(), FIELDS.len(), "{stats:?}");
    assert_eq!((stats["limit_maxbytes"], stats["cmd_get"]), (64 << 20, 1));

    // Nothing was changed: the same process goes on.
    let (pid, calls) = (script.pid(), wechat.calls(APPID).of(Endpoint::StableToken));
    script.does("reload", "reloaded");
    assert_eq!(script.pid(), pid);
    // Another port, and more memory: a new process with the same token, which was not fetched again.
    let port = free_port();
    script.set(&[("PORT", &port.to_string()), ("CACHESIZE", "96"), ("MAXCONN", "300"), ("IP", "127.0.0.1")]);
    script.does("reload", "started");
    assert_ne!(script.pid(), pid);
    let mut client = script.connect(port);
    assert_eq!(client.get("access_token").unwrap(), token);
    assert_eq!(stats_of_the_page(port)["limit_maxbytes"], 96 << 20);
    assert_eq!(client.stat("settings", "maxconns").as_deref(), Some("300"));
    assert_eq!(wechat.calls(APPID).of(Endpoint::StableToken), calls, "a token was fetched again");

    // An address that everybody could reach is refused, and the server runs on.
    let pid = script.pid();
    script.set(&[("IP", "0.0.0.0")]);
    let (status, said) = script.call("reload");
    assert!(!status.success() && said.contains("the server runs as before"), "{said}");
    assert_eq!((script.pid(), client.get("access_token").unwrap()), (pid, token));
    script.set(&[("IP", "127.0.0.1")]);
    script.does("restart", "started");
    script.does("stop", "stopped");
    script.does("stop", "does not run");
    assert!(TcpStream::connect(("127.0.0.1", port)).is_err() && !script.path("pid").exists());
}

/// As somebody presses who sees nothing happen.
#[test]
#[ignore = "needs root"]
fn a_button_that_is_pressed_several_times_leaves_one_server_that_is_known() {
    let script = Script::install(&Wechat::start());
    script.does("start", "started");
    let port = free_port();
    script.set(&[("PORT", &port.to_string())]);
    let press = || program("sh").arg(script.path("memcached")).arg("reload").stdout(Stdio::null()).spawn().unwrap();
    for mut press in [press(), press(), press()] {
        assert!(press.wait().unwrap().success());
    }
    script.does("status", "runs");
    script.does("stop", "stopped");
    assert!(TcpStream::connect(("127.0.0.1", port)).is_err());
}

/// It says so at once, and with the reason.
#[test]
#[ignore = "needs root"]
fn a_port_that_another_program_has_is_named() {
    let script = Script::install(&Wechat::start());
    let _taken = std::net::TcpListener::bind(("127.0.0.1", script.port)).unwrap();
    let (status, said) = script.call("start");
    assert!(
        !status.success() && said.contains("not started") && said.contains("something listens there already"),
        "{said}"
    );
}

/// The panel's own memcached, or whoever else has the number of a process that has ended.
#[test]
#[ignore = "needs root"]
fn another_process_in_the_file_is_left_alone() {
    let script = Script::install(&Wechat::start());
    write(script.folder.path(), "pid", &format!("{}\n", std::process::id()));
    script.does("stop", "does not run");
    assert_eq!(script.call("status").0.code(), Some(3));
    // The same program, as the package's unit runs it.
    let other = Node::start("", &[]);
    write(script.folder.path(), "pid", &format!("{}\n", other.pid()));
    script.does("stop", "does not run");
}
