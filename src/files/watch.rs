//! Watches small files that may be replaced while the server runs: secrets, refresh tokens, verify tickets, users, keys,
//! certificates.
//!
//! One rule for all. A file is checked every second; with more than a thousand files, every second for each thousand.
//! Links are followed. If inode, size or times differ from the last check, or are too recent to be sure, it is read. Only
//! content that reads the same twice is taken, so a file that is still being written is not. A bad or missing file changes
//! nothing and is logged once. Each file system has a thread of its own, so a disk that hangs delays its own files only.
//! Never writes, and needs no notification from the kernel: network disks give none.

use std::collections::{HashMap, HashSet};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use sha2::{Digest as _, Sha256};
use tokio::sync::mpsc;
use tokio::task::{Id, JoinError, JoinSet};
use tokio::time::{Instant, sleep_until};
use tokio_util::sync::CancellationToken;
use tracing::{error, info, warn};
use zeroize::Zeroizing;

use super::{DiskTimeout, ReadFault, WAIT_MAX, read};

/// A file is looked at so often...
const LOOK_EVERY: Duration = Duration::from_secs(1);
/// ...if there are no more than so many.
const FILES_PER_LOOK: usize = 1_000;
/// What reads the same so much later is not being written.
pub const SETTLE: Duration = Duration::from_millis(250);
/// Two changes within a file system's finest step of time look like one; the coarsest common step is 2 s (FAT).
const YOUNG: Duration = Duration::from_secs(2);
/// How long to sleep if nothing is watched, or each disk hangs. Whatever happens wakes the watch.
const NOTHING_DUE: Duration = Duration::from_secs(86_400);
/// Files on file systems not known yet that are looked at at once.
const UNKNOWN_MAX: usize = 8;

pub type FileContent = Zeroizing<Vec<u8>>;

/// Compares contents without keeping them.
pub type ContentDigest = [u8; 32];

