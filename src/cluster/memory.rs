//! A store in the memory of one process, for tests and simulations: [`Record::apply`] under a lock.
//!
//! Never anything but correct and at once, unless it is told to be out of reach.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use parking_lot::Mutex;
use tokio::sync::{broadcast, mpsc, oneshot};
use tokio_util::sync::CancellationToken;

use super::node_rules::Moment;
use super::record::{Op, Record};
use super::{ClusterEvent, ClusterStore, RefreshReason, StoreAnswer, StoreFuture, Unreachable, WatchedRecord};
use crate::clock::Clock;

/// The store itself. Every node has it by the same `Arc`.
pub struct MemoryStore {
    records: Mutex<HashMap<String, Record>>,
    told: broadcast::Sender<MemoryEvent>,
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

/// Changes that a slow watcher may be behind; then it reads all again.
const BEHIND_MAX: usize = 1024;

impl MemoryStore {
    /// An empty one, on that clock.
    pub fn new(clock: Arc<dyn Clock>) -> Arc<MemoryStore> {
        let (told, _) = broadcast::channel(BEHIND_MAX);
        Arc::new(MemoryStore { records: Mutex::default(), told, down: AtomicBool::new(false), clock })
    }

    /// From now on nobody reaches it, or everybody does again.
    pub fn set_down(&self, down: bool) {
        self.down.store(down, Ordering::Release);
    }

    /// Forgets everything, as `FLUSHALL` does.
    pub fn flush(&self) {
        let tags: Vec<String> = std::mem::take(&mut *self.records.lock()).into_keys().collect();
        tags.into_iter().for_each(|tag| self.tell(MemoryEvent::Changed(tag)));
    }

    /// The record of that tag.
    pub fn record(&self, tag: &str) -> Record {
        self.records.lock().get(tag).cloned().unwrap_or_default()
    }

    /// Puts another in its place.
    pub fn put(&self, tag: &str, record: Record) {
        self.records.lock().insert(tag.to_owned(), record);
        self.tell(MemoryEvent::Changed(tag.to_owned()));
    }

    /// Nobody may be listening.
    fn tell(&self, told: MemoryEvent) {
        let _ = self.told.send(told);
    }

    fn moment(&self) -> Moment {
        let now = self.clock.now();
        Moment { store_ms: u64::try_from(now.unix_ms).unwrap_or(0), sent_ms: now.boot_ms, received_ms: now.boot_ms }
    }

    fn reach(&self) -> Result<(), Unreachable> {
        if self.down.load(Ordering::Acquire) {
            return Err(Unreachable { text: "is out of reach".into(), advice: "bring it back", unknown: false });
        }
        Ok(())
    }

    fn apply(&self, tag: &str, op: &Op) -> Result<StoreAnswer, Unreachable> {
        self.reach()?;
        let moment = self.moment();
        let mut records = self.records.lock();
        let mut record = records.get(tag).cloned().unwrap_or_default();
        let outcome = record.apply(op, moment.store_ms);
        let before = records.insert(tag.to_owned(), record.clone());
        drop(records);
        let looks = |record: &Record| (record.unsettled, record.value.clone());
        if looks(&before.unwrap_or_default()) != looks(&record) {
            self.tell(MemoryEvent::Changed(tag.to_owned()));
        }
        Ok(StoreAnswer { outcome, record, moment })
    }

    async fn see(&self, watched: &[WatchedRecord], index: usize, sender: &mpsc::Sender<ClusterEvent>) {
        if self.reach().is_err() {
            return;
        }
        let record = self.record(&watched[index].tag);
        // The receiver ends before its sender only at the end of it all.
        let _ = sender.send(ClusterEvent::RecordChanged { index, record, moment: self.moment() }).await;
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
            self.reach()?;
            let (done, over) = oneshot::channel();
            self.tell(MemoryEvent::RefreshRequested {
                tag: tag.to_owned(),
                generation,
                why,
                done: Arc::new(Mutex::new(Some(done))),
            });
            let _ = over.await;
            Ok(())
        })
    }

    fn watch(
        self: Arc<Self>,
        watched: Arc<[WatchedRecord]>,
        sender: mpsc::Sender<ClusterEvent>,
        end: CancellationToken,
    ) -> StoreFuture<'static, ()> {
        let mut told = self.told.subscribe();
        Box::pin(async move {
            let find = |tag: &str| watched.iter().position(|known| *known.tag == *tag);
            let mut all = true;
            loop {
                if std::mem::take(&mut all) {
                    for index in 0..watched.len() {
                        self.see(&watched, index, &sender).await;
                    }
                }
                let told = tokio::select! {
                    biased;
                    () = end.cancelled() => return,
                    told = told.recv() => told,
                };
                match told {
                    Ok(MemoryEvent::Changed(tag)) => {
                        if let Some(index) = find(&tag) {
                            self.see(&watched, index, &sender).await;
                        }
                    }
                    Ok(MemoryEvent::RefreshRequested { tag, generation, why, done }) => {
                        if let Some(index) = find(&tag).filter(|index| watched[*index].renews)
                            && let Some(done) = done.lock().take()
                        {
                            let _ = sender.try_send(ClusterEvent::RefreshRequested { index, generation, why, done });
                        }
                    }
                    Err(broadcast::error::RecvError::Lagged(_)) => all = true,
                    Err(broadcast::error::RecvError::Closed) => return,
                }
            }
        })
    }
}
