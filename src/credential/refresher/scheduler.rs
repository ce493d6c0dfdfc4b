//! The refresher's loop. It waits for timers, reports of tasks, clients and other nodes, hands each to the actor that it
//! concerns, and does what the actor says. It starts and ends every task. Here are no rules about credentials.

use std::collections::VecDeque;
use std::collections::hash_map::{Entry, HashMap};
use std::future::poll_fn;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use tokio::sync::{Semaphore, mpsc};
use tokio::task::{Id, JoinError, JoinSet};
use tokio::time::{Instant, MissedTickBehavior};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tokio_util::time::{DelayQueue, delay_queue};
use tracing::warn;

use super::cluster_layer::{ClusterAction, StoreWork};
use super::secrets::{SecretFiles, SecretRead};
use super::{Member, Refresher};
use crate::clock::{self, BootMs, LogThrottle, Now};
use crate::cluster::{ClusterEvent, Unreachable};
use crate::credential::actor::{ClusterNews, Effect, Event, StoreOrder, Timer};
use crate::credential::fetch_task::{FetchOrder, FetchReport, FetchTask, Intent};
use crate::credential::probe_queue::{PROBES_RUNNING_MAX, ProbeQueue, ProbeReadiness};
use crate::credential::state_writer::StateWriter;
use crate::credential::table::{CredentialId, EndedKeys, VerificationReason, VerificationRequest, log_credential};
use crate::credential::verification_budget::VerificationBudget;
use crate::credential::verify_ticket::ReceivedTicket;
use crate::platform::Renewal;
use crate::secret::fingerprint;

const TICK: Duration = Duration::from_secs(5);
/// If two clocks differ by more than this between two ticks, the machine was suspended or a clock jumped.
const JUMP_MS: u64 = 1_000;
const FETCH_WAIT: Duration = Duration::from_secs(8);
/// At the start, the calls for access tokens after the first few are this far apart. Tickets follow their token.
const SPREAD_MS: u64 = 5;
/// So long the keys of a removed app still refuse clients' writes. A client that goes on for longer is not told.
const ENDED_KEYS_MS: u64 = 60_000;
/// At most one log line in this time about what clients cause, milliseconds.
const LOG_SPACING_MS: u64 = 60_000;

pub(super) struct Scheduler {
    pub refresher: Refresher,
    timers: DelayQueue<Due>,
    /// Tasks that report to an actor, and the credential of each. Also used when the task panics.
    tasks: JoinSet<TaskOutput>,
    owners: HashMap<Id, TaskOwner>,
    /// Of them, the calls that make a new value, which ends the value before it: by endpoint and appid.
    minting: HashMap<MintedValue, MintingCalls>,
    /// Tasks that report to nobody.
    background: TaskTracker,
    end_background: CancellationToken,
    cancel: CancellationToken,
    permits: Arc<Semaphore>,
    probe_permits: Arc<Semaphore>,
    /// Which value is probed next if nobody has reported one.
    pub probe_queue: ProbeQueue,
    probe_queue_timer: Option<delay_queue::Key>,
    queued_probes_running: usize,
    /// Keys that were taken away, and when each are dropped; the earliest first.
    ended_keys: VecDeque<(BootMs, EndedKeys)>,
    /// How many verifications clients may still cause.
    client_budget: VerificationBudget,
    refusal_log: LogThrottle,
    /// Behind the turns of the apps that were added: when one more may make its first call.
    first_calls_ms: BootMs,
    /// New contents of secret files.
    secrets: mpsc::UnboundedReceiver<SecretRead>,
    pub secret_files: SecretFiles,
    cluster_events: mpsc::Receiver<ClusterEvent>,
}

/// Whose task it is.
struct TaskOwner {
    id: CredentialId,
    mints: Option<MintedValue>,
}

/// What a call makes: the value of that endpoint and appid.
type MintedValue = (&'static str, String);

/// Calls that make one value, an earlier app's of the same name among them.
#[derive(Default)]
struct MintingCalls {
    running: usize,
    /// Those whose first fetch waits for the end of all of them.
    then_start: Vec<CredentialId>,
}

/// What is due.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Due {
    Of(CredentialId, Timer),
    /// The first of [`Scheduler::ended_keys`] are to be dropped.
    EndedKeys,
    /// The next probe of the probe queue.
    ProbeQueue,
}

