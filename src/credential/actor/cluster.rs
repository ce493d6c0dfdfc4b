//! What an actor knows of the other nodes: compares the record in the cluster store with the value served here, takes
//! over later values, and offers the store what it lacks. Also what follows a fetch that the store has stopped, and the
//! rules of a node that cannot call by itself. A single node's actor never gets here.
//!
//! A follower takes a value by its generation alone. Nothing here decides who may call: the lease does that.

use std::sync::Arc;

use bytes::Bytes;

use super::fetching::Activity;
use super::verification::Probes;
use super::{Actor, Effect};
use crate::clock::{BootMs, Now, RepeatThrottle};
use crate::cluster::node_rules::{FetchEffect, NextStep};
use crate::cluster::record_handle::RecordHandle;
use crate::cluster::seal::{PublishedValue, UnsealError};
use crate::cluster::{Record, RefreshReason, StoreAnswer, StoreClockReading, Unreachable};
use crate::credential::cluster_fetch::{CallPrevented, ClusterFetchContext};
use crate::credential::fetch_task::{FetchOutcome, FetchPurpose};
use crate::credential::generation;
use crate::credential::grants::Grant;
use crate::credential::quota_usage::CallReason;
use crate::credential::schedule::BACKOFF_FLOOR_MS;
use crate::credential::schedule::cluster::{OFFER_SPREAD_MS, RecordComparison, RecordMeaning, retry_denied_ms};
use crate::credential::shared_counts::{CountsRejected, SharedCounts};
use crate::credential::table::{Event as JournalEvent, log_credential};
use crate::platform::{Failure, Renewal};
use crate::secret::fingerprint;

const LOG_AGAIN_MS: u64 = 60_000;
/// A value that cannot be opened is one of the same row if it comes within this time after the last removal.
const REMOVALS_MS: u64 = 10 * OFFER_SPREAD_MS;
/// How often a follower checks its value if no event comes.
const FOLLOW_MS: u64 = 60_000;
const OVERRULE_QUOTA_EVERY_MS: u64 = 600_000;

/// What the cluster tells an actor.
pub(in crate::credential) enum ClusterNews {
    /// Its record has changed, or all records are read again.
    Record { record: Box<Record>, clock_reading: StoreClockReading },
    /// The store cannot be reached.
    StoreLost,
    /// The store can be reached again.
    StoreBack,
    /// Another node has renewed or verified the value; or no node could be asked.
    Asked(Result<(), Unreachable>),
}

/// What is to be done at the cluster store, besides fetches.
pub(in crate::credential) enum StoreOrder {
    /// Replaces an offer that was not made yet.
    Offer {
        value: Box<PublishedValue>,
        after_ms: u64,
    },
    StopOffering,
    /// This generation has two values.
    Doubt {
        generation: u64,
    },
    /// Removes a value that cannot be opened, if it is still there then.
    Discard {
        after_ms: u64,
    },
    /// [`ClusterNews::Asked`] follows.
    Ask {
        generation: Option<u64>,
        why: RefreshReason,
    },
    /// A value was found that no node can have written.
    CountForgery,
    /// Counts were found that are not to be believed.
    RejectCounts(CountsRejected),
    /// That node has fetched a value.
    RecordNode {
        name: String,
        fetched_boot_ms: BootMs,
    },
}

/// What is known of a credential's record in the cluster store.
pub(super) struct Share {
    pub handle: RecordHandle,
    /// Who has fetched the present value, and whether the store has it.
    origin: ValueOrigin,
    /// The sealed value last read from the store, with its generation, so that it is not opened twice.
    sealed: Option<(u64, Arc<str>)>,
    /// The generation of a value in the store that has expired; 0 if there is none.
    expired_generation: u64,
    /// When a value that could not be opened was last removed from the store.
    discarded_ms: Option<BootMs>,
    /// How many values in a row were replaced long before their expiry.
    early_replacements: u32,
    /// When the platform was last called although the nodes' own count forbade it.
    quota_overruled_ms: Option<BootMs>,
    /// How often in a row the lease was denied.
    lease_denials: u32,
    /// The store's clock beside ours, as last seen.
    clock_reading: Option<StoreClockReading>,
    log: RepeatThrottle<&'static str>,
}

/// Who has fetched a value that several nodes share.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum ValueOrigin {
    OtherNode,
    ThisNode,
    /// This node, and the store does not have it yet. It is offered to the store when the fetch is over.
    ThisNodeUnpublished,
}

