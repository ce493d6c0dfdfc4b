//! Many nodes on one Redis, in numbers: `cargo bench --bench cluster`; `-- --help` says what can be chosen. docs/design/scale.md
//! has the result and reads it.
//!
//! Nodes decide by the server's own code, WeChat follows the sandbox's rules, and time is virtual (`sim`). What the Redis
//! spends is measured on a real one first (`costs.rs`). A few credentials are simulated with all their nodes; ten thousand
//! credentials are those few, each begun at another instant.

#![allow(clippy::unwrap_used, clippy::expect_used)]
#![allow(clippy::disallowed_methods, clippy::disallowed_types, reason = "a bench measures real time")]

mod costs;
#[path = "../../tests/record_rules/mod.rs"]
mod record_rules;
mod scenarios;
mod sim;

use std::time::Instant;

use costs::Costs;
use scenarios::{Trouble, each, last_had_it_us, setup, sum, trouble};
use sim::{Act, Books, SECOND_US, Setup};
use tokencached::platform::{CredentialType, mp};

const HELP: &str = "cargo bench --bench cluster -- [OPTIONS]
  --nodes A,B       numbers of nodes (3,100,5000)
  --apps N          apps (10000)
  --only A,B        only tables whose name contains one of these: costs, day, spread, start, flush, death, parted, wechat
  --quick           fewer credentials are played";

/// Prints a table or two.
type Print = fn(&Choice, &Costs);

struct Choice {
    nodes: Vec<usize>,
    apps: usize,
    only: Vec<String>,
    quick: bool,
}

impl Choice {
    /// So many credentials are played for a table.
    fn played(&self, nodes: usize, most: usize) -> usize {
        let most = if self.quick { most / 8 } else { most };
        (most * 100 / nodes.max(100)).max(12)
    }

    fn wants(&self, table: &str) -> bool {
        self.only.iter().any(|part| table.contains(part.as_str()))
    }
}

fn choice() -> Option<Choice> {
    let mut choice = Choice { nodes: vec![3, 100, 5_000], apps: 10_000, only: vec![String::new()], quick: false };
    let mut arguments = std::env::args().skip(1);
    while let Some(argument) = arguments.next() {
        let mut value = || arguments.next().unwrap_or_else(|| panic!("{argument} needs a value\n{HELP}"));
        match argument.as_str() {
            "--nodes" => choice.nodes = value().split(',').map(|nodes| nodes.parse().expect("a number")).collect(),
            "--apps" => choice.apps = value().parse().expect("--apps takes a number"),
            "--only" => choice.only = value().split(',').map(str::to_owned).collect(),
            "--quick" => choice.quick = true,
            // What cargo itself adds.
            "--bench" => {}
            _ => {
                println!("{HELP}");
                return None;
            }
        }
    }
    Some(choice)
}

fn main() {
    let Some(choice) = choice() else { return };
    let begun = Instant::now();
    let measured = costs::measure();
    if measured.is_none() {
        println!("No redis-server on PATH: its times are those of docs/design/scale.md.\n");
    }
    let costs = measured.unwrap_or(Costs::KNOWN);
    let tables: [(&str, Print); 8] = [
        ("costs", print_costs),
        ("day", print_days),
        ("spread", print_spread),
        ("start", print_starts),
        ("flush", print_flushes),
        ("death", print_deaths),
        ("parted", print_partitions),
        ("wechat", print_wechat_gone),
    ];
    for (name, print) in tables.into_iter().filter(|(name, _)| choice.wants(name)) {
        let begun = Instant::now();
        print(&choice, &costs);
        eprintln!("{name}: {:.0} s", begun.elapsed().as_secs_f64());
    }
    eprintln!("all: {:.0} s", begun.elapsed().as_secs_f64());
}

fn setup_with(costs: &Costs, nodes: usize, credential_type: &'static CredentialType, seed: u64) -> Setup {
    let Costs { read_us, message_us, .. } = *costs;
    Setup { script_us: costs.script_us(), read_us, message_us, ..setup(nodes, credential_type, seed) }
}

fn print_costs(_: &Choice, costs: &Costs) {
    println!("| what Redis does | µs of one core | bytes out |\n|---|---:|---:|");
    let row = |what: &str, us: f64, bytes: f64| {
        let bytes = if bytes > 0.0 { format!("{bytes:.0}") } else { "–".into() };
        println!("| {what} | {us:.1} | {bytes} |");
    };
    row("take a lease (script)", costs.take_us, 0.0);
    row("a lease refused (script)", costs.refused_us, 0.0);
    row("announce a call (script)", costs.announce_us, 0.0);
    row("publish a token (script), nobody listens", costs.publish_us, 0.0);
    row("give a lease back (script)", costs.close_us, 0.0);
    row("a message to one node", costs.message_us, costs.message_bytes);
    row("a node's poll", costs.poll_us, 0.0);
    row("read a record, 250 at once", costs.read_us, costs.read_bytes);
    let records = costs::RECORDS as f64;
    println!("\n{records} records take {:.1} MB of Redis' memory.\n", costs.record_bytes * records / 1e6);
}