/// What a task gives back.
enum TaskOutput {
    Fetched(Box<FetchReport>),
    /// The entry is on disk, or the longest wait for the disk is over.
    Saved,
    /// Another node has verified the value; or no node could be asked.
    Asked(Result<(), Unreachable>),
}

impl Scheduler {
    pub fn new(
        refresher: Refresher,
        (secret_files, secrets): (SecretFiles, mpsc::UnboundedReceiver<SecretRead>),
        cluster_events: mpsc::Receiver<ClusterEvent>,
        shutdown: &CancellationToken,
    ) -> Scheduler {
        let now_ms = refresher.clock.boot_ms();
        let queued = refresher.members.iter().filter(|(_, member)| member.actor.is_probed_by_queue()).map(|(id, _)| id);
        Scheduler {
            permits: Arc::new(Semaphore::new(refresher.options.concurrency.max(1))),
            probe_permits: Arc::new(Semaphore::new(PROBES_RUNNING_MAX)),
            probe_queue: ProbeQueue::new(queued, now_ms),
            probe_queue_timer: None,
            queued_probes_running: 0,
            timers: DelayQueue::new(),
            tasks: JoinSet::new(),
            owners: HashMap::new(),
            minting: HashMap::new(),
            background: TaskTracker::new(),
            end_background: CancellationToken::new(),
            cancel: shutdown.child_token(),
            ended_keys: VecDeque::new(),
            client_budget: VerificationBudget::new(now_ms),
            refusal_log: LogThrottle::default(),
            first_calls_ms: now_ms,
            secrets,
            secret_files,
            cluster_events,
            refresher,
        }
    }

