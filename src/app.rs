//! Builds every part once and runs them until told to stop.
//!
//! The only module that knows all the others. Never reads arguments and never exits the process.

mod descriptors_needed;
mod error;
mod options;
mod startup;

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use tokio_util::sync::CancellationToken;

pub use self::error::StartError;
pub use self::options::Options;
pub use self::startup::{Bound, Reloader, Unprivileged, await_state, check_files};
use crate::cache::{self, Cache};
use crate::cluster;
use crate::descriptors::DescriptorNeeds;
use crate::files::watch::{self, WatchedFiles};
use crate::http_api::HttpApi;
use crate::process::{PidFile, systemd};
use crate::server::{self, BoundListener, Limits, Protocol, Server};
use crate::service::{Service, Settings};
use crate::stats::Stats;
use crate::supervision::Supervisor;
use crate::telemetry;

/// Half-received requests may hold at least this much memory together, bytes.
const IN_FLIGHT_BYTES_MIN: u64 = 64 * 1024 * 1024;
/// Shards of the cache, each with a lock: so many that workers seldom wait for each other.
const CACHE_SHARDS: usize = 64;

/// The file descriptors that the clients, the HTTP port and the server itself would need.
pub fn descriptors(config: &Options) -> DescriptorNeeds {
    DescriptorNeeds {
        clients: config.server.max_connections,
        http: config.http.as_ref().map_or(0, |http| http.max_connections),
        own: descriptors_needed::descriptors(config),
    }
}

/// The last step of a start: every part is built, and its threads are there. Accepts nothing before [`Running::run`].
pub struct Running {
    server: Server,
    http: Option<HttpApi>,
    refresher: crate::credential::refresher::Refresher,
    sinks: Vec<crate::sink::SinkRunner>,
    /// Files with users, keys, certificates and passwords; the refresher watches its own files.
    watched: Vec<Box<dyn WatchedFiles>>,
    supervisor: Supervisor,
    addresses: Vec<SocketAddr>,
    /// Removed when this is dropped.
    _pid_file: Option<PidFile>,
}

impl Running {
    fn build(bound: Bound, shutdown: CancellationToken) -> Result<Running, StartError> {
        let Bound { options, authenticator, listeners, http, pid_file } = bound;
        let supervisor = Supervisor::new(shutdown);
        let addresses: Vec<SocketAddr> = listeners.iter().filter_map(BoundListener::tcp_addr).collect();
        let (table, refresher) = crate::credential::build(&options.credentials).map_err(StartError::Unavailable)?;
        let mut refresher = refresher.supervised_by(&supervisor);
        if let Some(period) = systemd::watchdog_period() {
            refresher = refresher.with_watchdog(period / 4, systemd::notify_watchdog);
        }
        let stats = Arc::new(Stats::with_log(telemetry::dropped_lines()));
        let sinks = crate::sink::build(&options.sinks, &table, &stats);
        adopt_from_sinks(&mut refresher, &sinks);
        let settings = service_settings(&options, &addresses);
        let service = Arc::new(Service::new(cache(&options.server), table, stats, settings));
        let refresher = refresher.with_ordinary_items(service.clone());
        let mut watched = authenticator.watched();
        watched.extend(http.iter().flat_map(|http| http.reload_handle().watched()));
        watched.extend(watched_secrets(&options));
        let http = http.map(|http| HttpApi::start(http, &options.credentials.apps, service.clone(), &supervisor));
        let http = http.transpose().map_err(StartError::system("cannot start the HTTP port's thread"))?;
        let (limits, threads) = (limits(&options.server), options.server.threads);
        let server = Server::new(listeners, service, authenticator, limits, threads, &supervisor)
            .map_err(StartError::system("cannot start the worker threads"))?;
        Ok(Running { server, http, refresher, sinks, watched, supervisor, addresses, _pid_file: pid_file })
    }

    pub fn addresses(&self) -> &[SocketAddr] {
        &self.addresses
    }

    /// Serves until the shutdown token fires, then until what is in flight is finished and the state is written. The
    /// error names a part that ended before its time, which is why the server has ended.
    pub async fn run(self) -> Result<(), StartError> {
        let (end_sinks, sinks) = {
            let (end, supervisor) = (CancellationToken::new(), self.supervisor.clone());
            let ended = end.clone();
            (end, tokio::spawn(async move { crate::sink::run(self.sinks, ended, &supervisor).await }))
        };
        if !self.watched.is_empty() {
            let watching = watch::watch_files(self.watched, self.supervisor.shutdown().clone());
            tokio::spawn(self.supervisor.watch("the watch on files").during(watching));
        }
        let refresher = self.refresher.run(self.supervisor.shutdown().clone());
        let refresher = tokio::spawn(self.supervisor.watch("the refresher").during(refresher));
        self.server.run().await;
        if let Some(http) = self.http {
            http.join().await;
        }
        if refresher.await.is_err() {
            tracing::error!("the refresher panicked; the state file may be out of date");
        }
        // The sinks end last: a fetch that ended only now may have brought a value.
        end_sinks.cancel();
        let _ = sinks.await;
        self.supervisor.failed_part().map_or(Ok(()), |part| Err(StartError::PartEnded(part.to_owned())))
    }
}

