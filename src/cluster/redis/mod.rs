//! The store that nodes share in a Redis, Valkey or whatever else speaks and counts like them.
//!
//! `script` is what is done to a record there, `link` the connection, `watch` how changes come here and `wishes` how
//! nodes ask each other for a look. All keys begin with one hash tag, so that a cluster has them on one node and one
//! script may touch them:
//!
//! | key | what |
//! |---|---|
//! | `{prefix}:r:<tag>` | a record, a field each |
//! | `{prefix}:seq` | `n` counts the changes, `born` says since when |
//! | `{prefix}:changes` | each tag with the number of its last change |
//! | `{prefix}:wish:<id>` | who has taken a wish |
//! | `{prefix}:news`, `:wishes`, `:ends:<node>` | channels: changed records, wishes, their ends |
//!
//! Never sees a value in the clear, and never trusts what it reads: another may have written it.

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
    ClusterEvent, ClusterStore, Moment, NodeId, Op, RefreshReason, StoreAnswer, StoreFuture, Unreachable, WatchedRecord,
};
use crate::clock::{self, LogThrottle};
use crate::cluster::options::StoreOptions;
use crate::redis_client::{RedisClient, RedisFault};
use connection::{Replies, StoreConnection, StoreFault};
use refresh_requests::RefreshRequests;
use script::{RecordScript, ScriptClock, StoredRecord};

/// Between two lines about what others have written into records.
const RUBBISH_SAID_EVERY_MS: u64 = 3_600_000;

/// The shared state of one prefix in one Redis, as one node sees it.
pub struct RedisStore {
    connection: StoreConnection,
    keys: KeyNames,
    script: RecordScript,
    node: NodeId,
    poll_every_ms: u64,
    wishes: RefreshRequests,
    rubbish_said: LogThrottle,
}

/// The names of all keys and channels.
struct KeyNames {
    tag: String,
    changes: String,
    seq: String,
    news: String,
    wishes: String,
}

impl KeyNames {
    fn new(tag: String) -> KeyNames {
        let key = |name: &str| format!("{tag}:{name}");
        KeyNames { changes: key("changes"), seq: key("seq"), news: key("news"), wishes: key("wishes"), tag }
    }

    fn record(&self, tag: &str) -> String {
        format!("{}:r:{tag}", self.tag)
    }

    fn wish(&self, id: &str) -> String {
        format!("{}:wish:{id}", self.tag)
    }

    fn ends(&self, node: NodeId) -> String {
        format!("{}:ends:{node}", self.tag)
    }
}

impl RedisStore {
    /// For that node. Connects when it is first needed.
    pub fn new(state: &StoreOptions, node: NodeId) -> Arc<RedisStore> {
        let keys = KeyNames::new(state.key());
        let client = RedisClient::of_key(state.server.clone(), &keys.seq);
        Arc::new(RedisStore {
            connection: StoreConnection::new(client),
            keys,
            script: RecordScript::new(ScriptClock::OfStore),
            node,
            poll_every_ms: state.poll_every_ms,
            wishes: RefreshRequests::default(),
            rubbish_said: LogThrottle::default(),
        })
    }

    async fn apply(&self, tag: &str, op: &Op) -> Result<StoreAnswer, StoreFault> {
        let op = &script::arguments(op).ok_or(StoreFault { fault: RedisFault::Other, unknown: false })?;
        let mut answers = self.connection.ask(&self.call("EVALSHA", &self.script.sha, tag, op)).await?;
        if matches!(answers.values.first(), Some(Value::ServerError(error)) if error.code() == "NOSCRIPT") {
            answers = self.connection.ask(&self.call("EVAL", &self.script.text, tag, op)).await?;
        }
        let answer = answers.values.first();
        if let Some(fault) = answer.and_then(|answer| self.connection.client.record_refusal(answer)) {
            // Full and the like are said before anything is written; of another failure inside it is not known.
            return Err(StoreFault { fault, unknown: fault == RedisFault::Other });
        }
        let applied =
            answer.and_then(script::applied).ok_or(StoreFault { fault: RedisFault::Protocol, unknown: true })?;
        self.look_for_rubbish(tag, &applied.stored);
        let moment = Moment { store_ms: applied.now_ms, sent_ms: answers.sent_ms, received_ms: answers.received_ms };
        Ok(StoreAnswer { outcome: applied.outcome, record: applied.stored.record, moment })
    }

    fn call(&self, command: &str, script: &str, tag: &str, op: &[String]) -> Pipeline {
        let mut pipeline = Pipeline::with_capacity(1);
        pipeline.ignore_errors().cmd(command).arg(script).arg(3);
        pipeline.arg(self.keys.record(tag)).arg(&self.keys.changes).arg(&self.keys.seq);
        pipeline.arg(&self.keys.news).arg(tag).arg(op);
        pipeline
    }

    /// Says so once in a while. Not what it is: it may be anything.
    fn look_for_rubbish(&self, tag: &str, stored: &StoredRecord) {
        if let Some(field) = stored.bad
            && self.rubbish_said.allow(clock::boot_ms(), RUBBISH_SAID_EVERY_MS)
        {
            tracing::warn!(
                record = tag,
                field,
                "somebody else has written to a record in the shared Redis; what cannot be read counts as absent"
            );
        }
    }
}

impl ClusterStore for RedisStore {
    fn ask<'a>(&'a self, tag: &'a str, op: Op) -> StoreFuture<'a, Result<StoreAnswer, Unreachable>> {
        Box::pin(async move { self.apply(tag, &op).await.map_err(Unreachable::from) })
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
        news: mpsc::Sender<ClusterEvent>,
        end: CancellationToken,
    ) -> StoreFuture<'static, ()> {
        Box::pin(async move {
            let watching = watch::ChangeWatcher::new(self, watched, news).run();
            let _ = end.run_until_cancelled(watching).await;
        })
    }
}

/// The time of the store as it stands among the answers.
fn store_ms(answer: &Value) -> Option<u64> {
    let Value::Array(parts) = answer else { return None };
    let part = |at: usize| parts.get(at).and_then(script::text)?.parse::<u64>().ok();
    Some(part(0)?.checked_mul(1000)? + part(1)? / 1000)
}

/// The instant at which the answer with that place was given.
fn moment(answers: &Replies, at: usize) -> Option<Moment> {
    let store_ms = answers.values.get(at).and_then(store_ms)?;
    Some(Moment { store_ms, sent_ms: answers.sent_ms, received_ms: answers.received_ms })
}
