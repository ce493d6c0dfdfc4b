//! The one writer of the table: sleeps until the policy says so, sends a flight, publishes what it brings.
//!
//! One driver task holds all state; flights are tasks of their own and touch none of it. Only the driver
//! publishes, so a late answer can never replace a newer value. A value is swapped, never cleared, and no
//! failure ends the loop: only the cancellation does.

use std::collections::HashMap;
use std::future::poll_fn;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use tokio::sync::{Semaphore, mpsc};
use tokio::task::{Id, JoinError, JoinHandle, JoinSet};
use tokio::time::{Instant, MissedTickBehavior};
use tokio_util::sync::CancellationToken;
use tokio_util::time::{DelayQueue, delay_queue};
use tracing::warn;

use super::check_budget::CheckBudget;
use super::flight::{Flight, Landing, Outcome, Purpose};
use super::generation;
use super::policy::{Adopted, Answer};
use super::probing::{Rounds, UNDER_WAY_MAX};
use super::saver::Saver;
use super::slot::Slot;
use super::table::{CredentialId, Event, Published, Report, State, Table, log_credential};
use super::ticket_files::TicketFile;
use super::turn::Shown;
use super::verify_ticket::Arrival;
use crate::clock::{self, BootMs, Clock, Now, Spacing, some};
use crate::cluster::{News, Unreachable};
use crate::files::watch::{self, Followed};
use crate::platform::Renewal;
use crate::platform::{Class, Failure, Probe, Sent, Token, Upstream, Wait};
use crate::secret::Secret;
use crate::supervision::Supervisor;

/// Keeps every credential current until told to stop.
pub struct Refresher {
    pub(super) table: Arc<Table>,
    pub(super) reports: mpsc::Receiver<Report>,
    /// Verify tickets, as they come.
    pub(super) arrivals: mpsc::Receiver<Arrival>,
    pub(super) ticket_files: Vec<TicketFile>,
    pub(super) slots: Vec<Slot>,
    /// Who is fetched with whose value.
    pub(super) children: HashMap<CredentialId, Vec<CredentialId>>,
    pub(super) upstream: Arc<dyn Upstream>,
    pub(super) clock: Arc<dyn Clock>,
    pub(super) saver: Option<Saver>,
    /// The store that several nodes share, and the verify tickets in it.
    pub(super) watch: Option<Watch>,
    pub(super) tickets: Vec<SharedTicket>,
    pub(super) concurrency: usize,
    pub(super) total_timeout_ms: u64,
    /// Hears of tasks of the refresher's that end too early.
    pub(super) supervisor: Option<Supervisor>,
    pub(super) watchdog: Option<Watchdog>,
}

/// Somebody who wants to hear from the loop.
pub(super) struct Watchdog {
    every: Duration,
    due_ms: u64,
    feed: Box<dyn FnMut() + Send>,
}

/// What a timer is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Alarm {
    Try(CredentialId),
    Probe(CredentialId),
    /// The next one whose turn it is.
    Round,
}

/// What a spawned task brings home.
enum Home {
    Landed(Box<Landing>),
    /// A classic value has reached the disk, or has waited long enough.
    Persisted,
    /// Another node has looked into the value, or nobody has.
    Wished(Result<(), Unreachable>),
}

/// News of the shared store that may wait; its watcher waits with the rest.
const NEWS_MAX: usize = 256;
const TICK: Duration = Duration::from_secs(5);
/// Clocks that drift apart by more than this between two ticks mean a suspend or a jump.
const JUMP_MS: u64 = 1_000;
const LANDING_WAIT: Duration = Duration::from_secs(8);
/// A slow disk gets so long; it comes after [`LANDING_WAIT`], and service managers kill after 20 s.
const FLUSH_WAIT: Duration = Duration::from_secs(5);
/// Longest wait of a classic value for the disk; see [`Driver::publish_after_persisting`].
const PERSIST_WAIT_MS: u64 = 1_000;
/// The same where there is nothing to serve meanwhile and readers are held.
const PERSIST_WAIT_OF_NOTHING_MS: u64 = 200;
/// Start-up calls for access tokens past the first few are spread so thin; tickets follow their token.
const SPREAD_MS: u64 = 5;

