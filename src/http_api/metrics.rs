//! `/metrics` in OpenMetrics: what prometheus/memcached_exporter gives, by its names, and this server's own metrics.
//! The figures are those of `stats`, read at each scrape.

use std::collections::BTreeMap;
use std::fmt::{Debug, Error, Formatter};
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::task::{Context, Poll};
use std::time::Duration;

use axum::body::{Body, Bytes};
use axum::extract::{Extension, State};
use axum::http::{HeaderValue, StatusCode, Uri, header};
use axum::response::{IntoResponse, Response};
use hyper::body::{Frame, SizeHint};
use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, MetricEncoder, NoLabelSet, text};
use prometheus_client::metrics::MetricType;
use prometheus_client::registry::Registry;
use tokio::sync::OwnedSemaphorePermit;
use tokio::time::Sleep;

use super::api::{CallerExtractor, ContextExtractor};
use super::context::ApiContext;
use super::credential_metrics;
use super::old_metric_names;
use super::problem::Problem;
use super::query::QueryParams;
use super::sink_metrics;
use crate::clock::Now;
use crate::credential::facts::DURATION_BOUNDS_MS;

/// The most scrapes that are written or sent at a time: each is held in memory until it is sent.
pub const SCRAPES_MAX: usize = 2;
/// How long a further scrape waits for its turn.
const WAIT_MAX: Duration = Duration::from_secs(5);
/// A scrape must have been sent after this time. Prometheus gives up much earlier.
const SEND_MAX: Duration = Duration::from_secs(60);
/// A scrape is sent in pieces of this size.
const PIECE_BYTES: usize = 64 * 1024;

/// `GET /metrics`, with `old_names=1` by the names of before, with `old_names=0` by the new ones. It is written on a
/// thread of its own, so that others are answered meanwhile, however many apps there are.
pub async fn scrape(
    State(context): ContextExtractor,
    Extension(caller): CallerExtractor,
    uri: Uri,
) -> Result<Response, Problem> {
    let params = QueryParams::of(&uri, &["old_names"])?;
    caller.require_status()?;
    let old_names = params.choice("old_names")?.unwrap_or(context.settings.old_metric_names);
    let turn = tokio::time::timeout(WAIT_MAX, context.scrapes.clone().acquire_owned()).await;
    let Ok(Ok(permit)) = turn else {
        let detail = "other scrapes are still being written or taken";
        let problem = Problem::new(StatusCode::SERVICE_UNAVAILABLE, "busy", detail);
        return Err(Problem { retry_after_s: Some(5), ..problem });
    };
    let written = tokio::task::spawn_blocking(move || encode_metrics(&context, old_names)).await;
    let Ok(Ok(text)) = written else {
        let detail = "the metrics could not be written";
        return Err(Problem::new(StatusCode::INTERNAL_SERVER_ERROR, "internal", detail));
    };
    let deadline = Box::pin(tokio::time::sleep(SEND_MAX));
    let mut response = Body::new(ScrapeBody { left: Bytes::from(text), deadline, _permit: permit }).into_response();
    let content_type = HeaderValue::from_static("application/openmetrics-text; version=1.0.0; charset=utf-8");
    response.headers_mut().insert(header::CONTENT_TYPE, content_type);
    Ok(response)
}

fn encode_metrics(context: &Arc<ApiContext>, old_names: bool) -> Result<String, Error> {
    let mut registry = Registry::default();
    registry.register_collector(Box::new(ScrapeCollector(context.clone())));
    let mut out = String::with_capacity(PIECE_BYTES);
    text::encode(&mut out, &registry)?;
    Ok(if old_names { old_metric_names::translate(&out) } else { out })
}

/// A scrape that is being sent.
struct ScrapeBody {
    left: Bytes,
    deadline: Pin<Box<Sleep>>,
    _permit: OwnedSemaphorePermit,
}

impl hyper::body::Body for ScrapeBody {
    type Data = Bytes;
    type Error = io::Error;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<io::Result<Frame<Bytes>>>> {
        if self.left.is_empty() {
            return Poll::Ready(None);
        }
        if self.deadline.as_mut().poll(cx).is_ready() {
            return Poll::Ready(Some(Err(io::ErrorKind::TimedOut.into())));
        }
        let piece = self.left.len().min(PIECE_BYTES);
        Poll::Ready(Some(Ok(Frame::data(self.left.split_to(piece)))))
    }

