//! Small files that others write: secrets, keys, certificates, tickets. Reads them so that nothing else waits for the
//! disk, and lends its threads to other work that may block.
//!
//! A pipe in a file's place waits for a writer, and a file on a network disk for its server, for ever if it is gone.

pub mod trusted;
pub mod watch;

use std::collections::HashMap;
use std::fs::File;
use std::io::{self, Read};
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::{Arc, LazyLock};
use std::time::Duration;

use parking_lot::Mutex;
use rustix::fs::OFlags;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use zeroize::Zeroizing;

/// Reads under way at once. Those that hang keep their threads; all others must find some left.
pub const READS_MAX: usize = 16;
/// What takes longer is taken for hung.
const WAIT_MAX: Duration = Duration::from_secs(5);
/// A file of certificates of all the authorities there are is some hundred KiB.
pub const PEM_BYTES_MAX: usize = 16 << 20;
/// A file of passwords is read whole; one of this size is something else.
pub const AUTH_FILE_BYTES_MAX: usize = 16 << 20;
/// Most of these files are smaller and need no second buffer.
const CAPACITY: usize = 1024;

static READS: LazyLock<BlockingPool> = LazyLock::new(|| BlockingPool::new(READS_MAX));

#[derive(Debug, thiserror::Error)]
pub enum ReadFault {
    /// A folder, a pipe, a device.
    #[error("it is not a regular file")]
    NotAFile,
    #[error("it is too large for what it should be")]
    TooLarge,
    #[error(transparent)]
    Io(#[from] io::Error),
}

impl ReadFault {
    /// What follows "it" or a file's name.
    pub fn sentence(&self) -> String {
        match self {
            ReadFault::NotAFile => "is not a regular file".to_owned(),
            ReadFault::TooLarge => "is too large for what it should be".to_owned(),
            ReadFault::Io(error) => format!("cannot be read: {error}"),
        }
    }
}

/// A read that has not ended in time; it may go on for ever.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("cannot be read: the disk it is on does not answer")]
pub struct DiskTimeout;

/// The content of a regular file and of nothing else. Does not wait for the writer of a pipe.
pub fn read(path: &Path, bytes_max: usize) -> Result<Zeroizing<Vec<u8>>, ReadFault> {
    let file = open(path)?;
    let mut bytes = Zeroizing::new(Vec::with_capacity(CAPACITY.min(bytes_max + 1)));
    file.take(bytes_max as u64 + 1).read_to_end(&mut bytes)?;
    if bytes.len() > bytes_max { Err(ReadFault::TooLarge) } else { Ok(bytes) }
}

/// Whether anybody but the owner may read that file.
pub fn is_open_to_others(path: &Path) -> bool {
    access_mask(path) & 0o077 != 0
}

/// 0 if it is not there.
pub fn access_mask(path: &Path) -> u32 {
    std::fs::metadata(path).map_or(0, |metadata| metadata.permissions().mode())
}

fn open(path: &Path) -> Result<File, ReadFault> {
    let flags = i32::try_from(OFlags::NONBLOCK.bits()).unwrap_or(0);
    let file = File::options().read(true).custom_flags(flags).open(path)?;
    if file.metadata()?.is_file() { Ok(file) } else { Err(ReadFault::NotAFile) }
}

/// Reads this file on a thread that may block, and gives it up after a while.
pub async fn read_in_background<T: Send + 'static>(
    path: &Path,
    read: impl FnOnce() -> T + Send + 'static,
) -> Result<T, DiskTimeout> {
    READS.run(path, read).await
}

/// Threads that may block, for one purpose. Work that hangs keeps its thread; there must be enough for the rest.
pub struct BlockingPool {
    threads: Arc<Semaphore>,
    /// The paths that are worked on. Each is worked on by one thread at a time, so one that hangs keeps one thread,
    /// however often it is asked for.
    locks: Arc<Mutex<PathLocks>>,
}

type PathLocks = HashMap<PathBuf, Arc<Semaphore>>;

impl BlockingPool {
    pub fn new(threads_max: usize) -> BlockingPool {
        BlockingPool { threads: Arc::new(Semaphore::new(threads_max)), locks: Arc::default() }
    }

    /// Does this with the path, and gives it up after a while; it may then go on for ever.
    pub async fn run<T: Send + 'static>(
        &self,
        path: &Path,
        work: impl FnOnce() -> T + Send + 'static,
    ) -> Result<T, DiskTimeout> {
        let working = async {
            let turn = PathLock::take(&self.locks, path).await?;
            let place = self.threads.clone().acquire_owned().await.map_err(|_| DiskTimeout)?;
            let work = move || {
                let _kept_until_it_is_done = (turn, place);
                work()
            };
            tokio::task::spawn_blocking(work).await.map_err(|_| DiskTimeout)
        };
        tokio::time::timeout(WAIT_MAX, working).await.unwrap_or(Err(DiskTimeout))
    }
}

/// The right to work on one path. Whoever else wants to waits for it.
struct PathLock {
    path: PathBuf,
    locks: Arc<Mutex<PathLocks>>,
    permit: Option<OwnedSemaphorePermit>,
}

impl PathLock {
    async fn take(locks: &Arc<Mutex<PathLocks>>, path: &Path) -> Result<PathLock, DiskTimeout> {
        let one_at_a_time = locks.lock().entry(path.to_owned()).or_insert_with(|| Arc::new(Semaphore::new(1))).clone();
        let permit = one_at_a_time.acquire_owned().await.map_err(|_| DiskTimeout)?;
        Ok(PathLock { path: path.to_owned(), locks: locks.clone(), permit: Some(permit) })
    }
}

impl Drop for PathLock {
    fn drop(&mut self) {
        self.permit = None;
        let mut locks = self.locks.lock();
        if locks.get(&self.path).is_some_and(|turns| Arc::strong_count(turns) == 1) {
            locks.remove(&self.path);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pipe_or_a_folder_is_refused_and_not_waited_for() {
        let folder = tempfile::tempdir().unwrap();
        let pipe = folder.path().join("pipe");
        assert!(std::process::Command::new("mkfifo").arg(&pipe).status().unwrap().success());
        assert!(matches!(read(&pipe, 10), Err(ReadFault::NotAFile)));
        assert!(matches!(read(folder.path(), 10), Err(ReadFault::NotAFile)));
        assert!(matches!(read(&folder.path().join("none"), 10), Err(ReadFault::Io(_))));
    }

    #[test]
    fn a_file_is_read_whole_or_refused() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("file");
        std::fs::write(&path, "0123456789").unwrap();
        assert_eq!(read(&path, 10).unwrap().as_slice(), b"0123456789");
        assert!(matches!(read(&path, 9), Err(ReadFault::TooLarge)));
    }

    #[tokio::test]
    async fn a_file_that_hangs_keeps_one_thread_however_often_it_is_asked_for() {
        let (release, hangs) = std::sync::mpsc::channel::<()>();
        let hangs = Arc::new(Mutex::new(hangs));
        let hung_path = Path::new("/hangs");
        let tries: Vec<_> = (0..2 * READS_MAX)
            .map(|_| {
                let hangs = hangs.clone();
                tokio::spawn(read_in_background(hung_path, move || hangs.lock().recv()))
            })
            .collect();
        while !READS.locks.lock().contains_key(hung_path) {
            tokio::task::yield_now().await;
        }
        assert_eq!(read_in_background(Path::new("/good"), || 1).await, Ok(1));
        drop(release);
        for tried in tries {
            assert!(tried.await.unwrap().is_ok());
        }
        assert!(!READS.locks.lock().contains_key(hung_path), "nothing is kept of a file that has been read");
    }
}
