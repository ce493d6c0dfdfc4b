//! `/metrics` in OpenMetrics: what prometheus/memcached_exporter gives, by its names, and this server's own metrics.
//! The figures are those of `stats`, read at each scrape.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use axum::body::{Body, Bytes};
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use hyper::body::{Frame, SizeHint};
use tokio::sync::OwnedSemaphorePermit;
use tokio::time::Sleep;

use super::call::HttpApiCall;
use super::connections::HttpConnections;
use super::context::ApiContext;
use super::credential_metrics;
use super::metrics_writer::{Label, Labels, MetricsWriter, with_label};
use super::problem::Problem;
use crate::access::Rights;
use crate::clock::Now;
use crate::credential::facts::DURATION_BOUNDS_MS;
use crate::credential::table::Table;
use crate::service::figures::{ClassSample, ServerSample, SinkSample};
use crate::service::{MEMCACHED_VERSION, Service};
use crate::stats::{Figure, Metric, MetricType, Stats, by_names, figures};

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
pub async fn scrape(call: HttpApiCall) -> Result<Response, Problem> {
    let params = call.params(&["old_names"])?;
    call.caller.require_status()?;
    let context = call.context;
    let old_names = params.choice("old_names")?.unwrap_or(context.settings.old_metric_names);
    let turn = tokio::time::timeout(WAIT_MAX, context.scrapes.clone().acquire_owned()).await;
    let Ok(Ok(permit)) = turn else {
        return Err(Problem::busy("other scrapes are still being written or taken", 5));
    };
    let written = tokio::task::spawn_blocking(move || write_all(&context, old_names)).await;
    let Ok(text) = written else {
        let detail = "the metrics could not be written";
        return Err(Problem::new(StatusCode::INTERNAL_SERVER_ERROR, "internal", detail));
    };
    let deadline = Box::pin(tokio::time::sleep(SEND_MAX));
    let scrape = Body::new(ScrapeBody { left: Bytes::from(text), deadline, _permit: permit });
    let content_type = "application/openmetrics-text; version=1.0.0; charset=utf-8";
    Ok(([(header::CONTENT_TYPE, content_type)], scrape).into_response())
}

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

fn write_all(context: &ApiContext, has_old_names: bool) -> String {
    let (service, now) = (&context.service, Now::read());
    let mut out = MetricsWriter::new(has_old_names);
    let of = ServerSample::of(service, &Rights::ALL, now);
    let figures = |names| by_names(ServerSample::FIGURES, names);
    out.value(Metric::gauge("memcached_up", "Whether the server answers."), 1.0);
    let version = [(vec![("version", MEMCACHED_VERSION)], 1.0)];
    out.family(Metric::gauge("memcached_version", "The version that clients are told."), version);
    out.figures(figures(ServerSample::MEMCACHED_METRICS), &of);
    let by_result = commands(ServerSample::FIGURES, &[], &of);
    out.family(Metric::counter("memcached_commands", "Commands, by name and result."), by_result);
    write_classes(&mut out, service);
    let build = [(vec![("version", env!("CARGO_PKG_VERSION"))], 1.0)];
    out.family(Metric::info("tokencached_build", "The version of this server."), build);
    out.figures(figures(ServerSample::OWN_METRICS), &of);
    write_http(&mut out, context);
    let (setting, apps) = (context.settings.metrics_per_credential, context.apps.len());
    credential_metrics::write(&mut out, &context.table().credentials(), setting, apps, now);
    write_fetch_durations(&mut out, context.table());
    write_sinks(&mut out, &service.stats, now);
    out.finish()
}

/// Commands by name and result, as far as the table has figures that are called after them.
fn commands<'l, T>(table: &[Figure<T>], labels: &[Label<'l>], of: &T) -> Vec<(Labels<'l>, f64)> {
    let number = |name: &str| (table.iter().find(|figure| figure.name == name)?.read)(of).number();
    let mut counts = Vec::new();
    for command in ["get", "delete", "incr", "decr", "cas", "touch"] {
        counts.push((command, "hit", number(&format!("{command}_hits"))));
        counts.push((command, "miss", number(&format!("{command}_misses"))));
    }
    counts.push(("cas", "badval", number("cas_badval")));
    counts.push(("flush", "hit", number("cmd_flush")));
    // `cmd_set` counts cas commands, too.
    let cas: f64 = ["cas_misses", "cas_hits", "cas_badval"].into_iter().filter_map(number).sum();
    counts.push(("set", "hit", number("cmd_set").map(|sets| (sets - cas).max(0.0))));
    let labelled = |command, status| [labels, &[("command", command), ("status", status)]].concat();
    counts.into_iter().filter_map(|(command, status, count)| Some((labelled(command, status), count?))).collect()
}

