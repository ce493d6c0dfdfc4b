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
const UNKNOWN: BilingualText = text(
    "look the errcode up in the documentation of the open platform, and at open.weixin.qq.com what state the \
         third-party platform is in",
    "请在微信开放平台文档中查询该错误码，并在 open.weixin.qq.com 查看第三方平台的状态",
);

const ROWS: &[ErrcodeRow] = &[
    // Their own token.
    row(ALL, -1, RETRY, COMPONENT_PAGE, BUSY),
    row(ITSELF, 40001, SLOW, COMPONENT_PAGE, WRONG_SECRET).asking_for_secret().advise(COMPONENT_SECRET),
    row(ITSELF, 40125, SLOW, COMPONENT_PAGE, WRONG_SECRET).asking_for_secret().advise(COMPONENT_SECRET),
    row(ITSELF, 40243, SLOW, API_GUIDE, text("app secret frozen", "AppSecret 已冻结")).advise(COMPONENT_FROZEN),
    row(ITSELF, 41004, INTERNAL, COMPONENT_PAGE, NO_SECRET).advise(REPORT_BUG),
    row(ALL, 41018, INTERNAL, COMMON_PAGE, NO_APPID).advise(REPORT_BUG),
    row(ALL, 43002, INTERNAL, COMMON_PAGE, MUST_POST).advise(REPORT_BUG),
    row(ALL, 47001, INTERNAL, COMPONENT_PAGE, NOT_JSON).advise(REPORT_BUG),
    row(ALL, 43003, SLOW, COMMON_PAGE, NEEDS_HTTPS).advise(BASE_URL_HTTPS),
    row(ALL, 40066, SLOW, SHOP_PAGE, BAD_URL).advise(BASE_URL),
    row(ALL, 40013, SLOW, COMMON_PAGE, UNKNOWN_APPID).advise(CORRECT_APPID),
    row(ALL, 61011, SLOW, COMPONENT_PAGE, NO_COMPONENT).advise(text(
        "correct the component's appid in the configuration, and see at open.weixin.qq.com that the third-party \
         platform is in force",
        "请改正配置中第三方平台的 appid，并在 open.weixin.qq.com 确认该平台处于正常状态",
    )),
    row(ALL, 61004, SOON, COMPONENT_PAGE, NOT_LISTED).with_ip(COMPONENT_LIST_IP).advise(COMPONENT_LIST),
    row(ALL, 40164, SOON, COMMON_PAGE, NOT_LISTED).with_ip(COMPONENT_LIST_IP).advise(COMPONENT_LIST),
    row(ITSELF, 61005, wait(10 * MINUTE_MS), COMPONENT_PAGE, TICKET_EXPIRED).advise(NEXT_TICKET),
    row(ITSELF, 61006, wait(10 * MINUTE_MS), COMPONENT_PAGE, TICKET_INVALID).advise(text(
        "see that the ticket is this component's: one that WeChat pushes for another component is refused like this. \
         It sends a ticket every 10 minutes, and a new one is tried at once",
        "请确认票据属于这个第三方平台：推送给其他第三方平台的票据也会这样被拒绝。\
         微信每 10 分钟推送一次，新票据会立即试用",
    )),
    row(ALL, 45009, NEXT_DAY, COMPONENT_PAGE, DAY_IS_OVER).advise(COMPONENT_QUOTA),
    row(ALL, 45011, wait(MINUTE_MS), COMMON_PAGE, TOO_MANY).advise(NOTHING_FOR_A_MINUTE),
    row(ALL, 48001, SLOW, COMPONENT_PAGE, NO_RIGHT).advise(text(
        "see at open.weixin.qq.com that the third-party platform is published and has its permission sets",
        "请在 open.weixin.qq.com 确认该第三方平台已全网发布，并具有相应的权限集",
    )),
    row(ALL, 48017, RETRY, NOTICE_48017, RETIRED).advise(UNPIN),
    // The tokens of accounts that have authorised them.
    row(AUTHORIZER, 40001, SLOW, AUTHORIZER_PAGE, COMPONENT_REFUSED).refusing_token().advise(COMPONENT_TOKEN),
    row(AUTHORIZER, 40014, SLOW, COMMON_PAGE, COMPONENT_REFUSED).refusing_token().advise(COMPONENT_TOKEN),
    row(AUTHORIZER, 41001, SLOW, COMMON_PAGE, COMPONENT_REFUSED).refusing_token().advise(COMPONENT_TOKEN),
    row(AUTHORIZER, 42001, SLOW, COMMON_PAGE, COMPONENT_REFUSED).refusing_token().advise(COMPONENT_TOKEN),
    row(AUTHORIZER, 61003, SLOW, STAFF_ON_61003, NOT_AUTHORISED).asking_for_secret().advise(AUTHORISE_AGAIN),
    row(AUTHORIZER, 61023, SLOW, STAFF_ON_61023, REFRESH_TOKEN_INVALID).asking_for_secret().advise(AUTHORISE_AGAIN),
    row(AUTHORIZER, 50002, SLOW, COMMON_PAGE, ACCOUNT_GONE).advise(ASK_AT_MP),
];

