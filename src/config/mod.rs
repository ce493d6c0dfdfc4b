//! The configuration: file, environment and flags in, one typed [`Config`] out.
//!
//! Every fault is listed at once, with its place and a way out. Never reads the clock, never opens a socket
//! (a host name to listen on is looked up). A secret enters [`Secret`] and nothing else; no fault quotes one.

use std::fmt;
use std::net::SocketAddr;
use std::path::PathBuf;

use crate::access::Rights;
use crate::credential::encoding::View;
use crate::platform::{Kind, Platform, component, mp};
use crate::secret::Secret;

mod access;
mod adopt;
mod aliases;
mod app_name;
mod apps;
mod authorizers;
mod credentials;
mod effective;
mod encodings;
mod environment;
mod fault;
mod file;
mod flags;
mod key_words;
mod listen;
mod listeners;
mod load;
mod mistakes;
mod nodes;
mod presets;
mod redis_server;
mod secret_source;
mod settings;
mod side;
mod sink_command;
mod sink_file;
mod sink_sql;
mod sinks;
mod sql_presets;
mod sql_statement;
mod surroundings;
mod template;
pub mod trusted_file;
mod trusted_hosts;
mod upstream;
mod value;
mod words;

pub use access::{AUTH_FILE_BYTES_MAX, Access, ClientCertificates, ListenAt, Listener, Tls, TlsVersion};
pub use aliases::{Alias, AliasOf};
pub use apps::Origin;
pub use credentials::remedy_for_tls;
pub use encodings::ClientLibrary;
pub use environment::{Environment, ProcessEnvironment};
pub use fault::{Fault, Faults, Place};
pub use flags::Flags;
pub use load::{Loaded, load};
pub use nodes::{Nodes, RedisState, UpstreamNodes};
pub use redis_server::{RedisAt, RedisServer, TlsFiles};
pub use secret_source::{InBoth, SecretFault, SecretFile};
pub use settings::{APP_KEYS, AUTHORIZER_KEYS, LISTENER_KEYS, NAMED_KEYS, SETTINGS, Setting};
pub use side::{MetricsPerCredential, Network, RESERVED_CONNECTIONS, SIDE_PORT, Side};
pub use sink_command::SinkCommand;
pub use sink_file::SinkFile;
pub use sink_sql::{SqlAt, SqlPlan, SqlServer, SqlSink, SqlTls};
pub use sinks::{SINK_KEYS, Sink, SinkContent, SinkEntry, SinkTo, Ttl};
pub use sql_statement::{SqlDialect, SqlParameter, SqlStatement};
pub use template::{Escape, Piece, Template, TimeShown};
pub use trusted_hosts::TrustedHost;

/// Default of [`Server::requests_per_turn`]. memcached's is 20, but it writes once per turn; a pipeline of common depth
/// should be one write.
pub const REQUESTS_PER_TURN_DEFAULT: usize = 256;

/// The whole, checked configuration.
#[derive(Clone, Debug)]
pub struct Config {
    pub server: Server,
    /// What lets clients in.
    pub access: Access,
    /// The state file; `None` keeps tokens in memory only.
    pub state_path: Option<PathBuf>,
    /// What other nodes it has, and how they are reached; none: it is alone.
    pub nodes: Option<Nodes>,
    pub upstream: Upstream,
    pub apps: Vec<App>,
    /// The HTTP port for people, monitoring and other code; none: off.
    pub side: Option<Side>,
    /// Where what is kept current is written as well.
    pub sinks: Vec<Sink>,
    pub log: Log,
}

/// The memcached side.
#[derive(Clone, Debug)]
pub struct Server {
    /// TCP addresses to listen on; port 0 takes any free port.
    pub listen: Vec<SocketAddr>,
    /// A Unix socket to listen on (`-s`), in place of TCP as with memcached.
    pub unix_socket: Option<PathBuf>,
    /// Access mask of the Unix socket (`-a`), octal 0700 by default.
    pub unix_mode: u32,
    /// The group of the Unix socket; none: the process's own.
    pub unix_group: Option<String>,
    /// The most that clients may do on `listen` and `unix_socket`.
    pub rights: Rights,
    /// Further addresses, each with terms of its own.
    pub listeners: Vec<Listener>,
    /// Budget for ordinary items (`-m`), bytes.
    pub memory_bytes: u64,
    /// Largest item (`-I`), bytes, key and header included as memcached counts.
    pub item_size_max_bytes: usize,
    /// Evict when full; `-M` turns it off and stores fail instead.
    pub evict: bool,
    /// Connections at once (`-c`).
    pub max_connections: usize,
    /// Worker threads (`-t`).
    pub threads: usize,
    /// Listen backlog (`-b`).
    pub backlog: u32,
    /// Requests a connection may have executed before its neighbours get a turn (`-R`).
    pub requests_per_turn: usize,
    /// Close a connection that says nothing for so long (`-o idle_timeout=`), seconds; 0 never.
    pub idle_timeout_s: u64,
    /// How long a get on a managed key waits for the very first fetch, and a delete for its check, ms.
    pub first_get_wait_ms: u64,
    /// What a refused write is answered with.
    pub refuse_with: RefuseWith,
    /// Which of memcached's protocols are spoken (`-B`; `-S` is the binary one alone).
    pub protocol: Protocol,
    /// `shutdown` is obeyed (`-A`).
    pub shutdown_command: bool,
    /// Switch to this user after binding (`-u`).
    pub user: Option<String>,
    /// Write the process id there (`-P`).
    pub pid_file: Option<PathBuf>,
    /// Go to the background (`-d`).
    pub daemonize: bool,
    /// Try to keep all memory resident (`-k`).
    pub lock_memory: bool,
}

