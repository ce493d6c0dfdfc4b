//! Events of the last day: renewals, failures, refused writes. Limited in size, in memory only.
//!
//! Pure: the time comes in as a value. Never holds a token or a secret.

use std::borrow::Cow;
use std::collections::{BTreeMap, HashMap, VecDeque};
use std::sync::Arc;

use parking_lot::Mutex;

use super::id::CredentialId;
use crate::clock::Now;
use crate::platform::FailureClass;

/// Entries of the whole server.
pub const ENTRIES_MAX: usize = 4096;
/// Entries that are kept for each credential, however many the others have.
pub const ENTRIES_EACH: usize = 4;
/// Older entries are not shown, milliseconds.
pub const AGE_MS_MAX: u64 = 86_400_000;

/// Refused writes of several hosts within this time are one entry, milliseconds.
const WRITERS_APART_MS: u64 = 60_000;

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    /// A new value is served; `from` another node, if it is not ours.
    Renewed { generation: u64, expires_in_s: u64, from: Option<String> },
    /// A call has returned no value.
    Failed {
        class: FailureClass,
        errcode: Option<i64>,
        rid: Option<String>,
        /// One word for a network failure, if it was one.
        network: Option<&'static str>,
        text: String,
        /// What the error code says; none without one.
        meaning: Option<&'static str>,
        advice: Cow<'static, str>,
    },
    /// A success after failures.
    Recovered,
    /// The value became invalid before its expiry; without an errcode if it was replaced.
    DiedEarly { errcode: Option<i64> },
    /// A refused value is accepted again.
    AcceptedAgain,
    /// The fallback endpoint is used for the rest of the day.
    Fallback { endpoint: &'static str },
    /// A client's write was refused; `is_foreign` if it brought another token than ours.
    RefusedWrite { peer: String, is_foreign: bool },
}

impl Event {
    pub fn name(&self) -> &'static str {
        match self {
            Event::Renewed { .. } => "renewed",
            Event::Failed { .. } => "failed",
            Event::Recovered => "recovered",
            Event::DiedEarly { .. } => "died_early",
            Event::AcceptedAgain => "accepted_again",
            Event::Fallback { .. } => "fallback",
            Event::RefusedWrite { .. } => "refused_write",
        }
    }

    /// True if this repeats the event `before`, `after_ms` after it first happened. Repeats are counted, not listed.
    fn repeats(&self, before: &Event, after_ms: u64) -> bool {
        match (self, before) {
            (
                Event::Failed { class, errcode, text, .. },
                Event::Failed { class: class_before, errcode: before, text: text_before, .. },
            ) => class == class_before && errcode == before && (errcode.is_some() || text == text_before),
            // Many hosts that write by turns must not push out everything else.
            (Event::RefusedWrite { peer, .. }, Event::RefusedWrite { peer: before, .. }) => {
                peer == before || after_ms < WRITERS_APART_MS
            }
            _ => false,
        }
    }
}

#[derive(Clone, Debug)]
pub struct JournalEntry {
    /// Counts entries from 1.
    pub seq: u64,
    /// The version of the journal at the last change of this entry.
    pub version: u64,
    pub credential: CredentialId,
    pub first: Now,
    pub last: Now,
    /// How often it has happened in a row.
    pub times: u64,
    pub event: Event,
}

#[derive(Default)]
pub struct Journal(Mutex<JournalInner>);

#[derive(Default)]
struct JournalInner {
    version: u64,
    seq: u64,
    /// The last entries of all, by number.
    ring: BTreeMap<u64, Arc<JournalEntry>>,
    latest: HashMap<CredentialId, VecDeque<Arc<JournalEntry>>>,
}

impl Journal {
    /// Adds an entry, or counts the credential's last one again if this is a repeat.
    pub fn record(&self, credential: CredentialId, now: Now, event: Event) {
        self.record_times(credential, now, 1, event);
    }

    /// The same for an event that has happened several times.
    pub fn record_times(&self, credential: CredentialId, now: Now, times: u64, event: Event) {
        let inner = &mut *self.0.lock();
        inner.version += 1;
        let latest = inner.latest.entry(credential).or_default();
        let version = inner.version;
        let repeats =
            |entry: &JournalEntry| event.repeats(&entry.event, now.boot_ms.saturating_sub(entry.first.boot_ms));
        let entry = match latest.pop_back_if(|entry| repeats(entry)) {
            Some(before) => {
                JournalEntry { version, last: now, times: before.times + times, event, ..JournalEntry::clone(&before) }
            }
            None => {
                inner.seq += 1;
                JournalEntry { seq: inner.seq, version, credential, first: now, last: now, times, event }
            }
        };
        let entry = Arc::new(entry);
        latest.push_back(entry.clone());
        if latest.len() > ENTRIES_EACH {
            latest.pop_front();
        }
        // One that has left the ring leaves it again at once: only the credential's list has it.
        inner.ring.insert(entry.seq, entry);
        if inner.ring.len() > ENTRIES_MAX {
            inner.ring.pop_first();
        }
    }

    pub fn version(&self) -> u64 {
        self.0.lock().version
    }