    /// Runs until `shutdown`.
    pub async fn run(&mut self, shutdown: &CancellationToken) {
        self.start_all();
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
                Some(due) = poll_fn(|cx| self.timers.poll_expired(cx)) => self.on_due(due.into_inner()),
                _ = tick.tick() => {
                    let now = (self.refresher.clock.boot_ms(), Instant::now());
                    if clock_jumped(clocks, now) {
                        warn!("the machine was suspended or a clock jumped: all timers are set again");
                        self.tell_all(|| Event::ClockJumped);
                        self.plan_queued_probe();
                    }
                    clocks = now;
                }
                Some(event) = self.cluster_events.recv() => self.on_cluster_event(event),
                Some(received) = self.refresher.requests.tickets.recv() => self.on_ticket(&received),
                Some(read) = self.secrets.recv() => self.on_secret_read(&read),
                Some(change) = self.refresher.changes.1.recv() => self.on_app_change(change),
                // Last, so that many reports cannot delay a renewal.
                Some(request) = self.refresher.requests.verifications.recv() => self.tell(request.id, Event::Verify(request)),
            }
        }
    }

    /// After the shutdown signal: sends nothing new, waits for what was sent, and ends every task.
    pub async fn end(mut self) {
        let waiting = async {
            while let Some(output) = self.tasks.join_next_with_id().await {
                self.on_task_done(output);
            }
        };
        if tokio::time::timeout(FETCH_WAIT, waiting).await.is_err() {
            warn!("shutdown did not wait for calls to WeChat that are still running; their answers are lost");
        }
        self.tasks.shutdown().await;
        self.end_background.cancel();
        self.background.close();
        self.background.wait().await;
    }

    /// Plans the first fetches: as many at once as may run at once, the others a little later, at random.
    fn start_all(&mut self) {
        let now = self.refresher.clock.now();
        let is_token = |(_, member): &(_, &Member)| member.actor.credential_type.renewal != Renewal::Poll;
        let spread_ms = self.refresher.members.iter().filter(is_token).count() as u64 * SPREAD_MS;
        let mut urgent = 0;
        for id in self.refresher.members.ids() {
            let Some(member) = self.refresher.members.get(id) else { continue };
            let first = member.actor.first_try(now);
            let first_try_ms = match first.is_urgent {
                true if urgent < self.refresher.options.concurrency => now.boot_ms,
                true => now.boot_ms + fastrand::u64(0..=spread_ms),
                false => first.at_ms,
            };
            urgent += usize::from(first.is_urgent);
            self.tell(id, Event::Started { first_try_ms });
        }
        self.plan_queued_probe();
    }

    /// Hands an event to an actor and does what it says.
    pub fn tell(&mut self, id: CredentialId, event: Event) {
        let Some(member) = self.refresher.members.get_mut(id) else { return };
        let now = self.refresher.clock.now();
        // Another process has written the state file until now.
        let state_writer = self.refresher.state_writer.as_ref().filter(|_| member.actor.takes_counts());
        let elsewhere = state_writer.and_then(|writer| writer.take_usage_elsewhere(id));
        let told = elsewhere.map(Event::CountedElsewhere).into_iter().chain([event]);
        let effects: Vec<Effect> =
            told.flat_map(|event| member.actor.on(event, now, &mut self.client_budget)).collect();
        for effect in effects {
            self.execute(id, effect, now);
        }
    }

    fn tell_all(&mut self, event: impl Fn() -> Event) {
        for id in self.refresher.members.ids() {
            self.tell(id, event());
        }
    }

    fn execute(&mut self, id: CredentialId, effect: Effect, now: Now) {
        let Some(member) = self.refresher.members.get_mut(id) else { return };
        let table = &self.refresher.table;
        let state_writer = self.refresher.state_writer.as_ref();
        match effect {
            Effect::Show(change) => member.writer.apply(change),
            Effect::Journal(event) => member.writer.record_event(&table.journal, now, event),
            Effect::Measured { endpoint, ended, took_ms } => table.durations.record(endpoint, ended, took_ms),
            Effect::Fetch(order) => self.start_fetch(id, *order),
            Effect::SetTimer(timer, at_ms) => self.set_timer(id, timer, at_ms, now.boot_ms),
            Effect::Save(entry) => {
                let save = |writer: &StateWriter| writer.update_entry(id, |kept| *kept = entry.map(|entry| *entry));
                member.saved_version = state_writer.map_or(0, save);
            }
            Effect::AwaitSave { wait_ms, is_urgent } => self.await_save(id, wait_ms, is_urgent),
            Effect::ClearIntent => {
                let clear = |writer: &StateWriter| {
                    writer.update_entry(id, |kept| kept.iter_mut().for_each(|entry| entry.intent_unix_ms = None))
                };
                state_writer.map(clear);
            }
            Effect::SaveUsage(usage) => state_writer.into_iter().for_each(|writer| writer.record_usage(id, &usage)),
            // The client may have closed its connection.
            Effect::Reply(waiter) => drop(waiter.send(())),
            Effect::TellDependents { generation, poll_ms } => {
                for child in self.refresher.members.dependents(id) {
                    self.tell(child, Event::ParentRenewed { generation, poll_ms });
                }
            }
            Effect::DoubtParent { generation } => {
                if let Some(parent) = member.parent {
                    let (generation, why) = (Some(generation), VerificationReason::Reported);
                    self.tell(parent, Event::Verify(VerificationRequest { id: parent, generation, why, done: None }));
                }
            }
            Effect::AdoptRefreshToken(token) => {
                member.actor.grant.iter().for_each(|grant| grant.adopt_refresh_token(&token));
            }
            Effect::ClientCharged { is_taken } => self.count_client_verification(is_taken, now.boot_ms),
            Effect::RefundClient => self.client_budget.refund(),
            Effect::ProbeAnswered { is_withheld } => self.probe_queue.record_answer(id, is_withheld),
            Effect::QueuedProbeEnded => {
                self.queued_probes_running -= 1;
                self.plan_queued_probe();
            }
            Effect::Store(order) => self.on_store_order(id, order, now),
        }
    }
}

/// Timers.
impl Scheduler {
    pub fn set_timer(&mut self, id: CredentialId, timer: Timer, at_ms: Option<BootMs>, now_ms: BootMs) {
        let Some(member) = self.refresher.members.get_mut(id) else { return };
        let key = &mut member.timers[timer as usize];
        if let Some(key) = key.take() {
            self.timers.try_remove(&key);
        }
        *key = at_ms.map(|at_ms| self.timers.insert(Due::Of(id, timer), delay(at_ms, now_ms)));
    }

    fn on_due(&mut self, due: Due) {
        match due {
            Due::ProbeQueue => self.on_probe_queue_timer(),
            Due::EndedKeys => self.drop_ended_keys(),
            Due::Of(id, timer) => {
                let Some(member) = self.refresher.members.get_mut(id) else { return };
                member.timers[timer as usize] = None;
                self.tell(id, Event::Due(timer));
            }
        }
    }

