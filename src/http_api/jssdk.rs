//! Signatures for `wx.config` and `wx.agentConfig` (page "JS-SDK使用权限签名算法").

use axum::Json;
use axum::extract::Path;
use axum::http::StatusCode;
use serde_json::json;
use sha1::{Digest, Sha1};
use url::Url;

use super::api;
use super::call::{HttpApiCall, JsonResult};
use super::problem::Problem;
use crate::clock::Now;
use crate::credential::table::Reading;

const URL_BYTES_MAX: usize = 4096;
/// Such an address is signed all the same: a page that was opened by such a link has it.
const ESCAPED: &str = "the parameter url seems to be HTML-escaped (&amp;): if WeChat answers invalid signature, sign it with & \
                       alone (in PHP: html_entity_decode)";
const TICKETS: [&str; 2] = ["jsapi_ticket", "agent_ticket"];

pub async fn sign(call: HttpApiCall, Path(id): Path<String>) -> JsonResult {
    let params = call.params(&["url", "ticket"])?;
    let credential_type = params.text("ticket").unwrap_or(TICKETS[0]);
    if !TICKETS.contains(&credential_type) {
        return Err(Problem::bad("the parameter ticket is neither jsapi_ticket nor agent_ticket"));
    }
    let given = params.text("url").ok_or_else(|| Problem::bad("the parameter url is missing"))?;
    let url = page_url(given)?;
    let app = call.app(&id)?;
    call.caller.require_read(&id)?;
    let Some(credential) = app.credential(credential_type) else {
        let detail = "this ticket is not kept for the app: name it in its tickets";
        return Err(Problem::new(StatusCode::NOT_FOUND, "no-ticket", detail));
    };
    let now = Now::read();
    let Reading::Live(shown) = credential.read(now.boot_ms) else {
        return Err(api::no_value_problem(credential, None));
    };
    let ticket = shown.as_ref().and_then(|shown| std::str::from_utf8(&shown.value).ok());
    let ticket = ticket.ok_or_else(|| api::no_value_problem(credential, None))?;
    let (nonce, timestamp) = (nonce(), now.unix_s());
    let signature = signature(ticket, &nonce, timestamp, &url);
    let mut answer =
        json!({ "appId": app.appid, "timestamp": timestamp, "nonceStr": nonce, "signature": signature, "url": url });
    if is_html_escaped(given) {
        answer["notice"] = ESCAPED.into();
    }
    Ok(Json(answer))
}

/// A page's address as it has to be signed: what `location.href.split('#')[0]` is in a browser, by the standard that
/// browsers follow (WHATWG URL). An address from a browser stays as it is, also where browsers differ: `^` and `|` in a
/// path.
fn page_url(text: &str) -> Result<String, Problem> {
    let lower = text.get(..9).unwrap_or(text).to_ascii_lowercase();
    if lower.starts_with("http%3a") || lower.starts_with("https%3a") {
        return Err(Problem::bad("the parameter url is percent-encoded twice: encode it once"));
    }
    let not_a_page = || Problem::bad("the parameter url is not the address of a page: http://… or https://…");
    let rest = ["https://", "http://"].iter().find_map(|scheme| {
        text.split_at_checked(scheme.len())
            .filter(|(start, _)| start.eq_ignore_ascii_case(scheme))
            .map(|(_, rest)| rest)
    });
    if rest.is_none_or(|rest| rest.starts_with(['/', '\\'])) || text.contains(char::is_control) {
        return Err(not_a_page());
    }
    let mut url = Url::parse(text).map_err(|_| not_a_page())?;
    if !url.username().is_empty() || url.password().is_some() {
        return Err(Problem::bad("the parameter url has a user name or a password, and no page's address has"));
    }
    url.set_fragment(None);
    if url.as_str().len() <= URL_BYTES_MAX { Ok(url.into()) } else { Err(not_a_page()) }
}

