//! The table of managed keys: every name (`access_token:<appid>` and its aliases) -> the credential it shows.
//!
//! One writer, the refresher; any number of readers, who never wait. A value is swapped, never cleared first.
//! No async code, no sockets, no clock: the time comes in as a value.

use core::net::IpAddr;
use std::borrow::Cow;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};

use arc_swap::Guard;
use bytes::Bytes;
use dashmap::{DashMap, ReadOnlyView};
use parking_lot::Mutex;
use tokio::sync::{mpsc, oneshot, watch};

pub use super::facts::host_of;
pub(crate) use super::facts::log_credential;
use super::facts::{CallOutcomes, ClusterStatus, CredentialInfo, Durations, RefusedWriters, Verification};
pub use super::journal::{Event, Journal};
pub use super::reliable_until::ReliableUntil;
use super::value_cell::{CellReading, ValueCell};
use super::verify_ticket::{TicketFault, TicketInbox};
use super::wildcards::{Wildcards, has_wildcard};
use crate::clock::{BootMs, LogThrottle, Now};
pub use crate::encoding::Times;
use crate::encoding::{Form, Rendered, View};
use crate::platform::errcodes::BilingualText;

/// Index of a credential, stable while the process lives.
pub type CredentialId = usize;

/// A value as readers see it. `Debug` never shows it.
pub struct Published {
    /// The token, byte for byte as WeChat gave it.
    pub value: Bytes,
    /// Counts the values of this credential from 1; answered as the cas.
    pub generation: u64,
    /// The boot-clock instant from which the value must not be served.
    pub expires_boot_ms: BootMs,
    /// What our own plan leaves of that.
    pub reliable: ReliableUntil,
}

impl Published {
    /// A value that no renewal ends ahead of its time.
    pub fn to_the_end(value: Bytes, generation: u64, expires_boot_ms: BootMs) -> Published {
        Published { value, generation, expires_boot_ms, reliable: ReliableUntil::TO_THE_END }
    }

