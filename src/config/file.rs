//! The TOML file in its raw form: every key with its line, unknown keys refused.
//!
//! Walks the document instead of deriving `Deserialize`: serde stops at the first fault, and a start should
//! show all of them. The parser's own error texts quote the line they are about, which may hold a secret, so
//! only their bare message is used.

use std::collections::BTreeMap;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use toml::Spanned;
use toml::de::{DeTable, DeValue};
use zeroize::Zeroizing;

use super::fault::{Fault, Place, Problem};
use super::settings::{APP_KEYS, AUTHORIZER_KEYS, SECTIONS, closest, find, keys_of};
use super::value::{Given, Value, kind, quoted};

/// What the file says.
#[derive(Default)]
pub(super) struct Document {
    pub settings: Vec<(&'static str, Given)>,
    pub apps: Vec<RawApp>,
    /// Others than the owner may read the file.
    pub open_to_others: bool,
    /// Where relative paths count from.
    pub folder: PathBuf,
}

/// One `[[app]]`, unchecked.
pub(super) struct RawApp {
    pub place: Place,
    pub fields: BTreeMap<&'static str, Given>,
    /// The `[[app.authorizer]]` tables below it.
    pub authorizers: Vec<RawApp>,
}

/// Reads and walks the file; faults are appended.
pub(super) fn read(path: &Path, faults: &mut Vec<Fault>) -> Document {
    let file: Arc<Path> = Arc::from(path);
    let whole = |problem: Problem| problem.at(&Place::Line { file: file.clone(), line: 0 });
    let bytes = match std::fs::read(path) {
        Ok(bytes) => Zeroizing::new(bytes),
        Err(error) => {
            let remedy = "Check the name given to --config and who may read the file.";
            faults.push(whole(Problem::new(format!("the file cannot be read: {error}"), remedy)));
            return Document::default();
        }
    };
    let text = match std::str::from_utf8(&bytes) {
        Ok(text) => text,
        Err(error) => {
            let line = 1 + bytes[..error.valid_up_to()].iter().filter(|byte| **byte == b'\n').count();
            let problem = Problem::new("the file is not valid UTF-8 here", "Save the file as UTF-8.");
            faults.push(problem.at(&Place::Line { file, line }));
            return Document::default();
        }
    };
    let mut walk = Walk { file, lines: Lines::new(text), faults, document: Document::default() };
    walk.document.open_to_others = open_to_others(path);
    walk.document.folder = path.parent().map(Path::to_owned).unwrap_or_default();
    walk.document(text);
    walk.document
}

/// Whether anybody but the owner may read that file.
pub(super) fn open_to_others(path: &Path) -> bool {
    use std::os::unix::fs::PermissionsExt;
    std::fs::metadata(path).is_ok_and(|metadata| metadata.permissions().mode() & 0o077 != 0)
}

/// A list of tables of one sort.
struct Tables {
    header: &'static str,
    one: &'static str,
    keys: &'static [&'static str],
}

const IN_APPS: Tables = Tables { header: "[[app]]", one: "an app", keys: APP_KEYS };
const IN_AUTHORIZERS: Tables = Tables { header: "[[app.authorizer]]", one: "an authorizer", keys: AUTHORIZER_KEYS };

impl Tables {
    fn problem(&self, what: String) -> Problem {
        Problem::new(what, format!("Start each with a line {}, in double brackets.", self.header))
    }
}

struct Walk<'f> {
    file: Arc<Path>,
    lines: Lines,
    faults: &'f mut Vec<Fault>,
    document: Document,
}

