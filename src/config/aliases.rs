//! `aliases`, `presets` and `prefix` of an `[[app]]` -> the keys that show its credentials.
//!
//! A key may hold the app's secret, because some clients put it into theirs. Such a key is never spoken: wherever
//! people read it, `{secret}` stands in its place, even if the file has it in full.

use std::collections::HashMap;

use super::fault::{Place, Problem};
use super::reader::{Reader, Table, toml_text};
use super::value::{Given, Reading, Value, closest, kind, quoted, text, word};
use super::views::Fields;
use super::{Alias, CredentialName, SecretSource, View};
use crate::encoding::key_words::{fill, fit, known_words, spell, wants_secret};
use crate::encoding::request::form_as_toml;
use crate::encoding::{ClientLibrary, Form};
use crate::platform::{Platform, component};
use crate::preset::{PRESETS, Preset};

const TABLE_KEYS: &[&str] = &["key", "of", "shows", "encoding", "fields", "constant", "flags", "at_least"];

/// An alias before the secret is known.
pub(super) struct Template {
    key: String,
    of: CredentialName,
    view: View,
    /// The preset it comes from.
    preset: Option<&'static str>,
    /// See [`Preset::guesses`].
    guessed: bool,
    place: Place,
}

impl Template {
    pub fn raw(key: impl Into<String>, place: Place) -> Template {
        Template {
            key: key.into(),
            of: CredentialName::AccessToken,
            view: View::RAW,
            preset: None,
            guessed: false,
            place,
        }
    }

    /// The configuration's key it came from.
    fn list(&self) -> &'static str {
        if self.preset.is_some() { "presets" } else { "aliases" }
    }
}

/// Whose aliases they are.
pub(super) struct Owner<'a> {
    pub appid: &'a str,
    pub agent: Option<&'a str>,
    pub platform: &'a Platform,
    /// What the app keeps current.
    pub kept: &'a [CredentialName],
}

impl Owner<'_> {
    /// An authorizer has none, so nobody looks under a key with one.
    fn has_secret(&self) -> bool {
        self.platform.name != component::AUTHORIZERS.name
    }

    fn has_use_for(&self, of: CredentialName, key: &str) -> bool {
        let has_words = (self.has_secret() || !wants_secret(key)) && (self.agent.is_some() || !key.contains("{agent}"));
        self.kept.contains(&of) && has_words
    }
}

