//! The Redis is away: down, empty, a replica, loading, hanging, elsewhere, out of a node's reach.

use std::net::SocketAddr;

use super::{CLASSIC, Group, Plan, STABLE, calls, field, key, short_lived, wait_for_value, wait_until_settled};
use crate::redis_client;
use crate::support::proxy::{Proxy, To};
use crate::support::redis::{Redis, free_port};
use crate::support::{APPID, Wechat, wait_for};

/// Shorter than a test's patience, longer than a busy machine takes.
const SOON: &str = "timeout_ms = 1500\n";
const OUT_OF_REACH: &str = "the cluster store cannot be used";

/// Fault 54.
#[test]
#[ignore = "needs redis-server"]
fn without_a_redis_at_boot_a_stable_token_is_fetched_a_persisted_one_served_and_a_classic_one_not_fetched() {
    let wechat = Wechat::start();
    let mut redis = Redis::start(&[]);
    let plan = Plan::new(&wechat, &redis.url(), CLASSIC);
    let mut before = Group::start(&wechat, &plan, 1);
    let first = before.agreed(&[]);
    let folder = before.members.pop().unwrap().node.stop();
    redis.kill();

    let stable = Plan::new(&wechat, &redis.url(), STABLE).start();
    wait_for("a stable token", || stable.connect().get(&key()));
    let persisted = plan.start_in(folder);
    assert_eq!(persisted.connect().get(&key()), Some(first.clone().into_bytes()), "served by the first read");
    let without = plan.start();
    let mut client = without.connect();
    wait_for("a refusal", || {
        client.stat("tokens", &format!("{APPID}:last_error")).filter(|e| e.contains(OUT_OF_REACH))
    });
    assert_eq!(client.get(&key()), None);
    without.await_log(OUT_OF_REACH);
    assert!(client.stat("tokens", &format!("{APPID}:what_to_do")).is_some());
    assert_eq!(calls(&wechat), 1);

    // It has nothing, and might ask before the other has filled the Redis.
    let folder = without.stop();
    redis.start_again();
    let mut group = Group::of(&wechat, [persisted]);
    group.until("the value in the Redis", |_| field(&redis, "value").is_some());
    group.join(plan.start_in(folder));
    assert_eq!((group.agreed(&[]), calls(&wechat), group.misses()[0]), (first, 1, 0));
}

/// Fault 54: without any node that has a token, the classic one is fetched when the Redis comes.
#[test]
#[ignore = "needs redis-server"]
fn a_classic_token_is_fetched_once_when_the_redis_comes_after_the_nodes() {
    let wechat = Wechat::start();
    let mut redis = Redis::stopped(tempfile::tempdir().unwrap(), &[]);
    let mut group = Group::start(&wechat, &Plan::new(&wechat, &redis.url(), CLASSIC), 3);
    group.until("refusals", |group| group.members.iter_mut().all(|member| member.figure("failures") > 0));
    assert_eq!(calls(&wechat), 0);
    redis.start_again();
    group.agreed(&[]);
    assert_eq!(calls(&wechat), 1);
}

/// Fault 54: killed, and back with nothing in it.
#[test]
#[ignore = "needs redis-server"]
fn a_redis_that_is_killed_and_comes_back_empty_costs_neither_a_miss_nor_a_call() {
    let wechat = Wechat::start();
    let mut redis = Redis::start(&[]);
    let plan = Plan::new(&wechat, &redis.url(), CLASSIC);
    let mut group = Group::start(&wechat, &plan, 3);
    let token = group.agreed(&[]);
    group.forget();
    redis.kill();
    group.until_said(&[0, 1, 2], "tokens are served from memory");
    redis.start_again();
    group.until_said(&[0, 1, 2], "the cluster store is reachable again");
    group.until("the value in the Redis", |_| field(&redis, "value").is_some());
    group.never_failed();
    group.join(plan.start());
    assert_eq!((group.agreed(&[]), calls(&wechat)), (token, 1));
}

/// Fault 54: a renewal is due meanwhile, and made when the Redis is back.
#[test]
#[ignore = "needs redis-server"]
fn a_renewal_that_is_due_while_the_redis_is_down_is_made_once_when_it_is_back() {
    // Due at two thirds. Nodes look for their Redis every five seconds at least.
    let wechat = short_lived(24);
    let mut redis = Redis::start(&[]);
    let mut group = Group::start(&wechat, &Plan::new(&wechat, &redis.url(), CLASSIC), 3);
    let first = group.agreed(&[]);
    group.forget();
    redis.kill();
    group.until("a renewal that has to wait", |group| {
        group.members.iter_mut().any(|member| member.figure("failures") > 0)
    });
    redis.start_again();
    group.agreed(&[&first]);
    if group.lost_no_call() {
        group.never_failed();
        group.never_went_back();
        assert_eq!(calls(&wechat), 2);
    }
}

