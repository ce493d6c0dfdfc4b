//! Any file as the state: it is found, or refused and set aside; what was found says the same when it is saved and
//! loaded again. The bytes are tried as they are, and as the payload of a file whose checksum is right.

use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use tokencached::clock::Now;
use tokencached::credential::state::{FileStore, LoadedState, StateStore};
use tokencached::platform::answer::TOKEN_BYTES_MAX;

pub fn run(data: &[u8]) {
    thread_local!(static FOLDER: tempfile::TempDir = super::folder());
    FOLDER.with(|folder| {
        one(folder.path(), data);
        let head =
            format!(r#"{{"format":"tokencached-state","version":2,"crc32":{},"payload":"#, crc32fast::hash(data));
        one(folder.path(), &[head.as_bytes(), data, b"}"].concat());
    });
}

fn one(folder: &Path, text: &[u8]) {
    let file = folder.join("state.json");
    write(&file, text);
    let store = FileStore::new(&file);
    let snapshot = match store.load() {
        LoadedState::Found(snapshot) => snapshot,
        LoadedState::Refused { reason, set_aside } => {
            assert!(!reason.is_empty() && !file.exists(), "{reason}");
            let _ = set_aside.map(std::fs::remove_file);
            return;
        }
        LoadedState::Empty => panic!("a file is not nothing"),
    };
    let nows = [Now { boot_ms: 0, unix_ms: i64::MIN }, Now::read(), Now { boot_ms: u64::MAX, unix_ms: i64::MAX }];
    for entry in &snapshot.entries {
        assert!((1..=TOKEN_BYTES_MAX).contains(&entry.value.len()));
        assert!(entry.value.bytes().all(|byte| byte.is_ascii_graphic()));
        for now in nows {
            let worth = snapshot.remaining_life(entry, now, &snapshot.boot_id);
            let elsewhere = snapshot.remaining_life(entry, now, "another boot");
            assert!(worth.left_ms.min(elsewhere.left_ms) <= entry.expires_boot_ms, "more than ever was");
            let _ = (entry.rebased(worth, now), entry.rebased(elsewhere, now));
        }
    }
    assert_eq!(snapshot.by_name().len().min(1), snapshot.entries.len().min(1));
    store.save(&snapshot).unwrap_or_else(|error| panic!("{error}"));
    let LoadedState::Found(again) = store.load() else { panic!("what was saved is not found") };
    assert!(again.entries == snapshot.entries && again.usages == snapshot.usages, "saved and loaded differ");
}

fn write(file: &Path, text: &[u8]) {
    use std::io::Write;
    let mut open = std::fs::OpenOptions::new();
    let opened = open.write(true).create(true).truncate(true).mode(0o600).open(file);
    opened.and_then(|mut file| file.write_all(text)).unwrap_or_else(|error| panic!("{error}"));
}
