//! `tokencached demo` and `tokencached sandbox`: a server and the simulated platforms on one machine, to try them out.
//!
//! Needs no configuration. Never calls a real platform, never leaves anything on disk after its end.

mod child_process;
mod multi_node;
mod renewals;
mod texts;

use std::fmt::Write;
use std::net::{Ipv4Addr, SocketAddr};
use std::time::Duration;

use tokio_util::sync::CancellationToken;

use crate::app::{self, Bound, StartError};
use crate::cli::{AccountArg, DemoArgs, SandboxArgs};
use crate::credential::{self, Alias};
use crate::http_api;
use crate::http_api::BoundListeners;
use crate::http_api::options::HTTP_PORT;
use crate::platform::ClientOptions;
use crate::platform::mp;
use crate::sandbox::{AppOptions, Options, Quotas, Sandbox, SandboxPlatform, SandboxTlsFiles, times_shorter};
use crate::secret::Secret;
use crate::secret_source::SecretSource;
use crate::server;

/// The demo's first app, with the keys that tutorials use.
const FIRST_APPID: &str = "wx1111111111111111";
/// Its second app, on the classic endpoint.
const SECOND_APPID: &str = "wx2222222222222222";
/// Worth nothing: only the sandbox knows it.
const DEMO_SECRET: &str = "0123456789abcdef0123456789abcdef";

/// Runs the sandbox, and one server in this process or several in processes of their own, until told to stop.
pub async fn run(args: &DemoArgs, shutdown: CancellationToken) -> Result<(), StartError> {
    let sandbox = Sandbox::start(sandbox_options(args.lifetime))
        .await
        .map_err(|error| StartError::Unavailable(format!("the sandbox cannot start: {error}")))?;
    let done = match args.nodes {
        1 => run_one_node(args, &sandbox, shutdown).await,
        _ => multi_node::run(args, &sandbox.base_url(), &shutdown).await.map_err(StartError::Unavailable),
    };
    sandbox.stop().await;
    done
}

/// The options of the demo's sandbox, for tokens with that life.
#[doc(hidden)]
pub fn sandbox_options(lifetime: Duration) -> Options {
    Options {
        apps: [FIRST_APPID, SECOND_APPID].map(|appid| mp(appid, DEMO_SECRET)).into(),
        lifetime_s: lifetime.as_secs().max(1),
        quotas: Quotas::default().scaled(lifetime),
        ..Options::default()
    }
}

/// The demo's apps, for tokens with that life: they are fetched more often than WeChat would allow.
#[doc(hidden)]
pub fn apps(lifetime: Duration) -> Vec<credential::App> {
    let [calls, ticket_calls] = daily_quotas(lifetime);
    let app = |appid: &str, token, aliases: &[&str]| credential::App {
        tickets: vec![&mp::JSAPI],
        aliases: aliases.iter().map(|&alias| Alias::raw(alias)).collect(),
        daily_quota: Some(calls).filter(|_| token == &mp::CLASSIC),
        daily_ticket_quota: Some(ticket_calls),
        ..credential::App::mp(appid, SecretSource::Fixed(Secret::new(DEMO_SECRET.to_owned())), token)
    };
    vec![
        app(FIRST_APPID, &mp::STABLE, &["access_token", FIRST_APPID]),
        app(SECOND_APPID, &mp::CLASSIC, &[SECOND_APPID]),
    ]
}

async fn run_one_node(args: &DemoArgs, sandbox: &Sandbox, shutdown: CancellationToken) -> Result<(), StartError> {
    let bound = Bound::open_with(configuration(args, sandbox), |options| open_http(options, args).map(Some))?;
    let http = bound.http_addresses().first().copied();
    let app = bound.drop_privileges()?.start(shutdown)?;
    let address = app.addresses().first().copied().unwrap_or(SocketAddr::new(args.listen, args.port));
    print(&welcome(address, http, &sandbox.base_url(), args.lifetime));
    app.run().await
}