/// Fault 54: it does not come back in time. The one that has renewed last renews alone, and the others never.
#[test]
#[ignore = "needs redis-server"]
fn while_the_redis_stays_down_the_last_one_to_renew_goes_alone() {
    let wechat = short_lived(8);
    let mut redis = Redis::start(&[]);
    let mut group = Group::start(&wechat, &Plan::new(&wechat, &redis.url(), CLASSIC), 3);
    let first = group.agreed(&[]);
    group.forget();
    redis.kill();
    group.until("the end of the others' token", |group| {
        group.members.iter().filter(|member| member.last.is_none()).count() == 2
    });
    group.until("the next token at one", |group| group.members.iter().any(|member| member.seen.len() > 1));
    if group.lost_no_call() {
        let alone = group.members.iter().max_by_key(|member| member.seen.len()).unwrap();
        assert_eq!((alone.misses, group.refused()), (0, vec![0, 0, 0]), "it renews before the end");
        assert_eq!(calls(&wechat), alone.seen.len() as u64, "nobody has called beside it");
    }
    // It is empty. Whether those without a token find the new one there before they ask is left to chance.
    redis.start_again();
    group.agreed(&[&first]);
}

/// What nodes do when a Redis has been of no use for a while: all is well again, by one more call.
fn recovers(group: &mut Group, redis: &Redis, token: &str) {
    group.until_said(&[0, 1], "the cluster store is reachable again");
    let before = calls(group.wechat);
    group.kill_tokens_and_tell(0);
    group.agreed(&[token]);
    wait_until_settled(redis);
    assert_eq!(calls(group.wechat), before + 1);
}

/// Each node answers while the Redis does not: were one to ask it, this would take for ever.
fn reads_at_all(group: &mut Group, token: &str) {
    for _ in 0..100 {
        group.look();
    }
    assert!(group.members.iter().all(|member| member.last.as_deref() == Some(token)));
    group.never_failed();
}

/// Fault 56: READONLY.
#[test]
#[ignore = "needs redis-server"]
fn a_redis_that_becomes_a_replica_is_read_from_by_nobody_and_is_taken_when_it_is_the_master_again() {
    let wechat = Wechat::start();
    let (redis, port) = Redis::on_tcp(&[]);
    let plan = Plan::new(&wechat, &format!("redis://127.0.0.1:{port}"), CLASSIC);
    let mut group = Group::start(&wechat, &plan, 2);
    let token = group.agreed(&[]);
    group.forget();
    redis.ask::<()>(&["REPLICAOF", "127.0.0.1", &free_port().to_string()]);
    group.until_said(&[0, 1], "tokens are served from memory");
    reads_at_all(&mut group, &token);
    redis.ask::<()>(&["REPLICAOF", "NO", "ONE"]);
    recovers(&mut group, &redis, &token);
}

/// Fault 56: LOADING.
#[test]
#[ignore = "needs redis-server"]
fn a_redis_that_is_loading_is_waited_for() {
    let wechat = Wechat::start();
    // Slowly, key by key; that it is loading is looked for in between.
    let slow = ["--key-load-delay", "500", "--loading-process-events-interval-bytes", "1024"];
    let mut redis = Redis::start(&slow);
    let mut group = Group::start(&wechat, &Plan::new(&wechat, &redis.url(), CLASSIC), 2);
    let token = group.agreed(&[]);
    group.forget();
    redis.ask::<()>(&["EVAL", "for at = 1, 4000 do redis.call('SET', 'filler' .. at, at) end", "0"]);
    redis.ask::<()>(&["SAVE"]);
    redis.kill();
    group.until_said(&[0, 1], "tokens are served from memory");
    redis.start_again();
    assert!(redis.is_loading(), "or this shows nothing");
    reads_at_all(&mut group, &token);
    recovers(&mut group, &redis, &token);
}

/// Fault 56: it hangs.
#[test]
#[ignore = "needs redis-server"]
fn while_the_redis_hangs_every_read_is_answered() {
    let wechat = Wechat::start();
    let redis = Redis::start(&[]);
    let mut group = Group::start(&wechat, &Plan::new(&wechat, &redis.url(), CLASSIC).state(SOON), 2);
    let token = group.agreed(&[]);
    group.forget();
    redis.signal("STOP");
    reads_at_all(&mut group, &token);
    group.until_said(&[0, 1], "tokens are served from memory");
    reads_at_all(&mut group, &token);
    redis.signal("CONT");
    recovers(&mut group, &redis, &token);
}

