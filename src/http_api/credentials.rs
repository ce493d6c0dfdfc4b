//! `GET /v1/credentials`: every value that the caller may read, and then what changes. Nodes that follow this one use it:
//! one request at a time is enough for any number of apps.
//!
//! It does not say why there is no value, or how renewals go; `/v1/apps` does.

use std::sync::Arc;
use std::time::Duration;

use axum::Json;
use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use tokio::time::Instant;

use super::access_control::Caller;
use super::api;
use super::call::{HttpApiCall, JsonResult};
use super::context::ApiContext;
use super::old_fields::with_old_fields;
use super::problem::Problem;
use crate::clock::Now;
use crate::credential::table::{Credential, Reading};

const PAGE_MAX: usize = 500;
/// Changes within this time go into one answer.
const GATHER: Duration = Duration::from_millis(50);

/// How far a caller has read: a mark of this process and of the caller's rights, and the last change that it knows.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Cursor {
    of: String,
    version: u64,
}

impl Cursor {
    fn parse(text: &str) -> Result<Cursor, Problem> {
        let fault = || Problem::bad("the parameter after is not one that an answer has named");
        let (of, version) = text.split_once('-').ok_or_else(fault)?;
        let is_ours = of.len() == 16 && of.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'));
        let digits = (1..=19).contains(&version.len()) && version.bytes().all(|byte| byte.is_ascii_digit());
        if !is_ours || !digits {
            return Err(fault());
        }
        Ok(Cursor { of: of.to_owned(), version: version.parse().map_err(|_| fault())? })
    }

    fn text(&self) -> String {
        format!("{}-{}", self.of, self.version)
    }
}

/// It changes with a restart and with the caller's rights: then everything is sent again.
fn cursor_mark(context: &ApiContext, caller: &Caller) -> String {
    let of = format!("{:016x} {}", context.run, caller.rights.words().join(" "));
    hex::encode(&Sha256::digest(of)[..8])
}

/// `GET /v1/credentials`. With `after`, waits for a change.
pub async fn get_credentials(call: HttpApiCall) -> JsonResult {
    let asked = Instant::now();
    let params = call.params(&["after", "wait_s", "app"])?;
    let (context, caller) = (&*call.context, &*call.caller);
    let app = params.text("app");
    match app {
        Some(app) => {
            call.app(app)?;
            caller.require_read(app)?;
        }
        None => caller.require_read_any()?,
    }
    let after = params.text("after").map(Cursor::parse).transpose()?;
    let until = asked + api::wait_of(&params, after.is_some())?;
    let mark = cursor_mark(context, caller);
    let mut changes = context.table().values();
    let after = after.filter(|after| after.of == mark && after.version <= *changes.borrow());
    loop {
        let upto = *changes.borrow_and_update();
        let page = ChangePage::of(context, caller, app, after.as_ref().map_or(0, |after| after.version), upto);
        let answers_now = after.is_none() || !page.credentials.is_empty();
        if answers_now || !wait_for_change(context, &mut changes, until).await {
            return Ok(Json(page.json(context, Cursor { of: mark, version: upto }, after.is_none(), asked)));
        }
        if !context.reload_handle.access_control.is_still_valid(caller) {
            return Err(Problem::wrong_key());
        }
    }
}

/// Waits until something changes; false if that does not happen in time.
async fn wait_for_change(
    context: &ApiContext,
    changes: &mut tokio::sync::watch::Receiver<u64>,
    until: Instant,
) -> bool {
    let changed = tokio::select! {
        () = context.shutdown.cancelled() => false,
        () = tokio::time::sleep_until(until) => false,
        changed = changes.changed() => changed.is_ok(),
    };
    if changed {
        tokio::time::sleep(GATHER).await;
    }
    changed
}

/// The credentials that changed between two versions, in the order of their changes.
struct ChangePage {
    credentials: Vec<(u64, Arc<Credential>)>,
    more: bool,
}

impl ChangePage {
    fn of(context: &ApiContext, caller: &Caller, app: Option<&str>, after: u64, upto: u64) -> ChangePage {
        let is_meant = |of: &Credential| {
            of.value_version() > after && app.is_none_or(|app| app == of.app()) && caller.rights.read(of.app())
        };
        // The version is read before the value: a credential that changes in between comes again.
        let versions = context.table().credentials_that(is_meant).into_iter().map(|of| (of.value_version(), of));
        let mut credentials: Vec<(u64, Arc<Credential>)> = versions.filter(|(version, _)| *version <= upto).collect();
        credentials.sort_unstable_by_key(|(version, _)| *version);
        let more = credentials.len() > PAGE_MAX;
        credentials.truncate(PAGE_MAX);
        ChangePage { credentials, more }
    }

    fn json(&self, context: &ApiContext, mut cursor: Cursor, from_start: bool, asked: Instant) -> Value {
        if let (true, Some((version, _))) = (self.more, self.credentials.last()) {
            cursor.version = *version;
        }
        // The clocks are read last, after the wait.
        let (waited_ms, now) = (asked.elapsed().as_millis(), Now::read());
        json!({
            "now_ms": now.unix_ms,
            "waited_ms": u64::try_from(waited_ms).unwrap_or(0),
            "age_ms": context.table().cluster.behind_ms(now.boot_ms),
            "run": format!("{:016x}", context.run),
            "from_start": from_start,
            "cursor": cursor.text(),
            "more": self.more,
            "credentials": self.credentials.iter().map(|(_, of)| value_json(of, now)).collect::<Vec<_>>(),
        })
    }
}

/// One credential with its live value, if there is one.
fn value_json(credential: &Credential, now: Now) -> Value {
    let status = credential.status(now.boot_ms);
    let withdrawn = credential.is_withdrawn();
    let reading = credential.read(now.boot_ms);
    let live = match &reading {
        Reading::Live(shown) => shown.as_ref(),
        Reading::FirstFetch | Reading::Absent => None,
    };
    let generation = live.map_or_else(|| credential.published().map_or(0, |of| of.generation), |of| of.generation);
    let had = generation > 0;
    let shown = json!({
        "app": credential.app(),
        "type": credential.about().credential_type,
        "state": status.state.name(),
        "generation": generation,
        "token": live.and_then(|of| std::str::from_utf8(&of.value).ok()),
        "expires_in_ms": live.map_or(0, |of| of.expires_boot_ms.saturating_sub(now.boot_ms)),
        "reliable_lead_ms": live.and_then(|of| of.reliable.lead_ms(of.expires_boot_ms)),
        "lifetime_ms": had.then_some(status.life_ms),
        "fetched_at_ms": status.fetched_unix_ms,
        "withdrawn": withdrawn && live.is_none(),
    });
    with_old_fields(shown, &["kind"])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cursor_reads_as_it_is_written_and_nothing_else_does() {
        let cursor = Cursor { of: "0123456789abcdef".into(), version: 77 };
        assert_eq!(Cursor::parse(&cursor.text()).unwrap(), cursor);
        let long = "0123456789abcdef-18446744073709551616";
        for wrong in [
            "",
            "-",
            "0-0",
            "0123456789abcdef",
            "0123456789abcdef-",
            "0123456789ABCDEF-1",
            long,
            "0123456789abcdef-+1",
            "0123456789abcdef-1-1",
        ] {
            assert_eq!(Cursor::parse(wrong).unwrap_err().name, "bad-request", "{wrong}");
        }
    }
}
