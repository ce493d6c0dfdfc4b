//! The rules, each broken in turn: what is the proof worth if it holds without them?

use tokencached::cluster::record::NOBODY;
use tokencached::cluster::{CallEnd, Op, OpOutcome, Record};

use super::world::{Mint, NOW_MS};
use crate::record_rules::RecordRules;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BrokenRule {
    Nothing,
    // The record's.
    TakeDuringALease,
    TakeWithoutLooking,
    AnnounceWithoutAMark,
    PublishWithoutTheLease,
    RefusedPublishLeavesNoDoubt,
    LatePublishSettlesADoubt,
    LostEndsTheLease,
    LostLeavesNoMark,
    LateLostLeavesNoDoubt,
    UnsentOfAPastLeaseClears,
    AnsweredClearsAnOlderCall,
    OfferOverAValueLeavesNoDoubt,
    OfferOfALowerGeneration,
    DoubtIsNotNoted,
    // A node's.
    ClockIsNotLookedAt,
    PublishedAgainWithoutLooking,
    LateLostIsReportedAtOnce,
    RefusedLostIsNotRepeated,
    LostIsSaidOnce,
    OpenIsNotSettled,
    OwnGenerationIsNotCounted,
    LowerIsAdopted,
}

impl BrokenRule {
    pub fn apply(self, record: &mut Record<Mint>, op: &Op<Mint>) -> OpOutcome {
        let before = record.clone();
        let mut op = op.clone();
        self.prepare(record, &mut op);
        let outcome = record.apply(&op, NOW_MS);
        self.spoil(record, &before, &op, outcome);
        outcome
    }

    /// Hides from the rule what it looks at.
    fn prepare(self, record: &mut Record<Mint>, op: &mut Op<Mint>) {
        match (self, op) {
            (BrokenRule::TakeDuringALease, Op::Take { .. }) => record.until_ms = 0,
            (BrokenRule::TakeWithoutLooking, Op::Take { known_generation, .. }) => *known_generation = u64::MAX,
            (BrokenRule::PublishWithoutTheLease, Op::Publish { node, epoch, .. }) => {
                (record.holder, record.epoch) = (*node, *epoch);
            }
            (BrokenRule::OfferOfALowerGeneration, Op::Offer { .. }) if record.lease_left_ms(NOW_MS) == 0 => {
                record.value = None;
            }
            _ => {}
        }
    }

    /// Undoes what the rule has done.
    fn spoil(self, record: &mut Record<Mint>, before: &Record<Mint>, op: &Op<Mint>, outcome: OpOutcome) {
        let mine = |node: u64, epoch: u64| before.holder == node && before.epoch == epoch;
        match (self, op, outcome) {
            (BrokenRule::TakeDuringALease, Op::Take { .. }, OpOutcome::NewerValue | OpOutcome::PutOff { .. }) => {
                record.until_ms = before.until_ms;
            }
            (BrokenRule::OfferOfALowerGeneration, Op::Offer { .. }, OpOutcome::Rejected) => record.value = before.value,
            (BrokenRule::AnnounceWithoutAMark, Op::Announce { .. }, _)
            | (BrokenRule::RefusedPublishLeavesNoDoubt, Op::Publish { .. }, OpOutcome::Rejected)
            | (BrokenRule::LateLostLeavesNoDoubt, Op::Close { ended: CallEnd::Lost, .. }, OpOutcome::Rejected)
            | (BrokenRule::OfferOverAValueLeavesNoDoubt, Op::Offer { .. }, _)
            | (BrokenRule::DoubtIsNotNoted, Op::Doubt { .. }, _) => record.unsettled = before.unsettled,
            (BrokenRule::LatePublishSettlesADoubt, Op::Publish { .. }, OpOutcome::Done) => record.unsettled = None,
            (BrokenRule::LostEndsTheLease, Op::Close { ended: CallEnd::Lost, .. }, OpOutcome::Done) => {
                assert_eq!(record.holder, NOBODY);
                (record.holder, record.until_ms) = (0, 0);
            }
            (BrokenRule::LostLeavesNoMark, Op::Close { ended: CallEnd::Lost, .. }, OpOutcome::Done) => {
                record.unsettled = None
            }
            (
                BrokenRule::UnsentOfAPastLeaseClears,
                Op::Close { node, epoch, ended: CallEnd::Unsent | CallEnd::Answered, .. },
                _,
            ) if !mine(*node, *epoch) => {
                record.unsettled = record.unsettled.filter(|open| (open.by, open.settled_by) != (*epoch, *epoch));
            }
            (
                BrokenRule::AnsweredClearsAnOlderCall,
                Op::Close { ended: CallEnd::Unsent | CallEnd::Answered, .. },
                _,
            ) => {
                record.unsettled = None;
            }
            _ => {}
        }
    }
}
