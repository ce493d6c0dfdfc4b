//! The ways in which the simulated platforms can misbehave, and what each makes of an answer.
//!
//! Pure: a fault and the right answer in, a [`SandboxReply`] out. Never sends it: `http.rs` does, and `server.rs` where the
//! socket itself is needed.

use std::collections::HashMap;
use std::time::Duration;

use serde::{Deserialize, Deserializer, Serialize};
use serde_json::Value;

use super::answer;
use super::rules::{ApiAnswer, Endpoint};

/// Faults set for this name are for every app.
pub const ALL_APPS: &str = "*";

/// A fault, and the calls it is for. In JSON one flat object: `{"kind":"hang","times":1}`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct InjectedFault {
    /// What goes wrong.
    #[serde(flatten)]
    pub kind: FaultKind,
    /// The calls it is for; token calls by default.
    #[serde(default)]
    pub on: FaultScope,
    /// Removed after this many calls; `None` stays until it is cleared.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub times: Option<u32>,
    /// The call takes effect (a token is made, the call is counted) and only its answer has the fault: the ambiguous case.
    #[serde(default)]
    pub after_minting: bool,
}

/// What goes wrong. With `drip`, `expires_in` and `delay` the call is answered, so it always takes effect.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum FaultKind {
    /// HTTP 200 with this errcode; the errmsg is sent as given.
    Errcode {
        errcode: i64,
        #[serde(default)]
        errmsg: String,
    },
    /// This HTTP status.
    Status {
        status: u16,
        #[serde(default)]
        body: String,
    },
    /// HTTP 200 with a web page, as a captive portal or a broken proxy sends.
    Html,
    /// The right Content-Length, half the body, then the connection is closed.
    Cut,
    /// Half the JSON, with the Content-Length of that half.
    TruncatedJson,
    /// Accepts the call and never answers.
    Hang,
    /// The right answer, one byte every so many milliseconds.
    Drip { every_ms: u64 },
    /// The connection is reset (RST) instead of an answer.
    Reset,
    /// The right answer after this many bytes of white space: valid JSON, far too large.
    Huge { bytes: usize },
    /// HTTP 200 and no body.
    Empty,
    /// Any text as the body. `{access_token}` in it becomes the token of the right answer.
    Raw {
        body: String,
        #[serde(default, skip_serializing_if = "Option::is_none")]
        content_type: Option<String>,
    },
    /// The right answer with another `expires_in`: any JSON value, or no such field if `value` is left out.
    ExpiresIn {
        #[serde(default, deserialize_with = "present", skip_serializing_if = "Option::is_none")]
        value: Option<Value>,
    },
    /// The right answer, late. The call takes effect after the wait, or before it with `after_minting`.
    Delay { ms: u64 },
}

/// The calls that a fault is for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum FaultScope {
    /// `token`, `stable_token`, `gettoken`, and those of QQ, Feishu and components.
    #[default]
    Tokens,
    /// Tickets.
    Tickets,
    /// `get_api_domain_ip`, `menu/get`.
    Business,
    /// Every call.
    All,
}

/// The bytes of an answer, and how they are sent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum SandboxReply {
    /// A regular HTTP answer.
    Http { status: u16, content_type: String, body: Vec<u8> },
    /// Bytes that are written without the HTTP server; then the connection is closed.
    Raw(RawAnswer),
    /// No answer, ever.
    Hang,
}

/// What is written to the connection without the HTTP server.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct RawAnswer {
    pub(super) head: Vec<u8>,
    pub(super) body: Vec<u8>,
    /// Pause before each byte of the body.
    pub(super) pause: Option<Duration>,
    /// End with RST instead of FIN.
    pub(super) reset: bool,
}

/// The largest body of [`FaultKind::Huge`].
const HUGE_BYTES_MAX: usize = 256 << 20;

impl InjectedFault {
    /// A fault of token calls that stays until it is cleared; the calls take no effect.
    pub fn new(kind: FaultKind) -> InjectedFault {
        InjectedFault { kind, on: FaultScope::Tokens, times: None, after_minting: false }
    }

    /// Removed after `times` calls.
    pub fn times(self, times: u32) -> InjectedFault {
        InjectedFault { times: Some(times), ..self }
    }

    /// For these calls instead of token calls.
    pub fn on(self, on: FaultScope) -> InjectedFault {
        InjectedFault { on, ..self }
    }

    /// The call takes effect, and only its answer has the fault.
    pub fn after_minting(self) -> InjectedFault {
        InjectedFault { after_minting: true, ..self }
    }

    /// True if a call with this fault takes effect.
    pub(super) fn executes_call(&self) -> bool {
        let ends_in_an_answer =
            matches!(self.kind, FaultKind::Drip { .. } | FaultKind::ExpiresIn { .. } | FaultKind::Delay { .. });
        self.after_minting || ends_in_an_answer
    }

