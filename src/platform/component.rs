//! The open platform: third-party platforms ("components") and the accounts that have authorised them.
//!
//! Pages: "获取第三方平台 component_access_token" (api_component_token), "获取/刷新接口调用令牌" (api_authorizer_token),
//! "验证票据推送" (component_verify_ticket).
//!
//! One follows from the other. WeChat *pushes* a verify ticket every ten minutes, which is good for twelve hours. With it
//! and the component's secret the component token is fetched. With that and an account's refresh token the account's own
//! access token is fetched, which is used like any account's. The refresh token comes once, when the account's
//! administrator authorises the component, and any answer may replace it: it must not be lost.

use super::{
    AnswerFields, ApiCall, ApiEndpoint, CredentialType, Part, Platform, Quota, Renewal, RequestTemplate, errcodes, mp,
};

const NAME: &str = "component";

/// What an `[[app]]` with `platform = "component"` is.
pub static PLATFORM: Platform = Platform {
    name: NAME,
    tokens: &[("api_component_token", &COMPONENT)],
    tickets: &[],
    errcodes: &errcodes::COMPONENT,
    ..mp::PLATFORM
};

/// What an `[[app.authorizer]]` is. It has no setting `platform`: it stands below its component and is not in
/// [`super::PLATFORMS`]. Its tickets are those of any account.
pub static AUTHORIZERS: Platform = Platform {
    name: "authorizer",
    tokens: &[("api_authorizer_token", &AUTHORIZER)],
    errcodes: &errcodes::COMPONENT,
    ..mp::PLATFORM
};

/// Each call makes a new token. WeChat does not publish how long the one before it lives on: taken to be as with the
/// classic token. So one node fetches, renewal comes well ahead of the end, and after a lost answer the old value is
/// trusted for the classic token's five minutes at most, while the call is repeated. The cheap calls that a component
/// token may make have small quotas, so it is not probed. The verify ticket takes the token's place in the call.
pub static COMPONENT: CredentialType = CredentialType {
    key: "component_access_token",
    answer_fields: AnswerFields::of("component_access_token"),
    // Not published; taken to be that of the classic token.
    quota: Quota::daily(2_000),
    ..CredentialType::token(
        ApiCall { platform: NAME, endpoint: ApiEndpoint::ComponentToken },
        "component_token",
        Renewal::Mint,
        RequestTemplate::post(
            "/cgi-bin/component/api_component_token",
            &[
                ("component_appid", Part::Appid),
                ("component_appsecret", Part::Secret),
                ("component_verify_ticket", Part::Token),
            ],
        ),
    )
};

/// As [`COMPONENT`], for one account. The refresh token takes the secret's place.
pub static AUTHORIZER: CredentialType = CredentialType {
    answer_fields: AnswerFields {
        refresh: Some("authorizer_refresh_token"),
        ..AnswerFields::of("authorizer_access_token")
    },
    needs_token: true,
    probe: Some(mp::PROBE),
    // The page says that there is one for each day and gives no number: a cautious guess, many times what renewals take.
    quota: Quota::daily(500),
    ..CredentialType::token(
        ApiCall { platform: NAME, endpoint: ApiEndpoint::AuthorizerToken },
        "authorizer_token",
        Renewal::Mint,
        RequestTemplate {
            path: "/cgi-bin/component/api_authorizer_token",
            query: &[("component_access_token", Part::Token)],
            body: &[
                ("component_appid", Part::Component),
                ("authorizer_appid", Part::Appid),
                ("authorizer_refresh_token", Part::Secret),
            ],
        },
    )
};

/// The second built-in name of an account's token, beside `access_token:<appid>`.
pub const AUTHORIZER_KEY: &str = "authorizer_access_token";

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::platform::FetchParams;
    use crate::secret::Secret;

    #[test]
    fn an_account_is_asked_for_with_its_components_name_and_token() {
        let secret = Secret::new("REFRESH".into());
        let params = FetchParams {
            base_url: "https://a/",
            appid: "wxauth",
            secret: &secret,
            token: "COMPONENT",
            component: "wxcomp",
            force: false,
        };
        let sent = AUTHORIZER.request(&params);
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
        let params = FetchParams {
            base_url: "https://a",
            appid: "wxcomp",
            secret: &secret,
            token: "ticket@@@T",
            component: "",
            force: false,
        };
        let sent = COMPONENT.request(&params);
        assert_eq!(sent.url, "https://a/cgi-bin/component/api_component_token");
        let body: serde_json::Value = serde_json::from_str(&sent.body.unwrap()).unwrap();
        let expected = json!({
            "component_appid": "wxcomp", "component_appsecret": "SECRET", "component_verify_ticket": "ticket@@@T",
        });
        assert_eq!((body, sent.query.len()), (expected, 0));
    }
}
