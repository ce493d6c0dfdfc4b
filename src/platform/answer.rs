//! Reads a platform's answer. Pure: bytes in, a token or a failure out.
//!
//! Success is a non-empty string in the value's field (`access_token`, `ticket`) and no errcode other than 0. Never takes
//! anything else for a token, and never takes a broken answer for a refusal: that is a reason to try again.

use std::collections::HashMap;

use bytes::Bytes;
use serde::de::{Deserialize, Deserializer, MapAccess, Visitor};
use serde_json::Value;

use super::errcodes;
use super::failure::{Class, Delivery, Failure, Missing, scrub};
use crate::platform::{AnswerFields, ApiCall, CredentialType};
use crate::secret::Secret;

/// A token or ticket that the platform gave. `Debug` never shows it.
#[derive(Clone, PartialEq, Eq)]
pub struct Token {
    /// Byte for byte as given: 1 to [`TOKEN_BYTES_MAX`] bytes of printable ASCII without blanks.
    pub value: Bytes,
    /// How many seconds the token still lives; where [`Token::lifetime_source`] says so, an assumption.
    pub expires_in_s: u64,
    pub lifetime_source: LifetimeSource,
    /// The refresh token for the next renewal, if the answer brought one.
    pub refresh: Option<Secret>,
}

impl Token {
    /// The same token, if its type lives no longer than that: a wrong lifetime must not be believed for a month.
    pub fn limit_lifetime(self, life_ms_max: u64) -> Token {
        if self.expires_in_s.saturating_mul(1000) <= life_ms_max {
            return self;
        }
        Token { expires_in_s: LIFE_S_USUAL, lifetime_source: LifetimeSource::TooLong, ..self }
    }
}

impl std::fmt::Debug for Token {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Token")
            .field("expires_in_s", &self.expires_in_s)
            .field("lifetime_source", &self.lifetime_source)
            .finish_non_exhaustive()
    }
}

/// Where a token's lifetime comes from: what the answer has in `expires_in`. All but `AsGiven` are
/// worth a warning, which says what is assumed instead.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LifetimeSource {
    AsGiven,
    Zero,
    Missing,
    Unusable,
    /// Over 30 days, or longer than values of its type live; 7200 s are assumed.
    TooLong,
}

impl LifetimeSource {
    pub fn warning(self) -> Option<&'static str> {
        match self {
            LifetimeSource::AsGiven => None,
            LifetimeSource::Zero => Some("expires_in was 0; assuming 60 s"),
            LifetimeSource::Missing => Some("expires_in was missing; assuming 6900 s"),
            LifetimeSource::Unusable => Some("expires_in was not a usable number; assuming 60 s"),
            LifetimeSource::TooLong => Some(
                "expires_in was longer than any value of this type lives; assuming 7200 s: see what answers at base_url",
            ),
        }
    }
}

/// The result of a probe: whether the platform accepts the token.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Probe {
    Alive,
    /// Refused as invalid, not the latest, or expired; with the errcode.
    Dead(i64),
    /// This app may not make the call now: its quota is used up, or it has no right. That says nothing about the token.
    /// With the errcode.
    Withheld(i64),
    /// Not known: network trouble, or the platform is busy.
    Unknown,
}

/// The longest token that is taken. WeChat says to reserve 512 bytes, Feishu 4 KB; this is twice that.
pub const TOKEN_BYTES_MAX: usize = 8192;

const LIFE_S_MAX: f64 = 30.0 * 86_400.0;
const LIFE_S_USUAL: u64 = 7_200;

/// Reads the answer to a fetch. `hidden` must not show in a failure: the secret, and the token the call was made with.
pub fn read_token(
    credential_type: &CredentialType,
    appid: &str,
    hidden: &[&str],
    status: u16,
    body: &[u8],
) -> Result<Token, Failure> {
    read_answer(credential_type.api, &credential_type.answer_fields, appid, hidden, status, body)
}

