//! The runner of a sink: writes what changes, checks what is there, writes again, retries.
//!
//! One task for each sink. It knows no type of sink: a [`SinkBackend`] writes. Never waits for more than one answer of a
//! store at a time for one credential, and never writes an older value over a newer one.

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use futures_util::future::{BoxFuture, FutureExt, OptionFuture};
use futures_util::stream::{self, BoxStream, FuturesUnordered, SelectAll, StreamExt};
use tokio::sync::{AcquireError, Semaphore, SemaphorePermit, watch};
use tokio::time::{Instant, Interval, MissedTickBehavior, sleep_until};
use tokio_util::sync::CancellationToken;
use tracing::{debug, info, warn};

use super::backend::{Contents, CredentialWrite, Retraction, SinkBackend, WritePermit};
use super::item::{FoundContent, SinkItem};
use super::options::{Options, SinkEntry};
use super::queue::{Task, WriteQueue};
use crate::clock::{BootMs, Now, RepeatThrottle, boot_ms, nonzero, unix_ms};
use crate::credential::table::{Credential, Table, log_credential};
use crate::stats::{SinkError, SinkStats, SinkWrite};
use crate::store_fault::{StoreFault, StoreFaultScope};

/// How many credentials are written at once.
const AT_ONCE: usize = 32;
/// How many credentials one check reads; the next check goes on after them.
const CHECKS: usize = 32;
/// How many failed credentials are tried again at once.
const RETRIES: usize = 32;
/// How many unchanged credentials are written again in a second, at most.
const REWRITES_PER_S: u64 = 50;
const BACKOFF_MIN: Duration = Duration::from_millis(200);
const BACKOFF_MAX: Duration = Duration::from_secs(30);
/// The backoff while this process has no file descriptor left, which passes.
const BACKOFF_WITHOUT_DESCRIPTOR: Duration = Duration::from_secs(2);
/// How long the last changes may take when the server stops.
pub(super) const LAST_WRITES: Duration = Duration::from_secs(1);
const LOG_AGAIN_MS: u64 = 60_000;

pub struct SinkRunner {
    pub(super) options: Options,
    pub(super) backend: Arc<dyn SinkBackend>,
    table: Arc<Table>,
    pub(super) items: Vec<SinkItem>,
    stats: Arc<SinkStats>,
    queue: WriteQueue,
    /// The written values, by when each has to go.
    ends: BTreeSet<(BootMs, usize)>,
    /// The item that the next check begins with.
    check_from: usize,
    /// The item that is written again next.
    rewrite_next: usize,
    /// Items where the last check found an unknown value: in a cluster another node may be a moment ahead of us.
    suspects: BTreeSet<usize>,
    /// Items that have failed, and when they are tried again. The others go on.
    failed_items: Option<(Instant, BTreeSet<usize>)>,
    /// The item that the next retry begins with, and those being retried.
    retry_from: usize,
    retried: BTreeSet<usize>,
    /// The permit for the next job, if the backend has a limit.
    permit: Option<WritePermit>,
    is_begun: bool,
    backoff: Duration,
    /// By class, because each of many files may have another fault.
    throttle: RepeatThrottle<&'static str>,
}

/// The indices of items that have changed.
type Changes = SelectAll<BoxStream<'static, usize>>;

fn changes_of(items: &[SinkItem]) -> Changes {
    stream::select_all(items.iter().enumerate().map(|(index, item)| {
        let next = move |mut receiver: watch::Receiver<u64>| async move {
            receiver.changed().await.ok()?;
            Some((index, receiver))
        };
        stream::unfold(item.credential.subscribe(), next).boxed()
    }))
}

type RunningJobs = FuturesUnordered<BoxFuture<'static, (usize, Result<JobOutcome, StoreFault>)>>;

