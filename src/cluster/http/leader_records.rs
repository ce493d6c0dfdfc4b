//! What the node that is followed lists, put into records: which answer counts.
//!
//! Pure: answers and moments in, records out. What that node lists counts, whatever was listed before: a value with
//! its generation and its end, be they lower or earlier than ours. So one wrong answer lasts until the next, and a
//! node whose state was restored is followed as before. Three answers do not count while ours lives:
//!
//! - One that was made before ours, by the same process: two questions were under way at once.
//! - One of another process at the same address that is there beside ours (a load balancer), unless its value ends
//!   later. Which of two processes is behind cannot be told otherwise, and readers must not be sent to and fro.
//! - One of a process that has itself been cut off since before we heard ours.
//!
//! An entry without a value changes nothing, unless it says that this very value is refused.

use std::collections::HashMap;
use std::sync::Arc;

use super::page::{LeaderEntry, LeaderPage};
use crate::clock::BootMs;
use crate::cluster::seal::{PublishedValue, Seal};
use crate::cluster::{Moment, Record, WatchedRecord};
use crate::secret::Secret;

/// Of the same value, ends that differ by less are one: each answer is read a little sooner or later.
const SAME_END_MS: u64 = 1_000;
/// A process that has not answered for so long is not there any more.
const GONE_MS: u64 = 120_000;
/// As many processes are told apart.
const PROCESSES_MAX: usize = 8;

/// A record to tell on: the index of its credential, the record, its moment.
pub type RecordUpdate = (usize, Record, Moment);

/// All of them.
pub struct LeaderRecords {
    watched: Arc<[WatchedRecord]>,
    by_tag: HashMap<Arc<str>, usize>,
    by_name: HashMap<String, HashMap<&'static str, usize>>,
    copies: Vec<FollowedRecord>,
    processes: Processes,
}

/// What is known of one.
struct FollowedRecord {
    seal: Seal,
    held: Option<FollowedValue>,
    /// The last that was told, and when.
    record: Record,
    moment: Option<Moment>,
    /// In the present listing.
    listed: bool,
}

/// A value, as it was listed last.
struct FollowedValue {
    value: PublishedValue,
    end_ms: BootMs,
    /// Its generation there; ours may be that of another process that has the same value.
    leader_generation: u64,
    seen: Listing,
}

/// Where and when something was listed.
#[derive(Clone)]
struct Listing {
    run: String,
    /// On the clock of whoever listed it.
    listed_ms: u64,
    received_ms: BootMs,
    /// Until when at least whoever listed it was in touch with those who renew.
    as_of_ms: BootMs,
}

/// An answer beside what is held.
struct AnswerContext<'a> {
    page: &'a LeaderPage,
    /// The URL it came from.
    by: &'a str,
    moment: Moment,
    processes: &'a Processes,
    /// This was asked for because a client says that our value is refused: what is there now counts.
    asked_for: bool,
}

/// The processes that have answered, to tell a restart from several behind one address.
#[derive(Default)]
struct Processes {
    answers: u64,
    all: Vec<Process>,
}

struct Process {
    run: String,
    /// By the number of answers.
    first: u64,
    last: u64,
    last_ms: BootMs,
}

impl Processes {
    fn hear(&mut self, run: &str, now_ms: BootMs) {
        self.answers += 1;
        let answers = self.answers;
        if let Some(known) = self.all.iter_mut().find(|process| process.run == run) {
            (known.last, known.last_ms) = (answers, now_ms);
            return;
        }
        if self.all.len() >= PROCESSES_MAX
            && let Some(oldest) = (0..self.all.len()).min_by_key(|at| self.all[*at].last)
        {
            self.all.swap_remove(oldest);
        }
        self.all.push(Process { run: run.to_owned(), first: answers, last: answers, last_ms: now_ms });
    }

    /// True if `ours` has answered since `other` first did, and lately: it was not replaced by it.
    fn are_both_there(&self, ours: &str, other: &str, now_ms: BootMs) -> bool {
        let find = |run: &str| self.all.iter().find(|process| process.run == run);
        let Some((ours, other)) = find(ours).zip(find(other)) else { return false };
        ours.last > other.first && now_ms.saturating_sub(ours.last_ms) < GONE_MS
    }
}