impl Refresher {
    /// A task of its own that ends too early ends the server.
    pub fn supervised_by(self, supervisor: &Supervisor) -> Refresher {
        Refresher { supervisor: Some(supervisor.clone()), ..self }
    }

    /// Calls this about so often for as long as the loop goes round, and from the loop itself: it must not wait.
    pub fn with_watchdog(self, every: Duration, feed: impl FnMut() + Send + 'static) -> Refresher {
        Refresher { watchdog: Some(Watchdog { every, due_ms: 0, feed: Box::new(feed) }), ..self }
    }

    /// A task that must run for as long as this does.
    fn spawn_supervised(&self, part: &str, work: impl Future<Output = ()> + Send + 'static) -> JoinHandle<()> {
        let alive = self.supervisor.as_ref().map(|supervisor| supervisor.watch(part));
        match alive {
            Some(alive) => tokio::spawn(alive.during(work)),
            None => tokio::spawn(work),
        }
    }

    /// Runs until `shutdown`. Then lets calls already sent come home (8 s at most), writes the state, and returns.
    pub async fn run(mut self, shutdown: CancellationToken) {
        // The guard ends the writer also if this future is dropped half-way.
        let writing = CancellationToken::new();
        let _end_writer = writing.clone().drop_guard();
        let writer = self.saver.clone().map(|saver| {
            self.spawn_supervised("the writer of the state file", saver.run(self.table.clone(), writing.clone()))
        });
        let watching = CancellationToken::new();
        let _end_watch = watching.clone().drop_guard();
        // It outlives the watch.
        let (tells, secrets) = mpsc::unbounded_channel();
        let mut followed = self.followed_secrets(&tells);
        followed
            .extend(std::mem::take(&mut self.ticket_files).into_iter().map(|file| Box::new(file) as Box<dyn Followed>));
        if !followed.is_empty() {
            self.spawn_supervised("the watch on secret files", watch::follow(followed, watching));
        }
        let saver = self.saver.clone();
        let (told, news) = mpsc::channel(NEWS_MAX);
        let listening = CancellationToken::new();
        let _end_listening = listening.clone().drop_guard();
        if let Some(Watch { shared, watched }) = self.watch.take() {
            self.spawn_supervised("the watch on the shared state", shared.watch(watched, told, listening));
        }
        let client_checks = CheckBudget::new(self.clock.boot_ms());
        let mut driver = Driver {
            permits: Arc::new(Semaphore::new(self.concurrency.max(1))),
            rounds: Rounds::new(self.turn_takers(), self.clock.boot_ms()),
            round_timer: None,
            turns_under_way: 0,
            turn_permits: Arc::new(Semaphore::new(UNDER_WAY_MAX)),
            refresher: self,
            queue: DelayQueue::new(),
            tasks: JoinSet::new(),
            owners: HashMap::new(),
            cancel: shutdown.child_token(),
            secrets,
            client_checks,
            refusal_logged: Spacing::default(),
            news,
        };
        driver.schedule_all();
        driver.drive(&shutdown).await;
        driver.land_all().await;
        if let Some(saver) = saver
            && !saver.flush(FLUSH_WAIT).await
        {
            warn!("the state could not be written before the end");
        }
        writing.cancel();
        if let Some(writer) = writer {
            // Ended by the token, unless the disk holds it; a panic in it has been reported already.
            let _ = tokio::time::timeout(FLUSH_WAIT, writer).await;
        }
    }
}

struct Driver {
    refresher: Refresher,
    permits: Arc<Semaphore>,
    /// Who is tried when, if nobody doubts the value.
    rounds: Rounds,
    round_timer: Option<delay_queue::Key>,
    turns_under_way: usize,
    /// Apart from `permits`: a try that gets no answer must not hold up a renewal.
    turn_permits: Arc<Semaphore>,
    queue: DelayQueue<Alarm>,
    tasks: JoinSet<Home>,
    /// Whose task it is; also known when it panics.
    owners: HashMap<Id, CredentialId>,
    cancel: CancellationToken,
    /// What secret files hold, as it changes.
    secrets: mpsc::UnboundedReceiver<SecretRead>,
    /// Looks that clients may cause.
    client_checks: CheckBudget,
    refusal_logged: Spacing,
    news: mpsc::Receiver<News>,
}