fn cache(options: &server::Options) -> Cache {
    Cache::new(&cache::Options {
        budget_bytes: options.memory_bytes,
        item_size_max_bytes: options.item_size_max_bytes,
        evict: options.evict,
        shards: CACHE_SHARDS,
    })
}

fn service_settings(options: &Options, addresses: &[SocketAddr]) -> Settings {
    Settings {
        refuse_with: options.server.refuse_with,
        shutdown_command: options.server.shutdown_command,
        shown_settings: shown_settings(options, addresses),
        threads: options.server.threads,
        max_connections: options.server.max_connections,
        verbosity: options.log.verbosity.into(),
        set_verbosity: telemetry::set_verbosity,
    }
}

fn limits(options: &server::Options) -> Limits {
    Limits {
        max_connections: options.max_connections,
        requests_per_turn: options.requests_per_turn.max(1),
        value_bytes_max: options.item_size_max_bytes,
        idle_timeout: (options.idle_timeout_s > 0).then(|| Duration::from_secs(options.idle_timeout_s)),
        // When memory or connections are scarce, a command line must be whole after this long.
        line_timeout: Duration::from_secs(10),
        // When they are not, a person may pause this long between two keys, and take this long in all. Some telnet
        // programs send each key by itself.
        typing_pause: Duration::from_secs(60),
        typing_max: Duration::from_secs(600),
        // A data block may take longer if it is large; people type slowly.
        block_timeout: Duration::from_secs(60),
        in_flight_bytes_max: in_flight_bytes_max(options),
        // A peer that does not read for this long is given up.
        write_timeout: Duration::from_secs(30),
        login_timeout: Duration::from_secs(60),
        // Shorter than the second after which pecl memcache gives up.
        login_failure_delay: Duration::from_millis(500),
        handshake_timeout: Duration::from_secs(10),
        hold: Duration::from_millis(options.first_get_wait_ms),
    }
}

/// Files of passwords. Each part reads its own when it needs it; watching them keeps the last good content and reports a
/// bad file before it is needed.
fn watched_secrets(config: &Options) -> Vec<Box<dyn WatchedFiles>> {
    let passwords = config.sinks.iter().filter_map(|sink| {
        let password = sink.password()?;
        password.watched_until(CancellationToken::new(), format!("the password of {sink} in"), |_, _| {})
    });
    let cluster_secrets =
        config.credentials.cluster.iter().flat_map(cluster::Options::secrets).filter_map(|(what, source)| {
            let is_fixed = what == cluster::Options::SEALING;
            let name = format!("{what} of [state] in");
            source.watched_until(CancellationToken::new(), name, move |_, at_start| {
                if is_fixed && !at_start {
                    tracing::warn!(
                        "the secret of [state] has changed: restart to use it; it must be the same on all nodes"
                    );
                }
            })
        });
    passwords.chain(cluster_secrets).collect()
}

/// Gives the refresher the sinks from which it adopts tokens. A sink writes nothing before this server has a value of its
/// own, and it has none before that sink was read.
fn adopt_from_sinks(refresher: &mut crate::credential::Refresher, sinks: &[crate::sink::SinkRunner]) {
    for id in refresher.adopts_from_sinks() {
        // There always is one: a configuration without it is refused.
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
fn shown_settings(config: &Options, addresses: &[SocketAddr]) -> Vec<(&'static str, String)> {
    let server = &config.server;
    let yes_no = |yes: bool| if yes { "yes" } else { "no" }.to_owned();
    let inter: Vec<String> = addresses.iter().map(|address| address.ip().to_string()).collect();
    let socket = server.unix_socket.as_ref().map_or("NULL".to_owned(), |path| path.display().to_string());
    // memcached's word for it.
    let binding_protocol = match server.protocol {
        Protocol::Auto => "auto-negotiate",
        other => other.word(),
    };
    vec![
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
        ("refuse_with", server.refuse_with.word().to_owned()),
        ("first_get_wait_ms", server.first_get_wait_ms.to_string()),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_refresher_that_dies_ends_the_server_and_the_error_names_it() {
        let options =
            Options { server: server::Options { listen: Vec::new(), ..Default::default() }, ..Default::default() };
        let unprivileged = Bound::open(options).unwrap().drop_privileges().unwrap();
        let mut app = unprivileged.start(CancellationToken::new()).unwrap();
        app.refresher = app.refresher.with_watchdog(Duration::from_secs(1), || panic!("as a bug would"));
        assert!(matches!(app.run().await, Err(StartError::PartEnded(part)) if part == "the refresher"));
    }
}
