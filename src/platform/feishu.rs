//! Feishu (Lark): the tenant token of a custom app, `open.feishu.cn`.
//!
//! Page: "自建应用获取 tenant_access_token": while 30 minutes or more are left Feishu gives the same value, after that a
//! new one, and both work. Tokens may be up to 4 KB long.

use super::{AnswerFields, ApiCall, ApiEndpoint, CredentialType, Part, Platform, Renewal, RequestTemplate, errcodes};

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
    errcodes: &errcodes::FEISHU,
};

pub static TOKEN: CredentialType = CredentialType {
    answer_fields: AnswerFields {
        value: "tenant_access_token",
        life: "expire",
        code: "code",
        message: "msg",
        refresh: None,
    },
    ..CredentialType::token(
        ApiCall { platform: NAME, endpoint: ApiEndpoint::Token },
        "feishu_tenant_token",
        Renewal::Window { window_ms: 1_800_000 },
        RequestTemplate::post(
            "/open-apis/auth/v3/tenant_access_token/internal",
            &[("app_id", Part::Appid), ("app_secret", Part::Secret)],
        ),
    )
};
