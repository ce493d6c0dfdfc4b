//! What an error from WeChat means: whose fault it is, whether asking again can help, and what to do about it.
//!
//! Pure. Matching is on the errcode only; texts change, so they are searched for the IP and the rid and nothing else.

use std::borrow::Cow;
use std::net::IpAddr;

use crate::descriptors;
use crate::https::NetworkFault;

/// What the refresher should do about a failure.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Class {
    /// Passes by itself: ask again with backoff.
    Retry,
    /// WeChat named a time before which asking is useless or harmful.
    Wait(Wait),
    /// Somebody has to change something; look again now and then.
    Operator(Pace),
    /// This program sent something it should not have.
    OwnBug,
}

/// How long a [`Class::Wait`] lasts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wait {
    /// At least so many milliseconds.
    AtLeastMs(u64),
    /// A daily quota is gone: until midnight in UTC+8. WeChat does not publish the hour, so look now and then.
    NextDay,
}

/// How often to look whether the operator has acted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Pace {
    /// Every one to five minutes: the repair is expected soon.
    Soon,
    /// Every ten to thirty minutes.
    Slow,
}

impl Class {
    /// One word for logs and statistics.
    pub fn name(self) -> &'static str {
        match self {
            Class::Retry => "retry",
            Class::Wait(_) => "wait",
            Class::Operator(_) => "operator",
            Class::OwnBug => "own-bug",
        }
    }
}

/// How far a failed call got. Decides whether the classic endpoint may have minted a token we never saw.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sent {
    /// WeChat can't have seen it.
    NotSent,
    /// It may have reached WeChat and worked.
    Ambiguous,
    /// WeChat refused it in so many words.
    Answered,
}

/// What a call may need besides a secret.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Missing {
    /// The app's own, on purpose.
    Secret,
    VerifyTicket,
    RefreshToken,
    /// The live token of the app, or of the component, that it is asked with.
    Token,
    /// The state that several nodes share.
    SharedState,
    /// A file descriptor, for a moment.
    Descriptor,
}

impl Missing {
    fn remedy(self) -> &'static str {
        match self {
            Missing::SharedState => {
                "see why the shared state is out of reach; until it is back, the token is served to its end"
            }
            Missing::Descriptor => descriptors::REMEDY,
            Missing::Secret => "see that a node with the app's secret runs and that this one reaches what they share",
            Missing::VerifyTicket => PUSHES,
            Missing::Token => "see why that one is missing; this is asked for as soon as it is there",
            Missing::RefreshToken => {
                "put the merchant's refresh token in place; a changed file is tried within seconds"
            }
        }
    }
}

/// A call that brought no token.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{}", self.sentence())]
pub struct Failure {
    pub class: Class,
    pub errcode: Option<i64>,
    /// What went wrong, fit for a log: no secret, no token, no control characters, at most 200 characters.
    pub message: String,
    /// WeChat's own name for the call; it can be looked up at mp.weixin.qq.com.
    pub rid: Option<String>,
    /// The address WeChat saw us come from, if it said so.
    pub seen_ip: Option<IpAddr>,
    pub sent: Sent,
    pub appid: Box<str>,
    /// What the call could not be made without, if it is not the secret.
    pub missing: Option<Missing>,
    /// Why there was no answer, if that is why it failed.
    pub network: Option<NetworkFault>,
}

impl Failure {
    /// A failure without an errcode: network, TLS, a broken answer.
    pub fn transport(appid: &str, sent: Sent, message: impl Into<String>) -> Failure {
        let mut message = message.into();
        // An excerpt of an answer is bounded, but something may have been put before it.
        if let Some((cut, _)) = message.char_indices().nth(MESSAGE_CHARS_MAX) {
            message.truncate(cut);
        }
        Failure {
            class: Class::Retry,
            errcode: None,
            message,
            rid: None,
            seen_ip: None,
            sent,
            appid: appid.into(),
            missing: None,
            network: None,
        }
    }