/// The status page's port; another one if the usual one is taken and none was asked for.
fn open_http(options: &mut app::Options, args: &DemoArgs) -> Result<BoundListeners, String> {
    let mut open = |port| {
        let http = http_api::Options::at(vec![SocketAddr::new(Ipv4Addr::LOCALHOST.into(), port)]);
        BoundListeners::open(options.http.insert(http))
    };
    match args.http_port {
        Some(port) => open(port),
        None => open(HTTP_PORT).or_else(|_| open(0)),
    }
}

fn mp(appid: &str, secret: &str) -> AppOptions {
    AppOptions { appid: appid.to_owned(), secret: secret.to_owned(), ..AppOptions::default() }
}

fn configuration(args: &DemoArgs, sandbox: &Sandbox) -> app::Options {
    app::Options {
        server: server::Options {
            listen: vec![SocketAddr::new(args.listen, args.port)],
            threads: std::thread::available_parallelism().map_or(1, |cores| cores.get().min(4)),
            ..server::Options::default()
        },
        credentials: credential::Options {
            state_path: None,
            cluster: None,
            upstream: ClientOptions::at(sandbox.base_url()),
            apps: apps(args.lifetime),
        },
        ..app::Options::default()
    }
}

fn welcome(address: SocketAddr, http: Option<SocketAddr>, sandbox: &str, lifetime: Duration) -> String {
    let page = http.map_or(String::new(), |http| format!("http://{http}/"));
    let (host, port) = (texts::host(address.ip()), address.port());
    let life = lifetime.as_secs();
    format!(
        r#"tokencached demo: a cache for memcached clients on {address}, and a simulated WeChat: {sandbox}
Two apps with a JS-SDK ticket each, their tokens live {life} s, so you can watch them being renewed. Nothing leaves this machine. Ctrl-C ends it.
Status page: {page}

Read a token, as any memcached client would:
  printf 'get access_token\r\nquit\r\n' | nc {host} {port}

The same by hand; a write to a managed key is refused, every other key is a plain cache:
  telnet {host} {port}
    get access_token:{FIRST_APPID}
    get {SECOND_APPID}
    get jsapi_ticket:{FIRST_APPID}
    set access_token 0 0 5
    hello                         -> NOT_STORED
    set my_key 0 60 5
    hello                         -> STORED
    stats tokens
    quit

From PHP (pecl memcached; with pecl memcache write new Memcache):
  php -r '$mem = new Memcached; $mem->addServer("{host}", {port});
          echo $mem->get("access_token"), "\n", $mem->get("{SECOND_APPID}"), "\n";'

Does the simulated WeChat accept it?
  curl "{sandbox}/cgi-bin/get_api_domain_ip?access_token=$(printf 'get access_token\r\nquit\r\n' | nc {host} {port} | sed -n 2p | tr -d '\r')"

Report that a token is dead: the server verifies it at WeChat, and renews it if it is dead:
  printf 'delete access_token\r\nquit\r\n' | nc {host} {port}
Really end it at WeChat first, and watch the log:
  curl -d '{{"appid":"{FIRST_APPID}"}}' {sandbox}/sandbox/kill

What was called:
  curl {sandbox}/sandbox/calls
"#
    )
}

/// Runs only the simulated platforms until told to stop.
pub async fn run_sandbox(args: &SandboxArgs, shutdown: CancellationToken) -> Result<(), StartError> {
    let apps = sandbox_apps(args).map_err(StartError::Unavailable)?;
    let named: Vec<String> = apps.iter().map(|app| app.appid.clone()).collect();
    let tls = args.tls_cert.clone().zip(args.tls_key.clone()).map(|(cert, key)| SandboxTlsFiles { cert, key });
    let options = Options {
        listen: args.listen,
        apps,
        lifetime_s: args.lifetime.as_secs().max(1),
        overlap_ms: args.overlap.map(millis),
        stable_window_ms: args.stable_window.map(millis),
        quotas: Quotas::default().scaled(args.lifetime),
        tls,
        ..Options::default()
    };
    let sandbox = Sandbox::start(options)
        .await
        .map_err(|error| StartError::Unavailable(format!("the sandbox cannot listen on {}: {error}", args.listen)))?;
    print(&how_to_use(args, &named, &sandbox.base_url()));
    shutdown.cancelled().await;
    sandbox.stop().await;
    Ok(())
}

