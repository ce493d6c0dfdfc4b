//! The settings of the log.

/// How to log.
#[derive(Clone, Debug, Default)]
pub struct Options {
    /// 0 warnings and what an operator must know, 1 (`-v`), 2 (`-vv`), 3.
    pub verbosity: u8,
    /// JSON lines in place of text.
    pub json: bool,
}
