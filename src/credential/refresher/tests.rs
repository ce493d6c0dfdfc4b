//! The loop with its tasks, and apps that come and go, in virtual time. What needs real connections is in
//! `tests/it/refresher.rs`.

use std::sync::LazyLock;
use std::sync::atomic::Ordering;

use parking_lot::Mutex;
use tokio::task::JoinHandle;
use tokio::time::Instant;
use tracing::subscriber::NoSubscriber;

use super::scheduler::clock_jumped;
use super::*;
use crate::clock::{self, Now};
use crate::credential::actor::ActorLimits;
use crate::credential::facts::FailureClass;
use crate::credential::plan;
use crate::credential::state::FileStore;
use crate::credential::state::{LoadedState, Snapshot, StateStore};
use crate::credential::table::{Credential, CredentialState, CredentialStatus, KeyReading, Reading};
use crate::credential::{Adopt, Alias, App, Env, build_in};
use crate::platform::{
    ClientOptions, CredentialType, Failure, FetchParams, Probe, Token, UpstreamFuture, answer, component, mp,
};
use crate::sandbox::{AppOptions, Options, Sandbox};
use crate::secret::Secret;
use crate::secret_source::SecretSource;

/// The app of this name crashes its first fetch.
const CRASHING: &str = "wxcrash";

pub(super) fn panic_if_asked(appid: &str) {
    static CRASHED: std::sync::atomic::AtomicBool = std::sync::atomic::AtomicBool::new(false);
    assert!(appid != CRASHING || CRASHED.swap(true, Ordering::SeqCst), "crash asked for by a test");
}

#[tokio::test]
async fn a_crashed_fetch_is_a_failed_try_and_the_loop_goes_on() {
    let known = AppOptions { appid: CRASHING.into(), secret: "s".into(), ..AppOptions::default() };
    let sandbox = Sandbox::start(Options { apps: vec![known], ..Options::default() }).await.unwrap();
    let app = App::mp(CRASHING, SecretSource::Fixed(Secret::new("s".into())), &mp::STABLE);
    let upstream = ClientOptions { concurrency: 1, ..ClientOptions::at(sandbox.base_url()) };
    let (table, refresher) = build_in(Env::real(&upstream).unwrap(), &upstream, &[app]);
    let stop = CancellationToken::new();
    let running = tokio::spawn(refresher.run(stop.clone()));
    let credential = table.credentials()[0].clone();
    let mut changes = credential.subscribe();
    let live = || matches!(credential.read(clock::boot_ms()), Reading::Live(_));
    tokio::time::timeout(Duration::from_secs(20), async {
        while !live() {
            changes.changed().await.unwrap();
        }
    })
    .await
    .unwrap();
    assert_eq!(table.panics.load(Ordering::Relaxed), 1);
    assert_eq!(credential.status(clock::boot_ms()).failures, 1);
    stop.cancel();
    running.await.unwrap();
}

#[test]
fn a_suspend_shows_as_the_boot_clock_running_ahead() {
    let start = Instant::now();
    let later = |ms| start + Duration::from_millis(ms);
    assert!(!clock_jumped((1_000, start), (6_000, later(5_000))));
    assert!(!clock_jumped((1_000, start), (6_900, later(5_000))));
    assert!(clock_jumped((1_000, start), (10_806_000, later(5_000))), "three hours asleep");
    assert!(clock_jumped((10_000, start), (9_000, later(5_000))));
}

/// Its writes panic, on the task that asks for them.
struct Broken;

impl StateStore for Broken {
    fn load(&self) -> LoadedState {
        LoadedState::Empty
    }

    fn save(&self, _: &Snapshot) -> std::io::Result<()> {
        panic!("as a bug would")
    }

    fn blocks(&self) -> bool {
        false
    }
}

#[tokio::test]
async fn a_task_of_the_refreshers_that_dies_ends_the_server() {
    // A classic call is noted down before it is made.
    let app = App::mp("wx1", SecretSource::Fixed(Secret::new("s".into())), &mp::CLASSIC);
    let upstream = ClientOptions::at("http://127.0.0.1:1".into());
    let env = Env { store: Some(Arc::new(Broken)), ..Env::real(&upstream).unwrap() };
    let (_table, refresher) = build_in(env, &upstream, &[app]);
    let supervisor = Supervisor::new(CancellationToken::new());
    refresher.supervised_by(&supervisor).run(supervisor.shutdown().clone()).await;
    assert_eq!(supervisor.failed_part(), Some("the writer of the state file"));
}

#[tokio::test(start_paused = true)]
async fn tasks_that_hang_delay_the_end_together_and_not_one_after_another() {
    let mut tasks = RefresherTasks::new(None);
    for name in ["one", "another", "a third"] {
        tasks.start(name, |_| std::future::pending());
    }
    let begun = Instant::now();
    tasks.end().await;
    assert!(begun.elapsed() < FLUSH_WAIT + SECOND, "{:?}", begun.elapsed());
}

