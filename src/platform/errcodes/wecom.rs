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
const UNKNOWN: &str =
    "look the errcode up at open.work.weixin.qq.com/devtool/query; the hint in the message helps WeCom's support";

/// The interface is blocked for a while, and for longer if a call meets the block again.
pub(super) const GROWING_BLOCK: Class = Class::Wait(Wait::Doubling { first_ms: 60_000, most_ms: 3_600_000 });

const ROWS: &[ErrcodeRow] = &[
    row(ALL, -1, RETRY, WECOM_PAGE, "WeCom is busy"),
    row(TOKEN, 40001, SLOW, WECOM_PAGE, WECOM_WRONG_SECRET).asking_for_secret().advise(WECOM_SECRET),
    row(TOKEN, 40091, SLOW, WECOM_PAGE, WECOM_WRONG_SECRET).asking_for_secret().advise(WECOM_SECRET),
    row(TOKEN, 40013, SLOW, WECOM_PAGE, UNKNOWN_CORPID).advise(WECOM_CORPID),
    row(TOKEN, 2000002, SLOW, WECOM_PAGE, UNKNOWN_CORPID).advise(WECOM_CORPID),
    row(TOKEN, 41002, INTERNAL, WECOM_PAGE, "corpid missing").advise(REPORT_BUG),
    row(TOKEN, 41004, INTERNAL, WECOM_PAGE, NO_SECRET).advise(REPORT_BUG),
    row(ALL, 45009, GROWING_BLOCK, WECOM_BLOCK, "called too often, blocked for a while").advise(WECOM_WAIT),
    row(ALL, 45033, RETRY, WECOM_PAGE, "too many calls at once"),
    row(ALL, 60020, SOON, WECOM_ADDRESS, "our IP is not among the trusted ones")
        .with_ip(WECOM_IPS_IP)
        .advise(WECOM_IPS),
    row(ALL, 48002, SLOW, WECOM_PAGE, WECOM_NO_RIGHT)
        .advise("see at work.weixin.qq.com, application management, what the app may do"),
    row(ALL, 301007, SLOW, WECOM_PAGE, "the corporation has been dissolved")
        .advise("take the app out of the configuration"),
    row(READS, 40001, SLOW, WECOM_PAGE, TOKEN_REFUSED).refusing_token().advise(WECOM_TICKET_TOKEN),
    row(READS, 40014, SLOW, WECOM_SDK, TOKEN_REFUSED).refusing_token().advise(WECOM_TICKET_TOKEN),
    row(TICKET, 41001, SLOW, WECOM_PAGE, TOKEN_REFUSED).refusing_token().advise(WECOM_TICKET_TOKEN),
    row(READS, 42001, SLOW, WECOM_PAGE, TOKEN_REFUSED).refusing_token().advise(WECOM_TICKET_TOKEN),
    row(TICKET, 301002, SLOW, WECOM_PAGE, WECOM_NO_RIGHT)
        .advise("this is the token of another app of the corporation: see that agent and secret belong together"),
];

// Texts of several rows, and long ones.
const UNKNOWN_CORPID: &str = "unknown corpid";
const WECOM_SECRET: &str = "put the secret of this very app in place: each app of a corporation has its own, at work.weixin.qq.com under \
     application management";
const WECOM_WAIT: &str = "nothing: it is tried again after a minute, and each time it is blocked again after twice as long, an hour at most. \
     If it comes often, find the other program that calls this interface for the same corporation";
const WECOM_IPS: &str = "add this machine's outgoing IP to the app's trusted IPs at work.weixin.qq.com (application management, the app, \
     trusted IPs of the enterprise)";
const WECOM_IPS_IP: &str = "WeCom saw IP {ip}; add it to the app's trusted IPs at work.weixin.qq.com, corp {app} (application management, the app, \
     trusted IPs of the enterprise)";
const WECOM_NO_RIGHT: &str = "the app has no right to this interface";
const WECOM_WRONG_SECRET: &str = "wrong secret";
const WECOM_CORPID: &str = "correct the corpid: it is at work.weixin.qq.com under my enterprise, at the bottom";
const WECOM_TICKET_TOKEN: &str = "nothing at first: the access token is verified, and the call is repeated. If it stays, see that agent and secret \
     belong to the same app. The secret is right: do not reset it";
