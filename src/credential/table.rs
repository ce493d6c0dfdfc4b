//! The table of managed keys: every key (`access_token:<appid>` and its aliases) and the credential that it shows.
//!
//! Any number of readers, who never wait. What changes a value or a status is in [`writer`], and only the refresher has
//! a [`CredentialWriter`]. A value is replaced, never cleared first. Credentials and keys come and go while others are
//! read; [`names`] has the keys. No async code, no sockets, no clock: the time comes in as a value.

use core::net::IpAddr;
use std::borrow::Cow;
use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use arc_swap::{ArcSwap, Guard};
use bytes::Bytes;
use dashmap::DashMap;
use parking_lot::Mutex;
use tokio::sync::{mpsc, oneshot, watch};

pub use super::facts::host_of;
pub(crate) use super::facts::log_credential;
use super::facts::{
    CallOutcomes, ClusterStatus, CredentialInfo, Durations, FailureClass, RefusedWriters, Verification,
};
pub use super::id::CredentialId;
pub use super::journal::{Event, Journal};
pub use super::reliable_until::ReliableUntil;
use super::value_cell::{CellReading, ValueCell};
use super::verify_ticket::{ReceivedTicket, TicketFault, TicketInbox};
use super::wildcards::has_wildcard;
use crate::clock::{BootMs, LogThrottle, Now};
pub use crate::encoding::Times;
use crate::encoding::{Rendered, View};
pub(super) use names::EndedKeys;
use names::NameBook;
pub use names::{KeyConfig, KeyReading, ManagedKey, ManagedValue, Names, NamesReader, OrdinaryItems};
pub use writer::{CredentialWriter, TableChange};

/// A value as readers see it. `Debug` never shows it.
#[derive(Clone)]
pub struct Published {
    /// The token, byte for byte as WeChat has sent it.
    pub value: Bytes,
    /// The number of this value, see [`super::generation`]; answered as the cas.
    pub generation: u64,
    /// The boot-clock time from which the value must not be served.
    pub expires_boot_ms: BootMs,
    /// How long clients can rely on it.
    pub reliable: ReliableUntil,
}

impl Published {
    /// A value that no renewal ends before its expiry.
    pub fn to_the_end(value: Bytes, generation: u64, expires_boot_ms: BootMs) -> Published {
        Published { value, generation, expires_boot_ms, reliable: ReliableUntil::TO_THE_END }
    }

    /// Until when a client that asks now can rely on the value: every client is told this as its expiry.
    #[inline]
    pub fn reliable_until(&self, now_ms: BootMs) -> BootMs {
        self.reliable.end(self.expires_boot_ms, now_ms)
    }
}

impl std::fmt::Debug for Published {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Published")
            .field("generation", &self.generation)
            .field("expires_boot_ms", &self.expires_boot_ms)
            .finish_non_exhaustive()
    }
}

/// A published value with its views; both are replaced together.
pub struct RenderedValue {
    published: Arc<Published>,
    /// In the order of the credential's views.
    rendered: Box<[Rendered]>,
    /// It was read since [`Credential::take_read`]. In the same cache line as the value.
    was_read: AtomicBool,
}

impl RenderedValue {
    /// Records a read. Written only if it was not read before, so that readers share the cache line.
    #[inline]
    pub fn record_read(&self) {
        if !self.was_read.load(Ordering::Relaxed) {
            self.was_read.store(true, Ordering::Relaxed);
        }
    }
}

impl std::ops::Deref for RenderedValue {
    type Target = Published;
    fn deref(&self) -> &Published {
        &self.published
    }
}

/// What a reader gets.
pub enum Reading {
    /// A value WeChat accepts.
    Live(Guard<Option<Arc<RenderedValue>>>),
    /// No value yet, but the first fetch is running: the reader may wait for it.
    FirstFetch,
    /// No value to serve: expired or refused.
    Absent,
}

/// The state of a credential, for people and monitoring.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum CredentialState {
    /// A live value, and no fault.
    Fresh,
    /// A call to WeChat is running.
    Renewing,
    /// A live value, but the last call failed.
    Stale,
    /// WeChat wants no call before a certain time, or the token that it is fetched with is missing.
    Waiting,
    /// An operator has to change something before WeChat answers with a value.
    Blocked,
    /// No live value.
    #[default]
    Dead,
}

impl CredentialState {
    pub const ALL: [CredentialState; 6] = [
        CredentialState::Fresh,
        CredentialState::Renewing,
        CredentialState::Stale,
        CredentialState::Waiting,
        CredentialState::Blocked,
        CredentialState::Dead,
    ];

