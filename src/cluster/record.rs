//! One credential's record in the cluster store, and what nodes may do to it: leases, values, unsettled calls.
//!
//! Plain values. What an operation does to a record is written down twice: as the script that runs inside Redis, and as
//! `tests/record_rules`, which tests compare with it and with which the model check and the simulation run.
//! docs/design/cluster-protocol.md explains why the rules are correct.
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
    /// Changes nothing.
    Read,
    /// Takes the lease, unless the record has a later value than the node: `known_generation` is the node's, 0 if its value
    /// is of no use any more. `spacing_ms` is the least time since the platform's last answer, if there is a value; 0: the
    /// backoff after failures does not count either.
    Take { node: NodeId, lease_ms: u64, known_generation: u64, spacing_ms: u64 },
    /// Notes that a call which makes a token is about to be sent. Granted if so much of the lease is left.
    Announce { node: NodeId, epoch: u64, need_ms: u64 },
    /// Publishes the call's value; with the record's own generation, the same value with a later end. `minted`: a token
    /// was made for it, so a rejected publication leaves an unsettled call. The lease ends, or is kept for `keep_ms`.
    Publish { node: NodeId, epoch: u64, generation: u64, value: V, calls: Option<Arc<str>>, minted: bool, keep_ms: u64 },
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
    Offer { generation: u64, value: V },
    /// Notes that there are two values of that generation and nobody knows which is later.
    Doubt { generation: u64 },
    /// Removes a forged value, if it is still the one that was read. Nodes that have a good value offer it then.
    Discard { generation: u64, value: Option<V> },
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum OpOutcome {
    /// It was done: the node has the lease, may send the call, or has published its value.
    Done,
    /// The record has a later value.
    NewerValue,
    /// Another node has the lease for so long.
    LeaseHeld { left_ms: u64 },
    /// No call is needed for so long: one was just made, or has failed.
    PutOff { left_ms: u64 },
    /// It was not done: the node has lost its lease, or the record has something better.
    Rejected,
}

impl<V> Record<V> {
    /// How much of the lease is left; 0 without a lease.
    pub fn lease_left_ms(&self, now_ms: StoreMs) -> u64 {
        match self.until_ms.saturating_sub(now_ms) {
            left @ 1..=LEASE_MS_MAX if self.holder != 0 => left,
            _ => 0,
        }
    }

    /// Removes an unsettled call that the next lease would not settle: no node writes one, and it would stay for ever. True
    /// if there was one.
    pub fn drop_impossible_call(&mut self) -> bool {
        self.unsettled.take_if(|call| call.settled_by > self.epoch.saturating_add(1)).is_some()
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
