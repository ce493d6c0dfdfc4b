//! Error codes of QQ mini programs (`api.q.qq.com`). A new code is a new row.

use super::{
    BAD_GRANT, BilingualText, CORRECT_APPID, DAY_IS_OVER, ErrcodeRow, ErrcodeSource, ErrcodeTable, MINUTE_MS, NEXT_DAY,
    NO_APPID, NO_SECRET, NOT_LISTED, NOTHING, NOTHING_FOR_A_MINUTE, REPORT_BUG, SLOW, SOON, TOO_MANY, UNKNOWN_APPID,
    WRONG_SECRET, row, source, text, wait,
};
use crate::platform::ApiEndpoint::{self, Token};
use crate::platform::failure::Class;

pub static ERRCODES: ErrcodeTable = ErrcodeTable { rows: ROWS, advice_on_unknown: UNKNOWN };

// Which calls.
const TOKEN: &[ApiEndpoint] = &[Token];

// Where it is known from.
const QQ_PAGE: ErrcodeSource = source("q.qq.com/wiki/develop/miniprogram/server/open_port/port_use.html", "2026-11");
const QQ_AS_CLASSIC: ErrcodeSource = source("w3cschool copy of the QQ pages: the classic token's contract", "2026-11");

/// Where to look up a code that has no row.
const UNKNOWN: BilingualText =
    text("look the errcode up in the documentation at q.qq.com/wiki", "请在 q.qq.com/wiki 的文档中查询该错误码");

const ROWS: &[ErrcodeRow] = &[
    row(TOKEN, -1, Class::Retry, text("QQ is busy", "QQ 系统繁忙"), NOTHING, QQ_PAGE),
    row(TOKEN, 40001, SLOW, WRONG_SECRET, QQ_SECRET, QQ_PAGE).asking_for_secret(),
    row(TOKEN, 40125, SLOW, WRONG_SECRET, QQ_SECRET, QQ_AS_CLASSIC).asking_for_secret(),
    row(TOKEN, 40002, Class::Internal, BAD_GRANT, REPORT_BUG, QQ_PAGE),
    row(TOKEN, 40013, SLOW, UNKNOWN_APPID, CORRECT_APPID, QQ_PAGE),
    row(TOKEN, 41002, Class::Internal, NO_APPID, REPORT_BUG, QQ_AS_CLASSIC),
    row(TOKEN, 41004, Class::Internal, NO_SECRET, REPORT_BUG, QQ_AS_CLASSIC),
    row(
        TOKEN,
        45009,
        NEXT_DAY,
        DAY_IS_OVER,
        text(
            "wait for the next day, and find the other program that fetches tokens for this app",
            "请等到次日，并找出还有哪个程序在取该应用的 token",
        ),
        QQ_AS_CLASSIC,
    ),
    row(TOKEN, 45011, wait(MINUTE_MS), TOO_MANY, NOTHING_FOR_A_MINUTE, QQ_AS_CLASSIC),
    row(
        TOKEN,
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
];

// Texts of several rows, and long ones.
const QQ_SECRET: BilingualText = text(
    "put the app's current secret in place (q.qq.com, development settings)",
    "请换上当前的 AppSecret（见 q.qq.com 的“开发设置”）",
);
