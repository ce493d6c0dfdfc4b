//! Connections: accepts them, bounds them in number and in time, speaks TLS, and ends them when told to.
//!
//! Every answer leaves here with the headers that keep browsers from doing what they should not.

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

use super::connections::{Answering, Connection, Cost, Place};
use super::gate::{self, Line};
use super::parts::Parts;
use super::problem::Problem;
use super::{events, routes, unreadable, wechat};
use crate::clock;
use crate::descriptors;
use crate::supervision::Supervisor;

/// A request's head must be whole after this long; a silent connection ends after it too.
const HEAD_TIMEOUT: Duration = Duration::from_secs(15);
/// The same for its body.
const BODY_TIMEOUT: Duration = Duration::from_secs(10);
/// The largest body that is read, bytes. The largest there is names a token and a generation.
const BODY_BYTES_MAX: usize = 16 * 1024;
/// The largest head, bytes.
const HEAD_BYTES_MAX: usize = 16 * 1024;
const HEADERS_MAX: usize = 64;
/// A client that takes nothing of its answer for so long is given up.
const WRITE_TIMEOUT: Duration = Duration::from_secs(30);
const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(10);
/// How long to wait after a failed accept: out of descriptors, it fails again at once.
const ACCEPT_RETRY: Duration = Duration::from_millis(100);
/// A failure to accept is logged at most so often.
const LOG_SPACING_MS: u64 = 60_000;
/// Answers under way at the end may take so long.
const FINISH_MAX: Duration = Duration::from_secs(3);

/// Serves until the shutdown fires and what was under way has been answered.
pub async fn serve(listeners: Vec<TcpListener>, parts: Arc<Parts>, supervisor: &Supervisor) {
    let tracker = TaskTracker::new();
    let router = routes::all(parts.clone());
    let (alive, watching) = (supervisor.watch("the HTTP port's events"), events::watch(parts.clone()));
    tracker.spawn(alive.during(watching));
    for listener in listeners {
        let alive = supervisor.watch("the HTTP port's listener");
        match tokio::net::TcpListener::from_std(listener) {
            Ok(listener) => {
                let accepting = accept(listener, router.clone(), parts.clone(), tracker.clone());
                tracker.spawn(alive.during(accepting));
            }
            Err(error) => tracing::error!(%error, "the side port cannot listen"),
        }
    }
    parts.shutdown.cancelled().await;
    tracker.close();
    if tokio::time::timeout(FINISH_MAX, tracker.wait()).await.is_err() {
        tracing::debug!("some clients of the side port did not take their last answers in time");
    }
}

async fn accept(listener: tokio::net::TcpListener, router: Router, parts: Arc<Parts>, tracker: TaskTracker) {
    loop {
        let accepted = tokio::select! {
            () = parts.shutdown.cancelled() => return,
            accepted = listener.accept() => accepted,
        };
        match accepted {
            Ok((stream, peer)) => {
                match parts.connections.take(peer.ip(), clock::boot_ms()) {
                    Some(place) => {
                        drop(tracker.spawn(connection(stream, peer, router.clone(), parts.clone(), place)));
                    }
                    None => refuse(&stream, parts.keeper.tls.is_some()),
                }
                // In a burst each is looked at before the next comes: one whose request is there already keeps its place.
                tokio::task::yield_now().await;
            }
            // The peer went away before it was accepted.
            Err(error) if matches!(error.kind(), io::ErrorKind::ConnectionAborted | io::ErrorKind::ConnectionReset) => {
            }
            Err(error) if descriptors::is_of_a_dead_listener(&error) => {
                tracing::error!(%error, "the HTTP port's listening socket is gone");
                return;
            }
            Err(error) => {
                if parts.connections.accept_failure_logged.due(clock::boot_ms(), LOG_SPACING_MS) {
                    let advice =
                        if descriptors::is_exhausted(&error) { descriptors::REMEDY } else { "it is tried again" };
                    tracing::warn!(%error, advice, "the side port could not accept a connection");
                }
                tokio::time::sleep(ACCEPT_RETRY).await;
            }
        }
    }
}

