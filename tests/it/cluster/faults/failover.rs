//! Fault 55: another Redis takes over, and knows nothing of a lease that the first one has given.

use super::{CLASSIC, Group, Plan, calls, field, settles_soon, wait_for_value, wait_until_settled};
use crate::support::proxy::{Proxy, To};
use crate::support::redis::{Redis, Sentinel};

const CALL: &str = "/cgi-bin/token";

/// A lease is lost for certain: the replica that is promoted has heard nothing since before it was granted. So two calls
/// are under way at once, and WeChat alone knows which token is the later one; one more call makes it not matter.
#[test]
#[ignore = "needs redis-server"]
fn a_lease_that_is_lost_with_its_redis_costs_one_call_and_one_more_settles_it() {
    let wechat = settles_soon();
    let (mut master, port) = Redis::on_tcp(&[]);
    let (replica, replica_port) = Redis::replica_of(port, &[]);
    let (to_wechat, to_redis) = (Proxy::to_tcp(wechat.addr()), Proxy::to_tcp(([127, 0, 0, 1], port).into()));
    let plan = Plan::new(&wechat, &format!("redis://{}", to_redis.address), CLASSIC).by(to_wechat.address);
    let mut group = Group::start(&wechat, &plan, 3);
    let first = group.agreed(&[]);
    let value = wait_for_value(&master);
    group.until("the value at the replica", |_| field(&replica, "value").as_ref() == Some(&value));
    replica.ask::<()>(&["REPLICAOF", "NO", "ONE"]);

    to_wechat.hold_answer(CALL);
    group.kill_tokens_and_tell(0);
    to_wechat.wait_until_held();
    master.kill();
    to_redis.lead(To::Tcp(([127, 0, 0, 1], replica_port).into()));
    group.members[1].report();
    group.until("the other's token", |group| {
        group.members[1..].iter().all(|member| member.last.as_ref().is_some_and(|token| *token != first))
    });
    let second = group.members[1].last.clone().unwrap();
    group.forget();
    to_wechat.release();
    let third = group.agreed(&[&first, &second]);
    wait_until_settled(&replica);
    assert_eq!((group.agreed(&[]), calls(&wechat)), (third, 4), "the first, two beside each other, one more");
    group.never_went_back();
}

/// By a sentinel, in mid-call: whether the replica has the lease is left to chance.
#[test]
#[ignore = "needs redis-server"]
fn a_failover_by_a_sentinel_in_mid_call_ends_with_one_token_everywhere() {
    let wechat = settles_soon();
    let (mut master, port) = Redis::on_tcp(&[]);
    let (replica, _) = Redis::replica_of(port, &[]);
    let sentinel = Sentinel::start(port, "");
    sentinel.knows_a_replica();
    let to_wechat = Proxy::to_tcp(wechat.addr());
    let url = format!("redis+sentinel://127.0.0.1:{}/mymaster", sentinel.port);
    let plan = Plan::new(&wechat, &url, CLASSIC).by(to_wechat.address);
    let mut group = Group::start(&wechat, &plan, 3);
    let first = group.agreed(&[]);
    to_wechat.hold_answer(CALL);
    group.kill_tokens_and_tell(0);
    to_wechat.wait_until_held();
    master.kill();
    group.until_said(&[0, 1, 2], "the cluster store is reachable again");
    group.members[1].report();
    to_wechat.release();
    let token = group.agreed(&[&first]);
    wait_until_settled(&replica);
    // One that was about to settle it may have been on its way.
    let last = group.agreed(&[&first]);
    assert!(calls(&wechat) <= 4, "{}", calls(&wechat));
    group.forget();
    group.replace_dead_tokens(2, &[&first, &token, &last]);
    group.never_went_back();
}