    /// Until when a client that asks now can rely on the value: what every client is told as its end.
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

/// A published value beside its views: one swap changes both.
pub struct RenderedValue {
    published: Arc<Published>,
    /// In the order of [`Credential::views`].
    rendered: Box<[Rendered]>,
    /// Somebody has read it since [`Credential::take_read`]. Beside what each reader reads anyway.
    was_read: AtomicBool,
}

impl RenderedValue {
    /// Somebody gets the value now. Stored only if it is news, so that readers share the cache line.
    #[inline]
    pub fn note_read(&self) {
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

/// What a reader finds.
pub enum Reading {
    /// A value WeChat accepts.
    Live(Guard<Option<Arc<RenderedValue>>>),
    /// No value yet; the very first fetch is under way, so waiting a moment may help.
    FirstFetch,
    /// Nothing to serve: expired, or refused.
    Absent,
}

/// How the keeping of a credential goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum CredentialState {
    /// A live value, and no trouble.
    Fresh,
    /// A call to WeChat is under way.
    Renewing,
    /// A live value, but the last call failed.
    Stale,
    /// WeChat named a time before which asking is useless, or the token it is fetched with is not there.
    Waiting,
    /// Somebody has to change something before WeChat gives a value.
    Blocked,
    /// No live value.
    #[default]
    Dead,
}

impl CredentialState {
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

/// The last failure, fit to be shown: nothing secret is in it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LastError {
    pub errcode: Option<i64>,
    /// `retry`, `wait`, `operator` or `internal`.
    pub class: &'static str,
    pub rid: Option<String>,
    pub text: String,
    /// What its error code says; none without one.
    pub meaning: Option<BilingualText>,
    /// What the operator should do about it.
    pub advice: Cow<'static, str>,
    /// The same in Chinese.
    pub advice_zh: Cow<'static, str>,
    /// What came between this process and the platform, in one word; none if that was not it.
    pub network: Option<&'static str>,
    /// The address that the platform saw us come from, if it said so.
    pub seen_ip: Option<IpAddr>,
    pub at_boot_ms: BootMs,
}

impl LastError {
    /// Nothing was sent, because something of the operator's is missing.
    pub fn is_operators_own(&self) -> bool {
        self.errcode.is_none() && self.class == "operator"
    }
}

/// What the refresher has to say about a credential, for `stats`.
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub struct CredentialStatus {
    pub state: CredentialState,
    /// 0 while there has been no value.
    pub generation: u64,
    /// 0 while there has been no value.
    pub expires_boot_ms: BootMs,
    pub next_try_boot_ms: BootMs,
    /// It cannot be asked for before the token it is fetched with is there: see [`Credential::parent`]. Nothing is wrong
    /// with it.
    pub waits_for_parent: bool,
    /// When the value is tried on a cheap read, if that is planned.
    pub next_probe_boot_ms: Option<BootMs>,
    /// Cleared by the next success.
    pub last_error: Option<LastError>,
    /// The node that has fetched the present value, among several; none if that is not known.
    pub renewed_by: Option<String>,
    /// Calls sent to WeChat since the start, probes included.
    pub calls: u64,
    /// Of them, those that tried the value on a cheap read.
    pub probes: u64,
    /// The same of the day that ends at `day_ends_unix_ms`.
    pub probes_today: u64,
    /// Answers that brought the value we had.
    pub same_answers: u64,
    pub failures: u64,
    /// Calls in the day that ends then (wall time, midnight in UTC+8), probes not among them.
    pub calls_today: u64,
    pub day_ends_unix_ms: i64,
    /// The day's quota, if there is one.
    pub calls_quota: Option<u64>,
    /// Calls not made, for a quota's sake, since the start.
    pub calls_denied: u64,
    /// Checks made because clients reported the value dead.
    pub checks: u64,
    /// Checks in which WeChat refused the value and yet handed it out again.
    pub dead_but_same: u64,
    /// Values that WeChat refused before their time.
    pub early_deaths: u64,
    /// Calls that told WeChat to replace a live value.
    pub forced: u64,
    /// What is asked: the configured endpoint, or its stand-in.
    pub endpoint: &'static str,
    /// How long the present value was to live when it came, milliseconds.
    pub life_ms: u64,
    /// When the present value came, wall time.
    pub fetched_unix_ms: Option<i64>,
    /// Calls since the start, by how they ended.
    pub outcomes: CallOutcomes,
    /// The last look into a value.
    pub last_check: Option<Verification>,
    /// Looks since the start.
    pub looks: u64,
}

impl CredentialStatus {
    /// Calls and probes of the day that it is now.
    pub fn today(&self, unix_ms: i64) -> (u64, u64) {
        if unix_ms < self.day_ends_unix_ms { (self.calls_today, self.probes_today) } else { (0, 0) }
    }

    /// What comes at `next_try_boot_ms`, in two words at most.
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

/// One credential: the value, and what readers and writers count about it.
pub struct Credential {
    pub id: CredentialId,
    pub appid: String,
    /// The app it belongs to, once somebody has said so.
    app: OnceLock<Box<str>>,
    /// The token it is fetched with, if it is.
    parent: OnceLock<Arc<Credential>>,
    /// Settled once the first fetch has ended, well or badly.
    shown: ValueCell<RenderedValue>,
    /// How its names show it, without repetition.
    views: Box<[View]>,
    /// Writes by clients that were refused.
    pub refused_writes: AtomicU64,
    /// At most one line a minute about them.
    pub refusal_log: LogThrottle,
    /// Refused writes that brought another token than ours.
    pub rival_writes: AtomicU64,
    /// Who tried those writes.
    pub writers: RefusedWriters,
    writers_noted: LogThrottle,
    /// Refused writes that neither `writers` nor the journal have yet.
    refusals_unnoted: AtomicU64,
    /// `delete`s and other reports that the token is dead.
    pub reports: AtomicU64,
    status: Mutex<CredentialStatus>,
    about: OnceLock<CredentialInfo>,
    /// Its names, as people may read them.
    redacted_name: OnceLock<Vec<String>>,
    /// That of [`Table::changes`] at its last change.
    version: AtomicU64,
    ticks: watch::Sender<u64>,
    /// The same for [`Table::values`].
    value_version: AtomicU64,
    values: watch::Sender<u64>,
    /// WeChat refused the published value.
    withdrawn: AtomicBool,
    /// Values are handed on to readers that this process does not see.
    has_distant_readers: AtomicBool,
}

impl Credential {
    /// Its values are handed on, to another node or into a store of the site's own: who reads them there is not seen
    /// here, so it counts as read all the time.
    pub fn note_distant_readers(&self) {
        self.has_distant_readers.store(true, Ordering::Relaxed);
    }

