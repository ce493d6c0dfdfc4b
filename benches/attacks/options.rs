//! What the command line chooses. Reads nothing else.

use std::path::PathBuf;

use crate::attack::Attack;

const HELP: &str = "cargo bench --bench attacks -- [OPTIONS]
  --before PATH      a build of an earlier commit, for a column of its own
  --memcached PATH   another memcached than the one on PATH; tests/memcached-current prints that of 1.6.45
  --only A,B         only these attacks
  --list             the names of the attacks";

/// With these words the bench is started by itself, for one attack on one server.
pub const RUN_FLAG: &str = "--run";

pub enum Chosen {
    Table(Options),
    /// Attack, `ours` or `memcached`, and its binary.
    One(String, String, PathBuf),
    Nothing,
}

pub struct Options {
    pub before: Option<PathBuf>,
    pub memcached: PathBuf,
    only: Vec<String>,
}

impl Options {
    pub fn from_arguments(attacks: &[&Attack]) -> Chosen {
        let mut options = Options { before: None, memcached: "memcached".into(), only: Vec::new() };
        let mut arguments = std::env::args().skip(1);
        while let Some(argument) = arguments.next() {
            let mut value = || arguments.next().unwrap_or_else(|| panic!("{argument} needs a value\n{HELP}"));
            match argument.as_str() {
                "--before" => options.before = Some(value().into()),
                "--memcached" => options.memcached = value().into(),
                "--only" => options.only = value().split(',').map(str::to_owned).collect(),
                "--list" => {
                    attacks.iter().for_each(|attack| println!("{:<24} {}", attack.name, attack.what));
                    return Chosen::Nothing;
                }
                RUN_FLAG => return Chosen::One(value(), value(), value().into()),
                // What cargo says to every bench.
                "--bench" => {}
                _ => {
                    println!("{HELP}");
                    return Chosen::Nothing;
                }
            }
        }
        for name in &options.only {
            assert!(attacks.iter().any(|attack| attack.name == name), "there is no attack {name}; --list names them");
        }
        Chosen::Table(options)
    }

    pub fn wants(&self, attack: &Attack) -> bool {
        self.only.is_empty() || self.only.iter().any(|name| name == attack.name)
    }
}