pub fn read_answer(
    api: ApiCall,
    answer_fields: &AnswerFields,
    appid: &str,
    hidden: &[&str],
    status: u16,
    body: &[u8],
) -> Result<Token, Failure> {
    let parsed = parse(answer_fields, body);
    if let Ok(fields) = &parsed
        && let Some(code) = fields.code().filter(|code| *code != 0)
    {
        return Err(Failure::refused(api, appid, code, scrub(&fields.message(), hidden)));
    }
    let broken = |delivery: Delivery, missing: Option<Missing>, what: &str| {
        let head = &body[..body.len().min(4096)];
        let excerpt = scrub(String::from_utf8_lossy(head).trim(), hidden);
        Failure::broken_answer(appid, delivery, missing, format!("{what}: {excerpt}"))
    };
    if !(200..300).contains(&status) {
        let is_refusal = (300..500).contains(&status);
        let delivery = if is_refusal { Delivery::Answered } else { Delivery::Ambiguous };
        // Platforms refuse with an errcode and status 200. A redirect or a client error without an errcode comes from
        // something else, except for these three, which pass.
        let missing = (is_refusal && !matches!(status, 408 | 425 | 429)).then_some(Missing::Platform);
        return Err(broken(delivery, missing, &format!("HTTP status {status}")));
    }
    // An answer that is cut off may have had a token that the classic endpoint has just made.
    if trim(body).first() == Some(&b'<') {
        return Err(broken(Delivery::Ambiguous, Some(Missing::Platform), "the answer is a page, not JSON"));
    }
    let fields = parsed.map_err(|what| broken(Delivery::Ambiguous, None, what))?;
    let value = fields.value(appid)?;
    let (expires_in_s, lifetime_source) = read_lifetime(fields.get(answer_fields.life));
    Ok(Token { value, expires_in_s, lifetime_source, refresh: fields.refresh() })
}

/// Reads the answer to a probe; `api` is that call.
pub fn read_probe(api: ApiCall, status: u16, body: &[u8]) -> Probe {
    const ANSWER_FIELDS: AnswerFields = AnswerFields::of("ip_list");
    let Ok(fields) = parse(&ANSWER_FIELDS, body) else { return Probe::Unknown };
    match fields.code() {
        Some(0) if status == 200 && fields.get(ANSWER_FIELDS.value).is_some() => Probe::Alive,
        Some(0) | None => Probe::Unknown,
        Some(code) => match errcodes::find(api, code) {
            Some(row) if row.refuses_token => Probe::Dead(code),
            // Busy, or an address that is not in service any more.
            Some(row) if row.class == Class::Retry => Probe::Unknown,
            _ => Probe::Withheld(code),
        },
    }
}

/// An answer's fields. An answer with the same key twice is refused: two readers might take different ones.
struct AnswerObject<'a> {
    values: HashMap<String, Value>,
    answer_fields: &'a AnswerFields,
}

/// A JSON object in which no key is there twice.
struct UniqueKeys(HashMap<String, Value>);

impl<'de> Deserialize<'de> for UniqueKeys {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<UniqueKeys, D::Error> {
        struct Object;
        impl<'de> Visitor<'de> for Object {
            type Value = UniqueKeys;

            fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str("an object")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<UniqueKeys, A::Error> {
                let mut values = HashMap::new();
                while let Some((key, value)) = map.next_entry()? {
                    if values.insert(key, value).is_some() {
                        return Err(serde::de::Error::custom("a key is given twice"));
                    }
                }
                Ok(UniqueKeys(values))
            }
        }
        deserializer.deserialize_map(Object)
    }
}

