//! Keys of the HTTP API, from a file: a line `name key right...` for each.
//!
//! Keeps a digest in place of a key. A comparison takes the same time whatever is given.

use std::sync::Arc;

use hex::FromHex;
use sha2::{Digest, Sha256};

use super::{DigestTable, ManagedApps};

/// What names a key without giving it away.
pub type ApiKeyDigest = super::Digest;

/// The shortest key that is taken, bytes: a guess must be hopeless.
pub const KEY_BYTES_MIN: usize = 20;
/// Stands before a key that the file holds as its SHA-256, in hex.
const HASHED: &str = "sha256:";

/// What the bearer of a key may do on the HTTP port.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HttpRights {
    /// The whole server's figures, and how every credential fares; never a token.
    pub status: bool,
    read: ManagedApps,
    refresh: ManagedApps,
}

impl HttpRights {
    pub const NONE: HttpRights = HttpRights { status: false, read: ManagedApps::None, refresh: ManagedApps::None };
    pub const ALL: HttpRights = HttpRights { status: true, read: ManagedApps::All, refresh: ManagedApps::All };

    /// The tokens and tickets of this app.
    pub fn read(&self, app: &str) -> bool {
        includes(&self.read, app)
    }

    /// The tokens and tickets of some app or other.
    pub fn reads_some(&self) -> bool {
        self.read != ManagedApps::None
    }

    /// Have this app's credentials checked and tried.
    pub fn refresh(&self, app: &str) -> bool {
        includes(&self.refresh, app)
    }

    /// How this app fares. What a client may not see is not there for it.
    pub fn can_see(&self, app: &str) -> bool {
        self.status || self.read(app) || self.refresh(app)
    }

    /// The words of a line that mean this.
    pub fn words(&self) -> Vec<String> {
        let mut words = Vec::new();
        if self.status {
            words.push("status".to_owned());
        }
        for (word, apps) in [("read", &self.read), ("refresh", &self.refresh)] {
            words.extend((*apps == ManagedApps::All).then(|| word.to_owned()));
            words.extend(apps.named().iter().map(|app| format!("{word}:{app}")));
        }
        words
    }

    fn of_words<'a>(words: impl IntoIterator<Item = &'a str>) -> Option<HttpRights> {
        let mut rights = HttpRights::NONE;
        for word in words {
            match word.split_once(':') {
                None if word == "status" => rights.status = true,
                None if word == "read" => rights.read = ManagedApps::All,
                None if word == "refresh" => rights.refresh = ManagedApps::All,
                Some(("read", app)) if !app.is_empty() => add(&mut rights.read, app),
                Some(("refresh", app)) if !app.is_empty() => add(&mut rights.refresh, app),
                _ => return None,
            }
        }
        Some(rights)
    }

    /// The apps that are named one by one.
    pub fn named_apps(&self) -> impl Iterator<Item = &String> {
        self.read.named().iter().chain(self.refresh.named())
    }
}

fn includes(apps: &ManagedApps, app: &str) -> bool {
    *apps == ManagedApps::All || apps.named().iter().any(|named| named == app)
}

fn add(apps: &mut ManagedApps, app: &str) {
    if !includes(apps, app) {
        *apps = ManagedApps::Of([apps.named(), &[app.to_owned()]].concat().into());
    }
}

pub struct ApiKey {
    /// Stands for the key in sessions and counters.
    pub digest: ApiKeyDigest,
    /// For logs and for the page; several keys may share it.
    pub name: Arc<str>,
    pub rights: Arc<HttpRights>,
}

pub type ApiKeys = DigestTable<Arc<ApiKey>>;

/// What is wrong with the file; never quotes it.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ApiKeysFault {
    #[error("it is not valid UTF-8")]
    NotUtf8,
    #[error("line {0} has fewer than three words: write name, key and rights")]
    Short(usize),
    #[error("line {0} has a key of fewer than {KEY_BYTES_MIN} characters: make one with openssl rand -hex 32")]
    Weak(usize),
    #[error("line {0} has no 64 hex digits after sha256:")]
    BadHash(usize),
    #[error("line {0} has a right that is none: write status, read, read:<appid>, refresh or refresh:<appid>")]
    UnknownRight(usize),
    #[error("it has no key")]
    Empty,
}

