//! What the platforms' error codes mean: a table a platform, in `errcodes/`, with a row for each meaning of a code.
//!
//! Here is how the tables are read, and the look-up in them: [`classify`] says what the refresher should do, [`find`]
//! gives the whole row. The same number means different things on different platforms and calls, so a code is looked up
//! by all three, and nothing is taken from another platform. Never parses an answer's text.

use std::collections::HashMap;
use std::sync::LazyLock;

use serde::Deserialize;

use super::failure::{Class, Pace};
use crate::platform::{ApiCall, ApiEndpoint, platform};

/// The error codes of one platform, read when the first is looked up.
pub type ErrcodeTable = LazyLock<ErrcodeRows>;

pub static MP: ErrcodeTable = LazyLock::new(|| read(include_str!("errcodes/mp.toml")));
pub static WECOM: ErrcodeTable = LazyLock::new(|| read(include_str!("errcodes/wecom.toml")));
pub static QQ: ErrcodeTable = LazyLock::new(|| read(include_str!("errcodes/qq.toml")));
pub static FEISHU: ErrcodeTable = LazyLock::new(|| read(include_str!("errcodes/feishu.toml")));
pub static COMPONENT: ErrcodeTable = LazyLock::new(|| read(include_str!("errcodes/component.toml")));

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ErrcodeRows {
    /// Where to look up a code that has no row.
    pub advice_on_unknown: String,
    pub rows: Vec<ErrcodeRow>,
    /// By the names that rows have for them.
    pub sources: HashMap<String, ErrcodeSource>,
}

/// Where a row is known from, and when that was read.
#[derive(Debug, Deserialize)]
pub struct ErrcodeSource {
    pub page: String,
    pub date: String,
}

/// What some error codes of a platform's calls mean.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ErrcodeRow {
    pub calls: Vec<ApiEndpoint>,
    pub codes: Vec<i64>,
    pub class: Class,
    /// It refuses the token that the call was made with: that token is verified, as after a report.
    #[serde(default)]
    pub refuses_token: bool,
    /// Another secret, or another refresh token, is what it takes.
    #[serde(default)]
    pub asks_for_secret: bool,
    pub meaning: String,
    #[serde(default = "nothing")]
    pub advice: String,
    /// Used in place of `advice` if the answer names the address the call came from; has `{ip}` and `{app}` in it.
    pub advice_with_ip: Option<String>,
    pub source: String,
}

/// What a row advises that has no advice of its own.
fn nothing() -> String {
    "nothing; it is tried again".to_owned()
}

#[expect(clippy::expect_used, reason = "the tables are part of the program, and tests read them all")]
fn read(table: &str) -> ErrcodeRows {
    toml::from_str(table).expect("a table of error codes is as it has to be")
}

/// What the refresher should do after the platform has refused that call with that code.
pub fn classify(call: ApiCall, errcode: i64) -> Class {
    find(call, errcode).map_or(UNKNOWN_CLASS, |row| row.class)
}

/// The row of a code. A row of another platform or of another call is never taken for it.
pub fn find(call: ApiCall, errcode: i64) -> Option<&'static ErrcodeRow> {
    let rows = &platform(call.platform)?.errcodes.rows;
    rows.iter().find(|row| row.codes.contains(&errcode) && row.calls.contains(&call.endpoint))
}

/// An unknown code is looked at again slowly, because fast retries might spend a quota.
pub const UNKNOWN_CLASS: Class = Class::Operator(Pace::Slow);
pub const UNKNOWN_MEANING: &str = "unknown error";

/// Where to look up a code that has no row.
pub fn advice_on_unknown(platform_name: &str) -> &'static str {
    platform(platform_name).map_or(UNKNOWN_PLATFORM, |platform| &platform.errcodes.advice_on_unknown)
}

const UNKNOWN_PLATFORM: &str = "look the error code up in the platform's documentation";

/// For any code that keeps the probe from being answered.
pub const PROBE_RIGHT: &str = "this account may not make that call; clients' reports are still verified, and probe_every_s = 0 switches the regular \
     probes off";

#[cfg(test)]
mod tests;
