//! The lock of the state file: only one process writes it. Two would overwrite each other, and a new refresh token of
//! one of them would be lost.
//!
//! The lock (flock) is on a file beside the state file, `<state>.lock`, because the state file itself is replaced at
//! each write. The lock ends with its process, however that ends. The lock file is never removed, so that its name is
//! the same file for all processes. Its content is for people; only the lock counts.
//!
//! If the file system has no such locks (some network file systems), that is logged once, and nothing is locked.

use std::fmt;
use std::fs::{self, File, TryLockError};
use std::io::{self, Read, Seek, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use tracing::{info, warn};

use super::state::{self, FileStore, LoadedState, Snapshot, StateStore};

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

/// Which process holds a lock, as the lock file says.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LockHolder {
    pid: Option<u32>,
    host: String,
}

impl fmt::Display for LockHolder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.pid {
            Some(pid) if self.host.is_empty() => write!(f, "process {pid}"),
            Some(pid) => write!(f, "process {pid} on host {}", self.host),
            None => f.write_str("another process"),
        }
    }
}

impl LockHolder {
    fn this_process() -> LockHolder {
        let host = rustix::system::uname().nodename().to_string_lossy().into_owned();
        LockHolder { pid: Some(std::process::id()), host: plain(&host) }
    }

    /// Reads the lock file. The content is shown to people, so only plain characters are taken.
    fn read(mut file: &File) -> LockHolder {
        let mut text = String::new();
        let read = file.rewind().and_then(|()| file.take(HOLDER_BYTES_MAX).read_to_string(&mut text));
        if read.is_err() {
            return LockHolder::default();
        }
        let mut words = text.split_whitespace();
        let pid = words.next().and_then(|word| word.parse().ok());
        LockHolder { pid, host: words.next().map(plain).unwrap_or_default() }
    }

    /// Writes the lock file. If the disk is full it stays empty; it never keeps another process's name.
    fn write(&self, mut file: &File) -> io::Result<()> {
        let facts = file.metadata()?;
        // Not into a file that is linked there.
        if facts.nlink() > 1 || facts.len() > HOLDER_BYTES_MAX {
            return Ok(());
        }
        file.set_len(0)?;
        file.rewind()?;
        file.write_all(format!("{} {}\n", self.pid.unwrap_or_default(), self.host).as_bytes())
    }
}

fn plain(host: &str) -> String {
    host.chars().filter(|c| c.is_ascii_alphanumeric() || matches!(c, '.' | '-' | '_')).take(64).collect()
}

/// Whether this process has the lock.
#[derive(Debug)]
enum LockState {
    Ours(Lock),
    /// The file system has no locks: two processes could both write.
    Unsupported,
    NotOurs(LockHolder),
    /// The lock file cannot be made or opened: the disk is full, or the folder is read-only or missing.
    Unavailable(io::Error),
}

/// A lock that is held. Released when dropped, or when the process ends.
#[derive(Debug)]
struct Lock {
    file: File,
    path: PathBuf,
}

impl LockState {
    /// Takes the lock if it is free. Logs if the file system has no locks.
    fn take(state: &Path) -> LockState {
        let path = lock_path(state);
        for _ in 0..TRIES {
            let file = match open(&path) {
                Ok(file) => file,
                Err(error) => return LockState::Unavailable(error),
            };
            match file.try_lock() {
                Ok(()) => {}
                Err(TryLockError::WouldBlock) => return LockState::NotOurs(LockHolder::read(&file)),
                Err(TryLockError::Error(error)) if is_unsupported(&error) => {
                    warn!(
                        path = %state.display(),
                        %error,
                        "the state file cannot be locked on this file system: make sure that no second server uses it"
                    );
                    return LockState::Unsupported;
                }
                Err(TryLockError::Error(error)) => return LockState::Unavailable(error),
            }
            let lock = Lock { file, path: path.clone() };
            // The file may have been removed since it was opened, and made again by another process.
            if lock.is_in_place() {
                // If that fails, other processes cannot say which process holds the lock.
                let _ = LockHolder::this_process().write(&lock.file);
                return LockState::Ours(lock);
            }
        }
        LockState::Unavailable(io::Error::other("the lock file is replaced over and over"))
    }

