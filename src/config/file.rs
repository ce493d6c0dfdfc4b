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

use super::fault::Fault;
use super::old_names::OldNames;
use super::reader::RawTable;
use super::schema::{self, SECTIONS, Section, header};
use crate::files;
use crate::invalid_value::{InvalidValue, closest, listed, quoted};
use crate::raw_value::{Given, Place, RawValue, kind};

/// What the layers say; a file first.
pub(super) struct Document {
    /// The tables of each section; of one that is no list there is one.
    tables: BTreeMap<&'static str, Vec<RawTable>>,
    /// Others than the owner may read the file.
    pub open_to_others: bool,
    /// Where relative paths count from.
    pub folder: PathBuf,
}

impl Document {
    pub fn empty() -> Document {
        let single = SECTIONS.iter().filter(|section| !section.is_list);
        let tables = single.map(|section| (section.name, vec![RawTable::new(section, Place::Default)])).collect();
        Document { tables, open_to_others: false, folder: PathBuf::new() }
    }

    /// The table of a section that is no list.
    pub fn one(&self, name: &str) -> &RawTable {
        &self.list(name)[0]
    }

    /// The same, to be changed.
    pub fn one_mut(&mut self, section: &'static Section) -> &mut RawTable {
        &mut self.tables.entry(section.name).or_default()[0]
    }

    /// The tables of a list such as `[[app]]`.
    pub fn list(&self, name: &str) -> &[RawTable] {
        self.tables.get(name).map_or(&[], Vec::as_slice)
    }

    pub fn take_list(&mut self, name: &str) -> Vec<RawTable> {
        self.tables.remove(name).unwrap_or_default()
    }
}

/// Reads and walks the file; faults are appended.
pub(super) fn read(path: &Path, old_names: &mut OldNames, faults: &mut Vec<Fault>) -> Document {
    let file: Arc<Path> = Arc::from(path);
    let mut document = Document::empty();
    let mut fault = |line, what: String, remedy: &str| {
        faults.push(InvalidValue::new(what, remedy).at(&Place::Line { file: file.clone(), line }));
    };
    let bytes = match std::fs::read(path) {
        Ok(bytes) => Zeroizing::new(bytes),
        Err(error) => {
            let remedy = "Check the name given to --config and who may read the file.";
            fault(0, format!("the file cannot be read: {error}"), remedy);
            return document;
        }
    };
    let text = match std::str::from_utf8(&bytes) {
        Ok(text) => text,
        Err(error) => {
            let line = 1 + bytes[..error.valid_up_to()].iter().filter(|byte| **byte == b'\n').count();
            fault(line, "the file is not valid UTF-8 here".to_owned(), "Save the file as UTF-8.");
            return document;
        }
    };
    document.open_to_others = files::is_open_to_others(path);
    document.folder = path.parent().map(Path::to_owned).unwrap_or_default();
    let lines = Lines::new(&file, text);
    let (table, errors) = DeTable::parse_recoverable(text);
    if errors.is_empty() {
        Walk { old_names, faults, document: &mut document }.sections(lines.fields(table.get_ref()));
    } else {
        // What was recovered from a broken document would only add faults that are not there.
        syntax_faults(text, &lines, &errors, faults);
    }
    document
}

fn syntax_faults(text: &str, lines: &Lines, errors: &[toml::de::Error], faults: &mut Vec<Fault>) {
    let mut repeated = BTreeSet::new();
    for error in errors {
        let at = error.span().unwrap_or_default().start;
        let list = repeated_list(text, at).filter(|_| error.message() == "duplicate key");
        let (at, what, remedy) = match list {
            // Each key of the second table is a duplicate by itself.
            Some((header, _)) if !repeated.insert(header) => continue,
            Some((header, name)) => (header, format!("duplicate key: a second [{name}]"), in_double_brackets(name)),
            None => (at, error.message().to_owned(), "Correct the line; https://toml.io shows the syntax.".to_owned()),
        };
        faults.push(InvalidValue::new(format!("this is not TOML: {what}"), remedy).at(&lines.place(at)));
    }
}

/// Puts each key of a file to the table of its section.
struct Walk<'f> {
    old_names: &'f mut OldNames,
    faults: &'f mut Vec<Fault>,
    document: &'f mut Document,
}

