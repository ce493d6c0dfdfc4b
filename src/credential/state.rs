//! The state file: what is kept over a restart. One JSON file, always written as a whole.
//!
//! It never stops the server. A file that cannot be trusted is set aside and logged, and the server starts without it;
//! if the file cannot be written, that is logged, and the server runs from memory. Only one process writes it, see
//! [`state_lock`](super::state_lock). One half of this module is pure: it decides how long a value from the file can
//! still be served. The other half reads and writes files.

use std::collections::HashMap;
use std::ffi::{OsStr, OsString};
use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use tracing::{info, warn};

use super::grants::SavedGrant;
use super::quota_usage::QuotaUsage;
use super::schedule::Adopted;
use super::state_lock::{LockState, open_to_read};
use crate::clock::{BootMs, Now};
use crate::platform::{CredentialType, answer};

/// Where the state is kept: a file, or a store of the tests.
pub trait StateStore: Send + Sync {
    /// Reads the state. Sets a file aside that cannot be trusted.
    fn load(&self) -> LoadedState;
    /// Writes the state. After an error the store has what it had before.
    fn save(&self, snapshot: &Snapshot) -> io::Result<()>;
    /// Called before a save: makes sure that no other process writes here; [`io::ErrorKind::WouldBlock`] if one does.
    /// If the store has become ours only now, returns what is in it, so that nothing of it is lost.
    fn claim(&self) -> io::Result<Option<Snapshot>> {
        Ok(None)
    }
    fn path(&self) -> Option<&Path> {
        None
    }
    /// True if a save may block, so that it needs a thread of its own.
    fn blocks(&self) -> bool {
        true
    }
}

#[derive(Debug)]
pub enum LoadedState {
    /// There is no state: a first start.
    Empty,
    Found(Snapshot),
    /// There is a state, but it cannot be used.
    Refused {
        reason: String,
        set_aside: Option<PathBuf>,
    },
}

/// Everything that is written. Fields with a default are not in files of earlier versions, here and in what it has.
#[derive(Clone, Serialize, Deserialize, Default)]
pub struct Snapshot {
    /// Both clocks when it was written, and the boot they belong to.
    pub written_unix_ms: i64,
    pub written_boot_ms: BootMs,
    pub boot_id: String,
    pub entries: Vec<Arc<StateEntry>>,
    /// The counted calls, also of credentials that never had a value: a server that restarts again and again must not
    /// forget its calls.
    #[serde(default, rename = "ledgers")]
    pub usages: Vec<Arc<StoredUsage>>,
    #[serde(default)]
    pub grants: Vec<SavedGrant>,
}

/// Without the entries: they hold tokens.
impl std::fmt::Debug for Snapshot {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Snapshot").field("entries", &self.entries.len()).finish_non_exhaustive()
    }
}

/// Which credential an entry is about. With another endpoint or base URL it is another credential.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct CredentialIdentity {
    pub appid: String,
    pub kind: String,
    pub endpoint: String,
    /// Fingerprint of the base URL, so that a sandbox's token is never served as WeChat's.
    pub base: String,
}

impl CredentialIdentity {
    /// The name of a credential of this type. `id` is the app's, with its agent if it has one.
    pub fn of(credential_type: &CredentialType, id: &str, base_url: &str) -> CredentialIdentity {
        CredentialIdentity {
            appid: id.to_owned(),
            kind: credential_type.key.to_owned(),
            endpoint: credential_type.id.to_owned(),
            base: crate::secret::fingerprint(base_url.trim_end_matches('/').as_bytes()),
        }
    }
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct StoredUsage {
    #[serde(flatten)]
    pub name: CredentialIdentity,
    pub calls: QuotaUsage,
}

#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct StateEntry {
    #[serde(flatten)]
    pub name: CredentialIdentity,
    pub value: String,
    pub generation: u64,
    pub expires_unix_ms: i64,
    pub expires_boot_ms: BootMs,
    pub fetched_unix_ms: i64,
    pub fetched_boot_ms: BootMs,
    /// The lifetime that the value had left when it was fetched.
    pub life_ms: u64,
    pub longest_ms: u64,
    pub learned_ms: Option<u64>,
    /// Wall time of a classic call that was started and whose end is not known: the value may end early.
    pub intent_unix_ms: Option<i64>,
    /// WeChat refused the value in a probe, so it is not served.
    #[serde(default)]
    pub withdrawn: bool,
    /// Set if the site has fetched the value.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub adopted: Option<Adopted>,
    /// From the node that renews it: this long before its expiry clients should not rely on it any more.
    #[serde(default)]
    pub reliable_lead_ms: Option<u64>,
    /// This node has fetched it.
    #[serde(default = "default_true")]
    pub ours: bool,
}

