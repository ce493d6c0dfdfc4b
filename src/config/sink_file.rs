//! `[[sink]]` tables with `file`: which files, and what stands in them.
//!
//! No path is built from anything but the configuration and names that are letters, digits, `_` and `-`. Judges paths
//! and opens nothing.

use super::reader::{RawTable, Reader};
use super::sinks::Made;
use super::value::Value;
use crate::encoding::request::form_as_toml;
use crate::encoding::{Form, View};
use crate::invalid_value::wrong;
use crate::platform::CredentialName;
use crate::raw_value::{Fields, Given, named, text};
use crate::sink::file_presets::{FILE_PRESETS, FilePreset};
use crate::sink::files::{self, FileContent};
use crate::sink::keys::{Scope, views};
use crate::sink::options::{SinkFile, SinkTo};
use crate::sink::template::{Escape, Template};
use crate::sink::validate;

const VIEW_KEYS: &[&str] = &["encoding", "fields", "shows"];

impl Reader<'_> {
    pub(super) fn file_sink(
        &mut self,
        table: &RawTable,
        scope: Option<&Scope<'_>>,
        rewrite_every_ms: u64,
    ) -> Option<Made> {
        let file = self.placed(table, "file", |value, base| validate::file_path(text(value)?, base));
        let file = file.map(|(path, _)| path);
        file.iter().for_each(|path| table.print("file", path.clone()));
        let mode = self.value(table, "mode");
        let at_least = self.get(table, "at_least").unwrap_or(SinkFile::default_at_least_s(rewrite_every_ms));
        table.print("at_least", at_least);
        let mtime = self.read(table, "mtime", |value| validate::file_time(text(value)?));
        mtime.iter().for_each(|time| table.print("mtime", time.as_written()));
        let content = self.file_content(table)?;
        let (path, scope) = (file?, scope?);
        let (entries, fault) = files::entries(&path, &content, scope);
        fault.into_iter().for_each(|fault| self.fault((table, "file"), fault));
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
            self.refuse((table, "file", &table.place), what, "Keep one of the two.");
            return None;
        }
        if table.has("escape") && !table.has("template") {
            self.refuse((table, "escape"), "there is no template whose value it could escape", "Remove it.");
        }
        if table.has("presets") {
            let preset = preset?;
            table.print("presets", vec![preset.name]);
            return FileContent::of_preset(preset);
        }
        if table.has("template") {
            let escape = escape.unwrap_or(Escape::None);
            let template = self.read(table, "template", |value| Template::parse(text(value)?, escape))?;
            table.print("template", template.text.as_str());
            table.print("escape", escape.word());
            return Some(FileContent::Template(template.into()));
        }
        let views = self.file_views(table)?;
        let form = views.first().map(|(_, view)| form_as_toml(&view.form)).unwrap_or_default();
        // Each type has names of its own for the usual fields.
        let (form, fields) = form.split_once(", fields = ").unwrap_or((&form, ""));
        for line in form.split(", ").filter_map(|line| line.split_once(" = ")) {
            table.print(line.0, Value::Toml(line.1.to_owned()));
        }
        if table.has("fields") {
            table.print("fields", Value::Toml(fields.to_owned()));
        }
        Some(FileContent::Views(views))
    }

    /// One preset and no more: a file has one content.
    fn file_preset(&mut self, table: &RawTable) -> Option<&'static FilePreset> {
        let items = self.list(table, "presets", "presets = [\"jssdk\"]");
        let preset = match items.get(1) {
            Some(_) => wrong("a file has the content of one preset", "Write a [[sink]] for each."),
            None => named(&items.first()?.value, FILE_PRESETS, |preset| preset.name, "Known for files are"),
        };
        let place = &items.get(1).or(items.first())?.place;
        self.accept((table, "presets", place), preset)
    }

    /// What an alias with these fields would answer with.
    fn file_views(&mut self, table: &RawTable) -> Option<Vec<(CredentialName, View)>> {
        let given: Vec<(&str, &Given)> = VIEW_KEYS.iter().filter_map(|key| Some((*key, table.get(key)?))).collect();
        let views = views(&Fields::of_these(given), &CredentialName::ALL);
        let views = self.accept((table, "encoding", &table.place), views)?;
        if views.iter().any(|(_, view)| view.form == Form::Nothing) {
            self.refuse((table, "shows", &table.place), "a file has something in it", "Remove shows.");
            return None;
        }
        Some(views)
    }
}
