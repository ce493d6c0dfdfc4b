//! Where a secret comes from, and reading it: an app secret, a refresh token, a password, a key.
//!
//! No message quotes any part of it.

use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use parking_lot::Mutex;
use tokio_util::sync::CancellationToken;

use crate::descriptors;
use crate::files::watch::{FollowedFile, NotApplied, SETTLE, WatchedFiles};
use crate::files::{self, DiskTimeout, ReadFault};
use crate::secret::Secret;

/// A secret has 32 digits; a larger file is something else.
const SECRET_BYTES_MAX: usize = 1024;

/// Where a secret comes from. A file is read again when it changes; the others stay the same while the process lives.
#[derive(Clone, Debug)]
pub enum SecretSource {
    /// This node has none: the app's credentials come from other nodes and are never fetched here.
    Absent,
    File(SecretFile),
    Environment(Secret),
    Fixed(Secret),
}

/// A secret in a file. Clones share what was last read.
#[derive(Clone, Debug)]
pub struct SecretFile {
    path: PathBuf,
    /// systemd has written it at the start.
    is_credential: bool,
    last_good: Arc<Mutex<Option<Secret>>>,
}

/// A sentence in both languages, without its end.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BilingualSentence {
    pub en: String,
    pub zh: String,
}

/// What `check` prints in place of a secret; refused as a secret, so that its output is not taken for real.
pub const HIDDEN: &str = "<hidden>";

