//! Aliases as templates (`{appid}`, `{secret}`) -> the keys of an app. Pure but for reading the app's secret.

use std::collections::HashMap;

use super::Alias;
use crate::encoding::key_words::{check_key, fill, insert_secret, known_words, wants_secret};
use crate::encoding::request::view_for;
use crate::encoding::{ClientLibrary, View};
use crate::invalid_value::{InvalidValue, quoted, wrong};
use crate::platform::{CredentialName, Platform, component};
use crate::preset::Preset;
use crate::raw_value::{Given, PartsResult, Place, RawValue, ReadResult, key_and_fields, word};
use crate::secret_source::SecretSource;

const TABLE_KEYS: &[&str] = &["key", "of", "shows", "encoding", "fields", "constant", "flags", "at_least"];

/// An alias as a template: the app and its secret are not filled in yet.
pub struct AliasTemplate {
    pub key: String,
    pub of: CredentialName,
    pub view: View,
    pub preset: Option<&'static str>,
    /// See [`Preset::guesses`].
    pub guessed: bool,
    pub place: Place,
}

impl AliasTemplate {
    pub fn raw(key: impl Into<String>, place: Place) -> AliasTemplate {
        let (key, of) = (key.into(), CredentialName::AccessToken);
        AliasTemplate { key, of, view: View::RAW, preset: None, guessed: false, place }
    }

    /// An item of `aliases`, of an app that keeps these.
    pub fn read(item: &Given, kept: &[CredentialName], client: ClientLibrary) -> PartsResult<AliasTemplate> {
        let (key, fields) = key_and_fields(item, TABLE_KEYS, ["an alias", "an alias", "an alias"])?;
        let mut template = AliasTemplate::raw(key, item.place.clone());
        // What a key shows unless it says so: the app's token, which stands first.
        template.of = kept.first().copied().unwrap_or(template.of);
        if let Some(fields) = fields {
            template.of = fields.read("of", |value| of(value, kept))?.unwrap_or(template.of);
            template.view = view_for(&fields, client, template.of.value_name())?;
        }
        Ok(template)
    }

    /// The configuration's key it came from.
    pub fn list(&self) -> &'static str {
        if self.preset.is_some() { "presets" } else { "aliases" }
    }

    /// Puts the owner's names in their places. Words in braces must be known, and there must be something to stand for them.
    pub fn fill(&mut self, owner: &Owner<'_>) -> Result<(), InvalidValue> {
        let key = &self.key;
        if !owner.has_secret() && wants_secret(key) {
            return wrong(
                format!("{} wants a secret, and an authorizer has none", quoted(key)),
                "Known here is {appid}.",
            );
        }
        if owner.agent.is_none() && key.contains("{agent}") {
            let remedy = "Write agent = \"...\" of platform \"wecom\", or leave {agent} out.";
            return wrong(format!("{} wants an agent, and the app has none", quoted(key)), remedy);
        }
        known_words(key, &["appid", "agent", "secret", "secret10", "any"])?;
        self.key = fill(&fill(key, "appid", owner.appid), "agent", owner.agent.unwrap_or_default());
        Ok(())
    }
}

fn of(value: &RawValue, kept: &[CredentialName]) -> ReadResult<CredentialName> {
    let of = word(value, &CredentialName::words())?;
    if kept.contains(&of) {
        return Ok(of);
    }
    let kept = kept.iter().map(|of| format!("{:?}", of.word())).collect::<Vec<_>>().join(" or ");
    wrong(format!("{:?} is not kept for this app", of.word()), format!("Write {kept}."))
}

pub struct Owner<'a> {
    pub appid: &'a str,
    pub agent: Option<&'a str>,
    pub platform: &'a Platform,
    pub kept: &'a [CredentialName],
}

impl Owner<'_> {
    /// False for an authorizer: it has no secret, so no client reads a key with one.
    fn has_secret(&self) -> bool {
        self.platform.name != component::AUTHORIZERS.name
    }

    fn has_use_for(&self, of: CredentialName, key: &str) -> bool {
        let has_words = (self.has_secret() || !wants_secret(key)) && (self.agent.is_some() || !key.contains("{agent}"));
        self.kept.contains(&of) && has_words
    }
}

