//! A follower's store: the records of a leader, read through the leader's HTTP API.
//!
//! The follower asks one question at a time. The first answer lists every credential, each later one lists what has
//! changed. The leader holds a question back until there is a change, but no longer than `poll_every_ms`: so a change
//! arrives at once, and a leader that hangs is noticed soon. From time to time everything is listed again, so that a wrong
//! answer does not last until the next renewal. Answers are checked as if they came from a platform.
//!
//! Never calls a platform and changes nothing at the leader; a refresh request has the leader verify or renew a value.

mod client;
mod leader_records;
mod page;

use std::convert::Infallible;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::time::Duration;

use parking_lot::Mutex;
use tokio::sync::{Semaphore, mpsc};
use tokio::time::{Instant, sleep, timeout};
use tokio_util::sync::CancellationToken;

use super::options::LeaderOptions;
use super::{
    ClusterEvent, ClusterStore, Op, OpOutcome, RefreshReason, StoreAnswer, StoreClockReading, StoreFuture, Unreachable,
    WatchedRecord,
};
use crate::clock::{self, RepeatThrottle};
use crate::secret::Secret;
use client::{LeaderClient, LeaderFault};
use leader_records::{LeaderRecords, RecordUpdate};
use page::LeaderPage;

/// How long a refresh request may take.
const REFRESH_MAX: Duration = Duration::from_secs(20);
const REFRESHES_MAX: usize = 16;
/// The pause between rounds in which no leader answered, at first and at most.
const PAUSE_MIN: Duration = Duration::from_millis(200);
const PAUSE_MAX: Duration = Duration::from_secs(10);
/// The pause after a fault of this process, which passes.
const PAUSE_AFTER_OWN_FAULT: Duration = Duration::from_secs(1);
/// When a leader was followed for so long, its next failure is a new one.
const FOLLOWED_LONG: Duration = Duration::from_secs(10);
/// The least time between two questions when nothing is left to list: many changes in a row come together.
const SPACING: Duration = Duration::from_millis(200);
/// The same failure is logged at most so often.
const LOG_AGAIN_MS: u64 = 60_000;
/// Everything is listed again after about so long.
const LIST_AGAIN: Duration = Duration::from_secs(600);
/// A leader that has been cut off for so long from the nodes that renew is left, if there is another URL.
const CUT_OFF_MS: u64 = 180_000;
/// A listing that needs more answers never ends.
const PAGES_MAX: usize = 2_000;

pub struct HttpStore {
    urls: Vec<String>,
    /// The index of the URL that is followed, or tried.
    current: AtomicUsize,
    client: LeaderClient,
    wait: Duration,
    seal_secret: Secret,
    /// Set while [`ClusterStore::watch`] runs.
    watching: Mutex<Option<WatchState>>,
    refreshes: Semaphore,
}

struct WatchState {
    records: LeaderRecords,
    events: mpsc::Sender<ClusterEvent>,
}

const LEADER_CUT_OFF: LeaderFault = LeaderFault::new(
    "has not heard from a node that renews for minutes",
    "see what that node follows, and whether the network lets it through",
);

impl HttpStore {
    /// Reads `ca_file` and connects nowhere. The records handed to this process are sealed with `seal_secret`. An error is a
    /// mistake in the configuration.
    pub fn new(options: &LeaderOptions, seal_secret: Secret) -> Result<Arc<HttpStore>, String> {
        Ok(Arc::new(HttpStore {
            urls: options.urls.iter().map(|url| url.trim_end_matches('/').to_owned()).collect(),
            current: AtomicUsize::new(0),
            client: LeaderClient::new(options)?,
            // The leader counts whole seconds.
            wait: Duration::from_secs(options.poll_every_ms.div_ceil(1000).clamp(1, 60)),
            seal_secret,
            watching: Mutex::new(None),
            refreshes: Semaphore::new(REFRESHES_MAX),
        }))
    }

    /// Follows whichever leader answers, for ever.
    async fn follow(&self, sender: mpsc::Sender<ClusterEvent>) {
        let (mut events, mut throttle) = (EventSender { sender, last_reachable: None }, RepeatThrottle::default());
        let (mut failed, mut pause): (Vec<Unreachable>, _) = (Vec::new(), PAUSE_MIN);
        loop {
            let (at, begun) = (self.current.load(Relaxed), Instant::now());
            let Some(url) = self.urls.get(at) else { return };
            let Err(fault) = self.follow_one(url, &mut events).await;
            if begun.elapsed() >= FOLLOWED_LONG {
                (failed, pause) = (Vec::new(), PAUSE_MIN);
            }
            if fault.is_own_fault {
                events.send_reachable(Err(unreachable(url, fault))).await;
                sleep(PAUSE_AFTER_OWN_FAULT).await;
                continue;
            }
            // With a single URL the receiver logs the failure.
            if self.urls.len() > 1 && throttle.allow((at, fault.text.clone()), clock::boot_ms(), LOG_AGAIN_MS).is_some()
            {
                let advice = fault.advice;
                tracing::warn!(url, advice, "the leader {}; trying the next of leader_urls", fault.text);
            }
            failed.push(unreachable(url, fault));
            self.current.store((at + 1) % self.urls.len(), Relaxed);
            if failed.len() < self.urls.len() {
                continue;
            }
            events.send_reachable(Err(all_failed(std::mem::take(&mut failed)))).await;
            sleep(pause.mul_f64(0.5 + fastrand::f64() / 2.0)).await;
            pause = (2 * pause).min(PAUSE_MAX);
        }
    }

