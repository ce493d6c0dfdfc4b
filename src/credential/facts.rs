//! Facts about a credential besides its value: what it is, how its calls ended, which hosts have tried to write it; and
//! how the cluster is.
//!
//! Data only. The refresher and the service write it, `stats` and the HTTP API read it. Never holds a token.

use std::collections::{BTreeMap, VecDeque};
use std::sync::atomic::AtomicU64;

use parking_lot::Mutex;

use crate::clock::{BootMs, LogThrottle, Now};
pub use crate::platform::FailureClass;

/// What a credential is. Not changed after the configuration is read.
#[derive(Clone, Debug, Default)]
pub struct CredentialInfo {
    /// `mp`, `wecom` and so on.
    pub platform: &'static str,
    /// The id as the platform knows it, without an agent.
    pub appid: String,
    pub agent: Option<String>,
    pub name: Option<String>,
    /// What is kept: `access_token`, `jsapi_ticket` and so on.
    pub credential_type: &'static str,
    pub can_probe: bool,
}

/// Logs a line about a credential, as [`tracing`]'s macros do: `appid`, `agent`, `name` and `type` are in each such
/// line under these names, so that whoever searches for one of them finds all.
macro_rules! log_credential {
    ($level:ident, $credential:expr, $($line:tt)+) => {{
        let about = $credential.about();
        tracing::$level!(
            appid = %about.appid,
            agent = about.agent.as_deref().map(tracing::field::display),
            name = about.name.as_deref(),
            "type" = %about.credential_type,
            $($line)+
        )
    }};
}
pub(crate) use log_credential;

/// How a call ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CallOutcome {
    New,
    /// With the present value.
    Same,
    Failed(FailureClass),
}

impl CallOutcome {
    pub const ALL: [CallOutcome; 6] = [
        CallOutcome::New,
        CallOutcome::Same,
        CallOutcome::Failed(FailureClass::Retry),
        CallOutcome::Failed(FailureClass::Wait),
        CallOutcome::Failed(FailureClass::Operator),
        CallOutcome::Failed(FailureClass::Internal),
    ];

    pub fn name(self) -> &'static str {
        match self {
            CallOutcome::New => "new",
            CallOutcome::Same => "same",
            CallOutcome::Failed(class) => class.name(),
        }
    }
}

/// Calls by how they ended, in the order of [`CallOutcome::ALL`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct CallOutcomes([u64; 6]);

impl CallOutcomes {
    pub fn count(&self, outcome: CallOutcome) -> u64 {
        CallOutcome::ALL.iter().zip(self.0).find(|(known, _)| **known == outcome).map_or(0, |(_, count)| count)
    }

