//! Many workers, more of them than cores: whole answers, generations that only grow, counts that add up, and no reader
//! that waits for a writer. How fast that is, is the benches' business.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex, mpsc};
use std::thread;

use bytes::Bytes;
use fastrand::Rng;
use tokencached::access::Rights;
use tokencached::cache::{Cache, Options};
use tokencached::clock::Now;
use tokencached::credential::table::{CredentialWriter, KeyConfig, Published, Table, TableConfig};
use tokencached::encoding::View;
use tokencached::protocol::{RequestStep, parse::step};
use tokencached::service::{CommandOutcome, Context, KEYS_PER_TURN, Output, Service, Settings};
use tokencached::stats::Stats;

use crate::support::{APPID, Client, Node, TIMEOUT, Wechat, wait_for};

const HOT_CLIENTS: u64 = 8;
const UNIFORM_CLIENTS: u64 = 8;
const PIPELINE: usize = 50;
const KEYS: u64 = 500;
/// The hot key is read on until it has changed so often.
const CHANGES: u64 = 4;
const TOKEN_BYTES: usize = 136;

/// What the clients have done, as `stats` should have it.
#[derive(Default)]
struct ExpectedStats {
    gets: AtomicU64,
    hits: AtomicU64,
    managed_hits: AtomicU64,
    sets: AtomicU64,
}

/// Everything the clients share.
struct Shared {
    wechat: Wechat,
    node: Node,
    books: ExpectedStats,
    /// The token of each generation, as the first client has seen it.
    tokens: Mutex<HashMap<u64, Vec<u8>>>,
    over: AtomicBool,
}

impl Shared {
    fn start(workers: usize) -> Shared {
        let wechat = Wechat::short_lived(4);
        let config = wechat.config("first_get_wait_ms = 900", "aliases = [\"hot\"]");
        let node = Node::start(&config, &["-t", &workers.to_string(), "-c", "100"]);
        Shared { wechat, node, books: ExpectedStats::default(), tokens: Mutex::default(), over: AtomicBool::new(false) }
    }

    /// Reads the hot key, many times in a pipeline, until the others are done too.
    fn read_hot(&self) {
        let mut client = self.node.connect();
        let mut last = 0;
        let mut seen = HashMap::new();
        while !self.over.load(Relaxed) {
            client.send("gets hot\r\n".repeat(PIPELINE));
            for _ in 0..PIPELINE {
                self.books.gets.fetch_add(1, Relaxed);
                let Some((generation, token)) = next_value(&mut client) else { continue };
                self.books.hits.fetch_add(1, Relaxed);
                self.books.managed_hits.fetch_add(1, Relaxed);
                assert!(generation >= last, "generation {generation} after {last} on one connection");
                last = generation;
                let known = seen.entry(generation).or_insert_with(|| self.token_of(generation, &token));
                assert_eq!(known.escape_ascii().to_string(), token.escape_ascii().to_string());
            }
        }
    }

    /// What everybody else has seen as this generation.
    fn token_of(&self, generation: u64, token: &[u8]) -> Vec<u8> {
        assert_eq!(token.len(), TOKEN_BYTES);
        let mut tokens = self.tokens.lock().unwrap();
        let known = tokens.entry(generation).or_insert_with(|| token.to_vec()).clone();
        let (seen, minted) = (tokens.len() as u64, self.wechat.calls(APPID).minted);
        assert!(seen <= minted, "{seen} generations of {minted} tokens that were made");
        known
    }

    /// Keys of its own, each as likely as the other; every answer is known beforehand.
    fn use_uniform(&self, number: u64) {
        let mut client = self.node.connect();
        let mut rng = Rng::with_seed(number);
        let mut stored: HashMap<u64, String> = HashMap::new();
        while !self.over.load(Relaxed) {
            let (mut send, mut expected) = (String::new(), String::new());
            for _ in 0..PIPELINE {
                let n = rng.u64(..KEYS);
                if rng.u8(..4) == 0 {
                    let value = format!("{n}-{}", rng.u64(..)).repeat(rng.usize(1..20));
                    send += &format!("set uniform-{number}-{n} 0 0 {}\r\n{value}\r\n", value.len());
                    expected += "STORED\r\n";
                    stored.insert(n, value);
                    self.books.sets.fetch_add(1, Relaxed);
                    continue;
                }
                send += &format!("get uniform-{number}-{n}\r\n");
                self.books.gets.fetch_add(1, Relaxed);
                if let Some(value) = stored.get(&n) {
                    expected += &format!("VALUE uniform-{number}-{n} 0 {}\r\n{value}\r\n", value.len());
                    self.books.hits.fetch_add(1, Relaxed);
                }
                expected += "END\r\n";
            }
            client.expect(send, expected);
        }
    }

