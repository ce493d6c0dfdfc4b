//! Files that are named: what has to be in them.

use std::path::Path;

use super::fault::SettingProblem;
use super::value::ReadResult;
use crate::files;

/// Nothing is asked.
pub(super) fn anything(_: &Path) -> ReadResult<()> {
    Ok(())
}

/// A PEM file that can be read; what is in it is judged when it is used.
pub(super) fn pem(path: &Path) -> ReadResult<()> {
    match std::fs::metadata(path) {
        Ok(found) if found.is_file() => Ok(()),
        Ok(_) => Err(SettingProblem::new(format!("{} is not a file", path.display()), "Give a PEM file.")),
        Err(error) => {
            let what = format!("{} cannot be read: {error}", path.display());
            Err(SettingProblem::new(what, "Check the path and who may read it."))
        }
    }
}

/// A PEM file with at least one certificate.
pub(super) fn certificates(path: &Path) -> ReadResult<()> {
    let bytes = files::read(path, files::PEM_BYTES_MAX).map_err(|error| {
        let what = format!("{} cannot be read: {error}", path.display());
        SettingProblem::new(what, "Check the name of the file and who may read it.")
    })?;
    if memchr::memmem::find(&bytes, b"-----BEGIN CERTIFICATE-----").is_none() {
        let what = format!("{} holds no certificate", path.display());
        return Err(SettingProblem::new(what, "Give a PEM file, with -----BEGIN CERTIFICATE----- in it."));
    }
    Ok(())
}
