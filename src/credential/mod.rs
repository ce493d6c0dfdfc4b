//! Managed keys: what the server keeps current by itself.
//!
//! `table` is what readers see; `policy` says when to renew, as a pure function; `refresher` is the one
//! writer and sends out `flight`s; `state` survives a restart and `saver` writes it. Readers never wait for a
//! renewal and never call WeChat.

mod flight;
pub mod policy;
pub mod refresher;
mod saver;
pub mod state;
pub mod table;

use std::path::Path;
use std::sync::Arc;

use tracing::{error, info, warn};

pub use refresher::Refresher;
pub use table::Table;

use crate::clock::Now;
use crate::config::{App, Config};
use crate::upstream::{BuildError, Client};
use refresher::Slot;
use saver::Saver;
use state::{Entry, FileStore, Loaded, Name, Snapshot, Store};

/// Builds the table and its writer. Loads the state and publishes what still lives; calls nobody.
pub fn build(config: &Config) -> Result<(Arc<Table>, Refresher), BuildError> {
    let store = config.state_path.as_ref().map(|path| Arc::new(FileStore::new(path)) as Arc<dyn Store>);
    build_with(config, store)
}

/// As [`build`], with a store of the caller's.
pub fn build_with(config: &Config, store: Option<Arc<dyn Store>>) -> Result<(Arc<Table>, Refresher), BuildError> {
    let client = Client::new(&config.upstream)?;
    let (table, reports) = Table::new(config.apps.iter().map(|app| (app.appid.as_str(), names(app))));
    let table = Arc::new(table);
    let mut slots: Vec<Slot> = config
        .apps
        .iter()
        .zip(table.credentials())
        .map(|(app, credential)| {
            let base_url = app.base_url.as_ref().unwrap_or(&config.upstream.base_url);
            let name = Name::access_token(&app.appid, app.endpoint, base_url);
            Slot::new(credential.clone(), name, base_url.clone(), app.secret.clone(), app.endpoint)
        })
        .collect();
    let saver = store.map(|store| {
        let boot_id = state::boot_id();
        let snapshot = load(store.as_ref(), config.state_path.as_deref());
        let entries = restore(&mut slots, &snapshot, &boot_id);
        Saver::new(store, entries, &boot_id)
    });
    let concurrency = config.upstream.concurrency;
    let total_timeout_ms = config.upstream.total_timeout_ms;
    Ok((table.clone(), Refresher { table, reports, slots, client, saver, concurrency, total_timeout_ms }))
}

/// Every key that answers with this app's token.
fn names(app: &App) -> Vec<String> {
    let mut names = vec![format!("access_token:{}", app.appid)];
    names.extend(app.aliases.iter().cloned());
    names
}

fn load(store: &dyn Store, path: Option<&Path>) -> Snapshot {
    let path = path.map(|path| path.display().to_string()).unwrap_or_default();
    match store.load() {
        Loaded::Found(snapshot) => snapshot,
        Loaded::Empty => {
            info!(path, "no state yet; starting cold");
            Snapshot::default()
        }
        Loaded::Refused { reason, set_aside } => {
            match set_aside {
                Some(to) => warn!(path, reason, set_aside = %to.display(), "the state is unusable; starting cold"),
                None => error!(path, reason, "the state is unusable and could not be set aside; starting cold"),
            }
            Snapshot::default()
        }
    }
}

/// Gives every slot what was kept for it. Entries of apps no longer configured are dropped with the next write.
fn restore(slots: &mut [Slot], snapshot: &Snapshot, boot_id: &str) -> Vec<Option<Entry>> {
    let now = Now::read();
    let kept = snapshot.by_name();
    let mut entries = Vec::with_capacity(slots.len());
    for slot in slots {
        let entry = kept.get(slot.name()).copied();
        if let Some(entry) = entry {
            let worth = snapshot.worth(entry, now, boot_id);
            slot.restore(entry, worth.left_ms, worth.suspicious, now);
        }
        entries.push(entry.cloned());
    }
    entries
}
