//! What a node in a cluster has besides: turns events of the cluster store into what actors are told, and does at the
//! store what they say. The fetches' part is `credential/cluster_fetch.rs`. A single node has none of it.
//!
//! Decides nothing about a credential. Also passes verify tickets on among nodes, which have records of their own.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use futures_util::FutureExt as _;
use futures_util::future::BoxFuture;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use crate::clock::{BootMs, Now};
use crate::cluster::record_handle::RecordHandle;
use crate::cluster::seal::PublishedValue;
use crate::cluster::{ClusterEvent, ClusterStore, Op, Record, RefreshReason, StoreFuture, Unreachable, WatchedRecord};
use crate::credential::actor::{ClusterNews, Event, StoreOrder};
use crate::credential::facts::ClusterStatus;
use crate::credential::schedule::cluster::OFFER_SPREAD_MS;
use crate::credential::shared_counts::CountsRejected;
use crate::credential::table::{Credential, CredentialId, VerificationReason, VerificationRequest, log_credential};
use crate::credential::verify_ticket::ReceivedTicket;
use crate::secret::Secret;

/// At most one log line in this time about counts that were rejected.
const LOG_AGAIN_MS: u64 = 60_000;
/// A doubt is sent again until the store has taken it, for five minutes at most.
const DOUBTS_MAX: usize = 300;
const DOUBT_AGAIN: Duration = Duration::from_secs(1);

/// The cluster store and this node's records in it.
pub(in crate::credential) struct ClusterLayer {
    store: Arc<dyn ClusterStore>,
    watched: Arc<[WatchedRecord]>,
    /// By credential id.
    records: Vec<RecordHandle>,
    tickets: Vec<SharedTicket>,
    /// Offers that may not have been made yet.
    offers: HashMap<CredentialId, CancellationToken>,
}

/// A component's verify ticket, which has a record of its own.
pub(in crate::credential) struct SharedTicket {
    pub id: CredentialId,
    pub handle: RecordHandle,
    pub generation: u64,
}

/// What is to be done because of an event.
pub(super) enum ClusterAction {
    Actor(CredentialId, Event),
    AllActors(fn() -> Event),
    /// Another node has received this verify ticket.
    Ticket(ReceivedTicket),
    /// The store lacks the verify ticket of that component.
    TicketMissing(CredentialId),
    StoreWork(CredentialId, StoreWork),
}

/// Work at the store, for a task.
pub(super) enum StoreWork {
    /// Nobody waits for it.
    Background(BoxFuture<'static, ()>),
    /// The actor is told how it ended.
    Asking(BoxFuture<'static, Result<(), Unreachable>>),
}

impl ClusterLayer {
    /// `watched` has the records of the credentials, then those of the tickets.
    pub fn new(
        store: Arc<dyn ClusterStore>,
        watched: Vec<WatchedRecord>,
        records: Vec<RecordHandle>,
        tickets: Vec<SharedTicket>,
    ) -> ClusterLayer {
        ClusterLayer { store, watched: watched.into(), records, tickets, offers: HashMap::new() }
    }

    /// Sends what happens at the store to `events`, until `end`.
    pub fn watch(&self, events: mpsc::Sender<ClusterEvent>, end: CancellationToken) -> StoreFuture<'static, ()> {
        self.store.clone().watch(self.watched.clone(), events, end)
    }

    /// What is to be done because of an event. Records how the cluster is.
    pub(super) fn translate(
        &mut self,
        event: ClusterEvent,
        facts: &ClusterStatus,
        now_ms: BootMs,
    ) -> Option<ClusterAction> {
        match event {
            ClusterEvent::RecordChanged { index, record, clock_reading } if index < self.records.len() => {
                // For a followed leader, `UpToDate` says how old its list is.
                if self.store.has_leases() {
                    facts.record_contact(now_ms);
                }
                let news = ClusterNews::Record { record: Box::new(record), clock_reading };
                Some(ClusterAction::Actor(index, Event::Cluster(news)))
            }
            ClusterEvent::RecordChanged { index, record, .. } => self.on_shared_ticket(index, &record, facts),
            ClusterEvent::RefreshRequested { index, generation, why, done } => {
                let why = match why {
                    RefreshReason::Report => VerificationReason::Reported,
                    RefreshReason::ForeignWriter => VerificationReason::ForeignWriter,
                    RefreshReason::Renew => VerificationReason::Requested,
                    RefreshReason::Probe => VerificationReason::ProbeRequested,
                };
                let request = VerificationRequest { id: index, generation, why, done: Some(done) };
                Some(ClusterAction::Actor(index, Event::Verify(request)))
            }
            ClusterEvent::Reachable(reachable) => self.on_reachability(reachable, facts, now_ms),
            ClusterEvent::UpToDate { as_of_ms } => {
                facts.record_contact(as_of_ms);
                None
            }
        }
    }

    fn on_reachability(
        &self,
        reachable: Result<(), Unreachable>,
        facts: &ClusterStatus,
        now_ms: BootMs,
    ) -> Option<ClusterAction> {
        let before = facts.set_reachable(reachable.is_ok(), now_ms);
        if reachable.is_ok() && self.store.has_leases() {
            facts.record_contact(now_ms);
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
                Some(ClusterAction::AllActors(|| Event::Cluster(ClusterNews::StoreLost)))
            }
            Ok(()) if before == Some(false) => {
                info!("the cluster store is reachable again");
                Some(ClusterAction::AllActors(|| Event::Cluster(ClusterNews::StoreBack)))
            }
            Ok(()) => None,
        }
    }

