//! What stands still outside (a reader of the log, a disk, a Redis, a name server, systemd) or dies inside: clients are
//! answered meanwhile, renewal goes on where it can, and the process ends when it is told to. `docs/design/blocking-calls.md`
//! has the list.

mod dead_tasks;
mod run_as_user;

use std::fs::{self, File};
use std::io::{BufRead, BufReader, Write};
use std::net::SocketAddr;
use std::os::unix::fs::OpenOptionsExt;
use std::os::unix::net::UnixDatagram;
use std::path::{Path, PathBuf};
use std::process::ExitStatus;
use std::time::Duration;

use rustix::fs::OFlags;
use rustix::thread::UnshareFlags;
use tempfile::TempDir;
use tokencached::sandbox::AppOptions;

use crate::support::netns::Namespace;
#[cfg(feature = "redis")]
use crate::support::redis::Redis;
use crate::support::{APPID, Client, Node, SECRET, Wechat, program, run_checked, tokencached, wait_for, write};

const ALIAS: &str = "aliases = [\"access_token\"]";
/// After SIGTERM the process is gone within this, whatever hangs: systemd's unit gives it as long.
const END_MAX: Duration = Duration::from_secs(20);

/// Tokens of two seconds.
fn wechat() -> Wechat {
    Wechat::short_lived(2)
}

/// Reads until the token has been renewed twice; every other client is answered meanwhile.
#[track_caller]
fn renews(client: &mut Client) {
    for _ in 0..2 {
        let before = wait_for("a token", || client.get("access_token"));
        wait_for("a renewal", || client.get("access_token").filter(|token| *token != before));
    }
    serves(client);
}

#[track_caller]
fn serves(client: &mut Client) {
    client.expect("set k 0 0 1\r\nx\r\nget k\r\n", "STORED\r\nVALUE k 0 1\r\nx\r\nEND\r\n");
}

/// SIGTERM; the status of the process, which must be gone in time.
#[track_caller]
#[expect(clippy::disallowed_methods, reason = "the bound on the time is what is shown")]
fn ends(node: &mut Node) -> ExitStatus {
    let begun = std::time::Instant::now();
    node.signal("TERM");
    let status = node.wait();
    assert!(begun.elapsed() < END_MAX, "it took {:?} to end", begun.elapsed());
    status
}

/// A pipe that takes nothing more, because nobody reads it.
struct FullPipe {
    path: PathBuf,
    reader: File,
    filler: File,
}

impl FullPipe {
    fn new(folder: &Path) -> FullPipe {
        let path = folder.join("pipe");
        run_checked(program("mkfifo").arg(&path));
        let open = |write: bool| {
            let flags = OFlags::NONBLOCK.bits().cast_signed();
            File::options().read(!write).write(write).custom_flags(flags).open(&path).unwrap()
        };
        let (reader, filler) = (open(false), open(true));
        let mut pipe = FullPipe { path, reader, filler };
        pipe.fill();
        pipe
    }

    fn fill(&mut self) {
        while self.filler.write(b"x\n").is_ok() {}
    }

    /// A writer's end that waits, as a process has it.
    fn end(&self) -> File {
        File::options().write(true).open(&self.path).unwrap()
    }
}

/// Connections that each make a line of the log, until one has been dropped.
fn log_until_lines_are_dropped(node: &Node, client: &mut Client) {
    wait_for("lines to be dropped", || {
        for _ in 0..200 {
            // Each is closed with a word in the log (-vv).
            node.connect().expect("get access_token:none\r\nquit\r\n", "END\r\n");
        }
        let dropped = client.stat("", "log_lines_dropped").unwrap();
        (dropped != "0").then_some(())
    });
}

