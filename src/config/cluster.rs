//! `[state]`: the state file, and what several nodes have in common, a Redis or one of them that the others follow by HTTP.

use std::path::PathBuf;

use super::reader::{RawTable, Reader};
use super::redis::RedisFields;
use super::report::some_texts;
use super::secrets::SecretSpec;
use super::value;
use super::{ClusterOptions, SecretOrigin, SecretSource};
use crate::cluster::{LeaderOptions, StoreOptions, judge_node, node_of_host};

const SEALING: SecretSpec = SecretSpec {
    key: "secret",
    noun: "secret",
    owner: "[state]",
    content: "the secret that values are sealed with, the same on all nodes",
};

const LEADER_KEY: SecretSpec =
    SecretSpec { key: "leader_key", noun: "API key", owner: "[state]", content: "a key of the other node's HTTP API" };

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
        let path = self.placed(table, "path", |value, base| match value::text(value)? {
            "none" => Ok(None),
            _ => value::path(value, base).map(Some),
        });
        path.map(|(path, _)| path)
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
                self.refuse((table, "leader_urls"), what, "Keep one of the two.");
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
        table.print("node", node.clone());
        NodeFields {
            redis,
            prefix: prefix.unwrap_or_default(),
            poll_every_ms: self.value(table, "poll_every_ms"),
            node,
            leader_urls: self.read(table, "leader_urls", |urls| {
                let urls = some_texts(urls, ["an", "address"], LeaderOptions::REMEDY, LeaderOptions::parse_url)?;
                Ok(value::each_once(urls))
            }),
            leader_ca_file: self.get(table, "leader_ca_file"),
        }
    }

    fn store(&mut self, table: &RawTable, fields: NodeFields) -> Option<StoreOptions> {
        let of_leader = table.section.keys().filter(|key| key.starts_with("leader_"));
        self.refuse_keys(table, of_leader, "it belongs to leader_urls, which is not given", "Remove it.");
        if !cfg!(feature = "redis") {
            let remedy = "Use a build with the feature \"redis\", or remove the key.";
            self.refuse((table, "url"), "this build cannot share its state through a Redis", remedy);
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
        let Some(key) = SEALING.given_by(table) else {
            let what = "[state] has a url and no secret to seal values with";
            self.refuse(table.place_of("url"), what, StoreOptions::SEALING_REMEDY);
            return None;
        };
        let (source, origin) = self.secret(table, &SEALING)?;
        // Unreadable was a fault already.
        let judged = StoreOptions::judge_sealing(source.read().ok()?.expose());
        self.accept((table, key), judged)?;
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
        let (key, key_origin) = self.secret(table, &LEADER_KEY).unzip();
        let urls = leader_urls?;
        table.print("leader_urls", urls.clone());
        let judgement = LeaderOptions::judge(&urls, LEADER_KEY.is_given(table), table.has("leader_ca_file"));
        self.judged(table, judgement);
        Some(LeaderOptions { urls, key, key_origin, ca_file, timeout_ms, poll_every_ms, node })
    }
}
