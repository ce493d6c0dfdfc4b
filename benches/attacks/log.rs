//! An attack on the log: whoever reads it has stopped.

use std::fs::File;
use std::io::{PipeWriter, Write};
use std::os::fd::AsRawFd;
use std::os::unix::fs::OpenOptionsExt;
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};
use serde_json::{Value, json};

use crate::attack::{Attack, Figure, Goal, Measured};
use crate::client::Client;
use crate::http;
use crate::subject::{Plan, Subject, TOKEN_KEY, Wechat, becomes_true, free_port};

pub const ATTACKS: &[Attack] = &[Attack {
    name: "log-reader-stopped",
    what: "standard error is a full pipe that nobody reads; one refused `set` a connection, ten of them; tokens live 4 s",
    on_memcached: true,
    figures: &[
        Figure { what: "of 50 gets afterwards, answered within 1 s", goal: Goal::AtLeast(50.0) },
        Figure { what: "the token is current after 8 s", goal: Goal::Yes },
        Figure { what: "`/livez` answers", goal: Goal::Yes },
        Figure { what: "ends within 20 s of SIGTERM", goal: Goal::Yes },
    ],
    run: log_reader_stopped,
}];

fn log_reader_stopped(subject: &Subject) -> Measured {
    let wechat = Wechat::short_lived(4);
    let (reader, writer) = std::io::pipe().unwrap();
    let http_port = free_port();
    let tables = format!("[side]\nlisten = [\"127.0.0.1:{http_port}\"]");
    let plan = Plan { tables, stderr: Some(writer.try_clone().unwrap().into()), ..Plan::default() };
    let mut server = subject.node(&wechat, plan);
    fill(&writer);
    let refused = |_| {
        let mut client = Client::connect(server.port(), Duration::from_secs(1)).ok()?;
        client.set(TOKEN_KEY, b"mine").ok()?;
        Some(client)
    };
    let _writers: Vec<_> = if subject.is_memcached() { Vec::new() } else { (0..10).map(refused).collect() };
    let answered = gets_answered(server.port(), 50);
    std::thread::sleep(Duration::from_secs(8));
    let current = subject.is_memcached()
        || becomes_true(Duration::from_secs(1), || {
            read_token(server.port()).is_some_and(|token| wechat.accepts(&token))
        });
    let lives = !subject.is_memcached() && http::get(http_port, "/livez").is_ok_and(|answer| answer.status == 200);
    kill_process(Pid::from_raw(server.pid() as i32).unwrap(), Signal::TERM).unwrap();
    let ends = server.ends_within(Duration::from_secs(20));
    drop(reader);
    let theirs_has_none = |ours: bool| if subject.is_memcached() { Value::Null } else { json!(ours) };
    vec![json!(answered), theirs_has_none(current), theirs_has_none(lives), json!(ends)]
}

/// Until the pipe takes nothing more. By an opening of its own: what else is open of it goes on waiting.
fn fill(writer: &PipeWriter) {
    let path = format!("/proc/self/fd/{}", writer.as_raw_fd());
    let nonblocking = rustix::fs::OFlags::NONBLOCK.bits() as i32;
    let mut pipe = File::options().write(true).custom_flags(nonblocking).open(path).unwrap();
    for size in [4096, 1] {
        while pipe.write(&vec![b'x'; size]).is_ok() {}
    }
}

fn read_token(port: u16) -> Option<Vec<u8>> {
    Client::connect(port, Duration::from_secs(1)).ok()?.get(TOKEN_KEY).ok()?
}

/// So many clients at once, each with one question.
fn gets_answered(port: u16, clients: usize) -> usize {
    let clients: Vec<_> = (0..clients).map(|_| std::thread::spawn(move || read_token(port).is_some())).collect();
    clients.into_iter().filter_map(|client| client.join().ok()).filter(|&answered| answered).count()
}
