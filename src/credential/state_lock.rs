//! The lock of the state file: only one process writes it. Two would overwrite each other, and a new refresh token of
//! one of them would be lost.
//!
//! The lock (flock) is on a file beside the state file, `<state>.lock`, because the state file itself is replaced at
//! each write. The lock ends with its process, however that ends. The lock file is never removed, so that its name is
//! the same file for all processes. Its content is for people; only the lock counts.
//!
//! If the file system has no such locks (some network file systems), that is logged once, and nothing is locked.

use std::fs::{self, File, TryLockError};
use std::io::{self, Read, Seek, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use tracing::warn;

/// How long a start waits for a process that is ending.
pub const PATIENCE: Duration = Duration::from_secs(10);
const LOOK_EVERY: Duration = Duration::from_millis(50);
/// Tries to take the lock: a process that only checks it holds it for a moment, too.
const TRIES: usize = 5;
/// Longer than anything we write into a lock file.
const HOLDER_BYTES_MAX: u64 = 256;

pub fn lock_path(state: &Path) -> PathBuf {
    let mut path = state.as_os_str().to_owned();
    path.push(".lock");
    path.into()
}

/// Whether this process has the lock.
#[derive(Debug)]
pub(super) enum LockState {
    Ours(Lock),
    /// The file system has no locks: two processes could both write.
    Unsupported,
    /// Which process has it, for people.
    NotOurs(String),
    /// The lock file cannot be made or opened: the disk is full, or the folder is read-only or missing.
    Unavailable(io::Error),
}

/// A lock that is held. Released when dropped, or when the process ends.
#[derive(Debug)]
pub(super) struct Lock {
    file: File,
    path: PathBuf,
}

/// With its cause, which says what to do.
#[derive(Debug, thiserror::Error)]
#[error("the lock file {}: {source}", path.display())]
struct LockFileFault {
    path: PathBuf,
    source: io::Error,
}

impl LockState {
    /// Takes the lock if it is free. Logs if the file system has no locks.
    pub fn take(state: &Path) -> LockState {
        let path = lock_path(state);
        LockState::try_take(state, &path).unwrap_or_else(|source| {
            LockState::Unavailable(io::Error::new(source.kind(), LockFileFault { path, source }))
        })
    }

    fn try_take(state: &Path, path: &Path) -> io::Result<LockState> {
        for _ in 0..TRIES {
            let file = open(path)?;
            match file.try_lock() {
                Ok(()) => {}
                Err(TryLockError::WouldBlock) => return Ok(LockState::NotOurs(read_holder(&file))),
                Err(TryLockError::Error(error)) if is_unsupported(&error) => {
                    warn!(
                        path = %state.display(),
                        %error,
                        "the state file cannot be locked on this file system: make sure that no second server uses it"
                    );
                    return Ok(LockState::Unsupported);
                }
                Err(TryLockError::Error(error)) => return Err(error),
            }
            let lock = Lock { file, path: path.to_owned() };
            // The file may have been removed since it was opened, and made again by another process.
            if lock.is_in_place() {
                // If that fails, other processes cannot say which process holds the lock.
                let _ = write_holder(&lock.file);
                return Ok(LockState::Ours(lock));
            }
        }
        Err(io::Error::other("the lock file is replaced over and over"))
    }

    /// As [`LockState::take`], tried again if a process only checks the lock.
    #[expect(clippy::disallowed_methods, reason = "called from a thread that may block")]
    pub fn take_patiently(state: &Path) -> LockState {
        for _ in 1..TRIES {
            match LockState::take(state) {
                LockState::NotOurs(_) => std::thread::sleep(LOOK_EVERY),
                taken => return taken,
            }
        }
        LockState::take(state)
    }

    /// True if this process may write the state.
    pub fn may_write(&self) -> bool {
        match self {
            LockState::Ours(lock) => lock.is_in_place(),
            LockState::Unsupported => true,
            LockState::NotOurs(_) | LockState::Unavailable(_) => false,
        }
    }
}

impl Lock {
    /// False if the name is another file by now, or none: then the lock has no effect.
    fn is_in_place(&self) -> bool {
        let id = |facts: fs::Metadata| (facts.dev(), facts.ino());
        let now = fs::symlink_metadata(&self.path).map(id);
        now.ok().zip(self.file.metadata().map(id).ok()).is_some_and(|(now, ours)| now == ours)
    }
}

/// Writes into the lock file which process this is. If the disk is full it stays empty; it never keeps another
/// process's name.
fn write_holder(mut file: &File) -> io::Result<()> {
    let facts = file.metadata()?;
    // Not into a file that is linked there.
    if facts.nlink() > 1 || facts.len() > HOLDER_BYTES_MAX {
        return Ok(());
    }
    file.set_len(0)?;
    file.rewind()?;
    let host = plain(&rustix::system::uname().nodename().to_string_lossy());
    file.write_all(format!("{} {host}\n", std::process::id()).as_bytes())
}

/// Which process holds the lock, as the lock file says. That is shown to people, so only plain characters are taken.
fn read_holder(mut file: &File) -> String {
    let mut text = String::new();
    // What cannot be read names nobody.
    let _ = file.rewind().and_then(|()| file.take(HOLDER_BYTES_MAX).read_to_string(&mut text));
    let mut words = text.split_whitespace();
    let pid = words.next().and_then(|word| word.parse::<u32>().ok());
    match (pid, words.next().map(plain).filter(|host| !host.is_empty())) {
        (Some(pid), Some(host)) => format!("process {pid} on host {host}"),
        (Some(pid), None) => format!("process {pid}"),
        (None, _) => "another process".to_owned(),
    }
}

fn plain(host: &str) -> String {
    host.chars().filter(|c| c.is_ascii_alphanumeric() || matches!(c, '.' | '-' | '_')).take(64).collect()
}

/// Opens or creates the lock file. In a read-only folder it can still be locked.
fn open(path: &Path) -> io::Result<File> {
    let mut options = File::options();
    options.read(true).write(true).create(true).truncate(false).mode(0o600).custom_flags(open_flags());
    let file = options.open(path).or_else(|error| open_to_read(path).map_err(|_| error))?;
    if !file.metadata()?.is_file() {
        return Err(io::Error::other("is not a regular file"));
    }
    Ok(file)
}

/// Neither follows a link nor waits on a pipe.
fn open_flags() -> i32 {
    let flags = rustix::fs::OFlags::NOFOLLOW | rustix::fs::OFlags::NONBLOCK;
    i32::try_from(flags.bits()).unwrap_or(0)
}

pub(super) fn open_to_read(path: &Path) -> io::Result<File> {
    File::options().read(true).custom_flags(open_flags()).open(path)
}

/// True for the error of a file system without locks.
fn is_unsupported(error: &io::Error) -> bool {
    use rustix::io::Errno;
    let unsupported = [Errno::NOLCK, Errno::OPNOTSUPP, Errno::NOSYS, Errno::INVAL];
    error.raw_os_error().is_some_and(|code| unsupported.iter().any(|errno| errno.raw_os_error() == code))
}

/// Which process has that state file now; none if none is found. Holds the lock for a moment only.
pub fn holder(state: &Path) -> Option<String> {
    let file = open_to_read(&lock_path(state)).ok()?;
    match file.try_lock_shared() {
        Err(TryLockError::WouldBlock) => Some(read_holder(&file)),
        Ok(()) | Err(TryLockError::Error(_)) => None,
    }
}

/// Waits until no other process holds the lock. Returns the holder if it has not ended after [`PATIENCE`]. Stops as
/// soon as `is_given_up`. Blocks.
#[expect(clippy::disallowed_methods, reason = "called from a thread that may block")]
pub fn wait_until_free(state: &Path, is_given_up: impl Fn() -> bool, waiting: impl FnOnce(&str)) -> Result<(), String> {
    let begun = Instant::now();
    let mut waiting = Some(waiting);
    while let Some(holder) = holder(state).filter(|_| !is_given_up()) {
        if begun.elapsed() >= PATIENCE {
            return Err(holder);
        }
        if let Some(waiting) = waiting.take() {
            waiting(&holder);
        }
        std::thread::sleep(LOOK_EVERY);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::credential::quota_usage::QuotaUsage;
    use crate::credential::state::{CredentialIdentity, FileStore, LoadedState, Snapshot, StateStore, StoredUsage};

    fn snapshot(appid: &str) -> Snapshot {
        let name = CredentialIdentity::of(&crate::platform::mp::STABLE, appid, "http://a");
        let usages = vec![Arc::new(StoredUsage { name, calls: QuotaUsage::default() })];
        Snapshot { boot_id: appid.into(), usages, ..Snapshot::default() }
    }

    fn take(state: &Path) -> Lock {
        match LockState::take(state) {
            LockState::Ours(lock) => lock,
            other => panic!("{other:?}"),
        }
    }

    fn found(loaded: LoadedState) -> String {
        match loaded {
            LoadedState::Found(snapshot) => snapshot.boot_id,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn one_has_the_lock_and_the_others_know_who() {
        let folder = tempfile::tempdir().unwrap();
        let state = folder.path().join("state.json");
        assert_eq!(holder(&state), None, "a look makes no file");
        assert!(!lock_path(&state).exists());
        let lock = take(&state);
        let LockState::NotOurs(other) = LockState::take(&state) else { panic!() };
        assert!(other.starts_with(&format!("process {} on host ", std::process::id())), "{other}");
        assert_eq!(holder(&state), Some(other));
        drop(lock);
        assert_eq!(holder(&state), None);
        take(&state);
    }

    #[test]
    fn what_stands_in_a_lock_file_is_shown_only_if_it_is_plain() {
        let folder = tempfile::tempdir().unwrap();
        let state = folder.path().join("state.json");
        let lock = take(&state);
        for (text, shown) in [
            ("12 web-1.example\n", "process 12 on host web-1.example"),
            ("12", "process 12"),
            ("", "another process"),
            ("\u{1b}[31m evil", "another process"),
            ("7 \u{1b}[31mevil", "process 7 on host 31mevil"),
        ] {
            fs::write(lock_path(&state), text).unwrap();
            assert_eq!(holder(&state).as_deref(), Some(shown));
        }
        fs::write(lock_path(&state), b"\xff\xfe").unwrap();
        assert_eq!(holder(&state).as_deref(), Some("another process"));
        drop(lock);
    }

    #[test]
    fn a_link_a_pipe_or_a_folder_in_place_of_the_lock_file_is_not_taken_and_nothing_is_written_through_it() {
        let folder = tempfile::tempdir().unwrap();
        let (state, precious) = (folder.path().join("state.json"), folder.path().join("precious"));
        fs::write(&precious, "mine").unwrap();
        let unavailable = || {
            assert!(matches!(LockState::take(&state), LockState::Unavailable(_)));
            assert_eq!(holder(&state), None);
        };
        std::os::unix::fs::symlink(&precious, lock_path(&state)).unwrap();
        unavailable();
        fs::remove_file(lock_path(&state)).unwrap();
        fs::create_dir(lock_path(&state)).unwrap();
        unavailable();
        fs::remove_dir(lock_path(&state)).unwrap();
        // A hard link is a file like any other, and keeps others out.
        fs::hard_link(&precious, lock_path(&state)).unwrap();
        let lock = take(&state);
        assert!(matches!(LockState::take(&state), LockState::NotOurs(_)));
        assert_eq!(fs::read_to_string(&precious).unwrap(), "mine");
        drop(lock);
    }

    #[test]
    fn a_second_store_reads_and_touches_nothing_until_the_first_is_gone_and_then_gets_what_that_left() {
        let folder = tempfile::tempdir().unwrap();
        let state = folder.path().join("state.json");
        let first = FileStore::open(&state);
        assert!(first.other().is_none() && first.claim().unwrap().is_none());
        first.save(&snapshot("one")).unwrap();
        let second = FileStore::open(&state);
        assert_eq!(second.other(), holder(&state));
        assert!(second.other().is_some());
        assert_eq!(found(second.load()), "one");
        assert_eq!(second.claim().unwrap_err().kind(), io::ErrorKind::WouldBlock);
        let good = fs::read(&state).unwrap();
        fs::write(&state, "{").unwrap();
        assert!(matches!(second.load(), LoadedState::Refused { set_aside: None, .. }));
        assert!(state.exists(), "it is for its owner to set it aside");
        fs::write(&state, good).unwrap();
        first.save(&snapshot("two")).unwrap();
        drop(first);
        assert_eq!(second.claim().unwrap().unwrap().boot_id, "two");
        assert!(second.claim().unwrap().is_none(), "once");
        assert!(second.other().is_none());
    }

    #[test]
    fn a_lock_file_that_was_removed_keeps_nobody_out_and_whoever_made_it_anew_has_the_state() {
        let folder = tempfile::tempdir().unwrap();
        let state = folder.path().join("state.json");
        let first = FileStore::open(&state);
        first.save(&snapshot("one")).unwrap();
        fs::remove_file(lock_path(&state)).unwrap();
        let second = FileStore::open(&state);
        assert!(second.other().is_none());
        assert_eq!(first.claim().unwrap_err().kind(), io::ErrorKind::WouldBlock);
        drop(second);
        assert_eq!(first.claim().unwrap().unwrap().boot_id, "one");
    }

    #[test]
    fn a_folder_that_is_not_there_yet_is_locked_when_it_is() {
        let folder = tempfile::tempdir().unwrap();
        let state = folder.path().join("later/state.json");
        let store = FileStore::open(&state);
        assert!(store.other().is_none() && matches!(store.load(), LoadedState::Empty));
        let error = store.claim().unwrap_err();
        assert!(error.to_string().contains("state.json.lock"), "{error}");
        fs::create_dir(folder.path().join("later")).unwrap();
        assert!(store.claim().unwrap().is_none());
        store.save(&snapshot("one")).unwrap();
        assert!(FileStore::open(&state).other().is_some());
    }
}
