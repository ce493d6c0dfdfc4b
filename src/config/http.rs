//! `[http]`: the HTTP port for people, monitoring and code that does not speak memcached.

use std::net::SocketAddr;

use super::Http;
use super::reader::{RawTable, Reader, toml_texts};
use super::server::addresses;
use super::value::{RawValue, ReadResult, texts};
use crate::http_api::options::{HTTP_PORT, MetricsPerCredential, host_name, proxy_network};
use crate::invalid_value::InvalidValue;
use crate::network::Network;
use crate::tls::{ClientCertificates, TlsOptions};

impl Reader<'_> {
    /// The HTTP API; `None` while it is off.
    pub(super) fn http(&mut self, table: &RawTable) -> Option<Http> {
        let listen = self.placed(table, "listen", |value, _| addresses(value));
        let keys = self.file(table, "keys_file", "keys_credential", |_| Ok(()));
        let allowed_hosts = self.read(table, "allowed_hosts", |value| values(value, host_name)).unwrap_or_default();
        table.print("allowed_hosts", toml_texts(&allowed_hosts));
        let trusted_proxies =
            self.read(table, "trusted_proxies", |value| values(value, proxy_network)).unwrap_or_default();
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
        http.listen = self.socket_addresses(&written, HTTP_PORT, &place);
        table.print("listen", toml_texts(http.listen.iter().map(SocketAddr::to_string)));
        if http.listen.is_empty() && self.faults.len() == before {
            let remedy = format!("Write listen = [\"127.0.0.1:{HTTP_PORT}\"] in [http], or remove the key.");
            self.fault_at(table, "listen", InvalidValue::new("there is no address", remedy), &place);
        }
        if let Some((path, place)) = keys {
            let usual = "Write a line with name, key and rights for each key into a file this process can read.";
            self.judge_access_file(&path, http.read_keys(), ["keys", "keys_credential", usual], &place);
        }
        match http.judge_addresses() {
            Ok(warning) => self.warnings.extend(warning),
            Err(invalid) => self.fault_at(table, "listen", invalid, &place),
        }
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
                let problem = InvalidValue::new(what, "Give cert under [http.tls], a PEM file.");
                self.fault_at(table, "tls.key", problem, &place);
                None
            }
            [None, None] => {
                table.forget("tls.min_version");
                None
            }
        }
    }
}

/// A list, each item read by `read`.
fn values<T>(value: &RawValue, read: fn(&str) -> Result<T, InvalidValue>) -> ReadResult<Vec<T>> {
    let not_a_list = |kind: &str| {
        InvalidValue::new(format!("{kind} stands where a list belongs"), "Write a list: [\"...\", \"...\"].")
    };
    texts(value, not_a_list, read)
}