#[test]
#[ignore = "waits for real time"]
fn a_reader_of_the_log_that_stops_holds_up_nobody_and_reads_on_later() {
    let (wechat, folder) = (wechat(), tempfile::tempdir().unwrap());
    let pipe = FullPipe::new(folder.path());
    let end = pipe.end();
    let mut node = Node::start_logging_to(folder, &wechat.config("", ALIAS), &["-vvv"], &[], end);
    let mut client = node.connect();
    wait_for("a token", || client.get("access_token"));
    // What a refused write logs used to hold the worker, and the rest with it.
    client.expect("set access_token 0 0 1\r\nx\r\n", "NOT_STORED\r\n");
    log_until_lines_are_dropped(&node, &mut client);
    renews(&mut client);

    rustix::io::ioctl_fionbio(&pipe.reader, false).unwrap();
    let mut lines = BufReader::new(pipe.reader).lines().map(Result::unwrap).filter(|line| line != "x");
    let first = lines.next().unwrap();
    assert!(first.contains("INFO") || first.contains("WARN") || first.contains("DEBUG"), "{first}");
    let missing = lines.find(|line| line.contains("log lines dropped here")).unwrap();
    let count = missing.split("lines=").nth(1).unwrap().split(|c: char| !c.is_ascii_digit()).next().unwrap();
    assert_ne!(count, "0", "{missing}");
    // Its end comes with that of the process, which holds the last writer's end then.
    drop(pipe.filler);
    let reading = std::thread::spawn(move || lines.last());
    assert!(ends(&mut node).success());
    assert!(reading.join().unwrap().unwrap().contains("stopped"), "the last line is that of the end");
}

#[test]
#[ignore = "waits for real time"]
fn the_end_does_not_wait_for_a_reader_of_the_log() {
    let (wechat, folder) = (wechat(), tempfile::tempdir().unwrap());
    let pipe = FullPipe::new(folder.path());
    let end = pipe.end();
    let mut node = Node::start_logging_to(folder, &wechat.config("", ALIAS), &[], &[], end);
    renews(&mut node.connect());
    assert!(ends(&mut node).success());
    let state = fs::read_to_string(node.path("state.json")).unwrap();
    assert!(state.contains(APPID), "the state was written");
}

#[test]
#[ignore = "waits for real time"]
fn a_start_that_fails_does_not_wait_for_a_reader_of_its_words() {
    let folder = tempfile::tempdir().unwrap();
    let pipe = FullPipe::new(folder.path());
    let file = write(folder.path(), "faulty.toml", "[server]\nno_such_key = 1\n");
    let mut child = tokencached().arg("--config").arg(file).stderr(pipe.end()).spawn().unwrap();
    let status = wait_for("the process to end", || child.try_wait().unwrap());
    assert_eq!(status.code(), Some(78));
}

#[test]
#[ignore = "waits for real time"]
fn a_log_that_cannot_be_written_costs_nothing_but_its_lines() {
    let wechat = wechat();
    let (reader, closed) = std::io::pipe().unwrap();
    drop(reader);
    let full = File::options().write(true).open("/dev/full").unwrap();
    for log in [full, File::from(std::os::fd::OwnedFd::from(closed))] {
        let folder = tempfile::tempdir().unwrap();
        let mut node = Node::start_logging_to(folder, &wechat.config("", ALIAS), &[], &[], log);
        let mut client = node.connect();
        renews(&mut client);
        assert_ne!(client.stat("", "log_lines_dropped").unwrap(), "0");
        assert!(ends(&mut node).success());
    }
}

/// A library that makes `fsync`, and opening files whose names end in `.slow`, wait for as long as a file exists.
fn slow_disk(folder: &Path) -> (PathBuf, PathBuf) {
    let source = write(
        folder,
        "slow.c",
        r#"#define _GNU_SOURCE
#include <fcntl.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>
static void stall(void) { while (syscall(SYS_access, getenv("SLOW_WHILE"), F_OK) == 0) usleep(10000); }
int fsync(int fd) { stall(); return syscall(SYS_fsync, fd); }
int open64(const char *path, int flags, ...) {
    va_list rest;
    va_start(rest, flags);
    int mode = va_arg(rest, int);
    va_end(rest);
    size_t length = strlen(path);
    if (length > 5 && strcmp(path + length - 5, ".slow") == 0) stall();
    return syscall(SYS_openat, AT_FDCWD, path, flags, mode);
}
"#,
    );
    let library = folder.join("slow.so");
    run_checked(program("cc").args(["-shared", "-fPIC", "-o"]).arg(&library).arg(&source));
    (library, folder.join("slow-while"))
}