impl SinkRunner {
    pub(super) fn new(
        options: &Options,
        backend: Arc<dyn SinkBackend>,
        table: &Arc<Table>,
        stats: Arc<SinkStats>,
    ) -> SinkRunner {
        let mut of_credential: Vec<(Arc<Credential>, Vec<SinkEntry>)> = Vec::new();
        let mut known: HashMap<usize, usize> = HashMap::new();
        let names = table.names();
        for entry in &options.entries {
            let Some(name) = names.find(entry.managed_key().as_bytes()) else { continue };
            let index = *known.entry(name.credential.id).or_insert_with(|| {
                name.credential.record_distant_readers();
                of_credential.push((name.credential.clone(), Vec::new()));
                of_credential.len() - 1
            });
            of_credential[index].1.push(entry.clone());
        }
        SinkRunner {
            options: options.clone(),
            backend,
            table: table.clone(),
            items: of_credential.into_iter().map(|(credential, entries)| SinkItem::new(credential, entries)).collect(),
            stats,
            queue: WriteQueue::default(),
            ends: BTreeSet::new(),
            check_from: 0,
            rewrite_next: 0,
            suspects: BTreeSet::new(),
            failed_items: None,
            retry_from: 0,
            retried: BTreeSet::new(),
            permit: None,
            is_begun: false,
            backoff: Duration::ZERO,
            throttle: RepeatThrottle::default(),
        }
    }

    /// Keeps the store current until `end`.
    pub(super) async fn run(mut self, end: CancellationToken) {
        // Before the first write, so that no change is missed in between.
        let mut changes = changes_of(&self.items);
        while !end.is_cancelled() {
            let backend = self.backend.clone();
            let opened = tokio::select! {
                biased;
                () = end.cancelled() => return,
                opened = backend.open() => opened,
            };
            let mut under_way = RunningJobs::new();
            let fault = match opened {
                Ok(()) => match self.serve(&mut changes, &mut under_way, &end).await {
                    Some(fault) => fault,
                    None => return,
                },
                Err(fault) => fault,
            };
            self.stats.connected.store(false, Relaxed);
            self.record_failure(None, fault);
            self.count_waiting();
            self.drain(under_way, &end).await;
            tokio::select! {
                biased;
                () = end.cancelled() => return,
                () = tokio::time::sleep(self.next_backoff()) => {}
            }
        }
    }

    /// Writes what changes until the connection fails; `None` when the server stops.
    async fn serve(
        &mut self,
        changes: &mut Changes,
        under_way: &mut RunningJobs,
        end: &CancellationToken,
    ) -> Option<StoreFault> {
        self.begin();
        let mut check = every(Duration::from_millis(self.options.check_every_ms));
        let mut rewrite = self.rewrite_pace().map(every);
        loop {
            self.queue_changed(changes);
            self.start_jobs(under_way);
            self.count_waiting();
            if under_way.is_empty() {
                self.stats.connected.store(true, Relaxed);
                if self.failed_items.is_none() && !self.queue.has_next() {
                    self.record_success();
                }
            }
            let next_end = self.next_end();
            let next_try = self.failed_items.as_ref().map(|(at, _)| *at);
            tokio::select! {
                biased;
                () = end.cancelled() => {
                    self.queue_changed(changes);
                    let _ = tokio::time::timeout(LAST_WRITES, self.write_rest(under_way)).await;
                    return None;
                }
                Some(index) = changes.next() => self.queue.add_changed(index),
                Some((index, outcome)) = under_way.next(), if !under_way.is_empty() => {
                    if let Err(fault) = self.finish(index, outcome) {
                        return Some(fault);
                    }
                }
                Some(Ok(permit)) = next_permit(self.backend.limit()), if self.queue.has_next() => {
                    self.permit = Some(Arc::new(permit));
                }
                Some(()) = OptionFuture::from(next_end.map(sleep_until)) => self.queue_ended(),
                Some(()) = OptionFuture::from(next_try.map(sleep_until)) => self.retry(),
                // A node that is cut off from the cluster may have older values than the store.
                _ = check.tick(), if self.options.is_readable() && !self.is_cut_off() => self.queue_checks(),
                Some(_) = OptionFuture::from(rewrite.as_mut().map(Interval::tick)), if !self.is_cut_off() => {
                    self.queue.add_stale(self.rewrite_next);
                    self.rewrite_next = (self.rewrite_next + 1) % self.items.len().max(1);
                }
            }
        }
    }

    fn queue_changed(&mut self, changes: &mut Changes) {
        while let Some(Some(index)) = changes.next().now_or_never() {
            self.queue.add_changed(index);
        }
    }