    fn is_end_stream(&self) -> bool {
        self.left.is_empty()
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::with_exact(self.left.len() as u64)
    }
}

struct ScrapeCollector(Arc<ApiContext>);

impl Debug for ScrapeCollector {
    fn fmt(&self, f: &mut Formatter<'_>) -> std::fmt::Result {
        f.write_str("Scrape")
    }
}

pub(super) type EncodeResult = Result<(), Error>;
pub(super) type Labels<'l> = Vec<(&'static str, &'l str)>;
/// The figures of `stats` by name; those of `items` and `slabs` by class and name.
type StatsByName = BTreeMap<String, String>;

impl Collector for ScrapeCollector {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> EncodeResult {
        let (context, now) = (&self.0, Now::read());
        let stats = |argument: &[u8]| -> StatsByName { context.service.figures(argument, now).into_iter().collect() };
        let out = &mut encoder;
        let (general, slabs) = (stats(b""), stats(b"slabs"));
        encode_server(out, &general, &slabs)?;
        encode_commands(out, &general)?;
        encode_slab_classes(out, &stats(b"items"), &slabs)?;
        encode_tokencached(out, context, &general, now)?;
        let (table, per_credential) = (context.table(), context.settings.metrics_per_credential);
        credential_metrics::encode(out, &table.credentials(), per_credential, context.apps.len(), now)?;
        encode_fetch_durations(out, context)?;
        sink_metrics::encode(out, &context.service.stats.sinks())
    }
}

/// A figure of `stats`; 0 if there is none.
fn number(stats: &StatsByName, name: &str) -> f64 {
    stats.get(name).and_then(|value| value.parse().ok()).unwrap_or(0.0)
}

pub(super) fn family<'e>(
    out: &'e mut DescriptorEncoder<'_>,
    name: &'e str,
    help: &str,
    metric_type: MetricType,
) -> Result<MetricEncoder<'e>, Error> {
    out.encode_descriptor(name, help, None, metric_type)
}

/// A gauge without labels.
pub(super) fn gauge(out: &mut DescriptorEncoder<'_>, name: &str, help: &str, value: f64) -> EncodeResult {
    family(out, name, help, MetricType::Gauge)?.encode_gauge(&value)
}

/// A gauge that is 1 or 0.
pub(super) fn switch(out: &mut DescriptorEncoder<'_>, name: &str, help: &str, on: bool) -> EncodeResult {
    gauge(out, name, help, f64::from(u8::from(on)))
}

/// A counter without labels; `_total` is added to the name.
fn counter(out: &mut DescriptorEncoder<'_>, name: &str, help: &str, value: f64) -> EncodeResult {
    family(out, name, help, MetricType::Counter)?.encode_counter::<NoLabelSet, f64, f64>(&value, None)
}

/// A family of values with labels.
pub(super) fn each<'l>(
    out: &mut DescriptorEncoder<'_>,
    (name, help, metric_type): (&str, &str, MetricType),
    values: impl Iterator<Item = (Labels<'l>, f64)>,
) -> EncodeResult {
    let counts = matches!(metric_type, MetricType::Counter);
    let mut encoder = family(out, name, help, metric_type)?;
    for (labels, value) in values {
        let mut one = encoder.encode_family(&labels)?;
        if counts {
            one.encode_counter::<NoLabelSet, f64, f64>(&value, None)?;
        } else {
            one.encode_gauge(&value)?;
        }
    }
    Ok(())
}