impl Share {
    pub fn new(handle: RecordHandle) -> Share {
        Share {
            handle,
            origin: ValueOrigin::OtherNode,
            sealed: None,
            expired_generation: 0,
            discarded_ms: None,
            early_replacements: 0,
            quota_overruled_ms: None,
            lease_denials: 0,
            clock_reading: None,
            log: RepeatThrottle::default(),
        }
    }

    /// True if this node has fetched the present value.
    pub fn is_ours(&self) -> bool {
        self.origin != ValueOrigin::OtherNode
    }
}

/// Before, during and after a fetch.
impl Actor {
    /// What a second call does: answer the same value again or make a new one.
    fn fetch_effect(&self, purpose: FetchPurpose) -> FetchEffect {
        match self.credential_type.renewal {
            Renewal::Mint => FetchEffect::NewToken,
            _ if purpose == FetchPurpose::Force => FetchEffect::NewToken,
            _ => FetchEffect::SameToken,
        }
    }

    /// True if there is a cluster and this node has fetched the present value.
    fn is_ours(&self) -> bool {
        self.share.as_ref().is_some_and(Share::is_ours)
    }

    /// True for a node that follows a leader by its HTTP API: it has what the leader lists.
    fn follows_leader(&self) -> bool {
        self.share.as_ref().is_some_and(|share| !share.handle.store.has_leases())
    }

    pub(super) fn restore_origin(&mut self, ours: bool) {
        if let Some(share) = &mut self.share {
            share.origin = if ours { ValueOrigin::ThisNode } else { ValueOrigin::OtherNode };
        }
    }

    /// What a fetch needs to know in a cluster; none on a single node.
    pub(super) fn cluster_fetch_context(
        &self,
        purpose: FetchPurpose,
        charged_as: Option<CallReason>,
    ) -> Option<Box<ClusterFetchContext>> {
        let (now, now_ms) = (self.turn.now, self.now_ms());
        let (live, held, fetch_effect) = (self.is_live(now_ms), self.generation(), self.fetch_effect(purpose));
        let spacing_ms = self.spacing_ms(purpose);
        let keep_ms = self.renewal_state.keep_ms(now_ms);
        let lease_ms = self.renewal_state.lease_ms(self.limits.total_timeout_ms, now_ms);
        let alone = self.renewal_state.without_store(fetch_effect, self.is_ours(), now_ms);
        let share = self.share.as_ref()?;
        // A withdrawn value cannot be used, but only a later one can replace it.
        let known_generation = if live || self.renewal_state.is_withdrawn() { held } else { 0 };
        Some(Box::new(ClusterFetchContext {
            handle: share.handle.clone(),
            fetch_effect,
            known_generation: known_generation.max(share.expired_generation),
            held,
            first: generation::first(now.unix_ms),
            live,
            spacing_ms,
            lease_ms,
            keep_ms,
            alone,
            usage: self.usage.clone(),
            quota: self.plan.quota,
            charged_as,
        }))
    }

    fn spacing_ms(&self, purpose: FetchPurpose) -> u64 {
        let scheduled = !matches!(purpose, FetchPurpose::Replace | FetchPurpose::Force | FetchPurpose::Verify);
        self.renewal_state.others_spacing_ms(scheduled && self.waiters.is_empty(), self.now_ms())
    }

    /// Records that the store did not deny the lease.
    pub(super) fn record_lease(&mut self, outcome: &FetchOutcome) {
        if let (Some(share), false) =
            (&mut self.share, matches!(outcome, FetchOutcome::Prevented(CallPrevented::LeaseDenied(..))))
        {
            share.lease_denials = 0;
        }
    }

    /// The store has denied the lease: another node has it, or has fetched just now.
    pub(super) fn on_lease_denied(&mut self, answer: &StoreAnswer, next: NextStep, was_superseded: bool) {
        let now_ms = self.now_ms();
        let before = self.next_try_ms;
        self.on_record(&answer.record, answer.clock_reading);
        let expired_generation = self.share.as_ref().map_or(0, |share| share.expired_generation);
        let at_ms = match next {
            // The new record arrived before the answer to our request, so there is nothing to wait for.
            _ if was_superseded => self.renewal_state.due_after_others_ms(now_ms, fastrand::f64()),
            NextStep::Wait { ms } => self.retry_denied_ms(answer, ms),
            // The value in the store cannot be used. This answer, or an event before it, has shown that.
            NextStep::TakeOver if expired_generation >= answer.record.generation => now_ms + BACKOFF_FLOOR_MS,
            NextStep::TakeOver | NextStep::Call if self.next_try_ms == before => {
                now_ms + self.renewal_state.check_spacing_ms()
            }
            NextStep::TakeOver | NextStep::Call => return self.end_fetch(),
        };
        if self.next_try_ms == before || at_ms < self.next_try_ms {
            self.set_renewal_timer(at_ms);
        }
        self.restore_shown_state();
        self.end_fetch();
    }

