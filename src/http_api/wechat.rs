//! WeChat's own calls, so that code which calls WeChat moves over by changing the host.
//!
//! Answers and errors are WeChat's. A call never fetches anything and never replaces a token: `force_refresh` has the
//! present token verified. The secret must be the app's own, or an API key with the right to read the app.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use axum::Json;
use axum::body::{Body, Bytes};
use axum::extract::{Extension, State};
use axum::http::{HeaderMap, Response, Uri, header};
use axum::response::IntoResponse;
use axum::routing::{MethodFilter, MethodRouter, on, post};
use parking_lot::Mutex;
use serde_json::{Value, json};
use sha2::{Digest, Sha256};

use super::access_control::Caller;
use super::api::{CallerExtractor, ContextExtractor};
use super::context::{ApiApp, ApiContext};
use super::problem::Problem;
use super::wechat_expiry::{self, SdkClient, TokenEndpoint};
use super::wrong_secrets::SecretTarget;
use crate::clock::{self, BootMs};
use crate::credential::table::{Credential, Reading, Table};

/// A call waits so long for a value whose first fetch is under way.
const FIRST_FETCH_MAX: Duration = Duration::from_secs(3);
/// A call with `force_refresh` waits so long for the verification.
const VERIFICATION_MAX: Duration = Duration::from_secs(10);
/// The most issued tokens that are remembered, besides four of each credential.
const ISSUED_TOKENS_MAX: usize = 50_000;

/// An error as WeChat gives it.
#[derive(Clone, Debug, PartialEq, Eq)]
struct WechatError {
    errcode: i64,
    errmsg: String,
}

fn wechat_error(errcode: i64, errmsg: &str) -> WechatError {
    WechatError { errcode, errmsg: errmsg.to_owned() }
}

type WechatResult = Result<Value, WechatError>;

fn reply(outcome: WechatResult) -> Json<Value> {
    Json(outcome.unwrap_or_else(|refused| json!({ "errcode": refused.errcode, "errmsg": refused.errmsg })))
}

/// All connections are busy: WeChat's error for it, on which SDKs try again.
pub fn busy() -> Response<Body> {
    reply(Err(wechat_error(-1, "system error: too many calls at once"))).into_response()
}

/// Whether a request is one of WeChat's calls. It is answered in WeChat's form, whatever comes of it.
pub fn is_wechat_path(path: &str) -> bool {
    let path = path.trim_start_matches('/');
    path == "cgi-bin" || path.starts_with("cgi-bin/")
}

/// The answer to calls that this server does not have.
pub fn unknown_call() -> Response<Body> {
    let errmsg =
        "invalid url: only the calls for tokens and tickets are answered here, make this one at WeChat's own host";
    reply(Err(wechat_error(40066, errmsg))).into_response()
}

/// A problem in WeChat's form, because its SDKs know no other.
pub fn from_problem(problem: &Problem) -> Response<Body> {
    let (errcode, what) = match problem.name {
        "host-unknown" => (40066, "invalid url"),
        "too-many-requests" => (45011, "api minute-quota reach limit"),
        "key-needed" | "key-unknown" => (40001, "invalid credential"),
        "too-large" => (45002, "content size out of limit"),
        "too-slow" => (44002, "empty post data"),
        "bad-request" => (47001, "data format error"),
        "busy" => return busy(),
        _ => (48001, "api unauthorized"),
    };
    reply(Err(WechatError { errcode, errmsg: format!("{what}: {}", problem.detail) })).into_response()
}

/// Parameters of a call. An empty one counts as absent, as with WeChat.
struct WechatParams(HashMap<String, String>);

