//! Reads the secrets and refresh tokens that are in files, whenever a file is replaced.

use std::collections::{BTreeMap, HashMap};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use parking_lot::Mutex;
use tokio::sync::mpsc;
use tokio_util::sync::{CancellationToken, DropGuard};

use crate::credential::actor::Actor;
use crate::credential::table::CredentialId;
use crate::files::watch::WatchedFiles;
use crate::secret::Secret;
use crate::secret_source::SecretSource;

/// The content of a secret file.
pub(super) struct SecretRead {
    pub ids: Vec<CredentialId>,
    pub secret: Secret,
    /// It was there when the watch on it began.
    pub at_start: bool,
}

/// The files that are watched. Each is watched once, however many credentials it is for.
pub(super) struct SecretFiles {
    files: HashMap<PathBuf, SharedSecretFile>,
    /// Takes what is to be watched.
    watch: mpsc::UnboundedSender<Box<dyn WatchedFiles>>,
    /// Takes what is read.
    reads: mpsc::UnboundedSender<SecretRead>,
}

struct SharedSecretFile {
    ids: Arc<Mutex<Vec<CredentialId>>>,
    /// Ends the watch on it.
    _watch: DropGuard,
}

impl SecretFiles {
    pub fn new(
        watch: mpsc::UnboundedSender<Box<dyn WatchedFiles>>,
        reads: mpsc::UnboundedSender<SecretRead>,
    ) -> SecretFiles {
        SecretFiles { files: HashMap::new(), watch, reads }
    }

    /// Follows the files of these secrets, each once.
    pub fn follow_all<'a>(&mut self, all: impl Iterator<Item = (CredentialId, &'a Actor)>) {
        let mut by_path: BTreeMap<&Path, (&Actor, Vec<CredentialId>)> = BTreeMap::new();
        for (id, actor) in all {
            if let SecretSource::File(file) = &actor.plan.secret {
                by_path.entry(file.path()).or_insert((actor, Vec::new())).1.push(id);
            }
        }
        by_path.into_iter().for_each(|(path, (actor, ids))| self.watch(path, actor, Arc::new(Mutex::new(ids))));
    }

    /// Follows the file of its secret, if that is in one. If the file is watched already, it is read again as at the
    /// start: what it holds may be news for this one.
    pub fn follow(&mut self, id: CredentialId, actor: &Actor) {
        let SecretSource::File(file) = &actor.plan.secret else { return };
        let ids = self.files.remove(file.path()).map(|known| known.ids).unwrap_or_default();
        ids.lock().push(id);
        self.watch(file.path(), actor, ids);
    }

    /// Begins the watch on this file; `actor` is one of those that it is for.
    fn watch(&mut self, path: &Path, actor: &Actor, ids: Arc<Mutex<Vec<CredentialId>>>) {
        let (name, end) = (format!("the {} of {} in", actor.secret_noun(), actor.plan.appid), CancellationToken::new());
        let (theirs, reads) = (ids.clone(), self.reads.clone());
        let watched = actor.plan.secret.watched_until(end.clone(), name, move |secret, at_start| {
            // It fails only while the refresher ends.
            let _ = reads.send(SecretRead { ids: theirs.lock().clone(), secret: secret.clone(), at_start });
        });
        // The same here.
        watched.into_iter().for_each(|watched| drop(self.watch.send(watched)));
        self.files.insert(path.to_owned(), SharedSecretFile { ids, _watch: end.drop_guard() });
    }

    /// Follows it for this credential no more.
    pub fn unfollow(&mut self, id: CredentialId, source: &SecretSource) {
        let SecretSource::File(file) = source else { return };
        let Some(known) = self.files.get(file.path()) else { return };
        let is_last = {
            let mut ids = known.ids.lock();
            ids.retain(|other| *other != id);
            ids.is_empty()
        };
        if is_last {
            self.files.remove(file.path());
        }
    }
}
