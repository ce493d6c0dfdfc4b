//! systemd's credentials: files that a unit's `LoadCredential=` puts into `$CREDENTIALS_DIRECTORY`; and what to paste into
//! the unit where a file cannot be read without one.

use std::fs::File;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use super::Config;
use super::apps::shown;
use super::environment::Environment;
use super::fault::Problem;
use super::value::{Reading, Value, text};

/// Where systemd has put them.
pub(super) fn folder(environment: &dyn Environment) -> Option<PathBuf> {
    environment.get("CREDENTIALS_DIRECTORY").filter(|folder| !folder.is_empty()).map(PathBuf::from)
}

/// The file of the credential of that name. `instead` is the setting that takes a path.
pub(super) fn file(environment: &dyn Environment, value: &Value, instead: &str) -> Reading<PathBuf> {
    let name = text(value)?;
    if name.is_empty() || name.contains('/') || name == ".." || name == "." {
        let what = format!("{} is {}", shown(name), if name.is_empty() { "no name" } else { "a path" });
        return Err(Problem::new(what, "Write the name of the credential, as in LoadCredential=NAME:PATH."));
    }
    let folder = folder(environment).ok_or_else(|| {
        let remedy = format!(
            "systemd sets it for a unit with a line LoadCredential={}:/path in [Service]; without such a unit, use {instead}.",
            if super::apps::secret_like(name) { "NAME" } else { name }
        );
        Problem::new("there is no CREDENTIALS_DIRECTORY in the environment", remedy).without_credential(name)
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
    let side = config.http.iter().filter_map(|side| Some(("side", side.tls.as_ref()?)));
    server.chain(side).find_map(|(section, tls)| {
        let remedy = |path: &Path, key: &str| {
            let (setting, name) = (format!("tls.{key}_credential"), format!("{section}-{key}"));
            remedy_if_denied(environment, path, &setting, Some(&name))
        };
        remedy(&tls.key, "key").or_else(|| remedy(&tls.cert, "cert"))
    })
}