/// Name, figure of `stats`, help. The exporter has some counters without `_total`: those are gauges here.
const GAUGES: &[(&str, &str, &str)] = &[
    ("memcached_uptime_seconds", "uptime", "Seconds since the server started."),
    ("memcached_time_seconds", "time", "Seconds since 1970 by the server's clock."),
    ("memcached_current_connections", "curr_connections", "Open connections."),
    ("memcached_max_connections", "max_connections", "The most connections that may be open."),
    ("memcached_current_bytes", "bytes", "Bytes in use by items."),
    ("memcached_limit_bytes", "limit_maxbytes", "Bytes that items may use."),
    ("memcached_current_items", "curr_items", "Items held."),
    ("memcached_accepting_connections", "accepting_conns", "Whether connections are accepted."),
];
const COUNTERS: &[(&str, &str, &str)] = &[
    ("memcached_process_user_cpu_seconds", "rusage_user", "User time of the process."),
    ("memcached_process_system_cpu_seconds", "rusage_system", "System time of the process."),
    ("memcached_read_bytes", "bytes_read", "Bytes read from clients."),
    ("memcached_written_bytes", "bytes_written", "Bytes written to clients."),
    ("memcached_connections", "total_connections", "Connections accepted."),
    ("memcached_connections_rejected", "rejected_connections", "Connections refused because there were too many."),
    (
        "memcached_connections_yielded",
        "conn_yields",
        "Times a connection with many requests had to let others go first.",
    ),
    (
        "memcached_connections_listener_disabled",
        "listen_disabled_num",
        "Times the listener was disabled; always 0 here.",
    ),
    ("memcached_items", "total_items", "Items stored since the start."),
    ("memcached_items_evicted", "evictions", "Items evicted to make room."),
    ("memcached_items_reclaimed", "reclaimed", "Items stored in memory of expired items."),
    ("memcached_item_too_large", "store_too_large", "Items refused as too large."),
    ("memcached_item_no_memory", "store_no_memory", "Items refused because there was no memory for them."),
    ("memcached_direct_reclaims", "direct_reclaims", "Items evicted while a client waited."),
    ("memcached_lru_crawler_starts", "lru_crawler_starts", "Runs of the crawler; always 0, there is no crawler here."),
    ("memcached_lru_crawler_reclaimed", "crawler_reclaimed", "Expired items removed in the background."),
    ("memcached_lru_crawler_items_checked", "crawler_items_checked", "Items examined in the background."),
    ("memcached_lru_crawler_moves_to_cold", "moves_to_cold", "Items moved to the cold queue."),
    ("memcached_lru_crawler_moves_to_warm", "moves_to_warm", "Items moved to the warm queue."),
    ("memcached_lru_crawler_moves_within_lru", "moves_within_lru", "Items moved within a queue."),
];

fn encode_server(out: &mut DescriptorEncoder<'_>, general: &StatsByName, slabs: &StatsByName) -> EncodeResult {
    gauge(out, "memcached_up", "Whether the server answers.", 1.0)?;
    let version = general.get("version").map_or("", String::as_str);
    let one = std::iter::once((vec![("version", version)], 1.0));
    each(out, ("memcached_version", "The version that clients are told.", MetricType::Gauge), one)?;
    for (name, figure, help) in GAUGES {
        gauge(out, name, help, number(general, figure))?;
    }
    let malloced = number(slabs, "total_malloced");
    gauge(out, "memcached_malloced_bytes", "Bytes in the pages memcached would need for these items.", malloced)?;
    for (name, figure, help) in COUNTERS {
        counter(out, name, help, number(general, figure))?;
    }
    Ok(())
}

