//! Nodes of this version and of the one before on one Redis, while one after the other is replaced, and back.
//!
//! The program of the version before is named by `TOKENCACHED_BEFORE`; `tests/run` builds it where the history is there.
//! What it has written once is kept here and read in every run.

use tokencached::cluster::redis::script;
use tokencached::cluster::seal::Seal;
use tokencached::secret::Secret;

use super::faults::{CLASSIC, Group, Member, Plan, STABLE, calls, field, settles_soon, wait_until_settled};
use crate::support::redis::Redis;
use crate::support::{Node, Wechat, tokencached_before, write};

#[derive(Clone, Copy, PartialEq)]
enum Version {
    Before,
    This,
}

fn start(plan: &Plan, version: Version, folder: tempfile::TempDir) -> Node {
    if version == Version::This {
        return plan.start_in(folder);
    }
    write(folder.path(), "state.secret", &plan.secret);
    Node::start_binary(tokencached_before(), folder, &plan.config(), &[], &[])
}

/// One node after the other is stopped and started in its folder as another version; all serve all the time.
fn roll(group: &mut Group<'_>, plan: &Plan, to: Version) {
    for at in 0..group.members.len() {
        let token = group.agreed(&[]);
        group.forget();
        let made = calls(group.wechat);
        let folder = group.members.remove(at).node.stop();
        group.members.insert(at, Member::new(start(plan, to, folder)));
        assert_eq!(group.agreed(&[]), token);
        group.never_failed();
        assert_eq!(calls(group.wechat), made, "nobody fetches for an upgrade");
        // Either version renews for both.
        for teller in 0..group.members.len() {
            let token = group.agreed(&[]);
            group.kill_tokens_and_tell(teller);
            group.agreed(&[&token]);
        }
    }
}

#[test]
#[ignore = "needs redis-server"]
fn nodes_of_both_versions_renew_for_each_other_while_one_after_the_other_is_replaced_and_back() {
    for endpoint in [CLASSIC, STABLE] {
        let (wechat, redis) = (Wechat::start(), Redis::start(&[]));
        let plan = Plan::new(&wechat, &redis.url(), endpoint);
        let nodes = (0..2).map(|_| start(&plan, Version::Before, tempfile::tempdir().unwrap()));
        let mut group = Group::of(&wechat, nodes.collect::<Vec<_>>());
        group.agreed(&[]);
        roll(&mut group, &plan, Version::This);
        roll(&mut group, &plan, Version::Before);
        // Mixed, over a Redis that forgets.
        let folder = group.members.remove(0).node.stop();
        group.members.insert(0, Member::new(start(&plan, Version::This, folder)));
        let token = group.agreed(&[]);
        let made = calls(&wechat);
        redis.ask::<()>(&["FLUSHALL"]);
        group.until("the value in the Redis", |_| {
            !redis.ask::<Vec<String>>(&["KEYS", "{tokencached}:r:*token*"]).is_empty()
        });
        assert_eq!((group.agreed(&[]), calls(&wechat)), (token, made));
        group.never_went_back();
    }
}

/// A mark of the version before is settled by this one, and the other way round.
#[test]
#[ignore = "needs redis-server"]
fn a_call_that_one_version_has_lost_is_settled_by_the_other() {
    for survivor in [Version::This, Version::Before] {
        let (wechat, redis) = (settles_soon(), Redis::start(&[]));
        let plan = Plan::new(&wechat, &redis.url(), CLASSIC);
        let mut group = Group::of(&wechat, [start(&plan, survivor, tempfile::tempdir().unwrap())]);
        let token = group.agreed(&[]);
        let key = super::faults::record(&redis).unwrap();
        let epoch = field(&redis, "epoch").unwrap();
        let (seconds, _): (u64, u64) = redis.ask(&["TIME"]);
        let at = (seconds * 1000).to_string();
        redis.ask::<()>(&["HSET", &key, "open_by", &epoch, "open_settled_by", &epoch, "open_at", &at]);
        redis.ask::<()>(&["CLIENT", "KILL", "TYPE", "normal"]);
        group.agreed(&[&token]);
        wait_until_settled(&redis);
        assert_eq!(calls(&wechat), 2);
    }
}

/// Needs no program: what the version before has written, field by field.
#[test]
fn a_record_of_the_version_before_is_read() {
    let kept: serde_json::Value = serde_json::from_str(include_str!("record-before.json")).unwrap();
    let field = |name: &str| match kept["fields"][name].as_str() {
        Some(text) => redis::Value::BulkString(text.as_bytes().to_vec()),
        None => redis::Value::Nil,
    };
    let stored = script::read(&script::FIELDS.map(field));
    let seal = Seal::new(&Secret::new("what-all-these-nodes-seal-with".into()), kept["tag"].as_str().unwrap());
    let value = seal.unseal(stored.record.value.as_ref().unwrap()).unwrap();
    assert_eq!((value.value.as_str(), value.generation), ("70_a-token-of-the-version-before", 1));
    assert_eq!((stored.record.generation, stored.record.epoch, stored.bad), (1, 1, None));
    assert!(stored.record.calls.is_some_and(|calls| calls.contains("\"day\"")));
}
