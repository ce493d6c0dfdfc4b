//! Fault 59: whoever has the lease is stopped for longer than it lasts, and wakes.

use super::{CLASSIC, Group, Plan, calls, settles_soon, wait_until_settled};
use crate::support::Wechat;
use crate::support::proxy::Proxy;
use crate::support::redis::Redis;

/// What a renewal sends to WeChat, and what the steps before it send to the Redis.
const CALL: &str = "/cgi-bin/token";
const INTENT: &str = "announce";

/// A call may take two seconds, so a lease lasts three and a half.
fn plan(wechat: &Wechat, redis: &Redis) -> Plan {
    let upstream = "connect_timeout_ms = 2000\ntotal_timeout_ms = 2000\n".to_owned();
    Plan { upstream, ..Plan::new(wechat, &redis.url(), CLASSIC) }
}

/// The others renew without it, by one call.
fn others_renew(group: &mut Group, first: &str, holder: usize) -> String {
    let reporter = usize::from(holder == 0);
    group.members[reporter].report();
    group.agreed(&[first])
}

#[test]
#[ignore = "needs redis-server"]
fn a_holder_that_sleeps_in_mid_call_is_refused_when_it_wakes_and_one_more_call_settles_it() {
    let (wechat, redis) = (settles_soon(), Redis::start(&[]));
    let proxy = Proxy::to_tcp(wechat.addr());
    let mut group = Group::start(&wechat, &plan(&wechat, &redis).by(proxy.address), 3);
    let first = group.agreed(&[]);
    proxy.hold_answer(CALL);
    group.kill_tokens_and_tell(0);
    proxy.wait_until_held();
    group.members[0].pause();
    proxy.release();
    assert_eq!(calls(&wechat), 2, "a token has been made that nobody knows of");
    let second = others_renew(&mut group, &first, 0);
    assert_eq!(calls(&wechat), 3);
    group.forget();
    group.members[0].wake();
    let third = group.agreed(&[&first, &second]);
    wait_until_settled(&redis);
    assert_eq!((group.agreed(&[]), calls(&wechat)), (third, 4));
    group.never_went_back();
    assert_eq!(group.refused()[1..], [0, 0]);
}

#[test]
#[ignore = "needs redis-server"]
fn a_holder_that_sleeps_before_its_call_makes_none_when_it_wakes() {
    let (wechat, redis) = (settles_soon(), Redis::start(&[]));
    let proxy = Proxy::to_unix(&redis.socket());
    let plan = plan(&wechat, &redis);
    let mut group = Group::start(&wechat, &Plan { redis: format!("redis://{}", proxy.address), ..plan.clone() }, 1);
    group.agreed(&[]);
    for _ in 0..2 {
        group.join(plan.start());
    }
    let first = group.agreed(&[]);
    proxy.hold_request(INTENT);
    group.kill_tokens_and_tell(0);
    proxy.wait_until_held();
    group.members[0].pause();
    let second = others_renew(&mut group, &first, 0);
    assert_eq!(calls(&wechat), 2);
    proxy.release();
    group.members[0].wake();
    assert_eq!(group.agreed(&[&first]), second);
    wait_until_settled(&redis);
    assert_eq!((group.agreed(&[]), calls(&wechat)), (second, 2));
}
