//! Adopts a value that the site has fetched itself, so that this server's first fetch does not end it.
//!
//! If an endpoint makes a new token at every call, the first fetch of a new server ends the token that all other
//! programs of the site still use. So the first value is read from where the site keeps it, probed, and served until it
//! expires. This module says where it can be read and how it is found in the bytes there; the fetch and the
//! actor decide. Never writes to such a place, and never shows a value.

mod memcached;

use std::path::Path;
use std::sync::Arc;
use std::time::UNIX_EPOCH;

use bytes::Bytes;
use futures_util::future::{BoxFuture, FutureExt};

use crate::credential::Adopt;
use crate::files;

/// A place where the site keeps its value.
pub trait TokenSource: Send + Sync + 'static {
    fn place(&self) -> String;

    /// Reads what is there now. The error says what is wrong with the place.
    fn read(&self) -> BoxFuture<'_, Result<Vec<StoredBytes>, String>>;
}

#[derive(Clone, Default)]
pub struct StoredBytes {
    pub bytes: Vec<u8>,
    /// How long the place keeps it.
    pub left_ms: Option<u64>,
    /// When it was written, wall time.
    pub written_unix_ms: Option<i64>,
}

impl From<Vec<u8>> for StoredBytes {
    fn from(bytes: Vec<u8>) -> StoredBytes {
        StoredBytes { bytes, ..StoredBytes::default() }
    }
}

/// A value that was found. Whether it is accepted is another question.
#[derive(Clone, PartialEq, Eq)]
pub struct FoundToken {
    pub value: Bytes,
    /// The longest time that it can still live.
    pub left_ms: u64,
    /// The site has stored its expiry; otherwise its age is not known.
    pub is_end_known: bool,
}

/// The most that is read of a place.
const BYTES_MAX: usize = 64 * 1024;
const LIFE_MS: i64 = 7_200_000;
/// Shorter words are secrets, hashes or names; tokens have more than a hundred characters.
const TOKEN_CHARS_MIN: usize = 80;
const TOKEN_CHARS_MAX: usize = 512;
/// With less time left it is not adopted.
const LEFT_MS_MIN: i64 = 5_000;

/// The source in an app's configuration; none for its own sink, which is known elsewhere.
pub fn source(adopt: &Adopt) -> Option<Arc<dyn TokenSource>> {
    (*adopt != Adopt::Sink).then(|| Arc::new(adopt.clone()) as Arc<dyn TokenSource>)
}

impl TokenSource for Adopt {
    fn place(&self) -> String {
        match self {
            Adopt::Sink => "the app's own sink".to_owned(),
            Adopt::Memcached { address, key } => format!("the key {key} of the memcached at {address}"),
            Adopt::File(path) => format!("the file {}", path.display()),
        }
    }

    fn read(&self) -> BoxFuture<'_, Result<Vec<StoredBytes>, String>> {
        match self {
            Adopt::Sink => std::future::ready(Ok(Vec::new())).boxed(),
            Adopt::Memcached { address, key } => memcached::read(address, key).boxed(),
            Adopt::File(path) => read_file(path).boxed(),
        }
    }
}

/// A file of the site. Its modification time limits the age of the token in it.
async fn read_file(path: &Path) -> Result<Vec<StoredBytes>, String> {
    let read = {
        let path = path.to_owned();
        move || {
            let bytes = files::read(&path, BYTES_MAX).map_err(|unread| unread.to_string())?.to_vec();
            let written = std::fs::metadata(&path).and_then(|metadata| metadata.modified()).ok();
            let written = written.and_then(|written| written.duration_since(UNIX_EPOCH).ok());
            let written_unix_ms = written.and_then(|since| i64::try_from(since.as_millis()).ok());
            Ok(vec![StoredBytes { bytes, left_ms: None, written_unix_ms }])
        }
    };
    files::read_in_background(path, read).await.map_err(|hung| hung.to_string())?
}

/// Finds the value and its times in any of the usual forms: bare, JSON, PHP's `serialize`, a PHP file. The value is the
/// first long word after `access_token`, or the longest word of all.
pub fn find(stored: &[StoredBytes], now_unix_ms: i64) -> Option<FoundToken> {
    let value = stored.iter().find_map(|one| token(&String::from_utf8_lossy(&one.bytes)).map(str::to_owned))?;
    let (mut known, mut latest) = (Vec::new(), vec![LIFE_MS]);
    for one in stored {
        // Times may be in a place of their own.
        let text = String::from_utf8_lossy(&one.bytes);
        for unix_ms in words(&text).filter_map(instant_ms) {
            let from_now_ms = unix_ms - now_unix_ms;
            match from_now_ms {
                1..=LIFE_MS => known.push(from_now_ms),
                // The time of the fetch, or an expiry that a script has set too early: it is not known which.
                _ if (-LIFE_MS..=0).contains(&from_now_ms) => latest.push(from_now_ms + LIFE_MS),
                _ => {}
            }
        }
        known.extend(one.left_ms.and_then(|left_ms| i64::try_from(left_ms).ok()).filter(|left_ms| *left_ms <= LIFE_MS));
        latest.extend(one.written_unix_ms.map(|written| written - now_unix_ms + LIFE_MS));
    }
    let left_ms = known.iter().chain(&latest).copied().min().filter(|left_ms| *left_ms >= LEFT_MS_MIN)?;
    let left_ms = u64::try_from(left_ms).ok()?;
    Some(FoundToken { value: Bytes::from(value.into_bytes()), left_ms, is_end_known: !known.is_empty() })
}

