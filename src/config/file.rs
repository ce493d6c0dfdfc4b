//! The TOML file in its raw form: every key with its line, unknown keys refused.
//!
//! Walks the document instead of deriving `Deserialize`: serde stops at the first fault, and a start should
//! show all of them. The parser's own error texts quote the line they are about, which may hold a secret, so
//! only their bare message is used.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use toml::Spanned;
use toml::de::{DeTable, DeValue};
use zeroize::Zeroizing;

use super::fault::{Fault, Place, Problem};
use super::settings::{APP_KEYS, AUTHORIZER_KEYS, LISTENER_KEYS, NAMED_KEYS, SECTIONS, closest, find, keys_of};
use super::sinks::SINK_KEYS;
use super::value::{Given, Value, kind, quoted};

/// The sections that are lists of tables.
const LISTS: [&str; 4] = ["app", "user", "certificate", "sink"];

/// What the file says.
#[derive(Default)]
pub(super) struct Document {
    pub settings: Vec<(&'static str, Given)>,
    pub apps: Vec<RawTable>,
    pub users: Vec<RawTable>,
    pub certificates: Vec<RawTable>,
    pub listeners: Vec<RawTable>,
    pub sinks: Vec<RawTable>,
    /// Others than the owner may read the file.
    pub open_to_others: bool,
    /// Where relative paths count from.
    pub folder: PathBuf,
}

/// One table of a list such as `[[app]]`, unchecked.
pub(super) struct RawTable {
    pub place: Place,
    pub fields: BTreeMap<&'static str, Given>,
    /// The `[[app.authorizer]]` tables below it.
    pub authorizers: Vec<RawTable>,
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
            let mut repeated = BTreeSet::new();
            for error in errors {
                let span = error.span().unwrap_or_default();
                if let Some((header, name)) =
                    repeated_list(text, span.start).filter(|_| error.message() == "duplicate key")
                {
                    // Each key of the second table is a duplicate by itself.
                    if repeated.insert(header) {
                        let what = format!("this is not TOML: duplicate key: a second [{name}]");
                        let remedy = format!("Start each {name} with a line [[{name}]], in double brackets.");
                        self.fault(header..header, Problem::new(what, remedy));
                    }
                    continue;
                }
                let place = self.place(span);
                let what = format!("this is not TOML: {}", error.message());
                self.faults.push(Problem::new(what, "Correct the line; https://toml.io shows the syntax.").at(&place));
            }
            return;
        }
        for (key, value) in table.get_ref() {
            match (key.get_ref().as_ref(), value.get_ref()) {
                ("app", value) => {
                    let apps = self.tables("app", APP_KEYS, key.span(), value);
                    self.document.apps.extend(apps);
                }
                ("user", value) => {
                    let users = self.tables("user", NAMED_KEYS, key.span(), value);
                    self.document.users.extend(users);
                }
                ("certificate", value) => {
                    let certificates = self.tables("certificate", NAMED_KEYS, key.span(), value);
                    self.document.certificates.extend(certificates);
                }
                ("sink", value) => {
                    let sinks = self.tables("sink", &SINK_KEYS, key.span(), value);
                    self.document.sinks.extend(sinks);
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
            match (section, key.get_ref().as_ref(), value.get_ref()) {
                ("server", "listener", list) => {
                    let listeners = self.tables("server.listener", LISTENER_KEYS, key.span(), list);
                    self.document.listeners.extend(listeners);
                }
                ("server" | "side", "tls", DeValue::Table(table)) => {
                    for (key, value) in table {
                        self.setting(section, &format!("tls.{}", key.get_ref()), key.span(), value);
                    }
                }
                (_, name, _) => self.setting(section, name, key.span(), value),
            }
        }
    }

    fn setting(&mut self, section: &str, name: &str, span: Range<usize>, value: &Spanned<DeValue<'_>>) {
        match find(section, name) {
            Some(setting) => {
                let given = Given { value: self.value(value), place: self.place(span) };
                self.document.settings.push((setting, given));
            }
            None => self.unknown_key(&format!("[{section}]"), name, keys_of(section), span),
        }
    }

    /// The tables of a list such as `[[app]]`.
    fn tables(
        &mut self,
        name: &str,
        keys: &'static [&'static str],
        span: Range<usize>,
        value: &DeValue<'_>,
    ) -> Vec<RawTable> {
        let DeValue::Array(tables) = value else {
            let problem = Problem::new(
                format!("{name} is {}, not a list of tables", kind_of(value)),
                format!("Start each {name} with a line [[{name}]], in double brackets."),
            );
            self.fault(span, problem);
            return Vec::new();
        };
        tables.iter().filter_map(|table| self.table(name, keys, table)).collect()
    }

    fn table(&mut self, name: &str, keys: &'static [&'static str], table: &Spanned<DeValue<'_>>) -> Option<RawTable> {
        let place = self.place(table.span());
        let DeValue::Table(pairs) = table.get_ref() else {
            let what = format!("{} {name} is not a table", if name.starts_with('a') { "an" } else { "a" });
            let remedy = format!("Start each {name} with a line [[{name}]], in double brackets.");
            self.fault(table.span(), Problem::new(what, remedy));
            return None;
        };
        let mut fields = BTreeMap::new();
        let mut authorizers = Vec::new();
        for (key, value) in pairs {
            match keys.iter().find(|known| **known == key.get_ref().as_ref()) {
                Some(&"authorizer") => {
                    authorizers = self.tables("app.authorizer", AUTHORIZER_KEYS, key.span(), value.get_ref());
                }
                Some(known) => {
                    fields.insert(*known, Given { value: self.value(value), place: self.place(key.span()) });
                }
                None => self.unknown_key(&format!("[[{name}]]"), key.get_ref(), keys.iter().copied(), key.span()),
            }
        }
        Some(RawTable { place, fields, authorizers })
    }

    fn unknown_section(&mut self, name: &str, span: Range<usize>) {
        let remedy = match (section_of(name), closest(name, SECTIONS.iter().copied())) {
            (Some(section), _) => format!("It belongs under a line [{section}]."),
            (None, Some(list)) if LISTS.contains(&list) => format!("Did you mean [[{list}]]?"),
            (None, Some(section)) => format!("Did you mean [{section}]?"),
            (None, None) => "Remove it; the sections are [server], [state], [upstream], [side], [log], [[app]], [[user]], [[certificate]] and [[sink]].".to_owned(),
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
            DeValue::Float(number) => match number.as_str().parse() {
                Ok(number) => Value::Fraction(number),
                Err(_) => Value::Other(kind_of(value.get_ref())),
            },
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

/// Where the table begins that this place is in, and its name, if it is one of a list and the header has single brackets.
fn repeated_list(text: &str, at: usize) -> Option<(usize, &'static str)> {
    let line_end = text.get(at..)?.find('\n').map_or(text.len(), |end| at + end);
    let begins = text[..line_end].rfind("\n[").map(|before| before + 1);
    let header = begins.or(text.starts_with('[').then_some(0))?;
    let name = text[header..].lines().next()?.split(']').next()?.strip_prefix('[')?.trim();
    LISTS.iter().find(|list| **list == name).map(|list| (header, *list))
}

/// The section that has a key of that name. A secret or a url is hardly that of [state] wherever it has got lost.
fn section_of(key: &str) -> Option<&'static str> {
    let of_tables = APP_KEYS.contains(&key) || SINK_KEYS.contains(&key);
    let mut sections = SECTIONS.iter().copied().filter(|section| *section != "state" || !of_tables);
    sections.find(|section| keys_of(section).any(|known| known == key))
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
