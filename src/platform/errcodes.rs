//! What the platforms' error codes mean: a file a platform, a row for each code of a call.
//!
//! Data, and the look-up in it: [`classify`] says what the refresher should do, [`find`] gives the whole row. The same
//! number means different things on different platforms and calls, so a code is looked up by all three, and nothing is
//! taken from another platform. A new code is a new row in the platform's file. Never parses an answer's text.

pub mod component;
pub mod feishu;
pub mod mp;
pub mod qq;
pub mod wecom;

use super::failure::{Class, Pace, Wait};
use crate::platform::{ApiCall, ApiEndpoint, PLATFORMS, platform};

/// Where a row is known from, and when that was read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ErrcodeSource {
    pub page: &'static str,
    pub date: &'static str,
}

/// The error codes of one platform.
#[derive(Debug)]
pub struct ErrcodeTable {
    pub rows: &'static [ErrcodeRow],
    /// Where to look up a code that has no row.
    pub advice_on_unknown: &'static str,
}

/// One error code of a platform's calls.
#[derive(Debug)]
pub struct ErrcodeRow {
    pub calls: &'static [ApiEndpoint],
    pub code: i64,
    pub class: Class,
    /// It refuses the token that the call was made with: that token is verified, as after a report.
    pub refuses_token: bool,
    /// Another secret, or another refresh token, is what it takes.
    pub asks_for_secret: bool,
    pub meaning: &'static str,
    pub advice: &'static str,
    /// Used in place of `advice` if the answer names the address the call came from; has `{ip}` and `{app}` in it.
    pub advice_with_ip: Option<&'static str>,
    pub source: ErrcodeSource,
}

/// What the refresher should do after the platform has refused that call with that code.
pub fn classify(call: ApiCall, errcode: i64) -> Class {
    find(call, errcode).map_or(UNKNOWN_CLASS, |row| row.class)
}

/// The row of a code. A row of another platform or of another call is never taken for it.
pub fn find(call: ApiCall, errcode: i64) -> Option<&'static ErrcodeRow> {
    let rows = platform(call.platform)?.errcodes.rows;
    rows.iter().find(|row| row.code == errcode && row.calls.contains(&call.endpoint))
}

/// Every row, with its platform's name.
pub fn rows() -> impl Iterator<Item = (&'static str, &'static ErrcodeRow)> {
    PLATFORMS.iter().flat_map(|platform| platform.errcodes.rows.iter().map(|row| (platform.name, row)))
}

/// An unknown code is looked at again slowly, because fast retries might spend a quota.
pub const UNKNOWN_CLASS: Class = SLOW;
pub const UNKNOWN_MEANING: &str = "unknown error";

/// Where to look up a code that has no row.
pub fn advice_on_unknown(platform_name: &str) -> &'static str {
    platform(platform_name).map_or(UNKNOWN_PLATFORM, |platform| platform.errcodes.advice_on_unknown)
}

const UNKNOWN_PLATFORM: &str = "look the error code up in the platform's documentation";

// Classes, as the rows name them.
const RETRY: Class = Class::Retry;
const INTERNAL: Class = Class::Internal;
const SOON: Class = Class::Operator(Pace::Soon);
const SLOW: Class = Class::Operator(Pace::Slow);
const NEXT_DAY: Class = Class::Wait(Wait::NextDay);
const MINUTE_MS: u64 = 60_000;
const HOUR_MS: u64 = 60 * MINUTE_MS;

const fn wait(ms: u64) -> Class {
    Class::Wait(Wait::AtLeastMs(ms))
}

const fn source(page: &'static str, date: &'static str) -> ErrcodeSource {
    ErrcodeSource { page, date }
}

/// A row; what it advises is added with [`ErrcodeRow::advise`].
const fn row(
    calls: &'static [ApiEndpoint],
    code: i64,
    class: Class,
    source: ErrcodeSource,
    meaning: &'static str,
) -> ErrcodeRow {
    let (refuses_token, asks_for_secret, advice, advice_with_ip) = (false, false, NOTHING, None);
    ErrcodeRow { calls, code, class, refuses_token, asks_for_secret, meaning, advice, advice_with_ip, source }
}

impl ErrcodeRow {
    const fn advise(self, advice: &'static str) -> ErrcodeRow {
        ErrcodeRow { advice, ..self }
    }

    const fn with_ip(self, advice: &'static str) -> ErrcodeRow {
        ErrcodeRow { advice_with_ip: Some(advice), ..self }
    }

    const fn asking_for_secret(self) -> ErrcodeRow {
        ErrcodeRow { asks_for_secret: true, ..self }
    }

    const fn refusing_token(self) -> ErrcodeRow {
        ErrcodeRow { refuses_token: true, ..self }
    }
}

// What several platforms' rows share.
const API_GUIDE: ErrcodeSource = source("developers.weixin.qq.com: call guide of the server APIs", "2026-11");
const COMMON_PAGE: ErrcodeSource = source("developers.weixin.qq.com/doc/oplatform/developers/errCode", "2026-11");
const SHOP_PAGE: ErrcodeSource = source("developers.weixin.qq.com/doc/channels/API/basics/commErrCode.html", "2026-11");
const NOTICE_48017: ErrcodeSource = source("developers.weixin.qq.com: notice on retired entry addresses", "2023-09");
const NOTHING: &str = "nothing; it is tried again";
const NOTHING_FOR_A_MINUTE: &str = "nothing; it is tried again after a minute";
const ACCOUNT_GONE: &str = "account frozen, cancelled or moved";
const BUSY: &str = "WeChat is busy";
const REPORT_BUG: &str = "check the app's appid and secret; if they are right, please report this as a bug";
const WRONG_SECRET: &str = "wrong app secret";
const UNKNOWN_APPID: &str = "unknown appid";
const CORRECT_APPID: &str = "correct the appid in the configuration";
const NO_APPID: &str = "appid missing";
const NO_SECRET: &str = "secret missing";
const BAD_GRANT: &str = "bad grant_type";
const MUST_POST: &str = "must be posted";
const NEEDS_HTTPS: &str = "must be asked by HTTPS";
const BASE_URL_HTTPS: &str = "set base_url to an https:// address";
const BAD_URL: &str = "no such address";
const BASE_URL: &str = "correct base_url: it is scheme and host, without a path";
const NOT_LISTED: &str = "our IP is not on the allow-list";
const DAY_IS_OVER: &str = "daily quota used up";
const TOO_MANY: &str = "too many calls this minute";
const RETIRED: &str = "retired entry address";
const UNPIN: &str = "remove pinned WeChat addresses from /etc/hosts, proxies and DNS caches";
const ASK_AT_MP: &str = "ask at mp.weixin.qq.com what happened to the account";
const TOKEN_REFUSED: &str = "the access token was refused for this call";
/// For any code that keeps the probe from being answered.
pub const PROBE_RIGHT: &str = "this account may not make that call; clients' reports are still verified, and probe_every_s = 0 switches the regular \
     probes off";

#[cfg(test)]
mod tests;