    /// Whether the value has been read since this was last asked.
    pub fn take_read(&self) -> bool {
        let shown = self.shown.shown();
        let was_read = shown.as_ref().is_some_and(|shown| {
            shown.was_read.load(Ordering::Relaxed) && shown.was_read.swap(false, Ordering::Relaxed)
        });
        was_read || self.has_distant_readers.load(Ordering::Relaxed)
    }

    /// A credential without a value, to be shown in these ways.
    pub fn new(id: CredentialId, appid: &str, views: Box<[View]>) -> Credential {
        Credential {
            id,
            appid: appid.to_owned(),
            app: OnceLock::new(),
            parent: OnceLock::new(),
            shown: ValueCell::new(),
            views,
            refused_writes: AtomicU64::new(0),
            refusal_log: LogThrottle::default(),
            rival_writes: AtomicU64::new(0),
            writers: RefusedWriters::default(),
            writers_noted: LogThrottle::default(),
            refusals_unnoted: AtomicU64::new(0),
            reports: AtomicU64::new(0),
            status: Mutex::new(CredentialStatus::default()),
            about: OnceLock::new(),
            redacted_name: OnceLock::new(),
            version: AtomicU64::new(0),
            ticks: watch::Sender::new(0),
            value_version: AtomicU64::new(0),
            values: watch::Sender::new(0),
            withdrawn: AtomicBool::new(false),
            has_distant_readers: AtomicBool::new(false),
        }
    }

    /// What it is; nothing much before somebody has said so.
    pub fn about(&self) -> &CredentialInfo {
        static NOTHING: CredentialInfo = CredentialInfo::NOTHING;
        self.about.get().unwrap_or(&NOTHING)
    }

    /// The token it is fetched with, if it is.
    pub fn parent(&self) -> Option<&Arc<Credential>> {
        self.parent.get()
    }

    /// That one, while it waits for it.
    pub fn missing_token(&self, status: &CredentialStatus) -> Option<&Arc<Credential>> {
        self.parent().filter(|_| status.waits_for_parent)
    }

    /// Says once what it is fetched with.
    pub fn set_parent(&self, parent: &Arc<Credential>) {
        self.parent.get_or_init(|| parent.clone());
    }

    /// Every key it is read by, with a stand-in where the key holds a secret.
    pub fn redacted_names(&self) -> &[String] {
        self.redacted_name.get().map_or(&[], Vec::as_slice)
    }

    /// Those of them that are known by their end.
    pub fn wildcard_names(&self) -> impl Iterator<Item = &str> {
        self.redacted_names().iter().map(String::as_str).filter(|name| has_wildcard(name))
    }

    /// What [`Table::changes`] showed at its last change.
    pub fn version(&self) -> u64 {
        self.version.load(Ordering::Acquire)
    }

    fn touch(&self) {
        self.ticks.send_modify(|tick| {
            *tick += 1;
            self.version.store(*tick, Ordering::Release);
        });
    }

    /// What [`Table::values`] showed when its value changed last; never 0 in a table, and no two have the same.
    pub fn value_version(&self) -> u64 {
        self.value_version.load(Ordering::Acquire)
    }

    /// After the swap: whoever sees the tick finds the value.
    fn bump_value_version(&self) {
        self.values.send_modify(|tick| {
            *tick += 1;
            self.value_version.store(*tick, Ordering::Release);
        });
    }

    /// WeChat refused the published value, so it is not served although its time has not come.
    pub fn is_withdrawn(&self) -> bool {
        self.withdrawn.load(Ordering::Acquire)
    }

