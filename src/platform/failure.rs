//! Why a call brought no token: what the refresher should do about it, and what the operator should do.
//!
//! Pure. What an error code means is in [`errcodes`], by platform, call and code. Never judges by an answer's text, which
//! may change: a text is only searched for the IP and the rid.

use std::borrow::Cow;
use std::net::IpAddr;

use serde::Deserialize;

use super::errcodes;
use crate::descriptors;
use crate::https::NetworkFault;
use crate::platform::{ApiCall, ApiEndpoint};

/// What the refresher should do about a failure.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Class {
    /// It passes by itself: try again with backoff.
    Retry,
    /// Trying again before a certain time is useless or harmful.
    Wait(Wait),
    /// Somebody has to change something: try again now and then.
    Operator(Pace),
    /// The fault is in this program.
    Internal,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Wait {
    AtLeastMs(u64),
    /// The day's quota is used up: until midnight in UTC+8. WeChat does not publish the hour, so try now and then.
    NextDay,
    /// The interface is blocked for a while, and for longer each time a call meets the block again.
    Doubling {
        first_ms: u32,
        most_ms: u32,
    },
}

/// How often to find out whether the operator has acted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Pace {
    /// Every one to five minutes: it is expected to be repaired soon.
    Soon,
    /// Every ten to thirty minutes.
    Slow,
}

/// A [`Class`] without its details, as logs, figures and the API have it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FailureClass {
    Retry,
    Wait,
    Operator,
    Internal,
}

impl FailureClass {
    pub fn name(self) -> &'static str {
        match self {
            FailureClass::Retry => "retry",
            FailureClass::Wait => "wait",
            FailureClass::Operator => "operator",
            FailureClass::Internal => "internal",
        }
    }
}

impl From<Class> for FailureClass {
    fn from(class: Class) -> FailureClass {
        match class {
            Class::Retry => FailureClass::Retry,
            Class::Wait(_) => FailureClass::Wait,
            Class::Operator(_) => FailureClass::Operator,
            Class::Internal => FailureClass::Internal,
        }
    }
}

impl Class {
    pub fn name(self) -> &'static str {
        FailureClass::from(self).name()
    }
}

/// How far a failed call got. It decides whether the classic endpoint may have made a token that was lost.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Delivery {
    /// The platform cannot have received it.
    NotSent,
    /// The platform may have received it and done it.
    Ambiguous,
    /// The platform has answered, and refused.
    Answered,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Missing {
    /// The app's secret, on purpose: this node only follows.
    Secret,
    VerifyTicket,
    RefreshToken,
    /// The store that the nodes of a cluster share.
    ClusterStore,
    /// A file descriptor, for a moment.
    FileDescriptor,
    /// The platform: something else answers at `base_url`.
    Platform,
}

#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{}", self.sentence())]
pub struct Failure {
    pub class: Class,
    pub errcode: Option<i64>,
    /// The call that was refused, or that our quota did not allow; none where it does not matter which it was.
    pub api: Option<Box<ApiCall>>,
    /// What went wrong. Safe for a log: no secret, no token, no control characters, at most 200 characters.
    pub message: String,
    /// WeChat's request id; it can be looked up at mp.weixin.qq.com.
    pub rid: Option<Box<str>>,
    /// The address that the platform saw the call come from, if it said so.
    pub seen_ip: Option<IpAddr>,
    pub delivery: Delivery,
    pub appid: Box<str>,
    pub missing: Option<Missing>,
    pub network: Option<NetworkFault>,
}

impl Failure {
    /// A failure without an errcode: network, TLS, a broken answer.
    pub fn transport(appid: &str, delivery: Delivery, message: impl Into<String>) -> Failure {
        let mut message = message.into();
        // An excerpt of an answer is bounded, but the caller may have put something before it.
        if let Some((cut, _)) = message.char_indices().nth(MESSAGE_CHARS_MAX) {
            message.truncate(cut);
        }
        Failure {
            class: Class::Retry,
            errcode: None,
            api: None,
            message,
            rid: None,
            seen_ip: None,
            delivery,
            appid: appid.into(),
            missing: None,
            network: None,
        }
    }