impl Reader<'_> {
    /// The aliases as written, then those of the presets.
    pub(super) fn templates(&mut self, table: &Table, owner: &Owner<'_>) -> Vec<Template> {
        let client = self.word(table, "client", &ClientLibrary::WORDS).unwrap_or_default();
        // The aliases that are printed say what comes of it.
        table.forget("client");
        let mut templates = Vec::new();
        for item in self.list(table, "aliases", "aliases = [\"access_token\"]") {
            match template_of(item, owner.kept, client) {
                Ok(template) => templates.push(template),
                Err((problem, place)) => self.fault_at(table, "aliases", problem, &place),
            }
        }
        let prefix = self.prefix(table, "alias");
        for item in self.list(table, "presets", "presets = [\"tutorial\"]") {
            match preset(&item.value) {
                Ok(preset) => templates.extend(preset_templates(preset, prefix, client, owner, &item.place)),
                Err(problem) => self.fault_at(table, "presets", problem, &item.place),
            }
        }
        templates.retain_mut(|template| match placeholders(&template.key, owner) {
            Ok(()) => {
                template.key = fill(&template.key, "appid", owner.appid);
                template.key = fill(&template.key, "agent", owner.agent.unwrap_or_default());
                true
            }
            Err(problem) => {
                self.fault_at(table, template.list(), problem, &template.place);
                false
            }
        });
        templates
    }

    /// What stands before the keys of presets; some frameworks put nothing there.
    pub(super) fn prefix<'t>(&mut self, table: &'t Table, each: &str) -> &'t str {
        match table.get("prefix") {
            Some(Given { value: Value::Text(empty), .. }) if empty.is_empty() => "",
            Some(_) if !table.has("presets") => {
                let remedy = format!("Add presets = [...], or write the prefix into each {each}.");
                self.fault(table, "prefix", Problem::new("there are no presets for it to stand before", remedy));
                ""
            }
            Some(given) => {
                text(&given.value).map_err(|problem| self.fault(table, "prefix", problem)).unwrap_or_default()
            }
            None => "",
        }
    }

    /// Of several apps with the same preset none has the keys that do not say whose they are.
    pub(super) fn drop_guesses<'t>(&mut self, apps: impl Iterator<Item = &'t mut Vec<Template>>) {
        let mut apps: Vec<_> = apps.collect();
        let mut counts: HashMap<String, usize> = HashMap::new();
        for template in apps.iter().flat_map(|templates| templates.iter()).filter(|template| template.guessed) {
            *counts.entry(template.key.clone()).or_default() += 1;
        }
        let is_shared = |template: &Template| template.guessed && counts.get(&template.key).is_some_and(|n| *n > 1);
        let Some(first) = apps.iter().flat_map(|templates| templates.iter()).find(|template| is_shared(template))
        else {
            return;
        };
        let count = counts.values().filter(|apps| **apps > 1).count();
        self.warnings.push(format!(
            "{}: several apps have this preset, so of its keys those that do not name the app are left to clients, {count} in \
             all, first {}; write the key that an app's clients read into its aliases",
            first.place,
            quoted(&first.key)
        ));
        for templates in &mut apps {
            templates.retain(|template| !is_shared(template));
        }
    }

    /// The keys themselves, with their places. What is written out wins over a preset.
    pub(super) fn expand(
        &mut self,
        table: &Table,
        templates: Vec<Template>,
        secret: &SecretSource,
    ) -> (Vec<Alias>, Vec<Place>) {
        let absent = secret.is_absent();
        let secret = secret.read().ok();
        let secret = secret.as_ref().map_or("", |secret| secret.expose());
        let (mut aliases, mut places): (Vec<Alias>, Vec<Place>) = Default::default();
        let mut presets: Vec<Option<&str>> = Vec::new();
        // Two presets have many keys in common; one fault will do.
        let mut told: Vec<(Option<&str>, Option<&str>)> = Vec::new();
        for template in templates {
            let list = template.list();
            let Template { key, of, view, preset, place, .. } = template;
            if absent && wants_secret(&key) {
                // Under a preset's key nobody is answered, as without the preset.
                if preset.is_none() {
                    let what = format!("{} wants the secret, and the app has none here", quoted(&key));
                    let remedy = "Remove the alias, or give the app its secret.";
                    self.fault_at(table, list, Problem::new(what, remedy), &place);
                }
                continue;
            }
            let (name, redacted_name) = spell(key, secret);
            if let Err(problem) = fit(&name, &redacted_name).map_err(Problem::from) {
                self.fault_at(table, list, problem, &place);
                continue;
            }
            let redacted_name = (redacted_name != name).then_some(redacted_name);
            let alias = Alias { name, redacted_name, of, view };
            let known = aliases.iter().position(|known| known.name == alias.name);
            let known = known.and_then(|at| Some((aliases.get(at)?, *presets.get(at)?)));
            match known {
                None => {
                    aliases.push(alias);
                    places.push(place);
                    presets.push(preset);
                }
                Some((known, first)) => {
                    let pair = (first, preset);
                    if let Some(problem) = disagreement(known, first, &alias, preset)
                        && (preset.is_none() || !told.contains(&pair))
                    {
                        self.fault_at(table, list, problem, &place);
                        told.push(pair);
                    }
                }
            }
        }
        (aliases, places)
    }
}

/// Every key of a preset that the app has a use for.
fn preset_templates<'a>(
    preset: &'static Preset,
    prefix: &'a str,
    client: ClientLibrary,
    owner: &'a Owner<'_>,
    place: &'a Place,
) -> impl Iterator<Item = Template> + use<'a> {
    let prefixes = preset.prefixes(prefix);
    let keys = preset.keys_for(owner.platform.has_agents, client).filter(|(of, key, _)| owner.has_use_for(*of, key));
    keys.flat_map(move |(of, key, view)| {
        prefixes.clone().into_iter().map(move |prefix| Template {
            key: format!("{prefix}{key}"),
            of,
            view: view.clone(),
            preset: Some(preset.name),
            guessed: preset.guesses(key),
            place: place.clone(),
        })
    })
}

/// What is wrong with a key that is there already. What is written out comes first, and wins over a preset.
fn disagreement(known: &Alias, first: Option<&str>, alias: &Alias, preset: Option<&str>) -> Option<Problem> {
    let key = quoted(alias.redacted_name());
    match (first, preset) {
        _ if known == alias => None,
        (None, Some(_)) => None,
        (Some(first), Some(second)) => {
            let what = format!("the presets {first:?} and {second:?} want different contents under {key}");
            let remedy = "Keep that of the framework that reads it, or write the key into aliases.";
            Some(Problem::new(what, remedy))
        }
        (_, None) => {
            let what = format!("the alias {key} is given twice, with different contents");
            Some(Problem::new(what, "Keep one of the two."))
        }
    }
}

