//! What a sink writes for one credential, and what it makes of what it finds there.
//!
//! Pure: the time comes in as a value.

use std::sync::Arc;

use bytes::Bytes;

use crate::clock::{BootMs, Now, Spacing};
use crate::config::{SinkKey, Ttl};
use crate::credential::encoding::View;
use crate::credential::table::{Credential, Published, Times};

/// What is shorter is no token.
const TOKEN_BYTES_MIN: usize = 16;
/// Tokens of ours that may still lie in a Redis: one, the one before, and one that a Redis has loaded from its disk.
const OURS_MAX: usize = 3;

/// One credential, and its keys in one Redis.
pub(super) struct Item {
    pub credential: Arc<Credential>,
    pub keys: Vec<Key>,
    /// When what is in Redis ends.
    pub end_ms: Option<BootMs>,
    /// At most one line a minute about rivals.
    pub rival_logged: Spacing,
    /// The newest last.
    ours: Vec<Bytes>,
}

/// A key of an [`Item`].
pub(super) struct Key {
    pub name: String,
    spoken: Option<String>,
    view: View,
    /// What we have written last, unless we have deleted it since.
    written: Option<Vec<u8>>,
}

impl Key {
    pub fn new(key: &SinkKey) -> Key {
        Key { name: key.name.clone(), spoken: key.spoken.clone(), view: key.view.clone(), written: None }
    }

    /// The name for a log: never a secret, though the key may hold one.
    pub fn spoken(&self) -> &str {
        self.spoken.as_deref().unwrap_or(&self.name)
    }
}

/// What should be in Redis now.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Wanted {
    /// These bytes of that token, in the order of the keys, for so many milliseconds; none: without an end.
    Values { token: Bytes, values: Vec<Vec<u8>>, ttl_ms: Option<u64>, until_ms: BootMs },
    /// Nothing of ours.
    Nothing,
}

/// What was under a key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Found {
    Absent,
    Ours,
    /// Another's token over one of ours.
    Rival,
    /// Something else that we have not written.
    Foreign,
}

impl Item {
    pub fn new(credential: Arc<Credential>) -> Item {
        Item { credential, keys: Vec::new(), end_ms: None, rival_logged: Spacing::default(), ours: Vec::new() }
    }

    /// What should be in Redis at this instant.
    pub fn wanted(&self, ttl: Ttl, now: Now) -> Wanted {
        let Some(published) = self.credential.published() else { return Wanted::Nothing };
        let margin_ms = match ttl {
            Ttl::Left { margin_s } => margin_s * 1000,
            Ttl::None => 0,
        };
        let until_ms = published.expires_boot_ms.saturating_sub(margin_ms);
        if until_ms <= now.boot_ms {
            return Wanted::Nothing;
        }
        let values = self.keys.iter().map(|key| key.render(&published, now)).collect();
        let ttl_ms = (ttl != Ttl::None).then(|| until_ms - now.boot_ms);
        Wanted::Values { token: published.value.clone(), values, ttl_ms, until_ms }
    }

    /// From now on this token is ours wherever it is found.
    pub fn own(&mut self, token: Bytes) {
        self.ours.retain(|known| *known != token);
        self.ours.push(token);
        if self.ours.len() > OURS_MAX {
            self.ours.remove(0);
        }
    }

    /// Judges what was under a key; `None` if nothing was. In whatever encoding: a node beside this one writes the same
    /// token with other times.
    pub fn judge(&self, key: usize, found: Option<&[u8]>) -> Found {
        let (Some(found), Some(key)) = (found, self.keys.get(key)) else { return Found::Absent };
        let same = key.written.as_deref() == Some(found);
        let holds = |token: &Bytes| memchr::memmem::find(found, token).is_some();
        if same || !key.view.holds_value() || self.ours.iter().any(holds) {
            return Found::Ours;
        }
        // The first time whatever was there may be long abandoned.
        let was_ours = key.written.is_some();
        if was_ours && found.len() >= TOKEN_BYTES_MIN { Found::Rival } else { Found::Foreign }
    }

    /// They are there now.
    pub fn written(&mut self, values: Vec<Vec<u8>>) {
        for (key, value) in self.keys.iter_mut().zip(values) {
            key.written = Some(value);
        }
    }

    /// What may be deleted: each key's name, and the bytes that must be found there. After a restart that is what a
    /// former process will have written, as far as it can be known.
    pub fn deletable(&self, now: Now) -> Vec<(String, Vec<u8>)> {
        let published = self.credential.published();
        let expected = |key: &Key| {
            let guess = || published.as_ref().filter(|_| key.view.holds_value()).map(|old| key.render(old, now));
            Some((key.name.clone(), key.written.clone().or_else(guess)?))
        };
        self.keys.iter().filter_map(expected).collect()
    }

    /// None of ours is there now.
    pub fn deleted(&mut self) {
        self.keys.iter_mut().for_each(|key| key.written = None);
    }

