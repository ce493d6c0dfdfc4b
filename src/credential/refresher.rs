//! The one writer of the table: sleeps until the policy says so, sends a fetch, publishes what it brings.
//!
//! One driver task holds all state; fetches are tasks of their own and touch none of it. Only the driver
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

use super::cluster_fetch::SharingResult;
use super::fetch_task::{FetchOutcome, FetchPurpose, FetchReport, FetchTask};
use super::generation;
use super::probe_queue::{PROBES_RUNNING_MAX, ProbeQueue};
use super::schedule::{Adopted, RenewalAnswer};
use super::slot::CredentialSlot;
use super::state_writer::StateWriter;
use super::table::{CredentialId, CredentialState, Event, Published, Table, VerificationRequest, log_credential};
use super::ticket_files::TicketFile;
use super::verification_budget::VerificationBudget;
use super::verify_ticket::ReceivedTicket;
use crate::clock::{self, BootMs, Clock, LogThrottle, Now, nonzero};
use crate::cluster::{ClusterEvent, Unreachable};
use crate::files::watch::{self, WatchedFiles};
use crate::platform::Renewal;
use crate::platform::{Class, Delivery, Failure, Probe, Token, Upstream, Wait};
use crate::secret::Secret;
use crate::supervision::Supervisor;

/// Keeps every credential current until told to stop.
pub struct Refresher {
    pub(super) table: Arc<Table>,
    pub(super) reports: mpsc::Receiver<VerificationRequest>,
    /// Verify tickets, as they come.
    pub(super) received_tickets: mpsc::Receiver<ReceivedTicket>,
    pub(super) ticket_files: Vec<TicketFile>,
    pub(super) slots: Vec<CredentialSlot>,
    /// Who is fetched with whose value.
    pub(super) dependents: HashMap<CredentialId, Vec<CredentialId>>,
    pub(super) upstream: Arc<dyn Upstream>,
    pub(super) clock: Arc<dyn Clock>,
    pub(super) state_writer: Option<StateWriter>,
    /// The store that several nodes share, and the verify tickets in it.
    pub(super) watch: Option<ClusterWatch>,
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
enum Timer {
    Renewal(CredentialId),
    Probe(CredentialId),
    /// The next one whose turn it is.
    ProbeQueue,
}

/// What a spawned task gives back.
enum TaskOutput {
    Fetched(Box<FetchReport>),
    /// A classic value has reached the disk, or has waited long enough.
    Persisted,
    /// Another node has looked into the value, or nobody has.
    RefreshRequested(Result<(), Unreachable>),
}

/// News of the shared store that may wait; its watcher waits with the rest.
const NEWS_MAX: usize = 256;
const TICK: Duration = Duration::from_secs(5);
/// Clocks that drift apart by more than this between two ticks mean a suspend or a jump.
const JUMP_MS: u64 = 1_000;
const FETCH_WAIT: Duration = Duration::from_secs(8);
/// A slow disk gets so long; it comes after [`FETCH_WAIT`], and service managers kill after 20 s.
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

