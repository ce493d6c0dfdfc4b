//! What the shared store keeps of one credential, and what nodes may do to it: the rules of the lease, as values.
//!
//! Pure: the store's time comes in, a outcome goes out. [`Record::apply`] is the specification. The scripts that run
//! inside Redis do the same steps, and tests hold them to it; the model check and the simulation run on it as it is.
//! docs/en/cluster.md says in prose why it is right.
//!
//! Knows nothing of WeChat, of secrets or of what a value means: that is sealed by whoever publishes it.

use std::sync::Arc;

/// Milliseconds on the store's clock. No node's own clock takes part in any decision here.
pub type StoreMs = u64;

/// A process, by a random number that it draws when it starts; never 0.
pub type NodeId = u64;

/// No lease lasts longer. One that seems to has been written under another clock (a replica that was promoted), and
/// counts as run out.
pub const LEASE_MS_MAX: u64 = 120_000;
/// The same for how long a failure keeps everybody from asking again.
pub const WAIT_MS_MAX: u64 = 3_600_000;
/// Epochs and generations beyond this cannot be counted by every store. None comes near it, unless somebody else has
/// written it; it is refused then.
pub const COUNT_MAX: u64 = 999_999_999_999_999;
/// Holds the rest of a lease whose call was lost: the call may still be on its way.
pub const NOBODY: NodeId = u64::MAX;

/// The state of one credential. `V` is the sealed value.
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct Record<V = Arc<str>> {
    /// Leases granted so far.
    pub epoch: u64,
    /// Who has the lease; 0: nobody.
    pub holder: NodeId,
    /// When the lease runs out.
    pub until_ms: StoreMs,
    /// A call that was announced and not accounted for.
    pub unsettled: Option<UnsettledCall>,
    /// Counts the values, from 1. Followers go by it alone.
    pub generation: u64,
    pub value: Option<V>,
    /// When WeChat last answered.
    pub asked_ms: StoreMs,
    /// Nobody needs to ask before.
    pub not_before_ms: StoreMs,
    /// Calls in a row, of all nodes, that brought no value.
    pub failures: u64,
    /// The calls counted against the quota, as the last caller knew them, under its seal.
    pub calls: Option<Arc<str>>,
}

impl<V> Default for Record<V> {
    fn default() -> Record<V> {
        Record {
            epoch: 0,
            holder: 0,
            until_ms: 0,
            unsettled: None,
            generation: 0,
            value: None,
            asked_ms: 0,
            not_before_ms: 0,
            failures: 0,
            calls: None,
        }
    }
}

/// A call that may have made a token nobody has published.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct UnsettledCall {
    /// The lease under which it was announced; 0 for one that came home when its lease had passed on.
    pub by: u64,
    /// It is settled by a value published under this lease or a later one.
    pub settled_by: u64,
    /// No earlier than this was it sent.
    pub at_ms: StoreMs,
}

/// How a call under a lease ended that brought no value to publish.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum CallEnd {
    /// It was never sent.
    Unsent,
    /// WeChat has answered, and made no token.
    Answered,
    /// Whether WeChat made a token is not known.
    Lost,
}

/// What a node may do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Op<V = Arc<str>> {
    /// Looks.
    Read,
    /// Asks for the lease, unless there is a value later than the one it knows.
    Take {
        node: NodeId,
        lease_ms: u64,
        /// The generation of the asker's value, 0 if it is of no use any more.
        known_generation: u64,
        /// With a value there, the least time since WeChat was last asked; 0: what failures have put off does not
        /// count either.
        spacing_ms: u64,
    },
    /// The intent: a call that makes a token is about to be sent. Granted if the lease lasts for so long yet.
    Announce { node: NodeId, epoch: u64, need_ms: u64 },
    /// The call's value. With the generation it has already, the same value with a later end. `minted`: a token was
    /// made for it, so a refusal leaves a doubt. The lease ends, or is kept for so long.
    Publish { node: NodeId, epoch: u64, generation: u64, value: V, calls: Option<Arc<str>>, minted: bool, keep_ms: u64 },
    /// The lease ends without a new value, or is kept for so long. `wait_ms`: nobody needs to ask for so long; `failed`:
    /// because this did not go well.
    Close {
        node: NodeId,
        epoch: u64,
        ended: CallEnd,
        failed: bool,
        wait_ms: u64,
        keep_ms: u64,
        calls: Option<Arc<str>>,
    },
    /// A value from memory for a store that has lost it, or never had it.
    Offer { generation: u64, value: V },
    /// Another value of that generation has been published: it is not known which of the two is the later one.
    Doubt { generation: u64 },
    /// What cannot be opened, or stands under a generation that is not its own, is taken out if it is still as it was
    /// read. It counts as lost then: whoever has a value offers it.
    Discard { generation: u64, value: Option<V> },
}

