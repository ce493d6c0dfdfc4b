//! What is told about a credential besides its value: what it is, how its calls went, who tried to overwrite it.
//!
//! Values only; the refresher and the service write them, the side port reads them.

use std::collections::{BTreeMap, VecDeque};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};

use parking_lot::Mutex;

use crate::clock::{BootMs, LogThrottle, Now};

/// What a credential is; fixed once the configuration is read.
#[derive(Clone, Debug)]
pub struct CredentialInfo {
    /// `mp`, `wecom` and so on.
    pub platform: &'static str,
    /// The id as the platform knows it, without an agent.
    pub appid: String,
    /// Which of a corporation's apps it is.
    pub agent: Option<String>,
    /// What people call the app.
    pub name: Option<String>,
    /// What is kept: `access_token`, `jsapi_ticket` and so on.
    pub credential_type: &'static str,
    /// Fetched by its own secret, not with another credential's value.
    pub is_token: bool,
    /// There is a cheap call that tells whether the value is accepted.
    pub can_probe: bool,
}

impl CredentialInfo {
    /// Of a credential of which nobody has said what it is.
    pub const NOTHING: CredentialInfo = CredentialInfo {
        platform: "",
        appid: String::new(),
        agent: None,
        name: None,
        credential_type: "",
        is_token: false,
        can_probe: false,
    };
}

/// Logs a line about a credential, as [`tracing`]'s macros do: `appid`, `agent`, `name` and `type` are in each such line
/// under these names, so that whoever searches for one of them finds all.
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

/// Calls by how they ended.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct CallOutcomes {
    /// A value we did not have.
    pub new: u64,
    /// The value we have.
    pub same: u64,
    pub retry: u64,
    pub wait: u64,
    pub operator: u64,
    pub internal: u64,
}

impl CallOutcomes {
    /// Each with its name.
    pub fn each(&self) -> [(&'static str, u64); 6] {
        [
            ("new", self.new),
            ("same", self.same),
            ("retry", self.retry),
            ("wait", self.wait),
            ("operator", self.operator),
            ("internal", self.internal),
        ]
    }

    /// Counts one of that name.
    pub fn count(&mut self, name: &str) {
        let place = match name {
            "new" => &mut self.new,
            "same" => &mut self.same,
            "wait" => &mut self.wait,
            "operator" => &mut self.operator,
            "internal" => &mut self.internal,
            _ => &mut self.retry,
        };
        *place += 1;
    }
}

/// What looking into a value came to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum VerificationResult {
    /// WeChat accepts it.
    Accepted,
    /// WeChat refuses it.
    Refused,
    /// WeChat hands out another by now.
    Replaced,
    /// WeChat hands it out as current; nothing tells whether it is accepted.
    HandedOut,
    /// WeChat could not be asked, or its answer tells nothing.
    Unknown,
}

impl VerificationResult {
    /// One word for it.
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

/// The last look into a value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Verification {
    pub at_boot_ms: BootMs,
    /// Of the value it was about.
    pub generation: u64,
    pub verdict: VerificationResult,
}

/// Who has tried to write.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RefusedWriter {
    /// An address without the port, or `unix socket`.
    pub peer: String,
    /// Its refused writes. Of several hosts within a tenth of a second one may have those of all.
    pub noted: u64,
    pub last: Now,
    /// It brought another token than ours.
    pub rival: bool,
}

/// Hosts that have tried to write a credential, the last one last.
#[derive(Default)]
pub struct RefusedWriters(Mutex<VecDeque<RefusedWriter>>);

/// As many as are remembered of one credential.
const WRITERS_MAX: usize = 8;

impl RefusedWriters {
    pub(super) fn note(&self, peer: String, times: u64, rival: bool, now: Now) {
        let mut writers = self.0.lock();
        let known = writers.iter().position(|writer| writer.peer == peer).and_then(|at| writers.remove(at));
        let (noted, rival) = known.map_or((times, rival), |known| (known.noted + times, known.rival || rival));
        writers.push_back(RefusedWriter { peer, noted, last: now, rival });
        if writers.len() > WRITERS_MAX {
            writers.pop_front();
        }
    }

    /// The one who came last.
    pub(super) fn last(&self) -> Option<RefusedWriter> {
        self.0.lock().back().cloned()
    }

    /// All that are remembered, the last one last.
    pub fn all(&self) -> Vec<RefusedWriter> {
        self.0.lock().iter().cloned().collect()
    }
}

/// A peer without its port, which tells nothing about who it is.
pub fn host_of(peer: &dyn std::fmt::Display) -> String {
    let peer = peer.to_string();
    peer.parse::<core::net::SocketAddr>().map_or(peer, |address| address.ip().to_canonical().to_string())
}

/// Nodes that are remembered by name; a fleet that starts again under new names must not fill the memory.
const OTHERS_MAX: usize = 64;