    /// Kills token after token, and reports each, until the hot key has changed often enough.
    fn change_the_token(&self) {
        let mut client = self.node.connect();
        let generation = |client: &mut Client| {
            client.stat("tokens", &format!("{APPID}:generation")).unwrap().parse::<u64>().unwrap()
        };
        wait_for("the first token", || Some(generation(&mut client)).filter(|generation| *generation > 0));
        for _ in 0..CHANGES {
            let before = generation(&mut client);
            self.wechat.kill_tokens(APPID);
            client.expect("delete hot\r\n", "DELETED\r\n");
            wait_for("another token", || Some(generation(&mut client)).filter(|now| *now > before));
        }
        // Every change has been seen by somebody before the end.
        let newest = generation(&mut client);
        wait_for("a reader of the newest token", || {
            self.tokens.lock().unwrap().keys().any(|seen| *seen >= newest).then_some(())
        });
    }

    fn check_the_books(&self) {
        let mut client = self.node.connect();
        wait_for("the others to go", || (client.stat("", "curr_connections")? == "1").then_some(()));
        let mut shown = |name: &str| client.stat("", name).unwrap().parse::<u64>().unwrap();
        let [gets, hits, managed_hits, sets] =
            [&self.books.gets, &self.books.hits, &self.books.managed_hits, &self.books.sets]
                .map(|sum| sum.load(Relaxed));
        assert_eq!(shown("cmd_get"), gets);
        assert_eq!(shown("get_hits"), hits);
        assert_eq!(shown("get_misses"), gets - hits);
        assert_eq!(shown("managed_hits"), managed_hits);
        assert_eq!(shown("cmd_set"), sets);
        let tokens = self.tokens.lock().unwrap();
        let different: std::collections::HashSet<_> = tokens.values().collect();
        assert_eq!(different.len(), tokens.len(), "a token for each generation, and another for each");
        assert!(tokens.len() as u64 >= 2 && managed_hits > 0 && sets > 0);
    }
}

/// The answer to a `gets`: cas and value, or none on a miss. Anything else fails.
fn next_value(client: &mut Client) -> Option<(u64, Vec<u8>)> {
    let head = line(client);
    if head == "END" {
        return None;
    }
    let words: Vec<&str> = head.split(' ').collect();
    let ["VALUE", "hot", "0", length, cas] = words[..] else { panic!("{head:?} is no answer") };
    let value = client.read(length.parse().unwrap());
    assert_eq!(client.read(7), b"\r\nEND\r\n");
    Some((cas.parse().unwrap(), value))
}

/// Never reads beyond the line: what follows is the next answer.
fn line(client: &mut Client) -> String {
    let mut line = client.read(3);
    while !line.ends_with(b"\r\n") {
        let next = client.read(1);
        assert!(!next.is_empty(), "the server hung up after {}", line.escape_ascii());
        line.extend(next);
    }
    line.truncate(line.len() - 2);
    String::from_utf8(line).unwrap()
}

fn hammer(workers: usize) {
    let scene = Shared::start(workers);
    thread::scope(|scope| {
        let clients: Vec<_> = (0..HOT_CLIENTS + UNIFORM_CLIENTS)
            .map(|number| {
                let scene = &scene;
                scope.spawn(move || if number < HOT_CLIENTS { scene.read_hot() } else { scene.use_uniform(number) })
            })
            .collect();
        // Whatever goes wrong here must not leave the clients running.
        let changed = thread::Builder::new().spawn_scoped(scope, || scene.change_the_token()).unwrap().join();
        scene.over.store(true, Relaxed);
        clients.into_iter().for_each(|client| client.join().unwrap());
        changed.unwrap();
    });
    scene.check_the_books();
}

#[test]
#[ignore = "waits for real time"]
fn one_worker_under_a_hot_key_and_uniform_ones() {
    hammer(1);
}

#[test]
#[ignore = "waits for real time"]
fn two_workers_under_a_hot_key_and_uniform_ones() {
    hammer(2);
}

#[test]
#[ignore = "waits for real time"]
fn four_workers_under_a_hot_key_and_uniform_ones() {
    hammer(4);
}

#[test]
#[ignore = "waits for real time"]
fn eight_workers_under_a_hot_key_and_uniform_ones() {
    hammer(8);
}