impl ApiKeys {
    /// Reads the text of a file. Empty lines and those that begin with `#` count for nothing.
    pub fn parse(text: &[u8]) -> Result<ApiKeys, ApiKeysFault> {
        let text = std::str::from_utf8(text).map_err(|_| ApiKeysFault::NotUtf8)?;
        let mut keys = Vec::new();
        for (number, line) in (1..).zip(text.lines()) {
            let mut words = line.split_whitespace().peekable();
            if words.peek().is_none_or(|word| word.starts_with('#')) {
                continue;
            }
            let (Some(name), Some(key), Some(_)) = (words.next(), words.next(), words.peek()) else {
                return Err(ApiKeysFault::Short(number));
            };
            let digest = match key.strip_prefix(HASHED) {
                Some(hex) => ApiKeyDigest::from_hex(hex).map_err(|_| ApiKeysFault::BadHash(number))?,
                None if key.len() < KEY_BYTES_MIN => return Err(ApiKeysFault::Weak(number)),
                None => digest_of(key.as_bytes()),
            };
            let rights = HttpRights::of_words(words).ok_or(ApiKeysFault::UnknownRight(number))?;
            keys.push((digest, Arc::new(ApiKey { digest, name: name.into(), rights: Arc::new(rights) })));
        }
        if keys.is_empty() { Err(ApiKeysFault::Empty) } else { Ok(DigestTable(keys)) }
    }

    pub fn find(&self, given: &[u8]) -> Option<Arc<ApiKey>> {
        self.by_digest(&digest_of(given))
    }

    /// The same, of a key that was found before and may have gone since.
    pub fn by_digest(&self, given: &ApiKeyDigest) -> Option<Arc<ApiKey>> {
        self.find_digest(given).cloned()
    }

    pub fn iter(&self) -> impl Iterator<Item = &ApiKey> {
        self.0.iter().map(|(_, key)| &**key)
    }
}

fn digest_of(key: &[u8]) -> ApiKeyDigest {
    Sha256::digest(key).into()
}

#[cfg(test)]
mod tests {
    use super::*;

    const KEY: &str = "0123456789abcdef0123456789abcdef";

    fn keys(text: &str) -> ApiKeys {
        ApiKeys::parse(text.as_bytes()).unwrap()
    }

    #[test]
    fn a_key_is_found_plain_or_hashed_and_nothing_like_it_is() {
        let digest: String = hex::encode(digest_of(KEY.as_bytes()));
        for text in [format!("ops {KEY} status\n"), format!("# ours\n\n ops\tsha256:{digest}  status\r\n")] {
            let keys = keys(&text);
            let found = keys.find(KEY.as_bytes()).unwrap();
            assert_eq!((&*found.name, found.rights.words().join(" ")), ("ops", "status".to_owned()));
            for wrong in ["", &KEY[1..], &KEY.to_uppercase(), &format!("{KEY} "), &digest, &format!("sha256:{digest}")]
            {
                assert!(keys.find(wrong.as_bytes()).is_none(), "{wrong}");
            }
            assert!(!format!("{keys:?}").contains("0123"));
        }
    }

    #[test]
    fn rights_are_those_of_the_line() {
        let text = format!("a {KEY} read:wx1 refresh:ww1:2 read:wx2\nb {KEY}b status read refresh\n");
        let keys = keys(&text);
        let rights = keys.find(KEY.as_bytes()).unwrap().rights.clone();
        assert!(rights.read("wx1") && rights.read("wx2") && !rights.read("wx") && !rights.read("ww1:2"));
        assert!(rights.refresh("ww1:2") && !rights.refresh("ww1") && !rights.refresh("wx1"));
        assert!(!rights.status && rights.can_see("wx1") && rights.can_see("ww1:2") && !rights.can_see("wx3"));
        let all = keys.find(format!("{KEY}b").as_bytes()).unwrap();
        assert_eq!(*all.rights, HttpRights::ALL);
    }

    #[test]
    fn what_is_wrong_is_named_by_its_line_and_never_quoted() {
        let wrong = |text: &str| ApiKeys::parse(text.as_bytes()).map(|keys| keys.count()).unwrap_err();
        assert_eq!(wrong("\n# only\n"), ApiKeysFault::Empty);
        assert_eq!(wrong(&format!("\na {KEY}\n")), ApiKeysFault::Short(2));
        assert_eq!(wrong("a short status"), ApiKeysFault::Weak(1));
        assert_eq!(wrong("a sha256:abc status"), ApiKeysFault::BadHash(1));
        for right in ["everything", "read:", "Status", "write:wx1"] {
            assert_eq!(wrong(&format!("a {KEY} {right}")), ApiKeysFault::UnknownRight(1), "{right}");
        }
        assert_eq!(ApiKeys::parse(b"\xff").err(), Some(ApiKeysFault::NotUtf8));
    }
}
