//! The runner with a backend that counts writes, in virtual time.

use std::collections::HashMap;
use std::sync::atomic::AtomicBool;

use parking_lot::Mutex;
use tokio::sync::Notify;

use super::*;
use crate::credential::table::{CredentialWriter, KeyConfig, Published, TableConfig};
use crate::encoding::View;
use crate::platform::CredentialName;
use crate::sink::options::{SinkContent, SinkFile, SinkTo};

/// Remembers what is written and when.
#[derive(Default)]
struct CountingBackend {
    /// Of each write, in order: the entry's name and the second.
    writes: Mutex<Vec<(String, u64)>>,
    begun: Mutex<Option<Instant>>,
    /// Entries whose write never ends.
    hung: Mutex<Vec<String>>,
    refuses: AtomicBool,
    /// It gives writes up, and then carries them out.
    is_late: AtomicBool,
    stored: Mutex<HashMap<String, Vec<u8>>>,
    written: Notify,
}

impl CountingBackend {
    fn second(&self) -> u64 {
        self.begun.lock().get_or_insert_with(Instant::now).elapsed().as_secs()
    }

    fn count(&self) -> usize {
        self.writes.lock().len()
    }

    async fn wait_for(&self, count: usize) {
        while self.count() < count {
            self.written.notified().await;
        }
    }
}

impl SinkBackend for CountingBackend {
    fn open(&self) -> BoxFuture<'_, Result<(), StoreFault>> {
        self.second();
        std::future::ready(Ok(())).boxed()
    }

    fn write<'a>(&'a self, write: &'a CredentialWrite) -> BoxFuture<'a, Result<Contents, StoreFault>> {
        async {
            let name = write.entries[0].name.to_owned();
            if self.hung.lock().contains(&name) {
                std::future::pending::<()>().await;
            }
            if self.refuses.load(Relaxed) {
                return Err(refusal());
            }
            let before = self.stored.lock().insert(name.clone(), write.contents[0].clone());
            self.writes.lock().push((name, self.second()));
            self.written.notify_one();
            if self.is_late.load(Relaxed) { Err(refusal()) } else { Ok(vec![before]) }
        }
        .boxed()
    }

    fn read<'a>(&'a self, _: &'a [SinkEntry]) -> BoxFuture<'a, Result<Option<Contents>, StoreFault>> {
        let seen = if self.refuses.load(Relaxed) { Err(refusal()) } else { Ok(None) };
        std::future::ready(seen).boxed()
    }

    fn retract<'a>(&'a self, _: &'a Retraction) -> BoxFuture<'a, Result<u64, StoreFault>> {
        std::future::ready(Ok(0)).boxed()
    }
}

fn refusal() -> StoreFault {
    StoreFault { class: "other", what: "it refuses".into(), advice: "wait".into(), scope: StoreFaultScope::Entry }
}

fn key(app: usize) -> String {
    format!("access_token:wx{app}")
}

fn publish(writers: &[CredentialWriter], app: usize, value: &str) {
    let value = bytes::Bytes::copy_from_slice(value.as_bytes());
    let published = Published::to_the_end(value, 1, boot_ms() + 7_200_000);
    writers[app].publish(published);
}

/// So many apps, each with a value, and the sink's task.
fn start(apps: usize, rewrite_every_ms: u64) -> (Vec<CredentialWriter>, Arc<CountingBackend>, CancellationToken) {
    let (writers, target, end, _) = start_with_stats(apps, rewrite_every_ms);
    (writers, target, end)
}

fn start_with_stats(
    apps: usize,
    rewrite_every_ms: u64,
) -> (Vec<CredentialWriter>, Arc<CountingBackend>, CancellationToken, Arc<SinkStats>) {
    let keys = |app: usize| vec![KeyConfig { name: key(app), redacted_name: None, view: View::RAW }];
    let config = TableConfig::of((0..apps).map(|app| (format!("wx{app}"), keys(app))));
    let (table, writers, _requests) = Table::new(config);
    let table = Arc::new(table);
    (0..apps).for_each(|app| publish(&writers, app, "a-token"));
    let entry = |app: usize| SinkEntry {
        app: format!("wx{app}"),
        of: CredentialName::AccessToken,
        name: key(app),
        redacted_name: None,
        content: SinkContent::View(View::RAW),
    };
    let to = SinkTo::File(SinkFile::plain("/nowhere"));
    let entries = (0..apps).map(entry).collect();
    let config = Options { to, entries, check_every_ms: 5_000, rewrite_every_ms };
    let target = Arc::new(CountingBackend::default());
    let stats = Arc::<SinkStats>::default();
    let sink = SinkRunner::new(&config, target.clone(), &table, stats.clone());
    let end = CancellationToken::new();
    tokio::spawn(sink.run(end.clone()));
    (writers, target, end, stats)
}

