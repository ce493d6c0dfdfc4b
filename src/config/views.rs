//! The fields of a table that say how a key shows a credential (`encoding`, `shows`, `fields`, `constant`, `flags`,
//! `at_least`) -> a view.

use super::report::{Misread, PartsResult};
use super::value::{Given, RawValue, ReadResult, did_you_mean, integer, quoted, text, word, wrong, wrong_kind};
use super::{CredentialName, View};
use crate::encoding::request::{Encoding, Shows, ViewRequest};
use crate::encoding::{ClientLibrary, Constant, Fact, Field};
use crate::invalid_value::InvalidValue;

/// Longest life a time may be stretched to: WeChat's own is 7200.
const AT_LEAST_S_MAX: u64 = 86_400;
/// How deep fields may hold fields.
const DEPTH_MAX: usize = 4;

/// The fields of a table, by name.
pub(super) struct Fields<'g>(Vec<(&'g str, &'g Given)>);

impl<'g> Fields<'g> {
    /// All of them known; `whose` is in the fault otherwise.
    pub fn of(given: &'g [(String, Given)], known: &[&str], whose: &str) -> PartsResult<Fields<'g>> {
        let Some((name, given)) = given.iter().find(|(name, _)| !known.contains(&name.as_str())) else {
            return Ok(Fields(given.iter().map(|(name, given)| (name.as_str(), given)).collect()));
        };
        let all = || format!("Remove it; known here are {}.", known.join(", "));
        let remedy = did_you_mean(name, known.iter().copied(), all);
        let problem = InvalidValue::new(format!("{} is not a key of {whose}", quoted(name)), remedy);
        Err(Misread::at(problem, &given.place))
    }

    /// Those that are there.
    pub fn of_these(given: Vec<(&'g str, &'g Given)>) -> Fields<'g> {
        Fields(given)
    }

    fn given(&self, name: &str) -> Option<&'g Given> {
        self.0.iter().find(|(key, _)| *key == name).map(|(_, given)| *given)
    }

    pub fn read<T>(&self, name: &str, read: impl Fn(&'g RawValue) -> ReadResult<T>) -> PartsResult<Option<T>> {
        let Some(given) = self.given(name) else { return Ok(None) };
        read(&given.value).map(Some).map_err(|problem| Misread::at(problem.of_key(name), &given.place))
    }

    /// How a sink's key shows credentials of these types; no client looks at its flags.
    pub fn views(&self, types: &[CredentialName]) -> PartsResult<Vec<(CredentialName, View)>> {
        let view = |of: &CredentialName| Ok((*of, View { flags: 0, ..self.view_for(ClientLibrary::default(), *of)? }));
        types.iter().map(view).collect()
    }

    /// How the key shows a credential of that type to readers with that library.
    pub fn view_for(&self, client: ClientLibrary, of: CredentialName) -> PartsResult<View> {
        let request = ViewRequest {
            encoding: self.read("encoding", |value| word(value, &Encoding::WORDS))?,
            shows: self.read("shows", shows)?,
            fields: self.read("fields", |value| fields(value, 0))?,
            constant: self.read("constant", constant)?,
        };
        let usual = request.encoding.map_or(0, |encoding| encoding.flags_for(client));
        let form = request.form(of.value_name())?;
        let flags = self.read("flags", |value| integer(value, 0..=u64::from(u32::MAX)))?;
        let flags = flags.and_then(|flags| u32::try_from(flags).ok()).unwrap_or(usual);
        let at_least = self.read("at_least", |value| integer(value, 0..=AT_LEAST_S_MAX))?;
        let at_least_s = at_least.and_then(|seconds| u32::try_from(seconds).ok()).unwrap_or(0);
        Ok(View { form, flags, at_least_s })
    }
}

/// An item of `aliases` or `keys`: a key in quotes, or a table with one. `words`: what it is, whose keys the table has,
/// what has no key.
pub(super) fn key_and_fields<'g>(
    item: &'g Given,
    known: &[&str],
    words: [&str; 3],
) -> PartsResult<(&'g str, Option<Fields<'g>>)> {
    let fields = match &item.value {
        RawValue::Text(key) => return Ok((key, None)),
        RawValue::Table(given) => Fields::of(given, known, words[1])?,
        other => {
            let remedy = "Write a key in quotes, or a table such as { key = \"...\", encoding = \"json_string\" }.";
            return Err(wrong_kind(other, &format!("not {}", words[0]), remedy).into());
        }
    };
    let no_key = || InvalidValue::new(format!("{} has no key", words[2]), "Write { key = \"...\", ... }.");
    Ok((fields.read("key", text)?.ok_or_else(no_key)?, Some(fields)))
}

fn shows(value: &RawValue) -> ReadResult<Shows> {
    let mut words = Fact::ALL.map(|(name, fact)| (name, Shows::Fact(fact))).to_vec();
    words.push(("nothing", Shows::Nothing));
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
fn fields(value: &RawValue, depth: usize) -> ReadResult<Field> {
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
        RawValue::Table(_) | RawValue::List(_) => fields(value, depth + 1),
        RawValue::Text(text) if text == "null" => Ok(Field::Constant(Constant::Null)),
        RawValue::Text(_) => word(value, &Fact::ALL).map(Field::Fact).map_err(|mut problem| {
            problem.remedy += " A text that stands there as it is: { constant = \"...\" }.";
            problem
        }),
        other => constant(other).map(Field::Constant),
    }
}
