//! Apps, credentials and entries of the journal in JSON. Of a token only the last four characters and a short digest are
//! shown.

use std::sync::atomic::Ordering::Relaxed;

use serde_json::{Map, Value, json};

use super::access_control::Caller;
use super::context::{ApiApp, ApiContext};
use super::old_fields::{OLD_OUTCOMES, with_old_fields};
use crate::clock::{BootMs, Now};
use crate::credential::facts::{CallOutcome, RefusedWriter};
use crate::credential::journal::{Event, JournalEntry};
use crate::credential::table::{Credential, LastError, Reading};
use crate::secret::fingerprint;
use crate::texts;

/// The last four characters would give away too much of a value shorter than this.
const SHOWN_BYTES_MIN: usize = 32;

/// The wall time of an instant on the boot clock.
fn unix_ms(boot_ms: BootMs, now: Now) -> i64 {
    let signed = |ms: BootMs| i64::try_from(ms).unwrap_or(i64::MAX);
    now.unix_ms.saturating_add(signed(boot_ms).saturating_sub(signed(now.boot_ms)))
}

/// An app with its credentials, and what this caller may do with it.
pub fn app_json(app: &ApiApp, caller: &Caller, now: Now) -> Value {
    json!({
        "id": app.id,
        "appid": app.appid,
        "name": app.name,
        "platform": app.platform,
        "may": { "read": caller.rights.read(&app.id), "refresh": caller.rights.refresh(&app.id) },
        "credentials": app.credentials.iter().map(|of| credential_json(of, now)).collect::<Vec<_>>(),
    })
}

/// One credential without its value.
pub fn credential_json(credential: &Credential, now: Now) -> Value {
    let (status, about) = (credential.status(now.boot_ms), credential.about());
    let published = credential.published();
    let live = matches!(credential.read(now.boot_ms), Reading::Live(_));
    let had = status.generation > 0;
    let (calls_today, probes_today) = status.today(now.unix_ms);
    let mut shown = Map::new();
    let mut put = |name: &str, value: Value| drop(shown.insert(name.to_owned(), value));
    put("app", json!(credential.app()));
    put("name", json!(about.name));
    put("type", json!(about.credential_type));
    put("platform", json!(about.platform));
    put("endpoint", json!(status.endpoint));
    put("names", json!(credential.redacted_names()));
    put("state", json!(status.state.name()));
    put("live", json!(live));
    put("generation", json!(status.generation));
    put("renewed_by", json!(status.renewed_by));
    put("expires_at_ms", json!(had.then(|| unix_ms(status.expires_boot_ms, now))));
    put("seconds_left", json!(status.expires_boot_ms.saturating_sub(now.boot_ms) / 1000));
    put("lifetime_s", json!(had.then_some(status.life_ms / 1000)));
    put("fetched_at_ms", json!(status.fetched_unix_ms));
    put("next_action", json!(status.next_action()));
    put("next_try_at_ms", json!(unix_ms(status.next_try_boot_ms, now)));
    put("next_try_in_ms", json!(status.next_try_boot_ms.saturating_sub(now.boot_ms)));
    put("next_probe_at_ms", json!(status.next_probe_boot_ms.map(|at| unix_ms(at, now))));
    put("calls_today", json!(calls_today));
    put("calls_quota", json!(status.calls_quota));
    put("day_ends_at_ms", json!(status.day_ends_unix_ms));
    put("calls_denied", json!(status.calls_denied));
    put("probes", json!(status.probes));
    put("probes_today", json!(probes_today));
    put("calls", json!(status.calls));
    let outcomes = CallOutcome::ALL.map(|of| (of.name().to_owned(), json!(status.outcomes.count(of))));
    put("outcomes", with_old_fields(Value::Object(outcomes.into_iter().collect()), OLD_OUTCOMES));
    put("failures", json!(status.failures));
    put("early_deaths", json!(status.early_deaths));
    put("forced", json!(status.forced));
    put("verifications", json!(status.checks));
    put("reports", json!(credential.reports.load(Relaxed)));
    put(
        "last_verification",
        json!(status.last_check.map(|check| json!({
            "at_ms": unix_ms(check.at_boot_ms, now), "generation": check.generation, "verdict": check.verdict.name(),
        }))),
    );
    put("waits_for", json!(credential.missing_token(&status).map(|parent| waits_for(parent, now))));
    put("last_error", json!(status.last_error.as_ref().map(|error| last_error(error, now))));
    put("refused_writes", json!(credential.refused_writes.load(Relaxed)));
    put("foreign_writes", json!(credential.foreign_writes.load(Relaxed)));
    put("writers", json!(credential.writers.all().iter().rev().map(writer).collect::<Vec<_>>()));
    put("token", json!(published.map(|published| token_traces(&published.value))));
    put("can_probe", json!(about.can_probe));
    let old_names = ["kind", "checks", "last_check", "passive_refreshes", "rival_writes"];
    with_old_fields(Value::Object(shown), &old_names)
}

