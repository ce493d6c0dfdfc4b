//! The store in a real Redis: all nodes see what one node changes, whatever happens to the connection and the server.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use tokencached::cluster::StoreOptions;
use tokencached::cluster::record::{Op, OpOutcome, Record};
use tokencached::cluster::redis::RedisStore;
use tokencached::cluster::{
    ClusterEvent, ClusterStore, NodeId, RefreshReason, StoreAnswer, StoreClockReading, Unreachable, WatchedRecord,
};
use tokencached::redis_client::options::RedisAt;
use tokencached::secret::Secret;
use tokencached::secret_source::SecretSource;
use tokio::runtime::Runtime;
use tokio::sync::{mpsc, oneshot};
use tokio_util::sync::CancellationToken;

use crate::record_rules::RecordRules;
use crate::support::TIMEOUT;
use crate::support::redis::{Redis, free_port, server};

/// What a poll can find long before a test gives up, and what none finds within a test.
const OFTEN_MS: u64 = 100;
const NEVER_MS: u64 = 3_600_000;
const PREFIX: &str = "tc";

fn state(redis: &Redis, poll_every_ms: u64) -> StoreOptions {
    let server = server(RedisAt::Unix(redis.socket()));
    let sealing = SecretSource::Fixed(Secret::new("a secret for tests only".into()));
    StoreOptions { server, sealing, prefix: PREFIX.into(), poll_every_ms, node: "here".into() }
}

/// A node's access to the cluster store: asks, and sees what comes.
struct Node {
    runtime: Runtime,
    store: Arc<RedisStore>,
    id: NodeId,
    events: mpsc::Receiver<ClusterEvent>,
    end: CancellationToken,
}

impl Drop for Node {
    fn drop(&mut self) {
        self.end.cancel();
    }
}

impl Node {
    fn watching(state: &StoreOptions, tags: &[&str], renews: bool) -> Node {
        static IDS: AtomicU64 = AtomicU64::new(u64::MAX - 1_000_000);
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
        let id = IDS.fetch_add(1, Ordering::Relaxed);
        let store = RedisStore::new(state, id);
        let of = |tag: &&str| WatchedRecord { tag: Arc::from(*tag), app: "wx1".into(), kind: "access_token", renews };
        let watched: Arc<[WatchedRecord]> = tags.iter().map(of).collect();
        let ((sender, events), end) = (mpsc::channel(16), CancellationToken::new());
        runtime.spawn(store.clone().watch(watched, sender, end.clone()));
        Node { runtime, store, id, events, end }
    }

    fn try_ask(&self, tag: &str, op: Op) -> Result<StoreAnswer, Unreachable> {
        self.runtime.block_on(self.store.ask(tag, op))
    }

    #[track_caller]
    fn ask(&self, tag: &str, op: Op) -> StoreAnswer {
        self.try_ask(tag, op).unwrap()
    }

    /// Publishes the next value, as a node does that has asked WeChat.
    #[track_caller]
    fn publish(&self, tag: &str) -> StoreAnswer {
        let take =
            self.ask(tag, Op::Take { node: self.id, lease_ms: 10_000, known_generation: u64::MAX, spacing_ms: 0 });
        assert_eq!(take.outcome, OpOutcome::Done);
        let (epoch, generation) = (take.record.epoch, take.record.generation + 1);
        let announced = self.ask(tag, Op::Announce { node: self.id, epoch, need_ms: 100 });
        assert_eq!(announced.outcome, OpOutcome::Done);
        let value = format!("sealed {generation}").into();
        let (node, calls) = (self.id, Some(Arc::from("{}")));
        let publish = Op::Publish { node, epoch, generation, value, calls, minted: true, keep_ms: 0 };
        let published = self.ask(tag, publish);
        assert_eq!(published.outcome, OpOutcome::Done);
        published
    }

    /// The next event that is wanted; others are skipped.
    #[track_caller]
    fn next<T>(&mut self, what: &str, mut wanted: impl FnMut(ClusterEvent) -> Option<T>) -> T {
        let events = &mut self.events;
        let waiting = async {
            loop {
                let next = events.recv().await.unwrap();
                if let Some(found) = wanted(next) {
                    return found;
                }
            }
        };
        let found = self.runtime.block_on(async { tokio::time::timeout(TIMEOUT, waiting).await });
        found.unwrap_or_else(|_| panic!("waited in vain for {what}"))
    }