    /// One word for statistics.
    pub fn name(self) -> &'static str {
        match self {
            CredentialState::Fresh => "fresh",
            CredentialState::Renewing => "renewing",
            CredentialState::Stale => "stale",
            CredentialState::Waiting => "waiting",
            CredentialState::Blocked => "blocked",
            CredentialState::Dead => "dead",
        }
    }
}

/// The last failure. It contains nothing secret.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LastError {
    pub errcode: Option<i64>,
    pub class: FailureClass,
    pub rid: Option<String>,
    pub text: String,
    /// What its error code says; none without one.
    pub meaning: Option<&'static str>,
    /// What the operator should do about it.
    pub advice: Cow<'static, str>,
    /// One word for a network failure; none for other failures.
    pub network: Option<&'static str>,
    /// Our address as the platform sees it, if it has said so.
    pub seen_ip: Option<IpAddr>,
    pub at_boot_ms: BootMs,
}

impl LastError {
    /// True if nothing was sent because something that the operator has to give is missing.
    pub fn is_operators_own(&self) -> bool {
        self.errcode.is_none() && self.class == FailureClass::Operator
    }

    /// The same for the journal.
    pub(super) fn event(&self) -> Event {
        let LastError { class, errcode, rid, network, text, meaning, advice, .. } = self.clone();
        Event::Failed { class, errcode, rid, network, text, meaning, advice }
    }
}

/// The status of a credential, written by the refresher.
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub struct CredentialStatus {
    pub state: CredentialState,
    /// 0 while there has been no value.
    pub generation: u64,
    /// 0 while there has been no value.
    pub expires_boot_ms: BootMs,
    pub next_try_boot_ms: BootMs,
    /// It waits for the token that it is fetched with, see [`Credential::parent`], and has no fault itself.
    pub waits_for_parent: bool,
    /// When the value is probed next, if that is planned.
    pub next_probe_boot_ms: Option<BootMs>,
    /// Cleared by the next success.
    pub last_error: Option<LastError>,
    /// In a cluster: the node that has fetched the present value, if that is known.
    pub renewed_by: Option<String>,
    /// Calls sent to WeChat since the start, probes included.
    pub calls: u64,
    /// Of them, probes.
    pub probes: u64,
    /// Probes in the day that ends at `day_ends_unix_ms`.
    pub probes_today: u64,
    /// Answers with the present value.
    pub same_answers: u64,
    pub failures: u64,
    /// Calls without probes in the day that ends at `day_ends_unix_ms` (wall time, midnight in UTC+8).
    pub calls_today: u64,
    pub day_ends_unix_ms: i64,
    /// The day's quota, if there is one.
    pub calls_quota: Option<u64>,
    /// Calls that a quota forbade since the start.
    pub calls_denied: u64,
    /// Verifications because of reports.
    pub checks: u64,
    /// Verifications in which WeChat refused the value but still answered with it.
    pub dead_but_same: u64,
    /// Values that became invalid before their expiry.
    pub early_deaths: u64,
    /// Forced refreshes.
    pub forced: u64,
    /// The endpoint in use: the configured one or its fallback.
    pub endpoint: &'static str,
    /// The lifetime of the present value when it was fetched, milliseconds.
    pub life_ms: u64,
    /// When the present value was fetched, wall time.
    pub fetched_unix_ms: Option<i64>,
    /// Calls since the start, by how they ended.
    pub outcomes: CallOutcomes,
    /// The last verification.
    pub last_check: Option<Verification>,
    /// Verifications since the start.
    pub looks: u64,
}

impl CredentialStatus {
    /// Calls and probes of the present day.
    pub fn today(&self, unix_ms: i64) -> (u64, u64) {
        if unix_ms < self.day_ends_unix_ms { (self.calls_today, self.probes_today) } else { (0, 0) }
    }

    /// What is planned for `next_try_boot_ms`, in two words at most.
    pub fn next_action(&self) -> &'static str {
        match self.state {
            CredentialState::Fresh => "renew",
            CredentialState::Renewing => "under way",
            CredentialState::Waiting if self.waits_for_parent => "await token",
            CredentialState::Stale | CredentialState::Waiting | CredentialState::Blocked | CredentialState::Dead => {
                "try again"
            }
        }
    }
}