    /// The errcode it answers with, if it is one.
    pub(super) fn errcode(&self) -> Option<i64> {
        match self.kind {
            FaultKind::Errcode { errcode, .. } => Some(errcode),
            _ => None,
        }
    }

    /// How the call is counted.
    pub(super) fn outcome(&self) -> &'static str {
        match self.kind {
            FaultKind::Errcode { .. } => "fault errcode",
            FaultKind::Status { .. } => "fault status",
            FaultKind::Html => "fault html",
            FaultKind::Cut => "fault cut",
            FaultKind::TruncatedJson => "fault truncated_json",
            FaultKind::Hang => "fault hang",
            FaultKind::Drip { .. } => "fault drip",
            FaultKind::Reset => "fault reset",
            FaultKind::Huge { .. } => "fault huge",
            FaultKind::Empty => "fault empty",
            FaultKind::Raw { .. } => "fault raw",
            FaultKind::ExpiresIn { .. } => "fault expires_in",
            FaultKind::Delay { .. } => "fault delay",
        }
    }

    /// What is sent in place of `right`, the answer without the fault.
    pub(super) fn apply(&self, right: &ApiAnswer) -> SandboxReply {
        let body = answer::body(right);
        match &self.kind {
            FaultKind::Errcode { errcode, errmsg } => {
                let refused = ApiAnswer::Refused {
                    platform: answer::platform_of(right),
                    errcode: *errcode,
                    errmsg: errmsg.clone(),
                };
                SandboxReply::from_answer(&refused)
            }
            FaultKind::Status { status, body } => SandboxReply::http(*status, "text/html", body.clone()),
            FaultKind::Html => SandboxReply::http(200, "text/html", HTML_PAGE.to_owned()),
            FaultKind::Cut => SandboxReply::Raw(RawAnswer::cut(&body)),
            FaultKind::TruncatedJson => SandboxReply::json(body[..body.len() / 2].to_owned()),
            FaultKind::Hang => SandboxReply::Hang,
            FaultKind::Drip { every_ms } => SandboxReply::Raw(RawAnswer::drip(&body, Duration::from_millis(*every_ms))),
            FaultKind::Reset => SandboxReply::Raw(RawAnswer::reset()),
            FaultKind::Huge { bytes } => SandboxReply::json(" ".repeat((*bytes).min(HUGE_BYTES_MAX)) + &body),
            FaultKind::Empty => SandboxReply::json(String::new()),
            FaultKind::Raw { body, content_type } => {
                let content_type = content_type.as_deref().unwrap_or(answer::CONTENT_TYPE);
                SandboxReply::http(200, content_type, body.replace("{access_token}", answer::value(right)))
            }
            FaultKind::ExpiresIn { value } => {
                SandboxReply::json(answer::body_with_expires_in(right, value.as_ref().map(Value::to_string).as_deref()))
            }
            FaultKind::Delay { .. } => SandboxReply::from_answer(right),
        }
    }
}

impl FaultScope {
    fn covers(self, endpoint: Endpoint) -> bool {
        let scope = match endpoint {
            Endpoint::Token | Endpoint::StableToken | Endpoint::StableTokenForced | Endpoint::Gettoken => {
                FaultScope::Tokens
            }
            Endpoint::QqToken | Endpoint::FeishuToken => FaultScope::Tokens,
            Endpoint::ComponentToken | Endpoint::AuthorizerToken => FaultScope::Tokens,
            Endpoint::Ticket => FaultScope::Tickets,
            Endpoint::GetApiDomainIp | Endpoint::MenuGet => FaultScope::Business,
            Endpoint::ClearQuota => FaultScope::All,
        };
        self == FaultScope::All || self == scope
    }
}

impl SandboxReply {
    pub(super) fn from_answer(answer: &ApiAnswer) -> SandboxReply {
        let content_type = match answer {
            ApiAnswer::Refused { .. } => "text/plain", // as seen in the wild: Eric-Guo/wechat#71
            _ => answer::CONTENT_TYPE,
        };
        SandboxReply::http(200, content_type, answer::body(answer))
    }

    fn json(body: String) -> SandboxReply {
        SandboxReply::http(200, answer::CONTENT_TYPE, body)
    }

    fn http(status: u16, content_type: &str, body: String) -> SandboxReply {
        SandboxReply::Http { status, content_type: content_type.to_owned(), body: body.into_bytes() }
    }
}

impl RawAnswer {
    fn cut(body: &str) -> RawAnswer {
        let half = body.as_bytes()[..body.len() / 2].to_vec();
        RawAnswer { head: head(body.len()), body: half, pause: None, reset: false }
    }

    fn drip(body: &str, pause: Duration) -> RawAnswer {
        RawAnswer { head: head(body.len()), body: body.as_bytes().to_vec(), pause: Some(pause), reset: false }
    }

    fn reset() -> RawAnswer {
        RawAnswer { head: Vec::new(), body: Vec::new(), pause: None, reset: true }
    }
}

