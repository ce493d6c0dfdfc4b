//! A follower and its leader, over real HTTP: the leader is a real node, or something else.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use tempfile::TempDir;
use tokencached::clock::boot_ms;
use tokencached::cluster::LeaderOptions;
use tokencached::cluster::http::HttpStore;
use tokencached::cluster::seal::{PublishedValue, Seal};
use tokencached::cluster::{
    ClusterEvent, ClusterStore, Op, Record, RefreshReason, StoreClockReading, Unreachable, WatchedRecord,
};
use tokencached::sandbox::{AppOptions, Endpoint, FaultKind, InjectedFault, Options};
use tokencached::secret::Secret;
use tokencached::secret_source::SecretSource;
use tokio::runtime::Runtime;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use crate::http_api::{API_HEADER, HttpNode, KEYS, bearer, credential, key};
use crate::refresher::Tls;
use crate::support::{APPID, Node, SECRET, TIMEOUT, Wechat, free_address, wait_for, write};

const SEALING: &str = "drawn at random by the process";
const TAG: &str = "the token";

/// A node that renews, with its HTTP API there, and these lines in `[http]` and in the app's table.
fn node_in(folder: TempDir, wechat: &Wechat, address: SocketAddr, http: &str, app: &str) -> HttpNode {
    let http = format!("[http]\nlisten = [\"{address}\"]\nrequests_per_s = 100000\n{http}\n");
    let node = Node::start_in(folder, &format!("{http}{}", wechat.config("", app)), &[]);
    HttpNode { node, address }
}

fn node(wechat: &Wechat) -> HttpNode {
    node_in(tempfile::tempdir().unwrap(), wechat, free_address(), "", "")
}

fn keyed(wechat: &Wechat, app: &str) -> HttpNode {
    let folder = tempfile::tempdir().unwrap();
    write(folder.path(), "keys", KEYS);
    node_in(folder, wechat, free_address(), "keys_file = \"{folder}/keys\"", app)
}

fn url(address: SocketAddr) -> String {
    format!("http://{address}")
}

fn of(urls: &[String]) -> LeaderOptions {
    let (urls, node) = (urls.to_vec(), "follower".to_owned());
    LeaderOptions { urls, key: None, ca_file: None, timeout_ms: 10_000, poll_every_ms: 1_000, node }
}

fn with_key(leader: &HttpNode, name: &str) -> LeaderOptions {
    let key = SecretSource::Fixed(Secret::new(key(name).to_owned()));
    LeaderOptions { key: Some(key), ..of(&[url(leader.address)]) }
}

fn watched(tag: &str, app: &str, kind: &'static str) -> WatchedRecord {
    WatchedRecord { tag: tag.into(), app: app.into(), kind, renews: false }
}

/// A process that follows, as its refresher would see it.
struct Follower {
    runtime: Runtime,
    store: Arc<HttpStore>,
    events: mpsc::Receiver<ClusterEvent>,
    end: CancellationToken,
    watched: Arc<[WatchedRecord]>,
}

impl Follower {
    fn start(nodes: &LeaderOptions) -> Follower {
        Follower::of(nodes, vec![watched(TAG, APPID, "access_token")])
    }

    fn of(nodes: &LeaderOptions, watched: Vec<WatchedRecord>) -> Follower {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
        let store = HttpStore::new(nodes, Secret::new(SEALING.into())).unwrap();
        assert!(!store.has_leases());
        let (sender, events) = mpsc::channel(4_096);
        let (watched, end): (Arc<[WatchedRecord]>, _) = (watched.into(), CancellationToken::new());
        runtime.spawn(store.clone().watch(watched.clone(), sender, end.clone()));
        Follower { runtime, store, events, end, watched }
    }

    #[track_caller]
    fn next(&mut self) -> ClusterEvent {
        let Follower { runtime, events, .. } = self;
        let came = runtime.block_on(async { tokio::time::timeout(TIMEOUT, events.recv()).await });
        came.expect("waited in vain for news").expect("the watching ended")
    }

    fn unseal(&self, index: usize, record: &Record) -> Option<PublishedValue> {
        let seal = Seal::new(&Secret::new(SEALING.into()), &self.watched[index].tag);
        let value = record.value.as_deref().map(|sealed| seal.unseal(sealed).unwrap())?;
        assert_eq!(value.generation, record.generation);
        Some(value)
    }

