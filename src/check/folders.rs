//! The folders and groups that the server needs: for the state file, Unix sockets, the files of sinks.
//!
//! Never makes or changes anything, and never refuses: `check` is often run by another user than the service, so what is
//! missing is a warning.

use std::collections::BTreeSet;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use nix::unistd::{Uid, User};
use rustix::fs::Access;
use rustix::io::Errno;
use rustix::process::{Gid, getegid, geteuid, getgroups};

use super::report::CheckReport;
use crate::config::Config;
use crate::server::ListenAt;
use crate::sink::options::{SinkEntry, SinkTo};
use crate::{process, unit};

/// How many folders of a sink are named; a site with a folder for each app may have thousands.
const FOLDERS_MAX: usize = 5;
/// The folders that the shipped unit makes for the service at its start.
const SHIPPED_UNIT_FOLDERS: [&str; 2] = ["/run/tokencached", "/var/lib/tokencached"];

pub fn examine(config: &Config, report: &mut CheckReport) {
    check_state_folder(config, report);
    for listener in config.listeners() {
        if let ListenAt::Unix { path, group, .. } = &listener.at {
            check_socket_folder(path, report);
            if let Some(group) = group {
                check_socket_group(path, group, report);
            }
        }
    }
    check_sink_files(config, report);
}

/// Whether the state file can be written. Without it the server runs, and fetches every token again at each start.
fn check_state_folder(config: &Config, report: &mut CheckReport) {
    let Some(path) = config.credentials.state_path.as_deref().filter(|_| !config.credentials.apps.is_empty()) else {
        return;
    };
    let folder = folder_of(path);
    let (shown, who) = (folder.display(), process_user());
    let unless = "otherwise tokens are kept in memory only, and fetched again at each start";
    let Err(errno) = may_write(folder) else {
        return check_state_owner(path, report);
    };
    let text = match errno {
        Errno::NOENT => {
            let above = folder.ancestors().find(|above| above.exists()).unwrap_or(Path::new("/"));
            if may_write(above).is_ok() {
                // The server makes it.
                return;
            }
            format!(
                "the state folder {shown} is not there, and this process's user {who} may not make it in {}: {}; {unless}",
                above.display(),
                how_to_make(folder, "700", Some(&who))
            )
        }
        Errno::ROFS => format!(
            "the state folder {shown} is read-only for this process, as under systemd's ProtectSystem=strict: leave out \
             path under [state], so that the unit's StateDirectory= counts, or add a drop-in (systemctl edit tokencached) \
             with {}; {unless}",
            unit::writable(folder).join(" ")
        ),
        _ => format!(
            "this process's user {who} may not write in the state folder {shown}{}: name under [state] a path in a \
             folder of its own, {}; under systemd leave path out, so that the unit's StateDirectory= counts; {unless}",
            owner_of(folder),
            how_to_make(Path::new("/var/lib/tokencached"), "700", Some(&who))
        ),
    };
    report_folder(folder, text, report);
}

/// A state file that belongs to another user is not trusted, except by root.
fn check_state_owner(path: &Path, report: &mut CheckReport) {
    let Ok(found) = std::fs::symlink_metadata(path) else { return };
    if !geteuid().is_root() && found.uid() != geteuid().as_raw() {
        let (shown, who) = (path.display(), process_user());
        report.warn(format!(
            "the state file {shown}{} does not belong to this process's user {who}, and would be set aside: name \
             another path under [state], or give the file and its lock to {who}",
            owner_of(path)
        ));
    }
}

fn check_socket_folder(path: &Path, report: &mut CheckReport) {
    let folder = folder_of(path);
    let (shown, socket) = (folder.display(), path.display());
    let Err(errno) = may_write(folder) else { return };
    let text = match errno {
        Errno::NOENT => format!(
            "the folder {shown} of the socket {socket} is not there, and without it the server does not start: {}",
            how_to_make(folder, "755", None)
        ),
        _ => format!(
            "this process's user {} may not make the socket {socket}: {}{}; the server does not start then. Name \
             a path in a folder of its own: under systemd /run/tokencached/NAME with RuntimeDirectory=tokencached",
            process_user(),
            io::Error::from(errno),
            owner_of(folder)
        ),
    };
    report_folder(folder, text, report);
}

