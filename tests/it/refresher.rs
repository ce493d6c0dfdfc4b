//! The refresher against the simulated WeChat API, over real connections. What one credential does is tested without
//! any in `src/credential/actor/tests.rs`.
//!
//! Names with a project and a number are that project's public incident, turned into a test.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "helpers of tests fail the test")]

use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use tokencached::clock::boot_ms;
use tokencached::credential::facts::{CallOutcome, FailureClass};
use tokencached::credential::state::{FileStore, StateStore};
use tokencached::credential::table::{Credential, CredentialState, CredentialStatus, Reading, Table};
use tokencached::credential::{App, Env, Refresher, build_in};
use tokencached::platform::{Class, Client, ClientOptions, CredentialType, Delivery, FetchParams, Pace, Upstream, mp};
use tokencached::sandbox::{AppOptions, Endpoint, FaultKind, InjectedFault, Options, Sandbox, Verdict};
use tokencached::secret::Secret;
use tokencached::secret_source::SecretSource;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use crate::support::{TIMEOUT, free_address};

pub const SECRET: &str = "0123456789abcdef0123456789abcdef";

/// A running refresher with some apps.
pub struct Node {
    pub table: Arc<Table>,
    stop: CancellationToken,
    running: JoinHandle<()>,
}

/// The table and the refresher of a single node on this machine.
pub fn build(upstream: &ClientOptions, apps: &[App], store: Option<Arc<dyn StateStore>>) -> (Arc<Table>, Refresher) {
    build_in(Env { store, ..Env::real(upstream).unwrap() }, upstream, apps)
}

impl Node {
    pub fn start(upstream: &ClientOptions, apps: &[App], store: Option<Arc<dyn StateStore>>) -> Node {
        let (table, refresher) = build(upstream, apps, store);
        let stop = CancellationToken::new();
        let running = tokio::spawn(refresher.run(stop.clone()));
        Node { table, stop, running }
    }

    pub fn of(sandbox: &Sandbox, app: App) -> Node {
        Node::start(&upstream(&sandbox.base_url()), &[app], None)
    }

    pub fn credential(&self) -> Arc<Credential> {
        self.table.credentials()[0].clone()
    }

    pub fn status(&self) -> CredentialStatus {
        self.credential().status(boot_ms())
    }

    /// How many values there were since the start.
    pub fn values(&self) -> u64 {
        self.status().outcomes.count(CallOutcome::New)
    }

    /// The generation of the present value.
    pub fn generation(&self) -> u64 {
        self.status().generation
    }

    pub fn token(&self) -> Option<String> {
        token(&self.credential())
    }

    pub async fn live(&self) -> String {
        until("a live value", || self.token().is_some()).await;
        self.token().unwrap()
    }

    /// Reports the token as a client's `delete` does. Returns when the verification is over.
    pub async fn report(&self, generation: Option<u64>) {
        let done = self.table.report_refused(&self.credential(), generation).expect("room for a report");
        tokio::time::timeout(TIMEOUT, done).await.unwrap().unwrap();
    }

    pub async fn stop(self) {
        self.stop.cancel();
        tokio::time::timeout(TIMEOUT, self.running).await.unwrap().unwrap();
    }

    /// Ends it as `kill -9` does: nothing is finished and nothing is written.
    pub async fn kill(self) {
        self.running.abort();
        assert!(self.running.await.unwrap_err().is_cancelled());
    }
}

pub fn token(credential: &Credential) -> Option<String> {
    match credential.read(boot_ms()) {
        Reading::Live(value) => Some(String::from_utf8(value.as_ref().unwrap().value.to_vec()).unwrap()),
        _ => None,
    }
}