    /// Waits for a value of that credential which fits.
    #[track_caller]
    fn value(&mut self, index: usize, fits: impl Fn(&PublishedValue) -> bool) -> (PublishedValue, StoreClockReading) {
        loop {
            if let ClusterEvent::RecordChanged { index: of, record, clock_reading } = self.next()
                && of == index
                && let Some(value) = self.unseal(index, &record)
                && fits(&value)
            {
                return (value, clock_reading);
            }
        }
    }

    /// Waits for that to be said of the other node.
    #[track_caller]
    fn said(&mut self, fits: impl Fn(&Result<(), Unreachable>) -> bool) -> Result<(), Unreachable> {
        loop {
            if let ClusterEvent::Reachable(said) = self.next()
                && fits(&said)
            {
                return said;
            }
        }
    }

    #[track_caller]
    fn trouble(&mut self, words: &str) -> Unreachable {
        let said = self.said(|said| said.as_ref().is_err_and(|said| said.text.contains(words))).unwrap_err();
        assert!(!said.advice.is_empty());
        for name in ["ops", "web", "monitor"] {
            assert!(!said.text.contains(key(name)), "{said:?}");
        }
        said
    }

    #[track_caller]
    fn well(&mut self) {
        self.said(Result::is_ok).unwrap();
    }

    fn request_refresh(&self, tag: &str, generation: Option<u64>, why: RefreshReason) -> Result<(), Unreachable> {
        self.runtime.block_on(self.store.request_refresh(tag, generation, why))
    }

    /// The last value among the events that are there already.
    fn there(&mut self, index: usize) -> Option<PublishedValue> {
        let mut last = None;
        while let Ok(event) = self.events.try_recv() {
            if let ClusterEvent::RecordChanged { index: of, record, .. } = event
                && of == index
            {
                last = self.unseal(index, &record).or(last);
            }
        }
        last
    }

    fn read(&self, tag: &str) -> Result<Record, Unreachable> {
        self.runtime.block_on(self.store.ask(tag, Op::Read)).map(|answer| answer.record)
    }
}

impl Drop for Follower {
    fn drop(&mut self) {
        self.end.cancel();
        let Follower { runtime, events, .. } = self;
        // Nobody is told anything after the end.
        let over = runtime
            .block_on(async { tokio::time::timeout(TIMEOUT, async { while events.recv().await.is_some() {} }).await });
        assert!(over.is_ok() || std::thread::panicking(), "the watching does not end");
    }
}

/// Has the node make another token, and gives that.
fn renew(wechat: &Wechat, leader: &HttpNode, headers: &[&str]) -> (String, u64) {
    let (before, _) = leader.token(headers);
    wechat.kill_tokens(APPID);
    let answer = leader.post(&credential("access_token", "/refresh"), headers, &format!("{{\"token\":\"{before}\"}}"));
    assert_eq!(answer.json()["verdict"], "renewed", "{answer:?}");
    leader.token(headers)
}

#[test]
#[ignore = "waits for real time"]
fn all_values_arrive_with_their_ends_and_then_each_renewal() {
    let wechat = Wechat::short_lived(8);
    let other = node_in(tempfile::tempdir().unwrap(), &wechat, free_address(), "", "tickets = [\"jsapi\"]");
    let both = vec![watched(TAG, APPID, "access_token"), watched("a ticket", APPID, "jsapi_ticket")];
    wait_for("both", || (other.get("/readyz?strict", &[]).status == 200).then_some(()));
    let mut follower = Follower::of(&of(&[url(other.address)]), both);
    let (value, clock_reading) = follower.value(0, |_| true);
    let end_ms = clock_reading.to_boot_ms(value.expires_ms);
    // Read later, on the same machine's clock: no earlier an end than the one told.
    let page = other.get("/v1/credentials", &[API_HEADER]).json();
    let shown = page["credentials"].as_array().unwrap().iter().find(|of| of["type"] == "access_token").unwrap().clone();
    if shown["generation"] == value.generation {
        assert_eq!(shown["token"], value.value.as_str());
        let left_ms = shown["expires_in_ms"].as_u64().unwrap();
        assert!(end_ms <= boot_ms() + left_ms, "served beyond its end");
    }
    assert_eq!((value.life_ms, value.withdrawn), (8_000, false));
    let (ticket, _) = follower.value(1, |_| true);
    assert_eq!(other.node.connect().get(&format!("jsapi_ticket:{APPID}")).unwrap(), ticket.value.as_bytes());
    follower.well();
    let mut last = value;
    for _ in 0..2 {
        let (next, _) = follower.value(0, |next| next.generation > last.generation);
        assert_ne!(next.value, last.value);
        assert_eq!(next.generation, last.generation + 1, "each one");
        last = next;
    }
    assert_eq!(follower.read(TAG).unwrap().generation, last.generation);
    assert!(follower.read("another").is_err());
    let taking = Op::Take { node: 1, lease_ms: 1, known_generation: 0, spacing_ms: 0 };
    assert!(follower.runtime.block_on(follower.store.ask(TAG, taking)).is_err());
}

