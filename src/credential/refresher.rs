//! Keeps every credential current. It is the only writer of the table.
//!
//! One task, the driver, waits for timers and events, starts fetches and publishes their values. All state of the
//! refresher is in this task. Each fetch is a task of its own (`fetch_task`) that changes no state. Because only the
//! driver publishes, a late answer never replaces a newer value. A value is replaced, never cleared. No failure ends
//! the loop; only the cancellation does.
//!
//! The modules below are parts of the driver: `verification` (reports, probes, refused values), `queued_probes`,
//! `quota`, `secrets`, `received_tickets`, `dependents` (tickets and authorizer tokens), `adoption`, `recording`
//! (journal and statistics), and for clusters `cluster_records`, `cluster_outcomes` and `follower`.

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

use super::fetch_task::{FetchOutcome, FetchPurpose, FetchReport, FetchTask};
use super::generation;
use super::probe_queue::{PROBES_RUNNING_MAX, ProbeQueue};
use super::schedule::{Adopted, RenewalAnswer};
use super::slot::{CredentialSlot, ValueOrigin};
use super::state_writer::StateWriter;
use super::table::{CredentialId, CredentialState, Event, Published, Requests, Table, log_credential};
use super::ticket_files::TicketFile;
use super::verification_budget::VerificationBudget;
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
    pub(super) requests: Requests,
    pub(super) ticket_files: Vec<TicketFile>,
    pub(super) slots: Vec<CredentialSlot>,
    /// For each credential, those that are fetched with its value.
    pub(super) dependents: HashMap<CredentialId, Vec<CredentialId>>,
    pub(super) upstream: Arc<dyn Upstream>,
    pub(super) clock: Arc<dyn Clock>,
    pub(super) state_writer: Option<StateWriter>,
    /// The cluster store, and the verify tickets in it.
    pub(super) watch: Option<ClusterWatch>,
    pub(super) tickets: Vec<SharedTicket>,
    pub(super) concurrency: usize,
    pub(super) total_timeout_ms: u64,
    /// Is told when a task of the refresher ends too early.
    pub(super) supervisor: Option<Supervisor>,
    pub(super) watchdog: Option<Watchdog>,
}

/// Is called by the loop at regular times, as a sign that the loop runs.
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
    /// The next probe of the probe queue.
    ProbeQueue,
}

/// What a spawned task gives back.
enum TaskOutput {
    Fetched(Box<FetchReport>),
    /// A classic value is on disk, or the longest wait for the disk is over.
    Persisted,
    /// Another node has verified the value; or no node could be asked.
    RefreshRequested(Result<(), Unreachable>),
}

/// Cluster events in the queue; when it is full, the task that watches the cluster store waits.
const CLUSTER_EVENTS_MAX: usize = 256;
const TICK: Duration = Duration::from_secs(5);
/// If two clocks differ by more than this between two ticks, the machine was suspended or a clock jumped.
const JUMP_MS: u64 = 1_000;
const FETCH_WAIT: Duration = Duration::from_secs(8);
/// How long the last write may take. It follows [`FETCH_WAIT`], and service managers kill a process after 20 s.
const FLUSH_WAIT: Duration = Duration::from_secs(5);
/// The longest time a classic value waits for the disk; see [`Driver::publish_after_persisting`].
const PERSIST_WAIT_MS: u64 = 1_000;
/// The same if there is no value to serve meanwhile and readers wait.
const PERSIST_WAIT_OF_NOTHING_MS: u64 = 200;
/// At the start, the calls for access tokens after the first few are this far apart. Tickets follow their token.
const SPREAD_MS: u64 = 5;

impl Refresher {
    /// If a task of the refresher ends too early, the supervisor ends the server.
    pub fn supervised_by(self, supervisor: &Supervisor) -> Refresher {
        Refresher { supervisor: Some(supervisor.clone()), ..self }
    }

    /// Calls `feed` about this often while the loop runs. `feed` is called in the loop, so it must not wait.
    pub fn with_watchdog(self, every: Duration, feed: impl FnMut() + Send + 'static) -> Refresher {
        Refresher { watchdog: Some(Watchdog { every, due_ms: 0, feed: Box::new(feed) }), ..self }
    }

