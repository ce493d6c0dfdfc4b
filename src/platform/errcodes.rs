//! What the platforms' error codes mean: one row for a code of a call of a platform.
//!
//! Data, and the look-up in it. The same number means different things on different platforms and calls, so a code is
//! looked up by all three and nothing is taken from another platform. A new code is a new row here. Elsewhere a number
//! stands only where a host, a verify ticket or a refresh token is changed for another because of it.

use super::failure::{Class, Pace, Wait};
use crate::platform::{
    ApiCall,
    ApiEndpoint::{self, AuthorizerToken, ComponentToken, Probe, StableToken, Ticket, Token},
};

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

/// One error code of a platform's calls.
#[derive(Debug)]
pub struct ErrcodeRow {
    pub platform: &'static str,
    pub calls: &'static [ApiEndpoint],
    pub code: i64,
    pub class: Class,
    /// It refuses the token that the call was made with: that one is looked into, as after a report.
    pub refuses_token: bool,
    /// Another secret, or another refresh token, is what it takes.
    pub asks_for_secret: bool,
    pub meaning: BilingualText,
    pub advice: BilingualText,
    /// Instead, if the answer names the address it came from; with `{ip}` and `{app}` in it.
    pub advice_with_ip: Option<BilingualText>,
    pub source: ErrcodeSource,
}

/// The row of a code. None of another platform or another call is ever taken for it.
pub fn find(api: ApiCall, code: i64) -> Option<&'static ErrcodeRow> {
    ROWS.iter().find(|row| row.code == code && row.platform == api.platform && row.calls.contains(&api.call))
}

/// What an unknown code asks for: it is looked at slowly, because fast retries might spend a quota.
pub const UNKNOWN_CLASS: Class = Class::Operator(Pace::Slow);
pub const UNKNOWN_MEANING: BilingualText = text("unknown error", "未知错误");

/// Where to look an unknown code up.
pub fn unknown_advice(platform: &str) -> BilingualText {
    UNKNOWN.iter().find(|(name, _)| *name == platform).map_or(UNKNOWN_ANYWHERE, |(_, advice)| *advice)
}

const UNKNOWN: &[(&str, BilingualText)] = &[
    (
        MP,
        text(
            "look the errcode up in WeChat's documentation; the rid can be queried at mp.weixin.qq.com",
            "请在微信文档中查询该错误码；rid 可在 mp.weixin.qq.com 查询",
        ),
    ),
    (
        COMPONENT,
        text(
            "look the errcode up in the documentation of the open platform, and at open.weixin.qq.com what state the \
             third-party platform is in",
            "请在微信开放平台文档中查询该错误码，并在 open.weixin.qq.com 查看第三方平台的状态",
        ),
    ),
    (
        WECOM,
        text(
            "look the errcode up at open.work.weixin.qq.com/devtool/query; the hint in the message helps WeCom's support",
            "请在 open.work.weixin.qq.com/devtool/query 查询该错误码；找企业微信客服时请提供信息里的 hint",
        ),
    ),
    (QQ, text("look the errcode up in the documentation at q.qq.com/wiki", "请在 q.qq.com/wiki 的文档中查询该错误码")),
    (
        FEISHU,
        text(
            "look the code up in the list of server error codes at open.feishu.cn",
            "请在 open.feishu.cn 的“服务端错误码说明”中查询该错误码",
        ),
    ),
];
const UNKNOWN_ANYWHERE: BilingualText =
    text("look the error code up in the platform's documentation", "请在该平台的文档中查询该错误码");

const MP: &str = "mp";
const COMPONENT: &str = "component";
const WECOM: &str = "wecom";
const QQ: &str = "qq";
const FEISHU: &str = "feishu";

const SOON: Class = Class::Operator(Pace::Soon);
const SLOW: Class = Class::Operator(Pace::Slow);
const NEXT_DAY: Class = Class::Wait(Wait::NextDay);
const MINUTE_MS: u64 = 60_000;
const HOUR_MS: u64 = 60 * MINUTE_MS;
/// A block of the interface that grows if it is met again.
const BLOCK: Class = Class::Wait(Wait::Doubling { first_ms: 60_000, most_ms: 3_600_000 });

const fn wait(ms: u64) -> Class {
    Class::Wait(Wait::AtLeastMs(ms))
}

const fn text(en: &'static str, zh: &'static str) -> BilingualText {
    BilingualText { en, zh }
}

const fn source(page: &'static str, date: &'static str) -> ErrcodeSource {
    ErrcodeSource { page, date }
}

const fn row(
    (platform, calls): (&'static str, &'static [ApiEndpoint]),
    code: i64,
    class: Class,
    meaning: BilingualText,
    advice: BilingualText,
    source: ErrcodeSource,
) -> ErrcodeRow {
    ErrcodeRow {
        platform,
        calls,
        code,
        class,
        refuses_token: false,
        asks_for_secret: false,
        meaning,
        advice,
        advice_with_ip: None,
        source,
    }
}