    fn retry_denied_ms(&mut self, answer: &StoreAnswer, ms: u64) -> BootMs {
        let now_ms = self.now_ms();
        let (live, held) = (self.is_live(now_ms), answer.record.lease_left_ms(answer.clock_reading.store_ms) > 0);
        if !held && !live {
            self.end_wait();
        }
        let times = self.share.as_ref().map_or(0, |share| share.lease_denials);
        if let Some(share) = &mut self.share {
            share.lease_denials = times.saturating_add(1);
        }
        now_ms + retry_denied_ms(ms, times, live, fastrand::f64())
    }

    /// The lease expired before the call was sent: this machine or the store is slow.
    pub(super) fn on_lease_expired(&mut self) {
        log_credential!(debug, self, "lease expired before the call was sent");
        self.restore_shown_state();
        self.set_renewal_timer(self.now_ms() + BACKOFF_FLOOR_MS + fastrand::u64(0..=1_000));
    }

    /// The store cannot be reached, so nothing was fetched.
    pub(super) fn on_store_unreachable(&mut self, purpose: FetchPurpose, unreachable: &Unreachable) {
        let now_ms = self.now_ms();
        let left_ms = self.renewal_state.left_ms(now_ms);
        if self.credential_type.renewal == Renewal::Poll && left_ms > 0 && self.renewal_state.failures == 0 {
            // No fault yet: a polled value is trusted for the time of many polls.
            let pause_ms = self.renewal_state.poll_ms.min(left_ms / 2).max(BACKOFF_FLOOR_MS);
            self.restore_shown_state();
            return self.set_renewal_timer(now_ms + pause_ms);
        }
        let failure = Failure::no_cluster_store(&self.plan.appid, format!("{unreachable}: {}", unreachable.advice));
        self.on_failure(purpose, None, &failure, now_ms);
        let from_ms = self.renewal_state.alone_from_ms(self.is_ours());
        if let Some(from_ms) = from_ms.filter(|from_ms| (now_ms..self.next_try_ms).contains(from_ms)) {
            self.set_renewal_timer(from_ms);
        }
    }

    /// True if another value of the same or a later generation was taken over while this one was fetched.
    pub(super) fn is_superseded(&self, generation: u64, value: &[u8]) -> bool {
        let current = self.held.as_ref().filter(|_| self.share.is_some());
        current.is_some_and(|current| current.generation >= generation && *current.value != *value)
    }

    /// Drops a fetched value of that generation: a value of the same or a later one was taken over meanwhile.
    pub(super) fn on_value_superseded(&mut self, generation: u64) {
        if self.generation() == generation {
            self.mark_generation_doubtful(generation);
        }
        self.restore_shown_state();
        self.resume_schedule();
    }

    /// The store has refused our value because another node has published at the same time. Its value is served and
    /// ours is dropped. Nobody knows which of the two is later, so one more fetch follows.
    pub(super) fn on_publish_refused(&mut self, answer: &StoreAnswer, sent_ms: BootMs) {
        let what = "another node renewed at the same time; its token is served, and one more fetch follows";
        log_credential!(warn, self, "{what}");
        self.on_record(&answer.record, answer.clock_reading);
        self.renewal_state.record_lost_call(sent_ms);
        if let Some(published) = self.adjust_expiry() {
            self.save(&published);
        }
        self.restore_shown_state();
        let at_ms = self.now_ms() + fastrand::u64(0..=self.renewal_state.overlap_ms() / 8);
        self.set_renewal_timer(at_ms);
        self.end_fetch();
    }

