//! The table of managed keys: every key (`access_token:<appid>` and its aliases) and the credential that it shows.
//!
//! Any number of readers, who never wait. What changes a value or a status is in [`writer`], and only the refresher has
//! a [`CredentialWriter`]. A value is replaced, never cleared first. The table is built whole; after that no key and no
//! credential changes. No async code, no sockets, no clock: the time comes in as a value.

use core::net::IpAddr;
use std::borrow::Cow;
use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use arc_swap::Guard;
use bytes::Bytes;
use dashmap::{DashMap, ReadOnlyView};
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
use super::wildcards::{Wildcards, has_wildcard};
use crate::clock::{BootMs, LogThrottle, Now};
pub use crate::encoding::Times;
use crate::encoding::{Form, Rendered, View};
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
    /// In the order of [`Credential::views`].
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
pub struct Credential {
    pub id: CredentialId,
    /// Its name in logs and statistics.
    pub appid: String,
    app: String,
    parent: Option<Arc<Credential>>,
    /// Readers wait for the first value until the first fetch has ended.
    value_cell: ValueCell<RenderedValue>,
    /// The different views of its keys.
    views: Box<[View]>,
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
    redacted_names: Vec<String>,
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
        views: Box<[View]>,
        parent: Option<Arc<Credential>>,
        (ticks, values): (&watch::Sender<u64>, &watch::Sender<u64>),
    ) -> Credential {
        let redacted = |key: &KeyConfig| key.redacted_name.as_ref().unwrap_or(&key.name).clone();
        let credential = Credential {
            id,
            appid: config.label.clone(),
            app: config.app.clone(),
            parent,
            value_cell: ValueCell::new(),
            views,
            refused_writes: AtomicU64::new(0),
            refusal_log: LogThrottle::default(),
            foreign_writes: AtomicU64::new(0),
            writers: RefusedWriters::default(),
            writers_noted: LogThrottle::default(),
            refusals_unnoted: AtomicU64::new(0),
            reports: AtomicU64::new(0),
            status: Mutex::new(CredentialStatus::default()),
            about: config.about.clone(),
            redacted_names: config.keys.iter().map(redacted).collect(),
            version: AtomicU64::new(0),
            ticks: ticks.clone(),
            value_version: AtomicU64::new(0),
            values: values.clone(),
            withdrawn: AtomicBool::new(false),
            has_distant_readers: AtomicBool::new(false),
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
    pub fn redacted_names(&self) -> &[String] {
        &self.redacted_names
    }

    /// Those of them that are known by their end.
    pub fn wildcard_names(&self) -> impl Iterator<Item = &str> {
        self.redacted_names().iter().map(String::as_str).filter(|name| has_wildcard(name))
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

/// A request to verify a value. `done` is told when that is over.
pub struct VerificationRequest {
    pub id: CredentialId,
    /// The generation that the client has seen; none for the current one.
    pub generation: Option<u64>,
    pub why: VerificationReason,
    pub done: oneshot::Sender<()>,
}

/// A managed key as configured.
#[derive(Clone)]
pub struct KeyConfig {
    pub name: String,
    /// What people read in place of the name, if the name contains a secret.
    pub redacted_name: Option<String>,
    pub view: View,
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
    /// Verify tickets from the HTTP API and from files.
    pub tickets: mpsc::Receiver<ReceivedTicket>,
}

/// A managed key: which credential it shows, and how.
pub struct ManagedKey {
    pub credential: Arc<Credential>,
    redacted_name: Option<Box<str>>,
    /// The index in the credential's views.
    view: usize,
    /// The view's flags, so that a hit need not look them up.
    flags: u32,
    at_least_s: u32,
    content: KeyContent,
}

enum KeyContent {
    /// It contains the value.
    Value,
    /// It contains only the value's times.
    TimesOnly,
    /// It is always the same, with or without a value.
    Constant(Rendered),
    /// It is always empty.
    Nothing,
}

/// A value as a key shows it.
pub struct ManagedValue<'n> {
    pub rendered: &'n Rendered,
    pub times: Times,
    pub flags: u32,
    /// The generation.
    pub cas: u64,
}

/// What a reader gets for a key.
pub enum KeyReading<'n> {
    Bytes(ManagedValue<'n>),
    /// No value yet, but the first fetch is running.
    FirstFetch,
    /// There is no live value.
    Absent,
    /// This key never has a value.
    Nothing,
}

impl ManagedKey {
    /// Calls `then` with what is there now. Takes no lock and allocates nothing.
    pub fn read<R>(&self, now: Now, then: impl FnOnce(KeyReading<'_>) -> R) -> R {
        let flags = self.flags;
        match &self.content {
            KeyContent::Constant(rendered) => {
                return then(KeyReading::Bytes(ManagedValue { rendered, times: Times::endless(now), flags, cas: 1 }));
            }
            KeyContent::Nothing => return then(KeyReading::Nothing),
            KeyContent::Value | KeyContent::TimesOnly => {}
        }
        let guard = match self.credential.read(now.boot_ms) {
            Reading::Live(guard) => guard,
            Reading::FirstFetch => return then(KeyReading::FirstFetch),
            Reading::Absent => return then(KeyReading::Absent),
        };
        match guard.as_ref().and_then(|shown| Some((shown, shown.rendered.get(self.view)?))) {
            Some((shown, rendered)) => {
                shown.record_read();
                let times = Times::new(now, shown.reliable_until(now.boot_ms), self.at_least_s);
                then(KeyReading::Bytes(ManagedValue { rendered, times, flags, cas: shown.generation }))
            }
            None => then(KeyReading::Absent),
        }
    }

    /// The cas of the last value, expired or not; none if there was no value.
    pub fn generation(&self) -> Option<u64> {
        match self.content {
            KeyContent::Constant(_) => Some(1),
            KeyContent::Nothing => None,
            KeyContent::Value | KeyContent::TimesOnly => self.credential.published().map(|shown| shown.generation),
        }
    }

    /// True if a `delete` of this key is a report about the value.
    pub fn holds_value(&self) -> bool {
        matches!(self.content, KeyContent::Value)
    }

    /// The key for a log, without a secret that it may contain.
    pub fn redacted_name<'n>(&'n self, key: &'n [u8]) -> &'n [u8] {
        self.redacted_name.as_deref().map_or(key, str::as_bytes)
    }
}

/// All managed keys.
pub struct Table {
    /// Not changed after it is built, so that readers take no lock and write nothing that other readers read.
    names: ReadOnlyView<Box<[u8]>, ManagedKey, foldhash::fast::RandomState>,
    /// Bit n is set if a managed key has n bytes. Most ordinary keys need no look-up.
    lengths: [u64; 4],
    /// The same for all keys that may be managed; with wildcards, all lengths.
    candidates: [u64; 4],
    /// Keys with `{any}` in them; none in most servers.
    wildcards: Option<Box<Wildcards<ManagedKey>>>,
    credentials: Vec<Arc<Credential>>,
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

/// Sets the bit of a key's length. False if no key can be that long.
fn record_length(lengths: &mut [u64; 4], length: usize) -> bool {
    let word = lengths.get_mut(length / 64);
    word.map(|word| *word |= 1 << (length % 64)).is_some()
}

/// Whether the bit of a length is set.
#[inline]
fn has_length(lengths: &[u64; 4], length: usize) -> bool {
    lengths.get(length / 64).is_some_and(|word| word & (1 << (length % 64)) != 0)
}

/// A key as the table holds it; `view` is its index among the credential's.
fn name(key: KeyConfig, view: usize, credential: &Arc<Credential>) -> (Box<[u8]>, ManagedKey) {
    let content = match key.view.form {
        Form::Constant(_) => KeyContent::Constant(key.view.render(&Bytes::new())),
        Form::Nothing => KeyContent::Nothing,
        _ if key.view.holds_value() => KeyContent::Value,
        _ => KeyContent::TimesOnly,
    };
    let redacted_name = key.redacted_name.map(String::into_boxed_str);
    let View { flags, at_least_s, .. } = key.view;
    let name = ManagedKey { credential: credential.clone(), redacted_name, view, flags, at_least_s, content };
    (key.name.into_bytes().into_boxed_slice(), name)
}

/// The different views of these keys, and for each key which of them it shows.
fn views_of(keys: &[KeyConfig]) -> (Box<[View]>, Vec<usize>) {
    let mut views: Vec<View> = Vec::new();
    let mut indices = Vec::with_capacity(keys.len());
    for key in keys {
        indices.push(views.iter().position(|view| *view == key.view).unwrap_or(views.len()));
        if indices.last() == Some(&views.len()) {
            views.push(key.view.clone());
        }
    }
    (views.into_boxed_slice(), indices)
}

/// How many requests may wait. More are dropped, because one verification answers all of them.
pub const REPORTS_MAX: usize = 1024;

impl Table {
    /// Builds the table. The writers, by credential id, and the requests are for the refresher.
    pub fn new(config: TableConfig) -> (Table, Vec<CredentialWriter>, Requests) {
        let TableConfig { credentials, components, keeps_state, cluster } = config;
        let (reports, verifications) = mpsc::channel(REPORTS_MAX);
        let (inbox, tickets) = TicketInbox::new(components);
        let names = DashMap::with_hasher(foldhash::fast::RandomState::default());
        let (mut lengths, mut all, mut wildcards) = ([0; 4], Vec::new(), Vec::new());
        let (ticks, values) = (watch::Sender::new(0), watch::Sender::new(0));
        for (id, config) in credentials.into_iter().enumerate() {
            let (views, indices) = views_of(&config.keys);
            let parent = config.parent.and_then(|parent| all.get(parent)).cloned();
            let credential = Arc::new(Credential::new(id, &config, views, parent, (&ticks, &values)));
            for (key, view) in config.keys.into_iter().zip(indices) {
                if has_wildcard(&key.name) {
                    wildcards.push(name(key, view, &credential));
                } else if record_length(&mut lengths, key.name.len()) {
                    let (key, name) = name(key, view, &credential);
                    names.insert(key, name);
                }
            }
            all.push(credential);
        }
        let wildcards = Wildcards::new(wildcards).map(Box::new);
        let writers = all.iter().map(CredentialWriter::new).collect();
        let table = Table {
            names: names.into_read_only(),
            lengths,
            candidates: if wildcards.is_some() { [u64::MAX; 4] } else { lengths },
            wildcards,
            credentials: all,
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
            ticks,
            values,
        };
        (table, writers, Requests { verifications, tickets })
    }

    /// One more credential. No key shows it.
    pub(super) fn new_credential(
        &self,
        id: CredentialId,
        config: &CredentialConfig,
        parent: Option<Arc<Credential>>,
    ) -> CredentialWriter {
        let (views, _) = views_of(&config.keys);
        CredentialWriter::new(&Arc::new(Credential::new(id, config, views, parent, (&self.ticks, &self.values))))
    }

    /// Takes a verify ticket for a component, bare or as the decrypted message of WeChat's push. It is written to the
    /// state, and used at once if the component waits for one.
    pub fn hand_in_verify_ticket(&self, component_appid: &str, ticket: &str) -> Result<(), TicketFault> {
        self.inbox.hand_in(component_appid, ticket, false)
    }

    /// The same for the content of a component's file.
    pub(super) fn hand_in_file(&self, component_appid: &str, ticket: &str) -> Result<(), TicketFault> {
        self.inbox.hand_in(component_appid, ticket, true)
    }

    /// The managed key of this name, if there is one. Takes no lock.
    #[inline]
    pub fn name(&self, key: &[u8]) -> Option<&ManagedKey> {
        if has_length(&self.candidates, key.len()) { self.find_name(key) } else { None }
    }

    /// The same for a key with a possible length. Not inlined: most keys have another length.
    #[inline(never)]
    fn find_name(&self, key: &[u8]) -> Option<&ManagedKey> {
        let name = if has_length(&self.lengths, key.len()) { self.names.get(key) } else { None };
        name.or_else(|| self.wildcards.as_ref()?.find(key))
    }

    /// True if clients may not write this key.
    pub fn is_managed(&self, key: &[u8]) -> bool {
        self.name(key).is_some()
    }

    /// Every credential, by id.
    pub fn credentials(&self) -> &[Arc<Credential>] {
        &self.credentials
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
        self.count_report(credential);
        // Set now: when the refresher reads it, the current value may be another one.
        let generation = generation.or_else(|| credential.published().map(|published| published.generation));
        self.report(credential, generation, VerificationReason::Reported)
    }

    /// The same, with the token that was refused. If it is not the present one, there is nothing to do.
    pub fn report_token(&self, credential: &Credential, token: &[u8]) -> Option<oneshot::Receiver<()>> {
        match credential.generation_of(token) {
            Some(generation) => self.report_refused(credential, Some(generation)),
            None => {
                self.count_report(credential);
                None
            }
        }
    }

    /// Tells the refresher that a client has tried to write another token. Nobody waits for the verification.
    pub fn report_foreign_writer(&self, credential: &Credential) {
        credential.foreign_writes.fetch_add(1, Ordering::Relaxed);
        // If the queue is full, a verification will follow anyway.
        let _ = self.report(credential, None, VerificationReason::ForeignWriter);
    }

    fn count_report(&self, credential: &Credential) {
        credential.reports.fetch_add(1, Ordering::Relaxed);
        self.reports_made.fetch_add(1, Ordering::Relaxed);
    }

    fn report(
        &self,
        credential: &Credential,
        generation: Option<u64>,
        why: VerificationReason,
    ) -> Option<oneshot::Receiver<()>> {
        let (done, receiver) = oneshot::channel();
        self.reports.try_send(VerificationRequest { id: credential.id, generation, why, done }).ok().map(|()| receiver)
    }
}

mod writer;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::encoding::Fact;

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
        assert!(table.is_managed(b"access_token:wx1"));
        assert!(table.is_managed(b"access_token"));
        assert!(!table.is_managed(b"access_tokem"));
        assert!(!table.is_managed(&[b'x'; 300]));
    }

    #[test]
    fn a_wildcard_is_looked_up_only_where_the_key_itself_is_not_managed() {
        let key = |name: &str| KeyConfig { name: name.to_owned(), redacted_name: None, view: View::RAW };
        let first = vec![key("{any}:access_token"), key("access_token:wx1")];
        let second = vec![key("v1:access_token")];
        let (table, ..) = Table::new(TableConfig::of([("wx1", first), ("wx2", second)]));
        let app = |key: &str| table.name(key.as_bytes()).map(|name| name.credential.app().to_owned());
        assert_eq!(app("v2:access_token").as_deref(), Some("wx1"));
        assert_eq!(app("v1:access_token").as_deref(), Some("wx2"));
        assert_eq!(app("{any}:access_token").as_deref(), Some("wx1"));
        assert_eq!(app(":access_token"), None);
        assert_eq!(app("v1:access_tokem"), None);
        assert_eq!(table.name(b"v2:access_token").unwrap().redacted_name(b"v2:access_token"), b"v2:access_token");
    }

    /// What is under a key now, and its cas.
    fn get(table: &Table, key: &str) -> Option<(String, u32, u64)> {
        let found = table.name(key.as_bytes()).map(|name| {
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
        assert_eq!(table.credentials()[0].views.len(), 4);
        assert_eq!(get(&table, "json"), None);
        assert_eq!(get(&table, "one"), Some(("1".into(), 0, 1)), "a constant needs no value");
        writers[0].publish(published(7, 10_050));
        assert_eq!(get(&table, "json"), Some(("\"TOKEN\"".into(), 6, 7)));
        assert_eq!(get(&table, "json too"), Some(("\"TOKEN\"".into(), 6, 7)));
        assert_eq!(get(&table, "at"), Some(("1010".into(), 1, 7)));
        assert_eq!(get(&table, "empty"), None);
        let holds = |key: &str| table.name(key.as_bytes()).unwrap().holds_value();
        assert!(holds("json") && !holds("at") && !holds("one") && !holds("empty"));
        assert_eq!(table.name(b"json").unwrap().redacted_name(b"json"), b"somebody");
    }

    #[test]
    fn debug_never_shows_the_token() {
        assert!(!format!("{:?}", published(1, 100)).contains("TOKEN"));
    }
}
