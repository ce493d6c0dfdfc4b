//! Clients that keep a value for exactly as long as they were told, beside the real refresher in virtual time.
//!
//! Calls fail in every way; tokens are not revoked and nobody else fetches, for of that nobody can tell ahead.

use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use tokencached::clock::Clock;
use tokencached::credential::App;
use tokencached::credential::table::{Credential, Reading};
use tokencached::credential::{Env, build_in};
use tokencached::platform::ClientOptions;
use tokencached::platform::{self, CredentialType, FetchParams, Platform};
use tokencached::platform::{Delivery, Failure, Probe, Token, Upstream, UpstreamFuture, answer};
use tokencached::sandbox::answer::body;
use tokencached::sandbox::rules::World;
use tokencached::sandbox::{AppOptions, Options, SandboxPlatform, Verdict};
use tokencached::secret::Secret;
use tokencached::secret_source::SecretSource;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use super::env::Clocks;
use super::timeline::{DAY, PEER, true_now};
use super::wechat::parse;

const DAYS: u64 = 4;
const CLIENTS: usize = 40;

struct Flaky {
    world: Mutex<World>,
    clocks: Arc<Clocks>,
    rng: Mutex<fastrand::Rng>,
}

impl Flaky {
    fn work(&self, request: &tokencached::platform::HttpRequest) -> String {
        body(&self.world.lock().ask(&parse(request), PEER, true_now(self.clocks.t())))
    }

    fn accepts(&self, value: &str) -> bool {
        self.world.lock().judge(value, true_now(self.clocks.t())) == Verdict::Accepted
    }
}

struct Line(Arc<Flaky>);

impl Upstream for Line {
    fn fetch<'a>(
        &'a self,
        kind: &'a CredentialType,
        ask: FetchParams<'a>,
        _: Duration,
    ) -> UpstreamFuture<'a, Result<Token, Failure>> {
        Box::pin(async move {
            let request = kind.request(&ask);
            let (fate, there_ms, back_ms) = {
                let mut rng = self.0.rng.lock();
                (rng.u8(0..10), rng.u64(0..3_000), rng.u64(0..3_000))
            };
            tokio::time::sleep(Duration::from_millis(there_ms)).await;
            let text = match fate {
                0 => return Err(Failure::transport(ask.appid, Delivery::NotSent, "not sent")),
                1 => r#"{"errcode":-1,"errmsg":"system error"}"#.to_owned(),
                _ => self.0.work(&request),
            };
            tokio::time::sleep(Duration::from_millis(back_ms)).await;
            if fate == 2 {
                return Err(Failure::transport(ask.appid, Delivery::Ambiguous, "lost"));
            }
            answer::read_token(kind, ask.appid, &[], 200, text.as_bytes())
        })
    }

    fn probe<'a>(
        &'a self,
        _: &'a CredentialType,
        _: &'a str,
        value: &'a [u8],
        _: Duration,
    ) -> UpstreamFuture<'a, Probe> {
        let alive = self.0.accepts(std::str::from_utf8(value).unwrap());
        Box::pin(async move { if alive { Probe::Alive } else { Probe::Dead(40001) } })
    }
}

/// How often a client held something that WeChat refused, and how often it asked.
async fn client(flaky: Arc<Flaky>, credential: Arc<Credential>, mut rng: fastrand::Rng) -> (u64, u64) {
    let (mut refused, mut asked) = (0, 0);
    let end = flaky.clocks.t() + DAYS * DAY;
    while flaky.clocks.t() < end {
        tokio::time::sleep(Duration::from_millis(rng.u64(1..5_000))).await;
        let now_ms = flaky.clocks.boot_ms();
        let Reading::Live(guard) = credential.read(now_ms) else { continue };
        let Some((value, until_ms)) = guard.as_ref().map(|shown| (shown.value.clone(), shown.reliable_until(now_ms)))
        else {
            continue;
        };
        drop(guard);
        let told_s = (until_ms - now_ms) / 1000;
        if told_s == 0 {
            continue;
        }
        asked += 1;
        // To the last millisecond.
        tokio::time::sleep(Duration::from_millis(told_s * 1000 - 1)).await;
        refused += u64::from(!flaky.accepts(std::str::from_utf8(&value).unwrap()));
    }
    (refused, asked)
}

fn app(appid: &str, platform: &'static Platform, token: &'static CredentialType) -> App {
    let source = SecretSource::Fixed(Secret::new("secret".to_owned()));
    App { platform, ..App::mp(appid, source, token) }
}

async fn refused_tokens(seed: u64) -> Vec<(String, u64, u64)> {
    let apps = [
        app("wx0000000000000001", &platform::mp::PLATFORM, &platform::mp::STABLE),
        app("wx0000000000000002", &platform::mp::PLATFORM, &platform::mp::CLASSIC),
        app("wx0000000000000003", &platform::qq::PLATFORM, &platform::qq::TOKEN),
        app("ww0000000000000004", &platform::wecom::PLATFORM, &platform::wecom::TOKEN),
    ];
    let known = |app: &App| AppOptions {
        appid: app.appid.clone(),
        secret: "secret".to_owned(),
        platform: if app.appid.starts_with("ww") { SandboxPlatform::Wecom } else { SandboxPlatform::Mp },
        ..AppOptions::default()
    };
    let options = Options { apps: apps.iter().map(known).collect(), ..Options::default() };
    let clocks = Arc::new(Clocks::new());
    let flaky = Arc::new(Flaky {
        world: Mutex::new(World::new(&options, seed)),
        clocks: clocks.clone(),
        rng: Mutex::new(fastrand::Rng::with_seed(seed)),
    });
    let ground = Env {
        upstream: Arc::new(Line(flaky.clone())),
        clock: clocks,
        boot_id: "boot".to_owned(),
        store: None,
        cluster: None,
    };
    let upstream = ClientOptions::at("https://api.weixin.qq.com".to_owned());
    let (table, refresher) = build_in(ground, &upstream, &apps);
    let stop = CancellationToken::new();
    let running = tokio::spawn(refresher.run(stop.clone()));
    let mut clients = JoinSet::new();
    for (n, credential) in table.credentials().iter().enumerate() {
        for m in 0..CLIENTS {
            let (flaky, credential) = (flaky.clone(), credential.clone());
            let rng = fastrand::Rng::with_seed(seed + (n * CLIENTS + m) as u64);
            clients.spawn(async move { (n, client(flaky, credential, rng).await) });
        }
    }
    let mut found: Vec<(String, u64, u64)> = apps.iter().map(|app| (app.token.id.to_owned(), 0, 0)).collect();
    while let Some(ended) = clients.join_next().await {
        let (n, (refused, asked)) = ended.unwrap();
        found[n].1 += refused;
        found[n].2 += asked;
    }
    stop.cancel();
    running.await.unwrap();
    found
}

#[test]
fn a_client_that_keeps_a_value_as_long_as_it_was_told_meets_no_refused_one() {
    for seed in 1..4 {
        fastrand::seed(seed);
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build().unwrap();
        for (kind, refused, asked) in runtime.block_on(refused_tokens(seed)) {
            println!("{kind}: {refused} of {asked} refused");
            assert!(asked > CLIENTS as u64 * 40, "{kind}: {asked}");
            assert_eq!(refused, 0, "{kind}: of {asked}");
        }
    }
}
