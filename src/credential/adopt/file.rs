//! A file of the site. Its modification time limits the age of the token in it.

use std::path::PathBuf;
use std::time::UNIX_EPOCH;

use futures_util::future::{BoxFuture, FutureExt};

use super::{StoredBytes, TokenSource};
use crate::files;

const BYTES_MAX: usize = 64 * 1024;

pub struct FileSource(pub PathBuf);

impl TokenSource for FileSource {
    fn place(&self) -> String {
        format!("the file {}", self.0.display())
    }

    fn read(&self) -> BoxFuture<'_, Result<Vec<StoredBytes>, String>> {
        let path = self.0.clone();
        async move {
            let stored = files::read_in_background(&self.0, move || {
                let bytes = files::read(&path, BYTES_MAX).map_err(|unread| unread.to_string())?.to_vec();
                let written = std::fs::metadata(&path).and_then(|metadata| metadata.modified()).ok();
                let written = written.and_then(|written| written.duration_since(UNIX_EPOCH).ok());
                let written_unix_ms = written.and_then(|since| i64::try_from(since.as_millis()).ok());
                Ok::<_, String>(StoredBytes { bytes, left_ms: None, written_unix_ms })
            });
            stored.await.map_err(|hung| hung.to_string())?.map(|stored| vec![stored])
        }
        .boxed()
    }
}
