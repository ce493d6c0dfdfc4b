use std::io::ErrorKind;
use std::sync::atomic::AtomicU64;

use tokio::task::JoinHandle;

use super::super::grants::{GrantName, GrantType, SavedGrant};
use super::super::quota_usage::CallReason;
use super::super::state::LoadedState;
use super::*;
use crate::credential::table::TableConfig;
use crate::platform::{Quota, mp};

/// A store in memory. Its disk may fail, and another process may have it.
#[derive(Default)]
struct Memory {
    saved: Mutex<Option<Snapshot>>,
    fault: Mutex<Option<ErrorKind>>,
    /// What another process has left; the next claim finds it.
    left: Mutex<Option<Snapshot>>,
    tries: AtomicU64,
}

impl StateStore for Memory {
    fn load(&self) -> LoadedState {
        LoadedState::Empty
    }

    fn claim(&self) -> io::Result<Option<Snapshot>> {
        self.tries.fetch_add(1, Ordering::SeqCst);
        match *self.fault.lock() {
            Some(kind) => Err(kind.into()),
            None => Ok(self.left.lock().take()),
        }
    }

    fn save(&self, snapshot: &Snapshot) -> io::Result<()> {
        *self.saved.lock() = Some(snapshot.clone());
        Ok(())
    }

    fn blocks(&self) -> bool {
        false
    }
}

fn name() -> CredentialIdentity {
    CredentialIdentity::of(&mp::STABLE, "wx1", "http://a")
}

fn entry(value: &str, generation: u64) -> StateEntry {
    StateEntry {
        name: name(),
        value: value.into(),
        generation,
        expires_unix_ms: 7_200_000,
        expires_boot_ms: 7_200_000,
        fetched_unix_ms: 0,
        fetched_boot_ms: 0,
        life_ms: 7_200_000,
        longest_ms: 7_200_000,
        learned_ms: None,
        intent_unix_ms: None,
        withdrawn: false,
        reliable_lead_ms: None,
        adopted: None,
        ours: true,
    }
}

fn calls(many: usize) -> QuotaUsage {
    let mut calls = QuotaUsage::default();
    for _ in 0..many {
        calls.try_charge(&Quota::NONE, 0, CallReason::Renewal).unwrap();
    }
    calls
}

/// A running state writer, in virtual time.
struct Running {
    store: Arc<Memory>,
    state_writer: StateWriter,
    table: Arc<Table>,
    end: CancellationToken,
    task: JoinHandle<()>,
}

impl Running {
    fn start() -> Running {
        Running::with(Grants::default())
    }

    fn with(grants: Grants) -> Running {
        let store = Arc::new(Memory::default());
        let usages = vec![StoredUsage { name: name(), calls: QuotaUsage::default() }];
        let state_writer =
            StateWriter::new(store.clone(), vec![None], usages, Arc::new(crate::clock::SystemClock), "b1")
                .with_grants(Arc::new(grants));
        let (table, ..) = Table::new(TableConfig::of([("wx1", vec![])]));
        let (table, end) = (Arc::new(table), CancellationToken::new());
        let task = tokio::spawn(state_writer.clone().run(table.clone(), end.clone()));
        Running { store, state_writer, table, end, task }
    }

    /// Something to write, and a disk that has failed for so long that it is tried once a minute.
    async fn failing_for_long(kind: ErrorKind) -> Running {
        let running = Running::start();
        *running.store.fault.lock() = Some(kind);
        running.state_writer.update_entry(0, |kept| *kept = Some(entry("TOKEN-1", 1)));
        tokio::time::sleep(Duration::from_secs(600)).await;
        assert!(running.state_writer.is_failing() && !running.table.state_saved.load(Ordering::SeqCst));
        running
    }

    fn repair(&self) {
        *self.store.fault.lock() = None;
    }

    fn saved(&self) -> Option<String> {
        self.store.saved.lock().as_ref().map(|saved| saved.entries[0].value.clone())
    }

    fn tries(&self) -> u64 {
        self.store.tries.load(Ordering::SeqCst)
    }

    async fn stop(self) {
        self.end.cancel();
        self.task.await.unwrap();
    }
}

#[tokio::test(start_paused = true)]
async fn counts_alone_are_written_when_their_time_has_come() {
    let running = Running::start();
    running.state_writer.record_usage(0, &calls(1));
    assert!(running.state_writer.wait_until_saved(1, 2 * COUNTS_EVERY).await);
    assert_eq!(running.store.saved.lock().as_ref().unwrap().usages[0].calls, calls(1));
    running.stop().await;
}

#[tokio::test(start_paused = true)]
async fn at_the_end_a_disk_that_is_good_again_is_written_to_at_once() {
    let running = Running::failing_for_long(ErrorKind::StorageFull).await;
    running.repair();
    let begun = Instant::now();
    assert!(running.state_writer.flush(Duration::from_secs(2)).await);
    assert_eq!((running.saved().as_deref(), begun.elapsed()), (Some("TOKEN-1"), Duration::ZERO));
    running.stop().await;
}

