//! A value that somebody has written into a file, a variable or a flag, with its place, and its reading as a number, a
//! text, one of a few words, a list or a table with named fields. Pure.
//!
//! A value may be a secret: but for places nothing here implements `Debug`, and only short, harmless readings are echoed.

use std::fmt;
use std::ops::RangeInclusive;
use std::path::Path;
use std::sync::Arc;

use crate::invalid_value::{InvalidValue, did_you_mean, quoted, wrong};

/// Where a setting was given.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Place {
    /// A line of the file, counted from 1; 0 is the file as a whole.
    Line { file: Arc<Path>, line: usize },
    /// An environment variable.
    Environment(String),
    /// A flag, as typed.
    Flag(&'static str),
    /// Nobody gave it: it follows from a default.
    Default,
}

impl Place {
    /// The layer it is in; a higher one hides what a lower one says.
    pub fn layer(&self) -> u8 {
        match self {
            Place::Default => 0,
            Place::Line { .. } => 1,
            Place::Environment(_) => 2,
            Place::Flag(_) => 3,
        }
    }
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Place::Line { file, line: 0 } => write!(f, "{}", file.display()),
            Place::Line { file, line } => write!(f, "{}:{line}", file.display()),
            Place::Environment(name) => write!(f, "environment {name}"),
            Place::Flag(flag) => write!(f, "flag {flag}"),
            Place::Default => f.write_str("default"),
        }
    }
}

/// A value in the words of its layer.
pub enum RawValue {
    Text(String),
    /// Decimal, of the file; `octal` if it was written as one (`0o700`).
    Integer {
        value: i128,
        octal: bool,
    },
    Bool(bool),
    /// A constant of an alias may be one.
    Fraction(f64),
    List(Vec<Given>),
    /// `-m`: a number without a unit counts mebibytes there.
    Mebibytes(String),
    /// An alias may be one.
    Table(Vec<(String, Given)>),
    /// A date, or a number beyond all bounds: no setting is one.
    Other(&'static str),
}

/// A value and where it was given.
pub struct Given {
    pub value: RawValue,
    pub place: Place,
}

pub type ReadResult<T> = Result<T, InvalidValue>;

/// Why a value cannot be used; with a place if it is a part that has one of its own.
pub struct Misread {
    pub problem: InvalidValue,
    pub place: Option<Place>,
}

impl From<InvalidValue> for Misread {
    fn from(problem: InvalidValue) -> Misread {
        Misread { problem, place: None }
    }
}

impl Misread {
    pub fn at(problem: InvalidValue, place: &Place) -> Misread {
        Misread { problem, place: Some(place.clone()) }
    }
}

/// What was read of something with parts.
pub type PartsResult<T> = Result<T, Misread>;

/// A number in a range.
pub fn integer(value: &RawValue, range: RangeInclusive<u64>) -> ReadResult<u64> {
    let (low, high) = (*range.start(), *range.end());
    let remedy = format!("Give a whole number from {low} to {high}.");
    let number = match value {
        RawValue::Integer { value, .. } => *value,
        RawValue::Text(text) => {
            let parsed = text.trim().parse::<i128>();
            parsed.map_err(|_| InvalidValue::new(format!("{} is not a number", quoted(text)), &remedy))?
        }
        other => return wrong(format!("{} is not a number", kind(other)), remedy),
    };
    match u64::try_from(number) {
        Ok(number) if range.contains(&number) => Ok(number),
        _ => wrong(format!("{number} is out of range"), remedy),
    }
}

/// A text that is not empty.
pub fn text(value: &RawValue) -> ReadResult<&str> {
    match value {
        RawValue::Text(text) if text.is_empty() => wrong("the value is empty", "Give a value or remove the key."),
        RawValue::Text(text) if text.contains('\0') => wrong("the value holds a NUL byte", "Remove the NUL byte."),
        RawValue::Text(text) => Ok(text),
        other => wrong(format!("{} stands where a text belongs", kind(other)), "Put the value in quotes."),
    }
}

/// One of a few words.
pub fn word<T: Copy>(value: &RawValue, words: &[(&str, T)]) -> ReadResult<T> {
    word_of(value, words).map(|(_, meaning)| meaning)
}

/// The same, with the word.
pub fn word_of<'w, T: Copy>(value: &RawValue, words: &[(&'w str, T)]) -> ReadResult<(&'w str, T)> {
    let given = text(value)?;
    words.iter().find(|(name, _)| *name == given).copied().ok_or_else(|| {
        let names = words.iter().map(|(name, _)| format!("{name:?}")).collect::<Vec<_>>().join(" or ");
        InvalidValue::new(format!("{} is not known here", quoted(given)), format!("Write {names}."))
    })
}