fn words(text: &str) -> impl Iterator<Item = &str> {
    text.split(|c: char| !(c.is_ascii_alphanumeric() || c == '_' || c == '-')).filter(|word| !word.is_empty())
}

fn token(text: &str) -> Option<&str> {
    let is_long = |word: &&str| (TOKEN_CHARS_MIN..=TOKEN_CHARS_MAX).contains(&word.len());
    let named = text.find("access_token").and_then(|at| words(text.get(at..)?).find(is_long));
    named.or_else(|| words(text).filter(is_long).max_by_key(|word| word.len()))
}

fn instant_ms(word: &str) -> Option<i64> {
    let number: i64 = word.parse().ok()?;
    match word.len() {
        10 => Some(number * 1000),
        13 => Some(number),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW_S: i64 = 1_800_000_000;

    fn stored(text: &str) -> StoredBytes {
        StoredBytes { bytes: text.as_bytes().to_vec(), ..StoredBytes::default() }
    }

    fn token_of(n: u8) -> String {
        format!("88_{}_-{n}", "aB3d".repeat(33))
    }

    fn found(text: &str) -> Option<(String, u64, bool)> {
        let found = find(&[stored(text)], NOW_S * 1000)?;
        Some((String::from_utf8(found.value.to_vec()).unwrap(), found.left_ms / 1000, found.is_end_known))
    }

    #[test]
    fn the_token_is_found_in_every_way_that_sites_keep_it() {
        let (token, end) = (token_of(1), NOW_S + 3_000);
        for text in [format!("{token}\n"), format!("\"{token}\""), format!("s:{}:\"{token}\";", token.len())] {
            assert_eq!(found(&text), Some((token.clone(), 7_200, false)), "{text}");
        }
        for text in [
            format!("{{\"access_token\":\"{token}\",\"expire_time\":{end}}}"),
            format!(
                "<?php exit();?>{{\"jsapi_ticket\":\"{}\",\"access_token\":\"{token}\",\"expire_time\":{end}}}",
                token_of(2)
            ),
            format!("a:2:{{s:12:\"access_token\";s:{}:\"{token}\";s:10:\"expires_in\";i:{end};}}", token.len()),
            format!(
                "<?php\nreturn array('access_token' => '{token}', 'expires' => {end}, 'appid' => 'wx0123456789abcdef');"
            ),
            format!("{{\"expires\":{end}123,\"access_token\":\"{token}\"}}"),
        ] {
            assert_eq!(found(&text), Some((token.clone(), 3_000, true)), "{text}");
        }
    }

    #[test]
    fn of_several_times_the_nearest_end_counts_and_a_time_past_tells_none() {
        let token = token_of(1);
        let at = |first: i64, second: i64| found(&format!("{token} {} {}", NOW_S + first, NOW_S + second));
        assert_eq!(at(3_000, 4_000), Some((token.clone(), 3_000, true)));
        assert_eq!(
            at(-1_200, -1_200),
            Some((token.clone(), 6_000, false)),
            "fetched 20 minutes ago, or an end too early"
        );
        assert_eq!(at(5_000, -6_000), Some((token.clone(), 1_200, true)));
        assert_eq!(at(-7_198, -7_198), None, "as good as over");
        assert_eq!(at(90_000, -90_000), Some((token, 7_200, false)), "such times are about something else");
    }

    #[test]
    fn what_the_place_knows_of_time_counts_too() {
        let of = |left_ms, written_s: Option<i64>| {
            let written_unix_ms = written_s.map(|ago| (NOW_S - ago) * 1000);
            let one = StoredBytes { left_ms, written_unix_ms, ..stored(&token_of(1)) };
            find(&[one], NOW_S * 1000).map(|found| (found.left_ms / 1000, found.is_end_known))
        };
        assert_eq!(of(Some(2_000_000), None), Some((2_000, true)));
        assert_eq!(of(None, Some(200)), Some((7_000, false)));
        assert_eq!(of(None, Some(8_000)), None, "written more than two hours ago");
    }

    #[test]
    fn what_is_no_token_is_not_taken_for_one() {
        for text in ["", "null", "0123456789abcdef0123456789abcdef", &"ab".repeat(32), &"a".repeat(600), "密码"] {
            assert_eq!(found(text), None, "{text}");
        }
        assert_eq!(find(&[], 0).map(|_| ()), None);
    }

    #[test]
    fn the_end_may_stand_under_another_key() {
        let (token, end) = (token_of(3), NOW_S + 100);
        let found = find(&[stored(&token), stored(&end.to_string())], NOW_S * 1000).unwrap();
        assert_eq!((found.left_ms, found.is_end_known), (100_000, true));
    }
}
