//! Error codes of official accounts and mini programs (`api.weixin.qq.com`). A new code is a new row.

use super::*;
use crate::platform::ApiEndpoint::{Probe, StableToken, Ticket, Token};

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
    row(ALL, -1, RETRY, TOKEN_PAGE, BUSY),
    row(TOKENS, 40001, SLOW, TOKEN_PAGE, WRONG_SECRET).asking_for_secret().advise(PUT_SECRET),
    row(TOKENS, 40125, SLOW, TOKEN_PAGE, WRONG_SECRET).asking_for_secret().advise(PUT_SECRET),
    row(TOKENS, 40002, INTERNAL, TOKEN_PAGE, BAD_GRANT).advise(REPORT_BUG),
    row(TOKENS, 43002, INTERNAL, TOKEN_PAGE, MUST_POST).advise(REPORT_BUG),
    row(TOKENS, 41002, INTERNAL, TOKEN_PAGE, NO_APPID).advise(REPORT_BUG),
    row(TOKENS, 41004, INTERNAL, TOKEN_PAGE, NO_SECRET).advise(REPORT_BUG),
    row(FETCHES, 43003, SLOW, COMMON_PAGE, NEEDS_HTTPS).advise(BASE_URL_HTTPS),
    row(FETCHES, 40066, SLOW, SHOP_PAGE, BAD_URL).advise(BASE_URL),
    row(TOKENS, 40013, SLOW, TOKEN_PAGE, UNKNOWN_APPID).advise(CORRECT_APPID),
    row(TOKENS, 40164, SOON, TOKEN_PAGE, NOT_LISTED).with_ip(MP_LIST_IP).advise(MP_LIST),
    row(TOKENS, 61004, SOON, COMMON_PAGE, NOT_LISTED).with_ip(MP_LIST_IP).advise(MP_LIST),
    row(TOKENS, 45035, SOON, SHOP_PAGE, NOT_LISTED).with_ip(MP_LIST_IP).advise(MP_LIST),
    row(TOKENS, 40243, SLOW, TOKEN_PAGE, text("app secret frozen", "AppSecret 已冻结")).advise(text(
        "unfreeze the secret at mp.weixin.qq.com (takes about 10 min)",
        "请在 mp.weixin.qq.com 解冻 AppSecret（约 10 分钟生效）",
    )),
    row(CLASSIC, 45009, NEXT_DAY, TOKEN_PAGE, DAY_IS_OVER).advise(text(
        "wait for the next day, clear the quota (clear_quota/v2), or use the stable_token endpoint, which has its own",
        "请等到次日，或清零次数（clear_quota/v2），或改用额度独立的 stable_token 接口",
    )),
    row(STABLE, 45009, NEXT_DAY, TOKEN_PAGE, DAY_IS_OVER).advise(text(
        "wait for the next day, or clear the quota (clear_quota/v2, 10 times a month); then find the other program \
         that fetches tokens for this app: this server alone does not come near the quota",
        "请等到次日，或清零次数（clear_quota/v2，每月 10 次）；然后找出还有哪个程序在取该应用的 token：\
         仅本服务远远用不完这个额度",
    )),
    row(FETCHES, 45011, wait(MINUTE_MS), TOKEN_PAGE, TOO_MANY).advise(NOTHING_FOR_A_MINUTE),
    row(ALL, 48017, RETRY, NOTICE_48017, RETIRED).advise(UNPIN),
    row(TOKENS, 50002, SLOW, COMMON_PAGE, ACCOUNT_GONE).advise(ASK_AT_MP),
    row(TOKENS, 50004, SLOW, PENALTY_SEEN, BARRED_FROM_TOKENS).advise(READ_NOTICE),
    row(TOKENS, 50007, SLOW, API_GUIDE, text("account frozen", "账号已冻结")).advise(ASK_AT_MP),
    row(FETCHES, 48004, SLOW, COMMON_PAGE, BARRED).advise(READ_NOTICE),
    row(TOKENS, 61024, SLOW, API_GUIDE, text("a component account", "这是第三方平台账号")).advise(text(
        "this account is a third-party platform: give it platform = \"component\" in the configuration",
        "该账号是第三方平台，请在配置中写 platform = \"component\"",
    )),
    row(TOKENS, 89501, wait(10 * MINUTE_MS), RISK_CODES, IP_ASKED_FOR).advise(CONFIRM),
    row(TOKENS, 89503, wait(10 * MINUTE_MS), RISK_CODES, IP_UNCONFIRMED).advise(text(
        "let the account's administrator confirm the request on their phone, or use the IP allow-list",
        "请账号管理员在手机上确认，或改用 IP 白名单",
    )),
    row(TOKENS, 89507, wait(HOUR_MS), RISK_CODES, IP_REFUSED_AN_HOUR).advise(TALK),
    row(TOKENS, 89506, wait(24 * HOUR_MS), RISK_CODES, IP_REFUSED_A_DAY).advise(TALK),
    // Tickets, also those of accounts that have authorised a component.
    row(TICKET, 40001, SLOW, TICKET_PAGE, TOKEN_REFUSED).refusing_token().advise(TICKET_TOKEN),
    row(TICKET, 40014, SLOW, COMMON_PAGE, TOKEN_REFUSED).refusing_token().advise(TICKET_TOKEN),
    row(TICKET, 41001, SLOW, COMMON_PAGE, TOKEN_REFUSED).refusing_token().advise(TICKET_TOKEN),
    row(TICKET, 42001, SLOW, COMMON_PAGE, TOKEN_REFUSED).refusing_token().advise(TICKET_TOKEN),
    row(TICKET, 40164, SOON, COMMON_PAGE, NOT_LISTED).with_ip(TICKET_LIST_IP).advise(TICKET_LIST),
    row(TICKET, 61004, SOON, COMMON_PAGE, NOT_LISTED).with_ip(TICKET_LIST_IP).advise(TICKET_LIST),
    row(TICKET, 45009, NEXT_DAY, TICKET_PAGE, TICKET_DAY_IS_OVER).advise(text(
        "wait for the next day, or clear the quota (clear_quota/v2); then find the other program that fetches this \
         ticket. The ticket has a quota of its own: another token endpoint does not help",
        "请等到次日，或清零次数（clear_quota/v2）；然后找出还有哪个程序在取这个票据。\
         票据接口有自己的额度，换用其他 token 接口没有用",
    )),
    row(TICKET, 48001, SLOW, COMMON_PAGE, NO_RIGHT_TO_TICKET).advise(text(
        "only you can change that: see at mp.weixin.qq.com which interfaces the account has (an unverified one lacks \
         some), or take the ticket out of this app's tickets. Token and secret are right",
        "只能由您处理：请在 mp.weixin.qq.com 查看该账号的接口权限（未认证的账号缺少一部分），\
         或从该应用的 tickets 中去掉此票据。\
         token 和 AppSecret 都没有问题",
    )),
    row(TICKET, 61007, SLOW, COMMON_PAGE, NOT_GRANTED).advise(text(
        "ask the merchant to grant the permission set with web pages (网页服务) to the third-party platform, or take \
         the ticket out of this app's tickets",
        "请商户把包含网页服务的权限集授权给第三方平台，或从该应用的 tickets 中去掉此票据",
    )),
    // The probe.
    row(PROBE, 40001, SLOW, COMMON_PAGE, PROBE_REFUSED).refusing_token().advise(PROBE_RENEWS),
    row(PROBE, 40014, SLOW, COMMON_PAGE, PROBE_REFUSED).refusing_token().advise(PROBE_RENEWS),
    row(PROBE, 42001, SLOW, COMMON_PAGE, PROBE_REFUSED).refusing_token().advise(PROBE_RENEWS),
    row(PROBE, 45009, NEXT_DAY, PROBE_SEEN, DAY_IS_OVER).advise(PROBE_QUOTA),
    row(PROBE, 45011, wait(MINUTE_MS), PROBE_SEEN, TOO_MANY).advise(PROBE_QUOTA),
    row(PROBE, 48001, SLOW, COMMON_PAGE, NO_RIGHT).advise(PROBE_RIGHT),
    row(PROBE, 61007, SLOW, COMMON_PAGE, NOT_GRANTED).advise(PROBE_RIGHT),
    row(READS, 50002, SLOW, COMMON_PAGE, ACCOUNT_GONE).advise(ASK_AT_MP),
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
const IP_ASKED_FOR: BilingualText = text("the administrator has been asked to confirm our IP", "已请管理员确认本机 IP");
const IP_UNCONFIRMED: BilingualText = text("the administrator must confirm our IP", "本机 IP 需要管理员确认");
const IP_REFUSED_AN_HOUR: BilingualText =
    text("the administrator refused our IP, for an hour", "管理员拒绝了本机 IP，一小时内有效");
