//! Which node has renewed, and which nodes have the new token: from the log lines of all nodes, in any order.
//!
//! Pure: nodes, fingerprints and times in, sentences out. Never sees a token.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use tokio::time::Instant;

/// If not all nodes have the token after this time, that is announced.
const WAIT_MAX: Duration = Duration::from_secs(3);

/// The latest token of each app.
#[derive(Default)]
pub struct Renewals(BTreeMap<String, ObservedRenewal>);

struct ObservedRenewal {
    fingerprint: String,
    /// That of the token before.
    before: Option<String>,
    /// The node that has renewed, and the generation.
    by: Option<(usize, u64)>,
    /// The nodes that have the token.
    nodes: BTreeSet<usize>,
    since: Instant,
    announced: bool,
}

impl Renewals {
    /// Records that a node has a token with that fingerprint. `fetched` is its generation if the node has fetched it.
    pub fn record_token(&mut self, appid: &str, fingerprint: &str, node: usize, fetched: Option<u64>, now: Instant) {
        let fresh = |before: Option<String>| ObservedRenewal {
            fingerprint: fingerprint.to_owned(),
            before,
            by: None,
            nodes: BTreeSet::new(),
            since: now,
            announced: false,
        };
        let renewal = self.0.entry(appid.to_owned()).or_insert_with(|| fresh(None));
        if renewal.before.as_deref() == Some(fingerprint) {
            // A late line about the token before.
            return;
        }
        if renewal.fingerprint != fingerprint {
            *renewal = fresh(Some(std::mem::take(&mut renewal.fingerprint)));
        }
        renewal.nodes.insert(node);
        renewal.by = fetched.map(|generation| (node, generation)).or(renewal.by);
    }

    /// The sentences to announce now: each renewal once, when all running nodes have the token, or when time is up.
    pub fn take_announcements(&mut self, names: &[String], running: &[bool], now: Instant) -> Vec<String> {
        let mut sentences = Vec::new();
        for (appid, renewal) in &mut self.0 {
            let Some((by, generation)) = renewal.by.filter(|_| !renewal.announced) else { continue };
            let lacking: Vec<&str> =
                (0..names.len()).filter(|at| !renewal.nodes.contains(at)).map(|at| names[at].as_str()).collect();
            let waits = (0..names.len()).any(|at| running[at] && !renewal.nodes.contains(&at));
            if waits && now < renewal.since + WAIT_MAX {
                continue;
            }
            renewal.announced = true;
            let who = match lacking.is_empty() {
                true => format!("all {} nodes have it", names.len()),
                false => {
                    format!("{} of {} nodes have it, not {}", renewal.nodes.len(), names.len(), lacking.join(", "))
                }
            };
            sentences.push(format!("{appid}: {} has renewed, generation {generation}; {who}", names[by]));
        }
        sentences
    }

    /// When there may be something to announce although no line has come.
    pub fn next_deadline(&self) -> Option<Instant> {
        let open = self.0.values().filter(|renewal| !renewal.announced && renewal.by.is_some());
        open.map(|renewal| renewal.since + WAIT_MAX).min()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names() -> Vec<String> {
        ["node-1", "node-2", "node-3"].map(str::to_owned).into()
    }

    #[test]
    fn a_renewal_is_announced_once_and_when_all_that_run_have_it() {
        let (mut renewals, now) = (Renewals::default(), Instant::now());
        let all = [true; 3];
        renewals.record_token("wx1", "aa", 2, None, now);
        renewals.record_token("wx1", "aa", 1, Some(7), now);
        assert!(renewals.take_announcements(&names(), &all, now).is_empty());
        renewals.record_token("wx1", "aa", 0, None, now);
        let announced = renewals.take_announcements(&names(), &all, now);
        assert_eq!(announced, ["wx1: node-2 has renewed, generation 7; all 3 nodes have it"]);
        assert!(renewals.take_announcements(&names(), &all, now + WAIT_MAX).is_empty());
        assert_eq!(renewals.next_deadline(), None);
    }

    #[test]
    fn a_node_that_is_dead_is_not_waited_for_and_one_that_is_slow_not_for_long() {
        let (mut renewals, now) = (Renewals::default(), Instant::now());
        renewals.record_token("wx1", "aa", 0, Some(1), now);
        renewals.record_token("wx1", "aa", 2, None, now);
        let announced = renewals.take_announcements(&names(), &[true, false, true], now);
        assert_eq!(announced, ["wx1: node-1 has renewed, generation 1; 2 of 3 nodes have it, not node-2"]);
        renewals.record_token("wx1", "bb", 0, Some(2), now);
        renewals.record_token("wx1", "aa", 1, None, now);
        assert!(renewals.take_announcements(&names(), &[true; 3], now).is_empty());
        assert_eq!(renewals.next_deadline(), Some(now + WAIT_MAX));
        let announced = renewals.take_announcements(&names(), &[true; 3], now + WAIT_MAX);
        assert_eq!(announced, ["wx1: node-1 has renewed, generation 2; 1 of 3 nodes have it, not node-2, node-3"]);
    }
}
