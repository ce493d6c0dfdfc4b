//! What people read in Chinese: no text of `check` and `--help` without a row in the table, and no English where the locale
//! is Chinese.
#![allow(clippy::unwrap_used, reason = "a test says by panicking what went wrong")]

mod literals;

use tokencached::config::{Faults, Loaded};
use tokencached::texts;

use self::literals::{Literal, literals};
use crate::support::rust_sources;

/// What an administrator types in either language.
const COMMANDS: &[&str] = &["systemctl edit tokencached", "tokencached help check"];
/// What follows is said by a library: how TOML is wrong, what a name service answers.
const FROM_OTHERS: &[&str] = &["this is not TOML: ", "has no address: "];
/// Words in a row that make it a sentence.
const WORDS_MAX: usize = 2;

/// The first English words in a row that are no command and not quoted.
pub fn english_in(text: &str) -> Option<String> {
    let unquoted: String = text.split('"').step_by(2).collect::<Vec<_>>().join(" \" ");
    let is_word = |word: &str| word.len() > 1 && word.bytes().all(|byte| byte.is_ascii_lowercase() || byte == b'\'');
    let words: Vec<&str> = unquoted.split(' ').map(|word| word.trim_end_matches([',', '.', ';'])).collect();
    let mut runs = words.split(|word| !is_word(word)).filter(|run| run.len() > WORDS_MAX).map(|run| run.join(" "));
    runs.find(|run| !COMMANDS.contains(&run.as_str()))
}

#[track_caller]
pub fn assert_known(text: &str) {
    let lines = text.lines().map(str::trim).filter(|line| !line.is_empty());
    for line in lines.filter(|line| !FROM_OTHERS.iter().any(|from| line.contains(from))) {
        let chinese = texts::chinese(line).unwrap_or_else(|| panic!("no Chinese for {line:?}"));
        if let Some(english) = english_in(&chinese) {
            panic!("{english:?} is English in {chinese:?}");
        }
    }
}

/// Everything that was said about a configuration has its Chinese.
#[track_caller]
pub fn assert_all_known(outcome: &Result<Loaded, Faults>) {
    match outcome {
        Ok(loaded) => loaded.warnings.iter().chain(&loaded.notices).for_each(|text| assert_known(text)),
        Err(faults) => faults.iter().for_each(|fault| {
            assert_known(&fault.what);
            assert_known(&fault.remedy);
        }),
    }
}

/// Files all of whose sentences people may read: in what `check` prints, or as advice.
const WHOLE_FILES: &[&str] = &[
    "access/",
    "app/options.rs",
    "check.rs",
    "check/",
    "cli.rs",
    "cli/",
    "cluster/http.rs",
    "cluster/http/",
    "cluster/memory.rs",
    "cluster/options.rs",
    "cluster/record_handle.rs",
    "cluster/redis/connection.rs",
    "config/",
    "credential/alias_templates.rs",
    "credential/app.rs",
    "credential/app_name.rs",
    "credential/collisions.rs",
    "credential/mod.rs",
    "credential/options.rs",
    "descriptors.rs",
    "encoding/",
    "files.rs",
    "files/trusted.rs",
    "http_api/options.rs",
    "invalid_value.rs",
    "platform/client/address.rs",
    "platform/client/options.rs",
    "platform/client/surroundings.rs",
    "platform/failure.rs",
    "platform/plausible.rs",
    "redis_client/address.rs",
    "redis_client/fault.rs",
    "redis_client/options.rs",
    "secret_source.rs",
    "server/listen_address.rs",
    "server/options.rs",
    "sink/adopt_source.rs",
    "sink/command.rs",
    "sink/file.rs",
    "sink/files.rs",
    "sink/keys.rs",
    "sink/options.rs",
    "sink/sql/fault.rs",
    "sink/sql_address.rs",
    "sink/sql_statement.rs",
    "sink/template.rs",
    "sink/validate.rs",
    "tls/",
    "unit.rs",
];
/// Their texts are in both languages already, or are written for programs.
const OTHER_FILES: &[&str] = &["config/schema.rs", "texts.rs"];
/// What is said there is a log line, or a mistake of the program itself.
const UNSEEN: &[&str] =
    &["trace!", "debug!", "info!", "warn!", "error!", "log_credential!", "expect", "panic!", "unreachable!", "reason", "has", "other"];
/// Calls that hand a text to somebody who set the server up.
const TELLING: &[&str] = &["InvalidValue::new(", "wrong(", ".refuse(", ".refuse_at(", ".refuse_table(", ".fault_if("];

