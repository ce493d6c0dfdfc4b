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

use super::fault::{Fault, Place};
use super::old_names::OldNames;
use super::reader::RawTable;
use super::schema::{self, SECTIONS, Section};
use super::secrets::is_open_to_others;
use super::value::{Given, RawValue, closest, kind, quoted};
use crate::invalid_value::{InvalidValue, listed};

/// What the layers say; a file first.
pub(super) struct Document {
    pub server: RawTable,
    pub state: RawTable,
    pub upstream: RawTable,
    pub http: RawTable,
    pub log: RawTable,
    /// The tables of lists, by the section.
    lists: BTreeMap<&'static str, Vec<RawTable>>,
    /// Others than the owner may read the file.
    pub open_to_others: bool,
    /// Where relative paths count from.
    pub folder: PathBuf,
}

impl Document {
    pub fn empty() -> Document {
        let table = |name| RawTable::new(schema::section(name), Place::Default);
        Document {
            server: table("server"),
            state: table("state"),
            upstream: table("upstream"),
            http: table("http"),
            log: table("log"),
            lists: BTreeMap::new(),
            open_to_others: false,
            folder: PathBuf::new(),
        }
    }

    /// The tables of a list such as `[[app]]`.
    pub fn list(&self, name: &str) -> &[RawTable] {
        self.lists.get(name).map_or(&[], Vec::as_slice)
    }

    pub fn take_list(&mut self, name: &str) -> Vec<RawTable> {
        self.lists.remove(name).unwrap_or_default()
    }

    /// The table of that section, of which there is one.
    pub fn table(&mut self, section: &Section) -> &mut RawTable {
        match section.name {
            "state" => &mut self.state,
            "upstream" => &mut self.upstream,
            "http" => &mut self.http,
            "log" => &mut self.log,
            _ => &mut self.server,
        }
    }
}

/// Reads and walks the file; faults are appended.
pub(super) fn read(path: &Path, old_names: &mut OldNames, faults: &mut Vec<Fault>) -> Document {
    let file: Arc<Path> = Arc::from(path);
    let whole = |problem: InvalidValue| problem.at(&Place::Line { file: file.clone(), line: 0 });
    let bytes = match std::fs::read(path) {
        Ok(bytes) => Zeroizing::new(bytes),
        Err(error) => {
            let remedy = "Check the name given to --config and who may read the file.";
            faults.push(whole(InvalidValue::new(format!("the file cannot be read: {error}"), remedy)));
            return Document::empty();
        }
    };
    let text = match std::str::from_utf8(&bytes) {
        Ok(text) => text,
        Err(error) => {
            let line = 1 + bytes[..error.valid_up_to()].iter().filter(|byte| **byte == b'\n').count();
            let problem = InvalidValue::new("the file is not valid UTF-8 here", "Save the file as UTF-8.");
            faults.push(problem.at(&Place::Line { file, line }));
            return Document::empty();
        }
    };
    let mut walk = Walk { file, lines: Lines::new(text), old_names, faults, document: Document::empty() };
    walk.document.open_to_others = is_open_to_others(path);
    walk.document.folder = path.parent().map(Path::to_owned).unwrap_or_default();
    walk.document(text);
    walk.document
}

