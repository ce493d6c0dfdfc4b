//! A template of a file, such as `{"token":"{value}"}`, and the pieces it is filled in from. Pure.
//!
//! `{value}` may only stand where its escaping holds: in single quotes for PHP, in double quotes for JSON.

use crate::encoding::Fact;
use crate::encoding::key_words::current_word;
use crate::invalid_value::{InvalidValue, quoted};

/// How a value is escaped in its place.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Escape {
    /// Inside a string of PHP in single quotes.
    Php,
    /// Inside a string of JSON, which may be part of a file that PHP reads.
    Json,
    /// Not at all: only values without any special character are written.
    None,
}

impl Escape {
    pub const WORDS: [(&str, Escape); 3] = [("php", Escape::Php), ("json", Escape::Json), ("none", Escape::None)];

    pub fn word(self) -> &'static str {
        Escape::WORDS.iter().find(|(_, escape)| *escape == self).map_or("", |(word, _)| *word)
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TimeShown {
    pub fact: Fact,
    /// In the fact's own unit.
    pub add: i64,
}

impl TimeShown {
    /// As the file has it: `{expires_at-7200}`.
    pub fn as_written(&self) -> String {
        let add = if self.add == 0 { String::new() } else { format!("{:+}", self.add) };
        format!("{{{}{add}}}", self.fact.word())
    }
}

/// One part of a filled-in template.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Piece {
    Text(String),
    Value,
    /// `serialize($value)` of PHP.
    SerializedValue,
    Time(TimeShown),
}

/// A template filled in for one credential, but for its value and times.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Template {
    pub pieces: Vec<Piece>,
    pub escape: Escape,
}

impl Template {
    /// Whether the value is in it.
    pub fn holds_value(&self) -> bool {
        self.pieces.iter().any(|piece| matches!(piece, Piece::Value | Piece::SerializedValue))
    }
}

/// The words for what never changes: they are filled in at the start.
pub const NAMES: [&str; 3] = ["type", "appid", "id"];

/// A template as configured, for any credential.
#[derive(Clone, Debug)]
pub struct Source {
    text: String,
    pub escape: Escape,
}

impl Source {
    /// Checks it: afterwards it can be filled in with any value.
    pub fn new(text: &str, escape: Escape) -> Result<Source, InvalidValue> {
        let mut holds_value = false;
        for (at, word) in words(text) {
            match word_of(word) {
                Some(TemplateWord::Value) => {
                    holds_value = true;
                    stands_in_quotes(text, at, escape)?;
                }
                Some(_) => {}
                None => {
                    let times = Fact::ALL.iter().skip(1).map(|(word, _)| format!("{{{word}}}")).collect::<Vec<_>>();
                    let remedy = format!(
                        "Known are {{value}}, {{type}}, {{appid}}, {{id}}, {} and those with a number added, such as \
                         {{expires_at-7000}}.",
                        times.join(", ")
                    );
                    return Err(InvalidValue::new(format!("{} is not known in a template", quoted(word)), remedy));
                }
            }
        }
        if !holds_value {
            return Err(InvalidValue::new("the template has no {value}", "Write {value} where the token is to stand."));
        }
        Ok(Source { text: text.to_owned(), escape })
    }

    /// Fills in the names of one credential. They have no special characters.
    pub fn of(&self, type_name: &str, appid: &str, id: &str) -> Template {
        let (mut pieces, mut open, mut rest) = (Vec::new(), String::new(), 0);
        let mut close = |open: &mut String, piece: Option<Piece>| {
            let text = Some(std::mem::take(open)).filter(|text| !text.is_empty());
            pieces.extend(text.map(Piece::Text).into_iter().chain(piece));
        };
        for (at, word) in words(&self.text) {
            open.push_str(&self.text[rest..at]);
            rest = at + word.len() + 2;
            match word_of(word) {
                Some(TemplateWord::Value) => close(&mut open, Some(Piece::Value)),
                Some(TemplateWord::Time(time)) => close(&mut open, Some(Piece::Time(time))),
                Some(TemplateWord::Name("type")) => open.push_str(type_name),
                Some(TemplateWord::Name("appid")) => open.push_str(appid),
                Some(TemplateWord::Name(_)) => open.push_str(id),
                None => {}
            }
        }
        open.push_str(&self.text[rest..]);
        close(&mut open, None);
        Template { pieces, escape: self.escape }
    }

