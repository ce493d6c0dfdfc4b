//! `[state]`: the state file, and what several nodes have in common, a Redis or one of them that the others follow by HTTP.

use std::path::PathBuf;

use url::Url;

use super::environment::Environment;
use super::fault::SettingProblem;
use super::reader::{RawTable, Reader, toml_path, toml_text, toml_texts};
use super::secrets::Wanted;
use super::value::{self, RawValue, ReadResult, quoted, texts};
use super::{ClusterOptions, SecretOrigin, SecretSource, judge};
use crate::cluster::{LeaderOptions, StoreOptions};
use crate::network::is_this_machine;

const PREFIX_BYTES_MAX: usize = 64;
const NODE_BYTES_MAX: usize = 64;
/// Fewer could be guessed by whoever reads what is sealed.
const SEALING_CHARS_MIN: usize = 16;

const SEALING: Wanted = Wanted {
    key: "secret",
    noun: "secret",
    one: "[state]",
    the: "[state]",
    whose: "the secret that values are sealed with, the same on all nodes",
    of_app: false,
};

const LEADER_KEY: Wanted = Wanted {
    key: "leader_key",
    noun: "API key",
    one: "[state]",
    the: "[state]",
    whose: "a key of the other node's HTTP API",
    of_app: false,
};

/// With whom an app may be kept current.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Company {
    /// This node alone: every app needs its secret.
    Alone,
    /// An app without a secret is left to those nodes that have it.
    Shared,
    /// This node follows others: no app may have a secret.
    Follower,
}

impl Company {
    pub fn of(state: &RawTable) -> Company {
        match state {
            state if state.has("leader_urls") => Company::Follower,
            state if state.has("url") => Company::Shared,
            _ => Company::Alone,
        }
    }
}

impl Reader<'_> {
    /// The state file; the inner none: tokens are kept in memory only.
    pub(super) fn state_path(&mut self, table: &RawTable) -> Option<Option<PathBuf>> {
        let read = |value: &RawValue, base: &std::path::Path| match value::text(value)? {
            "none" => Ok(None),
            _ => value::path(value, base).map(Some),
        };
        self.placed(table, "path", read).map(|(path, _)| path)
    }

    /// Without the key: where the system has such files.
    pub(super) fn default_state_path(&mut self) -> Option<PathBuf> {
        let environment = self.environment;
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
            let what =
                "there is no folder for the state file, so tokens are fetched anew at each start (set state.path)";
            self.warnings.push(what.into());
        }
        folder.map(|folder| folder.join("state.json"))
    }

    pub(super) fn print_state_path(&self, table: &RawTable, path: Option<&PathBuf>) {
        table.print("path", path.map_or_else(|| toml_text("none"), |path| toml_path(path)));
    }

    /// What several nodes have in common, if there are several.
    pub(super) fn cluster(&mut self, table: &RawTable) -> Option<ClusterOptions> {
        match (table.has("url"), table.has("leader_urls")) {
            (true, true) => {
                let what = "it stands beside url: a node shares a Redis or follows another node, not both";
                self.fault(table, "leader_urls", SettingProblem::new(what, "Keep one of the two."));
                None
            }
            (true, false) => self.store(table).map(|store| ClusterOptions::Redis(Box::new(store))),
            (false, true) => self.leader(table).map(ClusterOptions::Leader),
            (false, false) => {
                let remedy = "Add url = \"redis://...\" or leader_urls = \"http://...\", or remove the key.";
                self.do_not_belong(
                    table,
                    |key| key != "path",
                    "there is neither url nor leader_urls in [state]",
                    remedy,
                );
                None
            }
        }
    }

    /// Faults of keys that have no use here.
    fn do_not_belong(&mut self, table: &RawTable, is_one: impl Fn(&str) -> bool, what: &str, remedy: &str) {
        let mut keys: Vec<&str> = table.all().map(|(key, _)| key).filter(|key| is_one(key)).collect();
        keys.sort_unstable();
        keys.dedup();
        keys.into_iter().for_each(|key| self.fault(table, key, SettingProblem::new(what, remedy)));
    }

    fn store(&mut self, table: &RawTable) -> Option<StoreOptions> {
        let of_leader = |key: &str| key.starts_with("leader_");
        self.do_not_belong(table, of_leader, "it belongs to leader_urls, which is not given", "Remove it.");
        if !cfg!(feature = "redis") {
            let remedy = "Use a build with the feature \"redis\", or remove the key.";
            self.fault(table, "url", SettingProblem::new("this build cannot share its state through a Redis", remedy));
            return None;
        }
        let sealing = self.sealing(table);
        let server = self.redis(table);
        let prefix = self.text(table, "prefix", prefix).unwrap_or_default();
        let (poll_every_ms, node) = self.poll_and_node(table);
        let (sealing, sealing_origin) = sealing?;
        Some(StoreOptions { server: server?, sealing, sealing_origin, prefix, poll_every_ms, node })
    }

    fn poll_and_node(&mut self, table: &RawTable) -> (u64, String) {
        let node = self.text(table, "node", node).unwrap_or_else(|| host_name(self.environment));
        table.print("node", toml_text(&node));
        (self.number(table, "poll_every_ms"), node)
    }

    /// What values are sealed with. It has to be there and must not be short.
    fn sealing(&mut self, table: &RawTable) -> Option<(SecretSource, SecretOrigin)> {
        let remedy = "Make one with head -c 32 /dev/urandom | base64 > /etc/tokencached/state.secret, name it in \
                      secret_file, and copy it to all nodes.";
        let Some((key, place)) = SEALING.place(table) else {
            let problem = SettingProblem::new("[state] has a url and no secret to seal values with", remedy);
            self.faults.push(problem.at(table.place_of("url")));
            return None;
        };
        let (source, origin) = self.secret(table, None, &SEALING)?;
        // Unreadable was a fault already.
        if source.read().ok()?.expose().chars().count() < SEALING_CHARS_MIN {
            let what = format!("it has fewer than {SEALING_CHARS_MIN} characters");
            self.fault_at(table, key, SettingProblem::new(what, remedy), place);
            return None;
        }
        Some((source, origin))
    }

    fn leader(&mut self, table: &RawTable) -> Option<LeaderOptions> {
        let of_store =
            |key: &str| !["path", "timeout_ms", "poll_every_ms", "node"].contains(&key) && !key.starts_with("leader_");
        self.do_not_belong(table, of_store, "it belongs to url, which is not given", "Remove it.");
        let urls = self.read(table, "leader_urls", urls);
        let ca_file = self.path_that(table, "leader_ca_file", judge::certificates);
        let timeout_ms = self.number(table, "timeout_ms");
        let (poll_every_ms, node) = self.poll_and_node(table);
        let key = self.secret_if_any(table, &LEADER_KEY);
        let urls = urls?;
        table.print("leader_urls", toml_texts(&urls));
        let place = table.place_of("leader_urls");
        let far = || urls.iter().filter_map(|url| far_host(url));
        if let (Some((host, _)), false) = (far().next(), LEADER_KEY.is_given(table)) {
            let what = format!("the HTTP API of {host} gives no token to another machine without a key");
            let remedy = "Add leader_key_file = \"/path\" with a key of that node's keys_file that may read its apps.";
            self.fault(table, "leader_urls", SettingProblem::new(what, remedy));
        }
        self.warnings.extend(far().find(|(_, tls)| !tls).map(|(host, _)| {
            format!(
                "{place}: tokens and the key pass the network in the clear on their way to {host}; https:// hides them"
            )
        }));
        if table.has("leader_ca_file") && urls.iter().all(|url| url.starts_with("http:")) {
            let remedy = "Write leader_urls = \"https://...\".";
            self.fault(table, "leader_ca_file", SettingProblem::new("no address of leader_urls speaks TLS", remedy));
        }
        let (key, key_origin) = key.unzip();
        Some(LeaderOptions { urls, key, key_origin, ca_file, timeout_ms, poll_every_ms, node })
    }
}