/// A platform without HTTP: each fetch makes the app's next token, unless the app's secret is wrong.
struct Mint {
    clock: Instant,
    calls: Mutex<Vec<String>>,
    /// How many calls run now, and the most that ran at once.
    running: Mutex<(usize, usize)>,
    call_takes: Duration,
    /// Only a forced fetch makes another token while the present one is good.
    is_stable: bool,
    /// Each app's present token.
    tokens: Mutex<HashMap<String, String>>,
    /// Tokens that are refused.
    dead: Mutex<Vec<String>>,
    /// What calls for this app are answered with instead, so many times; none: nothing ever.
    faults: Mutex<HashMap<String, (usize, Option<&'static str>)>>,
}

impl Clock for Mint {
    fn now(&self) -> Now {
        let since_ms = self.clock.elapsed().as_millis() as u64;
        Now { boot_ms: 1_000_000 + since_ms, unix_ms: 1_700_000_000_000 + since_ms as i64 }
    }
}

impl Upstream for Mint {
    fn fetch<'a>(
        &'a self,
        credential_type: &'a CredentialType,
        params: FetchParams<'a>,
        _: Duration,
    ) -> UpstreamFuture<'a, Result<Token, Failure>> {
        let name = format!("{} {}", credential_type.key, params.appid);
        let answer = match self.take_fault(params.appid) {
            Some(fault) => fault.map(str::to_owned),
            None if params.secret.expose().contains("wrong") => {
                Some(r#"{"errcode":40125,"errmsg":"invalid appsecret"}"#.to_owned())
            }
            None if credential_type.needs_token => {
                Some(r#"{"errcode":0,"ticket":"a-ticket","expires_in":7200}"#.to_owned())
            }
            None => {
                let token = self.next_token(params.appid, params.force);
                Some(format!(r#"{{"access_token":"{token}","expires_in":7200}}"#))
            }
        };
        self.calls.lock().push(name);
        Box::pin(async move {
            self.count_running(1);
            tokio::time::sleep(self.call_takes).await;
            let Some(answer) = answer else { return std::future::pending().await };
            self.count_running(-1);
            answer::read_token(credential_type, params.appid, &[], 200, answer.as_bytes())
        })
    }

    fn probe<'a>(
        &'a self,
        _: &'a CredentialType,
        _: &'a str,
        value: &'a [u8],
        _: Duration,
    ) -> UpstreamFuture<'a, Probe> {
        self.calls.lock().push("probe".to_owned());
        let is_dead = self.dead.lock().iter().any(|dead| dead.as_bytes() == value);
        Box::pin(async move { if is_dead { Probe::Dead(40001) } else { Probe::Alive } })
    }
}

/// Says what it was told to forget; it holds one item under `v1:token_wx2`.
struct Forgotten(Arc<Mutex<Vec<String>>>);

impl OrdinaryItems for Forgotten {
    fn forget(&self, key: &[u8]) {
        self.0.lock().push(String::from_utf8(key.to_vec()).unwrap());
    }

    fn forget_some(&self, cursor: u64, is_meant: &dyn Fn(&[u8]) -> bool) -> Option<u64> {
        [&b"v1:token_wx2"[..], b"another"].into_iter().filter(|key| is_meant(key)).for_each(|key| self.forget(key));
        (cursor < 2).then_some(cursor + 1)
    }
}

impl Mint {
    fn new() -> Mint {
        Mint {
            clock: Instant::now(),
            calls: Mutex::default(),
            running: Mutex::default(),
            call_takes: Duration::from_millis(50),
            is_stable: false,
            tokens: Mutex::default(),
            dead: Mutex::default(),
            faults: Mutex::default(),
        }
    }

    fn stable() -> Mint {
        Mint { is_stable: true, ..Mint::new() }
    }

    fn next_token(&self, appid: &str, is_forced: bool) -> String {
        let new = format!("{appid}-{}", self.calls.lock().len());
        let mut tokens = self.tokens.lock();
        let present = tokens.entry(appid.to_owned()).or_insert_with(|| new.clone());
        if is_forced || !self.is_stable {
            *present = new;
        }
        present.clone()
    }

    fn set_fault(&self, appid: &str, times: usize, answer: Option<&'static str>) {
        self.faults.lock().insert(appid.to_owned(), (times, answer));
    }

    fn take_fault(&self, appid: &str) -> Option<Option<&'static str>> {
        let mut faults = self.faults.lock();
        let (times, answer) = faults.get_mut(appid).filter(|(times, _)| *times > 0)?;
        *times -= 1;
        Some(*answer)
    }

    /// The app's present token is refused from now on, and is still answered.
    fn refuse(&self, appid: &str) {
        self.dead.lock().extend(self.tokens.lock().get(appid).cloned());
    }

    /// The same, and the next call makes another one.
    fn end_token(&self, appid: &str) {
        self.refuse(appid);
        self.tokens.lock().remove(appid);
    }

    fn is_accepted(&self, token: &str) -> bool {
        self.tokens.lock().values().any(|present| present == token)
            && !self.dead.lock().iter().any(|dead| dead == token)
    }

    fn count_running(&self, more: isize) {
        let mut running = self.running.lock();
        running.0 = running.0.saturating_add_signed(more);
        running.1 = running.1.max(running.0);
    }
}

