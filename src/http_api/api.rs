//! The JSON API under `/v1`: the server, apps, credentials, the journal, sessions.

use std::sync::Arc;
use std::time::Duration;

use axum::Json;
use axum::body::Bytes;
use axum::extract::{Extension, Path, State};
use axum::http::{HeaderMap, HeaderValue, StatusCode, Uri, header};
use axum::response::{IntoResponse, Response};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Deserializer};
use serde_json::{Map, Value, json};
use tokio::sync::oneshot;
use tokio::time::Instant;

use super::gate::Visitor;
use super::parts::{App, Parts};
use super::problem::Problem;
use super::query::Params;
use super::{apps, events, status};
use crate::clock::{self, Now};
use crate::credential::facts::Verdict;
use crate::credential::table::{Credential, LastError, Published, Reading, State as Condition, Status};
use crate::secret::Secret;

/// What a handler gets.
pub type Shared = State<Arc<Parts>>;
pub type Asker = Extension<Arc<Visitor>>;
/// What most handlers give.
pub type Answer = Result<Json<Value>, Problem>;

/// Entries of the journal in one answer.
const ENTRIES_MAX: usize = 4096;
const GENERATION_MAX: u64 = 1 << 53;
/// How long a node among others waits for a generation that another one may have told already.
const CATCH_UP: Duration = Duration::from_secs(2);
/// The longest wait for a next value, seconds.
pub(super) const WAIT_S_MAX: u64 = 60;
/// The longest wait for a check to end.
const CHECK_MAX: Duration = Duration::from_secs(20);

/// `GET /v1/status`.
pub async fn server(State(parts): Shared, Extension(visitor): Asker, uri: Uri) -> Answer {
    Params::of(&uri, &[])?;
    visitor.may_see_status()?;
    Ok(Json(status::shown(&parts, Now::read())))
}

/// `GET /v1/events`.
pub async fn stream(State(parts): Shared, Extension(visitor): Asker, uri: Uri) -> Result<Response, Problem> {
    Params::of(&uri, &[])?;
    events::stream(&parts, visitor)
}

/// `GET /v1/apps`: those that this visitor may see.
pub async fn all(State(parts): Shared, Extension(visitor): Asker, uri: Uri) -> Answer {
    Params::of(&uri, &[])?;
    visitor.may_come_in()?;
    let now = Now::read();
    events::settle_refusals(&parts, now);
    let seen = parts.apps.iter().filter(|app| visitor.rights.sees(&app.id));
    let seen: Vec<Value> = seen.map(|app| apps::app(app, &visitor, now)).collect();
    Ok(Json(json!({ "now_ms": now.unix_ms, "apps": seen })))
}

/// `GET /v1/apps/{app}`: one, with the last that has happened to it.
pub async fn one(State(parts): Shared, Extension(visitor): Asker, Path(id): Path<String>, uri: Uri) -> Answer {
    Params::of(&uri, &[])?;
    let (app, now) = (seen(&parts, &visitor, &id)?, Now::read());
    events::settle_refusals(&parts, now);
    let mut shown = apps::app(app, &visitor, now);
    let table = parts.table();
    let entries = app.credentials.iter().flat_map(|credential| table.journal.of(credential.id, now));
    shown["journal"] = entries.map(|entry| apps::entry(&entry, &parts)).collect();
    shown["now_ms"] = json!(now.unix_ms);
    Ok(Json(shown))
}

/// `GET /v1/journal`: the last day, oldest first.
pub async fn journal(State(parts): Shared, Extension(visitor): Asker, uri: Uri) -> Answer {
    let params = Params::of(&uri, &["limit"])?;
    visitor.may_see_status()?;
    let limit = params.number::<u16>("limit")?.map_or(ENTRIES_MAX, usize::from).min(ENTRIES_MAX);
    let now = Now::read();
    events::settle_refusals(&parts, now);
    let entries = parts.table().journal.since(0, now, limit);
    let entries: Vec<Value> = entries.iter().map(|entry| apps::entry(entry, &parts)).collect();
    Ok(Json(json!({ "now_ms": now.unix_ms, "entries": entries })))
}

