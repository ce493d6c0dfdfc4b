//! Talks to WeChat: one HTTPS call, one answer, under one deadline.
//!
//! Never retries, follows no redirect, reuses no connection: every call is one call that somebody decided on,
//! so a quota can be counted and a lost answer is known to be lost.

use std::error::Error as _;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;

use super::answer::{self, Probe, Token};
use super::class::{Class, Failure, Pace, Sent, scrub};
use crate::config;
use crate::kind::{Ask, Kind, Outgoing};

/// The largest answer read; WeChat's are below 1 KiB.
pub const BODY_BYTES_MAX: usize = 64 * 1024;

/// The client. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Client {
    http: reqwest::Client,
}

/// Why no client could be built: always something in the configuration.
#[derive(Debug, thiserror::Error)]
pub enum BuildError {
    #[error("upstream.ca_file {path}: {reason}")]
    CaFile { path: PathBuf, reason: String },
    #[error("upstream.proxy: {0}")]
    Proxy(String),
    #[error("cannot set up TLS: {0}")]
    Tls(String),
}

impl Client {
    /// Builds the client. Reads `ca_file`; connects nowhere.
    pub fn new(config: &config::Upstream) -> Result<Client, BuildError> {
        let mut builder = reqwest::Client::builder()
            .tls_backend_preconfigured(tls(config)?)
            .user_agent(concat!("tokencached/", env!("CARGO_PKG_VERSION")))
            .connect_timeout(Duration::from_millis(config.connect_timeout_ms))
            .timeout(Duration::from_millis(config.total_timeout_ms))
            .redirect(reqwest::redirect::Policy::none())
            .retry(reqwest::retry::never())
            .referer(false)
            .http1_only()
            .pool_max_idle_per_host(0)
            .no_proxy();
        if let Some(proxy) = &config.proxy {
            // The reason is enough: the proxy's address may hold a password.
            let proxy = reqwest::Proxy::all(proxy).map_err(|error| BuildError::Proxy(chain(error.without_url())))?;
            builder = builder.proxy(proxy);
        }
        let http = builder.build().map_err(|error| BuildError::Tls(chain(error.without_url())))?;
        Ok(Client { http })
    }

    /// One call for a value. `deadline` covers everything from the look-up of the name to the last byte.
    pub async fn fetch(&self, kind: &Kind, ask: &Ask<'_>, deadline: Duration) -> Result<Token, Failure> {
        let hidden: Vec<&str> = [ask.secret.expose(), ask.token].into_iter().filter(|text| !text.is_empty()).collect();
        let answered = self.call((kind.request)(ask), deadline).await;
        let (status, body) = answered.map_err(|lost| lost.into_failure(ask.appid, &hidden))?;
        answer::token(&kind.shape, ask.appid, &hidden, status, &body)
    }

    /// Asks whether WeChat accepts the value, by a read that costs next to nothing. `Unknown` where there is none.
    pub async fn probe(&self, kind: &Kind, base_url: &str, value: &[u8], deadline: Duration) -> Probe {
        let (Some(probe), Ok(value)) = (kind.probe, std::str::from_utf8(value)) else { return Probe::Unknown };
        match self.call(probe(base_url, value), deadline).await {
            Ok((status, body)) => answer::probe(status, &body),
            Err(_) => Probe::Unknown,
        }
    }

    async fn call(&self, outgoing: Outgoing, deadline: Duration) -> Result<(u16, Bytes), Lost> {
        let request = match outgoing.body {
            Some(body) => self.http.post(&outgoing.url).header("content-type", "application/json").body(body),
            None => self.http.get(&outgoing.url).query(&outgoing.query),
        };
        let mut response = request.timeout(deadline).send().await.map_err(Lost::from)?;
        let status = response.status().as_u16();
        let mut body = BytesMut::new();
        while let Some(chunk) = response.chunk().await.map_err(Lost::from)? {
            if body.len() + chunk.len() > BODY_BYTES_MAX {
                return Err(Lost {
                    class: Class::Retry,
                    sent: Sent::Ambiguous,
                    message: format!("the answer (HTTP status {status}) is larger than {BODY_BYTES_MAX} bytes"),
                });
            }
            body.extend_from_slice(&chunk);
        }
        Ok((status, body.freeze()))
    }
}

/// A call without an answer.
struct Lost {
    class: Class,
    sent: Sent,
    message: String,
}

impl Lost {
    fn into_failure(self, appid: &str, hidden: &[&str]) -> Failure {
        let message = scrub(&self.message, hidden);
        Failure { class: self.class, ..Failure::transport(appid, self.sent, message) }
    }
}

impl From<reqwest::Error> for Lost {
    fn from(error: reqwest::Error) -> Lost {
        // The address carries the secret or the token.
        let error = error.without_url();
        let class = if error.is_builder() { Class::Operator(Pace::Slow) } else { Class::Retry };
        let sent = if error.is_connect() || error.is_builder() { Sent::NotSent } else { Sent::Ambiguous };
        Lost { class, sent, message: chain(error) }
    }
}

/// An error and its causes in one line.
fn chain(error: reqwest::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(inner) = cause {
        text.push_str(": ");
        text.push_str(&inner.to_string());
        cause = inner.source();
    }
    text
}

/// WeChat is verified against Mozilla's roots, and `ca_file` if given. There is no switch to turn this off.
fn tls(config: &config::Upstream) -> Result<rustls::ClientConfig, BuildError> {
    let mut roots = rustls::RootCertStore::empty();
    roots.extend(webpki_roots::TLS_SERVER_ROOTS.iter().cloned());
    if let Some(path) = &config.ca_file {
        let fault = |reason: String| BuildError::CaFile { path: path.clone(), reason };
        let mut found = 0;
        for certificate in CertificateDer::pem_file_iter(path).map_err(|error| fault(error.to_string()))? {
            let certificate = certificate.map_err(|error| fault(error.to_string()))?;
            roots.add(certificate).map_err(|error| fault(error.to_string()))?;
            found += 1;
        }
        if found == 0 {
            return Err(fault("holds no PEM certificate".to_owned()));
        }
    }
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    Ok(rustls::ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(|error| BuildError::Tls(error.to_string()))?
        .with_root_certificates(roots)
        .with_no_client_auth())
}