const KINDS: [&CredentialType; 3] = [&mp::CLASSIC, &mp::STABLE, &mp::JSAPI];

fn name(credential_type: &CredentialType) -> &'static str {
    match credential_type.id {
        "token" => "classic",
        "stable_token" => "stable",
        _ => "ticket",
    }
}

/// What the Redis spends, in parts of one core.
fn cores(costs: &Costs, scripts: f64, messages: f64, reads: f64) -> f64 {
    (scripts * costs.script_us() + messages * costs.message_us + reads * costs.read_us) / 1e6
}

fn print_days(choice: &Choice, costs: &Costs) {
    println!(
        "| nodes | {} apps with | calls a day, each | against one node | scripts a second | worst second | commands of polls a second \
         | messages a second | worst second | MB a second out | cores of Redis, mean | worst second |",
        choice.apps
    );
    println!("|---:|---|---:|---:|---:|---:|---:|---:|---:|---:|---:|---:|");
    let days = |nodes: usize, credential_type| {
        let played = choice.played(nodes, 400);
        each(played, |seed| scenarios::day(setup_with(costs, nodes, credential_type, seed)))
    };
    let alone: Vec<f64> = KINDS.map(|credential_type| calls(&days(1, credential_type))).into();
    for nodes in &choice.nodes {
        let days: Vec<Vec<Books>> = KINDS.map(|credential_type| days(*nodes, credential_type)).into();
        for (name, kinds) in [("classic", vec![0]), ("stable", vec![1]), ("stable and a ticket", vec![1, 2])] {
            let of = |of: &dyn Fn(usize) -> f64| kinds.iter().map(|credential_type| of(*credential_type)).sum::<f64>();
            let each_day = of(&|credential_type| calls(&days[credential_type]));
            let mut seconds = vec![[0.0; 3]; 86_400];
            kinds.iter().for_each(|credential_type| superpose(&mut seconds, &days[*credential_type], choice.apps));
            let more = each_day / of(&|credential_type| alone[credential_type]);
            println!(
                "| {nodes} | {name} | {each_day:.2} | {:+.1} % | {} |",
                (more - 1.0) * 100.0,
                load(costs, *nodes, &seconds)
            );
        }
    }
    println!();
}

fn calls(days: &[Books]) -> f64 {
    days.iter().map(|day| day.calls).sum::<u64>() as f64 / days.len() as f64
}

/// What the Redis has to do in these seconds.
fn load(costs: &Costs, nodes: usize, seconds: &[[f64; 3]]) -> String {
    let polls = nodes as f64 / 2.0;
    let mean = |of: &dyn Fn(&[f64; 3]) -> f64| seconds.iter().map(of).sum::<f64>() / seconds.len() as f64;
    let worst = |of: &dyn Fn(&[f64; 3]) -> f64| seconds.iter().map(of).fold(0.0, f64::max);
    let spent = |second: &[f64; 3]| cores(costs, second[0], second[1], second[2]) + polls * costs.poll_us / 1e6;
    format!(
        "{:.1} | {:.0} | {:.0} | {:.0} | {:.0} | {:.2} | {:.3} | {:.2}",
        mean(&|second| second[0]),
        worst(&|second| second[0]),
        polls * 4.0,
        mean(&|second| second[1]),
        worst(&|second| second[1]),
        mean(&|second| second[1]) * costs.message_bytes / 1e6,
        mean(&spent),
        worst(&spent),
    )
}

/// Adds scripts, messages and reads in each second of a day of so many apps: those played, each begun at another instant.
fn superpose(seconds: &mut [[f64; 3]], days: &[Books], apps: usize) {
    let mut rng = fastrand::Rng::with_seed(7);
    for app in 0..apps {
        let shift = rng.usize(0..seconds.len());
        for (second, scripts, messages, reads) in &days[app % days.len()].busy {
            let at = (*second as usize + shift) % seconds.len();
            seconds[at].iter_mut().zip([scripts, messages, reads]).for_each(|(sum, n)| *sum += f64::from(*n));
        }
    }
}

