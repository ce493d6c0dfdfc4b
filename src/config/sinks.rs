//! `[[sink]]` tables -> the Redis servers that what is kept current is written to, and under which keys.
//!
//! A key may hold an app's secret, as an alias may: it is never spoken.

use std::collections::{HashMap, HashSet};
use std::fmt;
use std::ops::RangeInclusive;

use super::aliases::{Fields, form_as_toml, known_words, of_word, preset, spell};
use super::apps::{Reader, shown};
use super::fault::{Place, Problem};
use super::file::{Document, RawTable};
use super::settings::closest;
use super::value::{Given, Reading, Value, integer, kind, quoted, text};
use super::{AliasOf, App, RedisServer, View};
use crate::credential::encoding::Form;

const KEY_BYTES_MAX: usize = 1024;
const TIMEOUT_MS: u64 = 2_000;
const TABLE_KEYS: &[&str] = &["key", "app", "of", "shows", "encoding", "fields", "constant", "at_least"];
const PLACEHOLDERS: &[&str] = &["kind", "id", "appid", "agent", "secret", "secret10"];
/// What is written without `keys` and `presets`: the keys that memcached's clients read here.
const KEY_DEFAULT: &str = "{kind}:{id}";

/// How long a key lives in Redis.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ttl {
    /// As long as the value is good, less a margin, seconds.
    Left { margin_s: u64 },
    /// Until it is deleted.
    None,
}

/// A Redis that managed keys are written to.
#[derive(Clone, Debug)]
pub struct Sink {
    pub server: RedisServer,
    pub keys: Vec<SinkKey>,
    pub ttl: Ttl,
    /// How often is looked whether the keys are still there, ms.
    pub check_every_ms: u64,
    /// How often everything is written again, ms.
    pub rewrite_every_ms: u64,
}

impl fmt::Display for Sink {
    /// The address, without user and password.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.server.fmt(f)
    }
}

/// One key in a Redis. `Debug` never shows a secret in it.
#[derive(Clone, PartialEq, Eq)]
pub struct SinkKey {
    /// The app's id.
    pub app: String,
    pub of: AliasOf,
    pub name: String,
    /// What stands for the name wherever people read it, if the name holds the secret.
    pub spoken: Option<String>,
    pub view: View,
}

impl SinkKey {
    /// The name as people may read it.
    pub fn spoken(&self) -> &str {
        self.spoken.as_deref().unwrap_or(&self.name)
    }

    /// The key that memcached's clients read the same credential under.
    pub fn managed_key(&self) -> String {
        format!("{}:{}", self.of.word(), self.app)
    }

    /// As the file could have it.
    pub(super) fn as_toml(&self, quoted: impl Fn(&str) -> String) -> String {
        // A hash tag of a cluster would be taken for a word in braces.
        let (appid, agent) = self.app.split_once(':').unwrap_or((&self.app, ""));
        let words = [("appid", appid), ("agent", agent), ("kind", self.of.word())];
        let tagged = words.iter().filter(|(_, value)| !value.is_empty()).fold(self.spoken().to_owned(), |key, word| {
            key.replace(&format!("{{{}}}", word.1), &format!("{{{{{}}}}}", word.0))
        });
        let (key, app, form) = (quoted(&tagged), quoted(&self.app), form_as_toml(&self.view.form, &quoted));
        let at_least = match self.view.at_least_s {
            0 => String::new(),
            seconds => format!(", at_least = {seconds}"),
        };
        format!("{{ key = {key}, app = {app}, of = \"{}\", {form}{at_least} }}", self.of.word())
    }
}

impl fmt::Debug for SinkKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SinkKey")
            .field("app", &self.app)
            .field("of", &self.of)
            .field("name", &self.spoken())
            .field("view", &self.view)
            .finish()
    }
}

/// A key before it is known whose.
struct Template {
    key: String,
    /// For this app alone.
    app: Option<String>,
    /// None: whatever `{kind}` stands for, or the app's token.
    of: Option<AliasOf>,
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
    ByKind(Vec<(AliasOf, View)>),
}

impl Views {
    fn of(&self, of: AliasOf) -> View {
        match self {
            Views::One(view) => view.clone(),
            Views::ByKind(views) => views.iter().find(|(kind, _)| *kind == of).map_or(View::RAW, |(_, v)| v.clone()),
        }
    }
}

/// Which apps and kinds a sink is about.
struct Scope<'a> {
    apps: Vec<&'a App>,
    /// Of these apps.
    ids: HashSet<String>,
    kinds: Option<Vec<AliasOf>>,
}

