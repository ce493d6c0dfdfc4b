//! The script that changes a record inside Redis, all or nothing, and how records, answers and messages are written there.
//!
//! Pure. `tests/record_rules` specifies what the script does.

use std::sync::Arc;

use redis::Value;
use sha1::{Digest, Sha1};

use crate::cluster::record::{
    COUNT_MAX, CallEnd, LEASE_MS_MAX, NOBODY, Op, OpOutcome, Record, StoreMs, UnsettledCall, WAIT_MS_MAX,
};

/// A record that nobody writes expires after so long.
const KEEP_S: u64 = 90 * 86_400;
/// Lua counts in doubles. No count comes near this.
const NUMBER_MAX: u64 = COUNT_MAX;

/// The fields of a record, in the order in which they are read; the last is the sequence number of its last change.
pub const FIELDS: [&str; 13] = [
    "epoch",
    "holder",
    "until",
    "open_by",
    "open_settled_by",
    "open_at",
    "generation",
    "value",
    "asked",
    "not_before",
    "failures",
    "calls",
    "seq",
];

/// The time of the Redis, ms, and what identifies a new sequence of changes, in Lua.
pub const CLOCK: [&str; 2] = [
    "(function() local time = redis.call('TIME') return time[1] * 1000 + math.floor(time[2] / 1000) end)()",
    "table.concat(redis.call('TIME'), '.')",
];

/// The script and its digest, by which a Redis finds it again.
pub struct RecordScript {
    pub text: String,
    pub sha: String,
}

impl RecordScript {
    /// With [`CLOCK`], or other expressions in place of it.
    pub fn new([now, born]: [&str; 2]) -> RecordScript {
        let fields = FIELDS.map(|field| format!("'{field}'")).join(", ");
        let text = include_str!("script.lua")
            .replace("$LEASE_MS_MAX", &LEASE_MS_MAX.to_string())
            .replace("$WAIT_MS_MAX", &WAIT_MS_MAX.to_string())
            .replace("$NOBODY", &NOBODY.to_string())
            .replace("$KEEP_S", &KEEP_S.to_string())
            .replace("$FIELDS", &fields)
            .replace("$NOW", now)
            .replace("$BORN", born);
        let sha = hex::encode(Sha1::digest(text.as_bytes()));
        RecordScript { text, sha }
    }
}

/// The script's arguments for an operation, after the channel and the tag. None if the script cannot count its epoch or its
/// generation: a smaller number would mean another value.
pub fn arguments(op: &Op) -> Option<Vec<String>> {
    let counted = match op {
        Op::Read | Op::Take { .. } => 0,
        Op::Announce { epoch, .. } | Op::Close { epoch, .. } => *epoch,
        Op::Publish { epoch, generation, .. } => (*epoch).max(*generation),
        Op::Offer { generation, .. } | Op::Doubt { generation } | Op::Discard { generation, .. } => *generation,
    };
    (counted <= NUMBER_MAX).then(|| argument_words(op))
}

fn argument_words(op: &Op) -> Vec<String> {
    // Only durations and the known generation can still be too large.
    let number = |number: &u64| (*number).min(NUMBER_MAX).to_string();
    let flag = |flag: &bool| u8::from(*flag).to_string();
    let text = |text: &Option<Arc<str>>| text.as_ref().map_or_else(|| "-".to_owned(), |text| format!("+{text}"));
    match op {
        Op::Read => vec!["read".into()],
        Op::Take { node, lease_ms, known_generation, spacing_ms } => {
            vec!["take".into(), node.to_string(), number(lease_ms), number(known_generation), number(spacing_ms)]
        }
        Op::Announce { node, epoch, need_ms } => {
            vec!["announce".into(), node.to_string(), number(epoch), number(need_ms)]
        }
        Op::Publish { node, epoch, generation, value, calls: counted, minted, keep_ms } => vec![
            "publish".into(),
            node.to_string(),
            number(epoch),
            number(generation),
            value.to_string(),
            text(counted),
            flag(minted),
            number(keep_ms),
        ],
        Op::Close { node, epoch, ended, failed, wait_ms, keep_ms, calls: counted } => {
            let ended = match ended {
                CallEnd::Unsent => "unsent",
                CallEnd::Answered => "answered",
                CallEnd::Lost => "lost",
            };
            vec![
                "close".into(),
                node.to_string(),
                number(epoch),
                ended.into(),
                flag(failed),
                number(wait_ms),
                number(keep_ms),
                text(counted),
            ]
        }
        Op::Offer { generation, value } => vec!["offer".into(), number(generation), value.to_string()],
        Op::Doubt { generation } => vec!["doubt".into(), number(generation)],
        Op::Discard { generation, value } => vec!["discard".into(), number(generation), text(value)],
    }
}

#[derive(Clone, Debug, Default)]
pub struct StoredRecord {
    pub record: Record,
    /// The number of its last change; 0: none.
    pub seq: u64,
    /// A field that no node writes in this form. It counts as absent.
    pub bad: Option<&'static str>,
}

impl StoredRecord {
    /// For a key that is not a hash.
    pub fn of_another_type() -> StoredRecord {
        StoredRecord { bad: Some("key"), ..StoredRecord::default() }
    }
}

#[derive(Debug)]
pub struct ScriptAnswer {
    pub outcome: OpOutcome,
    pub now_ms: StoreMs,
    pub stored: StoredRecord,
}

#[derive(Debug)]
pub struct PublishedChange {
    pub tag: String,
    pub sequence_id: String,
    pub now_ms: StoreMs,
    pub stored: StoredRecord,
}

