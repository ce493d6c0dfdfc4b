//! `[upstream]`: how the platforms' HTTPS APIs are reached.

use url::Url;

use super::fault::{Place, SettingProblem};
use super::reader::{RawTable, Reader, toml_text, toml_texts};
use super::value::{RawValue, ReadResult, texts};
use super::{App, ClientOptions, judge};
use crate::platform::client::{address, proxy_shown};
use crate::platform::{PLATFORMS, mp};

impl Reader<'_> {
    pub(super) fn upstream(&mut self, table: &RawTable) -> ClientOptions {
        let base_url = self.text(table, "base_url", |text| Ok(address::base_url(text)?)).unwrap_or_default();
        let hosts = self.read(table, "hosts", hosts).unwrap_or_else(|| address::hosts_of(&base_url));
        table.print("hosts", toml_texts(&hosts));
        let proxy = self.text(table, "proxy", |text| Ok(address::proxy(text)?));
        proxy.iter().for_each(|proxy| table.print("proxy", toml_text(&proxy_shown(proxy))));
        let upstream = ClientOptions {
            base_url,
            hosts,
            ca_file: self.path_that(table, "ca_file", judge::certificates),
            connect_timeout_ms: self.number(table, "connect_timeout_ms"),
            total_timeout_ms: self.number(table, "total_timeout_ms"),
            concurrency: self.number(table, "concurrency"),
            proxy,
        };
        let (connect_ms, total_ms) = (upstream.connect_timeout_ms, upstream.total_timeout_ms);
        if connect_ms > total_ms {
            let place = table.get("connect_timeout_ms").or(table.get("total_timeout_ms")).map(|given| &given.place);
            let what = format!("{connect_ms} ms is longer than the whole call may take, {total_ms} ms");
            let problem = SettingProblem::new(what, "Raise total_timeout_ms or lower connect_timeout_ms.");
            self.fault_at(table, "connect_timeout_ms", problem, place.unwrap_or(&Place::Default));
        }
        upstream
    }
}

/// One given twice counts once.
fn hosts(value: &RawValue) -> ReadResult<Vec<String>> {
    let remedy = "Write hosts = [\"https://api.weixin.qq.com\", \"https://api2.weixin.qq.com\"].";
    let wrong = |kind: &str| SettingProblem::new(format!("{kind} is not a list of addresses"), remedy);
    let mut hosts: Vec<String> = Vec::new();
    for url in texts(value, wrong, |url| Ok(address::base_url(url)?))? {
        if !hosts.contains(&url) {
            hosts.push(url);
        }
    }
    Ok(hosts)
}

/// A sentence for each address with a path.
pub(super) fn warn_of_paths(upstream: &ClientOptions, apps: &[App]) -> Vec<String> {
    let of_wechat = |setting: &str, url: &str| address::path_warning(setting, url, mp::PLATFORM.calls_begin);
    let of_hosts = upstream.hosts.iter().filter_map(|url| of_wechat("upstream.hosts", url));
    let of_all = of_wechat("upstream.base_url", &upstream.base_url).filter(|_| upstream.hosts.is_empty());
    let own = apps.iter().filter(|app| app.component.is_none()).filter_map(|app| {
        let setting = format!("app {}: base_url", app.id());
        address::path_warning(&setting, app.base_url.as_deref()?, app.platform.calls_begin)
    });
    of_all.into_iter().chain(of_hosts).chain(own).collect()
}

/// The hosts that are called for these apps over https. Plain http is to this machine alone.
pub(super) fn called_hosts(upstream: &ClientOptions, apps: &[App]) -> Vec<String> {
    let mut bases: Vec<&str> =
        apps.iter().filter(|app| !app.secret.is_absent()).map(|app| app.base_url(upstream)).collect();
    bases.sort_unstable();
    bases.dedup();
    let mut hosts = Vec::new();
    for base in bases {
        let platform = PLATFORMS.iter().find(|platform| platform.base_url == base);
        let urls: Vec<&str> = match platform {
            _ if base == upstream.base_url && !upstream.hosts.is_empty() => {
                upstream.hosts.iter().map(String::as_str).collect()
            }
            Some(platform) if base != upstream.base_url => platform.hosts.to_vec(),
            _ => vec![base],
        };
        let urls = urls.into_iter().filter_map(|url| Url::parse(url).ok()).filter(|url| url.scheme() == "https");
        hosts.extend(urls.filter_map(|url| url.host_str().map(str::to_owned)));
    }
    hosts
}
