//! Builds every part once and runs them until told to stop.
//!
//! The only module that knows all the others. Never reads arguments and never exits the process.

mod descriptors_needed;
mod options;

use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use tokio_util::sync::CancellationToken;

pub use self::options::Options;
use crate::cache::{self, Cache};
use crate::cluster;
use crate::descriptors::DescriptorNeeds;
use crate::files::watch::{self, WatchedFiles};
use crate::http_api::{self, BoundListeners};
use crate::process::{self, systemd};
use crate::server::{
    self, Authenticator, BoundListener, Limits, ListenAt, Listener, ListenerPolicy, Protocol, SocketOwner,
};
use crate::service::{RefuseWith, Service, Settings};
use crate::stats::Stats;
use crate::supervision::Supervisor;
use crate::telemetry;

/// A command line must be whole after this long when memory or connections are scarce.
const LINE_TIMEOUT: Duration = Duration::from_secs(10);
/// When they are not, a person may pause so long between two keys, and take so long in all: some telnets send each at once.
const TYPING_PAUSE: Duration = Duration::from_secs(60);
const TYPING_MAX: Duration = Duration::from_secs(600);
/// A data block must be whole after this long, and longer if it is large; people type slowly.
const BLOCK_TIMEOUT: Duration = Duration::from_secs(60);
/// Half-received requests may hold at least this much memory together, bytes.
const IN_FLIGHT_BYTES_MIN: u64 = 64 * 1024 * 1024;
/// A peer that does not read for this long is given up.
const WRITE_TIMEOUT: Duration = Duration::from_secs(30);
/// Locks the cache is spread over; more than any number of workers that would meet on one.
const CACHE_SHARDS: usize = 64;

/// A client that must log in has so long to do it.
const LOGIN_TIMEOUT: Duration = Duration::from_secs(60);
/// A wrong password is answered only after this long. Shorter than the second after which pecl memcache gives up.
const LOGIN_FAILURE_DELAY: Duration = Duration::from_millis(500);
/// A TLS handshake must be over after this long.
const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(10);

/// Reads what lets clients in: users, certificates. Done before privileges are dropped.
pub fn authenticator(config: &Options) -> Result<Arc<Authenticator>, String> {
    Authenticator::new(&config.access).map(Arc::new)
}

/// Opens the listening sockets. Done before privileges are dropped and before any thread starts.
pub fn bind(config: &Options) -> Result<Vec<BoundListener>, String> {
    let server = &config.server;
    let bind = |listener: Listener| {
        let (rights, protocol) = (Arc::new(listener.rights), server.protocol);
        let policy = ListenerPolicy { rights, login: listener.auth, tls: listener.tls, protocol };
        server::bind(&listener.at, owner(&listener.at, server)?, policy, server.backlog)
    };
    let mut bound: Vec<BoundListener> = Vec::new();
    let mut before = None;
    for listener in config.listeners() {
        let (at, is_localhost_pair) = (listener.at.clone(), is_localhost_pair(before.as_ref(), &listener.at));
        match bind(listener) {
            Ok(listening) => bound.push(listening),
            Err(error) if is_localhost_pair => tracing::warn!("{error}; 127.0.0.1 is served without it"),
            Err(error) => return Err(error),
        }
        before = Some(at);
    }
    Ok(bound)
}

/// Whether it is the `::1` behind the 127.0.0.1 that `localhost` means. As with memcached, one of the two is enough.
fn is_localhost_pair(before: Option<&ListenAt>, at: &ListenAt) -> bool {
    let (Some(ListenAt::Tcp(before)), ListenAt::Tcp(at)) = (before, at) else { return false };
    before.ip() == Ipv4Addr::LOCALHOST && at.ip() == Ipv6Addr::LOCALHOST && before.port() == at.port()
}

/// Reads what the side port needs and opens nothing: for `check`.
pub fn validate_http_api(config: &Options) -> Result<(), String> {
    config.http.as_ref().map_or(Ok(()), BoundListeners::check_files)
}

/// The file descriptors that all of it would need.
pub fn descriptors(config: &Options) -> DescriptorNeeds {
    DescriptorNeeds {
        clients: config.server.max_connections,
        http: config.http.as_ref().map_or(0, |side| side.max_connections),
        own: descriptors_needed::descriptors(config),
    }
}

/// Opens the side port, if there is to be one. Done at the same time.
pub fn side(config: &Options) -> Result<Option<BoundListeners>, String> {
    config.http.as_ref().map(BoundListeners::open).transpose()
}

/// A Unix socket belongs to the user that the server becomes, and to the group that is asked for.
fn owner(at: &ListenAt, server: &server::Options) -> Result<SocketOwner, String> {
    let ListenAt::Unix { path, group, .. } = at else { return Ok(SocketOwner::default()) };
    let user = server.user.as_deref().and_then(process::user_to_become);
    let group = match group {
        Some(name) => {
            let found = process::group_id(name).map_err(|error| format!("the socket {}: {error}", path.display()))?;
            Some(found)
        }
        None => None,
    };
    Ok(SocketOwner { user, group })
}

