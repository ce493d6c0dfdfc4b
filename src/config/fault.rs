//! What is wrong with a configuration: where, what, and the way out. Never holds a secret's text.

use std::fmt;
use std::path::Path;
use std::sync::Arc;

/// Where a setting was given.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Place {
    /// A line of the file, counted from 1; 0 is the file as a whole.
    Line { file: Arc<Path>, line: usize },
    /// An environment variable.
    Environment(String),
    /// A flag, as typed.
    Flag(&'static str),
    /// Nobody gave it: it follows from a default.
    Default,
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Place::Line { file, line: 0 } => write!(f, "{}", file.display()),
            Place::Line { file, line } => write!(f, "{}:{line}", file.display()),
            Place::Environment(name) => write!(f, "environment {name}"),
            Place::Flag(flag) => write!(f, "flag {flag}"),
            Place::Default => f.write_str("default"),
        }
    }
}

/// What is wrong with a value and what to do about it; the place is added by whoever knows it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Problem {
    pub what: String,
    pub remedy: String,
}

impl Problem {
    pub fn new(what: impl Into<String>, remedy: impl Into<String>) -> Problem {
        Problem { what: what.into(), remedy: remedy.into() }
    }

    pub fn at(self, place: &Place) -> Fault {
        Fault { place: place.clone(), what: self.what, remedy: self.remedy }
    }
}

/// One fault.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fault {
    pub place: Place,
    pub what: String,
    /// A sentence that says what to do.
    pub remedy: String,
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
}

impl fmt::Display for Faults {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (count, s) = (self.0.len(), if self.0.len() == 1 { "" } else { "s" });
        write!(f, "the configuration has {count} fault{s}:")?;
        for (index, fault) in self.0.iter().enumerate() {
            write!(f, "\n  {}. {}: {}\n     {}", index + 1, fault.place, fault.what, fault.remedy)?;
        }
        Ok(())
    }
}
