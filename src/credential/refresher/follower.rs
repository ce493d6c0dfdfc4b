//! Driver: nodes without secrets. They never call WeChat; they take over what other nodes publish, and ask those to
//! verify what clients report. Also shares verify tickets among nodes.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use super::{Driver, TaskOutput};
use crate::cluster::record_handle::RecordHandle;
use crate::cluster::seal::PublishedValue;
use crate::cluster::{ClusterStore, Record, RefreshReason, Unreachable, WatchedRecord};
use crate::credential::fetch_task::FetchPurpose;
use crate::credential::schedule::BACKOFF_FLOOR_MS;
use crate::credential::schedule::cluster::OFFER_SPREAD_MS;
use crate::credential::table::{CredentialId, log_credential};
use crate::credential::verify_ticket::ReceivedTicket;
use crate::platform::Failure;
use crate::secret::Secret;

/// How often a follower checks its value if no event comes.
const FOLLOW_MS: u64 = 60_000;
const LOG_AGAIN_MS: u64 = 60_000;

impl Driver {
    /// A follower only checks that it has a live value.
    pub(super) fn check_followed_value(&mut self, id: CredentialId) {
        let now_ms = self.refresher.clock.boot_ms();
        let slot = &mut self.refresher.slots[id];
        let left_ms = slot.renewal_state.left_ms(now_ms);
        let at_ms = now_ms + if left_ms > 0 { left_ms.clamp(BACKOFF_FLOOR_MS, FOLLOW_MS) } else { FOLLOW_MS };
        if left_ms == 0 {
            let failure = Failure::no_secret(&slot.appid);
            slot.show_failure(&failure, now_ms, at_ms);
            slot.credential.end_wait();
            self.record_failed_event(id, &failure);
        }
        self.set_renewal_timer(id, at_ms);
        self.end_fetch(id);
    }

    /// Asks a node that can call to verify the value. Clients that wait get their answer when that is done.
    pub(super) fn request_refresh(&mut self, id: CredentialId, purpose: FetchPurpose) {
        let slot = &mut self.refresher.slots[id];
        let Some(share) = &slot.share else { return self.check_followed_value(id) };
        slot.fetching = true;
        let generation = slot.credential.published().map(|published| published.generation);
        let why = match purpose {
            FetchPurpose::Probe => RefreshReason::Probe,
            FetchPurpose::Renew => RefreshReason::Renew,
            FetchPurpose::Verify | FetchPurpose::Replace | FetchPurpose::Force => RefreshReason::Report,
        };
        let handle = share.handle.clone();
        let task = self.tasks.spawn(async move {
            TaskOutput::RefreshRequested(handle.store.request_refresh(&handle.tag, generation, why).await)
        });
        self.owners.insert(task.id(), id);
    }

    pub(super) fn on_refresh_requested(&mut self, id: CredentialId, result: Result<(), Unreachable>) {
        if let Err(unreachable) = result {
            let now_ms = self.refresher.clock.boot_ms();
            let slot = &mut self.refresher.slots[id];
            let share = slot.share.as_mut();
            if share.is_some_and(|share| share.log.allow("refresh request", now_ms, LOG_AGAIN_MS).is_some()) {
                let advice = unreachable.advice;
                log_credential!(
                    warn,
                    slot.credential,
                    advice,
                    "no other node could be asked to verify the token: {unreachable}"
                );
            }
        }
        self.end_fetch(id);
    }
}

/// Verify tickets in a cluster.
impl Driver {
    /// Takes over a verify ticket that another node has received.
    pub(super) fn on_shared_ticket(&mut self, index: usize, record: &Record) {
        let Some(shared) = self.refresher.tickets.get_mut(index - self.refresher.slots.len()) else { return };
        let (id, handle) = (shared.id, shared.handle.clone());
        match handle.unseal(record) {
            // An old one was put back.
            Some(Ok(value)) if value.generation < shared.generation => {
                let ticket = self.refresher.slots[id].grant.as_ref().and_then(|grant| grant.ticket());
                if let Some(ticket) = ticket {
                    self.share_ticket(id, ticket);
                }
            }
            Some(Ok(value)) => {
                shared.generation = value.generation;
                let ticket = Secret::new(value.value);
                self.take_ticket(&ReceivedTicket { id, ticket, from_file: false });
            }
            Some(Err(_)) => {
                self.refresher.table.cluster.forged.values.fetch_add(1, Ordering::Relaxed);
                let wait = Duration::from_millis(fastrand::u64(0..=OFFER_SPREAD_MS));
                self.refresher.spawn_untracked(async move {
                    tokio::time::sleep(wait).await;
                    let _ = handle.discard_forged().await;
                });
            }
            None => {
                let ticket = self.refresher.slots[id].grant.as_ref().and_then(|grant| grant.ticket());
                if let Some(ticket) = ticket {
                    self.share_ticket(id, ticket);
                }
            }
        }
    }

    /// Gives a verify ticket to the other nodes.
    pub(super) fn share_ticket(&mut self, id: CredentialId, ticket: String) {
        let Some(shared) = self.refresher.tickets.iter_mut().find(|shared| shared.id == id) else { return };
        shared.generation += 1;
        let (handle, generation) = (shared.handle.clone(), shared.generation);
        let value = PublishedValue {
            value: ticket,
            generation,
            by: handle.name.to_string(),
            node: handle.node,
            ..PublishedValue::default()
        };
        self.refresher.spawn_untracked(async move { handle.offer(&value).await });
    }
}

/// A component's verify ticket, which has a record of its own.
pub struct SharedTicket {
    pub(in crate::credential) id: CredentialId,
    pub(in crate::credential) handle: RecordHandle,
    pub(in crate::credential) generation: u64,
}

/// The cluster store, and the records to watch in it.
pub struct ClusterWatch {
    pub(in crate::credential) shared: Arc<dyn ClusterStore>,
    pub(in crate::credential) watched: Arc<[WatchedRecord]>,
}
