//! `/livez` and `/readyz`, for whoever starts and stops servers.
//!
//! Liveness never looks at WeChat: a server without a token must not be killed for it. A server whose refresher stands
//! still must: it will not renew anything again.

use std::sync::atomic::Ordering::Relaxed;

use axum::Json;
use axum::extract::{Extension, State};
use axum::http::{StatusCode, Uri};
use serde_json::{Value, json};

use super::api::{Asker, Shared};
use super::parts::Parts;
use super::problem::Problem;
use super::query::Params;
use crate::clock;
use crate::credential::table::Reading;

/// The refresher's loop comes round every few seconds. If it has not for this long, something holds it.
const REFRESHER_SILENT_MS_MAX: u64 = 20_000;

/// `GET /livez`: the HTTP port answers, and the refresher runs.
pub async fn live(State(parts): Shared, uri: Uri) -> Result<(StatusCode, Json<Value>), Problem> {
    Params::of(&uri, &[])?;
    let heartbeat_ms = parts.table().heartbeat_ms.load(Relaxed);
    let silent_ms = clock::monotonic_ms().saturating_sub(heartbeat_ms);
    if heartbeat_ms > 0 && silent_ms > REFRESHER_SILENT_MS_MAX {
        return Ok((StatusCode::SERVICE_UNAVAILABLE, Json(json!({ "status": "the refresher stands still" }))));
    }
    Ok((StatusCode::OK, Json(json!({ "status": "ok" }))))
}

/// `GET /readyz`: every configured credential has a live value, or is named to whoever may see it.
pub async fn ready(
    State(parts): Shared,
    Extension(visitor): Asker,
    uri: Uri,
) -> Result<(StatusCode, Json<Value>), Problem> {
    Params::of(&uri, &[])?;
    let missing = missing(&parts);
    if missing.is_empty() {
        return Ok((StatusCode::OK, Json(json!({ "status": "ready" }))));
    }
    let mut body = json!({ "status": "not ready" });
    if visitor.rights.status() {
        body["not_live"] = json!(missing);
    }
    Ok((StatusCode::SERVICE_UNAVAILABLE, Json(body)))
}

fn missing(parts: &Parts) -> Vec<Value> {
    let now_ms = clock::boot_ms();
    let dead = parts.table().credentials().iter().filter(|of| !matches!(of.read(now_ms), Reading::Live(_)));
    let named = dead.map(|credential| {
        let state = credential.status(now_ms).state.name();
        json!({ "app": credential.app(), "kind": credential.about().kind, "state": state })
    });
    named.collect()
}
