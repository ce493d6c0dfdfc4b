//! Reads the secrets and refresh tokens that are in files, whenever a file is replaced.

use std::collections::HashMap;
use std::path::PathBuf;

use tokio::sync::mpsc;

use super::Refresher;
use crate::credential::table::CredentialId;
use crate::files::watch::WatchedFiles;
use crate::secret::Secret;
use crate::secret_source::SecretSource;

/// The content of a secret file.
pub(super) struct SecretRead {
    pub ids: Vec<CredentialId>,
    pub secret: Secret,
    /// It was there when the server started.
    pub at_start: bool,
}

impl Refresher {
    /// The files of all secrets; their contents go to `reads`.
    pub(super) fn watched_secrets(&self, reads: &mpsc::UnboundedSender<SecretRead>) -> Vec<Box<dyn WatchedFiles>> {
        let mut files: HashMap<PathBuf, (&SecretSource, String, Vec<CredentialId>)> = HashMap::new();
        for (id, member) in self.members.iter() {
            let actor = &member.actor;
            let SecretSource::File(file) = &actor.source else { continue };
            let name = || format!("the {} of {} in", actor.secret_noun(), actor.appid);
            files.entry(file.path().to_owned()).or_insert_with(|| (&actor.source, name(), Vec::new())).2.push(id);
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