    /// As [`LockState::take`], tried again if a process only checks the lock.
    #[expect(clippy::disallowed_methods, reason = "called from a thread that may block")]
    fn take_patiently(state: &Path) -> LockState {
        for _ in 1..TRIES {
            match LockState::take(state) {
                LockState::NotOurs(_) => std::thread::sleep(LOOK_EVERY),
                taken => return taken,
            }
        }
        LockState::take(state)
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

/// Opens or creates the lock file. In a read-only folder it can still be locked.
fn open(path: &Path) -> io::Result<File> {
    let mut options = File::options();
    options.read(true).write(true).create(true).truncate(false).mode(0o600).custom_flags(state::open_flags());
    let file = options.open(path).or_else(|error| state::open_to_read(path).map_err(|_| error))?;
    if !file.metadata()?.is_file() {
        return Err(io::Error::other("is not a regular file"));
    }
    Ok(file)
}

/// True for the error of a file system without locks.
fn is_unsupported(error: &io::Error) -> bool {
    use rustix::io::Errno;
    let unsupported = [Errno::NOLCK, Errno::OPNOTSUPP, Errno::NOSYS, Errno::INVAL];
    error.raw_os_error().is_some_and(|code| unsupported.iter().any(|errno| errno.raw_os_error() == code))
}

/// Which process has that state file now; none if none is found. Holds the lock for a moment only.
pub fn holder(state: &Path) -> Option<LockHolder> {
    let file = state::open_to_read(&lock_path(state)).ok()?;
    match file.try_lock_shared() {
        Err(TryLockError::WouldBlock) => Some(LockHolder::read(&file)),
        Ok(()) | Err(TryLockError::Error(_)) => None,
    }
}

/// Waits until no other process holds the lock. Returns the holder if it has not ended after [`PATIENCE`]. Stops as
/// soon as `is_given_up`. Blocks.
#[expect(clippy::disallowed_methods, reason = "called from a thread that may block")]
pub fn wait_until_free(
    state: &Path,
    is_given_up: impl Fn() -> bool,
    waiting: impl FnOnce(&LockHolder),
) -> Result<(), LockHolder> {
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

/// A state file that only one process writes.
pub struct LockedStore {
    file: FileStore,
    hold: Mutex<LockState>,
}

impl LockedStore {
    /// Takes the lock if it is free. If it is not available now, nothing can be written, and the first write logs that.
    pub fn open(path: &Path) -> LockedStore {
        let hold = Mutex::new(LockState::take_patiently(path));
        let store = LockedStore { file: FileStore::new(path), hold };
        store.clean();
        store
    }

    /// The process that has the file, if it is not this one.
    pub fn other(&self) -> Option<LockHolder> {
        if let LockState::NotOurs(holder) = &*self.hold.lock() { Some(holder.clone()) } else { None }
    }

    fn clean(&self) {
        let removed = match &*self.hold.lock() {
            LockState::Ours(_) => self.file.remove_unfinished(true),
            LockState::Unsupported => self.file.remove_unfinished(false),
            LockState::NotOurs(_) | LockState::Unavailable(_) => 0,
        };
        if removed > 0 {
            let path = self.file.path.display();
            info!(%path, removed, "removed unfinished state files of a process that was killed");
        }
    }

    /// True if this process may read and write the state already.
    fn has_claim(&self) -> bool {
        match &*self.hold.lock() {
            LockState::Ours(lock) => lock.is_in_place(),
            LockState::Unsupported => true,
            LockState::NotOurs(_) | LockState::Unavailable(_) => false,
        }
    }
}

impl StateStore for LockedStore {
    fn path(&self) -> Option<&Path> {
        self.file.path()
    }

    /// A file of another process is read and not changed.
    fn load(&self) -> LoadedState {
        if self.has_claim() { self.file.load() } else { self.file.read() }
    }

    fn save(&self, snapshot: &Snapshot) -> io::Result<()> {
        self.file.save(snapshot)
    }

    fn claim(&self) -> io::Result<Option<Snapshot>> {
        if self.has_claim() {
            return Ok(None);
        }
        let state = &self.file.path;
        match LockState::take(state) {
            LockState::Unavailable(source) => {
                return Err(io::Error::new(source.kind(), LockFileFault { path: lock_path(state), source }));
            }
            taken => *self.hold.lock() = taken,
        }
        if let Some(holder) = self.other() {
            let text = format!("the state file is in use by {holder}");
            return Err(io::Error::new(io::ErrorKind::WouldBlock, text));
        }
        self.clean();
        match self.file.load() {
            LoadedState::Found(snapshot) => return Ok(Some(snapshot)),
            LoadedState::Empty => {}
            LoadedState::Refused { reason: error, .. } => warn!(
                path = %state.display(),
                error,
                "the state file cannot be used and is set aside; this process's own state takes its place"
            ),
        }
        Ok(None)
    }
}

/// With its cause, which says what to do.
#[derive(Debug, thiserror::Error)]
#[error("the lock file {}: {source}", path.display())]
struct LockFileFault {
    path: PathBuf,
    source: io::Error,
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::credential::quota_usage::QuotaUsage;
    use crate::credential::state::{CredentialIdentity, StoredUsage};

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
        assert_eq!(other, LockHolder::this_process());
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
            assert_eq!(holder(&state).unwrap().to_string(), shown);
        }
        fs::write(lock_path(&state), b"\xff\xfe").unwrap();
        assert_eq!(holder(&state).unwrap().to_string(), "another process");
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
        let first = LockedStore::open(&state);
        assert!(first.other().is_none() && first.claim().unwrap().is_none());
        first.save(&snapshot("one")).unwrap();
        let second = LockedStore::open(&state);
        assert_eq!(second.other(), Some(LockHolder::this_process()));
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
        let first = LockedStore::open(&state);
        first.save(&snapshot("one")).unwrap();
        fs::remove_file(lock_path(&state)).unwrap();
        let second = LockedStore::open(&state);
        assert!(second.other().is_none());
        assert_eq!(first.claim().unwrap_err().kind(), io::ErrorKind::WouldBlock);
        drop(second);
        assert_eq!(first.claim().unwrap().unwrap().boot_id, "one");
    }

    #[test]
    fn a_folder_that_is_not_there_yet_is_locked_when_it_is() {
        let folder = tempfile::tempdir().unwrap();
        let state = folder.path().join("later/state.json");
        let store = LockedStore::open(&state);
        assert!(store.other().is_none() && matches!(store.load(), LoadedState::Empty));
        let error = store.claim().unwrap_err();
        assert!(error.to_string().contains("state.json.lock"), "{error}");
        fs::create_dir(folder.path().join("later")).unwrap();
        assert!(store.claim().unwrap().is_none());
        store.save(&snapshot("one")).unwrap();
        assert!(LockedStore::open(&state).other().is_some());
    }
}