/// Fault 56: MOVED.
#[test]
#[ignore = "needs redis-server"]
fn a_slot_that_moves_to_another_node_of_a_cluster_is_followed() {
    let wechat = Wechat::start();
    let ((one, one_port), (two, _)) = redis_client::cluster();
    let plan = Plan::new(&wechat, &format!("redis://127.0.0.1:{one_port}"), CLASSIC);
    let mut group = Group::start(&wechat, &plan, 2);
    let token = group.agreed(&[]);
    group.forget();
    wait_for_value(&two);
    let slot = one.ask::<u32>(&["CLUSTER", "KEYSLOT", redis_client::KEY]).to_string();
    let id: String = one.ask(&["CLUSTER", "MYID"]);
    // What is there is lost on the way, as in a failover.
    for key in two.ask::<Vec<String>>(&["KEYS", "{tokencached}*"]) {
        two.ask::<()>(&["DEL", &key]);
    }
    for redis in [&one, &two] {
        redis.ask::<()>(&["CLUSTER", "SETSLOT", &slot, "NODE", &id]);
    }
    group.until("the value at the other one", |_| field(&one, "value").is_some());
    reads_at_all(&mut group, &token);
    assert_eq!(calls(&wechat), 1);
    group.kill_tokens_and_tell(1);
    group.agreed(&[&token]);
    wait_until_settled(&one);
    assert_eq!(calls(&wechat), 2);
}

/// Fault 60.
#[test]
#[ignore = "needs redis-server"]
fn a_follower_that_is_behind_serves_the_old_token_and_wechat_takes_it() {
    let wechat = short_lived(12);
    let redis = Redis::start(&[]);
    let proxy = Proxy::to_unix(&redis.socket());
    let plan = Plan::new(&wechat, &redis.url(), CLASSIC);
    let mut group = Group::start(&wechat, &plan, 2);
    group.agreed(&[]);
    let behind = Plan { redis: format!("redis://{}", proxy.address), ..plan }.state(SOON);
    group.join(behind.start());
    let first = group.agreed(&[]);
    group.forget();
    proxy.hold_all();
    group.until("the next token at the others", |group| {
        group.members[..2].iter().all(|member| member.last.as_ref().is_some_and(|token| *token != first))
    });
    let behind = group.members[2].last.clone();
    proxy.release();
    group.agreed(&[&first]);
    if group.lost_no_call() {
        assert_eq!(behind, Some(first));
        group.never_failed();
        assert_eq!(calls(&wechat), 2);
    }
}

/// Fault 60: the same with a connection that is refused, and gone over to another address.
#[test]
#[ignore = "needs redis-server"]
fn a_follower_whose_way_to_the_redis_leads_nowhere_catches_up() {
    let wechat = Wechat::start();
    let redis = Redis::start(&[]);
    let proxy = Proxy::to_unix(&redis.socket());
    let plan = Plan::new(&wechat, &redis.url(), CLASSIC);
    let mut group = Group::start(&wechat, &plan, 1);
    let first = group.agreed(&[]);
    group.join(Plan { redis: format!("redis://{}", proxy.address), ..plan }.start());
    group.agreed(&[]);
    proxy.lead(To::Tcp(SocketAddr::from(([127, 0, 0, 1], free_port()))));
    group.until_said(&[1], "tokens are served from memory");
    let up = |group: &Group, at: usize| group.members[at].node.connect().stat("", "shared_state_up");
    assert_eq!([up(&group, 0).as_deref(), up(&group, 1).as_deref()], [Some("1"), Some("0")]);
    let age_s = |group: &Group| group.members[1].node.connect().stat("", "shared_state_age_s")?.parse::<u64>().ok();
    group.until("its picture to be seconds old", |group| age_s(group).is_some_and(|age_s| age_s >= 2));
    group.kill_tokens_and_tell(0);
    group.until("the next token", |group| group.members[0].last.as_ref().is_some_and(|token| *token != first));
    assert_eq!(group.members[1].last.as_ref(), Some(&first));
    proxy.lead(To::Unix(redis.socket()));
    group.agreed(&[&first]);
    assert_eq!(calls(&wechat), 2);
    group.until("a picture that is fresh", |group| up(group, 1).as_deref() == Some("1") && age_s(group) == Some(0));
}

/// Fault 61.
#[test]
#[ignore = "needs redis-server"]
fn a_flushed_redis_is_filled_again_without_a_call_or_a_miss() {
    let wechat = Wechat::start();
    let redis = Redis::start(&[]);
    let plan = Plan::new(&wechat, &redis.url(), CLASSIC);
    let mut group = Group::start(&wechat, &plan, 3);
    let token = group.agreed(&[]);
    group.forget();
    wait_for_value(&redis);
    redis.ask::<()>(&["FLUSHALL"]);
    group.until("the value in the Redis", |_| field(&redis, "value").is_some());
    group.never_failed();
    group.join(plan.start());
    assert_eq!((group.agreed(&[]), calls(&wechat)), (token, 1));
}
