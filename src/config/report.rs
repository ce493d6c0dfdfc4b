//! Ways to a fault that the tables have in common: of a key, of an item of a list, of what a part has judged.

use super::fault::Place;
use super::reader::{RawTable, Reader};
use super::value::{Given, RawValue, ReadResult, did_you_mean, kind, quoted, text, texts, wrong};
use crate::invalid_value::{InvalidValue, Judgement};

/// What was read of something that has a place of its own, or what is wrong there.
pub(super) type PlacedResult<T> = Result<T, (InvalidValue, Place)>;

impl Reader<'_> {
    /// A fault of a key.
    pub fn refuse(&mut self, table: &RawTable, key: &str, what: impl Into<String>, remedy: impl Into<String>) {
        self.fault(table, key, InvalidValue::new(what, remedy));
    }

    /// A fault of each of these keys that is given.
    pub fn refuse_keys<'k>(
        &mut self,
        table: &RawTable,
        keys: impl IntoIterator<Item = &'k str>,
        what: &str,
        remedy: &str,
    ) {
        keys.into_iter().filter(|key| table.has(key)).for_each(|key| self.refuse(table, key, what, remedy));
    }

    /// A fault of a whole table.
    pub fn refuse_table(&mut self, table: &RawTable, what: impl Into<String>, remedy: impl Into<String>) {
        self.fault_of(table, InvalidValue::new(what, remedy));
    }

    /// A fault of what is given there.
    pub fn refuse_at(&mut self, place: &Place, what: impl Into<String>, remedy: impl Into<String>) {
        self.faults.push(InvalidValue::new(what, remedy).at(place));
    }

    /// What a part says of its settings.
    pub fn judged(&mut self, table: &RawTable, judgement: Judgement) {
        for (key, fault) in judgement.faults {
            match key {
                "" => self.fault_of(table, fault),
                key => self.fault(table, key, fault),
            }
        }
        let warnings = judgement.warnings.into_iter();
        self.warnings.extend(warnings.map(|(key, what)| format!("{}: {what}", table.place_of(key))));
    }

    /// What was read of a key, or its fault.
    pub fn accept<T>(&mut self, table: &RawTable, key: &str, read: PlacedResult<T>) -> Option<T> {
        read.map_err(|(problem, place)| self.fault_at(table, key, problem, &place)).ok()
    }

    /// The good items of a list, with their places.
    pub fn items<'t, T>(
        &mut self,
        table: &'t RawTable,
        key: &str,
        example: &str,
        read: impl Fn(&'t RawValue) -> ReadResult<T>,
    ) -> Vec<(T, &'t Place)> {
        let items = self.list(table, key, example).iter();
        let placed = |item: &'t Given| match read(&item.value) {
            Ok(value) => Some((value, &item.place)),
            Err(problem) => {
                self.fault_at(table, key, problem, &item.place);
                None
            }
        };
        items.filter_map(placed).collect()
    }
}

/// One of a table of presets, by its name.
pub(super) fn named<'p, T>(value: &RawValue, all: &'p [T], name: fn(&T) -> &str, known: &str) -> ReadResult<&'p T> {
    let given = text(value)?;
    all.iter().find(|one| name(one) == given).ok_or_else(|| {
        let names: Vec<&str> = all.iter().map(name).collect();
        let remedy = did_you_mean(given, names.iter().copied(), || format!("{known} {}.", names.join(", ")));
        InvalidValue::new(format!("{} is not known", quoted(given)), remedy)
    })
}

/// At least one text: of a list, or of one text with commas. `noun` is what each is.
pub(super) fn some_texts<T>(
    value: &RawValue,
    [article, noun]: [&str; 2],
    remedy: &str,
    read: impl Fn(&str) -> ReadResult<T>,
) -> ReadResult<Vec<T>> {
    let not_one = |kind: &str| InvalidValue::new(format!("{kind} is not {article} {noun}"), remedy);
    match texts(value, not_one, read)? {
        none if none.is_empty() => wrong(format!("no {noun} is given"), remedy),
        some => Ok(some),
    }
}

/// What kind of value stands where another belongs.
pub(super) fn is_not<T>(value: &RawValue, what: &str, remedy: &str) -> ReadResult<T> {
    wrong(format!("{} is {what}", kind(value)), remedy)
}