    #[track_caller]
    fn sees(&mut self, index: usize, what: &str, wanted: impl Fn(&Record) -> bool) -> (Record, StoreClockReading) {
        self.next(what, |event| match event {
            ClusterEvent::RecordChanged { index: at, record, clock_reading } if at == index && wanted(&record) => {
                Some((record, clock_reading))
            }
            _ => None,
        })
    }

    #[track_caller]
    fn sees_generation(&mut self, index: usize, generation: u64) -> StoreClockReading {
        self.sees(index, &format!("generation {generation}"), |record| record.generation == generation).1
    }

    /// All of so many, in whatever order, as wanted.
    #[track_caller]
    fn sees_all(&mut self, many: usize, wanted: impl Fn(&Record) -> bool) {
        let mut missing: std::collections::HashSet<usize> = (0..many).collect();
        self.next("all records", |event| {
            if let ClusterEvent::RecordChanged { index, record, .. } = event
                && wanted(&record)
            {
                missing.remove(&index);
            }
            missing.is_empty().then_some(())
        });
    }

    #[track_caller]
    fn is_unreachable(&mut self) -> Unreachable {
        self.next("it to be out of reach", |event| match event {
            ClusterEvent::Reachable(reachable) => reachable.err(),
            _ => None,
        })
    }

    #[track_caller]
    fn is_reachable(&mut self) {
        self.next("it to be within reach", |event| matches!(event, ClusterEvent::Reachable(Ok(()))).then_some(()));
    }
}

/// Waits until so many connections listen to that channel.
#[track_caller]
fn wait_for_listeners(redis: &Redis, channel: &str, count: u64) {
    let channel = format!("{{{PREFIX}}}:{channel}");
    crate::support::wait_for("listeners", || {
        let (_, heard): (String, u64) = redis.ask(&["PUBSUB", "NUMSUB", &channel]);
        (heard == count).then_some(())
    });
}

fn calls(redis: &Redis, command: &str) -> u64 {
    calls_of(redis, [command])[0]
}

/// How often each of these has been called, by one look.
fn calls_of<const N: usize>(redis: &Redis, commands: [&str; N]) -> [u64; N] {
    let text: String = redis.ask(&["INFO", "commandstats"]);
    commands.map(|command| {
        let line = text.lines().find_map(|line| line.strip_prefix(&format!("cmdstat_{command}:calls=")));
        line.map_or(0, |rest| rest.split(',').next().unwrap().parse().unwrap())
    })
}

#[test]
#[ignore = "needs redis-server"]
fn what_one_node_publishes_another_hears_at_once() {
    let redis = Redis::start(&[]);
    let one = Node::watching(&state(&redis, NEVER_MS), &[], true);
    let mut other = Node::watching(&state(&redis, NEVER_MS), &["t0", "t1"], false);
    other.is_reachable();
    other.sees_all(2, RecordRules::is_blank);
    wait_for_listeners(&redis, "news", 2);
    let published = one.publish("t1");
    let (record, clock_reading) = other.sees(1, "the value", |record| record.value.is_some());
    assert_eq!(record, published.record);
    assert_eq!(record.unsettled, None);
    // Both nodes run under one boot clock, so an instant of the store's is the same on both, and never too late.
    let (here, there) =
        (clock_reading.to_boot_ms(published.clock_reading.store_ms), published.clock_reading.received_ms);
    assert!(here <= there, "{here} {there}");
    // Told by a message of that very moment, or found by the look around after the connection was made.
    assert!(clock_reading.store_ms >= published.clock_reading.store_ms);
    // An announcement is an event too: followers know that the value may be dead.
    one.ask("t1", Op::Doubt { generation: 1 });
    other.sees(1, "the doubt", |record| record.unsettled.is_some_and(|open| open.by == 0));
    assert_eq!(calls(&redis, "publish"), 3);
}

