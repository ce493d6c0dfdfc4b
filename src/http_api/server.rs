//! Serves the connections: accepts them, limits their number and time, does TLS, and ends them at shutdown.
//!
//! Every answer leaves here with the security headers.

use std::convert::Infallible;
use std::io;
use std::net::{SocketAddr, TcpListener};
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::task::{Context, Poll};
use std::time::Duration;

use axum::Router;
use axum::body::{Body, Bytes};
use axum::http::request::Parts as Head;
use axum::http::{HeaderName, HeaderValue, Request, Response, StatusCode, header};
use axum::response::IntoResponse;
use http_body_util::{BodyExt, LengthLimitError, Limited};
use hyper::body::{Frame, Incoming, SizeHint};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio::time::{Instant, Sleep};
use tokio_util::task::TaskTracker;
use tower_service::Service;

use super::access_control::{self, ConnectionAddresses};
use super::connections::{AnswerGuard, ConnectionSlot, HttpConnection, RequestCost};
use super::context::ApiContext;
use super::problem::Problem;
use super::{events, malformed_requests, routes, wechat};
use crate::clock;
use crate::descriptors;
use crate::supervision::Supervisor;

/// A request's head must be complete after this time; a silent connection is closed after it, too.
const HEAD_TIMEOUT: Duration = Duration::from_secs(15);
/// The same for a request's body.
const BODY_TIMEOUT: Duration = Duration::from_secs(10);
/// The largest body that is read, bytes. No body needs more than a token and some names.
const BODY_BYTES_MAX: usize = 16 * 1024;
/// The largest head, bytes.
const HEAD_BYTES_MAX: usize = 16 * 1024;
const HEADERS_MAX: usize = 64;
/// A connection is closed when the client reads nothing of its answer for so long.
const WRITE_TIMEOUT: Duration = Duration::from_secs(30);
const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(10);
/// The pause after a failed accept: without free descriptors it would fail again at once.
const ACCEPT_RETRY: Duration = Duration::from_millis(100);
/// The shortest time between two log lines about failed accepts.
const LOG_SPACING_MS: u64 = 60_000;
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
    loop {
        let accepted = tokio::select! {
            () = context.shutdown.cancelled() => return,
            accepted = listener.accept() => accepted,
        };
        match accepted {
            Ok((stream, peer)) => {
                match context.connections.acquire(peer.ip(), clock::boot_ms()) {
                    Some(slot) => {
                        drop(tracker.spawn(run_connection(stream, peer, router.clone(), context.clone(), slot)));
                    }
                    None => reject(&stream, context.reload_handle.tls.is_some()),
                }
                // In a burst, each connection is read from before the next one is accepted: one whose request is there
                // already keeps its slot.
                tokio::task::yield_now().await;
            }
            // The peer went away before it was accepted.
            Err(error) if matches!(error.kind(), io::ErrorKind::ConnectionAborted | io::ErrorKind::ConnectionReset) => {
            }
            Err(error) if descriptors::is_dead_listener(&error) => {
                tracing::error!(%error, "the listening socket of the HTTP API is gone");
                return;
            }
            Err(error) => {
                if context.connections.accept_failure_logged.allow(clock::boot_ms(), LOG_SPACING_MS) {
                    let advice =
                        if descriptors::is_exhausted(&error) { descriptors::REMEDY } else { "it is tried again" };
                    tracing::warn!(%error, advice, "the HTTP API failed to accept a connection");
                }
                tokio::time::sleep(ACCEPT_RETRY).await;
            }
        }
    }
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
    let ended = tokio::select! {
        ended = handshake_and_serve(stream, peer, router, &context, Arc::new(slot)) => ended,
        () = evicted.cancelled() => return,
    };
    if let Err(error) = ended {
        tracing::debug!(%peer, %error, "an HTTP connection ended with an error");
    }
}

async fn handshake_and_serve(
    stream: TcpStream,
    peer: SocketAddr,
    router: Router,
    context: &Arc<ApiContext>,
    slot: Arc<ConnectionSlot>,
) -> io::Result<()> {
    let _ = stream.set_nodelay(true);
    let local = stream.local_addr()?;
    match &context.reload_handle.tls {
        None => serve_connection(stream, ConnectionAddresses { peer, local, tls: false }, router, context, slot).await,
        Some(tls) => match tokio::time::timeout(HANDSHAKE_TIMEOUT, tls.accept(stream)).await {
            Ok(Ok(stream)) => {
                serve_connection(stream, ConnectionAddresses { peer, local, tls: true }, router, context, slot).await
            }
            Ok(Err(error)) => Err(error),
            Err(_) => Err(io::Error::from(io::ErrorKind::TimedOut)),
        },
    }
}

