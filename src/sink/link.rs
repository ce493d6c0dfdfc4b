//! What is said to one Redis: writes, looks, deletes, each under a deadline.
//!
//! Never logs.

use std::time::Duration;

use redis::aio::MultiplexedConnection;
use redis::{Pipeline, Value};

use crate::engine::{Engine, Fault, fault_of, refusal};

/// Deletes a key if it holds what we have written.
const DELETE_OURS: &str =
    "if redis.call('GET', KEYS[1]) == ARGV[1] then return redis.call('DEL', KEYS[1]) end return 0";

/// A live connection. Clones share it.
#[derive(Clone)]
pub(super) struct Link {
    connection: MultiplexedConnection,
    timeout: Duration,
}

impl Link {
    /// Finds the Redis and logs in.
    pub async fn connect(engine: &Engine) -> Result<Link, Fault> {
        Ok(Link { connection: engine.connect().await?, timeout: engine.timeout() })
    }

    /// Writes all keys of one credential at once; gives back what was under each before.
    pub async fn write(
        &mut self,
        keys: &[&str],
        values: &[Vec<u8>],
        ttl_ms: Option<u64>,
    ) -> Result<Vec<Option<Vec<u8>>>, Fault> {
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
        let (before, written) = answers.split_at_checked(keys.len()).ok_or(Fault::Protocol)?;
        if let Some(refused) = written.iter().find_map(refusal) {
            return Err(refused);
        }
        before.iter().map(found).collect()
    }

    /// What is under these keys now.
    pub async fn look(&mut self, keys: &[&str]) -> Result<Vec<Option<Vec<u8>>>, Fault> {
        let mut pipeline = Pipeline::with_capacity(keys.len() + 1);
        pipeline.ignore_errors();
        for key in keys {
            pipeline.cmd("GET").arg(*key);
        }
        pipeline.cmd("PING");
        let mut answers: Vec<Value> = self.ask(&pipeline).await?;
        let pong = answers.pop().ok_or(Fault::Protocol)?;
        match refusal(&pong) {
            Some(fault) => Err(fault),
            None => answers.iter().map(found).collect(),
        }
    }

    /// Deletes those keys that hold exactly these bytes; how many did.
    pub async fn delete_ours(&mut self, expected: &[(String, Vec<u8>)]) -> Result<u64, Fault> {
        let mut pipeline = Pipeline::with_capacity(expected.len());
        pipeline.ignore_errors();
        for (key, value) in expected {
            pipeline.cmd("EVAL").arg(DELETE_OURS).arg(1).arg(key).arg(value);
        }
        let answers: Vec<Value> = self.ask(&pipeline).await?;
        let deleted = |answer: &Value| match answer {
            Value::Int(deleted) => Ok(u64::try_from(*deleted).unwrap_or(0)),
            // Another type, so not ours.
            answer => found(answer).map(|_| 0),
        };
        answers.iter().map(deleted).sum()
    }

    async fn ask(&mut self, pipeline: &Pipeline) -> Result<Vec<Value>, Fault> {
        let asking = pipeline.query_async(&mut self.connection);
        let answer = tokio::time::timeout(2 * self.timeout, asking).await.map_err(|_| Fault::Timeout)?;
        answer.map_err(|error| fault_of(&error))
    }
}

/// The answers inside a transaction. If it was refused, the first refusal of a command says why.
fn executed(mut answers: Vec<Value>) -> Result<Vec<Value>, Fault> {
    match answers.pop() {
        Some(Value::Array(inside)) => Ok(inside),
        Some(last) => {
            let refusals: Vec<Fault> = answers.iter().chain([&last]).filter_map(refusal).collect();
            let known = refusals.iter().find(|fault| **fault != Fault::Other).or(refusals.first());
            Err(known.copied().unwrap_or(Fault::Protocol))
        }
        None => Err(Fault::Protocol),
    }
}

/// What a `GET` brought; text of another type counts as something.
fn found(answer: &Value) -> Result<Option<Vec<u8>>, Fault> {
    match answer {
        Value::Nil => Ok(None),
        Value::BulkString(bytes) => Ok(Some(bytes.clone())),
        Value::SimpleString(text) => Ok(Some(text.clone().into_bytes())),
        Value::ServerError(error) if error.code() == "WRONGTYPE" || is_wrong_type(error.details()) => {
            Ok(Some(Vec::new()))
        }
        answer => Err(refusal(answer).unwrap_or(Fault::Protocol)),
    }
}

/// In a script's error the code stands inside.
fn is_wrong_type(details: Option<&str>) -> bool {
    details.is_some_and(|details| details.contains("WRONGTYPE"))
}
