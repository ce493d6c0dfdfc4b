//! Error codes of Feishu (`open.feishu.cn`). A new code is a new row.

use super::*;
use crate::platform::ApiEndpoint::Token;

pub static ERRCODES: ErrcodeTable = ErrcodeTable { rows: ROWS, advice_on_unknown: UNKNOWN };

// Which calls.
const TOKEN: &[ApiEndpoint] = &[Token];

// Where it is known from.
const FEISHU_PAGE: ErrcodeSource = source("open.feishu.cn: generic-error-code; codes seen at the endpoint", "2026-09");
const FEISHU_RATE: ErrcodeSource = source("open.feishu.cn: frequency-control", "2026-11");
const FEISHU_SDK: ErrcodeSource = source("open-lark 0.14, its list of error codes", "2026-11");
const FEISHU_MONTH: ErrcodeSource = source("openclaw/openclaw issue 10549", "2026-02");
const FEISHU_SEEN: ErrcodeSource = source("ConnectAI-E/feishu-openai issue 21", "2023-03");

/// Where to look up a code that has no row.
const UNKNOWN: &str = "look the code up in the list of server error codes at open.feishu.cn";

const ROWS: &[ErrcodeRow] = &[
    row(TOKEN, 10014, SLOW, FEISHU_PAGE, "unknown app_id, or wrong app secret")
        .asking_for_secret()
        .advise("compare app_id and App Secret with the app's page of credentials at open.feishu.cn"),
    row(TOKEN, 10003, SLOW, FEISHU_PAGE, "app_id or app secret is empty or malformed").asking_for_secret().advise(
        "see that app_id is that of the app's page at open.feishu.cn (cli_...), and that the secret has nothing \
         around it",
    ),
    row(TOKEN, 10012, SLOW, FEISHU_SDK, "app_ticket wanted: a store app")
        .advise("use an app of your own (自建应用): this server cannot ask for store apps"),
    row(TOKEN, 10013, SLOW, FEISHU_SDK, "the app is not in force")
        .advise("see at open.feishu.cn that the app is published and enabled for this enterprise"),
    row(TOKEN, 99991400, wait(MINUTE_MS), FEISHU_RATE, "too many calls").advise(
        "nothing; it is tried again after a minute. If it comes often, find the other program that calls this \
         interface for the same app",
    ),
    row(TOKEN, 99991403, SLOW, FEISHU_MONTH, "the month's quota is used up")
        .advise("wait for the next month or take a larger edition of Feishu; then find the program that calls most"),
    row(TOKEN, 2200, RETRY, FEISHU_SEEN, FEISHU_BUSY),
    row(TOKEN, 1500, RETRY, FEISHU_PAGE, FEISHU_BUSY),
];

// Texts of several rows, and long ones.
const FEISHU_BUSY: &str = "Feishu has an internal error";
