//! The description of the API, in OpenAPI 3.1; `tests/it/side` holds the server to it.

use axum::http::{HeaderValue, Uri, header};
use axum::response::{IntoResponse, Response};

use super::problem::Problem;
use super::query::QueryParams;

const DESCRIPTION: &str = include_str!("openapi.json");

/// `GET /v1/openapi.json`. It tells nothing about this server, so anybody may have it.
pub async fn description(uri: Uri) -> Result<Response, Problem> {
    QueryParams::of(&uri, &[])?;
    let mut response = DESCRIPTION.into_response();
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
    Ok(response)
}