impl WechatParams {
    fn of_query(uri: &Uri) -> WechatParams {
        let pairs = url::form_urlencoded::parse(uri.query().unwrap_or_default().as_bytes());
        WechatParams(pairs.into_owned().collect())
    }

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

/// A call and its caller.
pub struct WechatRequest<What> {
    context: Arc<ApiContext>,
    caller: Arc<Caller>,
    what: What,
    client: SdkClient,
}

fn client(headers: &HeaderMap, uri: &Uri) -> SdkClient {
    let agent = headers.get(header::USER_AGENT).map_or(&[][..], |agent| agent.as_bytes());
    SdkClient::detect(agent, uri.query().unwrap_or_default())
}

/// The route of a call with its parameters in the URL.
pub fn by_query<A>(ask: fn(WechatRequest<Uri>) -> A) -> MethodRouter<Arc<ApiContext>>
where
    A: Future<Output = Json<Value>> + Send + 'static,
{
    by_query_with(MethodFilter::GET, ask)
}

/// The same by GET or POST; the body of a POST is ignored.
pub fn by_query_or_post<A>(ask: fn(WechatRequest<Uri>) -> A) -> MethodRouter<Arc<ApiContext>>
where
    A: Future<Output = Json<Value>> + Send + 'static,
{
    by_query_with(MethodFilter::GET.or(MethodFilter::POST), ask)
}

fn by_query_with<A>(methods: MethodFilter, ask: fn(WechatRequest<Uri>) -> A) -> MethodRouter<Arc<ApiContext>>
where
    A: Future<Output = Json<Value>> + Send + 'static,
{
    let asked =
        move |State(context): ContextExtractor, Extension(caller): CallerExtractor, headers: HeaderMap, uri: Uri| {
            let client = client(&headers, &uri);
            ask(WechatRequest { context, caller, what: uri, client })
        };
    on(methods, asked).fallback(async || reply(Err(wechat_error(43001, "require GET method"))))
}

/// The route of a call with its parameters in a JSON body.
pub fn by_body<A>(ask: fn(WechatRequest<Bytes>) -> A) -> MethodRouter<Arc<ApiContext>>
where
    A: Future<Output = Json<Value>> + Send + 'static,
{
    let asked = move |State(context): ContextExtractor,
                      Extension(caller): CallerExtractor,
                      headers: HeaderMap,
                      uri: Uri,
                      body: Bytes| {
        let client = client(&headers, &uri);
        ask(WechatRequest { context, caller, what: body, client })
    };
    post(asked).fallback(async || reply(Err(wechat_error(43002, "require POST method"))))
}

/// `/cgi-bin/token`, by GET or by POST.
pub async fn token(asked: WechatRequest<Uri>) -> Json<Value> {
    let params = WechatParams::of_query(&asked.what);
    let call = TokenCall {
        name: "GET /cgi-bin/token",
        expiry: ExpiryRule { endpoint: TokenEndpoint::Token, client: asked.client },
        force: false,
    };
    reply(answer_token_call(&asked.context, &asked.caller, &params, call).await)
}

/// `POST /cgi-bin/stable_token`.
pub async fn stable_token(asked: WechatRequest<Bytes>) -> Json<Value> {
    let Ok(body) = serde_json::from_slice::<Value>(&asked.what) else {
        return reply(Err(wechat_error(47001, "data format error")));
    };
    let force = body.get("force_refresh").and_then(Value::as_bool).unwrap_or(false);
    let expiry = ExpiryRule { endpoint: TokenEndpoint::StableToken, client: asked.client };
    let call = TokenCall { name: "POST /cgi-bin/stable_token", expiry, force };
    reply(answer_token_call(&asked.context, &asked.caller, &WechatParams::of_json(&body), call).await)
}

/// `GET /cgi-bin/gettoken` of WeCom. `agentid` may tell a key which of the corporation's apps is meant.
pub async fn gettoken(asked: WechatRequest<Uri>) -> Json<Value> {
    let params = WechatParams::of_query(&asked.what);
    reply(answer_wecom_token_call(&asked.context, &asked.caller, &params, asked.client).await)
}

/// `GET /cgi-bin/ticket/getticket`.
pub async fn getticket(asked: WechatRequest<Uri>) -> Json<Value> {
    let params = WechatParams::of_query(&asked.what);
    let credential_type = match params.get("type") {
        Some("jsapi") => "jsapi_ticket",
        Some("wx_card") => "wx_card_ticket",
        _ => return reply(Err(wechat_error(40097, "invalid args: type is neither jsapi nor wx_card"))),
    };
    reply(answer_ticket_call(&asked, &params, credential_type, |platform| platform != "wecom").await)
}

/// `GET /cgi-bin/get_jsapi_ticket` of WeCom.
pub async fn get_jsapi_ticket(asked: WechatRequest<Uri>) -> Json<Value> {
    let params = WechatParams::of_query(&asked.what);
    reply(answer_ticket_call(&asked, &params, "jsapi_ticket", |platform| platform == "wecom").await)
}

/// `GET /cgi-bin/ticket/get` of WeCom.
pub async fn agent_ticket(asked: WechatRequest<Uri>) -> Json<Value> {
    let params = WechatParams::of_query(&asked.what);
    if params.get("type") != Some("agent_config") {
        return reply(Err(wechat_error(40097, "invalid args: type is not agent_config")));
    }
    reply(answer_ticket_call(&asked, &params, "agent_ticket", |platform| platform == "wecom").await)
}

/// A call for a token.
struct TokenCall {
    /// For the log.
    name: &'static str,
    expiry: ExpiryRule,
    force: bool,
}

/// What `expires_in` depends on.
#[derive(Clone, Copy)]
struct ExpiryRule {
    endpoint: TokenEndpoint,
    client: SdkClient,
}

async fn answer_token_call(
    context: &ApiContext,
    caller: &Caller,
    params: &WechatParams,
    call: TokenCall,
) -> WechatResult {
    if params.get("grant_type") != Some("client_credential") {
        return Err(wechat_error(40002, "invalid grant_type"));
    }
    let appid = params.require("appid", 41002, "appid missing")?;
    let secret = params.require("secret", 41004, "appsecret missing")?;
    let is_it = |app: &ApiApp| matches!(app.platform, "mp" | "qq" | "component");
    let given = PresentedSecret { call: call.name, appid, secret, peer: caller.peer };
    let app = match authenticate_app(context, &given, is_it).await?.as_slice() {
        [app] => *app,
        _ => return Err(wechat_error(40125, "invalid appsecret")),
    };
    let credential = app.credential("access_token").ok_or_else(|| wechat_error(40013, "invalid appid"))?;
    if call.force {
        verify_value(context, credential).await;
    }
    let (token, expires_in) = wait_for_value(context, credential, call.expiry).await?;
    Ok(json!({ "access_token": token, "expires_in": expires_in }))
}

async fn answer_wecom_token_call(
    context: &ApiContext,
    caller: &Caller,
    params: &WechatParams,
    client: SdkClient,
) -> WechatResult {
    let corpid = params.require("corpid", 41002, "corpid missing")?;
    let secret = params.require("corpsecret", 41004, "corpsecret missing")?;
    let agent = params.get("agentid");
    let is_it = |app: &ApiApp| {
        let named = agent
            .is_none_or(|agent| app.id.strip_prefix(corpid).and_then(|rest| rest.strip_prefix(':')) == Some(agent));
        app.platform == "wecom" && named
    };
    let given = PresentedSecret { call: "GET /cgi-bin/gettoken", appid: corpid, secret, peer: caller.peer };
    let apps = authenticate_app(context, &given, is_it).await?;
    let [app] = apps.as_slice() else {
        return Err(wechat_error(
            40056,
            "invalid agentid: this key may read several apps of the corporation, name one by agentid",
        ));
    };
    let credential = app.credential("access_token").ok_or_else(|| wechat_error(40013, "invalid corpid"))?;
    let (token, expires_in) =
        wait_for_value(context, credential, ExpiryRule { endpoint: TokenEndpoint::Gettoken, client }).await?;
    Ok(json!({ "errcode": 0, "errmsg": "ok", "access_token": token, "expires_in": expires_in }))
}

/// The secret that a call presents, and for which app.
struct PresentedSecret<'g> {
    call: &'static str,
    appid: &'g str,
    secret: &'g str,
    peer: IpAddr,
}

