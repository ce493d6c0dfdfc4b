//! The settings of the HTTP API.

use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;

use crate::access::ApiKeys;
use crate::files::watch::{ContentDigest, digest_of};
use crate::files::{self, AUTH_FILE_BYTES_MAX};
use crate::invalid_value::{InvalidValue, quoted};
use crate::network::{Network, reachable_by_others};
use crate::tls::TlsOptions;

/// The port of the HTTP API unless an address says otherwise.
pub const HTTP_PORT: u16 = 2130;

/// Connections besides `max_connections`, for health and short calls while all others are being answered.
pub const RESERVED_CONNECTIONS: usize = 64;

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Options {
    /// Addresses to listen on; port 0 takes any free port.
    pub listen: Vec<SocketAddr>,
    /// Bearer keys and their rights; none: clients on this machine alone, and no tokens but with the custom header.
    pub keys_file: Option<PathBuf>,
    /// Names that clients may call this server by, besides `localhost` and the address they have reached.
    pub allowed_hosts: Vec<String>,
    /// Whose `X-Forwarded-For` and `X-Forwarded-Proto` are believed.
    pub trusted_proxies: Vec<Network>,
    pub tls: Option<TlsOptions>,
    pub max_connections: usize,
    /// The same from one address.
    pub max_connections_per_peer: usize,
    /// Requests a second that one address, or one key, may go on making.
    pub requests_per_s: u32,
    /// Which credentials have series of their own in `/metrics`.
    pub metrics_per_credential: MetricsPerCredential,
    /// Whether `/metrics` gives the metric names of before.
    pub old_metric_names: bool,
    /// The least `expires_in` of WeChat's own calls, seconds; none: by the call and the client, see [`crate::http_api`].
    pub wechat_expires_in_min_s: Option<u32>,
}

impl Default for Options {
    /// No address.
    fn default() -> Options {
        Options::at(Vec::new())
    }
}

impl Options {
    /// The defaults, listening on these addresses.
    pub fn at(listen: Vec<SocketAddr>) -> Options {
        Options {
            listen,
            keys_file: None,
            allowed_hosts: Vec::new(),
            trusted_proxies: Vec::new(),
            tls: None,
            max_connections: 256,
            max_connections_per_peer: 64,
            requests_per_s: 50,
            metrics_per_credential: MetricsPerCredential::Auto,
            old_metric_names: false,
            wechat_expires_in_min_s: None,
        }
    }

    /// Other machines need a key; the fault is about `listen`. Also a warning, if it is needed.
    pub fn judge_addresses(&self) -> Result<Option<String>, InvalidValue> {
        let open = reachable_by_others(&self.listen);
        if !open.is_empty() && self.keys_file.is_none() {
            let what = format!("{open} can be reached from other machines, and there are no keys");
            let remedy = "Write keys into a file and name it: keys_file = \"...\" in [http]; or listen on 127.0.0.1.";
            return Err(InvalidValue::new(what, remedy));
        }
        let in_plain_text = !open.is_empty() && self.tls.is_none() && self.trusted_proxies.is_empty();
        Ok(in_plain_text
            .then(|| format!("keys and tokens pass {open} in plain text; [http.tls] would hide them from the network")))
    }

    pub fn is_trusted(&self, proxy: IpAddr) -> bool {
        self.trusted_proxies.iter().any(|network| network.contains(proxy))
    }

    /// Reads the file of API keys, and gives its digest with them; `None` without a file. The error is a sentence that
    /// quotes nothing of the file.
    pub fn read_keys(&self) -> Result<Option<(ApiKeys, ContentDigest)>, String> {
        let Some(path) = &self.keys_file else { return Ok(None) };
        let fault = |what: &dyn fmt::Display| format!("the keys' file {}: {what}", path.display());
        let bytes = files::read(path, AUTH_FILE_BYTES_MAX).map_err(|error| fault(&error))?;
        let keys = ApiKeys::parse(&bytes).map_err(|error| fault(&error))?;
        Ok(Some((keys, digest_of(&[bytes]))))
    }
}

/// A name as browsers send it, without a port; case does not matter.
pub fn host_name(text: &str) -> Result<String, InvalidValue> {
    let fits = !text.is_empty()
        && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-._:[]".contains(&byte))
        && (!text.contains(':') || text.starts_with('['));
    let remedy = "Write the name alone, such as \"tokencached.internal\".";
    let wrong = || InvalidValue::new(format!("{} is not a host name", quoted(text)), remedy);
    if fits { Ok(text.to_ascii_lowercase()) } else { Err(wrong()) }
}

pub fn proxy_network(text: &str) -> Result<Network, InvalidValue> {
    let remedy = "Write an address like 10.0.0.5 or a network like 10.0.0.0/8.";
    text.parse().map_err(|()| InvalidValue::new(format!("{} is not a network", quoted(text)), remedy))
}

/// Which credentials have series of their own in `/metrics`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MetricsPerCredential {
    /// All, or with very many apps those in trouble.
    Auto,
    All,
    Troubled,
}

impl MetricsPerCredential {
    /// Each with its word in the configuration.
    pub const WORDS: &[(&str, MetricsPerCredential)] = &[
        ("auto", MetricsPerCredential::Auto),
        ("all", MetricsPerCredential::All),
        ("troubled", MetricsPerCredential::Troubled),
    ];
}