    /// Records whether the other nodes have our new value.
    pub(super) fn record_publication(&mut self, unreachable: Option<&Unreachable>) {
        let Some(share) = &mut self.share else { return };
        share.origin = ValueOrigin::ThisNode;
        if let Some(unreachable) = unreachable {
            share.origin = ValueOrigin::ThisNodeUnpublished;
            log_credential!(warn, self, "the new token could not be published to the cluster store yet: {unreachable}");
        }
    }

    /// Records a new value. If the value before it was replaced early, the next settlement of an unsettled call has to
    /// wait longer.
    pub(super) fn record_replacement(&mut self, fetched_ms: BootMs) {
        let Some(old_ms) = self.fetched.map(|old| old.boot_ms) else { return };
        let early = fetched_ms.saturating_sub(old_ms) < self.renewal_state.longest_ms / 2;
        if let Some(share) = &mut self.share {
            share.early_replacements = if early { share.early_replacements.saturating_add(1) } else { 0 };
        }
    }

    /// Another node has just renewed, usually because of the same change, which reaches all nodes.
    pub(super) fn is_just_renewed_elsewhere(&self) -> bool {
        let now_ms = self.now_ms();
        let spacing_ms = self.renewal_state.others_spacing_ms(true, now_ms);
        let is_recent = self.fetched.is_some_and(|at| now_ms < at.boot_ms.saturating_add(spacing_ms));
        is_recent && self.share.as_ref().is_some_and(|share| !share.is_ours())
    }

    /// The platform decides whether the quota is used up, not the count of the nodes. If the token has ended or is
    /// about to, the platform is called in spite of the count, now and then. Records that and returns true if it is
    /// time.
    pub(super) fn try_overrule_quota(&mut self) -> bool {
        let now_ms = self.now_ms();
        let dying = self.renewal_state.left_ms(now_ms) <= self.expiring_ms();
        let Some(share) = self.share.as_mut().filter(|_| dying) else { return false };
        let may = share.quota_overruled_ms.is_none_or(|answered_ms| now_ms >= answered_ms + OVERRULE_QUOTA_EVERY_MS);
        if may {
            share.quota_overruled_ms = Some(now_ms);
        }
        may
    }
}

/// The record in the store.
impl Actor {
    pub(super) fn on_cluster_news(&mut self, news: ClusterNews) {
        let now_ms = self.now_ms();
        match news {
            ClusterNews::Record { record, clock_reading } => {
                self.on_record(&record, clock_reading);
                // A record without a value: nobody has fetched the first one yet.
                if self.follows && !self.is_live(now_ms) {
                    self.end_wait();
                }
            }
            ClusterNews::StoreLost if self.follows && !self.is_live(now_ms) => self.end_wait(),
            ClusterNews::StoreLost => {}
            ClusterNews::StoreBack => {
                let waits = self.renewal_state.failures > 0 || !self.is_live(now_ms);
                if !self.is_busy() && self.share.is_some() && !self.follows && waits {
                    self.set_renewal_timer(now_ms + fastrand::u64(0..=OFFER_SPREAD_MS));
                }
            }
            ClusterNews::Asked(result) => self.on_asked(result),
        }
    }

    /// Takes in the record.
    fn on_record(&mut self, record: &Record, clock_reading: StoreClockReading) {
        let now_ms = self.now_ms();
        if let Some(calls) = record.calls.as_deref() {
            self.count_others(calls, clock_reading);
        }
        let (live, held) = (self.is_live(now_ms), self.generation());
        let is_busy = self.is_busy();
        let Some(share) = self.share.as_mut() else { return };
        share.clock_reading = Some(clock_reading);
        let sealed = record.value.clone().map(|sealed| (record.generation, sealed));
        let known = share.sealed == sealed && sealed.is_some();
        if !known {
            share.sealed = sealed;
            match share.handle.unseal(record) {
                None if live => self.offer_to_store(),
                None => {}
                // Our own publication. The running fetch will report it.
                Some(Ok(value)) if is_busy && value.node == share.handle.node => share.sealed = None,
                Some(Ok(value)) => self.on_stored_value(value, clock_reading),
                Some(Err(unsealable)) => self.remove_unopenable(unsealable),
            }
        } else if record.generation < held && live {
            self.offer_to_store();
        } else if record.generation == held && !live {
            // It could be used when it arrived.
            share.expired_generation = record.generation;
        }
        self.plan_settlement(record, clock_reading);
    }

