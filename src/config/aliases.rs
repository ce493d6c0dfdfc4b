//! `aliases`, `presets` and `prefix` of an `[[app]]` -> the keys that show its credentials.
//!
//! A key may hold the app's secret, because some clients put it into theirs. Such a key is never shown: wherever
//! people read it, `{secret}` stands in its place, even if the file has it in full.

use super::fault::{Place, SettingProblem};
use super::reader::{RawTable, Reader, toml_text};
use super::value::{Given, RawValue, ReadResult, closest, kind, quoted, text, word};
use super::views::Fields;
use super::{Alias, CredentialName, View};
use crate::credential::alias_templates::{AliasTemplate, Owner, preset_templates};
use crate::encoding::request::form_as_toml;
use crate::encoding::{ClientLibrary, Form};
use crate::preset::{PRESETS, Preset};

const TABLE_KEYS: &[&str] = &["key", "of", "shows", "encoding", "fields", "constant", "flags", "at_least"];

pub(super) type PlacedTemplate = AliasTemplate<Place>;

impl Reader<'_> {
    /// The aliases as written, then those of the presets.
    pub(super) fn templates(&mut self, table: &RawTable, owner: &Owner<'_>) -> Vec<PlacedTemplate> {
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
        templates.retain_mut(|template| match template.fill(owner) {
            Ok(()) => true,
            Err(fault) => {
                self.fault_at(table, template.list(), fault.into(), &template.place);
                false
            }
        });
        templates
    }

    /// What stands before the keys of presets; some frameworks put nothing there.
    pub(super) fn prefix<'t>(&mut self, table: &'t RawTable, each: &str) -> &'t str {
        match table.get("prefix") {
            Some(Given { value: RawValue::Text(empty), .. }) if empty.is_empty() => "",
            Some(_) if !table.has("presets") => {
                let remedy = format!("Add presets = [...], or write the prefix into each {each}.");
                self.fault(table, "prefix", SettingProblem::new("there are no presets for it to stand before", remedy));
                ""
            }
            Some(given) => {
                text(&given.value).map_err(|problem| self.fault(table, "prefix", problem)).unwrap_or_default()
            }
            None => "",
        }
    }
}

pub(super) fn preset(value: &RawValue) -> ReadResult<&'static Preset> {
    let name = text(value)?;
    PRESETS.iter().find(|preset| preset.name == name).ok_or_else(|| {
        let names = || PRESETS.iter().map(|preset| preset.name);
        let remedy = match closest(name, names()) {
            Some(close) => format!("Did you mean {close:?}?"),
            None => format!("Known are {}.", names().collect::<Vec<_>>().join(", ")),
        };
        SettingProblem::new(format!("{} is not known", quoted(name)), remedy)
    })
}

fn template_of(
    item: &Given,
    kept: &[CredentialName],
    client: ClientLibrary,
) -> Result<PlacedTemplate, (SettingProblem, Place)> {
    match &item.value {
        RawValue::Text(key) => Ok(AliasTemplate { of: usual(kept), ..AliasTemplate::raw(key, item.place.clone()) }),
        RawValue::Table(fields) => table(fields, &item.place, kept, client),
        other => {
            let remedy = "Write a key in quotes, or a table such as { key = \"...\", encoding = \"json_string\" }.";
            Err((SettingProblem::new(format!("{} is not an alias", kind(other)), remedy), item.place.clone()))
        }
    }
}

fn table(
    given: &[(String, Given)],
    place: &Place,
    kept: &[CredentialName],
    client: ClientLibrary,
) -> Result<PlacedTemplate, (SettingProblem, Place)> {
    let fields = Fields::of(given, TABLE_KEYS, "an alias")?;
    let Some(key) = fields.read("key", text)? else {
        let problem = SettingProblem::new("an alias has no key", "Write { key = \"...\", ... }.");
        return Err((problem, place.clone()));
    };
    let of = fields.read("of", |value| of(value, kept))?.unwrap_or(usual(kept));
    let view = fields.view_for(client, of, place)?;
    Ok(AliasTemplate { key: key.to_owned(), of, view, preset: None, guessed: false, place: place.clone() })
}

/// What a key shows unless it says so: the app's token, which stands first.
fn usual(kept: &[CredentialName]) -> CredentialName {
    kept.first().copied().unwrap_or(CredentialName::AccessToken)
}

/// A type of credential by its word.
pub(super) fn of_word(value: &RawValue) -> ReadResult<CredentialName> {
    word(value, &CredentialName::ALL.map(|of| (CredentialName::word(of), of)))
}

fn of(value: &RawValue, kept: &[CredentialName]) -> ReadResult<CredentialName> {
    let of = of_word(value)?;
    if kept.contains(&of) {
        return Ok(of);
    }
    let kept = kept.iter().map(|of| format!("{:?}", of.word())).collect::<Vec<_>>().join(" or ");
    Err(SettingProblem::new(format!("{:?} is not kept for this app", of.word()), format!("Write {kept}.")))
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
