//! What people write who mean something else, and the sentence that helps: blanks and quotes around a value, placeholders,
//! an id of another platform, a file's name where a number belongs.
//!
//! Pure. Never quotes a secret.

use super::apps::shown;
use super::fault::Problem;
use super::value::{Value, quoted};
use crate::platform::{PLATFORMS, Platform, component, mp};
pub(super) use crate::secret_source::surplus;

/// WeChat's AppSecrets are so many hex digits.
const SECRET_CHARS: usize = 32;
/// Of texts that stand for something else. None of them is in a secret of any platform.
const MARKS: [&str; 7] = ["...", "…", "<", "changeme", "change_me", "change-me", "placeholder"];
/// The same, where the shape is known to be another.
const WEAK_MARKS: [&str; 5] = ["your", "xxx", "secret", "appid", "todo"];
const FILE_ENDINGS: [&str; 6] = [".toml", ".conf", ".cfg", ".ini", ".yaml", ".yml"];
const KEPT_QUOTES: &str = "is in quotes, which are part of it: write it without (docker --env-file keeps quotes)";

fn is_in_quotes(text: &str) -> bool {
    let inside = |quote: char| text.strip_prefix(quote).and_then(|rest| rest.strip_suffix(quote));
    inside('"').or(inside('\'')).is_some_and(|inside| !inside.is_empty())
}

fn has_mark(text: &str, marks: &[&str]) -> bool {
    let text = text.to_ascii_lowercase();
    marks.iter().any(|mark| text.contains(mark))
}

/// Whether it looks like an AppSecret of WeChat's.
pub(super) fn has_secret_shape(text: &str) -> bool {
    text.len() == SECRET_CHARS && text.bytes().all(|byte| byte.is_ascii_hexdigit())
}

/// What is unlikely about an app's secret: the end of a sentence that begins with where it is.
pub(super) fn doubt_secret(secret: &str, platform: &Platform) -> Option<String> {
    let is_wechats = [mp::PLATFORM.name, component::PLATFORM.name].contains(&platform.name);
    if is_in_quotes(secret) {
        Some(format!("the secret {KEPT_QUOTES}"))
    } else if has_secret_shape(secret) {
        None
    } else if secret.rsplit_once('=').is_some_and(|(_, value)| has_secret_shape(value)) {
        Some("the secret has its name in front: put the secret alone".to_owned())
    } else if has_mark(secret, &MARKS) || is_wechats && has_mark(secret, &WEAK_MARKS) {
        Some("the secret looks like a placeholder: put the app's own in its place".to_owned())
    } else if is_wechats {
        let length = secret.chars().count();
        Some(format!("the secret is not {SECRET_CHARS} hex digits, as WeChat's are; it has {length} characters"))
    } else {
        None
    }
}

/// What is unlikely about an appid whose shape is not its platform's: a sentence that begins with where it is.
pub(super) fn doubt_appid(place: &str, appid: &str, platform: &Platform) -> String {
    let by_environment = place == "WECHAT_APPID";
    if is_in_quotes(appid) {
        return format!("{place}: the appid {KEPT_QUOTES}");
    }
    if let Some(surplus) = surplus(appid) {
        return format!("{place}: appid {} {surplus}", shown(appid));
    }
    if has_mark(appid, &MARKS) || has_mark(appid, &WEAK_MARKS) {
        let id = shown(appid);
        return format!("{place}: appid {id} looks like a placeholder: write the app's own, as its platform shows it");
    }
    let of_other = [("ww", "wecom", "a corpid of WeCom"), ("cli_", "feishu", "an app_id of Feishu")];
    let other = of_other.into_iter().find(|(start, name, _)| appid.starts_with(start) && *name != platform.name);
    if let Some((_, name, what)) = other.filter(|(_, name, _)| PLATFORMS.iter().any(|known| known.name == *name)) {
        let id = shown(appid);
        return match by_environment {
            true => format!(
                "{place} {id} looks like {what}, and this variable is for official accounts and mini programs: write an \
                 [[app]] with kind = \"{name}\" in a file for --config"
            ),
            false => format!("{place}: appid {id} looks like {what}: add kind = \"{name}\" to its [[app]]"),
        };
    }
    match by_environment {
        true => format!("{place} {} does not look like wx and 16 hex digits", shown(appid)),
        false => format!("{place}: appid {} does not look like one of kind \"{}\"", shown(appid), platform.name),
    }
}

/// Whether that is the name of a configuration file.
fn is_file_name(text: &str) -> bool {
    text.contains('/') || FILE_ENDINGS.iter().any(|ending| text.ends_with(ending))
}

/// memcached has other uses for letters that elsewhere stand for a configuration file: what to write instead.
pub(super) fn file_after_flag(flag: &str, text: &str) -> Option<String> {
    is_file_name(text).then(|| format!("{flag} is memcached's flag; a configuration file is given by --config {text}"))
}

/// The same where a number belongs.
pub(super) fn file_for_number(flag: &str, value: &Value) -> Option<Problem> {
    let Value::Text(text) = value else { return None };
    let remedy = file_after_flag(flag, text)?;
    Some(Problem::new(format!("{} is not a number", quoted(text)), format!("{remedy}.")))
}
