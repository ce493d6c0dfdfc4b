//! The simulated month: every kind of credential for 30 days in virtual time, beside the classic scripts.
//!
//! Nothing sleeps: tokio's clock is paused and jumps from one timer to the next. `docs/design/month.md` has the result
//! of a whole run and reads it.
//!
//! The server's own refresher runs, with its table, its schedule, its state and its reader of WeChat's answers.
//! Simulated are what it runs on (`env.rs`: clocks and disk; `wechat.rs`: WeChat by the sandbox's rules, with the
//! outages of `timeline.rs`), what happens to it, and its readers (`node.rs`).
//!
//! The records (`accounting.rs`) are exact, not sampled: each credential is read once a second. Samplers that read the
//! table at random times check them. Not included: Feishu and the open platform (the simulated WeChat has none),
//! changed secrets, several base URLs. Tickets are not judged, because no call uses one; only their presence counts.

mod accounting;
mod demo;
mod env;
mod expires_in;
mod node;
mod scripts;
mod timeline;
mod wechat;

use std::sync::Arc;
use std::time::Instant;

use self::accounting::{CAUSES, Cause, Counts};
use self::node::{DeadTokenHandling, Row};
use self::scripts::{SCRIPTS, Tally};
use self::timeline::{DAY, NetworkState, SECOND, START, Timeline};

const SEED: u64 = 20_260_301;
/// Calls sent without any fault, compared with the least possible number. Tickets are polled on purpose.
const CALLS_MOST: [(&str, f64); 5] =
    [("stable_token", 1.4), ("classic token", 1.8), ("QQ token", 1.8), ("WeCom token", 1.8), ("tickets", 14.0)];
/// The retry that may be waited for when trouble ends: a minute, but five for classic after ten failures, and calls of
/// 8 s, 16 at once.
const TAIL_MOST_MS: u64 = 360 * SECOND;
/// First tries are spread by 10 ms for each credential.
const START_MOST_MS: u64 = 30 * SECOND;

fn number(name: &str, default: u64) -> u64 {
    std::env::var(name).ok().and_then(|text| text.parse().ok()).unwrap_or(default)
}

fn month(apps: u64, days: u64) -> (Arc<Timeline>, Vec<Row>) {
    let seed = number("MONTH_SEED", SEED);
    let line = Arc::new(Timeline::new(days, seed));
    let sample_ms = number("MONTH_SAMPLE_MS", if apps > 100 { 1_000 } else { 10_000 });
    let (rows, samples) = node::run(&line, apps as usize, sample_ms, seed, DeadTokenHandling::Usual);
    println!("samples: {samples:?}");
    (line, rows)
}

/// `MONTH_APPS=1000 MONTH_SCRIPT_APPS=20 cargo test --test it month::the_month -- --include-ignored --nocapture`
#[test]
#[ignore = "computes for a minute"]
#[expect(clippy::disallowed_methods, reason = "prints how long it took")]
fn the_month() {
    let (apps, days) = (number("MONTH_APPS", 60), number("MONTH_DAYS", 30));
    let began = Instant::now();
    let (line, rows) = month(apps, days);
    let took = began.elapsed();
    let script_apps = number("MONTH_SCRIPT_APPS", 2);
    let tallies = SCRIPTS.map(|(script, name)| (name, scripts::run(script, &line, script_apps, SEED)));
    println!("{apps} apps, {days} days: {took:?}; the scripts ({script_apps} apps each): {:?}", began.elapsed() - took);
    print_weather(&line);
    let dead = LongestDead::run(apps, days);
    print_table(&rows, &tallies, days, script_apps, &dead);
    print_details(&rows);
    if std::env::var_os("MONTH_FAULTS").is_some() {
        rows.iter().flat_map(|row| &row.counts.faults).for_each(|fault| println!("fault: {fault}"));
    }
    rows.iter().for_each(check);
    dead.check();
}

/// The longest time that an invalid token is served if nobody reports it, by type: with default probing, and without.
struct LongestDead {
    probed: Vec<Row>,
    not_probed: Vec<Row>,
}

