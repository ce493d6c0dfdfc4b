//! memcached has other uses for letters that elsewhere stand for a configuration file: what to write instead.

use super::fault::SettingProblem;
use super::value::{RawValue, quoted};
use crate::cli::file_after_flag;

/// A file's name where a number belongs.
pub(super) fn file_for_number(flag: &str, value: &RawValue) -> Option<SettingProblem> {
    let RawValue::Text(text) = value else { return None };
    let remedy = file_after_flag(flag, text)?;
    Some(SettingProblem::new(format!("{} is not a number", quoted(text)), format!("{remedy}.")))
}
