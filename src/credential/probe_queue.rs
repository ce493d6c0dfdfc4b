//! Which value is probed next, and when, if nobody has reported one. So an invalid value is found before clients get
//! it, for few calls. Pure: times go in, the next credential comes out. Never sends anything.
//!
//! Each app is probed every [`EVERY_MS`], and the whole process makes one probe every [`GAP_MS`] at most. With up to
//! 600 apps each is probed every five minutes. With more, the one that has waited longest comes first, and apps in use
//! come before the others. No app waits longer than it takes to probe all: a quarter of the probes go to the app that
//! has waited longest, in use or not, and the others to the app in use that has waited longest.

use std::collections::{BTreeMap, BTreeSet};

use super::id::CredentialId;
use crate::clock::BootMs;

/// The time between two probes of one value.
pub const EVERY_MS: u64 = 300_000;
/// The least time between any two probes.
pub const GAP_MS: u64 = 500;
/// How many probes run at once. A slow answer delays the next probes, never a renewal.
pub const PROBES_RUNNING_MAX: usize = 2;
/// Probes of one app in a day. By a vendor's answer the call may be made 1000 times a day, and other programs of the
/// site may use it too, so we use a third at most. One in five minutes is 288.
pub const PER_DAY_MAX: u64 = 333;
/// A value that was read within this time is in use.
const IN_USE_MS: u64 = 600_000;
/// How often reads are recorded.
const LOOK_MS: u64 = 30_000;
/// One of this many probes goes to the value that has waited longest, in use or not.
const SHARE: u64 = 4;
/// An app for which the probe call is refused is probed less and less, down to once in this time.
const WITHHELD_MS_MAX: u64 = 3_600_000;
/// How many are put off at once at most.
const PUT_OFF_MAX: usize = 64;

/// Whether a value can be probed now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ProbeReadiness {
    Now,
    /// A call for it runs, or is about to.
    Soon,
    /// There is nothing to probe, or another node does it.
    Later,
}

/// All values that are probed without a report.
pub struct ProbeQueue {
    members: BTreeMap<CredentialId, QueueEntry>,
    /// Those that wait, by due time; and of them, those in use.
    waiting: BTreeSet<(BootMs, CredentialId)>,
    waiting_in_use: BTreeSet<(BootMs, CredentialId)>,
    /// Those that were put off, by the time they wait again. They keep their place in the queue.
    put_off: BTreeSet<(BootMs, CredentialId)>,
    picks: u64,
    looked_ms: Option<BootMs>,
    /// The earliest time of the next probe.
    free_ms: BootMs,
}

struct QueueEntry {
    due_ms: BootMs,
    used_ms: Option<BootMs>,
    is_used: bool,
    put_off_until_ms: Option<BootMs>,
    /// How often in a row the platform refused to answer the probe call for it.
    withheld: u32,
}

impl ProbeQueue {
    /// For these credentials, in the order of their ids. The first probes are spread over time.
    pub fn new(ids: impl IntoIterator<Item = CredentialId>, now_ms: BootMs) -> ProbeQueue {
        let ids: Vec<CredentialId> = ids.into_iter().collect();
        let all = ids.len() as u64;
        let mut queue = ProbeQueue {
            members: BTreeMap::new(),
            waiting: BTreeSet::new(),
            waiting_in_use: BTreeSet::new(),
            put_off: BTreeSet::new(),
            picks: 0,
            looked_ms: None,
            free_ms: now_ms,
        };
        (1..).zip(ids).for_each(|(n, id)| queue.add(id, now_ms + EVERY_MS * n / all));
        queue
    }

    fn add(&mut self, id: CredentialId, due_ms: BootMs) {
        let entry = QueueEntry { due_ms, used_ms: None, is_used: false, put_off_until_ms: None, withheld: 0 };
        self.members.insert(id, entry);
        self.waiting.insert((due_ms, id));
    }

    /// Adds one that was not there at the start. Its first probe is as far away as its second will be.
    pub fn insert(&mut self, id: CredentialId, now_ms: BootMs) {
        if !self.members.contains_key(&id) {
            self.add(id, now_ms + EVERY_MS);
        }
    }

