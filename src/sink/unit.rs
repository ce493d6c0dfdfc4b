//! What a service without rights needs so that it may write in a site's folder: the commands and lines to paste.

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
    format!("install -d -m 2770 -g {} {}", group(folder), shell_word(folder))
}

/// The lines of the drop-in, `systemctl edit tokencached`.
pub fn lines(folder: &Path) -> Vec<String> {
    let path = folder.display();
    let mut lines = vec!["[Service]".to_owned(), format!("ReadWritePaths={path}")];
    if ["/home", "/root", "/run/user"].iter().any(|hidden| folder.starts_with(hidden)) {
        // With ProtectHome=yes nothing below is there, and no path can be let through.
        lines = vec!["[Service]".to_owned(), "ProtectHome=tmpfs".to_owned(), format!("BindPaths={path}")];
    }
    lines.push(format!("SupplementaryGroups={}", group(folder)));
    lines
}

/// The folder's group, if it is there and has one of the site's.
fn group(folder: &Path) -> String {
    use std::os::unix::fs::MetadataExt;
    let gid = std::fs::metadata(folder).ok().map(|found| found.gid()).filter(|gid| *gid != 0);
    let name = gid.and_then(|gid| Group::from_gid(Gid::from_raw(gid)).ok().flatten()).map(|group| group.name);
    name.filter(|name| name != "nogroup").unwrap_or_else(|| GROUP.to_owned())
}

fn shell_word(path: &Path) -> String {
    let text = path.display().to_string();
    let is_plain = text.chars().all(|c| c.is_alphanumeric() || "/._-:+@".contains(c));
    if is_plain { text } else { format!("'{}'", text.replace('\'', r"'\''")) }
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
}
