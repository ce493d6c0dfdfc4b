//! One table of the configuration with what each layer says of its keys, and the reading of them: type, range and default
//! are the schema's.
//!
//! A value that is read is remembered as it holds, for `check --print`; a secret only by where it comes from.

use std::cell::RefCell;
use std::fmt::Write;
use std::path::{Path, PathBuf};

use super::cluster::ClusterRole;
use super::environment::Environment;
use super::fault::Fault;
use super::schema::{Section, header};
use super::value::{self, Value};
use crate::cli::file_after_flag;
use crate::raw_value::{Given, Place, RawValue, ReadResult, text, word_of};
use crate::unit::credentials;

/// One table, of the file alone or of all layers.
pub(super) struct RawTable {
    pub section: &'static Section,
    pub place: Place,
    /// The lowest layer first.
    given: Vec<(&'static str, Given)>,
    /// The tables below it.
    pub tables: Vec<RawTable>,
    printed: RefCell<Vec<(&'static str, String)>>,
}

impl RawTable {
    pub fn new(section: &'static Section, place: Place) -> RawTable {
        RawTable { section, place, given: Vec::new(), tables: Vec::new(), printed: RefCell::default() }
    }

    /// What a layer says; above what is there already.
    pub fn put(&mut self, key: &'static str, given: Given) {
        self.given.push((key, given));
    }

    /// What the highest layer says.
    pub fn get(&self, key: &str) -> Option<&Given> {
        self.given.iter().rfind(|(of, _)| *of == key).map(|(_, given)| given)
    }

    pub fn has(&self, key: &str) -> bool {
        self.get(key).is_some()
    }

    /// Takes back what is said of these keys.
    pub fn remove(&mut self, keys: &[&str]) {
        self.given.retain(|(key, _)| !keys.contains(key));
    }

    /// The keys that are given.
    pub fn given_keys(&self) -> Vec<&'static str> {
        self.section.keys().filter(|key| self.has(key)).collect()
    }

    /// Every key with what is said of it, the lowest layer first.
    pub fn all(&self) -> impl DoubleEndedIterator<Item = (&'static str, &Given)> {
        self.given.iter().map(|(key, given)| (*key, given))
    }

    /// Where a key was given, or else the table.
    pub fn place_of(&self, key: &str) -> &Place {
        self.get(key).map_or(&self.place, |given| &given.place)
    }

    /// The key as faults name it, if they do.
    pub fn name_in_faults(&self, key: &str) -> Option<String> {
        match self.section.name {
            "server.listener" | "user" | "certificate" => None,
            "state" if key != "path" => Some(key.to_owned()),
            _ if self.section.is_list => Some(key.to_owned()),
            section => Some(format!("{section}.{key}")),
        }
    }

    /// Remembers the value that holds. The last word counts.
    pub fn print(&self, key: &str, value: impl Into<Value>) {
        if let Some(setting) = self.section.find(key) {
            self.forget(key);
            self.printed.borrow_mut().push((setting.key, value::as_toml(&setting.takes, value.into())));
        }
    }

    pub fn forget(&self, key: &str) {
        self.printed.borrow_mut().retain(|(of, _)| *of != key);
    }

    /// All of it as a file could have it, in the order of the schema.
    pub fn write(&self, out: &mut String) {
        let _ = writeln!(out, "\n{}", header(self.section));
        let printed = self.printed.borrow();
        for setting in self.section.settings() {
            for (key, toml) in printed.iter().filter(|(key, _)| *key == setting.key) {
                let _ = writeln!(out, "{key} = {toml}");
            }
        }
    }
}

/// Reads tables; faults and warnings are collected.
pub(super) struct Reader<'r> {
    pub environment: &'r dyn Environment,
    /// Relative paths of the file count from there.
    pub folder: PathBuf,
    /// Those of variables and flags from here.
    pub current: PathBuf,
    /// Others than the owner may read the file.
    pub file_is_open: bool,
    pub cluster_role: ClusterRole,
    pub faults: Vec<Fault>,
    pub warnings: Vec<String>,
}

