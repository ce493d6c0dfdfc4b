//! The side port: HTTP for people, monitoring, and code that does not speak memcached.
//!
//! Runs on a thread of its own, so nothing a client does here holds up a memcached client. Reads what the service and
//! the refresher publish, and hands wishes to the refresher by the table; never calls WeChat, and never shows a token
//! but to a reader who has the right to it.
//!
//! `server` accepts and cuts off, on `connections`; `gate` decides who may what, on `limits`, `attempts` and `sessions`;
//! `parts` is what handlers share; `status`, `apps`, `events`, `api`, `credentials`, `jssdk` (described by `openapi`), `health`, `metrics` with
//! `credential_metrics`, `wechat` (which tells the time of `wechat_time`) and `page`
//! are what there is to see; `unreadable` is what is said of a request that cannot be read.

mod api;
mod app_secret;
mod apps;
mod attempts;
mod connections;
mod credential_metrics;
mod credentials;
mod events;
mod gate;
mod health;
mod jssdk;
mod limits;
mod metrics;
mod openapi;
pub mod options;
mod page;
mod parts;
mod problem;
mod query;
mod routes;
mod server;
mod sessions;
mod sink_metrics;
mod status;
mod unreadable;
mod wechat;
mod wechat_time;

use std::net::{SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::thread::JoinHandle;

use arc_swap::ArcSwapOption;
use parking_lot::Mutex;

use crate::access::Keys;
use crate::credential::App;
use crate::files;
use crate::files::watch::{Content, Digest, Followed, NotTaken, digest_of};
use crate::server::tls::Tls;
use crate::service::Service;
use crate::supervision::Supervisor;
use gate::Gate;
pub use options::Options;
use parts::Parts;

/// The side port, bound and not yet served.
pub struct Door {
    listeners: Vec<TcpListener>,
    keeper: Arc<Keeper>,
}

/// What may be replaced while the port is served.
pub struct Keeper {
    gate: Gate,
    tls: Option<Arc<Tls>>,
    keys_file: ArcSwapOption<PathBuf>,
    /// Of the text that the keys were read from.
    keys_in_use: Mutex<Option<Digest>>,
}

impl Keeper {
    /// Reads keys and certificates again. What cannot be used is reported and changes nothing; other settings of the
    /// section need a restart.
    pub fn reload(&self, side: &Options) {
        self.keys_file.store(side.keys_file.clone().map(Arc::new));
        if let (Some(path), true) = (&side.keys_file, self.gate.is_keyed()) {
            let mut in_use = self.keys_in_use.lock();
            match read_keys(path) {
                Ok((keys, digest)) => {
                    let count = keys.len();
                    self.gate.set_keys(keys);
                    *in_use = Some(digest);
                    tracing::info!(keys = count, "the side port's keys are read again");
                }
                Err(error) => tracing::error!("{error}; the side port's keys stay as they were"),
            }
        }
        match self.tls.as_ref().map(|tls| tls.refresh()) {
            Some(Ok(())) => tracing::info!("the side port's certificates are read again"),
            Some(Err(error)) => tracing::error!("TLS of the side port: {error}; the certificates stay as they were"),
            None => {}
        }
    }

    /// The files of keys and certificates, to be followed.
    pub fn followed(self: &Arc<Keeper>) -> Vec<Box<dyn Followed>> {
        let keys = self.gate.is_keyed().then(|| Box::new(KeysFile(self.clone())) as Box<dyn Followed>);
        let tls = self.tls.as_ref().map(|tls| tls.followed("the certificate and key of the HTTP port in"));
        keys.into_iter().chain(tls).collect()
    }
}

fn read_keys(path: &Path) -> Result<(Keys, Digest), String> {
    let fault = |what: &dyn std::fmt::Display| format!("the keys' file {}: {what}", path.display());
    let text = files::read(path, files::AUTH_FILE_BYTES_MAX).map_err(|error| fault(&error))?;
    let keys = Keys::parse(&text).map_err(|error| fault(&error))?;
    Ok((keys, digest_of(&[text])))
}

/// The keys' file.
struct KeysFile(Arc<Keeper>);

impl Followed for KeysFile {
    fn name(&self) -> String {
        "the keys' file".to_owned()
    }

    fn paths(&self) -> Vec<PathBuf> {
        self.0.keys_file.load().iter().map(|path| path.as_ref().clone()).collect()
    }

    fn bytes_max(&self) -> usize {
        files::AUTH_FILE_BYTES_MAX
    }

    fn take(&mut self, contents: &[Content], _at_start: bool) -> Result<(), NotTaken> {
        let mut in_use = self.0.keys_in_use.lock();
        let digest = Some(digest_of(contents));
        let (Some(text), false) = (contents.first(), *in_use == digest) else { return Ok(()) };
        let keys = Keys::parse(text).map_err(|fault| NotTaken::Bad(fault.to_string()))?;
        let count = keys.len();
        self.0.gate.set_keys(keys);
        *in_use = digest;
        tracing::info!(keys = count, "the keys' file has changed; keys are read again");
        Ok(())
    }
}

impl Door {
    /// Opens the sockets and reads keys and certificates. The error is a sentence for the operator.
    pub fn open(side: &Options) -> Result<Door, String> {
        let keeper = Arc::new(Door::read(side)?);
        let listeners = side.listen.iter().map(|address| bind(*address)).collect::<Result<_, _>>()?;
        Ok(Door { listeners, keeper })
    }

    /// Reads keys and certificates and opens nothing: for `check`.
    pub fn judge(side: &Options) -> Result<(), String> {
        Door::read(side).map(drop)
    }

    fn read(side: &Options) -> Result<Keeper, String> {
        let tls = side.tls.as_ref().map(Tls::new).transpose();
        let tls = tls.map_err(|error| format!("TLS of the side port: {error}"))?.map(Arc::new);
        let (keys, in_use) = side.keys_file.as_deref().map(read_keys).transpose()?.unzip();
        let keys_file = ArcSwapOption::new(side.keys_file.clone().map(Arc::new));
        Ok(Keeper { gate: Gate::new(side, keys), tls, keys_file, keys_in_use: Mutex::new(in_use) })
    }

    /// Where it listens, with real port numbers.
    pub fn addresses(&self) -> Vec<SocketAddr> {
        self.listeners.iter().filter_map(|listener| listener.local_addr().ok()).collect()
    }

    /// For SIGHUP, and for whoever follows its files.
    pub fn keeper(&self) -> Arc<Keeper> {
        self.keeper.clone()
    }
}

/// Connections that wait to be accepted.
const BACKLOG: i32 = 4096;
/// Those that secret files on a disk that hangs may take, and some for what else is written aside.
const BLOCKING_THREADS: usize = files::READS_MAX + 4;

fn bind(address: SocketAddr) -> Result<TcpListener, String> {
    let fault = |error: std::io::Error| match error.kind() {
        std::io::ErrorKind::AddrInUse => {
            format!(
                "cannot listen on {address} (side port): something listens there already; choose another listen in [side]"
            )
        }
        _ => format!("cannot listen on {address} (side port): {error}"),
    };
    let listener = TcpListener::bind(address).map_err(fault)?;
    listener.set_nonblocking(true).map_err(fault)?;
    // The standard library's queue is so short that a burst of connections holds up those who ask for health.
    rustix::net::listen(&listener, BACKLOG).map_err(|error| fault(error.into()))?;
    Ok(listener)
}

/// The side port on its thread.
pub struct Side {
    thread: JoinHandle<()>,
}

impl Side {
    /// Starts serving; ends when the shutdown fires.
    pub fn start(
        door: Door,
        options: &Options,
        apps: &[App],
        service: Arc<Service>,
        supervisor: &Supervisor,
    ) -> std::io::Result<Side> {
        let parts = Arc::new(Parts::new(options, apps, service, door.keeper, supervisor.shutdown().clone()));
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .max_blocking_threads(BLOCKING_THREADS)
            .build()?;
        let (listeners, supervisor) = (door.listeners, supervisor.clone());
        let alive = supervisor.watch("the HTTP port");
        let thread = std::thread::Builder::new().name("side".to_owned()).spawn(move || {
            let _alive = alive;
            runtime.block_on(server::serve(listeners, parts, &supervisor));
            runtime.shutdown_background();
        })?;
        Ok(Side { thread })
    }

    /// Waits for its end.
    pub async fn join(self) {
        let thread = self.thread;
        match tokio::task::spawn_blocking(move || thread.join()).await {
            Ok(Ok(())) => {}
            _ => tracing::error!("the side port ended badly"),
        }
    }
}
