//! Sinks: what is kept current is written to a Redis of the site's own as well, for readers who look there.
//!
//! One task a sink, beside the refresher. `item` says what to write and judges what is found, `link` talks to the
//! Redis. The table is only read; the one thing a sink tells the refresher is that
//! somebody else writes tokens. Nobody ever waits for a sink, and of several changes only the latest is written.
//! Never shows a value, a password or a key with a secret.

mod command;
mod item;
mod link;

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use bytes::Bytes;
use futures_util::future::{BoxFuture, FutureExt, join_all};
use futures_util::stream::{FuturesUnordered, StreamExt};
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::{Instant, Interval, MissedTickBehavior};
use tokio_util::sync::CancellationToken;
use tracing::{debug, error, info, warn};

use self::item::{Found, Item, Key, Wanted};
use self::link::Link;
use crate::clock::{BootMs, Now, Repeated, boot_ms};
use crate::config;
use crate::credential::table::Table;
use crate::engine::{Engine, Fault};
use crate::stats::{SinkStats, Stats};
use crate::supervision::Supervisor;

/// Credentials written at once.
const AT_ONCE: usize = 32;
/// Credentials looked at in one check; the next check goes on behind them.
const LOOKS: usize = 32;
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
    engine: Engine,
    table: Arc<Table>,
    items: Vec<Item>,
    stats: Arc<SinkStats>,
    /// Items that Redis does not know the present state of.
    dirty: BTreeSet<usize>,
    /// When what is in Redis ends.
    ends: BTreeSet<(BootMs, usize)>,
    /// Where the next check begins.
    look_from: usize,
    /// Where the last check found what we do not know: with several nodes another one may be a moment ahead of us.
    suspects: BTreeSet<usize>,
    backoff: Duration,
    log: Repeated<Fault>,
}

/// One sink for each that is configured, on the table's credentials.
pub fn build(sinks: &[config::Sink], table: &Arc<Table>, stats: &Stats) -> Vec<Sink> {
    sinks.iter().map(|sink| Sink::new(sink, table, stats.register_sink())).collect()
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
                error!("a sink ended badly; its Redis is written no longer");
            }
        }
    };
    tokio::select! {
        () = all => {}
        // A Redis that does not answer holds up nobody's end.
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
    fn pending(&mut self, dirty: &mut BTreeSet<usize>) {
        while let Some(index) = self.next().now_or_never() {
            dirty.insert(index);
        }
    }
}

fn change(index: usize, mut receiver: watch::Receiver<u64>) -> Change {
    async move { receiver.changed().await.ok().map(|()| (index, receiver)) }.boxed()
}

impl Sink {
    fn new(config: &config::Sink, table: &Arc<Table>, stats: Arc<SinkStats>) -> Sink {
        let mut items: Vec<Item> = Vec::new();
        let mut known: HashMap<usize, usize> = HashMap::new();
        for key in &config.keys {
            let Some(name) = table.name(key.managed_key().as_bytes()) else { continue };
            let index = *known.entry(name.credential.id).or_insert_with(|| {
                items.push(Item::new(name.credential.clone()));
                items.len() - 1
            });
            if let Some(item) = items.get_mut(index) {
                item.keys.push(Key::new(key));
            }
        }
        Sink {
            config: config.clone(),
            engine: Engine::new(config.server.clone()),
            table: table.clone(),
            items,
            stats,
            dirty: BTreeSet::new(),
            ends: BTreeSet::new(),
            look_from: 0,
            suspects: BTreeSet::new(),
            backoff: Duration::ZERO,
            log: Repeated::default(),
        }
    }

