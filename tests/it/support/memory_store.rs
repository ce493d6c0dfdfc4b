//! A cluster store in the memory of one process: [`RecordRules::apply`] under a lock.
//!
//! Answers at once and correctly, except while [`MemoryStore::set_down`] makes it unreachable.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use parking_lot::Mutex;
use tokencached::clock::Clock;
use tokencached::cluster::record::{Op, Record};
use tokencached::cluster::{
    ClusterEvent, ClusterStore, RefreshReason, StoreAnswer, StoreClockReading, StoreFuture, Unreachable, WatchedRecord,
};
use tokio::sync::{broadcast, mpsc, oneshot};
use tokio_util::sync::CancellationToken;

use crate::record_rules::RecordRules;

/// The store. All nodes of a test hold the same `Arc`.
pub struct MemoryStore {
    records: Mutex<HashMap<String, Record>>,
    events: broadcast::Sender<MemoryEvent>,
    down: AtomicBool,
    clock: Arc<dyn Clock>,
}

#[derive(Clone)]
enum MemoryEvent {
    Changed(String),
    RefreshRequested {
        tag: String,
        generation: Option<u64>,
        why: RefreshReason,
        done: Arc<Mutex<Option<oneshot::Sender<()>>>>,
    },
}

/// How many changes a slow watcher may be behind; then it reads all records again.
const BEHIND_MAX: usize = 1024;

impl MemoryStore {
    /// An empty store on that clock.
    pub fn new(clock: Arc<dyn Clock>) -> Arc<MemoryStore> {
        let (events, _) = broadcast::channel(BEHIND_MAX);
        Arc::new(MemoryStore { records: Mutex::default(), events, down: AtomicBool::new(false), clock })
    }

    /// Makes the store unreachable for all nodes, or reachable again.
    pub fn set_down(&self, down: bool) {
        self.down.store(down, Ordering::Release);
    }

    /// Forgets everything, as `FLUSHALL` does.
    pub fn flush(&self) {
        let tags: Vec<String> = std::mem::take(&mut *self.records.lock()).into_keys().collect();
        tags.into_iter().for_each(|tag| self.send(MemoryEvent::Changed(tag)));
    }

    /// The record of that tag, as it is now.
    pub fn record(&self, tag: &str) -> Record {
        self.records.lock().get(tag).cloned().unwrap_or_default()
    }

    /// Replaces a record.
    pub fn put(&self, tag: &str, record: Record) {
        self.records.lock().insert(tag.to_owned(), record);
        self.send(MemoryEvent::Changed(tag.to_owned()));
    }

    fn send(&self, event: MemoryEvent) {
        // The error means that nobody watches.
        let _ = self.events.send(event);
    }

    fn clock_reading(&self) -> StoreClockReading {
        let now = self.clock.now();
        StoreClockReading {
            store_ms: u64::try_from(now.unix_ms).unwrap_or(0),
            sent_ms: now.boot_ms,
            received_ms: now.boot_ms,
        }
    }

    fn check_up(&self) -> Result<(), Unreachable> {
        if self.down.load(Ordering::Acquire) {
            return Err(Unreachable::new("the cluster store is out of reach", "bring it back"));
        }
        Ok(())
    }

    fn apply(&self, tag: &str, op: &Op) -> Result<StoreAnswer, Unreachable> {
        self.check_up()?;
        let clock_reading = self.clock_reading();
        let mut records = self.records.lock();
        let mut record = records.get(tag).cloned().unwrap_or_default();
        let outcome = record.apply(op, clock_reading.store_ms);
        let before = records.insert(tag.to_owned(), record.clone());
        drop(records);
        let visible = |record: &Record| (record.unsettled, record.value.clone());
        if visible(&before.unwrap_or_default()) != visible(&record) {
            self.send(MemoryEvent::Changed(tag.to_owned()));
        }
        Ok(StoreAnswer { outcome, record, clock_reading })
    }

    async fn send_record(&self, watched: &[WatchedRecord], index: usize, sender: &mpsc::Sender<ClusterEvent>) {
        if self.check_up().is_err() {
            return;
        }
        let record = self.record(&watched[index].tag);
        // The receiver is gone only when the node stops.
        let _ = sender.send(ClusterEvent::RecordChanged { index, record, clock_reading: self.clock_reading() }).await;
    }
}

impl ClusterStore for MemoryStore {
    fn ask<'a>(&'a self, tag: &'a str, op: Op) -> StoreFuture<'a, Result<StoreAnswer, Unreachable>> {
        Box::pin(async move { self.apply(tag, &op) })
    }

    fn request_refresh<'a>(
        &'a self,
        tag: &'a str,
        generation: Option<u64>,
        why: RefreshReason,
    ) -> StoreFuture<'a, Result<(), Unreachable>> {
        Box::pin(async move {
            self.check_up()?;
            let (done, finished) = oneshot::channel();
            self.send(MemoryEvent::RefreshRequested {
                tag: tag.to_owned(),
                generation,
                why,
                done: Arc::new(Mutex::new(Some(done))),
            });
            let _ = finished.await;
            Ok(())
        })
    }

    fn watch(
        self: Arc<Self>,
        watched: Arc<[WatchedRecord]>,
        sender: mpsc::Sender<ClusterEvent>,
        end: CancellationToken,
    ) -> StoreFuture<'static, ()> {
        let mut changes = self.events.subscribe();
        Box::pin(async move {
            let find = |tag: &str| watched.iter().position(|known| *known.tag == *tag);
            let mut must_read_all = true;
            loop {
                if std::mem::take(&mut must_read_all) {
                    for index in 0..watched.len() {
                        self.send_record(&watched, index, &sender).await;
                    }
                }
                let change = tokio::select! {
                    biased;
                    () = end.cancelled() => return,
                    change = changes.recv() => change,
                };
                match change {
                    Ok(MemoryEvent::Changed(tag)) => {
                        if let Some(index) = find(&tag) {
                            self.send_record(&watched, index, &sender).await;
                        }
                    }
                    Ok(MemoryEvent::RefreshRequested { tag, generation, why, done }) => {
                        if let Some(index) = find(&tag).filter(|index| watched[*index].renews)
                            && let Some(done) = done.lock().take()
                        {
                            let _ = sender.try_send(ClusterEvent::RefreshRequested { index, generation, why, done });
                        }
                    }
                    Err(broadcast::error::RecvError::Lagged(_)) => must_read_all = true,
                    Err(broadcast::error::RecvError::Closed) => return,
                }
            }
        })
    }
}
