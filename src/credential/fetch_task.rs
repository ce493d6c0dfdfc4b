//! One fetch for one credential: read the secret, get the lease if there is a cluster, call the platform, perhaps
//! probe.
//!
//! Never decides when the next fetch is and never publishes a value; it returns a report to the actor.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;

use super::adopt::{self, FoundToken, TokenSource};
use super::cluster_fetch::{CallPrevented, ClusterFetch, ClusterFetchContext, FetchedValue, SharingResult};
use super::grants::{CallSecrets, Grant};
use super::plan::Plan;
use super::quota_usage::QuotaUsage;
use super::schedule::{ADOPTED_TOLD_LIFE_MS, Adopted, RenewalState};
use super::state_writer::StateWriter;
use super::table::{Credential, Reading};
use crate::clock::{BootMs, Clock};
use crate::platform::{Class, Delivery, Failure, LifetimeSource, Probe, Token, Upstream};
use crate::platform::{CredentialType, FetchParams, Renewal};
use crate::secret::Secret;
use crate::secret_source::{SecretFault, SecretSource};

/// Why a fetch is made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FetchPurpose {
    /// The schedule says so.
    Renew,
    /// Somebody doubts the present value: verify it before a new one is fetched.
    Verify,
    /// Probe the present value and do nothing else.
    Probe,
    /// WeChat refuses the present value: another one is needed.
    Replace,
    /// WeChat refuses the value but still answers with it: request a new one with `force_refresh`.
    Force,
}

impl FetchPurpose {
    /// True if only the present value is probed, which costs no call of the token endpoint. A classic value is never
    /// renewed on a mere suspicion, because the renewal would end it.
    pub fn only_probes(self, credential_type: &CredentialType) -> bool {
        let suspicion = self == FetchPurpose::Verify && credential_type.renewal == Renewal::Mint;
        self == FetchPurpose::Probe || (suspicion && credential_type.probe.is_some())
    }
}

/// Everything a fetch has to know of its credential. It shares no state with the actor.
pub struct FetchOrder {
    pub purpose: FetchPurpose,
    pub plan: Arc<Plan>,
    /// The configured type or its fallback.
    pub credential_type: &'static CredentialType,
    /// The access token it is fetched with, for types that need one.
    pub parent: Option<Arc<Credential>>,
    /// What is sent besides the secret, for types that need more.
    pub grant: Option<Grant>,
    /// The present value, if there is one.
    pub held: Option<Bytes>,
    pub renewal_state: RenewalState,
    pub total_timeout_ms: u64,
    /// Where the site keeps a value that it has fetched itself. None once this server has fetched a value.
    pub adopts_from: Option<Arc<dyn TokenSource>>,
    /// The longest time for one call, besides its deadline.
    pub time_limit_ms: u64,
    /// Its permit is one of its own: a probe that gets no answer must not delay a renewal.
    pub is_queued_probe: bool,
    /// For classic tokens: the call is noted in the state file before it is sent.
    pub intent: Option<Intent>,
    /// In a cluster: what the other nodes have to know.
    pub cluster_context: Option<Box<ClusterFetchContext>>,
}

impl FetchOrder {
    /// True if it makes no call of the token endpoint.
    pub fn only_probes(&self) -> bool {
        self.purpose.only_probes(self.credential_type)
    }

    /// True if its call makes a new value, which ends the value before it.
    pub fn mints(&self) -> bool {
        !self.only_probes() && (self.credential_type.renewal == Renewal::Mint || self.purpose == FetchPurpose::Force)
    }
}

/// The note that a call is about to be sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Intent {
    pub unix_ms: i64,
    /// It is written without the pause between two writes.
    pub is_urgent: bool,
}

/// A fetch, and what it runs on.
pub struct FetchTask {
    pub order: FetchOrder,
    pub upstream: Arc<dyn Upstream>,
    pub clock: Arc<dyn Clock>,
    pub permits: Arc<Semaphore>,
    pub cancel: CancellationToken,
    /// The write with the note of [`FetchOrder::intent`].
    pub intent: Option<(StateWriter, u64)>,
}

