//! Logs: text for people or JSON lines, on standard error.
//!
//! Never logs a token or a secret: our own code has only fingerprints to offer, and libraries are held at
//! warnings whatever the verbosity, because at lower levels they print URLs, and WeChat's carry the secret.

use std::io::IsTerminal;
use std::sync::OnceLock;

use tracing::Level;
use tracing::level_filters::LevelFilter;
use tracing_subscriber::filter::Targets;
use tracing_subscriber::layer::{Layer, SubscriberExt};
use tracing_subscriber::reload;
use tracing_subscriber::util::{SubscriberInitExt, TryInitError};

use crate::config::Log;

const OWN: &str = env!("CARGO_CRATE_NAME");

/// Changes what is logged; there is one log in a process.
static SET_VERBOSITY: OnceLock<Box<dyn Fn(u8) + Send + Sync>> = OnceLock::new();

/// Starts logging for the whole process; fails if it was started before.
pub fn init(log: &Log) -> Result<(), TryInitError> {
    let directives = std::env::var("RUST_LOG").unwrap_or_default();
    let format = tracing_subscriber::fmt::layer().with_writer(std::io::stderr);
    // The journal stamps each line itself.
    let under_systemd = std::env::var_os("JOURNAL_STREAM").is_some_and(|stream| !stream.is_empty());
    let format = if log.json {
        format.json().flatten_event(true).with_current_span(false).boxed()
    } else if under_systemd {
        format.with_ansi(false).without_time().boxed()
    } else {
        format.with_ansi(std::io::stderr().is_terminal()).boxed()
    };
    let (filtered, handle) = reload::Layer::new(filter(log.verbosity, &directives));
    tracing_subscriber::registry().with(format.with_filter(filtered)).try_init()?;
    let _ = SET_VERBOSITY.set(Box::new(move |verbosity| {
        // Fails only when the log is gone.
        let _ = handle.reload(filter(verbosity, &directives));
    }));
    Ok(())
}

/// From now on logs as if started with this verbosity. Nothing happens before [`init`].
pub fn set_verbosity(verbosity: u32) {
    if let Some(set) = SET_VERBOSITY.get() {
        set(u8::try_from(verbosity).unwrap_or(u8::MAX));
    }
}

/// Libraries: warnings. Ourselves: what an operator should know (0 and `-v`), what each connection and renewal
/// does (`-vv`), everything (`-vvv`). Of `RUST_LOG` only what it says about this crate is heard.
fn filter(verbosity: u8, directives: &str) -> Targets {
    let own = match verbosity {
        0 | 1 => Level::INFO,
        2 => Level::DEBUG,
        _ => Level::TRACE,
    };
    let is_own = |target: &str| target == OWN || target.strip_prefix(OWN).is_some_and(|rest| rest.starts_with("::"));
    // Each directive by itself: one that does not parse must not silence the others.
    let asked = directives.split(',').filter_map(|directive| directive.trim().parse::<Targets>().ok());
    let asked: Vec<(String, LevelFilter)> = asked.flatten().filter(|(target, _)| is_own(target)).collect();
    Targets::new().with_default(Level::WARN).with_target(OWN, own).with_targets(asked)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn libraries_stay_at_warnings_at_every_verbosity() {
        for verbosity in 0..=3 {
            let filter = filter(verbosity, "trace,hyper=trace,reqwest=debug");
            for library in ["hyper", "hyper::proto", "reqwest::connect", "rustls", "h2"] {
                assert!(filter.would_enable(library, &Level::WARN), "{library}");
                assert!(!filter.would_enable(library, &Level::INFO), "{library}");
            }
        }
    }

    #[test]
    fn verbosity_opens_our_own_messages() {
        assert!(filter(0, "").would_enable("tokencached::app", &Level::INFO));
        assert!(!filter(1, "").would_enable("tokencached::app", &Level::DEBUG));
        assert!(filter(2, "").would_enable("tokencached::net", &Level::DEBUG));
        assert!(!filter(2, "").would_enable("tokencached::net", &Level::TRACE));
        assert!(filter(3, "").would_enable("tokencached::net", &Level::TRACE));
    }

    #[test]
    fn rust_log_is_heard_about_this_crate_only() {
        let filter = filter(0, "tokencached::net=trace,%%%,tokencached_like=trace");
        assert!(filter.would_enable("tokencached::net::connection", &Level::TRACE));
        assert!(!filter.would_enable("tokencached::cache", &Level::DEBUG));
        assert!(!filter.would_enable("other", &Level::INFO));
    }
}
