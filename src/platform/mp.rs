//! Official accounts and mini programs: `api.weixin.qq.com`.
//!
//! Pages: "获取接口调用凭据" (token), "获取稳定版接口调用凭据" (stable_token), "JS-SDK使用权限签名算法" (ticket).

use serde_json::json;

use super::{
    AnswerFields, ApiCall, ApiEndpoint, CredentialType, FetchParams, HttpRequest, Platform, ProbeCall, Quota, Renewal,
};

const NAME: &str = "mp";

pub static PLATFORM: Platform = Platform {
    name: NAME,
    base_url: "https://api.weixin.qq.com",
    calls_begin: "/cgi-bin/",
    // The nearest, the general one for disasters, then those of three places.
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
};

/// `stable_token`: the same value until the last 5 minutes unless forced, isolated from the classic one.
pub static STABLE: CredentialType = CredentialType {
    id: "stable_token",
    key: "access_token",
    renewal: Renewal::Window { window_ms: 300_000 },
    life_ms_max: super::TWO_HOURS,
    answer_fields: AnswerFields::of("access_token"),
    api: ApiCall { platform: NAME, call: ApiEndpoint::StableToken },
    needs_token: false,
    request: stable,
    probe: Some(PROBE),
    can_force: true,
    // Forced: 20 a day, of which half are left to people with other tools.
    quota: Quota { per_minute: Some(10_000), forced_per_day: 10, ..Quota::daily(500_000) },
};

/// `token`: mints each time; the value before it lives 5 more minutes.
pub static CLASSIC: CredentialType = CredentialType {
    id: "token",
    key: "access_token",
    renewal: Renewal::Mint,
    life_ms_max: super::TWO_HOURS,
    answer_fields: AnswerFields::of("access_token"),
    api: ApiCall { platform: NAME, call: ApiEndpoint::Token },
    needs_token: false,
    request: classic,
    probe: Some(PROBE),
    can_force: false,
    // Test accounts have 200: the setting `daily_quota` says so.
    quota: Quota::daily(2_000),
};

/// Of an authorizer's token too: it is an account's as any other.
pub const PROBE: ProbeCall = ProbeCall { platform: NAME, request: probe };

/// For signing `wx.config`.
pub static JSAPI: CredentialType = CredentialType::ticket(NAME, "jsapi_ticket", "jsapi_ticket", jsapi, QUOTA);

/// For coupons and cards.
pub static WX_CARD: CredentialType = CredentialType::ticket(NAME, "wx_card_ticket", "wx_card_ticket", wx_card, QUOTA);

/// "Very limited", says the page on tickets, and gives no number: a cautious guess, three times what polling takes.
const QUOTA: Quota = Quota::daily(500);

fn hex(byte: u8) -> bool {
    byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte)
}

fn stable(ask: &FetchParams<'_>) -> HttpRequest {
    let body = json!({
        "grant_type": "client_credential",
        "appid": ask.appid,
        "secret": ask.secret.expose(),
        "force_refresh": ask.force,
    });
    HttpRequest::post(ask.base_url, "/cgi-bin/stable_token", &body)
}

fn classic(ask: &FetchParams<'_>) -> HttpRequest {
    let query = vec![
        ("grant_type", "client_credential".to_owned()),
        ("appid", ask.appid.to_owned()),
        ("secret", ask.secret.expose().to_owned()),
    ];
    HttpRequest::get(ask.base_url, "/cgi-bin/token", query)
}

fn jsapi(ask: &FetchParams<'_>) -> HttpRequest {
    ticket(ask, "jsapi")
}

fn wx_card(ask: &FetchParams<'_>) -> HttpRequest {
    ticket(ask, "wx_card")
}

fn ticket(ask: &FetchParams<'_>, what: &str) -> HttpRequest {
    let query = vec![("access_token", ask.token.to_owned()), ("type", what.to_owned())];
    HttpRequest::get(ask.base_url, "/cgi-bin/ticket/getticket", query)
}

fn probe(base_url: &str, token: &str) -> HttpRequest {
    HttpRequest::get(base_url, "/cgi-bin/get_api_domain_ip", vec![("access_token", token.to_owned())])
}
