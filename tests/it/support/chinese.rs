//! Whether what the program says to people is Chinese. `it/chinese.rs` has the tests; [`super::run`] looks at everything that
//! `check` prints in any of them.

use tokencached::config::{Faults, Loaded};
use tokencached::texts::{self, Language};

/// What an administrator types in either language.
const COMMANDS: &[&str] = &["systemctl edit tokencached", "tokencached help check"];
/// What follows is said by others: by a name service, a platform.
const FROM_OTHERS: &[&str] = &["has no address: ", "errcode ", "HTTP status "];
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

/// What `check` has printed in English, each line by itself, has its Chinese.
#[track_caller]
pub fn assert_printed(said: &str) {
    let lines = said.lines().map(|line| line.trim().trim_start_matches("tokencached: "));
    for line in lines.filter(|line| !FROM_OTHERS.iter().any(|from| line.contains(from))) {
        let chinese = Language::Chinese.of(line);
        if let Some(english) = english_in(&chinese) {
            panic!("{english:?} is English in {chinese:?}, of {line:?}");
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
