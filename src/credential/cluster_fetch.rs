//! What a fetch does in a cluster: it takes the lease, announces the call, publishes the value to the cluster store,
//! and counts the call for all nodes. On a single node it does nothing.
//!
//! Never decides when the next fetch is and never publishes to readers.

use std::sync::Arc;
use std::time::Duration;

use super::generation;
use super::quota_usage::{CallReason, QuotaExceeded, QuotaUsage};
use super::schedule::RenewalState;
use super::schedule::cluster::{WithoutStore, others_wait_ms};
use super::shared_counts::SharedCounts;
use crate::clock::BootMs;
use crate::cluster::node_rules::{FetchEffect, NextStep};
use crate::cluster::record_handle::{Lease, LeaseAnswer, PublishOutcome, RecordHandle};
use crate::cluster::seal::PublishedValue;
use crate::cluster::{CallEnd, OpOutcome, Record, StoreAnswer, StoreClockReading, Unreachable};
use crate::platform::answer::LifetimeSource;
use crate::platform::{Delivery, Failure, Token};
use crate::platform::{Quota, Renewal};

/// What a fetch needs to know in a cluster. It does not change while the fetch runs.
pub struct ClusterFetchContext {
    pub handle: RecordHandle,
    pub fetch_effect: FetchEffect,
    /// The generation of the present value, 0 if that cannot be used any more. A later value is taken over.
    pub known_generation: u64,
    /// The generation of the present value.
    pub held: u64,
    /// The generation for a first value.
    pub first: u64,
    /// The present value is live.
    pub live: bool,
    pub spacing_ms: u64,
    pub lease_ms: u64,
    /// How long the lease is kept for the next call after an answer with the same value.
    pub keep_ms: u64,
    pub alone: WithoutStore,
    pub usage: QuotaUsage,
    pub quota: Quota,
    /// What the call is counted as; none if it is not counted.
    pub charged_as: Option<CallReason>,
}

/// A record without a valid seal can delay a call by this much at most.
const UNSEALED_WAIT_MS_MAX: u64 = 600_000;

impl ClusterFetchContext {
    /// Asks for the lease. A long delay is accepted only from a record with a valid seal.
    async fn take(&self) -> Result<LeaseAnswer, Unreachable> {
        let taken = self.handle.take_lease(self.lease_ms, self.known_generation, self.spacing_ms).await?;
        match taken {
            LeaseAnswer::Denied(StoreAnswer { outcome: OpOutcome::PutOff { left_ms }, record, clock_reading }, _)
                if left_ms > UNSEALED_WAIT_MS_MAX
                    && left_ms > self.put_off_ms(&record, clock_reading)
                    && self.fetched_long_ago(&record, clock_reading) =>
            {
                self.handle.take_lease(self.lease_ms, self.known_generation, 0).await
            }
            taken => Ok(taken),
        }
    }

    fn counts(&self, record: &Record, clock_reading: StoreClockReading) -> Option<SharedCounts> {
        SharedCounts::from_text(record.calls.as_deref()?, &self.handle.seal, &self.quota, clock_reading.store_ms).ok()
    }

    /// How long no node has to call, by the sealed word of the node that called last.
    fn put_off_ms(&self, record: &Record, clock_reading: StoreClockReading) -> u64 {
        self.counts(record, clock_reading)
            .map_or(0, |counts| counts.not_before_ms.saturating_sub(clock_reading.store_ms))
    }

    fn fetched_long_ago(&self, record: &Record, clock_reading: StoreClockReading) -> bool {
        let Some(Ok(value)) = self.handle.unseal(record) else { return true };
        clock_reading.store_ms.saturating_sub(value.fetched_ms) >= self.spacing_ms
    }

    /// True if the record has a later value than ours that can be unsealed.
    fn has_later(&self, answer: &StoreAnswer) -> bool {
        self.handle.unseal(&answer.record).is_some_and(|opened| opened.is_ok_and(|value| value.generation > self.held))
    }

    /// A fetched value for the record; the generation and the refresh token are not set yet. None if it is not text.
    fn record_value(
        &self,
        lease: &Lease,
        token: &Token,
        fetched: &FetchedValue,
        renewal_state: &RenewalState,
    ) -> Option<PublishedValue> {
        let lifetime_ms = token.expires_in_s.saturating_mul(1000);
        let is_remaining_time = matches!(renewal_state.renewal, Renewal::Window { .. } | Renewal::AtEnd);
        let expires_ms = match (fetched.same, renewal_state.expires_ms) {
            (true, Some(expires_ms)) if renewal_state.renewal != Renewal::Poll => expires_ms,
            _ if token.lifetime_source == LifetimeSource::Zero && is_remaining_time => fetched.sent_ms,
            _ => fetched.sent_ms.saturating_add(lifetime_ms),
        };
        Some(PublishedValue {
            value: std::str::from_utf8(&token.value).ok()?.to_owned(),
            expires_ms: lease.clock_reading.to_store_ms(expires_ms),
            fetched_ms: lease.clock_reading.to_store_ms(fetched.received_ms),
            life_ms: fetched.life_ms,
            longest_ms: lifetime_ms.max(renewal_state.longest_ms / 2),
            learned_ms: renewal_state.learned_so_far_ms(),
            by: self.handle.name.to_string(),
            node: self.handle.node,
            ..PublishedValue::default()
        })
    }

