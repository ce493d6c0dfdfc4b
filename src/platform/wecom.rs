//! 企业微信: `qyapi.weixin.qq.com`. One corpid has a secret for each of its apps, and each app a token of its own.
//!
//! Pages: "获取access_token", "JS-SDK使用权限签名算法" of the WeCom developer centre.

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
};

/// The same value within its life: it can be had anew only at its end.
pub static TOKEN: CredentialType = CredentialType {
    id: "wecom_token",
    key: "access_token",
    renewal: Renewal::AtEnd,
    life_ms_max: super::TWO_HOURS,
    answer_fields: AnswerFields::of("access_token"),
    api: ApiCall { platform: NAME, call: ApiEndpoint::Token },
    needs_token: false,
    request: token,
    probe: Some(ProbeCall { platform: NAME, request: probe }),
    can_force: false,
    // None is published for a day. Some 2000 failing calls in an hour block the interface for an hour.
    quota: Quota { per_hour: Some(1_500), ..Quota::NONE },
};

/// The corporation's, for `wx.config`.
pub static JSAPI: CredentialType = CredentialType::ticket(NAME, "wecom_jsapi_ticket", "jsapi_ticket", jsapi, QUOTA);

/// The app's, for `wx.agentConfig`.
pub static AGENT: CredentialType = CredentialType::ticket(NAME, "wecom_agent_ticket", "agent_ticket", agent, QUOTA);

/// Page "访问频率限制": 100 tickets an hour for an app, and 400 for the corporation.
const QUOTA: Quota = Quota { per_hour: Some(100), ..Quota::NONE };

fn token(ask: &FetchParams<'_>) -> HttpRequest {
    let query = vec![("corpid", ask.appid.to_owned()), ("corpsecret", ask.secret.expose().to_owned())];
    HttpRequest::get(ask.base_url, "/cgi-bin/gettoken", query)
}

fn jsapi(ask: &FetchParams<'_>) -> HttpRequest {
    HttpRequest::get(ask.base_url, "/cgi-bin/get_jsapi_ticket", vec![("access_token", ask.token.to_owned())])
}

fn agent(ask: &FetchParams<'_>) -> HttpRequest {
    let query = vec![("access_token", ask.token.to_owned()), ("type", "agent_config".to_owned())];
    HttpRequest::get(ask.base_url, "/cgi-bin/ticket/get", query)
}

fn probe(base_url: &str, token: &str) -> HttpRequest {
    HttpRequest::get(base_url, "/cgi-bin/get_api_domain_ip", vec![("access_token", token.to_owned())])
}
