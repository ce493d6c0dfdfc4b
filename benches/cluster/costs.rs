//! Measures what the store's work costs: the processor time that a redis-server reports for the commands that nodes send.

use std::io::Read;
use std::os::unix::net::UnixStream;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use redis::{Cmd, Connection, FromRedisValue, cmd, pipe};
use tempfile::TempDir;
use tokencached::cluster::Op;
use tokencached::cluster::record::CallEnd;
use tokencached::cluster::redis::script::{CLOCK, FIELDS, RecordScript, arguments};
use tokencached::cluster::seal::{PublishedValue, Seal};
use tokencached::secret::Secret;

/// Records that the store has while it is measured.
pub const RECORDS: usize = 20_000;
const LISTENERS: usize = 500;
const PREFIX: &str = "{tokencached}";

/// Microseconds of one processor, and bytes.
#[derive(Clone, Copy, Debug)]
pub struct Costs {
    pub take_us: f64,
    pub announce_us: f64,
    pub publish_us: f64,
    pub close_us: f64,
    pub refused_us: f64,
    pub poll_us: f64,
    /// A record read with 255 others.
    pub read_us: f64,
    /// A message to one node.
    pub message_us: f64,
    pub message_bytes: f64,
    pub read_bytes: f64,
    pub record_bytes: f64,
}

impl Costs {
    /// Measured on the machine that docs/design/scale.md is about, for when no redis-server is there.
    pub const KNOWN: Costs = Costs {
        take_us: 33.0,
        announce_us: 46.0,
        publish_us: 58.0,
        close_us: 34.0,
        refused_us: 30.0,
        poll_us: 19.0,
        read_us: 3.6,
        message_us: 3.7,
        message_bytes: 767.0,
        read_bytes: 647.0,
        record_bytes: 1_610.0,
    };

    /// The scripts of a renewal on average.
    pub fn script_us(&self) -> f64 {
        (self.take_us + self.publish_us) / 2.0
    }
}

