//! Parts of the scheduler that no outside test can reach; the rest is in `tests/it/refresher.rs`.

use std::sync::atomic::Ordering;

use tokio::time::Instant;

use super::scheduler::clock_jumped;
use super::*;
use crate::clock;
use crate::credential::state::{LoadedState, Snapshot, StateStore};
use crate::credential::table::Reading;
use crate::credential::{App, Env, build_in};
use crate::platform::ClientOptions;
use crate::platform::mp;
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
