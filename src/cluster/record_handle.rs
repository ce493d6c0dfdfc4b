//! One credential's way to the shared store: the steps of a renewal, from the lease to the publication, and what is
//! read back.
//!
//! Knows no schedule and calls no WeChat. An answer that never came is asked after before anything is done twice.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use super::node_rules::{self, Moment, NextStep};
use super::record::{COUNT_MAX, CallEnd, NodeId, Op, Record};
use super::seal::{PublishedValue, Seal, UnsealError};
use super::{ClusterStore, StoreAnswer, Unreachable};
use crate::clock;
use crate::secret::Secret;

/// How often a publication is tried before the value is kept for later.
const PUBLISH_TRIES: usize = 3;

/// The way itself. Clones share it.
#[derive(Clone)]
pub struct RecordHandle {
    pub store: Arc<dyn ClusterStore>,
    pub tag: Arc<str>,
    pub seal: Arc<Seal>,
    pub node: NodeId,
    /// This node's name, for people.
    pub name: Arc<str>,
    /// Of all of this node's handles.
    pub secret: Arc<SecretCheck>,
}

/// Whether the other nodes seal with this node's secret. One that has another by mistake could open nothing of theirs,
/// would take each value for rubbish, and would end their tokens by calls of its own.
pub struct SecretCheck {
    seal: Seal,
    /// When that was last known, on the boot clock; 0: never.
    checked_ms: AtomicU64,
}

/// Names the record that is sealed by whoever comes first.
const SECRET_CHECK_TAG: &str = "same_secret";
const CHECK_AGAIN_MS: u64 = 60_000;

impl SecretCheck {
    /// For nodes with that secret.
    pub fn new(secret: &Secret) -> SecretCheck {
        SecretCheck { seal: Seal::new(secret, SECRET_CHECK_TAG), checked_ms: AtomicU64::new(0) }
    }

    /// Leaves a sealed word in the store, or opens the one that is there. Once it has, it is believed; it is looked at
    /// again from time to time all the same, and put right for nodes that come later if somebody has overwritten it.
    async fn check(&self, handle: &RecordHandle) -> Result<(), Unreachable> {
        let (now_ms, checked_ms) = (clock::boot_ms().max(1), self.checked_ms.load(Ordering::Acquire));
        if checked_ms > 0 && now_ms < checked_ms.saturating_add(CHECK_AGAIN_MS) {
            return Ok(());
        }
        let record = self.offer(handle, 1).await?;
        let known = checked_ms > 0 || self.is_ours(&record) || self.opens_value_of(handle).await?;
        if known && !self.is_ours(&record) {
            handle
                .store
                .ask(SECRET_CHECK_TAG, Op::Discard { generation: record.generation, value: record.value })
                .await?;
            self.offer(handle, 1).await?;
        }
        if known {
            self.checked_ms.store(now_ms, Ordering::Release);
            return Ok(());
        }
        Err(Unreachable {
            text: "is sealed with another secret than this node's".into(),
            advice: "give all nodes the same secret in [state]; if it was changed on all of them on purpose, or somebody \
                     has overwritten {prefix}:r:same_secret, delete the keys that begin with {prefix}: once",
            unknown: false,
        })
    }

    async fn offer(&self, handle: &RecordHandle, generation: u64) -> Result<Record, Unreachable> {
        let word = PublishedValue { value: SECRET_CHECK_TAG.to_owned(), generation, ..PublishedValue::default() };
        let Some(value) = self.seal.close(&word) else { return Err(no_random_numbers()) };
        Ok(handle.store.ask(SECRET_CHECK_TAG, Op::Offer { generation, value }).await?.record)
    }

    fn is_ours(&self, record: &Record) -> bool {
        record.value.as_ref().is_some_and(|sealed| self.seal.open(sealed).is_ok())
    }

    /// The others' secret is ours too if it opens what they have published.
    async fn opens_value_of(&self, handle: &RecordHandle) -> Result<bool, Unreachable> {
        let record = handle.ask(Op::Read).await?.record;
        Ok(handle.open(&record).is_some_and(|opened| opened.is_ok()))
    }
}

fn no_random_numbers() -> Unreachable {
    let text = "gets nothing: this machine gives no random numbers".into();
    Unreachable { text, advice: "see that getrandom(2) works here", unknown: false }
}

/// What asking for the lease came to.
pub enum LeaseAnswer {
    Granted(Box<Lease>),
    /// Not ours; what the store said instead.
    Denied(StoreAnswer, NextStep),
}

/// What publishing came to.
pub enum PublishOutcome {
    /// Everybody's, under this generation.
    Published(u64),
    /// The lease was not ours any more.
    Refused(StoreAnswer),
    /// The store is out of reach; to be offered later, under this generation.
    Unpublished(u64, Unreachable),
}

impl RecordHandle {
    /// Asks the store.
    pub async fn ask(&self, op: Op) -> Result<StoreAnswer, Unreachable> {
        self.store.ask(&self.tag, op).await
    }

