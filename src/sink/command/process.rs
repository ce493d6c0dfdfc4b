//! Runs a program once: bytes on its standard input, what it says taken up to a limit, its whole process group killed
//! at the deadline and at the end of the server.
//!
//! The program starts with `posix_spawn`, which does not copy the server's memory: nothing here may ask for what makes the
//! standard library fork instead (a closure before exec, another user). Threads that wait for programs are those for
//! blocking work, and there are never more than [`AT_ONCE`] of them. Knows nothing of credentials and never logs.

use std::ffi::OsString;
use std::fs::File;
use std::io::{self, Read as _};
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::PathBuf;
use std::process::{Child, Command, ExitStatus};
use std::time::Duration;

use parking_lot::Mutex;
use rustix::process::{Pid, Signal, WaitId, WaitIdOptions, kill_process_group, waitid};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::unix::pipe;
use tokio::sync::{Semaphore, oneshot};

use super::super::backend::WritePermit;

/// Programs that run at once, over all sinks of the process.
pub const AT_ONCE: usize = 4;
pub const OUTPUT_BYTES_MAX: usize = 4096;
/// All that a program finds in its environment, where this process has it itself.
const ENVIRONMENT: [&str; 2] = ["PATH", "TZ"];
/// A killed program is waited for this long. One that hangs in the kernel keeps its permit until it is gone.
const KILLED_WAIT: Duration = Duration::from_secs(1);

pub static PERMITS: Semaphore = Semaphore::const_new(AT_ONCE);
/// The groups whose leaders are not waited for yet; none once the server ends, and nothing may start any more.
static RUNNING: Mutex<Option<Vec<Pid>>> = Mutex::new(Some(Vec::new()));

#[derive(Debug)]
pub struct Program {
    /// Absolute: it is not searched for.
    pub path: PathBuf,
    pub arguments: Vec<OsString>,
    pub timeout: Duration,
}

#[derive(Debug)]
pub struct ProgramOutcome {
    pub end: ProgramEnd,
    /// What it has written to its standard output and standard error, cut at [`OUTPUT_BYTES_MAX`].
    pub output: Vec<u8>,
}

#[derive(Debug)]
pub enum ProgramEnd {
    Code(i32),
    /// Killed by that signal, not by us.
    Signal(i32),
    /// Not done at its deadline, and killed.
    Timeout,
    NotStarted(io::Error),
}

/// Runs it. Given up in the middle, its group is killed. The permit is kept until the program is gone.
pub async fn run(permit: Option<WritePermit>, program: &Program, input: &[u8]) -> ProgramOutcome {
    let mut output = Vec::new();
    let deadline = tokio::time::sleep(program.timeout);
    tokio::pin!(deadline);
    let (started, ended) = start(permit, command(program));
    let started = tokio::select! {
        started = started => started.unwrap_or_else(|_| Err(io::Error::other("its thread is gone"))),
        // The thread kills it once it has started.
        () = &mut deadline => return ProgramOutcome { end: ProgramEnd::Timeout, output },
    };
    let (group, input_end, mut output_end) = match started {
        Ok(parts) => parts,
        Err(error) => return ProgramOutcome { end: ProgramEnd::NotStarted(error), output },
    };
    let mut ended = std::pin::pin!(ended);
    let in_time = {
        let talking = async {
            tokio::join!(write_input(input_end, input), read(&mut output_end, &mut output));
            // It may close both and work on.
            std::future::pending::<()>().await;
        };
        tokio::select! {
            status = &mut ended => Some(status),
            () = talking => None,
            () = &mut deadline => None,
        }
    };
    let end = match in_time {
        Some(Ok(status)) => end_of(status),
        Some(Err(_)) => ProgramEnd::NotStarted(io::Error::other("its thread is gone")),
        None => {
            drop(group);
            let _ = tokio::time::timeout(KILLED_WAIT, ended).await;
            ProgramEnd::Timeout
        }
    };
    take_rest(output_end, &mut output);
    ProgramOutcome { end, output }
}