/// One credential: the value, its status and counters.
#[derive(Default)]
pub struct Credential {
    pub id: CredentialId,
    /// Its name in logs and statistics.
    pub appid: String,
    app: String,
    parent: Option<Arc<Credential>>,
    /// Readers wait for the first value until the first fetch has ended.
    value_cell: ValueCell<RenderedValue>,
    /// The different views of its keys. Only the writer looks at them.
    views: Mutex<Vec<View>>,
    /// Refused writes of clients.
    pub refused_writes: AtomicU64,
    /// At most one log line a minute about them.
    pub refusal_log: LogThrottle,
    /// Refused writes that brought another token than ours.
    pub foreign_writes: AtomicU64,
    /// Which hosts have sent refused writes.
    pub writers: RefusedWriters,
    writers_noted: LogThrottle,
    /// Refused writes that are neither in `writers` nor in the journal yet.
    refusals_unnoted: AtomicU64,
    /// Reports of clients: `delete` and others.
    pub reports: AtomicU64,
    status: Mutex<CredentialStatus>,
    about: CredentialInfo,
    /// Its keys, as people may read them.
    redacted_names: ArcSwap<Vec<String>>,
    /// The number of [`Table::changes`] at its last change.
    version: AtomicU64,
    ticks: watch::Sender<u64>,
    /// The same for [`Table::values`].
    value_version: AtomicU64,
    values: watch::Sender<u64>,
    /// WeChat refused the published value.
    withdrawn: AtomicBool,
    /// Values are passed on to readers that this process cannot see.
    has_distant_readers: AtomicBool,
}

impl Credential {
    /// Records that its values are passed on to another node or to a store of the site. Reads there cannot be seen
    /// here, so it counts as read all the time.
    pub fn record_distant_readers(&self) {
        self.has_distant_readers.store(true, Ordering::Relaxed);
    }

    /// Whether the value was read since the last call. Clears the mark.
    pub fn take_read(&self) -> bool {
        let shown = self.value_cell.latest();
        let was_read = shown.as_ref().is_some_and(|shown| {
            shown.was_read.load(Ordering::Relaxed) && shown.was_read.swap(false, Ordering::Relaxed)
        });
        was_read || self.has_distant_readers.load(Ordering::Relaxed)
    }

    /// One without a value.
    fn new(
        id: CredentialId,
        config: &CredentialConfig,
        parent: Option<Arc<Credential>>,
        (ticks, values): (&watch::Sender<u64>, &watch::Sender<u64>),
    ) -> Credential {
        let credential = Credential {
            id,
            appid: config.label.clone(),
            app: config.app.clone(),
            parent,
            about: config.about.clone(),
            ticks: ticks.clone(),
            values: values.clone(),
            ..Credential::default()
        };
        credential.bump_value_version();
        credential
    }

    /// Called after the value was replaced: who sees the new number finds the new value.
    fn bump_value_version(&self) {
        self.values.send_modify(|tick| {
            *tick += 1;
            self.value_version.store(*tick, Ordering::Release);
        });
    }

    /// What it is.
    pub fn about(&self) -> &CredentialInfo {
        &self.about
    }

    /// The token it is fetched with, if it is.
    pub fn parent(&self) -> Option<&Arc<Credential>> {
        self.parent.as_ref()
    }

    /// The token that it is fetched with, while it waits for it.
    pub fn missing_token(&self, status: &CredentialStatus) -> Option<&Arc<Credential>> {
        self.parent().filter(|_| status.waits_for_parent)
    }

    /// Every key that it is read by, redacted where the key contains a secret.
    pub fn redacted_names(&self) -> Arc<Vec<String>> {
        self.redacted_names.load_full()
    }

    /// Those of them that are known by their end.
    pub fn wildcard_names(&self) -> Vec<String> {
        self.redacted_names().iter().filter(|name| has_wildcard(name)).cloned().collect()
    }

    /// The number of [`Table::changes`] at its last change.
    pub fn version(&self) -> u64 {
        self.version.load(Ordering::Acquire)
    }

    fn touch(&self) {
        self.ticks.send_modify(|tick| {
            *tick += 1;
            self.version.store(*tick, Ordering::Release);
        });
    }

    /// The number of [`Table::values`] when its value changed last. Never 0 in a table, and different for all
    /// credentials.
    pub fn value_version(&self) -> u64 {
        self.value_version.load(Ordering::Acquire)
    }

    /// True if WeChat has refused the published value. It is not served although it has not expired.
    pub fn is_withdrawn(&self) -> bool {
        self.withdrawn.load(Ordering::Acquire)
    }

    /// Counts a refused write and records its host. If there are very many, the host is recorded every tenth of a
    /// second only, but all writes are counted.
    pub fn record_refused_write(&self, journal: &Journal, peer: &dyn std::fmt::Display, is_foreign: bool, now: Now) {
        self.refusals_unnoted.fetch_add(1, Ordering::Relaxed);
        if self.writers_noted.allow(now.boot_ms, WRITERS_SPACING_MS) {
            self.write_refused_writes(journal, host_of(peer), is_foreign, now);
        }
    }

