//! The sink that writes keys of a Redis. Each command has a deadline.

use std::time::Duration;

use futures_util::future::{BoxFuture, FutureExt};
use parking_lot::Mutex;
use redis::aio::MultiplexedConnection;
use redis::{Pipeline, Value};

use super::backend::{self, Contents, CredentialWrite, Retraction, SinkBackend, SinkFaultScope};
use super::options::{SinkEntry, Ttl};
use crate::credential::adopt::StoredBytes;
use crate::redis_client::options::RedisOptions;
use crate::redis_client::{RedisClient, RedisFault, fault_of, refusal};

/// Deletes a key if it holds what we wrote.
const DELETE_OURS: &str =
    "if redis.call('GET', KEYS[1]) == ARGV[1] then return redis.call('DEL', KEYS[1]) end return 0";

/// A Redis of the site's own.
pub(super) struct RedisBackend {
    client: RedisClient,
    ttl: Ttl,
    connection: Mutex<Option<RedisConnection>>,
}

impl RedisBackend {
    pub fn new(server: RedisOptions, ttl: Ttl) -> RedisBackend {
        RedisBackend { client: RedisClient::new(server), ttl, connection: Mutex::default() }
    }

    fn connection(&self) -> Result<RedisConnection, RedisFault> {
        self.connection.lock().clone().ok_or(RedisFault::Dropped)
    }
}

impl SinkBackend for RedisBackend {
    fn open(&self) -> BoxFuture<'_, Result<(), backend::SinkFault>> {
        async {
            let connection = RedisConnection::connect(&self.client).await.map_err(to_sink_fault)?;
            *self.connection.lock() = Some(connection);
            Ok(())
        }
        .boxed()
    }

    fn loses_all_at_once(&self) -> bool {
        true
    }

    fn write<'a>(&'a self, write: &'a CredentialWrite) -> BoxFuture<'a, Result<Contents, backend::SinkFault>> {
        async {
            let keys = names(&write.entries);
            let ttl_ms = match self.ttl {
                Ttl::Left { margin_s } => Some(write.current.left_ms().saturating_sub(margin_s * 1000)),
                Ttl::None => None,
            };
            self.connection().map_err(to_sink_fault)?.write(&keys, &write.contents, ttl_ms).await.map_err(to_sink_fault)
        }
        .boxed()
    }

    fn read<'a>(&'a self, entries: &'a [SinkEntry]) -> BoxFuture<'a, Result<Option<Contents>, backend::SinkFault>> {
        async { self.connection().map_err(to_sink_fault)?.read(&names(entries)).await.map(Some).map_err(to_sink_fault) }
            .boxed()
    }

    fn read_with_times<'a>(
        &'a self,
        entries: &'a [SinkEntry],
    ) -> BoxFuture<'a, Result<Option<Vec<StoredBytes>>, backend::SinkFault>> {
        async {
            self.connection()
                .map_err(to_sink_fault)?
                .read_with_times(&names(entries))
                .await
                .map(Some)
                .map_err(to_sink_fault)
        }
        .boxed()
    }

    /// Deletes the keys that hold exactly the bytes that we wrote.
    fn retract<'a>(&'a self, retract: &'a Retraction) -> BoxFuture<'a, Result<u64, backend::SinkFault>> {
        async {
            let expected = retract.entries.iter().zip(&retract.expected);
            let ours: Vec<_> =
                expected.filter_map(|(entry, value)| Some((entry.name.as_str(), value.as_deref()?))).collect();
            match &ours[..] {
                [] => Ok(0),
                ours => self.connection().map_err(to_sink_fault)?.delete_ours(ours).await.map_err(to_sink_fault),
            }
        }
        .boxed()
    }
}

fn names(entries: &[SinkEntry]) -> Vec<&str> {
    entries.iter().map(|entry| entry.name.as_str()).collect()
}

/// A Redis's fault as a sink's.
fn to_sink_fault(fault: RedisFault) -> backend::SinkFault {
    let scope = match fault {
        RedisFault::NoDescriptor => SinkFaultScope::Descriptors,
        fault if fault.is_about_the_connection() => SinkFaultScope::Backend,
        _ => SinkFaultScope::Entry,
    };
    backend::SinkFault { class: fault.class(), what: fault.to_string().into(), advice: fault.advice().into(), scope }
}

/// An open connection. Clones share it.
#[derive(Clone)]
struct RedisConnection {
    connection: MultiplexedConnection,
    timeout: Duration,
}

impl RedisConnection {
    /// Finds the Redis and logs in.
    async fn connect(client: &RedisClient) -> Result<RedisConnection, RedisFault> {
        Ok(RedisConnection { connection: client.connect().await?, timeout: client.timeout() })
    }