/// Whether `&` is written as in HTML. As a number it would otherwise begin the fragment.
fn is_html_escaped(text: &str) -> bool {
    let (before, fragment) = text.split_once('#').unwrap_or((text, ""));
    let fragment = fragment.to_ascii_lowercase();
    let is_numbered =
        before.ends_with('&') && ["38;", "038;", "x26;", "x0026;"].iter().any(|end| fragment.starts_with(end));
    is_numbered || before.to_ascii_lowercase().contains("&amp;")
}

fn signature(ticket: &str, nonce: &str, timestamp: i64, url: &str) -> String {
    let text = format!("jsapi_ticket={ticket}&noncestr={nonce}&timestamp={timestamp}&url={url}");
    hex::encode(Sha1::digest(text.as_bytes()))
}

/// Sixteen letters and digits. It need not be secret, only different each time.
fn nonce() -> String {
    (0..16).map(|_| fastrand::alphanumeric()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_example_of_wechats_page_comes_out() {
        let ticket = "sM4AOVdWfPE4DxkXGEs8VMCPGGVi4C3VM0P37wVUCFvkVAy_90u5h9nbSlYy3-Sl-HhTdfl2fzFy1AOcHKP7qg";
        let signed = signature(ticket, "Wm3WZYTPz0wzccnW", 1_414_587_457, "http://mp.weixin.qq.com?params=value");
        assert_eq!(signed, "0f9de62fce790f9a083d5c99e95740ceb90c27ed");
    }

    #[test]
    fn what_a_browser_shows_is_signed_as_it_is_up_to_the_fragment() {
        for href in [
            "https://a.example/?b=%20c&d",
            "https://a.example/a%2fb/%E5%95%86?c=%e5+%27(1)*!~&d=[x]|;@,:$&e",
            "http://a.example:8080/index.php?m=a/b&u=https://b.example/?x=1",
            "https://xn--czru2d.example/;v=1/=",
            "https://a.example/b|c^d?e|f^g",
            "http://192.0.2.7/",
            "http://[2001:db8::1]:81/?",
        ] {
            assert_eq!(page_url(href).ok().as_deref(), Some(href));
            assert_eq!(page_url(&format!("{href}#top?&#x")).ok().as_deref(), Some(href));
        }
    }

    #[test]
    fn what_no_browser_shows_is_signed_as_a_browser_would_show_it() {
        for (given, shown) in [
            ("https://a.example", "https://a.example/"),
            ("https://a.example?b=1", "https://a.example/?b=1"),
            ("HTTPS://A.Example:443/B?C", "https://a.example/B?C"),
            ("http://a.example:80/", "http://a.example/"),
            ("https://a.example/b c?d e", "https://a.example/b%20c?d%20e"),
            ("https://a.example/\u{5546}?\u{540d}", "https://a.example/%E5%95%86?%E5%90%8D"),
            ("https://\u{5546}\u{57ce}.example/", "https://xn--czru2d.example/"),
            ("https://a.example/b/../c/./d", "https://a.example/c/d"),
            ("https://a.example/?b=\"<>'", "https://a.example/?b=%22%3C%3E%27"),
        ] {
            assert_eq!(page_url(given).ok().as_deref(), Some(shown), "{given}");
        }
    }

    #[test]
    fn what_is_no_pages_address_is_refused_with_a_sentence() {
        for wrong in ["", "a.example", "ftp://a", "https://", "https:///x", "https://a b", "https://a\n", "#https://a"]
        {
            assert!(page_url(wrong).is_err(), "{wrong}");
        }
        assert!(page_url(&format!("https://a/{}", "x".repeat(5_000))).is_err());
        for escaped in ["?a=1&amp;b=2", "?a=1&AMP;b=2", "?a=1&#38;b=2", "?a=1&#x26;b=2"] {
            assert!(is_html_escaped(&format!("https://a/{escaped}")), "{escaped}");
        }
        assert!(!is_html_escaped("https://a/?amp;b=1&c#d&amp;e"));
        assert_eq!(page_url("https://a/?b=1&amp;c=2").ok().as_deref(), Some("https://a/?b=1&amp;c=2"));
        assert!(page_url("https%3A%2F%2Fa%2F").is_err());
        assert!(page_url("https://me:word@a/").is_err());
    }
}
