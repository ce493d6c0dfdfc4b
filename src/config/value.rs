//! A value as it was given, and its reading as its row in the schema says: a number, a size, a switch, a path, a list.
//!
//! A value may be a secret: nothing here implements `Debug`, and only short, harmless readings are echoed.

use std::collections::HashSet;
use std::ops::RangeInclusive;
use std::path::{Path, PathBuf};

use super::fault::Place;
use super::schema::{Takes, TextForm};
use crate::byte_size::{self, size_text};
use crate::encoding::toml_text::{toml_list, toml_text};
use crate::invalid_value::InvalidValue;
pub(super) use crate::invalid_value::{closest, quoted, wrong};
use crate::tls::pem_file;

/// A value in the words of its layer.
pub(super) enum RawValue {
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
pub(super) struct Given {
    pub value: RawValue,
    pub place: Place,
}

pub(super) type ReadResult<T> = Result<T, InvalidValue>;

/// The remedy for a name that is not known: the one that it is probably a misspelling of, or else what is said otherwise.
pub(super) fn did_you_mean<'k>(
    name: &str,
    known: impl Iterator<Item = &'k str>,
    otherwise: impl FnOnce() -> String,
) -> String {
    closest(name, known).map_or_else(otherwise, |close| format!("Did you mean {close:?}?"))
}

/// A value as it was read.
#[derive(Clone)]
pub(super) enum Value {
    Switch(bool),
    /// Of bytes and access masks too.
    Number(u64),
    Text(String),
    Path(PathBuf),
    List(Vec<String>),
    /// Something of its own, in TOML.
    Toml(String),
}

macro_rules! read_as {
    ($($kind:ident($inner:ty): $($of:ty),*;)*) => { $($(
        impl From<$of> for Value {
            fn from(value: $of) -> Value {
                // A number of any of these types is at most a u64.
                Value::$kind(<$inner>::try_from(value).unwrap_or_default())
            }
        }

        impl TryFrom<Value> for $of {
            type Error = ();

            fn try_from(value: Value) -> Result<$of, ()> {
                if let Value::$kind(value) = value { <$of>::try_from(value).map_err(drop) } else { Err(()) }
            }
        }
    )*)* };
}

read_as! {
    Switch(bool): bool;
    Number(u64): u64, u32, u8, usize;
    Text(String): String;
    Path(PathBuf): PathBuf;
    List(Vec<String>): Vec<String>;
}

/// What a row says of a value.
pub(super) fn by_row(takes: &Takes, value: &RawValue, base: &Path) -> ReadResult<Value> {
    Ok(match takes {
        Takes::Switch(_) => switch(value)?.into(),
        Takes::Number { low, high, .. } => integer(value, *low..=*high)?.into(),
        Takes::Size { low, high, .. } => size(value, *low..=*high)?.into(),
        Takes::Mode(_) => mode(value)?.into(),
        Takes::Text(form @ (TextForm::Path | TextForm::Pem | TextForm::PemKey), _) => {
            let path = path(value, base)?;
            match form {
                TextForm::Pem => pem_file::certificates(&path)?,
                TextForm::PemKey => pem_file::pem(&path)?,
                _ => {}
            }
            path.into()
        }
        _ => text(value)?.to_owned().into(),
    })
}

/// The default of a row, if it has a constant one. Lists and what is of its own kind take care of theirs.
pub(super) fn default_of(takes: &Takes) -> Option<RawValue> {
    let number = |value: u64| RawValue::Integer { value: value.into(), octal: true };
    match *takes {
        Takes::Switch(default) => default.map(RawValue::Bool),
        Takes::Number { default, .. } => default.map(number),
        Takes::Size { default, .. } => Some(number(default)),
        Takes::Mode(default) => default.map(|mode| number(mode.into())),
        Takes::Word(_, default) | Takes::Text(_, default) if !default.is_empty() => {
            Some(RawValue::Text(default.into()))
        }
        _ => None,
    }
}

/// A value of a row as the file could have it.
pub(super) fn as_toml(takes: &Takes, value: Value) -> String {
    match (value, takes) {
        (Value::Switch(on), _) => on.to_string(),
        (Value::Number(bytes), Takes::Size { .. }) => toml_text(&size_text(bytes)),
        (Value::Number(mode), Takes::Mode(_)) => toml_text(&format!("{mode:04o}")),
        (Value::Number(number), _) => number.to_string(),
        (Value::Text(text), _) => toml_text(&text),
        (Value::Path(path), _) => toml_text(&path.to_string_lossy()),
        (Value::List(texts), _) => toml_list(texts.iter().map(|text| toml_text(text))),
        (Value::Toml(toml), _) => toml,
    }
}