impl Config {
    /// Every address, with what holds there. `auth_file` and TLS are for `listen` too, and users for the Unix socket.
    pub fn listeners(&self) -> Vec<Listener> {
        let server = &self.server;
        let listener =
            |at, tls| Listener { at, rights: server.rights.clone(), auth: self.access.auth_file.is_some(), tls };
        let mut all: Vec<Listener> =
            server.listen.iter().map(|at| listener(ListenAt::Tcp(*at), self.access.tls.is_some())).collect();
        if let Some(path) = &server.unix_socket {
            let (path, mode, group) = (path.clone(), server.unix_mode, server.unix_group.clone());
            all.push(listener(ListenAt::Unix { path, mode, group }, false));
        }
        all.extend(server.listeners.iter().cloned());
        all
    }
}

/// Which of memcached's protocols are spoken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Protocol {
    /// Each client chooses by its first byte.
    Auto,
    Ascii,
    Binary,
}

impl Protocol {
    /// The word of a configuration for it.
    pub fn word(self) -> &'static str {
        match self {
            Protocol::Auto => "auto",
            Protocol::Ascii => "ascii",
            Protocol::Binary => "binary",
        }
    }
}

/// What a client's write to a managed key is answered with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RefuseWith {
    /// `NOT_STORED` (`EXISTS` to a cas): silent in PHP, the connection stays.
    NotStored,
    /// `CLIENT_ERROR managed key`: PHP raises a notice.
    ClientError,
}

/// How WeChat's API is reached.
#[derive(Clone)]
pub struct Upstream {
    /// `https://api.weixin.qq.com` unless configured.
    pub base_url: String,
    /// Called in place of `base_url`, in order of preference; none: `base_url` alone.
    pub hosts: Vec<String>,
    /// Extra root certificates (PEM), for a TLS-inspecting proxy of one's own.
    pub ca_file: Option<PathBuf>,
    /// Connect deadline, milliseconds.
    pub connect_timeout_ms: u64,
    /// Deadline of a whole call, milliseconds.
    pub total_timeout_ms: u64,
    /// Calls under way at once, over all apps.
    pub concurrency: usize,
    /// An HTTP proxy, if one is configured; the environment's proxies are not used unasked.
    pub proxy: Option<String>,
}

impl Upstream {
    /// One host, and the defaults for the rest.
    pub fn at(base_url: String) -> Upstream {
        Upstream {
            base_url,
            hosts: Vec::new(),
            ca_file: None,
            connect_timeout_ms: 3_000,
            total_timeout_ms: 8_000,
            concurrency: 16,
            proxy: None,
        }
    }
}

impl fmt::Debug for Upstream {
    /// A proxy's address may hold a password.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Upstream")
            .field("base_url", &self.base_url)
            .field("hosts", &self.hosts)
            .field("ca_file", &self.ca_file)
            .field("connect_timeout_ms", &self.connect_timeout_ms)
            .field("total_timeout_ms", &self.total_timeout_ms)
            .field("concurrency", &self.concurrency)
            .field("proxy", &self.proxy.as_deref().map(upstream::proxy_shown))
            .finish()
    }
}