fn default_true() -> bool {
    true
}

/// How long a value from the state file can still be served.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RemainingLife {
    pub left_ms: u64,
    /// The clocks contradict each other: serve it, but fetch at once.
    pub suspicious: bool,
}

impl StateEntry {
    /// The entry with its expiry on this boot's clocks, so that it can be written with entries of this boot.
    pub fn rebased(&self, worth: RemainingLife, now: Now) -> StateEntry {
        let left = i64::try_from(worth.left_ms).unwrap_or(0);
        let fetched_unix_ms = self.fetched_unix_ms.min(now.unix_ms);
        let age = not_negative(now.unix_ms.saturating_sub(fetched_unix_ms));
        StateEntry {
            expires_unix_ms: now.unix_ms.saturating_add(left),
            expires_boot_ms: now.boot_ms.saturating_add(worth.left_ms),
            fetched_unix_ms,
            fetched_boot_ms: now.boot_ms.saturating_sub(age),
            ..self.clone()
        }
    }
}

impl Snapshot {
    /// How long an entry can still be served. On the same boot the boot clock tells. On another boot only the wall
    /// clock does, within limits: never longer than when the entry was written, and never longer than a lifetime minus
    /// its age.
    pub fn remaining_life(&self, entry: &StateEntry, now: Now, boot_id: &str) -> RemainingLife {
        let left_then = entry.expires_boot_ms.saturating_sub(self.written_boot_ms);
        if !boot_id.is_empty() && boot_id == self.boot_id && now.boot_ms >= self.written_boot_ms {
            let left_ms = entry.expires_boot_ms.saturating_sub(now.boot_ms).min(left_then);
            return RemainingLife { left_ms, suspicious: false };
        }
        let since_written = now.unix_ms.saturating_sub(self.written_unix_ms);
        let since_fetched = now.unix_ms.saturating_sub(entry.fetched_unix_ms);
        // The age of this boot says nothing: the file may come from another machine, a minute ago.
        let suspicious = since_written < 0 || since_fetched < 0;
        let by_wall = not_negative(entry.expires_unix_ms.saturating_sub(now.unix_ms));
        let left_ms = left_then
            .saturating_sub(not_negative(since_written))
            .min(entry.longest_ms.max(entry.life_ms).saturating_sub(not_negative(since_fetched)))
            .min(if suspicious { u64::MAX } else { by_wall });
        RemainingLife { left_ms, suspicious }
    }

    pub fn by_name(&self) -> HashMap<&CredentialIdentity, &StateEntry> {
        self.entries.iter().map(|entry| (&entry.name, entry.as_ref())).collect()
    }
}

fn not_negative(ms: i64) -> u64 {
    u64::try_from(ms).unwrap_or(0)
}

/// The id of this boot; empty if there is none.
pub fn boot_id() -> String {
    fs::read_to_string("/proc/sys/kernel/random/boot_id").map(|id| id.trim().to_owned()).unwrap_or_default()
}

/// A state file. Once it is locked, only one process writes it.
pub struct FileStore {
    path: PathBuf,
    lock: Mutex<LockState>,
}

const FORMAT: &str = "tokencached-state";
const VERSION: u32 = 1;
/// Of a file with refresh tokens, so that an earlier version sets it aside and does not lose them.
const VERSION_WITH_GRANTS: u32 = 2;
/// Ten thousand apps take about 10 MB.
const FILE_BYTES_MAX: u64 = 256 * 1024 * 1024;
const SET_ASIDE_MAX: usize = 3;
/// A file that is being written is called: a dot, the name of the state file, this, and a random part.
const UNFINISHED: &str = ".unfinished-";
const UNFINISHED_END: &str = ".tmp";
/// The same in earlier versions.
const UNFINISHED_FORMERLY: &str = ".state-";
/// Older than this, such a file is not in use: no write takes that long.
const UNFINISHED_OLD: Duration = Duration::from_secs(600);