pub(super) fn preset(value: &Value) -> Reading<&'static Preset> {
    let name = text(value)?;
    PRESETS.iter().find(|preset| preset.name == name).ok_or_else(|| {
        let names = || PRESETS.iter().map(|preset| preset.name);
        let remedy = match closest(name, names()) {
            Some(close) => format!("Did you mean {close:?}?"),
            None => format!("Known are {}.", names().collect::<Vec<_>>().join(", ")),
        };
        Problem::new(format!("{} is not known", quoted(name)), remedy)
    })
}

/// Words in braces must be known, and there must be something to stand for them.
fn placeholders(key: &str, owner: &Owner<'_>) -> Reading<()> {
    if !owner.has_secret() && wants_secret(key) {
        let what = format!("{} wants a secret, and an authorizer has none", quoted(key));
        return Err(Problem::new(what, "Known here is {appid}."));
    }
    if owner.agent.is_none() && key.contains("{agent}") {
        let what = format!("{} wants an agent, and the app has none", quoted(key));
        return Err(Problem::new(what, "Write agent = \"...\" of platform \"wecom\", or leave {agent} out."));
    }
    Ok(known_words(key, &["appid", "agent", "secret", "secret10", "any"])?)
}

fn template_of(item: &Given, kept: &[CredentialName], client: ClientLibrary) -> Result<Template, (Problem, Place)> {
    match &item.value {
        Value::Text(key) => Ok(Template { of: usual(kept), ..Template::raw(key, item.place.clone()) }),
        Value::Table(fields) => table(fields, &item.place, kept, client),
        other => {
            let remedy = "Write a key in quotes, or a table such as { key = \"...\", encoding = \"json_string\" }.";
            Err((Problem::new(format!("{} is not an alias", kind(other)), remedy), item.place.clone()))
        }
    }
}

fn table(
    given: &[(String, Given)],
    place: &Place,
    kept: &[CredentialName],
    client: ClientLibrary,
) -> Result<Template, (Problem, Place)> {
    let fields = Fields::of(given, TABLE_KEYS, "an alias")?;
    let Some(key) = fields.read("key", text)? else {
        let problem = Problem::new("an alias has no key", "Write { key = \"...\", ... }.");
        return Err((problem, place.clone()));
    };
    let of = fields.read("of", |value| of(value, kept))?.unwrap_or(usual(kept));
    let view = fields.view_for(client, of, place)?;
    Ok(Template { key: key.to_owned(), of, view, preset: None, guessed: false, place: place.clone() })
}

/// What a key shows unless it says so: the app's token, which stands first.
fn usual(kept: &[CredentialName]) -> CredentialName {
    kept.first().copied().unwrap_or(CredentialName::AccessToken)
}

/// A kind of credential by its word.
pub(super) fn of_word(value: &Value) -> Reading<CredentialName> {
    word(value, &CredentialName::ALL.map(|of| (CredentialName::word(of), of)))
}

fn of(value: &Value, kept: &[CredentialName]) -> Reading<CredentialName> {
    let of = of_word(value)?;
    if kept.contains(&of) {
        return Ok(of);
    }
    let kept = kept.iter().map(|of| format!("{:?}", of.word())).collect::<Vec<_>>().join(" or ");
    Err(Problem::new(format!("{:?} is not kept for this app", of.word()), format!("Write {kept}.")))
}

/// An alias as the file could have it.
pub(super) fn as_toml(alias: &Alias) -> String {
    let key = toml_text(alias.redacted_name());
    let usual = matches!(alias.of, CredentialName::AccessToken | CredentialName::ComponentToken);
    if usual && alias.view == View::RAW {
        return key;
    }
    let (view, form) = (&alias.view, form_as_toml(&alias.view.form, toml_text));
    let mut text = format!("{{ key = {key}, {form}");
    if !usual {
        text += &format!(", of = \"{}\"", alias.of.word());
    }
    if view.flags != 0 || matches!(view.form, Form::Php(_)) {
        text += &format!(", flags = {}", view.flags);
    }
    if view.at_least_s != 0 {
        text += &format!(", at_least = {}", view.at_least_s);
    }
    text + " }"
}