/// One app of WeChat or of a neighbour platform.
#[derive(Clone, Debug)]
pub struct App {
    pub appid: String,
    /// What people call it.
    pub name: Option<String>,
    pub platform: &'static Platform,
    /// How its access token is got.
    pub token: &'static Kind,
    /// What else is kept current, with the access token.
    pub tickets: Vec<&'static Kind>,
    /// Which of a corporation's apps this is (WeCom's agent id).
    pub agent: Option<String>,
    pub secret: SecretSource,
    /// Overrides [`Upstream::base_url`] for this app.
    pub base_url: Option<String>,
    /// Other keys for what is kept of this app.
    pub aliases: Vec<Alias>,
    /// Overrides the published quota of calls a day for the access token.
    pub daily_quota: Option<u64>,
    /// The same for each of the tickets.
    pub daily_ticket_quota: Option<u64>,
    /// Asked for the rest of a day whose quota is used up.
    pub stand_in: Option<&'static Kind>,
    /// How often the access token is tried on a cheap read, doubted or not; 0 for only when doubted. `None`: every five
    /// minutes as long as there are few apps.
    pub probe_every_ms: Option<u64>,
    /// Where the site keeps a token that it has fetched itself: served to its end, before this server fetches one.
    pub adopt: Option<Adopt>,
    /// Overrides how often a day the platform may be told to replace a live token.
    pub forced_per_day: Option<u64>,
    /// Of a component: where the receiver of WeChat's pushes writes the verify ticket.
    pub verify_ticket_file: Option<PathBuf>,
    /// Of an authorizer: its component's appid. `secret` is its refresh token then, as configured.
    pub component: Option<String>,
}

/// The names of all presets: of keys, of tables of a database, of files.
pub fn preset_names() -> impl Iterator<Item = &'static str> {
    let keys = presets::PRESETS.iter().map(|preset| preset.name);
    let tables = sql_presets::SQL_PRESETS.iter().map(|preset| preset.name);
    keys.chain(tables).chain(sink_file::preset_names())
}

/// Where a site keeps the token that it has fetched itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Adopt {
    /// In what the app's sink writes.
    Sink,
    /// Under a key of the memcached that it uses until now. An address that begins with `/` is a Unix socket.
    Memcached {
        address: String,
        key: String,
    },
    File(PathBuf),
}

impl App {
    /// An app of WeChat's own platform with nothing but its access token, got in this way.
    pub fn mp(appid: &str, secret: SecretSource, token: &'static Kind) -> App {
        App {
            appid: appid.to_owned(),
            name: None,
            platform: &mp::PLATFORM,
            token,
            tickets: Vec::new(),
            agent: None,
            secret,
            base_url: None,
            aliases: Vec::new(),
            daily_quota: None,
            daily_ticket_quota: None,
            stand_in: None,
            probe_every_ms: None,
            adopt: None,
            forced_per_day: None,
            verify_ticket_file: None,
            component: None,
        }
    }

    /// Names the app in keys, logs and the state: the appid, and `:<agent>` if it has one.
    pub fn id(&self) -> String {
        match &self.agent {
            Some(agent) => format!("{}:{agent}", self.appid),
            None => self.appid.clone(),
        }
    }

    /// For people: the id, and the name behind it if there is one.
    pub fn shown(&self) -> String {
        match &self.name {
            Some(name) => format!("{} ({name})", self.id()),
            None => self.id(),
        }
    }

    /// Where its API is: its own setting, else the one for all, else its platform's.
    pub fn base_url<'a>(&'a self, upstream: &'a Upstream) -> &'a str {
        match &self.base_url {
            Some(base_url) => base_url,
            None if upstream.base_url == mp::PLATFORM.base_url => self.platform.base_url,
            None => &upstream.base_url,
        }
    }

    /// Everything that is kept of it: its access token, then its tickets.
    pub fn kinds(&self) -> impl Iterator<Item = &'static Kind> {
        std::iter::once(self.token).chain(self.tickets.iter().copied())
    }

    /// The key that exists without configuration: `access_token:<id>`, `jsapi_ticket:<id>` and so on.
    pub fn built_in_name(&self, kind: &Kind) -> String {
        format!("{}:{}", kind.key, self.id())
    }

    /// The same, and `authorizer_access_token:<id>` for an authorizer's.
    pub fn built_in_names(&self, kind: &Kind) -> Vec<String> {
        let mut names = vec![self.built_in_name(kind)];
        if kind == &component::AUTHORIZER {
            names.push(format!("{}:{}", component::AUTHORIZER_KEY, self.id()));
        }
        names
    }

    /// Every key of this app's access token or by configuration: `access_token:<id>`, then the aliases. One may hold the
    /// secret.
    pub fn names(&self) -> Vec<String> {
        let mut names = self.built_in_names(self.token);
        for alias in &self.aliases {
            if !names.contains(&alias.name) {
                names.push(alias.name.clone());
            }
        }
        names
    }
}

/// Where a secret comes from. A file is followed, so it can be replaced; the others are fixed for the life of the process.
#[derive(Clone, Debug)]
pub enum SecretSource {
    /// There is none here: what is kept of the app is followed from other nodes and never fetched.
    Absent,
    File(SecretFile),
    Environment(Secret),
    /// Written in the configuration.
    Fixed(Secret),
}

/// How to log.
#[derive(Clone, Debug)]
pub struct Log {
    /// 0 warnings and what an operator must know, 1 (`-v`), 2 (`-vv`), 3.
    pub verbosity: u8,
    /// JSON lines in place of text.
    pub json: bool,
}
