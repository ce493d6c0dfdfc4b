//! The cluster's settings: which store the nodes share, or which leader is followed.

use std::path::PathBuf;

use url::Url;

use crate::invalid_value::{InvalidValue, Judgement, quoted};
use crate::network::{is_this_machine, without_brackets};
use crate::redis_client::options::RedisOptions;
use crate::secret_source::SecretSource;

#[derive(Clone, Debug)]
pub enum Options {
    /// The nodes share a Redis.
    Redis(Box<StoreOptions>),
    /// This node follows a leader through its HTTP API and calls no platform.
    Leader(LeaderOptions),
}

impl Options {
    /// What values are sealed with, among [`Options::secrets`].
    pub const SEALING: &str = "the secret";

    /// Its secrets, each with its name.
    pub fn secrets(&self) -> Vec<(&'static str, &SecretSource)> {
        match self {
            Options::Redis(store) => {
                let password = store.server.password.iter().map(|password| ("the password", password));
                std::iter::once((Options::SEALING, &store.sealing)).chain(password).collect()
            }
            Options::Leader(leader) => leader.key.iter().map(|key| ("the leader_key", key)).collect(),
        }
    }
}

#[derive(Clone, Debug)]
pub struct StoreOptions {
    pub server: RedisOptions,
    /// The secret that the keys of seals are derived from. The same on all nodes.
    pub sealing: SecretSource,
    /// Begins every key.
    pub prefix: String,
    /// How often to look for changes whose message was lost, ms.
    pub poll_every_ms: u64,
    /// Names this node for people.
    pub node: String,
}

#[derive(Clone, Debug)]
pub struct LeaderOptions {
    /// Without a slash at the end, the preferred one first.
    pub urls: Vec<String>,
    /// A key for their HTTP API; none is needed on the same machine if they have no keys.
    pub key: Option<SecretSource>,
    /// Whom to trust (PEM); none: the public authorities.
    pub ca_file: Option<PathBuf>,
    /// Longest wait for a connection and for an answer that need not be waited for, ms.
    pub timeout_ms: u64,
    /// How long a leader may hold a question back, ms.
    pub poll_every_ms: u64,
    /// Names this node for people.
    pub node: String,
}

// Defaults.
pub const PREFIX: &str = "tokencached";
pub const POLL_EVERY_MS: u64 = 2_000;
pub const TIMEOUT_MS: u64 = 1_000;
/// The name of a node on a machine without a name.
pub const NODE: &str = "node";

const PREFIX_BYTES_MAX: usize = 64;
const NODE_BYTES_MAX: usize = 64;
/// Fewer could be guessed by whoever reads what is sealed.
const SEALING_CHARS_MIN: usize = 16;

impl StoreOptions {
    /// This Redis, and the defaults for the rest.
    pub fn new(server: RedisOptions, sealing: SecretSource) -> StoreOptions {
        StoreOptions { server, sealing, prefix: PREFIX.to_owned(), poll_every_ms: POLL_EVERY_MS, node: NODE.to_owned() }
    }

    /// The hash tag of all keys: a Redis cluster keeps them on one node.
    pub fn key(&self) -> String {
        format!("{{{}}}", self.prefix)
    }

    /// How to come by a secret to seal with.
    pub const SEALING_REMEDY: &str = "Make one with head -c 32 /dev/urandom | base64 > /etc/tokencached/state.secret, name it \
                                      in secret_file, and copy it to all nodes.";

    /// Whether a secret is long enough to seal with.
    pub fn judge_sealing(secret: &str) -> Result<(), InvalidValue> {
        if secret.chars().count() < SEALING_CHARS_MIN {
            let what = format!("it has fewer than {SEALING_CHARS_MIN} characters");
            return Err(InvalidValue::new(what, StoreOptions::SEALING_REMEDY));
        }
        Ok(())
    }

    /// Whether a text may begin keys in a cluster: braces would move the hash tag.
    pub fn judge_prefix(prefix: &str) -> Result<(), InvalidValue> {
        let bad = |c: char| c.is_whitespace() || c.is_control() || matches!(c, '{' | '}');
        if prefix.len() > PREFIX_BYTES_MAX || prefix.contains(bad) {
            let what = format!("{} has braces, blanks or control characters, or more than 64 bytes", quoted(prefix));
            return Err(InvalidValue::new(what, "Write a word such as \"tokencached\"."));
        }
        Ok(())
    }
}

