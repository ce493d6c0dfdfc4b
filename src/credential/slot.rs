//! The driver's data about one credential: what is known, what is planned, what was logged.
//!
//! Publishes values and writes statistics through its [`CredentialWriter`]. Never calls, never sleeps, never decides when to
//! fetch; the driver does that.

use std::sync::Arc;

use bytes::Bytes;
use tokio::sync::oneshot;
use tokio::task::AbortHandle;
use tokio_util::time::delay_queue;

use super::adopt::{self, TokenSource};
use super::app::Adopt;
use super::fetch_task::FetchPurpose;
use super::generation;
use super::grants::Grant;
use super::plan::Plan;
use super::quota_usage::{ChargedCall, QuotaUsage};
use super::schedule::{RenewalState, ms_to_next_day};
use super::state::{CredentialIdentity, RemainingLife, StateEntry, StoredUsage};
use super::table::{
    CredentialId, CredentialState, CredentialWriter, LastError, Published, REPORTS_MAX, VerificationReason,
    log_credential,
};
use crate::clock::{BootMs, Now, RepeatThrottle, nonzero};
use crate::cluster::StoreClockReading;
use crate::cluster::record_handle::RecordHandle;
use crate::https::NetworkFault;
use crate::platform::{Class, Failure, LifetimeSource, Token};
use crate::platform::{CredentialType, Quota, Renewal};
use crate::secret::{Secret, fingerprint};
use crate::secret_source::SecretSource;