    /// What has changed since that version, oldest entry first, at most the last so many.
    pub fn since(&self, version: u64, now: Now, at_most: usize) -> Vec<Arc<JournalEntry>> {
        let inner = self.0.lock();
        let recent = inner.ring.values().rev().filter(|entry| entry.version > version && is_recent(entry, now));
        let mut found: Vec<Arc<JournalEntry>> = recent.take(at_most).cloned().collect();
        found.reverse();
        found
    }

    /// The last few of one credential, oldest first.
    pub fn entries_of(&self, credential: CredentialId, now: Now) -> Vec<Arc<JournalEntry>> {
        let inner = self.0.lock();
        let latest = inner.latest.get(&credential).into_iter().flatten();
        latest.filter(|entry| is_recent(entry, now)).cloned().collect()
    }
}

fn is_recent(entry: &JournalEntry, now: Now) -> bool {
    now.boot_ms.saturating_sub(entry.last.boot_ms) <= AGE_MS_MAX
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(ms: u64) -> Now {
        Now { boot_ms: ms, unix_ms: 1_700_000_000_000 + i64::try_from(ms).unwrap() }
    }

    fn failed(errcode: Option<i64>, text: &str) -> Event {
        let (meaning, advice) = (None, "".into());
        Event::Failed {
            class: FailureClass::Retry,
            errcode,
            rid: None,
            network: None,
            text: text.into(),
            meaning,
            advice,
        }
    }

    #[test]
    fn the_same_again_is_counted_and_something_else_is_listed() {
        let journal = Journal::default();
        for ms in 1..=3 {
            journal.record(0, at(ms), failed(Some(-1), &format!("rid {ms}")));
        }
        journal.record(0, at(4), failed(None, "no route"));
        journal.record(0, at(5), failed(None, "timed out"));
        journal.record(1, at(6), failed(Some(-1), ""));
        journal.record(0, at(7), Event::Recovered);
        let all = journal.since(0, at(10), 100);
        let times: Vec<(usize, u64)> = all.iter().map(|entry| (entry.credential, entry.times)).collect();
        assert_eq!(times, [(0, 3), (0, 1), (0, 1), (1, 1), (0, 1)]);
        assert_eq!((all[0].first.boot_ms, all[0].last.boot_ms), (1, 3));
    }

    #[test]
    fn every_refused_write_is_counted_and_many_hosts_in_turn_are_one_entry_a_minute() {
        let journal = Journal::default();
        for ms in 0..600 {
            let peer = format!("10.0.0.{}", ms % 7);
            journal.record_times(0, at(ms * 200), 3, Event::RefusedWrite { peer, is_foreign: false });
        }
        let all = journal.since(0, at(120_000), usize::MAX);
        assert_eq!(all.iter().map(|entry| entry.times).sum::<u64>(), 1800);
        assert_eq!(all.len(), 2, "two minutes");
    }

    #[test]
    fn whoever_has_seen_a_version_gets_what_came_after() {
        let journal = Journal::default();
        journal.record(0, at(1), failed(Some(-1), ""));
        journal.record(1, at(2), Event::Recovered);
        let seen = journal.version();
        assert!(journal.since(seen, at(3), 100).is_empty());
        journal.record(0, at(4), failed(Some(-1), ""));
        let news = journal.since(seen, at(5), 100);
        assert_eq!(news.iter().map(|entry| (entry.seq, entry.times)).collect::<Vec<_>>(), [(1, 2)]);
    }

    #[test]
    fn it_is_bounded_in_number_and_in_age_and_each_credential_keeps_its_own() {
        let journal = Journal::default();
        journal.record(7, at(1), Event::Recovered);
        for ms in 0..5_000 {
            journal.record(0, at(ms), Event::Renewed { generation: ms, expires_in_s: 7200, from: None });
        }
        assert_eq!(journal.since(0, at(5_000), usize::MAX).len(), ENTRIES_MAX);
        assert_eq!(journal.since(0, at(5_000), 10).len(), 10);
        assert_eq!(journal.entries_of(0, at(5_000)).len(), ENTRIES_EACH);
        assert_eq!(journal.entries_of(7, at(5_000)).len(), 1, "others' renewals do not push it out");
        journal.record(7, at(5_001), Event::Recovered);
        assert_eq!(journal.entries_of(7, at(AGE_MS_MAX + 2)).len(), 1);
        assert!(journal.since(0, at(AGE_MS_MAX + 5_002), usize::MAX).is_empty());
    }

    #[test]
    fn an_entry_that_has_left_the_ring_and_happens_again_stays_in_order() {
        let journal = Journal::default();
        journal.record(7, at(1), failed(Some(-1), ""));
        for ms in 0..5_000 {
            journal.record(0, at(ms), Event::Recovered);
        }
        journal.record(7, at(6_000), failed(Some(-1), ""));
        assert_eq!(journal.entries_of(7, at(6_000))[0].times, 2);
        let all = journal.since(0, at(6_000), usize::MAX);
        assert!(all.windows(2).all(|pair| pair[0].seq + 1 == pair[1].seq));
    }
}
