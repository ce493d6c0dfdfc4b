//! The script that runs inside Redis does what [`RecordRules::apply`] does, whatever it is asked and whatever it finds.

use std::sync::Arc;

use proptest::prelude::*;
use proptest::sample::select;
use proptest::test_runner::{Config, RngAlgorithm, TestRng, TestRunner};
use redis::{Connection, Value};
use tokencached::cluster::record::{CallEnd, NOBODY, Op, Record, StoreMs};
use tokencached::cluster::redis::script::{self, FIELDS, RecordScript};

use crate::record_rules::RecordRules;
use crate::support::redis::Redis;

const CASES: u32 = 2_000;
const BEGIN_MS: StoreMs = 1_790_000_000_000;
const KEYS: [&str; 2] = ["{c}:changes", "{c}:seq"];

/// An operation whose node, epoch and generation are near those that the record has when it comes to it.
#[derive(Clone, Debug)]
struct Step {
    wait_ms: u64,
    what: u8,
    node: Option<u64>,
    epoch: i64,
    generation: i64,
    ms: [u64; 2],
    ended: CallEnd,
    flags: [bool; 2],
    text: Option<Arc<str>>,
}

impl Step {
    fn op(&self, record: &Record) -> Op {
        let node = self.node.unwrap_or(record.holder);
        let epoch = record.epoch.saturating_add_signed(self.epoch);
        let generation = record.generation.saturating_add_signed(self.generation);
        let value: Arc<str> = format!("value \"{}\" \u{7684}\\/", generation ^ self.ms[0]).into();
        let (calls, [minted, failed], [first, second]) = (self.text.clone(), self.flags, self.ms);
        match self.what {
            0 => Op::Read,
            1..=4 => Op::Take { node, lease_ms: first, known_generation: generation, spacing_ms: second },
            5..=6 => Op::Announce { node, epoch, need_ms: first },
            7..=9 => Op::Publish { node, epoch, generation, value, calls, minted, keep_ms: first },
            10..=12 => Op::Close { node, epoch, ended: self.ended, failed, wait_ms: first, keep_ms: second, calls },
            13 => Op::Offer { generation, value },
            14 => Op::Doubt { generation },
            _ => Op::Discard { generation, value: record.value.clone().filter(|_| minted).or(calls) },
        }
    }
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let wait_ms = select(vec![0, 0, 1, 50, 400, 1_000, 11_000, 59_999, 60_000, 120_001, 3_600_001]);
    let node = prop_oneof![3 => Just(None), 2 => (1_u64..4).prop_map(Some), 1 => Just(Some(NOBODY - 1))];
    let near = || prop_oneof![4 => Just(0_i64), 1 => -2_i64..3];
    let ms = || select(vec![0, 0, 1, 400, 1_000, 11_000, 60_000, 120_000, 120_001, 3_600_000, 3_600_001, 10_000_000]);
    let ended = select(vec![CallEnd::Unsent, CallEnd::Answered, CallEnd::Lost]);
    let text = prop::option::of(select(vec![Arc::from(""), Arc::from("{\"a\":1}"), Arc::from("+-")]));
    let step = (wait_ms, 0_u8..16, node, near(), near(), [ms(), ms()], ended, any::<[bool; 2]>(), text).prop_map(
        |(wait_ms, what, node, epoch, generation, ms, ended, flags, text)| Step {
            wait_ms,
            what,
            node,
            epoch,
            generation,
            ms,
            ended,
            flags,
            text,
        },
    );
    prop::collection::vec(step, 1..16)
}

/// What somebody may have written into the fields before; mostly nothing.
fn found() -> impl Strategy<Value = Vec<Option<String>>> {
    let near = (BEGIN_MS - 200_000..BEGIN_MS + 4_000_000).prop_map(|ms| ms.to_string());
    let odd = select(vec![
        "0",
        "1",
        "2",
        "3",
        "007",
        "",
        "x",
        "-1",
        "+1",
        " 2",
        "1e3",
        "1.0",
        "0x10",
        "99999999999999",
        "1000000000000000",
        "18446744073709551615",
        "18446744073709551616",
        "9223372036854775808",
    ]);
    let field = prop::option::weighted(0.6, prop_oneof![near, odd.prop_map(str::to_owned)]);
    prop_oneof![2 => Just(Vec::new()), 1 => prop::collection::vec(field, FIELDS.len() - 1)]
}

