//! Feishu (Lark): the tenant token of a custom app, `open.feishu.cn`.
//!
//! Page: "自建应用获取 tenant_access_token": while 30 minutes or more are left Feishu gives the same value, after that a
//! new one, and both work. Tokens may be up to 4 KB long.

use serde_json::json;

use super::errcodes::FEISHU_ERRCODES;
use super::{AnswerFields, ApiCall, ApiEndpoint, CredentialType, FetchParams, HttpRequest, Platform, Quota, Renewal};

const NAME: &str = "feishu";

pub static PLATFORM: Platform = Platform {
    name: NAME,
    base_url: "https://open.feishu.cn",
    calls_begin: "/open-apis/",
    hosts: &["https://open.feishu.cn"],
    tokens: &[("tenant_access_token", &TOKEN)],
    tickets: &[],
    has_agents: false,
    usual_id: |id| id.starts_with("cli_"),
    errcodes: &FEISHU_ERRCODES,
};

pub static TOKEN: CredentialType = CredentialType {
    id: "feishu_tenant_token",
    key: "access_token",
    renewal: Renewal::Window { window_ms: 1_800_000 },
    life_ms_max: super::TWO_HOURS,
    answer_fields: AnswerFields {
        value: "tenant_access_token",
        life: "expire",
        code: "code",
        message: "msg",
        refresh: None,
    },
    api: ApiCall { platform: NAME, endpoint: ApiEndpoint::Token },
    needs_token: false,
    request: token_request,
    probe: None,
    can_force: false,
    quota: Quota::NONE,
};

fn token_request(params: &FetchParams<'_>) -> HttpRequest {
    let body = json!({ "app_id": params.appid, "app_secret": params.secret.expose() });
    HttpRequest::post(params.base_url, "/open-apis/auth/v3/tenant_access_token/internal", &body)
}
