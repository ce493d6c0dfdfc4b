//! Driver: secrets and refresh tokens that are replaced in their files. Fetches at once if the last secret was refused,
//! and renews once with a new refresh token.

use std::collections::HashMap;
use std::path::PathBuf;

use tokio::sync::mpsc;

use super::super::grants::Grant;
use super::super::table::{CredentialId, log_credential};
use super::{CredentialSlot, Driver, Refresher};
use crate::clock::BootMs;
use crate::files::watch::WatchedFiles;
use crate::secret::Secret;
use crate::secret_source::SecretSource;

/// The content of a secret file.
pub(super) struct SecretRead {
    ids: Vec<CredentialId>,
    secret: Secret,
    /// It was there when the server started.
    at_start: bool,
}

impl Refresher {
    /// The files of all secrets; their contents go to `reads`.
    pub(super) fn watched_secrets(&self, reads: &mpsc::UnboundedSender<SecretRead>) -> Vec<Box<dyn WatchedFiles>> {
        let mut files: HashMap<PathBuf, (&SecretSource, String, Vec<CredentialId>)> = HashMap::new();
        for (id, slot) in self.slots.iter().enumerate() {
            let SecretSource::File(file) = &slot.source else { continue };
            let name = || format!("the {} of {} in", slot.secret_noun(), slot.appid);
            files.entry(file.path().to_owned()).or_insert_with(|| (&slot.source, name(), Vec::new())).2.push(id);
        }
        let watched = files.into_values().filter_map(|(source, name, ids)| {
            let reads = reads.clone();
            source.watched(name, move |secret, at_start| {
                // It fails only while the refresher ends.
                let _ = reads.send(SecretRead { ids: ids.clone(), secret: secret.clone(), at_start });
            })
        });
        watched.collect()
    }
}

impl Driver {
    pub(super) fn on_secret_read(&mut self, read: &SecretRead) {
        for id in &read.ids {
            let Some(slot) = self.refresher.slots.get_mut(*id) else { continue };
            slot.replaced_secret = Some((read.secret.clone(), read.at_start));
            if !slot.fetching {
                self.try_replaced_secret(*id);
            }
        }
    }

    /// Uses a new secret. If a fetch runs when the file changes, this is done when that has ended.
    pub(super) fn try_replaced_secret(&mut self, id: CredentialId) {
        let now_ms = self.refresher.clock.boot_ms();
        let slot = &mut self.refresher.slots[id];
        let Some((secret, at_start)) = slot.replaced_secret.take() else { return };
        if slot.blocked_with.as_ref().is_some_and(|used| used.as_ref() != Some(&secret)) {
            log_credential!(info, slot.credential, "secret file changed, fetching with the new secret");
            slot.renewal_state.failures = 0;
            return self.set_renewal_timer(id, now_ms);
        }
        let is_news = |grant: &Grant| grant.is_configured_anew(&secret, at_start);
        let may_renew = !slot.is_barred(now_ms) && !slot.is_renewed_by_another(now_ms);
        if slot.grant.as_ref().is_some_and(is_news) && may_renew {
            log_credential!(info, slot.credential, "refresh token in the configuration changed, renewing with it");
            self.set_renewal_timer(id, now_ms);
        }
    }
}

impl CredentialSlot {
    /// Another node has just renewed, usually because of the same change, which reaches all nodes.
    fn is_renewed_by_another(&self, now_ms: BootMs) -> bool {
        let spacing_ms = self.renewal_state.others_spacing_ms(true, now_ms);
        let is_recent = self.fetched.is_some_and(|at| now_ms < at.boot_ms.saturating_add(spacing_ms));
        is_recent && self.share.as_ref().is_some_and(|share| !share.is_ours())
    }
}