fn is_below(file: &str, names: &[&str]) -> bool {
    names.iter().any(|name| file == *name || name.ends_with('/') && file.starts_with(name))
}

/// A text with its holes filled, by a path or by a number.
fn example(literal: &Literal, value: &str) -> String {
    let is_template = literal.inside.iter().any(|name| ["format!", "write!", "writeln!", "error"].contains(&&**name));
    if !is_template {
        return literal.text.clone();
    }
    let mut text = String::new();
    let mut chars = literal.text.chars().peekable();
    while let Some(c) = chars.next() {
        if matches!(c, '{' | '}') && chars.next_if_eq(&c).is_none() && c == '{' {
            chars.by_ref().find(|c| *c == '}');
            text.push_str(value);
        } else {
            text.push(c);
        }
    }
    text
}

fn is_chinese(c: char) -> bool {
    ('\u{4e00}'..='\u{9fff}').contains(&c)
}

/// Two words in a row at least, and no Chinese.
fn is_sentence(line: &str) -> bool {
    let is_word = |word: &str| word.len() > 1 && word.bytes().all(|byte| byte.is_ascii_lowercase() || byte == b'\'');
    let unquoted: String = line.split('"').step_by(2).collect::<Vec<_>>().join(" \" ");
    let words: Vec<&str> = unquoted.split(' ').collect();
    let is_english = !line.contains(is_chinese);
    is_english && words.windows(2).any(|pair| pair.iter().all(|word| is_word(word.trim_end_matches([',', '.', ';', ':']))))
}

/// By itself, or as the end of a sentence such as `is empty`.
fn has_chinese(line: &str) -> bool {
    let ways = [line, &format!(" {line}")].map(texts::chinese);
    ways.into_iter().flatten().any(|chinese| english_in(&chinese).is_none())
}

#[test]
fn every_text_that_people_read_has_its_chinese() {
    let mut missing = Vec::new();
    for (file, source) in rust_sources("src") {
        let file = &file["src/".len()..];
        let is_whole = is_below(file, WHOLE_FILES) && !is_below(file, OTHER_FILES);
        if file.ends_with("tests.rs") {
            continue;
        }
        for literal in literals(&source) {
            let is_advice = literal.inside.last().is_some_and(|name| name == "advice");
            let is_unseen = literal.inside.iter().any(|name| UNSEEN.contains(&&**name));
            if !(is_advice || is_whole && !is_unseen) {
                continue;
            }
            let lines = ["/x/y", "7"].map(|value| example(&literal, value));
            for (path, number) in lines[0].split('\n').zip(lines[1].split('\n')) {
                let (path, number) = (path.trim(), number.trim());
                if is_sentence(path) && !(has_chinese(path) || has_chinese(number)) {
                    missing.push(format!("src/{file}:{}: {path}", literal.line));
                }
            }
        }
    }
    missing.retain(|text| !NOT_SHOWN.iter().any(|known| text.ends_with(known)));
    assert!(missing.is_empty(), "add rows to src/texts/zh.txt for:\n{}", missing.join("\n"));
}

#[test]
fn whoever_tells_a_fault_is_among_the_files_that_are_looked_at() {
    for (file, source) in rust_sources("src") {
        let name = &file["src/".len()..];
        let source = source.split("#[cfg(test)]\nmod ").next().unwrap();
        let tells = TELLING.iter().find(|call| source.contains(*call));
        let is_looked_at = is_below(name, WHOLE_FILES) || name.ends_with("tests.rs");
        assert!(tells.is_none() || is_looked_at, "{file} has {tells:?}");
    }
}

/// Parts that are put together with others, and what only programs read.
const NOT_SHOWN: &[&str] = &[
    "the same in line/x/y /x/y/x/y",
    "its thread is gone",
    "tls = \"verify\" hides",
    ": to that database",
    "/x/y: the appid /x/y",
    ": refresh token",
    ": verify ticket",
    ": duplicate key",
    ": Known for files are",
    "others can read the /x/y in /x/y (chmod 600)",
    ": no statement",
    ": Set it to",
    "/x/y # written in the file",
    "/x/y is not /x/y /x/y",
    ": neither a table nor a list",
    "A text that stands there as it is: { constant = \"...\" }.",
    "the /x/y /x/y has no /x/y",
    "the /x/y has no /x/y",
    "/x/y has no /x/y",
    "no /x/y is given",
];
