//! The HTTP client of a follower: one request to a leader's HTTP API, one answer, each with a deadline and a size limit.
//!
//! Never follows a redirect, never uses a proxy from the environment, and never quotes an answer or the key in an error.

use std::borrow::Cow;
use std::sync::Arc;
use std::time::Duration;

use reqwest::dns::Resolve;
use reqwest::header::{AUTHORIZATION, HeaderValue};
use reqwest::{RequestBuilder, StatusCode};
use serde::Deserialize;
use tokio::time::{Instant, timeout, timeout_at};

use crate::cluster::options::LeaderOptions;
use crate::descriptors;
use crate::https::{NameResolver, chain, is_out_of_descriptors, is_tls_error};
use crate::secret_source::{SecretFault, SecretSource};
use crate::tls::{TlsFault, Trust, client_config};

/// The largest answer that is read. A page of 500 values of 2 KiB is far smaller.
const BODY_BYTES_MAX: usize = 8 << 20;
const PROBLEM_BYTES_MAX: usize = 64 << 10;
/// How long an answer may take once it has begun.
const BODY_MAX: Duration = Duration::from_secs(20);
/// How long an idle connection is kept. The leader closes it after 15 s.
const IDLE: Duration = Duration::from_secs(5);

/// Why there is no answer, in words that follow the leader's URL.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LeaderFault {
    pub text: Cow<'static, str>,
    pub advice: &'static str,
    /// The leader has judged the request: no other has to be asked.
    pub refused: Option<StatusCode>,
    /// This process is at fault, for a while. It says nothing about a leader.
    pub is_own_fault: bool,
}

impl LeaderFault {
    pub const fn new(text: &'static str, advice: &'static str) -> LeaderFault {
        LeaderFault { text: Cow::Borrowed(text), advice, refused: None, is_own_fault: false }
    }

    fn of_text(text: String, advice: &'static str) -> LeaderFault {
        LeaderFault { text: text.into(), ..LeaderFault::new("", advice) }
    }
}

const UNREACHABLE_ADVICE: &str = "see whether that node runs and the network lets this one through";
const NO_DESCRIPTOR: LeaderFault = LeaderFault {
    text: Cow::Borrowed("cannot be asked: this process has no file descriptor left"),
    advice: descriptors::REMEDY,
    refused: None,
    is_own_fault: true,
};
const TOO_SLOW: LeaderFault = LeaderFault::new("did not answer in time", UNREACHABLE_ADVICE);
const TOO_LARGE: LeaderFault = LeaderFault::new("answers with more than any tokencached says", "check the address");

pub struct LeaderClient {
    http: reqwest::Client,
    key: Option<SecretSource>,
    answer_timeout: Duration,
}

impl LeaderClient {
    /// Reads `ca_file` and connects nowhere.
    pub fn new(options: &LeaderOptions) -> Result<LeaderClient, String> {
        LeaderClient::with_resolver(options, Arc::new(NameResolver::of_system()))
    }

    pub(super) fn with_resolver(
        options: &LeaderOptions,
        names: Arc<impl Resolve + 'static>,
    ) -> Result<LeaderClient, String> {
        let answer_timeout = Duration::from_millis(options.timeout_ms);
        let tls = client_config(Trust::OnlyOr(options.ca_file.as_deref())).map_err(|fault| {
            match (fault, &options.ca_file) {
                (TlsFault::CaFile(reason), Some(path)) => format!("state.leader_ca_file {}: {reason}", path.display()),
                (fault, _) => fault.to_string(),
            }
        })?;
        let http = reqwest::Client::builder()
            .tls_backend_preconfigured(tls)
            .user_agent(concat!("tokencached/", env!("CARGO_PKG_VERSION")))
            .connect_timeout(answer_timeout)
            .redirect(reqwest::redirect::Policy::none())
            .retry(reqwest::retry::never())
            .referer(false)
            .http1_only()
            .pool_max_idle_per_host(1)
            .pool_idle_timeout(IDLE)
            .no_proxy()
            .dns_resolver(names)
            .build()
            .map_err(|error| TlsFault::Tls(chain(error)).to_string())?;
        Ok(LeaderClient { http, key: options.key.clone(), answer_timeout })
    }

    /// Sends a `GET`. The leader may hold its answer back for so long.
    pub async fn get(&self, url: &str, query: &[(&str, &str)], held_back: Duration) -> Result<Vec<u8>, LeaderFault> {
        self.send(self.http.get(url).query(query), held_back).await
    }

    pub async fn post(&self, url: &str, body: String, held_back: Duration) -> Result<Vec<u8>, LeaderFault> {
        self.send(self.http.post(url).header("content-type", "application/json").body(body), held_back).await
    }