fn start_on_a_slow_disk(config: &str) -> (Node, PathBuf) {
    let folder = tempfile::tempdir().unwrap();
    write(folder.path(), "app.slow", SECRET);
    let (library, slow_while) = slow_disk(folder.path());
    let variables = [("LD_PRELOAD", library.to_str().unwrap()), ("SLOW_WHILE", slow_while.to_str().unwrap())];
    (Node::start_with(folder, config, &[], &variables), slow_while)
}

#[test]
#[ignore = "waits for real time"]
fn a_disk_that_hangs_in_fsync_holds_up_neither_readers_nor_renewals_nor_the_end() {
    let wechat = wechat();
    for endpoint in ["stable_token", "token"] {
        let app = format!("{ALIAS}\nendpoint = \"{endpoint}\"");
        let (mut node, slow_while) = start_on_a_slow_disk(&wechat.config("", &app));
        let mut client = node.connect();
        wait_for("a token", || client.get("access_token"));
        fs::write(slow_while, "").unwrap();
        renews(&mut client);
        assert!(ends(&mut node).success(), "{}", node.log());
        node.await_log("the state file could not be written before shutdown");
    }
}

#[test]
#[ignore = "waits for real time"]
fn secret_files_on_a_disk_that_hangs_hold_up_no_other_app_nor_the_end() {
    // More apps than there may be reads or calls at once.
    let slow: Vec<String> = (0..40).map(|n| format!("wxslow{n:010}")).collect();
    let known = |appid: &String| AppOptions { appid: appid.clone(), secret: SECRET.into(), ..AppOptions::default() };
    let apps = slow.iter().map(known).collect();
    let quarter_ms = Some(500);
    let wechat = Wechat::with(tokencached::sandbox::Options {
        apps,
        lifetime_s: 2,
        overlap_ms: quarter_ms,
        stable_window_ms: quarter_ms,
        ..Default::default()
    });
    let mut config = wechat.config("first_get_wait_ms = 0", ALIAS);
    for appid in &slow {
        config += &format!("[[app]]\nappid = \"{appid}\"\nsecret_file = \"{{folder}}/app.slow\"\n");
    }
    let (mut node, slow_while) = start_on_a_slow_disk(&config);
    let mut client = node.connect();
    wait_for("all tokens", || {
        slow.iter().all(|appid| client.get(&format!("access_token:{appid}")).is_some()).then_some(())
    });
    fs::write(slow_while, "").unwrap();
    wait_for("the disk to be noticed", || node.log().contains("does not answer").then_some(()));
    renews(&mut client);
    // The signal to read files again comes, too.
    node.signal("HUP");
    serves(&mut client);
    ends(&mut node);
}

#[cfg(feature = "redis")]
#[test]
#[ignore = "waits for real time"]
fn a_redis_that_hangs_as_store_and_as_sink_holds_up_neither_readers_nor_the_end() {
    let (wechat, redis) = (wechat(), Redis::start(&[]));
    let folder = tempfile::tempdir().unwrap();
    write(folder.path(), "state.secret", "what-all-these-nodes-seal-with");
    let url = redis.url();
    let config = wechat.config("first_get_wait_ms = 0", ALIAS).replace(
        "[state]\n",
        &format!("[state]\nurl = \"{url}\"\nsecret_file = \"{{folder}}/state.secret\"\ntimeout_ms = 500\n"),
    );
    let sink = format!("[[sink]]\nurl = \"{url}\"\ntimeout_ms = 60000\nkeys = [{{ key = \"token\" }}]\n");
    let mut node = Node::start_in(folder, &format!("{config}{sink}"), &[]);
    let mut client = node.connect();
    let first = wait_for("a token", || client.get("access_token"));
    wait_for("the sink to be written", || redis.get("token"));
    redis.signal("STOP");
    // The last one to renew goes on alone.
    wait_for("a renewal", || client.get("access_token").filter(|token| *token != first));
    serves(&mut client);
    assert!(ends(&mut node).success(), "{}", node.log());
    redis.signal("CONT");
}