fn print_spread(choice: &Choice, costs: &Costs) {
    println!("| nodes | | by | all nodes have a new token: median | p99 | longest |\n|---:|---|---|---:|---:|---:|");
    for nodes in &choice.nodes {
        for credential_type in [&mp::CLASSIC, &mp::STABLE] {
            for (by, pushes, lost) in
                [("messages", true, 0.0), ("messages, 1 in 1000 lost", true, 0.001), ("polls alone", false, 0.0)]
            {
                // Ten thousand classic apps publish four times a second.
                let busy = (*nodes as f64 * costs.message_us * 4.2 / 1e6).min(0.9);
                let days = each(choice.played(*nodes, 200), |seed| {
                    scenarios::day(Setup { pushes, lost, busy, ..setup_with(costs, *nodes, credential_type, seed) })
                });
                let all = days.iter().flat_map(|day| last_had_it_us(day, *nodes)).collect();
                println!("| {nodes} | {} | {by} | {} |", name(credential_type), quantiles(all));
            }
        }
    }
    println!();
}

/// The middle one, the one that one in a hundred exceeds, and the longest.
fn quantiles(mut all_us: Vec<u64>) -> String {
    all_us.sort_unstable();
    let at = |part: f64| all_us.get(((all_us.len() as f64 * part) as usize).min(all_us.len().saturating_sub(1)));
    let text = |us: Option<&u64>| match us {
        Some(us) if *us < SECOND_US => format!("{} ms", us / 1000),
        Some(us) => format!("{:.1} s", *us as f64 / 1e6),
        None => "–".into(),
    };
    format!("{} | {} | {}", text(at(0.5)), text(at(0.99)), text(at(1.0)))
}

fn print_starts(choice: &Choice, costs: &Costs) {
    println!(
        "| nodes | | calls an app | scripts an app, first second | all | records read | seconds of Redis for that | all nodes have an app's token: median | p99 | longest |"
    );
    println!("|---:|---|---:|---:|---:|---:|---:|---:|---:|---:|");
    for nodes in &choice.nodes {
        for credential_type in [&mp::CLASSIC, &mp::STABLE] {
            let played = choice.played(*nodes, 800);
            let start_us = choice.apps as u64 * 5_000;
            let all = each(played, |seed| {
                scenarios::start(Setup { start_us, ..setup_with(costs, *nodes, credential_type, seed) })
            });
            let mean =
                |of: &dyn Fn(&Books) -> u64| all.iter().map(|(books, _)| of(books)).sum::<u64>() as f64 / played as f64;
            let records = (*nodes * choice.apps) as f64;
            let scripts = mean(&|books| books.scripts);
            let messages = mean(&|books| books.messages) * choice.apps as f64;
            let first =
                mean(&|books| books.busy.iter().filter(|second| second.0 == 0).map(|second| u64::from(second.1)).sum());
            println!(
                "| {nodes} | {} | {:.2} | {first:.1} | {scripts:.1} | {records:.0} | {:.0} | {} |",
                name(credential_type),
                mean(&|books| books.calls),
                cores(costs, scripts * choice.apps as f64, messages, records),
                quantiles(all.iter().filter_map(|(_, last)| *last).collect()),
            );
        }
    }
    println!();
}

fn print_flushes(choice: &Choice, costs: &Costs) {
    println!(
        "| nodes | | offers an app | messages an app | records read | seconds of Redis for all of it | calls an app in that minute | all agree |"
    );
    println!("|---:|---|---:|---:|---:|---:|---:|---|");
    for nodes in &choice.nodes {
        for credential_type in [&mp::CLASSIC, &mp::STABLE] {
            let played = choice.played(*nodes, 400);
            let all = each(played, |seed| {
                trouble(setup_with(costs, *nodes, credential_type, seed), Act::Flush, 60 * SECOND_US)
            });
            let mean = |of: &dyn Fn(&Books) -> u64| {
                all.iter().map(|each| of(&each.during)).sum::<u64>() as f64 / played as f64
            };
            let (scripts, messages) = (mean(&|books| books.scripts), mean(&|books| books.messages));
            let records = (*nodes * choice.apps) as f64;
            println!(
                "| {nodes} | {} | {:.1} | {messages:.0} | {records:.0} | {:.1} | {:.2} | {} |",
                name(credential_type),
                mean(&|books| books.offers),
                cores(costs, scripts * choice.apps as f64, messages * choice.apps as f64, records),
                mean(&|books| books.calls),
                yes(&all)
            );
        }
    }
    println!();
}

fn yes(all: &[Trouble]) -> &'static str {
    if all.iter().all(|each| each.agrees) { "yes" } else { "NO" }
}

