//! What lets clients in: users with their passwords, and TLS. One for the whole server, read anew on SIGHUP.
//!
//! A file that cannot be used leaves everything as it was. Nothing here shows a password or a key.

use std::sync::Arc;

use arc_swap::ArcSwap;

use super::tls::Tls;
use crate::access::{CertificateName, Rights, Users, Whose, rights_of};
use crate::clock::Spacing;
use crate::config::{Access, Protocol};

/// What a listener asks of its clients, and the most they may do there.
#[derive(Clone, Debug)]
pub struct Terms {
    pub rights: Arc<Rights>,
    /// A client must log in first.
    pub login: bool,
    pub tls: bool,
    /// Which of memcached's protocols are spoken.
    pub protocol: Protocol,
}

/// Users, certificates and rules in effect.
pub struct Guard {
    users: ArcSwap<Users>,
    rules: ArcSwap<Vec<(Whose, Rights)>>,
    pub(super) tls: Option<Tls>,
    pub(super) failure_logged: Spacing,
    pub(super) handshake_logged: Spacing,
}

impl Guard {
    /// Reads all files. The error is a sentence for the operator.
    pub fn new(access: &Access) -> Result<Guard, String> {
        let tls = access.tls.as_ref().map(Tls::new).transpose().map_err(|error| format!("TLS: {error}"))?;
        let users = access.read_users()?;
        Ok(Guard {
            users: ArcSwap::from_pointee(users.unwrap_or_default()),
            rules: ArcSwap::from_pointee(access.certificates.clone()),
            tls,
            failure_logged: Spacing::default(),
            handshake_logged: Spacing::default(),
        })
    }

    /// SIGHUP: reads passwords and certificates again, with the users and rules of `access`. Connections stay, with
    /// the rights they have. What cannot be used is reported and changes nothing.
    pub fn reload(&self, access: &Access) {
        self.rules.store(Arc::new(access.certificates.clone()));
        match access.read_users() {
            Ok(Some(users)) => {
                let lines = users.len();
                self.users.store(Arc::new(users));
                tracing::info!(lines, "users and passwords are read again");
            }
            Ok(None) => {}
            Err(error) => tracing::error!("{error}; the users stay as they were"),
        }
        if self.tls.is_some() {
            // Both outcomes are logged there.
            let _ = self.refresh_certificates();
        }
    }

    /// Reads the certificates again; `None` without TLS.
    pub fn refresh_certificates(&self) -> Option<Result<(), ()>> {
        Some(match self.tls.as_ref()?.refresh() {
            Ok(()) => {
                tracing::info!("certificates are read again");
                Ok(())
            }
            Err(error) => {
                tracing::error!("TLS: {error}; the certificates stay as they were");
                Err(())
            }
        })
    }

    /// The rights of a user who knows the password. For every protocol that a password can come by.
    pub fn authenticate(&self, user: &[u8], password: &[u8]) -> Option<Arc<Rights>> {
        self.users.load().authenticate(user, password)
    }

    /// What a certificate with these names is good for.
    pub(super) fn rights_of(&self, names: &[CertificateName]) -> Option<Rights> {
        rights_of(names, &self.rules.load())
    }
}
