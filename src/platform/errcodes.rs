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

/// A sentence in both languages.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BilingualText {
    pub en: &'static str,
    pub zh: &'static str,
}

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
    pub advice_on_unknown: BilingualText,
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
    pub meaning: BilingualText,
    pub advice: BilingualText,
    /// Used in place of `advice` if the answer names the address the call came from; has `{ip}` and `{app}` in it.
    pub advice_with_ip: Option<BilingualText>,
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
pub const UNKNOWN_MEANING: BilingualText = text("unknown error", "未知错误");

/// Where to look up a code that has no row.
pub fn advice_on_unknown(platform_name: &str) -> BilingualText {
    platform(platform_name).map_or(UNKNOWN_PLATFORM, |platform| platform.errcodes.advice_on_unknown)
}

/// What is said where there is no row.
pub fn texts_on_unknown() -> impl Iterator<Item = BilingualText> {
    let advice = PLATFORMS.iter().map(|platform| platform.errcodes.advice_on_unknown);
    advice.chain([UNKNOWN_MEANING, UNKNOWN_PLATFORM, PROBE_RIGHT])
}

const UNKNOWN_PLATFORM: BilingualText =
    text("look the error code up in the platform's documentation", "请在该平台的文档中查询该错误码");

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

pub(super) const fn text(en: &'static str, zh: &'static str) -> BilingualText {
    BilingualText { en, zh }
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
    meaning: BilingualText,
) -> ErrcodeRow {
    let (refuses_token, asks_for_secret, advice, advice_with_ip) = (false, false, NOTHING, None);
    ErrcodeRow { calls, code, class, refuses_token, asks_for_secret, meaning, advice, advice_with_ip, source }
}

impl ErrcodeRow {
    const fn advise(self, advice: BilingualText) -> ErrcodeRow {
        ErrcodeRow { advice, ..self }
    }

    const fn with_ip(self, advice: BilingualText) -> ErrcodeRow {
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
const NOTHING: BilingualText = text("nothing; it is tried again", "无需处理，会自动重试");
const NOTHING_FOR_A_MINUTE: BilingualText =
    text("nothing; it is tried again after a minute", "无需处理，一分钟后自动重试");
const ACCOUNT_GONE: BilingualText = text("account frozen, cancelled or moved", "账号已冻结、注销或迁移");
const BUSY: BilingualText = text("WeChat is busy", "微信系统繁忙");
const REPORT_BUG: BilingualText = text(
    "check the app's appid and secret; if they are right, please report this as a bug",
    "请检查 appid 和 AppSecret；若都正确，请作为程序错误反馈",
);
const WRONG_SECRET: BilingualText = text("wrong app secret", "AppSecret 不正确");
const UNKNOWN_APPID: BilingualText = text("unknown appid", "appid 不存在");
const CORRECT_APPID: BilingualText = text("correct the appid in the configuration", "请改正配置中的 appid");
const NO_APPID: BilingualText = text("appid missing", "缺少 appid");
const NO_SECRET: BilingualText = text("secret missing", "缺少 secret");
const BAD_GRANT: BilingualText = text("bad grant_type", "grant_type 有误");
const MUST_POST: BilingualText = text("must be posted", "必须使用 POST");
const NEEDS_HTTPS: BilingualText = text("must be asked by HTTPS", "必须使用 HTTPS");
const BASE_URL_HTTPS: BilingualText =
    text("set base_url to an https:// address", "请把 base_url 改为 https:// 开头的地址");
const BAD_URL: BilingualText = text("no such address", "请求的 URL 不存在");
const BASE_URL: BilingualText =
    text("correct base_url: it is scheme and host, without a path", "请改正 base_url：只写协议和主机名，不带路径");
const NOT_LISTED: BilingualText = text("our IP is not on the allow-list", "本机 IP 不在白名单中");
const DAY_IS_OVER: BilingualText = text("daily quota used up", "当日调用次数已用完");
const TOO_MANY: BilingualText = text("too many calls this minute", "本分钟调用过于频繁");
const RETIRED: BilingualText = text("retired entry address", "接入地址已停用");
const UNPIN: BilingualText = text(
    "remove pinned WeChat addresses from /etc/hosts, proxies and DNS caches",
    "请从 /etc/hosts、代理和 DNS 缓存中去掉写死的微信地址",
);
const ASK_AT_MP: BilingualText =
    text("ask at mp.weixin.qq.com what happened to the account", "请到 mp.weixin.qq.com 了解账号的情况");
const TOKEN_REFUSED: BilingualText =
    text("the access token was refused for this call", "本次调用所用的 access_token 被拒绝");
/// For any code that keeps the probe from being answered.
pub const PROBE_RIGHT: BilingualText = text(
    "this account may not make that call; clients' reports are still verified, and probe_every_s = 0 switches the regular \
     probes off",
    "该账号不能调用此接口；客户端的上报仍会验证，probe_every_s = 0 可关闭定期验证",
);

#[cfg(test)]
mod tests;
