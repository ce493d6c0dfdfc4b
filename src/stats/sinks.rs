//! What each sink counts and what has happened to it last, for `stats`, metrics and the status page.
//!
//! Never holds a value.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};

use parking_lot::{Mutex, MutexGuard};

/// One sink: what it is, and its figures since the start.
#[derive(Default, Debug)]
pub struct SinkStats {
    /// `redis`, `sql`, `file` or `command`.
    pub sink_type: &'static str,
    /// Where it writes, without anything secret.
    pub target: String,
    /// Whether its target can be used at present.
    pub connected: AtomicBool,
    /// Credentials that are still to be written.
    pub waiting: AtomicU64,
    /// Entries written: keys, files, rows, runs of a command.
    pub writes: AtomicU64,
    /// Entries taken away or marked as expired because their value was withdrawn or had ended.
    pub deletes: AtomicU64,
    /// Tokens found there that somebody else had written over ours.
    pub foreign_writes: AtomicU64,
    recent: Mutex<RecentSinkEvents>,
}

#[derive(Clone, Default, Debug)]
pub struct RecentSinkEvents {
    /// How often connecting or writing failed, by class.
    pub failures: BTreeMap<&'static str, u64>,
    /// The last failure, if not everything is written since.
    pub last_error: Option<SinkError>,
    pub last_write: Option<SinkWrite>,
}

/// Why something could not be written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SinkError {
    /// One word.
    pub class: &'static str,
    /// Whose fault it is: `configuration`, `target`, `network`, `upstream` or `server`.
    pub responsible: &'static str,
    /// What is wrong.
    pub what: Cow<'static, str>,
    /// What to do about it.
    pub advice: Cow<'static, str>,
    /// The managed key it is about, if it is about one.
    pub about: Option<String>,
    pub at_unix_ms: i64,
}

/// What was written, never the value.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SinkWrite {
    pub app: String,
    /// `access_token`, `jsapi_ticket` and so on.
    pub credential_type: &'static str,
    /// The key, the path, the row, as people may read it.
    pub entry: String,
    pub at_unix_ms: i64,
}

impl SinkStats {
    pub fn new(sink_type: &'static str, target: String) -> SinkStats {
        SinkStats { sink_type, target, ..SinkStats::default() }
    }

    /// Notes that so many entries of a credential are written; one of them is shown.
    pub fn record_write(&self, write: SinkWrite, entries: u64) {
        self.writes.fetch_add(entries, Relaxed);
        self.recent.lock().last_write = Some(write);
    }

    /// Counts a failure.
    pub fn record_failure(&self, error: SinkError) {
        let mut recent = self.recent.lock();
        *recent.failures.entry(error.class).or_default() += 1;
        recent.last_error = Some(error);
    }

    /// Of one moment. To be held for a moment only.
    pub fn recent(&self) -> MutexGuard<'_, RecentSinkEvents> {
        self.recent.lock()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn error(class: &'static str) -> SinkError {
        let (what, advice) = ("it refused".into(), "see its log".into());
        SinkError { class, responsible: "target", what, advice, about: None, at_unix_ms: 1 }
    }

    #[test]
    fn failures_are_counted_by_class_and_the_last_one_is_shown_until_all_is_written() {
        let sink = SinkStats::new("redis", "redis://localhost".to_owned());
        assert_eq!(sink.recent().last_error, None);
        ["timeout", "memory", "timeout"].into_iter().for_each(|class| sink.record_failure(error(class)));
        let failures = BTreeMap::from([("memory", 1), ("timeout", 2)]);
        assert_eq!(sink.recent().failures, failures);
        assert_eq!(sink.recent().last_error, Some(error("timeout")));
        sink.recent().last_error = None;
        assert_eq!(sink.recent().failures, failures);
    }

    #[test]
    fn the_last_write_is_shown_and_all_are_counted() {
        let sink = SinkStats::new("file", "/srv/www/token.php".to_owned());
        let write = |at_unix_ms| SinkWrite {
            app: "wx1".into(),
            credential_type: "access_token",
            entry: "a".into(),
            at_unix_ms,
        };
        sink.record_write(write(1), 2);
        sink.record_write(write(2), 1);
        assert_eq!((sink.writes.load(Relaxed), sink.recent().last_write.clone()), (3, Some(write(2))));
    }
}