struct Bench {
    connection: Connection,
    script: RecordScript,
    cases: u64,
}

impl Bench {
    fn new(redis: &Redis) -> Bench {
        let (mut connection, script) = (redis.connect(), RecordScript::new(["tonumber(ARGV[#ARGV])", "ARGV[#ARGV]"]));
        let sha: String = redis::cmd("SCRIPT").arg("LOAD").arg(&script.text).query(&mut connection).unwrap();
        assert_eq!(sha, script.sha);
        Bench { connection, script, cases: 0 }
    }

    fn ask(&mut self, command: &redis::Cmd) -> Value {
        command.query(&mut self.connection).unwrap()
    }

    fn stored(&mut self, key: &str) -> script::StoredRecord {
        match self.ask(redis::cmd("HMGET").arg(key).arg(&FIELDS)) {
            Value::Array(fields) => script::read(&fields),
            other => panic!("{other:?}"),
        }
    }

    fn apply(&mut self, key: &str, op: &Op, now_ms: StoreMs) -> script::ScriptAnswer {
        let mut call = redis::cmd("EVALSHA");
        call.arg(&self.script.sha).arg(3).arg(key).arg(&KEYS).arg("{c}:news").arg("t");
        call.arg(script::arguments(op).unwrap()).arg(now_ms);
        script::applied(&self.ask(&call)).unwrap()
    }

    fn run(&mut self, found: &[Option<String>], steps: &[Step]) {
        self.cases += 1;
        let key = format!("{{c}}:r:{}", self.cases);
        for (field, text) in FIELDS.iter().zip(found) {
            if let Some(text) = text {
                self.ask(redis::cmd("HSET").arg(&key).arg(field).arg(text));
            }
        }
        let script::StoredRecord { mut record, mut seq, .. } = self.stored(&key);
        let mut now_ms = BEGIN_MS;
        for step in steps {
            now_ms += step.wait_ms;
            let op = step.op(&record);
            let before = record.clone();
            let outcome = record.apply(&op, now_ms);
            let applied = self.apply(&key, &op, now_ms);
            let told = || format!("{op:?} on {before:?} at {now_ms}");
            assert_eq!((applied.outcome, applied.now_ms), (outcome, now_ms), "{}", told());
            assert_eq!(applied.stored.record, record, "{}", told());
            let after = self.stored(&key);
            assert_eq!(after.record, record, "{}", told());
            assert!(op == Op::Read || after.bad.is_none(), "what was not ours is gone: {}", told());
            let looks = |record: &Record| (record.unsettled, record.generation, record.value.clone());
            assert_eq!(looks(&before) != looks(&record), after.seq != seq, "{}", told());
            assert_eq!(applied.stored.seq, after.seq);
            seq = after.seq;
        }
    }
}

#[test]
#[ignore = "needs redis-server"]
fn the_script_does_what_the_rules_say() {
    let redis = Redis::start(&[]);
    let mut bench = Bench::new(&redis);
    let config = Config { cases: CASES, failure_persistence: None, max_shrink_iters: 200, ..Config::default() };
    let rng = TestRng::from_seed(RngAlgorithm::ChaCha, &[7; 32]);
    let bench = std::cell::RefCell::new(&mut bench);
    let result = TestRunner::new_with_rng(config, rng).run(&(found(), steps()), |(found, steps)| {
        bench.borrow_mut().run(&found, &steps);
        Ok(())
    });
    result.unwrap();
    let changes: u64 = redis.ask(&["ZCARD", KEYS[0]]);
    let count: u64 = redis.ask(&["HGET", KEYS[1], "n"]);
    assert!(changes == 1 && count > u64::from(CASES), "{changes} of {count}");
    let left_s: i64 = redis.ask(&["TTL", KEYS[0]]);
    assert!(left_s > 89 * 86_400, "{left_s}");
}