    /// Adds the writes that were counted but not recorded yet, for the last recorded host.
    pub fn flush_refused_writes(&self, journal: &Journal, now: Now) {
        if self.refusals_unnoted.load(Ordering::Relaxed) > 0
            && let Some(last) = self.writers.last()
        {
            self.write_refused_writes(journal, last.peer, false, now);
        }
    }

    fn write_refused_writes(&self, journal: &Journal, peer: String, is_foreign: bool, now: Now) {
        let times = self.refusals_unnoted.swap(0, Ordering::Relaxed);
        if times > 0 {
            self.writers.record(peer.clone(), times, is_foreign, now);
            journal.record_times(self.id, now, times, Event::RefusedWrite { peer, is_foreign });
            self.touch();
        }
    }

    /// The app it belongs to, as the configuration names it: an access token's own name, a ticket's app.
    pub fn app(&self) -> &str {
        &self.app
    }

    /// The status now. Takes a lock that is only held for a few instructions.
    pub fn status(&self, boot_ms: BootMs) -> CredentialStatus {
        let mut status = self.status.lock().clone();
        let live = boot_ms < status.expires_boot_ms;
        if !live && matches!(status.state, CredentialState::Fresh | CredentialState::Stale) {
            status.state = CredentialState::Dead;
        }
        status
    }

    /// The value now. Takes no lock and allocates nothing.
    #[inline]
    pub fn read(&self, boot_ms: BootMs) -> Reading {
        match self.value_cell.load(|shown| boot_ms < shown.expires_boot_ms) {
            CellReading::Live(guard) => Reading::Live(guard),
            CellReading::Coming => Reading::FirstFetch,
            CellReading::Absent => Reading::Absent,
        }
    }

    /// The published value, expired or not.
    pub fn published(&self) -> Option<Arc<Published>> {
        self.value_cell.latest().as_ref().map(|shown| shown.published.clone())
    }

    /// The generation of the published value, live or not, if `token` is that value. Takes constant time.
    pub fn generation_of(&self, token: &[u8]) -> Option<u64> {
        use subtle::ConstantTimeEq;
        self.published().filter(|published| published.value.ct_eq(token).into()).map(|published| published.generation)
    }

    /// Wakes when a value is published or the first fetch ends.
    pub fn subscribe(&self) -> watch::Receiver<u64> {
        self.value_cell.subscribe()
    }

    /// The same for a reader that waits for the first fetch; wakes at once if `still_coming` says that it has ended.
    pub fn wait_while(&self, still_coming: impl FnOnce() -> bool) -> watch::Receiver<u64> {
        self.value_cell.wait_while(still_coming)
    }
}

/// The least time between two recorded hosts of refused writes, milliseconds.
const WRITERS_SPACING_MS: u64 = 100;

/// Why a value should be verified.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum VerificationReason {
    /// A client says that WeChat refuses it.
    Reported,
    /// A client has tried to write another token, so another program fetches for this app.
    ForeignWriter,
    /// An authorized client requests a verification or, if there is no live value, a fetch.
    Requested,
    /// An authorized client requests a probe and nothing else.
    ProbeRequested,
}

/// A request to verify a value.
pub struct VerificationRequest {
    pub id: CredentialId,
    /// The generation that was seen; none for the current one.
    pub generation: Option<u64>,
    pub why: VerificationReason,
    /// Is told when the verification is over.
    pub done: Option<oneshot::Sender<()>>,
}

/// A credential as configured.
pub struct CredentialConfig {
    /// Its name in logs and statistics.
    pub label: String,
    /// The app it belongs to. Rights are given by app.
    pub app: String,
    /// The token it is fetched with, by its place in the list; it is before this one.
    pub parent: Option<CredentialId>,
    pub about: CredentialInfo,
    pub keys: Vec<KeyConfig>,
}

impl CredentialConfig {
    /// One of an app of the same name, of which no more is known.
    pub fn new(label: &str, keys: Vec<KeyConfig>) -> CredentialConfig {
        let (label, app) = (label.to_owned(), label.to_owned());
        CredentialConfig { label, app, parent: None, about: CredentialInfo::default(), keys }
    }
}

/// What a table is built from.
#[derive(Default)]
pub struct TableConfig {
    pub credentials: Vec<CredentialConfig>,
    /// The components, which take verify tickets, by their appids.
    pub components: HashMap<String, CredentialId>,
    /// There is a state file.
    pub keeps_state: bool,
    pub cluster: ClusterStatus,
}

