//! What lets clients in: users with their passwords, and TLS. One for the whole server. Its files are watched, and read
//! again on SIGHUP.
//!
//! A file that cannot be used leaves everything as it was. Nothing here shows a password or a key.

use std::path::PathBuf;
use std::sync::Arc;

use arc_swap::ArcSwap;
use parking_lot::Mutex;

use super::options::{Access, Protocol};
use crate::access::{CertificateMatcher, CertificateName, Rights, Users, rights_of};
use crate::clock::LogThrottle;
use crate::files::AUTH_FILE_BYTES_MAX;
use crate::files::watch::{ContentDigest, FileContent, NotApplied, WatchedFiles, digest_of};
use crate::tls::Tls;

/// What a listener requires of its clients, and the most they may do there.
#[derive(Clone, Debug)]
pub struct ListenerPolicy {
    pub rights: Arc<Rights>,
    /// A client must log in first.
    pub login: bool,
    pub tls: bool,
    /// Which of memcached's protocols are allowed.
    pub protocol: Protocol,
}

/// Users, certificates and rules in effect.
pub struct Authenticator {
    /// Where users are, and what they may do, as last configured.
    access: ArcSwap<Access>,
    users: ArcSwap<Users>,
    /// Of the text that they were read from.
    users_in_use: Mutex<Option<ContentDigest>>,
    rules: ArcSwap<Vec<(CertificateMatcher, Rights)>>,
    pub(super) tls: Option<Arc<Tls>>,
    pub(super) failure_log: LogThrottle,
    pub(super) handshake_log: LogThrottle,
}

impl Authenticator {
    /// Reads all files. The error is a sentence for the operator.
    pub fn new(access: &Access) -> Result<Authenticator, String> {
        let tls = access.tls.as_ref().map(Tls::new).transpose().map_err(|error| format!("TLS: {error}"))?;
        let authenticator = Authenticator {
            access: ArcSwap::from_pointee(access.clone()),
            users: ArcSwap::from_pointee(Users::default()),
            users_in_use: Mutex::new(None),
            rules: ArcSwap::from_pointee(access.certificates.clone()),
            tls: tls.map(Arc::new),
            failure_log: LogThrottle::default(),
            handshake_log: LogThrottle::default(),
        };
        authenticator.read_users(access)?;
        Ok(authenticator)
    }

    /// SIGHUP: reads passwords and certificates again, with the users and rules of `access`. Connections stay, with
    /// the rights they have. What cannot be used is reported and changes nothing.
    pub fn reload(&self, access: &Access) {
        self.rules.store(Arc::new(access.certificates.clone()));
        self.access.store(Arc::new(access.clone()));
        match self.read_users(access) {
            Ok(Some(lines)) => tracing::info!(lines, "users and passwords reloaded"),
            Ok(None) => {}
            Err(error) => tracing::error!("reload failed: {error}; the users stay as they were"),
        }
        if self.tls.is_some() {
            // Both outcomes are logged there.
            let _ = self.refresh_certificates();
        }
    }

    /// How many lines are in effect; `None` without a file.
    fn read_users(&self, access: &Access) -> Result<Option<usize>, String> {
        let mut in_use = self.users_in_use.lock();
        let Some((users, text)) = access.read_users()? else { return Ok(None) };
        let lines = users.count();
        self.users.store(Arc::new(users));
        *in_use = Some(digest_of(&[text]));
        Ok(Some(lines))
    }

    /// The files that let clients in, to be watched.
    pub fn watched(self: &Arc<Authenticator>) -> Vec<Box<dyn WatchedFiles>> {
        let users = self.access.load().auth_file.is_some();
        let users = users.then(|| Box::new(UsersFile(self.clone())) as Box<dyn WatchedFiles>);
        let tls = self.tls.as_ref().map(|tls| tls.watched("the certificate and key of TLS in"));
        users.into_iter().chain(tls).collect()
    }

    /// Reads the certificates again; `None` without TLS.
    pub fn refresh_certificates(&self) -> Option<Result<(), ()>> {
        Some(match self.tls.as_ref()?.refresh() {
            Ok(()) => {
                tracing::info!("certificates reloaded");
                Ok(())
            }
            Err(error) => {
                tracing::error!("reload failed: TLS: {error}; the certificates stay as they were");
                Err(())
            }
        })
    }

    /// The rights of a user who knows the password. For every protocol that a password can come by.
    pub fn authenticate(&self, user: &[u8], password: &[u8]) -> Option<Arc<Rights>> {
        self.users.load().authenticate(user, password)
    }

    /// The rights that a certificate with these names gives.
    pub(super) fn rights_of(&self, names: &[CertificateName]) -> Option<Rights> {
        rights_of(names, &self.rules.load())
    }
}

/// The users' file.
struct UsersFile(Arc<Authenticator>);

impl WatchedFiles for UsersFile {
    fn name(&self) -> String {
        "the users' file".to_owned()
    }

    fn paths(&self) -> Vec<PathBuf> {
        self.0.access.load().auth_file.iter().cloned().collect()
    }

    fn bytes_max(&self) -> usize {
        AUTH_FILE_BYTES_MAX
    }

    fn apply(&mut self, contents: &[FileContent], _at_start: bool) -> Result<(), NotApplied> {
        let mut in_use = self.0.users_in_use.lock();
        let digest = Some(digest_of(contents));
        let (Some(text), false) = (contents.first(), *in_use == digest) else { return Ok(()) };
        let users = self.0.access.load().users_of(text).map_err(|fault| NotApplied::Bad(fault.to_string()))?;
        let lines = users.count();
        self.0.users.store(Arc::new(users));
        *in_use = digest;
        tracing::info!(lines, "the users' file has changed; users and passwords reloaded");
        Ok(())
    }
}
