//! Who may connect and what they may do there: users, certificates, and listeners with terms of their own.

use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::path::{Path, PathBuf};

use super::environment::Environment;
use super::fault::{Fault, Place, Problem};
use super::file::{Document, RawTable, open_to_others};
use super::value::{Given, Reading, Value, kind, path, quoted, text};
use super::{Access, App, Config, credentials};
use crate::access::{CertificateMatcher, Rights};

/// Rights as one word or a list of words.
pub(super) fn rights(value: &Value) -> Reading<Rights> {
    let remedy =
        "Write \"all\", \"ordinary\", \"managed\" or \"app:<appid>\", or a list of them; \"read_only\" may be added.";
    let words: Vec<&str> = match value {
        Value::Text(text) => text.split(',').map(str::trim).filter(|word| !word.is_empty()).collect(),
        Value::List(items) => items.iter().map(|item| text(&item.value)).collect::<Reading<_>>()?,
        other => return Err(Problem::new(format!("{} stands where rights belong", kind(other)), remedy)),
    };
    Rights::of_words(words).map_err(|wrong| Problem::new(format!("{} is not a right", quoted(&wrong.0)), remedy))
}

/// Adds what only the file can say, and judges the users' file.
pub(super) fn complete(
    access: Access,
    document: &mut Document,
    auth_place: &Place,
    environment: &dyn Environment,
    faults: &mut Vec<Fault>,
    warnings: &mut Vec<String>,
) -> Access {
    let access = Access {
        users: users(std::mem::take(&mut document.users), faults),
        certificates: certificates(std::mem::take(&mut document.certificates), faults),
        ..access
    };
    judge_auth_file(&access, auth_place, environment, faults, warnings);
    // A group may well be there to read keys.
    if let Some(tls) = access.tls.as_ref().filter(|tls| mode(&tls.key) & 0o007 != 0) {
        warnings.push(format!("anybody can read the private key in {} (chmod 600)", tls.key.display()));
    }
    access
}

fn mode(path: &Path) -> u32 {
    use std::os::unix::fs::PermissionsExt;
    std::fs::metadata(path).map_or(0, |found| found.permissions().mode())
}

/// Judges what the operator should know of the users' file; the users themselves were read.
fn judge_auth_file(
    access: &Access,
    place: &Place,
    environment: &dyn Environment,
    faults: &mut Vec<Fault>,
    warnings: &mut Vec<String>,
) {
    let Some(path) = &access.auth_file else { return };
    match access.read_users() {
        Err(what) => {
            let remedy =
                credentials::remedy_if_denied(environment, path, "auth_credential", None).unwrap_or_else(|| {
                    "Write a line user:password for each user, as for memcached -Y, into a file this process can read."
                        .into()
                });
            faults.push(Problem::new(what, remedy).at(place));
        }
        Ok(users) => {
            if open_to_others(path) {
                warnings.push(format!("others can read the passwords in {} (chmod 600)", path.display()));
            }
            if users.is_some_and(|users| users.is_empty()) {
                warnings.push(format!("nobody in {} may log in: see [[user]]", path.display()));
            }
        }
    }
}

/// The `[[user]]` tables.
fn users(tables: Vec<RawTable>, faults: &mut Vec<Fault>) -> BTreeMap<String, Rights> {
    let mut users = BTreeMap::new();
    for table in tables {
        let place = table.place.clone();
        let Some((name, rights)) = named(table, "user", faults, |value| text(value).map(str::to_owned)) else {
            continue;
        };
        if users.insert(name.clone(), rights).is_some() {
            let what = format!("the user {} has a table already", quoted(&name));
            faults.push(Problem::new(what, "Write one [[user]] for each name.").at(&place));
        }
    }
    users
}

/// The `[[certificate]]` tables, in their order.
fn certificates(tables: Vec<RawTable>, faults: &mut Vec<Fault>) -> Vec<(CertificateMatcher, Rights)> {
    let whose = |value: &Value| {
        let name = text(value)?;
        let remedy = "Write \"cn:NAME\", \"dns:HOST\", \"uri:URI\", or \"*\" for all others.";
        name.parse().map_err(|_| Problem::new(format!("{} is not a name of a certificate", quoted(name)), remedy))
    };
    tables.into_iter().filter_map(|table| named(table, "certificate", faults, whose)).collect()
}

/// Rights are given to apps that exist, or it is a misspelling; it gives nothing away, so it stops nothing.
pub(super) fn unknown_apps(config: &Config) -> Vec<String> {
    let known: HashSet<String> = config.credentials.apps.iter().map(App::id).collect();
    let access = &config.access;
    let listeners = config.server.listeners.iter().map(|listener| &listener.rights);
    let rights = access.users.values().chain(access.certificates.iter().map(|(_, rights)| rights)).chain(listeners);
    let named: BTreeSet<&String> = rights.chain([&config.server.rights]).flat_map(Rights::named_apps).collect();
    let keys = config.http.as_ref().and_then(|side| side.read_keys().ok().flatten()).unwrap_or_default();
    let of_keys = keys.iter().flat_map(|key| key.rights.named_apps());
    let named: BTreeSet<&String> = named.into_iter().chain(of_keys).collect();
    let unknown = named.into_iter().filter(|app| !known.contains(*app));
    unknown.map(|app| format!("rights name the app {}, which is not configured", quoted(app))).collect()
}

fn named<T>(
    mut table: RawTable,
    what: &str,
    faults: &mut Vec<Fault>,
    read: impl Fn(&Value) -> Reading<T>,
) -> Option<(T, Rights)> {
    let missing = |key: &str| {
        let problem =
            Problem::new(format!("the {what} has no {key}"), format!("Add a line {key} = ... to the [[{what}]]."));
        problem.at(&table.place)
    };
    let absent: Vec<Fault> =
        ["name", "rights"].iter().filter(|key| !table.fields.contains_key(**key)).map(|key| missing(key)).collect();
    let name = table.fields.remove("name").and_then(|given| reading(&given, faults, &read));
    let rights = table.fields.remove("rights").and_then(|given| reading(&given, faults, rights));
    faults.extend(absent);
    Some((name?, rights?))
}

/// A value, or a fault at its place.
pub(super) fn reading<T>(given: &Given, faults: &mut Vec<Fault>, read: impl Fn(&Value) -> Reading<T>) -> Option<T> {
    read(&given.value).map_err(|problem| faults.push(problem.at(&given.place))).ok()
}

/// A PEM file that can be read; what is in it is judged when it is used.
pub(super) fn pem(value: &Value, base: &Path) -> Reading<PathBuf> {
    let path = path(value, base)?;
    match std::fs::metadata(&path) {
        Ok(found) if found.is_file() => Ok(path),
        Ok(_) => Err(Problem::new(format!("{} is not a file", path.display()), "Give a PEM file.")),
        Err(error) => {
            let what = format!("{} cannot be read: {error}", path.display());
            Err(Problem::new(what, "Check the path and who may read it."))
        }
    }
}
