//! What a site notices of moving to this server, for each way in which sites keep their WeChat token: before, with half
//! of its web servers moved, and after.
//!
//! `cargo bench --bench moving`; `-- --help` says what can be chosen. Real scripts and stores, the simulated WeChat in
//! this process. Prints Markdown; ends with 1 if a row breaks the promise.

#![allow(clippy::unwrap_used, clippy::expect_used)]
#![allow(clippy::disallowed_methods, clippy::disallowed_types, reason = "a bench measures real time")]

#[path = "../../tests/moving/mod.rs"]
mod moving;
#[path = "../../tests/record_rules/mod.rs"]
mod record_rules;
#[path = "../../tests/it"]
#[allow(dead_code)]
mod it {
    pub mod support;
}

use std::process::ExitCode;

use it::support;
use moving::{Endpoint, Phase, Plan, WAYS};

const HELP: &str = "cargo bench --bench moving -- [OPTIONS]
  --only NAMES       these ways only, with commas between; `--list` names them
  --endpoint WORD    stable or classic only
  --life N           seconds that a token lives (60); all other times in proportion
  --renewals N       lives that each phase lasts (10)
  --views N          page views a second of each web server (2)
  --overlap N        milliseconds that a token lives on after the next one (in proportion, as at WeChat)
  --phases NAMES     before,half,after
  --same-endpoint    while half of the servers have moved, the node uses the call that the site uses, against the manual
  --server PATH      another build of the server";

fn plan() -> Option<Plan> {
    let mut plan = Plan {
        binary: env!("CARGO_BIN_EXE_tokencached").into(),
        life_s: 60,
        overlap_ms: None,
        renewals: 10,
        views_per_s: 2,
        phases: vec![Phase::Before, Phase::Half, Phase::After],
        apart: true,
        rows: Vec::new(),
    };
    let (mut only, mut endpoints) = (Vec::new(), vec![Endpoint::Stable, Endpoint::Classic]);
    let mut arguments = std::env::args().skip(1);
    while let Some(argument) = arguments.next() {
        let mut value = || arguments.next().unwrap_or_else(|| panic!("{argument} needs a value\n{HELP}"));
        let number = |text: String| text.parse::<u32>().unwrap_or_else(|_| panic!("{text} is not a number\n{HELP}"));
        let words = |text: String| text.split(',').map(str::to_owned).collect::<Vec<_>>();
        match argument.as_str() {
            "--only" => only = words(value()),
            "--endpoint" => endpoints.retain({
                let word = value();
                move |endpoint| endpoint.name() == word
            }),
            "--life" => plan.life_s = number(value()).into(),
            "--renewals" => plan.renewals = number(value()),
            "--views" => plan.views_per_s = number(value()).max(1),
            "--overlap" => plan.overlap_ms = Some(number(value()).into()),
            "--phases" => {
                let wanted = words(value()).join(",");
                plan.phases.retain(|phase| wanted.contains(&format!("{phase:?}").to_lowercase()));
            }
            "--same-endpoint" => plan.apart = false,
            "--server" => plan.binary = value().into(),
            "--list" => {
                WAYS.iter().for_each(|way| println!("{:20} {}", way.name, way.title));
                return None;
            }
            // What cargo itself adds.
            "--bench" => {}
            _ => {
                println!("{HELP}");
                return None;
            }
        }
    }
    let unknown = only.iter().find(|name| WAYS.iter().all(|way| way.name != name.as_str()));
    assert!(unknown.is_none(), "no such way: {}", unknown.map_or("", String::as_str));
    let ways = WAYS.iter().filter(|way| only.is_empty() || only.iter().any(|name| name == way.name));
    let rows = ways.flat_map(|way| way.endpoints.iter().map(move |&endpoint| (way, endpoint)));
    plan.rows = rows.filter(|(_, endpoint)| endpoints.contains(endpoint)).collect();
    Some(plan)
}

fn main() -> ExitCode {
    let Some(plan) = plan() else {
        return ExitCode::SUCCESS;
    };
    let rows = moving::run(&plan);
    moving::print(&rows, plan.life_s);
    let broken = moving::broken(&rows, plan.renewals);
    println!("\nBroken promises: {}", if broken.is_empty() { "none".to_owned() } else { broken.join("; ") });
    if broken.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}