fn encode_commands(out: &mut DescriptorEncoder<'_>, general: &StatsByName) -> EncodeResult {
    let mut values: Vec<(Labels<'_>, f64)> = Vec::new();
    let labels = |command, status| vec![("command", command), ("status", status)];
    for command in ["get", "delete", "incr", "decr", "cas", "touch"] {
        values.push((labels(command, "hit"), number(general, &format!("{command}_hits"))));
        values.push((labels(command, "miss"), number(general, &format!("{command}_misses"))));
    }
    values.push((labels("cas", "badval"), number(general, "cas_badval")));
    values.push((labels("flush", "hit"), number(general, "cmd_flush")));
    // `cmd_set` counts cas commands, too.
    let cas: f64 = ["cas_misses", "cas_hits", "cas_badval"].iter().map(|name| number(general, name)).sum();
    values.push((labels("set", "hit"), (number(general, "cmd_set") - cas).max(0.0)));
    let family = ("memcached_commands", "Commands, by name and result.", MetricType::Counter);
    each(out, family, values.into_iter())
}

pub(super) const GAUGE: MetricType = MetricType::Gauge;
pub(super) const COUNTER: MetricType = MetricType::Counter;

/// From `stats items`, by slab class.
const SLAB_ITEMS: &[(&str, &str, MetricType, &str)] = &[
    ("memcached_slab_current_items", "number", GAUGE, "Items held in the class."),
    ("memcached_slab_items_age_seconds", "age", GAUGE, "Seconds since the last use of the least recently used item."),
    (
        "memcached_slab_items_crawler_reclaimed",
        "crawler_reclaimed",
        COUNTER,
        "Expired items removed in the background.",
    ),
    ("memcached_slab_items_evicted", "evicted", COUNTER, "Items evicted to make room."),
    ("memcached_slab_items_evicted_nonzero", "evicted_nonzero", COUNTER, "Evicted items that had an expiry time."),
    (
        "memcached_slab_items_evicted_time_seconds",
        "evicted_time",
        GAUGE,
        "Seconds since the last use of the item that was evicted last.",
    ),
    ("memcached_slab_items_evicted_unfetched", "evicted_unfetched", COUNTER, "Items evicted that nobody had read."),
    ("memcached_slab_items_expired_unfetched", "expired_unfetched", COUNTER, "Items expired that nobody had read."),
    ("memcached_slab_items_outofmemory", "outofmemory", COUNTER, "Items refused because there was no memory for them."),
    ("memcached_slab_items_reclaimed", "reclaimed", COUNTER, "Items stored in memory of expired items."),
    ("memcached_slab_items_tailrepairs", "tailrepairs", COUNTER, "Repairs of the queue's tail; always 0 here."),
    ("memcached_slab_items_moves_to_cold", "moves_to_cold", GAUGE, "Items moved to the cold queue."),
    ("memcached_slab_items_moves_to_warm", "moves_to_warm", GAUGE, "Items moved to the warm queue."),
    ("memcached_slab_items_moves_within_lru", "moves_within_lru", GAUGE, "Items moved within a queue."),
    ("memcached_slab_hot_items", "number_hot", GAUGE, "Items in the hot queue."),
    ("memcached_slab_warm_items", "number_warm", GAUGE, "Items in the warm queue."),
    ("memcached_slab_cold_items", "number_cold", GAUGE, "Items in the cold queue."),
    ("memcached_slab_temporary_items", "number_temp", GAUGE, "Items in the temporary queue; always 0 here."),
    ("memcached_slab_hot_age_seconds", "age_hot", GAUGE, "Age of the hot queue's oldest item."),
    ("memcached_slab_warm_age_seconds", "age_warm", GAUGE, "Age of the warm queue's oldest item."),
];
/// From `stats slabs`, by slab class.
const SLABS: &[(&str, &str, MetricType, &str)] = &[
    ("memcached_slab_chunk_size_bytes", "chunk_size", GAUGE, "Bytes of the class's largest item."),
    ("memcached_slab_chunks_per_page", "chunks_per_page", GAUGE, "Items that would fit one of memcached's pages."),
    ("memcached_slab_current_pages", "total_pages", GAUGE, "Pages that memcached would need."),
    ("memcached_slab_current_chunks", "total_chunks", GAUGE, "Items that would fit these pages."),
    ("memcached_slab_chunks_used", "used_chunks", GAUGE, "Items held."),
    ("memcached_slab_chunks_free", "free_chunks", GAUGE, "Items that would still fit."),
    ("memcached_slab_chunks_free_end", "free_chunks_end", GAUGE, "Always 0 here."),
    ("memcached_slab_mem_requested_bytes", "mem_requested", GAUGE, "Bytes in use by the items of the class."),
];

/// The slab classes in the figures, in order.
fn classes<'s>(stats: &'s StatsByName, prefix: &str) -> Vec<&'s str> {
    let named = stats.keys().filter_map(|name| name.strip_prefix(prefix)?.split_once(':').map(|(class, _)| class));
    let mut classes: Vec<&str> = named.filter(|class| class.parse::<u32>().is_ok()).collect();
    classes.sort_by_key(|class| class.parse::<u32>().unwrap_or(0));
    classes.dedup();
    classes
}

fn encode_slab_classes(out: &mut DescriptorEncoder<'_>, items: &StatsByName, slabs: &StatsByName) -> EncodeResult {
    for (stats, prefix, families) in [(items, "items:", SLAB_ITEMS), (slabs, "", SLABS)] {
        let classes = classes(stats, prefix);
        for (name, figure, metric_type, help) in families {
            let values = classes
                .iter()
                .map(|class| (vec![("slab", *class)], number(stats, &format!("{prefix}{class}:{figure}"))));
            each(out, (name, help, *metric_type), values)?;
        }
    }
    let queues =
        [("hot", "hits_to_hot"), ("warm", "hits_to_warm"), ("cold", "hits_to_cold"), ("temporary", "hits_to_temp")];
    let hits = classes(items, "items:").into_iter().flat_map(|class| {
        queues.map(|(lru, figure)| {
            (vec![("slab", class), ("lru", lru)], number(items, &format!("items:{class}:{figure}")))
        })
    });
    each(out, ("memcached_slab_lru_hits", "Items read, by queue.", COUNTER), hits)?;
    let commands = classes(slabs, "").into_iter().flat_map(|class| slab_class_commands(slabs, class));
    each(out, ("memcached_slab_commands", "Commands, by slab class, name and result.", COUNTER), commands)
}

