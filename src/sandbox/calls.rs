//! The record of calls: counts since the start and the last few in full. Never holds a token or a secret.

use std::collections::{BTreeMap, VecDeque};
use std::net::SocketAddr;

use serde::Serialize;

use super::rules::Endpoint;

/// How many calls are kept in full.
const RECENT_MAX: usize = 100;

/// The calls of one app since the sandbox started. Calls that name no known app are under the empty name.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Calls {
    /// How many calls of each endpoint ended how: `ok`, `errcode 40001`, `fault hang`.
    pub counts: BTreeMap<Endpoint, BTreeMap<String, u64>>,
    /// Tokens minted for the app.
    pub minted: u64,
    /// Calls now being answered.
    pub in_flight: u64,
    /// The most calls that were ever being answered at one time.
    pub in_flight_max: u64,
    /// The last 100 calls, oldest first.
    pub recent: VecDeque<Call>,
}

/// One call.
#[derive(Clone, Debug, Serialize)]
pub struct Call {
    /// Arrival, milliseconds since 1970.
    pub unix_ms: i64,
    /// Which endpoint.
    pub endpoint: Endpoint,
    /// The errcode sent, if it was one.
    pub errcode: Option<i64>,
    /// How it ended: `ok`, `errcode 40001`, `fault hang`.
    pub outcome: String,
    /// Who called.
    pub peer: SocketAddr,
}

impl Calls {
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

    pub(super) fn record(&mut self, call: Call) {
        *self.counts.entry(call.endpoint).or_default().entry(call.outcome.clone()).or_default() += 1;
        if self.recent.len() == RECENT_MAX {
            self.recent.pop_front();
        }
        self.recent.push_back(call);
    }

    pub(super) fn enter(&mut self) {
        self.in_flight += 1;
        self.in_flight_max = self.in_flight_max.max(self.in_flight);
    }

    pub(super) fn leave(&mut self) {
        self.in_flight = self.in_flight.saturating_sub(1);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counts_are_kept_for_ever_and_only_the_last_hundred_in_full() {
        let mut calls = Calls::default();
        for at in 0..150 {
            let outcome = if at % 2 == 0 { "ok" } else { "errcode 40001" };
            let peer = SocketAddr::from(([127, 0, 0, 1], 1));
            calls.record(Call { unix_ms: at, endpoint: Endpoint::Token, errcode: None, outcome: outcome.into(), peer });
        }
        assert_eq!((calls.total(), calls.of(Endpoint::Token), calls.of(Endpoint::Ticket)), (150, 150, 0));
        assert_eq!(calls.ended(Endpoint::Token, "errcode 40001"), 75);
        assert_eq!((calls.recent.len(), calls.recent[0].unix_ms), (100, 50));
    }
}
