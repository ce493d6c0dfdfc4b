//! `name` of an app: what people call it, beside the appid that they cannot tell from another.
//!
//! It is shown in logs, statistics, metrics and pages, so it can hold nothing that begins a line or turns one around.

use std::collections::HashMap;

use super::App;
use crate::invalid_value::{InvalidValue, looks_like_secret, quoted, wrong};

const NAME_CHARS_MAX: usize = 64;

pub fn app_name(name: &str) -> Result<String, InvalidValue> {
    let remedy = "Write what people call the app, such as name = \"商城小程序\".";
    let chars = name.chars().count();
    if looks_like_secret(name) {
        wrong("it looks like the secret itself, and a name is shown everywhere", remedy)
    } else if name.trim().is_empty() {
        wrong("it is empty", remedy)
    } else if chars > NAME_CHARS_MAX {
        wrong(format!("it has {chars} characters, and {NAME_CHARS_MAX} are the most"), remedy)
    } else if name.contains(is_unfit) {
        wrong(format!("{} has a line end or another control character", quoted(name)), remedy)
    } else {
        Ok(name.to_owned())
    }
}

/// Control characters, and those that end a line or change the direction of what follows without being called so.
fn is_unfit(c: char) -> bool {
    c.is_control()
        || matches!(c, '\u{2028}' | '\u{2029}' | '\u{200e}' | '\u{200f}' | '\u{061c}' | '\u{feff}')
        || matches!(c, '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}

/// A warning for each name that several apps have: whoever reads it cannot tell which is meant.
pub fn warn_of_duplicates<'a>(apps: impl Iterator<Item = &'a App>) -> Vec<String> {
    let mut first: HashMap<&str, String> = HashMap::new();
    let mut warnings = Vec::new();
    for app in apps {
        let Some(name) = app.name.as_deref() else { continue };
        if let Some(other) = first.get(name) {
            let (id, other, name) = (quoted(&app.id()), quoted(other), quoted(name));
            warnings.push(format!("the apps {other} and {id} have the same name {name}"));
        } else {
            first.insert(name, app.id());
        }
    }
    warnings
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(name: &str) -> Result<String, String> {
        app_name(name).map_err(|problem| problem.what)
    }

    #[test]
    fn a_name_is_any_text_that_fits_on_a_line() {
        let longest = "名".repeat(NAME_CHARS_MAX);
        for name in ["商城小程序", "Shop \"new\" \\ {x}=1", "a", "👩‍💻 \u{301}", "STAT a b", &longest] {
            assert_eq!(read(name).as_deref(), Ok(name));
        }
    }

    #[test]
    fn a_name_that_could_begin_or_turn_a_line_is_refused() {
        for bad in ["\n", "\r", "\u{1}", "\u{1b}[31m", "\u{7f}", "\u{85}", "\u{2028}", "\u{202e}", "\u{2066}", "\t"] {
            assert!(read(&format!("a{bad}b")).unwrap_err().contains("control character"), "{bad:?}");
        }
        assert!(read(&"a".repeat(NAME_CHARS_MAX + 1)).unwrap_err().contains("65 characters"));
        assert_eq!(read(" ").unwrap_err(), "it is empty");
        let fault = read(&"0f".repeat(16)).unwrap_err();
        assert!(fault.contains("looks like the secret") && !fault.contains("0f0f"), "{fault}");
    }
}
