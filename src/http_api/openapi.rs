//! The description of the API in OpenAPI 3.1. `tests/it/http_api/openapi.rs` compares the server with it.

use axum::http::header;
use axum::response::{IntoResponse, Response};

use super::call::HttpApiCall;
use super::problem::Problem;

const DESCRIPTION: &str = include_str!("openapi.json");

/// `GET /v1/openapi.json`. It says nothing about this server, so anybody may read it.
pub async fn description(call: HttpApiCall) -> Result<Response, Problem> {
    call.params(&[])?;
    Ok(([(header::CONTENT_TYPE, "application/json")], DESCRIPTION).into_response())
}
