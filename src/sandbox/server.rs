//! Connections: accepts them, speaks TLS if asked, and carries out the faults that need the raw socket.
//!
//! Never knows what a call means; that is the router's work. A failed accept is logged and the loop goes on.

use std::convert::Infallible;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::http::header::USER_AGENT;
use axum::http::{Request, Response};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use rustls::ServerConfig;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc;
use tokio_rustls::TlsAcceptor;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tower_service::Service;

use super::calls::agent_name;
use super::fault::Wire;
use super::options::SandboxTlsFiles;
use crate::clock::{self, LogThrottle};

/// How long to wait after a failed accept: out of descriptors, it fails again at once.
const ACCEPT_RETRY: Duration = Duration::from_millis(50);

/// A failure to accept is logged at most so often, milliseconds.
const LOG_SPACING_MS: u64 = 60_000;

/// The connection a call came over; every request carries one in its extensions.
#[derive(Clone, Debug)]
pub(super) struct Line {
    pub(super) peer: SocketAddr,
    /// The program that calls.
    pub(super) agent: String,
    wire: mpsc::Sender<Wire>,
}

impl Line {
    /// Takes the connection from the HTTP server, writes these bytes and ends it. Never returns: the caller is part of
    /// what is ended.
    pub(super) async fn take_over(&self, wire: Wire) -> Infallible {
        let _ = self.wire.send(wire).await;
        std::future::pending().await
    }
}

/// Accepts connections until `stop`; the tracker knows those still open.
pub(super) async fn accept(
    listener: TcpListener,
    router: Router,
    tls: Option<TlsAcceptor>,
    stop: CancellationToken,
    tracker: TaskTracker,
) {
    let failure_logged = LogThrottle::default();
    loop {
        let accepted = tokio::select! {
            () = stop.cancelled() => return,
            accepted = listener.accept() => accepted,
        };
        match accepted {
            Ok((tcp, peer)) => {
                let connection = serve(tcp, plain_v4(peer), router.clone(), tls.clone());
                let stop = stop.clone();
                tracker.spawn(async move { stop.run_until_cancelled(connection).await });
            }
            Err(error) => {
                if failure_logged.allow(clock::boot_ms(), LOG_SPACING_MS) {
                    tracing::warn!(%error, "sandbox: a connection could not be accepted");
                }
                tokio::time::sleep(ACCEPT_RETRY).await;
            }
        }
    }
}

async fn serve(tcp: TcpStream, peer: SocketAddr, router: Router, tls: Option<TlsAcceptor>) {
    let _ = tcp.set_nodelay(true);
    let ended = match tls {
        None => speak_http(tcp, |tcp| tcp, peer, router).await,
        Some(tls) => match tls.accept(tcp).await {
            Ok(stream) => speak_http(stream, |stream| stream.get_ref().0, peer, router).await,
            Err(error) => Err(error),
        },
    };
    if let Err(error) = ended {
        tracing::debug!(%peer, %error, "sandbox: a connection ended with an error");
    }
}

/// HTTP until the peer leaves or a call takes the connection over. `tcp` finds the socket inside the stream.
async fn speak_http<S>(stream: S, tcp: fn(&S) -> &TcpStream, peer: SocketAddr, router: Router) -> io::Result<()>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let (wire, mut taken_over) = mpsc::channel(1);
    let service = service_fn(move |mut request: Request<hyper::body::Incoming>| {
        let agent = request.headers().get(USER_AGENT).and_then(|value| value.to_str().ok()).map(agent_name);
        let line = Line { peer, agent: agent.unwrap_or_default(), wire: wire.clone() };
        request.extensions_mut().insert(line);
        let answer: Answering = Box::pin(router.clone().call(request));
        answer
    });
    let mut connection = http1::Builder::new().serve_connection(TokioIo::new(stream), service);
    let wire = tokio::select! {
        ended = &mut connection => return ended.map_err(io::Error::other),
        Some(wire) = taken_over.recv() => wire,
    };
    let stream = connection.into_parts().io.into_inner();
    write_raw(stream, tcp, wire).await
}

type Answering = std::pin::Pin<Box<dyn Future<Output = Result<Response<Body>, Infallible>> + Send>>;

/// Writes what the fault left of the answer, then ends the connection by dropping it: FIN, or RST if asked. TLS ends
/// without its goodbye, as on a broken line.
async fn write_raw<S>(mut stream: S, tcp: fn(&S) -> &TcpStream, wire: Wire) -> io::Result<()>
where
    S: AsyncWrite + Unpin,
{
    stream.write_all(&wire.head).await?;
    match wire.pause {
        None => stream.write_all(&wire.body).await?,
        Some(pause) => {
            for byte in wire.body {
                stream.flush().await?;
                tokio::time::sleep(pause).await;
                stream.write_all(&[byte]).await?;
            }
        }
    }
    stream.flush().await?;
    if wire.reset {
        tcp(&stream).set_zero_linger()?;
    }
    Ok(())
}

/// An IPv4 peer of a dual-stack socket as IPv4: allowlists name it so.
fn plain_v4(peer: SocketAddr) -> SocketAddr {
    let ip: IpAddr = peer.ip().to_canonical();
    SocketAddr::new(ip, peer.port())
}

/// The TLS side from the files; an unusable one is named in the error.
pub(super) fn tls_acceptor(files: &SandboxTlsFiles) -> io::Result<TlsAcceptor> {
    let cert_fault = |error| bad_file(&files.cert, &error);
    let chain = CertificateDer::pem_file_iter(&files.cert).map_err(cert_fault)?;
    let chain = chain.collect::<Result<Vec<_>, _>>().map_err(cert_fault)?;
    let key = PrivateKeyDer::from_pem_file(&files.key).map_err(|error| bad_file(&files.key, &error))?;
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .and_then(|builder| builder.with_no_client_auth().with_single_cert(chain, key))
        .map_err(|error| io::Error::new(io::ErrorKind::InvalidInput, error))?;
    Ok(TlsAcceptor::from(Arc::new(config)))
}

fn bad_file(path: &std::path::Path, error: &rustls::pki_types::pem::Error) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidInput, format!("{}: {error}", path.display()))
}
