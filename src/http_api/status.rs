//! `/v1/status`: the server's figures, now and in the last minutes; the cluster; the sinks.

use std::collections::VecDeque;
use std::sync::atomic::Ordering::Relaxed;

use serde_json::{Map, Value, json};

use super::context::ApiContext;
use super::old_fields::with_old_fields;
use crate::access::Rights;
use crate::clock::Now;
use crate::credential::table::CredentialState;
use crate::service::figures::ServerSample;
use crate::stats::{SinkStats, SinkWrite, by_names};
use crate::texts;

pub type Figures = Vec<(&'static str, u64)>;

/// Counters and levels, by memcached's names where it has them.
pub fn read_figures(context: &ApiContext) -> Figures {
    let of = ServerSample::of(&context.service, &Rights::ALL, Now::read());
    let figures = by_names(ServerSample::FIGURES, ServerSample::ON_THE_PAGE);
    let figures = figures.map(|figure| (figure.name, (figure.read)(&of).number().unwrap_or(0.0) as u64));
    let refused_writes = context.service.stats.refused_writes.load(Relaxed);
    let http_connections = context.connections.current.load(Relaxed);
    figures.chain([("refused_writes", refused_writes), ("http_connections", http_connections)]).collect()
}

/// How often a sample for the charts is taken, seconds.
pub const SAMPLE_EVERY_S: u64 = 2;
/// How many samples are kept: those of ten minutes.
const SAMPLES_MAX: usize = 300;
/// Counters that are charted by their rate of growth.
const RATES: &[(&str, &str)] = &[
    ("gets_per_s", "cmd_get"),
    ("hits_per_s", "get_hits"),
    ("misses_per_s", "get_misses"),
    ("sets_per_s", "cmd_set"),
    ("bytes_read_per_s", "bytes_read"),
    ("bytes_written_per_s", "bytes_written"),
    ("evictions_per_s", "evictions"),
];
/// Levels that are charted as they are.
const LEVELS: &[(&str, &str)] = &[("connections", "curr_connections"), ("items", "curr_items"), ("bytes", "bytes")];

#[derive(Default)]
pub struct History {
    last: Option<Figures>,
    last_unix_ms: i64,
    samples: VecDeque<Vec<f64>>,
}

fn figure(figures: &Figures, name: &str) -> u64 {
    figures.iter().find(|(known, _)| *known == name).map_or(0, |(_, value)| *value)
}

impl History {
    /// Adds a sample, `interval_s` after the one before.
    pub fn sample(&mut self, figures: Figures, interval_s: f64, now: Now) {
        if let Some(last) = &self.last {
            // `stats reset` sets counters to zero.
            let rate = |name| figure(&figures, name).saturating_sub(figure(last, name)) as f64 / interval_s.max(0.001);
            let round = |rate: f64| (rate * 10.0).round() / 10.0;
            let rates = RATES.iter().map(|(_, name)| round(rate(name)));
            let levels = LEVELS.iter().map(|(_, name)| figure(&figures, name) as f64);
            self.samples.push_back(rates.chain(levels).collect());
            if self.samples.len() > SAMPLES_MAX {
                self.samples.pop_front();
            }
        }
        (self.last, self.last_unix_ms) = (Some(figures), now.unix_ms);
    }

    /// The last sample by name, for a listener that has the ones before.
    pub fn latest(&self) -> Option<Value> {
        let sample = self.samples.back()?;
        let names = RATES.iter().chain(LEVELS).map(|(name, _)| *name);
        Some(Value::Object(names.zip(sample).map(|(name, value)| (name.to_owned(), json!(value))).collect()))
    }

    /// All samples in columns, the newest last.
    pub fn to_json(&self) -> Value {
        let mut columns = Map::new();
        for (at, (name, _)) in RATES.iter().chain(LEVELS).enumerate() {
            let column: Vec<f64> = self.samples.iter().filter_map(|sample| sample.get(at).copied()).collect();
            columns.insert((*name).to_owned(), json!(column));
        }
        json!({ "interval_s": SAMPLE_EVERY_S, "last_at_ms": self.last_unix_ms, "samples": columns })
    }
}

pub fn status_json(context: &ApiContext, now: Now) -> Value {
    let table = context.table();
    let started = context.service.started();
    let state_file = json!({
        "enabled": table.keeps_state,
        "healthy": table.state_saved.load(Relaxed),
        "failures": table.state_failures.load(Relaxed),
    });
    let shown = json!({
        "version": env!("CARGO_PKG_VERSION"),
        "started_at_ms": started.unix_ms,
        "now_ms": now.unix_ms,
        "uptime_s": now.boot_ms.saturating_sub(started.boot_ms) / 1000,
        "max_connections": context.service.max_connections(),
        "apps": context.apps.len(),
        "credentials": count_by_state(context, now),
        "state_file": with_old_fields(state_file, &["kept"]),
        "cluster": cluster_json(context, now),
        "sinks": sinks_json(context),
        "figures": figures_json(read_figures(context)),
        "history": context.feed.history.lock().to_json(),
    });
    with_old_fields(shown, &["shared_state"])
}

pub fn figures_json(figures: impl IntoIterator<Item = (&'static str, u64)>) -> Value {
    let figures = figures.into_iter().map(|(name, value)| (name.to_owned(), json!(value)));
    with_old_fields(Value::Object(figures.collect()), &["side_connections"])
}

/// This node, the other nodes of the cluster, and whether the cluster store or the leader can be reached; null without a
/// cluster.
pub fn cluster_json(context: &ApiContext, now: Now) -> Value {
    let cluster = &context.table().cluster;
    let Some(node) = cluster.node() else { return Value::Null };
    let others = cluster.others().into_iter().map(|(name, at_ms)| json!({ "node": name, "last_fetch_at_ms": at_ms }));
    json!({
        "node": node,
        "store": if cluster.has_store() { "redis" } else { "leader" },
        "up": cluster.is_up().unwrap_or(false),
        "age_ms": cluster.age_ms(now.boot_ms),
        "others": others.collect::<Vec<_>>(),
        "forged_values": cluster.forged.values.load(Relaxed),
        "forged_counts": cluster.forged.counts.load(Relaxed),
    })
}

/// The sinks, in the order of the configuration.
pub fn sinks_json(context: &ApiContext) -> Value {
    context.service.stats.sinks().iter().map(|sink| sink_json(sink)).collect()
}

fn sink_json(sink: &SinkStats) -> Value {
    let recent = sink.recent().clone();
    json!({
        "type": sink.sink_type,
        "target": sink.target,
        "connected": sink.connected.load(Relaxed),
        "waiting": sink.waiting.load(Relaxed),
        "writes": sink.writes.load(Relaxed),
        "deletes": sink.deletes.load(Relaxed),
        "foreign_writes": sink.foreign_writes.load(Relaxed),
        "failures": recent.failures,
        "last_write": recent.last_write.map(last_write_json),
        "last_error": recent.last_error.map(|error| json!({
            "class": error.class,
            "whose": error.responsible,
            "text": error.what,
            "text_zh": texts::chinese(&error.what),
            "advice": error.advice,
            "advice_zh": texts::chinese(&error.advice),
            "about": error.about,
            "at_ms": error.at_unix_ms,
        })),
    })
}

fn last_write_json(write: SinkWrite) -> Value {
    let at_ms = write.at_unix_ms;
    let shown = json!({ "app": write.app, "type": write.credential_type, "entry": write.entry, "at_ms": at_ms });
    with_old_fields(shown, &["kind"])
}

fn count_by_state(context: &ApiContext, now: Now) -> Value {
    let credentials = context.table().credentials();
    let states: Vec<CredentialState> = credentials.iter().map(|of| of.status(now.boot_ms).state).collect();
    let count = |state| states.iter().filter(|of| **of == state).count();
    let counts = CredentialState::ALL.map(|state| (state.name(), count(state)));
    Value::Object(
        counts.into_iter().chain([("total", states.len())]).map(|(name, n)| (name.into(), n.into())).collect(),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn samples_are_rates_and_levels_and_bounded() {
        let mut history = History::default();
        let now = |unix_ms| Now { boot_ms: 0, unix_ms };
        history.sample(vec![("cmd_get", 100), ("bytes", 7)], 0.0, now(0));
        history.sample(vec![("cmd_get", 150), ("bytes", 9)], 2.0, now(2_000));
        assert_eq!(history.latest().unwrap()["gets_per_s"], 25.0);
        assert_eq!(history.latest().unwrap()["bytes"], 9.0);
        history.sample(vec![("cmd_get", 0)], 2.0, now(4_000));
        assert_eq!(history.latest().unwrap()["gets_per_s"], 0.0, "counters set back are no negative rate");
        for _ in 0..1_000 {
            history.sample(vec![("cmd_get", 0)], 2.0, now(6_000));
        }
        assert_eq!(history.to_json()["samples"]["gets_per_s"].as_array().unwrap().len(), SAMPLES_MAX);
    }
}
