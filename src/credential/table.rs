//! The table of managed keys: every name (`access_token:<appid>` and its aliases) -> the credential it shows.
//!
//! One writer, the refresher; any number of readers, who never wait. A value is swapped, never cleared first.
//! No async code, no sockets, no clock: the time comes in as a value.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use arc_swap::{ArcSwapOption, Guard};
use bytes::Bytes;
use dashmap::DashMap;
use parking_lot::Mutex;
use tokio::sync::{mpsc, oneshot, watch};

use crate::clock::BootMs;

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
}

impl std::fmt::Debug for Published {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Published")
            .field("generation", &self.generation)
            .field("expires_boot_ms", &self.expires_boot_ms)
            .finish_non_exhaustive()
    }
}

/// What a reader finds.
pub enum Reading {
    /// A value WeChat accepts.
    Live(Guard<Option<Arc<Published>>>),
    /// No value yet; the very first fetch is under way, so waiting a moment may help.
    FirstFetch,
    /// Nothing to serve: expired, or refused.
    Absent,
}

/// How the keeping of a credential goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum State {
    /// A live value, and no trouble.
    Fresh,
    /// A call to WeChat is under way.
    Renewing,
    /// A live value, but the last call failed.
    Stale,
    /// WeChat named a time before which asking is useless.
    Waiting,
    /// Somebody has to change something before WeChat gives a value.
    Blocked,
    /// No live value.
    #[default]
    Dead,
}

impl State {
    /// One word for statistics.
    pub fn name(self) -> &'static str {
        match self {
            State::Fresh => "fresh",
            State::Renewing => "renewing",
            State::Stale => "stale",
            State::Waiting => "waiting",
            State::Blocked => "blocked",
            State::Dead => "dead",
        }
    }
}

/// The last failure, fit to be shown: nothing secret is in it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LastError {
    pub errcode: Option<i64>,
    /// `retry`, `wait`, `operator` or `own-bug`.
    pub class: &'static str,
    pub rid: Option<String>,
    pub text: String,
    /// What the operator should do about it.
    pub advice: String,
    pub at_boot_ms: BootMs,
}

/// What the refresher has to say about a credential, for `stats`.
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub struct Status {
    pub state: State,
    /// 0 while there has been no value.
    pub generation: u64,
    /// 0 while there has been no value.
    pub expires_boot_ms: BootMs,
    pub next_try_boot_ms: BootMs,
    /// Cleared by the next success.
    pub last_error: Option<LastError>,
    /// Calls sent to WeChat since the start, probes included.
    pub calls: u64,
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
}

/// One credential: the value, and what readers and writers count about it.
pub struct Credential {
    pub id: CredentialId,
    pub appid: String,
    published: ArcSwapOption<Published>,
    /// False until the first fetch has ended, well or badly.
    settled: AtomicBool,
    /// Ticks whenever `published` or `settled` changes; waiters listen here.
    changes: watch::Sender<u64>,
    /// Writes by clients that were refused.
    pub refused_writes: AtomicU64,
    /// When the last refusal was logged, boot ms; at most one line a minute.
    pub refusal_logged_boot_ms: AtomicU64,
    /// `delete`s and other reports that the token is dead.
    pub reports: AtomicU64,
    status: Mutex<Status>,
}

impl Credential {
    /// A credential without a value.
    pub fn new(id: CredentialId, appid: &str) -> Credential {
        Credential {
            id,
            appid: appid.to_owned(),
            published: ArcSwapOption::empty(),
            settled: AtomicBool::new(false),
            changes: watch::Sender::new(0),
            refused_writes: AtomicU64::new(0),
            refusal_logged_boot_ms: AtomicU64::new(0),
            reports: AtomicU64::new(0),
            status: Mutex::new(Status::default()),
        }
    }

    /// How it goes, at this instant. Takes a lock that is only ever held for a few instructions.
    pub fn status(&self, boot_ms: BootMs) -> Status {
        let mut status = self.status.lock().clone();
        let live = boot_ms < status.expires_boot_ms;
        if !live && matches!(status.state, State::Fresh | State::Stale) {
            status.state = State::Dead;
        }
        status
    }

    /// The refresher only: changes the status.
    pub fn update_status(&self, change: impl FnOnce(&mut Status)) {
        change(&mut self.status.lock());
    }

    /// The value at this instant. Takes no lock and allocates nothing.
    pub fn read(&self, boot_ms: BootMs) -> Reading {
        let guard = self.published.load();
        match guard.as_ref() {
            Some(value) if boot_ms < value.expires_boot_ms => Reading::Live(guard),
            _ if self.settled.load(Ordering::Acquire) => Reading::Absent,
            _ => Reading::FirstFetch,
        }
    }

    /// The published value, expired or not. For the refresher and for statistics.
    pub fn published(&self) -> Option<Arc<Published>> {
        self.published.load_full()
    }

    /// Wakes when a value is published or the first fetch ends.
    pub fn subscribe(&self) -> watch::Receiver<u64> {
        self.changes.subscribe()
    }

    /// The refresher only: swaps the value in.
    pub fn publish(&self, value: Published) {
        self.published.store(Some(Arc::new(value)));
        self.settle();
    }

    /// The same for a value whose successor can be had only when it has ended: readers at that instant wait a moment,
    /// as for a first fetch, because the successor is sure to be under way.
    pub fn publish_until_next(&self, value: Published) {
        self.published.store(Some(Arc::new(value)));
        self.settled.store(false, Ordering::Release);
        self.changes.send_modify(|ticks| *ticks += 1);
    }

