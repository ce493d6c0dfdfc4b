//! The settings of a connection to a Redis.
//!
//! A password never leaves its [`SecretSource`].

use std::fmt;
use std::net::IpAddr;
use std::path::PathBuf;
use std::time::Duration;

use crate::invalid_value::{InvalidValue, quoted};
use crate::network::{Network, authority};
use crate::secret_source::SecretSource;

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum RedisAt {
    Tcp {
        host: String,
        port: u16,
    },
    Unix(PathBuf),
    /// Wherever these sentinels say that the master of that name is.
    Sentinel {
        sentinels: Vec<(String, u16)>,
        master: String,
    },
}

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TlsFiles {
    /// The authority to trust (PEM); none: the public authorities.
    pub ca_file: Option<PathBuf>,
    /// Our own certificate and its key (PEM), if the server asks for one.
    pub identity: Option<(PathBuf, PathBuf)>,
}

#[derive(Clone, Debug)]
pub struct RedisOptions {
    pub at: RedisAt,
    /// With TLS, to the sentinels too.
    pub tls: Option<TlsFiles>,
    pub db: u32,
    pub user: Option<String>,
    /// Read again at each connection.
    pub password: Option<SecretSource>,
    /// The hosts that may get the password if a sentinel or a cluster names them; empty: those that are near.
    pub trusted_hosts: Vec<TrustedHost>,
    /// Longest wait for a connection and for each answer, ms.
    pub timeout_ms: u64,
}

impl RedisOptions {
    /// The Redis there, and the defaults for the rest.
    pub fn at(at: RedisAt) -> RedisOptions {
        RedisOptions { at, tls: None, db: 0, user: None, password: None, trusted_hosts: Vec::new(), timeout_ms: 2_000 }
    }

    /// Longest wait for a connection and for each answer.
    pub fn timeout(&self) -> Duration {
        Duration::from_millis(self.timeout_ms)
    }

    /// The URL as in the file, without the database.
    pub fn url(&self) -> String {
        let scheme = if self.tls.is_some() { "rediss" } else { "redis" };
        match &self.at {
            RedisAt::Tcp { host, port } => format!("{scheme}://{}", authority(host, *port)),
            RedisAt::Unix(path) => format!("unix:{}", path.display()),
            RedisAt::Sentinel { sentinels, master } => {
                let sentinels: Vec<String> = sentinels.iter().map(|(host, port)| authority(host, *port)).collect();
                format!("{scheme}+sentinel://{}/{master}", sentinels.join(","))
            }
        }
    }
}

impl fmt::Display for RedisOptions {
    /// The address, without user and password.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let between = if matches!(self.at, RedisAt::Unix(_)) { " db " } else { "/" };
        write!(f, "{}{between}{}", self.url(), self.db)
    }
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum TrustedHost {
    Network(Network),
    Name(String),
    /// Every name with this ending, which begins with a dot.
    Domain(String),
}

impl TrustedHost {
    pub const REMEDY: &str = "Write a list such as [\"10.0.0.0/24\", \"redis-2.example.com\", \"*.db.example.com\"].";

    /// `10.0.0.1`, `10.0.0.0/24`, `redis.example.com`, `*.example.com`.
    pub fn parse(given: &str) -> Result<TrustedHost, InvalidValue> {
        let host = given.trim().to_ascii_lowercase();
        if let Ok(network) = host.parse() {
            return Ok(TrustedHost::Network(network));
        }
        let labels = host.strip_prefix("*.").unwrap_or(&host);
        let plain = |label: &str| {
            !label.is_empty() && label.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_".contains(&byte))
        };
        if !labels.split('.').all(plain) {
            let what = format!("{} is no address, network or host", quoted(given));
            return Err(InvalidValue::new(what, TrustedHost::REMEDY));
        }
        Ok(match host.strip_prefix('*') {
            Some(domain) => TrustedHost::Domain(domain.to_owned()),
            None => TrustedHost::Name(host),
        })
    }

    /// Whether the entry covers that host, which is in lower case.
    pub fn covers(&self, host: &str) -> bool {
        match self {
            TrustedHost::Network(network) => host.parse::<IpAddr>().is_ok_and(|address| network.contains(address)),
            TrustedHost::Name(name) => name == host,
            TrustedHost::Domain(domain) => host.len() > domain.len() && host.ends_with(domain.as_str()),
        }
    }

    /// The entry as in the file.
    pub fn text(&self) -> String {
        match self {
            TrustedHost::Network(network) => network.to_string(),
            TrustedHost::Name(name) => name.clone(),
            TrustedHost::Domain(domain) => format!("*{domain}"),
        }
    }
}
