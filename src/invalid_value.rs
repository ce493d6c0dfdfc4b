//! What is wrong with a value that somebody has written, and what to write instead. Pure; never holds a secret's text.

/// WeChat's AppSecrets are so many hex digits.
pub const SECRET_CHARS: usize = 32;

/// Why a value cannot be used: a part of a sentence, and a sentence that says what to do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct InvalidValue {
    pub what: String,
    pub remedy: String,
    /// The credential that systemd would hand out, if what is wrong is that it has not started this process.
    pub missing_credential: Option<String>,
}

impl InvalidValue {
    pub fn new(what: impl Into<String>, remedy: impl Into<String>) -> InvalidValue {
        InvalidValue { what: what.into(), remedy: remedy.into(), missing_credential: None }
    }

    /// The same with the key it is about before it.
    pub fn of_key(self, key: &str) -> InvalidValue {
        InvalidValue { what: format!("{key}: {}", self.what), ..self }
    }
}

/// A value that cannot be used, as the outcome of reading it.
pub fn wrong<T>(what: impl Into<String>, remedy: impl Into<String>) -> Result<T, InvalidValue> {
    Err(InvalidValue::new(what, remedy))
}

/// Several for a sentence: "a, b and c".
pub fn listed(all: &[String]) -> String {
    match all {
        [others @ .., last] if !others.is_empty() => format!("{} and {last}", others.join(", ")),
        _ => all.concat(),
    }
}

/// A value for a sentence: escaped, and cut if it is long.
pub fn quoted(text: &str) -> String {
    match text.char_indices().nth(60) {
        Some((at, _)) => format!("{:?}...", &text[..at]),
        None => format!("{text:?}"),
    }
}

/// The same of a name, unless it is a secret that was put in the wrong place.
pub fn quoted_name(name: &str) -> String {
    if looks_like_secret(name) { "a text that looks like the secret itself".to_owned() } else { quoted(name) }
}

/// WeChat's secrets are 32 hex digits; the open platform's begin in their own way. Also where more is around it.
pub fn looks_like_secret(text: &str) -> bool {
    let pushed = ["refreshtoken@@@", "ticket@@@"].iter().any(|start| text.contains(start));
    pushed || text.split(|c: char| !c.is_ascii_alphanumeric()).any(has_secret_shape)
}

/// Whether it looks like an AppSecret of WeChat's.
pub fn has_secret_shape(text: &str) -> bool {
    text.len() == SECRET_CHARS && text.bytes().all(|byte| byte.is_ascii_hexdigit())
}

/// The candidate that `word` is probably a misspelling of.
pub fn closest<'a>(word: &str, candidates: impl Iterator<Item = &'a str>) -> Option<&'a str> {
    let word = word.to_lowercase();
    candidates
        .map(|candidate| (strsim::damerau_levenshtein(&word, &candidate.to_lowercase()), candidate))
        .filter(|(distance, candidate)| *distance <= 2.max(candidate.len() / 4) && *distance < candidate.len())
        .min_by_key(|(distance, _)| *distance)
        .map(|(_, candidate)| candidate)
}

/// The remedy for a name that is not known: the one that it is probably a misspelling of, or else what is said otherwise.
pub fn did_you_mean<'k>(
    name: &str,
    known: impl Iterator<Item = &'k str>,
    otherwise: impl FnOnce() -> String,
) -> String {
    closest(name, known).map_or_else(otherwise, |close| format!("Did you mean {close:?}?"))
}

/// What a part says of its settings, each time with the key that it is about; an empty key: all of them.
#[derive(Debug, Default)]
pub struct Judgement {
    pub faults: Vec<(&'static str, InvalidValue)>,
    pub warnings: Vec<(&'static str, String)>,
}

impl Judgement {
    pub fn fault_if(&mut self, wrong: bool, key: &'static str, what: impl Into<String>, remedy: &str) {
        if wrong {
            self.faults.push((key, InvalidValue::new(what, remedy)));
        }
    }

    pub fn warn(&mut self, key: &'static str, what: impl Into<String>) {
        self.warnings.push((key, what.into()));
    }
}