/// The driver's data about one credential.
pub(super) struct CredentialSlot {
    pub(super) credential: CredentialWriter,
    pub(super) name: CredentialIdentity,
    pub(super) base_url: String,
    /// What is fetched now: the configured type or its fallback.
    pub(super) credential_type: &'static CredentialType,
    pub(super) configured_type: &'static CredentialType,
    /// Where the site keeps its own value, until this server has fetched one.
    pub(super) adopts_from: Option<Arc<dyn TokenSource>>,
    /// The first value is read from the app's own sink, if there is one.
    pub(super) adopts_from_sink: bool,
    pub(super) fallback: Option<&'static CredentialType>,
    /// When the fallback ends, wall time.
    pub(super) fallback_until_unix_ms: Option<i64>,
    /// The appid, as WeChat knows it.
    pub(super) appid: String,
    /// The credential whose value this is fetched with.
    pub(super) parent: Option<CredentialId>,
    pub(super) source: SecretSource,
    pub(super) renewal_state: RenewalState,
    pub(super) fetched: Option<Now>,
    /// What to do at once after a restart if the restored value is doubtful.
    pub(super) urgent: Option<FetchPurpose>,
    pub(super) timer: Option<delay_queue::Key>,
    pub(super) next_try_ms: BootMs,
    pub(super) fetching: bool,
    /// A classic value that is being written.
    pub(super) pending: Option<Published>,
    pub(super) waiters: Vec<oneshot::Sender<()>>,
    pub(super) checks: VerificationTimes,
    /// A client has caused the running fetch.
    pub(super) by_client: bool,
    pub(super) probes: Probes,
    /// The secret of the last refused call, while an operator has to act; `Some(None)` if it could not be read.
    pub(super) blocked_with: Option<Option<Secret>>,
    /// The generation of the access token that was refused in the call, and when it first was.
    pub(super) refused_with: Option<(u64, BootMs)>,
    /// A new secret in its file that the running fetch does not know, and whether it was there at the start.
    pub(super) replaced_secret: Option<(Secret, bool)>,
    pub(super) quota: Quota,
    /// What is sent besides the secret, for types that need more.
    pub(super) grant: Option<Grant>,
    pub(super) usage: QuotaUsage,
    /// The call counted for the running fetch.
    pub(super) charge: Option<ChargedCall>,
    /// What is known of its record in the cluster store; none on a single node.
    pub(super) share: Option<ClusterShare>,
    /// There is nothing to call WeChat with: another node does.
    pub(super) follows: bool,
    /// Logged failures: errcode, class, and the text if there is no errcode.
    pub(super) log: RepeatThrottle<(Option<i64>, &'static str, String)>,
}

/// When the value was last verified because of reports. Many reports cause one verification in a while.
#[derive(Default)]
pub(super) struct VerificationTimes {
    /// When a client's report was last verified.
    checked_ms: Option<BootMs>,
    /// The generation of that value.
    generation: u64,
    /// When a report was last verified right after another one, because the value was new.
    again_ms: Option<BootMs>,
    /// When a foreign writer last caused a probe. Kept apart, so that a report right after it is verified too.
    foreign_ms: Option<BootMs>,
}

impl VerificationTimes {
    /// See [`CredentialSlot::try_record_verification`].
    fn try_record_verification(
        &mut self,
        why: VerificationReason,
        generation: u64,
        now_ms: BootMs,
        spacing_ms: u64,
    ) -> bool {
        let within = |checked: Option<BootMs>| checked.is_some_and(|checked| now_ms < checked + spacing_ms);
        if why == VerificationReason::ForeignWriter {
            let may = !within(self.foreign_ms.max(self.checked_ms));
            self.foreign_ms = if may { Some(now_ms) } else { self.foreign_ms };
            return may;
        }
        if within(self.checked_ms) {
            // The value that a verification has fetched may be refused too: that allows one more, not one for each
            // value.
            if generation == self.generation || within(self.again_ms) {
                return false;
            }
            self.again_ms = Some(now_ms);
        }
        (self.checked_ms, self.generation) = (Some(now_ms), generation);
        true
    }
}

/// When the value is probed.
#[derive(Default)]
pub(super) struct Probes {
    pub(super) timer: Option<delay_queue::Key>,
    /// The interval, if one is configured for this app.
    pub(super) every_ms: Option<u64>,
    /// Otherwise the probe queue decides.
    pub(super) is_queued: bool,
    /// When the queue is expected to probe it.
    pub(super) queued_probe_ms: Option<BootMs>,
    /// The running fetch is a probe of the queue.
    pub(super) is_queued_probe: bool,
    /// The errcode with which the platform refuses to answer the probe call.
    pub(super) withheld: RepeatThrottle<i64>,
    /// The next regular probe.
    pub(super) next_ms: Option<BootMs>,
    /// A probe because of a foreign writer, or to see whether a refusal was a false alarm.
    pub(super) wanted_ms: Option<BootMs>,
    pub(super) last_ms: Option<BootMs>,
}

/// What is known of a credential's record in the cluster store.
pub(super) struct ClusterShare {
    pub(super) handle: RecordHandle,
    /// Who has fetched the present value, and whether the store has it.
    pub(super) origin: ValueOrigin,
    /// The sealed value last read from the store, with its generation, so that it is not opened twice.
    pub(super) sealed: Option<(u64, Arc<str>)>,
    /// The generation of a value in the store that has expired; 0 if there is none.
    pub(super) expired_generation: u64,
    /// When a value that could not be opened was last removed from the store.
    pub(super) discarded_ms: Option<BootMs>,
    /// How many values in a row were replaced long before their expiry.
    pub(super) early_replacements: u32,
    /// When the platform was last called although the nodes' own count forbade it, and whether the next fetch may.
    pub(super) quota_overruled_ms: Option<BootMs>,
    pub(super) may_exceed_quota: bool,
    /// The task that will offer the present value to the store.
    pub(super) offering: Option<AbortHandle>,
    /// Another node's value was taken over while a fetch was running: that fetch has nothing left to do.
    pub(super) replaced_during_fetch: bool,
    /// How often in a row the lease was denied.
    pub(super) lease_denials: u32,
    /// The store's clock beside ours, as last seen.
    pub(super) clock_reading: Option<StoreClockReading>,
    pub(super) log: RepeatThrottle<&'static str>,
}

/// Who has fetched a value that several nodes share.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum ValueOrigin {
    OtherNode,
    ThisNode,
    /// This node, and the store does not have it yet. It is offered to the store when the fetch is over.
    ThisNodeUnpublished,
}