impl Walk<'_> {
    fn sections(&mut self, fields: Vec<(String, Given)>) {
        let names: Vec<String> = fields.iter().map(|(name, _)| name.clone()).collect();
        for (name, Given { value, place }) in fields {
            let Some(section) = top_sections().find(|section| section.name == name || is_old_name(section, &name))
            else {
                self.unknown_section(&name, &place);
                continue;
            };
            if is_old_name(section, &name) {
                let both = names.iter().any(|name| name == section.name);
                self.old_name(format!("[{name}]"), header(section), both, &place);
            }
            match value {
                value if section.is_list => {
                    let tables = self.tables(section, value, &place);
                    self.document.tables.insert(section.name, tables);
                }
                RawValue::Table(fields) => {
                    let mut tables = self.document.take_list(section.name);
                    if let Some(table) = tables.first_mut() {
                        self.settings(table, fields);
                    }
                    self.document.tables.insert(section.name, tables);
                }
                value => {
                    let (name, kind) = (section.name, kind(&value));
                    let remedy = format!("Write a line [{name}] and the keys below it.");
                    self.fault(&place, format!("{name} is {kind}, not a table"), remedy);
                }
            }
        }
    }

    /// The tables of a list such as `[[app]]`.
    fn tables(&mut self, section: &'static Section, value: RawValue, place: &Place) -> Vec<RawTable> {
        let name = section.name;
        let RawValue::List(items) = value else {
            let what = format!("{name} is {}, not a list of tables", kind(&value));
            self.fault(place, what, in_double_brackets(name));
            return Vec::new();
        };
        let mut tables = Vec::new();
        for Given { value, place } in items {
            if let RawValue::Table(fields) = value {
                let mut table = RawTable::new(section, place);
                self.settings(&mut table, fields);
                tables.push(table);
            } else {
                let article = if name.starts_with('a') { "an" } else { "a" };
                self.fault(&place, format!("{article} {name} is not a table"), in_double_brackets(name));
            }
        }
        tables
    }

    /// The keys of a table, and the tables below it.
    fn settings(&mut self, table: &mut RawTable, fields: Vec<(String, Given)>) {
        let section = table.section;
        let is_there = |key: &str| fields.iter().any(|(name, _)| name == key);
        let both: Vec<&str> =
            section.settings().filter(|of| is_there(of.old_key) && is_there(of.key)).map(|of| of.key).collect();
        for (name, Given { value, place }) in fields {
            match (schema::find_section(&format!("{}.{name}", section.name)), value) {
                (Some(below), value) => table.tables = self.tables(below, value, &place),
                (None, RawValue::Table(inner)) if name == "tls" && section.find("tls.cert").is_some() => {
                    for (name, given) in inner {
                        self.setting(table, &format!("tls.{name}"), given, &both);
                    }
                }
                (None, value) => self.setting(table, &name, Given { value, place }, &both),
            }
        }
    }

    /// `both` are keys whose old name is given as well.
    fn setting(&mut self, table: &mut RawTable, name: &str, given: Given, both: &[&str]) {
        if let Some(setting) = table.section.find(name) {
            table.put(setting.key, given);
        } else if let Some(setting) = table.section.find_old(name) {
            let both = both.contains(&setting.key);
            self.old_name(name.to_owned(), setting.key.to_owned(), both, &given.place);
            if !both {
                table.put(setting.key, given);
            }
        } else {
            self.unknown_key(table.section, name, &given.place);
        }
    }

    fn old_name(&mut self, old: String, new: String, both: bool, place: &Place) {
        if both {
            let what = format!("{old} is the old name of {new}, and both are given");
            return self.fault(place, what, format!("Keep {new}."));
        }
        self.old_names.used(old, new, place);
    }

    fn unknown_section(&mut self, name: &str, place: &Place) {
        let names = top_sections().flat_map(|section| [section.name, section.old_name]);
        let close = closest(name, names)
            .and_then(|close| top_sections().find(|section| section.name == close || is_old_name(section, close)));
        let remedy = match (elsewhere(name), close) {
            (Some(remedy), _) => remedy,
            (None, Some(section)) => format!("Did you mean {}?", header(section)),
            (None, None) => {
                let headers: Vec<String> = top_sections().map(header).collect();
                format!("Remove it; the sections are {}.", listed(&headers))
            }
        };
        self.fault(place, format!("{} is not known", quoted(name)), remedy);
    }

    fn unknown_key(&mut self, section: &Section, key: &str, place: &Place) {
        let below = SECTIONS.iter().filter_map(|below| below.name.strip_prefix(section.name)?.strip_prefix('.'));
        let known: Vec<&str> = section.keys().chain(below).collect();
        let old = section.settings().map(|setting| setting.old_key);
        let close = closest(key, known.iter().copied().chain(old));
        let close = close.map(|close| section.find_old(close).map_or(close, |setting| setting.key));
        let remedy = match (close, elsewhere(key)) {
            _ if key == "port" => "Write the port with the address: listen = [\"127.0.0.1:11211\"].".to_owned(),
            (Some(close), _) => format!("Did you mean {close:?}?"),
            (None, Some(remedy)) => remedy,
            (None, None) => format!("Remove it; known here are {}.", known.join(", ")),
        };
        self.fault(place, format!("{} is not a key of {}", quoted(key), header(section)), remedy);
    }

    fn fault(&mut self, place: &Place, what: String, remedy: String) {
        self.faults.push(InvalidValue::new(what, remedy).at(place));
    }
}

