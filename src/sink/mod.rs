//! Sinks: what is kept current is written to a store of the site's own as well, for readers who look there.
//!
//! One task a sink, beside the refresher: the runner, which is the same for every type. `target` is what a type does, a
//! file each; `item` says what to write and judges what is found; `queue` says what is next. The table is only read; the
//! one thing a sink tells the refresher is that somebody else writes tokens. Nobody ever waits for a sink, and of
//! several changes only the latest is written. Never shows a value, a password or a key with a secret.

mod adopt_source;
mod backend;
mod command;
mod file;
pub mod file_presets;
mod item;
pub mod options;
mod queue;
#[cfg(feature = "redis")]
mod redis;
#[cfg(feature = "sql")]
mod sql;
pub mod sql_presets;
pub mod sql_statement;
pub mod template;

pub use self::adopt_source::source;
use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use futures_util::future::{BoxFuture, FutureExt};
use futures_util::stream::{FuturesUnordered, StreamExt};
use tokio::sync::{Semaphore, watch};
use tokio::task::JoinSet;
use tokio::time::{Instant, Interval, MissedTickBehavior};
use tokio_util::sync::CancellationToken;
use tracing::{debug, error, info, warn};

use self::backend::{Retraction, SinkBackend, SinkFault, SinkFaultScope, Write, WritePermit};
use self::item::{FoundContent, RenderedEntry, SinkItem};
pub use self::options::Options;
use self::options::{SinkEntry, SinkTo};
use self::queue::{Task, WriteQueue};
use crate::clock::{BootMs, Now, RepeatThrottle, boot_ms, nonzero, unix_ms};
use crate::credential::table::{Table, log_credential};
use crate::stats::{SinkError, SinkStats, SinkWrite, Stats};
use crate::supervision::Supervisor;

/// Credentials under way at once.
const AT_ONCE: usize = 32;
/// Credentials looked at in one check; the next check goes on behind them.
const CHECKS: usize = 32;
/// Credentials tried again at once of those that have failed.
const RETRIES: usize = 32;
/// What is written again though nothing has changed is written no faster than so many times a second.
const REWRITES_PER_S: u64 = 50;
const BACKOFF_MIN: Duration = Duration::from_millis(200);
const BACKOFF_MAX: Duration = Duration::from_secs(30);
/// The same while this process has no file descriptor left, which passes.
const BACKOFF_WITHOUT_DESCRIPTOR: Duration = Duration::from_secs(2);
/// The last changes may take so long to get out when the server ends.
const LAST_WRITES: Duration = Duration::from_secs(1);
const LOG_AGAIN_MS: u64 = 60_000;

/// One sink, ready to run.
pub struct SinkRunner {
    config: Options,
    target: Arc<dyn SinkBackend>,
    table: Arc<Table>,
    items: Vec<SinkItem>,
    stats: Arc<SinkStats>,
    /// What is to be done.
    queue: WriteQueue,
    /// When what is there ends.
    ends: BTreeSet<(BootMs, usize)>,
    /// Where the next check begins.
    look_from: usize,
    /// What is written again next.
    rewrite_next: usize,
    /// Where the last check found what we do not know: with several nodes another one may be a moment ahead of us.
    suspects: BTreeSet<usize>,
    /// What one credential met is tried again then, while the others go on.
    again: Option<(Instant, BTreeSet<usize>)>,
    /// Where the next try of these begins, and those that are being tried.
    retry_from: usize,
    retried: BTreeSet<usize>,
    /// Room for the next job, where there is a limit.
    place: Option<WritePermit>,
    is_begun: bool,
    backoff: Duration,
    /// By class: each of many files may have a folder of its own.
    log: RepeatThrottle<&'static str>,
}

/// One sink for each that is configured, on the table's credentials.
pub fn build(sinks: &[Options], table: &Arc<Table>, stats: &Stats) -> Vec<SinkRunner> {
    let sink = |config: &Options| {
        let target = target(config)?;
        Some(SinkRunner::new(config, target, table, stats.register_sink(config.type_name(), config.to_string())))
    };
    sinks.iter().filter_map(sink).collect()
}