impl LeaderRecords {
    pub fn new(watched: Arc<[WatchedRecord]>, secret: &Secret) -> LeaderRecords {
        let mut by_name: HashMap<String, HashMap<&'static str, usize>> = HashMap::new();
        for (index, one) in watched.iter().enumerate() {
            by_name.entry(one.app.clone()).or_default().insert(one.kind, index);
        }
        let copy = |one: &WatchedRecord| FollowedRecord {
            seal: Seal::new(secret, &one.tag),
            held: None,
            record: Record::default(),
            moment: None,
            listed: false,
        };
        LeaderRecords {
            by_tag: watched.iter().enumerate().map(|(index, one)| (one.tag.clone(), index)).collect(),
            by_name,
            copies: watched.iter().map(copy).collect(),
            watched,
            processes: Processes::default(),
        }
    }

    /// The index of a tag.
    pub fn index(&self, tag: &str) -> Option<usize> {
        self.by_tag.get(tag).copied()
    }

    pub fn watched(&self, index: usize) -> &WatchedRecord {
        &self.watched[index]
    }

    /// The last record that was told.
    pub fn last(&self, index: usize) -> Option<(Record, Moment)> {
        let copy = &self.copies[index];
        copy.moment.map(|moment| (copy.record.clone(), moment))
    }

    /// The value that was told last and its generation, while it lives.
    pub fn live(&self, index: usize, now_ms: BootMs) -> Option<(u64, Secret)> {
        let held = self.copies[index].held.as_ref().filter(|held| held.is_live(now_ms))?;
        Some((held.value.generation, Secret::new(held.value.value.clone())))
    }

    /// Everything is going to be told anew.
    pub fn begin_listing(&mut self) {
        self.copies.iter_mut().for_each(|copy| copy.listed = false);
    }

    /// Everything has been told: the credentials which were not among it.
    pub fn unlisted(&self) -> impl Iterator<Item = usize> {
        self.copies.iter().enumerate().filter(|(_, copy)| !copy.listed).map(|(index, _)| index)
    }

    /// What an answer has to say that is worth telling on. `by` names the node it came from; `whole`: also what has not
    /// changed. `asked_for` is a credential of which a client says that our value is refused.
    pub fn take(
        &mut self,
        page: &LeaderPage,
        by: &str,
        moment: Moment,
        whole: bool,
        asked_for: Option<usize>,
    ) -> Vec<RecordUpdate> {
        self.processes.hear(&page.run, moment.received_ms);
        let mut told = Vec::with_capacity(page.credentials.len());
        for entry in &page.credentials {
            let index = self.by_name.get(&entry.app).and_then(|kinds| kinds.get(entry.kind.as_str()));
            let Some(&index) = index else { continue };
            let (processes, asked_for) = (&self.processes, asked_for == Some(index));
            let copy = &mut self.copies[index];
            copy.listed = true;
            let changed = copy.take(entry, &AnswerContext { page, by, moment, processes, asked_for });
            if changed || whole {
                told.push((index, copy.record.clone(), copy.told(moment)));
            }
        }
        told
    }

    /// A record of which nothing has been heard, so that nobody waits for it.
    pub fn as_it_is(&mut self, index: usize, moment: Moment) -> RecordUpdate {
        let copy = &mut self.copies[index];
        (index, copy.record.clone(), copy.told(moment))
    }
}

impl FollowedValue {
    fn is_live(&self, now_ms: BootMs) -> bool {
        now_ms < self.end_ms && !self.value.withdrawn
    }
}

impl AnswerContext<'_> {
    fn seen(&self) -> Listing {
        Listing {
            run: self.page.run.clone(),
            listed_ms: self.page.now_ms,
            received_ms: self.moment.received_ms,
            as_of_ms: self.moment.sent_ms.saturating_sub(self.page.age_ms),
        }
    }

    /// True if the same process made this before what is held. An answer to a question sent after that had come was
    /// made later, whatever it says; of two that were under way at once the other's clock tells.
    fn is_earlier(&self, held: &FollowedValue) -> bool {
        held.seen.run == self.page.run
            && self.moment.sent_ms < held.seen.received_ms
            && self.page.now_ms < held.seen.listed_ms
    }

    /// True if a value that ends then replaces what is held.
    fn replaces(&self, held: &FollowedValue, end_ms: BootMs) -> bool {
        let now_ms = self.moment.received_ms;
        if self.is_earlier(held) {
            return false;
        }
        if held.seen.run == self.page.run || self.asked_for || !held.is_live(now_ms) {
            return true;
        }
        let cut_off = now_ms.saturating_sub(self.page.age_ms) < held.seen.as_of_ms;
        let beside = self.processes.are_both_there(&held.seen.run, &self.page.run, now_ms);
        !(cut_off || beside) || end_ms > held.end_ms.saturating_add(SAME_END_MS)
    }
}

