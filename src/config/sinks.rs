//! `[[sink]]` tables -> the places of the site's own that what is kept current is written to as well.
//!
//! What a table names says of which type it is: `url`, `file` or `command`. Here is what all types have in common, and
//! the keys of a Redis; `sink_file`, `sink_sql` and `sink_command` read what is theirs. A key may hold an app's secret,
//! as an alias may: it is never spoken.

use std::collections::{HashMap, HashSet};
use std::sync::LazyLock;

use super::aliases::{Fields, form_as_toml, known_words, of_word, preset, spell};
use super::apps::{Reader, shown};
use super::fault::{Place, Problem};
use super::file::{Document, RawTable};
use super::settings::closest;
use super::value::{Given, Reading, Value, integer, kind, quoted, text};
use super::{App, CredentialName, Sink, SinkContent, SinkEntry, SinkTo, Ttl, View, sink_command, sink_file, sink_sql};
use crate::encoding::Form;

const KEY_BYTES_MAX: usize = 1024;
const TIMEOUT_MS: u64 = 2_000;
const TABLE_KEYS: &[&str] = &["key", "app", "of", "shows", "encoding", "fields", "constant", "at_least"];
const PLACEHOLDERS: &[&str] = &["kind", "id", "appid", "agent", "secret", "secret10"];
/// What is written without `keys` and `presets`: the keys that memcached's clients read here.
const KEY_DEFAULT: &str = "{kind}:{id}";

/// The keys of a table that every type has.
const COMMON_KEYS: &[&str] = &["apps", "kinds", "presets", "check_every_s", "rewrite_every_s"];
/// Those of a Redis.
const REDIS_KEYS: &[&str] = &[
    "url",
    "db",
    "user",
    "password",
    "password_file",
    "password_env",
    "password_credential",
    "ca_file",
    "cert_file",
    "key_file",
    "key_credential",
    "trusted_hosts",
    "keys",
    "prefix",
    "ttl",
    "ttl_margin_s",
    "timeout_ms",
];

/// The keys of a `[[sink]]` table of whichever type, each once.
pub static SINK_KEYS: LazyLock<Vec<&'static str>> = LazyLock::new(|| {
    let mut keys = COMMON_KEYS.to_vec();
    for of_type in Type::ALL {
        keys.extend(of_type.keys().iter().filter(|key| !keys.contains(key)).copied().collect::<Vec<_>>());
    }
    keys
});

impl SinkEntry {
    /// The name as people may read it.
    pub fn redacted_name(&self) -> &str {
        self.redacted_name.as_deref().unwrap_or(&self.name)
    }

    /// The key that memcached's clients read the same credential under.
    pub fn managed_key(&self) -> String {
        format!("{}:{}", self.of.word(), self.app)
    }

    /// A key of a Redis as the file could have it.
    pub(super) fn as_toml(&self, quoted: impl Fn(&str) -> String) -> String {
        // A hash tag of a cluster would be taken for a word in braces.
        let (appid, agent) = self.app.split_once(':').unwrap_or((&self.app, ""));
        let words = [("appid", appid), ("agent", agent), ("kind", self.of.word())];
        let tagged =
            words.iter().filter(|(_, value)| !value.is_empty()).fold(self.redacted_name().to_owned(), |key, word| {
                key.replace(&format!("{{{}}}", word.1), &format!("{{{{{}}}}}", word.0))
            });
        let view = if let SinkContent::View(view) = &self.content { view } else { &View::RAW };
        let (key, app, form) = (quoted(&tagged), quoted(&self.app), form_as_toml(&view.form, &quoted));
        let at_least = match view.at_least_s {
            0 => String::new(),
            seconds => format!(", at_least = {seconds}"),
        };
        format!("{{ key = {key}, app = {app}, of = \"{}\", {form}{at_least} }}", self.of.word())
    }
}

/// The types, by what a table names.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Type {
    Redis,
    Sql,
    File,
    Command,
}

impl Type {
    const ALL: [Type; 4] = [Type::Redis, Type::Sql, Type::File, Type::Command];
    const NAMING: [&str; 3] = ["url", "file", "command"];

