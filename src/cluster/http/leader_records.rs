//! What a leader lists, as records: decides which answer counts.
//!
//! Pure: answers and clock readings go in, records come out. The leader's last answer counts, even if its generation is
//! lower or its end earlier than ours. So a wrong answer lasts only until the next one, and a leader whose state was
//! restored from a backup is followed as before. While our own value lives, three kinds of answers do not count:
//!
//! - An answer that the same process made before the one we have: two questions were under way at once.
//! - An answer of another process that answers beside ours (a load balancer), unless its value ends later. Nothing else
//!   tells which of the two is behind, and readers must not be switched to and fro.
//! - An answer of a process that was cut off before we got our value.
//!
//! An entry without a value changes nothing, unless it says that exactly our value was refused.

use std::collections::HashMap;
use std::sync::Arc;

use super::page::{LeaderEntry, LeaderPage};
use crate::clock::BootMs;
use crate::cluster::seal::{PublishedValue, Seal};
use crate::cluster::{Record, StoreClockReading, WatchedRecord};
use crate::secret::Secret;

/// Ends of the same value that differ by less count as equal: each answer takes a different time.
const SAME_END_MS: u64 = 1_000;
/// A process that has not answered for so long is gone.
const PROCESS_GONE_MS: u64 = 120_000;
const PROCESSES_MAX: usize = 8;

/// A record for the watcher: its index, the record, and the clock reading that its times refer to.
pub type RecordUpdate = (usize, Record, StoreClockReading);

pub struct LeaderRecords {
    watched: Arc<[WatchedRecord]>,
    by_tag: HashMap<Arc<str>, usize>,
    by_name: HashMap<String, HashMap<&'static str, usize>>,
    records: Vec<FollowedRecord>,
    processes: Processes,
}

struct FollowedRecord {
    seal: Seal,
    held: Option<FollowedValue>,
    /// The record that was sent last, and its clock reading.
    record: Record,
    clock_reading: Option<StoreClockReading>,
    /// It was in the present listing.
    is_listed: bool,
}

/// A value as it was listed last.
struct FollowedValue {
    value: PublishedValue,
    end_ms: BootMs,
    /// Its generation at the leader. Ours may come from another process that has the same value.
    leader_generation: u64,
    listing: Listing,
}

/// By which process and when a value was listed.
#[derive(Clone)]
struct Listing {
    run: String,
    /// On that process's clock.
    listed_ms: u64,
    received_ms: BootMs,
    /// When that process was last in touch with the nodes that renew.
    as_of_ms: BootMs,
}

/// An answer of the leader, and what else decides whether it counts.
struct Answer<'a> {
    page: &'a LeaderPage,
    leader_url: &'a str,
    clock_reading: StoreClockReading,
    processes: &'a Processes,
    /// It was asked for after a report of our value: so it counts.
    is_after_report: bool,
}

/// The processes that have answered. Tells a restart from several processes behind one address.
#[derive(Default)]
struct Processes {
    answers: u64,
    /// The one that answered last is the last.
    all: Vec<Process>,
}

struct Process {
    run: String,
    /// The number of its first answer, among those of all processes.
    first: u64,
    last: u64,
    last_ms: BootMs,
}

impl Processes {
    fn record_answer(&mut self, run: &str, now_ms: BootMs) {
        self.answers += 1;
        let known = self.all.iter().position(|process| process.run == run);
        let first = known.map_or(self.answers, |at| self.all.remove(at).first);
        if self.all.len() >= PROCESSES_MAX {
            self.all.remove(0);
        }
        self.all.push(Process { run: run.to_owned(), first, last: self.answers, last_ms: now_ms });
    }

    /// True if `ours` has answered since `other` first did, and not long ago: so `other` has not replaced it.
    fn are_both_alive(&self, ours: &str, other: &str, now_ms: BootMs) -> bool {
        let find = |run: &str| self.all.iter().find(|process| process.run == run);
        let Some((ours, other)) = find(ours).zip(find(other)) else { return false };
        ours.last > other.first && now_ms.saturating_sub(ours.last_ms) < PROCESS_GONE_MS
    }
}

impl LeaderRecords {
    pub fn new(watched: Arc<[WatchedRecord]>, secret: &Secret) -> LeaderRecords {
        let mut by_name: HashMap<String, HashMap<&'static str, usize>> = HashMap::new();
        for (index, one) in watched.iter().enumerate() {
            by_name.entry(one.app.clone()).or_default().insert(one.kind, index);
        }
        let record = |one: &WatchedRecord| FollowedRecord {
            seal: Seal::new(secret, &one.tag),
            held: None,
            record: Record::default(),
            clock_reading: None,
            is_listed: false,
        };
        LeaderRecords {
            by_tag: watched.iter().enumerate().map(|(index, one)| (one.tag.clone(), index)).collect(),
            by_name,
            records: watched.iter().map(record).collect(),
            watched,
            processes: Processes::default(),
        }
    }