/// `GET /v1/session`: what the page may offer.
pub async fn session(State(parts): Shared, Extension(visitor): Asker, uri: Uri) -> Answer {
    Params::of(&uri, &[])?;
    Ok(Json(json!({
        "login": parts.keeper.gate.is_keyed(),
        "known": visitor.is_known(),
        "name": visitor.name.as_deref(),
        "rights": visitor.rights.words(),
    })))
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Login {
    key: String,
}

/// `POST /login`.
pub async fn log_in(State(parts): Shared, Extension(visitor): Asker, body: Bytes) -> Result<Response, Problem> {
    visitor.means_it()?;
    let gate = &parts.keeper.gate;
    if !gate.is_keyed() {
        return Err(Problem::new(StatusCode::CONFLICT, "no-keys", "there are no keys to log in with: see keys_file"));
    }
    let login: Login = read(&body)?;
    let key = Secret::new(login.key);
    let cookie = gate.log_in(&visitor, key.expose().as_bytes(), clock::boot_ms())?;
    with_cookie(&cookie)
}

/// `POST /logout`.
pub async fn log_out(State(parts): Shared, Extension(visitor): Asker, headers: HeaderMap) -> Result<Response, Problem> {
    visitor.means_it()?;
    with_cookie(&parts.keeper.gate.log_out(&visitor, &headers))
}

fn with_cookie(cookie: &str) -> Result<Response, Problem> {
    let mut response = StatusCode::NO_CONTENT.into_response();
    let cookie = HeaderValue::try_from(cookie).map_err(|_| Problem::bad("no cookie can be made of this"))?;
    response.headers_mut().insert(header::SET_COOKIE, cookie);
    Ok(response)
}

/// A JSON object; the parser's words would quote it.
fn read<T: DeserializeOwned>(body: &[u8]) -> Result<T, Problem> {
    let object = serde_json::from_slice::<Map<String, Value>>(body);
    let read = object.and_then(|object| T::deserialize(Value::Object(object)));
    read.map_err(|_| Problem::bad("the body is not the JSON object that is known here"))
}

/// A generation that a client may name: JSON's numbers are exact up to there.
fn in_range(generation: Option<u64>) -> Result<Option<u64>, Problem> {
    match generation {
        Some(generation) if generation > GENERATION_MAX => Err(Problem::bad("the generation is out of range")),
        other => Ok(other),
    }
}

pub(super) fn seen<'p>(parts: &'p Parts, visitor: &Visitor, id: &str) -> Result<&'p App, Problem> {
    visitor.may_see(id)?;
    parts.app(id).ok_or_else(Problem::not_found)
}

fn found<'p>(parts: &'p Parts, visitor: &Visitor, id: &str, kind: &str) -> Result<&'p Arc<Credential>, Problem> {
    seen(parts, visitor, id)?.credential(kind).ok_or_else(Problem::not_found)
}

/// `GET /v1/apps/{app}/credentials/{kind}`: the token itself. With `after`, waits while that is the present generation.
pub async fn credential(
    State(parts): Shared,
    Extension(visitor): Asker,
    Path((id, kind)): Path<(String, String)>,
    uri: Uri,
) -> Answer {
    let params = Params::of(&uri, &["after", "wait_s"])?;
    let credential = found(&parts, &visitor, &id, &kind)?;
    visitor.may_read(&id)?;
    let after = in_range(params.number::<u64>("after")?)?;
    let wait_s = params.number::<u64>("wait_s")?.unwrap_or(if after.is_some() { 30 } else { 0 });
    if wait_s > WAIT_S_MAX {
        return Err(Problem::bad("the parameter wait_s is larger than 60"));
    }
    let asked = Instant::now();
    let until = asked + Duration::from_secs(wait_s);
    // Of several nodes another one may have said it a moment ago.
    let catch_up = if parts.table().sharing.node().is_some() { CATCH_UP } else { Duration::ZERO };
    let lower_from = asked + catch_up.min(Duration::from_secs(wait_s));
    let mut changes = credential.subscribe();
    loop {
        let lower = Instant::now() >= lower_from;
        if let Some(value) = value(credential, &kind, after, lower) {
            return Ok(Json(value));
        }
        let waited = tokio::select! {
            () = parts.shutdown.cancelled() => false,
            () = tokio::time::sleep_until(lower_from), if !lower => true,
            () = tokio::time::sleep_until(until) => false,
            changed = changes.changed() => changed.is_ok(),
        };
        if !waited {
            return Err(nothing(credential, after));
        }
    }
}

