//! QQ mini programs: `api.q.qq.com`. The contract and the errors are those of WeChat's classic token.

use super::{CredentialType, Platform, errcodes, mp};

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
    errcodes: &errcodes::QQ,
};

/// Each call makes a new token, as with WeChat's classic token, whose quota is taken to be this one's: it is not
/// published. No cheap call is known that shows whether it works.
pub static TOKEN: CredentialType = mp::classic_token(NAME, "qq_token", "/api/getToken");
