//! Secrets: written out, in a file, in a variable, or as a credential that systemd hands over (`LoadCredential=` of a unit puts
//! files into `$CREDENTIALS_DIRECTORY`). Never quotes one.

use std::fs::File;
use std::io::ErrorKind;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use super::Config;
use super::cluster::ClusterRole;
use super::environment::Environment;
use super::fault::Place;
use super::reader::{RawTable, Reader, toml_path, toml_text};
use super::value::{Given, RawValue, ReadResult, text, wrong};
use crate::invalid_value::{InvalidValue, looks_like_secret, quoted_name};
use crate::secret_source::{HIDDEN, SecretFault, SecretOrigin, SecretSource, of_text, of_variable};

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
    /// An app's own, which other nodes may have in this one's place.
    pub of_app: bool,
}

const ENDINGS: [&str; 4] = ["", "_file", "_env", "_credential"];

/// The keys of the ways in which a secret is given.
pub(super) fn keys_of(key: &str) -> impl Iterator<Item = String> {
    ENDINGS.iter().map(move |end| format!("{key}{end}"))
}

impl SecretSpec {
    /// The ways in which it is given, those of the highest layer.
    fn given<'t>(&self, table: &'t RawTable) -> Vec<(&'static str, &'t Given)> {
        let keys = keys_of(self.key).filter_map(|key| table.section.find(&key)).map(|setting| setting.key);
        let given: Vec<_> = keys.filter_map(|key| Some((key, table.get(key)?))).collect();
        let layer = given.iter().map(|(_, given)| given.place.layer()).max();
        given.into_iter().filter(|(_, given)| Some(given.place.layer()) == layer).collect()
    }

    /// Where it is given first, if it is.
    pub fn place<'t>(&self, table: &'t RawTable) -> Option<(&'static str, &'t Place)> {
        self.given(table).first().map(|(key, given)| (*key, &given.place))
    }

    pub fn is_given(&self, table: &RawTable) -> bool {
        !self.given(table).is_empty()
    }
}

impl Reader<'_> {
    /// A secret, and where it comes from; none if it is not given, or in a wrong way. `appid` is the app's whose it is.
    pub fn secret(
        &mut self,
        table: &RawTable,
        appid: Option<&str>,
        spec: &SecretSpec,
    ) -> Option<(SecretSource, SecretOrigin)> {
        let given = spec.given(table);
        let (key, given) = match given[..] {
            [] => return None,
            [one] => one,
            [_, (_, second), ..] => {
                let names: Vec<&str> = given.iter().map(|(key, _)| *key).collect();
                let what = format!("{} has {}", spec.owner, names.join(" and "));
                self.refuse_at(&second.place, what, "Keep one of them.");
                return None;
            }
        };
        if spec.of_app && self.cluster_role == ClusterRole::Follower {
            self.fault_at(table, key, no_use_for_a_secret(spec.noun), &given.place);
        }
        let secret = self.secret_of(key, given, spec, appid).map_err(|problem| (problem, given.place.clone()));
        let (source, origin) = self.accept(table, key, secret)?;
        if origin == SecretOrigin::Inline {
            let place = &given.place;
            let open = if self.file_is_open { ", and others may read this file (chmod 600)" } else { "" };
            self.warnings.push(format!(
                "{place}: the {} is written in the configuration{open}; {}_file keeps it apart",
                spec.noun, spec.key
            ));
        }
        print_secret(table, spec.key, &origin);
        Some((source, origin))
    }

    fn secret_of(
        &mut self,
        key: &str,
        given: &Given,
        spec: &SecretSpec,
        appid: Option<&str>,
    ) -> ReadResult<(SecretSource, SecretOrigin)> {
        let name = text(&given.value)?;
        let judged = |found: Result<_, SecretFault>, what: &str, verb: &str| {
            found.map_err(|fault| InvalidValue::new(format!("{what} {fault}"), format!("{verb} {}.", spec.content)))
        };
        match key.strip_prefix(spec.key).unwrap_or_default() {
            "_file" => {
                let path = self.base_of(&given.place).join(name);
                let source = self.secret_file(SecretSource::file(&path), &path, spec, appid)?;
                Ok((source, SecretOrigin::File(path)))
            }
            "_credential" => {
                let path = credential_path(self.environment, &given.value, &format!("{}_file", spec.key))?;
                let source = self.secret_file(SecretSource::credential(&path), &path, spec, appid)?;
                Ok((source, SecretOrigin::Credential(name.to_owned())))
            }
            "_env" => {
                let secret = self.environment.get(name).ok_or_else(|| {
                    let what = format!("the environment has no variable {}", quoted_name(name));
                    InvalidValue::new(what, "Set the variable, or correct its name.")
                })?;
                let secret = judged(of_variable(&secret), &format!("the variable {}", quoted_name(name)), "Set it to")?;
                Ok((SecretSource::Environment(secret), SecretOrigin::Environment(name.to_owned())))
            }
            _ => {
                let secret = judged(of_text(name), &format!("the {}", spec.noun), "Write")?;
                match &given.place {
                    Place::Environment(variable) => {
                        Ok((SecretSource::Environment(secret), SecretOrigin::Environment(variable.clone())))
                    }
                    _ => Ok((SecretSource::Fixed(secret), SecretOrigin::Inline)),
                }
            }
        }
    }

    fn secret_file(
        &mut self,
        source: SecretSource,
        path: &Path,
        spec: &SecretSpec,
        appid: Option<&str>,
    ) -> ReadResult<SecretSource> {
        source.read().map_err(|fault| {
            let by_unit = match fault {
                SecretFault::Unreadable(_) => {
                    remedy_if_denied(self.environment, path, &format!("{}_credential", spec.key), appid)
                }
                _ => None,
            };
            let remedy = by_unit.unwrap_or_else(|| fault.remedy_in_file(spec.content));
            let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
            let shown = if looks_like_secret(name) { quoted_name(name) } else { path.display().to_string() };
            InvalidValue::new(format!("{shown} {fault}"), remedy)
        })?;
        if is_open_to_others(path) {
            self.warnings.push(format!("{}: others may read this secret (chmod 600)", path.display()));
        }
        Ok(source)
    }
}

