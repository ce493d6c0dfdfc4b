//! One credential's access to the cluster store: the steps of a renewal, from the lease to the publication.
//!
//! Knows no schedule and never calls a platform. When an answer was lost, it reads the record before it does anything
//! twice.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use super::node_rules::{self, NextStep, StoreClockReading};
use super::record::{COUNT_MAX, CallEnd, NodeId, Op, OpOutcome, Record};
use super::seal::{PublishedValue, Seal, UnsealError};
use super::{ClusterStore, StoreAnswer, Unreachable};
use crate::clock;
use crate::secret::Secret;

/// How often a publication is tried before the value is left for later.
const PUBLISH_TRIES: usize = 3;

/// Access to one record. Clones share the store and the keys.
#[derive(Clone)]
pub struct RecordHandle {
    pub store: Arc<dyn ClusterStore>,
    pub tag: Arc<str>,
    pub seal: Arc<Seal>,
    pub node: NodeId,
    /// This node's name, for people.
    pub name: Arc<str>,
    /// One for all handles of this node.
    pub secret: Arc<SecretCheck>,
}

/// Checks that all nodes seal with the same secret. A node with another secret by mistake could open no value of the
/// others, would take each for forged, and would invalidate their tokens by fetches of its own.
pub struct SecretCheck {
    seal: Seal,
    /// When the check last succeeded, on the boot clock; 0: never.
    checked_ms: AtomicU64,
}

/// The tag of the record for the check. The first node seals it.
const SECRET_CHECK_TAG: &str = "same_secret";
const CHECK_AGAIN_MS: u64 = 60_000;

impl SecretCheck {
    pub fn new(secret: &Secret) -> SecretCheck {
        SecretCheck { seal: Seal::new(secret, SECRET_CHECK_TAG), checked_ms: AtomicU64::new(0) }
    }

    /// Writes a sealed word to the store, or unseals the one that is there. After the first success this node's secret
    /// counts as right. The word is still read again from time to time, and replaced if somebody has overwritten it:
    /// nodes that start later need it.
    async fn verify(&self, handle: &RecordHandle) -> Result<(), Unreachable> {
        let (now_ms, checked_ms) = (clock::boot_ms().max(1), self.checked_ms.load(Ordering::Acquire));
        if checked_ms > 0 && now_ms < checked_ms.saturating_add(CHECK_AGAIN_MS) {
            return Ok(());
        }
        let record = self.offer(handle).await?;
        let is_right = checked_ms > 0 || self.is_ours(&record) || self.can_unseal_value_of(handle).await?;
        if !is_right {
            return Err(Unreachable::new(
                "the cluster store is sealed with another secret than this node's",
                "give all nodes the same secret in [state]; if it was changed on all of them on purpose, or somebody \
                 has overwritten {prefix}:r:same_secret, delete the keys that begin with {prefix}: once",
            ));
        }
        if !self.is_ours(&record) {
            let Record { generation, value, .. } = record;
            handle.store.ask(SECRET_CHECK_TAG, Op::Discard { generation, value }).await?;
            self.offer(handle).await?;
        }
        self.checked_ms.store(now_ms, Ordering::Release);
        Ok(())
    }

    async fn offer(&self, handle: &RecordHandle) -> Result<Record, Unreachable> {
        let generation = 1;
        let word = PublishedValue { value: SECRET_CHECK_TAG.to_owned(), generation, ..PublishedValue::default() };
        let value = self.seal.seal(&word).ok_or_else(no_random_numbers)?;
        Ok(handle.store.ask(SECRET_CHECK_TAG, Op::Offer { generation, value }).await?.record)
    }

    fn is_ours(&self, record: &Record) -> bool {
        record.value.as_ref().is_some_and(|sealed| self.seal.unseal(sealed).is_ok())
    }

    /// True if this node's secret unseals the value that the others have published.
    async fn can_unseal_value_of(&self, handle: &RecordHandle) -> Result<bool, Unreachable> {
        let record = handle.ask(Op::Read).await?.record;
        Ok(handle.unseal(&record).is_some_and(|unsealed| unsealed.is_ok()))
    }
}

fn no_random_numbers() -> Unreachable {
    let text = "the cluster store gets nothing: this machine gives no random numbers";
    Unreachable::new(text, "see that getrandom(2) works here")
}

pub enum LeaseAnswer {
    Granted(Box<Lease>),
    /// With what to do instead.
    Denied(StoreAnswer, NextStep),
}

pub enum PublishOutcome {
    /// All nodes have the value, under this generation.
    Published(u64),
    /// This node no longer had the lease.
    Refused(StoreAnswer),
    /// The store is out of reach. The value is to be offered later, under this generation.
    Unpublished(u64, Unreachable),
}

impl RecordHandle {
    pub async fn ask(&self, op: Op) -> Result<StoreAnswer, Unreachable> {
        self.store.ask(&self.tag, op).await
    }

    pub async fn take_lease(
        &self,
        lease_ms: u64,
        known_generation: u64,
        spacing_ms: u64,
    ) -> Result<LeaseAnswer, Unreachable> {
        self.secret.verify(self).await?;
        let answer = self.ask(Op::Take { node: self.node, lease_ms, known_generation, spacing_ms }).await?;
        let next = node_rules::after_take(answer.outcome);
        if next != NextStep::Call {
            return Ok(LeaseAnswer::Denied(answer, next));
        }
        let StoreAnswer { record, clock_reading, .. } = answer;
        let sealed_generation = match self.unseal(&record) {
            Some(unsealed) => unsealed.ok().map(|value| value.generation),
            None => Some(0).filter(|none| *none == record.generation),
        };
        let handle = self.clone();
        Ok(LeaseAnswer::Granted(Box::new(Lease { handle, record, clock_reading, lease_ms, sealed_generation })))
    }

