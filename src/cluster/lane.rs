//! One credential's way to the shared store: the steps of a renewal, from the lease to the publication, and what is
//! read back.
//!
//! Knows no schedule and calls no WeChat. An answer that never came is asked after before anything is done twice.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use super::record::{COUNT_MAX, Ended, NodeId, Op, Record};
use super::seal::{Seal, Unsealable, Value};
use super::turn::{self, Moment, Next};
use super::{Answer, Shared, Unreachable};
use crate::clock;
use crate::secret::Secret;

/// How often a publication is tried before the value is kept for later.
const PUBLISH_TRIES: usize = 3;

/// The way itself. Clones share it.
#[derive(Clone)]
pub struct Lane {
    pub shared: Arc<dyn Shared>,
    pub tag: Arc<str>,
    pub seal: Arc<Seal>,
    pub node: NodeId,
    /// This node's name, for people.
    pub name: Arc<str>,
    /// Of all of this node's lanes.
    pub secret: Arc<SameSecret>,
}

/// Whether the other nodes seal with this node's secret. One that has another by mistake could open nothing of theirs,
/// would take each value for rubbish, and would end their tokens by calls of its own.
pub struct SameSecret {
    seal: Seal,
    /// When that was last known, on the boot clock; 0: never.
    seen_ms: AtomicU64,
}

/// Names the record that is sealed by whoever comes first.
const SAME_SECRET_TAG: &str = "same_secret";
const CHECK_AGAIN_MS: u64 = 60_000;

impl SameSecret {
    /// For nodes with that secret.
    pub fn new(secret: &Secret) -> SameSecret {
        SameSecret { seal: Seal::new(secret, SAME_SECRET_TAG), seen_ms: AtomicU64::new(0) }
    }

    /// Leaves a sealed word in the store, or opens the one that is there. Once it has, it is believed; it is looked at
    /// again from time to time all the same, and put right for nodes that come later if somebody has overwritten it.
    async fn check(&self, lane: &Lane) -> Result<(), Unreachable> {
        let (now_ms, seen_ms) = (clock::boot_ms().max(1), self.seen_ms.load(Ordering::Acquire));
        if seen_ms > 0 && now_ms < seen_ms.saturating_add(CHECK_AGAIN_MS) {
            return Ok(());
        }
        let record = self.offer(lane, 1).await?;
        let known = seen_ms > 0 || self.is_ours(&record) || self.is_shown_by(lane).await?;
        if known && !self.is_ours(&record) {
            lane.shared
                .ask(SAME_SECRET_TAG, Op::Discard { generation: record.generation, value: record.value })
                .await?;
            self.offer(lane, 1).await?;
        }
        if known {
            self.seen_ms.store(now_ms, Ordering::Release);
            return Ok(());
        }
        Err(Unreachable {
            text: "is sealed with another secret than this node's".into(),
            advice: "give all nodes the same secret in [state]; if it was changed on all of them on purpose, or somebody \
                     has overwritten {prefix}:r:same_secret, delete the keys that begin with {prefix}: once",
            unknown: false,
        })
    }

    async fn offer(&self, lane: &Lane, generation: u64) -> Result<Record, Unreachable> {
        let word = Value { value: SAME_SECRET_TAG.to_owned(), generation, ..Value::default() };
        let Some(value) = self.seal.close(&word) else { return Err(no_random_numbers()) };
        Ok(lane.shared.ask(SAME_SECRET_TAG, Op::Offer { generation, value }).await?.record)
    }

    fn is_ours(&self, record: &Record) -> bool {
        record.value.as_ref().is_some_and(|sealed| self.seal.open(sealed).is_ok())
    }

    /// The others' secret is ours too if it opens what they have published.
    async fn is_shown_by(&self, lane: &Lane) -> Result<bool, Unreachable> {
        let record = lane.ask(Op::Read).await?.record;
        Ok(lane.open(&record).is_some_and(|opened| opened.is_ok()))
    }
}

fn no_random_numbers() -> Unreachable {
    let text = "gets nothing: this machine gives no random numbers".into();
    Unreachable { text, advice: "see that getrandom(2) works here", unknown: false }
}

/// What asking for the lease came to.
pub enum Taken {
    Lease(Box<Lease>),
    /// Not ours; what the store said instead.
    Told(Answer, Next),
}

/// What publishing came to.
pub enum Publication {
    /// Everybody's, under this generation.
    Published(u64),
    /// The lease was not ours any more.
    Refused(Answer),
    /// The store is out of reach; to be offered later, under this generation.
    Unpublished(u64, Unreachable),
}

impl Lane {
    /// Asks the store.
    pub async fn ask(&self, op: Op) -> Result<Answer, Unreachable> {
        self.shared.ask(&self.tag, op).await
    }

