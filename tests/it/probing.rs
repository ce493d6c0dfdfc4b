//! How long a token is served that became invalid and that nobody has reported, and how long one that the site has
//! fetched itself. In virtual time.
//!
//! The server's own refresher runs on a paused clock. The platform is a few lines: a token for each app, classic or
//! stable, that can be revoked at any time, and a probe call.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Duration;

use bytes::Bytes;
use futures_util::future::BoxFuture;
use parking_lot::Mutex;
use tokencached::clock::{Clock, Now};
use tokencached::credential::App;
use tokencached::credential::adopt::{StoredBytes, TokenSource};
use tokencached::credential::state::{LoadedState, Snapshot, StateStore};
use tokencached::credential::table::{KeyReading, Table};
use tokencached::credential::{ClusterMembership, Env, build_in};
use tokencached::platform::ClientOptions;
use tokencached::platform::{CredentialType, FetchParams, Renewal, feishu, mp, qq, wecom};
use tokencached::platform::{Failure, LifetimeSource, Probe, Token, Upstream, UpstreamFuture};
use tokencached::secret::Secret;
use tokencached::secret_source::SecretSource;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::support::memory_store::MemoryStore;

const LIFE_MS: u64 = 7_200_000;
const MINUTE: u64 = 60_000;
const HOUR: u64 = 60 * MINUTE;
/// The time of a call.
const CALL: Duration = Duration::from_millis(100);
const START_MS: u64 = 1_000_000;

/// The clock of a paused runtime.
pub struct Paused(pub Instant);

impl Clock for Paused {
    fn now(&self) -> Now {
        let boot_ms = START_MS + self.0.elapsed().as_millis() as u64;
        Now { boot_ms, unix_ms: 1_800_000_000_000 + boot_ms as i64 }
    }
}

#[derive(Clone)]
struct Value {
    token: String,
    ends_ms: u64,
}

#[derive(Default)]
struct World {
    current: HashMap<String, Value>,
    /// Tokens that are refused before their expiry, and since when.
    dead: HashMap<String, u64>,
    minted: u64,
    fetches: u64,
    probes: HashMap<String, u64>,
    /// What probes answer instead.
    probes_come_to: Option<Lost>,
}

#[derive(Clone, Copy)]
enum Lost {
    /// No answer at all.
    Hanging,
    /// This errcode.
    Withheld(i64),
}

struct Platform {
    clock: Arc<Paused>,
    world: Mutex<World>,
    longest_dead_ms: AtomicU64,
}

impl Platform {
    fn kill(&self, appid: &str) {
        let (now_ms, mut world) = (self.clock.boot_ms(), self.world.lock());
        if let Some(value) = world.current.remove(appid) {
            world.dead.insert(value.token, now_ms);
        }
    }

    /// A client gets this value now.
    fn note_shown(&self, token: &str) {
        if let Some(since_ms) = self.world.lock().dead.get(token) {
            self.longest_dead_ms.fetch_max(self.clock.boot_ms().saturating_sub(*since_ms), Relaxed);
        }
    }

    fn refuses(&self, token: &str) -> bool {
        self.world.lock().dead.get(token).is_some_and(|since_ms| *since_ms <= self.clock.boot_ms())
    }

    /// Makes a new token; the present one is refused when the overlap is over.
    fn mint(&self, appid: &str) -> Value {
        let (now_ms, mut world) = (self.clock.boot_ms(), self.world.lock());
        world.minted += 1;
        // As long as WeChat's are.
        let value = Value { token: format!("{appid}_{:a>120}", world.minted), ends_ms: now_ms + LIFE_MS };
        world.dead.insert(value.token.clone(), value.ends_ms);
        if let Some(before) = world.current.insert(appid.to_owned(), value.clone()) {
            let end_ms = before.ends_ms.min(now_ms + 5 * MINUTE);
            world.dead.insert(before.token, end_ms);
        }
        value
    }