    /// Starts a task that must run as long as the refresher runs.
    fn spawn_supervised(&self, part: &str, work: impl Future<Output = ()> + Send + 'static) -> JoinHandle<()> {
        let alive = self.supervisor.as_ref().map(|supervisor| supervisor.watch(part));
        match alive {
            Some(alive) => tokio::spawn(alive.during(work)),
            None => tokio::spawn(work),
        }
    }

    /// Runs until `shutdown`. Then waits for calls that were sent (8 s at most), writes the state, and returns.
    pub async fn run(mut self, shutdown: CancellationToken) {
        // The guard also ends the writer if this future is dropped before its end.
        let writing = CancellationToken::new();
        let _end_writer = writing.clone().drop_guard();
        let writer = self.state_writer.clone().map(|state_writer| {
            self.spawn_supervised("the writer of the state file", state_writer.run(self.table.clone(), writing.clone()))
        });
        let watching = CancellationToken::new();
        let _end_watch = watching.clone().drop_guard();
        // The driver keeps the receiver for longer than the watch runs.
        let (secret_reads, secrets) = mpsc::unbounded_channel();
        let mut watched = self.watched_secrets(&secret_reads);
        watched.extend(
            std::mem::take(&mut self.ticket_files).into_iter().map(|file| Box::new(file) as Box<dyn WatchedFiles>),
        );
        if !watched.is_empty() {
            self.spawn_supervised("the watch on secret files", watch::watch_files(watched, watching));
        }
        let state_writer = self.state_writer.clone();
        let (events, cluster_events) = mpsc::channel(CLUSTER_EVENTS_MAX);
        let listening = CancellationToken::new();
        let _end_listening = listening.clone().drop_guard();
        if let Some(ClusterWatch { shared, watched }) = self.watch.take() {
            self.spawn_supervised("the watch on the shared state", shared.watch(watched, events, listening));
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
            cluster_events,
        };
        driver.set_first_timers();
        driver.drive(&shutdown).await;
        driver.finish_tasks().await;
        if let Some(state_writer) = state_writer
            && !state_writer.flush(FLUSH_WAIT).await
        {
            warn!("the state file could not be written before shutdown");
        }
        writing.cancel();
        if let Some(writer) = writer {
            // The token ends it, unless the disk hangs. A panic in it has been reported already.
            let _ = tokio::time::timeout(FLUSH_WAIT, writer).await;
        }
    }
}

