//! The open platform: third-party platforms ("components") and the accounts that have authorised them.
//!
//! Pages: "获取第三方平台 component_access_token" (api_component_token), "获取/刷新接口调用令牌" (api_authorizer_token),
//! "验证票据推送" (component_verify_ticket).
//!
//! Three things follow from each other: WeChat *pushes* a verify ticket every ten minutes, good for twelve hours; with
//! it and the component's secret comes the component token; with that and an account's refresh token comes the
//! account's own access token, which is used as any account's is. The refresh token comes once, from the account's
//! administrator, and perhaps anew with any answer: it must not be lost.

use serde_json::json;

use super::{
    AnswerFields, ApiCall, ApiEndpoint, CredentialType, FetchParams, HttpRequest, Platform, Quota, Renewal, mp,
};

const NAME: &str = "component";

/// What an `[[app]]` of `kind = "component"` is.
pub static PLATFORM: Platform = Platform {
    name: NAME,
    base_url: mp::PLATFORM.base_url,
    calls_begin: mp::PLATFORM.calls_begin,
    hosts: mp::PLATFORM.hosts,
    tokens: &[("api_component_token", &COMPONENT)],
    tickets: &[],
    has_agents: false,
    usual_id: mp::PLATFORM.usual_id,
};

/// What an `[[app.authorizer]]` is. No `kind` of its own: it stands below its component and is not in
/// [`super::PLATFORMS`]. Its tickets are any account's.
pub static AUTHORIZERS: Platform = Platform {
    name: "authorizer",
    base_url: mp::PLATFORM.base_url,
    calls_begin: mp::PLATFORM.calls_begin,
    hosts: mp::PLATFORM.hosts,
    tokens: &[("api_authorizer_token", &AUTHORIZER)],
    tickets: mp::PLATFORM.tickets,
    has_agents: false,
    usual_id: mp::PLATFORM.usual_id,
};

/// Mints each time, at any time. How long the token before it lives on is not published: taken as with the classic
/// token. So there is one owner, renewal comes well ahead of the end, and after an answer that was lost the old value
/// is trusted for the classic token's five minutes at most, while it is asked again.
pub static COMPONENT: CredentialType = CredentialType {
    id: "component_token",
    key: "component_access_token",
    renewal: Renewal::Mint,
    life_ms_max: super::TWO_HOURS,
    answer_fields: AnswerFields::of("component_access_token"),
    api: ApiCall { platform: NAME, call: ApiEndpoint::ComponentToken },
    needs_token: false,
    request: component,
    // Reads that a component token alone may do have quotas of their own.
    probe: None,
    can_force: false,
    // Not published; the classic token's.
    quota: Quota::daily(2_000),
};

/// As [`COMPONENT`], for one account. The refresh token stands in the secret's place.
pub static AUTHORIZER: CredentialType = CredentialType {
    id: "authorizer_token",
    key: "access_token",
    renewal: Renewal::Mint,
    life_ms_max: super::TWO_HOURS,
    answer_fields: AnswerFields {
        value: "authorizer_access_token",
        refresh: Some("authorizer_refresh_token"),
        ..AnswerFields::of("authorizer_access_token")
    },
    api: ApiCall { platform: NAME, call: ApiEndpoint::AuthorizerToken },
    needs_token: true,
    request: authorizer,
    probe: Some(mp::PROBE),
    can_force: false,
    // There is one a day, says the page, and gives no number: a cautious guess, many times what renewals take.
    quota: Quota::daily(500),
};

/// The second built-in name of an account's token, beside `access_token:<appid>`.
pub const AUTHORIZER_KEY: &str = "authorizer_access_token";

/// The verify ticket takes the token's place: it is what the call is made with.
fn component(ask: &FetchParams<'_>) -> HttpRequest {
    let body = json!({
        "component_appid": ask.appid,
        "component_appsecret": ask.secret.expose(),
        "component_verify_ticket": ask.token,
    });
    HttpRequest::post(ask.base_url, "/cgi-bin/component/api_component_token", &body)
}

fn authorizer(ask: &FetchParams<'_>) -> HttpRequest {
    let body = json!({
        "component_appid": ask.component,
        "authorizer_appid": ask.appid,
        "authorizer_refresh_token": ask.secret.expose(),
    });
    let query = vec![("component_access_token", ask.token.to_owned())];
    HttpRequest { query, ..HttpRequest::post(ask.base_url, "/cgi-bin/component/api_authorizer_token", &body) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::secret::Secret;

    #[test]
    fn an_account_is_asked_for_with_its_components_name_and_token() {
        let secret = Secret::new("REFRESH".into());
        let ask = FetchParams {
            base_url: "https://a/",
            appid: "wxauth",
            secret: &secret,
            token: "COMPONENT",
            component: "wxcomp",
            force: false,
        };
        let sent = (AUTHORIZER.request)(&ask);
        assert_eq!(sent.url, "https://a/cgi-bin/component/api_authorizer_token");
        assert_eq!(sent.query, [("component_access_token", "COMPONENT".to_owned())]);
        let body: serde_json::Value = serde_json::from_str(&sent.body.unwrap()).unwrap();
        let expected = json!({
            "component_appid": "wxcomp", "authorizer_appid": "wxauth", "authorizer_refresh_token": "REFRESH",
        });
        assert_eq!(body, expected);
    }

    #[test]
    fn a_component_is_asked_for_with_its_secret_and_the_pushed_ticket() {
        let secret = Secret::new("SECRET".into());
        let ask = FetchParams {
            base_url: "https://a",
            appid: "wxcomp",
            secret: &secret,
            token: "ticket@@@T",
            component: "",
            force: false,
        };
        let sent = (COMPONENT.request)(&ask);
        assert_eq!(sent.url, "https://a/cgi-bin/component/api_component_token");
        let body: serde_json::Value = serde_json::from_str(&sent.body.unwrap()).unwrap();
        let expected = json!({
            "component_appid": "wxcomp", "component_appsecret": "SECRET", "component_verify_ticket": "ticket@@@T",
        });
        assert_eq!((body, sent.query.len()), (expected, 0));
    }
}