/// Waits for a condition.
pub async fn until(what: &str, mut holds: impl FnMut() -> bool) {
    let end = tokio::time::Instant::now() + TIMEOUT;
    while !holds() {
        assert!(tokio::time::Instant::now() < end, "never came: {what}");
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
}

pub fn upstream(base_url: &str) -> ClientOptions {
    ClientOptions { concurrency: 8, ..ClientOptions::at(base_url.to_owned()) }
}

/// For tests that count every call.
fn without_probes(appid: &str) -> App {
    App { probe_every_ms: Some(0), ..app(appid, &mp::STABLE) }
}

pub fn app(appid: &str, token: &'static CredentialType) -> App {
    App::mp(appid, SecretSource::Fixed(Secret::new(SECRET.to_owned())), token)
}

pub fn stable() -> App {
    app("wx1", &mp::STABLE)
}

pub fn classic() -> App {
    app("wx1", &mp::CLASSIC)
}

pub async fn sandbox(options: Options) -> Sandbox {
    sandbox_of(options, &["wx1"]).await
}

pub async fn sandbox_of(options: Options, appids: &[&str]) -> Sandbox {
    let known =
        |appid: &&str| AppOptions { appid: (*appid).to_owned(), secret: SECRET.to_owned(), ..AppOptions::default() };
    Sandbox::start(Options { apps: appids.iter().map(known).collect(), ..options }).await.unwrap()
}

pub fn fault(kind: FaultKind) -> InjectedFault {
    InjectedFault::new(kind)
}

#[tokio::test]
async fn both_endpoints_give_a_value_wechat_accepts() {
    for (app, endpoint) in [(stable(), Endpoint::StableToken), (classic(), Endpoint::Token)] {
        let sandbox = sandbox(Options::default()).await;
        let node = Node::of(&sandbox, app);
        assert_eq!(sandbox.judge(&node.live().await), Verdict::Accepted);
        assert_eq!((sandbox.calls("wx1").total(), sandbox.calls("wx1").of(endpoint)), (1, 1));
        let status = node.status();
        assert_eq!(
            (status.state, status.outcomes.count(CallOutcome::New), status.calls),
            (CredentialState::Fresh, 1, 1)
        );
        assert!(status.next_try_boot_ms < status.expires_boot_ms);
        node.stop().await;
    }
}

/// google-cloud-rust #4541: the refresh task ended after an error and nothing was ever fetched again.
#[tokio::test]
async fn google_cloud_rust_4541_a_refusal_slows_the_loop_down_and_never_ends_it() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("secret");
    std::fs::write(&file, "thewrongone\n").unwrap();
    let sandbox = sandbox(Options::default()).await;
    let node = Node::of(&sandbox, App { secret: SecretSource::file(&file), ..stable() });
    until("a refusal", || node.status().state == CredentialState::Blocked).await;
    let error = node.status().last_error.unwrap();
    assert_eq!((error.errcode.is_some(), error.class), (true, FailureClass::Operator), "{error:?}");
    assert!(!error.advice.is_empty() && !error.text.contains("thewrongone"), "{error:?}");
    let asked = sandbox.calls("wx1").total();
    assert_eq!(asked, 1, "a refusal is not retried fast");
    // Replaced as it should be: a new file in place of the old one.
    std::fs::write(folder.path().join("new"), format!("{SECRET}\n")).unwrap();
    std::fs::rename(folder.path().join("new"), &file).unwrap();
    assert_eq!(sandbox.judge(&node.live().await), Verdict::Accepted);
    assert_eq!(sandbox.calls("wx1").total(), 2);
    node.stop().await;
}

#[tokio::test]
async fn a_missing_secret_file_is_reported_without_a_call_and_tried_when_it_appears() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("secret");
    let sandbox = sandbox(Options::default()).await;
    let node = Node::of(&sandbox, App { secret: SecretSource::file(&file), ..stable() });
    until("a report", || node.status().state == CredentialState::Blocked).await;
    assert!(matches!(node.credential().read(boot_ms()), Reading::Absent), "nobody waits for this");
    assert_eq!(sandbox.calls("wx1").total(), 0);
    std::fs::write(&file, SECRET).unwrap();
    node.live().await;
    node.stop().await;
}

#[tokio::test]
async fn a_40164_names_the_ip_to_allow() {
    let sandbox = sandbox(Options::default()).await;
    sandbox.set_allowlist("wx1", Some(Vec::new()));
    let node = Node::of(&sandbox, stable());
    until("a refusal", || node.status().state == CredentialState::Blocked).await;
    let error = node.status().last_error.unwrap();
    assert_eq!(error.errcode, Some(40164));
    assert!(error.advice.contains("127.0.0.1") && error.advice.contains("wx1"), "{}", error.advice);
    assert!(error.rid.is_some());
    node.stop().await;
}

