//! Answers in the platforms' exact JSON. Pure.

use super::options::SandboxPlatform;
use super::rules::ApiAnswer;

/// The content type that WeChat sends with its JSON.
pub(super) const CONTENT_TYPE: &str = "application/json; encoding=utf-8";

/// The JSON body of an answer.
pub fn body(answer: &ApiAnswer) -> String {
    match answer {
        ApiAnswer::Token { expires_in_s, .. }
        | ApiAnswer::Component { expires_in_s, .. }
        | ApiAnswer::Authorizer { expires_in_s, .. }
        | ApiAnswer::Ticket { expires_in_s, .. } => body_with_expires_in(answer, Some(&expires_in_s.to_string())),
        ApiAnswer::DomainIps => r#"{"ip_list":["101.226.62.77","101.226.62.78"]}"#.to_owned(),
        ApiAnswer::Menu => r#"{"menu":{"button":[]}}"#.to_owned(),
        ApiAnswer::Done => r#"{"errcode":0,"errmsg":"ok"}"#.to_owned(),
        ApiAnswer::Refused { platform: SandboxPlatform::Feishu, errcode, errmsg } => {
            format!(r#"{{"code":{errcode},"msg":{}}}"#, quoted(errmsg))
        }
        ApiAnswer::Refused { errcode, errmsg, .. } => format!(r#"{{"errcode":{errcode},"errmsg":{}}}"#, quoted(errmsg)),
    }
}

/// The body of an answer with a token or ticket, with any text as its `expires_in`, or without that field. Classic, stable
/// and QQ tokens come without an errcode, WeCom's tokens and all tickets with errcode 0, Feishu's tokens with code 0.
pub(super) fn body_with_expires_in(answer: &ApiAnswer, expires_in: Option<&str>) -> String {
    let (ok, name, value) = match answer {
        ApiAnswer::Token {
            platform: SandboxPlatform::Mp | SandboxPlatform::Component | SandboxPlatform::Qq,
            value,
            ..
        } => ("", "access_token", value),
        ApiAnswer::Token { platform: SandboxPlatform::Feishu, value, .. } => {
            (r#""code":0,"msg":"ok","#, "tenant_access_token", value)
        }
        ApiAnswer::Token { platform: SandboxPlatform::Wecom, value, .. } => {
            (r#""errcode":0,"errmsg":"ok","#, "access_token", value)
        }
        ApiAnswer::Component { value, .. } => ("", "component_access_token", value),
        ApiAnswer::Authorizer { value, .. } => ("", "authorizer_access_token", value),
        ApiAnswer::Ticket { value, .. } => (r#""errcode":0,"errmsg":"ok","#, "ticket", value),
        other => return body(other),
    };
    let life = if platform_of(answer) == SandboxPlatform::Feishu { "expire" } else { "expires_in" };
    let expires_in = expires_in.map(|text| format!(r#","{life}":{text}"#)).unwrap_or_default();
    let refresh = match answer {
        ApiAnswer::Authorizer { refresh_token, .. } => {
            format!(r#","authorizer_refresh_token":{}"#, quoted(refresh_token))
        }
        _ => String::new(),
    };
    format!(r#"{{{ok}"{name}":{}{expires_in}{refresh}}}"#, quoted(value))
}

/// Which platform's answer it is, as far as answers differ.
pub(super) fn platform_of(answer: &ApiAnswer) -> SandboxPlatform {
    match answer {
        ApiAnswer::Token { platform, .. } | ApiAnswer::Refused { platform, .. } => *platform,
        _ => SandboxPlatform::Mp,
    }
}

/// The token or ticket of an answer, empty if it has none.
pub(super) fn value(answer: &ApiAnswer) -> &str {
    match answer {
        ApiAnswer::Token { value, .. }
        | ApiAnswer::Component { value, .. }
        | ApiAnswer::Authorizer { value, .. }
        | ApiAnswer::Ticket { value, .. } => value,
        _ => "",
    }
}

fn quoted(text: &str) -> String {
    serde_json::Value::from(text).to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_is_shaped_like_the_real_one() {
        let token = |platform| ApiAnswer::Token { platform, value: "T".into(), expires_in_s: 7200 };
        assert_eq!(body(&token(SandboxPlatform::Mp)), r#"{"access_token":"T","expires_in":7200}"#);
        let wecom = r#"{"errcode":0,"errmsg":"ok","access_token":"T","expires_in":7200}"#;
        assert_eq!(body(&token(SandboxPlatform::Wecom)), wecom);
        assert_eq!(body_with_expires_in(&token(SandboxPlatform::Mp), None), r#"{"access_token":"T"}"#);
        let feishu = r#"{"code":0,"msg":"ok","tenant_access_token":"T","expire":7200}"#;
        assert_eq!(body(&token(SandboxPlatform::Feishu)), feishu);
        let refused = ApiAnswer::Refused { platform: SandboxPlatform::Feishu, errcode: 10014, errmsg: "no".into() };
        assert_eq!(body(&refused), r#"{"code":10014,"msg":"no"}"#);
    }

    #[test]
    fn a_message_is_escaped() {
        let refused = ApiAnswer::Refused { platform: SandboxPlatform::Mp, errcode: 1, errmsg: "a \"b\"\n".into() };
        assert_eq!(body(&refused), r#"{"errcode":1,"errmsg":"a \"b\"\n"}"#);
    }
}