/// The apps with this appid that the secret opens: it is theirs, or an API key that may read them. A right one passes
/// whatever has come before; only wrong ones are counted.
async fn authenticate_app<'p>(
    context: &'p ApiContext,
    given: &PresentedSecret<'_>,
    is_it: impl Fn(&ApiApp) -> bool,
) -> Result<Vec<&'p ApiApp>, WechatError> {
    let now_ms = clock::boot_ms();
    let apps: Vec<(usize, &ApiApp)> = context.of_appid(given.appid).filter(|(_, app)| is_it(app)).collect();
    let Some((first, app)) = apps.first() else {
        let shown = if looks_like_an_appid(given.appid) { given.appid } else { "an appid" };
        return Err(record_wrong_secret(
            context,
            given,
            SecretTarget::UnknownApp,
            shown,
            wechat_error(40013, "invalid appid"),
        ));
    };
    let mut opened: Vec<&ApiApp> = Vec::new();
    for (_, app) in &apps {
        if let Some(secret) = &app.secret
            && secret.matches(given.secret, now_ms).await
        {
            opened.push(app);
        }
    }
    if opened.is_empty()
        && let Some(rights) = context.reload_handle.access_control.rights_of(given.secret.as_bytes())
    {
        opened.extend(apps.iter().map(|(_, app)| *app).filter(|app| rights.read(&app.id)));
    }
    if opened.is_empty() {
        return Err(record_wrong_secret(
            context,
            given,
            SecretTarget::App(*first),
            &app.id,
            wechat_error(40125, "invalid appsecret"),
        ));
    }
    Ok(opened)
}