    /// Asks for the lease.
    pub async fn take_lease(
        &self,
        lease_ms: u64,
        known_generation: u64,
        spacing_ms: u64,
    ) -> Result<LeaseAnswer, Unreachable> {
        self.secret.check(self).await?;
        let answer = self.ask(Op::Take { node: self.node, lease_ms, known_generation, spacing_ms }).await?;
        Ok(match node_rules::after_take(answer.outcome, &answer.record) {
            NextStep::Call { has_unsettled } => {
                let StoreAnswer { record, moment, .. } = answer;
                let sealed_generation = match self.open(&record) {
                    Some(Ok(value)) => Some(value.generation),
                    Some(Err(_)) => None,
                    None => Some(0).filter(|none| *none == record.generation),
                };
                LeaseAnswer::Granted(Box::new(Lease {
                    handle: self.clone(),
                    record,
                    moment,
                    lease_ms,
                    has_unsettled,
                    sealed_generation,
                }))
            }
            next => LeaseAnswer::Denied(answer, next),
        })
    }

    /// A value for a store that has lost it. What comes of it is seen by what the store tells next.
    pub async fn offer(&self, value: &PublishedValue) {
        if let Some(sealed) = self.seal.close(value) {
            let _ = self.ask(Op::Offer { generation: value.generation, value: sealed }).await;
        }
    }

    /// Takes out of the record what cannot be opened there, whatever it is by now: all who have a value offer it then.
    pub async fn discard_forged(&self) -> Result<(), Unreachable> {
        let record = self.ask(Op::Read).await?.record;
        if self.open(&record).is_some_and(|opened| opened.is_err()) {
            self.discard(record.generation, record.value).await?;
        }
        Ok(())
    }

    /// Takes out just that. A node that has another secret than the others could open nothing of theirs, and takes
    /// nothing out.
    async fn discard(&self, generation: u64, value: Option<Arc<str>>) -> Result<StoreAnswer, Unreachable> {
        self.secret.check(self).await?;
        self.ask(Op::Discard { generation, value }).await
    }

    /// The value of a record, if there is one.
    pub fn open(&self, record: &Record) -> Option<Result<PublishedValue, UnsealError>> {
        let opened = self.seal.open(record.value.as_ref()?);
        // An old value under a new number opens, and is as good as forged.
        Some(opened.and_then(|value| match value.generation {
            generation if generation == record.generation && generation <= COUNT_MAX => Ok(value),
            _ => Err(UnsealError::WrongGeneration),
        }))
    }
}

/// A lease in hand.
pub struct Lease {
    handle: RecordHandle,
    /// As it was when the lease was granted.
    pub record: Record,
    pub moment: Moment,
    lease_ms: u64,
    /// A call before ours is not accounted for.
    pub has_unsettled: bool,
    /// The generation that the store's value proves by its seal, 0 without one; none if what is there proves nothing.
    sealed_generation: Option<u64>,
}

impl Lease {
    /// The intent. How long the call may take, ms; `None` if the lease does not outlast it.
    pub async fn announce(&mut self) -> Result<Option<u64>, Unreachable> {
        let (node, epoch, need_ms) = (self.handle.node, self.record.epoch, node_rules::need_ms(self.lease_ms));
        let answer = self.handle.ask(Op::Announce { node, epoch, need_ms }).await?;
        let left_ms = answer.record.lease_left_ms(answer.moment.store_ms);
        // The clock runs since the question was sent, not since the answer came.
        let on_its_way_ms = answer.moment.received_ms.saturating_sub(answer.moment.sent_ms);
        let call_ms = node_rules::call_ms(left_ms).saturating_sub(on_its_way_ms);
        Ok(Some(call_ms).filter(|call_ms| answer.outcome == super::OpOutcome::Done && *call_ms > 0))
    }

    /// The generation of a new value; `first` if none is known, neither here nor in the store.
    pub fn next_generation(&self, held: u64, first: u64) -> u64 {
        node_rules::next_generation(self.sealed_generation.unwrap_or(0), held, first)
    }

    /// What the record has of a value cannot be believed: nothing could be published over the number that it stands
    /// under.
    pub fn is_forged(&self) -> bool {
        self.sealed_generation.is_none()
    }

    /// Takes that out.
    pub async fn discard(&self) -> Result<StoreAnswer, Unreachable> {
        self.handle.discard(self.record.generation, self.record.value.clone()).await
    }

    /// Publishes. A lost answer is asked after: what was done already must not be taken for a refusal.
    pub async fn publish(
        &self,
        value: &PublishedValue,
        minted: bool,
        keep_ms: u64,
        calls: Option<Arc<str>>,
    ) -> PublishOutcome {
        let (node, epoch, generation) = (self.handle.node, self.record.epoch, value.generation);
        let Some(sealed) = self.handle.seal.close(value) else {
            return PublishOutcome::Unpublished(generation, no_random_numbers());
        };
        let mut tries = 0;
        loop {
            let (value, calls) = (sealed.clone(), calls.clone());
            let asked = self.handle.ask(Op::Publish { node, epoch, generation, value, calls, minted, keep_ms }).await;
            let unreachable = match asked {
                Ok(answer) => match node_rules::after_publish(answer.outcome) {
                    node_rules::PublishResult::Yes => return PublishOutcome::Published(generation),
                    node_rules::PublishResult::No => return PublishOutcome::Refused(answer),
                },
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

    /// Ends it, or keeps it for the next ask. That the store cannot be told is no matter: the lease runs out.
    pub async fn close(&self, ended: CallEnd, failed: bool, wait_ms: u64, keep_ms: u64, calls: Option<Arc<str>>) {
        let (node, epoch) = (self.handle.node, self.record.epoch);
        let _ = self.handle.ask(Op::Close { node, epoch, ended, failed, wait_ms, keep_ms, calls }).await;
    }

    /// Of all nodes in a row.
    pub fn failures(&self) -> u64 {
        self.record.failures
    }
}