const IP_REFUSED_A_DAY: BilingualText =
    text("the administrator refused our IP, for a day", "管理员拒绝了本机 IP，一天内有效");
const TICKET_DAY_IS_OVER: BilingualText =
    text("the ticket's own daily quota is used up", "票据接口当日的调用次数已用完");
const NO_RIGHT_TO_TICKET: BilingualText = text("the account has no right to this ticket", "该账号没有获取此票据的权限");
const NOT_GRANTED: BilingualText =
    text("the account has not granted this interface", "该账号没有把此接口授权给第三方平台");
const NO_RIGHT: BilingualText = text("the account has no right to this call", "该账号没有此接口的权限");
const BARRED_FROM_TOKENS: BilingualText = text("barred from the token interface", "获取 token 的接口已被封禁");
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
    "先不用处理：会自动验证 access_token 并重试。若持续出现，要么有其他程序在取该应用的 token，\
     要么该类型的账号没有这种票据\
     （小程序没有 jsapi_ticket）。AppSecret 没有问题，不要重置",
);
const PROBE_REFUSED: BilingualText = text("the token is not accepted", "token 不被接受");
const PROBE_RENEWS: BilingualText = text("nothing; the token is renewed", "无需处理，会自动续期");
const PROBE_QUOTA: BilingualText = text(
    "the quota of get_api_domain_ip is used up, so another program of yours calls it too; clients' reports are still \
     verified, and probe_every_s = 0 switches the regular probes off",
    "get_api_domain_ip 的额度已用完，说明还有其他程序在调用它；客户端的上报仍会验证，\
     probe_every_s = 0 可关闭定期验证",
);
