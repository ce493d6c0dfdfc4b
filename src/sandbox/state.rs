//! What all connections share, behind one lock: the simulated platforms, the faults, the record of calls. Reads the clock
//! for the rules. Never holds the lock across an await.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;

use parking_lot::Mutex;

use super::calls::{AppCalls, RecordedCall};
use super::fault::{InjectedFault, InjectedFaults};
use super::options::Options;
use super::rules::{ApiAnswer, ApiRequest, World};
use crate::clock::Now;

/// Calls that name no known app are recorded under this name.
const NO_APP: &str = "";

#[derive(Debug)]
pub(super) struct SandboxState {
    inner: Mutex<LockedState>,
}

#[derive(Debug)]
pub(super) struct LockedState {
    pub(super) world: World,
    pub(super) faults: InjectedFaults,
    calls: BTreeMap<String, AppCalls>,
}

impl SandboxState {
    pub(super) fn new(options: &Options) -> SandboxState {
        let world = World::new(options, fastrand::u64(..));
        SandboxState {
            inner: Mutex::new(LockedState { world, faults: InjectedFaults::default(), calls: BTreeMap::new() }),
        }
    }

    /// Runs `work` under the lock.
    pub(super) fn with_locked<T>(&self, work: impl FnOnce(&mut LockedState) -> T) -> T {
        work(&mut self.inner.lock())
    }

    /// Records a call, and answers it unless there is a fault for it.
    pub(super) fn begin_call(
        self: &Arc<SandboxState>,
        ask: &ApiRequest,
        peer: SocketAddr,
        agent: String,
    ) -> (OpenCall, Result<ApiAnswer, InjectedFault>) {
        let now = Now::read();
        let mut inner = self.inner.lock();
        let appid = inner.world.app_of(ask).unwrap_or_else(|| NO_APP.to_owned());
        let endpoint = ask.endpoint();
        let result = match inner.faults.take_fault(&appid, endpoint) {
            Some(fault) => Err(fault),
            None => Ok(inner.world.ask(ask, peer.ip(), now)),
        };
        let (errcode, outcome) = match &result {
            Ok(ApiAnswer::Refused { errcode, .. }) => (Some(*errcode), format!("errcode {errcode}")),
            Ok(_) => (None, "ok".to_owned()),
            Err(fault) => (fault.errcode(), fault.outcome().to_owned()),
        };
        let calls = inner.calls.entry(appid.clone()).or_default();
        calls.record(RecordedCall { unix_ms: now.unix_ms, endpoint, errcode, outcome, peer, agent });
        calls.begin();
        (OpenCall { shared: Arc::clone(self), appid }, result)
    }

    /// Does what a call with a fault asks for; the call has been recorded.
    pub(super) fn execute(&self, ask: &ApiRequest, peer: SocketAddr) -> ApiAnswer {
        self.with_locked(|inner| inner.world.ask(ask, peer.ip(), Now::read()))
    }

    /// The answer that the call would have had, without any effect: its token was never issued.
    pub(super) fn answer_without_effect(&self, ask: &ApiRequest) -> ApiAnswer {
        self.with_locked(|inner| inner.world.answer_without_effect(ask))
    }

    /// A copy of one app's record.
    pub(super) fn calls(&self, appid: &str) -> AppCalls {
        self.with_locked(|inner| {
            let calls = inner.calls.get(appid).cloned().unwrap_or_default();
            AppCalls { minted: inner.world.minted(appid), ..calls }
        })
    }

    /// Copies of all records, also of apps without calls.
    pub(super) fn all_calls(&self) -> BTreeMap<String, AppCalls> {
        let known = self.with_locked(|inner| {
            let called = inner.calls.keys().cloned();
            called.chain(inner.world.appids().map(str::to_owned)).collect::<Vec<_>>()
        });
        known.into_iter().map(|appid| (appid.clone(), self.calls(&appid))).collect()
    }
}

/// A call that is being answered. Dropped when the answer is complete or the caller has gone.
#[derive(Debug)]
pub(super) struct OpenCall {
    shared: Arc<SandboxState>,
    appid: String,
}

impl Drop for OpenCall {
    fn drop(&mut self) {
        self.shared.with_locked(|inner| {
            if let Some(calls) = inner.calls.get_mut(&self.appid) {
                calls.end();
            }
        });
    }
}