/// A number in a range.
pub(super) fn integer(value: &RawValue, range: RangeInclusive<u64>) -> ReadResult<u64> {
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

/// A number of bytes: `67108864`, `"64MiB"`, `"64m"`.
pub(super) fn size(value: &RawValue, range: RangeInclusive<u64>) -> ReadResult<u64> {
    let remedy = format!(
        "Give a size from {} to {}, such as \"64MiB\" or \"512k\".",
        size_text(*range.start()),
        size_text(*range.end())
    );
    let bytes = match value {
        RawValue::Integer { value, .. } => u64::try_from(*value).ok(),
        RawValue::Text(text) => byte_size::parse(text, 1),
        RawValue::Mebibytes(text) => byte_size::parse(text, 1 << 20),
        other => return wrong(format!("{} is not a size", kind(other)), remedy),
    };
    match (bytes, value) {
        (Some(bytes), _) if range.contains(&bytes) => Ok(bytes),
        (Some(bytes), _) => wrong(format!("{} is out of range", size_text(bytes)), remedy),
        (None, RawValue::Text(text) | RawValue::Mebibytes(text)) => {
            wrong(format!("{} is not a size", quoted(text)), remedy)
        }
        (None, _) => wrong("the size is out of range", remedy),
    }
}

/// A switch.
pub(super) fn switch(value: &RawValue) -> ReadResult<bool> {
    let remedy = "Write true or false.";
    match value {
        RawValue::Bool(on) => Ok(*on),
        RawValue::Text(text) => match text.trim().to_ascii_lowercase().as_str() {
            "true" | "1" | "yes" | "on" => Ok(true),
            "false" | "0" | "no" | "off" => Ok(false),
            _ => wrong(format!("{} is neither true nor false", quoted(text)), remedy),
        },
        other => wrong(format!("{} is neither true nor false", kind(other)), remedy),
    }
}

/// A text that is not empty.
pub(super) fn text(value: &RawValue) -> ReadResult<&str> {
    match value {
        RawValue::Text(text) if text.is_empty() => wrong("the value is empty", "Give a value or remove the key."),
        RawValue::Text(text) if text.contains('\0') => wrong("the value holds a NUL byte", "Remove the NUL byte."),
        RawValue::Text(text) => Ok(text),
        other => wrong(format!("{} stands where a text belongs", kind(other)), "Put the value in quotes."),
    }
}

/// A path; a relative one counts from `base`.
pub(super) fn path(value: &RawValue, base: &Path) -> ReadResult<PathBuf> {
    Ok(base.join(text(value)?))
}

/// An access mask in octal: `"0700"`, `0o700`; a decimal number is refused because nobody means it.
pub(super) fn mode(value: &RawValue) -> ReadResult<u32> {
    let remedy = "Give an octal access mask from 0 to 0777, such as \"0700\".";
    let mode = match value {
        RawValue::Integer { value, octal: true } => u32::try_from(*value).ok(),
        RawValue::Integer { .. } => return wrong("the access mask is a decimal number", remedy),
        RawValue::Text(text) => u32::from_str_radix(text.trim().trim_start_matches("0o"), 8).ok(),
        other => return wrong(format!("{} is not an access mask", kind(other)), remedy),
    };
    mode.filter(|mode| *mode <= 0o777)
        .ok_or_else(|| InvalidValue::new("the access mask is not octal or too large", remedy))
}

/// One of a few words.
pub(super) fn word<T: Copy>(value: &RawValue, words: &[(&str, T)]) -> ReadResult<T> {
    word_of(value, words).map(|(_, meaning)| meaning)
}

/// The same, with the word.
pub(super) fn word_of<'w, T: Copy>(value: &RawValue, words: &[(&'w str, T)]) -> ReadResult<(&'w str, T)> {
    let given = text(value)?;
    words.iter().find(|(name, _)| *name == given).copied().ok_or_else(|| {
        let names = words.iter().map(|(name, _)| format!("{name:?}")).collect::<Vec<_>>().join(" or ");
        InvalidValue::new(format!("{} is not known here", quoted(given)), format!("Write {names}."))
    })
}

/// What kind of value that is, for a sentence; never the value.
pub(super) fn kind(value: &RawValue) -> &'static str {
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
pub(super) fn wrong_kind(value: &RawValue, is_wrong: &str, remedy: &str) -> InvalidValue {
    InvalidValue::new(format!("{} is {is_wrong}", kind(value)), remedy)
}

/// The texts of a list, or of one text with commas; `is_wrong` is what is said of anything else.
pub(super) fn texts<T>(
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

/// One given twice counts once.
pub(super) fn each_once(texts: Vec<String>) -> Vec<String> {
    let mut seen = HashSet::new();
    texts.into_iter().filter(|text| seen.insert(text.clone())).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn masks_are_octal() {
        assert_eq!(mode(&RawValue::Text("0700".into())).ok(), Some(0o700));
        assert_eq!(mode(&RawValue::Integer { value: 0o770, octal: true }).ok(), Some(0o770));
        assert!(mode(&RawValue::Integer { value: 700, octal: false }).is_err());
        assert!(mode(&RawValue::Text("0800".into())).is_err());
        assert!(mode(&RawValue::Text("7777".into())).is_err());
    }
}
