//! A process that the demo starts, reads the output of, ends and starts again; it cannot outlive the demo.
//!
//! Never prints anything, and never knows what the process is for.

use std::ffi::OsString;
use std::io::{BufRead, BufReader, Read};
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};
use tokio::sync::mpsc::UnboundedSender;
use tokio::time::{Instant, sleep};

/// How long processes have to end after they were asked to.
const END_TIMEOUT: Duration = Duration::from_secs(3);
const POLL_EVERY: Duration = Duration::from_millis(10);

/// What has happened to the process with that index.
#[derive(Debug)]
pub enum ProcessEvent {
    Line(usize, String),
    /// It has closed its output: it has ended, or is about to.
    Ended(usize),
    /// It is to be started again now.
    RestartDue(usize),
}

pub struct ChildProcess {
    pub name: String,
    index: usize,
    command: Vec<OsString>,
    /// Of the process that was started last.
    pub pid: u32,
    child: Option<Child>,
}

impl ChildProcess {
    pub fn new(index: usize, name: impl Into<String>, command: Vec<OsString>) -> ChildProcess {
        ChildProcess { name: name.into(), index, command, pid: 0, child: None }
    }

    /// Starts it. What it writes goes to `events`.
    ///
    /// To be called from the main thread: the process ends when the thread that has started it ends.
    pub fn start(&mut self, events: &UnboundedSender<ProcessEvent>) -> Result<(), String> {
        let fault = |error| format!("{} cannot be started: {error}", self.name);
        let (output, input) = std::io::pipe().map_err(fault)?;
        let this = std::env::current_exe().map_err(fault)?;
        let mut command = Command::new(this);
        command.arg("tied").arg(std::process::id().to_string()).args(&self.command).env_clear();
        let kept = ["PATH", "RUST_LOG"].map(|name| (name, std::env::var_os(name)));
        command.envs(kept.into_iter().filter_map(|(name, value)| Some((name, value?))));
        // In a process group of its own: Ctrl-C goes to the demo alone, which then ends the others in order.
        command.process_group(0).stdin(Stdio::null());
        command.stdout(input.try_clone().map_err(fault)?).stderr(input);
        let child = command.spawn().map_err(fault)?;
        // Close this process's copies of the pipe's writing end.
        drop(command);
        (self.pid, self.child) = (child.id(), Some(child));
        let (index, events) = (self.index, events.clone());
        std::thread::spawn(move || read_lines(output, index, &events));
        Ok(())
    }

    /// Waits for the end of a process that has closed its output, and forgets it.
    pub fn reap(&mut self) -> Option<ExitStatus> {
        self.child.take()?.wait().ok()
    }

    pub fn is_running(&mut self) -> bool {
        self.child.as_mut().is_some_and(|child| matches!(child.try_wait(), Ok(None)))
    }

    fn ask_to_end(&mut self) {
        // Not if it has ended: its pid may belong to another process by now.
        if self.is_running()
            && let Some(pid) = self.child.as_ref().and_then(|child| Pid::from_raw(i32::try_from(child.id()).ok()?))
        {
            let _ = kill_process(pid, Signal::TERM);
        }
    }

    fn kill(&mut self) {
        if let Some(mut child) = self.child.take() {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

impl Drop for ChildProcess {
    fn drop(&mut self) {
        self.kill();
    }
}

/// Ends these processes: asks them to end, and kills those that do not.
pub async fn end(processes: &mut [ChildProcess]) {
    processes.iter_mut().for_each(ChildProcess::ask_to_end);
    let until = Instant::now() + END_TIMEOUT;
    while processes.iter_mut().any(ChildProcess::is_running) && Instant::now() < until {
        sleep(POLL_EVERY).await;
    }
    processes.iter_mut().for_each(ChildProcess::kill);
}

fn read_lines(output: impl Read, index: usize, events: &UnboundedSender<ProcessEvent>) {
    let mut lines = BufReader::new(output);
    let mut line = Vec::new();
    while matches!(lines.read_until(b'\n', &mut line), Ok(read) if read > 0) {
        let text = String::from_utf8_lossy(&line).trim_end().to_owned();
        line.clear();
        if events.send(ProcessEvent::Line(index, text)).is_err() {
            return;
        }
    }
    let _ = events.send(ProcessEvent::Ended(index));
}

/// The first of these programs that is on PATH.
pub fn on_path(names: &[&'static str]) -> Option<(&'static str, PathBuf)> {
    use std::os::unix::fs::PermissionsExt;
    let path = std::env::var_os("PATH")?;
    let is_program = |file: &PathBuf| {
        std::fs::metadata(file).is_ok_and(|about| about.is_file() && about.permissions().mode() & 0o111 != 0)
    };
    let mut files = names.iter().flat_map(|name| std::env::split_paths(&path).map(move |at| (*name, at.join(name))));
    files.find(|(_, file)| file.is_absolute() && is_program(file))
}
