//! A value as it was given, and its reading as a number, a size, a switch, a path or a list.
//!
//! A value may be a secret: nothing here implements `Debug`, and only short, harmless readings are echoed.

use std::ops::RangeInclusive;
use std::path::{Path, PathBuf};

use super::fault::{Place, Problem};
pub(super) use crate::invalid_value::{closest, quoted};

/// A value in the words of its layer.
pub(super) enum Value {
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
    pub value: Value,
    pub place: Place,
}

pub(super) type Reading<T> = Result<T, Problem>;

const KIB: u64 = 1 << 10;
const MIB: u64 = 1 << 20;
const GIB: u64 = 1 << 30;

/// A number in a range.
pub(super) fn integer(value: &Value, range: RangeInclusive<u64>) -> Reading<u64> {
    let (low, high) = (*range.start(), *range.end());
    let remedy = format!("Give a whole number from {low} to {high}.");
    let number = match value {
        Value::Integer { value, .. } => *value,
        Value::Text(text) => {
            let parsed = text.trim().parse::<i128>();
            parsed.map_err(|_| Problem::new(format!("{} is not a number", quoted(text)), &remedy))?
        }
        other => return Err(Problem::new(format!("{} is not a number", kind(other)), remedy)),
    };
    match u64::try_from(number) {
        Ok(number) if range.contains(&number) => Ok(number),
        _ => Err(Problem::new(format!("{number} is out of range"), remedy)),
    }
}

/// A number of bytes: `67108864`, `"64MiB"`, `"64m"`.
pub(super) fn size(value: &Value, range: RangeInclusive<u64>) -> Reading<u64> {
    let remedy = format!(
        "Give a size from {} to {}, such as \"64MiB\" or \"512k\".",
        size_text(*range.start()),
        size_text(*range.end())
    );
    let bytes = match value {
        Value::Integer { value, .. } => u64::try_from(*value).ok(),
        Value::Text(text) => size_of(text, 1),
        Value::Mebibytes(text) => size_of(text, MIB),
        other => return Err(Problem::new(format!("{} is not a size", kind(other)), remedy)),
    };
    match (bytes, value) {
        (Some(bytes), _) if range.contains(&bytes) => Ok(bytes),
        (Some(bytes), _) => Err(Problem::new(format!("{} is out of range", size_text(bytes)), remedy)),
        (None, Value::Text(text) | Value::Mebibytes(text)) => {
            Err(Problem::new(format!("{} is not a size", quoted(text)), remedy))
        }
        (None, _) => Err(Problem::new("the size is out of range", remedy)),
    }
}

fn size_of(text: &str, plain_unit: u64) -> Option<u64> {
    let text = text.trim();
    let digits = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    let (number, unit) = text.split_at(digits);
    let unit = match unit.trim().to_ascii_lowercase().as_str() {
        "" => plain_unit,
        "b" => 1,
        "k" | "kb" | "kib" => KIB,
        "m" | "mb" | "mib" => MIB,
        "g" | "gb" | "gib" => GIB,
        _ => return None,
    };
    number.parse::<u64>().ok()?.checked_mul(unit)
}

/// Bytes for people, exact, and readable by [`size`].
pub(super) fn size_text(bytes: u64) -> String {
    match bytes {
        0 => "0B".into(),
        _ if bytes.is_multiple_of(GIB) => format!("{}GiB", bytes / GIB),
        _ if bytes.is_multiple_of(MIB) => format!("{}MiB", bytes / MIB),
        _ if bytes.is_multiple_of(KIB) => format!("{}KiB", bytes / KIB),
        _ => format!("{bytes}B"),
    }
}

/// A switch.
pub(super) fn switch(value: &Value) -> Reading<bool> {
    let remedy = "Write true or false.";
    match value {
        Value::Bool(on) => Ok(*on),
        Value::Text(text) => match text.trim().to_ascii_lowercase().as_str() {
            "true" | "1" | "yes" | "on" => Ok(true),
            "false" | "0" | "no" | "off" => Ok(false),
            _ => Err(Problem::new(format!("{} is neither true nor false", quoted(text)), remedy)),
        },
        other => Err(Problem::new(format!("{} is neither true nor false", kind(other)), remedy)),
    }
}

/// A text that is not empty.
pub(super) fn text(value: &Value) -> Reading<&str> {
    match value {
        Value::Text(text) if text.is_empty() => {
            Err(Problem::new("the value is empty", "Give a value or remove the key."))
        }
        Value::Text(text) if text.contains('\0') => {
            Err(Problem::new("the value holds a NUL byte", "Remove the NUL byte."))
        }
        Value::Text(text) => Ok(text),
        other => Err(Problem::new(format!("{} stands where a text belongs", kind(other)), "Put the value in quotes.")),
    }
}

