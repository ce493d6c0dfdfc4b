//! memcached's flags -> settings. Which flag is for which setting, the schema says.

use super::fault::Fault;
use super::file::Document;
use super::schema::{SECTIONS, Takes, of_flag};
use crate::cli::{self, Flags};
use crate::invalid_value::InvalidValue;
use crate::raw_value::{Given, Place, RawValue};

/// Puts what was given above the other layers. `-p` and `-l` are read with the addresses.
pub(super) fn settings(document: &mut Document, flags: &Flags, faults: &mut Vec<Fault>) {
    for (flag, text) in flags.given() {
        put(document, flag, flag, text);
    }
    // As with memcached -S leaves the binary protocol alone.
    if flags.enable_sasl {
        put(document, "-B", "-S", "binary".to_owned());
    }
    let of_words = SECTIONS.iter().flat_map(|section| section.settings()).map(|setting| setting.flag);
    for (flag, word) in of_words.filter_map(|flag| Some((flag, flag.strip_prefix("-o ")?))) {
        // As with memcached they mean nothing without -Z.
        if word.starts_with("ssl_") && !flags.enable_ssl {
            continue;
        }
        match flags.words().rfind(|(name, _)| *name == word) {
            Some((_, Some(value))) => put(document, flag, flag, cli::translated(word, value).to_owned()),
            Some((_, None)) => faults.push(fault((flag, cli::missing_value(word)))),
            None => {}
        }
    }
}

/// What the flags say is wrong with one of them.
pub(super) fn fault((flag, problem): (&'static str, InvalidValue)) -> Fault {
    problem.at(&Place::Flag(flag))
}

/// `flag` is the one that the schema has, `typed` the one that was given.
fn put(document: &mut Document, flag: &str, typed: &'static str, text: String) {
    let Some((section, setting)) = of_flag(flag) else { return };
    let value = match (&setting.takes, flag, text.as_str()) {
        (Takes::Size { .. }, "-m", _) => RawValue::Mebibytes(text),
        (_, "-B", "auto-negotiate") => RawValue::Text("auto".to_owned()),
        _ => RawValue::Text(text),
    };
    document.one_mut(section).put(setting.key, Given { value, place: Place::Flag(typed) });
}