struct Driver {
    refresher: Refresher,
    permits: Arc<Semaphore>,
    /// Which value is probed next if nobody has reported one.
    probe_queue: ProbeQueue,
    probe_queue_timer: Option<delay_queue::Key>,
    queued_probes_running: usize,
    /// Not `permits`: a probe that gets no answer must not delay a renewal.
    probe_permits: Arc<Semaphore>,
    queue: DelayQueue<Timer>,
    tasks: JoinSet<TaskOutput>,
    /// The credential of each task. Also used when the task panics.
    owners: HashMap<Id, CredentialId>,
    cancel: CancellationToken,
    /// New contents of secret files.
    secrets: mpsc::UnboundedReceiver<SecretRead>,
    /// How many verifications clients may still cause.
    client_checks: VerificationBudget,
    refusal_log: LogThrottle,
    cluster_events: mpsc::Receiver<ClusterEvent>,
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
                    if clock_jumped(clocks, now) {
                        warn!("the machine was suspended or a clock jumped: all timers are set again");
                        self.reset_timers();
                    }
                    clocks = now;
                }
                Some(event) = self.cluster_events.recv() => self.on_cluster_event(event),
                Some(received) = self.refresher.requests.tickets.recv() => self.on_ticket(&received),
                Some(read) = self.secrets.recv() => self.on_secret_read(&read),
                // Last, so that many reports cannot delay a renewal.
                Some(report) = self.refresher.requests.verifications.recv() => self.on_verification_request(report),
            }
        }
    }

    /// Records that the loop runs. It runs at least once a tick.
    fn record_heartbeat(&mut self) {
        let now_ms = clock::monotonic_ms();
        self.refresher.table.heartbeat_ms.store(now_ms, Ordering::Relaxed);
        if let Some(watchdog) = self.refresher.watchdog.as_mut().filter(|watchdog| watchdog.due_ms <= now_ms) {
            // Half the time, because a tick may come a little early.
            watchdog.due_ms = now_ms + watchdog.every.as_millis() as u64 / 2;
            (watchdog.feed)();
        }
    }

    /// Plans the first fetches: as many at once as may run at once, the others a little later, at random.
    fn set_first_timers(&mut self) {
        let now_ms = self.refresher.clock.boot_ms();
        let tokens = self.refresher.slots.iter().filter(|slot| slot.credential_type.renewal != Renewal::Poll).count();
        let spread_ms = tokens as u64 * SPREAD_MS;
        let mut urgent = 0;
        for id in 0..self.refresher.slots.len() {
            let first_wait_ms = self.first_wait_ms(id);
            let slot = &mut self.refresher.slots[id];
            let mut at_ms = slot.renewal_state.first_try_ms(now_ms, fastrand::f64());
            if at_ms <= now_ms || slot.urgent.is_some() {
                urgent += 1;
                at_ms =
                    if urgent <= self.refresher.concurrency { now_ms } else { now_ms + fastrand::u64(0..=spread_ms) };
            }
            self.set_renewal_timer(id, at_ms.max(now_ms + first_wait_ms));
            if !self.refresher.slots[id].is_live(now_ms) && self.lacks_parent_token(id) {
                self.refresher.slots[id].set_waiting();
            }
            self.set_next_probe(id);
            self.plan_probe(id);
        }
        self.plan_queued_probe();
    }

    fn set_renewal_timer(&mut self, id: CredentialId, at_ms: BootMs) {
        let slot = &mut self.refresher.slots[id];
        if let Some(key) = slot.timer.take() {
            self.queue.try_remove(&key);
        }
        slot.next_try_ms = at_ms;
        slot.credential.update_status(|status| status.next_try_boot_ms = at_ms);
        slot.timer = Some(self.queue.insert(Timer::Renewal(id), delay(at_ms, self.refresher.clock.boot_ms())));
    }

    fn reset_timers(&mut self) {
        for id in 0..self.refresher.slots.len() {
            if !self.refresher.slots[id].fetching {
                self.set_renewal_timer(id, self.refresher.slots[id].next_try_ms);
                self.plan_probe(id);
            }
        }
        self.plan_queued_probe();
    }

    fn on_renewal_timer(&mut self, id: CredentialId) {
        let slot = &mut self.refresher.slots[id];
        slot.timer = None;
        if slot.fetching {
            // The end of the running fetch sets the next timer.
            return;
        }
        if slot.follows {
            return self.check_followed_value(id);
        }
        slot.end_fallback(self.refresher.clock.unix_ms());
        let purpose = match slot.urgent.take() {
            Some(FetchPurpose::Verify) if slot.is_live(self.refresher.clock.boot_ms()) => FetchPurpose::Verify,
            _ => FetchPurpose::Renew,
        };
        if !purpose.only_probes(slot.credential_type) && self.lacks_parent_token(id) {
            return self.wait_for_parent_token(id);
        }
        self.start_fetch(id, purpose);
    }

    /// At most one fetch runs per credential: callers check `fetching` first.
    fn start_fetch(&mut self, id: CredentialId, purpose: FetchPurpose) {
        if self.refresher.slots[id].follows {
            return self.request_refresh(id, purpose);
        }
        if let Err(denied) = self.try_charge_quota(id, purpose) {
            return self.on_quota_exceeded(id, purpose, &denied);
        }
        let only_probes = purpose.only_probes(self.refresher.slots[id].credential_type);
        let intent = if only_probes { None } else { self.record_intent(id) };
        let parent =
            self.refresher.slots[id].parent.map(|parent| self.refresher.slots[parent].credential.reader().clone());
        let (now, total_timeout_ms) = (self.refresher.clock.now(), self.refresher.total_timeout_ms);
        let slot = &mut self.refresher.slots[id];
        let cluster_context =
            if only_probes { None } else { slot.cluster_fetch_context(purpose, total_timeout_ms, now) };
        slot.fetching = true;
        let is_queued_probe = slot.probes.is_queued_probe && purpose == FetchPurpose::Probe;
        let time_limit_ms =
            if is_queued_probe { slot.next_try_ms.saturating_sub(now.boot_ms) } else { total_timeout_ms };
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
            time_limit: Duration::from_millis(time_limit_ms),
            cancel: self.cancel.clone(),
            intent,
            cluster_context,
        };
        let task = self.tasks.spawn(async move {
            #[cfg(test)]
            tests::panic_if_asked(&fetch.appid);
            TaskOutput::Fetched(Box::new(fetch.run().await))
        });
        self.owners.insert(task.id(), id);
    }

    /// For classic tokens only: notes in the state file that a call is about to be sent. If the process is killed
    /// before the answer is written, the next start knows that the old value may end early.
    fn record_intent(&self, id: CredentialId) -> Option<(StateWriter, u64)> {
        let slot = &self.refresher.slots[id];
        // In a cluster the note is in the cluster store, where all nodes see it.
        let here = slot.credential_type.renewal == Renewal::Mint && slot.share.is_none();
        let state_writer = self.refresher.state_writer.as_ref().filter(|_| here)?;
        let unix_ms = self.refresher.clock.unix_ms();
        let version = state_writer.update_entry(id, |entry| {
            if let Some(entry) = entry {
                entry.intent_unix_ms.get_or_insert(unix_ms);
            }
        });
        // A value that was just withdrawn is being written. The note must neither wait for the pause after that write
        // nor for the backoff of a disk that failed before.
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
            (Some(id), Ok(TaskOutput::Persisted)) => self.publish_persisted(id),
            (Some(id), Ok(TaskOutput::RefreshRequested(result))) => self.on_refresh_requested(id, result),
            (Some(id), Err(error)) => self.on_task_crashed(id, &error),
            // Every task has an owner.
            (None, _) => {}
        }
    }

    fn on_task_crashed(&mut self, id: CredentialId, error: &JoinError) {
        self.refresher.table.panics.fetch_add(1, Ordering::Relaxed);
        self.end_queued_probe(id);
        log_credential!(error, self.refresher.slots[id].credential, %error, "a fetch task panicked; this is a bug");
        let appid = self.refresher.slots[id].appid.clone();
        let failure = Failure::transport(&appid, Delivery::Ambiguous, "the fetch task panicked");
        let now_ms = self.refresher.clock.boot_ms();
        if self.on_failure(id, FetchPurpose::Renew, None, &failure, now_ms) == FetchProgress::Over {
            self.publish_persisted(id);
        }
    }

    fn on_fetch_done(&mut self, id: CredentialId, report: FetchReport) {
        let FetchReport { purpose, calls, probes, adoption, secret, refused_parent, usage, shared, outcome } = report;
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
            share.lease_denials = 0;
        }
        let progress = match outcome {
            FetchOutcome::Answered { token, sent_ms, received_ms, probe } => {
                self.detect_foreign_fetch(id, purpose, &token);
                match self.judge_fetched_value(id, shared, &token.value) {
                    FetchedValueUse::Serve(generation) => {
                        let received =
                            ReceivedToken { purpose, token, sent_ms, received_ms, probe, generation, adopted };
                        self.on_answer(id, received)
                    }
                    FetchedValueUse::DropSuperseded { generation } => {
                        self.on_value_superseded(id, generation);
                        FetchProgress::Over
                    }
                    FetchedValueUse::DropRefused(answer) => return self.on_publish_refused(id, &answer, sent_ms),
                }
            }
            FetchOutcome::Failed { mut failure, sent_ms } => {
                if let Some(generation) = refused_parent {
                    self.classify_refused_token(id, generation, &mut failure);
                }
                let progress = self.on_failure(id, purpose, secret, &failure, sent_ms);
                self.verify_parent(id, refused_parent);
                progress
            }
            FetchOutcome::Probed { probe, sent_ms } => self.on_probed(id, probe, sent_ms),
            FetchOutcome::NoParentToken => {
                self.clear_intent(id);
                self.wait_for_parent_token(id);
                FetchProgress::Over
            }
            FetchOutcome::LeaseDenied { answer, next } => return self.on_lease_denied(id, &answer, next),
            FetchOutcome::QuotaExceeded(denied) => return self.on_quota_exceeded(id, purpose, &denied),
            FetchOutcome::StoreUnreachable(unreachable) => self.on_store_unreachable(id, purpose, &unreachable),
            FetchOutcome::LeaseExpired => {
                self.on_lease_expired(id);
                FetchProgress::Over
            }
            FetchOutcome::Cancelled => {
                self.clear_intent(id);
                self.resume_schedule(id);
                FetchProgress::Over
            }
        };
        if progress == FetchProgress::Over {
            self.end_fetch(id);
        }
    }

    /// Sets the timer that a verification has interrupted.
    fn resume_schedule(&mut self, id: CredentialId) {
        let (now_ms, slot) = (self.refresher.clock.boot_ms(), &self.refresher.slots[id]);
        // If there is no planned time in the future, it is computed anew.
        let overdue = slot.next_try_ms <= now_ms;
        let at_ms = if overdue { slot.renewal_state.first_try_ms(now_ms, fastrand::f64()) } else { slot.next_try_ms };
        self.set_renewal_timer(id, at_ms);
    }

    /// Ends a fetch: whoever waits for a verification gets the answer.
    fn end_fetch(&mut self, id: CredentialId) {
        let slot = &mut self.refresher.slots[id];
        slot.fetching = false;
        for waiter in slot.waiters.drain(..) {
            // The client may have closed its connection.
            let _ = waiter.send(());
        }
        if slot.share.as_ref().is_some_and(|share| share.origin == ValueOrigin::ThisNodeUnpublished) {
            self.offer_to_store(id);
        }
        self.try_replaced_secret(id);
        self.plan_probe(id);
    }

    /// Publishes a fetched value, or only takes in what its answer says if it is the present one.
    fn on_answer(&mut self, id: CredentialId, received: ReceivedToken) -> FetchProgress {
        let ReceivedToken { purpose, token, sent_ms, received_ms, probe, generation, adopted } = received;
        let slot = &mut self.refresher.slots[id];
        let held = slot.credential.published();
        let same = held.as_ref().is_some_and(|held| held.value == token.value);
        if same && !self.on_same_value(id, purpose, probe, received_ms) {
            return if self.refresher.slots[id].fetching { FetchProgress::Continues } else { FetchProgress::Over };
        }
        let slot = &mut self.refresher.slots[id];
        let answer = RenewalAnswer {
            sent_ms,
            received_ms,
            expires_in_s: token.expires_in_s,
            lifetime_source: token.lifetime_source,
            same,
        };
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
            // The planned probe was about the old value.
            slot.probes.wanted_ms = None;
            slot.record_replacement(received_ms);
            let received_ago = self.refresher.clock.boot_ms().saturating_sub(received_ms);
            slot.fetched =
                Some(Now { boot_ms: received_ms, unix_ms: self.refresher.clock.unix_ms() - received_ago as i64 });
        }
        if !same {
            self.record_event(id, Event::Renewed { generation, expires_in_s: token.expires_in_s, from: None });
            self.record_publication(id, unreachable.as_ref());
        }
        let slot = &mut self.refresher.slots[id];
        let published = slot.published(token.value, generation, expires_boot_ms);
        let waits = !same && slot.credential_type.renewal == Renewal::Mint && self.refresher.state_writer.is_some();
        let version = self.persist(id, &published);
        self.set_healthy(id);
        self.set_renewal_timer(id, next_ms);
        self.set_next_probe(id);
        if waits && let Some((state_writer, version)) = self.refresher.state_writer.clone().zip(version) {
            self.publish_after_persisting(id, published, state_writer, version);
            return FetchProgress::Continues;
        }
        self.refresher.slots[id].publish_with_status(published);
        self.start_dependents(id);
        FetchProgress::Over
    }

    /// Stable values are published first and written afterwards: after a crash WeChat gives the same value again. A
    /// classic value cannot be fetched again. If it were published before it is on disk, a restart could serve the
    /// value before it, which ends in 5 minutes, to clients that have seen the new one. So it is written first, for a
    /// second at most (a quarter of the overlap for short lifetimes). During that time the old value is as good as the
    /// new one.
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
        // If there is no value to serve, the pause between two writes is left out.
        let version = if live { version } else { state_writer.request_write_now() };
        slot.pending = Some(published);
        let task = self.tasks.spawn(async move {
            state_writer.wait_until_saved(version, Duration::from_millis(wait_ms)).await;
            TaskOutput::Persisted
        });
        self.owners.insert(task.id(), id);
    }

    fn publish_persisted(&mut self, id: CredentialId) {
        let slot = &mut self.refresher.slots[id];
        // A later value of another node may have arrived meanwhile.
        let current = slot.generation();
        if let Some(published) = slot.pending.take().filter(|published| published.generation >= current) {
            slot.publish_with_status(published);
            self.start_dependents(id);
        }
        self.end_fetch(id);
    }

    fn persist(&self, id: CredentialId, published: &Published) -> Option<u64> {
        let state_writer = self.refresher.state_writer.as_ref()?;
        let entry = self.refresher.slots[id].state_entry(published, self.refresher.clock.now());
        Some(state_writer.update_entry(id, |kept| *kept = entry))
    }

    /// The call has ended and its result is known: removes the note that it was about to be sent.
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

    /// The credential is current and has no fault.
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

    /// Records and logs a failure, and plans the next fetch. With a used-up quota the fetch continues at the fallback.
    fn on_failure(
        &mut self,
        id: CredentialId,
        purpose: FetchPurpose,
        secret: Option<Secret>,
        failure: &Failure,
        sent_ms: BootMs,
    ) -> FetchProgress {
        let now = self.refresher.clock.now();
        let slot = &mut self.refresher.slots[id];
        let live = slot.is_live(now.boot_ms);
        let harmless = purpose == FetchPurpose::Verify && slot.credential_type.renewal != Renewal::Mint && live;
        let next_ms = if harmless {
            // The failed verification says nothing about the value, so its schedule stays.
            slot.next_try_ms
        } else {
            slot.renewal_state.record_failure(failure.class, failure.delivery, sent_ms, now, fastrand::f64())
        };
        slot.blocked_with = matches!(failure.class, Class::Operator(_) | Class::Internal).then_some(secret);
        let shortened = slot.adjust_expiry();
        slot.show_failure(failure, now.boot_ms, next_ms);
        self.record_failed_event(id, failure);
        match shortened {
            // The earlier expiry is written now. It says as much as the note did.
            Some(published) => drop(self.persist(id, &published)),
            None if failure.delivery != Delivery::Ambiguous => self.clear_intent(id),
            None => {}
        }
        let slot = &mut self.refresher.slots[id];
        if failure.class == Class::Wait(Wait::NextDay) && slot.begin_fallback(now.unix_ms) {
            self.record_fallback(id);
            self.start_fetch(id, purpose);
            return FetchProgress::Continues;
        }
        slot.credential.end_wait();
        self.set_renewal_timer(id, next_ms);
        FetchProgress::Over
    }

    /// After the shutdown signal: sends nothing new and waits for what was sent.
    async fn finish_tasks(&mut self) {
        let waiting = async {
            while let Some(output) = self.tasks.join_next_with_id().await {
                self.on_task_done(output);
            }
        };
        if tokio::time::timeout(FETCH_WAIT, waiting).await.is_err() {
            warn!("shutdown did not wait for calls to WeChat that are still running; their answers are lost");
        }
    }
}

