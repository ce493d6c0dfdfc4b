//! Connections: accepts them, speaks TLS if asked, and does the faults that need the socket itself. After a failed accept
//! it logs that and goes on. Never knows what a call means: that is the router's work.

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
use super::fault::RawAnswer;
use super::options::SandboxTlsFiles;
use crate::clock::{self, LogThrottle};

/// The pause after a failed accept. Without file descriptors it would fail again at once.
const ACCEPT_RETRY: Duration = Duration::from_millis(50);

/// A failed accept is logged at most once in so many milliseconds.
const LOG_SPACING_MS: u64 = 60_000;

/// The connection of a call, and who calls; every request has it in its extensions.
#[derive(Clone, Debug)]
pub(super) struct CallerConnection {
    pub(super) peer: SocketAddr,
    /// The program that calls.
    pub(super) agent: String,
    raw: mpsc::Sender<RawAnswer>,
}

impl CallerConnection {
    /// Takes the connection from the HTTP server, writes these bytes and closes it. Never returns: the task that calls this
    /// ends with the connection.
    pub(super) async fn take_over(&self, raw: RawAnswer) -> Infallible {
        let _ = self.raw.send(raw).await;
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

/// Serves HTTP until the peer closes or a call takes the connection over. `tcp` gives the socket inside the stream.
async fn speak_http<S>(stream: S, tcp: fn(&S) -> &TcpStream, peer: SocketAddr, router: Router) -> io::Result<()>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let (raw, mut taken_over) = mpsc::channel(1);
    let service = service_fn(move |mut request: Request<hyper::body::Incoming>| {
        let agent = request.headers().get(USER_AGENT).and_then(|value| value.to_str().ok()).map(agent_name);
        let caller = CallerConnection { peer, agent: agent.unwrap_or_default(), raw: raw.clone() };
        request.extensions_mut().insert(caller);
        let answer: ResponseFuture = Box::pin(router.clone().call(request));
        answer
    });
    let mut connection = http1::Builder::new().serve_connection(TokioIo::new(stream), service);
    let raw = tokio::select! {
        ended = &mut connection => return ended.map_err(io::Error::other),
        Some(raw) = taken_over.recv() => raw,
    };
    let stream = connection.into_parts().io.into_inner();
    write_raw(stream, tcp, raw).await
}

type ResponseFuture = std::pin::Pin<Box<dyn Future<Output = Result<Response<Body>, Infallible>> + Send>>;

/// Writes what the fault has left of the answer, then closes the connection: with FIN, or with RST if asked. TLS ends
/// without close_notify, as on a broken connection.
async fn write_raw<S>(mut stream: S, tcp: fn(&S) -> &TcpStream, raw: RawAnswer) -> io::Result<()>
where
    S: AsyncWrite + Unpin,
{
    stream.write_all(&raw.head).await?;
    match raw.pause {
        None => stream.write_all(&raw.body).await?,
        Some(pause) => {
            for byte in raw.body {
                stream.flush().await?;
                tokio::time::sleep(pause).await;
                stream.write_all(&[byte]).await?;
            }
        }
    }
    stream.flush().await?;
    if raw.reset {
        tcp(&stream).set_zero_linger()?;
    }
    Ok(())
}

/// An IPv4 peer of a dual-stack socket as IPv4, as allow-lists have it.
fn plain_v4(peer: SocketAddr) -> SocketAddr {
    let ip: IpAddr = peer.ip().to_canonical();
    SocketAddr::new(ip, peer.port())
}

/// TLS with these files; an error names the file that cannot be used.
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
