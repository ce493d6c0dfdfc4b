//! The sink that writes files. Each is written whole and renamed into place, so that a reader finds the old or the new
//! content.
//!
//! Never writes through a symbolic link, never changes an owner, and never blocks the runtime's threads: a disk that hangs
//! delays only the files of its own folder.

use std::borrow::Cow;
use std::collections::HashSet;
use std::ffi::OsStr;
use std::fs::File;
use std::io::{self, Read, Write as _};
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use parking_lot::Mutex;
use rustix::fs::{AtFlags, Dir, FileType, Mode, OFlags, Timespec, Timestamps};
use rustix::io::Errno;

use super::backend::{Contents, CredentialWrite, CurrentValue, Retraction, SinkAnswer, SinkBackend};
use super::options::{SinkContent, SinkEntry, SinkFile};
use super::template::{Escape, Placeholder, Template, TimeShown, fill_words};
use crate::credential::adopt::StoredBytes;
use crate::descriptors;
use crate::encoding::{Fact, Form, View};
use crate::files::BlockingPool;
use crate::store_fault::StoreFault;
use crate::unit;

/// How many folders are written at once. A folder that hangs keeps one thread.
const FOLDERS_AT_ONCE: usize = 4;
/// A larger file is not one that we or a script wrote.
const READ_BYTES_MAX: u64 = 64 << 10;
/// The beginning of the name of a temporary file.
const TEMPORARY: &str = ".tokencached.";
/// A temporary file that is older was left by a process that was killed.
const TEMPORARY_OLD: Duration = Duration::from_secs(600);

pub(super) struct FileBackend {
    config: SinkFile,
    aside: BlockingPool,
    /// The folders whose old temporary files were removed.
    cleaned: Mutex<HashSet<PathBuf>>,
}

impl FileBackend {
    pub fn new(config: &SinkFile) -> FileBackend {
        let aside = BlockingPool::new(FOLDERS_AT_ONCE);
        FileBackend { config: config.clone(), aside, cleaned: Mutex::default() }
    }

    async fn in_folder<T: Send + 'static>(
        &self,
        path: &str,
        work: impl FnOnce(&FileInFolder<'_>) -> Result<T, Errno> + Send + 'static,
    ) -> Result<T, StoreFault> {
        let folder = Path::new(path).parent().unwrap_or(Path::new("/"));
        let doing = {
            let path = path.to_owned();
            move || FileInFolder::open(Path::new(&path)).and_then(|place| work(&place)).map_err(|no| fault(&path, no))
        };
        self.aside.run(folder, doing).await.unwrap_or_else(|_| Err(hung_fault(path)))
    }

    async fn write_one(
        &self,
        path: &str,
        content: Vec<u8>,
        value: &CurrentValue,
    ) -> Result<Option<Vec<u8>>, StoreFault> {
        let (mode, mtime_s) = (self.config.mode, self.mtime_s_to_set(value));
        let is_first = Path::new(path).parent().is_some_and(|folder| self.cleaned.lock().insert(folder.to_owned()));
        let before = self.in_folder(path, move |place| {
            if is_first {
                place.remove_temporary_files();
            }
            place.write(&content, mode, mtime_s)
        });
        before.await
    }

    async fn retract_one(
        &self,
        entry: &SinkEntry,
        expected: Option<Vec<u8>>,
        last: &CurrentValue,
    ) -> Result<bool, StoreFault> {
        let (mode, mtime_s) = (self.config.mode, self.mtime_s_to_set(last));
        let (content, value) = (self.content(entry, last)?, last.value.clone());
        let holds_value = entry.content.holds_value();
        let retracting = self.in_folder(&entry.name, move |place| {
            let Some(found) = place.read()? else { return Ok(false) };
            let holds = || holds_value && memchr::memmem::find(&found, &value).is_some();
            let is_marked = found == content && place.mtime_s()? == mtime_s;
            if is_marked || !(expected.as_ref() == Some(&found) || holds()) {
                return Ok(false);
            }
            place.write(&content, mode, mtime_s).map(|_| true)
        });
        retracting.await
    }

