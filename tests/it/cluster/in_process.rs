//! Several refreshers on one store in memory, against the simulated WeChat API over real connections: who calls, who
//! follows, and what becomes of it when the store or a node fails.

use std::cell::Cell;
use std::sync::Arc;

use tokencached::clock::{Clock, Now, SystemClock, boot_ms};
use tokencached::cluster::record::{Record, UnsettledCall};
use tokencached::cluster::seal::{PublishedValue, Seal};
use tokencached::credential::App;
use tokencached::credential::facts::CallOutcome;
use tokencached::credential::table::{Credential, CredentialState, Table};
use tokencached::credential::{self, ClusterMembership, Env, state};
use tokencached::platform::{CredentialType, mp};
use tokencached::sandbox::{Endpoint, FaultKind, InjectedFault, Options, RecordedCall, Sandbox, Verdict};
use tokencached::secret::Secret;
use tokencached::secret_source::SecretSource;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use crate::refresher::{app, sandbox, token, until, upstream};
use crate::support::memory_store::MemoryStore;

const SEALED_WITH: &str = "what these nodes seal with";

/// One refresher of several.
struct Node {
    table: Arc<Table>,
    stop: CancellationToken,
    running: JoinHandle<()>,
}

impl Node {
    fn start(sandbox: &Sandbox, store: &Arc<MemoryStore>, app: App, name: u64) -> Node {
        Node::with_secret(sandbox, store, app, name, SEALED_WITH)
    }

    fn with_secret(sandbox: &Sandbox, store: &Arc<MemoryStore>, app: App, name: u64, secret: &str) -> Node {
        let ground = Env::real(&upstream(&sandbox.base_url())).unwrap();
        Node::on(ground, sandbox, store, app, name, secret)
    }

    fn on(ground: Env, sandbox: &Sandbox, store: &Arc<MemoryStore>, app: App, name: u64, secret: &str) -> Node {
        let upstream = upstream(&sandbox.base_url());
        let (shared, secret) = (store.clone(), Secret::new(secret.to_owned()));
        let joined = ClusterMembership { shared, secret, name: format!("node-{name}"), node: name };
        let (table, refresher) = credential::build_in(Env { cluster: Some(joined), ..ground }, &upstream, &[app]);
        let stop = CancellationToken::new();
        let running = tokio::spawn(refresher.run(stop.clone()));
        Node { table, stop, running }
    }

    fn credential(&self) -> Arc<Credential> {
        self.table.credentials()[0].clone()
    }

    fn token(&self) -> Option<String> {
        token(&self.credential())
    }

    /// Counted from the first one that this test has seen; 0 without a value.
    fn generation(&self) -> u64 {
        let Some(published) = self.credential().published() else { return 0 };
        FIRST.set(FIRST.get().min(published.generation));
        published.generation - FIRST.get() + 1
    }

    async fn stop(self) {
        self.stop.cancel();
        self.running.await.unwrap();
    }

    async fn kill(self) {
        self.running.abort();
        let _ = self.running.await;
    }
}

thread_local! {
    /// The lowest generation seen since the last store was made: each test runs on a thread of its own.
    static FIRST: Cell<u64> = const { Cell::new(u64::MAX) };
}

fn memory() -> Arc<MemoryStore> {
    FIRST.set(u64::MAX);
    MemoryStore::new(Arc::new(SystemClock))
}

fn group(sandbox: &Sandbox, store: &Arc<MemoryStore>, kind: &'static CredentialType, count: u64) -> Vec<Node> {
    (1..=count).map(|name| Node::start(sandbox, store, app("wx1", kind), name)).collect()
}

/// All have the same live value, of that generation or later.
async fn agreed(nodes: &[Node], generation: u64) -> String {
    let same = || {
        let tokens: Vec<Option<String>> = nodes.iter().map(Node::token).collect();
        tokens.iter().all(|token| token.is_some() && *token == tokens[0])
            && nodes.iter().all(|node| node.generation() >= generation)
    };
    until("one value everywhere", same).await;
    nodes[0].token().unwrap()
}

/// The one record there is, with its tag.
fn tag(sandbox: &Sandbox, kind: &CredentialType) -> String {
    let name = state::CredentialIdentity::of(kind, "wx1", &sandbox.base_url());
    format!("{}:{}:{}", name.endpoint, name.appid, name.base)
}

fn brisk() -> Options {
    Options { lifetime_s: 6, stable_window_ms: Some(3_000), overlap_ms: Some(2_000), ..Options::default() }
}