/// What writes to the place that is configured; none in a build that cannot, which the configuration has refused.
fn target(config: &Options) -> Option<Arc<dyn SinkBackend>> {
    match &config.to {
        #[cfg(feature = "redis")]
        SinkTo::Redis { server, ttl } => Some(Arc::new(redis::RedisBackend::new(server.clone(), *ttl))),
        SinkTo::File(file) => Some(Arc::new(file::FileBackend::new(file))),
        #[cfg(not(feature = "redis"))]
        SinkTo::Redis { .. } => None,
        #[cfg(feature = "sql")]
        SinkTo::Sql(config) => Some(Arc::new(sql::SqlBackend::new(config))),
        #[cfg(not(feature = "sql"))]
        SinkTo::Sql(_) => None,
        SinkTo::Command(command) => Some(Arc::new(command::CommandBackend::new(command.clone()))),
    }
}

/// Connects to the database of a sink and has it judge the statements without running them.
#[cfg(feature = "sql")]
pub async fn try_sql(config: &Options) -> Result<(), String> {
    let SinkTo::Sql(to) = &config.to else { return Ok(()) };
    let tried = sql::SqlBackend::new(to).try_out(&config.entries).await;
    tried.map_err(|fault| format!("{fault}\n#   what to do: {}", fault.advice))
}

/// Runs them all until `end`, after the shutdown, then lets each write its last changes, for a second at most.
pub async fn run(sinks: Vec<SinkRunner>, end: CancellationToken, supervisor: &Supervisor) {
    let mut tasks = JoinSet::new();
    for sink in sinks {
        let (alive, running) = (supervisor.watch(format!("the sink {}", sink.config)), sink.run(end.clone()));
        tasks.spawn(alive.during(running));
    }
    let all = async {
        while let Some(ended) = tasks.join_next().await {
            if ended.is_err() {
                error!("a sink ended badly; it is written no longer");
            }
        }
    };
    tokio::select! {
        () = all => {}
        // A store that does not answer holds up nobody's end.
        () = async { end.cancelled().await; tokio::time::sleep(2 * LAST_WRITES).await } => {}
    }
}

/// Ends every command that a sink has started, with all that it has started itself; no other starts. For whoever ends the
/// process.
pub fn kill_commands() {
    command::kill_all();
}

/// Wakes with the index of each item that changes.
struct Changes(FuturesUnordered<ChangeFuture>);

/// An item's index and its receiver again, once it has changed; none if it never will.
type ChangeFuture = BoxFuture<'static, Option<(usize, watch::Receiver<u64>)>>;

impl Changes {
    fn of(items: &[SinkItem]) -> Changes {
        let receivers = items.iter().map(|item| item.credential.subscribe()).enumerate();
        Changes(receivers.map(|(index, receiver)| change(index, receiver)).collect())
    }

    async fn next(&mut self) -> usize {
        loop {
            match self.0.next().await {
                Some(Some((index, receiver))) => {
                    self.0.push(change(index, receiver));
                    return index;
                }
                // A credential lives as long as the table, and this holds the table.
                Some(None) => {}
                None => std::future::pending().await,
            }
        }
    }

    /// Those that have changed already.
    fn pending(&mut self, queue: &mut WriteQueue) {
        while let Some(index) = self.next().now_or_never() {
            queue.add_changed(index);
        }
    }
}

fn change(index: usize, mut receiver: watch::Receiver<u64>) -> ChangeFuture {
    async move { receiver.changed().await.ok().map(|()| (index, receiver)) }.boxed()
}

/// What is under way.
type RunningJobs = FuturesUnordered<BoxFuture<'static, (Job, Result<JobOutcome, SinkFault>)>>;

