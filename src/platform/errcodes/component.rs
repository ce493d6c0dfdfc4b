//! Error codes of third-party platforms (components) and of the accounts that have authorised them. A new code is a new row.

use super::*;
use crate::platform::ApiEndpoint::{AuthorizerToken, ComponentToken};

pub static ERRCODES: ErrcodeTable = ErrcodeTable { rows: ROWS, advice_on_unknown: UNKNOWN };

// Which calls.
const ITSELF: &[ApiEndpoint] = &[ComponentToken];
const AUTHORIZER: &[ApiEndpoint] = &[AuthorizerToken];
const ALL: &[ApiEndpoint] = &[ComponentToken, AuthorizerToken];

// Where it is known from.
const COMPONENT_PAGE: ErrcodeSource = source("developers.weixin.qq.com/doc/oplatform: api_component_token", "2026-11");
const AUTHORIZER_PAGE: ErrcodeSource =
    source("developers.weixin.qq.com/doc/oplatform: api_getauthorizeraccesstoken", "2026-11");
const STAFF_ON_61003: ErrcodeSource = source("developers.weixin.qq.com/community 0000c454, answer by staff", "2025-02");
const STAFF_ON_61023: ErrcodeSource = source("developers.weixin.qq.com/community 0000a2a4, answer by staff", "2024-06");

/// Where to look up a code that has no row.
const UNKNOWN: &str = "look the errcode up in the documentation of the open platform, and at open.weixin.qq.com what state the \
         third-party platform is in";

const ROWS: &[ErrcodeRow] = &[
    // Their own token.
    row(ALL, -1, RETRY, COMPONENT_PAGE, BUSY),
    row(ITSELF, 40001, SLOW, COMPONENT_PAGE, WRONG_SECRET).asking_for_secret().advise(COMPONENT_SECRET),
    row(ITSELF, 40125, SLOW, COMPONENT_PAGE, WRONG_SECRET).asking_for_secret().advise(COMPONENT_SECRET),
    row(ITSELF, 40243, SLOW, API_GUIDE, "app secret frozen").advise(COMPONENT_FROZEN),
    row(ITSELF, 41004, INTERNAL, COMPONENT_PAGE, NO_SECRET).advise(REPORT_BUG),
    row(ALL, 41018, INTERNAL, COMMON_PAGE, NO_APPID).advise(REPORT_BUG),
    row(ALL, 43002, INTERNAL, COMMON_PAGE, MUST_POST).advise(REPORT_BUG),
    row(ALL, 47001, INTERNAL, COMPONENT_PAGE, "the body cannot be parsed").advise(REPORT_BUG),
    row(ALL, 43003, SLOW, COMMON_PAGE, NEEDS_HTTPS).advise(BASE_URL_HTTPS),
    row(ALL, 40066, SLOW, SHOP_PAGE, BAD_URL).advise(BASE_URL),
    row(ALL, 40013, SLOW, COMMON_PAGE, UNKNOWN_APPID).advise(CORRECT_APPID),
    row(ALL, 61011, SLOW, COMPONENT_PAGE, "not a third-party platform").advise(
        "correct the component's appid in the configuration, and see at open.weixin.qq.com that the third-party \
         platform is in force",
    ),
    row(ALL, 61004, SOON, COMPONENT_PAGE, NOT_LISTED).with_ip(COMPONENT_LIST_IP).advise(COMPONENT_LIST),
    row(ALL, 40164, SOON, COMMON_PAGE, NOT_LISTED).with_ip(COMPONENT_LIST_IP).advise(COMPONENT_LIST),
    row(ITSELF, 61005, wait(10 * MINUTE_MS), COMPONENT_PAGE, "verify ticket expired").advise(NEXT_TICKET),
    row(ITSELF, 61006, wait(10 * MINUTE_MS), COMPONENT_PAGE, "verify ticket invalid").advise(
        "see that the ticket is this component's: one that WeChat pushes for another component is refused like this. \
         It sends a ticket every 10 minutes, and a new one is tried at once",
    ),
    row(ALL, 45009, NEXT_DAY, COMPONENT_PAGE, DAY_IS_OVER).advise(COMPONENT_QUOTA),
    row(ALL, 45011, wait(MINUTE_MS), COMMON_PAGE, TOO_MANY).advise(NOTHING_FOR_A_MINUTE),
    row(ALL, 48001, SLOW, COMPONENT_PAGE, "the third-party platform has no right to this call")
        .advise("see at open.weixin.qq.com that the third-party platform is published and has its permission sets"),
    row(ALL, 48017, RETRY, NOTICE_48017, RETIRED).advise(UNPIN),
    // The tokens of accounts that have authorised them.
    row(AUTHORIZER, 40001, SLOW, AUTHORIZER_PAGE, COMPONENT_REFUSED).refusing_token().advise(COMPONENT_TOKEN),
    row(AUTHORIZER, 40014, SLOW, COMMON_PAGE, COMPONENT_REFUSED).refusing_token().advise(COMPONENT_TOKEN),
    row(AUTHORIZER, 41001, SLOW, COMMON_PAGE, COMPONENT_REFUSED).refusing_token().advise(COMPONENT_TOKEN),
    row(AUTHORIZER, 42001, SLOW, COMMON_PAGE, COMPONENT_REFUSED).refusing_token().advise(COMPONENT_TOKEN),
    row(AUTHORIZER, 61003, SLOW, STAFF_ON_61003, "the account has not authorised this component")
        .asking_for_secret()
        .advise(AUTHORISE_AGAIN),
    row(AUTHORIZER, 61023, SLOW, STAFF_ON_61023, "refresh token invalid").asking_for_secret().advise(AUTHORISE_AGAIN),
    row(AUTHORIZER, 50002, SLOW, COMMON_PAGE, ACCOUNT_GONE).advise(ASK_AT_MP),
];

// Texts of several rows, and long ones.
const COMPONENT_LIST: &str =
    "add this machine's outgoing IP to the third-party platform's allow-list at open.weixin.qq.com (takes 5-10 min)";
const COMPONENT_LIST_IP: &str =
    "WeChat saw IP {ip}; add it to the allow-list of the third-party platform at open.weixin.qq.com (takes 5-10 min)";
const COMPONENT_REFUSED: &str = "the component's token was refused for this call";
const COMPONENT_TOKEN: &str = "nothing at first: the component's token is verified, and the call is repeated. If it stays, another program \
     fetches component tokens for this third-party platform: find it. The secret and the refresh token are right";
const AUTHORISE_AGAIN: &str = "ask the merchant to authorise again, and put the new refresh token in place";
const NEXT_TICKET: &str = "nothing, if WeChat's pushes arrive: it sends a ticket every 10 minutes, and a new one is tried at once; else see \
     that the receiver of its pushes hands them on";
const COMPONENT_SECRET: &str = "put the third-party platform's current secret in place (open.weixin.qq.com)";
const COMPONENT_FROZEN: &str = "unfreeze the third-party platform's secret at open.weixin.qq.com (takes about 10 min)";
const COMPONENT_QUOTA: &str = "wait for the next day; then find the other program that fetches this token: this server alone does not come near \
     the quota";
