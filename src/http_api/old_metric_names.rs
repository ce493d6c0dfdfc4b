//! The metric names of before: what `/metrics` gives with `?old_names=1` or `old_metric_names = true`, so that an old
//! dashboard and old alerts go on working. `?old_names=0` gives the new ones all the same. Pure.
//!
//! Nothing else knows the old names: the code, the dashboard and the alerts use the new ones.

/// The old and the new name of each family that was renamed, without `_total`. `docs/en/http-api.md` has the same table.
pub const FAMILIES: &[(&str, &str)] = &[
    ("tokencached_checks", "tokencached_verifications"),
    ("tokencached_client_checks", "tokencached_client_verifications"),
    ("tokencached_client_checks_refused", "tokencached_client_verifications_denied"),
    ("tokencached_passive_refreshes", "tokencached_reports"),
    ("tokencached_platform_checks", "tokencached_platform_verifications"),
    ("tokencached_platform_passive_refreshes", "tokencached_platform_reports"),
    ("tokencached_platform_rival_writes", "tokencached_platform_foreign_writes"),
    ("tokencached_rival_writes", "tokencached_foreign_writes"),
    ("tokencached_shared_state_age_seconds", "tokencached_cluster_age_seconds"),
    ("tokencached_shared_state_forged_counts", "tokencached_cluster_forged_counts"),
    ("tokencached_shared_state_forged_values", "tokencached_cluster_forged_values"),
    ("tokencached_shared_state_kept", "tokencached_cluster_enabled"),
    ("tokencached_shared_state_up", "tokencached_cluster_up"),
    ("tokencached_side_accepted_connections", "tokencached_http_accepted_connections"),
    ("tokencached_side_current_connections", "tokencached_http_current_connections"),
    ("tokencached_side_evicted_connections", "tokencached_http_evicted_connections"),
    ("tokencached_side_rejected_connections", "tokencached_http_rejected_connections"),
    ("tokencached_state_file_kept", "tokencached_state_file_enabled"),
];

/// The old and the new text of each label, or value of a label, that was renamed.
pub const LABELS: &[(&str, &str)] = &[
    ("kind=\"", "type=\""),
    ("outcome=\"own-bug\"", "outcome=\"internal\""),
    ("class=\"own-bug\"", "class=\"internal\""),
];

/// Families that had these labels before, too: a sink has a type of its own.
const UNCHANGED: &str = "tokencached_sink";

pub fn old_name(name: &str) -> &str {
    FAMILIES.iter().find(|(_, new)| *new == name).map_or(name, |(old, _)| old)
}

/// A label of this family as it was called and written before.
pub fn old_label<'l>(family: &str, label: &'l str, value: &'l str) -> (&'l str, &'l str) {
    let parts = |text: &'static str| text.split_once("=\"").map(|(label, value)| (label, value.trim_end_matches('"')));
    let pairs = LABELS.iter().filter_map(|(old, new)| parts(old).zip(parts(new)));
    let mut renamed = pairs.filter(|(_, new)| new.0 == label && (new.1.is_empty() || new.1 == value));
    match renamed.next() {
        Some((old, new)) if !family.starts_with(UNCHANGED) => (old.0, if new.1.is_empty() { value } else { old.1 }),
        _ => (label, value),
    }
}

#[cfg(test)]
mod tests {
    use super::super::metrics_writer::{Labels, MetricsWriter};
    use super::*;
    use crate::stats::{Metric, MetricType};

    type TestFamily = (&'static str, MetricType, &'static str, Labels<'static>);

    #[test]
    fn names_labels_and_values_are_the_old_ones_and_texts_stay_as_they_are() {
        use MetricType::{Counter, Gauge, Info};
        let app = || [("app", "wx1"), ("type", "access_token")];
        let outcome = [app().as_slice(), &[("outcome", "internal")]].concat();
        let platform = vec![("platform", "mp"), ("type", "access_token"), ("class", "internal")];
        let sink = vec![("sink", "0"), ("type", "file"), ("class", "internal")];
        let other = vec![("app", "class="), ("outcome", "internal"), ("subtype", "c"), ("class", "internally")];
        let families: Vec<TestFamily> = vec![
            ("tokencached_reports", Counter, "Reports with type=\"x\".", app().into()),
            ("tokencached_fetches", Counter, "Fetches.", outcome),
            ("tokencached_sink_failures", Counter, "Failures.", sink),
            ("tokencached_app", Info, "Names.", vec![("app", "中文,type="), ("name", "a,type=\"b\"} c\\")]),
            ("tokencached_credentials_failing", Gauge, "Failing.", platform),
            ("tokencached_calls", Counter, "Calls.", other),
            ("tokencached_cluster_up", Gauge, "Up.", Vec::new()),
        ];
        let text = |has_old_names| {
            let mut out = MetricsWriter::new(has_old_names);
            for (name, metric_type, help, labels) in families.clone() {
                out.family(Metric { name, metric_type, help }, [(labels, 3.0)]);
            }
            out.finish()
        };
        let new = text(false);
        let app = "{app=\"中文,type=\",name=\"a,type=\\\"b\\\"} c\\\\\"} 1\n";
        assert!(new.contains(&format!("\ntokencached_app_info{app}")), "{new}");
        assert!(new.contains("\ntokencached_reports_total{app=\"wx1\",type=\"access_token\"} 3.0\n"), "{new}");
        let old = new
            .replace("tokencached_reports", "tokencached_passive_refreshes")
            .replace("tokencached_cluster_up", "tokencached_shared_state_up")
            .replace(",type=\"access", ",kind=\"access")
            .replace("outcome=\"internal\"", "outcome=\"own-bug\"")
            .replace("kind=\"access_token\",class=\"internal\"}", "kind=\"access_token\",class=\"own-bug\"}");
        assert_eq!(text(true), old);
    }

    #[test]
    fn no_name_is_both_old_and_new() {
        for (old, new) in FAMILIES {
            assert!(FAMILIES.iter().all(|(_, other)| other != old), "{old}");
            assert_eq!(FAMILIES.iter().filter(|(_, other)| other == new).count(), 1, "{new}");
        }
    }
}