// Texts of several rows, and long ones.
const TICKET_EXPIRED: BilingualText = text("verify ticket expired", "verify ticket 已过期");
const TICKET_INVALID: BilingualText = text("verify ticket invalid", "verify ticket 无效");
const NO_RIGHT: BilingualText =
    text("the third-party platform has no right to this call", "该第三方平台没有此接口的权限");
const NOT_AUTHORISED: BilingualText =
    text("the account has not authorised this component", "该账号没有授权给此第三方平台");
const REFRESH_TOKEN_INVALID: BilingualText = text("refresh token invalid", "refresh token 无效");
const NO_COMPONENT: BilingualText = text("not a third-party platform", "不是有效的第三方平台");
const NOT_JSON: BilingualText = text("the body cannot be parsed", "请求体无法解析");
const COMPONENT_LIST: BilingualText = text(
    "add this machine's outgoing IP to the third-party platform's allow-list at open.weixin.qq.com (takes 5-10 min)",
    "请在 open.weixin.qq.com 把本机的出口 IP 加入该第三方平台的白名单（5 至 10 分钟生效）",
);
const COMPONENT_LIST_IP: BilingualText = text(
    "WeChat saw IP {ip}; add it to the allow-list of the third-party platform at open.weixin.qq.com (takes 5-10 min)",
    "微信看到的 IP 是 {ip}；请在 open.weixin.qq.com 把它加入第三方平台的白名单（5 至 10 分钟生效）",
);
const COMPONENT_REFUSED: BilingualText =
    text("the component's token was refused for this call", "本次调用所用的 component_access_token 被拒绝");
const COMPONENT_TOKEN: BilingualText = text(
    "nothing at first: the component's token is verified, and the call is repeated. If it stays, another program \
     fetches component tokens for this third-party platform: find it. The secret and the refresh token are right",
    "先不用处理：会自动验证 component_access_token 并重试。若持续出现，说明有其他程序在取该第三方平台的 \
     component_access_token，请找出它。AppSecret 和 refresh token 都没有问题",
);
const AUTHORISE_AGAIN: BilingualText = text(
    "ask the merchant to authorise again, and put the new refresh token in place",
    "请商户重新授权，并换上新的 refresh token",
);
const NEXT_TICKET: BilingualText = text(
    "nothing, if WeChat's pushes arrive: it sends a ticket every 10 minutes, and a new one is tried at once; else see \
     that the receiver of its pushes hands them on",
    "只要能收到微信的推送就无需处理：微信每 10 分钟推送一次，新票据会立即试用；\
     否则请检查接收推送的程序是否转交",
);
const COMPONENT_SECRET: BilingualText = text(
    "put the third-party platform's current secret in place (open.weixin.qq.com)",
    "请换上第三方平台当前的 AppSecret（见 open.weixin.qq.com）",
);
const COMPONENT_FROZEN: BilingualText = text(
    "unfreeze the third-party platform's secret at open.weixin.qq.com (takes about 10 min)",
    "请在 open.weixin.qq.com 解冻第三方平台的 AppSecret（约 10 分钟生效）",
);
const COMPONENT_QUOTA: BilingualText = text(
    "wait for the next day; then find the other program that fetches this token: this server alone does not come near \
     the quota",
    "请等到次日；然后找出还有哪个程序在取这个 token：仅本服务远远用不完这个额度",
);
