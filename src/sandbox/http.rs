//! The platforms' routes: an HTTP request becomes an [`ApiRequest`], its answer an HTTP response. An errcode comes with
//! status 200, as at WeChat. Never decides what the answer is.

use std::collections::HashMap;
use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use axum::body::{Body, Bytes};
use axum::extract::rejection::ExtensionRejection;
use axum::extract::{Extension, FromRequestParts, Query};
use axum::http::request::Parts;
use axum::http::{StatusCode, Uri, header};
use axum::response::{IntoResponse, Response};
use axum::routing::{MethodFilter, MethodRouter, on, post};
use axum::{Json, Router};
use serde_json::Value;

use super::calls::agent_name;
use super::fault::{FaultKind, InjectedFault, SandboxReply};
use super::rules::{ApiRequest, Endpoint, SandboxRefusal};
use super::server::CallerConnection;
use super::state::SandboxState;

/// Routes of all platforms' APIs; their paths do not clash.
pub(super) fn routes() -> Router<Arc<SandboxState>> {
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

/// The parameters of a call. An empty one counts as missing, as at WeChat.
struct CallParams(HashMap<String, String>);

impl CallParams {
    fn take(&mut self, name: &str) -> Option<String> {
        self.0.remove(name).filter(|value| !value.is_empty())
    }
}

fn classic(params: &mut CallParams) -> ApiRequest {
    ApiRequest::Classic {
        grant_type: params.take("grant_type"),
        appid: params.take("appid"),
        secret: params.take("secret"),
    }
}

fn wecom(params: &mut CallParams) -> ApiRequest {
    ApiRequest::Wecom { corpid: params.take("corpid"), secret: params.take("corpsecret") }
}

fn qq(params: &mut CallParams) -> ApiRequest {
    ApiRequest::Qq { grant_type: params.take("grant_type"), appid: params.take("appid"), secret: params.take("secret") }
}

fn feishu(_query: CallParams, body: &[u8]) -> ApiRequest {
    let Ok(json) = serde_json::from_slice::<Value>(body) else {
        return malformed(Endpoint::FeishuToken, 9499, "Bad Request");
    };
    let mut params = CallParams::from_json(&json);
    ApiRequest::Feishu { app_id: params.take("app_id"), secret: params.take("app_secret") }
}

fn ticket(params: &mut CallParams) -> ApiRequest {
    ApiRequest::Ticket { token: params.take(TOKEN), ticket_type: params.take("type") }
}

fn agent_ticket(params: &mut CallParams) -> ApiRequest {
    ApiRequest::AgentTicket { token: params.take(TOKEN), ticket_type: params.take("type") }
}

fn stable(_query: CallParams, body: &[u8]) -> ApiRequest {
    let Ok(json) = serde_json::from_slice::<Value>(body) else {
        return malformed(Endpoint::StableToken, 47001, "data format error");
    };
    let mut params = CallParams::from_json(&json);
    ApiRequest::Stable {
        grant_type: params.take("grant_type"),
        appid: params.take("appid"),
        secret: params.take("secret"),
        force: json.get("force_refresh").and_then(Value::as_bool).unwrap_or(false),
    }
}

fn component(_query: CallParams, body: &[u8]) -> ApiRequest {
    let Ok(json) = serde_json::from_slice::<Value>(body) else {
        return malformed(Endpoint::ComponentToken, 47001, "data format error");
    };
    let mut params = CallParams::from_json(&json);
    ApiRequest::Component {
        appid: params.take("component_appid"),
        secret: params.take("component_appsecret"),
        ticket: params.take("component_verify_ticket"),
    }
}

fn authorizer(mut query: CallParams, body: &[u8]) -> ApiRequest {
    let Ok(json) = serde_json::from_slice::<Value>(body) else {
        return malformed(Endpoint::AuthorizerToken, 47001, "data format error");
    };
    let mut params = CallParams::from_json(&json);
    ApiRequest::Authorizer {
        token: query.take("component_access_token"),
        component: params.take("component_appid"),
        appid: params.take("authorizer_appid"),
        refresh: params.take("authorizer_refresh_token"),
    }
}

/// Clients send its two parameters in the query, as a form or as JSON; all three are accepted.
fn clear_quota(mut params: CallParams, body: &[u8]) -> ApiRequest {
    if let Ok(json) = serde_json::from_slice::<Value>(body) {
        params.0.extend(CallParams::from_json(&json).0);
    } else {
        let form = String::from_utf8_lossy(body);
        params.0.extend(form.split('&').filter_map(|pair| pair.split_once('=')).map(|(k, v)| (k.into(), v.into())));
    }
    ApiRequest::ClearQuota { appid: params.take("appid"), secret: params.take("appsecret") }
}

impl CallParams {
    /// The strings of a JSON object; nothing of any other value.
    fn from_json(json: &Value) -> CallParams {
        let members = json.as_object().into_iter().flatten();
        CallParams(members.filter_map(|(name, value)| Some((name.clone(), value.as_str()?.to_owned()))).collect())
    }
}

fn malformed(endpoint: Endpoint, errcode: i64, text: &str) -> ApiRequest {
    ApiRequest::Malformed { endpoint, refusal: SandboxRefusal::new(errcode, text) }
}

/// A GET call with its parameters in the query; any other method is 43001.
fn by_query(endpoint: Endpoint, parse: fn(&mut CallParams) -> ApiRequest) -> MethodRouter<Arc<SandboxState>> {
    by_query_with(MethodFilter::GET, endpoint, parse)
}

/// The same by GET or by POST; a body is not read.
fn by_query_or_post(endpoint: Endpoint, parse: fn(&mut CallParams) -> ApiRequest) -> MethodRouter<Arc<SandboxState>> {
    by_query_with(MethodFilter::GET.or(MethodFilter::POST), endpoint, parse)
}

fn by_query_with(
    methods: MethodFilter,
    endpoint: Endpoint,
    parse: fn(&mut CallParams) -> ApiRequest,
) -> MethodRouter<Arc<SandboxState>> {
    on(methods, move |call: SandboxCall, uri: Uri| async move { call.answer(parse(&mut params_of(&uri))).await })
        .fallback(move |call: SandboxCall| async move {
            call.answer(malformed(endpoint, 43001, "require GET method")).await
        })
}

/// A POST call with its parameters in the body; any other method is 43002.
fn by_body(endpoint: Endpoint, parse: fn(CallParams, &[u8]) -> ApiRequest) -> MethodRouter<Arc<SandboxState>> {
    post(
        move |call: SandboxCall, uri: Uri, body: Bytes| async move { call.answer(parse(params_of(&uri), &body)).await },
    )
    .fallback(move |call: SandboxCall| async move {
        call.answer(malformed(endpoint, 43002, "require POST method")).await
    })
}

fn params_of(uri: &Uri) -> CallParams {
    CallParams(Query::try_from_uri(uri).map(|Query(map)| map).unwrap_or_default())
}

/// A call: the simulated platforms, who calls with which program, and the connection.
struct SandboxCall {
    shared: Arc<SandboxState>,
    caller: CallerConnection,
    agent: String,
}

impl FromRequestParts<Arc<SandboxState>> for SandboxCall {
    type Rejection = ExtensionRejection;

    async fn from_request_parts(
        head: &mut Parts,
        shared: &Arc<SandboxState>,
    ) -> Result<SandboxCall, ExtensionRejection> {
        let Extension(caller) = Extension::from_request_parts(head, shared).await?;
        let agent = head.headers.get(header::USER_AGENT).and_then(|value| value.to_str().ok()).map(agent_name);
        Ok(SandboxCall { shared: shared.clone(), caller, agent: agent.unwrap_or_default() })
    }
}

impl SandboxCall {
    async fn answer(self, ask: ApiRequest) -> Response {
        let SandboxCall { shared, caller, agent } = self;
        let (_open_call, result) = shared.begin_call(&ask, caller.peer, agent);
        let reply = match result {
            Ok(answer) => SandboxReply::from_answer(&answer),
            Err(fault) => answer_with_fault(&shared, &caller, &ask, &fault).await,
        };
        match reply {
            SandboxReply::Http { status, content_type, body } => response(status, &content_type, body),
            SandboxReply::Raw(raw) => never(caller.take_over(raw).await),
            SandboxReply::Hang => std::future::pending().await,
        }
    }
}

async fn answer_with_fault(
    shared: &SandboxState,
    caller: &CallerConnection,
    ask: &ApiRequest,
    fault: &InjectedFault,
) -> SandboxReply {
    let wait = match fault.kind {
        FaultKind::Delay { ms } => Duration::from_millis(ms),
        _ => Duration::ZERO,
    };
    if !fault.after_minting {
        tokio::time::sleep(wait).await;
    }
    let right =
        if fault.executes_call() { shared.execute(ask, caller.peer) } else { shared.answer_without_effect(ask) };
    if fault.after_minting {
        tokio::time::sleep(wait).await;
    }
    fault.apply(&right)
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
