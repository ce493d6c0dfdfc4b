//! `[state]`: the state file, and what several nodes have in common, a Redis or one of them that the others follow by HTTP.

use std::path::PathBuf;

use super::reader::{RawTable, Reader};
use super::report::some_texts;
use super::secrets::SecretSpec;
use super::value::{self, each_once};
use crate::cluster::{LeaderOptions, Options as ClusterOptions, StoreOptions, judge_keys, judge_node, node_of_host};
use crate::raw_value::text;
use crate::secret_source::SecretSource;

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

impl Reader<'_> {
    /// The state file; the inner none: tokens are kept in memory only.
    pub(super) fn state_path(&mut self, table: &RawTable) -> Option<Option<PathBuf>> {
        let path = self.placed(table, "path", |value, base| match text(value)? {
            "none" => Ok(None),
            _ => value::path(value, base).map(Some),
        });
        path.map(|(path, _)| path)
    }

    /// What several nodes have in common, if there are several. The values are judged whether or not there is a use for them.
    pub(super) fn cluster(&mut self, table: &RawTable) -> Option<ClusterOptions> {
        let given = table.given_keys();
        if given.iter().all(|key| *key == "path") {
            return None;
        }
        let (has_url, has_leader) = (table.has("url"), table.has("leader_urls"));
        let is_shared = has_url && !has_leader && cfg!(feature = "redis");
        if has_url && !has_leader && !is_shared {
            let remedy = "Use a build with the feature \"redis\", or remove the key.";
            self.refuse((table, "url"), "this build cannot share its state through a Redis", remedy);
        }
        let sealing = if is_shared { self.sealing(table) } else { None };
        let server = self.redis(table, is_shared);
        if is_shared && !SEALING.is_given(table) {
            let what = "[state] has a url and no secret to seal values with";
            self.refuse(table.place_of("url"), what, StoreOptions::SEALING_REMEDY);
        }
        let prefix = self.text_that(table, "prefix", StoreOptions::judge_prefix).unwrap_or_default();
        let node = self.text_that(table, "node", judge_node);
        let node = node.unwrap_or_else(|| node_of_host(&self.environment.host_name()));
        table.print("node", node.clone());
        let poll_every_ms = self.value(table, "poll_every_ms");
        let leader = self.leader(table, has_leader && !has_url, poll_every_ms, &node);
        self.judged(table, judge_keys(&given));
        if let Some(leader) = leader {
            table.forget("prefix");
            return Some(ClusterOptions::Leader(leader));
        }
        let store = StoreOptions { server: server?, sealing: sealing?, prefix, poll_every_ms, node };
        Some(ClusterOptions::Redis(Box::new(store)))
    }

    /// What values are sealed with. It must not be short.
    fn sealing(&mut self, table: &RawTable) -> Option<SecretSource> {
        let key = SEALING.given_by(table)?;
        let source = self.secret(table, &SEALING)?;
        // Unreadable was a fault already.
        let judged = StoreOptions::judge_sealing(source.read().ok()?.expose());
        self.accept((table, key), judged)?;
        Some(source)
    }

    /// As [`Reader::redis`].
    fn leader(&mut self, table: &RawTable, has_use: bool, poll_every_ms: u64, node: &str) -> Option<LeaderOptions> {
        let urls = self.read(table, "leader_urls", |urls| {
            let urls = some_texts(urls, ["an", "address"], LeaderOptions::REMEDY, LeaderOptions::parse_url)?;
            Ok(each_once(urls))
        });
        let ca_file = self.get(table, "leader_ca_file");
        let timeout_ms = self.value(table, "timeout_ms");
        if !has_use {
            return None;
        }
        let key = self.secret(table, &LEADER_KEY);
        let urls = urls?;
        table.print("leader_urls", urls.clone());
        let judgement = LeaderOptions::judge(&urls, LEADER_KEY.is_given(table), table.has("leader_ca_file"));
        self.judged(table, judgement);
        Some(LeaderOptions { urls, key, ca_file, timeout_ms, poll_every_ms, node: node.to_owned() })
    }
}