    pub fn record(&mut self, outcome: CallOutcome) {
        let known = CallOutcome::ALL.iter().zip(&mut self.0).find(|(known, _)| **known == outcome);
        known.into_iter().for_each(|(_, count)| *count += 1);
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum VerificationResult {
    Accepted,
    Refused,
    /// WeChat answers with a new value by now.
    Replaced,
    /// WeChat answers with it as current, but nothing shows whether it is accepted.
    HandedOut,
    /// WeChat could not be called, or its answer does not show it.
    Unknown,
}

impl VerificationResult {
    pub fn name(self) -> &'static str {
        match self {
            VerificationResult::Accepted => "accepted",
            VerificationResult::Refused => "refused",
            VerificationResult::Replaced => "replaced",
            VerificationResult::HandedOut => "handed_out",
            VerificationResult::Unknown => "unknown",
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Verification {
    pub at_boot_ms: BootMs,
    pub generation: u64,
    pub verdict: VerificationResult,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RefusedWriter {
    /// An address without the port, or `unix socket`.
    pub peer: String,
    /// How many. If several hosts write within a tenth of a second, one of them may get the count of all.
    pub noted: u64,
    pub last: Now,
    /// It has written another token than ours.
    pub is_foreign: bool,
}

/// Hosts whose writes of a credential were refused, the last one last.
#[derive(Default)]
pub struct RefusedWriters(Mutex<VecDeque<RefusedWriter>>);

const WRITERS_MAX: usize = 8;

impl RefusedWriters {
    pub(super) fn record(&self, peer: String, times: u64, is_foreign: bool, now: Now) {
        let mut writers = self.0.lock();
        let known = writers.iter().position(|writer| writer.peer == peer).and_then(|at| writers.remove(at));
        let (noted, was_foreign) = known.map_or((0, false), |known| (known.noted, known.is_foreign));
        writers.push_back(RefusedWriter {
            peer,
            noted: noted + times,
            last: now,
            is_foreign: was_foreign || is_foreign,
        });
        if writers.len() > WRITERS_MAX {
            writers.pop_front();
        }
    }

    pub(super) fn last(&self) -> Option<RefusedWriter> {
        self.0.lock().back().cloned()
    }

    pub fn all(&self) -> Vec<RefusedWriter> {
        self.0.lock().iter().cloned().collect()
    }
}

pub fn host_of(peer: &dyn std::fmt::Display) -> String {
    let peer = peer.to_string();
    peer.parse::<core::net::SocketAddr>().map_or(peer, |address| address.ip().to_canonical().to_string())
}

/// How many nodes are kept by name, so that nodes that restart under new names do not fill the memory.
const OTHERS_MAX: usize = 64;

/// The cluster, as this node sees it. Empty on a single node.
#[derive(Default)]
pub struct ClusterStatus {
    reachability: Mutex<Option<(bool, BootMs)>>,
    /// When this node was last in contact with the nodes that renew; none if never.
    as_of: Mutex<Option<BootMs>>,
    node: Option<String>,
    /// The nodes share a store; otherwise this node follows a leader.
    has_store: bool,
    /// The other nodes, with the time of each one's last known fetch.
    others: Mutex<BTreeMap<String, i64>>,
    pub forged: Forged,
    /// When rejected counts were last logged.
    pub(super) rejected_counts_log: LogThrottle,
}

/// How often values or counts were found in the cluster store that no node can have written.
#[derive(Default)]
pub struct Forged {
    pub values: AtomicU64,
    pub counts: AtomicU64,
}

impl ClusterStatus {
    /// There is a cluster, and this node has that name in it.
    pub fn new(node: &str, has_store: bool) -> ClusterStatus {
        ClusterStatus { node: Some(node.to_owned()), has_store, ..ClusterStatus::default() }
    }

    /// Whether the nodes share a store; false on a follower and on a single node.
    pub fn has_store(&self) -> bool {
        self.has_store
    }

    pub(super) fn record_node(&self, node: &str, fetched_unix_ms: i64) {
        if self.node() == Some(node) {
            return;
        }
        let mut others = self.others.lock();
        let last = others.entry(node.to_owned()).or_insert(fetched_unix_ms);
        *last = fetched_unix_ms.max(*last);
        if others.len() > OTHERS_MAX {
            let oldest = others.iter().min_by_key(|(_, last)| **last).map(|(name, _)| name.clone());
            oldest.and_then(|name| others.remove(&name));
        }
    }

    /// The other nodes, with the time of each one's last fetch.
    pub fn others(&self) -> Vec<(String, i64)> {
        self.others.lock().iter().map(|(name, last)| (name.clone(), *last)).collect()
    }

    /// This node's name in the cluster; none on a single node.
    pub fn node(&self) -> Option<&str> {
        self.node.as_deref()
    }

    /// Records whether the store can be reached. Returns what was known before.
    pub(super) fn set_reachable(&self, up: bool, now_ms: BootMs) -> Option<bool> {
        let mut known = self.reachability.lock();
        let before = *known;
        let heard_ms = if up { now_ms } else { before.map_or(now_ms, |(_, heard_ms)| heard_ms) };
        *known = Some((up, heard_ms));
        before.map(|(up, _)| up)
    }

    /// Records that this node knows what the nodes that renew had at that time.
    pub(super) fn record_contact(&self, now_ms: BootMs) {
        let mut known = self.reachability.lock();
        *known = Some((known.is_none_or(|(up, _)| up), now_ms));
        drop(known);
        *self.as_of.lock() = Some(now_ms);
    }

    /// How long this node has had no contact with the nodes that renew: 0 on a single node, the machine's whole uptime
    /// if there was none since the start.
    pub fn behind_ms(&self, now_ms: BootMs) -> u64 {
        self.node().map_or(0, |_| now_ms.saturating_sub(self.as_of.lock().unwrap_or(0)))
    }

    /// Whether the store can be reached; none without a cluster, or before the first try.
    pub fn is_up(&self) -> Option<bool> {
        self.reachability.lock().map(|(up, _)| up)
    }

    /// How old our knowledge of the store is, milliseconds.
    pub fn age_ms(&self, now_ms: BootMs) -> Option<u64> {
        self.reachability.lock().map(|(_, heard_ms)| now_ms.saturating_sub(heard_ms))
    }
}

/// Upper bounds of the histogram's buckets, milliseconds; the deadline of a call is 8 s unless configured.
pub const DURATION_BOUNDS_MS: [u64; 9] = [25, 50, 100, 250, 500, 1_000, 2_500, 5_000, 10_000];

/// How long calls took, in buckets that are not cumulative.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Histogram {
    /// One more than there are bounds: the last is for longer calls.
    pub buckets: [u64; DURATION_BOUNDS_MS.len() + 1],
    pub sum_ms: u64,
}

/// How long the calls of the whole server took, by endpoint and by how they ended.
#[derive(Default)]
pub struct Durations(Mutex<BTreeMap<(&'static str, &'static str), Histogram>>);

impl Durations {
    pub(super) fn record(&self, endpoint: &'static str, outcome: CallOutcome, took_ms: u64) {
        let mut all = self.0.lock();
        let histogram = all.entry((endpoint, outcome.name())).or_default();
        let at = DURATION_BOUNDS_MS.partition_point(|bound| *bound < took_ms);
        histogram.buckets[at] += 1;
        histogram.sum_ms = histogram.sum_ms.saturating_add(took_ms);
    }

    pub fn all(&self) -> Vec<((&'static str, &'static str), Histogram)> {
        self.0.lock().iter().map(|(key, histogram)| (*key, *histogram)).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_duration_on_a_bound_is_within_it() {
        let durations = Durations::default();
        for ms in [0, 25, 26, 10_000, 10_001] {
            durations.record("token", CallOutcome::New, ms);
        }
        let (_, histogram) = durations.all()[0];
        assert_eq!(histogram.buckets, [2, 1, 0, 0, 0, 0, 0, 0, 1, 1]);
        assert_eq!(histogram.sum_ms, 20_052);
    }

    #[test]
    fn other_nodes_are_known_by_what_they_have_fetched() {
        let facts = ClusterStatus::new("a", true);
        for (node, at) in [("a", 9), ("b", 5), ("c", 7), ("b", 3)] {
            facts.record_node(node, at);
        }
        assert_eq!(facts.others(), [("b".to_owned(), 5), ("c".to_owned(), 7)]);
        (0..200).for_each(|n| facts.record_node(&format!("n{n}"), 100 + n));
        assert_eq!(facts.others().len(), OTHERS_MAX);
        assert!(facts.others().iter().any(|(name, _)| name == "n199"));
    }

    #[test]
    fn the_last_writers_are_remembered_and_no_more() {
        let (writers, now) = (RefusedWriters::default(), Now { boot_ms: 1, unix_ms: 1 });
        for n in 0..20 {
            writers.record(format!("10.0.0.{n}"), 1, false, now);
        }
        writers.record("10.0.0.15".into(), 1, true, now);
        let all = writers.all();
        assert_eq!(all.len(), WRITERS_MAX);
        let last = all.last().unwrap();
        assert_eq!((last.peer.as_str(), last.noted, last.is_foreign), ("10.0.0.15", 2, true));
    }
}
