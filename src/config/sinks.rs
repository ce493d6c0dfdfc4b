//! `[[sink]]` tables -> the places of the site's own that what is kept current is written to as well.
//!
//! What a table names says of which type it is: `url`, `file` or `command`. Here is what all types have in common, and
//! the keys of a Redis; `sink_file`, `sink_sql` and `sink_command` read what is theirs. A key may hold an app's secret,
//! as an alias may: it is never shown.

use std::collections::{HashMap, HashSet};

use super::aliases::{of_word, preset};
use super::fault::{Place, SettingProblem};
use super::reader::{RawTable, Reader, toml_list, toml_text, toml_texts};
use super::value::{Given, RawValue, ReadResult, closest, kind, quoted, text};
use super::views::Fields;
use super::{App, CredentialName, Sink, SinkContent, SinkEntry, SinkTo, Ttl, View};
use crate::encoding::Form;
use crate::encoding::key_words::known_words;
use crate::encoding::request::form_as_toml;
use crate::invalid_value::quoted_name;
use crate::sink::keys::{KeyTemplate, Keys, OfPreset, Scope, Views};
use crate::sink::sql_address::is_sql;

const TABLE_KEYS: &[&str] = &["key", "app", "of", "shows", "encoding", "fields", "constant", "at_least"];
const PLACEHOLDERS: &[&str] = &["type", "id", "appid", "agent", "secret", "secret10"];
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

    /// The word that the schema has for it.
    fn word(self) -> &'static str {
        match self {
            Type::Redis => "redis",
            Type::Sql => "sql",
            Type::File => "file",
            Type::Command => "command",
        }
    }

    fn noun(self) -> &'static str {
        match self {
            Type::Redis => "a Redis",
            Type::Sql => "a database",
            Type::File => "a file",
            Type::Command => "a command",
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

/// A sink, and what only the checks between sinks need.
struct Draft<'t> {
    table: &'t RawTable,
    sink: Sink,
    places: Vec<Place>,
}