/// What is wrong with an alias: the configuration's key it came from, and where that was given.
pub type AliasFault = (&'static str, InvalidValue, Place);

/// The keys themselves, with their places. An alias that is written out wins over one of a preset.
pub fn expand(templates: Vec<AliasTemplate>, secret: &SecretSource) -> (Vec<Alias>, Vec<Place>, Vec<AliasFault>) {
    let absent = secret.is_absent();
    let secret = secret.read().ok();
    let secret = secret.as_ref().map_or("", |secret| secret.expose());
    let (mut aliases, mut places, mut faults): (Vec<Alias>, Vec<Place>, Vec<AliasFault>) = Default::default();
    let mut presets: Vec<Option<&str>> = Vec::new();
    // Two presets have many keys in common; one fault will do.
    let mut reported: Vec<(Option<&str>, Option<&str>)> = Vec::new();
    for template in templates {
        let list = template.list();
        let AliasTemplate { key, of, view, preset, place, .. } = template;
        if absent && wants_secret(&key) {
            // A key of a preset is left out without a fault: reads of it miss, as without the preset.
            if preset.is_none() {
                let what = format!("{} wants the secret, and the app has none here", quoted(&key));
                let remedy = "Remove the alias, or give the app its secret.";
                faults.push((list, InvalidValue::new(what, remedy), place));
            }
            continue;
        }
        let (name, redacted_name) = insert_secret(key, secret);
        if let Err(fault) = check_key(&name, &redacted_name) {
            faults.push((list, fault, place));
            continue;
        }
        let redacted_name = (redacted_name != name).then_some(redacted_name);
        let alias = Alias { name, redacted_name, of, view };
        let Some(at) = aliases.iter().position(|known| known.name == alias.name) else {
            aliases.push(alias);
            places.push(place);
            presets.push(preset);
            continue;
        };
        let pair = (presets[at], preset);
        if let Some(fault) = disagreement(&aliases[at], pair.0, &alias, preset)
            && (preset.is_none() || !reported.contains(&pair))
        {
            faults.push((list, fault, place));
            reported.push(pair);
        }
    }
    (aliases, places, faults)
}

/// Some keys of a preset do not name the app. If several apps use the preset, none of them gets these keys: removes
/// them. Returns how many keys were removed, and the place and key of the first.
pub fn drop_guesses<'t>(apps: impl Iterator<Item = &'t mut Vec<AliasTemplate>>) -> Option<(usize, Place, String)> {
    let mut apps: Vec<_> = apps.collect();
    let mut counts: HashMap<String, usize> = HashMap::new();
    for template in apps.iter().flat_map(|templates| templates.iter()).filter(|template| template.guessed) {
        *counts.entry(template.key.clone()).or_default() += 1;
    }
    counts.retain(|_, apps| *apps > 1);
    let is_shared = |template: &AliasTemplate| template.guessed && counts.contains_key(&template.key);
    let first = apps.iter().flat_map(|templates| templates.iter()).find(|template| is_shared(template))?;
    let (place, key) = (first.place.clone(), first.key.clone());
    apps.iter_mut().for_each(|templates| templates.retain(|template| !is_shared(template)));
    Some((counts.len(), place, key))
}

/// Every key of a preset that the app has a use for.
pub fn preset_templates<'a>(
    preset: &'static Preset,
    prefix: &'a str,
    client: ClientLibrary,
    owner: &'a Owner<'_>,
    place: &'a Place,
) -> impl Iterator<Item = AliasTemplate> + use<'a> {
    let prefixes = preset.prefixes(prefix);
    let keys = preset.keys_for(owner.platform.has_agents, client).filter(|(of, key, _)| owner.has_use_for(*of, key));
    keys.flat_map(move |(of, key, view)| {
        prefixes.clone().into_iter().map(move |prefix| AliasTemplate {
            key: format!("{prefix}{key}"),
            of,
            view: view.clone(),
            preset: Some(&preset.name),
            guessed: preset.guesses(&key),
            place: place.clone(),
        })
    })
}

/// What is wrong with a second alias for the same key; none if there is no fault. One that is written out wins over a
/// preset.
fn disagreement(known: &Alias, first: Option<&str>, alias: &Alias, preset: Option<&str>) -> Option<InvalidValue> {
    let key = quoted(alias.redacted_name());
    match (first, preset) {
        _ if known == alias => None,
        (None, Some(_)) => None,
        (Some(first), Some(second)) => Some(InvalidValue::new(
            format!("the presets {first:?} and {second:?} want different contents under {key}"),
            "Keep that of the framework that reads it, or write the key into aliases.",
        )),
        (_, None) => {
            let what = format!("the alias {key} is given twice, with different contents");
            Some(InvalidValue::new(what, "Keep one of the two."))
        }
    }
}
