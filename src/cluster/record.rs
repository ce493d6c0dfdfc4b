//! One credential's record in the cluster store, and what nodes may do to it: leases, values, unsettled calls.
//!
//! Pure: an operation and the store's time come in, an outcome goes out. [`Record::apply`] is the specification. The script
//! that runs inside Redis does the same steps, and tests compare the two. The model check and the simulation run
//! [`Record::apply`] itself. docs/design/cluster-protocol.md explains why the rules are
//! correct.
//!
//! Knows nothing of platforms, secrets or what a value means: it is sealed by the node that publishes it.

use std::sync::Arc;

/// Milliseconds on the store's clock. No rule here uses a node's own clock.
pub type StoreMs = u64;

/// A process: a random number that it draws when it starts; never 0.
pub type NodeId = u64;

/// No lease lasts longer. One that seems to was written under another clock, as of a replica that was promoted, and counts
/// as ended.
pub const LEASE_MS_MAX: u64 = 120_000;
/// The longest backoff after a failure, likewise.
pub const WAIT_MS_MAX: u64 = 3_600_000;
/// The highest epoch and generation that every store can count. Only a forged number is higher, and it is refused.
pub const COUNT_MAX: u64 = 999_999_999_999_999;
/// The holder of a lease whose call was lost, until the lease ends: the call may still be under way.
pub const NOBODY: NodeId = u64::MAX;

/// What the store keeps of one credential. `V` is the sealed value.
#[derive(Clone, Default, PartialEq, Eq, Hash)]
pub struct Record<V = Arc<str>> {
    /// How many leases have been granted.
    pub epoch: u64,
    /// The node that has the lease; 0: none.
    pub holder: NodeId,
    pub until_ms: StoreMs,
    /// A call that may have made a token which nobody has published.
    pub unsettled: Option<UnsettledCall>,
    /// Counts the values, from 1. Nodes compare values by it alone.
    pub generation: u64,
    pub value: Option<V>,
    /// When the platform last answered.
    pub answered_ms: StoreMs,
    /// The backoff after a failure: no call before this.
    pub not_before_ms: StoreMs,
    /// How many calls in a row, of all nodes, brought no value.
    pub failures: u64,
    /// The calls charged against the quota, as the last caller counted them, sealed.
    pub calls: Option<Arc<str>>,
}

/// A call that may have made a token nobody has published.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct UnsettledCall {
    /// The epoch of the lease under which it was announced; 0 if its answer came when another node had the lease.
    pub by: u64,
    /// A value published under this epoch or a later one settles it.
    pub settled_by: u64,
    /// It was sent at this time or later.
    pub at_ms: StoreMs,
}

