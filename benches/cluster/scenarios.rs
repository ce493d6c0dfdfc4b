//! The scenarios: a day, a start, a flush, a crash, a partition; of a few credentials, each with all nodes.

use super::sim::{Act, Books, HOUR_US, Reads, SECOND_US, Setup, Sim};
use tokencached::platform::CredentialType;

/// All nodes have begun and have gone through a renewal or two.
const WARM_US: u64 = 5 * HOUR_US;

/// Plays one credential each with so many seeds, on all processors, and brings the results in order.
pub fn each<T: Send>(credentials: usize, play: impl Fn(u64) -> T + Sync) -> Vec<T> {
    let threads = std::thread::available_parallelism().map_or(1, usize::from).min(credentials).max(1);
    let mut all: Vec<(usize, T)> = std::thread::scope(|scope| {
        let play = &play;
        let work =
            |first: usize| move || (first..credentials).step_by(threads).map(|at| (at, play(at as u64))).collect();
        let running: Vec<_> = (0..threads).map(|first| scope.spawn(work(first))).collect();
        running
            .into_iter()
            .flat_map(|thread: std::thread::ScopedJoinHandle<'_, Vec<_>>| thread.join().unwrap())
            .collect()
    });
    all.sort_by_key(|(at, _)| *at);
    all.into_iter().map(|(_, result)| result).collect()
}

/// Nodes of one credential as they are if nothing is wrong.
pub fn setup(nodes: usize, credential_type: &'static CredentialType, seed: u64) -> Setup {
    Setup {
        nodes,
        credential_type,
        pushes: true,
        lost: 0.0,
        start_us: 50 * SECOND_US,
        script_us: 50.0,
        read_us: 5.0,
        message_us: 4.0,
        busy: 0.0,
        read_every_us: 0,
        seed: seed * 7_919 + 1,
    }
}

/// A day in which nothing happens.
pub fn day(setup: Setup) -> Books {
    let mut sim = Sim::new(setup);
    sim.run(WARM_US);
    sim.begin_books();
    sim.run(WARM_US + 24 * HOUR_US);
    sim.books
}

/// Of each token made in the books that all nodes have: when the last one had it, in microseconds.
pub fn last_had_it_us(books: &Books, nodes: usize) -> Vec<u64> {
    let all = books.spread_us.iter().filter(|each| each.len() >= nodes);
    all.filter_map(|each| each.iter().copied().max()).collect()
}

/// A start of all nodes with an empty store: the books of the first minutes, and when the last node had a token.
pub fn start(setup: Setup) -> (Books, Option<u64>) {
    let nodes = setup.nodes;
    let mut sim = Sim::new(setup);
    sim.run(180 * SECOND_US);
    let first = sim.books.first_token_us;
    let last = last_had_it_us(&sim.books, nodes).into_iter().max().zip(first).map(|(us, first)| us + first);
    (sim.books, last)
}

/// What is disturbed, and how long: the books of that time, then those of the three hours after.
pub struct Trouble {
    pub during: Books,
    pub after: Books,
    /// In the end all serve one token that WeChat accepts.
    pub agrees: bool,
    /// From a death to the next publication.
    pub until_next_us: Option<u64>,
}

/// At an instant by chance something happens, and for so long.
pub fn trouble(setup: Setup, act: Act, lasts_us: u64) -> Trouble {
    let at_us = WARM_US + fastrand::Rng::with_seed(setup.seed).u64(0..2 * HOUR_US);
    let mut sim = Sim::new(setup);
    sim.run(at_us);
    sim.begin_books();
    sim.plan(at_us + 1, act);
    sim.run(at_us + lasts_us);
    let during = sim.begin_books();
    match act {
        Act::Cut(_) => sim.plan(at_us + lasts_us + 1, Act::Heal),
        Act::Wechat(false) => sim.plan(at_us + lasts_us + 1, Act::Wechat(true)),
        _ => {}
    }
    sim.run(at_us + lasts_us + 3 * HOUR_US);
    Trouble { during, agrees: sim.agrees(), until_next_us: sim.renewed_us, after: sim.books }
}

/// The sum of what readers got.
pub fn sum(reads: impl Iterator<Item = Reads>) -> Reads {
    reads.fold(Reads::default(), |sum, reads| Reads {
        served: sum.served + reads.served,
        refused: sum.refused + reads.refused,
        missed: sum.missed + reads.missed,
    })
}
