//! What is wrong with a configuration: where, what, and the way out. Never holds a secret's text.

use std::collections::HashMap;
use std::fmt;
use std::path::Path;

use crate::invalid_value::InvalidValue;
use crate::raw_value::Place;

/// Further lines with the same fault that are named.
const LINES_SHOWN_MAX: usize = 20;

impl InvalidValue {
    pub(super) fn at(self, place: &Place) -> Fault {
        let InvalidValue { what, remedy, missing_credential } = self;
        Fault { place: place.clone(), what, remedy, missing_credential }
    }
}

/// An invalid value where it was given.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fault {
    pub place: Place,
    pub what: String,
    /// A sentence that says what to do.
    pub remedy: String,
    /// As in [`InvalidValue`].
    missing_credential: Option<String>,
}

/// Everything that is wrong, in the order of the places. Never empty.
#[derive(Clone, Debug, thiserror::Error)]
pub struct Faults(Vec<Fault>);

impl Faults {
    pub(super) fn new(mut faults: Vec<Fault>) -> Faults {
        faults.sort_by(|a, b| a.place.cmp(&b.place));
        faults.dedup();
        Faults(faults)
    }

    /// The faults, one by one.
    pub fn iter(&self) -> impl Iterator<Item = &Fault> {
        self.0.iter()
    }

    /// Faults that differ only in their line of the file become one, with the other lines.
    fn folded(&self) -> Vec<(&Fault, Vec<usize>)> {
        let mut folded: Vec<(&Fault, Vec<usize>)> = Vec::new();
        let mut at: HashMap<(&Path, &str, &str), usize> = HashMap::new();
        for fault in &self.0 {
            let Place::Line { file, line } = &fault.place else {
                folded.push((fault, Vec::new()));
                continue;
            };
            let index = *at.entry((file, &fault.what, &fault.remedy)).or_insert(folded.len());
            match folded.get_mut(index) {
                Some((_, others)) => others.push(*line),
                None => folded.push((fault, Vec::new())),
            }
        }
        folded
    }

    /// The credentials that systemd would hand out, and that are missing because it has not started this process.
    pub fn missing_credentials(&self) -> Vec<&str> {
        let mut names: Vec<&str> = Vec::new();
        for name in self.0.iter().filter_map(|fault| fault.missing_credential.as_deref()) {
            if !names.contains(&name) {
                names.push(name);
            }
        }
        names
    }
}

impl fmt::Display for Faults {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (count, s) = (self.0.len(), if self.0.len() == 1 { "" } else { "s" });
        write!(f, "the configuration has {count} fault{s}:")?;
        for (index, (fault, others)) in self.folded().iter().enumerate() {
            write!(f, "\n  {}. {}", index + 1, fault.place)?;
            write_lines(f, others)?;
            write!(f, ": {}\n     {}", fault.what, fault.remedy)?;
        }
        Ok(())
    }
}

/// The other lines of a file that have the same fault.
fn write_lines(f: &mut fmt::Formatter<'_>, lines: &[usize]) -> fmt::Result {
    if lines.is_empty() {
        return Ok(());
    }
    let shown: Vec<String> = lines.iter().take(LINES_SHOWN_MAX).map(usize::to_string).collect();
    write!(f, " (and line{} {}", if lines.len() == 1 { "" } else { "s" }, shown.join(", "))?;
    match lines.len().saturating_sub(LINES_SHOWN_MAX) {
        0 => f.write_str(")"),
        rest => write!(f, " and {rest} more)"),
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;

    #[test]
    fn the_same_fault_of_many_lines_is_said_once_and_counted_as_many() {
        let file: Arc<Path> = Path::new("/c.toml").into();
        let at = |line| InvalidValue::new("it is wrong", "Mend it.").at(&Place::Line { file: file.clone(), line });
        let said = |lines: std::ops::Range<usize>| Faults::new(lines.map(at).collect()).to_string();
        assert_eq!(said(3..4), "the configuration has 1 fault:\n  1. /c.toml:3: it is wrong\n     Mend it.");
        let two = "the configuration has 2 faults:\n  1. /c.toml:3 (and line 4): it is wrong\n     Mend it.";
        assert_eq!(said(3..5), two);
        let many = said(1..301);
        assert!(many.starts_with("the configuration has 300 faults:\n  1. /c.toml:1 (and lines 2, 3, "), "{many}");
        assert!(many.contains(", 21 and 279 more): it is wrong") && many.lines().count() == 3, "{many}");
    }
}
