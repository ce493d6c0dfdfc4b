//! The settings of all parts together. `config` produces them.

use std::collections::{BTreeSet, HashSet};
use std::path::Path;

use crate::environment::Environment;
use crate::invalid_value::quoted;
use crate::server::{Access, ListenAt, Listener};
use crate::unit::credentials;
use crate::{credential, http_api, server, sink, telemetry};

#[derive(Clone, Debug, Default)]
pub struct Options {
    pub server: server::Options,
    pub access: Access,
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

    /// A sentence for each app that has rights and is not there: a misspelling. It gives nothing away, so it stops nothing.
    pub fn unknown_apps(&self) -> Vec<String> {
        let known: HashSet<String> = self.credentials.apps.iter().map(|app| app.id()).collect();
        let keys = self.http.as_ref().and_then(|http| http.read_keys().ok().flatten());
        let keys = keys.map(|(keys, _)| keys).unwrap_or_default();
        let listeners = self.server.listeners.iter().map(|listener| &listener.rights);
        let of_certificates = self.access.certificates.iter().map(|(_, rights)| rights);
        let rights = self.access.users.values().chain(of_certificates).chain(listeners).chain([&self.server.rights]);
        let named = rights.flat_map(|rights| rights.named_apps());
        let named: BTreeSet<&String> = named.chain(keys.iter().flat_map(|key| key.rights.named_apps())).collect();
        let unknown = named.into_iter().filter(|app| !known.contains(*app));
        unknown.map(|app| format!("rights name the app {}, which is not configured", quoted(app))).collect()
    }

    /// What to do if systemd's user may not read a key or a certificate of TLS; they are read when they are used.
    pub fn remedy_for_tls(&self, environment: &dyn Environment) -> Option<String> {
        let server = self.access.tls.iter().map(|tls| ("server", tls));
        let http = self.http.iter().filter_map(|http| Some(("http", http.tls.as_ref()?)));
        server.chain(http).find_map(|(section, tls)| {
            let remedy = |path: &Path, key: &str| {
                let (setting, name) = (format!("tls.{key}_credential"), format!("{section}-{key}"));
                credentials::remedy_if_denied(environment, path, &setting, Some(&name))
            };
            remedy(&tls.key, "key").or_else(|| remedy(&tls.cert, "cert"))
        })
    }
}