/// Kills every program that runs, with all it has started, and lets no other start.
pub fn kill_all() {
    RUNNING.lock().take().into_iter().flatten().for_each(kill);
}

/// Closes what this process was given open besides the standard streams, which programs would get too. What Rust opens
/// is not handed on.
pub fn close_inherited() -> io::Result<()> {
    for entry in std::fs::read_dir("/proc/self/fdinfo")? {
        let entry = entry?;
        let Some(number) = entry.file_name().to_str().and_then(|name| name.parse::<i32>().ok()) else { continue };
        // That of the listing itself is gone or is not handed on.
        let Ok(text) = std::fs::read_to_string(entry.path()) else { continue };
        if number > 2 && is_handed_on(&text) {
            nix::unistd::close(number)?;
        }
    }
    Ok(())
}

/// By the `flags` in octal that the kernel shows of a descriptor.
fn is_handed_on(fdinfo: &str) -> bool {
    let flags = fdinfo.lines().find_map(|line| line.strip_prefix("flags:"));
    let flags = flags.and_then(|flags| u32::from_str_radix(flags.trim(), 8).ok());
    flags.is_some_and(|flags| flags & rustix::fs::OFlags::CLOEXEC.bits() == 0)
}

fn command(program: &Program) -> Command {
    let mut command = Command::new(&program.path);
    command.args(&program.arguments).env_clear().current_dir("/").process_group(0);
    for name in ENVIRONMENT {
        if let Some(value) = std::env::var_os(name) {
            command.env(name, value);
        }
    }
    command
}

/// A program that has started, and the server's ends of its pipes.
type Started = (ProcessGroup, pipe::Sender, pipe::Receiver);

/// Kills its process group when dropped, if the program has not ended before.
struct ProcessGroup(Pid);

impl Drop for ProcessGroup {
    fn drop(&mut self) {
        let running = RUNNING.lock();
        // Once its leader is waited for, its number may be another's.
        if running.as_ref().is_some_and(|groups| groups.contains(&self.0)) {
            kill(self.0);
        }
    }
}

fn kill(group: Pid) {
    // The one error is that none of it is left.
    let _ = kill_process_group(group, Signal::KILL);
}

type Starting = oneshot::Receiver<io::Result<Started>>;

/// Starts it on a thread that may block, which then waits for it.
fn start(permit: Option<WritePermit>, command: Command) -> (Starting, oneshot::Receiver<ExitStatus>) {
    let (tell_started, started) = oneshot::channel();
    let (tell_ended, ended) = oneshot::channel();
    tokio::task::spawn_blocking(move || {
        let _permit = permit;
        match spawn(command) {
            Ok((child, started)) => {
                // Nobody waits for it any more: then this drops, and kills, the group.
                drop(tell_started.send(Ok(started)));
                if let Ok(status) = wait(child) {
                    let _ = tell_ended.send(status);
                }
            }
            Err(error) => drop(tell_started.send(Err(error))),
        }
    });
    (started, ended)
}

fn spawn(mut command: Command) -> io::Result<(Child, Started)> {
    let (read_input, input) = io::pipe()?;
    let (output, write_output) = io::pipe()?;
    let input = pipe::Sender::from_owned_fd(input.into())?;
    let output = pipe::Receiver::from_owned_fd(output.into())?;
    command.stdin(read_input).stdout(write_output.try_clone()?).stderr(write_output);
    if RUNNING.lock().is_none() {
        return Err(io::Error::other("the server ends"));
    }
    let child = command.spawn()?;
    let group = Pid::from_child(&child);
    match &mut *RUNNING.lock() {
        Some(groups) => groups.push(group),
        None => kill(group),
    }
    Ok((child, (ProcessGroup(group), input, output)))
}

