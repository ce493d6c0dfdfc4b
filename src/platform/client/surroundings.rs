//! What the environment says of proxies and certificates, and this server does not use: a proxy that is used unasked would
//! change the address that WeChat sees, and with it whether an allow-list lets the site in.
//!
//! Says so once, with the line to paste. Never shows a proxy's password.

use std::ffi::OsString;

use url::{Position, Url};

use super::address::MASK;
use super::options::ClientOptions;

/// The same names as curl's and most libraries', in the order in which they count.
const PROXIES: [&str; 4] = ["HTTPS_PROXY", "https_proxy", "ALL_PROXY", "all_proxy"];

/// Reads a variable of the environment.
pub type Variables<'a> = &'a dyn Fn(&str) -> Option<OsString>;

/// A sentence for each thing that is set, not used, and perhaps meant.
/// `hosts` are those that are called.
pub fn unused(environment: Variables<'_>, upstream: &ClientOptions, hosts: &[String]) -> Vec<String> {
    let authorities = unused_authorities(environment, upstream).filter(|_| !hosts.is_empty());
    unused_proxy(environment, upstream, hosts).into_iter().chain(authorities).collect()
}

fn variable(environment: Variables<'_>, name: &str) -> Option<String> {
    let value = environment(name)?.to_string_lossy().trim().to_owned();
    (!value.is_empty()).then_some(value)
}

fn unused_proxy(environment: Variables<'_>, upstream: &ClientOptions, hosts: &[String]) -> Option<String> {
    if upstream.proxy.is_some() {
        return None;
    }
    let (name, value) = PROXIES.iter().find_map(|name| Some((name, variable(environment, name)?)))?;
    let exempt = variable(environment, "no_proxy").or_else(|| variable(environment, "NO_PROXY")).unwrap_or_default();
    if hosts.iter().all(|host| is_exempt(host, &exempt)) {
        return None;
    }
    let value = if value.contains("://") { value } else { format!("http://{value}") };
    let Some(url) = Url::parse(&value).ok().filter(Url::has_host) else {
        return Some(format!("{name} is set, not used, and not an address; calls to WeChat go out directly"));
    };
    if !matches!(url.scheme(), "http" | "https") {
        return Some(format!(
            "{name} is set and not used: calls to WeChat go out directly, and only http and https proxies are spoken to \
             (proxy in [upstream])"
        ));
    }
    // What is after the host may be part of a password that has not been encoded.
    let rest = &url[Position::AfterPort..];
    if rest.len() > 1 || value.contains(['\\', '"', '@']) && url.username().is_empty() && url.password().is_none() {
        return Some(format!(
            "{name} is set, not used, and no plain address; calls to WeChat go out directly. To send them through a proxy, write \
             under [upstream]: proxy = \"http://HOST:PORT\""
        ));
    }
    let (mask, fill) = match url.username().is_empty() && url.password().is_none() {
        true => (String::new(), String::new()),
        false => (format!("{MASK}@"), format!(" with user and password in place of {MASK}")),
    };
    let address = &url[Position::BeforeHost..Position::AfterPort];
    Some(format!(
        "{name} is set and not used: calls to WeChat go out directly, so the address that WeChat sees is this machine's. To \
         send them through that proxy, write under [upstream]{fill}: proxy = \"{}://{mask}{address}\"",
        url.scheme()
    ))
}

/// Whether `NO_PROXY` names the host: by itself, by a domain above it, or by `*`.
fn is_exempt(host: &str, list: &str) -> bool {
    let host = host.to_ascii_lowercase();
    list.split([',', ' ']).map(str::trim).filter(|entry| !entry.is_empty()).any(|entry| {
        let entry = entry.to_ascii_lowercase();
        let name = entry.split_once(':').map_or(entry.as_str(), |(name, _)| name);
        let domain = name.trim_start_matches("*.").trim_start_matches('.');
        name == "*" || host == domain || host.strip_suffix(domain).is_some_and(|rest| rest.ends_with('.'))
    })
}

fn unused_authorities(environment: Variables<'_>, upstream: &ClientOptions) -> Option<String> {
    if upstream.ca_file.is_some() {
        return None;
    }
    let (file, folder) = (variable(environment, "SSL_CERT_FILE"), variable(environment, "SSL_CERT_DIR"));
    let (names, line) = match (file, folder) {
        (None, None) => return None,
        (Some(file), None) => ("SSL_CERT_FILE is", format!("ca_file = {file:?}")),
        (Some(file), Some(_)) => ("SSL_CERT_FILE and SSL_CERT_DIR are", format!("ca_file = {file:?}")),
        (None, Some(folder)) => {
            ("SSL_CERT_DIR is", format!("ca_file = \"...\", a PEM file such as those in {folder:?}"))
        }
    };
    Some(format!(
        "{names} set and not used: WeChat's certificates are judged by the public authorities that this program brings. If \
         something of yours inspects TLS, write under [upstream]: {line}"
    ))
}
