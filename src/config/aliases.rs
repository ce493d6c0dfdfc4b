//! `aliases`, `presets` and `prefix` of an `[[app]]` -> the keys that show its credentials.
//!
//! A key may hold the app's secret, because some clients put it into theirs. Such a key is never shown: wherever
//! people read it, `{secret}` stands in its place, even if the file has it in full.

use super::fault::Place;
use super::reader::{RawTable, Reader, toml_text};
use super::report::{PlacedResult, named};
use super::value::{Given, RawValue, ReadResult, text, word, wrong};
use super::views::key_and_fields;
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
            templates.extend(self.accept(table, "aliases", template(item, owner.kept, client)));
        }
        let prefix = self.prefix(table, "alias");
        for (preset, place) in self.items(table, "presets", "presets = [\"tutorial\"]", preset) {
            templates.extend(preset_templates(preset, prefix, client, owner, place));
        }
        templates.retain_mut(|template| {
            let filled = template.fill(owner);
            filled.map_err(|fault| self.fault_at(table, template.list(), fault, &template.place)).is_ok()
        });
        templates
    }

    /// What stands before the keys of presets; some frameworks put nothing there.
    pub(super) fn prefix<'t>(&mut self, table: &'t RawTable, each: &str) -> &'t str {
        match table.get("prefix") {
            Some(Given { value: RawValue::Text(empty), .. }) if empty.is_empty() => "",
            Some(_) if !table.has("presets") => {
                let remedy = format!("Add presets = [...], or write the prefix into each {each}.");
                self.refuse(table, "prefix", "there are no presets for it to stand before", remedy);
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
    named(value, PRESETS, |preset| preset.name, "Known are")
}

fn template(item: &Given, kept: &[CredentialName], client: ClientLibrary) -> PlacedResult<PlacedTemplate> {
    let (key, fields) = key_and_fields(item, TABLE_KEYS, ["an alias", "an alias", "an alias"])?;
    let mut template = AliasTemplate { of: usual(kept), ..AliasTemplate::raw(key, item.place.clone()) };
    if let Some(fields) = fields {
        template.of = fields.read("of", |value| of(value, kept))?.unwrap_or(template.of);
        template.view = fields.view_for(client, template.of, &item.place)?;
    }
    Ok(template)
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
    wrong(format!("{:?} is not kept for this app", of.word()), format!("Write {kept}."))
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
