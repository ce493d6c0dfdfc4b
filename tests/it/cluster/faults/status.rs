//! What the HTTP API says of several nodes: which one it is, who the others are, who has fetched what, the store.

use super::{Plan, STABLE, key};
use crate::http_api::HttpNode;
use crate::support::redis::Redis;
use crate::support::{APPID, Node, Wechat, wait_for};

/// A node of that name with its HTTP API.
fn node(wechat: &Wechat, redis: &str, name: &str) -> HttpNode {
    let mut plan = Plan::new(wechat, redis, STABLE).state(&format!("timeout_ms = 20000\nnode = \"{name}\"\n"));
    plan.server += "[http]\nlisten = [\"127.0.0.1:0\"]\nrequests_per_s = 100000\n";
    let node: Node = plan.start();
    let address = node.http_address();
    HttpNode { node, address }
}

#[test]
#[ignore = "needs redis-server"]
fn each_node_says_who_it_is_who_the_others_are_and_who_has_fetched_the_token() {
    let (wechat, redis) = (Wechat::start(), Redis::start(&[]));
    let first = node(&wechat, &redis.url(), "shop-a");
    wait_for("a token", || first.node.connect().get(&key()));
    let second = node(&wechat, &redis.url(), "shop-b");
    wait_for("the same token", || second.node.connect().get(&key()));
    for (node, name, others) in [(&first, "shop-a", vec![]), (&second, "shop-b", vec!["shop-a"])] {
        let shared = wait_for("the store", || {
            let shared = node.get("/v1/status", &[]).json()["cluster"].clone();
            (shared["up"] == true).then_some(shared)
        });
        assert_eq!((&shared["node"], &shared["store"]), (&name.into(), &"redis".into()));
        let known: Vec<&str> =
            shared["others"].as_array().unwrap().iter().map(|of| of["node"].as_str().unwrap()).collect();
        assert_eq!(known, others, "{name}");
        assert_eq!(node.shown("access_token", &[])["renewed_by"], "shop-a", "{name}");
    }
    // The token dies, and the other one fetches the next.
    wechat.kill_tokens(APPID);
    second.node.connect().ask(format!("delete {}\r\n", key()));
    wait_for("the first one has seen it", || {
        (first.shown("access_token", &[])["renewed_by"] == "shop-b").then_some(())
    });
    let shared = first.get("/v1/status", &[]).json()["cluster"].clone();
    assert_eq!(shared["others"][0]["node"], "shop-b");
    assert!(shared["others"][0]["last_fetch_at_ms"].as_i64().unwrap() > 0);
}
