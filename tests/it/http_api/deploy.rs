//! `/metrics`: every name that the exporter gives, every figure that moves, and every name that `deploy/` uses.

use std::collections::{BTreeMap, BTreeSet};

use super::{API_HEADER, HttpNode, credential};
use crate::support::{APPID, Wechat, wait_for};

/// A scrape: series with labels -> value.
struct Scrape {
    series: BTreeMap<String, f64>,
}

impl Scrape {
    fn of(http: &HttpNode) -> Scrape {
        let answer = http.get("/metrics", &[]);
        assert_eq!(answer.headers["content-type"], "application/openmetrics-text; version=1.0.0; charset=utf-8");
        assert!(answer.body.ends_with("# EOF\n"), "{}", answer.body);
        let mut families = BTreeSet::new();
        for line in answer.body.lines().filter_map(|line| line.strip_prefix("# TYPE ")) {
            assert!(families.insert(line.split(' ').next().unwrap().to_owned()), "{line} comes twice");
        }
        let lines = answer.body.lines().filter(|line| !line.starts_with('#'));
        let series = lines.map(|line| {
            let (name, value) = line.rsplit_once(' ').unwrap();
            (name.to_owned(), value.parse().unwrap_or_else(|_| panic!("{line}")))
        });
        Scrape { series: series.collect() }
    }

    fn names(&self) -> BTreeSet<&str> {
        self.series.keys().map(|series| series.split('{').next().unwrap()).collect()
    }

    #[track_caller]
    fn value(&self, series: &str) -> f64 {
        *self.series.get(series).unwrap_or_else(|| panic!("no {series} in {:#?}", self.series.keys()))
    }
}

/// What prometheus/memcached_exporter 0.15 gives of a memcached without extstore, proxy and LRU crawler.
const OF_THE_EXPORTER: &str = "up uptime_seconds time_seconds version process_user_cpu_seconds_total \
    process_system_cpu_seconds_total read_bytes_total written_bytes_total current_connections max_connections \
    connections_total connections_rejected_total connections_yielded_total connections_listener_disabled_total \
    current_bytes limit_bytes commands_total current_items items_total items_evicted_total items_reclaimed_total \
    item_too_large_total item_no_memory_total direct_reclaims_total lru_crawler_starts_total \
    lru_crawler_reclaimed_total lru_crawler_items_checked_total lru_crawler_moves_to_cold_total \
    lru_crawler_moves_to_warm_total lru_crawler_moves_within_lru_total malloced_bytes accepting_connections \
    slab_current_items slab_items_age_seconds slab_items_crawler_reclaimed_total slab_items_evicted_total \
    slab_items_evicted_nonzero_total slab_items_evicted_time_seconds slab_items_evicted_unfetched_total \
    slab_items_expired_unfetched_total slab_items_outofmemory_total slab_items_reclaimed_total \
    slab_items_tailrepairs_total slab_items_moves_to_cold slab_items_moves_to_warm slab_items_moves_within_lru \
    slab_hot_items slab_warm_items slab_cold_items slab_temporary_items slab_hot_age_seconds slab_warm_age_seconds \
    slab_lru_hits_total slab_chunk_size_bytes slab_chunks_per_page slab_current_pages slab_current_chunks \
    slab_chunks_used slab_chunks_free slab_chunks_free_end slab_mem_requested_bytes slab_commands_total";

/// One that is written and one that fails.
const SINKS: &str = "[[sink]]\ncommand = [\"/bin/true\"]\n[[sink]]\ntypes = [\"access_token\"]\ncommand = [\"/bin/false\", \"{type}\"]\n";

fn busy() -> (Wechat, HttpNode) {
    busy_with("")
}

fn busy_with(setting: &str) -> (Wechat, HttpNode) {
    let wechat = Wechat::start();
    let app = "name = \"Shop\"\naliases = [\"access_token\"]\ntickets = [\"jsapi\"]";
    let http = HttpNode::start(&wechat, setting, "", &format!("{app}\n{SINKS}"));
    http.token(&[API_HEADER]);
    wait_for("all", || (http.get("/readyz?strict", &[]).status == 200).then_some(()));
    let mut client = http.node.connect();
    wait_for("a failure", || (client.stat("", "sink_1_last_error")? == "exit").then_some(()));
    client.expect("set k 0 0 1\r\nx\r\nget k\r\nget none\r\n", "STORED\r\nVALUE k 0 1\r\nx\r\nEND\r\nEND\r\n");
    client.expect("set access_token 0 0 20\r\na-token-of-their-own\r\n", "NOT_STORED\r\n");
    client.get("access_token").unwrap();
    (wechat, http)
}

