//! Which runtime should serve the connections? The same loop (read, answer, write) in each shape, with nothing else in it,
//! so that what differs is the shape: CPU per request, requests a second, latency, and how evenly threads are used.
//!
//! `cargo bench --bench runtimes`; `-- --help` says what can be chosen. Every shape is a process of its own; the rounds
//! take turns. Prints Markdown; ratios are to `dealt`, which is what the server does, and are taken within a round.

#![allow(clippy::unwrap_used, clippy::expect_used)]
#![allow(clippy::disallowed_methods, clippy::disallowed_types, reason = "a bench measures real time")]

#[path = "../versus/cores.rs"]
mod cores;
// TLS is for others.
#[allow(dead_code)]
#[path = "../versus/generator.rs"]
mod generator;
#[path = "../versus/latency.rs"]
mod latency;
mod servers;
mod shapes;

use std::time::Duration;

use generator::{Batch, Load, Measured};
use servers::Server;
use shapes::{SHAPES, Shape};

const HELP: &str = "cargo bench --bench runtimes -- [OPTIONS]
  --cells A,B     only these cells: THREADSxDEPTHxCONNECTIONS, as in 1x32x1000
  --shapes A,B    only these shapes, besides `dealt`
  --rounds N      rounds of each cell (7)
  --seconds S     length of a measurement (0.6)";

const WARM_UP: Duration = Duration::from_millis(150);
const TOKEN_BYTES: usize = 512;

/// (threads of the server, requests sent at once, connections). The last: so few that a hash may well put all on one.
const CELLS: &[(usize, usize, usize)] = &[
    (1, 1, 32),
    (1, 32, 32),
    (1, 1, 1000),
    (1, 32, 1000),
    (2, 1, 32),
    (2, 32, 32),
    (2, 1, 1000),
    (2, 32, 1000),
    (2, 1, 4),
];

struct Options {
    cells: Vec<String>,
    shapes: Vec<String>,
    rounds: usize,
    duration: Duration,
}

/// One measurement, and the share of the CPU time that the busiest thread had.
struct Round {
    measured: Measured,
    busiest: f64,
}

fn main() {
    let mut arguments = std::env::args().skip(1).filter(|argument| argument != "--bench").peekable();
    if arguments.next_if(|first| first == shapes::FLAG).is_some() {
        return shapes::serve(&arguments.next().unwrap(), arguments.next().unwrap().parse().unwrap());
    }
    let Some(options) = options(arguments) else { return println!("{HELP}") };
    cores::prepare_this_process();
    println!("{} rounds of {:?}; load average {}\n", options.rounds, options.duration, load_average());
    println!(
        "| threads × depth × connections | shape | CPU µs a request | to `dealt` | to the floor | requests/s | p99 | busiest thread |"
    );
    println!("|---|---|---:|---:|---:|---:|---:|---:|");
    for &cell in CELLS {
        let name = format!("{}x{}x{}", cell.0, cell.1, cell.2);
        if options.cells.is_empty() || options.cells.contains(&name) {
            measure(cell, &options);
        }
    }
    println!("\nload average {} at the end", load_average());
}

fn options(mut arguments: impl Iterator<Item = String>) -> Option<Options> {
    let duration = Duration::from_millis(600);
    let mut options = Options { cells: Vec::new(), shapes: Vec::new(), rounds: 7, duration };
    let list = |text: String| text.split(',').map(str::to_owned).collect();
    while let Some(argument) = arguments.next() {
        match argument.as_str() {
            "--cells" => options.cells = list(arguments.next()?),
            "--shapes" => options.shapes = list(arguments.next()?),
            "--rounds" => options.rounds = arguments.next()?.parse().ok()?,
            "--seconds" => options.duration = Duration::from_secs_f64(arguments.next()?.parse().ok()?),
            _ => return None,
        }
    }
    Some(options)
}

fn load_average() -> String {
    let text = std::fs::read_to_string("/proc/loadavg").unwrap_or_default();
    text.split(' ').next().unwrap_or_default().to_owned()
}

fn measure((threads, depth, connections): (usize, usize, usize), options: &Options) {
    let load = load(depth);
    let wanted = |shape: &&Shape| {
        let always = shape.name == "dealt" || options.shapes.is_empty();
        always || options.shapes.iter().any(|name| name == shape.name)
    };
    let shapes: Vec<&Shape> = SHAPES.iter().filter(wanted).collect();
    let servers: Vec<Server> =
        shapes.iter().map(|shape| Server::start(shape.name, threads, load.first_answer())).collect();
    let mut rounds: Vec<Vec<Round>> = shapes.iter().map(|_| Vec::new()).collect();
    for round in 0..options.rounds {
        // Another begins each time: who comes first must not pay for it alone.
        for place in (0..servers.len()).map(|place| (place + round) % servers.len()) {
            let before = servers[place].cpu_ns_by_thread();
            let measured = generator::run(&load, &servers[place], connections, WARM_UP, options.duration);
            rounds[place].push(Round { measured, busiest: servers[place].busiest_since(&before) });
        }
    }
    let of = |name: &str| shapes.iter().position(|shape| shape.name == name).map(|place| &rounds[place]);
    for (shape, rounds) in shapes.iter().zip(&rounds) {
        let row = row(rounds, of("dealt").unwrap_or(rounds), of("floor"));
        println!("| {threads} × {depth} × {connections} | {} | {row} |", shape.name);
    }
}

/// Every connection asks for the same, and gets the same.
fn load(depth: usize) -> Load {
    let mut batch = Batch::default();
    let value = "t".repeat(TOKEN_BYTES);
    for _ in 0..depth {
        let key = "access_token:wx0123456789abcdef";
        let answer = format!("VALUE {key} 0 {TOKEN_BYTES}\r\n{value}\r\nEND\r\n");
        batch.push(format!("get {key}\r\n").as_bytes(), answer.as_bytes());
    }
    Load { batches: vec![batch] }
}

fn row(rounds: &[Round], dealt: &[Round], floor: Option<&Vec<Round>>) -> String {
    let cpu = |measured: &Measured| measured.cpu_us_per_request;
    let to_floor = floor.map_or("–".to_owned(), |floor| format!("{:.2}", ratio(rounds, floor, cpu).1));
    format!(
        "{:.2} | {} | {to_floor} | {} | {} | {}",
        sorted(rounds.iter().map(|round| cpu(&round.measured)))[rounds.len() / 2],
        spread(ratio(rounds, dealt, cpu)),
        spread(ratio(rounds, dealt, |measured| measured.requests_per_s)),
        spread(ratio(rounds, dealt, |measured| measured.latency[1])),
        percent(rounds),
    )
}

/// The least, the median and the most.
fn ratio(rounds: &[Round], base: &[Round], figure: impl Fn(&Measured) -> f64) -> (f64, f64, f64) {
    let all = sorted(rounds.iter().zip(base).map(|(round, base)| figure(&round.measured) / figure(&base.measured)));
    (all[0], all[all.len() / 2], all[all.len() - 1])
}

fn sorted(values: impl Iterator<Item = f64>) -> Vec<f64> {
    let mut values: Vec<f64> = values.collect();
    values.sort_by(f64::total_cmp);
    values
}

fn spread((least, median, most): (f64, f64, f64)) -> String {
    format!("**{median:.2}** ({least:.2}–{most:.2})")
}

fn percent(rounds: &[Round]) -> String {
    let all = sorted(rounds.iter().map(|round| round.busiest * 100.0));
    format!("{:.0} % ({:.0}–{:.0})", all[all.len() / 2], all[0], all[all.len() - 1])
}
