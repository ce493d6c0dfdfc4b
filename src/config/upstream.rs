//! `[upstream]`: how the platforms' HTTPS APIs are reached.

use super::reader::{RawTable, Reader};
use super::value::each_once;
use crate::platform::client::{ClientOptions, address, proxy_shown};
use crate::raw_value::{Place, texts};

impl Reader<'_> {
    pub(super) fn upstream(&mut self, table: &RawTable) -> ClientOptions {
        let base_url = self.text(table, "base_url", address::base_url).unwrap_or_default();
        let remedy = "Write hosts = [\"https://api.weixin.qq.com\", \"https://api2.weixin.qq.com\"].";
        let hosts = self.read(table, "hosts", |value| {
            texts(value, "is not a list of addresses", remedy, address::base_url).map(each_once)
        });
        let hosts = hosts.unwrap_or_else(|| address::hosts_of(&base_url));
        table.print("hosts", hosts.clone());
        let proxy = self.text(table, "proxy", address::proxy);
        proxy.iter().for_each(|proxy| table.print("proxy", proxy_shown(proxy)));
        let upstream = ClientOptions {
            base_url,
            hosts,
            ca_file: self.get(table, "ca_file"),
            connect_timeout_ms: self.value(table, "connect_timeout_ms"),
            total_timeout_ms: self.value(table, "total_timeout_ms"),
            concurrency: self.value(table, "concurrency"),
            proxy,
        };
        if let Err(invalid) = upstream.judge_timeouts() {
            let place = table.get("connect_timeout_ms").or(table.get("total_timeout_ms")).map(|given| &given.place);
            self.fault((table, "connect_timeout_ms", place.unwrap_or(&Place::Default)), invalid);
        }
        upstream
    }
}
