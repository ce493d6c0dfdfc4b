//! Keeps every credential current. It alone has the writers of the table.
//!
//! Here is what it is made of, and how its parts start and end. `scheduler` is its loop: it hands events to the actors
//! (`credential/actor.rs`), which decide, and does what they say. No failure ends the loop; only the cancellation does.
//! `cluster_layer` is what a node in a cluster has besides, `secrets` reads secrets that are replaced in their files, and
//! `changes` adds, changes and removes apps while it runs.

mod changes;
mod cluster_layer;
mod scheduler;
mod secrets;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio_util::sync::{CancellationToken, DropGuard};
use tokio_util::time::delay_queue;
use tracing::warn;

use super::actor::{Actor, Effect};
use super::adopt::TokenSource;
use super::app::Adopt;
use super::grants::Grants;
use super::state_writer::StateWriter;
use super::table::{CredentialId, CredentialWriter, OrdinaryItems, Requests, Table};
use crate::clock::Clock;
use crate::files::watch::{self, WatchedFiles};
use crate::platform::{ClientOptions, Upstream};
use crate::supervision::Supervisor;

use changes::{AppChange, CHANGES_MAX};
pub use changes::{AppControl, ChangeRefused};
pub(super) use cluster_layer::{ClusterLayer, SharedTicket};
use scheduler::Scheduler;
use secrets::SecretFiles;

/// Keeps every credential current until told to stop.
pub struct Refresher {
    pub(super) table: Arc<Table>,
    pub(super) requests: Requests,
    pub(super) ticket_files: Vec<Box<dyn WatchedFiles>>,
    pub(super) members: Members,
    pub(super) upstream: Arc<dyn Upstream>,
    pub(super) clock: Arc<dyn Clock>,
    pub(super) state_writer: Option<StateWriter>,
    /// None on a single node.
    pub(super) cluster: Option<ClusterLayer>,
    pub(super) options: ClientOptions,
    pub(super) grants: Arc<Grants>,
    /// What clients have stored under ordinary keys.
    pub(super) ordinary: Option<Arc<dyn OrdinaryItems>>,
    pub(super) changes: (mpsc::Sender<AppChange>, mpsc::Receiver<AppChange>),
    /// Is told when a task of the refresher ends too early.
    pub(super) supervisor: Option<Supervisor>,
    pub(super) watchdog: Option<Watchdog>,
}

/// A credential, as the refresher has it.
pub(super) struct Member {
    actor: Actor,
    writer: CredentialWriter,
    /// The credential whose value it is fetched with.
    parent: Option<CredentialId>,
    /// Those that are fetched with its value.
    dependents: BTreeSet<CredentialId>,
    /// By [`Timer`].
    timers: [Option<delay_queue::Key>; 2],
    /// Ends its fetch if that was not sent yet when it is removed.
    fetch: Option<DropGuard>,
    /// The last write of its entry in the state file.
    saved_version: u64,
}

/// The credentials. An id is not used again after its credential was removed.
#[derive(Default)]
pub(super) struct Members {
    by_id: BTreeMap<CredentialId, Member>,
    /// The access token's id first.
    by_app: HashMap<String, Vec<CredentialId>>,
    next_id: CredentialId,
}

/// Is called by the loop at regular times, as a sign that the loop runs.
pub(super) struct Watchdog {
    every: Duration,
    due_ms: u64,
    feed: Box<dyn FnMut() + Send>,
}

/// Cluster events in the queue; when it is full, the task that watches the cluster store waits.
const CLUSTER_EVENTS_MAX: usize = 256;
/// How long the last write may take, and then the end of the tasks. Both follow the wait for calls that were sent, and
/// service managers kill a process after 20 s.
const FLUSH_WAIT: Duration = Duration::from_secs(5);

impl Member {
    /// Shows readers what the actor has at the start.
    pub(super) fn new(mut actor: Actor, writer: CredentialWriter, parent: Option<CredentialId>) -> Member {
        for effect in actor.take_effects() {
            if let Effect::Show(change) = effect {
                writer.apply(change);
            }
        }
        Member { actor, writer, parent, dependents: BTreeSet::new(), timers: [None; 2], fetch: None, saved_version: 0 }
    }
}

/// Where changes of apps go, and where they come from.
pub(super) fn changes() -> (mpsc::Sender<AppChange>, mpsc::Receiver<AppChange>) {
    mpsc::channel(CHANGES_MAX)
}

impl Members {
    /// Its parent must be there already.
    pub(super) fn push(&mut self, member: Member) {
        let id = self.next_id;
        self.next_id += 1;
        self.by_app.entry(member.writer.app().to_owned()).or_default().push(id);
        if let Some(parent) = member.parent.and_then(|parent| self.get_mut(parent)) {
            parent.dependents.insert(id);
        }
        self.by_id.insert(id, member);
    }

    fn get(&self, id: CredentialId) -> Option<&Member> {
        self.by_id.get(&id)
    }

    fn get_mut(&mut self, id: CredentialId) -> Option<&mut Member> {
        self.by_id.get_mut(&id)
    }

