//! What an attack is: what it does, what is measured, and what the measured figures have to be.
//!
//! Starts nothing and prints nothing.

use serde_json::Value;

use crate::subject::Subject;

/// One figure for each of the attack's, in the same order; null where it could not be had.
pub type Measured = Vec<Value>;

pub struct Attack {
    /// For `--only`, and for whoever looks for it in the code.
    pub name: &'static str,
    /// What the attacker does.
    pub what: &'static str,
    /// memcached has something to compare.
    pub on_memcached: bool,
    pub figures: &'static [Figure],
    pub run: fn(&Subject) -> Measured,
}

pub struct Figure {
    pub what: &'static str,
    pub goal: Goal,
}

/// What this build's figure has to be.
#[derive(Clone, Copy)]
pub enum Goal {
    AtMost(f64),
    AtLeast(f64),
    Is(f64),
    Yes,
    No,
    /// No more than memcached's in the same run and so much, but for the noise of two runs.
    AsMemcached {
        plus: f64,
    },
    /// Shown for the reader; anything will do.
    Shown,
}

/// Two runs of one server differ by so much.
const NOISE: f64 = 1.05;

impl Goal {
    pub fn is_met(self, value: &Value, memcached: Option<&Value>) -> bool {
        match self {
            Goal::AtMost(most) => value.as_f64().is_some_and(|value| value <= most),
            Goal::AtLeast(least) => value.as_f64().is_some_and(|value| value >= least),
            Goal::Is(wanted) => value.as_f64() == Some(wanted),
            Goal::Yes => value == &Value::Bool(true),
            Goal::No => value == &Value::Bool(false),
            // Without memcached there is nothing to compare.
            Goal::AsMemcached { plus } => match memcached.and_then(Value::as_f64) {
                Some(theirs) => value.as_f64().is_some_and(|value| value <= theirs * NOISE + plus),
                None => !value.is_null(),
            },
            Goal::Shown => true,
        }
    }
}

impl std::fmt::Display for Goal {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Goal::AtMost(0.0) => write!(f, "0"),
            Goal::Is(wanted) => write!(f, "{wanted}"),
            Goal::AtMost(most) => write!(f, "≤ {most}"),
            Goal::AtLeast(least) => write!(f, "≥ {least}"),
            Goal::Yes => write!(f, "yes"),
            Goal::No => write!(f, "no"),
            Goal::AsMemcached { plus: 0.0 } => write!(f, "≤ memcached"),
            Goal::AsMemcached { plus } => write!(f, "≤ memcached + {plus}"),
            Goal::Shown => Ok(()),
        }
    }
}
