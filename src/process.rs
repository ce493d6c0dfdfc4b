//! What memcached's flags ask of the process itself: `-d`, `-P`, `-u`, `-k`, `-r`, the file limit for `-c`; and the
//! messages to [`systemd`].
//!
//! Everything here but `systemd` belongs to the start or the end and blocks. [`crate::app::Bound`] keeps the order
//! of a start: privileges are dropped after the ports are open and before the workers run. Never ends the process: `main`
//! does.

pub mod systemd;

use std::ffi::OsString;
use std::io::{self, Write};
use std::net::SocketAddr;
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use nix::unistd::{Group, User, initgroups, setgid, setuid};
use rustix::fs::Access;
use rustix::mm::{MlockAllFlags, mlockall};
use rustix::process::{
    DumpableBehavior, Resource, Rlimit, Signal, getrlimit, set_dumpable_behavior, set_parent_process_death_signal,
    setrlimit,
};

/// Marks the process that was started to stay in the background.
const BACKGROUND_ENV: &str = "TOKENCACHED_IN_BACKGROUND";

/// How long the parent waits to see whether its child ends at once, as it does when an address is in use.
const EARLY_EXIT_WAIT: Duration = Duration::from_millis(500);

/// Replaces this process by another program, which the kernel kills when the thread of `parent` that started it ends.
/// Returns only if that fails.
pub fn exec_tied(parent: u32, command: &[OsString]) -> io::Error {
    if let Err(error) = set_parent_process_death_signal(Some(Signal::KILL)) {
        return error.into();
    }
    // It may have ended before that was set.
    if std::os::unix::process::parent_id() != parent {
        return io::Error::other("the process that has started it is gone");
    }
    match command.split_first() {
        Some((program, arguments)) => Command::new(program).args(arguments).exec(),
        None => io::Error::other("no program is named"),
    }
}

/// Which of the two processes of `-d` this one is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Daemonized {
    /// The process that was called: its work is done.
    Parent,
    /// The process in the background; it has left the terminal.
    Child,
}

/// `-d`: starts this program once more, away from the terminal; a fork would have to come before any thread
/// of any library. A child that ends at once is reported as an error.
#[expect(clippy::disallowed_methods, reason = "the parent of a daemon has no runtime")]
pub fn daemonize() -> io::Result<Daemonized> {
    if std::env::var_os(BACKGROUND_ENV).is_some() {
        detach()?;
        return Ok(Daemonized::Child);
    }
    let mut child = Command::new(std::env::current_exe()?)
        .args(std::env::args_os().skip(1))
        .env(BACKGROUND_ENV, "1")
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()?;
    let started = Instant::now();
    while started.elapsed() < EARLY_EXIT_WAIT {
        if let Some(status) = child.try_wait()? {
            let message =
                format!("the process in the background ended at once ({status}); start without -d to see why");
            return Err(io::Error::other(message));
        }
        std::thread::sleep(Duration::from_millis(10));
    }
    Ok(Daemonized::Parent)
}

/// Leaves the terminal's session and the folder, so that neither is kept.
fn detach() -> io::Result<()> {
    match rustix::process::setsid() {
        // Already a leader, as when a shell started it in a group of its own.
        Ok(_) | Err(rustix::io::Errno::PERM) => {}
        Err(error) => return Err(error.into()),
    }
    std::env::set_current_dir("/")
}

/// A pid file; removed when dropped, unless another process has written its own id there since.
#[derive(Debug)]
pub struct PidFile {
    path: PathBuf,
}

impl PidFile {
    /// Writes the id of this process, whole or not at all.
    pub fn write(path: &Path) -> io::Result<PidFile> {
        write_whole(path, format!("{}\n", std::process::id()).as_bytes())?;
        Ok(PidFile { path: path.to_owned() })
    }
}

impl Drop for PidFile {
    fn drop(&mut self) {
        let holds = std::fs::read_to_string(&self.path).unwrap_or_default();
        if holds.trim() == std::process::id().to_string() {
            // After -u the folder may not be ours any more; a stale pid file is then what memcached leaves too.
            let _ = std::fs::remove_file(&self.path);
        }
    }
}

/// `MEMCACHED_PORT_FILENAME`: one line `TCP INET: PORT` for each address, for scripts that wait for it.
pub fn write_port_file(path: &Path, bound: &[SocketAddr]) -> io::Result<()> {
    let line = |address: &SocketAddr| match address {
        SocketAddr::V4(address) => format!("TCP INET: {}\n", address.port()),
        SocketAddr::V6(address) => format!("TCP INET6: {}\n", address.port()),
    };
    write_whole(path, bound.iter().map(line).collect::<String>().as_bytes())
}