    /// The modification time to set, for readers that take it for the time of the fetch. For a value that has ended it lies
    /// in the past in any case.
    fn mtime_s_to_set(&self, current: &CurrentValue) -> Option<i64> {
        let has_ended = current.left_ms() == 0;
        let usual = has_ended.then_some(TimeShown { fact: Fact::FetchedAt, add: 0 });
        let time = self.config.mtime.or(usual)?;
        Some(current.time(time))
    }
}

impl SinkBackend for FileBackend {
    fn content(&self, entry: &SinkEntry, current: &CurrentValue) -> Result<Vec<u8>, StoreFault> {
        match &entry.content {
            SinkContent::Template(template) => fill_in(template, entry, current),
            SinkContent::View(view) => render_view(view, entry, current),
        }
    }

    fn write<'a>(&'a self, write: &'a CredentialWrite) -> SinkAnswer<'a, Contents> {
        Box::pin(async {
            let mut before = Vec::new();
            for (entry, content) in write.entries.iter().zip(&write.contents) {
                before.push(self.write_one(&entry.name, content.clone(), &write.current).await?);
            }
            Ok(before)
        })
    }

    fn read<'a>(&'a self, entries: &'a [SinkEntry]) -> SinkAnswer<'a, Option<Contents>> {
        Box::pin(async move {
            let mut found = Vec::new();
            for entry in entries {
                found.push(self.in_folder(&entry.name, |place| place.read()).await?);
            }
            Ok(Some(found))
        })
    }

    /// The modification time says how old the content can be at most.
    fn read_with_times<'a>(&'a self, entries: &'a [SinkEntry]) -> SinkAnswer<'a, Option<Vec<StoredBytes>>> {
        Box::pin(async move {
            let mut stored = Vec::new();
            for entry in entries {
                let reading = self.in_folder(&entry.name, |place| {
                    let Some(bytes) = place.read()? else { return Ok(None) };
                    let written_unix_ms = place.mtime_s()?.map(|written_s| written_s.saturating_mul(1000));
                    Ok(Some(StoredBytes { bytes, left_ms: None, written_unix_ms }))
                });
                stored.extend(reading.await?);
            }
            Ok(Some(stored))
        })
    }

    /// Writes times in the past and keeps the value: PHP warns when it includes a missing file. The reader then fetches for
    /// itself, as it did before.
    fn retract<'a>(&'a self, retract: &'a Retraction) -> SinkAnswer<'a, u64> {
        Box::pin(async {
            let Some(last) = &retract.last else { return Ok(0) };
            let mut count = 0;
            for (entry, expected) in retract.entries.iter().zip(&retract.expected) {
                count += u64::from(self.retract_one(entry, expected.clone(), last).await?);
            }
            Ok(count)
        })
    }
}

/// An open folder, and a file's name in it.
struct FileInFolder<'p> {
    folder: OwnedFd,
    name: &'p OsStr,
}

