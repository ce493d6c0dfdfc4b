//! The API's routes: an HTTP request becomes an [`ApiRequest`], its answer an HTTP response. HTTP status 200 also on errcodes.

use std::collections::HashMap;
use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use axum::body::{Body, Bytes};
use axum::extract::{Extension, Query, State};
use axum::http::{StatusCode, Uri, header};
use axum::response::{IntoResponse, Response};
use axum::routing::{MethodRouter, get, post};
use axum::{Json, Router};
use serde_json::Value;

use super::fault::{FaultKind, InjectedFault, Reply};
use super::rules::{ApiRequest, Endpoint, Refusal};
use super::server::Line;
use super::state::Shared;

/// Routes of all platforms' APIs; their paths do not clash.
pub(super) fn routes() -> Router<Arc<Shared>> {
    Router::new()
        .route("/cgi-bin/token", by_query_or_post(Endpoint::Token, classic))
        .route("/cgi-bin/stable_token", by_body(Endpoint::StableToken, stable))
        .route("/cgi-bin/gettoken", by_query(Endpoint::Gettoken, wecom))
        .route("/api/getToken", by_query(Endpoint::QqToken, qq))
        .route("/open-apis/auth/v3/tenant_access_token/internal", by_body(Endpoint::FeishuToken, feishu))
        .route("/cgi-bin/component/api_component_token", by_body(Endpoint::ComponentToken, component))
        .route("/cgi-bin/component/api_authorizer_token", by_body(Endpoint::AuthorizerToken, authorizer))
        .route("/cgi-bin/ticket/getticket", by_query(Endpoint::Ticket, ticket))
        .route(
            "/cgi-bin/get_jsapi_ticket",
            by_query(Endpoint::Ticket, |q| ApiRequest::CorpTicket { token: q.take(TOKEN) }),
        )
        .route("/cgi-bin/ticket/get", by_query(Endpoint::Ticket, agent_ticket))
        .route(
            "/cgi-bin/get_api_domain_ip",
            by_query(Endpoint::GetApiDomainIp, |q| ApiRequest::DomainIp { token: q.take(TOKEN) }),
        )
        .route("/cgi-bin/menu/get", by_query(Endpoint::MenuGet, |q| ApiRequest::Menu { token: q.take(TOKEN) }))
        .route("/cgi-bin/clear_quota/v2", by_body(Endpoint::ClearQuota, clear_quota))
}

const TOKEN: &str = "access_token";

/// Parameters of a call; an empty one counts as absent, as it does at WeChat.
struct Params(HashMap<String, String>);

impl Params {
    fn take(&mut self, name: &str) -> Option<String> {
        self.0.remove(name).filter(|value| !value.is_empty())
    }
}

fn classic(params: &mut Params) -> ApiRequest {
    ApiRequest::Classic {
        grant_type: params.take("grant_type"),
        appid: params.take("appid"),
        secret: params.take("secret"),
    }
}

fn wecom(params: &mut Params) -> ApiRequest {
    ApiRequest::Wecom { corpid: params.take("corpid"), secret: params.take("corpsecret") }
}

fn qq(params: &mut Params) -> ApiRequest {
    ApiRequest::Qq { grant_type: params.take("grant_type"), appid: params.take("appid"), secret: params.take("secret") }
}

fn feishu(_query: Params, body: &[u8]) -> ApiRequest {
    let Ok(json) = serde_json::from_slice::<Value>(body) else {
        return malformed(Endpoint::FeishuToken, 9499, "Bad Request");
    };
    let mut params = Params::from_json(&json);
    ApiRequest::Feishu { app_id: params.take("app_id"), secret: params.take("app_secret") }
}

fn ticket(params: &mut Params) -> ApiRequest {
    ApiRequest::Ticket { token: params.take(TOKEN), kind: params.take("type") }
}

fn agent_ticket(params: &mut Params) -> ApiRequest {
    ApiRequest::AgentTicket { token: params.take(TOKEN), kind: params.take("type") }
}

fn stable(_query: Params, body: &[u8]) -> ApiRequest {
    let Ok(json) = serde_json::from_slice::<Value>(body) else {
        return malformed(Endpoint::StableToken, 47001, "data format error");
    };
    let mut params = Params::from_json(&json);
    ApiRequest::Stable {
        grant_type: params.take("grant_type"),
        appid: params.take("appid"),
        secret: params.take("secret"),
        force: json.get("force_refresh").and_then(Value::as_bool).unwrap_or(false),
    }
}

fn component(_query: Params, body: &[u8]) -> ApiRequest {
    let Ok(json) = serde_json::from_slice::<Value>(body) else {
        return malformed(Endpoint::ComponentToken, 47001, "data format error");
    };
    let mut params = Params::from_json(&json);
    ApiRequest::Component {
        appid: params.take("component_appid"),
        secret: params.take("component_appsecret"),
        ticket: params.take("component_verify_ticket"),
    }
}

