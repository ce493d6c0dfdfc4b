//! Encrypts the values and call counts that nodes publish. Who can read the store learns no token, and who can write to
//! it cannot make a node serve another value.
//!
//! ChaCha20-Poly1305 with a random nonce. The key is derived from the operator's secret for each credential, so a value
//! that was moved to another credential's record does not open. An old value that was put back does open; its generation
//! gives it away. Never logs, and `Debug` shows no value.

use std::sync::Arc;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use ring::aead::{Aad, CHACHA20_POLY1305, LessSafeKey, NONCE_LEN, Nonce, UnboundKey};
use ring::hmac;
use ring::rand::{SecureRandom, SystemRandom};
use serde::{Deserialize, Serialize};
use zeroize::Zeroizing;

use super::record::{NodeId, StoreMs};
use crate::secret::Secret;

/// The first byte of a sealed text, so that a later form can be told from this one.
const FORM: u8 = 1;
/// No real sealed value is longer.
const SEALED_BYTES_MAX: usize = 64 * 1024;

/// A value as nodes publish it. No `Debug`: it holds the token.
#[derive(Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct PublishedValue {
    pub value: String,
    pub generation: u64,
    /// When it ends, on the store's clock.
    pub expires_ms: StoreMs,
    /// When it was fetched, on the store's clock.
    pub fetched_ms: StoreMs,
    pub life_ms: u64,
    pub longest_ms: u64,
    pub learned_ms: Option<u64>,
    /// The platform refused it in a probe.
    #[serde(default)]
    pub withdrawn: bool,
    /// How long before its end it stops being reliable; none if the renewal rule says so.
    #[serde(default)]
    pub reliable_lead_ms: Option<u64>,
    /// The refresh token for the next renewal of an authorizer.
    #[serde(default)]
    pub refresh: Option<String>,
    /// The name of the node that fetched it, and the id of its process.
    pub by: String,
    #[serde(default)]
    pub node: NodeId,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum UnsealError {
    #[error("it is not a sealed value of a known form")]
    UnknownForm,
    #[error("its seal is broken: it was written with another secret, or tampered with")]
    BrokenSeal,
    #[error("it was sealed for another generation than it stands under")]
    WrongGeneration,
}

pub struct Seal {
    key: LessSafeKey,
    tag: Box<str>,
    counts_tag: Box<str>,
}

impl Seal {
    pub fn new(secret: &Secret, tag: &str) -> Seal {
        let secret = hmac::Key::new(hmac::HMAC_SHA256, secret.expose().trim().as_bytes());
        let derived = hmac::sign(&secret, format!("tokencached value {tag}").as_bytes());
        // A SHA-256 is as long as the cipher's key.
        let key = UnboundKey::new(&CHACHA20_POLY1305, derived.as_ref()).map(LessSafeKey::new);
        #[expect(clippy::expect_used, reason = "both lengths are constants")]
        let key = key.expect("a key of 32 bytes");
        // No credential's tag has such a character.
        Seal { key, tag: tag.into(), counts_tag: format!("{tag}\0counts").into() }
    }

    /// Encrypts a value; none if the machine gives no random numbers.
    pub fn seal(&self, value: &PublishedValue) -> Option<Arc<str>> {
        self.seal_as(&self.tag, Zeroizing::new(serde_json::to_vec(value).ok()?))
    }

    pub fn unseal(&self, sealed: &str) -> Result<PublishedValue, UnsealError> {
        let text = self.unseal_as(&self.tag, sealed)?;
        serde_json::from_slice(&text).map_err(|_| UnsealError::UnknownForm)
    }

    /// Encrypts the calls that nodes count together; none if the machine gives no random numbers.
    pub fn seal_counts(&self, counts: &[u8]) -> Option<Arc<str>> {
        self.seal_as(&self.counts_tag, Zeroizing::new(counts.to_vec()))
    }

    pub fn unseal_counts(&self, sealed: &str) -> Result<Zeroizing<Vec<u8>>, UnsealError> {
        self.unseal_as(&self.counts_tag, sealed)
    }