    /// Writes everything at first, and again if the store may have lost it: it may have been restarted, flushed or replaced.
    fn begin(&mut self) {
        self.permit = None;
        if !self.is_begun || self.backend.may_have_lost() {
            self.queue = WriteQueue::default();
            self.queue.add_all_stale(self.items.len());
            self.failed_items = None;
        } else {
            self.queue.requeue_under_way();
            if let Some((at, _)) = &mut self.failed_items {
                *at = Instant::now();
            }
        }
        self.is_begun = true;
    }

    /// After a fault, jobs under way are dropped with the connection. A backend without a connection finishes them, so that
    /// nothing is done twice.
    async fn drain(&mut self, mut under_way: RunningJobs, end: &CancellationToken) {
        while !self.backend.may_have_lost() {
            tokio::select! {
                biased;
                () = end.cancelled() => return,
                done = under_way.next() => match done {
                    // Its fault is like the first one.
                    Some((index, outcome)) => drop(self.finish(index, outcome)),
                    None => return,
                },
            }
        }
    }

    fn count_waiting(&self) {
        let postponed = self.failed_items.as_ref().map_or(0, |(_, waiting)| waiting.len());
        // Before it was first opened, nothing is written.
        let waiting = if self.is_begun { self.queue.waiting() + postponed } else { self.items.len() };
        self.stats.waiting.store(waiting as u64, Relaxed);
    }

    /// Writes the changes that are left when the server stops.
    async fn write_rest(&mut self, under_way: &mut RunningJobs) {
        self.queue.drop_checks();
        loop {
            self.start_jobs(under_way);
            tokio::select! {
                Some((index, outcome)) = under_way.next(), if !under_way.is_empty() => {
                    if self.finish(index, outcome).is_err() {
                        return;
                    }
                }
                Some(Ok(permit)) = next_permit(self.backend.limit()), if self.queue.has_next() => {
                    self.permit = Some(Arc::new(permit));
                }
                else => return,
            }
        }
    }

    fn start_jobs(&mut self, under_way: &mut RunningJobs) {
        while under_way.len() < AT_ONCE {
            let permit = self.permit.take();
            if self.backend.limit().is_some() && permit.is_none() {
                return;
            }
            let Some((index, task)) = self.queue.take() else { return };
            match self.job(index, task, permit) {
                Ok(Some(job)) => under_way.push(job.run(index, self.backend.clone()).boxed()),
                Ok(None) => self.queue.finish(index),
                Err(fault) => {
                    self.queue.finish(index);
                    self.postpone_retry(index, fault);
                }
            }
        }
    }

    /// What is to be done; none for a check of what was never written.
    fn job(&mut self, index: usize, task: Task, permit: Option<WritePermit>) -> Result<Option<Job>, StoreFault> {
        let now = Now::read();
        let Some(item) = self.items.get_mut(index) else { return Ok(None) };
        let entries = item.entries.clone();
        if task == Task::Check {
            return Ok(item.is_written().then_some(Job::Check(entries)));
        }
        if let Some(end_ms) = item.end_ms.take() {
            self.ends.remove(&(end_ms, index));
        }
        let Some((current, until_ms)) = item.value_to_write(self.options.margin_ms(), now, self.options.at_least_s())
        else {
            return Ok(Some(Job::Retract(item.retraction(now))));
        };
        // It may be written though the write is given up: a disk may go on after a while.
        item.record_try(current.value.clone());
        item.end_ms = Some(until_ms);
        self.ends.insert((until_ms, index));
        let contents = entries.iter().map(|entry| self.backend.content(entry, &current)).collect::<Result<_, _>>()?;
        Ok(Some(Job::Write(CredentialWrite { permit, entries, contents, current })))
    }

    /// Records the end of a job. An error means that the connection failed.
    fn finish(&mut self, index: usize, outcome: Result<JobOutcome, StoreFault>) -> Result<(), StoreFault> {
        self.queue.finish(index);
        match outcome {
            Ok(outcome) => self.record_outcome(index, outcome),
            Err(fault) if fault.is_about_the_connection() => {
                self.queue.add_changed(index);
                return Err(fault);
            }
            // After a failed check too: only a write tells whether the entry can still be written.
            Err(fault) => self.postpone_retry(index, fault),
        }
        Ok(())
    }

    fn postpone_retry(&mut self, index: usize, fault: StoreFault) {
        self.record_failure(Some(index), fault);
        if self.failed_items.is_none() {
            self.failed_items = Some((Instant::now() + self.next_backoff(), BTreeSet::new()));
        }
        if let Some((_, waiting)) = &mut self.failed_items {
            waiting.insert(index);
        }
    }