    /// Does what an actor says. Some of it is work for a task.
    pub(super) fn execute(
        &mut self,
        credential: &Credential,
        order: StoreOrder,
        facts: &ClusterStatus,
        now: Now,
    ) -> Option<StoreWork> {
        let id = credential.id;
        let handle = self.records.get(id)?.clone();
        match order {
            StoreOrder::Offer { value, after_ms } => {
                self.stop_offering(id);
                let stop = CancellationToken::new();
                self.offers.insert(id, stop.clone());
                let offer = async move {
                    tokio::time::sleep(Duration::from_millis(after_ms)).await;
                    handle.offer(&value).await;
                };
                Some(StoreWork::Background(stop.run_until_cancelled_owned(offer).map(|_| ()).boxed()))
            }
            StoreOrder::StopOffering => {
                self.stop_offering(id);
                None
            }
            StoreOrder::Doubt { generation } => Some(StoreWork::Background(doubt(handle, generation).boxed())),
            StoreOrder::Discard { after_ms } => Some(StoreWork::Background(discard(handle, after_ms).boxed())),
            StoreOrder::Ask { generation, why } => Some(StoreWork::Asking(
                async move { handle.store.request_refresh(&handle.tag, generation, why).await }.boxed(),
            )),
            StoreOrder::CountForgery => {
                facts.forged.values.fetch_add(1, Ordering::Relaxed);
                None
            }
            StoreOrder::RejectCounts(rejected) => {
                record_rejected_counts(credential, rejected, facts, now.boot_ms);
                None
            }
            StoreOrder::RecordNode { name, fetched_boot_ms } => {
                let age_ms = i64::try_from(now.boot_ms.saturating_sub(fetched_boot_ms)).unwrap_or(i64::MAX);
                facts.record_node(&name, now.unix_ms.saturating_sub(age_ms));
                None
            }
        }
    }

    /// The store has a value again: the planned offer is not made.
    fn stop_offering(&mut self, id: CredentialId) {
        if let Some(stop) = self.offers.remove(&id) {
            stop.cancel();
        }
    }
}

/// Verify tickets.
impl ClusterLayer {
    /// Takes over a verify ticket that another node has received.
    fn on_shared_ticket(&mut self, index: usize, record: &Record, facts: &ClusterStatus) -> Option<ClusterAction> {
        let shared = self.tickets.get_mut(index - self.records.len())?;
        let id = shared.id;
        match shared.handle.unseal(record) {
            // An old one was put back.
            Some(Ok(value)) if value.generation < shared.generation => Some(ClusterAction::TicketMissing(id)),
            Some(Ok(value)) => {
                shared.generation = value.generation;
                let ticket = Secret::new(value.value);
                Some(ClusterAction::Ticket(ReceivedTicket { id, ticket, from_file: false }))
            }
            Some(Err(_)) => {
                facts.forged.values.fetch_add(1, Ordering::Relaxed);
                let after_ms = fastrand::u64(0..=OFFER_SPREAD_MS);
                let work = discard(shared.handle.clone(), after_ms).boxed();
                Some(ClusterAction::StoreWork(id, StoreWork::Background(work)))
            }
            None => Some(ClusterAction::TicketMissing(id)),
        }
    }

    /// Gives a verify ticket to the other nodes.
    pub(super) fn share_ticket(&mut self, id: CredentialId, ticket: String) -> Option<StoreWork> {
        let shared = self.tickets.iter_mut().find(|shared| shared.id == id)?;
        shared.generation += 1;
        let (handle, generation) = (shared.handle.clone(), shared.generation);
        let value = PublishedValue {
            value: ticket,
            generation,
            by: handle.name.to_string(),
            node: handle.node,
            ..PublishedValue::default()
        };
        Some(StoreWork::Background(async move { handle.offer(&value).await }.boxed()))
    }
}

/// Tells the store that this generation has two values, until the store has taken it or it does not matter any more.
async fn doubt(handle: RecordHandle, generation: u64) {
    for _ in 0..DOUBTS_MAX {
        if handle.ask(Op::Doubt { generation }).await.is_ok() {
            return;
        }
        tokio::time::sleep(DOUBT_AGAIN).await;
    }
}

/// Removes a value that cannot be opened, if it is still there.
async fn discard(handle: RecordHandle, after_ms: u64) {
    tokio::time::sleep(Duration::from_millis(after_ms)).await;
    // If the store cannot be reached, all records are read again later.
    let _ = handle.discard_forged().await;
}

/// Counts and logs counts that were rejected. They change nothing.
fn record_rejected_counts(credential: &Credential, rejected: CountsRejected, facts: &ClusterStatus, now_ms: BootMs) {
    if rejected != CountsRejected::Unsealed {
        facts.forged.counts.fetch_add(1, Ordering::Relaxed);
    }
    if facts.rejected_counts_log.allow(now_ms, LOG_AGAIN_MS) {
        let advice = "nothing while nodes of an older version run; otherwise find out who can write to that Redis";
        log_credential!(warn, credential, advice, "the call counts in the cluster store were rejected: {rejected}");
    }
}
