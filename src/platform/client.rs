//! The HTTPS client for the platforms: one call, one answer, one deadline.
//!
//! Never repeats a call, follows a redirect or reuses a connection: each call is one that the refresher decided on, so
//! quotas can be counted and a lost answer is known to be lost. After a failure the next call goes to another host. Only a
//! call that certainly was not sent goes to one further host at once.

pub mod address;
mod options;
pub mod surroundings;

use std::collections::HashMap;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use parking_lot::Mutex;
use reqwest::dns::Resolve;
use tokio::time::Instant;
use tracing::{error, info, warn};

pub use self::options::{ClientOptions, proxy_shown};
use super::answer::{self, Probe, Token};
use super::failure::{Class, Delivery, Failure, Pace, scrub};
use super::hosts::{self, ChosenHost, Hosts};
use crate::clock;
use crate::https::{NameResolver, NetworkFault, chain, is_out_of_descriptors};
use crate::platform::{CredentialType, FetchParams, HttpRequest};
use crate::tls::{TlsFault, Trust, client_config};

/// The largest answer read; WeChat's are below 1 KiB.
pub const BODY_BYTES_MAX: usize = 64 * 1024;

/// The platforms' API, as the refresher uses it: [`Client`], or a simulation in tests.
pub trait Upstream: Send + Sync {
    /// One call for a value. `deadline` covers everything, from looking up the name to the last byte.
    fn fetch<'a>(
        &'a self,
        credential_type: &'a CredentialType,
        params: FetchParams<'a>,
        deadline: Duration,
    ) -> UpstreamFuture<'a, Result<Token, Failure>>;

    /// Finds out by a cheap call whether the platform accepts the value. `Unknown` for a type without such a call.
    fn probe<'a>(
        &'a self,
        credential_type: &'a CredentialType,
        base_url: &'a str,
        value: &'a [u8],
        deadline: Duration,
    ) -> UpstreamFuture<'a, Probe>;
}

pub type UpstreamFuture<'a, T> = Pin<Box<dyn Future<Output = T> + Send + 'a>>;

impl Upstream for Client {
    fn fetch<'a>(
        &'a self,
        credential_type: &'a CredentialType,
        params: FetchParams<'a>,
        deadline: Duration,
    ) -> UpstreamFuture<'a, Result<Token, Failure>> {
        Box::pin(async move {
            let hidden: Vec<&str> =
                [params.secret.expose(), params.token].into_iter().filter(|text| !text.is_empty()).collect();
            let context = CallContext { base_url: params.base_url, appid: params.appid, hidden: &hidden };
            let request = |base_url: &str| credential_type.request(&FetchParams { base_url, ..params });
            let (attempt, answered) = self.call_a_host(&context, request, deadline).await;
            let (status, body) = answered?;
            let token = answer::read_token(credential_type, params.appid, &hidden, status, &body)
                .map_err(|failure| attempt.record_failure(failure))?;
            attempt.record_answer();
            Ok(token.limit_lifetime(credential_type.life_ms_max))
        })
    }

    fn probe<'a>(
        &'a self,
        credential_type: &'a CredentialType,
        base_url: &'a str,
        value: &'a [u8],
        deadline: Duration,
    ) -> UpstreamFuture<'a, Probe> {
        Box::pin(async move {
            let (Some(call), Ok(value)) = (credential_type.probe, std::str::from_utf8(value)) else {
                return Probe::Unknown;
            };
            let (fields, hidden) = (&credential_type.answer_fields, &[value]);
            let context = CallContext { base_url, appid: "", hidden };
            let request = |base_url: &str| call.request(base_url, value);
            let (attempt, answered) = self.call_a_host(&context, request, deadline).await;
            let Ok((status, body)) = answered else { return Probe::Unknown };
            let probe = answer::read_probe(call.api(), status, &body);
            if matches!(probe, Probe::Unknown | Probe::Withheld(_))
                && let Err(failure) = answer::read_answer(call.api(), fields, "", hidden, status, &body)
            {
                // That says nothing about the token, but perhaps about the host.
                attempt.record_failure(failure);
            } else {
                attempt.record_answer();
            }
            probe
        })
    }
}

