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
const UNKNOWN: &str = "look the errcode up in WeChat's documentation; the rid can be queried at mp.weixin.qq.com";

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
    row(TOKENS, 40243, SLOW, TOKEN_PAGE, "app secret frozen")
        .advise("unfreeze the secret at mp.weixin.qq.com (takes about 10 min)"),
    row(CLASSIC, 45009, NEXT_DAY, TOKEN_PAGE, DAY_IS_OVER).advise(
        "wait for the next day, clear the quota (clear_quota/v2), or use the stable_token endpoint, which has its own",
    ),
    row(STABLE, 45009, NEXT_DAY, TOKEN_PAGE, DAY_IS_OVER).advise(
        "wait for the next day, or clear the quota (clear_quota/v2, 10 times a month); then find the other program \
         that fetches tokens for this app: this server alone does not come near the quota",
    ),
    row(FETCHES, 45011, wait(MINUTE_MS), TOKEN_PAGE, TOO_MANY).advise(NOTHING_FOR_A_MINUTE),
    row(ALL, 48017, RETRY, NOTICE_48017, RETIRED).advise(UNPIN),
    row(TOKENS, 50002, SLOW, COMMON_PAGE, ACCOUNT_GONE).advise(ASK_AT_MP),
    row(TOKENS, 50004, SLOW, PENALTY_SEEN, "barred from the token interface").advise(READ_NOTICE),
    row(TOKENS, 50007, SLOW, API_GUIDE, "account frozen").advise(ASK_AT_MP),
    row(FETCHES, 48004, SLOW, COMMON_PAGE, "the interface is barred for the account").advise(READ_NOTICE),
    row(TOKENS, 61024, SLOW, API_GUIDE, "a component account")
        .advise("this account is a third-party platform: give it platform = \"component\" in the configuration"),
    row(TOKENS, 89501, wait(10 * MINUTE_MS), RISK_CODES, "the administrator has been asked to confirm our IP")
        .advise(CONFIRM),
    row(TOKENS, 89503, wait(10 * MINUTE_MS), RISK_CODES, "the administrator must confirm our IP")
        .advise("let the account's administrator confirm the request on their phone, or use the IP allow-list"),
    row(TOKENS, 89507, wait(HOUR_MS), RISK_CODES, "the administrator refused our IP, for an hour").advise(TALK),
    row(TOKENS, 89506, wait(24 * HOUR_MS), RISK_CODES, "the administrator refused our IP, for a day").advise(TALK),
    // Tickets, also those of accounts that have authorised a component.
    row(TICKET, 40001, SLOW, TICKET_PAGE, TOKEN_REFUSED).refusing_token().advise(TICKET_TOKEN),
    row(TICKET, 40014, SLOW, COMMON_PAGE, TOKEN_REFUSED).refusing_token().advise(TICKET_TOKEN),
    row(TICKET, 41001, SLOW, COMMON_PAGE, TOKEN_REFUSED).refusing_token().advise(TICKET_TOKEN),
    row(TICKET, 42001, SLOW, COMMON_PAGE, TOKEN_REFUSED).refusing_token().advise(TICKET_TOKEN),
    row(TICKET, 40164, SOON, COMMON_PAGE, NOT_LISTED).with_ip(TICKET_LIST_IP).advise(TICKET_LIST),
    row(TICKET, 61004, SOON, COMMON_PAGE, NOT_LISTED).with_ip(TICKET_LIST_IP).advise(TICKET_LIST),
    row(TICKET, 45009, NEXT_DAY, TICKET_PAGE, "the ticket's own daily quota is used up").advise(
        "wait for the next day, or clear the quota (clear_quota/v2); then find the other program that fetches this \
         ticket. The ticket has a quota of its own: another token endpoint does not help",
    ),
    row(TICKET, 48001, SLOW, COMMON_PAGE, "the account has no right to this ticket").advise(
        "only you can change that: see at mp.weixin.qq.com which interfaces the account has (an unverified one lacks \
         some), or take the ticket out of this app's tickets. Token and secret are right",
    ),
    row(TICKET, 61007, SLOW, COMMON_PAGE, NOT_GRANTED).advise(
        "ask the merchant to grant the permission set with web pages (网页服务) to the third-party platform, or take \
         the ticket out of this app's tickets",
    ),
    // The probe.
    row(PROBE, 40001, SLOW, COMMON_PAGE, PROBE_REFUSED).refusing_token().advise(PROBE_RENEWS),
    row(PROBE, 40014, SLOW, COMMON_PAGE, PROBE_REFUSED).refusing_token().advise(PROBE_RENEWS),
    row(PROBE, 42001, SLOW, COMMON_PAGE, PROBE_REFUSED).refusing_token().advise(PROBE_RENEWS),
    row(PROBE, 45009, NEXT_DAY, PROBE_SEEN, DAY_IS_OVER).advise(PROBE_QUOTA),
    row(PROBE, 45011, wait(MINUTE_MS), PROBE_SEEN, TOO_MANY).advise(PROBE_QUOTA),
    row(PROBE, 48001, SLOW, COMMON_PAGE, "the account has no right to this call").advise(PROBE_RIGHT),
    row(PROBE, 61007, SLOW, COMMON_PAGE, NOT_GRANTED).advise(PROBE_RIGHT),
    row(READS, 50002, SLOW, COMMON_PAGE, ACCOUNT_GONE).advise(ASK_AT_MP),
];

// Texts of several rows, and long ones.
const PUT_SECRET: &str = "put the app's current secret in place";
const MP_LIST: &str = "add this machine's outgoing IP to the app's allow-list at mp.weixin.qq.com (takes 5-10 min)";
const MP_LIST_IP: &str =
    "WeChat saw IP {ip}; add it to the IP allow-list of app {app} at mp.weixin.qq.com (takes 5-10 min)";
const TICKET_LIST: &str = "add this machine's outgoing IP to the app's allow-list at mp.weixin.qq.com, or for an account that has authorised \
     a third-party platform to that one's at open.weixin.qq.com (takes 5-10 min)";
const TICKET_LIST_IP: &str = "WeChat saw IP {ip}; add it to the IP allow-list of app {app} at mp.weixin.qq.com, or for an account that has \
     authorised a third-party platform to that one's at open.weixin.qq.com (takes 5-10 min)";
const NOT_GRANTED: &str = "the account has not granted this interface";
const READ_NOTICE: &str = "read the notice at mp.weixin.qq.com; WeChat calls it a penalty";
const CONFIRM: &str = "let the account's administrator confirm the request on their phone";
const TALK: &str = "talk to the account's administrator";
const TICKET_TOKEN: &str = "nothing at first: the access token is verified, and the call is repeated. If it stays, another program fetches \
     tokens for this app, or an account of this type has no such ticket (a mini program has no jsapi_ticket). The \
     AppSecret is right: do not reset it";
const PROBE_REFUSED: &str = "the token is not accepted";
const PROBE_RENEWS: &str = "nothing; the token is renewed";
const PROBE_QUOTA: &str = "the quota of get_api_domain_ip is used up, so another program of yours calls it too; clients' reports are still \
     verified, and probe_every_s = 0 switches the regular probes off";