/// What a fetch has done.
pub struct FetchReport {
    pub purpose: FetchPurpose,
    /// Calls sent, probes included.
    pub calls: u64,
    /// Of them, the probes.
    pub probes: u64,
    /// What has become of taking over the site's own value.
    pub adoption: Option<Adoption>,
    /// The secret that was used, to notice when it changes.
    pub secret: Option<Secret>,
    /// The generation of the access token that WeChat refused when this call used it.
    pub refused_parent: Option<u64>,
    /// The calls of all nodes, in a cluster.
    pub usage: Option<QuotaUsage>,
    /// How the value was given to the other nodes.
    pub shared: SharingResult,
    pub outcome: FetchOutcome,
}

impl FetchReport {
    /// Of a fetch that has sent nothing yet.
    pub fn new(purpose: FetchPurpose, outcome: FetchOutcome) -> FetchReport {
        FetchReport {
            purpose,
            calls: 0,
            probes: 0,
            adoption: None,
            secret: None,
            refused_parent: None,
            usage: None,
            shared: SharingResult::NotShared,
            outcome,
        }
    }
}

pub enum FetchOutcome {
    /// Cancelled before anything was sent.
    Cancelled,
    /// A token: the present one or a new one.
    Answered {
        token: Token,
        sent_ms: BootMs,
        received_ms: BootMs,
        probe: Option<Probe>,
    },
    Failed {
        failure: Failure,
        sent_ms: BootMs,
    },
    /// The access token it is fetched with has no live value; nothing was sent.
    NoParentToken,
    /// The present value was probed, and nothing was fetched.
    Probed {
        probe: Probe,
        sent_ms: BootMs,
    },
    /// Nothing was sent, because of the other nodes or a quota.
    Prevented(CallPrevented),
}

/// What has become of taking over the site's own value.
pub enum Adoption {
    Done {
        place: String,
        adopted: Adopted,
    },
    /// It cannot be used; a value is fetched instead.
    Refused {
        place: String,
        reason: String,
    },
}

/// How long the site's own store may take to answer.
const ADOPT_WAIT: Duration = Duration::from_secs(2);
/// How long a classic call waits until the note about it is written. Then it is sent without the note.
const INTENT_WAIT: Duration = Duration::from_millis(250);

impl FetchTask {
    /// Runs the fetch. A call that was sent is waited for even after `cancel`.
    pub async fn run(mut self) -> FetchReport {
        let mut report = FetchReport::new(self.order.purpose, FetchOutcome::Cancelled);
        let permit = tokio::select! {
            biased;
            () = self.cancel.cancelled() => return report,
            permit = self.permits.clone().acquire_owned() => permit,
        };
        // The semaphore is never closed.
        let Ok(_permit) = permit else { return report };
        if self.order.only_probes() {
            let sent_ms = self.clock.boot_ms();
            let probe = match &self.order.held {
                Some(held) => self.probe_value(held, &mut report).await,
                None => Probe::Unknown,
            };
            report.outcome = FetchOutcome::Probed { probe, sent_ms };
            return report;
        }
        let context = self.order.cluster_context.take();
        let mut cluster_fetch =
            match ClusterFetch::take_lease(context, async || self.is_accepted(&mut report).await).await {
                Ok(cluster_fetch) => cluster_fetch,
                Err(prevented) => {
                    report.outcome = FetchOutcome::Prevented(prevented);
                    return report;
                }
            };
        report.outcome = match self.call_secrets(&mut report).await {
            Ok(secrets) => self.fetch(&secrets, &mut cluster_fetch, &mut report).await,
            Err(failure) => FetchOutcome::Failed { failure, sent_ms: self.clock.boot_ms() },
        };
        report.usage = cluster_fetch.end().await;
        report
    }

