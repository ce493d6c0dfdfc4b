//! A model check of the cluster's protocol: every order of events, by the rules of `record_rules` and the real `node_rules`.
//! Nodes stop, die and come back, the store forgets, answers are lost, and WeChat mints another token for every call.
//! `world.rs` has the state, `steps.rs` what may happen, `search.rs` what must hold.
//!
//! The bound is how many things go wrong. Within it the search is complete, not a sample. `broken_rules.rs` breaks each rule
//! in turn, and the search has to find it. docs/design/cluster-protocol.md explains what is shown
//! here.
//!
//! To search further than the suite does, by the variables of `as_far_as_asked`. What the page says that nothing can catch is
//! then found, too: it takes three nodes and a fault of the store, or three things that go wrong.
//! `MODEL_RENEWALS=4 cargo test --test it -- cluster_model::as_far_as_asked --ignored --nocapture`

mod broken_rules;
mod search;
mod steps;
mod world;

use proptest::prelude::*;
use proptest::sample::select;
use tokencached::cluster::record::{COUNT_MAX, LEASE_MS_MAX, UnsettledCall};
use tokencached::cluster::{CallEnd, Op, OpOutcome, Record};

use self::broken_rules::BrokenRule;
use self::search::{EXTRA, Found, Seen, search};
use self::steps::Bounds;
use self::world::Adverse;
use crate::record_rules::RecordRules;

const TWO: Bounds = Bounds { nodes: 2, warm: true, renewals: 2, adverse: 2, store_faults: 1, prompt: false };

#[track_caller]
fn holds(bounds: Bounds) -> Seen {
    match search(bounds, BrokenRule::Nothing) {
        Ok(seen) => {
            println!("{bounds:?}: {seen:?}");
            seen
        }
        Err(Found { what, story }) => panic!("{what}, {bounds:?}:\n{story}"),
    }
}

#[test]
fn while_nothing_goes_wrong_every_renewal_is_one_call() {
    for warm in [true, false] {
        // What must hold includes that nobody calls more often than tokens are wanted, and never two at once.
        let seen = holds(Bounds { nodes: 3, warm, renewals: 3, adverse: 0, ..TWO });
        assert_eq!((seen.behind, seen.unaccounted), (vec![1], 0));
    }
}

#[test]
fn one_thing_that_goes_wrong_never_leaves_a_token_that_nobody_knows_of() {
    let mut most = [0; EXTRA.len()];
    for (nodes, warm, renewals) in [(2, true, 3), (2, false, 2), (3, true, 2)] {
        let seen = holds(Bounds { nodes, warm, renewals, adverse: 1, ..TWO });
        assert_eq!(seen.unaccounted, 0);
        assert_eq!(seen.behind, [1, 2]);
        for (most, extra) in most.iter_mut().zip(seen.extra) {
            *most = extra.max(*most);
        }
    }
    // The table of what may be is no higher than what can be.
    assert_eq!(most, EXTRA.map(|(_, extra)| extra));
}

#[test]
fn two_things_that_go_wrong_are_mended_whenever_anybody_knows_of_the_token() {
    let seen = holds(TWO);
    assert!(seen.worlds > 200_000, "{}", seen.worlds);
}

/// Nodes then say once that a call is lost, at once, and do not ask whether that was heard.
#[test]
fn where_no_call_outlives_its_deadline_nodes_need_not_be_careful_with_lost_ones() {
    let seen = holds(Bounds { prompt: true, ..TWO });
    assert!(seen.worlds > 200_000, "{}", seen.worlds);
}

#[test]
#[ignore = "slow: goes through millions of states"]
fn as_far_as_asked() {
    let number = |name: &str, default: u8| std::env::var(name).ok().and_then(|n| n.parse().ok()).unwrap_or(default);
    holds(Bounds {
        nodes: number("MODEL_NODES", 3).into(),
        warm: number("MODEL_WARM", 1) > 0,
        renewals: number("MODEL_RENEWALS", 3),
        adverse: number("MODEL_ADVERSE", 2),
        store_faults: number("MODEL_STORE_FAULTS", 0),
        prompt: number("MODEL_PROMPT", 0) > 0,
    });
}