/// A running refresher on such a platform, in virtual time.
struct Running {
    platform: Arc<Mint>,
    table: Arc<Table>,
    /// Ordinary items that were forgotten.
    forgotten: Arc<Mutex<Vec<String>>>,
    control: AppControl,
    stop: CancellationToken,
    task: JoinHandle<()>,
}

impl Running {
    fn start(apps: &[App]) -> Running {
        Running::on(Mint::new(), apps)
    }

    fn on(platform: Mint, apps: &[App]) -> Running {
        Running::with(Arc::new(platform), options(), None, apps)
    }

    fn with(platform: Arc<Mint>, options: ClientOptions, store: Option<Arc<dyn StateStore>>, apps: &[App]) -> Running {
        let (upstream, clock) = (platform.clone(), platform.clone());
        let env = Env { upstream, clock, boot_id: "this boot".to_owned(), store, cluster: None };
        let (table, refresher) = build_in(env, &options, apps);
        let forgotten = Arc::new(Mutex::default());
        let refresher = refresher.with_ordinary_items(Arc::new(Forgotten(forgotten.clone())));
        let (control, stop) = (refresher.app_control(), CancellationToken::new());
        let task = tokio::spawn(refresher.run(stop.clone()));
        Running { platform, table, forgotten, control, stop, task }
    }

    fn calls(&self, name: &str) -> usize {
        self.platform.calls.lock().iter().filter(|call| *call == name).count()
    }

    fn credential(&self) -> Arc<Credential> {
        self.table.credentials()[0].clone()
    }

    fn status(&self) -> CredentialStatus {
        self.credential().status(self.platform.boot_ms())
    }

    /// The value of the first app.
    fn token(&self) -> Option<String> {
        self.value(&self.credential())
    }

    fn all_calls(&self) -> usize {
        self.platform.calls.lock().len()
    }

    /// Waits for a condition, 40 s at most.
    async fn until(&self, what: &str, mut holds: impl FnMut() -> bool) {
        for _ in 0..40_000 {
            if holds() {
                return;
            }
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        panic!("never came: {what}");
    }

    async fn live(&self) -> String {
        self.until("a value", || self.token().is_some()).await;
        self.token().unwrap()
    }

    /// Reports the value as a client's `delete` does. Returns when the verification is over.
    async fn report(&self, credential: &Credential) {
        self.table.report_refused(credential, None).expect("room for a report").await.unwrap();
    }

    fn value(&self, credential: &Credential) -> Option<String> {
        match credential.read(self.platform.boot_ms()) {
            Reading::Live(guard) => Some(String::from_utf8(guard.as_ref()?.value.to_vec()).unwrap()),
            Reading::FirstFetch | Reading::Absent => None,
        }
    }

    /// What a client gets; none if the key is not managed.
    fn get(&self, key: &str) -> Option<Option<String>> {
        let names = self.table.names();
        let key = names.find(key.as_bytes())?;
        Some(key.read(self.platform.now(), |found| match found {
            KeyReading::Bytes(value) => {
                let mut out = Vec::new();
                value.rendered.write(&mut out, &value.times);
                Some(String::from_utf8(out).unwrap())
            }
            KeyReading::FirstFetch | KeyReading::Absent | KeyReading::Nothing => None,
        }))
    }

    async fn stop(self) {
        self.stop.cancel();
        self.task.await.unwrap();
    }
}

fn app(appid: &str, secret: &str) -> App {
    App::mp(appid, SecretSource::Fixed(Secret::new(secret.into())), &mp::STABLE)
}

/// For tests that count every call.
fn without_probes(appid: &str) -> App {
    App { probe_every_ms: Some(0), ..app(appid, "s") }
}

fn options() -> ClientOptions {
    ClientOptions::at("http://127.0.0.1:1".into())
}

const HOUR: Duration = Duration::from_secs(3_600);
const SECOND: Duration = Duration::from_secs(1);

#[tokio::test(start_paused = true)]
async fn an_app_that_is_added_is_kept_current_and_one_that_is_removed_is_not() {
    let running = Running::start(&[app("wx1", "s")]);
    let with_ticket = App { tickets: vec![&mp::JSAPI], ..app("wx2", "s") };
    let added = running.control.put(with_ticket).await.unwrap();
    assert_eq!(added.len(), 2);
    assert!(matches!(added[0].read(running.platform.boot_ms()), Reading::FirstFetch));
    tokio::time::sleep(SECOND).await;
    assert!(running.value(&added[0]).is_some() && running.value(&added[1]).is_some());
    assert_eq!((running.calls("access_token wx2"), running.calls("jsapi_ticket wx2")), (1, 1));
    tokio::time::sleep(3 * HOUR).await;
    let calls = running.calls("access_token wx2");
    assert!(calls >= 2, "renewed {calls} times");
    assert_eq!(running.control.remove("wx2").await, Ok(2));
    assert_eq!(running.control.remove("wx2").await, Ok(0));
    let others = running.calls("access_token wx1");
    tokio::time::sleep(9 * HOUR).await;
    assert_eq!(running.calls("access_token wx2"), calls);
    assert!(running.calls("access_token wx1") > others, "the other app goes on");
    running.stop().await;
}

#[tokio::test(start_paused = true)]
async fn an_app_that_is_changed_keeps_its_value_and_a_new_secret_is_used_at_once() {
    let running = Running::start(&[app("wx1", "s")]);
    let added = running.control.put(app("wx2", "wrong")).await.unwrap();
    tokio::time::sleep(SECOND).await;
    assert_eq!(added[0].status(0).state, CredentialState::Blocked);
    let changed = running.control.put(app("wx2", "s")).await.unwrap();
    assert!(Arc::ptr_eq(&added[0], &changed[0]), "it is the same credential");
    tokio::time::sleep(SECOND).await;
    let value = running.value(&added[0]).expect("a value");
    let (quota, tickets) = (Some(77), vec![&mp::JSAPI]);
    let changed = running.control.put(App { daily_quota: quota, tickets, ..app("wx2", "s") }).await.unwrap();
    tokio::time::sleep(SECOND).await;
    assert_eq!((changed.len(), running.value(&changed[0])), (2, Some(value)));
    assert_eq!((running.calls("access_token wx2"), changed[0].status(0).calls_quota), (2, quota));
    assert!(running.value(&changed[1]).is_some(), "the ticket that it has now");
    let changed = running.control.put(app("wx2", "s")).await.unwrap();
    assert_eq!(changed.len(), 1, "and has no longer");
    // With another endpoint it is another credential.
    let classic = App { token: &mp::CLASSIC, ..app("wx2", "s") };
    let changed = running.control.put(classic).await.unwrap();
    assert!(!Arc::ptr_eq(&added[0], &changed[0]));
    running.stop().await;
}

#[tokio::test(start_paused = true)]
async fn a_client_that_waits_for_a_removed_app_gets_its_answer() {
    let running = Running::start(&[]);
    let added = running.control.put(app("wx1", "s")).await.unwrap();
    let mut changes = added[0].subscribe();
    running.control.remove("wx1").await.unwrap();
    tokio::time::timeout(HOUR, changes.changed()).await.unwrap().unwrap();
    assert!(matches!(added[0].read(running.platform.boot_ms()), Reading::Absent));
    running.stop().await;
}

#[tokio::test(start_paused = true)]
async fn a_watch_on_the_secret_file_of_an_added_app_does_not_hold_up_the_end() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("secret");
    std::fs::write(&path, "s").unwrap();
    let running = Running::start(&[]);
    let added = running.control.put(App::mp("wx1", SecretSource::file(path), &mp::STABLE)).await.unwrap();
    tokio::time::sleep(SECOND).await;
    assert!(running.value(&added[0]).is_some());
    tokio::time::timeout(20 * SECOND, running.stop()).await.unwrap();
}

