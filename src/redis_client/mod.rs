//! Connects to a Redis: finds the server (sentinels, cluster), logs in, and classifies its errors. Used by sinks and by the
//! cluster store.
//!
//! `password_hosts` decides which servers may get the password. Sends no commands of its users. Never logs, and never
//! returns an error of the client library, which may quote keys and addresses.

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

pub use client::fault_of;
pub use fault::RedisFault;
pub use subscriber::Subscription;

use self::options::{RedisAt, RedisOptions};
use client::{Login, ServerAddress, within};

/// How many redirects of a cluster one attempt follows.
const REDIRECTS_MAX: usize = 3;

/// A client of one Redis. Remembers where the server was found. Every connection is a new one.
pub struct RedisClient {
    server: RedisOptions,
    /// The master that has this key, or would have it, is wanted; none: any server that accepts the login.
    key: Option<String>,
    redirect: Mutex<Option<ServerAddress>>,
    last: Mutex<Option<ServerAddress>>,
}

impl RedisClient {
    /// A client of any server that accepts the login; behind sentinels, of the master.
    pub fn new(server: RedisOptions) -> RedisClient {
        RedisClient { server, key: None, redirect: Mutex::default(), last: Mutex::default() }
    }

    /// A client of the master that has this key, also in a cluster. All keys that are used must have its hash tag.
    pub fn of_key(server: RedisOptions, key: &str) -> RedisClient {
        RedisClient { key: Some(key.to_owned()), ..RedisClient::new(server) }
    }

    pub fn timeout(&self) -> Duration {
        self.server.timeout()
    }

    /// Finds the server, connects, logs in and selects the database; each step has a deadline. Resolves names, asks the
    /// sentinels and reads the password and the certificates each time.
    pub async fn connect(&self) -> Result<MultiplexedConnection, RedisFault> {
        let redirect = self.redirect.lock().clone();
        if let Some(address) = redirect {
            match self.connect_to(address).await {
                Ok(connection) => return Ok(connection),
                // That says nothing about the server.
                Err(RedisFault::NoDescriptor) => return Err(RedisFault::NoDescriptor),
                // The redirect may be old: go on from what is configured.
                Err(_) => *self.redirect.lock() = None,
            }
        }
        let mut first = RedisFault::Unreachable;
        for (at, address) in self.addresses().await?.into_iter().enumerate() {
            match self.connect_to(address).await {
                Ok(connection) => return Ok(connection),
                Err(RedisFault::NoDescriptor) => return Err(RedisFault::NoDescriptor),
                Err(fault) if at == 0 => first = fault,
                Err(_) => {}
            }
        }
        Err(first)
    }

    /// Subscribes to these channels at the address of the last connection. Connects first if there was none.
    pub async fn subscribe(&self, channels: &[&str]) -> Result<Subscription, RedisFault> {
        let last = self.last.lock().clone();
        let address = match last {
            Some(address) => address,
            None => {
                self.connect().await?;
                self.last.lock().clone().ok_or(RedisFault::Unreachable)?
            }
        };
        client::subscribe(&self.server, &address, channels).await
    }

    /// Classifies an error on one of its connections, and remembers a redirect.
    pub fn record_error(&self, error: &RedisError) -> RedisFault {
        if let Some((to, _)) = error.redirect_node() {
            self.record_redirect(to);
        }
        fault_of(error)
    }

    /// Classifies one answer in a pipeline, and remembers a redirect; none if it is no refusal.
    pub fn record_refusal(&self, answer: &Value) -> Option<RedisFault> {
        if let Some(to) = redirect(answer) {
            self.record_redirect(to);
        }
        refusal(answer)
    }

    fn record_redirect(&self, to: &str) {
        let from = self.last.lock().clone();
        if let Some(address) = from.and_then(|from| from.redirected(to)) {
            *self.redirect.lock() = Some(address);
        }
    }

    /// The addresses to try, the likeliest first; never empty.
    async fn addresses(&self) -> Result<Vec<ServerAddress>, RedisFault> {
        match &self.server.at {
            RedisAt::Tcp { host, port } => Ok(vec![ServerAddress::Tcp(host.clone(), *port)]),
            RedisAt::Unix(path) => Ok(vec![ServerAddress::Unix(path.clone())]),
            RedisAt::Sentinel { sentinels, master } => sentinel::masters(&self.server, sentinels, master).await,
        }
    }

    /// Connects to that address, and follows a cluster's redirects.
    async fn connect_to(&self, mut address: ServerAddress) -> Result<MultiplexedConnection, RedisFault> {
        for _ in 0..=REDIRECTS_MAX {
            if !password_hosts::may_have_password(&self.server, &address) {
                return Err(RedisFault::Untrusted);
            }
            let mut connection = client::connect(&self.server, &address, Login::AsConfigured).await?;
            match self.check_role(&mut connection).await? {
                Some(to) => {
                    address = address.redirected(&to).ok_or(RedisFault::Cluster)?;
                    *self.redirect.lock() = Some(address.clone());
                }
                None => {
                    *self.last.lock() = Some(address);
                    return Ok(connection);
                }
            }
        }
        Err(RedisFault::Cluster)
    }

    /// Checks that the server is the one that is wanted; returns where to go instead, if it says so. A server that wants a
    /// password or a client certificate says so only now.
    async fn check_role(&self, connection: &mut MultiplexedConnection) -> Result<Option<String>, RedisFault> {
        let mut pipeline = Pipeline::new();
        pipeline.ignore_errors().cmd("PING");
        let by_sentinel = matches!(self.server.at, RedisAt::Sentinel { .. });
        if by_sentinel || self.key.is_some() {
            pipeline.cmd("ROLE");
        }
        if let Some(key) = &self.key {
            pipeline.cmd("EXISTS").arg(key);
        }
        let asking = pipeline.query_async::<Vec<Value>>(connection);
        let answers = within(2 * self.timeout(), asking).await?.map_err(|error| match fault_of(&error) {
            RedisFault::Dropped if self.server.tls.is_some() => RedisFault::Tls,
            fault => fault,
        })?;
        if let Some(fault) = answers.first().and_then(refusal) {
            return Err(fault);
        }
        judge_role(answers.get(1..).unwrap_or_default())
    }
}

fn judge_role(answers: &[Value]) -> Result<Option<String>, RedisFault> {
    // First, because a replica in a cluster names its master by a redirect.
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
            // Older servers have no ROLE, and an ACL may forbid it: then the first write tells. A slot that is moving to
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

/// Where a cluster's node redirects to.
fn redirect(answer: &Value) -> Option<&str> {
    match answer {
        Value::ServerError(error) if error.code() == "MOVED" => error.details()?.split_ascii_whitespace().nth(1),
        _ => None,
    }
}

/// Connects once, for `check`: to a master, if that is wanted. The error is for people. Writes nothing.
pub async fn try_connect(client: &RedisClient) -> Result<(), String> {
    let refused = |fault: RedisFault| format!("{fault}\n#   what to do: {}", fault.advice());
    client.connect().await.map(drop).map_err(refused)
}

pub fn refusal(answer: &Value) -> Option<RedisFault> {
    match answer {
        Value::ServerError(error) => Some(RedisFault::of_server(error.code(), error.details())),
        _ => None,
    }
}
