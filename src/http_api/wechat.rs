//! WeChat's own calls, so that code which calls WeChat moves over by changing the host.
//!
//! Answers are WeChat's, errors too. Nothing is fetched for a call and no token is ever replaced by one: whoever asks by
//! force has the present token looked into. The secret must be the app's own, or a key of the side port that may read it.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use axum::Json;
use axum::body::{Body, Bytes};
use axum::extract::{Extension, State};
use axum::http::{HeaderMap, Response, Uri, header};
use axum::response::IntoResponse;
use axum::routing::{MethodRouter, get, post};
use parking_lot::Mutex;
use serde_json::{Value, json};
use sha2::{Digest, Sha256};

use super::api::{Asker, Shared};
use super::attempts::Target;
use super::gate::Visitor;
use super::parts::{App, Parts};
use super::problem::Problem;
use super::wechat_time::{self, Client};
use crate::clock::{self, BootMs};
use crate::credential::table::{Credential, Reading, Table};

/// A call for a value whose first fetch is under way is held for so long.
const FIRST_FETCH_MAX: Duration = Duration::from_secs(3);
/// And one by force for the check.
const CHECK_MAX: Duration = Duration::from_secs(10);
/// Tokens whose bearers may ask for tickets although a newer token is there, besides four of each credential.
const BEARERS_MAX: usize = 50_000;

/// A refusal in WeChat's words.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Refusal {
    errcode: i64,
    errmsg: String,
}

fn refusal(errcode: i64, errmsg: &str) -> Refusal {
    Refusal { errcode, errmsg: errmsg.to_owned() }
}

type Outcome = Result<Value, Refusal>;

fn reply(outcome: Outcome) -> Json<Value> {
    Json(outcome.unwrap_or_else(|refused| json!({ "errcode": refused.errcode, "errmsg": refused.errmsg })))
}

/// All connections are being answered: WeChat's word for it, on which SDKs try again.
pub fn busy() -> Response<Body> {
    reply(Err(refusal(-1, "system error: too many calls at once"))).into_response()
}

/// Whether a request was meant for WeChat: whatever comes of it is answered as WeChat would.
pub fn is_wechats(path: &str) -> bool {
    let path = path.trim_start_matches('/');
    path == "cgi-bin" || path.starts_with("cgi-bin/")
}

/// A call that is not answered here.
pub fn unknown_call() -> Response<Body> {
    let errmsg =
        "invalid url: only the calls for tokens and tickets are answered here, make this one at WeChat's own host";
    reply(Err(refusal(40066, errmsg))).into_response()
}

/// What keeps a request from being looked at, in WeChat's form: its SDKs know no other.
pub fn refused(problem: &Problem) -> Response<Body> {
    let (errcode, what) = match problem.kind {
        "host-unknown" => (40066, "invalid url"),
        "too-many-requests" => (45011, "api minute-quota reach limit"),
        "key-needed" | "key-unknown" => (40001, "invalid credential"),
        "too-large" => (45002, "content size out of limit"),
        "too-slow" => (44002, "empty post data"),
        "bad-request" => (47001, "data format error"),
        "busy" => return busy(),
        _ => (48001, "api unauthorized"),
    };
    reply(Err(Refusal { errcode, errmsg: format!("{what}: {}", problem.detail) })).into_response()
}

/// Parameters; an empty one counts as absent, as it does at WeChat's.
struct Words(HashMap<String, String>);

impl Words {
    fn of_query(uri: &Uri) -> Words {
        let pairs = url::form_urlencoded::parse(uri.query().unwrap_or_default().as_bytes());
        Words(pairs.into_owned().collect())
    }

    fn of_json(value: &Value) -> Words {
        let members = value.as_object().into_iter().flatten();
        Words(members.filter_map(|(name, value)| Some((name.clone(), value.as_str()?.to_owned()))).collect())
    }

    fn get(&self, name: &str) -> Option<&str> {
        self.0.get(name).map(String::as_str).filter(|value| !value.is_empty())
    }

    fn needed(&self, name: &str, errcode: i64, errmsg: &str) -> Result<&str, Refusal> {
        self.get(name).ok_or_else(|| refusal(errcode, errmsg))
    }
}

/// Who asks, and with what.
pub struct Asked<What> {
    parts: Arc<Parts>,
    visitor: Arc<Visitor>,
    what: What,
    client: Client,
}

fn client(headers: &HeaderMap, uri: &Uri) -> Client {
    let agent = headers.get(header::USER_AGENT).map_or(&[][..], |agent| agent.as_bytes());
    Client::of(agent, uri.query().unwrap_or_default())
}

