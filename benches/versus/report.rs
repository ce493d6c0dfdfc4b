//! The table, and what of the goals it shows to be met. Medians over the rounds; a ratio is taken within each round, and
//! its spread is that of the rounds.

use std::process::Command;

use crate::Round;
use crate::cells::Cell;
use crate::generator::Measured;
use crate::options::Options;

#[derive(Default)]
pub struct Results(Vec<(Cell, Vec<Round>)>);

impl Results {
    pub fn add(&mut self, cell: Cell, rounds: Vec<Round>) {
        self.0.push((cell, rounds));
    }
}

pub fn median(values: impl Iterator<Item = f64>) -> f64 {
    let mut values: Vec<f64> = values.collect();
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}

/// A ratio's median and spread.
struct Ratio {
    median: f64,
    least: f64,
    most: f64,
}

impl Ratio {
    fn of(values: impl Iterator<Item = f64> + Clone) -> Ratio {
        let least = values.clone().fold(f64::INFINITY, f64::min);
        let most = values.clone().fold(0.0, f64::max);
        Ratio { median: median(values), least, most }
    }
}

impl std::fmt::Display for Ratio {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "**{:.2}** ({:.2}–{:.2})", self.median, self.least, self.most)
    }
}

/// One cell's figures, each as a ratio to memcached's.
struct Line<'a> {
    cell: &'a Cell,
    rounds: &'a [Round],
    cpu: Ratio,
    to_floor: Option<Ratio>,
    rate: Ratio,
    latency: [Ratio; 3],
}

impl<'a> Line<'a> {
    fn new((cell, rounds): &'a (Cell, Vec<Round>)) -> Line<'a> {
        let to_memcached = |figure: fn(&Measured) -> f64| {
            Ratio::of(rounds.iter().map(move |round| figure(&round.ours) / figure(&round.theirs)))
        };
        let to_floor = |round: &Round| Some(round.ours.cpu_us_per_request / round.floor.as_ref()?.cpu_us_per_request);
        Line {
            cell,
            rounds,
            cpu: to_memcached(|measured| measured.cpu_us_per_request),
            to_floor: cell.floor.then(|| Ratio::of(rounds.iter().filter_map(to_floor))),
            rate: to_memcached(|measured| measured.requests_per_s),
            latency: [
                to_memcached(|measured| measured.latency[0]),
                to_memcached(|measured| measured.latency[1]),
                to_memcached(|measured| measured.latency[2]),
            ],
        }
    }

    fn both(&self, figure: impl Fn(&Measured) -> f64, digits: usize) -> String {
        let ours = median(self.rounds.iter().map(|round| figure(&round.ours)));
        let theirs = median(self.rounds.iter().map(|round| figure(&round.theirs)));
        format!("{ours:.digits$} / {theirs:.digits$}")
    }

    fn row(&self) -> String {
        let latency = |n: usize| {
            let (figures, ratio) = (self.both(|measured| measured.latency[n], 0), &self.latency[n]);
            if n == 1 { format!("{figures} | {ratio}") } else { format!("{figures} | {:.2}", ratio.median) }
        };
        format!(
            "| {}, {} | {} | {} | {} | {} | {} | {} | {} | {} |",
            self.cell.words,
            self.cell.depth,
            self.both(|measured| measured.cpu_us_per_request, 2),
            self.cpu,
            self.to_floor.as_ref().map_or("–".to_owned(), |ratio| format!("{:.2}", ratio.median)),
            self.both(|measured| measured.requests_per_s / 1e3, 0),
            self.rate,
            latency(0),
            latency(1),
            latency(2),
        )
    }

    /// (what was wanted, whether it was so).
    fn goals(&self) -> Vec<(String, bool)> {
        let name = self.cell.name();
        let mut goals = vec![
            (format!("{name}: requests/s at least 1.00, is {:.2}", self.rate.median), self.rate.median >= 1.0),
            (format!("{name}: p99 at most 1.00, is {:.2}", self.latency[1].median), self.latency[1].median <= 1.0),
        ];
        let cpu_goal = match self.cell.depth {
            1 => Some(0.80),
            32 => Some(0.45),
            _ => None,
        };
        if let Some(goal) = cpu_goal {
            let text = format!("{name}: CPU at most {goal:.2}, is {:.2}", self.cpu.median);
            goals.push((text, self.cpu.median <= goal));
            if let Some(to_floor) = self.to_floor.as_ref().filter(|_| self.cell.load_name == "managed") {
                let text = format!("{name}: CPU at most 1.10 of the floor, is {:.2}", to_floor.median);
                goals.push((text, to_floor.median <= 1.10));
            }
        }
        goals
    }
}

/// One line to watch a long run by.
pub fn progress(results: &Results) -> String {
    results.0.last().map_or_else(String::new, |last| Line::new(last).row())
}

/// What the figures were made on, and with.
pub fn machine(options: &Options) {
    let version = Command::new(&options.memcached).arg("--version").output().expect("memcached is needed");
    let version = String::from_utf8_lossy(&version.stdout).trim().to_owned();
    let processor = std::fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let processor = processor.lines().find_map(|line| line.strip_prefix("model name")?.split_once(": "));
    let kernel = std::fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
    println!(
        "{version}; {}, Linux {}; {} rounds of {} s; load average {} at the start\n",
        processor.map_or("a processor without a name", |(_, name)| name),
        kernel.trim(),
        options.rounds,
        options.duration.as_secs_f64(),
        load_average()
    );
}

fn load_average() -> String {
    let text = std::fs::read_to_string("/proc/loadavg").unwrap_or_default();
    text.split(' ').next().unwrap_or_default().to_owned()
}

pub fn print(results: &Results) {
    println!(
        "| load, depth | CPU µs a request, here / memcached | ratio | to the floor | 1000 requests/s | ratio | p50 µs | \
         ratio | p99 µs | ratio | p99.9 µs | ratio |\n|---|---:|---:|---:|---:|---:|---:|---:|---:|---:|---:|---:|"
    );
    let lines: Vec<Line> = results.0.iter().map(Line::new).collect();
    lines.iter().for_each(|line| println!("{}", line.row()));
    let goals: Vec<(String, bool)> = lines.iter().flat_map(Line::goals).collect();
    let missed: Vec<&str> = goals.iter().filter(|(_, met)| !met).map(|(text, _)| text.as_str()).collect();
    println!(
        "\n{} of {} goals met; load average {} at the end",
        goals.len() - missed.len(),
        goals.len(),
        load_average()
    );
    missed.iter().for_each(|text| println!("- missed: {text}"));
}
