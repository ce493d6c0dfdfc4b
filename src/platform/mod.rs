//! The platforms: for each type of credential what is sent, what comes back, when it is renewed, and what each error
//! code means.
//!
//! | where | what |
//! |---|---|
//! | `mp.rs`, `wecom.rs`, `qq.rs`, `feishu.rs`, `component.rs` | a platform each: addresses, requests, renewal rules, quotas |
//! | `errcodes.rs`, `errcodes/` | a table a platform: what an error code means, its class, what to do about it |
//! | `answer.rs` | an answer's bytes become a token or a [`Failure`] |
//! | `failure.rs` | why a call brought no token, and the advice for the operator |
//! | `client.rs`, `hosts.rs` | the HTTPS client, and which of several hosts it calls |
//!
//! All but the client is values and pure functions. A new platform is a file here, a table in `errcodes/` and a line in
//! [`PLATFORMS`]; `tests/README.md` has the other places that name one. Never decides when a call is made.

pub mod answer;
pub mod client;
pub mod component;
mod credential_name;
pub mod errcodes;
pub mod failure;
pub mod feishu;
pub mod hosts;
pub mod mp;
pub mod plausible;
pub mod qq;
pub mod wecom;

pub use answer::{LifetimeSource, Probe, Token};
pub use client::{Client, ClientOptions, Upstream, UpstreamFuture};
pub use credential_name::CredentialName;
pub use failure::{Class, Delivery, Failure, FailureClass, Pace, Wait};

use serde::Deserialize;

use crate::secret::Secret;
use errcodes::ErrcodeTable;

/// Every platform the server keeps credentials for.
pub static PLATFORMS: &[&Platform] =
    &[&mp::PLATFORM, &wecom::PLATFORM, &qq::PLATFORM, &feishu::PLATFORM, &component::PLATFORM];

/// A platform, as the setting `platform` names it.
#[derive(Debug)]
pub struct Platform {
    pub name: &'static str,
    /// Where its API is, unless `base_url` is configured.
    pub base_url: &'static str,
    pub calls_begin: &'static str,
    /// Hosts that give the same answers, in order of preference; the first is `base_url`.
    pub hosts: &'static [&'static str],
    /// The access token's endpoints, by the setting `endpoint`; the first is the default.
    pub tokens: &'static [(&'static str, &'static CredentialType)],
    /// The tickets that are fetched with the access token, by the setting `tickets`.
    pub tickets: &'static [(&'static str, &'static CredentialType)],
    /// One id has several secrets, told apart by the setting `agent`.
    pub has_agents: bool,
    /// Whether an id looks as ids of this platform do; another one is worth a warning.
    pub usual_id: fn(&str) -> bool,
    pub errcodes: &'static ErrcodeTable,
}

/// A type of credential: an access token from one endpoint, or one ticket.
#[derive(Debug)]
pub struct CredentialType {
    /// Names the type in the state file; never changes.
    pub id: &'static str,
    /// The built-in key is `<key>:<appid>`.
    pub key: &'static str,
    pub renewal: Renewal,
    /// No value lives longer, whatever another node or a state file says.
    pub life_ms_max: u64,
    pub answer_fields: AnswerFields,
    /// Which call of which platform fetches it: that decides what an error code means.
    pub api: ApiCall,
    /// Fetched with another credential's live value: the app's access token, an authorizer's component token.
    pub needs_token: bool,
    template: RequestTemplate,
    /// A cheap call that works with any live value; none is known for some types.
    pub probe: Option<ProbeCall>,
    /// The platform can be told to replace a live value; see [`FetchParams::force`].
    pub can_force: bool,
    pub quota: Quota,
}

/// A call of a platform. What an error code means depends on both.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct ApiCall {
    /// As [`Platform::name`]; of an authorizer's own token that of its component.
    pub platform: &'static str,
    pub endpoint: ApiEndpoint,
}

/// The endpoints whose error codes have different meanings, as the tables of error codes name them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ApiEndpoint {
    /// An app's access token.
    Token,
    /// The same, from the endpoint that gives the same token again while it lives.
    StableToken,
    Ticket,
    ComponentToken,
    AuthorizerToken,
    /// The cheap call that shows whether a token works.
    Probe,
}

/// The cheap call that shows whether a value works.
#[derive(Clone, Copy, Debug)]
pub struct ProbeCall {
    /// Who answers it, as [`Platform::name`].
    pub platform: &'static str,
    template: RequestTemplate,
}