    async fn send(&self, request: RequestBuilder, held_back: Duration) -> Result<Vec<u8>, LeaderFault> {
        let mut request = request.header("x-tokencached", "1");
        if let Some(source) = &self.key {
            request = request.header(AUTHORIZATION, bearer(source).await?);
        }
        // Twice, because connecting has the same deadline of its own.
        let sending = timeout(held_back + 2 * self.answer_timeout, request.send());
        let mut response = sending.await.map_err(|_| TOO_SLOW)?.map_err(request_fault)?;
        let status = response.status();
        let size_max = if status == StatusCode::OK { BODY_BYTES_MAX } else { PROBLEM_BYTES_MAX };
        let end = Instant::now() + BODY_MAX;
        let mut body = Vec::new();
        loop {
            let chunk_deadline = (Instant::now() + self.answer_timeout).min(end);
            let chunk =
                timeout_at(chunk_deadline, response.chunk()).await.map_err(|_| TOO_SLOW)?.map_err(request_fault)?;
            let Some(chunk) = chunk else { break };
            if body.len() + chunk.len() > size_max {
                return Err(TOO_LARGE);
            }
            body.extend_from_slice(&chunk);
        }
        if status == StatusCode::OK { Ok(body) } else { Err(refusal(status, &body, self.key.is_some())) }
    }
}

/// The header with the key. A key in a file is read each time, so that it can be replaced.
async fn bearer(source: &SecretSource) -> Result<HeaderValue, LeaderFault> {
    const ADVICE: &str = "see leader_key and its variants in [state]";
    let key = source.read_in_background().await.map_err(|fault| match fault {
        SecretFault::NoDescriptor => NO_DESCRIPTOR,
        fault => LeaderFault::of_text(format!("cannot be asked: the key for it {fault}"), ADVICE),
    })?;
    let header = zeroize::Zeroizing::new(format!("Bearer {}", key.expose()));
    let mut header = HeaderValue::try_from(header.as_str())
        .map_err(|_| LeaderFault::new("cannot be asked: the key for it has characters that no key has", ADVICE))?;
    header.set_sensitive(true);
    Ok(header)
}

fn request_fault(error: reqwest::Error) -> LeaderFault {
    if is_out_of_descriptors(&error) {
        return NO_DESCRIPTOR;
    }
    if error.is_timeout() {
        return TOO_SLOW;
    }
    if is_tls_error(&error) {
        let advice = "name the authority of its certificate in leader_ca_file, and the host as its certificate does";
        return LeaderFault::of_text(format!("is not trusted: {}", chain(error)), advice);
    }
    let what = if error.is_connect() { "cannot be reached" } else { "broke off" };
    LeaderFault::of_text(format!("{what}: {}", chain(error)), UNREACHABLE_ADVICE)
}

/// What a refusal means for the operator of both nodes.
fn refusal(status: StatusCode, body: &[u8], keyed: bool) -> LeaderFault {
    #[derive(Deserialize)]
    struct ProblemBody {
        r#type: String,
    }
    let problem = serde_json::from_slice::<ProblemBody>(body).map(|problem| problem.r#type).unwrap_or_default();
    let kind = problem.strip_prefix("urn:tokencached:problem:").unwrap_or_default();
    let (text, advice) = match (status.as_u16(), kind) {
        (401, _) if keyed => (
            "does not know this node's key",
            "give leader_key a key of that node's keys_file, with the rights read and refresh",
        ),
        (401, _) => (
            "asks for a key",
            "set leader_key_file in [state] to a key of that node's keys_file, with the rights read and refresh",
        ),
        (403, "forbidden") => (
            "gives this node's key too few rights",
            "in that node's keys_file give the key the rights read and refresh, for all apps or for those of this node",
        ),
        (404, "not-found") => (
            "has no such app, or none that this node's key may see",
            "configure the app there too, and give the key the rights read and refresh for it",
        ),
        (404 | 405, _) => (
            "has no such call",
            "check that the address is that of a tokencached's HTTP API, of a version no older than this one",
        ),
        (400, "proxy-unknown") => {
            ("stands behind a proxy that it does not trust", "name the proxy in trusted_proxies of that node's [http]")
        }
        (421, _) => ("does not go by that name", "add the host of the address to allowed_hosts of that node's [http]"),
        (429, _) => ("is asked too often", "raise requests_per_s in that node's [http]"),
        (300..=399, _) => ("sends elsewhere", "write the address it sends to into leader_urls"),
        (503 | 504, _) => ("is too busy", "wait, or look at that node"),
        _ => {
            let text = format!("answers with HTTP status {}", status.as_u16());
            return LeaderFault { refused: Some(status), ..LeaderFault::of_text(text, UNREACHABLE_ADVICE) };
        }
    };
    LeaderFault { refused: Some(status), ..LeaderFault::new(text, advice) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_refusal_says_what_to_do_and_quotes_nothing() {
        let said = |status: u16, kind: &str, keyed| {
            let body = format!("{{\"type\":\"urn:tokencached:problem:{kind}\",\"detail\":\"SECRET\"}}");
            let fault = refusal(StatusCode::from_u16(status).unwrap(), body.as_bytes(), keyed);
            assert!(!fault.text.contains("SECRET") && !fault.advice.is_empty(), "{fault:?}");
            format!("{} {}", fault.text, fault.advice)
        };
        assert!(said(401, "key-unknown", true).contains("does not know this node's key"));
        assert!(said(401, "key-needed", false).contains("leader_key_file"));
        assert!(said(403, "forbidden", true).contains("rights read and refresh"));
        assert!(said(404, "not-found", true).contains("configure the app there"));
        assert!(said(421, "host-unknown", true).contains("allowed_hosts"));
        assert!(said(302, "", true).contains("sends elsewhere"));
        assert!(said(500, "SECRET", true).contains("HTTP status 500"));
        assert!(refusal(StatusCode::NOT_FOUND, b"<html>", true).text.contains("no such call"));
    }
}
