//! The cluster's settings: which store the nodes share, or which leader is followed.

use std::path::PathBuf;

use crate::redis_client::options::RedisOptions;
use crate::secret_source::{SecretOrigin, SecretSource};

/// How a node is part of a cluster.
#[derive(Clone, Debug)]
pub enum Options {
    /// The nodes share a Redis.
    Redis(Box<StoreOptions>),
    /// This node follows a leader through its HTTP API and calls no platform.
    Leader(LeaderOptions),
}

impl Options {
    /// What values are sealed with, among [`Options::secrets`].
    pub const SEALING: &str = "the secret";

    /// Its secrets, each with its name.
    pub fn secrets(&self) -> Vec<(&'static str, &SecretSource)> {
        match self {
            Options::Redis(store) => {
                let password = store.server.password.iter().map(|password| ("the password", password));
                std::iter::once((Options::SEALING, &store.sealing)).chain(password).collect()
            }
            Options::Leader(leader) => leader.key.iter().map(|key| ("the leader_key", key)).collect(),
        }
    }
}

/// The Redis that nodes share.
#[derive(Clone, Debug)]
pub struct StoreOptions {
    pub server: RedisOptions,
    /// The secret that the keys of seals are derived from. The same on all nodes.
    pub sealing: SecretSource,
    /// Where that came from, for `check`.
    pub sealing_origin: SecretOrigin,
    /// Begins every key.
    pub prefix: String,
    /// How often to look for changes whose message was lost, ms.
    pub poll_every_ms: u64,
    /// Names this node for people.
    pub node: String,
}

impl StoreOptions {
    /// The hash tag of all keys: a Redis cluster keeps them on one node.
    pub fn key(&self) -> String {
        format!("{{{}}}", self.prefix)
    }
}

/// The leaders that are followed by HTTP.
#[derive(Clone, Debug)]
pub struct LeaderOptions {
    /// Without a slash at the end, the preferred one first.
    pub urls: Vec<String>,
    /// A key for their HTTP API; none is needed on the same machine if they have no keys.
    pub key: Option<SecretSource>,
    /// Where that came from, for `check`.
    pub key_origin: Option<SecretOrigin>,
    /// Whom to trust (PEM); none: the public authorities.
    pub ca_file: Option<PathBuf>,
    /// Longest wait for a connection and for an answer that need not be waited for, ms.
    pub timeout_ms: u64,
    /// How long a leader may hold a question back, ms.
    pub poll_every_ms: u64,
    /// Names this node for people.
    pub node: String,
}

/// Default of [`StoreOptions::prefix`].
pub const PREFIX: &str = "tokencached";
/// Default of how often to poll, ms.
pub const POLL_EVERY_MS: u64 = 2_000;
/// Default of the longest wait, ms.
pub const TIMEOUT_MS: u64 = 1_000;
/// Default name of a node on a machine without a name.
pub const NODE: &str = "node";

impl StoreOptions {
    /// This Redis, and the defaults for the rest.
    pub fn new(server: RedisOptions, sealing: SecretSource, sealing_origin: SecretOrigin) -> StoreOptions {
        StoreOptions {
            server,
            sealing,
            sealing_origin,
            prefix: PREFIX.to_owned(),
            poll_every_ms: POLL_EVERY_MS,
            node: NODE.to_owned(),
        }
    }
}

impl LeaderOptions {
    /// These leaders, and the defaults for the rest.
    pub fn at(urls: Vec<String>) -> LeaderOptions {
        LeaderOptions {
            urls,
            key: None,
            key_origin: None,
            ca_file: None,
            timeout_ms: TIMEOUT_MS,
            poll_every_ms: POLL_EVERY_MS,
            node: NODE.to_owned(),
        }
    }
}