struct Server {
    child: Child,
    folder: TempDir,
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Server {
    fn start() -> Option<Server> {
        let folder = tempfile::tempdir().ok()?;
        let child = Command::new("redis-server")
            .args(["--port", "0", "--save", "", "--appendonly", "no", "--maxclients", "2000", "--unixsocket"])
            .arg(folder.path().join("socket"))
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .ok()?;
        Some(Server { child, folder })
    }

    fn connect(&self) -> Connection {
        let url = format!("unix:{}", self.folder.path().join("socket").display());
        for _ in 0..200 {
            if let Ok(connection) = redis::Client::open(url.as_str()).and_then(|client| client.get_connection()) {
                return connection;
            }
            std::thread::sleep(Duration::from_millis(25));
        }
        panic!("redis-server does not answer");
    }
}

/// Measures; none without a redis-server.
pub fn measure() -> Option<Costs> {
    let server = Server::start()?;
    let mut redis = server.connect();
    let script = RecordScript::new(CLOCK);
    let _: String = cmd("SCRIPT").arg("LOAD").arg(&script.text).query(&mut redis).unwrap();
    let call = |tag: usize, op: &Op| {
        let mut call = cmd("EVALSHA");
        let tag = tag_of(tag);
        call.arg(&script.sha).arg(3).arg(format!("{PREFIX}:r:{tag}")).arg(format!("{PREFIX}:changes"));
        call.arg(format!("{PREFIX}:seq")).arg(format!("{PREFIX}:news")).arg(&tag).arg(arguments(op));
        call
    };
    let (empty, value) = (number(&mut redis, "memory", "used_memory"), sealed());
    let take = |tag| call(tag, &Op::Take { node: u64::MAX / 3, lease_ms: 11_000, known_generation: 9, spacing_ms: 0 });
    let take_us = each_us(&mut redis, RECORDS, take);
    let refused =
        |tag| call(tag, &Op::Take { node: u64::MAX / 5, lease_ms: 11_000, known_generation: 9, spacing_ms: 60_000 });
    let refused_us = each_us(&mut redis, RECORDS, refused);
    let announce_us =
        each_us(&mut redis, RECORDS, |tag| call(tag, &Op::Announce { node: u64::MAX / 3, epoch: 1, need_ms: 1 }));
    let publish = |generation: u64, epoch: u64| {
        let (call, value) = (&call, value.clone());
        let calls: Option<Arc<str>> = Some(Arc::from(format!("{{\"day\":20412,\"calls\":{generation}}}")));
        move |tag| {
            let (node, value, calls) = (u64::MAX / 3, value.clone(), calls.clone());
            call(tag, &Op::Publish { node, epoch, generation, value, calls, minted: true, keep_ms: 0 })
        }
    };
    let publish_us = each_us(&mut redis, RECORDS, publish(1, 1));
    let _ = each_us(&mut redis, RECORDS, take);
    let (ended, calls) = (CallEnd::Unsent, None);
    let close = |tag| {
        let (node, calls) = (u64::MAX / 3, calls.clone());
        call(tag, &Op::Close { node, epoch: 2, ended, failed: false, wait_ms: 0, keep_ms: 0, calls })
    };
    let close_us = each_us(&mut redis, RECORDS, close);
    let record_bytes = (number(&mut redis, "memory", "used_memory") - empty) / RECORDS as f64;
    let poll_us = polls(&mut redis);
    let (read_us, read_bytes) = reads(&mut redis);
    // The same publication once more, with listeners.
    let _ = each_us(&mut redis, RECORDS, take);
    let listeners: Vec<UnixStream> = (0..LISTENERS).map(|_| listen(&server)).collect();
    let (heard_us, message_bytes) = heard(&mut redis, &listeners, publish(2, 3));
    let message_us = (heard_us - publish_us).max(0.0) / LISTENERS as f64;
    Some(Costs {
        take_us,
        announce_us,
        publish_us,
        close_us,
        refused_us,
        poll_us,
        read_us,
        message_us,
        message_bytes,
        read_bytes,
        record_bytes,
    })
}

/// What a node asks every two seconds: four commands in one message, with forty changes since the last time.
fn polls(redis: &mut Connection) -> f64 {
    const TIMES: usize = 5_000;
    let (changes, seq) = (format!("{PREFIX}:changes"), format!("{PREFIX}:seq"));
    let last: u64 = cmd("HGET").arg(&seq).arg("n").query(redis).unwrap();
    let before = spent_us(redis);
    for _ in 0..TIMES {
        let mut poll = pipe();
        poll.cmd("DEL").arg(format!("{PREFIX}:wish:none")).cmd("TIME").cmd("HMGET").arg(&seq).arg("n").arg("born");
        poll.cmd("ZRANGEBYSCORE").arg(&changes).arg(format!("({}", last - 40)).arg("+inf").arg("WITHSCORES");
        let _: redis::Value = poll.query(redis).unwrap();
    }
    (spent_us(redis) - before) / TIMES as f64
}

fn tag_of(record: usize) -> String {
    format!("token:wx{record:016x}:https://api.weixin.qq.com")
}

/// A token as WeChat makes them, as it is published.
fn sealed() -> Arc<str> {
    let value = PublishedValue {
        value: "a".repeat(136),
        generation: 1,
        expires_ms: 1_800_000_000_000,
        fetched_ms: 1_800_000_000_000,
        life_ms: 7_200_000,
        longest_ms: 7_200_000,
        learned_ms: None,
        withdrawn: false,
        reliable_lead_ms: None,
        refresh: None,
        by: "node-1.example.com".into(),
        node: u64::MAX / 3,
    };
    let seal = Seal::new(&Secret::new("a secret of sixteen characters".into()), &tag_of(0));
    seal.seal(&value).unwrap()
}

fn number(redis: &mut Connection, section: &str, name: &str) -> f64 {
    let info: String = cmd("INFO").arg(section).query(redis).unwrap();
    let line = info.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'));
    line.unwrap().trim().parse().unwrap()
}

fn spent_us(redis: &mut Connection) -> f64 {
    (number(redis, "cpu", "used_cpu_user") + number(redis, "cpu", "used_cpu_sys")) * 1e6
}

/// One after the other, as they come from many nodes: the reading and writing of each is in it.
fn each_us(redis: &mut Connection, times: usize, call: impl Fn(usize) -> Cmd) -> f64 {
    let before = spent_us(redis);
    for at in 0..times {
        let _: redis::Value = call(at).query(redis).unwrap();
    }
    (spent_us(redis) - before) / times as f64
}

fn reads(redis: &mut Connection) -> (f64, f64) {
    let (before, out) = (spent_us(redis), number(redis, "stats", "total_net_output_bytes"));
    for first in (0..RECORDS).step_by(250) {
        let mut reads = pipe();
        for record in first..first + 250 {
            reads.cmd("HMGET").arg(format!("{PREFIX}:r:{}", tag_of(record))).arg(&FIELDS);
        }
        let _ = Vec::<redis::Value>::from_redis_value(reads.query::<redis::Value>(redis).unwrap()).unwrap();
    }
    let bytes = number(redis, "stats", "total_net_output_bytes") - out;
    ((spent_us(redis) - before) / RECORDS as f64, bytes / RECORDS as f64)
}

fn listen(server: &Server) -> UnixStream {
    use std::io::Write;
    let mut stream = UnixStream::connect(server.folder.path().join("socket")).unwrap();
    let channel = format!("{PREFIX}:news");
    write!(stream, "*2\r\n$9\r\nSUBSCRIBE\r\n${}\r\n{channel}\r\n", channel.len()).unwrap();
    stream.read_exact(&mut [0; 16]).unwrap();
    stream.set_nonblocking(true).unwrap();
    stream
}

/// Publications with listeners who read: processor time each, and bytes to each.
fn heard(redis: &mut Connection, listeners: &[UnixStream], publish: impl Fn(usize) -> Cmd) -> (f64, f64) {
    const TIMES: usize = 200;
    let before = spent_us(redis);
    let (mut bytes, mut buffer) = (0, vec![0; 1 << 16]);
    for at in 0..TIMES {
        let _: redis::Value = publish(at).query(redis).unwrap();
        bytes += drain(listeners, &mut buffer);
    }
    let end = Instant::now() + Duration::from_millis(300);
    while Instant::now() < end {
        bytes += drain(listeners, &mut buffer);
    }
    ((spent_us(redis) - before) / TIMES as f64, bytes as f64 / (TIMES * listeners.len()) as f64)
}

fn drain(listeners: &[UnixStream], buffer: &mut [u8]) -> usize {
    listeners.iter().map(|mut listener| listener.read(buffer).unwrap_or(0)).sum()
}