/// The live value, if it is another than the one that is named. Whoever names a generation above the present one knows
/// it from before this server lost its state and would wait for ever: so a lower one is given too, if `lower`.
fn value(credential: &Credential, kind: &str, after: Option<u64>, lower: bool) -> Option<Value> {
    let now = Now::read();
    let Reading::Live(shown) = credential.read(now.boot_ms) else { return None };
    let shown: &Published = shown.as_ref()?;
    if after.is_some_and(|after| shown.generation == after || (shown.generation < after && !lower)) {
        return None;
    }
    let left_ms = shown.reliable_until(now.boot_ms).saturating_sub(now.boot_ms);
    Some(json!({
        "app": credential.app(),
        "kind": kind,
        "token": std::str::from_utf8(&shown.value).ok()?,
        "expires_in": left_ms / 1000,
        "expires_at": now.unix_ms.saturating_add_unsigned(left_ms).div_euclid(1000),
        "generation": shown.generation,
    }))
}

/// Why there is none, and whether asking again soon can help.
pub(super) fn nothing(credential: &Credential, after: Option<u64>) -> Problem {
    let now_ms = clock::boot_ms();
    let status = credential.status(now_ms);
    if after.is_some() && matches!(credential.read(now_ms), Reading::Live(_)) {
        let detail = "there is no later generation yet; ask again";
        return Problem {
            retry_after_s: Some(1),
            ..Problem::new(StatusCode::NOT_FOUND, "no-later-generation", detail)
        };
    }
    let next_s = status.next_try_boot_ms.saturating_sub(now_ms).div_ceil(1000).clamp(1, 3600);
    let awaited = credential.missing_token(&status).map(|parent| (parent, parent.status(now_ms).last_error));
    let detail = match (status.last_error, awaited) {
        (Some(error), None) => format!("there is no live value: {}; {}", error.text, error.advice),
        (_, Some((parent, Some(error)))) => {
            format!("it waits for its token {}, which there is none of: {}; {}", parent.appid, error.text, error.advice)
        }
        (_, Some((parent, None))) => format!("it waits for its token {}, which is being fetched", parent.appid),
        (None, None) => "there is no live value yet".to_owned(),
    };
    Problem { retry_after_s: Some(next_s), ..Problem::new(StatusCode::SERVICE_UNAVAILABLE, "no-live-value", detail) }
}

/// What was seen dead: a generation, or the token itself.
#[derive(Deserialize, Default)]
#[serde(deny_unknown_fields)]
struct Dead {
    #[serde(default, deserialize_with = "given")]
    generation: Option<u64>,
    #[serde(default, deserialize_with = "given")]
    token: Option<String>,
}

/// What is there is a value: `null` is none.
fn given<'d, T: Deserialize<'d>, D: Deserializer<'d>>(value: D) -> Result<Option<T>, D::Error> {
    T::deserialize(value).map(Some)
}