/// Enough to tell two values apart, and useless for calling WeChat.
fn token_traces(value: &[u8]) -> Value {
    let text = std::str::from_utf8(value).unwrap_or_default();
    let last4 = text.len().checked_sub(4).filter(|_| text.len() >= SHOWN_BYTES_MIN).and_then(|at| text.get(at..));
    json!({ "last4": last4, "sha256_8": fingerprint(value) })
}

/// The token that this credential is fetched with, and what is wrong with that one.
fn waits_for(parent: &Credential, now: Now) -> Value {
    let error = parent.status(now.boot_ms).last_error;
    let token = json!({
        "app": parent.app(),
        "type": parent.about().credential_type,
        "last_error": error.map(|error| last_error(&error, now)),
    });
    with_old_fields(token, &["kind"])
}

fn last_error(error: &LastError, now: Now) -> Value {
    // What has a code or a kind is told in Chinese by that.
    let is_told = error.meaning.is_some() || error.network.is_some();
    json!({
        "errcode": error.errcode,
        "class": error.class.name(),
        "rid": error.rid,
        "meaning": error.meaning,
        "meaning_zh": error.meaning.map(texts::in_chinese),
        "text": error.text,
        "text_zh": if is_told { None } else { texts::chinese(&error.text) },
        "advice": error.advice,
        "advice_zh": texts::in_chinese(&error.advice),
        "network": error.network,
        "seen_ip": error.seen_ip,
        "at_ms": unix_ms(error.at_boot_ms, now),
    })
}

fn writer(writer: &RefusedWriter) -> Value {
    let at_ms = writer.last.unix_ms;
    let shown =
        json!({ "peer": writer.peer, "noted": writer.noted, "last_at_ms": at_ms, "foreign": writer.is_foreign });
    with_old_fields(shown, &["rival"])
}

pub fn entry_json(entry: &JournalEntry, context: &ApiContext) -> Value {
    let credential = context.table().credential(entry.credential);
    let credential = credential.as_deref();
    let mut shown = match &entry.event {
        Event::Renewed { generation, expires_in_s, from: None } => {
            json!({ "generation": generation, "expires_in_s": expires_in_s })
        }
        Event::Renewed { generation, expires_in_s, from } => {
            json!({ "generation": generation, "expires_in_s": expires_in_s, "from": from })
        }
        Event::Failed { class, errcode, rid, network, text, meaning, advice } => json!({
            "class": class.name(), "errcode": errcode, "rid": rid, "network": network, "text": text,
            "advice": advice, "advice_zh": texts::in_chinese(advice),
            "meaning": meaning, "meaning_zh": meaning.map(texts::in_chinese),
        }),
        Event::DiedEarly { errcode } => json!({ "errcode": errcode }),
        Event::Fallback { endpoint } => json!({ "endpoint": endpoint }),
        Event::RefusedWrite { peer, is_foreign } => json!({ "peer": peer, "foreign": is_foreign }),
        Event::Recovered | Event::AcceptedAgain => json!({}),
    };
    if let Value::Object(fields) = &mut shown {
        let common = [
            ("seq", json!(entry.seq)),
            ("app", json!(credential.map(|credential| credential.app()))),
            ("name", json!(credential.and_then(|credential| credential.about().name.as_deref()))),
            ("type", json!(credential.map(|credential| credential.about().credential_type))),
            ("event", json!(entry.event.name())),
            ("first_at_ms", json!(entry.first.unix_ms)),
            ("last_at_ms", json!(entry.last.unix_ms)),
            ("times", json!(entry.times)),
        ];
        fields.extend(common.map(|(name, value)| (name.to_owned(), value)));
    }
    with_old_fields(shown, &["kind", "rival"])
}
