//! What stands for the words in braces that a key may hold: `{appid}`, `{agent}`, `{secret}`, `{secret10}` and `{md5:...}`.
//!
//! Whatever holds a secret has two forms: the key itself, and what may be shown of it. For people a digest of a secret
//! stays as it was written, so that nobody can try secrets against it. Pure.

use md5::{Digest, Md5};

use super::{ANY, END_BYTES_MIN};
use crate::invalid_value::{InvalidValue, listed, quoted, quoted_name, wrong};

/// memcached's longest key.
const NAME_BYTES_MAX: usize = 250;

/// A shorter text is no secret of WeChat's; leaving it out of sight would only make names unreadable.
const SECRET_BYTES_MIN: usize = 16;

/// As much of WeCom's secret is in wechatpy's key, because a corporation has many secrets.
const SECRET_BEGINNING: usize = 10;

const MD5: &str = "{md5:";

/// Puts a value in the place of `{word}`. Within a digest of JSON it is escaped as PHP's `json_encode()` does.
pub fn fill(key: &str, word: &str, value: &str) -> String {
    let word = format!("{{{word}}}");
    let parts = parts(key).into_iter().map(|part| match part {
        Part::Digest(inner) if is_json(inner) => format!("{MD5}{}}}", inner.replace(&word, &php_json(value))),
        Part::Digest(inner) => format!("{MD5}{}}}", inner.replace(&word, value)),
        Part::Text(text) => text.replace(&word, value),
    });
    parts.collect()
}

/// The key itself, and what may be shown of it.
pub fn insert_secret(key: String, secret: &str) -> (String, String) {
    let beginning = secret.get(..SECRET_BEGINNING).unwrap_or(secret);
    let redacted_name = if secret.len() >= SECRET_BYTES_MIN { key.replace(secret, "{secret}") } else { key };
    let redacted_name = digested(&redacted_name, |inner| !wants_secret(inner));
    let name = fill(&fill(&redacted_name, "secret", secret), "secret10", beginning);
    (digested(&name, |_| true), redacted_name)
}

pub fn wants_secret(key: &str) -> bool {
    key.contains("{secret")
}

pub fn fits_in_a_key(text: &str) -> bool {
    !text.bytes().any(|byte| byte <= b' ' || byte == 0x7f)
}

enum Part<'k> {
    Text(&'k str),
    /// What is between `{md5:` and its closing brace.
    Digest(&'k str),
}

fn parts(key: &str) -> Vec<Part<'_>> {
    let (mut parts, mut rest) = (Vec::new(), key);
    while let Some((before, after)) = rest.split_once(MD5) {
        let Some(end) = closing_brace(after) else { break };
        parts.push(Part::Text(before));
        parts.push(Part::Digest(&after[..end]));
        rest = &after[end + 1..];
    }
    parts.push(Part::Text(rest));
    parts
}

/// Where the brace is that closes one opened before.
fn closing_brace(text: &str) -> Option<usize> {
    let mut depth = 0_usize;
    for (at, byte) in text.bytes().enumerate() {
        match byte {
            b'{' => depth += 1,
            b'}' if depth == 0 => return Some(at),
            b'}' => depth -= 1,
            _ => {}
        }
    }
    None
}

/// Computes the digests of which `now` says so.
fn digested(key: &str, now: impl Fn(&str) -> bool) -> String {
    let parts = parts(key).into_iter().map(|part| match part {
        Part::Digest(inner) if now(inner) => hex::encode(Md5::digest(inner.as_bytes())),
        Part::Digest(inner) => format!("{MD5}{inner}}}"),
        Part::Text(text) => text.to_owned(),
    });
    parts.collect()
}

fn is_json(text: &str) -> bool {
    text.starts_with("{\"")
}

/// The inside of a string as `json_encode()` writes it without options: `/` is escaped, and all beyond ASCII.
fn php_json(text: &str) -> String {
    let mut escaped = String::new();
    for unit in text.encode_utf16() {
        match char::from_u32(u32::from(unit)).filter(char::is_ascii) {
            Some(c @ ('"' | '\\' | '/')) => escaped.extend(['\\', c]),
            Some('\u{8}') => escaped.push_str("\\b"),
            Some('\u{c}') => escaped.push_str("\\f"),
            Some('\n') => escaped.push_str("\\n"),
            Some('\r') => escaped.push_str("\\r"),
            Some('\t') => escaped.push_str("\\t"),
            Some(c) if !c.is_ascii_control() || c == '\u{7f}' => escaped.push(c),
            _ => escaped.push_str(&format!("\\u{unit:04x}")),
        }
    }
    escaped
}

/// `{type}`, and as it was written before, which is still read.
const TYPE: [&str; 2] = ["{type}", "{kind}"];

/// A word in braces as it is written now.
pub fn current_word(word: &str) -> &str {
    if word == "kind" { "type" } else { word }
}

/// Whether a text is another for each type of credential.
pub fn has_type(text: &str) -> bool {
    TYPE.iter().any(|word| text.contains(word))
}

/// The text with the type of a credential in its place.
pub fn fill_type(text: &str, of: &str) -> String {
    TYPE.iter().fold(text.to_owned(), |text, word| text.replace(word, of))
}

