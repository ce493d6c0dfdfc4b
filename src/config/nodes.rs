//! The rest of `[state]`: what several nodes have in common, a Redis or one of them that the others follow by HTTP.
//!
//! Neither the secret that values are sealed with nor an API key leaves its [`SecretSource`].

use std::path::{Path, PathBuf};

use url::Url;

use super::apps::Reader;
use super::authorizers::Wanted;
use super::environment::Environment;
use super::fault::{Place, Problem};
use super::file::{Document, RawTable};
use super::redis_server::is_this_machine;
use super::value::{Given, Reading, Value, integer, kind, quoted, text};
use super::{Nodes, SecretOrigin, SecretSource, upstream};
use crate::cluster::{LeaderOptions, StoreOptions};

const TIMEOUT_MS: u64 = 1_000;
const POLL_EVERY_MS: u64 = 2_000;
const PREFIX: &str = "tokencached";
const PREFIX_BYTES_MAX: usize = 64;
const NODE_BYTES_MAX: usize = 64;
/// Fewer could be guessed by whoever reads what is sealed.
const SEALING_CHARS_MIN: usize = 16;

const SEALING: Wanted = Wanted {
    key: "secret",
    keys: ["secret", "secret_file", "secret_env", "secret_credential"],
    noun: "secret",
    one: "[state]",
    the: "[state]",
    whose: "the secret that values are sealed with, the same on all nodes",
    of_app: false,
};

const UPSTREAM_KEY: Wanted = Wanted {
    key: "upstream_key",
    keys: ["upstream_key", "upstream_key_file", "upstream_key_env", "upstream_key_credential"],
    noun: "API key",
    one: "[state]",
    the: "[state]",
    whose: "a key of the other node's side port",
    of_app: false,
};

/// The keys that are several ways to say one thing: the highest layer that has any of them counts.
pub(super) const FAMILIES: &[&[&str]] = &[
    &["password", "password_file", "password_env", "password_credential"],
    &["key_file", "key_credential"],
    &SEALING.keys,
    &UPSTREAM_KEY.keys,
];

/// With whom an app may be kept current.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Company {
    /// This node alone: every app needs its secret.
    Alone,
    /// An app without a secret is left to those nodes that have it.
    Redis,
    /// No app may have one.
    Upstream,
}

/// What the layers say in a section.
pub(super) struct Section {
    /// Each key as the highest layer has it.
    pub raw: RawTable,
    /// What lower layers have said of the same keys; judged, and otherwise without effect.
    pub hidden: RawTable,
}

impl Section {
    pub fn company(&self) -> Company {
        match &self.raw.fields {
            fields if fields.contains_key("upstream") => Company::Upstream,
            fields if fields.contains_key("url") => Company::Redis,
            _ => Company::Alone,
        }
    }
}

/// The keys of `[state]` that need nothing but themselves to be judged.
struct Fields {
    redis: super::redis_server::Fields,
    prefix: Option<String>,
    poll_every_ms: Option<u64>,
    node: Option<String>,
    upstream: Option<Vec<String>>,
    upstream_ca_file: Option<PathBuf>,
    timeout_ms: Option<u64>,
}