    fn take_longest_dead_ms(&self) -> u64 {
        self.longest_dead_ms.swap(0, Relaxed)
    }

    fn probes(&self, appid: &str) -> u64 {
        self.world.lock().probes.get(appid).copied().unwrap_or(0)
    }
}

impl Upstream for Platform {
    fn fetch<'a>(
        &'a self,
        kind: &'a CredentialType,
        ask: FetchParams<'a>,
        _: Duration,
    ) -> UpstreamFuture<'a, Result<Token, Failure>> {
        Box::pin(async move {
            tokio::time::sleep(CALL / 2).await;
            let (now_ms, appid) = (self.clock.boot_ms(), ask.appid.to_owned());
            let kept = {
                let mut world = self.world.lock();
                world.fetches += 1;
                let window_ms = match kind.renewal {
                    Renewal::Window { window_ms } => window_ms,
                    Renewal::Mint => LIFE_MS,
                    _ => 0,
                };
                world.current.get(&appid).filter(|value| value.ends_ms > now_ms + window_ms).cloned()
            };
            let value = kept.unwrap_or_else(|| self.mint(&appid));
            tokio::time::sleep(CALL / 2).await;
            let expires_in_s = (value.ends_ms - now_ms) / 1000;
            Ok(Token {
                value: Bytes::from(value.token),
                expires_in_s,
                lifetime_source: LifetimeSource::AsGiven,
                refresh: None,
            })
        })
    }

    fn probe<'a>(
        &'a self,
        _: &'a CredentialType,
        _: &'a str,
        value: &'a [u8],
        deadline: Duration,
    ) -> UpstreamFuture<'a, Probe> {
        Box::pin(async move {
            let token = String::from_utf8_lossy(value).into_owned();
            let lost = {
                let mut world = self.world.lock();
                let appid = token.split('_').next().unwrap_or_default().to_owned();
                *world.probes.entry(appid).or_default() += 1;
                world.probes_come_to
            };
            match lost {
                Some(Lost::Hanging) => {
                    tokio::time::sleep(deadline).await;
                    return Probe::Unknown;
                }
                Some(Lost::Withheld(errcode)) => return Probe::Withheld(errcode),
                None => tokio::time::sleep(CALL).await,
            }
            if self.refuses(&token) { Probe::Dead(40_001) } else { Probe::Alive }
        })
    }
}

/// A node with its own simulated platform.
struct Node {
    platform: Arc<Platform>,
    table: Arc<Table>,
    apps: Vec<String>,
    end: CancellationToken,
}

fn app(n: usize, kind: &'static CredentialType) -> App {
    App::mp(&format!("wx{n:016x}"), SecretSource::Fixed(Secret::new("secret".into())), kind)
}

fn platform() -> Arc<Platform> {
    let clock = Arc::new(Paused(Instant::now()));
    Arc::new(Platform { clock, world: Mutex::default(), longest_dead_ms: AtomicU64::new(0) })
}

fn upstream() -> ClientOptions {
    ClientOptions::at("https://api.weixin.qq.com".to_owned())
}

impl Node {
    fn start(apps: Vec<App>, upstream: &ClientOptions) -> Node {
        Node::join(&platform(), apps, upstream, None)
    }

    fn join(
        platform: &Arc<Platform>,
        apps: Vec<App>,
        upstream: &ClientOptions,
        joined: Option<ClusterMembership>,
    ) -> Node {
        Node::with(platform, apps, upstream, joined, None, None)
    }

    fn with(
        platform: &Arc<Platform>,
        apps: Vec<App>,
        upstream: &ClientOptions,
        joined: Option<ClusterMembership>,
        disk: Option<&Disk>,
        site: Option<&Site>,
    ) -> Node {
        let ground = Env {
            upstream: platform.clone(),
            clock: platform.clock.clone(),
            boot_id: "this boot".to_owned(),
            store: disk.map(|disk| Arc::new(disk.clone()) as Arc<dyn StateStore>),
            cluster: joined,
        };
        let (table, mut refresher) = build_in(ground, upstream, &apps);
        if let Some(site) = site {
            refresher.adopt_from(0, Arc::new(site.clone()));
        }
        let end = CancellationToken::new();
        tokio::spawn(refresher.run(end.clone()));
        let apps = apps.iter().map(|app| app.appid.clone()).collect();
        Node { platform: platform.clone(), table, apps, end }
    }