/// The answer to the first call could otherwise be the token that is current, and nobody would have it.
#[tokio::test(start_paused = true)]
async fn a_classic_app_that_is_put_anew_waits_for_the_end_of_its_earlier_call() {
    let classic =
        |base_url: Option<&str>| App { token: &mp::CLASSIC, base_url: base_url.map(str::to_owned), ..app("wx1", "s") };
    let running = Running::start(&[]);
    running.control.put(classic(None)).await.unwrap();
    tokio::time::sleep(SECOND / 100).await;
    running.control.remove("wx1").await.unwrap();
    running.control.put(classic(None)).await.unwrap();
    let added = running.control.put(classic(Some("http://127.0.0.1:2"))).await.unwrap();
    // Nor does an operator's request start one before.
    let refreshed = running.table.ask_refresh(&added[0], None).unwrap();
    tokio::time::timeout(SECOND, refreshed).await.unwrap().unwrap();
    assert_eq!(running.value(&added[0]).as_deref(), Some("wx1-1"));
    assert_eq!((running.calls("access_token wx1"), running.platform.running.lock().1), (2, 1));
    running.stop().await;
}

#[test]
fn a_secret_file_is_watched_once_for_all_that_it_is_for_and_not_longer() {
    let ((watch, mut watched), (reads, mut read)) = (mpsc::unbounded_channel(), mpsc::unbounded_channel());
    let mut files = SecretFiles::new(watch, reads);
    let shared = App::mp("wx1", SecretSource::file("/nowhere/secret"), &mp::STABLE);
    let plan = plan::plans(&ClientOptions::at("http://127.0.0.1:1".into()), &[shared]).remove(0);
    let actor = Actor::new(plan, None, ActorLimits { total_timeout_ms: 8_000, keeps_state: false });
    files.follow(1, &actor);
    files.follow(2, &actor);
    let (first, mut second) = (watched.try_recv().unwrap(), watched.try_recv().unwrap());
    assert!(first.is_over() && !second.is_over());
    second.apply(&[b"s".to_vec().into()], false).unwrap();
    assert_eq!(read.try_recv().unwrap().ids, [1, 2]);
    files.unfollow(1, &actor.plan.secret);
    second.apply(&[b"s".to_vec().into()], false).unwrap();
    assert_eq!(read.try_recv().unwrap().ids, [2]);
    files.unfollow(2, &actor.plan.secret);
    assert!(second.is_over());
}

