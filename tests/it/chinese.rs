//! What people read in Chinese: no text of `check` and `--help` without a row in the table, and no English where the locale
//! is Chinese.
#![allow(clippy::unwrap_used, reason = "a test says by panicking what went wrong")]

use std::path::Path;

use tokencached::config::{Faults, Loaded};
use tokencached::texts::{self, Language};

/// What an administrator types in either language.
const COMMANDS: &[&str] = &["systemctl edit tokencached", "run systemctl edit tokencached"];
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
