//! The cluster store in a Redis, a Valkey or another compatible server.
//!
//! `script` changes a record there, `connection` sends commands, `watch` follows changes and `refresh_requests` lets nodes
//! ask each other for a refresh. All keys have one hash tag: a Redis cluster keeps them on one node, and one script may
//! use them together.
//!
//! | key | what |
//! |---|---|
//! | `{prefix}:r:<tag>` | a record, one hash field each |
//! | `{prefix}:seq` | `n` is the number of the last change, `born` identifies the sequence |
//! | `{prefix}:changes` | the tags, each with the number of its last change |
//! | `{prefix}:wish:<id>` | which node has claimed a refresh request |
//! | `{prefix}:news`, `:wishes`, `:ends:<node>` | channels: changed records, refresh requests, finished requests |
//!
//! Never has a value in the clear, and never trusts what it reads: others may have written it.

mod change_queue;
mod connection;
mod refresh_requests;
pub mod script;
mod watch;

use std::sync::Arc;

use redis::{Pipeline, Value};
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use super::{
    ClusterEvent, ClusterStore, NodeId, Op, RefreshReason, StoreAnswer, StoreFuture, Unreachable, WatchedRecord,
};
use crate::clock::{self, LogThrottle};
use crate::cluster::options::StoreOptions;
use crate::redis_client::{RedisClient, RedisFault};
use connection::StoreConnection;
use refresh_requests::RefreshRequests;
use script::{RecordScript, StoredRecord};

/// The least time between two log lines about fields that no node writes.
const LOG_BAD_FIELD_EVERY_MS: u64 = 3_600_000;

/// The records under one prefix in one Redis, as one node sees them.
pub struct RedisStore {
    connection: StoreConnection,
    /// Begins every key and the name of every channel.
    hash_tag: String,
    script: RecordScript,
    node: NodeId,
    poll_every_ms: u64,
    refresh_requests: RefreshRequests,
    bad_field_throttle: LogThrottle,
}

impl RedisStore {
    /// The store for that node. Connects when it is first needed.
    pub fn new(options: &StoreOptions, node: NodeId) -> Arc<RedisStore> {
        let hash_tag = options.key();
        let client = RedisClient::of_key(options.server.clone(), &format!("{hash_tag}:seq"));
        Arc::new(RedisStore {
            connection: StoreConnection::new(client),
            hash_tag,
            script: RecordScript::new(script::CLOCK),
            node,
            poll_every_ms: options.poll_every_ms,
            refresh_requests: RefreshRequests::default(),
            bad_field_throttle: LogThrottle::default(),
        })
    }

    /// The key or channel of that name.
    fn key(&self, name: &str) -> String {
        format!("{}:{name}", self.hash_tag)
    }

    fn record_key(&self, tag: &str) -> String {
        self.key(&format!("r:{tag}"))
    }

    async fn apply(&self, tag: &str, op: &Op) -> Result<StoreAnswer, Unreachable> {
        let op = &script::arguments(op).ok_or(RedisFault::Other)?;
        let mut answers = self.connection.ask(&self.call("EVALSHA", &self.script.sha, tag, op)).await?;
        if matches!(answers.values.first(), Some(Value::ServerError(error)) if error.code() == "NOSCRIPT") {
            answers = self.connection.ask(&self.call("EVAL", &self.script.text, tag, op)).await?;
        }
        let answer = answers.values.first();
        if let Some(fault) = answer.and_then(|answer| self.connection.client.record_refusal(answer)) {
            // Known refusals, such as a full memory, come before anything is written. Others may come in the middle.
            return Err(Unreachable { unknown: fault == RedisFault::Other, ..fault.into() });
        }
        let no_answer = || Unreachable { unknown: true, ..RedisFault::Protocol.into() };
        let applied = answer.and_then(script::applied).ok_or_else(no_answer)?;
        self.warn_of_bad_field(tag, &applied.stored);
        let clock_reading = answers.clock_reading(applied.now_ms);
        Ok(StoreAnswer { outcome: applied.outcome, record: applied.stored.record, clock_reading })
    }

    fn call(&self, command: &str, script: &str, tag: &str, op: &[String]) -> Pipeline {
        let mut pipeline = Pipeline::with_capacity(1);
        pipeline.ignore_errors().cmd(command).arg(script).arg(3);
        pipeline.arg(self.record_key(tag)).arg(self.key("changes")).arg(self.key("seq"));
        pipeline.arg(self.key("news")).arg(tag).arg(op);
        pipeline
    }

    /// Logs a field that no node writes, but not its content, which may be anything.
    fn warn_of_bad_field(&self, tag: &str, stored: &StoredRecord) {
        if let Some(field) = stored.bad
            && self.bad_field_throttle.allow(clock::boot_ms(), LOG_BAD_FIELD_EVERY_MS)
        {
            tracing::warn!(
                record = tag,
                field,
                "a record in the cluster store has a field that no node writes; the field is ignored"
            );
        }
    }
}

impl ClusterStore for RedisStore {
    fn ask<'a>(&'a self, tag: &'a str, op: Op) -> StoreFuture<'a, Result<StoreAnswer, Unreachable>> {
        Box::pin(async move { self.apply(tag, &op).await })
    }

    fn request_refresh<'a>(
        &'a self,
        tag: &'a str,
        generation: Option<u64>,
        why: RefreshReason,
    ) -> StoreFuture<'a, Result<(), Unreachable>> {
        Box::pin(self.send_refresh_request(tag, generation, why))
    }

    fn watch(
        self: Arc<Self>,
        watched: Arc<[WatchedRecord]>,
        events: mpsc::Sender<ClusterEvent>,
        end: CancellationToken,
    ) -> StoreFuture<'static, ()> {
        Box::pin(async move {
            let watching = watch::ChangeWatcher::new(self, watched, events).run();
            let _ = end.run_until_cancelled(watching).await;
        })
    }
}