/// Counts a wrong secret and gives the error: after many of them WeChat's error for too many calls, on which SDKs call
/// less often.
fn record_wrong_secret(
    context: &ApiContext,
    given: &PresentedSecret<'_>,
    target: SecretTarget,
    app: &str,
    refused: WechatError,
) -> WechatError {
    let counted =
        context.reload_handle.access_control.record_wrong_secret(given.peer, given.call, app, target, clock::boot_ms());
    match counted {
        Ok(()) => refused,
        Err(_) => wechat_error(45011, "api minute-quota reach limit, too many calls with a wrong appid or secret"),
    }
}

/// Whether this may be logged: it cannot be a secret in the wrong parameter.
fn looks_like_an_appid(text: &str) -> bool {
    let of_wechat = text.starts_with("wx") || text.starts_with("ww");
    of_wechat && text.len() <= 20 && text.bytes().all(|byte| byte.is_ascii_alphanumeric())
}

/// The live value and its `expires_in`, seconds.
async fn wait_for_value(
    context: &ApiContext,
    credential: &Credential,
    expiry: ExpiryRule,
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
                let min_s = context.settings.wechat_expires_in_min_s;
                context.issued_tokens.record(&value, credential.id, shown.expires_boot_ms, now_ms);
                return Ok((value, wechat_expiry::expires_in_s(reliable_s, expiry.endpoint, expiry.client, min_s)));
            }
            Reading::Absent => return Err(no_value_error(credential)),
            Reading::FirstFetch => {
                let waited = tokio::time::timeout_at(until, changes.changed());
                tokio::select! {
                    () = context.shutdown.cancelled() => return Err(no_value_error(credential)),
                    waited = waited => if !matches!(waited, Ok(Ok(()))) { return Err(no_value_error(credential)) },
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

/// The caller believes that the token is dead. It is verified as after a `delete`.
async fn verify_value(context: &ApiContext, credential: &Credential) {
    if let Some(done) = context.table().report_refused(credential, None) {
        tokio::select! {
            () = context.shutdown.cancelled() => {}
            // Whatever the result, the answer is the value that is live then.
            _ = tokio::time::timeout(VERIFICATION_MAX, done) => {}
        }
    }
}

async fn answer_ticket_call(
    asked: &WechatRequest<Uri>,
    params: &WechatParams,
    credential_type: &str,
    of_platform: fn(&str) -> bool,
) -> WechatResult {
    let context = &asked.context;
    let token = params.require("access_token", 41001, "access_token missing")?;
    let invalid = || wechat_error(40001, "invalid credential, access_token is invalid or not latest");
    let app = app_of_token(context, token).filter(|app| of_platform(app.platform)).ok_or_else(invalid)?;
    let Some(credential) = app.credential(credential_type) else {
        let what = format!("api unauthorized: {credential_type} is not among the app's tickets in the configuration");
        return Err(WechatError { errcode: 48001, errmsg: what });
    };
    let (ticket, expires_in) =
        wait_for_value(context, credential, ExpiryRule { endpoint: TokenEndpoint::Ticket, client: asked.client })
            .await?;
    Ok(json!({ "errcode": 0, "errmsg": "ok", "ticket": ticket, "expires_in": expires_in }))
}

/// The app that has issued this token: its live one, or an earlier one that has not expired.
fn app_of_token<'p>(context: &'p ApiContext, token: &str) -> Option<&'p ApiApp> {
    let now_ms = clock::boot_ms();
    context.issued_tokens.record_published(context.table(), now_ms);
    let id = context.issued_tokens.owner_of(token, now_ms)?;
    context.apps.iter().find(|app| app.token().is_some_and(|token| token.id == id))
}