    /// Counts a refused write, and remembers who tried it. In a flood that is written down every tenth of a second
    /// only, under the name of whoever comes first then; no write is left out.
    pub fn record_refused_write(&self, journal: &Journal, peer: &dyn std::fmt::Display, rival: bool, now: Now) {
        self.refusals_unnoted.fetch_add(1, Ordering::Relaxed);
        if self.writers_noted.allow(now.boot_ms, WRITERS_SPACING_MS) {
            self.write_refused_writes(journal, host_of(peer), rival, now);
        }
    }

    /// The last ones of a flood, under the name of the last one who was written down.
    pub fn flush_refused_writes(&self, journal: &Journal, now: Now) {
        if self.refusals_unnoted.load(Ordering::Relaxed) > 0
            && let Some(last) = self.writers.last()
        {
            self.write_refused_writes(journal, last.peer, false, now);
        }
    }

    fn write_refused_writes(&self, journal: &Journal, peer: String, rival: bool, now: Now) {
        let times = self.refusals_unnoted.swap(0, Ordering::Relaxed);
        if times > 0 {
            self.writers.note(peer.clone(), times, rival, now);
            journal.note_times(self.id, now, times, Event::RefusedWrite { peer, rival });
            self.touch();
        }
    }

    /// The app it belongs to, as the configuration names it: an access token's own name, a ticket's app.
    pub fn app(&self) -> &str {
        self.app.get().map_or(&self.appid, |app| app)
    }

    /// How it goes, at this instant. Takes a lock that is only ever held for a few instructions.
    pub fn status(&self, boot_ms: BootMs) -> CredentialStatus {
        let mut status = self.status.lock().clone();
        let live = boot_ms < status.expires_boot_ms;
        if !live && matches!(status.state, CredentialState::Fresh | CredentialState::Stale) {
            status.state = CredentialState::Dead;
        }
        status
    }

    /// Counts a look into the value or a call's end as a change.
    pub fn note(&self, journal: &Journal, now: Now, event: Event) {
        journal.note(self.id, now, event);
        self.touch();
    }

    /// The refresher only: the node that has fetched the present value.
    pub fn set_renewed_by(&self, node: &str) {
        let known = self.status.lock().renewed_by.as_deref() == Some(node);
        if !known {
            self.update_status(|status| status.renewed_by = Some(node.to_owned()));
        }
    }

    /// The refresher only: changes the status.
    pub fn update_status(&self, change: impl FnOnce(&mut CredentialStatus)) {
        change(&mut self.status.lock());
        self.touch();
    }

    /// The value at this instant. Takes no lock and allocates nothing.
    #[inline]
    pub fn read(&self, boot_ms: BootMs) -> Reading {
        match self.shown.look(|shown| boot_ms < shown.expires_boot_ms) {
            CellReading::Live(guard) => Reading::Live(guard),
            CellReading::Coming => Reading::FirstFetch,
            CellReading::Absent => Reading::Absent,
        }
    }

    /// The published value, expired or not. For the refresher and for statistics.
    pub fn published(&self) -> Option<Arc<Published>> {
        self.shown.shown().as_ref().map(|shown| shown.published.clone())
    }

    fn render_views(&self, published: Published) -> RenderedValue {
        let rendered = self.views.iter().map(|view| view.render(&published.value)).collect();
        RenderedValue { published: Arc::new(published), rendered, was_read: AtomicBool::new(false) }
    }

    /// The generation of the published value, live or not, if it is this one. Takes as long for a wrong one.
    pub fn generation_of(&self, token: &[u8]) -> Option<u64> {
        use subtle::ConstantTimeEq;
        self.published().filter(|published| published.value.ct_eq(token).into()).map(|published| published.generation)
    }

    /// Wakes when a value is published or the first fetch ends.
    pub fn subscribe(&self) -> watch::Receiver<u64> {
        self.shown.subscribe()
    }

    /// The same for who has found the first fetch under way; at once, if `still_coming` finds that it is not any more.
    pub fn wait_while(&self, still_coming: impl FnOnce() -> bool) -> watch::Receiver<u64> {
        self.shown.wait_while(still_coming)
    }