#[test]
fn what_does_not_live_there_is_told_as_nothing_and_comes_when_it_does() {
    let wechat = Wechat::start();
    wechat.set_fault(APPID, InjectedFault::new(FaultKind::Errcode { errcode: 40164, errmsg: String::new() }));
    let other = node(&wechat);
    wait_for("the failure", || (other.shown("access_token", &[])["state"] == "blocked").then_some(()));
    let mut follower = Follower::start(&of(&[url(other.address)]));
    let ClusterEvent::RecordChanged { index: 0, record, .. } = follower.next() else { panic!("nothing is told") };
    assert_eq!(record, Record::default());
    follower.well();
    wechat.clear_fault(APPID);
    other.post(&credential("access_token", "/refresh"), &[API_HEADER], "");
    follower.value(0, |value| value.generation > 0);
}

#[test]
fn a_value_that_wechat_refuses_is_told_as_withdrawn() {
    let wechat = Wechat::start();
    let other = node(&wechat);
    other.token(&[API_HEADER]);
    let mut follower = Follower::start(&of(&[url(other.address)]));
    let (first, _) = follower.value(0, |_| true);
    follower.well();
    wechat.kill_tokens(APPID);
    wechat.set_fault(APPID, InjectedFault::new(FaultKind::Errcode { errcode: -1, errmsg: String::new() }));
    follower.request_refresh(TAG, Some(first.generation), RefreshReason::Probe).unwrap();
    let (value, _) = follower.value(0, |value| value.withdrawn);
    assert_eq!((value.value, value.generation), (first.value, first.generation));
}

#[test]
fn a_node_that_was_killed_is_followed_again_when_it_is_back() {
    let wechat = Wechat::start();
    let other = node(&wechat);
    other.token(&[API_HEADER]);
    let (address, mut follower) = (other.address, Follower::start(&of(&[url(other.address)])));
    let (first, _) = follower.value(0, |_| true);
    follower.well();
    let folder = other.node.kill();
    let said = follower.trouble("");
    assert!(said.text.contains(&url(address)), "{said:?}");
    assert_eq!(follower.read(TAG).unwrap().generation, first.generation, "the last one is known");
    assert!(follower.request_refresh(TAG, None, RefreshReason::Renew).is_err());
    let other = node_in(folder, &wechat, address, "", "");
    follower.well();
    let (token, generation) = renew(&wechat, &other, &[API_HEADER]);
    let (value, _) = follower.value(0, |value| value.value == token);
    assert_eq!(value.generation, generation);
}

#[test]
fn a_node_that_has_lost_its_state_is_followed_all_the_same() {
    let wechat = Wechat::start();
    let other = node(&wechat);
    other.token(&[API_HEADER]);
    for _ in 0..2 {
        renew(&wechat, &other, &[API_HEADER]);
    }
    let (address, mut follower) = (other.address, Follower::start(&of(&[url(other.address)])));
    let (before, _) = follower.value(0, |_| true);
    drop(other);
    let other = node_in(tempfile::tempdir().unwrap(), &wechat, address, "", "");
    let (token, generation) = renew(&wechat, &other, &[API_HEADER]);
    let (value, _) = follower.value(0, |value| value.value == token);
    assert!(value.generation > before.generation, "the count goes on without the state");
    assert_eq!(value.generation, generation);
    wechat.kill_tokens(APPID);
    follower.there(0);
    follower.request_refresh(TAG, Some(value.generation), RefreshReason::Report).unwrap();
    let next = follower.there(0).expect("the successor is here when the request is finished");
    assert_eq!(next.generation, value.generation + 1);
    assert_eq!(next.value, other.token(&[API_HEADER]).0);
}