    /// Retries some of the failed items, others the next time. When all fail, a few are enough to see that they succeed again.
    fn retry(&mut self) {
        let Some((_, mut waiting)) = self.failed_items.take() else { return };
        self.retried.clear();
        while self.retried.len() < RETRIES {
            let next = waiting.range(self.retry_from..).next().or(waiting.first()).copied();
            let Some(index) = next else { return };
            waiting.remove(&index);
            self.retried.insert(index);
            self.queue.add_stale(index);
            self.retry_from = index + 1;
        }
        if !waiting.is_empty() {
            self.failed_items = Some((Instant::now() + self.next_backoff(), waiting));
        }
    }

    /// After a retry that succeeded, the other failed items need not wait any longer.
    fn hasten_retry(&mut self, index: usize) {
        if self.retried.remove(&index)
            && let Some((at, _)) = &mut self.failed_items
        {
            *at = Instant::now();
        }
    }

    fn record_outcome(&mut self, index: usize, outcome: JobOutcome) {
        let Some(item) = self.items.get_mut(index) else { return };
        match outcome {
            JobOutcome::Written { contents, before } => {
                if let Some(entry) = item.entries.first() {
                    self.stats.record_write(sink_write(entry), contents.len() as u64);
                }
                let found = item.judge_all(&before);
                item.record_written(contents);
                self.hasten_retry(index);
                self.report_foreign(index, &found);
            }
            JobOutcome::Retracted(count) => {
                self.stats.deletes.fetch_add(count, Relaxed);
                item.record_retracted();
            }
            JobOutcome::Checked(Some(found)) if item.is_written() => {
                let found = item.judge_all(&found);
                self.judge_found(index, &found);
            }
            JobOutcome::Checked(_) => {}
        }
    }

    /// Reports a foreign writer if another token had replaced ours.
    fn report_foreign(&self, index: usize, found: &[FoundContent]) {
        let Some(item) = self.items.get(index) else { return };
        let key = |of: FoundContent| found.iter().position(|found| *found == of).and_then(|at| item.entries.get(at));
        let sink = &self.options;
        if let Some(key) = key(FoundContent::ForeignToken) {
            self.stats.foreign_writes.fetch_add(1, Relaxed);
            self.table.report_foreign_writer(&item.credential);
            if item.foreign_throttle.allow(boot_ms(), LOG_AGAIN_MS) {
                log_credential!(
                    warn,
                    item.credential,
                    %sink,
                    key = key.redacted_name(),
                    rivals = self.stats.foreign_writes.load(Relaxed),
                    "a foreign writer has replaced our token: another program still fetches for this app; stop it, or its \
                     fetches may end this server's token"
                );
            }
        } else if let Some(key) = key(FoundContent::Other) {
            log_credential!(info, item.credential, %sink, key = key.redacted_name(), "replaced a value that this server did not write");
        }
    }

    /// Checks some of the items, others the next time.
    fn queue_checks(&mut self) {
        let count = self.items.len();
        for step in 0..count.min(CHECKS) {
            self.queue.add_check((self.check_from + step) % count);
        }
        self.check_from = (self.check_from + CHECKS) % count.max(1);
    }

    /// Writes again what is missing or was replaced.
    fn judge_found(&mut self, index: usize, found: &[FoundContent]) {
        if found.iter().any(|found| matches!(found, FoundContent::ForeignToken | FoundContent::Other)) {
            let is_first = self.suspects.insert(index);
            // The write judges it again, and reports it.
            if !is_first || self.table.cluster.node().is_none() {
                self.queue.add_changed(index);
            }
        } else {
            self.suspects.remove(&index);
        }
        if found.contains(&FoundContent::Absent) {
            self.queue.add_changed(index);
            if self.backend.loses_all_at_once() {
                debug!(sink = %self.options, "entries are missing; writing all of them again");
                self.queue.add_all_stale(self.items.len());
            }
        }
    }

    /// The time between two unchanged items that are written again; none: never.
    fn rewrite_pace(&self) -> Option<Duration> {
        let entries: usize = self.items.iter().map(|item| item.entries.len()).sum();
        let (items, entries) = (self.items.len() as u64, entries as u64);
        if items == 0 || self.options.rewrite_every_ms == 0 {
            return None;
        }
        let round_us = (self.options.rewrite_every_ms * 1000).max(entries * 1_000_000 / REWRITES_PER_S);
        Some(Duration::from_micros((round_us / items).max(1)))
    }