    fn on_stored_value(&mut self, value: PublishedValue, clock_reading: StoreClockReading) {
        if let Some(share) = &mut self.share {
            (share.discarded_ms, share.expired_generation) = (None, 0);
        }
        let (by, generation) = (value.by.clone(), value.generation);
        let fetched_boot_ms = clock_reading.to_boot_ms(value.fetched_ms);
        if self.follows_leader() {
            self.take_over_from_leader(value, clock_reading);
        } else {
            self.compare_with_store(value, clock_reading);
        }
        self.order(StoreOrder::RecordNode { name: by.clone(), fetched_boot_ms });
        if self.generation() == generation && self.held.is_some() {
            self.set_renewed_by(by);
        }
    }

    /// Adds what other nodes have counted, if it has a valid seal.
    fn count_others(&mut self, text: &str, clock_reading: StoreClockReading) {
        let Some(share) = &self.share else { return };
        match SharedCounts::from_text(text, &share.handle.seal, &self.plan.quota, clock_reading.store_ms) {
            Ok(counts) => {
                self.usage.merge(&counts.calls);
                self.show_usage(0);
            }
            Err(rejected) => self.order(StoreOrder::RejectCounts(rejected)),
        }
    }

    fn order(&mut self, order: StoreOrder) {
        self.push(Effect::Store(order));
    }

    /// Another node's value, or the store's word about ours, was taken over.
    fn record_taken_over(&mut self, is_ours: bool) {
        if let Activity::Fetching(fetching) = &mut self.activity {
            fetching.is_superseded = true;
        }
        if let Some(share) = &mut self.share {
            share.origin = if is_ours { ValueOrigin::ThisNode } else { ValueOrigin::OtherNode };
            share.lease_denials = 0;
            self.order(StoreOrder::StopOffering);
        }
    }

    /// When another node's value ends. No value is taken to live longer than its type can.
    fn limited_expiry_ms(&mut self, value: &PublishedValue, clock_reading: StoreClockReading) -> BootMs {
        let now_ms = self.now_ms();
        let (theirs_ms, latest_ms) =
            (clock_reading.to_boot_ms(value.expires_ms), now_ms + self.plan.credential_type.life_ms_max);
        if theirs_ms <= latest_ms {
            return theirs_ms;
        }
        let suppressed = self.share.as_mut().and_then(|share| share.log.allow("too long", now_ms, LOG_AGAIN_MS));
        if suppressed.is_some() {
            let (said_s, at_most_s) =
                (theirs_ms.saturating_sub(now_ms) / 1000, self.plan.credential_type.life_ms_max / 1000);
            let advice = "check the named node: its value is wrong, or it runs against another API";
            log_credential!(
                warn,
                self,
                by = value.by,
                said_s,
                at_most_s,
                advice,
                "another node published a longer lifetime than this type can have; it is cut"
            );
        }
        latest_ms
    }

    /// Compares a value of the store with ours.
    fn compare_with_store(&mut self, value: PublishedValue, clock_reading: StoreClockReading) {
        let now_ms = self.now_ms();
        let (held, same) = (self.generation(), self.holds(value.value.as_bytes()));
        let theirs_ms = self.limited_expiry_ms(&value, clock_reading);
        let older = self.fetched.is_some_and(|ours| clock_reading.to_boot_ms(value.fetched_ms) <= ours.boot_ms);
        let withdrawn = value.withdrawn;
        let comparison = RecordComparison { held, theirs: value.generation, same, theirs_ms, older, withdrawn };
        match self.renewal_state.compare(&comparison, now_ms) {
            RecordMeaning::Over => {
                if let Some(share) = &mut self.share {
                    share.expired_generation = value.generation;
                }
                if self.is_live(now_ms) {
                    self.offer_to_store();
                }
            }
            RecordMeaning::Offer => self.offer_to_store(),
            RecordMeaning::Withdraw => self.withdraw_for_cluster(),
            RecordMeaning::Nothing => {
                log_credential!(debug, self, "the cluster store still has the refused token or an older one")
            }
            RecordMeaning::Agree => self.on_same_record(value.generation, theirs_ms),
            RecordMeaning::Conflict => self.on_conflict(value, clock_reading),
            RecordMeaning::TakeOver => self.take_over_value(value, clock_reading),
        }
    }