/// Whether a fetch is over once its report was handled.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum FetchProgress {
    /// The value is being written, or another call follows.
    Continues,
    Over,
}

/// A fetched value, and what is known about it.
struct ReceivedToken {
    purpose: FetchPurpose,
    token: Token,
    sent_ms: BootMs,
    received_ms: BootMs,
    probe: Option<Probe>,
    /// The site itself has fetched it.
    adopted: Option<Adopted>,
    /// Its generation in the cluster, and why the other nodes do not have it yet; none outside a cluster.
    generation: Option<(u64, Option<Unreachable>)>,
}

/// The time until an instant, one year at most: the timer queue takes not much more.
fn delay(at_ms: BootMs, now_ms: BootMs) -> Duration {
    Duration::from_millis(at_ms.saturating_sub(now_ms).min(365 * 86_400_000))
}

/// True if the boot clock and tokio's clock differ: tokio's stops while the machine is suspended.
fn clock_jumped(before: (BootMs, Instant), now: (BootMs, Instant)) -> bool {
    let boot = now.0.saturating_sub(before.0);
    let tokio = u64::try_from(now.1.duration_since(before.1).as_millis()).unwrap_or(u64::MAX);
    boot.abs_diff(tokio) > JUMP_MS
}

use cluster_outcomes::FetchedValueUse;
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
