//! The JSON API under `/v1`: the server, apps, credentials, the journal, sessions.

use std::time::Duration;

use axum::Json;
use axum::body::Bytes;
use axum::extract::Path;
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Deserializer};
use serde_json::{Map, Value, json};
use tokio::sync::oneshot;
use tokio::time::Instant;

use super::call::{HttpApiCall, JsonResult, QueryParams};
use super::context::ApiContext;
use super::old_fields::with_old_fields;
use super::problem::Problem;
use super::{apps, events, status};
use crate::clock::{self, Now};
use crate::credential::facts::VerificationResult;
use crate::credential::table::{Credential, CredentialState, CredentialStatus, LastError, Published, Reading};
use crate::secret::Secret;
use crate::texts;

/// The most entries of the journal in one answer.
const ENTRIES_MAX: usize = 4096;
const GENERATION_MAX: u64 = 1 << 53;
/// How long a node of a cluster waits for a generation that another node may have given out already.
const CATCH_UP: Duration = Duration::from_secs(2);
/// The longest wait for a next value, seconds.
const WAIT_S_MAX: u64 = 60;
const VERIFICATION_MAX: Duration = Duration::from_secs(20);

/// In OpenAPI 3.1. `tests/it/http_api/openapi.rs` compares the server with it.
const DESCRIPTION: &str = include_str!("openapi.json");

/// `GET /v1/openapi.json`. It says nothing about this server, so anybody may read it.
pub async fn get_description(call: HttpApiCall) -> Result<Response, Problem> {
    call.params(&[])?;
    Ok(([(header::CONTENT_TYPE, "application/json")], DESCRIPTION).into_response())
}

pub async fn get_status(call: HttpApiCall) -> JsonResult {
    call.params(&[])?;
    call.caller.require_status()?;
    Ok(Json(status::status_json(&call.context, Now::read())))
}

pub async fn get_events(call: HttpApiCall) -> Result<Response, Problem> {
    call.params(&[])?;
    events::listen(&call.context, call.caller)
}

/// `GET /v1/apps`: the apps that this caller may see.
pub async fn get_apps(call: HttpApiCall) -> JsonResult {
    call.params(&[])?;
    call.caller.require_any_right()?;
    let now = Now::read();
    events::flush_refused_writes(&call.context, now);
    let seen = call.context.apps.iter().filter(|app| call.caller.rights.can_see(&app.id));
    let seen: Vec<Value> = seen.map(|app| apps::app_json(app, &call.caller, now)).collect();
    Ok(Json(json!({ "now_ms": now.unix_ms, "apps": seen })))
}

/// `GET /v1/apps/{app}`: one app, with its latest entries of the journal.
pub async fn get_app(call: HttpApiCall, Path(id): Path<String>) -> JsonResult {
    call.params(&[])?;
    let (app, now) = (call.app(&id)?, Now::read());
    events::flush_refused_writes(&call.context, now);
    let mut shown = apps::app_json(app, &call.caller, now);
    let table = call.context.table();
    let entries = app.credentials.iter().flat_map(|credential| table.journal.entries_of(credential.id, now));
    shown["journal"] = entries.map(|entry| apps::entry_json(&entry, &call.context)).collect();
    shown["now_ms"] = json!(now.unix_ms);
    Ok(Json(shown))
}

/// `GET /v1/journal`: the entries of the last day, oldest first.
pub async fn get_journal(call: HttpApiCall) -> JsonResult {
    let params = call.params(&["limit"])?;
    call.caller.require_status()?;
    let limit = params.number::<u16>("limit")?.map_or(ENTRIES_MAX, usize::from).min(ENTRIES_MAX);
    let now = Now::read();
    events::flush_refused_writes(&call.context, now);
    let entries = call.context.table().journal.since(0, now, limit);
    let entries: Vec<Value> = entries.iter().map(|entry| apps::entry_json(entry, &call.context)).collect();
    Ok(Json(json!({ "now_ms": now.unix_ms, "entries": entries })))
}