/// The file. The checksum is over the bytes of the payload.
#[derive(Serialize, Deserialize)]
struct Envelope<'a> {
    format: String,
    version: u32,
    crc32: u32,
    #[serde(borrow)]
    payload: &'a RawValue,
}

impl FileStore {
    /// Without a lock, for a file that no other process uses.
    pub fn new(path: impl Into<PathBuf>) -> FileStore {
        FileStore { path: path.into(), lock: Mutex::new(LockState::Unsupported) }
    }

    /// Takes the lock if it is free. If it is not available now, nothing can be written, and the first write logs that.
    pub fn open(path: &Path) -> FileStore {
        let store = FileStore { path: path.to_owned(), lock: Mutex::new(LockState::take_patiently(path)) };
        store.clean();
        store
    }

    /// The process that has the file, if it is not this one.
    pub fn other(&self) -> Option<String> {
        if let LockState::NotOurs(holder) = &*self.lock.lock() { Some(holder.clone()) } else { None }
    }

    fn clean(&self) {
        let removed = match &*self.lock.lock() {
            LockState::Ours(_) => self.remove_unfinished(true),
            LockState::Unsupported => self.remove_unfinished(false),
            LockState::NotOurs(_) | LockState::Unavailable(_) => 0,
        };
        if removed > 0 {
            let path = self.path.display();
            info!(%path, removed, "removed unfinished state files of a process that was killed");
        }
    }

    fn folder(&self) -> &Path {
        match self.path.parent() {
            Some(folder) if !folder.as_os_str().is_empty() => folder,
            _ => Path::new("."),
        }
    }

    /// Removes unfinished files of a process that was killed while it wrote: there are tokens in them. Returns how
    /// many.
    ///
    /// `alone`: no other process writes this state, so none of them is in use. Otherwise only old files are removed; so
    /// are those of earlier versions, whose names do not say to which state they belong.
    fn remove_unfinished(&self, alone: bool) -> usize {
        let me = rustix::process::geteuid().as_raw();
        let prefix = self.unfinished_prefix();
        let is_left_over = |entry: &fs::DirEntry| {
            // Of the entry itself: a link was not made by us and stays.
            let Ok(facts) = entry.metadata() else { return false };
            let ours = facts.is_file() && (facts.uid() == me || me == 0);
            let old = facts.modified().ok().and_then(|at| at.elapsed().ok()).is_some_and(|age| age > UNFINISHED_OLD);
            let name = entry.file_name();
            let begins = |prefix: &[u8]| name.as_bytes().starts_with(prefix);
            let may_go = begins(prefix.as_bytes()) && (alone || old) || begins(UNFINISHED_FORMERLY.as_bytes()) && old;
            ours && may_go && name.as_bytes().ends_with(UNFINISHED_END.as_bytes())
        };
        self.siblings().filter(is_left_over).filter(|entry| fs::remove_file(entry.path()).is_ok()).count()
    }

    fn siblings(&self) -> impl Iterator<Item = fs::DirEntry> {
        fs::read_dir(self.folder()).into_iter().flatten().flatten()
    }

    fn unfinished_prefix(&self) -> OsString {
        let name = self.path.file_name().unwrap_or_default();
        [OsStr::new("."), name, OsStr::new(UNFINISHED)].into_iter().collect()
    }

    /// Renames the file and keeps only the newest few such files. A folder in its place was not made by us and stays.
    fn set_aside(&self) -> Option<PathBuf> {
        if self.path.symlink_metadata().is_ok_and(|facts| facts.is_dir()) {
            return None;
        }
        let name = self.path.file_name().map_or_else(|| "state".into(), OsStr::to_string_lossy);
        let prefix = format!("{name}.corrupt-");
        let stamp = crate::clock::unix_ms().max(0) / 1000;
        let to = (0..100)
            .map(|n| if n == 0 { format!("{prefix}{stamp}") } else { format!("{prefix}{stamp}-{n:02}") })
            .map(|name| self.folder().join(name))
            .find(|path| !path.exists())?;
        fs::rename(&self.path, &to).ok()?;
        close_to_others(&to);
        let set_aside = self.siblings().filter(|entry| entry.file_name().to_string_lossy().starts_with(&prefix));
        let mut old: Vec<PathBuf> = set_aside.map(|entry| entry.path()).filter(|path| *path != to).collect();
        old.sort();
        for path in old.iter().rev().skip(SET_ASIDE_MAX - 1) {
            // One file too many does no harm.
            let _ = fs::remove_file(path);
        }
        Some(to)
    }
}