    fn get(&self, appid: &str) -> Option<String> {
        let names = self.table.names();
        let name = names.find(format!("access_token:{appid}").as_bytes())?;
        name.read(self.platform.clock.now(), |found| match found {
            KeyReading::Bytes(value) => {
                let mut out = Vec::new();
                value.rendered.write(&mut out, &value.times);
                String::from_utf8(out).ok()
            }
            _ => None,
        })
    }

    /// Runs for a time: these are read regularly, and at random times one of their tokens is revoked.
    async fn live(&self, read: &[String], every_ms: u64, kills: u64, long_ms: u64) {
        let (end_ms, mut rng) = (self.platform.clock.boot_ms() + long_ms, fastrand::Rng::with_seed(7));
        while self.platform.clock.boot_ms() < end_ms {
            for appid in read {
                if let Some(token) = self.get(appid) {
                    self.platform.note_shown(&token);
                }
                if rng.u64(0..long_ms / every_ms * read.len() as u64) < kills {
                    self.platform.kill(appid);
                }
            }
            tokio::time::sleep(Duration::from_millis(every_ms)).await;
        }
    }

    fn status(&self, n: usize) -> tokencached::credential::table::CredentialStatus {
        self.table.credentials()[n].status(self.platform.clock.boot_ms())
    }
}

/// Where the site keeps its token, and the expiry that its script has stored.
#[derive(Clone, Default)]
struct Site(Arc<Mutex<String>>);

impl TokenSource for Site {
    fn place(&self) -> String {
        "the site's file".to_owned()
    }

    fn read(&self) -> BoxFuture<'_, Result<Vec<StoredBytes>, String>> {
        let text = self.0.lock().clone();
        let stored = vec![StoredBytes { bytes: text.into_bytes(), ..StoredBytes::default() }];
        Box::pin(async move { if stored[0].bytes.is_empty() { Err("it is gone".to_owned()) } else { Ok(stored) } })
    }
}

#[derive(Clone, Default)]
struct Disk(Arc<Mutex<Option<Snapshot>>>);

impl StateStore for Disk {
    fn load(&self) -> LoadedState {
        self.0.lock().clone().map_or(LoadedState::Empty, LoadedState::Found)
    }

    fn save(&self, snapshot: &Snapshot) -> std::io::Result<()> {
        *self.0.lock() = Some(snapshot.clone());
        Ok(())
    }

    fn blocks(&self) -> bool {
        false
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        self.end.cancel();
    }
}

fn in_virtual_time(scenario: impl Future<Output = ()>) {
    fastrand::seed(1);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build().unwrap();
    runtime.block_on(scenario);
}

fn never_probed(app: App) -> App {
    App { probe_every_ms: Some(0), ..app }
}

#[test]
fn a_dead_token_is_served_for_five_minutes_at_most() {
    in_virtual_time(async {
        for kind in [&mp::STABLE, &mp::CLASSIC] {
            let node = Node::start(vec![app(1, kind)], &upstream());
            node.live(&node.apps, 2_000, 100, 3 * 24 * HOUR).await;
            let longest_ms = node.platform.take_longest_dead_ms();
            println!("{}: a dead token was served for {longest_ms} ms at most", kind.id);
            assert!((200_000..=5 * MINUTE + 1_000).contains(&longest_ms), "{}: {longest_ms} ms", kind.id);
            let a_day = node.platform.probes(&node.apps[0]) / 3;
            assert!((270..=300).contains(&a_day), "{a_day} probes a day");
        }
    });
}