    /// The secrets for the call, or why there are none.
    async fn call_secrets(&self, report: &mut FetchReport) -> Result<CallSecrets, Failure> {
        let source = &self.order.plan.secret;
        let read = source.read_in_background().await;
        report.secret = read.as_ref().ok().cloned();
        // Names the file, never its content.
        let reason = |fault: SecretFault| match source {
            SecretSource::File(file) => format!("secret file {} {fault}", file.path().display()),
            _ => fault.to_string(),
        };
        let read = match read {
            // The process has no file descriptor left, which says nothing about the file.
            Err(fault @ SecretFault::NoDescriptor) => {
                return Err(Failure::no_descriptor(&self.order.plan.appid, reason(fault)));
            }
            read => read.map_err(reason),
        };
        match &self.order.grant {
            // Not even with a grant that is kept from an earlier configuration.
            _ if self.order.plan.secret.is_absent() => Err(Failure::no_secret(&self.order.plan.appid)),
            Some(grant) => grant.call_secrets(&self.order.plan.appid, read),
            None => read
                .map(CallSecrets::plain)
                .map_err(|reason| Failure::unreadable_secret(&self.order.plan.appid, reason)),
        }
    }

    /// True if WeChat accepts the present value now.
    async fn is_accepted(&self, report: &mut FetchReport) -> bool {
        let Some(held) = &self.order.held else { return false };
        self.probe_value(held, report).await == Probe::Alive
    }

    /// Counts a probe of this value, and makes it.
    async fn probe_value(&self, value: &[u8], report: &mut FetchReport) -> Probe {
        let sent = u64::from(self.order.credential_type.probe.is_some());
        (report.calls, report.probes) = (report.calls + sent, report.probes + sent);
        self.upstream.probe(self.order.credential_type, &self.order.plan.base_url, value, self.deadline()).await
    }

    async fn fetch(
        &self,
        secrets: &CallSecrets,
        cluster_fetch: &mut ClusterFetch,
        report: &mut FetchReport,
    ) -> FetchOutcome {
        if let Some((state_writer, version)) = &self.intent {
            state_writer.wait_until_saved(*version, INTENT_WAIT).await;
        }
        if self.cancel.is_cancelled() {
            return FetchOutcome::Cancelled;
        }
        if let Some(outcome) = self.adopt_site_value(cluster_fetch, report).await {
            return outcome;
        }
        let Ok((token, generation)) = self.parent_token(self.clock.boot_ms()) else {
            return FetchOutcome::NoParentToken;
        };
        let params = self.fetch_params(secrets, &token);
        let at_most = match cluster_fetch.announce(self.clock.unix_ms()).await {
            Ok(at_most) => at_most.unwrap_or(Duration::MAX),
            Err(prevented) => return FetchOutcome::Prevented(prevented),
        };
        let sent_ms = self.clock.boot_ms();
        report.calls += 1;
        let token = match self.upstream.fetch(self.order.credential_type, params, self.deadline().min(at_most)).await {
            Ok(token) => token,
            Err(mut failure) => {
                // The access token may be the cause: it is verified, and this call is made again.
                if self.order.parent.is_some() && failure.refuses_token() {
                    report.refused_parent = Some(generation);
                    failure.class = Class::Retry;
                }
                if let Some(grant) = &self.order.grant {
                    grant.record_refused(secrets, &mut failure);
                }
                cluster_fetch.close_failed(&failure, self.order.renewal_state.left_ms(sent_ms) > 0).await;
                return FetchOutcome::Failed { failure, sent_ms };
            }
        };
        let received_ms = self.clock.boot_ms();
        if let Some(grant) = &self.order.grant {
            grant.record_accepted(secrets, token.refresh.as_ref()).await;
        }
        let same = self.order.held.as_ref().is_some_and(|held| *held == token.value);
        let refresh = self.order.grant.as_ref().and_then(Grant::refresh_token);
        let life_ms = token.expires_in_s.saturating_mul(1000);
        report.shared = cluster_fetch
            .publish(&token, FetchedValue { same, sent_ms, received_ms, life_ms }, &self.order.renewal_state, refresh)
            .await;
        let doubted = self.order.purpose != FetchPurpose::Renew || self.order.renewal_state.is_withdrawn();
        let probe = match same && doubted && self.order.credential_type.probe.is_some() {
            true => Some(self.probe_value(&token.value, report).await),
            false => None,
        };
        FetchOutcome::Answered { token, sent_ms, received_ms, probe }
    }