    /// By the key that names the place.
    fn of(raw: &RawTable) -> Option<Type> {
        let url = raw.fields.get("url").map(|given| match &given.value {
            Value::Text(url) if sink_sql::is_sql(url) => Type::Sql,
            _ => Type::Redis,
        });
        let has = |key: &str| raw.fields.contains_key(key);
        url.or(has("file").then_some(Type::File)).or(has("command").then_some(Type::Command))
    }

    /// Which keys it has beside [`COMMON_KEYS`].
    fn keys(self) -> &'static [&'static str] {
        match self {
            Type::Redis => REDIS_KEYS,
            Type::Sql => sink_sql::KEYS,
            Type::File => sink_file::KEYS,
            Type::Command => sink_command::KEYS,
        }
    }

    /// How often all is written again without a change, unless the table says it.
    fn rewrite_every_s(self) -> u64 {
        if self == Type::Command { 0 } else { 300 }
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

/// A key before it is known whose.
struct KeyTemplate {
    key: String,
    /// For this app alone.
    app: Option<String>,
    /// None: whatever `{kind}` stands for, or the app's token.
    of: Option<CredentialName>,
    views: Views,
    preset: Option<Preset>,
    place: Place,
}

/// Came from a preset.
struct Preset {
    /// For apps of a platform with agents; the others have keys of their own.
    agents: bool,
}

enum Views {
    One(View),
    /// Fields have their names from the kind.
    ByKind(Vec<(CredentialName, View)>),
}

impl Views {
    fn of(&self, of: CredentialName) -> View {
        match self {
            Views::One(view) => view.clone(),
            Views::ByKind(views) => views.iter().find(|(kind, _)| *kind == of).map_or(View::RAW, |(_, v)| v.clone()),
        }
    }
}

/// Which apps and kinds a sink is about.
pub(super) struct Scope<'a> {
    pub apps: Vec<&'a App>,
    /// Of these apps.
    ids: HashSet<String>,
    kinds: Option<Vec<CredentialName>>,
}

impl Scope<'_> {
    /// What is kept of an app, and wanted here.
    pub fn kept(&self, app: &App) -> Vec<CredentialName> {
        let wanted = |of: &CredentialName| self.kinds.as_ref().is_none_or(|kinds| kinds.contains(of));
        app.credential_types().filter_map(CredentialName::of).filter(wanted).collect()
    }

    /// One entry for each credential, named as memcached's clients name it.
    pub fn credentials(&self) -> Vec<SinkEntry> {
        let of_app = |app: &&App| {
            let app: &App = app;
            let entry = |of: CredentialName| SinkEntry {
                app: app.id(),
                of,
                name: format!("{}:{}", of.word(), app.id()),
                redacted_name: None,
                content: SinkContent::Value,
            };
            self.kept(app).into_iter().map(entry).collect::<Vec<_>>()
        };
        self.apps.iter().flat_map(of_app).collect()
    }
}

/// A sink, and what only the checks between sinks need.
struct Draft {
    sink: Sink,
    places: Vec<Place>,
}

