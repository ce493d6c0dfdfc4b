//! `[upstream]`: how the platforms' HTTPS APIs are reached.

use super::ClientOptions;
use super::fault::Place;
use super::reader::{RawTable, Reader, toml_text, toml_texts};
use super::value::{RawValue, ReadResult, texts};
use crate::invalid_value::InvalidValue;
use crate::platform::client::{address, proxy_shown};
use crate::tls::pem_file;

impl Reader<'_> {
    pub(super) fn upstream(&mut self, table: &RawTable) -> ClientOptions {
        let base_url = self.text(table, "base_url", address::base_url).unwrap_or_default();
        let hosts = self.read(table, "hosts", hosts).unwrap_or_else(|| address::hosts_of(&base_url));
        table.print("hosts", toml_texts(&hosts));
        let proxy = self.text(table, "proxy", address::proxy);
        proxy.iter().for_each(|proxy| table.print("proxy", toml_text(&proxy_shown(proxy))));
        let upstream = ClientOptions {
            base_url,
            hosts,
            ca_file: self.path_that(table, "ca_file", pem_file::certificates),
            connect_timeout_ms: self.number(table, "connect_timeout_ms"),
            total_timeout_ms: self.number(table, "total_timeout_ms"),
            concurrency: self.number(table, "concurrency"),
            proxy,
        };
        if let Err(invalid) = upstream.judge_timeouts() {
            let place = table.get("connect_timeout_ms").or(table.get("total_timeout_ms")).map(|given| &given.place);
            self.fault_at(table, "connect_timeout_ms", invalid, place.unwrap_or(&Place::Default));
        }
        upstream
    }
}

/// One given twice counts once.
fn hosts(value: &RawValue) -> ReadResult<Vec<String>> {
    let remedy = "Write hosts = [\"https://api.weixin.qq.com\", \"https://api2.weixin.qq.com\"].";
    let wrong = |kind: &str| InvalidValue::new(format!("{kind} is not a list of addresses"), remedy);
    let mut hosts: Vec<String> = Vec::new();
    for url in texts(value, wrong, address::base_url)? {
        if !hosts.contains(&url) {
            hosts.push(url);
        }
    }
    Ok(hosts)
}