    /// Takes the site's own value instead of a fetch, if it differs from the present one and WeChat accepts it.
    async fn adopt_site_value(
        &self,
        cluster_fetch: &mut ClusterFetch,
        report: &mut FetchReport,
    ) -> Option<FetchOutcome> {
        let source = self.order.adopts_from.as_ref()?;
        let refused = |reason: String| Some(Adoption::Refused { place: source.place(), reason });
        let found = match self.find_site_value(&**source).await {
            Ok(found) if self.order.held.as_ref() == Some(&found.value) => return None,
            Ok(found) => found,
            Err(reason) => {
                report.adoption = refused(reason);
                return None;
            }
        };
        let sent_ms = self.clock.boot_ms();
        let probe = self.probe_value(&found.value, report).await;
        let refusal = match probe {
            Probe::Alive => None,
            Probe::Dead(errcode) => Some(format!("WeChat refuses the token that is there, errcode {errcode}")),
            Probe::Withheld(errcode) => Some(format!("WeChat does not let the token be tried, errcode {errcode}")),
            // A fetch could end it, so no fetch is made for this reason.
            Probe::Unknown => {
                let what = "the site's own token could not be tried";
                let failure = Failure::transport(&self.order.plan.appid, Delivery::NotSent, what);
                return Some(FetchOutcome::Failed { failure, sent_ms });
            }
        };
        if let Some(reason) = refusal {
            report.adoption = refused(reason);
            return None;
        }
        let received_ms = self.clock.boot_ms();
        let FoundToken { value, left_ms, is_end_known } = found;
        let token =
            Token { value, expires_in_s: left_ms / 1000, lifetime_source: LifetimeSource::AsGiven, refresh: None };
        let life_ms = ADOPTED_TOLD_LIFE_MS.min(left_ms);
        let fetched = FetchedValue { same: false, sent_ms, received_ms, life_ms };
        report.shared = cluster_fetch.publish(&token, fetched, &self.order.renewal_state, None).await;
        let adopted = if is_end_known { Adopted::WithEnd } else { Adopted::WithoutEnd };
        report.adoption = Some(Adoption::Done { place: source.place(), adopted });
        Some(FetchOutcome::Answered { token, sent_ms, received_ms, probe: Some(probe) })
    }

    /// The site's own value, or why there is none to take.
    async fn find_site_value(&self, source: &dyn TokenSource) -> Result<FoundToken, String> {
        let answer = tokio::time::timeout(ADOPT_WAIT, source.read()).await;
        let stored = answer.map_err(|_| "it does not answer".to_owned())??;
        let found = adopt::find(&stored, self.clock.unix_ms());
        found.ok_or_else(|| "no token is there, or by its own times it is over".to_owned())
    }

    fn fetch_params<'a>(&'a self, secrets: &'a CallSecrets, parent_token: &'a str) -> FetchParams<'a> {
        FetchParams {
            base_url: &self.order.plan.base_url,
            appid: &self.order.plan.appid,
            secret: &secrets.secret,
            token: secrets.ticket.as_ref().map_or(parent_token, Secret::expose),
            force: self.order.purpose == FetchPurpose::Force,
            component: self.order.grant.as_ref().map_or("", |grant| grant.name.component.as_str()),
        }
    }

    /// The live access token and its generation; empty for types that need none.
    fn parent_token(&self, now_ms: BootMs) -> Result<(String, u64), ()> {
        let Some(parent) = &self.order.parent else { return Ok((String::new(), 0)) };
        match parent.read(now_ms) {
            Reading::Live(guard) => {
                let published = guard.as_ref().ok_or(())?;
                let token = std::str::from_utf8(&published.value).map_err(|_| ())?;
                Ok((token.to_owned(), published.generation))
            }
            Reading::FirstFetch | Reading::Absent => Err(()),
        }
    }

    fn deadline(&self) -> Duration {
        let deadline_ms = self.order.renewal_state.call_deadline_ms(self.clock.boot_ms(), self.order.total_timeout_ms);
        Duration::from_millis(deadline_ms.min(self.order.time_limit_ms))
    }
}