impl ClusterShare {
    /// True if this node has fetched the present value.
    pub(super) fn is_ours(&self) -> bool {
        self.origin != ValueOrigin::OtherNode
    }

    /// Another node's value, or the store's word about ours, was taken over.
    pub(super) fn record_taken_over(&mut self, origin: ValueOrigin, during_fetch: bool) {
        (self.origin, self.replaced_during_fetch, self.lease_denials) = (origin, during_fetch, 0);
        self.stop_offering();
    }

    pub(super) fn new(handle: RecordHandle) -> ClusterShare {
        ClusterShare {
            handle,
            origin: ValueOrigin::OtherNode,
            sealed: None,
            expired_generation: 0,
            discarded_ms: None,
            early_replacements: 0,
            quota_overruled_ms: None,
            may_exceed_quota: false,
            offering: None,
            replaced_during_fetch: false,
            lease_denials: 0,
            clock_reading: None,
            log: RepeatThrottle::default(),
        }
    }

    /// Cancels the planned offer: the store has a value again.
    pub(super) fn stop_offering(&mut self) {
        if let Some(offering) = self.offering.take() {
            offering.abort();
        }
    }
}

const LOG_AGAIN_MS: u64 = 60_000;

impl CredentialSlot {
    pub(super) fn new(credential: CredentialWriter, plan: Plan) -> CredentialSlot {
        credential.update_status(|status| {
            status.calls_quota = plan.quota.per_day;
            status.endpoint = plan.credential_type.id;
        });
        CredentialSlot {
            credential,
            name: CredentialIdentity::of(plan.credential_type, &plan.id, &plan.base_url),
            base_url: plan.base_url,
            credential_type: plan.credential_type,
            configured_type: plan.credential_type,
            adopts_from: plan.adopt.as_ref().and_then(adopt::source),
            adopts_from_sink: plan.adopt == Some(Adopt::Sink),
            fallback: plan.fallback,
            fallback_until_unix_ms: None,
            appid: plan.appid,
            parent: plan.parent,
            source: plan.secret,
            renewal_state: RenewalState::new(plan.credential_type.renewal),
            fetched: None,
            urgent: None,
            timer: None,
            next_try_ms: 0,
            fetching: false,
            pending: None,
            waiters: Vec::new(),
            checks: VerificationTimes::default(),
            by_client: false,
            probes: Probes {
                every_ms: plan.probe_every_ms.filter(|every_ms| *every_ms > 0),
                is_queued: plan.probe_every_ms.is_none(),
                ..Probes::default()
            },
            blocked_with: None,
            refused_with: None,
            replaced_secret: None,
            quota: plan.quota,
            grant: None,
            usage: QuotaUsage::default(),
            charge: None,
            share: None,
            follows: plan.follows,
            log: RepeatThrottle::default(),
        }
    }

    /// Takes over the counts of an earlier process, if any. Returns what is to be written.
    pub(super) fn restore_usage(&mut self, calls: Option<&QuotaUsage>) -> StoredUsage {
        if let Some(calls) = calls {
            self.usage.clone_from(calls);
        }
        self.show_usage(0);
        StoredUsage { name: self.name.clone(), calls: self.usage.clone() }
    }

