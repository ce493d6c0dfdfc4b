//! What is sent to WeChat, as plain values. No I/O.
//!
//! No `Debug` here: queries and bodies carry app secrets and tokens.

use serde::Serialize;

use crate::config::Endpoint;
use crate::secret::Secret;

/// One token call: which app, with which secret, through which endpoint.
#[derive(Clone, Copy)]
pub struct FetchSpec<'a> {
    /// Scheme, host and perhaps a port; a trailing slash does no harm.
    pub base_url: &'a str,
    pub appid: &'a str,
    pub secret: &'a Secret,
    pub endpoint: Endpoint,
}

/// A request before it becomes bytes.
pub struct Outgoing {
    /// Full address without a query.
    pub url: String,
    pub query: Vec<(&'static str, String)>,
    /// JSON body; its presence makes the request a POST.
    pub body: Option<String>,
}

/// The token call. Stable is never forced here: forcing is an operator's decision.
pub fn token(spec: &FetchSpec<'_>) -> Outgoing {
    match spec.endpoint {
        Endpoint::StableToken => Outgoing {
            url: join(spec.base_url, "/cgi-bin/stable_token"),
            query: Vec::new(),
            body: Some(stable_body(spec)),
        },
        Endpoint::Token => Outgoing {
            url: join(spec.base_url, "/cgi-bin/token"),
            query: vec![
                ("grant_type", "client_credential".to_owned()),
                ("appid", spec.appid.to_owned()),
                ("secret", spec.secret.expose().to_owned()),
            ],
            body: None,
        },
    }
}

/// A cheap read that any live token may do: tells whether WeChat still accepts it.
pub fn probe(base_url: &str, token: &str) -> Outgoing {
    Outgoing {
        url: join(base_url, "/cgi-bin/get_api_domain_ip"),
        query: vec![("access_token", token.to_owned())],
        body: None,
    }
}

fn stable_body(spec: &FetchSpec<'_>) -> String {
    #[derive(Serialize)]
    struct Body<'a> {
        grant_type: &'static str,
        appid: &'a str,
        secret: &'a str,
        force_refresh: bool,
    }
    let body =
        Body { grant_type: "client_credential", appid: spec.appid, secret: spec.secret.expose(), force_refresh: false };
    // Three strings and a bool always serialise; an empty body would be answered with 41002 and logged.
    serde_json::to_string(&body).unwrap_or_default()
}

fn join(base_url: &str, path: &str) -> String {
    format!("{}{path}", base_url.trim_end_matches('/'))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn spec(secret: &Secret, endpoint: Endpoint) -> FetchSpec<'_> {
        FetchSpec { base_url: "https://api.weixin.qq.com/", appid: "wx1", secret, endpoint }
    }

    #[test]
    fn a_stable_call_is_posted_and_never_forced() {
        let secret = Secret::new("s\"1".into());
        let sent = token(&spec(&secret, Endpoint::StableToken));
        assert_eq!(sent.url, "https://api.weixin.qq.com/cgi-bin/stable_token");
        assert!(sent.query.is_empty());
        let body: serde_json::Value = serde_json::from_str(&sent.body.unwrap()).unwrap();
        assert_eq!(
            body,
            serde_json::json!({
                "grant_type": "client_credential", "appid": "wx1", "secret": "s\"1", "force_refresh": false
            })
        );
    }

    #[test]
    fn a_classic_call_is_a_get() {
        let secret = Secret::new("s1".into());
        let sent = token(&spec(&secret, Endpoint::Token));
        assert_eq!(sent.url, "https://api.weixin.qq.com/cgi-bin/token");
        assert!(sent.body.is_none());
        assert_eq!(sent.query[1], ("appid", "wx1".to_owned()));
    }
}
