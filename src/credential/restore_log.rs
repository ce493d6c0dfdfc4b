//! Logs at the start, in one line, how many tokens were restored from the state file, and why the others were not.

use std::path::Path;

use tracing::{info, warn};

use super::slot::CredentialSlot;
use super::state::{LoadedState, Snapshot};
use crate::clock::{BootMs, nonzero};

/// What was in a state that could be read.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct RestoreCounts {
    /// Configured credentials.
    configured: u64,
    /// Of them, those whose value is live and is served.
    restored: u64,
    expired: u64,
    /// WeChat had refused them.
    withdrawn: u64,
    /// Those that are not in the file.
    missing: u64,
    /// Those in the file that are not configured.
    not_configured: u64,
}

impl RestoreCounts {
    fn of(slots: &[CredentialSlot], snapshot: &Snapshot, now_ms: BootMs) -> RestoreCounts {
        let kept = snapshot.by_name();
        let mut counts = RestoreCounts { configured: slots.len() as u64, ..RestoreCounts::default() };
        let mut found = 0;
        for slot in slots {
            let known = kept.contains_key(slot.name());
            found += u64::from(known);
            *match known {
                false => &mut counts.missing,
                true if slot.renewal_state.is_withdrawn() => &mut counts.withdrawn,
                true if slot.renewal_state.left_ms(now_ms) == 0 => &mut counts.expired,
                true => &mut counts.restored,
            } += 1;
        }
        counts.not_configured = (kept.len() as u64).saturating_sub(found);
        counts
    }
}

/// Logs it. `slots` are restored already.
pub(super) fn log_restored(slots: &[CredentialSlot], loaded: &LoadedState, path: Option<&Path>, now_ms: BootMs) {
    let (configured, what) = (slots.len(), noun(slots));
    let file = path.and_then(Path::file_name).map_or_else(|| "the state".into(), |name| name.to_string_lossy());
    let path = path.map(|path| tracing::field::display(path.display()));
    match loaded {
        _ if slots.is_empty() => {}
        LoadedState::Found(snapshot) => {
            let counts = RestoreCounts::of(slots, snapshot, now_ms);
            info!(
                path,
                expired = nonzero(counts.expired),
                withdrawn = nonzero(counts.withdrawn),
                not_in_file = nonzero(counts.missing),
                not_configured = nonzero(counts.not_configured),
                "{} of {configured} {what} restored from {file}",
                counts.restored
            );
        }
        LoadedState::Empty => info!(path, "0 of {configured} {what} restored: there is no state file yet"),
        LoadedState::Refused { reason: error, set_aside: Some(to) } => warn!(
            path,
            error,
            set_aside = %to.display(),
            "0 of {configured} {what} restored: the state file cannot be used and is set aside"
        ),
        LoadedState::Refused { reason: error, set_aside: None } => tracing::error!(
            path,
            error,
            advice = "see who may read it and its folder",
            "0 of {configured} {what} restored: the state file cannot be used, and could not be set aside"
        ),
    }
}

fn noun(slots: &[CredentialSlot]) -> &'static str {
    if slots.iter().any(|slot| slot.configured_type.needs_token && slot.grant.is_none() && slot.parent.is_some()) {
        "tokens and tickets"
    } else {
        "tokens"
    }
}
