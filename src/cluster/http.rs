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

mod known;
mod link;
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
use super::{Answer, Asked, Moment, News, Op, Shared, Unreachable, Verdict, Watched, Why};
use crate::clock::{self, BootMs, Repeated};
use crate::https::TlsFault;
use crate::secret::Secret;
use known::{Known, Told};
use link::{Fault, Link};
use page::Page;

/// A wish and what comes of it may take so long.
const WISH_MAX: Duration = Duration::from_secs(20);
/// Wishes under way; more wait for their turn.
const WISHES_MAX: usize = 16;
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
pub enum BuildError {
    #[error("state.upstream_ca_file {path}: {reason}")]
    CaFile { path: PathBuf, reason: String },
    #[error("{0}")]
    Tls(String),
}

impl BuildError {
    fn of(fault: TlsFault, nodes: &LeaderOptions) -> BuildError {
        match (fault, &nodes.ca_file) {
            (TlsFault::CaFile(reason), Some(path)) => BuildError::CaFile { path: path.clone(), reason },
            (fault, _) => BuildError::Tls(fault.to_string()),
        }
    }
}

/// The store that another node is.
pub struct HttpStore {
    urls: Vec<String>,
    /// Which of them is followed, or tried.
    at: AtomicUsize,
    link: Link,
    wait: Duration,
    seal_secret: Secret,
    /// Since [`Shared::watch`] was called.
    watching: Mutex<Option<Watching>>,
    wishes: Semaphore,
}

/// What is watched, and who hears of it.
struct Watching {
    known: Known,
    news: mpsc::Sender<News>,
}

/// What is said of a node that is left for another.
const CUT_OFF: Fault = Fault::of(
    "has not heard from a node that renews for minutes",
    "see what that node follows, and whether the network lets it through",
);
/// What is said of a store whose watching has not begun.
const NOT_YET: &str = "has not been asked yet";

impl HttpStore {
    /// Reads `ca_file`; connects nowhere. The secret seals what this process hands itself.
    pub fn new(nodes: &LeaderOptions, seal_secret: Secret) -> Result<Arc<HttpStore>, BuildError> {
        Ok(Arc::new(HttpStore {
            urls: nodes.urls.iter().map(|url| url.trim_end_matches('/').to_owned()).collect(),
            at: AtomicUsize::new(0),
            link: Link::new(nodes)?,
            // The other node counts whole seconds.
            wait: Duration::from_secs(nodes.poll_every_ms.div_ceil(1000).clamp(1, 60)),
            seal_secret,
            watching: Mutex::new(None),
            wishes: Semaphore::new(WISHES_MAX),
        }))
    }

    /// Follows whichever node answers, until the end of it all.
    async fn follow(&self, news: mpsc::Sender<News>) {
        let (mut teller, mut log) = (Teller::new(news), Repeated::default());
        let (mut failed, mut pause): (Vec<(usize, Fault)>, _) = (Vec::new(), PAUSE_MIN);
        loop {
            let (at, begun) = (self.at.load(Relaxed), Instant::now());
            let Err(fault) = self.follow_one(at, &mut teller).await else { return };
            if begun.elapsed() >= WELL {
                (failed, pause) = (Vec::new(), PAUSE_MIN);
            }
            if fault.is_ours {
                if !teller.reachable(Err(self.all_failed(&[(at, fault)]))).await {
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
            teller.reachable(Err(self.all_failed(&std::mem::take(&mut failed)))).await;
            sleep(pause.mul_f64(0.5 + fastrand::f64() / 2.0)).await;
            pause = (2 * pause).min(PAUSE_MAX);
        }
    }

    /// Follows one node until that fails; `Ok` if nobody listens any more.
    async fn follow_one(&self, at: usize, teller: &mut Teller) -> Result<(), Fault> {
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
                self.with_known(Known::begin_listing);
            }
            pages = if page.more { pages + 1 } else { 0 };
            if pages >= PAGES_MAX {
                return Err(Fault::of("never ends telling what it has", "see whether it is a tokencached"));
            }
            let told = self.with_known(|known| known.take(&page, url, moment, listing, None)).unwrap_or_default();
            if !teller.seen(told).await {
                return Ok(());
            }
            if !page.more {
                if std::mem::take(&mut listing) && !self.listed(url, moment, std::mem::take(&mut first), teller).await {
                    return Ok(());
                }
                if !teller.complete(moment.sent_ms.saturating_sub(page.age_ms)).await {
                    return Ok(());
                }
                if self.urls.len() > 1 && page.age_ms >= CUT_OFF_MS {
                    return Err(CUT_OFF);
                }
                self.pace(begun.elapsed(), page.credentials.is_empty()).await;
            }
            let again = !page.more && Instant::now() >= list_again;
            after = Some(page.cursor).filter(|_| !again);
        }
    }