impl Driver {
    async fn drive(&mut self, shutdown: &CancellationToken) {
        let watched = self.refresher.watchdog.as_ref().map_or(TICK, |watchdog| watchdog.every);
        let mut tick = tokio::time::interval(TICK.min(watched));
        tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut clocks = (self.refresher.clock.boot_ms(), Instant::now());
        loop {
            self.beat();
            tokio::select! {
                biased;
                () = shutdown.cancelled() => return,
                Some(home) = self.tasks.join_next_with_id() => self.came_home(home),
                Some(due) = poll_fn(|cx| self.queue.poll_expired(cx)) => match due.into_inner() {
                    Alarm::Try(id) => self.due(id),
                    Alarm::Probe(id) => self.probe_due(id),
                    Alarm::Round => self.round_due(),
                },
                _ = tick.tick() => {
                    let now = (self.refresher.clock.boot_ms(), Instant::now());
                    if jumped(clocks, now) {
                        warn!("the machine was suspended or a clock jumped; schedules are set anew");
                        self.rearm_all();
                    }
                    clocks = now;
                }
                Some(news) = self.news.recv() => self.heard(news),
                Some(arrival) = self.refresher.arrivals.recv() => self.ticket_arrived(&arrival),
                Some(read) = self.secrets.recv() => self.secret_read(&read),
                // Last: no flood of reports may hold up a renewal.
                Some(report) = self.refresher.reports.recv() => self.reported(report),
            }
        }
    }

    /// Shows that the loop goes round, which it does with every tick at least.
    fn beat(&mut self) {
        let now_ms = clock::monotonic_ms();
        self.refresher.table.heartbeat_ms.store(now_ms, Ordering::Relaxed);
        if let Some(watchdog) = self.refresher.watchdog.as_mut().filter(|watchdog| watchdog.due_ms <= now_ms) {
            // Half of it: the tick that comes a moment early counts.
            watchdog.due_ms = now_ms + watchdog.every.as_millis() as u64 / 2;
            (watchdog.feed)();
        }
    }

    /// The first tries: at once for as many as may fly at once, the others spread a little.
    fn schedule_all(&mut self) {
        let now_ms = self.refresher.clock.boot_ms();
        let tokens = self.refresher.slots.iter().filter(|slot| slot.kind.renewal != Renewal::Poll).count();
        let spread_ms = tokens as u64 * SPREAD_MS;
        let mut urgent = 0;
        for id in 0..self.refresher.slots.len() {
            let patience_ms = self.first_patience_ms(id);
            let slot = &mut self.refresher.slots[id];
            let mut at_ms = slot.standing.first_try_ms(now_ms, fastrand::f64());
            if at_ms <= now_ms || slot.urgent.is_some() {
                urgent += 1;
                at_ms =
                    if urgent <= self.refresher.concurrency { now_ms } else { now_ms + fastrand::u64(0..=spread_ms) };
            }
            self.arm(id, at_ms.max(now_ms + patience_ms));
            if self.refresher.slots[id].standing.left_ms(now_ms) == 0 && self.lacks_token(id) {
                self.refresher.slots[id].note_waiting();
            }
            self.set_next_probe(id);
            self.plan_probe(id);
        }
        self.plan_round();
    }

    fn arm(&mut self, id: CredentialId, at_ms: BootMs) {
        let slot = &mut self.refresher.slots[id];
        if let Some(key) = slot.timer.take() {
            self.queue.try_remove(&key);
        }
        slot.next_try_ms = at_ms;
        slot.credential.update_status(|status| status.next_try_boot_ms = at_ms);
        slot.timer = Some(self.queue.insert(Alarm::Try(id), delay(at_ms, self.refresher.clock.boot_ms())));
    }

    fn rearm_all(&mut self) {
        for id in 0..self.refresher.slots.len() {
            if !self.refresher.slots[id].flying {
                self.arm(id, self.refresher.slots[id].next_try_ms);
                self.plan_probe(id);
            }
        }
        self.plan_round();
    }

    fn due(&mut self, id: CredentialId) {
        let slot = &mut self.refresher.slots[id];
        slot.timer = None;
        if slot.flying {
            // Its landing sets the next try.
            return;
        }
        if slot.follows {
            return self.follow_on(id);
        }
        slot.end_stand_in(self.refresher.clock.unix_ms());
        let purpose = match slot.urgent.take() {
            Some(Purpose::Check) if slot.standing.left_ms(self.refresher.clock.boot_ms()) > 0 => Purpose::Check,
            _ => Purpose::Renew,
        };
        if !purpose.only_probes(slot.kind) && self.lacks_token(id) {
            return self.wait_for_token(id);
        }
        self.start(id, purpose);
    }

