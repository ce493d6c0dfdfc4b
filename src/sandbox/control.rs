//! The control calls under `/sandbox/`, and the page at `/` that explains them. For developers: they show tokens.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::Arc;

use axum::Router;
use axum::body::Bytes;
use axum::extract::{Query, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};

use super::fault::{ALL_APPS, InjectedFault};
use super::rules::World;
use super::state::SandboxState;
use crate::clock::Now;

/// The control calls, the page at `/`, and the answer to an unknown path.
pub(super) fn routes(base_url: &str) -> Router<Arc<SandboxState>> {
    let page = page(base_url);
    Router::new()
        .route("/", get(move || std::future::ready(page.clone())))
        .route("/sandbox/apps", get(apps))
        .route("/sandbox/calls", get(calls))
        .route("/sandbox/judge", get(judge))
        .route("/sandbox/fault", get(faults).post(set_fault).delete(clear_fault))
        .route("/sandbox/kill", post(kill))
        .route("/sandbox/roll", post(roll))
        .route("/sandbox/allowlist", post(allowlist))
        .route("/sandbox/freeze", post(freeze))
        .route("/sandbox/secret", post(secret))
        .route("/sandbox/verify_ticket", post(push_verify_ticket))
        .route("/sandbox/expire_verify_tickets", post(expire_verify_tickets))
        .route("/sandbox/authorise", post(authorise))
        .route("/sandbox/withdraw", post(withdraw))
        .fallback(|| async { (StatusCode::NOT_FOUND, "not in this sandbox; GET / lists what is\n") })
}

type ControlParams = Query<HashMap<String, String>>;
type ControlResult = Result<Response, ControlError>;

/// Why a control call was refused.
enum ControlError {
    BadBody(String),
    NoSuchApp,
}

impl IntoResponse for ControlError {
    fn into_response(self) -> Response {
        let (status, why) = match self {
            ControlError::BadBody(why) => (StatusCode::BAD_REQUEST, why),
            ControlError::NoSuchApp => (StatusCode::NOT_FOUND, "no such app; GET /sandbox/apps lists them".to_owned()),
        };
        (status, format!("{why}\n")).into_response()
    }
}

async fn apps(State(shared): State<Arc<SandboxState>>) -> Response {
    super::http::json(shared.with_locked(|inner| inner.world.describe(Now::read())))
}

async fn calls(State(shared): State<Arc<SandboxState>>, Query(params): ControlParams) -> Response {
    match params.get("appid") {
        Some(appid) => super::http::json(shared.calls(appid)),
        None => super::http::json(shared.all_calls()),
    }
}

async fn judge(State(shared): State<Arc<SandboxState>>, Query(params): ControlParams) -> Response {
    let token = params.get("token").map_or("", String::as_str);
    super::http::json(json!({ "verdict": shared.with_locked(|inner| inner.world.judge(token, Now::read())) }))
}