impl Reader<'_> {
    /// What several nodes have in common, if there are several.
    pub(super) fn nodes(&mut self, section: Section, document: &Document) -> Option<Nodes> {
        let Section { mut raw, hidden } = section;
        let _ = self.node_fields(&hidden, &document.folder);
        let fields = self.node_fields(&raw, &document.folder);
        match (raw.fields.get("url"), raw.fields.get("upstream")) {
            (Some(_), Some(given)) => {
                let what = "it stands beside url: a node shares a Redis or follows another node, not both";
                self.fault("upstream", Problem::new(what, "Keep one of the two."), &given.place);
                None
            }
            (Some(_), None) => self.redis_state(raw, document, fields).map(|state| Nodes::Redis(Box::new(state))),
            (None, Some(_)) => self.upstream_nodes(raw, document, fields).map(Nodes::Leader),
            (None, None) => {
                let remedy = "Add url = \"redis://...\" or upstream = \"http://...\", or remove the key.";
                for (key, given) in std::mem::take(&mut raw.fields) {
                    let problem = Problem::new("there is neither url nor upstream in [state]", remedy);
                    self.fault(key, problem, &given.place);
                }
                None
            }
        }
    }

    fn node_fields(&mut self, raw: &RawTable, base: &Path) -> Fields {
        Fields {
            redis: self.redis_fields(raw, base),
            prefix: self.field(raw, "prefix", prefix),
            poll_every_ms: self.field(raw, "poll_every_ms", |value| integer(value, 100..=60_000)),
            node: self.field(raw, "node", node),
            upstream: self.field(raw, "upstream", addresses),
            upstream_ca_file: self.field(raw, "upstream_ca_file", |value| upstream::ca_file(value, base)),
            // Judged with the Redis' keys already.
            timeout_ms: raw.fields.get("timeout_ms").and_then(|given| integer(&given.value, 100..=60_000).ok()),
        }
    }

    fn redis_state(&mut self, mut raw: RawTable, document: &Document, fields: Fields) -> Option<StoreOptions> {
        self.strangers(&raw, "upstream", |key| key.starts_with("upstream"));
        if !cfg!(feature = "redis") {
            let place = &raw.fields.get("url")?.place;
            let remedy = "Use a build with the feature \"redis\", or remove the key.";
            self.fault("url", Problem::new("this build cannot share its state through a Redis", remedy), place);
            return None;
        }
        let sealing = self.sealing(&mut raw, document);
        let server = self.redis_server(&mut raw, document, fields.redis, TIMEOUT_MS);
        let (sealing, sealing_origin) = sealing?;
        Some(StoreOptions {
            server: server?,
            sealing,
            sealing_origin,
            prefix: fields.prefix.unwrap_or_else(|| PREFIX.to_owned()),
            poll_every_ms: fields.poll_every_ms.unwrap_or(POLL_EVERY_MS),
            node: fields.node.unwrap_or_else(|| host_name(self.environment)),
        })
    }

    /// What values are sealed with. It has to be there and must not be short.
    fn sealing(&mut self, raw: &mut RawTable, document: &Document) -> Option<(SecretSource, SecretOrigin)> {
        let remedy = "Make one with head -c 32 /dev/urandom | base64 > /etc/tokencached/state.secret, name it in \
                      secret_file, and copy it to all nodes.";
        let Some((key, place)) = SEALING.keys.iter().find_map(|key| Some((*key, raw.fields.get(key)?.place.clone())))
        else {
            let place = raw.fields.get("url").map_or(&raw.place, |given| &given.place);
            self.faults.push(Problem::new("[state] has a url and no secret to seal values with", remedy).at(place));
            return None;
        };
        let (source, origin) = self.secret(raw, document, None, &SEALING)?;
        // Unreadable was a fault already.
        let chars = source.read().ok()?.expose().chars().count();
        if chars < SEALING_CHARS_MIN {
            let what = format!("it has fewer than {SEALING_CHARS_MIN} characters");
            self.fault(key, Problem::new(what, remedy), &place);
            return None;
        }
        Some((source, origin))
    }

    fn upstream_nodes(&mut self, mut raw: RawTable, document: &Document, fields: Fields) -> Option<LeaderOptions> {
        let common = ["timeout_ms", "poll_every_ms", "node"];
        self.strangers(&raw, "url", |key| !common.contains(&key) && !key.starts_with("upstream"));
        let place = raw.fields.get("upstream")?.place.clone();
        let has_key = UPSTREAM_KEY.keys.iter().any(|key| raw.fields.contains_key(key));
        let key = if has_key { self.secret(&mut raw, document, None, &UPSTREAM_KEY) } else { None };
        let urls = fields.upstream?;
        let far = urls.iter().filter_map(|url| far_host(url)).next();
        if let (Some((host, _)), false) = (&far, has_key) {
            let what = format!("the side port of {host} gives no token to another machine without a key");
            let remedy =
                "Add upstream_key_file = \"/path\" with a key of that node's keys_file that may read its apps.";
            self.fault("upstream", Problem::new(what, remedy), &place);
        }
        let clear = urls.iter().filter_map(|url| far_host(url)).find(|(_, tls)| !tls);
        self.warnings.extend(clear.map(|(host, _)| {
            format!(
                "{place}: tokens and the key pass the network in the clear on their way to {host}; https:// hides them"
            )
        }));
        if let (Some(given), true) =
            (raw.fields.get("upstream_ca_file"), urls.iter().all(|url| url.starts_with("http:")))
        {
            let problem = Problem::new("no address of upstream speaks TLS", "Write upstream = \"https://...\".");
            self.fault("upstream_ca_file", problem, &given.place);
        }
        let (key, key_origin) = key.unzip();
        Some(LeaderOptions {
            urls,
            key,
            key_origin,
            ca_file: fields.upstream_ca_file,
            timeout_ms: fields.timeout_ms.unwrap_or(TIMEOUT_MS),
            poll_every_ms: fields.poll_every_ms.unwrap_or(POLL_EVERY_MS),
            node: fields.node.unwrap_or_else(|| host_name(self.environment)),
        })
    }

    /// Keys that belong to the other way of having company.
    fn strangers(&mut self, raw: &RawTable, other: &str, is_stranger: impl Fn(&str) -> bool) {
        for (key, given) in raw.fields.iter().filter(|(key, _)| is_stranger(key)) {
            let problem = Problem::new(format!("it belongs to {other}, which is not given"), "Remove it.");
            self.fault(key, problem, &given.place);
        }
    }
}