type AnswerFuture = Pin<Box<dyn Future<Output = Result<Response<Body>, Infallible>> + Send>>;

async fn serve_connection<S>(
    stream: S,
    addresses: ConnectionAddresses,
    router: Router,
    context: &Arc<ApiContext>,
    slot: Arc<ConnectionSlot>,
) -> io::Result<()>
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let stream = WriteTimeoutStream::new(stream, slot.connection.clone());
    let service = service_fn(|request: Request<Incoming>| {
        let answer: AnswerFuture = Box::pin(answer(request, addresses, router.clone(), context.clone(), slot.clone()));
        answer
    });
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

async fn answer(
    request: Request<Incoming>,
    addresses: ConnectionAddresses,
    router: Router,
    context: Arc<ApiContext>,
    slot: Arc<ConnectionSlot>,
) -> Result<Response<Body>, Infallible> {
    let (head, body) = request.into_parts();
    let for_wechat = wechat::is_wechat_path(head.uri.path());
    let mut response = match handle(head, body, addresses, router, &context, &slot).await {
        Ok(response) => response,
        Err(problem) if for_wechat => wechat::from_problem(&problem),
        Err(problem) => problem.into_response(),
    };
    if slot.connection.is_reserved() {
        response.headers_mut().insert(header::CONNECTION, HeaderValue::from_static("close"));
    }
    Ok(add_security_headers(response))
}

async fn handle(
    mut head: Head,
    body: Incoming,
    addresses: ConnectionAddresses,
    mut router: Router,
    context: &Arc<ApiContext>,
    slot: &ConnectionSlot,
) -> Result<Response<Body>, Problem> {
    let caller = context.reload_handle.access_control.admit(&head, &addresses, clock::boot_ms())?;
    let cost = cost(&head);
    // A health check does not wait for a body: one that does not come would keep the slot.
    let body = if cost == RequestCost::Health { Body::empty() } else { read_body(body).await? };
    let answering = slot.begin_answer(cost).ok_or_else(no_slot_problem)?;
    head.extensions.insert(Arc::new(caller));
    let Ok(response) = router.call(Request::from_parts(head, body)).await;
    Ok(response.map(|body| Body::new(AnswerBody { body, _answering: answering })))
}

fn cost(head: &Head) -> RequestCost {
    match head.uri.path() {
        _ if access_control::is_bare_health(head) => RequestCost::Health,
        "/metrics" => RequestCost::Short,
        path if wechat::is_wechat_path(path) => RequestCost::Short,
        _ => RequestCost::Other,
    }
}

/// All slots are busy.
fn no_slot_problem() -> Problem {
    let detail = "all connections are being answered; see max_connections and max_connections_per_peer under [http]";
    let problem = Problem::new(StatusCode::SERVICE_UNAVAILABLE, "busy", detail);
    Problem { retry_after_s: Some(1), ..problem }
}

/// An answer's body. Until it has been sent, the connection counts as busy.
struct AnswerBody {
    body: Body,
    _answering: AnswerGuard,
}