impl SinkRunner {
    fn new(config: &Options, target: Arc<dyn SinkBackend>, table: &Arc<Table>, stats: Arc<SinkStats>) -> SinkRunner {
        let mut of_credential: Vec<(usize, Vec<SinkEntry>)> = Vec::new();
        let mut known: HashMap<usize, usize> = HashMap::new();
        for entry in &config.entries {
            let Some(name) = table.name(entry.managed_key().as_bytes()) else { continue };
            let id = name.credential.id;
            let index = *known.entry(id).or_insert_with(|| {
                of_credential.push((id, Vec::new()));
                of_credential.len() - 1
            });
            of_credential[index].1.push(entry.clone());
        }
        let note_readers = |(id, _): &(usize, Vec<SinkEntry>)| {
            if let Some(credential) = table.credentials().get(*id) {
                credential.record_distant_readers();
            }
        };
        of_credential.iter().for_each(note_readers);
        let item =
            |(id, entries): (usize, Vec<SinkEntry>)| Some(SinkItem::new(table.credentials().get(id)?.clone(), entries));
        SinkRunner {
            config: config.clone(),
            target,
            table: table.clone(),
            items: of_credential.into_iter().filter_map(item).collect(),
            stats,
            queue: WriteQueue::default(),
            ends: BTreeSet::new(),
            look_from: 0,
            rewrite_next: 0,
            suspects: BTreeSet::new(),
            again: None,
            retry_from: 0,
            retried: BTreeSet::new(),
            place: None,
            is_begun: false,
            backoff: Duration::ZERO,
            log: RepeatThrottle::default(),
        }
    }

