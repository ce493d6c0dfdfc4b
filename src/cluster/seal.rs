//! What is published, and its seal: whoever can read the store learns no token from it, and whoever can write to it
//! cannot make nodes serve another.
//!
//! ChaCha20-Poly1305 with a random nonce, under a key derived from the operator's secret for each credential, so that
//! a value moved to another credential's place does not open. An older value put back opens, and is refused by its
//! generation. What nodes count is sealed likewise, and opens as nothing else. Never logs; `Debug` shows no value.

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

/// Named in the sealed text, so that a later form can be told from this one.
const FORM: u8 = 1;
/// A sealed value is longer than any real one only if somebody has put it there.
const SEALED_BYTES_MAX: usize = 64 * 1024;

/// A value as nodes share it. No `Debug`: it holds the token.
#[derive(Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct PublishedValue {
    pub value: String,
    pub generation: u64,
    /// From when on it must not be served, on the store's clock.
    pub expires_ms: StoreMs,
    /// When it came, on the store's clock.
    pub fetched_ms: StoreMs,
    pub life_ms: u64,
    pub longest_ms: u64,
    pub learned_ms: Option<u64>,
    /// WeChat refused it in a probe.
    #[serde(default)]
    pub withdrawn: bool,
    /// So long before its end it is not to be relied on any more; none if that follows from how it is renewed.
    #[serde(default)]
    pub reliable_lead_ms: Option<u64>,
    /// What the next renewal of an authorizer is made with.
    #[serde(default)]
    pub refresh: Option<String>,
    /// Which node it comes from, by its name, and which process of that.
    pub by: String,
    #[serde(default)]
    pub node: NodeId,
}

/// Why a sealed value could not be opened.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum UnsealError {
    #[error("it is not a sealed value of a known form")]
    UnknownForm,
    #[error("its seal is broken: it was written with another secret, or tampered with")]
    BrokenSeal,
    #[error("it was sealed for another generation than it stands under")]
    WrongGeneration,
}

/// Seals and opens the values of one credential.
pub struct Seal {
    key: LessSafeKey,
    tag: Box<str>,
    counts_tag: Box<str>,
}

impl Seal {
    /// For the credential of that tag.
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

    /// The sealed text; none if the machine gives no random numbers.
    pub fn close(&self, value: &PublishedValue) -> Option<Arc<str>> {
        self.close_as(&self.tag, Zeroizing::new(serde_json::to_vec(value).ok()?))
    }

    /// The value, if the seal is whole.
    pub fn open(&self, sealed: &str) -> Result<PublishedValue, UnsealError> {
        let opened = self.open_as(&self.tag, sealed)?;
        serde_json::from_slice(&opened).map_err(|_| UnsealError::UnknownForm)
    }

    /// Seals what nodes count together; none if the machine gives no random numbers.
    pub fn close_counts(&self, counts: &[u8]) -> Option<Arc<str>> {
        self.close_as(&self.counts_tag, Zeroizing::new(counts.to_vec()))
    }

    /// What [`Seal::close_counts`] has sealed, if the seal is whole.
    pub fn open_counts(&self, sealed: &str) -> Result<Zeroizing<Vec<u8>>, UnsealError> {
        self.open_as(&self.counts_tag, sealed)
    }

    /// `what` is bound to the text: it opens as nothing else.
    fn close_as(&self, what: &str, mut text: Zeroizing<Vec<u8>>) -> Option<Arc<str>> {
        let mut nonce = [0; NONCE_LEN];
        SystemRandom::new().fill(&mut nonce).ok()?;
        let (nonce_used, aad) = (Nonce::assume_unique_for_key(nonce), Aad::from(what.as_bytes()));
        let proof = self.key.seal_in_place_separate_tag(nonce_used, aad, &mut text).ok()?;
        let all = [&[FORM], nonce.as_slice(), text.as_slice(), proof.as_ref()].concat();
        Some(STANDARD.encode(&all).into())
    }

    fn open_as(&self, what: &str, sealed: &str) -> Result<Zeroizing<Vec<u8>>, UnsealError> {
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
        let sealed = seal("one secret, long enough", "t1").close(&value()).unwrap();
        assert!(!sealed.contains("TOKEN"));
        assert_ne!(sealed, seal("one secret, long enough", "t1").close(&value()).unwrap(), "the nonce is drawn anew");
        assert!(seal("one secret, long enough\n", "t1").open(&sealed).is_ok_and(|opened| opened == value()));
        assert_eq!(seal("another secret, as long", "t1").open(&sealed).err(), Some(UnsealError::BrokenSeal));
    }

    #[test]
    fn a_value_moved_to_another_credentials_place_does_not_open() {
        let sealed = seal("one secret, long enough", "t1").close(&value()).unwrap();
        assert_eq!(seal("one secret, long enough", "t2").open(&sealed).err(), Some(UnsealError::BrokenSeal));
    }

    #[test]
    fn what_nodes_count_opens_as_that_alone() {
        let seal = seal("one secret, long enough", "t1");
        let (value, counts) = (seal.close(&value()).unwrap(), seal.close_counts(b"{}").unwrap());
        assert_eq!(seal.open_counts(&counts).unwrap().as_slice(), b"{}");
        assert_eq!(seal.open(&counts).err(), Some(UnsealError::BrokenSeal));
        assert_eq!(seal.open_counts(&value).err(), Some(UnsealError::BrokenSeal));
    }

    #[test]
    fn no_single_changed_character_goes_unnoticed() {
        let seal = seal("one secret, long enough", "t1");
        let sealed = seal.close(&value()).unwrap();
        for at in 0..sealed.len() {
            let mut bytes = sealed.as_bytes().to_vec();
            bytes[at] = if bytes[at] == b'A' { b'B' } else { b'A' };
            assert!(seal.open(std::str::from_utf8(&bytes).unwrap()).is_err(), "at {at}");
        }
        for text in ["", "A", "AQ==", "token in the clear", &"A".repeat(70_000)] {
            assert!(seal.open(text).is_err());
        }
    }
}
