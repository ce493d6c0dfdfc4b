//! The start of a server in steps: [`Options`] -> [`Bound`] -> [`Unprivileged`] -> [`Running`].
//!
//! Each step is a type that only the step before makes and that the next one uses up, so none can be left out or come
//! too early. The first two may do what only root can. Never reads arguments or a configuration file, and never decides
//! an exit code.

use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use tokio_util::sync::CancellationToken;

use super::{Options, Running, StartError};
use crate::cluster;
use crate::credential::state_lock::lock_path;
use crate::environment::ProcessEnvironment;
use crate::http_api::{BoundListeners, ReloadHandle};
use crate::process::{self, PidFile};
use crate::server::{self, Authenticator, BoundListener, ListenAt, Listener, ListenerPolicy, SocketOwner};

/// Every socket is bound, and users, keys and certificates are read. Nothing is accepted yet.
pub struct Bound {
    pub(super) options: Options,
    pub(super) authenticator: Arc<Authenticator>,
    pub(super) listeners: Vec<BoundListener>,
    pub(super) http: Option<BoundListeners>,
    pub(super) pid_file: Option<PidFile>,
}

/// The process has become the user that it serves as, for good.
pub struct Unprivileged(Bound);

/// What SIGHUP changes in a server that runs.
pub struct Reloader {
    authenticator: Arc<Authenticator>,
    http: Option<Arc<ReloadHandle>>,
}

impl Bound {
    /// Reads users, keys and certificates, opens the ports, writes the pid file.
    pub fn open(options: Options) -> Result<Bound, StartError> {
        Bound::open_with(options, |options| options.http.as_ref().map(BoundListeners::open).transpose())
    }

    /// The same, with the HTTP port that `open_http` opens; it may choose another one.
    pub fn open_with(
        mut options: Options,
        open_http: impl FnOnce(&mut Options) -> Result<Option<BoundListeners>, String>,
    ) -> Result<Bound, StartError> {
        let authenticator = Arc::new(read_access(&options)?);
        let listeners = bind_listeners(&options).map_err(StartError::Unavailable)?;
        let http = open_http(&mut options);
        let http = http.map_err(|fault| StartError::Unavailable(with_remedy_for_tls(fault, &options)))?;
        let pid_file = options.server.pid_file.as_deref().map(PidFile::write).transpose();
        let pid_file = pid_file.map_err(StartError::system("cannot write the pid file (-P)"))?;
        Ok(Bound { options, authenticator, listeners, http, pid_file })
    }

    /// Where the HTTP port is, with real port numbers.
    pub fn http_addresses(&self) -> Vec<SocketAddr> {
        self.http.as_ref().map(BoundListeners::addresses).unwrap_or_default()
    }

    pub fn reloader(&self) -> Reloader {
        Reloader {
            authenticator: self.authenticator.clone(),
            http: self.http.as_ref().map(BoundListeners::reload_handle),
        }
    }

    /// Makes the state folder, becomes the user of `-u`, who must be able to read and write what the server needs, and
    /// locks memory (`-k`).
    pub fn drop_privileges(self) -> Result<Unprivileged, StartError> {
        let made = make_state_folder(self.options.credentials.state_path.as_deref());
        if let Some(user) = &self.options.server.user {
            process::switch_user(user, &made).map_err(StartError::system("cannot switch the user (-u)"))?;
            check_access(user, &self.options).map_err(StartError::Refused)?;
        }
        if self.options.server.lock_memory
            && let Err(error) = process::lock_memory()
        {
            tracing::warn!(%error, "-k: memory cannot be locked; going on without");
        }
        Ok(Unprivileged(self))
    }
}

impl Unprivileged {
    /// Builds every part and starts the threads: state is loaded and live tokens are published before anything is
    /// accepted, which [`Running::run`] begins with. To be called inside the runtime that it runs in.
    pub fn start(self, shutdown: CancellationToken) -> Result<Running, StartError> {
        Running::build(self.0, shutdown)
    }
}

impl Reloader {
    /// Reads users, keys and certificates from their files again. A file that cannot be used is logged and changes
    /// nothing.
    pub fn reload(&self, options: &Options) {
        self.authenticator.reload(&options.access);
        if let (Some(handle), Some(http)) = (&self.http, &options.http) {
            handle.reload(http);
        }
    }
}

/// Reads the users, keys and certificates that a start would read, and opens nothing: for `check`.
pub fn check_files(options: &Options) -> Result<(), StartError> {
    read_access(options)?;
    let checked = options.http.as_ref().map_or(Ok(()), BoundListeners::check_files);
    checked.map_err(|fault| StartError::Unavailable(with_remedy_for_tls(fault, options)))
}

