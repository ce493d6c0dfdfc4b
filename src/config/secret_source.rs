//! Reading an app secret. Never echoes any part of it.

use std::path::Path;

use super::{SecretSource, mistakes};
use crate::descriptors;
use crate::files::{self, Hung, Unread};
use crate::secret::Secret;

/// A secret is 32 digits; a file of this size is something else.
const SECRET_BYTES_MAX: usize = 1024;

/// What `check` prints in place of a secret; refused as a secret, so that its output is not taken for real.
pub(super) const HIDDEN: &str = "<hidden>";

/// Why a secret cannot be used.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SecretFault {
    #[error("is not here: the app is only followed")]
    Absent,
    #[error("cannot be read: {0}")]
    Unreadable(String),
    /// It may be as good as ever.
    #[error("cannot be read now: the process has no file descriptor left")]
    NoDescriptor,
    #[error("is not a regular file")]
    NotAFile,
    #[error(transparent)]
    Hung(#[from] Hung),
    #[error("is empty")]
    Empty,
    #[error("is not valid UTF-8")]
    NotUtf8,
    #[error("has a blank, a line break or a control character inside")]
    Blank,
    /// What is around it: a blank, a byte order mark.
    #[error("{0}")]
    Surplus(&'static str),
    #[error("is too large for a secret")]
    TooLarge,
    #[error("is the placeholder that check prints, not a secret")]
    Placeholder,
}

impl SecretSource {
    /// Whether this node has none, and so never fetches.
    pub fn is_absent(&self) -> bool {
        matches!(self, SecretSource::Absent)
    }

    /// The secret as it is now: a file is read again, so that it can be rotated.
    pub fn read(&self) -> Result<Secret, SecretFault> {
        match self {
            SecretSource::Absent => Err(SecretFault::Absent),
            SecretSource::File(path) => of_file(path),
            SecretSource::Fixed(secret) => Ok(secret.clone()),
        }
    }

    /// The same for whoever must not wait for a disk.
    pub async fn read_aside(&self) -> Result<Secret, SecretFault> {
        let SecretSource::File(path) = self else { return self.read() };
        let here = path.clone();
        files::read_aside(path, move || of_file(&here)).await?
    }
}

fn of_file(path: &Path) -> Result<Secret, SecretFault> {
    let bytes = files::read(path, SECRET_BYTES_MAX).map_err(|fault| match fault {
        Unread::NotAFile => SecretFault::NotAFile,
        Unread::TooLarge => SecretFault::TooLarge,
        Unread::Io(error) if descriptors::is_exhausted(&error) => SecretFault::NoDescriptor,
        Unread::Io(error) => SecretFault::Unreadable(error.to_string()),
    })?;
    of_text(std::str::from_utf8(&bytes).map_err(|_| SecretFault::NotUtf8)?)
}

/// Judges a text; line breaks at its end are an editor's habit and not part of it.
pub(super) fn of_text(text: &str) -> Result<Secret, SecretFault> {
    let text = text.trim_end_matches(['\r', '\n']);
    if let Some(surplus) = mistakes::surplus(text).filter(|_| !text.trim().is_empty()) {
        return Err(SecretFault::Surplus(surplus));
    }
    match text {
        "" => Err(SecretFault::Empty),
        HIDDEN => Err(SecretFault::Placeholder),
        _ if text.len() > SECRET_BYTES_MAX => Err(SecretFault::TooLarge),
        _ if text.contains(|c: char| c.is_whitespace() || c.is_control() || c == '\u{feff}') => Err(SecretFault::Blank),
        _ => Ok(Secret::new(text.to_owned())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_break_at_the_end_is_not_part_of_the_secret() {
        assert_eq!(of_text("abc\r\n").unwrap().expose(), "abc");
        assert_eq!(of_text("abc\n\n").unwrap().expose(), "abc");
    }

    #[test]
    fn a_pipe_is_refused_and_not_waited_for() {
        let folder = tempfile::tempdir().unwrap();
        let pipe = folder.path().join("pipe");
        let made = std::process::Command::new("mkfifo").arg(&pipe).status().unwrap();
        assert!(made.success());
        assert_eq!(SecretSource::File(pipe).read(), Err(SecretFault::NotAFile));
    }

    #[test]
    fn what_cannot_be_a_secret_is_refused() {
        assert_eq!(of_text("\n"), Err(SecretFault::Empty));
        assert_eq!(of_text("a b"), Err(SecretFault::Blank));
        assert_eq!(of_text("a\nb"), Err(SecretFault::Blank));
        assert_eq!(of_text("\u{feff}ab"), Err(SecretFault::Surplus("begins with a byte order mark (BOM)")));
        assert_eq!(of_text("ab \n"), Err(SecretFault::Surplus("begins or ends with a blank")));
        assert_eq!(of_text("<hidden>"), Err(SecretFault::Placeholder));
        assert_eq!(of_text(&"a".repeat(2000)), Err(SecretFault::TooLarge));
    }
}
