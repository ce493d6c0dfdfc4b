//! Drives a [`Connection`] with tokio: reads, writes, sleeps and waits for it. One read and one write a batch.
//!
//! Decides nothing: what is executed, how long a peer has and what memory it may take are the connection's own rules.

#[cfg(test)]
mod tests;

use std::future::poll_fn;
use std::io::{self, IoSlice};
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::Ordering::Acquire;
use std::task::{self, Poll, ready};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt};
use tokio::time::{Instant, sleep_until, timeout, timeout_at};
use tokio_util::io::poll_read_buf;
use tokio_util::task::TaskTracker;

use super::connection::{Connection, ConnectionWait, LOG_TARGET, Next};
use super::worker::{ConnectionOrigin, Peer};
use super::{ListenerPolicy, ServerState};
use crate::access::Rights;
use crate::clock::{BootMs, Now, boot_ms};
use crate::stats::WorkerStats;

/// Most pieces written in one call: text, a large value and so on.
const PIECES_MAX: usize = 16;

/// What the connections of a worker have in common.
#[derive(Clone)]
pub(super) struct WorkerContext {
    pub shared: Arc<ServerState>,
    pub stats: Arc<WorkerStats>,
    /// Counts connections in the middle of a batch: the worker waits for those before it ends.
    pub busy: TaskTracker,
}

pub(super) struct ConnectionDriver<S> {
    stream: S,
    peer: Peer,
    connection: Connection,
    worker: WorkerContext,
    tls: bool,
}

impl<S: AsyncRead + AsyncWrite + Unpin> ConnectionDriver<S> {
    pub fn new(
        stream: S,
        origin: ConnectionOrigin,
        policy: &ListenerPolicy,
        rights: Arc<Rights>,
        worker: WorkerContext,
    ) -> Self {
        let peer = origin.peer;
        let (shared, stats) = (worker.shared.clone(), worker.stats.clone());
        let connection = Connection::new(origin, policy, rights, shared, stats, boot_ms());
        ConnectionDriver { stream, peer, connection, worker, tls: policy.tls }
    }

    /// Serves the client until it or the server closes the connection.
    pub async fn run(mut self) {
        tracing::debug!(target: LOG_TARGET, peer = %self.peer, "connected");
        let ended = self.serve().await;
        let clean = ended.is_ok();
        if let Err(error) = ended
            && !matches!(error.kind(), io::ErrorKind::ConnectionReset | io::ErrorKind::BrokenPipe)
        {
            tracing::debug!(target: LOG_TARGET, peer = %self.peer, %error, "connection lost");
        }
        // Before closing, which may take long if the peer reads nothing: it must not hold memory for so long.
        self.connection.release_memory(boot_ms());
        if self.tls && clean {
            // Without this message a TLS client cannot tell the end from an attack.
            let _ = timeout(self.worker.shared.limits.write_timeout, self.stream.shutdown()).await;
        }
        tracing::debug!(target: LOG_TARGET, peer = %self.peer, "disconnected");
    }

    async fn serve(&mut self) -> io::Result<()> {
        while self.fill().await? {
            let next = self.connection.execute(Now::read_for_batch());
            // Usually the socket takes all answers at once, and the batch is done.
            self.write_at_once().await?;
            let done = self.connection.has_no_answer() && matches!(next, Next::Read);
            if !done && !self.finish_batch(next).await? || self.worker.shared.closing.load(Acquire) {
                return Ok(());
            }
        }
        Ok(())
    }

    /// Writes the answers and executes the rest of what was read; false to close. The worker waits for this before it
    /// ends.
    async fn finish_batch(&mut self, mut next: Next) -> io::Result<bool> {
        let _batch = self.worker.busy.token();
        loop {
            self.flush().await?;
            match next {
                Next::Read => return Ok(true),
                Next::Turn => self.give_turn().await,
                Next::Wait(wait) => {
                    if !self.wait(wait).await {
                        return Ok(false);
                    }
                }
                Next::RefreshCertificates => self.refresh_certificates().await,
                Next::Close => return Ok(false),
                Next::Shutdown => {
                    self.worker.shared.shutdown.cancel();
                    return Ok(false);
                }
            }
            next = self.connection.resume(Now::read_for_batch());
        }
    }

    async fn give_turn(&mut self) {
        self.connection.give_turn();
        tokio::task::yield_now().await;
    }

    /// False if the connection ends meanwhile.
    async fn wait(&mut self, wait: ConnectionWait) -> bool {
        let deadline_ms = self.connection.wait_deadline(&wait, boot_ms());
        let until = self.instant(deadline_ms);
        match wait {
            ConnectionWait::FirstFetch(mut wait) => drop(timeout_at(until, wait.0.changed()).await),
            ConnectionWait::Verification(verification) => drop(timeout_at(until, verification).await),
            ConnectionWait::LoginTurn(_) => {
                let shutdown = self.worker.shared.shutdown.cancelled();
                return timeout_at(until, shutdown).await.is_err();
            }
            ConnectionWait::LoginFailed => sleep_until(until).await,
        }
        true
    }