#[tokio::test(start_paused = true)]
async fn an_added_or_changed_app_gets_what_is_put_into_its_secret_file() {
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name);
    let with = |name: &str| App::mp("wx1", SecretSource::file(path(name)), &mp::STABLE);
    std::fs::write(path("a"), "wrong").unwrap();
    std::fs::write(path("b"), "wrong").unwrap();
    let running = Running::start(&[]);
    let added = running.control.put(with("a")).await.unwrap();
    tokio::time::sleep(5 * SECOND).await;
    running.control.put(with("b")).await.unwrap();
    tokio::time::sleep(5 * SECOND).await;
    assert_eq!((running.calls("access_token wx1"), added[0].status(0).state), (1, CredentialState::Blocked));
    std::fs::write(path("a"), "another").unwrap();
    tokio::time::sleep(5 * SECOND).await;
    assert_eq!(running.calls("access_token wx1"), 1, "that is not its file any more");
    std::fs::write(path("b"), "s").unwrap();
    tokio::time::sleep(5 * SECOND).await;
    assert!(running.value(&added[0]).is_some());
    running.stop().await;
}

#[tokio::test(start_paused = true)]
async fn what_cannot_be_changed_while_it_runs_is_refused_with_the_reason() {
    let running = Running::start(&[app("wx1", "s")]);
    let orphan = App { component: Some("wxc".into()), token: &component::AUTHORIZER, ..app("wx2", "s") };
    assert_eq!(running.control.put(orphan).await.err(), Some(ChangeRefused::NoComponent));
    let component = App { token: &component::COMPONENT, ..app("wxc", "s") };
    assert_eq!(running.control.put(component).await.err(), Some(ChangeRefused::IsComponent));
    let control = running.control.clone();
    running.stop().await;
    assert_eq!(control.remove("wx1").await, Err(ChangeRefused::Ending));
}

#[tokio::test(start_paused = true)]
async fn keys_of_a_removed_app_refuse_writes_for_a_minute_and_old_items_do_not_come_back() {
    let running = Running::start(&[app("wx1", "s")]);
    let aliases = vec![Alias::raw("{any}:token_wx2"), Alias::raw("token:wx2")];
    running.control.put(App { aliases, ..app("wx2", "s") }).await.unwrap();
    assert_eq!(running.get("access_token:wx2"), Some(None), "managed before there is a value");
    tokio::time::sleep(SECOND).await;
    let value = running.get("access_token:wx2").flatten();
    assert!(value.is_some() && running.get("token:wx2") == Some(value.clone()));
    assert_eq!(running.get("v1:token_wx2"), Some(value.clone()));
    // One alias is taken away.
    let aliases = vec![Alias::raw("{any}:token_wx2")];
    running.control.put(App { aliases, ..app("wx2", "s") }).await.unwrap();
    assert_eq!((running.get("token:wx2"), running.get("access_token:wx2")), (Some(None), Some(value)));
    tokio::time::sleep(61 * SECOND).await;
    assert_eq!((running.get("token:wx2"), running.forgotten.lock().join(" ")), (None, "token:wx2".to_owned()));
    // Then the app.
    running.control.remove("wx2").await.unwrap();
    tokio::time::sleep(59 * SECOND).await;
    assert_eq!((running.get("access_token:wx2"), running.get("v1:token_wx2")), (Some(None), Some(None)));
    assert_eq!(running.forgotten.lock().len(), 1);
    tokio::time::sleep(2 * SECOND).await;
    assert_eq!((running.get("access_token:wx2"), running.get("v1:token_wx2")), (None, None));
    let forgotten = running.forgotten.lock().split_off(1);
    assert_eq!(forgotten[0], "access_token:wx2");
    assert!(forgotten[1..].iter().all(|key| key == "v1:token_wx2") && forgotten.len() > 1, "{forgotten:?}");
    assert!(running.get("access_token:wx1").flatten().is_some());
    running.stop().await;
}

#[tokio::test(start_paused = true)]
async fn an_app_that_comes_back_within_the_minute_keeps_its_keys() {
    let running = Running::start(&[app("wx1", "s")]);
    tokio::time::sleep(SECOND).await;
    running.control.remove("wx1").await.unwrap();
    assert_eq!(running.get("access_token:wx1"), Some(None));
    tokio::time::sleep(30 * SECOND).await;
    running.control.put(app("wx1", "s")).await.unwrap();
    tokio::time::sleep(SECOND).await;
    assert!(running.get("access_token:wx1").flatten().is_some());
    tokio::time::sleep(60 * SECOND).await;
    assert!(running.get("access_token:wx1").flatten().is_some());
    running.stop().await;
}