    /// Runs until `shutdown`. Then lets calls already sent finish (8 s at most), writes the state, and returns.
    pub async fn run(mut self, shutdown: CancellationToken) {
        // The guard ends the writer also if this future is dropped half-way.
        let writing = CancellationToken::new();
        let _end_writer = writing.clone().drop_guard();
        let writer = self.state_writer.clone().map(|state_writer| {
            self.spawn_supervised("the writer of the state file", state_writer.run(self.table.clone(), writing.clone()))
        });
        let watching = CancellationToken::new();
        let _end_watch = watching.clone().drop_guard();
        // It outlives the watch.
        let (tells, secrets) = mpsc::unbounded_channel();
        let mut watched = self.watched_secrets(&tells);
        watched.extend(
            std::mem::take(&mut self.ticket_files).into_iter().map(|file| Box::new(file) as Box<dyn WatchedFiles>),
        );
        if !watched.is_empty() {
            self.spawn_supervised("the watch on secret files", watch::watch_files(watched, watching));
        }
        let state_writer = self.state_writer.clone();
        let (told, news) = mpsc::channel(NEWS_MAX);
        let listening = CancellationToken::new();
        let _end_listening = listening.clone().drop_guard();
        if let Some(ClusterWatch { shared, watched }) = self.watch.take() {
            self.spawn_supervised("the watch on the shared state", shared.watch(watched, told, listening));
        }
        let client_checks = VerificationBudget::new(self.clock.boot_ms());
        let mut driver = Driver {
            permits: Arc::new(Semaphore::new(self.concurrency.max(1))),
            probe_queue: ProbeQueue::new(self.queued_credentials(), self.clock.boot_ms()),
            probe_queue_timer: None,
            queued_probes_running: 0,
            probe_permits: Arc::new(Semaphore::new(PROBES_RUNNING_MAX)),
            refresher: self,
            queue: DelayQueue::new(),
            tasks: JoinSet::new(),
            owners: HashMap::new(),
            cancel: shutdown.child_token(),
            secrets,
            client_checks,
            refusal_log: LogThrottle::default(),
            news,
        };
        driver.schedule_all();
        driver.drive(&shutdown).await;
        driver.finish_tasks().await;
        if let Some(state_writer) = state_writer
            && !state_writer.flush(FLUSH_WAIT).await
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
    probe_queue: ProbeQueue,
    probe_queue_timer: Option<delay_queue::Key>,
    queued_probes_running: usize,
    /// Apart from `permits`: a try that gets no answer must not hold up a renewal.
    probe_permits: Arc<Semaphore>,
    queue: DelayQueue<Timer>,
    tasks: JoinSet<TaskOutput>,
    /// Whose task it is; also known when it panics.
    owners: HashMap<Id, CredentialId>,
    cancel: CancellationToken,
    /// What secret files hold, as it changes.
    secrets: mpsc::UnboundedReceiver<SecretRead>,
    /// Looks that clients may cause.
    client_checks: VerificationBudget,
    refusal_log: LogThrottle,
    news: mpsc::Receiver<ClusterEvent>,
}

impl Driver {
    async fn drive(&mut self, shutdown: &CancellationToken) {
        let watched = self.refresher.watchdog.as_ref().map_or(TICK, |watchdog| watchdog.every);
        let mut tick = tokio::time::interval(TICK.min(watched));
        tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut clocks = (self.refresher.clock.boot_ms(), Instant::now());
        loop {
            self.record_heartbeat();
            tokio::select! {
                biased;
                () = shutdown.cancelled() => return,
                Some(output) = self.tasks.join_next_with_id() => self.on_task_done(output),
                Some(due) = poll_fn(|cx| self.queue.poll_expired(cx)) => match due.into_inner() {
                    Timer::Renewal(id) => self.on_renewal_timer(id),
                    Timer::Probe(id) => self.on_probe_timer(id),
                    Timer::ProbeQueue => self.on_probe_queue_timer(),
                },
                _ = tick.tick() => {
                    let now = (self.refresher.clock.boot_ms(), Instant::now());
                    if jumped(clocks, now) {
                        warn!("the machine was suspended or a clock jumped; schedules are set anew");
                        self.rearm_all();
                    }
                    clocks = now;
                }
                Some(news) = self.news.recv() => self.on_cluster_event(news),
                Some(received) = self.refresher.received_tickets.recv() => self.on_ticket(&received),
                Some(read) = self.secrets.recv() => self.on_secret_read(&read),
                // Last: no flood of reports may hold up a renewal.
                Some(report) = self.refresher.reports.recv() => self.on_verification_request(report),
            }
        }
    }

    /// Shows that the loop goes round, which it does with every tick at least.
    fn record_heartbeat(&mut self) {
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
        let tokens = self.refresher.slots.iter().filter(|slot| slot.credential_type.renewal != Renewal::Poll).count();
        let spread_ms = tokens as u64 * SPREAD_MS;
        let mut urgent = 0;
        for id in 0..self.refresher.slots.len() {
            let patience_ms = self.first_patience_ms(id);
            let slot = &mut self.refresher.slots[id];
            let mut at_ms = slot.renewal_state.first_try_ms(now_ms, fastrand::f64());
            if at_ms <= now_ms || slot.urgent.is_some() {
                urgent += 1;
                at_ms =
                    if urgent <= self.refresher.concurrency { now_ms } else { now_ms + fastrand::u64(0..=spread_ms) };
            }
            self.arm(id, at_ms.max(now_ms + patience_ms));
            if self.refresher.slots[id].renewal_state.left_ms(now_ms) == 0 && self.lacks_parent_token(id) {
                self.refresher.slots[id].set_waiting();
            }
            self.set_next_probe(id);
            self.plan_probe(id);
        }
        self.plan_queued_probe();
    }