impl Reader<'_> {
    /// All sinks.
    pub(super) fn sinks(&mut self, document: &mut Document, apps: &[App]) -> Vec<Sink> {
        let raw = std::mem::take(&mut document.sinks);
        let drafts: Vec<Draft> = raw.into_iter().filter_map(|raw| self.sink(raw, document, apps)).collect();
        self.written_twice(&drafts);
        drafts.into_iter().map(|draft| draft.sink).collect()
    }

    fn sink(&mut self, mut raw: RawTable, document: &Document, apps: &[App]) -> Option<Draft> {
        let of_type = self.sink_type(&raw)?;
        let check_every_ms = self.seconds(&raw, "check_every_s", 1, 5) * 1000;
        let rewrite_every_ms = self.seconds(&raw, "rewrite_every_s", 0, of_type.rewrite_every_s()) * 1000;
        let scope = self.scope(&raw, apps);
        let made = match of_type {
            Type::Redis => self.redis_sink(&mut raw, document, scope.as_ref()),
            Type::Sql => self.sql_sink(&mut raw, document, scope.as_ref()),
            Type::File => self.file_sink(&mut raw, document, scope.as_ref(), rewrite_every_ms),
            Type::Command => self.command_sink(&mut raw, document, scope.as_ref()),
        };
        let Made { to, entries, places } = made?;
        let sink = Sink { to, entries, check_every_ms, rewrite_every_ms };
        if sink.entries.is_empty() && self.faults.is_empty() {
            self.warnings.push(format!("{}: nothing is kept that this sink would write", raw.place));
        }
        Some(Draft { sink, places })
    }

    /// One type, and no keys of another.
    fn sink_type(&mut self, raw: &RawTable) -> Option<Type> {
        let mut naming = Type::NAMING.iter().filter_map(|key| Some((*key, raw.fields.get(*key)?)));
        if let (Some((first, _)), Some((second, given))) = (naming.next(), naming.next()) {
            let what = format!("{first} and {second} name two places");
            self.fault(second, Problem::new(what, "Write a [[sink]] for each."), &given.place);
            return None;
        }
        let Some(of_type) = Type::of(raw) else {
            let remedy =
                "Write url = \"redis://127.0.0.1:6379\", file = \"/path/{appid}.php\" or command = [\"/path\"].";
            self.faults.push(Problem::new("a sink has no url, file or command", remedy).at(&raw.place));
            return None;
        };
        let known = |key: &str| COMMON_KEYS.contains(&key) || of_type.keys().contains(&key);
        let unknown = SINK_KEYS.iter().filter(|key| !known(key));
        let unknown: Vec<_> = unknown.filter_map(|key| Some((*key, raw.fields.get(*key)?))).collect();
        for (key, given) in unknown {
            let what = format!("{} has no {key}", of_type.noun());
            self.fault(key, Problem::new(what, "Remove it, or see which of the table's keys is wrong."), &given.place);
        }
        Some(of_type)
    }

    fn seconds(&mut self, raw: &RawTable, key: &'static str, min: u64, default: u64) -> u64 {
        let max = if min == 0 { 86_400 } else { 3_600 };
        self.field(raw, key, |value| integer(value, min..=max)).unwrap_or(default)
    }

    fn redis_sink(&mut self, raw: &mut RawTable, document: &Document, scope: Option<&Scope<'_>>) -> Option<Made> {
        if !cfg!(feature = "redis") {
            let remedy = "Use a build with the feature \"redis\", or remove the table.";
            self.faults.push(Problem::new("this build cannot write to a Redis", remedy).at(&raw.place));
            return None;
        }
        let fields = self.redis_fields(raw, &document.folder);
        let server = self.redis_server(raw, document, fields, TIMEOUT_MS);
        let ttl = self.ttl(raw);
        let scope = scope?;
        let templates = self.sink_templates(raw, scope);
        let (entries, places) = self.sink_keys(&templates, scope);
        Some(Made { to: SinkTo::Redis { server: server?, ttl }, entries, places })
    }

    fn ttl(&mut self, raw: &RawTable) -> Ttl {
        let margin_s = self.field(raw, "ttl_margin_s", |value| integer(value, 0..=86_400));
        let words = [("left", Ttl::Left { margin_s: 0 }), ("none", Ttl::None)];
        let ttl = self.field(raw, "ttl", |value| super::value::word(value, &words));
        match (ttl, margin_s, raw.fields.get("ttl_margin_s")) {
            (Some(Ttl::None), _, Some(given)) => {
                let problem = Problem::new("there is no time to live to subtract it from", "Remove it, or ttl.");
                self.fault("ttl_margin_s", problem, &given.place);
                Ttl::None
            }
            (Some(Ttl::None), ..) => Ttl::None,
            _ => Ttl::Left { margin_s: margin_s.unwrap_or(0) },
        }
    }

    fn scope<'a>(&mut self, raw: &RawTable, apps: &'a [App]) -> Option<Scope<'a>> {
        let before = self.faults.len();
        let all: HashSet<String> = apps.iter().map(App::id).collect();
        let mut ids = HashSet::new();
        for item in self.list(raw, "apps", "apps = [\"wx0123456789abcdef\"]") {
            match text(&item.value).and_then(|id| known_app(&all, id).map(|()| id)) {
                Ok(id) => drop(ids.insert(id.to_owned())),
                Err(problem) => self.fault("apps", problem, &item.place),
            }
        }
        let ids = if raw.fields.contains_key("apps") { ids } else { all };
        let mut kinds = Vec::new();
        for item in self.list(raw, "kinds", "kinds = [\"access_token\"]") {
            match of_word(&item.value) {
                Ok(of) => kinds.push(of),
                Err(problem) => self.fault("kinds", problem, &item.place),
            }
        }
        let kinds = raw.fields.contains_key("kinds").then_some(kinds);
        let apps = apps.iter().filter(|app| ids.contains(&app.id())).collect();
        (self.faults.len() == before).then_some(Scope { apps, ids, kinds })
    }

    /// The keys as written, then those of the presets.
    fn sink_templates(&mut self, raw: &RawTable, scope: &Scope<'_>) -> Vec<KeyTemplate> {
        let mut templates = Vec::new();
        for item in self.list(raw, "keys", "keys = [\"{kind}:{appid}\"]") {
            match template(item, scope) {
                Ok(template) => templates.push(template),
                Err((problem, place)) => self.fault("keys", problem, &place),
            }
        }
        let prefix = self.field(raw, "prefix", prefix).unwrap_or_default();
        if let (Some(given), false, false) =
            (raw.fields.get("prefix"), raw.fields.contains_key("presets"), prefix.is_empty())
        {
            let what = "there are no presets for it to stand before";
            let remedy = "Add presets = [...], or write the prefix into each key.";
            self.fault("prefix", Problem::new(what, remedy), &given.place);
        }
        for item in self.list(raw, "presets", "presets = [\"workerman\"]") {
            match preset(&item.value) {
                Ok(preset) => {
                    for agents in [false, true] {
                        let written = preset.keys(agents).filter(|(.., view)| view.form != Form::Nothing);
                        templates.extend(written.map(|(of, key, view)| KeyTemplate {
                            key: format!("{prefix}{key}"),
                            app: None,
                            of: Some(of),
                            views: Views::One(View { flags: 0, ..view }),
                            preset: Some(Preset { agents }),
                            place: item.place.clone(),
                        }));
                    }
                }
                Err(problem) => self.fault("presets", problem, &item.place),
            }
        }
        if !raw.fields.contains_key("keys") && !raw.fields.contains_key("presets") {
            templates.push(KeyTemplate::raw(KEY_DEFAULT, raw.place.clone()));
        }
        templates
    }

    /// Every key of every app, with its place.
    fn sink_keys(&mut self, templates: &[KeyTemplate], scope: &Scope<'_>) -> (Vec<SinkEntry>, Vec<Place>) {
        let mut claimed = Claimed::default();
        // One fault a key will do, however many apps it is about.
        let (mut used, mut spoilt) = (vec![false; templates.len()], vec![false; templates.len()]);
        // Ten thousand apps with a key each are ordinary.
        let (mut of_one, mut of_all): (HashMap<&str, Vec<usize>>, Vec<usize>) = Default::default();
        for (at, template) in templates.iter().enumerate() {
            template.app.as_deref().map_or(&mut of_all, |app| of_one.entry(app).or_default()).push(at);
        }
        for app in &scope.apps {
            let (id, kept, secret) = (app.id(), scope.kept(app), Secrets::of(app));
            let mut own: Vec<usize> =
                of_all.iter().chain(of_one.get(id.as_str()).into_iter().flatten()).copied().collect();
            own.sort_unstable();
            for at in own {
                let template = &templates[at];
                for of in template.kinds(app, &kept) {
                    used[at] = true;
                    let key = template.key(app, of, secret.text());
                    if let Err(problem) = key.and_then(|key| claimed.claim(key, template))
                        && !std::mem::replace(&mut spoilt[at], true)
                    {
                        self.fault(template.list(), problem, &template.place);
                    }
                }
            }
        }
        let unused = templates.iter().zip(used).filter(|(template, used)| !used && template.preset.is_none());
        for (template, _) in unused.filter(|_| !scope.apps.is_empty()) {
            let what = "a key is about nothing that is kept for these apps";
            let remedy = "See tickets of the [[app]], and apps and kinds of the [[sink]].";
            self.fault(template.list(), Problem::new(what, remedy), &template.place);
        }
        (claimed.keys, claimed.places)
    }

    /// Two sinks of one database must not fight for a key, nor for a file.
    fn written_twice(&mut self, drafts: &[Draft]) {
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
                        let problem = Problem::new(what, "Keep it in one of the two.");
                        self.fault(list, problem, place);
                    }
                    None => own.push(((database.clone(), key.name.as_str()), key)),
                }
            }
            seen.extend(own);
        }
    }
}