impl StateStore for FileStore {
    fn path(&self) -> Option<&Path> {
        Some(&self.path)
    }

    /// A file of another process is read and not changed.
    fn load(&self) -> LoadedState {
        match read_trusted(&self.path).and_then(|text| text.as_deref().map(decode).transpose()) {
            Ok(None) => LoadedState::Empty,
            Ok(Some(snapshot)) => LoadedState::Found(snapshot),
            Err(reason) => {
                let set_aside = if self.lock.lock().may_write() { self.set_aside() } else { None };
                LoadedState::Refused { reason, set_aside }
            }
        }
    }

    fn claim(&self) -> io::Result<Option<Snapshot>> {
        if self.lock.lock().may_write() {
            return Ok(None);
        }
        match LockState::take(&self.path) {
            LockState::Unavailable(error) => return Err(error),
            taken => *self.lock.lock() = taken,
        }
        if let Some(holder) = self.other() {
            let text = format!("the state file is in use by {holder}");
            return Err(io::Error::new(io::ErrorKind::WouldBlock, text));
        }
        self.clean();
        match self.load() {
            LoadedState::Found(snapshot) => return Ok(Some(snapshot)),
            LoadedState::Empty => {}
            LoadedState::Refused { reason: error, .. } => warn!(
                path = %self.path.display(),
                error,
                "the state file cannot be used and is set aside; this process's own state takes its place"
            ),
        }
        Ok(None)
    }

    fn save(&self, snapshot: &Snapshot) -> io::Result<()> {
        let text = encode(snapshot)?;
        // tempfile creates it with mode 0600, in the same folder, so that the rename stays on one file system.
        let prefix = self.unfinished_prefix();
        let mut file = tempfile::Builder::new().prefix(&prefix).suffix(UNFINISHED_END).tempfile_in(self.folder())?;
        file.write_all(text.as_bytes())?;
        file.as_file().sync_all()?;
        file.persist(&self.path).map_err(|error| error.error)?;
        sync_folder(self.folder())
    }
}

/// Some file systems cannot do this, and a folder may not be readable. The new file is in place in any case.
fn sync_folder(folder: &Path) -> io::Result<()> {
    use io::ErrorKind::{InvalidInput, PermissionDenied, Unsupported};
    match File::open(folder).and_then(|folder| folder.sync_all()) {
        Err(error) if !matches!(error.kind(), InvalidInput | PermissionDenied | Unsupported) => Err(error),
        _ => Ok(()),
    }
}

/// Closes a file that was set aside because others could read it: it still holds tokens.
fn close_to_others(path: &Path) {
    if let Ok(file) = open_to_read(path)
        && file.metadata().is_ok_and(|facts| facts.is_file())
    {
        // If it belongs to another user, that is not our task.
        let _ = file.set_permissions(fs::Permissions::from_mode(0o600));
    }
}

/// The text of the file; none if there is no file; or why it cannot be trusted.
fn read_trusted(path: &Path) -> Result<Option<String>, String> {
    let file = match open_to_read(path) {
        Ok(file) => file,
        Err(error) if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) => {
            return Ok(None);
        }
        Err(error) => return Err(format!("cannot be opened: {error}")),
    };
    let facts = file.metadata().map_err(|error| format!("cannot be examined: {error}"))?;
    if !facts.is_file() {
        return Err("is not a regular file".to_owned());
    }
    let me = rustix::process::geteuid().as_raw();
    // Root may start a server that then switches to the file's owner (`-u`).
    if facts.uid() != me && me != 0 {
        return Err(format!("belongs to user {}", facts.uid()));
    }
    let mode = facts.permissions().mode() & 0o777;
    if mode & 0o077 != 0 {
        return Err(format!("is open to others (mode {mode:04o}; 0600 expected)"));
    }
    let mut text = String::new();
    let read =
        file.take(FILE_BYTES_MAX + 1).read_to_string(&mut text).map_err(|error| format!("cannot be read: {error}"))?;
    if read as u64 > FILE_BYTES_MAX {
        return Err("is absurdly large".to_owned());
    }
    Ok(Some(text))
}

