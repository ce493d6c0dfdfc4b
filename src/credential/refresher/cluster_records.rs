//! Driver: compares the records of the cluster store with the values served here, takes over later values, and offers
//! the store what it lacks. Also prepares what a fetch needs to know in a cluster.
//!
//! A follower takes a value by its generation alone. Nothing here decides who may call: the lease does that.

use std::sync::atomic::Ordering;
use std::time::Duration;

use bytes::Bytes;
use tracing::{info, warn};

use super::Driver;
use crate::clock::{BootMs, Now};
use crate::cluster::node_rules::FetchEffect;
use crate::cluster::seal::{PublishedValue, UnsealError};
use crate::cluster::{ClusterEvent, Op, Record, RefreshReason, StoreClockReading, Unreachable};
use crate::credential::cluster_fetch::{ClusterFetchContext, value_of};
use crate::credential::fetch_task::FetchPurpose;
use crate::credential::generation;
use crate::credential::schedule::cluster::{OFFER_SPREAD_MS, RecordComparison, RecordMeaning};
use crate::credential::shared_counts::CountsRejected;
use crate::credential::slot::{ClusterShare, CredentialSlot, ValueOrigin};
use crate::credential::table::{CredentialId, Event, VerificationReason, VerificationRequest, log_credential};
use crate::platform::Renewal;
use crate::secret::fingerprint;

const LOG_AGAIN_MS: u64 = 60_000;
/// A doubt is sent again until the store has taken it, for five minutes at most.
const DOUBTS_MAX: usize = 300;
const DOUBT_AGAIN: Duration = Duration::from_secs(1);

impl CredentialSlot {
    /// What a second call does: answer the same value again or make a new one.
    pub(super) fn fetch_effect(&self, purpose: FetchPurpose) -> FetchEffect {
        match self.credential_type.renewal {
            Renewal::Mint => FetchEffect::NewToken,
            _ if purpose == FetchPurpose::Force => FetchEffect::NewToken,
            _ => FetchEffect::SameToken,
        }
    }

    /// True for a node that follows a leader by its HTTP API: it has what the leader lists.
    pub(super) fn follows_leader(&self) -> bool {
        self.share.as_ref().is_some_and(|share| !share.handle.store.has_leases())
    }

    /// When another node's value ends. No value is taken to live longer than its type can.
    fn limited_expiry_ms(
        &mut self,
        value: &PublishedValue,
        clock_reading: StoreClockReading,
        now_ms: BootMs,
    ) -> BootMs {
        let (theirs_ms, latest_ms) =
            (clock_reading.to_boot_ms(value.expires_ms), now_ms + self.configured_type.life_ms_max);
        if theirs_ms <= latest_ms {
            return theirs_ms;
        }
        let suppressed = self.share.as_mut().and_then(|share| share.log.allow("too long", now_ms, LOG_AGAIN_MS));
        if suppressed.is_some() {
            let (said_s, at_most_s) =
                (theirs_ms.saturating_sub(now_ms) / 1000, self.configured_type.life_ms_max / 1000);
            let advice = "check the named node: its value is wrong, or it runs against another API";
            log_credential!(
                warn,
                self.credential,
                by = value.by,
                said_s,
                at_most_s,
                advice,
                "another node published a longer lifetime than this type can have; it is cut"
            );
        }
        latest_ms
    }