    /// `what` is authenticated with the text: it is unsealed under the same `what` only.
    fn seal_as(&self, what: &str, mut text: Zeroizing<Vec<u8>>) -> Option<Arc<str>> {
        let mut nonce = [0; NONCE_LEN];
        SystemRandom::new().fill(&mut nonce).ok()?;
        let (nonce_used, aad) = (Nonce::assume_unique_for_key(nonce), Aad::from(what.as_bytes()));
        let mac = self.key.seal_in_place_separate_tag(nonce_used, aad, &mut text).ok()?;
        let all = [&[FORM], nonce.as_slice(), text.as_slice(), mac.as_ref()].concat();
        Some(STANDARD.encode(&all).into())
    }

    fn unseal_as(&self, what: &str, sealed: &str) -> Result<Zeroizing<Vec<u8>>, UnsealError> {
        if sealed.len() > SEALED_BYTES_MAX {
            return Err(UnsealError::UnknownForm);
        }
        let bytes = STANDARD.decode(sealed).map_err(|_| UnsealError::UnknownForm)?;
        let (form, rest) = bytes.split_first().ok_or(UnsealError::UnknownForm)?;
        let (nonce, sealed) = rest.split_at_checked(NONCE_LEN).ok_or(UnsealError::UnknownForm)?;
        if *form != FORM {
            return Err(UnsealError::UnknownForm);
        }
        let nonce = Nonce::try_assume_unique_for_key(nonce).map_err(|_| UnsealError::UnknownForm)?;
        let mut text = Zeroizing::new(sealed.to_vec());
        let aad = Aad::from(what.as_bytes());
        let opened = self.key.open_in_place(nonce, aad, &mut text).map_err(|_| UnsealError::BrokenSeal)?.len();
        text.truncate(opened);
        Ok(text)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn value() -> PublishedValue {
        PublishedValue {
            value: "TOKEN".into(),
            generation: 7,
            expires_ms: 9,
            fetched_ms: 1,
            life_ms: 8,
            longest_ms: 8,
            learned_ms: None,
            withdrawn: false,
            reliable_lead_ms: None,
            refresh: Some("REFRESH".into()),
            by: "node-a".into(),
            node: 1,
        }
    }

    fn seal(secret: &str, tag: &str) -> Seal {
        Seal::new(&Secret::new(secret.into()), tag)
    }

    #[test]
    fn what_was_sealed_opens_with_the_same_secret_alone() {
        let sealed = seal("one secret, long enough", "t1").seal(&value()).unwrap();
        assert!(!sealed.contains("TOKEN"));
        assert_ne!(sealed, seal("one secret, long enough", "t1").seal(&value()).unwrap(), "the nonce is drawn anew");
        assert!(seal("one secret, long enough\n", "t1").unseal(&sealed).is_ok_and(|unsealed| unsealed == value()));
        assert_eq!(seal("another secret, as long", "t1").unseal(&sealed).err(), Some(UnsealError::BrokenSeal));
    }

    #[test]
    fn a_value_moved_to_another_credentials_place_does_not_open() {
        let sealed = seal("one secret, long enough", "t1").seal(&value()).unwrap();
        assert_eq!(seal("one secret, long enough", "t2").unseal(&sealed).err(), Some(UnsealError::BrokenSeal));
    }

    #[test]
    fn what_nodes_count_opens_as_that_alone() {
        let seal = seal("one secret, long enough", "t1");
        let (value, counts) = (seal.seal(&value()).unwrap(), seal.seal_counts(b"{}").unwrap());
        assert_eq!(seal.unseal_counts(&counts).unwrap().as_slice(), b"{}");
        assert_eq!(seal.unseal(&counts).err(), Some(UnsealError::BrokenSeal));
        assert_eq!(seal.unseal_counts(&value).err(), Some(UnsealError::BrokenSeal));
    }

    #[test]
    fn no_single_changed_character_goes_unnoticed() {
        let seal = seal("one secret, long enough", "t1");
        let sealed = seal.seal(&value()).unwrap();
        for at in 0..sealed.len() {
            let mut bytes = sealed.as_bytes().to_vec();
            bytes[at] = if bytes[at] == b'A' { b'B' } else { b'A' };
            assert!(seal.unseal(std::str::from_utf8(&bytes).unwrap()).is_err(), "at {at}");
        }
        for text in ["", "A", "AQ==", "token in the clear", &"A".repeat(70_000)] {
            assert!(seal.unseal(text).is_err());
        }
    }
}
