//! Sockets to listen on, and the loop that accepts.
//!
//! An accept error is logged and the loop goes on, unless the socket itself is gone: then the loop ends, which ends the server.

use std::io;
use std::io::Write;
use std::net::SocketAddr;
use std::os::fd::AsRawFd;
use std::os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use socket2::{Domain, Protocol, Socket, TcpKeepalive, Type};
use tokio::net::{TcpListener, UnixListener};

use super::options::ListenAt;
use super::worker::{Accepted, ConnectionOrigin, Dispatcher, Peer, tcp_address};
use super::{ListenerPolicy, ServerState};
use crate::clock;
use crate::descriptors;
use crate::stats::ConnectionInfo;
use crate::unit;

/// Pauses after a failed accept.
const PAUSE_MIN: Duration = Duration::from_millis(10);
const PAUSE_MAX: Duration = Duration::from_secs(1);
/// What a flood of connections causes is logged at most this often, milliseconds.
const LOG_SPACING_MS: u64 = 60_000;
/// The connection ends if the peer does not acknowledge answers for this long, milliseconds.
const UNACKNOWLEDGED_MS_MAX: u32 = 30_000;

/// A socket that is bound and listening, not yet accepting.
pub struct BoundListener {
    socket: Socket,
    /// Of a Unix socket.
    _file: Option<SocketFile>,
    /// As `stats conns` shows it.
    address: Arc<str>,
    policy: Arc<ListenerPolicy>,
}

/// A socket's file. Removed when dropped, unless another server has put its own there since.
struct SocketFile {
    path: PathBuf,
    /// Device and inode.
    id: (u64, u64),
}

/// Whom the file of a Unix socket is given to.
#[derive(Clone, Copy, Debug, Default)]
pub struct SocketOwner {
    pub user: Option<u32>,
    pub group: Option<u32>,
}

impl BoundListener {
    /// As `stats conns` shows it.
    pub(super) fn address(&self) -> &str {
        &self.address
    }

    /// The TCP address, with the port the system chose if 0 was asked for.
    pub fn tcp_addr(&self) -> Option<SocketAddr> {
        self.socket.local_addr().ok()?.as_socket()
    }
}

impl Drop for SocketFile {
    fn drop(&mut self) {
        if std::fs::symlink_metadata(&self.path).is_ok_and(|found| (found.dev(), found.ino()) == self.id) {
            let _ = std::fs::remove_file(&self.path);
        }
    }
}

/// Binds an address. The error says what to do.
pub fn bind(at: &ListenAt, owner: SocketOwner, policy: ListenerPolicy, backlog: u32) -> Result<BoundListener, String> {
    let backlog = i32::try_from(backlog).unwrap_or(i32::MAX);
    let (socket, file, address) = match at {
        ListenAt::Tcp(address) => {
            let socket = bind_tcp(*address, backlog).map_err(|error| explain_bind(*address, &error))?;
            let bound = socket.local_addr().ok().and_then(|bound| bound.as_socket());
            (socket, None, bound.map_or("tcp:".to_owned(), |bound| tcp_address(&bound)))
        }
        ListenAt::Unix { path, mode, group } => {
            let (socket, file) = bind_unix(path, *mode, owner, backlog)
                .map_err(|refusal| explain_bind_unix(path, group.as_deref(), &refusal))?;
            (socket, Some(file), format!("unix:{}", path.display()))
        }
    };
    Ok(BoundListener { socket, _file: file, address: address.into(), policy: Arc::new(policy) })
}

