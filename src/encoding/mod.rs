//! How a credential is written for a client: which of its facts, in which bytes, with which flags.
//!
//! Pure: no clock, no I/O. What does not change with time is rendered when a value is published; a time in it is
//! formatted straight into the output, so a hit allocates nothing.

mod client_library;
pub mod key_words;
pub mod request;
pub mod toml_text;

use bytes::Bytes;
use serde::Deserialize;

pub use self::client_library::ClientLibrary;

use crate::clock::{BootMs, Now};

/// What WeChat grants, seconds. A time of fetching is told as this long before the end: readers add it again.
pub const NOMINAL_LIFE_S: i64 = 7200;

/// In a key: whatever a framework puts there, one byte at least.
pub const ANY: &str = "{any}";
/// As much is behind it in every key, so that it can be told from ordinary ones at little cost.
pub const END_BYTES_MIN: usize = 8;

/// A fact about a credential.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Fact {
    /// The token or ticket.
    Value,
    /// Its end, seconds since 1970.
    ExpiresAt,
    /// Seconds to its end.
    ExpiresIn,
    /// Its end less [`NOMINAL_LIFE_S`], seconds since 1970.
    FetchedAt,
    /// [`Fact::ExpiresAt`] in milliseconds, as JavaScript and Java count.
    ExpiresAtMs,
    /// [`Fact::ExpiresIn`] in milliseconds.
    ExpiresInMs,
    /// [`Fact::FetchedAt`] in milliseconds.
    FetchedAtMs,
}

impl Fact {
    /// Every fact, with its word in the configuration.
    pub const ALL: [(&str, Fact); 7] = [
        ("value", Fact::Value),
        ("expires_at", Fact::ExpiresAt),
        ("expires_in", Fact::ExpiresIn),
        ("fetched_at", Fact::FetchedAt),
        ("expires_at_ms", Fact::ExpiresAtMs),
        ("expires_in_ms", Fact::ExpiresInMs),
        ("fetched_at_ms", Fact::FetchedAtMs),
    ];

    /// Its word in the configuration.
    pub fn word(self) -> &'static str {
        Fact::ALL.iter().find(|(_, fact)| *fact == self).map_or("", |(word, _)| *word)
    }
}

/// A value that never changes.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Constant {
    Null,
    Bool(bool),
    Number(i64),
    /// A number with a point, in its shortest decimal form.
    Decimal(String),
    Text(String),
}

/// What stands at one place of an answer.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Field {
    Fact(Fact),
    Constant(Constant),
    /// An object of JSON, an array with these keys of PHP.
    Named(Vec<(String, Field)>),
    /// An array without names.
    Listed(Vec<Field>),
}

impl From<Fact> for Field {
    fn from(fact: Fact) -> Field {
        Field::Fact(fact)
    }
}

impl Field {
    /// Named facts and nothing else.
    pub fn named(fields: impl IntoIterator<Item = (impl Into<String>, Fact)>) -> Field {
        Field::Named(fields.into_iter().map(|(name, fact)| (name.into(), Field::Fact(fact))).collect())
    }

    fn holds_value(&self) -> bool {
        match self {
            Field::Fact(fact) => *fact == Fact::Value,
            Field::Constant(_) => false,
            Field::Named(fields) => fields.iter().any(|(_, field)| field.holds_value()),
            Field::Listed(fields) => fields.iter().any(Field::holds_value),
        }
    }
}

/// How facts are written.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Form {
    /// The fact as it is: the value byte for byte, a time in decimal digits.
    Raw(Fact),
    /// As `json_encode()` of PHP and `JSON.stringify()` write it.
    Json(Field),
    /// As `serialize()` of PHP writes it.
    Php(Field),
    /// Always these bytes, value or no value.
    Constant(String),
    /// Never there, and nobody may put something there.
    Nothing,
}

impl Form {
    /// The value as a JSON string.
    pub const JSON_STRING: Form = Form::Json(Field::Fact(Fact::Value));
    /// `serialize($value)` of PHP.
    pub const PHP_STRING: Form = Form::Php(Field::Fact(Fact::Value));
}

/// What a managed key answers with.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct View {
    pub form: Form,
    /// The client library's mark of the type.
    pub flags: u32,
    /// Times are told as if at least so many seconds were left: some readers take a token for dead ahead of its end
    /// and would fetch one themselves.
    pub at_least_s: u32,
}