/// What is kept of each is gone with it.
#[tokio::test(start_paused = true)]
async fn ten_thousand_apps_come_and_go_one_by_one() {
    let running = Running::start(&[]);
    let appid = |n: usize| format!("wx{n:016x}");
    for n in 0..10_000 {
        running.control.put(app(&appid(n), "s")).await.unwrap();
    }
    tokio::time::sleep(600 * SECOND).await;
    assert!((0..10_000).all(|n| running.get(&format!("access_token:{}", appid(n))).flatten().is_some()));
    for n in 0..10_000 {
        assert_eq!(running.control.remove(&appid(n)).await, Ok(1));
    }
    tokio::time::sleep(61 * SECOND).await;
    assert!((0..10_000).all(|n| running.get(&format!("access_token:{}", appid(n))).is_none()));
    assert_eq!(running.table.credentials().len(), 0);
    running.stop().await;
}

/// It would never be fetched again: a component's token is what its authorizers' are fetched with.
#[tokio::test(start_paused = true)]
async fn a_component_is_neither_removed_nor_replaced_before_its_authorizers() {
    let component = || App { token: &component::COMPONENT, ..app("wxc", "s") };
    let authorizer = App { component: Some("wxc".into()), token: &component::AUTHORIZER, ..app("wx2", "s") };
    let running = Running::start(&[component(), authorizer]);
    let control = &running.control;
    assert_eq!(control.remove("wxc").await, Err(ChangeRefused::HasAuthorizers));
    assert_eq!(control.put(app("wxc", "s")).await.err(), Some(ChangeRefused::HasAuthorizers));
    let elsewhere = App { base_url: Some("http://127.0.0.1:2".into()), ..component() };
    assert_eq!(control.put(elsewhere).await.err(), Some(ChangeRefused::IsComponent));
    assert!(control.put(App { daily_quota: Some(9), ..component() }).await.is_ok(), "it stays the same one");
    assert_eq!(running.table.credentials().len(), 2);
    assert_eq!((control.remove("wx2").await, control.remove("wxc").await), (Ok(1), Ok(1)));
    running.stop().await;
}

#[tokio::test(start_paused = true)]
async fn a_fetch_that_waits_for_its_turn_is_not_made_for_an_app_that_was_removed() {
    let one_at_once = ClientOptions { concurrency: 1, ..options() };
    let running = Running::with(Arc::new(Mint::new()), one_at_once, None, &[]);
    for appid in ["wx1", "wx2", "wx3"] {
        running.control.put(app(appid, "s")).await.unwrap();
    }
    tokio::time::sleep(SECOND / 50).await;
    running.control.remove("wx1").await.unwrap();
    running.control.remove("wx2").await.unwrap();
    tokio::time::sleep(SECOND).await;
    let calls = ["wx1", "wx2", "wx3"].map(|appid| running.calls(&format!("access_token {appid}")));
    assert_eq!(calls, [1, 0, 1], "one was sent, one waited, and one goes on");
    running.stop().await;
}

/// A forced call makes a new value too, which ends the one before it.
#[tokio::test(start_paused = true)]
async fn an_app_that_is_put_anew_waits_for_the_end_of_a_forced_call_too() {
    let running = Running::on(Mint::stable(), &[without_probes("wx1")]);
    running.live().await;
    running.platform.refuse("wx1");
    let _report = running.table.report_refused(&running.credential(), None).unwrap();
    running.until("the forced call", || running.calls("access_token wx1") == 3).await;
    running.control.remove("wx1").await.unwrap();
    running.control.put(without_probes("wx1")).await.unwrap();
    let token = running.live().await;
    assert!(running.platform.is_accepted(&token));
    assert_eq!((running.calls("access_token wx1"), running.platform.running.lock().1), (4, 1));
    running.stop().await;
}

#[tokio::test(start_paused = true)]
async fn the_sites_own_token_is_adopted_by_an_app_that_is_put_or_changed() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("token");
    let theirs = "T".repeat(100);
    std::fs::write(&path, &theirs).unwrap();
    let adopts = |appid, secret| App { adopt: Some(Adopt::File(path.clone())), ..app(appid, secret) };
    let running = Running::start(&[app("wx1", "wrong"), app("wx2", "s")]);
    tokio::time::sleep(SECOND).await;
    let changed = running.control.put(adopts("wx1", "s")).await.unwrap();
    let added = running.control.put(adopts("wx3", "s")).await.unwrap();
    tokio::time::sleep(SECOND).await;
    assert_eq!((running.value(&changed[0]), running.value(&added[0])), (Some(theirs.clone()), Some(theirs)));
    assert_eq!((running.calls("access_token wx1"), running.calls("access_token wx3")), (1, 0));
    let from_sink = App { adopt: Some(Adopt::Sink), ..app("wx2", "s") };
    assert_eq!(running.control.put(from_sink).await.err(), Some(ChangeRefused::AdoptsFromSink));
    running.stop().await;
}

#[tokio::test(start_paused = true)]
async fn an_app_that_is_put_again_and_again_is_probed_in_time_all_the_same() {
    let every_minute = || App { probe_every_ms: Some(60_000), ..app("wx1", "s") };
    for (app, probes) in [(every_minute(), 9), (app("wx1", "s"), 1)] {
        let running = Running::on(Mint::stable(), std::slice::from_ref(&app));
        for _ in 0..60 {
            tokio::time::sleep(10 * SECOND).await;
            running.control.put(app.clone()).await.unwrap();
        }
        assert!(running.calls("probe") >= probes, "{} probes in ten minutes", running.calls("probe"));
        running.stop().await;
    }
}