    /// One flight at most per credential: callers have looked at `flying`.
    fn start(&mut self, id: CredentialId, purpose: Purpose) {
        if self.refresher.slots[id].follows {
            return self.wish(id, purpose);
        }
        if let Err(denied) = self.charge(id, purpose) {
            return self.denied(id, purpose, &denied);
        }
        let only_probes = purpose.only_probes(self.refresher.slots[id].kind);
        let intent = if only_probes { None } else { self.note_intent(id) };
        let parent = self.refresher.slots[id].parent.map(|parent| self.refresher.slots[parent].credential.clone());
        let (now, total_timeout_ms) = (self.refresher.clock.now(), self.refresher.total_timeout_ms);
        let slot = &mut self.refresher.slots[id];
        let sharing = if only_probes { None } else { slot.sharing(purpose, total_timeout_ms, now) };
        slot.flying = true;
        let is_turn = slot.probes.is_turn && purpose == Purpose::Probe;
        let patience_ms = if is_turn { slot.next_try_ms.saturating_sub(now.boot_ms) } else { total_timeout_ms };
        slot.credential.update_status(|status| {
            status.checks += u64::from(matches!(purpose, Purpose::Check | Purpose::Probe) && !is_turn);
            status.forced += u64::from(purpose == Purpose::Force);
            if !only_probes && !matches!(status.state, State::Blocked | State::Waiting) {
                status.state = State::Renewing;
            }
        });
        let flight = Flight {
            purpose,
            appid: slot.appid.clone(),
            base_url: slot.base_url.clone(),
            kind: slot.kind,
            parent,
            source: slot.source.clone(),
            grant: slot.grant.clone(),
            held: slot.credential.published().map(|published| published.value.clone()),
            standing: slot.standing.clone(),
            total_timeout_ms: self.refresher.total_timeout_ms,
            upstream: self.refresher.upstream.clone(),
            clock: self.refresher.clock.clone(),
            permits: if is_turn { self.turn_permits.clone() } else { self.permits.clone() },
            adopts_from: slot.adopts_from.clone().filter(|_| matches!(purpose, Purpose::Renew | Purpose::Replace)),
            patience: Duration::from_millis(patience_ms),
            cancel: self.cancel.clone(),
            intent,
            sharing,
        };
        let task = self.tasks.spawn(async move {
            #[cfg(test)]
            tests::panic_if_asked(&flight.appid);
            Home::Landed(Box::new(flight.fly().await))
        });
        self.owners.insert(task.id(), id);
    }

    /// Classic only. If we are killed before the answer is in the state, the next start knows that the value
    /// it finds may be on its way out.
    fn note_intent(&self, id: CredentialId) -> Option<(Saver, u64)> {
        let slot = &self.refresher.slots[id];
        // With other nodes the intent stands in their store, where all can see it.
        let here = slot.kind.renewal == Renewal::Mint && slot.share.is_none();
        let saver = self.refresher.saver.as_ref().filter(|_| here)?;
        let unix_ms = self.refresher.clock.unix_ms();
        let version = saver.change(id, |entry| {
            if let Some(entry) = entry {
                entry.intent_unix_ms.get_or_insert(unix_ms);
            }
        });
        // A value just withdrawn is on its way to the disk; the note must not wait for the pause behind that, nor for the
        // backoff of a disk that may be good again.
        let version = if slot.standing.is_withdrawn() || saver.is_failing() { saver.at_once() } else { version };
        Some((saver.clone(), version))
    }

    fn came_home(&mut self, home: Result<(Id, Home), JoinError>) {
        let (task, home) = match home {
            Ok((task, home)) => (task, Ok(home)),
            Err(error) => (error.id(), Err(error)),
        };
        let owner = self.owners.remove(&task);
        match (owner, home) {
            (Some(id), Ok(Home::Landed(landing))) => self.landed(id, *landing),
            (Some(id), Ok(Home::Persisted)) => self.publish(id),
            (Some(id), Ok(Home::Wished(came))) => self.wished(id, came),
            (Some(id), Err(error)) => self.crashed(id, &error),
            // Every task has an owner.
            (None, _) => {}
        }
    }