    /// Whether something of ours should be there at present, as far as we know.
    pub fn is_written(&self) -> bool {
        self.keys.iter().any(|key| key.written.is_some())
    }
}

impl Key {
    fn render(&self, published: &Published, now: Now) -> Vec<u8> {
        let mut bytes = Vec::new();
        let times = Times::new(now, published.reliable_until(now.boot_ms), self.view.at_least_s);
        self.view.render(&published.value).write(&mut bytes, &times);
        bytes
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::AliasOf;
    use crate::credential::encoding::{Fact, Form};

    const TOKEN: &str = "token-of-ours-0123456789";
    const OTHER: &str = "token-of-another-0123456789";
    const NOW: Now = Now { boot_ms: 10_000, unix_ms: 1_700_000_000_000 };

    fn item() -> Item {
        let mut item = Item::new(Arc::new(Credential::new(0, "wx1", Box::new([]))));
        for (name, form) in [("token", Form::JsonString), ("at", Form::Raw(Fact::ExpiresAt))] {
            let view = View { form, flags: 0, at_least_s: 0 };
            let key = SinkKey { app: "wx1".into(), of: AliasOf::AccessToken, name: name.into(), spoken: None, view };
            item.keys.push(Key::new(&key));
        }
        item
    }

    fn publish(item: &Item, token: &str, expires_boot_ms: BootMs) {
        let value = Bytes::copy_from_slice(token.as_bytes());
        item.credential.publish(Published::to_the_end(value, 1, expires_boot_ms));
    }

    fn write(item: &mut Item) {
        let Wanted::Values { token, values, .. } = item.wanted(Ttl::None, NOW) else { panic!() };
        item.own(token);
        item.written(values);
    }

    #[test]
    fn the_time_to_live_is_what_is_left_less_the_margin() {
        let item = item();
        assert_eq!(item.wanted(Ttl::None, NOW), Wanted::Nothing);
        publish(&item, TOKEN, 70_500);
        let values = vec![format!("\"{TOKEN}\"").into_bytes(), b"1700000060".to_vec()];
        let token = Bytes::from_static(TOKEN.as_bytes());
        let wanted =
            |ttl_ms, until_ms| Wanted::Values { token: token.clone(), values: values.clone(), ttl_ms, until_ms };
        assert_eq!(item.wanted(Ttl::Left { margin_s: 0 }, NOW), wanted(Some(60_500), 70_500));
        assert_eq!(item.wanted(Ttl::Left { margin_s: 60 }, NOW), wanted(Some(500), 10_500));
        assert_eq!(item.wanted(Ttl::Left { margin_s: 61 }, NOW), Wanted::Nothing);
        assert_eq!(item.wanted(Ttl::None, NOW), wanted(None, 70_500));
        item.credential.withdraw(NOW.boot_ms);
        assert_eq!(item.wanted(Ttl::None, NOW), Wanted::Nothing);
    }

    #[test]
    fn another_token_is_a_rivals_once_ours_has_been_there() {
        let mut item = item();
        publish(&item, TOKEN, 70_500);
        assert_eq!(item.judge(0, None), Found::Absent);
        assert_eq!(item.judge(0, Some(OTHER.as_bytes())), Found::Foreign, "perhaps long abandoned");
        write(&mut item);
        assert_eq!(item.judge(0, Some(TOKEN.as_bytes())), Found::Ours, "in another encoding");
        assert_eq!(item.judge(0, Some(OTHER.as_bytes())), Found::Rival);
        assert_eq!(item.judge(0, Some(b"short")), Found::Foreign);
        assert_eq!(item.judge(1, Some(b"1")), Found::Ours, "a time says nothing");
    }

    #[test]
    fn the_last_tokens_are_known_as_ours_and_older_ones_are_not() {
        let mut item = item();
        let tokens: Vec<String> = (0..4).map(|n| format!("{TOKEN}-{n}-")).collect();
        for token in &tokens {
            publish(&item, token, 70_500);
            write(&mut item);
        }
        assert_eq!(item.judge(0, Some(tokens[0].as_bytes())), Found::Rival);
        assert!(tokens[1..].iter().all(|token| item.judge(0, Some(token.as_bytes())) == Found::Ours));
    }

    #[test]
    fn only_what_was_written_is_deleted() {
        let mut item = item();
        assert!(item.deletable(NOW).is_empty());
        publish(&item, TOKEN, 70_500);
        let token = ("token".to_owned(), format!("\"{TOKEN}\"").into_bytes());
        assert_eq!(item.deletable(NOW), std::slice::from_ref(&token), "a former process will have written it");
        write(&mut item);
        assert_eq!(item.deletable(NOW), [token, ("at".to_owned(), b"1700000060".to_vec())]);
        assert!(item.is_written());
        item.deleted();
        assert!(!item.is_written());
    }
}