/// Waits for a server that is ending to give up the state file, where this one cannot start without it.
pub fn await_state(config: &Options, is_given_up: impl Fn() -> bool, waiting: impl FnOnce(&str)) -> Result<(), String> {
    crate::credential::await_state(&config.credentials, is_given_up, waiting)
}

/// The parts, wired and ready to run.
pub struct App {
    server: server::Server,
    side: Option<http_api::HttpApi>,
    refresher: crate::credential::refresher::Refresher,
    sinks: Vec<crate::sink::SinkRunner>,
    /// Files that let clients in or us into stores; the refresher follows its own.
    watched: Vec<Box<dyn WatchedFiles>>,
    supervisor: Supervisor,
    addresses: Vec<SocketAddr>,
}

impl App {
    /// Wires the parts: state is loaded and live tokens are published before anything is accepted.
    pub fn new(
        config: &Options,
        bound: Vec<BoundListener>,
        door: Option<BoundListeners>,
        authenticator: Arc<Authenticator>,
        shutdown: CancellationToken,
    ) -> Result<App, String> {
        let supervisor = Supervisor::new(shutdown);
        let addresses: Vec<SocketAddr> = bound.iter().filter_map(BoundListener::tcp_addr).collect();
        let (table, refresher) = crate::credential::build(&config.credentials)?;
        let mut refresher = refresher.supervised_by(&supervisor);
        if let Some(period) = systemd::watchdog_period() {
            refresher = refresher.with_watchdog(period / 4, systemd::notify_watchdog);
        }
        let server = &config.server;
        let cache = Cache::new(&cache::Options {
            budget_bytes: server.memory_bytes,
            item_size_max_bytes: server.item_size_max_bytes,
            evict: server.evict,
            shards: CACHE_SHARDS,
        });
        let settings = Settings {
            refuse_with: server.refuse_with,
            shutdown_command: server.shutdown_command,
            shown: shown_settings(config, &addresses),
            threads: server.threads,
            max_connections: server.max_connections,
            verbosity: config.log.verbosity.into(),
            set_verbosity: telemetry::set_verbosity,
        };
        let stats = Arc::new(Stats::with_log(telemetry::dropped_lines()));
        let sinks = crate::sink::build(&config.sinks, &table, &stats);
        adopt_from_sinks(&mut refresher, &sinks);
        let service = Arc::new(Service::new(cache, table, stats, settings));
        let limits = Limits {
            max_connections: server.max_connections,
            requests_per_turn: server.requests_per_turn.max(1),
            value_bytes_max: server.item_size_max_bytes,
            idle_timeout: (server.idle_timeout_s > 0).then(|| Duration::from_secs(server.idle_timeout_s)),
            line_timeout: LINE_TIMEOUT,
            typing_pause: TYPING_PAUSE,
            typing_max: TYPING_MAX,
            block_timeout: BLOCK_TIMEOUT,
            in_flight_bytes_max: in_flight_bytes_max(server),
            write_timeout: WRITE_TIMEOUT,
            login_timeout: LOGIN_TIMEOUT,
            login_failure_delay: LOGIN_FAILURE_DELAY,
            handshake_timeout: HANDSHAKE_TIMEOUT,
            hold: Duration::from_millis(server.first_get_wait_ms),
        };
        let mut watched = authenticator.watched();
        watched.extend(door.iter().flat_map(|door| door.reload_handle().watched()));
        watched.extend(watched_secrets(config));
        let side = door.zip(config.http.as_ref()).map(|(door, options)| {
            http_api::HttpApi::start(door, options, &config.credentials.apps, service.clone(), &supervisor)
        });
        let side = side.transpose().map_err(|error| format!("cannot start the side port's thread: {error}"))?;
        let server = server::Server::new(bound, service, authenticator, limits, server.threads, &supervisor)
            .map_err(|error| format!("cannot start the worker threads: {error}"))?;
        Ok(App { server, side, refresher, sinks, watched, supervisor, addresses })
    }

    /// The TCP addresses served, with real port numbers.
    pub fn addresses(&self) -> &[SocketAddr] {
        &self.addresses
    }

    /// Serves until the shutdown token fires, then until what is in flight is finished and the state is written. The
    /// error names a part that ended before its time, which is why the server has ended.
    pub async fn run(self) -> Result<(), String> {
        let (end_sinks, sinks) = {
            let (end, supervisor) = (CancellationToken::new(), self.supervisor.clone());
            let ended = end.clone();
            (end, tokio::spawn(async move { crate::sink::run(self.sinks, ended, &supervisor).await }))
        };
        if !self.watched.is_empty() {
            let following = watch::watch_files(self.watched, self.supervisor.shutdown().clone());
            tokio::spawn(self.supervisor.watch("the watch on files").during(following));
        }
        let refresher = self.refresher.run(self.supervisor.shutdown().clone());
        let refresher = tokio::spawn(self.supervisor.watch("the refresher").during(refresher));
        self.server.run().await;
        if let Some(side) = self.side {
            side.join().await;
        }
        if refresher.await.is_err() {
            tracing::error!("the refresher ended badly; the state file may be behind");
        }
        // Last: a call that came home at the end has brought a value, too.
        end_sinks.cancel();
        let _ = sinks.await;
        self.supervisor.failed_part().map_or(Ok(()), |part| Err(format!("{part} has ended")))
    }
}

