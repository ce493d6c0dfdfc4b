//! Several nodes: every one answers every managed key from its own memory, and one of them renews.
//!
//! `record` is what the shared store keeps of a credential and what nodes may do to it, `turn` what a node does next;
//! both are pure. `seal` hides what is published. [`Shared`] is what all stores can do: `redis` is the one that nodes
//! share, `http` follows another node by its side port, `memory` is inside one process. `lane` is one credential's way
//! to it. docs/en/many-nodes.md says why it is right.
//!
//! Never calls WeChat and never publishes a value to readers: that is the refresher's part.

pub mod http;
pub mod lane;
pub mod memory;
pub mod options;
pub mod record;
#[cfg(feature = "redis")]
pub mod redis;
pub mod seal;
pub mod turn;

use std::pin::Pin;
use std::sync::Arc;

use tokio::sync::{mpsc, oneshot};
use tokio_util::sync::CancellationToken;

pub use options::{LeaderOptions, Options, StoreOptions};
pub use record::{Ended, NodeId, Op, Record, Verdict};
pub use turn::Moment;

use crate::clock::BootMs;

/// Something under way.
pub type Asked<'a, T> = Pin<Box<dyn Future<Output = T> + Send + 'a>>;

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
pub struct Answer {
    pub verdict: Verdict,
    /// The record as it is afterwards.
    pub record: Record,
    /// The store's clock at that.
    pub moment: Moment,
}

/// Why somebody who cannot look wants a value looked into.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Why {
    /// A client says that WeChat refuses it.
    Refused,
    /// A client came with a token of its own.
    Rival,
    /// Somebody who may asks for it.
    Asked,
    /// Somebody who may asks for the value to be tried, and nothing else.
    Tried,
}

/// A credential that a node keeps.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Watched {
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
pub enum News {
    /// The record of a credential, by its index among those watched: it has changed, or all are read again.
    Seen { index: usize, record: Record, moment: Moment },
    /// A node that cannot call WeChat asks for a look. `done` is to fire when that is over.
    Wish { index: usize, generation: Option<u64>, why: Why, done: oneshot::Sender<()> },
    /// Whether the store answers.
    Reachable(Result<(), Unreachable>),
    /// From a node that is followed: what has been told is all that those who renew had made at that instant.
    Complete { as_of_ms: BootMs },
}

/// A store that nodes share.
pub trait Shared: Send + Sync {
    /// Does one thing to the record of that tag, all or nothing.
    fn ask<'a>(&'a self, tag: &'a str, op: Op) -> Asked<'a, Result<Answer, Unreachable>>;

    /// Has a node that can call WeChat look into a value. Ready when that is over; the record has come before.
    fn wish<'a>(&'a self, tag: &'a str, generation: Option<u64>, why: Why) -> Asked<'a, Result<(), Unreachable>>;

    /// Brings every record of these once, then what changes, until `end`; all again whenever changes may have been
    /// missed. A wish goes to one node that renews. Called once.
    fn watch(
        self: Arc<Self>,
        watched: Arc<[Watched]>,
        news: mpsc::Sender<News>,
        end: CancellationToken,
    ) -> Asked<'static, ()>;

    /// False of one that can only be followed.
    fn leases(&self) -> bool {
        true
    }
}
