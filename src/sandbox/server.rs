//! Connections: does the faults that need the socket itself. Never knows what a call means: that is the router's work.

use std::convert::Infallible;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;

use axum::Router;
use hyper::server::conn::http1;
use hyper_util::rt::TokioIo;
use tokio::io::AsyncWriteExt;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::fault::RawAnswer;
use super::options::SandboxTlsFiles;
use crate::clock::LogThrottle;
use crate::http_server::{self, HttpStream, ServerWords};
use crate::tls::{ClientCertificates, Tls, TlsOptions, TlsVersion};

/// The connection of a call; every request has it in its extensions.
#[derive(Clone, Debug)]
pub(super) struct CallerConnection {
    pub(super) peer: SocketAddr,
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
    tls: Option<Arc<Tls>>,
    stop: CancellationToken,
    tracker: TaskTracker,
) {
    let server = ServerWords { name: "the sandbox", when_exhausted: "raise ulimit -n" };
    http_server::accept(listener, &stop, server, &LogThrottle::default(), |tcp, peer| {
        // An IPv4 peer of a dual-stack socket as IPv4, as allow-lists have it.
        let peer = SocketAddr::new(peer.ip().to_canonical(), peer.port());
        let (router, tls, stop) = (router.clone(), tls.clone(), stop.clone());
        tracker.spawn(async move {
            if let Some(Err(error)) = stop.run_until_cancelled(serve(tcp, peer, router, tls)).await {
                tracing::debug!(%peer, %error, "sandbox: a connection ended with an error");
            }
        });
    })
    .await;
}

/// Serves HTTP until the peer closes or a call takes the connection over.
async fn serve(tcp: TcpStream, peer: SocketAddr, router: Router, tls: Option<Arc<Tls>>) -> io::Result<()> {
    let stream = http_server::handshake(tcp, tls.as_deref()).await?;
    let (raw, mut taken_over) = mpsc::channel(1);
    let service = http_server::service(router, CallerConnection { peer, raw });
    let mut connection = http1::Builder::new().serve_connection(TokioIo::new(stream), service);
    let raw = tokio::select! {
        ended = &mut connection => return ended.map_err(io::Error::other),
        Some(raw) = taken_over.recv() => raw,
    };
    write_raw(connection.into_parts().io.into_inner(), raw).await
}

/// Writes what the fault has left of the answer, then closes the connection: with FIN, or with RST if asked. TLS ends
/// without close_notify, as on a broken connection.
async fn write_raw(mut stream: HttpStream, raw: RawAnswer) -> io::Result<()> {
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
        http_server::socket(&stream).set_zero_linger()?;
    }
    Ok(())
}

/// TLS with these files; an error names the file that cannot be used.
pub(super) fn tls(files: &SandboxTlsFiles) -> io::Result<Arc<Tls>> {
    let options = TlsOptions {
        cert: files.cert.clone(),
        key: files.key.clone(),
        clients: ClientCertificates::Ignored,
        min_version: TlsVersion::Tls12,
    };
    Tls::new(&options).map(Arc::new).map_err(|fault| io::Error::new(io::ErrorKind::InvalidInput, fault))
}
