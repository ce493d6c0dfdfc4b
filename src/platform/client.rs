//! Talks to WeChat: one HTTPS call, one answer, under one deadline.
//!
//! Never sends a call twice, follows no redirect, reuses no connection: every call is one call that somebody decided on,
//! so a quota can be counted and a lost answer is known to be lost. A host at fault is left for the next call; only a
//! call that never left this machine goes to one further host at once.

pub mod address;
mod options;
pub mod surroundings;

use std::path::PathBuf;
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
use crate::https::{self, NameResolver, NetworkFault, TlsFault, Trust, chain, is_out_of_descriptors, is_tls_error};
use crate::platform::{CredentialType, FetchParams, HttpRequest, PLATFORMS};

/// The largest answer read; WeChat's are below 1 KiB.
pub const BODY_BYTES_MAX: usize = 64 * 1024;

/// What a call to WeChat comes to. The real one is [`Client`].
pub trait Upstream: Send + Sync {
    /// One call for a value. `deadline` covers everything from the look-up of the name to the last byte.
    fn fetch<'a>(
        &'a self,
        kind: &'a CredentialType,
        ask: FetchParams<'a>,
        deadline: Duration,
    ) -> UpstreamFuture<'a, Result<Token, Failure>>;

    /// Asks whether WeChat accepts the value, by a read that costs next to nothing. `Unknown` where there is none.
    fn probe<'a>(
        &'a self,
        kind: &'a CredentialType,
        base_url: &'a str,
        value: &'a [u8],
        deadline: Duration,
    ) -> UpstreamFuture<'a, Probe>;
}

/// A call under way.
pub type UpstreamFuture<'a, T> = Pin<Box<dyn Future<Output = T> + Send + 'a>>;

impl Upstream for Client {
    fn fetch<'a>(
        &'a self,
        kind: &'a CredentialType,
        ask: FetchParams<'a>,
        deadline: Duration,
    ) -> UpstreamFuture<'a, Result<Token, Failure>> {
        Box::pin(async move { Client::fetch(self, kind, &ask, deadline).await })
    }

    fn probe<'a>(
        &'a self,
        kind: &'a CredentialType,
        base_url: &'a str,
        value: &'a [u8],
        deadline: Duration,
    ) -> UpstreamFuture<'a, Probe> {
        Box::pin(Client::probe(self, kind, base_url, value, deadline))
    }
}

/// The client. Cheap to clone; clones share what is known of the hosts.
#[derive(Clone, Debug)]
pub struct Client {
    http: reqwest::Client,
    groups: Arc<[HostGroup]>,
}

/// The hosts behind one base URL; shared by all apps that use it.
#[derive(Debug)]
struct HostGroup {
    base_url: String,
    /// Held for picking and noting only, never over a call.
    hosts: Mutex<Hosts>,
}

/// Why no client could be built: always something in the configuration.
#[derive(Debug, thiserror::Error)]
pub enum ClientBuildError {
    #[error("upstream.ca_file {path}: {reason}")]
    CaFile { path: PathBuf, reason: String },
    #[error("upstream.proxy: {0}")]
    Proxy(String),
    #[error("cannot set up TLS: {0}")]
    Tls(String),
}

impl Client {
    /// Builds the client. Reads `ca_file`; connects nowhere.
    pub fn new(config: &ClientOptions) -> Result<Client, ClientBuildError> {
        Client::with_resolver(config, None)
    }

    /// Names are looked up by the system, unless a test brings a resolver.
    fn with_resolver(config: &ClientOptions, resolver: Option<Arc<dyn Resolve>>) -> Result<Client, ClientBuildError> {
        let mut builder = reqwest::Client::builder()
            .tls_backend_preconfigured(tls(config)?)
            .user_agent(concat!("tokencached/", env!("CARGO_PKG_VERSION")))
            .connect_timeout(Duration::from_millis(config.connect_timeout_ms))
            .timeout(Duration::from_millis(config.total_timeout_ms))
            .redirect(reqwest::redirect::Policy::none())
            .retry(reqwest::retry::never())
            .referer(false)
            .http1_only()
            // No connection is kept and reqwest keeps no addresses, so every call looks its host's name up anew.
            .pool_max_idle_per_host(0)
            .no_proxy();
        if let Some(proxy) = &config.proxy {
            // The reason is enough: the proxy's address may hold a password.
            let proxy = reqwest::Proxy::all(proxy).map_err(|error| ClientBuildError::Proxy(chain(error)))?;
            builder = builder.proxy(proxy);
        }
        let resolver = resolver.unwrap_or_else(|| Arc::new(NameResolver::of_system()));
        let http = builder.dns_resolver(resolver).build().map_err(|error| ClientBuildError::Tls(chain(error)))?;
        Ok(Client { http, groups: groups(config).into() })
    }

