//! The description of the API in OpenAPI 3.1. `tests/it/http_api/openapi.rs` compares the server with it.

use axum::http::{HeaderValue, Uri, header};
use axum::response::{IntoResponse, Response};

use super::problem::Problem;
use super::query::QueryParams;

const DESCRIPTION: &str = include_str!("openapi.json");

/// `GET /v1/openapi.json`. It says nothing about this server, so anybody may read it.
pub async fn description(uri: Uri) -> Result<Response, Problem> {
    QueryParams::of(&uri, &[])?;
    let mut response = DESCRIPTION.into_response();
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
    Ok(response)
}