impl ErrcodeRow {
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

// Who is asked what.
const MP_TOKENS: (&str, &[ApiEndpoint]) = (MP, &[Token, StableToken]);
const MP_CLASSIC: (&str, &[ApiEndpoint]) = (MP, &[Token]);
const MP_STABLE: (&str, &[ApiEndpoint]) = (MP, &[StableToken]);
const MP_TICKET: (&str, &[ApiEndpoint]) = (MP, &[Ticket]);
const MP_PROBE: (&str, &[ApiEndpoint]) = (MP, &[Probe]);
const MP_READS: (&str, &[ApiEndpoint]) = (MP, &[Ticket, Probe]);
const MP_FETCHES: (&str, &[ApiEndpoint]) = (MP, &[Token, StableToken, Ticket]);
const MP_ALL: (&str, &[ApiEndpoint]) = (MP, &[Token, StableToken, Ticket, Probe]);
const COMPONENT_ITSELF: (&str, &[ApiEndpoint]) = (COMPONENT, &[ComponentToken]);
const COMPONENT_AUTHORIZER: (&str, &[ApiEndpoint]) = (COMPONENT, &[AuthorizerToken]);
const COMPONENT_ALL: (&str, &[ApiEndpoint]) = (COMPONENT, &[ComponentToken, AuthorizerToken]);
const WECOM_TOKEN: (&str, &[ApiEndpoint]) = (WECOM, &[Token]);
const WECOM_TICKET: (&str, &[ApiEndpoint]) = (WECOM, &[Ticket]);
const WECOM_READS: (&str, &[ApiEndpoint]) = (WECOM, &[Ticket, Probe]);
const WECOM_ALL: (&str, &[ApiEndpoint]) = (WECOM, &[Token, Ticket, Probe]);
const QQ_TOKEN: (&str, &[ApiEndpoint]) = (QQ, &[Token]);
const FEISHU_TOKEN: (&str, &[ApiEndpoint]) = (FEISHU, &[Token]);

// Where it is known from.
const TOKEN_PAGE: ErrcodeSource = source("developers.weixin.qq.com: getAccessToken, getStableAccessToken", "2026-11");
const API_GUIDE: ErrcodeSource = source("developers.weixin.qq.com: call guide of the server APIs", "2026-11");
const COMMON_PAGE: ErrcodeSource = source("developers.weixin.qq.com/doc/oplatform/developers/errCode", "2026-11");
const SHOP_PAGE: ErrcodeSource = source("developers.weixin.qq.com/doc/channels/API/basics/commErrCode.html", "2026-11");
const NOTICE_48017: ErrcodeSource = source("developers.weixin.qq.com: notice on retired entry addresses", "2023-09");
const RISK_CODES: ErrcodeSource = source("getAccessToken's page, and nilorg/go-wechat issue 23", "2026-11");
const PENALTY_SEEN: ErrcodeSource = source("developers.weixin.qq.com/community, answers on errcode 50004", "2026-11");
const TICKET_PAGE: ErrcodeSource =
    source("developers.weixin.qq.com/doc/service: api_getticket; node-webot/wechat-api issue 250", "2026-11");
const PROBE_SEEN: ErrcodeSource = source("developers.weixin.qq.com: get_api_domain_ip; community 000a4ca1", "2022");
const COMPONENT_PAGE: ErrcodeSource = source("developers.weixin.qq.com/doc/oplatform: api_component_token", "2026-11");
const AUTHORIZER_PAGE: ErrcodeSource =
    source("developers.weixin.qq.com/doc/oplatform: api_getauthorizeraccesstoken", "2026-11");
const WECOM_PAGE: ErrcodeSource = source("developer.work.weixin.qq.com/document/path/90313", "2026-11");
const WECOM_BLOCK: ErrcodeSource =
    source("document/path/90312; easywechat issue 2274, wecom-openclaw-plugin issue 48", "2026-11");
const WECOM_ADDRESS: ErrcodeSource = source("document/path/90313; SmsForwarder issue 352", "2026-11");
const QQ_PAGE: ErrcodeSource = source("q.qq.com/wiki/develop/miniprogram/server/open_port/port_use.html", "2026-11");
const QQ_AS_CLASSIC: ErrcodeSource = source("w3cschool copy of the QQ pages: the classic token's contract", "2026-11");
const FEISHU_PAGE: ErrcodeSource = source("open.feishu.cn: generic-error-code; codes seen at the endpoint", "2026-09");
const FEISHU_RATE: ErrcodeSource = source("open.feishu.cn: frequency-control", "2026-11");
const FEISHU_SDK: ErrcodeSource = source("open-lark 0.14, its list of error codes", "2026-11");
const FEISHU_MONTH: ErrcodeSource = source("openclaw/openclaw issue 10549", "2026-02");
const FEISHU_SEEN: ErrcodeSource = source("ConnectAI-E/feishu-openai issue 21", "2023-03");

// What is said more than once.
const NOTHING: BilingualText = text("nothing; it is tried again", "无需处理，会自动重试");
const NOTHING_FOR_A_MINUTE: BilingualText =
    text("nothing; it is tried again after a minute", "无需处理，一分钟后自动重试");
const BUSY: BilingualText = text("WeChat is busy", "微信系统繁忙");
const REPORT_BUG: BilingualText = text(
    "check the app's appid and secret; if they are right, please report this as a bug",
    "请检查 appid 和 AppSecret；若都正确，请作为程序错误反馈",
);
const WRONG_SECRET: BilingualText = text("wrong app secret", "AppSecret 不正确");
const PUT_SECRET: BilingualText = text("put the app's current secret in place", "请换上当前的 AppSecret");
const UNKNOWN_APPID: BilingualText = text("unknown appid", "appid 不存在");
const CORRECT_APPID: BilingualText = text("correct the appid in the configuration", "请改正配置中的 appid");
const NO_APPID: BilingualText = text("appid missing", "缺少 appid");
const NO_SECRET: BilingualText = text("secret missing", "缺少 secret");
const BAD_GRANT: BilingualText = text("bad grant_type", "grant_type 有误");
const MUST_POST: BilingualText = text("must be posted", "必须使用 POST");
const NOT_JSON: BilingualText = text("the body cannot be parsed", "请求体无法解析");
const NEEDS_HTTPS: BilingualText = text("must be asked by HTTPS", "必须使用 HTTPS");
const BASE_URL_HTTPS: BilingualText =
    text("set base_url to an https:// address", "请把 base_url 改为 https:// 开头的地址");
const BAD_URL: BilingualText = text("no such address", "请求的 URL 不存在");
const BASE_URL: BilingualText =
    text("correct base_url: it is scheme and host, without a path", "请改正 base_url：只写协议和主机名，不带路径");
const NOT_LISTED: BilingualText = text("our IP is not on the allow-list", "本机 IP 不在白名单中");
const MP_LIST: BilingualText = text(
    "add this machine's outgoing IP to the app's allow-list at mp.weixin.qq.com (takes 5-10 min)",
    "请在 mp.weixin.qq.com 把本机的出口 IP 加入该应用的白名单（5 至 10 分钟生效）",
);
const MP_LIST_IP: BilingualText = text(
    "WeChat saw IP {ip}; add it to the IP allow-list of app {app} at mp.weixin.qq.com (takes 5-10 min)",
    "微信看到的 IP 是 {ip}；请在 mp.weixin.qq.com 把它加入 {app} 的 IP 白名单（5 至 10 分钟生效）",
);
const TICKET_LIST: BilingualText = text(
    "add this machine's outgoing IP to the app's allow-list at mp.weixin.qq.com, or for an account that has authorised \
     a third-party platform to that one's at open.weixin.qq.com (takes 5-10 min)",
    "请在 mp.weixin.qq.com 把本机的出口 IP 加入该应用的白名单；若是授权给第三方平台的账号，请在 open.weixin.qq.com \
     加入该平台的白名单（5 至 10 分钟生效）",
);
const TICKET_LIST_IP: BilingualText = text(
    "WeChat saw IP {ip}; add it to the IP allow-list of app {app} at mp.weixin.qq.com, or for an account that has \
     authorised a third-party platform to that one's at open.weixin.qq.com (takes 5-10 min)",
    "微信看到的 IP 是 {ip}；请在 mp.weixin.qq.com 把它加入 {app} 的 IP 白名单；若是授权给第三方平台的账号，请在 \
     open.weixin.qq.com 加入该平台的白名单（5 至 10 分钟生效）",
);
const COMPONENT_LIST: BilingualText = text(
    "add this machine's outgoing IP to the third-party platform's allow-list at open.weixin.qq.com (takes 5-10 min)",
    "请在 open.weixin.qq.com 把本机的出口 IP 加入该第三方平台的白名单（5 至 10 分钟生效）",
);
const COMPONENT_LIST_IP: BilingualText = text(
    "WeChat saw IP {ip}; add it to the allow-list of the third-party platform at open.weixin.qq.com (takes 5-10 min)",
    "微信看到的 IP 是 {ip}；请在 open.weixin.qq.com 把它加入第三方平台的白名单（5 至 10 分钟生效）",
);
const DAY_IS_OVER: BilingualText = text("daily quota used up", "当日调用次数已用完");
const TOO_MANY: BilingualText = text("too many calls this minute", "本分钟调用过于频繁");
const AT_ONCE: BilingualText = text("too many calls at once", "并发调用过多");
const RETIRED: BilingualText = text("retired entry address", "接入地址已停用");
const UNPIN: BilingualText = text(
    "remove pinned WeChat addresses from /etc/hosts, proxies and DNS caches",
    "请从 /etc/hosts、代理和 DNS 缓存中去掉写死的微信地址",
);
const ASK_AT_MP: BilingualText =
    text("ask at mp.weixin.qq.com what happened to the account", "请到 mp.weixin.qq.com 了解账号的情况");
const BARRED: BilingualText = text("the interface is barred for the account", "该账号的此接口已被封禁");
const READ_NOTICE: BilingualText = text(
    "read the notice at mp.weixin.qq.com; WeChat calls it a penalty",
    "请查看 mp.weixin.qq.com 的通知；微信称之为处罚",
);
const CONFIRM: BilingualText =
    text("let the account's administrator confirm the request on their phone", "请账号管理员在手机上确认");
const TALK: BilingualText = text("talk to the account's administrator", "请与账号管理员沟通");
const TOKEN_REFUSED: BilingualText =
    text("the access token was refused for this call", "本次调用所用的 access_token 被拒绝");
const TICKET_TOKEN: BilingualText = text(
    "nothing at first: the access token is verified, and this is asked again. If it stays, another program fetches \
     tokens for this app, or an account of this type has no such ticket (a mini program has no jsapi_ticket). The \
     AppSecret is right: do not reset it",
    "先不用处理：会自动核验 access_token 并重试。若持续出现，要么有其他程序在取该应用的 token，要么该类型的账号没有这种票据\
     （小程序没有 jsapi_ticket）。AppSecret 没有问题，不要重置",
);
const PROBE_REFUSED: BilingualText = text("the token is not accepted", "token 不被接受");
const PROBE_RENEWS: BilingualText = text("nothing; the token is renewed", "无需处理，会自动续期");
const COMPONENT_REFUSED: BilingualText =
    text("the component's token was refused for this call", "本次调用所用的 component_access_token 被拒绝");
const COMPONENT_TOKEN: BilingualText = text(
    "nothing at first: the component's token is looked into, and this is asked again. If it stays, another program \
     fetches component tokens for this third-party platform: find it. The secret and the refresh token are right",
    "先不用处理：会自动核验 component_access_token 并重试。若持续出现，说明有其他程序在取该第三方平台的 \
     component_access_token，请找出它。AppSecret 和 refresh token 都没有问题",
);
const AUTHORISE_AGAIN: BilingualText = text(
    "ask the merchant to authorise again, and put the new refresh token in place",
    "请商户重新授权，并换上新的 refresh token",
);
const NEXT_TICKET: BilingualText = text(
    "nothing, if WeChat's pushes arrive: it sends a ticket every 10 minutes, and a new one is tried at once; else see \
     that the receiver of its pushes hands them on",
    "只要能收到微信的推送就无需处理：微信每 10 分钟推送一次，新票据会立即试用；否则请检查接收推送的程序是否转交",
);
const WECOM_SECRET: BilingualText = text(
    "put the secret of this very app in place: each app of a corporation has its own, at work.weixin.qq.com under \
     application management",
    "请换上这个应用自己的 Secret：同一企业的每个应用各有一个，见 work.weixin.qq.com 的“应用管理”",
);
const WECOM_BLOCKED: BilingualText = text("called too often, blocked for a while", "调用过于频繁，被暂时拦截");
const WECOM_WAIT: BilingualText = text(
    "nothing: it is tried again after a minute, and each time it is blocked again after twice as long, an hour at most. \
     If it comes often, find the other program that calls this interface for the same corporation",
    "无需处理：一分钟后自动重试，若再次被拦截则等待时间加倍，最长一小时。若经常出现，请找出为同一企业频繁调用此接口的其他程序",
);
const WECOM_IPS: BilingualText = text(
    "add this machine's outgoing IP to the app's trusted IPs at work.weixin.qq.com (application management, the app, \
     trusted IPs of the enterprise)",
    "请在 work.weixin.qq.com 的“应用管理”里打开该应用，把本机的出口 IP 加入“企业可信IP”",
);
const WECOM_IPS_IP: BilingualText = text(
    "WeCom saw IP {ip}; add it to the app's trusted IPs at work.weixin.qq.com, corp {app} (application management, the app, \
     trusted IPs of the enterprise)",
    "企业微信看到的 IP 是 {ip}；请在 work.weixin.qq.com （企业 {app}）的“应用管理”里打开该应用，把它加入“企业可信IP”",
);
const WECOM_NO_RIGHT: BilingualText = text("the app has no right to this interface", "该应用没有此接口的权限");

/// Every code that the platforms' pages name for these calls, or that was seen there.
pub const ROWS: &[ErrcodeRow] = &[
    // Official accounts and mini programs: access tokens.
    row(MP_ALL, -1, Class::Retry, BUSY, NOTHING, TOKEN_PAGE),
    row(MP_TOKENS, 40001, SLOW, WRONG_SECRET, PUT_SECRET, TOKEN_PAGE).asking_for_secret(),
    row(MP_TOKENS, 40125, SLOW, WRONG_SECRET, PUT_SECRET, TOKEN_PAGE).asking_for_secret(),
    row(MP_TOKENS, 40002, Class::Internal, BAD_GRANT, REPORT_BUG, TOKEN_PAGE),
    row(MP_TOKENS, 43002, Class::Internal, MUST_POST, REPORT_BUG, TOKEN_PAGE),
    row(MP_TOKENS, 41002, Class::Internal, NO_APPID, REPORT_BUG, TOKEN_PAGE),
    row(MP_TOKENS, 41004, Class::Internal, NO_SECRET, REPORT_BUG, TOKEN_PAGE),
    row(MP_FETCHES, 43003, SLOW, NEEDS_HTTPS, BASE_URL_HTTPS, COMMON_PAGE),
    row(MP_FETCHES, 40066, SLOW, BAD_URL, BASE_URL, SHOP_PAGE),
    row(MP_TOKENS, 40013, SLOW, UNKNOWN_APPID, CORRECT_APPID, TOKEN_PAGE),
    row(MP_TOKENS, 40164, SOON, NOT_LISTED, MP_LIST, TOKEN_PAGE).with_ip(MP_LIST_IP),
    row(MP_TOKENS, 61004, SOON, NOT_LISTED, MP_LIST, COMMON_PAGE).with_ip(MP_LIST_IP),
    row(MP_TOKENS, 45035, SOON, NOT_LISTED, MP_LIST, SHOP_PAGE).with_ip(MP_LIST_IP),
    row(
        MP_TOKENS,
        40243,
        SLOW,
        text("app secret frozen", "AppSecret 已冻结"),
        text(
            "unfreeze the secret at mp.weixin.qq.com (takes about 10 min)",
            "请在 mp.weixin.qq.com 解冻 AppSecret（约 10 分钟生效）",
        ),
        TOKEN_PAGE,
    ),
    row(
        MP_CLASSIC,
        45009,
        NEXT_DAY,
        DAY_IS_OVER,
        text(
            "wait for the next day, clear the quota (clear_quota/v2), or use the stable_token endpoint, which has its own",
            "请等到次日，或清零次数（clear_quota/v2），或改用额度独立的 stable_token 接口",
        ),
        TOKEN_PAGE,
    ),
    row(
        MP_STABLE,
        45009,
        NEXT_DAY,
        DAY_IS_OVER,
        text(
            "wait for the next day, or clear the quota (clear_quota/v2, 10 times a month); then find the other program \
             that fetches tokens for this app: this server alone does not come near the quota",
            "请等到次日，或清零次数（clear_quota/v2，每月 10 次）；然后找出还有哪个程序在取该应用的 token：仅本服务远远用不完这个额度",
        ),
        TOKEN_PAGE,
    ),
    row(MP_FETCHES, 45011, wait(MINUTE_MS), TOO_MANY, NOTHING_FOR_A_MINUTE, TOKEN_PAGE),
    row(MP_ALL, 48017, Class::Retry, RETIRED, UNPIN, NOTICE_48017),
    row(
        MP_TOKENS,
        50002,
        SLOW,
        text("account frozen, cancelled or moved", "账号已冻结、注销或迁移"),
        ASK_AT_MP,
        COMMON_PAGE,
    ),
    row(
        MP_TOKENS,
        50004,
        SLOW,
        text("barred from the token interface", "获取 token 的接口已被封禁"),
        READ_NOTICE,
        PENALTY_SEEN,
    ),
    row(MP_TOKENS, 50007, SLOW, text("account frozen", "账号已冻结"), ASK_AT_MP, API_GUIDE),
    row(MP_FETCHES, 48004, SLOW, BARRED, READ_NOTICE, COMMON_PAGE),
    row(
        MP_TOKENS,
        61024,
        SLOW,
        text("a component account", "这是第三方平台账号"),
        text(
            "this account is a third-party platform: give it kind = \"component\" in the configuration",
            "该账号是第三方平台，请在配置中写 kind = \"component\"",
        ),
        API_GUIDE,
    ),
    row(
        MP_TOKENS,
        89501,
        wait(10 * MINUTE_MS),
        text("the administrator has been asked to confirm our IP", "已请管理员确认本机 IP"),
        CONFIRM,
        RISK_CODES,
    ),
    row(
        MP_TOKENS,
        89503,
        wait(10 * MINUTE_MS),
        text("the administrator must confirm our IP", "本机 IP 需要管理员确认"),
        text(
            "let the account's administrator confirm the request on their phone, or use the IP allow-list",
            "请账号管理员在手机上确认，或改用 IP 白名单",
        ),
        RISK_CODES,
    ),
    row(
        MP_TOKENS,
        89507,
        wait(HOUR_MS),
        text("the administrator refused our IP, for an hour", "管理员拒绝了本机 IP，一小时内有效"),
        TALK,
        RISK_CODES,
    ),
    row(
        MP_TOKENS,
        89506,
        wait(24 * HOUR_MS),
        text("the administrator refused our IP, for a day", "管理员拒绝了本机 IP，一天内有效"),
        TALK,
        RISK_CODES,
    ),
    // Their tickets, also those of accounts that have authorised a component.
    row(MP_TICKET, 40001, SLOW, TOKEN_REFUSED, TICKET_TOKEN, TICKET_PAGE).refusing_token(),
    row(MP_TICKET, 40014, SLOW, TOKEN_REFUSED, TICKET_TOKEN, COMMON_PAGE).refusing_token(),
    row(MP_TICKET, 41001, SLOW, TOKEN_REFUSED, TICKET_TOKEN, COMMON_PAGE).refusing_token(),
    row(MP_TICKET, 42001, SLOW, TOKEN_REFUSED, TICKET_TOKEN, COMMON_PAGE).refusing_token(),
    row(MP_TICKET, 40164, SOON, NOT_LISTED, TICKET_LIST, COMMON_PAGE).with_ip(TICKET_LIST_IP),
    row(MP_TICKET, 61004, SOON, NOT_LISTED, TICKET_LIST, COMMON_PAGE).with_ip(TICKET_LIST_IP),
    row(
        MP_TICKET,
        45009,
        NEXT_DAY,
        text("the ticket's own daily quota is used up", "票据接口当日的调用次数已用完"),
        text(
            "wait for the next day, or clear the quota (clear_quota/v2); then find the other program that fetches this \
             ticket. The ticket has a quota of its own: another token endpoint does not help",
            "请等到次日，或清零次数（clear_quota/v2）；然后找出还有哪个程序在取这个票据。票据接口有自己的额度，换用其他 token 接口没有用",
        ),
        TICKET_PAGE,
    ),
    row(
        MP_TICKET,
        48001,
        SLOW,
        text("the account has no right to this ticket", "该账号没有获取此票据的权限"),
        text(
            "only you can change that: see at mp.weixin.qq.com which interfaces the account has (an unverified one lacks \
             some), or take the ticket out of this app's tickets. Token and secret are right",
            "只能由您处理：请在 mp.weixin.qq.com 查看该账号的接口权限（未认证的账号缺少一部分），或从该应用的 tickets 中去掉此票据。\
             token 和 AppSecret 都没有问题",
        ),
        COMMON_PAGE,
    ),
    row(
        MP_TICKET,
        61007,
        SLOW,
        text("the account has not granted this interface", "该账号没有把此接口授权给第三方平台"),
        text(
            "ask the merchant to grant the permission set with web pages (网页服务) to the third-party platform, or take \
             the ticket out of this app's tickets",
            "请商户把包含网页服务的权限集授权给第三方平台，或从该应用的 tickets 中去掉此票据",
        ),
        COMMON_PAGE,
    ),
    // The read on which their tokens are tried.
    row(MP_PROBE, 40001, SLOW, PROBE_REFUSED, PROBE_RENEWS, COMMON_PAGE).refusing_token(),
    row(MP_PROBE, 40014, SLOW, PROBE_REFUSED, PROBE_RENEWS, COMMON_PAGE).refusing_token(),
    row(MP_PROBE, 42001, SLOW, PROBE_REFUSED, PROBE_RENEWS, COMMON_PAGE).refusing_token(),
    row(MP_PROBE, 45009, NEXT_DAY, DAY_IS_OVER, PROBE_QUOTA, PROBE_SEEN),
    row(MP_PROBE, 45011, wait(MINUTE_MS), TOO_MANY, PROBE_QUOTA, PROBE_SEEN),
    row(
        MP_PROBE,
        48001,
        SLOW,
        text("the account has no right to this call", "该账号没有此接口的权限"),
        PROBE_RIGHT,
        COMMON_PAGE,
    ),
    row(
        MP_PROBE,
        61007,
        SLOW,
        text("the account has not granted this interface", "该账号没有把此接口授权给第三方平台"),
        PROBE_RIGHT,
        COMMON_PAGE,
    ),
    row(
        MP_READS,
        50002,
        SLOW,
        text("account frozen, cancelled or moved", "账号已冻结、注销或迁移"),
        ASK_AT_MP,
        COMMON_PAGE,
    ),
    // Third-party platforms: their own token.
    row(COMPONENT_ALL, -1, Class::Retry, BUSY, NOTHING, COMPONENT_PAGE),
    row(COMPONENT_ITSELF, 40001, SLOW, WRONG_SECRET, COMPONENT_SECRET, COMPONENT_PAGE).asking_for_secret(),
    row(COMPONENT_ITSELF, 40125, SLOW, WRONG_SECRET, COMPONENT_SECRET, COMPONENT_PAGE).asking_for_secret(),
    row(COMPONENT_ITSELF, 40243, SLOW, text("app secret frozen", "AppSecret 已冻结"), COMPONENT_FROZEN, API_GUIDE),
    row(COMPONENT_ITSELF, 41004, Class::Internal, NO_SECRET, REPORT_BUG, COMPONENT_PAGE),
    row(COMPONENT_ALL, 41018, Class::Internal, NO_APPID, REPORT_BUG, COMMON_PAGE),
    row(COMPONENT_ALL, 43002, Class::Internal, MUST_POST, REPORT_BUG, COMMON_PAGE),
    row(COMPONENT_ALL, 47001, Class::Internal, NOT_JSON, REPORT_BUG, COMPONENT_PAGE),
    row(COMPONENT_ALL, 43003, SLOW, NEEDS_HTTPS, BASE_URL_HTTPS, COMMON_PAGE),
    row(COMPONENT_ALL, 40066, SLOW, BAD_URL, BASE_URL, SHOP_PAGE),
    row(COMPONENT_ALL, 40013, SLOW, UNKNOWN_APPID, CORRECT_APPID, COMMON_PAGE),
    row(
        COMPONENT_ALL,
        61011,
        SLOW,
        text("not a third-party platform", "不是有效的第三方平台"),
        text(
            "correct the component's appid in the configuration, and see at open.weixin.qq.com that the third-party \
             platform is in force",
            "请改正配置中第三方平台的 appid，并在 open.weixin.qq.com 确认该平台处于正常状态",
        ),
        COMPONENT_PAGE,
    ),
    row(COMPONENT_ALL, 61004, SOON, NOT_LISTED, COMPONENT_LIST, COMPONENT_PAGE).with_ip(COMPONENT_LIST_IP),
    row(COMPONENT_ALL, 40164, SOON, NOT_LISTED, COMPONENT_LIST, COMMON_PAGE).with_ip(COMPONENT_LIST_IP),
    row(
        COMPONENT_ITSELF,
        61005,
        wait(10 * MINUTE_MS),
        text("verify ticket expired", "verify ticket 已过期"),
        NEXT_TICKET,
        COMPONENT_PAGE,
    ),
    row(
        COMPONENT_ITSELF,
        61006,
        wait(10 * MINUTE_MS),
        text("verify ticket invalid", "verify ticket 无效"),
        text(
            "see that the ticket is this component's: one that WeChat pushes for another component is refused like this. \
             It sends a ticket every 10 minutes, and a new one is tried at once",
            "请确认票据属于这个第三方平台：推送给其他第三方平台的票据也会这样被拒绝。微信每 10 分钟推送一次，新票据会立即试用",
        ),
        COMPONENT_PAGE,
    ),
    row(COMPONENT_ALL, 45009, NEXT_DAY, DAY_IS_OVER, COMPONENT_QUOTA, COMPONENT_PAGE),
    row(COMPONENT_ALL, 45011, wait(MINUTE_MS), TOO_MANY, NOTHING_FOR_A_MINUTE, COMMON_PAGE),
    row(
        COMPONENT_ALL,
        48001,
        SLOW,
        text("the third-party platform has no right to this call", "该第三方平台没有此接口的权限"),
        text(
            "see at open.weixin.qq.com that the third-party platform is published and has its permission sets",
            "请在 open.weixin.qq.com 确认该第三方平台已全网发布，并具有相应的权限集",
        ),
        COMPONENT_PAGE,
    ),
    row(COMPONENT_ALL, 48017, Class::Retry, RETIRED, UNPIN, NOTICE_48017),
    // The tokens of accounts that have authorised them.
    row(COMPONENT_AUTHORIZER, 40001, SLOW, COMPONENT_REFUSED, COMPONENT_TOKEN, AUTHORIZER_PAGE).refusing_token(),
    row(COMPONENT_AUTHORIZER, 40014, SLOW, COMPONENT_REFUSED, COMPONENT_TOKEN, COMMON_PAGE).refusing_token(),
    row(COMPONENT_AUTHORIZER, 41001, SLOW, COMPONENT_REFUSED, COMPONENT_TOKEN, COMMON_PAGE).refusing_token(),
    row(COMPONENT_AUTHORIZER, 42001, SLOW, COMPONENT_REFUSED, COMPONENT_TOKEN, COMMON_PAGE).refusing_token(),
    row(
        COMPONENT_AUTHORIZER,
        61003,
        SLOW,
        text("the account has not authorised this component", "该账号没有授权给此第三方平台"),
        AUTHORISE_AGAIN,
        source("developers.weixin.qq.com/community 0000c454, answer by staff", "2025-02"),
    )
    .asking_for_secret(),
    row(
        COMPONENT_AUTHORIZER,
        61023,
        SLOW,
        text("refresh token invalid", "refresh token 无效"),
        AUTHORISE_AGAIN,
        source("developers.weixin.qq.com/community 0000a2a4, answer by staff", "2024-06"),
    )
    .asking_for_secret(),
    row(
        COMPONENT_AUTHORIZER,
        50002,
        SLOW,
        text("account frozen, cancelled or moved", "账号已冻结、注销或迁移"),
        ASK_AT_MP,
        COMMON_PAGE,
    ),
    // WeCom: tokens, tickets, and the read on which tokens are tried.
    row(WECOM_ALL, -1, Class::Retry, text("WeCom is busy", "企业微信系统繁忙"), NOTHING, WECOM_PAGE),
    row(WECOM_TOKEN, 40001, SLOW, WECOM_WRONG_SECRET, WECOM_SECRET, WECOM_PAGE).asking_for_secret(),
    row(WECOM_TOKEN, 40091, SLOW, WECOM_WRONG_SECRET, WECOM_SECRET, WECOM_PAGE).asking_for_secret(),
    row(WECOM_TOKEN, 40013, SLOW, text("unknown corpid", "corpid 不存在"), WECOM_CORPID, WECOM_PAGE),
    row(WECOM_TOKEN, 2000002, SLOW, text("unknown corpid", "corpid 不存在"), WECOM_CORPID, WECOM_PAGE),
    row(WECOM_TOKEN, 41002, Class::Internal, text("corpid missing", "缺少 corpid"), REPORT_BUG, WECOM_PAGE),
    row(WECOM_TOKEN, 41004, Class::Internal, NO_SECRET, REPORT_BUG, WECOM_PAGE),
    row(WECOM_ALL, 45009, BLOCK, WECOM_BLOCKED, WECOM_WAIT, WECOM_BLOCK),
    row(WECOM_ALL, 45033, Class::Retry, AT_ONCE, NOTHING, WECOM_PAGE),
    row(
        WECOM_ALL,
        60020,
        SOON,
        text("our IP is not among the trusted ones", "本机 IP 不在企业可信IP中"),
        WECOM_IPS,
        WECOM_ADDRESS,
    )
    .with_ip(WECOM_IPS_IP),
    row(
        WECOM_ALL,
        48002,
        SLOW,
        WECOM_NO_RIGHT,
        text(
            "see at work.weixin.qq.com, application management, what the app may do",
            "请在 work.weixin.qq.com 的“应用管理”中查看该应用的权限",
        ),
        WECOM_PAGE,
    ),
    row(
        WECOM_ALL,
        301007,
        SLOW,
        text("the corporation has been dissolved", "企业已解散"),
        text("take the app out of the configuration", "请从配置中去掉该应用"),
        WECOM_PAGE,
    ),
    row(WECOM_READS, 40001, SLOW, TOKEN_REFUSED, WECOM_TICKET_TOKEN, WECOM_PAGE).refusing_token(),
    row(
        WECOM_READS,
        40014,
        SLOW,
        TOKEN_REFUSED,
        WECOM_TICKET_TOKEN,
        source("path/90313; wecom-sdk issue 22", "2024-11"),
    )
    .refusing_token(),
    row(WECOM_TICKET, 41001, SLOW, TOKEN_REFUSED, WECOM_TICKET_TOKEN, WECOM_PAGE).refusing_token(),
    row(WECOM_READS, 42001, SLOW, TOKEN_REFUSED, WECOM_TICKET_TOKEN, WECOM_PAGE).refusing_token(),
    row(
        WECOM_TICKET,
        301002,
        SLOW,
        WECOM_NO_RIGHT,
        text(
            "this is the token of another app of the corporation: see that agent and secret belong together",
            "所用的是同一企业另一个应用的 token：请确认 agent 与 Secret 相对应",
        ),
        WECOM_PAGE,
    ),
    // QQ mini programs.
    row(QQ_TOKEN, -1, Class::Retry, text("QQ is busy", "QQ 系统繁忙"), NOTHING, QQ_PAGE),
    row(QQ_TOKEN, 40001, SLOW, WRONG_SECRET, QQ_SECRET, QQ_PAGE).asking_for_secret(),
    row(QQ_TOKEN, 40125, SLOW, WRONG_SECRET, QQ_SECRET, QQ_AS_CLASSIC).asking_for_secret(),
    row(QQ_TOKEN, 40002, Class::Internal, BAD_GRANT, REPORT_BUG, QQ_PAGE),
    row(QQ_TOKEN, 40013, SLOW, UNKNOWN_APPID, CORRECT_APPID, QQ_PAGE),
    row(QQ_TOKEN, 41002, Class::Internal, NO_APPID, REPORT_BUG, QQ_AS_CLASSIC),
    row(QQ_TOKEN, 41004, Class::Internal, NO_SECRET, REPORT_BUG, QQ_AS_CLASSIC),
    row(
        QQ_TOKEN,
        45009,
        NEXT_DAY,
        DAY_IS_OVER,
        text(
            "wait for the next day, and find the other program that fetches tokens for this app",
            "请等到次日，并找出还有哪个程序在取该应用的 token",
        ),
        QQ_AS_CLASSIC,
    ),
    row(QQ_TOKEN, 45011, wait(MINUTE_MS), TOO_MANY, NOTHING_FOR_A_MINUTE, QQ_AS_CLASSIC),
    row(
        QQ_TOKEN,
        40164,
        SOON,
        NOT_LISTED,
        text(
            "add this machine's outgoing IP to the mini program's allow-list at q.qq.com",
            "请在 q.qq.com 把本机的出口 IP 加入该小程序的白名单",
        ),
        QQ_AS_CLASSIC,
    )
    .with_ip(text(
        "QQ saw IP {ip}; add it to the IP allow-list of app {app} at q.qq.com",
        "QQ 看到的 IP 是 {ip}；请在 q.qq.com 把它加入 {app} 的 IP 白名单",
    )),
    // Feishu.
    row(
        FEISHU_TOKEN,
        10014,
        SLOW,
        text("unknown app_id, or wrong app secret", "app_id 不存在，或 App Secret 不正确"),
        text(
            "compare app_id and App Secret with the app's page of credentials at open.feishu.cn",
            "请与 open.feishu.cn 开发者后台该应用的“凭证与基础信息”核对 App ID 和 App Secret",
        ),
        FEISHU_PAGE,
    )
    .asking_for_secret(),
    row(
        FEISHU_TOKEN,
        10003,
        SLOW,
        text("app_id or app secret is empty or malformed", "app_id 或 App Secret 为空或格式有误"),
        text(
            "see that app_id is that of the app's page at open.feishu.cn (cli_...), and that the secret has nothing \
             around it",
            "请确认 app_id 与 open.feishu.cn 开发者后台一致（cli_ 开头），且 App Secret 前后没有多余字符",
        ),
        FEISHU_PAGE,
    )
    .asking_for_secret(),
    row(
        FEISHU_TOKEN,
        10012,
        SLOW,
        text("app_ticket wanted: a store app", "缺少 app_ticket：这是商店应用"),
        text(
            "use an app of your own (自建应用): this server cannot ask for store apps",
            "请使用企业自建应用：本服务不支持商店应用",
        ),
        FEISHU_SDK,
    ),
    row(
        FEISHU_TOKEN,
        10013,
        SLOW,
        text("the app is not in force", "应用状态异常"),
        text(
            "see at open.feishu.cn that the app is published and enabled for this enterprise",
            "请在 open.feishu.cn 开发者后台确认该应用已发布，且在本企业已启用",
        ),
        FEISHU_SDK,
    ),
    row(
        FEISHU_TOKEN,
        99991400,
        wait(MINUTE_MS),
        text("too many calls", "调用过于频繁"),
        text(
            "nothing; it is tried again after a minute. If it comes often, find the other program that calls this \
             interface for the same app",
            "无需处理，一分钟后自动重试。若经常出现，请找出为同一应用频繁调用此接口的其他程序",
        ),
        FEISHU_RATE,
    ),
    row(
        FEISHU_TOKEN,
        99991403,
        SLOW,
        text("the month's quota is used up", "当月的 API 调用额度已用完"),
        text(
            "wait for the next month or take a larger edition of Feishu; then find the program that calls most",
            "请等到下个月或升级飞书版本；然后找出调用最多的程序",
        ),
        FEISHU_MONTH,
    ),
    row(FEISHU_TOKEN, 2200, Class::Retry, text("Feishu has an internal error", "飞书内部错误"), NOTHING, FEISHU_SEEN),
    row(FEISHU_TOKEN, 1500, Class::Retry, text("Feishu has an internal error", "飞书内部错误"), NOTHING, FEISHU_PAGE),
];

const PROBE_QUOTA: BilingualText = text(
    "the quota of get_api_domain_ip is used up, so another program of yours calls it too; clients' reports are still \
     looked into, and probe_every_s = 0 switches the regular tries off",
    "get_api_domain_ip 的额度已用完，说明还有其他程序在调用它；客户端的上报仍会核验，probe_every_s = 0 可关闭定期核验",
);
/// Of any code that keeps the read from being answered.
pub const PROBE_RIGHT: BilingualText = text(
    "this account may not make that call; clients' reports are still looked into, and probe_every_s = 0 switches the \
     regular tries off",
    "该账号不能调用此接口；客户端的上报仍会核验，probe_every_s = 0 可关闭定期核验",
);
const COMPONENT_SECRET: BilingualText = text(
    "put the third-party platform's current secret in place (open.weixin.qq.com)",
    "请换上第三方平台当前的 AppSecret（见 open.weixin.qq.com）",
);
const COMPONENT_FROZEN: BilingualText = text(
    "unfreeze the third-party platform's secret at open.weixin.qq.com (takes about 10 min)",
    "请在 open.weixin.qq.com 解冻第三方平台的 AppSecret（约 10 分钟生效）",
);
const COMPONENT_QUOTA: BilingualText = text(
    "wait for the next day; then find the other program that fetches this token: this server alone does not come near \
     the quota",
    "请等到次日；然后找出还有哪个程序在取这个 token：仅本服务远远用不完这个额度",
);
const WECOM_WRONG_SECRET: BilingualText = text("wrong secret", "Secret 不正确");
const WECOM_CORPID: BilingualText = text(
    "correct the corpid: it is at work.weixin.qq.com under my enterprise, at the bottom",
    "请改正 corpid：见 work.weixin.qq.com 的“我的企业”页面底部",
);
const WECOM_TICKET_TOKEN: BilingualText = text(
    "nothing at first: the access token is verified, and this is asked again. If it stays, see that agent and secret \
     belong to the same app. The secret is right: do not reset it",
    "先不用处理：会自动核验 access_token 并重试。若持续出现，请确认 agent 与 Secret 属于同一个应用。Secret 没有问题，不要重置",
);
const QQ_SECRET: BilingualText = text(
    "put the app's current secret in place (q.qq.com, development settings)",
    "请换上当前的 AppSecret（见 q.qq.com 的“开发设置”）",
);

#[cfg(test)]
mod tests;