    /// WeChat's refusal. `message` has been scrubbed.
    pub fn refused(appid: &str, errcode: i64, message: String) -> Failure {
        Failure {
            class: classify(errcode),
            errcode: Some(errcode),
            rid: find_rid(&message),
            seen_ip: find_ip(&message),
            message,
            sent: Sent::Answered,
            appid: appid.into(),
            missing: None,
            network: None,
        }
    }

    /// The operator's own files are not in order; nothing was sent.
    pub fn unusable(appid: &str, message: impl Into<String>) -> Failure {
        Failure { class: Class::Operator(Pace::Slow), ..Failure::transport(appid, Sent::NotSent, message) }
    }

    /// WeChat has not pushed a verify ticket yet, or it has not been handed on; nothing was sent.
    pub fn no_ticket(appid: &str) -> Failure {
        let message = "there is no component_verify_ticket yet";
        let class = Class::Operator(Pace::Soon);
        Failure { class, missing: Some(Missing::VerifyTicket), ..Failure::transport(appid, Sent::NotSent, message) }
    }

    /// This process has used up its file descriptors; nothing was sent. That passes, and is nobody else's fault.
    pub fn no_descriptor(appid: &str, message: impl Into<String>) -> Failure {
        Failure { missing: Some(Missing::Descriptor), ..Failure::transport(appid, Sent::NotSent, message) }
    }

    /// The token it is asked with is not there; nothing was sent.
    pub fn no_token(appid: &str, message: &str) -> Failure {
        Failure { missing: Some(Missing::Token), ..Failure::transport(appid, Sent::NotSent, message) }
    }

    /// There is no refresh token left to try; nothing was sent.
    pub fn no_refresh_token(appid: &str, reason: String) -> Failure {
        Failure { missing: Some(Missing::RefreshToken), ..Failure::unusable(appid, reason) }
    }

    /// Other nodes may be renewing it, and the state that they share is out of reach.
    pub fn no_shared_state(appid: &str, message: String) -> Failure {
        Failure { missing: Some(Missing::SharedState), ..Failure::transport(appid, Sent::NotSent, message) }
    }

    /// This node has no secret of the app: others fetch, it only follows. Nothing was sent, and nothing ever is.
    pub fn followed(appid: &str) -> Failure {
        let message = "this node has no secret of the app and only follows the nodes that have it";
        Failure { missing: Some(Missing::Secret), ..Failure::unusable(appid, message) }
    }

    /// Our own ledger holds the call back; nothing was sent.
    pub fn held_back(appid: &str, message: String) -> Failure {
        let class = Class::Wait(Wait::NextDay);
        Failure { class, ..Failure::transport(appid, Sent::NotSent, message) }
    }

    /// What to do, in a sentence for the operator.
    pub fn advice(&self) -> Cow<'static, str> {
        match (self.errcode, self.seen_ip) {
            (Some(40164 | 61004 | 45035 | 60020), Some(ip)) => Cow::Owned(format!(
                "WeChat saw IP {ip}; add it to the IP allow-list of app {} at mp.weixin.qq.com (takes 5-10 min)",
                self.appid
            )),
            (Some(code), _) => Cow::Borrowed(known(code).map_or(UNKNOWN_REMEDY, |known| known.remedy)),
            (None, _) => Cow::Borrowed(self.transport_advice()),
        }
    }

    fn transport_advice(&self) -> &'static str {
        if let Some(missing) = self.missing {
            missing.remedy()
        } else if self.sent == Sent::NotSent && matches!(self.class, Class::Operator(_)) {
            "put the app's secret in place; a changed secret is tried within seconds"
        } else if matches!(self.class, Class::Wait(_)) {
            "nothing, if it passes; if the app has a larger quota, set its daily_quota; stable_token has its own"
        } else if self.message.contains("certificate") {
            "check that no proxy intercepts TLS (else configure its root as ca_file) and that the clock is right"
        } else if self.sent == Sent::NotSent {
            "check DNS, routing, firewall and proxy between this machine and WeChat"
        } else {
            "nothing, if it passes; if it stays, check what sits between this machine and WeChat"
        }
    }

    fn sentence(&self) -> String {
        match self.errcode {
            Some(code) => {
                let meaning = known(code).map_or("unknown error", |known| known.meaning);
                format!("errcode {code} ({meaning}): {}", self.message)
            }
            None => self.message.clone(),
        }
    }
}

