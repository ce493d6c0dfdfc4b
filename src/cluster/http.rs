//! A node that follows another by its side port: everything comes once, then what changes, by one question at a time.
//!
//! Never calls WeChat and changes nothing at the node it follows; a wish has that node look into a value. What is heard
//! is judged like an answer of WeChat's, sealed with a secret of this process alone, and handed on as a record.
//!
//! What the other node lists counts, whatever it listed before (`known`). Now and then everything is asked for again,
//! so that nothing wrong lasts until the next renewal.
//!
//! The question waits at the other node until there is something to tell, and not longer than `poll_every_ms`: that is
//! the hint of a change and the safety net at once, and a node that hangs is noticed as soon.

mod client;
mod leader_records;
mod page;

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::time::Duration;

use parking_lot::Mutex;
use tokio::sync::{Semaphore, mpsc};
use tokio::time::{Instant, sleep, timeout};
use tokio_util::sync::CancellationToken;

use super::options::LeaderOptions;
use super::{
    ClusterEvent, ClusterStore, Moment, Op, OpOutcome, RefreshReason, StoreAnswer, StoreFuture, Unreachable,
    WatchedRecord,
};
use crate::clock::{self, BootMs, RepeatThrottle};
use crate::https::TlsFault;
use crate::secret::Secret;
use client::{LeaderClient, LeaderFault};
use leader_records::{LeaderRecords, RecordUpdate};
use page::LeaderPage;

/// A wish and what comes of it may take so long.
const REQUEST_MAX: Duration = Duration::from_secs(20);
/// Wishes under way; more wait for their turn.
const REQUESTS_MAX: usize = 16;
/// Between rounds in which no node answered, at first and at most.
const PAUSE_MIN: Duration = Duration::from_millis(200);
const PAUSE_MAX: Duration = Duration::from_secs(10);
/// The same when the fault is this process's own and passes.
const PAUSE_OF_OURS: Duration = Duration::from_secs(1);
/// A node that was followed for so long is not in the same trouble as before.
const WELL: Duration = Duration::from_secs(10);
/// Between two questions at the least, once everything has been told: many changes in a row come together.
const SPACING: Duration = Duration::from_millis(200);
/// The same trouble is logged at most so often.
const LOG_AGAIN_MS: u64 = 60_000;
/// Everything is asked for again after about so long.
const LIST_AGAIN: Duration = Duration::from_secs(600);
/// A node that has been out of touch with those who renew for so long is left, if there is another to follow.
const CUT_OFF_MS: u64 = 180_000;
/// Answers in which everything has been told, or never will be.
const PAGES_MAX: usize = 2_000;

/// Why there is no such store: always something in the configuration.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum LeaderConfigError {
    #[error("state.upstream_ca_file {path}: {reason}")]
    CaFile { path: PathBuf, reason: String },
    #[error("{0}")]
    Tls(String),
}

impl LeaderConfigError {
    fn of(fault: TlsFault, nodes: &LeaderOptions) -> LeaderConfigError {
        match (fault, &nodes.ca_file) {
            (TlsFault::CaFile(reason), Some(path)) => LeaderConfigError::CaFile { path: path.clone(), reason },
            (fault, _) => LeaderConfigError::Tls(fault.to_string()),
        }
    }
}

/// The store that another node is.
pub struct HttpStore {
    urls: Vec<String>,
    /// Which of them is followed, or tried.
    at: AtomicUsize,
    client: LeaderClient,
    wait: Duration,
    seal_secret: Secret,
    /// Since [`ClusterStore::watch`] was called.
    watching: Mutex<Option<WatchState>>,
    requests: Semaphore,
}

/// What is watched, and who hears of it.
struct WatchState {
    known: LeaderRecords,
    sender: mpsc::Sender<ClusterEvent>,
}

/// What is said of a node that is left for another.
const LEADER_CUT_OFF: LeaderFault = LeaderFault::of(
    "has not heard from a node that renews for minutes",
    "see what that node follows, and whether the network lets it through",
);
/// What is said of a store whose watching has not begun.
const NOT_YET: &str = "has not been asked yet";