fn encode(snapshot: &Snapshot) -> io::Result<String> {
    let payload = serde_json::value::to_raw_value(snapshot)?;
    let crc32 = crc32fast::hash(payload.get().as_bytes());
    let version = if snapshot.grants.is_empty() { VERSION } else { VERSION_WITH_GRANTS };
    Ok(serde_json::to_string(&Envelope { format: FORMAT.to_owned(), version, crc32, payload: &payload })?)
}

/// Errors name positions, never content.
fn decode(text: &str) -> Result<Snapshot, String> {
    let at = |error: serde_json::Error| format!("is damaged (line {}, column {})", error.line(), error.column());
    if text.is_empty() {
        return Err("is empty".to_owned());
    }
    let envelope: Envelope<'_> = serde_json::from_str(text).map_err(at)?;
    if envelope.format != FORMAT || !(VERSION..=VERSION_WITH_GRANTS).contains(&envelope.version) {
        return Err(format!("is of another version ({}, at most {VERSION_WITH_GRANTS} expected)", envelope.version));
    }
    if crc32fast::hash(envelope.payload.get().as_bytes()) != envelope.crc32 {
        return Err("is damaged (checksum)".to_owned());
    }
    let snapshot: Snapshot = serde_json::from_str(envelope.payload.get()).map_err(at)?;
    let entries = snapshot.entries.iter().map(|entry| &entry.value);
    if !entries.chain(snapshot.grants.iter().map(|kept| &kept.value)).all(|value| answer::is_token(value)) {
        return Err("holds something that is no token".to_owned());
    }
    Ok(snapshot)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry() -> StateEntry {
        StateEntry {
            name: CredentialIdentity::of(&crate::platform::mp::STABLE, "wx1", "http://a"),
            value: "TOKEN-1".into(),
            generation: 3,
            expires_unix_ms: 1_007_200_000,
            expires_boot_ms: 7_300_000,
            fetched_unix_ms: 1_000_000_000,
            fetched_boot_ms: 100_000,
            life_ms: 7_200_000,
            longest_ms: 7_200_000,
            learned_ms: Some(5),
            intent_unix_ms: None,
            withdrawn: false,
            reliable_lead_ms: None,
            adopted: None,
            ours: true,
        }
    }

    fn calls() -> QuotaUsage {
        let mut calls = QuotaUsage::default();
        calls
            .try_charge(&crate::platform::Quota::NONE, 1_000_000_000, super::super::quota_usage::CallReason::Renewal)
            .unwrap();
        calls
    }

    fn snapshot() -> Snapshot {
        Snapshot {
            written_unix_ms: 1_000_000_500,
            written_boot_ms: 100_500,
            boot_id: "b1".into(),
            entries: vec![Arc::new(entry())],
            usages: vec![Arc::new(StoredUsage { name: entry().name, calls: calls() })],
            grants: Vec::new(),
        }
    }

    fn store() -> (tempfile::TempDir, FileStore) {
        let folder = tempfile::tempdir().unwrap();
        let store = FileStore::new(folder.path().join("state.json"));
        (folder, store)
    }

    fn refused(store: &FileStore) -> String {
        match store.load() {
            LoadedState::Refused { reason, set_aside } => {
                assert!(set_aside.unwrap().exists());
                assert!(matches!(store.load(), LoadedState::Empty), "the next start is an ordinary cold one");
                reason
            }
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn what_is_saved_is_loaded_and_only_its_owner_can_read_it() {
        let (_folder, store) = store();
        assert!(matches!(store.load(), LoadedState::Empty));
        store.save(&snapshot()).unwrap();
        store.save(&snapshot()).unwrap();
        let LoadedState::Found(found) = store.load() else { panic!() };
        assert!(found.entries == [Arc::new(entry())]);
        assert_eq!(fs::metadata(&store.path).unwrap().permissions().mode() & 0o777, 0o600);
        assert_eq!(fs::read_dir(store.folder()).unwrap().count(), 1, "no temporary file is left");
    }

    #[test]
    #[expect(clippy::disallowed_methods, reason = "the times of files are those of the wall clock")]
    fn what_a_killed_write_has_left_is_removed_and_nothing_else() {
        let (folder, store) = store();
        let path = |name: &str| folder.path().join(name);
        let make = |name: &str, age: Duration| {
            let file = File::create(path(name)).unwrap();
            file.set_modified(std::time::SystemTime::now() - age).unwrap();
        };
        let (now, old) = (Duration::ZERO, UNFINISHED_OLD * 2);
        for (name, age) in [
            (".state.json.unfinished-AbC123.tmp", now),
            (".state.json.unfinished-xYz987.tmp", old),
            (".other.json.unfinished-AbC123.tmp", old),
            (".state.json.mine.tmp", old),
            (".state-AbC123.tmp", now),
            (".state-xYz987.tmp", old),
            ("precious", old),
        ] {
            make(name, age);
        }
        fs::create_dir(path(".state.json.unfinished-folder.tmp")).unwrap();
        std::os::unix::fs::symlink(path("precious"), path(".state.json.unfinished-link.tmp")).unwrap();
        assert_eq!(store.remove_unfinished(false), 2, "without the lock only what is old");
        assert!(path(".state.json.unfinished-AbC123.tmp").exists());
        assert_eq!(store.remove_unfinished(true), 1);
        let names = fs::read_dir(folder.path()).unwrap().map(|entry| entry.unwrap().file_name());
        let mut names: Vec<_> = names.map(|name| name.into_string().unwrap()).collect();
        names.sort();
        let left = [
            ".other.json.unfinished-AbC123.tmp",
            ".state-AbC123.tmp",
            ".state.json.mine.tmp",
            ".state.json.unfinished-folder.tmp",
            ".state.json.unfinished-link.tmp",
            "precious",
        ];
        assert_eq!(names, left);
    }

    #[test]
    fn a_folder_in_its_place_is_reported_and_left_alone() {
        let folder = tempfile::tempdir().unwrap();
        let store = FileStore::new(folder.path());
        let LoadedState::Refused { reason, set_aside: None } = store.load() else { panic!() };
        assert!(reason.contains("regular"), "{reason}");
        assert!(folder.path().is_dir());
    }

    #[test]
    fn a_damaged_file_is_set_aside_wherever_the_damage_is() {
        let (_folder, store) = store();
        store.save(&snapshot()).unwrap();
        let whole = fs::read(&store.path).unwrap();
        let write = |bytes: &[u8]| {
            store.save(&snapshot()).unwrap();
            fs::write(&store.path, bytes).unwrap();
        };
        for cut in [0, 1, whole.len() / 2, whole.len() - 1] {
            write(&whole[..cut]);
            refused(&store);
        }
        for at in 0..whole.len() {
            let mut torn = whole.clone();
            torn[at] ^= 0x04;
            assert!(decode(&String::from_utf8_lossy(&torn)).is_err(), "byte {at}");
        }
        write(&[0; 100]);
        refused(&store);
        write(b"\xff\xfe");
        refused(&store);
        let kept = fs::read_dir(store.folder()).unwrap().count();
        assert!(kept <= SET_ASIDE_MAX, "{kept} files");
    }

    #[test]
    fn another_version_open_permissions_links_and_pipes_are_refused() {
        let (_folder, store) = store();
        store.save(&snapshot()).unwrap();
        let text = fs::read_to_string(&store.path).unwrap().replace("\"version\":1", "\"version\":3");
        fs::write(&store.path, text).unwrap();
        assert!(refused(&store).contains("version"));

        store.save(&snapshot()).unwrap();
        fs::set_permissions(&store.path, fs::Permissions::from_mode(0o644)).unwrap();
        assert!(refused(&store).contains("0644"));

        std::os::unix::fs::symlink("/etc/passwd", &store.path).unwrap();
        let LoadedState::Refused { set_aside, .. } = store.load() else { panic!() };
        assert!(set_aside.unwrap().is_symlink());
    }

    #[test]
    fn a_value_that_could_break_the_protocol_is_refused_even_with_a_right_checksum() {
        let (_folder, store) = store();
        let mut snapshot = snapshot();
        Arc::make_mut(&mut snapshot.entries[0]).value = "A\r\nSTORED".into();
        store.save(&snapshot).unwrap();
        refused(&store);
    }

    #[test]
    fn refresh_tokens_come_back_and_a_version_that_knows_of_none_will_not_take_the_file() {
        use super::super::grants::{GrantName, GrantType};
        let (_folder, store) = store();
        let name = GrantName {
            what: GrantType::RefreshToken,
            component: "wxc".into(),
            authorizer: "wxa".into(),
            base: "b".into(),
        };
        let kept = SavedGrant { name, value: "refreshtoken@@@R".into(), configured: None, wanted_unix_ms: 7 };
        let snapshot = Snapshot { grants: vec![kept.clone()], ..snapshot() };
        store.save(&snapshot).unwrap();
        let LoadedState::Found(found) = store.load() else { panic!() };
        assert!(found.grants == [kept]);
        assert!(fs::read_to_string(&store.path).unwrap().contains("\"version\":2"));
        let mut broken = snapshot;
        broken.grants[0].value = String::new();
        store.save(&broken).unwrap();
        refused(&store);
    }

    #[test]
    fn counted_calls_come_back_and_a_file_of_before_they_were_kept_still_loads() {
        let (_folder, store) = store();
        store.save(&snapshot()).unwrap();
        let LoadedState::Found(found) = store.load() else { panic!() };
        assert_eq!(found.usages, snapshot().usages);
        let mut payload = serde_json::to_value(snapshot()).unwrap();
        payload.as_object_mut().unwrap().remove("ledgers").unwrap();
        let payload = serde_json::value::to_raw_value(&payload).unwrap();
        let crc32 = crc32fast::hash(payload.get().as_bytes());
        let old = Envelope { format: FORMAT.to_owned(), version: VERSION, crc32, payload: &payload };
        let found = decode(&serde_json::to_string(&old).unwrap()).unwrap();
        assert_eq!((found.entries.len(), found.usages.len()), (1, 0));
    }

    #[test]
    fn a_failed_save_leaves_the_old_file() {
        let (folder, store) = store();
        store.save(&snapshot()).unwrap();
        let under_a_file = FileStore::new(folder.path().join("state.json/state.json"));
        assert!(under_a_file.save(&snapshot()).is_err());
        assert!(matches!(under_a_file.load(), LoadedState::Empty));
        assert!(matches!(store.load(), LoadedState::Found(_)));
    }

    #[test]
    fn on_the_same_boot_the_boot_clock_tells_whatever_the_wall_clock_says() {
        let snapshot = snapshot();
        for unix_ms in [0, 1_000_000_000, 9_000_000_000] {
            let worth = snapshot.remaining_life(&entry(), Now { boot_ms: 1_100_000, unix_ms }, "b1");
            assert_eq!(worth, RemainingLife { left_ms: 6_200_000, suspicious: false });
        }
    }

    #[test]
    fn an_entry_taken_over_is_worth_the_same_when_it_is_written_again() {
        let now = Now { boot_ms: 5_000, unix_ms: 1_001_000_000 };
        let worth = snapshot().remaining_life(&entry(), now, "b2");
        let again = entry().rebased(worth, now);
        let written = Snapshot {
            written_unix_ms: now.unix_ms,
            written_boot_ms: 5_000,
            boot_id: "b2".into(),
            ..Snapshot::default()
        };
        assert_eq!(written.remaining_life(&again, now, "b2"), worth);
        assert_eq!(written.remaining_life(&again, now, "b3"), worth);
    }

    #[test]
    fn on_another_boot_the_wall_clock_tells_within_bounds() {
        let snapshot = snapshot();
        let worth = |unix_ms| snapshot.remaining_life(&entry(), Now { boot_ms: 5, unix_ms }, "b2");
        assert_eq!(worth(1_001_000_000), RemainingLife { left_ms: 6_200_000, suspicious: false });
        assert_eq!(worth(1_007_200_000).left_ms, 0);
        assert_eq!(worth(i64::MAX).left_ms, 0);
        let back = worth(999_000_000);
        assert!(back.suspicious, "the wall clock went back past the fetch");
        assert!(back.left_ms <= 7_199_500);
        assert!(worth(i64::MIN).left_ms <= 7_199_500);
    }

    proptest::proptest! {
        #[test]
        fn nothing_is_ever_worth_more_than_when_it_was_written(boot_ms: u64, unix_ms: i64, same_boot: bool) {
            let boot_id = if same_boot { "b1" } else { "b2" };
            let worth = snapshot().remaining_life(&entry(), Now { boot_ms, unix_ms }, boot_id);
            proptest::prop_assert!(worth.left_ms <= 7_199_500);
        }
    }
}