    /// Removes one. The answer of a probe that still runs does not bring it back.
    pub fn remove(&mut self, id: CredentialId) {
        let Some(member) = self.members.remove(&id) else { return };
        self.waiting.remove(&(member.due_ms, id));
        self.waiting_in_use.remove(&(member.due_ms, id));
        if let Some(until_ms) = member.put_off_until_ms {
            self.put_off.remove(&(until_ms, id));
        }
    }

    /// How long it takes to probe all, if none is in use or all are.
    pub fn round_ms(&self) -> u64 {
        EVERY_MS.max(self.members.len() as u64 * GAP_MS)
    }

    /// When the next probe may be due; none if the queue is empty.
    pub fn next_ms(&self) -> Option<BootMs> {
        let first = |queue: &BTreeSet<(BootMs, CredentialId)>| queue.first().map(|(at_ms, _)| *at_ms);
        let earliest_ms = [first(&self.waiting), first(&self.put_off)].into_iter().flatten().min();
        earliest_ms.map(|at_ms| at_ms.max(self.free_ms))
    }

    /// Records which values were read since the last time, now and then.
    pub fn record_reads(&mut self, now_ms: BootMs, was_read: impl Fn(CredentialId) -> bool) {
        if self.looked_ms.is_some_and(|looked_ms| now_ms < looked_ms + LOOK_MS) {
            return;
        }
        self.looked_ms = Some(now_ms);
        for (&id, member) in &mut self.members {
            if was_read(id) {
                member.used_ms = Some(now_ms);
            }
            let is_used = member.used_ms.is_some_and(|used_ms| now_ms < used_ms + IN_USE_MS);
            if is_used != member.is_used {
                member.is_used = is_used;
                match is_used && member.put_off_until_ms.is_none() {
                    true => self.waiting_in_use.insert((member.due_ms, id)),
                    false => self.waiting_in_use.remove(&(member.due_ms, id)),
                };
            }
        }
    }

    /// Takes the next one that can be probed now.
    pub fn pick(&mut self, now_ms: BootMs, readiness: impl Fn(CredentialId) -> ProbeReadiness) -> Option<CredentialId> {
        if now_ms < self.free_ms {
            return None;
        }
        self.take_back(now_ms);
        for _ in 0..PUT_OFF_MAX {
            let id = self.longest_waiting(now_ms)?;
            match readiness(id) {
                ProbeReadiness::Now => {
                    self.queue(id, now_ms + EVERY_MS);
                    self.picks += 1;
                    self.free_ms = now_ms + GAP_MS;
                    return Some(id);
                }
                ProbeReadiness::Soon => self.put_off(id, now_ms + GAP_MS),
                ProbeReadiness::Later => self.put_off(id, now_ms + EVERY_MS),
            }
        }
        self.free_ms = now_ms + GAP_MS;
        None
    }

    /// Records that the platform has answered a probe of it, or has refused to answer.
    pub fn record_answer(&mut self, id: CredentialId, withheld: bool) {
        let Some(member) = self.members.get_mut(&id) else { return };
        member.withheld = if withheld { member.withheld.saturating_add(1) } else { 0 };
        if withheld {
            let more_ms = (EVERY_MS << member.withheld.min(16)).min(WITHHELD_MS_MAX) - EVERY_MS;
            let due_ms = member.due_ms + more_ms;
            self.queue(id, due_ms);
        }
    }

    fn longest_waiting(&self, now_ms: BootMs) -> Option<CredentialId> {
        let due =
            |queue: &BTreeSet<(BootMs, CredentialId)>| queue.first().copied().filter(|(due_ms, _)| *due_ms <= now_ms);
        let one = match self.picks % SHARE == SHARE - 1 {
            true => due(&self.waiting),
            false => due(&self.waiting_in_use).or(due(&self.waiting)),
        };
        one.map(|(_, id)| id)
    }

    /// Sets its due time.
    fn queue(&mut self, id: CredentialId, due_ms: BootMs) {
        let Some(member) = self.members.get_mut(&id) else { return };
        self.waiting.remove(&(member.due_ms, id));
        self.waiting_in_use.remove(&(member.due_ms, id));
        member.due_ms = due_ms;
        if member.put_off_until_ms.is_none() {
            self.waiting.insert((due_ms, id));
            if member.is_used {
                self.waiting_in_use.insert((due_ms, id));
            }
        }
    }