/// A call with its parameters in the URL.
pub fn by_query<A>(ask: fn(Asked<Uri>) -> A) -> MethodRouter<Arc<Parts>>
where
    A: Future<Output = Json<Value>> + Send + 'static,
{
    let asked = move |State(parts): Shared, Extension(visitor): Asker, headers: HeaderMap, uri: Uri| {
        let client = client(&headers, &uri);
        ask(Asked { parts, visitor, what: uri, client })
    };
    get(asked).fallback(async || reply(Err(refusal(43001, "require GET method"))))
}

/// The same, asked for by GET or by POST: the body of the latter is not looked at.
pub fn by_query_or_post<A>(ask: fn(Asked<Uri>) -> A) -> MethodRouter<Arc<Parts>>
where
    A: Future<Output = Json<Value>> + Send + 'static,
{
    let posted = move |State(parts): Shared, Extension(visitor): Asker, headers: HeaderMap, uri: Uri| {
        let client = client(&headers, &uri);
        ask(Asked { parts, visitor, what: uri, client })
    };
    by_query(ask).post(posted)
}

/// A call with its parameters in a JSON body.
pub fn by_body<A>(ask: fn(Asked<Bytes>) -> A) -> MethodRouter<Arc<Parts>>
where
    A: Future<Output = Json<Value>> + Send + 'static,
{
    let asked = move |State(parts): Shared, Extension(visitor): Asker, headers: HeaderMap, uri: Uri, body: Bytes| {
        let client = client(&headers, &uri);
        ask(Asked { parts, visitor, what: body, client })
    };
    post(asked).fallback(async || reply(Err(refusal(43002, "require POST method"))))
}

/// `/cgi-bin/token`, by GET or by POST.
pub async fn token(asked: Asked<Uri>) -> Json<Value> {
    let words = Words::of_query(&asked.what);
    let call = Call { name: "GET /cgi-bin/token", told: Told(wechat_time::Call::Token, asked.client), force: false };
    reply(of_mp(&asked.parts, &asked.visitor, &words, call).await)
}

/// `POST /cgi-bin/stable_token`.
pub async fn stable_token(asked: Asked<Bytes>) -> Json<Value> {
    let Ok(body) = serde_json::from_slice::<Value>(&asked.what) else {
        return reply(Err(refusal(47001, "data format error")));
    };
    let force = body.get("force_refresh").and_then(Value::as_bool).unwrap_or(false);
    let told = Told(wechat_time::Call::StableToken, asked.client);
    let call = Call { name: "POST /cgi-bin/stable_token", told, force };
    reply(of_mp(&asked.parts, &asked.visitor, &Words::of_json(&body), call).await)
}

/// `GET /cgi-bin/gettoken` of WeCom. `agentid` may tell a key which of the corporation's apps is meant.
pub async fn gettoken(asked: Asked<Uri>) -> Json<Value> {
    let words = Words::of_query(&asked.what);
    reply(of_wecom(&asked.parts, &asked.visitor, &words, asked.client).await)
}

/// `GET /cgi-bin/ticket/getticket`.
pub async fn getticket(asked: Asked<Uri>) -> Json<Value> {
    let words = Words::of_query(&asked.what);
    let kind = match words.get("type") {
        Some("jsapi") => "jsapi_ticket",
        Some("wx_card") => "wx_card_ticket",
        _ => return reply(Err(refusal(40097, "invalid args: type is neither jsapi nor wx_card"))),
    };
    reply(ticket(&asked, &words, kind, |platform| platform != "wecom").await)
}

/// `GET /cgi-bin/get_jsapi_ticket` of WeCom.
pub async fn get_jsapi_ticket(asked: Asked<Uri>) -> Json<Value> {
    let words = Words::of_query(&asked.what);
    reply(ticket(&asked, &words, "jsapi_ticket", |platform| platform == "wecom").await)
}

/// `GET /cgi-bin/ticket/get` of WeCom.
pub async fn agent_ticket(asked: Asked<Uri>) -> Json<Value> {
    let words = Words::of_query(&asked.what);
    if words.get("type") != Some("agent_config") {
        return reply(Err(refusal(40097, "invalid args: type is not agent_config")));
    }
    reply(ticket(&asked, &words, "agent_ticket", |platform| platform == "wecom").await)
}

/// One of the calls for a token.
struct Call {
    /// For the log.
    name: &'static str,
    told: Told,
    force: bool,
}

/// Which call tells a time, and to whom.
#[derive(Clone, Copy)]
struct Told(wechat_time::Call, Client);

