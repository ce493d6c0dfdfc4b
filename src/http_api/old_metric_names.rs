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

/// The same metrics by their old names.
pub fn translate(metrics: &str) -> String {
    let mut old = String::with_capacity(metrics.len());
    for line in metrics.split_inclusive('\n') {
        let comment = ["# HELP ", "# TYPE "].into_iter().find(|begin| line.starts_with(begin)).unwrap_or("");
        let rest = line.strip_prefix(comment).unwrap_or(line);
        let (name, rest) = rest.split_at_checked(rest.find([' ', '{']).unwrap_or(rest.len())).unwrap_or((rest, ""));
        old.push_str(comment);
        push_name(&mut old, name);
        if comment.is_empty() && !name.starts_with(UNCHANGED) {
            push_labels(&mut old, rest);
        } else {
            old.push_str(rest);
        }
    }
    old
}

fn push_name(out: &mut String, name: &str) {
    let (family, ending) = name.strip_suffix("_total").map_or((name, ""), |family| (family, "_total"));
    out.push_str(FAMILIES.iter().find(|(_, new)| *new == family).map_or(family, |(old, _)| old));
    out.push_str(ending);
}

/// Adds the labels at the beginning of `rest` by their old names, and what follows them as it is.
fn push_labels(out: &mut String, mut rest: &str) {
    while let Some((separator, label, after)) = split_label(rest) {
        let renamed = LABELS.iter().find_map(|(old, new)| Some((*old, label.strip_prefix(new)?)));
        let (begin, end) = renamed.unwrap_or(("", label));
        out.extend([separator, begin, end]);
        rest = after;
    }
    out.push_str(rest);
}

/// The `{` or `,` before a label, the label with its value, and what follows. What is inside a value is no label.
fn split_label(text: &str) -> Option<(&str, &str, &str)> {
    let (separator, label) = text.split_at_checked(1).filter(|(separator, _)| matches!(*separator, "{" | ","))?;
    let value = label.find("=\"")? + 2;
    let mut escaped = false;
    let length = label.bytes().skip(value).position(|byte| {
        let ends = byte == b'"' && !escaped;
        escaped = byte == b'\\' && !escaped;
        ends
    })?;
    let (label, after) = label.split_at_checked(value + length + 1)?;
    Some((separator, label, after))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_labels_and_values_are_the_old_ones_and_texts_stay_as_they_are() {
        let new = "# HELP tokencached_reports Reports with type=\"x\".\n\
            # TYPE tokencached_reports counter\n\
            tokencached_reports_total{app=\"wx1\",type=\"access_token\"} 3\n\
            tokencached_fetches_total{app=\"wx1\",type=\"access_token\",outcome=\"internal\"} 0\n\
            tokencached_sink_failures_total{sink=\"0\",type=\"file\",class=\"internal\"} 1\n\
            tokencached_app_info{app=\"wx1\",name=\"a,type=\\\"b\\\"} c\"} 1\n\
            tokencached_credentials_failing{platform=\"mp\",type=\"access_token\",class=\"internal\"} 0.0\n\
            tokencached_cluster_up 1.0\n\
            # EOF\n";
        let old = new
            .replace("tokencached_reports", "tokencached_passive_refreshes")
            .replace("tokencached_cluster_up", "tokencached_shared_state_up")
            .replace(",type=\"access", ",kind=\"access")
            .replace("outcome=\"internal\"", "outcome=\"own-bug\"")
            .replace("class=\"internal\"} 0.0", "class=\"own-bug\"} 0.0");
        assert_eq!(translate(new), old);
    }

    #[test]
    fn a_label_inside_a_value_is_no_label() {
        let new = [
            r#"tokencached_reports_total{app="shop,type=",type="access_token"} 3"#,
            r#"tokencached_reports_total{app="{type=",type="a"} 3"#,
            r#"tokencached_app_info{app="wx1",name="outcome=\",type=\"x\\"} 1"#,
            r#"tokencached_app_info{app="wx1",name="a\\",type="b"} 1"#,
            r#"tokencached_fetches_total{app="class=",outcome="internal",subtype="c",class="internally"} 1 2"#,
            r#"tokencached_app_info{app="中文,type=",type="} ,type="} 1"#,
            r#"tokencached_app_info{} 1"#,
            "",
        ];
        let old = [
            r#"tokencached_passive_refreshes_total{app="shop,type=",kind="access_token"} 3"#,
            r#"tokencached_passive_refreshes_total{app="{type=",kind="a"} 3"#,
            r#"tokencached_app_info{app="wx1",name="outcome=\",type=\"x\\"} 1"#,
            r#"tokencached_app_info{app="wx1",name="a\\",kind="b"} 1"#,
            r#"tokencached_fetches_total{app="class=",outcome="own-bug",subtype="c",class="internally"} 1 2"#,
            r#"tokencached_app_info{app="中文,type=",kind="} ,type="} 1"#,
            r#"tokencached_app_info{} 1"#,
            "",
        ];
        assert_eq!(translate(&new.join("\n")), old.join("\n"));
    }

    #[test]
    fn no_name_is_both_old_and_new() {
        for (old, new) in FAMILIES {
            assert!(FAMILIES.iter().all(|(_, other)| other != old), "{old}");
            assert_eq!(FAMILIES.iter().filter(|(_, other)| other == new).count(), 1, "{new}");
        }
    }
}