impl HttpStore {
    /// Reads `ca_file`; connects nowhere. The secret seals what this process hands itself.
    pub fn new(nodes: &LeaderOptions, seal_secret: Secret) -> Result<Arc<HttpStore>, LeaderConfigError> {
        Ok(Arc::new(HttpStore {
            urls: nodes.urls.iter().map(|url| url.trim_end_matches('/').to_owned()).collect(),
            at: AtomicUsize::new(0),
            client: LeaderClient::new(nodes)?,
            // The other node counts whole seconds.
            wait: Duration::from_secs(nodes.poll_every_ms.div_ceil(1000).clamp(1, 60)),
            seal_secret,
            watching: Mutex::new(None),
            requests: Semaphore::new(REQUESTS_MAX),
        }))
    }

    /// Follows whichever node answers, until the end of it all.
    async fn follow(&self, sender: mpsc::Sender<ClusterEvent>) {
        let (mut events, mut log) = (EventSender::new(sender), RepeatThrottle::default());
        let (mut failed, mut pause): (Vec<(usize, LeaderFault)>, _) = (Vec::new(), PAUSE_MIN);
        loop {
            let (at, begun) = (self.at.load(Relaxed), Instant::now());
            let Err(fault) = self.follow_one(at, &mut events).await else { return };
            if begun.elapsed() >= WELL {
                (failed, pause) = (Vec::new(), PAUSE_MIN);
            }
            if fault.is_own_fault {
                if !events.reachable(Err(self.all_failed(&[(at, fault)]))).await {
                    return;
                }
                sleep(PAUSE_OF_OURS).await;
                continue;
            }
            // Of a single one the receiver is told.
            if self.urls.len() > 1 && log.say((at, fault.text.clone()), clock::boot_ms(), LOG_AGAIN_MS).is_some() {
                let (url, advice) = (self.urls.get(at), fault.advice);
                tracing::warn!(url, advice, "one of the nodes in upstream {}; the next is tried", fault.text);
            }
            failed.push((at, fault));
            self.at.store((at + 1) % self.urls.len().max(1), Relaxed);
            if failed.len() < self.urls.len() {
                continue;
            }
            events.reachable(Err(self.all_failed(&std::mem::take(&mut failed)))).await;
            sleep(pause.mul_f64(0.5 + fastrand::f64() / 2.0)).await;
            pause = (2 * pause).min(PAUSE_MAX);
        }
    }

    /// Follows one node until that fails; `Ok` if nobody listens any more.
    async fn follow_one(&self, at: usize, events: &mut EventSender) -> Result<(), LeaderFault> {
        let Some(url) = self.urls.get(at) else { return Ok(()) };
        let (mut after, mut pages): (Option<String>, usize) = (None, 0);
        // Everything is being told, for the first time or again.
        let (mut listing, mut first) = (false, true);
        let mut list_again = Instant::now();
        loop {
            let begun = Instant::now();
            let (page, moment) = self.ask_page(url, None, after.as_deref()).await?;
            if page.from_start {
                (listing, pages) = (true, 0);
                list_again = Instant::now() + LIST_AGAIN.mul_f64(0.8 + fastrand::f64() * 0.4);
                self.with_records(LeaderRecords::begin_listing);
            }
            pages = if page.more { pages + 1 } else { 0 };
            if pages >= PAGES_MAX {
                return Err(LeaderFault::of("never ends telling what it has", "see whether it is a tokencached"));
            }
            let told = self.with_records(|known| known.take(&page, url, moment, listing, None)).unwrap_or_default();
            if !events.seen(told).await {
                return Ok(());
            }
            if !page.more {
                if std::mem::take(&mut listing) && !self.listed(url, moment, std::mem::take(&mut first), events).await {
                    return Ok(());
                }
                if !events.complete(moment.sent_ms.saturating_sub(page.age_ms)).await {
                    return Ok(());
                }
                if self.urls.len() > 1 && page.age_ms >= CUT_OFF_MS {
                    return Err(LEADER_CUT_OFF);
                }
                self.pace(begun.elapsed(), page.credentials.is_empty()).await;
            }
            let again = !page.more && Instant::now() >= list_again;
            after = Some(page.cursor).filter(|_| !again);
        }
    }