/// Calls that ask for a token.
fn calls(sandbox: &Sandbox) -> u64 {
    let calls = sandbox.calls("wx1");
    calls.of(Endpoint::Token) + calls.of(Endpoint::StableToken)
}

/// Fault 58: many nodes boot at once.
#[tokio::test]
async fn fifty_nodes_that_boot_at_once_make_one_call() {
    for kind in [&mp::CLASSIC, &mp::STABLE] {
        let (sandbox, store) = (sandbox(Options::default()).await, memory());
        let nodes = group(&sandbox, &store, kind, 50);
        let token = agreed(&nodes, 1).await;
        assert_eq!(sandbox.judge(&token), Verdict::Accepted);
        assert_eq!(calls(&sandbox), 1, "{}", kind.id);
        for node in nodes {
            node.stop().await;
        }
    }
}

#[tokio::test]
#[ignore = "waits for real time"]
async fn one_renews_and_the_others_follow_without_a_miss() {
    for kind in [&mp::CLASSIC, &mp::STABLE] {
        let (sandbox, store) = (sandbox(brisk()).await, memory());
        let nodes = group(&sandbox, &store, kind, 3);
        agreed(&nodes, 1).await;
        let (mut misses, mut refused) = (0, 0);
        until("four renewals", || {
            for node in &nodes {
                match node.token() {
                    None => misses += 1,
                    Some(token) => refused += usize::from(sandbox.judge(&token) != Verdict::Accepted),
                }
            }
            nodes.iter().all(|node| node.generation() >= 5)
        })
        .await;
        assert_eq!((misses, refused), (0, 0), "{}", kind.id);
        let minted = nodes.iter().map(Node::generation).max().unwrap();
        if kind == &mp::CLASSIC {
            assert_eq!(calls(&sandbox), minted, "each call has made the token that all serve");
        }
        for node in nodes {
            node.stop().await;
        }
    }
}

#[tokio::test]
#[ignore = "waits for real time"]
async fn whoever_renews_may_be_killed() {
    let (sandbox, store) = (sandbox(brisk()).await, memory());
    let mut nodes = group(&sandbox, &store, &mp::CLASSIC, 3);
    let mut generation = 1;
    while nodes.len() > 1 {
        agreed(&nodes, generation).await;
        let ours = |node: &Node| node.credential().status(boot_ms()).outcomes.count(CallOutcome::New) > 0;
        let renewed = nodes.iter().position(ours).unwrap_or(0);
        nodes.remove(renewed).kill().await;
        generation += 1;
    }
    let token = agreed(&nodes, generation).await;
    assert_eq!(sandbox.judge(&token), Verdict::Accepted);
    assert_eq!(calls(&sandbox), nodes[0].generation(), "nobody has called beside another");
}

/// Fault 54: the store is down at boot.
#[tokio::test]
async fn without_the_store_a_stable_token_is_fetched_and_a_classic_one_is_not() {
    let (sandbox, store) = (sandbox(Options::default()).await, memory());
    store.set_down(true);
    let stable = Node::start(&sandbox, &store, app("wx1", &mp::STABLE), 1);
    until("a stable token", || stable.token().is_some()).await;
    let before = calls(&sandbox);
    let classic = Node::start(&sandbox, &store, app("wx1", &mp::CLASSIC), 2);
    until("a refusal", || classic.credential().status(boot_ms()).failures > 1).await;
    let status = classic.credential().status(boot_ms());
    assert_eq!((calls(&sandbox), classic.token()), (before, None));
    assert!(status.last_error.unwrap().text.contains("out of reach"));
    store.set_down(false);
    until("a classic token", || classic.token().is_some()).await;
}

/// Only the last one to renew goes alone, near the end, and only if WeChat still takes the token: then nobody else has
/// renewed it.
#[tokio::test]
#[ignore = "waits for real time"]
async fn with_the_store_gone_the_last_one_to_renew_goes_alone_and_the_others_never() {
    let (sandbox, store) = (sandbox(brisk()).await, memory());
    let nodes = group(&sandbox, &store, &mp::CLASSIC, 3);
    agreed(&nodes, 1).await;
    store.set_down(true);
    until("a renewal by one", || nodes.iter().any(|node| node.generation() > 1)).await;
    until("the end of the others' token", || nodes.iter().filter(|node| node.token().is_none()).count() == 2).await;
    let alone: Vec<&Node> = nodes.iter().filter(|node| node.token().is_some()).collect();
    assert_eq!(calls(&sandbox), alone[0].generation());
    store.set_down(false);
    let token = agreed(&nodes, 2).await;
    assert_eq!(sandbox.judge(&token), Verdict::Accepted);
}

