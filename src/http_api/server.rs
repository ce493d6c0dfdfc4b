//! Serves the connections: limits their number and time, and ends them at shutdown.

use std::io;
use std::net::{SocketAddr, TcpListener};
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::TcpStream;
use tokio_util::task::TaskTracker;

use super::access_control::ConnectionAddresses;
use super::admission::RequestConnection;
use super::answer_stream::AnswerStream;
use super::connections::ConnectionSlot;
use super::context::ApiContext;
use super::{events, routes};
use crate::clock;
use crate::descriptors;
use crate::http_server::{self, ServerWords};
use crate::supervision::Supervisor;

/// A request's head must be complete after this time; a silent connection is closed after it, too.
const HEAD_TIMEOUT: Duration = Duration::from_secs(15);
const HEAD_BYTES_MAX: usize = 16 * 1024;
const HEADERS_MAX: usize = 64;
/// The time that unfinished answers have at shutdown.
const FINISH_MAX: Duration = Duration::from_secs(3);

/// Serves until the shutdown, and then until unfinished answers are complete.
pub async fn serve(listeners: Vec<TcpListener>, context: Arc<ApiContext>, supervisor: &Supervisor) {
    let tracker = TaskTracker::new();
    let router = routes::build(context.clone());
    let (alive, watching) = (supervisor.watch("the events of the HTTP API"), events::watch(context.clone()));
    tracker.spawn(alive.during(watching));
    for listener in listeners {
        let alive = supervisor.watch("the listener of the HTTP API");
        match tokio::net::TcpListener::from_std(listener) {
            Ok(listener) => {
                let accepting = accept(listener, router.clone(), context.clone(), tracker.clone());
                tracker.spawn(alive.during(accepting));
            }
            Err(error) => tracing::error!(%error, "the HTTP API cannot listen"),
        }
    }
    context.shutdown.cancelled().await;
    tracker.close();
    if tokio::time::timeout(FINISH_MAX, tracker.wait()).await.is_err() {
        tracing::debug!("some HTTP clients did not read their last answers in time");
    }
}

async fn accept(listener: tokio::net::TcpListener, router: Router, context: Arc<ApiContext>, tracker: TaskTracker) {
    let failure_logged = &context.connections.accept_failure_logged;
    let serve = |stream, peer: SocketAddr| match context.connections.acquire(peer.ip(), clock::boot_ms()) {
        Some(slot) => drop(tracker.spawn(run_connection(stream, peer, router.clone(), context.clone(), slot))),
        None => reject(&stream, context.reload_handle.tls.is_some()),
    };
    let server = ServerWords { name: "the HTTP API", when_exhausted: descriptors::REMEDY };
    http_server::accept(listener, &context.shutdown, server, failure_logged, serve).await;
}

/// The answer fits the socket's empty send buffer, so this does not wait for the peer. With TLS nothing can be sent yet.
/// Nobody knows yet which API the request is for, so the body is WeChat's answer when it is busy.
fn reject(stream: &TcpStream, tls: bool) {
    const BODY: &str = r#"{"errcode":-1,"errmsg":"system error: too many connections"}"#;
    if !tls {
        let head =
            "HTTP/1.1 503 Service Unavailable\r\nContent-Type: application/json\r\nRetry-After: 1\r\nConnection: close";
        let _ = stream.try_write(format!("{head}\r\nContent-Length: {}\r\n\r\n{BODY}", BODY.len()).as_bytes());
    }
}

async fn run_connection(
    stream: TcpStream,
    peer: SocketAddr,
    router: Router,
    context: Arc<ApiContext>,
    slot: ConnectionSlot,
) {
    let evicted = slot.connection.evicted.clone();
    if let Some(Err(error)) = evicted.run_until_cancelled(serve_connection(stream, peer, router, &context, slot)).await
    {
        tracing::debug!(%peer, %error, "an HTTP connection ended with an error");
    }
}

async fn serve_connection(
    stream: TcpStream,
    peer: SocketAddr,
    router: Router,
    context: &ApiContext,
    slot: ConnectionSlot,
) -> io::Result<()> {
    let (local, tls) = (stream.local_addr()?, context.reload_handle.tls.as_deref());
    let addresses = ConnectionAddresses { peer, local, tls: tls.is_some() };
    let stream = AnswerStream::new(http_server::handshake(stream, tls).await?, slot.connection.clone());
    let service = http_server::service(router, RequestConnection { addresses, slot: Arc::new(slot) });
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD_TIMEOUT)
        .max_buf_size(HEAD_BYTES_MAX)
        .max_headers(HEADERS_MAX)
        .serve_connection(TokioIo::new(stream), service);
    let mut connection = std::pin::pin!(connection);
    let ended = tokio::select! {
        ended = connection.as_mut() => ended,
        () = context.shutdown.cancelled() => {
            connection.as_mut().graceful_shutdown();
            connection.await
        }
    };
    ended.map_err(io::Error::other)
}