    pub fn index(&self, tag: &str) -> Option<usize> {
        self.by_tag.get(tag).copied()
    }

    pub fn watched(&self, index: usize) -> &WatchedRecord {
        &self.watched[index]
    }

    pub fn last(&self, index: usize) -> Option<(Record, StoreClockReading)> {
        let last = &self.records[index];
        last.clock_reading.map(|clock_reading| (last.record.clone(), clock_reading))
    }

    /// The present value and its generation, while it lives.
    pub fn live(&self, index: usize, now_ms: BootMs) -> Option<(u64, Secret)> {
        let held = self.records[index].held.as_ref().filter(|held| held.is_live(now_ms))?;
        Some((held.value.generation, Secret::new(held.value.value.clone())))
    }

    pub fn begin_listing(&mut self) {
        self.records.iter_mut().for_each(|record| record.is_listed = false);
    }

    /// The records that the listing does not have, as they are known here, so that nobody waits for them.
    pub fn unlisted(&mut self, clock_reading: StoreClockReading) -> Vec<RecordUpdate> {
        let missing = self.records.iter_mut().enumerate().filter(|(_, record)| !record.is_listed);
        missing.map(|(index, record)| (index, record.record.clone(), record.clock_reading_or(clock_reading))).collect()
    }

    /// Takes over an answer and returns the records that have changed; all that are in it if `with_unchanged`. `reported` is
    /// a credential whose value here was reported, which is why this was asked.
    pub fn take(
        &mut self,
        page: &LeaderPage,
        leader_url: &str,
        clock_reading: StoreClockReading,
        with_unchanged: bool,
        reported: Option<usize>,
    ) -> Vec<RecordUpdate> {
        self.processes.record_answer(&page.run, clock_reading.received_ms);
        let mut updates = Vec::with_capacity(page.credentials.len());
        for entry in &page.credentials {
            let index = self.by_name.get(&entry.app).and_then(|kinds| kinds.get(entry.kind.as_str()));
            let Some(&index) = index else { continue };
            let (processes, is_after_report) = (&self.processes, reported == Some(index));
            let answer = Answer { page, leader_url, clock_reading, processes, is_after_report };
            let record = &mut self.records[index];
            record.is_listed = true;
            let has_changed = record.take(entry, &answer);
            if has_changed || with_unchanged {
                updates.push((index, record.record.clone(), record.clock_reading_or(clock_reading)));
            }
        }
        updates
    }
}

impl FollowedValue {
    fn is_live(&self, now_ms: BootMs) -> bool {
        now_ms < self.end_ms && !self.value.withdrawn
    }
}

impl Answer<'_> {
    fn listing(&self) -> Listing {
        Listing {
            run: self.page.run.clone(),
            listed_ms: self.page.now_ms,
            received_ms: self.clock_reading.received_ms,
            as_of_ms: self.clock_reading.sent_ms.saturating_sub(self.page.age_ms),
        }
    }

    /// True if the same process made this answer before the one that `held` is from. If the question was sent after that
    /// one had come, it was made later, whatever it says. Of two that were under way at once the process's clock decides.
    fn is_earlier(&self, held: &FollowedValue) -> bool {
        held.listing.run == self.page.run
            && self.clock_reading.sent_ms < held.listing.received_ms
            && self.page.now_ms < held.listing.listed_ms
    }

    fn replaces(&self, held: &FollowedValue, end_ms: BootMs) -> bool {
        let now_ms = self.clock_reading.received_ms;
        if self.is_earlier(held) {
            return false;
        }
        if held.listing.run == self.page.run || self.is_after_report || !held.is_live(now_ms) {
            return true;
        }
        let is_cut_off = now_ms.saturating_sub(self.page.age_ms) < held.listing.as_of_ms;
        let is_beside = self.processes.are_both_alive(&held.listing.run, &self.page.run, now_ms);
        !(is_cut_off || is_beside) || end_ms > held.end_ms.saturating_add(SAME_END_MS)
    }
}

impl FollowedRecord {
    /// The clock reading that the record's times refer to. A record without a value takes any.
    fn clock_reading_or(&mut self, clock_reading: StoreClockReading) -> StoreClockReading {
        *self.clock_reading.get_or_insert(clock_reading)
    }