impl TableConfig {
    /// Of these credentials, and nothing else.
    pub fn of(credentials: impl IntoIterator<Item = (impl AsRef<str>, Vec<KeyConfig>)>) -> TableConfig {
        let credentials = credentials.into_iter().map(|(label, keys)| CredentialConfig::new(label.as_ref(), keys));
        TableConfig { credentials: credentials.collect(), ..TableConfig::default() }
    }
}

/// What readers send to the refresher.
pub struct Requests {
    pub verifications: mpsc::Receiver<VerificationRequest>,
    /// Verify tickets from files.
    pub tickets: mpsc::Receiver<ReceivedTicket>,
}

/// All credentials and their keys.
pub struct Table {
    names: NameBook,
    credentials: DashMap<CredentialId, Arc<Credential>>,
    reports: mpsc::Sender<VerificationRequest>,
    /// Where verify tickets go.
    inbox: TicketInbox,
    /// Whether the state file could be written the last time; true without one.
    pub state_saved: AtomicBool,
    /// Failed attempts to write the state file.
    pub state_failures: AtomicU64,
    /// Fetch tasks that have panicked. The refresher goes on.
    pub panics: AtomicU64,
    /// When the refresher's loop has last run, on the monotonic clock; 0 before it starts.
    pub heartbeat_ms: AtomicU64,
    /// Reports of clients, of all credentials.
    pub reports_made: AtomicU64,
    /// Verifications that clients have caused.
    pub client_checks: AtomicU64,
    /// Those that were not made because there were too many.
    pub client_checks_refused: AtomicU64,
    /// There is a state file.
    pub keeps_state: bool,
    /// The events of the last day.
    pub journal: Journal,
    /// How long calls took.
    pub durations: Durations,
    /// The cluster, as this node sees it.
    pub cluster: ClusterStatus,
    ticks: watch::Sender<u64>,
    values: watch::Sender<u64>,
}

/// How many requests may wait. More are dropped, because one verification answers all of them.
pub const REPORTS_MAX: usize = 1024;

impl Table {
    /// Builds the table. The writers, by credential id, and the requests are for the refresher.
    pub fn new(config: TableConfig) -> (Table, Vec<CredentialWriter>, Requests) {
        let TableConfig { credentials, components, keeps_state, cluster } = config;
        let (reports, verifications) = mpsc::channel(REPORTS_MAX);
        let (inbox, tickets) = TicketInbox::new(components);
        let table = Table {
            names: NameBook::new(),
            credentials: DashMap::new(),
            reports,
            inbox,
            state_saved: AtomicBool::new(true),
            state_failures: AtomicU64::new(0),
            panics: AtomicU64::new(0),
            heartbeat_ms: AtomicU64::new(0),
            reports_made: AtomicU64::new(0),
            client_checks: AtomicU64::new(0),
            client_checks_refused: AtomicU64::new(0),
            keeps_state,
            journal: Journal::default(),
            durations: Durations::default(),
            cluster,
            ticks: watch::Sender::new(0),
            values: watch::Sender::new(0),
        };
        let (mut writers, mut all): (Vec<CredentialWriter>, Vec<_>) = Default::default();
        for (id, config) in credentials.iter().enumerate() {
            let parent = config.parent.and_then(|parent| Some(writers.get(parent)?.reader().clone()));
            let mut writer = CredentialWriter::new(table.add_credential(id, config, parent));
            all.extend_from_slice(writer.make_keys(&config.keys));
            writers.push(writer);
        }
        table.names.change(&[], &all);
        (table, writers, Requests { verifications, tickets })
    }

    fn add_credential(
        &self,
        id: CredentialId,
        config: &CredentialConfig,
        parent: Option<Arc<Credential>>,
    ) -> Arc<Credential> {
        let credential = Arc::new(Credential::new(id, config, parent, (&self.ticks, &self.values)));
        self.credentials.insert(id, credential.clone());
        credential
    }

    /// Takes a verify ticket from a component's file, bare or as the decrypted message of WeChat's push. It is written to
    /// the state, and used at once if the component waits for one.
    pub fn hand_in_verify_ticket(&self, component_appid: &str, ticket: &str) -> Result<(), TicketFault> {
        self.inbox.hand_in(component_appid, ticket)
    }

    /// The present names.
    pub fn names(&self) -> Guard<Arc<Names>> {
        self.names.now()
    }

    /// For a reader that looks up many keys: it follows all changes of names, for less than [`Table::names`].
    pub fn names_reader(&self) -> NamesReader {
        self.names.reader()
    }

    /// Every credential, by id.
    pub fn credentials(&self) -> Vec<Arc<Credential>> {
        self.credentials_that(|_| true)
    }