    async fn follow_one(&self, url: &str, events: &mut EventSender) -> Result<Infallible, LeaderFault> {
        let (mut after, mut pages): (Option<String>, usize) = (None, 0);
        let (mut is_listing, mut is_first) = (false, true);
        let mut list_again = Instant::now();
        loop {
            let begun = Instant::now();
            let (page, clock_reading) = self.ask_page(url, None, after.as_deref()).await?;
            if page.from_start {
                (is_listing, pages) = (true, 0);
                list_again = Instant::now() + LIST_AGAIN.mul_f64(0.8 + fastrand::f64() * 0.4);
                self.with_records(LeaderRecords::begin_listing);
            }
            pages = if page.more { pages + 1 } else { 0 };
            if pages >= PAGES_MAX {
                let advice = "see whether it is a tokencached";
                return Err(LeaderFault::new("never ends telling what it has", advice));
            }
            let updates = self.with_records(|records| records.take(&page, url, clock_reading, is_listing, None));
            events.send_records(updates.unwrap_or_default()).await;
            if !page.more {
                if std::mem::take(&mut is_listing) {
                    self.finish_listing(url, clock_reading, std::mem::take(&mut is_first), events).await;
                }
                events
                    .send(ClusterEvent::UpToDate { as_of_ms: clock_reading.sent_ms.saturating_sub(page.age_ms) })
                    .await;
                if self.urls.len() > 1 && page.age_ms >= CUT_OFF_MS {
                    return Err(LEADER_CUT_OFF);
                }
                self.pause_after(begun.elapsed(), page.credentials.is_empty()).await;
            }
            let list_now = !page.more && Instant::now() >= list_again;
            after = Some(page.cursor).filter(|_| !list_now);
        }
    }

    /// After a whole listing: sends the records that were not in it too, so that nobody waits for them.
    async fn finish_listing(
        &self,
        url: &str,
        clock_reading: StoreClockReading,
        is_first: bool,
        events: &mut EventSender,
    ) {
        let unlisted = self.with_records(|records| {
            let updates = records.unlisted(clock_reading);
            let one = updates.first().map(|(index, ..)| records.watched(*index).clone());
            (updates, one)
        });
        let (updates, one) = unlisted.unwrap_or_default();
        let count = updates.len();
        events.send_records(updates).await;
        if is_first {
            tracing::info!(url, missing = clock::nonzero(count as u64), "following the leader");
        }
        let reachable = one.map_or(Ok(()), |WatchedRecord { app, kind, .. }| {
            let others = if count > 1 { format!(" and {} others", count - 1) } else { String::new() };
            Err(Unreachable::new(
                format!("the leader {url} does not show {kind} of {app}{others} to this node"),
                "configure it there too, and give this node's key the rights read and refresh for the app",
            ))
        });
        events.send_reachable(reachable).await;
    }

    /// Waits, so that a leader which answers at once is not asked without a pause.
    async fn pause_after(&self, took: Duration, is_unchanged: bool) {
        if is_unchanged && took < self.wait / 2 {
            sleep(self.wait).await;
        } else if took < SPACING {
            sleep(SPACING - took).await;
        }
    }

    /// Asks for one page. Returns it and the reading of the leader's clock.
    async fn ask_page(
        &self,
        url: &str,
        app: Option<&str>,
        after: Option<&str>,
    ) -> Result<(LeaderPage, StoreClockReading), LeaderFault> {
        let wait = if after.is_some() { self.wait } else { Duration::ZERO };
        let wait_s = wait.as_secs().to_string();
        let mut query = vec![("wait_s", wait_s.as_str())];
        query.extend(after.map(|after| ("after", after)));
        query.extend(app.map(|app| ("app", app)));
        let sent_ms = clock::boot_ms();
        let body = self.client.get(&format!("{url}/v1/credentials"), &query, wait).await?;
        let received_ms = clock::boot_ms();
        let body = zeroize::Zeroizing::new(body);
        let page = LeaderPage::parse(&body, after)?;
        // The leader read its clock after it had held the question back.
        let sent_ms = sent_ms.saturating_add(page.waited_ms).min(received_ms);
        let clock_reading = StoreClockReading { store_ms: page.now_ms, sent_ms, received_ms };
        Ok((page, clock_reading))
    }