/// A probe every five minutes, and a call or two.
const DEAD_MOST_MS: u64 = 300 * SECOND + 20 * SECOND;

impl LongestDead {
    fn run(apps: u64, days: u64) -> LongestDead {
        let (days, seed) = (number("MONTH_DEAD_DAYS", days.min(10)), number("MONTH_SEED", SEED));
        let line = Arc::new(Timeline::new(days, seed));
        let rows =
            |handling| node::run(&line, number("MONTH_DEAD_APPS", apps.min(600)) as usize, DAY, seed, handling).0;
        LongestDead {
            probed: rows(DeadTokenHandling::NoReports),
            not_probed: rows(DeadTokenHandling::NoReportsNoProbes),
        }
    }

    fn longest_ms(rows: &[Row], name: &str) -> u64 {
        let all = rows.iter().filter(|row| row.name == name || name.contains("all access tokens"));
        all.map(|row| row.counts.longest_dead_ms).max().unwrap_or(0)
    }

    /// As a table has it: with, and without.
    fn shown(&self, name: &str) -> String {
        let minutes = |rows| (LongestDead::longest_ms(rows, name) as f64 / 60_000.0).ceil();
        match name {
            // No call uses one, so none is judged.
            "tickets" => "| ".to_owned(),
            _ => format!("{} min | {} min", minutes(&self.probed), minutes(&self.not_probed)),
        }
    }

    fn check(&self) {
        for name in ["stable_token", "classic token", "WeCom token"] {
            let with_ms = LongestDead::longest_ms(&self.probed, name);
            assert!(with_ms <= DEAD_MOST_MS, "{name}: a dead token was served for {with_ms} ms");
            let without_ms = LongestDead::longest_ms(&self.not_probed, name);
            assert!(without_ms > 4 * with_ms, "{name}: {without_ms} ms without probing");
        }
    }
}

fn check(row: &Row) {
    let (name, counts) = (row.name, &row.counts);
    let faults = &counts.faults;
    assert!(
        faults.is_empty(),
        "{name}: {} faults, the first of them {:#?}",
        faults.len(),
        &faults[..faults.len().min(5)]
    );
    assert_eq!(counts.good(), counts.in_reach(), "{name}: reads without a good value, WeChat being within reach");
    // Without WeChat, one in ten million may have a reason that the records do not know.
    let unexplained = counts.refused[Cause::Unknown as usize];
    assert!(unexplained * 10_000_000 <= counts.reads, "{name}: {unexplained} reads refused out of the blue");
    assert_eq!(counts.known_dead, 0, "{name}: reads of a token that a probe had found dead");
    // Reads whose second read still runs when the process ends are in neither.
    let unsaid = counts.reads.abs_diff(counts.accounted());
    assert!(unsaid * 100_000 <= counts.reads, "{name}: {unsaid} reads of {} unaccounted for", counts.reads);
    // One in a million.
    assert!(counts.at_its_end * 1_000_000 <= counts.reads, "{name}: {} reads held in vain", counts.at_its_end);
    assert_eq!(counts.over_quota_days, 0, "{name}: over a quota");
    assert_eq!(counts.most_in_flight, 1, "{name}: two fetches at once for one credential");
    let start_ms = counts.longest_start_ms;
    assert!(start_ms <= START_MOST_MS, "{name}: {start_ms} ms without a value after a start, in fine weather");
    let tail_ms = counts.longest_tail_ms;
    assert!(tail_ms <= TAIL_MOST_MS, "{name}: a value only {tail_ms} ms after the trouble");
    let most = CALLS_MOST.iter().find(|(kind, _)| *kind == name).map_or(1.0, |(_, most)| *most);
    let factor = counts.fine_calls as f64 / row.least_calls;
    assert!(factor <= most, "{name}: {factor:.2} times the calls needed");
}