    /// Everything has been told: so nobody waits for what was not among it.
    async fn listed(&self, url: &str, moment: Moment, first: bool, teller: &mut Teller) -> bool {
        let missing = self.with_known(|known| {
            let missing: Vec<usize> = known.unlisted().collect();
            let one = missing.first().map(|index| known.watched(*index).clone());
            let told: Vec<Told> = missing.into_iter().map(|index| known.as_it_is(index, moment)).collect();
            (told, one)
        });
        let Some((told, one)) = missing else { return false };
        let count = told.len();
        if !teller.seen(told).await {
            return false;
        }
        let standing = match one {
            None => Ok(()),
            Some(Watched { app, kind, .. }) => {
                let others = if count > 1 { format!(" and {} others", count - 1) } else { String::new() };
                Err(Unreachable {
                    text: format!("at {url} does not show {kind} of {app}{others} to this node"),
                    advice: "configure it there too, and give this node's key the rights read and refresh for the app",
                    unknown: false,
                })
            }
        };
        if first {
            tracing::info!(url, missing = clock::some(count as u64), "follows another node");
        }
        teller.reachable(standing).await
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
    async fn ask_page(&self, url: &str, app: Option<&str>, after: Option<&str>) -> Result<(Page, Moment), Fault> {
        let wait = if after.is_some() { self.wait } else { Duration::ZERO };
        let wait_s = wait.as_secs().to_string();
        let mut query = vec![("wait_s", wait_s.as_str())];
        query.extend(after.map(|after| ("after", after)));
        query.extend(app.map(|app| ("app", app)));
        let sent_ms = clock::boot_ms();
        let body = self.link.get(&format!("{url}/v1/credentials"), &query, wait).await?;
        let received_ms = clock::boot_ms();
        let body = zeroize::Zeroizing::new(body);
        let page = Page::parse(&body, after)?;
        // What it waited for had passed before it read its clock.
        let sent_ms = sent_ms.saturating_add(page.waited_ms).min(received_ms);
        let moment = Moment { store_ms: page.now_ms, sent_ms, received_ms };
        Ok((page, moment))
    }

    /// Has the value looked into there, and brings what it is then.
    async fn look(&self, tag: &str, generation: Option<u64>, why: Why) -> Result<(), Unreachable> {
        let asked = self.with_known(|known| {
            let index = known.index(tag)?;
            Some((known.watched(index).clone(), known.live(index, clock::boot_ms())))
        });
        let Some((watched, live)) = asked.flatten() else { return Err(not_yet()) };
        let _turn = self.wishes.acquire().await;
        let body = Wish::of(generation, why, live);
        let mut last = not_yet();
        // The one that is followed first; another only if that one has not judged the request.
        let first = self.at.load(Relaxed);
        for turn in 0..self.urls.len() {
            let Some(url) = self.urls.get((first + turn) % self.urls.len()) else { break };
            match self.look_there(url, &watched, &body).await {
                Ok(()) => return Ok(()),
                Err(fault) => {
                    let refused = fault.refused.is_some() || fault.is_ours;
                    last = unreachable(url, fault);
                    if refused {
                        break;
                    }
                }
            }
        }
        Err(last)
    }

    async fn look_there(&self, url: &str, watched: &Watched, wish: &Wish) -> Result<(), Fault> {
        let looked = match wish {
            Wish::Overtaken => Ok(()),
            Wish::Probe => self.post(url, watched, "probe", String::new()).await,
            Wish::Refresh(body) => self.post(url, watched, "refresh", body.to_string()).await,
        };
        match looked {
            Err(fault) if fault.refused.is_none() => return Err(fault),
            _ => {}
        }
        let (page, moment) = self.ask_page(url, Some(&watched.app), None).await?;
        let told = self.with_watching(|watching| {
            let asked_for = watching.known.index(&watched.tag).filter(|_| matches!(wish, Wish::Refresh(_)));
            (watching.known.take(&page, url, moment, true, asked_for), Teller::new(watching.news.clone()))
        });
        if let Some((told, teller)) = told {
            teller.seen(told).await;
        }
        looked
    }

    async fn post(&self, url: &str, watched: &Watched, what: &str, body: String) -> Result<(), Fault> {
        let mut path = url::Url::parse(url).map_err(|_| Fault::of("is no address", "see upstream in [state]"))?;
        if let Ok(mut segments) = path.path_segments_mut() {
            segments.pop_if_empty().extend(["v1", "apps", &watched.app, "credentials", watched.kind, what]);
        }
        match self.link.post(path.as_str(), body, WISH_MAX).await {
            Ok(_) => Ok(()),
            // No call is known that tries a value of this kind.
            Err(fault) if fault.refused == Some(reqwest::StatusCode::CONFLICT) => Ok(()),
            Err(fault) => Err(fault),
        }
    }

    fn with_known<R>(&self, with: impl FnOnce(&mut Known) -> R) -> Option<R> {
        self.with_watching(|watching| with(&mut watching.known))
    }

    fn with_watching<R>(&self, with: impl FnOnce(&mut Watching) -> R) -> Option<R> {
        self.watching.lock().as_mut().map(with)
    }

    fn all_failed(&self, failed: &[(usize, Fault)]) -> Unreachable {
        let one = |(at, fault): &(usize, Fault)| Some(unreachable(self.urls.get(*at)?, fault.clone()));
        let each: Vec<Unreachable> = failed.iter().filter_map(one).collect();
        let advice = each.first().map_or("", |first| first.advice);
        let texts: Vec<&str> = each.iter().map(|one| one.text.as_str()).collect();
        Unreachable { text: texts.join("; "), advice, unknown: false }
    }
}

/// What is sent there for a wish.
enum Wish {
    /// By the value itself: the other node's count may be another.
    Refresh(zeroize::Zeroizing<String>),
    Probe,
    /// It is about an earlier value than the present one.
    Overtaken,
}

impl Wish {
    /// `live` is the value that lives here, with its generation. What is said of none is said of whatever is there.
    fn of(generation: Option<u64>, why: Why, live: Option<(u64, Secret)>) -> Wish {
        match live {
            // A rival's fetch may have killed the value or not: a trial tells.
            _ if matches!(why, Why::Tried | Why::Rival) => Wish::Probe,
            None => Wish::Refresh(String::new().into()),
            Some((ours, _)) if generation.is_some_and(|generation| generation != ours) => Wish::Overtaken,
            Some((_, token)) => Wish::Refresh(serde_json::json!({ "token": token.expose() }).to_string().into()),
        }
    }
}

fn unreachable(url: &str, fault: Fault) -> Unreachable {
    Unreachable { text: format!("at {url} {}", fault.text), advice: fault.advice, unknown: false }
}

fn not_yet() -> Unreachable {
    Unreachable { text: NOT_YET.to_owned(), advice: "wait a moment", unknown: false }
}

/// Tells the receiver; what is reachable only when that changes.
struct Teller {
    news: mpsc::Sender<News>,
    last: Option<Result<(), Unreachable>>,
}

impl Teller {
    fn new(news: mpsc::Sender<News>) -> Teller {
        Teller { news, last: None }
    }

