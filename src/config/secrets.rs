//! Secrets: written out, in a file, in a variable, or as a credential that systemd hands over. Never quotes one.

use std::path::Path;

use super::cluster::ClusterRole;
use super::reader::{RawTable, Reader};
use super::value::Value;
use crate::credential::judge_appid;
use crate::encoding::toml_text::toml_text;
use crate::files;
use crate::invalid_value::{InvalidValue, looks_like_secret, quoted_name};
use crate::raw_value::{Given, Place, ReadResult, text};
use crate::secret_source::{HIDDEN, SecretFault, SecretSource, of_text, of_variable};
use crate::unit::credentials;

/// A secret that a table may have, and what people call it.
pub(super) struct SecretSpec {
    /// The key that has it written out; the others begin with it.
    pub key: &'static str,
    /// What it is: "secret".
    pub noun: &'static str,
    /// Who has it: "an app".
    pub owner: &'static str,
    /// What belongs into its file: "the app's secret".
    pub content: &'static str,
}

const ENDINGS: [&str; 4] = ["", "_file", "_env", "_credential"];

impl SecretSpec {
    /// The keys of the ways in which it is given.
    pub fn keys(&self) -> impl Iterator<Item = String> {
        ENDINGS.iter().map(|end| format!("{}{end}", self.key))
    }

    /// The ways in which it is given, those of the highest layer.
    fn given<'t>(&self, table: &'t RawTable) -> Vec<(&'static str, &'t Given)> {
        let keys = self.keys().filter_map(|key| table.section.find(&key)).map(|setting| setting.key);
        let given: Vec<_> = keys.filter_map(|key| Some((key, table.get(key)?))).collect();
        let layer = given.iter().map(|(_, given)| given.place.layer()).max();
        given.into_iter().filter(|(_, given)| Some(given.place.layer()) == layer).collect()
    }

    /// The key by which it is given first, if it is.
    pub fn given_by(&self, table: &RawTable) -> Option<&'static str> {
        self.given(table).first().map(|(key, _)| *key)
    }

    pub fn is_given(&self, table: &RawTable) -> bool {
        self.given_by(table).is_some()
    }
}

impl Reader<'_> {
    /// A secret; none if it is not given, or in a wrong way.
    pub fn secret(&mut self, table: &RawTable, spec: &SecretSpec) -> Option<SecretSource> {
        self.placed_secret(table, spec).map(|(source, _)| source)
    }

    /// The same, with where it is, unless that is the table itself.
    pub fn placed_secret(&mut self, table: &RawTable, spec: &SecretSpec) -> Option<(SecretSource, Option<String>)> {
        let given = spec.given(table);
        let (key, given) = match given[..] {
            [] => return None,
            [one] => one,
            [_, (_, second), ..] => {
                let names: Vec<&str> = given.iter().map(|(key, _)| *key).collect();
                let what = format!("{} has {}", spec.owner, names.join(" and "));
                self.refuse(&second.place, what, "Keep one of them.");
                return None;
            }
        };
        if table.section.name.starts_with("app") && self.cluster_role == ClusterRole::Follower {
            self.fault((table, key), no_use_for_a_secret(spec.noun));
        }
        let secret = self.secret_by(table, key, given, spec);
        self.accept((table, key), secret)
    }

    fn secret_by(
        &mut self,
        table: &RawTable,
        key: &str,
        given: &Given,
        spec: &SecretSpec,
    ) -> ReadResult<(SecretSource, Option<String>)> {
        let name = text(&given.value)?;
        let judged = |found: Result<_, SecretFault>, what: &str, verb: &str| {
            found.map_err(|fault| InvalidValue::new(format!("{what} {fault}"), format!("{verb} {}.", spec.content)))
        };
        match key.strip_prefix(spec.key).unwrap_or_default() {
            "_file" => {
                let path = self.base_of(&given.place).join(name);
                table.print(key, path.clone());
                Ok((self.secret_file(SecretSource::file(&path), &path, table, spec)?, Some(path.display().to_string())))
            }
            "_credential" => {
                let path = credentials::path(self.environment, name, &format!("{}_file", spec.key))?;
                table.print(key, name);
                let source = self.secret_file(SecretSource::credential(&path), &path, table, spec)?;
                Ok((source, Some(format!("the credential {}", quoted_name(name)))))
            }
            "_env" => {
                let secret = self.environment.get(name).ok_or_else(|| {
                    let what = format!("the environment has no variable {}", quoted_name(name));
                    InvalidValue::new(what, "Set the variable, or correct its name.")
                })?;
                let secret = judged(of_variable(&secret), &format!("the variable {}", quoted_name(name)), "Set it to")?;
                table.print(key, name);
                Ok((SecretSource::Environment(secret), Some(format!("environment {}", quoted_name(name)))))
            }
            _ => {
                let secret = judged(of_text(name), &format!("the {}", spec.noun), "Write")?;
                if let Place::Environment(variable) = &given.place {
                    table.print(&format!("{key}_env"), variable.clone());
                    return Ok((SecretSource::Environment(secret), None));
                }
                table.print(key, Value::Toml(format!("{} # written in the file", toml_text(HIDDEN))));
                let open = if self.file_is_open { ", and others may read this file (chmod 600)" } else { "" };
                self.warnings.push(format!(
                    "{}: the {} is written in the configuration{open}; {}_file keeps it apart",
                    given.place, spec.noun, spec.key
                ));
                Ok((SecretSource::Fixed(secret), None))
            }
        }
    }

    fn secret_file(
        &mut self,
        source: SecretSource,
        path: &Path,
        table: &RawTable,
        spec: &SecretSpec,
    ) -> ReadResult<SecretSource> {
        source.read().map_err(|fault| {
            let setting = format!("{}_credential", spec.key);
            let of_app = table.get("appid").and_then(|given| text(&given.value).ok());
            let of_app = of_app.filter(|appid| judge_appid(appid).is_ok());
            let by_unit = || credentials::remedy_if_denied(self.environment, path, &setting, of_app);
            let by_unit = if matches!(fault, SecretFault::Unreadable(_)) { by_unit() } else { None };
            let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
            let shown = if looks_like_secret(name) { quoted_name(name) } else { path.display().to_string() };
            let remedy = by_unit.unwrap_or_else(|| fault.remedy_in_file(spec.content));
            InvalidValue::new(format!("{shown} {fault}"), remedy)
        })?;
        if files::is_open_to_others(path) {
            self.warnings.push(format!("{}: others may read this secret (chmod 600)", path.display()));
        }
        Ok(source)
    }
}

pub(super) fn no_use_for_a_secret(noun: &str) -> InvalidValue {
    let what = format!("a node with leader_urls in [state] never calls WeChat and has no use for a {noun}");
    InvalidValue::new(what, "Remove it, or share a Redis by url in [state].")
}
