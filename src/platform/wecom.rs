//! WeCom (企业微信): `qyapi.weixin.qq.com`. A corporation (corpid) has a secret for each of its apps, and each app has a
//! token of its own.
//!
//! Pages: "获取access_token", "JS-SDK使用权限签名算法" of the WeCom developer centre.

use super::errcodes::WECOM_ERRCODES;
use super::{
    AnswerFields, ApiCall, ApiEndpoint, CredentialType, FetchParams, HttpRequest, Platform, ProbeCall, Quota, Renewal,
};

const NAME: &str = "wecom";

pub static PLATFORM: Platform = Platform {
    name: NAME,
    base_url: "https://qyapi.weixin.qq.com",
    calls_begin: "/cgi-bin/",
    hosts: &["https://qyapi.weixin.qq.com"],
    tokens: &[("gettoken", &TOKEN)],
    tickets: &[("jsapi", &JSAPI), ("agent", &AGENT)],
    has_agents: true,
    usual_id: |id| id.starts_with("ww") || id.starts_with("wx"),
    errcodes: &WECOM_ERRCODES,
};

/// WeCom gives the same value as long as it lives: there is a new one only at its end.
pub static TOKEN: CredentialType = CredentialType {
    id: "wecom_token",
    key: "access_token",
    renewal: Renewal::AtEnd,
    life_ms_max: super::TWO_HOURS,
    answer_fields: AnswerFields::of("access_token"),
    api: ApiCall { platform: NAME, endpoint: ApiEndpoint::Token },
    needs_token: false,
    request: token_request,
    probe: Some(ProbeCall { platform: NAME, request: probe_request }),
    can_force: false,
    // No number is published for a day. About 2000 failed calls in an hour block the interface for an hour.
    quota: Quota { per_hour: Some(1_500), ..Quota::NONE },
};

/// The corporation's ticket, for `wx.config`.
pub static JSAPI: CredentialType =
    CredentialType::ticket(NAME, "wecom_jsapi_ticket", "jsapi_ticket", jsapi_ticket_request, QUOTA);

/// The app's ticket, for `wx.agentConfig`.
pub static AGENT: CredentialType =
    CredentialType::ticket(NAME, "wecom_agent_ticket", "agent_ticket", agent_ticket_request, QUOTA);

/// Page "访问频率限制": 100 tickets an hour for an app, and 400 for the corporation.
const QUOTA: Quota = Quota { per_hour: Some(100), ..Quota::NONE };

fn token_request(params: &FetchParams<'_>) -> HttpRequest {
    let query = vec![("corpid", params.appid.to_owned()), ("corpsecret", params.secret.expose().to_owned())];
    HttpRequest::get(params.base_url, "/cgi-bin/gettoken", query)
}

fn jsapi_ticket_request(params: &FetchParams<'_>) -> HttpRequest {
    HttpRequest::get(params.base_url, "/cgi-bin/get_jsapi_ticket", vec![("access_token", params.token.to_owned())])
}

fn agent_ticket_request(params: &FetchParams<'_>) -> HttpRequest {
    let query = vec![("access_token", params.token.to_owned()), ("type", "agent_config".to_owned())];
    HttpRequest::get(params.base_url, "/cgi-bin/ticket/get", query)
}

fn probe_request(base_url: &str, token: &str) -> HttpRequest {
    HttpRequest::get(base_url, "/cgi-bin/get_api_domain_ip", vec![("access_token", token.to_owned())])
}