pub fn applied(answer: &Value) -> Option<ScriptAnswer> {
    let Value::Array(parts) = answer else { return None };
    let (head, fields) = parts.split_at_checked(4)?;
    let left_ms = number(text(&head[1])?.as_str())?;
    let outcome = match head[0] {
        Value::Int(0) => OpOutcome::Done,
        Value::Int(1) => OpOutcome::NewerValue,
        Value::Int(2) => OpOutcome::LeaseHeld { left_ms },
        Value::Int(3) => OpOutcome::PutOff { left_ms },
        Value::Int(4) => OpOutcome::Rejected,
        _ => return None,
    };
    let bad = text(&head[3])?;
    let mut stored = read(fields);
    if !bad.is_empty() {
        stored.bad = Some(FIELDS.into_iter().find(|field| *field == bad).unwrap_or("key"));
    }
    Some(ScriptAnswer { outcome, now_ms: number(text(&head[2])?.as_str())?, stored })
}

/// Parses the answer of `HMGET`, in the order of [`FIELDS`].
pub fn read(fields: &[Value]) -> StoredRecord {
    stored(|at| fields.get(at).and_then(text))
}

/// Parses a message; none if no node has sent it.
pub fn change(payload: &[u8]) -> Option<PublishedChange> {
    let parts: Vec<serde_json::Value> = serde_json::from_slice(payload).ok()?;
    let text = |at: usize| parts.get(at).and_then(serde_json::Value::as_str).map(str::to_owned);
    if parts.len() != 4 + FIELDS.len() - 1 {
        return None;
    }
    let mut stored = stored(|at| text(4 + at));
    stored.seq = number(&text(1)?)?;
    Some(PublishedChange { tag: text(0)?, sequence_id: text(2)?, now_ms: number(&text(3)?)?, stored })
}

fn stored(field: impl Fn(usize) -> Option<String>) -> StoredRecord {
    let mut bad = None;
    let mut get = |at: usize, parse: fn(&str) -> Option<u64>| {
        let raw = field(at)?;
        let value = parse(&raw);
        if value.is_none() {
            bad = Some(FIELDS[at]);
        }
        value
    };
    let call = (get(3, number), get(4, number), get(5, number));
    let mut record = Record {
        epoch: get(0, number).unwrap_or(0),
        holder: get(1, node).unwrap_or(0),
        until_ms: get(2, number).unwrap_or(0),
        unsettled: match call {
            (Some(by), Some(settled_by), Some(at_ms)) => Some(UnsettledCall { by, settled_by, at_ms }),
            _ => None,
        },
        generation: get(6, number).unwrap_or(0),
        value: field(7).map(Arc::from),
        answered_ms: get(8, number).unwrap_or(0),
        not_before_ms: get(9, number).unwrap_or(0),
        failures: get(10, number).unwrap_or(0),
        calls: field(11).map(Arc::from),
    };
    let seq = get(12, number).unwrap_or(0);
    if record.drop_impossible_call() || (record.unsettled.is_none() && call != (None, None, None)) {
        bad = Some(FIELDS[3]);
    }
    StoredRecord { record, seq, bad }
}

/// Parses a number in the form that the script writes.
pub fn number(text: &str) -> Option<u64> {
    node(text).filter(|number| *number <= NUMBER_MAX)
}

fn node(text: &str) -> Option<u64> {
    let plain = text == "0" || (text.bytes().all(|byte| byte.is_ascii_digit()) && !text.starts_with('0'));
    if plain { text.parse().ok() } else { None }
}

/// Any bytes as text. A value that no node wrote will not open anyway.
pub fn text(value: &Value) -> Option<String> {
    match value {
        Value::BulkString(bytes) => Some(String::from_utf8_lossy(bytes).into_owned()),
        Value::SimpleString(text) => Some(text.clone()),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bulk(text: &str) -> Value {
        Value::BulkString(text.as_bytes().to_vec())
    }

    #[test]
    fn what_others_have_put_into_a_field_counts_as_absent_and_is_named() {
        for rubbish in ["", "x", "-1", "+1", "01", " 1", "1.5", "1e3", "1000000000000000", "99999999999999999999"] {
            let mut fields = vec![Value::Nil; FIELDS.len()];
            fields[0] = bulk("7");
            fields[6] = bulk(rubbish);
            let stored = read(&fields);
            assert_eq!((stored.record.epoch, stored.record.generation, stored.bad), (7, 0, Some("generation")));
        }
        let mut fields = vec![Value::Nil; FIELDS.len()];
        fields[4] = bulk("3");
        assert_eq!(
            (read(&fields).record.unsettled, read(&fields).bad),
            (None, Some("open_by")),
            "a third of it is none"
        );
        assert_eq!(read(&[]).record, Record::default());
        assert_eq!(read(&vec![Value::Nil; FIELDS.len()]).bad, None);
    }

    #[test]
    fn ids_are_any_and_numbers_as_far_as_doubles_count() {
        assert_eq!(node("18446744073709551615"), Some(NOBODY));
        assert_eq!(number("999999999999999"), Some(NUMBER_MAX));
        assert_eq!((number("1000000000000000"), node("18446744073709551616")), (None, None));
    }

    #[test]
    fn what_is_published_by_others_is_not_taken_for_ours() {
        for payload in ["", "[]", "{}", "[1,2,3]", "[\"t\",\"1\",\"b\",\"2\"]", "\u{0}"] {
            assert!(change(payload.as_bytes()).is_none());
        }
    }
}