/// The accounts that were asked for, otherwise a single one.
fn sandbox_apps(args: &SandboxArgs) -> Result<Vec<AppOptions>, String> {
    let given = [
        (&args.apps, SandboxPlatform::Mp),
        (&args.wecom, SandboxPlatform::Wecom),
        (&args.qq, SandboxPlatform::Qq),
        (&args.feishu, SandboxPlatform::Feishu),
        (&args.components, SandboxPlatform::Component),
    ];
    let options = |account: &AccountArg, platform| AppOptions {
        appid: account.id.clone(),
        secret: account.secret.expose().to_owned(),
        platform,
        ip_allowlist: (!args.allow_ips.is_empty()).then(|| args.allow_ips.clone()),
        ..AppOptions::default()
    };
    let accounts =
        given.into_iter().flat_map(|(accounts, platform)| accounts.iter().map(move |account| (account, platform)));
    let mut apps: Vec<AppOptions> = accounts.map(|(account, platform)| options(account, platform)).collect();
    for account in &args.authorizers {
        if !args.components.iter().any(|component| component.id == account.component) {
            let component = &account.component;
            return Err(format!(
                "--authorizer names the component {component}, and there is no --component with that id"
            ));
        }
        apps.push(AppOptions {
            appid: account.id.clone(),
            authorizer_of: Some(account.component.clone()),
            refresh_token: account.refresh_token.expose().to_owned(),
            ..AppOptions::default()
        });
    }
    if apps.is_empty() {
        let account = AccountArg { id: FIRST_APPID.to_owned(), secret: Secret::new(DEMO_SECRET.to_owned()) };
        apps.push(options(&account, SandboxPlatform::Mp));
    }
    Ok(apps)
}

/// What `tokencached sandbox` prints at its start.
fn how_to_use(args: &SandboxArgs, appids: &[String], url: &str) -> String {
    let mut text = format!("a simulated WeChat API is at {url}; its front page says what to type. Apps:\n");
    let given = [&args.apps, &args.wecom, &args.qq, &args.feishu, &args.components];
    let is_default = given.iter().all(|accounts| accounts.is_empty());
    for appid in appids {
        let secret = if is_default { format!("  with the secret {DEMO_SECRET}") } else { String::new() };
        // Writing to a String cannot fail.
        let _ = writeln!(text, "  {appid}{secret}");
    }
    let _ = write!(text, "Point tokencached at it with\n  [upstream]\n  base_url = \"{url}\"\n");
    if times_shorter(args.lifetime) > 1 {
        let (life, [calls, ticket_calls]) = (args.lifetime.as_secs(), daily_quotas(args.lifetime));
        let _ = write!(
            text,
            "Tokens live {life} s here, so a day has more calls than WeChat would allow. Let each [[app]] make them:\n  \
             daily_quota = {calls}\n  daily_ticket_quota = {ticket_calls}\n"
        );
    }
    for component in &args.components {
        let id = &component.id;
        let _ = write!(
            text,
            "The verify ticket that WeChat would push to {id}, written to a file for verify_ticket_file:\n  curl -s -d \
             '{{\"appid\":\"{id}\"}}' {url}/sandbox/verify_ticket | cut -d'\"' -f4 > verify_ticket\n"
        );
    }
    text
}

/// How many calls a day a server may make for a token, and for each ticket, of tokens with that life.
fn daily_quotas(lifetime: Duration) -> [u64; 2] {
    [mp::CLASSIC.quota, mp::JSAPI.quota].map(|quota| quota.per_day.unwrap_or(0).saturating_mul(times_shorter(lifetime)))
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

/// A closed standard output is not a reason to stop.
fn print(text: &str) {
    use std::io::Write;
    let mut out = std::io::stdout().lock();
    let _ = out.write_all(text.as_bytes());
    let _ = out.flush();
}