/// The keys of one sink.
#[derive(Default)]
struct Claimed {
    keys: Vec<SinkEntry>,
    places: Vec<Place>,
    /// Where each stands.
    known: HashMap<String, usize>,
}

impl Claimed {
    /// What is written out comes first, and wins over a preset.
    fn claim(&mut self, key: SinkEntry, template: &KeyTemplate) -> Reading<()> {
        match self.known.get(&key.name).and_then(|at| self.keys.get(*at)) {
            None => {
                self.known.insert(key.name.clone(), self.keys.len());
                self.keys.push(key);
                self.places.push(template.place.clone());
                Ok(())
            }
            Some(first) if template.preset.is_some() && first.app == key.app || same(first, &key) => Ok(()),
            Some(first) => Err(twice(first, &key)),
        }
    }
}

impl KeyTemplate {
    fn raw(key: &str, place: Place) -> KeyTemplate {
        KeyTemplate { key: key.to_owned(), app: None, of: None, views: Views::One(View::RAW), preset: None, place }
    }

    /// The configuration's key it came from.
    fn list(&self) -> &'static str {
        if self.preset.is_some() { "presets" } else { "keys" }
    }

    /// Which of the app's credentials it is about; the app is one that it may be about.
    fn kinds(&self, app: &App, kept: &[CredentialName]) -> Vec<CredentialName> {
        // Nobody looks under an authorizer's secret: it has none.
        let fits = |preset: &Preset| {
            preset.agents == app.platform.has_agents
                && (has_secret(app) || !self.key.contains("{secret"))
                && (app.agent.is_some() || !self.key.contains("{agent}"))
        };
        if !self.preset.as_ref().is_none_or(fits) {
            return Vec::new();
        }
        match self.of {
            Some(of) => kept.iter().copied().filter(|kept| *kept == of).collect(),
            None if self.key.contains("{kind}") => kept.to_vec(),
            // The app's token stands first.
            None => kept.first().copied().into_iter().collect(),
        }
    }

    fn key(&self, app: &App, of: CredentialName, secret: &str) -> Reading<SinkEntry> {
        if app.agent.is_none() && self.key.contains("{agent}") {
            let what = format!("a key with {{agent}}, and the app {} has none", quoted(&app.id()));
            return Err(Problem::new(what, "Write {id} in its place, or name the apps of this sink."));
        }
        if !has_secret(app) && self.key.contains("{secret") {
            let whose = if app.component.is_some() { "authorizer" } else { "app" };
            let what = format!("a key with a secret, and the {whose} {} has none", quoted(&app.id()));
            return Err(Problem::new(what, "Name the apps of this sink, or write {appid} in its place."));
        }
        let key = self.key.replace("{kind}", of.word()).replace("{id}", &app.id());
        let key = key.replace("{appid}", &app.appid).replace("{agent}", app.agent.as_deref().unwrap_or_default());
        let (name, redacted_name) = spell(key, secret);
        if name.is_empty() || name.len() > KEY_BYTES_MAX || name.bytes().any(|byte| byte < b' ' || byte == 0x7f) {
            let what = format!(
                "the key {} is empty, longer than {KEY_BYTES_MAX} bytes or has a control character",
                quoted(&redacted_name)
            );
            return Err(Problem::new(what, "Write a key such as \"{kind}:{appid}\"."));
        }
        let redacted_name = (redacted_name != name).then_some(redacted_name);
        Ok(SinkEntry { app: app.id(), of, name, redacted_name, content: SinkContent::View(self.views.of(of)) })
    }
}

