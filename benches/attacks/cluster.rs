//! Attacks on several nodes: whoever can write to their Redis, and a leader that has lied once.

use std::io::{Read, Write};
use std::net::{Ipv4Addr, Shutdown, TcpListener, TcpStream};
use std::os::unix::net::UnixStream;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use redis::{Connection, FromRedisValue};
use serde_json::json;
use tempfile::TempDir;

use crate::attack::{Attack, Figure, Goal, Measured};
use crate::client::{Client, TIMEOUT, local};
use crate::server::Server;
use crate::subject::{APPID, Plan, Subject, TOKEN_KEY, Wechat, becomes_true, free_port, wait_for, wait_for_token};

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
    Attack {
        name: "leader-lied-once",
        what: "a node that follows another: one wrong answer with a later generation and a later end, then right ones",
        on_memcached: false,
        figures: &[
            Figure { what: "right again 10 s after the leader has another token", goal: Goal::Yes },
            Figure { what: "right after a `delete` and a restart", goal: Goal::Yes },
        ],
        run: leader_lied_once,
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
        wait_for("redis-server", TIMEOUT, || UnixStream::connect(&socket).is_ok());
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
        wait_for("a record", TIMEOUT, || !redis.records().is_empty());
        Pair { wechat, redis, nodes }
    }

    /// Reads at both nodes for so long, and does something each second: reads, and those that went wrong.
    fn read_while(&self, time: Duration, mut each_second: impl FnMut()) -> (u32, u32) {
        let mut clients = self.nodes.each_ref().map(|node| Client::connect(node.port(), TIMEOUT).ok());
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
        read(&self.nodes[node])
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
    assert!(becomes_true(TIMEOUT, || pair.token(0) != first && pair.token(1) != first), "the token does not change");
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
    let agree = becomes_true(Duration::from_secs(3), || pair.token(0).is_some() && pair.token(0) == pair.token(1));
    vec![json!(reads), json!(wrong), json!(agree)]
}

/// Between a node and its leader: while it lies every token on the way is another, of a later generation and end.
struct LyingLeader {
    port: u16,
    lies: Arc<AtomicBool>,
}

impl LyingLeader {
    fn start(leader: u16) -> LyingLeader {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let (port, lies) = (listener.local_addr().unwrap().port(), Arc::new(AtomicBool::new(true)));
        let lying = lies.clone();
        // Ends with the process.
        std::thread::spawn(move || {
            for client in listener.incoming().flatten() {
                let Ok(server) = TcpStream::connect(local(leader)) else { continue };
                let (from, to) = (server.try_clone().unwrap(), client.try_clone().unwrap());
                let lying = lying.clone();
                std::thread::spawn(move || pass(client, server, |_| ()));
                std::thread::spawn(move || {
                    pass(from, to, |bytes| {
                        if lying.load(Relaxed) {
                            change_answer(bytes);
                        }
                    });
                });
            }
        });
        LyingLeader { port, lies }
    }
}

fn pass(mut from: TcpStream, mut to: TcpStream, change: impl Fn(&mut [u8])) {
    let mut bytes = vec![0; 64 * 1024];
    while let Ok(read @ 1..) = from.read(&mut bytes) {
        change(&mut bytes[..read]);
        if to.write_all(&bytes[..read]).is_err() {
            break;
        }
    }
    let _ = to.shutdown(Shutdown::Both);
}

/// Byte by byte, so that its length stays.
fn change_answer(bytes: &mut [u8]) {
    for (name, with) in [("\"token\":\"", b'L'), ("\"generation\":", b'9'), ("\"expires_in_ms\":", b'9')] {
        for at in ends_of(bytes, name.as_bytes()) {
            let end = if with == b'L' { at + 20 } else { at + 1 };
            if let Some(part) = bytes.get_mut(at..end) {
                part.fill(with);
            }
        }
    }
}

/// Where what follows each of these begins.
fn ends_of(bytes: &[u8], name: &[u8]) -> Vec<usize> {
    let found = bytes.windows(name.len()).enumerate().filter(|(_, window)| *window == name);
    found.map(|(at, _)| at + name.len()).collect()
}

fn leader_lied_once(subject: &Subject) -> Measured {
    const KEY: &str = "right-0123456789abcdef0123456789abcdef";
    let (wechat, http_port) = (Wechat::start(), free_port());
    let liar = LyingLeader::start(http_port);
    let tables = format!("[side]\nlisten = [\"127.0.0.1:{http_port}\"]\nkeys_file = \"{{folder}}/keys\"");
    let keys = ("keys", format!("ops {KEY} status read refresh\n"));
    let leader = subject.node(&wechat, Plan { tables, files: vec![keys], ..Plan::default() });
    let plan = || Plan {
        state: format!(
            "path = \"{{folder}}/state.json\"\nupstream = \"http://127.0.0.1:{}\"\nupstream_key_file = \"{{folder}}/key\"",
            liar.port
        ),
        files: vec![("key", KEY.to_owned())],
        follows: true,
        ..Plan::default()
    };
    let follower = subject.start(&wechat, plan());
    let lied_to = || read(&follower).is_some_and(|token| !wechat.accepts(&token));
    assert!(becomes_true(TIMEOUT, lied_to), "the lie does not arrive");
    liar.lies.store(false, Relaxed);
    let first = read(&leader);
    wechat.kill_tokens(APPID);
    report(&leader);
    assert!(becomes_true(TIMEOUT, || read(&leader).is_some() && read(&leader) != first), "the leader does not renew");
    let is_right = |follower: &Server| read(follower).is_some_and(|token| wechat.accepts(&token));
    let by_itself = becomes_true(Duration::from_secs(10), || is_right(&follower));
    report(&follower);
    // What it knows is in its state file by then.
    std::thread::sleep(Duration::from_secs(2));
    let follower = subject.start_in(follower.into_folder(), &wechat, plan());
    vec![json!(by_itself), json!(becomes_true(Duration::from_secs(10), || is_right(&follower)))]
}

fn read(server: &Server) -> Option<Vec<u8>> {
    Client::connect(server.port(), TIMEOUT).ok()?.get(TOKEN_KEY).ok()?
}

/// That the token is refused.
fn report(server: &Server) {
    let client = Client::connect(server.port(), TIMEOUT);
    let _ = client.and_then(|mut client| client.ask(format!("delete {TOKEN_KEY}\r\n")));
}