/// The client. Cheap to clone; clones share what is known about the hosts.
#[derive(Clone, Debug)]
pub struct Client {
    http: reqwest::Client,
    /// The hosts in place of a base URL, for all apps that use it. Locked to choose a host and to record a result, never
    /// during a call.
    groups: Arc<HashMap<String, Mutex<Hosts>>>,
}

impl Client {
    /// Reads `ca_file`. Connects to nothing. The error is a sentence about the configuration.
    pub fn new(config: &ClientOptions) -> Result<Client, String> {
        Client::with_resolver(config, None)
    }

    /// The system looks names up, unless a test brings a resolver.
    fn with_resolver(config: &ClientOptions, resolver: Option<Arc<dyn Resolve>>) -> Result<Client, String> {
        let mut builder = reqwest::Client::builder()
            .tls_backend_preconfigured(tls(config)?)
            .user_agent(concat!("tokencached/", env!("CARGO_PKG_VERSION")))
            .connect_timeout(Duration::from_millis(config.connect_timeout_ms))
            .timeout(Duration::from_millis(config.total_timeout_ms))
            .redirect(reqwest::redirect::Policy::none())
            .retry(reqwest::retry::never())
            .referer(false)
            .http1_only()
            // No connection is kept, and reqwest keeps no addresses: every call looks its host's name up again.
            .pool_max_idle_per_host(0)
            .no_proxy();
        if let Some(proxy) = &config.proxy {
            // The reason is enough: the proxy's address may contain a password.
            let proxy = reqwest::Proxy::all(proxy).map_err(|error| format!("upstream.proxy: {}", chain(error)))?;
            builder = builder.proxy(proxy);
        }
        let resolver = resolver.unwrap_or_else(|| Arc::new(NameResolver::of_system()));
        let http =
            builder.dns_resolver(resolver).build().map_err(|error| format!("cannot set up TLS: {}", chain(error)))?;
        let group = |(base_url, hosts): (&str, Vec<&str>)| (base_url.to_owned(), Mutex::new(Hosts::of(&hosts)));
        let groups: HashMap<String, Mutex<Hosts>> = config.host_groups().map(group).collect();
        Ok(Client { http, groups: groups.into() })
    }

    /// Calls the host that [`Hosts::pick`] gives. If the call certainly was not sent, calls one further host within the
    /// deadline.
    async fn call_a_host(
        &self,
        context: &CallContext<'_>,
        request: impl Fn(&str) -> HttpRequest,
        deadline: Duration,
    ) -> (HostAttempt<'_>, Result<(u16, Bytes), Failure>) {
        let end = Instant::now() + deadline;
        let attempt = self.choose_host(context.base_url);
        let failure = match self.call(request(&attempt.pick.base_url), context, deadline).await {
            Ok(answered) => return (attempt, Ok(answered)),
            Err(failure) => attempt.record_failure(failure),
        };
        let left = end.saturating_duration_since(Instant::now());
        let Some(next) = attempt.other().filter(|_| may_try_other_host(&failure) && !left.is_zero()) else {
            return (attempt, Err(failure));
        };
        let answered = self.call(request(&next.pick.base_url), context, left).await;
        let answered = answered.map_err(|failure| next.record_failure(failure));
        (next, answered)
    }

    /// The host of the next call, as far as `base_url` has several.
    fn choose_host(&self, base_url: &str) -> HostAttempt<'_> {
        let group = self.groups.get(base_url.trim_end_matches('/'));
        let pick = group.and_then(|hosts| hosts.lock().pick(None, clock::boot_ms()));
        HostAttempt { group, pick: pick.unwrap_or_else(|| ChosenHost::only(base_url)) }
    }

    async fn call(
        &self,
        outgoing: HttpRequest,
        context: &CallContext<'_>,
        deadline: Duration,
    ) -> Result<(u16, Bytes), Failure> {
        let request = match outgoing.body {
            Some(body) => self.http.post(&outgoing.url).header("content-type", "application/json").body(body),
            None => self.http.get(&outgoing.url),
        };
        let lost = |error| no_answer(error, context);
        let mut response = request.query(&outgoing.query).timeout(deadline).send().await.map_err(lost)?;
        let status = response.status().as_u16();
        let mut body = BytesMut::new();
        while let Some(chunk) = response.chunk().await.map_err(lost)? {
            if body.len() + chunk.len() > BODY_BYTES_MAX {
                let message = format!("the answer (HTTP status {status}) is larger than {BODY_BYTES_MAX} bytes");
                return Err(Failure::broken_answer(context.appid, Delivery::Ambiguous, None, message));
            }
            body.extend_from_slice(&chunk);
        }
        Ok((status, body.freeze()))
    }
}

