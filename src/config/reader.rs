//! One table of the configuration with what each layer says of its keys, and the readers of values: type, range and default
//! are the schema's.
//!
//! A value that is read is remembered as it holds, for `check --print`; a secret only by where it comes from.

use std::cell::RefCell;
use std::fmt::Write;
use std::path::{Path, PathBuf};

use super::cluster::ClusterRole;
use super::environment::Environment;
use super::fault::{Fault, Place};
use super::file::header;
use super::schema::{Section, Setting, Takes};
use super::secrets;
use super::value::{self, Given, RawValue, ReadResult, integer, kind};
use crate::byte_size::size_text;
use crate::cli::file_after_flag;
use crate::invalid_value::InvalidValue;

/// What has to be in a file that is named.
type JudgePath = fn(&Path) -> Result<(), InvalidValue>;

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

    /// Every key with what is said of it, the lowest layer first.
    pub fn all(&self) -> impl DoubleEndedIterator<Item = (&'static str, &Given)> {
        self.given.iter().map(|(key, given)| (*key, given))
    }

    /// Where a key was given, or else the table.
    pub fn place_of(&self, key: &str) -> &Place {
        self.get(key).map_or(&self.place, |given| &given.place)
    }

    fn setting(&self, key: &str) -> Option<&'static Setting> {
        self.section.find(key)
    }

    /// The key as faults name it, if they do.
    fn name_in_faults(&self, key: &str) -> Option<String> {
        match self.section.name {
            "server.listener" | "user" | "certificate" => None,
            "state" if key != "path" => Some(key.to_owned()),
            _ if self.section.is_list => Some(key.to_owned()),
            section => Some(format!("{section}.{key}")),
        }
    }

    /// Remembers the value that holds, in TOML. The last word counts.
    pub fn print(&self, key: &str, toml: impl Into<String>) {
        if let Some(setting) = self.setting(key) {
            self.forget(key);
            self.printed.borrow_mut().push((setting.key, toml.into()));
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
    /// The highest layer's value, with its place. Lower layers are judged too: what is wrong in the file stays wrong when
    /// the flag that hides it goes.
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
                    self.fault_at(table, key, problem, &given.place);
                }
            }
        }
        picked
    }

    /// Where a relative path that is given there counts from.
    pub fn base_of(&self, place: &Place) -> &Path {
        if matches!(place, Place::Line { .. }) { &self.folder } else { &self.current }
    }

    pub fn read<T>(&mut self, table: &RawTable, key: &str, read: impl Fn(&RawValue) -> ReadResult<T>) -> Option<T> {
        self.placed(table, key, |value, _| read(value)).map(|(value, _)| value)
    }

    /// A fault of a key, where it was given.
    pub fn fault(&mut self, table: &RawTable, key: &str, problem: InvalidValue) {
        self.fault_at(table, key, problem, table.place_of(key));
    }

    pub fn fault_at(&mut self, table: &RawTable, key: &str, problem: InvalidValue, place: &Place) {
        let problem = match table.name_in_faults(key) {
            Some(name) => problem.of_key(&name),
            None => problem,
        };
        self.faults.push(problem.at(place));
    }

    /// What there is of a value that was judged; a fault there if it is none.
    pub fn good<T>(&mut self, judged: ReadResult<T>, place: &Place) -> Option<T> {
        judged.map_err(|problem| self.faults.push(problem.at(place))).ok()
    }

    /// A fault of a whole table.
    pub fn fault_of(&mut self, table: &RawTable, problem: InvalidValue) {
        self.faults.push(problem.at(&table.place));
    }

    /// A number in its range; without one the default.
    pub fn number<N: TryFrom<u64> + Default>(&mut self, table: &RawTable, key: &str) -> N {
        self.number_if_any(table, key).unwrap_or_default()
    }

    /// A number in its range; without one the default, if there is any.
    pub fn number_if_any<N: TryFrom<u64>>(&mut self, table: &RawTable, key: &str) -> Option<N> {
        let Takes::Number { low, high, default, .. } = table.setting(key)?.takes else { return None };
        let number = self.read(table, key, |value| integer(value, low..=high)).or(default)?;
        table.print(key, number.to_string());
        N::try_from(number).ok()
    }

    /// A number of bytes, with its place if it was given.
    pub fn size(&mut self, table: &RawTable, key: &str) -> (u64, Option<Place>) {
        let Some(Setting { takes: Takes::Size { low, high, default }, .. }) = table.setting(key) else {
            return (0, None);
        };
        let (size, place) = self.placed(table, key, |value, _| value::size(value, *low..=*high)).unzip();
        let size = size.unwrap_or(*default);
        table.print(key, toml_text(&size_text(size)));
        (size, place)
    }

    /// A switch; without one the default, or else `otherwise`.
    pub fn switch(&mut self, table: &RawTable, key: &str, otherwise: bool) -> bool {
        let default = match table.setting(key).map(|setting| &setting.takes) {
            Some(Takes::Switch(Some(default))) => *default,
            _ => otherwise,
        };
        let on = self.read(table, key, value::switch).unwrap_or(default);
        table.print(key, on.to_string());
        on
    }

    /// What one of a few words means; without one that of the default, if there is any.
    pub fn word<T: Copy>(&mut self, table: &RawTable, key: &str, words: &[(&'static str, T)]) -> Option<T> {
        let default = match table.setting(key)?.takes {
            Takes::Word(_, default) | Takes::Text(_, default) => default,
            _ => "",
        };
        let meaning = |at: usize| words.get(at).map(|(_, meaning)| *meaning);
        let given = self.read(table, key, |value| value::word_at(value, words));
        let at = given.or_else(|| words.iter().position(|(word, _)| *word == default))?;
        table.print(key, toml_text(words.get(at)?.0));
        meaning(at)
    }

    /// What `read` makes of a text; without one of the default, if there is any.
    pub fn text<T: AsRef<str>>(
        &mut self,
        table: &RawTable,
        key: &str,
        read: impl Fn(&str) -> ReadResult<T>,
    ) -> Option<T> {
        let Takes::Text(_, default) = table.setting(key)?.takes else { return None };
        let given = self.read(table, key, |value| read(value::text(value)?));
        let text = given.or_else(|| read(default).ok().filter(|_| !default.is_empty()))?;
        table.print(key, toml_text(text.as_ref()));
        Some(text)
    }

    /// A text that can be anything.
    pub fn any_text(&mut self, table: &RawTable, key: &str) -> Option<String> {
        self.text_that(table, key, |_| Ok(()))
    }

    /// A text that `judge` accepts.
    pub fn text_that(&mut self, table: &RawTable, key: &str, judge: impl Fn(&str) -> ReadResult<()>) -> Option<String> {
        self.text(table, key, |text| judge(text).map(|()| text.to_owned()))
    }

    /// A path.
    pub fn path(&mut self, table: &RawTable, key: &str) -> Option<PathBuf> {
        self.path_that(table, key, |_| Ok(()))
    }

    /// A path that `judge` accepts.
    pub fn path_that(&mut self, table: &RawTable, key: &str, judge: JudgePath) -> Option<PathBuf> {
        let path = self.placed(table, key, |value, base| judged_path(value, base, judge))?.0;
        table.print(key, toml_path(&path));
        Some(path)
    }

    /// An access mask; without one the default, if there is any.
    pub fn mode(&mut self, table: &RawTable, key: &str) -> Option<u32> {
        let Takes::Mode(default) = table.setting(key)?.takes else { return None };
        let mode = self.read(table, key, value::mode).or(default)?;
        table.print(key, toml_mode(mode));
        Some(mode)
    }

    /// The items of a list; `example` is in the fault if it is none.
    pub fn list<'t>(&mut self, table: &'t RawTable, key: &str, example: &str) -> &'t [Given] {
        let Some(given) = table.get(key) else { return &[] };
        if let RawValue::List(items) = &given.value {
            return items;
        }
        let what = format!("{} is not a list", kind(&given.value));
        self.refuse(table, key, what, format!("Write {example}, in brackets."));
        &[]
    }

    /// A file, by its path or as a credential of systemd's: what the highest layer says that names either.
    pub fn file(
        &mut self,
        table: &RawTable,
        key: &str,
        credential: &str,
        judge: JudgePath,
    ) -> Option<(PathBuf, Place)> {
        let environment = self.environment;
        let by_path = self.placed(table, key, |value, base| judged_path(value, base, judge));
        let by_name = self.placed(table, credential, |value, _| secrets::credential_path(environment, value, key));
        if let (Some(path), Some(name)) = (table.get(key), table.get(credential))
            && path.place.layer() == name.place.layer()
        {
            let key = table.name_in_faults(key).unwrap_or_default();
            self.refuse(table, credential, format!("{key} is given as well"), "Keep one of the two.");
        }
        let takes_name = match (&by_path, &by_name) {
            (Some((_, path)), Some((_, name))) => path.layer() <= name.layer(),
            _ => by_name.is_some(),
        };
        let file = if takes_name { by_name } else { by_path };
        file.iter().for_each(|(path, _)| self.print_file(table, key, credential, path));
        file
    }

    /// By its name if systemd has put it there.
    pub fn print_file(&self, table: &RawTable, key: &str, credential: &str, path: &Path) {
        let folder = secrets::credentials_folder(self.environment);
        let name = path.file_name().filter(|_| folder.is_some() && path.parent() == folder.as_deref());
        match name.and_then(|name| name.to_str()) {
            Some(name) => table.print(credential, toml_text(name)),
            None => table.print(key, toml_path(path)),
        }
    }
}

fn judged_path(value: &RawValue, base: &Path, judge: JudgePath) -> ReadResult<PathBuf> {
    let path = value::path(value, base)?;
    judge(&path)?;
    Ok(path)
}

/// A text as TOML has it.
pub(super) fn toml_text(text: &str) -> String {
    toml::Value::String(text.to_owned()).to_string()
}

pub(super) fn toml_path(path: &Path) -> String {
    toml_text(&path.to_string_lossy())
}

pub(super) fn toml_mode(mode: u32) -> String {
    toml_text(&format!("{mode:04o}"))
}

/// A list of what is TOML already.
pub(super) fn toml_list(items: impl IntoIterator<Item = String>) -> String {
    format!("[{}]", items.into_iter().collect::<Vec<_>>().join(", "))
}

/// A list of texts.
pub(super) fn toml_texts<T: AsRef<str>>(items: impl IntoIterator<Item = T>) -> String {
    toml_list(items.into_iter().map(|item| toml_text(item.as_ref())))
}
