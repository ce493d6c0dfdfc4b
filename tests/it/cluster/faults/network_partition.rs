//! Fault 57: the network falls into two, with nodes and a Redis on both sides and WeChat reachable from both.
//!
//! Each side is a network namespace, with one cable between them. A service address on each side (`127.0.0.1`, a proxy)
//! leads to the master, as a sentinel or an orchestrator would have it.

use std::net::{SocketAddr, TcpListener};

use super::{CLASSIC, Group, Member, Plan, calls, field, settles_soon, wait_for_value, wait_until_settled};
use crate::support::netns::Namespace;
use crate::support::proxy::{Proxy, To};
use crate::support::redis::Redis;
use crate::support::{Client, Wechat, wait_for};

const CABLE: &str = "tc0";
const REDIS_PORT: u16 = 6379;
const HERE: &str = "10.99.0.1";
const THERE: &str = "10.99.0.2";

/// One side: its network, its Redis, the way to whoever is the master, the way to WeChat.
struct Side {
    network: Namespace,
    redis: Redis,
    master: Proxy,
    _wechat: Proxy,
}

fn at(address: &str) -> SocketAddr {
    SocketAddr::new(address.parse().unwrap(), REDIS_PORT)
}

impl Side {
    fn new(network: Namespace, wechat: &Wechat, address: &str, master: &str, arguments: &[&str]) -> Side {
        let listen = |port: u16| network.inside(|| TcpListener::bind(("127.0.0.1", port)).unwrap());
        let port = REDIS_PORT.to_string();
        let own = ["--port", &port, "--bind", address, "--protected-mode", "no", "--repl-diskless-sync-delay", "0"];
        let redis = network.inside(|| Redis::start(&[&own, arguments].concat()));
        let master = Proxy::start(listen(REDIS_PORT), To::Tcp(at(master)), Some(network.share()));
        let to_wechat = Proxy::start(listen(wechat.addr().port()), To::Tcp(wechat.addr()), None);
        Side { network, redis, master, _wechat: to_wechat }
    }

    fn start(&self, plan: &Plan) -> Member {
        self.network.inside(|| {
            let node = plan.start();
            let client = Client::connect(node.address);
            Member::with(node, client)
        })
    }
}

/// One Redis with its replica over there, and two nodes on each side. Nodes 0 and 1 are here.
fn both(wechat: &Wechat) -> (Side, Side, Group<'_>) {
    let (near, far) = (Namespace::new(), Namespace::new());
    near.connect(&far, CABLE, HERE, THERE);
    let here = Side::new(near, wechat, HERE, HERE, &[]);
    let port = REDIS_PORT.to_string();
    let there = Side::new(far, wechat, THERE, HERE, &["--replicaof", HERE, &port]);
    // What hangs in the cable is given up soon.
    let plan = Plan::new(wechat, &format!("redis://127.0.0.1:{REDIS_PORT}"), CLASSIC).state("timeout_ms = 2000\n");
    let members = [&here, &here, &there, &there].map(|side| side.start(&plan)).into();
    (here, there, Group { wechat, members })
}

fn wait_for_replica(side: &Side, value: &str) {
    wait_for("the replica", || field(&side.redis, "value").filter(|known| known == value));
}

/// Both sides renew. When the network is whole again there are two tokens of one number, and one more call settles it.
/// Nobody is given a token that WeChat refuses, but for as long as that call's answer is on its way.
#[test]
#[ignore = "needs root"]
fn both_sides_of_a_split_network_renew_and_end_on_one_token_when_it_heals() {
    let wechat = settles_soon();
    let (here, there, mut group) = both(&wechat);
    let first = group.agreed(&[]);
    wait_for_replica(&there, &wait_for_value(&here.redis));
    assert_eq!(calls(&wechat), 1);

    here.network.plug(CABLE, false);
    group.until_said(&[2, 3], "tokens are served from memory");
    there.redis.ask::<()>(&["REPLICAOF", "NO", "ONE"]);
    there.master.lead(To::Tcp(at(THERE)));
    group.until_said(&[2, 3], "the cluster store is reachable again");
    group.kill_tokens_and_tell(0);
    group.members[2].report();
    group.until("a new token on both sides", |group| {
        group.members.iter().all(|member| member.last.as_ref().is_some_and(|token| *token != first))
    });
    let (near, far) = (group.members[0].last.clone().unwrap(), group.members[2].last.clone().unwrap());
    group.until("one token on either side", |group| {
        [&near, &near, &far, &far].iter().zip(&group.members).all(|(token, member)| member.last.as_ref() == Some(token))
    });
    assert_ne!(near, far);
    assert_eq!(calls(&wechat), 3, "one call a side");
    group.forget();

    // The side that was cut off takes the other's master, which knows nothing of what it has done.
    here.network.plug(CABLE, true);
    here.redis.ask::<()>(&["REPLICAOF", THERE, &REDIS_PORT.to_string()]);
    here.master.lead(To::Tcp(at(THERE)));
    group.until("the call that settles it", |group| {
        let refused = group.refused();
        let is_sent = calls(&wechat) > 3;
        assert!(is_sent || refused == [0; 4], "{refused:?}");
        is_sent
    });
    // It ends the earlier of the two at once, so that may be read until its answer is heard, and no longer.
    let last = group.agreed(&[&near, &far]);
    group.never_went_back();
    group.forget();
    wait_until_settled(&there.redis);
    assert_eq!((group.agreed(&[]), calls(&wechat)), (last, 4), "one more settles it");
    group.never_failed();
    wait_for_replica(&here, &wait_for_value(&there.redis));
}

/// The side without a Redis serves what it has, calls nobody, and has the other's token when the network is whole.
#[test]
#[ignore = "needs root"]
fn a_side_without_a_redis_serves_the_old_token_and_takes_the_new_one_when_the_network_heals() {
    let wechat = super::short_lived(24);
    let (here, _there, mut group) = both(&wechat);
    let first = group.agreed(&[]);
    group.forget();
    here.network.plug(CABLE, false);
    group.until("the next token here", |group| {
        group.members[..2].iter().all(|member| member.last.as_ref().is_some_and(|token| *token != first))
    });
    let there: Vec<Option<String>> = group.members[2..].iter().map(|member| member.last.clone()).collect();
    here.network.plug(CABLE, true);
    group.agreed(&[&first]);
    if group.lost_no_call() {
        assert_eq!(there, [Some(first.clone()), Some(first)]);
        group.never_failed();
        assert_eq!(calls(&wechat), 2);
    }
}