#[tokio::test]
async fn an_upstream_that_is_down_at_boot_is_found_when_it_comes_up() {
    let address = free_address();
    let node = Node::start(&upstream(&format!("http://{address}")), &[stable()], None);
    until("two failures", || node.status().failures >= 2).await;
    assert!(matches!(node.credential().read(boot_ms()), Reading::Absent));
    assert_eq!(node.status().state, CredentialState::Dead);
    let sandbox = sandbox(Options { listen: address, ..Options::default() }).await;
    assert_eq!(sandbox.judge(&node.live().await), Verdict::Accepted);
    assert_eq!(node.status().last_error, None);
    node.stop().await;
}

#[tokio::test]
async fn a_withdrawn_token_is_not_served_by_the_next_process_either() {
    let folder = tempfile::tempdir().unwrap();
    let sandbox = sandbox(Options::default()).await;
    let app = [App { forced_per_day: Some(0), ..stable() }];
    let store = || Some(Arc::new(FileStore::new(folder.path().join("state.json"))) as Arc<dyn StateStore>);
    let node = Node::start(&upstream(&sandbox.base_url()), &app, store());
    node.live().await;
    sandbox.kill_tokens_unnoticed("wx1");
    node.report(None).await;
    assert_eq!(node.token(), None);
    node.stop().await;
    let node = Node::start(&upstream(&sandbox.base_url()), &app, store());
    until("its first look", || node.status().dead_but_same > 0).await;
    assert_eq!(node.token(), None);
    node.stop().await;
}

/// A client may name the token that was refused.
#[tokio::test]
async fn a_report_by_token_checks_only_the_present_one() {
    let sandbox = sandbox(Options::default()).await;
    let node = Node::of(&sandbox, stable());
    let first = node.live().await;
    let report = |token: &[u8]| {
        let generation = node.credential().generation_of(token)?;
        node.table.report_refused(&node.credential(), Some(generation))
    };
    assert!(report(b"another token").is_none());
    sandbox.kill_tokens("wx1");
    let done = report(first.as_bytes()).unwrap();
    tokio::time::timeout(TIMEOUT, done).await.unwrap().unwrap();
    assert_ne!(node.token().unwrap(), first);
    assert!(report(first.as_bytes()).is_none(), "it has been replaced");
    assert_eq!((node.status().checks, node.credential().reports.load(Ordering::Relaxed)), (1, 1));
    node.stop().await;
}

#[tokio::test]
async fn a_stalled_app_does_not_hold_up_another() {
    let sandbox = sandbox_of(Options::default(), &["wx1", "wx2"]).await;
    sandbox.set_fault("wx1", fault(FaultKind::Hang));
    let apps = [stable(), app("wx2", &mp::STABLE)];
    let node = Node::start(&upstream(&sandbox.base_url()), &apps, None);
    until("the other app's value", || token(&node.table.credentials()[1]).is_some()).await;
    assert!(matches!(node.credential().read(boot_ms()), Reading::FirstFetch));
    node.kill().await;
}

/// A simple server that counts requests. Answers each with `answer` after `pause`.
struct Plain {
    base_url: String,
    calls: Arc<AtomicUsize>,
    most_at_once: Arc<AtomicUsize>,
}

impl Plain {
    async fn start(pause: Duration, answer: impl Fn(&str) -> String + Send + Sync + 'static) -> Plain {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let base_url = format!("http://{}", listener.local_addr().unwrap());
        let (calls, most_at_once) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
        let (counted, most, now) = (calls.clone(), most_at_once.clone(), Arc::new(AtomicUsize::new(0)));
        let answer = Arc::new(answer);
        tokio::spawn(async move {
            loop {
                let (mut peer, _) = listener.accept().await.unwrap();
                let (counted, most, now, answer) = (counted.clone(), most.clone(), now.clone(), answer.clone());
                tokio::spawn(async move {
                    let request = read_request(&mut peer).await;
                    counted.fetch_add(1, Ordering::SeqCst);
                    most.fetch_max(now.fetch_add(1, Ordering::SeqCst) + 1, Ordering::SeqCst);
                    tokio::time::sleep(pause).await;
                    now.fetch_sub(1, Ordering::SeqCst);
                    let _ = peer.write_all(answer(&request).as_bytes()).await;
                });
            }
        });
        Plain { base_url, calls, most_at_once }
    }
}