/// Each rule broken, the bounds within which that shows, and what then goes wrong.
const BROKEN: &[(BrokenRule, Bounds, &str)] = &[
    (BrokenRule::TakeDuringALease, TWO, "it does not come to rest"),
    (BrokenRule::TakeWithoutLooking, TWO, MORE_CALLS),
    (BrokenRule::AnnounceWithoutAMark, TWO, UNKNOWN),
    (BrokenRule::PublishWithoutTheLease, TWO, "it does not come to rest"),
    (BrokenRule::RefusedPublishLeavesNoDoubt, TWO, NOT_THE_LATEST),
    (BrokenRule::LatePublishSettlesADoubt, TWO, NOT_THE_LATEST),
    (BrokenRule::LostEndsTheLease, TWO, UNKNOWN),
    (BrokenRule::LostLeavesNoMark, TWO, UNKNOWN),
    (BrokenRule::LateLostLeavesNoDoubt, TWO, UNKNOWN),
    (BrokenRule::UnsentOfAPastLeaseClears, TWO, UNKNOWN),
    (BrokenRule::AnsweredClearsAnOlderCall, TWO, UNKNOWN),
    (BrokenRule::OfferOverAValueLeavesNoDoubt, TWO, NOT_THE_LATEST),
    (BrokenRule::OfferOfALowerGeneration, TWO, NOT_THE_LATEST),
    (BrokenRule::DoubtIsNotNoted, TWO, NOT_THE_LATEST),
    (BrokenRule::ClockIsNotLookedAt, TWO, "a call is sent after its lease although its node has been running"),
    (BrokenRule::LateLostIsReportedAtOnce, TWO, UNKNOWN),
    (BrokenRule::RefusedLostIsNotRepeated, TWO, UNKNOWN),
    (BrokenRule::LostIsSaidOnce, TWO, UNKNOWN),
    (BrokenRule::OpenIsNotSettled, TWO, NOT_THE_LATEST),
    (BrokenRule::OwnGenerationIsNotCounted, TWO, NOT_THE_LATEST),
    (BrokenRule::LowerIsAdopted, TWO, "a node goes back to a lower generation"),
];
const UNKNOWN: &str = "a call is unknown to everybody";
const NOT_THE_LATEST: &str = "it comes to rest, and not everybody has the latest token";
const MORE_CALLS: &str = "more calls than renewals and things gone wrong account for";

#[test]
fn without_any_one_of_the_rules_something_goes_wrong_and_is_noticed() {
    for (broken, bounds, expected) in BROKEN {
        match search(*bounds, *broken) {
            Err(Found { what, story }) => {
                assert_eq!(what, *expected, "{broken:?}:\n{story}");
                println!(
                    "{broken:?}: {what}, after {} steps",
                    story.lines().filter(|line| !line.starts_with(' ')).count()
                );
            }
            Ok(seen) => panic!("{broken:?} is not noticed: {seen:?}"),
        }
    }
}

/// These cost calls, and nothing else.
#[test]
fn what_only_saves_calls_is_noticed_by_their_number() {
    let bounds = Bounds { adverse: 1, ..TWO };
    let seen =
        search(bounds, BrokenRule::PublishedAgainWithoutLooking).unwrap_or_else(|found| panic!("{}", found.what));
    assert!(seen.extra[Adverse::Unheard as usize] > holds(bounds).extra[Adverse::Unheard as usize]);
}

const NOW_MS: u64 = 1_000_000;

fn record(epoch: u64, generation: u64, value: Option<u8>) -> Record<u8> {
    Record { epoch, generation, value, ..Record::default() }
}

fn take(record: &mut Record<u8>, node: u64, now_ms: u64) -> u64 {
    let taken =
        record.apply(&Op::Take { node, lease_ms: 1_000, known_generation: record.generation, spacing_ms: 0 }, now_ms);
    assert_eq!(taken, OpOutcome::Done);
    record.epoch
}

fn close(node: u64, epoch: u64, ended: CallEnd) -> Op<u8> {
    Op::Close { node, epoch, ended, failed: false, wait_ms: 0, keep_ms: 0, calls: None }
}

/// After a flush a node that had nothing began anew at 1, with a later token than those who remember generation 4.
#[test]
fn a_value_offered_over_another_leaves_a_doubt() {
    let mut begun_anew = record(1, 1, Some(5));
    assert_eq!(begun_anew.apply(&Op::Offer { generation: 4, value: 4 }, NOW_MS), OpOutcome::Done);
    assert_eq!((begun_anew.generation, begun_anew.value), (4, Some(4)));
    assert_eq!(begun_anew.unsettled.map(|open| open.settled_by), Some(2));
    let mut emptied = record(0, 0, None);
    assert_eq!(emptied.apply(&Op::Offer { generation: 4, value: 4 }, NOW_MS), OpOutcome::Done);
    assert_eq!(emptied.unsettled, None);
}

/// The next holder has announced its own call meanwhile: one mark is there for both.
#[test]
fn a_call_that_was_not_sent_under_a_past_lease_leaves_the_mark_to_the_next_holder() {
    let mut record = record(1, 1, Some(1));
    let first = take(&mut record, 1, NOW_MS);
    assert_eq!(record.apply(&Op::Announce { node: 1, epoch: first, need_ms: 500 }, NOW_MS), OpOutcome::Done);
    let second = take(&mut record, 2, NOW_MS + 1_000);
    assert_eq!(record.apply(&Op::Announce { node: 2, epoch: second, need_ms: 500 }, NOW_MS + 1_000), OpOutcome::Done);
    for ended in [CallEnd::Unsent, CallEnd::Answered] {
        assert_eq!(record.apply(&close(1, first, ended), NOW_MS + 1_100), OpOutcome::Rejected);
        assert!(record.unsettled.is_some(), "{ended:?}");
    }
}

