//! Several hosts: which one is called after what, over real connections. The times are in `src/platform/hosts.rs`.

use std::time::Duration;

use tokencached::platform::ClientOptions;
use tokencached::platform::{Client, Delivery, Failure, Probe, Token};
use tokencached::platform::{FetchParams, Upstream, mp};
use tokencached::sandbox::{FaultKind, FaultScope, Options, Sandbox};
use tokencached::secret::Secret;

use crate::refresher::{Log, Node, SECRET, Tls, fault, sandbox, stable, upstream};

/// A client of some hosts; the first names them all.
struct Caller {
    client: Client,
    base_url: String,
}

fn of(base_urls: &[String]) -> ClientOptions {
    ClientOptions { hosts: base_urls.to_vec(), ..upstream(&base_urls[0]) }
}

impl Caller {
    fn new(upstream: &ClientOptions) -> Caller {
        Caller { client: Client::new(upstream).unwrap(), base_url: upstream.base_url.clone() }
    }

    async fn fetch(&self) -> Result<Token, Failure> {
        let secret = Secret::new(SECRET.to_owned());
        let ask = FetchParams {
            base_url: &self.base_url,
            appid: "wx1",
            secret: &secret,
            token: "",
            component: "",
            force: false,
        };
        self.client.fetch(&mp::CLASSIC, ask, Duration::from_secs(8)).await
    }
}

/// An address where nobody listens. The guard keeps the port from others: bound, it is not listened on.
fn closed() -> (socket2::Socket, String) {
    let socket = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).unwrap();
    socket.bind(&std::net::SocketAddr::from(([127, 0, 0, 1], 0)).into()).unwrap();
    let address = socket.local_addr().unwrap().as_socket().unwrap();
    (socket, format!("http://{address}"))
}

fn calls(sandboxes: [&Sandbox; 2]) -> [u64; 2] {
    sandboxes.map(|sandbox| sandbox.calls("wx1").total())
}

async fn two() -> (Sandbox, Sandbox, Caller) {
    let (first, second) = (sandbox(Options::default()).await, sandbox(Options::default()).await);
    let caller = Caller::new(&of(&[first.base_url(), second.base_url()]));
    (first, second, caller)
}

#[tokio::test]
async fn a_call_that_found_no_connection_is_answered_by_the_next_host() {
    let (log, _guard) = Log::capture();
    let (_held, nobody) = closed();
    let second = sandbox(Options::default()).await;
    let caller = Caller::new(&of(&[nobody, second.base_url()]));
    caller.fetch().await.unwrap();
    caller.fetch().await.unwrap();
    assert_eq!(second.calls("wx1").total(), 2);
    let text = log.text();
    assert_eq!(text.matches("an API host failed").count(), 1, "{text}");
    assert!(text.contains("127.0.0.1: ") && !text.contains(SECRET), "{text}");
}

#[tokio::test]
async fn one_further_host_is_tried_and_no_third() {
    let (_held, nobody) = closed();
    let (_held_too, nobody_too) = closed();
    let third = sandbox(Options::default()).await;
    let caller = Caller::new(&of(&[nobody, nobody_too, third.base_url()]));
    let failure = caller.fetch().await.unwrap_err();
    assert_eq!(failure.delivery, Delivery::NotSent);
    assert!(failure.message.starts_with("127.0.0.1: "), "{failure}");
    assert_eq!(third.calls("wx1").total(), 0);
    caller.fetch().await.unwrap();
}

#[tokio::test]
async fn a_call_that_may_have_arrived_is_not_sent_again_and_the_next_goes_elsewhere() {
    for lost in [FaultKind::Reset, FaultKind::Cut, FaultKind::Html, FaultKind::Empty] {
        let (first, second, caller) = two().await;
        first.set_fault("wx1", fault(lost));
        let failure = caller.fetch().await.unwrap_err();
        assert_eq!(failure.delivery, Delivery::Ambiguous, "{failure}");
        assert!(failure.message.starts_with("127.0.0.1: "), "{failure}");
        assert_eq!(calls([&first, &second]), [1, 0]);
        caller.fetch().await.unwrap();
        assert_eq!(calls([&first, &second]), [1, 1]);
    }
}

#[tokio::test]
async fn a_refusal_in_wechats_words_is_no_reason_to_go_elsewhere() {
    for errcode in [40013, -1, 45009] {
        let (first, second, caller) = two().await;
        first.set_fault("wx1", fault(FaultKind::Errcode { errcode, errmsg: "no".into() }));
        for _ in 0..2 {
            assert_eq!(caller.fetch().await.unwrap_err().errcode, Some(errcode));
        }
        assert_eq!(calls([&first, &second]), [2, 0]);
    }
    let (first, second, caller) = two().await;
    first.set_fault("wx1", fault(FaultKind::Status { status: 500, body: "{\"errcode\":40013}".into() }));
    caller.fetch().await.unwrap_err();
    caller.fetch().await.unwrap_err();
    assert_eq!(calls([&first, &second]), [2, 0]);
}

