//! The writer of a credential: publishes and withdraws its value and sets its status. The refresher is given the writers
//! when the table is built; nobody else can have one.

use std::ops::Deref;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use super::{Credential, CredentialStatus, Event, Journal, Published, RenderedValue};
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
}

impl Deref for CredentialWriter {
    type Target = Credential;

    fn deref(&self) -> &Credential {
        &self.credential
    }
}

impl CredentialWriter {
    pub(super) fn new(credential: &Arc<Credential>) -> CredentialWriter {
        CredentialWriter { credential: credential.clone() }
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
        let rendered = self.views.iter().map(|view| view.render(&published.value)).collect();
        RenderedValue { published: Arc::new(published), rendered, was_read: AtomicBool::new(false) }
    }
}
