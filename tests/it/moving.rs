//! Sites that keep a token in the ways that are in use: once they have moved they never fetch by themselves and are never
//! refused a token, and while they move they are no worse off than before.

use crate::moving::{self, Endpoint, Phase, Plan, Row, WAYS, Way};

const RENEWALS: u32 = 3;

/// Short lives, with more time between two tokens than WeChat gives: machines pause.
fn run(phases: &[Phase], rows: Vec<(&'static Way, Endpoint)>) -> Vec<Row> {
    let plan = Plan {
        binary: env!("CARGO_BIN_EXE_tokencached").into(),
        life_s: 12,
        overlap_ms: Some(4_000),
        renewals: RENEWALS + 1,
        views_per_s: 4,
        phases: phases.to_vec(),
        apart: true,
        rows,
    };
    let rows = moving::run(&plan);
    moving::print(&rows, plan.life_s);
    let broken = moving::broken(&rows, RENEWALS);
    assert!(broken.is_empty(), "{}", broken.join("\n"));
    rows
}

/// How a value is fetched makes no difference to who reads it from us: every way once, some twice.
#[test]
#[ignore = "needs mariadbd"]
fn a_site_that_has_moved_never_fetches_and_is_never_refused() {
    let twice = ["memcached", "file-json", "sql", "redis", "http"];
    let of = |way: &'static Way| {
        let endpoints =
            if twice.contains(&way.name) { way.endpoints } else { &way.endpoints[way.endpoints.len() - 1..] };
        endpoints.iter().map(move |&endpoint| (way, endpoint))
    };
    let rows = run(&[Phase::After], WAYS.iter().flat_map(of).collect());
    let skipped: Vec<&str> = rows.iter().filter(|row| row.of(Phase::After).is_none()).map(|row| row.way.name).collect();
    assert!(skipped.is_empty(), "not run: {skipped:?}");
}

#[test]
#[ignore = "needs mariadbd"]
fn a_site_that_has_half_moved_is_no_worse_off_than_before() {
    let some = ["memcached", "file-json", "sql", "node"];
    let ways = WAYS.iter().filter(|way| some.contains(&way.name));
    let rows = ways.flat_map(|way| way.endpoints.iter().map(move |&endpoint| (way, endpoint)));
    run(&[Phase::Before, Phase::Half], rows.collect());
}
