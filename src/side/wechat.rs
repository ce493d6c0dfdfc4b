//! WeChat's own calls, so that code which calls WeChat moves over by changing the host.
//!
//! Answers are WeChat's, errors too. Nothing is fetched for a call and no token is ever replaced by one: whoever asks by
//! force has the present token looked into. The secret must be the app's own, or a key of the side port that may read it.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use axum::Json;
use axum::body::Bytes;
use axum::extract::{Extension, State};
use axum::http::Uri;
use axum::routing::{MethodRouter, get, post};
use parking_lot::Mutex;
use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use subtle::ConstantTimeEq;

use super::api::{Asker, Shared};
use super::gate::Visitor;
use super::parts::{App, Parts};
use crate::clock::{self, BootMs};
use crate::credential::table::{Credential, Reading};

/// A call for a value whose first fetch is under way is held for so long.
const FIRST_FETCH_MAX: Duration = Duration::from_secs(3);
/// And one by force for the check.
const CHECK_MAX: Duration = Duration::from_secs(10);
/// SDKs subtract up to 1500 s from what the classic call says (silenceper/wechat, EasyWeChat 3), which says 7200 at
/// WeChat's; one that comes out at nothing or less makes some caches keep a token for ever and others fail.
const CLASSIC_S_MIN: u64 = 1_560;
/// The stable call says 300 at least at WeChat's, and SDKs know that.
const STABLE_S_MIN: u64 = 360;
/// Tokens handed out whose bearers may ask for tickets although a newer token is there.
const HANDED_OUT_MAX: usize = 50_000;

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

/// A call with its parameters in the URL.
pub fn by_query<A>(ask: fn(Arc<Parts>, Arc<Visitor>, Uri) -> A) -> MethodRouter<Arc<Parts>>
where
    A: Future<Output = Json<Value>> + Send + 'static,
{
    get(move |State(parts): Shared, Extension(visitor): Asker, uri: Uri| ask(parts, visitor, uri))
        .fallback(async || reply(Err(refusal(43001, "require GET method"))))
}

/// A call with its parameters in a JSON body.
pub fn by_body<A>(ask: fn(Arc<Parts>, Arc<Visitor>, Bytes) -> A) -> MethodRouter<Arc<Parts>>
where
    A: Future<Output = Json<Value>> + Send + 'static,
{
    post(move |State(parts): Shared, Extension(visitor): Asker, body: Bytes| ask(parts, visitor, body))
        .fallback(async || reply(Err(refusal(43002, "require POST method"))))
}

/// `GET /cgi-bin/token`.
pub async fn token(parts: Arc<Parts>, visitor: Arc<Visitor>, uri: Uri) -> Json<Value> {
    let words = Words::of_query(&uri);
    reply(of_mp(&parts, &visitor, &words, CLASSIC_S_MIN, false).await)
}

/// `POST /cgi-bin/stable_token`.
pub async fn stable_token(parts: Arc<Parts>, visitor: Arc<Visitor>, body: Bytes) -> Json<Value> {
    let Ok(body) = serde_json::from_slice::<Value>(&body) else {
        return reply(Err(refusal(47001, "data format error")));
    };
    let force = body.get("force_refresh").and_then(Value::as_bool).unwrap_or(false);
    reply(of_mp(&parts, &visitor, &Words::of_json(&body), STABLE_S_MIN, force).await)
}

/// `GET /cgi-bin/gettoken` of WeCom. `agentid` may tell a key which of the corporation's apps is meant.
pub async fn gettoken(parts: Arc<Parts>, visitor: Arc<Visitor>, uri: Uri) -> Json<Value> {
    let words = Words::of_query(&uri);
    reply(of_wecom(&parts, &visitor, &words).await)
}

/// `GET /cgi-bin/ticket/getticket`.
pub async fn getticket(parts: Arc<Parts>, _visitor: Arc<Visitor>, uri: Uri) -> Json<Value> {
    let words = Words::of_query(&uri);
    let kind = match words.get("type") {
        Some("jsapi") => "jsapi_ticket",
        Some("wx_card") => "wx_card_ticket",
        _ => return reply(Err(refusal(40097, "invalid args: type is neither jsapi nor wx_card"))),
    };
    reply(ticket(&parts, &words, kind, |platform| platform != "wecom").await)
}

