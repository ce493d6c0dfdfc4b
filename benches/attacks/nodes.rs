//! Attacks on several nodes: whoever can write to their Redis, and a leader that has lied once.

use std::os::unix::net::UnixStream;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use redis::{Connection, FromRedisValue};
use serde_json::json;
use tempfile::TempDir;

use crate::attack::{Attack, Figure, Goal, Measured};
use crate::client::{Client, PATIENCE};
use crate::server::Server;
use crate::subject::{APPID, Plan, Subject, TOKEN_KEY, Wechat, comes_true, wait_for, wait_for_token};

pub const ATTACKS: &[Attack] = &[
    Attack {
        name: "forged-calls",
        what: "two nodes, a classic token of 16 s: forged call counts and an open call in their Redis, again and again",
        on_memcached: false,
        figures: &[
            Figure { what: "reads in 24 s", goal: Goal::Shown },
            Figure { what: "of them missed or refused by WeChat", goal: Goal::AtMost(0.0) },
            Figure { what: "missed or refused in 6 s after the Redis was emptied", goal: Goal::AtMost(0.0) },
        ],
        run: forged_calls,
    },
    Attack {
        name: "old-record",
        what: "two nodes, a classic token of 16 s: the record of the start is put back once the token has changed",
        on_memcached: false,
        figures: &[
            Figure { what: "reads in 12 s", goal: Goal::Shown },
            Figure { what: "of them missed or refused by WeChat", goal: Goal::AtMost(0.0) },
        ],
        run: old_record,
    },
    Attack {
        name: "huge-generation",
        what: "two nodes, a classic token of 16 s: a generation near the greatest number in their Redis",
        on_memcached: false,
        figures: &[
            Figure { what: "reads in 16 s", goal: Goal::Shown },
            Figure { what: "of them missed or refused by WeChat", goal: Goal::AtMost(0.0) },
            Figure { what: "both nodes have one token at the end", goal: Goal::Yes },
        ],
        run: huge_generation,
    },
];

/// Killed when dropped.
struct Redis {
    child: Child,
    folder: TempDir,
}

impl Redis {
    fn start() -> Redis {
        let folder = tempfile::tempdir().unwrap();
        let child = Command::new("redis-server")
            .args(["--port", "0", "--save", "", "--appendonly", "no", "--daemonize", "no", "--unixsocket"])
            .arg(folder.path().join("redis.sock"))
            .arg("--dir")
            .arg(folder.path())
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .spawn()
            .expect("redis-server is needed on PATH");
        let redis = Redis { child, folder };
        let socket = redis.folder.path().join("redis.sock");
        wait_for("redis-server", PATIENCE, || UnixStream::connect(&socket).is_ok());
        redis
    }

    fn url(&self) -> String {
        format!("unix:{}", self.folder.path().join("redis.sock").display())
    }

    fn connect(&self) -> Connection {
        let url = format!("unix://{}", self.folder.path().join("redis.sock").display());
        redis::Client::open(url).unwrap().get_connection().unwrap()
    }

    fn ask<T: FromRedisValue>(&self, words: &[&str]) -> redis::RedisResult<T> {
        let mut command = redis::Cmd::new();
        for word in words {
            command.arg(*word);
        }
        command.query(&mut self.connect())
    }

    /// The keys of all records of the app.
    fn records(&self) -> Vec<String> {
        self.ask(&["KEYS", &format!("*:r:*{APPID}*")]).unwrap()
    }

    /// Has every node read everything anew.
    fn cut_connections(&self) {
        for kind in ["normal", "pubsub"] {
            let _ = self.ask::<u64>(&["CLIENT", "KILL", "TYPE", kind]);
        }
    }
}

impl Drop for Redis {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Two nodes that share a Redis and a classic token that lives 16 s, and its predecessor 4 s longer.
struct Pair {
    wechat: Wechat,
    redis: Redis,
    nodes: [Server; 2],
}

impl Pair {
    fn start(subject: &Subject) -> Pair {
        let (wechat, redis) = (Wechat::short_lived(16), Redis::start());
        let nodes = ["one", "two"].map(|name| {
            let state = format!(
                "path = \"{{folder}}/state.json\"\nurl = \"{}\"\nsecret_file = \"{{folder}}/secret\"\n\
                 node = \"{name}\"\npoll_every_ms = 500",
                redis.url()
            );
            let secret = ("secret", "what-these-nodes-seal-with".to_owned());
            let app = "endpoint = \"token\"".to_owned();
            subject.start(&wechat, Plan { state, app, files: vec![secret], ..Plan::default() })
        });
        nodes.iter().for_each(wait_for_token);
        wait_for("a record", PATIENCE, || !redis.records().is_empty());
        Pair { wechat, redis, nodes }
    }

