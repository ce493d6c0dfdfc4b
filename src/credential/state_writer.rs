//! Writes the state file in the background. Each write has the newest state; a slow disk delays nothing else.
//!
//! A failed write is logged once and tried again with backoff; the first success after it is logged too. A caller that
//! must not lose something can shorten the backoff; the end of the process ends it. While another process has the state
//! file nothing is written; it is taken over when that process has ended. Never blocks the refresher.

use std::collections::{BTreeMap, HashMap, HashSet, btree_map};
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use parking_lot::Mutex;
use tokio::sync::{Notify, watch};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use super::grants::Grants;
use super::quota_usage::QuotaUsage;
use super::state::{CredentialIdentity, Snapshot, StateEntry, StateStore, StoredUsage};
use super::table::Table;
use crate::clock::Clock;
use crate::descriptors;

/// What is to be written, and whether it was. Cloned by all who write.
#[derive(Clone)]
pub struct StateWriter {
    store: Arc<dyn StateStore>,
    /// By credential id. In `Arc`s, because a snapshot of all entries is taken for each write.
    entries: Arc<Mutex<BTreeMap<usize, Arc<StateEntry>>>>,
    usages: Arc<Mutex<Usages>>,
    grants: Arc<Grants>,
    /// Calls were counted since the last write.
    counted: Arc<AtomicBool>,
    /// What another process had counted until the store became ours. The refresher takes it over.
    usage_elsewhere: Arc<Mutex<HashMap<usize, QuotaUsage>>>,
    /// The number of writes that were requested.
    wanted: watch::Sender<u64>,
    progress: watch::Sender<Progress>,
    /// Tells the writer to leave out the pause.
    hurry: Arc<Notify>,
    /// The process ends: what is not written soon is lost.
    ending: Arc<AtomicBool>,
    clock: Arc<dyn Clock>,
    boot_id: Arc<str>,
}

/// What was counted, once for each name: a credential that is removed and added again goes on with its count.
#[derive(Default)]
struct Usages {
    /// By place, in the order in which they came.
    counted: BTreeMap<usize, Arc<StoredUsage>>,
    /// The place of each name.
    places: HashMap<CredentialIdentity, usize>,
    /// The same by credential id.
    ids: HashMap<usize, usize>,
    next_place: usize,
}

impl Usages {
    /// Adds a credential. Returns what was counted under its name before.
    fn add(&mut self, id: usize, name: CredentialIdentity) -> &mut StoredUsage {
        let at = *self.places.entry(name.clone()).or_insert(self.next_place);
        self.next_place = self.next_place.max(at + 1);
        self.ids.insert(id, at);
        let none = || Arc::new(StoredUsage { name, calls: QuotaUsage::default() });
        Arc::make_mut(self.counted.entry(at).or_insert_with(none))
    }

    fn get_mut(&mut self, id: usize) -> Option<&mut StoredUsage> {
        self.counted.get_mut(self.ids.get(&id)?).map(Arc::make_mut)
    }

    /// Forgets what was counted of removed credentials on earlier days. Yesterday's counts, in case the clock is set back.
    fn forget_past(&mut self, now_unix_ms: i64) {
        let used: HashSet<usize> = self.ids.values().copied().collect();
        self.counted.retain(|at, kept| {
            let stays = used.contains(at) || now_unix_ms < kept.calls.day_ends_unix_ms().saturating_add(DAY_MS);
            if !stays {
                self.places.remove(&kept.name);
            }
            stays
        });
    }
}

/// How far the writer is.
#[derive(Clone, Copy, Default)]
struct Progress {
    /// As [`StateWriter::wanted`] counts.
    saved: u64,
    tries: u64,
    failing: bool,
    /// Another process has the store.
    elsewhere: bool,
}

const DAY_MS: i64 = 86_400_000;
/// Counts are written with the next change, and this often without one. A crash can lose as much.
const COUNTS_EVERY: Duration = Duration::from_secs(60);
/// Writing takes at most 1/20 of the time.
const PAUSES_PER_WRITE: u32 = 19;
const PAUSE_MAX: Duration = Duration::from_secs(5);
/// Between two tries on a disk that fails: the least, and the most.
const BACKOFF_MIN: Duration = Duration::from_secs(1);
const BACKOFF_MAX: Duration = Duration::from_secs(60);
/// The most while this process has no free file descriptor, which passes and is no fault of the disk.
const BACKOFF_WITHOUT_DESCRIPTOR: Duration = Duration::from_secs(5);
/// Between two tries while the process ends: the disk may work again in a moment.
const BACKOFF_AT_THE_END: Duration = Duration::from_millis(250);
/// How often to try whether another process has released the store.
const ELSEWHERE_WAIT: Duration = Duration::from_secs(1);