impl Reader<'_> {
    /// All sinks.
    pub(super) fn sinks<'a>(&mut self, tables: &[RawTable], apps: impl Iterator<Item = &'a App>) -> Vec<Sink> {
        let apps: Vec<&App> = apps.collect();
        let drafts: Vec<Draft<'_>> = tables.iter().filter_map(|table| self.sink(table, &apps)).collect();
        self.written_twice(&drafts);
        drafts.into_iter().map(|draft| draft.sink).collect()
    }

    fn sink<'t>(&mut self, table: &'t RawTable, apps: &[&App]) -> Option<Draft<'t>> {
        let of_type = self.sink_type(table)?;
        let check_every_ms = self.number::<u64>(table, "check_every_s") * 1000;
        if of_type == Type::Command {
            table.forget("check_every_s");
        }
        let rewrite_every_s = match of_type {
            Type::Command if !table.has("rewrite_every_s") => 0,
            _ => self.number(table, "rewrite_every_s"),
        };
        table.print("rewrite_every_s", rewrite_every_s.to_string());
        let rewrite_every_ms: u64 = rewrite_every_s * 1000;
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
        Some(Draft { table, sink, places })
    }

    /// One type, and no keys of another.
    fn sink_type(&mut self, table: &RawTable) -> Option<Type> {
        let mut naming = Type::NAMING.into_iter().filter(|key| table.has(key));
        if let (Some(first), Some(second)) = (naming.next(), naming.next()) {
            let what = format!("{first} and {second} name two places");
            self.fault(table, second, SettingProblem::new(what, "Write a [[sink]] for each."));
            return None;
        }
        let Some(of_type) = Type::of(table) else {
            let remedy =
                "Write url = \"redis://127.0.0.1:6379\", file = \"/path/{appid}.php\" or command = [\"/path\"].";
            self.fault_of(table, SettingProblem::new("a sink has no url, file or command", remedy));
            return None;
        };
        // A command says itself why it has none of these.
        let is_known = |types: &str, key: &str| {
            types.is_empty()
                || types.split(", ").any(|of| of == of_type.word())
                || of_type == Type::Command && ["presets", "check_every_s"].contains(&key)
        };
        for setting in table.section.settings().filter(|setting| table.has(setting.key)) {
            if !is_known(setting.types, setting.key) {
                let what = format!("{} has no {}", of_type.noun(), setting.key);
                let problem = SettingProblem::new(what, "Remove it, or see which of the table's keys is wrong.");
                self.fault(table, setting.key, problem);
            }
        }
        Some(of_type)
    }

    fn redis_sink(&mut self, table: &RawTable, scope: Option<&Scope<'_>>) -> Option<Made> {
        if !cfg!(feature = "redis") {
            let remedy = "Use a build with the feature \"redis\", or remove the table.";
            self.fault_of(table, SettingProblem::new("this build cannot write to a Redis", remedy));
            return None;
        }
        let server = self.redis(table);
        let ttl = self.ttl(table);
        let scope = scope?;
        let (templates, given) = self.sink_templates(table, scope);
        let Keys { entries, origins, faults, .. } = Keys::expand(&templates, scope);
        for (at, fault) in faults {
            let list = if templates[at].of_preset.is_some() { "presets" } else { "keys" };
            self.fault_at(table, list, fault.into(), &given[at]);
        }
        let places = origins.into_iter().map(|at| given[at].clone()).collect();
        table.print("keys", toml_list(entries.iter().map(key_as_toml)));
        Some(Made { to: SinkTo::Redis { server: server?, ttl }, entries, places })
    }

    fn ttl(&mut self, table: &RawTable) -> Ttl {
        let margin_s = self.number(table, "ttl_margin_s");
        match self.word(table, "ttl", &[("left", false), ("none", true)]) {
            Some(true) => {
                if table.has("ttl_margin_s") {
                    let problem =
                        SettingProblem::new("there is no time to live to subtract it from", "Remove it, or ttl.");
                    self.fault(table, "ttl_margin_s", problem);
                }
                table.forget("ttl_margin_s");
                Ttl::None
            }
            _ => Ttl::Left { margin_s },
        }
    }

    fn scope<'a>(&mut self, table: &RawTable, apps: &[&'a App]) -> Option<Scope<'a>> {
        let before = self.faults.len();
        let all: HashSet<String> = apps.iter().map(|app| app.id()).collect();
        let mut ids = HashSet::new();
        for item in self.list(table, "apps", "apps = [\"wx0123456789abcdef\"]") {
            match text(&item.value).and_then(|id| known_app(&all, id).map(|()| id)) {
                Ok(id) => drop(ids.insert(id.to_owned())),
                Err(problem) => self.fault_at(table, "apps", problem, &item.place),
            }
        }
        let ids = if table.has("apps") { ids } else { all };
        let mut types = Vec::new();
        for item in self.list(table, "types", "types = [\"access_token\"]") {
            match of_word(&item.value) {
                Ok(of) => types.push(of),
                Err(problem) => self.fault_at(table, "types", problem, &item.place),
            }
        }
        let types = table.has("types").then_some(types);
        let apps = apps.iter().copied().filter(|app| ids.contains(&app.id())).collect();
        (self.faults.len() == before).then_some(Scope { apps, ids, types })
    }

    /// The keys as written, then those of the presets; and where each was given.
    fn sink_templates(&mut self, table: &RawTable, scope: &Scope<'_>) -> (Vec<KeyTemplate>, Vec<Place>) {
        let (mut templates, mut places) = (Vec::new(), Vec::new());
        for item in self.list(table, "keys", "keys = [\"{type}:{appid}\"]") {
            match template(item, scope) {
                Ok(template) => templates.push(template),
                Err((problem, place)) => self.fault_at(table, "keys", problem, &place),
            }
            places.resize(templates.len(), item.place.clone());
        }
        let prefix = self.prefix(table, "key");
        for item in self.list(table, "presets", "presets = [\"workerman\"]") {
            match preset(&item.value) {
                Ok(preset) => {
                    for agents in [false, true] {
                        let written = preset.keys(agents).filter(|(.., view)| view.form != Form::Nothing);
                        templates.extend(written.map(|(of, key, view)| KeyTemplate {
                            key: format!("{prefix}{key}"),
                            app: None,
                            of: Some(of),
                            views: Views::One(View { flags: 0, ..view }),
                            of_preset: Some(OfPreset { agents }),
                        }));
                    }
                }
                Err(problem) => self.fault_at(table, "presets", problem, &item.place),
            }
            places.resize(templates.len(), item.place.clone());
        }
        if !table.has("keys") && !table.has("presets") {
            templates.push(KeyTemplate::raw(KEY_DEFAULT));
            places.push(table.place.clone());
        }
        (templates, places)
    }

    /// Two sinks of one database must not fight for a key, nor for a file.
    fn written_twice(&mut self, drafts: &[Draft<'_>]) {
        let mut seen: HashMap<(String, &str), &SinkEntry> = HashMap::new();
        for draft in drafts {
            let (database, list, whereto) = match &draft.sink.to {
                SinkTo::Redis { .. } => (draft.sink.to_string(), "keys", " to that database"),
                SinkTo::File(_) => ("file".to_owned(), "file", ""),
                // What a command does with a value is its own, and a statement says more than where.
                SinkTo::Command(_) | SinkTo::Sql(_) => continue,
            };
            let mut own = Vec::new();
            for (key, place) in draft.sink.entries.iter().zip(&draft.places) {
                match seen.get(&(database.clone(), key.name.as_str())) {
                    Some(_) => {
                        let what = format!("another sink writes {}{whereto} already", quoted(key.redacted_name()));
                        let problem = SettingProblem::new(what, "Keep it in one of the two.");
                        self.fault_at(draft.table, list, problem, place);
                    }
                    None => own.push(((database.clone(), key.name.as_str()), key)),
                }
            }
            seen.extend(own);
        }
    }
}