impl View {
    /// The value byte for byte, flags 0.
    pub const RAW: View = View { form: Form::Raw(Fact::Value), flags: 0, at_least_s: 0 };

    /// Whether the value itself is in it, so that a `delete` speaks of the value.
    pub fn holds_value(&self) -> bool {
        match &self.form {
            Form::Raw(fact) => *fact == Fact::Value,
            Form::Json(field) | Form::Php(field) => field.holds_value(),
            Form::Constant(_) | Form::Nothing => false,
        }
    }

    /// The same for everybody at any time, so that several apps may claim the key.
    pub fn is_constant(&self) -> bool {
        matches!(self.form, Form::Constant(_) | Form::Nothing)
    }

    /// Writes down all that is known before the time of reading.
    pub fn render(&self, value: &Bytes) -> Rendered {
        let mut pieces = Pieces::default();
        match &self.form {
            Form::Raw(Fact::Value) => return Rendered(Box::new([RenderedPiece::Bytes(value.clone())])),
            Form::Raw(fact) => pieces.time(*fact),
            Form::Json(field) => pieces.field(Writing::Json, field, value),
            Form::Php(field) => pieces.field(Writing::Php, field, value),
            Form::Constant(bytes) => pieces.open.extend_from_slice(bytes.as_bytes()),
            Form::Nothing => {}
        }
        pieces.close()
    }
}

impl Constant {
    /// As `json_encode()` writes it.
    pub fn json(&self) -> String {
        self.written(Writing::Json)
    }

    /// As `serialize()` writes it.
    pub fn php(&self) -> String {
        self.written(Writing::Php)
    }

    fn written(&self, writing: Writing) -> String {
        match (self, writing) {
            (Constant::Null, Writing::Json) => "null".to_owned(),
            (Constant::Null, Writing::Php) => "N;".to_owned(),
            (Constant::Bool(on), Writing::Json) => on.to_string(),
            (Constant::Bool(on), Writing::Php) => format!("b:{};", u8::from(*on)),
            (Constant::Number(number), Writing::Json) => number.to_string(),
            (Constant::Number(number), Writing::Php) => format!("i:{number};"),
            (Constant::Decimal(number), Writing::Json) => number.clone(),
            (Constant::Decimal(number), Writing::Php) => format!("d:{number};"),
            (Constant::Text(text), _) => {
                let mut pieces = Pieces::default();
                pieces.string(writing, text.as_bytes());
                String::from_utf8_lossy(&pieces.open).into_owned()
            }
        }
    }
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Writing {
    Json,
    Php,
}

/// A view of one value, ready but for the time.
pub struct Rendered(Box<[RenderedPiece]>);

enum RenderedPiece {
    Bytes(Bytes),
    Time(Fact),
}

/// The times of one credential at one instant.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Times {
    /// The end, as it is told.
    end_unix_ms: i64,
    /// What is left until then.
    left_ms: i64,
    /// Milliseconds that are really left; none if there is no end.
    truly_left_ms: Option<i64>,
}

impl Times {
    /// `at_least_s` is the view's.
    pub fn new(now: Now, expires_boot_ms: BootMs, at_least_s: u32) -> Times {
        let left_ms = i64::try_from(expires_boot_ms.saturating_sub(now.boot_ms)).unwrap_or(i64::MAX);
        let told_ms = left_ms.max(i64::from(at_least_s) * 1000);
        Times { end_unix_ms: now.unix_ms.saturating_add(told_ms), left_ms: told_ms, truly_left_ms: Some(left_ms) }
    }

    /// The times of what never ends.
    pub fn endless(now: Now) -> Times {
        Times { end_unix_ms: now.unix_ms, left_ms: 0, truly_left_ms: None }
    }

    /// Whole seconds until the value must not be served, whatever the view makes of them; none if it never ends.
    pub fn left_s(&self) -> Option<u32> {
        self.truly_left_ms.map(|left_ms| u32::try_from(left_ms / 1000).unwrap_or(u32::MAX))
    }