async fn of_mp(parts: &Parts, visitor: &Visitor, words: &Words, call: Call) -> Outcome {
    if words.get("grant_type") != Some("client_credential") {
        return Err(refusal(40002, "invalid grant_type"));
    }
    let appid = words.needed("appid", 41002, "appid missing")?;
    let secret = words.needed("secret", 41004, "appsecret missing")?;
    let is_it = |app: &App| matches!(app.platform, "mp" | "qq" | "component");
    let given = Given { call: call.name, appid, secret, peer: visitor.peer };
    let app = match admitted(parts, &given, is_it).await?.as_slice() {
        [app] => *app,
        _ => return Err(refusal(40125, "invalid appsecret")),
    };
    let credential = app.credential("access_token").ok_or_else(|| refusal(40013, "invalid appid"))?;
    if call.force {
        look_into(parts, credential).await;
    }
    let (token, expires_in) = live(parts, credential, call.told).await?;
    Ok(json!({ "access_token": token, "expires_in": expires_in }))
}

async fn of_wecom(parts: &Parts, visitor: &Visitor, words: &Words, client: Client) -> Outcome {
    let corpid = words.needed("corpid", 41002, "corpid missing")?;
    let secret = words.needed("corpsecret", 41004, "corpsecret missing")?;
    let agent = words.get("agentid");
    let is_it = |app: &App| {
        let named = agent
            .is_none_or(|agent| app.id.strip_prefix(corpid).and_then(|rest| rest.strip_prefix(':')) == Some(agent));
        app.platform == "wecom" && named
    };
    let given = Given { call: "GET /cgi-bin/gettoken", appid: corpid, secret, peer: visitor.peer };
    let apps = admitted(parts, &given, is_it).await?;
    let [app] = apps.as_slice() else {
        return Err(refusal(
            40056,
            "invalid agentid: this key may read several apps of the corporation, name one by agentid",
        ));
    };
    let credential = app.credential("access_token").ok_or_else(|| refusal(40013, "invalid corpid"))?;
    let (token, expires_in) = live(parts, credential, Told(wechat_time::Call::Gettoken, client)).await?;
    Ok(json!({ "errcode": 0, "errmsg": "ok", "access_token": token, "expires_in": expires_in }))
}

/// What a call for a token has shown.
struct Given<'g> {
    call: &'static str,
    appid: &'g str,
    secret: &'g str,
    peer: IpAddr,
}

/// Those of the appid's apps that the secret opens: it is theirs, or a key that may read them. It is looked at first,
/// whatever has come before; only wrong ones are counted.
async fn admitted<'p>(
    parts: &'p Parts,
    given: &Given<'_>,
    is_it: impl Fn(&App) -> bool,
) -> Result<Vec<&'p App>, Refusal> {
    let now_ms = clock::boot_ms();
    let apps: Vec<(usize, &App)> = parts.of_appid(given.appid).filter(|(_, app)| is_it(app)).collect();
    let Some((first, app)) = apps.first() else {
        let shown = if looks_like_an_appid(given.appid) { given.appid } else { "an appid" };
        return Err(wrong(parts, given, Target::UnknownApp, shown, refusal(40013, "invalid appid")));
    };
    let mut opened: Vec<&App> = Vec::new();
    for (_, app) in &apps {
        if let Some(secret) = &app.secret
            && secret.is(given.secret, now_ms).await
        {
            opened.push(app);
        }
    }
    if opened.is_empty()
        && let Some(rights) = parts.keeper.gate.rights_of(given.secret.as_bytes())
    {
        opened.extend(apps.iter().map(|(_, app)| *app).filter(|app| rights.read(&app.id)));
    }
    if opened.is_empty() {
        return Err(wrong(parts, given, Target::App(*first), &app.id, refusal(40125, "invalid appsecret")));
    }
    Ok(opened)
}

/// Counts a wrong secret and gives the refusal: past some of them in a while WeChat's word for too many calls, on which
/// SDKs ask less often.
fn wrong(parts: &Parts, given: &Given<'_>, target: Target, app: &str, refused: Refusal) -> Refusal {
    let counted = parts.keeper.gate.count_wrong_secret(given.peer, given.call, app, target, clock::boot_ms());
    match counted {
        Ok(()) => refused,
        Err(_) => refusal(45011, "api minute-quota reach limit, too many calls with a wrong appid or secret"),
    }
}

/// Fit for a log: nothing that could be a secret in the wrong place.
fn looks_like_an_appid(text: &str) -> bool {
    let of_wechat = text.starts_with("wx") || text.starts_with("ww");
    of_wechat && text.len() <= 20 && text.bytes().all(|byte| byte.is_ascii_alphanumeric())
}

