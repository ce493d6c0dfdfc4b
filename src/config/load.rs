//! The three layers laid over each other: file < environment < flags, then what follows from all of them.

use std::cmp::Ordering;
use std::path::{Path, PathBuf};

use super::access;
use super::apps::Reader;
use super::environment::Environment;
use super::fault::{Fault, Faults, Place, Problem};
use super::file::{self, Document};
use super::flags::Flags;
use super::listen::{self, Asked, Guarded};
use super::listeners::{Listeners, default_mode};
use super::settings::{SETTINGS, closest};
use super::value::{Given, Reading, Value, integer, mode, path, size, size_text, switch, text, word};
use super::{
    Access, ClientCertificates, Config, Log, Protocol, RefuseWith, SecretOrigin, Server, Tls, TlsVersion, Upstream,
    authorizers, credentials, mistakes, nodes, side, surroundings, upstream,
};
use crate::access::Rights;
use crate::credential;
use crate::platform::mp;

const MIB: u64 = 1 << 20;
const ITEM_SIZE_DEFAULT: u64 = MIB;
/// pecl memcache gives a server up after one second; a held get must end before.
const FIRST_GET_WAIT_MS_MAX: u64 = 900;

/// A configuration and what was said on the way to it.
#[derive(Clone, Debug)]
pub struct Loaded {
    pub config: Config,
    /// Sentences for the operator; none stops the start.
    pub warnings: Vec<String>,
    /// Other addresses than loopback are meant.
    pub allow_unauthenticated: bool,
    /// Where each app's secret came from, in the order of `config.credentials.apps`.
    pub origins: Vec<SecretOrigin>,
    /// Where systemd has put its credentials.
    pub credentials_folder: Option<PathBuf>,
}

/// Reads the file, the environment and the flags; every fault of all three at once.
///
/// Reads the secret files too, to judge them. Relative paths in the file count from its folder, others from
/// the current one; all come out absolute, because a daemon changes its folder.
pub fn load(file: Option<&Path>, environment: &dyn Environment, flags: &Flags) -> Result<Loaded, Faults> {
    let mut faults = flags.refusals();
    let mut warnings = flags.ignored();
    let mut document = file.map(|path| file::read(&absolute(path), &mut faults)).unwrap_or_default();
    let mut layers = Layers::new(&mut document, environment, flags, &mut faults, &mut warnings);

    let (access, auth_place) = layers.access();
    layers.faults.extend(flags.sasl_fault(access.auth_file.is_some()));
    let server = layers.server();
    let asked = layers.asked(&access);
    let upstream = layers.upstream();
    let side = side::asked(&mut layers);
    let log = Log {
        verbosity: layers.pick("log.verbosity", |value, _| integer(value, 0..=3)).map_or(0, |n| n as u8),
        json: layers.pick("log.json", |value, _| switch(value)).unwrap_or(false),
    };
    let state = layers.pick("state.path", |value, base| match text(value)? {
        "none" => Ok(None),
        _ => path(value, base).map(Some),
    });
    let nodes = layers.nodes();
    let folder = layers.folder;
    let (allow_unauthenticated, unix_socket) = (asked.guarded.allowed, asked.unix_socket.clone());
    let asked = Asked { others: !document.listeners.is_empty(), ..asked };
    let listen = listen::addresses(&asked, flags, environment, &mut faults, &mut warnings);
    let access = access::complete(access, &mut document, &auth_place, environment, &mut faults, &mut warnings);
    let listeners = Listeners {
        access: &access,
        allow_unauthenticated,
        folder: &folder,
        environment,
        faults: &mut faults,
        warnings: &mut warnings,
    }
    .read(std::mem::take(&mut document.listeners));
    let side = side::complete(side, environment, &mut faults, &mut warnings);
    let company = nodes.company();
    let mut reader = Reader { environment, company, faults: &mut faults, warnings: &mut warnings };
    let nodes = reader.nodes(nodes, &document);
    let (apps, origins) = reader.apps(&mut document);
    let sinks = reader.sinks(&mut document, &apps);
    // What is wrong with a sink is said already.
    if faults.is_empty() {
        let adrift = apps.iter().filter_map(|app| app.adopts_from_no_sink(&sinks));
        faults.extend(adrift.map(|problem| problem.at(&Place::Default)));
    }
    if apps.is_empty() && faults.is_empty() {
        warnings.push(
            "no app is configured: this is a plain cache and keeps no access token current \
             (set WECHAT_APPID and WECHAT_SECRET, or write [[app]] in a file for --config)"
                .into(),
        );
    }
    let state_path = match state {
        Some(given) => given,
        None if apps.is_empty() => None,
        None => default_state_path(environment, &mut warnings),
    };
    if state_path.is_none()
        && let Some(app) = apps.iter().find(|app| app.component.is_some() && !app.secret.is_absent())
    {
        faults.push(authorizers::needs_state(&app.appid).at(&Place::Default));
    }
    if !faults.is_empty() {
        return Err(Faults::new(faults));
    }
    warnings.extend(upstream::warn_of_paths(&upstream, &apps));
    warnings.extend(surroundings::unused(environment, &upstream, &apps));
    let server = Server { listen, unix_socket: unix_socket.map(|(path, _)| path), listeners, ..server };
    let config = Config {
        server,
        access,
        credentials: credential::Options { state_path, cluster: nodes, upstream, apps },
        http: side,
        sinks,
        log,
    };
    warnings.extend(access::unknown_apps(&config));
    let credentials_folder = credentials::folder(environment);
    Ok(Loaded { config, warnings, allow_unauthenticated, origins, credentials_folder })
}

