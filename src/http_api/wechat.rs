//! WeChat's own calls, so that code which calls WeChat moves over by changing the host.
//!
//! Answers and errors are WeChat's. A call never fetches anything and never replaces a token: `force_refresh` has the
//! present token verified. The secret must be the app's own, or an API key with the right to read the app.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use axum::Json;
use axum::body::Bytes;
use axum::extract::rejection::ExtensionRejection;
use axum::extract::{Extension, FromRequestParts};
use axum::http::header;
use axum::http::request::Parts as Head;
use axum::response::{IntoResponse, Response};
use serde_json::{Value, json};

use super::access_control::Caller;
use super::call::CallerExtractor;
use super::context::{ApiApp, ApiContext};
use super::problem::Problem;
use super::wechat_expiry::{self, SdkClient, TokenEndpoint};
use super::wrong_secrets::SecretTarget;
use crate::clock;
use crate::credential::table::{Credential, Reading};

/// A call waits so long for a value whose first fetch is under way.
const FIRST_FETCH_MAX: Duration = Duration::from_secs(3);
/// A call with `force_refresh` waits so long for the verification.
const VERIFICATION_MAX: Duration = Duration::from_secs(10);

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WechatError {
    errcode: i64,
    errmsg: String,
}

fn wechat_error(errcode: i64, errmsg: &str) -> WechatError {
    WechatError { errcode, errmsg: errmsg.to_owned() }
}

type WechatResult = Result<Json<Value>, WechatError>;

impl IntoResponse for WechatError {
    fn into_response(self) -> Response {
        Json(json!({ "errcode": self.errcode, "errmsg": self.errmsg })).into_response()
    }
}

/// Whether a request is one of WeChat's calls. It is answered in WeChat's form, whatever comes of it.
pub fn is_wechat_path(path: &str) -> bool {
    let path = path.trim_start_matches('/');
    path == "cgi-bin" || path.starts_with("cgi-bin/")
}

/// The answer to calls that this server does not have.
pub fn unknown_call() -> Response {
    let errmsg =
        "invalid url: only the calls for tokens and tickets are answered here, make this one at WeChat's own host";
    wechat_error(40066, errmsg).into_response()
}

pub async fn require_get() -> Response {
    wechat_error(43001, "require GET method").into_response()
}

pub async fn require_post() -> Response {
    wechat_error(43002, "require POST method").into_response()
}

/// A problem in WeChat's form, because its SDKs know no other.
pub fn from_problem(problem: &Problem) -> Response {
    let (errcode, what) = match problem.name {
        "host-unknown" => (40066, "invalid url"),
        "too-many-requests" => (45011, "api minute-quota reach limit"),
        "key-needed" | "key-unknown" => (40001, "invalid credential"),
        "too-large" => (45002, "content size out of limit"),
        "too-slow" => (44002, "empty post data"),
        "bad-request" => (47001, "data format error"),
        // All connections are busy: WeChat's error for it, on which SDKs try again.
        "busy" => return wechat_error(-1, "system error: too many calls at once").into_response(),
        _ => (48001, "api unauthorized"),
    };
    WechatError { errcode, errmsg: format!("{what}: {}", problem.detail) }.into_response()
}

/// Parameters of a call. An empty one counts as absent, as with WeChat.
struct WechatParams(HashMap<String, String>);

impl WechatParams {
    fn of_json(value: &Value) -> WechatParams {
        let members = value.as_object().into_iter().flatten();
        WechatParams(members.filter_map(|(name, value)| Some((name.clone(), value.as_str()?.to_owned()))).collect())
    }

    fn get(&self, name: &str) -> Option<&str> {
        self.0.get(name).map(String::as_str).filter(|value| !value.is_empty())
    }

    fn require(&self, name: &str, errcode: i64, errmsg: &str) -> Result<&str, WechatError> {
        self.get(name).ok_or_else(|| wechat_error(errcode, errmsg))
    }
}

/// A call with its parameters in the URL.
pub struct WechatCall {
    context: Arc<ApiContext>,
    caller: Arc<Caller>,
    params: WechatParams,
    client: SdkClient,
}

impl FromRequestParts<Arc<ApiContext>> for WechatCall {
    type Rejection = ExtensionRejection;

    async fn from_request_parts(head: &mut Head, context: &Arc<ApiContext>) -> Result<WechatCall, ExtensionRejection> {
        let Extension(caller) = CallerExtractor::from_request_parts(head, context).await?;
        let query = head.uri.query().unwrap_or_default();
        let agent = head.headers.get(header::USER_AGENT).map_or(&[][..], |agent| agent.as_bytes());
        let params = WechatParams(url::form_urlencoded::parse(query.as_bytes()).into_owned().collect());
        Ok(WechatCall { context: context.clone(), caller, params, client: SdkClient::detect(agent, query) })
    }
}

/// `/cgi-bin/token`, by GET or by POST; the body of a POST is ignored.
pub async fn token(call: WechatCall) -> WechatResult {
    answer_token_call(&call, "GET /cgi-bin/token", TokenEndpoint::Token, false).await
}

