//! `[http]`: the HTTP port for people, monitoring and code that does not speak memcached.

use std::net::SocketAddr;

use super::Http;
use super::fault::{Place, SettingProblem};
use super::reader::{RawTable, Reader, toml_texts};
use super::secrets::{is_open_to_others, remedy_if_denied};
use super::server::{addresses, open_addresses};
use super::value::{RawValue, ReadResult, quoted, texts};
use crate::http_api::options::{HTTP_PORT, MetricsPerCredential};
use crate::network::Network;
use crate::tls::{ClientCertificates, TlsOptions};

impl Reader<'_> {
    /// The HTTP API; `None` while it is off.
    pub(super) fn http(&mut self, table: &RawTable) -> Option<Http> {
        let listen = self.placed(table, "listen", |value, _| addresses(value));
        let keys = self.file(table, "keys_file", "keys_credential", |_| Ok(()));
        let allowed_hosts = self.read(table, "allowed_hosts", hosts).unwrap_or_default();
        table.print("allowed_hosts", toml_texts(&allowed_hosts));
        let trusted_proxies = self.read(table, "trusted_proxies", networks).unwrap_or_default();
        table.print("trusted_proxies", toml_texts(trusted_proxies.iter().map(Network::to_string)));
        let metrics = self.word(table, "metrics_per_credential", MetricsPerCredential::WORDS);
        let mut http = Http {
            listen: Vec::new(),
            keys_file: keys.as_ref().map(|(path, _)| path.clone()),
            allowed_hosts,
            trusted_proxies,
            tls: self.http_tls(table),
            max_connections: self.number(table, "max_connections"),
            max_connections_per_peer: self.number(table, "max_connections_per_peer"),
            requests_per_s: self.number(table, "requests_per_s"),
            metrics_per_credential: metrics.unwrap_or(MetricsPerCredential::Auto),
            wechat_expires_in_min_s: self.number_if_any(table, "wechat_expires_in_min_s"),
            old_metric_names: self.switch(table, "old_metric_names", false),
        };
        let Some((written, place)) = listen else {
            if let Some((_, given)) = table.all().next() {
                let place = &given.place;
                self.warnings.push(format!("{place}: [http] has no listen, so the HTTP API stays off"));
            }
            return None;
        };
        let before = self.faults.len();
        http.listen = self.resolve(&written, HTTP_PORT, &place);
        table.print("listen", toml_texts(http.listen.iter().map(SocketAddr::to_string)));
        if http.listen.is_empty() && self.faults.len() == before {
            let remedy = format!("Write listen = [\"127.0.0.1:{HTTP_PORT}\"] in [http], or remove the key.");
            self.fault_at(table, "listen", SettingProblem::new("there is no address", remedy), &place);
        }
        self.judge_keys(&http, &keys.map_or(Place::Default, |(_, place)| place));
        self.judge_http_addresses(table, &http, &place);
        Some(http)
    }

    fn http_tls(&mut self, table: &RawTable) -> Option<TlsOptions> {
        let identity = self.identity(table);
        let min_version = self.tls_version(table);
        match identity {
            [Some((cert, _)), key] => {
                let key = self.key_or_cert(table, key, &cert);
                Some(TlsOptions { cert, key, clients: ClientCertificates::Ignored, min_version })
            }
            [None, Some((_, place))] => {
                let what = "TLS has no certificate of the HTTP API";
                let problem = SettingProblem::new(what, "Give cert under [http.tls], a PEM file.");
                self.fault_at(table, "tls.key", problem, &place);
                None
            }
            [None, None] => {
                table.forget("tls.min_version");
                None
            }
        }
    }

    /// Other machines need a key.
    fn judge_http_addresses(&mut self, table: &RawTable, http: &Http, place: &Place) {
        let open = open_addresses(&http.listen);
        if open.is_empty() {
            return;
        }
        if http.keys_file.is_none() {
            let what = format!("{open} can be reached from other machines, and there are no keys");
            let remedy = "Write keys into a file and name it: keys_file = \"...\" in [http]; or listen on 127.0.0.1.";
            self.fault_at(table, "listen", SettingProblem::new(what, remedy), place);
        } else if http.tls.is_none() && http.trusted_proxies.is_empty() {
            self.warnings.push(format!(
                "keys and tokens pass {open} in plain text; [http.tls] would hide them from the network"
            ));
        }
    }

    /// What the operator should know of the keys' file; the keys themselves were read.
    fn judge_keys(&mut self, http: &Http, place: &Place) {
        let Some(path) = &http.keys_file else { return };
        if let Err(what) = http.read_keys() {
            let remedy = remedy_if_denied(self.environment, path, "keys_credential", None).unwrap_or_else(|| {
                "Write a line with name, key and rights for each key into a file this process can read.".into()
            });
            self.faults.push(SettingProblem::new(what, remedy).at(place));
        } else if is_open_to_others(path) {
            self.warnings.push(format!("others can read the keys in {} (chmod 600)", path.display()));
        }
    }
}

fn not_a_list(kind: &str) -> SettingProblem {
    SettingProblem::new(format!("{kind} stands where a list belongs"), "Write a list: [\"...\", \"...\"].")
}

/// Names as browsers send them, without a port; case does not matter.
fn hosts(value: &RawValue) -> ReadResult<Vec<String>> {
    texts(value, not_a_list, |host| {
        let fits = !host.is_empty()
            && host.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-._:[]".contains(&byte))
            && (!host.contains(':') || host.starts_with('['));
        let remedy = "Write the name alone, such as \"tokencached.internal\".";
        if fits {
            Ok(host.to_ascii_lowercase())
        } else {
            Err(SettingProblem::new(format!("{} is not a host name", quoted(host)), remedy))
        }
    })
}

fn networks(value: &RawValue) -> ReadResult<Vec<Network>> {
    texts(value, not_a_list, |network| {
        let remedy = "Write an address like 10.0.0.5 or a network like 10.0.0.0/8.";
        network.parse().map_err(|()| SettingProblem::new(format!("{} is not a network", quoted(network)), remedy))
    })
}
