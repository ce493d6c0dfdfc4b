//! A simulated WeChat API: a real HTTP server that mints, renews, limits and refuses as WeChat does, and misbehaves on
//! demand. For `tokencached sandbox`, for `tokencached demo`, and for every test that needs an upstream.
//!
//! Never calls WeChat, never writes a file, never logs a token or a secret. It shows its tokens to whoever asks: they
//! are worth nothing.
//!
//! | where | what |
//! |---|---|
//! | `rules.rs` | WeChat's rules as a pure state machine: time in, answers out; `rules/component.rs` the open platform's |
//! | `quota.rs` | call counters per minute, hour, day, month |
//! | `answer.rs` | answers in WeChat's exact JSON |
//! | `fault.rs` | the ways to misbehave |
//! | `http.rs` | the API's routes |
//! | `control.rs` | the `/sandbox/` routes and the page at `/` |
//! | `server.rs` | connections, TLS, faults on the raw socket |
//! | `state.rs`, `calls.rs` | what the connections share; the record of calls |
//!
//! ```no_run
//! # async fn example() -> std::io::Result<()> {
//! use tokencached::sandbox::{AppOptions, InjectedFault, FaultKind, Options, Sandbox};
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
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::Arc;

use tokio::net::TcpListener;
use tokio_util::sync::{CancellationToken, DropGuard};
use tokio_util::task::TaskTracker;

pub use self::calls::{Call, Calls, Counts};
pub use self::fault::{ALL_APPS, FaultKind, FaultScope, InjectedFault};
pub use self::options::{AppOptions, Options, Quotas, SandboxPlatform, SandboxTlsFiles, times_shorter};
use self::rules::World;
pub use self::rules::{Endpoint, Verdict};
use self::state::Shared;
use crate::clock::Now;

/// A running sandbox. Dropping it ends it; [`Sandbox::stop`] also waits until every connection is closed.
#[derive(Debug)]
pub struct Sandbox {
    addr: SocketAddr,
    base_url: String,
    shared: Arc<Shared>,
    tracker: TaskTracker,
    stop: DropGuard,
}

impl Sandbox {
    /// Listens and serves in the background of the current tokio runtime. Fails if the address is taken or a TLS file
    /// is unusable.
    pub async fn start(options: Options) -> io::Result<Sandbox> {
        let tls = options.tls.as_ref().map(server::tls_acceptor).transpose()?;
        let listener = TcpListener::bind(options.listen).await?;
        let addr = listener.local_addr()?;
        let base_url = format!("{}://{}", if tls.is_some() { "https" } else { "http" }, reachable(addr));
        let shared = Arc::new(Shared::new(&options));
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

    /// Makes calls of the app misbehave, in place of any faults set before; [`ALL_APPS`] means every app.
    pub fn set_fault(&self, appid: &str, fault: InjectedFault) {
        self.shared.with(|inner| inner.faults.set(appid, fault));
    }

    /// Adds a fault behind those already set; the first that covers a call strikes it.
    pub fn add_fault(&self, appid: &str, fault: InjectedFault) {
        self.shared.with(|inner| inner.faults.add(appid, fault));
    }

    /// Takes the app's faults away.
    pub fn clear_fault(&self, appid: &str) {
        self.shared.with(|inner| inner.faults.clear(appid));
    }

    /// What has been called so far. The empty appid has the calls that named no known app.
    pub fn calls(&self, appid: &str) -> Calls {
        self.shared.calls(appid)
    }

    /// What a business call would make of this token.
    pub fn judge(&self, token: &str) -> Verdict {
        self.shared.with(|inner| inner.world.judge(token, Now::read()))
    }

    /// Early death: no token of the app is accepted any more; the next ask mints a new one.
    pub fn kill_tokens(&self, appid: &str) {
        self.order(appid, |world| world.kill_tokens(appid));
    }

    /// Early death that the token endpoint has not noticed: it gives the dead token out until it is due, or forced.
    pub fn kill_tokens_unnoticed(&self, appid: &str) {
        self.order(appid, |world| world.kill_tokens_unnoticed(appid));
    }

    /// The vendor changes the app's tickets now.
    pub fn roll_tickets(&self, appid: &str) {
        self.order(appid, |world| world.roll_tickets(appid));
    }

    /// The addresses that may ask for tokens; `None` enforces nothing.
    pub fn set_allowlist(&self, appid: &str, allowlist: Option<Vec<IpAddr>>) {
        self.order(appid, |world| world.set_allowlist(appid, allowlist));
    }

    /// Freezes or unfreezes the app's secret.
    pub fn freeze_secret(&self, appid: &str, frozen: bool) {
        self.order(appid, |world| world.freeze_secret(appid, frozen));
    }

    /// Resets the app's secret; live tokens live on.
    pub fn set_secret(&self, appid: &str, secret: &str) {
        self.order(appid, |world| world.set_secret(appid, secret));
    }

    /// WeChat pushes another verify ticket to the component; this is what its receiver would decrypt. Empty if there is
    /// no such component.
    pub fn push_verify_ticket(&self, appid: &str) -> String {
        self.shared.with(|inner| inner.world.push_verify_ticket(appid, Now::read())).unwrap_or_default()
    }

    /// Twelve hours have passed for every ticket pushed so far.
    pub fn expire_verify_tickets(&self, appid: &str) {
        self.order(appid, |world| world.expire_verify_tickets(appid));
    }

    /// The account's administrator authorises its component anew: the new refresh token. Empty if it has none.
    pub fn authorise(&self, appid: &str) -> String {
        self.shared.with(|inner| inner.world.authorise(appid)).unwrap_or_default()
    }

    /// The account's administrator withdraws: no refresh token is good any more.
    pub fn withdraw(&self, appid: &str) {
        self.order(appid, |world| world.withdraw(appid));
    }

    /// The refresh token of an authorizer that is good now. Empty if there is none.
    pub fn refresh_token(&self, appid: &str) -> String {
        self.shared.with(|inner| inner.world.refresh_token_of(appid)).unwrap_or_default()
    }

    fn order(&self, appid: &str, carry_out: impl FnOnce(&mut World) -> bool) {
        if !self.shared.with(|inner| carry_out(&mut inner.world)) {
            tracing::warn!(appid, "sandbox: no such app");
        }
    }
}

/// An address a client on this machine can connect to, also when listening on all of them.
fn reachable(addr: SocketAddr) -> SocketAddr {
    let ip = match addr.ip() {
        IpAddr::V4(ip) if ip.is_unspecified() => Ipv4Addr::LOCALHOST.into(),
        IpAddr::V6(ip) if ip.is_unspecified() => Ipv6Addr::LOCALHOST.into(),
        ip => ip,
    };
    SocketAddr::new(ip, addr.port())
}