fn slab_class_commands<'s>(slabs: &StatsByName, class: &'s str) -> Vec<(Labels<'s>, f64)> {
    let labels = |command, status| vec![("slab", class), ("command", command), ("status", status)];
    let of = |name: &str| number(slabs, &format!("{class}:{name}"));
    let commands = ["get", "delete", "incr", "decr", "cas", "touch"];
    let mut values: Vec<_> = commands.map(|command| (labels(command, "hit"), of(&format!("{command}_hits")))).into();
    values.push((labels("cas", "badval"), of("cas_badval")));
    values.push((labels("set", "hit"), (of("cmd_set") - of("cas_hits") - of("cas_badval")).max(0.0)));
    values
}

/// Counters of `stats` that memcached does not have.
const TOKENCACHED: &[(&str, &str, &str)] = &[
    ("tokencached_managed_hits", "managed_hits", "Reads of a managed key that found a live value."),
    ("tokencached_managed_misses", "managed_misses", "Reads of a managed key that found none."),
    ("tokencached_managed_reports", "managed_reports", "Reports by clients that a value is refused."),
    ("tokencached_client_verifications", "client_checks", "Verifications of a value that a client's report caused."),
    (
        "tokencached_client_verifications_denied",
        "client_checks_refused",
        "Verifications not made because clients had caused too many for nothing.",
    ),
    ("tokencached_access_denied", "access_denied", "Requests refused because the client has no right to them."),
    ("tokencached_auth_errors", "auth_errors", "Failed logins."),
    ("tokencached_auth_delays", "auth_delays", "Logins delayed because wrong passwords came from their address."),
    ("tokencached_tls_handshake_errors", "ssl_handshake_errors", "TLS handshakes that failed."),
    ("tokencached_foreign_protocols", "foreign_protocols", "Connections that did not speak memcached's protocols."),
    ("tokencached_idle_kicks", "idle_kicks", "Connections closed because they were idle."),
    (
        "tokencached_request_timeouts",
        "request_timeouts",
        "Connections closed because a request was not complete in time.",
    ),
    ("tokencached_write_timeouts", "write_timeouts", "Connections closed because the client did not read its answers."),
    ("tokencached_log_lines_dropped", "log_lines_dropped", "Log lines that could not be written in time, or at all."),
    (
        "tokencached_in_flight_refusals",
        "in_flight_refusals",
        "Half-received requests dropped because connections used all the memory they may.",
    ),
];

fn encode_tokencached(
    out: &mut DescriptorEncoder<'_>,
    context: &ApiContext,
    general: &StatsByName,
    now: Now,
) -> EncodeResult {
    let build = vec![("version", env!("CARGO_PKG_VERSION"))];
    family(out, "tokencached_build", "The version of this server.", MetricType::Info)?.encode_info(&build)?;
    for (name, figure, help) in TOKENCACHED {
        counter(out, name, help, number(general, figure))?;
    }
    let panics = context.table().panics.load(Relaxed) as f64;
    counter(out, "tokencached_refresher_panics", "Fetches that crashed; each is a bug.", panics)?;
    encode_state_file(out, context)?;
    encode_cluster(out, context, now)?;
    encode_http(out, context)
}

fn encode_state_file(out: &mut DescriptorEncoder<'_>, context: &ApiContext) -> EncodeResult {
    let table = context.table();
    let (enabled, healthy) = (table.keeps_state, table.state_saved.load(Relaxed));
    switch(out, "tokencached_state_file_enabled", "Whether there is a state file.", enabled)?;
    switch(out, "tokencached_state_file_healthy", "Whether the last write of the state file succeeded.", healthy)?;
    let failures = table.state_failures.load(Relaxed) as f64;
    counter(out, "tokencached_state_file_failures", "Writes of the state file that failed.", failures)
}

