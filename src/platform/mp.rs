//! Official accounts and mini programs: `api.weixin.qq.com`.
//!
//! Pages: "获取接口调用凭据" (token), "获取稳定版接口调用凭据" (stable_token), "JS-SDK使用权限签名算法" (ticket).

use super::{
    ApiCall, ApiEndpoint, CredentialType, Part, Platform, ProbeCall, Quota, Renewal, RequestTemplate, errcodes,
};

const NAME: &str = "mp";

pub static PLATFORM: Platform = Platform {
    name: NAME,
    base_url: "https://api.weixin.qq.com",
    calls_begin: "/cgi-bin/",
    // The nearest host, the one for disasters, then those of three cities.
    hosts: &[
        "https://api.weixin.qq.com",
        "https://api2.weixin.qq.com",
        "https://sh.api.weixin.qq.com",
        "https://sz.api.weixin.qq.com",
        "https://hk.api.weixin.qq.com",
    ],
    tokens: &[("stable_token", &STABLE), ("token", &CLASSIC)],
    tickets: &[("jsapi", &JSAPI), ("wx_card", &WX_CARD)],
    has_agents: false,
    usual_id: |id| id.strip_prefix("wx").is_some_and(|rest| rest.len() == 16 && rest.bytes().all(hex)),
    errcodes: &errcodes::MP,
};

/// `stable_token`: gives the same value until its last 5 minutes, unless forced. Independent of the classic token.
pub static STABLE: CredentialType = CredentialType {
    probe: Some(PROBE),
    can_force: true,
    // Forced calls: WeChat allows 20 a day; half of them are left for people with other tools.
    quota: Quota { per_minute: Some(10_000), forced_per_day: 10, ..Quota::daily(500_000) },
    ..CredentialType::token(
        ApiCall { platform: NAME, endpoint: ApiEndpoint::StableToken },
        "stable_token",
        Renewal::Window { window_ms: 300_000 },
        RequestTemplate::post(
            "/cgi-bin/stable_token",
            &[
                ("grant_type", Part::Word("client_credential")),
                ("appid", Part::Appid),
                ("secret", Part::Secret),
                ("force_refresh", Part::Force),
            ],
        ),
    )
};

/// `token`: each call makes a new token; the one before it lives 5 more minutes.
pub static CLASSIC: CredentialType =
    CredentialType { probe: Some(PROBE), ..classic_token(NAME, "token", "/cgi-bin/token") };

/// The contract of the classic token, which another platform has too.
pub(super) const fn classic_token(platform: &'static str, id: &'static str, path: &'static str) -> CredentialType {
    let query = &[("grant_type", Part::Word("client_credential")), ("appid", Part::Appid), ("secret", Part::Secret)];
    let api = ApiCall { platform, endpoint: ApiEndpoint::Token };
    // Test accounts have 200: the setting `daily_quota` says so.
    let quota = Quota::daily(2_000);
    CredentialType { quota, ..CredentialType::token(api, id, Renewal::Mint, RequestTemplate::get(path, query)) }
}

/// Also for an authorizer's token: that is an account's token like any other.
pub const PROBE: ProbeCall = ProbeCall {
    platform: NAME,
    template: RequestTemplate::get("/cgi-bin/get_api_domain_ip", &[("access_token", Part::Token)]),
};

/// For signing `wx.config`.
pub static JSAPI: CredentialType = CredentialType::ticket(
    NAME,
    "jsapi_ticket",
    "jsapi_ticket",
    RequestTemplate::get(GET_TICKET, &[("access_token", Part::Token), ("type", Part::Word("jsapi"))]),
    QUOTA,
);

/// For coupons and cards.
pub static WX_CARD: CredentialType = CredentialType::ticket(
    NAME,
    "wx_card_ticket",
    "wx_card_ticket",
    RequestTemplate::get(GET_TICKET, &[("access_token", Part::Token), ("type", Part::Word("wx_card"))]),
    QUOTA,
);

const GET_TICKET: &str = "/cgi-bin/ticket/getticket";
/// The page on tickets says "very limited" and gives no number: a cautious guess, three times what polling takes.
const QUOTA: Quota = Quota::daily(500);

fn hex(byte: u8) -> bool {
    byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte)
}