/// Waits for the program, then kills what it has left behind.
fn wait(mut child: Child) -> io::Result<ExitStatus> {
    let group = Pid::from_child(&child);
    // Its number stays its own until it is waited for without this flag.
    let options = WaitIdOptions::EXITED | WaitIdOptions::NOWAIT;
    while let Err(rustix::io::Errno::INTR) = waitid(WaitId::Pid(group), options) {}
    let mut running = RUNNING.lock();
    kill(group);
    running.iter_mut().for_each(|groups| groups.retain(|other| *other != group));
    drop(running);
    let status = child.wait();
    // The first process of a container inherits what others have left behind, and nobody else waits for it.
    if std::process::id() == 1 {
        while waitid(WaitId::Pgid(Some(group)), WaitIdOptions::EXITED).is_ok() {}
    }
    status
}

fn end_of(status: ExitStatus) -> ProgramEnd {
    match (status.code(), status.signal()) {
        (Some(code), _) => ProgramEnd::Code(code),
        (None, signal) => ProgramEnd::Signal(signal.unwrap_or(0)),
    }
}

/// Writes it all, then closes. A program need not read it.
async fn write_input(mut input_end: pipe::Sender, input: &[u8]) {
    let _ = input_end.write_all(input).await;
}

/// Reads to the end, and keeps the beginning.
async fn read(output_end: &mut pipe::Receiver, output: &mut Vec<u8>) {
    let _ = output_end.take(OUTPUT_BYTES_MAX as u64).read_to_end(output).await;
    let _ = tokio::io::copy(output_end, &mut tokio::io::sink()).await;
}

