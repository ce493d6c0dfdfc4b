//! `[http]`: the HTTP port for people, monitoring and code that does not speak memcached.

use std::net::SocketAddr;

use super::reader::{RawTable, Reader};
use super::server::addresses;
use crate::http_api::options::{HTTP_PORT, MetricsPerCredential, Options as Http, host_name, proxy_network};
use crate::network::Network;
use crate::raw_value::{RawValue, ReadResult, texts};
use crate::tls::ClientCertificates;

impl Reader<'_> {
    /// The HTTP API; `None` while it is off.
    pub(super) fn http(&mut self, table: &RawTable) -> Option<Http> {
        let listen = self.placed(table, "listen", |value, _| addresses(value));
        let keys = self.file(table, "keys_file", "keys_credential");
        let allowed_hosts = self.read(table, "allowed_hosts", |value| values(value, host_name)).unwrap_or_default();
        table.print("allowed_hosts", allowed_hosts.clone());
        let trusted_proxies = self.read(table, "trusted_proxies", |value| values(value, proxy_network));
        let trusted_proxies = trusted_proxies.unwrap_or_default();
        table.print("trusted_proxies", trusted_proxies.iter().map(Network::to_string).collect::<Vec<_>>());
        let tls = self.tls(table, ClientCertificates::Ignored);
        if let Err(Some(place)) = &tls {
            let remedy = "Give cert under [http.tls], a PEM file.";
            self.refuse((table, "tls.key", place), "TLS has no certificate of the HTTP API", remedy);
        }
        let metrics = self.word(table, "metrics_per_credential", MetricsPerCredential::WORDS);
        let mut http = Http {
            listen: Vec::new(),
            keys_file: keys.as_ref().map(|(path, _)| path.clone()),
            allowed_hosts,
            trusted_proxies,
            tls: tls.ok(),
            max_connections: self.value(table, "max_connections"),
            max_connections_per_peer: self.value(table, "max_connections_per_peer"),
            requests_per_s: self.value(table, "requests_per_s"),
            metrics_per_credential: metrics.unwrap_or(MetricsPerCredential::Auto),
            wechat_expires_in_min_s: self.get(table, "wechat_expires_in_min_s"),
            old_metric_names: self.value(table, "old_metric_names"),
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
        table.print("listen", http.listen.iter().map(SocketAddr::to_string).collect::<Vec<_>>());
        if http.listen.is_empty() && self.faults.len() == before {
            let remedy = format!("Write listen = [\"127.0.0.1:{HTTP_PORT}\"] in [http], or remove the key.");
            self.refuse((table, "listen", &place), "there is no address", remedy);
        }
        if let Some((path, place)) = keys {
            let usual = "Write a line with name, key and rights for each key into a file this process can read.";
            self.judge_access_file(&path, http.read_keys(), ["keys", "keys_credential", usual], &place);
        }
        let warning = self.accept((table, "listen", &place), http.judge_addresses());
        self.warnings.extend(warning.flatten());
        Some(http)
    }
}

/// A list, each item read by `read`.
fn values<T>(value: &RawValue, read: fn(&str) -> ReadResult<T>) -> ReadResult<Vec<T>> {
    texts(value, "stands where a list belongs", "Write a list: [\"...\", \"...\"].", read)
}