/// How a call ended that brought no value to publish.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum CallEnd {
    Unsent,
    /// The platform answered and made no token.
    Answered,
    /// No answer came: the platform may have made a token.
    Lost,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Op<V = Arc<str>> {
    Read,
    /// Takes the lease, unless the record has a later value than the node.
    Take {
        node: NodeId,
        lease_ms: u64,
        /// The generation of the node's value, 0 if that is of no use any more.
        known_generation: u64,
        /// The least time since the platform's last answer, if there is a value. 0: the backoff after failures does not
        /// count either.
        spacing_ms: u64,
    },
    /// Notes that a call which makes a token is about to be sent. Granted if so much of the lease is left.
    Announce {
        node: NodeId,
        epoch: u64,
        need_ms: u64,
    },
    /// Publishes the call's value; with the record's own generation, the same value with a later end. `minted`: a token
    /// was made for it, so a rejected publication leaves an unsettled call. The lease ends, or is kept for `keep_ms`.
    Publish {
        node: NodeId,
        epoch: u64,
        generation: u64,
        value: V,
        calls: Option<Arc<str>>,
        minted: bool,
        keep_ms: u64,
    },
    /// Ends the lease without a new value, or keeps it for `keep_ms`. `wait_ms` is the backoff for all nodes; `failed`
    /// counts a failure.
    Close {
        node: NodeId,
        epoch: u64,
        ended: CallEnd,
        failed: bool,
        wait_ms: u64,
        keep_ms: u64,
        calls: Option<Arc<str>>,
    },
    /// Gives the node's value to a store that has lost it.
    Offer {
        generation: u64,
        value: V,
    },
    /// Notes that there are two values of that generation and nobody knows which is later.
    Doubt {
        generation: u64,
    },
    /// Removes a forged value, if it is still the one that was read. Nodes that have a good value offer it then.
    Discard {
        generation: u64,
        value: Option<V>,
    },
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum OpOutcome {
    /// It was done: the node has the lease, may send the call, or has published its value.
    Done,
    NewerValue,
    /// Another node has the lease for so long.
    LeaseHeld {
        left_ms: u64,
    },
    /// No call is needed for so long: one was just made, or has failed.
    PutOff {
        left_ms: u64,
    },
    /// It was not done: the node has lost its lease, or the record has something better.
    Rejected,
}

impl<V: Clone + PartialEq> Record<V> {
    /// How much of the lease is left; 0 without a lease.
    pub fn lease_left_ms(&self, now_ms: StoreMs) -> u64 {
        match self.until_ms.saturating_sub(now_ms) {
            left @ 1..=LEASE_MS_MAX if self.holder != 0 => left,
            _ => 0,
        }
    }

    /// True if the store was emptied, or never had this record.
    pub fn is_blank(&self) -> bool {
        self.epoch == 0 && self.generation == 0
    }

    /// Removes an unsettled call that the next lease would not settle: no node writes one, and it would stay for ever. True
    /// if there was one.
    pub fn drop_impossible_call(&mut self) -> bool {
        self.unsettled.take_if(|call| call.settled_by > self.epoch.saturating_add(1)).is_some()
    }

    /// Applies an operation, or says why not.
    pub fn apply(&mut self, op: &Op<V>, now_ms: StoreMs) -> OpOutcome {
        self.drop_impossible_call();
        match op {
            Op::Read => OpOutcome::Done,
            Op::Take { node, lease_ms, known_generation, spacing_ms } => {
                self.take_lease(*node, *lease_ms, *known_generation, *spacing_ms, now_ms)
            }
            Op::Announce { node, epoch, need_ms } => self.announce(*node, *epoch, *need_ms, now_ms),
            Op::Publish { node, epoch, generation, value, calls, minted, keep_ms } => {
                let outcome = self.publish(*node, *epoch, *generation, value, *minted, now_ms);
                if outcome == OpOutcome::Done {
                    self.set_calls(calls);
                    self.set_lease(*node, *keep_ms, now_ms);
                }
                outcome
            }
            Op::Close { node, epoch, ended, failed, wait_ms, keep_ms, calls } => {
                let has_lease = self.holds_lease(*node, *epoch);
                self.set_calls(calls);
                self.end_call(*epoch, *ended, has_lease, now_ms);
                if !has_lease {
                    return OpOutcome::Rejected;
                }
                self.failures = self.failures.saturating_add(u64::from(*failed));
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
            Op::Offer { generation, value } => self.offer(*generation, value, now_ms),
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
        // Nor is the node's own lease granted again while a call is unsettled: that call may still be under way.
        if left_ms > 0 && (self.holder != node || self.unsettled.is_some()) {
            return OpOutcome::LeaseHeld { left_ms };
        }
        let left_ms = self.backoff_left_ms(spacing_ms, now_ms);
        if left_ms > 0 {
            return OpOutcome::PutOff { left_ms };
        }
        self.epoch += 1;
        self.set_lease(node, lease_ms.max(1), now_ms);
        OpOutcome::Done
    }

    /// How long no call is needed: after a failure, or because one was just made.
    fn backoff_left_ms(&self, spacing_ms: u64, now_ms: StoreMs) -> u64 {
        if spacing_ms == 0 {
            return 0;
        }
        let failed = Some(self.not_before_ms.saturating_sub(now_ms)).filter(|left| *left <= WAIT_MS_MAX);
        let asked = Some(self.answered_ms.saturating_add(spacing_ms).saturating_sub(now_ms))
            .filter(|left| *left <= spacing_ms && self.value.is_some());
        failed.max(asked).unwrap_or(0)
    }

    fn announce(&mut self, node: NodeId, epoch: u64, need_ms: u64, now_ms: StoreMs) -> OpOutcome {
        if !self.holds_lease(node, epoch) || self.lease_left_ms(now_ms) < need_ms.max(1) {
            return OpOutcome::Rejected;
        }
        // An older one stays: its time says since when the published value may be dead.
        self.unsettled.get_or_insert(UnsettledCall { by: epoch, settled_by: epoch, at_ms: now_ms });
        OpOutcome::Done
    }

    fn publish(
        &mut self,
        node: NodeId,
        epoch: u64,
        generation: u64,
        value: &V,
        minted: bool,
        now_ms: StoreMs,
    ) -> OpOutcome {
        let fits = generation > self.generation || (!minted && generation == self.generation);
        let has_lease = self.holds_lease(node, epoch);
        if !fits || !(has_lease || self.is_blank()) {
            if minted {
                self.mark_unsettled(now_ms);
            }
            return OpOutcome::Rejected;
        }
        self.unsettled.take_if(|call| call.settled_by <= epoch);
        self.epoch = self.epoch.max(epoch);
        // The emptied store has forgotten what was published or lost under earlier leases.
        if minted && !has_lease {
            self.mark_unsettled(now_ms);
        }
        (self.generation, self.value) = (generation, Some(value.clone()));
        (self.answered_ms, self.not_before_ms, self.failures) = (now_ms, 0, 0);
        OpOutcome::Done
    }

    fn offer(&mut self, generation: u64, value: &V, now_ms: StoreMs) -> OpOutcome {
        if self.lease_left_ms(now_ms) > 0 || (generation <= self.generation && self.value.is_some()) {
            return OpOutcome::Rejected;
        }
        // The value was lost in a failover, or another node began a new count after a flush.
        if self.value.is_some() {
            self.mark_unsettled(now_ms);
        }
        (self.generation, self.value) = (generation, Some(value.clone()));
        OpOutcome::Done
    }

    fn end_call(&mut self, epoch: u64, ended: CallEnd, has_lease: bool, now_ms: StoreMs) {
        match ended {
            CallEnd::Lost if has_lease => {
                let settled_by = epoch + 1;
                let call = self.unsettled.get_or_insert(UnsettledCall { by: epoch, settled_by, at_ms: now_ms });
                call.settled_by = call.settled_by.max(settled_by);
            }
            CallEnd::Lost => self.mark_unsettled(now_ms),
            // When another node has the lease, the unsettled call may be that node's.
            CallEnd::Unsent | CallEnd::Answered if !has_lease => {}
            CallEnd::Unsent | CallEnd::Answered => {
                if ended == CallEnd::Answered {
                    self.answered_ms = now_ms;
                }
                if self.unsettled.is_some_and(|call| call.by == epoch && call.settled_by == epoch) {
                    self.unsettled = None;
                }
            }
        }
    }

    /// A call was made without the present lease, so only a value fetched under a later lease settles it.
    fn mark_unsettled(&mut self, now_ms: StoreMs) {
        let at_ms = self.unsettled.map_or(now_ms, |call| call.at_ms.min(now_ms));
        self.unsettled = Some(UnsettledCall { by: 0, settled_by: self.epoch + 1, at_ms });
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

/// Without the value, though it is sealed.
impl<V> std::fmt::Debug for Record<V> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Record")
            .field("epoch", &self.epoch)
            .field("holder", &self.holder)
            .field("until_ms", &self.until_ms)
            .field("unsettled", &self.unsettled)
            .field("generation", &self.generation)
            .field("has_value", &self.value.is_some())
            .field("answered_ms", &self.answered_ms)
            .field("not_before_ms", &self.not_before_ms)
            .field("failures", &self.failures)
            .finish_non_exhaustive()
    }
}