/// Whose call it is, and what its messages must not show.
struct CallContext<'a> {
    base_url: &'a str,
    appid: &'a str,
    hidden: &'a [&'a str],
}

/// A call to one host, and what its end says about that host.
struct HostAttempt<'c> {
    group: Option<&'c Mutex<Hosts>>,
    pick: ChosenHost,
}

impl<'c> HostAttempt<'c> {
    fn other(&self) -> Option<HostAttempt<'c>> {
        let group = self.group?;
        let pick = group.lock().pick(Some(&self.pick), clock::boot_ms())?;
        Some(HostAttempt { group: Some(group), pick })
    }

    /// Records what the failure says about the host. Returns the failure, with the host's name.
    fn record_failure(&self, failure: Failure) -> Failure {
        let failure = hosts::with_host_name(failure, &self.pick.base_url);
        if !hosts::is_host_fault(&failure) {
            // No call was sent, or the host is well and refuses.
            if failure.delivery == Delivery::Answered {
                self.record_answer();
            }
            return failure;
        }
        let Some(group) = self.group else { return failure };
        let avoid_ms = group.lock().record_failure(&self.pick, clock::boot_ms());
        // If there is no other host, the failure itself says everything.
        let (Some(avoid_ms), Some(_)) = (avoid_ms, self.other()) else { return failure };
        let (avoided_for_s, advice) = (avoid_ms / 1000, failure.advice());
        if is_by_tls(&failure) {
            error!(avoided_for_s, %advice, "TLS handshake with an API host failed; it is not called for a while: {failure}");
        } else {
            warn!(avoided_for_s, %advice, "an API host failed; it is not called for a while: {failure}");
        }
        failure
    }

    fn record_answer(&self) {
        let Some(group) = self.group else { return };
        if group.lock().record_answer(&self.pick) {
            info!(host = hosts::name(&self.pick.base_url), "the API host answers again");
        }
    }
}

/// The failure of a call that brought no answer.
fn no_answer(error: reqwest::Error, context: &CallContext<'_>) -> Failure {
    let class = if error.is_builder() { Class::Operator(Pace::Slow) } else { Class::Retry };
    let delivery = if error.is_connect() || error.is_builder() { Delivery::NotSent } else { Delivery::Ambiguous };
    let no_descriptor = delivery == Delivery::NotSent && is_out_of_descriptors(&error);
    let network = (!error.is_builder()).then(|| NetworkFault::of(&error));
    let message = scrub(&chain(error), context.hidden);
    match no_descriptor {
        true => Failure::no_descriptor(context.appid, message),
        false => Failure { class, network, ..Failure::transport(context.appid, delivery, message) },
    }
}

/// The certificate is not accepted, or the other end does not speak TLS: the operator should know.
fn is_by_tls(failure: &Failure) -> bool {
    matches!(failure.network, Some(NetworkFault::Certificate | NetworkFault::Tls))
}

/// The call was not sent, so another host may be called at once. Not after trouble with TLS: something may intercept the
/// connection, and an answer from another host would hide that.
fn may_try_other_host(failure: &Failure) -> bool {
    failure.delivery == Delivery::NotSent && !is_by_tls(failure) && hosts::is_host_fault(failure)
}

fn tls(config: &ClientOptions) -> Result<rustls::ClientConfig, String> {
    let path = config.ca_file.as_deref();
    client_config(Trust::PublicAnd(path)).map_err(|fault| match (fault, path) {
        (TlsFault::CaFile(reason), Some(path)) => format!("upstream.ca_file {}: {reason}", path.display()),
        (TlsFault::CaFile(reason) | TlsFault::Tls(reason), _) => format!("cannot set up TLS: {reason}"),
    })
}

#[cfg(test)]
mod tests;
