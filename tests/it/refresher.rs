//! The refresher against the simulated WeChat API over real connections, where those are the point. What one credential
//! does is tested without any in `src/credential/actor/tests.rs`, and many of them in virtual time in
//! `src/credential/refresher/tests.rs`.
//!
//! Names with a project and a number are that project's public incident, turned into a test.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "helpers of tests fail the test")]

use std::path::PathBuf;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, LazyLock};
use std::time::Duration;

use tokencached::clock::boot_ms;
use tokencached::credential::facts::CallOutcome;
use tokencached::credential::state::StateStore;
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
use tracing::subscriber::NoSubscriber;

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

/// A simple server that counts requests, and answers all of them with the same bytes.
struct Plain {
    base_url: String,
    calls: Arc<AtomicUsize>,
}

impl Plain {
    async fn start(answer: String) -> Plain {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let base_url = format!("http://{}", listener.local_addr().unwrap());
        let (calls, answer): (Arc<AtomicUsize>, Arc<str>) = (Arc::default(), answer.into());
        let counted = calls.clone();
        tokio::spawn(async move {
            loop {
                let (mut peer, _) = listener.accept().await.unwrap();
                let (counted, answer) = (counted.clone(), answer.clone());
                tokio::spawn(async move {
                    read_head(&mut peer).await;
                    counted.fetch_add(1, Ordering::SeqCst);
                    let _ = peer.write_all(answer.as_bytes()).await;
                });
            }
        });
        Plain { base_url, calls }
    }
}

/// Reads a request that has no body.
async fn read_head(peer: &mut tokio::net::TcpStream) {
    let mut text = Vec::new();
    let mut chunk = [0; 4096];
    while !text.ends_with(b"\r\n\r\n") {
        match peer.read(&mut chunk).await {
            Ok(0) | Err(_) => return,
            Ok(read) => text.extend_from_slice(&chunk[..read]),
        }
    }
}

fn http(status: &str, headers: &str, body: &str) -> String {
    format!("HTTP/1.1 {status}\r\n{headers}content-length: {}\r\nconnection: close\r\n\r\n{body}", body.len())
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
    let plain = Plain::start(String::new()).await;
    let failure = fetch(&upstream(&plain.base_url)).await.unwrap_err();
    assert_eq!((failure.class, failure.delivery), (Class::Retry, Delivery::Ambiguous), "closed without an answer");
    assert_eq!(plain.calls.load(Ordering::SeqCst), 1);
    let plain = Plain::start(http("302 Found", "location: /elsewhere\r\n", "")).await;
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
        // Two subscribers at least: with one alone, a line that another thread comes to first is never written here.
        static OTHER: LazyLock<tracing::Dispatch> = LazyLock::new(|| tracing::Dispatch::new(NoSubscriber::new()));
        LazyLock::force(&OTHER);
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
