//! What is unlikely about an appid or a secret: quotes around it, a placeholder, an id of another platform.
//!
//! Pure. Never quotes a secret.

use super::{PLATFORMS, Platform, component, mp};
use crate::invalid_value::{SECRET_CHARS, has_secret_shape, quoted_name};
use crate::secret_source::surplus;

/// Of texts that stand for something else. None of them is in a secret of any platform.
const MARKS: [&str; 7] = ["...", "…", "<", "changeme", "change_me", "change-me", "placeholder"];
/// The same, looked for only in texts that do not look as their platform's do.
const WEAK_MARKS: [&str; 5] = ["your", "xxx", "secret", "appid", "todo"];
const KEPT_QUOTES: &str = "is in quotes, which are part of it: write it without (docker --env-file keeps quotes)";

fn is_in_quotes(text: &str) -> bool {
    let inside = |quote: char| text.strip_prefix(quote).and_then(|rest| rest.strip_suffix(quote));
    inside('"').or(inside('\'')).is_some_and(|inside| !inside.is_empty())
}

fn has_mark(text: &str, marks: &[&str]) -> bool {
    let text = text.to_ascii_lowercase();
    marks.iter().any(|mark| text.contains(mark))
}

/// What is unlikely about an app's secret: the end of a sentence that begins with where it is.
pub fn doubt_secret(secret: &str, platform: &Platform) -> Option<String> {
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

/// What is unlikely about an appid that does not look like one of its platform: a sentence that begins with where it is.
pub fn doubt_appid(place: &str, appid: &str, platform: &Platform) -> String {
    let by_environment = place == "WECHAT_APPID";
    if is_in_quotes(appid) {
        return format!("{place}: the appid {KEPT_QUOTES}");
    }
    if let Some(surplus) = surplus(appid) {
        return format!("{place}: appid {} {surplus}", quoted_name(appid));
    }
    if has_mark(appid, &MARKS) || has_mark(appid, &WEAK_MARKS) {
        let id = quoted_name(appid);
        return format!("{place}: appid {id} looks like a placeholder: write the app's own, as its platform shows it");
    }
    let of_other = [("ww", "wecom", "a corpid of WeCom"), ("cli_", "feishu", "an app_id of Feishu")];
    let other = of_other.into_iter().find(|(start, name, _)| appid.starts_with(start) && *name != platform.name);
    if let Some((_, name, what)) = other.filter(|(_, name, _)| PLATFORMS.iter().any(|known| known.name == *name)) {
        let id = quoted_name(appid);
        return match by_environment {
            true => format!(
                "{place} {id} looks like {what}, and this variable is for official accounts and mini programs: write an \
                 [[app]] with platform = \"{name}\" in a file for --config"
            ),
            false => format!("{place}: appid {id} looks like {what}: add platform = \"{name}\" to its [[app]]"),
        };
    }
    match by_environment {
        true => format!("{place} {} does not look like wx and 16 hex digits", quoted_name(appid)),
        false => {
            format!("{place}: appid {} does not look like one of platform \"{}\"", quoted_name(appid), platform.name)
        }
    }
}