    /// The refresher only: swaps the value in.
    pub fn publish(&self, value: Published) {
        self.withdrawn.store(false, Ordering::Release);
        self.shown.publish(self.render_views(value));
        self.bump_value_version();
    }

    /// The same for a value whose successor can be had only when it has ended: readers at that instant wait a moment,
    /// as for a first fetch, because the successor is sure to be under way.
    pub fn publish_until_next(&self, value: Published) {
        self.withdrawn.store(false, Ordering::Release);
        self.shown.publish_until_next(self.render_views(value));
        self.bump_value_version();
    }

    /// The refresher only: WeChat refuses the value, so nobody gets it any longer. Readers wait a moment for the next,
    /// until [`Credential::end_wait`]. Returns what is published now.
    pub fn withdraw(&self, now_ms: BootMs) -> Option<Arc<Published>> {
        let old = self.published()?;
        let expires_boot_ms = old.expires_boot_ms.min(now_ms);
        self.update_status(|status| status.expires_boot_ms = expires_boot_ms);
        self.publish_until_next(Published::to_the_end(old.value.clone(), old.generation, expires_boot_ms));
        self.withdrawn.store(true, Ordering::Release);
        self.bump_value_version();
        self.published()
    }

    /// The refresher only, at start: a value that is over, kept to be recognised. Readers still wait for the first fetch.
    pub fn remember(&self, value: Published) {
        self.shown.show(self.render_views(value));
    }

