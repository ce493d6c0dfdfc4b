//! The sink that runs a program for each value: the value on its standard input, the app in its arguments.
//!
//! The program runs when a value changes, at most four at once over all sinks. Its work cannot be read back, so nothing is
//! checked. It is not run when there is no value any more; its arguments say when the value ends. Its output goes to the
//! log, without the value.

mod output;
mod process;

use std::io;
use std::path::Path;
use std::time::Duration;

use rustix::io::Errno;
use tokio::sync::Semaphore;
use tracing::info;

use self::process::{Program, ProgramEnd, ProgramOutcome};
use super::backend::{Contents, CredentialWrite, CurrentValue, SinkAnswer, SinkBackend};
use super::options::{SinkCommand, SinkEntry};
use super::template::{Placeholder, fill_words};
use crate::clock::{LogThrottle, boot_ms};
use crate::descriptors;
use crate::encoding::key_words::current_word;
use crate::files::trusted;
use crate::store_fault::{StoreFault, StoreFaultScope};

pub use self::process::kill_all;

/// The output of programs is logged at most so often, for each sink.
const LOG_OUTPUT_EVERY_MS: u64 = 1000;

pub(super) struct CommandBackend {
    config: SinkCommand,
    log: LogThrottle,
}

impl CommandBackend {
    pub fn new(config: SinkCommand) -> CommandBackend {
        if let Err(error) = process::close_inherited() {
            tracing::warn!(%error, "cannot list the inherited file descriptors; commands will inherit them too");
        }
        CommandBackend { config, log: LogThrottle::default() }
    }

    async fn judge(&self) -> Result<(), StoreFault> {
        let path = self.config.program.clone();
        match tokio::task::spawn_blocking(move || trusted::judge(&path)).await {
            Ok(Ok(())) => Ok(()),
            Ok(Err(why)) => Err(untrusted(&why)),
            Err(_) => Err(fault_of(&io::Error::other("its thread is gone"), &self.config.program)),
        }
    }

    async fn run(&self, write: &CredentialWrite, entry: &SinkEntry, content: &[u8]) -> Result<(), StoreFault> {
        // Somebody else may have changed the program since the start.
        self.judge().await?;
        let program = Program {
            path: self.config.program.clone(),
            arguments: self.config.arguments.iter().map(|word| fill(word, entry, &write.current).into()).collect(),
            timeout: Duration::from_millis(self.config.timeout_ms),
        };
        let outcome = process::run(write.permit.clone(), &program, content).await;
        self.log_output(entry, &outcome, &[content, &write.current.value]);
        judge_end(&outcome.end, &self.config)
    }

    fn log_output(&self, entry: &SinkEntry, outcome: &ProgramOutcome, values: &[&[u8]]) {
        if outcome.output.is_empty() || !self.log.allow(boot_ms(), LOG_OUTPUT_EVERY_MS) {
            return;
        }
        let output = output::scrub(&outcome.output, values);
        let about = entry.managed_key();
        info!(sink = %self.config.program.display(), about, output, "command output");
    }
}

impl SinkBackend for CommandBackend {
    fn open(&self) -> SinkAnswer<'_, ()> {
        Box::pin(self.judge())
    }

    fn may_have_lost(&self) -> bool {
        false
    }

    fn limit(&self) -> Option<&'static Semaphore> {
        Some(&process::PERMITS)
    }

    fn write<'a>(&'a self, write: &'a CredentialWrite) -> SinkAnswer<'a, Contents> {
        Box::pin(async {
            for (entry, content) in write.entries.iter().zip(&write.contents) {
                self.run(write, entry, content).await?;
            }
            Ok(vec![None; write.entries.len()])
        })
    }
}

/// An argument with what its placeholders stand for.
fn fill(word: &str, entry: &SinkEntry, current: &CurrentValue) -> String {
    fill_words(word, |word| {
        let known = Some(word).filter(|word| SinkCommand::WORDS.contains(&current_word(word)));
        current.shown(entry, Placeholder::of_word(known?)?)
    })
}

fn judge_end(end: &ProgramEnd, config: &SinkCommand) -> Result<(), StoreFault> {
    const ADVICE: &str = "see what it has said in the log, and try it by hand as the server's user: echo test | the command; \
                          it is run again by and by";
    let fault = |class, what: String, advice| Err(StoreFault::of_entry(class, what, advice));
    match end {
        ProgramEnd::Code(0) => Ok(()),
        ProgramEnd::Code(code) => fault("exit", format!("the command ended with code {code}"), ADVICE),
        ProgramEnd::Signal(signal) => fault("signal", format!("the command was ended by signal {signal}"), ADVICE),
        ProgramEnd::Timeout => {
            let what = format!("the command had not ended after {} s and was killed", config.timeout_ms / 1000);
            fault("timeout", what, "see what it waits for, or raise timeout_s")
        }
        ProgramEnd::NotStarted(error) => Err(fault_of(error, &config.program)),
    }
}

fn untrusted(why: &trusted::Untrusted) -> StoreFault {
    let (class, what) = match why {
        trusted::Untrusted::Unseen { error, .. } if error.kind() == io::ErrorKind::NotFound => {
            ("not_found", format!("the command is not there: {why}"))
        }
        trusted::Untrusted::Unseen { .. } => ("permission", format!("the command cannot be run: {why}")),
        _ => ("untrusted", format!("others could change the command: {why}")),
    };
    StoreFault { class, what: what.into(), advice: why.remedy().into(), scope: StoreFaultScope::Backend }
}

fn fault_of(error: &io::Error, program: &Path) -> StoreFault {
    let (class, advice) = match error.raw_os_error().map(Errno::from_raw_os_error) {
        Some(Errno::NOENT) => {
            ("not_found", "if it is there, what stands behind #! in its first line is not: install that")
        }
        Some(Errno::ACCESS | Errno::PERM) => (
            "permission",
            "make it executable (chmod a+x), and see that the unit and the disk it is on (noexec) let it run",
        ),
        Some(Errno::NOEXEC) => {
            ("format", "a script needs #!/bin/sh or the like in its first line; a binary must be for this machine")
        }
        Some(Errno::MFILE | Errno::NFILE) => ("descriptors", descriptors::REMEDY),
        Some(Errno::AGAIN | Errno::NOMEM) => {
            ("resources", "nothing, if it passes; else raise TasksMax= and MemoryMax= in the unit, or ulimit -u")
        }
        Some(Errno::TXTBSY) => ("busy", "nothing, if it passes: somebody is writing the program's file"),
        _ => ("other", "see the system's log"),
    };
    let scope = if class == "descriptors" { StoreFaultScope::Descriptors } else { StoreFaultScope::Backend };
    let what = format!("the command {} cannot be started: {error}", program.display());
    StoreFault { class, what: what.into(), advice: advice.into(), scope }
}