#[test]
fn everything_that_memcached_exporter_gives_is_there_by_its_name() {
    let (_wechat, http) = busy();
    let scrape = Scrape::of(&http);
    let names = scrape.names();
    let missing: Vec<&str> = OF_THE_EXPORTER
        .split_whitespace()
        .filter(|name| !names.contains(format!("memcached_{name}").as_str()))
        .collect();
    assert!(missing.is_empty(), "{missing:?}");
}

#[test]
fn figures_are_those_of_stats() {
    let (_wechat, http) = busy();
    let scrape = Scrape::of(&http);
    assert_eq!(scrape.value("memcached_commands_total{command=\"get\",status=\"hit\"}"), 2.0);
    assert_eq!(scrape.value("memcached_commands_total{command=\"get\",status=\"miss\"}"), 1.0);
    assert_eq!(scrape.value("memcached_current_items"), 1.0);
    assert_eq!(scrape.value("tokencached_managed_hits_total"), 1.0);
    let limit: f64 = http.node.connect().stat("", "limit_maxbytes").unwrap().parse().unwrap();
    assert_eq!(scrape.value("memcached_limit_bytes"), limit);
    assert_eq!(scrape.value(&format!("tokencached_build_info{{version=\"{}\"}}", env!("CARGO_PKG_VERSION"))), 1.0);
    assert_eq!(
        (scrape.value("tokencached_state_file_enabled"), scrape.value("tokencached_state_file_healthy")),
        (1.0, 1.0)
    );
}

#[test]
fn each_credential_has_its_figures() {
    let (_wechat, http) = busy();
    let of = |name: &str, more: &str| format!("tokencached_{name}{{app=\"{APPID}\",type=\"access_token\"{more}}}");
    let first = Scrape::of(&http);
    let left = first.value(&of("credential_seconds_left", ""));
    assert!((7_000.0..=7_200.0).contains(&left), "{left}");
    assert_eq!(first.value(&of("credential_live", "")), 1.0);
    assert_eq!(first.value(&of("credential_state", ",state=\"fresh\"")), 1.0);
    assert_eq!(first.value(&of("credential_state", ",state=\"dead\"")), 0.0);
    assert_eq!(first.value(&of("fetches_total", ",outcome=\"new\"")), 1.0);
    assert_eq!((first.value(&of("quota_used", "")), first.value(&of("quota_limit", ""))), (1.0, 500_000.0));
    assert_eq!(
        (first.value(&of("refused_writes_total", "")), first.value(&of("foreign_writes_total", ""))),
        (1.0, 1.0)
    );
    let count = |scrape: &Scrape, outcome: &str| {
        let name = "tokencached_fetch_duration_seconds_count";
        let series = format!("{name}{{endpoint=\"stable_token\",outcome=\"{outcome}\"}}");
        scrape.series.get(&series).copied().unwrap_or(0.0)
    };
    assert_eq!(count(&first, "new"), 1.0);
    let verdict = http.post(&credential("access_token", "/refresh"), &[API_HEADER], "").json();
    let second = Scrape::of(&http);
    assert_eq!(second.value(&of("reports_total", "")), 1.0, "{verdict}");
    let buckets = second.series.iter().filter(|(name, _)| {
        name.contains("duration_seconds_bucket{le=\"+Inf\"")
            || (name.contains("duration_seconds_bucket") && name.contains("+Inf"))
    });
    let all: f64 = buckets.map(|(_, value)| value).sum();
    let counts = second.series.iter().filter(|(name, _)| name.starts_with("tokencached_fetch_duration_seconds_count"));
    assert_eq!(all, counts.map(|(_, value)| value).sum::<f64>(), "buckets add up");
}