    fn arm(&mut self, id: CredentialId, at_ms: BootMs) {
        let slot = &mut self.refresher.slots[id];
        if let Some(key) = slot.timer.take() {
            self.queue.try_remove(&key);
        }
        slot.next_try_ms = at_ms;
        slot.credential.update_status(|status| status.next_try_boot_ms = at_ms);
        slot.timer = Some(self.queue.insert(Timer::Renewal(id), delay(at_ms, self.refresher.clock.boot_ms())));
    }

    fn rearm_all(&mut self) {
        for id in 0..self.refresher.slots.len() {
            if !self.refresher.slots[id].fetching {
                self.arm(id, self.refresher.slots[id].next_try_ms);
                self.plan_probe(id);
            }
        }
        self.plan_queued_probe();
    }

    fn on_renewal_timer(&mut self, id: CredentialId) {
        let slot = &mut self.refresher.slots[id];
        slot.timer = None;
        if slot.fetching {
            // Its report sets the next try.
            return;
        }
        if slot.follows {
            return self.follow_on(id);
        }
        slot.end_fallback(self.refresher.clock.unix_ms());
        let purpose = match slot.urgent.take() {
            Some(FetchPurpose::Verify) if slot.renewal_state.left_ms(self.refresher.clock.boot_ms()) > 0 => {
                FetchPurpose::Verify
            }
            _ => FetchPurpose::Renew,
        };
        if !purpose.only_probes(slot.credential_type) && self.lacks_parent_token(id) {
            return self.wait_for_parent_token(id);
        }
        self.start_fetch(id, purpose);
    }

    /// One fetch at most per credential: callers have looked at `fetching`.
    fn start_fetch(&mut self, id: CredentialId, purpose: FetchPurpose) {
        if self.refresher.slots[id].follows {
            return self.request_refresh(id, purpose);
        }
        if let Err(denied) = self.try_charge_quota(id, purpose) {
            return self.on_quota_exceeded(id, purpose, &denied);
        }
        let only_probes = purpose.only_probes(self.refresher.slots[id].credential_type);
        let intent = if only_probes { None } else { self.record_intent(id) };
        let parent = self.refresher.slots[id].parent.map(|parent| self.refresher.slots[parent].credential.clone());
        let (now, total_timeout_ms) = (self.refresher.clock.now(), self.refresher.total_timeout_ms);
        let slot = &mut self.refresher.slots[id];
        let sharing = if only_probes { None } else { slot.sharing(purpose, total_timeout_ms, now) };
        slot.fetching = true;
        let is_queued_probe = slot.probes.is_queued_probe && purpose == FetchPurpose::Probe;
        let patience_ms = if is_queued_probe { slot.next_try_ms.saturating_sub(now.boot_ms) } else { total_timeout_ms };
        slot.credential.update_status(|status| {
            status.checks +=
                u64::from(matches!(purpose, FetchPurpose::Verify | FetchPurpose::Probe) && !is_queued_probe);
            status.forced += u64::from(purpose == FetchPurpose::Force);
            if !only_probes && !matches!(status.state, CredentialState::Blocked | CredentialState::Waiting) {
                status.state = CredentialState::Renewing;
            }
        });
        let fetch = FetchTask {
            purpose,
            appid: slot.appid.clone(),
            base_url: slot.base_url.clone(),
            credential_type: slot.credential_type,
            parent,
            source: slot.source.clone(),
            grant: slot.grant.clone(),
            held: slot.credential.published().map(|published| published.value.clone()),
            renewal_state: slot.renewal_state.clone(),
            total_timeout_ms: self.refresher.total_timeout_ms,
            upstream: self.refresher.upstream.clone(),
            clock: self.refresher.clock.clone(),
            permits: if is_queued_probe { self.probe_permits.clone() } else { self.permits.clone() },
            adopts_from: slot
                .adopts_from
                .clone()
                .filter(|_| matches!(purpose, FetchPurpose::Renew | FetchPurpose::Replace)),
            patience: Duration::from_millis(patience_ms),
            cancel: self.cancel.clone(),
            intent,
            sharing,
        };
        let task = self.tasks.spawn(async move {
            #[cfg(test)]
            tests::panic_if_asked(&fetch.appid);
            TaskOutput::Fetched(Box::new(fetch.run().await))
        });
        self.owners.insert(task.id(), id);
    }