    /// The refresher only: nobody should wait for the first fetch any longer.
    pub fn end_wait(&self) {
        self.shown.end_wait();
    }
}

/// Who writes in a flood is remembered at most so often, milliseconds.
const WRITERS_SPACING_MS: u64 = 100;

/// What makes a value doubtful.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum VerificationReason {
    /// A client says WeChat refuses it.
    Reported,
    /// A client came with a token of its own, so somebody else fetches for this app.
    ForeignWriter,
    /// Somebody who may asks for a look now, also where there is no live value.
    Requested,
    /// Somebody who may asks for the value to be tried, and nothing else.
    ProbeRequested,
}

/// A client's word that a token is dead, and where to say that the check is over.
pub struct VerificationRequest {
    pub id: CredentialId,
    /// The generation the client saw; `None` means the current one.
    pub generation: Option<u64>,
    pub why: VerificationReason,
    pub done: oneshot::Sender<()>,
}

/// A key to manage, as the configuration has it.
#[derive(Clone)]
pub struct KeyConfig {
    pub name: String,
    /// What stands for the name wherever people read it, if the name holds a secret.
    pub redacted_name: Option<String>,
    pub view: View,
}

/// A managed key: which credential it shows, and how.
pub struct ManagedKey {
    pub credential: Arc<Credential>,
    redacted_name: Option<Box<str>>,
    /// Index into the credential's views.
    view: usize,
    /// The view's, so that a hit need not look it up.
    flags: u32,
    at_least_s: u32,
    content: KeyContent,
}

enum KeyContent {
    /// The value is in it.
    Value,
    /// Only times.
    Companion,
    /// There, whatever becomes of the value.
    Constant(Rendered),
    /// Kept empty.
    Nothing,
}

/// A value as a name shows it.
pub struct ManagedValue<'n> {
    pub rendered: &'n Rendered,
    pub times: Times,
    pub flags: u32,
    /// The generation.
    pub cas: u64,
}

/// What a reader finds under a name.
pub enum KeyReading<'n> {
    Bytes(ManagedValue<'n>),
    /// The value or nothing is there yet, but the very first fetch is under way.
    FirstFetch,
    /// There is no live value.
    Absent,
    /// Nothing is ever there.
    Nothing,
}

impl ManagedKey {
    /// Shows `then` what is there at this instant. Takes no lock and allocates nothing.
    pub fn read<R>(&self, now: Now, then: impl FnOnce(KeyReading<'_>) -> R) -> R {
        let flags = self.flags;
        match &self.content {
            KeyContent::Constant(rendered) => {
                return then(KeyReading::Bytes(ManagedValue { rendered, times: Times::endless(now), flags, cas: 1 }));
            }
            KeyContent::Nothing => return then(KeyReading::Nothing),
            KeyContent::Value | KeyContent::Companion => {}
        }
        let guard = match self.credential.read(now.boot_ms) {
            Reading::Live(guard) => guard,
            Reading::FirstFetch => return then(KeyReading::FirstFetch),
            Reading::Absent => return then(KeyReading::Absent),
        };
        match guard.as_ref().and_then(|shown| Some((shown, shown.rendered.get(self.view)?))) {
            Some((shown, rendered)) => {
                shown.note_read();
                let times = Times::new(now, shown.reliable_until(now.boot_ms), self.at_least_s);
                then(KeyReading::Bytes(ManagedValue { rendered, times, flags, cas: shown.generation }))
            }
            None => then(KeyReading::Absent),
        }
    }

    /// The cas of what was last there, though it may have expired; none while there has been nothing.
    pub fn generation(&self) -> Option<u64> {
        match self.content {
            KeyContent::Constant(_) => Some(1),
            KeyContent::Nothing => None,
            KeyContent::Value | KeyContent::Companion => self.credential.published().map(|shown| shown.generation),
        }
    }

    /// True if a `delete` of this name says that the value is dead.
    pub fn holds_value(&self) -> bool {
        matches!(self.content, KeyContent::Value)
    }

    /// The name for a log: never a secret, though the key may hold one.
    pub fn redacted_name<'n>(&'n self, key: &'n [u8]) -> &'n [u8] {
        self.redacted_name.as_deref().map_or(key, str::as_bytes)
    }
}

/// All managed names.
pub struct Table {
    /// Fixed once it is built, so that a reader takes no lock and writes nothing that another one reads.
    names: ReadOnlyView<Box<[u8]>, ManagedKey, foldhash::fast::RandomState>,
    /// Bit n is set if some name is n bytes long: spares ordinary keys the look-up.
    lengths: [u64; 4],
    /// The same of all keys that may be managed: with wildcards, of any length.
    candidates: [u64; 4],
    /// Names with `{any}` in them; none in most servers.
    wildcards: Option<Box<Wildcards<ManagedKey>>>,
    credentials: Vec<Arc<Credential>>,
    reports: mpsc::Sender<VerificationRequest>,
    /// Where verify tickets go; none without a component.
    inbox: Option<TicketInbox>,
    /// Whether the state file could be written the last time; true without one.
    pub state_saved: AtomicBool,
    /// Failed attempts to write the state file.
    pub state_failures: AtomicU64,
    /// Fetch tasks that panicked; the refresher outlives them.
    pub panics: AtomicU64,
    /// When the refresher's loop last came round, on the monotonic clock; 0 before it runs.
    pub heartbeat_ms: AtomicU64,
    /// Clients' words that a token is dead, of all credentials.
    pub reports_made: AtomicU64,
    /// Looks into values that clients have caused.
    pub client_checks: AtomicU64,
    /// Those that were not made because clients had caused too many.
    pub client_checks_refused: AtomicU64,
    /// There is a state file.
    pub keeps_state: AtomicBool,
    /// What has happened in the last day.
    pub journal: Journal,
    /// How long calls took.
    pub durations: Durations,
    /// The state that several nodes share.
    pub sharing: ClusterStatus,
    ticks: watch::Sender<u64>,
    values: watch::Sender<u64>,
}

/// Sets the bit of a name's length. False if no key can be so long.
fn note_length(lengths: &mut [u64; 4], length: usize) -> bool {
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
        _ => KeyContent::Companion,
    };
    let redacted_name = key.redacted_name.map(String::into_boxed_str);
    let View { flags, at_least_s, .. } = key.view;
    let name = ManagedKey { credential: credential.clone(), redacted_name, view, flags, at_least_s, content };
    (key.name.into_bytes().into_boxed_slice(), name)
}

/// Reports under way at once; past that a report is dropped, since one check answers them all.
pub const REPORTS_MAX: usize = 1024;

impl Table {
    /// Builds the table from (what logs call a credential, its keys). The receiver is the refresher's.
    pub fn new(
        credentials: impl IntoIterator<Item = (impl AsRef<str>, Vec<KeyConfig>)>,
    ) -> (Table, mpsc::Receiver<VerificationRequest>) {
        let (reports, receiver) = mpsc::channel(REPORTS_MAX);
        let names = DashMap::with_hasher(foldhash::fast::RandomState::default());
        let (mut lengths, mut all, mut wildcards) = ([0; 4], Vec::new(), Vec::new());
        let (ticks, values) = (watch::Sender::new(0), watch::Sender::new(0));
        for (id, (label, keys)) in credentials.into_iter().enumerate() {
            let mut views: Vec<View> = Vec::new();
            let mut indices = Vec::with_capacity(keys.len());
            for key in &keys {
                indices.push(views.iter().position(|view| *view == key.view).unwrap_or(views.len()));
                if indices.last() == Some(&views.len()) {
                    views.push(key.view.clone());
                }
            }
            let mut credential = Credential::new(id, label.as_ref(), views.into_boxed_slice());
            credential.ticks = ticks.clone();
            credential.values = values.clone();
            credential.bump_value_version();
            let redacted_name = keys.iter().map(|key| key.redacted_name.as_ref().unwrap_or(&key.name).clone());
            credential.redacted_name.get_or_init(|| redacted_name.collect());
            let credential = Arc::new(credential);
            for (key, view) in keys.into_iter().zip(indices) {
                if has_wildcard(&key.name) {
                    wildcards.push(name(key, view, &credential));
                } else if note_length(&mut lengths, key.name.len()) {
                    let (key, name) = name(key, view, &credential);
                    names.insert(key, name);
                }
            }
            all.push(credential);
        }
        let wildcards = Wildcards::new(wildcards).map(Box::new);
        let table = Table {
            names: names.into_read_only(),
            lengths,
            candidates: if wildcards.is_some() { [u64::MAX; 4] } else { lengths },
            wildcards,
            credentials: all,
            reports,
            inbox: None,
            state_saved: AtomicBool::new(true),
            state_failures: AtomicU64::new(0),
            panics: AtomicU64::new(0),
            heartbeat_ms: AtomicU64::new(0),
            reports_made: AtomicU64::new(0),
            client_checks: AtomicU64::new(0),
            client_checks_refused: AtomicU64::new(0),
            keeps_state: AtomicBool::new(false),
            journal: Journal::default(),
            durations: Durations::default(),
            sharing: ClusterStatus::default(),
            ticks,
            values,
        };
        (table, receiver)
    }