fn authorizer(mut query: Params, body: &[u8]) -> ApiRequest {
    let Ok(json) = serde_json::from_slice::<Value>(body) else {
        return malformed(Endpoint::AuthorizerToken, 47001, "data format error");
    };
    let mut params = Params::from_json(&json);
    ApiRequest::Authorizer {
        token: query.take("component_access_token"),
        component: params.take("component_appid"),
        appid: params.take("authorizer_appid"),
        refresh: params.take("authorizer_refresh_token"),
    }
}

/// Clients send its two parameters in the query, as a form or as JSON; all are taken.
fn clear_quota(mut params: Params, body: &[u8]) -> ApiRequest {
    if let Ok(json) = serde_json::from_slice::<Value>(body) {
        params.0.extend(Params::from_json(&json).0);
    } else {
        let form = String::from_utf8_lossy(body);
        params.0.extend(form.split('&').filter_map(|pair| pair.split_once('=')).map(|(k, v)| (k.into(), v.into())));
    }
    ApiRequest::ClearQuota { appid: params.take("appid"), secret: params.take("appsecret") }
}

impl Params {
    /// The text members of a JSON object; nothing of any other value.
    fn from_json(json: &Value) -> Params {
        let members = json.as_object().into_iter().flatten();
        Params(members.filter_map(|(name, value)| Some((name.clone(), value.as_str()?.to_owned()))).collect())
    }
}

fn malformed(endpoint: Endpoint, errcode: i64, text: &str) -> ApiRequest {
    ApiRequest::Malformed { endpoint, refusal: Refusal::new(errcode, text) }
}

/// A GET call with its parameters in the query; any other method is 43001.
fn by_query(endpoint: Endpoint, parse: fn(&mut Params) -> ApiRequest) -> MethodRouter<Arc<Shared>> {
    get(move |State(shared): State<Arc<Shared>>, Extension(line): Extension<Line>, uri: Uri| async move {
        serve(shared, line, parse(&mut params_of(&uri))).await
    })
    .fallback(move |State(shared): State<Arc<Shared>>, Extension(line): Extension<Line>| async move {
        serve(shared, line, malformed(endpoint, 43001, "require GET method")).await
    })
}

/// The same, by GET or by POST: the body of the latter is not looked at.
fn by_query_or_post(endpoint: Endpoint, parse: fn(&mut Params) -> ApiRequest) -> MethodRouter<Arc<Shared>> {
    by_query(endpoint, parse).post(
        move |State(shared): State<Arc<Shared>>, Extension(line): Extension<Line>, uri: Uri| async move {
            serve(shared, line, parse(&mut params_of(&uri))).await
        },
    )
}

/// A POST call with its parameters in the body; any other method is 43002.
fn by_body(endpoint: Endpoint, parse: fn(Params, &[u8]) -> ApiRequest) -> MethodRouter<Arc<Shared>> {
    post(move |State(shared): State<Arc<Shared>>, Extension(line): Extension<Line>, uri: Uri, body: Bytes| async move {
        serve(shared, line, parse(params_of(&uri), &body)).await
    })
    .fallback(move |State(shared): State<Arc<Shared>>, Extension(line): Extension<Line>| async move {
        serve(shared, line, malformed(endpoint, 43002, "require POST method")).await
    })
}

fn params_of(uri: &Uri) -> Params {
    Params(Query::try_from_uri(uri).map(|Query(map)| map).unwrap_or_default())
}

/// One call from arrival to answer.
async fn serve(shared: Arc<Shared>, line: Line, ask: ApiRequest) -> Response {
    let (_flight, fate) = shared.arrive(&ask, &line);
    let reply = match fate {
        Ok(answer) => Reply::from_answer(&answer),
        Err(fault) => misbehave(&shared, &line, &ask, &fault).await,
    };
    match reply {
        Reply::Http { status, content_type, body } => response(status, &content_type, body),
        Reply::Wire(wire) => never(line.take_over(wire).await),
        Reply::Hang => std::future::pending().await,
    }
}

async fn misbehave(shared: &Shared, line: &Line, ask: &ApiRequest, fault: &InjectedFault) -> Reply {
    let wait = match fault.kind {
        FaultKind::Delay { ms } => Duration::from_millis(ms),
        _ => Duration::ZERO,
    };
    if !fault.after_minting {
        tokio::time::sleep(wait).await;
    }
    let right = if fault.does_the_work() { shared.work(ask, line.peer) } else { shared.decoy(ask) };
    if fault.after_minting {
        tokio::time::sleep(wait).await;
    }
    fault.distort(&right)
}

fn response(status: u16, content_type: &str, body: Vec<u8>) -> Response {
    let built = Response::builder().status(status).header(header::CONTENT_TYPE, content_type).body(Body::from(body));
    // Only a fault with an impossible status or content type ends here.
    built.unwrap_or_else(|error| (StatusCode::INTERNAL_SERVER_ERROR, format!("fault: {error}\n")).into_response())
}

fn never(gone: Infallible) -> Response {
    match gone {}
}

/// Any value as a JSON answer.
pub(super) fn json<T: serde::Serialize>(value: T) -> Response {
    Json(value).into_response()
}