impl ProbeCall {
    pub const fn api(&self) -> ApiCall {
        ApiCall { platform: self.platform, endpoint: ApiEndpoint::Probe }
    }

    pub fn request(&self, base_url: &str, value: &str) -> HttpRequest {
        let secret = &Secret::new(String::new());
        self.template.fill(&FetchParams { base_url, appid: "", secret, token: value, force: false, component: "" })
    }
}

/// The longest life of tokens and tickets: two hours, and ten minutes for clocks and rounding.
const TWO_HOURS: u64 = 7_800_000;

/// How many calls of an endpoint one app may make; `None` where the platform publishes no number. Days begin at midnight
/// in UTC+8.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Quota {
    pub per_day: Option<u64>,
    pub per_hour: Option<u64>,
    pub per_minute: Option<u64>,
    /// Of the day's calls, those that scheduled renewals leave for verifications, for people and for values that are
    /// about to end.
    pub reserve: u64,
    /// Of the day's calls, those that may make the platform replace a live value.
    pub forced_per_day: u64,
}

impl Quota {
    pub const NONE: Quota = Quota { per_day: None, per_hour: None, per_minute: None, reserve: 0, forced_per_day: 0 };

    /// So many calls a day, with the usual reserve: a tenth, and five at least.
    pub const fn daily(per_day: u64) -> Quota {
        Quota::NONE.with_daily(per_day)
    }

    /// The same with another limit for the day.
    pub const fn with_daily(self, per_day: u64) -> Quota {
        let reserve = if per_day / 10 < 5 { 5 } else { per_day / 10 };
        Quota { per_day: Some(per_day), reserve, ..self }
    }

    /// How many of a day's calls scheduled renewals may use. At most half of a small quota is reserved.
    pub fn renewals(&self, per_day: u64) -> u64 {
        per_day - self.reserve.min(per_day / 2)
    }
}

impl CredentialType {
    /// An app's access token, as WeChat's are. No number of calls is known, and no call that probes or forces one.
    const fn token(api: ApiCall, id: &'static str, renewal: Renewal, template: RequestTemplate) -> CredentialType {
        CredentialType {
            id,
            key: "access_token",
            renewal,
            life_ms_max: TWO_HOURS,
            answer_fields: AnswerFields::of("access_token"),
            api,
            needs_token: false,
            template,
            probe: None,
            can_force: false,
            quota: Quota::NONE,
        }
    }

    /// A ticket: fetched with the access token, and polled.
    const fn ticket(
        platform: &'static str,
        id: &'static str,
        key: &'static str,
        template: RequestTemplate,
        quota: Quota,
    ) -> CredentialType {
        let api = ApiCall { platform, endpoint: ApiEndpoint::Ticket };
        let answer_fields = AnswerFields::of("ticket");
        let ticket = CredentialType::token(api, id, Renewal::Poll, template);
        CredentialType { key, answer_fields, needs_token: true, quota, ..ticket }
    }

    pub fn request(&self, params: &FetchParams<'_>) -> HttpRequest {
        self.template.fill(params)
    }
}

impl PartialEq for CredentialType {
    fn eq(&self, other: &CredentialType) -> bool {
        self.id == other.id
    }
}

/// What the platform does when it is asked again: that decides when to ask.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Renewal {
    /// It gives the same value until the last `window_ms` of a life of two hours, then a new one; the old one lives on.
    Window { window_ms: u64 },
    /// Each call makes a new value, and the one before it ends soon after.
    Mint,
    /// It gives the same value until that has ended.
    AtEnd,
    /// It gives the same value and the same lifetime, however old the value is, and changes it at any time.
    Poll,
}

/// The names of an answer's fields.
#[derive(Clone, Copy, Debug)]
pub struct AnswerFields {
    pub value: &'static str,
    pub life: &'static str,
    pub code: &'static str,
    pub message: &'static str,
    /// The refresh token for the next renewal, if answers may bring one.
    pub refresh: Option<&'static str>,
}

impl AnswerFields {
    /// WeChat's usual names, with this one for the value.
    pub const fn of(value: &'static str) -> AnswerFields {
        AnswerFields { value, life: "expires_in", code: "errcode", message: "errmsg", refresh: None }
    }
}

/// What a request is built from. No `Debug`: it has the secret and a token.
#[derive(Clone, Copy)]
pub struct FetchParams<'a> {
    /// Scheme, host and perhaps a port; a trailing slash does no harm.
    pub base_url: &'a str,
    pub appid: &'a str,
    /// The app's secret; of an authorizer its refresh token.
    pub secret: &'a Secret,
    /// The live value it is fetched with, for types that need one; of a component the verify ticket; empty otherwise.
    pub token: &'a str,
    /// Replace the value although it lives; for types that can.
    pub force: bool,
    /// An authorizer's component; empty otherwise.
    pub component: &'a str,
}

