//! `tokencached check`: says whether the server would start, and with `--live` fetches a token for each app and logs in to
//! each sink's store. Ends with a verdict.
//!
//! Never forces a new token, never shows a token or a secret.

mod addresses;
mod folders;
mod live;
mod report;

use std::ffi::{OsStr, OsString};
use std::fmt::Write as _;
use std::path::{Path, PathBuf};

pub use self::live::check_live;
use self::report::count;
pub use self::report::{CheckReport, Detail};
use crate::config::{Config, Faults, Loaded};
use crate::credential::App;
use crate::platform::Renewal;
use crate::{credential, unit};

/// Examines a configuration that the loader has accepted.
pub fn examine(loaded: &Loaded) -> CheckReport {
    let mut report = CheckReport::default();
    loaded.warnings.iter().for_each(|warning| report.warn(warning));
    loaded.notices.iter().for_each(|notice| report.note(notice));
    let hints = loaded.config.credentials.apps.iter().filter(|app| may_end_tokens_of_others(app));
    report.note_of_apps(hints.map(|app| (app.display_name(), MOVING_HINT.to_owned())).collect());
    folders::examine(&loaded.config, &mut report);
    // Usual beside a server that is running; not a fault.
    if let Some(text) = credential::state_in_use(&loaded.config.credentials) {
        report.note(text);
    }
    addresses::examine(&loaded.config, &mut report);
    report
}

/// What people should know before the first fetch when they move a site.
const MOVING_HINT: &str = "with endpoint = \"token\" each fetch ends the token that other programs hold; while some still fetch for \
                           this app, name the place they keep it in (adopt), or use \"stable_token\" until all have moved";

fn may_end_tokens_of_others(app: &App) -> bool {
    let ends_others = app.token.renewal == Renewal::Mint && app.token.probe.is_some();
    ends_others && app.component.is_none() && app.adopt.is_none() && !app.secret.is_absent()
}

pub fn verdict(config: &Config) -> String {
    let apps = if config.credentials.apps.is_empty() {
        "no apps".to_owned()
    } else {
        count(config.credentials.apps.len(), "app")
    };
    let sinks =
        if config.sinks.is_empty() { String::new() } else { format!(", {}", count(config.sinks.len(), "sink")) };
    format!("configuration good: {apps}{sinks}")
}

/// The text about a configuration that is refused: its faults, how to check it if systemd hands out its credentials, and
/// the verdict. `command` is this process's own, `file` the configuration.
pub fn refusal(faults: &Faults, command: &[OsString], file: Option<&Path>) -> String {
    let mut text = faults.to_string();
    let missing = faults.missing_credentials();
    if let (false, Some(file)) = (missing.is_empty(), file) {
        let folder = file.parent().unwrap_or(Path::new("/"));
        let paths: Vec<PathBuf> = missing.iter().map(|name| folder.join(format!("{name}.secret"))).collect();
        let credentials: Vec<(&str, &Path)> =
            missing.iter().map(|name| &**name).zip(paths.iter().map(PathBuf::as_path)).collect();
        let _ = write!(
            text,
            "\nsystemd hands out credentials to services only. To check with them, as root, with the paths of the unit's \
             LoadCredential= lines:\n  {}",
            unit::run_as_service(&credentials, &absolute(command, file))
        );
    }
    let _ = write!(text, "\nconfiguration refused: {}", count(faults.iter().count(), "fault"));
    text
}

/// This process's command, so that it works in any folder.
fn absolute(command: &[OsString], file: &Path) -> Vec<OsString> {
    let program = std::env::current_exe().ok().map(PathBuf::into_os_string);
    let mut words: Vec<OsString> = program.or_else(|| command.first().cloned()).into_iter().collect();
    let mut command = command.iter().skip(1);
    let mut is_named = false;
    while let Some(word) = command.next() {
        let (flag, value) = match word.to_string_lossy().split_once('=') {
            Some((flag, _)) => (flag.to_owned(), true),
            None => (word.to_string_lossy().into_owned(), false),
        };
        // Long flags can be shortened.
        if flag.starts_with("--c") && "--config".starts_with(&flag) {
            if !value {
                command.next();
            }
            is_named = true;
            words.extend([OsStr::new("--config").to_owned(), file.as_os_str().to_owned()]);
        } else {
            words.push(word.clone());
        }
    }
    if !is_named {
        words.extend([OsStr::new("--config").to_owned(), file.as_os_str().to_owned()]);
    }
    words
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_can_be_given_from_any_folder() {
        let words = |line: &str| {
            let command: Vec<OsString> = line.split(' ').map(OsString::from).collect();
            let words = absolute(&command, Path::new("/etc/t/c.toml"));
            let words: Vec<String> = words.iter().skip(1).map(|word| word.to_string_lossy().into_owned()).collect();
            words.join(" ")
        };
        assert_eq!(words("t check --live --config c.toml -p 1"), "check --live --config /etc/t/c.toml -p 1");
        assert_eq!(words("t check --conf=c.toml --conn-limit 5"), "check --config /etc/t/c.toml --conn-limit 5");
        assert_eq!(words("t check"), "check --config /etc/t/c.toml");
    }
}