    /// Classic only. If we are killed before the answer is in the state, the next start knows that the value
    /// it finds may be on its way out.
    fn record_intent(&self, id: CredentialId) -> Option<(StateWriter, u64)> {
        let slot = &self.refresher.slots[id];
        // With other nodes the intent stands in their store, where all can see it.
        let here = slot.credential_type.renewal == Renewal::Mint && slot.share.is_none();
        let state_writer = self.refresher.state_writer.as_ref().filter(|_| here)?;
        let unix_ms = self.refresher.clock.unix_ms();
        let version = state_writer.update_entry(id, |entry| {
            if let Some(entry) = entry {
                entry.intent_unix_ms.get_or_insert(unix_ms);
            }
        });
        // A value just withdrawn is on its way to the disk; the note must not wait for the pause behind that, nor for the
        // backoff of a disk that may be good again.
        let version = if slot.renewal_state.is_withdrawn() || state_writer.is_failing() {
            state_writer.request_write_now()
        } else {
            version
        };
        Some((state_writer.clone(), version))
    }

    fn on_task_done(&mut self, output: Result<(Id, TaskOutput), JoinError>) {
        let (task, output) = match output {
            Ok((task, output)) => (task, Ok(output)),
            Err(error) => (error.id(), Err(error)),
        };
        let owner = self.owners.remove(&task);
        match (owner, output) {
            (Some(id), Ok(TaskOutput::Fetched(report))) => self.on_fetch_done(id, *report),
            (Some(id), Ok(TaskOutput::Persisted)) => self.publish(id),
            (Some(id), Ok(TaskOutput::RefreshRequested(came))) => self.on_refresh_requested(id, came),
            (Some(id), Err(error)) => self.on_task_crashed(id, &error),
            // Every task has an owner.
            (None, _) => {}
        }
    }

    fn on_task_crashed(&mut self, id: CredentialId, error: &JoinError) {
        self.refresher.table.panics.fetch_add(1, Ordering::Relaxed);
        self.end_queued_probe(id);
        log_credential!(error, self.refresher.slots[id].credential, %error, "a fetch task crashed; this is a bug");
        let appid = self.refresher.slots[id].appid.clone();
        let failure = Failure::transport(&appid, Delivery::Ambiguous, "the fetch task crashed");
        if !self.on_failure(id, FetchPurpose::Renew, None, &failure, self.refresher.clock.boot_ms()) {
            self.publish(id);
        }
    }