    fn take(&mut self, entry: &LeaderEntry, answer: &Answer<'_>) -> bool {
        let Some(token) = entry.live() else { return entry.withdrawn && self.withdraw(entry, answer) };
        let clock_reading = answer.clock_reading;
        let expires_ms = clock_reading.store_ms.saturating_add(entry.expires_in_ms);
        let end_ms = clock_reading.to_boot_ms(expires_ms);
        let mut generation = entry.generation;
        if let Some(held) = &mut self.held {
            let same = held.value.value == token && held.is_live(clock_reading.received_ms);
            if !answer.replaces(held, end_ms) {
                return false;
            }
            // Processes that count for themselves must not make the generation of one value go to and fro.
            if same && held.listing.run != answer.page.run {
                generation = generation.max(held.value.generation);
            } else if same && held.leader_generation == generation {
                generation = held.value.generation;
            }
            let same_lead = held.value.reliable_lead_ms == entry.reliable_lead_ms;
            if same && generation == held.value.generation && end_ms.abs_diff(held.end_ms) <= SAME_END_MS && same_lead {
                (held.leader_generation, held.listing) = (entry.generation, answer.listing());
                return false;
            }
        }
        let life_ms = entry.lifetime_ms.filter(|life_ms| *life_ms > 0).unwrap_or(entry.expires_in_ms);
        let fetched_ms = entry.fetched_at_ms.and_then(|at| u64::try_from(at).ok());
        let value = PublishedValue {
            value: token.to_owned(),
            generation,
            expires_ms,
            // The leader's clock may have been set since.
            fetched_ms: fetched_ms.unwrap_or(0).min(clock_reading.store_ms),
            life_ms,
            longest_ms: life_ms,
            learned_ms: None,
            reliable_lead_ms: entry.reliable_lead_ms,
            refresh: None,
            withdrawn: false,
            by: answer.leader_url.to_owned(),
            node: 0,
        };
        let (leader_generation, listing) = (entry.generation, answer.listing());
        self.set_value(FollowedValue { value, end_ms, leader_generation, listing }, clock_reading)
    }

    /// The platform refuses the leader's value. Ours is withdrawn if it is the same one.
    fn withdraw(&mut self, entry: &LeaderEntry, answer: &Answer<'_>) -> bool {
        let (Some(held), Some(clock_reading)) = (&self.held, self.clock_reading) else { return false };
        let same = held.listing.run == answer.page.run && held.leader_generation == entry.generation;
        if !same || held.value.withdrawn || answer.is_earlier(held) {
            return false;
        }
        let listing = answer.listing();
        let Some(held) = self.held.take() else { return false };
        let value = PublishedValue { withdrawn: true, ..held.value };
        self.set_value(FollowedValue { value, listing, ..held }, clock_reading)
    }

