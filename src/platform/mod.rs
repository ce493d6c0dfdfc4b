//! The kinds of credentials, platform by platform: what to send, what comes back, when to renew.
//!
//! All of it is values and pure functions. A new platform is a file here and a line in [`PLATFORMS`]; nothing else in
//! the house names one. Never sends anything.

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
pub use client::{Client, ClientBuildError, ClientOptions, Upstream, UpstreamFuture};
pub use credential_name::CredentialName;
pub use failure::{Class, Delivery, Failure, Pace, Wait};

use crate::secret::Secret;

/// Every platform the server keeps credentials for.
pub static PLATFORMS: &[&Platform] =
    &[&mp::PLATFORM, &wecom::PLATFORM, &qq::PLATFORM, &feishu::PLATFORM, &component::PLATFORM];

/// A platform as the configuration's `kind` names it.
#[derive(Debug)]
pub struct Platform {
    pub name: &'static str,
    /// Where its API is, unless configured.
    pub base_url: &'static str,
    /// How the paths of its calls begin.
    pub calls_begin: &'static str,
    /// Hosts that answer alike, in order of preference; the first is `base_url`.
    pub hosts: &'static [&'static str],
    /// Ways to get the access token by the configuration's `endpoint`; the first is the default.
    pub tokens: &'static [(&'static str, &'static CredentialType)],
    /// What can be had with the access token, by the configuration's `tickets`.
    pub tickets: &'static [(&'static str, &'static CredentialType)],
    /// One id has several secrets, told apart by the configuration's `agent`.
    pub has_agents: bool,
    /// An id looks like this; anything else is worth a warning.
    pub usual_id: fn(&str) -> bool,
}

/// A kind of credential.
#[derive(Debug)]
pub struct CredentialType {
    /// Names the kind in the state file; never changes.
    pub id: &'static str,
    /// The built-in key is `<key>:<appid>`.
    pub key: &'static str,
    pub renewal: Renewal,
    /// No value lives longer, whatever another node or a kept state says of it.
    pub life_ms_max: u64,
    pub answer_fields: AnswerFields,
    /// Who answers and which call it is, which decides what an error code means.
    pub api: ApiCall,
    /// Fetched with another credential's live value: the app's access token, an authorizer's component token.
    pub needs_token: bool,
    pub request: fn(&FetchParams<'_>) -> HttpRequest,
    /// A cheap read that any live value may do.
    pub probe: Option<ProbeCall>,
    /// WeChat can be told to replace a live value; see [`FetchParams::force`].
    pub can_force: bool,
    /// How often it may be asked.
    pub quota: Quota,
}

/// A call of a platform. What an error code means belongs to both.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct ApiCall {
    /// As [`Platform::name`]; of an authorizer's own token that of its component.
    pub platform: &'static str,
    pub call: ApiEndpoint,
}

/// The calls whose error codes are told apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ApiEndpoint {
    /// An app's access token.
    Token,
    /// The same from the endpoint that hands the token out again.
    StableToken,
    /// A ticket.
    Ticket,
    ComponentToken,
    AuthorizerToken,
    /// The cheap read on which a token is tried.
    Probe,
}

/// The cheap read on which a value is tried.
#[derive(Clone, Copy, Debug)]
pub struct ProbeCall {
    /// Who answers it, as [`Platform::name`].
    pub platform: &'static str,
    /// (base URL, value)
    pub request: fn(&str, &str) -> HttpRequest,
}

impl ProbeCall {
    pub const fn api(&self) -> ApiCall {
        ApiCall { platform: self.platform, call: ApiEndpoint::Probe }
    }
}

/// Tokens and tickets of two hours, and ten minutes for clocks and roundings.
const TWO_HOURS: u64 = 7_800_000;

/// How many calls of an endpoint one app may make; `None` where nothing is published. Days are those of UTC+8.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Quota {
    pub per_day: Option<u64>,
    pub per_hour: Option<u64>,
    pub per_minute: Option<u64>,
    /// Of the day's calls, those a scheduled renewal leaves to checks, to people, and to values about to die.
    pub reserve: u64,
    /// Of the day's calls, those that may make WeChat replace a live value.
    pub forced_per_day: u64,
}

impl Quota {
    /// No bound is known.
    pub const NONE: Quota = Quota { per_day: None, per_hour: None, per_minute: None, reserve: 0, forced_per_day: 0 };

    /// So many calls a day, with the usual reserve: a tenth, and five at least.
    pub const fn daily(per_day: u64) -> Quota {
        Quota::NONE.with_daily(per_day)
    }

    /// The same with another bound for the day.
    pub const fn with_daily(self, per_day: u64) -> Quota {
        let reserve = if per_day / 10 < 5 { 5 } else { per_day / 10 };
        Quota { per_day: Some(per_day), reserve, ..self }
    }

    /// What scheduled renewals may use of a day's calls. A tiny quota does not go to the reserve altogether.
    pub fn renewals(&self, per_day: u64) -> u64 {
        per_day - self.reserve.min(per_day / 2)
    }
}