    /// What a fetch needs to know in a cluster; none on a single node.
    pub(super) fn cluster_fetch_context(
        &mut self,
        purpose: FetchPurpose,
        total_timeout_ms: u64,
        now: Now,
    ) -> Option<Box<ClusterFetchContext>> {
        let now_ms = now.boot_ms;
        let (live, held, fetch_effect) = (self.is_live(now_ms), self.generation(), self.fetch_effect(purpose));
        let charged_as = self.charged_as(purpose, now_ms);
        let spacing_ms = self.spacing_ms(purpose, now_ms);
        let keep_ms = self.renewal_state.keep_ms(now_ms);
        let lease_ms = self.renewal_state.lease_ms(total_timeout_ms, now_ms);
        let alone = self.renewal_state.without_store(fetch_effect, self.is_ours(), now_ms);
        let share = self.share.as_mut()?;
        share.replaced_during_fetch = false;
        let charged_as = if std::mem::take(&mut share.may_exceed_quota) { None } else { charged_as };
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
            quota: self.quota,
            charged_as,
        }))
    }

    fn spacing_ms(&self, purpose: FetchPurpose, now_ms: BootMs) -> u64 {
        let scheduled = !matches!(purpose, FetchPurpose::Replace | FetchPurpose::Force | FetchPurpose::Verify);
        self.renewal_state.others_spacing_ms(scheduled && self.waiters.is_empty(), now_ms)
    }

    /// True if this node has fetched the present value.
    pub(super) fn is_ours(&self) -> bool {
        self.share.as_ref().is_some_and(ClusterShare::is_ours)
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

    /// From when an unsettled call in the record may be settled by a new fetch. Anybody may have written it. The first
    /// one is settled at once; if values are replaced early several times in a row, the next has to wait.
    fn settles_from_ms(&self) -> BootMs {
        let (Some(share), Some(fetched)) = (&self.share, self.fetched) else { return 0 };
        fetched.boot_ms.saturating_add(self.renewal_state.settle_spacing_ms(share.early_replacements))
    }

    /// The present value for the cluster store, if it is live.
    fn value(&self, now_ms: BootMs) -> Option<PublishedValue> {
        let (share, published) = (self.share.as_ref()?, self.credential.published()?);
        let clock_reading = share.clock_reading.filter(|_| self.is_live(now_ms))?;
        let fetched_ms = self.fetched.map_or(now_ms, |at| at.boot_ms);
        let refresh = self.grant.as_ref().and_then(crate::credential::grants::Grant::refresh_token);
        let generation = published.generation;
        let to_store_ms = |ms| clock_reading.to_store_ms(ms);
        value_of(&published.value, generation, &self.renewal_state, fetched_ms, to_store_ms, &share.handle, refresh)
    }
}

impl Driver {
    /// An event from the cluster store.
    pub(super) fn on_cluster_event(&mut self, event: ClusterEvent) {
        match event {
            ClusterEvent::RecordChanged { index, record, clock_reading } if index < self.refresher.slots.len() => {
                self.on_record(index, &record, clock_reading);
                let now_ms = self.refresher.clock.boot_ms();
                let slot = &self.refresher.slots[index];
                // For a followed leader, `UpToDate` says how old its list is.
                if !slot.follows_leader() {
                    self.refresher.table.cluster.record_contact(now_ms);
                }
                // A record without a value: nobody has fetched the first one yet.
                if slot.follows && !slot.is_live(now_ms) {
                    slot.credential.end_wait();
                }
            }
            ClusterEvent::RecordChanged { index, record, .. } => self.on_shared_ticket(index, &record),
            ClusterEvent::RefreshRequested { index, generation, why, done } => {
                let why = match why {
                    RefreshReason::Report => VerificationReason::Reported,
                    RefreshReason::ForeignWriter => VerificationReason::ForeignWriter,
                    RefreshReason::Renew => VerificationReason::Requested,
                    RefreshReason::Probe => VerificationReason::ProbeRequested,
                };
                self.on_verification_request(VerificationRequest { id: index, generation, why, done });
            }
            ClusterEvent::Reachable(reachable) => self.on_reachability(reachable),
            ClusterEvent::UpToDate { as_of_ms } => self.refresher.table.cluster.record_contact(as_of_ms),
        }
    }

    fn on_reachability(&mut self, reachable: Result<(), Unreachable>) {
        let now_ms = self.refresher.clock.boot_ms();
        let before = self.refresher.table.cluster.set_reachable(reachable.is_ok(), now_ms);
        if reachable.is_ok() && !self.refresher.slots.first().is_some_and(CredentialSlot::follows_leader) {
            self.refresher.table.cluster.record_contact(now_ms);
        }
        match reachable {
            Err(unreachable) => {
                if before != Some(false) {
                    let advice = unreachable.advice;
                    warn!(
                        advice,
                        "{unreachable}; tokens are served from memory, and only those whose renewal cannot \
                         harm other nodes are renewed"
                    );
                }
                let slots = self.refresher.slots.iter();
                slots.filter(|slot| slot.follows && !slot.is_live(now_ms)).for_each(|slot| slot.credential.end_wait());
            }
            Ok(()) if before == Some(false) => {
                info!("the cluster store is reachable again");
                for id in 0..self.refresher.slots.len() {
                    let slot = &self.refresher.slots[id];
                    let waits = slot.renewal_state.failures > 0 || !slot.is_live(now_ms);
                    if !slot.fetching && slot.share.is_some() && !slot.follows && waits {
                        self.set_renewal_timer(id, now_ms + fastrand::u64(0..=OFFER_SPREAD_MS));
                    }
                }
            }
            Ok(()) => {}
        }
    }

