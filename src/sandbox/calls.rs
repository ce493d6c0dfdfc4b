//! The record of calls: their numbers since the start, and the last ones in full. Never has a token or a secret.

use std::collections::{BTreeMap, VecDeque};
use std::net::SocketAddr;

use serde::Serialize;

use super::rules::Endpoint;

/// How many calls are kept in full.
const RECENT_MAX: usize = 100;
/// How many programs have counts of their own, and how much of a name is kept. Further programs are counted together,
/// under an empty name.
const AGENTS_MAX: usize = 16;
const AGENT_BYTES_MAX: usize = 64;

/// How many calls of each endpoint ended in which way: `ok`, `errcode 40001`, `fault hang`.
pub type CallCounts = BTreeMap<Endpoint, BTreeMap<String, u64>>;

/// The calls of one app since the sandbox started. Calls that name no known app are under the empty name.
#[derive(Clone, Debug, Default, Serialize)]
pub struct AppCalls {
    /// All calls.
    pub counts: CallCounts,
    /// The same for each program: the part of its `User-Agent` before the first slash.
    pub by_agent: BTreeMap<String, CallCounts>,
    /// Tokens made for the app.
    pub minted: u64,
    /// Calls that are being answered now.
    pub in_flight: u64,
    /// The most calls that were being answered at the same time.
    pub in_flight_max: u64,
    /// The last 100 calls, oldest first.
    pub recent: VecDeque<RecordedCall>,
}

/// One call.
#[derive(Clone, Debug, Serialize)]
pub struct RecordedCall {
    /// When it came, milliseconds since 1970.
    pub unix_ms: i64,
    /// Its endpoint.
    pub endpoint: Endpoint,
    /// The errcode in the answer, if there was one.
    pub errcode: Option<i64>,
    /// How it ended: `ok`, `errcode 40001`, `fault hang`.
    pub outcome: String,
    /// Who called.
    pub peer: SocketAddr,
    /// The caller's program.
    pub agent: String,
}

/// The name of the program in a `User-Agent`, such as `curl` of `curl/8.0`.
pub(super) fn agent_name(user_agent: &str) -> String {
    let name = user_agent.split('/').next().unwrap_or_default().trim();
    name.chars().filter(char::is_ascii).take(AGENT_BYTES_MAX).collect()
}

impl AppCalls {
    /// Calls of all endpoints.
    pub fn total(&self) -> u64 {
        self.counts.values().flat_map(BTreeMap::values).sum()
    }

    /// Calls of one endpoint, however they ended.
    pub fn of(&self, endpoint: Endpoint) -> u64 {
        self.counts.get(&endpoint).map_or(0, |outcomes| outcomes.values().sum())
    }

    /// Calls of one endpoint that ended so: `ok`, `errcode 40001`, `fault hang`.
    pub fn ended(&self, endpoint: Endpoint, outcome: &str) -> u64 {
        self.counts.get(&endpoint).and_then(|outcomes| outcomes.get(outcome)).copied().unwrap_or(0)
    }

    pub(super) fn record(&mut self, call: RecordedCall) {
        let known = self.by_agent.len() < AGENTS_MAX || self.by_agent.contains_key(&call.agent);
        let agent = if known { call.agent.clone() } else { String::new() };
        for counts in [&mut self.counts, self.by_agent.entry(agent).or_default()] {
            *counts.entry(call.endpoint).or_default().entry(call.outcome.clone()).or_default() += 1;
        }
        if self.recent.len() == RECENT_MAX {
            self.recent.pop_front();
        }
        self.recent.push_back(call);
    }

    pub(super) fn begin(&mut self) {
        self.in_flight += 1;
        self.in_flight_max = self.in_flight_max.max(self.in_flight);
    }

    pub(super) fn end(&mut self) {
        self.in_flight = self.in_flight.saturating_sub(1);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counts_are_kept_for_ever_and_only_the_last_hundred_in_full() {
        let mut calls = AppCalls::default();
        for at in 0..150 {
            let outcome = if at % 2 == 0 { "ok" } else { "errcode 40001" };
            let peer = SocketAddr::from(([127, 0, 0, 1], 1));
            let agent = format!("agent-{}", at % 30);
            let outcome = outcome.into();
            calls.record(RecordedCall { unix_ms: at, endpoint: Endpoint::Token, errcode: None, outcome, peer, agent });
        }
        assert_eq!((calls.total(), calls.of(Endpoint::Token), calls.of(Endpoint::Ticket)), (150, 150, 0));
        assert_eq!(calls.ended(Endpoint::Token, "errcode 40001"), 75);
        assert_eq!((calls.recent.len(), calls.recent[0].unix_ms), (100, 50));
        let of = |agent: &str| calls.by_agent.get(agent).map_or(0, |counts| counts[&Endpoint::Token].values().sum());
        assert_eq!((calls.by_agent.len(), of("agent-15"), of("agent-16"), of("")), (17, 5, 0, 70));
    }

    #[test]
    fn a_program_is_known_by_what_stands_before_the_slash() {
        assert_eq!(agent_name("tokencached/0.1.0"), "tokencached");
        assert_eq!(agent_name("Mozilla/5.0 (X11)"), "Mozilla");
        assert_eq!(agent_name(&"x".repeat(100)).len(), AGENT_BYTES_MAX);
        assert_eq!(agent_name(""), "");
    }
}