impl FollowedRecord {
    /// The moment that fits the record; a record without a value fits any.
    fn told(&mut self, moment: Moment) -> Moment {
        *self.moment.get_or_insert(moment)
    }

    /// True if there is something new to tell.
    fn take(&mut self, entry: &LeaderEntry, heard: &AnswerContext<'_>) -> bool {
        let Some(token) = entry.live() else { return entry.withdrawn && self.withdraw(entry, heard) };
        let moment = heard.moment;
        let expires_ms = moment.store_ms.saturating_add(entry.expires_in_ms);
        let end_ms = moment.to_boot_ms(expires_ms);
        let mut generation = entry.generation;
        if let Some(held) = &mut self.held {
            let same = held.value.value == token && held.is_live(moment.received_ms);
            if !heard.replaces(held, end_ms) {
                return false;
            }
            // Where processes count for themselves the number of a value must not go to and fro.
            if same && held.seen.run != heard.page.run {
                generation = generation.max(held.value.generation);
            } else if same && held.leader_generation == generation {
                generation = held.value.generation;
            }
            let as_long = held.value.reliable_lead_ms == entry.reliable_lead_ms;
            if same && generation == held.value.generation && end_ms.abs_diff(held.end_ms) <= SAME_END_MS && as_long {
                (held.leader_generation, held.seen) = (entry.generation, heard.seen());
                return false;
            }
        }
        let life_ms = entry.lifetime_ms.filter(|life_ms| *life_ms > 0).unwrap_or(entry.expires_in_ms);
        let fetched_ms = entry.fetched_at_ms.and_then(|at| u64::try_from(at).ok());
        let value = PublishedValue {
            value: token.to_owned(),
            generation,
            expires_ms,
            // The other's clock may have been set since.
            fetched_ms: fetched_ms.unwrap_or(0).min(moment.store_ms),
            life_ms,
            longest_ms: life_ms,
            learned_ms: None,
            reliable_lead_ms: entry.reliable_lead_ms,
            refresh: None,
            withdrawn: false,
            by: heard.by.to_owned(),
            node: 0,
        };
        self.hold(FollowedValue { value, end_ms, leader_generation: entry.generation, seen: heard.seen() }, moment)
    }

    /// The other node's value is refused by WeChat; ours is if it is the same one.
    fn withdraw(&mut self, entry: &LeaderEntry, heard: &AnswerContext<'_>) -> bool {
        let (Some(held), Some(moment)) = (&self.held, self.moment) else { return false };
        let same = held.seen.run == heard.page.run && held.leader_generation == entry.generation;
        if !same || held.value.withdrawn || heard.is_earlier(held) {
            return false;
        }
        let seen = heard.seen();
        let withdrawn = self.held.take().map(|held| FollowedValue {
            value: PublishedValue { withdrawn: true, ..held.value },
            seen,
            ..held
        });
        withdrawn.is_some_and(|held| self.hold(held, moment))
    }

