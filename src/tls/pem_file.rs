//! PEM files that settings name: what has to be in them.

use std::path::Path;

use crate::files;
use crate::invalid_value::InvalidValue;

/// A PEM file that can be read; what is in it is judged when it is used.
pub fn pem(path: &Path) -> Result<(), InvalidValue> {
    match std::fs::metadata(path) {
        Ok(found) if found.is_file() => Ok(()),
        Ok(_) => Err(InvalidValue::new(format!("{} is not a file", path.display()), "Give a PEM file.")),
        Err(error) => {
            let what = format!("{} cannot be read: {error}", path.display());
            Err(InvalidValue::new(what, "Check the path and who may read it."))
        }
    }
}

/// A PEM file with at least one certificate.
pub fn certificates(path: &Path) -> Result<(), InvalidValue> {
    let bytes = files::read(path, files::PEM_BYTES_MAX).map_err(|error| {
        let what = format!("{} cannot be read: {error}", path.display());
        InvalidValue::new(what, "Check the name of the file and who may read it.")
    })?;
    if memchr::memmem::find(&bytes, b"-----BEGIN CERTIFICATE-----").is_none() {
        let what = format!("{} holds no certificate", path.display());
        return Err(InvalidValue::new(what, "Give a PEM file, with -----BEGIN CERTIFICATE----- in it."));
    }
    Ok(())
}