/// Fault 61: the store is wiped.
#[tokio::test]
async fn a_wiped_store_is_filled_from_memory_without_a_call() {
    let (sandbox, store) = (sandbox(Options::default()).await, memory());
    let nodes = group(&sandbox, &store, &mp::CLASSIC, 3);
    let token = agreed(&nodes, 1).await;
    let tag = tag(&sandbox, &mp::CLASSIC);
    assert!(store.record(&tag).value.is_some());
    store.flush();
    until("the record", || store.record(&tag).value.is_some()).await;
    let fourth = Node::start(&sandbox, &store, app("wx1", &mp::CLASSIC), 4);
    until("a value from the store", || fourth.token().is_some()).await;
    assert_eq!((fourth.token().unwrap(), fourth.generation(), calls(&sandbox)), (token, 1, 1));
}

/// Fault 62: somebody writes to the store.
#[tokio::test]
async fn a_tampered_value_is_not_served_and_is_replaced_from_memory() {
    let (sandbox, store) = (sandbox(Options::default()).await, memory());
    let nodes = group(&sandbox, &store, &mp::CLASSIC, 2);
    let token = agreed(&nodes, 1).await;
    let tag = tag(&sandbox, &mp::CLASSIC);
    let mut record = store.record(&tag);
    let ours = record.generation;
    let forged = ours + 8;
    (record.generation, record.value) = (forged, Some("STOLEN".into()));
    store.put(&tag, record);
    until("a good value", || store.record(&tag).generation == ours && store.record(&tag).value.is_some()).await;
    assert_eq!(agreed(&nodes, 1).await, token);
    assert_eq!((calls(&sandbox), nodes[0].generation()), (1, 1), "what is counted is what values say themselves");
}

#[tokio::test]
#[ignore = "waits for real time"]
async fn a_node_with_another_secret_serves_nothing_of_theirs_and_says_so() {
    let (sandbox, store) = (sandbox(Options::default()).await, memory());
    let good = Node::start(&sandbox, &store, app("wx1", &mp::STABLE), 1);
    until("a value", || good.token().is_some()).await;
    let bad = Node::with_secret(&sandbox, &store, app("wx1", &mp::STABLE), 2, "another secret altogether");
    until("a value", || bad.token().is_some()).await;
    assert_eq!(sandbox.judge(&bad.token().unwrap()), Verdict::Accepted);
    good.stop().await;
    bad.stop().await;
}

/// Each would take what the other publishes for rubbish, and call in its turn.
#[tokio::test]
#[ignore = "waits for real time"]
async fn a_node_with_another_secret_ends_nobodys_classic_token() {
    let (sandbox, store) = (sandbox(brisk()).await, memory());
    let good = Node::start(&sandbox, &store, app("wx1", &mp::CLASSIC), 1);
    until("a value", || good.token().is_some()).await;
    let bad = Node::with_secret(&sandbox, &store, app("wx1", &mp::CLASSIC), 2, "another secret altogether");
    let status = || bad.credential().status(boot_ms());
    until("a few renewals", || {
        assert!(good.token().is_some() && bad.token().is_none());
        good.generation() >= 4 && status().failures > 0
    })
    .await;
    assert_eq!(calls(&sandbox), good.generation(), "only the one has called");
    let error = status().last_error.unwrap();
    assert!(error.text.contains("sealed with another secret"), "{error:?}");
}

/// Fault 55: after a failover two nodes may have published the same generation.
#[tokio::test]
#[ignore = "waits for real time"]
async fn two_values_of_one_generation_are_settled_by_one_more_call() {
    let options = Options { overlap_ms: Some(20_000), lifetime_s: 60, ..Options::default() };
    let (sandbox, store) = (sandbox(options).await, memory());
    let nodes = group(&sandbox, &store, &mp::CLASSIC, 3);
    agreed(&nodes, 1).await;
    // What a lost lease does: a token is made elsewhere, under the same number.
    let (tag, elsewhere) = (tag(&sandbox, &mp::CLASSIC), memory());
    elsewhere.put(&tag, Record { generation: store.record(&tag).generation - 1, ..Record::default() });
    let other = Node::start(&sandbox, &elsewhere, app("wx1", &mp::CLASSIC), 9);
    until("the other's token", || other.token().is_some()).await;
    let before = calls(&sandbox);
    store.put(&tag, elsewhere.record(&tag));
    other.kill().await;
    let token = agreed(&nodes, 2).await;
    assert_eq!(sandbox.judge(&token), Verdict::Accepted);
    until("a settled record", || store.record(&tag).unsettled.is_none()).await;
    assert_eq!(calls(&sandbox), before + 1);
}

