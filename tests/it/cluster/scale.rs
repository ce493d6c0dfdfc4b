//! A hundred nodes in virtual time, a few credentials of them: the simulation behind docs/design/scale.md, which
//! `cargo bench --bench cluster` plays at length.

#[allow(dead_code)]
#[path = "../../../benches/cluster/scenarios.rs"]
mod scenarios;
#[allow(dead_code)]
#[path = "../../../benches/cluster/sim/mod.rs"]
mod sim;

use self::scenarios::{each, last_had_it_us, setup, sum, trouble};
use self::sim::{Act, Books, Reads, SECOND_US, Setup};
use tokencached::platform::{CredentialType, mp};

const NODES: usize = 100;
const MINUTE_US: u64 = 60 * SECOND_US;

fn read(nodes: usize, kind: &'static CredentialType, seed: u64) -> Setup {
    Setup { read_every_us: 5 * SECOND_US, ..setup(nodes, kind, seed) }
}

fn all_reads<'a>(books: impl Iterator<Item = &'a Books>) -> Reads {
    sum(books.flat_map(|books| books.readers))
}

#[test]
fn a_hundred_nodes_call_as_often_as_one_and_all_have_each_token() {
    let calls = |days: &[Books]| days.iter().map(|day| day.calls).sum::<u64>() as f64;
    for (kind, most) in [(&mp::CLASSIC, 1.02), (&mp::STABLE, 1.15)] {
        let alone = each(8, |seed| scenarios::day(setup(1, kind, seed)));
        let days = each(8, |seed| scenarios::day(Setup { lost: 0.01, ..read(NODES, kind, seed) }));
        let ratio = calls(&days) / calls(&alone);
        assert!((0.9..most).contains(&ratio), "{}: {ratio}", kind.id);
        let reads = all_reads(days.iter());
        assert_eq!((reads.refused, reads.missed), (0, 0), "{}", kind.id);
        assert!(reads.served > 1_000_000);
        for day in &days {
            // The last one may still be on its way.
            let had = last_had_it_us(day, NODES);
            assert!(had.len() as u64 + 1 >= day.tokens && day.tokens > 8, "{} of {}", had.len(), day.tokens);
            assert!(had.iter().all(|us| *us < 5 * SECOND_US), "{}: {had:?}", kind.id);
        }
    }
}

#[test]
fn polls_alone_bring_each_token_to_a_hundred_nodes() {
    let day = scenarios::day(Setup { pushes: false, ..read(NODES, &mp::CLASSIC, 1) });
    let had = last_had_it_us(&day, NODES);
    assert!(had.len() as u64 + 1 >= day.tokens && day.tokens > 8);
    assert!(had.iter().all(|us| *us < 10 * SECOND_US), "{had:?}");
    let reads = all_reads(std::iter::once(&day));
    assert_eq!((reads.refused, reads.missed, day.messages), (0, 0, 0));
}

#[test]
fn a_hundred_nodes_that_start_at_once_make_one_token() {
    for kind in [&mp::CLASSIC, &mp::STABLE] {
        for (books, last_us) in each(8, |seed| scenarios::start(setup(NODES, kind, seed))) {
            assert_eq!((books.tokens, books.calls), (1, 1), "{}", kind.id);
            assert!(last_us.is_some_and(|us| us < MINUTE_US), "{}: {last_us:?}", kind.id);
        }
    }
}

#[test]
fn whoever_dies_in_mid_call_is_replaced_before_its_token_ends() {
    for kind in [&mp::CLASSIC, &mp::STABLE] {
        for each in each(8, |seed| trouble(read(NODES, kind, seed), Act::KillCaller, 7_500 * SECOND_US)) {
            let reads = all_reads([&each.during, &each.after].into_iter());
            assert_eq!((reads.missed, each.agrees), (0, true), "{}", kind.id);
            // With the classic token that has died with its caller there are three, and WeChat ends the first with the
            // third: whoever reads at the very moment in which that is on its way to the nodes finds it refused.
            let moment = if kind == &mp::CLASSIC { NODES as u64 } else { 0 };
            assert!(reads.refused <= moment, "{}: {reads:?}", kind.id);
            assert!(each.until_next_us.is_some_and(|us| us < 5 * MINUTE_US), "{:?}", each.until_next_us);
        }
    }
}

#[test]
fn an_emptied_store_is_filled_again_by_few_and_costs_no_call() {
    for kind in [&mp::CLASSIC, &mp::STABLE] {
        let all = each(8, |seed| trouble(read(NODES, kind, seed), Act::Flush, MINUTE_US));
        let offers: u64 = all.iter().map(|each| each.during.offers).sum();
        assert!(offers <= 4 * all.len() as u64, "{}: {offers} offers of {} credentials", kind.id, all.len());
        let reads = all_reads(all.iter().flat_map(|each| [&each.during, &each.after]));
        assert_eq!((reads.refused, reads.missed), (0, 0), "{}", kind.id);
        assert!(all.iter().all(|each| each.agrees));
    }
}

/// For two hours, beyond the end of each token: it is asked about as often as by one node, and all recover.
#[test]
fn a_hundred_nodes_try_no_more_often_than_one_while_wechat_fails() {
    let calls = |nodes| {
        let play = |seed| trouble(setup(nodes, &mp::CLASSIC, seed), Act::Wechat(false), 120 * MINUTE_US);
        let all = each(6, play);
        assert!(all.iter().all(|each| each.agrees), "{nodes} nodes");
        all.iter().map(|each| each.during.calls).sum::<u64>()
    };
    let (alone, together) = (calls(1), calls(NODES));
    assert!(together <= 2 * alone, "{together} against {alone}");
}

/// A minute hurts nobody. In half an hour those without the store lose a classic token that the others have renewed:
/// five minutes after that WeChat refuses it, a report takes it away, and until the store is back there is none. A
/// stable one they ask for themselves.
#[test]
fn a_partition_costs_what_the_design_says_and_no_more() {
    for (kind, minutes) in [(&mp::CLASSIC, 1), (&mp::STABLE, 1), (&mp::CLASSIC, 30), (&mp::STABLE, 180)] {
        let play = |seed| trouble(read(20, kind, seed), Act::Cut(0.5), minutes * MINUTE_US);
        let all = each(6, play);
        let with = sum(all.iter().map(|each| each.during.readers[0]));
        let without = sum(all.iter().map(|each| each.during.readers[1]));
        let after = all_reads(all.iter().map(|each| &each.after));
        assert_eq!((with.refused, with.missed), (0, 0), "{} {minutes} min", kind.id);
        assert!(all.iter().all(|each| each.agrees), "{} {minutes} min", kind.id);
        if kind == &mp::STABLE || minutes == 1 {
            assert_eq!((without.refused, without.missed), (0, 0), "{} {minutes} min", kind.id);
            assert_eq!((after.refused, after.missed), (0, 0), "{} {minutes} min", kind.id);
        } else {
            // Each of the ten nodes learns it once or twice of each of the six tokens.
            assert!(without.refused <= 2 * 10 * 6, "{without:?}");
            // Back within seconds of the store.
            assert!(after.refused == 0 && after.missed <= 2 * 10 * 6, "{after:?}");
        }
    }
}