fn explain_bind(address: SocketAddr, error: &io::Error) -> String {
    match error.kind() {
        io::ErrorKind::AddrInUse => format!(
            "cannot listen on {address}: something listens there already, perhaps memcached itself; \
             stop it, or choose another port with -p or in listen"
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

/// What did not work of making a socket's file.
enum UnixBindError {
    Socket(io::Error),
    SocketOwner(io::Error),
}

impl From<io::Error> for UnixBindError {
    fn from(error: io::Error) -> UnixBindError {
        UnixBindError::Socket(error)
    }
}

fn explain_bind_unix(path: &Path, group: Option<&str>, refusal: &UnixBindError) -> String {
    let shown = path.display();
    match (refusal, group) {
        // Not permitted, or a group that the kernel does not know in here.
        (UnixBindError::SocketOwner(error), Some(group)) => {
            format!("cannot give the socket {shown} to the group {group}: {error}; {}", unit::group_advice(group))
        }
        (UnixBindError::SocketOwner(error), None) => {
            format!("cannot give the socket {shown} to the user of -u: {error}")
        }
        (UnixBindError::Socket(error), _) => {
            let folder = path.parent().unwrap_or(Path::new("/"));
            let made_by = unit::made_by(folder).map(|line| format!(", or a line {line} in the systemd unit"));
            let remedy = match error.kind() {
                io::ErrorKind::NotFound => {
                    format!("; make its folder: install -d -m 755 {}{}", folder.display(), made_by.unwrap_or_default())
                }
                _ => String::new(),
            };
            format!("cannot listen on the socket {shown}: {error}{remedy}")
        }
    }
}

/// A socket that has that address and does not listen there.
pub fn bound_socket(address: SocketAddr) -> io::Result<Socket> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
    if address.is_ipv6() {
        socket.set_only_v6(true)?;
    }
    socket.set_reuse_address(true)?;
    socket.bind(&address.into())?;
    Ok(socket)
}

fn bind_tcp(address: SocketAddr, backlog: i32) -> io::Result<Socket> {
    let socket = bound_socket(address)?;
    socket.listen(backlog)?;
    socket.set_nonblocking(true)?;
    Ok(socket)
}

/// A stale socket file is removed; anything else at that path, or a living server behind it, is an error.
/// Nobody can connect before mask and owner are right, because nothing listens until then.
fn bind_unix(path: &Path, mode: u32, owner: SocketOwner, backlog: i32) -> Result<(Socket, SocketFile), UnixBindError> {
    remove_stale_socket(path)?;
    let socket = Socket::new(Domain::UNIX, Type::STREAM, None)?;
    socket.bind(&socket2::SockAddr::unix(path)?)?;
    let found = std::fs::symlink_metadata(path)?;
    let file = SocketFile { path: path.to_owned(), id: (found.dev(), found.ino()) };
    // What it is already needs no right to be made so.
    let group = owner.group.filter(|group| *group != found.gid());
    if owner.user.is_some() || group.is_some() {
        std::os::unix::fs::lchown(path, owner.user, group).map_err(UnixBindError::SocketOwner)?;
    }
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode))?;
    socket.listen(backlog)?;
    socket.set_nonblocking(true)?;
    Ok((socket, file))
}

fn remove_stale_socket(path: &Path) -> io::Result<()> {
    let Ok(found) = std::fs::symlink_metadata(path) else { return Ok(()) };
    if !found.file_type().is_socket() {
        return Err(io::Error::new(io::ErrorKind::AlreadyExists, "a file that is not a socket is in the way"));
    }
    // A living server that is too busy to answer must not make this wait.
    let probe = Socket::new(Domain::UNIX, Type::STREAM, None)?;
    probe.set_nonblocking(true)?;
    match probe.connect(&socket2::SockAddr::unix(path)?) {
        Ok(_) => Err(io::Error::new(io::ErrorKind::AddrInUse, "another server answers there")),
        // Only this says that nobody listens; a full queue or missing rights do not.
        Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => std::fs::remove_file(path),
        Err(error) => {
            let text = format!("a socket is in the way, and whether it is in use cannot be told: {error}");
            Err(io::Error::new(error.kind(), text))
        }
    }
}

/// Accepts connections and hands them to the workers. Past the limit a connection is told so and closed (memcached's
/// `maxconns_fast`).
pub(super) async fn accept(bound: BoundListener, shared: Arc<ServerState>, dispatcher: Arc<Dispatcher>) {
    let BoundListener { socket, _file, address, policy } = bound;
    let descriptor = socket.as_raw_fd();
    let listener = match AcceptSocket::new(socket) {
        Ok(listener) => listener,
        Err(error) => {
            tracing::error!(%error, "cannot accept connections on a listening socket");
            return;
        }
    };
    let connections = &shared.service.stats.connections;
    connections.add(descriptor, ConnectionInfo::new(&address, None, clock::boot_ms()));
    let mut reserve = SpareDescriptor::new();
    let mut pause = PAUSE_MIN;
    loop {
        match listener.accept().await {
            Ok((stream, peer)) => {
                pause = PAUSE_MIN;
                let origin = ConnectionOrigin { peer, listen_addr: address.clone(), descriptor: stream.as_raw_fd() };
                admit(Accepted { stream, origin, policy: policy.clone() }, &shared, &dispatcher);
            }
            Err(error) if descriptors::is_peer_gone(&error) => {}
            Err(error) if descriptors::is_dead_listener(&error) => {
                tracing::error!(%error, address = &*address, "the listening socket was closed");
                return;
            }
            Err(error) => {
                if shared.accept_log.allow(clock::boot_ms(), LOG_SPACING_MS) {
                    let advice = descriptors::accept_advice(&error, descriptors::REMEDY);
                    tracing::warn!(%error, advice, "cannot accept a connection");
                }
                if descriptors::is_exhausted(&error) && reserve.refuse_one(&listener, &policy, &shared).await {
                    // One less is waiting, and nobody waits for those behind it.
                    pause = PAUSE_MIN;
                    continue;
                }
                tokio::time::sleep(pause).await;
                pause = (pause * 2).min(PAUSE_MAX);
            }
        }
    }
}