    /// Asks for the lease.
    pub async fn take(&self, lease_ms: u64, knows: u64, spacing_ms: u64) -> Result<Taken, Unreachable> {
        self.secret.check(self).await?;
        let answer = self.ask(Op::Take { node: self.node, lease_ms, knows, spacing_ms }).await?;
        Ok(match turn::after_take(answer.verdict, &answer.record) {
            Next::Call { settles } => {
                let Answer { record, moment, .. } = answer;
                let proven = match self.open(&record) {
                    Some(Ok(value)) => Some(value.generation),
                    Some(Err(_)) => None,
                    None => Some(0).filter(|none| *none == record.generation),
                };
                Taken::Lease(Box::new(Lease { lane: self.clone(), record, moment, lease_ms, settles, proven }))
            }
            next => Taken::Told(answer, next),
        })
    }

    /// A value for a store that has lost it. What comes of it is seen by what the store tells next.
    pub async fn offer(&self, value: &Value) {
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
    async fn discard(&self, generation: u64, value: Option<Arc<str>>) -> Result<Answer, Unreachable> {
        self.secret.check(self).await?;
        self.ask(Op::Discard { generation, value }).await
    }

    /// The value of a record, if there is one.
    pub fn open(&self, record: &Record) -> Option<Result<Value, Unsealable>> {
        let opened = self.seal.open(record.value.as_ref()?);
        // An old value under a new number opens, and is as good as forged.
        Some(opened.and_then(|value| match value.generation {
            generation if generation == record.generation && generation <= COUNT_MAX => Ok(value),
            _ => Err(Unsealable::Misplaced),
        }))
    }
}

/// A lease in hand.
pub struct Lease {
    lane: Lane,
    /// As it was when the lease was granted.
    pub record: Record,
    pub moment: Moment,
    lease_ms: u64,
    /// A call before ours is not accounted for.
    pub settles: bool,
    /// The generation that the store's value proves by its seal, 0 without one; none if what is there proves nothing.
    proven: Option<u64>,
}

impl Lease {
    /// The intent. How long the call may take, ms; `None` if the lease does not outlast it.
    pub async fn announce(&mut self) -> Result<Option<u64>, Unreachable> {
        let (node, epoch, need_ms) = (self.lane.node, self.record.epoch, turn::need_ms(self.lease_ms));
        let answer = self.lane.ask(Op::Announce { node, epoch, need_ms }).await?;
        let left_ms = answer.record.lease_left_ms(answer.moment.store_ms);
        // The clock runs since the question was sent, not since the answer came.
        let on_its_way_ms = answer.moment.received_ms.saturating_sub(answer.moment.sent_ms);
        let call_ms = turn::call_ms(left_ms).saturating_sub(on_its_way_ms);
        Ok(Some(call_ms).filter(|call_ms| answer.verdict == super::Verdict::Done && *call_ms > 0))
    }

    /// The generation of a new value; `first` if none is known, neither here nor in the store.
    pub fn next_generation(&self, held: u64, first: u64) -> u64 {
        turn::next_generation(self.proven.unwrap_or(0), held, first)
    }

    /// What the record has of a value cannot be believed: nothing could be published over the number that it stands
    /// under.
    pub fn is_forged(&self) -> bool {
        self.proven.is_none()
    }

    /// Takes that out.
    pub async fn discard(&self) -> Result<Answer, Unreachable> {
        self.lane.discard(self.record.generation, self.record.value.clone()).await
    }

    /// Publishes. A lost answer is asked after: what was done already must not be taken for a refusal.
    pub async fn publish(&self, value: &Value, minted: bool, keep_ms: u64, calls: Option<Arc<str>>) -> Publication {
        let (node, epoch, generation) = (self.lane.node, self.record.epoch, value.generation);
        let Some(sealed) = self.lane.seal.close(value) else {
            return Publication::Unpublished(generation, no_random_numbers());
        };
        let mut tries = 0;
        loop {
            let (value, calls) = (sealed.clone(), calls.clone());
            let asked = self.lane.ask(Op::Publish { node, epoch, generation, value, calls, minted, keep_ms }).await;
            let unreachable = match asked {
                Ok(answer) => match turn::after_publish(answer.verdict) {
                    turn::Published::Yes => return Publication::Published(generation),
                    turn::Published::No => return Publication::Refused(answer),
                },
                Err(unreachable) => unreachable,
            };
            tries += 1;
            if unreachable.unknown
                && let Ok(answer) = self.lane.ask(Op::Read).await
                && answer.record.value.as_ref() == Some(&sealed)
            {
                return Publication::Published(generation);
            }
            if tries == PUBLISH_TRIES {
                return Publication::Unpublished(generation, unreachable);
            }
        }
    }

    /// Ends it, or keeps it for the next ask. That the store cannot be told is no matter: the lease runs out.
    pub async fn close(&self, ended: Ended, failed: bool, wait_ms: u64, keep_ms: u64, calls: Option<Arc<str>>) {
        let (node, epoch) = (self.lane.node, self.record.epoch);
        let _ = self.lane.ask(Op::Close { node, epoch, ended, failed, wait_ms, keep_ms, calls }).await;
    }

    /// Of all nodes in a row.
    pub fn failures(&self) -> u64 {
        self.record.failures
    }
}