/// One errcode WeChat's token endpoints give.
#[derive(Clone, Copy, Debug)]
pub struct Known {
    pub code: i64,
    pub class: Class,
    pub meaning: &'static str,
    pub remedy: &'static str,
}

/// What an errcode asks for. An unknown one is looked at slowly: fast retries might spend a quota.
pub fn classify(errcode: i64) -> Class {
    known(errcode).map_or(Class::Operator(Pace::Slow), |known| known.class)
}

/// The table's line for an errcode.
pub fn known(errcode: i64) -> Option<&'static Known> {
    KNOWN.iter().find(|known| known.code == errcode)
}

const UNKNOWN_REMEDY: &str =
    "look the errcode up in WeChat's documentation; the rid can be queried at mp.weixin.qq.com";

const SOON: Class = Class::Operator(Pace::Soon);
const SLOW: Class = Class::Operator(Pace::Slow);
const MINUTE_MS: u64 = 60_000;
const HOUR_MS: u64 = 60 * MINUTE_MS;

const fn wait(ms: u64) -> Class {
    Class::Wait(Wait::AtLeastMs(ms))
}

const fn line(code: i64, class: Class, meaning: &'static str, remedy: &'static str) -> Known {
    Known { code, class, meaning, remedy }
}

const ALLOW_LIST: &str = "add this machine's outgoing IP to the app's allow-list at mp.weixin.qq.com (takes 5-10 min)";
const REPORT_BUG: &str = "check the app's appid and secret; if they are right, please report this as a bug";

const AUTHORISE_AGAIN: &str =
    "ask the merchant to authorise again, and put the new refresh token in place; a changed file is tried in seconds";
const PUSHES: &str = "WeChat pushes a ticket every 10 minutes to the address for authorisation events set at \
    open.weixin.qq.com: see that its receiver is reached and writes what it gets to verify_ticket_file";
const NEXT_TICKET: &str = "nothing, if WeChat's pushes arrive: it sends a ticket every 10 minutes, and a new one is \
    tried at once; else see that the receiver of its pushes hands them on";