    /// Takes in a credential's record.
    pub(super) fn on_record(&mut self, id: CredentialId, record: &Record, clock_reading: StoreClockReading) {
        let now_ms = self.refresher.clock.boot_ms();
        let Some(slot) = self.refresher.slots.get_mut(id) else { return };
        if let Some(calls) = record.calls.as_deref() {
            let counted = slot.count_others(calls, clock_reading.store_ms);
            self.log_rejected_counts(id, counted);
        }
        let slot = &mut self.refresher.slots[id];
        let live = slot.is_live(now_ms);
        let held = slot.generation();
        let Some(share) = slot.share.as_mut() else { return };
        share.clock_reading = Some(clock_reading);
        let sealed = record.value.clone().map(|sealed| (record.generation, sealed));
        let known = share.sealed == sealed && sealed.is_some();
        if !known {
            share.sealed = sealed;
            match share.handle.unseal(record) {
                None if live => self.offer_to_store(id),
                None => {}
                // Our own publication. The running fetch will report it.
                Some(Ok(value)) if slot.fetching && value.node == share.handle.node => share.sealed = None,
                Some(Ok(value)) => {
                    (share.discarded_ms, share.expired_generation) = (None, 0);
                    let (by, generation) = (value.by.clone(), value.generation);
                    let fetched_ms = clock_reading.to_boot_ms(value.fetched_ms);
                    if slot.follows_leader() {
                        self.take_over_from_leader(id, value, clock_reading);
                    } else {
                        self.compare_with_store(id, value, clock_reading);
                    }
                    self.record_node_name(&by, fetched_ms);
                    let credential = &self.refresher.slots[id].credential;
                    if credential.published().is_some_and(|published| published.generation == generation) {
                        credential.set_renewed_by(&by);
                    }
                }
                Some(Err(unsealable)) => self.remove_unopenable(id, unsealable),
            }
        } else if record.generation < held && live {
            self.offer_to_store(id);
        } else if record.generation == held && !live {
            // It could be used when it arrived.
            share.expired_generation = record.generation;
        }
        self.plan_settlement(id, record, clock_reading);
    }

    /// Records the name of a node that has fetched a value.
    fn record_node_name(&self, name: &str, fetched_boot_ms: BootMs) {
        let now = self.refresher.clock.now();
        let age_ms = i64::try_from(now.boot_ms.saturating_sub(fetched_boot_ms)).unwrap_or(i64::MAX);
        self.refresher.table.cluster.record_node(name, now.unix_ms.saturating_sub(age_ms));
    }

    /// Compares a value of the store with ours.
    fn compare_with_store(&mut self, id: CredentialId, value: PublishedValue, clock_reading: StoreClockReading) {
        let now_ms = self.refresher.clock.boot_ms();
        let slot = &mut self.refresher.slots[id];
        let published = slot.credential.published();
        let held = published.as_ref().map_or(0, |published| published.generation);
        let same = published.is_some_and(|published| *published.value == *value.value.as_bytes());
        let theirs_ms = slot.limited_expiry_ms(&value, clock_reading, now_ms);
        let older = slot.fetched.is_some_and(|ours| clock_reading.to_boot_ms(value.fetched_ms) <= ours.boot_ms);
        let withdrawn = value.withdrawn;
        let comparison = RecordComparison { held, theirs: value.generation, same, theirs_ms, older, withdrawn };
        match slot.renewal_state.compare(&comparison, now_ms) {
            RecordMeaning::Over => {
                if let Some(share) = &mut slot.share {
                    share.expired_generation = value.generation;
                }
                if slot.is_live(now_ms) {
                    self.offer_to_store(id);
                }
            }
            RecordMeaning::Offer => self.offer_to_store(id),
            RecordMeaning::Withdraw => self.withdraw_for_cluster(id),
            RecordMeaning::Nothing => {
                log_credential!(debug, slot.credential, "the cluster store still has the refused token or an older one")
            }
            RecordMeaning::Agree => self.on_same_record(id, value.generation, theirs_ms),
            RecordMeaning::Conflict => self.on_conflict(id, value, clock_reading),
            RecordMeaning::TakeOver => self.take_over_value(id, value, clock_reading),
        }
    }

