//! Which handler answers which path. Any other path gets a problem like other errors.

use std::sync::Arc;

use axum::Router;
use axum::http::{HeaderMap, Method, StatusCode, Uri, header};
use axum::response::{IntoResponse, Response};
use axum::routing::{MethodRouter, get, post};

use super::context::ApiContext;
use super::problem::Problem;
use super::{admission, api, credentials, health, jssdk, metrics, page, wechat};

type Route = MethodRouter<Arc<ApiContext>>;

pub fn build(context: Arc<ApiContext>) -> Router {
    let refusing = |route: Route, methods: &'static str| route.fallback(async move || wrong_method(methods));
    let read = |route| refusing(route, "GET, HEAD");
    let act = |route| refusing(route, "POST");
    let health = |route| refusing(route, "GET, HEAD, OPTIONS");
    // WeChat's own calls.
    let by_get = |route: Route| route.fallback(wechat::require_get);
    let by_post = |route: Route| route.fallback(wechat::require_post);
    let router = Router::new()
        .route("/v1/status", read(get(api::get_status)))
        .route("/v1/events", read(get(api::get_events)))
        .route("/v1/journal", read(get(api::get_journal)))
        .route("/v1/session", read(get(api::get_session)))
        .route("/v1/apps", read(get(api::get_apps)))
        .route("/v1/apps/{app}", read(get(api::get_app)))
        .route("/v1/apps/{app}/credentials/{type}", read(get(api::get_credential)))
        .route("/v1/apps/{app}/credentials/{type}/refresh", act(post(api::refresh)))
        .route("/v1/apps/{app}/credentials/{type}/probe", act(post(api::probe)))
        .route("/v1/credentials", read(get(credentials::get_credentials)))
        .route("/v1/apps/{app}/jssdk", read(get(jssdk::sign)))
        .route("/v1/openapi.json", read(get(api::get_description)))
        // Load balancers also use OPTIONS.
        .route("/livez", health(get(health::get_livez).options(health::get_livez)))
        .route("/readyz", health(get(health::get_readyz).options(health::get_readyz)))
        .route("/metrics", read(get(metrics::scrape)))
        .route("/cgi-bin/token", by_get(get(wechat::token).post(wechat::token)))
        .route("/cgi-bin/stable_token", by_post(post(wechat::stable_token)))
        .route("/cgi-bin/gettoken", by_get(get(wechat::gettoken)))
        .route("/cgi-bin/ticket/getticket", by_get(get(wechat::getticket)))
        .route("/cgi-bin/get_jsapi_ticket", by_get(get(wechat::get_jsapi_ticket)))
        .route("/cgi-bin/ticket/get", by_get(get(wechat::agent_ticket)))
        .route("/login", act(post(api::log_in)))
        .route("/logout", act(post(api::log_out)))
        .fallback(file)
        .with_state(context.clone());
    admission::admit_all(router, context)
}

async fn file(method: Method, uri: Uri, headers: HeaderMap) -> Result<Response, Problem> {
    if wechat::is_wechat_path(uri.path()) {
        return Ok(wechat::unknown_call().into_response());
    }
    match method {
        Method::GET | Method::HEAD => page::file(uri.path(), &headers),
        _ => Err(Problem::not_found()),
    }
}

fn wrong_method(methods: &'static str) -> Response {
    let detail = "this is asked for in another way";
    let problem = Problem::new(StatusCode::METHOD_NOT_ALLOWED, "method-not-allowed", detail);
    ([(header::ALLOW, methods)], problem).into_response()
}