/// How clients are asked for certificates.
#[derive(Clone, Copy)]
enum Asks {
    Nothing,
    Politely,
    Firmly,
}

/// Every setting as each layer gave it, lowest layer first.
pub(super) struct Layers<'l> {
    given: Vec<(&'static str, Given)>,
    pub(super) environment: &'l dyn Environment,
    faults: &'l mut Vec<Fault>,
    /// The folder that relative paths of the file count from.
    folder: PathBuf,
    current: PathBuf,
}

impl<'l> Layers<'l> {
    fn new(
        document: &mut Document,
        environment: &'l dyn Environment,
        flags: &Flags,
        faults: &'l mut Vec<Fault>,
        warnings: &mut Vec<String>,
    ) -> Layers<'l> {
        let mut given = std::mem::take(&mut document.settings);
        given.extend(environment_settings(environment, faults, warnings));
        given.extend(flags.settings(faults));
        let current = std::env::current_dir().unwrap_or_else(|_| PathBuf::from("/"));
        Layers { given, environment, faults, folder: document.folder.clone(), current }
    }

    /// The highest layer's value. Lower layers are judged too: what is wrong in the file stays wrong when
    /// the flag that hides it goes.
    pub(super) fn pick<T>(&mut self, key: &'static str, read: impl Fn(&Value, &Path) -> Reading<T>) -> Option<T> {
        self.pick_placed(key, read).map(|(value, _)| value)
    }

    pub(super) fn pick_placed<T>(
        &mut self,
        key: &'static str,
        read: impl Fn(&Value, &Path) -> Reading<T>,
    ) -> Option<(T, Place)> {
        let mut picked = None;
        for (_, given) in self.given.iter().filter(|(of, _)| *of == key) {
            let in_file = matches!(given.place, Place::Line { .. });
            let base = if in_file { &self.folder } else { &self.current };
            match read(&given.value, base) {
                Ok(value) => picked = Some((value, given.place.clone())),
                Err(problem) => {
                    let problem = match &given.place {
                        Place::Flag("-c") => mistakes::file_for_number("-c", &given.value).unwrap_or(problem),
                        _ => problem,
                    };
                    self.faults.push(problem.of_key(key).at(&given.place));
                }
            }
        }
        picked
    }

    /// A file, by its path or as a credential of systemd's: what the highest layer says that names either.
    pub(super) fn pick_file(
        &mut self,
        key: &'static str,
        credential: &'static str,
        read: impl Fn(&Value, &Path) -> Reading<PathBuf>,
    ) -> Option<(PathBuf, Place)> {
        let (environment, short) = (self.environment, key.split_once('.').map_or(key, |(_, short)| short));
        let by_path = self.pick_placed(key, read);
        let by_name = self.pick_placed(credential, |value, _| credentials::file(environment, value, short));
        let (Some((_, path)), Some((_, name))) = (&by_path, &by_name) else { return by_path.or(by_name) };
        match layer(path).cmp(&layer(name)) {
            Ordering::Less => by_name,
            Ordering::Greater => by_path,
            Ordering::Equal => {
                let what = format!("{credential}: {key} is given as well");
                let place = name.clone();
                self.faults.push(Problem::new(what, "Keep one of the two.").at(&place));
                by_name
            }
        }
    }

    pub(super) fn number(&mut self, key: &'static str, range: std::ops::RangeInclusive<u64>, default: u64) -> u64 {
        self.pick(key, |value, _| integer(value, range.clone())).unwrap_or(default)
    }

    pub(super) fn fault(&mut self, fault: Fault) {
        self.faults.push(fault);
    }

    /// Where the first setting whose name begins so was given.
    pub(super) fn first_of(&self, prefix: &str) -> Option<Place> {
        self.given.iter().find(|(key, _)| key.starts_with(prefix)).map(|(_, given)| given.place.clone())
    }

    /// What `[state]` says of other nodes, out of all layers.
    fn nodes(&mut self) -> nodes::Section {
        let all = std::mem::take(&mut self.given);
        let of_nodes = |key: &str| key.strip_prefix("state.").is_some_and(|key| key != "path");
        let (taken, rest): (Vec<_>, Vec<_>) = all.into_iter().partition(|(key, _)| of_nodes(key));
        self.given = rest;
        let short = |(key, given): (&'static str, Given)| Some((key.strip_prefix("state.")?, given));
        nodes::section(taken.into_iter().filter_map(short).collect(), &self.current)
    }

    fn on(&mut self, key: &'static str, default: bool) -> bool {
        self.pick(key, |value, _| switch(value)).unwrap_or(default)
    }

    fn asked(&mut self, access: &Access) -> Asked {
        Asked {
            listen: self.pick_placed("server.listen", |value, _| listen::spots(value)),
            unix_socket: self.pick_placed("server.unix_socket", path),
            guarded: Guarded {
                passwords: access.auth_file.is_some(),
                tls: access.tls.is_some(),
                certificates: access.requires_certificates(),
                allowed: self.on("server.allow_unauthenticated", false),
            },
            others: false,
        }
    }

    /// Users' file and TLS; the place is the file's.
    fn access(&mut self) -> (Access, Place) {
        let auth_file = self.pick_file("server.auth_file", "server.auth_credential", path);
        let place = auth_file.as_ref().map_or(Place::Default, |(_, place)| place.clone());
        let access = Access { auth_file: auth_file.map(|(path, _)| path), tls: self.tls(), ..Access::default() };
        (access, place)
    }

    /// TLS is on once there is a certificate.
    fn tls(&mut self) -> Option<Tls> {
        let cert = self.pick_file("server.tls.cert", "server.tls.cert_credential", upstream::ca_file);
        let key = self.pick_file("server.tls.key", "server.tls.key_credential", access::pem);
        let (cert, key) = (cert.map(|(cert, _)| cert), key.map(|(key, _)| key));
        let client_ca = self.pick("server.tls.client_ca", upstream::ca_file);
        let asked = [("none", Asks::Nothing), ("optional", Asks::Politely), ("required", Asks::Firmly)];
        let asked = self.pick_placed("server.tls.client_certificates", |value, _| word(value, &asked));
        let versions = [("1.2", TlsVersion::Tls12), ("1.3", TlsVersion::Tls13)];
        let min_version = self.pick("server.tls.min_version", |value, _| word(value, &versions));
        if let (Some((Asks::Politely | Asks::Firmly, place)), None) = (&asked, &client_ca) {
            let what = "server.tls.client_certificates: nobody is named whose certificates would count";
            self.faults.push(Problem::new(what, "Give client_ca, the authorities (-o ssl_ca_cert).").at(place));
        }
        let Some(cert) = cert else {
            let names_it = |of: &str| matches!(of, "server.tls.cert" | "server.tls.cert_credential");
            let tls = |(of, _): &&(&str, Given)| of.starts_with("server.tls.") && !names_it(of);
            let named = |(of, _): &(&str, Given)| names_it(of);
            if let Some((_, given)) = self.given.iter().rfind(tls).filter(|_| !self.given.iter().any(named)) {
                let place = given.place.clone();
                let remedy = "Give cert under [server.tls] (-Z with -o ssl_chain_cert), a PEM file.";
                self.faults.push(Problem::new("TLS has no certificate of the server", remedy).at(&place));
            }
            return None;
        };
        let clients = match (asked.map_or(Asks::Firmly, |(asked, _)| asked), client_ca) {
            (Asks::Nothing, _) | (_, None) => ClientCertificates::Ignored,
            (Asks::Politely, Some(ca)) => ClientCertificates::Optional(ca),
            (Asks::Firmly, Some(ca)) => ClientCertificates::Required(ca),
        };
        let key = key.unwrap_or_else(|| cert.clone());
        Some(Tls { cert, key, clients, min_version: min_version.unwrap_or(TlsVersion::Tls12) })
    }

    /// Everything of `[server]` but where to listen.
    fn server(&mut self) -> Server {
        let (memory_bytes, item_size_max_bytes) = self.sizes();
        let cores = std::thread::available_parallelism().map_or(4, usize::from) as u64;
        let unix_group = self.pick("server.unix_group", |value, _| text(value).map(str::to_owned));
        let refusals = [("not_stored", RefuseWith::NotStored), ("client_error", RefuseWith::ClientError)];
        let protocols = [Protocol::Auto, Protocol::Ascii, Protocol::Binary].map(|protocol| (protocol.word(), protocol));
        Server {
            listen: Vec::new(),
            unix_socket: None,
            unix_mode: self
                .pick("server.unix_mode", |value, _| mode(value))
                .unwrap_or(default_mode(unix_group.as_deref())),
            unix_group,
            rights: self.pick("server.rights", |value, _| access::rights(value)).unwrap_or(Rights::ALL),
            listeners: Vec::new(),
            memory_bytes,
            item_size_max_bytes,
            evict: self.on("server.evict", true),
            max_connections: self.number("server.max_connections", 1..=1_000_000, 1024) as usize,
            threads: self.number("server.threads", 1..=1024, cores.clamp(1, 1024)) as usize,
            backlog: self.number("server.backlog", 1..=65_535, 1024) as u32,
            requests_per_turn: self.number(
                "server.requests_per_turn",
                1..=1_000_000,
                crate::server::options::REQUESTS_PER_TURN_DEFAULT as u64,
            ) as usize,
            idle_timeout_s: self.number("server.idle_timeout_s", 0..=31_536_000, 0),
            first_get_wait_ms: self.number("server.first_get_wait_ms", 0..=FIRST_GET_WAIT_MS_MAX, 700),
            refuse_with: self
                .pick("server.refuse_with", |value, _| word(value, &refusals))
                .unwrap_or(RefuseWith::NotStored),
            protocol: self.pick("server.protocol", |value, _| word(value, &protocols)).unwrap_or(Protocol::Auto),
            shutdown_command: self.on("server.shutdown_command", false),
            user: self.pick("server.user", |value, _| text(value).map(str::to_owned)),
            pid_file: self.pick("server.pid_file", path),
            daemonize: self.on("server.daemonize", false),
            lock_memory: self.on("server.lock_memory", false),
        }
    }

    fn sizes(&mut self) -> (u64, usize) {
        let memory_max = if usize::BITS >= 64 { 1 << 44 } else { 1 << 31 };
        let memory = self.pick("server.memory", |value, _| size(value, MIB..=memory_max)).unwrap_or(64 * MIB);
        let item = self.pick_placed("server.item_size_max", |value, _| size(value, 1024..=1024 * MIB));
        if let Some((item, place)) = &item
            && *item > memory / 2
        {
            let what = format!(
                "server.item_size_max: an item of {} is more than half of the memory, {}",
                size_text(*item),
                size_text(memory)
            );
            let remedy = "Give more memory (-m, server.memory) or allow smaller items only.";
            self.faults.push(Problem::new(what, remedy).at(place));
        }
        let item = item.map_or(ITEM_SIZE_DEFAULT.min(memory / 2), |(item, _)| item);
        (memory, item as usize)
    }

    fn upstream(&mut self) -> Upstream {
        let base_url = self.pick("upstream.base_url", |value, _| upstream::base_url(value));
        let base_url = base_url.unwrap_or_else(|| mp::PLATFORM.base_url.to_owned());
        let hosts = self.pick("upstream.hosts", |value, _| upstream::hosts(value));
        let default = Upstream::at(base_url.clone());
        let upstream = Upstream {
            hosts: hosts.unwrap_or_else(|| upstream::hosts_of(&base_url)),
            base_url,
            ca_file: self.pick("upstream.ca_file", upstream::ca_file),
            connect_timeout_ms: self.number("upstream.connect_timeout_ms", 100..=60_000, default.connect_timeout_ms),
            total_timeout_ms: self.number("upstream.total_timeout_ms", 100..=120_000, default.total_timeout_ms),
            concurrency: self.number("upstream.concurrency", 1..=1_000, default.concurrency as u64) as usize,
            proxy: self.pick("upstream.proxy", |value, _| upstream::proxy(value)),
        };
        if upstream.connect_timeout_ms > upstream.total_timeout_ms {
            let of = |key: &str| self.given.iter().rfind(|(of, _)| *of == key).map(|(_, given)| given.place.clone());
            let place = of("upstream.connect_timeout_ms").or(of("upstream.total_timeout_ms"));
            let what = format!(
                "upstream.connect_timeout_ms: {} ms is longer than the whole call may take, {} ms",
                upstream.connect_timeout_ms, upstream.total_timeout_ms
            );
            let problem = Problem::new(what, "Raise total_timeout_ms or lower connect_timeout_ms.");
            self.faults.push(problem.at(&place.unwrap_or(Place::Default)));
        }
        upstream
    }
}

