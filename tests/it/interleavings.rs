//! What several threads share, in every order in which they may come: the sources themselves, built of loom's parts
//! (`interleavings/sync.rs` says which, and what is a model only).
//!
//! Small on purpose: two or three threads of a few steps each. A thread that is never woken is reported as a deadlock.

#![allow(dead_code)]

use loom::model::Builder;
use loom::thread;

use crate::sync::Arc;

#[path = "../../src/clock.rs"]
mod clock;
#[path = "../../src/credential/value_cell.rs"]
mod value_cell;
#[path = "../../src/stats/workers.rs"]
mod workers;

use clock::LogThrottle;
use value_cell::{CellReading, ValueCell};
use workers::{Counter, CounterSet, Workers};

/// Tries every order in which a thread is interrupted at most three times where it need not be.
fn every_order(scenario: impl Fn() + Send + Sync + 'static) {
    let mut builder = Builder::new();
    builder.preemption_bound = Some(3);
    builder.check(scenario);
}

/// A value and whether it has ended.
struct Value {
    generation: u64,
    live: bool,
}

fn live(generation: u64) -> Value {
    Value { generation, live: true }
}

/// The generation of what is there; none if nothing is.
#[derive(Debug, PartialEq, Eq)]
enum Seen {
    Live(u64),
    Coming,
    Absent,
}

fn look(watched: &ValueCell<Value>) -> Seen {
    match watched.load(|value| value.live) {
        CellReading::Live(guard) => Seen::Live(guard.as_ref().unwrap().generation),
        CellReading::Coming => Seen::Coming,
        CellReading::Absent => Seen::Absent,
    }
}

/// As a connection does: looks, and while something is coming waits for a change and looks again.
fn look_until_it_is_there(watched: &ValueCell<Value>) -> Seen {
    loop {
        match look(watched) {
            Seen::Coming => watched.wait_while(|| look(watched) == Seen::Coming).wait(),
            seen => return seen,
        }
    }
}

#[test]
fn who_waits_for_the_first_value_is_woken_and_gets_it() {
    every_order(|| {
        let watched = Arc::new(ValueCell::default());
        let writer = watched.clone();
        let writer = thread::spawn(move || writer.publish(live(1)));
        assert_eq!(look_until_it_is_there(&watched), Seen::Live(1));
        writer.join().unwrap();
    });
}

#[test]
fn two_who_wait_are_both_woken() {
    every_order(|| {
        let watched = Arc::new(ValueCell::default());
        let other = watched.clone();
        let other = thread::spawn(move || assert_eq!(look_until_it_is_there(&other), Seen::Live(1)));
        let writer = watched.clone();
        let writer = thread::spawn(move || writer.publish(live(1)));
        assert_eq!(look_until_it_is_there(&watched), Seen::Live(1));
        other.join().unwrap();
        writer.join().unwrap();
    });
}

#[test]
fn a_first_fetch_that_fails_ends_the_waiting() {
    every_order(|| {
        let watched: Arc<ValueCell<Value>> = Arc::new(ValueCell::default());
        let writer = watched.clone();
        let writer = thread::spawn(move || writer.end_wait());
        assert_eq!(look_until_it_is_there(&watched), Seen::Absent);
        writer.join().unwrap();
    });
}

#[test]
fn a_first_value_is_never_a_miss() {
    every_order(|| {
        let watched = Arc::new(ValueCell::default());
        let writer = watched.clone();
        let writer = thread::spawn(move || writer.publish(live(1)));
        assert_ne!(look(&watched), Seen::Absent, "the value was there before anybody said that none is coming");
        writer.join().unwrap();
    });
}

#[test]
fn a_withdrawn_value_is_waited_for_and_never_a_miss() {
    every_order(|| {
        let watched = Arc::new(ValueCell::default());
        watched.publish(live(1));
        let writer = watched.clone();
        let writer = thread::spawn(move || {
            writer.publish_until_next(Value { generation: 1, live: false });
            writer.publish(live(2));
        });
        let first = look_until_it_is_there(&watched);
        assert!(matches!(first, Seen::Live(1 | 2)), "{first:?}");
        writer.join().unwrap();
        assert_eq!(look(&watched), Seen::Live(2));
    });
}

#[test]
fn generations_never_go_backwards() {
    every_order(|| {
        let watched = Arc::new(ValueCell::default());
        watched.publish(live(1));
        let writer = watched.clone();
        let writer = thread::spawn(move || {
            writer.publish(live(2));
            writer.publish(live(3));
        });
        let mut before = 0;
        for _ in 0..3 {
            let Seen::Live(generation) = look(&watched) else { panic!("a swap is no gap") };
            assert!(generation >= before);
            before = generation;
        }
        writer.join().unwrap();
    });
}

/// A worker's set of one counter.
#[derive(Default)]
struct Hits(Counter);

impl CounterSet for Hits {
    type Totals = u64;

    fn add_to(&self, totals: &mut u64) {
        *totals = totals.wrapping_add(self.0.get());
    }

    fn subtract(totals: &mut u64, base: &u64) {
        *totals = totals.wrapping_sub(*base);
    }
}

#[test]
fn totals_grow_while_workers_count_and_end_exact() {
    every_order(|| {
        let workers: Arc<Workers<Hits>> = Arc::new(Workers::default());
        let threads = [1, 2].map(|n| {
            let set = workers.register();
            thread::spawn(move || {
                set.0.add(n);
                set.0.add(n);
            })
        });
        let (first, second) = (workers.totals(), workers.totals());
        assert!(first <= second && second <= 6, "{first}, then {second}");
        threads.into_iter().for_each(|thread| thread.join().unwrap());
        assert_eq!(workers.totals(), 6);
    });
}

#[test]
fn a_total_taken_during_a_reset_is_never_below_zero() {
    every_order(|| {
        let workers: Arc<Workers<Hits>> = Arc::new(Workers::default());
        let set = workers.register();
        let counting = thread::spawn(move || set.0.add(3));
        let other = workers.clone();
        let resetting = thread::spawn(move || other.reset());
        let total = workers.totals();
        assert!(total <= 3, "{total}");
        counting.join().unwrap();
        resetting.join().unwrap();
        assert!(workers.totals() <= 3);
    });
}

#[test]
fn of_several_at_once_one_is_let_through() {
    every_order(|| {
        let throttle = Arc::new(LogThrottle::default());
        let other = throttle.clone();
        let other = thread::spawn(move || other.allow(5_000, 60_000));
        let one = throttle.allow(5_001, 60_000);
        assert!(one ^ other.join().unwrap());
        assert!(!throttle.allow(60_000, 60_000));
        assert!(throttle.allow(65_002, 60_000));
    });
}
