//! The settings of the server that memcached's clients talk to: where it listens, who may connect, limits.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;

use crate::access::{CertificateMatcher, Rights, Users, UsersFault};
use crate::byte_size::size_text;
use crate::files::watch::FileContent;
use crate::files::{self, AUTH_FILE_BYTES_MAX};
use crate::invalid_value::InvalidValue;
use crate::network::reachable_by_others;
use crate::service::RefuseWith;
use crate::tls::{ClientCertificates, TlsOptions};

/// Default of [`Options::requests_per_turn`]. memcached's is 20, but it writes once per turn; a pipeline of common depth
/// should be one write.
pub const REQUESTS_PER_TURN_DEFAULT: usize = 256;

/// Settings of the memcached port.
#[derive(Clone, Debug)]
pub struct Options {
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
    /// Further addresses, each with rights, login and TLS of its own.
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
    /// Requests that are executed for a connection before others get a turn (`-R`).
    pub requests_per_turn: usize,
    /// Close a connection that has sent nothing for so long (`-o idle_timeout=`), seconds; 0: never.
    pub idle_timeout_s: u64,
    /// How long a get on a managed key waits for the very first fetch, and a delete for the verification, ms.
    pub first_get_wait_ms: u64,
    /// The answer to a refused write.
    pub refuse_with: RefuseWith,
    /// Which of memcached's protocols are allowed (`-B`; `-S` is the binary one alone).
    pub protocol: Protocol,
    /// The command `shutdown` ends the server (`-A`).
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

impl Default for Options {
    /// memcached's own defaults as far as there are any, and no address.
    fn default() -> Options {
        Options {
            listen: Vec::new(),
            unix_socket: None,
            unix_mode: 0o700,
            unix_group: None,
            rights: Rights::ALL,
            listeners: Vec::new(),
            memory_bytes: 64 << 20,
            item_size_max_bytes: 1 << 20,
            evict: true,
            max_connections: 1024,
            threads: std::thread::available_parallelism().map_or(4, |cores| cores.get().clamp(1, 1024)),
            backlog: 1024,
            requests_per_turn: REQUESTS_PER_TURN_DEFAULT,
            idle_timeout_s: 0,
            first_get_wait_ms: 700,
            refuse_with: RefuseWith::default(),
            protocol: Protocol::default(),
            shutdown_command: false,
            user: None,
            pid_file: None,
            daemonize: false,
            lock_memory: false,
        }
    }
}

/// Which of memcached's protocols are spoken.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum Protocol {
    /// Each client chooses by its first byte.
    #[default]
    Auto,
    Ascii,
    Binary,
}

impl Protocol {
    /// Each with its word in the configuration.
    pub const WORDS: &[(&str, Protocol)] =
        &[("auto", Protocol::Auto), ("ascii", Protocol::Ascii), ("binary", Protocol::Binary)];

    /// As the configuration spells it.
    pub fn word(self) -> &'static str {
        Self::WORDS.iter().find(|(_, of)| *of == self).map_or("auto", |(word, _)| word)
    }
}

/// Whether items may be that large: at most half of the memory.
pub fn judge_item_size(item: u64, memory: u64) -> Result<(), InvalidValue> {
    if item <= memory / 2 {
        return Ok(());
    }
    let what = format!("an item of {} is more than half of the memory, {}", size_text(item), size_text(memory));
    Err(InvalidValue::new(what, "Give more memory (-m, server.memory) or allow smaller items only."))
}

const HOW_TO_PROTECT: &str = "Let clients log in (auth_file = \"...\" in [server], -Y FILE), or ask for their certificates \
    (cert, key and client_ca under [server.tls]), or listen on 127.0.0.1 or on a Unix socket; or, if a firewall or a \
    private network keeps others out, set allow_unauthenticated = true in [server] \
    (TOKENCACHED_SERVER_ALLOW_UNAUTHENTICATED=true, --allow-unauthenticated).";