fn write_classes(out: &mut MetricsWriter, service: &Service) {
    let classes = ClassSample::all(service);
    let numbers: Vec<String> = classes.iter().map(|of| of.class.to_string()).collect();
    let all: Vec<(Labels<'_>, ClassSample)> =
        numbers.iter().map(|number| vec![("slab", number.as_str())]).zip(classes).collect();
    let with_items = || all.iter().filter(|(_, of)| of.has_items());
    out.labelled_figures(ClassSample::ITEMS, ClassSample::ITEM_METRICS, with_items());
    out.labelled_figures(ClassSample::SLABS, ClassSample::SLAB_METRICS, all.iter());
    let hits = with_items().flat_map(|(labels, of)| {
        let queues = by_names(ClassSample::ITEMS, ClassSample::QUEUE_HITS).zip(["hot", "warm", "cold", "temporary"]);
        queues.map(|(hits, queue)| (with_label(labels, "lru", queue), (hits.read)(of).number().unwrap_or(0.0)))
    });
    out.family(Metric::counter("memcached_slab_lru_hits", "Items read, by queue."), hits);
    let by_result = all.iter().flat_map(|(labels, of)| commands(ClassSample::SLABS, labels, of));
    out.family(Metric::counter("memcached_slab_commands", "Commands, by slab class, name and result."), by_result);
}

/// The connections of the HTTP API; the status page shows the first.
const HTTP: &[Figure<HttpConnections>] = figures! { |of|
    absent:
        tokencached_http_current_connections = &of.current
            => gauge tokencached_http_current_connections "Open connections of the HTTP API.",
        tokencached_http_accepted_connections = &of.total
            => counter tokencached_http_accepted_connections "Connections that the HTTP API has accepted.",
        tokencached_http_rejected_connections = &of.rejected => counter tokencached_http_rejected_connections
            "Connections that the HTTP API has refused because there were too many.",
        tokencached_http_evicted_connections = &of.evicted => counter tokencached_http_evicted_connections
            "Connections that the HTTP API has closed before they had sent a request, to make room.";
};

fn write_http(out: &mut MetricsWriter, context: &ApiContext) {
    out.figures(HTTP.iter(), &*context.connections);
    let wrong = context.reload_handle.access_control.wrong_secrets.totals();
    let wrong = wrong.map(|(given, total)| (vec![("given", given)], total as f64));
    let help = "Wrong secrets and keys that the HTTP API was given, by what they were.";
    out.family(Metric::counter("tokencached_http_wrong_secrets", help), wrong);
}

fn write_fetch_durations(out: &mut MetricsWriter, table: &Table) {
    let series = table.durations.all().into_iter().map(|((endpoint, outcome), histogram)| {
        let bounds = DURATION_BOUNDS_MS.iter().map(|ms| *ms as f64 / 1000.0).chain([f64::INFINITY]);
        let labels = vec![("endpoint", endpoint), ("outcome", outcome)];
        (labels, histogram.sum_ms as f64 / 1000.0, bounds.zip(histogram.buckets).collect())
    });
    let (name, help) = ("tokencached_fetch_duration_seconds", "Duration of fetches, by endpoint and outcome.");
    out.histograms(Metric { name, metric_type: MetricType::Histogram, help }, series);
}

/// The sinks, by their number in the configuration and their type.
fn write_sinks(out: &mut MetricsWriter, stats: &Stats, now: Now) {
    let sinks = stats.sinks();
    let numbers: Vec<String> = (0..sinks.len()).map(|number| number.to_string()).collect();
    let all: Vec<(Labels<'_>, SinkSample<'_>)> = std::iter::zip(&numbers, &sinks)
        .map(|(number, sink)| {
            (vec![("sink", number.as_str()), ("type", sink.sink_type)], SinkSample::of(sink, &Rights::ALL, now))
        })
        .collect();
    let targets = all.iter().map(|(labels, of)| (with_label(labels, "target", &of.sink.target), 1.0));
    out.family(Metric::info("tokencached_sink", "Where the sink writes values to."), targets);
    out.labelled_figures(SinkSample::FIGURES, SinkSample::METRICS, all.iter());
    let failures = all.iter().flat_map(|(labels, of)| {
        of.failures.iter().map(|(class, count)| (with_label(labels, "class", class), *count as f64))
    });
    out.family(Metric::counter("tokencached_sink_failures", "Failures, by class."), failures);
}

#[cfg(test)]
mod tests {
    use std::future::poll_fn;
    use std::sync::Arc;

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
