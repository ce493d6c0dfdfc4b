//! What all connections share: the world, the faults, the record of calls, behind one lock that is never held across
//! an await. Reads the clock, so that the rules need not.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;

use parking_lot::Mutex;

use super::calls::{Call, Calls};
use super::fault::{InjectedFault, InjectedFaults};
use super::options::Options;
use super::rules::{ApiAnswer, ApiRequest, World};
use super::server::Line;
use crate::clock::Now;

/// Calls that name no known app are recorded under this name.
const NO_APP: &str = "";

#[derive(Debug)]
pub(super) struct Shared {
    inner: Mutex<Inner>,
}

#[derive(Debug)]
pub(super) struct Inner {
    pub(super) world: World,
    pub(super) faults: InjectedFaults,
    calls: BTreeMap<String, Calls>,
}

impl Shared {
    pub(super) fn new(options: &Options) -> Shared {
        let world = World::new(options, fastrand::u64(..));
        Shared { inner: Mutex::new(Inner { world, faults: InjectedFaults::default(), calls: BTreeMap::new() }) }
    }

    /// Runs `work` under the lock.
    pub(super) fn with<T>(&self, work: impl FnOnce(&mut Inner) -> T) -> T {
        work(&mut self.inner.lock())
    }

    /// A call comes in: it is recorded, and either a fault strikes it or it has its answer.
    pub(super) fn arrive(
        self: &Arc<Shared>,
        ask: &ApiRequest,
        line: &Line,
    ) -> (Flight, Result<ApiAnswer, InjectedFault>) {
        let (now, peer) = (Now::read(), line.peer);
        let mut inner = self.inner.lock();
        let appid = inner.world.app_of(ask).unwrap_or_else(|| NO_APP.to_owned());
        let endpoint = ask.endpoint();
        let fate = match inner.faults.strike(&appid, endpoint) {
            Some(fault) => Err(fault),
            None => Ok(inner.world.ask(ask, peer.ip(), now)),
        };
        let (errcode, outcome) = match &fate {
            Ok(ApiAnswer::Refused { errcode, .. }) => (Some(*errcode), format!("errcode {errcode}")),
            Ok(_) => (None, "ok".to_owned()),
            Err(fault) => (fault.errcode(), fault.outcome().to_owned()),
        };
        let calls = inner.calls.entry(appid.clone()).or_default();
        calls.record(Call { unix_ms: now.unix_ms, endpoint, errcode, outcome, peer, agent: line.agent.clone() });
        calls.enter();
        (Flight { shared: Arc::clone(self), appid }, fate)
    }

    /// The API's work for a call a fault has struck; already recorded.
    pub(super) fn work(&self, ask: &ApiRequest, peer: SocketAddr) -> ApiAnswer {
        self.with(|inner| inner.world.ask(ask, peer.ip(), Now::read()))
    }

    /// The answer a call would have had, without the API having done anything: its token was never issued.
    pub(super) fn decoy(&self, ask: &ApiRequest) -> ApiAnswer {
        self.with(|inner| inner.world.decoy_answer(ask))
    }

    /// A copy of one app's record.
    pub(super) fn calls(&self, appid: &str) -> Calls {
        self.with(|inner| {
            let calls = inner.calls.get(appid).cloned().unwrap_or_default();
            Calls { minted: inner.world.minted(appid), ..calls }
        })
    }

    /// Copies of all records, also of apps nobody has called yet.
    pub(super) fn all_calls(&self) -> BTreeMap<String, Calls> {
        let known = self.with(|inner| {
            let called = inner.calls.keys().cloned();
            called.chain(inner.world.appids().map(str::to_owned)).collect::<Vec<_>>()
        });
        known.into_iter().map(|appid| (appid.clone(), self.calls(&appid))).collect()
    }
}

/// A call being answered; dropped when its answer is handed over or its caller has left.
#[derive(Debug)]
pub(super) struct Flight {
    shared: Arc<Shared>,
    appid: String,
}

impl Drop for Flight {
    fn drop(&mut self) {
        self.shared.with(|inner| {
            if let Some(calls) = inner.calls.get_mut(&self.appid) {
                calls.leave();
            }
        });
    }
}
