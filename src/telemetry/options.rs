//! The settings of the log.

use crate::texts::Language;

/// How to log.
#[derive(Clone, Debug, Default)]
pub struct Options {
    /// 0 warnings and what an operator must know, 1 (`-v`), 2 (`-vv`), 3.
    pub verbosity: u8,
    /// JSON lines in place of text.
    pub json: bool,
    /// What `advice` is written in; everything else is English.
    pub advice_language: Language,
}