    /// Lets keys that were taken away refuse writes for a while, and then drops them.
    pub fn end_keys(&mut self, ended: EndedKeys) {
        if ended.is_empty() {
            return;
        }
        let at_ms = self.refresher.clock.boot_ms() + ENDED_KEYS_MS;
        if self.ended_keys.is_empty() {
            self.timers.insert(Due::EndedKeys, Duration::from_millis(ENDED_KEYS_MS));
        }
        self.ended_keys.push_back((at_ms, ended));
    }

    fn drop_ended_keys(&mut self) {
        let now_ms = self.refresher.clock.boot_ms();
        let mut ended = EndedKeys::default();
        while let Some((_, keys)) = self.ended_keys.pop_front_if(|(at_ms, _)| *at_ms <= now_ms) {
            ended.add(keys);
        }
        if let Some((at_ms, _)) = self.ended_keys.front() {
            self.timers.insert(Due::EndedKeys, delay(*at_ms, now_ms));
        }
        let (table, ordinary) = (self.refresher.table.clone(), self.refresher.ordinary.clone());
        let work = async move {
            if let Some(items) = ordinary {
                let forget_some = ended.forgetting();
                let mut cursor = Some(0);
                while let Some(from) = cursor {
                    cursor = forget_some(&*items, from);
                    tokio::task::yield_now().await;
                }
            }
            table.drop_ended(&ended);
        };
        self.background.spawn(self.end_background.clone().run_until_cancelled_owned(work));
    }

    pub fn plan_queued_probe(&mut self) {
        if let Some(timer) = self.probe_queue_timer.take() {
            self.timers.try_remove(&timer);
        }
        // The end of a running probe plans the next.
        if self.queued_probes_running >= PROBES_RUNNING_MAX {
            return;
        }
        let now_ms = self.refresher.clock.boot_ms();
        let next_ms = self.probe_queue.next_ms();
        self.probe_queue_timer = next_ms.map(|at_ms| self.timers.insert(Due::ProbeQueue, delay(at_ms, now_ms)));
    }

    fn on_probe_queue_timer(&mut self) {
        self.probe_queue_timer = None;
        let now = self.refresher.clock.now();
        let members = &self.refresher.members;
        let member = |id: CredentialId| members.get(id);
        self.probe_queue.record_reads(now.boot_ms, |id| {
            member(id).is_some_and(|member| member.actor.is_read_elsewhere() || member.writer.take_read())
        });
        let readiness = |id| member(id).map_or(ProbeReadiness::Later, |member| member.actor.probe_readiness(now));
        if let Some(id) = self.probe_queue.pick(now.boot_ms, readiness) {
            self.queued_probes_running += 1;
            let again_ms = now.boot_ms + self.probe_queue.round_ms();
            self.tell(id, Event::ProbePicked { again_ms });
        }
        self.plan_queued_probe();
    }
}

/// Tasks.
impl Scheduler {
    fn start_fetch(&mut self, id: CredentialId, order: FetchOrder) {
        let permits = if order.is_queued_probe { &self.probe_permits } else { &self.permits }.clone();
        let cancel = self.cancel.child_token();
        if let Some(member) = self.refresher.members.get_mut(id) {
            member.fetch = Some(cancel.clone().drop_guard());
        }
        let fetch = FetchTask {
            upstream: self.refresher.upstream.clone(),
            clock: self.refresher.clock.clone(),
            permits,
            cancel,
            intent: order.intent.and_then(|intent| self.save_intent(id, intent)),
            order,
        };
        let FetchOrder { credential_type, plan, .. } = &fetch.order;
        let mints = fetch.order.mints().then(|| (credential_type.id, plan.appid.clone()));
        self.spawn(id, mints, async move {
            #[cfg(test)]
            super::tests::panic_if_asked(&fetch.order.plan.appid);
            TaskOutput::Fetched(Box::new(fetch.run().await))
        });
    }