#[test]
#[ignore = "needs redis-server"]
fn without_messages_changes_are_found_by_polling_and_messages_come_back() {
    let redis = Redis::start(&[]);
    let one = Node::watching(&state(&redis, NEVER_MS), &[], true);
    let mut other = Node::watching(&state(&redis, OFTEN_MS), &["t0"], false);
    other.sees_all(1, RecordRules::is_blank);
    wait_for_listeners(&redis, "news", 2);
    // The server no longer lets anybody listen.
    let _: () = redis.ask(&["ACL", "SETUSER", "default", "resetchannels"]);
    let _: u64 = redis.ask(&["CLIENT", "KILL", "TYPE", "pubsub"]);
    for generation in 1..4 {
        one.publish("t0");
        other.sees_generation(0, generation);
    }
    let _: () = redis.ask(&["ACL", "SETUSER", "default", "allchannels"]);
    wait_for_listeners(&redis, "news", 2);
    one.publish("t0");
    other.sees_generation(0, 4);
}

#[test]
#[ignore = "needs redis-server"]
fn a_connection_that_listens_is_made_again_when_it_is_killed() {
    let redis = Redis::start(&[]);
    let one = Node::watching(&state(&redis, NEVER_MS), &[], true);
    let mut other = Node::watching(&state(&redis, NEVER_MS), &["t0"], false);
    other.sees_all(1, RecordRules::is_blank);
    wait_for_listeners(&redis, "news", 2);
    let killed: u64 = redis.ask(&["CLIENT", "KILL", "TYPE", "pubsub"]);
    assert_eq!(killed, 2);
    // Whether it is heard or found when the connection is back: it comes, though nobody polls by himself.
    one.publish("t0");
    other.sees_generation(0, 1);
    wait_for_listeners(&redis, "news", 2);
    one.publish("t0");
    other.sees_generation(0, 2);
}

#[test]
#[ignore = "needs redis-server"]
fn a_redis_that_comes_back_empty_is_noticed_and_so_is_one_that_is_emptied() {
    let mut redis = Redis::start(&[]);
    let mut node = Node::watching(&state(&redis, OFTEN_MS), &["t0", "t1", "t2"], true);
    node.sees_all(3, RecordRules::is_blank);
    for _ in 0..2 {
        node.publish("t0");
        node.publish("t1");
        node.sees_generation(1, 1);
        // Blank for nodes that have never heard of these, and for those that have.
        let _: () = redis.ask(&["FLUSHALL"]);
        node.sees_all(3, RecordRules::is_blank);
    }
    node.publish("t1");
    node.sees_generation(1, 1);
    redis.kill();
    let unreachable = node.is_unreachable();
    assert!(!unreachable.text.is_empty() && !unreachable.advice.is_empty());
    let refused = node.try_ask("t1", Op::Read).unwrap_err();
    assert!(!refused.unknown, "it was never sent: {refused}");
    redis.start_again();
    node.is_reachable();
    node.sees_all(3, RecordRules::is_blank);
    node.publish("t2");
    node.sees_generation(2, 1);
}

#[test]
#[ignore = "needs redis-server"]
fn one_that_was_emptied_and_filled_again_between_two_looks_is_noticed() {
    let redis = Redis::start(&[]);
    let one = Node::watching(&state(&redis, NEVER_MS), &[], true);
    let mut other = Node::watching(&state(&redis, NEVER_MS), &["t0", "t1"], false);
    other.sees_all(2, RecordRules::is_blank);
    wait_for_listeners(&redis, "news", 2);
    one.publish("t0");
    other.sees_generation(0, 1);
    let _: () = redis.ask(&["FLUSHALL"]);
    (0..3).for_each(|_| drop(one.publish("t1")));
    other.sees(0, "that the first is gone", RecordRules::is_blank);
    other.sees_generation(1, 3);
}

#[test]
#[ignore = "needs redis-server"]
fn a_redis_that_hangs_is_out_of_reach_until_it_goes_on() {
    let redis = Redis::start(&[]);
    let mut node = Node::watching(&state(&redis, OFTEN_MS), &["t0"], true);
    node.sees_all(1, RecordRules::is_blank);
    let one = Node::watching(&state(&redis, NEVER_MS), &[], false);
    one.ask("t0", Op::Read);
    redis.signal("STOP");
    let lost = one.try_ask("t0", Op::Doubt { generation: 0 }).unwrap_err();
    node.is_unreachable();
    let refused = node.try_ask("t0", Op::Read).unwrap_err();
    assert!(!refused.text.contains("redis.sock"), "{refused}");
    redis.signal("CONT");
    node.is_reachable();
    assert!(lost.unknown, "{lost:?}");
    node.sees(0, "what was asked while it hung", |record| record.unsettled.is_some());
    node.publish("t0");
    node.sees_generation(0, 1);
}

