//! The words in braces that a key may hold: `{appid}`, `{agent}`, `{secret}`, `{secret10}`, `{any}` and `{md5:...}`.
//!
//! Whatever holds a secret has two forms: the key itself, and what may be shown of it. For people a digest of a secret
//! stays as it was written, so that nobody can try secrets against it.

use super::apps::shown;
use super::fault::Problem;
use super::value::{Reading, quoted};
use crate::encoding::key_words::{MD5, Part, fits_in_a_key, parts};
use crate::encoding::{ANY, END_BYTES_MIN};

/// memcached's longest key.
const NAME_BYTES_MAX: usize = 250;

/// `{word}` must be one that is known; other braces are part of the key.
pub(super) fn known_words(key: &str, known: &[&str]) -> Reading<()> {
    for rest in key.split('{').skip(1) {
        let Some((inner, _)) = rest.split_once('}') else { continue };
        let is_word = !inner.is_empty() && inner.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_');
        if is_word && !known.contains(&inner) {
            let what = format!("{{{}}} is not known in a key", shown(inner).trim_matches('"'));
            let words: Vec<String> = known.iter().map(|word| format!("{{{word}}}")).collect();
            let (last, others) = words.split_last().map_or(("", &[][..]), |(last, others)| (last, others));
            return Err(Problem::new(what, format!("Known are {} and {last}.", others.join(", "))));
        }
    }
    let open = |part: &Part<'_>| matches!(part, Part::Text(text) if text.contains(MD5));
    if parts(key).iter().any(open) {
        return Err(Problem::new("{md5: has no end", "Write {md5:...} with as many } as {."));
    }
    Ok(())
}

/// Whether memcached takes that key. `redacted_name` is what may be shown of it.
pub(super) fn fit(name: &str, redacted_name: &str) -> Reading<()> {
    let remedy = "An alias is a memcached key: 1 to 250 bytes without blanks and control characters.";
    match name {
        "" => Err(Problem::new("an alias is empty", remedy)),
        _ if name.len() > NAME_BYTES_MAX => {
            Err(Problem::new(format!("the alias {} has {} bytes", quoted(redacted_name), name.len()), remedy))
        }
        _ if !fits_in_a_key(name) => {
            Err(Problem::new(format!("the alias {} has a blank or a control character", quoted(redacted_name)), remedy))
        }
        _ => fit_wildcard(name, redacted_name),
    }
}

/// `{any}` once at most, and enough behind it to tell the key from ordinary ones.
fn fit_wildcard(name: &str, redacted_name: &str) -> Reading<()> {
    let Some((_, end)) = name.split_once(ANY) else { return Ok(()) };
    if end.contains(ANY) {
        let what = format!("the alias {} has {ANY} twice", quoted(redacted_name));
        return Err(Problem::new(what, format!("Write {ANY} once.")));
    }
    if end.len() < END_BYTES_MIN {
        let what = format!("the alias {} has {} bytes behind {ANY}", quoted(redacted_name), end.len());
        let remedy = format!("Write {END_BYTES_MIN} at least, so that it can be told from ordinary keys.");
        return Err(Problem::new(what, remedy));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_word_in_braces_is_one_that_is_known() {
        assert!(known_words("{md5:abc", &["appid"]).is_err());
        assert!(known_words("{md5:{appid}}{}", &["appid"]).is_ok());
        assert!(known_words("{md5:{apid}}", &["appid", "agent"]).is_err());
    }

    #[test]
    fn a_wildcard_has_enough_behind_it() {
        assert!(fit("a{any}:access_token", "").is_ok());
        assert!(fit("{any}12345678", "").is_ok());
        for key in ["{any}1234567", "a{any}", "{any}:{any}access_token"] {
            assert!(fit(key, key).is_err(), "{key}");
        }
    }
}
