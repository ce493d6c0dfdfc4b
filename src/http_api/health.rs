//! `/livez` and `/readyz`, for whoever starts and stops servers.
//!
//! Neither looks at WeChat for long: a server without a token must not be killed for it, nor one that lacks a token of
//! hundreds be taken out of service. Single failures are for metrics and alerts, and for those who ask by `strict` or
//! `app`. A server whose refresher stands still must be killed: it will not renew anything again.

use std::sync::atomic::{AtomicBool, Ordering::Relaxed};

use axum::Json;
use axum::extract::{Extension, State};
use axum::http::{StatusCode, Uri};
use serde_json::{Value, json};

use super::api::{Asker, Shared, seen};
use super::gate::Visitor;
use super::problem::Problem;
use super::query::Params;
use crate::clock::{self, BootMs};
use crate::credential::table::{Credential, Reading};

/// The refresher's loop comes round every few seconds. If it has not for this long, something holds it.
const REFRESHER_SILENT_MS_MAX: u64 = 20_000;
/// By then the server is ready, whatever first fetches are still under way.
const FIRST_FETCHES_MAX_MS: u64 = 60_000;

/// Whether the server has got going. Once it has, it stays so.
pub struct Readiness {
    started_ms: BootMs,
    ready: AtomicBool,
}

impl Readiness {
    pub fn new(started_ms: BootMs) -> Readiness {
        Readiness { started_ms, ready: AtomicBool::new(false) }
    }

    /// `all_settled` finds that each credential has had its first value, or the first word why there is none.
    fn note(&self, now_ms: BootMs, all_settled: impl FnOnce() -> bool) -> bool {
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

type Health = Result<(StatusCode, Json<Value>), Problem>;

/// `GET /livez`: the HTTP port answers, and the refresher runs.
pub async fn live(State(parts): Shared, uri: Uri) -> Health {
    Params::of(&uri, &[])?;
    let heartbeat_ms = parts.table().heartbeat_ms.load(Relaxed);
    let silent_ms = clock::monotonic_ms().saturating_sub(heartbeat_ms);
    if heartbeat_ms > 0 && silent_ms > REFRESHER_SILENT_MS_MAX {
        return Ok((StatusCode::SERVICE_UNAVAILABLE, Json(json!({ "status": "the refresher stands still" }))));
    }
    Ok((StatusCode::OK, Json(json!({ "status": "ok" }))))
}

/// `GET /readyz`: the server can be asked. With `strict`: every configured credential has a live value. With `app`:
/// those of that app have.
pub async fn ready(State(parts): Shared, Extension(visitor): Asker, uri: Uri) -> Health {
    let params = Params::of(&uri, &["strict", "app"])?;
    if !matches!(params.text("strict"), None | Some("" | "1" | "true")) {
        return Err(Problem::bad("the parameter strict takes no value but 1 or true"));
    }
    let (credentials, now_ms) = (parts.table().credentials(), clock::boot_ms());
    if let Some(app) = params.text("app") {
        visitor.may_see_status()?;
        let app = seen(&parts, &visitor, app)?;
        return Ok(strictly(&visitor, app.credentials.iter().map(AsRef::as_ref), now_ms));
    }
    if params.text("strict").is_some() {
        return Ok(strictly(&visitor, credentials.iter().map(AsRef::as_ref), now_ms));
    }
    if parts.shutdown.is_cancelled() {
        return Ok((StatusCode::SERVICE_UNAVAILABLE, Json(json!({ "status": "shutting down" }))));
    }
    let is_settled = |of: &Credential| !matches!(of.read(now_ms), Reading::FirstFetch);
    if parts.readiness.note(now_ms, || credentials.iter().all(|of| is_settled(of))) {
        return Ok((StatusCode::OK, Json(json!({ "status": "ready" }))));
    }
    let waiting = credentials.iter().map(AsRef::as_ref).filter(|of| !is_settled(of));
    Ok(not_ready(&visitor, "first_fetch", waiting, now_ms))
}

fn strictly<'c>(
    visitor: &Visitor,
    credentials: impl Iterator<Item = &'c Credential>,
    now_ms: BootMs,
) -> (StatusCode, Json<Value>) {
    let mut dead = credentials.filter(|of| !matches!(of.read(now_ms), Reading::Live(_))).peekable();
    if dead.peek().is_none() {
        return (StatusCode::OK, Json(json!({ "status": "ready" })));
    }
    not_ready(visitor, "not_live", dead, now_ms)
}

/// Those that are lacking are named to whoever may see them.
fn not_ready<'c>(
    visitor: &Visitor,
    why: &str,
    lacking: impl Iterator<Item = &'c Credential>,
    now_ms: BootMs,
) -> (StatusCode, Json<Value>) {
    let mut body = json!({ "status": "not ready" });
    if visitor.rights.status() {
        let named = lacking.map(|credential| {
            let state = credential.status(now_ms).state.name();
            json!({ "app": credential.app(), "kind": credential.about().kind, "state": state })
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
        assert!(!readiness.note(2_000, || false));
        assert!(readiness.note(2_001, || true));
        assert!(readiness.note(2_002, || false), "one that fails later is no reason");
    }

    #[test]
    fn first_fetches_are_not_waited_for_for_ever() {
        let readiness = Readiness::new(1_000);
        assert!(!readiness.note(1_000 + FIRST_FETCHES_MAX_MS - 1, || false));
        assert!(readiness.note(1_000 + FIRST_FETCHES_MAX_MS, || false));
    }
}