/// Every errcode the token endpoints are known to give.
pub const KNOWN: &[Known] = &[
    line(-1, Class::Retry, "WeChat is busy", "nothing; it is tried again"),
    line(40001, SLOW, "wrong app secret", "put the app's current secret in place; a changed file is tried in seconds"),
    line(40002, Class::OwnBug, "bad grant_type", REPORT_BUG),
    line(43002, Class::OwnBug, "must be posted", REPORT_BUG),
    line(41002, Class::OwnBug, "appid missing", REPORT_BUG),
    line(41004, Class::OwnBug, "secret missing", REPORT_BUG),
    line(40013, SLOW, "unknown appid", "correct the appid in the configuration"),
    line(40125, SLOW, "wrong app secret", "put the app's current secret in place; a changed file is tried in seconds"),
    line(40164, SOON, "our IP is not on the allow-list", ALLOW_LIST),
    line(61004, SOON, "our IP is not on the allow-list", ALLOW_LIST),
    line(45035, SOON, "our IP is not on the allow-list", ALLOW_LIST),
    line(60020, SOON, "our IP is not on the allow-list", ALLOW_LIST),
    line(40243, SLOW, "app secret frozen", "unfreeze the secret at mp.weixin.qq.com (takes about 10 min)"),
    line(
        45009,
        Class::Wait(Wait::NextDay),
        "daily quota used up",
        "wait for the next day, clear the quota (clear_quota/v2), or use the stable_token endpoint, which has its own",
    ),
    line(45011, wait(MINUTE_MS), "too many calls this minute", "nothing; it is tried again after a minute"),
    line(45033, Class::Retry, "too many calls at once", "nothing; it is tried again"),
    line(
        48017,
        Class::Retry,
        "retired entry address",
        "remove pinned WeChat addresses from /etc/hosts, proxies and DNS caches",
    ),
    line(50002, SLOW, "account frozen, cancelled or moved", "ask at mp.weixin.qq.com what happened to the account"),
    line(
        50004,
        SLOW,
        "barred from the token interface",
        "read the notice at mp.weixin.qq.com; WeChat calls it a penalty",
    ),
    line(50007, SLOW, "account frozen", "ask at mp.weixin.qq.com what happened to the account"),
    line(
        61024,
        SLOW,
        "a component account",
        "this account is a third-party platform: give it kind = \"component\" in the configuration",
    ),
    line(
        89501,
        wait(10 * MINUTE_MS),
        "the administrator has been asked to confirm our IP",
        "let the account's administrator confirm the request on their phone",
    ),
    line(
        89503,
        wait(10 * MINUTE_MS),
        "the administrator must confirm our IP",
        "let the account's administrator confirm the request on their phone, or use the IP allow-list",
    ),
    line(89507, wait(HOUR_MS), "the administrator refused our IP, for an hour", "talk to the account's administrator"),
    line(
        89506,
        wait(24 * HOUR_MS),
        "the administrator refused our IP, for a day",
        "talk to the account's administrator",
    ),
    line(40091, SLOW, "invalid secret (WeCom)", "put the app's current secret in place"),
    line(61003, SLOW, "the account has not authorised this component", AUTHORISE_AGAIN),
    line(61023, SLOW, "refresh token invalid", AUTHORISE_AGAIN),
    line(61005, wait(10 * MINUTE_MS), "verify ticket expired", NEXT_TICKET),
    line(61006, wait(10 * MINUTE_MS), "verify ticket invalid", NEXT_TICKET),
    line(42009, Class::Retry, "suite or component token expired", "nothing; that token is renewed first"),
    line(40082, Class::Retry, "suite or component token invalid", "nothing; that token is renewed first"),
];

/// The address in a text such as `invalid ip 1.2.3.4 ipv6 ::ffff:1.2.3.4, not in whitelist`.
fn find_ip(text: &str) -> Option<IpAddr> {
    text.split(|c: char| !(c.is_ascii_hexdigit() || c == '.' || c == ':'))
        .map(|word| word.trim_end_matches([':', '.']))
        .filter(|word| word.len() >= 3 && (word.contains('.') || word.matches(':').count() >= 2))
        .find_map(|word| word.parse::<IpAddr>().ok())
        .map(|ip| ip.to_canonical())
}

/// The request id in a text such as `invalid appid rid: 64d2e8b1-4d4aab5f-5bd0e1a5`.
fn find_rid(text: &str) -> Option<String> {
    let after = text.split_once("rid:")?.1.trim_start();
    let rid: String = after.chars().take_while(|c| c.is_ascii_alphanumeric() || *c == '-').take(64).collect();
    (rid.len() >= 8).then_some(rid)
}

/// The longest text from outside that is kept.
pub const MESSAGE_CHARS_MAX: usize = 200;

/// Makes a text from outside fit for a log: what is secret goes, control characters are escaped, the rest is cut.
/// `hidden` are values known to be secret; anything that looks like a token goes as well.
pub fn scrub(text: &str, hidden: &[&str]) -> String {
    // Fields first: a replaced secret might tear a field's name.
    let hide = |text: String, field: &&str| hide_after_field(&text, field);
    let mut text = hide_long_words(&SECRET_FIELDS.iter().fold(text.to_owned(), hide));
    for secret in hidden.iter().filter(|secret| !secret.is_empty()) {
        if text.contains(secret) {
            text = text.replace(secret, "***");
        }
    }
    let mut clean = String::new();
    for c in text.chars().take(MESSAGE_CHARS_MAX) {
        // Escapes are counted as the characters they become, so the result is bounded too.
        if c.is_control() || matches!(c, '\u{2028}' | '\u{2029}' | '\u{202a}'..='\u{202e}' | '\u{feff}') {
            clean.extend(c.escape_unicode());
        } else {
            clean.push(c);
        }
    }
    match clean.char_indices().nth(MESSAGE_CHARS_MAX) {
        Some((cut, _)) => clean[..cut].to_owned(),
        None => clean,
    }
}