/// `POST /v1/apps/{app}/credentials/{kind}/refresh`: the caller has seen the value refused. It is looked into, and
/// renewed if that is so.
pub async fn refresh(
    State(parts): Shared,
    Extension(visitor): Asker,
    Path((id, kind)): Path<(String, String)>,
    body: Bytes,
) -> Answer {
    let credential = found(&parts, &visitor, &id, &kind)?;
    visitor.may_refresh(&id)?;
    let dead: Dead = if body.is_empty() { Dead::default() } else { read(&body)? };
    let generation = match (in_range(dead.generation)?, dead.token.map(Secret::new)) {
        (Some(_), Some(_)) => return Err(Problem::bad("name the generation or the token, not both")),
        (Some(generation), None) => Some(generation),
        (None, Some(token)) => match credential.generation_of(token.expose().as_bytes()) {
            Some(generation) => Some(generation),
            None => return Ok(Json(verdict(credential, "overtaken", None))),
        },
        (None, None) => credential.published().map(|published| published.generation),
    };
    let before = credential.status(clock::boot_ms());
    if generation.is_some_and(|generation| generation != before.generation) {
        return Ok(Json(verdict(credential, "overtaken", None)));
    }
    let ask = || parts.table().ask_refresh(credential, generation);
    checked(&parts, credential, before.generation, ask).await
}

/// An empty object.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Nothing {}

/// `POST /v1/apps/{app}/credentials/{kind}/probe`: tries the value on a cheap call and does nothing else.
pub async fn probe(
    State(parts): Shared,
    Extension(visitor): Asker,
    Path((id, kind)): Path<(String, String)>,
    body: Bytes,
) -> Answer {
    let credential = found(&parts, &visitor, &id, &kind)?;
    visitor.may_refresh(&id)?;
    if !body.is_empty() {
        let _: Nothing = read(&body)?;
    }
    if !credential.about().can_probe {
        let detail = "no call is known that tells whether a value of this kind is accepted";
        return Err(Problem::new(StatusCode::CONFLICT, "no-probe", detail));
    }
    checked(&parts, credential, credential.status(0).generation, || parts.table().ask_probe(credential)).await
}

/// Asks the refresher for a check of the value of this generation, waits for it, and tells what has come of it.
async fn checked(
    parts: &Parts,
    credential: &Credential,
    generation: u64,
    ask: impl FnOnce() -> Option<oneshot::Receiver<()>>,
) -> Answer {
    let before = credential.status(clock::boot_ms());
    let done = ask().ok_or_else(busy)?;
    wait_for_check(parts, done).await?;
    Ok(Json(after_check(credential, generation, &before)))
}

fn busy() -> Problem {
    let detail = "too many checks are under way";
    let problem = Problem::new(StatusCode::SERVICE_UNAVAILABLE, "busy", detail);
    Problem { retry_after_s: Some(2), ..problem }
}

async fn wait_for_check(parts: &Parts, done: oneshot::Receiver<()>) -> Result<(), Problem> {
    tokio::select! {
        () = parts.shutdown.cancelled() => Err(busy()),
        waited = tokio::time::timeout(CHECK_MAX, done) => match waited {
            Ok(_) => Ok(()),
            Err(_) => {
                let problem = Problem::new(StatusCode::GATEWAY_TIMEOUT, "check-too-slow", "WeChat has not answered in time");
                Err(Problem { retry_after_s: Some(5), ..problem })
            }
        }
    }
}

/// What has come of it.
fn after_check(credential: &Credential, generation: u64, before: &Status) -> Value {
    let status = credential.status(clock::boot_ms());
    // By their number: of two looks in one millisecond the clock tells nothing.
    let check = status.last_check.filter(|_| status.looks > before.looks);
    let word = match check.map(|check| check.verdict) {
        // Lower, too: of a node that follows another which has lost its state.
        _ if status.generation != generation => "renewed",
        Some(Verdict::Accepted) => "accepted",
        Some(Verdict::Refused) => "refused",
        Some(Verdict::HandedOut) => "handed_out",
        Some(Verdict::Replaced) => "renewed",
        Some(Verdict::Unknown) => "unknown",
        None if status.state == Condition::Waiting => "waiting",
        None if status.failures > before.failures => "failed",
        None => "not_checked",
    };
    verdict(credential, word, status.last_error)
}

fn verdict(credential: &Credential, word: &str, error: Option<LastError>) -> Value {
    let now = Now::read();
    let (advice, advice_zh) = error.map(|error| (error.advice, error.advice_zh)).unzip();
    let credential = apps::credential(credential, now);
    json!({ "verdict": word, "advice": advice, "advice_zh": advice_zh, "credential": credential })
}