/// `GET /v1/session`: who the caller is, so that the page knows what to offer.
pub async fn get_session(call: HttpApiCall) -> JsonResult {
    call.params(&[])?;
    Ok(Json(json!({
        "login": call.context.reload_handle.access_control.has_keys,
        "known": call.caller.is_logged_in(),
        "name": call.caller.name.as_deref(),
        "rights": call.caller.rights.words(),
    })))
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct LoginBody {
    key: String,
}

pub async fn log_in(call: HttpApiCall, body: Bytes) -> Result<Response, Problem> {
    call.caller.require_api_header()?;
    let access_control = &call.context.reload_handle.access_control;
    if !access_control.has_keys {
        return Err(Problem::new(StatusCode::CONFLICT, "no-keys", "there are no keys to log in with: see keys_file"));
    }
    let login: LoginBody = parse_body(&body)?;
    let key = Secret::new(login.key);
    let cookie = access_control.log_in(&call.caller, key.expose().as_bytes(), clock::boot_ms())?;
    with_cookie(cookie)
}

pub async fn log_out(call: HttpApiCall, headers: HeaderMap) -> Result<Response, Problem> {
    call.caller.require_api_header()?;
    with_cookie(call.context.reload_handle.access_control.log_out(&call.caller, &headers))
}

fn with_cookie(cookie: String) -> Result<Response, Problem> {
    Ok((StatusCode::NO_CONTENT, [(header::SET_COOKIE, cookie)]).into_response())
}

/// Reads a JSON object. The parser's own message is not given, because it would quote the body.
fn parse_body<T: DeserializeOwned>(body: &[u8]) -> Result<T, Problem> {
    let object = serde_json::from_slice::<Map<String, Value>>(body);
    let read = object.and_then(|object| T::deserialize(Value::Object(object)));
    read.map_err(|_| Problem::bad("the body is not the JSON object that is known here"))
}

/// An error if the generation is larger than JSON's numbers are exact.
fn check_generation(generation: Option<u64>) -> Result<Option<u64>, Problem> {
    match generation {
        Some(generation) if generation > GENERATION_MAX => Err(Problem::bad("the generation is out of range")),
        other => Ok(other),
    }
}

/// How long a request waits for what comes next: the parameter `wait_s`, or the default.
pub(super) fn wait_of(params: &QueryParams, has_after: bool) -> Result<Duration, Problem> {
    let wait_s = params.number::<u64>("wait_s")?.unwrap_or(if has_after { 30 } else { 0 });
    if wait_s > WAIT_S_MAX {
        return Err(Problem::bad("the parameter wait_s is larger than 60"));
    }
    Ok(Duration::from_secs(wait_s))
}

/// `GET /v1/apps/{app}/credentials/{type}`: the value. With `after`, waits while that is the
/// present generation.
pub async fn get_credential(call: HttpApiCall, Path((id, credential_type)): Path<(String, String)>) -> JsonResult {
    let params = call.params(&["after", "wait_s"])?;
    let credential = call.credential(&id, &credential_type)?;
    call.caller.require_read(&id)?;
    let after = check_generation(params.number::<u64>("after")?)?;
    let wait = wait_of(&params, after.is_some())?;
    let asked = Instant::now();
    let until = asked + wait;
    // Another node of a cluster may have given it out a moment ago.
    let catch_up = if call.context.table().cluster.node().is_some() { CATCH_UP } else { Duration::ZERO };
    let lower_from = asked + catch_up.min(wait);
    let mut changes = credential.subscribe();
    loop {
        let lower = Instant::now() >= lower_from;
        if let Some(value) = value_json(credential, &credential_type, after, lower) {
            return Ok(Json(value));
        }
        let waited = tokio::select! {
            () = call.context.shutdown.cancelled() => false,
            () = tokio::time::sleep_until(lower_from), if !lower => true,
            () = tokio::time::sleep_until(until) => false,
            changed = changes.changed() => changed.is_ok(),
        };
        if !waited {
            return Err(no_value_problem(credential, after));
        }
    }
}

/// The live value, if its generation is not the named one. A caller that names a later generation has it from before
/// this server lost its state, and would wait forever; with `lower` it gets the present value although that is lower.
fn value_json(credential: &Credential, credential_type: &str, after: Option<u64>, lower: bool) -> Option<Value> {
    let now = Now::read();
    let Reading::Live(shown) = credential.read(now.boot_ms) else { return None };
    let shown: &Published = shown.as_ref()?;
    if after.is_some_and(|after| shown.generation == after || (shown.generation < after && !lower)) {
        return None;
    }
    let left_ms = shown.reliable_until(now.boot_ms).saturating_sub(now.boot_ms);
    let shown = json!({
        "app": credential.app(),
        "type": credential_type,
        "token": std::str::from_utf8(&shown.value).ok()?,
        "expires_in": left_ms / 1000,
        "expires_at": now.unix_ms.saturating_add_unsigned(left_ms).div_euclid(1000),
        "generation": shown.generation,
    });
    Some(with_old_fields(shown, &["kind"]))
}

/// Why there is no value, and when to ask again.
pub(super) fn no_value_problem(credential: &Credential, after: Option<u64>) -> Problem {
    let now_ms = clock::boot_ms();
    let status = credential.status(now_ms);
    if after.is_some() && matches!(credential.read(now_ms), Reading::Live(_)) {
        let detail = "there is no later generation yet; ask again";
        return Problem::new(StatusCode::NOT_FOUND, "no-later-generation", detail).retry_after(1);
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
    Problem::new(StatusCode::SERVICE_UNAVAILABLE, "no-live-value", detail).retry_after(next_s)
}

/// The value that was refused: its generation or the token itself.
#[derive(Deserialize, Default)]
#[serde(deny_unknown_fields)]
struct RefreshBody {
    #[serde(default, deserialize_with = "present_value")]
    generation: Option<u64>,
    #[serde(default, deserialize_with = "present_value")]
    token: Option<String>,
}

/// A field that is there must have a value; `null` is an error.
fn present_value<'d, T: Deserialize<'d>, D: Deserializer<'d>>(value: D) -> Result<Option<T>, D::Error> {
    T::deserialize(value).map(Some)
}

/// `POST /v1/apps/{app}/credentials/{type}/refresh`: the caller reports that the value is refused. It is
/// verified, and renewed if that is so.
pub async fn refresh(
    call: HttpApiCall,
    Path((id, credential_type)): Path<(String, String)>,
    body: Bytes,
) -> JsonResult {
    let credential = call.credential(&id, &credential_type)?;
    call.caller.require_refresh(&id)?;
    let refused: RefreshBody = if body.is_empty() { RefreshBody::default() } else { parse_body(&body)? };
    let generation = match (check_generation(refused.generation)?, refused.token.map(Secret::new)) {
        (Some(_), Some(_)) => return Err(Problem::bad("name the generation or the token, not both")),
        (Some(generation), None) => Some(generation),
        (None, Some(token)) => match credential.generation_of(token.expose().as_bytes()) {
            Some(generation) => Some(generation),
            None => return Ok(Json(verdict_json(credential, "overtaken", None))),
        },
        (None, None) => credential.published().map(|published| published.generation),
    };
    let before = credential.status(clock::boot_ms());
    if generation.is_some_and(|generation| generation != before.generation) {
        return Ok(Json(verdict_json(credential, "overtaken", None)));
    }
    let ask = || call.context.table().ask_refresh(credential, generation);
    verify_and_report(&call.context, credential, before.generation, ask).await
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct EmptyBody {}

/// `POST /v1/apps/{app}/credentials/{type}/probe`: probes the value and does nothing else.
pub async fn probe(call: HttpApiCall, Path((id, credential_type)): Path<(String, String)>, body: Bytes) -> JsonResult {
    let credential = call.credential(&id, &credential_type)?;
    call.caller.require_refresh(&id)?;
    if !body.is_empty() {
        let _: EmptyBody = parse_body(&body)?;
    }
    if !credential.about().can_probe {
        let detail = "no call is known that tells whether a value of this type is accepted";
        return Err(Problem::new(StatusCode::CONFLICT, "no-probe", detail));
    }
    verify_and_report(&call.context, credential, credential.status(0).generation, || {
        call.context.table().ask_probe(credential)
    })
    .await
}

/// Asks the refresher to verify the value of this generation, waits for the end, and gives the result.
async fn verify_and_report(
    context: &ApiContext,
    credential: &Credential,
    generation: u64,
    ask: impl FnOnce() -> Option<oneshot::Receiver<()>>,
) -> JsonResult {
    let before = credential.status(clock::boot_ms());
    let busy = || Problem::busy("too many verifications are under way", 2);
    let done = ask().ok_or_else(busy)?;
    let waited = tokio::time::timeout(VERIFICATION_MAX, done);
    if context.shutdown.run_until_cancelled(waited).await.ok_or_else(busy)?.is_err() {
        let detail = "WeChat has not answered in time";
        return Err(Problem::new(StatusCode::GATEWAY_TIMEOUT, "check-too-slow", detail).retry_after(5));
    }
    Ok(Json(verification_result(credential, generation, &before)))
}

/// The result, from what has changed since `before`.
fn verification_result(credential: &Credential, generation: u64, before: &CredentialStatus) -> Value {
    let status = credential.status(clock::boot_ms());
    // Compared by their number: two verifications may end in the same millisecond.
    let check = status.last_check.filter(|_| status.looks > before.looks);
    let word = match check.map(|check| check.verdict) {
        // A lower generation, too: the leader of a follower may have lost its state.
        _ if status.generation != generation => "renewed",
        Some(VerificationResult::Accepted) => "accepted",
        Some(VerificationResult::Refused) => "refused",
        Some(VerificationResult::HandedOut) => "handed_out",
        Some(VerificationResult::Replaced) => "renewed",
        Some(VerificationResult::Unknown) => "unknown",
        None if status.state == CredentialState::Waiting => "waiting",
        None if status.failures > before.failures => "failed",
        None => "not_checked",
    };
    verdict_json(credential, word, status.last_error)
}

fn verdict_json(credential: &Credential, word: &str, error: Option<LastError>) -> Value {
    let now = Now::read();
    let advice = error.map(|error| error.advice);
    let advice_zh = advice.as_deref().map(texts::in_chinese);
    let credential = apps::credential_json(credential, now);
    json!({ "verdict": word, "advice": advice, "advice_zh": advice_zh, "credential": credential })
}