impl AnswerObject<'_> {
    /// The field, if it is there and not null.
    fn get(&self, name: &str) -> Option<&Value> {
        self.values.get(name).filter(|value| !value.is_null())
    }

    /// The errcode; 0 if there is none, and none if what is there is no integer.
    fn code(&self) -> Option<i64> {
        match self.get(self.answer_fields.code) {
            None => Some(0),
            Some(Value::Number(number)) => number.as_i64(),
            Some(Value::String(text)) => text.trim().parse().ok(),
            Some(_) => None,
        }
    }

    fn message(&self) -> String {
        match self.get(self.answer_fields.message) {
            Some(Value::String(text)) => text.clone(),
            Some(other) => other.to_string(),
            None => "no message".to_owned(),
        }
    }

    fn value(&self, appid: &str) -> Result<Bytes, Failure> {
        let AnswerFields { value: name, code, .. } = self.answer_fields;
        let what = match self.get(name) {
            _ if self.code().is_none() => format!("the answer's {code} is not a number"),
            None => format!("the answer has neither {name} nor {code}"),
            Some(Value::String(text)) if text.is_empty() => format!("the answer's {name} is empty"),
            // With a line end here the answer could write protocol lines to every client.
            Some(Value::String(text)) if !is_plain(text) => {
                format!("the answer's {name} has characters a token cannot have")
            }
            Some(Value::String(text)) if text.len() > TOKEN_BYTES_MAX => {
                let bytes = text.len();
                let what =
                    format!("the answer's {name} has {bytes} bytes, and this server holds {TOKEN_BYTES_MAX} at most");
                return Err(Failure::value_too_long(appid, what));
            }
            Some(Value::String(text)) => return Ok(Bytes::copy_from_slice(text.as_bytes())),
            Some(_) => format!("the answer's {name} is not a string"),
        };
        Err(Failure::broken_answer(appid, Delivery::Ambiguous, None, what))
    }

    /// The refresh token. One that cannot be used counts as none: the answer's token is good, and the present refresh
    /// token stays.
    fn refresh(&self) -> Option<Secret> {
        let text = self.get(self.answer_fields.refresh?)?.as_str()?;
        is_token(text).then(|| Secret::new(text.to_owned()))
    }
}

/// Whether a text can be a token: 1 to [`TOKEN_BYTES_MAX`] bytes of printable ASCII without blanks.
pub fn is_token(text: &str) -> bool {
    (1..=TOKEN_BYTES_MAX).contains(&text.len()) && is_plain(text)
}

fn is_plain(text: &str) -> bool {
    text.bytes().all(|byte| byte.is_ascii_graphic())
}

fn parse<'a>(answer_fields: &'a AnswerFields, body: &[u8]) -> Result<AnswerObject<'a>, &'static str> {
    let body = trim(body);
    if body.is_empty() {
        return Err("the answer is empty");
    }
    let parsed: Result<UniqueKeys, serde_json::Error> = serde_json::from_slice(body);
    parsed.map(|UniqueKeys(values)| AnswerObject { values, answer_fields }).map_err(|error| match error.classify() {
        serde_json::error::Category::Eof => "the answer is torn",
        _ => "the answer is not the JSON object expected",
    })
}

/// Removes byte order marks, blanks and control characters around the JSON: they have been seen and do no harm.
fn trim(mut body: &[u8]) -> &[u8] {
    const BOM: &[u8] = b"\xef\xbb\xbf";
    loop {
        body = match body {
            [first, rest @ ..] if *first <= b' ' || *first == 0x7f => rest,
            [rest @ .., last] if *last <= b' ' || *last == 0x7f => rest,
            _ => match (body.strip_prefix(BOM), body.strip_suffix(BOM)) {
                (Some(rest), _) | (None, Some(rest)) => rest,
                (None, None) => return body,
            },
        }
    }
}