    /// A time as readers are told it; none for what is no time. Seconds are cut off from milliseconds, so that the end
    /// is the same whenever it is asked for.
    pub fn get(&self, fact: Fact) -> Option<i64> {
        const NOMINAL_LIFE_MS: i64 = NOMINAL_LIFE_S * 1000;
        match fact {
            Fact::ExpiresAt => Some(self.end_unix_ms.div_euclid(1000)),
            Fact::ExpiresIn => Some(self.left_ms / 1000),
            Fact::FetchedAt => Some(self.end_unix_ms.saturating_sub(NOMINAL_LIFE_MS).div_euclid(1000)),
            Fact::ExpiresAtMs => Some(self.end_unix_ms),
            Fact::ExpiresInMs => Some(self.left_ms),
            Fact::FetchedAtMs => Some(self.end_unix_ms.saturating_sub(NOMINAL_LIFE_MS)),
            Fact::Value => None,
        }
    }

    /// How many digits a time has, the fact being known to be one. Not inlined, as the next: most values have no times in
    /// them, and their way stays short.
    #[inline(never)]
    fn len_of(&self, fact: Fact) -> usize {
        itoa::Buffer::new().format(self.get(fact).unwrap_or_default()).len()
    }

    /// Appends it.
    #[inline(never)]
    fn write(&self, fact: Fact, out: &mut Vec<u8>) {
        out.extend_from_slice(itoa::Buffer::new().format(self.get(fact).unwrap_or_default()).as_bytes());
    }
}

impl Rendered {
    /// How many bytes [`Rendered::write`] will append.
    pub fn len(&self, times: &Times) -> usize {
        self.0.iter().fold(0, |length, piece| match piece {
            RenderedPiece::Bytes(bytes) => length + bytes.len(),
            RenderedPiece::Time(fact) => length + times.len_of(*fact),
        })
    }

    /// Appends it.
    pub fn write(&self, out: &mut Vec<u8>, times: &Times) {
        for piece in &self.0 {
            match piece {
                RenderedPiece::Bytes(bytes) => out.extend_from_slice(bytes),
                RenderedPiece::Time(fact) => times.write(*fact, out),
            }
        }
    }
}

/// Pieces under way.
#[derive(Default)]
struct Pieces {
    done: Vec<RenderedPiece>,
    open: Vec<u8>,
}

impl Pieces {
    fn time(&mut self, fact: Fact) {
        if !self.open.is_empty() {
            self.done.push(RenderedPiece::Bytes(std::mem::take(&mut self.open).into()));
        }
        self.done.push(RenderedPiece::Time(fact));
    }

    fn close(mut self) -> Rendered {
        if !self.open.is_empty() {
            self.done.push(RenderedPiece::Bytes(self.open.into()));
        }
        Rendered(self.done.into_boxed_slice())
    }

    fn put(&mut self, text: &str) {
        self.open.extend_from_slice(text.as_bytes());
    }

    fn string(&mut self, writing: Writing, text: &[u8]) {
        match writing {
            Writing::Json => json_string(&mut self.open, text),
            Writing::Php => php_string(&mut self.open, text),
        }
    }

    fn field(&mut self, writing: Writing, field: &Field, value: &[u8]) {
        match (field, writing) {
            (Field::Fact(Fact::Value), _) => self.string(writing, value),
            (Field::Fact(time), Writing::Json) => self.time(*time),
            (Field::Fact(time), Writing::Php) => {
                self.put("i:");
                self.time(*time);
                self.put(";");
            }
            (Field::Constant(constant), _) => self.put(&constant.written(writing)),
            (Field::Named(fields), _) => self.items(writing, ["{", "}"], fields, |pieces, _, (name, field)| {
                pieces.string(writing, name.as_bytes());
                if writing == Writing::Json {
                    pieces.put(":");
                }
                pieces.field(writing, field, value);
            }),
            (Field::Listed(fields), _) => self.items(writing, ["[", "]"], fields, |pieces, index, field| {
                if writing == Writing::Php {
                    pieces.put(&format!("i:{index};"));
                }
                pieces.field(writing, field, value);
            }),
        }
    }

    /// `json`: the brackets around them; in PHP they are the same for names and for lists.
    fn items<T>(&mut self, writing: Writing, json: [&str; 2], items: &[T], write: impl Fn(&mut Pieces, usize, &T)) {
        let (begin, between, end) = match writing {
            Writing::Json => (json[0].to_owned(), ",", json[1]),
            Writing::Php => (format!("a:{}:{{", items.len()), "", "}"),
        };
        self.put(&begin);
        for (index, item) in items.iter().enumerate() {
            self.put(if index > 0 { between } else { "" });
            write(self, index, item);
        }
        self.put(end);
    }
}

