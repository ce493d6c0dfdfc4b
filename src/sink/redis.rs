//! The sink that writes keys of a Redis. Each command has a deadline.

use parking_lot::Mutex;
use redis::aio::MultiplexedConnection;
use redis::{Pipeline, Value};

use super::backend::{Contents, CredentialWrite, Retraction, SinkAnswer, SinkBackend};
use super::options::SinkEntry;
use crate::credential::adopt::StoredBytes;
use crate::redis_client::options::RedisOptions;
use crate::redis_client::{RedisClient, RedisFault, fault_of, refusal};

/// Deletes a key if it holds what we wrote.
const DELETE_OURS: &str =
    "if redis.call('GET', KEYS[1]) == ARGV[1] then return redis.call('DEL', KEYS[1]) end return 0";

pub(super) struct RedisBackend {
    client: RedisClient,
    ttl_margin_s: Option<u64>,
    connection: Mutex<Option<MultiplexedConnection>>,
}

impl RedisBackend {
    pub fn new(server: RedisOptions, ttl_margin_s: Option<u64>) -> RedisBackend {
        RedisBackend { client: RedisClient::new(server), ttl_margin_s, connection: Mutex::default() }
    }

    /// Writes all keys of one credential at once; gives back what was under each before.
    async fn replace(&self, write: &CredentialWrite) -> Result<Contents, RedisFault> {
        let ttl_ms = self.ttl_margin_s.map(|margin_s| write.current.left_ms().saturating_sub(margin_s * 1000));
        let mut pipeline = Pipeline::with_capacity(2 * write.entries.len() + 2);
        // A value of another type cannot be read, and is replaced all the same. Not the library's own transactions:
        // they do not tell why a server refused to execute one.
        pipeline.ignore_errors().cmd("MULTI");
        for entry in &*write.entries {
            pipeline.cmd("GET").arg(&entry.name);
        }
        for (entry, value) in write.entries.iter().zip(&write.contents) {
            pipeline.cmd("SET").arg(&entry.name).arg(value);
            if let Some(ttl_ms) = ttl_ms {
                pipeline.arg("PX").arg(ttl_ms.max(1));
            }
        }
        pipeline.cmd("EXEC");
        let answers = executed(self.ask(&pipeline).await?)?;
        let (before, written) = answers.split_at_checked(write.entries.len()).ok_or(RedisFault::Protocol)?;
        match written.iter().find_map(refusal) {
            Some(refused) => Err(refused),
            None => before.iter().map(found).collect(),
        }
    }

    async fn contents(&self, entries: &[SinkEntry]) -> Result<Contents, RedisFault> {
        let mut pipeline = Pipeline::with_capacity(entries.len() + 1);
        pipeline.ignore_errors();
        for entry in entries {
            pipeline.cmd("GET").arg(&entry.name);
        }
        pipeline.cmd("PING");
        let mut answers = self.ask(&pipeline).await?;
        let pong = answers.pop().ok_or(RedisFault::Protocol)?;
        match refusal(&pong) {
            Some(fault) => Err(fault),
            None => answers.iter().map(found).collect(),
        }
    }

    /// For how long Redis keeps each; none for ever. A user without the right to ask gets a refusal.
    async fn times_left_ms(&self, entries: &[SinkEntry]) -> Result<Vec<Option<u64>>, RedisFault> {
        let mut pipeline = Pipeline::with_capacity(entries.len());
        pipeline.ignore_errors();
        for entry in entries {
            pipeline.cmd("PTTL").arg(&entry.name);
        }
        let left = |answer: &Value| if let Value::Int(left_ms) = answer { u64::try_from(*left_ms).ok() } else { None };
        Ok(self.ask(&pipeline).await?.iter().map(left).collect())
    }

    /// Deletes those keys that hold exactly the bytes that we wrote; how many did.
    async fn delete_ours(&self, retract: &Retraction) -> Result<u64, RedisFault> {
        let ours = retract.entries.iter().zip(&retract.expected);
        let ours: Vec<_> = ours.filter_map(|(entry, value)| Some((&entry.name, value.as_deref()?))).collect();
        if ours.is_empty() {
            return Ok(0);
        }
        let mut pipeline = Pipeline::with_capacity(ours.len());
        pipeline.ignore_errors();
        for (key, value) in ours {
            pipeline.cmd("EVAL").arg(DELETE_OURS).arg(1).arg(key).arg(value);
        }
        let deleted = |answer: &Value| match answer {
            Value::Int(deleted) => Ok(u64::try_from(*deleted).unwrap_or(0)),
            // Another type, so not ours.
            answer => found(answer).map(|_| 0),
        };
        self.ask(&pipeline).await?.iter().map(deleted).sum()
    }

    async fn ask(&self, pipeline: &Pipeline) -> Result<Vec<Value>, RedisFault> {
        let mut connection = self.connection.lock().clone().ok_or(RedisFault::Dropped)?;
        let asking = pipeline.query_async(&mut connection);
        let answer = tokio::time::timeout(2 * self.client.timeout(), asking).await.map_err(|_| RedisFault::Timeout)?;
        answer.map_err(|error| fault_of(&error))
    }
}

impl SinkBackend for RedisBackend {
    fn open(&self) -> SinkAnswer<'_, ()> {
        Box::pin(async {
            let connection = self.client.connect().await?;
            *self.connection.lock() = Some(connection);
            Ok(())
        })
    }

    fn loses_all_at_once(&self) -> bool {
        true
    }

    fn write<'a>(&'a self, write: &'a CredentialWrite) -> SinkAnswer<'a, Contents> {
        Box::pin(async { Ok(self.replace(write).await?) })
    }

    fn read<'a>(&'a self, entries: &'a [SinkEntry]) -> SinkAnswer<'a, Option<Contents>> {
        Box::pin(async { Ok(Some(self.contents(entries).await?)) })
    }

    fn read_with_times<'a>(&'a self, entries: &'a [SinkEntry]) -> SinkAnswer<'a, Option<Vec<StoredBytes>>> {
        Box::pin(async {
            let contents = self.contents(entries).await?.into_iter().zip(self.times_left_ms(entries).await?);
            let stored = contents
                .filter_map(|(bytes, left_ms)| Some(StoredBytes { bytes: bytes?, left_ms, written_unix_ms: None }));
            Ok(Some(stored.collect()))
        })
    }

    fn retract<'a>(&'a self, retract: &'a Retraction) -> SinkAnswer<'a, u64> {
        Box::pin(async { Ok(self.delete_ours(retract).await?) })
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
        // In a script's error the code stands inside.
        Value::ServerError(error)
            if error.code() == "WRONGTYPE" || error.details().is_some_and(|text| text.contains("WRONGTYPE")) =>
        {
            Ok(Some(Vec::new()))
        }
        answer => Err(refusal(answer).unwrap_or(RedisFault::Protocol)),
    }
}
