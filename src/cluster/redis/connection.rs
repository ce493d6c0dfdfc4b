//! The one connection that a store asks by: made when it is needed, given up when it is of no use, and made again
//! neither too often nor by all nodes at once.
//!
//! Fails at once while the Redis is away. Never asks a thing twice: who asked is told whether it may have been done.

use parking_lot::Mutex;
use redis::aio::MultiplexedConnection;
use redis::{Pipeline, Value};
use tokio::sync::{Notify, Semaphore};
use tokio::time::timeout;

use crate::clock::{self, BootMs};
use crate::cluster::Unreachable;
use crate::redis_client::{RedisClient, RedisFault};

/// Attempts to connect are at least so far apart, and at most; in between by chance.
const ATTEMPT_MS_MIN: u64 = 200;
const ATTEMPT_MS_MAX: u64 = 5_000;
/// Questions under way at once. More would wait inside Redis, against their deadlines.
const ASKED_MAX: usize = 128;

/// Why a question brought nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct StoreFault {
    pub fault: RedisFault,
    /// It may have been done all the same.
    pub unknown: bool,
}

impl From<StoreFault> for Unreachable {
    fn from(failed: StoreFault) -> Unreachable {
        let text = format!("cannot be used: {}", failed.fault);
        Unreachable { text, advice: advice(failed.fault), unknown: failed.unknown }
    }
}

/// What to do about it, where that is not what it is for a sink.
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

/// What a question brought.
pub(super) struct Replies {
    /// One a command. A refusal that says nothing about the connection is among them.
    pub values: Vec<Value>,
    pub sent_ms: BootMs,
    pub received_ms: BootMs,
    /// Which connection it was, counted from 1.
    pub serial: u64,
}

pub(super) struct StoreConnection {
    pub client: RedisClient,
    state: Mutex<ReconnectState>,
    /// Held while connecting.
    connecting: tokio::sync::Mutex<()>,
    room: Semaphore,
    /// Told when the connection is given up.
    pub lost: Notify,
}

#[derive(Default)]
struct ReconnectState {
    live: Option<MultiplexedConnection>,
    serial: u64,
    /// What was wrong the last time, until an answer came.
    fault: Option<RedisFault>,
    /// No attempt to connect before.
    attempt_ms: BootMs,
    delay_ms: u64,
}

impl ReconnectState {
    /// Not to be tried again for a while, the longer the more often this happens.
    fn postpone(&mut self, fault: RedisFault) {
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
            room: Semaphore::new(ASKED_MAX),
            lost: Notify::new(),
        }
    }

    /// When it makes sense to ask again; 0: now.
    pub fn attempt_ms(&self) -> BootMs {
        let state = self.state.lock();
        if state.live.is_some() { 0 } else { state.attempt_ms }
    }

    /// Asks, under a deadline. The pipeline has to ignore errors.
    pub async fn ask(&self, pipeline: &Pipeline) -> Result<Replies, StoreFault> {
        let undone = |fault| StoreFault { fault, unknown: false };
        let deadline = self.client.timeout();
        let room = timeout(deadline, self.room.acquire()).await.map_err(|_| undone(RedisFault::Timeout))?;
        let _room = room.map_err(|_| undone(RedisFault::Other))?;
        let (serial, mut connection) = self.connection().await.map_err(undone)?;
        let sent_ms = clock::boot_ms();
        let answer = timeout(deadline, pipeline.query_async::<Vec<Value>>(&mut connection)).await;
        let received_ms = clock::boot_ms();
        let values = match answer {
            Ok(Ok(values)) => values,
            Ok(Err(error)) => return Err(self.give_up(serial, self.client.record_error(&error), true)),
            Err(_) => return Err(self.give_up(serial, RedisFault::Timeout, true)),
        };
        let refusals = values.iter().filter_map(|value| self.client.record_refusal(value));
        if let Some(fault) = refusals.into_iter().find(|fault| ends(*fault)) {
            return Err(self.give_up(serial, fault, false));
        }
        let mut state = self.state.lock();
        if state.serial == serial {
            (state.fault, state.delay_ms) = (None, 0);
        }
        Ok(Replies { values, sent_ms, received_ms, serial })
    }

    fn give_up(&self, serial: u64, fault: RedisFault, unknown: bool) -> StoreFault {
        let mut state = self.state.lock();
        if state.serial == serial && state.live.is_some() {
            state.postpone(fault);
            self.lost.notify_one();
        }
        StoreFault { fault, unknown }
    }

    fn live(&self) -> Option<(u64, MultiplexedConnection)> {
        let state = self.state.lock();
        Some((state.serial, state.live.clone()?))
    }

    /// The connection, made by one while the others are told what is wrong; only at the very first do they wait.
    async fn connection(&self) -> Result<(u64, MultiplexedConnection), RedisFault> {
        if let Some(live) = self.live() {
            return Ok(live);
        }
        let fault = self.check_backoff()?;
        let _turn = match (self.connecting.try_lock(), fault) {
            (Ok(turn), _) => turn,
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
                state.serial += 1;
                state.live = Some(connection.clone());
                Ok((state.serial, connection))
            }
            Err(fault) => {
                state.postpone(fault);
                Err(fault)
            }
        }
    }

    /// Too early for an attempt; else what the last one ended with.
    fn check_backoff(&self) -> Result<Option<RedisFault>, RedisFault> {
        let state = self.state.lock();
        match state.fault {
            Some(fault) if clock::boot_ms() < state.attempt_ms => Err(fault),
            fault => Ok(fault),
        }
    }
}

/// Whether the connection is of no use after that: another server has to be found, or this one is not itself.
fn ends(fault: RedisFault) -> bool {
    fault.is_about_the_connection() || fault == RedisFault::Cluster
}
