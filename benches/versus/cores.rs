//! Who runs where: the load on one core, the servers on the other, or on both where they have two threads.

use std::process::{Child, Command};

use rustix::process::{Resource, Rlimit};
use rustix::thread::CpuSet;

const SERVER_CORE: usize = 0;
const LOAD_CORE: usize = 1;

/// Moves the load to its core, raises the limit of open files and, where that is allowed, the priority: of this process
/// and of all it starts.
pub fn prepare_this_process() {
    pin(&[LOAD_CORE]);
    let limit = rustix::process::getrlimit(Resource::Nofile);
    let wanted = Rlimit { current: limit.maximum, maximum: limit.maximum };
    let _ = rustix::process::setrlimit(Resource::Nofile, wanted);
    let _ = rustix::process::setpriority_process(None, -10);
}

fn pin(cores: &[usize]) {
    let mut set = CpuSet::new();
    cores.iter().for_each(|&core| set.set(core));
    rustix::thread::sched_setaffinity(None, &set).expect("two cores are needed: one for the server, one for the load");
}

/// Starts a server of so many threads. A child takes over where it may run from the thread that starts it.
pub fn spawn(command: &mut Command, threads: usize) -> Child {
    pin(&[SERVER_CORE, LOAD_CORE][..threads]);
    let child = command.spawn().unwrap_or_else(|error| panic!("cannot start {command:?}: {error}"));
    pin(&[LOAD_CORE]);
    child
}