async fn read_request(peer: &mut tokio::net::TcpStream) -> String {
    let mut text = Vec::new();
    let mut chunk = [0; 4096];
    loop {
        let read = peer.read(&mut chunk).await.unwrap_or(0);
        text.extend_from_slice(&chunk[..read]);
        let shown = String::from_utf8_lossy(&text).into_owned();
        let body = shown.split_once("\r\n\r\n").map(|(_, body)| body.len());
        let wanted = shown
            .to_lowercase()
            .split_once("content-length: ")
            .map_or(0, |(_, rest)| rest.split_once("\r\n").map_or(0, |(length, _)| length.parse::<usize>().unwrap()));
        if read == 0 || body.is_some_and(|body| body >= wanted) {
            return shown;
        }
    }
}

fn http(status: &str, headers: &str, body: &str) -> String {
    format!("HTTP/1.1 {status}\r\n{headers}content-length: {}\r\nconnection: close\r\n\r\n{body}", body.len())
}

#[tokio::test]
async fn five_hundred_apps_boot_under_the_concurrency_cap_with_one_call_each() {
    let plain = Plain::start(Duration::from_millis(5), |request| {
        let body = request.split_once("\r\n\r\n").unwrap().1;
        let body: HashMap<String, serde_json::Value> = serde_json::from_str(body).unwrap();
        let token = serde_json::json!({"access_token": body["appid"], "expires_in": 7200});
        http("200 OK", "", &token.to_string())
    })
    .await;
    let apps: Vec<App> = (0..500).map(|n| without_probes(&format!("wx{n}"))).collect();
    let upstream = ClientOptions { concurrency: 4, ..upstream(&plain.base_url) };
    let node = Node::start(&upstream, &apps, None);
    until("500 values", || node.table.credentials().iter().all(|credential| token(credential).is_some())).await;
    for credential in &node.table.credentials() {
        assert_eq!(token(credential).unwrap(), credential.appid);
    }
    assert_eq!(plain.calls.load(Ordering::SeqCst), 500);
    let most = plain.most_at_once.load(Ordering::SeqCst);
    assert!((1..=4).contains(&most), "{most} at once");
    node.stop().await;
}

#[tokio::test]
#[ignore = "waits for real time"]
async fn a_call_under_way_at_shutdown_is_waited_for_and_one_not_sent_is_dropped() {
    let sandbox = sandbox_of(Options::default(), &["wx1", "wx2"]).await;
    for appid in ["wx1", "wx2"] {
        sandbox.set_fault(appid, fault(FaultKind::Delay { ms: 2_000 }));
    }
    let apps = [stable(), app("wx2", &mp::STABLE)];
    let upstream = ClientOptions { concurrency: 1, ..upstream(&sandbox.base_url()) };
    let node = Node::start(&upstream, &apps, None);
    let flying = || ["wx1", "wx2"].iter().position(|appid| sandbox.calls(appid).in_flight == 1);
    until("a call under way", || flying().is_some()).await;
    // Either may be the first: calls at the start are spread at random.
    let first = flying().unwrap();
    let table = node.table.clone();
    node.stop().await;
    assert!(token(&table.credentials()[first]).is_some());
    assert_eq!(sandbox.calls(["wx2", "wx1"][first]).total(), 0);
}

// The client alone.

async fn fetch(upstream: &ClientOptions) -> Result<tokencached::platform::Token, tokencached::platform::Failure> {
    let secret = Secret::new(SECRET.to_owned());
    let ask = FetchParams {
        base_url: &upstream.base_url,
        appid: "wx1",
        secret: &secret,
        token: "",
        component: "",
        force: false,
    };
    let deadline = Duration::from_millis(upstream.total_timeout_ms);
    Client::new(upstream).unwrap().fetch(&mp::CLASSIC, ask, deadline).await
}

