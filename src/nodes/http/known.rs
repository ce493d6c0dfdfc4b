//! What has been heard of each credential, put into records: which answer is later than which.
//!
//! Pure: answers and moments in, records out. The records of one node are ordered by its own count. Another node, or
//! the same one after it has lost its state, may count otherwise: then its values are told on as later ones if they
//! end later, so that whoever goes by the generation takes them.

use std::collections::HashMap;
use std::sync::Arc;

use super::page::{Entry, Page};
use crate::clock::BootMs;
use crate::nodes::seal::{Seal, Value};
use crate::nodes::{Moment, Record, Watched};
use crate::secret::Secret;

/// A record to tell on: the index of its credential, the record, its moment.
pub type Told = (usize, Record, Moment);

/// All of them.
pub struct Known {
    watched: Arc<[Watched]>,
    by_tag: HashMap<Arc<str>, usize>,
    by_name: HashMap<String, HashMap<&'static str, usize>>,
    copies: Vec<Copy>,
}

/// What is known of one.
struct Copy {
    seal: Seal,
    held: Option<Held>,
    /// The last that was told, and when.
    record: Record,
    moment: Option<Moment>,
    /// In the present listing.
    listed: bool,
}

/// A value, as the other node had it.
struct Held {
    value: Value,
    end_ms: BootMs,
    /// Whose count the generation follows, and how far ours is ahead of that.
    run: String,
    ahead: i64,
}

impl Known {
    pub fn new(watched: Arc<[Watched]>, secret: &Secret) -> Known {
        let mut by_name: HashMap<String, HashMap<&'static str, usize>> = HashMap::new();
        for (index, one) in watched.iter().enumerate() {
            by_name.entry(one.app.clone()).or_default().insert(one.kind, index);
        }
        let copy = |one: &Watched| Copy {
            seal: Seal::new(secret, &one.tag),
            held: None,
            record: Record::default(),
            moment: None,
            listed: false,
        };
        Known {
            by_tag: watched.iter().enumerate().map(|(index, one)| (one.tag.clone(), index)).collect(),
            by_name,
            copies: watched.iter().map(copy).collect(),
            watched,
        }
    }

    /// The index of a tag.
    pub fn index(&self, tag: &str) -> Option<usize> {
        self.by_tag.get(tag).copied()
    }

    pub fn watched(&self, index: usize) -> &Watched {
        &self.watched[index]
    }

    /// The last record that was told.
    pub fn last(&self, index: usize) -> Option<(Record, Moment)> {
        let copy = &self.copies[index];
        copy.moment.map(|moment| (copy.record.clone(), moment))
    }

    /// The value that was told last and its generation, while it lives.
    pub fn live(&self, index: usize, now_ms: BootMs) -> Option<(u64, Secret)> {
        let held = self.copies[index].held.as_ref()?;
        let lives = now_ms < held.end_ms && !held.value.withdrawn;
        lives.then(|| (held.value.generation, Secret::new(held.value.value.clone())))
    }

    /// Everything is going to be told anew.
    pub fn begin_listing(&mut self) {
        self.copies.iter_mut().for_each(|copy| copy.listed = false);
    }

    /// Everything has been told: the credentials which were not among it.
    pub fn unlisted(&self) -> impl Iterator<Item = usize> {
        self.copies.iter().enumerate().filter(|(_, copy)| !copy.listed).map(|(index, _)| index)
    }

    /// What an answer has to say that is worth telling on. `by` names the node it came from.
    pub fn take(&mut self, page: &Page, by: &str, moment: Moment, whole: bool) -> Vec<Told> {
        let mut told = Vec::with_capacity(page.credentials.len());
        for entry in &page.credentials {
            let index = self.by_name.get(&entry.app).and_then(|kinds| kinds.get(entry.kind.as_str()));
            let Some(&index) = index else { continue };
            let copy = &mut self.copies[index];
            copy.listed = true;
            let changed = copy.take(entry, &page.run, by, moment);
            if changed || whole {
                told.push((index, copy.record.clone(), copy.told(moment)));
            }
        }
        told
    }

    /// A record of which nothing has been heard, so that nobody waits for it.
    pub fn as_it_is(&mut self, index: usize, moment: Moment) -> Told {
        let copy = &mut self.copies[index];
        (index, copy.record.clone(), copy.told(moment))
    }
}

impl Copy {
    /// The moment that fits the record; a record without a value fits any.
    fn told(&mut self, moment: Moment) -> Moment {
        *self.moment.get_or_insert(moment)
    }

    /// True if there is something new to tell.
    fn take(&mut self, entry: &Entry, run: &str, by: &str, moment: Moment) -> bool {
        let Some(token) = entry.live() else { return entry.withdrawn && self.withdraw(entry, run) };
        let expires_ms = moment.store_ms.saturating_add(entry.expires_in_ms);
        let end_ms = moment.to_boot_ms(expires_ms);
        let Some((generation, ahead)) = self.number(entry.generation, token, run, end_ms) else { return false };
        let life_ms = entry.lifetime_ms.filter(|life_ms| *life_ms > 0).unwrap_or(entry.expires_in_ms);
        let fetched_ms = entry.fetched_at_ms.and_then(|at| u64::try_from(at).ok());
        let value = Value {
            value: token.to_owned(),
            generation,
            expires_ms,
            // The other's clock may have been set since.
            fetched_ms: fetched_ms.unwrap_or(0).min(moment.store_ms),
            life_ms,
            longest_ms: life_ms,
            learned_ms: None,
            refresh: None,
            withdrawn: false,
            by: by.to_owned(),
            node: 0,
        };
        self.hold(Held { value, end_ms, run: run.to_owned(), ahead }, moment)
    }

