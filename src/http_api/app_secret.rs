//! Whether a given secret is the app's own. Compares digests in constant time.
//!
//! The file of a secret may be replaced, so it is read again, but not for every request: neither many right calls nor
//! many wrong ones cause many reads.

use std::time::Duration;

use parking_lot::Mutex;
use sha2::{Digest, Sha256};
use subtle::ConstantTimeEq;

use crate::clock::BootMs;
use crate::secret_source::{SecretFault, SecretSource};

/// If the given secret is the one that was read last, that is believed for so long.
const FRESH_MS: u64 = 1_000;
/// If it is another one, the file may have been replaced just now.
const FRESH_FOR_ANOTHER_MS: u64 = 50;
/// If the disk does not answer for so long, the secret that was read last counts.
const READ_MAX: Duration = Duration::from_secs(2);

type SecretDigest = [u8; 32];

pub struct AppSecret {
    source: SecretSource,
    last: Mutex<Option<(SecretDigest, BootMs)>>,
}

impl AppSecret {
    pub fn new(source: SecretSource) -> AppSecret {
        AppSecret { source, last: Mutex::new(None) }
    }

    /// Whether the given secret is the app's. A secret that cannot be read matches nothing.
    pub async fn matches(&self, given: &str, now_ms: BootMs) -> bool {
        let given: SecretDigest = Sha256::digest(given).into();
        let last = *self.last.lock();
        if let Some((digest, read_ms)) = last {
            let same = bool::from(digest.ct_eq(&given));
            let fresh_ms = if same { FRESH_MS } else { FRESH_FOR_ANOTHER_MS };
            if now_ms.saturating_sub(read_ms) < fresh_ms {
                return same;
            }
        }
        let known = last.map(|(digest, _)| digest);
        self.read(known, now_ms).await.is_some_and(|digest| digest.ct_eq(&given).into())
    }

    async fn read(&self, known: Option<SecretDigest>, now_ms: BootMs) -> Option<SecretDigest> {
        let digest = match tokio::time::timeout(READ_MAX, self.source.read_in_background()).await {
            Ok(Ok(secret)) => Some(Sha256::digest(secret.expose()).into()),
            // These say nothing about the secret.
            Ok(Err(SecretFault::DiskTimeout(_) | SecretFault::NoDescriptor)) | Err(_) => known,
            Ok(Err(_)) => None,
        };
        *self.last.lock() = digest.map(|digest| (digest, now_ms));
        digest
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_replaced_file_counts_soon_and_a_missing_one_changes_nothing() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("secret");
        std::fs::write(&path, "one\n").unwrap();
        let secret = AppSecret::new(SecretSource::file(&path));
        assert!(secret.matches("one", 0).await && !secret.matches("two", 0).await);
        std::fs::write(&path, "two\n").unwrap();
        assert!(!secret.matches("two", FRESH_FOR_ANOTHER_MS - 1).await, "not read for every wrong one");
        assert!(secret.matches("two", FRESH_FOR_ANOTHER_MS).await);
        assert!(!secret.matches("one", FRESH_MS).await);
        std::fs::remove_file(&path).unwrap();
        assert!(secret.matches("two", 5 * FRESH_MS).await && !secret.matches("one", 10 * FRESH_MS).await);
    }

    #[tokio::test(start_paused = true)]
    async fn a_disk_that_hangs_does_not_make_a_known_secret_wrong() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("secret");
        std::fs::write(&path, "one\n").unwrap();
        let secret = AppSecret::new(SecretSource::file(&path));
        assert!(secret.matches("one", 0).await);
        let (release, hangs) = std::sync::mpsc::channel::<()>();
        let hung = tokio::spawn(async move { crate::files::read_in_background(&path, move || hangs.recv()).await });
        tokio::task::yield_now().await;
        let asked =
            tokio::spawn(async move { (secret.matches("one", FRESH_MS).await, secret.matches("two", FRESH_MS).await) });
        tokio::task::yield_now().await;
        tokio::time::advance(READ_MAX).await;
        assert_eq!(asked.await.unwrap(), (true, false));
        drop(release);
        assert!(hung.await.unwrap().is_ok());
    }
}