    /// One call for a value. `deadline` covers everything from the look-up of the name to the last byte.
    pub async fn fetch(
        &self,
        kind: &CredentialType,
        ask: &FetchParams<'_>,
        deadline: Duration,
    ) -> Result<Token, Failure> {
        let hidden: Vec<&str> = [ask.secret.expose(), ask.token].into_iter().filter(|text| !text.is_empty()).collect();
        let caller = Caller { base_url: ask.base_url, appid: ask.appid, hidden: &hidden };
        let request = |base_url: &str| (kind.request)(&FetchParams { base_url, ..*ask });
        let (turn, answered) = self.reach(&caller, request, deadline).await;
        let result = answered.and_then(|(status, body)| {
            answer::token(kind, ask.appid, &hidden, status, &body)
                .map(|token| token.within(kind.life_ms_max))
                .map_err(|failure| turn.refused(hosts::named(failure, &turn.pick.base_url)))
        });
        if result.is_ok() {
            turn.answered();
        }
        result
    }

    /// Asks whether WeChat accepts the value, by a read that costs next to nothing. `Unknown` where there is none.
    pub async fn probe(&self, kind: &CredentialType, base_url: &str, value: &[u8], deadline: Duration) -> Probe {
        let (Some(call), Ok(value)) = (kind.probe, std::str::from_utf8(value)) else { return Probe::Unknown };
        let caller = Caller { base_url, appid: "", hidden: &[value] };
        match self.reach(&caller, |base_url| (call.request)(base_url, value), deadline).await {
            (turn, Ok((status, body))) => {
                let probe = answer::probe(call.api(), status, &body);
                if matches!(probe, Probe::Unknown | Probe::Withheld(_))
                    && let Err(failure) = answer::read(call.api(), &kind.answer_fields, "", &[value], status, &body)
                {
                    // It says nothing of the token, but perhaps of the host.
                    turn.refused(hosts::named(failure, &turn.pick.base_url));
                } else {
                    turn.answered();
                }
                probe
            }
            (_, Err(_)) => Probe::Unknown,
        }
    }

    /// One call to the host whose turn it is. If it certainly was not sent, to one further host within the deadline.
    async fn reach(
        &self,
        caller: &Caller<'_>,
        request: impl Fn(&str) -> HttpRequest,
        deadline: Duration,
    ) -> (HostAttempt<'_>, Result<(u16, Bytes), Failure>) {
        let end = Instant::now() + deadline;
        let turn = self.turn(caller.base_url);
        let lost = match self.call(request(&turn.pick.base_url), deadline).await {
            Ok(answered) => return (turn, Ok(answered)),
            Err(lost) => lost,
        };
        let may_move = lost.may_move();
        let failure = turn.lost(lost, caller);
        let left = end.saturating_duration_since(Instant::now());
        let Some(next) = turn.other().filter(|_| may_move && !left.is_zero()) else { return (turn, Err(failure)) };
        let answered = self.call(request(&next.pick.base_url), left).await;
        let answered = answered.map_err(|lost| next.lost(lost, caller));
        (next, answered)
    }

    fn turn(&self, base_url: &str) -> HostAttempt<'_> {
        let group = self.groups.iter().find(|group| group.base_url == base_url.trim_end_matches('/'));
        let pick = group.and_then(|group| group.hosts.lock().pick(clock::boot_ms()));
        HostAttempt { group, pick: pick.unwrap_or_else(|| ChosenHost::only(base_url)) }
    }

    async fn call(&self, outgoing: HttpRequest, deadline: Duration) -> Result<(u16, Bytes), NoAnswer> {
        let request = match outgoing.body {
            Some(body) => self.http.post(&outgoing.url).header("content-type", "application/json").body(body),
            None => self.http.get(&outgoing.url),
        };
        let mut response = request.query(&outgoing.query).timeout(deadline).send().await.map_err(NoAnswer::from)?;
        let status = response.status().as_u16();
        let mut body = BytesMut::new();
        while let Some(chunk) = response.chunk().await.map_err(NoAnswer::from)? {
            if body.len() + chunk.len() > BODY_BYTES_MAX {
                return Err(NoAnswer {
                    class: Class::Retry,
                    delivery: Delivery::Ambiguous,
                    by_tls: false,
                    network: Some(NetworkFault::Answer),
                    no_descriptor: false,
                    message: format!("the answer (HTTP status {status}) is larger than {BODY_BYTES_MAX} bytes"),
                });
            }
            body.extend_from_slice(&chunk);
        }
        Ok((status, body.freeze()))
    }
}