    /// As configured.
    pub fn text(&self) -> &str {
        &self.text
    }
}

/// A time alone, such as `{expires_at-7200}`.
pub fn time(text: &str) -> Option<TimeShown> {
    match word_of(text.strip_prefix('{')?.strip_suffix('}')?)? {
        TemplateWord::Time(time) => Some(time),
        _ => None,
    }
}

enum TemplateWord {
    Value,
    Time(TimeShown),
    Name(&'static str),
}

/// Each `{word}` and where its brace stands; other braces are part of the text.
fn words(text: &str) -> impl Iterator<Item = (usize, &str)> {
    text.match_indices('{').filter_map(|(at, _)| {
        let (inner, _) = text[at + 1..].split_once('}')?;
        let is_word = inner.starts_with(|c: char| c.is_ascii_lowercase())
            && inner.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'+' | b'-'));
        is_word.then_some((at, inner))
    })
}

fn word_of(word: &str) -> Option<TemplateWord> {
    if word == "value" {
        return Some(TemplateWord::Value);
    }
    if let Some(name) = NAMES.iter().find(|name| **name == current_word(word)) {
        return Some(TemplateWord::Name(name));
    }
    time_shown(word).map(TemplateWord::Time)
}

/// A time by its word, such as `expires_at-7200`; `add` is the number as it is written.
pub fn time_shown(word: &str) -> Option<TimeShown> {
    let (name, add) = match word.find(['+', '-']) {
        Some(at) => (word.get(..at)?, word.get(at..)?.parse().ok()?),
        None => (word, 0),
    };
    let (_, fact) = Fact::ALL.iter().find(|(known, fact)| *known == name && *fact != Fact::Value)?;
    Some(TimeShown { fact: *fact, add })
}

fn stands_in_quotes(text: &str, at: usize, escape: Escape) -> Result<(), InvalidValue> {
    let (before, after) = (&text[..at], &text[at + "{value}".len()..]);
    let (quote, language) = match escape {
        Escape::None => return Ok(()),
        Escape::Php => ('\'', "PHP"),
        Escape::Json => ('"', "JSON"),
    };
    let in_quotes = before.ends_with(quote) && after.starts_with(quote);
    // Single quotes inside of double ones protect nothing in PHP.
    let inside_others = escape == Escape::Php && before.matches('"').count() % 2 == 1;
    if in_quotes && !inside_others {
        return Ok(());
    }
    let what = format!("{{value}} does not stand in the quotes that escape = \"{}\" is for", escape.word());
    let remedy = format!("Write {quote}{{value}}{quote}, a string of {language}, or escape = \"none\".");
    Err(InvalidValue::new(what, remedy))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_are_filled_in_and_other_braces_are_text() {
        let source = Source::new("{\"{type}\":\"{value}\",\"t\":{expires_at-7000},\"u\":{}}", Escape::Json).unwrap();
        let text = |text: &str| Piece::Text(text.to_owned());
        let time = Piece::Time(TimeShown { fact: Fact::ExpiresAt, add: -7000 });
        let expected = [text("{\"access_token\":\""), Piece::Value, text("\",\"t\":"), time, text(",\"u\":{}}")];
        assert_eq!(source.of("access_token", "wx1", "wx1").pieces, expected);
    }

    #[test]
    fn what_is_not_known_or_stands_outside_of_its_quotes_is_refused() {
        for (text, escape) in [
            ("{token}", Escape::None),
            ("{expires_at-}{value}", Escape::None),
            ("{value+1}", Escape::None),
            ("no word", Escape::None),
            ("<?php return {value};", Escape::Php),
            ("<?php return \"'{value}'\";", Escape::Php),
            ("<?php return \"{value}\";", Escape::Php),
            ("<?php // '{value}", Escape::Php),
            ("{\"a\":'{value}'}", Escape::Json),
        ] {
            assert!(Source::new(text, escape).is_err(), "{text}");
        }
    }

    #[test]
    fn a_time_alone_can_be_moved() {
        assert_eq!(time("{expires_at_ms+5}"), Some(TimeShown { fact: Fact::ExpiresAtMs, add: 5 }));
        assert_eq!(time("{value}"), None);
        assert_eq!(time("expires_at"), None);
    }
}
