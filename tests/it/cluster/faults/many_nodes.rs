//! Many at once, and clocks that differ.

use super::{CLASSIC, Group, Member, Plan, STABLE, calls, short_lived};
use crate::support::redis::Redis;
use crate::support::{APPID, Wechat, wait_for};
use tokencached::sandbox::Endpoint;

const NODES: usize = 50;

/// Fault 58. A stable token costs one call too: whoever asks has the lease, and the others take over what it brings.
/// Only a node that the Redis does not answer in time asks by itself, so with its default patience on a machine that
/// is overloaded it may be a few; never more than one a node.
fn boot_at_once(endpoint: &str) -> u64 {
    let (wechat, redis) = (Wechat::start(), Redis::start(&[]));
    let plan = Plan::new(&wechat, &redis.url(), endpoint);
    let nodes = std::thread::scope(|scope| {
        let starting: Vec<_> = (0..NODES).map(|_| scope.spawn(|| plan.start())).collect();
        starting.into_iter().map(|node| node.join().unwrap()).collect::<Vec<_>>()
    });
    let mut group = Group::of(&wechat, nodes);
    group.agreed(&[]);
    let calls = wechat.calls(APPID);
    calls.of(Endpoint::Token) + calls.of(Endpoint::StableToken)
}

#[test]
#[ignore = "needs redis-server"]
fn fifty_nodes_that_boot_on_an_empty_redis_make_one_call() {
    assert_eq!((boot_at_once(CLASSIC), boot_at_once(STABLE)), (1, 1));
}

const FAKETIME: &str = "/usr/$LIB/faketime/libfaketime.so.1";

/// A node whose wall clock is that much off. Other clocks are right.
fn with_clock(plan: &Plan, off: &str) -> crate::support::Node {
    let variables = [("LD_PRELOAD", FAKETIME), ("FAKETIME", off), ("FAKETIME_DONT_FAKE_MONOTONIC", "1")];
    plan.start_with(tempfile::tempdir().unwrap(), &variables)
}

/// Each of three serves and renews, whatever its clock says, and each renews alone when the others are gone.
#[test]
#[ignore = "needs redis-server"]
fn nodes_whose_clocks_are_hours_off_serve_and_renew_as_others_do() {
    let (wechat, redis) = (short_lived(12), Redis::start(&[]));
    let plan = Plan::new(&wechat, &redis.url(), CLASSIC);
    let nodes = [with_clock(&plan, "+7200s"), with_clock(&plan, "-7200s"), plan.start()];
    let mut group = Group::of(&wechat, nodes);
    // Up to the hour, of the first line in each log.
    let hour = |member: &Member| wait_for("a line", || member.node.log().get(..13).map(str::to_owned));
    let hours: Vec<String> = group.members.iter().map(hour).collect();
    assert!(hours[0] > hours[2] && hours[2] > hours[1], "or this shows nothing: {hours:?}");
    let mut last = group.agreed(&[]);
    // They count from whichever node was first, by its clock.
    let first = group.members[0].figure("generation") - calls(&wechat);
    group.forget();
    let mut smooth = true;
    // The right clock goes first.
    for left in [2, 1, 0] {
        last = group.agreed(&[&last]);
        smooth &= group.lost_no_call();
        if smooth {
            group.never_failed();
            group.never_went_back();
        }
        if left > 0 {
            group.members.truncate(left);
        }
    }
    if smooth {
        group.until("each call to be of a token that all have served", |group| {
            group.members[0].figure("generation") == first + calls(&wechat) || !group.lost_no_call()
        });
    }
}
