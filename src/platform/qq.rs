//! QQ mini programs: `api.q.qq.com`. The contract and the errors are those of WeChat's classic token.

use super::errcodes::QQ_ERRCODES;
use super::{AnswerFields, ApiCall, ApiEndpoint, CredentialType, FetchParams, HttpRequest, Platform, Quota, Renewal};

const NAME: &str = "qq";

pub static PLATFORM: Platform = Platform {
    name: NAME,
    base_url: "https://api.q.qq.com",
    calls_begin: "/api/",
    hosts: &["https://api.q.qq.com"],
    tokens: &[("getToken", &TOKEN)],
    tickets: &[],
    has_agents: false,
    usual_id: |id| id.bytes().all(|byte| byte.is_ascii_digit()),
    errcodes: &QQ_ERRCODES,
};

/// Each call makes a new token, as with WeChat's classic token. No cheap call is known that shows whether it works.
pub static TOKEN: CredentialType = CredentialType {
    id: "qq_token",
    key: "access_token",
    renewal: Renewal::Mint,
    life_ms_max: super::TWO_HOURS,
    answer_fields: AnswerFields::of("access_token"),
    api: ApiCall { platform: NAME, endpoint: ApiEndpoint::Token },
    needs_token: false,
    request: token_request,
    probe: None,
    can_force: false,
    // Not published; taken to be that of the classic token.
    quota: Quota::daily(2_000),
};

fn token_request(params: &FetchParams<'_>) -> HttpRequest {
    let query = vec![
        ("grant_type", "client_credential".to_owned()),
        ("appid", params.appid.to_owned()),
        ("secret", params.secret.expose().to_owned()),
    ];
    HttpRequest::get(params.base_url, "/api/getToken", query)
}