    /// Everything has been told: so nobody waits for what was not among it.
    async fn listed(&self, url: &str, moment: Moment, first: bool, events: &mut EventSender) -> bool {
        let missing = self.with_records(|known| {
            let missing: Vec<usize> = known.unlisted().collect();
            let one = missing.first().map(|index| known.watched(*index).clone());
            let told: Vec<RecordUpdate> = missing.into_iter().map(|index| known.as_it_is(index, moment)).collect();
            (told, one)
        });
        let Some((told, one)) = missing else { return false };
        let count = told.len();
        if !events.seen(told).await {
            return false;
        }
        let standing = match one {
            None => Ok(()),
            Some(WatchedRecord { app, kind, .. }) => {
                let others = if count > 1 { format!(" and {} others", count - 1) } else { String::new() };
                Err(Unreachable {
                    text: format!("at {url} does not show {kind} of {app}{others} to this node"),
                    advice: "configure it there too, and give this node's key the rights read and refresh for the app",
                    unknown: false,
                })
            }
        };
        if first {
            tracing::info!(url, missing = clock::nonzero(count as u64), "follows another node");
        }
        events.reachable(standing).await
    }

    /// A node that answers at once, whatever it was asked to wait for, is not asked all the time.
    async fn pace(&self, took: Duration, nothing_new: bool) {
        if nothing_new && took < self.wait / 2 {
            sleep(self.wait).await;
        } else if took < SPACING {
            sleep(SPACING - took).await;
        }
    }

    /// One answer, and when its clock was read.
    async fn ask_page(
        &self,
        url: &str,
        app: Option<&str>,
        after: Option<&str>,
    ) -> Result<(LeaderPage, Moment), LeaderFault> {
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
        // What it waited for had passed before it read its clock.
        let sent_ms = sent_ms.saturating_add(page.waited_ms).min(received_ms);
        let moment = Moment { store_ms: page.now_ms, sent_ms, received_ms };
        Ok((page, moment))
    }

    /// Has the value looked into there, and brings what it is then.
    async fn refresh_at_leader(
        &self,
        tag: &str,
        generation: Option<u64>,
        why: RefreshReason,
    ) -> Result<(), Unreachable> {
        let asked = self.with_records(|known| {
            let index = known.index(tag)?;
            Some((known.watched(index).clone(), known.live(index, clock::boot_ms())))
        });
        let Some((watched, live)) = asked.flatten() else { return Err(not_yet()) };
        let _turn = self.requests.acquire().await;
        let body = LeaderRequest::of(generation, why, live);
        let mut last = not_yet();
        // The one that is followed first; another only if that one has not judged the request.
        let first = self.at.load(Relaxed);
        for turn in 0..self.urls.len() {
            let Some(url) = self.urls.get((first + turn) % self.urls.len()) else { break };
            match self.refresh_at(url, &watched, &body).await {
                Ok(()) => return Ok(()),
                Err(fault) => {
                    let refused = fault.refused.is_some() || fault.is_own_fault;
                    last = unreachable(url, fault);
                    if refused {
                        break;
                    }
                }
            }
        }
        Err(last)
    }