    /// `refresh_certs`, on a thread that may block, because it reads files.
    async fn refresh_certificates(&mut self) {
        let authenticator = self.worker.shared.authenticator.clone();
        let refreshed = tokio::task::spawn_blocking(move || authenticator.refresh_certificates()).await;
        self.connection.answer_refresh(refreshed.unwrap_or(Some(Err(()))));
    }

    /// A deadline for tokio's timers.
    fn instant(&self, deadline_ms: BootMs) -> Instant {
        Instant::now() + Duration::from_millis(deadline_ms.saturating_sub(self.connection.now_ms()))
    }

    /// Reads once. False if the peer is done, or has been silent for too long.
    async fn fill(&mut self) -> io::Result<bool> {
        let mut deadline = self.connection.begin_reading();
        if self.connection.is_read_turn_over() {
            self.give_turn().await;
        }
        let read = loop {
            let Some(deadline_ms) = deadline else { break self.read().await? };
            if let Ok(read) = timeout_at(self.instant(deadline_ms), self.read()).await {
                break read?;
            }
            // The timer may fire before the clock has reached the deadline.
            deadline = self.connection.record_late(boot_ms().max(deadline_ms));
            if deadline.is_none() {
                return Ok(false);
            }
        };
        let Some(read) = read else { return Ok(true) };
        self.connection.record_read(read);
        Ok(read > 0)
    }

    /// Reads once; `None` if there is no room.
    async fn read(&mut self) -> io::Result<Option<usize>> {
        poll_fn(|cx| {
            let Some(mut room) = self.connection.read_room(cx.waker()) else { return Poll::Ready(Ok(None)) };
            let polled = poll_read_buf(Pin::new(&mut self.stream), cx, &mut room);
            if polled.is_pending() {
                self.connection.record_nothing_to_read();
            }
            polled.map_ok(Some)
        })
        .await
    }

    /// Writes as much as the socket takes without waiting.
    async fn write_at_once(&mut self) -> io::Result<()> {
        if self.connection.has_no_answer() {
            return Ok(());
        }
        poll_fn(|cx| {
            if let Poll::Ready(written) = self.poll_write(cx) {
                self.connection.record_written(written?);
            }
            // TLS may have kept the last bytes; this sends them.
            if Pin::new(&mut self.stream).poll_flush(cx)?.is_ready() && self.connection.is_written() {
                self.connection.finish_writing(self.connection.now_ms());
            }
            Poll::Ready(Ok(()))
        })
        .await
    }

    /// Writes what is still queued.
    async fn flush(&mut self) -> io::Result<()> {
        if self.connection.has_no_answer() {
            return Ok(());
        }
        self.connection.begin_writing(boot_ms());
        loop {
            if self.connection.take_write_turn() {
                tokio::task::yield_now().await;
            }
            let deadline_ms = self.connection.write_deadline(boot_ms());
            let Ok(stepped) = timeout_at(self.instant(deadline_ms), self.write_step()).await else {
                return Err(self.connection.write_timeout_error());
            };
            if stepped? {
                self.connection.finish_writing(boot_ms());
                return Ok(());
            }
        }
    }

    /// Writes some of what is queued; true once all of it is sent.
    async fn write_step(&mut self) -> io::Result<bool> {
        poll_fn(|cx| {
            let polled = self.poll_write_step(cx);
            if polled.is_pending() {
                self.connection.record_write_blocked(boot_ms(), cx.waker())?;
            }
            polled
        })
        .await
    }

    fn poll_write_step(&mut self, cx: &mut task::Context<'_>) -> Poll<io::Result<bool>> {
        if !self.connection.is_written() {
            match ready!(self.poll_write(cx))? {
                0 => return Poll::Ready(Err(io::ErrorKind::WriteZero.into())),
                written => self.connection.record_written(written),
            }
            return Poll::Ready(Ok(self.connection.is_written() && !self.tls));
        }
        // TLS may have kept the last bytes: to send them is a step of its own.
        Pin::new(&mut self.stream).poll_flush(cx).map_ok(|()| true)
    }

    /// Writes in one call.
    fn poll_write(&mut self, cx: &mut task::Context<'_>) -> Poll<io::Result<usize>> {
        let stream = Pin::new(&mut self.stream);
        if let Some(bytes) = self.connection.unwritten_bytes() {
            return stream.poll_write(cx, bytes);
        }
        let mut slices = [IoSlice::new(&[]); PIECES_MAX];
        let count = self.connection.unwritten_slices(&mut slices);
        stream.poll_write_vectored(cx, &slices[..count])
    }
}
