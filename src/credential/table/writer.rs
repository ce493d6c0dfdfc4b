//! The writer of a credential: publishes and withdraws its value and sets its status. The refresher is given the writers
//! when the table is built; nobody else can have one.

use std::ops::Deref;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use super::{
    Credential, CredentialConfig, CredentialId, CredentialStatus, EndedKeys, Event, Journal, KeyConfig, ManagedKey,
    Published, RenderedValue, Table,
};
use crate::clock::{BootMs, Now};

/// What readers are to see from now on.
pub enum TableChange {
    Status(Box<CredentialStatus>),
    /// See [`CredentialWriter::publish`].
    Publish(Published),
    /// See [`CredentialWriter::publish_until_next`].
    PublishUntilNext(Published),
    /// See [`CredentialWriter::withdraw`].
    Withdraw {
        now_ms: BootMs,
    },
    /// See [`CredentialWriter::remember`].
    Remember(Published),
    /// See [`CredentialWriter::end_wait`].
    EndWait,
}

/// Writes one credential. It also reads it, as any reader does.
pub struct CredentialWriter {
    credential: Arc<Credential>,
    /// What its keys are made of, and the keys.
    configured: Vec<KeyConfig>,
    keys: Vec<Arc<ManagedKey>>,
}

/// What comes and goes. For the refresher alone, which has the writers.
impl Table {
    /// Adds a credential with its keys.
    pub(in crate::credential) fn add(
        &self,
        id: CredentialId,
        config: &CredentialConfig,
        parent: Option<Arc<Credential>>,
    ) -> CredentialWriter {
        let mut writer = CredentialWriter::new(self.add_credential(id, config, parent));
        self.names.change(&[], writer.make_keys(&config.keys));
        writer
    }

    /// Gives it these keys and no others. Clients see all of it at once. Those that it has no longer are to be dropped
    /// after a while.
    pub(in crate::credential) fn change_keys(&self, writer: &mut CredentialWriter, keys: &[KeyConfig]) -> EndedKeys {
        if writer.configured == keys {
            return EndedKeys::default();
        }
        let gone = std::mem::take(&mut writer.keys);
        let ended = self.names.change(&gone, writer.make_keys(keys));
        writer.touch();
        ended
    }

    /// Removes a credential. Its keys are to be dropped after a while.
    pub(in crate::credential) fn remove(&self, writer: &CredentialWriter) -> EndedKeys {
        self.credentials.remove(&writer.id);
        self.names.change(&writer.keys, &[])
    }

    /// Drops keys that were taken away, unless a credential has taken them since.
    pub(in crate::credential) fn drop_ended(&self, ended: &EndedKeys) {
        self.names.drop_ended(ended);
    }
}

impl Deref for CredentialWriter {
    type Target = Credential;

    fn deref(&self) -> &Credential {
        &self.credential
    }
}

impl CredentialWriter {
    pub(super) fn new(credential: Arc<Credential>) -> CredentialWriter {
        CredentialWriter { credential, configured: Vec::new(), keys: Vec::new() }
    }

    /// Makes its keys, and shows its value in every view that they need. Views that are there already keep their places,
    /// for keys that readers have looked up.
    pub(super) fn make_keys(&mut self, configured: &[KeyConfig]) -> &[Arc<ManagedKey>] {
        let credential = &self.credential;
        let mut views = credential.views.lock().clone();
        let known = views.len();
        let place = |key: &KeyConfig| {
            views.iter().position(|view| *view == key.view).unwrap_or_else(|| {
                views.push(key.view.clone());
                views.len() - 1
            })
        };
        let places: Vec<usize> = configured.iter().map(place).collect();
        let is_new = views.len() > known;
        *credential.views.lock() = views;
        if let Some(shown) = credential.value_cell.latest().as_ref().filter(|_| is_new) {
            let again = self.render_views(Published::clone(&shown.published));
            again.was_read.store(shown.was_read.load(Ordering::Relaxed), Ordering::Relaxed);
            credential.value_cell.show(again);
        }
        let key = |(key, view)| Arc::new(ManagedKey::new(key, view, &self.credential));
        self.keys = configured.iter().zip(places).map(key).collect();
        let redacted = |key: &KeyConfig| key.redacted_name.as_ref().unwrap_or(&key.name).clone();
        self.redacted_names.store(Arc::new(configured.iter().map(redacted).collect()));
        self.configured = configured.to_vec();
        &self.keys
    }

    /// The credential as readers see it.
    pub fn reader(&self) -> &Arc<Credential> {
        &self.credential
    }

    /// Makes a change that the credential's actor has decided.
    pub fn apply(&self, change: TableChange) {
        match change {
            TableChange::Status(status) => self.update_status(|shown| *shown = *status),
            TableChange::Publish(value) => self.publish(value),
            TableChange::PublishUntilNext(value) => self.publish_until_next(value),
            TableChange::Withdraw { now_ms } => self.withdraw(now_ms),
            TableChange::Remember(value) => self.remember(value),
            TableChange::EndWait => self.end_wait(),
        }
    }

    /// Publishes a value.
    pub fn publish(&self, value: Published) {
        self.withdrawn.store(false, Ordering::Release);
        self.value_cell.publish(self.render_views(value));
        self.bump_value_version();
    }

    /// The same for a value whose next value exists only after its expiry: readers at that time wait a moment, as for a
    /// first fetch, because the next value will come.
    pub fn publish_until_next(&self, value: Published) {
        self.withdrawn.store(false, Ordering::Release);
        self.value_cell.publish_until_next(self.render_views(value));
        self.bump_value_version();
    }

    /// WeChat refuses the value, so it is not served any more. Readers wait a moment for the next, until
    /// [`CredentialWriter::end_wait`].
    pub fn withdraw(&self, now_ms: BootMs) {
        let Some(old) = self.published() else { return };
        let expires_boot_ms = old.expires_boot_ms.min(now_ms);
        self.update_status(|status| status.expires_boot_ms = expires_boot_ms);
        self.publish_until_next(Published::to_the_end(old.value.clone(), old.generation, expires_boot_ms));
        self.withdrawn.store(true, Ordering::Release);
        self.bump_value_version();
    }

    /// At the start: keeps an expired value to recognise it later. Readers still wait for the first fetch.
    pub fn remember(&self, value: Published) {
        self.value_cell.show(self.render_views(value));
    }

    /// Readers do not wait for the first fetch any more.
    pub fn end_wait(&self) {
        self.value_cell.end_wait();
    }

    /// Changes the status.
    pub fn update_status(&self, change: impl FnOnce(&mut CredentialStatus)) {
        change(&mut self.status.lock());
        self.touch();
    }

    /// Writes an event into the journal.
    pub fn record_event(&self, journal: &Journal, now: Now, event: Event) {
        journal.record(self.id, now, event);
        self.touch();
    }

    fn render_views(&self, published: Published) -> RenderedValue {
        let rendered = self.views.lock().iter().map(|view| view.render(&published.value)).collect();
        RenderedValue { published: Arc::new(published), rendered, was_read: AtomicBool::new(false) }
    }
}
