//! The connection to a Redis: where it is, how to get in, and what its refusals mean.
//!
//! Sinks write by it, and nodes share their state by it. `trust` says which of the servers that others name may have
//! the password. Connects and knows nothing of what is said afterwards. Never
//! logs; no error of the client library gets out of here, because it may quote keys and addresses.

pub mod address;
mod client;
mod fault;
pub mod options;
mod password_hosts;
mod sentinel;
mod subscriber;

use std::time::Duration;

use parking_lot::Mutex;
use redis::aio::MultiplexedConnection;
use redis::{Pipeline, RedisError, Value};

pub use fault::RedisFault;
pub use subscriber::Subscriber;

use self::options::{RedisAt, RedisOptions};
use client::ServerAddress;

/// How often a cluster may send us on in one attempt.
const REDIRECTS_MAX: usize = 3;

/// What is asked of a server before it is taken for the right one.
#[derive(Clone, Debug, PartialEq, Eq)]
enum RequiredServer {
    /// Any that lets us in.
    Any,
    /// A master that has this key, or would have.
    MasterOf(String),
}

/// A Redis, and what has been learnt of where it is. Every connection is a new one; clones of one share it.
pub struct RedisClient {
    server: RedisOptions,
    required: RequiredServer,
    /// Where a cluster has sent us.
    redirect: Mutex<Option<ServerAddress>>,
    /// Where the last connection went.
    last: Mutex<Option<ServerAddress>>,
}

impl RedisClient {
    /// Any server that lets us in; behind sentinels the master.
    pub fn new(server: RedisOptions) -> RedisClient {
        RedisClient { server, required: RequiredServer::Any, redirect: Mutex::default(), last: Mutex::default() }
    }

    /// The master that has this key, in a cluster too. All keys that are used have its hash tag.
    pub fn of_key(server: RedisOptions, key: &str) -> RedisClient {
        RedisClient { required: RequiredServer::MasterOf(key.to_owned()), ..RedisClient::new(server) }
    }

    /// The longest wait for an answer.
    pub fn timeout(&self) -> Duration {
        Duration::from_millis(self.server.timeout_ms)
    }

    /// Finds the server, connects, logs in and selects the database; each step has a deadline. Resolves names and
    /// asks sentinels anew each time, and reads the password and the certificates.
    pub async fn connect(&self) -> Result<MultiplexedConnection, RedisFault> {
        let learnt = self.redirect.lock().clone();
        if let Some(place) = learnt {
            match self.connect_to(place).await {
                Ok(connection) => return Ok(connection),
                // That says nothing about where it is.
                Err(RedisFault::NoDescriptor) => return Err(RedisFault::NoDescriptor),
                // What is configured may know better.
                Err(_) => *self.redirect.lock() = None,
            }
        }
        let mut first = RedisFault::Unreachable;
        for (at, place) in self.addresses().await?.into_iter().enumerate() {
            match self.connect_to(place).await {
                Ok(connection) => return Ok(connection),
                Err(RedisFault::NoDescriptor) => return Err(RedisFault::NoDescriptor),
                Err(fault) if at == 0 => first = fault,
                Err(_) => {}
            }
        }
        Err(first)
    }

    /// Listens to these channels where the last connection went; makes one to find out if there was none.
    pub async fn subscribe(&self, channels: &[&str]) -> Result<Subscriber, RedisFault> {
        let last = self.last.lock().clone();
        let place = match last {
            Some(place) => place,
            None => {
                self.connect().await?;
                self.last.lock().clone().ok_or(RedisFault::Unreachable)?
            }
        };
        client::subscribe(&self.server, &place, channels).await
    }

    /// What an error on one of its connections means. A cluster's word of where to go is remembered.
    pub fn record_error(&self, error: &RedisError) -> RedisFault {
        if let Some((to, _)) = error.redirect_node() {
            self.record_redirect(to);
        }
        fault_of(error)
    }

    /// The same of one answer in a pipeline; none if it is no refusal.
    pub fn record_refusal(&self, answer: &Value) -> Option<RedisFault> {
        if let Some(to) = redirect(answer) {
            self.record_redirect(to);
        }
        refusal(answer)
    }

    fn record_redirect(&self, to: &str) {
        let from = self.last.lock().clone();
        if let Some(place) = from.and_then(|from| from.redirected(to)) {
            *self.redirect.lock() = Some(place);
        }
    }