/// The live value, and what is told of its life, seconds.
async fn live(parts: &Parts, credential: &Credential, told: Told) -> Result<(String, u64), Refusal> {
    let mut changes = credential.subscribe();
    let until = tokio::time::Instant::now() + FIRST_FETCH_MAX;
    loop {
        let now_ms = clock::boot_ms();
        match credential.read(now_ms) {
            Reading::Live(shown) => {
                let shown = shown.as_ref().ok_or_else(|| none(credential))?;
                let value = String::from_utf8(shown.value.to_vec()).map_err(|_| none(credential))?;
                let reliable_s = shown.reliable_until(now_ms).saturating_sub(now_ms) / 1000;
                let min_s = parts.settings.wechat_expires_in_min_s;
                parts.bearers.note(&value, credential.id, shown.expires_boot_ms, now_ms);
                return Ok((value, wechat_time::told_s(reliable_s, told.0, told.1, min_s)));
            }
            Reading::Absent => return Err(none(credential)),
            Reading::FirstFetch => {
                let waited = tokio::time::timeout_at(until, changes.changed());
                tokio::select! {
                    () = parts.shutdown.cancelled() => return Err(none(credential)),
                    waited = waited => if !matches!(waited, Ok(Ok(()))) { return Err(none(credential)) },
                }
            }
        }
    }
}

/// There is no live value: what WeChat said, or that it is busy, on which every SDK tries again.
fn none(credential: &Credential) -> Refusal {
    let error = credential.status(clock::boot_ms()).last_error;
    let told = error.and_then(|error| Some(Refusal { errcode: error.errcode?, errmsg: error.text }));
    told.unwrap_or_else(|| refusal(-1, "system error"))
}

/// By force: the caller takes the token for dead. It is looked into as after a `delete`.
async fn look_into(parts: &Parts, credential: &Credential) {
    if let Some(done) = parts.table().report_dead(credential, None) {
        tokio::select! {
            () = parts.shutdown.cancelled() => {}
            // Whatever came of it, what is live then is the answer.
            _ = tokio::time::timeout(CHECK_MAX, done) => {}
        }
    }
}

async fn ticket(asked: &Asked<Uri>, words: &Words, kind: &str, of_platform: fn(&str) -> bool) -> Outcome {
    let parts = &asked.parts;
    let token = words.needed("access_token", 41001, "access_token missing")?;
    let invalid = || refusal(40001, "invalid credential, access_token is invalid or not latest");
    let app = bearer(parts, token).filter(|app| of_platform(app.platform)).ok_or_else(invalid)?;
    let Some(credential) = app.credential(kind) else {
        let what = format!("api unauthorized: {kind} is not among the app's tickets in the configuration");
        return Err(Refusal { errcode: 48001, errmsg: what });
    };
    let (ticket, expires_in) = live(parts, credential, Told(wechat_time::Call::Ticket, asked.client)).await?;
    Ok(json!({ "errcode": 0, "errmsg": "ok", "ticket": ticket, "expires_in": expires_in }))
}

/// The app whose token that is: its live one, or an earlier one that has not ended.
fn bearer<'p>(parts: &'p Parts, token: &str) -> Option<&'p App> {
    let now_ms = clock::boot_ms();
    parts.bearers.note_all(parts.table(), now_ms);
    let id = parts.bearers.whose(token, now_ms)?;
    parts.apps.iter().find(|app| app.token().is_some_and(|token| token.id == id))
}

/// Whose tokens those are that clients come with, by their digests: the live ones, and earlier ones until their end. A
/// wrong one costs a look into a map, so nobody needs to be kept from asking with it.
pub struct Bearers(Mutex<Known>);

struct Known {
    /// That of [`Table::values`] up to which all values are here.
    upto: u64,
    /// Credential and end.
    by_digest: HashMap<[u8; 32], (usize, BootMs)>,
    max: usize,
}

impl Bearers {
    pub fn new(credentials: usize) -> Bearers {
        Bearers(Mutex::new(Known { upto: 0, by_digest: HashMap::new(), max: BEARERS_MAX + 4 * credentials }))
    }

    fn note(&self, value: &str, id: usize, expires_ms: BootMs, now_ms: BootMs) {
        self.0.lock().note(value.as_bytes(), id, expires_ms, now_ms);
    }

    /// Takes up what has been published since the last time.
    fn note_all(&self, table: &Table, now_ms: BootMs) {
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
                known.note(&shown.value, credential.id, shown.expires_boot_ms, now_ms);
            }
        }
        known.upto = upto;
    }

    fn whose(&self, value: &str, now_ms: BootMs) -> Option<usize> {
        let digest: [u8; 32] = Sha256::digest(value).into();
        self.0.lock().by_digest.get(&digest).filter(|(_, end_ms)| *end_ms > now_ms).map(|(id, _)| *id)
    }
}

impl Known {
    fn note(&mut self, value: &[u8], id: usize, expires_ms: BootMs, now_ms: BootMs) {
        if self.by_digest.len() >= self.max {
            self.by_digest.retain(|_, (_, end_ms)| *end_ms > now_ms);
        }
        if self.by_digest.len() < self.max {
            self.by_digest.insert(Sha256::digest(value).into(), (id, expires_ms));
        }
    }
}