/// Fits the socket's empty send buffer, so this does not wait for the peer. In TLS nothing can be said yet. For what the
/// request is meant is not known yet, so the body is what WeChat says when it is busy.
fn refuse(stream: &TcpStream, tls: bool) {
    const BODY: &str = r#"{"errcode":-1,"errmsg":"system error: too many connections"}"#;
    if !tls {
        let head =
            "HTTP/1.1 503 Service Unavailable\r\nContent-Type: application/json\r\nRetry-After: 1\r\nConnection: close";
        let _ = stream.try_write(format!("{head}\r\nContent-Length: {}\r\n\r\n{BODY}", BODY.len()).as_bytes());
    }
}

async fn connection(stream: TcpStream, peer: SocketAddr, router: Router, parts: Arc<Parts>, place: Place) {
    let evicted = place.connection.evicted.clone();
    let ended = tokio::select! {
        ended = converse(stream, peer, router, &parts, Arc::new(place)) => ended,
        () = evicted.cancelled() => return,
    };
    if let Err(error) = ended {
        tracing::debug!(%peer, %error, "a connection of the side port ended with an error");
    }
}

async fn converse(
    stream: TcpStream,
    peer: SocketAddr,
    router: Router,
    parts: &Arc<Parts>,
    place: Arc<Place>,
) -> io::Result<()> {
    let _ = stream.set_nodelay(true);
    let local = stream.local_addr()?;
    match &parts.keeper.tls {
        None => speak(stream, Line { peer, local, tls: false }, router, parts, place).await,
        Some(tls) => match tokio::time::timeout(HANDSHAKE_TIMEOUT, tls.accept(stream)).await {
            Ok(Ok(stream)) => speak(stream, Line { peer, local, tls: true }, router, parts, place).await,
            Ok(Err(error)) => Err(error),
            Err(_) => Err(io::Error::from(io::ErrorKind::TimedOut)),
        },
    }
}

type AnswerFuture = Pin<Box<dyn Future<Output = Result<Response<Body>, Infallible>> + Send>>;

async fn speak<S>(stream: S, line: Line, router: Router, parts: &Arc<Parts>, place: Arc<Place>) -> io::Result<()>
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let stream = Patient::new(stream, place.connection.clone());
    let service = service_fn(|request: Request<Incoming>| {
        let answer: AnswerFuture = Box::pin(answer(request, line, router.clone(), parts.clone(), place.clone()));
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
        () = parts.shutdown.cancelled() => {
            connection.as_mut().graceful_shutdown();
            connection.await
        }
    };
    ended.map_err(io::Error::other)
}

async fn answer(
    request: Request<Incoming>,
    line: Line,
    router: Router,
    parts: Arc<Parts>,
    place: Arc<Place>,
) -> Result<Response<Body>, Infallible> {
    let (head, body) = request.into_parts();
    let for_wechat = wechat::is_wechats(head.uri.path());
    let mut response = match handled(head, body, line, router, &parts, &place).await {
        Ok(response) => response,
        Err(problem) if for_wechat => wechat::refused(&problem),
        Err(problem) => problem.into_response(),
    };
    if place.connection.is_reserved() {
        response.headers_mut().insert(header::CONNECTION, HeaderValue::from_static("close"));
    }
    Ok(harden(response))
}

async fn handled(
    mut head: Head,
    body: Incoming,
    line: Line,
    mut router: Router,
    parts: &Arc<Parts>,
    place: &Place,
) -> Result<Response<Body>, Problem> {
    let visitor = parts.keeper.gate.admit(&head, &line, clock::boot_ms())?;
    let cost = cost(&head);
    // Health waits for no body: one that does not come would keep the place.
    let body = if cost == Cost::Health { Body::empty() } else { whole(body).await? };
    let answering = place.begin_answer(cost).ok_or_else(crowded)?;
    head.extensions.insert(Arc::new(visitor));
    let Ok(response) = router.call(Request::from_parts(head, body)).await;
    Ok(response.map(|body| Body::new(AnswerBody { body, _answering: answering })))
}

fn cost(head: &Head) -> Cost {
    match head.uri.path() {
        _ if gate::is_bare_health(head) => Cost::Health,
        "/metrics" => Cost::Short,
        path if wechat::is_wechats(path) => Cost::Short,
        _ => Cost::Other,
    }
}

