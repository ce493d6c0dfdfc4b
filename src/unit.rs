//! Advice for a systemd service that lacks a permission: lines of a drop-in, and commands to paste. Only makes text.

pub mod credentials;

use std::ffi::{OsStr, OsString};
use std::path::Path;

use nix::unistd::{Gid, Group};

/// The web server's group, where the folder does not say.
const GROUP: &str = "www-data";

/// What to do where this process may not write in a folder.
pub fn advice(folder: &Path) -> String {
    format!("run: {}; and under systemd add a drop-in with: {}", command(folder), lines(folder).join(" "))
}

/// Makes the folder, or gives it the rights that are needed: files in it get its group, and group members write.
pub fn command(folder: &Path) -> String {
    format!("install -d -m 2770 -g {} {}", group(folder), shell_word(folder.as_os_str()))
}

/// The lines of the drop-in, `systemctl edit tokencached`.
pub fn lines(folder: &Path) -> Vec<String> {
    let mut lines = writable(folder);
    lines.push(format!("SupplementaryGroups={}", group(folder)));
    lines
}

/// The lines that let a service write in a folder, as far as the unit keeps it from there.
pub fn writable(folder: &Path) -> Vec<String> {
    let path = folder.display();
    if ["/home", "/root", "/run/user"].iter().any(|hidden| folder.starts_with(hidden)) {
        // With ProtectHome=yes nothing below is there, and no path can be let through.
        vec!["[Service]".to_owned(), "ProtectHome=tmpfs".to_owned(), format!("BindPaths={path}")]
    } else {
        vec!["[Service]".to_owned(), format!("ReadWritePaths={path}")]
    }
}

/// What to do where this process may not give a socket to a group. With PrivateUsers=yes, as in the shipped unit, the
/// kernel knows no group there but the service's main one.
pub fn group_advice(group: &str) -> String {
    format!(
        "it must be in that group: under systemd run systemctl edit tokencached, write the two lines [Service] and \
         Group={group}, and restart; SupplementaryGroups={group} is enough only with PrivateUsers=no. Without systemd: \
         usermod -aG {group} USER, or start as root with -u"
    )
}

/// The directive of a unit that makes a folder for the service, if systemd has one for folders of that place.
pub fn made_by(folder: &Path) -> Option<String> {
    let places = [("/run", "RuntimeDirectory"), ("/var/lib", "StateDirectory")];
    let (directive, name) =
        places.iter().find_map(|(place, directive)| Some((directive, folder.strip_prefix(place).ok()?)))?;
    (!name.as_os_str().is_empty()).then(|| format!("{directive}={}", name.display()))
}

/// A command as root that runs one of ours as the shipped unit would, with these credentials. It has the unit's user: a
/// user of its own would be given the state folder, and the server that runs would lose it.
pub fn run_as_service(credentials: &[(&str, &Path)], command: &[OsString]) -> String {
    let mut words: Vec<String> = ["systemd-run", "--pipe", "--wait", "--collect"].map(str::to_owned).into();
    let mut property = |property: String| words.extend(["-p".to_owned(), shell_word(OsStr::new(&property))]);
    for given in ["DynamicUser=yes", "User=tokencached", "StateDirectory=tokencached", "StateDirectoryMode=0700"] {
        property(given.to_owned());
    }
    for (name, path) in credentials {
        property(format!("LoadCredential={name}:{}", path.display()));
    }
    words.extend(command.iter().map(|word| shell_word(word)));
    words.join(" ")
}

/// The folder's group, if it is there and has one of the site's.
fn group(folder: &Path) -> String {
    use std::os::unix::fs::MetadataExt;
    let gid = std::fs::metadata(folder).ok().map(|found| found.gid()).filter(|gid| *gid != 0);
    let name = gid.and_then(|gid| Group::from_gid(Gid::from_raw(gid)).ok().flatten()).map(|group| group.name);
    name.filter(|name| name != "nogroup").unwrap_or_else(|| GROUP.to_owned())
}

/// A word as a shell takes it for one.
pub fn shell_word(word: &OsStr) -> String {
    let text = word.to_string_lossy();
    let is_plain = !text.is_empty() && text.chars().all(|c| c.is_alphanumeric() || "/._-:+@=,".contains(c));
    if is_plain { text.into_owned() } else { format!("'{}'", text.replace('\'', r"'\''")) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_drop_in_lets_the_folder_through_and_gives_its_group() {
        let lines = |path: &str| super::lines(Path::new(path)).join("\n");
        let expected = "[Service]\nReadWritePaths=/srv/none/token\nSupplementaryGroups=www-data";
        assert_eq!(lines("/srv/none/token"), expected);
        let expected = "[Service]\nProtectHome=tmpfs\nBindPaths=/home/none/token\nSupplementaryGroups=www-data";
        assert_eq!(lines("/home/none/token"), expected);
        assert_eq!(command(Path::new("/srv/my site")), "install -d -m 2770 -g www-data '/srv/my site'");
    }

    #[test]
    fn a_folder_that_systemd_can_make_has_its_directive() {
        let made = |path: &str| super::made_by(Path::new(path));
        assert_eq!(made("/run/tokencached").as_deref(), Some("RuntimeDirectory=tokencached"));
        assert_eq!(made("/var/lib/a/b").as_deref(), Some("StateDirectory=a/b"));
        assert_eq!(made("/srv/tokencached"), None);
        assert_eq!(made("/run"), None);
    }

    #[test]
    fn a_run_as_the_service_is_one_line_for_a_shell() {
        let command = ["/usr/local/bin/tokencached", "check", "--config", "/etc/my site.toml"].map(OsString::from);
        assert_eq!(
            run_as_service(&[("wx1", Path::new("/etc/tokencached/wx1.secret"))], &command),
            "systemd-run --pipe --wait --collect -p DynamicUser=yes -p User=tokencached -p StateDirectory=tokencached \
             -p StateDirectoryMode=0700 -p LoadCredential=wx1:/etc/tokencached/wx1.secret \
             /usr/local/bin/tokencached check --config '/etc/my site.toml'"
        );
    }
}