#[test]
fn without_probing_a_dead_token_is_served_until_its_time_is_over() {
    in_virtual_time(async {
        let node = Node::start(vec![never_probed(app(1, &mp::STABLE))], &upstream());
        node.live(&node.apps, 2_000, 100, 3 * 24 * HOUR).await;
        let longest_ms = node.platform.take_longest_dead_ms();
        println!("without probing a dead token was served for {longest_ms} ms");
        assert!(longest_ms > 90 * MINUTE, "{longest_ms} ms");
        assert_eq!(node.platform.probes(&node.apps[0]), 0);
    });
}

#[test]
fn of_ten_thousand_apps_a_dead_token_is_served_for_ninety_minutes_at_most_and_far_less_if_few_are_in_use() {
    in_virtual_time(async {
        let apps: Vec<App> = (0..10_000).map(|n| app(n, &mp::STABLE)).collect();
        let node = Node::start(apps, &upstream());
        node.live(&node.apps, 60_000, 2_000, 3 * HOUR).await;
        let longest_ms = node.platform.take_longest_dead_ms();
        let probes: u64 = node.platform.world.lock().probes.values().sum();
        println!("10,000 apps, all in use: {longest_ms} ms at most, {probes} probes in 3 hours");
        assert!((40 * MINUTE..90 * MINUTE).contains(&longest_ms), "{longest_ms} ms");
        assert!(probes <= 2 * 3 * 3_600 + 2_000, "{probes}: two a second, and one for each that was dead");

        // From now on only these are read.
        let few: Vec<String> = node.apps.iter().take(500).cloned().collect();
        node.live(&few, 60_000, 0, HOUR / 2).await;
        node.platform.take_longest_dead_ms();
        node.live(&few, 60_000, 300, HOUR).await;
        let longest_ms = node.platform.take_longest_dead_ms();
        println!("10,000 apps, 500 of them in use: {longest_ms} ms at most");
        assert!(longest_ms < 10 * MINUTE, "{longest_ms} ms");
    });
}

#[test]
#[ignore = "waits for real time"]
fn a_probe_that_is_not_answered_says_nothing_and_holds_up_no_renewal() {
    in_virtual_time(async {
        let upstream = ClientOptions { concurrency: 1, ..upstream() };
        let node = Node::start((0..50).map(|n| app(n, &mp::CLASSIC)).collect(), &upstream);
        tokio::time::sleep(Duration::from_secs(30)).await;
        node.platform.world.lock().probes_come_to = Some(Lost::Hanging);
        let fetches = node.platform.world.lock().fetches;
        for _ in 0..6 * 3_600 {
            tokio::time::sleep(Duration::from_secs(1)).await;
            assert!(node.apps.iter().all(|appid| node.get(appid).is_some()), "a token was taken away");
        }
        assert!(node.platform.probes(&node.apps[7]) > 30, "it was tried all the same");
        let fetches = node.platform.world.lock().fetches - fetches;
        assert!(fetches <= 50 * 6, "{fetches} fetches of 50 apps in 6 hours");
        let status = node.status(7);
        assert_eq!((status.early_deaths, status.failures, status.checks), (0, 0, 0));
    });
}

#[test]
fn a_probe_whose_quota_is_used_up_says_nothing_and_is_made_less_often() {
    in_virtual_time(async {
        let node = Node::start(vec![app(1, &mp::CLASSIC)], &upstream());
        node.platform.world.lock().probes_come_to = Some(Lost::Withheld(45_009));
        tokio::time::sleep(Duration::from_millis(24 * HOUR)).await;
        let probes = node.platform.probes(&node.apps[0]);
        assert!((24..=30).contains(&probes), "{probes} probes a day");
        assert!(node.get(&node.apps[0]).is_some());
        assert_eq!((node.status(0).early_deaths, node.status(0).failures), (0, 0));
        node.platform.world.lock().probes_come_to = None;
        tokio::time::sleep(Duration::from_millis(2 * HOUR)).await;
        let before = node.platform.probes(&node.apps[0]);
        tokio::time::sleep(Duration::from_millis(HOUR)).await;
        assert_eq!(node.platform.probes(&node.apps[0]) - before, 12, "again every five minutes");
    });
}

