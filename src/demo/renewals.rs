//! Who has renewed, and who has the new token by now: from the log lines of all nodes, in whatever order they come.
//!
//! Pure: nodes, fingerprints and instants in, sentences out. Never sees a token.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use tokio::time::Instant;

/// If not all nodes have it by then, that is told.
const PATIENCE: Duration = Duration::from_secs(3);

/// The latest token of each app.
#[derive(Default)]
pub struct Renewals(BTreeMap<String, Renewal>);

struct Renewal {
    print: String,
    /// That of the token before.
    before: Option<String>,
    by: Option<(usize, u64)>,
    has: BTreeSet<usize>,
    since: Instant,
    told: bool,
}

impl Renewals {
    /// A node has a token with that fingerprint. `fetched`: under that generation, from WeChat.
    pub fn has(&mut self, appid: &str, print: &str, node: usize, fetched: Option<u64>, now: Instant) {
        let fresh = |before: Option<String>| Renewal {
            print: print.to_owned(),
            before,
            by: None,
            has: BTreeSet::new(),
            since: now,
            told: false,
        };
        let renewal = self.0.entry(appid.to_owned()).or_insert_with(|| fresh(None));
        if renewal.before.as_deref() == Some(print) {
            // A late word about the token before.
            return;
        }
        if renewal.print != print {
            *renewal = fresh(Some(std::mem::take(&mut renewal.print)));
        }
        renewal.has.insert(node);
        renewal.by = fetched.map(|generation| (node, generation)).or(renewal.by);
    }

    /// What is to be told now: each renewal once, when all that run have it, or not all in time.
    pub fn told(&mut self, names: &[String], runs: &[bool], now: Instant) -> Vec<String> {
        let mut sentences = Vec::new();
        for (appid, renewal) in &mut self.0 {
            let Some((by, generation)) = renewal.by.filter(|_| !renewal.told) else { continue };
            let lacking: Vec<&str> =
                (0..names.len()).filter(|at| !renewal.has.contains(at)).map(|at| names[at].as_str()).collect();
            let waits = (0..names.len()).any(|at| runs[at] && !renewal.has.contains(&at));
            if waits && now < renewal.since + PATIENCE {
                continue;
            }
            renewal.told = true;
            let who = match lacking.is_empty() {
                true => format!("all {} nodes have it", names.len()),
                false => format!("{} of {} nodes have it, not {}", renewal.has.len(), names.len(), lacking.join(", ")),
            };
            sentences.push(format!("{appid}: {} has renewed, generation {generation}; {who}", names[by]));
        }
        sentences
    }

    /// When there may be something to tell though nothing has been heard.
    pub fn next(&self) -> Option<Instant> {
        let open = self.0.values().filter(|renewal| !renewal.told && renewal.by.is_some());
        open.map(|renewal| renewal.since + PATIENCE).min()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names() -> Vec<String> {
        ["node-1", "node-2", "node-3"].map(str::to_owned).into()
    }

    #[test]
    fn a_renewal_is_told_once_and_when_all_that_run_have_it() {
        let (mut renewals, now) = (Renewals::default(), Instant::now());
        let all = [true; 3];
        renewals.has("wx1", "aa", 2, None, now);
        renewals.has("wx1", "aa", 1, Some(7), now);
        assert!(renewals.told(&names(), &all, now).is_empty());
        renewals.has("wx1", "aa", 0, None, now);
        let told = renewals.told(&names(), &all, now);
        assert_eq!(told, ["wx1: node-2 has renewed, generation 7; all 3 nodes have it"]);
        assert!(renewals.told(&names(), &all, now + PATIENCE).is_empty());
        assert_eq!(renewals.next(), None);
    }

    #[test]
    fn a_node_that_is_dead_is_not_waited_for_and_one_that_is_slow_not_for_long() {
        let (mut renewals, now) = (Renewals::default(), Instant::now());
        renewals.has("wx1", "aa", 0, Some(1), now);
        renewals.has("wx1", "aa", 2, None, now);
        let told = renewals.told(&names(), &[true, false, true], now);
        assert_eq!(told, ["wx1: node-1 has renewed, generation 1; 2 of 3 nodes have it, not node-2"]);
        renewals.has("wx1", "bb", 0, Some(2), now);
        renewals.has("wx1", "aa", 1, None, now);
        assert!(renewals.told(&names(), &[true; 3], now).is_empty());
        assert_eq!(renewals.next(), Some(now + PATIENCE));
        let told = renewals.told(&names(), &[true; 3], now + PATIENCE);
        assert_eq!(told, ["wx1: node-1 has renewed, generation 2; 1 of 3 nodes have it, not node-2, node-3"]);
    }
}