    /// False if nobody listens any more.
    async fn seen(&self, told: Vec<Told>) -> bool {
        for (index, record, moment) in told {
            if self.news.send(News::Seen { index, record, moment }).await.is_err() {
                return false;
            }
        }
        true
    }

    /// All that is known there has been told, as of that instant.
    async fn complete(&self, as_of_ms: BootMs) -> bool {
        self.news.send(News::Complete { as_of_ms }).await.is_ok()
    }

    async fn reachable(&mut self, standing: Result<(), Unreachable>) -> bool {
        if standing.is_err() && self.last.as_ref() == Some(&standing) {
            return true;
        }
        self.last = Some(standing.clone());
        self.news.send(News::Reachable(standing)).await.is_ok()
    }
}

impl Shared for HttpStore {
    /// The last record heard of. What would change one is done by the node that is followed.
    fn ask<'a>(&'a self, tag: &'a str, op: Op) -> Asked<'a, Result<Answer, Unreachable>> {
        Box::pin(async move {
            if op != Op::Read {
                let text = "is another node's, and only followed here".to_owned();
                return Err(Unreachable { text, advice: "nothing: that node renews", unknown: false });
            }
            let last = self.with_known(|known| known.last(known.index(tag)?)).flatten();
            let (record, moment) = last.ok_or_else(not_yet)?;
            Ok(Answer { verdict: Verdict::Done, record, moment })
        })
    }

    fn wish<'a>(&'a self, tag: &'a str, generation: Option<u64>, why: Why) -> Asked<'a, Result<(), Unreachable>> {
        Box::pin(async move {
            match timeout(WISH_MAX, self.look(tag, generation, why)).await {
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
        watched: Arc<[Watched]>,
        news: mpsc::Sender<News>,
        end: CancellationToken,
    ) -> Asked<'static, ()> {
        let known = Known::new(watched, &self.seal_secret);
        *self.watching.lock() = Some(Watching { known, news: news.clone() });
        Box::pin(async move {
            tokio::select! {
                biased;
                () = end.cancelled() => {}
                () = self.follow(news) => {}
            }
            // Whoever waits for news learns that there will be none.
            *self.watching.lock() = None;
        })
    }

    fn leases(&self) -> bool {
        false
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::descriptors;

    /// A resolver that finds the process without a file descriptor.
    struct Exhausted;

    impl reqwest::dns::Resolve for Exhausted {
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
            link: Link::with_resolver(&nodes, Arc::new(Exhausted)).unwrap(),
            wait: Duration::from_secs(1),
            seal_secret: Secret::new("s".into()),
            watching: Mutex::new(None),
            wishes: Semaphore::new(WISHES_MAX),
        };
        let (sender, mut told) = mpsc::channel(1);
        let told = tokio::select! {
            () = store.follow(sender) => panic!("it ends"),
            told = told.recv() => told,
        };
        let Some(News::Reachable(Err(fault))) = told else { panic!("something else is told") };
        assert!(fault.text.starts_with("at http://a.test cannot be asked"), "{}", fault.text);
        assert_eq!(fault.advice, descriptors::REMEDY);
        assert_eq!(store.at.load(Relaxed), 0);
    }
}
