//! The HTTP API: a second port for browsers, monitoring and programs that do not speak memcached.
//!
//! It runs on a thread of its own, so no HTTP client delays a memcached client. It reads what the service and the
//! refresher publish, and asks the refresher for verifications through the table. It never calls a platform, and never
//! gives a token to a caller without the right to read it.
//!
//! | file | what it does |
//! |---|---|
//! | `server`, `connections`, `answer_stream` | limit, serve and end connections |
//! | `admission`, `access_control`, `sessions`, `wrong_secrets` | who the caller is, and what it may do how often |
//! | `routes`, `call`, `context`, `problem` | from a path to its handler; what handlers get and share; errors |
//! | `api`, `apps`, `credentials`, `events`, `status`, `jssdk`, `health` | the JSON API, described by `openapi.json` |
//! | `metrics`, `credential_metrics`, `metrics_writer` | `/metrics` |
//! | `wechat`, `wechat_expiry`, `app_secret`, `issued_tokens` | WeChat's own calls |
//! | `page` | the status page |
//! | `old_metric_names`, `old_fields` | names of before, kept for old dashboards and programs |

mod access_control;
mod admission;
mod answer_stream;
mod api;
mod app_secret;
mod apps;
mod call;
mod connections;
mod context;
mod credential_metrics;
mod credentials;
mod events;
mod health;
mod issued_tokens;
mod jssdk;
mod metrics;
mod metrics_writer;
mod old_fields;
mod old_metric_names;
pub mod options;
mod page;
mod problem;
mod routes;
mod server;
mod sessions;
mod status;
mod wechat;
mod wechat_expiry;
mod wrong_secrets;

use std::net::{SocketAddr, TcpListener};
use std::path::PathBuf;
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

/// The sockets of the HTTP API: bound, and not yet served.
pub struct BoundListeners {
    listeners: Vec<TcpListener>,
    reload_handle: Arc<ReloadHandle>,
}

/// What can be replaced while the HTTP API is served: keys and certificates.
pub struct ReloadHandle {
    /// Those of the start.
    options: Arc<Options>,
    access_control: AccessControl,
    tls: Option<Arc<Tls>>,
    keys_file: ArcSwapOption<PathBuf>,
    /// The digest of the file that the keys were read from.
    keys_in_use: Mutex<Option<ContentDigest>>,
}

impl ReloadHandle {
    /// Reads keys and certificates again. A file that cannot be used is reported and changes nothing. The other settings
    /// need a restart.
    pub fn reload(&self, options: &Options) {
        self.keys_file.store(options.keys_file.clone().map(Arc::new));
        if self.access_control.has_keys {
            let mut in_use = self.keys_in_use.lock();
            match options.read_keys() {
                Ok(Some((keys, digest))) => {
                    let count = keys.count();
                    self.access_control.set_keys(keys);
                    *in_use = Some(digest);
                    tracing::info!(keys = count, "API keys reloaded");
                }
                Ok(None) => {}
                Err(error) => tracing::error!("reload failed: {error}; the API keys stay as they were"),
            }
        }
        match self.tls.as_ref().map(|tls| tls.refresh()) {
            Some(Ok(())) => tracing::info!("certificates of the HTTP API reloaded"),
            Some(Err(error)) => {
                tracing::error!("reload failed: TLS of the HTTP API: {error}; the certificates stay as they were")
            }
            None => {}
        }
    }