    /// Begins with a credential that was added. If an earlier call for its next value still runs, which nobody waits for
    /// any more, its first fetch is made after that: of two calls at once nobody knows whose value is the later one.
    pub fn start(&mut self, id: CredentialId) {
        let now = self.refresher.clock.now();
        let Some(Member { actor, .. }) = self.refresher.members.get(id) else { return };
        let earlier = self.minting.get_mut(&(actor.plan.credential_type.id, actor.plan.appid.clone()));
        if let Some(earlier) = earlier {
            earlier.then_start.push(id);
            return self.tell(id, Event::StartsLater);
        }
        let first = actor.first_try(now);
        let first_try_ms = if first.is_urgent { self.next_first_call_ms(now.boot_ms) } else { first.at_ms };
        self.tell(id, Event::Started { first_try_ms });
    }

    /// When one more app that was added may make its first call. As at the start, as many call at once as may run at
    /// once, and the others a little later.
    fn next_first_call_ms(&mut self, now_ms: BootMs) -> BootMs {
        let at_once_ms = SPREAD_MS * self.refresher.options.concurrency.saturating_sub(1) as u64;
        let turn_ms = self.first_calls_ms.max(now_ms);
        self.first_calls_ms = turn_ms + SPREAD_MS;
        turn_ms.saturating_sub(at_once_ms).max(now_ms)
    }

    fn save_intent(&self, id: CredentialId, intent: Intent) -> Option<(StateWriter, u64)> {
        let state_writer = self.refresher.state_writer.clone()?;
        let version = state_writer.update_entry(id, |kept| {
            if let Some(entry) = kept {
                entry.intent_unix_ms.get_or_insert(intent.unix_ms);
            }
        });
        // Nor must it wait for the backoff of a disk that failed before.
        let hurry = intent.is_urgent || state_writer.is_failing();
        let version = if hurry { state_writer.request_write_now() } else { version };
        Some((state_writer, version))
    }

    fn await_save(&mut self, id: CredentialId, wait_ms: u64, is_urgent: bool) {
        let (member, state_writer) = (self.refresher.members.get(id), self.refresher.state_writer.clone());
        let Some((member, state_writer)) = member.zip(state_writer) else { return self.tell(id, Event::Saved) };
        let version = if is_urgent { state_writer.request_write_now() } else { member.saved_version };
        self.spawn(id, None, async move {
            state_writer.wait_until_saved(version, Duration::from_millis(wait_ms)).await;
            TaskOutput::Saved
        });
    }

    fn spawn(
        &mut self,
        id: CredentialId,
        mints: Option<MintedValue>,
        work: impl Future<Output = TaskOutput> + Send + 'static,
    ) {
        let task = self.tasks.spawn(work).id();
        mints.iter().for_each(|value| self.minting.entry(value.clone()).or_default().running += 1);
        self.owners.insert(task, TaskOwner { id, mints });
    }

    fn on_task_done(&mut self, output: Result<(Id, TaskOutput), JoinError>) {
        let (task, output) = match output {
            Ok((task, output)) => (task, Ok(output)),
            Err(error) => (error.id(), Err(error)),
        };
        // Every task has an owner.
        let Some(TaskOwner { id, mints }) = self.owners.remove(&task) else { return };
        let then_start = mints.map(|mints| self.end_minting(mints)).unwrap_or_default();
        let event = match output {
            Ok(TaskOutput::Fetched(report)) => Event::Fetched(report),
            Ok(TaskOutput::Saved) => Event::Saved,
            Ok(TaskOutput::Asked(result)) => Event::Cluster(ClusterNews::Asked(result)),
            Err(error) => {
                self.refresher.table.panics.fetch_add(1, Ordering::Relaxed);
                if let Some(member) = self.refresher.members.get(id) {
                    log_credential!(error, member.writer, %error, "a fetch task panicked; this is a bug");
                }
                Event::Crashed
            }
        };
        self.tell(id, event);
        then_start.into_iter().for_each(|id| self.start(id));
    }

    /// A call that makes this value has ended. Returns who has waited, if no other such call runs.
    fn end_minting(&mut self, value: MintedValue) -> Vec<CredentialId> {
        match self.minting.entry(value) {
            Entry::Occupied(mut calls) if calls.get().running > 1 => calls.get_mut().running -= 1,
            Entry::Occupied(calls) => return calls.remove().then_start,
            Entry::Vacant(_) => {}
        }
        Vec::new()
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
}

/// What comes from outside.
impl Scheduler {
    fn on_secret_read(&mut self, read: &SecretRead) {
        for id in &read.ids {
            self.tell(*id, Event::SecretRead { secret: read.secret.clone(), at_start: read.at_start });
        }
    }

