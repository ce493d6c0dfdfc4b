//! `[[sink]]` tables with `command`: the program that is handed each value, and the words it is called with.
//!
//! Only the configuration file can name a program, and neither it nor the program may be others' to change.

use std::path::PathBuf;

use super::reader::{RawTable, Reader};
use super::sinks::Made;
use crate::files::trusted;
use crate::raw_value::{Given, Place, RawValue, kind, text};
use crate::sink::keys::Scope;
use crate::sink::options::{SinkCommand, SinkTo};
use crate::sink::validate::{judge_argument, judge_program};

impl Reader<'_> {
    pub(super) fn command_sink(&mut self, table: &RawTable, scope: Option<&Scope<'_>>) -> Option<Made> {
        let given = table.get("command")?;
        let command = self.command(table, given);
        self.judge_file(table, &given.place);
        let timeout_ms = self.value::<u64>(table, "timeout_s") * 1000;
        let what = "a command cannot be looked into and has no keys";
        self.refuse_keys(table, ["presets", "check_every_s"], what, "Remove it.");
        let (program, arguments) = command?;
        let words = std::iter::once(program.to_string_lossy().into_owned()).chain(arguments.iter().cloned());
        table.print("command", words.collect::<Vec<_>>());
        let entries = scope?.credentials();
        let places = vec![given.place.clone(); entries.len()];
        Some(Made { to: SinkTo::Command(SinkCommand { program, arguments, timeout_ms }), entries, places })
    }

    /// The program and its arguments; every fault in them at once.
    fn command(&mut self, table: &RawTable, given: &Given) -> Option<(PathBuf, Vec<String>)> {
        let what = match &given.value {
            RawValue::List(items) if items.is_empty() => "the list is empty".to_owned(),
            RawValue::List(items) => {
                let is_first = |item: &Given| items.first().is_some_and(|first| std::ptr::eq(first, item));
                let words = self.items(table, "command", "", |item| {
                    let word = text(&item.value)?;
                    (if is_first(item) { judge_program } else { judge_argument })(word).map(|()| word.to_owned())
                });
                let all = (words.len() == items.len()).then_some(words)?;
                let mut words = all.into_iter().map(|(word, _)| word);
                return Some((words.next()?.into(), words.collect()));
            }
            other => format!("{} is not a list; there is no shell to take it apart", kind(other)),
        };
        let example = "Write command = [\"/usr/local/sbin/put-token\", \"{appid}\", \"{type}\"].";
        self.refuse((table, "command"), what, example);
        None
    }

    /// Whoever can write the file that names a program can run any.
    fn judge_file(&mut self, table: &RawTable, place: &Place) {
        let Place::Line { file, .. } = place else {
            let remedy = "Write the [[sink]] into the file that is given to --config.";
            return self.refuse((table, "command"), "a command is taken from the configuration file only", remedy);
        };
        if let Err(why) = trusted::judge(file) {
            self.refuse((table, "command"), format!("others could change which command is run: {why}"), why.remedy());
        }
    }
}