pub(super) fn no_use_for_a_secret(noun: &str) -> InvalidValue {
    let what = format!("a node with leader_urls in [state] never calls WeChat and has no use for a {noun}");
    InvalidValue::new(what, "Remove it, or share a Redis by url in [state].")
}

/// Where a secret comes from, for `check --print`.
pub(super) fn print_secret(table: &RawTable, key: &str, origin: &SecretOrigin) {
    keys_of(key).for_each(|key| table.forget(&key));
    for end in ENDINGS {
        let toml = match (origin, end) {
            (SecretOrigin::File(path), "_file") => toml_path(path),
            (SecretOrigin::Credential(name), "_credential") => toml_text(name),
            (SecretOrigin::Environment(name), "_env") => toml_text(name),
            (SecretOrigin::Inline, "") => format!("{} # written in the file", toml_text(HIDDEN)),
            _ => continue,
        };
        table.print(&format!("{key}{end}"), toml);
    }
}

/// Whether anybody but the owner may read that file.
pub(super) fn is_open_to_others(path: &Path) -> bool {
    access_mask(path) & 0o077 != 0
}

/// 0 if it is not there.
pub(super) fn access_mask(path: &Path) -> u32 {
    std::fs::metadata(path).map_or(0, |metadata| metadata.permissions().mode())
}

/// Where systemd has put its credentials.
pub(super) fn credentials_folder(environment: &dyn Environment) -> Option<PathBuf> {
    environment.get("CREDENTIALS_DIRECTORY").filter(|folder| !folder.is_empty()).map(PathBuf::from)
}

/// The file of the credential of that name. `instead` is the setting that takes a path.
pub(super) fn credential_path(environment: &dyn Environment, value: &RawValue, instead: &str) -> ReadResult<PathBuf> {
    let name = text(value)?;
    if name.is_empty() || name.contains('/') || name == ".." || name == "." {
        let what = format!("{} is {}", quoted_name(name), if name.is_empty() { "no name" } else { "a path" });
        return wrong(what, "Write the name of the credential, as in LoadCredential=NAME:PATH.");
    }
    let folder = credentials_folder(environment).ok_or_else(|| {
        let shown = if looks_like_secret(name) { "NAME" } else { name };
        let remedy = format!(
            "systemd sets it for a unit with a line LoadCredential={shown}:/path in [Service]; without such a unit, use \
             {instead}."
        );
        let what = "there is no CREDENTIALS_DIRECTORY in the environment";
        InvalidValue { missing_credential: Some(name.to_owned()), ..InvalidValue::new(what, remedy) }
    })?;
    Ok(folder.join(name))
}

/// What to do about a file that this process has no right to read, under a unit. `setting` is the one that takes a
/// credential's name; `name` is to be that.
pub(super) fn remedy_if_denied(
    environment: &dyn Environment,
    path: &Path,
    setting: &str,
    name: Option<&str>,
) -> Option<String> {
    let in_unit = ["INVOCATION_ID", "NOTIFY_SOCKET"].iter().any(|name| environment.get(name).is_some());
    let denied = || File::open(path).is_err_and(|error| error.kind() == ErrorKind::PermissionDenied);
    if !in_unit || !denied() {
        return None;
    }
    let of_file = path.file_name().map(|name| name.to_string_lossy().replace([':', ' '], "-")).unwrap_or_default();
    let name = name.map(str::to_owned).filter(|name| !name.contains([':', '/', ' '])).unwrap_or(of_file);
    Some(format!(
        "The unit's user may not read it; systemd can hand it over. Add to [Service] (systemctl edit tokencached): \
         LoadCredential={name}:{} and here, in place of the path, write: {setting} = \"{name}\"",
        path.display()
    ))
}

/// The same for the keys and certificates of TLS, which are read when they are used.
pub fn remedy_for_tls(config: &Config, environment: &dyn Environment) -> Option<String> {
    let server = config.access.tls.iter().map(|tls| ("server", tls));
    let http = config.http.iter().filter_map(|http| Some(("http", http.tls.as_ref()?)));
    server.chain(http).find_map(|(section, tls)| {
        let remedy = |path: &Path, key: &str| {
            let (setting, name) = (format!("tls.{key}_credential"), format!("{section}-{key}"));
            remedy_if_denied(environment, path, &setting, Some(&name))
        };
        remedy(&tls.key, "key").or_else(|| remedy(&tls.cert, "cert"))
    })
}