    /// Has a leader verify or renew a value, and sends the record as it is afterwards.
    async fn refresh(&self, tag: &str, generation: Option<u64>, why: RefreshReason) -> Result<(), Unreachable> {
        let known = self.with_records(|records| {
            let index = records.index(tag)?;
            Some((records.watched(index).clone(), records.live(index, clock::boot_ms())))
        });
        let Some((watched, live)) = known.flatten() else { return Err(not_watching()) };
        let _permit = self.refreshes.acquire().await;
        let call = leader_call(generation, why, live);
        let mut last = not_watching();
        // The current leader first, and another only if that one has not judged the request.
        for url in self.urls.iter().cycle().skip(self.current.load(Relaxed)).take(self.urls.len()) {
            let Err(fault) = self.refresh_at(url, &watched, call.as_ref()).await else { return Ok(()) };
            let is_final = fault.refused.is_some() || fault.is_own_fault;
            last = unreachable(url, fault);
            if is_final {
                break;
            }
        }
        Err(last)
    }

    async fn refresh_at(
        &self,
        url: &str,
        watched: &WatchedRecord,
        call: Option<&LeaderCall>,
    ) -> Result<(), LeaderFault> {
        let called = match call {
            Some((what, body)) => self.post(url, watched, what, body.to_string()).await,
            None => Ok(()),
        };
        if called.as_ref().is_err_and(|fault| fault.refused.is_none()) {
            return called;
        }
        let (page, clock_reading) = self.ask_page(url, Some(&watched.app), None).await?;
        let updates = self.with_watch_state(|state| {
            let reported = state.records.index(&watched.tag).filter(|_| call.is_some_and(|(what, _)| *what == REFRESH));
            let sender = state.events.clone();
            let updates = state.records.take(&page, url, clock_reading, true, reported);
            (updates, EventSender { sender, last_reachable: None })
        });
        if let Some((updates, events)) = updates {
            events.send_records(updates).await;
        }
        called
    }

    async fn post(&self, url: &str, watched: &WatchedRecord, what: &str, body: String) -> Result<(), LeaderFault> {
        let mut path =
            url::Url::parse(url).map_err(|_| LeaderFault::new("is no address", "see leader_urls in [state]"))?;
        if let Ok(mut segments) = path.path_segments_mut() {
            segments.pop_if_empty().extend(["v1", "apps", &watched.app, "credentials", watched.kind, what]);
        }
        match self.client.post(path.as_str(), body, REFRESH_MAX).await {
            Ok(_) => Ok(()),
            // There is no call that probes a value of this type.
            Err(fault) if fault.refused == Some(reqwest::StatusCode::CONFLICT) => Ok(()),
            Err(fault) => Err(fault),
        }
    }

    fn with_records<R>(&self, with: impl FnOnce(&mut LeaderRecords) -> R) -> Option<R> {
        self.with_watch_state(|state| with(&mut state.records))
    }

    fn with_watch_state<R>(&self, with: impl FnOnce(&mut WatchState) -> R) -> Option<R> {
        self.watching.lock().as_mut().map(with)
    }
}

const PROBE: &str = "probe";
const REFRESH: &str = "refresh";