    async fn refresh_at(&self, url: &str, watched: &WatchedRecord, wish: &LeaderRequest) -> Result<(), LeaderFault> {
        let looked = match wish {
            LeaderRequest::AlreadyReplaced => Ok(()),
            LeaderRequest::Probe => self.post(url, watched, "probe", String::new()).await,
            LeaderRequest::Refresh(body) => self.post(url, watched, "refresh", body.to_string()).await,
        };
        match looked {
            Err(fault) if fault.refused.is_none() => return Err(fault),
            _ => {}
        }
        let (page, moment) = self.ask_page(url, Some(&watched.app), None).await?;
        let told = self.with_watching(|watching| {
            let asked_for = watching.known.index(&watched.tag).filter(|_| matches!(wish, LeaderRequest::Refresh(_)));
            (watching.known.take(&page, url, moment, true, asked_for), EventSender::new(watching.sender.clone()))
        });
        if let Some((told, events)) = told {
            events.seen(told).await;
        }
        looked
    }

    async fn post(&self, url: &str, watched: &WatchedRecord, what: &str, body: String) -> Result<(), LeaderFault> {
        let mut path = url::Url::parse(url).map_err(|_| LeaderFault::of("is no address", "see upstream in [state]"))?;
        if let Ok(mut segments) = path.path_segments_mut() {
            segments.pop_if_empty().extend(["v1", "apps", &watched.app, "credentials", watched.kind, what]);
        }
        match self.client.post(path.as_str(), body, REQUEST_MAX).await {
            Ok(_) => Ok(()),
            // No call is known that tries a value of this kind.
            Err(fault) if fault.refused == Some(reqwest::StatusCode::CONFLICT) => Ok(()),
            Err(fault) => Err(fault),
        }
    }

    fn with_records<R>(&self, with: impl FnOnce(&mut LeaderRecords) -> R) -> Option<R> {
        self.with_watching(|watching| with(&mut watching.known))
    }

    fn with_watching<R>(&self, with: impl FnOnce(&mut WatchState) -> R) -> Option<R> {
        self.watching.lock().as_mut().map(with)
    }

    fn all_failed(&self, failed: &[(usize, LeaderFault)]) -> Unreachable {
        let one = |(at, fault): &(usize, LeaderFault)| Some(unreachable(self.urls.get(*at)?, fault.clone()));
        let each: Vec<Unreachable> = failed.iter().filter_map(one).collect();
        let advice = each.first().map_or("", |first| first.advice);
        let texts: Vec<&str> = each.iter().map(|one| one.text.as_str()).collect();
        Unreachable { text: texts.join("; "), advice, unknown: false }
    }
}

/// What is sent there for a wish.
enum LeaderRequest {
    /// By the value itself: the other node's count may be another.
    Refresh(zeroize::Zeroizing<String>),
    Probe,
    /// It is about an earlier value than the present one.
    AlreadyReplaced,
}

impl LeaderRequest {
    /// `live` is the value that lives here, with its generation. What is said of none is said of whatever is there.
    fn of(generation: Option<u64>, why: RefreshReason, live: Option<(u64, Secret)>) -> LeaderRequest {
        match live {
            // A rival's fetch may have killed the value or not: a trial tells.
            _ if matches!(why, RefreshReason::Probe | RefreshReason::ForeignWriter) => LeaderRequest::Probe,
            None => LeaderRequest::Refresh(String::new().into()),
            Some((ours, _)) if generation.is_some_and(|generation| generation != ours) => {
                LeaderRequest::AlreadyReplaced
            }
            Some((_, token)) => {
                LeaderRequest::Refresh(serde_json::json!({ "token": token.expose() }).to_string().into())
            }
        }
    }
}

fn unreachable(url: &str, fault: LeaderFault) -> Unreachable {
    Unreachable { text: format!("at {url} {}", fault.text), advice: fault.advice, unknown: false }
}

fn not_yet() -> Unreachable {
    Unreachable { text: NOT_YET.to_owned(), advice: "wait a moment", unknown: false }
}

/// Tells the receiver; what is reachable only when that changes.
struct EventSender {
    sender: mpsc::Sender<ClusterEvent>,
    last: Option<Result<(), Unreachable>>,
}

impl EventSender {
    fn new(sender: mpsc::Sender<ClusterEvent>) -> EventSender {
        EventSender { sender, last: None }
    }

