//! What other nodes a node has, and how they are reached.

use std::path::PathBuf;

use crate::redis_client::options::RedisOptions;
use crate::secret_source::{SecretOrigin, SecretSource};

/// What other nodes a node has.
#[derive(Clone, Debug)]
pub enum Options {
    /// All share a Redis.
    Redis(Box<StoreOptions>),
    /// This one follows another by its side port and calls nobody else.
    Upstream(LeaderOptions),
}

impl Options {
    /// What values are sealed with, among [`Options::secrets`].
    pub const SEALING: &str = "the secret";

    /// What is secret of them, and what it is.
    pub fn secrets(&self) -> Vec<(&'static str, &SecretSource)> {
        match self {
            Options::Redis(state) => {
                let password = state.server.password.iter().map(|password| ("the password", password));
                std::iter::once((Options::SEALING, &state.sealing)).chain(password).collect()
            }
            Options::Upstream(upstream) => upstream.key.iter().map(|key| ("the upstream_key", key)).collect(),
        }
    }
}

/// The Redis that nodes share.
#[derive(Clone, Debug)]
pub struct StoreOptions {
    pub server: RedisOptions,
    /// What values are sealed with; to be hashed. The same on all nodes.
    pub sealing: SecretSource,
    /// Where that came from, for `check`.
    pub sealing_origin: SecretOrigin,
    /// Begins every key.
    pub prefix: String,
    /// How often is looked for what a lost message would have told, ms.
    pub poll_every_ms: u64,
    /// Names this node for people.
    pub node: String,
}

impl StoreOptions {
    /// A key with the hash tag of all others, so that a cluster has them on one node.
    pub fn key(&self) -> String {
        format!("{{{}}}", self.prefix)
    }
}

/// The nodes that are followed by HTTP.
#[derive(Clone, Debug)]
pub struct LeaderOptions {
    /// Without a slash at the end, the preferred one first.
    pub urls: Vec<String>,
    /// Of their side ports; none is needed on this machine if they have no keys.
    pub key: Option<SecretSource>,
    /// Where that came from, for `check`.
    pub key_origin: Option<SecretOrigin>,
    /// Whom to trust (PEM); none: the public authorities.
    pub ca_file: Option<PathBuf>,
    /// Longest wait for a connection and for an answer that need not be waited for, ms.
    pub timeout_ms: u64,
    /// How often is looked, whatever else is heard, ms.
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
