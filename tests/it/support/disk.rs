//! A disk that fails on demand, for a real server: a library that its calls go through (`disk.c`).

use std::path::{Path, PathBuf};
use std::sync::OnceLock;

use rustix::io::Errno;

use super::{program, run_checked};

/// A server started with these variables has a disk with the faults of this file.
pub struct Disk {
    faults: PathBuf,
    library: &'static Path,
}

impl Disk {
    /// Without faults. The folder is the server's.
    pub fn of(folder: &Path) -> Disk {
        Disk { faults: folder.join("faults"), library: library() }
    }

    pub fn variables(&self) -> [(&'static str, &str); 2] {
        [("LD_PRELOAD", self.library.to_str().unwrap()), ("DISK_FAULTS", self.faults.to_str().unwrap())]
    }

    /// From now on these calls fail so: `open`, `write`, `fsync`, `flock`, `sink`.
    pub fn fail(&self, calls: &[&str], errno: Errno) {
        self.put(calls, errno.raw_os_error());
    }

    /// From now on this call does not come back.
    pub fn hang(&self, call: &str) {
        self.put(&[call], 0);
    }

    pub fn repair(&self) {
        self.put(&[], 0);
    }

    /// Whole at once: it is read all the time.
    fn put(&self, calls: &[&str], code: i32) {
        let lines: String = calls.iter().map(|call| format!("{call} {code}\n")).collect();
        let new = self.faults.with_extension("new");
        std::fs::write(&new, lines).unwrap();
        std::fs::rename(&new, &self.faults).unwrap();
    }
}

/// Compiled once.
fn library() -> &'static Path {
    static LIBRARY: OnceLock<PathBuf> = OnceLock::new();
    LIBRARY.get_or_init(|| {
        let folder = Path::new(env!("CARGO_TARGET_TMPDIR"));
        let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/it/support/disk.c");
        let (new, library) = (folder.join(format!("disk-{}.so", std::process::id())), folder.join("disk.so"));
        run_checked(program("cc").args(["-shared", "-fPIC", "-O1", "-Wall", "-Werror", "-o"]).arg(&new).arg(source));
        std::fs::rename(&new, &library).unwrap();
        library
    })
}