    /// Keeps the target current until `end`.
    async fn run(mut self, end: CancellationToken) {
        // Before the first write: a change in between must not be slept through.
        let mut changes = Changes::of(&self.items);
        while !end.is_cancelled() {
            let target = self.target.clone();
            let opened = tokio::select! {
                biased;
                () = end.cancelled() => return,
                opened = target.open() => opened,
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

    /// Writes what changes for as long as the connection is good; `None` at the end of it all.
    async fn serve(
        &mut self,
        changes: &mut Changes,
        under_way: &mut RunningJobs,
        end: &CancellationToken,
    ) -> Option<SinkFault> {
        self.begin();
        let mut check = every(Duration::from_millis(self.config.check_every_ms));
        let mut rewrite = self.rewrite_pace().map(every);
        loop {
            changes.pending(&mut self.queue);
            self.start_jobs(under_way);
            self.count_waiting();
            if under_way.is_empty() {
                self.stats.connected.store(true, Relaxed);
                if self.again.is_none() && !self.queue.has_next() {
                    self.record_success();
                }
            }
            let next_end = self.next_end();
            let next_try = self.again.as_ref().map(|(at, _)| *at);
            tokio::select! {
                biased;
                () = end.cancelled() => {
                    changes.pending(&mut self.queue);
                    let _ = tokio::time::timeout(LAST_WRITES, self.write_rest(under_way)).await;
                    return None;
                }
                index = changes.next() => self.queue.add_changed(index),
                Some((job, outcome)) = under_way.next(), if !under_way.is_empty() => {
                    if let Err(fault) = self.finish(job, outcome) {
                        return Some(fault);
                    }
                }
                place = wait_for_permit(self.target.limit()), if self.queue.has_next() => self.place = Some(place),
                () = until(next_end) => self.queue_ended(),
                () = until(next_try) => self.retry(),
                // A node that is cut off from the others may be behind them.
                _ = check.tick(), if self.target.is_readable() && !self.is_cut_off() => self.queue_checks(),
                () = tick(&mut rewrite), if !self.is_cut_off() => self.queue_rewrite(),
            }
        }
    }

    /// All is written at first, and again where it may be gone: the target may have been restarted, flushed or swapped for
    /// another.
    fn begin(&mut self) {
        self.place = None;
        if !self.is_begun || self.target.may_have_lost() {
            self.queue = WriteQueue::default();
            self.queue.add_all_stale(self.items.len());
            self.again = None;
        } else {
            self.queue.requeue_under_way();
            if let Some((at, _)) = &mut self.again {
                *at = Instant::now();
            }
        }
        self.is_begun = true;
    }

    /// What is under way beside a fault of the target is given up with its connection; where there is none, it is waited
    /// for, and nothing is done twice.
    async fn drain(&mut self, mut under_way: RunningJobs, end: &CancellationToken) {
        while !self.target.may_have_lost() {
            tokio::select! {
                biased;
                () = end.cancelled() => return,
                done = under_way.next() => match done {
                    // A fault like the first.
                    Some((job, outcome)) => drop(self.finish(job, outcome)),
                    None => return,
                },
            }
        }
    }

    fn count_waiting(&self) {
        let put_off = self.again.as_ref().map_or(0, |(_, waiting)| waiting.len());
        // Until it could be opened for the first time, nothing is written.
        let waiting = if self.is_begun { self.queue.waiting() + put_off } else { self.items.len() };
        self.stats.waiting.store(waiting as u64, Relaxed);
    }

    /// What has not been written yet, at the end.
    async fn write_rest(&mut self, under_way: &mut RunningJobs) {
        self.queue.drop_checks();
        loop {
            self.start_jobs(under_way);
            tokio::select! {
                Some((job, outcome)) = under_way.next(), if !under_way.is_empty() => {
                    if self.finish(job, outcome).is_err() {
                        return;
                    }
                }
                place = wait_for_permit(self.target.limit()), if self.queue.has_next() => self.place = Some(place),
                else => return,
            }
        }
    }

    fn start_jobs(&mut self, under_way: &mut RunningJobs) {
        while under_way.len() < AT_ONCE {
            let place = self.place.take();
            if self.target.limit().is_some() && place.is_none() {
                return;
            }
            let Some((index, task)) = self.queue.take() else { return };
            match self.job(index, task, place) {
                Ok(job) => under_way.push(job.run(self.target.clone()).boxed()),
                Err(fault) => {
                    self.queue.finish(index);
                    self.postpone_retry(index, fault);
                }
            }
        }
    }

    fn job(&mut self, index: usize, task: Task, place: Option<WritePermit>) -> Result<Job, SinkFault> {
        let now = Now::read();
        let Some(item) = self.items.get_mut(index) else { return Ok(Job { index, work: Work::Nothing }) };
        if task == Task::Check {
            let work = if item.is_written() { Work::Check(item.entries.clone()) } else { Work::Nothing };
            return Ok(Job { index, work });
        }
        if let Some(end_ms) = item.end_ms.take() {
            self.ends.remove(&(end_ms, index));
        }
        let Some((current, until_ms)) = item.value_to_write(self.config.margin_ms(), now, self.config.at_least_s())
        else {
            return Ok(Job { index, work: Work::Retract(item.retraction(now)) });
        };
        item.end_ms = Some(until_ms);
        self.ends.insert((until_ms, index));
        let contents =
            item.entries.iter().map(|entry| self.target.content(entry, &current)).collect::<Result<_, _>>()?;
        Ok(Job { index, work: Work::Write(Write { place, entries: item.entries.clone(), contents, current }) })
    }

    /// What has come of a job. The error is one of the connection.
    fn finish(&mut self, job: Job, outcome: Result<JobOutcome, SinkFault>) -> Result<(), SinkFault> {
        let index = job.index;
        self.queue.finish(index);
        match outcome {
            Ok(outcome) => self.record_outcome(job, outcome),
            Err(fault) if fault.is_about_the_connection() => {
                self.queue.add_changed(index);
                return Err(fault);
            }
            // What cannot be looked at may not be ours any more: only a write tells whether it can still be written.
            Err(fault) => self.postpone_retry(index, fault),
        }
        Ok(())
    }

    fn postpone_retry(&mut self, index: usize, fault: SinkFault) {
        self.record_failure(Some(index), fault);
        if self.again.is_none() {
            self.again = Some((Instant::now() + self.next_backoff(), BTreeSet::new()));
        }
        if let Some((_, waiting)) = &mut self.again {
            waiting.insert(index);
        }
    }

    /// Some of what has failed, others the next time. Where everything fails, that is enough to see when it no longer does.
    fn retry(&mut self) {
        let Some((_, mut waiting)) = self.again.take() else { return };
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
            self.again = Some((Instant::now() + self.next_backoff(), waiting));
        }
    }

    /// This one is written. If it had failed, the others that have need not wait any longer.
    fn hasten_retry(&mut self, index: usize) {
        if self.retried.remove(&index)
            && let Some((at, _)) = &mut self.again
        {
            *at = Instant::now();
        }
    }

    fn record_outcome(&mut self, job: Job, outcome: JobOutcome) {
        let index = job.index;
        match (job.work, outcome) {
            (Work::Write(Write { contents, current, .. }), JobOutcome::Written(before)) => {
                let Some(item) = self.items.get_mut(index) else { return };
                if let Some(entry) = item.entries.first() {
                    self.stats.record_write(as_written(entry), contents.len() as u64);
                }
                item.remember_token(current.value);
                self.hasten_retry(index);
                self.report_foreign(index, &before);
                if let Some(item) = self.items.get_mut(index) {
                    item.record_written(contents);
                }
            }
            (Work::Retract(_), JobOutcome::Retracted(count)) => {
                self.stats.deletes.fetch_add(count, Relaxed);
                if let Some(item) = self.items.get_mut(index) {
                    item.record_retracted();
                }
            }
            (Work::Check(_), JobOutcome::Checked(Some(found))) => self.judge_found(index, &found),
            _ => {}
        }
    }

    /// Somebody else's token over ours is word of a rival.
    fn report_foreign(&mut self, index: usize, before: &[Option<Vec<u8>>]) {
        let Some(item) = self.items.get(index) else { return };
        let found: Vec<FoundContent> =
            before.iter().enumerate().map(|(key, found)| item.judge(key, found.as_deref())).collect();
        let key = |of: FoundContent| found.iter().position(|found| *found == of).and_then(|at| item.entries.get(at));
        let sink = &self.config;
        if let Some(key) = key(FoundContent::ForeignToken) {
            self.stats.foreign_writes.fetch_add(1, Relaxed);
            self.table.report_foreign_writer(&item.credential);
            if item.foreign_logged.allow(boot_ms(), LOG_AGAIN_MS) {
                log_credential!(
                    warn,
                    item.credential,
                    %sink,
                    key = key.redacted_name(),
                    rivals = self.stats.foreign_writes.load(Relaxed),
                    "somebody else has written a token of its own over ours: another program still fetches for this app; \
                     stop it, or its fetches may kill this server's token"
                );
            }
        } else if let Some(key) = key(FoundContent::Other) {
            log_credential!(info, item.credential, %sink, key = key.redacted_name(), "what somebody else had put there is replaced by ours");
        }
    }

    /// Looks at some of the items, at others the next time.
    fn queue_checks(&mut self) {
        let count = self.items.len();
        for step in 0..count.min(CHECKS) {
            self.queue.add_check((self.look_from + step) % count);
        }
        self.look_from = (self.look_from + CHECKS) % count.max(1);
    }

    /// What is missing or another's is written again.
    fn judge_found(&mut self, index: usize, found: &[Option<Vec<u8>>]) {
        let Some(item) = self.items.get(index).filter(|item| item.is_written()) else { return };
        let found: Vec<FoundContent> =
            found.iter().enumerate().map(|(at, found)| item.judge(at, found.as_deref())).collect();
        if found.iter().any(|found| matches!(found, FoundContent::ForeignToken | FoundContent::Other)) {
            let is_first = self.suspects.insert(index);
            // Judged again, and reported, when it is written.
            if !is_first || self.table.sharing.node().is_none() {
                self.queue.add_changed(index);
            }
        } else {
            self.suspects.remove(&index);
        }
        if found.contains(&FoundContent::Absent) {
            self.queue.add_changed(index);
            if self.target.loses_all_at_once() {
                debug!(sink = %self.config, "entries of ours are gone; all are written again");
                self.queue.add_all_stale(self.items.len());
            }
        }
    }

    /// How long after one item the next is written again though it has not changed; none: never.
    fn rewrite_pace(&self) -> Option<Duration> {
        let entries: usize = self.items.iter().map(|item| item.entries.len()).sum();
        let (items, entries) = (self.items.len() as u64, entries as u64);
        if items == 0 || self.config.rewrite_every_ms == 0 {
            return None;
        }
        let round_us = (self.config.rewrite_every_ms * 1000).max(entries * 1_000_000 / REWRITES_PER_S);
        Some(Duration::from_micros((round_us / items).max(1)))
    }

    fn queue_rewrite(&mut self) {
        self.queue.add_stale(self.rewrite_next);
        self.rewrite_next = (self.rewrite_next + 1) % self.items.len().max(1);
    }

    /// True of one of several nodes that does not hear of the others.
    fn is_cut_off(&self) -> bool {
        self.table.sharing.node().is_some() && self.table.sharing.is_up() != Some(true)
    }

    /// When the next value there ends, on the runtime's clock.
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
        // Never at once, or a store that refuses would be asked without a pause.
        self.backoff.mul_f64(fastrand::f64().mul_add(0.5, 0.5))
    }

    fn record_success(&mut self) {
        self.backoff = Duration::ZERO;
        self.stats.clear_error();
        if let Some((after, unsaid)) = self.log.end() {
            info!(sink = %self.config, after, suppressed = nonzero(unsaid), "the sink is written again");
        }
    }

    fn record_failure(&mut self, index: Option<usize>, fault: SinkFault) {
        let entry = index.and_then(|index| self.items.get(index)?.entries.first());
        self.stats.record_failure(SinkError {
            class: fault.class,
            whose: fault.whose(),
            what: fault.what.clone(),
            advice: fault.advice.clone(),
            about: entry.map(|entry| entry.config().managed_key()),
            at_unix_ms: unix_ms(),
        });
        if fault.scope == SinkFaultScope::Descriptors {
            self.backoff = self.backoff.min(BACKOFF_WITHOUT_DESCRIPTOR / 2);
        }
        let Some(unsaid) = self.log.say(fault.class, boot_ms(), LOG_AGAIN_MS) else { return };
        let (class, whose, advice) = (fault.class, fault.whose(), &*fault.advice);
        let about = entry.map(|entry| entry.config().managed_key());
        warn!(sink = %self.config, about, class, whose, suppressed = nonzero(unsaid), advice, "the sink cannot be written: {fault}");
    }
}

/// What is done about one credential.
struct Job {
    index: usize,
    work: Work,
}

enum Work {
    Write(Write),
    Retract(Retraction),
    Check(Arc<[RenderedEntry]>),
    Nothing,
}

enum JobOutcome {
    /// What stood at each entry before.
    Written(Vec<Option<Vec<u8>>>),
    /// How many were taken back.
    Retracted(u64),
    /// What stands there, if that can be known.
    Checked(Option<backend::Contents>),
    Nothing,
}

impl Job {
    async fn run(self, target: Arc<dyn SinkBackend>) -> (Job, Result<JobOutcome, SinkFault>) {
        let outcome = match &self.work {
            Work::Write(write) => target.write(write).await.map(JobOutcome::Written),
            Work::Retract(retract) => target.retract(retract).await.map(JobOutcome::Retracted),
            Work::Check(entries) => target.read(entries).await.map(JobOutcome::Checked),
            Work::Nothing => Ok(JobOutcome::Nothing),
        };
        (self, outcome)
    }
}

/// Ticks from one period on.
fn every(period: Duration) -> Interval {
    let mut interval = tokio::time::interval_at(Instant::now() + period, period);
    interval.set_missed_tick_behavior(MissedTickBehavior::Delay);
    interval
}

/// What has been written, for people.
fn as_written(entry: &RenderedEntry) -> SinkWrite {
    let config = entry.config();
    SinkWrite {
        app: config.app.clone(),
        credential_type: config.of.word(),
        entry: entry.redacted_name().to_owned(),
        at_unix_ms: unix_ms(),
    }
}

/// Room for one more below a limit; never, without one.
async fn wait_for_permit(limit: Option<&'static Semaphore>) -> WritePermit {
    match limit {
        Some(limit) => match limit.acquire().await {
            Ok(permit) => WritePermit::new(permit),
            // It is never closed.
            Err(_) => std::future::pending().await,
        },
        None => std::future::pending().await,
    }
}

/// Never, without an instant.
async fn until(instant: Option<Instant>) {
    match instant {
        Some(instant) => tokio::time::sleep_until(instant).await,
        None => std::future::pending().await,
    }
}

/// Never, without an interval.
async fn tick(interval: &mut Option<Interval>) {
    match interval {
        Some(interval) => drop(interval.tick().await),
        None => std::future::pending().await,
    }
}

#[cfg(test)]
mod tests;