/// The bytes are UTF-8: WeChat's answer was.
fn json_string(out: &mut Vec<u8>, text: &[u8]) {
    const HEX: &[u8; 16] = b"0123456789abcdef";
    out.push(b'"');
    for &byte in text {
        match byte {
            b'"' | b'\\' => out.extend_from_slice(&[b'\\', byte]),
            0..=0x1f => {
                out.extend_from_slice(b"\\u00");
                out.extend([byte >> 4, byte & 15].map(|digit| HEX[usize::from(digit)]));
            }
            _ => out.push(byte),
        }
    }
    out.push(b'"');
}

/// PHP counts bytes and escapes nothing.
fn php_string(out: &mut Vec<u8>, text: &[u8]) {
    out.extend_from_slice(b"s:");
    out.extend_from_slice(itoa::Buffer::new().format(text.len()).as_bytes());
    out.extend_from_slice(b":\"");
    out.extend_from_slice(text);
    out.extend_from_slice(b"\";");
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: Now = Now { boot_ms: 50_000, unix_ms: 1_700_000_000_900 };

    /// A value with 100.4 seconds left, as a client gets it.
    fn shown(form: Form, value: &str, at_least_s: u32) -> String {
        let view = View { form, flags: 0, at_least_s };
        let rendered = view.render(&Bytes::copy_from_slice(value.as_bytes()));
        let times = Times::new(NOW, 150_400, at_least_s);
        let mut out = Vec::new();
        rendered.write(&mut out, &times);
        assert_eq!(out.len(), rendered.len(&times));
        String::from_utf8(out).unwrap()
    }

    fn fields() -> Field {
        Field::named([("access_token", Fact::Value), ("expires_in", Fact::ExpiresIn), ("at", Fact::ExpiresAt)])
    }

    #[test]
    fn each_form_is_written_as_its_reader_wants_it() {
        assert_eq!(shown(Form::Raw(Fact::Value), "a\"\\b", 0), "a\"\\b");
        assert_eq!(shown(Form::JSON_STRING, "a\"\\b/\n\u{1f}~", 0), r#""a\"\\b/\u000a\u001f~""#);
        assert_eq!(shown(Form::PHP_STRING, "a\"\\b", 0), "s:4:\"a\"\\b\";");
        assert_eq!(
            shown(Form::Json(fields()), "t\"k", 0),
            r#"{"access_token":"t\"k","expires_in":100,"at":1700000101}"#
        );
        assert_eq!(
            shown(Form::Php(fields()), "t\"k", 0),
            "a:3:{s:12:\"access_token\";s:3:\"t\"k\";s:10:\"expires_in\";i:100;s:2:\"at\";i:1700000101;}"
        );
        let list = Field::Listed([Fact::Value, Fact::FetchedAt, Fact::ExpiresIn].map(Field::Fact).into());
        assert_eq!(shown(Form::Php(list.clone()), "tk", 0), "a:3:{i:0;s:2:\"tk\";i:1;i:1699992901;i:2;i:100;}");
        assert_eq!(shown(Form::Json(list), "tk", 0), r#"["tk",1699992901,100]"#);
        assert_eq!(shown(Form::Constant("1".into()), "tk", 0), "1");
        assert_eq!(shown(Form::Nothing, "tk", 0), "");
        assert_eq!(shown(Form::Json(Field::Named(Vec::new())), "tk", 0), "{}");
        assert_eq!(shown(Form::Php(Field::Listed(Vec::new())), "tk", 0), "a:0:{}");
    }

    #[test]
    fn constants_stand_beside_the_value() {
        let errors = [("errcode", Constant::Number(0)), ("errmsg", Constant::Text("o\"k".to_owned()))];
        let mut fields: Vec<_> = errors.map(|(name, constant)| (name.to_owned(), Field::Constant(constant))).into();
        fields.push(("token".to_owned(), Field::Fact(Fact::Value)));
        let nested = Field::Listed(vec![
            Field::Named(fields),
            Field::Constant(Constant::Null),
            Field::Constant(Constant::Bool(true)),
            Field::Constant(Constant::Decimal("0.5".to_owned())),
        ]);
        assert_eq!(
            shown(Form::Json(nested.clone()), "tk", 0),
            r#"[{"errcode":0,"errmsg":"o\"k","token":"tk"},null,true,0.5]"#
        );
        assert_eq!(
            shown(Form::Php(nested.clone()), "tk", 0),
            "a:4:{i:0;a:3:{s:7:\"errcode\";i:0;s:6:\"errmsg\";s:3:\"o\"k\";s:5:\"token\";s:2:\"tk\";}i:1;N;i:2;b:1;i:3;d:0.5;}"
        );
        assert!(View { form: Form::Php(nested), ..View::RAW }.holds_value());
        assert_eq!(shown(Form::Php(Field::Fact(Fact::ExpiresAt)), "", 0), "i:1700000101;");
        assert_eq!(Constant::Text("a/b".to_owned()).json(), "\"a/b\"");
        assert_eq!(Constant::Bool(false).php(), "b:0;");
    }

    #[test]
    fn every_printable_character_survives_json() {
        let all: String = (0x20..0x7f).map(char::from).collect();
        let written = shown(Form::JSON_STRING, &all, 0);
        assert_eq!(serde_json::from_str::<String>(&written).unwrap(), all);
    }

    #[test]
    fn times_are_whole_seconds_and_never_below_the_least() {
        assert_eq!(shown(Form::Raw(Fact::ExpiresIn), "", 0), "100");
        assert_eq!(shown(Form::Raw(Fact::ExpiresAt), "", 0), "1700000101");
        assert_eq!(shown(Form::Raw(Fact::ExpiresIn), "", 7200), "7200");
        assert_eq!(shown(Form::Raw(Fact::ExpiresAt), "", 7200), "1700007200");
        assert_eq!(shown(Form::Raw(Fact::FetchedAt), "", 7200), "1700000000");
        assert_eq!(shown(Form::Raw(Fact::ExpiresIn), "", 100), "100");
    }

    #[test]
    fn the_same_end_at_any_moment() {
        let at = |ms: u64| {
            let now = Now { boot_ms: NOW.boot_ms + ms, unix_ms: NOW.unix_ms + ms as i64 };
            let times = Times::new(now, 150_400, 0);
            [Fact::ExpiresAt, Fact::ExpiresAtMs, Fact::FetchedAt, Fact::FetchedAtMs].map(|fact| times.get(fact))
        };
        assert!((0..100_000).step_by(97).all(|ms| at(ms) == at(0)));
        let past = Times::new(Now { boot_ms: 200_000, unix_ms: 0 }, 150_400, 0);
        assert_eq!((past.get(Fact::ExpiresIn), past.get(Fact::ExpiresInMs)), (Some(0), Some(0)));
    }

    #[test]
    fn milliseconds_are_told_where_the_reader_counts_in_them() {
        assert_eq!(shown(Form::Raw(Fact::ExpiresAtMs), "", 0), "1700000101300");
        assert_eq!(shown(Form::Raw(Fact::ExpiresInMs), "", 0), "100400");
        assert_eq!(shown(Form::Raw(Fact::FetchedAtMs), "", 0), "1699992901300");
        assert_eq!(shown(Form::Raw(Fact::ExpiresInMs), "", 7200), "7200000");
        assert_eq!(shown(Form::Raw(Fact::ExpiresAtMs), "", 7200), "1700007200900");
        let fields = Field::named([("accessToken", Fact::Value), ("expireTime", Fact::ExpiresAtMs)]);
        assert_eq!(shown(Form::Json(fields), "tk", 0), r#"{"accessToken":"tk","expireTime":1700000101300}"#);
    }

    #[test]
    fn each_fact_has_one_word_and_all_but_the_value_are_times() {
        let times = Times::new(NOW, 150_400, 0);
        for (word, fact) in Fact::ALL {
            assert_eq!(fact.word(), word);
            assert_eq!(times.get(fact).is_none(), fact == Fact::Value, "{word}");
        }
        assert_eq!(times.left_s(), Some(100));
    }

    #[test]
    fn what_speaks_of_the_value() {
        let holds = |form| View { form, ..View::RAW }.holds_value();
        for form in [
            Form::JSON_STRING,
            Form::PHP_STRING,
            Form::Php(fields()),
            Form::Json(Field::Listed(vec![Field::Fact(Fact::Value)])),
        ] {
            assert!(holds(form));
        }
        for form in [
            Form::Raw(Fact::ExpiresAt),
            Form::Constant("1".into()),
            Form::Nothing,
            Form::Php(Field::Listed(Vec::new())),
        ] {
            assert!(!holds(form));
        }
    }
}