    /// The platform has refused. `message` has been scrubbed.
    pub fn refused(api: ApiCall, appid: &str, errcode: i64, message: String) -> Failure {
        let rid = find_rid(&message);
        // The rid has a field of its own wherever a failure is shown.
        let message = rid.as_deref().map_or_else(|| message.clone(), |rid| without_rid(&message, rid));
        Failure {
            class: errcodes::classify(api, errcode),
            errcode: Some(errcode),
            api: Some(Box::new(api)),
            rid,
            seen_ip: find_ip(&message),
            message,
            ..Failure::transport(appid, Delivery::Answered, "")
        }
    }

    fn unsent(appid: &str, class: Class, missing: Option<Missing>, message: impl Into<String>) -> Failure {
        Failure { class, missing, ..Failure::transport(appid, Delivery::NotSent, message) }
    }

    /// The app's secret cannot be read; nothing was sent.
    pub fn unreadable_secret(appid: &str, message: impl Into<String>) -> Failure {
        Failure::unsent(appid, Class::Operator(Pace::Slow), None, message)
    }

    /// There is no verify ticket yet: WeChat has not pushed one, or its receiver has not written it; nothing was sent.
    pub fn no_ticket(appid: &str) -> Failure {
        let message = "there is no component_verify_ticket yet";
        Failure::unsent(appid, Class::Operator(Pace::Soon), Some(Missing::VerifyTicket), message)
    }

    /// This process has used up its file descriptors; nothing was sent. That passes, and says nothing of the host.
    pub fn no_descriptor(appid: &str, message: impl Into<String>) -> Failure {
        Failure::unsent(appid, Class::Retry, Some(Missing::FileDescriptor), message)
    }

    /// There is no refresh token left to try; nothing was sent.
    pub fn no_refresh_token(appid: &str, reason: String) -> Failure {
        Failure::unsent(appid, Class::Operator(Pace::Slow), Some(Missing::RefreshToken), reason)
    }

    /// Other nodes may be renewing it, and the cluster store is out of reach; nothing was sent.
    pub fn no_cluster_store(appid: &str, message: String) -> Failure {
        Failure::unsent(appid, Class::Retry, Some(Missing::ClusterStore), message)
    }

    /// This node has no secret of the app: other nodes fetch, this one only follows. Nothing is ever sent.
    pub fn no_secret(appid: &str) -> Failure {
        let message = "this node has no secret of the app and only follows the nodes that have it";
        Failure::unsent(appid, Class::Operator(Pace::Slow), Some(Missing::Secret), message)
    }

    /// By our own count the quota is used up; nothing was sent.
    pub fn quota_used_up(api: ApiCall, appid: &str, message: String) -> Failure {
        Failure { api: Some(Box::new(api)), ..Failure::unsent(appid, Class::Wait(Wait::NextDay), None, message) }
    }

    /// The platform gave a value that is too long for this server. The value before it may have ended.
    pub fn value_too_long(appid: &str, message: String) -> Failure {
        Failure { class: Class::Internal, ..Failure::transport(appid, Delivery::Ambiguous, message) }
    }

    /// What answered did not answer as the platform does. `missing`: it is certain that it is not the platform.
    pub(super) fn broken_answer(
        appid: &str,
        delivery: Delivery,
        missing: Option<Missing>,
        message: impl Into<String>,
    ) -> Failure {
        let network = Some(NetworkFault::Answer);
        Failure { missing, network, ..Failure::transport(appid, delivery, message) }
    }

    /// The platform refuses the token that the call was made with. That says nothing of the secret.
    pub fn refuses_token(&self) -> bool {
        self.row().is_some_and(|row| row.refuses_token)
    }