    /// Gives a value to a store that has lost it. Whether it was taken is seen by the record that the store sends next.
    pub async fn offer(&self, value: &PublishedValue) {
        if let Some(sealed) = self.seal.seal(value) {
            let _ = self.ask(Op::Offer { generation: value.generation, value: sealed }).await;
        }
    }

    /// Reads the record and removes its value if that cannot be unsealed. Nodes that have a good value offer it then.
    pub async fn discard_forged(&self) -> Result<(), Unreachable> {
        let record = self.ask(Op::Read).await?.record;
        if self.unseal(&record).is_some_and(|unsealed| unsealed.is_err()) {
            self.discard(record.generation, record.value).await?;
        }
        Ok(())
    }

    /// Removes exactly that value. Checks the secret first: a node with a wrong one would remove good values.
    async fn discard(&self, generation: u64, value: Option<Arc<str>>) -> Result<StoreAnswer, Unreachable> {
        self.secret.verify(self).await?;
        self.ask(Op::Discard { generation, value }).await
    }

    /// The value of a record, if there is one.
    pub fn unseal(&self, record: &Record) -> Option<Result<PublishedValue, UnsealError>> {
        let unsealed = self.seal.unseal(record.value.as_ref()?);
        // An old value under a new generation is unsealed too, but somebody has put it there.
        Some(unsealed.and_then(|value| match value.generation {
            generation if generation == record.generation && generation <= COUNT_MAX => Ok(value),
            _ => Err(UnsealError::WrongGeneration),
        }))
    }
}

pub struct Lease {
    handle: RecordHandle,
    /// The record as it was when the lease was granted.
    pub record: Record,
    pub clock_reading: StoreClockReading,
    lease_ms: u64,
    /// The generation inside the seal of the store's value; 0 without a value, none if the value is forged.
    sealed_generation: Option<u64>,
}

impl Lease {
    /// Writes down that a call is about to be sent. Returns how long it may take, ms; `None` if the lease ends too early.
    pub async fn announce(&mut self) -> Result<Option<u64>, Unreachable> {
        let (node, epoch, need_ms) = (self.handle.node, self.record.epoch, node_rules::need_ms(self.lease_ms));
        let answer = self.handle.ask(Op::Announce { node, epoch, need_ms }).await?;
        let left_ms = answer.record.lease_left_ms(answer.clock_reading.store_ms);
        // The lease may have been running since the question was sent, not only since the answer came.
        let round_trip_ms = answer.clock_reading.received_ms.saturating_sub(answer.clock_reading.sent_ms);
        let call_ms = node_rules::call_ms(left_ms).saturating_sub(round_trip_ms);
        Ok(Some(call_ms).filter(|call_ms| answer.outcome == OpOutcome::Done && *call_ms > 0))
    }

    /// The generation for a new value; `first` if neither this node nor the store has a value.
    pub fn next_generation(&self, held: u64, first: u64) -> u64 {
        node_rules::next_generation(self.sealed_generation.unwrap_or(0), held, first)
    }

    /// True if the record's value is forged. It has to be removed before anything can be published over its generation.
    pub fn is_forged(&self) -> bool {
        self.sealed_generation.is_none()
    }

    pub async fn discard(&self) -> Result<StoreAnswer, Unreachable> {
        self.handle.discard(self.record.generation, self.record.value.clone()).await
    }

    /// Publishes the value. If the answer is lost, reads the record first: repeated blindly, a publication that was done
    /// would be refused.
    pub async fn publish(
        &self,
        value: &PublishedValue,
        minted: bool,
        keep_ms: u64,
        calls: Option<Arc<str>>,
    ) -> PublishOutcome {
        let (node, epoch, generation) = (self.handle.node, self.record.epoch, value.generation);
        let Some(sealed) = self.handle.seal.seal(value) else {
            return PublishOutcome::Unpublished(generation, no_random_numbers());
        };
        let mut tries = 0;
        loop {
            let (value, calls) = (sealed.clone(), calls.clone());
            let asked = self.handle.ask(Op::Publish { node, epoch, generation, value, calls, minted, keep_ms }).await;
            let unreachable = match asked {
                Ok(answer) if answer.outcome == OpOutcome::Done => return PublishOutcome::Published(generation),
                Ok(answer) => return PublishOutcome::Refused(answer),
                Err(unreachable) => unreachable,
            };
            tries += 1;
            if unreachable.unknown
                && let Ok(answer) = self.handle.ask(Op::Read).await
                && answer.record.value.as_ref() == Some(&sealed)
            {
                return PublishOutcome::Published(generation);
            }
            if tries == PUBLISH_TRIES {
                return PublishOutcome::Unpublished(generation, unreachable);
            }
        }
    }

    /// Ends the lease, or keeps it for the next fetch. If the store cannot be reached, the lease runs out by itself.
    pub async fn close(&self, ended: CallEnd, failed: bool, wait_ms: u64, keep_ms: u64, calls: Option<Arc<str>>) {
        let (node, epoch) = (self.handle.node, self.record.epoch);
        let _ = self.handle.ask(Op::Close { node, epoch, ended, failed, wait_ms, keep_ms, calls }).await;
    }

    pub fn failures(&self) -> u64 {
        self.record.failures
    }
}