    /// Takes a received verify ticket. One that is known already changes nothing and causes no call.
    fn on_ticket(&mut self, received: &ReceivedTicket) {
        if self.take_ticket(received) {
            self.share_ticket(received.id, received.ticket.expose().to_owned());
        }
    }

    /// The same for a ticket from another node. True if it is new.
    fn take_ticket(&mut self, received: &ReceivedTicket) -> bool {
        let grant = self.refresher.members.get(received.id).and_then(|member| member.actor.grant.as_ref());
        let is_new = grant.is_some_and(|grant| grant.take_ticket(&received.ticket, received.from_file));
        if is_new {
            let ticket = fingerprint(received.ticket.expose().as_bytes());
            self.tell(received.id, Event::TicketTaken { ticket });
        }
        is_new
    }

    fn count_client_verification(&mut self, is_taken: bool, now_ms: BootMs) {
        let table = &self.refresher.table;
        let counter = if is_taken { &table.client_checks } else { &table.client_checks_refused };
        counter.fetch_add(1, Ordering::Relaxed);
        if !is_taken && self.refusal_log.allow(now_ms, LOG_SPACING_MS) {
            warn!(
                refused = table.client_checks_refused.load(Ordering::Relaxed),
                "too many reports of good tokens or too many foreign writes: not every report is verified; find out who \
                 sends them (reports and writers in stats tokens, writers on the status page)"
            );
        }
    }

    fn on_cluster_event(&mut self, event: ClusterEvent) {
        let now_ms = self.refresher.clock.boot_ms();
        let Refresher { cluster, table, .. } = &mut self.refresher;
        let Some(cluster) = cluster else { return };
        match cluster.translate(event, &table.cluster, now_ms) {
            Some(ClusterAction::Actor(id, event)) => self.tell(id, event),
            Some(ClusterAction::AllActors(event)) => self.tell_all(event),
            Some(ClusterAction::Ticket(received)) => drop(self.take_ticket(&received)),
            Some(ClusterAction::TicketMissing(id)) => self.share_held_ticket(id),
            Some(ClusterAction::StoreWork(id, work)) => self.spawn_store_work(id, Some(work)),
            None => {}
        }
    }

    /// Gives the verify ticket that is kept here to a store that lacks it.
    fn share_held_ticket(&mut self, id: CredentialId) {
        let grant = self.refresher.members.get(id).and_then(|member| member.actor.grant.as_ref());
        if let Some(ticket) = grant.and_then(|grant| grant.ticket()) {
            self.share_ticket(id, ticket);
        }
    }

    fn share_ticket(&mut self, id: CredentialId, ticket: String) {
        let work = self.refresher.cluster.as_mut().and_then(|cluster| cluster.share_ticket(id, ticket));
        self.spawn_store_work(id, work);
    }

    fn on_store_order(&mut self, id: CredentialId, order: StoreOrder, now: Now) {
        let Refresher { cluster, members, table, .. } = &mut self.refresher;
        let work = match (cluster, members.get(id)) {
            (Some(cluster), Some(member)) => cluster.execute(&member.writer, order, &table.cluster, now),
            _ => None,
        };
        self.spawn_store_work(id, work);
    }

    fn spawn_store_work(&mut self, id: CredentialId, work: Option<StoreWork>) {
        match work {
            Some(StoreWork::Asking(asking)) => self.spawn(id, None, async move { TaskOutput::Asked(asking.await) }),
            Some(StoreWork::Background(work)) => {
                self.background.spawn(self.end_background.clone().run_until_cancelled_owned(work));
            }
            None => {}
        }
    }
}

/// The time until an instant, one year at most: the timer queue takes not much more.
fn delay(at_ms: BootMs, now_ms: BootMs) -> Duration {
    Duration::from_millis(at_ms.saturating_sub(now_ms).min(365 * 86_400_000))
}

/// True if the boot clock and tokio's clock differ: tokio's stops while the machine is suspended.
pub(super) fn clock_jumped(before: (BootMs, Instant), now: (BootMs, Instant)) -> bool {
    let boot = now.0.saturating_sub(before.0);
    let tokio = u64::try_from(now.1.duration_since(before.1).as_millis()).unwrap_or(u64::MAX);
    boot.abs_diff(tokio) > JUMP_MS
}