    /// Takes over what the followed leader lists, whatever our value was.
    fn take_over_from_leader(&mut self, id: CredentialId, value: PublishedValue, clock_reading: StoreClockReading) {
        let now_ms = self.refresher.clock.boot_ms();
        let slot = &mut self.refresher.slots[id];
        let expires_ms = slot.limited_expiry_ms(&value, clock_reading, now_ms);
        let same = slot.credential.published().is_some_and(|ours| *ours.value == *value.value.as_bytes());
        let live = slot.is_live(now_ms);
        if expires_ms <= now_ms {
            return;
        }
        match (value.withdrawn, same) {
            (true, true) if live => self.withdraw_for_cluster(id),
            (true, _) => {}
            (false, true) if live => self.update_live_value(id, &value, expires_ms),
            (false, _) => self.take_over_value(id, value, clock_reading),
        }
    }

    /// The same live value with another generation or expiry.
    fn update_live_value(&mut self, id: CredentialId, value: &PublishedValue, expires_boot_ms: BootMs) {
        let slot = &mut self.refresher.slots[id];
        let Some(old) = slot.credential.published() else { return };
        slot.renewal_state.expires_ms = Some(expires_boot_ms);
        slot.renewal_state.reliable_lead_ms = value.reliable_lead_ms;
        let published = slot.published(old.value.clone(), value.generation, expires_boot_ms);
        let known = (old.generation, old.expires_boot_ms, old.reliable);
        if known == (published.generation, published.expires_boot_ms, published.reliable) {
            return;
        }
        self.persist(id, &published);
        self.refresher.slots[id].publish_with_status(published);
    }

    /// Another node has found that WeChat refuses the value that is served here.
    fn withdraw_for_cluster(&mut self, id: CredentialId) {
        let now_ms = self.refresher.clock.boot_ms();
        let slot = &mut self.refresher.slots[id];
        log_credential!(info, slot.credential, "another node found that WeChat refuses the token; it is withdrawn");
        slot.renewal_state.withdraw(now_ms);
        let withdrawn = slot.credential.withdraw(now_ms);
        slot.credential.end_wait();
        if let Some(withdrawn) = withdrawn {
            self.persist(id, &withdrawn);
        }
    }

    /// The same value: takes the store's generation, and for a polled type its later expiry.
    pub(super) fn on_same_record(&mut self, id: CredentialId, generation: u64, expires_ms: BootMs) {
        let slot = &mut self.refresher.slots[id];
        slot.renewal_state.prolong(expires_ms);
        let Some(old) = slot.credential.published() else { return };
        let expires_boot_ms = slot.renewal_state.expires_ms.unwrap_or(old.expires_boot_ms);
        if let Some(share) = &mut slot.share {
            let origin = if share.is_ours() { ValueOrigin::ThisNode } else { ValueOrigin::OtherNode };
            share.record_taken_over(origin, slot.fetching);
        }
        if (old.generation, old.expires_boot_ms) != (generation, expires_boot_ms) {
            let published = slot.published(old.value.clone(), generation, expires_boot_ms);
            self.persist(id, &published);
            self.refresher.slots[id].publish_with_status(published);
        }
        let slot = &self.refresher.slots[id];
        if slot.credential_type.renewal == Renewal::Poll && !slot.fetching {
            let now_ms = self.refresher.clock.boot_ms();
            let next_ms = slot.renewal_state.due_after_others_ms(now_ms, fastrand::f64());
            self.set_renewal_timer(id, next_ms);
        }
    }

    /// Two different values of one generation: nobody knows which is later, so one more fetch follows.
    fn on_conflict(&mut self, id: CredentialId, value: PublishedValue, clock_reading: StoreClockReading) {
        let slot = &self.refresher.slots[id];
        let (generation, by) = (value.generation, &value.by);
        let what = "two nodes renewed at the same time; one more fetch follows";
        log_credential!(warn, slot.credential, generation, by, "{what}");
        self.mark_generation_doubtful(id, generation);
        self.take_over_value(id, value, clock_reading);
    }

