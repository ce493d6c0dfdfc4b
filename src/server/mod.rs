//! Bytes in, bytes out: listeners, workers, connections, and their limits.
//!
//! One acceptor for each listener hands connections to the workers; each worker is a thread with a runtime of its own
//! and owns its connections for life. Nothing here knows what a command means.

mod authentication;
mod buffers;
mod connection;
mod driver;
pub mod listen_address;
mod listener;
mod login_limit;
mod memory;
pub mod options;
mod worker;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::thread::JoinHandle;
use std::time::Duration;

use tokio_util::sync::CancellationToken;

use self::login_limit::LoginLimiter;
use self::memory::ConnectionMemory;
use crate::clock::{BootMs, LogThrottle};
use crate::service::Service;
use crate::supervision::Supervisor;

pub use authentication::{Authenticator, ListenerPolicy};
pub use listener::{BoundListener, SocketOwner, bind, bound_socket};
pub use options::{Access, ListenAt, Listener, Options, Protocol};

/// Limits of a connection.
#[derive(Clone, Debug)]
pub struct Limits {
    pub max_connections: usize,
    /// Requests executed in a row before other connections get a turn.
    pub requests_per_turn: usize,
    /// Largest data block that is buffered, bytes.
    pub value_bytes_max: usize,
    /// A silent connection is closed after this long.
    pub idle_timeout: Option<Duration>,
    /// A command line that has begun must end after this long while memory or connections are scarce.
    pub line_timeout: Duration,
    /// While they are not, a line or a short data block that somebody may be typing ends when nothing has come of it for
    /// this long...
    pub typing_pause: Duration,
    /// ...or when it is not whole after this long.
    pub typing_max: Duration,
    /// Any other data block must be whole after this long, plus its size at [`Limits::REQUEST_BYTES_PER_S_MIN`].
    pub block_timeout: Duration,
    /// Half-received requests and answers that wait for their peers may hold so many bytes, over all connections.
    pub in_flight_bytes_max: u64,
    /// A peer that reads nothing of its answers for this long is given up; so is one that needs twice as long, plus their
    /// size at [`Limits::ANSWER_BYTES_PER_S_MIN`].
    pub write_timeout: Duration,
    /// Time for a client to log in.
    pub login_timeout: Duration,
    /// The answer to a wrong password is delayed this long.
    pub login_failure_delay: Duration,
    /// A TLS handshake must be over after this long.
    pub handshake_timeout: Duration,
    /// How long a request may be held for a managed key's first fetch or check.
    pub hold: Duration,
}

impl Limits {
    /// A data block that arrives more slowly than this, bytes per second, is given up after its timeout.
    pub const REQUEST_BYTES_PER_S_MIN: u64 = 16 * 1024;
    /// Answers that are taken more slowly than this, bytes per second, do not hold memory for longer. A modem is quicker.
    pub const ANSWER_BYTES_PER_S_MIN: u64 = 1024;
}

/// How long pressure is assumed to last after it was seen, milliseconds; longer than the time between two checks.
const PRESSURE_LASTS_MS: u64 = 5_000;

/// What all connections share.
pub(crate) struct ServerState {
    pub service: Arc<Service>,
    pub authenticator: Arc<Authenticator>,
    pub limits: Limits,
    /// What connections hold of requests and answers, over all of them.
    pub in_flight: ConnectionMemory,
    /// Until when there is pressure.
    pressure_until_ms: AtomicU64,
    /// Slows down whoever guesses passwords.
    pub logins: LoginLimiter,
    /// Set when the server is closing: connections finish their batch and end.
    pub closing: AtomicBool,
    /// A client's `shutdown`.
    pub shutdown: CancellationToken,
    /// For log lines about other protocols.
    pub foreign_log: LogThrottle,
    /// For log lines about failed accepts.
    pub accept_log: LogThrottle,
    /// For log lines about guessed passwords.
    pub guessing_log: LogThrottle,
}

impl ServerState {
    /// Memory or free connections are getting scarce: slow clients then get less time.
    pub fn is_under_pressure(&self) -> bool {
        let (open, most) = (self.service.stats.curr_connections.load(Relaxed), self.limits.max_connections as u64);
        self.in_flight.is_under_pressure() || open.saturating_mul(4) > most.saturating_mul(3)
    }

    /// Records pressure, and says whether there is some or was a moment ago: all slow clients go then, not just enough of
    /// them for the next client to make it scarce again.
    pub fn record_pressure(&self, now_ms: BootMs) -> bool {
        if self.is_under_pressure() {
            self.pressure_until_ms.store(now_ms.saturating_add(PRESSURE_LASTS_MS), Relaxed);
        }
        now_ms < self.pressure_until_ms.load(Relaxed)
    }

    fn new(
        service: Arc<Service>,
        authenticator: Arc<Authenticator>,
        limits: Limits,
        shutdown: CancellationToken,
    ) -> ServerState {
        let (detached, stats) = (service.cache.detached().clone(), service.stats.clone());
        ServerState {
            service,
            authenticator,
            in_flight: ConnectionMemory::new(limits.in_flight_bytes_max, detached, stats),
            pressure_until_ms: AtomicU64::new(0),
            logins: LoginLimiter::default(),
            limits,
            closing: AtomicBool::new(false),
            shutdown,
            foreign_log: LogThrottle::default(),
            accept_log: LogThrottle::default(),
            guessing_log: LogThrottle::default(),
        }
    }
}

/// Serves until the shutdown fires, then lets what is in flight finish. Runs on its own threads.
pub struct Server {
    shared: Arc<ServerState>,
    supervisor: Supervisor,
    dispatcher: Arc<worker::Dispatcher>,
    workers: Vec<JoinHandle<()>>,
    bound: Vec<BoundListener>,
}

impl Server {
    /// Starts the workers; [`Server::run`] starts accepting.
    pub fn new(
        bound: Vec<BoundListener>,
        service: Arc<Service>,
        authenticator: Arc<Authenticator>,
        limits: Limits,
        threads: usize,
        supervisor: &Supervisor,
    ) -> std::io::Result<Server> {
        let shared = Arc::new(ServerState::new(service, authenticator, limits, supervisor.shutdown().clone()));
        let start = |index| worker::start(index, shared.clone(), supervisor.watch(format!("worker-{index}")));
        let (accepted, workers) = (0..threads.max(1)).map(start).collect::<Result<(Vec<_>, _), _>>()?;
        let dispatcher = Arc::new(worker::Dispatcher::new(accepted));
        Ok(Server { shared, supervisor: supervisor.clone(), dispatcher, workers, bound })
    }

    /// Accepts and serves until the shutdown token fires and the last batch is written.
    pub async fn run(self) {
        let mut accepting = tokio::task::JoinSet::new();
        for bound in self.bound {
            let alive = self.supervisor.watch(format!("the listener at {}", bound.address()));
            let accept = listener::accept(bound, self.shared.clone(), self.dispatcher.clone());
            accepting.spawn(alive.during(accept));
        }
        self.shared.shutdown.cancelled().await;
        accepting.shutdown().await;
        self.shared.closing.store(true, std::sync::atomic::Ordering::Release);
        drop(self.dispatcher);
        for worker in self.workers {
            if tokio::task::spawn_blocking(move || worker.join()).await.is_err() {
                tracing::error!("a worker could not be waited for");
            }
        }
    }
}