impl Walk<'_> {
    fn document(&mut self, text: &str) {
        let (table, errors) = DeTable::parse_recoverable(text);
        if !errors.is_empty() {
            // What was recovered from a broken document would only add faults that are not there.
            for error in errors {
                let place = self.place(error.span().unwrap_or_default());
                let what = format!("this is not TOML: {}", error.message());
                self.faults.push(Problem::new(what, "Correct the line; https://toml.io shows the syntax.").at(&place));
            }
            return;
        }
        for (key, value) in table.get_ref() {
            match (key.get_ref().as_ref(), value.get_ref()) {
                ("app", DeValue::Array(apps)) => {
                    let apps: Vec<RawApp> = apps.iter().filter_map(|app| self.app(app, &IN_APPS)).collect();
                    self.document.apps.extend(apps);
                }
                ("app", other) => {
                    let what = format!("app is {}, not a list of tables", kind_of(other));
                    let problem = Problem::new(what, "Start each app with a line [[app]], in double brackets.");
                    self.fault(key.span(), problem);
                }
                (name, value) if SECTIONS.contains(&name) => self.section(name, key.span(), value),
                (name, _) => self.unknown_section(name, key.span()),
            }
        }
    }

    fn section(&mut self, section: &str, span: Range<usize>, value: &DeValue<'_>) {
        let DeValue::Table(table) = value else {
            let problem = Problem::new(
                format!("{section} is {}, not a table", kind_of(value)),
                format!("Write a line [{section}] and the keys below it."),
            );
            return self.fault(span, problem);
        };
        for (key, value) in table {
            match find(section, key.get_ref()) {
                Some(setting) => {
                    let given = Given { value: self.value(value), place: self.place(key.span()) };
                    self.document.settings.push((setting, given));
                }
                None => self.unknown_key(&format!("[{section}]"), key.get_ref(), keys_of(section), key.span()),
            }
        }
    }

    fn app(&mut self, app: &Spanned<DeValue<'_>>, of: &Tables) -> Option<RawApp> {
        let DeValue::Table(table) = app.get_ref() else {
            self.fault(app.span(), of.problem(format!("{} is not a table", of.one)));
            return None;
        };
        let mut fields = BTreeMap::new();
        let mut authorizers = Vec::new();
        for (key, value) in table {
            match of.keys.iter().find(|known| **known == key.get_ref().as_ref()) {
                Some(&"authorizer") => match value.get_ref() {
                    DeValue::Array(items) => {
                        authorizers = items.iter().filter_map(|item| self.app(item, &IN_AUTHORIZERS)).collect();
                    }
                    other => {
                        let what = format!("authorizer is {}, not a list of tables", kind_of(other));
                        self.fault(key.span(), IN_AUTHORIZERS.problem(what));
                    }
                },
                Some(known) => {
                    fields.insert(*known, Given { value: self.value(value), place: self.place(key.span()) });
                }
                None => self.unknown_key(of.header, key.get_ref(), of.keys.iter().copied(), key.span()),
            }
        }
        Some(RawApp { place: self.place(app.span()), fields, authorizers })
    }

    fn unknown_section(&mut self, name: &str, span: Range<usize>) {
        let remedy = match (section_of(name), closest(name, SECTIONS.iter().copied())) {
            (Some(section), _) => format!("It belongs under a line [{section}]."),
            (None, Some("app")) => "Did you mean [[app]]?".to_owned(),
            (None, Some(section)) => format!("Did you mean [{section}]?"),
            (None, None) => "Remove it; the sections are [server], [state], [upstream], [log] and [[app]].".to_owned(),
        };
        self.fault(span, Problem::new(format!("{} is not known", quoted(name)), remedy));
    }

    fn unknown_key(&mut self, of: &str, key: &str, known: impl Iterator<Item = &'static str>, span: Range<usize>) {
        let known: Vec<&str> = known.collect();
        let remedy = match (closest(key, known.iter().copied()), section_of(key)) {
            _ if key == "port" => "Write the port with the address: listen = [\"127.0.0.1:11211\"].".to_owned(),
            (Some(close), _) => format!("Did you mean {close:?}?"),
            (None, Some(section)) => format!("It belongs under a line [{section}]."),
            (None, None) => format!("Remove it; known here are {}.", known.join(", ")),
        };
        self.fault(span, Problem::new(format!("{} is not a key of {of}", quoted(key)), remedy));
    }

    fn value(&self, value: &Spanned<DeValue<'_>>) -> Value {
        match value.get_ref() {
            DeValue::String(text) => Value::Text(text.clone().into_owned()),
            DeValue::Integer(number) => match i128::from_str_radix(number.as_str(), number.radix()) {
                Ok(value) => Value::Integer { value, octal: number.radix() == 8 },
                Err(_) => Value::Other("a number of that length"),
            },
            DeValue::Boolean(on) => Value::Bool(*on),
            DeValue::Array(items) => {
                let given = |item| Given { value: self.value(item), place: self.place(item.span()) };
                Value::List(items.iter().map(given).collect())
            }
            DeValue::Table(table) => Value::Table(
                table
                    .iter()
                    .map(|(key, value)| {
                        let given = Given { value: self.value(value), place: self.place(key.span()) };
                        (key.get_ref().clone().into_owned(), given)
                    })
                    .collect(),
            ),
            other => Value::Other(kind_of(other)),
        }
    }

    fn fault(&mut self, span: Range<usize>, problem: Problem) {
        let place = self.place(span);
        self.faults.push(problem.at(&place));
    }

    fn place(&self, span: Range<usize>) -> Place {
        Place::Line { file: self.file.clone(), line: self.lines.of(span.start) }
    }
}

/// The section that has a key of that name.
fn section_of(key: &str) -> Option<&'static str> {
    SECTIONS.iter().copied().find(|section| keys_of(section).any(|known| known == key))
}

fn kind_of(value: &DeValue<'_>) -> &'static str {
    match value {
        DeValue::String(_) => kind(&Value::Text(String::new())),
        DeValue::Integer(_) => kind(&Value::Integer { value: 0, octal: false }),
        DeValue::Boolean(_) => kind(&Value::Bool(false)),
        DeValue::Array(_) => kind(&Value::List(Vec::new())),
        DeValue::Float(_) => "a fraction",
        DeValue::Datetime(_) => "a date",
        DeValue::Table(_) => kind(&Value::Table(Vec::new())),
    }
}

/// Where lines begin: ten thousand apps are ordinary, so a line is found by bisection.
struct Lines(Vec<usize>);

impl Lines {
    fn new(text: &str) -> Lines {
        let breaks = text.bytes().enumerate().filter(|(_, byte)| *byte == b'\n');
        Lines(breaks.map(|(at, _)| at + 1).collect())
    }

    fn of(&self, offset: usize) -> usize {
        1 + self.0.partition_point(|start| *start <= offset)
    }
}
