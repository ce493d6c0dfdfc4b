//! `/livez` and `/readyz`, for load balancers and for whatever starts and stops servers.
//!
//! A server without a token must not be killed for it, and one that lacks one token of hundreds must not be taken out of
//! service. Such failures are for metrics and alerts, and for checks with `strict` or `app`. A server whose refresher
//! stands still must be killed: it will not renew anything again.

use std::sync::atomic::{AtomicBool, Ordering::Relaxed};

use axum::Json;
use axum::http::StatusCode;
use serde_json::{Value, json};

use super::access_control::Caller;
use super::call::HttpApiCall;
use super::old_fields::with_old_fields;
use super::problem::Problem;
use crate::clock::{self, BootMs};
use crate::credential::table::{Credential, Reading};

/// The refresher's loop runs every few seconds. If it has not for so long, it hangs.
const REFRESHER_SILENT_MS_MAX: u64 = 20_000;
/// After this time the server is ready, even if first fetches are still under way.
const FIRST_FETCHES_MAX_MS: u64 = 60_000;

/// Whether the server has become ready. It stays so.
pub struct Readiness {
    started_ms: BootMs,
    ready: AtomicBool,
}

impl Readiness {
    pub fn new(started_ms: BootMs) -> Readiness {
        Readiness { started_ms, ready: AtomicBool::new(false) }
    }

    /// Whether the server is ready by now. `all_settled` says whether each first fetch has ended, one way or the other.
    fn update(&self, now_ms: BootMs, all_settled: impl FnOnce() -> bool) -> bool {
        if self.ready.load(Relaxed) {
            return true;
        }
        let ready = now_ms.saturating_sub(self.started_ms) >= FIRST_FETCHES_MAX_MS || all_settled();
        if ready {
            self.ready.store(true, Relaxed);
        }
        ready
    }
}

type HealthResult = Result<(StatusCode, Json<Value>), Problem>;

/// `GET /livez`: the HTTP API answers, and the refresher runs.
pub async fn get_livez(call: HttpApiCall) -> HealthResult {
    call.params(&[])?;
    let heartbeat_ms = call.context.table().heartbeat_ms.load(Relaxed);
    let silent_ms = clock::monotonic_ms().saturating_sub(heartbeat_ms);
    if heartbeat_ms > 0 && silent_ms > REFRESHER_SILENT_MS_MAX {
        return Ok((StatusCode::SERVICE_UNAVAILABLE, Json(json!({ "status": "the refresher stands still" }))));
    }
    Ok((StatusCode::OK, Json(json!({ "status": "ok" }))))
}

/// `GET /readyz`: the server can be used. With `strict`: every configured credential has a live value. With `app`: every
/// credential of that app has one.
pub async fn get_readyz(call: HttpApiCall) -> HealthResult {
    let params = call.params(&["strict", "app"])?;
    let (context, caller) = (&*call.context, &*call.caller);
    let strict = params.switch("strict")?;
    let now_ms = clock::boot_ms();
    if let Some(app) = params.text("app") {
        caller.require_status()?;
        let app = call.app(app)?;
        return Ok(all_live(caller, app.credentials.iter().map(AsRef::as_ref), now_ms));
    }
    if strict {
        let credentials = context.table().credentials();
        return Ok(all_live(caller, credentials.iter().map(AsRef::as_ref), now_ms));
    }
    if context.shutdown.is_cancelled() {
        return Ok((StatusCode::SERVICE_UNAVAILABLE, Json(json!({ "status": "shutting down" }))));
    }
    let waiting = || context.table().credentials_that(|of| matches!(of.read(now_ms), Reading::FirstFetch));
    if context.readiness.update(now_ms, || waiting().is_empty()) {
        return Ok((StatusCode::OK, Json(json!({ "status": "ready" }))));
    }
    Ok(not_ready(caller, "first_fetch", waiting().iter().map(AsRef::as_ref), now_ms))
}

fn all_live<'c>(
    caller: &Caller,
    credentials: impl Iterator<Item = &'c Credential>,
    now_ms: BootMs,
) -> (StatusCode, Json<Value>) {
    let mut dead = credentials.filter(|of| !matches!(of.read(now_ms), Reading::Live(_))).peekable();
    if dead.peek().is_none() {
        return (StatusCode::OK, Json(json!({ "status": "ready" })));
    }
    not_ready(caller, "not_live", dead, now_ms)
}

/// Names the credentials that are not ready to callers that may see them.
fn not_ready<'c>(
    caller: &Caller,
    why: &str,
    lacking: impl Iterator<Item = &'c Credential>,
    now_ms: BootMs,
) -> (StatusCode, Json<Value>) {
    let mut body = json!({ "status": "not ready" });
    if caller.rights.status {
        let named = lacking.map(|credential| {
            let state = credential.status(now_ms).state.name();
            let shown = json!({ "app": credential.app(), "type": credential.about().credential_type, "state": state });
            with_old_fields(shown, &["kind"])
        });
        body[why] = named.collect();
    }
    (StatusCode::SERVICE_UNAVAILABLE, Json(body))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn once_ready_it_stays_so() {
        let readiness = Readiness::new(1_000);
        assert!(!readiness.update(2_000, || false));
        assert!(readiness.update(2_001, || true));
        assert!(readiness.update(2_002, || false), "one that fails later is no reason");
    }

    #[test]
    fn first_fetches_are_not_waited_for_for_ever() {
        let readiness = Readiness::new(1_000);
        assert!(!readiness.update(1_000 + FIRST_FETCHES_MAX_MS - 1, || false));
        assert!(readiness.update(1_000 + FIRST_FETCHES_MAX_MS, || false));
    }
}
