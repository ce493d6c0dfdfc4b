//! The connection to a Redis: where it is, how to get in, and what its refusals mean.
//!
//! Sinks write by it, and nodes share their state by it. `trust` says which of the servers that others name may have
//! the password. Connects and knows nothing of what is said afterwards. Never
//! logs; no error of the client library gets out of here, because it may quote keys and addresses.

mod client;
mod fault;
pub mod options;
mod sentinel;
mod subscriber;
mod trust;

use std::time::Duration;

use parking_lot::Mutex;
use redis::aio::MultiplexedConnection;
use redis::{Pipeline, RedisError, Value};

pub use fault::Fault;
pub use subscriber::Subscriber;

use self::options::{RedisAt, RedisOptions};
use client::Place;

/// How often a cluster may send us on in one attempt.
const MOVES_MAX: usize = 3;

/// What is asked of a server before it is taken for the right one.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Wanted {
    /// Any that lets us in.
    Any,
    /// A master that has this key, or would have.
    MasterOf(String),
}

/// A Redis, and what has been learnt of where it is. Every connection is a new one; clones of one share it.
pub struct Engine {
    server: RedisOptions,
    wanted: Wanted,
    /// Where a cluster has sent us.
    moved_to: Mutex<Option<Place>>,
    /// Where the last connection went.
    last: Mutex<Option<Place>>,
}

impl Engine {
    /// Any server that lets us in; behind sentinels the master.
    pub fn new(server: RedisOptions) -> Engine {
        Engine { server, wanted: Wanted::Any, moved_to: Mutex::default(), last: Mutex::default() }
    }

    /// The master that has this key, in a cluster too. All keys that are used have its hash tag.
    pub fn of_key(server: RedisOptions, key: &str) -> Engine {
        Engine { wanted: Wanted::MasterOf(key.to_owned()), ..Engine::new(server) }
    }

    /// The longest wait for an answer.
    pub fn timeout(&self) -> Duration {
        Duration::from_millis(self.server.timeout_ms)
    }

    /// Finds the server, connects, logs in and selects the database; each step has a deadline. Resolves names and
    /// asks sentinels anew each time, and reads the password and the certificates.
    pub async fn connect(&self) -> Result<MultiplexedConnection, Fault> {
        let learnt = self.moved_to.lock().clone();
        if let Some(place) = learnt {
            match self.follow(place).await {
                Ok(connection) => return Ok(connection),
                // That says nothing about where it is.
                Err(Fault::NoDescriptor) => return Err(Fault::NoDescriptor),
                // What is configured may know better.
                Err(_) => *self.moved_to.lock() = None,
            }
        }
        let mut first = Fault::Unreachable;
        for (at, place) in self.places().await?.into_iter().enumerate() {
            match self.follow(place).await {
                Ok(connection) => return Ok(connection),
                Err(Fault::NoDescriptor) => return Err(Fault::NoDescriptor),
                Err(fault) if at == 0 => first = fault,
                Err(_) => {}
            }
        }
        Err(first)
    }

    /// Listens to these channels where the last connection went; makes one to find out if there was none.
    pub async fn subscribe(&self, channels: &[&str]) -> Result<Subscriber, Fault> {
        let last = self.last.lock().clone();
        let place = match last {
            Some(place) => place,
            None => {
                self.connect().await?;
                self.last.lock().clone().ok_or(Fault::Unreachable)?
            }
        };
        client::subscribe(&self.server, &place, channels).await
    }

    /// What an error on one of its connections means. A cluster's word of where to go is remembered.
    pub fn fault(&self, error: &RedisError) -> Fault {
        if let Some((to, _)) = error.redirect_node() {
            self.note_move(to);
        }
        fault_of(error)
    }

    /// The same of one answer in a pipeline; none if it is no refusal.
    pub fn refusal(&self, answer: &Value) -> Option<Fault> {
        if let Some(to) = moved_to(answer) {
            self.note_move(to);
        }
        refusal(answer)
    }

    fn note_move(&self, to: &str) {
        let from = self.last.lock().clone();
        if let Some(place) = from.and_then(|from| from.moved(to)) {
            *self.moved_to.lock() = Some(place);
        }
    }

