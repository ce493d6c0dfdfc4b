//! Keys of a sink as templates (`{type}:{id}`) -> the keys of each app. Pure but for reading an app's secret, which
//! a key may hold; such a key is never shown.

use std::collections::{HashMap, HashSet};

use super::options::{SinkContent, SinkEntry};
use crate::credential::App;
use crate::encoding::key_words::{fill_type, has_type, insert_secret, known_words, wants_secret};
use crate::encoding::request::view_for;
use crate::encoding::{ClientLibrary, Form, View};
use crate::invalid_value::{InvalidValue, did_you_mean, quoted, quoted_name, wrong};
use crate::platform::CredentialName;
use crate::preset::Preset;
use crate::raw_value::{Fields, Given, PartsResult, ReadResult, key_and_fields, text, word};
use crate::secret::Secret;

const KEY_BYTES_MAX: usize = 1024;
const TABLE_KEYS: &[&str] = &["key", "app", "of", "shows", "encoding", "fields", "constant", "at_least"];
const PLACEHOLDERS: &[&str] = &["type", "id", "appid", "agent", "secret", "secret10"];

/// Which apps and types a sink is about.
pub struct Scope<'a> {
    pub apps: Vec<&'a App>,
    pub ids: HashSet<String>,
    /// None: all types.
    pub types: Option<Vec<CredentialName>>,
}

impl Scope<'_> {
    /// The app's credentials that this sink writes.
    pub fn kept(&self, app: &App) -> Vec<CredentialName> {
        let wanted = |of: &CredentialName| self.types.as_ref().is_none_or(|types| types.contains(of));
        app.credential_types().filter_map(CredentialName::of).filter(wanted).collect()
    }

    /// One entry for each credential, named as memcached's clients name it.
    pub fn credentials(&self) -> Vec<SinkEntry> {
        let all = self.apps.iter().flat_map(|app| self.kept(app).into_iter().map(move |of| (app.id(), of)));
        let entry = |(app, of): (String, CredentialName)| {
            let name = format!("{}:{app}", of.word());
            SinkEntry { app, of, name, redacted_name: None, content: SinkContent::View(View::RAW) }
        };
        all.map(entry).collect()
    }
}

/// A key as a template, before its app is known.
pub struct KeyTemplate {
    pub key: String,
    /// For this app alone.
    pub app: Option<String>,
    /// None: whatever `{type}` stands for, or the app's token.
    pub of: Option<CredentialName>,
    /// For the types that it can be of, since fields have their names from the type; the others' are raw.
    pub views: Vec<(CredentialName, View)>,
    /// It came from a preset: for apps of a platform with agents, or for the others, which have keys of their own.
    pub of_preset: Option<bool>,
}

/// How a sink with these fields shows credentials of these types; no client looks at its flags.
pub fn views(fields: &Fields<'_>, types: &[CredentialName]) -> PartsResult<Vec<(CredentialName, View)>> {
    let view = |of: &CredentialName| view_for(fields, ClientLibrary::default(), of.value_name());
    types.iter().map(|of| Ok((*of, View { flags: 0, ..view(of)? }))).collect()
}

pub fn known_app(known: &HashSet<String>, id: &str) -> ReadResult<()> {
    if known.contains(id) {
        return Ok(());
    }
    let usual = || "Write the appid of an [[app]]; with an agent, \"<corpid>:<agent>\".".to_owned();
    let remedy = did_you_mean(id, known.iter().map(String::as_str), usual);
    wrong(format!("the app {} is not there", quoted_name(id)), remedy)
}

#[derive(Default)]
pub struct Keys {
    pub entries: Vec<SinkEntry>,
    /// Which template each came from.
    pub origins: Vec<usize>,
    /// What is wrong with a template, at most once each.
    pub faults: Vec<(usize, InvalidValue)>,
    /// Where each name stands.
    known: HashMap<String, usize>,
}

impl Keys {
    pub fn expand(templates: &[KeyTemplate], scope: &Scope<'_>) -> Keys {
        let mut keys = Keys::default();
        // One fault a template will do, however many apps it is about.
        let (mut used, mut spoilt) = (vec![false; templates.len()], vec![false; templates.len()]);
        // Ten thousand apps with a key each are ordinary.
        let (mut of_one, mut of_all): (HashMap<&str, Vec<usize>>, Vec<usize>) = Default::default();
        for (at, template) in templates.iter().enumerate() {
            template.app.as_deref().map_or(&mut of_all, |app| of_one.entry(app).or_default()).push(at);
        }
        for app in &scope.apps {
            let (id, kept) = (app.id(), scope.kept(app));
            let secret = if has_secret(app) { app.secret.read().ok() } else { None };
            let mut own: Vec<usize> =
                of_all.iter().chain(of_one.get(id.as_str()).into_iter().flatten()).copied().collect();
            own.sort_unstable();
            for at in own {
                let template = &templates[at];
                for of in template.types(app, &kept) {
                    used[at] = true;
                    let key = template.key(app, of, secret.as_ref().map_or("", Secret::expose));
                    if let Err(fault) = key.and_then(|key| keys.claim(key, at, template.of_preset.is_some()))
                        && !std::mem::replace(&mut spoilt[at], true)
                    {
                        keys.faults.push((at, fault));
                    }
                }
            }
        }
        let unused = templates.iter().zip(used).enumerate().filter(|(_, (of, used))| !used && of.of_preset.is_none());
        for (at, _) in unused.filter(|_| !scope.apps.is_empty()) {
            let what = "a key is about nothing that is kept for these apps";
            let remedy = "See tickets of the [[app]], and apps and types of the [[sink]].";
            keys.faults.push((at, InvalidValue::new(what, remedy)));
        }
        keys
    }