impl StateWriter {
    /// `entries` and `usages` as loaded, by credential id.
    pub fn new(
        store: Arc<dyn StateStore>,
        entries: Vec<Option<StateEntry>>,
        usages: Vec<StoredUsage>,
        clock: Arc<dyn Clock>,
        boot_id: &str,
    ) -> StateWriter {
        let entries = entries.into_iter().enumerate().filter_map(|(id, entry)| Some((id, Arc::new(entry?)))).collect();
        let mut by_name = Usages::default();
        for (id, StoredUsage { name, calls }) in usages.into_iter().enumerate() {
            by_name.add(id, name).calls = calls;
        }
        StateWriter {
            store,
            clock,
            entries: Arc::new(Mutex::new(entries)),
            usages: Arc::new(Mutex::new(by_name)),
            grants: Arc::default(),
            counted: Arc::default(),
            usage_elsewhere: Arc::default(),
            wanted: watch::Sender::new(0),
            progress: watch::Sender::new(Progress::default()),
            hurry: Arc::default(),
            ending: Arc::default(),
            boot_id: boot_id.into(),
        }
    }

    pub fn with_grants(self, grants: Arc<Grants>) -> StateWriter {
        StateWriter { grants, ..self }
    }

    /// Requests a write without the pause between two writes, for something that must not be lost. A disk that fails is
    /// tried a second after the last try, however long the backoff is. Returns what to
    /// [`StateWriter::wait_until_saved`] for.
    pub fn request_write_now(&self) -> u64 {
        let version = self.request_write();
        self.hurry.notify_one();
        version
    }

    pub fn is_failing(&self) -> bool {
        self.progress.borrow().failing
    }

    /// Requests a write. Returns the number of the request.
    pub fn request_write(&self) -> u64 {
        let mut version = 0;
        self.wanted.send_modify(|wanted| {
            *wanted += 1;
            version = *wanted;
        });
        version
    }

    /// Adds a credential. Returns what was counted of it before, if it was there already and was removed.
    pub fn add(&self, id: usize, name: CredentialIdentity) -> QuotaUsage {
        self.usages.lock().add(id, name).calls.clone()
    }

    /// Removes the value of a credential. What was counted today stays: the platform has counted it too.
    pub fn remove(&self, id: usize) {
        self.usages.lock().ids.remove(&id);
        self.usage_elsewhere.lock().remove(&id);
        self.update_entry(id, |entry| *entry = None);
    }

    /// Changes an entry and requests a write. Returns what to [`StateWriter::wait_until_saved`] for.
    pub fn update_entry(&self, id: usize, change: impl FnOnce(&mut Option<StateEntry>)) -> u64 {
        let mut entries = self.entries.lock();
        let mut entry = entries.remove(&id).map(Arc::unwrap_or_clone);
        change(&mut entry);
        entries.extend(entry.map(|entry| (id, Arc::new(entry))));
        drop(entries);
        self.request_write()
    }

    /// Records counted calls. They are written with the next change, after a minute, or at the end.
    pub fn record_usage(&self, id: usize, calls: &QuotaUsage) {
        if let Some(kept) = self.usages.lock().get_mut(id) {
            kept.calls.clone_from(calls);
            if let Some(elsewhere) = self.usage_elsewhere.lock().get(&id) {
                kept.calls.merge(elsewhere);
            }
        }
        self.counted.store(true, Ordering::Release);
    }

    /// Takes what another process has counted; only once.
    pub fn take_usage_elsewhere(&self, id: usize) -> Option<QuotaUsage> {
        self.usage_elsewhere.lock().remove(&id)
    }

    fn ask_for_counts(&self) {
        if self.counted.load(Ordering::Acquire) {
            self.request_write();
        }
    }

    /// Waits until that request is written, `at_most` this long. True if it is.
    pub async fn wait_until_saved(&self, version: u64, at_most: Duration) -> bool {
        self.wait_for(at_most, |progress| progress.saved >= version).await
    }

    async fn wait_for(&self, at_most: Duration, enough: impl FnMut(&Progress) -> bool) -> bool {
        let mut progress = self.progress.subscribe();
        tokio::time::timeout(at_most, progress.wait_for(enough)).await.is_ok_and(|seen| seen.is_ok())
    }

    /// At the end of the process: waits until everything is written. A disk that fails is tried again and again until
    /// then. If another process has the store, it does not wait. True if everything is written.
    pub async fn flush(&self, at_most: Duration) -> bool {
        self.ask_for_counts();
        let (version, tries) = (*self.wanted.borrow(), self.progress.borrow().tries);
        self.ending.store(true, Ordering::Release);
        self.hurry.notify_one();
        self.wait_for(at_most, |now| now.saved >= version || (now.elsewhere && now.tries > tries)).await;
        self.progress.borrow().saved >= version
    }

    /// Writes after each request, until `end`. A write that hangs is then abandoned.
    pub async fn run(self, table: Arc<Table>, end: CancellationToken) {
        end.run_until_cancelled(self.write_on_request(&table)).await;
    }

