//! Texts with words in braces, such as `{"token":"{value}"}`: what the words stand for, and the templates of files. Pure.
//!
//! In a template `{value}` may only stand where its escaping holds: in single quotes for PHP, in double quotes for JSON.

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
    /// As `serialize($value)` of PHP. Only presets have it.
    Serialized,
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

    /// A time by its word, such as `expires_at-7200`; `add` is the number as it is written.
    fn of_word(word: &str) -> Option<TimeShown> {
        let (name, add) = match word.find(['+', '-']) {
            Some(at) => (word.get(..at)?, word.get(at..)?.parse().ok()?),
            None => (word, 0),
        };
        let (_, fact) = Fact::ALL.iter().find(|(known, fact)| *known == name && *fact != Fact::Value)?;
        Some(TimeShown { fact: *fact, add })
    }

    /// A time alone, such as `{expires_at-7200}`.
    pub fn parse(text: &str) -> Option<TimeShown> {
        TimeShown::of_word(text.strip_prefix('{')?.strip_suffix('}')?)
    }
}

/// What a word in braces stands for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Placeholder {
    Value,
    Time(TimeShown),
    AppId,
    /// `<corpid>:<agent>`, or the appid.
    Id,
    Agent,
    CredentialType,
}

impl Placeholder {
    pub fn of_word(word: &str) -> Option<Placeholder> {
        Some(match current_word(word) {
            "value" => Placeholder::Value,
            "appid" => Placeholder::AppId,
            "id" => Placeholder::Id,
            "agent" => Placeholder::Agent,
            "type" => Placeholder::CredentialType,
            _ => Placeholder::Time(TimeShown::of_word(word)?),
        })
    }
}

/// The text with what stands for each `{word}`, where `fact` knows it.
pub fn fill_words(text: &str, fact: impl Fn(&str) -> Option<String>) -> String {
    let (mut filled, mut rest) = (String::new(), 0);
    for (at, word) in words(text) {
        if let Some(fact) = fact(word) {
            filled.push_str(&text[rest..at]);
            filled.push_str(&fact);
            rest = at + word.len() + 2;
        }
    }
    filled + &text[rest..]
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

/// What stands in a file. It can be filled in with any value.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Template {
    pub text: String,
    pub escape: Escape,
}

impl Template {
    pub fn parse(text: &str, escape: Escape) -> Result<Template, InvalidValue> {
        let mut holds_value = false;
        for (at, word) in words(text) {
            match Placeholder::of_word(word) {
                Some(Placeholder::Value) => {
                    holds_value = true;
                    stands_in_quotes(text, at, escape)?;
                }
                Some(Placeholder::Agent) | None => {
                    let times = Fact::ALL.iter().skip(1).map(|(word, _)| format!("{{{word}}}")).collect::<Vec<_>>();
                    let remedy = format!(
                        "Known are {{value}}, {{type}}, {{appid}}, {{id}}, {} and those with a number added, such as \
                         {{expires_at-7000}}.",
                        times.join(", ")
                    );
                    return Err(InvalidValue::new(format!("{} is not known in a template", quoted(word)), remedy));
                }
                Some(_) => {}
            }
        }
        if !holds_value {
            return Err(InvalidValue::new("the template has no {value}", "Write {value} where the token is to stand."));
        }
        // An old word as it is called now.
        let text = fill_words(text, |word| Some(format!("{{{}}}", current_word(word))));
        Ok(Template { text, escape })
    }
}

fn stands_in_quotes(text: &str, at: usize, escape: Escape) -> Result<(), InvalidValue> {
    let (before, after) = (&text[..at], &text[at + "{value}".len()..]);
    let (quote, language) = match escape {
        Escape::None | Escape::Serialized => return Ok(()),
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
        let template =
            Template::parse("{\"{kind}\":\"{value}\",\"t\":{expires_at-7000},\"u\":{}}", Escape::Json).unwrap();
        let filled = fill_words(&template.text, |word| Some(format!("{:?}", Placeholder::of_word(word)?)));
        let time = "Time(TimeShown { fact: ExpiresAt, add: -7000 })";
        assert_eq!(filled, format!("{{\"CredentialType\":\"Value\",\"t\":{time},\"u\":{{}}}}"));
        assert_eq!(fill_words("{a}{appid}{b", |word| (word == "appid").then(|| "wx1".to_owned())), "{a}wx1{b");
    }

    #[test]
    fn what_is_not_known_or_stands_outside_of_its_quotes_is_refused() {
        for (text, escape) in [
            ("{token}", Escape::None),
            ("{agent}{value}", Escape::None),
            ("{expires_at-}{value}", Escape::None),
            ("{value+1}", Escape::None),
            ("no word", Escape::None),
            ("<?php return {value};", Escape::Php),
            ("<?php return \"'{value}'\";", Escape::Php),
            ("<?php return \"{value}\";", Escape::Php),
            ("<?php // '{value}", Escape::Php),
            ("{\"a\":'{value}'}", Escape::Json),
        ] {
            assert!(Template::parse(text, escape).is_err(), "{text}");
        }
    }

    #[test]
    fn a_time_alone_can_be_moved() {
        assert_eq!(TimeShown::parse("{expires_at_ms+5}"), Some(TimeShown { fact: Fact::ExpiresAtMs, add: 5 }));
        assert_eq!(TimeShown::parse("{value}"), None);
        assert_eq!(TimeShown::parse("expires_at"), None);
    }
}