/// What is there already: a program that has left its group may keep the pipe open for ever. The pipe itself is asked, for
/// the runtime may not have heard of the last words yet.
fn take_rest(output_end: pipe::Receiver, output: &mut Vec<u8>) {
    let room = OUTPUT_BYTES_MAX.saturating_sub(output.len());
    if let Ok(output_end) = output_end.into_nonblocking_fd() {
        let _ = File::from(output_end).take(room as u64).read_to_end(output);
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;
    use std::path::Path;

    use super::*;

    const LONG: Duration = Duration::from_secs(60);

    fn shell(script: &str, timeout: Duration) -> Program {
        let arguments = ["-c", script].map(OsString::from).to_vec();
        Program { path: "/bin/sh".into(), arguments, timeout }
    }

    async fn run_shell(script: &str, input: &[u8]) -> ProgramOutcome {
        run(None, &shell(script, LONG), input).await
    }

    fn text(outcome: &ProgramOutcome) -> &str {
        std::str::from_utf8(&outcome.output).unwrap()
    }

    /// The state letter of a process; none if it is gone.
    fn state(pid: &str) -> Option<char> {
        let status = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
        status.rsplit(") ").next()?.chars().next()
    }

    async fn await_end(pid: &str) {
        while !matches!(state(pid), None | Some('Z' | 'X')) {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }

    #[tokio::test]
    async fn last_words_that_the_runtime_has_not_heard_of_are_kept() {
        let (output, mut said) = io::pipe().unwrap();
        let output_end = pipe::Receiver::from_owned_fd(output.into()).unwrap();
        io::Write::write_all(&mut said, b"last words").unwrap();
        let mut kept = Vec::new();
        take_rest(output_end, &mut kept);
        assert_eq!(kept, b"last words");
    }

    #[tokio::test]
    async fn the_program_reads_its_input_to_the_end_and_both_outputs_are_kept() {
        let outcome = run_shell("cat; echo out; echo err >&2; exit 3", b"a value\n").await;
        assert!(matches!(outcome.end, ProgramEnd::Code(3)), "{outcome:?}");
        assert_eq!(text(&outcome), "a value\nout\nerr\n");
    }

    #[tokio::test]
    async fn a_program_need_not_read_and_may_say_more_than_is_kept() {
        // More than a pipe holds, in both directions.
        let script = "head -c 300000 /dev/zero | tr '\\0' x; kill -9 $$";
        let outcome = run_shell(script, &vec![b'v'; 1 << 20]).await;
        assert!(matches!(outcome.end, ProgramEnd::Signal(9)), "{outcome:?}");
        assert_eq!(outcome.output, [b'x'; OUTPUT_BYTES_MAX]);
    }

    #[tokio::test]
    async fn the_environment_is_path_and_zone_and_the_folder_is_the_root() {
        let outcome = run_shell("/usr/bin/env; pwd", b"").await;
        let mut lines: Vec<&str> = text(&outcome).lines().collect();
        assert_eq!(lines.pop(), Some("/"));
        // A shell adds its own.
        let own = ["PATH=", "TZ=", "PWD=", "OLDPWD=", "SHLVL=", "_="];
        assert!(lines.iter().all(|line| own.iter().any(|own| line.starts_with(own))), "{lines:?}");
        assert!(lines.iter().any(|line| line.starts_with("PATH=")), "{lines:?}");
    }

    #[tokio::test]
    async fn at_the_deadline_everything_it_has_started_is_killed() {
        let script = "trap '' TERM; (trap '' TERM; sleep 1000; sleep 1000) & echo $!; wait";
        let program = shell(script, Duration::from_millis(300));
        let outcome = run(None, &program, b"").await;
        assert!(matches!(outcome.end, ProgramEnd::Timeout), "{outcome:?}");
        await_end(text(&outcome).trim()).await;
    }

    #[tokio::test]
    async fn what_a_program_leaves_behind_is_killed_when_it_ends() {
        let outcome = run_shell("sleep 1000 & echo $!", b"").await;
        assert!(matches!(outcome.end, ProgramEnd::Code(0)), "{outcome:?}");
        await_end(text(&outcome).trim()).await;
    }

    #[tokio::test]
    async fn a_program_that_has_left_its_group_and_holds_the_output_is_not_waited_for() {
        let outcome = run_shell("setsid sleep 1000 & echo $!", b"").await;
        assert!(matches!(outcome.end, ProgramEnd::Code(0)), "{outcome:?}");
        let stray = text(&outcome).trim();
        let _ = rustix::process::kill_process(Pid::from_raw(stray.parse().unwrap()).unwrap(), Signal::KILL);
    }

    #[tokio::test]
    async fn a_run_that_is_given_up_is_killed() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("pid");
        let script = format!("echo $$ > {}; exec sleep 1000", file.display());
        let program = shell(&script, LONG);
        let pid = async {
            loop {
                match std::fs::read_to_string(&file) {
                    Ok(pid) if pid.ends_with('\n') => return pid,
                    _ => tokio::time::sleep(Duration::from_millis(5)).await,
                }
            }
        };
        let pid = tokio::select! {
            pid = pid => pid,
            outcome = run(None, &program, b"") => panic!("{outcome:?}"),
        };
        await_end(pid.trim()).await;
    }

    #[tokio::test]
    async fn what_cannot_be_started_says_why() {
        let folder = tempfile::tempdir().unwrap();
        let write = |name: &str, text: &str, mode: u32| {
            let path = folder.path().join(name);
            std::fs::write(&path, text).unwrap();
            std::fs::set_permissions(&path, std::fs::Permissions::from_mode(mode)).unwrap();
            path
        };
        let kind = async |path: &Path| {
            let program = Program { path: path.to_owned(), arguments: Vec::new(), timeout: LONG };
            match run(None, &program, b"").await.end {
                ProgramEnd::NotStarted(error) => error.kind(),
                end => panic!("{end:?}"),
            }
        };
        assert_eq!(kind(&folder.path().join("none")).await, io::ErrorKind::NotFound);
        assert_eq!(kind(&write("plain", "#!/bin/sh\n", 0o600)).await, io::ErrorKind::PermissionDenied);
        assert_eq!(kind(&write("lost", "#!/no/such/interpreter\n", 0o700)).await, io::ErrorKind::NotFound);
    }

    #[test]
    fn what_is_handed_on_is_told_by_the_flags() {
        assert!(is_handed_on("pos:\t0\nflags:\t0100002\nmnt_id:\t15\n"));
        assert!(!is_handed_on("pos:\t0\nflags:\t02100002\nmnt_id:\t15\n"));
        assert!(!is_handed_on("nothing of the kind"));
    }
}