/// Which credential a token belongs to, by the token's digest: live tokens, and earlier ones until they expire. A wrong
/// token costs one look into a map, so calls with one are not limited.
pub struct IssuedTokens(Mutex<TokenOwners>);

struct TokenOwners {
    /// All values up to this version of [`Table::values`] are here.
    upto: u64,
    /// The credential's id, and when the token expires.
    by_digest: HashMap<[u8; 32], (usize, BootMs)>,
    max: usize,
}

impl IssuedTokens {
    pub fn new(credentials: usize) -> IssuedTokens {
        IssuedTokens(Mutex::new(TokenOwners {
            upto: 0,
            by_digest: HashMap::new(),
            max: ISSUED_TOKENS_MAX + 4 * credentials,
        }))
    }

    fn record(&self, value: &str, id: usize, expires_ms: BootMs, now_ms: BootMs) {
        self.0.lock().record(value.as_bytes(), id, expires_ms, now_ms);
    }

    /// Adds the values that have been published since the last time.
    fn record_published(&self, table: &Table, now_ms: BootMs) {
        let upto = *table.values().borrow();
        let mut known = self.0.lock();
        if known.upto == upto {
            return;
        }
        let from = known.upto;
        for credential in table.credentials().iter().filter(|credential| credential.value_version() > from) {
            if let Reading::Live(shown) = credential.read(now_ms)
                && let Some(shown) = shown.as_ref()
            {
                known.record(&shown.value, credential.id, shown.expires_boot_ms, now_ms);
            }
        }
        known.upto = upto;
    }

    fn owner_of(&self, value: &str, now_ms: BootMs) -> Option<usize> {
        let digest: [u8; 32] = Sha256::digest(value).into();
        self.0.lock().by_digest.get(&digest).filter(|(_, end_ms)| *end_ms > now_ms).map(|(id, _)| *id)
    }
}

impl TokenOwners {
    fn record(&mut self, value: &[u8], id: usize, expires_ms: BootMs, now_ms: BootMs) {
        if self.by_digest.len() >= self.max {
            self.by_digest.retain(|_, (_, end_ms)| *end_ms > now_ms);
        }
        if self.by_digest.len() < self.max {
            self.by_digest.insert(Sha256::digest(value).into(), (id, expires_ms));
        }
    }
}