#[tokio::test(start_paused = true)]
async fn the_first_calls_of_many_apps_that_are_put_at_once_are_spread() {
    let at_once = ClientOptions { concurrency: 100, ..options() };
    let running = Running::with(Arc::new(Mint::new()), at_once, None, &[]);
    for n in 0..1_000 {
        running.control.put(without_probes(&format!("wx{n}"))).await.unwrap();
    }
    tokio::time::sleep(SECOND / 100).await;
    assert!((100..=104).contains(&running.all_calls()), "{} at once", running.all_calls());
    tokio::time::sleep(SECOND).await;
    assert!((295..=310).contains(&running.all_calls()), "{} in a second", running.all_calls());
    tokio::time::sleep(5 * SECOND).await;
    assert_eq!(running.all_calls(), 1_000);
    running.stop().await;
}

/// google-cloud-rust #4541: the refresh task ended after an error and nothing was ever fetched again.
#[tokio::test(start_paused = true)]
async fn google_cloud_rust_4541_a_refusal_slows_the_loop_down_and_never_ends_it() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("secret");
    std::fs::write(&file, "thewrongone\n").unwrap();
    let running = Running::start(&[App { secret: SecretSource::file(&file), ..app("wx1", "") }]);
    running.until("a refusal", || running.status().state == CredentialState::Blocked).await;
    let error = running.status().last_error.unwrap();
    assert_eq!((error.errcode.is_some(), error.class), (true, FailureClass::Operator), "{error:?}");
    assert!(!error.advice.is_empty() && !error.text.contains("thewrongone"), "{error:?}");
    assert_eq!(running.calls("access_token wx1"), 1, "a refusal is not retried fast");
    // Replaced as it should be: a new file in place of the old one.
    std::fs::write(folder.path().join("new"), "s\n").unwrap();
    std::fs::rename(folder.path().join("new"), &file).unwrap();
    let token = running.live().await;
    assert!(running.platform.is_accepted(&token));
    assert_eq!(running.calls("access_token wx1"), 2);
    running.stop().await;
}

#[tokio::test(start_paused = true)]
async fn a_missing_secret_file_is_reported_without_a_call_and_tried_when_it_appears() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("secret");
    let running = Running::start(&[App { secret: SecretSource::file(&file), ..app("wx1", "") }]);
    running.until("a report", || running.status().state == CredentialState::Blocked).await;
    assert!(matches!(running.credential().read(running.platform.boot_ms()), Reading::Absent), "nobody waits for this");
    assert_eq!(running.all_calls(), 0);
    std::fs::write(&file, "s").unwrap();
    running.live().await;
    running.stop().await;
}

#[tokio::test(start_paused = true)]
async fn a_withdrawn_token_is_not_served_by_the_next_process_either() {
    let folder = tempfile::tempdir().unwrap();
    let platform = Arc::new(Mint::stable());
    let apps = [App { forced_per_day: Some(0), ..app("wx1", "s") }];
    let start = || {
        let store: Arc<dyn StateStore> = Arc::new(FileStore::new(folder.path().join("state.json")));
        Running::with(platform.clone(), options(), Some(store), &apps)
    };
    let running = start();
    running.live().await;
    platform.refuse("wx1");
    running.report(&running.credential()).await;
    assert_eq!(running.token(), None);
    running.stop().await;
    let running = start();
    running.until("its first look", || running.status().dead_but_same > 0).await;
    assert_eq!(running.token(), None);
    running.stop().await;
}

/// A client may name the token that was refused.
#[tokio::test(start_paused = true)]
async fn a_report_by_token_checks_only_the_present_one() {
    let running = Running::on(Mint::stable(), &[app("wx1", "s")]);
    let (first, credential) = (running.live().await, running.credential());
    let report = |token: &[u8]| {
        let generation = credential.generation_of(token)?;
        running.table.ask_refresh(&credential, Some(generation))
    };
    assert!(report(b"another token").is_none());
    running.platform.end_token("wx1");
    report(first.as_bytes()).unwrap().await.unwrap();
    assert_ne!(running.token().unwrap(), first);
    assert!(report(first.as_bytes()).is_none(), "it has been replaced");
    assert_eq!((running.status().checks, credential.reports.load(Ordering::Relaxed)), (1, 1));
    running.stop().await;
}

#[tokio::test(start_paused = true)]
async fn a_stalled_app_does_not_hold_up_another() {
    let platform = Mint::new();
    // One before it and one behind it, whichever comes first.
    platform.set_fault("wx1", usize::MAX, None);
    platform.set_fault("wx3", usize::MAX, None);
    let running = Running::on(platform, &[app("wx1", "s"), app("wx2", "s"), app("wx3", "s")]);
    let other = running.table.credentials()[1].clone();
    running.until("the other app's value", || running.value(&other).is_some()).await;
    assert!(matches!(running.credential().read(running.platform.boot_ms()), Reading::FirstFetch));
    running.stop().await;
}