    fn hold(&mut self, held: FollowedValue, moment: Moment) -> bool {
        // Without random numbers there is no seal, and nothing to tell.
        let Some(sealed) = self.seal.close(&held.value) else { return false };
        self.record = Record {
            generation: held.value.generation,
            value: Some(sealed),
            asked_ms: held.value.fetched_ms,
            ..Record::default()
        };
        (self.held, self.moment) = (Some(held), Some(moment));
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MOMENT: Moment = Moment { store_ms: 1_000_000, sent_ms: 5_000, received_ms: 5_010 };

    struct Ear {
        known: LeaderRecords,
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

    impl Ear {
        fn new() -> Ear {
            let secret = Secret::new("a secret of the tests".into());
            let one = WatchedRecord { tag: "t".into(), app: "wx1".into(), kind: "access_token", renews: false };
            let known = LeaderRecords::new([one].into(), &secret);
            Ear { known, seal: Seal::new(&secret, "t"), at_s: 0, age_s: 0, reported: false, early_s: 0, made_s: 0 }
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

        /// What is told on, if something is: generation, token, whether it is withdrawn.
        fn hear(
            &mut self,
            run: &str,
            generation: u64,
            token: Option<&str>,
            left_s: u64,
        ) -> Option<(u64, String, bool)> {
            let later_ms = self.at_s * 1000;
            let moment = Moment {
                store_ms: MOMENT.store_ms + later_ms - self.made_s * 1000,
                sent_ms: MOMENT.sent_ms + later_ms - self.early_s * 1000,
                received_ms: MOMENT.received_ms + later_ms,
            };
            let page = self.page(run, generation, token, left_s, moment.store_ms);
            let asked_for = self.reported.then_some(0);
            self.at_s += 1;
            let (_, record, _) = self.known.take(&page, "other", moment, false, asked_for).pop()?;
            let value = self.seal.open(&record.value?).unwrap();
            assert_eq!(record.generation, value.generation);
            Some((value.generation, value.value, value.withdrawn))
        }

        fn end_ms(&self) -> BootMs {
            self.known.copies[0].held.as_ref().unwrap().end_ms
        }
    }

    fn told(generation: u64, token: &str) -> Option<(u64, String, bool)> {
        Some((generation, token.into(), false))
    }

    #[test]
    fn a_leader_that_lied_once_is_believed_again_at_its_next_answer() {
        for run in ["a", "after a restart"] {
            let mut ear = Ear::new();
            assert_eq!(ear.hear("a", 1 << 49, Some("LIE"), 31 * 86_400), told(1 << 49, "LIE"));
            assert_eq!(ear.hear(run, 7, Some("T"), 60), told(7, "T"), "lower, and ends earlier");
            assert!(ear.end_ms() < MOMENT.received_ms + 70_000);
        }
    }

    #[test]
    fn a_wrong_end_or_generation_of_the_right_value_is_mended_too() {
        let mut ear = Ear::new();
        ear.hear("a", 900, Some("T"), 31 * 86_400);
        assert_eq!(ear.hear("a", 900, Some("T"), 60), told(900, "T"));
        assert!(ear.end_ms() < MOMENT.received_ms + 70_000);
        assert_eq!(ear.hear("a", 7, Some("T"), 59), told(7, "T"));
        assert_eq!(ear.hear("a", 7, Some("T"), 58), None, "nothing has changed");
        assert_eq!(ear.hear("a", 7, Some("T"), 600), told(7, "T"), "a polled value lives on");
    }

    #[test]
    fn a_leader_whose_state_was_restored_is_followed() {
        let mut ear = Ear::new();
        ear.hear("a", 40, Some("T40"), 7_200);
        assert_eq!(ear.hear("b", 39, Some("T39"), 5_000), told(39, "T39"));
        assert_eq!(ear.hear("b", 40, Some("U40"), 7_200), told(40, "U40"), "another value of the same number");
    }

    #[test]
    fn an_answer_that_was_overtaken_is_not_told() {
        let mut ear = Ear::new();
        ear.hear("a", 7, Some("T7"), 100);
        assert_eq!(ear.hear("a", 8, Some("T8"), 7_200), told(8, "T8"));
        // Asked before the last answer came, and made before that.
        (ear.early_s, ear.made_s) = (5, 4);
        assert_eq!(ear.hear("a", 7, Some("T7"), 100), None);
        assert_eq!(ear.hear("a", 8, None, 0), None, "nor is a withdrawal that is over");
        (ear.early_s, ear.made_s) = (5, 0);
        assert_eq!(ear.hear("a", 9, Some("T9"), 7_200), told(9, "T9"), "asked before, and made after it");
        // A clock that was set back does not make a later answer an earlier one.
        (ear.early_s, ear.made_s) = (0, 900);
        assert_eq!(ear.hear("a", 10, Some("T10"), 7_200), told(10, "T10"));
    }

    #[test]
    fn two_processes_behind_one_address_send_nobody_to_and_fro() {
        let mut ear = Ear::new();
        ear.hear("a", 7, Some("T7"), 100);
        assert_eq!(ear.hear("b", 7, Some("T7"), 100), None);
        assert_eq!(ear.hear("a", 8, Some("T8"), 7_200), told(8, "T8"));
        for _ in 0..5 {
            assert_eq!(ear.hear("b", 7, Some("T7"), 90), None, "one that lags behind");
            assert_eq!(ear.hear("a", 8, Some("T8"), 7_202 - ear.at_s), None);
        }
        assert_eq!(ear.hear("b", 9, Some("T9"), 7_300), told(9, "T9"), "whoever has the later one is heard");
        assert_eq!(ear.hear("a", 1, Some("T1"), 500), None);
        ear.at_s += GONE_MS / 1000;
        assert_eq!(ear.hear("a", 1, Some("T1"), 500), told(1, "T1"), "the other one has gone");
    }

    #[test]
    fn processes_that_count_for_themselves_keep_the_number_of_a_value_still() {
        let mut ear = Ear::new();
        ear.hear("a", 900, Some("T"), 5_000);
        for left_s in [5_000, 4_998] {
            assert_eq!(ear.hear("b", 5, Some("T"), left_s), None);
            assert_eq!(ear.hear("a", 900, Some("T"), left_s - 1), None);
        }
        assert_eq!(ear.hear("b", 6, Some("U"), 7_200), told(6, "U"));
        assert_eq!(ear.hear("a", 901, Some("U"), 7_199), None);
        assert_eq!(ear.hear("b", 6, Some("U"), 7_198), None);
    }

    #[test]
    fn one_that_is_cut_off_replaces_nothing_that_was_heard_since() {
        let mut ear = Ear::new();
        ear.at_s = 1_000;
        ear.hear("a", 8, Some("T8"), 600);
        ear.age_s = 900;
        assert_eq!(ear.hear("b", 7, Some("T7"), 500), None);
        assert_eq!(ear.hear("b", 9, Some("T9"), 900), told(9, "T9"), "it has renewed by itself");
        assert_eq!(ear.hear("b", 7, Some("T7"), 500), told(7, "T7"), "its own word it takes back at once");
        ear.age_s = 0;
        assert_eq!(ear.hear("c", 6, Some("T6"), 400), told(6, "T6"));
    }

    #[test]
    fn what_is_there_after_a_report_counts_whoever_else_is_there() {
        let mut ear = Ear::new();
        ear.hear("a", 8, Some("T8"), 7_200);
        ear.hear("b", 7, Some("T7"), 100);
        ear.hear("a", 8, Some("T8"), 7_200);
        assert_eq!(ear.hear("b", 7, Some("T7"), 100), None);
        ear.reported = true;
        assert_eq!(ear.hear("b", 7, Some("T7"), 100), told(7, "T7"));
    }

    #[test]
    fn a_value_without_a_life_is_no_news_unless_it_was_withdrawn() {
        let mut ear = Ear::new();
        assert_eq!(ear.hear("a", 0, None, 0), None);
        ear.hear("a", 3, Some("T"), 5_000);
        assert_eq!(ear.hear("a", 2, None, 0), None, "another one was");
        assert_eq!(ear.hear("b", 3, None, 0), None, "another node's count");
        assert_eq!(ear.hear("a", 3, None, 0), Some((3, "T".into(), true)));
        assert_eq!(ear.hear("a", 3, None, 0), None);
        assert_eq!(ear.hear("a", 3, Some("T"), 4_000), told(3, "T"), "it was a false alarm");
    }

    #[test]
    fn a_value_is_known_while_it_lives() {
        let mut ear = Ear::new();
        let live = |ear: &Ear, now_ms| ear.known.live(0, now_ms).map(|(generation, _)| generation);
        assert_eq!(live(&ear, 0), None);
        ear.hear("a", 3, Some("T"), 5);
        assert_eq!((live(&ear, 9_998), live(&ear, 9_999)), (Some(3), None), "from when the question was sent");
        assert_eq!(ear.known.last(0).unwrap().1, MOMENT);
        ear.hear("a", 3, None, 0);
        assert_eq!(live(&ear, 0), None);
    }

    #[test]
    fn many_processes_are_not_all_remembered() {
        let mut processes = Processes::default();
        for n in 0..100 {
            processes.hear(&n.to_string(), n);
        }
        assert_eq!(processes.all.len(), PROCESSES_MAX);
        assert!(processes.all.iter().any(|process| process.run == "99"));
    }
}