/// How it goes with the state that several nodes share. Says nothing where there is one node.
#[derive(Default)]
pub struct ClusterStatus {
    reachability: Mutex<Option<(bool, BootMs)>>,
    /// This node was last in touch with those who renew; none if it has not been.
    as_of: Mutex<Option<BootMs>>,
    node: OnceLock<String>,
    /// What the nodes share is a store; else it is another node that this one follows.
    has_store: AtomicBool,
    /// The other nodes, with when each was last known to have fetched something.
    others: Mutex<BTreeMap<String, i64>>,
    pub forged: Forged,
    /// When counts that are not believed were last spoken of.
    pub(super) rejected_counts_log: LogThrottle,
}

/// What was found in the shared state that no node can have written, each time it was.
#[derive(Default)]
pub struct Forged {
    pub values: AtomicU64,
    pub counts: AtomicU64,
}

impl ClusterStatus {
    /// There are other nodes; this one is called so.
    pub(super) fn join(&self, node: &str, has_store: bool) {
        self.node.get_or_init(|| node.to_owned());
        self.has_store.store(has_store, Relaxed);
    }

    /// Whether the nodes share a store; false where one is followed, or there is one node.
    pub fn has_store(&self) -> bool {
        self.has_store.load(Relaxed)
    }

    /// A value has come that this node has fetched.
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

    /// The other nodes that have fetched something, with when each last did.
    pub fn others(&self) -> Vec<(String, i64)> {
        self.others.lock().iter().map(|(name, last)| (name.clone(), *last)).collect()
    }

    /// What this node is called among the others; none where it is alone.
    pub fn node(&self) -> Option<&str> {
        self.node.get().map(String::as_str)
    }

    /// Whether it answers now; what was known before.
    pub(super) fn set_reachable(&self, up: bool, now_ms: BootMs) -> Option<bool> {
        let mut known = self.reachability.lock();
        let before = *known;
        let heard_ms = if up { now_ms } else { before.map_or(now_ms, |(_, heard_ms)| heard_ms) };
        *known = Some((up, heard_ms));
        before.map(|(up, _)| up)
    }

    /// It has told something that was so at that instant.
    pub(super) fn record_contact(&self, now_ms: BootMs) {
        let mut known = self.reachability.lock();
        *known = Some((known.is_none_or(|(up, _)| up), now_ms));
        drop(known);
        *self.as_of.lock() = Some(now_ms);
    }

    /// How long this node has been out of touch with those who renew: 0 where it is alone, and the machine's whole life
    /// where it has not been in touch since it started.
    pub fn behind_ms(&self, now_ms: BootMs) -> u64 {
        match self.node() {
            None => 0,
            Some(_) => now_ms.saturating_sub(self.as_of.lock().unwrap_or(0)),
        }
    }

    /// Whether it answers; none without one, or before it has been asked.
    pub fn is_up(&self) -> Option<bool> {
        self.reachability.lock().map(|(up, _)| up)
    }

    /// How old our picture of it is, milliseconds.
    pub fn age_ms(&self, now_ms: BootMs) -> Option<u64> {
        self.reachability.lock().map(|(_, heard_ms)| now_ms.saturating_sub(heard_ms))
    }
}

/// Upper bounds of the histogram's buckets, milliseconds; the deadline of a call is 8 s unless configured.
pub const DURATION_BOUNDS_MS: [u64; 9] = [25, 50, 100, 250, 500, 1_000, 2_500, 5_000, 10_000];

/// How long calls took, in buckets of their own, not summed up.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Histogram {
    /// One more than there are bounds: the last is for what took longer.
    pub buckets: [u64; DURATION_BOUNDS_MS.len() + 1],
    pub sum_ms: u64,
}

/// How long the calls of the whole server took, by endpoint and by how they ended.
#[derive(Default)]
pub struct Durations(Mutex<BTreeMap<(&'static str, &'static str), Histogram>>);

impl Durations {
    pub(super) fn note(&self, endpoint: &'static str, outcome: &'static str, took_ms: u64) {
        let mut all = self.0.lock();
        let histogram = all.entry((endpoint, outcome)).or_default();
        let at = DURATION_BOUNDS_MS.partition_point(|bound| *bound < took_ms);
        if let Some(bucket) = histogram.buckets.get_mut(at) {
            *bucket += 1;
        }
        histogram.sum_ms = histogram.sum_ms.saturating_add(took_ms);
    }

    /// Each (endpoint, outcome) there has been.
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
            durations.note("token", "new", ms);
        }
        let (_, histogram) = durations.all()[0];
        assert_eq!(histogram.buckets, [2, 1, 0, 0, 0, 0, 0, 0, 1, 1]);
        assert_eq!(histogram.sum_ms, 20_052);
    }

    #[test]
    fn other_nodes_are_known_by_what_they_have_fetched() {
        let facts = ClusterStatus::default();
        facts.join("a", true);
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
            writers.note(format!("10.0.0.{n}"), 1, false, now);
        }
        writers.note("10.0.0.15".into(), 1, true, now);
        let all = writers.all();
        assert_eq!(all.len(), WRITERS_MAX);
        let last = all.last().unwrap();
        assert_eq!((last.peer.as_str(), last.noted, last.rival), ("10.0.0.15", 2, true));
    }
}