/// Fields whose values are tokens. They are looked for inside words too: `component_access_token`.
const SECRET_FIELDS: [&str; 3] = ["access_token", "refresh_token", "verify_ticket"];

/// Secrets are 32 characters, tokens more; a rid has 26 and an appid 18.
const WORD_CHARS_MAX: usize = 31;

fn hide_long_words(text: &str) -> String {
    let is_word = |c: char| c.is_ascii_alphanumeric() || c == '_' || c == '-';
    let mut clean = String::with_capacity(text.len());
    let mut rest = text;
    while !rest.is_empty() {
        let word = rest.find(|c| !is_word(c)).unwrap_or(rest.len());
        clean.push_str(if word > WORD_CHARS_MAX { "***" } else { &rest[..word] });
        rest = &rest[word..];
        let gap = rest.find(is_word).unwrap_or(rest.len());
        clean.push_str(&rest[..gap]);
        rest = &rest[gap..];
    }
    clean
}

/// `"access_token":"abc` may be torn anywhere: everything from the value's quote to the next one goes.
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

    #[test]
    fn every_known_code_has_one_line_with_a_meaning_and_a_remedy() {
        for known in KNOWN {
            assert!(!known.meaning.is_empty() && !known.remedy.is_empty(), "{}", known.code);
            assert_eq!(KNOWN.iter().filter(|other| other.code == known.code).count(), 1, "{}", known.code);
        }
    }

    #[test]
    fn error_classes() {
        let expected = [
            (Class::Retry, &[-1, 48017, 45033, 42009, 40082][..]),
            (SLOW, &[40001, 40013, 40125, 40243, 50002, 50004, 50007, 61024, 40091, 61003, 61023]),
            (SOON, &[40164, 61004, 45035, 60020]),
            (Class::OwnBug, &[40002, 43002, 41002, 41004]),
            (Class::Wait(Wait::NextDay), &[45009]),
            (wait(60_000), &[45011]),
            (wait(600_000), &[89501, 89503, 61005, 61006]),
            (wait(3_600_000), &[89507]),
            (wait(86_400_000), &[89506]),
        ];
        for (class, codes) in expected {
            for code in codes {
                assert_eq!(classify(*code), class, "{code}");
            }
        }
        assert_eq!(expected.iter().map(|(_, codes)| codes.len()).sum::<usize>(), KNOWN.len());
    }

    #[test]
    fn an_unknown_code_is_never_retried_fast() {
        assert_eq!(classify(12345), SLOW);
    }

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
            let failure = Failure::refused("wx1", 40164, text.to_owned());
            assert_eq!(failure.seen_ip.map(|ip| ip.to_string()).as_deref(), ip, "{text}");
            assert_eq!(failure.rid.as_deref(), rid, "{text}");
        }
    }

    #[test]
    fn the_advice_for_40164_names_the_ip_and_the_app() {
        let failure = Failure::refused("wx1", 40164, "invalid ip 1.2.3.4, not in whitelist".into());
        assert_eq!(
            failure.advice(),
            "WeChat saw IP 1.2.3.4; add it to the IP allow-list of app wx1 at mp.weixin.qq.com (takes 5-10 min)"
        );
    }

    #[test]
    fn scrubbing_removes_secrets_tokens_and_control_characters() {
        assert_eq!(scrub("secret=hush!", &["hush"]), "secret=***!");
        assert_eq!(scrub("a\r\nSTORED\u{1b}[1m", &[]), "a\\u{d}\\u{a}STORED\\u{1b}[1m");
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