fn write_whole(path: &Path, bytes: &[u8]) -> io::Result<()> {
    use std::os::unix::fs::PermissionsExt;
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let mut file = tempfile::NamedTempFile::new_in(folder)?;
    file.write_all(bytes)?;
    file.as_file().set_permissions(std::fs::Permissions::from_mode(0o644))?;
    file.persist(path).map_err(|error| error.error)?;
    Ok(())
}

/// Creates a folder and the missing ones above it, for this user only. Returns those it has created, outermost first.
pub fn make_folders(folder: &Path) -> io::Result<Vec<PathBuf>> {
    let missing: Vec<&Path> =
        folder.ancestors().take_while(|path| !path.as_os_str().is_empty() && !path.exists()).collect();
    let mut made = Vec::new();
    for path in missing.into_iter().rev() {
        match std::fs::DirBuilder::new().mode(0o700).create(path) {
            Ok(()) => made.push(path.to_owned()),
            // Somebody else was quicker, so it is not ours.
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
            Err(error) => return Err(error),
        }
    }
    Ok(made)
}

/// `-u`: becomes that user for good. Without being root there is nothing to switch, as with memcached.
/// `made` are folders that this process has created and that the user needs from now on. Only these change their owner.
pub fn switch_user(name: &str, made: &[PathBuf]) -> io::Result<()> {
    if !rustix::process::geteuid().is_root() {
        return Ok(());
    }
    let user = User::from_name(name)?.ok_or_else(|| io::Error::other(format!("there is no user {name:?} (-u)")))?;
    for folder in made {
        change_folder_owner(folder, &user)?;
    }
    let name = std::ffi::CString::new(name)?;
    initgroups(&name, user.gid)?;
    setgid(user.gid)?;
    setuid(user.uid)?;
    Ok(())
}

/// Through a descriptor, and only if it is still ours: another user who may write in the folder above may have replaced it.
fn change_folder_owner(folder: &Path, user: &User) -> io::Result<()> {
    let flags = rustix::fs::OFlags::NOFOLLOW | rustix::fs::OFlags::DIRECTORY;
    let flags = i32::try_from(flags.bits()).unwrap_or(0);
    let opened = std::fs::File::options().read(true).custom_flags(flags).open(folder)?;
    if opened.metadata()?.uid() != rustix::process::geteuid().as_raw() {
        return Err(io::Error::other(format!("{} is not the folder that was made a moment ago", folder.display())));
    }
    std::os::unix::fs::fchown(opened, Some(user.uid.as_raw()), Some(user.gid.as_raw()))
}

/// Why `user`, which this process is by now, cannot keep the state in that file, locked by the other: a sentence with what
/// to do about it.
pub fn check_state_file(path: &Path, lock: &Path, user: &str) -> Result<(), String> {
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let (shown_folder, shown, shown_lock) = (folder.display(), path.display(), lock.display());
    let is_denied = |path: &Path, rights| rustix::fs::access(path, rights) == Err(rustix::io::Errno::ACCESS);
    if is_denied(folder, Access::WRITE_OK | Access::EXEC_OK) {
        return Err(format!(
            "user {user} (-u) may not write in {shown_folder}, where the state file is to be. The folder was there before \
             this start, so it is not given away. Make one for it (install -d -m 700 -o {user} FOLDER) and name a file in \
             it as path in [state]; or, if nobody else uses this one: chown {user}: {shown_folder} {shown}*"
        ));
    }
    match std::fs::symlink_metadata(path) {
        Ok(found) if found.is_file() && found.uid() != rustix::process::geteuid().as_raw() => Err(format!(
            "the state file {shown} is of user {}, who ran this server before, and not of {user} (-u), who would have to \
             start without it. Give it and its lock file away, if what is in it can be trusted: chown {user}: {shown}*; or \
             remove both",
            found.uid()
        )),
        // Nothing could be written without the lock.
        _ if is_denied(lock, Access::READ_OK) => Err(format!(
            "user {user} (-u) cannot open {shown_lock}, which keeps a second server from writing the state file; another \
             user has run this server before. Give it away: chown {user}: {shown_lock}"
        )),
        _ => Ok(()),
    }
}

/// Core dumps hold every token and secret, so there are none unless they are asked for (`-r`). Without them nobody but
/// root can look into the process's memory either.
pub fn set_core_dumps(wanted: bool) -> io::Result<()> {
    let most = getrlimit(Resource::Core).maximum;
    let current = if wanted { most } else { Some(0) };
    setrlimit(Resource::Core, Rlimit { current, maximum: most })?;
    // A limit of 0 is none to a program that takes dumps by a pipe, such as systemd's.
    set_dumpable_behavior(if wanted { DumpableBehavior::Dumpable } else { DumpableBehavior::NotDumpable })?;
    Ok(())
}