#[tokio::test(start_paused = true)]
async fn five_hundred_apps_boot_under_the_concurrency_cap_with_one_call_each() {
    let apps: Vec<App> = (0..500).map(|n| without_probes(&format!("wx{n}"))).collect();
    let few_at_once = ClientOptions { concurrency: 4, ..options() };
    let running = Running::with(Arc::new(Mint::new()), few_at_once, None, &apps);
    let all = running.table.credentials();
    running.until("500 values", || all.iter().all(|credential| running.value(credential).is_some())).await;
    for credential in &all {
        assert!(running.value(credential).unwrap().starts_with(&format!("{}-", credential.appid)));
    }
    assert_eq!(running.all_calls(), 500);
    let most = running.platform.running.lock().1;
    assert!((1..=4).contains(&most), "{most} at once");
    running.stop().await;
}

#[tokio::test(start_paused = true)]
async fn a_call_under_way_at_shutdown_is_waited_for_and_one_not_sent_is_dropped() {
    let platform = Arc::new(Mint { call_takes: 2 * SECOND, ..Mint::new() });
    let one_at_once = ClientOptions { concurrency: 1, ..options() };
    let running = Running::with(platform.clone(), one_at_once, None, &[app("wx1", "s"), app("wx2", "s")]);
    running.until("a call under way", || platform.running.lock().0 == 1).await;
    // Either may be the first: calls at the start are spread at random.
    let first = running.table.credentials().remove(usize::from(running.calls("access_token wx1") == 0));
    running.stop.cancel();
    running.until("its end", || running.task.is_finished()).await;
    assert!(running.value(&first).is_some());
    assert_eq!(running.all_calls(), 1);
    running.stop().await;
}

#[tokio::test(start_paused = true)]
async fn the_same_failure_again_and_again_is_one_line_and_its_end_is_another() {
    // Two subscribers at least: with one alone, a line that another thread comes to first is never written here.
    static OTHER: LazyLock<tracing::Dispatch> = LazyLock::new(|| tracing::Dispatch::new(NoSubscriber::new()));
    LazyLock::force(&OTHER);
    let log = Log::default();
    let writer = log.clone();
    let lines = tracing_subscriber::fmt().with_ansi(false).with_writer(move || writer.clone()).finish();
    let _guard = tracing::subscriber::set_default(lines);
    let platform = Mint::new();
    platform.set_fault("wx1", 4, Some(""));
    let running = Running::on(platform, &[app("wx1", "s")]);
    running.live().await;
    assert_eq!(running.status().failures, 4);
    running.stop().await;
    let text = String::from_utf8(log.0.lock().clone()).unwrap();
    assert_eq!((text.matches("renewal failed").count(), text.matches("recovered").count()), (1, 1), "{text}");
    assert!(text.contains("suppressed=3") && !text.contains("suppressed=0"), "{text}");
}

/// What is logged.
#[derive(Clone, Default)]
struct Log(Arc<Mutex<Vec<u8>>>);

impl std::io::Write for Log {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.lock().extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

#[tokio::test(start_paused = true)]
async fn clients_of_many_apps_in_a_loop_cause_a_bounded_number_of_calls() {
    let apps: Vec<App> = (0..600).map(|n| without_probes(&format!("wx{n}"))).collect();
    let running = Running::on(Mint { call_takes: Duration::ZERO, ..Mint::stable() }, &apps);
    let (table, all) = (&running.table, running.table.credentials());
    running.until("600 values", || all.iter().all(|credential| running.value(credential).is_some())).await;
    let before = running.all_calls();
    for credential in &all {
        for _ in 0..3 {
            running.report(credential).await;
        }
    }
    let (looks, refused) = (&table.client_checks, &table.client_checks_refused);
    let (looks, refused) = (looks.load(Ordering::SeqCst) as usize, refused.load(Ordering::SeqCst));
    assert!(looks < 600 && refused > 0, "{looks} looks, {refused} refused");
    assert!(running.all_calls() - before <= 2 * looks, "two calls a look at most");
    assert_eq!(table.reports_made.load(Ordering::SeqCst), 1800);
    assert!(all.iter().all(|credential| running.value(credential).is_some()), "nothing is taken away");
    running.stop().await;
}

#[tokio::test(start_paused = true)]
async fn reports_that_are_true_are_looked_into_however_many_there_are() {
    let apps: Vec<App> = (0..400).map(|n| app(&format!("wx{n}"), "s")).collect();
    let running = Running::on(Mint { call_takes: Duration::ZERO, ..Mint::stable() }, &apps);
    let all = running.table.credentials();
    running.until("400 values", || all.iter().all(|credential| running.value(credential).is_some())).await;
    all.iter().for_each(|credential| running.platform.end_token(&credential.appid));
    for credential in &all {
        let generation = credential.status(0).generation;
        running.report(credential).await;
        assert_eq!(credential.status(0).generation, generation + 1, "{}", credential.appid);
    }
    assert_eq!(running.table.client_checks_refused.load(Ordering::SeqCst), 0);
    running.stop().await;
}