/// A request that has not been sent. No `Debug`: queries and bodies have secrets and tokens.
pub struct HttpRequest {
    /// The full address without the query.
    pub url: String,
    pub query: Vec<(&'static str, String)>,
    /// The JSON body. With one the request is a POST, without a GET.
    pub body: Option<String>,
}

#[derive(Clone, Copy, Debug)]
struct RequestTemplate {
    path: &'static str,
    query: &'static [(&'static str, Part)],
    /// Of the JSON object that is posted; empty for a GET.
    body: &'static [(&'static str, Part)],
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Part {
    Word(&'static str),
    Appid,
    Secret,
    Token,
    Component,
    Force,
}

impl RequestTemplate {
    const fn get(path: &'static str, query: &'static [(&'static str, Part)]) -> RequestTemplate {
        RequestTemplate { path, query, body: &[] }
    }

    const fn post(path: &'static str, body: &'static [(&'static str, Part)]) -> RequestTemplate {
        RequestTemplate { path, query: &[], body }
    }

    fn fill(&self, params: &FetchParams<'_>) -> HttpRequest {
        let url = format!("{}{}", params.base_url.trim_end_matches('/'), self.path);
        let query = self.query.iter().map(|(name, part)| (*name, part.text(params).to_owned())).collect();
        let field = |(name, part): &(&str, Part)| match part {
            Part::Force => ((*name).to_owned(), params.force.into()),
            part => ((*name).to_owned(), part.text(params).into()),
        };
        let body: serde_json::Map<_, _> = self.body.iter().map(field).collect();
        let body = (!body.is_empty()).then(|| serde_json::Value::Object(body).to_string());
        HttpRequest { url, query, body }
    }
}

impl Part {
    fn text<'p>(self, params: &FetchParams<'p>) -> &'p str {
        match self {
            Part::Word(word) => word,
            Part::Appid => params.appid,
            Part::Secret => params.secret.expose(),
            Part::Token => params.token,
            Part::Component => params.component,
            Part::Force if params.force => "true",
            Part::Force => "false",
        }
    }
}

pub fn platform(name: &str) -> Option<&'static Platform> {
    PLATFORMS.iter().copied().find(|platform| platform.name == name)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashSet;

    fn types() -> impl Iterator<Item = &'static CredentialType> {
        PLATFORMS
            .iter()
            .flat_map(|platform| platform.tokens.iter().chain(platform.tickets))
            .map(|(_, credential_type)| *credential_type)
    }

    #[test]
    fn ids_are_unique_and_every_platform_has_a_token() {
        let ids: Vec<&str> = types().map(|credential_type| credential_type.id).collect();
        assert_eq!(ids.iter().collect::<HashSet<_>>().len(), ids.len());
        assert!(PLATFORMS.iter().all(|platform| !platform.tokens.is_empty()));
    }

    #[test]
    fn a_platforms_first_host_is_its_base_url() {
        assert!(PLATFORMS.iter().all(|platform| platform.hosts.first() == Some(&platform.base_url)));
    }

    #[test]
    fn only_a_ticket_needs_a_token_and_a_token_call_never_puts_the_secret_into_the_path() {
        let secret = Secret::new("s3cr3t".into());
        for platform in PLATFORMS {
            assert!(platform.tokens.iter().all(|(_, credential_type)| !credential_type.needs_token));
            assert!(platform.tickets.iter().all(|(_, credential_type)| credential_type.needs_token));
        }
        for credential_type in types() {
            let params = FetchParams {
                base_url: "https://a/",
                appid: "wx1",
                secret: &secret,
                token: "T",
                component: "",
                force: false,
            };
            let sent = credential_type.request(&params);
            assert!(sent.url.starts_with("https://a/") && !sent.url.contains("s3cr3t"), "{}", credential_type.id);
            let carries = |text: &str| {
                sent.query.iter().any(|(_, value)| value == text)
                    || sent.body.as_ref().is_some_and(|body| body.contains(text))
            };
            assert!(carries(if credential_type.needs_token { "T" } else { "s3cr3t" }), "{}", credential_type.id);
            assert!(!credential_type.needs_token || !carries("s3cr3t"), "{}", credential_type.id);
        }
    }
}
