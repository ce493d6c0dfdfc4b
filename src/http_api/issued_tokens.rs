//! Which credential a token belongs to, by the token's digest: live tokens, and earlier ones until they expire. A wrong
//! token costs one look into a map, so calls with one are not limited.

use std::collections::HashMap;

use sha2::{Digest, Sha256};

use crate::clock::BootMs;
use crate::credential::table::{Reading, Table};

/// The most issued tokens that are remembered, besides four of each credential.
const ISSUED_TOKENS_MAX: usize = 50_000;

pub struct IssuedTokens {
    /// All values up to this version of [`Table::values`] are here.
    upto: u64,
    /// The credential's id, and when the token expires.
    by_digest: HashMap<[u8; 32], (usize, BootMs)>,
    max: usize,
}

impl IssuedTokens {
    pub fn new(credentials: usize) -> IssuedTokens {
        IssuedTokens { upto: 0, by_digest: HashMap::new(), max: ISSUED_TOKENS_MAX + 4 * credentials }
    }

    pub fn record(&mut self, value: &[u8], id: usize, expires_ms: BootMs, now_ms: BootMs) {
        if self.by_digest.len() >= self.max {
            self.by_digest.retain(|_, (_, end_ms)| *end_ms > now_ms);
        }
        if self.by_digest.len() < self.max {
            self.by_digest.insert(Sha256::digest(value).into(), (id, expires_ms));
        }
    }

    /// Adds the values that have been published since the last time.
    pub fn record_published(&mut self, table: &Table, now_ms: BootMs) {
        let (from, upto) = (self.upto, *table.values().borrow());
        if from == upto {
            return;
        }
        for credential in table.credentials_that(|credential| credential.value_version() > from) {
            if let Reading::Live(shown) = credential.read(now_ms)
                && let Some(shown) = shown.as_ref()
            {
                self.record(&shown.value, credential.id, shown.expires_boot_ms, now_ms);
            }
        }
        self.upto = upto;
    }

    pub fn owner_of(&self, value: &str, now_ms: BootMs) -> Option<usize> {
        let digest: [u8; 32] = Sha256::digest(value).into();
        self.by_digest.get(&digest).filter(|(_, end_ms)| *end_ms > now_ms).map(|(id, _)| *id)
    }
}
