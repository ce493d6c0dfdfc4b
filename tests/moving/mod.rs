//! Sites that keep a WeChat token in the ways that are in use, while they move to this server: two web servers that show
//! pages, a store of the site's own, one node. `benches/moving` and `it/moving.rs` run it.
//!
//! The scripts are real processes and know nothing of the node but an address. What is counted: their calls for a token
//! or ticket and the tokens they were refused, both by the simulated WeChat, and how long they went on using one.
//! Nothing here judges a figure but [`report`].

#![allow(clippy::disallowed_methods, reason = "so many reads a second, in real time")]

mod report;
mod row;
mod site;
mod stores;
mod ways;

use std::path::PathBuf;
use std::time::Duration;

pub use report::{broken, print};
pub use row::{Phase, Row};
pub use ways::{Endpoint, WAYS, Way};

use tokencached::sandbox::{AppOptions, Options, Quotas, Sandbox};

/// What is run, and for how long.
pub struct Plan {
    pub binary: PathBuf,
    /// A token's life. It stands for WeChat's 7200 s, and the scripts' own times shrink with it.
    pub life_s: u64,
    /// How long a token lives on after the next one, and the time before its end in which a stable one is replaced; in
    /// proportion, as at WeChat, if not given.
    pub overlap_ms: Option<u64>,
    /// Each phase lasts for so many lives.
    pub renewals: u32,
    /// Page views a second, of each web server.
    pub views_per_s: u32,
    pub phases: Vec<Phase>,
    /// While a web server still fetches by itself, the node uses the other of WeChat's two calls, as the manual says.
    pub apart: bool,
    pub rows: Vec<(&'static Way, Endpoint)>,
}

impl Plan {
    fn phase_length(&self) -> Duration {
        Duration::from_secs(self.life_s) * self.renewals
    }
}

/// Runs all rows at once, each with an app, stores and a node of its own.
pub fn run(plan: &Plan) -> Vec<Row> {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
    let app = |at| AppOptions { appid: appid(at), secret: SECRET.into(), ..AppOptions::default() };
    let options = Options {
        apps: (0..plan.rows.len()).map(app).collect(),
        lifetime_s: plan.life_s,
        overlap_ms: plan.overlap_ms,
        stable_window_ms: plan.overlap_ms,
        // A day's quota is spent in minutes here.
        quotas: Quotas { classic_per_day: 1_000_000, ticket_per_day: 1_000_000, ..Quotas::default() },
        ..Options::default()
    };
    let sandbox = runtime.block_on(Sandbox::start(options)).unwrap();
    let database = stores::Database::for_rows(&plan.rows);
    let rows = std::thread::scope(|scope| {
        let threads: Vec<_> = (0..plan.rows.len())
            .map(|at| {
                scope.spawn({
                    let (sandbox, database) = (&sandbox, database.as_ref());
                    move || row::run(plan, at, sandbox, database)
                })
            })
            .collect();
        threads.into_iter().map(|thread| thread.join().unwrap()).collect()
    });
    runtime.block_on(sandbox.stop());
    rows
}

const SECRET: &str = "5ec4e75ec4e75ec4e75ec4e75ec4e700";

fn appid(row: usize) -> String {
    format!("wx{row:016x}")
}
