//! The addresses of a platform's API and of a proxy, as texts. Pure.

use url::Url;

use crate::invalid_value::{InvalidValue, wrong};
use crate::network::is_this_machine;
use crate::platform::mp;
use crate::secret_source::HIDDEN;

/// Stands for a user and a password in a line to paste.
pub const MASK: &str = "***";

/// `https://host[:port][/path]`; plain http only to this machine, because the secret is in the request.
pub fn base_url(text: &str) -> Result<String, InvalidValue> {
    let remedy = "Write an address like \"https://api.weixin.qq.com\".";
    let url = Url::parse(text).map_err(|error| InvalidValue::new(format!("this is not a URL: {error}"), remedy))?;
    if !url.username().is_empty() || url.password().is_some() || url.query().is_some() || url.fragment().is_some() {
        return wrong("the URL has a user, a query or a fragment", remedy);
    }
    match url.scheme() {
        "https" => Ok(url.as_str().trim_end_matches('/').to_owned()),
        // A URL has an IPv6 address in brackets.
        "http" if url.host_str().is_some_and(|host| is_this_machine(host.trim_matches(['[', ']']))) => {
            Ok(url.as_str().trim_end_matches('/').to_owned())
        }
        "http" => {
            let remedy = "Write https://; http:// is for a sandbox on this machine only.";
            wrong("plain http would send the app secret in the clear", remedy)
        }
        _ => wrong("the URL is neither https nor http", remedy),
    }
}

/// Without the setting: WeChat's, if it is WeChat that is called.
pub fn hosts_of(base_url: &str) -> Vec<String> {
    let hosts = if base_url == mp::PLATFORM.base_url { mp::PLATFORM.hosts } else { &[] };
    hosts.iter().map(|&url| url.to_owned()).collect()
}

/// `http://[user:password@]host:port`.
pub fn proxy(text: &str) -> Result<String, InvalidValue> {
    let remedy = "Write an address like \"http://proxy.internal:3128\".";
    let url = Url::parse(text).map_err(|error| InvalidValue::new(format!("this is not a URL: {error}"), remedy))?;
    if !matches!(url.scheme(), "http" | "https") || !url.has_host() {
        wrong("only http and https proxies are spoken to", remedy)
    } else if text.contains(HIDDEN) {
        wrong("the password is the placeholder that check prints", "Write the password.")
    } else if url.username().contains(MASK) {
        let what = format!("{MASK} stands where the user and password of the proxy belong");
        wrong(what, "Write user and password: http://user:password@host:port.")
    } else {
        Ok(text.to_owned())
    }
}

/// A sentence about an address with a path: right for a gateway that takes the path off, and else wrong.
/// `calls` is how the paths of the platform's calls begin.
pub fn path_warning(setting: &str, base_url: &str, calls: &str) -> Option<String> {
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn plain_http_only_to_this_machine() {
        let check = |url: &str, fine: bool| assert_eq!(base_url(url).is_ok(), fine, "{url}");
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
        assert!(proxy("http://<hidden>@proxy:3128/").is_err());
    }
}