impl FileInFolder<'_> {
    /// Links in the folder's path are followed: deployments switch releases by them.
    fn open(path: &Path) -> Result<FileInFolder<'_>, Errno> {
        let folder = path.parent().unwrap_or(Path::new("/"));
        let name = path.file_name().ok_or(Errno::ISDIR)?;
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        Ok(FileInFolder { folder: rustix::fs::open(folder, flags, Mode::empty())?, name })
    }

    /// The content of the file; none if there is none. A file that cannot be read was written by somebody else.
    fn read(&self) -> Result<Option<Vec<u8>>, Errno> {
        let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC | OFlags::NOCTTY;
        let file = match rustix::fs::openat(&self.folder, self.name, flags, Mode::empty()) {
            Ok(file) => file,
            Err(Errno::NOENT) => return Ok(None),
            Err(Errno::ACCESS) => return Ok(Some(Vec::new())),
            Err(errno) => return Err(errno),
        };
        if FileType::from_raw_mode(rustix::fs::fstat(&file)?.st_mode) != FileType::RegularFile {
            return Err(Errno::ISDIR);
        }
        let mut bytes = Vec::new();
        File::from(file).take(READ_BYTES_MAX).read_to_end(&mut bytes).map_err(errno_of)?;
        Ok(Some(bytes))
    }

    /// Replaces the file. Returns the content before, read at the last moment.
    fn write(&self, content: &[u8], mode: u32, mtime_s: Option<i64>) -> Result<Option<Vec<u8>>, Errno> {
        self.check_regular_or_absent()?;
        let temporary = self.temporary_name();
        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let file = rustix::fs::openat(&self.folder, &*temporary, flags, Mode::from_raw_mode(0o600))?;
        let written = fill(file, content, mode, mtime_s).and_then(|()| {
            let before = self.read()?;
            rustix::fs::renameat(&self.folder, &*temporary, &self.folder, self.name).map(|()| before)
        });
        if written.is_err() {
            let _ = rustix::fs::unlinkat(&self.folder, &*temporary, AtFlags::empty());
        }
        written
    }

    fn mtime_s(&self) -> Result<Option<i64>, Errno> {
        Ok(Some(rustix::fs::statat(&self.folder, self.name, AtFlags::SYMLINK_NOFOLLOW)?.st_mtime))
    }

    fn check_regular_or_absent(&self) -> Result<(), Errno> {
        match rustix::fs::statat(&self.folder, self.name, AtFlags::SYMLINK_NOFOLLOW) {
            Err(Errno::NOENT) => Ok(()),
            Err(errno) => Err(errno),
            Ok(found) => match FileType::from_raw_mode(found.st_mode) {
                FileType::RegularFile => Ok(()),
                FileType::Symlink => Err(Errno::LOOP),
                _ => Err(Errno::ISDIR),
            },
        }
    }

    /// Hidden, and with the file's own ending: a web server that runs the file must not send the temporary one as text.
    fn temporary_name(&self) -> String {
        format!("{TEMPORARY}{:016x}.{}", fastrand::u64(..), self.name.to_string_lossy())
    }

    /// Removes what a process left that was killed while it wrote: there are tokens in it. Another process's that is
    /// being written is young.
    #[expect(clippy::disallowed_methods, reason = "the times of files are those of the wall clock")]
    fn remove_temporary_files(&self) {
        let me = rustix::process::geteuid().as_raw();
        // A second descriptor: one opened with O_PATH cannot be listed.
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let listed = rustix::fs::openat(&self.folder, ".", flags, Mode::empty()).and_then(Dir::new);
        let entries = listed.into_iter().flatten().flatten();
        for entry in entries.filter(|entry| entry.file_name().to_bytes().starts_with(TEMPORARY.as_bytes())) {
            let Ok(found) = rustix::fs::statat(&self.folder, entry.file_name(), AtFlags::SYMLINK_NOFOLLOW) else {
                continue;
            };
            let is_ours = FileType::from_raw_mode(found.st_mode) == FileType::RegularFile && found.st_uid == me;
            let changed_at = UNIX_EPOCH + Duration::from_secs(u64::try_from(found.st_mtime).unwrap_or(0));
            let age = SystemTime::now().duration_since(changed_at);
            if is_ours && age.is_ok_and(|age| age > TEMPORARY_OLD) {
                let _ = rustix::fs::unlinkat(&self.folder, entry.file_name(), AtFlags::empty());
            }
        }
    }
}

fn fill(file: OwnedFd, content: &[u8], mode: u32, mtime_s: Option<i64>) -> Result<(), Errno> {
    let mut file = File::from(file);
    file.write_all(content).map_err(errno_of)?;
    // Regardless of the umask.
    rustix::fs::fchmod(&file, Mode::from_raw_mode(mode))?;
    if let Some(tv_sec) = mtime_s {
        let time = Timespec { tv_sec, tv_nsec: 0 };
        rustix::fs::futimens(&file, &Timestamps { last_access: time, last_modification: time })?;
    }
    // Not every file system writes the bytes before the name: after a power cut the file would be empty.
    rustix::fs::fdatasync(&file)
}

fn errno_of(error: io::Error) -> Errno {
    error.raw_os_error().map_or(Errno::IO, Errno::from_raw_os_error)
}

fn fill_in(template: &Template, entry: &SinkEntry, current: &CurrentValue) -> Result<Vec<u8>, StoreFault> {
    let value = escape_value(&current.value, template.escape)?;
    let filled = fill_words(&template.text, |word| match Placeholder::of_word(word)? {
        Placeholder::Value => Some(value.clone()),
        placeholder => current.shown(entry, placeholder),
    });
    Ok(filled.into_bytes())
}

