//! A part of the server that dies or stands still: the process ends with an error, or whoever watches it learns of it.

use std::os::fd::OwnedFd;

use nix::sys::ptrace;
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use nix::unistd::Pid;
use rustix::net::{Shutdown, getsockname, shutdown, sockopt};
use rustix::process::{PidfdFlags, PidfdGetfdFlags, pidfd_getfd, pidfd_open};

use crate::support::as_root;

use super::*;

/// Takes the socket that listens there out of the process: what is done to it is done to the server's.
fn listening_socket(node: &Node, address: SocketAddr) -> OwnedFd {
    let pid = rustix::process::Pid::from_raw(node.pid().cast_signed()).unwrap();
    let process = pidfd_open(pid, PidfdFlags::empty()).unwrap();
    let descriptors = fs::read_dir(format!("/proc/{}/fd", node.pid())).unwrap();
    let numbers = descriptors.map(|entry| entry.unwrap().file_name().to_str().unwrap().parse::<i32>().unwrap());
    numbers
        .filter_map(|number| pidfd_getfd(&process, number, PidfdGetfdFlags::empty()).ok())
        .find(|socket| {
            let is_there = getsockname(socket).ok().and_then(|name| SocketAddr::try_from(name).ok()) == Some(address);
            is_there && sockopt::socket_acceptconn(socket) == Ok(true)
        })
        .expect("a listening socket")
}

#[test]
#[ignore = "waits for real time"]
fn a_listener_that_is_gone_ends_the_server_with_an_error() {
    let wechat = wechat();
    let mut node = Node::start(&wechat.config("", ALIAS), &[]);
    let mut client = node.connect();
    wait_for("a token", || client.get("access_token"));
    shutdown(listening_socket(&node, node.address), Shutdown::Both).unwrap();
    let status = node.wait();
    let log = node.log();
    assert_eq!(status.code(), Some(70), "{log}");
    assert!(log.contains("a part of the server ended unexpectedly"), "{log}");
    assert!(log.contains(&format!("the listener at tcp:{}", node.address)), "{log}");
    assert!(fs::read_to_string(node.path("state.json")).unwrap().contains(APPID), "the state was written");
}

#[test]
#[ignore = "waits for real time"]
fn an_http_listener_that_is_gone_ends_the_server_with_an_error() {
    let wechat = wechat();
    let config = format!("[http]\nlisten = [\"127.0.0.1:0\"]\n{}", wechat.config("", ALIAS));
    let mut node = Node::start(&config, &[]);
    let http = node.http_address();
    assert_eq!(status_of(http, "/livez"), 200);
    shutdown(listening_socket(&node, http), Shutdown::Both).unwrap();
    let status = node.wait();
    let log = node.log();
    assert_eq!(status.code(), Some(70), "{log}");
    assert!(log.contains("the listener of the HTTP API"), "{log}");
}

/// Stops one of a process's threads until the process ends. Gives its id: whoever has stopped it has to wait for it.
fn stop_thread(node: &Node, name: &str) -> Pid {
    as_root();
    let threads = fs::read_dir(format!("/proc/{}/task", node.pid())).unwrap().map(|entry| entry.unwrap().path());
    let named = |path: &PathBuf| fs::read_to_string(path.join("comm")).unwrap().trim() == name;
    let thread = threads.into_iter().find(named).unwrap_or_else(|| panic!("no thread {name}"));
    let id = Pid::from_raw(thread.file_name().unwrap().to_str().unwrap().parse().unwrap());
    ptrace::seize(id, ptrace::Options::empty()).unwrap();
    ptrace::interrupt(id).unwrap();
    waitpid(id, Some(WaitPidFlag::__WALL)).unwrap();
    id
}

#[test]
#[ignore = "needs root"]
#[expect(clippy::disallowed_methods, reason = "the bound on the time is what is shown")]
fn a_refresher_that_stands_still_is_seen_by_systemd_and_livez_and_the_process_can_still_be_ended() {
    let (wechat, folder) = (wechat(), tempfile::tempdir().unwrap());
    let systemd = Systemd::new(&folder);
    let variables = [("NOTIFY_SOCKET", systemd.path.to_str().unwrap()), ("WATCHDOG_USEC", "1000000")];
    let config = format!("[http]\nlisten = [\"127.0.0.1:0\"]\n{}", wechat.config("", ALIAS));
    let mut node = Node::start_with(folder, &config, &[], &variables);
    let (mut client, http) = (node.connect(), node.http_address());
    renews(&mut client);
    systemd.until("READY=1");
    systemd.until("WATCHDOG=1");
    assert_eq!(status_of(http, "/livez"), 200);

    let control = stop_thread(&node, "control");
    while systemd.message().is_some() {}
    wait_for("/livez to say so", || (status_of(http, "/livez") == 503).then_some(()));
    assert_eq!(systemd.message(), None, "nobody else feeds the watchdog");
    serves(&mut client);
    let begun = std::time::Instant::now();
    node.signal("TERM");
    // Until then the process is not quite gone.
    wait_for("the thread to end", || {
        let state = waitpid(control, Some(WaitPidFlag::__WALL | WaitPidFlag::WNOHANG));
        (state != Ok(WaitStatus::StillAlive)).then_some(())
    });
    assert_eq!(node.wait().code(), Some(70), "{}", node.log());
    assert!(begun.elapsed() < END_MAX, "it took {:?} to end", begun.elapsed());
}
