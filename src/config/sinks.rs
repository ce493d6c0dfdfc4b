//! `[[sink]]` tables -> the places of the site's own that what is kept current is written to as well.
//!
//! What a table names says of which type it is: `url`, `file` or `command`. Here is what all types have in common, and
//! the keys of a Redis; `sink_file`, `sink_sql` and `sink_command` read what is theirs. A key may hold an app's secret,
//! as an alias may: it is never shown.

use std::collections::HashSet;

use super::aliases::preset;
use super::reader::{RawTable, Reader};
use super::value::Value;
use crate::credential::App;
use crate::encoding::toml_text::toml_list;
use crate::platform::CredentialName;
use crate::raw_value::{Given, Place, RawValue, text, word};
use crate::sink::keys::{KeyTemplate, Keys, Scope, known_app};
use crate::sink::options::{Options as Sink, SinkEntry, SinkTo};
use crate::sink::sql_address::is_sql;
use crate::sink::validate::written_twice;

/// What is written without `keys` and `presets`: the keys that memcached's clients read here.
const KEY_DEFAULT: &str = "{type}:{id}";

/// The types, by what a table names.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Type {
    Redis,
    Sql,
    File,
    Command,
}

impl Type {
    const NAMING: [&str; 3] = ["url", "file", "command"];

    /// By the key that names the place.
    fn of(table: &RawTable) -> Option<Type> {
        let url = table.get("url").map(|given| match &given.value {
            RawValue::Text(url) if is_sql(url) => Type::Sql,
            _ => Type::Redis,
        });
        url.or(table.has("file").then_some(Type::File)).or(table.has("command").then_some(Type::Command))
    }

    /// The word that the schema has for it, and what people call it.
    fn names(self) -> [&'static str; 2] {
        match self {
            Type::Redis => ["redis", "a Redis"],
            Type::Sql => ["sql", "a database"],
            Type::File => ["file", "a file"],
            Type::Command => ["command", "a command"],
        }
    }
}

/// What a type has read of a table.
pub(super) struct Made {
    pub to: SinkTo,
    pub entries: Vec<SinkEntry>,
    /// Where in the configuration each entry stands.
    pub places: Vec<Place>,
}