    /// What its secret is called.
    pub(super) fn secret_noun(&self) -> &'static str {
        if self.grant.as_ref().is_some_and(Grant::is_refresh_token) { "refresh token" } else { "secret" }
    }

    /// True while the present value is live.
    pub(super) fn is_live(&self, now_ms: BootMs) -> bool {
        self.renewal_state.left_ms(now_ms) > 0
    }

    /// The generation of the present value; 0 without one.
    pub(super) fn generation(&self) -> u64 {
        self.credential.published().map_or(0, |published| published.generation)
    }

    /// True on a single node, and in a cluster on the node that has fetched the present value.
    pub(super) fn is_renewed_here(&self) -> bool {
        self.share.as_ref().is_none_or(ClusterShare::is_ours)
    }

    /// Takes over what an earlier process has written, and publishes the value if it is live.
    pub(super) fn restore(&mut self, entry: &StateEntry, worth: RemainingLife, now: Now) {
        if let Some(share) = &mut self.share {
            share.origin = if entry.ours { ValueOrigin::ThisNode } else { ValueOrigin::OtherNode };
        }
        // A lifetime from another node may have been wrong.
        let life_ms_max = self.configured_type.life_ms_max;
        self.renewal_state.longest_ms = entry.longest_ms.min(life_ms_max);
        self.renewal_state.learned_ms = entry.learned_ms;
        self.renewal_state.life_ms = entry.life_ms.min(life_ms_max);
        self.renewal_state.reliable_lead_ms = entry.reliable_lead_ms;
        self.renewal_state.adopted = entry.adopted;
        let RemainingLife { left_ms, suspicious } = worth;
        let left_ms = left_ms.min(life_ms_max);
        self.renewal_state.expires_ms = Some(now.boot_ms + left_ms);
        if let Some(intent) = entry.intent_unix_ms {
            // A classic call was started and its end is unknown: it may have ended this value.
            let since = u64::try_from(now.unix_ms.saturating_sub(intent)).unwrap_or(0);
            self.renewal_state.record_lost_call(now.boot_ms.saturating_sub(since));
            // A probe cannot tell: the old value works until the overlap ends.
            self.urgent = Some(FetchPurpose::Renew);
        } else if suspicious {
            self.urgent = Some(FetchPurpose::Verify);
        }
        if entry.withdrawn {
            self.renewal_state.withdraw(now.boot_ms);
        }
        self.fetched = Some(Now { boot_ms: entry.fetched_boot_ms, unix_ms: entry.fetched_unix_ms });
        let expires_boot_ms = self.renewal_state.expires_ms.unwrap_or(now.boot_ms);
        let value = Bytes::copy_from_slice(entry.value.as_bytes());
        let generation = generation::restored(entry.generation, now.unix_ms);
        let life_ms = self.renewal_state.life_ms;
        self.credential.update_status(|status| {
            status.generation = generation;
            status.expires_boot_ms = expires_boot_ms;
            status.life_ms = life_ms;
            status.fetched_unix_ms = Some(entry.fetched_unix_ms);
            status.state = CredentialState::Fresh;
        });
        let published = self.published(value, generation, expires_boot_ms);
        if self.is_live(now.boot_ms) {
            self.publish(published);
        } else {
            // Not served, but kept: the next answer may be the same value, and generations go on from it.
            self.credential.remember(published);
        }
    }

    /// Decides whether this request is verified now. If so, records the verification as made.
    pub(super) fn try_record_verification(
        &mut self,
        why: VerificationReason,
        generation: u64,
        now_ms: BootMs,
        spacing_ms: u64,
    ) -> bool {
        if why == VerificationReason::ProbeRequested {
            return self.probes.last_ms.is_none_or(|tried_ms| now_ms >= tried_ms + spacing_ms);
        }
        self.checks.try_record_verification(why, generation, now_ms, spacing_ms)
    }

    /// Adds a client that waits. At the limit, closed ones are removed, and the new one is dropped (its receiver
    /// fails).
    pub(super) fn add_waiter(&mut self, waiter: oneshot::Sender<()>) {
        if self.waiters.len() >= REPORTS_MAX {
            self.waiters.retain(|waiter| !waiter.is_closed());
        }
        if self.waiters.len() < REPORTS_MAX {
            self.waiters.push(waiter);
        }
    }

    /// A value with so little left may be renewed from the quota's reserve.
    pub(super) fn expiring_ms(&self) -> u64 {
        self.renewal_state.overlap_ms() / 2
    }

    /// Starts the fallback endpoint because today's quota is used up. True if there is one; it is used until midnight.
    pub(super) fn begin_fallback(&mut self, unix_ms: i64) -> bool {
        let Some(fallback) = self.fallback.filter(|fallback| self.credential_type != *fallback) else { return false };
        self.fallback_until_unix_ms = Some(unix_ms.saturating_add_unsigned(ms_to_next_day(unix_ms)));
        self.set_type(fallback);
        log_credential!(
            warn,
            self.credential,
            endpoint = fallback.id,
            "today's quota is used up: using the fallback endpoint"
        );
        true
    }

    pub(super) fn end_fallback(&mut self, unix_ms: i64) {
        if self.fallback_until_unix_ms.is_some_and(|until| unix_ms >= until) {
            self.fallback_until_unix_ms = None;
            self.set_type(self.configured_type);
        }
    }

    pub(super) fn set_type(&mut self, credential_type: &'static CredentialType) {
        self.credential_type = credential_type;
        self.renewal_state.renewal = credential_type.renewal;
        self.credential.update_status(|status| status.endpoint = credential_type.id);
    }

    /// WeChat wants no call before the next planned one (with 89503 it messages a person at each call), or an operator
    /// has to act: a client's report causes no earlier call.
    pub(super) fn is_barred(&self, now_ms: BootMs) -> bool {
        let waits = matches!(self.credential.status(now_ms).state, CredentialState::Waiting | CredentialState::Blocked);
        waits && now_ms < self.next_try_ms
    }

    /// Calls that are left of today's quota.
    pub(super) fn calls_left(&self) -> u64 {
        self.quota.per_day.map_or(u64::MAX, |per_day| per_day.saturating_sub(self.usage.calls_today()))
    }

    pub(super) fn show_usage(&self, denied: u64) {
        let (calls_today, day_ends_unix_ms) = (self.usage.calls_today(), self.usage.day_ends_unix_ms());
        self.credential.update_status(|status| {
            (status.calls_today, status.day_ends_unix_ms) = (calls_today, day_ends_unix_ms);
            status.calls_quota = self.quota.per_day;
            status.calls_denied += denied;
            status.probes_today = self.usage.probes_today();
        });
    }

    /// The present value as readers will see it.
    pub(super) fn published(&self, value: Bytes, generation: u64, expires_boot_ms: BootMs) -> Published {
        Published { value, generation, expires_boot_ms, reliable: self.renewal_state.reliable() }
    }

    /// Publishes a value, its statistics first.
    pub(super) fn publish_with_status(&mut self, published: Published) {
        let Published { generation, expires_boot_ms, .. } = published;
        // First, so that a client that has read the value finds it in the statistics too.
        let (life_ms, fetched) = (self.renewal_state.life_ms, self.fetched);
        self.credential.update_status(|status| {
            status.generation = generation;
            status.expires_boot_ms = expires_boot_ms;
            status.life_ms = life_ms;
            status.fetched_unix_ms = fetched.map(|at| at.unix_ms);
        });
        self.publish(published);
    }

    pub(super) fn publish(&self, published: Published) {
        match self.credential_type.renewal {
            Renewal::AtEnd => self.credential.publish_until_next(published),
            _ => self.credential.publish(published),
        }
    }

    /// Sets the published expiry to that of the schedule. Returns what is published now if it has changed.
    pub(super) fn adjust_expiry(&mut self) -> Option<Arc<Published>> {
        let old = self.credential.published()?;
        let expires_boot_ms = self.renewal_state.expires_ms.filter(|expires| *expires != old.expires_boot_ms)?;
        self.publish_with_status(self.published(old.value.clone(), old.generation, expires_boot_ms));
        self.credential.published()
    }

    pub(super) fn state_entry(&self, published: &Published, now: Now) -> Option<StateEntry> {
        let fetched = self.fetched.unwrap_or(now);
        // A withdrawn value is written with its real expiry: the refusal may be a false alarm.
        let withdrawn_ms = self.renewal_state.withdrawn_end_ms();
        let expires_boot_ms = withdrawn_ms.unwrap_or(published.expires_boot_ms);
        let left = i64::try_from(expires_boot_ms).ok()? - i64::try_from(now.boot_ms).ok()?;
        Some(StateEntry {
            name: self.name.clone(),
            value: String::from_utf8(published.value.to_vec()).ok()?,
            generation: published.generation,
            expires_unix_ms: now.unix_ms + left,
            expires_boot_ms,
            fetched_unix_ms: fetched.unix_ms,
            fetched_boot_ms: fetched.boot_ms,
            life_ms: self.renewal_state.life_ms,
            longest_ms: self.renewal_state.longest_ms,
            learned_ms: self.renewal_state.learned_so_far_ms(),
            intent_unix_ms: None,
            withdrawn: withdrawn_ms.is_some(),
            reliable_lead_ms: self.renewal_state.reliable_lead_ms,
            adopted: self.renewal_state.adopted,
            ours: self.is_renewed_here(),
        })
    }

    pub(super) fn log_answer(&self, token: &Token, same: bool, generation: u64) {
        let print = fingerprint(&token.value);
        // In the last second of a value an `expires_in` of 0 is correct.
        if let Some(warning) =
            token.lifetime_source.warning().filter(|_| !(same && token.lifetime_source == LifetimeSource::Zero))
        {
            log_credential!(warn, self.credential, token = print, "{warning}");
        }
        if same {
            log_credential!(debug, self.credential, token = print, generation, "the platform returned the same token");
        } else {
            let expires_in_s = token.expires_in_s;
            log_credential!(info, self.credential, token = print, generation, expires_in_s, "renewed");
        }
    }

    pub(super) fn show_failure(&mut self, failure: &Failure, now_ms: BootMs, next_ms: BootMs) {
        let live = self.is_live(now_ms);
        let (mut advice, mut advice_zh) = (failure.advice(), failure.advice_zh());
        if let (true, Some(sentence)) = (failure.asks_for_secret(), self.source.takes_effect()) {
            advice = format!("{advice}; {}", sentence.en).into();
            advice_zh = format!("{advice_zh}；{}", sentence.zh).into();
        }
        let state = match failure.class {
            Class::Operator(_) | Class::Internal => CredentialState::Blocked,
            Class::Wait(_) => CredentialState::Waiting,
            Class::Retry if live => CredentialState::Stale,
            Class::Retry => CredentialState::Dead,
        };
        let (class, rid) = (failure.class.name(), failure.rid.as_deref().map(str::to_owned));
        self.log_failure(failure, &advice, now_ms, next_ms, live);
        self.credential.update_status(|status| {
            (status.state, status.waits_for_parent) = (state, false);
            status.failures += 1;
            status.last_error = Some(LastError {
                errcode: failure.errcode,
                class,
                rid,
                text: failure.to_string(),
                meaning: failure.meaning(),
                advice,
                advice_zh,
                network: failure.network.map(NetworkFault::name),
                seen_ip: failure.seen_ip,
                at_boot_ms: now_ms,
            });
        });
    }

    pub(super) fn log_failure(&mut self, failure: &Failure, advice: &str, now_ms: BootMs, next_ms: BootMs, live: bool) {
        // The rid differs each time. Without an errcode the text tells failures apart.
        let text = if failure.errcode.is_some() { String::new() } else { failure.message.clone() };
        let this = (failure.errcode, failure.class.name(), text);
        let Some(unsaid) = self.log.allow(this, now_ms, LOG_AGAIN_MS) else { return };
        let (of, suppressed) = (&self.credential, nonzero(unsaid));
        let next_try_s = nonzero(next_ms.saturating_sub(now_ms).div_ceil(1000));
        let (class, rid, errcode) = (failure.class.name(), failure.rid.as_deref(), failure.errcode);
        macro_rules! log {
            ($level:ident) => {
                log_credential!(
                    $level,
                    of,
                    class,
                    errcode,
                    rid,
                    next_try_s,
                    live,
                    suppressed,
                    advice,
                    "renewal failed: {failure}"
                )
            };
        }
        if matches!(failure.class, Class::Operator(_) | Class::Internal) || !live { log!(error) } else { log!(warn) }
    }
}