pub async fn stable_token(call: WechatCall, body: Bytes) -> WechatResult {
    let body: Value = serde_json::from_slice(&body).map_err(|_| wechat_error(47001, "data format error"))?;
    let force = body.get("force_refresh").and_then(Value::as_bool).unwrap_or(false);
    let call = WechatCall { params: WechatParams::of_json(&body), ..call };
    answer_token_call(&call, "POST /cgi-bin/stable_token", TokenEndpoint::StableToken, force).await
}

/// `GET /cgi-bin/gettoken` of WeCom. `agentid` may tell a key which of the corporation's apps is meant.
pub async fn gettoken(call: WechatCall) -> WechatResult {
    let corpid = call.params.require("corpid", 41002, "corpid missing")?;
    let secret = call.params.require("corpsecret", 41004, "corpsecret missing")?;
    let agent = call.params.get("agentid");
    let is_it = |app: &ApiApp| {
        let named = agent
            .is_none_or(|agent| app.id.strip_prefix(corpid).and_then(|rest| rest.strip_prefix(':')) == Some(agent));
        app.platform == "wecom" && named
    };
    let apps = call.authenticate("GET /cgi-bin/gettoken", corpid, secret, is_it).await?;
    let [app] = apps.as_slice() else {
        return Err(wechat_error(
            40056,
            "invalid agentid: this key may read several apps of the corporation, name one by agentid",
        ));
    };
    let credential = app.credential("access_token").ok_or_else(|| wechat_error(40013, "invalid corpid"))?;
    let (token, expires_in) = call.wait_for_value(credential, TokenEndpoint::Gettoken).await?;
    Ok(Json(json!({ "errcode": 0, "errmsg": "ok", "access_token": token, "expires_in": expires_in })))
}

pub async fn getticket(call: WechatCall) -> WechatResult {
    let credential_type = match call.params.get("type") {
        Some("jsapi") => "jsapi_ticket",
        Some("wx_card") => "wx_card_ticket",
        _ => return Err(wechat_error(40097, "invalid args: type is neither jsapi nor wx_card")),
    };
    answer_ticket_call(&call, credential_type, |platform| platform != "wecom").await
}

/// `GET /cgi-bin/get_jsapi_ticket` of WeCom.
pub async fn get_jsapi_ticket(call: WechatCall) -> WechatResult {
    answer_ticket_call(&call, "jsapi_ticket", |platform| platform == "wecom").await
}

/// `GET /cgi-bin/ticket/get` of WeCom.
pub async fn agent_ticket(call: WechatCall) -> WechatResult {
    if call.params.get("type") != Some("agent_config") {
        return Err(wechat_error(40097, "invalid args: type is not agent_config"));
    }
    answer_ticket_call(&call, "agent_ticket", |platform| platform == "wecom").await
}

/// `name` is for the log.
async fn answer_token_call(
    call: &WechatCall,
    name: &'static str,
    endpoint: TokenEndpoint,
    force: bool,
) -> WechatResult {
    if call.params.get("grant_type") != Some("client_credential") {
        return Err(wechat_error(40002, "invalid grant_type"));
    }
    let appid = call.params.require("appid", 41002, "appid missing")?;
    let secret = call.params.require("secret", 41004, "appsecret missing")?;
    let is_it = |app: &ApiApp| matches!(app.platform, "mp" | "qq" | "component");
    let app = match call.authenticate(name, appid, secret, is_it).await?.as_slice() {
        [app] => *app,
        _ => return Err(wechat_error(40125, "invalid appsecret")),
    };
    let credential = app.credential("access_token").ok_or_else(|| wechat_error(40013, "invalid appid"))?;
    // The caller believes that the token is dead. It is verified as after a `delete`; whatever the result, the answer is
    // the value that is live then.
    if force && let Some(done) = call.context.table().report_refused(credential, None) {
        let _ = call.context.shutdown.run_until_cancelled(tokio::time::timeout(VERIFICATION_MAX, done)).await;
    }
    let (token, expires_in) = call.wait_for_value(credential, endpoint).await?;
    Ok(Json(json!({ "access_token": token, "expires_in": expires_in })))
}

/// Whether this may be logged: it cannot be a secret in the wrong parameter.
fn looks_like_an_appid(text: &str) -> bool {
    let of_wechat = text.starts_with("wx") || text.starts_with("ww");
    of_wechat && text.len() <= 20 && text.bytes().all(|byte| byte.is_ascii_alphanumeric())
}