fn in_double_brackets(name: &str) -> String {
    format!("Start each {name} with a line [[{name}]], in double brackets.")
}

/// Where the table begins that this place is in, and its name, if it is one of a list and the header has single brackets.
fn repeated_list(text: &str, at: usize) -> Option<(usize, &'static str)> {
    let line_end = text.get(at..)?.find('\n').map_or(text.len(), |end| at + end);
    let begins = text[..line_end].rfind("\n[").map(|before| before + 1);
    let header = begins.or(text.starts_with('[').then_some(0))?;
    let name = text[header..].lines().next()?.split(']').next()?.strip_prefix('[')?.trim();
    let list = SECTIONS.iter().find(|section| section.is_list && section.name == name)?;
    Some((header, list.name))
}

/// Where a key of that name belongs; if it is an old name, with the one to write.
fn elsewhere(key: &str) -> Option<String> {
    if let Some(section) = section_of(key) {
        return Some(format!("It belongs under a line [{section}]."));
    }
    let renamed = SECTIONS.iter().find_map(|section| Some((section, section.find_old(key)?)));
    renamed.map(|(section, setting)| format!("It belongs under a line {}: write {}.", header(section), setting.key))
}

/// The section that has a key of that name. A secret or a url is hardly that of [state] wherever it has got lost.
fn section_of(key: &str) -> Option<&'static str> {
    let has = |section: &&Section| section.find(key).is_some();
    let of_tables = ["app", "sink"].map(schema::section).iter().any(has);
    let mut sections = SECTIONS.iter().filter(|section| !section.is_list && (section.name != "state" || !of_tables));
    sections.find(has).map(|section| section.name)
}

/// The sections that a line of their own begins; others are below one.
fn top_sections() -> impl Iterator<Item = &'static Section> {
    SECTIONS.iter().filter(|section| !section.name.contains('.'))
}

fn is_old_name(section: &Section, name: &str) -> bool {
    !section.old_name.is_empty() && section.old_name == name
}

/// A file and where its lines begin: ten thousand apps are ordinary, so a line is found by bisection.
struct Lines<'f> {
    file: &'f Arc<Path>,
    starts: Vec<usize>,
}

impl Lines<'_> {
    fn new<'f>(file: &'f Arc<Path>, text: &str) -> Lines<'f> {
        let breaks = text.bytes().enumerate().filter(|(_, byte)| *byte == b'\n');
        Lines { file, starts: breaks.map(|(at, _)| at + 1).collect() }
    }

    fn place(&self, offset: usize) -> Place {
        Place::Line { file: self.file.clone(), line: 1 + self.starts.partition_point(|start| *start <= offset) }
    }

    /// Each key of a table, with its line.
    fn fields(&self, table: &DeTable<'_>) -> Vec<(String, Given)> {
        let given = |value, key: Range<usize>| Given { value: self.value(value), place: self.place(key.start) };
        table
            .iter()
            .map(|(key, value)| (key.get_ref().clone().into_owned(), given(value.get_ref(), key.span())))
            .collect()
    }

    fn value(&self, value: &DeValue<'_>) -> RawValue {
        match value {
            DeValue::String(text) => RawValue::Text(text.clone().into_owned()),
            DeValue::Integer(number) => match i128::from_str_radix(number.as_str(), number.radix()) {
                Ok(value) => RawValue::Integer { value, octal: number.radix() == 8 },
                Err(_) => RawValue::Other("a number of that length"),
            },
            DeValue::Boolean(on) => RawValue::Bool(*on),
            DeValue::Float(number) => number.as_str().parse().map_or(RawValue::Other("a fraction"), RawValue::Fraction),
            DeValue::Array(items) => {
                let given = |item: &Spanned<DeValue<'_>>| Given {
                    value: self.value(item.get_ref()),
                    place: self.place(item.span().start),
                };
                RawValue::List(items.iter().map(given).collect())
            }
            DeValue::Table(table) => RawValue::Table(self.fields(table)),
            DeValue::Datetime(_) => RawValue::Other("a date"),
        }
    }
}