/// The host of an address on another machine, and whether it speaks TLS.
fn far_host(url: &str) -> Option<(String, bool)> {
    let url = Url::parse(url).ok()?;
    let host = url.host_str()?.trim_start_matches('[').trim_end_matches(']').to_owned();
    (!is_this_machine(&host)).then(|| (host, url.scheme() == "https"))
}

/// HTTP APIs: a list, or one text with commas. One given twice counts once.
fn urls(value: &RawValue) -> ReadResult<Vec<String>> {
    let remedy = "Write leader_urls = \"http://other-node:2130\", or a list of such addresses.";
    let read = |given: &str| {
        let url =
            Url::parse(given).map_err(|error| SettingProblem::new(format!("this is not a URL: {error}"), remedy))?;
        if !url.username().is_empty() || url.password().is_some() || url.query().is_some() || url.fragment().is_some() {
            return Err(SettingProblem::new("the URL has a user, a query or a fragment", remedy));
        }
        if !matches!(url.scheme(), "http" | "https") {
            return Err(SettingProblem::new("the URL is neither https nor http", remedy));
        }
        Ok(url.as_str().trim_end_matches('/').to_owned())
    };
    let mut urls: Vec<String> = Vec::new();
    for url in texts(value, |kind| SettingProblem::new(format!("{kind} is not an address"), remedy), read)? {
        if !urls.contains(&url) {
            urls.push(url);
        }
    }
    if urls.is_empty() {
        return Err(SettingProblem::new("no address is given", remedy));
    }
    Ok(urls)
}

/// Begins keys in a cluster: braces would move the hash tag.
fn prefix(prefix: &str) -> ReadResult<String> {
    let bad = |c: char| c.is_whitespace() || c.is_control() || matches!(c, '{' | '}');
    if prefix.len() > PREFIX_BYTES_MAX || prefix.contains(bad) {
        let what = format!("{} has braces, blanks or control characters, or more than 64 bytes", quoted(prefix));
        return Err(SettingProblem::new(what, "Write a word such as \"tokencached\"."));
    }
    Ok(prefix.to_owned())
}

fn fits_in_a_name(c: char) -> bool {
    c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-')
}

fn node(node: &str) -> ReadResult<String> {
    if node.len() > NODE_BYTES_MAX || !node.chars().all(fits_in_a_name) {
        let what = format!("{} is no name for a node", quoted(node));
        return Err(SettingProblem::new(what, "Write at most 64 of A to Z, a to z, 0 to 9, \".\", \"_\" and \"-\"."));
    }
    Ok(node.to_owned())
}

/// The machine's own name, as far as it is one for a node.
fn host_name(environment: &dyn Environment) -> String {
    let name: String = environment.host_name().chars().filter(|c| fits_in_a_name(*c)).take(NODE_BYTES_MAX).collect();
    if name.is_empty() { "node".to_owned() } else { name }
}
