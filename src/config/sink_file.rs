//! `[[sink]]` tables with `file`: which files, and what stands in them.
//!
//! No path is built from anything but the configuration and names that are letters, digits, `_` and `-`. Judges paths
//! and opens nothing.

use std::path::Path;

use super::fault::{Place, SettingProblem};
use super::reader::{RawTable, Reader, toml_text, toml_texts};
use super::sinks::Made;
use super::value::{Given, RawValue, ReadResult, closest, path, quoted, text};
use super::views::Fields;
use super::{CredentialName, SinkFile, SinkTo, View};
use crate::encoding::key_words::known_words;
use crate::encoding::request::form_as_toml;
use crate::encoding::{Fact, Form};
use crate::sink::file_presets::{FILE_PRESETS, FilePreset, Layout};
use crate::sink::files::{self, FileContent};
use crate::sink::keys::Scope;
use crate::sink::template::{Escape, Source, TimeShown, time};

const VIEW_KEYS: &[&str] = &["encoding", "fields", "shows"];
const PATH_BYTES_MAX: usize = 4000;
/// A reader is told of at least so many rounds of writing.
const ROUNDS_TOLD: u64 = 3;

impl Reader<'_> {
    pub(super) fn file_sink(
        &mut self,
        table: &RawTable,
        scope: Option<&Scope<'_>>,
        rewrite_every_ms: u64,
    ) -> Option<Made> {
        let file = self.placed(table, "file", file_path).map(|(path, _)| path);
        file.iter().for_each(|path| table.print("file", toml_text(path)));
        let mode = self.mode(table, "mode").unwrap_or_default();
        let at_least = self.number_if_any(table, "at_least");
        let at_least = at_least.unwrap_or((rewrite_every_ms / 1000 * ROUNDS_TOLD).min(86_400));
        table.print("at_least", at_least.to_string());
        let mtime = self.read(table, "mtime", file_time);
        mtime.iter().for_each(|TimeShown { fact, add }| {
            let add = if *add == 0 { String::new() } else { format!("{add:+}") };
            table.print("mtime", toml_text(&format!("{{{}{add}}}", fact.word())));
        });
        let content = self.file_content(table)?;
        let (path, scope) = (file?, scope?);
        let (entries, fault) = files::entries(&path, &content, scope);
        fault.into_iter().for_each(|fault| self.fault(table, "file", fault.into()));
        let place = table.place_of("file");
        self.warnings.extend(files::exposure(&path, &entries).map(|warning| format!("{place}: {warning}")));
        let places = vec![place.clone(); entries.len()];
        let at_least_s = u32::try_from(at_least).unwrap_or(u32::MAX);
        Some(Made { to: SinkTo::File(SinkFile { path, mode, at_least_s, mtime }), entries, places })
    }

    /// What is in the files.
    fn file_content(&mut self, table: &RawTable) -> Option<FileContent> {
        let escape = table.has("escape").then(|| self.word(table, "escape", &Escape::WORDS)).flatten();
        let preset = self.file_preset(table);
        let given: Vec<&str> = ["presets", "template", "encoding"].into_iter().filter(|key| table.has(key)).collect();
        if let [first, second, ..] = given[..] {
            let what = format!("{first} and {second} say both what is in the file");
            self.fault_at(table, "file", SettingProblem::new(what, "Keep one of the two."), &table.place);
            return None;
        }
        if table.has("escape") && !table.has("template") {
            let problem = SettingProblem::new("there is no template whose value it could escape", "Remove it.");
            self.fault(table, "escape", problem);
        }
        if table.has("presets") {
            let preset = preset?;
            table.print("presets", toml_texts([preset.name]));
            return match preset.layout {
                Layout::Text(text, escape) => Source::new(text, escape).ok().map(FileContent::Template),
                Layout::NamedArray => Some(FileContent::NamedArray),
            };
        }
        if table.has("template") {
            let escape = escape.unwrap_or(Escape::None);
            let source = self.read(table, "template", |value| Ok(Source::new(text(value)?, escape)?))?;
            table.print("template", toml_text(source.text()));
            table.print("escape", toml_text(escape.word()));
            return Some(FileContent::Template(source));
        }
        let views = self.file_views(table)?;
        let form = views.first().map(|(_, view)| form_as_toml(&view.form, toml_text)).unwrap_or_default();
        // Each type has names of its own for the usual fields.
        let (form, fields) = form.split_once(", fields = ").unwrap_or((&form, ""));
        for line in form.split(", ").filter_map(|line| line.split_once(" = ")) {
            table.print(line.0, line.1);
        }
        if table.has("fields") {
            table.print("fields", fields);
        }
        Some(FileContent::Views(views))
    }

    /// One preset and no more: a file has one content.
    fn file_preset(&mut self, table: &RawTable) -> Option<&'static FilePreset> {
        match self.list(table, "presets", "presets = [\"jssdk\"]") {
            [] => None,
            [one] => {
                let preset = file_preset(&one.value);
                preset.map_err(|problem| self.fault_at(table, "presets", problem, &one.place)).ok()
            }
            [_, second, ..] => {
                let problem = SettingProblem::new("a file has the content of one preset", "Write a [[sink]] for each.");
                self.fault_at(table, "presets", problem, &second.place);
                None
            }
        }
    }

    /// What an alias with these fields would answer with.
    fn file_views(&mut self, table: &RawTable) -> Option<Vec<(CredentialName, View)>> {
        let given: Vec<(&str, &Given)> = VIEW_KEYS.iter().filter_map(|key| Some((*key, table.get(key)?))).collect();
        let fields = Fields::of_these(given);
        let view = |of: CredentialName| Ok((of, fields.view(of, &table.place)?));
        let views: Result<Vec<_>, (SettingProblem, Place)> = CredentialName::ALL.into_iter().map(view).collect();
        match views {
            Ok(views) if views.iter().any(|(_, view)| view.form == Form::Nothing) => {
                let problem = SettingProblem::new("a file has something in it", "Remove shows.");
                self.fault_at(table, "shows", problem, &table.place);
                None
            }
            Ok(views) => Some(views),
            Err((problem, place)) => {
                self.fault_at(table, "encoding", problem, &place);
                None
            }
        }
    }
}

