//! The addresses of WeChat's API, of a proxy, and extra root certificates.

use std::net::IpAddr;
use std::path::{Path, PathBuf};

use url::{Host, Url};

use super::fault::Problem;
use super::surroundings::MASK;
use super::value::{Reading, Value, kind, path, text};
use super::{App, HIDDEN, Upstream};
use crate::files;
use crate::platform::mp;

/// `https://host[:port][/path]`; plain http only to this machine, because the secret is in the request.
pub(super) fn base_url(value: &Value) -> Reading<String> {
    let remedy = "Write an address like \"https://api.weixin.qq.com\".";
    let url = Url::parse(text(value)?).map_err(|error| Problem::new(format!("this is not a URL: {error}"), remedy))?;
    if !url.username().is_empty() || url.password().is_some() || url.query().is_some() || url.fragment().is_some() {
        return Err(Problem::new("the URL has a user, a query or a fragment", remedy));
    }
    match url.scheme() {
        "https" => {}
        "http" if is_this_machine(&url) => {}
        "http" => {
            let what = "plain http would send the app secret in the clear";
            return Err(Problem::new(what, "Write https://; http:// is for a sandbox on this machine only."));
        }
        _ => return Err(Problem::new("the URL is neither https nor http", remedy)),
    }
    Ok(url.as_str().trim_end_matches('/').to_owned())
}

/// Addresses like [`base_url`]: a list, or one text with commas. One given twice counts once.
pub(super) fn hosts(value: &Value) -> Reading<Vec<String>> {
    let remedy = "Write hosts = [\"https://api.weixin.qq.com\", \"https://api2.weixin.qq.com\"].";
    let mut hosts: Vec<String> = Vec::new();
    let mut add = |url: String| {
        if !hosts.contains(&url) {
            hosts.push(url)
        }
    };
    match value {
        Value::Text(text) => {
            for url in text.split(',').map(str::trim).filter(|url| !url.is_empty()) {
                add(base_url(&Value::Text(url.to_owned()))?);
            }
        }
        Value::List(items) => {
            for item in items {
                add(base_url(&item.value)?);
            }
        }
        other => return Err(Problem::new(format!("{} is not a list of addresses", kind(other)), remedy)),
    }
    Ok(hosts)
}

/// Without the setting: WeChat's, if it is WeChat that is called.
pub(super) fn hosts_of(base_url: &str) -> Vec<String> {
    let hosts = if base_url == mp::PLATFORM.base_url { mp::PLATFORM.hosts } else { &[] };
    hosts.iter().map(|&url| url.to_owned()).collect()
}

fn is_this_machine(url: &Url) -> bool {
    match url.host() {
        Some(Host::Domain(name)) => name == "localhost",
        Some(Host::Ipv4(ip)) => ip.is_loopback(),
        Some(Host::Ipv6(ip)) => IpAddr::from(ip).to_canonical().is_loopback(),
        None => false,
    }
}

/// `http://[user:password@]host:port`.
pub(super) fn proxy(value: &Value) -> Reading<String> {
    let remedy = "Write an address like \"http://proxy.internal:3128\".";
    let text = text(value)?;
    let url = Url::parse(text).map_err(|error| Problem::new(format!("this is not a URL: {error}"), remedy))?;
    if !matches!(url.scheme(), "http" | "https") || !url.has_host() {
        return Err(Problem::new("only http and https proxies are spoken to", remedy));
    }
    if text.contains(HIDDEN) {
        return Err(Problem::new("the password is the placeholder that check prints", "Write the password."));
    }
    if url.username().contains(MASK) {
        let what = format!("{MASK} stands where the user and password of the proxy belong");
        return Err(Problem::new(what, "Write user and password: http://user:password@host:port."));
    }
    Ok(text.to_owned())
}

/// A sentence for each address with a path. That is right for a gateway that takes the path off, and else wrong.
pub(super) fn warn_of_paths(upstream: &Upstream, apps: &[App]) -> Vec<String> {
    let of_hosts =
        upstream.hosts.iter().filter_map(|url| path_warning("upstream.hosts", url, mp::PLATFORM.calls_begin));
    let of_all = path_warning("upstream.base_url", &upstream.base_url, mp::PLATFORM.calls_begin)
        .filter(|_| upstream.hosts.is_empty());
    let own = apps.iter().filter(|app| app.component.is_none()).filter_map(|app| {
        path_warning(&format!("app {}: base_url", app.id()), app.base_url.as_deref()?, app.platform.calls_begin)
    });
    of_all.into_iter().chain(of_hosts).chain(own).collect()
}

/// `calls` is how the paths of the platform's calls begin.
fn path_warning(setting: &str, base_url: &str, calls: &str) -> Option<String> {
    let url = Url::parse(base_url).ok()?;
    let path = url.path().trim_end_matches('/');
    if path.is_empty() {
        return None;
    }
    let doubled = calls.trim_matches('/');
    let host = &url[..url::Position::BeforePath];
    if path.split('/').any(|part| part == doubled) {
        return Some(format!(
            "{setting} has a path: calls go to {base_url}{calls}..., with {doubled} twice; write base_url = \"{host}\""
        ));
    }
    Some(format!(
        "{setting} has a path: calls go to {base_url}{calls}..., which is right if what answers at {host} takes {path} off \
         and hands them on to WeChat, and else is answered 404"
    ))
}

/// A PEM file with at least one certificate.
pub(super) fn ca_file(value: &Value, base: &Path) -> Reading<PathBuf> {
    let path = path(value, base)?;
    let bytes = files::read(&path, files::PEM_BYTES_MAX).map_err(|error| {
        let what = format!("{} cannot be read: {error}", path.display());
        Problem::new(what, "Check the name of the file and who may read it.")
    })?;
    if memchr::memmem::find(&bytes, b"-----BEGIN CERTIFICATE-----").is_none() {
        let what = format!("{} holds no certificate", path.display());
        return Err(Problem::new(what, "Give a PEM file, with -----BEGIN CERTIFICATE----- in it."));
    }
    Ok(path)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn plain_http_only_to_this_machine() {
        let check = |url: &str, fine: bool| assert_eq!(base_url(&Value::Text(url.into())).is_ok(), fine, "{url}");
        check("https://api.weixin.qq.com", true);
        check("https://gateway.internal/wechat/", true);
        check("http://127.0.0.1:8765", true);
        check("http://[::1]:8765", true);
        check("http://localhost:8765", true);
        check("http://localhost.example.com", false);
        check("http://10.0.0.1", false);
        check("http://api.weixin.qq.com", false);
        check("https://user:word@api.weixin.qq.com", false);
        check("https://api.weixin.qq.com?a=b", false);
        check("ftp://127.0.0.1", false);
        check("api.weixin.qq.com", false);
    }

    #[test]
    fn a_hidden_password_is_no_password() {
        assert!(proxy(&Value::Text("http://<hidden>@proxy:3128/".into())).is_err());
    }
}