    fn crashed(&mut self, id: CredentialId, error: &JoinError) {
        self.refresher.table.panics.fetch_add(1, Ordering::Relaxed);
        self.end_turn(id);
        log_credential!(error, self.refresher.slots[id].credential, %error, "a fetch task crashed; this is a bug");
        let appid = self.refresher.slots[id].appid.clone();
        let failure = Failure::transport(&appid, Sent::Ambiguous, "the fetch task crashed");
        if !self.failed(id, Purpose::Renew, None, &failure, self.refresher.clock.boot_ms()) {
            self.publish(id);
        }
    }

    fn landed(&mut self, id: CredentialId, landing: Landing) {
        let Landing { purpose, calls, probes, adoption, secret, refused_parent, ledger, shown, outcome } = landing;
        let adopted = self.note_adoption(id, adoption, &outcome);
        self.refresher.slots[id].credential.update_status(|status| status.calls += calls);
        self.end_turn(id);
        self.settle_charge(id, &outcome, adopted.is_some());
        self.settle_client_check(id, &outcome);
        self.take_ledger(id, ledger);
        self.count_probes(id, probes);
        if adopted.is_none() {
            self.note_landing(id, purpose, &outcome);
        }
        if let (Some(share), false) = (&mut self.refresher.slots[id].share, matches!(outcome, Outcome::Told { .. })) {
            share.told = 0;
        }
        let goes_on = match outcome {
            Outcome::Answered { token, sent_ms, received_ms, probe } => {
                self.look_for_a_rival(id, purpose, &token);
                if let Shown::Published(generation) | Shown::Unpublished(generation, _) = &shown
                    && self.is_overtaken(id, *generation, &token.value)
                {
                    return self.finish(id);
                }
                let generation = match shown {
                    Shown::Refused(answer) => return self.beaten(id, &answer, sent_ms),
                    Shown::NotShared => None,
                    Shown::Published(generation) => Some((generation, None)),
                    Shown::Unpublished(generation, unreachable) => Some((generation, Some(unreachable))),
                };
                self.answered(id, Came { purpose, token, sent_ms, received_ms, probe, generation, adopted })
            }
            Outcome::Failed { mut failure, sent_ms } => {
                if let Some(generation) = refused_parent {
                    self.judge_refused_token(id, generation, &mut failure);
                }
                let goes_on = self.failed(id, purpose, secret, &failure, sent_ms);
                self.doubt_parent(id, refused_parent);
                goes_on
            }
            Outcome::Probed { probe, sent_ms } => self.probed(id, probe, sent_ms),
            Outcome::NoToken => {
                self.intent_over(id);
                self.wait_for_token(id);
                false
            }
            Outcome::Told { answer, next } => return self.told(id, &answer, next),
            Outcome::Denied(denied) => return self.denied(id, purpose, &denied),
            Outcome::OutOfReach(unreachable) => self.out_of_reach(id, purpose, &unreachable),
            Outcome::Late => {
                self.late(id);
                false
            }
            Outcome::Cancelled => {
                self.intent_over(id);
                self.resume(id);
                false
            }
        };
        // Otherwise another leg follows: the value's way to the disk, or the next call.
        if !goes_on {
            self.finish(id);
        }
    }

    /// Takes the schedule up where a check interrupted it.
    fn resume(&mut self, id: CredentialId) {
        let (now_ms, slot) = (self.refresher.clock.boot_ms(), &self.refresher.slots[id]);
        // A check that came before the schedule was made has none to resume.
        let overdue = slot.next_try_ms <= now_ms;
        let at_ms = if overdue { slot.standing.first_try_ms(now_ms, fastrand::f64()) } else { slot.next_try_ms };
        self.arm(id, at_ms);
    }

    /// The flight is over: whoever waited for a check gets their answer.
    fn finish(&mut self, id: CredentialId) {
        let slot = &mut self.refresher.slots[id];
        slot.flying = false;
        for waiter in slot.waiters.drain(..) {
            // The client may have gone.
            let _ = waiter.send(());
        }
        if slot.share.as_ref().is_some_and(|share| share.unpublished) {
            self.offer(id);
        }
        self.try_replaced_secret(id);
        self.plan_probe(id);
    }