#[test]
fn when_the_first_of_two_nodes_dies_the_second_is_followed_and_nothing_is_said() {
    let wechat = Wechat::start();
    let (first, second) = (node(&wechat), node(&wechat));
    let (token, _) = first.token(&[API_HEADER]);
    second.token(&[API_HEADER]);
    let mut follower = Follower::start(&of(&[url(first.address), url(second.address)]));
    follower.value(0, |value| value.value == token);
    follower.well();
    drop(first);
    let (token, _) = renew(&wechat, &second, &[API_HEADER]);
    loop {
        match follower.next() {
            ClusterEvent::RecordChanged { record, .. }
                if follower.unseal(0, &record).is_some_and(|value| value.value == token) =>
            {
                break;
            }
            ClusterEvent::Reachable(said) => panic!("{said:?}"),
            _ => {}
        }
    }
    // A refresh request changes nothing about that.
    wechat.kill_tokens(APPID);
    follower.request_refresh(TAG, None, RefreshReason::Report).unwrap();
    assert_eq!(follower.there(0).map(|value| value.value), Some(second.token(&[API_HEADER]).0));
    let address = second.address;
    drop(second);
    let said = follower.trouble("");
    assert!(said.text.contains(&url(address)), "{said:?}");
}

#[test]
fn a_wrong_key_is_said_and_a_right_one_is_read_without_a_restart() {
    let wechat = Wechat::start();
    let other = keyed(&wechat, "");
    let (token, _) = other.token(&[&bearer("ops")]);
    let mut bare = Follower::start(&of(&[url(other.address)]));
    bare.trouble("asks for a key");
    let folder = tempfile::tempdir().unwrap();
    let file = write(folder.path(), "key", "wrong-0123456789abcdef");
    let nodes = LeaderOptions { key: Some(SecretSource::file(file)), ..of(&[url(other.address)]) };
    let mut follower = Follower::start(&nodes);
    let said = follower.trouble("does not know this node's key");
    assert!(!said.text.contains("wrong-0123"), "{said:?}");
    write(folder.path(), "key", &format!("{}\n", key("monitor")));
    follower.trouble("too few rights");
    // A file that is missing for a while leaves the key as it was.
    std::fs::remove_file(folder.path().join("key")).unwrap();
    write(folder.path(), "key", &format!("{}\n", key("ops")));
    follower.value(0, |value| value.value == token);
    follower.well();
}

#[test]
fn a_key_for_one_app_brings_that_app_and_says_what_is_missing() {
    let known = AppOptions { appid: "wxsecond".into(), secret: SECRET.into(), ..AppOptions::default() };
    let wechat = Wechat::with(Options { apps: vec![known], ..Options::default() });
    let other = keyed(&wechat, &format!("[[app]]\nappid = \"wxsecond\"\nsecret = \"{SECRET}\"\n"));
    wait_for("both", || (other.get("/readyz?strict", &[]).status == 200).then_some(()));
    let both = vec![watched("second", "wxsecond", "access_token"), watched(TAG, APPID, "access_token")];
    let mut follower = Follower::of(&with_key(&other, "web"), both.clone());
    let (value, _) = follower.value(1, |_| true);
    let said = follower.trouble("does not show access_token of wxsecond");
    assert!(said.advice.contains("rights"), "{said:?}");
    // The others go on.
    let (token, _) = renew(&wechat, &other, &[API_HEADER, &bearer("ops")]);
    follower.value(1, |next| next.value == token && next.generation > value.generation);
    let refused = follower.request_refresh(TAG, None, RefreshReason::Report).unwrap_err();
    assert!(refused.text.contains("too few rights"), "{refused:?}");
    assert!(follower.request_refresh("second", None, RefreshReason::Report).unwrap_err().text.contains("no such app"));
    // What the operator does about it counts at once.
    let more = KEYS.replace("read:wx0123456789abcdef", "read:wx0123456789abcdef read:wxsecond");
    write(other.node.folder.path(), "keys", &more);
    other.node.signal("HUP");
    follower.value(0, |_| true);
    follower.well();
}