/// A service with one managed key, `hot`, without sockets.
struct InProcessService {
    service: Service,
    credential: CredentialWriter,
}

impl InProcessService {
    fn new() -> Arc<InProcessService> {
        let key = KeyConfig { name: "hot".to_owned(), redacted_name: None, view: View::RAW };
        let (table, mut writers, _requests) = Table::new(TableConfig::of([("wx1", vec![key])]));
        let credential = writers.remove(0);
        let cache =
            Cache::new(&Options { budget_bytes: 8 << 20, item_size_max_bytes: 1 << 20, evict: true, shards: 4 });
        let service = Service::new(cache, Arc::new(table), Arc::new(Stats::default()), Settings::default());
        credential.publish(value(1));
        Arc::new(InProcessService { service, credential })
    }

    /// What a client gets, from a thread of its own that is given up if it does not answer.
    fn get(self: &Arc<InProcessService>) -> String {
        let (answer, answered) = mpsc::channel();
        let in_process = self.clone();
        thread::spawn(move || answer.send(in_process.execute(b"gets hot\r\n")));
        answered.recv_timeout(TIMEOUT).expect("a reader waits for a writer")
    }

    fn execute(&self, bytes: &[u8]) -> String {
        let RequestStep::Request { request, .. } = step(bytes, 1 << 20) else { panic!("not a request") };
        let mut out = Output::default();
        let mut context = Context {
            now: Now::read(),
            stats: &self.service.stats.register_worker(),
            peer: &"",
            rights: &Rights::ALL,
            names: &self.service.table.names(),
            may_wait: true,
            memory_short: false,
            keys_left: KEYS_PER_TURN,
            out: &mut out,
        };
        assert!(matches!(self.service.execute(&request, 0, &mut context), CommandOutcome::Done));
        String::from_utf8(out.to_vec()).unwrap()
    }
}

fn value(generation: u64) -> Published {
    Published::to_the_end(Bytes::from_static(b"TOKEN"), generation, u64::MAX)
}

fn answer(generation: u64) -> String {
    format!("VALUE hot 0 5 {generation}\r\nTOKEN\r\nEND\r\n")
}

#[test]
fn readers_do_not_wait_for_who_holds_the_status() {
    let in_process = InProcessService::new();
    let shown = {
        let (in_process, mut shown) = (in_process.clone(), String::new());
        in_process.credential.update_status(|_| shown = in_process.get());
        shown
    };
    assert_eq!(shown, answer(1));
}

/// `publish` wakes those who wait, and they may hold it up there.
#[test]
fn readers_do_not_wait_for_a_writer_that_is_stuck_in_waking_others() {
    let in_process = InProcessService::new();
    let changes = in_process.credential.subscribe();
    let held = changes.borrow();
    let writer = {
        let in_process = in_process.clone();
        thread::spawn(move || in_process.credential.publish(value(2)))
    };
    // The swap comes before the waking.
    wait_for("the new value", || (in_process.get() == answer(2)).then_some(()));
    assert!(!writer.is_finished(), "the writer was to be stuck");
    assert_eq!(in_process.get(), answer(2));
    drop(held);
    writer.join().unwrap();
}

/// Memory whose freeing takes until somebody says so.
struct SlowToFree {
    freeing: mpsc::Sender<()>,
    freed: Mutex<mpsc::Receiver<()>>,
}

impl AsRef<[u8]> for SlowToFree {
    fn as_ref(&self) -> &[u8] {
        b"TOKEN"
    }
}

impl Drop for SlowToFree {
    fn drop(&mut self) {
        let _ = self.freeing.send(());
        let _ = self.freed.lock().unwrap().recv();
    }
}

#[test]
fn readers_do_not_wait_for_a_writer_that_is_stuck_in_the_swap() {
    let in_process = InProcessService::new();
    let ((freeing, begun), (free, freed)) = (mpsc::channel(), mpsc::channel());
    let stuck = Bytes::from_owner(SlowToFree { freeing, freed: Mutex::new(freed) });
    in_process.credential.publish(Published::to_the_end(stuck, 2, u64::MAX));
    assert_eq!(in_process.get(), answer(2));
    let writer = {
        let in_process = in_process.clone();
        thread::spawn(move || in_process.credential.publish(value(3)))
    };
    begun.recv_timeout(TIMEOUT).expect("the old value is freed by who has swapped it");
    assert!(!writer.is_finished(), "the writer was to be stuck");
    assert_eq!(in_process.get(), answer(3));
    free.send(()).unwrap();
    writer.join().unwrap();
}