    /// True if the flight goes on: the value is still on its way to the disk, or another call is needed.
    fn answered(&mut self, id: CredentialId, came: Came) -> bool {
        let Came { purpose, token, sent_ms, received_ms, probe, generation, adopted } = came;
        let slot = &mut self.refresher.slots[id];
        let held = slot.credential.published();
        let same = held.as_ref().is_some_and(|held| held.value == token.value);
        if same && !self.accept_same(id, purpose, probe, received_ms) {
            return self.refresher.slots[id].flying;
        }
        let slot = &mut self.refresher.slots[id];
        let answer = Answer { sent_ms, received_ms, expires_in_s: token.expires_in_s, told: token.told, same };
        let mut next_ms = slot.standing.answered(&answer, fastrand::f64());
        if let Some(adopted) = adopted {
            next_ms = slot.standing.note_adopted(adopted, received_ms);
        }
        (slot.blocked_with, slot.refused_with) = (None, None);
        let known = held.as_ref().map_or(0, |held| held.generation);
        let own = if same { known } else { generation::next(known, generation::first(self.refresher.clock.unix_ms())) };
        let (generation, unreachable) = generation.unwrap_or((own, None));
        let expires_boot_ms = slot.standing.expires_ms.unwrap_or(sent_ms);
        slot.credential.update_status(|status| status.same_answers += u64::from(same));
        slot.say_answered(&token, same, generation);
        if !same {
            // Whatever was to be found out was about the old one.
            slot.probes.wanted_ms = None;
            slot.note_replaced(received_ms);
            let received_ago = self.refresher.clock.boot_ms().saturating_sub(received_ms);
            slot.fetched =
                Some(Now { boot_ms: received_ms, unix_ms: self.refresher.clock.unix_ms() - received_ago as i64 });
        }
        if !same {
            self.note_event(id, Event::Renewed { generation, expires_in_s: token.expires_in_s, from: None });
            self.note_shown(id, unreachable.as_ref());
        }
        let slot = &mut self.refresher.slots[id];
        let published = slot.published(token.value, generation, expires_boot_ms);
        let waits = !same && slot.kind.renewal == Renewal::Mint && self.refresher.saver.is_some();
        let version = self.persist(id, &published);
        self.calm(id);
        self.arm(id, next_ms);
        self.set_next_probe(id);
        if waits && let Some((saver, version)) = self.refresher.saver.clone().zip(version) {
            self.publish_after_persisting(id, published, saver, version);
            return true;
        }
        self.refresher.slots[id].put(published);
        self.serve_children(id);
        false
    }

    /// Stable values are published first and persisted afterwards: after a crash WeChat gives them again. A classic
    /// one can't be had again, and publishing it before it is on disk would let a restart serve its predecessor,
    /// which dies in 5 minutes, to clients that have seen the successor. So the disk goes first, but for a second at
    /// most (a quarter of the overlap for short lives), during which the old value is as good as the new.
    fn publish_after_persisting(&mut self, id: CredentialId, published: Published, saver: Saver, version: u64) {
        let slot = &mut self.refresher.slots[id];
        let live = slot.credential.published().is_some_and(|old| self.refresher.clock.boot_ms() < old.expires_boot_ms);
        let wait_ms =
            if live { PERSIST_WAIT_MS.min(slot.standing.overlap_ms() / 4) } else { PERSIST_WAIT_OF_NOTHING_MS };
        // With nothing to serve, the pause between two writes is not waited for.
        let version = if live { version } else { saver.at_once() };
        slot.pending = Some(published);
        let task = self.tasks.spawn(async move {
            saver.wait(version, Duration::from_millis(wait_ms)).await;
            Home::Persisted
        });
        self.owners.insert(task.id(), id);
    }

    fn publish(&mut self, id: CredentialId) {
        let slot = &mut self.refresher.slots[id];
        // Another node's later value may have come meanwhile.
        let current = slot.credential.published().map_or(0, |current| current.generation);
        if let Some(published) = slot.pending.take().filter(|published| published.generation >= current) {
            slot.put(published);
            self.serve_children(id);
        }
        self.finish(id);
    }

    fn persist(&self, id: CredentialId, published: &Published) -> Option<u64> {
        let saver = self.refresher.saver.as_ref()?;
        let entry = self.refresher.slots[id].entry(published, self.refresher.clock.now());
        Some(saver.change(id, |kept| *kept = entry))
    }