    /// Our counts for the other nodes, and how long they need not call.
    fn counted(&self, lease: &Lease, wait_ms: u64) -> Option<Arc<str>> {
        SharedCounts::after_call(&self.usage, lease.clock_reading.store_ms, wait_ms).to_text(&self.handle.seal)
    }
}

/// Why a fetch ends before its call.
pub enum CallPrevented {
    /// The store has refused the lease: another node has it, or has fetched just now.
    LeaseDenied(StoreAnswer, NextStep),
    /// The lease ended before the call could be sent.
    LeaseExpired,
    QuotaExceeded(QuotaExceeded),
    /// Without the store nothing is fetched now.
    StoreUnreachable(Unreachable),
}

/// How the value of an answered call was given to the other nodes.
pub enum SharingResult {
    /// There are no other nodes.
    NotShared,
    /// It is in the cluster under this generation; why the other nodes do not have it yet, if they have not.
    Shared(u64, Option<Unreachable>),
    /// Another node has published at the same time; the record as it is now.
    Refused(Box<StoreAnswer>),
}

/// The lease of one fetch, and what the store knows of it.
pub struct ClusterFetch {
    context: Option<Box<ClusterFetchContext>>,
    lease: Option<Box<Lease>>,
    charge: Option<super::quota_usage::ChargedCall>,
    /// Why there is no lease, in a cluster.
    unreachable: Option<Unreachable>,
    /// The store knows that this fetch is over.
    ended: bool,
}

/// When a value was fetched.
pub struct FetchedValue {
    /// It is the value that we have.
    pub same: bool,
    pub sent_ms: BootMs,
    pub received_ms: BootMs,
    /// Its lifetime, ms.
    pub life_ms: u64,
}

impl ClusterFetch {
    /// Takes the lease. `alive` probes the present value; it is called where the decision depends on that.
    pub async fn take_lease(
        context: Option<Box<ClusterFetchContext>>,
        alive: impl AsyncFnOnce() -> bool,
    ) -> Result<ClusterFetch, CallPrevented> {
        let alone = ClusterFetch { context: None, lease: None, charge: None, unreachable: None, ended: true };
        let Some(context) = context else { return Ok(alone) };
        let taken = context.take().await;
        let unreachable = match taken {
            Ok(LeaseAnswer::Granted(lease)) => return ClusterFetch::after_grant(context, lease).await,
            Ok(LeaseAnswer::Denied(answer, next)) => return Err(CallPrevented::LeaseDenied(answer, next)),
            Err(unreachable) => unreachable,
        };
        match context.alone {
            WithoutStore::Always => {}
            WithoutStore::IfAlive if alive().await => {}
            WithoutStore::IfAlive | WithoutStore::Never => return Err(CallPrevented::StoreUnreachable(unreachable)),
        }
        Ok(ClusterFetch { context: Some(context), unreachable: Some(unreachable), ..alone })
    }

    async fn after_grant(
        mut context: Box<ClusterFetchContext>,
        lease: Box<Lease>,
    ) -> Result<ClusterFetch, CallPrevented> {
        if let Some(counts) = context.counts(&lease.record, lease.clock_reading) {
            context.usage.merge(&counts.calls);
        }
        // A value that cannot be unsealed is removed, so that a new one can be published.
        let discarded = if lease.is_forged() { Some(lease.discard().await) } else { None };
        let mut fetch =
            ClusterFetch { context: Some(context), lease: Some(lease), charge: None, unreachable: None, ended: false };
        let prevented = match discarded {
            Some(Ok(answer)) if answer.outcome != OpOutcome::Done => {
                CallPrevented::LeaseDenied(answer, NextStep::TakeOver)
            }
            Some(Err(unreachable)) => CallPrevented::StoreUnreachable(unreachable),
            Some(Ok(_)) | None => return Ok(fetch),
        };
        fetch.close_unsent().await;
        Err(prevented)
    }

    /// The last step before the call: counts it and announces it. Returns the longest time it may take.
    pub async fn announce(&mut self, now_unix_ms: i64) -> Result<Option<Duration>, CallPrevented> {
        let announced = self.try_announce(now_unix_ms).await;
        if announced.is_err() {
            self.close_unsent().await;
        }
        announced
    }