    /// Tells the store that this generation has two values, until the store has taken it or it does not matter any
    /// more.
    pub(super) fn mark_generation_doubtful(&mut self, id: CredentialId, generation: u64) {
        let slot = &self.refresher.slots[id];
        if slot.fetch_effect(FetchPurpose::Renew) != FetchEffect::NewToken {
            return;
        }
        let Some(handle) = slot.share.as_ref().map(|share| share.handle.clone()) else { return };
        self.refresher.spawn_untracked(async move {
            for _ in 0..DOUBTS_MAX {
                if handle.ask(Op::Doubt { generation }).await.is_ok() {
                    return;
                }
                tokio::time::sleep(DOUBT_AGAIN).await;
            }
        });
    }

    /// Takes over a value that another node has fetched.
    fn take_over_value(&mut self, id: CredentialId, value: PublishedValue, clock_reading: StoreClockReading) {
        let now = self.refresher.clock.now();
        let slot = &mut self.refresher.slots[id];
        let expires_boot_ms = slot.limited_expiry_ms(&value, clock_reading, now.boot_ms);
        let fetched_ms = clock_reading.to_boot_ms(value.fetched_ms).min(now.boot_ms);
        let life_ms_max = slot.configured_type.life_ms_max;
        let (life_ms, longest_ms) = (value.life_ms.min(life_ms_max), value.longest_ms.min(life_ms_max));
        slot.renewal_state.adopt(expires_boot_ms, life_ms, longest_ms, value.learned_ms);
        slot.renewal_state.reliable_lead_ms = value.reliable_lead_ms;
        let age_ms = i64::try_from(now.boot_ms - fetched_ms).unwrap_or(0);
        slot.record_replacement(fetched_ms);
        slot.fetched = Some(Now { boot_ms: fetched_ms, unix_ms: now.unix_ms.saturating_sub(age_ms) });
        slot.probes.wanted_ms = None;
        slot.blocked_with = None;
        if let Some(share) = &mut slot.share {
            let is_ours = share.handle.node == value.node;
            let origin = if is_ours { ValueOrigin::ThisNode } else { ValueOrigin::OtherNode };
            share.record_taken_over(origin, slot.fetching);
        }
        if let (Some(grant), Some(token)) = (&slot.grant, &value.refresh) {
            grant.adopt_refresh_token(token);
        }
        let token = fingerprint(value.value.as_bytes());
        let expires_in_s = expires_boot_ms.saturating_sub(now.boot_ms) / 1000;
        let (generation, by) = (value.generation, value.by);
        log_credential!(info, slot.credential, token, generation, expires_in_s, by, "renewed by another node");
        let from = Some(by);
        self.record_event(id, Event::Renewed { generation, expires_in_s, from });
        let published = self.refresher.slots[id].published(Bytes::from(value.value), generation, expires_boot_ms);
        self.persist(id, &published);
        self.set_healthy(id);
        self.refresher.slots[id].publish_with_status(published);
        self.start_dependents(id);
        if !self.refresher.slots[id].fetching {
            let slot = &self.refresher.slots[id];
            let next_ms = slot.renewal_state.due_after_others_ms(now.boot_ms, fastrand::f64());
            self.set_renewal_timer(id, next_ms);
            self.set_next_probe(id);
            self.end_fetch(id);
        }
    }

    /// Offers our value to a store that lacks it: it was emptied, or an old replica was promoted.
    pub(super) fn offer_to_store(&mut self, id: CredentialId) {
        let now_ms = self.refresher.clock.boot_ms();
        let slot = &mut self.refresher.slots[id];
        if slot.fetching || slot.renewal_state.is_withdrawn() {
            return;
        }
        let Some(value) = slot.value(now_ms) else { return };
        let Some(share) = &mut slot.share else { return };
        if !share.handle.store.has_leases() {
            return;
        }
        // Whatever comes of it is to be looked at again.
        share.sealed = None;
        let handle = share.handle.clone();
        let wait = Duration::from_millis(slot.renewal_state.offer_ms(share.is_ours(), fastrand::f64()));
        log_credential!(
            debug,
            slot.credential,
            generation = value.generation,
            "offering the value to the cluster store"
        );
        share.stop_offering();
        let offering = tokio::spawn(async move {
            tokio::time::sleep(wait).await;
            handle.offer(&value).await;
        });
        share.offering = Some(offering.abort_handle());
    }

