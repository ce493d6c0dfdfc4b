//! memcached's flags -> settings. Which flag is for which setting, the schema says.

use super::fault::{Fault, Place, SettingProblem};
use super::file::Document;
use super::schema::{SECTIONS, Takes, of_flag};
use super::value::{Given, RawValue, closest, quoted};
use crate::cli::{self, Flags, Word};

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
            Some((_, Some(value))) => put(document, flag, flag, translated(word, value).to_owned()),
            Some((_, None)) => {
                let problem = match word {
                    "idle_timeout" => SettingProblem::new(
                        "the number of seconds is missing",
                        "Write -o idle_timeout=SECONDS; 0 never closes a quiet connection.",
                    ),
                    _ => SettingProblem::new("the value is missing", format!("Write {flag}=VALUE.")),
                };
                faults.push(problem.at(&Place::Flag(flag)));
            }
            None => {}
        }
    }
}

/// `flag` is the one that the schema has, `typed` the one that was given.
fn put(document: &mut Document, flag: &str, typed: &'static str, text: String) {
    let Some((section, setting)) = of_flag(flag) else { return };
    let value = match (&setting.takes, flag, text.as_str()) {
        (Takes::Size { .. }, "-m", _) => RawValue::Mebibytes(text),
        (_, "-B", "auto-negotiate") => RawValue::Text("auto".to_owned()),
        _ => RawValue::Text(text),
    };
    document.table(section).put(setting.key, Given { value, place: Place::Flag(typed) });
}

/// memcached's numbers, in this server's words.
fn translated<'v>(word: &str, value: &'v str) -> &'v str {
    match (word, value) {
        ("ssl_verify_mode", "0") => "none",
        ("ssl_verify_mode", "1") => "optional",
        ("ssl_verify_mode", "2" | "3") => "required",
        // Nothing older than 1.2 is supported.
        ("ssl_min_version", "0" | "1" | "2") => "1.2",
        ("ssl_min_version", "3") => "1.3",
        _ => value,
    }
}

/// What `-S` lacks; `users` is that there is a file of them.
pub(super) fn sasl_fault(flags: &Flags, users: bool) -> Option<Fault> {
    let (what, remedy) = match flags.protocol.as_deref() {
        _ if !flags.enable_sasl => return None,
        Some("ascii") => (
            "SASL is part of the binary protocol, and -B ascii excludes that",
            "Remove -B, or remove -S: -Y alone lets clients log in over the text protocol.",
        ),
        _ if !users => (
            "SASL is asked for and nobody can log in: there is no file of users",
            "Give one with -Y FILE (server.auth_file), a line USER:PASSWORD for each user.",
        ),
        _ => return None,
    };
    Some(SettingProblem::new(what, remedy).at(&Place::Flag("-S")))
}

/// What was asked for and this version does not have.
pub(super) fn refusals(flags: &Flags) -> Vec<Fault> {
    let udp = flags.udp_port.as_deref().filter(|port| port.trim() != "0").map(|port| {
        let what = format!("UDP port {}: this version has no UDP", quoted(port));
        SettingProblem::new(what, "Remove -U or write -U 0.").at(&Place::Flag("-U"))
    });
    let key_format = flags.words().rfind(|(word, _)| *word == "ssl_keyformat").and_then(|(_, value)| value);
    let key_format = key_format.filter(|format| flags.enable_ssl && *format != "PEM").map(|_| {
        let problem =
            SettingProblem::new("the private key must be in PEM format", "Convert it: openssl pkey -inform DER.");
        problem.at(&Place::Flag("-o ssl_keyformat"))
    });
    let words = flags.words().filter_map(|(name, _)| Some(refused_word(flags, name)?.at(&Place::Flag("-o"))));
    udp.into_iter().chain(key_format).chain(words).collect()
}

/// What is wrong with a word of `-o` itself.
fn refused_word(flags: &Flags, name: &str) -> Option<SettingProblem> {
    match flags.effect(name) {
        Some(Word::Works | Word::Ignored(_)) => None,
        Some(Word::Refused(why, remedy)) => {
            Some(SettingProblem::new(format!("the word {}: {why}", quoted(name)), remedy))
        }
        None => {
            let remedy = match closest(name, cli::word_names()) {
                Some(closest) => format!("Did you mean {closest}?"),
                None => "memcached has no such word; remove it.".to_owned(),
            };
            Some(SettingProblem::new(format!("the word {} is unknown", quoted(name)), remedy))
        }
    }
}