#[test]
fn probes_are_counted_apart_and_stay_below_a_third_of_their_quota() {
    in_virtual_time(async {
        let node = Node::start(vec![app(1, &mp::STABLE)], &upstream());
        // Until a while before midnight in UTC+8.
        let day_ms = 24 * HOUR;
        let into_day_ms = (node.platform.clock.unix_ms() as u64 + 8 * HOUR) % day_ms;
        tokio::time::sleep(Duration::from_millis(2 * day_ms - into_day_ms - MINUTE)).await;
        let status = node.status(0);
        assert!((285..=290).contains(&status.probes_today), "{}", status.probes_today);
        assert_eq!(status.probes, node.platform.probes(&node.apps[0]));
        assert_eq!(status.calls, status.probes + node.platform.world.lock().fetches);
        assert!(status.calls_today < 40, "{} calls of the endpoint", status.calls_today);
        assert_eq!(status.checks, 0, "nobody doubted it");
        assert!(status.next_probe_boot_ms.is_some_and(|at_ms| at_ms > node.platform.clock.boot_ms()));
        // Probes because of clients count too; then the regular ones stop.
        for _ in 0..200 {
            drop(node.table.ask_probe(&node.table.credentials()[0]));
            tokio::time::sleep(Duration::from_millis(31_000)).await;
        }
        tokio::time::sleep(Duration::from_millis(22 * HOUR - 200 * 31_000)).await;
        assert_eq!(node.status(0).probes_today, 333);
    });
}

#[test]
fn qq_and_feishu_are_never_probed_and_wecom_is() {
    in_virtual_time(async {
        let apps = vec![app(0, &qq::TOKEN), app(1, &feishu::TOKEN), app(2, &wecom::TOKEN)];
        let node = Node::start(apps, &upstream());
        tokio::time::sleep(Duration::from_millis(HOUR)).await;
        let probes: Vec<u64> = node.apps.iter().map(|appid| node.platform.probes(appid)).collect();
        assert_eq!((probes[0], probes[1]), (0, 0));
        assert!((11..=12).contains(&probes[2]), "{probes:?}");
    });
}

#[test]
fn of_several_nodes_the_one_that_renews_probes() {
    in_virtual_time(async {
        let platform = platform();
        let store = MemoryStore::new(platform.clock.clone());
        let nodes: Vec<Node> = (1..=3)
            .map(|node| {
                let joined = ClusterMembership {
                    shared: store.clone(),
                    secret: Secret::new("sealed with this".into()),
                    name: format!("node-{node}"),
                    node,
                };
                Node::join(&platform, vec![app(1, &mp::CLASSIC)], &upstream(), Some(joined))
            })
            .collect();
        tokio::time::sleep(Duration::from_millis(12 * HOUR)).await;
        let appid = &nodes[0].apps[0];
        assert!(nodes.iter().all(|node| node.get(appid).is_some()));
        let probes = platform.probes(appid);
        assert!((100..=150).contains(&probes), "{probes} probes of all nodes in 12 hours");
    });
}

#[test]
fn no_reading_of_the_table_that_no_client_does_counts_as_use() {
    in_virtual_time(async {
        let node = Node::start(vec![app(1, &mp::STABLE)], &upstream());
        tokio::time::sleep(Duration::from_secs(5)).await;
        let credential = node.table.credentials()[0].clone();
        let now = node.platform.clock.now();
        drop((credential.read(now.boot_ms), credential.published(), credential.status(now.boot_ms)));
        assert!(!credential.take_read());
        assert!(node.get(&node.apps[0]).is_some());
        assert!(credential.take_read());
        assert!(!credential.take_read());
        credential.record_distant_readers();
        assert!(credential.take_read() && credential.take_read());
    });
}