/// Which base URLs have several hosts, or one in place of another.
fn groups(config: &ClientOptions) -> Vec<HostGroup> {
    let group = |base_url: &str, hosts| HostGroup { base_url: base_url.to_owned(), hosts: Mutex::new(hosts) };
    let own = config.base_url.trim_end_matches('/');
    let others = PLATFORMS.iter().filter(|platform| platform.base_url != own);
    let others = others.filter_map(|platform| Some(group(platform.base_url, Hosts::of(platform.hosts)?)));
    Hosts::of(&config.hosts).map(|hosts| group(own, hosts)).into_iter().chain(others).collect()
}

/// On whose behalf a call is made, for what is said about it.
struct Caller<'a> {
    base_url: &'a str,
    appid: &'a str,
    hidden: &'a [&'a str],
}

/// A call's host.
struct HostAttempt<'c> {
    group: Option<&'c HostGroup>,
    pick: ChosenHost,
}

impl<'c> HostAttempt<'c> {
    fn other(&self) -> Option<HostAttempt<'c>> {
        let group = self.group?;
        let pick = group.hosts.lock().pick_other(&self.pick, clock::boot_ms())?;
        Some(HostAttempt { group: Some(group), pick })
    }

    /// No answer: a failure that names the host.
    fn lost(&self, lost: NoAnswer, caller: &Caller<'_>) -> Failure {
        let by_tls = lost.by_tls;
        let failure = hosts::named(lost.into_failure(caller.appid, caller.hidden), &self.pick.base_url);
        self.failed(failure, by_tls)
    }

    /// An answer without a value.
    fn refused(&self, failure: Failure) -> Failure {
        self.failed(failure, false)
    }

    /// Notes what the failure says about the host, and hands it back.
    fn failed(&self, failure: Failure, by_tls: bool) -> Failure {
        if !hosts::is_at_fault(&failure) {
            // No call went out, or the host answered in WeChat's words.
            if failure.delivery == Delivery::Answered {
                self.answered();
            }
            return failure;
        }
        let Some(group) = self.group else { return failure };
        let rest_ms = group.hosts.lock().failed(&self.pick, clock::boot_ms());
        // With no other host to go to, the failure by itself says it all.
        let (Some(rest_ms), Some(_)) = (rest_ms, self.other()) else { return failure };
        let (rest_s, advice) = (rest_ms / 1000, failure.advice());
        if by_tls {
            error!(rest_s, %advice, "TLS with an API host failed; it is not called for a while: {failure}");
        } else {
            warn!(rest_s, %advice, "an API host is at fault; it is not called for a while: {failure}");
        }
        failure
    }

    fn answered(&self) {
        let Some(group) = self.group else { return };
        if group.hosts.lock().answered(&self.pick) {
            info!(host = hosts::name(&self.pick.base_url), "the API host answers again");
        }
    }
}

/// A call without an answer.
struct NoAnswer {
    class: Class,
    delivery: Delivery,
    /// A certificate, or something that speaks no TLS: worth an operator's eye.
    by_tls: bool,
    network: Option<NetworkFault>,
    /// This process has no file descriptor left: says nothing about the host.
    no_descriptor: bool,
    message: String,
}

impl NoAnswer {
    fn into_failure(self, appid: &str, hidden: &[&str]) -> Failure {
        let message = scrub(&self.message, hidden);
        if self.no_descriptor {
            return Failure::no_descriptor(appid, message);
        }
        Failure { class: self.class, network: self.network, ..Failure::transport(appid, self.delivery, message) }
    }

    /// WeChat can't have seen it, so another host may have it at once. Not after trouble with TLS: somebody may sit in
    /// between, and an answer from elsewhere would hide that.
    fn may_move(&self) -> bool {
        self.class == Class::Retry && self.delivery == Delivery::NotSent && !self.by_tls && !self.no_descriptor
    }
}

impl From<reqwest::Error> for NoAnswer {
    fn from(error: reqwest::Error) -> NoAnswer {
        let class = if error.is_builder() { Class::Operator(Pace::Slow) } else { Class::Retry };
        let delivery = if error.is_connect() || error.is_builder() { Delivery::NotSent } else { Delivery::Ambiguous };
        let no_descriptor = delivery == Delivery::NotSent && is_out_of_descriptors(&error);
        let network = (!error.is_builder()).then(|| NetworkFault::of(&error));
        NoAnswer { class, delivery, by_tls: is_tls_error(&error), network, no_descriptor, message: chain(error) }
    }
}

fn tls(config: &ClientOptions) -> Result<rustls::ClientConfig, ClientBuildError> {
    let path = config.ca_file.as_deref();
    https::tls(Trust::PublicAnd(path)).map_err(|fault| match (fault, path) {
        (TlsFault::CaFile(reason), Some(path)) => ClientBuildError::CaFile { path: path.to_owned(), reason },
        (TlsFault::CaFile(reason) | TlsFault::Tls(reason), _) => ClientBuildError::Tls(reason),
    })
}

#[cfg(test)]
mod tests;
