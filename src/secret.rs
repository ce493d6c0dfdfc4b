//! Values that must not show: app secrets and tokens. Their `Debug` prints a placeholder.
//!
//! Never logs, never serialises by itself: whoever needs the text says `expose`.

use std::fmt;

use secrecy::{ExposeSecret, SecretString};
use sha2::{Digest, Sha256};

/// An app secret. Wiped from memory when dropped.
#[derive(Clone)]
pub struct Secret(SecretString);

impl Secret {
    /// Takes the text over.
    pub fn new(text: String) -> Secret {
        Secret(SecretString::from(text))
    }

    /// The text itself, for the one request that needs it.
    pub fn expose(&self) -> &str {
        self.0.expose_secret()
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("<secret>")
    }
}

impl Eq for Secret {}

impl PartialEq for Secret {
    fn eq(&self, other: &Secret) -> bool {
        use subtle::ConstantTimeEq;
        self.expose().as_bytes().ct_eq(other.expose().as_bytes()).into()
    }
}

/// A name for a value that must not show: the first eight hex digits of its SHA-256.
/// Enough to tell two tokens apart in a log, useless for calling WeChat.
pub fn fingerprint(value: &[u8]) -> String {
    hex::encode(&Sha256::digest(value)[..4])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn debug_shows_a_placeholder() {
        let secret = Secret::new("0123456789abcdef".into());
        assert_eq!(format!("{secret:?}"), "<secret>");
        assert_eq!(format!("{:?}", Some(&secret)), "Some(<secret>)");
    }

    #[test]
    fn a_fingerprint_is_short_and_tells_values_apart() {
        assert_eq!(fingerprint(b"a"), "ca978112");
        assert_ne!(fingerprint(b"a"), fingerprint(b"b"));
    }
}
