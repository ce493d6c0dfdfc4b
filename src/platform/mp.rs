//! Official accounts and mini programs: `api.weixin.qq.com`.
//!
//! Pages: "获取接口调用凭据" (token), "获取稳定版接口调用凭据" (stable_token), "JS-SDK使用权限签名算法" (ticket).

use serde_json::json;

use super::errcodes::MP_ERRCODES;
use super::{
    AnswerFields, ApiCall, ApiEndpoint, CredentialType, FetchParams, HttpRequest, Platform, ProbeCall, Quota, Renewal,
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
    errcodes: &MP_ERRCODES,
};

/// `stable_token`: gives the same value until its last 5 minutes, unless forced. Independent of the classic token.
pub static STABLE: CredentialType = CredentialType {
    id: "stable_token",
    key: "access_token",
    renewal: Renewal::Window { window_ms: 300_000 },
    life_ms_max: super::TWO_HOURS,
    answer_fields: AnswerFields::of("access_token"),
    api: ApiCall { platform: NAME, endpoint: ApiEndpoint::StableToken },
    needs_token: false,
    request: stable_token_request,
    probe: Some(PROBE),
    can_force: true,
    // Forced calls: WeChat allows 20 a day; half of them are left for people with other tools.
    quota: Quota { per_minute: Some(10_000), forced_per_day: 10, ..Quota::daily(500_000) },
};

/// `token`: each call makes a new token; the one before it lives 5 more minutes.
pub static CLASSIC: CredentialType = CredentialType {
    id: "token",
    key: "access_token",
    renewal: Renewal::Mint,
    life_ms_max: super::TWO_HOURS,
    answer_fields: AnswerFields::of("access_token"),
    api: ApiCall { platform: NAME, endpoint: ApiEndpoint::Token },
    needs_token: false,
    request: classic_token_request,
    probe: Some(PROBE),
    can_force: false,
    // Test accounts have 200: the setting `daily_quota` says so.
    quota: Quota::daily(2_000),
};

/// Also for an authorizer's token: that is an account's token like any other.
pub const PROBE: ProbeCall = ProbeCall { platform: NAME, request: probe_request };

/// For signing `wx.config`.
pub static JSAPI: CredentialType =
    CredentialType::ticket(NAME, "jsapi_ticket", "jsapi_ticket", jsapi_ticket_request, QUOTA);

/// For coupons and cards.
pub static WX_CARD: CredentialType =
    CredentialType::ticket(NAME, "wx_card_ticket", "wx_card_ticket", wx_card_ticket_request, QUOTA);

/// The page on tickets says "very limited" and gives no number: a cautious guess, three times what polling takes.
const QUOTA: Quota = Quota::daily(500);

fn hex(byte: u8) -> bool {
    byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte)
}

fn stable_token_request(params: &FetchParams<'_>) -> HttpRequest {
    let body = json!({
        "grant_type": "client_credential",
        "appid": params.appid,
        "secret": params.secret.expose(),
        "force_refresh": params.force,
    });
    HttpRequest::post(params.base_url, "/cgi-bin/stable_token", &body)
}

fn classic_token_request(params: &FetchParams<'_>) -> HttpRequest {
    let query = vec![
        ("grant_type", "client_credential".to_owned()),
        ("appid", params.appid.to_owned()),
        ("secret", params.secret.expose().to_owned()),
    ];
    HttpRequest::get(params.base_url, "/cgi-bin/token", query)
}

fn jsapi_ticket_request(params: &FetchParams<'_>) -> HttpRequest {
    ticket_request(params, "jsapi")
}

fn wx_card_ticket_request(params: &FetchParams<'_>) -> HttpRequest {
    ticket_request(params, "wx_card")
}

fn ticket_request(params: &FetchParams<'_>, what: &str) -> HttpRequest {
    let query = vec![("access_token", params.token.to_owned()), ("type", what.to_owned())];
    HttpRequest::get(params.base_url, "/cgi-bin/ticket/getticket", query)
}

fn probe_request(base_url: &str, token: &str) -> HttpRequest {
    HttpRequest::get(base_url, "/cgi-bin/get_api_domain_ip", vec![("access_token", token.to_owned())])
}