/// The host of an address on another machine, and whether it speaks TLS.
fn far_host(url: &str) -> Option<(String, bool)> {
    let url = Url::parse(url).ok()?;
    let host = url.host_str()?.trim_start_matches('[').trim_end_matches(']').to_owned();
    (!is_this_machine(&host)).then(|| (host, url.scheme() == "https"))
}

/// Side ports: a list, or one text with commas. One given twice counts once.
fn addresses(value: &Value) -> Reading<Vec<String>> {
    let remedy = "Write upstream = \"http://other-node:2130\", or a list of such addresses.";
    let mut urls: Vec<String> = Vec::new();
    let mut add = |given: &str| {
        let url = Url::parse(given).map_err(|error| Problem::new(format!("this is not a URL: {error}"), remedy))?;
        if !url.username().is_empty() || url.password().is_some() || url.query().is_some() || url.fragment().is_some() {
            return Err(Problem::new("the URL has a user, a query or a fragment", remedy));
        }
        if !matches!(url.scheme(), "http" | "https") {
            return Err(Problem::new("the URL is neither https nor http", remedy));
        }
        let url = url.as_str().trim_end_matches('/').to_owned();
        if !urls.contains(&url) {
            urls.push(url);
        }
        Ok(())
    };
    match value {
        Value::List(items) => items.iter().try_for_each(|Given { value, .. }| add(text(value)?))?,
        Value::Text(list) => {
            list.split(',').map(str::trim).filter(|url| !url.is_empty()).try_for_each(&mut add)?;
        }
        other => return Err(Problem::new(format!("{} is not an address", kind(other)), remedy)),
    }
    if urls.is_empty() {
        return Err(Problem::new("no address is given", remedy));
    }
    Ok(urls)
}

/// Begins keys in a cluster: braces would move the hash tag.
fn prefix(value: &Value) -> Reading<String> {
    let prefix = text(value)?;
    let bad = |c: char| c.is_whitespace() || c.is_control() || matches!(c, '{' | '}');
    if prefix.len() > PREFIX_BYTES_MAX || prefix.contains(bad) {
        let what = format!("{} has braces, blanks or control characters, or more than 64 bytes", quoted(prefix));
        return Err(Problem::new(what, "Write a word such as \"tokencached\"."));
    }
    Ok(prefix.to_owned())
}

fn fits_in_a_name(c: char) -> bool {
    c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-')
}

fn node(value: &Value) -> Reading<String> {
    let node = text(value)?;
    if node.len() > NODE_BYTES_MAX || !node.chars().all(fits_in_a_name) {
        let what = format!("{} is no name for a node", quoted(node));
        return Err(Problem::new(what, "Write at most 64 of A to Z, a to z, 0 to 9, \".\", \"_\" and \"-\"."));
    }
    Ok(node.to_owned())
}

/// The machine's own name, as far as it is one for a node.
fn host_name(environment: &dyn Environment) -> String {
    let name: String = environment.host_name().chars().filter(|c| fits_in_a_name(*c)).take(NODE_BYTES_MAX).collect();
    if name.is_empty() { "node".to_owned() } else { name }
}

/// Takes a section's keys out of the layers, lowest first. A path in a variable counts from `current`.
pub(super) fn section(given: Vec<(&'static str, Given)>, current: &Path) -> Section {
    let place = given.first().map_or(Place::Default, |(_, given)| given.place.clone());
    let table = || RawTable { place: place.clone(), fields: Default::default(), authorizers: Vec::new() };
    let (mut raw, mut hidden) = (table(), table());
    for (key, mut given) in given {
        let of_environment = matches!(given.place, Place::Environment(_));
        if let Value::Text(path) = &mut given.value
            && of_environment
            && key.ends_with("_file")
        {
            *path = current.join(&*path).to_string_lossy().into_owned();
        }
        let family = FAMILIES.iter().find(|family| family.contains(&key)).copied().unwrap_or_default();
        for other in family.iter().filter(|_| of_environment) {
            let below = |given: &Given| !matches!(given.place, Place::Environment(_));
            if raw.fields.get(other).is_some_and(below) {
                raw.fields.remove(other);
            }
        }
        if let Some(below) = raw.fields.insert(key, given) {
            hidden.fields.insert(key, below);
        }
    }
    Section { raw, hidden }
}
