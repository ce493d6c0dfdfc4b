//! The trait that each type of sink implements, and its arguments.
//!
//! A backend never retries and never logs a failure: the runner does. It never shows a value, a password or a key with a
//! secret.

use std::sync::Arc;

use bytes::Bytes;
use futures_util::future::BoxFuture;
use tokio::sync::{Semaphore, SemaphorePermit};

use super::options::SinkEntry;
use super::template::{Placeholder, TimeShown};
use crate::clock::{BootMs, Now};
use crate::credential::adopt::StoredBytes;
use crate::encoding::Times;
use crate::store_fault::StoreFault;

/// The content at each of some entries; none where nothing is.
pub(super) type Contents = Vec<Option<Vec<u8>>>;

/// What a store is waited for.
pub(super) type SinkAnswer<'a, T> = BoxFuture<'a, Result<T, StoreFault>>;

/// A store that credentials are written to.
pub(super) trait SinkBackend: Send + Sync + 'static {
    /// Connects. Called again after the connection failed.
    fn open(&self) -> SinkAnswer<'_, ()> {
        Box::pin(std::future::ready(Ok(())))
    }

    /// The bytes for one entry at this instant, which [`SinkBackend::write`] gets.
    fn content(&self, entry: &SinkEntry, current: &CurrentValue) -> Result<Vec<u8>, StoreFault> {
        Ok(entry.render(current))
    }

    /// Whether a missing entry means that others are missing too: the store was flushed, or has lost its memory.
    fn loses_all_at_once(&self) -> bool {
        false
    }

    /// Whether the entries may be gone when the store is opened again: it may have been restarted or replaced.
    fn may_have_lost(&self) -> bool {
        true
    }

    /// The limit of writes at once over all sinks of this type. A value is read once there is a permit.
    fn limit(&self) -> Option<&'static Semaphore> {
        None
    }

    /// Writes all entries of one credential. Returns what was at each before, as far as that can be known.
    fn write<'a>(&'a self, write: &'a CredentialWrite) -> SinkAnswer<'a, Contents>;

    /// The content at each entry now; `None` from a backend that cannot read.
    fn read<'a>(&'a self, _entries: &'a [SinkEntry]) -> SinkAnswer<'a, Option<Contents>> {
        Box::pin(std::future::ready(Ok(None)))
    }

    /// Likewise, with the times that the store has, for a value that was there before ours.
    fn read_with_times<'a>(&'a self, entries: &'a [SinkEntry]) -> SinkAnswer<'a, Option<Vec<StoredBytes>>> {
        Box::pin(async move {
            let stored = |contents: Contents| contents.into_iter().flatten().map(StoredBytes::from).collect();
            Ok(self.read(entries).await?.map(stored))
        })
    }

    /// Removes our entries, or marks them as expired, because there is no good value any more. Leaves what is not ours.
    /// Returns how many entries were ours.
    fn retract<'a>(&'a self, _retract: &'a Retraction) -> SinkAnswer<'a, u64> {
        Box::pin(std::future::ready(Ok(0)))
    }
}

/// A value, and the times to write with it at one instant.
#[derive(Clone)]
pub(super) struct CurrentValue {
    pub value: Bytes,
    pub now: Now,
    pub end_ms: BootMs,
    /// Until when the value is reliable: this is written as its end.
    pub reliable_until_ms: BootMs,
    /// Times are written as if at least so many seconds were left.
    pub at_least_s: u32,
}

impl CurrentValue {
    /// How long it still lives, ms.
    pub fn left_ms(&self) -> u64 {
        self.end_ms.saturating_sub(self.now.boot_ms)
    }

    /// A time as it is to be written.
    pub fn time(&self, time: TimeShown) -> i64 {
        self.times(0).get(time.fact).unwrap_or_default().saturating_add(time.add)
    }

    /// What a placeholder stands for in a text; none for the value, which each type of sink writes in its own way.
    pub fn shown(&self, entry: &SinkEntry, placeholder: Placeholder) -> Option<String> {
        match placeholder {
            Placeholder::Time(time) => Some(self.time(time).to_string()),
            placeholder => entry.named(placeholder).map(str::to_owned),
        }
    }

    /// The times to write, with at least so many seconds left. For a value that has ended they lie in the past.
    pub fn times(&self, at_least_s: u32) -> Times {
        if self.end_ms > self.now.boot_ms {
            return Times::new(self.now, self.reliable_until_ms, at_least_s.max(self.at_least_s));
        }
        let ago_ms = i64::try_from(self.now.boot_ms - self.end_ms).unwrap_or(i64::MAX);
        let end = Now { boot_ms: self.end_ms, unix_ms: self.now.unix_ms.saturating_sub(ago_ms) };
        Times::new(end, self.end_ms, 0)
    }
}

/// A permit below a [`SinkBackend::limit`], as long as a clone of it lives.
pub(super) type WritePermit = Arc<SemaphorePermit<'static>>;

pub(super) struct CredentialWrite {
    /// If the backend has a limit.
    pub permit: Option<WritePermit>,
    pub entries: Arc<[SinkEntry]>,
    /// The bytes for each, by [`SinkBackend::content`].
    pub contents: Vec<Vec<u8>>,
    pub current: CurrentValue,
}

pub(super) struct Retraction {
    pub entries: Arc<[SinkEntry]>,
    /// What we wrote last to each; after a restart what a former process will have written, as far as that is known.
    pub expected: Vec<Option<Vec<u8>>>,
    /// Its last value, which has ended; none if there never was one.
    pub last: Option<CurrentValue>,
}
