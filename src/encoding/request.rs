//! What a key is to show, in the words of the configuration (`encoding`, `shows`, `fields`, `constant`) -> a form, and back.
//! Pure.

use super::toml_text::toml_text;
use super::{ClientLibrary, Constant, Fact, Field, Form};
use crate::invalid_value::InvalidValue;

/// How a value is written.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Encoding {
    Raw,
    Json,
    JsonString,
    JsonNumber,
    JsonObject,
    Php,
    PhpString,
    PhpArray,
}

impl Encoding {
    /// The flags that readers with that library look for.
    pub fn flags_for(self, client: ClientLibrary) -> u32 {
        match self {
            Encoding::Php | Encoding::PhpString | Encoding::PhpArray => client.serialized_flags(),
            Encoding::JsonObject => client.object_flags(),
            _ => 0,
        }
    }

    pub const WORDS: [(&str, Encoding); 8] = [
        ("raw", Encoding::Raw),
        ("json", Encoding::Json),
        ("json_string", Encoding::JsonString),
        ("json_number", Encoding::JsonNumber),
        ("json_object", Encoding::JsonObject),
        ("php", Encoding::Php),
        ("php_string", Encoding::PhpString),
        ("php_array", Encoding::PhpArray),
    ];
}

#[derive(Clone, Copy)]
pub enum Shows {
    Fact(Fact),
    Nothing,
}

/// What a table asks for.
pub struct ViewRequest {
    pub encoding: Option<Encoding>,
    pub shows: Option<Shows>,
    pub fields: Option<Field>,
    pub constant: Option<Constant>,
}

impl ViewRequest {
    /// The form of it; `value_name` is the usual name of the value among fields.
    pub fn form(self, value_name: &str) -> Result<Form, InvalidValue> {
        let encoding = self.encoding.unwrap_or(Encoding::Raw);
        if let Some(constant) = self.constant {
            return match (self.shows, self.fields) {
                (None, None) => constant_form(&constant, encoding),
                _ => Err(InvalidValue::new("a constant has neither shows nor fields", "Remove them.")),
            };
        }
        if self.fields.is_some() && !matches!(encoding, Encoding::JsonObject | Encoding::PhpArray) {
            let remedy = "Add encoding = \"json_object\" or \"php_array\", or remove the fields.";
            return Err(InvalidValue::new("fields are for an object or an array", remedy));
        }
        let fact = match self.shows.unwrap_or(Shows::Fact(Fact::Value)) {
            Shows::Fact(fact) => fact,
            Shows::Nothing if self.encoding.is_none() => return Ok(Form::Nothing),
            Shows::Nothing => return Err(InvalidValue::new("nothing has no encoding", "Remove the encoding.")),
        };
        let is_value = fact == Fact::Value;
        match encoding {
            Encoding::Raw => Ok(Form::Raw(fact)),
            Encoding::JsonObject if is_value => Ok(Form::Json(self.fields.unwrap_or_else(|| usual_fields(value_name)))),
            Encoding::PhpArray if is_value => Ok(Form::Php(self.fields.unwrap_or_else(|| usual_fields(value_name)))),
            Encoding::JsonNumber if is_value => {
                Err(InvalidValue::new("the value is not a number", "Write encoding = \"json_string\"."))
            }
            Encoding::JsonString if is_value => Ok(Form::JSON_STRING),
            Encoding::PhpString if is_value => Ok(Form::PHP_STRING),
            // Digits are JSON too.
            Encoding::JsonNumber => Ok(Form::Raw(fact)),
            Encoding::Json => Ok(Form::Json(Field::Fact(fact))),
            Encoding::Php => Ok(Form::Php(Field::Fact(fact))),
            Encoding::JsonString | Encoding::JsonObject | Encoding::PhpString | Encoding::PhpArray => {
                let remedy = "Write encoding = \"raw\", \"json\" or \"php\", or remove shows.";
                Err(InvalidValue::new("a time is a number, in no such encoding", remedy))
            }
        }
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
fn constant_form(constant: &Constant, encoding: Encoding) -> Result<Form, InvalidValue> {
    let is_text = matches!(constant, Constant::Text(_));
    let is_number = matches!(constant, Constant::Number(_) | Constant::Decimal(_));
    let bytes = match encoding {
        // As PHP turns it into a string.
        Encoding::Raw => match constant {
            Constant::Bool(true) => "1".to_owned(),
            Constant::Null | Constant::Bool(false) => String::new(),
            Constant::Number(number) => number.to_string(),
            Constant::Decimal(text) | Constant::Text(text) => text.clone(),
        },
        Encoding::Json => constant.json(),
        Encoding::JsonString if is_text => constant.json(),
        Encoding::JsonNumber if is_number => constant.json(),
        Encoding::Php => constant.php(),
        Encoding::PhpString if is_text => constant.php(),
        Encoding::JsonString | Encoding::JsonNumber | Encoding::PhpString => {
            return Err(InvalidValue::new("the constant is not of that kind", "Write encoding = \"json\" or \"php\"."));
        }
        Encoding::JsonObject | Encoding::PhpArray => {
            let remedy = "Write encoding = \"json\" or \"php\", or fields in place of the constant.";
            return Err(InvalidValue::new("a constant is neither an object nor an array", remedy));
        }
    };
    Ok(Form::Constant(bytes))
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
            format!("[{}]", all(fields.iter().map(|field| field_as_toml(field)).collect()))
        }
    }
}