    pub fn asks_for_secret(&self) -> bool {
        let is_unread =
            self.delivery == Delivery::NotSent && matches!(self.missing, None | Some(Missing::RefreshToken));
        matches!(self.class, Class::Operator(_))
            && match self.errcode {
                Some(_) => self.row().is_some_and(|row| row.asks_for_secret),
                None => is_unread,
            }
    }

    /// The class that the errcode's row has, even if [`Failure::class`] has been changed since.
    pub fn class_of_errcode(&self) -> Class {
        self.row().map_or(self.class, |row| row.class)
    }

    /// What the error code means; none without one.
    pub fn meaning(&self) -> Option<&'static str> {
        self.errcode.map(|_| self.row().map_or(errcodes::UNKNOWN_MEANING, |row| &row.meaning))
    }

    /// What to do, in a sentence for the operator.
    pub fn advice(&self) -> Cow<'static, str> {
        let sentence = self.advice_text();
        match self.seen_ip {
            Some(ip) if sentence.contains("{ip}") => {
                sentence.replace("{ip}", &ip.to_string()).replace("{app}", &self.appid).into()
            }
            _ => sentence.into(),
        }
    }

    fn row(&self) -> Option<&'static errcodes::ErrcodeRow> {
        errcodes::find(*self.api.as_deref()?, self.errcode?)
    }

    fn advice_text(&self) -> &'static str {
        if self.errcode.is_none() {
            return self.advice_without_code();
        }
        match self.row() {
            Some(row) => row.advice_with_ip.as_ref().filter(|_| self.seen_ip.is_some()).unwrap_or(&row.advice),
            None => errcodes::advice_on_unknown(self.api.as_deref().map_or("", |api| api.platform)),
        }
    }

    fn advice_without_code(&self) -> &'static str {
        match (self.missing, self.class, self.delivery) {
            (Some(Missing::ClusterStore), ..) => {
                "see why the cluster store is out of reach; until it is back, the token is served to its end"
            }
            (Some(Missing::FileDescriptor), ..) => descriptors::REMEDY,
            (Some(Missing::Platform), ..) => {
                "what answers is not WeChat's API: correct base_url (or hosts, proxy) in the configuration; a path in \
                 base_url is put before that of each call"
            }
            (Some(Missing::Secret), ..) => {
                "see that a node with the app's secret runs and that this node reaches it or the cluster store"
            }
            (Some(Missing::VerifyTicket), ..) => {
                "WeChat pushes a ticket every 10 minutes to the address for authorisation events set at \
                 open.weixin.qq.com: see that its receiver is reached and writes what it gets to verify_ticket_file"
            }
            (Some(Missing::RefreshToken), ..) => "put the merchant's refresh token in place",
            (None, Class::Internal, _) => "please report this as a bug; a live value is served to its end",
            (None, Class::Operator(_), Delivery::NotSent) => "put the app's secret in place",
            (None, Class::Wait(_), _) => match self.api.as_deref() {
                // Only for a classic token there is another endpoint with a quota of its own.
                Some(ApiCall { platform: "mp", endpoint: ApiEndpoint::Token }) => {
                    "nothing, if it passes; if the app has a larger quota, set its daily_quota; stable_token has its own"
                }
                Some(ApiCall { endpoint: ApiEndpoint::Ticket, .. }) => {
                    "nothing, if it passes; the ticket has a quota of its own, which no other token endpoint changes"
                }
                _ => "nothing, if it passes; if the app has a larger quota, set its daily_quota",
            },
            _ if self.message.contains("certificate") => {
                "check that no proxy intercepts TLS (else configure its root as ca_file) and that the clock is right"
            }
            (None, _, Delivery::NotSent) => "check DNS, routing, firewall and proxy between this machine and WeChat",
            _ => "nothing, if it passes; if it stays, check what sits between this machine and WeChat",
        }
    }

    fn sentence(&self) -> String {
        match (self.errcode, self.meaning()) {
            (Some(code), Some(meaning)) => format!("errcode {code} ({meaning}): {}", self.message),
            _ => self.message.clone(),
        }
    }
}

