//! The store's one connection for commands: opened when it is needed, dropped when it fails, and opened again with backoff
//! and jitter.
//!
//! Fails at once while the Redis is away. Never sends a command twice: the caller is told whether it may have been done.

use parking_lot::Mutex;
use redis::aio::MultiplexedConnection;
use redis::{Pipeline, Value, from_redis_value_ref};
use tokio::sync::{Notify, Semaphore};
use tokio::time::timeout;

use crate::clock::{self, BootMs};
use crate::cluster::record::StoreMs;
use crate::cluster::{StoreClockReading, Unreachable};
use crate::redis_client::{RedisClient, RedisFault};

/// The least and the longest time between attempts to connect; jitter in between.
const ATTEMPT_MS_MIN: u64 = 200;
const ATTEMPT_MS_MAX: u64 = 5_000;
/// Requests under way at once. More would wait inside Redis while their deadlines run.
const REQUESTS_MAX: usize = 128;

/// The command has not been done.
impl From<RedisFault> for Unreachable {
    fn from(fault: RedisFault) -> Unreachable {
        Unreachable::new(format!("the cluster store cannot be used: {fault}"), advice(fault))
    }
}

/// What to do about it. For some faults that differs from a sink.
pub(super) fn advice(fault: RedisFault) -> &'static str {
    match fault {
        RedisFault::Permission => {
            "the user's ACL is too narrow: docs/en/cluster.md has the commands, keys and channels that it takes"
        }
        RedisFault::Cluster => {
            "see that all nodes of the cluster can be reached from here under the names that they tell"
        }
        RedisFault::Protocol => "see that it is a Redis 5 or newer, or one that is compatible, that listens there",
        fault => fault.advice(),
    }
}

/// The answers to a request.
pub(super) struct Replies {
    /// One for each command. A refusal that concerns the command only is among them.
    pub values: Vec<Value>,
    pub sent_ms: BootMs,
    pub received_ms: BootMs,
    /// The number of the connection, from 1.
    pub connection_number: u64,
}

impl Replies {
    /// The store's clock was read while these were made.
    pub fn clock_reading(&self, store_ms: StoreMs) -> StoreClockReading {
        StoreClockReading { store_ms, sent_ms: self.sent_ms, received_ms: self.received_ms }
    }

    /// By the answer to `TIME`, which has that index.
    pub fn clock_reading_at(&self, at: usize) -> Option<StoreClockReading> {
        let (seconds, micros): (u64, u64) = from_redis_value_ref(self.values.get(at)?).ok()?;
        Some(self.clock_reading(seconds.checked_mul(1000)? + micros / 1000))
    }
}

pub(super) struct StoreConnection {
    pub client: RedisClient,
    state: Mutex<ReconnectState>,
    connecting: tokio::sync::Mutex<()>,
    permits: Semaphore,
    /// Notified when the connection is dropped.
    pub lost: Notify,
}

#[derive(Default)]
struct ReconnectState {
    live: Option<MultiplexedConnection>,
    connection_number: u64,
    /// The last fault; none once an answer has come.
    fault: Option<RedisFault>,
    attempt_ms: BootMs,
    delay_ms: u64,
}

impl ReconnectState {
    /// Drops the connection and postpones the next attempt, longer each time in a row.
    fn back_off(&mut self, fault: RedisFault) {
        self.live = None;
        self.fault = Some(fault);
        self.delay_ms = (2 * self.delay_ms).clamp(ATTEMPT_MS_MIN, ATTEMPT_MS_MAX - ATTEMPT_MS_MIN);
        self.attempt_ms = clock::boot_ms() + ATTEMPT_MS_MIN + fastrand::u64(0..=self.delay_ms);
    }
}

impl StoreConnection {
    pub fn new(client: RedisClient) -> StoreConnection {
        StoreConnection {
            client,
            state: Mutex::default(),
            connecting: tokio::sync::Mutex::default(),
            permits: Semaphore::new(REQUESTS_MAX),
            lost: Notify::new(),
        }
    }

    /// When the next attempt to connect may be made; 0: now.
    pub fn attempt_ms(&self) -> BootMs {
        let state = self.state.lock();
        if state.live.is_some() { 0 } else { state.attempt_ms }
    }

    /// Sends a pipeline, with a deadline. The pipeline has to ignore errors.
    pub async fn ask(&self, pipeline: &Pipeline) -> Result<Replies, Unreachable> {
        let deadline = self.client.timeout();
        let permit = timeout(deadline, self.permits.acquire()).await.map_err(|_| RedisFault::Timeout)?;
        let _permit = permit.map_err(|_| RedisFault::Other)?;
        let (connection_number, mut connection) = self.connection().await?;
        let sent_ms = clock::boot_ms();
        let answer = timeout(deadline, pipeline.query_async::<Vec<Value>>(&mut connection)).await;
        let received_ms = clock::boot_ms();
        let values = match answer {
            Ok(answer) => answer.map_err(|error| self.client.record_error(&error)),
            Err(_) => Err(RedisFault::Timeout),
        };
        let values = values.map_err(|fault| self.drop_connection(connection_number, fault, true))?;
        let mut refusals = values.iter().filter_map(|value| self.client.record_refusal(value));
        // Another server may have to be found.
        if let Some(fault) = refusals.find(|fault| fault.is_about_the_connection() || *fault == RedisFault::Cluster) {
            return Err(self.drop_connection(connection_number, fault, false));
        }
        let mut state = self.state.lock();
        if state.connection_number == connection_number {
            (state.fault, state.delay_ms) = (None, 0);
        }
        Ok(Replies { values, sent_ms, received_ms, connection_number })
    }

    fn drop_connection(&self, connection_number: u64, fault: RedisFault, unknown: bool) -> Unreachable {
        let mut state = self.state.lock();
        if state.connection_number == connection_number && state.live.is_some() {
            state.back_off(fault);
            self.lost.notify_one();
        }
        Unreachable { unknown, ..fault.into() }
    }

    fn live(&self) -> Option<(u64, MultiplexedConnection)> {
        let state = self.state.lock();
        Some((state.connection_number, state.live.clone()?))
    }

    /// The connection. One task opens it; others get the last fault meanwhile, and wait only before the first attempt.
    async fn connection(&self) -> Result<(u64, MultiplexedConnection), RedisFault> {
        if let Some(live) = self.live() {
            return Ok(live);
        }
        let fault = self.check_backoff()?;
        let _guard = match (self.connecting.try_lock(), fault) {
            (Ok(guard), _) => guard,
            (Err(_), Some(fault)) => return Err(fault),
            (Err(_), None) => self.connecting.lock().await,
        };
        if let Some(live) = self.live() {
            return Ok(live);
        }
        self.check_backoff()?;
        let connected = self.client.connect().await;
        let mut state = self.state.lock();
        match connected {
            Ok(connection) => {
                state.connection_number += 1;
                state.live = Some(connection.clone());
                Ok((state.connection_number, connection))
            }
            Err(fault) => {
                state.back_off(fault);
                Err(fault)
            }
        }
    }

    /// An error while it is too early for an attempt; otherwise the fault of the last one.
    fn check_backoff(&self) -> Result<Option<RedisFault>, RedisFault> {
        let state = self.state.lock();
        match state.fault {
            Some(fault) if clock::boot_ms() < state.attempt_ms => Err(fault),
            fault => Ok(fault),
        }
    }
}
