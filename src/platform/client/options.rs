//! How a platform's API is reached.

use std::fmt;
use std::path::PathBuf;

use url::Url;

use crate::invalid_value::{InvalidValue, wrong};
use crate::platform::{PLATFORMS, mp};
use crate::secret_source::HIDDEN;

#[derive(Clone)]
pub struct ClientOptions {
    /// `https://api.weixin.qq.com` unless configured.
    pub base_url: String,
    /// Called in place of `base_url`, in order of preference; none: `base_url` alone.
    pub hosts: Vec<String>,
    /// Extra root certificates (PEM), for a TLS-inspecting proxy of one's own.
    pub ca_file: Option<PathBuf>,
    /// Connect deadline, milliseconds.
    pub connect_timeout_ms: u64,
    /// Deadline of a whole call, milliseconds.
    pub total_timeout_ms: u64,
    /// Calls under way at once, over all apps.
    pub concurrency: usize,
    /// An HTTP proxy, if one is configured; the environment's proxies are not used unasked.
    pub proxy: Option<String>,
}

impl Default for ClientOptions {
    fn default() -> ClientOptions {
        ClientOptions {
            hosts: mp::PLATFORM.hosts.iter().map(|&url| url.to_owned()).collect(),
            ..ClientOptions::at(mp::PLATFORM.base_url.to_owned())
        }
    }
}

impl ClientOptions {
    pub fn at(base_url: String) -> ClientOptions {
        ClientOptions {
            base_url,
            hosts: Vec::new(),
            ca_file: None,
            connect_timeout_ms: 3_000,
            total_timeout_ms: 8_000,
            concurrency: 16,
            proxy: None,
        }
    }

    /// The base URLs that have several hosts, or another host in their place; and those hosts.
    pub fn host_groups(&self) -> impl Iterator<Item = (&str, Vec<&str>)> {
        let own = self.base_url.trim_end_matches('/');
        let others = PLATFORMS.iter().filter(move |platform| platform.base_url != own);
        let others = others.map(|platform| (platform.base_url, platform.hosts.to_vec()));
        let all = std::iter::once((own, self.hosts.iter().map(String::as_str).collect())).chain(others);
        all.filter(|(_, hosts): &(&str, Vec<&str>)| !hosts.is_empty())
    }

    /// Whether the two timeouts fit; the fault is about `connect_timeout_ms`.
    pub fn judge_timeouts(&self) -> Result<(), InvalidValue> {
        let (connect_ms, total_ms) = (self.connect_timeout_ms, self.total_timeout_ms);
        if connect_ms <= total_ms {
            return Ok(());
        }
        let what = format!("{connect_ms} ms is longer than the whole call may take, {total_ms} ms");
        wrong(what, "Raise total_timeout_ms or lower connect_timeout_ms.")
    }
}

impl fmt::Debug for ClientOptions {
    /// A proxy's address may hold a password.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ClientOptions")
            .field("base_url", &self.base_url)
            .field("hosts", &self.hosts)
            .field("ca_file", &self.ca_file)
            .field("connect_timeout_ms", &self.connect_timeout_ms)
            .field("total_timeout_ms", &self.total_timeout_ms)
            .field("concurrency", &self.concurrency)
            .field("proxy", &self.proxy.as_deref().map(proxy_shown))
            .finish()
    }
}

/// A proxy's address without its password.
pub fn proxy_shown(proxy: &str) -> String {
    let Ok(url) = Url::parse(proxy) else { return HIDDEN.to_owned() };
    if url.username().is_empty() && url.password().is_none() {
        return proxy.to_owned();
    }
    format!("{}://{HIDDEN}@{}", url.scheme(), &url[url::Position::BeforeHost..])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_proxys_password_is_hidden() {
        assert_eq!(proxy_shown("http://proxy:3128"), "http://proxy:3128");
        assert_eq!(proxy_shown("http://me:word@proxy:3128"), "http://<hidden>@proxy:3128/");
    }
}
