//! Hours of `tokencached demo` in virtual time: its apps, its simulated WeChat, the server's own refresher.

use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use tokencached::clock::Clock;
use tokencached::credential::table::CredentialState;
use tokencached::credential::{Env, build_in};
use tokencached::demo;
use tokencached::platform::ClientOptions;
use tokencached::platform::{CredentialType, FetchParams};
use tokencached::platform::{Failure, Probe, Token, Upstream, UpstreamFuture, answer};
use tokencached::sandbox::answer::body;
use tokencached::sandbox::rules::World;
use tokio_util::sync::CancellationToken;

use super::env::Clocks;
use super::timeline::{HOUR, PEER, true_now};
use super::wechat::parse;

const HOURS: u64 = 4;
const LIFETIME: Duration = Duration::from_secs(60);

/// The way to the simulated WeChat, on which nothing is lost.
struct Line {
    world: Mutex<World>,
    clocks: Arc<Clocks>,
    refused: Mutex<Vec<String>>,
}

impl Line {
    fn exchange(&self, request: &tokencached::platform::HttpRequest) -> String {
        let text = body(&self.world.lock().ask(&parse(request), PEER, true_now(self.clocks.t())));
        if text.contains("\"errcode\":4") {
            self.refused.lock().push(text.clone());
        }
        text
    }
}

impl Upstream for Line {
    fn fetch<'a>(
        &'a self,
        kind: &'a CredentialType,
        ask: FetchParams<'a>,
        _: Duration,
    ) -> UpstreamFuture<'a, Result<Token, Failure>> {
        Box::pin(async move {
            tokio::time::sleep(Duration::from_millis(20)).await;
            let text = self.exchange(&kind.request(&ask));
            answer::read_token(kind, ask.appid, &[], 200, text.as_bytes())
        })
    }

    fn probe<'a>(
        &'a self,
        kind: &'a CredentialType,
        base_url: &'a str,
        value: &'a [u8],
        _: Duration,
    ) -> UpstreamFuture<'a, Probe> {
        let call = kind.probe.map(|call| (call.api(), call.request(base_url, std::str::from_utf8(value).unwrap())));
        Box::pin(async move {
            let Some((api, request)) = call else { return Probe::Unknown };
            answer::read_probe(api, 200, self.exchange(&request).as_bytes())
        })
    }
}

/// A credential after those hours.
struct Spent {
    kind: &'static str,
    calls: u64,
    quota_a_day: Option<u64>,
    denied: u64,
}

/// What was refused for a quota's sake in those hours by WeChat, and what the server has counted.
async fn run() -> (Vec<String>, Vec<Spent>) {
    let clocks = Arc::new(Clocks::new());
    let world = Mutex::new(World::new(&demo::sandbox_options(LIFETIME), 1));
    let line = Arc::new(Line { world, clocks: clocks.clone(), refused: Mutex::default() });
    let ground =
        Env { upstream: line.clone(), clock: clocks.clone(), boot_id: "boot".to_owned(), store: None, cluster: None };
    let upstream = ClientOptions::at("http://127.0.0.1:1".to_owned());
    let (table, refresher) = build_in(ground, &upstream, &demo::apps(LIFETIME));
    let stop = CancellationToken::new();
    let running = tokio::spawn(refresher.run(stop.clone()));
    for _ in 0..HOURS * 60 {
        tokio::time::sleep(Duration::from_millis(HOUR / 60)).await;
        for credential in &table.credentials() {
            let state = credential.status(clocks.boot_ms()).state;
            assert!(
                !matches!(state, CredentialState::Waiting | CredentialState::Blocked),
                "{:?}: {state:?}",
                credential.about()
            );
        }
    }
    stop.cancel();
    running.await.unwrap();
    let spent = table.credentials().into_iter().map(|credential| {
        let status = credential.status(clocks.boot_ms());
        let (calls, quota_a_day, denied) = (status.calls, status.calls_quota, status.calls_denied);
        Spent { kind: credential.about().credential_type, calls, quota_a_day, denied }
    });
    let spent = spent.collect();
    let refused = std::mem::take(&mut *line.refused.lock());
    (refused, spent)
}

#[test]
fn hours_of_the_demo_use_up_no_quota() {
    fastrand::seed(1);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build().unwrap();
    let (refused, spent) = runtime.block_on(run());
    assert_eq!(refused, Vec::<String>::new());
    assert_eq!(spent.len(), 4);
    for Spent { kind, calls, quota_a_day, denied } in spent {
        assert_eq!(denied, 0, "{kind}");
        let quota = quota_a_day.unwrap();
        assert!(calls > HOURS * 60 && 2 * calls * 24 / HOURS < quota, "{kind}: {calls} calls of {quota} a day");
    }
}