impl CredentialType {
    /// A ticket: had with the access token, polled.
    const fn ticket(
        platform: &'static str,
        id: &'static str,
        key: &'static str,
        request: fn(&FetchParams<'_>) -> HttpRequest,
        quota: Quota,
    ) -> CredentialType {
        let (renewal, answer_fields, api) =
            (Renewal::Poll, AnswerFields::of("ticket"), ApiCall { platform, call: ApiEndpoint::Ticket });
        let (life_ms_max, needs_token, probe, can_force) = (TWO_HOURS, true, None, false);
        CredentialType {
            id,
            key,
            renewal,
            life_ms_max,
            answer_fields,
            api,
            needs_token,
            request,
            probe,
            can_force,
            quota,
        }
    }
}

impl PartialEq for CredentialType {
    fn eq(&self, other: &CredentialType) -> bool {
        self.id == other.id
    }
}

/// How the platform answers when asked again, which decides when to ask.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Renewal {
    /// The same value until the last so many milliseconds of a life of two hours; then a new one, the old lives on.
    Window { window_ms: u64 },
    /// Each call makes a new value and dooms the one before.
    Mint,
    /// The same value until it is dead.
    AtEnd,
    /// The same value and the same lifetime whatever its age; the platform changes it when it likes.
    Poll,
}

/// Names of the fields of an answer.
#[derive(Clone, Copy, Debug)]
pub struct AnswerFields {
    pub value: &'static str,
    pub life: &'static str,
    pub code: &'static str,
    pub message: &'static str,
    /// What the next renewal is to be made with, if an answer may bring it.
    pub refresh: Option<&'static str>,
}

impl AnswerFields {
    /// WeChat's usual names around a value field.
    pub const fn of(value: &'static str) -> AnswerFields {
        AnswerFields { value, life: "expires_in", code: "errcode", message: "errmsg", refresh: None }
    }
}

/// Who asks. No `Debug`: it carries secret and token.
#[derive(Clone, Copy)]
pub struct FetchParams<'a> {
    /// Scheme, host and perhaps a port; a trailing slash does no harm.
    pub base_url: &'a str,
    pub appid: &'a str,
    /// The app's secret; of an authorizer its refresh token.
    pub secret: &'a Secret,
    /// The live value it is fetched with, for kinds that need one; of a component the verify ticket; empty otherwise.
    pub token: &'a str,
    /// Replace the value although it lives; for kinds that can.
    pub force: bool,
    /// An authorizer's component; empty otherwise.
    pub component: &'a str,
}

/// A request before it becomes bytes. No `Debug`: queries and bodies carry secrets and tokens.
pub struct HttpRequest {
    /// Full address without a query.
    pub url: String,
    pub query: Vec<(&'static str, String)>,
    /// JSON body; its presence makes the request a POST.
    pub body: Option<String>,
}

impl HttpRequest {
    fn get(base_url: &str, path: &str, query: Vec<(&'static str, String)>) -> HttpRequest {
        HttpRequest { url: join(base_url, path), query, body: None }
    }

    fn post(base_url: &str, path: &str, body: &serde_json::Value) -> HttpRequest {
        HttpRequest { url: join(base_url, path), query: Vec::new(), body: Some(body.to_string()) }
    }
}

fn join(base_url: &str, path: &str) -> String {
    format!("{}{path}", base_url.trim_end_matches('/'))
}

/// The platform of that name.
pub fn platform(name: &str) -> Option<&'static Platform> {
    PLATFORMS.iter().copied().find(|platform| platform.name == name)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashSet;

    fn kinds() -> impl Iterator<Item = &'static CredentialType> {
        PLATFORMS.iter().flat_map(|platform| platform.tokens.iter().chain(platform.tickets)).map(|(_, kind)| *kind)
    }

    #[test]
    fn ids_are_unique_and_every_platform_has_a_token() {
        let ids: Vec<&str> = kinds().map(|kind| kind.id).collect();
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
            assert!(platform.tokens.iter().all(|(_, kind)| !kind.needs_token));
            assert!(platform.tickets.iter().all(|(_, kind)| kind.needs_token));
        }
        for kind in kinds() {
            let ask = FetchParams {
                base_url: "https://a/",
                appid: "wx1",
                secret: &secret,
                token: "T",
                component: "",
                force: false,
            };
            let sent = (kind.request)(&ask);
            assert!(sent.url.starts_with("https://a/") && !sent.url.contains("s3cr3t"), "{}", kind.id);
            let carries = |text: &str| {
                sent.query.iter().any(|(_, value)| value == text)
                    || sent.body.as_ref().is_some_and(|body| body.contains(text))
            };
            assert!(carries(if kind.needs_token { "T" } else { "s3cr3t" }), "{}", kind.id);
            assert!(!kind.needs_token || !carries("s3cr3t"), "{}", kind.id);
        }
    }
}