/// A call of the leader's HTTP API, and its body.
type LeaderCall = (&'static str, zeroize::Zeroizing<String>);

/// The call to the leader that a refresh request leads to; none if it is about an earlier value than the present one.
/// `live` is that, with its generation. Without one, the request is about whatever the leader has.
fn leader_call(generation: Option<u64>, why: RefreshReason, live: Option<(u64, Secret)>) -> Option<LeaderCall> {
    // Another program's fetch may have ended the value or not: a probe tells.
    if matches!(why, RefreshReason::Probe | RefreshReason::ForeignWriter) {
        return Some((PROBE, String::new().into()));
    }
    match live {
        None => Some((REFRESH, String::new().into())),
        Some((present, _)) if generation.is_some_and(|generation| generation != present) => None,
        // With the value itself: the leader may count generations differently.
        Some((_, token)) => Some((REFRESH, serde_json::json!({ "token": token.expose() }).to_string().into())),
    }
}

fn unreachable(url: &str, fault: LeaderFault) -> Unreachable {
    Unreachable::new(format!("the leader {url} {}", fault.text), fault.advice)
}

fn all_failed(failed: Vec<Unreachable>) -> Unreachable {
    let advice = failed.first().map_or("", |first| first.advice);
    let texts: Vec<String> = failed.into_iter().map(|one| one.text).collect();
    Unreachable::new(texts.join("; "), advice)
}

fn not_watching() -> Unreachable {
    Unreachable::new("the leader has not been asked yet", "wait a moment")
}

struct EventSender {
    sender: mpsc::Sender<ClusterEvent>,
    last_reachable: Option<Result<(), Unreachable>>,
}

impl EventSender {
    async fn send(&self, event: ClusterEvent) {
        // An error means that the node stops: then `watch` ends too.
        let _ = self.sender.send(event).await;
    }

    async fn send_records(&self, updates: Vec<RecordUpdate>) {
        for (index, record, clock_reading) in updates {
            self.send(ClusterEvent::RecordChanged { index, record, clock_reading }).await;
        }
    }

    /// Sends the same error only once.
    async fn send_reachable(&mut self, reachable: Result<(), Unreachable>) {
        if reachable.is_ok() || self.last_reachable.as_ref() != Some(&reachable) {
            self.last_reachable = Some(reachable.clone());
            self.send(ClusterEvent::Reachable(reachable)).await;
        }
    }
}

impl ClusterStore for HttpStore {
    /// Returns the last record that was listed. Only the leader changes records.
    fn ask<'a>(&'a self, tag: &'a str, op: Op) -> StoreFuture<'a, Result<StoreAnswer, Unreachable>> {
        Box::pin(async move {
            if op != Op::Read {
                let text = "the leader changes its records itself; a follower only reads them";
                return Err(Unreachable::new(text, "nothing: that node renews"));
            }
            let last = self.with_records(|records| records.last(records.index(tag)?)).flatten();
            let (record, clock_reading) = last.ok_or_else(not_watching)?;
            Ok(StoreAnswer { outcome: OpOutcome::Done, record, clock_reading })
        })
    }

    fn request_refresh<'a>(
        &'a self,
        tag: &'a str,
        generation: Option<u64>,
        why: RefreshReason,
    ) -> StoreFuture<'a, Result<(), Unreachable>> {
        Box::pin(async move {
            let refreshed = timeout(REFRESH_MAX, self.refresh(tag, generation, why)).await;
            let text = "the leader did not verify the value in time";
            refreshed.unwrap_or_else(|_| Err(Unreachable::new(text, "look at the leader's log")))
        })
    }

    fn watch(
        self: Arc<Self>,
        watched: Arc<[WatchedRecord]>,
        events: mpsc::Sender<ClusterEvent>,
        end: CancellationToken,
    ) -> StoreFuture<'static, ()> {
        let records = LeaderRecords::new(watched, &self.seal_secret);
        *self.watching.lock() = Some(WatchState { records, events: events.clone() });
        Box::pin(async move {
            tokio::select! {
                biased;
                () = end.cancelled() => {}
                () = events.closed() => {}
                () = self.follow(events.clone()) => {}
            }
            // Drops the sender: the receiver sees that no more events come.
            *self.watching.lock() = None;
        })
    }

    fn has_leases(&self) -> bool {
        false
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::descriptors;

    /// A resolver that finds the process without a file descriptor.
    struct ExhaustedResolver;

    impl reqwest::dns::Resolve for ExhaustedResolver {
        fn resolve(&self, _: reqwest::dns::Name) -> reqwest::dns::Resolving {
            let error = std::io::Error::from(rustix::io::Errno::MFILE);
            Box::pin(std::future::ready(Err(error.into())))
        }
    }

    #[tokio::test]
    async fn without_a_file_descriptor_a_followed_node_is_not_left_for_another() {
        let options = LeaderOptions {
            urls: vec!["http://a.test".to_owned(), "http://b.test".to_owned()],
            key: None,
            ca_file: None,
            timeout_ms: 1_000,
            poll_every_ms: 1_000,
            node: "follower".into(),
        };
        let store = HttpStore {
            urls: options.urls.clone(),
            current: AtomicUsize::new(0),
            client: LeaderClient::with_resolver(&options, Arc::new(ExhaustedResolver)).unwrap(),
            wait: Duration::from_secs(1),
            seal_secret: Secret::new("s".into()),
            watching: Mutex::new(None),
            refreshes: Semaphore::new(REFRESHES_MAX),
        };
        let (sender, mut events) = mpsc::channel(1);
        let event = tokio::select! {
            () = store.follow(sender) => panic!("it ends"),
            event = events.recv() => event,
        };
        let Some(ClusterEvent::Reachable(Err(fault))) = event else { panic!("another event was sent") };
        assert!(fault.text.starts_with("the leader http://a.test cannot be asked"), "{}", fault.text);
        assert_eq!(fault.advice, descriptors::REMEDY);
        assert_eq!(store.current.load(Relaxed), 0);
    }
}