fn encode_cluster(out: &mut DescriptorEncoder<'_>, context: &ApiContext, now: Now) -> EncodeResult {
    let cluster = &context.table().cluster;
    let help = "Whether this node shares its state with others.";
    switch(out, "tokencached_cluster_enabled", help, cluster.node().is_some())?;
    let help = "Whether the cluster store or the leader can be reached.";
    switch(out, "tokencached_cluster_up", help, cluster.is_up() == Some(true))?;
    let age_ms = cluster.age_ms(now.boot_ms).unwrap_or(0);
    let help =
        "Seconds since the cluster store or the leader last answered: so far may this node be behind the others.";
    gauge(out, "tokencached_cluster_age_seconds", help, age_ms as f64 / 1000.0)?;
    let help = "Values in the cluster store that no node can have written; they were ignored and replaced.";
    counter(out, "tokencached_cluster_forged_values", help, cluster.forged.values.load(Relaxed) as f64)?;
    let help = "Counts of calls in the cluster store that no node can have written; they were ignored.";
    counter(out, "tokencached_cluster_forged_counts", help, cluster.forged.counts.load(Relaxed) as f64)
}

fn encode_http(out: &mut DescriptorEncoder<'_>, context: &ApiContext) -> EncodeResult {
    let figure = |of: &AtomicU64| of.load(Relaxed) as f64;
    let of = &context.connections;
    let help = "Open connections of the HTTP API.";
    gauge(out, "tokencached_http_current_connections", help, figure(&of.current))?;
    let help = "Connections that the HTTP API has accepted.";
    counter(out, "tokencached_http_accepted_connections", help, figure(&of.total))?;
    let help = "Connections that the HTTP API has refused because there were too many.";
    counter(out, "tokencached_http_rejected_connections", help, figure(&of.rejected))?;
    let help = "Connections that the HTTP API has closed before they had sent a request, to make room.";
    counter(out, "tokencached_http_evicted_connections", help, figure(&of.evicted))?;
    let wrong = context.reload_handle.access_control.wrong_secrets.totals();
    let wrong = wrong.map(|(given, total)| (vec![("given", given)], total as f64));
    let help = "Wrong secrets and keys that the HTTP API was given, by what they were.";
    each(out, ("tokencached_http_wrong_secrets", help, COUNTER), wrong)
}

fn encode_fetch_durations(out: &mut DescriptorEncoder<'_>, context: &ApiContext) -> EncodeResult {
    let help = "Duration of fetches, by endpoint and outcome.";
    let mut encoder = family(out, "tokencached_fetch_duration_seconds", help, MetricType::Histogram)?;
    for ((endpoint, outcome), histogram) in context.table().durations.all() {
        let bounds = DURATION_BOUNDS_MS.iter().map(|ms| *ms as f64 / 1000.0).chain([f64::INFINITY]);
        let buckets: Vec<(f64, u64)> = bounds.zip(histogram.buckets).collect();
        let count = histogram.buckets.iter().sum();
        let labels = vec![("endpoint", endpoint), ("outcome", outcome)];
        let sum_s = histogram.sum_ms as f64 / 1000.0;
        encoder.encode_family(&labels)?.encode_histogram::<NoLabelSet>(sum_s, count, &buckets, None)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::future::poll_fn;

    use hyper::body::Body as _;

    use super::*;

    fn text(permit: OwnedSemaphorePermit) -> ScrapeBody {
        let left = Bytes::from(vec![b'x'; PIECE_BYTES + 1]);
        ScrapeBody { left, deadline: Box::pin(tokio::time::sleep(SEND_MAX)), _permit: permit }
    }

    #[tokio::test(start_paused = true)]
    async fn a_scrape_that_is_not_taken_in_time_makes_room_for_another() {
        let turns = Arc::new(tokio::sync::Semaphore::new(1));
        let mut scrape = text(turns.clone().acquire_owned().await.unwrap());
        let mut next = async || poll_fn(|cx| Pin::new(&mut scrape).poll_frame(cx)).await;
        assert_eq!(next().await.unwrap().unwrap().into_data().unwrap().len(), PIECE_BYTES);
        tokio::time::advance(SEND_MAX).await;
        assert!(next().await.unwrap().is_err());
        assert_eq!(turns.available_permits(), 0);
        drop(scrape);
        assert_eq!(turns.available_permits(), 1);
    }
}