#[tokio::test]
async fn one_decision_is_one_call_whatever_happens_to_it() {
    let plain = Plain::start(Duration::ZERO, |_| String::new()).await;
    let failure = fetch(&upstream(&plain.base_url)).await.unwrap_err();
    assert_eq!((failure.class, failure.delivery), (Class::Retry, Delivery::Ambiguous), "closed without an answer");
    assert_eq!(plain.calls.load(Ordering::SeqCst), 1);
    let plain = Plain::start(Duration::ZERO, |_| http("302 Found", "location: /elsewhere\r\n", "")).await;
    let failure = fetch(&upstream(&plain.base_url)).await.unwrap_err();
    assert_eq!((failure.class, failure.delivery), (Class::Retry, Delivery::Answered));
    assert_eq!(plain.calls.load(Ordering::SeqCst), 1, "no redirect is followed");
}

#[tokio::test]
async fn every_connection_serves_one_call() {
    let sandbox = sandbox(Options::default()).await;
    let node = Node::of(&sandbox, stable());
    node.live().await;
    node.report(None).await;
    let peers: std::collections::HashSet<_> = sandbox.calls("wx1").recent.iter().map(|call| call.peer).collect();
    assert_eq!(peers.len(), 3);
    node.stop().await;
}

#[tokio::test]
async fn a_failed_call_says_how_far_it_got_and_hides_the_secret() {
    let closed = free_address();
    let refused = fetch(&upstream(&format!("http://{closed}"))).await.unwrap_err();
    assert_eq!(refused.delivery, Delivery::NotSent);
    let unknown = fetch(&upstream("http://no-such-host.invalid")).await.unwrap_err();
    assert_eq!((unknown.class, unknown.delivery), (Class::Retry, Delivery::NotSent));
    let nonsense = fetch(&upstream("not an address")).await.unwrap_err();
    assert_eq!((nonsense.class, nonsense.delivery), (Class::Operator(Pace::Slow), Delivery::NotSent));
    let sandbox = sandbox(Options::default()).await;
    let slow = ClientOptions { total_timeout_ms: 200, ..upstream(&sandbox.base_url()) };
    sandbox.set_fault("wx1", fault(FaultKind::Hang));
    let hung = fetch(&slow).await.unwrap_err();
    assert_eq!((hung.class, hung.delivery), (Class::Retry, Delivery::Ambiguous));
    sandbox.set_fault("wx1", fault(FaultKind::Drip { every_ms: 50 }));
    let dripping = fetch(&slow).await.unwrap_err();
    assert_eq!((dripping.class, dripping.delivery), (Class::Retry, Delivery::Ambiguous));
    sandbox.set_fault("wx1", fault(FaultKind::Huge { bytes: 10 << 20 }));
    let huge = fetch(&upstream(&sandbox.base_url())).await.unwrap_err();
    assert!(huge.message.contains("larger than"), "{huge}");
    for failure in [refused, unknown, nonsense, hung, dripping, huge] {
        let shown = format!("{failure} {failure:?} {}", failure.advice());
        assert!(!shown.contains(SECRET) && !shown.contains("secret="), "{shown}");
        assert!(!shown.contains("access_token="), "{shown}");
    }
}

/// A certificate authority and a server certificate by it, as files.
pub struct Tls {
    folder: tempfile::TempDir,
}

impl Tls {
    pub fn make(name: &str, expired: bool) -> Tls {
        let mut authority = rcgen::CertificateParams::new(Vec::new()).unwrap();
        authority.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
        let authority_key = rcgen::KeyPair::generate().unwrap();
        let authority_file = authority.self_signed(&authority_key).unwrap().pem();
        let issuer = rcgen::Issuer::new(authority, authority_key);
        let mut server = rcgen::CertificateParams::new(vec![name.to_owned()]).unwrap();
        if expired {
            server.not_before = rcgen::date_time_ymd(2019, 1, 1);
            server.not_after = rcgen::date_time_ymd(2020, 1, 1);
        }
        let key = rcgen::KeyPair::generate().unwrap();
        let certificate = server.signed_by(&key, &issuer).unwrap();
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("ca.pem"), authority_file).unwrap();
        std::fs::write(folder.path().join("cert.pem"), certificate.pem()).unwrap();
        std::fs::write(folder.path().join("key.pem"), key.serialize_pem()).unwrap();
        Tls { folder }
    }

    pub fn file(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    pub async fn sandbox(&self) -> Sandbox {
        let files = tokencached::sandbox::SandboxTlsFiles { cert: self.file("cert.pem"), key: self.file("key.pem") };
        sandbox(Options { tls: Some(files), ..Options::default() }).await
    }

    fn upstream(&self, sandbox: &Sandbox) -> ClientOptions {
        ClientOptions { ca_file: Some(self.file("ca.pem")), ..upstream(&sandbox.base_url()) }
    }
}

