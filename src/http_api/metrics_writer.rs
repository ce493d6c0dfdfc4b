//! Writes families of metrics in OpenMetrics, by their present names or by those of before.

use std::fmt::{Debug, Write};

use super::old_metric_names::{old_label, old_name};
use crate::stats::{Figure, Metric, MetricType, by_names};

pub type Label<'l> = (&'static str, &'l str);
pub type Labels<'l> = Vec<Label<'l>>;

/// These labels and one more.
pub fn with_label<'l>(labels: &[Label<'l>], label: &'static str, value: &'l str) -> Labels<'l> {
    [labels, &[(label, value)]].concat()
}

pub struct MetricsWriter {
    text: String,
    has_old_names: bool,
}

impl MetricsWriter {
    pub fn new(has_old_names: bool) -> MetricsWriter {
        MetricsWriter { text: String::new(), has_old_names }
    }

    pub fn finish(self) -> String {
        self.text + "# EOF\n"
    }

    pub fn value(&mut self, metric: Metric<'_>, value: f64) {
        self.family(metric, [(Vec::new(), value)]);
    }

    /// A family and its series. The value of an info is 1.
    pub fn family<'l>(&mut self, metric: Metric<'_>, series: impl IntoIterator<Item = (Labels<'l>, f64)>) {
        self.begin(&metric);
        for (labels, value) in series {
            match metric.metric_type {
                MetricType::Counter => self.push(&metric, "_total", &labels, &value),
                MetricType::Info => self.push(&metric, "_info", &labels, &1),
                MetricType::Gauge | MetricType::Histogram => self.push(&metric, "", &labels, &value),
            }
        }
    }

    /// Of each its labels, the sum, and the counts up to each bound and no earlier one.
    pub fn histograms<'l>(
        &mut self,
        metric: Metric<'_>,
        series: impl IntoIterator<Item = (Labels<'l>, f64, Vec<(f64, u64)>)>,
    ) {
        self.begin(&metric);
        for (labels, sum, buckets) in series {
            self.push(&metric, "_sum", &labels, &sum);
            self.push(&metric, "_count", &labels, &buckets.iter().map(|(_, count)| count).sum::<u64>());
            let mut below = 0;
            for (bound, count) in buckets {
                below += count;
                let bound = if bound.is_finite() { format!("{bound:?}") } else { "+Inf".to_owned() };
                self.push(&metric, "_bucket", &[&[("le", bound.as_str())], &labels[..]].concat(), &below);
            }
        }
    }

    /// Figures without labels; 0 where there is none.
    pub fn figures<'f, T: 'f>(&mut self, figures: impl Iterator<Item = &'f Figure<T>>, of: &T) {
        for (figure, metric) in figures.filter_map(|figure| Some((figure, figure.metric?))) {
            self.value(metric, (figure.read)(of).number().unwrap_or(0.0));
        }
    }

    /// The figures with these names of several things that have labels; no series where there is none.
    pub fn labelled_figures<'l, T: 'l>(
        &mut self,
        table: &[Figure<T>],
        names: &'static str,
        all: impl Iterator<Item = &'l (Labels<'l>, T)> + Clone,
    ) {
        for (figure, metric) in by_names(table, names).filter_map(|figure| Some((figure, figure.metric?))) {
            let read = |(labels, of): &'l (Labels<'l>, T)| Some((labels.clone(), (figure.read)(of).number()?));
            self.family(metric, all.clone().filter_map(read));
        }
    }

    fn begin(&mut self, metric: &Metric<'_>) {
        let name = if self.has_old_names { old_name(metric.name) } else { metric.name };
        let metric_type = match metric.metric_type {
            MetricType::Counter => "counter",
            MetricType::Gauge => "gauge",
            MetricType::Info => "info",
            MetricType::Histogram => "histogram",
        };
        self.text.extend(["# HELP ", name, " ", metric.help, "\n# TYPE ", name, " ", metric_type, "\n"]);
    }

    /// A number is written as [`Debug`] has it: `1.0` is no `1`.
    fn push(&mut self, metric: &Metric<'_>, ending: &str, labels: &[Label<'_>], value: &dyn Debug) {
        let name = if self.has_old_names { old_name(metric.name) } else { metric.name };
        self.text.extend([name, ending]);
        for (at, (label, value)) in labels.iter().enumerate() {
            let (label, value) =
                if self.has_old_names { old_label(metric.name, label, value) } else { (*label, *value) };
            let value = value.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n");
            self.text.extend([if at == 0 { "{" } else { "," }, label, "=\"", &value, "\""]);
        }
        let close = if labels.is_empty() { "" } else { "}" };
        // Writing to a String cannot fail.
        let _ = writeln!(self.text, "{close} {value:?}");
    }
}
