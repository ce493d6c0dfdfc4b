//! Checks that nobody but root and the user of this process can change a file, because it names or is a program to run.
//!
//! Reads owners and modes of the file, of the links to it and of the folders above. Changes nothing.

use std::fs::Metadata;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

/// Links that are watched; the kernel follows as many.
const LINKS_MAX: usize = 40;
const WRITABLE_BY_OTHERS: u32 = 0o022;
const STICKY: u32 = 0o1000;

#[derive(Debug, thiserror::Error)]
pub enum Untrusted {
    #[error("{} cannot be looked at: {error}", path.display())]
    Unseen { path: PathBuf, error: io::Error },
    #[error("{} is not a file", path.display())]
    NotAFile { path: PathBuf },
    #[error("{} belongs to user {owner}, who is neither root nor the user of this process", path.display())]
    Owner { path: PathBuf, owner: u32 },
    #[error("{} can be written by others than its owner (its mode is {mode:o})", path.display())]
    Mode { path: PathBuf, mode: u32 },
}

impl Untrusted {
    pub fn remedy(&self) -> String {
        match self {
            Untrusted::Unseen { .. } => "Check the path, and that this user may read the folders above it.".to_owned(),
            Untrusted::NotAFile { .. } => "Name a file.".to_owned(),
            Untrusted::Owner { path, .. } => format!("Give it to root: chown root {}.", path.display()),
            Untrusted::Mode { path, .. } => format!("Take that away: chmod go-w {}.", path.display()),
        }
    }
}

/// Whether only root and this process's user can change that file, or put another in its place. The path is absolute.
pub fn judge(path: &Path) -> Result<(), Untrusted> {
    let own = rustix::process::geteuid().as_raw();
    let mut path = path.to_owned();
    for _ in 0..LINKS_MAX {
        let (Some(folder), Some(name)) = (path.parent(), path.file_name()) else {
            return Err(Untrusted::NotAFile { path });
        };
        let real = folder.canonicalize().map_err(|error| cannot_examine(folder, error))?;
        // Those as written: who writes in them can turn a link on the way.
        judge_folders(folder, own)?;
        judge_folders(&real, own)?;
        let file = real.join(name);
        let found = file.symlink_metadata().map_err(|error| cannot_examine(&file, error))?;
        if !found.is_symlink() {
            return if found.is_file() {
                judge_one(&file, &found, own)
            } else {
                Err(Untrusted::NotAFile { path: file })
            };
        }
        path = real.join(file.read_link().map_err(|error| cannot_examine(&file, error))?);
    }
    Err(Untrusted::NotAFile { path })
}

fn cannot_examine(path: &Path, error: io::Error) -> Untrusted {
    Untrusted::Unseen { path: path.to_owned(), error }
}

/// That folder and all above. In one with the sticky bit, such as /tmp, others cannot rename what is not theirs, so it
/// may stand above; but others can put files into it.
fn judge_folders(folder: &Path, own: u32) -> Result<(), Untrusted> {
    for (above, folder) in folder.ancestors().filter(|folder| !folder.as_os_str().is_empty()).enumerate() {
        let found = folder.metadata().map_err(|error| cannot_examine(folder, error))?;
        let is_sticky = above > 0 && found.mode() & STICKY != 0 && is_ours(&found, own);
        if !is_sticky {
            judge_one(folder, &found, own)?;
        }
    }
    Ok(())
}

fn is_ours(found: &Metadata, own: u32) -> bool {
    found.uid() == 0 || found.uid() == own
}

fn judge_one(path: &Path, found: &Metadata, own: u32) -> Result<(), Untrusted> {
    if !is_ours(found, own) {
        return Err(Untrusted::Owner { path: path.to_owned(), owner: found.uid() });
    }
    if found.mode() & WRITABLE_BY_OTHERS != 0 {
        return Err(Untrusted::Mode { path: path.to_owned(), mode: found.mode() & 0o7777 });
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::fs::{Permissions, create_dir, set_permissions, write};
    use std::os::unix::fs::{PermissionsExt, chown, symlink};

    use super::*;

    fn set_mode(path: &Path, mode: u32) {
        set_permissions(path, Permissions::from_mode(mode)).unwrap();
    }

    /// A folder of our own with a file in it.
    fn tree() -> (tempfile::TempDir, PathBuf) {
        let folder = tempfile::tempdir().unwrap();
        let inner = folder.path().join("inner");
        create_dir(&inner).unwrap();
        set_mode(&inner, 0o755);
        let file = inner.join("file");
        write(&file, "").unwrap();
        set_mode(&file, 0o644);
        (folder, file)
    }

    #[track_caller]
    fn assert_refused(path: &Path, culprit: &Path, remedy: &str) {
        let refusal = judge(path).unwrap_err();
        assert!(refusal.to_string().starts_with(&culprit.canonicalize().unwrap().display().to_string()), "{refusal}");
        assert!(refusal.remedy().contains(remedy), "{refusal} {}", refusal.remedy());
    }

    #[test]
    fn a_file_that_others_can_write_is_refused_and_so_is_one_in_a_folder_that_they_can_write() {
        let (folder, file) = tree();
        let inner = file.parent().unwrap().to_owned();
        judge(&file).unwrap();
        for mode in [0o666, 0o664, 0o646] {
            set_mode(&file, mode);
            assert_refused(&file, &file, "chmod go-w");
        }
        set_mode(&file, 0o644);
        for mode in [0o777, 0o775, 0o1777] {
            set_mode(&inner, mode);
            assert_refused(&file, &inner, "chmod go-w");
        }
        set_mode(&inner, 0o755);
        set_mode(folder.path(), 0o777);
        assert_refused(&file, folder.path(), "chmod go-w");
        set_mode(folder.path(), 0o1777);
        judge(&file).unwrap();
    }

    #[test]
    fn links_are_followed_and_where_they_lie_counts() {
        let (folder, file) = tree();
        let (open, link) = (folder.path().join("open"), folder.path().join("link"));
        create_dir(&open).unwrap();
        symlink("inner/file", &link).unwrap();
        judge(&link).unwrap();
        set_mode(&open, 0o777);
        let in_open = open.join("link");
        symlink(&file, &in_open).unwrap();
        assert_refused(&in_open, &open, "chmod go-w");
        // A folder on the way that is a link itself.
        symlink(file.parent().unwrap(), open.join("folder")).unwrap();
        assert_refused(&open.join("folder/file"), &open, "chmod go-w");
        symlink("loop", folder.path().join("loop")).unwrap();
        assert!(matches!(judge(&folder.path().join("loop")), Err(Untrusted::NotAFile { .. })));
    }

    #[test]
    fn another_users_file_is_refused_and_so_is_what_is_no_file() {
        let (folder, file) = tree();
        assert!(matches!(judge(&folder.path().join("none")), Err(Untrusted::Unseen { .. })));
        assert!(matches!(judge(file.parent().unwrap()), Err(Untrusted::NotAFile { .. })));
        // Only root can give files away.
        if rustix::process::geteuid().is_root() {
            chown(&file, Some(65534), None).unwrap();
            assert_refused(&file, &file, "chown root");
        }
    }
}