    /// Where it may be, the likeliest first; never empty.
    async fn places(&self) -> Result<Vec<Place>, Fault> {
        match &self.server.at {
            RedisAt::Tcp { host, port } => Ok(vec![Place::Tcp(host.clone(), *port)]),
            RedisAt::Unix(path) => Ok(vec![Place::Unix(path.clone())]),
            RedisAt::Sentinel { sentinels, master } => sentinel::masters(&self.server, sentinels, master).await,
        }
    }

    /// Connects there, or to where a cluster sends us from there.
    async fn follow(&self, mut place: Place) -> Result<MultiplexedConnection, Fault> {
        for _ in 0..=MOVES_MAX {
            if !trust::may_have_password(&self.server, &place) {
                return Err(Fault::Untrusted);
            }
            let mut connection = client::connect(&self.server, &place).await?;
            match self.look(&mut connection).await? {
                Some(to) => {
                    place = place.moved(&to).ok_or(Fault::Cluster)?;
                    *self.moved_to.lock() = Some(place.clone());
                }
                None => {
                    *self.last.lock() = Some(place);
                    return Ok(connection);
                }
            }
        }
        Err(Fault::Cluster)
    }

    /// Whether it is the one that is wanted; where to go instead, if it says so. A server that wants a password or a
    /// certificate of ours tells it only now.
    async fn look(&self, connection: &mut MultiplexedConnection) -> Result<Option<String>, Fault> {
        let mut pipeline = Pipeline::new();
        pipeline.ignore_errors().cmd("PING");
        let by_sentinel = matches!(self.server.at, RedisAt::Sentinel { .. });
        if by_sentinel || self.wanted != Wanted::Any {
            pipeline.cmd("ROLE");
        }
        if let Wanted::MasterOf(key) = &self.wanted {
            pipeline.cmd("EXISTS").arg(key);
        }
        let asking = pipeline.query_async::<Vec<Value>>(connection);
        let answers = tokio::time::timeout(2 * self.timeout(), asking).await.map_err(|_| Fault::Timeout)?;
        let answers = answers.map_err(|error| match fault_of(&error) {
            Fault::Dropped if self.server.tls.is_some() => Fault::Tls,
            fault => fault,
        })?;
        if let Some(fault) = answers.first().and_then(refusal) {
            return Err(fault);
        }
        judge(answers.get(1..).unwrap_or_default())
    }
}

/// By what it says of its role and of a key.
fn judge(answers: &[Value]) -> Result<Option<String>, Fault> {
    // First: a replica in a cluster names its master so.
    if let Some(to) = answers.iter().find_map(moved_to) {
        return Ok(Some(to.to_owned()));
    }
    for answer in answers {
        match answer {
            Value::Array(role) => match role.first() {
                Some(Value::BulkString(role)) if role == b"slave" => return Err(Fault::ReadOnly),
                Some(Value::BulkString(role)) if role == b"sentinel" => return Err(Fault::Protocol),
                _ => {}
            },
            // Older servers know no ROLE, and an ACL may forbid it: then the first write tells. A slot on its way to
            // another node (ASK) is still here.
            answer => match refusal(answer) {
                None | Some(Fault::Permission | Fault::Protocol | Fault::Cluster | Fault::Other) => {}
                Some(fault) => return Err(fault),
            },
        }
    }
    Ok(None)
}

/// Where a cluster's node sends us to.
fn moved_to(answer: &Value) -> Option<&str> {
    match answer {
        Value::ServerError(error) if error.code() == "MOVED" => error.details()?.split_ascii_whitespace().nth(1),
        _ => None,
    }
}

/// Whether that Redis lets us in, and is a master if that is wanted; the error is for people. Writes nothing.
pub async fn try_out(engine: &Engine) -> Result<(), String> {
    let refused = |fault: Fault| format!("{fault}\n#   what to do: {}", fault.advice());
    engine.connect().await.map(drop).map_err(refused)
}

/// What a server's error means.
pub fn refusal(answer: &Value) -> Option<Fault> {
    match answer {
        Value::ServerError(error) => Some(Fault::of_server(error.code(), error.details())),
        _ => None,
    }
}

/// What an error of the client library on a live connection means.
pub fn fault_of(error: &RedisError) -> Fault {
    client::fault_of(error)
}
