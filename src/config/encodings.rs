//! The fields of a table that say how a key shows a credential (`encoding`, `shows`, `fields`, `constant`, `flags`,
//! `at_least`) -> a view, and back.

use super::CredentialName;
use super::View;
use super::fault::{Place, Problem};
use super::settings::closest;
use super::value::{Given, Reading, Value, integer, kind, quoted, word};
use crate::encoding::{ClientLibrary, Constant, Fact, Field, Form};

/// Longest life a time may be stretched to: WeChat's own is 7200.
const AT_LEAST_S_MAX: u64 = 86_400;
/// How deep fields may hold fields.
const DEPTH_MAX: usize = 4;

/// The fields of a table, by name.
pub(super) struct Fields<'g>(&'g [(String, Given)]);

impl<'g> Fields<'g> {
    /// All of them known; `whose` is in the fault otherwise.
    pub fn of(given: &'g [(String, Given)], known: &[&str], whose: &str) -> Result<Fields<'g>, (Problem, Place)> {
        match given.iter().find(|(name, _)| !known.contains(&name.as_str())) {
            None => Ok(Fields(given)),
            Some((name, given)) => {
                let remedy = match closest(name, known.iter().copied()) {
                    Some(close) => format!("Did you mean {close:?}?"),
                    None => format!("Remove it; known here are {}.", known.join(", ")),
                };
                Err((Problem::new(format!("{} is not a key of {whose}", quoted(name)), remedy), given.place.clone()))
            }
        }
    }

    fn given(&self, name: &str) -> Option<&'g Given> {
        self.0.iter().find(|(key, _)| key == name).map(|(_, given)| given)
    }