    /// False if nobody listens any more.
    async fn seen(&self, told: Vec<RecordUpdate>) -> bool {
        for (index, record, moment) in told {
            if self.sender.send(ClusterEvent::RecordChanged { index, record, moment }).await.is_err() {
                return false;
            }
        }
        true
    }

    /// All that is known there has been told, as of that instant.
    async fn complete(&self, as_of_ms: BootMs) -> bool {
        self.sender.send(ClusterEvent::UpToDate { as_of_ms }).await.is_ok()
    }

    async fn reachable(&mut self, standing: Result<(), Unreachable>) -> bool {
        if standing.is_err() && self.last.as_ref() == Some(&standing) {
            return true;
        }
        self.last = Some(standing.clone());
        self.sender.send(ClusterEvent::Reachable(standing)).await.is_ok()
    }
}

impl ClusterStore for HttpStore {
    /// The last record heard of. What would change one is done by the node that is followed.
    fn ask<'a>(&'a self, tag: &'a str, op: Op) -> StoreFuture<'a, Result<StoreAnswer, Unreachable>> {
        Box::pin(async move {
            if op != Op::Read {
                let text = "is another node's, and only followed here".to_owned();
                return Err(Unreachable { text, advice: "nothing: that node renews", unknown: false });
            }
            let last = self.with_records(|known| known.last(known.index(tag)?)).flatten();
            let (record, moment) = last.ok_or_else(not_yet)?;
            Ok(StoreAnswer { outcome: OpOutcome::Done, record, moment })
        })
    }

    fn request_refresh<'a>(
        &'a self,
        tag: &'a str,
        generation: Option<u64>,
        why: RefreshReason,
    ) -> StoreFuture<'a, Result<(), Unreachable>> {
        Box::pin(async move {
            match timeout(REQUEST_MAX, self.refresh_at_leader(tag, generation, why)).await {
                Ok(looked) => looked,
                Err(_) => Err(Unreachable {
                    text: "has not looked into the value in time".to_owned(),
                    advice: "look at the node that is followed",
                    unknown: false,
                }),
            }
        })
    }

    fn watch(
        self: Arc<Self>,
        watched: Arc<[WatchedRecord]>,
        sender: mpsc::Sender<ClusterEvent>,
        end: CancellationToken,
    ) -> StoreFuture<'static, ()> {
        let known = LeaderRecords::new(watched, &self.seal_secret);
        *self.watching.lock() = Some(WatchState { known, sender: sender.clone() });
        Box::pin(async move {
            tokio::select! {
                biased;
                () = end.cancelled() => {}
                () = self.follow(sender) => {}
            }
            // Whoever waits for sender learns that there will be none.
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
        let nodes = LeaderOptions {
            urls: vec!["http://a.test".to_owned(), "http://b.test".to_owned()],
            key: None,
            key_origin: None,
            ca_file: None,
            timeout_ms: 1_000,
            poll_every_ms: 1_000,
            node: "follower".into(),
        };
        let store = HttpStore {
            urls: nodes.urls.clone(),
            at: AtomicUsize::new(0),
            client: LeaderClient::with_resolver(&nodes, Arc::new(ExhaustedResolver)).unwrap(),
            wait: Duration::from_secs(1),
            seal_secret: Secret::new("s".into()),
            watching: Mutex::new(None),
            requests: Semaphore::new(REQUESTS_MAX),
        };
        let (sender, mut told) = mpsc::channel(1);
        let told = tokio::select! {
            () = store.follow(sender) => panic!("it ends"),
            told = told.recv() => told,
        };
        let Some(ClusterEvent::Reachable(Err(fault))) = told else { panic!("something else is told") };
        assert!(fault.text.starts_with("at http://a.test cannot be asked"), "{}", fault.text);
        assert_eq!(fault.advice, descriptors::REMEDY);
        assert_eq!(store.at.load(Relaxed), 0);
    }
}