#[tokio::test]
async fn a_retired_entry_address_is_left_for_the_next_call() {
    let (first, second, caller) = two().await;
    first.set_fault("wx1", fault(FaultKind::Errcode { errcode: 48017, errmsg: "retired".into() }));
    assert_eq!(caller.fetch().await.unwrap_err().errcode, Some(48017));
    assert_eq!(calls([&first, &second]), [1, 0]);
    caller.fetch().await.unwrap();
    assert_eq!(calls([&first, &second]), [1, 1]);
}

#[tokio::test]
async fn a_wrong_certificate_is_shown_and_only_the_next_call_goes_elsewhere() {
    let (log, _guard) = Log::capture();
    let (bad, good) = (Tls::make("api.weixin.qq.com", false), Tls::make("127.0.0.1", false));
    let (first, second) = (bad.sandbox().await, good.sandbox().await);
    let both = ["ca.pem"; 2].into_iter().zip([&bad, &good]);
    let both: String = both.map(|(name, tls)| std::fs::read_to_string(tls.file(name)).unwrap()).collect();
    let roots = good.file("both.pem");
    std::fs::write(&roots, both).unwrap();
    let hosts = of(&[first.base_url(), second.base_url()]);
    let caller = Caller::new(&ClientOptions { ca_file: Some(roots), ..hosts });
    let failure = caller.fetch().await.unwrap_err();
    assert_eq!(failure.delivery, Delivery::NotSent);
    assert!(failure.message.contains("certificate") && failure.advice().contains("TLS"), "{failure}");
    assert_eq!(calls([&first, &second]), [0, 0]);
    caller.fetch().await.unwrap();
    assert_eq!(calls([&first, &second]), [0, 1]);
    let text = log.text();
    assert!(text.contains("ERROR") && text.contains("TLS handshake with an API host failed"), "{text}");
}

#[tokio::test]
async fn all_apps_and_all_clones_share_what_is_known_of_a_host() {
    let (first, second, caller) = two().await;
    first.set_fault("wx1", fault(FaultKind::Reset));
    let clone = Caller { client: caller.client.clone(), base_url: caller.base_url.clone() };
    caller.fetch().await.unwrap_err();
    clone.fetch().await.unwrap();
    let token = clone.fetch().await.unwrap();
    let probe = clone.client.probe(&mp::CLASSIC, &clone.base_url, &token.value, Duration::from_secs(8)).await;
    assert_eq!(probe, Probe::Alive);
    assert_eq!(calls([&first, &second])[0], 1);
}

#[tokio::test]
async fn the_refreshers_next_try_brings_the_value_from_the_second_host() {
    let (first, second) = (sandbox(Options::default()).await, sandbox(Options::default()).await);
    first.set_fault("wx1", fault(FaultKind::Reset));
    let node = Node::start(&of(&[first.base_url(), second.base_url()]), &[stable()], None);
    node.live().await;
    assert_eq!(node.status().failures, 1);
    assert_eq!(calls([&first, &second]), [1, 1]);
    node.stop().await;
}

#[tokio::test]
async fn another_base_url_is_one_host_whatever_the_list_says() {
    let second = sandbox(Options::default()).await;
    let caller = Caller::new(&of(&[second.base_url(), second.base_url()]));
    let (_held, nobody) = closed();
    let elsewhere = Caller { base_url: nobody, ..caller };
    assert_eq!(elsewhere.fetch().await.unwrap_err().delivery, Delivery::NotSent);
    assert_eq!(second.calls("wx1").total(), 0);
}

/// A probe's answer may be about the host and not about the token.
#[tokio::test]
async fn a_probe_answered_by_a_retired_entry_moves_the_next_call() {
    let (first, second, caller) = two().await;
    let token = caller.fetch().await.unwrap();
    let retired = FaultKind::Errcode { errcode: 48017, errmsg: "invalid entry".into() };
    first.set_fault("wx1", fault(retired).on(FaultScope::Business));
    let probe = || caller.client.probe(&mp::CLASSIC, &caller.base_url, &token.value, Duration::from_secs(8));
    assert_eq!(probe().await, Probe::Unknown);
    assert_eq!(calls([&first, &second]), [2, 0]);
    caller.fetch().await.unwrap();
    assert_eq!(calls([&first, &second]), [2, 1]);
}

/// A proxy is the way to every host: what it can't reach is left as if there were none.
#[tokio::test]
async fn behind_a_proxy_the_hosts_are_tried_in_turn_too() {
    let sandbox = sandbox(Options::default()).await;
    // An HTTP proxy is asked for whole addresses; the sandbox answers whatever host is named, as a proxy would.
    let upstream = ClientOptions {
        proxy: Some(sandbox.base_url()),
        ..of(&["http://first.invalid".to_owned(), "http://second.invalid".to_owned()])
    };
    let caller = Caller::new(&upstream);
    sandbox.set_fault("wx1", fault(FaultKind::Status { status: 502, body: String::new() }).times(1));
    caller.fetch().await.unwrap_err();
    caller.fetch().await.unwrap();
    assert_eq!(sandbox.calls("wx1").total(), 2, "names are the proxy's to look up");
}