#[test]
#[ignore = "needs redis-server"]
fn a_master_that_became_a_replica_is_of_no_use_until_it_is_one_again() {
    let port = free_port().to_string();
    let master = Redis::start(&["--port", &port, "--bind", "127.0.0.1"]);
    let redis = Redis::start(&["--repl-diskless-sync-delay", "0"]);
    let mut node = Node::watching(&state(&redis, OFTEN_MS), &["t0", "t1"], true);
    node.publish("t0");
    node.sees_generation(0, 1);
    let _: () = redis.ask(&["REPLICAOF", "127.0.0.1", &port]);
    node.is_unreachable();
    let refused = node.try_ask("t0", Op::Doubt { generation: 1 }).unwrap_err();
    assert!(!refused.unknown, "{refused}");
    let _: () = redis.ask(&["REPLICAOF", "NO", "ONE"]);
    node.is_reachable();
    // Its master had nothing, if it came as far as that; in any case all is read again.
    node.sees_all(2, |_| true);
    node.publish("t1");
    node.sees_generation(1, 1);
    drop(master);
}

#[test]
#[ignore = "needs redis-server"]
fn rubbish_in_a_record_counts_as_absent_and_goes_with_the_next_write() {
    let redis = Redis::start(&[]);
    let key = |name: &str| format!("{{{PREFIX}}}:{name}");
    let _: u64 = redis.ask(&["HSET", &key("r:t0"), "epoch", "many", "generation", "7", "value", "v", "open_by", "x"]);
    let _: () = redis.ask(&["SET", &key("r:t1"), "not even a record"]);
    let _: () = redis.ask(&["SET", &key("changes"), "rubbish"]);
    let _: () = redis.ask(&["SET", &key("seq"), "rubbish"]);
    let mut node = Node::watching(&state(&redis, OFTEN_MS), &["t0", "t1"], true);
    let (record, _) = node.sees(0, "the record", |_| true);
    assert_eq!((record.epoch, record.unsettled, record.generation), (0, None, 7));
    node.sees(1, "the other", RecordRules::is_blank);
    node.publish("t0");
    node.sees_generation(0, 8);
    node.publish("t1");
    node.sees_generation(1, 1);
    let epoch: String = redis.ask(&["HGET", &key("r:t0"), "epoch"]);
    assert_eq!(epoch, "1");
    let open: Option<String> = redis.ask(&["HGET", &key("r:t0"), "open_by"]);
    assert_eq!(open, None);
    // A number that would make all later changes look older.
    let _: u64 = redis.ask(&["HSET", &key("r:t1"), "seq", "999999999999999"]);
    let _: u64 = redis.ask(&["CLIENT", "KILL", "TYPE", "normal"]);
    node.sees(1, "the record", |record| record.generation == 1);
    node.publish("t1");
    node.sees_generation(1, 2);
    for payload in ["", "[]", "{\"id\":1}", "[\"t0\",\"1\",\"x\",\"2\",1,1,1,1,1,1,1,1,1,1,1,1]"] {
        for channel in ["news", "wishes", &format!("ends:{}", node.id)] {
            let _: u64 = redis.ask(&["PUBLISH", &key(channel), payload]);
        }
    }
    node.publish("t0");
    node.sees_generation(0, 9);
}

