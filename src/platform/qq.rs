//! QQ mini programs: `api.q.qq.com`. The contract and the errors are those of WeChat's classic token.

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
};

/// Mints each time, as WeChat's classic token does. No cheap read is known to try it on.
pub static TOKEN: CredentialType = CredentialType {
    id: "qq_token",
    key: "access_token",
    renewal: Renewal::Mint,
    life_ms_max: super::TWO_HOURS,
    answer_fields: AnswerFields::of("access_token"),
    api: ApiCall { platform: NAME, call: ApiEndpoint::Token },
    needs_token: false,
    request: token,
    probe: None,
    can_force: false,
    // Not published; the contract is the classic token's.
    quota: Quota::daily(2_000),
};

fn token(ask: &FetchParams<'_>) -> HttpRequest {
    let query = vec![
        ("grant_type", "client_credential".to_owned()),
        ("appid", ask.appid.to_owned()),
        ("secret", ask.secret.expose().to_owned()),
    ];
    HttpRequest::get(ask.base_url, "/api/getToken", query)
}