    /// Opens the door for verify tickets.
    pub(super) fn set_ticket_inbox(&mut self, inbox: TicketInbox) {
        self.inbox = Some(inbox);
    }

    /// Takes a verify ticket for a component, bare or as the decrypted message of WeChat's push: for whoever receives
    /// those pushes. It is written to the state, and used at once if the component has been waiting for one.
    pub fn hand_in_verify_ticket(&self, component_appid: &str, ticket: &str) -> Result<(), TicketFault> {
        let inbox = self.inbox.as_ref().ok_or(TicketFault::UnknownComponent)?;
        inbox.hand_in(component_appid, ticket, false)
    }

    /// The same for what a component's file holds.
    pub(super) fn hand_in_file(&self, component_appid: &str, ticket: &str) -> Result<(), TicketFault> {
        let inbox = self.inbox.as_ref().ok_or(TicketFault::UnknownComponent)?;
        inbox.hand_in(component_appid, ticket, true)
    }

    /// What is behind a key, if the key is managed. Takes no lock.
    #[inline]
    pub fn name(&self, key: &[u8]) -> Option<&ManagedKey> {
        if has_length(&self.candidates, key.len()) { self.find_name(key) } else { None }
    }

    /// The same for a key that has the length of one. Not inlined: most keys end at their length.
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

    /// Says which app each credential belongs to, in their order. Rights are given by app.
    pub fn set_apps<'a>(&self, apps: impl IntoIterator<Item = &'a str>) {
        for (credential, app) in self.credentials.iter().zip(apps) {
            credential.app.get_or_init(|| app.into());
        }
    }

