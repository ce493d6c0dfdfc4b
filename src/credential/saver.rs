//! Writes the state in the background: the newest picture wins, a slow disk delays nobody but itself.
//!
//! A failed write is reported once, tried again with backoff, and its end reported too.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use parking_lot::Mutex;
use tokio::sync::{Notify, watch};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use super::grants::Grants;
use super::ledger::Ledger;
use super::state::{Entry, KeptLedger, Snapshot, Store};
use super::table::Table;
use crate::clock::Clock;

/// The refresher's end: what is to be written, and whether it has been.
#[derive(Clone)]
pub struct Saver {
    store: Arc<dyn Store>,
    /// Shared with the pictures taken of them: a picture is taken at each change, of all of them.
    entries: Arc<Mutex<Vec<Option<Arc<Entry>>>>>,
    ledgers: Arc<Mutex<Vec<Arc<KeptLedger>>>>,
    grants: Arc<Grants>,
    /// Calls have been counted since the last write.
    counted: Arc<AtomicBool>,
    counts_every: Duration,
    /// Counts what was asked for and what has reached the store.
    wanted: watch::Sender<u64>,
    saved: watch::Sender<u64>,
    /// Somebody waits for everything to be written: no pause now.
    hurry: Arc<Notify>,
    clock: Arc<dyn Clock>,
    boot_id: Arc<str>,
}

/// Counts go to the disk with the next change, and so often without one: what a crash may make us forget.
const COUNTS_EVERY: Duration = Duration::from_secs(60);
/// Writing takes at most a twentieth of the time.
const PAUSES_PER_WRITE: u32 = 19;
const PAUSE_MAX: Duration = Duration::from_secs(5);
const BACKOFF_MAX: Duration = Duration::from_secs(60);

impl Saver {
    /// `entries` and `ledgers` as loaded, by credential id.
    pub fn new(
        store: Arc<dyn Store>,
        entries: Vec<Option<Entry>>,
        ledgers: Vec<KeptLedger>,
        clock: Arc<dyn Clock>,
        boot_id: &str,
    ) -> Saver {
        let entries = entries.into_iter().map(|entry| entry.map(Arc::new)).collect();
        let ledgers = ledgers.into_iter().map(Arc::new).collect();
        let grants = Arc::default();
        Saver {
            store,
            clock,
            entries: Arc::new(Mutex::new(entries)),
            ledgers: Arc::new(Mutex::new(ledgers)),
            grants,
            counted: Arc::new(AtomicBool::new(false)),
            counts_every: COUNTS_EVERY,
            wanted: watch::Sender::new(0),
            saved: watch::Sender::new(0),
            hurry: Arc::new(Notify::new()),
            boot_id: boot_id.into(),
        }
    }

    /// Writes these too.
    pub fn with_grants(self, grants: Arc<Grants>) -> Saver {
        Saver { grants, ..self }
    }

    /// Asks for a write without the pause between two writes: something must not be lost. Returns what to
    /// [`Saver::wait`] for.
    pub fn at_once(&self) -> u64 {
        let version = self.want();
        self.hurry.notify_one();
        version
    }

    /// Asks for a write when its turn has come; the count of what was asked for.
    fn want(&self) -> u64 {
        let mut version = 0;
        self.wanted.send_modify(|wanted| {
            *wanted += 1;
            version = *wanted;
        });
        version
    }

    /// Changes an entry and asks for it to be written. Returns what to [`Saver::wait`] for.
    pub fn change(&self, id: usize, change: impl FnOnce(&mut Option<Entry>)) -> u64 {
        if let Some(kept) = self.entries.lock().get_mut(id) {
            let mut entry = kept.take().map(Arc::unwrap_or_clone);
            change(&mut entry);
            *kept = entry.map(Arc::new);
        }
        self.want()
    }

    /// Takes note of counted calls; they are written with the next change, after a minute, or at the end.
    pub fn count(&self, id: usize, calls: &Ledger) {
        if let Some(kept) = self.ledgers.lock().get_mut(id) {
            Arc::make_mut(kept).calls.clone_from(calls);
        }
        self.counted.store(true, Ordering::Release);
    }

    fn ask_for_counts(&self) {
        if self.counted.load(Ordering::Acquire) {
            self.want();
        }
    }

    /// Waits until that change is in the store, but no longer than `at_most`. True if it is.
    pub async fn wait(&self, version: u64, at_most: Duration) -> bool {
        let mut saved = self.saved.subscribe();
        tokio::time::timeout(at_most, saved.wait_for(|saved| *saved >= version)).await.is_ok_and(|seen| seen.is_ok())
    }