/// A script has fetched 20 minutes ago and uses its token for its own 7000 s, then fetches again. Our node starts
/// meanwhile. Returns how many calls of the script are refused before that, and our own fetches.
async fn move_beside_a_script(adopts: bool) -> (u64, u64) {
    let (platform, site) = (platform(), Site::default());
    let held = platform.mint(&app(1, &mp::CLASSIC).appid).token;
    let expires_s = platform.clock.unix_ms() / 1000 + 7_000;
    *site.0.lock() = format!("<?php exit();?>{{\"access_token\":\"{held}\",\"expire_time\":{expires_s}}}");
    tokio::time::sleep(Duration::from_millis(20 * MINUTE)).await;
    let source = adopts.then_some(&site);
    let node = Node::with(&platform, vec![app(1, &mp::CLASSIC)], &upstream(), None, None, source);
    let mut refused = 0;
    while platform.clock.unix_ms() / 1000 < expires_s {
        tokio::time::sleep(Duration::from_secs(1)).await;
        refused += u64::from(platform.refuses(&held));
        let ours = node.get(&node.apps[0]).expect("a token at any time");
        assert!(!platform.refuses(&ours), "what is served here is refused");
        assert!(!adopts || ours == held || expires_s - platform.clock.unix_ms() / 1000 < 300, "fetched too early");
    }
    assert_ne!(node.get(&node.apps[0]), Some(held), "our own by then");
    (refused, platform.world.lock().fetches)
}

#[test]
fn a_script_that_has_not_moved_meets_no_refused_call_when_our_node_adopts_its_token() {
    in_virtual_time(async {
        let (refused, fetches) = move_beside_a_script(false).await;
        assert!(refused > 3_600, "without adopt the script is refused for an hour: {refused} calls, {fetches} fetches");
        assert_eq!(move_beside_a_script(true).await, (0, 1));
    });
}

#[test]
fn an_adopted_token_of_unknown_age_is_served_while_it_is_accepted() {
    in_virtual_time(async {
        let (platform, site) = (platform(), Site::default());
        let appid = app(1, &mp::CLASSIC).appid;
        let held = platform.mint(&appid).token;
        *site.0.lock() = held.clone();
        tokio::time::sleep(Duration::from_millis(40 * MINUTE)).await;
        let node = Node::with(&platform, vec![app(1, &mp::CLASSIC)], &upstream(), None, None, Some(&site));
        let mut refused = 0;
        for _ in 0..100 * 60 {
            tokio::time::sleep(Duration::from_secs(1)).await;
            let ours = node.get(&appid).expect("a token at any time");
            refused += u64::from(platform.refuses(&ours));
        }
        // It ended 80 minutes after the start, which nobody could know.
        assert!(refused <= 31, "a dead token was served for {refused} s");
        assert_ne!(node.get(&appid), Some(held));
        assert_eq!(platform.world.lock().fetches, 1);
    });
}

#[test]
fn a_script_that_fetches_again_is_followed_for_as_long_as_nothing_was_fetched_here() {
    in_virtual_time(async {
        let (platform, site) = (platform(), Site::default());
        let appid = app(1, &mp::CLASSIC).appid;
        *site.0.lock() = platform.mint(&appid).token;
        let node = Node::with(&platform, vec![app(1, &mp::CLASSIC)], &upstream(), None, None, Some(&site));
        tokio::time::sleep(Duration::from_millis(10 * MINUTE)).await;
        let theirs = platform.mint(&appid).token;
        site.0.lock().clone_from(&theirs);
        tokio::time::sleep(Duration::from_millis(6 * MINUTE)).await;
        assert_eq!(node.get(&appid), Some(theirs.clone()), "theirs is taken over, not ended");
        assert!(!platform.refuses(&theirs));
        assert_eq!(platform.world.lock().fetches, 0);
    });
}

