//! Errors of the HTTP API, as problem details (RFC 9457): whose fault it is and what to do.
//!
//! Never quotes what came from a client.

use std::borrow::Cow;

use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde_json::json;

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    pub status: StatusCode,
    /// The name of the error, for programs; `docs/en/http-api.md` lists them.
    pub name: &'static str,
    pub detail: Cow<'static, str>,
    /// The seconds after which another try may help.
    pub retry_after_s: Option<u64>,
}

impl Problem {
    pub fn new(status: StatusCode, name: &'static str, detail: impl Into<Cow<'static, str>>) -> Problem {
        Problem { status, name, detail: detail.into(), retry_after_s: None }
    }

    /// All there is of something is in use.
    pub fn busy(detail: &'static str, retry_after_s: u64) -> Problem {
        Problem::new(StatusCode::SERVICE_UNAVAILABLE, "busy", detail).retry_after(retry_after_s)
    }

    pub fn retry_after(self, seconds: u64) -> Problem {
        Problem { retry_after_s: Some(seconds), ..self }
    }

    pub fn bad(detail: impl Into<Cow<'static, str>>) -> Problem {
        Problem::new(StatusCode::BAD_REQUEST, "bad-request", detail)
    }

    /// What a client may not see is said not to exist.
    pub fn not_found() -> Problem {
        Problem::new(StatusCode::NOT_FOUND, "not-found", "there is nothing here, or it may not be seen with this key")
    }

    pub fn no_key() -> Problem {
        let detail = "a key is needed: send it as Authorization: Bearer, or log in on the page";
        Problem::new(StatusCode::UNAUTHORIZED, "key-needed", detail)
    }

    pub fn wrong_key() -> Problem {
        Problem::new(StatusCode::UNAUTHORIZED, "key-unknown", "this key is not in the keys' file")
    }

    pub fn forbidden(detail: &'static str) -> Problem {
        Problem::new(StatusCode::FORBIDDEN, "forbidden", detail)
    }

    pub fn too_often(retry_after_s: u64) -> Problem {
        Problem::new(StatusCode::TOO_MANY_REQUESTS, "too-many-requests", "ask less often").retry_after(retry_after_s)
    }
}

impl IntoResponse for Problem {
    fn into_response(self) -> Response {
        let body = json!({
            "type": format!("urn:tokencached:problem:{}", self.name),
            "title": self.status.canonical_reason().unwrap_or("Error"),
            "status": self.status.as_u16(),
            "detail": self.detail,
        });
        let content_type = [(header::CONTENT_TYPE, "application/problem+json")];
        let retry_after = self.retry_after_s.map(|seconds| [(header::RETRY_AFTER, HeaderValue::from(seconds))]);
        let scheme = [(header::WWW_AUTHENTICATE, "Bearer realm=\"tokencached\"")];
        let scheme = (self.status == StatusCode::UNAUTHORIZED).then_some(scheme);
        (self.status, content_type, retry_after, scheme, body.to_string()).into_response()
    }
}
