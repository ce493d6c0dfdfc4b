//! Restarts with a good state file, with none, with a bad one, and with a disk that fails.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "helpers of tests fail the test")]

use std::io;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use tokencached::clock::{Now, boot_ms};
use tokencached::credential::App;
use tokencached::credential::state::{FileStore, LoadedState, Snapshot, StateStore, boot_id};
use tokencached::credential::table::Reading;
use tokencached::sandbox::{Endpoint, FaultKind, InjectedFault, Options, Sandbox, Verdict};

use crate::refresher::{Node, build, classic, sandbox, sandbox_of, stable, token, until, upstream};
use crate::support::memory_folder;

fn file(folder: &Path) -> Arc<dyn StateStore> {
    Arc::new(FileStore::new(folder.join("state.json")))
}

fn start(sandbox: &Sandbox, app: App, store: Arc<dyn StateStore>) -> Node {
    Node::start(&upstream(&sandbox.base_url()), &[app], Some(store))
}

fn loaded(store: &Arc<dyn StateStore>) -> Snapshot {
    match store.load() {
        LoadedState::Found(snapshot) => snapshot,
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn a_restart_serves_the_persisted_value_before_anything_runs_and_calls_nobody() {
    for app in [stable(), classic()] {
        let folder = tempfile::tempdir().unwrap();
        let sandbox = sandbox(Options::default()).await;
        let node = start(&sandbox, app.clone(), file(folder.path()));
        let first = node.live().await;
        let (expires, generation) = (node.status().expires_boot_ms, node.generation());
        node.stop().await;
        let upstream = upstream(&sandbox.base_url());
        let (table, _refresher) = build(&upstream, std::slice::from_ref(&app), Some(file(folder.path())));
        assert_eq!(token(&table.credentials()[0]), Some(first.clone()), "live before the refresher runs");
        let node = start(&sandbox, app, file(folder.path()));
        until("a schedule", || node.status().next_try_boot_ms > 0).await;
        let status = node.status();
        assert_eq!((status.generation, status.expires_boot_ms), (generation, expires));
        assert!(status.next_try_boot_ms > boot_ms() + 60_000, "nothing is due");
        node.stop().await;
        assert_eq!(sandbox.calls("wx1").total(), 1);
    }
}

/// A store whose disk can be broken and repaired.
struct Fragile {
    inner: FileStore,
    broken: AtomicBool,
    saves: AtomicU64,
}

impl Fragile {
    fn new(folder: &Path, broken: bool) -> Arc<Fragile> {
        let inner = FileStore::new(folder.join("state.json"));
        Arc::new(Fragile { inner, broken: AtomicBool::new(broken), saves: AtomicU64::new(0) })
    }
}

impl StateStore for Fragile {
    fn load(&self) -> LoadedState {
        self.inner.load()
    }

    fn save(&self, snapshot: &Snapshot) -> io::Result<()> {
        self.saves.fetch_add(1, Ordering::SeqCst);
        if self.broken.load(Ordering::SeqCst) {
            return Err(io::ErrorKind::StorageFull.into());
        }
        self.inner.save(snapshot)
    }
}

#[tokio::test]
async fn killed_between_fetch_and_persist_a_stable_app_gets_the_same_value_again() {
    let folder = tempfile::tempdir().unwrap();
    let sandbox = sandbox(Options::default()).await;
    let node = start(&sandbox, stable(), Fragile::new(folder.path(), true));
    let first = node.live().await;
    node.kill().await;
    let node = start(&sandbox, stable(), file(folder.path()));
    assert_eq!(node.live().await, first);
    assert_eq!(sandbox.calls("wx1").minted, 1);
    node.stop().await;
}

#[tokio::test]
#[ignore = "waits for real time"]
async fn killed_during_a_classic_call_the_next_start_distrusts_the_old_value_and_fetches() {
    // A disk that is not done in a quarter of a second is not waited for.
    let folder = memory_folder();
    let sandbox = sandbox(Options { lifetime_s: 6, overlap_ms: Some(250), ..Options::default() }).await;
    let node = start(&sandbox, classic(), file(folder.path()));
    node.live().await;
    sandbox.set_fault("wx1", InjectedFault::new(FaultKind::Hang).after_minting().times(1));
    until("a call that never ends", || sandbox.calls("wx1").in_flight == 1).await;
    node.kill().await;
    let snapshot = loaded(&file(folder.path()));
    assert!(snapshot.entries[0].intent_unix_ms.is_some());
    let node = start(&sandbox, classic(), file(folder.path()));
    until("another value", || node.generation() == snapshot.entries[0].generation + 1).await;
    assert_eq!(sandbox.judge(&node.live().await), Verdict::Accepted);
    node.stop().await;
}

#[tokio::test]
async fn unusable_state_is_set_aside_and_the_start_is_a_cold_one() {
    for text in ["", "{", "null", "{\"format\":\"tokencached-state\",\"version\":9}", "\0\0\0\0"] {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("state.json");
        std::fs::write(&path, text).unwrap();
        let sandbox = sandbox(Options::default()).await;
        let node = start(&sandbox, stable(), file(folder.path()));
        node.live().await;
        node.stop().await;
        assert_eq!(loaded(&file(folder.path())).entries.len(), 1, "a good file has taken its place");
        let aside = std::fs::read_dir(folder.path())
            .unwrap()
            .filter(|entry| entry.as_ref().unwrap().file_name().to_string_lossy().starts_with("state.json.corrupt-"))
            .count();
        assert_eq!(aside, 1, "{text:?}");
    }
}

#[tokio::test]
#[ignore = "waits for real time"]
async fn a_full_disk_costs_nothing_but_a_warning_and_is_noticed_when_it_has_room_again() {
    for app in [stable(), classic()] {
        let folder = tempfile::tempdir().unwrap();
        let sandbox = sandbox(Options::default()).await;
        let store = Fragile::new(folder.path(), true);
        let node = start(&sandbox, app, store.clone());
        node.live().await;
        until("a failed write", || !node.table.state_saved.load(Ordering::SeqCst)).await;
        assert!(node.table.state_failures.load(Ordering::SeqCst) >= 1);
        store.broken.store(false, Ordering::SeqCst);
        until("a good write", || node.table.state_saved.load(Ordering::SeqCst)).await;
        assert!(store.saves.load(Ordering::SeqCst) < 10, "a failing disk is not hammered");
        node.stop().await;
        assert_eq!(loaded(&file(folder.path())).entries.len(), 1);
    }
}

#[tokio::test]
#[ignore = "waits for real time"]
async fn a_path_that_can_never_be_written_does_not_keep_the_server_from_its_work() {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("plain"), "").unwrap();
    let sandbox = sandbox(Options::default()).await;
    let node = start(&sandbox, stable(), file(&folder.path().join("plain")));
    node.live().await;
    until("a failed write", || !node.table.state_saved.load(Ordering::SeqCst)).await;
    node.stop().await;
}

#[tokio::test]
async fn a_value_of_another_upstream_or_endpoint_is_never_served() {
    let folder = tempfile::tempdir().unwrap();
    let one = sandbox(Options::default()).await;
    let node = start(&one, stable(), file(folder.path()));
    node.live().await;
    node.stop().await;
    let other = sandbox(Options::default()).await;
    for (sandbox, app) in [(&other, stable()), (&one, classic())] {
        let upstream = upstream(&sandbox.base_url());
        let (table, _refresher) = build(&upstream, &[app], Some(file(folder.path())));
        assert!(matches!(table.credentials()[0].read(boot_ms()), Reading::FirstFetch));
    }
}

/// Makes the state look as if another boot had written it `age_ms` ago.
fn from_another_boot(store: &Arc<dyn StateStore>, age_ms: i64) {
    let mut snapshot = loaded(store);
    let now = Now::read();
    snapshot.boot_id = "another".into();
    let shift = now.unix_ms - age_ms - snapshot.written_unix_ms;
    snapshot.written_unix_ms += shift;
    // That boot had been up for long.
    const UPTIME_MS: u64 = 1_000_000_000;
    snapshot.written_boot_ms += UPTIME_MS;
    for entry in snapshot.entries.iter_mut().map(Arc::make_mut) {
        entry.fetched_unix_ms += shift;
        entry.expires_unix_ms += shift;
        entry.fetched_boot_ms += UPTIME_MS;
        entry.expires_boot_ms += UPTIME_MS;
    }
    store.save(&snapshot).unwrap();
}

#[tokio::test]
async fn after_a_reboot_the_time_that_has_passed_is_taken_off() {
    let folder = tempfile::tempdir().unwrap();
    let sandbox = sandbox(Options::default()).await;
    let node = start(&sandbox, stable(), file(folder.path()));
    node.live().await;
    node.stop().await;
    from_another_boot(&file(folder.path()), 3_600_000);
    let node = start(&sandbox, stable(), file(folder.path()));
    assert!(node.token().is_some());
    assert!(node.status().expires_boot_ms <= boot_ms() + 3_600_000);
    node.stop().await;
    from_another_boot(&file(folder.path()), 7_200_000);
    let upstream = upstream(&sandbox.base_url());
    let (table, _refresher) = build(&upstream, &[stable()], Some(file(folder.path())));
    assert!(token(&table.credentials()[0]).is_none(), "two hours later nothing is left");
}

#[tokio::test]
async fn a_value_of_a_former_boot_keeps_its_end_when_another_app_makes_the_state_be_written() {
    let folder = tempfile::tempdir().unwrap();
    let sandbox = sandbox_of(Options::default(), &["wx1", "wx2"]).await;
    let node = start(&sandbox, stable(), file(folder.path()));
    node.live().await;
    node.stop().await;
    from_another_boot(&file(folder.path()), 3_600_000);
    let apps = [stable(), App { appid: "wx2".into(), ..stable() }];
    let node = Node::start(&upstream(&sandbox.base_url()), &apps, Some(file(folder.path())));
    until("the other app's value", || token(&node.table.credentials()[1]).is_some()).await;
    node.stop().await;
    let snapshot = loaded(&file(folder.path()));
    assert_eq!((snapshot.boot_id.as_str(), snapshot.entries.len()), (boot_id().as_str(), 2));
    assert!(snapshot.entries[0].expires_boot_ms <= boot_ms() + 3_600_000);
}

#[tokio::test]
async fn a_wall_clock_that_went_backwards_makes_us_serve_but_verify() {
    for (app, endpoint) in [(stable(), Endpoint::StableToken), (classic(), Endpoint::GetApiDomainIp)] {
        let folder = tempfile::tempdir().unwrap();
        let sandbox = sandbox(Options::default()).await;
        let node = start(&sandbox, app.clone(), file(folder.path()));
        let first = node.live().await;
        node.stop().await;
        from_another_boot(&file(folder.path()), -86_400_000);
        let before = sandbox.calls("wx1").of(endpoint);
        let node = start(&sandbox, app, file(folder.path()));
        assert_eq!(node.token(), Some(first.clone()));
        until("a verifying call", || sandbox.calls("wx1").of(endpoint) == before + 1).await;
        until("its end", || node.status().checks == 1 && node.status().calls >= 1).await;
        // No renewal follows the verification: a classic one would end the token.
        until("a schedule ahead", || node.status().next_try_boot_ms > boot_ms() + 60_000).await;
        assert_eq!((node.token(), sandbox.calls("wx1").minted), (Some(first), 1));
        node.stop().await;
    }
}

#[tokio::test]
async fn an_app_without_a_configuration_is_forgotten_and_what_was_learned_is_not() {
    let folder = tempfile::tempdir().unwrap();
    let sandbox = sandbox(Options { lifetime_s: 60, ..Options::default() }).await;
    let node = start(&sandbox, stable(), file(folder.path()));
    node.live().await;
    node.report(None).await;
    node.stop().await;
    let entry = loaded(&file(folder.path())).entries.remove(0);
    assert!((58_000..=60_000).contains(&entry.longest_ms), "{}", entry.longest_ms);
    assert!(entry.learned_ms.is_some());
    let other = App { appid: "wx2".into(), ..app_of(&sandbox) };
    let node = Node::start(&upstream(&sandbox.base_url()), &[other], Some(file(folder.path())));
    assert!(matches!(node.credential().read(boot_ms()), Reading::FirstFetch | Reading::Absent));
    node.stop().await;
}

fn app_of(sandbox: &Sandbox) -> App {
    App { base_url: Some(sandbox.base_url()), ..stable() }
}
