//! The table, and which promises are broken.

use std::time::Duration;

use super::row::{Outcome, Phase, Row, Tally};

/// WeChat's life of a token, which the run's stands for.
const LIFE_S: f64 = 7200.0;

/// A phase may hold one fetch more than the other by where it is cut.
const CUT: u64 = 1;
/// Of so many page views one may meet the very end of a token, on a web server that has not moved and a machine that
/// pauses.
const VIEWS_OF_ONE_UNLUCKY: u64 = 500;

/// The table in Markdown. Staleness is told as it would be with tokens of two hours.
pub fn print(rows: &[Row], life_s: u64) {
    println!(
        "| way of keeping the token | endpoint | before | half of the servers moved | after |\n|---|---|---:|---:|---:|"
    );
    for row in rows {
        let cell = |phase| {
            let outcome = row.phases.iter().find(|(which, _)| *which == phase).map(|(_, outcome)| outcome);
            match outcome {
                Some(Outcome::Ran(tally)) => cell(tally, life_s),
                Some(Outcome::Skipped(reason)) => format!("skipped: {reason}"),
                None if row.failed.is_some() => "failed".to_owned(),
                None => String::new(),
            }
        };
        let cells = [Phase::Before, Phase::Half, Phase::After].map(cell);
        println!("| {} | {} | {} |", row.way.title, row.endpoint.name(), cells.join(" | "));
    }
}

/// Requests, refused, staleness.
fn cell(tally: &Tally, life_s: u64) -> String {
    let stale_min = tally.stalest.as_secs_f64() * LIFE_S / life_s as f64 / 60.0;
    let share = 100.0 * tally.refused as f64 / tally.views.max(1) as f64;
    let stale = if tally.stalest == Duration::ZERO { "0".to_owned() } else { format!("{stale_min:.0} min") };
    match tally.refused {
        0 => format!("{} / 0 / {stale}", tally.requests),
        refused => format!("{} / {refused} ({share:.0} %) / {stale}", tally.requests),
    }
}

/// Which rows break the promise, and how.
pub fn broken(rows: &[Row], renewals: u32) -> Vec<String> {
    let mut broken = Vec::new();
    for row in rows {
        let name = format!("{} ({})", row.way.title, row.endpoint.name());
        if let Some(said) = &row.failed {
            broken.push(format!("{name}: {said}"));
        }
        let [before, half, after] = [Phase::Before, Phase::Half, Phase::After].map(|phase| row.of(phase));
        if let (Some(before), Some(half)) = (before, half) {
            if half.requests > before.requests + CUT {
                broken.push(format!("{name}: {} requests while moving, {} before", half.requests, before.requests));
            }
            if half.refused > before.refused + half.views / VIEWS_OF_ONE_UNLUCKY {
                broken.push(format!("{name}: {} refused while moving, {} before", half.refused, before.refused));
            }
        }
        let Some(after) = after else { continue };
        if after.requests > 0 || after.refused > 0 {
            broken.push(format!("{name}: {} requests and {} refused after", after.requests, after.refused));
        }
        // What reads nothing, or the same all the time, proves nothing.
        let enough = after.tokens.iter().all(|&tokens| tokens >= renewals as usize);
        if !enough || after.views == 0 {
            broken.push(format!("{name}: {} views and {:?} tokens after are too few", after.views, after.tokens));
        }
    }
    broken
}