/// The users, keys and certificates that let clients in.
fn read_access(options: &Options) -> Result<Authenticator, StartError> {
    Authenticator::new(&options.access).map_err(|fault| StartError::Refused(with_remedy_for_tls(fault, options)))
}

/// Says what to do if it is that systemd's user may not read a file.
fn with_remedy_for_tls(fault: String, options: &Options) -> String {
    match options.remedy_for_tls(&ProcessEnvironment) {
        Some(remedy) => format!("{fault}\n{remedy}"),
        None => fault,
    }
}

/// Waits until a server that is ending releases the state file, if this server cannot start without it.
pub fn await_state(
    options: &Options,
    is_given_up: impl Fn() -> bool,
    waiting: impl FnOnce(&str),
) -> Result<(), StartError> {
    crate::credential::await_state(&options.credentials, is_given_up, waiting).map_err(StartError::Unavailable)
}

fn bind_listeners(options: &Options) -> Result<Vec<BoundListener>, String> {
    let mut bound: Vec<BoundListener> = Vec::new();
    let mut before = None;
    for listener in options.listeners() {
        let (at, is_localhost_pair) = (listener.at.clone(), is_localhost_pair(before.as_ref(), &listener.at));
        match bind_listener(listener, &options.server) {
            Ok(listening) => bound.push(listening),
            Err(error) if is_localhost_pair => tracing::warn!("{error}; 127.0.0.1 is served without it"),
            Err(error) => return Err(error),
        }
        before = Some(at);
    }
    Ok(bound)
}

fn bind_listener(listener: Listener, options: &server::Options) -> Result<BoundListener, String> {
    let (rights, protocol) = (Arc::new(listener.rights), options.protocol);
    let policy = ListenerPolicy { rights, login: listener.auth, tls: listener.tls, protocol };
    server::bind(&listener.at, socket_owner(&listener.at, options)?, policy, options.backlog)
}

/// Whether it is the `::1` behind the 127.0.0.1 that `localhost` means. As with memcached, one of the two is enough.
fn is_localhost_pair(before: Option<&ListenAt>, at: &ListenAt) -> bool {
    let (Some(ListenAt::Tcp(before)), ListenAt::Tcp(at)) = (before, at) else { return false };
    before.ip() == Ipv4Addr::LOCALHOST && at.ip() == Ipv6Addr::LOCALHOST && before.port() == at.port()
}

/// A Unix socket belongs to the user that the server becomes, and to the group that is asked for.
fn socket_owner(at: &ListenAt, options: &server::Options) -> Result<SocketOwner, String> {
    let ListenAt::Unix { path, group, .. } = at else { return Ok(SocketOwner::default()) };
    let user = options.user.as_deref().and_then(process::user_to_become);
    let group = group.as_deref().map(process::group_id).transpose();
    let group = group.map_err(|error| format!("the socket {}: {error}", path.display()))?;
    Ok(SocketOwner { user, group })
}

/// Makes the state folder before the user is switched (`-u`): that user may have no right to make it. Returns the
/// folders that were made.
fn make_state_folder(state_path: Option<&Path>) -> Vec<PathBuf> {
    let Some(folder) = state_path.and_then(Path::parent) else { return Vec::new() };
    process::make_folders(folder).unwrap_or_else(|error| {
        let path = folder.display();
        tracing::warn!(%path, %error, "the state folder cannot be created; tokens are kept in memory only");
        Vec::new()
    })
}

/// Checks that the process's present user can read and write what the server needs. The error is a sentence.
fn check_access(user: &str, options: &Options) -> Result<(), String> {
    let credentials = &options.credentials;
    if let Some(path) = &credentials.state_path {
        process::check_state_file(path, &lock_path(path), user)?;
    }
    for app in credentials.apps.iter().filter(|app| !app.secret.is_absent()) {
        app.secret.read().map_err(|fault| format!("as user {user} the secret of {} {fault}", app.appid))?;
    }
    for sink in &options.sinks {
        if let Some(password) = sink.password() {
            password.read().map_err(|fault| format!("as user {user} the password of {sink} {fault}"))?;
        }
    }
    for (what, source) in credentials.cluster.iter().flat_map(cluster::Options::secrets) {
        source.read().map_err(|fault| format!("as user {user} {what} in [state] {fault}"))?;
    }
    Ok(())
}