    /// Takes over what the followed leader lists, whatever our value was.
    fn take_over_from_leader(&mut self, value: PublishedValue, clock_reading: StoreClockReading) {
        let now_ms = self.now_ms();
        let expires_ms = self.limited_expiry_ms(&value, clock_reading);
        let (same, live) = (self.holds(value.value.as_bytes()), self.is_live(now_ms));
        if expires_ms <= now_ms {
            return;
        }
        match (value.withdrawn, same) {
            (true, true) if live => self.withdraw_for_cluster(),
            (true, _) => {}
            (false, true) if live => self.update_live_value(&value, expires_ms),
            (false, _) => self.take_over_value(value, clock_reading),
        }
    }

    /// The same live value with another generation or expiry.
    fn update_live_value(&mut self, value: &PublishedValue, expires_boot_ms: BootMs) {
        let Some(old) = self.held.clone() else { return };
        self.renewal_state.expires_ms = Some(expires_boot_ms);
        self.renewal_state.reliable_lead_ms = value.reliable_lead_ms;
        let published = self.published(old.value, value.generation, expires_boot_ms);
        let known = (old.generation, old.expires_boot_ms, old.reliable);
        if known == (published.generation, published.expires_boot_ms, published.reliable) {
            return;
        }
        self.save(&published);
        self.publish_with_status(published);
    }

    /// Another node has found that WeChat refuses the value that is served here.
    fn withdraw_for_cluster(&mut self) {
        log_credential!(info, self, "another node found that WeChat refuses the token; it is withdrawn");
        self.renewal_state.withdraw(self.turn.now.boot_ms);
        let withdrawn = self.withdraw_held();
        self.end_wait();
        if let Some(withdrawn) = withdrawn {
            self.save(&withdrawn);
        }
    }

    /// The same value: takes the store's generation, and for a polled type its later expiry.
    fn on_same_record(&mut self, generation: u64, expires_ms: BootMs) {
        self.renewal_state.prolong(expires_ms);
        let Some(old) = self.held.clone() else { return };
        let expires_boot_ms = self.renewal_state.expires_ms.unwrap_or(old.expires_boot_ms);
        self.record_taken_over(self.is_ours());
        if (old.generation, old.expires_boot_ms) != (generation, expires_boot_ms) {
            let published = self.published(old.value, generation, expires_boot_ms);
            self.save(&published);
            self.publish_with_status(published);
        }
        if self.credential_type.renewal == Renewal::Poll && !self.is_busy() {
            let next_ms = self.renewal_state.due_after_others_ms(self.now_ms(), fastrand::f64());
            self.set_renewal_timer(next_ms);
        }
    }

    /// Two different values of one generation: nobody knows which is later, so one more fetch follows.
    fn on_conflict(&mut self, value: PublishedValue, clock_reading: StoreClockReading) {
        let (generation, by) = (value.generation, &value.by);
        let what = "two nodes renewed at the same time; one more fetch follows";
        log_credential!(warn, self, generation, by, "{what}");
        self.mark_generation_doubtful(generation);
        self.take_over_value(value, clock_reading);
    }

    /// Tells the store that this generation has two values, if that matters.
    fn mark_generation_doubtful(&mut self, generation: u64) {
        if self.fetch_effect(FetchPurpose::Renew) == FetchEffect::NewToken {
            self.order(StoreOrder::Doubt { generation });
        }
    }

    /// Takes over a value that another node has fetched.
    fn take_over_value(&mut self, value: PublishedValue, clock_reading: StoreClockReading) {
        let now = self.turn.now;
        let expires_boot_ms = self.limited_expiry_ms(&value, clock_reading);
        let fetched_ms = clock_reading.to_boot_ms(value.fetched_ms).min(now.boot_ms);
        let life_ms_max = self.plan.credential_type.life_ms_max;
        let (life_ms, longest_ms) = (value.life_ms.min(life_ms_max), value.longest_ms.min(life_ms_max));
        self.renewal_state.adopt(expires_boot_ms, life_ms, longest_ms, value.learned_ms);
        self.renewal_state.reliable_lead_ms = value.reliable_lead_ms;
        let age_ms = i64::try_from(now.boot_ms - fetched_ms).unwrap_or(0);
        self.record_replacement(fetched_ms);
        self.fetched = Some(Now { boot_ms: fetched_ms, unix_ms: now.unix_ms.saturating_sub(age_ms) });
        self.probes.wanted_ms = None;
        self.blocked_with = None;
        self.record_taken_over(self.share.as_ref().is_some_and(|share| share.handle.node == value.node));
        if let (true, Some(token)) = (self.grant.is_some(), &value.refresh) {
            self.push(Effect::AdoptRefreshToken(token.clone()));
        }
        let token = fingerprint(value.value.as_bytes());
        let expires_in_s = expires_boot_ms.saturating_sub(now.boot_ms) / 1000;
        let (generation, by) = (value.generation, value.by);
        log_credential!(info, self, token, generation, expires_in_s, by, "renewed by another node");
        self.record_event(JournalEvent::Renewed { generation, expires_in_s, from: Some(by) });
        let published = self.published(Bytes::from(value.value), generation, expires_boot_ms);
        self.save(&published);
        self.set_healthy();
        self.publish_with_status(published);
        self.tell_dependents();
        if !self.is_busy() {
            let next_ms = self.renewal_state.due_after_others_ms(now.boot_ms, fastrand::f64());
            self.set_renewal_timer(next_ms);
            self.set_next_probe();
            self.end_fetch();
        }
    }