/// What came of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum OpOutcome {
    /// It was done: the lease is the asker's, the call may be sent, the value is published.
    Done,
    /// There is a later value; take that.
    NewerValue,
    /// Another node has the lease for so long.
    LeaseHeld { left_ms: u64 },
    /// Nobody needs to ask for so long.
    PutOff { left_ms: u64 },
    /// It was not done: the lease is not the asker's any more, or the store has something better.
    Rejected,
}

impl<V: Clone + PartialEq> Record<V> {
    /// What is left of the lease; 0 without one.
    pub fn lease_left_ms(&self, now_ms: StoreMs) -> u64 {
        match self.until_ms.saturating_sub(now_ms) {
            left @ 1..=LEASE_MS_MAX if self.holder != 0 => left,
            _ => 0,
        }
    }

    /// True of a store that has been emptied, or never had this.
    pub fn is_blank(&self) -> bool {
        self.epoch == 0 && self.generation == 0
    }

    /// None of us sets a mark that the next lease would not settle: such a one would stand for ever. True if there was
    /// one.
    pub fn drop_impossible_mark(&mut self) -> bool {
        let found = self.unsettled.take_if(|open| open.settled_by > self.epoch.saturating_add(1));
        found.is_some()
    }

    /// Does it, or says why not.
    pub fn apply(&mut self, op: &Op<V>, now_ms: StoreMs) -> OpOutcome {
        self.drop_impossible_mark();
        match op {
            Op::Read => OpOutcome::Done,
            Op::Take { node, lease_ms, known_generation, spacing_ms } => {
                self.take_lease(*node, *lease_ms, *known_generation, *spacing_ms, now_ms)
            }
            Op::Announce { node, epoch, need_ms } => self.announce(*node, *epoch, *need_ms, now_ms),
            Op::Publish { node, epoch, generation, value, calls, minted, keep_ms } => {
                let fits = *generation > self.generation || (!minted && *generation == self.generation);
                let has_lease = self.holds_lease(*node, *epoch);
                if fits && (has_lease || self.is_blank()) {
                    self.settle_calls(*epoch);
                    self.epoch = self.epoch.max(*epoch);
                    // What else was published or lost under earlier leases is forgotten.
                    if *minted && !has_lease {
                        self.mark_unsettled(now_ms);
                    }
                    (self.generation, self.value) = (*generation, Some(value.clone()));
                    (self.asked_ms, self.not_before_ms, self.failures) = (now_ms, 0, 0);
                    self.set_calls(calls);
                    self.set_lease(*node, *keep_ms, now_ms);
                    return OpOutcome::Done;
                }
                if *minted {
                    self.mark_unsettled(now_ms);
                }
                OpOutcome::Rejected
            }
            Op::Close { node, epoch, ended, failed, wait_ms, keep_ms, calls } => {
                let has_lease = self.holds_lease(*node, *epoch);
                self.set_calls(calls);
                self.end_call(*epoch, *ended, has_lease, now_ms);
                if !has_lease {
                    return OpOutcome::Rejected;
                }
                self.failures = if *failed { self.failures.saturating_add(1) } else { self.failures };
                if *wait_ms > 0 {
                    self.not_before_ms = now_ms.saturating_add(*wait_ms);
                }
                if *ended == CallEnd::Lost {
                    self.holder = NOBODY;
                } else {
                    self.set_lease(*node, *keep_ms, now_ms);
                }
                OpOutcome::Done
            }
            Op::Offer { generation, value } => {
                if self.lease_left_ms(now_ms) > 0 || (*generation <= self.generation && self.value.is_some()) {
                    return OpOutcome::Rejected;
                }
                // One that the store has lost with a failover, or one from before somebody began anew after a flush.
                if self.value.is_some() {
                    self.mark_unsettled(now_ms);
                }
                (self.generation, self.value) = (*generation, Some(value.clone()));
                OpOutcome::Done
            }
            Op::Doubt { generation } => {
                if *generation != self.generation {
                    return OpOutcome::Rejected;
                }
                self.mark_unsettled(now_ms);
                OpOutcome::Done
            }
            Op::Discard { generation, value } => {
                if (*generation, value) != (self.generation, &self.value) {
                    return OpOutcome::Rejected;
                }
                (self.generation, self.value) = (0, None);
                OpOutcome::Done
            }
        }
    }