#[tokio::test]
async fn https_is_verified_against_the_configured_roots_and_nothing_less() {
    let good = Tls::make("127.0.0.1", false);
    let sandbox = good.sandbox().await;
    assert!(fetch(&good.upstream(&sandbox)).await.is_ok());
    let stranger = fetch(&upstream(&sandbox.base_url())).await.unwrap_err();
    let mut refused = vec![stranger];
    for (name, expired) in [("api.weixin.qq.com", false), ("127.0.0.1", true)] {
        let bad = Tls::make(name, expired);
        let sandbox = bad.sandbox().await;
        refused.push(fetch(&bad.upstream(&sandbox)).await.unwrap_err());
        assert_eq!(sandbox.calls("wx1").total(), 0, "nothing was sent: {name}");
    }
    for failure in refused {
        assert_eq!((failure.class, failure.delivery), (Class::Retry, Delivery::NotSent));
        assert!(failure.message.contains("certificate"), "{failure}");
        assert!(failure.advice().contains("TLS"), "{}", failure.advice());
    }
}

#[test]
fn a_bad_ca_file_or_proxy_is_a_start_up_error_that_names_it() {
    let folder = tempfile::tempdir().unwrap();
    let empty = folder.path().join("empty.pem");
    std::fs::write(&empty, "no certificate here").unwrap();
    for path in [empty, folder.path().join("missing.pem")] {
        let upstream = ClientOptions { ca_file: Some(path.clone()), ..upstream("https://a") };
        let error = Client::new(&upstream).unwrap_err();
        assert!(error.starts_with(&format!("upstream.ca_file {}: ", path.display())), "{error}");
    }
    let upstream = ClientOptions { proxy: Some("::".into()), ..upstream("https://a") };
    assert!(Client::new(&upstream).unwrap_err().starts_with("upstream.proxy: "));
}

/// Everything that is logged, in one string.
#[derive(Clone, Default)]
pub struct Log(Arc<std::sync::Mutex<Vec<u8>>>);

impl Log {
    /// Captures what this thread logs while the guard lives.
    pub fn capture() -> (Log, tracing::subscriber::DefaultGuard) {
        let log = Log::default();
        let writer = log.clone();
        let subscriber = tracing_subscriber::fmt()
            .with_max_level(tracing::Level::TRACE)
            .with_ansi(false)
            .with_writer(move || writer.clone())
            .finish();
        (log, tracing::subscriber::set_default(subscriber))
    }

    pub fn text(&self) -> String {
        String::from_utf8(self.0.lock().unwrap().clone()).unwrap()
    }
}