    async fn try_announce(&mut self, now_unix_ms: i64) -> Result<Option<Duration>, CallPrevented> {
        let Some(context) = self.context.as_mut() else { return Ok(None) };
        if let Some(why) = context.charged_as {
            // Clocks of nodes may differ; the store's clock is the same for all.
            let unix_ms = self.lease.as_ref().and_then(|lease| i64::try_from(lease.clock_reading.store_ms).ok());
            let charged = context.usage.try_charge(&context.quota, unix_ms.unwrap_or(now_unix_ms), why);
            self.charge = Some(charged.map_err(CallPrevented::QuotaExceeded)?);
        }
        let Some(lease) = self.lease.as_mut() else { return Ok(None) };
        if context.fetch_effect == FetchEffect::SameToken {
            return Ok(None);
        }
        let call_ms = lease.announce().await.map_err(CallPrevented::StoreUnreachable)?;
        call_ms.map(|ms| Some(Duration::from_millis(ms))).ok_or(CallPrevented::LeaseExpired)
    }

    /// Nothing was sent.
    pub async fn close_unsent(&mut self) {
        if let Some((context, charge)) = self.context.as_mut().zip(self.charge.take()) {
            context.usage.refund(charge);
        }
        self.close(CallEnd::Unsent, false, 0, 0).await;
    }

    /// A call brought no value.
    pub async fn close_failed(&mut self, failure: &Failure, live: bool) {
        if failure.delivery == Delivery::NotSent {
            return self.close_unsent().await;
        }
        let Some(lease) = &self.lease else { return };
        let fetch_effect = self.context.as_ref().map_or(FetchEffect::SameToken, |context| context.fetch_effect);
        let lost = fetch_effect == FetchEffect::NewToken && failure.delivery == Delivery::Ambiguous;
        let ended = if lost { CallEnd::Lost } else { CallEnd::Answered };
        let wait_ms = others_wait_ms(failure.class, fetch_effect, lease.failures(), live);
        let wait_ms = match self.context.as_ref() {
            // A call that may have ended the value must be settled while the value lives.
            Some(context) if lost => wait_ms.min(context.spacing_ms.max(1)),
            _ => wait_ms,
        };
        self.close(ended, true, wait_ms, 0).await;
    }

    /// Publishes the value of an answered call to the cluster store.
    pub async fn publish(
        &mut self,
        token: &Token,
        fetched: FetchedValue,
        renewal_state: &RenewalState,
        refresh: Option<String>,
    ) -> SharingResult {
        let same = fetched.same;
        let Some(context) = &self.context else { return SharingResult::NotShared };
        let held = context.held;
        let Some(lease) = &self.lease else {
            return match self.unreachable.take() {
                Some(unreachable) if !same => {
                    SharingResult::Shared(generation::next(held, context.first), Some(unreachable))
                }
                _ => SharingResult::Shared(held, None),
            };
        };
        if same && renewal_state.renewal != Renewal::Poll && lease.record.generation == held {
            let keep_ms = context.keep_ms;
            self.close(CallEnd::Answered, false, 0, keep_ms).await;
            return SharingResult::Shared(held, None);
        }
        let generation = if same { held } else { lease.next_generation(held, context.first) };
        let Some(value) = context.record_value(lease, token, &fetched, renewal_state) else {
            return SharingResult::NotShared;
        };
        let value = PublishedValue { generation, refresh, ..value };
        let minted = context.fetch_effect == FetchEffect::NewToken && !same;
        let calls = context.counted(lease, 0);
        self.ended = true;
        match lease.publish(&value, minted, 0, calls).await {
            PublishOutcome::Published(generation) => SharingResult::Shared(generation, None),
            // If there is no other value to serve and no later one was published, ours is better than none.
            PublishOutcome::Refused(answer) if !minted || (!context.live && !context.has_later(&answer)) => {
                let text = "the cluster store has given the lease to another node".into();
                SharingResult::Shared(generation, Some(Unreachable { text, advice: "nothing", unknown: false }))
            }
            PublishOutcome::Refused(answer) => SharingResult::Refused(Box::new(answer)),
            PublishOutcome::Unpublished(generation, unreachable) => {
                SharingResult::Shared(generation, Some(unreachable))
            }
        }
    }

    /// Ends the fetch. Returns the counts of all nodes, in a cluster.
    pub async fn end(mut self) -> Option<QuotaUsage> {
        if !self.ended {
            self.close_unsent().await;
        }
        self.context.map(|context| context.usage)
    }

    async fn close(&mut self, ended: CallEnd, failed: bool, wait_ms: u64, keep_ms: u64) {
        if std::mem::replace(&mut self.ended, true) {
            return;
        }
        if let (Some(lease), Some(context)) = (&self.lease, &self.context) {
            lease.close(ended, failed, wait_ms, keep_ms, context.counted(lease, wait_ms)).await;
        }
    }
}