impl WechatCall {
    /// The apps with this appid that the secret opens: it is theirs, or an API key that may read them. A right one passes
    /// whatever has come before; only wrong ones are counted. `name` is the call's, for the log.
    async fn authenticate(
        &self,
        name: &str,
        appid: &str,
        secret: &str,
        is_it: impl Fn(&ApiApp) -> bool,
    ) -> Result<Vec<&ApiApp>, WechatError> {
        let now_ms = clock::boot_ms();
        let apps: Vec<(usize, &ApiApp)> = self.context.of_appid(appid).filter(|(_, app)| is_it(app)).collect();
        let Some((first, app)) = apps.first() else {
            let shown = if looks_like_an_appid(appid) { appid } else { "an appid" };
            return Err(self.record_wrong_secret(name, SecretTarget::UnknownApp, shown, (40013, "invalid appid")));
        };
        let mut opened: Vec<&ApiApp> = Vec::new();
        for (_, app) in &apps {
            if let Some(known) = &app.secret
                && known.matches(secret, now_ms).await
            {
                opened.push(app);
            }
        }
        if opened.is_empty()
            && let Some(rights) = self.context.reload_handle.access_control.rights_of(secret.as_bytes())
        {
            opened.extend(apps.iter().map(|(_, app)| *app).filter(|app| rights.read(&app.id)));
        }
        if opened.is_empty() {
            let (target, refused) = (SecretTarget::App(*first), (40125, "invalid appsecret"));
            return Err(self.record_wrong_secret(name, target, &app.id, refused));
        }
        Ok(opened)
    }

    /// Counts a wrong secret and gives the error: after many of them WeChat's error for too many calls, on which SDKs call
    /// less often.
    fn record_wrong_secret(&self, name: &str, target: SecretTarget, app: &str, refused: (i64, &str)) -> WechatError {
        let access_control = &self.context.reload_handle.access_control;
        match access_control.record_wrong_secret(self.caller.peer, name, app, target, clock::boot_ms()) {
            Ok(()) => wechat_error(refused.0, refused.1),
            Err(_) => wechat_error(45011, "api minute-quota reach limit, too many calls with a wrong appid or secret"),
        }
    }

    /// The live value and its `expires_in`, seconds.
    async fn wait_for_value(
        &self,
        credential: &Credential,
        endpoint: TokenEndpoint,
    ) -> Result<(String, u64), WechatError> {
        let mut changes = credential.subscribe();
        let until = tokio::time::Instant::now() + FIRST_FETCH_MAX;
        loop {
            let now_ms = clock::boot_ms();
            match credential.read(now_ms) {
                Reading::Live(shown) => {
                    let shown = shown.as_ref().ok_or_else(|| no_value_error(credential))?;
                    let value = String::from_utf8(shown.value.to_vec()).map_err(|_| no_value_error(credential))?;
                    let reliable_s = shown.reliable_until(now_ms).saturating_sub(now_ms) / 1000;
                    let min_s = self.context.settings.wechat_expires_in_min_s;
                    self.context.issued_tokens.lock().record(
                        &shown.value,
                        credential.id,
                        shown.expires_boot_ms,
                        now_ms,
                    );
                    return Ok((value, wechat_expiry::expires_in_s(reliable_s, endpoint, self.client, min_s)));
                }
                Reading::Absent => return Err(no_value_error(credential)),
                Reading::FirstFetch => {
                    let waited = tokio::time::timeout_at(until, changes.changed());
                    if !matches!(self.context.shutdown.run_until_cancelled(waited).await, Some(Ok(Ok(())))) {
                        return Err(no_value_error(credential));
                    }
                }
            }
        }
    }
}

/// There is no live value: WeChat's own error, or that it is busy, on which every SDK tries again.
fn no_value_error(credential: &Credential) -> WechatError {
    let error = credential.status(clock::boot_ms()).last_error;
    let platform_error = error.and_then(|error| Some(WechatError { errcode: error.errcode?, errmsg: error.text }));
    platform_error.unwrap_or_else(|| wechat_error(-1, "system error"))
}

async fn answer_ticket_call(call: &WechatCall, credential_type: &str, of_platform: fn(&str) -> bool) -> WechatResult {
    let token = call.params.require("access_token", 41001, "access_token missing")?;
    let invalid = || wechat_error(40001, "invalid credential, access_token is invalid or not latest");
    let app = app_of_token(&call.context, token).filter(|app| of_platform(app.platform)).ok_or_else(invalid)?;
    let Some(credential) = app.credential(credential_type) else {
        let what = format!("api unauthorized: {credential_type} is not among the app's tickets in the configuration");
        return Err(WechatError { errcode: 48001, errmsg: what });
    };
    let (ticket, expires_in) = call.wait_for_value(credential, TokenEndpoint::Ticket).await?;
    Ok(Json(json!({ "errcode": 0, "errmsg": "ok", "ticket": ticket, "expires_in": expires_in })))
}

/// The app that has issued this token: its live one, or an earlier one that has not expired.
fn app_of_token<'p>(context: &'p ApiContext, token: &str) -> Option<&'p ApiApp> {
    let now_ms = clock::boot_ms();
    let mut issued_tokens = context.issued_tokens.lock();
    issued_tokens.record_published(context.table(), now_ms);
    let id = issued_tokens.owner_of(token, now_ms)?;
    context.apps.iter().find(|app| app.token().is_some_and(|token| token.id == id))
}