#[test]
fn sinks_have_their_figures_in_metrics_and_in_the_api_and_no_token() {
    let wechat = Wechat::start();
    let http = HttpNode::start(&wechat, "", "", SINKS);
    let (token, _) = http.token(&[API_HEADER]);
    let shown = wait_for("both to have run", || {
        let status = http.get("/v1/status", &[]);
        assert!(!status.body.contains(&token[..16]), "{}", status.body);
        let sinks = status.json()["sinks"].clone();
        let has_failed = !sinks[1]["last_error"].is_null() && sinks[1]["waiting"] == 1;
        (sinks[0]["writes"] == 1 && sinks[0]["connected"] == true && has_failed).then_some(sinks)
    });
    let (good, bad) = (&shown[0], &shown[1]);
    assert_eq!((&good["type"], &good["target"]), (&"command".into(), &"/bin/true".into()));
    assert_eq!((&good["connected"], &good["waiting"], &good["last_error"]), (&true.into(), &0.into(), &().into()));
    let write = &good["last_write"];
    assert_eq!((&write["app"], &write["type"]), (&APPID.into(), &"access_token".into()));
    let error = &bad["last_error"];
    assert_eq!((&error["class"], &error["whose"]), (&"exit".into(), &"target".into()));
    assert_eq!(error["about"], format!("access_token:{APPID}"));
    assert_eq!(error["text"], "the command ended with code 1");
    assert!(error["advice"].as_str().unwrap().contains("try it by hand"), "{error}");
    assert_eq!((&bad["waiting"], &bad["last_write"], &bad["writes"]), (&1.into(), &().into(), &0.into()));
    let series = |name: &str, sink: u32| format!("tokencached_sink_{name}{{sink=\"{sink}\",type=\"command\"}}");
    // While it is tried again it does not wait.
    let waits = |scrape: &Scrape| scrape.value(&series("waiting", 1)) == 1.0;
    let scrape = wait_for("it to wait for the next try", || Some(Scrape::of(&http)).filter(waits));
    let of = |name: &str, sink: u32| scrape.value(&series(name, sink));
    assert_eq!(scrape.value("tokencached_sink_info{sink=\"1\",type=\"command\",target=\"/bin/false\"}"), 1.0);
    assert_eq!((of("writes_total", 0), of("failing", 0), of("waiting", 0), of("connected", 0)), (1.0, 0.0, 0.0, 1.0));
    assert_eq!((of("writes_total", 1), of("failing", 1), of("waiting", 1)), (0.0, 1.0, 1.0));
    assert!(of("last_write_timestamp_seconds", 0) > 1.6e9 && of("last_write_timestamp_seconds", 1) == 0.0);
    let failures = "tokencached_sink_failures_total{sink=\"1\",type=\"command\",class=\"exit\"}";
    assert!(scrape.value(failures) >= 1.0);
}

#[test]
fn totals_are_always_there_and_series_of_healthy_credentials_only_if_they_are_wanted() {
    let (_wechat, http) = busy_with("");
    let of_platform = |scrape: &Scrape, name: &str, more: &str| {
        scrape.value(&format!("tokencached_{name}{{platform=\"mp\",type=\"access_token\"{more}}}"))
    };
    let judge_totals = |scrape: &Scrape| {
        assert_eq!(of_platform(scrape, "credentials", ",state=\"fresh\""), 1.0);
        assert_eq!(of_platform(scrape, "credentials_live", ""), 1.0);
        assert_eq!(of_platform(scrape, "credentials_failing", ",class=\"operator\""), 0.0);
        assert_eq!(of_platform(scrape, "platform_fetches_total", ",outcome=\"new\""), 1.0);
        assert_eq!(of_platform(scrape, "platform_foreign_writes_total", ""), 1.0);
        let left = of_platform(scrape, "credentials_seconds_left_min", "");
        assert!((7_000.0..=7_200.0).contains(&left), "{left}");
    };
    let live =
        |credential_type: &str| format!("tokencached_credential_live{{app=\"{APPID}\",type=\"{credential_type}\"}}");
    let all = Scrape::of(&http);
    judge_totals(&all);
    assert_eq!(all.value("tokencached_series_reduced"), 0.0);
    assert_eq!((all.value(&live("access_token")), all.value(&live("jsapi_ticket"))), (1.0, 1.0));
    let (_wechat, http) = busy_with("metrics_per_credential = \"troubled\"");
    let reduced = Scrape::of(&http);
    judge_totals(&reduced);
    assert_eq!(reduced.value("tokencached_series_reduced"), 1.0);
    assert_eq!(reduced.value("tokencached_series_left_out"), 0.0);
    assert_eq!(reduced.value(&live("access_token")), 1.0, "somebody else has just written to it");
    assert!(!reduced.series.contains_key(&live("jsapi_ticket")), "nothing is wrong with it");
}