/// `GET /cgi-bin/get_jsapi_ticket` of WeCom.
pub async fn get_jsapi_ticket(parts: Arc<Parts>, _visitor: Arc<Visitor>, uri: Uri) -> Json<Value> {
    reply(ticket(&parts, &Words::of_query(&uri), "jsapi_ticket", |platform| platform == "wecom").await)
}

/// `GET /cgi-bin/ticket/get` of WeCom.
pub async fn agent_ticket(parts: Arc<Parts>, _visitor: Arc<Visitor>, uri: Uri) -> Json<Value> {
    let words = Words::of_query(&uri);
    if words.get("type") != Some("agent_config") {
        return reply(Err(refusal(40097, "invalid args: type is not agent_config")));
    }
    reply(ticket(&parts, &words, "agent_ticket", |platform| platform == "wecom").await)
}

async fn of_mp(parts: &Parts, visitor: &Visitor, words: &Words, s_min: u64, force: bool) -> Outcome {
    if words.get("grant_type") != Some("client_credential") {
        return Err(refusal(40002, "invalid grant_type"));
    }
    let appid = words.needed("appid", 41002, "appid missing")?;
    let secret = words.needed("secret", 41004, "appsecret missing")?;
    let is_it = |app: &&App| app.appid == appid && matches!(app.platform, "mp" | "qq" | "component");
    let app = admitted(parts, visitor, parts.apps.iter().filter(is_it).collect(), secret).await?;
    let app = match app.as_slice() {
        [app] => *app,
        _ => return Err(refusal(40125, "invalid appsecret")),
    };
    let credential = app.credential("access_token").ok_or_else(|| refusal(40013, "invalid appid"))?;
    if force {
        look_into(parts, credential).await;
    }
    let (token, expires_in) = live(parts, credential, s_min).await?;
    Ok(json!({ "access_token": token, "expires_in": expires_in }))
}

async fn of_wecom(parts: &Parts, visitor: &Visitor, words: &Words) -> Outcome {
    let corpid = words.needed("corpid", 41002, "corpid missing")?;
    let secret = words.needed("corpsecret", 41004, "corpsecret missing")?;
    let agent = words.get("agentid");
    let is_it = |app: &&App| {
        let named = agent
            .is_none_or(|agent| app.id.strip_prefix(corpid).and_then(|rest| rest.strip_prefix(':')) == Some(agent));
        app.appid == corpid && app.platform == "wecom" && named
    };
    let apps = admitted(parts, visitor, parts.apps.iter().filter(is_it).collect(), secret).await?;
    let [app] = apps.as_slice() else {
        return Err(refusal(
            40056,
            "invalid agentid: this key may read several apps of the corporation, name one by agentid",
        ));
    };
    let credential = app.credential("access_token").ok_or_else(|| refusal(40013, "invalid corpid"))?;
    let (token, expires_in) = live(parts, credential, STABLE_S_MIN).await?;
    Ok(json!({ "errcode": 0, "errmsg": "ok", "access_token": token, "expires_in": expires_in }))
}

/// Those of the apps that this secret opens: it is theirs, or a key that may read them. Wrong ones are counted.
async fn admitted<'p>(
    parts: &'p Parts,
    visitor: &Visitor,
    apps: Vec<&'p App>,
    given: &str,
) -> Result<Vec<&'p App>, Refusal> {
    let (gate, now_ms) = (&parts.keeper.gate, clock::boot_ms());
    gate.may_try(visitor.peer, now_ms)
        .map_err(|_| refusal(45011, "api minute-quota reach limit, too many wrong secrets"))?;
    if apps.is_empty() {
        gate.note_failure(visitor.peer, now_ms);
        return Err(refusal(40013, "invalid appid"));
    }
    let mut opened: Vec<&App> = Vec::new();
    for app in &apps {
        let Some(source) = app.secret.clone() else { continue };
        let read = tokio::task::spawn_blocking(move || source.read()).await;
        if let Ok(Ok(secret)) = read
            && bool::from(secret.expose().as_bytes().ct_eq(given.as_bytes()))
        {
            opened.push(app);
        }
    }
    if opened.is_empty()
        && let Some(rights) = gate.rights_of(given.as_bytes())
    {
        opened.extend(apps.iter().filter(|app| rights.read(&app.id)));
    }
    if opened.is_empty() {
        gate.note_failure(visitor.peer, now_ms);
        return Err(refusal(40125, "invalid appsecret"));
    }
    Ok(opened)
}

