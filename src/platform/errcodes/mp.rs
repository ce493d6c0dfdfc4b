//! Error codes of official accounts and mini programs (`api.weixin.qq.com`). A new code is a new row.

use super::{
    API_GUIDE, ASK_AT_MP, BAD_GRANT, BAD_URL, BASE_URL, BASE_URL_HTTPS, BUSY, BilingualText, COMMON_PAGE,
    CORRECT_APPID, DAY_IS_OVER, ErrcodeRow, ErrcodeSource, ErrcodeTable, HOUR_MS, MINUTE_MS, MUST_POST, NEEDS_HTTPS,
    NEXT_DAY, NO_APPID, NO_SECRET, NOT_LISTED, NOTHING, NOTHING_FOR_A_MINUTE, NOTICE_48017, PROBE_RIGHT, REPORT_BUG,
    RETIRED, SHOP_PAGE, SLOW, SOON, TOKEN_REFUSED, TOO_MANY, UNKNOWN_APPID, UNPIN, WRONG_SECRET, row, source, text,
    wait,
};
use crate::platform::ApiEndpoint::{self, Probe, StableToken, Ticket, Token};
use crate::platform::failure::Class;

pub static ERRCODES: ErrcodeTable = ErrcodeTable { rows: ROWS, advice_on_unknown: UNKNOWN };

// Which calls.
const TOKENS: &[ApiEndpoint] = &[Token, StableToken];
const CLASSIC: &[ApiEndpoint] = &[Token];
const STABLE: &[ApiEndpoint] = &[StableToken];
const TICKET: &[ApiEndpoint] = &[Ticket];
const PROBE: &[ApiEndpoint] = &[Probe];
const READS: &[ApiEndpoint] = &[Ticket, Probe];
const FETCHES: &[ApiEndpoint] = &[Token, StableToken, Ticket];
const ALL: &[ApiEndpoint] = &[Token, StableToken, Ticket, Probe];

// Where it is known from.
const TOKEN_PAGE: ErrcodeSource = source("developers.weixin.qq.com: getAccessToken, getStableAccessToken", "2026-11");
const RISK_CODES: ErrcodeSource = source("getAccessToken's page, and nilorg/go-wechat issue 23", "2026-11");
const PENALTY_SEEN: ErrcodeSource = source("developers.weixin.qq.com/community, answers on errcode 50004", "2026-11");
const TICKET_PAGE: ErrcodeSource =
    source("developers.weixin.qq.com/doc/service: api_getticket; node-webot/wechat-api issue 250", "2026-11");
const PROBE_SEEN: ErrcodeSource = source("developers.weixin.qq.com: get_api_domain_ip; community 000a4ca1", "2022");

/// Where to look up a code that has no row.
const UNKNOWN: BilingualText = text(
    "look the errcode up in WeChat's documentation; the rid can be queried at mp.weixin.qq.com",
    "请在微信文档中查询该错误码；rid 可在 mp.weixin.qq.com 查询",
);

