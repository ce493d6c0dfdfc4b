//! The simulated platforms: a real HTTP server that makes tokens, limits calls and refuses as WeChat and the others do,
//! and that misbehaves if asked. For `tokencached sandbox`, `tokencached demo` and the tests.
//!
//! Never calls a real platform, never writes a file, never logs a token or a secret. It shows its tokens to everybody:
//! they are worth nothing.
//!
//! | where | what |
//! |---|---|
//! | `rules.rs` | the platforms' rules as a pure state machine; `rules/component.rs` those of the open platform |
//! | `quota.rs` | counters of calls for each minute, hour, day, month |
//! | `answer.rs` | answers in the platforms' exact JSON |
//! | `fault.rs` | the ways to misbehave |
//! | `http.rs` | the API's routes |
//! | `control.rs` | the control calls under `/sandbox/`, and the page at `/` |
//! | `server.rs` | connections, TLS, faults on the socket itself |
//! | `state.rs`, `calls.rs` | what the connections share; the record of calls |
//!
//! ```no_run
//! # async fn example() -> std::io::Result<()> {
//! use tokencached::sandbox::{AppOptions, FaultKind, InjectedFault, Options, Sandbox};
//!
//! let app = AppOptions { appid: "wx1".into(), secret: "s".into(), ..AppOptions::default() };
//! let sandbox = Sandbox::start(Options { apps: vec![app], ..Options::default() }).await?;
//! sandbox.set_fault("wx1", InjectedFault::new(FaultKind::Reset).times(1));
//! println!("{}", sandbox.base_url());
//! # Ok(()) }
//! ```

#[doc(hidden)]
pub mod answer;
mod calls;
mod control;
mod fault;
mod http;
mod options;
mod quota;
#[doc(hidden)]
pub mod rules;
#[cfg(test)]
mod rules_tests;
mod server;
mod state;

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use tokio::net::TcpListener;
use tokio_util::sync::{CancellationToken, DropGuard};
use tokio_util::task::TaskTracker;

pub use self::calls::{AppCalls, CallCounts, RecordedCall};
pub use self::fault::{ALL_APPS, FaultKind, FaultScope, InjectedFault};
pub use self::options::{AppOptions, Options, Quotas, SandboxPlatform, SandboxTlsFiles, times_shorter};
use self::rules::World;
pub use self::rules::{Endpoint, Verdict};
use self::state::SandboxState;
use crate::clock::Now;
use crate::network::reached_locally;

/// A running sandbox. Dropping it ends it; [`Sandbox::stop`] also waits until every connection is closed.
#[derive(Debug)]
pub struct Sandbox {
    addr: SocketAddr,
    base_url: String,
    shared: Arc<SandboxState>,
    tracker: TaskTracker,
    stop: DropGuard,
}

impl Sandbox {
    /// Listens and serves in the background of the current tokio runtime. Fails if the address is taken or a TLS file
    /// is unusable.
    pub async fn start(options: Options) -> io::Result<Sandbox> {
        let tls = options.tls.as_ref().map(server::tls).transpose()?;
        let listener = TcpListener::bind(options.listen).await?;
        let addr = listener.local_addr()?;
        let reached = reached_locally(addr.ip()).first().map_or(addr, |ip| SocketAddr::new(*ip, addr.port()));
        let base_url = format!("{}://{reached}", if tls.is_some() { "https" } else { "http" });
        let shared = Arc::new(SandboxState::new(&options));
        let router = http::routes().merge(control::routes(&base_url)).with_state(Arc::clone(&shared));
        let (stop, tracker) = (CancellationToken::new(), TaskTracker::new());
        tracker.spawn(server::accept(listener, router, tls, stop.clone(), tracker.clone()));
        tracker.close();
        Ok(Sandbox { addr, base_url, shared, tracker, stop: stop.drop_guard() })
    }

    /// Where it listens.
    pub fn addr(&self) -> SocketAddr {
        self.addr
    }

    /// `http://127.0.0.1:port` or the like, without a slash at the end.
    pub fn base_url(&self) -> String {
        self.base_url.clone()
    }