    /// What is written out comes first, and wins over a preset. Two templates may not mean one name otherwise.
    pub fn claim(&mut self, key: SinkEntry, at: usize, is_of_preset: bool) -> Result<(), InvalidValue> {
        match self.known.get(&key.name).and_then(|at| self.entries.get(*at)) {
            None => {
                self.known.insert(key.name.clone(), self.entries.len());
                self.entries.push(key);
                self.origins.push(at);
                Ok(())
            }
            Some(first) if is_of_preset && first.app == key.app || same(first, &key) => Ok(()),
            Some(first) => Err(duplicate_key_fault(first, &key)),
        }
    }
}

impl KeyTemplate {
    pub fn raw(key: &str) -> KeyTemplate {
        KeyTemplate { key: key.to_owned(), app: None, of: None, views: Vec::new(), of_preset: None }
    }

    pub fn read(item: &Given, scope: &Scope<'_>) -> PartsResult<KeyTemplate> {
        let (key, fields) = key_and_fields(item, TABLE_KEYS, ["a key", "a sink's key", "a table"])?;
        known_words(key, PLACEHOLDERS)?;
        let Some(fields) = fields else { return Ok(KeyTemplate::raw(key)) };
        let app = fields.read("app", text)?.map(str::to_owned);
        if let Some(id) = &app {
            known_app(&scope.ids, id)?;
        }
        let of = fields.read("of", |value| word(value, &CredentialName::words()))?;
        let types: Vec<CredentialName> = of.map_or_else(|| CredentialName::ALL.to_vec(), |of| vec![of]);
        let views = views(&fields, &types)?;
        if views.iter().any(|(_, view)| view.form == Form::Nothing) {
            wrong::<()>("a sink writes something or nothing", "Remove the key from the list.")?;
        }
        Ok(KeyTemplate { key: key.to_owned(), app, of, views, of_preset: None })
    }

    pub fn of_preset(preset: &'static Preset, prefix: &str) -> Vec<KeyTemplate> {
        let of_platform = |agents| {
            let written = preset.keys(agents).filter(|(.., view)| view.form != Form::Nothing);
            written.map(move |(of, key, view)| KeyTemplate {
                key: format!("{prefix}{key}"),
                app: None,
                of: Some(of),
                views: vec![(of, View { flags: 0, ..view })],
                of_preset: Some(agents),
            })
        };
        [false, true].into_iter().flat_map(of_platform).collect()
    }

    /// The app's credentials that this key is for.
    fn types(&self, app: &App, kept: &[CredentialName]) -> Vec<CredentialName> {
        // An authorizer has no secret, so no client reads a key with one.
        let fits = |of_agents| {
            of_agents == app.platform.has_agents
                && (has_secret(app) || !wants_secret(&self.key))
                && (app.agent.is_some() || !self.key.contains("{agent}"))
        };
        if !self.of_preset.is_none_or(fits) {
            return Vec::new();
        }
        match self.of {
            Some(of) => kept.iter().copied().filter(|kept| *kept == of).collect(),
            None if has_type(&self.key) => kept.to_vec(),
            // The app's token stands first.
            None => kept.first().copied().into_iter().collect(),
        }
    }

    fn key(&self, app: &App, of: CredentialName, secret: &str) -> Result<SinkEntry, InvalidValue> {
        if app.agent.is_none() && self.key.contains("{agent}") {
            let what = format!("a key with {{agent}}, and the app {} has none", quoted(&app.id()));
            return Err(InvalidValue::new(what, "Write {id} in its place, or name the apps of this sink."));
        }
        if !has_secret(app) && wants_secret(&self.key) {
            let owner = if app.component.is_some() { "authorizer" } else { "app" };
            let what = format!("a key with a secret, and the {owner} {} has none", quoted(&app.id()));
            return Err(InvalidValue::new(what, "Name the apps of this sink, or write {appid} in its place."));
        }
        let key = fill_type(&self.key, of.word()).replace("{id}", &app.id());
        let key = key.replace("{appid}", &app.appid).replace("{agent}", app.agent.as_deref().unwrap_or_default());
        let (name, redacted_name) = insert_secret(key, secret);
        if name.is_empty() || name.len() > KEY_BYTES_MAX || name.bytes().any(|byte| byte < b' ' || byte == 0x7f) {
            let what = format!(
                "the key {} is empty, longer than {KEY_BYTES_MAX} bytes or has a control character",
                quoted(&redacted_name)
            );
            return Err(InvalidValue::new(what, "Write a key such as \"{type}:{appid}\"."));
        }
        let redacted_name = (redacted_name != name).then_some(redacted_name);
        let view = self.views.iter().find(|(only, _)| *only == of).map_or(View::RAW, |(_, view)| view.clone());
        Ok(SinkEntry { app: app.id(), of, name, redacted_name, content: SinkContent::View(view) })
    }
}

/// A refresh token is no part of any key.
fn has_secret(app: &App) -> bool {
    app.component.is_none() && !app.secret.is_absent()
}

fn same(first: &SinkEntry, second: &SinkEntry) -> bool {
    first == second || first.content.is_constant() && first.content == second.content
}

fn duplicate_key_fault(first: &SinkEntry, second: &SinkEntry) -> InvalidValue {
    let key = quoted(second.redacted_name());
    if first.app == second.app {
        return InvalidValue::new(
            format!("the key {key} is given twice, with different contents"),
            "Keep one of the two.",
        );
    }
    let what = format!("the key {key} is that of the app {} already, and {} would overwrite it", first.app, second.app);
    InvalidValue::new(what, "Name one app in apps, or put {appid} into the key.")
}