/// The content as an alias shows it, without what could be code where the file is read as something else.
fn render_view(view: &View, entry: &SinkEntry, current: &CurrentValue) -> Result<Vec<u8>, StoreFault> {
    let rendered = entry.render(current);
    if matches!(view.form, Form::Json(_)) {
        escape_value(&current.value, Escape::Json)?;
        // In JSON these characters occur in strings only.
        return Ok(without_tags(&String::from_utf8_lossy(&rendered)).into_bytes());
    }
    if view.holds_value() {
        escape_value(&current.value, Escape::None)?;
    }
    Ok(rendered)
}

/// In JSON, `<?php` and `</script>` would mean something to PHP and to browsers.
fn without_tags(text: &str) -> String {
    text.replace('<', "\\u003c").replace('>', "\\u003e")
}

/// Escapes a value for where it is written. It comes from a platform, a leader or a Redis, and a quote in it would be code.
fn escape_value(value: &[u8], escape: Escape) -> Result<String, StoreFault> {
    let text = std::str::from_utf8(value).unwrap_or_default();
    let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || b"._~+/=-".contains(&byte);
    let is_printable = !text.is_empty() && text.bytes().all(|byte| (0x20..0x7f).contains(&byte));
    match escape {
        Escape::None if is_printable && text.bytes().all(is_plain) => Ok(text.to_owned()),
        Escape::Serialized => Ok(format!("s:{}:\"{}\";", text.len(), escape_value(value, Escape::None)?)),
        Escape::Php if is_printable => Ok(text.replace('\\', r"\\").replace('\'', r"\'")),
        Escape::Json if is_printable => Ok(without_tags(&text.replace('\\', r"\\").replace('"', r#"\""#))),
        _ => Err(unfit_value(escape)),
    }
}

fn unfit_value(escape: Escape) -> StoreFault {
    let advice = match escape {
        Escape::None | Escape::Serialized => {
            "see where the value comes from: the platform, a leader or a Redis; if it is good, use a template with \
             escape = \"php\" or \"json\""
        }
        Escape::Php | Escape::Json => "see where the value comes from: the platform, a leader or a Redis",
    };
    StoreFault::of_entry("value", "the value has bytes that no token has, and is written to no file", advice)
}

fn hung_fault(path: &str) -> StoreFault {
    let what = format!("{path} is not written: the disk does not answer");
    StoreFault::of_entry("timeout", what, "see the disk or the file server that the folder is on")
}

fn fault(path: &str, errno: Errno) -> StoreFault {
    let folder = Path::new(path).parent().unwrap_or(Path::new("/"));
    let shown = folder.display();
    let (class, what, advice) = match errno {
        Errno::NOENT | Errno::NOTDIR => ("folder", format!("the folder {shown} is not there"), None),
        Errno::ACCESS | Errno::PERM => ("permission", format!("this process may not write in {shown}"), None),
        Errno::ROFS => ("readonly", format!("{shown} is read-only for this process"), None),
        Errno::LOOP => {
            let what = format!("{path} is a symbolic link, and whoever set it could have us write anywhere");
            let advice = "name the file itself in the configuration, or remove the link; links in the folder's path are followed";
            ("link", what, Some(advice))
        }
        Errno::ISDIR => {
            ("file", format!("{path} is no regular file"), Some("name a file, and remove what is in its place"))
        }
        Errno::NOSPC | Errno::DQUOT | Errno::FBIG => {
            ("disk", format!("the disk that {shown} is on is full"), Some("make room on it, or raise the quota"))
        }
        Errno::MFILE | Errno::NFILE => {
            ("descriptors", "this process has no file descriptor left for it".to_owned(), Some(descriptors::REMEDY))
        }
        errno => {
            let what = format!("{path} cannot be written: {}", io::Error::from(errno));
            ("other", what, Some("see the system's log about the disk that it is on"))
        }
    };
    StoreFault::of_entry(class, what, advice.map_or_else(|| unit::advice(folder).into(), Cow::Borrowed))
}

#[cfg(test)]
mod tests;