#[tokio::test(start_paused = true)]
async fn ten_thousand_apps_are_written_again_within_the_interval_and_no_more_than_fifty_a_second() {
    const APPS: usize = 10_000;
    let (_writers, target, end) = start(APPS, 300_000);
    target.wait_for(APPS).await;
    assert_eq!(target.second(), 0, "the first time they are written at once");
    tokio::time::sleep(Duration::from_secs(301)).await;
    end.cancel();
    let writes = target.writes.lock();
    let (mut of_second, mut of_app): (HashMap<u64, u64>, HashMap<&str, u64>) = Default::default();
    for (name, second) in writes.iter().skip(APPS) {
        *of_second.entry(*second).or_default() += 1;
        *of_app.entry(name).or_default() += 1;
    }
    assert!(of_second.values().all(|count| *count <= REWRITES_PER_S), "{:?}", of_second.values().max());
    assert_eq!(of_app.len(), APPS, "each has been written again");
}

#[tokio::test(start_paused = true)]
async fn more_apps_than_fifty_a_second_take_longer() {
    const APPS: usize = 1_000;
    let (_writers, target, end) = start(APPS, 1_000);
    target.wait_for(APPS).await;
    tokio::time::sleep(Duration::from_secs(10)).await;
    end.cancel();
    let again = target.count() - APPS;
    assert!((490..=500).contains(&again), "{again}");
}

#[tokio::test(start_paused = true)]
async fn a_change_is_written_at_once_and_without_an_interval_nothing_else_is() {
    let (writers, target, end) = start(100, 0);
    target.wait_for(100).await;
    tokio::time::sleep(Duration::from_secs(3_600)).await;
    assert_eq!(target.count(), 100);
    publish(&writers, 42, "another-token");
    target.wait_for(101).await;
    assert_eq!(*target.writes.lock().last().unwrap(), (key(42), 3_600));
    end.cancel();
}

/// Each has a place of its own, so those that hang hold up none of the others.
#[tokio::test(start_paused = true)]
async fn an_entry_that_hangs_holds_up_no_other() {
    let (writers, target, end) = start(100, 0);
    target.wait_for(100).await;
    target.hung.lock().push(key(1));
    publish(&writers, 1, "a-token-that-is-never-written");
    for app in 2..100 {
        publish(&writers, app, "another-token");
    }
    target.wait_for(198).await;
    end.cancel();
}

#[tokio::test(start_paused = true)]
async fn what_is_refused_is_tried_again_and_rarer() {
    let (writers, target, end) = start(10, 0);
    target.wait_for(10).await;
    target.refuses.store(true, Relaxed);
    publish(&writers, 3, "another-token");
    tokio::time::sleep(Duration::from_secs(60)).await;
    assert_eq!(target.count(), 10);
    target.refuses.store(false, Relaxed);
    target.wait_for(11).await;
    assert!(target.second() <= 90, "{}", target.second());
    end.cancel();
}

/// A link or a folder may have been put in a file's place.
#[tokio::test(start_paused = true)]
async fn what_can_no_longer_be_looked_at_is_a_failure_until_it_is_written_again() {
    let (_writers, target, end, stats) = start_with_stats(1, 0);
    target.wait_for(1).await;
    target.refuses.store(true, Relaxed);
    tokio::time::sleep(Duration::from_secs(6)).await;
    for second in 0..60 {
        assert!(stats.recent().last_error.is_some(), "said to be well after {second} s");
        tokio::time::sleep(Duration::from_secs(1)).await;
    }
    target.refuses.store(false, Relaxed);
    target.wait_for(2).await;
    tokio::time::sleep(Duration::from_secs(1)).await;
    assert!(stats.recent().last_error.is_none());
    end.cancel();
}

#[tokio::test(start_paused = true)]
async fn what_is_written_after_it_was_given_up_is_not_taken_for_a_foreign_writers() {
    let (writers, target, end, stats) = start_with_stats(1, 0);
    target.wait_for(1).await;
    target.is_late.store(true, Relaxed);
    publish(&writers, 0, "the-token-that-was-given-up");
    target.wait_for(2).await;
    target.is_late.store(false, Relaxed);
    publish(&writers, 0, "the-token-after-that-one");
    target.wait_for(3).await;
    // The next write is judged after this one.
    publish(&writers, 0, "the-last-token-of-them-all");
    target.wait_for(4).await;
    end.cancel();
    assert_eq!(stats.foreign_writes.load(Relaxed), 0);
}