impl hyper::body::Body for AnswerBody {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        Pin::new(&mut self.body).poll_frame(cx)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

/// The body, if it is small enough and comes in time.
async fn read_body(body: Incoming) -> Result<Body, Problem> {
    match tokio::time::timeout(BODY_TIMEOUT, Limited::new(body, BODY_BYTES_MAX).collect()).await {
        Ok(Ok(collected)) => Ok(Body::from(collected.to_bytes())),
        Ok(Err(error)) if error.is::<LengthLimitError>() => Err(Problem::new(
            StatusCode::PAYLOAD_TOO_LARGE,
            "too-large",
            "the body is larger than any that is known here",
        )),
        Ok(Err(_)) => Err(Problem::bad("the body ended before its time")),
        Err(_) => Err(Problem::new(StatusCode::REQUEST_TIMEOUT, "too-slow", "the body did not come in time")),
    }
}

const CSP: &str = "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; connect-src 'self'; \
     form-action 'self'; base-uri 'none'; frame-ancestors 'none'";

/// On every answer. `Strict-Transport-Security` is not among them: it would apply to all ports of the host.
const HEADERS: &[(&str, &str)] = &[
    ("content-security-policy", CSP),
    ("x-content-type-options", "nosniff"),
    ("x-frame-options", "DENY"),
    ("referrer-policy", "no-referrer"),
    ("cross-origin-opener-policy", "same-origin"),
    ("cross-origin-resource-policy", "same-origin"),
    ("permissions-policy", "camera=(), geolocation=(), microphone=()"),
];

fn add_security_headers(mut response: Response<Body>) -> Response<Body> {
    let headers = response.headers_mut();
    for (name, value) in HEADERS {
        headers.insert(HeaderName::from_static(name), HeaderValue::from_static(value));
    }
    headers.entry(header::CACHE_CONTROL).or_insert(HeaderValue::from_static("no-store"));
    response
}

/// A stream that fails when the peer reads nothing of what is written for a while. Reading has its own limits elsewhere:
/// a client that listens to events sends nothing.
struct WriteTimeoutStream<S> {
    stream: S,
    /// Set while a write waits.
    deadline: Option<Pin<Box<Sleep>>>,
    /// The answer to a malformed request that is written in place of hyper's, and how much of it has been written.
    replacement: Option<(Vec<u8>, usize)>,
    connection: Arc<HttpConnection>,
}

impl<S: AsyncWrite + Unpin> WriteTimeoutStream<S> {
    fn new(stream: S, connection: Arc<HttpConnection>) -> WriteTimeoutStream<S> {
        WriteTimeoutStream { stream, deadline: None, replacement: None, connection }
    }

    fn poll_with_timeout<T>(
        &mut self,
        cx: &mut Context<'_>,
        write: impl FnOnce(Pin<&mut S>, &mut Context<'_>) -> Poll<io::Result<T>>,
    ) -> Poll<io::Result<T>> {
        let written = write(Pin::new(&mut self.stream), cx);
        self.connection.is_writing.store(written.is_pending(), Relaxed);
        if written.is_ready() {
            self.deadline = None;
            return written;
        }
        let deadline =
            self.deadline.get_or_insert_with(|| Box::pin(tokio::time::sleep_until(Instant::now() + WRITE_TIMEOUT)));
        match deadline.as_mut().poll(cx) {
            Poll::Ready(()) => Poll::Ready(Err(io::ErrorKind::TimedOut.into())),
            Poll::Pending => Poll::Pending,
        }
    }
}

impl<S: AsyncWrite + Unpin> WriteTimeoutStream<S> {
    /// Ready once all of the replacement has been written.
    fn poll_write_replacement(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        while let Some((bytes, at)) = self.replacement.take() {
            let Some(rest) = bytes.get(at..).filter(|rest| !rest.is_empty()) else { break };
            let written = self.poll_with_timeout(cx, |stream, cx| stream.poll_write(cx, rest));
            match written {
                Poll::Ready(Ok(0)) => return Poll::Ready(Err(io::ErrorKind::WriteZero.into())),
                Poll::Ready(Ok(more)) => self.replacement = Some((bytes, at + more)),
                Poll::Ready(Err(error)) => return Poll::Ready(Err(error)),
                Poll::Pending => {
                    self.replacement = Some((bytes, at));
                    return Poll::Pending;
                }
            }
        }
        Poll::Ready(Ok(()))
    }

    /// Writes the replacement of an answer of hyper's; `None` for any other answer.
    fn poll_replacement(
        &mut self,
        cx: &mut Context<'_>,
        answer: &[u8],
        length: usize,
    ) -> Option<Poll<io::Result<usize>>> {
        if self.replacement.is_none() {
            self.replacement = Some((malformed_requests::replacement(answer)?, 0));
        }
        Some(self.poll_write_replacement(cx).map_ok(|()| length))
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for WriteTimeoutStream<S> {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(cx, buffer)
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for WriteTimeoutStream<S> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        if let Some(replaced) = self.poll_replacement(cx, bytes, bytes.len()) {
            return replaced;
        }
        self.poll_with_timeout(cx, |stream, cx| stream.poll_write(cx, bytes))
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.poll_with_timeout(cx, |stream, cx| stream.poll_flush(cx))
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.poll_with_timeout(cx, |stream, cx| stream.poll_shutdown(cx))
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let length = bytes.iter().map(|part| part.len()).sum();
        let first = bytes.iter().find(|part| !part.is_empty()).map_or(&[][..], |part| part);
        if let Some(replaced) = self.poll_replacement(cx, first, length) {
            return replaced;
        }
        self.poll_with_timeout(cx, |stream, cx| stream.poll_write_vectored(cx, bytes))
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }
}