    /// Keeps the Redis current until `end`.
    async fn run(mut self, end: CancellationToken) {
        // Before the first write: a change in between must not be slept through.
        let mut changes = Changes::of(&self.items);
        while !end.is_cancelled() {
            let connecting = Link::connect(&self.engine);
            let connected = tokio::select! {
                biased;
                () = end.cancelled() => return,
                connected = connecting => connected,
            };
            let fault = match connected {
                Ok(link) => match self.serve(link, &mut changes, &end).await {
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
    async fn serve(&mut self, mut link: Link, changes: &mut Changes, end: &CancellationToken) -> Option<Fault> {
        // Whatever it was, it may have been restarted, flushed or swapped for another.
        self.dirty.extend(0..self.items.len());
        let mut check = every(self.config.check_every_ms);
        let mut rewrite = every(self.config.rewrite_every_ms);
        // What one credential met is tried again then, while the others go on.
        let mut again: Option<(Instant, BTreeSet<usize>)> = None;
        loop {
            changes.pending(&mut self.dirty);
            if let Some(fault) = match self.write_dirty(&mut link).await {
                Ok(refused) if refused.is_empty() => {
                    if again.is_none() {
                        self.all_is_well();
                    }
                    None
                }
                Ok(refused) => {
                    let (_, waiting) =
                        again.get_or_insert_with(|| (Instant::now() + self.next_backoff(), BTreeSet::new()));
                    waiting.extend(refused);
                    None
                }
                Err(fault) => Some(fault),
            } {
                return Some(fault);
            }
            self.stats.connected.store(true, Relaxed);
            let next_end = self.next_end();
            let next_try = again.as_ref().map(|(at, _)| *at);
            tokio::select! {
                biased;
                () = end.cancelled() => {
                    changes.pending(&mut self.dirty);
                    let _ = tokio::time::timeout(LAST_WRITES, self.write_dirty(&mut link)).await;
                    return None;
                }
                index = changes.next() => { self.dirty.insert(index); }
                () = until(next_end) => self.note_ended(),
                () = until(next_try) => self.dirty.extend(again.take().map(|(_, waiting)| waiting).unwrap_or_default()),
                // A node that is cut off from the others may be behind them.
                _ = check.tick(), if !self.is_cut_off() => match self.look(&mut link).await {
                    Ok(()) => {}
                    Err(fault) if fault.is_about_the_connection() => return Some(fault),
                    Err(fault) => self.failed(fault),
                },
                _ = rewrite.tick(), if !self.is_cut_off() => self.dirty.extend(0..self.items.len()),
            }
        }
    }

    /// Brings Redis up to date; gives back those that it refused. The error is one of the connection.
    async fn write_dirty(&mut self, link: &mut Link) -> Result<Vec<usize>, Fault> {
        let mut refused = Vec::new();
        while !self.dirty.is_empty() {
            let some: Vec<usize> = self.dirty.iter().copied().take(AT_ONCE).collect();
            for index in &some {
                // The value is taken after this: a change from now on makes it dirty again.
                self.dirty.remove(index);
            }
            let jobs: Vec<Job> = some.into_iter().filter_map(|index| self.job(index)).collect();
            let done = join_all(jobs.into_iter().map(|job| job.run(link.clone()))).await;
            let mut broken = None;
            for (job, outcome) in done {
                let index = job.index;
                match outcome {
                    Ok(outcome) => self.landed(job, outcome),
                    Err(fault) if fault.is_about_the_connection() => {
                        self.dirty.insert(index);
                        broken = Some(fault);
                    }
                    Err(fault) => {
                        self.failed(fault);
                        refused.push(index);
                    }
                }
            }
            if let Some(fault) = broken {
                self.dirty.extend(refused);
                return Err(fault);
            }
        }
        Ok(refused)
    }

    fn job(&mut self, index: usize) -> Option<Job> {
        let (now, ttl) = (Now::read(), self.config.ttl);
        let item = self.items.get_mut(index)?;
        if let Some(end_ms) = item.end_ms.take() {
            self.ends.remove(&(end_ms, index));
        }
        let work = match item.wanted(ttl, now) {
            Wanted::Values { token, values, ttl_ms, until_ms } => {
                item.end_ms = Some(until_ms);
                self.ends.insert((until_ms, index));
                let keys = item.keys.iter().map(|key| key.name.clone()).collect();
                Work::Write { token, keys, values, ttl_ms }
            }
            Wanted::Nothing => Work::Delete(item.deletable(now)),
        };
        Some(Job { index, work })
    }

    /// What has come of a job.
    fn landed(&mut self, job: Job, outcome: Outcome) {
        match (job.work, outcome) {
            (Work::Write { token, values, .. }, Outcome::Written(before)) => {
                self.stats.writes.fetch_add(values.len() as u64, Relaxed);
                let Some(item) = self.items.get_mut(job.index) else { return };
                item.own(token);
                self.judge(job.index, &before);
                if let Some(item) = self.items.get_mut(job.index) {
                    item.written(values);
                }
            }
            (_, Outcome::Deleted(deleted)) => {
                self.stats.deletes.fetch_add(deleted, Relaxed);
                if let Some(item) = self.items.get_mut(job.index) {
                    item.deleted();
                }
            }
            (Work::Delete(_), Outcome::Written(_)) => {}
        }
    }

    /// Somebody else's token over ours is word of a rival.
    fn judge(&mut self, index: usize, before: &[Option<Vec<u8>>]) {
        let Some(item) = self.items.get(index) else { return };
        let found: Vec<Found> =
            before.iter().enumerate().map(|(key, found)| item.judge(key, found.as_deref())).collect();
        let key = |of: Found| found.iter().position(|found| *found == of).and_then(|at| item.keys.get(at));
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

    /// Looks at some of the keys, at others the next time. What is missing tells of a flush, so all is written again.
    async fn look(&mut self, link: &mut Link) -> Result<(), Fault> {
        let count = self.items.len();
        let some: Vec<usize> = (0..count.min(LOOKS)).map(|step| (self.look_from + step) % count).collect();
        self.look_from = some.last().map_or(0, |last| (last + 1) % count.max(1));
        let written = |index: &usize| self.items.get(*index).is_some_and(Item::is_written);
        let some: Vec<usize> = some.into_iter().filter(written).collect();
        let keys = |index: &usize| self.items.get(*index).map_or(&[][..], |item| &item.keys);
        let names: Vec<&str> = some.iter().flat_map(keys).map(|key| key.name.as_str()).collect();
        let found = link.look(&names).await?;
        let mut found = found.iter();
        let (mut missing, mut overwritten) = (false, Vec::new());
        for index in some {
            let Some(item) = self.items.get(index) else { continue };
            for (key, found) in (0..item.keys.len()).zip(found.by_ref()) {
                match item.judge(key, found.as_deref()) {
                    Found::Ours => {}
                    Found::Absent => missing = true,
                    // Judged again, and reported, when it is written.
                    Found::Rival | Found::Foreign => overwritten.push(index),
                }
            }
            if overwritten.last() != Some(&index) {
                self.suspects.remove(&index);
            } else if self.table.sharing.node().is_some() && self.suspects.insert(index) {
                overwritten.retain(|one| *one != index);
            }
        }
        self.dirty.extend(overwritten);
        if missing {
            debug!(sink = %self.config, "keys of ours are gone; all are written again");
            self.dirty.extend(0..count);
        }
        Ok(())
    }

    /// True of one of several nodes that does not hear of the others.
    fn is_cut_off(&self) -> bool {
        self.table.sharing.node().is_some() && self.table.sharing.is_up() != Some(true)
    }

    /// When the next value in Redis ends, on the runtime's clock.
    fn next_end(&self) -> Option<Instant> {
        let (end_ms, _) = self.ends.first()?;
        Some(Instant::now() + Duration::from_millis(end_ms.saturating_sub(boot_ms())))
    }

    fn note_ended(&mut self) {
        let now_ms = boot_ms();
        while let Some((_, index)) = self.ends.first().copied().filter(|(end_ms, _)| *end_ms <= now_ms) {
            self.ends.pop_first();
            self.dirty.insert(index);
        }
    }

    fn next_backoff(&mut self) -> Duration {
        self.backoff = (self.backoff * 2).clamp(BACKOFF_MIN, BACKOFF_MAX);
        // Never at once, or a Redis that refuses would be asked without a pause.
        self.backoff.mul_f64(fastrand::f64().mul_add(0.5, 0.5))
    }

    fn all_is_well(&mut self) {
        self.backoff = Duration::ZERO;
        self.stats.good();
        if let Some((fault, unsaid)) = self.log.end() {
            info!(sink = %self.config, after = fault.class(), unsaid, "the sink is written again");
        }
    }

    fn failed(&mut self, fault: Fault) {
        self.stats.failed(fault.class());
        if fault == Fault::NoDescriptor {
            self.backoff = self.backoff.min(BACKOFF_WITHOUT_DESCRIPTOR / 2);
        }
        let Some(unsaid) = self.log.say(fault, boot_ms(), LOG_AGAIN_MS) else { return };
        let (class, advice) = (fault.class(), fault.advice());
        warn!(sink = %self.config, class, unsaid, advice, "the sink cannot be written: {fault}");
    }
}

/// What to do about one credential.
struct Job {
    index: usize,
    work: Work,
}

enum Work {
    Write { token: Bytes, keys: Vec<String>, values: Vec<Vec<u8>>, ttl_ms: Option<u64> },
    Delete(Vec<(String, Vec<u8>)>),
}

enum Outcome {
    /// What was under each key before.
    Written(Vec<Option<Vec<u8>>>),
    /// How many were deleted.
    Deleted(u64),
}

impl Job {
    async fn run(self, mut link: Link) -> (Job, Result<Outcome, Fault>) {
        let outcome = match &self.work {
            Work::Write { keys, values, ttl_ms, .. } => {
                let keys: Vec<&str> = keys.iter().map(String::as_str).collect();
                link.write(&keys, values, *ttl_ms).await.map(Outcome::Written)
            }
            Work::Delete(expected) if expected.is_empty() => Ok(Outcome::Deleted(0)),
            Work::Delete(expected) => link.delete_ours(expected).await.map(Outcome::Deleted),
        };
        (self, outcome)
    }
}

/// Ticks from one period on.
fn every(period_ms: u64) -> Interval {
    let period = Duration::from_millis(period_ms);
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