pub fn digest_of(contents: &[FileContent]) -> ContentDigest {
    let mut digest = Sha256::new();
    for content in contents {
        digest.update((content.len() as u64).to_le_bytes());
        digest.update(&**content);
    }
    digest.finalize().into()
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum NotApplied {
    /// It is no good. A sentence that says why and quotes nothing.
    Bad(String),
    /// It may be good; offer it again.
    Busy,
}

/// Something that is read from files and may be replaced there.
pub trait WatchedFiles: Send {
    /// For the log, such as `the users' file`.
    fn name(&self) -> String;

    /// The files, whose contents belong together. They may be others after a reload.
    fn paths(&self) -> Vec<PathBuf>;

    /// The largest file that is read.
    fn bytes_max(&self) -> usize;

    /// Takes contents that differ from those taken last, or those that are there at the start.
    fn apply(&mut self, contents: &[FileContent], at_start: bool) -> Result<(), NotApplied>;

    /// Whether nothing is to be said of a file that is not there.
    fn may_be_missing(&self) -> bool {
        false
    }

    /// Whether it is not to be watched any more.
    fn is_over(&self) -> bool {
        false
    }
}

/// One file, whose content `apply` is told of until `end`.
pub struct FollowedFile<A> {
    pub name: String,
    pub path: PathBuf,
    pub bytes_max: usize,
    pub may_be_missing: bool,
    pub end: CancellationToken,
    pub apply: A,
}

impl<A: FnMut(&[u8], bool) -> Result<(), NotApplied> + Send> WatchedFiles for FollowedFile<A> {
    fn name(&self) -> String {
        self.name.clone()
    }

    fn paths(&self) -> Vec<PathBuf> {
        vec![self.path.clone()]
    }

    fn bytes_max(&self) -> usize {
        self.bytes_max
    }

    fn apply(&mut self, contents: &[FileContent], at_start: bool) -> Result<(), NotApplied> {
        (self.apply)(contents.first().map(|content| content.as_slice()).unwrap_or_default(), at_start)
    }

    fn may_be_missing(&self) -> bool {
        self.may_be_missing
    }

    fn is_over(&self) -> bool {
        self.end.is_cancelled()
    }
}

pub async fn watch_files(all: Vec<Box<dyn WatchedFiles>>, end: CancellationToken) {
    let (_, none) = mpsc::unbounded_channel();
    if !all.is_empty() {
        watch_files_and_more(all, none, end).await;
    }
}

/// Follows all these, and what is added, until `end`.
pub async fn watch_files_and_more(
    all: Vec<Box<dyn WatchedFiles>>,
    mut more: mpsc::UnboundedReceiver<Box<dyn WatchedFiles>>,
    end: CancellationToken,
) {
    let files = all.into_iter().map(File::new).collect();
    let mut watch = FileWatcher { files, jobs: JoinSet::new(), running: HashMap::new() };
    loop {
        watch.check_due_files();
        let wake = watch.next_wake();
        tokio::select! {
            () = end.cancelled() => return,
            // All that is there, then one look at the list: at a start it is a file an app.
            Some(added) = more.recv() => {
                watch.files.push(File::new(added));
                watch.files.extend(std::iter::from_fn(|| more.try_recv().ok()).map(File::new));
            }
            Some(done) = watch.jobs.join_next_with_id() => if let Err(error) = watch.finish_check(done) {
                error!(%error, "looking at a file panicked: this is a bug");
                return;
            },
            () = sleep_until(wake) => watch.warn_of_hung_disks(),
        }
    }
}

struct FileWatcher {
    /// Those that are not being looked at.
    files: Vec<File>,
    jobs: JoinSet<Vec<File>>,
    running: HashMap<Id, RunningCheck>,
}

struct RunningCheck {
    device: Option<u64>,
    since: Instant,
    names: Vec<String>,
    warned: bool,
}

impl FileWatcher {
    /// How often each file is checked.
    fn every(&self) -> Duration {
        let all = self.files.len() + self.running.values().map(|running| running.names.len()).sum::<usize>();
        LOOK_EVERY * u32::try_from(all.div_ceil(FILES_PER_LOOK).max(1)).unwrap_or(u32::MAX)
    }

    fn check_due_files(&mut self) {
        let now = Instant::now();
        self.files.retain(|file| !file.watched.is_over());
        let busy = self.busy();
        let mut groups: HashMap<u64, Vec<File>> = HashMap::new();
        for file in std::mem::take(&mut self.files) {
            match file.device {
                _ if file.due > now => self.files.push(file),
                Some(device) if busy.contains(&device) => self.files.push(file),
                Some(device) => groups.entry(device).or_default().push(file),
                None if self.unknown() < UNKNOWN_MAX => self.check_files(None, vec![file]),
                None => self.files.push(file),
            }
        }
        for (device, group) in groups {
            self.check_files(Some(device), group);
        }
    }

    fn check_files(&mut self, device: Option<u64>, mut group: Vec<File>) {
        let names = group.iter().map(File::description).collect();
        let task = self.jobs.spawn_blocking(move || {
            for file in &mut group {
                file.check();
            }
            group
        });
        self.running.insert(task.id(), RunningCheck { device, since: Instant::now(), names, warned: false });
    }

    fn finish_check(&mut self, done: Result<(Id, Vec<File>), JoinError>) -> Result<(), JoinError> {
        let (id, group) = done?;
        if let Some(running) = self.running.remove(&id).filter(|running| running.warned) {
            info!(files = running.names.join(", "), "the disk answers again");
        }
        let (now, first) = (Instant::now(), self.files.len());
        self.files.extend(group);
        let every = self.every();
        for file in self.files.iter_mut().skip(first) {
            file.due = now + if file.candidate.is_some() { SETTLE } else { every };
        }
        Ok(())
    }

    /// File systems that are being looked at.
    fn busy(&self) -> HashSet<u64> {
        self.running.values().filter_map(|running| running.device).collect()
    }

    fn unknown(&self) -> usize {
        self.running.values().filter(|running| running.device.is_none()).count()
    }

    /// When there is something to do even if no read ends.
    fn next_wake(&self) -> Instant {
        let (busy, full) = (self.busy(), self.unknown() >= UNKNOWN_MAX);
        let waits = |file: &&File| file.device.map_or(full, |device| busy.contains(&device));
        let due = self.files.iter().filter(|file| !waits(file)).map(|file| file.due);
        let hung = self.running.values().filter(|running| !running.warned).map(|running| running.since + WAIT_MAX);
        due.chain(hung).min().unwrap_or_else(|| Instant::now() + NOTHING_DUE)
    }

    fn warn_of_hung_disks(&mut self) {
        let now = Instant::now();
        for running in self.running.values_mut().filter(|running| !running.warned && running.since + WAIT_MAX <= now) {
            running.warned = true;
            warn!(files = running.names.join(", "), "the files {DiskTimeout}; the last good content is kept");
        }
    }
}

#[derive(Clone, PartialEq, Eq)]
enum FileState {
    Holding(ContentDigest),
    Missing,
    Unreadable(String),
}

/// By what two states of a file differ without reading it.
#[derive(Clone, PartialEq, Eq)]
struct Stamp {
    path: PathBuf,
    device: u64,
    inode: u64,
    bytes: u64,
    modified: (i64, i64),
    changed: (i64, i64),
}

struct File {
    watched: Box<dyn WatchedFiles>,
    due: Instant,
    /// The file system that it was last on.
    device: Option<u64>,
    /// Of the last look, if nothing can have changed since that they do not tell.
    stamps: Option<Vec<Stamp>>,
    /// Seen once; it counts if it is seen again.
    candidate: Option<FileState>,
    handled: Option<FileState>,
    applied: Option<ContentDigest>,
    /// What was last said about it, to say it once.
    logged_fault: Option<String>,
}

impl File {
    fn new(watched: Box<dyn WatchedFiles>) -> File {
        let due = Instant::now();
        File {
            watched,
            due,
            device: None,
            stamps: None,
            candidate: None,
            handled: None,
            applied: None,
            logged_fault: None,
        }
    }

    fn description(&self) -> String {
        let paths: Vec<_> = self.watched.paths().iter().map(|path| path.display().to_string()).collect();
        format!("{} {}", self.watched.name(), paths.join(", "))
    }

    /// Blocks.
    #[expect(clippy::disallowed_methods, reason = "the times of files are those of the wall clock")]
    fn check(&mut self) {
        let paths = self.watched.paths();
        let Some(first) = paths.first() else { return };
        let now = SystemTime::now();
        let stamps: Vec<Stamp> = paths.iter().filter_map(|path| stamp(path)).collect();
        self.device = stamps.first().map(|stamp| stamp.device).or_else(|| device_of_folder(first));
        let whole = stamps.len() == paths.len();
        if whole && self.candidate.is_none() && self.stamps.as_ref() == Some(&stamps) {
            return;
        }
        let is_old = whole && stamps.iter().all(|stamp| stamp.is_old(now));
        let (found, contents) = read_all(&paths, self.watched.bytes_max());
        if self.handled.as_ref() == Some(&found) {
            self.candidate = None;
        } else if self.candidate.as_ref() == Some(&found) || (self.handled.is_none() && is_old) {
            self.candidate = None;
            self.handle_change(found, &contents);
        } else {
            self.candidate = Some(found);
        }
        self.stamps = Some(stamps).filter(|_| is_old && self.candidate.is_none());
    }

    fn handle_change(&mut self, found: FileState, contents: &[FileContent]) {
        let fault = match &found {
            FileState::Holding(digest) if self.applied.as_ref() == Some(digest) => None,
            FileState::Holding(digest) => match self.watched.apply(contents, self.handled.is_none()) {
                Ok(()) => {
                    self.applied = Some(*digest);
                    None
                }
                Err(NotApplied::Bad(reason)) => Some(format!("is not used: {reason}")),
                Err(NotApplied::Busy) => {
                    self.candidate = Some(found);
                    return;
                }
            },
            FileState::Missing if self.watched.may_be_missing() => return self.handled = Some(found),
            FileState::Missing => Some("is missing".to_owned()),
            FileState::Unreadable(reason) => Some(reason.clone()),
        };
        self.handled = Some(found);
        self.report(fault);
    }

    /// Says a fault once, and when it is over.
    fn report(&mut self, fault: Option<String>) {
        match &fault {
            Some(reason) if self.logged_fault != fault => {
                warn!("{} {reason}; the last good content is kept", self.description());
            }
            None if self.logged_fault.is_some() => info!("{} can be used again", self.description()),
            _ => {}
        }
        self.logged_fault = fault;
    }
}

impl Stamp {
    /// Not changed lately, nor in the future: another change would show.
    fn is_old(&self, now: SystemTime) -> bool {
        let now_s = now.duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs());
        let now_s = i64::try_from(now_s).unwrap_or(i64::MAX);
        let young_s = i64::try_from(YOUNG.as_secs()).unwrap_or(0);
        self.modified.0.max(self.changed.0) + young_s < now_s
    }
}

fn stamp(path: &Path) -> Option<Stamp> {
    let found = std::fs::metadata(path).ok()?;
    Some(Stamp {
        path: path.to_owned(),
        device: found.dev(),
        inode: found.ino(),
        bytes: found.size(),
        modified: (found.mtime(), found.mtime_nsec()),
        changed: (found.ctime(), found.ctime_nsec()),
    })
}

fn device_of_folder(path: &Path) -> Option<u64> {
    std::fs::metadata(path.parent()?).ok().map(|found| found.dev())
}

fn read_all(paths: &[PathBuf], bytes_max: usize) -> (FileState, Vec<FileContent>) {
    let mut contents = Vec::with_capacity(paths.len());
    for path in paths {
        match read(path, bytes_max) {
            Ok(content) => contents.push(content),
            Err(ReadFault::Io(error)) if error.kind() == std::io::ErrorKind::NotFound => {
                return (FileState::Missing, Vec::new());
            }
            Err(fault) => return (FileState::Unreadable(fault.sentence()), Vec::new()),
        }
    }
    (FileState::Holding(digest_of(&contents)), contents)
}

#[cfg(test)]
mod tests;
