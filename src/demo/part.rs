//! A process of the demo's own: started so that it cannot outlive the demo, heard line by line, ended, started again.
//!
//! Says nothing to people and does not know what its process is for.

use std::ffi::OsString;
use std::io::{BufRead, BufReader, Read};
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};
use tokio::sync::mpsc::UnboundedSender;
use tokio::time::{Instant, sleep};

/// How long processes have to end when they are asked to.
const END_WAIT: Duration = Duration::from_secs(3);
const LOOK_EVERY: Duration = Duration::from_millis(10);

/// What is heard of the process with that index.
#[derive(Debug)]
pub enum Said {
    Line(usize, String),
    /// It has closed its output: it has ended, or is about to.
    Ended(usize),
}

pub struct Part {
    pub name: String,
    index: usize,
    command: Vec<OsString>,
    /// For what it was last started as.
    pub pid: u32,
    child: Option<Child>,
    /// When it is to be started again.
    pub again: Option<Instant>,
}

impl Part {
    pub fn new(index: usize, name: impl Into<String>, command: Vec<OsString>) -> Part {
        Part { name: name.into(), index, command, pid: 0, child: None, again: None }
    }

    /// Starts it. What it writes goes to `said`.
    ///
    /// To be called from the main thread: a process started so ends with the thread that has started it.
    pub fn start(&mut self, said: &UnboundedSender<Said>) -> Result<(), String> {
        let fault = |error| format!("{} cannot be started: {error}", self.name);
        let (output, input) = std::io::pipe().map_err(fault)?;
        let this = std::env::current_exe().map_err(fault)?;
        let mut command = Command::new(this);
        command.arg("tied").arg(std::process::id().to_string()).args(&self.command).env_clear();
        let kept = ["PATH", "RUST_LOG"].map(|name| (name, std::env::var_os(name)));
        command.envs(kept.into_iter().filter_map(|(name, value)| Some((name, value?))));
        // In a group of its own: Ctrl-C is for the demo, which then ends the others in order.
        command.process_group(0).stdin(Stdio::null());
        command.stdout(input.try_clone().map_err(fault)?).stderr(input);
        let child = command.spawn().map_err(fault)?;
        // Its ends of the pipe are the child's alone now.
        drop(command);
        (self.pid, self.child, self.again) = (child.id(), Some(child), None);
        let (index, said) = (self.index, said.clone());
        std::thread::spawn(move || listen(output, index, &said));
        Ok(())
    }

    /// Takes note of its end; waits for it no longer than it takes.
    pub fn ended(&mut self) -> Option<ExitStatus> {
        self.child.take()?.wait().ok()
    }

    pub fn runs(&mut self) -> bool {
        self.child.as_mut().is_some_and(|child| matches!(child.try_wait(), Ok(None)))
    }

    fn ask_to_end(&mut self) {
        // Not one that is gone: its number may be another's by now.
        if self.runs()
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

impl Drop for Part {
    fn drop(&mut self) {
        self.kill();
    }
}

/// Ends these: asks, and kills what does not listen.
pub async fn end(parts: &mut [Part]) {
    parts.iter_mut().for_each(Part::ask_to_end);
    let until = Instant::now() + END_WAIT;
    while parts.iter_mut().any(Part::runs) && Instant::now() < until {
        sleep(LOOK_EVERY).await;
    }
    parts.iter_mut().for_each(Part::kill);
}

fn listen(output: impl Read, index: usize, said: &UnboundedSender<Said>) {
    let mut lines = BufReader::new(output);
    let mut line = Vec::new();
    while matches!(lines.read_until(b'\n', &mut line), Ok(read) if read > 0) {
        let text = String::from_utf8_lossy(&line).trim_end().to_owned();
        line.clear();
        if said.send(Said::Line(index, text)).is_err() {
            return;
        }
    }
    let _ = said.send(Said::Ended(index));
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
