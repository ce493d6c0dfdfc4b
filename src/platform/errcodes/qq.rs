//! Error codes of QQ mini programs (`api.q.qq.com`). A new code is a new row.

use super::*;
use crate::platform::ApiEndpoint::Token;

pub static ERRCODES: ErrcodeTable = ErrcodeTable { rows: ROWS, advice_on_unknown: UNKNOWN };

// Which calls.
const TOKEN: &[ApiEndpoint] = &[Token];

// Where it is known from.
const QQ_PAGE: ErrcodeSource = source("q.qq.com/wiki/develop/miniprogram/server/open_port/port_use.html", "2026-11");
const QQ_AS_CLASSIC: ErrcodeSource = source("w3cschool copy of the QQ pages: the classic token's contract", "2026-11");

/// Where to look up a code that has no row.
const UNKNOWN: &str = "look the errcode up in the documentation at q.qq.com/wiki";

const ROWS: &[ErrcodeRow] = &[
    row(TOKEN, -1, RETRY, QQ_PAGE, "QQ is busy"),
    row(TOKEN, 40001, SLOW, QQ_PAGE, WRONG_SECRET).asking_for_secret().advise(QQ_SECRET),
    row(TOKEN, 40125, SLOW, QQ_AS_CLASSIC, WRONG_SECRET).asking_for_secret().advise(QQ_SECRET),
    row(TOKEN, 40002, INTERNAL, QQ_PAGE, BAD_GRANT).advise(REPORT_BUG),
    row(TOKEN, 40013, SLOW, QQ_PAGE, UNKNOWN_APPID).advise(CORRECT_APPID),
    row(TOKEN, 41002, INTERNAL, QQ_AS_CLASSIC, NO_APPID).advise(REPORT_BUG),
    row(TOKEN, 41004, INTERNAL, QQ_AS_CLASSIC, NO_SECRET).advise(REPORT_BUG),
    row(TOKEN, 45009, NEXT_DAY, QQ_AS_CLASSIC, DAY_IS_OVER)
        .advise("wait for the next day, and find the other program that fetches tokens for this app"),
    row(TOKEN, 45011, wait(MINUTE_MS), QQ_AS_CLASSIC, TOO_MANY).advise(NOTHING_FOR_A_MINUTE),
    row(TOKEN, 40164, SOON, QQ_AS_CLASSIC, NOT_LISTED)
        .with_ip("QQ saw IP {ip}; add it to the IP allow-list of app {app} at q.qq.com")
        .advise("add this machine's outgoing IP to the mini program's allow-list at q.qq.com"),
];

// Texts of several rows, and long ones.
const QQ_SECRET: &str = "put the app's current secret in place (q.qq.com, development settings)";