    fn take_lease(
        &mut self,
        node: NodeId,
        lease_ms: u64,
        known_generation: u64,
        spacing_ms: u64,
        now_ms: StoreMs,
    ) -> OpOutcome {
        if self.generation > known_generation && self.value.is_some() {
            return OpOutcome::NewerValue;
        }
        let left_ms = self.lease_left_ms(now_ms);
        // The asker's own, too, while a call is not accounted for: it may have been lost, and still be on its way.
        if left_ms > 0 && (self.holder != node || self.unsettled.is_some()) {
            return OpOutcome::LeaseHeld { left_ms };
        }
        let left_ms = self.put_off_left_ms(spacing_ms, now_ms);
        if left_ms > 0 {
            return OpOutcome::PutOff { left_ms };
        }
        self.epoch += 1;
        self.set_lease(node, lease_ms.max(1), now_ms);
        OpOutcome::Done
    }

    /// How long asking is put off, by a failure or because it has just been done.
    fn put_off_left_ms(&self, spacing_ms: u64, now_ms: StoreMs) -> u64 {
        if spacing_ms == 0 {
            return 0;
        }
        let failed = Some(self.not_before_ms.saturating_sub(now_ms)).filter(|left| *left <= WAIT_MS_MAX);
        let asked = Some(self.asked_ms.saturating_add(spacing_ms).saturating_sub(now_ms))
            .filter(|left| *left <= spacing_ms && self.value.is_some());
        failed.max(asked).unwrap_or(0)
    }

    fn announce(&mut self, node: NodeId, epoch: u64, need_ms: u64, now_ms: StoreMs) -> OpOutcome {
        if !self.holds_lease(node, epoch) || self.lease_left_ms(now_ms) < need_ms.max(1) {
            return OpOutcome::Rejected;
        }
        // An older one stays: it says how long the former value has been doubtful.
        self.unsettled.get_or_insert(UnsettledCall { by: epoch, settled_by: epoch, at_ms: now_ms });
        OpOutcome::Done
    }

    fn end_call(&mut self, epoch: u64, ended: CallEnd, has_lease: bool, now_ms: StoreMs) {
        match ended {
            CallEnd::Lost if has_lease => {
                let settled_by = epoch + 1;
                let open = self.unsettled.get_or_insert(UnsettledCall { by: epoch, settled_by, at_ms: now_ms });
                open.settled_by = open.settled_by.max(settled_by);
            }
            CallEnd::Lost => self.mark_unsettled(now_ms),
            // Once the lease has passed on, the mark stands for the next holder's call as well.
            CallEnd::Unsent | CallEnd::Answered if !has_lease => {}
            CallEnd::Unsent | CallEnd::Answered => {
                if ended == CallEnd::Answered {
                    self.asked_ms = now_ms;
                }
                if self.unsettled.is_some_and(|open| open.by == epoch && open.settled_by == epoch) {
                    self.unsettled = None;
                }
            }
        }
    }

    /// A call has been made beside whoever has the lease now, so only what is fetched under a later one settles it.
    fn mark_unsettled(&mut self, now_ms: StoreMs) {
        let at_ms = self.unsettled.map_or(now_ms, |open| open.at_ms.min(now_ms));
        self.unsettled = Some(UnsettledCall { by: 0, settled_by: self.epoch + 1, at_ms });
    }

    fn settle_calls(&mut self, epoch: u64) {
        self.unsettled = self.unsettled.filter(|open| open.settled_by > epoch);
    }

    fn holds_lease(&self, node: NodeId, epoch: u64) -> bool {
        self.holder == node && self.epoch == epoch
    }

    fn set_lease(&mut self, node: NodeId, keep_ms: u64, now_ms: StoreMs) {
        (self.holder, self.until_ms) = match keep_ms.min(LEASE_MS_MAX) {
            0 => (0, 0),
            keep_ms => (node, now_ms.saturating_add(keep_ms)),
        };
    }

    fn set_calls(&mut self, calls: &Option<Arc<str>>) {
        if calls.is_some() {
            self.calls.clone_from(calls);
        }
    }
}

/// Without the value: it is sealed, and nobody's business all the same.
impl<V> std::fmt::Debug for Record<V> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Record")
            .field("epoch", &self.epoch)
            .field("holder", &self.holder)
            .field("until_ms", &self.until_ms)
            .field("open", &self.unsettled)
            .field("generation", &self.generation)
            .field("has_value", &self.value.is_some())
            .field("asked_ms", &self.asked_ms)
            .field("not_before_ms", &self.not_before_ms)
            .field("failures", &self.failures)
            .finish_non_exhaustive()
    }
}
