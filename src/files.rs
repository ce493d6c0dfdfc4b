//! Small files that others write: secrets, keys, tickets. Reads them so that nothing else waits for it.
//!
//! A pipe in a file's place waits for a writer, and a file on a network disk for its server, for ever if it is gone.
//! Never writes.

use std::fs::File;
use std::io;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::time::Duration;

use rustix::fs::OFlags;
use tokio::sync::Semaphore;

/// Reads under way at once. Those that hang keep their threads; all others must find some left.
const READS_MAX: usize = 16;
/// What takes longer is taken for hung.
const WAIT_MAX: Duration = Duration::from_secs(5);

static READS: Semaphore = Semaphore::const_new(READS_MAX);

/// Why a file was not opened.
#[derive(Debug)]
pub enum Unopened {
    /// A folder, a pipe, a device.
    NotAFile,
    Io(io::Error),
}

/// A read that has not ended in time; it may go on for ever.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("cannot be read: the disk it is on does not answer")]
pub struct Hung;

/// Opens a regular file and nothing else. Does not wait for the writer of a pipe.
pub fn open(path: &Path) -> Result<File, Unopened> {
    let flags = i32::try_from(OFlags::NONBLOCK.bits()).unwrap_or(0);
    let file = File::options().read(true).custom_flags(flags).open(path).map_err(Unopened::Io)?;
    if file.metadata().map_err(Unopened::Io)?.is_file() { Ok(file) } else { Err(Unopened::NotAFile) }
}

/// Does this on a thread that may block, and gives it up after a while.
pub async fn read_aside<T: Send + 'static>(read: impl FnOnce() -> T + Send + 'static) -> Result<T, Hung> {
    let reading = async {
        let place = READS.acquire().await.map_err(|_| Hung)?;
        let read = move || {
            let _place = place;
            read()
        };
        tokio::task::spawn_blocking(read).await.map_err(|_| Hung)
    };
    tokio::time::timeout(WAIT_MAX, reading).await.unwrap_or(Err(Hung))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pipe_or_a_folder_is_refused_and_not_waited_for() {
        let folder = tempfile::tempdir().unwrap();
        let pipe = folder.path().join("pipe");
        assert!(std::process::Command::new("mkfifo").arg(&pipe).status().unwrap().success());
        assert!(matches!(open(&pipe), Err(Unopened::NotAFile)));
        assert!(matches!(open(folder.path()), Err(Unopened::NotAFile)));
        assert!(matches!(open(&folder.path().join("none")), Err(Unopened::Io(_))));
    }
}