async fn faults(State(shared): State<Arc<SandboxState>>, Query(params): ControlParams) -> Response {
    let appid = params.get("appid").map_or(ALL_APPS, String::as_str);
    super::http::json(shared.with_locked(|inner| inner.faults.faults_of(appid).to_vec()))
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct SetFault {
    appid: String,
    fault: Value,
    /// Add to the faults already set instead of replacing them.
    #[serde(default)]
    add: bool,
}

async fn set_fault(State(shared): State<Arc<SandboxState>>, body: Bytes) -> ControlResult {
    let request: SetFault = parse(&body)?;
    let fault = parse_fault(request.fault)?;
    if request.appid != ALL_APPS && !shared.with_locked(|inner| inner.world.knows(&request.appid)) {
        return Err(ControlError::NoSuchApp);
    }
    shared.with_locked(|inner| match request.add {
        true => inner.faults.add(&request.appid, fault),
        false => inner.faults.set(&request.appid, fault),
    });
    done(true)
}

async fn clear_fault(State(shared): State<Arc<SandboxState>>, Query(params): ControlParams) -> ControlResult {
    let appid = params.get("appid").map_or(ALL_APPS, String::as_str);
    shared.with_locked(|inner| inner.faults.clear(appid));
    done(true)
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Kill {
    appid: String,
    /// The token endpoint goes on giving the dead token.
    #[serde(default)]
    unnoticed: bool,
}

async fn kill(State(shared): State<Arc<SandboxState>>, body: Bytes) -> ControlResult {
    let Kill { appid, unnoticed } = parse(&body)?;
    change_app(&shared, |world| if unnoticed { world.kill_tokens_unnoticed(&appid) } else { world.kill_tokens(&appid) })
}

async fn roll(State(shared): State<Arc<SandboxState>>, body: Bytes) -> ControlResult {
    let AppidBody { appid } = parse(&body)?;
    change_app(&shared, |world| world.roll_tickets(&appid))
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Allowlist {
    appid: String,
    /// `null` allows every address.
    ips: Option<Vec<IpAddr>>,
}

async fn allowlist(State(shared): State<Arc<SandboxState>>, body: Bytes) -> ControlResult {
    let Allowlist { appid, ips } = parse(&body)?;
    change_app(&shared, |world| world.set_allowlist(&appid, ips))
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Freeze {
    appid: String,
    frozen: bool,
}

async fn freeze(State(shared): State<Arc<SandboxState>>, body: Bytes) -> ControlResult {
    let Freeze { appid, frozen } = parse(&body)?;
    change_app(&shared, |world| world.freeze_secret(&appid, frozen))
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct SetSecret {
    appid: String,
    secret: String,
}

async fn secret(State(shared): State<Arc<SandboxState>>, body: Bytes) -> ControlResult {
    let SetSecret { appid, secret } = parse(&body)?;
    change_app(&shared, |world| world.set_secret(&appid, &secret))
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct AppidBody {
    appid: String,
}

async fn push_verify_ticket(State(shared): State<Arc<SandboxState>>, body: Bytes) -> ControlResult {
    let AppidBody { appid } = parse(&body)?;
    let ticket = shared.with_locked(|inner| inner.world.push_verify_ticket(&appid, Now::read()));
    Ok(super::http::json(json!({ "component_verify_ticket": ticket.ok_or(ControlError::NoSuchApp)? })))
}

async fn expire_verify_tickets(State(shared): State<Arc<SandboxState>>, body: Bytes) -> ControlResult {
    let AppidBody { appid } = parse(&body)?;
    change_app(&shared, |world| world.expire_verify_tickets(&appid))
}

async fn authorise(State(shared): State<Arc<SandboxState>>, body: Bytes) -> ControlResult {
    let AppidBody { appid } = parse(&body)?;
    let refresh_token = shared.with_locked(|inner| inner.world.authorise(&appid));
    Ok(super::http::json(json!({ "authorizer_refresh_token": refresh_token.ok_or(ControlError::NoSuchApp)? })))
}

async fn withdraw(State(shared): State<Arc<SandboxState>>, body: Bytes) -> ControlResult {
    let AppidBody { appid } = parse(&body)?;
    change_app(&shared, |world| world.withdraw(&appid))
}

fn change_app(shared: &SandboxState, change: impl FnOnce(&mut World) -> bool) -> ControlResult {
    done(shared.with_locked(|inner| change(&mut inner.world)))
}

fn done(found: bool) -> ControlResult {
    if found { Ok(super::http::json(json!({ "ok": true }))) } else { Err(ControlError::NoSuchApp) }
}

/// JSON whatever the Content-Type says: `curl -d` says it is a form.
fn parse<T: DeserializeOwned>(body: &[u8]) -> Result<T, ControlError> {
    serde_json::from_slice(body).map_err(|error| ControlError::BadBody(format!("the body is not as expected: {error}")))
}

/// A fault. Unknown names are refused: with a misspelt `times` the fault would stay for ever.
fn parse_fault(given: Value) -> Result<InjectedFault, ControlError> {
    let bad_body = |why: String| ControlError::BadBody(format!("the fault is not as expected: {why}"));
    let fault: InjectedFault = serde_json::from_value(given.clone()).map_err(|error| bad_body(error.to_string()))?;
    let known = serde_json::to_value(&fault).map_err(|error| bad_body(error.to_string()))?;
    let unknown = given
        .as_object()
        .into_iter()
        .flatten()
        .find(|(name, value)| known.get(name.as_str()).is_none() && !value.is_null());
    match unknown {
        Some((name, _)) => Err(bad_body(format!("unknown member \"{name}\""))),
        None => Ok(fault),
    }
}

fn page(base_url: &str) -> String {
    format!(
        r#"This is a sandbox: it answers like WeChat's token API, and nothing here reaches WeChat.

  curl -s '{base_url}/sandbox/apps'                the accounts it knows, with their live tokens
  curl -s '{base_url}/cgi-bin/token?grant_type=client_credential&appid=APPID&secret=SECRET'
  curl -s '{base_url}/cgi-bin/stable_token' -d '{{"grant_type":"client_credential","appid":"APPID","secret":"SECRET"}}'
  curl -s '{base_url}/cgi-bin/ticket/getticket?type=jsapi&access_token=TOKEN'
  curl -s '{base_url}/cgi-bin/get_api_domain_ip?access_token=TOKEN'
  curl -s '{base_url}/cgi-bin/gettoken?corpid=CORPID&corpsecret=SECRET'
  curl -s '{base_url}/api/getToken?grant_type=client_credential&appid=APPID&secret=SECRET'                      QQ
  curl -s '{base_url}/open-apis/auth/v3/tenant_access_token/internal' -d '{{"app_id":"APPID","app_secret":"SECRET"}}'   Feishu

What it has seen, and what it thinks of a token:
  curl -s '{base_url}/sandbox/calls?appid=APPID'
  curl -s '{base_url}/sandbox/judge?token=TOKEN'

Make it misbehave ("*" instead of APPID means every app), and behave again:
  curl -s '{base_url}/sandbox/fault' -d '{{"appid":"APPID","fault":{{"kind":"errcode","errcode":-1,"errmsg":"system busy","times":3}}}}'
  curl -s -X DELETE '{base_url}/sandbox/fault?appid=APPID'
  kinds: errcode status html cut truncated_json hang drip reset huge empty raw expires_in delay

Change the account:
  curl -s '{base_url}/sandbox/kill' -d '{{"appid":"APPID"}}'                            its tokens stop working
  curl -s '{base_url}/sandbox/roll' -d '{{"appid":"APPID"}}'                            its tickets change
  curl -s '{base_url}/sandbox/allowlist' -d '{{"appid":"APPID","ips":["192.0.2.1"]}}'   null allows all
  curl -s '{base_url}/sandbox/freeze' -d '{{"appid":"APPID","frozen":true}}'
  curl -s '{base_url}/sandbox/secret' -d '{{"appid":"APPID","secret":"NEW"}}'
  curl -s '{base_url}/sandbox/verify_ticket' -d '{{"appid":"COMPONENT"}}'               what WeChat would push to it
  curl -s '{base_url}/sandbox/expire_verify_tickets' -d '{{"appid":"COMPONENT"}}'
  curl -s '{base_url}/sandbox/authorise' -d '{{"appid":"AUTHORIZER"}}'                  a new refresh token
  curl -s '{base_url}/sandbox/withdraw' -d '{{"appid":"AUTHORIZER"}}'
"#
    )
}