#[test]
fn what_cannot_be_adopted_is_fetched_as_ever() {
    in_virtual_time(async {
        let dead = |platform: &Platform| {
            let dead = platform.mint(&app(1, &mp::CLASSIC).appid).token;
            platform.kill(&app(1, &mp::CLASSIC).appid);
            dead
        };
        for what in ["gone", "no token here", "dead"] {
            let (platform, site) = (platform(), Site::default());
            *site.0.lock() = match what {
                "gone" => String::new(),
                "dead" => dead(&platform),
                text => text.to_owned(),
            };
            let node = Node::with(&platform, vec![app(1, &mp::CLASSIC)], &upstream(), None, None, Some(&site));
            tokio::time::sleep(Duration::from_secs(3)).await;
            let ours = node.get(&node.apps[0]).unwrap_or_else(|| panic!("{what}: no token"));
            assert!(!platform.refuses(&ours), "{what}");
            assert_eq!(platform.world.lock().fetches, 1, "{what}");
        }
    });
}

#[test]
fn an_adopted_token_is_ours_after_a_restart_and_the_site_is_not_asked_again() {
    in_virtual_time(async {
        let (platform, site, disk) = (platform(), Site::default(), Disk::default());
        let apps = || vec![app(1, &mp::CLASSIC)];
        let held = platform.mint(&apps()[0].appid).token;
        let expires_s = platform.clock.unix_ms() / 1000 + 6_000;
        *site.0.lock() = format!("{{\"access_token\":\"{held}\",\"expires_at\":{expires_s}}}");
        let node = Node::with(&platform, apps(), &upstream(), None, Some(&disk), Some(&site));
        tokio::time::sleep(Duration::from_millis(10 * MINUTE)).await;
        assert_eq!(node.get(&node.apps[0]), Some(held.clone()));
        assert_eq!((node.status(0).calls_today, node.status(0).failures), (0, 0));
        drop(node);
        tokio::time::sleep(Duration::from_secs(30)).await;
        *site.0.lock() = platform.mint("wx9999999999999999").token;
        let node = Node::with(&platform, apps(), &upstream(), None, Some(&disk), Some(&site));
        tokio::time::sleep(Duration::from_millis(70 * MINUTE)).await;
        assert_eq!(node.get(&node.apps[0]), Some(held), "to its end, as before");
        assert_eq!(platform.world.lock().fetches, 0);
        tokio::time::sleep(Duration::from_millis(30 * MINUTE)).await;
        assert!(node.get(&node.apps[0]).is_some_and(|ours| !platform.refuses(&ours)));
    });
}

#[test]
fn of_several_nodes_one_adopts_and_none_fetches() {
    in_virtual_time(async {
        let (platform, site) = (platform(), Site::default());
        let appid = app(1, &mp::CLASSIC).appid;
        let held = platform.mint(&appid).token;
        let expires_s = platform.clock.unix_ms() / 1000 + 7_000;
        *site.0.lock() = format!("{held} {expires_s}");
        let store = MemoryStore::new(platform.clock.clone());
        let nodes: Vec<Node> = (1..=3)
            .map(|node| {
                let secret = Secret::new("sealed with this".into());
                let joined = ClusterMembership { shared: store.clone(), secret, name: format!("node-{node}"), node };
                Node::with(&platform, vec![app(1, &mp::CLASSIC)], &upstream(), Some(joined), None, Some(&site))
            })
            .collect();
        tokio::time::sleep(Duration::from_millis(110 * MINUTE)).await;
        assert!(nodes.iter().all(|node| node.get(&appid) == Some(held.clone())));
        assert!(!platform.refuses(&held));
        assert_eq!(platform.world.lock().fetches, 0);
        tokio::time::sleep(Duration::from_millis(10 * MINUTE)).await;
        assert!(nodes.iter().all(|node| node.get(&appid).is_some_and(|ours| !platform.refuses(&ours))));
    });
}