fn read_lifetime(expires_in: Option<&Value>) -> (u64, LifetimeSource) {
    let seconds = match expires_in {
        None => return (7200 - 300, LifetimeSource::Missing),
        Some(Value::Number(number)) => number.as_f64(),
        Some(Value::String(text)) => text.trim().parse::<f64>().ok(),
        Some(_) => None,
    };
    match seconds {
        Some(seconds) if seconds > LIFE_S_MAX => (LIFE_S_USUAL, LifetimeSource::TooLong),
        // Rounded down, as WeChat does: no token may be thought to live longer than it does.
        Some(seconds) if seconds >= 1.0 => (seconds as u64, LifetimeSource::AsGiven),
        Some(seconds) if (0.0..1.0).contains(&seconds) => (60, LifetimeSource::Zero),
        _ => (60, LifetimeSource::Unusable),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::platform::failure::Pace;
    use crate::platform::{component, mp};

    static STABLE: &CredentialType = &mp::STABLE;
    const PROBE: ApiCall = mp::PROBE.api();

    fn read(body: &str) -> Result<Token, Failure> {
        read_token(STABLE, "wx1", &["s3cr3t"], 200, body.as_bytes())
    }

    fn accepted(body: &str) -> (String, u64, LifetimeSource) {
        let token = read(body).unwrap();
        (String::from_utf8(token.value.to_vec()).unwrap(), token.expires_in_s, token.lifetime_source)
    }

    #[test]
    fn a_plain_answer_is_taken_as_it_is() {
        assert_eq!(accepted(r#"{"access_token":"T","expires_in":7200}"#), ("T".into(), 7200, LifetimeSource::AsGiven));
        assert_eq!(
            accepted(r#"{"errcode":0,"access_token":"T","expires_in":345}"#),
            ("T".into(), 345, LifetimeSource::AsGiven)
        );
        assert_eq!(
            accepted(r#"{"errcode":"0","access_token":"T","expires_in":2}"#),
            ("T".into(), 2, LifetimeSource::AsGiven)
        );
    }

    #[test]
    fn a_failure_quotes_a_bounded_part_of_a_broken_answer() {
        for body in ["\u{1}".repeat(4000), "a ".repeat(4000), "{\"errcode\": \"\u{20ac} ".repeat(500)] {
            let message = read(&body).unwrap_err().message;
            assert_eq!(message.chars().count(), crate::platform::failure::MESSAGE_CHARS_MAX, "{message}");
        }
        let page = read_token(STABLE, "wx1", &[], 502, "a ".repeat(4000).as_bytes()).unwrap_err().message;
        assert!(page.starts_with("HTTP status 502: a a"), "{page}");
        assert_eq!(page.chars().count(), crate::platform::failure::MESSAGE_CHARS_MAX, "{page}");
    }

    #[test]
    fn a_new_refresh_token_is_taken_along_and_an_unusable_one_does_no_harm() {
        let credential_type = &component::AUTHORIZER;
        let body = |refresh: &str| {
            format!(r#"{{"authorizer_access_token":"T","expires_in":9,"authorizer_refresh_token":{refresh}}}"#)
        };
        let read = |refresh: &str| {
            let token = read_token(credential_type, "wx1", &[], 200, body(refresh).as_bytes()).unwrap();
            token.refresh.map(|secret| secret.expose().to_owned())
        };
        assert_eq!(read(r#""refreshtoken@@@R""#).as_deref(), Some("refreshtoken@@@R"));
        let long = format!("\"{}\"", "a".repeat(TOKEN_BYTES_MAX + 1));
        for unusable in ["\"\"", "\"a b\"", r#""a\u0000""#, "null", "5", &long] {
            assert_eq!(read(unusable), None, "{unusable}");
        }
        let torn = body("\"refreshtoken@@@Rx");
        let failure = read_token(credential_type, "wx1", &[], 200, torn.trim_end_matches('}').as_bytes()).unwrap_err();
        assert!(!failure.message.contains("Rx"), "{}", failure.message);
    }

    #[test]
    fn a_lifetime_is_understood_in_every_shape_or_replaced_with_a_warning() {
        let cases = [
            (r#""7200""#, 7200, LifetimeSource::AsGiven),
            ("7200.5", 7200, LifetimeSource::AsGiven),
            ("30", 30, LifetimeSource::AsGiven),
            ("1", 1, LifetimeSource::AsGiven),
            ("2592000", 2_592_000, LifetimeSource::AsGiven),
            ("2592001", 7200, LifetimeSource::TooLong),
            ("1e12", 7200, LifetimeSource::TooLong),
            (r#""inf""#, 7200, LifetimeSource::TooLong),
            ("0", 60, LifetimeSource::Zero),
            ("-1", 60, LifetimeSource::Unusable),
            (r#""NaN""#, 60, LifetimeSource::Unusable),
            (r#""soon""#, 60, LifetimeSource::Unusable),
            ("[7200]", 60, LifetimeSource::Unusable),
            ("null", 6900, LifetimeSource::Missing),
        ];
        for (given, seconds, lifetime_source) in cases {
            let (_, got, how) = accepted(&format!(r#"{{"access_token":"T","expires_in":{given}}}"#));
            assert_eq!((got, how), (seconds, lifetime_source), "{given}");
        }
        assert_eq!(accepted(r#"{"access_token":"T"}"#).2, LifetimeSource::Missing);
    }

    #[test]
    fn no_value_is_believed_to_live_longer_than_its_type_does() {
        let life_ms_max = crate::platform::mp::STABLE.life_ms_max;
        let lifetime_source = |seconds: u64| {
            let token =
                read(&format!(r#"{{"access_token":"T","expires_in":{seconds}}}"#)).unwrap().limit_lifetime(life_ms_max);
            (token.expires_in_s, token.lifetime_source)
        };
        assert_eq!(
            [lifetime_source(7_200), lifetime_source(7_800)],
            [(7_200, LifetimeSource::AsGiven), (7_800, LifetimeSource::AsGiven)]
        );
        assert_eq!([lifetime_source(7_801), lifetime_source(2_592_000)], [(7_200, LifetimeSource::TooLong); 2]);
    }

    #[test]
    fn marks_and_control_characters_around_the_json_do_no_harm() {
        assert_eq!(accepted("\u{feff}\r\n\0{\"access_token\":\"T\",\"expires_in\":9}\0\u{7f}\n").0, "T");
    }

    #[test]
    fn nothing_that_could_break_the_protocol_is_taken_for_a_token() {
        let refused = [
            r#"{"access_token":"","expires_in":9}"#,
            r#"{"access_token":"a\r\nEND","expires_in":9}"#,
            r#"{"access_token":"a b","expires_in":9}"#,
            r#"{"access_token":"a\u007f","expires_in":9}"#,
            r#"{"access_token":"\u00e9","expires_in":9}"#,
            r#"{"access_token":5,"expires_in":9}"#,
            r#"{"access_token":null,"expires_in":9}"#,
            r#"{"access_token":"a","access_token":"b","expires_in":9}"#,
            r#"{"access_token":"a","errcode":0,"errcode":40001}"#,
            r#"{"access_token":"a","errcode":"x"}"#,
            r#"{"access_token":"a"}{"access_token":"b"}"#,
            "{}",
            "[]",
            "null",
        ];
        for body in refused {
            let failure = read(body).unwrap_err();
            assert_eq!((failure.class, failure.delivery), (Class::Retry, Delivery::Ambiguous), "{body}");
        }
    }

    #[test]
    fn a_token_of_feishus_length_is_taken_and_one_too_long_for_us_is_our_fault() {
        let of = |bytes: usize| read(&format!(r#"{{"access_token":"{}","expires_in":9}}"#, "a".repeat(bytes)));
        assert_eq!(of(4096).unwrap().value.len(), 4096);
        assert!(of(TOKEN_BYTES_MAX).is_ok());
        let failure = of(TOKEN_BYTES_MAX + 1).unwrap_err();
        assert_eq!((failure.class, failure.delivery), (Class::Internal, Delivery::Ambiguous));
        assert_eq!(failure.to_string(), "the answer's access_token has 8193 bytes, and this server holds 8192 at most");
        assert!(failure.advice().contains("report this as a bug"), "{}", failure.advice());
    }

    /// google-cloud-rust #5864: a torn reply was taken for a permanent refusal.
    #[test]
    fn a_torn_reply_is_a_reason_to_ask_again() {
        let whole = r#"{"access_token":"TOKEN-VALUE","expires_in":7200}"#;
        for cut in 0..whole.len() {
            let failure = read(&whole[..cut]).unwrap_err();
            assert_eq!((failure.class, failure.errcode), (Class::Retry, None), "{cut}");
            assert!(!failure.message.contains("TOKEN-V"), "{}", failure.message);
        }
        for body in ["", "<html>502</html>", "\u{1f}\u{8b}gzip", "nginx"] {
            assert_eq!(read(body).unwrap_err().class, Class::Retry, "{body}");
        }
    }

    #[test]
    fn a_404_or_a_page_is_not_wechats_and_the_advice_names_base_url() {
        let advice = |status: u16, body: &str| {
            let failure = read_token(STABLE, "wx1", &[], status, body.as_bytes()).unwrap_err();
            assert_eq!(failure.class, Class::Retry, "{status}");
            failure.advice().into_owned()
        };
        for (status, body) in [
            (404, "not found"),
            (404, r#"{"message":"no route"}"#),
            (405, ""),
            (403, "<html>"),
            (302, ""),
            (200, "<!doctype html><title>Log in</title>"),
        ] {
            assert!(advice(status, body).contains("base_url"), "{status} {body}");
        }
        for (status, body) in [(502, "<html>502</html>"), (429, ""), (200, ""), (200, "{}")] {
            assert!(!advice(status, body).contains("base_url"), "{status} {body}");
        }
        assert_eq!(read_token(STABLE, "wx1", &[], 404, br#"{"errcode":40013}"#).unwrap_err().errcode, Some(40013));
    }

    #[test]
    fn a_refusal_carries_code_rid_and_no_secret() {
        let body = r#"{"errcode":40125,"errmsg":"invalid appsecret s3cr3t, rid: 64d2e8b1-4d4aab5f-5bd0e1a5"}"#;
        let failure = read(body).unwrap_err();
        assert_eq!(failure.class, Class::Operator(Pace::Slow));
        assert_eq!((failure.errcode, failure.delivery), (Some(40125), Delivery::Answered));
        assert_eq!(failure.rid.as_deref(), Some("64d2e8b1-4d4aab5f-5bd0e1a5"));
        assert!(!failure.to_string().contains("s3cr3t"));
    }

    #[test]
    fn an_errcode_beats_a_token_and_an_http_status_beats_a_token_too() {
        assert_eq!(read(r#"{"errcode":-1,"access_token":"T"}"#).unwrap_err().errcode, Some(-1));
        let answer = br#"{"access_token":"T","expires_in":9}"#;
        let failure = read_token(STABLE, "wx1", &["s"], 502, answer).unwrap_err();
        assert_eq!((failure.class, failure.delivery), (Class::Retry, Delivery::Ambiguous));
        assert!(!failure.message.contains("\"T\""), "{}", failure.message);
        assert_eq!(read_token(STABLE, "wx1", &["s"], 500, br#"{"errcode":40013}"#).unwrap_err().errcode, Some(40013));
    }

    #[test]
    fn only_the_three_token_errors_make_a_probe_say_dead() {
        assert_eq!(read_probe(PROBE, 200, br#"{"ip_list":["1.2.3.4"]}"#), Probe::Alive);
        for code in [40001, 40014, 42001] {
            assert_eq!(read_probe(PROBE, 200, format!(r#"{{"errcode":{code}}}"#).as_bytes()), Probe::Dead(code));
        }
        for body in ["", "{}", "<html>", r#"{"errcode":48017}"#, r#"{"errcode":-1,"ip_list":[]}"#] {
            assert_eq!(read_probe(PROBE, 200, body.as_bytes()), Probe::Unknown, "{body}");
        }
        for code in [45_009, 45_011, 48_001, 60_020, 61_007, 99_999] {
            assert_eq!(read_probe(PROBE, 200, format!(r#"{{"errcode":{code}}}"#).as_bytes()), Probe::Withheld(code));
        }
        assert_eq!(read_probe(PROBE, 502, br#"{"ip_list":[]}"#), Probe::Unknown);
    }

    proptest::proptest! {
        #[test]
        fn no_bytes_break_the_reader(status in 100u16..600, body: Vec<u8>) {
            let _ = read_token(STABLE, "wx1", &["s"], status, &body);
            let _ = read_probe(PROBE, status, &body);
        }

        #[test]
        fn what_is_taken_is_always_printable(text in "\\PC{0,40}") {
            let body = serde_json::json!({"access_token": text, "expires_in": 9}).to_string();
            if let Ok(token) = read_token(STABLE, "wx1", &["s"], 200, body.as_bytes()) {
                proptest::prop_assert!(!token.value.is_empty());
                proptest::prop_assert!(token.value.iter().all(|b| (0x21..=0x7e).contains(b)));
            }
        }
    }
}