impl std::io::Write for Log {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.lock().unwrap().extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

#[tokio::test]
async fn no_log_line_and_no_status_ever_holds_a_token_or_a_secret() {
    let (log, _guard) = Log::capture();
    let sandbox = sandbox(Options::default()).await;
    let leak = format!("bad secret {SECRET} token {{access_token}}\r\n");
    let leaking = InjectedFault::new(FaultKind::Errcode { errcode: -1, errmsg: leak.clone() });
    sandbox.set_fault("wx1", leaking.times(1));
    sandbox.add_fault("wx1", InjectedFault::new(FaultKind::Raw { body: leak, content_type: None }).times(1));
    sandbox.add_fault("wx1", InjectedFault::new(FaultKind::TruncatedJson).times(1));
    let node = Node::of(&sandbox, classic());
    let mut shown = String::new();
    until("a value after the faults", || {
        shown.push_str(&format!("{:?}", node.status()));
        node.token().is_some()
    })
    .await;
    let token = node.token().unwrap();
    sandbox.kill_tokens("wx1");
    node.report(None).await;
    let second = node.token().unwrap();
    node.stop().await;
    shown.push_str(&log.text());
    assert!(shown.contains("renewed") && shown.contains("renewal failed"), "{shown}");
    for hidden in [SECRET, &token[..40], &second[..40]] {
        assert!(!shown.contains(hidden), "{hidden} in {shown}");
    }
}

#[tokio::test]
#[ignore = "waits for real time"]
async fn the_same_failure_again_and_again_is_one_line_and_its_end_is_another() {
    let (log, _guard) = Log::capture();
    let sandbox = sandbox(Options::default()).await;
    sandbox.set_fault("wx1", fault(FaultKind::Empty).times(4));
    let node = Node::of(&sandbox, stable());
    node.live().await;
    assert_eq!(node.status().failures, 4);
    // The value is there before the line about it.
    until("the line about the end", || log.text().contains("recovered")).await;
    node.stop().await;
    let text = log.text();
    assert_eq!((text.matches("renewal failed").count(), text.matches("recovered").count()), (1, 1), "{text}");
    assert!(text.contains("suppressed=3") && !text.contains("suppressed=0"), "{text}");
}

#[tokio::test]
#[ignore = "waits for real time"]
async fn clients_of_many_apps_in_a_loop_cause_a_bounded_number_of_calls() {
    let plain = Plain::start(Duration::ZERO, |request| {
        // A probe is a GET, and the token is accepted.
        let Some(body) = request.split_once("\r\n\r\n").map(|(_, body)| body).filter(|body| !body.is_empty()) else {
            return http("200 OK", "", "{\"ip_list\":[]}");
        };
        let body: HashMap<String, serde_json::Value> = serde_json::from_str(body).unwrap();
        http("200 OK", "", &serde_json::json!({"access_token": body["appid"], "expires_in": 7200}).to_string())
    })
    .await;
    let apps: Vec<App> = (0..600).map(|n| without_probes(&format!("wx{n}"))).collect();
    let node = Node::start(&upstream(&plain.base_url), &apps, None);
    let table = &node.table;
    until("600 values", || table.credentials().iter().all(|credential| token(credential).is_some())).await;
    let before = plain.calls.load(Ordering::SeqCst);
    for credential in &table.credentials() {
        for _ in 0..3 {
            let done = table.report_refused(credential, None).expect("room for a report");
            tokio::time::timeout(TIMEOUT, done).await.unwrap().unwrap();
        }
    }
    let (looks, refused) = (&table.client_checks, &table.client_checks_refused);
    let (looks, refused) = (looks.load(Ordering::SeqCst) as usize, refused.load(Ordering::SeqCst));
    assert!(looks < 600 && refused > 0, "{looks} looks, {refused} refused");
    assert!(plain.calls.load(Ordering::SeqCst) - before <= 2 * looks, "two calls a look at most");
    assert_eq!(table.reports_made.load(Ordering::SeqCst), 1800);
    assert!(table.credentials().iter().all(|credential| token(credential).is_some()), "nothing is taken away");
    node.stop().await;
}

#[tokio::test]
#[ignore = "waits for real time"]
async fn reports_that_are_true_are_looked_into_however_many_there_are() {
    let appids: Vec<String> = (0..400).map(|n| format!("wx{n}")).collect();
    let appids: Vec<&str> = appids.iter().map(String::as_str).collect();
    let sandbox = sandbox_of(Options::default(), &appids).await;
    let apps: Vec<App> = appids.iter().map(|appid| app(appid, &mp::STABLE)).collect();
    let node = Node::start(&upstream(&sandbox.base_url()), &apps, None);
    let table = &node.table;
    until("400 values", || table.credentials().iter().all(|credential| token(credential).is_some())).await;
    appids.iter().for_each(|appid| sandbox.kill_tokens(appid));
    for credential in &table.credentials() {
        let generation = credential.status(boot_ms()).generation;
        let done = table.report_refused(credential, None).expect("room for a report");
        tokio::time::timeout(TIMEOUT, done).await.unwrap().unwrap();
        assert_eq!(credential.status(boot_ms()).generation, generation + 1, "{}", credential.appid);
    }
    assert_eq!(table.client_checks_refused.load(Ordering::SeqCst), 0);
    node.stop().await;
}