/// A path; a relative one counts from `base`.
pub(super) fn path(value: &Value, base: &Path) -> Reading<PathBuf> {
    Ok(base.join(text(value)?))
}

/// An access mask in octal: `"0700"`, `0o700`; a decimal number is refused because nobody means it.
pub(super) fn mode(value: &Value) -> Reading<u32> {
    let remedy = "Give an octal access mask from 0 to 0777, such as \"0700\".";
    let mode = match value {
        Value::Integer { value, octal: true } => u32::try_from(*value).ok(),
        Value::Integer { .. } => return Err(Problem::new("the access mask is a decimal number", remedy)),
        Value::Text(text) => u32::from_str_radix(text.trim().trim_start_matches("0o"), 8).ok(),
        other => return Err(Problem::new(format!("{} is not an access mask", kind(other)), remedy)),
    };
    mode.filter(|mode| *mode <= 0o777).ok_or_else(|| Problem::new("the access mask is not octal or too large", remedy))
}

/// One of a few words.
pub(super) fn word<T: Copy>(value: &Value, words: &[(&str, T)]) -> Reading<T> {
    let at = word_at(value, words)?;
    words.get(at).map(|(_, meaning)| *meaning).ok_or_else(|| Problem::new("it is not known here", "Remove it."))
}

/// The same, by its place among them.
pub(super) fn word_at<T>(value: &Value, words: &[(&str, T)]) -> Reading<usize> {
    let given = text(value)?;
    words.iter().position(|(name, _)| *name == given).ok_or_else(|| {
        let names = words.iter().map(|(name, _)| format!("{name:?}")).collect::<Vec<_>>().join(" or ");
        Problem::new(format!("{} is not known here", quoted(given)), format!("Write {names}."))
    })
}

/// What kind of value that is, for a sentence; never the value.
pub(super) fn kind(value: &Value) -> &'static str {
    match value {
        Value::Text(_) | Value::Mebibytes(_) => "a text",
        Value::Integer { .. } => "a number",
        Value::Bool(_) => "a switch",
        Value::Fraction(_) => "a fraction",
        Value::List(_) => "a list",
        Value::Table(_) => "a table",
        Value::Other(kind) => kind,
    }
}

/// The texts of a list, or of one text with commas; `wrong` says what anything else is.
pub(super) fn texts<T>(
    value: &Value,
    wrong: impl Fn(&str) -> Problem,
    read: impl Fn(&str) -> Reading<T>,
) -> Reading<Vec<T>> {
    match value {
        Value::Text(list) => list.split(',').map(str::trim).filter(|text| !text.is_empty()).map(read).collect(),
        Value::List(items) => items.iter().map(|item| read(text(&item.value)?)).collect(),
        other => Err(wrong(kind(other))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_read_as_people_write_them() {
        for (text, bytes) in [("64MiB", 64 * MIB), ("64m", 64 * MIB), ("1 g", GIB), ("512k", 512 * KIB), ("99", 99)] {
            assert_eq!(size(&Value::Text(text.into()), 0..=u64::MAX).ok(), Some(bytes), "{text}");
        }
        for text in ["", "m", "-1", "1.5m", "64 potatoes", "99999999999g"] {
            assert!(size(&Value::Text(text.into()), 0..=u64::MAX).is_err(), "{text}");
        }
        assert_eq!(size(&Value::Mebibytes("64".into()), 0..=u64::MAX).ok(), Some(64 * MIB));
        assert_eq!(size(&Value::Mebibytes("1g".into()), 0..=u64::MAX).ok(), Some(GIB));
    }

    #[test]
    fn a_size_for_people_reads_back() {
        for bytes in [0, 1, 1023, KIB, MIB + 1, 64 * MIB, 3 * GIB] {
            assert_eq!(size(&Value::Text(size_text(bytes)), 0..=u64::MAX).ok(), Some(bytes));
        }
    }

    #[test]
    fn masks_are_octal() {
        assert_eq!(mode(&Value::Text("0700".into())).ok(), Some(0o700));
        assert_eq!(mode(&Value::Integer { value: 0o770, octal: true }).ok(), Some(0o770));
        assert!(mode(&Value::Integer { value: 700, octal: false }).is_err());
        assert!(mode(&Value::Text("0800".into())).is_err());
        assert!(mode(&Value::Text("7777".into())).is_err());
    }
}
