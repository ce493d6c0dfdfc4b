//! Sinks: what is kept current is written to a store of the site's own as well, for readers who look there.
//!
//! One task a sink, beside the refresher: the runner, which is the same for every type. `target` is what a type does, a
//! file each; `item` says what to write and judges what is found; `queue` says what is next. The table is only read; the
//! one thing a sink tells the refresher is that somebody else writes tokens. Nobody ever waits for a sink, and of
//! several changes only the latest is written. Never shows a value, a password or a key with a secret.

mod item;
mod queue;
#[cfg(feature = "redis")]
mod redis;
#[cfg(feature = "sql")]
mod sql;
mod target;

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use futures_util::future::{BoxFuture, FutureExt};
use futures_util::stream::{FuturesUnordered, StreamExt};
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::{Instant, Interval, MissedTickBehavior};
use tokio_util::sync::CancellationToken;
use tracing::{debug, error, info, warn};

use self::item::{Entry, Found, Item};
use self::queue::{Queue, Task};
use self::target::{Fault, Retract, Scope, Target, Write};
use crate::clock::{BootMs, Now, Repeated, boot_ms};
use crate::config::{self, SinkEntry, SinkTo};
use crate::credential::table::Table;
use crate::stats::{SinkStats, Stats};
use crate::supervision::Supervisor;

/// Credentials under way at once.
const AT_ONCE: usize = 32;
/// Credentials looked at in one check; the next check goes on behind them.
const LOOKS: usize = 32;
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
pub struct Sink {
    config: config::Sink,
    target: Arc<dyn Target>,
    table: Arc<Table>,
    items: Vec<Item>,
    stats: Arc<SinkStats>,
    /// What is to be done.
    queue: Queue,
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
    backoff: Duration,
    log: Repeated<Fault>,
}

/// One sink for each that is configured, on the table's credentials.
pub fn build(sinks: &[config::Sink], table: &Arc<Table>, stats: &Stats) -> Vec<Sink> {
    let sink = |config: &config::Sink| Some(Sink::new(config, target(config)?, table, stats.register_sink()));
    sinks.iter().filter_map(sink).collect()
}

/// What writes to the place that is configured; none in a build that cannot, which the configuration has refused.
fn target(config: &config::Sink) -> Option<Arc<dyn Target>> {
    match &config.to {
        #[cfg(feature = "redis")]
        SinkTo::Redis { server, ttl } => Some(Arc::new(redis::Redis::new(server.clone(), *ttl))),
        #[cfg(not(feature = "redis"))]
        SinkTo::Redis { .. } => None,
        #[cfg(feature = "sql")]
        SinkTo::Sql(config) => Some(Arc::new(sql::Sql::new(config))),
        #[cfg(not(feature = "sql"))]
        SinkTo::Sql(_) => None,
    }
}

/// Connects to the database of a sink and has it judge the statements without running them.
#[cfg(feature = "sql")]
pub async fn try_sql(config: &config::Sink) -> Result<(), String> {
    let SinkTo::Sql(to) = &config.to else { return Ok(()) };
    let tried = sql::Sql::new(to).try_out(&config.entries).await;
    tried.map_err(|fault| format!("{fault}\n#   what to do: {}", fault.advice))
}