/// An app's secret, for the keys that hold it.
struct Secrets(Option<crate::secret::Secret>);

impl Secrets {
    fn of(app: &App) -> Secrets {
        // A refresh token is no part of any key.
        Secrets(if has_secret(app) { app.secret.read().ok() } else { None })
    }

    fn text(&self) -> &str {
        self.0.as_ref().map_or("", |secret| secret.expose())
    }
}

fn has_secret(app: &App) -> bool {
    app.component.is_none() && !app.secret.is_absent()
}

fn same(first: &SinkEntry, second: &SinkEntry) -> bool {
    first == second || first.content.is_constant() && first.content == second.content
}

pub(super) fn twice(first: &SinkEntry, second: &SinkEntry) -> Problem {
    let key = quoted(second.redacted_name());
    if first.app == second.app {
        return Problem::new(format!("the key {key} is given twice, with different contents"), "Keep one of the two.");
    }
    let what = format!("the key {key} is that of the app {} already, and {} would overwrite it", first.app, second.app);
    Problem::new(what, "Name one app in apps, or put {appid} into the key.")
}

fn template(item: &Given, scope: &Scope<'_>) -> Result<KeyTemplate, (Problem, Place)> {
    let place = &item.place;
    let template = match &item.value {
        Value::Text(key) => KeyTemplate::raw(key, place.clone()),
        Value::Table(fields) => table(fields, place, scope)?,
        other => {
            let remedy = "Write a key in quotes, or a table such as { key = \"...\", encoding = \"json_string\" }.";
            return Err((Problem::new(format!("{} is not a key", kind(other)), remedy), place.clone()));
        }
    };
    known_words(&template.key, PLACEHOLDERS).map_err(|problem| (problem, place.clone()))?;
    Ok(template)
}

