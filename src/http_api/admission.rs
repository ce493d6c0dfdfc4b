//! What happens to a request before its handler: who sends it, its body, a slot for its answer. Also the headers of every
//! answer.

use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::extract::{Extension, Request, State};
use axum::http::request::Parts as Head;
use axum::http::{HeaderName, HeaderValue, StatusCode, header};
use axum::middleware::{Next, from_fn_with_state};
use axum::response::{IntoResponse, Response};
use http_body_util::{BodyExt, LengthLimitError, Limited};
use tower_http::set_header::SetResponseHeaderLayer;

use super::access_control::{self, ConnectionAddresses};
use super::call::ContextExtractor;
use super::connections::{ConnectionSlot, RequestCost};
use super::context::ApiContext;
use super::problem::Problem;
use super::wechat;
use crate::clock;

/// A request's body must be complete after this time.
const BODY_TIMEOUT: Duration = Duration::from_secs(10);
/// The largest body that is read, bytes. No body needs more than a token and some names.
const BODY_BYTES_MAX: usize = 16 * 1024;

const CSP: &str = "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; connect-src 'self'; \
     form-action 'self'; base-uri 'none'; frame-ancestors 'none'";

#[derive(Clone)]
pub struct RequestConnection {
    pub addresses: ConnectionAddresses,
    pub slot: Arc<ConnectionSlot>,
}

/// The router behind what every request and every answer passes.
pub fn admit_all(router: Router, context: Arc<ApiContext>) -> Router {
    let set = |name, value| {
        SetResponseHeaderLayer::overriding(HeaderName::from_static(name), HeaderValue::from_static(value))
    };
    // `Strict-Transport-Security` is not among them: it would apply to all ports of the host. Around the router as a whole:
    // inside it, axum would tell the methods of a path (`Allow`) to those who are refused, too.
    Router::new().fallback_service(router).layer((
        SetResponseHeaderLayer::if_not_present(header::CACHE_CONTROL, HeaderValue::from_static("no-store")),
        set("permissions-policy", "camera=(), geolocation=(), microphone=()"),
        set("cross-origin-resource-policy", "same-origin"),
        set("cross-origin-opener-policy", "same-origin"),
        set("referrer-policy", "no-referrer"),
        set("x-frame-options", "DENY"),
        set("x-content-type-options", "nosniff"),
        set("content-security-policy", CSP),
        from_fn_with_state(context, admit),
    ))
}

async fn admit(
    State(context): ContextExtractor,
    Extension(connection): Extension<RequestConnection>,
    request: Request,
    next: Next,
) -> Response {
    let for_wechat = wechat::is_wechat_path(request.uri().path());
    let mut response = match handle(&context, &connection, request, next).await {
        Ok(response) => response,
        Err(problem) if for_wechat => wechat::from_problem(&problem),
        Err(problem) => problem.into_response(),
    };
    if connection.slot.connection.is_reserved() {
        response.headers_mut().insert(header::CONNECTION, HeaderValue::from_static("close"));
    }
    response
}

async fn handle(
    context: &ApiContext,
    connection: &RequestConnection,
    request: Request,
    next: Next,
) -> Result<Response, Problem> {
    let (mut head, body) = request.into_parts();
    let caller = context.reload_handle.access_control.admit(&head, &connection.addresses, clock::boot_ms())?;
    let cost = cost(&head);
    // A health check does not wait for a body: one that does not come would keep the slot.
    let body = if cost == RequestCost::Health { Body::empty() } else { read_body(body).await? };
    let answering = connection.slot.begin_answer(cost).ok_or_else(no_slot_problem)?;
    head.extensions.insert(Arc::new(caller));
    let response = next.run(Request::from_parts(head, body)).await;
    // Until all of the answer has been sent, the connection counts as busy: the guard goes with the body.
    Ok(response.map(|body| {
        Body::new(body.map_err(move |error| {
            let _held = &answering;
            error
        }))
    }))
}

fn cost(head: &Head) -> RequestCost {
    match head.uri.path() {
        _ if access_control::is_bare_health(head) => RequestCost::Health,
        "/metrics" => RequestCost::Short,
        path if wechat::is_wechat_path(path) => RequestCost::Short,
        _ => RequestCost::Other,
    }
}

fn no_slot_problem() -> Problem {
    let detail = "all connections are being answered; see max_connections and max_connections_per_peer under [http]";
    Problem::busy(detail, 1)
}

/// The body, if it is small enough and comes in time.
async fn read_body(body: Body) -> Result<Body, Problem> {
    match tokio::time::timeout(BODY_TIMEOUT, Limited::new(body, BODY_BYTES_MAX).collect()).await {
        Ok(Ok(collected)) => Ok(Body::from(collected.to_bytes())),
        Ok(Err(error)) if error.is::<LengthLimitError>() => Err(Problem::new(
            StatusCode::PAYLOAD_TOO_LARGE,
            "too-large",
            "the body is larger than any that is known here",
        )),
        Ok(Err(_)) => Err(Problem::bad("the body ended before its time")),
        Err(_) => Err(Problem::new(StatusCode::REQUEST_TIMEOUT, "too-slow", "the body did not come in time")),
    }
}
