//! Attacks on the state file: a disk that fails for a while, and a second process on one file.

use std::path::Path;
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};
use serde_json::json;
use tempfile::TempDir;
use tokencached::sandbox::{ALL_APPS, FaultKind, FaultScope, InjectedFault};

use crate::attack::{Attack, Figure, Goal, Measured};
use crate::client::{Client, TIMEOUT};
use crate::server::Server;
use crate::subject::{APPID, Plan, Subject, TOKEN_KEY, Wechat, becomes_true};

pub const ATTACKS: &[Attack] = &[
    Attack {
        name: "disk-good-before-end",
        what: "the state's folder is away for 18 s, a renewal falls into that, and is back just before SIGTERM",
        on_memcached: false,
        figures: &[Figure { what: "the last token is served after the restart, WeChat away", goal: Goal::Yes }],
        run: disk_good_before_end,
    },
    Attack {
        name: "two-on-one-state-file",
        what: "a second process with the same state file and a classic app",
        on_memcached: false,
        figures: &[
            Figure { what: "the second one starts as if nothing were", goal: Goal::No },
            Figure { what: "the first one's token is still accepted", goal: Goal::Yes },
        ],
        run: two_on_one_state_file,
    },
];

const STATE: &str = "path = \"{folder}/state/state.json\"";

fn node_in(folder: TempDir, subject: &Subject, wechat: &Wechat) -> Server {
    let _ = std::fs::create_dir(folder.path().join("state"));
    subject.start_in(folder, wechat, Plan { state: STATE.into(), ..Plan::default() })
}

fn token(server: &Server) -> Option<Vec<u8>> {
    Client::connect(server.port(), TIMEOUT).ok()?.get(TOKEN_KEY).ok()?
}

fn signal(server: &Server, signal: Signal) {
    kill_process(Pid::from_raw(server.pid() as i32).unwrap(), signal).unwrap();
}

fn disk_good_before_end(subject: &Subject) -> Measured {
    let wechat = Wechat::start();
    let mut server = node_in(tempfile::tempdir().unwrap(), subject, &wechat);
    let (state, away) = (server.folder().join("state"), server.folder().join("away"));
    assert!(becomes_true(TIMEOUT, || token(&server).is_some() && Path::new(&state.join("state.json")).exists()));
    let first = token(&server);
    // So that the first token is in the file, and the second will not be.
    std::thread::sleep(Duration::from_millis(500));
    std::fs::rename(&state, &away).unwrap();
    wechat.kill_tokens(APPID);
    let mut client = Client::connect(server.port(), TIMEOUT).unwrap();
    client.ask(format!("delete {TOKEN_KEY}\r\n")).unwrap();
    assert!(becomes_true(TIMEOUT, || token(&server).is_some_and(|token| Some(&token) != first.as_ref())));
    let last = token(&server);
    // Between two of a saver's attempts, if it waits twice as long each time.
    std::thread::sleep(Duration::from_secs(18));
    std::fs::rename(&away, &state).unwrap();
    signal(&server, Signal::TERM);
    assert!(server.ends_within(TIMEOUT), "it does not end");
    wechat.set_fault(ALL_APPS, InjectedFault { on: FaultScope::All, ..InjectedFault::new(FaultKind::Reset) });
    let server = node_in(server.into_folder(), subject, &wechat);
    vec![json!(token(&server) == last)]
}

fn two_on_one_state_file(subject: &Subject) -> Measured {
    let wechat = Wechat::start();
    let plan = |path: &Path| Plan {
        state: format!("path = \"{}/state.json\"", path.display()),
        app: "endpoint = \"token\"".into(),
        ..Plan::default()
    };
    let state = tempfile::tempdir().unwrap();
    let server = subject.node(&wechat, plan(state.path()));
    let first = token(&server).unwrap();
    assert!(becomes_true(TIMEOUT, || state.path().join("state.json").exists()));
    let second = second_process(subject, &wechat, plan(state.path()));
    vec![json!(second), json!(wechat.accepts(&first) && token(&server).is_some_and(|token| wechat.accepts(&token)))]
}

/// True if it serves and has said nothing about another process.
fn second_process(subject: &Subject, wechat: &Wechat, plan: Plan) -> bool {
    let folder = tempfile::tempdir().unwrap();
    // Its start may fail: that is a good answer.
    let started = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
        let server = subject.start_in(folder, wechat, plan);
        becomes_true(Duration::from_secs(3), || token(&server).is_some());
        std::fs::read_to_string(server.folder().join("log")).unwrap_or_default()
    }));
    started.is_ok_and(|said| !["another process", "is locked", "in use by"].iter().any(|words| said.contains(words)))
}
