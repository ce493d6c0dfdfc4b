//! The start: takes over what an earlier process has written, and logs in one line how many tokens were restored and
//! why the others were not. Never calls a platform.

use std::collections::HashMap;
use std::path::Path;
use std::sync::Arc;

use tracing::{error, info, warn};

use super::actor::Actor;
use super::grants::{GrantName, GrantType, Grants};
use super::state::{CredentialIdentity, LoadedState, Snapshot, StateEntry, StateStore, StoredUsage};
use super::state_writer::StateWriter;
use crate::clock::{BootMs, Clock, Now, nonzero};

/// Restores the actors and the grants from the store. Returns what writes the state from now on. `wanted`: the grants of
/// the configuration.
pub(super) fn restore(
    store: Arc<dyn StateStore>,
    actors: &mut [Actor],
    wanted: &[GrantName],
    clock: &Arc<dyn Clock>,
    boot_id: &str,
) -> (StateWriter, Arc<Grants>) {
    let (loaded, now) = (store.load(), clock.now());
    let authorizers = wanted.iter().filter(|name| name.what == GrantType::RefreshToken).count();
    log_lost_refresh_tokens(&loaded, authorizers);
    let empty = Snapshot::default();
    let snapshot = if let LoadedState::Found(snapshot) = &loaded { snapshot } else { &empty };
    let (entries, usages) = restore_actors(actors, snapshot, now, boot_id);
    log_restored(actors, &loaded, store.path(), now.boot_ms);
    let grants = Arc::new(Grants::new(&snapshot.grants, wanted.iter().cloned()));
    let state_writer = StateWriter::new(store, entries, usages, clock.clone(), boot_id);
    (state_writer.with_grants(grants.clone()), grants)
}

fn log_restored(actors: &[Actor], loaded: &LoadedState, path: Option<&Path>, now_ms: BootMs) {
    let (configured, what) = (actors.len(), kept_values_noun(actors));
    let file = path.and_then(Path::file_name).map_or_else(|| "the state".into(), |name| name.to_string_lossy());
    let path = path.map(|path| tracing::field::display(path.display()));
    match loaded {
        _ if actors.is_empty() => {}
        LoadedState::Found(snapshot) => {
            let kept = snapshot.by_name();
            let found: Vec<&Actor> = actors.iter().filter(|actor| kept.contains_key(&actor.name)).collect();
            let (withdrawn, others): (Vec<&Actor>, Vec<&Actor>) =
                found.iter().partition(|actor| actor.renewal_state.is_withdrawn());
            let restored = others.iter().filter(|actor| actor.is_live(now_ms)).count();
            let shown = |count: usize| nonzero(count as u64);
            info!(
                path,
                expired = shown(others.len() - restored),
                withdrawn = shown(withdrawn.len()),
                not_in_file = shown(configured - found.len()),
                not_configured = shown(kept.len().saturating_sub(found.len())),
                "{restored} of {configured} {what} restored from {file}"
            );
        }
        LoadedState::Empty => info!(path, "0 of {configured} {what} restored: there is no state file yet"),
        LoadedState::Refused { reason: error, set_aside: Some(to) } => warn!(
            path,
            error,
            set_aside = %to.display(),
            "0 of {configured} {what} restored: the state file cannot be used and is set aside"
        ),
        LoadedState::Refused { reason: error, set_aside: None } => error!(
            path,
            error,
            advice = "see who may read it and its folder; if another user, such as root, has run this server before, give the state \
                      file and its lock file to this one with chown",
            "0 of {configured} {what} restored: the state file cannot be used, and could not be set aside"
        ),
    }
}

fn kept_values_noun(actors: &[Actor]) -> &'static str {
    if actors
        .iter()
        .any(|actor| actor.plan.credential_type.needs_token && actor.grant.is_none() && actor.parent.is_some())
    {
        "tokens and tickets"
    } else {
        "tokens"
    }
}

/// Logs that the state file could not be used and the refresh tokens in it are lost.
fn log_lost_refresh_tokens(loaded: &LoadedState, authorizers: usize) {
    if let (LoadedState::Refused { reason: error, .. }, 1..) = (loaded, authorizers) {
        error!(
            error,
            authorizers,
            advice = "put the newest good copy of the state file in place and restart; a merchant whose account then \
                      shows errcode 61023 has to authorise again",
            "the state cannot be used, and it kept the authorizers' refresh tokens: those in the configuration are \
             tried, which WeChat may have replaced since"
        );
    }
}

/// Restores every actor from the state. Entries of apps that are no longer configured are dropped with the next write,
/// but not refresh tokens, see [`Grants::kept`].
fn restore_actors(
    actors: &mut [Actor],
    snapshot: &Snapshot,
    now: Now,
    boot_id: &str,
) -> (Vec<Option<StateEntry>>, Vec<StoredUsage>) {
    let kept = snapshot.by_name();
    let counted: HashMap<&CredentialIdentity, &StoredUsage> =
        snapshot.usages.iter().map(|kept| (&kept.name, kept.as_ref())).collect();
    let mut entries = Vec::with_capacity(actors.len());
    let mut usages = Vec::with_capacity(actors.len());
    for actor in actors {
        usages.push(actor.restore_usage(counted.get(&actor.name).map(|kept| &kept.calls)));
        entries.push(kept.get(&actor.name).map(|entry| {
            let worth = snapshot.remaining_life(entry, now, boot_id);
            let entry = entry.rebased(worth, now);
            actor.restore(&entry, worth, now);
            entry
        }));
    }
    (entries, usages)
}