    fn set_value(&mut self, held: FollowedValue, clock_reading: StoreClockReading) -> bool {
        // Without random numbers nothing can be sealed, and nothing is sent.
        let Some(sealed) = self.seal.seal(&held.value) else { return false };
        self.record = Record {
            generation: held.value.generation,
            value: Some(sealed),
            answered_ms: held.value.fetched_ms,
            ..Record::default()
        };
        (self.held, self.clock_reading) = (Some(held), Some(clock_reading));
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const CLOCK_READING: StoreClockReading =
        StoreClockReading { store_ms: 1_000_000, sent_ms: 5_000, received_ms: 5_010 };

    struct Fixture {
        records: LeaderRecords,
        seal: Seal,
        /// Seconds since the first answer.
        at_s: u64,
        /// How long the node that answers has been cut off.
        age_s: u64,
        /// A client has reported our value.
        reported: bool,
        /// The question was sent so much before that.
        early_s: u64,
        /// The answer was made so much before that.
        made_s: u64,
    }

    impl Fixture {
        fn new() -> Fixture {
            let secret = Secret::new("a secret of the tests".into());
            let one = WatchedRecord { tag: "t".into(), app: "wx1".into(), kind: "access_token", renews: false };
            let records = LeaderRecords::new([one].into(), &secret);
            Fixture {
                records,
                seal: Seal::new(&secret, "t"),
                at_s: 0,
                age_s: 0,
                reported: false,
                early_s: 0,
                made_s: 0,
            }
        }

        fn page(&self, run: &str, generation: u64, token: Option<&str>, left_s: u64, now_ms: u64) -> LeaderPage {
            let entry = LeaderEntry {
                app: "wx1".into(),
                kind: "access_token".into(),
                generation,
                token: token.map(str::to_owned),
                expires_in_ms: left_s * 1000,
                reliable_lead_ms: None,
                lifetime_ms: Some(7_200_000),
                fetched_at_ms: Some(900_000),
                withdrawn: token.is_none(),
            };
            let (run, cursor) = (run.into(), "c".into());
            let (from_start, more, age_ms) = (false, false, self.age_s * 1000);
            LeaderPage { now_ms, waited_ms: 0, age_ms, run, from_start, cursor, more, credentials: vec![entry] }
        }

        /// What is sent, if anything: generation, token, whether it is withdrawn.
        fn receive(
            &mut self,
            run: &str,
            generation: u64,
            token: Option<&str>,
            left_s: u64,
        ) -> Option<(u64, String, bool)> {
            let later_ms = self.at_s * 1000;
            let clock_reading = StoreClockReading {
                store_ms: CLOCK_READING.store_ms + later_ms - self.made_s * 1000,
                sent_ms: CLOCK_READING.sent_ms + later_ms - self.early_s * 1000,
                received_ms: CLOCK_READING.received_ms + later_ms,
            };
            let page = self.page(run, generation, token, left_s, clock_reading.store_ms);
            let reported = self.reported.then_some(0);
            self.at_s += 1;
            let (_, record, _) = self.records.take(&page, "other", clock_reading, false, reported).pop()?;
            let value = self.seal.unseal(&record.value?).unwrap();
            assert_eq!(record.generation, value.generation);
            Some((value.generation, value.value, value.withdrawn))
        }

        fn end_ms(&self) -> BootMs {
            self.records.records[0].held.as_ref().unwrap().end_ms
        }
    }

    fn sent(generation: u64, token: &str) -> Option<(u64, String, bool)> {
        Some((generation, token.into(), false))
    }

    #[test]
    fn a_leader_that_lied_once_is_believed_again_at_its_next_answer() {
        for run in ["a", "after a restart"] {
            let mut follower = Fixture::new();
            assert_eq!(follower.receive("a", 1 << 49, Some("LIE"), 31 * 86_400), sent(1 << 49, "LIE"));
            assert_eq!(follower.receive(run, 7, Some("T"), 60), sent(7, "T"), "lower, and ends earlier");
            assert!(follower.end_ms() < CLOCK_READING.received_ms + 70_000);
        }
    }

    #[test]
    fn a_wrong_end_or_generation_of_the_right_value_is_mended_too() {
        let mut follower = Fixture::new();
        follower.receive("a", 900, Some("T"), 31 * 86_400);
        assert_eq!(follower.receive("a", 900, Some("T"), 60), sent(900, "T"));
        assert!(follower.end_ms() < CLOCK_READING.received_ms + 70_000);
        assert_eq!(follower.receive("a", 7, Some("T"), 59), sent(7, "T"));
        assert_eq!(follower.receive("a", 7, Some("T"), 58), None, "nothing has changed");
        assert_eq!(follower.receive("a", 7, Some("T"), 600), sent(7, "T"), "a polled value lives on");
    }

    #[test]
    fn a_leader_whose_state_was_restored_is_followed() {
        let mut follower = Fixture::new();
        follower.receive("a", 40, Some("T40"), 7_200);
        assert_eq!(follower.receive("b", 39, Some("T39"), 5_000), sent(39, "T39"));
        assert_eq!(follower.receive("b", 40, Some("U40"), 7_200), sent(40, "U40"), "another value of the same number");
    }

    #[test]
    fn an_answer_that_was_overtaken_is_not_told() {
        let mut follower = Fixture::new();
        follower.receive("a", 7, Some("T7"), 100);
        assert_eq!(follower.receive("a", 8, Some("T8"), 7_200), sent(8, "T8"));
        // Asked before the last answer came, and made before that.
        (follower.early_s, follower.made_s) = (5, 4);
        assert_eq!(follower.receive("a", 7, Some("T7"), 100), None);
        assert_eq!(follower.receive("a", 8, None, 0), None, "nor is a withdrawal that is over");
        (follower.early_s, follower.made_s) = (5, 0);
        assert_eq!(follower.receive("a", 9, Some("T9"), 7_200), sent(9, "T9"), "asked before, and made after it");
        // A clock that was set back does not make a later answer an earlier one.
        (follower.early_s, follower.made_s) = (0, 900);
        assert_eq!(follower.receive("a", 10, Some("T10"), 7_200), sent(10, "T10"));
    }

    #[test]
    fn two_processes_behind_one_address_send_nobody_to_and_fro() {
        let mut follower = Fixture::new();
        follower.receive("a", 7, Some("T7"), 100);
        assert_eq!(follower.receive("b", 7, Some("T7"), 100), None);
        assert_eq!(follower.receive("a", 8, Some("T8"), 7_200), sent(8, "T8"));
        for _ in 0..5 {
            assert_eq!(follower.receive("b", 7, Some("T7"), 90), None, "one that lags behind");
            assert_eq!(follower.receive("a", 8, Some("T8"), 7_202 - follower.at_s), None);
        }
        assert_eq!(follower.receive("b", 9, Some("T9"), 7_300), sent(9, "T9"), "whoever has the later one is heard");
        assert_eq!(follower.receive("a", 1, Some("T1"), 500), None);
        follower.at_s += PROCESS_GONE_MS / 1000;
        assert_eq!(follower.receive("a", 1, Some("T1"), 500), sent(1, "T1"), "the other one has gone");
    }

    #[test]
    fn processes_that_count_for_themselves_keep_the_number_of_a_value_still() {
        let mut follower = Fixture::new();
        follower.receive("a", 900, Some("T"), 5_000);
        for left_s in [5_000, 4_998] {
            assert_eq!(follower.receive("b", 5, Some("T"), left_s), None);
            assert_eq!(follower.receive("a", 900, Some("T"), left_s - 1), None);
        }
        assert_eq!(follower.receive("b", 6, Some("U"), 7_200), sent(6, "U"));
        assert_eq!(follower.receive("a", 901, Some("U"), 7_199), None);
        assert_eq!(follower.receive("b", 6, Some("U"), 7_198), None);
    }

    #[test]
    fn one_that_is_cut_off_replaces_nothing_that_was_heard_since() {
        let mut follower = Fixture::new();
        follower.at_s = 1_000;
        follower.receive("a", 8, Some("T8"), 600);
        follower.age_s = 900;
        assert_eq!(follower.receive("b", 7, Some("T7"), 500), None);
        assert_eq!(follower.receive("b", 9, Some("T9"), 900), sent(9, "T9"), "it has renewed by itself");
        assert_eq!(follower.receive("b", 7, Some("T7"), 500), sent(7, "T7"), "its own word it takes back at once");
        follower.age_s = 0;
        assert_eq!(follower.receive("c", 6, Some("T6"), 400), sent(6, "T6"));
    }

    #[test]
    fn what_is_there_after_a_report_counts_whoever_else_is_there() {
        let mut follower = Fixture::new();
        follower.receive("a", 8, Some("T8"), 7_200);
        follower.receive("b", 7, Some("T7"), 100);
        follower.receive("a", 8, Some("T8"), 7_200);
        assert_eq!(follower.receive("b", 7, Some("T7"), 100), None);
        follower.reported = true;
        assert_eq!(follower.receive("b", 7, Some("T7"), 100), sent(7, "T7"));
    }

    #[test]
    fn a_value_without_a_life_is_no_news_unless_it_was_withdrawn() {
        let mut follower = Fixture::new();
        assert_eq!(follower.receive("a", 0, None, 0), None);
        follower.receive("a", 3, Some("T"), 5_000);
        assert_eq!(follower.receive("a", 2, None, 0), None, "another one was");
        assert_eq!(follower.receive("b", 3, None, 0), None, "another node's count");
        assert_eq!(follower.receive("a", 3, None, 0), Some((3, "T".into(), true)));
        assert_eq!(follower.receive("a", 3, None, 0), None);
        assert_eq!(follower.receive("a", 3, Some("T"), 4_000), sent(3, "T"), "it was a false alarm");
    }

    #[test]
    fn a_value_is_known_while_it_lives() {
        let mut follower = Fixture::new();
        let live = |follower: &Fixture, now_ms| follower.records.live(0, now_ms).map(|(generation, _)| generation);
        assert_eq!(live(&follower, 0), None);
        follower.receive("a", 3, Some("T"), 5);
        assert_eq!(
            (live(&follower, 9_998), live(&follower, 9_999)),
            (Some(3), None),
            "from when the question was sent"
        );
        assert_eq!(follower.records.last(0).unwrap().1, CLOCK_READING);
        follower.receive("a", 3, None, 0);
        assert_eq!(live(&follower, 0), None);
    }

    #[test]
    fn many_processes_are_not_all_remembered() {
        let mut processes = Processes::default();
        for n in 0..100 {
            processes.record_answer(&n.to_string(), n);
        }
        assert_eq!(processes.all.len(), PROCESSES_MAX);
        assert!(processes.all.iter().any(|process| process.run == "99"));
    }
}
