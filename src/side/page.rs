//! The status page: files in the binary, nothing from elsewhere. They hold no data, so anybody may have them.

use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};

use super::problem::Problem;
use crate::secret::fingerprint;

/// Path, content type, content.
const FILES: &[(&str, &str, &[u8])] = &[("/", "text/html; charset=utf-8", include_bytes!("page/index.html"))];

/// The file of that path. Asked for again, it is sent only if it has changed.
pub fn file(path: &str, headers: &HeaderMap) -> Result<Response, Problem> {
    let (_, kind, content) = FILES.iter().find(|(known, ..)| *known == path).ok_or_else(Problem::not_found)?;
    let tag = HeaderValue::try_from(format!("\"{}\"", fingerprint(content))).map_err(|_| Problem::not_found())?;
    let known = headers.get(header::IF_NONE_MATCH) == Some(&tag);
    let mut response = if known { StatusCode::NOT_MODIFIED.into_response() } else { (*content).into_response() };
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(kind));
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-cache"));
    headers.insert(header::ETAG, tag);
    Ok(response)
}
