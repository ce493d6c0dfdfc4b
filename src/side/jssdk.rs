//! Signatures for `wx.config` and `wx.agentConfig` (page "JS-SDK使用权限签名算法").

use axum::Json;
use axum::extract::{Extension, Path, State};
use axum::http::{StatusCode, Uri};
use serde_json::json;
use sha1::{Digest, Sha1};

use super::api::{self, Answer, Asker, Shared};
use super::problem::Problem;
use super::query::Params;
use crate::clock::Now;
use crate::credential::table::Reading;
use crate::secret::hex;

const URL_BYTES_MAX: usize = 4096;
const TICKETS: [&str; 2] = ["jsapi_ticket", "agent_ticket"];

/// `GET /v1/apps/{app}/jssdk?url=…`.
pub async fn sign(State(parts): Shared, Extension(visitor): Asker, Path(id): Path<String>, uri: Uri) -> Answer {
    let params = Params::of(&uri, &["url", "ticket"])?;
    let kind = params.text("ticket").unwrap_or(TICKETS[0]);
    if !TICKETS.contains(&kind) {
        return Err(Problem::bad("the parameter ticket is neither jsapi_ticket nor agent_ticket"));
    }
    let url = page(params.text("url").ok_or_else(|| Problem::bad("the parameter url is missing"))?)?;
    let app = api::seen(&parts, &visitor, &id)?;
    visitor.may_read(&id)?;
    let Some(credential) = app.credential(kind) else {
        let detail = "this ticket is not kept for the app: name it in its tickets";
        return Err(Problem::new(StatusCode::NOT_FOUND, "no-ticket", detail));
    };
    let now = Now::read();
    let Reading::Live(shown) = credential.read(now.boot_ms) else { return Err(api::nothing(credential, None)) };
    let ticket = shown.as_ref().and_then(|shown| std::str::from_utf8(&shown.value).ok());
    let ticket = ticket.ok_or_else(|| api::nothing(credential, None))?;
    let (nonce, timestamp) = (nonce(), now.unix_s());
    let signature = signature(ticket, &nonce, timestamp, url);
    Ok(Json(json!({
        "appId": app.appid, "timestamp": timestamp, "nonceStr": nonce, "signature": signature, "url": url,
    })))
}

/// A page's address as it is to be signed: byte for byte, up to the fragment.
fn page(url: &str) -> Result<&str, Problem> {
    let url = url.split('#').next().unwrap_or_default();
    let rest = url.strip_prefix("https://").or_else(|| url.strip_prefix("http://"));
    let fits = rest.is_some_and(|rest| !rest.is_empty() && !rest.starts_with('/'))
        && url.len() <= URL_BYTES_MAX
        && !url.contains(|c: char| c.is_control() || c.is_whitespace());
    if fits {
        Ok(url)
    } else {
        Err(Problem::bad("the parameter url is not the address of a page: http://… or https://…"))
    }
}

fn signature(ticket: &str, nonce: &str, timestamp: i64, url: &str) -> String {
    let text = format!("jsapi_ticket={ticket}&noncestr={nonce}&timestamp={timestamp}&url={url}");
    hex(&Sha1::digest(text.as_bytes()))
}

/// Sixteen letters and digits; it need not be a secret, only another each time.
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
    fn a_page_is_signed_without_its_fragment_and_otherwise_as_it_is() {
        assert_eq!(page("https://a.example/?b=%20c&d#e#f"), Ok("https://a.example/?b=%20c&d"));
        for wrong in ["", "a.example", "ftp://a", "https://", "https:///x", "https://a b", "https://a\n", "#https://a"]
        {
            assert!(page(wrong).is_err(), "{wrong}");
        }
        assert!(page(&format!("https://a/{}", "x".repeat(5_000))).is_err());
    }
}
