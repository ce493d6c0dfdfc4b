//! What the HTTP API and the sandbox have in common as servers: accepting connections, TLS, requests to a router.
//!
//! Never decides how many connections there may be, or how long one may last: that is up to whoever serves them.

use std::convert::Infallible;
use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use hyper::body::Incoming;
use hyper::service::{Service as HyperService, service_fn};
use hyper::{Request, Response};
use tokio::net::{TcpListener, TcpStream};
use tokio::time::timeout;
use tokio_rustls::server::TlsStream;
use tokio_util::either::Either;
use tokio_util::sync::CancellationToken;
use tower_service::Service;

use crate::clock::{self, LogThrottle};
use crate::descriptors;
use crate::tls::Tls;

/// The pause after a failed accept: without free descriptors it would fail again at once.
const ACCEPT_RETRY: Duration = Duration::from_millis(100);
/// The shortest time between two log lines about failed accepts.
const LOG_SPACING_MS: u64 = 60_000;
const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(10);

/// A connection, with TLS over it or not. Plain ones do not pay for the room that TLS takes.
pub type HttpStream = Either<TcpStream, Box<TlsStream<TcpStream>>>;

/// What the log says of a server.
pub struct ServerWords {
    pub name: &'static str,
    /// What to do when there are too few file descriptors.
    pub when_exhausted: &'static str,
}

/// Gives each connection to `serve`, which must not wait, until the shutdown.
pub async fn accept(
    listener: TcpListener,
    shutdown: &CancellationToken,
    server: ServerWords,
    failure_logged: &LogThrottle,
    mut serve: impl FnMut(TcpStream, SocketAddr),
) {
    while let Some(accepted) = shutdown.run_until_cancelled(listener.accept()).await {
        match accepted {
            Ok((stream, peer)) => {
                serve(stream, peer);
                // In a burst, each connection is read from before the next one is accepted: one whose request is there
                // already keeps its slot.
                tokio::task::yield_now().await;
            }
            Err(error) if descriptors::is_peer_gone(&error) => {}
            Err(error) if descriptors::is_dead_listener(&error) => {
                tracing::error!(%error, "the listening socket of {} is gone", server.name);
                return;
            }
            Err(error) => {
                if failure_logged.allow(clock::boot_ms(), LOG_SPACING_MS) {
                    let advice = descriptors::accept_advice(&error, server.when_exhausted);
                    tracing::warn!(%error, advice, "{} failed to accept a connection", server.name);
                }
                tokio::time::sleep(ACCEPT_RETRY).await;
            }
        }
    }
}

/// The stream that HTTP is spoken on: with TLS after the handshake.
pub(crate) async fn handshake(stream: TcpStream, tls: Option<&Tls>) -> io::Result<HttpStream> {
    let _ = stream.set_nodelay(true);
    match tls {
        None => Ok(Either::Left(stream)),
        Some(tls) => Ok(Either::Right(Box::new(timeout(HANDSHAKE_TIMEOUT, tls.accept(stream)).await??))),
    }
}

pub fn socket(stream: &HttpStream) -> &TcpStream {
    match stream {
        Either::Left(stream) => stream,
        Either::Right(stream) => stream.get_ref().0,
    }
}

/// The requests of a connection go to the router; each has `connection` in its extensions.
pub fn service<C: Clone + Send + Sync + 'static>(
    router: Router,
    connection: C,
) -> impl HyperService<Request<Incoming>, Response = Response<Body>, Error = Infallible, Future: Send> {
    service_fn(move |mut request: Request<Incoming>| {
        request.extensions_mut().insert(connection.clone());
        router.clone().call(request)
    })
}
