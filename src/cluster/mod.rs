//! The cluster: several nodes that share state. Every node answers every managed key from its own memory, and one of
//! them renews.
//!
//! | module | what it is for |
//! |---|---|
//! | [`record`] | one credential's record in the store, and what nodes may do to it: leases, values, unsettled calls; pure |
//! | [`node_rules`] | what a node does after each answer of the store; pure |
//! | [`seal`] | encrypts the values and counts that nodes publish |
//! | [`record_handle`] | one credential's access to the store: the steps of a renewal |
//! | `redis` | the store that nodes share in a Redis |
//! | [`http`] | a follower's store: the records of a leader, read through its HTTP API |
//!
//! A lease is taken by `credential/cluster_fetch.rs`, before a fetch, through [`record_handle::RecordHandle::take_lease`].
//! docs/design/cluster-protocol.md explains the protocol and why it is correct.
//!
//! Never calls a platform and never publishes a value to readers: the refresher does that.

pub mod http;
pub mod node_rules;
pub mod options;
pub mod record;
pub mod record_handle;
#[cfg(feature = "redis")]
pub mod redis;
pub mod seal;

use std::pin::Pin;
use std::sync::Arc;

use serde::{Deserialize, Serialize};
use tokio::sync::{mpsc, oneshot};
use tokio_util::sync::CancellationToken;

pub use node_rules::StoreClockReading;
pub use options::{LeaderOptions, Options, StoreOptions, judge_keys, judge_node, node_of_host};
pub use record::{CallEnd, NodeId, Op, OpOutcome, Record};

use crate::clock::BootMs;

pub type StoreFuture<'a, T> = Pin<Box<dyn Future<Output = T> + Send + 'a>>;

/// The store could not be asked, or its answer never came.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{text}")]
pub struct Unreachable {
    /// What is wrong, for people. Holds no secret.
    pub text: String,
    pub advice: &'static str,
    /// The operation may have been done, although no answer came.
    pub unknown: bool,
}

impl Unreachable {
    /// Nothing has been done.
    pub fn new(text: impl Into<String>, advice: &'static str) -> Unreachable {
        Unreachable { text: text.into(), advice, unknown: false }
    }
}

#[derive(Clone, Debug)]
pub struct StoreAnswer {
    pub outcome: OpOutcome,
    /// The record as it is afterwards.
    pub record: Record,
    /// When the store answered.
    pub clock_reading: StoreClockReading,
}

/// Why a node that cannot call the platform asks another node to. Versions before this one know the words too.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum RefreshReason {
    /// A client reports that the platform refuses the value.
    #[serde(rename = "refused")]
    Report,
    /// A client tried to store a token of its own: another program fetches for this app.
    #[serde(rename = "rival")]
    ForeignWriter,
    /// An authorized user asks for a renewal.
    #[serde(rename = "asked")]
    Renew,
    /// An authorized user asks for a probe of the value, and no renewal.
    #[serde(rename = "tried")]
    Probe,
}

/// A record that a node watches, and the credential it is of.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WatchedRecord {
    /// The record's name in the store.
    pub tag: Arc<str>,
    /// The app's id (with its agent) and the credential's type, as the HTTP API names them.
    pub app: String,
    pub kind: &'static str,
    /// This node can call the platform for it, so it takes refresh requests of others.
    pub renews: bool,
}

#[derive(Debug)]
pub enum ClusterEvent {
    /// A record, by its index among those watched. It has changed, or all records are read again.
    RecordChanged {
        index: usize,
        record: Record,
        clock_reading: StoreClockReading,
    },
    /// Another node asks this one to verify or renew a value. `done` is sent when that is finished.
    RefreshRequested {
        index: usize,
        generation: Option<u64>,
        why: RefreshReason,
        done: oneshot::Sender<()>,
    },
    Reachable(Result<(), Unreachable>),
    /// The records sent so far are complete as of that instant. Only a leader's store sends this.
    UpToDate {
        as_of_ms: BootMs,
    },
}

pub trait ClusterStore: Send + Sync {
    /// Applies an operation to the record of that tag, all or nothing.
    fn ask<'a>(&'a self, tag: &'a str, op: Op) -> StoreFuture<'a, Result<StoreAnswer, Unreachable>>;

    /// Has a node that can call the platform verify or renew a value. Ready when that is finished; the changed record has
    /// been sent to the watcher before.
    fn request_refresh<'a>(
        &'a self,
        tag: &'a str,
        generation: Option<u64>,
        why: RefreshReason,
    ) -> StoreFuture<'a, Result<(), Unreachable>>;

    /// Sends every watched record once, then each that changes, until `end`. Sends all again whenever a change may have
    /// been missed. A refresh request goes to one node that renews. Called once.
    fn watch(
        self: Arc<Self>,
        watched: Arc<[WatchedRecord]>,
        events: mpsc::Sender<ClusterEvent>,
        end: CancellationToken,
    ) -> StoreFuture<'static, ()>;

    /// False of a store that can only be followed.
    fn has_leases(&self) -> bool {
        true
    }
}