#[test]
#[ignore = "needs redis-server"]
fn a_wish_goes_to_one_node_and_its_end_comes_back_after_what_it_has_brought() {
    let redis = Redis::start(&[]);
    let mut renewing: Vec<Node> =
        (0..3).map(|_| Node::watching(&state(&redis, NEVER_MS), &["t0", "t1"], true)).collect();
    let mut asking = Node::watching(&state(&redis, NEVER_MS), &["t1"], false);
    asking.sees_all(1, RecordRules::is_blank);
    wait_for_listeners(&redis, "wishes", 3);
    wait_for_listeners(&redis, "news", 4);
    for round in 1..4 {
        let (store, (sender, mut over)) = (asking.store.clone(), oneshot::channel());
        asking.runtime.spawn(async move {
            let _ = sender.send(store.request_refresh("t1", Some(round), RefreshReason::ForeignWriter).await);
        });
        let granted = grant(&mut renewing, round);
        assert!(over.try_recv().is_err(), "it is not over yet");
        renewing[granted.0].publish("t1");
        drop(granted.1);
        asking.runtime.block_on(async { tokio::time::timeout(TIMEOUT, over).await }).unwrap().unwrap().unwrap();
        let seen = std::iter::from_fn(|| asking.events.try_recv().ok());
        let generations = seen.filter_map(|event| match event {
            ClusterEvent::RecordChanged { record, .. } => Some(record.generation),
            _ => None,
        });
        assert_eq!(generations.max(), Some(round), "the value was here before the end of the request");
    }
    // Three have tried for each, the last of them perhaps when it was over.
    crate::support::wait_for("three attempts at each", || (calls(&redis, "set") == 9).then_some(()));
    for node in &mut renewing {
        while let Ok(event) = node.events.try_recv() {
            assert!(!matches!(event, ClusterEvent::RefreshRequested { .. }), "nobody else has got one");
        }
    }
}

/// Which of these nodes has got the request of that round.
#[track_caller]
fn grant(nodes: &mut [Node], round: u64) -> (usize, oneshot::Sender<()>) {
    crate::support::wait_for("the request", || {
        nodes.iter_mut().enumerate().find_map(|(at, node)| match node.events.try_recv() {
            Ok(ClusterEvent::RefreshRequested { index: 1, generation, why: RefreshReason::ForeignWriter, done })
                if generation == Some(round) =>
            {
                Some((at, done))
            }
            Ok(ClusterEvent::RefreshRequested { .. }) => panic!("another request than was made"),
            _ => None,
        })
    })
}

#[test]
#[ignore = "needs redis-server"]
fn a_wish_that_nobody_can_grant_fails_at_once() {
    let redis = Redis::start(&[]);
    let mut asking = Node::watching(&state(&redis, NEVER_MS), &["t0"], false);
    asking.sees_all(1, RecordRules::is_blank);
    wait_for_listeners(&redis, "news", 1);
    let request = |node: &Node| node.runtime.block_on(node.store.request_refresh("t0", None, RefreshReason::Renew));
    let nobody = request(&asking).unwrap_err();
    assert!(nobody.text.contains("no node that may call WeChat") && !nobody.unknown, "{nobody}");
    // One that renews others than this.
    let _other = Node::watching(&state(&redis, NEVER_MS), &["t9"], true);
    wait_for_listeners(&redis, "wishes", 1);
    assert!(request(&asking).is_err_and(|nobody| !nobody.unknown));
}

#[test]
#[ignore = "needs redis-server"]
fn a_wish_is_over_when_nobody_can_tell_its_end_any_more() {
    let mut redis = Redis::start(&[]);
    let mut renewing = Node::watching(&state(&redis, OFTEN_MS), &["t0"], true);
    let asking = Node::watching(&state(&redis, OFTEN_MS), &["t0"], false);
    wait_for_listeners(&redis, "wishes", 1);
    wait_for_listeners(&redis, "news", 2);
    let (store, (sender, over)) = (asking.store.clone(), oneshot::channel());
    asking.runtime.spawn(async move {
        let _ = sender.send(store.request_refresh("t0", None, RefreshReason::Report).await);
    });
    let _done = renewing.next("the request", |event| match event {
        ClusterEvent::RefreshRequested { done, .. } => Some(done),
        _ => None,
    });
    redis.kill();
    let over = asking.runtime.block_on(async { tokio::time::timeout(TIMEOUT, over).await }).unwrap().unwrap();
    assert!(over.is_err_and(|lost| lost.unknown));
}

