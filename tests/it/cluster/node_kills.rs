//! Whichever node renews is killed again and again, and no client notices: `benches/killing`, made short.

#[path = "../../../benches/killing/scenario.rs"]
mod scenario;

use std::time::Duration;

use crate::support::memory_folder;
use crate::support::redis::Redis;
use scenario::Plan;

#[test]
#[ignore = "needs redis-server"]
fn no_client_notices_that_the_node_which_renews_is_killed_every_few_seconds() {
    let (redis, folder) = (Redis::start(&[]), memory_folder());
    let outcome = scenario::run(&Plan {
        binary: env!("CARGO_BIN_EXE_tokencached").into(),
        folder: folder.path().to_owned(),
        redis_url: redis.url(),
        nodes: 3,
        length: Duration::from_secs(45),
        kill_every: Duration::from_secs(3),
        down_for: Duration::from_secs(1),
        reads_per_s: 200,
        lifetime_s: 6,
        overlap_ms: Some(1_500),
    });
    let logged = outcome.logged.join("\n");
    assert!(outcome.kills >= 10 && outcome.tally.reads > 1_000, "{} kills:\n{logged}", outcome.kills);
    // A call that a kill has cut off is made once more, and here that is a tenth.
    assert_eq!(outcome.broken(1.5), Vec::<String>::new(), "{:?}\n{logged}", outcome.fetched);
}
