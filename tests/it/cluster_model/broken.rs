//! The rules, each broken in turn: what is the proof worth if it holds without them?

use tokencached::cluster::record::NOBODY;
use tokencached::cluster::{Ended, Op, Record, Verdict};

use super::world::{Mint, NOW_MS};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Broken {
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

impl Broken {
    pub fn apply(self, record: &mut Record<Mint>, op: &Op<Mint>) -> Verdict {
        let before = record.clone();
        let mut op = op.clone();
        self.prepare(record, &mut op);
        let verdict = record.apply(&op, NOW_MS);
        self.spoil(record, &before, &op, verdict);
        verdict
    }

    /// Hides from the rule what it looks at.
    fn prepare(self, record: &mut Record<Mint>, op: &mut Op<Mint>) {
        match (self, op) {
            (Broken::TakeDuringALease, Op::Take { .. }) => record.until_ms = 0,
            (Broken::TakeWithoutLooking, Op::Take { knows, .. }) => *knows = u64::MAX,
            (Broken::PublishWithoutTheLease, Op::Publish { node, epoch, .. }) => {
                (record.holder, record.epoch) = (*node, *epoch);
            }
            (Broken::OfferOfALowerGeneration, Op::Offer { .. }) if record.lease_left_ms(NOW_MS) == 0 => {
                record.value = None;
            }
            _ => {}
        }
    }

    /// Undoes what the rule has done.
    fn spoil(self, record: &mut Record<Mint>, before: &Record<Mint>, op: &Op<Mint>, verdict: Verdict) {
        let mine = |node: u64, epoch: u64| before.holder == node && before.epoch == epoch;
        match (self, op, verdict) {
            (Broken::TakeDuringALease, Op::Take { .. }, Verdict::Newer | Verdict::Later { .. }) => {
                record.until_ms = before.until_ms;
            }
            (Broken::OfferOfALowerGeneration, Op::Offer { .. }, Verdict::Refused) => record.value = before.value,
            (Broken::AnnounceWithoutAMark, Op::Announce { .. }, _)
            | (Broken::RefusedPublishLeavesNoDoubt, Op::Publish { .. }, Verdict::Refused)
            | (Broken::LateLostLeavesNoDoubt, Op::Close { ended: Ended::Lost, .. }, Verdict::Refused)
            | (Broken::OfferOverAValueLeavesNoDoubt, Op::Offer { .. }, _)
            | (Broken::DoubtIsNotNoted, Op::Doubt { .. }, _) => record.open = before.open,
            (Broken::LatePublishSettlesADoubt, Op::Publish { .. }, Verdict::Done) => record.open = None,
            (Broken::LostEndsTheLease, Op::Close { ended: Ended::Lost, .. }, Verdict::Done) => {
                assert_eq!(record.holder, NOBODY);
                (record.holder, record.until_ms) = (0, 0);
            }
            (Broken::LostLeavesNoMark, Op::Close { ended: Ended::Lost, .. }, Verdict::Done) => record.open = None,
            (
                Broken::UnsentOfAPastLeaseClears,
                Op::Close { node, epoch, ended: Ended::Unsent | Ended::Answered, .. },
                _,
            ) if !mine(*node, *epoch) => {
                record.open = record.open.filter(|open| (open.by, open.settled_by) != (*epoch, *epoch));
            }
            (Broken::AnsweredClearsAnOlderCall, Op::Close { ended: Ended::Unsent | Ended::Answered, .. }, _) => {
                record.open = None;
            }
            _ => {}
        }
    }
}