    /// Removes a value that cannot be unsealed from the store. A node that has a value then offers it.
    fn remove_unopenable(&mut self, id: CredentialId, unsealable: UnsealError) {
        let now_ms = self.refresher.clock.boot_ms();
        self.refresher.table.cluster.forged.values.fetch_add(1, Ordering::Relaxed);
        let slot = &mut self.refresher.slots[id];
        let live = slot.is_live(now_ms);
        let Some(share) = slot.share.as_mut() else { return };
        if share.log.allow("broken", now_ms, LOG_AGAIN_MS).is_some() {
            let advice = "see that all nodes have the same state secret, and who else can write to that Redis; the \
                          nodes put a good value there";
            log_credential!(
                warn,
                slot.credential,
                advice,
                "the value in the cluster store cannot be opened: {unsealable}"
            );
        }
        if !share.handle.store.has_leases() {
            return;
        }
        // A removal is planned already.
        if share.discarded_ms.is_some_and(|at_ms| at_ms > now_ms) {
            return;
        }
        let at_ms = share.discarded_ms.map_or(now_ms, |discarded_ms| (discarded_ms + OFFER_SPREAD_MS).max(now_ms));
        share.discarded_ms = Some(at_ms);
        // Whatever comes of it is to be looked at again.
        share.sealed = None;
        let (handle, wait) = (share.handle.clone(), Duration::from_millis(at_ms - now_ms));
        self.refresher.spawn_untracked(async move {
            tokio::time::sleep(wait).await;
            // If the store cannot be reached, all records are read again later.
            let _ = handle.discard_forged().await;
        });
        // Offers of other nodes come first.
        let slot = &self.refresher.slots[id];
        let again_ms = at_ms + 2 * OFFER_SPREAD_MS + fastrand::u64(0..=OFFER_SPREAD_MS);
        if !live && !slot.fetching && !slot.follows && slot.next_try_ms < again_ms {
            self.set_renewal_timer(id, again_ms);
        }
    }

    /// Logs counts that were rejected. They change nothing.
    fn log_rejected_counts(&mut self, id: CredentialId, counted: Result<(), CountsRejected>) {
        let Err(rejected) = counted else { return };
        let (facts, now_ms) = (&self.refresher.table.cluster, self.refresher.clock.boot_ms());
        if rejected != CountsRejected::Unsealed {
            facts.forged.counts.fetch_add(1, Ordering::Relaxed);
        }
        if facts.rejected_counts_log.allow(now_ms, LOG_AGAIN_MS) {
            let advice = "nothing while nodes of an older version run; otherwise find out who can write to that Redis";
            let credential = &self.refresher.slots[id].credential;
            log_credential!(warn, credential, advice, "the call counts in the cluster store were rejected: {rejected}");
        }
    }

    /// Plans what follows an unsettled call: a call that was announced and whose end nobody has reported. It may have
    /// ended the present value. The node that announced it has the time of its lease; after that another node fetches.
    /// Anybody may have written the mark, so it does not end the value: a probe at the time the value would have ended
    /// does. If marks come again and again, fetches for them become rarer.
    fn plan_settlement(&mut self, id: CredentialId, record: &Record, clock_reading: StoreClockReading) {
        let now_ms = self.refresher.clock.boot_ms();
        let slot = &mut self.refresher.slots[id];
        let Some(open) = record.unsettled.filter(|_| !slot.fetching && slot.credential_type.renewal == Renewal::Mint)
        else {
            return;
        };
        let (live, overlap_ms) = (slot.is_live(now_ms), slot.renewal_state.overlap_ms());
        let lease_left_ms = record.lease_left_ms(clock_reading.store_ms);
        if lease_left_ms == 0 && live {
            let last_ms = slot.probes.last_ms.map_or(0, |last_ms| last_ms + slot.renewal_state.check_spacing_ms());
            let end_ms = clock_reading.to_boot_ms(open.at_ms).saturating_add(overlap_ms).min(now_ms + overlap_ms);
            slot.probes.wanted_ms.get_or_insert(end_ms.max(last_ms).max(now_ms));
            self.plan_probe(id);
        }
        let slot = &mut self.refresher.slots[id];
        let settle_ms = now_ms + slot.renewal_state.settle_ms(lease_left_ms, fastrand::f64());
        let at_ms = if live { settle_ms.max(slot.settles_from_ms()) } else { settle_ms };
        if !slot.follows && at_ms < slot.next_try_ms {
            self.set_renewal_timer(id, at_ms);
        }
    }
}

/// Work beside the driver that returns nothing to it.
impl super::Refresher {
    pub(super) fn spawn_untracked(&self, work: impl Future<Output = ()> + Send + 'static) {
        tokio::spawn(work);
    }
}
