//! What a client, a log, a disk or a Redis can do to the tokens and to other clients: attack by attack, an earlier
//! build, this one and memcached side by side.
//!
//! `cargo bench --bench attacks`; `-- --help` says what can be chosen. Real servers, the simulated WeChat. Prints
//! Markdown; ends with 1 if an attack on this build succeeded. docs/design/attacks.md says what each row shows.
//!
//! Each attack on each server is a process of its own, which starts the server, attacks it and prints the figures as
//! JSON. It is killed with all it has started if it does not end in time.

#![allow(clippy::unwrap_used, clippy::expect_used)]
#![allow(clippy::disallowed_methods, clippy::disallowed_types, reason = "a bench measures real time")]

mod attack;
mod client;
mod cluster;
mod fairness;
mod http;
mod limits;
mod log;
mod memory;
mod options;
mod report;
// The bench of memory starts both servers alike.
#[path = "../memory/server.rs"]
mod server;
mod state;
mod subject;

use std::io::Read;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Command, ExitCode, Stdio};
use std::time::{Duration, Instant};

use attack::{Attack, Measured};
use options::{Chosen, Options, RUN_FLAG};
use report::Row;
use rustix::process::{Pid, Resource, Rlimit, Signal, WaitId, WaitIdOptions, kill_process_group, waitid};
use subject::Subject;

/// After this an attack is given up.
const ATTACK_MAX: Duration = Duration::from_secs(120);

const ALL: &[&[Attack]] = &[
    memory::ATTACKS,
    fairness::ATTACKS,
    limits::ATTACKS,
    log::ATTACKS,
    state::ATTACKS,
    http::ATTACKS,
    cluster::ATTACKS,
];

fn main() -> ExitCode {
    let attacks: Vec<&Attack> = ALL.iter().copied().flatten().collect();
    match Options::from_arguments(&attacks) {
        Chosen::Table(options) => table(&attacks, &options),
        Chosen::One(name, kind, binary) => {
            let attack = attacks.iter().find(|attack| attack.name == name).unwrap();
            raise_limit_of_open_files();
            let measured = (attack.run)(&Subject::new(&kind, binary));
            assert_eq!(measured.len(), attack.figures.len(), "{name}");
            println!("{}", serde_json::Value::from(measured));
            ExitCode::SUCCESS
        }
        Chosen::Nothing => ExitCode::SUCCESS,
    }
}

fn table(attacks: &[&Attack], options: &Options) -> ExitCode {
    let now = Path::new(env!("CARGO_BIN_EXE_tokencached"));
    report::head(options);
    let mut failed = Vec::new();
    for attack in attacks.iter().filter(|attack| options.wants(attack)) {
        let memcached = attack.on_memcached.then(|| run(attack, "memcached", &options.memcached));
        let before = options.before.as_deref().map(|binary| run(attack, "ours", binary));
        let row = Row { attack, before, now: run(attack, "ours", now), memcached };
        print!("{}", row.lines());
        failed.extend(row.missed());
    }
    report::goals(&failed);
    if failed.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

/// The attack on one server, in a process of its own and a group with all that it starts. Nothing if it failed.
fn run(attack: &Attack, kind: &str, binary: &Path) -> Option<Measured> {
    let begun = Instant::now();
    let mut command = Command::new(std::env::current_exe().unwrap());
    command.args([RUN_FLAG, attack.name, kind]).arg(binary).stdin(Stdio::null()).stdout(Stdio::piped());
    let mut child = command.process_group(0).spawn().unwrap();
    let group = Pid::from_child(&child);
    // Looked at and not yet waited for: so its number, which is the group's, is nobody else's.
    let look = WaitIdOptions::EXITED | WaitIdOptions::NOHANG | WaitIdOptions::NOWAIT;
    while waitid(WaitId::Pid(group), look).unwrap().is_none() && begun.elapsed() < ATTACK_MAX {
        std::thread::sleep(Duration::from_millis(20));
    }
    // Whatever is left of it: the bench itself if it took too long, a server if it failed.
    let _ = kill_process_group(group, Signal::KILL);
    let status = child.wait().unwrap();
    let mut said = String::new();
    child.stdout.take().unwrap().read_to_string(&mut said).unwrap();
    eprintln!("{} on {}: {:.1} s, {status}", attack.name, binary.display(), begun.elapsed().as_secs_f64());
    said.lines().last().and_then(|line| serde_json::from_str(line).ok()).filter(|_| status.success())
}

fn raise_limit_of_open_files() {
    let limit = rustix::process::getrlimit(Resource::Nofile);
    let _ = rustix::process::setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, maximum: limit.maximum });
}
