//! Ways to a fault that the tables have in common: of a key, of a whole table, of an item of a list, of what a part has judged.

use super::reader::{RawTable, Reader};
use crate::invalid_value::{InvalidValue, Judgement, wrong};
use crate::raw_value::{Given, Misread, Place, RawValue, ReadResult, kind, texts};

/// What a fault is about: a key of a table, a whole table, or what is given at a place.
pub(super) struct About<'a> {
    key: Option<String>,
    place: &'a Place,
}

impl<'a> From<&'a Place> for About<'a> {
    fn from(place: &'a Place) -> About<'a> {
        About { key: None, place }
    }
}

impl<'a> From<&'a RawTable> for About<'a> {
    fn from(table: &'a RawTable) -> About<'a> {
        About { key: None, place: &table.place }
    }
}

impl<'a> From<(&'a RawTable, &str)> for About<'a> {
    fn from((table, key): (&'a RawTable, &str)) -> About<'a> {
        About { key: table.name_in_faults(key), place: table.place_of(key) }
    }
}

/// A key where it was given, which need not be the highest layer.
impl<'a> From<(&'a RawTable, &str, &'a Place)> for About<'a> {
    fn from((table, key, place): (&'a RawTable, &str, &'a Place)) -> About<'a> {
        About { key: table.name_in_faults(key), place }
    }
}

impl Reader<'_> {
    /// A fault.
    pub fn fault<'a>(&mut self, about: impl Into<About<'a>>, problem: impl Into<Misread>) {
        let (About { key, place }, Misread { problem, place: own }) = (about.into(), problem.into());
        let problem = key.iter().fold(problem, |problem, key| problem.of_key(key));
        self.faults.push(problem.at(own.as_ref().unwrap_or(place)));
    }

    /// The same by its sentences.
    pub fn refuse<'a>(&mut self, about: impl Into<About<'a>>, what: impl Into<String>, remedy: impl Into<String>) {
        self.fault(about, InvalidValue::new(what, remedy));
    }

    /// What was read; a fault if it is none.
    pub fn accept<'a, T>(&mut self, about: impl Into<About<'a>>, read: Result<T, impl Into<Misread>>) -> Option<T> {
        read.map_err(|problem| self.fault(about, problem)).ok()
    }

    /// A fault of each of these keys that is given.
    pub fn refuse_keys<K: AsRef<str>>(
        &mut self,
        table: &RawTable,
        keys: impl IntoIterator<Item = K>,
        what: &str,
        remedy: &str,
    ) {
        let given = keys.into_iter().filter(|key| table.has(key.as_ref()));
        given.for_each(|key| self.refuse((table, key.as_ref()), what, remedy));
    }

    /// What a part says of its settings.
    pub fn judged(&mut self, table: &RawTable, judgement: Judgement) {
        for (key, fault) in judgement.faults {
            match key {
                "" => self.fault(table, fault),
                key => self.fault((table, key), fault),
            }
        }
        let warnings = judgement.warnings.into_iter();
        self.warnings.extend(warnings.map(|(key, what)| format!("{}: {what}", table.place_of(key))));
    }

    /// The items of a list; `example` is in the fault if it is none.
    pub fn list<'t>(&mut self, table: &'t RawTable, key: &str, example: &str) -> &'t [Given] {
        match table.get(key).map(|given| &given.value) {
            None => &[],
            Some(RawValue::List(items)) => items,
            Some(other) => {
                self.refuse(
                    (table, key),
                    format!("{} is not a list", kind(other)),
                    format!("Write {example}, in brackets."),
                );
                &[]
            }
        }
    }

    /// The good items of a list, with their places.
    pub fn items<'t, T, E: Into<Misread>>(
        &mut self,
        table: &'t RawTable,
        key: &str,
        example: &str,
        read: impl Fn(&'t Given) -> Result<T, E>,
    ) -> Vec<(T, &'t Place)> {
        let items = self.list(table, key, example).iter();
        items.filter_map(|item| Some((self.accept((table, key, &item.place), read(item))?, &item.place))).collect()
    }
}

/// At least one text: of a list, or of one text with commas. `noun` is what each is.
pub(super) fn some_texts<T>(
    value: &RawValue,
    [article, noun]: [&str; 2],
    remedy: &str,
    read: impl Fn(&str) -> ReadResult<T>,
) -> ReadResult<Vec<T>> {
    match texts(value, &format!("is not {article} {noun}"), remedy, read)? {
        none if none.is_empty() => wrong(format!("no {noun} is given"), remedy),
        some => Ok(some),
    }
}