#[test]
fn tls_is_spoken_with_whom_the_named_authority_vouches_for_and_nobody_else() {
    let wechat = Wechat::start();
    let (tls, stranger) = (Tls::make("127.0.0.1", false), Tls::make("127.0.0.1", false));
    let files = format!(
        "[http.tls]\ncert = \"{}\"\nkey = \"{}\"",
        tls.file("cert.pem").display(),
        tls.file("key.pem").display()
    );
    let other = node_in(tempfile::tempdir().unwrap(), &wechat, free_address(), &files, "");
    wait_for("the token", || other.node.connect().get(&format!("access_token:{APPID}")));
    let there = |ca_file: Option<PathBuf>| LeaderOptions { ca_file, ..of(&[format!("https://{}", other.address)]) };
    let mut follower = Follower::start(&there(Some(tls.file("ca.pem"))));
    follower.value(0, |_| true);
    follower.well();
    follower.request_refresh(TAG, None, RefreshReason::Probe).unwrap();
    for ca_file in [None, Some(stranger.file("ca.pem"))] {
        let mut follower = Follower::start(&there(ca_file));
        let said = follower.trouble("is not trusted");
        assert!(said.advice.contains("leader_ca_file"), "{said:?}");
        assert!(follower.read(TAG).is_err());
    }
    for file in [tls.file("key.pem"), tls.file("missing.pem")] {
        let refused = HttpStore::new(&there(Some(file.clone())), Secret::new("x".into())).err().unwrap();
        assert!(refused.starts_with(&format!("state.leader_ca_file {}: ", file.display())), "{refused}");
    }
}

#[test]
fn a_wish_has_the_value_looked_into_there_and_the_answer_is_here_when_it_is_over() {
    let wechat = Wechat::start();
    let other = keyed(&wechat, "");
    other.token(&[&bearer("ops")]);
    let mut follower = Follower::start(&with_key(&other, "ops"));
    let (first, _) = follower.value(0, |_| true);
    follower.well();
    let probes = || wechat.calls(APPID).of(Endpoint::GetApiDomainIp);
    let before = probes();
    follower.request_refresh(TAG, None, RefreshReason::Probe).unwrap();
    assert_eq!(probes(), before + 1, "it was tried");
    assert_eq!(follower.there(0).map(|value| value.generation), Some(first.generation));
    wechat.kill_tokens(APPID);
    follower.request_refresh(TAG, Some(first.generation), RefreshReason::Report).unwrap();
    let next = follower.there(0).expect("the new token");
    assert_eq!(next.generation, first.generation + 1);
    assert_eq!(next.value, other.token(&[&bearer("ops")]).0);
    let calls = wechat.calls(APPID).recent.len();
    follower.request_refresh(TAG, Some(first.generation), RefreshReason::Report).unwrap();
    assert_eq!(wechat.calls(APPID).recent.len(), calls, "late news of an earlier value");
    assert_eq!(follower.there(0).map(|value| value.value), Some(next.value));
    assert!(follower.request_refresh("another", None, RefreshReason::Renew).is_err());
}

#[test]
fn many_wishes_at_once_all_end() {
    let wechat = Wechat::start();
    let other = node(&wechat);
    other.token(&[API_HEADER]);
    let mut follower = Follower::start(&of(&[url(other.address)]));
    let (first, _) = follower.value(0, |_| true);
    wechat.kill_tokens(APPID);
    let requests: Vec<_> = (0..100)
        .map(|_| {
            let store = follower.store.clone();
            follower
                .runtime
                .spawn(async move { store.request_refresh(TAG, Some(first.generation), RefreshReason::Report).await })
        })
        .collect();
    for request in requests {
        follower.runtime.block_on(request).unwrap().unwrap();
    }
    assert_eq!(follower.there(0).map(|value| value.generation), Some(first.generation + 1));
    assert_eq!(wechat.calls(APPID).of(Endpoint::StableToken), 2);
}

#[test]
#[ignore = "waits for real time"]
fn a_node_that_hangs_is_given_up_and_taken_up_again() {
    let wechat = Wechat::start();
    let other = node(&wechat);
    other.token(&[API_HEADER]);
    let mut follower = Follower::start(&LeaderOptions { timeout_ms: 500, ..of(&[url(other.address)]) });
    follower.value(0, |_| true);
    follower.well();
    other.node.signal("STOP");
    follower.trouble("did not answer in time");
    other.node.signal("CONT");
    follower.well();
    let (token, _) = renew(&wechat, &other, &[API_HEADER]);
    follower.value(0, |value| value.value == token);
}

