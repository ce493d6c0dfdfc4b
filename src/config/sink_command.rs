//! `[[sink]]` tables with `command`: the program that is handed each value, and the words it is called with.
//!
//! Only the configuration file can name a program, and neither it nor the program may be others' to change. The value
//! is never among the words: every user of the machine can read those.

use std::path::{Path, PathBuf};

use super::apps::{Reader, shown};
use super::fault::{Place, Problem};
use super::file::{Document, RawTable};
use super::sinks::{Made, Scope};
use super::value::{Given, Reading, Value, integer, kind, quoted, text};
use super::{SinkCommand, SinkTo};
use crate::files::trusted::{self, Untrusted};

/// The keys of a table beside those that all sinks have.
pub(super) const KEYS: &[&str] = &["command", "timeout_s"];
const PLACEHOLDERS: [&str; 5] = ["appid", "id", "kind", "expires_at", "expires_in"];
const TIMEOUT_S: u64 = 10;
const EXAMPLE: &str = "command = [\"/usr/local/sbin/put-token\", \"{appid}\", \"{kind}\"]";

impl Reader<'_> {
    pub(super) fn command_sink(&mut self, raw: &mut RawTable, _: &Document, scope: Option<&Scope<'_>>) -> Option<Made> {
        let given = raw.fields.get("command")?;
        let command = self.command(given);
        self.judge_file(&given.place);
        let timeout_ms = self.field(raw, "timeout_s", |value| integer(value, 1..=300)).unwrap_or(TIMEOUT_S) * 1000;
        for key in ["presets", "check_every_s"] {
            if let Some(given) = raw.fields.get(key) {
                let problem = Problem::new("a command cannot be looked into and has no keys", "Remove it.");
                self.fault(key, problem, &given.place);
            }
        }
        let (program, arguments) = command?;
        let entries = scope?.credentials();
        let places = vec![given.place.clone(); entries.len()];
        let to = SinkTo::Command(SinkCommand { program, arguments, timeout_ms });
        Some(Made { to, entries, places })
    }

    /// The program and its arguments; every fault in them at once.
    fn command(&mut self, given: &Given) -> Option<(PathBuf, Vec<String>)> {
        let items = match &given.value {
            Value::List(items) if !items.is_empty() => items,
            other => {
                let what = match other {
                    Value::List(_) => "the list is empty".to_owned(),
                    other => format!("{} is not a list; there is no shell to take it apart", kind(other)),
                };
                self.fault("command", Problem::new(what, format!("Write {EXAMPLE}.")), &given.place);
                return None;
            }
        };
        let mut words = Vec::new();
        for (at, item) in items.iter().enumerate() {
            let word = text(&item.value).and_then(|word| if at == 0 { program(word) } else { argument(word) });
            match word {
                Ok(word) => words.push(word.to_owned()),
                Err(problem) => self.fault("command", problem, &item.place),
            }
        }
        let mut words = (words.len() == items.len()).then_some(words)?.into_iter();
        Some((words.next()?.into(), words.collect()))
    }

    /// Whoever can write the file that names a program can run any.
    fn judge_file(&mut self, place: &Place) {
        let Place::Line { file, .. } = place else {
            let remedy = "Write the [[sink]] into the file that is given to --config.";
            let problem = Problem::new("a command is taken from the configuration file only", remedy);
            return self.fault("command", problem, place);
        };
        if let Err(why) = trusted::judge(file) {
            let what = format!("others could change which command is run: {why}");
            self.fault("command", Problem::new(what, why.remedy()), place);
        }
    }
}

fn program(word: &str) -> Reading<&str> {
    let path = Path::new(word);
    if word.contains('{') || !path.is_absolute() {
        let what = format!("{} is not the path of a program", quoted(word));
        return Err(Problem::new(what, "Give it in full, beginning with a /, without placeholders."));
    }
    match trusted::judge(path) {
        Ok(()) => {}
        Err(why @ Untrusted::Unseen { .. }) => {
            return Err(Problem::new(format!("the program cannot be run: {why}"), why.remedy()));
        }
        Err(why) => return Err(Problem::new(format!("others could change the program: {why}"), why.remedy())),
    }
    if rustix::fs::access(path, rustix::fs::Access::EXEC_OK).is_err() {
        let remedy = format!("Make it one: chmod a+x {}.", path.display());
        return Err(Problem::new(format!("{} is not executable", quoted(word)), remedy));
    }
    Ok(word)
}

fn argument(word: &str) -> Reading<&str> {
    for rest in word.split('{').skip(1) {
        let Some((inner, _)) = rest.split_once('}') else { continue };
        if inner == "value" {
            let what = "{value} would show the value to every user of the machine, who can list arguments";
            return Err(Problem::new(what, "Remove it: the program reads the value from its standard input."));
        }
        let is_word = !inner.is_empty() && inner.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_');
        if is_word && !PLACEHOLDERS.contains(&inner) {
            let what = format!("{{{}}} is not known in an argument", shown(inner).trim_matches('"'));
            let known = PLACEHOLDERS.map(|word| format!("{{{word}}}")).join(", ");
            return Err(Problem::new(what, format!("Known are {known}.")));
        }
    }
    Ok(word)
}