/// The store has forgotten what else was published, or was lost, under the leases before.
#[test]
fn a_call_from_before_a_flush_leaves_a_doubt_when_it_is_published_to_an_empty_store() {
    let mut record = record(0, 0, None);
    assert_eq!(record.apply(&close(1, 2, CallEnd::Lost), NOW_MS), OpOutcome::Rejected);
    let publish = Op::Publish { node: 2, epoch: 3, generation: 2, value: 3, calls: None, minted: true, keep_ms: 0 };
    assert_eq!(record.apply(&publish, NOW_MS), OpOutcome::Done);
    assert_eq!((record.epoch, record.generation, record.value), (3, 2, Some(3)));
    assert_eq!(record.unsettled.map(|open| open.settled_by), Some(4));
}

/// What opens is this, under this number.
const HELD: (u64, u8) = (5, 50);
/// How long a node lets itself be put off by what is not under a seal.
const PUT_OFF_MS_MAX: u64 = 600_000;

/// What somebody may write into the fields.
fn forged() -> impl Strategy<Value = Record<u8>> {
    let near_ms = NOW_MS.saturating_sub(200_000)..NOW_MS + 4_000_000;
    let ms = move || prop_oneof![near_ms.clone(), select(vec![0, COUNT_MAX])];
    let count = || select(vec![0, 1, 4, 5, 6, COUNT_MAX - 1, COUNT_MAX]);
    let open = prop::option::of((count(), count(), ms()).prop_map(|(by, settled_by, at_ms)| UnsettledCall {
        by,
        settled_by,
        at_ms,
    }));
    let value = prop::option::of(select(vec![HELD.1, 7, 255]));
    let lease = (count(), prop_oneof![Just(0), 1_u64..4, Just(u64::MAX)], ms());
    (lease, open, (count(), value), [ms(), ms()], count()).prop_map(
        |(lease, open, held, [answered_ms, not_before_ms], failures)| {
            let ((epoch, holder, until_ms), (generation, value)) = (lease, held);
            Record {
                epoch,
                holder,
                until_ms,
                unsettled: open,
                generation,
                value,
                answered_ms,
                not_before_ms,
                failures,
                calls: None,
            }
        },
    )
}

/// A node's whole renewal. When the call was sent, if the lease was to be had.
fn renew(record: &mut Record<u8>, made: (u64, u8), mut now_ms: u64) -> u64 {
    let (generation, value) = (record.generation, record.value);
    if (generation, value) != (made.0 - 1, Some(made.1 - 1)) {
        record.apply(&Op::Discard { generation, value }, now_ms);
    }
    let mut spacing_ms = 60_000;
    loop {
        match record.apply(&Op::Take { node: 9, lease_ms: 11_000, known_generation: made.0 - 1, spacing_ms }, now_ms) {
            OpOutcome::Done => break,
            OpOutcome::PutOff { left_ms } if left_ms > PUT_OFF_MS_MAX => spacing_ms = 0,
            OpOutcome::LeaseHeld { left_ms } | OpOutcome::PutOff { left_ms } => now_ms += left_ms,
            other => panic!("{other:?} of {record:?}"),
        }
    }
    let epoch = record.epoch;
    assert_eq!(record.apply(&Op::Announce { node: 9, epoch, need_ms: 5_000 }, now_ms), OpOutcome::Done, "{record:?}");
    let (generation, value) = made;
    let publish = Op::Publish { node: 9, epoch, generation, value, calls: None, minted: true, keep_ms: 0 };
    assert_eq!(record.apply(&publish, now_ms), OpOutcome::Done, "{record:?}");
    now_ms
}

proptest! {
    /// Nothing that stands in a record keeps a node from renewing for longer than a lease and a pause, and after the
    /// next call but one nothing of it is left.
    #[test]
    fn whatever_stands_in_a_record_it_is_renewed_in_time_and_good_again(mut record in forged()) {
        record.drop_impossible_call();
        let called_ms = renew(&mut record, (HELD.0 + 1, HELD.1 + 1), NOW_MS);
        prop_assert!(called_ms <= NOW_MS + LEASE_MS_MAX + PUT_OFF_MS_MAX, "{}", called_ms - NOW_MS);
        renew(&mut record, (HELD.0 + 2, HELD.1 + 2), called_ms + 60_000);
        prop_assert_eq!((record.generation, record.value, record.unsettled), (HELD.0 + 2, Some(HELD.1 + 2), None));
        prop_assert_eq!((record.failures, record.not_before_ms), (0, 0));
    }
}