/// Whether a socket can be given to that group: root may use any group, other users those they are in.
fn check_socket_group(path: &Path, group: &str, report: &mut CheckReport) {
    let socket = path.display();
    match process::group_id(group) {
        Err(error) => report.warn(format!("the socket {socket}: {error}; the server does not start then")),
        Ok(gid) => {
            let gid = Gid::from_raw(gid);
            let is_ours = getegid() == gid || getgroups().is_ok_and(|groups| groups.contains(&gid));
            if geteuid().is_root() {
                report.note(format!(
                    "the socket {socket} is given to the group {group}; the shipped systemd unit needs a drop-in for that \
                     (systemctl edit tokencached) with the two lines [Service] and Group={group}"
                ));
            } else if !is_ours {
                report.warn(format!(
                    "this process's user {} cannot give the socket {socket} to the group {group}, and the server \
                     does not start then: {}",
                    process_user(),
                    unit::group_advice(group)
                ));
            }
        }
    }
}

/// What the shipped systemd unit needs to write the files of sinks, and whether this process may.
fn check_sink_files(config: &Config, report: &mut CheckReport) {
    for sink in config.sinks.iter().filter(|sink| matches!(sink.to, SinkTo::File(_))) {
        let folder = |entry: &SinkEntry| Path::new(&entry.name).parent().map(Path::to_owned);
        let folders: BTreeSet<PathBuf> = sink.entries.iter().filter_map(folder).collect();
        for folder in folders.iter().take(FOLDERS_MAX) {
            let shown = folder.display();
            let advice = format!(
                "files there get its group if it was made by: {}\nthe systemd unit needs a drop-in (systemctl edit \
                 tokencached):\n  {}",
                unit::command(folder),
                unit::lines(folder).join("\n  ")
            );
            match may_write(folder) {
                Ok(()) => report.note(format!("sink {sink}: {shown}: this process may write there\n{advice}")),
                Err(errno) => {
                    let error = io::Error::from(errno);
                    report.warn(format!("sink {sink}: {shown}: this process may not write there: {error}\n{advice}"));
                }
            }
        }
        if folders.len() > FOLDERS_MAX {
            report.note(format!("sink {sink}: and so on for {} more folders", folders.len() - FOLDERS_MAX));
        }
    }
}

/// A note for a folder that systemd makes when the service starts, otherwise a warning.
fn report_folder(folder: &Path, text: String, report: &mut CheckReport) {
    let by_systemd = ["STATE_DIRECTORY", "RUNTIME_DIRECTORY"].iter().any(|name| std::env::var_os(name).is_some());
    let is_unit_folder = SHIPPED_UNIT_FOLDERS.iter().any(|own| folder.starts_with(own));
    match unit::made_by(folder).filter(|_| is_unit_folder && !by_systemd) {
        Some(line) => report.note(format!(
            "{} is made by the systemd unit when it starts ({line}); if tokencached is started otherwise: {text}",
            folder.display()
        )),
        None => report.warn(text),
    }
}

fn how_to_make(folder: &Path, mode: &str, owner: Option<&str>) -> String {
    let owner = owner.map(|owner| format!("-o {owner} ")).unwrap_or_default();
    let command = format!("install -d -m {mode} {owner}{}", unit::shell_word(folder.as_os_str()));
    match unit::made_by(folder) {
        Some(line) => format!("under systemd add {line} to the unit, else as root: {command}"),
        None => {
            format!("as root: {command}; and under systemd add a drop-in with {}", unit::writable(folder).join(" "))
        }
    }
}

fn folder_of(path: &Path) -> &Path {
    path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."))
}

fn may_write(folder: &Path) -> Result<(), Errno> {
    if folder.metadata().is_ok_and(|found| !found.is_dir()) {
        return Err(Errno::NOTDIR);
    }
    rustix::fs::access(folder, Access::WRITE_OK | Access::EXEC_OK)
}

/// The owner and mode, if they can be read.
fn owner_of(path: &Path) -> String {
    let found = std::fs::symlink_metadata(path);
    found.map_or(String::new(), |found| format!(" (of {}, mode {:04o})", user_name(found.uid()), found.mode() & 0o7777))
}

fn process_user() -> String {
    user_name(geteuid().as_raw())
}

/// A user's name, or the number if it has none.
fn user_name(uid: u32) -> String {
    User::from_uid(Uid::from_raw(uid)).ok().flatten().map_or_else(|| uid.to_string(), |user| user.name)
}
