//! The side port: HTTP for people, monitoring, and code that does not speak memcached.
//!
//! Runs on a thread of its own, so nothing a client does here holds up a memcached client. Reads what the service and
//! the refresher publish, and hands wishes to the refresher by the table; never calls WeChat, and never shows a token
//! but to a reader who has the right to it.
//!
//! `server` accepts and cuts off, on `connections`; `access_control` decides who may what, on `limits`, `wrong_secrets` and `sessions`;
//! `context` is what handlers share; `status`, `apps`, `events`, `api`, `credentials`, `jssdk` (described by `openapi`), `health`, `metrics` with
//! `credential_metrics`, `wechat` (which tells the time of `wechat_expiry`) and `page`
//! are what there is to see; `malformed_requests` is what is said of a request that cannot be read.

mod access_control;
mod api;
mod app_secret;
mod apps;
mod connections;
mod context;
mod credential_metrics;
mod credentials;
mod events;
mod health;
mod jssdk;
mod limits;
mod malformed_requests;
mod metrics;
mod old_fields;
mod old_metric_names;
mod openapi;
pub mod options;
mod page;
mod problem;
mod query;
mod routes;
mod server;
mod sessions;
mod sink_metrics;
mod status;
mod wechat;
mod wechat_expiry;
mod wrong_secrets;

use std::net::{SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::thread::JoinHandle;

use arc_swap::ArcSwapOption;
use parking_lot::Mutex;

use crate::access::ApiKeys;
use crate::credential::App;
use crate::files;
use crate::files::watch::{ContentDigest, FileContent, NotApplied, WatchedFiles, digest_of};
use crate::service::Service;
use crate::supervision::Supervisor;
use crate::tls::Tls;
use access_control::AccessControl;
use context::ApiContext;
pub use options::Options;

/// The side port, bound and not yet served.
pub struct BoundListeners {
    listeners: Vec<TcpListener>,
    reload_handle: Arc<ReloadHandle>,
}

/// What may be replaced while the port is served.
pub struct ReloadHandle {
    access_control: AccessControl,
    tls: Option<Arc<Tls>>,
    keys_file: ArcSwapOption<PathBuf>,
    /// Of the text that the keys were read from.
    keys_in_use: Mutex<Option<ContentDigest>>,
}

impl ReloadHandle {
    /// Reads keys and certificates again. What cannot be used is reported and changes nothing; other settings of the
    /// section need a restart.
    pub fn reload(&self, options: &Options) {
        self.keys_file.store(options.keys_file.clone().map(Arc::new));
        if let (Some(path), true) = (&options.keys_file, self.access_control.has_keys()) {
            let mut in_use = self.keys_in_use.lock();
            match read_keys(path) {
                Ok((keys, digest)) => {
                    let count = keys.len();
                    self.access_control.set_keys(keys);
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

    /// The files of keys and certificates, to be watched.
    pub fn watched(self: &Arc<ReloadHandle>) -> Vec<Box<dyn WatchedFiles>> {
        let keys = self.access_control.has_keys().then(|| Box::new(KeysFile(self.clone())) as Box<dyn WatchedFiles>);
        let tls = self.tls.as_ref().map(|tls| tls.watched("the certificate and key of the HTTP port in"));
        keys.into_iter().chain(tls).collect()
    }
}

fn read_keys(path: &Path) -> Result<(ApiKeys, ContentDigest), String> {
    let fault = |what: &dyn std::fmt::Display| format!("the keys' file {}: {what}", path.display());
    let text = files::read(path, files::AUTH_FILE_BYTES_MAX).map_err(|error| fault(&error))?;
    let keys = ApiKeys::parse(&text).map_err(|error| fault(&error))?;
    Ok((keys, digest_of(&[text])))
}

/// The keys' file.
struct KeysFile(Arc<ReloadHandle>);

impl WatchedFiles for KeysFile {
    fn name(&self) -> String {
        "the keys' file".to_owned()
    }

    fn paths(&self) -> Vec<PathBuf> {
        self.0.keys_file.load().iter().map(|path| path.as_ref().clone()).collect()
    }

    fn bytes_max(&self) -> usize {
        files::AUTH_FILE_BYTES_MAX
    }

    fn take(&mut self, contents: &[FileContent], _at_start: bool) -> Result<(), NotApplied> {
        let mut in_use = self.0.keys_in_use.lock();
        let digest = Some(digest_of(contents));
        let (Some(text), false) = (contents.first(), *in_use == digest) else { return Ok(()) };
        let keys = ApiKeys::parse(text).map_err(|fault| NotApplied::Bad(fault.to_string()))?;
        let count = keys.len();
        self.0.access_control.set_keys(keys);
        *in_use = digest;
        tracing::info!(keys = count, "the keys' file has changed; keys are read again");
        Ok(())
    }
}

impl BoundListeners {
    /// Opens the sockets and reads keys and certificates. The error is a sentence for the operator.
    pub fn open(options: &Options) -> Result<BoundListeners, String> {
        let reload_handle = Arc::new(BoundListeners::read(options)?);
        let listeners = options.listen.iter().map(|address| bind(*address)).collect::<Result<_, _>>()?;
        Ok(BoundListeners { listeners, reload_handle })
    }

    /// Reads keys and certificates and opens nothing: for `check`.
    pub fn check_files(options: &Options) -> Result<(), String> {
        BoundListeners::read(options).map(drop)
    }

    fn read(options: &Options) -> Result<ReloadHandle, String> {
        let tls = options.tls.as_ref().map(Tls::new).transpose();
        let tls = tls.map_err(|error| format!("TLS of the side port: {error}"))?.map(Arc::new);
        let (keys, in_use) = options.keys_file.as_deref().map(read_keys).transpose()?.unzip();
        let keys_file = ArcSwapOption::new(options.keys_file.clone().map(Arc::new));
        Ok(ReloadHandle {
            access_control: AccessControl::new(options, keys),
            tls,
            keys_file,
            keys_in_use: Mutex::new(in_use),
        })
    }

    /// Where it listens, with real port numbers.
    pub fn addresses(&self) -> Vec<SocketAddr> {
        self.listeners.iter().filter_map(|listener| listener.local_addr().ok()).collect()
    }

    /// For SIGHUP, and for whoever follows its files.
    pub fn reload_handle(&self) -> Arc<ReloadHandle> {
        self.reload_handle.clone()
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
pub struct HttpApi {
    thread: JoinHandle<()>,
}

impl HttpApi {
    /// Starts serving; ends when the shutdown fires.
    pub fn start(
        door: BoundListeners,
        options: &Options,
        apps: &[App],
        service: Arc<Service>,
        supervisor: &Supervisor,
    ) -> std::io::Result<HttpApi> {
        let context =
            Arc::new(ApiContext::new(options, apps, service, door.reload_handle, supervisor.shutdown().clone()));
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .max_blocking_threads(BLOCKING_THREADS)
            .build()?;
        let (listeners, supervisor) = (door.listeners, supervisor.clone());
        let alive = supervisor.watch("the HTTP port");
        let thread = std::thread::Builder::new().name("side".to_owned()).spawn(move || {
            let _alive = alive;
            runtime.block_on(server::serve(listeners, context, &supervisor));
            runtime.shutdown_background();
        })?;
        Ok(HttpApi { thread })
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