    /// Waits until everything asked for is in the store.
    pub async fn flush(&self, at_most: Duration) -> bool {
        self.ask_for_counts();
        let version = *self.wanted.borrow();
        self.hurry.notify_one();
        self.wait(version, at_most).await
    }

    /// Writes whenever something was asked for, until `end`.
    pub async fn run(self, table: Arc<Table>, end: CancellationToken) {
        let mut wanted = self.wanted.subscribe();
        let mut backoff = Duration::ZERO;
        let mut counts = tokio::time::interval(self.counts_every);
        loop {
            let saved = *self.saved.borrow();
            tokio::select! {
                biased;
                () = end.cancelled() => return,
                _ = counts.tick() => {
                    self.ask_for_counts();
                    continue;
                }
                changed = wanted.wait_for(|wanted| *wanted > saved) => if changed.is_err() { return },
            }
            let version = *wanted.borrow_and_update();
            let begun = Instant::now();
            match self.write().await {
                Ok(()) => {
                    if !table.state_saved.swap(true, Ordering::Relaxed) {
                        info!("the state can be written again");
                    }
                    backoff = Duration::ZERO;
                    self.saved.send_replace(version);
                    // The whole file is written each time: with ten thousand apps that takes a while, and something
                    // changes every few milliseconds.
                    let pause = (begun.elapsed() * PAUSES_PER_WRITE).min(PAUSE_MAX);
                    tokio::select! {
                        biased;
                        () = end.cancelled() => {}
                        () = self.hurry.notified() => {}
                        () = tokio::time::sleep(pause) => {}
                    }
                    continue;
                }
                Err(reason) => {
                    table.state_failures.fetch_add(1, Ordering::Relaxed);
                    if table.state_saved.swap(false, Ordering::Relaxed) {
                        warn!(reason, "the state cannot be written; running from memory, a restart would fetch anew");
                    }
                }
            }
            backoff = (backoff * 2).clamp(Duration::from_secs(1), BACKOFF_MAX);
            tokio::select! {
                biased;
                () = end.cancelled() => return,
                () = tokio::time::sleep(backoff) => {}
            }
        }
    }

    async fn write(&self) -> Result<(), String> {
        self.counted.store(false, Ordering::Release);
        let (store, snapshot) = (self.store.clone(), self.snapshot());
        if !store.blocks() {
            return store.save(&snapshot).map_err(|error| error.to_string());
        }
        let written = tokio::task::spawn_blocking(move || store.save(&snapshot)).await;
        match written {
            Ok(result) => result.map_err(|error| error.to_string()),
            Err(_) => Err("the writer panicked".to_owned()),
        }
    }

    fn snapshot(&self) -> Snapshot {
        let entries = self.entries.lock().iter().flatten().cloned().collect();
        let none = Ledger::default();
        let ledgers = self.ledgers.lock().iter().filter(|kept| kept.calls != none).cloned().collect();
        let now = self.clock.now();
        let boot_id = self.boot_id.to_string();
        let grants = self.grants.kept(now.unix_ms);
        Snapshot { written_unix_ms: now.unix_ms, written_boot_ms: now.boot_ms, boot_id, entries, ledgers, grants }
    }
}

#[cfg(test)]
mod tests {
    use super::super::state::{Loaded, Name};
    use super::*;
    use crate::kind::{Quota, mp};

    /// Remembers what was saved.
    #[derive(Default)]
    struct Memory(Mutex<Option<Snapshot>>);

    impl Store for Memory {
        fn load(&self) -> Loaded {
            Loaded::Empty
        }

        fn save(&self, snapshot: &Snapshot) -> std::io::Result<()> {
            *self.0.lock() = Some(snapshot.clone());
            Ok(())
        }
    }

    #[tokio::test]
    async fn counts_alone_are_written_when_their_time_has_come() {
        let store = Arc::new(Memory::default());
        let ledgers = vec![KeptLedger { name: Name::of(&mp::STABLE, "wx1", "http://a"), calls: Ledger::default() }];
        let saver = Saver::new(store.clone(), vec![None], ledgers, Arc::new(crate::clock::System), "b1");
        let saver = Saver { counts_every: Duration::from_millis(1), ..saver };
        let (table, _reports) = Table::new([("wx1", vec![])]);
        let end = CancellationToken::new();
        let running = tokio::spawn(saver.clone().run(Arc::new(table), end.clone()));
        let mut calls = Ledger::default();
        calls.may_call(&Quota::NONE, 0, super::super::ledger::Use::Renewal).unwrap();
        saver.count(0, &calls);
        assert!(saver.wait(1, Duration::from_secs(30)).await);
        assert_eq!(store.0.lock().as_ref().unwrap().ledgers[0].calls, calls);
        end.cancel();
        running.await.unwrap();
    }
}