    /// Those that are meant, by id. Of ten thousand that are looked at each second, only these are copied and sorted.
    pub fn credentials_that(&self, is_meant: impl Fn(&Credential) -> bool) -> Vec<Arc<Credential>> {
        let all = self.credentials.iter();
        let mut meant: Vec<_> =
            all.filter(|known| is_meant(known.value())).map(|known| known.value().clone()).collect();
        meant.sort_unstable_by_key(|credential| credential.id);
        meant
    }

    /// How many are meant. Copies none.
    pub fn count_credentials(&self, is_meant: impl Fn(&Credential) -> bool) -> usize {
        self.credentials.iter().filter(|known| is_meant(known.value())).count()
    }

    /// None if it was removed.
    pub fn credential(&self, id: CredentialId) -> Option<Arc<Credential>> {
        self.credentials.get(&id).map(|known| known.value().clone())
    }

    /// Changes at every change of any credential, except its age. See [`Credential::version`].
    pub fn changes(&self) -> watch::Receiver<u64> {
        self.ticks.subscribe()
    }

    /// Changes whenever a value is published or withdrawn, but not at its expiry. See [`Credential::value_version`].
    pub fn values(&self) -> watch::Receiver<u64> {
        self.values.subscribe()
    }

    /// Asks the refresher to verify a credential now, for an authorized client. The receiver fires when that is over;
    /// none if too many requests wait already.
    pub fn ask_refresh(&self, credential: &Credential, generation: Option<u64>) -> Option<oneshot::Receiver<()>> {
        credential.reports.fetch_add(1, Ordering::Relaxed);
        self.report(credential, generation, VerificationReason::Requested)
    }

    /// The same for a probe and nothing else.
    pub fn ask_probe(&self, credential: &Credential) -> Option<oneshot::Receiver<()>> {
        self.report(credential, None, VerificationReason::ProbeRequested)
    }

    /// Passes a client's report to the refresher. The receiver fires when the verification is over; none if too many
    /// requests wait already.
    pub fn report_refused(&self, credential: &Credential, generation: Option<u64>) -> Option<oneshot::Receiver<()>> {
        credential.reports.fetch_add(1, Ordering::Relaxed);
        self.reports_made.fetch_add(1, Ordering::Relaxed);
        // Set now: when the refresher reads it, the current value may be another one.
        let generation = generation.or_else(|| credential.published().map(|published| published.generation));
        self.report(credential, generation, VerificationReason::Reported)
    }

    /// Tells the refresher that a client has tried to write another token. Nobody waits for the verification.
    pub fn report_foreign_writer(&self, credential: &Credential) {
        credential.foreign_writes.fetch_add(1, Ordering::Relaxed);
        // If the queue is full, a verification will follow anyway.
        let _ = self.report(credential, None, VerificationReason::ForeignWriter);
    }

    fn report(
        &self,
        credential: &Credential,
        generation: Option<u64>,
        why: VerificationReason,
    ) -> Option<oneshot::Receiver<()>> {
        let (done, receiver) = oneshot::channel();
        let request = VerificationRequest { id: credential.id, generation, why, done: Some(done) };
        self.reports.try_send(request).ok().map(|()| receiver)
    }
}

