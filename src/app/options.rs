//! The settings of all parts together. `config` produces them.

use crate::server::{Access, ListenAt, Listener};
use crate::{credential, http_api, server, sink, telemetry};

/// The whole, checked configuration.
#[derive(Clone, Debug, Default)]
pub struct Options {
    pub server: server::Options,
    /// What lets clients in.
    pub access: Access,
    /// What is kept current.
    pub credentials: credential::Options,
    /// The HTTP port for people, monitoring and other code; none: off.
    pub http: Option<http_api::Options>,
    /// Where what is kept current is written as well.
    pub sinks: Vec<sink::Options>,
    pub log: telemetry::Options,
}

impl Options {
    /// Every address with its rights. `auth_file` counts for `listen` and the Unix socket too, TLS for `listen`.
    pub fn listeners(&self) -> Vec<Listener> {
        let server = &self.server;
        let listener =
            |at, tls| Listener { at, rights: server.rights.clone(), auth: self.access.auth_file.is_some(), tls };
        let mut all: Vec<Listener> =
            server.listen.iter().map(|at| listener(ListenAt::Tcp(*at), self.access.tls.is_some())).collect();
        if let Some(path) = &server.unix_socket {
            let (path, mode, group) = (path.clone(), server.unix_mode, server.unix_group.clone());
            all.push(listener(ListenAt::Unix { path, mode, group }, false));
        }
        all.extend(server.listeners.iter().cloned());
        all
    }
}