fn head(content_length: usize) -> Vec<u8> {
    let content_type = answer::CONTENT_TYPE;
    format!(
        "HTTP/1.1 200 OK\r\nContent-Type: {content_type}\r\nContent-Length: {content_length}\r\nConnection: close\r\n\r\n"
    )
    .into_bytes()
}

const HTML_PAGE: &str = "<!DOCTYPE html>\n<html><head><title>Please sign in</title></head>\
                         <body><h1>Network login</h1></body></html>\n";

/// So that `"value": null` is not the same as no `value`.
fn present<'de, D: Deserializer<'de>>(from: D) -> Result<Option<Value>, D::Error> {
    Value::deserialize(from).map(Some)
}

/// The faults of each app, in the order in which they were added.
#[derive(Debug, Default)]
pub(super) struct InjectedFaults {
    by_app: HashMap<String, Vec<InjectedFault>>,
}

impl InjectedFaults {
    /// Replaces the app's faults by this one.
    pub(super) fn set(&mut self, appid: &str, fault: InjectedFault) {
        self.by_app.insert(appid.to_owned(), vec![fault]);
    }

    /// Adds one after those already set; the first that covers a call is used.
    pub(super) fn add(&mut self, appid: &str, fault: InjectedFault) {
        self.by_app.entry(appid.to_owned()).or_default().push(fault);
    }

    pub(super) fn clear(&mut self, appid: &str) {
        self.by_app.remove(appid);
    }

    pub(super) fn faults_of(&self, appid: &str) -> &[InjectedFault] {
        self.by_app.get(appid).map_or(&[], Vec::as_slice)
    }

    /// Takes the fault for this call, and counts down its `times`. The app's own faults come before those of all apps.
    pub(super) fn take_fault(&mut self, appid: &str, endpoint: Endpoint) -> Option<InjectedFault> {
        [appid, ALL_APPS].into_iter().find_map(|name| self.take_fault_of(name, endpoint))
    }

    fn take_fault_of(&mut self, appid: &str, endpoint: Endpoint) -> Option<InjectedFault> {
        let faults = self.by_app.get_mut(appid)?;
        let at = faults.iter().position(|fault| fault.times != Some(0) && fault.on.covers(endpoint))?;
        let fault = faults[at].clone();
        if let Some(times) = &mut faults[at].times {
            *times -= 1;
        }
        faults.retain(|fault| fault.times != Some(0));
        Some(fault)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(json: &str) -> InjectedFault {
        serde_json::from_str(json).unwrap()
    }

    #[test]
    fn a_fault_is_one_flat_json_object() {
        let fault = parse(r#"{"kind":"errcode","errcode":-1,"errmsg":"system busy","times":3,"on":"all"}"#);
        let kind = FaultKind::Errcode { errcode: -1, errmsg: "system busy".into() };
        assert_eq!(fault, InjectedFault::new(kind).times(3).on(FaultScope::All));
        assert_eq!(parse(&serde_json::to_string(&fault).unwrap()), fault);
        assert_eq!(
            parse(r#"{"kind":"hang","after_minting":true}"#),
            InjectedFault::new(FaultKind::Hang).after_minting()
        );
    }

    #[test]
    fn an_expires_in_of_null_is_not_a_missing_one() {
        let value = |json: &str| match parse(json).kind {
            FaultKind::ExpiresIn { value } => value,
            other => panic!("{other:?}"),
        };
        assert_eq!(value(r#"{"kind":"expires_in"}"#), None);
        assert_eq!(value(r#"{"kind":"expires_in","value":null}"#), Some(Value::Null));
        assert_eq!(value(r#"{"kind":"expires_in","value":[1]}"#), Some(serde_json::json!([1])));
    }

    #[test]
    fn the_first_fault_that_covers_the_call_is_taken_and_used_up() {
        let mut faults = InjectedFaults::default();
        faults.set("a", InjectedFault::new(FaultKind::Empty).times(1));
        faults.add("a", InjectedFault::new(FaultKind::Reset).on(FaultScope::Business));
        faults.set(ALL_APPS, InjectedFault::new(FaultKind::Html).times(1));
        let take_fault =
            |faults: &mut InjectedFaults, endpoint| faults.take_fault("a", endpoint).map(|fault| fault.outcome());
        assert_eq!(take_fault(&mut faults, Endpoint::MenuGet), Some("fault reset"));
        assert_eq!(take_fault(&mut faults, Endpoint::Token), Some("fault empty"));
        assert_eq!(take_fault(&mut faults, Endpoint::Token), Some("fault html"));
        assert_eq!(take_fault(&mut faults, Endpoint::Token), None);
        assert_eq!(take_fault(&mut faults, Endpoint::Ticket), None);
    }

    #[test]
    fn a_fault_with_zero_times_is_never_taken() {
        let mut faults = InjectedFaults::default();
        faults.set("a", InjectedFault::new(FaultKind::Empty).times(0));
        assert_eq!(faults.take_fault("a", Endpoint::Token), None);
    }
}