impl Scope<'_> {
    /// What is kept of an app, and wanted here.
    fn kept(&self, app: &App) -> Vec<AliasOf> {
        let wanted = |of: &AliasOf| self.kinds.as_ref().is_none_or(|kinds| kinds.contains(of));
        app.kinds().filter_map(AliasOf::of).filter(wanted).collect()
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
        if !cfg!(feature = "redis") {
            let remedy = "Use a build with the feature \"redis\", or remove the table.";
            self.faults.push(Problem::new("this build cannot write to a Redis", remedy).at(&raw.place));
            return None;
        }
        if !raw.fields.contains_key("url") {
            let problem = Problem::new("a sink has no url", "Write url = \"redis://127.0.0.1:6379\".");
            self.faults.push(problem.at(&raw.place));
        }
        let fields = self.redis_fields(&raw, &document.folder);
        let server = self.redis_server(&mut raw, document, fields, TIMEOUT_MS);
        let ttl = self.ttl(&raw);
        let mut number = |key, range: RangeInclusive<u64>, default| {
            self.field(&raw, key, |value| integer(value, range.clone())).unwrap_or(default)
        };
        let check_every_ms = number("check_every_s", 1..=3_600, 5) * 1000;
        let rewrite_every_ms = number("rewrite_every_s", 10..=86_400, 300) * 1000;
        let scope = self.scope(&raw, apps)?;
        let templates = self.sink_templates(&raw, &scope);
        let (keys, places) = self.sink_keys(&templates, &scope);
        let sink = Sink { server: server?, keys, ttl, check_every_ms, rewrite_every_ms };
        if sink.keys.is_empty() && self.faults.is_empty() {
            self.warnings.push(format!("{}: nothing is kept that this sink would write", raw.place));
        }
        Some(Draft { sink, places })
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
    fn sink_templates(&mut self, raw: &RawTable, scope: &Scope<'_>) -> Vec<Template> {
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
                        templates.extend(written.map(|(of, key, view)| Template {
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
            templates.push(Template::raw(KEY_DEFAULT, raw.place.clone()));
        }
        templates
    }

    /// Every key of every app, with its place.
    fn sink_keys(&mut self, templates: &[Template], scope: &Scope<'_>) -> (Vec<SinkKey>, Vec<Place>) {
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

    /// Two sinks of one database must not fight for a key.
    fn written_twice(&mut self, drafts: &[Draft]) {
        let mut seen: HashMap<(String, &str), &SinkKey> = HashMap::new();
        for draft in drafts {
            let database = draft.sink.to_string();
            let mut own = Vec::new();
            for (key, place) in draft.sink.keys.iter().zip(&draft.places) {
                match seen.get(&(database.clone(), key.name.as_str())) {
                    Some(_) => {
                        let what = format!("another sink writes {} to that database already", quoted(key.spoken()));
                        let problem = Problem::new(what, "Keep the key in one of the two.");
                        self.fault("keys", problem, place);
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
    keys: Vec<SinkKey>,
    places: Vec<Place>,
    /// Where each stands.
    known: HashMap<String, usize>,
}

impl Claimed {
    /// What is written out comes first, and wins over a preset.
    fn claim(&mut self, key: SinkKey, template: &Template) -> Reading<()> {
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

impl Template {
    fn raw(key: &str, place: Place) -> Template {
        Template { key: key.to_owned(), app: None, of: None, views: Views::One(View::RAW), preset: None, place }
    }

    /// The configuration's key it came from.
    fn list(&self) -> &'static str {
        if self.preset.is_some() { "presets" } else { "keys" }
    }

    /// Which of the app's credentials it is about; the app is one that it may be about.
    fn kinds(&self, app: &App, kept: &[AliasOf]) -> Vec<AliasOf> {
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

    fn key(&self, app: &App, of: AliasOf, secret: &str) -> Reading<SinkKey> {
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
        let (name, spoken) = spell(key, secret);
        if name.is_empty() || name.len() > KEY_BYTES_MAX || name.bytes().any(|byte| byte < b' ' || byte == 0x7f) {
            let what = format!(
                "the key {} is empty, longer than {KEY_BYTES_MAX} bytes or has a control character",
                quoted(&spoken)
            );
            return Err(Problem::new(what, "Write a key such as \"{kind}:{appid}\"."));
        }
        let spoken = (spoken != name).then_some(spoken);
        Ok(SinkKey { app: app.id(), of, name, spoken, view: self.views.of(of) })
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

fn same(first: &SinkKey, second: &SinkKey) -> bool {
    first == second || first.view.is_constant() && first.view == second.view
}

fn twice(first: &SinkKey, second: &SinkKey) -> Problem {
    let key = quoted(second.spoken());
    if first.app == second.app {
        return Problem::new(format!("the key {key} is given twice, with different contents"), "Keep one of the two.");
    }
    let what = format!("the key {key} is that of the app {} already, and {} would overwrite it", first.app, second.app);
    Problem::new(what, "Name one app in apps, or put {appid} into the key.")
}

fn template(item: &Given, scope: &Scope<'_>) -> Result<Template, (Problem, Place)> {
    let place = &item.place;
    let template = match &item.value {
        Value::Text(key) => Template::raw(key, place.clone()),
        Value::Table(fields) => table(fields, place, scope)?,
        other => {
            let remedy = "Write a key in quotes, or a table such as { key = \"...\", encoding = \"json_string\" }.";
            return Err((Problem::new(format!("{} is not a key", kind(other)), remedy), place.clone()));
        }
    };
    known_words(&template.key, PLACEHOLDERS).map_err(|problem| (problem, place.clone()))?;
    Ok(template)
}

fn table(given: &[(String, Given)], place: &Place, scope: &Scope<'_>) -> Result<Template, (Problem, Place)> {
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
    let kinds: Vec<AliasOf> = of.map_or_else(|| AliasOf::ALL.to_vec(), |of| vec![of]);
    let view = |of: AliasOf| Ok((of, View { flags: 0, ..fields.view(of, place)? }));
    let views: Vec<(AliasOf, View)> = kinds.into_iter().map(view).collect::<Result<_, _>>()?;
    if views.iter().any(|(_, view)| view.form == Form::Nothing) {
        let problem = Problem::new("a sink writes something or nothing", "Remove the key from the list.");
        return Err((problem, place.clone()));
    }
    Ok(Template { key: key.to_owned(), app, of, views: Views::ByKind(views), preset: None, place: place.clone() })
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