#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SecretFault {
    #[error("is not here: the app is only followed")]
    Absent,
    #[error("cannot be read: {0}")]
    Unreadable(String),
    /// Says nothing about the secret.
    #[error("cannot be read now: the process has no file descriptor left")]
    NoDescriptor,
    #[error("is not a regular file")]
    NotAFile,
    #[error(transparent)]
    DiskTimeout(#[from] DiskTimeout),
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

impl SecretFault {
    /// What to do about it in a file. `whose` says what belongs there.
    pub fn remedy_in_file(&self, whose: &str) -> String {
        match self {
            SecretFault::NoDescriptor => descriptors::REMEDY.to_owned(),
            SecretFault::Surplus(_) => format!("Put {whose} into the file, and nothing else; save it without a BOM."),
            SecretFault::Unreadable(_) => "Check the name of the file and who may read it.".to_owned(),
            _ => format!("Put {whose} into the file, and nothing else."),
        }
    }
}

impl SecretSource {
    /// A file that somebody may replace.
    pub fn file(path: impl Into<PathBuf>) -> SecretSource {
        SecretSource::File(SecretFile { path: path.into(), is_credential: false, last_good: Arc::default() })
    }

    /// A file of systemd's.
    pub fn credential(path: impl Into<PathBuf>) -> SecretSource {
        SecretSource::File(SecretFile { path: path.into(), is_credential: true, last_good: Arc::default() })
    }

    /// Whether this node has none, and so never fetches.
    pub fn is_absent(&self) -> bool {
        matches!(self, SecretSource::Absent)
    }

    /// Reads the secret; blocks. For the start and for `check`.
    pub fn read(&self) -> Result<Secret, SecretFault> {
        match self {
            SecretSource::Absent => Err(SecretFault::Absent),
            SecretSource::File(file) => {
                let secret = of_file(&file.path)?;
                file.last_good.lock().get_or_insert_with(|| secret.clone());
                Ok(secret)
            }
            SecretSource::Environment(secret) | SecretSource::Fixed(secret) => Ok(secret.clone()),
        }
    }

    /// Reads the secret while the server runs, without blocking. If the file is missing, bad or being written, the last
    /// good secret counts.
    pub async fn read_in_background(&self) -> Result<Secret, SecretFault> {
        let SecretSource::File(file) = self else { return self.read() };
        let found = file.read_in_background().await;
        let last = file.last_good.lock().clone();
        match (found, last) {
            (Ok(secret), Some(last)) if secret == last => Ok(secret),
            (Ok(secret), Some(last)) => {
                tokio::time::sleep(SETTLE).await;
                match file.read_in_background().await {
                    Ok(again) if again == secret => Ok(file.remember(secret)),
                    _ => Ok(last),
                }
            }
            (Ok(secret), None) => Ok(file.remember(secret)),
            (Err(_), Some(last)) => Ok(last),
            (Err(fault), None) => Err(fault),
        }
    }

    /// How a changed secret takes effect, for the end of a message that asks for one.
    pub fn takes_effect(&self) -> Option<BilingualSentence> {
        let (en, zh) = match self {
            SecretSource::Absent => return None,
            SecretSource::File(file) if file.is_credential => {
                let unit = file.unit();
                (
                    format!(
                        "systemd hands the credential over at the start: systemctl restart {unit} after changing it"
                    ),
                    format!("凭据由 systemd 在启动时交给服务：修改后请执行 systemctl restart {unit}"),
                )
            }
            SecretSource::File(_) => {
                ("a changed file is tried within seconds".to_owned(), "文件修改后几秒内自动重试".to_owned())
            }
            SecretSource::Environment(_) => (
                "it comes from an environment variable: restart after changing that".to_owned(),
                "它来自环境变量：修改后需要重启".to_owned(),
            ),
            SecretSource::Fixed(_) => (
                "it is written in the configuration: change it there and restart".to_owned(),
                "它写在配置文件里：在那里修改后重启".to_owned(),
            ),
        };
        Some(BilingualSentence { en, zh })
    }

    /// Follows the file, if it is one, and has `then` hear of what it holds until `end`: whenever that changes, and first of
    /// what is there at the start.
    pub fn watched_until(
        &self,
        end: CancellationToken,
        name: impl Into<String>,
        mut then: impl FnMut(&Secret, bool) + Send + 'static,
    ) -> Option<Box<dyn WatchedFiles>> {
        let SecretSource::File(file) = self.clone() else { return None };
        let (name, path) = (name.into(), file.path.clone());
        let apply = move |bytes: &[u8], at_start: bool| {
            let secret = of_bytes(bytes).map_err(|fault| NotApplied::Bad(format!("it {fault}")))?;
            then(&file.remember(secret), at_start);
            Ok(())
        };
        Some(Box::new(FollowedFile { name, path, bytes_max: SECRET_BYTES_MAX, may_be_missing: false, end, apply }))
    }
}

impl SecretFile {
    pub fn path(&self) -> &Path {
        &self.path
    }

    async fn read_in_background(&self) -> Result<Secret, SecretFault> {
        let here = self.path.clone();
        files::read_in_background(&self.path, move || of_file(&here)).await?
    }

    fn remember(&self, secret: Secret) -> Secret {
        *self.last_good.lock() = Some(secret.clone());
        secret
    }

    /// The unit whose credential it is, by the folder's name.
    fn unit(&self) -> &str {
        let folder = self.path.parent().and_then(Path::file_name).and_then(|name| name.to_str());
        folder.and_then(|name| name.strip_suffix(".service")).unwrap_or("tokencached")
    }
}

fn of_file(path: &Path) -> Result<Secret, SecretFault> {
    let bytes = files::read(path, SECRET_BYTES_MAX).map_err(|fault| match fault {
        ReadFault::NotAFile => SecretFault::NotAFile,
        ReadFault::TooLarge => SecretFault::TooLarge,
        ReadFault::Io(error) if descriptors::is_exhausted(&error) => SecretFault::NoDescriptor,
        ReadFault::Io(error) => SecretFault::Unreadable(error.to_string()),
    })?;
    of_bytes(&bytes)
}

fn of_bytes(bytes: &[u8]) -> Result<Secret, SecretFault> {
    of_text(std::str::from_utf8(bytes).map_err(|_| SecretFault::NotUtf8)?)
}

/// Judges the value of an environment variable.
pub fn of_variable(value: &OsStr) -> Result<Secret, SecretFault> {
    of_text(value.to_str().ok_or(SecretFault::NotUtf8)?)
}

/// What is around a value and should not be, if anything: "ends in a line break".
pub fn surplus(text: &str) -> Option<&'static str> {
    if text.starts_with('\u{feff}') {
        Some("begins with a byte order mark (BOM)")
    } else if text.ends_with(['\r', '\n']) {
        Some("ends in a line break")
    } else if text.trim() != text {
        Some("begins or ends with a blank")
    } else {
        None
    }
}

/// Judges a text; line breaks at its end are an editor's habit and not part of it.
pub fn of_text(text: &str) -> Result<Secret, SecretFault> {
    let text = text.trim_end_matches(['\r', '\n']);
    if let Some(surplus) = surplus(text).filter(|_| !text.trim().is_empty()) {
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
        assert_eq!(SecretSource::file(pipe).read(), Err(SecretFault::NotAFile));
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