/// The address in a text such as `invalid ip 1.2.3.4 ipv6 ::ffff:1.2.3.4, not in whitelist`.
fn find_ip(text: &str) -> Option<IpAddr> {
    text.split(|c: char| !(c.is_ascii_hexdigit() || c == '.' || c == ':'))
        .map(|word| word.trim_end_matches([':', '.']))
        .filter(|word| word.len() >= 3 && (word.contains('.') || word.matches(':').count() >= 2))
        .find_map(|word| word.parse::<IpAddr>().ok())
        .map(|ip| ip.to_canonical())
}

/// The request id in a text such as `invalid appid rid: 64d2e8b1-4d4aab5f-5bd0e1a5`.
fn find_rid(text: &str) -> Option<Box<str>> {
    let after = text.split_once("rid:")?.1.trim_start();
    let rid: String = after.chars().take_while(|c| c.is_ascii_alphanumeric() || *c == '-').take(64).collect();
    (rid.len() >= 8).then(|| rid.into())
}

/// The text without its request id, and without what led to that.
fn without_rid(text: &str, rid: &str) -> String {
    let Some((before, after)) = text.split_once("rid:") else { return text.to_owned() };
    let after = after.trim_start().strip_prefix(rid).unwrap_or(after);
    let before = before.trim_end_matches([' ', ',', ';']);
    let after = after.trim();
    if before.is_empty() || after.is_empty() { format!("{before}{after}") } else { format!("{before} {after}") }
}

/// The longest text from outside that is kept.
pub const MESSAGE_CHARS_MAX: usize = 200;

/// Makes a text from outside safe for a log: secrets become `***`, a line end becomes a blank, any other control
/// character a question mark, and the rest is cut.
/// `hidden` are values known to be secret; whatever looks like a token is hidden as well.
pub fn scrub(text: &str, hidden: &[&str]) -> String {
    // Fields first: a secret that is replaced might be part of a field's name.
    let hide = |text: String, field: &&str| hide_after_field(&text, field);
    let mut text = hide_long_words(&SECRET_FIELDS.iter().fold(text.to_owned(), hide));
    for secret in hidden.iter().filter(|secret| !secret.is_empty()) {
        if text.contains(secret) {
            text = text.replace(secret, "***");
        }
    }
    let mut clean = String::new();
    for c in text.chars().take(MESSAGE_CHARS_MAX) {
        match c {
            '\n' if clean.ends_with(' ') => {}
            '\n' | '\r' | '\t' | '\u{85}' | '\u{2028}' | '\u{2029}' => clean.push(' '),
            '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}' | '\u{feff}' => clean.push('?'),
            c if c.is_control() => clean.push('?'),
            c => clean.push(c),
        }
    }
    clean
}

/// Fields whose values are tokens; also as a part of a longer name, such as `component_access_token`.
const SECRET_FIELDS: [&str; 3] = ["access_token", "refresh_token", "verify_ticket"];

/// Secrets have 32 characters, tokens more; a rid has 26 and an appid 18.
const WORD_CHARS_MAX: usize = 31;

fn hide_long_words(text: &str) -> String {
    let is_word = |c: char| c.is_ascii_alphanumeric() || c == '_' || c == '-';
    let hide = |piece: &str| {
        let gap = piece.trim_start_matches(is_word);
        if piece.len() - gap.len() > WORD_CHARS_MAX { format!("***{gap}") } else { piece.to_owned() }
    };
    text.split_inclusive(|c| !is_word(c)).map(hide).collect()
}

