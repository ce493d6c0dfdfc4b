//! Sites that keep a token in the ways that are in use: once they have moved they never fetch by themselves and are never
//! refused a token, and while they move they are no worse off than before.

use crate::moving::{self, Endpoint, Phase, Plan, WAYS, Way};

const RENEWALS: u32 = 3;

fn rows() -> impl Iterator<Item = (&'static Way, Endpoint)> {
    WAYS.iter().flat_map(|way| way.endpoints.iter().map(move |&endpoint| (way, endpoint)))
}

/// Short lives, with more time between two tokens than WeChat gives: machines pause.
#[track_caller]
fn move_in(phases: &[Phase], rows: impl Iterator<Item = (&'static Way, Endpoint)>) {
    let plan = Plan {
        binary: env!("CARGO_BIN_EXE_tokencached").into(),
        life_s: 8,
        overlap_ms: Some(2_000),
        renewals: RENEWALS + 1,
        views_per_s: 4,
        phases: phases.to_vec(),
        apart: true,
        rows: rows.collect(),
    };
    let rows = moving::run(&plan);
    moving::print(&rows, plan.life_s);
    let broken = moving::broken(&rows, RENEWALS);
    assert!(broken.is_empty(), "{}", broken.join("\n"));
}

#[test]
fn a_site_that_has_moved_never_fetches_and_is_never_refused() {
    move_in(&[Phase::After], rows());
}
