//! `aliases`, `presets` and `prefix` of an `[[app]]` -> the keys that show its credentials.
//!
//! A key may hold the app's secret, because some clients put it into theirs. Such a key is never shown: wherever
//! people read it, `{secret}` stands in its place, even if the file has it in full.

use super::reader::{RawTable, Reader};
use crate::credential::alias_templates::{AliasTemplate, Owner, preset_templates};
use crate::encoding::ClientLibrary;
use crate::preset::{Preset, presets};
use crate::raw_value::{Given, RawValue, ReadResult, named, text};

impl Reader<'_> {
    /// The aliases as written, then those of the presets.
    pub(super) fn templates(&mut self, table: &RawTable, owner: &Owner<'_>) -> Vec<AliasTemplate> {
        let client = self.word(table, "client", &ClientLibrary::WORDS).unwrap_or_default();
        // The aliases that are printed say what comes of it.
        table.forget("client");
        let written = |item| AliasTemplate::read(item, owner.kept, client);
        let written = self.items(table, "aliases", "aliases = [\"access_token\"]", written);
        let mut templates: Vec<_> = written.into_iter().map(|(template, _)| template).collect();
        let prefix = self.prefix(table, "alias");
        for (preset, place) in self.items(table, "presets", "presets = [\"tutorial\"]", |item| preset(&item.value)) {
            templates.extend(preset_templates(preset, prefix, client, owner, place));
        }
        templates.retain_mut(|template| {
            let filled = template.fill(owner);
            self.accept((table, template.list(), &template.place), filled).is_some()
        });
        templates
    }

    /// What stands before the keys of presets; some frameworks put nothing there.
    pub(super) fn prefix<'t>(&mut self, table: &'t RawTable, each: &str) -> &'t str {
        match table.get("prefix") {
            Some(Given { value: RawValue::Text(empty), .. }) if empty.is_empty() => "",
            Some(_) if !table.has("presets") => {
                let remedy = format!("Add presets = [...], or write the prefix into each {each}.");
                self.refuse((table, "prefix"), "there are no presets for it to stand before", remedy);
                ""
            }
            Some(given) => self.accept((table, "prefix"), text(&given.value)).unwrap_or_default(),
            None => "",
        }
    }
}

pub(super) fn preset(value: &RawValue) -> ReadResult<&'static Preset> {
    named(value, presets(), |preset| &preset.name, "Known are")
}