    /// Reads at both nodes for so long, and does something each second: reads, and those that went wrong.
    fn read_while(&self, time: Duration, mut each_second: impl FnMut()) -> (u32, u32) {
        let mut clients = self.nodes.each_ref().map(|node| Client::connect(node.port(), PATIENCE).ok());
        let (begun, mut next, mut reads, mut wrong) = (Instant::now(), Duration::ZERO, 0, 0);
        while begun.elapsed() < time {
            if begun.elapsed() >= next {
                each_second();
                next += Duration::from_secs(1);
            }
            for client in clients.iter_mut().flatten() {
                reads += 1;
                let token = client.get(TOKEN_KEY).ok().flatten();
                wrong += u32::from(!token.is_some_and(|token| self.wechat.accepts(&token)));
            }
            std::thread::sleep(Duration::from_millis(50));
        }
        (reads, wrong)
    }

    fn token(&self, node: usize) -> Option<Vec<u8>> {
        Client::connect(self.nodes[node].port(), PATIENCE).ok()?.get(TOKEN_KEY).ok()?
    }

    fn set_fields(&self, fields: &[(&str, String)]) {
        for record in self.redis.records() {
            let mut words = vec!["HSET", record.as_str()];
            fields.iter().for_each(|(name, value)| words.extend([*name, value]));
            let _ = self.redis.ask::<u64>(&words);
        }
        self.redis.cut_connections();
    }
}

fn forged_calls(subject: &Subject) -> Measured {
    let pair = Pair::start(subject);
    let unix_ms = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_millis() as i64;
    // Days turn at midnight in UTC+8.
    let today = (unix_ms + 8 * 3_600_000) / 86_400_000;
    let used = json!({ "index": today, "used": 1_000_000, "before": 1_000_000 });
    let calls = json!({ "day": used, "checks": 1_000_000, "forced": 1_000_000 }).to_string();
    let forge = || {
        let now_ms = (unix_ms + 1).to_string();
        pair.set_fields(&[
            ("calls", calls.clone()),
            ("open_by", "0".into()),
            ("open_settled_by", "999999".into()),
            ("open_at", now_ms),
        ]);
    };
    let (reads, wrong) = pair.read_while(Duration::from_secs(24), forge);
    let _ = pair.redis.ask::<()>(&["FLUSHALL"]);
    // They have some seconds to look.
    std::thread::sleep(Duration::from_secs(2));
    let (_, after) = pair.read_while(Duration::from_secs(6), || ());
    vec![json!(reads), json!(wrong), json!(after)]
}

fn old_record(subject: &Subject) -> Measured {
    let pair = Pair::start(subject);
    let records = pair.redis.records();
    let dump = |record: &String| pair.redis.ask::<Vec<u8>>(&["DUMP", record]).unwrap();
    let old: Vec<Vec<u8>> = records.iter().map(dump).collect();
    let first = pair.token(0);
    assert!(comes_true(PATIENCE, || pair.token(0) != first && pair.token(1) != first), "the token does not change");
    let put_back = || {
        for (record, dump) in records.iter().zip(&old) {
            let mut command = redis::cmd("RESTORE");
            let _ =
                command.arg(record).arg(0).arg(dump.as_slice()).arg("REPLACE").query::<()>(&mut pair.redis.connect());
        }
        pair.redis.cut_connections();
    };
    let (reads, wrong) = pair.read_while(Duration::from_secs(12), put_back);
    vec![json!(reads), json!(wrong)]
}

fn huge_generation(subject: &Subject) -> Measured {
    let pair = Pair::start(subject);
    let mut done = false;
    let forge = || {
        if !std::mem::replace(&mut done, true) {
            pair.set_fields(&[("generation", "999999999999998".into())]);
        }
    };
    let (reads, wrong) = pair.read_while(Duration::from_secs(16), forge);
    let agree = comes_true(Duration::from_secs(3), || pair.token(0).is_some() && pair.token(0) == pair.token(1));
    vec![json!(reads), json!(wrong), json!(agree)]
}