/// An answer may be cut anywhere, as in `"access_token":"abc`: everything from the value's quote to the next is hidden.
fn hide_after_field(text: &str, field: &str) -> String {
    let mut clean = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(at) = rest.find(field) {
        let (before, after) = rest.split_at(at + field.len());
        clean.push_str(before);
        let value = after.trim_start_matches(['"', ' ', ':', '=', '\\', '\t']);
        let lead = after.len() - value.len();
        clean.push_str(&after[..lead]);
        rest = if lead > 0 && after[..lead].contains([':', '=']) {
            clean.push_str("***");
            value.find(['"', '&', ',', '}']).map_or("", |end| &value[end..])
        } else {
            value
        };
    }
    clean.push_str(rest);
    clean
}

#[cfg(test)]
mod tests {
    use super::*;

    const TOKEN: ApiCall = ApiCall { platform: "mp", endpoint: ApiEndpoint::StableToken };

    #[test]
    fn the_ip_and_the_rid_are_found_in_every_shape() {
        let cases = [
            (
                "invalid ip 1.2.3.4 ipv6 ::ffff:1.2.3.4, not in whitelist rid: 64d2e8b1-4d4aab5f-5bd0e1a5",
                Some("1.2.3.4"),
                Some("64d2e8b1-4d4aab5f-5bd0e1a5"),
            ),
            ("invalid ip 1.2.3.4, not in whitelist hint: [AbC123]", Some("1.2.3.4"), None),
            ("invalid ip 2001:db8::1, not in whitelist", Some("2001:db8::1"), None),
            ("not allow to access from your ip, hint: [16], from ip: 9.8.7.6, more info", Some("9.8.7.6"), None),
            ("invalid appsecret, rid: 64d2e8b1-4d4aab5f-5bd0e1a5", None, Some("64d2e8b1-4d4aab5f-5bd0e1a5")),
            ("ip 999.1.1.1 :: rid: ", None, None),
        ];
        for (text, ip, rid) in cases {
            let failure = Failure::refused(TOKEN, "wx1", 40164, text.to_owned());
            assert_eq!(failure.seen_ip.map(|ip| ip.to_string()).as_deref(), ip, "{text}");
            assert_eq!(failure.rid.as_deref(), rid, "{text}");
            assert!(rid.is_none_or(|rid| !failure.to_string().contains(rid)), "twice: {failure}");
        }
    }

    #[test]
    fn the_advice_for_40164_names_the_ip_and_the_app() {
        let failure = Failure::refused(TOKEN, "wx1", 40164, "invalid ip 1.2.3.4, not in whitelist".into());
        assert_eq!(
            failure.advice(),
            "WeChat saw IP 1.2.3.4; add it to the IP allow-list of app wx1 at mp.weixin.qq.com (takes 5-10 min)"
        );
    }

    #[test]
    fn scrubbing_removes_secrets_tokens_and_control_characters() {
        assert_eq!(scrub("secret=hush!", &["hush"]), "secret=***!");
        assert_eq!(scrub("a\r\nSTORED\u{1b}[1m", &[]), "a STORED?[1m");
        assert_eq!(scrub(&format!("x {} y", "A1_-".repeat(10)), &[]), "x *** y");
        assert_eq!(scrub("{\"access_token\":\"short-tok", &[]), "{\"access_token\":\"***");
        assert_eq!(scrub("?access_token=tok&x=1", &[]), "?access_token=***&x=1");
        assert_eq!(
            scrub("invalid credential, access_token is invalid or not latest", &[]),
            "invalid credential, access_token is invalid or not latest"
        );
        assert!(scrub(&"\u{1}".repeat(500), &[]).chars().count() <= MESSAGE_CHARS_MAX);
        assert!(scrub(&"字 ".repeat(500), &[]).chars().count() <= MESSAGE_CHARS_MAX);
    }

    proptest::proptest! {
        #[test]
        fn scrubbing_is_bounded_and_clean(text in "\\PC{0,400}|[\\x00-\\x7f]{0,400}") {
            let clean = scrub(&text, &["secret"]);
            proptest::prop_assert!(clean.chars().count() <= MESSAGE_CHARS_MAX);
            proptest::prop_assert!(!clean.chars().any(char::is_control));
            proptest::prop_assert!(!clean.contains("secret"));
        }
    }
}
