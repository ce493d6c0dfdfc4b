//! Credentials that systemd hands to a service: `LoadCredential=` of a unit puts files into `$CREDENTIALS_DIRECTORY`.

use std::fs::File;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use crate::environment::Environment;
use crate::invalid_value::{InvalidValue, looks_like_secret, quoted_name, wrong};

/// Where systemd has put them.
pub fn folder(environment: &dyn Environment) -> Option<PathBuf> {
    environment.get("CREDENTIALS_DIRECTORY").filter(|folder| !folder.is_empty()).map(PathBuf::from)
}

/// The file of the credential of that name. `instead` is the setting that takes a path.
pub fn path(environment: &dyn Environment, name: &str, instead: &str) -> Result<PathBuf, InvalidValue> {
    if name.is_empty() || name.contains('/') || name == ".." || name == "." {
        let what = format!("{} is {}", quoted_name(name), if name.is_empty() { "no name" } else { "a path" });
        return wrong(what, "Write the name of the credential, as in LoadCredential=NAME:PATH.");
    }
    let folder = folder(environment).ok_or_else(|| {
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
pub fn remedy_if_denied(
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