    async fn write_on_request(&self, table: &Table) {
        let mut wanted = self.wanted.subscribe();
        let mut backoff = Duration::ZERO;
        let mut counts = tokio::time::interval(COUNTS_EVERY);
        loop {
            let saved = self.progress.borrow().saved;
            tokio::select! {
                biased;
                _ = counts.tick() => {
                    self.ask_for_counts();
                    continue;
                }
                changed = wanted.wait_for(|wanted| *wanted > saved) => if changed.is_err() { return },
            }
            let version = *wanted.borrow_and_update();
            let begun = Instant::now();
            let written = self.write().await;
            let longest = match &written {
                Err(error) if descriptors::is_exhausted(error) => BACKOFF_WITHOUT_DESCRIPTOR,
                _ => BACKOFF_MAX,
            };
            match self.record_write(written, version, table) {
                Ok(()) => {
                    backoff = Duration::ZERO;
                    self.pause(begun.elapsed()).await;
                }
                Err(io::ErrorKind::WouldBlock) => self.back_off(ELSEWHERE_WAIT).await,
                Err(_) => {
                    backoff = (backoff * 2).clamp(BACKOFF_MIN, longest);
                    self.back_off(backoff).await;
                }
            }
        }
    }

    fn record_write(&self, written: io::Result<()>, version: u64, table: &Table) -> Result<(), io::ErrorKind> {
        let failed = written.as_ref().err().map(io::Error::kind);
        let (failing, elsewhere) = (failed.is_some(), failed == Some(io::ErrorKind::WouldBlock));
        self.progress.send_modify(|before| {
            let saved = if failing { before.saved } else { version };
            *before = Progress { saved, tries: before.tries + 1, failing, elsewhere };
        });
        let was_saved = table.state_saved.swap(!failing, Ordering::Relaxed);
        table.state_failures.fetch_add(u64::from(failing && !elsewhere), Ordering::Relaxed);
        match written {
            Ok(()) if !was_saved => info!("the state file can be written again"),
            Err(reason) if was_saved => {
                let advice = descriptors::is_exhausted(&reason).then_some(descriptors::REMEDY);
                warn!(error = %reason, advice, "the state file cannot be written; running from memory, and a restart would fetch all tokens");
            }
            _ => {}
        }
        failed.map_or(Ok(()), Err)
    }

    /// Pauses after a write. The whole file is written each time: with ten thousand apps that takes a while, and
    /// something changes every few milliseconds.
    async fn pause(&self, took: Duration) {
        // Whether it was the hurry or the time that ended it does not matter.
        let _ = tokio::time::timeout((took * PAUSES_PER_WRITE).min(PAUSE_MAX), self.hurry.notified()).await;
    }

    /// Waits before the next try; shorter if somebody waits for the write, but not too short for a disk that fails.
    async fn back_off(&self, wait: Duration) {
        let is_ending = || self.ending.load(Ordering::Acquire);
        let tried = Instant::now();
        let mut until = tried + if is_ending() { BACKOFF_AT_THE_END } else { wait };
        while tokio::time::timeout_at(until, self.hurry.notified()).await.is_ok() {
            if is_ending() {
                return;
            }
            until = until.min(tried + BACKOFF_MIN);
        }
    }

    async fn write(&self) -> io::Result<()> {
        self.counted.store(false, Ordering::Release);
        if !self.store.blocks() {
            return self.write_here();
        }
        let state_writer = self.clone();
        let written = tokio::task::spawn_blocking(move || state_writer.write_here()).await;
        written.unwrap_or_else(|_| Err(io::Error::other("the writer panicked")))
    }

    /// Takes the snapshot after the claim, so that it has what another process left.
    fn write_here(&self) -> io::Result<()> {
        if let Some(found) = self.store.claim()? {
            self.take_over(&found);
        }
        self.store.save(&self.snapshot())
    }

    /// Another process has written the state until now. Our own values are later than its; of counts the larger number
    /// is taken.
    fn take_over(&self, found: &Snapshot) {
        self.grants.take_over(&found.grants);
        let theirs: HashMap<&CredentialIdentity, &StoredUsage> =
            found.usages.iter().map(|kept| (&kept.name, &**kept)).collect();
        let values = found.by_name();
        let now = self.clock.now();
        let mut entries = self.entries.lock();
        let mut usages = self.usages.lock();
        // Not of removed ones: their values would be written for ever.
        let ids: Vec<usize> = usages.ids.keys().copied().collect();
        for id in ids {
            let Some(kept) = usages.get_mut(id) else { continue };
            if let Some(theirs) = theirs.get(&kept.name) {
                kept.calls.merge(&theirs.calls);
                self.usage_elsewhere.lock().insert(id, theirs.calls.clone());
            }
            if let (btree_map::Entry::Vacant(entry), Some(theirs)) = (entries.entry(id), values.get(&kept.name)) {
                let worth = found.remaining_life(theirs, now, &self.boot_id);
                entry.insert(Arc::new(theirs.rebased(worth, now)));
            }
        }
    }

    fn snapshot(&self) -> Snapshot {
        let entries = self.entries.lock().values().cloned().collect();
        let none = QuotaUsage::default();
        let now = self.clock.now();
        let mut usages = self.usages.lock();
        usages.forget_past(now.unix_ms);
        let usages = usages.counted.values().filter(|kept| kept.calls != none).cloned().collect();
        let boot_id = self.boot_id.to_string();
        let grants = self.grants.to_save(now.unix_ms);
        Snapshot { written_unix_ms: now.unix_ms, written_boot_ms: now.boot_ms, boot_id, entries, usages, grants }
    }
}

#[cfg(test)]
mod tests;