#[test]
fn pages_of_apps_all_arrive() {
    let id = |n: usize| format!("wx{n:016x}");
    let known = (0..1_100).map(|n| AppOptions { appid: id(n), secret: "s".into(), ..AppOptions::default() });
    let wechat = Wechat::with(Options { apps: known.collect(), ..Options::default() });
    let tables: String = (0..1_100).map(|n| format!("[[app]]\nappid = \"{}\"\nsecret = \"s\"\n", id(n))).collect();
    let other = node_in(tempfile::tempdir().unwrap(), &wechat, free_address(), "", &tables);
    wait_for("all tokens", || (other.get("/readyz?strict", &[]).status == 200).then_some(()));
    let all = (0..1_100).map(|n| watched(&format!("tag {n}"), &id(n), "access_token")).collect();
    let mut follower = Follower::of(&of(&[url(other.address)]), all);
    let mut seen = vec![false; 1_100];
    loop {
        match follower.next() {
            ClusterEvent::RecordChanged { index, record, .. } => {
                seen[index] |= follower.unseal(index, &record).is_some()
            }
            ClusterEvent::Reachable(said) => break said.unwrap(),
            ClusterEvent::UpToDate { .. } => {}
            ClusterEvent::RefreshRequested { .. } => panic!("nobody requests a refresh"),
        }
    }
    assert!(seen.iter().all(|seen| *seen), "everything is there before the other node counts as reachable");
}

/// Something that listens and is no tokencached: every request gets the bytes for its number and its head, without an
/// end if `endless`.
pub struct Impostor {
    pub address: SocketAddr,
    ended: Arc<AtomicBool>,
    thread: Option<std::thread::JoinHandle<()>>,
}

impl Impostor {
    pub fn start(answer: impl Fn(usize, &str) -> Vec<u8> + Send + 'static, endless: bool) -> Impostor {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let (address, ended) = (listener.local_addr().unwrap(), Arc::new(AtomicBool::new(false)));
        let over = ended.clone();
        let thread = std::thread::spawn(move || {
            for (number, stream) in listener.incoming().enumerate() {
                if over.load(Ordering::Acquire) {
                    return;
                }
                let _ = Impostor::answer(stream.unwrap(), |head| answer(number, head), endless);
            }
        });
        Impostor { address, ended, thread: Some(thread) }
    }

    fn answer(mut stream: TcpStream, answer: impl Fn(&str) -> Vec<u8>, endless: bool) -> std::io::Result<()> {
        stream.set_read_timeout(Some(TIMEOUT))?;
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") {
            let mut byte = [0];
            stream.read_exact(&mut byte)?;
            head.extend(byte);
        }
        let head = String::from_utf8_lossy(&head).to_lowercase();
        let length = head.lines().find_map(|line| line.strip_prefix("content-length: ")?.parse().ok()).unwrap_or(0);
        stream.read_exact(&mut vec![0; length])?;
        stream.write_all(&answer(&head))?;
        if !endless {
            return Ok(());
        }
        loop {
            stream.write_all(&[b'x'; 65_536])?;
        }
    }
}

impl Drop for Impostor {
    fn drop(&mut self) {
        self.ended.store(true, Ordering::Release);
        let _ = TcpStream::connect(self.address);
        let _ = self.thread.take().unwrap().join();
    }
}

pub fn http(body: &str) -> Vec<u8> {
    let head = "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nConnection: close\r\n";
    format!("{head}Content-Length: {}\r\n\r\n{body}", body.len()).into_bytes()
}

/// An answer as a node gives it, with this in place of the token's JSON and that added after `"more"`.
fn page(token: &str, more: &str) -> String {
    format!(
        "{{\"now_ms\":1,\"waited_ms\":0,\"run\":\"r\",\"from_start\":true,\"cursor\":\"c\",\"more\":{more},\
         \"credentials\":[{{\"app\":\"{APPID}\",\"kind\":\"access_token\",\"state\":\"fresh\",\"generation\":5,\
         \"token\":{token},\"expires_in_ms\":7000000,\"lifetime_ms\":7200000,\"fetched_at_ms\":1,\
         \"withdrawn\":false}}]}}"
    )
}