    /// The files of keys and certificates, to be watched.
    pub fn watched(self: &Arc<ReloadHandle>) -> Vec<Box<dyn WatchedFiles>> {
        let keys = self.access_control.has_keys.then(|| Box::new(KeysFile(self.clone())) as Box<dyn WatchedFiles>);
        let tls = self.tls.as_ref().map(|tls| tls.watched("the certificate and key of the HTTP API in"));
        keys.into_iter().chain(tls).collect()
    }
}

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

    fn apply(&mut self, contents: &[FileContent], _at_start: bool) -> Result<(), NotApplied> {
        let mut in_use = self.0.keys_in_use.lock();
        let digest = Some(digest_of(contents));
        let (Some(text), false) = (contents.first(), *in_use == digest) else { return Ok(()) };
        let keys = ApiKeys::parse(text).map_err(|fault| NotApplied::Bad(fault.to_string()))?;
        let count = keys.count();
        self.0.access_control.set_keys(keys);
        *in_use = digest;
        tracing::info!(keys = count, "API keys reloaded: their file has changed");
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

    /// Reads keys and certificates and opens nothing; for `tokencached check`.
    pub fn check_files(options: &Options) -> Result<(), String> {
        BoundListeners::read(options).map(drop)
    }

    fn read(options: &Options) -> Result<ReloadHandle, String> {
        let tls = options.tls.as_ref().map(Tls::new).transpose();
        let tls = tls.map_err(|error| format!("TLS of the HTTP API: {error}"))?.map(Arc::new);
        let (keys, in_use) = options.read_keys()?.unzip();
        let keys_file = ArcSwapOption::new(options.keys_file.clone().map(Arc::new));
        let options = Arc::new(options.clone());
        let access_control = AccessControl::new(options.clone(), keys);
        Ok(ReloadHandle { options, access_control, tls, keys_file, keys_in_use: Mutex::new(in_use) })
    }

    /// The addresses that it listens on, with real port numbers.
    pub fn addresses(&self) -> Vec<SocketAddr> {
        self.listeners.iter().filter_map(|listener| listener.local_addr().ok()).collect()
    }

    /// For a reload, and for whoever watches the files.
    pub fn reload_handle(&self) -> Arc<ReloadHandle> {
        self.reload_handle.clone()
    }
}

/// The most connections that wait to be accepted.
const BACKLOG: i32 = 4096;
/// Enough for reads of secret files on a disk that hangs, and some for other work.
const BLOCKING_THREADS: usize = files::READS_MAX + 4;

fn bind(address: SocketAddr) -> Result<TcpListener, String> {
    let fault = |error: std::io::Error| match error.kind() {
        std::io::ErrorKind::AddrInUse => {
            format!(
                "cannot listen on {address} (HTTP API): something listens there already; choose another listen in [http]"
            )
        }
        _ => format!("cannot listen on {address} (HTTP API): {error}"),
    };
    let listener = TcpListener::bind(address).map_err(fault)?;
    listener.set_nonblocking(true).map_err(fault)?;
    // The standard library's queue is so short that a burst of connections delays health checks.
    rustix::net::listen(&listener, BACKLOG).map_err(|error| fault(error.into()))?;
    Ok(listener)
}

/// The HTTP API while it is served.
pub struct HttpApi(JoinHandle<()>);

impl HttpApi {
    /// Starts serving; ends when the shutdown fires.
    pub fn start(
        bound: BoundListeners,
        apps: &[App],
        service: Arc<Service>,
        supervisor: &Supervisor,
    ) -> std::io::Result<HttpApi> {
        if bound.reload_handle.options.old_metric_names {
            tracing::warn!("/metrics gives the metric names of before: old_metric_names in [http] is true");
        }
        let context = Arc::new(ApiContext::new(apps, service, bound.reload_handle, supervisor.shutdown().clone()));
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .max_blocking_threads(BLOCKING_THREADS)
            .build()?;
        let (listeners, supervisor) = (bound.listeners, supervisor.clone());
        let alive = supervisor.watch("the HTTP API");
        let thread = std::thread::Builder::new().name("http".to_owned()).spawn(move || {
            let _alive = alive;
            runtime.block_on(server::serve(listeners, context, &supervisor));
            runtime.shutdown_background();
        })?;
        Ok(HttpApi(thread))
    }

    pub async fn join(self) {
        if !matches!(tokio::task::spawn_blocking(|| self.0.join()).await, Ok(Ok(()))) {
            tracing::error!("the thread of the HTTP API panicked");
        }
    }
}