    /// The other node's value is refused by WeChat; ours is if it is the same one.
    fn withdraw(&mut self, entry: &Entry, run: &str) -> bool {
        let (Some(held), Some(moment)) = (&self.held, self.moment) else { return false };
        let same = held.run == run && entry.generation.checked_add_signed(held.ahead) == Some(held.value.generation);
        if !same || held.value.withdrawn {
            return false;
        }
        let withdrawn = self.held.take().map(|held| Held { value: Value { withdrawn: true, ..held.value }, ..held });
        withdrawn.is_some_and(|held| self.hold(held, moment))
    }

    fn hold(&mut self, held: Held, moment: Moment) -> bool {
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

    /// The generation under which a live value is told on, and how far that is ahead of the other node's; none if it is
    /// no later than what is held.
    fn number(&self, generation: u64, token: &str, run: &str, end_ms: BootMs) -> Option<(u64, i64)> {
        let Some(held) = &self.held else { return Some((generation, 0)) };
        let counted = generation.checked_add_signed(held.ahead).unwrap_or(0);
        let as_number = |number: u64| Some((number, number.cast_signed().wrapping_sub(generation.cast_signed())));
        let ours = held.value.generation;
        if held.run == run {
            return (counted >= ours).then_some((counted, held.ahead));
        }
        if token == held.value.value {
            return as_number(ours.max(counted));
        }
        if counted > ours {
            return Some((counted, held.ahead));
        }
        // Another count, or a node that lags behind: the later token ends later.
        if end_ms > held.end_ms { as_number(ours.saturating_add(1)) } else { None }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MOMENT: Moment = Moment { store_ms: 1_000_000, sent_ms: 5_000, received_ms: 5_010 };

    struct Ear {
        known: Known,
        seal: Seal,
        /// Seconds since the first answer.
        at_s: u64,
    }

    impl Ear {
        fn new() -> Ear {
            let secret = Secret::new("a secret of the tests".into());
            let one = Watched { tag: "t".into(), app: "wx1".into(), kind: "access_token", renews: false };
            Ear { known: Known::new([one].into(), &secret), seal: Seal::new(&secret, "t"), at_s: 0 }
        }

        fn page(&self, run: &str, generation: u64, token: Option<&str>, left_s: u64) -> Page {
            let entry = Entry {
                app: "wx1".into(),
                kind: "access_token".into(),
                generation,
                token: token.map(str::to_owned),
                expires_in_ms: left_s * 1000,
                lifetime_ms: Some(7_200_000),
                fetched_at_ms: Some(900_000),
                withdrawn: token.is_none(),
            };
            let cursor = "c".into();
            let (from_start, more) = (false, false);
            Page { now_ms: 0, waited_ms: 0, run: run.into(), from_start, cursor, more, credentials: vec![entry] }
        }

        /// What is told on, if something is: generation, token, whether it is withdrawn.
        fn hear(
            &mut self,
            run: &str,
            generation: u64,
            token: Option<&str>,
            left_s: u64,
        ) -> Option<(u64, String, bool)> {
            let page = self.page(run, generation, token, left_s);
            let later_ms = self.at_s * 1000;
            let moment = Moment {
                store_ms: MOMENT.store_ms + later_ms,
                sent_ms: MOMENT.sent_ms + later_ms,
                received_ms: MOMENT.received_ms + later_ms,
            };
            let (_, record, _) = self.known.take(&page, "other", moment, false).pop()?;
            let value = self.seal.open(&record.value?).unwrap();
            assert_eq!(record.generation, value.generation);
            Some((value.generation, value.value, value.withdrawn))
        }
    }

    fn told(generation: u64, token: &str) -> Option<(u64, String, bool)> {
        Some((generation, token.into(), false))
    }

    #[test]
    fn one_nodes_count_is_kept_and_what_is_older_is_not_told() {
        let mut ear = Ear::new();
        assert_eq!(ear.hear("a", 7, Some("T7"), 100), told(7, "T7"));
        assert_eq!(ear.hear("a", 8, Some("T8"), 7_200), told(8, "T8"));
        assert_eq!(ear.hear("a", 7, Some("T7"), 100), None, "an answer that was overtaken");
        assert_eq!(ear.hear("b", 8, Some("T8"), 7_199), told(8, "T8"), "another node of the same state");
        assert_eq!(ear.hear("a", 7, Some("T7"), 90), None, "one that lags behind");
        assert_eq!(ear.hear("b", 9, Some("T9"), 7_200), told(9, "T9"));
    }

    #[test]
    fn a_node_that_has_lost_its_count_is_followed_all_the_same() {
        let mut ear = Ear::new();
        ear.hear("a", 40, Some("T"), 5_000);
        assert_eq!(ear.hear("b", 1, Some("T"), 5_000), told(40, "T"), "the same token");
        assert_eq!(ear.hear("b", 2, Some("U"), 7_200), told(41, "U"));
        assert_eq!(ear.hear("c", 1, Some("V"), 7_201), told(42, "V"), "another token that ends later");
        assert_eq!(ear.hear("c", 2, Some("W"), 7_200), told(43, "W"));
        ear.at_s = 8_000;
        assert_eq!(ear.hear("d", 1, Some("X"), 1), told(44, "X"), "what was held has ended");
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
}