    /// The refresher only, at start: a value that is over, kept to be recognised. Readers still wait for the first fetch.
    pub fn remember(&self, value: Published) {
        self.published.store(Some(Arc::new(value)));
    }

    /// The refresher only: nobody should wait for the first fetch any longer.
    pub fn settle(&self) {
        self.settled.store(true, Ordering::Release);
        self.changes.send_modify(|ticks| *ticks += 1);
    }

    /// The refresher only: WeChat says the value is dead and there is no other yet.
    pub fn withdraw(&self) {
        self.published.store(None);
        self.settle();
    }
}

/// A client's word that a token is dead, and where to say that the check is over.
pub struct Report {
    pub id: CredentialId,
    /// The generation the client saw; `None` means the current one.
    pub generation: Option<u64>,
    pub done: oneshot::Sender<()>,
}

/// All managed names.
pub struct Table {
    names: DashMap<Box<[u8]>, Arc<Credential>, foldhash::fast::RandomState>,
    /// Bit n is set if some name is n bytes long: spares ordinary keys the look-up.
    lengths: [u64; 4],
    credentials: Vec<Arc<Credential>>,
    reports: mpsc::Sender<Report>,
    /// Whether the state file could be written the last time; true without one.
    pub state_saved: AtomicBool,
    /// Failed attempts to write the state file.
    pub state_failures: AtomicU64,
    /// Fetch tasks that panicked; the refresher outlives them.
    pub panics: AtomicU64,
}

/// Reports under way at once; past that a report is dropped, since one check answers them all.
pub const REPORTS_MAX: usize = 1024;

impl Table {
    /// Builds the table from (what logs call a credential, its keys). The receiver is the refresher's.
    pub fn new(
        credentials: impl IntoIterator<Item = (impl AsRef<str>, Vec<String>)>,
    ) -> (Table, mpsc::Receiver<Report>) {
        let (reports, receiver) = mpsc::channel(REPORTS_MAX);
        let names = DashMap::with_hasher(foldhash::fast::RandomState::default());
        let mut table = Table {
            names,
            lengths: [0; 4],
            credentials: Vec::new(),
            reports,
            state_saved: AtomicBool::new(true),
            state_failures: AtomicU64::new(0),
            panics: AtomicU64::new(0),
        };
        for (id, (label, names)) in credentials.into_iter().enumerate() {
            let credential = Arc::new(Credential::new(id, label.as_ref()));
            for name in names {
                if let Some(word) = table.lengths.get_mut(name.len() / 64) {
                    *word |= 1 << (name.len() % 64);
                    table.names.insert(name.into_bytes().into_boxed_slice(), credential.clone());
                }
            }
            table.credentials.push(credential);
        }
        (table, receiver)
    }

    /// Runs `then` on the credential behind a key, if the key is managed. `then` must not use the table.
    pub fn with<R>(&self, key: &[u8], then: impl FnOnce(&Arc<Credential>) -> R) -> Option<R> {
        let word = self.lengths.get(key.len() / 64)?;
        if word & (1 << (key.len() % 64)) == 0 {
            return None;
        }
        self.names.get(key).map(|found| then(found.value()))
    }

    /// True if clients may not write this key.
    pub fn is_managed(&self, key: &[u8]) -> bool {
        self.with(key, |_| ()).is_some()
    }

    /// Every credential, by id.
    pub fn credentials(&self) -> &[Arc<Credential>] {
        &self.credentials
    }

    /// Hands a client's report to the refresher. The receiver fires when the check is over;
    /// `None` if so many are under way that this one adds nothing.
    pub fn report_dead(&self, credential: &Credential, generation: Option<u64>) -> Option<oneshot::Receiver<()>> {
        credential.reports.fetch_add(1, Ordering::Relaxed);
        let (done, receiver) = oneshot::channel();
        // Fixed now: by the time the refresher gets to it, "the current one" may be another.
        let generation = generation.or_else(|| credential.published().map(|published| published.generation));
        let report = Report { id: credential.id, generation, done };
        self.reports.try_send(report).ok().map(|()| receiver)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn published(generation: u64, expires_boot_ms: BootMs) -> Published {
        Published { value: Bytes::from_static(b"TOKEN"), generation, expires_boot_ms }
    }

    #[test]
    fn a_value_is_live_until_the_instant_it_expires() {
        let credential = Credential::new(0, "wx1");
        assert!(matches!(credential.read(0), Reading::FirstFetch));
        credential.publish(published(1, 100));
        assert!(matches!(credential.read(99), Reading::Live(_)));
        assert!(matches!(credential.read(100), Reading::Absent));
    }

    #[test]
    fn a_failed_first_fetch_ends_the_waiting() {
        let credential = Credential::new(0, "wx1");
        credential.settle();
        assert!(matches!(credential.read(0), Reading::Absent));
    }

    #[test]
    fn every_name_finds_its_credential_and_others_find_none() {
        let names = vec!["access_token:wx1".to_owned(), "access_token".to_owned()];
        let (table, _receiver) = Table::new([("wx1", names)]);
        assert!(table.is_managed(b"access_token:wx1"));
        assert!(table.is_managed(b"access_token"));
        assert!(!table.is_managed(b"access_tokem"));
        assert!(!table.is_managed(&[b'x'; 300]));
    }

    #[test]
    fn debug_never_shows_the_token() {
        assert!(!format!("{:?}", published(1, 100)).contains("TOKEN"));
    }
}