    fn take(&mut self, id: CredentialId) -> Option<Member> {
        let member = self.by_id.remove(&id)?;
        if let Some(of_app) = self.by_app.get_mut(member.writer.app()) {
            of_app.retain(|other| *other != id);
            if of_app.is_empty() {
                self.by_app.remove(member.writer.app());
            }
        }
        if let Some(parent) = member.parent.and_then(|parent| self.get_mut(parent)) {
            parent.dependents.remove(&id);
        }
        Some(member)
    }

    /// The credentials of an app, its access token's first.
    fn of_app(&self, app: &str) -> Vec<CredentialId> {
        self.by_app.get(app).cloned().unwrap_or_default()
    }

    /// Those that are fetched with the value of this one.
    fn dependents(&self, id: CredentialId) -> Vec<CredentialId> {
        self.get(id).map(|member| member.dependents.iter().copied().collect()).unwrap_or_default()
    }

    fn ids(&self) -> Vec<CredentialId> {
        self.by_id.keys().copied().collect()
    }

    fn iter(&self) -> impl Iterator<Item = (CredentialId, &Member)> {
        self.by_id.iter().map(|(id, member)| (*id, member))
    }
}

impl Refresher {
    /// If a task of the refresher ends too early, the supervisor ends the server.
    pub fn supervised_by(self, supervisor: &Supervisor) -> Refresher {
        Refresher { supervisor: Some(supervisor.clone()), ..self }
    }

    /// Calls `feed` about this often while the loop runs. `feed` is called in the loop, so it must not wait.
    pub fn with_watchdog(self, every: Duration, feed: impl FnMut() + Send + 'static) -> Refresher {
        Refresher { watchdog: Some(Watchdog { every, due_ms: 0, feed: Box::new(feed) }), ..self }
    }

    /// Says where ordinary items are. Those under the keys of a removed app are forgotten.
    pub fn with_ordinary_items(self, items: Arc<dyn OrdinaryItems>) -> Refresher {
        Refresher { ordinary: Some(items), ..self }
    }

    /// The credentials whose first value is read from the app's own sink.
    pub fn adopts_from_sinks(&self) -> Vec<CredentialId> {
        let members = self.members.iter().filter(|(_, member)| member.actor.plan.adopt == Some(Adopt::Sink));
        members.map(|(id, _)| id).collect()
    }

    /// Sets the place the first value is read from.
    pub fn adopt_from(&mut self, id: CredentialId, source: Arc<dyn TokenSource>) {
        if let Some(member) = self.members.get_mut(id) {
            member.actor.adopt_from(source);
        }
    }

    /// Runs until `shutdown`. Then waits for calls that were sent (8 s at most), writes the state, and returns.
    pub async fn run(mut self, shutdown: CancellationToken) {
        let mut tasks = RefresherTasks::new(self.supervisor.take());
        if let Some(state_writer) = self.state_writer.clone() {
            let table = self.table.clone();
            tasks.start("the writer of the state file", |end| state_writer.run(table, end));
        }
        // The scheduler keeps the receiver for longer than the watch runs.
        let (secret_reads, secrets) = mpsc::unbounded_channel();
        let (watch, watched) = mpsc::unbounded_channel();
        let mut secret_files = SecretFiles::new(watch, secret_reads);
        secret_files.follow_all(self.members.iter().map(|(id, member)| (id, &member.actor)));
        let ticket_files = std::mem::take(&mut self.ticket_files);
        tasks.start("the watch on secret files", |end| watch::watch_files_and_more(ticket_files, watched, end));
        let (events, cluster_events) = mpsc::channel(CLUSTER_EVENTS_MAX);
        if let Some(cluster) = &self.cluster {
            tasks.start("the watch on the shared state", |end| cluster.watch(events, end));
        }
        let state_writer = self.state_writer.clone();
        let mut scheduler = Scheduler::new(self, (secret_files, secrets), cluster_events, &shutdown);
        scheduler.run(&shutdown).await;
        scheduler.end().await;
        if let Some(state_writer) = state_writer
            && !state_writer.flush(FLUSH_WAIT).await
        {
            warn!("the state file could not be written before shutdown");
        }
        tasks.end().await;
    }
}

/// The tasks that run as long as the refresher runs. They also end if it is dropped.
struct RefresherTasks {
    supervisor: Option<Supervisor>,
    running: JoinSet<()>,
    end: CancellationToken,
}

impl RefresherTasks {
    fn new(supervisor: Option<Supervisor>) -> RefresherTasks {
        RefresherTasks { supervisor, running: JoinSet::new(), end: CancellationToken::new() }
    }

    fn start<W: Future<Output = ()> + Send + 'static>(
        &mut self,
        name: &str,
        work: impl FnOnce(CancellationToken) -> W,
    ) {
        let work = work(self.end.clone());
        match self.supervisor.as_ref().map(|supervisor| supervisor.watch(name)) {
            Some(alive) => self.running.spawn(alive.during(work)),
            None => self.running.spawn(work),
        };
    }

    /// Takes [`FLUSH_WAIT`] at most for all of them together.
    async fn end(mut self) {
        self.end.cancel();
        // That ends each, unless the disk hangs. A panic in one has been reported already.
        let all = async { while self.running.join_next().await.is_some() {} };
        let _ = tokio::time::timeout(FLUSH_WAIT, all).await;
    }
}
