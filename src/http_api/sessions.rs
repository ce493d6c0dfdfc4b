//! Sessions of people who have logged in with a key. They are kept in memory, limited in number and age; the browser has
//! only a number.
//!
//! A session has the rights that its key has at each request, and ends with its key.

use std::collections::HashMap;

use parking_lot::Mutex;
use sha2::{Digest, Sha256};

use crate::access::ApiKeyDigest;
use crate::clock::BootMs;

const SESSIONS_MAX: usize = 256;
/// The most sessions of one key. A further one ends the key's oldest session.
const SESSIONS_PER_KEY_MAX: usize = 32;
pub const LIFE_MS: u64 = 12 * 3_600_000;
/// A session ends when it has not been used for so long, milliseconds.
const IDLE_MS: u64 = 2 * 3_600_000;

/// By the digests of their numbers, so that nothing in memory can be used to log in.
#[derive(Default)]
pub struct Sessions(Mutex<HashMap<[u8; 32], Session>>);

struct Session {
    key: ApiKeyDigest,
    begun_ms: BootMs,
    used_ms: BootMs,
}

impl Session {
    fn is_over(&self, now_ms: BootMs) -> bool {
        now_ms.saturating_sub(self.begun_ms) >= LIFE_MS || now_ms.saturating_sub(self.used_ms) >= IDLE_MS
    }
}

impl Sessions {
    /// Begins a session and gives its number; `None` if the system has no random bytes.
    pub fn begin(&self, key: ApiKeyDigest, now_ms: BootMs) -> Option<String> {
        let number = random()?;
        let mut sessions = self.0.lock();
        sessions.retain(|_, session| !session.is_over(now_ms));
        for (of, max) in [(Some(key), SESSIONS_PER_KEY_MAX), (None, SESSIONS_MAX)] {
            let those = || sessions.iter().filter(|(_, session)| of.is_none_or(|key| key == session.key));
            let oldest = those().min_by_key(|(_, session)| session.begun_ms).map(|(number, _)| *number);
            if let Some(oldest) = oldest.filter(|_| those().count() >= max) {
                sessions.remove(&oldest);
            }
        }
        sessions.insert(digest(&number), Session { key, begun_ms: now_ms, used_ms: now_ms });
        Some(number)
    }

    /// The key of a session that has not ended.
    pub fn find(&self, number: &str, now_ms: BootMs) -> Option<ApiKeyDigest> {
        let mut sessions = self.0.lock();
        let session = sessions.get_mut(&digest(number)).filter(|session| !session.is_over(now_ms))?;
        session.used_ms = now_ms;
        Some(session.key)
    }

    pub fn end(&self, number: &str) {
        self.0.lock().remove(&digest(number));
    }
}

fn digest(number: &str) -> [u8; 32] {
    Sha256::digest(number).into()
}

/// 256 bits of the system's randomness, in hex.
fn random() -> Option<String> {
    let mut bytes = [0; 32];
    rustls::crypto::ring::default_provider().secure_random.fill(&mut bytes).ok()?;
    Some(hex::encode(bytes))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_session_lasts_while_it_is_used_and_not_for_ever() {
        let sessions = Sessions::default();
        let number = sessions.begin([1; 32], 0).unwrap();
        assert_eq!(number.len(), 64);
        assert_eq!(sessions.find(&number, IDLE_MS - 1), Some([1; 32]));
        let mut now = 0;
        while now + IDLE_MS / 2 < LIFE_MS {
            now += IDLE_MS / 2;
            assert!(sessions.find(&number, now).is_some(), "{now}");
        }
        assert_eq!(sessions.find(&number, LIFE_MS), None);
        let idle = sessions.begin([1; 32], 0).unwrap();
        assert_eq!(sessions.find(&idle, IDLE_MS), None);
        let ended = sessions.begin([1; 32], 0).unwrap();
        sessions.end(&ended);
        assert_eq!(sessions.find(&ended, 1), None);
        assert_eq!(sessions.find("", 1), None);
    }

    #[test]
    fn there_are_never_too_many_and_one_key_cannot_push_out_all_others() {
        let sessions = Sessions::default();
        let other = sessions.begin([2; 32], 0).unwrap();
        let first = sessions.begin([1; 32], 1).unwrap();
        for now in 2..1_000 {
            sessions.begin([1; 32], now).unwrap();
        }
        assert_eq!(sessions.0.lock().len(), SESSIONS_PER_KEY_MAX + 1);
        assert!(sessions.find(&other, 1_000).is_some() && sessions.find(&first, 1_000).is_none());
        for key in 3..=255 {
            for now in 0..2 {
                sessions.begin([key; 32], 1_000 + now).unwrap();
            }
        }
        assert_eq!(sessions.0.lock().len(), SESSIONS_MAX);
    }
}
