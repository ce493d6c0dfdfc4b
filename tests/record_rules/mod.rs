//! What an operation does to the record of a credential: the rules of the script that runs inside Redis, written in
//! Rust.
//!
//! `it/cluster/conformance.rs` compares the two. The model check, the simulation and the store in memory use this one.
//! docs/design/cluster-protocol.md explains why the rules are correct.

use std::sync::Arc;

use tokencached::cluster::record::{
    CallEnd, LEASE_MS_MAX, NOBODY, NodeId, Op, OpOutcome, Record, StoreMs, UnsettledCall, WAIT_MS_MAX,
};

pub trait RecordRules<V> {
    /// Does an operation, or says why it is refused.
    fn apply(&mut self, op: &Op<V>, now_ms: StoreMs) -> OpOutcome;

    /// True if the store was emptied, or never had this record.
    fn is_blank(&self) -> bool;
}

impl<V: Clone + PartialEq> RecordRules<V> for Record<V> {
    fn apply(&mut self, op: &Op<V>, now_ms: StoreMs) -> OpOutcome {
        let record = self;
        record.drop_impossible_call();
        match op {
            Op::Read => OpOutcome::Done,
            Op::Take { node, lease_ms, known_generation, spacing_ms } => {
                take_lease(record, *node, *lease_ms, *known_generation, *spacing_ms, now_ms)
            }
            Op::Announce { node, epoch, need_ms } => announce(record, *node, *epoch, *need_ms, now_ms),
            Op::Publish { node, epoch, generation, value, calls, minted, keep_ms } => {
                let outcome = publish(record, *node, *epoch, *generation, value, *minted, now_ms);
                if outcome == OpOutcome::Done {
                    set_calls(record, calls);
                    set_lease(record, *node, *keep_ms, now_ms);
                }
                outcome
            }
            Op::Close { node, epoch, ended, failed, wait_ms, keep_ms, calls } => {
                let has_lease = holds_lease(record, *node, *epoch);
                set_calls(record, calls);
                end_call(record, *epoch, *ended, has_lease, now_ms);
                if !has_lease {
                    return OpOutcome::Rejected;
                }
                record.failures = record.failures.saturating_add(u64::from(*failed));
                if *wait_ms > 0 {
                    record.not_before_ms = now_ms.saturating_add(*wait_ms);
                }
                if *ended == CallEnd::Lost {
                    record.holder = NOBODY;
                } else {
                    set_lease(record, *node, *keep_ms, now_ms);
                }
                OpOutcome::Done
            }
            Op::Offer { generation, value } => offer(record, *generation, value, now_ms),
            Op::Doubt { generation } => {
                if *generation != record.generation {
                    return OpOutcome::Rejected;
                }
                mark_unsettled(record, now_ms);
                OpOutcome::Done
            }
            Op::Discard { generation, value } => {
                if (*generation, value) != (record.generation, &record.value) {
                    return OpOutcome::Rejected;
                }
                (record.generation, record.value) = (0, None);
                OpOutcome::Done
            }
        }
    }

    fn is_blank(&self) -> bool {
        self.epoch == 0 && self.generation == 0
    }
}

fn take_lease<V>(
    record: &mut Record<V>,
    node: NodeId,
    lease_ms: u64,
    known_generation: u64,
    spacing_ms: u64,
    now_ms: StoreMs,
) -> OpOutcome {
    if record.generation > known_generation && record.value.is_some() {
        return OpOutcome::NewerValue;
    }
    let left_ms = record.lease_left_ms(now_ms);
    // The node that has the lease gets it again, but not while a call is unsettled: that call may still be under way.
    if left_ms > 0 && (record.holder != node || record.unsettled.is_some()) {
        return OpOutcome::LeaseHeld { left_ms };
    }
    let left_ms = backoff_left_ms(record, spacing_ms, now_ms);
    if left_ms > 0 {
        return OpOutcome::PutOff { left_ms };
    }
    record.epoch += 1;
    set_lease(record, node, lease_ms.max(1), now_ms);
    OpOutcome::Done
}