impl Reader<'_> {
    /// All sinks.
    pub(super) fn sinks<'a>(&mut self, tables: &[RawTable], apps: impl Iterator<Item = &'a App>) -> Vec<Sink> {
        let apps: Vec<&App> = apps.collect();
        let read = |table| self.sink(table, &apps).map(|(sink, places)| (sink, (table, places)));
        let (sinks, read): (Vec<Sink>, Vec<_>) = tables.iter().filter_map(read).unzip();
        for (at, entry, fault) in written_twice(&sinks) {
            let (table, places) = &read[at];
            let list = if matches!(sinks[at].to, SinkTo::File(_)) { "file" } else { "keys" };
            self.fault((*table, list, &places[entry]), fault);
        }
        sinks
    }

    /// One sink, and where each of its entries stands.
    fn sink(&mut self, table: &RawTable, apps: &[&App]) -> Option<(Sink, Vec<Place>)> {
        let of_type = self.sink_type(table)?;
        let check_every_ms = self.value::<u64>(table, "check_every_s") * 1000;
        if of_type == Type::Command {
            table.forget("check_every_s");
        }
        let rewrite_every_s: u64 = match of_type {
            Type::Command if !table.has("rewrite_every_s") => 0,
            _ => self.value(table, "rewrite_every_s"),
        };
        table.print("rewrite_every_s", rewrite_every_s);
        let rewrite_every_ms = rewrite_every_s * 1000;
        let scope = self.scope(table, apps);
        let made = match of_type {
            Type::Redis => self.redis_sink(table, scope.as_ref()),
            Type::Sql => self.sql_sink(table, scope.as_ref()),
            Type::File => self.file_sink(table, scope.as_ref(), rewrite_every_ms),
            Type::Command => self.command_sink(table, scope.as_ref()),
        };
        let Made { to, entries, places } = made?;
        let sink = Sink { to, entries, check_every_ms, rewrite_every_ms };
        if sink.entries.is_empty() && self.faults.is_empty() {
            self.warnings.push(format!("{}: nothing is kept that this sink would write", table.place));
        }
        if of_type != Type::Redis {
            print_scope(table, &sink.entries);
        }
        Some((sink, places))
    }

    /// One type, and no keys of another.
    fn sink_type(&mut self, table: &RawTable) -> Option<Type> {
        let mut naming = Type::NAMING.into_iter().filter(|key| table.has(key));
        if let (Some(first), Some(second)) = (naming.next(), naming.next()) {
            let what = format!("{first} and {second} name two places");
            self.refuse((table, second), what, "Write a [[sink]] for each.");
            return None;
        }
        let Some(of_type) = Type::of(table) else {
            let remedy =
                "Write url = \"redis://127.0.0.1:6379\", file = \"/path/{appid}.php\" or command = [\"/path\"].";
            self.refuse(table, "a sink has no url, file or command", remedy);
            return None;
        };
        let [word, noun] = of_type.names();
        // A command says itself why it has none of these.
        let is_known = |types: &str, key: &str| {
            types.is_empty()
                || types.split(", ").any(|of| of == word)
                || of_type == Type::Command && ["presets", "check_every_s"].contains(&key)
        };
        for setting in table.section.settings().filter(|setting| table.has(setting.key)) {
            if !is_known(setting.types, setting.key) {
                let remedy = "Remove it, or see which of the table's keys is wrong.";
                self.refuse((table, setting.key), format!("{noun} has no {}", setting.key), remedy);
            }
        }
        Some(of_type)
    }

    fn redis_sink(&mut self, table: &RawTable, scope: Option<&Scope<'_>>) -> Option<Made> {
        if !cfg!(feature = "redis") {
            let remedy = "Use a build with the feature \"redis\", or remove the table.";
            self.refuse(table, "this build cannot write to a Redis", remedy);
            return None;
        }
        let server = self.redis(table, true);
        let ttl_margin_s = self.ttl_margin_s(table);
        let scope = scope?;
        let (templates, given) = self.sink_templates(table, scope);
        let Keys { entries, origins, faults, .. } = Keys::expand(&templates, scope);
        for (at, fault) in faults {
            let list = if templates[at].of_preset.is_some() { "presets" } else { "keys" };
            self.fault((table, list, &given[at]), fault);
        }
        let places = origins.into_iter().map(|at| given[at].clone()).collect();
        table.print("keys", Value::Toml(toml_list(entries.iter().map(SinkEntry::as_toml))));
        Some(Made { to: SinkTo::Redis { server: server?, ttl_margin_s }, entries, places })
    }

    fn ttl_margin_s(&mut self, table: &RawTable) -> Option<u64> {
        let margin_s = self.value(table, "ttl_margin_s");
        if self.word(table, "ttl", &[("left", false), ("none", true)]) != Some(true) {
            return Some(margin_s);
        }
        let what = "there is no time to live to subtract it from";
        self.refuse_keys(table, ["ttl_margin_s"], what, "Remove it, or ttl.");
        table.forget("ttl_margin_s");
        None
    }

    fn scope<'a>(&mut self, table: &RawTable, apps: &[&'a App]) -> Option<Scope<'a>> {
        let before = self.faults.len();
        let all: HashSet<String> = apps.iter().map(|app| app.id()).collect();
        let known = |item: &Given| text(&item.value).and_then(|id| known_app(&all, id).map(|()| id.to_owned()));
        let ids = self.items(table, "apps", "apps = [\"wx0123456789abcdef\"]", known);
        let ids = if table.has("apps") { ids.into_iter().map(|(id, _)| id).collect() } else { all };
        let types = self
            .items(table, "types", "types = [\"access_token\"]", |item| word(&item.value, &CredentialName::words()));
        let types = table.has("types").then(|| types.into_iter().map(|(of, _)| of).collect());
        let apps = apps.iter().copied().filter(|app| ids.contains(&app.id())).collect();
        (self.faults.len() == before).then_some(Scope { apps, ids, types })
    }

    /// The keys as written, then those of the presets; and where each was given.
    fn sink_templates(&mut self, table: &RawTable, scope: &Scope<'_>) -> (Vec<KeyTemplate>, Vec<Place>) {
        let written = self.items(table, "keys", "keys = [\"{type}:{appid}\"]", |item| KeyTemplate::read(item, scope));
        let (mut templates, mut places): (Vec<_>, Vec<_>) =
            written.into_iter().map(|(template, place)| (template, place.clone())).unzip();
        let prefix = self.prefix(table, "key");
        for (preset, place) in self.items(table, "presets", "presets = [\"workerman\"]", |item| preset(&item.value)) {
            templates.extend(KeyTemplate::of_preset(preset, prefix));
            places.resize(templates.len(), place.clone());
        }
        if !table.has("keys") && !table.has("presets") {
            templates.push(KeyTemplate::raw(KEY_DEFAULT));
            places.push(table.place.clone());
        }
        (templates, places)
    }
}

/// Whose credentials a sink is about, and which, for `check --print`.
fn print_scope(table: &RawTable, entries: &[SinkEntry]) {
    let (mut apps, mut types): (Vec<&str>, Vec<&str>) = Default::default();
    for entry in entries {
        // An app's entries stand together.
        if apps.last() != Some(&entry.app.as_str()) {
            apps.push(&entry.app);
        }
        if !types.contains(&entry.of.word()) {
            types.push(entry.of.word());
        }
    }
    table.print("apps", apps);
    table.print("types", types);
}