impl Reader<'_> {
    /// The highest layer's value, with its place; without any the default. Lower layers are judged too: what is wrong in the
    /// file stays wrong when the flag that hides it goes.
    pub fn placed<T>(
        &mut self,
        table: &RawTable,
        key: &str,
        read: impl Fn(&RawValue, &Path) -> ReadResult<T>,
    ) -> Option<(T, Place)> {
        let mut picked = None;
        for (_, given) in table.all().filter(|(of, _)| *of == key) {
            match read(&given.value, self.base_of(&given.place)) {
                Ok(value) => picked = Some((value, given.place.clone())),
                Err(mut problem) => {
                    // memcached's -c takes a number.
                    if let (Place::Flag("-c"), RawValue::Text(text)) = (&given.place, &given.value) {
                        problem.remedy = file_after_flag("-c", text).map_or(problem.remedy, |remedy| remedy + ".");
                    }
                    self.fault((table, key, &given.place), problem);
                }
            }
        }
        picked.or_else(|| {
            let default = value::default_of(&table.section.find(key)?.takes)?;
            Some((read(&default, &self.current).ok()?, Place::Default))
        })
    }

    /// Where a relative path that is given there counts from.
    pub fn base_of(&self, place: &Place) -> &Path {
        if matches!(place, Place::Line { .. }) { &self.folder } else { &self.current }
    }

    pub fn read<T>(&mut self, table: &RawTable, key: &str, read: impl Fn(&RawValue) -> ReadResult<T>) -> Option<T> {
        self.placed(table, key, |value, _| read(value)).map(|(value, _)| value)
    }

    /// What the row says of it; without a value the default, if there is any.
    pub fn get<T: TryFrom<Value>>(&mut self, table: &RawTable, key: &str) -> Option<T> {
        self.get_placed(table, key).map(|(value, _)| value)
    }

    /// The same of a row with a default.
    pub fn value<T: TryFrom<Value> + Default>(&mut self, table: &RawTable, key: &str) -> T {
        self.get(table, key).unwrap_or_default()
    }

    /// The same, with its place.
    pub fn get_placed<T: TryFrom<Value>>(&mut self, table: &RawTable, key: &str) -> Option<(T, Place)> {
        let takes = &table.section.find(key)?.takes;
        let (value, place) = self.placed(table, key, |value, base| value::by_row(takes, value, base))?;
        table.print(key, value.clone());
        Some((value.try_into().ok()?, place))
    }

    /// What one of a few words means; without one that of the default, if there is any.
    pub fn word<T: Copy>(&mut self, table: &RawTable, key: &str, words: &[(&'static str, T)]) -> Option<T> {
        self.word_that(table, key, words, |_| Ok(()))
    }

    /// The same of a word whose meaning `judge` accepts.
    pub fn word_that<T: Copy>(
        &mut self,
        table: &RawTable,
        key: &str,
        words: &[(&'static str, T)],
        judge: impl Fn(T) -> ReadResult<()>,
    ) -> Option<T> {
        let read = |value: &RawValue| {
            let (word, meaning) = word_of(value, words)?;
            judge(meaning).map(|()| (word, meaning))
        };
        let (word, meaning) = self.read(table, key, read)?;
        table.print(key, word);
        Some(meaning)
    }

    /// What `read` makes of a text; without one of the default, if there is any.
    pub fn text<T: AsRef<str>>(
        &mut self,
        table: &RawTable,
        key: &str,
        read: impl Fn(&str) -> ReadResult<T>,
    ) -> Option<T> {
        let text = self.read(table, key, |value| read(text(value)?))?;
        table.print(key, text.as_ref());
        Some(text)
    }

    /// A text that `judge` accepts.
    pub fn text_that(&mut self, table: &RawTable, key: &str, judge: impl Fn(&str) -> ReadResult<()>) -> Option<String> {
        self.text(table, key, |text| judge(text).map(|()| text.to_owned()))
    }

    /// A file, by its path or as a credential of systemd's: what the highest layer says that names either.
    pub fn file(&mut self, table: &RawTable, key: &str, credential: &str) -> Option<(PathBuf, Place)> {
        let environment = self.environment;
        let by_path = self.get_placed(table, key);
        let by_name = self.placed(table, credential, |value, _| credentials::path(environment, text(value)?, key));
        if let (Some(path), Some(name)) = (table.get(key), table.get(credential))
            && path.place.layer() == name.place.layer()
        {
            let key = table.name_in_faults(key).unwrap_or_default();
            self.refuse((table, credential), format!("{key} is given as well"), "Keep one of the two.");
        }
        let layer = |file: &Option<(PathBuf, Place)>| file.as_ref().map(|(_, place)| place.layer());
        let file = if layer(&by_path) > layer(&by_name) { by_path } else { by_name };
        file.iter().for_each(|(path, _)| self.print_file(table, key, credential, path));
        file
    }

    /// By its name if systemd has put it there.
    pub fn print_file(&self, table: &RawTable, key: &str, credential: &str, path: &Path) {
        table.forget(key);
        let folder = credentials::folder(self.environment);
        let name = path.file_name().filter(|_| folder.is_some() && path.parent() == folder.as_deref());
        match name.and_then(|name| name.to_str()) {
            Some(name) => table.print(credential, name),
            None => table.print(key, path.to_owned()),
        }
    }
}
