//! memcached and this server side by side under one load: CPU per request, requests a second, latency.
//!
//! `cargo bench --bench versus`; `-- --help` says what can be chosen. Both servers get one thread on one core, the
//! load comes from the other core, the rounds take turns, and a loop that answers a constant (`floor`) shows what no
//! server can go below. Prints Markdown. Judges nothing but the goals it lists at the end.

#![allow(clippy::unwrap_used, clippy::expect_used)]
#![allow(clippy::disallowed_methods, clippy::disallowed_types, reason = "a bench measures real time")]

mod cells;
mod cores;
mod floor;
mod generator;
mod latency;
mod memtier;
mod options;
mod report;
mod servers;

use std::time::Duration;

use cells::{Cell, Setting};
use generator::{Load, Measured};
use options::Options;
use report::Results;
use servers::{Pair, Server};

/// What one round of a cell has measured.
pub struct Round {
    ours: Measured,
    theirs: Measured,
    floor: Option<Measured>,
}

fn main() {
    if std::env::args().nth(1).as_deref() == Some(floor::FLAG) {
        return floor::run();
    }
    let Some(options) = Options::from_arguments() else { return };
    cores::prepare_this_process();
    let mut results = Results::default();
    report::machine(&options);
    for setting in Setting::ALL {
        let cells: Vec<Cell> = cells::all().filter(|cell| cell.setting == setting && options.wants(cell)).collect();
        if !cells.is_empty() {
            measure_setting(setting, &cells, &options, &mut results);
        }
    }
    report::print(&results);
}

/// Starts both servers anew and measures the cells for which they are set up like that.
fn measure_setting(setting: Setting, cells: &[Cell], options: &Options, results: &mut Results) {
    let pair = Pair::start(setting, options);
    let tokens = pair.fill();
    for cell in cells {
        let load = cells::load(cell, &tokens);
        let floor = cell.floor.then(|| Server::start_floor(load.first_answer()));
        let rounds = (0..options.rounds).map(|n| round(n, &pair, floor.as_ref(), cell, &load, options)).collect();
        results.add(*cell, rounds);
        eprintln!("{}", report::progress(results));
    }
    if setting == Setting::PLAIN {
        memtier::run(&pair, options);
    }
}

/// Measures each once. Who comes first changes from round to round, so that a machine that changes favours nobody.
fn round(number: usize, pair: &Pair, floor: Option<&Server>, cell: &Cell, load: &Load, options: &Options) -> Round {
    let warm_up = Duration::from_millis(300).min(options.duration);
    let measure = |server: &Server| generator::run(load, server, cell.connections, warm_up, options.duration);
    let theirs_first = (!number.is_multiple_of(2)).then(|| measure(&pair.theirs));
    let ours = measure(&pair.ours);
    let theirs = theirs_first.unwrap_or_else(|| measure(&pair.theirs));
    Round { ours, theirs, floor: floor.map(measure) }
}