    /// True for a node of a cluster that does not reach its cluster store.
    fn is_cut_off(&self) -> bool {
        self.table.cluster.node().is_some() && self.table.cluster.is_up() != Some(true)
    }

    /// When the next written value has to go, on the runtime's clock.
    fn next_end(&self) -> Option<Instant> {
        let (end_ms, _) = self.ends.first()?;
        Some(Instant::now() + Duration::from_millis(end_ms.saturating_sub(boot_ms())))
    }

    fn queue_ended(&mut self) {
        let now_ms = boot_ms();
        while let Some((_, index)) = self.ends.first().copied().filter(|(end_ms, _)| *end_ms <= now_ms) {
            self.ends.pop_first();
            self.queue.add_changed(index);
        }
    }

    fn next_backoff(&mut self) -> Duration {
        self.backoff = (self.backoff * 2).clamp(BACKOFF_MIN, BACKOFF_MAX);
        // Never zero, or a store that refuses would be asked without a pause.
        self.backoff.mul_f64(fastrand::f64().mul_add(0.5, 0.5))
    }

    fn record_success(&mut self) {
        self.backoff = Duration::ZERO;
        self.stats.recent().last_error = None;
        if let Some((after, unsaid)) = self.throttle.end() {
            info!(sink = %self.options, after, suppressed = nonzero(unsaid), "sink recovered");
        }
    }

    fn record_failure(&mut self, index: Option<usize>, fault: StoreFault) {
        let entry = index.and_then(|index| self.items.get(index)?.entries.first());
        let (about, responsible) = (entry.map(SinkEntry::managed_key), fault.responsible());
        self.stats.record_failure(SinkError {
            class: fault.class,
            responsible,
            what: fault.what.clone(),
            advice: fault.advice.clone(),
            about: about.clone(),
            at_unix_ms: unix_ms(),
        });
        if fault.scope == StoreFaultScope::Descriptors {
            self.backoff = self.backoff.min(BACKOFF_WITHOUT_DESCRIPTOR / 2);
        }
        if let Some(unsaid) = self.throttle.allow(fault.class, boot_ms(), LOG_AGAIN_MS) {
            warn!(
                sink = %self.options,
                about,
                class = fault.class,
                whose = responsible,
                suppressed = nonzero(unsaid),
                advice = &*fault.advice,
                "writing to the sink failed: {fault}"
            );
        }
    }
}

enum Job {
    Write(CredentialWrite),
    Retract(Retraction),
    Check(Arc<[SinkEntry]>),
}

enum JobOutcome {
    /// With what was at each entry before.
    Written { contents: Vec<Vec<u8>>, before: Contents },
    /// With how many entries were retracted.
    Retracted(u64),
    /// With what is at each entry, if the backend can read.
    Checked(Option<Contents>),
}

impl Job {
    async fn run(self, index: usize, backend: Arc<dyn SinkBackend>) -> (usize, Result<JobOutcome, StoreFault>) {
        let outcome = match self {
            Job::Write(write) => match backend.write(&write).await {
                Ok(before) => Ok(JobOutcome::Written { contents: write.contents, before }),
                Err(fault) => Err(fault),
            },
            Job::Retract(retract) => backend.retract(&retract).await.map(JobOutcome::Retracted),
            Job::Check(entries) => backend.read(&entries).await.map(JobOutcome::Checked),
        };
        (index, outcome)
    }
}

fn every(period: Duration) -> Interval {
    let mut interval = tokio::time::interval_at(Instant::now() + period, period);
    interval.set_missed_tick_behavior(MissedTickBehavior::Delay);
    interval
}

fn sink_write(entry: &SinkEntry) -> SinkWrite {
    SinkWrite {
        app: entry.app.clone(),
        credential_type: entry.of.word(),
        entry: entry.redacted_name().to_owned(),
        at_unix_ms: unix_ms(),
    }
}

fn next_permit(
    limit: Option<&'static Semaphore>,
) -> OptionFuture<impl Future<Output = Result<SemaphorePermit<'static>, AcquireError>>> {
    limit.map(Semaphore::acquire).into()
}

#[cfg(test)]
mod tests;
