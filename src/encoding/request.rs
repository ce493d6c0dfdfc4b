//! What a key is to show, in the words of the configuration (`encoding`, `shows`, `fields`, `constant`, `flags`,
//! `at_least`) -> a view, and a form back.
//! Pure.

use super::toml_text::toml_text;
use super::{ClientLibrary, Constant, Fact, Field, Form, View};
use crate::invalid_value::{InvalidValue, wrong};
use crate::raw_value::{Fields, Given, Misread, PartsResult, RawValue, ReadResult, integer, word, wrong_kind};

/// Longest life a time may be stretched to: WeChat's own is 7200.
const AT_LEAST_S_MAX: u32 = 86_400;
/// How deep fields may hold fields.
const DEPTH_MAX: usize = 4;

#[derive(Clone, Copy, PartialEq, Eq)]
enum Writing {
    Raw,
    Json,
    Php,
}

/// What an encoding is for.
#[derive(Clone, Copy, PartialEq, Eq)]
enum EncodingUse {
    Anything,
    Text,
    Number,
    /// Several facts with names.
    Fields,
}

type Encoding = (Writing, EncodingUse);

const ENCODINGS: [(&str, Encoding); 8] = [
    ("raw", (Writing::Raw, EncodingUse::Anything)),
    ("json", (Writing::Json, EncodingUse::Anything)),
    ("json_string", (Writing::Json, EncodingUse::Text)),
    ("json_number", (Writing::Json, EncodingUse::Number)),
    ("json_object", (Writing::Json, EncodingUse::Fields)),
    ("php", (Writing::Php, EncodingUse::Anything)),
    ("php_string", (Writing::Php, EncodingUse::Text)),
    ("php_array", (Writing::Php, EncodingUse::Fields)),
];

/// The flags that readers with that library look for.
fn flags_for(encoding: Encoding, client: ClientLibrary) -> u32 {
    match encoding {
        (Writing::Php, _) => client.serialized_flags(),
        (Writing::Json, EncodingUse::Fields) => client.object_flags(),
        _ => 0,
    }
}

/// How a key with these fields shows a credential to readers with that library; `value_name` is the usual name of the value.
pub fn view_for(fields: &Fields<'_>, client: ClientLibrary, value_name: &str) -> PartsResult<View> {
    let encoding = fields.read("encoding", |value| word(value, &ENCODINGS))?;
    let shows = fields.read("shows", shows)?;
    let named = fields.read("fields", |value| fields_of(value, 0))?;
    let form = match fields.read("constant", constant)? {
        Some(constant) if shows.is_none() && named.is_none() => constant_form(&constant, encoding)?,
        Some(_) => wrong("a constant has neither shows nor fields", "Remove them.")?,
        None => fact_form(encoding, shows, named, value_name)?,
    };
    let usual = encoding.map_or(0, |encoding| flags_for(encoding, client));
    let number = |name: &str, most: u32| {
        let read = fields.read(name, |value| integer(value, 0..=u64::from(most)))?;
        Ok::<_, Misread>(read.and_then(|number| u32::try_from(number).ok()))
    };
    let (flags, at_least_s) = (number("flags", u32::MAX)?, number("at_least", AT_LEAST_S_MAX)?);
    Ok(View { form, flags: flags.unwrap_or(usual), at_least_s: at_least_s.unwrap_or(0) })
}