/// The id of the user that [`switch_user`] will switch to; `None` if there is nothing to switch or nobody of that name.
pub fn user_to_become(name: &str) -> Option<u32> {
    let user = rustix::process::geteuid().is_root().then(|| User::from_name(name))?;
    user.ok().flatten().map(|user| user.uid.as_raw())
}

pub fn group_id(name: &str) -> io::Result<u32> {
    let group = Group::from_name(name)?.ok_or_else(|| io::Error::other(format!("there is no group {name:?}")))?;
    Ok(group.gid.as_raw())
}

/// `-k`: keeps what is mapped now and later in memory. The error is for a warning: memcached goes on too.
pub fn lock_memory() -> io::Result<()> {
    Ok(mlockall(MlockAllFlags::CURRENT | MlockAllFlags::FUTURE)?)
}

/// Raises the limit of open files to `wanted`, or as far as it goes. Returns what it is now.
pub fn raise_file_limit(wanted: u64) -> u64 {
    let now = getrlimit(Resource::Nofile);
    // None is no limit.
    let Some(current) = now.current.filter(|current| *current < wanted) else {
        return now.current.unwrap_or(u64::MAX);
    };
    let hard = now.maximum.map(|maximum| maximum.max(wanted));
    if setrlimit(Resource::Nofile, Rlimit { current: Some(wanted), maximum: hard }).is_ok() {
        return wanted;
    }
    let most = now.maximum.map_or(wanted, |maximum| maximum.min(wanted));
    match setrlimit(Resource::Nofile, Rlimit { current: Some(most), maximum: now.maximum }) {
        Ok(()) => most,
        Err(_) => current,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pid_file_goes_with_its_process_only() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("x.pid");
        let file = PidFile::write(&path).unwrap();
        assert_eq!(std::fs::read_to_string(&path).unwrap(), format!("{}\n", std::process::id()));
        drop(file);
        assert!(!path.exists());

        let file = PidFile::write(&path).unwrap();
        std::fs::write(&path, "1\n").unwrap();
        drop(file);
        assert!(path.exists(), "another process wrote its id meanwhile");
    }

    #[test]
    fn a_port_file_names_each_port() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("port");
        write_port_file(&path, &["127.0.0.1:80".parse().unwrap(), "[::1]:81".parse().unwrap()]).unwrap();
        assert_eq!(std::fs::read_to_string(&path).unwrap(), "TCP INET: 80\nTCP INET6: 81\n");
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 1);
    }

    #[test]
    fn a_file_limit_that_suffices_stays() {
        let before = getrlimit(Resource::Nofile).current;
        assert_eq!(raise_file_limit(8), before.unwrap_or(u64::MAX));
        assert_eq!(getrlimit(Resource::Nofile).current, before);
    }

    #[test]
    fn only_folders_that_were_missing_count_as_made() {
        let folder = tempfile::tempdir().unwrap();
        let (outer, inner) = (folder.path().join("a"), folder.path().join("a/b"));
        assert_eq!(make_folders(&inner).unwrap(), [outer.clone(), inner.clone()]);
        assert_eq!(std::fs::metadata(&inner).unwrap().mode() & 0o777, 0o700);
        assert_eq!(make_folders(&inner).unwrap(), [] as [PathBuf; 0]);
        let link = folder.path().join("link");
        std::os::unix::fs::symlink(&outer, &link).unwrap();
        assert_eq!(make_folders(&link).unwrap(), [] as [PathBuf; 0]);
        std::fs::write(folder.path().join("file"), "").unwrap();
        assert!(make_folders(&folder.path().join("file/c")).is_err());
    }

    #[test]
    fn a_link_in_place_of_a_folder_that_was_made_is_not_given_away() {
        let folder = tempfile::tempdir().unwrap();
        let (made, elsewhere) = (folder.path().join("made"), folder.path().join("elsewhere"));
        std::fs::create_dir(&elsewhere).unwrap();
        std::os::unix::fs::symlink(&elsewhere, &made).unwrap();
        let me = User::from_uid(nix::unistd::geteuid()).unwrap().unwrap();
        assert!(change_folder_owner(&made, &me).is_err());
        assert!(change_folder_owner(&elsewhere, &me).is_ok());
    }

    #[test]
    fn an_unknown_user_is_an_error_for_root_and_nothing_for_others() {
        let root = rustix::process::geteuid().is_root();
        assert_eq!(switch_user("no-such-user-here", &[]).is_err(), root);
    }
}