    /// Says what each credential is, in their order.
    pub fn set_infos(&self, abouts: impl IntoIterator<Item = CredentialInfo>) {
        for (credential, about) in self.credentials.iter().zip(abouts) {
            credential.about.get_or_init(|| about);
        }
    }

    /// Ticks at every change of any credential but its value's age. See [`Credential::version`].
    pub fn changes(&self) -> watch::Receiver<u64> {
        self.ticks.subscribe()
    }

    /// Ticks whenever a value is published or withdrawn, and not at its end. See [`Credential::value_version`].
    pub fn values(&self) -> watch::Receiver<u64> {
        self.values.subscribe()
    }

    /// Asks the refresher to look at a credential now, as one who has the right to. The receiver fires when it is over;
    /// `None` if so many are under way that this one adds nothing.
    pub fn ask_refresh(&self, credential: &Credential, generation: Option<u64>) -> Option<oneshot::Receiver<()>> {
        credential.reports.fetch_add(1, Ordering::Relaxed);
        self.report(credential, generation, VerificationReason::Requested)
    }

    /// The same, to try the value on a cheap call and nothing else.
    pub fn ask_probe(&self, credential: &Credential) -> Option<oneshot::Receiver<()>> {
        self.report(credential, None, VerificationReason::ProbeRequested)
    }

    /// Hands a client's report to the refresher. The receiver fires when the check is over;
    /// `None` if so many are under way that this one adds nothing.
    pub fn report_dead(&self, credential: &Credential, generation: Option<u64>) -> Option<oneshot::Receiver<()>> {
        self.count_report(credential);
        // Fixed now: by the time the refresher gets to it, "the current one" may be another.
        let generation = generation.or_else(|| credential.published().map(|published| published.generation));
        self.report(credential, generation, VerificationReason::Reported)
    }

    /// The same, by the token that the client saw fail: about another than the present one there is nothing to do.
    pub fn report_token(&self, credential: &Credential, token: &[u8]) -> Option<oneshot::Receiver<()>> {
        match credential.generation_of(token) {
            Some(generation) => self.report_dead(credential, Some(generation)),
            None => {
                self.count_report(credential);
                None
            }
        }
    }

    /// Tells the refresher that a client tried to write a token of its own. Nobody waits for the check.
    pub fn report_foreign_writer(&self, credential: &Credential) {
        credential.rival_writes.fetch_add(1, Ordering::Relaxed);
        // If the queue is full, a check is on its way anyhow.
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::encoding::Fact;

    fn published(generation: u64, expires_boot_ms: BootMs) -> Published {
        Published::to_the_end(Bytes::from_static(b"TOKEN"), generation, expires_boot_ms)
    }

    #[test]
    fn a_value_is_live_until_the_instant_it_expires() {
        let credential = Credential::new(0, "wx1", Box::new([View::RAW]));
        assert!(matches!(credential.read(0), Reading::FirstFetch));
        credential.publish(published(1, 100));
        assert!(matches!(credential.read(99), Reading::Live(_)));
        assert!(matches!(credential.read(100), Reading::Absent));
    }

    #[test]
    fn a_failed_first_fetch_ends_the_waiting() {
        let credential = Credential::new(0, "wx1", Box::new([View::RAW]));
        credential.end_wait();
        assert!(matches!(credential.read(0), Reading::Absent));
    }

    #[test]
    fn every_name_finds_its_credential_and_others_find_none() {
        let key = |name: &str| KeyConfig { name: name.to_owned(), redacted_name: None, view: View::RAW };
        let names = vec![key("access_token:wx1"), key("access_token")];
        let (table, _receiver) = Table::new([("wx1", names)]);
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
        let (table, _receiver) = Table::new([("wx1", first), ("wx2", second)]);
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
        let (table, _receiver) = Table::new([("wx1", keys)]);
        assert_eq!(table.credentials()[0].views.len(), 4);
        assert_eq!(get(&table, "json"), None);
        assert_eq!(get(&table, "one"), Some(("1".into(), 0, 1)), "a constant needs no value");
        table.credentials()[0].publish(published(7, 10_050));
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
