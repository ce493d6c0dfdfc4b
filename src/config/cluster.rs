//! `[state]`: the state file, and what several nodes have in common, a Redis or one of them that the others follow by HTTP.

use std::collections::HashSet;
use std::path::PathBuf;

use super::reader::{RawTable, Reader, toml_path, toml_text, toml_texts};
use super::redis::RedisFields;
use super::report::some_texts;
use super::secrets::SecretSpec;
use super::value::{self, RawValue, ReadResult};
use super::{ClusterOptions, SecretOrigin, SecretSource};
use crate::cluster::{LeaderOptions, StoreOptions, judge_node, node_of_host};
use crate::tls::pem_file;

const SEALING: SecretSpec = SecretSpec {
    key: "secret",
    noun: "secret",
    owner: "[state]",
    content: "the secret that values are sealed with, the same on all nodes",
    of_app: false,
};

const LEADER_KEY: SecretSpec = SecretSpec {
    key: "leader_key",
    noun: "API key",
    owner: "[state]",
    content: "a key of the other node's HTTP API",
    of_app: false,
};

/// What this node is to other nodes, and so which apps need their secret here.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum ClusterRole {
    /// There are no others: every app needs its secret.
    Single,
    /// The nodes share a Redis: an app without a secret is left to those that have it.
    Shared,
    /// It follows others: no app may have a secret.
    Follower,
}

impl ClusterRole {
    pub fn of(state: &RawTable) -> ClusterRole {
        if state.has("leader_urls") {
            ClusterRole::Follower
        } else if state.has("url") {
            ClusterRole::Shared
        } else {
            ClusterRole::Single
        }
    }
}

/// The keys of `[state]`, each judged by itself.
struct NodeFields {
    redis: RedisFields,
    prefix: String,
    poll_every_ms: u64,
    node: String,
    leader_urls: Option<Vec<String>>,
    leader_ca_file: Option<PathBuf>,
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

    /// What several nodes have in common, if there are several. The values are judged whether or not there is a use for them.
    pub(super) fn cluster(&mut self, table: &RawTable) -> Option<ClusterOptions> {
        if table.all().all(|(key, _)| key == "path") {
            return None;
        }
        let fields = self.node_fields(table);
        match (table.has("url"), table.has("leader_urls")) {
            (true, true) => {
                let what = "it stands beside url: a node shares a Redis or follows another node, not both";
                self.refuse(table, "leader_urls", what, "Keep one of the two.");
                None
            }
            (true, false) => self.store(table, fields).map(|store| ClusterOptions::Redis(Box::new(store))),
            (false, true) => self.leader(table, fields).map(ClusterOptions::Leader),
            (false, false) => {
                let remedy = "Add url = \"redis://...\" or leader_urls = \"http://...\", or remove the key.";
                let what = "there is neither url nor leader_urls in [state]";
                self.refuse_keys(table, table.section.keys().filter(|key| *key != "path"), what, remedy);
                None
            }
        }
    }

    fn node_fields(&mut self, table: &RawTable) -> NodeFields {
        let redis = self.redis_fields(table);
        let prefix = self.text_that(table, "prefix", StoreOptions::judge_prefix);
        let node = self.text_that(table, "node", judge_node);
        let node = node.unwrap_or_else(|| node_of_host(&self.environment.host_name()));
        table.print("node", toml_text(&node));
        NodeFields {
            redis,
            prefix: prefix.unwrap_or_default(),
            poll_every_ms: self.number(table, "poll_every_ms"),
            node,
            leader_urls: self.read(table, "leader_urls", urls),
            leader_ca_file: self.path_that(table, "leader_ca_file", pem_file::certificates),
        }
    }

    fn store(&mut self, table: &RawTable, fields: NodeFields) -> Option<StoreOptions> {
        let of_leader = table.section.keys().filter(|key| key.starts_with("leader_"));
        self.refuse_keys(table, of_leader, "it belongs to leader_urls, which is not given", "Remove it.");
        if !cfg!(feature = "redis") {
            let remedy = "Use a build with the feature \"redis\", or remove the key.";
            self.refuse(table, "url", "this build cannot share its state through a Redis", remedy);
            return None;
        }
        let NodeFields { redis, prefix, poll_every_ms, node, .. } = fields;
        let sealing = self.sealing(table);
        let server = self.redis(table, redis);
        let (sealing, sealing_origin) = sealing?;
        Some(StoreOptions { server: server?, sealing, sealing_origin, prefix, poll_every_ms, node })
    }

    /// What values are sealed with. It has to be there and must not be short.
    fn sealing(&mut self, table: &RawTable) -> Option<(SecretSource, SecretOrigin)> {
        let Some((key, place)) = SEALING.place(table) else {
            let what = "[state] has a url and no secret to seal values with";
            self.refuse_at(table.place_of("url"), what, StoreOptions::SEALING_REMEDY);
            return None;
        };
        let (source, origin) = self.secret(table, None, &SEALING)?;
        // Unreadable was a fault already.
        let judged = StoreOptions::judge_sealing(source.read().ok()?.expose());
        self.accept(table, key, judged.map_err(|fault| (fault, place.clone())))?;
        Some((source, origin))
    }

    fn leader(&mut self, table: &RawTable, fields: NodeFields) -> Option<LeaderOptions> {
        let of_store =
            |key: &&str| !["path", "timeout_ms", "poll_every_ms", "node"].contains(key) && !key.starts_with("leader_");
        let of_store = table.section.keys().filter(of_store);
        self.refuse_keys(table, of_store, "it belongs to url, which is not given", "Remove it.");
        table.forget("prefix");
        let NodeFields { redis, poll_every_ms, node, leader_urls, leader_ca_file: ca_file, .. } = fields;
        let timeout_ms = redis.timeout_ms;
        let key = self.secret(table, None, &LEADER_KEY);
        let urls = leader_urls?;
        table.print("leader_urls", toml_texts(&urls));
        let judgement = LeaderOptions::judge(&urls, LEADER_KEY.is_given(table), table.has("leader_ca_file"));
        self.judged(table, judgement);
        let (key, key_origin) = key.unzip();
        Some(LeaderOptions { urls, key, key_origin, ca_file, timeout_ms, poll_every_ms, node })
    }
}

/// HTTP APIs. One given twice counts once.
fn urls(value: &RawValue) -> ReadResult<Vec<String>> {
    let mut seen = HashSet::new();
    let urls = some_texts(value, ["an", "address"], LeaderOptions::REMEDY, LeaderOptions::parse_url)?;
    Ok(urls.into_iter().filter(|url| seen.insert(url.clone())).collect())
}