mod names;
mod writer;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::encoding::{Fact, Form};

    fn published(generation: u64, expires_boot_ms: BootMs) -> Published {
        Published::to_the_end(Bytes::from_static(b"TOKEN"), generation, expires_boot_ms)
    }

    #[test]
    fn a_value_is_live_until_the_instant_it_expires() {
        let (table, writers, _requests) = Table::new(TableConfig::of([("wx1", Vec::new())]));
        let credential = &table.credentials()[0];
        assert!(matches!(credential.read(0), Reading::FirstFetch));
        writers[0].publish(published(1, 100));
        assert!(matches!(credential.read(99), Reading::Live(_)));
        assert!(matches!(credential.read(100), Reading::Absent));
    }

    #[test]
    fn a_failed_first_fetch_ends_the_waiting() {
        let (table, writers, _requests) = Table::new(TableConfig::of([("wx1", Vec::new())]));
        let credential = &table.credentials()[0];
        writers[0].end_wait();
        assert!(matches!(credential.read(0), Reading::Absent));
    }

    #[test]
    fn every_name_finds_its_credential_and_others_find_none() {
        let key = |name: &str| KeyConfig { name: name.to_owned(), redacted_name: None, view: View::RAW };
        let names = vec![key("access_token:wx1"), key("access_token")];
        let (table, ..) = Table::new(TableConfig::of([("wx1", names)]));
        assert!(table.names().is_managed(b"access_token:wx1"));
        assert!(table.names().is_managed(b"access_token"));
        assert!(!table.names().is_managed(b"access_tokem"));
        assert!(!table.names().is_managed(&[b'x'; 300]));
    }

    #[test]
    fn a_wildcard_is_looked_up_only_where_the_key_itself_is_not_managed() {
        let key = |name: &str| KeyConfig { name: name.to_owned(), redacted_name: None, view: View::RAW };
        let first = vec![key("{any}:access_token"), key("access_token:wx1")];
        let second = vec![key("v1:access_token")];
        let (table, ..) = Table::new(TableConfig::of([("wx1", first), ("wx2", second)]));
        let app = |key: &str| table.names().find(key.as_bytes()).map(|name| name.credential.app().to_owned());
        assert_eq!(app("v2:access_token").as_deref(), Some("wx1"));
        assert_eq!(app("v1:access_token").as_deref(), Some("wx2"));
        assert_eq!(app("{any}:access_token").as_deref(), Some("wx1"));
        assert_eq!(app(":access_token"), None);
        assert_eq!(app("v1:access_tokem"), None);
        assert_eq!(
            table.names().find(b"v2:access_token").unwrap().redacted_name(b"v2:access_token"),
            b"v2:access_token"
        );
    }

    /// What is under a key now, and its cas.
    fn get(table: &Table, key: &str) -> Option<(String, u32, u64)> {
        let found = table.names().find(key.as_bytes()).map(|name| {
            name.read(Now { boot_ms: 50, unix_ms: 1_000_000 }, |found| match found {
                KeyReading::Bytes(ManagedValue { rendered, times, flags, cas }) => {
                    let mut out = Vec::new();
                    rendered.write(&mut out, &times);
                    Some((String::from_utf8(out).unwrap(), flags, cas))
                }
                _ => None,
            })
        });
        found.expect("a managed key")
    }

    #[test]
    fn each_name_shows_the_value_in_its_own_way() {
        let key = |name: &str, form, flags| KeyConfig {
            name: name.to_owned(),
            redacted_name: Some("somebody".to_owned()),
            view: View { form, flags, at_least_s: 0 },
        };
        let keys = vec![
            key("json", Form::JSON_STRING, 6),
            key("json too", Form::JSON_STRING, 6),
            key("at", Form::Raw(Fact::ExpiresAt), 1),
            key("one", Form::Constant("1".into()), 0),
            key("empty", Form::Nothing, 0),
        ];
        let (table, writers, _requests) = Table::new(TableConfig::of([("wx1", keys)]));
        assert_eq!(table.credentials()[0].views.lock().len(), 4);
        assert_eq!(get(&table, "json"), None);
        assert_eq!(get(&table, "one"), Some(("1".into(), 0, 1)), "a constant needs no value");
        writers[0].publish(published(7, 10_050));
        assert_eq!(get(&table, "json"), Some(("\"TOKEN\"".into(), 6, 7)));
        assert_eq!(get(&table, "json too"), Some(("\"TOKEN\"".into(), 6, 7)));
        assert_eq!(get(&table, "at"), Some(("1010".into(), 1, 7)));
        assert_eq!(get(&table, "empty"), None);
        let holds = |key: &str| table.names().find(key.as_bytes()).unwrap().holds_value();
        assert!(holds("json") && !holds("at") && !holds("one") && !holds("empty"));
        assert_eq!(table.names().find(b"json").unwrap().redacted_name(b"json"), b"somebody");
    }

    fn keys(names: &[&str]) -> Vec<KeyConfig> {
        let key = |name: &&str| KeyConfig { name: (*name).to_owned(), redacted_name: None, view: View::RAW };
        names.iter().map(key).collect()
    }

    /// The app that a key shows.
    fn app_of(table: &Table, key: &str) -> Option<String> {
        table.names().find(key.as_bytes()).map(|name| name.credential.app().to_owned())
    }

    #[test]
    fn a_credential_that_is_added_has_its_keys_at_once_and_one_that_is_removed_ends_them() {
        let (table, _writers, _requests) = Table::new(TableConfig::of([("wx1", keys(&["access_token:wx1"]))]));
        let mut reader = table.names_reader();
        assert!(!reader.now().is_managed(b"access_token:wx22"));
        let config = CredentialConfig::new("wx22", keys(&["access_token:wx22", "{any}:token_wx22"]));
        let writer = table.add(1, &config, None);
        writer.publish(published(1, 100));
        assert_eq!(get(&table, "access_token:wx22"), Some(("TOKEN".into(), 0, 1)));
        assert_eq!(get(&table, "v1:token_wx22"), Some(("TOKEN".into(), 0, 1)));
        assert!(reader.now().is_managed(b"access_token:wx22") && reader.now().is_managed(b"v1:token_wx22"));
        let ended = table.remove(&writer);
        assert_eq!((table.credentials().len(), table.credential(1).is_none()), (1, true));
        assert_eq!((get(&table, "access_token:wx22"), get(&table, "v1:token_wx22")), (None, None));
        assert!(reader.now().is_managed(b"access_token:wx22") && reader.now().is_managed(b"v1:token_wx22"));
        table.drop_ended(&ended);
        assert!(!reader.now().is_managed(b"access_token:wx22") && !reader.now().is_managed(b"v1:token_wx22"));
        assert!(reader.now().is_managed(b"access_token:wx1"));
    }

    #[test]
    fn keys_of_an_app_that_comes_back_in_time_are_not_dropped() {
        let (table, mut writers, _requests) =
            Table::new(TableConfig::of([("wx1", keys(&["token", "{any}:token_wx1"]))]));
        let ended = table.remove(&writers.remove(0));
        let config = CredentialConfig::new("wx1", keys(&["token", "{any}:token_wx1"]));
        table.add(1, &config, None).publish(published(2, 100));
        table.drop_ended(&ended);
        assert_eq!(get(&table, "token"), Some(("TOKEN".into(), 0, 2)));
        assert_eq!(get(&table, "v1:token_wx1"), Some(("TOKEN".into(), 0, 2)));
    }

    #[test]
    fn changed_keys_show_the_value_that_is_there_in_their_own_way() {
        let (table, mut writers, _requests) = Table::new(TableConfig::of([("wx1", keys(&["token", "old"]))]));
        let writer = &mut writers[0];
        writer.publish(published(7, 10_050));
        let mut changed = keys(&["token", "new"]);
        changed[1].view = View { form: Form::JSON_STRING, flags: 6, at_least_s: 0 };
        assert!(table.change_keys(writer, &keys(&["token", "old"])).is_empty(), "nothing has changed");
        let ended = table.change_keys(writer, &changed);
        assert_eq!(get(&table, "token"), Some(("TOKEN".into(), 0, 7)));
        assert_eq!(get(&table, "new"), Some(("\"TOKEN\"".into(), 6, 7)));
        assert_eq!(get(&table, "old"), None);
        assert_eq!(*table.credentials()[0].redacted_names(), ["token", "new"]);
        table.drop_ended(&ended);
        assert!(!table.names().is_managed(b"old") && table.names().is_managed(b"new"));
        writer.publish(published(8, 10_050));
        assert_eq!(get(&table, "new"), Some(("\"TOKEN\"".into(), 6, 8)));
    }

    #[test]
    fn a_key_that_several_apps_have_goes_to_the_next_when_one_is_removed() {
        let apps = [("wx1", keys(&["same"])), ("wx2", keys(&["same"])), ("wx3", keys(&["same"]))];
        let (table, writers, _requests) = Table::new(TableConfig::of(apps));
        assert_eq!(app_of(&table, "same").as_deref(), Some("wx3"));
        assert!(table.remove(&writers[0]).is_empty());
        assert!(table.remove(&writers[2]).is_empty());
        assert_eq!(app_of(&table, "same").as_deref(), Some("wx2"));
        let ended = table.remove(&writers[1]);
        table.drop_ended(&ended);
        assert_eq!(app_of(&table, "same"), None);
    }

    #[test]
    fn of_ten_thousand_credentials_added_and_removed_one_by_one_each_has_its_own_keys() {
        const ALL: usize = 10_000;
        let (table, _writers, _requests) = Table::new(TableConfig::of([("wx", keys(&["access_token:wx"]))]));
        let key = |n: usize| format!("access_token:wx{n:016x}");
        let add = |n: usize| table.add(n + 1, &CredentialConfig::new(&n.to_string(), keys(&[&key(n)])), None);
        let writers: Vec<CredentialWriter> = (0..ALL).map(add).collect();
        assert!((0..ALL).all(|n| app_of(&table, &key(n)) == Some(n.to_string())));
        for writer in writers.iter().skip(1).step_by(2) {
            table.drop_ended(&table.remove(writer));
        }
        assert!((0..ALL).all(|n| table.names().is_managed(key(n).as_bytes()) == (n % 2 == 0)));
        assert_eq!(table.credentials().len(), ALL / 2 + 1);
    }

    #[test]
    fn debug_never_shows_the_token() {
        assert!(!format!("{:?}", published(1, 100)).contains("TOKEN"));
    }
}