fn template(item: &Given, scope: &Scope<'_>) -> Result<KeyTemplate, (SettingProblem, Place)> {
    let place = &item.place;
    let template = match &item.value {
        RawValue::Text(key) => KeyTemplate::raw(key),
        RawValue::Table(fields) => table(fields, place, scope)?,
        other => {
            let remedy = "Write a key in quotes, or a table such as { key = \"...\", encoding = \"json_string\" }.";
            return Err((SettingProblem::new(format!("{} is not a key", kind(other)), remedy), place.clone()));
        }
    };
    known_words(&template.key, PLACEHOLDERS).map_err(|fault| (fault.into(), place.clone()))?;
    Ok(template)
}

fn table(given: &[(String, Given)], place: &Place, scope: &Scope<'_>) -> Result<KeyTemplate, (SettingProblem, Place)> {
    let fields = Fields::of(given, TABLE_KEYS, "a sink's key")?;
    let Some(key) = fields.read("key", text)? else {
        let problem = SettingProblem::new("a table has no key", "Write { key = \"...\", ... }.");
        return Err((problem, place.clone()));
    };
    let app = fields.read("app", text)?.map(str::to_owned);
    if let Some(id) = &app {
        known_app(&scope.ids, id).map_err(|problem| (problem, place.clone()))?;
    }
    let of = fields.read("of", of_word)?;
    let types: Vec<CredentialName> = of.map_or_else(|| CredentialName::ALL.to_vec(), |of| vec![of]);
    let view = |of: CredentialName| Ok((of, View { flags: 0, ..fields.view(of, place)? }));
    let views: Vec<(CredentialName, View)> = types.into_iter().map(view).collect::<Result<_, _>>()?;
    if views.iter().any(|(_, view)| view.form == Form::Nothing) {
        let problem = SettingProblem::new("a sink writes something or nothing", "Remove the key from the list.");
        return Err((problem, place.clone()));
    }
    Ok(KeyTemplate { key: key.to_owned(), app, of, views: Views::ByType(views), of_preset: None })
}

/// A key of a Redis as the file could have it.
fn key_as_toml(entry: &SinkEntry) -> String {
    // A hash tag of a cluster would be taken for a word in braces.
    let (appid, agent) = entry.app.split_once(':').unwrap_or((&entry.app, ""));
    let words = [("appid", appid), ("agent", agent), ("type", entry.of.word())];
    let tagged =
        words.iter().filter(|(_, value)| !value.is_empty()).fold(entry.redacted_name().to_owned(), |key, word| {
            key.replace(&format!("{{{}}}", word.1), &format!("{{{{{}}}}}", word.0))
        });
    let view = if let SinkContent::View(view) = &entry.content { view } else { &View::RAW };
    let (key, app, form) = (toml_text(&tagged), toml_text(&entry.app), form_as_toml(&view.form, toml_text));
    let at_least = match view.at_least_s {
        0 => String::new(),
        seconds => format!(", at_least = {seconds}"),
    };
    format!("{{ key = {key}, app = {app}, of = \"{}\", {form}{at_least} }}", entry.of.word())
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
    table.print("apps", toml_texts(apps));
    table.print("types", toml_texts(types));
}

fn known_app(known: &HashSet<String>, id: &str) -> ReadResult<()> {
    if known.contains(id) {
        return Ok(());
    }
    let remedy = match closest(id, known.iter().map(String::as_str)) {
        Some(close) => format!("Did you mean {close:?}?"),
        None => "Write the appid of an [[app]]; with an agent, \"<corpid>:<agent>\".".to_owned(),
    };
    Err(SettingProblem::new(format!("the app {} is not there", quoted_name(id)), remedy))
}