/// The form of facts: of the one that the key shows (none: nothing), or of the value among these fields. `value_name` is
/// its usual name there.
fn fact_form(
    encoding: Option<Encoding>,
    shows: Option<Option<Fact>>,
    fields: Option<Field>,
    value_name: &str,
) -> Result<Form, InvalidValue> {
    let (writing, takes) = encoding.unwrap_or(ENCODINGS[0].1);
    if fields.is_some() && takes != EncodingUse::Fields {
        let remedy = "Add encoding = \"json_object\" or \"php_array\", or remove the fields.";
        return wrong("fields are for an object or an array", remedy);
    }
    let fact = match shows.unwrap_or(Some(Fact::Value)) {
        Some(fact) => fact,
        None if encoding.is_none() => return Ok(Form::Nothing),
        None => return wrong("nothing has no encoding", "Remove the encoding."),
    };
    let field = match (takes, fact) {
        (EncodingUse::Fields, Fact::Value) => fields.unwrap_or_else(|| usual_fields(value_name)),
        (EncodingUse::Number, Fact::Value) => {
            return wrong("the value is not a number", "Write encoding = \"json_string\".");
        }
        (EncodingUse::Anything, _) | (EncodingUse::Text, Fact::Value) => Field::Fact(fact),
        // Digits are JSON too.
        (EncodingUse::Number, _) => return Ok(Form::Raw(fact)),
        (EncodingUse::Text | EncodingUse::Fields, _) => {
            let remedy = "Write encoding = \"raw\", \"json\" or \"php\", or remove shows.";
            return wrong("a time is a number, in no such encoding", remedy);
        }
    };
    Ok(match writing {
        Writing::Raw => Form::Raw(fact),
        Writing::Json => Form::Json(field),
        Writing::Php => Form::Php(field),
    })
}

/// The fact; none for nothing.
fn shows(value: &RawValue) -> ReadResult<Option<Fact>> {
    let mut words = Fact::ALL.map(|(name, fact)| (name, Some(fact))).to_vec();
    words.push(("nothing", None));
    word(value, &words)
}

/// A constant by its type; a text is one too.
fn constant(value: &RawValue) -> ReadResult<Constant> {
    let remedy = "Write a number, true, false, or a text in quotes.";
    match value {
        RawValue::Integer { value, .. } => match i64::try_from(*value) {
            Ok(number) => Ok(Constant::Number(number)),
            Err(_) => wrong(format!("{value} is out of range"), remedy),
        },
        RawValue::Bool(on) => Ok(Constant::Bool(*on)),
        // With a point, so that it is read as one again.
        RawValue::Fraction(number) if number.is_finite() => Ok(Constant::Decimal(format!("{number:?}"))),
        RawValue::Text(text) if text.contains('\0') => wrong("the value holds a NUL byte", "Remove the NUL byte."),
        RawValue::Text(text) => Ok(Constant::Text(text.clone())),
        other => Err(wrong_kind(other, "not a constant", remedy)),
    }
}

/// A table of names, or a list without names.
fn fields_of(value: &RawValue, depth: usize) -> ReadResult<Field> {
    let items = |given: &Given| field(&given.value, depth);
    match value {
        _ if depth == DEPTH_MAX => wrong(format!("fields go deeper than {DEPTH_MAX} levels"), "Write flatter ones."),
        RawValue::Table(fields) => {
            let named = |(name, given): &(String, Given)| Ok((name.clone(), items(given)?));
            Ok(Field::Named(fields.iter().map(named).collect::<ReadResult<_>>()?))
        }
        RawValue::List(given) => Ok(Field::Listed(given.iter().map(items).collect::<ReadResult<_>>()?)),
        other => {
            let remedy = "Write fields = { token = \"value\", expiration = \"expires_at\" }, or a list without names.";
            Err(wrong_kind(other, "neither a table nor a list", remedy))
        }
    }
}

/// One of them: a fact by its word, a constant, or fields again.
fn field(value: &RawValue, depth: usize) -> ReadResult<Field> {
    match value {
        RawValue::Table(fields) if matches!(&fields[..], [(name, _)] if name == "constant") => {
            Ok(Field::Constant(constant(&fields[0].1.value)?))
        }
        RawValue::Table(_) | RawValue::List(_) => fields_of(value, depth + 1),
        RawValue::Text(text) if text == "null" => Ok(Field::Constant(Constant::Null)),
        RawValue::Text(_) => word(value, &Fact::ALL).map(Field::Fact).map_err(|mut problem| {
            problem.remedy += " A text that stands there as it is: { constant = \"...\" }.";
            problem
        }),
        other => constant(other).map(Field::Constant),
    }
}