    /// Writes all keys of one credential at once; gives back what was under each before.
    async fn write(
        &mut self,
        keys: &[&str],
        values: &[Vec<u8>],
        ttl_ms: Option<u64>,
    ) -> Result<Vec<Option<Vec<u8>>>, RedisFault> {
        let mut pipeline = Pipeline::with_capacity(2 * keys.len() + 2);
        // A value of another type cannot be read, and is replaced all the same. Not the library's own transactions:
        // they do not tell why a server refused to execute one.
        pipeline.ignore_errors().cmd("MULTI");
        for key in keys {
            pipeline.cmd("GET").arg(*key);
        }
        for (key, value) in keys.iter().zip(values) {
            pipeline.cmd("SET").arg(*key).arg(value);
            if let Some(ttl_ms) = ttl_ms {
                pipeline.arg("PX").arg(ttl_ms.max(1));
            }
        }
        pipeline.cmd("EXEC");
        let answers = executed(self.ask(&pipeline).await?)?;
        let (before, written) = answers.split_at_checked(keys.len()).ok_or(RedisFault::Protocol)?;
        if let Some(refused) = written.iter().find_map(refusal) {
            return Err(refused);
        }
        before.iter().map(found).collect()
    }

    /// What is under these keys now.
    async fn read(&mut self, keys: &[&str]) -> Result<Vec<Option<Vec<u8>>>, RedisFault> {
        let mut pipeline = Pipeline::with_capacity(keys.len() + 1);
        pipeline.ignore_errors();
        for key in keys {
            pipeline.cmd("GET").arg(*key);
        }
        pipeline.cmd("PING");
        let mut answers: Vec<Value> = self.ask(&pipeline).await?;
        let pong = answers.pop().ok_or(RedisFault::Protocol)?;
        match refusal(&pong) {
            Some(fault) => Err(fault),
            None => answers.iter().map(found).collect(),
        }
    }

    /// What is under these keys now, and for how long Redis keeps it.
    async fn read_with_times(&mut self, keys: &[&str]) -> Result<Vec<StoredBytes>, RedisFault> {
        let contents = self.read(keys).await?;
        let mut pipeline = Pipeline::with_capacity(keys.len());
        pipeline.ignore_errors();
        for key in keys {
            pipeline.cmd("PTTL").arg(*key);
        }
        let left = |answer: &Value| match answer {
            // -1: for ever. A user without the right to ask gets a refusal.
            Value::Int(left_ms) => u64::try_from(*left_ms).ok(),
            _ => None,
        };
        let answers = self.ask(&pipeline).await?;
        let stored = |(bytes, answer): (Option<Vec<u8>>, &Value)| {
            Some(StoredBytes { bytes: bytes?, left_ms: left(answer), written_unix_ms: None })
        };
        Ok(contents.into_iter().zip(&answers).filter_map(stored).collect())
    }

    /// Deletes those keys that hold exactly these bytes; how many did.
    async fn delete_ours(&mut self, expected: &[(&str, &[u8])]) -> Result<u64, RedisFault> {
        let mut pipeline = Pipeline::with_capacity(expected.len());
        pipeline.ignore_errors();
        for (key, value) in expected {
            pipeline.cmd("EVAL").arg(DELETE_OURS).arg(1).arg(*key).arg(*value);
        }
        let answers: Vec<Value> = self.ask(&pipeline).await?;
        let deleted = |answer: &Value| match answer {
            Value::Int(deleted) => Ok(u64::try_from(*deleted).unwrap_or(0)),
            // Another type, so not ours.
            answer => found(answer).map(|_| 0),
        };
        answers.iter().map(deleted).sum()
    }

    async fn ask(&mut self, pipeline: &Pipeline) -> Result<Vec<Value>, RedisFault> {
        let asking = pipeline.query_async(&mut self.connection);
        let answer = tokio::time::timeout(2 * self.timeout, asking).await.map_err(|_| RedisFault::Timeout)?;
        answer.map_err(|error| fault_of(&error))
    }
}

/// The answers inside a transaction. If it was refused, the first refusal of a command says why.
fn executed(mut answers: Vec<Value>) -> Result<Vec<Value>, RedisFault> {
    match answers.pop() {
        Some(Value::Array(inside)) => Ok(inside),
        Some(last) => {
            let refusals: Vec<RedisFault> = answers.iter().chain([&last]).filter_map(refusal).collect();
            let known = refusals.iter().find(|fault| **fault != RedisFault::Other).or(refusals.first());
            Err(known.copied().unwrap_or(RedisFault::Protocol))
        }
        None => Err(RedisFault::Protocol),
    }
}

/// What a `GET` brought; text of another type counts as something.
fn found(answer: &Value) -> Result<Option<Vec<u8>>, RedisFault> {
    match answer {
        Value::Nil => Ok(None),
        Value::BulkString(bytes) => Ok(Some(bytes.clone())),
        Value::SimpleString(text) => Ok(Some(text.clone().into_bytes())),
        Value::ServerError(error) if error.code() == "WRONGTYPE" || is_wrong_type(error.details()) => {
            Ok(Some(Vec::new()))
        }
        answer => Err(refusal(answer).unwrap_or(RedisFault::Protocol)),
    }
}

/// In a script's error the code stands inside.
fn is_wrong_type(details: Option<&str>) -> bool {
    details.is_some_and(|details| details.contains("WRONGTYPE"))
}