fn file_preset(value: &RawValue) -> ReadResult<&'static FilePreset> {
    let name = text(value)?;
    FILE_PRESETS.iter().find(|preset| preset.name == name).ok_or_else(|| {
        let names = || FILE_PRESETS.iter().map(|preset| preset.name);
        let remedy = match closest(name, names()) {
            Some(close) => format!("Did you mean {close:?}?"),
            None => format!("Known for files are {}.", names().collect::<Vec<_>>().join(", ")),
        };
        SettingProblem::new(format!("{} is not known", quoted(name)), remedy)
    })
}

fn file_path(value: &RawValue, base: &Path) -> ReadResult<String> {
    let given = text(value)?;
    known_words(given, &["appid", "id", "type", "name"])?;
    let remedy = "Write a path such as \"/var/www/site/cache/{type}.php\".";
    if given.ends_with('/') || given.bytes().any(|byte| byte < b' ' || byte == 0x7f) {
        return Err(SettingProblem::new(format!("{} is not the path of a file", quoted(given)), remedy));
    }
    let path = path(value, base)?;
    match path.to_str() {
        Some(path) if path.len() <= PATH_BYTES_MAX => Ok(path.to_owned()),
        _ => Err(SettingProblem::new("the path is too long, or not UTF-8", remedy)),
    }
}

fn file_time(value: &RawValue) -> ReadResult<TimeShown> {
    let remedy = "Write mtime = \"{expires_at-7200}\", with the lifetime that the script takes a file for good.";
    match time(text(value)?) {
        Some(time) if matches!(time.fact, Fact::ExpiresAt | Fact::FetchedAt) => Ok(time),
        _ => Err(SettingProblem::new("it is not a time in seconds since 1970", remedy)),
    }
}