#[test]
#[ignore = "needs redis-server"]
fn twenty_thousand_records_are_brought_and_cost_one_question_a_poll() {
    const MANY: usize = 20_000;
    let redis = Redis::start(&[]);
    let tags: Vec<String> = (0..MANY).map(|at| format!("t{at}")).collect();
    let tags: Vec<&str> = tags.iter().map(String::as_str).collect();
    let one = Node::watching(&state(&redis, NEVER_MS), &[], true);
    one.publish("t19999");
    let mut node = Node::watching(&state(&redis, OFTEN_MS), &tags, false);
    node.sees_all(MANY, |_| true);
    wait_for_listeners(&redis, "news", 2);
    let look = || calls_of(&redis, ["zrangebyscore", "time", "hmget", "del"]);
    let begun = look();
    let ended = crate::support::wait_for("ten polls", || Some(look()).filter(|now| now[0] >= begun[0] + 10));
    // Of each poll these four, sent at once, and nothing else: no record is read again.
    let polls = ended[0] - begun[0];
    for (begun, ended) in begun.iter().zip(ended) {
        assert!((ended - begun).abs_diff(polls) <= 1, "{begun} {ended} in {polls} polls");
    }
    one.publish("t7");
    node.sees_generation(7, 1);
}

#[test]
#[ignore = "needs redis-server"]
fn a_slow_reader_loses_nothing_and_the_redis_notices_nothing_of_it() {
    const MANY: usize = 2_000;
    let redis = Redis::start(&[]);
    let tags: Vec<String> = (0..MANY).map(|at| format!("t{at}")).collect();
    let tags: Vec<&str> = tags.iter().map(String::as_str).collect();
    let one = Node::watching(&state(&redis, NEVER_MS), &[], true);
    let mut node = Node::watching(&state(&redis, OFTEN_MS), &tags, false);
    node.sees_all(MANY, |_| true);
    wait_for_listeners(&redis, "news", 2);
    // Nothing is taken while all of them change.
    tags.iter().for_each(|tag| drop(one.publish(tag)));
    let polls = || calls(&redis, "zrangebyscore");
    let begun = polls();
    crate::support::wait_for("polls", || (polls() >= begun + 2).then_some(()));
    wait_for_listeners(&redis, "news", 2);
    node.sees_all(MANY, |record| record.generation == 1 && record.unsettled.is_none());
}

#[test]
#[ignore = "needs redis-server"]
fn a_user_with_these_rights_and_no_others_suffices() {
    let redis = Redis::start(&[]);
    let rules = ["on", ">word", "resetkeys", "~{tc}:*", "resetchannels", "&{tc}:*", "-@all"];
    let user: Vec<&str> = ["ACL", "SETUSER", "node"].into_iter().chain(rules).chain(RIGHTS.iter().copied()).collect();
    let _: () = redis.ask(&user);
    let mut state = state(&redis, OFTEN_MS);
    state.server.user = Some("node".into());
    state.server.password = Some(SecretSource::Fixed(Secret::new("word".into())));
    let mut renewing = Node::watching(&state, &["t0"], true);
    let mut asking = Node::watching(&state, &["t0"], false);
    asking.sees_all(1, RecordRules::is_blank);
    wait_for_listeners(&redis, "wishes", 1);
    wait_for_listeners(&redis, "news", 2);
    let (store, (sender, over)) = (asking.store.clone(), oneshot::channel());
    asking.runtime.spawn(async move {
        let _ = sender.send(store.request_refresh("t0", None, RefreshReason::Probe).await);
    });
    let done = renewing.next("the request", |event| match event {
        ClusterEvent::RefreshRequested { done, .. } => Some(done),
        _ => None,
    });
    renewing.publish("t0");
    done.send(()).unwrap();
    asking.sees_generation(0, 1);
    asking.runtime.block_on(async { tokio::time::timeout(TIMEOUT, over).await }).unwrap().unwrap().unwrap();
    let denied: Vec<redis::Value> = redis.ask(&["ACL", "LOG"]);
    assert!(denied.is_empty(), "{denied:?}");
}

/// What docs/en/cluster.md names.
const RIGHTS: &[&str] = &[
    "+ping",
    "+role",
    "+exists",
    "+time",
    "+evalsha",
    "+eval",
    "+hmget",
    "+hget",
    "+hset",
    "+hdel",
    "+hincrby",
    "+expire",
    "+zadd",
    "+zrangebyscore",
    "+set",
    "+del",
    "+publish",
    "+subscribe",
];
