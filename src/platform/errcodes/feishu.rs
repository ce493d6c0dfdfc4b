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
const UNKNOWN: BilingualText = text(
    "look the code up in the list of server error codes at open.feishu.cn",
    "请在 open.feishu.cn 的“服务端错误码说明”中查询该错误码",
);

const ROWS: &[ErrcodeRow] = &[
    row(TOKEN, 10014, SLOW, FEISHU_PAGE, WRONG_PAIR).asking_for_secret().advise(text(
        "compare app_id and App Secret with the app's page of credentials at open.feishu.cn",
        "请与 open.feishu.cn 开发者后台该应用的“凭证与基础信息”核对 App ID 和 App Secret",
    )),
    row(TOKEN, 10003, SLOW, FEISHU_PAGE, MALFORMED).asking_for_secret().advise(text(
        "see that app_id is that of the app's page at open.feishu.cn (cli_...), and that the secret has nothing \
         around it",
        "请确认 app_id 与 open.feishu.cn 开发者后台一致（cli_ 开头），且 App Secret 前后没有多余字符",
    )),
    row(TOKEN, 10012, SLOW, FEISHU_SDK, STORE_APP).advise(text(
        "use an app of your own (自建应用): this server cannot ask for store apps",
        "请使用企业自建应用：本服务不支持商店应用",
    )),
    row(TOKEN, 10013, SLOW, FEISHU_SDK, text("the app is not in force", "应用状态异常")).advise(text(
        "see at open.feishu.cn that the app is published and enabled for this enterprise",
        "请在 open.feishu.cn 开发者后台确认该应用已发布，且在本企业已启用",
    )),
    row(TOKEN, 99991400, wait(MINUTE_MS), FEISHU_RATE, text("too many calls", "调用过于频繁")).advise(text(
        "nothing; it is tried again after a minute. If it comes often, find the other program that calls this \
         interface for the same app",
        "无需处理，一分钟后自动重试。若经常出现，请找出为同一应用频繁调用此接口的其他程序",
    )),
    row(TOKEN, 99991403, SLOW, FEISHU_MONTH, MONTH_IS_OVER).advise(text(
        "wait for the next month or take a larger edition of Feishu; then find the program that calls most",
        "请等到下个月或升级飞书版本；然后找出调用最多的程序",
    )),
    row(TOKEN, 2200, RETRY, FEISHU_SEEN, FEISHU_BUSY),
    row(TOKEN, 1500, RETRY, FEISHU_PAGE, FEISHU_BUSY),
];

// Texts of several rows, and long ones.
const WRONG_PAIR: BilingualText = text("unknown app_id, or wrong app secret", "app_id 不存在，或 App Secret 不正确");
const MALFORMED: BilingualText =
    text("app_id or app secret is empty or malformed", "app_id 或 App Secret 为空或格式有误");
const STORE_APP: BilingualText = text("app_ticket wanted: a store app", "缺少 app_ticket：这是商店应用");
const MONTH_IS_OVER: BilingualText = text("the month's quota is used up", "当月的 API 调用额度已用完");
const FEISHU_BUSY: BilingualText = text("Feishu has an internal error", "飞书内部错误");