/// What kind of value that is, for a sentence; never the value.
pub fn kind(value: &RawValue) -> &'static str {
    match value {
        RawValue::Text(_) | RawValue::Mebibytes(_) => "a text",
        RawValue::Integer { .. } => "a number",
        RawValue::Bool(_) => "a switch",
        RawValue::Fraction(_) => "a fraction",
        RawValue::List(_) => "a list",
        RawValue::Table(_) => "a table",
        RawValue::Other(kind) => kind,
    }
}

/// That another kind of value stands where one belongs; `is_wrong`: "not a constant".
pub fn wrong_kind(value: &RawValue, is_wrong: &str, remedy: &str) -> InvalidValue {
    InvalidValue::new(format!("{} is {is_wrong}", kind(value)), remedy)
}

/// The texts of a list, or of one text with commas; `is_wrong` is what is said of anything else.
pub fn texts<T>(
    value: &RawValue,
    is_wrong: &str,
    remedy: &str,
    read: impl Fn(&str) -> ReadResult<T>,
) -> ReadResult<Vec<T>> {
    match value {
        RawValue::Text(list) => list.split(',').map(str::trim).filter(|text| !text.is_empty()).map(read).collect(),
        RawValue::List(items) => items.iter().map(|item| read(text(&item.value)?)).collect(),
        other => wrong(format!("{} {is_wrong}", kind(other)), remedy),
    }
}

/// One of a table of presets, by its name.
pub fn named<'p, T>(value: &RawValue, all: &'p [T], name: fn(&T) -> &str, known: &str) -> ReadResult<&'p T> {
    let given = text(value)?;
    all.iter().find(|one| name(one) == given).ok_or_else(|| {
        let names: Vec<&str> = all.iter().map(name).collect();
        let remedy = did_you_mean(given, names.iter().copied(), || format!("{known} {}.", names.join(", ")));
        InvalidValue::new(format!("{} is not known", quoted(given)), remedy)
    })
}

/// The fields of a table, by name.
pub struct Fields<'g>(Vec<(&'g str, &'g Given)>);

impl<'g> Fields<'g> {
    /// All of them known; `whose` is in the fault otherwise.
    pub fn of(given: &'g [(String, Given)], known: &[&str], whose: &str) -> PartsResult<Fields<'g>> {
        let Some((name, given)) = given.iter().find(|(name, _)| !known.contains(&name.as_str())) else {
            return Ok(Fields(given.iter().map(|(name, given)| (name.as_str(), given)).collect()));
        };
        let all = || format!("Remove it; known here are {}.", known.join(", "));
        let remedy = did_you_mean(name, known.iter().copied(), all);
        let problem = InvalidValue::new(format!("{} is not a key of {whose}", quoted(name)), remedy);
        Err(Misread::at(problem, &given.place))
    }

    /// Those that are there.
    pub fn of_these(given: Vec<(&'g str, &'g Given)>) -> Fields<'g> {
        Fields(given)
    }

    fn given(&self, name: &str) -> Option<&'g Given> {
        self.0.iter().find(|(key, _)| *key == name).map(|(_, given)| *given)
    }

    pub fn read<T>(&self, name: &str, read: impl Fn(&'g RawValue) -> ReadResult<T>) -> PartsResult<Option<T>> {
        let Some(given) = self.given(name) else { return Ok(None) };
        read(&given.value).map(Some).map_err(|problem| Misread::at(problem.of_key(name), &given.place))
    }
}

/// An item of `aliases` or `keys`: a key in quotes, or a table with one. `words`: what it is, whose keys the table has,
/// what has no key.
pub fn key_and_fields<'g>(
    item: &'g Given,
    known: &[&str],
    words: [&str; 3],
) -> PartsResult<(&'g str, Option<Fields<'g>>)> {
    let fields = match &item.value {
        RawValue::Text(key) => return Ok((key, None)),
        RawValue::Table(given) => Fields::of(given, known, words[1])?,
        other => {
            let remedy = "Write a key in quotes, or a table such as { key = \"...\", encoding = \"json_string\" }.";
            return Err(wrong_kind(other, &format!("not {}", words[0]), remedy).into());
        }
    };
    let no_key = || InvalidValue::new(format!("{} has no key", words[2]), "Write { key = \"...\", ... }.");
    Ok((fields.read("key", text)?.ok_or_else(no_key)?, Some(fields)))
}