/// A node died between its call and the publication.
#[tokio::test]
async fn a_call_that_nobody_accounts_for_is_settled_by_one_more_within_the_overlap() {
    let options = Options { overlap_ms: Some(10_000), lifetime_s: 60, ..Options::default() };
    let (sandbox, store) = (sandbox(options).await, memory());
    let nodes = group(&sandbox, &store, &mp::CLASSIC, 3);
    agreed(&nodes, 1).await;
    let tag = tag(&sandbox, &mp::CLASSIC);
    let record = store.record(&tag);
    let epoch = record.epoch + 1;
    let open = Some(UnsettledCall { by: epoch, settled_by: epoch, at_ms: record.answered_ms });
    store.put(&tag, Record { epoch, holder: 77, until_ms: 1, unsettled: open, ..record });
    agreed(&nodes, 2).await;
    assert_eq!((store.record(&tag).unsettled, calls(&sandbox)), (None, 2));
}

/// Sites whose address is not on the allow-list have no secret.
#[tokio::test]
async fn a_node_without_a_secret_follows_and_its_report_is_looked_into_by_one_that_has_it() {
    let (sandbox, store) = (sandbox(Options::default()).await, memory());
    let renews = Node::start(&sandbox, &store, app("wx1", &mp::STABLE), 1);
    let absent = App { secret: SecretSource::Absent, ..app("wx1", &mp::STABLE) };
    let follows = Node::start(&sandbox, &store, absent, 2);
    until("the value", || follows.token().is_some() && follows.token() == renews.token()).await;
    let first = follows.token().unwrap();
    sandbox.kill_tokens("wx1");
    let done = follows.table.report_refused(&follows.credential(), None).unwrap();
    done.await.unwrap();
    let second = follows.token().unwrap();
    assert_ne!(first, second, "the answer is here when the report is over");
    assert_eq!(sandbox.judge(&second), Verdict::Accepted);
    assert_eq!(follows.credential().status(boot_ms()).calls, 0);
}

#[tokio::test]
#[ignore = "waits for real time"]
async fn calls_are_counted_for_all_nodes_together() {
    let (sandbox, store) = (sandbox(brisk()).await, memory());
    let nodes = group(&sandbox, &store, &mp::CLASSIC, 3);
    agreed(&nodes, 3).await;
    let counted = |node: &Node| node.credential().status(boot_ms()).calls_today;
    // Should midnight in UTC+8 fall into the test, the calls before it are yesterday's.
    let day = |unix_ms: i64| (unix_ms + 8 * 3_600_000).div_euclid(86_400_000);
    let made_today = || {
        let (calls, today) = (sandbox.calls("wx1"), day(tokencached::clock::unix_ms()));
        let is_counted = |call: &&RecordedCall| call.endpoint == Endpoint::Token && day(call.unix_ms) == today;
        calls.recent.iter().filter(is_counted).count() as u64
    };
    until("one count", || nodes.iter().all(|node| counted(node) == made_today())).await;
}

/// The platform's own word is the one that counts.
#[tokio::test]
async fn where_a_token_is_dead_and_the_count_says_that_nothing_is_left_the_platform_is_asked_itself() {
    let (sandbox, store) = (sandbox(Options::default()).await, memory());
    let limited = App { daily_quota: Some(1), ..app("wx1", &mp::CLASSIC) };
    let nodes: Vec<Node> = (1..3).map(|name| Node::start(&sandbox, &store, limited.clone(), name)).collect();
    let dead = agreed(&nodes, 1).await;
    sandbox.kill_tokens("wx1");
    nodes[0].table.report_refused(&nodes[0].credential(), None).unwrap().await.unwrap();
    until("another token", || nodes.iter().all(|node| node.token().is_some_and(|token| token != dead))).await;
    let token = agreed(&nodes, 2).await;
    assert_eq!((calls(&sandbox), sandbox.judge(&token)), (2, Verdict::Accepted));
}

/// With WeChat refusing, many nodes together call no more often than one.
#[tokio::test]
#[ignore = "waits for real time"]
async fn failures_put_all_nodes_off_together() {
    let (sandbox, store) = (sandbox(Options::default()).await, memory());
    sandbox.set_fault("wx1", InjectedFault::new(FaultKind::Errcode { errcode: -1, errmsg: "system error".into() }));
    let nodes = group(&sandbox, &store, &mp::CLASSIC, 10);
    let tag = tag(&sandbox, &mp::CLASSIC);
    until("a few failures", || store.record(&tag).failures >= 3).await;
    let record = store.record(&tag);
    assert_eq!(calls(&sandbox), record.failures);
    assert!(record.not_before_ms >= record.answered_ms + 4_000, "ever further apart: {record:?}");
    assert!(nodes.iter().all(|node| node.credential().status(boot_ms()).state != CredentialState::Fresh));
}