    fn on_fetch_done(&mut self, id: CredentialId, report: FetchReport) {
        let FetchReport { purpose, calls, probes, adoption, secret, refused_parent, usage, shown, outcome } = report;
        let adopted = self.record_adoption(id, adoption, &outcome);
        self.refresher.slots[id].credential.update_status(|status| status.calls += calls);
        self.end_queued_probe(id);
        self.refund_unsent_call(id, &outcome, adopted.is_some());
        self.refund_justified_verification(id, &outcome);
        self.adopt_usage(id, usage);
        self.count_probes(id, probes);
        if adopted.is_none() {
            self.record_fetch(id, purpose, &outcome);
        }
        if let (Some(share), false) =
            (&mut self.refresher.slots[id].share, matches!(outcome, FetchOutcome::LeaseDenied { .. }))
        {
            share.told = 0;
        }
        let goes_on = match outcome {
            FetchOutcome::Answered { token, sent_ms, received_ms, probe } => {
                self.detect_foreign_fetch(id, purpose, &token);
                if let SharingResult::Published(generation) | SharingResult::Unpublished(generation, _) = &shown
                    && self.drop_if_superseded(id, *generation, &token.value)
                {
                    return self.finish(id);
                }
                let generation = match shown {
                    SharingResult::Refused(answer) => return self.on_publish_refused(id, &answer, sent_ms),
                    SharingResult::NotShared => None,
                    SharingResult::Published(generation) => Some((generation, None)),
                    SharingResult::Unpublished(generation, unreachable) => Some((generation, Some(unreachable))),
                };
                self.on_answer(id, ReceivedToken { purpose, token, sent_ms, received_ms, probe, generation, adopted })
            }
            FetchOutcome::Failed { mut failure, sent_ms } => {
                if let Some(generation) = refused_parent {
                    self.classify_refused_token(id, generation, &mut failure);
                }
                let goes_on = self.on_failure(id, purpose, secret, &failure, sent_ms);
                self.verify_parent(id, refused_parent);
                goes_on
            }
            FetchOutcome::Probed { probe, sent_ms } => self.on_probed(id, probe, sent_ms),
            FetchOutcome::NoParentToken => {
                self.clear_intent(id);
                self.wait_for_parent_token(id);
                false
            }
            FetchOutcome::LeaseDenied { answer, next } => return self.on_lease_denied(id, &answer, next),
            FetchOutcome::QuotaExceeded(denied) => return self.on_quota_exceeded(id, purpose, &denied),
            FetchOutcome::StoreUnreachable(unreachable) => self.on_store_unreachable(id, purpose, &unreachable),
            FetchOutcome::LeaseExpired => {
                self.on_lease_expired(id);
                false
            }
            FetchOutcome::Cancelled => {
                self.clear_intent(id);
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
        let at_ms = if overdue { slot.renewal_state.first_try_ms(now_ms, fastrand::f64()) } else { slot.next_try_ms };
        self.arm(id, at_ms);
    }

    /// The fetch is over: whoever waited for a check gets their answer.
    fn finish(&mut self, id: CredentialId) {
        let slot = &mut self.refresher.slots[id];
        slot.fetching = false;
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

    /// True if the fetch goes on: the value is still on its way to the disk, or another call is needed.
    fn on_answer(&mut self, id: CredentialId, came: ReceivedToken) -> bool {
        let ReceivedToken { purpose, token, sent_ms, received_ms, probe, generation, adopted } = came;
        let slot = &mut self.refresher.slots[id];
        let held = slot.credential.published();
        let same = held.as_ref().is_some_and(|held| held.value == token.value);
        if same && !self.on_same_value(id, purpose, probe, received_ms) {
            return self.refresher.slots[id].fetching;
        }
        let slot = &mut self.refresher.slots[id];
        let answer =
            RenewalAnswer { sent_ms, received_ms, expires_in_s: token.expires_in_s, told: token.lifetime_source, same };
        let mut next_ms = slot.renewal_state.record_answer(&answer, fastrand::f64());
        if let Some(adopted) = adopted {
            next_ms = slot.renewal_state.record_adopted(adopted, received_ms);
        }
        (slot.blocked_with, slot.refused_with) = (None, None);
        let known = held.as_ref().map_or(0, |held| held.generation);
        let own = if same { known } else { generation::next(known, generation::first(self.refresher.clock.unix_ms())) };
        let (generation, unreachable) = generation.unwrap_or((own, None));
        let expires_boot_ms = slot.renewal_state.expires_ms.unwrap_or(sent_ms);
        slot.credential.update_status(|status| status.same_answers += u64::from(same));
        slot.log_answer(&token, same, generation);
        if !same {
            // Whatever was to be found out was about the old one.
            slot.probes.wanted_ms = None;
            slot.record_replacement(received_ms);
            let received_ago = self.refresher.clock.boot_ms().saturating_sub(received_ms);
            slot.fetched =
                Some(Now { boot_ms: received_ms, unix_ms: self.refresher.clock.unix_ms() - received_ago as i64 });
        }
        if !same {
            self.record_event(id, Event::Renewed { generation, expires_in_s: token.expires_in_s, from: None });
            self.record_sharing(id, unreachable.as_ref());
        }
        let slot = &mut self.refresher.slots[id];
        let published = slot.published(token.value, generation, expires_boot_ms);
        let waits = !same && slot.credential_type.renewal == Renewal::Mint && self.refresher.state_writer.is_some();
        let version = self.persist(id, &published);
        self.set_healthy(id);
        self.arm(id, next_ms);
        self.set_next_probe(id);
        if waits && let Some((state_writer, version)) = self.refresher.state_writer.clone().zip(version) {
            self.publish_after_persisting(id, published, state_writer, version);
            return true;
        }
        self.refresher.slots[id].put(published);
        self.start_dependents(id);
        false
    }

    /// Stable values are published first and persisted afterwards: after a crash WeChat gives them again. A classic
    /// one can't be had again, and publishing it before it is on disk would let a restart serve its predecessor,
    /// which dies in 5 minutes, to clients that have seen the successor. So the disk goes first, but for a second at
    /// most (a quarter of the overlap for short lives), during which the old value is as good as the new.
    fn publish_after_persisting(
        &mut self,
        id: CredentialId,
        published: Published,
        state_writer: StateWriter,
        version: u64,
    ) {
        let slot = &mut self.refresher.slots[id];
        let live = slot.credential.published().is_some_and(|old| self.refresher.clock.boot_ms() < old.expires_boot_ms);
        let wait_ms =
            if live { PERSIST_WAIT_MS.min(slot.renewal_state.overlap_ms() / 4) } else { PERSIST_WAIT_OF_NOTHING_MS };
        // With nothing to serve, the pause between two writes is not waited for.
        let version = if live { version } else { state_writer.request_write_now() };
        slot.pending = Some(published);
        let task = self.tasks.spawn(async move {
            state_writer.wait_until_saved(version, Duration::from_millis(wait_ms)).await;
            TaskOutput::Persisted
        });
        self.owners.insert(task.id(), id);
    }

    fn publish(&mut self, id: CredentialId) {
        let slot = &mut self.refresher.slots[id];
        // Another node's later value may have come meanwhile.
        let current = slot.credential.published().map_or(0, |current| current.generation);
        if let Some(published) = slot.pending.take().filter(|published| published.generation >= current) {
            slot.put(published);
            self.start_dependents(id);
        }
        self.finish(id);
    }

    fn persist(&self, id: CredentialId, published: &Published) -> Option<u64> {
        let state_writer = self.refresher.state_writer.as_ref()?;
        let entry = self.refresher.slots[id].entry(published, self.refresher.clock.now());
        Some(state_writer.update_entry(id, |kept| *kept = entry))
    }

    /// A call has ended whose end we saw.
    fn clear_intent(&self, id: CredentialId) {
        if self.refresher.slots[id].credential_type.renewal == Renewal::Mint
            && let Some(state_writer) = &self.refresher.state_writer
        {
            state_writer.update_entry(id, |entry| {
                if let Some(entry) = entry {
                    entry.intent_unix_ms = None;
                }
            });
        }
    }

    /// All is well again.
    fn set_healthy(&mut self, id: CredentialId) {
        let slot = &mut self.refresher.slots[id];
        if let Some((_, unsaid)) = slot.log.end() {
            log_credential!(info, slot.credential, suppressed = nonzero(unsaid), "recovered");
            self.record_event(id, Event::Recovered);
        }
        let slot = &mut self.refresher.slots[id];
        slot.credential.update_status(|status| {
            status.state = CredentialState::Fresh;
            status.waits_for_parent = false;
            status.last_error = None;
        });
    }

    /// True if the fetch goes on, with the stand-in.
    fn on_failure(
        &mut self,
        id: CredentialId,
        purpose: FetchPurpose,
        secret: Option<Secret>,
        failure: &Failure,
        sent_ms: BootMs,
    ) -> bool {
        let now = self.refresher.clock.now();
        let slot = &mut self.refresher.slots[id];
        let live = slot.renewal_state.left_ms(now.boot_ms) > 0;
        let harmless = purpose == FetchPurpose::Verify && slot.credential_type.renewal != Renewal::Mint && live;
        let next_ms = if harmless {
            // The check says nothing about the value; its schedule stands.
            slot.next_try_ms
        } else {
            slot.renewal_state.record_failure(failure.class, failure.delivery, sent_ms, now, fastrand::f64())
        };
        slot.blocked_with = matches!(failure.class, Class::Operator(_) | Class::Internal).then_some(secret);
        let shortened = slot.adjust_end();
        slot.show_failure(failure, now.boot_ms, next_ms);
        self.record_failed_event(id, failure);
        match shortened {
            // The state knows the nearer end now; that says all the intent did.
            Some(published) => drop(self.persist(id, &published)),
            None if failure.delivery != Delivery::Ambiguous => self.clear_intent(id),
            None => {}
        }
        let slot = &mut self.refresher.slots[id];
        if failure.class == Class::Wait(Wait::NextDay) && slot.begin_fallback(now.unix_ms) {
            self.record_fallback(id);
            self.start_fetch(id, purpose);
            return true;
        }
        slot.credential.end_wait();
        self.arm(id, next_ms);
        false
    }

    /// After the end was called: nothing new is sent, what was sent is waited for.
    async fn finish_tasks(&mut self) {
        let waiting = async {
            while let Some(output) = self.tasks.join_next_with_id().await {
                self.on_task_done(output);
            }
        };
        if tokio::time::timeout(FETCH_WAIT, waiting).await.is_err() {
            warn!("calls to WeChat were still under way at the end; their answers are lost");
        }
    }
}

/// A call's value, and what came with it.
struct ReceivedToken {
    purpose: FetchPurpose,
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

pub use follower::{ClusterWatch, SharedTicket};
use secrets::SecretRead;

mod adoption;
mod cluster_outcomes;
mod cluster_records;
mod dependents;
mod follower;
mod queued_probes;
mod quota;
mod received_tickets;
mod recording;
mod secrets;
#[cfg(test)]
mod tests;
mod verification;
