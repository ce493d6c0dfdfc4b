//! What the command line chooses. Reads nothing else.

use std::path::PathBuf;
use std::time::Duration;

use crate::cells::{self, Cell};

const HELP: &str = "cargo bench --bench versus -- [OPTIONS]
  --memcached PATH   another memcached than the one on PATH
  --cells A,B        only these cells, by name (`managed@32`) or all depths of a load (`managed`)
  --rounds N         rounds of each cell (7)
  --seconds S        length of a measurement (1.5)
  --quick            2 rounds of 0.3 s: shows that it works, not how fast
  --list             the names of the cells";

pub struct Options {
    pub memcached: PathBuf,
    pub rounds: usize,
    pub duration: Duration,
    cells: Vec<String>,
}

impl Options {
    /// `None` if only a text was asked for.
    pub fn from_arguments() -> Option<Options> {
        let duration = Duration::from_millis(1500);
        let mut options = Options { memcached: "memcached".into(), rounds: 7, duration, cells: Vec::new() };
        let mut arguments = std::env::args().skip(1);
        while let Some(argument) = arguments.next() {
            let mut value = || arguments.next().unwrap_or_else(|| panic!("{argument} needs a value\n{HELP}"));
            match argument.as_str() {
                "--memcached" => options.memcached = value().into(),
                "--cells" => options.cells = value().split(',').map(str::to_owned).collect(),
                "--rounds" => options.rounds = value().parse().expect("--rounds takes a number"),
                "--seconds" => {
                    options.duration = Duration::from_secs_f64(value().parse().expect("--seconds takes a number"));
                }
                "--quick" => (options.rounds, options.duration) = (2, Duration::from_millis(300)),
                "--list" => {
                    cells::all().for_each(|cell| println!("{}", cell.name()));
                    return None;
                }
                // What cargo says to every bench.
                "--bench" => {}
                _ => {
                    println!("{HELP}");
                    return None;
                }
            }
        }
        Some(options)
    }

    pub fn wants(&self, cell: &Cell) -> bool {
        self.cells.is_empty() || self.cells.iter().any(|wanted| *wanted == cell.name() || wanted == cell.load_name)
    }
}