/// Passwords and the like, which whoever needs one reads. Here they are watched to keep the last good one, and to say
/// what is wrong with a file before it is needed.
fn watched_secrets(config: &Options) -> Vec<Box<dyn WatchedFiles>> {
    let passwords = config.sinks.iter().filter_map(|sink| {
        let password = sink.password()?;
        password.watched(format!("the password of {sink} in"), |_, _| {})
    });
    let of_state = config.credentials.cluster.iter().flat_map(cluster::Options::secrets).filter_map(|(what, source)| {
        let is_fixed = what == cluster::Options::SEALING;
        source.watched(format!("{what} of [state] in"), move |_, at_start| {
            if is_fixed && !at_start {
                tracing::warn!("the secret of [state] has changed; it counts from the next start, and must be the same on all nodes");
            }
        })
    });
    passwords.chain(of_state).collect()
}

/// Tells the refresher where the site keeps what is to be taken over. A sink writes nothing before there is a value of
/// this server's, and there is none before that place has been read.
fn adopt_from_sinks(refresher: &mut crate::credential::Refresher, sinks: &[crate::sink::SinkRunner]) {
    for id in refresher.adopts_from_sinks() {
        // The configuration is refused where there is none.
        if let Some(source) = crate::sink::source(sinks, id) {
            refresher.adopt_from(id, source);
        }
    }
}

/// A quarter of the cache, and never less than a few of the largest items.
fn in_flight_bytes_max(server: &server::Options) -> u64 {
    (server.memory_bytes / 4).max(4 * server.item_size_max_bytes as u64).max(IN_FLIGHT_BYTES_MIN)
}

/// The lines of `stats settings`, named as memcached names them.
fn shown_settings(config: &Options, addresses: &[SocketAddr]) -> Vec<(String, String)> {
    let server = &config.server;
    let yes_no = |yes: bool| if yes { "yes" } else { "no" }.to_owned();
    let inter: Vec<String> = addresses.iter().map(|address| address.ip().to_string()).collect();
    let socket = server.unix_socket.as_ref().map_or("NULL".to_owned(), |path| path.display().to_string());
    let refuse_with = match server.refuse_with {
        RefuseWith::NotStored => "not_stored",
        RefuseWith::ClientError => "client_error",
    };
    // memcached's word for it.
    let binding_protocol = match server.protocol {
        Protocol::Auto => "auto-negotiate",
        other => other.word(),
    };
    [
        ("maxbytes", server.memory_bytes.to_string()),
        ("maxconns", server.max_connections.to_string()),
        ("tcpport", addresses.first().map_or(0, SocketAddr::port).to_string()),
        ("udpport", "0".to_owned()),
        ("inter", if inter.is_empty() { "NULL".to_owned() } else { inter.join(",") }),
        ("verbosity", config.log.verbosity.to_string()),
        ("oldest", "0".to_owned()),
        ("evictions", if server.evict { "on" } else { "off" }.to_owned()),
        ("domain_socket", socket),
        ("umask", format!("{:o}", server.unix_mode)),
        ("shutdown_command", yes_no(server.shutdown_command)),
        ("num_threads", server.threads.to_string()),
        ("stat_key_prefix", ":".to_owned()),
        ("detail_enabled", "no".to_owned()),
        ("reqs_per_event", server.requests_per_turn.to_string()),
        ("cas_enabled", "yes".to_owned()),
        ("tcp_backlog", server.backlog.to_string()),
        ("binding_protocol", binding_protocol.to_owned()),
        ("auth_enabled_sasl", yes_no(config.access.auth_file.is_some() && server.protocol != Protocol::Ascii)),
        ("auth_enabled_ascii", config.access.auth_file.as_ref().map_or("no".into(), |file| file.display().to_string())),
        ("item_size_max", server.item_size_max_bytes.to_string()),
        ("maxconns_fast", "yes".to_owned()),
        ("flush_enabled", "yes".to_owned()),
        ("dump_enabled", "no".to_owned()),
        ("idle_timeout", server.idle_timeout_s.to_string()),
        ("ssl_enabled", yes_no(config.access.tls.is_some())),
        ("refuse_with", refuse_with.to_owned()),
        ("first_get_wait_ms", server.first_get_wait_ms.to_string()),
    ]
    .into_iter()
    .map(|(name, value)| (name.to_owned(), value))
    .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_refresher_that_dies_ends_the_server_and_the_error_names_it() {
        let config = Options::default();
        let authenticator = authenticator(&config).unwrap();
        let mut app = App::new(&config, Vec::new(), None, authenticator, CancellationToken::new()).unwrap();
        app.refresher = app.refresher.with_watchdog(Duration::from_secs(1), || panic!("as a bug would"));
        assert_eq!(app.run().await, Err("the refresher has ended".to_owned()));
    }
}