/// All nodes were down for longer than a token lives: what the store still has is over.
#[tokio::test]
#[ignore = "waits for real time"]
async fn what_is_over_in_the_store_keeps_nobody_from_asking() {
    for kind in [&mp::CLASSIC, &mp::STABLE] {
        let (sandbox, store) = (sandbox(Options { lifetime_s: 2, ..Options::default() }).await, memory());
        let nodes = group(&sandbox, &store, kind, 1);
        agreed(&nodes, 1).await;
        for node in nodes {
            node.kill().await;
        }
        let tag = tag(&sandbox, kind);
        let (old, seal) = (store.record(&tag), Seal::new(&Secret::new(SEALED_WITH.to_owned()), &tag));
        let ends_ms = seal.unseal(old.value.as_ref().unwrap()).unwrap().expires_ms;
        until("its end", || SystemClock.now().unix_ms.unsigned_abs() > ends_ms).await;
        let nodes = group(&sandbox, &store, kind, 2);
        assert_eq!(sandbox.judge(&agreed(&nodes, 2).await), Verdict::Accepted);
    }
}

/// The value that a store gives under a new number was sealed for another.
#[tokio::test]
async fn an_old_value_under_a_new_number_is_not_taken() {
    let (sandbox, store) = (sandbox(Options::default()).await, memory());
    let nodes = group(&sandbox, &store, &mp::CLASSIC, 1);
    let token = agreed(&nodes, 1).await;
    let tag = tag(&sandbox, &mp::CLASSIC);
    let seal = Seal::new(&Secret::new(SEALED_WITH.to_owned()), &tag);
    let mut record = store.record(&tag);
    let old = PublishedValue { value: "OLD".into(), ..seal.unseal(record.value.as_ref().unwrap()).unwrap() };
    let ours = record.generation;
    let forged = ours + 4;
    (record.generation, record.value) = (forged, seal.seal(&old));
    store.put(&tag, record);
    until("a good value", || store.record(&tag).generation == ours && store.record(&tag).value.is_some()).await;
    assert_eq!((nodes[0].token().unwrap(), calls(&sandbox)), (token, 1));
}

/// The machine's clocks, with the wall clock put forward or back.
struct Off {
    hours: i64,
}

impl Clock for Off {
    fn now(&self) -> Now {
        let now = SystemClock.now();
        Now { unix_ms: now.unix_ms + self.hours * 3_600_000, ..now }
    }
}

/// As with real nodes, but here all that a node ever asks for the time is off.
#[tokio::test]
#[ignore = "waits for real time"]
async fn nodes_whose_wall_clocks_differ_renew_for_each_other() {
    let (sandbox, store) = (sandbox(brisk()).await, memory());
    let mut nodes: Vec<Node> = [(1, 1), (2, -1), (3, 30 * 24)]
        .map(|(name, hours)| {
            let ground = Env { clock: Arc::new(Off { hours }), ..Env::real(&upstream(&sandbox.base_url())).unwrap() };
            Node::on(ground, &sandbox, &store, app("wx1", &mp::CLASSIC), name, SEALED_WITH)
        })
        .into();
    let mut generation = 1;
    while let Some(node) = nodes.pop() {
        nodes.push(node);
        let token = agreed(&nodes, generation + 1).await;
        assert_eq!(sandbox.judge(&token), Verdict::Accepted);
        generation = nodes.iter().map(Node::generation).max().unwrap();
        nodes.pop().unwrap().kill().await;
    }
    assert_eq!(calls(&sandbox), generation, "each call has made the token that all serve");
}

/// WeChat fails for longer than a token lives, and all that nodes have seen alive is over when it is back.
#[tokio::test]
#[ignore = "waits for real time"]
async fn an_outage_that_outlasts_the_token_is_got_over() {
    for kind in [&mp::CLASSIC, &mp::STABLE] {
        let (sandbox, store) = (sandbox(Options { lifetime_s: 3, ..brisk() }).await, memory());
        let nodes = group(&sandbox, &store, kind, 3);
        agreed(&nodes, 1).await;
        sandbox.set_fault("wx1", InjectedFault::new(FaultKind::Errcode { errcode: -1, errmsg: "system error".into() }));
        until("nobody has a token", || nodes.iter().all(|node| node.token().is_none())).await;
        sandbox.clear_fault("wx1");
        agreed(&nodes, 2).await;
        for node in nodes {
            node.stop().await;
        }
    }
}