/// Starts a node whose resolver asks a name server that takes questions and never answers.
fn start_with_a_silent_name_server(namespace: &Namespace, config: &str) -> (Node, std::net::UdpSocket) {
    namespace.inside(|| {
        let server = std::net::UdpSocket::bind("127.0.0.1:53").unwrap();
        let folder = tempfile::tempdir().unwrap();
        let resolver = write(folder.path(), "resolv.conf", "nameserver 127.0.0.1\n");
        #[expect(deprecated, reason = "unsafe is another flag, not this one")]
        rustix::thread::unshare(UnshareFlags::NEWNS).unwrap();
        run_checked(program("mount").args(["--make-rprivate", "/"]));
        run_checked(program("mount").arg("--bind").arg(resolver).arg("/etc/resolv.conf"));
        (Node::start_in(folder, config, &[]), server)
    })
}

#[test]
#[ignore = "needs root"]
fn a_name_server_that_never_answers_holds_up_no_other_app_nor_the_end() {
    let namespace = Namespace::new();
    let wechat = namespace.inside(wechat);
    let mut config = wechat.config("first_get_wait_ms = 0", ALIAS);
    for n in 0..40 {
        config += &format!(
            "[[app]]\nappid = \"wxfar{n:011}\"\nsecret = \"{SECRET}\"\nbase_url = \"https://api.weixin.qq.com\"\n"
        );
    }
    let (mut node, name_server) = start_with_a_silent_name_server(&namespace, &config);
    name_server.set_read_timeout(Some(crate::support::TIMEOUT)).unwrap();
    name_server.recv(&mut [0; 512]).expect("a question");
    let mut client = namespace.inside(|| node.connect());
    renews(&mut client);
    // One look-up at a time, however many apps wait for it.
    let threads = fs::read_dir(format!("/proc/{}/task", node.pid())).unwrap().count();
    assert!(threads < 40, "{threads} threads");
    assert!(ends(&mut node).success(), "{}", node.log());
}

/// systemd's socket.
struct Systemd {
    socket: UnixDatagram,
    path: PathBuf,
}

impl Systemd {
    fn new(folder: &TempDir) -> Systemd {
        let path = folder.path().join("notify");
        let socket = UnixDatagram::bind(&path).unwrap();
        socket.set_nonblocking(true).unwrap();
        Systemd { socket, path }
    }

    /// The next message, if there is one.
    fn message(&self) -> Option<String> {
        let mut text = [0; 4096];
        let length = self.socket.recv(&mut text).ok()?;
        Some(String::from_utf8_lossy(&text[..length]).into_owned())
    }

    fn until(&self, wanted: &str) {
        wait_for(wanted, || self.message().filter(|message| message.contains(wanted)));
    }
}

#[test]
#[ignore = "waits for real time"]
fn a_systemd_that_takes_no_message_holds_up_nobody_and_is_told_when_it_does() {
    let (wechat, folder) = (wechat(), tempfile::tempdir().unwrap());
    let systemd = Systemd::new(&folder);
    let other = UnixDatagram::unbound().unwrap();
    other.set_nonblocking(true).unwrap();
    while other.send_to(b"X=1\n", &systemd.path).is_ok() {}
    let path = systemd.path.to_str().unwrap();
    let variables = [("NOTIFY_SOCKET", path), ("WATCHDOG_USEC", "1000000")];
    let mut node = Node::start_with(folder, &wechat.config("", ALIAS), &[], &variables);
    renews(&mut node.connect());
    systemd.until("READY=1");
    systemd.until("WATCHDOG=1");
    while other.send_to(b"X=1\n", &systemd.path).is_ok() {}
    assert!(ends(&mut node).success(), "{}", node.log());
}

/// The status of an answer to `GET`.
fn status_of(address: SocketAddr, path: &str) -> u16 {
    let mut client = Client::connect(address);
    client.send(format!("GET {path} HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n\r\n"));
    let answer = String::from_utf8(client.rest()).unwrap();
    answer.split(' ').nth(1).unwrap().parse().unwrap()
}
