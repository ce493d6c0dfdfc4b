//! The settings of the log.

use crate::texts::Language;

#[derive(Clone, Debug, Default)]
pub struct Options {
    /// 0 warnings and what an operator must know, 1 (`-v`), 2 (`-vv`), 3.
    pub verbosity: u8,
    pub json: bool,
    /// What `advice` is written in; everything else is English.
    pub advice_language: Language,
}