fn print_deaths(choice: &Choice, costs: &Costs) {
    println!(
        "| nodes | | from the death to another's renewal: median | p99 | longest | reads refused | reads without a token | all agree |"
    );
    println!("|---:|---|---:|---:|---:|---:|---:|---|");
    for nodes in &choice.nodes {
        for credential_type in [&mp::CLASSIC, &mp::STABLE] {
            let all = each(choice.played(*nodes, 800), |seed| {
                let setup = Setup { read_every_us: 10 * SECOND_US, ..setup_with(costs, *nodes, credential_type, seed) };
                trouble(setup, Act::KillCaller, 7_500 * SECOND_US)
            });
            let reads = sum(all.iter().flat_map(|each| [&each.during, &each.after]).flat_map(|books| books.readers));
            let next = quantiles(all.iter().filter_map(|each| each.until_next_us).collect());
            println!(
                "| {nodes} | {} | {next} | {} | {} | {} |",
                name(credential_type),
                reads.refused,
                reads.missed,
                yes(&all)
            );
        }
    }
    println!();
}

fn print_partitions(choice: &Choice, costs: &Costs) {
    println!(
        "| nodes | | without Redis | for | with Redis: refused, missed | without: refused, missed | the 3 h after: refused, missed | calls and probes an app more | all agree |"
    );
    println!("|---:|---|---|---:|---|---|---|---:|---|");
    for nodes in &choice.nodes {
        for credential_type in [&mp::CLASSIC, &mp::STABLE] {
            for part in [0.5, 1.0] {
                for (long, minutes) in [("1 min", 1), ("30 min", 30), ("3 h", 180)] {
                    let lasts_us = minutes * 60 * SECOND_US;
                    let played = choice.played(*nodes, 200);
                    let read_every_us = 10 * SECOND_US;
                    let setup = |seed| Setup { read_every_us, ..setup_with(costs, *nodes, credential_type, seed) };
                    let all = each(played, |seed| trouble(setup(seed), Act::Cut(part), lasts_us));
                    let usual = each(played, |seed| trouble(setup(seed), Act::Wechat(true), lasts_us));
                    let calls = |all: &[Trouble]| {
                        let books = all.iter().flat_map(|each| [&each.during, &each.after]);
                        books.map(|books| books.calls + books.probes).sum::<u64>() as f64 / played as f64
                    };
                    let side = |side: usize| parts(sum(all.iter().map(|each| each.during.readers[side])));
                    let after = parts(sum(all.iter().flat_map(|each| each.after.readers)));
                    println!(
                        "| {nodes} | {} | {} | {long} | {} | {} | {after} | {:+.1} | {} |",
                        name(credential_type),
                        if part < 1.0 { "half" } else { "all" },
                        side(0),
                        side(1),
                        calls(&all) - calls(&usual),
                        yes(&all)
                    );
                }
            }
        }
    }
    println!();
}

/// In parts of all reads.
fn parts(reads: sim::Reads) -> String {
    let all = (reads.served + reads.refused + reads.missed) as f64;
    let part = |n: u64| match n {
        0 => "0".to_owned(),
        n => format!("{:.3} %", n as f64 * 100.0 / all),
    };
    if all == 0.0 { "–".to_owned() } else { format!("{}, {}", part(reads.refused), part(reads.missed)) }
}

fn print_wechat_gone(choice: &Choice, costs: &Costs) {
    println!(
        "| nodes | | scripts a second while WeChat is out of reach, mean | worst minute | cores of Redis | calls an app a minute | all agree |"
    );
    println!("|---:|---|---:|---:|---:|---:|---|");
    const HOURS: u64 = 2;
    for nodes in &choice.nodes {
        for credential_type in [&mp::CLASSIC, &mp::STABLE] {
            let played = choice.played(*nodes, 100);
            let lasts_us = HOURS * 3_600 * SECOND_US;
            let all = each(played, |seed| {
                trouble(setup_with(costs, *nodes, credential_type, seed), Act::Wechat(false), lasts_us)
            });
            let agree = yes(&all);
            let days: Vec<Books> = all.into_iter().map(|each| each.during).collect();
            let scale = choice.apps as f64 / played as f64;
            let begin = days.iter().filter_map(|day| day.busy.first()).map(|busy| busy.0).min().unwrap_or(0);
            let mut minutes = vec![0.0; (HOURS * 60 + 200) as usize];
            for (second, scripts, ..) in days.iter().flat_map(|day| &day.busy) {
                minutes[(((second - begin) / 60) as usize).min(HOURS as usize * 60 + 199)] +=
                    f64::from(*scripts) * scale / 60.0;
            }
            let scripts =
                days.iter().map(|day| day.scripts).sum::<u64>() as f64 * scale / (lasts_us / SECOND_US) as f64;
            let worst = minutes.iter().copied().fold(0.0, f64::max);
            let calls = days.iter().map(|day| day.calls).sum::<u64>() as f64 / played as f64 / (HOURS * 60) as f64;
            println!(
                "| {nodes} | {} | {scripts:.0} | {worst:.0} | {:.2} | {calls:.1} | {agree} |",
                name(credential_type),
                worst * costs.refused_us / 1e6
            );
        }
    }
    println!();
}