/// Words of an expression that look like a metric of ours.
fn metrics_in(text: &str) -> BTreeSet<String> {
    let words = text.split(|c: char| !(c.is_ascii_alphanumeric() || c == '_'));
    words.filter(|word| word.starts_with("tokencached_") || word.starts_with("memcached_")).map(str::to_owned).collect()
}

#[test]
fn every_metric_that_alerts_and_dashboard_name_is_in_a_scrape() {
    for setting in ["", "metrics_per_credential = \"all\"", "metrics_per_credential = \"troubled\""] {
        // The foreign writer's write is trouble, so the app has series in each case.
        let (_wechat, http) = busy_with(setting);
        judge_names(&Scrape::of(&http));
    }
}

/// In the table of metrics a row may go on with endings: a name, then `_live`.
#[test]
fn a_metric_of_ours_is_in_the_manual() {
    let (_wechat, http) = busy();
    let path = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/en/http-api.md");
    let manual = std::fs::read_to_string(path).unwrap();
    let rows: Vec<Vec<&str>> = manual
        .lines()
        .filter(|line| line.starts_with("| `tokencached_"))
        .map(|line| line.split('|').nth(1).unwrap().split('`').skip(1).step_by(2).collect())
        .collect();
    let bare = |span: &str| span.split('{').next().unwrap().to_owned();
    let is_in = |row: &[&str], name: &str| {
        let first = bare(row[0]);
        row.iter().map(|span| bare(span)).any(|span| {
            let begins = || name.strip_suffix(&span).is_some_and(|beginning| first.starts_with(beginning));
            span == name || (span.starts_with('_') && begins())
        })
    };
    let answer = http.get("/metrics", &[]).body;
    let types = answer.lines().filter_map(|line| line.strip_prefix("# TYPE ")?.split_once(' '));
    let names = types.filter(|(name, _)| name.starts_with("tokencached_"));
    let mut count = 0;
    for (name, of_type) in names {
        let ending = match of_type {
            "counter" => "_total",
            "info" => "_info",
            _ => "",
        };
        let full = format!("{name}{ending}");
        assert!(rows.iter().any(|row| is_in(row, &full)), "docs/en/http-api.md does not explain {full}");
        assert!(answer.contains(&format!("# HELP {name} ")), "{name} has no help");
        count += 1;
    }
    assert!(count > 30, "{count}");
}

/// `tokencached_...`, its type, then its labels; of some labels the values, too.
fn families(scrape: &str) -> BTreeSet<String> {
    let mut labels: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    let types: BTreeMap<&str, &str> =
        scrape.lines().filter_map(|line| line.strip_prefix("# TYPE ")?.split_once(' ')).collect();
    for line in scrape.lines().filter(|line| line.starts_with("tokencached_")) {
        let series = line.rsplit_once(' ').unwrap().0;
        let (name, rest) = series.split_once('{').unwrap_or((series, ""));
        let endings = ["", "_total", "_info", "_bucket", "_count", "_sum"];
        let family = endings.iter().find_map(|ending| types.get_key_value(name.strip_suffix(ending)?));
        let (family, of_type) = family.unwrap_or_else(|| panic!("{line}"));
        let known = labels.entry(format!("{family} {of_type}")).or_default();
        for (label, value) in rest.split("\",").filter_map(|label| label.trim_end_matches('}').split_once("=\"")) {
            let has_values =
                ["state", "outcome", "class"].contains(&label) && !family.contains("sink") && *of_type != "histogram";
            let value = if has_values { format!("={}", value.trim_end_matches('"')) } else { String::new() };
            known.insert(format!("{label}{value}"));
        }
    }
    let line =
        |(family, labels): (String, BTreeSet<String>)| [vec![family], labels.into_iter().collect()].concat().join(" ");
    labels.into_iter().map(line).collect()
}

