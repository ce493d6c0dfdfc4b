//! `[[sink]]` tables with `command`: the program that is handed each value, and the words it is called with.
//!
//! Only the configuration file can name a program, and neither it nor the program may be others' to change. The value
//! is never among the words: every user of the machine can read those.

use std::path::{Path, PathBuf};

use super::fault::{Place, SettingProblem};
use super::reader::{RawTable, Reader, toml_texts};
use super::sinks::Made;
use super::value::{Given, RawValue, ReadResult, kind, quoted, text};
use super::{SinkCommand, SinkTo};
use crate::encoding::key_words::current_word;
use crate::files::trusted::{self, Untrusted};
use crate::invalid_value::quoted_name;
use crate::sink::keys::Scope;

const PLACEHOLDERS: [&str; 5] = ["appid", "id", "type", "expires_at", "expires_in"];
const EXAMPLE: &str = "command = [\"/usr/local/sbin/put-token\", \"{appid}\", \"{type}\"]";

impl Reader<'_> {
    pub(super) fn command_sink(&mut self, table: &RawTable, scope: Option<&Scope<'_>>) -> Option<Made> {
        let given = table.get("command")?;
        let command = self.command(table, given);
        self.judge_file(table, &given.place);
        let timeout_ms = self.number::<u64>(table, "timeout_s") * 1000;
        for key in ["presets", "check_every_s"].into_iter().filter(|key| table.has(key)) {
            self.fault(
                table,
                key,
                SettingProblem::new("a command cannot be looked into and has no keys", "Remove it."),
            );
        }
        let (program, arguments) = command?;
        let words = std::iter::once(program.to_string_lossy().into_owned()).chain(arguments.iter().cloned());
        table.print("command", toml_texts(words));
        let entries = scope?.credentials();
        let places = vec![given.place.clone(); entries.len()];
        Some(Made { to: SinkTo::Command(SinkCommand { program, arguments, timeout_ms }), entries, places })
    }

    /// The program and its arguments; every fault in them at once.
    fn command(&mut self, table: &RawTable, given: &Given) -> Option<(PathBuf, Vec<String>)> {
        let items = match &given.value {
            RawValue::List(items) if !items.is_empty() => items,
            other => {
                let what = match other {
                    RawValue::List(_) => "the list is empty".to_owned(),
                    other => format!("{} is not a list; there is no shell to take it apart", kind(other)),
                };
                self.fault_at(table, "command", SettingProblem::new(what, format!("Write {EXAMPLE}.")), &given.place);
                return None;
            }
        };
        let mut words = Vec::new();
        for (at, item) in items.iter().enumerate() {
            let word = text(&item.value).and_then(|word| if at == 0 { program(word) } else { argument(word) });
            match word {
                Ok(word) => words.push(word.to_owned()),
                Err(problem) => self.fault_at(table, "command", problem, &item.place),
            }
        }
        let mut words = (words.len() == items.len()).then_some(words)?.into_iter();
        Some((words.next()?.into(), words.collect()))
    }

    /// Whoever can write the file that names a program can run any.
    fn judge_file(&mut self, table: &RawTable, place: &Place) {
        let Place::Line { file, .. } = place else {
            let remedy = "Write the [[sink]] into the file that is given to --config.";
            let problem = SettingProblem::new("a command is taken from the configuration file only", remedy);
            return self.fault_at(table, "command", problem, place);
        };
        if let Err(why) = trusted::judge(file) {
            let what = format!("others could change which command is run: {why}");
            self.fault_at(table, "command", SettingProblem::new(what, why.remedy()), place);
        }
    }
}

fn program(word: &str) -> ReadResult<&str> {
    let path = Path::new(word);
    if word.contains('{') || !path.is_absolute() {
        let what = format!("{} is not the path of a program", quoted(word));
        return Err(SettingProblem::new(what, "Give it in full, beginning with a /, without placeholders."));
    }
    match trusted::judge(path) {
        Ok(()) => {}
        Err(why @ Untrusted::Unseen { .. }) => {
            return Err(SettingProblem::new(format!("the program cannot be run: {why}"), why.remedy()));
        }
        Err(why) => return Err(SettingProblem::new(format!("others could change the program: {why}"), why.remedy())),
    }
    if rustix::fs::access(path, rustix::fs::Access::EXEC_OK).is_err() {
        let remedy = format!("Make it one: chmod a+x {}.", path.display());
        return Err(SettingProblem::new(format!("{} is not executable", quoted(word)), remedy));
    }
    Ok(word)
}

fn argument(word: &str) -> ReadResult<&str> {
    for rest in word.split('{').skip(1) {
        let Some((inner, _)) = rest.split_once('}') else { continue };
        if inner == "value" {
            let what = "{value} would show the value to every user of the machine, who can list arguments";
            return Err(SettingProblem::new(what, "Remove it: the program reads the value from its standard input."));
        }
        let is_word = !inner.is_empty() && inner.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_');
        if is_word && !PLACEHOLDERS.contains(&current_word(inner)) {
            let what = format!("{{{}}} is not known in an argument", quoted_name(inner).trim_matches('"'));
            let known = PLACEHOLDERS.map(|word| format!("{{{word}}}")).join(", ");
            return Err(SettingProblem::new(what, format!("Known are {known}.")));
        }
    }
    Ok(word)
}