    fn put_off(&mut self, id: CredentialId, until_ms: BootMs) {
        let Some(member) = self.members.get_mut(&id) else { return };
        member.put_off_until_ms = Some(until_ms);
        self.waiting.remove(&(member.due_ms, id));
        self.waiting_in_use.remove(&(member.due_ms, id));
        self.put_off.insert((until_ms, id));
    }

    /// Puts those whose time has come back into the queue.
    fn take_back(&mut self, now_ms: BootMs) {
        while let Some((_, id)) = self.put_off.first().copied().filter(|(until_ms, _)| *until_ms <= now_ms) {
            self.put_off.pop_first();
            if let Some(member) = self.members.get_mut(&id) {
                member.put_off_until_ms = None;
                let due_ms = member.due_ms;
                self.queue(id, due_ms);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Runs for `long_ms`; returns the longest time between two probes of each.
    fn longest_waits(all: usize, used: usize, long_ms: u64) -> Vec<u64> {
        let mut probe_queue = ProbeQueue::new(0..all, 1_000);
        let (mut last_ms, mut longest_ms) = (vec![1_000; all], vec![0; all]);
        while let Some(now_ms) = probe_queue.next_ms().filter(|at_ms| *at_ms < long_ms) {
            probe_queue.record_reads(now_ms, |id| id < used);
            if let Some(id) = probe_queue.pick(now_ms, |_| ProbeReadiness::Now) {
                longest_ms[id] = longest_ms[id].max(now_ms - last_ms[id]);
                last_ms[id] = now_ms;
            }
        }
        longest_ms.iter().zip(last_ms).map(|(longest_ms, last_ms)| (long_ms - last_ms).max(*longest_ms)).collect()
    }

    const HOUR: u64 = 3_600_000;

    #[test]
    fn up_to_600_apps_are_tried_every_five_minutes_in_use_or_not() {
        for (all, used) in [(1, 0), (1, 1), (60, 7), (599, 0), (600, 600), (600, 300)] {
            let waits = longest_waits(all, used, 3 * HOUR);
            assert!(waits.iter().all(|wait_ms| *wait_ms <= EVERY_MS), "{all} apps, {used} in use: {waits:?}");
        }
    }

    #[test]
    fn of_ten_thousand_each_is_tried_within_the_round_and_those_in_use_far_more_often() {
        let most = |waits: &[u64]| waits.iter().copied().max().unwrap_or(0);
        assert_eq!(most(&longest_waits(10_000, 10_000, 5 * HOUR)), 5_000_000, "84 minutes");
        assert_eq!(most(&longest_waits(10_000, 0, 5 * HOUR)), 5_000_000);
        let waits = longest_waits(10_000, 1_000, 8 * HOUR);
        assert!(most(&waits[..1_000]) <= 700_000, "{}", most(&waits[..1_000]));
        assert!(most(&waits[1_000..]) <= 4 * 5_000_000);
        // However many are in use, none of those waits longer than a round.
        assert!(most(&longest_waits(10_000, 9_000, 5 * HOUR)[..9_000]) <= 5_000_000);
    }

    #[test]
    fn two_a_second_whatever_is_overdue() {
        let mut probe_queue = ProbeQueue::new(0..5_000, 0);
        // After a suspend of a day all are due.
        let start_ms = 24 * HOUR;
        let tried = (start_ms..start_ms + 60_000)
            .step_by(100)
            .filter(|now_ms| probe_queue.pick(*now_ms, |_| ProbeReadiness::Now).is_some());
        assert_eq!(tried.count(), 120);
    }

    #[test]
    fn what_is_put_off_keeps_its_place() {
        let mut probe_queue = ProbeQueue::new(0..3, 0);
        let all_due_ms = 3 * EVERY_MS;
        let busy = |id| if id == 0 { ProbeReadiness::Soon } else { ProbeReadiness::Now };
        assert_eq!(probe_queue.pick(all_due_ms, busy), Some(1));
        assert_eq!(probe_queue.pick(all_due_ms + GAP_MS, |_| ProbeReadiness::Now), Some(0));
        assert_eq!(probe_queue.pick(all_due_ms + 2 * GAP_MS, |_| ProbeReadiness::Now), Some(2));
        assert_eq!(probe_queue.pick(all_due_ms + 3 * GAP_MS, |_| ProbeReadiness::Now), None);
    }

    #[test]
    fn those_that_cannot_be_tried_hold_up_nobody() {
        let mut probe_queue = ProbeQueue::new(0..1_000, 0);
        let dead = |id| if id < 900 { ProbeReadiness::Later } else { ProbeReadiness::Now };
        let (mut tried, mut now_ms) = (0, 24 * HOUR);
        let end_ms = now_ms + 2 * EVERY_MS;
        while now_ms < end_ms {
            tried += u32::from(probe_queue.pick(now_ms, dead).is_some());
            now_ms = probe_queue.next_ms().unwrap().max(now_ms + 1);
        }
        assert!(tried >= 200, "{tried} of 100 apps in two rounds");
    }

    #[test]
    fn an_app_for_which_the_call_is_not_answered_is_tried_hourly_in_the_end() {
        let mut probe_queue = ProbeQueue::new(0..1, 0);
        let mut at = Vec::new();
        for _ in 0..8 {
            let now_ms = probe_queue.next_ms().unwrap();
            at.push(now_ms);
            assert_eq!(probe_queue.pick(now_ms, |_| ProbeReadiness::Now), Some(0));
            probe_queue.record_answer(0, true);
        }
        let pauses: Vec<u64> = at.windows(2).map(|pair| (pair[1] - pair[0]) / 60_000).collect();
        assert_eq!(pauses, [10, 20, 40, 60, 60, 60, 60]);
        probe_queue.record_answer(0, false);
        let now_ms = probe_queue.next_ms().unwrap();
        probe_queue.pick(now_ms, |_| ProbeReadiness::Now);
        assert_eq!(probe_queue.next_ms().unwrap() - now_ms, EVERY_MS);
    }

    #[test]
    fn those_that_come_later_wait_their_turn_and_those_that_go_are_not_tried() {
        let mut probe_queue = ProbeQueue::new([0, 2], 0);
        probe_queue.insert(1, 0);
        probe_queue.insert(5, 0);
        probe_queue.remove(2);
        probe_queue.remove(7);
        let mut tried = |from_ms: u64| {
            let due_ms = (from_ms..from_ms + EVERY_MS).step_by(500);
            let mut tried: Vec<_> =
                due_ms.filter_map(|at_ms| probe_queue.pick(at_ms, |_| ProbeReadiness::Now)).collect();
            tried.sort_unstable();
            tried
        };
        assert_eq!(tried(2 * EVERY_MS), [0, 1, 5]);
        assert_eq!(tried(3 * EVERY_MS + 2_000), [0, 1, 5]);
        probe_queue.insert(2, 4 * EVERY_MS);
        probe_queue.insert(5, 4 * EVERY_MS);
        let next_ms = probe_queue.next_ms().unwrap();
        assert!(next_ms <= 5 * EVERY_MS);
        assert!((0..20).any(|n| probe_queue.pick(5 * EVERY_MS + n * GAP_MS, |_| ProbeReadiness::Now) == Some(2)));
    }
    #[test]
    fn one_that_was_removed_does_not_come_back_because_it_is_read_or_its_probe_is_answered() {
        let mut probe_queue = ProbeQueue::new(0..2, 0);
        assert_eq!(probe_queue.pick(2 * EVERY_MS, |_| ProbeReadiness::Now), Some(0));
        assert_eq!(probe_queue.pick(2 * EVERY_MS + GAP_MS, |_| ProbeReadiness::Soon), None);
        probe_queue.remove(0);
        probe_queue.remove(1);
        probe_queue.record_reads(2 * EVERY_MS, |_| true);
        probe_queue.record_answer(0, true);
        assert_eq!(probe_queue.next_ms(), None);
        assert_eq!(probe_queue.pick(24 * HOUR, |_| ProbeReadiness::Now), None);
    }
}