/// A higher one hides what a lower one says.
fn layer(place: &Place) -> u8 {
    match place {
        Place::Default => 0,
        Place::Line { .. } => 1,
        Place::Environment(_) => 2,
        Place::Flag(_) => 3,
    }
}

/// `TOKENCACHED_SERVER_LISTEN` and its like. An empty variable counts as not set: compose files write those.
fn environment_settings(
    environment: &dyn Environment,
    faults: &mut Vec<Fault>,
    warnings: &mut Vec<String>,
) -> Vec<(&'static str, Given)> {
    let mut given = Vec::new();
    for setting in SETTINGS {
        let name = setting.environment_name();
        let Some(value) = environment.get(&name).filter(|value| !value.is_empty()) else { continue };
        let place = Place::Environment(name);
        match value.into_string() {
            Ok(value) => given.push((setting.key, Given { value: Value::Text(value), place })),
            Err(_) => {
                let problem = Problem::new("the value is not valid UTF-8", "Set the variable to valid UTF-8.");
                faults.push(problem.at(&place));
            }
        }
    }
    let known: Vec<String> = SETTINGS.iter().map(|setting| setting.environment_name()).collect();
    let mut unknown: Vec<String> = environment.names();
    unknown.retain(|name| {
        let ours = ["SERVER_", "STATE_", "UPSTREAM_", "SIDE_", "LOG_"];
        let rest = name.strip_prefix("TOKENCACHED_").unwrap_or_default();
        ours.iter().any(|section| rest.starts_with(section)) && !known.contains(name) && !of_kubernetes(rest)
    });
    unknown.sort();
    // A warning, not a fault: whoever starts the process does not always own all of its environment.
    warnings.extend(unknown.into_iter().map(|name| match closest(&name, known.iter().map(String::as_str)) {
        Some(close) => format!("environment {name} is not known and ignored; did you mean {close}?"),
        None => format!("environment {name} is not known and ignored"),
    }));
    given
}