/// How long to wait before the next call: because one has failed, or because one has just brought a value.
fn backoff_left_ms<V>(record: &Record<V>, spacing_ms: u64, now_ms: StoreMs) -> u64 {
    if spacing_ms == 0 {
        return 0;
    }
    let failed = Some(record.not_before_ms.saturating_sub(now_ms)).filter(|left| *left <= WAIT_MS_MAX);
    let asked = Some(record.answered_ms.saturating_add(spacing_ms).saturating_sub(now_ms))
        .filter(|left| *left <= spacing_ms && record.value.is_some());
    failed.max(asked).unwrap_or(0)
}

fn announce<V>(record: &mut Record<V>, node: NodeId, epoch: u64, need_ms: u64, now_ms: StoreMs) -> OpOutcome {
    if !holds_lease(record, node, epoch) || record.lease_left_ms(now_ms) < need_ms.max(1) {
        return OpOutcome::Rejected;
    }
    // An older unsettled call stays: its time says since when the published value may be dead.
    record.unsettled.get_or_insert(UnsettledCall { by: epoch, settled_by: epoch, at_ms: now_ms });
    OpOutcome::Done
}

fn publish<V: Clone + PartialEq>(
    record: &mut Record<V>,
    node: NodeId,
    epoch: u64,
    generation: u64,
    value: &V,
    minted: bool,
    now_ms: StoreMs,
) -> OpOutcome {
    let fits = generation > record.generation || (!minted && generation == record.generation);
    let has_lease = holds_lease(record, node, epoch);
    if !fits || !(has_lease || record.is_blank()) {
        if minted {
            mark_unsettled(record, now_ms);
        }
        return OpOutcome::Rejected;
    }
    record.unsettled.take_if(|call| call.settled_by <= epoch);
    record.epoch = record.epoch.max(epoch);
    // The emptied store has forgotten what was published or lost under earlier leases.
    if minted && !has_lease {
        mark_unsettled(record, now_ms);
    }
    (record.generation, record.value) = (generation, Some(value.clone()));
    (record.answered_ms, record.not_before_ms, record.failures) = (now_ms, 0, 0);
    OpOutcome::Done
}

fn offer<V: Clone>(record: &mut Record<V>, generation: u64, value: &V, now_ms: StoreMs) -> OpOutcome {
    if record.lease_left_ms(now_ms) > 0 || (generation <= record.generation && record.value.is_some()) {
        return OpOutcome::Rejected;
    }
    // The value was lost in a failover, or another node began a new count after a flush.
    if record.value.is_some() {
        mark_unsettled(record, now_ms);
    }
    (record.generation, record.value) = (generation, Some(value.clone()));
    OpOutcome::Done
}

fn end_call<V>(record: &mut Record<V>, epoch: u64, ended: CallEnd, has_lease: bool, now_ms: StoreMs) {
    match ended {
        CallEnd::Lost if has_lease => {
            let settled_by = epoch + 1;
            let call = record.unsettled.get_or_insert(UnsettledCall { by: epoch, settled_by, at_ms: now_ms });
            call.settled_by = call.settled_by.max(settled_by);
        }
        CallEnd::Lost => mark_unsettled(record, now_ms),
        // When another node has the lease, the unsettled call may be that node's.
        CallEnd::Unsent | CallEnd::Answered if !has_lease => {}
        CallEnd::Unsent | CallEnd::Answered => {
            if ended == CallEnd::Answered {
                record.answered_ms = now_ms;
            }
            if record.unsettled.is_some_and(|call| call.by == epoch && call.settled_by == epoch) {
                record.unsettled = None;
            }
        }
    }
}

/// A call was made without the present lease, so only a value fetched under a later lease settles it.
fn mark_unsettled<V>(record: &mut Record<V>, now_ms: StoreMs) {
    let at_ms = record.unsettled.map_or(now_ms, |call| call.at_ms.min(now_ms));
    record.unsettled = Some(UnsettledCall { by: 0, settled_by: record.epoch + 1, at_ms });
}

fn holds_lease<V>(record: &Record<V>, node: NodeId, epoch: u64) -> bool {
    record.holder == node && record.epoch == epoch
}

fn set_lease<V>(record: &mut Record<V>, node: NodeId, keep_ms: u64, now_ms: StoreMs) {
    (record.holder, record.until_ms) = match keep_ms.min(LEASE_MS_MAX) {
        0 => (0, 0),
        keep_ms => (node, now_ms.saturating_add(keep_ms)),
    };
}

fn set_calls<V>(record: &mut Record<V>, calls: &Option<Arc<str>>) {
    if calls.is_some() {
        record.calls.clone_from(calls);
    }
}
