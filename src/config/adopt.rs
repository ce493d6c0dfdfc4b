//! `adopt`: where a site keeps the token that it has fetched itself.

use std::path::Path;

use super::aliases::Fields;
use super::apps::Reader;
use super::fault::{Place, Problem};
use super::file::{Document, RawTable};
use super::value::{Value, quoted, text};
use super::{Adopt, App, Sink};
use crate::platform::{CredentialType, Renewal};

const KEYS: &[&str] = &["memcached", "key", "file"];
const KEY_BYTES_MAX: usize = 250;
const REMEDY: &str = "Write adopt = \"sink\", adopt = { memcached = \"127.0.0.1:11212\", key = \"access_token\" } or \
                      adopt = { file = \"/path\" }.";

impl Reader<'_> {
    /// Where the first token is read, instead of fetching one.
    pub(super) fn adopt(&mut self, raw: &RawTable, token: &CredentialType, document: &Document) -> Option<Adopt> {
        let given = raw.fields.get("adopt")?;
        let read = match token.renewal {
            Renewal::Mint if token.probe.is_some() => adopt(&given.value, &given.place, &document.folder),
            _ => {
                let what = "it is of use with endpoint = \"token\" alone: no other fetch ends a token that others hold";
                Err((Problem::new(what, "Remove the key."), given.place.clone()))
            }
        };
        match read {
            Ok(adopt) => Some(adopt),
            Err((problem, place)) => {
                self.fault("adopt", problem, &place);
                None
            }
        }
    }
}

fn adopt(value: &Value, place: &Place, folder: &Path) -> Result<Adopt, (Problem, Place)> {
    let here = |problem| (problem, place.clone());
    let given = match value {
        Value::Text(word) if word == "sink" => return Ok(Adopt::Sink),
        Value::Table(given) => given,
        Value::Text(word) => return Err(here(Problem::new(format!("{} is not known", quoted(word)), REMEDY))),
        _ => return Err(here(Problem::new("it says nothing of a place", REMEDY))),
    };
    let fields = Fields::of(given, KEYS, "adopt")?;
    let file = fields.read("file", text)?;
    let (address, key) = (fields.read("memcached", text)?, fields.read("key", text)?);
    match (file, address, key) {
        (Some(file), None, None) if !file.is_empty() => Ok(Adopt::File(folder.join(file))),
        (None, Some(address), Some(key)) => {
            let is_key = (1..=KEY_BYTES_MAX).contains(&key.len()) && key.bytes().all(|byte| byte > b' ' && byte != 127);
            if !is_key {
                return Err(here(Problem::new(
                    "key: memcached has no such keys",
                    "Give 1 to 250 bytes without blanks.",
                )));
            }
            if !(address.starts_with('/') || address.contains(':')) {
                let what = format!("memcached: {} has no port", quoted(address));
                return Err(here(Problem::new(what, "Write \"127.0.0.1:11212\", or the path of a Unix socket.")));
            }
            Ok(Adopt::Memcached { address: address.to_owned(), key: key.to_owned() })
        }
        _ => Err(here(Problem::new("it names no place, or half of one", REMEDY))),
    }
}

/// As the configuration has it.
pub(super) fn as_toml(adopt: &Adopt, quoted: impl Fn(&str) -> String) -> String {
    match adopt {
        Adopt::Sink => quoted("sink"),
        Adopt::Memcached { address, key } => format!("{{ memcached = {}, key = {} }}", quoted(address), quoted(key)),
        Adopt::File(path) => format!("{{ file = {} }}", quoted(&path.display().to_string())),
    }
}

impl App {
    /// What is wrong if its first token is to be read where sinks write, and none of them can tell it.
    pub(super) fn adopts_from_no_sink(&self, sinks: &[Sink]) -> Option<Problem> {
        if self.adopt != Some(Adopt::Sink) || sinks.iter().any(|sink| sink.keeps_token_of(&self.id())) {
            return None;
        }
        let what = format!("{}: adopt = \"sink\", but no sink has a token of this app that can be read", self.id());
        let remedy = "Add a [[sink]] of a Redis, a file, or a database with read; or name the place itself, as \
                      adopt = { file = \"/path\" }.";
        Some(Problem::new(what, remedy))
    }

    /// What whoever moves a site should know before the first fetch, if anything.
    pub fn moving_hint(&self) -> Option<String> {
        let ends_others = self.token.renewal == Renewal::Mint && self.token.probe.is_some();
        (ends_others && self.component.is_none() && self.adopt.is_none() && !self.secret.is_absent()).then(|| {
            format!(
                "{}: with endpoint = \"token\" each fetch ends the token that other programs hold; while some still \
                 fetch for this app, name the place they keep it in (adopt), or use \"stable_token\" until all have moved",
                self.id()
            )
        })
    }
}
