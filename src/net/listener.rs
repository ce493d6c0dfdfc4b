//! Sockets to listen on, and the loop that accepts.
//!
//! An accept error is logged and the loop goes on; it ends only with the server.

use std::io;
use std::net::SocketAddr;
use std::os::unix::fs::{FileTypeExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use socket2::{Domain, Protocol, Socket, TcpKeepalive, Type};

use super::Shared;
use super::worker::{Accepted, Dealer, Peer, Stream};

/// A socket that is bound and listening, not yet accepting.
pub enum Bound {
    Tcp(std::net::TcpListener),
    Unix(std::os::unix::net::UnixListener, PathBuf),
}

impl Bound {
    /// The TCP address, with the port the system chose if 0 was asked for.
    pub fn tcp_addr(&self) -> Option<SocketAddr> {
        match self {
            Bound::Tcp(listener) => listener.local_addr().ok(),
            Bound::Unix(..) => None,
        }
    }
}

impl Drop for Bound {
    fn drop(&mut self) {
        if let Bound::Unix(_, path) = self {
            let _ = std::fs::remove_file(path);
        }
    }
}

/// Binds every address. The error says which one failed and what to do.
pub fn bind(addresses: &[SocketAddr], unix: Option<(&Path, u32)>, backlog: u32) -> Result<Vec<Bound>, String> {
    let backlog = i32::try_from(backlog).unwrap_or(i32::MAX);
    let mut bound = Vec::new();
    for &address in addresses {
        let listener = bind_tcp(address, backlog).map_err(|error| explain_bind(address, &error))?;
        bound.push(Bound::Tcp(listener));
    }
    if let Some((path, mode)) = unix {
        let listener = bind_unix(path, mode)
            .map_err(|error| format!("cannot listen on the socket {}: {error}", path.display()))?;
        bound.push(Bound::Unix(listener, path.to_owned()));
    }
    Ok(bound)
}

fn explain_bind(address: SocketAddr, error: &io::Error) -> String {
    match error.kind() {
        io::ErrorKind::AddrInUse => format!(
            "cannot listen on {address}: something listens there already, perhaps memcached itself; \
             stop it, or choose another port with -p"
        ),
        io::ErrorKind::PermissionDenied => {
            format!("cannot listen on {address}: ports under 1024 need privileges; choose another with -p")
        }
        io::ErrorKind::AddrNotAvailable => {
            format!("cannot listen on {address}: this machine has no such address; check -l or server.listen")
        }
        _ => format!("cannot listen on {address}: {error}"),
    }
}

fn bind_tcp(address: SocketAddr, backlog: i32) -> io::Result<std::net::TcpListener> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
    if address.is_ipv6() {
        socket.set_only_v6(true)?;
    }
    socket.set_reuse_address(true)?;
    socket.bind(&address.into())?;
    socket.listen(backlog)?;
    socket.set_nonblocking(true)?;
    Ok(socket.into())
}

/// A stale socket file is removed; anything else at that path, or a living server behind it, is an error.
fn bind_unix(path: &Path, mode: u32) -> io::Result<std::os::unix::net::UnixListener> {
    if let Ok(found) = std::fs::symlink_metadata(path) {
        if !found.file_type().is_socket() {
            return Err(io::Error::new(io::ErrorKind::AlreadyExists, "a file that is not a socket is in the way"));
        }
        if std::os::unix::net::UnixStream::connect(path).is_ok() {
            return Err(io::Error::new(io::ErrorKind::AddrInUse, "another server answers there"));
        }
        std::fs::remove_file(path)?;
    }
    let listener = std::os::unix::net::UnixListener::bind(path)?;
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode))?;
    listener.set_nonblocking(true)?;
    Ok(listener)
}

/// Accepts and deals out. Past the limit a connection is told so and closed (memcached's `maxconns_fast`).
pub(super) async fn accept(bound: Bound, shared: Arc<Shared>, dealer: Arc<Dealer>) {
    let mut listener = match Listener::new(&bound) {
        Ok(listener) => listener,
        Err(error) => {
            tracing::error!(%error, "cannot accept connections on a listening socket");
            return;
        }
    };
    let mut pause = Duration::from_millis(10);
    loop {
        match listener.accept().await {
            Ok((stream, peer)) => {
                pause = Duration::from_millis(10);
                admit(stream, peer, &shared, &dealer);
            }
            Err(error) if is_peers_fault(&error) => {}
            Err(error) => {
                tracing::warn!(%error, "cannot accept a connection; trying again shortly");
                tokio::time::sleep(pause).await;
                pause = (pause * 2).min(Duration::from_secs(1));
            }
        }
    }
}

/// The peer went away between connecting and being accepted.
fn is_peers_fault(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::ConnectionAborted | io::ErrorKind::ConnectionReset | io::ErrorKind::Interrupted
    )
}

fn admit(mut stream: Stream, peer: Peer, shared: &Shared, dealer: &Dealer) {
    let stats = &shared.service.stats;
    if stats.curr_connections.load(Relaxed) >= shared.limits.max_connections as u64 {
        stats.rejected_connections.fetch_add(1, Relaxed);
        // Fits the socket's empty send buffer, so this does not wait for the peer.
        let _ = stream.write_all(b"ERROR Too many open connections\r\n");
        return;
    }
    stats.curr_connections.fetch_add(1, Relaxed);
    stats.total_connections.fetch_add(1, Relaxed);
    if dealer.deal(Accepted { stream, peer }).is_err() {
        stats.curr_connections.fetch_sub(1, Relaxed);
    }
}

enum Listener {
    Tcp(tokio::net::TcpListener),
    Unix(tokio::net::UnixListener),
}

impl Listener {
    fn new(bound: &Bound) -> io::Result<Listener> {
        Ok(match bound {
            Bound::Tcp(listener) => Listener::Tcp(tokio::net::TcpListener::from_std(listener.try_clone()?)?),
            Bound::Unix(listener, _) => Listener::Unix(tokio::net::UnixListener::from_std(listener.try_clone()?)?),
        })
    }

    async fn accept(&mut self) -> io::Result<(Stream, Peer)> {
        match self {
            Listener::Tcp(listener) => {
                let (stream, address) = listener.accept().await?;
                stream.set_nodelay(true)?;
                keep_alive(&stream);
                Ok((Stream::Tcp(stream.into_std()?), Peer::Tcp(address)))
            }
            Listener::Unix(listener) => {
                let (stream, _) = listener.accept().await?;
                Ok((Stream::Unix(stream.into_std()?), Peer::Unix))
            }
        }
    }
}

/// A peer that vanished without a word is noticed after about two minutes.
fn keep_alive(stream: &tokio::net::TcpStream) {
    let probes =
        TcpKeepalive::new().with_time(Duration::from_secs(60)).with_interval(Duration::from_secs(10)).with_retries(6);
    if let Err(error) = socket2::SockRef::from(stream).set_tcp_keepalive(&probes) {
        tracing::debug!(%error, "cannot switch TCP keepalive on");
    }
}