/// The families and labels of the version before they were renamed.
fn recorded_families() -> BTreeSet<String> {
    include_str!("old_metrics.txt").lines().map(str::to_owned).collect()
}

#[test]
fn an_old_dashboard_finds_every_old_name_with_old_names_in_the_url() {
    let (_wechat, node) = busy_with("");
    assert_eq!(families(&node.get("/metrics?old_names=1", &[]).body), recorded_families());
    let new = families(&node.get("/metrics", &[]).body);
    assert!(!new.iter().any(|line| line.starts_with("tokencached_side_") || line.contains("own-bug")), "{new:?}");
    assert_eq!(new.len(), recorded_families().len());
    assert_eq!(families(&node.get("/metrics?old_names=0", &[]).body), new);
    assert_eq!(node.get("/metrics?old_names=2", &[]).problem(), "bad-request");
}

#[test]
fn an_old_dashboard_finds_every_old_name_with_the_setting() {
    let (_wechat, node) = busy_with("old_metric_names = true");
    assert_eq!(families(&node.get("/metrics", &[]).body), recorded_families());
    assert_eq!(families(&node.get("/metrics?old_names=1", &[]).body), recorded_families());
    let new = families(&node.get("/metrics?old_names=0", &[]).body);
    assert!(!new.iter().any(|line| line.starts_with("tokencached_side_") || line.contains("own-bug")), "{new:?}");
    node.node.await_log("/metrics gives the metric names of before");
}

/// The table in the manual is the one in the code.
#[test]
fn the_manual_has_the_table_of_old_metric_names() {
    let root = std::path::Path::new(env!("CARGO_MANIFEST_DIR"));
    let read = |path: &str| std::fs::read_to_string(root.join(path)).unwrap();
    let code = read("src/http_api/old_metric_names.rs");
    let tables = code.split("#[cfg(test)]").next().unwrap();
    let pairs: BTreeSet<(&str, &str)> = tables
        .split("(\"")
        .skip(1)
        .filter_map(|rest| {
            let (old, rest) = rest.split_once("\", \"")?;
            Some((old, rest.split_once("\")")?.0))
        })
        .filter(|(old, _)| !old.contains(['{', '}']))
        .collect();
    assert!(pairs.len() > 18, "{pairs:?}");
    let manual = read("docs/en/http-api.md");
    for (old, new) in pairs {
        let row = format!("| `{old}` | `{new}` |").replace("\\\"", "\"");
        assert!(manual.contains(&row), "docs/en/http-api.md has no row {row}");
    }
}

fn judge_names(scrape: &Scrape) {
    let names = scrape.names();
    let root = std::path::Path::new(env!("CARGO_MANIFEST_DIR"));
    for file in ["deploy/prometheus/alerts.yml", "deploy/grafana/tokencached.json"] {
        let text = std::fs::read_to_string(root.join(file)).unwrap();
        let used = metrics_in(&text);
        assert!(used.len() > 15, "{file}: {used:?}");
        let unknown: Vec<&String> = used.iter().filter(|name| !names.contains(name.as_str())).collect();
        assert!(unknown.is_empty(), "{file}: {unknown:?}");
        for label in labels_in(&text) {
            assert!(scrape.series.keys().any(|series| series.contains(&label)), "{file}: {label}");
        }
    }
    let dashboard = std::fs::read_to_string(root.join("deploy/grafana/tokencached.json")).unwrap();
    let dashboard: serde_json::Value = serde_json::from_str(&dashboard).unwrap();
    assert!(dashboard["panels"].as_array().unwrap().len() > 15);
}

/// Labels compared with one plain value: `state="blocked"`.
fn labels_in(text: &str) -> BTreeSet<String> {
    let text = text.replace("\\\"", "\"");
    let mut found = BTreeSet::new();
    for name in ["state", "outcome", "command", "status"] {
        for rest in text.split(&format!("{name}=\"")).skip(1) {
            let value = rest.split('"').next().unwrap();
            found.insert(format!("{name}=\"{value}\""));
        }
    }
    found
}