    /// Ends it and waits until every connection is closed.
    pub async fn stop(self) {
        drop(self.stop);
        self.tracker.wait().await;
    }

    /// Sets a fault for calls of the app, in place of those set before; [`ALL_APPS`] means every app.
    pub fn set_fault(&self, appid: &str, fault: InjectedFault) {
        self.shared.with_locked(|inner| inner.faults.set(appid, fault));
    }

    /// Adds a fault after those already set; the first that covers a call is used.
    pub fn add_fault(&self, appid: &str, fault: InjectedFault) {
        self.shared.with_locked(|inner| inner.faults.add(appid, fault));
    }

    /// Removes the app's faults.
    pub fn clear_fault(&self, appid: &str) {
        self.shared.with_locked(|inner| inner.faults.clear(appid));
    }

    /// The calls so far. The empty appid has those that named no known app.
    pub fn calls(&self, appid: &str) -> AppCalls {
        self.shared.calls(appid)
    }

    /// How a call with this token would be answered.
    pub fn judge(&self, token: &str) -> Verdict {
        self.shared.with_locked(|inner| inner.world.judge(token, Now::read()))
    }

    /// Ends all tokens of the app early: none is accepted any more, and the next call makes a new one.
    pub fn kill_tokens(&self, appid: &str) {
        self.change_app(appid, |world| world.kill_tokens(appid));
    }

    /// The same, and the token endpoint does not notice: it goes on giving the dead token until its end, or until a forced
    /// call.
    pub fn kill_tokens_unnoticed(&self, appid: &str) {
        self.change_app(appid, |world| world.kill_tokens_unnoticed(appid));
    }

    /// The platform changes the app's tickets now.
    pub fn roll_tickets(&self, appid: &str) {
        self.change_app(appid, |world| world.roll_tickets(appid));
    }

    /// Sets the addresses that may fetch tokens; `None` allows all.
    pub fn set_allowlist(&self, appid: &str, allowlist: Option<Vec<IpAddr>>) {
        self.change_app(appid, |world| world.set_allowlist(appid, allowlist));
    }

    /// Freezes or unfreezes the app's secret.
    pub fn freeze_secret(&self, appid: &str, frozen: bool) {
        self.change_app(appid, |world| world.freeze_secret(appid, frozen));
    }

    /// Resets the app's secret; live tokens live on.
    pub fn set_secret(&self, appid: &str, secret: &str) {
        self.change_app(appid, |world| world.set_secret(appid, secret));
    }

    /// WeChat pushes another verify ticket to the component. Returns what its receiver would decrypt; empty if there is no
    /// such component.
    pub fn push_verify_ticket(&self, appid: &str) -> String {
        self.shared.with_locked(|inner| inner.world.push_verify_ticket(appid, Now::read())).unwrap_or_default()
    }

    /// Lets every ticket pushed so far expire.
    pub fn expire_verify_tickets(&self, appid: &str) {
        self.change_app(appid, |world| world.expire_verify_tickets(appid));
    }

    /// The account's administrator authorises its component again. Returns the new refresh token; empty if it has no
    /// component.
    pub fn authorise(&self, appid: &str) -> String {
        self.shared.with_locked(|inner| inner.world.authorise(appid)).unwrap_or_default()
    }

    /// The account's administrator withdraws the authorisation: no refresh token is good any more.
    pub fn withdraw(&self, appid: &str) {
        self.change_app(appid, |world| world.withdraw(appid));
    }

    /// The refresh token of an authorizer that is good now; empty if there is none.
    pub fn refresh_token(&self, appid: &str) -> String {
        self.shared.with_locked(|inner| inner.world.refresh_token_of(appid)).unwrap_or_default()
    }

    fn change_app(&self, appid: &str, change: impl FnOnce(&mut World) -> bool) {
        if !self.shared.with_locked(|inner| change(&mut inner.world)) {
            tracing::warn!(appid, "sandbox: no such app");
        }
    }
}