#[test]
fn an_impostor_whose_answer_would_do_is_believed_so_that_the_next_test_means_something() {
    let impostor = Impostor::start(|_, _| http(&page("\"TOKEN\"", "false")), false);
    let mut follower = Follower::start(&of(&[url(impostor.address)]));
    let (_, clock_reading) = follower.value(0, |value| value.value == "TOKEN");
    assert_eq!(clock_reading.store_ms, 1);
    // What the other node waited for had passed before it read its clock; nobody is believed to have waited longer
    // than the answer took.
    let late =
        |_: usize, _: &str| http(&page("\"TOKEN\"", "false").replace("\"waited_ms\":0", "\"waited_ms\":99999999"));
    let impostor = Impostor::start(late, false);
    let (_, clock_reading) = Follower::start(&of(&[url(impostor.address)])).value(0, |_| true);
    assert_eq!(clock_reading.sent_ms, clock_reading.received_ms);
}

#[test]
fn whatever_rubbish_another_server_answers_nothing_of_it_is_served() {
    let wechat = Wechat::start();
    let good = node(&wechat);
    good.token(&[API_HEADER]);
    let whole = http(&page("\"TOKEN\"", "false"));
    let to_good =
        format!("HTTP/1.1 302 Found\r\nLocation: {}/v1/credentials\r\nContent-Length: 0\r\n\r\n", url(good.address));
    let rubbish: Vec<(&str, &str, Vec<u8>)> = vec![
        ("nothing at all", "broke off", Vec::new()),
        ("no HTTP", "broke off", b"ERROR\r\n".to_vec()),
        ("half a head", "broke off", whole[..30].to_vec()),
        ("half a body", "broke off", whole[..whole.len() - 20].to_vec()),
        ("an endless body", "more than any", b"HTTP/1.1 200 OK\r\nContent-Length: 9999999999\r\n\r\n{".to_vec()),
        ("an endless head", "broke off", b"HTTP/1.1 200 OK\r\nX: ".to_vec()),
        ("another page", "no tokencached", http("<html>welcome</html>")),
        ("an empty body", "no tokencached", http("")),
        ("a list", "no tokencached", http("[]")),
        ("a number for a token", "no tokencached", http(&page("7", "false"))),
        ("a line break in a token", "no tokencached", http(&page("\"a\\r\\nset k 0 0 1\\r\\n\"", "false"))),
        ("an empty token", "no tokencached", http(&page("\"\"", "false"))),
        ("wrong words", "no tokencached", http(&page("\"TOKEN\"", "\"yes\""))),
        ("elsewhere", "sends elsewhere", to_good.into_bytes()),
        ("an error", "HTTP status 500", b"HTTP/1.1 500 Oops\r\nContent-Length: 0\r\n\r\n".to_vec()),
    ];
    for (what, words, answer) in rubbish {
        let endless = what.contains("endless");
        let impostor = Impostor::start(move |_, _| answer.clone(), endless);
        let nodes = LeaderOptions { timeout_ms: 2_000, ..of(&[url(impostor.address)]) };
        let mut follower = Follower::start(&nodes);
        match follower.next() {
            ClusterEvent::Reachable(Err(said)) => {
                assert!(said.text.contains(words) && !said.text.contains("TOKEN"), "{what}: {said:?}");
            }
            other => panic!("{what}: {other:?}"),
        }
        assert!(follower.read(TAG).is_err() && follower.there(0).is_none(), "{what}");
        drop(follower);
        // Nor does it keep a node from following one that is well.
        let nodes = LeaderOptions { timeout_ms: 2_000, ..of(&[url(impostor.address), url(good.address)]) };
        let mut follower = Follower::start(&nodes);
        follower.value(0, |_| true);
    }
}

#[test]
#[ignore = "waits for real time"]
fn one_that_tells_without_end_is_left_in_the_end() {
    // Each answer is sound, and there is always more.
    let answer = |number: usize, _: &str| {
        let body = page("\"TOKEN\"", "true").replace("\"c\"", &format!("\"c{number}\""));
        http(&if number == 0 { body } else { body.replace("\"from_start\":true", "\"from_start\":false") })
    };
    let impostor = Impostor::start(answer, false);
    Follower::start(&of(&[url(impostor.address)])).trouble("never ends");
}