struct Walk<'f> {
    file: Arc<Path>,
    lines: Lines,
    old_names: &'f mut OldNames,
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
                        let remedy = in_double_brackets(name);
                        self.fault(header..header, InvalidValue::new(what, remedy));
                    }
                    continue;
                }
                let place = self.place(span);
                let what = format!("this is not TOML: {}", error.message());
                self.faults
                    .push(InvalidValue::new(what, "Correct the line; https://toml.io shows the syntax.").at(&place));
            }
            return;
        }
        for (key, value) in table.get_ref() {
            let name = key.get_ref().as_ref();
            let Some(section) = top_sections().find(|section| section.name == name || is_old_name(section, name))
            else {
                self.unknown_section(name, key.span());
                continue;
            };
            if is_old_name(section, name) {
                let (old, new) = (format!("[{name}]"), format!("[{}]", section.name));
                let both = table.get_ref().contains_key(section.name);
                self.old_name(key.span(), old, new, both);
            }
            match section.is_list {
                true => self.list(section, key.span(), value.get_ref()),
                false => self.section(section, key.span(), value.get_ref()),
            }
        }
    }

    fn section(&mut self, section: &'static Section, span: Range<usize>, value: &DeValue<'_>) {
        let name = section.name;
        let DeValue::Table(table) = value else {
            let problem = InvalidValue::new(
                format!("{name} is {}, not a table", kind_of(value)),
                format!("Write a line [{name}] and the keys below it."),
            );
            return self.fault(span, problem);
        };
        for (key, value) in table {
            let mut settings = Vec::new();
            match (key.get_ref().as_ref(), value.get_ref()) {
                ("listener", list) if name == "server" => {
                    self.list(schema::section("server.listener"), key.span(), list);
                }
                ("tls", DeValue::Table(tls)) if section.find("tls.cert").is_some() => {
                    settings.extend(tls.iter().filter_map(|(key, value)| {
                        self.setting(section, table, &format!("tls.{}", key.get_ref()), key.span(), value)
                    }));
                }
                (key_name, _) => settings.extend(self.setting(section, table, key_name, key.span(), value)),
            }
            settings.into_iter().for_each(|(key, given)| self.document.table(section).put(key, given));
        }
    }

    /// What a line gives, by the key as the schema has it; a fault if it has none.
    fn setting(
        &mut self,
        section: &'static Section,
        table: &DeTable<'_>,
        key: &str,
        span: Range<usize>,
        value: &Spanned<DeValue<'_>>,
    ) -> Option<(&'static str, Given)> {
        let given = Given { value: self.value(value), place: self.place(span.clone()) };
        if let Some(setting) = section.find(key) {
            return Some((setting.key, given));
        }
        let Some(setting) = section.find_old(key) else {
            self.unknown_key(section, key, span);
            return None;
        };
        let both = table.contains_key(setting.key);
        self.old_name(span, key.to_owned(), setting.key.to_owned(), both);
        (!both).then_some((setting.key, given))
    }

    fn old_name(&mut self, span: Range<usize>, old: String, new: String, both: bool) {
        if both {
            let what = format!("{old} is the old name of {new}, and both are given");
            return self.fault(span, InvalidValue::new(what, format!("Keep {new}.")));
        }
        let place = self.place(span);
        self.old_names.used(old, new, &place);
    }

    fn list(&mut self, section: &'static Section, span: Range<usize>, value: &DeValue<'_>) {
        let tables = self.tables(section, span, value);
        self.document.lists.insert(section.name, tables);
    }

    /// The tables of a list such as `[[app]]`.
    fn tables(&mut self, section: &'static Section, span: Range<usize>, value: &DeValue<'_>) -> Vec<RawTable> {
        let name = section.name;
        let DeValue::Array(tables) = value else {
            let problem = InvalidValue::new(
                format!("{name} is {}, not a list of tables", kind_of(value)),
                in_double_brackets(name),
            );
            self.fault(span, problem);
            return Vec::new();
        };
        tables.iter().filter_map(|table| self.table(section, table)).collect()
    }

    fn table(&mut self, section: &'static Section, table: &Spanned<DeValue<'_>>) -> Option<RawTable> {
        let (name, place) = (section.name, self.place(table.span()));
        let DeValue::Table(pairs) = table.get_ref() else {
            let what = format!("{} {name} is not a table", if name.starts_with('a') { "an" } else { "a" });
            let remedy = in_double_brackets(name);
            self.fault(table.span(), InvalidValue::new(what, remedy));
            return None;
        };
        let mut own = RawTable::new(section, place);
        for (key, value) in pairs {
            match schema::find_section(&format!("{name}.{}", key.get_ref())) {
                Some(below) => own.tables = self.tables(below, key.span(), value.get_ref()),
                None => {
                    let setting = self.setting(section, pairs, key.get_ref(), key.span(), value);
                    setting.into_iter().for_each(|(key, given)| own.put(key, given));
                }
            }
        }
        Some(own)
    }

    fn unknown_section(&mut self, name: &str, span: Range<usize>) {
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
        self.fault(span, InvalidValue::new(format!("{} is not known", quoted(name)), remedy));
    }

    fn unknown_key(&mut self, section: &Section, key: &str, span: Range<usize>) {
        let of = header(section);
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
        self.fault(span, InvalidValue::new(format!("{} is not a key of {of}", quoted(key)), remedy));
    }

    fn value(&self, value: &Spanned<DeValue<'_>>) -> RawValue {
        match value.get_ref() {
            DeValue::String(text) => RawValue::Text(text.clone().into_owned()),
            DeValue::Integer(number) => match i128::from_str_radix(number.as_str(), number.radix()) {
                Ok(value) => RawValue::Integer { value, octal: number.radix() == 8 },
                Err(_) => RawValue::Other("a number of that length"),
            },
            DeValue::Boolean(on) => RawValue::Bool(*on),
            DeValue::Float(number) => match number.as_str().parse() {
                Ok(number) => RawValue::Fraction(number),
                Err(_) => RawValue::Other(kind_of(value.get_ref())),
            },
            DeValue::Array(items) => {
                let given = |item| Given { value: self.value(item), place: self.place(item.span()) };
                RawValue::List(items.iter().map(given).collect())
            }
            DeValue::Table(table) => RawValue::Table(
                table
                    .iter()
                    .map(|(key, value)| {
                        let given = Given { value: self.value(value), place: self.place(key.span()) };
                        (key.get_ref().clone().into_owned(), given)
                    })
                    .collect(),
            ),
            other => RawValue::Other(kind_of(other)),
        }
    }

    fn fault(&mut self, span: Range<usize>, problem: InvalidValue) {
        let place = self.place(span);
        self.faults.push(problem.at(&place));
    }

    fn place(&self, span: Range<usize>) -> Place {
        Place::Line { file: self.file.clone(), line: self.lines.of(span.start) }
    }
}

/// The line that a table begins with.
pub(super) fn header(section: &Section) -> String {
    if section.is_list { format!("[[{}]]", section.name) } else { format!("[{}]", section.name) }
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

fn kind_of(value: &DeValue<'_>) -> &'static str {
    match value {
        DeValue::String(_) => kind(&RawValue::Text(String::new())),
        DeValue::Integer(_) => kind(&RawValue::Integer { value: 0, octal: false }),
        DeValue::Boolean(_) => kind(&RawValue::Bool(false)),
        DeValue::Array(_) => kind(&RawValue::List(Vec::new())),
        DeValue::Float(_) => "a fraction",
        DeValue::Datetime(_) => "a date",
        DeValue::Table(_) => kind(&RawValue::Table(Vec::new())),
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