/// Runs them all until `end`, after the shutdown, then lets each write its last changes, for a second at most.
pub async fn run(sinks: Vec<Sink>, end: CancellationToken, supervisor: &Supervisor) {
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

/// Wakes with the index of each item that changes.
struct Changes(FuturesUnordered<Change>);

/// An item's index and its receiver again, once it has changed; none if it never will.
type Change = BoxFuture<'static, Option<(usize, watch::Receiver<u64>)>>;

impl Changes {
    fn of(items: &[Item]) -> Changes {
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
    fn pending(&mut self, queue: &mut Queue) {
        while let Some(index) = self.next().now_or_never() {
            queue.changed(index);
        }
    }
}

fn change(index: usize, mut receiver: watch::Receiver<u64>) -> Change {
    async move { receiver.changed().await.ok().map(|()| (index, receiver)) }.boxed()
}

/// What is under way.
type UnderWay = FuturesUnordered<BoxFuture<'static, (Job, Result<Outcome, Fault>)>>;

impl Sink {
    fn new(config: &config::Sink, target: Arc<dyn Target>, table: &Arc<Table>, stats: Arc<SinkStats>) -> Sink {
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
        let item =
            |(id, entries): (usize, Vec<SinkEntry>)| Some(Item::new(table.credentials().get(id)?.clone(), entries));
        Sink {
            config: config.clone(),
            target,
            table: table.clone(),
            items: of_credential.into_iter().filter_map(item).collect(),
            stats,
            queue: Queue::default(),
            ends: BTreeSet::new(),
            look_from: 0,
            rewrite_next: 0,
            suspects: BTreeSet::new(),
            again: None,
            backoff: Duration::ZERO,
            log: Repeated::default(),
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
            let fault = match opened {
                Ok(()) => match self.serve(&mut changes, &end).await {
                    Some(fault) => fault,
                    None => return,
                },
                Err(fault) => fault,
            };
            self.stats.connected.store(false, Relaxed);
            self.failed(fault);
            tokio::select! {
                biased;
                () = end.cancelled() => return,
                () = tokio::time::sleep(self.next_backoff()) => {}
            }
        }
    }

    /// Writes what changes for as long as the connection is good; `None` at the end of it all.
    async fn serve(&mut self, changes: &mut Changes, end: &CancellationToken) -> Option<Fault> {
        // Whatever it was, it may have been restarted, flushed or swapped for another.
        self.queue = Queue::default();
        self.queue.all_stale(self.items.len());
        self.again = None;
        let mut under_way = UnderWay::new();
        let mut check = every(Duration::from_millis(self.config.check_every_ms));
        let mut rewrite = self.rewrite_pace().map(every);
        loop {
            changes.pending(&mut self.queue);
            self.start_jobs(&mut under_way);
            if under_way.is_empty() {
                self.stats.connected.store(true, Relaxed);
                if self.again.is_none() {
                    self.all_is_well();
                }
            }
            let next_end = self.next_end();
            let next_try = self.again.as_ref().map(|(at, _)| *at);
            tokio::select! {
                biased;
                () = end.cancelled() => {
                    changes.pending(&mut self.queue);
                    let _ = tokio::time::timeout(LAST_WRITES, self.write_rest(&mut under_way)).await;
                    return None;
                }
                index = changes.next() => self.queue.changed(index),
                Some((job, outcome)) = under_way.next(), if !under_way.is_empty() => {
                    if let Err(fault) = self.finish(job, outcome) {
                        return Some(fault);
                    }
                }
                () = until(next_end) => self.note_ended(),
                () = until(next_try) => self.retry(),
                // A node that is cut off from the others may be behind them.
                _ = check.tick(), if !self.is_cut_off() => self.ask_for_looks(),
                () = tick(&mut rewrite), if !self.is_cut_off() => self.ask_for_rewrite(),
            }
        }
    }

    /// What has not been written yet, at the end.
    async fn write_rest(&mut self, under_way: &mut UnderWay) {
        self.queue.forget_looks();
        self.start_jobs(under_way);
        while let Some((job, outcome)) = under_way.next().await {
            if self.finish(job, outcome).is_err() {
                return;
            }
            self.start_jobs(under_way);
        }
    }

    fn start_jobs(&mut self, under_way: &mut UnderWay) {
        while under_way.len() < AT_ONCE {
            let Some((index, task)) = self.queue.take() else { return };
            match self.job(index, task) {
                Ok(job) => under_way.push(job.run(self.target.clone()).boxed()),
                Err(fault) => {
                    self.queue.done(index);
                    self.refused(index, fault);
                }
            }
        }
    }

    fn job(&mut self, index: usize, task: Task) -> Result<Job, Fault> {
        let now = Now::read();
        let Some(item) = self.items.get_mut(index) else { return Ok(Job { index, work: Work::Nothing }) };
        if task == Task::Look {
            let work = if item.is_written() { Work::Look(item.entries.clone()) } else { Work::Nothing };
            return Ok(Job { index, work });
        }
        if let Some(end_ms) = item.end_ms.take() {
            self.ends.remove(&(end_ms, index));
        }
        let Some((current, until_ms)) = item.wanted(self.config.margin_ms(), now, self.config.at_least_s()) else {
            return Ok(Job { index, work: Work::Retract(item.retraction(now)) });
        };
        item.end_ms = Some(until_ms);
        self.ends.insert((until_ms, index));
        let contents =
            item.entries.iter().map(|entry| self.target.content(entry, &current)).collect::<Result<_, _>>()?;
        Ok(Job { index, work: Work::Write(Write { entries: item.entries.clone(), contents, current }) })
    }

    /// What has come of a job. The error is one of the connection.
    fn finish(&mut self, job: Job, outcome: Result<Outcome, Fault>) -> Result<(), Fault> {
        let index = job.index;
        self.queue.done(index);
        match outcome {
            Ok(outcome) => self.landed(job, outcome),
            Err(fault) if fault.is_about_the_connection() => return Err(fault),
            // Looked at again with the next check.
            Err(fault) if matches!(job.work, Work::Look(_)) => self.failed(fault),
            Err(fault) => self.refused(index, fault),
        }
        Ok(())
    }

    fn refused(&mut self, index: usize, fault: Fault) {
        self.failed(fault);
        if self.again.is_none() {
            self.again = Some((Instant::now() + self.next_backoff(), BTreeSet::new()));
        }
        if let Some((_, waiting)) = &mut self.again {
            waiting.insert(index);
        }
    }

    fn retry(&mut self) {
        for index in self.again.take().map(|(_, waiting)| waiting).unwrap_or_default() {
            self.queue.stale(index);
        }
    }

    fn landed(&mut self, job: Job, outcome: Outcome) {
        let index = job.index;
        match (job.work, outcome) {
            (Work::Write(Write { contents, current, .. }), Outcome::Written(before)) => {
                self.stats.writes.fetch_add(contents.len() as u64, Relaxed);
                let Some(item) = self.items.get_mut(index) else { return };
                item.own(current.value);
                self.judge(index, &before);
                if let Some(item) = self.items.get_mut(index) {
                    item.written(contents);
                }
            }
            (Work::Retract(_), Outcome::Retracted(count)) => {
                self.stats.deletes.fetch_add(count, Relaxed);
                if let Some(item) = self.items.get_mut(index) {
                    item.retracted();
                }
            }
            (Work::Look(_), Outcome::Seen(Some(found))) => self.seen(index, &found),
            _ => {}
        }
    }

    /// Somebody else's token over ours is word of a rival.
    fn judge(&mut self, index: usize, before: &[Option<Vec<u8>>]) {
        let Some(item) = self.items.get(index) else { return };
        let found: Vec<Found> =
            before.iter().enumerate().map(|(key, found)| item.judge(key, found.as_deref())).collect();
        let key = |of: Found| found.iter().position(|found| *found == of).and_then(|at| item.entries.get(at));
        let (sink, appid) = (&self.config, &item.credential.appid);
        if let Some(key) = key(Found::Rival) {
            self.stats.rival_writes.fetch_add(1, Relaxed);
            self.table.report_rival(&item.credential);
            if item.rival_logged.due(boot_ms(), LOG_AGAIN_MS) {
                warn!(
                    %sink,
                    appid,
                    key = key.spoken(),
                    rivals = self.stats.rival_writes.load(Relaxed),
                    "somebody else has written a token of its own over ours: another program still fetches for this app; \
                     stop it, or its fetches may kill this server's token"
                );
            }
        } else if let Some(key) = key(Found::Foreign) {
            info!(%sink, appid, key = key.spoken(), "what somebody else had put there is replaced by ours");
        }
    }

    /// Looks at some of the items, at others the next time.
    fn ask_for_looks(&mut self) {
        let count = self.items.len();
        for step in 0..count.min(LOOKS) {
            self.queue.look((self.look_from + step) % count);
        }
        self.look_from = (self.look_from + LOOKS) % count.max(1);
    }

    /// What is missing or another's is written again.
    fn seen(&mut self, index: usize, found: &[Option<Vec<u8>>]) {
        let Some(item) = self.items.get(index).filter(|item| item.is_written()) else { return };
        let found: Vec<Found> = found.iter().enumerate().map(|(at, found)| item.judge(at, found.as_deref())).collect();
        if found.iter().any(|found| matches!(found, Found::Rival | Found::Foreign)) {
            let is_first = self.suspects.insert(index);
            // Judged again, and reported, when it is written.
            if !is_first || self.table.sharing.node().is_none() {
                self.queue.changed(index);
            }
        } else {
            self.suspects.remove(&index);
        }
        if found.contains(&Found::Absent) {
            self.queue.changed(index);
            if self.target.loses_all_at_once() {
                debug!(sink = %self.config, "entries of ours are gone; all are written again");
                self.queue.all_stale(self.items.len());
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

    fn ask_for_rewrite(&mut self) {
        self.queue.stale(self.rewrite_next);
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

    fn note_ended(&mut self) {
        let now_ms = boot_ms();
        while let Some((_, index)) = self.ends.first().copied().filter(|(end_ms, _)| *end_ms <= now_ms) {
            self.ends.pop_first();
            self.queue.changed(index);
        }
    }

    fn next_backoff(&mut self) -> Duration {
        self.backoff = (self.backoff * 2).clamp(BACKOFF_MIN, BACKOFF_MAX);
        // Never at once, or a store that refuses would be asked without a pause.
        self.backoff.mul_f64(fastrand::f64().mul_add(0.5, 0.5))
    }

    fn all_is_well(&mut self) {
        self.backoff = Duration::ZERO;
        self.stats.good();
        if let Some((fault, unsaid)) = self.log.end() {
            info!(sink = %self.config, after = fault.class, unsaid, "the sink is written again");
        }
    }

    fn failed(&mut self, fault: Fault) {
        self.stats.failed(fault.class);
        if fault.scope == Scope::Descriptors {
            self.backoff = self.backoff.min(BACKOFF_WITHOUT_DESCRIPTOR / 2);
        }
        let Some(unsaid) = self.log.say(fault.clone(), boot_ms(), LOG_AGAIN_MS) else { return };
        let (class, advice) = (fault.class, &*fault.advice);
        warn!(sink = %self.config, class, unsaid, advice, "the sink cannot be written: {fault}");
    }
}

/// What is done about one credential.
struct Job {
    index: usize,
    work: Work,
}

enum Work {
    Write(Write),
    Retract(Retract),
    Look(Arc<[Entry]>),
    Nothing,
}

enum Outcome {
    /// What stood at each entry before.
    Written(Vec<Option<Vec<u8>>>),
    /// How many were taken back.
    Retracted(u64),
    /// What stands there, if that can be known.
    Seen(Option<Vec<Option<Vec<u8>>>>),
    Nothing,
}

impl Job {
    async fn run(self, target: Arc<dyn Target>) -> (Job, Result<Outcome, Fault>) {
        let outcome = match &self.work {
            Work::Write(write) => target.write(write).await.map(Outcome::Written),
            Work::Retract(retract) => target.retract(retract).await.map(Outcome::Retracted),
            Work::Look(entries) => target.read(entries).await.map(Outcome::Seen),
            Work::Nothing => Ok(Outcome::Nothing),
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