fn print_weather(line: &Timeline) {
    let hours = |which: fn(NetworkState) -> bool| line.total(which) as f64 / 3.6e6;
    println!(
        "upstream: down {:.1} h, stalled {:.1} h, slow {:.1} h, error bursts {:.1} h",
        hours(|w| w == NetworkState::Down),
        hours(|w| w == NetworkState::Stalled),
        hours(|w| w == NetworkState::Slow),
        hours(|w| matches!(w, NetworkState::Errors(_)))
    );
    assert!(line.end > START + DAY);
}

fn percent(part: u64, whole: u64) -> String {
    // Rounded down: 100 % is said only of all.
    if part == whole {
        return "**100 %**".to_owned();
    }
    format!("{:.3} %", (part as f64 / whole as f64 * 100_000.0).floor() / 1_000.0)
}

fn print_table(rows: &[Row], tallies: &[(&str, Tally)], days: u64, script_apps: u64, dead: &LongestDead) {
    println!(
        "\n| | reads served, WeChat within reach | all reads served | first reads refused a day | without, out of reach, a day | without, for another reason, a day | known dead | longest a dead token is served if nobody reports it | the same without probing | calls a day | probes a day | days over quota |"
    );
    println!("|---|{}", "---:|".repeat(11));
    let mut all =
        Row { name: "**tokencached**, all access tokens", credentials: 0, counts: Counts::default(), least_calls: 0.0 };
    for row in rows.iter().filter(|row| row.name != "tickets") {
        all.credentials += row.credentials;
        all.least_calls += row.least_calls;
        all.counts.add(&row.counts);
    }
    for row in std::iter::once(&all).chain(rows) {
        let counts = &row.counts;
        let day = (row.credentials * days) as f64;
        println!(
            "| {} | {} | {} | {:.2} | {:.1} | {:.1} | {} | {} | {:.1} ({:.1} x) | {:.1} | {} |",
            row.name,
            percent(counts.good(), counts.in_reach()),
            percent(counts.good(), counts.reads),
            counts.refused.iter().sum::<u64>() as f64 / day,
            counts.excused as f64 / day,
            (counts.none_to_give + counts.after_start + counts.at_its_end) as f64 / day,
            counts.known_dead,
            dead.shown(row.name),
            counts.calls as f64 / day,
            counts.calls as f64 / row.least_calls,
            counts.probes as f64 / day,
            counts.over_quota_days
        );
    }
    for (name, tally) in tallies {
        let day = (script_apps * days) as f64;
        println!(
            "| {name} | {} | {} | {:.2} | {:.1} | 0 | | | | {:.1} ({:.1} x) | 0 | {} |",
            percent(tally.accepted, tally.accepted + tally.lost),
            percent(tally.accepted, tally.reads),
            tally.refused as f64 / day,
            tally.excused as f64 / day,
            tally.calls as f64 / day,
            tally.calls as f64 / day / 12.0,
            tally.days_over
        );
    }
}

fn print_details(rows: &[Row]) {
    println!(
        "\n| | credentials | {} | at the second read | WeChat had none | after a start | held in vain | held a day | calls, nothing wrong | most calls a day | after trouble | after a start |",
        CAUSES.map(|(_, what)| what).join(" | ")
    );
    println!("|---|{}", "---:|".repeat(17));
    for row in rows {
        let counts = &row.counts;
        let refused = CAUSES.map(|(cause, _)| counts.refused[cause as usize].to_string());
        println!(
            "| {} | {} | {} | {} | {} | {} | {} | {} ms | {:.2} x | {} | <= {} s | <= {} s |",
            row.name,
            row.credentials,
            refused.join(" | "),
            counts.at_second,
            counts.none_to_give,
            counts.after_start,
            counts.at_its_end,
            counts.held_ms * 86_400 / counts.reads.max(1),
            counts.fine_calls as f64 / row.least_calls,
            counts.most_a_day,
            counts.longest_tail_ms.div_ceil(SECOND),
            counts.longest_start_ms.div_ceil(SECOND)
        );
    }
}