#[tokio::test(start_paused = true)]
async fn at_the_end_it_is_tried_at_once_though_it_was_tried_a_moment_ago() {
    let running = Running::failing_for_long(ErrorKind::StorageFull).await;
    running.state_writer.request_write_now();
    tokio::time::sleep(Duration::from_millis(10)).await;
    running.repair();
    assert!(running.state_writer.flush(Duration::from_millis(100)).await);
    running.stop().await;
}

#[tokio::test(start_paused = true)]
async fn at_the_end_a_disk_that_fails_is_tried_until_the_time_is_over() {
    let running = Running::failing_for_long(ErrorKind::StorageFull).await;
    let store = running.store.clone();
    tokio::spawn(async move {
        tokio::time::sleep(Duration::from_millis(1_900)).await;
        *store.fault.lock() = None;
    });
    let before = running.tries();
    assert!(running.state_writer.flush(Duration::from_secs(5)).await);
    assert!((3..20).contains(&(running.tries() - before)), "{} tries", running.tries() - before);
    running.stop().await;
}

#[tokio::test(start_paused = true)]
async fn a_note_ahead_of_a_call_wakes_the_writer_out_of_its_backoff() {
    let running = Running::failing_for_long(ErrorKind::StorageFull).await;
    running.repair();
    let version = running.state_writer.request_write_now();
    assert!(running.state_writer.wait_until_saved(version, Duration::from_millis(250)).await);
    running.stop().await;
}

