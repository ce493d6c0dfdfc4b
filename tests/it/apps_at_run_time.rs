//! Apps that are added, changed and removed while the server runs, as its clients see it: in commands and answers. In
//! virtual time.

use std::sync::Arc;
use std::time::Duration;

use tokencached::access::Rights;
use tokencached::cache::{Cache, Options};
use tokencached::clock::Clock;
use tokencached::credential::table::NamesReader;
use tokencached::credential::{Alias, App, Env, build_in};
use tokencached::platform::{
    ClientOptions, CredentialType, Failure, FetchParams, Probe, Token, Upstream, UpstreamFuture, answer, mp,
};
use tokencached::protocol::RequestStep;
use tokencached::protocol::parse::step;
use tokencached::secret::Secret;
use tokencached::secret_source::SecretSource;
use tokencached::service::{CommandOutcome, Context, KEYS_PER_TURN, Output, Service, Settings};
use tokencached::stats::{Stats, WorkerStats};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::probing::Paused;

/// A platform that answers at once.
struct Platform;

impl Upstream for Platform {
    fn fetch<'a>(
        &'a self,
        credential_type: &'a CredentialType,
        params: FetchParams<'a>,
        _: Duration,
    ) -> UpstreamFuture<'a, Result<Token, Failure>> {
        let text = format!(r#"{{"access_token":"token-of-{}","expires_in":7200}}"#, params.appid);
        Box::pin(async move { answer::read_token(credential_type, params.appid, &[], 200, text.as_bytes()) })
    }

    fn probe<'a>(&'a self, _: &'a CredentialType, _: &'a str, _: &'a [u8], _: Duration) -> UpstreamFuture<'a, Probe> {
        Box::pin(async { Probe::Alive })
    }
}

/// A client's connection, without the socket.
struct Client {
    clock: Arc<Paused>,
    service: Arc<Service>,
    names: NamesReader,
    stats: Arc<WorkerStats>,
}

impl Client {
    fn say(&mut self, request: &str) -> String {
        let RequestStep::Request { request, .. } = step(request.as_bytes(), 1 << 20) else { panic!("not a request") };
        let mut out = Output::default();
        let mut context = Context {
            now: self.clock.now(),
            stats: &self.stats,
            peer: &"",
            rights: &Rights::ALL,
            names: self.names.now(),
            may_wait: false,
            memory_short: false,
            keys_left: KEYS_PER_TURN,
            out: &mut out,
        };
        assert!(matches!(self.service.execute(&request, 0, &mut context), CommandOutcome::Done));
        String::from_utf8(out.to_vec()).unwrap()
    }

    fn set(&mut self, key: &str) -> String {
        self.say(&format!("set {key} 0 0 3\r\nold\r\n"))
    }

    fn get(&mut self, key: &str) -> String {
        self.say(&format!("get {key}\r\n"))
    }
}

const KEYS: [&str; 3] = ["access_token:wx2", "token:wx2", "v1:token_wx2"];
const SECOND: Duration = Duration::from_secs(1);

#[tokio::test(start_paused = true)]
async fn keys_come_and_go_with_their_app_and_what_was_stored_under_them_does_not_come_back() {
    let clock = Arc::new(Paused(Instant::now()));
    let env =
        Env { upstream: Arc::new(Platform), clock: clock.clone(), boot_id: String::new(), store: None, cluster: None };
    let app = |appid: &str| App::mp(appid, SecretSource::Fixed(Secret::new("s".into())), &mp::STABLE);
    let upstream = ClientOptions::at("http://127.0.0.1:1".into());
    let (table, refresher) = build_in(env, &upstream, &[app("wx1")]);
    let cache = Cache::new(&Options { budget_bytes: 8 << 20, item_size_max_bytes: 1 << 20, evict: true, shards: 4 });
    let stats = Arc::new(Stats::default());
    let service = Arc::new(Service::new(cache, table.clone(), stats.clone(), Settings::default()));
    let refresher = refresher.with_ordinary_items(service.clone());
    let (control, end) = (refresher.app_control(), CancellationToken::new());
    let running = tokio::spawn(refresher.run(end.clone()));
    let mut client = Client { clock, service, names: table.names_reader(), stats: stats.register_worker() };

    for key in KEYS.into_iter().chain(["other"]) {
        assert_eq!(client.set(key), "STORED\r\n", "not managed yet");
    }
    let aliases = vec![Alias::raw("token:wx2"), Alias::raw("{any}:token_wx2")];
    control.put(App { aliases, ..app("wx2") }).await.unwrap();
    tokio::time::sleep(SECOND).await;
    for key in KEYS {
        assert_eq!(client.get(key), format!("VALUE {key} 0 12\r\ntoken-of-wx2\r\nEND\r\n"));
        assert_eq!(client.set(key), "NOT_STORED\r\n");
    }
    control.remove("wx2").await.unwrap();
    for _ in 0..2 {
        for key in KEYS {
            assert_eq!((client.get(key), client.set(key)), ("END\r\n".into(), "NOT_STORED\r\n".into()), "{key}");
        }
        tokio::time::sleep(59 * SECOND).await;
    }
    for key in KEYS {
        assert_eq!(client.get(key), "END\r\n", "what was stored before is gone");
        assert_eq!(client.set(key), "STORED\r\n", "an ordinary key");
    }
    assert_eq!(client.get("other"), "VALUE other 0 3\r\nold\r\nEND\r\n");
    assert_eq!(client.get("access_token:wx1"), "VALUE access_token:wx1 0 12\r\ntoken-of-wx1\r\nEND\r\n");
    end.cancel();
    running.await.unwrap();
}