    /// Where it may be, the likeliest first; never empty.
    async fn addresses(&self) -> Result<Vec<ServerAddress>, RedisFault> {
        match &self.server.at {
            RedisAt::Tcp { host, port } => Ok(vec![ServerAddress::Tcp(host.clone(), *port)]),
            RedisAt::Unix(path) => Ok(vec![ServerAddress::Unix(path.clone())]),
            RedisAt::Sentinel { sentinels, master } => sentinel::masters(&self.server, sentinels, master).await,
        }
    }

    /// Connects there, or to where a cluster sends us from there.
    async fn connect_to(&self, mut place: ServerAddress) -> Result<MultiplexedConnection, RedisFault> {
        for _ in 0..=REDIRECTS_MAX {
            if !password_hosts::may_have_password(&self.server, &place) {
                return Err(RedisFault::Untrusted);
            }
            let mut connection = client::connect(&self.server, &place).await?;
            match self.check_role(&mut connection).await? {
                Some(to) => {
                    place = place.redirected(&to).ok_or(RedisFault::Cluster)?;
                    *self.redirect.lock() = Some(place.clone());
                }
                None => {
                    *self.last.lock() = Some(place);
                    return Ok(connection);
                }
            }
        }
        Err(RedisFault::Cluster)
    }

    /// Whether it is the one that is required; where to go instead, if it says so. A server that wants a password or a
    /// certificate of ours tells it only now.
    async fn check_role(&self, connection: &mut MultiplexedConnection) -> Result<Option<String>, RedisFault> {
        let mut pipeline = Pipeline::new();
        pipeline.ignore_errors().cmd("PING");
        let by_sentinel = matches!(self.server.at, RedisAt::Sentinel { .. });
        if by_sentinel || self.required != RequiredServer::Any {
            pipeline.cmd("ROLE");
        }
        if let RequiredServer::MasterOf(key) = &self.required {
            pipeline.cmd("EXISTS").arg(key);
        }
        let asking = pipeline.query_async::<Vec<Value>>(connection);
        let answers = tokio::time::timeout(2 * self.timeout(), asking).await.map_err(|_| RedisFault::Timeout)?;
        let answers = answers.map_err(|error| match fault_of(&error) {
            RedisFault::Dropped if self.server.tls.is_some() => RedisFault::Tls,
            fault => fault,
        })?;
        if let Some(fault) = answers.first().and_then(refusal) {
            return Err(fault);
        }
        judge_role(answers.get(1..).unwrap_or_default())
    }
}

/// By what it says of its role and of a key.
fn judge_role(answers: &[Value]) -> Result<Option<String>, RedisFault> {
    // First: a replica in a cluster names its master so.
    if let Some(to) = answers.iter().find_map(redirect) {
        return Ok(Some(to.to_owned()));
    }
    for answer in answers {
        match answer {
            Value::Array(role) => match role.first() {
                Some(Value::BulkString(role)) if role == b"slave" => return Err(RedisFault::ReadOnly),
                Some(Value::BulkString(role)) if role == b"sentinel" => return Err(RedisFault::Protocol),
                _ => {}
            },
            // Older servers know no ROLE, and an ACL may forbid it: then the first write tells. A slot on its way to
            // another node (ASK) is still here.
            answer => match refusal(answer) {
                None
                | Some(RedisFault::Permission | RedisFault::Protocol | RedisFault::Cluster | RedisFault::Other) => {}
                Some(fault) => return Err(fault),
            },
        }
    }
    Ok(None)
}

/// Where a cluster's node sends us to.
fn redirect(answer: &Value) -> Option<&str> {
    match answer {
        Value::ServerError(error) if error.code() == "MOVED" => error.details()?.split_ascii_whitespace().nth(1),
        _ => None,
    }
}

/// Whether that Redis lets us in, and is a master if that is required; the error is for people. Writes nothing.
pub async fn try_connect(client: &RedisClient) -> Result<(), String> {
    let refused = |fault: RedisFault| format!("{fault}\n#   what to do: {}", fault.advice());
    client.connect().await.map(drop).map_err(refused)
}

/// What a server's error means.
pub fn refusal(answer: &Value) -> Option<RedisFault> {
    match answer {
        Value::ServerError(error) => Some(RedisFault::of_server(error.code(), error.details())),
        _ => None,
    }
}

/// What an error of the client library on a live connection means.
pub fn fault_of(error: &RedisError) -> RedisFault {
    client::fault_of(error)
}