#[tokio::test(start_paused = true)]
async fn however_many_hurry_a_failing_disk_is_tried_once_a_second() {
    let running = Running::failing_for_long(ErrorKind::StorageFull).await;
    let before = running.tries();
    for _ in 0..1_000 {
        running.state_writer.request_write_now();
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    let tries = running.tries() - before;
    assert!((8..=11).contains(&tries), "{tries} tries in 10 s");
    running.stop().await;
}

#[tokio::test(start_paused = true)]
async fn a_write_that_hangs_does_not_hold_up_the_end() {
    /// A disk that answers when the test is over.
    struct Hung(std::sync::mpsc::Sender<()>, Mutex<std::sync::mpsc::Receiver<()>>);
    impl StateStore for Hung {
        fn load(&self) -> LoadedState {
            LoadedState::Empty
        }
        fn save(&self, _: &Snapshot) -> io::Result<()> {
            let _ = self.0.send(());
            let _ = self.1.lock().recv();
            Ok(())
        }
    }
    let ((begun, has_begun), (answer, waits)) = (std::sync::mpsc::channel(), std::sync::mpsc::channel());
    let store = Arc::new(Hung(begun, Mutex::new(waits)));
    let state_writer = StateWriter::new(store, vec![None], vec![], Arc::new(crate::clock::SystemClock), "b1");
    let (table, ..) = Table::new(TableConfig::of([("wx1", vec![])]));
    let end = CancellationToken::new();
    let task = tokio::spawn(state_writer.clone().run(Arc::new(table), end.clone()));
    state_writer.update_entry(0, |kept| *kept = Some(entry("TOKEN-1", 1)));
    tokio::task::spawn_blocking(move || has_begun.recv().unwrap()).await.unwrap();
    end.cancel();
    task.await.unwrap();
    answer.send(()).unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_store_that_another_process_has_is_taken_up_soon_after_that_has_ended() {
    let running = Running::failing_for_long(ErrorKind::WouldBlock).await;
    assert_eq!(running.table.state_failures.load(Ordering::SeqCst), 0, "nothing was tried to be written");
    running.repair();
    assert!(running.state_writer.wait_until_saved(1, 2 * ELSEWHERE_WAIT).await);
    assert!(running.table.state_saved.load(Ordering::SeqCst));
    running.stop().await;
}

#[tokio::test(start_paused = true)]
async fn the_end_does_not_wait_for_a_store_that_another_process_has() {
    let running = Running::failing_for_long(ErrorKind::WouldBlock).await;
    let begun = Instant::now();
    assert!(!running.state_writer.flush(Duration::from_secs(5)).await);
    assert!(begun.elapsed() < Duration::from_secs(1), "{:?}", begun.elapsed());
    running.stop().await;
}

fn left_by_another(value: &str) -> Snapshot {
    let grant = |authorizer: &str, value: &str| SavedGrant {
        name: GrantName {
            what: GrantType::RefreshToken,
            component: "wxc".into(),
            authorizer: authorizer.into(),
            base: "b".into(),
        },
        value: value.into(),
        configured: None,
        wanted_unix_ms: crate::clock::unix_ms(),
    };
    Snapshot {
        entries: vec![Arc::new(entry(value, 9))],
        usages: vec![Arc::new(StoredUsage { name: name(), calls: calls(5) })],
        grants: vec![grant("wxa", "refresh-2"), grant("wxb", "theirs")],
        boot_id: "b1".into(),
        ..Snapshot::default()
    }
}

/// What is written in the end, after another process has left that.
async fn taken_over(ours: Option<StateEntry>, wanted: &[GrantName]) -> (Snapshot, Option<QuotaUsage>) {
    // What was in the file when this process started.
    let before = SavedGrant { value: "refresh-1".into(), ..left_by_another("").grants.remove(0) };
    let running = Running::with(Grants::new(&[before], wanted.iter().cloned()));
    let state_writer = running.state_writer.clone();
    *running.store.fault.lock() = Some(ErrorKind::WouldBlock);
    state_writer.update_entry(0, |kept| *kept = ours);
    state_writer.record_usage(0, &calls(2));
    *running.store.left.lock() = Some(left_by_another("THEIRS"));
    running.repair();
    assert!(state_writer.flush(Duration::from_secs(5)).await);
    let (saved, counted) = (running.store.saved.lock().clone().unwrap(), state_writer.take_usage_elsewhere(0));
    running.stop().await;
    (saved, counted)
}

#[tokio::test(start_paused = true)]
async fn what_another_process_has_left_is_not_lost_and_never_replaces_what_is_ours() {
    let (saved, counted) = taken_over(Some(entry("OURS", 1)), &[]).await;
    assert_eq!((saved.entries[0].value.as_str(), saved.entries[0].generation), ("OURS", 1));
    assert_eq!((saved.usages[0].calls.calls_today(), counted.unwrap().calls_today()), (5, 5));
    let mut kept: Vec<_> = saved.grants.iter().map(|kept| kept.value.as_str()).collect();
    kept.sort_unstable();
    assert_eq!(kept, ["refresh-2", "theirs"], "of accounts that are not ours the other's are the later ones");
}

#[tokio::test(start_paused = true)]
async fn a_value_is_taken_over_where_there_is_none_and_a_refresh_token_in_use_is_not() {
    let wanted = left_by_another("").grants.remove(0).name;
    let (saved, _) = taken_over(None, &[wanted]).await;
    assert_eq!(saved.entries[0].value, "THEIRS");
    let kept = saved.grants.iter().find(|kept| kept.name.authorizer == "wxa").unwrap();
    assert_eq!(kept.value, "refresh-1");
}

#[tokio::test(start_paused = true)]
async fn a_credential_that_is_removed_and_added_again_and_again_goes_on_with_its_count() {
    let running = Running::start();
    let state_writer = &running.state_writer;
    state_writer.record_usage(0, &calls(2));
    for id in 1..4 {
        state_writer.remove(id - 1);
        assert_eq!(state_writer.add(id, name()), calls(2), "added as {id}");
    }
    state_writer.record_usage(3, &calls(3));
    assert!(state_writer.flush(Duration::from_secs(5)).await);
    let saved = running.store.saved.lock().clone().unwrap();
    assert_eq!(saved.usages.iter().map(|kept| kept.calls.calls_today()).collect::<Vec<_>>(), [3], "it is there once");
    running.stop().await;
}

#[tokio::test(start_paused = true)]
async fn another_process_brings_no_value_of_a_removed_credential_back() {
    let running = Running::start();
    *running.store.left.lock() = Some(left_by_another("THEIRS"));
    running.state_writer.remove(0);
    assert!(running.state_writer.flush(Duration::from_secs(5)).await);
    assert!(running.store.saved.lock().as_ref().unwrap().entries.is_empty());
    running.stop().await;
}

#[tokio::test(start_paused = true)]
async fn without_a_file_descriptor_the_state_is_tried_again_within_seconds() {
    /// A process that has none left.
    #[derive(Default)]
    struct Exhausted(AtomicU64);
    impl StateStore for Exhausted {
        fn load(&self) -> LoadedState {
            LoadedState::Empty
        }
        fn save(&self, _: &Snapshot) -> io::Result<()> {
            self.0.fetch_add(1, Ordering::SeqCst);
            // As the library for temporary files says it.
            Err(io::Error::other(io::Error::from(rustix::io::Errno::MFILE)))
        }
        fn blocks(&self) -> bool {
            false
        }
    }
    let store = Arc::new(Exhausted::default());
    let state_writer = StateWriter::new(store.clone(), vec![None], vec![], Arc::new(crate::clock::SystemClock), "b1");
    let (table, ..) = Table::new(TableConfig::of([("wx1", vec![])]));
    let end = CancellationToken::new();
    let task = tokio::spawn(state_writer.clone().run(Arc::new(table), end.clone()));
    state_writer.update_entry(0, |kept| *kept = Some(entry("TOKEN-1", 1)));
    tokio::time::sleep(Duration::from_secs(600)).await;
    let before = store.0.load(Ordering::SeqCst);
    tokio::time::sleep(Duration::from_secs(60)).await;
    let tries = store.0.load(Ordering::SeqCst) - before;
    assert!(tries >= 10, "{tries} tries in a minute");
    end.cancel();
    task.await.unwrap();
}
