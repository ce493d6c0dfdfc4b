//! What every kind of sink does: the one trait, what goes in and out of it, and how a failure reads.
//!
//! A target never retries and logs no failure: the runner does. It shows no value, no password and no key with a secret.

use std::borrow::Cow;
use std::fmt;
use std::sync::Arc;

use bytes::Bytes;
use futures_util::future::{BoxFuture, FutureExt};
use tokio::sync::{Semaphore, SemaphorePermit};

use super::item::RenderedEntry;
use crate::clock::{BootMs, Now};
use crate::credential::adopt::StoredBytes;
use crate::encoding::Times;

/// What stands at each of some entries; none where nothing does.
pub(super) type Contents = Vec<Option<Vec<u8>>>;

/// A store that values are written to.
pub(super) trait SinkBackend: Send + Sync + 'static {
    /// Connects, or opens what the calls below need. Called again after a fault of the connection.
    fn open(&self) -> BoxFuture<'_, Result<(), SinkFault>>;

    /// The bytes of one entry at this instant: what [`SinkBackend::write`] will put there.
    fn content(&self, entry: &RenderedEntry, current: &CurrentValue) -> Result<Vec<u8>, SinkFault> {
        Ok(entry.render(current))
    }

    /// Whether one entry that is gone means that others will be: somebody has flushed it, or it has lost its memory.
    fn loses_all_at_once(&self) -> bool {
        false
    }

    /// Whether what was written may be gone when the target is opened again: it may have been restarted, or be another.
    fn may_have_lost(&self) -> bool {
        true
    }

    /// Whether [`SinkBackend::read`] tells anything.
    fn is_readable(&self) -> bool {
        true
    }

    /// What limits how much is under way over all sinks of its type. A value is read when there is room for it.
    fn limit(&self) -> Option<&'static Semaphore> {
        None
    }

    /// Writes all entries of one credential; what stood at each before, as far as that can be known.
    fn write<'a>(&'a self, write: &'a Write) -> BoxFuture<'a, Result<Contents, SinkFault>>;

    /// What stands at each entry now; `None` from a target that cannot be read.
    fn read<'a>(&'a self, entries: &'a [RenderedEntry]) -> BoxFuture<'a, Result<Option<Contents>, SinkFault>>;

    /// The same with what the place knows of times, for a value that was there before any of ours.
    fn read_with_times<'a>(
        &'a self,
        entries: &'a [RenderedEntry],
    ) -> BoxFuture<'a, Result<Option<Vec<StoredBytes>>, SinkFault>> {
        async move {
            let stored = |contents: Contents| contents.into_iter().flatten().map(StoredBytes::from).collect();
            Ok(self.read(entries).await?.map(stored))
        }
        .boxed()
    }

    /// There is no good value any more: takes away, or marks as expired, what is ours and nothing else; how many were.
    fn retract<'a>(&'a self, retract: &'a Retraction) -> BoxFuture<'a, Result<u64, SinkFault>>;
}

/// A value at one instant.
#[derive(Clone)]
pub(super) struct CurrentValue {
    pub value: Bytes,
    pub now: Now,
    /// When the value is over.
    pub end_ms: BootMs,
    /// Until when it can be relied on: what is told as its end.
    pub told_end_ms: BootMs,
    /// Times are told as if at least so many seconds were left.
    pub at_least_s: u32,
}

impl CurrentValue {
    /// How long it is still good, ms.
    pub fn left_ms(&self) -> u64 {
        self.end_ms.saturating_sub(self.now.boot_ms)
    }

    /// The times that are told, with at least so many seconds left if it is not over; then they lie in the past.
    pub fn times(&self, at_least_s: u32) -> Times {
        if self.end_ms > self.now.boot_ms {
            return Times::new(self.now, self.told_end_ms, at_least_s.max(self.at_least_s));
        }
        let ago_ms = i64::try_from(self.now.boot_ms - self.end_ms).unwrap_or(i64::MAX);
        let end = Now { boot_ms: self.end_ms, unix_ms: self.now.unix_ms.saturating_sub(ago_ms) };
        Times::new(end, self.end_ms, 0)
    }
}

/// Room for one more below a [`SinkBackend::limit`], for as long as a clone of it lives.
#[derive(Clone, Debug)]
pub(super) struct WritePermit(#[expect(dead_code, reason = "held, not read")] Arc<SemaphorePermit<'static>>);

impl WritePermit {
    pub fn new(permit: SemaphorePermit<'static>) -> WritePermit {
        WritePermit(Arc::new(permit))
    }
}

/// One credential to be written.
pub(super) struct Write {
    /// Where there is a limit.
    pub place: Option<WritePermit>,
    pub entries: Arc<[RenderedEntry]>,
    /// What [`SinkBackend::content`] has made of each.
    pub contents: Vec<Vec<u8>>,
    pub current: CurrentValue,
}

/// One credential that has no good value.
pub(super) struct Retraction {
    pub entries: Arc<[RenderedEntry]>,
    /// What we have written to each last; after a restart what a former process will have written, as far as it can be
    /// known.
    pub expected: Vec<Option<Vec<u8>>>,
    /// Its last value, which is over; none if there never was one.
    pub last: Option<CurrentValue>,
}

/// Why something could not be written: fit for a log, and without anything secret.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct SinkFault {
    /// One word for statistics and logs.
    pub class: &'static str,
    /// What is wrong, and with whom: "it is out of memory".
    pub what: Cow<'static, str>,
    /// What to do about it.
    pub advice: Cow<'static, str>,
    pub scope: SinkFaultScope,
}

/// Whom a fault concerns.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum SinkFaultScope {
    /// The connection: nothing can be written before it is opened again.
    Backend,
    /// The same, for want of a file descriptor in this process, which passes soon.
    Descriptors,
    /// What was to be written; the others may fare better.
    RenderedEntry,
}

impl fmt::Display for SinkFault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.what)
    }
}

impl SinkFault {
    /// Nothing can be written before the target is opened again.
    pub fn is_about_the_connection(&self) -> bool {
        self.scope != SinkFaultScope::RenderedEntry
    }

    /// Whose it is, by its class: of the `configuration`, the `target`, the `network`, the `upstream` that gave the value, or
    /// this `server`.
    pub fn whose(&self) -> &'static str {
        match self.class {
            "cluster" | "database" | "file" | "files" | "folder" | "format" | "link" | "master" | "not_found"
            | "password" | "permission" | "protocol" | "readonly" | "syntax" | "table" | "tls" | "untrusted" => {
                "configuration"
            }
            "value" => "upstream",
            "unreachable" => "network",
            "descriptors" | "resources" => "server",
            _ => "target",
        }
    }
}