    /// The present value for the cluster store, if it is live.
    fn value_to_offer(&self) -> Option<PublishedValue> {
        let (now_ms, share, held) = (self.now_ms(), self.share.as_ref()?, self.held.as_ref()?);
        let clock_reading = share.clock_reading.filter(|_| self.is_live(now_ms))?;
        Some(PublishedValue {
            value: std::str::from_utf8(&held.value).ok()?.to_owned(),
            generation: held.generation,
            expires_ms: clock_reading.to_store_ms(self.renewal_state.expires_ms?),
            fetched_ms: clock_reading.to_store_ms(self.fetched.map_or(now_ms, |at| at.boot_ms)),
            life_ms: self.renewal_state.life_ms,
            longest_ms: self.renewal_state.longest_ms,
            learned_ms: self.renewal_state.learned_so_far_ms(),
            refresh: self.grant.as_ref().and_then(Grant::refresh_token),
            by: share.handle.name.to_string(),
            node: share.handle.node,
            ..PublishedValue::default()
        })
    }

    /// Offers our value to a store that lacks it: it was emptied, or an old replica was promoted.
    fn offer_to_store(&mut self) {
        if self.is_busy() || self.renewal_state.is_withdrawn() {
            return;
        }
        let Some(value) = self.value_to_offer() else { return };
        let Some(share) = self.share.as_mut().filter(|share| share.handle.store.has_leases()) else { return };
        // Whatever comes of it is to be looked at again.
        share.sealed = None;
        let after_ms = self.renewal_state.offer_ms(share.is_ours(), fastrand::f64());
        let generation = value.generation;
        log_credential!(debug, self, generation, "offering the value to the cluster store");
        self.order(StoreOrder::Offer { value: Box::new(value), after_ms });
    }

    /// A fetch has ended: its value is offered if the store could not be reached.
    pub(super) fn offer_if_unpublished(&mut self) {
        if self.share.as_ref().is_some_and(|share| share.origin == ValueOrigin::ThisNodeUnpublished) {
            self.offer_to_store();
        }
    }

    /// Removes a value that cannot be unsealed from the store. A node that has a value then offers it.
    fn remove_unopenable(&mut self, unsealable: UnsealError) {
        let now_ms = self.now_ms();
        self.order(StoreOrder::CountForgery);
        let Some(share) = self.share.as_mut() else { return };
        if share.log.allow("broken", now_ms, LOG_AGAIN_MS).is_some() {
            let advice = "see that all nodes have the same state secret, and who else can write to that Redis; the \
                          nodes put a good value there";
            log_credential!(warn, self, advice, "the value in the cluster store cannot be opened: {unsealable}");
        }
        let Some(share) = self.share.as_mut().filter(|share| share.handle.store.has_leases()) else { return };
        // A removal is planned already.
        if share.discarded_ms.is_some_and(|at_ms| at_ms > now_ms) {
            return;
        }
        let is_first = share.discarded_ms.is_none_or(|discarded_ms| discarded_ms + REMOVALS_MS < now_ms);
        let at_ms = share.discarded_ms.map_or(now_ms, |discarded_ms| (discarded_ms + OFFER_SPREAD_MS).max(now_ms));
        share.discarded_ms = Some(at_ms);
        // Whatever comes of it is to be looked at again.
        share.sealed = None;
        self.order(StoreOrder::Discard { after_ms: at_ms - now_ms });
        // Offers of other nodes come first. They are waited for once: whoever writes such values again and again must not put
        // off this node's next try for ever.
        let again_ms = at_ms + 2 * OFFER_SPREAD_MS + fastrand::u64(0..=OFFER_SPREAD_MS);
        if is_first && !self.is_live(now_ms) && !self.is_busy() && !self.follows && self.next_try_ms < again_ms {
            self.set_renewal_timer(again_ms);
        }
    }