/// What keeps strangers from an address.
#[derive(Clone, Copy, Default)]
pub struct Protection {
    /// Clients log in.
    pub passwords: bool,
    pub tls: bool,
    /// Clients show certificates.
    pub certificates: bool,
    /// Nothing here does, and that is meant.
    pub allowed: bool,
}

impl Protection {
    /// Addresses that other machines can reach need something that keeps strangers out. Also a warning, if it is needed.
    pub fn judge(self, addresses: &[SocketAddr]) -> Result<Option<String>, InvalidValue> {
        let open = reachable_by_others(addresses);
        Ok(match self {
            _ if open.is_empty() => None,
            Protection { certificates: true, .. } | Protection { passwords: true, tls: true, .. } => None,
            Protection { passwords: true, .. } => Some(format!(
                "passwords and tokens pass {open} in plain text; [server.tls] (-Z) would hide them from the network"
            )),
            Protection { allowed: true, .. } => Some(format!(
                "allow_unauthenticated is in effect: whoever reaches {open} can read every token and every item"
            )),
            Protection { tls, .. } => {
                let alone = if tls { "; TLS alone hides what is said, but asks nobody who they are" } else { "" };
                let what = format!("{open} can be reached from other machines, and nothing keeps strangers out{alone}");
                return Err(InvalidValue::new(what, HOW_TO_PROTECT));
            }
        })
    }
}

/// The name of the entry for users without an entry of their own.
const ANYBODY: &str = "*";

/// What lets clients in.
#[derive(Clone, Debug, Default)]
pub struct Access {
    /// Users and passwords (`-Y`), a line `user:password` each.
    pub auth_file: Option<PathBuf>,
    /// What users may do, by name; `*` is whoever is not named. Empty: everything.
    pub users: BTreeMap<String, Rights>,
    /// TLS towards clients (`-Z`).
    pub tls: Option<TlsOptions>,
    /// What the bearers of certificates may do. Empty: everything.
    pub certificates: Vec<(CertificateMatcher, Rights)>,
}

/// An address to listen on, with its rights.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Listener {
    pub at: ListenAt,
    /// The most that clients may do there.
    pub rights: Rights,
    /// Clients must log in.
    pub auth: bool,
    pub tls: bool,
}

/// Where a listener is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ListenAt {
    Tcp(SocketAddr),
    Unix {
        path: PathBuf,
        /// Access mask.
        mode: u32,
        /// The group that the socket belongs to; none: the process's own.
        group: Option<String>,
    },
}

impl Access {
    /// Reads the file of users, with its text; `None` without one. The error is a sentence that quotes nothing of the
    /// file.
    pub fn read_users(&self) -> Result<Option<(Users, FileContent)>, String> {
        let Some(path) = &self.auth_file else { return Ok(None) };
        let fault = |what: &dyn std::fmt::Display| format!("the users' file {}: {what}", path.display());
        let text = files::read(path, AUTH_FILE_BYTES_MAX).map_err(|error| fault(&error))?;
        let users = self.users_of(&text).map_err(|error| fault(&error))?;
        Ok(Some((users, text)))
    }

    /// Reads the users out of the text of the file.
    pub fn users_of(&self, text: &[u8]) -> Result<Users, UsersFault> {
        Users::parse(text, |name| self.rights_of(name).map(Arc::new))
    }

    fn rights_of(&self, name: &[u8]) -> Option<Rights> {
        if self.users.is_empty() {
            return Some(Rights::ALL);
        }
        let own = std::str::from_utf8(name).ok().and_then(|name| self.users.get(name));
        own.or_else(|| self.users.get(ANYBODY)).cloned()
    }

    /// Whether a client needs a certificate to connect.
    pub fn requires_certificates(&self) -> bool {
        matches!(&self.tls, Some(TlsOptions { clients: ClientCertificates::Required(_), .. }))
    }
}