/// A descriptor in reserve. When there is no other, it is given up to accept one client and refuse it with a reason.
struct SpareDescriptor(Option<std::fs::File>);

impl SpareDescriptor {
    fn new() -> SpareDescriptor {
        SpareDescriptor(std::fs::File::open("/dev/null").ok())
    }

    /// Accepts one connection in place of the spare descriptor and refuses it. False if that was not possible.
    async fn refuse_one(&mut self, listener: &AcceptSocket, policy: &ListenerPolicy, shared: &ServerState) -> bool {
        if self.0.take().is_none() {
            *self = SpareDescriptor::new();
            return false;
        }
        // Not waited for: whoever was there may have gone, or another thread may have taken the descriptor.
        let accepted = tokio::time::timeout(Duration::ZERO, listener.accept()).await;
        let refused = matches!(accepted, Ok(Ok(_)));
        if let Ok(Ok((stream, _))) = accepted {
            refuse(stream, policy, shared);
        }
        *self = SpareDescriptor::new();
        refused
    }
}

fn admit(accepted: Accepted, shared: &ServerState, dispatcher: &Dispatcher) {
    let stats = &shared.service.stats;
    if stats.curr_connections.load(Relaxed) >= shared.limits.max_connections as u64 {
        return refuse(accepted.stream, &accepted.policy, shared);
    }
    stats.curr_connections.fetch_add(1, Relaxed);
    stats.total_connections.fetch_add(1, Relaxed);
    if dispatcher.dispatch(accepted).is_err() {
        stats.curr_connections.fetch_sub(1, Relaxed);
    }
}

fn refuse(mut stream: Socket, policy: &ListenerPolicy, shared: &ServerState) {
    shared.service.stats.rejected_connections.fetch_add(1, Relaxed);
    // Fits the socket's empty send buffer, so this does not wait for the peer. In TLS nothing can be said yet.
    if !policy.tls {
        let _ = stream.write_all(b"ERROR Too many open connections\r\n");
    }
}

enum AcceptSocket {
    Tcp(TcpListener),
    Unix(UnixListener),
}

impl AcceptSocket {
    fn new(socket: Socket) -> io::Result<AcceptSocket> {
        Ok(match socket.local_addr()?.is_unix() {
            true => AcceptSocket::Unix(UnixListener::from_std(socket.into())?),
            false => AcceptSocket::Tcp(TcpListener::from_std(socket.into())?),
        })
    }

    async fn accept(&self) -> io::Result<(Socket, Peer)> {
        match self {
            AcceptSocket::Tcp(listener) => {
                let (stream, address) = listener.accept().await?;
                let stream = Socket::from(stream.into_std()?);
                if let Err(error) = stream.set_tcp_nodelay(true) {
                    tracing::debug!(%error, "cannot set TCP_NODELAY");
                }
                keep_alive(&stream);
                Ok((stream, Peer::Tcp(address)))
            }
            AcceptSocket::Unix(listener) => Ok((listener.accept().await?.0.into_std()?.into(), Peer::Unix)),
        }
    }
}

/// A peer that vanished without a word is noticed after about two minutes, and while answers wait for it after
/// half a minute.
fn keep_alive(stream: &Socket) {
    let probes =
        TcpKeepalive::new().with_time(Duration::from_secs(60)).with_interval(Duration::from_secs(10)).with_retries(6);
    if let Err(error) = stream.set_tcp_keepalive(&probes) {
        tracing::debug!(%error, "cannot switch TCP keepalive on");
    }
    if let Err(error) = rustix::net::sockopt::set_tcp_user_timeout(stream, UNACKNOWLEDGED_MS_MAX) {
        tracing::debug!(%error, "cannot set TCP_USER_TIMEOUT");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_dead_peer_is_looked_for() {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let socket = Socket::from(std::net::TcpStream::connect(listener.local_addr().unwrap()).unwrap());
        keep_alive(&socket);
        assert!(socket.keepalive().unwrap());
        assert_eq!(rustix::net::sockopt::tcp_keepidle(&socket).unwrap(), Duration::from_secs(60));
        assert_eq!(rustix::net::sockopt::tcp_keepintvl(&socket).unwrap(), Duration::from_secs(10));
        assert_eq!(rustix::net::sockopt::tcp_keepcnt(&socket).unwrap(), 6);
        assert_eq!(rustix::net::sockopt::tcp_user_timeout(&socket).unwrap(), 30_000);
    }
}