    /// Plans what follows an unsettled call: a call that was announced and whose end nobody has reported. It may have
    /// ended the present value. The node that announced it has the time of its lease; after that another node fetches.
    /// Anybody may have written the mark, so it does not end the value: a probe at the time the value would have ended
    /// does. If marks come again and again, fetches for them become rarer.
    fn plan_settlement(&mut self, record: &Record, clock_reading: StoreClockReading) {
        let now_ms = self.now_ms();
        let is_settled_here = !self.is_busy() && self.credential_type.renewal == Renewal::Mint;
        let Some(open) = record.unsettled.filter(|_| is_settled_here) else { return };
        let (live, overlap_ms) = (self.is_live(now_ms), self.renewal_state.overlap_ms());
        let lease_left_ms = record.lease_left_ms(clock_reading.store_ms);
        if lease_left_ms == 0 && live {
            let Probes { last_ms, wanted_ms, .. } = &mut self.probes;
            let last_ms = last_ms.map_or(0, |last_ms| last_ms + self.renewal_state.check_spacing_ms());
            let end_ms = clock_reading.to_boot_ms(open.at_ms).saturating_add(overlap_ms).min(now_ms + overlap_ms);
            wanted_ms.get_or_insert(end_ms.max(last_ms).max(now_ms));
            self.plan_probe();
        }
        let settle_ms = now_ms + self.renewal_state.settle_ms(lease_left_ms, fastrand::f64());
        let at_ms = if live { settle_ms.max(self.settles_from_ms()) } else { settle_ms };
        if !self.follows && at_ms < self.next_try_ms {
            self.set_renewal_timer(at_ms);
        }
    }

    /// From when an unsettled call in the record may be settled by a new fetch. Anybody may have written it. The first
    /// one is settled at once; if values are replaced early several times in a row, the next has to wait.
    fn settles_from_ms(&self) -> BootMs {
        let (Some(share), Some(fetched)) = (&self.share, self.fetched) else { return 0 };
        fetched.boot_ms.saturating_add(self.renewal_state.settle_spacing_ms(share.early_replacements))
    }
}

/// A node without secrets. It never calls WeChat; it takes over what other nodes publish, and asks those to verify what
/// clients report.
impl Actor {
    /// A follower only checks that it has a live value.
    pub(super) fn check_followed_value(&mut self) {
        let now_ms = self.now_ms();
        let left_ms = self.renewal_state.left_ms(now_ms);
        let at_ms = now_ms + if left_ms > 0 { left_ms.clamp(BACKOFF_FLOOR_MS, FOLLOW_MS) } else { FOLLOW_MS };
        if left_ms == 0 {
            let failure = Failure::no_secret(&self.plan.appid);
            self.show_failure(&failure, at_ms);
            self.end_wait();
        }
        self.set_renewal_timer(at_ms);
        self.end_fetch();
    }

    /// Asks a node that can call to verify the value. Clients that wait get their answer when that is done.
    pub(super) fn request_refresh(&mut self, purpose: FetchPurpose) {
        if self.share.is_none() {
            return self.check_followed_value();
        }
        self.activity = Activity::AskingOthers;
        let generation = self.held.as_ref().map(|held| held.generation);
        let why = match purpose {
            FetchPurpose::Probe => RefreshReason::Probe,
            FetchPurpose::Renew => RefreshReason::Renew,
            FetchPurpose::Verify | FetchPurpose::Replace | FetchPurpose::Force => RefreshReason::Report,
        };
        self.order(StoreOrder::Ask { generation, why });
    }

    fn on_asked(&mut self, result: Result<(), Unreachable>) {
        if let Err(unreachable) = result {
            let now_ms = self.now_ms();
            let share = self.share.as_mut();
            if share.is_some_and(|share| share.log.allow("refresh request", now_ms, LOG_AGAIN_MS).is_some()) {
                let advice = unreachable.advice;
                log_credential!(warn, self, advice, "no other node could be asked to verify the token: {unreachable}");
            }
        }
        self.end_fetch();
    }
}
