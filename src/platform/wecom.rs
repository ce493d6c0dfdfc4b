//! WeCom (企业微信): `qyapi.weixin.qq.com`. A corporation (corpid) has a secret for each of its apps, and each app has a
//! token of its own.
//!
//! Pages: "获取access_token", "JS-SDK使用权限签名算法" of the WeCom developer centre.

use super::{
    ApiCall, ApiEndpoint, CredentialType, Part, Platform, ProbeCall, Quota, Renewal, RequestTemplate, errcodes, mp,
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
    errcodes: &errcodes::WECOM,
};

/// WeCom gives the same value as long as it lives: there is a new one only at its end.
pub static TOKEN: CredentialType = CredentialType {
    probe: Some(ProbeCall { platform: NAME, ..mp::PROBE }),
    // No number is published for a day. About 2000 failed calls in an hour block the interface for an hour.
    quota: Quota { per_hour: Some(1_500), ..Quota::NONE },
    ..CredentialType::token(
        ApiCall { platform: NAME, endpoint: ApiEndpoint::Token },
        "wecom_token",
        Renewal::AtEnd,
        RequestTemplate::get("/cgi-bin/gettoken", &[("corpid", Part::Appid), ("corpsecret", Part::Secret)]),
    )
};

/// The corporation's ticket, for `wx.config`.
pub static JSAPI: CredentialType = CredentialType::ticket(
    NAME,
    "wecom_jsapi_ticket",
    "jsapi_ticket",
    RequestTemplate::get("/cgi-bin/get_jsapi_ticket", &[("access_token", Part::Token)]),
    QUOTA,
);

/// The app's ticket, for `wx.agentConfig`.
pub static AGENT: CredentialType = CredentialType::ticket(
    NAME,
    "wecom_agent_ticket",
    "agent_ticket",
    RequestTemplate::get("/cgi-bin/ticket/get", &[("access_token", Part::Token), ("type", Part::Word("agent_config"))]),
    QUOTA,
);

/// Page "访问频率限制": 100 tickets an hour for an app, and 400 for the corporation.
const QUOTA: Quota = Quota { per_hour: Some(100), ..Quota::NONE };