fn table(given: &[(String, Given)], place: &Place, scope: &Scope<'_>) -> Result<KeyTemplate, (Problem, Place)> {
    let fields = Fields::of(given, TABLE_KEYS, "a sink's key")?;
    let Some(key) = fields.read("key", text)? else {
        let problem = Problem::new("a table has no key", "Write { key = \"...\", ... }.");
        return Err((problem, place.clone()));
    };
    let app = fields.read("app", text)?.map(str::to_owned);
    if let Some(id) = &app {
        known_app(&scope.ids, id).map_err(|problem| (problem, place.clone()))?;
    }
    let of = fields.read("of", of_word)?;
    let kinds: Vec<CredentialName> = of.map_or_else(|| CredentialName::ALL.to_vec(), |of| vec![of]);
    let view = |of: CredentialName| Ok((of, View { flags: 0, ..fields.view(of, place)? }));
    let views: Vec<(CredentialName, View)> = kinds.into_iter().map(view).collect::<Result<_, _>>()?;
    if views.iter().any(|(_, view)| view.form == Form::Nothing) {
        let problem = Problem::new("a sink writes something or nothing", "Remove the key from the list.");
        return Err((problem, place.clone()));
    }
    Ok(KeyTemplate { key: key.to_owned(), app, of, views: Views::ByKind(views), preset: None, place: place.clone() })
}

/// What stands before the keys of presets; some frameworks put nothing there.
fn prefix(value: &Value) -> Reading<String> {
    match value {
        Value::Text(empty) if empty.is_empty() => Ok(String::new()),
        value => text(value).map(str::to_owned),
    }
}

fn known_app(known: &HashSet<String>, id: &str) -> Reading<()> {
    if known.contains(id) {
        return Ok(());
    }
    let remedy = match closest(id, known.iter().map(String::as_str)) {
        Some(close) => format!("Did you mean {close:?}?"),
        None => "Write the appid of an [[app]]; with an agent, \"<corpid>:<agent>\".".to_owned(),
    };
    Err(Problem::new(format!("the app {} is not there", shown(id)), remedy))
}
