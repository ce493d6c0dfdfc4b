//! The reading of a value as its row in the schema says: a number, a size, a switch, a path, a text; and back to TOML.

use std::collections::HashSet;
use std::ops::RangeInclusive;
use std::path::{Path, PathBuf};

use super::schema::{Takes, TextForm};
use crate::byte_size::{self, size_text};
use crate::encoding::toml_text::{toml_list, toml_text};
use crate::invalid_value::{InvalidValue, quoted, wrong};
use crate::raw_value::{RawValue, ReadResult, integer, kind, text};
use crate::tls::pem_file;

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
}

impl From<&str> for Value {
    fn from(text: &str) -> Value {
        Value::Text(text.to_owned())
    }
}

impl<T: Into<String>> From<Vec<T>> for Value {
    fn from(texts: Vec<T>) -> Value {
        Value::List(texts.into_iter().map(Into::into).collect())
    }
}

/// What a row says of a value.
pub(super) fn by_row(takes: &Takes, value: &RawValue, base: &Path) -> ReadResult<Value> {
    Ok(match takes {
        Takes::Switch { .. } => switch(value)?.into(),
        Takes::Number { low, high, .. } => integer(value, *low..=*high)?.into(),
        // What a machine of 32 bits can have is less than the schema allows.
        Takes::Size { low, high, .. } if usize::BITS < 64 => size(value, *low..=(1 << 31).min(*high))?.into(),
        Takes::Size { low, high, .. } => size(value, *low..=*high)?.into(),
        Takes::Mode { .. } => mode(value)?.into(),
        Takes::Text { form: form @ (TextForm::Path | TextForm::Pem | TextForm::PemKey), .. } => {
            let path = path(value, base)?;
            match form {
                TextForm::Pem => pem_file::certificates(&path)?,
                TextForm::PemKey => pem_file::pem(&path)?,
                _ => {}
            }
            path.into()
        }
        _ => text(value)?.into(),
    })
}

/// The default of a row, if it has a constant one. Lists and what is of its own kind take care of theirs.
pub(super) fn default_of(takes: &Takes) -> Option<RawValue> {
    let number = |value: u64| RawValue::Integer { value: value.into(), octal: true };
    match *takes {
        Takes::Switch { default } => default.map(RawValue::Bool),
        Takes::Number { default, .. } => default.map(number),
        Takes::Size { default, .. } => Some(number(default)),
        Takes::Mode { default } => default.map(|mode| number(mode.into())),
        Takes::Word { default, .. } | Takes::Text { default, .. } if !default.is_empty() => {
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
        (Value::Number(mode), Takes::Mode { .. }) => toml_text(&format!("{mode:04o}")),
        (Value::Number(number), _) => number.to_string(),
        (Value::Text(text), _) => toml_text(&text),
        (Value::Path(path), _) => toml_text(&path.to_string_lossy()),
        (Value::List(texts), _) => toml_list(texts.iter().map(|text| toml_text(text))),
        (Value::Toml(toml), _) => toml,
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