    /// A call has ended whose end we saw.
    fn intent_over(&self, id: CredentialId) {
        if self.refresher.slots[id].kind.renewal == Renewal::Mint
            && let Some(saver) = &self.refresher.saver
        {
            saver.change(id, |entry| {
                if let Some(entry) = entry {
                    entry.intent_unix_ms = None;
                }
            });
        }
    }

    /// All is well again.
    fn calm(&mut self, id: CredentialId) {
        let slot = &mut self.refresher.slots[id];
        if let Some((_, unsaid)) = slot.log.end() {
            log_credential!(info, slot.credential, suppressed = some(unsaid), "recovered");
            self.note_event(id, Event::Recovered);
        }
        let slot = &mut self.refresher.slots[id];
        slot.credential.update_status(|status| {
            status.state = State::Fresh;
            status.waits_for_parent = false;
            status.last_error = None;
        });
    }

    /// True if the flight goes on, with the stand-in.
    fn failed(
        &mut self,
        id: CredentialId,
        purpose: Purpose,
        secret: Option<Secret>,
        failure: &Failure,
        sent_ms: BootMs,
    ) -> bool {
        let now = self.refresher.clock.now();
        let slot = &mut self.refresher.slots[id];
        let live = slot.standing.left_ms(now.boot_ms) > 0;
        let harmless = purpose == Purpose::Check && slot.kind.renewal != Renewal::Mint && live;
        let next_ms = if harmless {
            // The check says nothing about the value; its schedule stands.
            slot.next_try_ms
        } else {
            slot.standing.failed(failure.class, failure.sent, sent_ms, now, fastrand::f64())
        };
        slot.blocked_with = matches!(failure.class, Class::Operator(_) | Class::OwnBug).then_some(secret);
        let shortened = slot.adjust_end();
        slot.note_failure(failure, now.boot_ms, next_ms);
        self.note_failed(id, failure);
        match shortened {
            // The state knows the nearer end now; that says all the intent did.
            Some(published) => drop(self.persist(id, &published)),
            None if failure.sent != Sent::Ambiguous => self.intent_over(id),
            None => {}
        }
        let slot = &mut self.refresher.slots[id];
        if failure.class == Class::Wait(Wait::NextDay) && slot.begin_stand_in(now.unix_ms) {
            self.note_stand_in(id);
            self.start(id, purpose);
            return true;
        }
        slot.credential.settle();
        self.arm(id, next_ms);
        false
    }

    /// After the end was called: nothing new is sent, what was sent is waited for.
    async fn land_all(&mut self) {
        let waiting = async {
            while let Some(home) = self.tasks.join_next_with_id().await {
                self.came_home(home);
            }
        };
        if tokio::time::timeout(LANDING_WAIT, waiting).await.is_err() {
            warn!("calls to WeChat were still under way at the end; their answers are lost");
        }
    }
}

/// A call's value, and what came with it.
struct Came {
    purpose: Purpose,
    token: Token,
    sent_ms: BootMs,
    received_ms: BootMs,
    probe: Option<Probe>,
    /// It is the site's own.
    adopted: Option<Adopted>,
    /// Its number among all nodes, and why they do not have it yet; none without other nodes.
    generation: Option<(u64, Option<Unreachable>)>,
}

/// The way to an instant. A year is beyond any schedule; the queue's wheel would end a little later.
fn delay(at_ms: BootMs, now_ms: BootMs) -> Duration {
    Duration::from_millis(at_ms.saturating_sub(now_ms).min(365 * 86_400_000))
}

/// True if the boot clock and tokio's have drifted apart: tokio's stands still in a suspend.
fn jumped(before: (BootMs, Instant), now: (BootMs, Instant)) -> bool {
    let boot = now.0.saturating_sub(before.0);
    let tokio = u64::try_from(now.1.duration_since(before.1).as_millis()).unwrap_or(u64::MAX);
    boot.abs_diff(tokio) > JUMP_MS
}

pub use following::{SharedTicket, Watch};
use secrets::SecretRead;

mod adopting;
mod arrivals;
mod doubt;
mod families;
mod following;
mod notes;
mod quota;
mod rounds;
mod secrets;
mod sharing;
#[cfg(test)]
mod tests;
mod turns;