/// The variables that Kubernetes sets for a service called `tokencached-server`.
fn of_kubernetes(rest: &str) -> bool {
    rest.ends_with("_PORT") || rest.contains("_PORT_") || rest.contains("_SERVICE_")
}

fn default_state_path(environment: &dyn Environment, warnings: &mut Vec<String>) -> Option<PathBuf> {
    let folder = |name: &str| environment.get(name).map(PathBuf::from).filter(|folder| folder.is_absolute());
    // systemd separates several state directories by colons; the first is ours.
    let of_systemd = environment.get("STATE_DIRECTORY").and_then(|folders| {
        let first = folders.to_str()?.split(':').next()?.to_owned();
        Some(PathBuf::from(first)).filter(|folder| folder.is_absolute())
    });
    let folder = match of_systemd {
        Some(folder) => Some(folder),
        None if environment.is_root() => Some(PathBuf::from("/var/lib/tokencached")),
        None => folder("XDG_STATE_HOME")
            .or_else(|| folder("HOME").map(|home| home.join(".local/state")))
            .map(|folder| folder.join("tokencached")),
    };
    if folder.is_none() {
        warnings.push(
            "there is no folder for the state file, so tokens are fetched anew at each start (set state.path)".into(),
        );
    }
    folder.map(|folder| folder.join("state.json"))
}

fn absolute(path: &Path) -> PathBuf {
    std::path::absolute(path).unwrap_or_else(|_| path.to_owned())
}