    pub fn read<T>(&self, name: &str, read: impl Fn(&'g Value) -> Reading<T>) -> Result<Option<T>, (Problem, Place)> {
        let Some(given) = self.given(name) else { return Ok(None) };
        read(&given.value)
            .map(Some)
            .map_err(|problem| (Problem::new(format!("{name}: {}", problem.what), problem.remedy), given.place.clone()))
    }

    /// How the key shows a credential of that kind.
    pub fn view(&self, of: CredentialName, place: &Place) -> Result<View, (Problem, Place)> {
        self.view_for(ClientLibrary::default(), of, place)
    }

    /// The same for readers with that library.
    pub fn view_for(&self, client: ClientLibrary, of: CredentialName, place: &Place) -> Result<View, (Problem, Place)> {
        let wish = Wish {
            encoding: self.read("encoding", |value| word(value, &Encoding::WORDS))?,
            shows: self.read("shows", shows)?,
            fields: self.read("fields", |value| fields(value, 0))?,
            constant: self.read("constant", constant)?,
        };
        let usual = match wish.encoding {
            Some(Encoding::Php | Encoding::PhpString | Encoding::PhpArray) => client.serialized_flags(),
            Some(Encoding::JsonObject) => client.object_flags(),
            _ => 0,
        };
        let form = wish.form(of).map_err(|problem| (problem, place.clone()))?;
        let flags = self.read("flags", |value| integer(value, 0..=u64::from(u32::MAX)))?;
        let flags = flags.and_then(|flags| u32::try_from(flags).ok()).unwrap_or(usual);
        let at_least = self.read("at_least", |value| integer(value, 0..=AT_LEAST_S_MAX))?;
        let at_least_s = at_least.and_then(|seconds| u32::try_from(seconds).ok()).unwrap_or(0);
        Ok(View { form, flags, at_least_s })
    }
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Encoding {
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
    const WORDS: [(&str, Encoding); 8] = [
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
enum Shows {
    Fact(Fact),
    Nothing,
}

/// What a table asks for.
struct Wish {
    encoding: Option<Encoding>,
    shows: Option<Shows>,
    fields: Option<Field>,
    constant: Option<Constant>,
}

impl Wish {
    fn form(self, of: CredentialName) -> Reading<Form> {
        let encoding = self.encoding.unwrap_or(Encoding::Raw);
        if let Some(constant) = self.constant {
            return match (self.shows, self.fields) {
                (None, None) => constant_form(&constant, encoding),
                _ => Err(Problem::new("a constant has neither shows nor fields", "Remove them.")),
            };
        }
        if self.fields.is_some() && !matches!(encoding, Encoding::JsonObject | Encoding::PhpArray) {
            let remedy = "Add encoding = \"json_object\" or \"php_array\", or remove the fields.";
            return Err(Problem::new("fields are for an object or an array", remedy));
        }
        let fact = match self.shows.unwrap_or(Shows::Fact(Fact::Value)) {
            Shows::Fact(fact) => fact,
            Shows::Nothing if self.encoding.is_none() => return Ok(Form::Nothing),
            Shows::Nothing => return Err(Problem::new("nothing has no encoding", "Remove the encoding.")),
        };
        let is_value = fact == Fact::Value;
        match encoding {
            Encoding::Raw => Ok(Form::Raw(fact)),
            Encoding::JsonObject if is_value => Ok(Form::Json(self.fields.unwrap_or_else(|| usual_fields(of)))),
            Encoding::PhpArray if is_value => Ok(Form::Php(self.fields.unwrap_or_else(|| usual_fields(of)))),
            Encoding::JsonNumber if is_value => {
                Err(Problem::new("the value is not a number", "Write encoding = \"json_string\"."))
            }
            Encoding::JsonString if is_value => Ok(Form::JSON_STRING),
            Encoding::PhpString if is_value => Ok(Form::PHP_STRING),
            // Digits are JSON too.
            Encoding::JsonNumber => Ok(Form::Raw(fact)),
            Encoding::Json => Ok(Form::Json(Field::Fact(fact))),
            Encoding::Php => Ok(Form::Php(Field::Fact(fact))),
            Encoding::JsonString | Encoding::JsonObject | Encoding::PhpString | Encoding::PhpArray => {
                let remedy = "Write encoding = \"raw\", \"json\" or \"php\", or remove shows.";
                Err(Problem::new("a time is a number, in no such encoding", remedy))
            }
        }
    }
}

/// The fields of an object unless it says so.
fn usual_fields(of: CredentialName) -> Field {
    let value = match of {
        CredentialName::AccessToken | CredentialName::ComponentToken => of.word(),
        _ => "ticket",
    };
    let mut fields = [(value, Fact::Value), ("expires_at", Fact::ExpiresAt), ("expires_in", Fact::ExpiresIn)];
    // As the fields of a TOML table come.
    fields.sort_unstable();
    Field::named(fields)
}

fn shows(value: &Value) -> Reading<Shows> {
    let mut words = Fact::ALL.map(|(name, fact)| (name, Shows::Fact(fact))).to_vec();
    words.push(("nothing", Shows::Nothing));
    word(value, &words)
}

/// A constant by its type; a text is one too.
fn constant(value: &Value) -> Reading<Constant> {
    let remedy = "Write a number, true, false, or a text in quotes.";
    match value {
        Value::Integer { value, .. } => match i64::try_from(*value) {
            Ok(number) => Ok(Constant::Number(number)),
            Err(_) => Err(Problem::new(format!("{value} is out of range"), remedy)),
        },
        Value::Bool(on) => Ok(Constant::Bool(*on)),
        // With a point, so that it is read as one again.
        Value::Fraction(number) if number.is_finite() => Ok(Constant::Decimal(format!("{number:?}"))),
        Value::Text(text) if text.contains('\0') => {
            Err(Problem::new("the value holds a NUL byte", "Remove the NUL byte."))
        }
        Value::Text(text) => Ok(Constant::Text(text.clone())),
        other => Err(Problem::new(format!("{} is not a constant", kind(other)), remedy)),
    }
}

/// A constant alone under a key: its bytes never change.
fn constant_form(constant: &Constant, encoding: Encoding) -> Reading<Form> {
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
            return Err(Problem::new("the constant is not of that kind", "Write encoding = \"json\" or \"php\"."));
        }
        Encoding::JsonObject | Encoding::PhpArray => {
            let remedy = "Write encoding = \"json\" or \"php\", or fields in place of the constant.";
            return Err(Problem::new("a constant is neither an object nor an array", remedy));
        }
    };
    Ok(Form::Constant(bytes))
}

/// A table of names, or a list without names.
fn fields(value: &Value, depth: usize) -> Reading<Field> {
    let items = |given: &Given| field(&given.value, depth);
    match value {
        _ if depth == DEPTH_MAX => {
            Err(Problem::new(format!("fields go deeper than {DEPTH_MAX} levels"), "Write flatter ones."))
        }
        Value::Table(fields) => {
            let named = |(name, given): &(String, Given)| Ok((name.clone(), items(given)?));
            Ok(Field::Named(fields.iter().map(named).collect::<Reading<_>>()?))
        }
        Value::List(given) => Ok(Field::Listed(given.iter().map(items).collect::<Reading<_>>()?)),
        other => Err(Problem::new(
            format!("{} is neither a table nor a list", kind(other)),
            "Write fields = { token = \"value\", expiration = \"expires_at\" }, or a list without names.",
        )),
    }
}

/// One of them: a fact by its word, a constant, or fields again.
fn field(value: &Value, depth: usize) -> Reading<Field> {
    match value {
        Value::Table(fields) if matches!(&fields[..], [(name, _)] if name == "constant") => {
            Ok(Field::Constant(constant(&fields[0].1.value)?))
        }
        Value::Table(_) | Value::List(_) => fields(value, depth + 1),
        Value::Text(text) if text == "null" => Ok(Field::Constant(Constant::Null)),
        Value::Text(_) => word(value, &Fact::ALL).map(Field::Fact).map_err(|problem| {
            let remedy = format!("{} A text that stands there as it is: {{ constant = \"...\" }}.", problem.remedy);
            Problem::new(problem.what, remedy)
        }),
        other => constant(other).map(Field::Constant),
    }
}

/// The fields of a table that say so.
pub(super) fn form_as_toml(form: &Form, quoted: impl Fn(&str) -> String) -> String {
    let quoted: &dyn Fn(&str) -> String = &quoted;
    match form {
        Form::Raw(Fact::Value) => "encoding = \"raw\"".to_owned(),
        Form::Raw(fact) => format!("shows = \"{}\"", fact.word()),
        Form::Json(Field::Fact(Fact::Value)) => "encoding = \"json_string\"".to_owned(),
        Form::Php(Field::Fact(Fact::Value)) => "encoding = \"php_string\"".to_owned(),
        Form::Json(Field::Fact(fact)) => format!("encoding = \"json\", shows = \"{}\"", fact.word()),
        Form::Php(Field::Fact(fact)) => format!("encoding = \"php\", shows = \"{}\"", fact.word()),
        Form::Json(Field::Constant(constant)) => format!("constant = {}", quoted(&constant.json())),
        Form::Php(Field::Constant(constant)) => format!("constant = {}", quoted(&constant.php())),
        Form::Json(fields) => format!("encoding = \"json_object\", fields = {}", field_as_toml(fields, quoted)),
        Form::Php(fields) => format!("encoding = \"php_array\", fields = {}", field_as_toml(fields, quoted)),
        Form::Constant(bytes) => match bytes.parse::<i64>() {
            Ok(number) if number.to_string() == *bytes => format!("constant = {number}"),
            _ => format!("constant = {}", quoted(bytes)),
        },
        Form::Nothing => "shows = \"nothing\"".to_owned(),
    }
}

fn field_as_toml(field: &Field, quoted: &dyn Fn(&str) -> String) -> String {
    let all = |items: Vec<String>| items.join(", ");
    match field {
        Field::Fact(fact) => format!("\"{}\"", fact.word()),
        Field::Constant(Constant::Null) => "\"null\"".to_owned(),
        Field::Constant(Constant::Text(text)) => format!("{{ constant = {} }}", quoted(text)),
        Field::Constant(number) => number.json(),
        Field::Named(fields) => {
            let each = |(name, field): &(String, Field)| format!("{} = {}", quoted(name), field_as_toml(field, quoted));
            format!("{{ {} }}", all(fields.iter().map(each).collect()))
        }
        Field::Listed(fields) => {
            format!("[{}]", all(fields.iter().map(|field| field_as_toml(field, quoted)).collect()))
        }
    }
}
