//! The metrics of the sinks, by their number in the configuration and their type.

use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;

use prometheus_client::encoding::DescriptorEncoder;
use prometheus_client::metrics::MetricType;

use super::metrics::{COUNTER, EncodeResult, GAUGE, Labels, each};
use crate::stats::SinkStats;

type SinkFigure = fn(&SinkStats) -> f64;

/// Name, help, type, figure.
const FAMILIES: &[(&str, &str, MetricType, SinkFigure)] = &[
    ("tokencached_sink_connected", "Whether the sink's target can be used at present.", GAUGE, |sink| {
        f64::from(u8::from(sink.connected.load(Relaxed)))
    }),
    ("tokencached_sink_waiting", "Credentials that are still to be written to the sink.", GAUGE, |sink| {
        sink.waiting.load(Relaxed) as f64
    }),
    (
        "tokencached_sink_failing",
        "Whether a write has failed and not everything has been written since.",
        GAUGE,
        |sink| f64::from(u8::from(sink.last_error().is_some())),
    ),
    ("tokencached_sink_writes", "Keys, files and rows written, and commands run.", COUNTER, |sink| {
        sink.writes.load(Relaxed) as f64
    }),
    ("tokencached_sink_deletes", "Keys, files and rows removed or marked as expired.", COUNTER, |sink| {
        sink.deletes.load(Relaxed) as f64
    }),
    (
        "tokencached_sink_foreign_writes",
        "Tokens found in the target that another program had written over ours.",
        COUNTER,
        |sink| sink.foreign_writes.load(Relaxed) as f64,
    ),
    (
        "tokencached_sink_last_write_timestamp_seconds",
        "Time of the last write, seconds since 1970; 0 means never.",
        GAUGE,
        |sink| sink.last_write().map_or(0.0, |write| write.at_unix_ms as f64 / 1000.0),
    ),
];

/// Encodes the metrics of all sinks.
pub fn encode(out: &mut DescriptorEncoder<'_>, sinks: &[Arc<SinkStats>]) -> EncodeResult {
    let numbers: Vec<String> = (0..sinks.len()).map(|number| number.to_string()).collect();
    let all = || numbers.iter().map(String::as_str).zip(sinks);
    let labels = |number, sink: &Arc<SinkStats>| -> Labels<'_> { vec![("sink", number), ("type", sink.sink_type)] };
    let help = "Where the sink writes values to.";
    let mut targets = out.encode_descriptor("tokencached_sink", help, None, MetricType::Info)?;
    for (number, sink) in all() {
        let mut labels = labels(number, sink);
        labels.push(("target", sink.target.as_str()));
        targets.encode_info(&labels)?;
    }
    for (name, help, metric_type, figure) in FAMILIES {
        each(out, (name, help, *metric_type), all().map(|(number, sink)| (labels(number, sink), figure(sink))))?;
    }
    let failures = all().flat_map(|(number, sink)| {
        let of_class = move |(class, count): (&'static str, u64)| {
            (vec![("sink", number), ("type", sink.sink_type), ("class", class)], count as f64)
        };
        sink.failures().into_iter().map(of_class)
    });
    each(out, ("tokencached_sink_failures", "Failures, by class.", COUNTER), failures)
}