/// The fields of an object unless it says so.
fn usual_fields(value_name: &str) -> Field {
    let mut fields = [(value_name, Fact::Value), ("expires_at", Fact::ExpiresAt), ("expires_in", Fact::ExpiresIn)];
    // As the fields of a TOML table come.
    fields.sort_unstable();
    Field::named(fields)
}

/// A constant alone under a key: its bytes never change.
fn constant_form(constant: &Constant, encoding: Option<Encoding>) -> Result<Form, InvalidValue> {
    let (writing, takes) = encoding.unwrap_or(ENCODINGS[0].1);
    let fits = match takes {
        EncodingUse::Anything => true,
        EncodingUse::Text => matches!(constant, Constant::Text(_)),
        EncodingUse::Number => matches!(constant, Constant::Number(_) | Constant::Decimal(_)),
        EncodingUse::Fields => {
            let remedy = "Write encoding = \"json\" or \"php\", or fields in place of the constant.";
            return wrong("a constant is neither an object nor an array", remedy);
        }
    };
    if !fits {
        return wrong("the constant is not of that kind", "Write encoding = \"json\" or \"php\".");
    }
    Ok(Form::Constant(match (writing, constant) {
        (Writing::Json, _) => constant.json(),
        (Writing::Php, _) => constant.php(),
        // As PHP turns it into a string.
        (Writing::Raw, Constant::Bool(true)) => "1".to_owned(),
        (Writing::Raw, Constant::Null | Constant::Bool(false)) => String::new(),
        (Writing::Raw, Constant::Number(number)) => number.to_string(),
        (Writing::Raw, Constant::Decimal(text) | Constant::Text(text)) => text.clone(),
    }))
}

/// The fields of a table that say so.
pub fn form_as_toml(form: &Form) -> String {
    match form {
        Form::Raw(Fact::Value) => "encoding = \"raw\"".to_owned(),
        Form::Raw(fact) => format!("shows = \"{}\"", fact.word()),
        Form::Json(Field::Fact(Fact::Value)) => "encoding = \"json_string\"".to_owned(),
        Form::Php(Field::Fact(Fact::Value)) => "encoding = \"php_string\"".to_owned(),
        Form::Json(Field::Fact(fact)) => format!("encoding = \"json\", shows = \"{}\"", fact.word()),
        Form::Php(Field::Fact(fact)) => format!("encoding = \"php\", shows = \"{}\"", fact.word()),
        Form::Json(Field::Constant(constant)) => format!("constant = {}", toml_text(&constant.json())),
        Form::Php(Field::Constant(constant)) => format!("constant = {}", toml_text(&constant.php())),
        Form::Json(fields) => format!("encoding = \"json_object\", fields = {}", field_as_toml(fields)),
        Form::Php(fields) => format!("encoding = \"php_array\", fields = {}", field_as_toml(fields)),
        Form::Constant(bytes) => match bytes.parse::<i64>() {
            Ok(number) if number.to_string() == *bytes => format!("constant = {number}"),
            _ => format!("constant = {}", toml_text(bytes)),
        },
        Form::Nothing => "shows = \"nothing\"".to_owned(),
    }
}

fn field_as_toml(field: &Field) -> String {
    let all = |items: Vec<String>| items.join(", ");
    match field {
        Field::Fact(fact) => format!("\"{}\"", fact.word()),
        Field::Constant(Constant::Null) => "\"null\"".to_owned(),
        Field::Constant(Constant::Text(text)) => format!("{{ constant = {} }}", toml_text(text)),
        Field::Constant(number) => number.json(),
        Field::Named(fields) => {
            let each = |(name, field): &(String, Field)| format!("{} = {}", toml_text(name), field_as_toml(field));
            format!("{{ {} }}", all(fields.iter().map(each).collect()))
        }
        Field::Listed(fields) => {
            format!("[{}]", all(fields.iter().map(field_as_toml).collect()))
        }
    }
}
