//! The table, and which goals were missed.

use std::process::Command;

use serde_json::Value;

use crate::attack::{Attack, Measured};
use crate::options::Options;

/// An attack's figures on each server. The outer option: it was tried at all; the inner: it came to an end.
pub struct Row<'a> {
    pub attack: &'a Attack,
    pub before: Option<Option<Measured>>,
    pub now: Option<Measured>,
    pub memcached: Option<Option<Measured>>,
}

impl Row<'_> {
    /// A line for each figure.
    pub fn lines(&self) -> String {
        let cell = |measured: Option<&Option<Measured>>, at: usize| match measured {
            None => String::new(),
            Some(None) => "not measured".to_owned(),
            Some(Some(figures)) => text(&figures[at]),
        };
        let line = |(at, figure): (usize, &crate::attack::Figure)| {
            format!(
                "| {} | {} | {} | {} | {} | {} |\n",
                if at == 0 { self.attack.what } else { "" },
                figure.what,
                cell(self.before.as_ref(), at),
                cell(Some(&self.now), at),
                cell(self.memcached.as_ref(), at),
                figure.goal
            )
        };
        self.attack.figures.iter().enumerate().map(line).collect()
    }

    /// What this build's figures should have been and were not.
    pub fn missed(&self) -> Vec<String> {
        let Some(now) = &self.now else { return vec![format!("{}: not measured", self.attack.name)] };
        let theirs = self.memcached.as_ref().and_then(Option::as_ref);
        let figures = self.attack.figures.iter().enumerate();
        let missed = figures.filter(|(at, figure)| !figure.goal.is_met(&now[*at], theirs.map(|theirs| &theirs[*at])));
        let told = missed.map(|(at, figure)| {
            format!("{}: {} is {}, has to be {}", self.attack.name, figure.what, text(&now[at]), figure.goal)
        });
        told.collect()
    }
}

fn text(value: &Value) -> String {
    match value {
        Value::Null => "–".to_owned(),
        Value::Bool(true) => "yes".to_owned(),
        Value::Bool(false) => "no".to_owned(),
        Value::Number(number) => {
            let number = number.as_f64().unwrap_or(f64::NAN);
            let digits = if number.fract() == 0.0 || number >= 100.0 { 0 } else { 1 + usize::from(number < 1.0) };
            format!("{number:.digits$}")
        }
        Value::String(text) => text.clone(),
        other => other.to_string(),
    }
}

pub fn head(options: &Options) {
    let output = Command::new(&options.memcached).arg("-V").output();
    let version = output.map(|output| String::from_utf8_lossy(&output.stdout).trim().to_owned());
    let version = version.unwrap_or_else(|error| panic!("{}: {error}", options.memcached.display()));
    println!("| attack | what is measured | before | now | {version} | goal |\n|---|---|---:|---:|---:|---:|");
}

pub fn goals(missed: &[String]) {
    println!("\nGoals missed: {}", if missed.is_empty() { "none" } else { "" });
    missed.iter().for_each(|missed| println!("- {missed}"));
}
