//! Several nodes: every one answers every managed key from its own memory, and one of them renews.
//!
//! `record` is what the shared store keeps of a credential and what nodes may do to it, `node_rules` what a node does next;
//! both are pure. `seal` hides what is published. [`ClusterStore`] is what all stores can do: `redis` is the one that nodes
//! share, `http` follows another node by its side port, `memory` is inside one process. `handle` is one credential's way
//! to it. docs/en/cluster.md says why it is right.
//!
//! Never calls WeChat and never publishes a value to readers: that is the refresher's part.

pub mod http;
pub mod memory;
pub mod node_rules;
pub mod options;
pub mod record;
pub mod record_handle;
#[cfg(feature = "redis")]
pub mod redis;
pub mod seal;

use std::pin::Pin;
use std::sync::Arc;

use tokio::sync::{mpsc, oneshot};
use tokio_util::sync::CancellationToken;

pub use node_rules::Moment;
pub use options::{LeaderOptions, Options, StoreOptions};
pub use record::{CallEnd, NodeId, Op, OpOutcome, Record};

use crate::clock::BootMs;

/// Something under way.
pub type StoreFuture<'a, T> = Pin<Box<dyn Future<Output = T> + Send + 'a>>;

/// The store could not be asked, or its answer never came.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the shared state {text}")]
pub struct Unreachable {
    /// For people: what is wrong. Holds no secret.
    pub text: String,
    /// What to do about it.
    pub advice: &'static str,
    /// What was asked may have been done all the same.
    pub unknown: bool,
}

/// A store's answer.
#[derive(Clone, Debug)]
pub struct StoreAnswer {
    pub outcome: OpOutcome,
    /// The record as it is afterwards.
    pub record: Record,
    /// The store's clock at that.
    pub moment: Moment,
}

/// Why somebody who cannot look wants a value looked into.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RefreshReason {
    /// A client says that WeChat refuses it.
    Report,
    /// A client came with a token of its own.
    ForeignWriter,
    /// Somebody who may asks for it.
    Renew,
    /// Somebody who may asks for the value to be tried, and nothing else.
    Probe,
}

/// A credential that a node keeps.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WatchedRecord {
    /// Names its record.
    pub tag: Arc<str>,
    /// The app's id (with its agent) and the kind's key, as the side port's API names the credential.
    pub app: String,
    pub kind: &'static str,
    /// This node can call WeChat for it, so it takes others' wishes.
    pub renews: bool,
}

/// What comes from the store by itself.
#[derive(Debug)]
pub enum ClusterEvent {
    /// The record of a credential, by its index among those watched: it has changed, or all are read again.
    RecordChanged { index: usize, record: Record, moment: Moment },
    /// A node that cannot call WeChat asks for a look. `done` is to fire when that is over.
    RefreshRequested { index: usize, generation: Option<u64>, why: RefreshReason, done: oneshot::Sender<()> },
    /// Whether the store answers.
    Reachable(Result<(), Unreachable>),
    /// From a node that is followed: what has been told is all that those who renew had made at that instant.
    UpToDate { as_of_ms: BootMs },
}

/// A store that nodes share.
pub trait ClusterStore: Send + Sync {
    /// Does one thing to the record of that tag, all or nothing.
    fn ask<'a>(&'a self, tag: &'a str, op: Op) -> StoreFuture<'a, Result<StoreAnswer, Unreachable>>;

    /// Has a node that can call WeChat look into a value. Ready when that is over; the record has come before.
    fn request_refresh<'a>(
        &'a self,
        tag: &'a str,
        generation: Option<u64>,
        why: RefreshReason,
    ) -> StoreFuture<'a, Result<(), Unreachable>>;

    /// Brings every record of these once, then what changes, until `end`; all again whenever changes may have been
    /// missed. A wish goes to one node that renews. Called once.
    fn watch(
        self: Arc<Self>,
        watched: Arc<[WatchedRecord]>,
        news: mpsc::Sender<ClusterEvent>,
        end: CancellationToken,
    ) -> StoreFuture<'static, ()>;

    /// False of one that can only be followed.
    fn has_leases(&self) -> bool {
        true
    }
}