/// Whether the keys that are given belong to one way to be part of a cluster.
pub fn judge_keys(given: &[&'static str]) -> Judgement {
    let mut judgement = Judgement::default();
    let of_leader = |key: &str| key.starts_with("leader_");
    let of_store = |key: &str| !["path", "timeout_ms", "poll_every_ms", "node"].contains(&key) && !of_leader(key);
    for key in given {
        let (is_wrong, what, remedy) = match (given.contains(&"url"), given.contains(&"leader_urls")) {
            (true, true) => (
                *key == "leader_urls",
                "it stands beside url: a node shares a Redis or follows another node, not both",
                "Keep one of the two.",
            ),
            (true, false) => (of_leader(key), "it belongs to leader_urls, which is not given", "Remove it."),
            (false, true) => (of_store(key), "it belongs to url, which is not given", "Remove it."),
            (false, false) => (
                *key != "path",
                "there is neither url nor leader_urls in [state]",
                "Add url = \"redis://...\" or leader_urls = \"http://...\", or remove the key.",
            ),
        };
        judgement.fault_if(is_wrong, key, what, remedy);
    }
    judgement
}

fn fits_in_a_name(c: char) -> bool {
    c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-')
}

pub fn judge_node(node: &str) -> Result<(), InvalidValue> {
    if node.len() > NODE_BYTES_MAX || !node.chars().all(fits_in_a_name) {
        let what = format!("{} is no name for a node", quoted(node));
        return Err(InvalidValue::new(what, "Write at most 64 of A to Z, a to z, 0 to 9, \".\", \"_\" and \"-\"."));
    }
    Ok(())
}

/// A machine's own name, as far as it is one for a node.
pub fn node_of_host(host: &str) -> String {
    let name: String = host.chars().filter(|c| fits_in_a_name(*c)).take(NODE_BYTES_MAX).collect();
    if name.is_empty() { NODE.to_owned() } else { name }
}

impl LeaderOptions {
    /// These leaders, and the defaults for the rest.
    pub fn at(urls: Vec<String>) -> LeaderOptions {
        let (timeout_ms, poll_every_ms, node) = (TIMEOUT_MS, POLL_EVERY_MS, NODE.to_owned());
        LeaderOptions { urls, key: None, ca_file: None, timeout_ms, poll_every_ms, node }
    }

    pub const REMEDY: &str = "Write leader_urls = \"http://other-node:2130\", or a list of such addresses.";

    /// The address of an HTTP API, without a slash at the end.
    pub fn parse_url(given: &str) -> Result<String, InvalidValue> {
        let wrong = |what: String| InvalidValue::new(what, LeaderOptions::REMEDY);
        let url = Url::parse(given).map_err(|error| wrong(format!("this is not a URL: {error}")))?;
        if !url.username().is_empty() || url.password().is_some() || url.query().is_some() || url.fragment().is_some() {
            return Err(wrong("the URL has a user, a query or a fragment".to_owned()));
        }
        if !matches!(url.scheme(), "http" | "https") {
            return Err(wrong("the URL is neither https nor http".to_owned()));
        }
        Ok(url.as_str().trim_end_matches('/').to_owned())
    }

    pub fn judge(urls: &[String], has_key: bool, has_ca_file: bool) -> Judgement {
        let mut judgement = Judgement::default();
        let mut far = urls.iter().filter_map(|url| far_host(url));
        if let Some((host, _)) = far.clone().next() {
            let what = format!("the HTTP API of {host} gives no token to another machine without a key");
            let remedy = "Add leader_key_file = \"/path\" with a key of that node's keys_file that may read its apps.";
            judgement.fault_if(!has_key, "leader_urls", what, remedy);
        }
        if let Some((host, _)) = far.find(|(_, tls)| !tls) {
            let way = format!("tokens and the key pass the network in the clear on their way to {host}");
            judgement.warn("leader_urls", format!("{way}; https:// hides them"));
        }
        let is_plain = has_ca_file && urls.iter().all(|url| url.starts_with("http:"));
        let remedy = "Write leader_urls = \"https://...\".";
        judgement.fault_if(is_plain, "leader_ca_file", "no address of leader_urls speaks TLS", remedy);
        judgement
    }
}

/// The host of an address on another machine, and whether it speaks TLS.
fn far_host(url: &str) -> Option<(String, bool)> {
    let url = Url::parse(url).ok()?;
    let host = without_brackets(url.host_str()?).to_owned();
    (!is_this_machine(&host)).then(|| (host, url.scheme() == "https"))
}