const ROWS: &[ErrcodeRow] = &[
    // Access tokens.
    row(ALL, -1, Class::Retry, BUSY, NOTHING, TOKEN_PAGE),
    row(TOKENS, 40001, SLOW, WRONG_SECRET, PUT_SECRET, TOKEN_PAGE).asking_for_secret(),
    row(TOKENS, 40125, SLOW, WRONG_SECRET, PUT_SECRET, TOKEN_PAGE).asking_for_secret(),
    row(TOKENS, 40002, Class::Internal, BAD_GRANT, REPORT_BUG, TOKEN_PAGE),
    row(TOKENS, 43002, Class::Internal, MUST_POST, REPORT_BUG, TOKEN_PAGE),
    row(TOKENS, 41002, Class::Internal, NO_APPID, REPORT_BUG, TOKEN_PAGE),
    row(TOKENS, 41004, Class::Internal, NO_SECRET, REPORT_BUG, TOKEN_PAGE),
    row(FETCHES, 43003, SLOW, NEEDS_HTTPS, BASE_URL_HTTPS, COMMON_PAGE),
    row(FETCHES, 40066, SLOW, BAD_URL, BASE_URL, SHOP_PAGE),
    row(TOKENS, 40013, SLOW, UNKNOWN_APPID, CORRECT_APPID, TOKEN_PAGE),
    row(TOKENS, 40164, SOON, NOT_LISTED, MP_LIST, TOKEN_PAGE).with_ip(MP_LIST_IP),
    row(TOKENS, 61004, SOON, NOT_LISTED, MP_LIST, COMMON_PAGE).with_ip(MP_LIST_IP),
    row(TOKENS, 45035, SOON, NOT_LISTED, MP_LIST, SHOP_PAGE).with_ip(MP_LIST_IP),
    row(
        TOKENS,
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
        CLASSIC,
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
        STABLE,
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
    row(FETCHES, 45011, wait(MINUTE_MS), TOO_MANY, NOTHING_FOR_A_MINUTE, TOKEN_PAGE),
    row(ALL, 48017, Class::Retry, RETIRED, UNPIN, NOTICE_48017),
    row(
        TOKENS,
        50002,
        SLOW,
        text("account frozen, cancelled or moved", "账号已冻结、注销或迁移"),
        ASK_AT_MP,
        COMMON_PAGE,
    ),
    row(
        TOKENS,
        50004,
        SLOW,
        text("barred from the token interface", "获取 token 的接口已被封禁"),
        READ_NOTICE,
        PENALTY_SEEN,
    ),
    row(TOKENS, 50007, SLOW, text("account frozen", "账号已冻结"), ASK_AT_MP, API_GUIDE),
    row(FETCHES, 48004, SLOW, BARRED, READ_NOTICE, COMMON_PAGE),
    row(
        TOKENS,
        61024,
        SLOW,
        text("a component account", "这是第三方平台账号"),
        text(
            "this account is a third-party platform: give it platform = \"component\" in the configuration",
            "该账号是第三方平台，请在配置中写 platform = \"component\"",
        ),
        API_GUIDE,
    ),
    row(
        TOKENS,
        89501,
        wait(10 * MINUTE_MS),
        text("the administrator has been asked to confirm our IP", "已请管理员确认本机 IP"),
        CONFIRM,
        RISK_CODES,
    ),
    row(
        TOKENS,
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
        TOKENS,
        89507,
        wait(HOUR_MS),
        text("the administrator refused our IP, for an hour", "管理员拒绝了本机 IP，一小时内有效"),
        TALK,
        RISK_CODES,
    ),
    row(
        TOKENS,
        89506,
        wait(24 * HOUR_MS),
        text("the administrator refused our IP, for a day", "管理员拒绝了本机 IP，一天内有效"),
        TALK,
        RISK_CODES,
    ),
    // Tickets, also those of accounts that have authorised a component.
    row(TICKET, 40001, SLOW, TOKEN_REFUSED, TICKET_TOKEN, TICKET_PAGE).refusing_token(),
    row(TICKET, 40014, SLOW, TOKEN_REFUSED, TICKET_TOKEN, COMMON_PAGE).refusing_token(),
    row(TICKET, 41001, SLOW, TOKEN_REFUSED, TICKET_TOKEN, COMMON_PAGE).refusing_token(),
    row(TICKET, 42001, SLOW, TOKEN_REFUSED, TICKET_TOKEN, COMMON_PAGE).refusing_token(),
    row(TICKET, 40164, SOON, NOT_LISTED, TICKET_LIST, COMMON_PAGE).with_ip(TICKET_LIST_IP),
    row(TICKET, 61004, SOON, NOT_LISTED, TICKET_LIST, COMMON_PAGE).with_ip(TICKET_LIST_IP),
    row(
        TICKET,
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
        TICKET,
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
        TICKET,
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
    // The probe.
    row(PROBE, 40001, SLOW, PROBE_REFUSED, PROBE_RENEWS, COMMON_PAGE).refusing_token(),
    row(PROBE, 40014, SLOW, PROBE_REFUSED, PROBE_RENEWS, COMMON_PAGE).refusing_token(),
    row(PROBE, 42001, SLOW, PROBE_REFUSED, PROBE_RENEWS, COMMON_PAGE).refusing_token(),
    row(PROBE, 45009, NEXT_DAY, DAY_IS_OVER, PROBE_QUOTA, PROBE_SEEN),
    row(PROBE, 45011, wait(MINUTE_MS), TOO_MANY, PROBE_QUOTA, PROBE_SEEN),
    row(
        PROBE,
        48001,
        SLOW,
        text("the account has no right to this call", "该账号没有此接口的权限"),
        PROBE_RIGHT,
        COMMON_PAGE,
    ),
    row(
        PROBE,
        61007,
        SLOW,
        text("the account has not granted this interface", "该账号没有把此接口授权给第三方平台"),
        PROBE_RIGHT,
        COMMON_PAGE,
    ),
    row(
        READS,
        50002,
        SLOW,
        text("account frozen, cancelled or moved", "账号已冻结、注销或迁移"),
        ASK_AT_MP,
        COMMON_PAGE,
    ),
];

// Texts of several rows, and long ones.
const PUT_SECRET: BilingualText = text("put the app's current secret in place", "请换上当前的 AppSecret");
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
const BARRED: BilingualText = text("the interface is barred for the account", "该账号的此接口已被封禁");
const READ_NOTICE: BilingualText = text(
    "read the notice at mp.weixin.qq.com; WeChat calls it a penalty",
    "请查看 mp.weixin.qq.com 的通知；微信称之为处罚",
);
const CONFIRM: BilingualText =
    text("let the account's administrator confirm the request on their phone", "请账号管理员在手机上确认");
const TALK: BilingualText = text("talk to the account's administrator", "请与账号管理员沟通");
const TICKET_TOKEN: BilingualText = text(
    "nothing at first: the access token is verified, and the call is repeated. If it stays, another program fetches \
     tokens for this app, or an account of this type has no such ticket (a mini program has no jsapi_ticket). The \
     AppSecret is right: do not reset it",
    "先不用处理：会自动验证 access_token 并重试。若持续出现，要么有其他程序在取该应用的 token，要么该类型的账号没有这种票据\
     （小程序没有 jsapi_ticket）。AppSecret 没有问题，不要重置",
);
const PROBE_REFUSED: BilingualText = text("the token is not accepted", "token 不被接受");
const PROBE_RENEWS: BilingualText = text("nothing; the token is renewed", "无需处理，会自动续期");
const PROBE_QUOTA: BilingualText = text(
    "the quota of get_api_domain_ip is used up, so another program of yours calls it too; clients' reports are still \
     verified, and probe_every_s = 0 switches the regular probes off",
    "get_api_domain_ip 的额度已用完，说明还有其他程序在调用它；客户端的上报仍会验证，probe_every_s = 0 可关闭定期验证",
);
