//! Error codes of WeCom (`qyapi.weixin.qq.com`). A new code is a new row.

use super::*;
use crate::platform::ApiEndpoint::{Probe, Ticket, Token};

pub static ERRCODES: ErrcodeTable = ErrcodeTable { rows: ROWS, advice_on_unknown: UNKNOWN };

// Which calls.
const TOKEN: &[ApiEndpoint] = &[Token];
const TICKET: &[ApiEndpoint] = &[Ticket];
const READS: &[ApiEndpoint] = &[Ticket, Probe];
const ALL: &[ApiEndpoint] = &[Token, Ticket, Probe];

// Where it is known from.
const WECOM_PAGE: ErrcodeSource = source("developer.work.weixin.qq.com/document/path/90313", "2026-11");
const WECOM_BLOCK: ErrcodeSource =
    source("document/path/90312; easywechat issue 2274, wecom-openclaw-plugin issue 48", "2026-11");
const WECOM_ADDRESS: ErrcodeSource = source("document/path/90313; SmsForwarder issue 352", "2026-11");
const WECOM_SDK: ErrcodeSource = source("path/90313; wecom-sdk issue 22", "2024-11");

/// Where to look up a code that has no row.
const UNKNOWN: BilingualText = text(
    "look the errcode up at open.work.weixin.qq.com/devtool/query; the hint in the message helps WeCom's support",
    "请在 open.work.weixin.qq.com/devtool/query 查询该错误码；找企业微信客服时请提供信息里的 hint",
);

/// The interface is blocked for a while, and for longer if a call meets the block again.
pub(super) const GROWING_BLOCK: Class = Class::Wait(Wait::Doubling { first_ms: 60_000, most_ms: 3_600_000 });

const ROWS: &[ErrcodeRow] = &[
    row(ALL, -1, RETRY, WECOM_PAGE, text("WeCom is busy", "企业微信系统繁忙")),
    row(TOKEN, 40001, SLOW, WECOM_PAGE, WECOM_WRONG_SECRET).asking_for_secret().advise(WECOM_SECRET),
    row(TOKEN, 40091, SLOW, WECOM_PAGE, WECOM_WRONG_SECRET).asking_for_secret().advise(WECOM_SECRET),
    row(TOKEN, 40013, SLOW, WECOM_PAGE, UNKNOWN_CORPID).advise(WECOM_CORPID),
    row(TOKEN, 2000002, SLOW, WECOM_PAGE, UNKNOWN_CORPID).advise(WECOM_CORPID),
    row(TOKEN, 41002, INTERNAL, WECOM_PAGE, text("corpid missing", "缺少 corpid")).advise(REPORT_BUG),
    row(TOKEN, 41004, INTERNAL, WECOM_PAGE, NO_SECRET).advise(REPORT_BUG),
    row(ALL, 45009, GROWING_BLOCK, WECOM_BLOCK, WECOM_BLOCKED).advise(WECOM_WAIT),
    row(ALL, 45033, RETRY, WECOM_PAGE, AT_ONCE),
    row(ALL, 60020, SOON, WECOM_ADDRESS, WECOM_NOT_LISTED).with_ip(WECOM_IPS_IP).advise(WECOM_IPS),
    row(ALL, 48002, SLOW, WECOM_PAGE, WECOM_NO_RIGHT).advise(text(
        "see at work.weixin.qq.com, application management, what the app may do",
        "请在 work.weixin.qq.com 的“应用管理”中查看该应用的权限",
    )),
    row(ALL, 301007, SLOW, WECOM_PAGE, text("the corporation has been dissolved", "企业已解散"))
        .advise(text("take the app out of the configuration", "请从配置中去掉该应用")),
    row(READS, 40001, SLOW, WECOM_PAGE, TOKEN_REFUSED).refusing_token().advise(WECOM_TICKET_TOKEN),
    row(READS, 40014, SLOW, WECOM_SDK, TOKEN_REFUSED).refusing_token().advise(WECOM_TICKET_TOKEN),
    row(TICKET, 41001, SLOW, WECOM_PAGE, TOKEN_REFUSED).refusing_token().advise(WECOM_TICKET_TOKEN),
    row(READS, 42001, SLOW, WECOM_PAGE, TOKEN_REFUSED).refusing_token().advise(WECOM_TICKET_TOKEN),
    row(TICKET, 301002, SLOW, WECOM_PAGE, WECOM_NO_RIGHT).advise(text(
        "this is the token of another app of the corporation: see that agent and secret belong together",
        "所用的是同一企业另一个应用的 token：请确认 agent 与 Secret 相对应",
    )),
];

// Texts of several rows, and long ones.
const UNKNOWN_CORPID: BilingualText = text("unknown corpid", "corpid 不存在");
const WECOM_NOT_LISTED: BilingualText = text("our IP is not among the trusted ones", "本机 IP 不在企业可信IP中");
const AT_ONCE: BilingualText = text("too many calls at once", "并发调用过多");
const WECOM_SECRET: BilingualText = text(
    "put the secret of this very app in place: each app of a corporation has its own, at work.weixin.qq.com under \
     application management",
    "请换上这个应用自己的 Secret：同一企业的每个应用各有一个，见 work.weixin.qq.com 的“应用管理”",
);
const WECOM_BLOCKED: BilingualText = text("called too often, blocked for a while", "调用过于频繁，被暂时拦截");
const WECOM_WAIT: BilingualText = text(
    "nothing: it is tried again after a minute, and each time it is blocked again after twice as long, an hour at most. \
     If it comes often, find the other program that calls this interface for the same corporation",
    "无需处理：一分钟后自动重试，若再次被拦截则等待时间加倍，最长一小时。若经常出现，\
     请找出为同一企业频繁调用此接口的其他程序",
);
const WECOM_IPS: BilingualText = text(
    "add this machine's outgoing IP to the app's trusted IPs at work.weixin.qq.com (application management, the app, \
     trusted IPs of the enterprise)",
    "请在 work.weixin.qq.com 的“应用管理”里打开该应用，把本机的出口 IP 加入“企业可信IP”",
);
const WECOM_IPS_IP: BilingualText = text(
    "WeCom saw IP {ip}; add it to the app's trusted IPs at work.weixin.qq.com, corp {app} (application management, the app, \
     trusted IPs of the enterprise)",
    "企业微信看到的 IP 是 {ip}；请在 work.weixin.qq.com （企业 {app}）的“应用管理”里打开该应用，\
     把它加入“企业可信IP”",
);
const WECOM_NO_RIGHT: BilingualText = text("the app has no right to this interface", "该应用没有此接口的权限");
const WECOM_WRONG_SECRET: BilingualText = text("wrong secret", "Secret 不正确");
const WECOM_CORPID: BilingualText = text(
    "correct the corpid: it is at work.weixin.qq.com under my enterprise, at the bottom",
    "请改正 corpid：见 work.weixin.qq.com 的“我的企业”页面底部",
);
const WECOM_TICKET_TOKEN: BilingualText = text(
    "nothing at first: the access token is verified, and the call is repeated. If it stays, see that agent and secret \
     belong to the same app. The secret is right: do not reset it",
    "先不用处理：会自动验证 access_token 并重试。若持续出现，请确认 agent 与 Secret 属于同一个应用。\
     Secret 没有问题，不要重置",
);