/// All places are taken by requests that are being answered.
fn crowded() -> Problem {
    let detail = "all connections are being answered; see max_connections and max_connections_per_peer under [side]";
    let problem = Problem::new(StatusCode::SERVICE_UNAVAILABLE, "busy", detail);
    Problem { retry_after_s: Some(1), ..problem }
}

/// An answer's body: until it has been handed over, the connection is being answered.
struct AnswerBody {
    body: Body,
    _answering: Answering,
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

/// The body, if it is small and comes in time.
async fn whole(body: Incoming) -> Result<Body, Problem> {
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

/// On every answer. `Strict-Transport-Security` is not among them: it would speak for all ports of the host.
const HEADERS: &[(&str, &str)] = &[
    ("content-security-policy", CSP),
    ("x-content-type-options", "nosniff"),
    ("x-frame-options", "DENY"),
    ("referrer-policy", "no-referrer"),
    ("cross-origin-opener-policy", "same-origin"),
    ("cross-origin-resource-policy", "same-origin"),
    ("permissions-policy", "camera=(), geolocation=(), microphone=()"),
];

fn harden(mut response: Response<Body>) -> Response<Body> {
    let headers = response.headers_mut();
    for (name, value) in HEADERS {
        headers.insert(HeaderName::from_static(name), HeaderValue::from_static(value));
    }
    headers.entry(header::CACHE_CONTROL).or_insert(HeaderValue::from_static("no-store"));
    response
}

/// A stream whose peer must take something of what is written now and then. Reading is bounded elsewhere: a client that
/// listens to events has nothing to say.
struct Patient<S> {
    stream: S,
    /// Set while a write waits.
    deadline: Option<Pin<Box<Sleep>>>,
    /// Written in place of what hyper has said of a request that it could not read; and how much of it has been.
    instead: Option<(Vec<u8>, usize)>,
    connection: Arc<Connection>,
}

impl<S: AsyncWrite + Unpin> Patient<S> {
    fn new(stream: S, connection: Arc<Connection>) -> Patient<S> {
        Patient { stream, deadline: None, instead: None, connection }
    }

    fn bounded<T>(
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

impl<S: AsyncWrite + Unpin> Patient<S> {
    /// True once all of the replacement has been written.
    fn poll_instead(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        while let Some((bytes, at)) = self.instead.take() {
            let Some(rest) = bytes.get(at..).filter(|rest| !rest.is_empty()) else { break };
            let written = self.bounded(cx, |stream, cx| stream.poll_write(cx, rest));
            match written {
                Poll::Ready(Ok(0)) => return Poll::Ready(Err(io::ErrorKind::WriteZero.into())),
                Poll::Ready(Ok(more)) => self.instead = Some((bytes, at + more)),
                Poll::Ready(Err(error)) => return Poll::Ready(Err(error)),
                Poll::Pending => {
                    self.instead = Some((bytes, at));
                    return Poll::Pending;
                }
            }
        }
        Poll::Ready(Ok(()))
    }

    /// Writes the replacement of such an answer; `None` of any other.
    fn poll_replace(&mut self, cx: &mut Context<'_>, answer: &[u8], length: usize) -> Option<Poll<io::Result<usize>>> {
        if self.instead.is_none() {
            self.instead = Some((unreadable::replacement(answer)?, 0));
        }
        Some(self.poll_instead(cx).map_ok(|()| length))
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Patient<S> {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(cx, buffer)
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Patient<S> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        if let Some(replaced) = self.poll_replace(cx, bytes, bytes.len()) {
            return replaced;
        }
        self.bounded(cx, |stream, cx| stream.poll_write(cx, bytes))
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.bounded(cx, |stream, cx| stream.poll_flush(cx))
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.bounded(cx, |stream, cx| stream.poll_shutdown(cx))
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let length = bytes.iter().map(|part| part.len()).sum();
        let first = bytes.iter().find(|part| !part.is_empty()).map_or(&[][..], |part| part);
        if let Some(replaced) = self.poll_replace(cx, first, length) {
            return replaced;
        }
        self.bounded(cx, |stream, cx| stream.poll_write_vectored(cx, bytes))
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }
}