/// The live value, and what is told of its life, seconds.
async fn live(parts: &Parts, credential: &Credential, s_min: u64) -> Result<(String, u64), Refusal> {
    let mut changes = credential.subscribe();
    let until = tokio::time::Instant::now() + FIRST_FETCH_MAX;
    loop {
        let now_ms = clock::boot_ms();
        match credential.read(now_ms) {
            Reading::Live(shown) => {
                let shown = shown.as_ref().ok_or_else(|| none(credential))?;
                let value = String::from_utf8(shown.value.to_vec()).map_err(|_| none(credential))?;
                let left_s = shown.expires_boot_ms.saturating_sub(now_ms) / 1000;
                let s_min = parts.settings.wechat_expires_in_min_s.map_or(s_min, u64::from);
                parts.handed_out.note(&value, credential, shown.expires_boot_ms, now_ms);
                return Ok((value, left_s.max(s_min)));
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

async fn ticket(parts: &Parts, words: &Words, kind: &str, of_platform: fn(&str) -> bool) -> Outcome {
    let token = words.needed("access_token", 41001, "access_token missing")?;
    let invalid = || refusal(40001, "invalid credential, access_token is invalid or not latest");
    let app = bearer(parts, token).filter(|app| of_platform(app.platform)).ok_or_else(invalid)?;
    let Some(credential) = app.credential(kind) else {
        let what = format!("api unauthorized: {kind} is not among the app's tickets in the configuration");
        return Err(Refusal { errcode: 48001, errmsg: what });
    };
    let (ticket, expires_in) = live(parts, credential, CLASSIC_S_MIN).await?;
    Ok(json!({ "errcode": 0, "errmsg": "ok", "ticket": ticket, "expires_in": expires_in }))
}

/// The app whose token that is: its live one, or one that was handed out here and has not ended. Looks at every app.
fn bearer<'p>(parts: &'p Parts, token: &str) -> Option<&'p App> {
    let now_ms = clock::boot_ms();
    let mut found = None;
    for app in &parts.apps {
        let Some(credential) = app.token() else { continue };
        let Reading::Live(shown) = credential.read(now_ms) else { continue };
        if shown.as_ref().is_some_and(|shown| shown.value.ct_eq(token.as_bytes()).into()) {
            found = Some(app);
        }
    }
    let earlier = parts.handed_out.whose(token, now_ms);
    found.or_else(|| parts.apps.iter().find(|app| app.token().is_some_and(|token| Some(token.id) == earlier)))
}

/// Tokens that were handed out by these calls, by their digests.
#[derive(Default)]
pub struct HandedOut(Mutex<HashMap<[u8; 32], (usize, BootMs)>>);

impl HandedOut {
    fn note(&self, value: &str, credential: &Credential, expires_ms: BootMs, now_ms: BootMs) {
        let mut all = self.0.lock();
        if all.len() >= HANDED_OUT_MAX {
            all.retain(|_, (_, end_ms)| *end_ms > now_ms);
        }
        if all.len() < HANDED_OUT_MAX {
            all.insert(Sha256::digest(value).into(), (credential.id, expires_ms));
        }
    }

    fn whose(&self, value: &str, now_ms: BootMs) -> Option<usize> {
        let digest: [u8; 32] = Sha256::digest(value).into();
        self.0.lock().get(&digest).filter(|(_, end_ms)| *end_ms > now_ms).map(|(id, _)| *id)
    }
}