/// The words in braces; other braces are part of the text.
pub fn words_in_braces(text: &str) -> impl Iterator<Item = &str> {
    let inside = text.split('{').skip(1).filter_map(|rest| Some(rest.split_once('}')?.0));
    inside.filter(|word| !word.is_empty() && word.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_'))
}

/// `{word}` must be one that is known.
pub fn known_words(key: &str, known: &[&str]) -> Result<(), InvalidValue> {
    for word in words_in_braces(key) {
        if !known.contains(&current_word(word)) {
            let what = format!("{{{}}} is not known in a key", quoted_name(word).trim_matches('"'));
            let words: Vec<String> = known.iter().map(|word| format!("{{{word}}}")).collect();
            return wrong(what, format!("Known are {}.", listed(&words)));
        }
    }
    let open = |part: &Part<'_>| matches!(part, Part::Text(text) if text.contains(MD5));
    if parts(key).iter().any(open) {
        return wrong("{md5: has no end", "Write {md5:...} with as many } as {.");
    }
    Ok(())
}

/// Whether memcached takes that key. `redacted_name` is what may be shown of it.
pub fn check_key(name: &str, redacted_name: &str) -> Result<(), InvalidValue> {
    let remedy = "An alias is a memcached key: 1 to 250 bytes without blanks and control characters.";
    match name {
        "" => wrong("an alias is empty", remedy),
        _ if name.len() > NAME_BYTES_MAX => {
            wrong(format!("the alias {} has {} bytes", quoted(redacted_name), name.len()), remedy)
        }
        _ if !fits_in_a_key(name) => {
            wrong(format!("the alias {} has a blank or a control character", quoted(redacted_name)), remedy)
        }
        _ => check_wildcard(name, redacted_name),
    }
}

/// `{any}` once at most, and enough behind it to tell the key from ordinary ones.
fn check_wildcard(name: &str, redacted_name: &str) -> Result<(), InvalidValue> {
    let Some((_, end)) = name.split_once(ANY) else { return Ok(()) };
    if end.contains(ANY) {
        return wrong(format!("the alias {} has {ANY} twice", quoted(redacted_name)), format!("Write {ANY} once."));
    }
    if end.len() < END_BYTES_MIN {
        let remedy = format!("Write {END_BYTES_MIN} at least, so that it can be told from ordinary keys.");
        return wrong(format!("the alias {} has {} bytes behind {ANY}", quoted(redacted_name), end.len()), remedy);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECRET: &str = "0123456789abcdef0123456789abcdef";
    const CREDENTIALS: &str =
        r#"easywechat.{md5:{"grant_type":"client_credential","appid":"{appid}","secret":"{secret}"}}"#;

    #[test]
    fn a_digest_is_that_of_php_and_its_secret_is_not_shown() {
        let key = fill(CREDENTIALS, "appid", "wx1");
        let (name, redacted_name) = insert_secret(key, SECRET);
        // php -r 'echo md5(json_encode(["grant_type"=>"client_credential","appid"=>"wx1","secret"=>"0123..."]));'
        assert_eq!(name, "easywechat.65aa5b89efe1cdd0b4a95fd7d9e8d1f6");
        assert_eq!(
            redacted_name,
            r#"easywechat.{md5:{"grant_type":"client_credential","appid":"wx1","secret":"{secret}"}}"#
        );
        assert_eq!(
            insert_secret(redacted_name.clone(), SECRET),
            (name, redacted_name),
            "what is shown says the same again"
        );
    }

    #[test]
    fn values_within_json_are_escaped_as_php_does() {
        let (name, _) = insert_secret(fill(CREDENTIALS, "appid", "wx/\"é😀\u{7f}"), SECRET);
        assert_eq!(name, "easywechat.6938fa2872f8656c1961a915531e40b3");
    }

    #[test]
    fn a_digest_without_a_secret_is_shown_as_it_is() {
        let key = fill("yii.{md5:access_token_{appid}}.{appid}", "appid", "wx1");
        let (name, redacted_name) = insert_secret(key, SECRET);
        assert_eq!(name, "yii.2ea0b3491928013ece48b360bc89f9b5.wx1");
        assert_eq!(redacted_name, name);
    }

    #[test]
    fn braces_that_are_no_words_stay() {
        for key in ["{md5:abc", "a{b c}d", "{}", "{\"a\":1}"] {
            assert_eq!(insert_secret(key.to_owned(), SECRET).0, key);
        }
        assert!(known_words("{md5:abc", &["appid"]).is_err());
        assert!(known_words("{md5:{appid}}{}", &["appid"]).is_ok());
        assert!(known_words("{md5:{apid}}", &["appid", "agent"]).is_err());
    }

    #[test]
    fn a_wildcard_has_enough_behind_it() {
        assert!(check_key("a{any}:access_token", "").is_ok());
        assert!(check_key("{any}12345678", "").is_ok());
        for key in ["{any}1234567", "a{any}", "{any}:{any}access_token"] {
            assert!(check_key(key, key).is_err(), "{key}");
        }
    }
}
