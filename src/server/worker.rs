//! A worker: one thread, one single-threaded runtime, the connections handed to it.
//!
//! Connections never move between workers, so nothing on their path is shared but the cache and the table.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::thread::JoinHandle;
use std::time::Duration;

use socket2::Socket;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::mpsc;
use tokio_rustls::server::TlsStream;
use tokio_util::task::TaskTracker;

use super::driver::{ConnectionDriver, WorkerContext};
use super::{ListenerPolicy, ServerState};
use crate::access::Rights;
use crate::supervision::AliveGuard;

/// How long a worker waits at the end for batches that are being written or held.
const LAST_BATCHES_WAIT: Duration = Duration::from_secs(5);
/// How long after the last accept requests that are already on their way are still answered.
const LAST_REQUESTS_WAIT: Duration = Duration::from_millis(50);

/// A failed handshake is logged at most so often, milliseconds.
const HANDSHAKE_LOG_SPACING_MS: u64 = 60_000;

/// Who is at the other end, for the log.
#[derive(Clone, Copy, Debug)]
pub(super) enum Peer {
    Tcp(SocketAddr),
    Unix,
}

impl Peer {
    /// None of a client of a Unix socket.
    pub fn ip(&self) -> Option<IpAddr> {
        match self {
            Peer::Tcp(address) => Some(address.ip()),
            Peer::Unix => None,
        }
    }

    /// As `stats conns` shows it.
    pub fn address(&self) -> String {
        match self {
            Peer::Tcp(address) => tcp_address(address),
            Peer::Unix => "unix:".to_owned(),
        }
    }
}

/// memcached's way to write a TCP address in `stats conns`.
pub(super) fn tcp_address(address: &SocketAddr) -> String {
    if address.is_ipv4() { format!("tcp:{address}") } else { format!("tcp6:{address}") }
}

/// Where a connection comes from.
pub(super) struct ConnectionOrigin {
    pub peer: Peer,
    /// The listening socket it came in by, as `stats conns` shows it.
    pub listen_addr: Arc<str>,
    /// The socket's, which names the connection there.
    pub descriptor: i32,
}

impl std::fmt::Display for Peer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Peer::Tcp(address) => address.fmt(f),
            Peer::Unix => f.write_str("unix socket"),
        }
    }
}

/// A connection on its way to a worker.
pub(super) struct Accepted {
    pub stream: Socket,
    pub origin: ConnectionOrigin,
    pub policy: Arc<ListenerPolicy>,
}

/// Hands connections to the workers in turn. They end once it is gone.
pub(super) struct Dispatcher {
    workers: Vec<mpsc::UnboundedSender<Accepted>>,
    next: AtomicUsize,
}

impl Dispatcher {
    pub fn new(workers: Vec<mpsc::UnboundedSender<Accepted>>) -> Dispatcher {
        Dispatcher { workers, next: AtomicUsize::new(0) }
    }

    /// Fails only when the workers are gone. The queue is bounded by the connection limit.
    pub fn dispatch(&self, accepted: Accepted) -> Result<(), ()> {
        let index = self.next.fetch_add(1, Relaxed) % self.workers.len().max(1);
        self.workers.get(index).ok_or(())?.send(accepted).map_err(|_| ())
    }
}

/// Starts a worker. It ends when nothing can hand it a connection any more and its last batches are written.
pub(super) fn start(
    index: usize,
    shared: Arc<ServerState>,
    alive: AliveGuard,
) -> io::Result<(mpsc::UnboundedSender<Accepted>, JoinHandle<()>)> {
    let (accepted, receiver) = mpsc::unbounded_channel();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let thread = std::thread::Builder::new().name(format!("worker-{index}")).spawn(move || {
        let _alive = alive;
        runtime.block_on(run_worker(receiver, shared));
        // Certificates that are being read from a disk that hangs are not waited for.
        runtime.shutdown_background();
    })?;
    Ok((accepted, thread))
}

async fn run_worker(mut accepted: mpsc::UnboundedReceiver<Accepted>, shared: Arc<ServerState>) {
    let worker = WorkerContext {
        stats: shared.service.stats.register_worker(),
        shared: shared.clone(),
        busy: TaskTracker::new(),
    };
    while let Some(Accepted { stream, origin, policy }) = accepted.recv().await {
        let served = match origin.peer {
            Peer::Tcp(_) => tokio::net::TcpStream::from_std(stream.into())
                .map(|stream| spawn_connection(origin, stream, policy, &worker)),
            Peer::Unix => tokio::net::UnixStream::from_std(stream.into())
                .map(|stream| spawn_connection(origin, stream, policy, &worker)),
        };
        if let Err(error) = served {
            shared.service.stats.curr_connections.fetch_sub(1, Relaxed);
            tracing::warn!(%error, "an accepted connection cannot be served and is closed");
        }
    }
    tokio::time::sleep(LAST_REQUESTS_WAIT).await;
    worker.busy.close();
    if tokio::time::timeout(LAST_BATCHES_WAIT, worker.busy.wait()).await.is_err() {
        tracing::warn!("shutdown: some clients did not read their last answers in time; their connections are closed");
    }
}

fn spawn_connection<S>(origin: ConnectionOrigin, stream: S, policy: Arc<ListenerPolicy>, worker: &WorkerContext)
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    if policy.tls {
        tokio::spawn(serve_tls(stream, origin, policy, worker.clone()));
    } else {
        tokio::spawn(ConnectionDriver::new(stream, origin, &policy, policy.rights.clone(), worker.clone()).run());
    }
}

/// A handshake, then a connection like any other.
async fn serve_tls<S: AsyncRead + AsyncWrite + Unpin>(
    stream: S,
    origin: ConnectionOrigin,
    policy: Arc<ListenerPolicy>,
    worker: WorkerContext,
) {
    let peer = origin.peer;
    match accept_tls(stream, &policy, &worker.shared).await {
        Ok((stream, rights)) => ConnectionDriver::new(stream, origin, &policy, rights, worker).run().await,
        Err(error) => {
            let shared = &worker.shared;
            worker.stats.ssl_handshake_errors.add(1);
            shared.service.stats.curr_connections.fetch_sub(1, Relaxed);
            if shared.authenticator.handshake_log.allow(crate::clock::boot_ms(), HANDSHAKE_LOG_SPACING_MS) {
                tracing::warn!(%peer, %error, "TLS handshake failed; connection closed");
            }
        }
    }
}

/// Gives the rights that the listener and the client's certificate leave.
async fn accept_tls<S: AsyncRead + AsyncWrite + Unpin>(
    stream: S,
    policy: &ListenerPolicy,
    shared: &ServerState,
) -> io::Result<(TlsStream<S>, Arc<Rights>)> {
    let authenticator = &shared.authenticator;
    let Some(tls) = &authenticator.tls else { return Err(io::Error::other("there is no certificate")) };
    let stream = tokio::time::timeout(shared.limits.handshake_timeout, tls.accept(stream)).await??;
    match authenticator.rights_of(&crate::tls::names(&stream)) {
        Some(rights) => Ok((stream, Arc::new(rights.and(&policy.rights)))),
        None => {
            Err(io::Error::other("its certificate is good, but no [[certificate]] in the configuration is about it"))
        }
    }
}
